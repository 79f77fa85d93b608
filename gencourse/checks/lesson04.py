"""The exercises of lesson 04, with their hints and the wrong answers that they know."""

import copy
import math

import torch
from torch import nn
from torch.nn.functional import softplus

from gencourse import losses
from gencourse.checks.compare import NotAttempted, Wrong, compare, numbers, scalar
from gencourse.checks.drawing import drawn, match_curve
from gencourse.checks.exercise import exercise
from gencourse.checks.gradients import judge_gradients


@exercise(
    "4.1",
    "Predict: the slow spiral",
    (
        "Both players move at once: x - eta y and y + eta x. How long is the new "
        "vector, if the old one has length r?",
        "(x - eta y)^2 + (y + eta x)^2 = (1 + eta^2)(x^2 + y^2). For eta = 0.1 each "
        "step multiplies r^2 by 1.01.",
        "r^2 must grow by 4: 1.01^n = 4, so n = ln 4 / ln 1.01.",
    ),
)
def slow_spiral(trial, prediction):
    if prediction == math.inf:
        raise Wrong("Alternating steps circle forever; simultaneous ones go outward.")
    n = scalar(prediction, "the number of steps")
    exact = math.log(4) / math.log(1.01)
    for low, high, text in (
        (6.5, 10.5, "Then the distance would grow by 10% a step. It grows far less."),
        (66, 74, "That is where the *square* of the distance has doubled."),
    ):
        if low <= n <= high:
            raise Wrong(text)
    if not 0.75 * exact <= n <= 1.25 * exact:
        few = "few" if n < exact else "many"
        raise Wrong(f"You predict {n:g} steps: too {few}, by more than a quarter.")
    return (
        f"It takes {math.ceil(exact)} steps. The drift of a step is quadratic in its "
        "size: half the size takes four times as many steps. Small steps hide the "
        "drift; they do not stop it."
    )


@exercise(
    "4.2",
    "The discriminator's loss from logits",
    (
        "-log D(x) - log(1 - D(G(z))) with D = sigmoid(logit), one number per pair.",
        "1 - sigmoid(a) = sigmoid(-a). So both terms are -log sigmoid of something.",
        "-log sigmoid(a) = softplus(-a): F.softplus(-real_logits) + "
        "F.softplus(fake_logits), finite for every logit.",
    ),
)
def loss_from_logits(trial, answer):
    real, fake = 2 * torch.randn(8), 2 * torch.randn(8)
    want, swapped = (
        losses.discriminator_loss(*v) for v in ((real, fake), (fake, real))
    )
    mistakes = {
        "Real and fake are swapped: D would learn to call fakes real.": swapped,
        "The sign is flipped: this is what D maximizes, not a loss.": -want,
        "Only the real images are there; the fakes are missing.": softplus(-real),
        "Only the fakes are there; the real images are missing.": softplus(fake),
        "The fakes are called real, too: that is the *generator's* wish.": (
            softplus(-real) + softplus(-fake)
        ),
        "That is the mean over the pairs: expected one number per pair.": want.mean(),
        "That is the sum over the pairs: expected one number per pair.": want.sum(),
        "This is half of it: the two terms are added, not averaged.": want / 2,
        "These are logarithms of the logits, not of D.": -real.log() - (1 - fake).log(),
        "That is log2, in bits; the course counts in nats.": want / math.log(2),
    }
    got = trial.run(answer, real, fake)
    compare(got, want, mistakes, "the loss", tolerance=1e-4)
    far = torch.tensor([-200.0, 200.0, -200.0, 50.0])
    far_fake = torch.tensor([200.0, -200.0, -50.0, 30.0])
    got = numbers(trial.run(answer, far, far_fake), "the loss")
    if not got.isfinite().all():
        raise Wrong(
            "Right for small logits. At a logit of 200 or -200 it is not finite, and a "
            "training run would end there: exp(200) is too large for a float32, and "
            "the sigmoid of -200 is rounded to 0. Look for a function made for logits."
        )
    compare(
        got,
        losses.discriminator_loss(far, far_fake),
        what="the loss at large logits (is something clamped there? the gradient dies)",
    )
    for logits in ((real, fake), (far, far_fake)):
        leaves = [each.clone().requires_grad_() for each in logits]
        judge_gradients(
            trial.run(answer, *leaves),
            leaves,
            names=("real_logits", "fake_logits"),
            exact=(-torch.sigmoid(-logits[0]), torch.sigmoid(logits[1])),
            hint="In torch.where the branch that is not taken counts, too.",
        )
    return "And it stays finite where a sigmoid followed by a logarithm does not."


@exercise(
    "4.3",
    "One step of the discriminator",
    (
        "Draw fakes, take the loss of D on both kinds, and update D alone: zero_grad, "
        "backward, step.",
        "The fakes come from G, and backward would go on into G. Cut it there.",
        "fake = G(z).detach(); loss = losses.discriminator_loss(D(x), D(fake)).mean(); "
        "optimizer.zero_grad(); loss.backward(); optimizer.step(); return loss.",
    ),
)
def discriminator_step(trial, answer):
    G = nn.Linear(2, 3)
    D = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1), nn.Flatten(0))
    x, z = torch.randn(16, 3) + 1, torch.randn(16, 2)
    old_g, old_d = copy.deepcopy(G), copy.deepcopy(D)
    stale = [torch.randn_like(p) for p in D.parameters()]
    for p, gradient in zip(D.parameters(), stale, strict=True):
        p.grad = gradient.clone()  # what the step before has left behind
    for p in G.parameters():
        p.grad = torch.full_like(p, 0.5)  # somebody else's, to be left alone
    optimizer, steps = torch.optim.SGD(D.parameters(), lr=0.1), []
    optimizer.register_step_post_hook(lambda *_: steps.append(1))
    loss = trial.run(answer, G, D, optimizer, x, z)

    if not torch.equal(flat(G.parameters()), flat(old_g.parameters())):
        raise Wrong("G was changed. In this step only D learns.")
    got, old = flat(D.parameters()), flat(old_d.parameters())
    if torch.equal(got, old):
        raise Wrong(
            "D was not changed. Is backward() or step() missing, or is zero_grad() "
            "between them?"
        )
    if any(p.grad is None or (p.grad != 0.5).any() for p in G.parameters()):
        raise Wrong(
            "The gradients of G have changed: is detach forgotten? G's next step would "
            "begin with them, and they point the wrong way. (Wiping them afterwards "
            "would wipe what somebody else has left there.)"
        )
    if len(steps) != 1:
        raise Wrong(
            f"The given optimizer made {len(steps)} steps; it must make exactly one."
        )
    fake = old_g(z).detach()

    def right(D):
        return losses.discriminator_loss(D(x), D(fake)).mean()

    def swapped(D):
        return losses.discriminator_loss(D(fake), D(x)).mean()

    def generator_loss(D):
        return (softplus(-D(x)) + softplus(-D(fake))).mean()

    def after(loss):  # D's weights after a step by this loss
        gradients = torch.autograd.grad(
            loss(old_d), list(old_d.parameters()), materialize_grads=True
        )
        return old - 0.1 * flat(gradients)

    want = after(right)
    mistakes = {
        "The old gradients were still there: optimizer.zero_grad() is missing, or "
        "comes after backward().": want - 0.1 * flat(stale),
        "Only the old gradients were used: backward() is missing, or step() comes "
        "before it.": old - 0.1 * flat(stale),
        "D went uphill: the sign of the loss is flipped.": 2 * old - want,
        "Real and fake are swapped.": after(swapped),
        "D saw only the real images.": after(lambda D: softplus(-D(x)).mean()),
        "D saw only the fakes.": after(lambda D: softplus(D(fake)).mean()),
        "That is the sum over the batch; take the mean.": old + 16 * (want - old),
        "This is half of the loss: add the two terms.": old + (want - old) / 2,
        "The fakes were called real: that is G's loss.": after(generator_loss),
    }
    compare(got, want, mistakes, "the weights of D after the step")
    for name, network in (("G", G), ("D", D)):
        if not all(p.requires_grad for p in network.parameters()) or not all(
            part.training for part in network.modules()
        ):
            raise Wrong(
                f"{name} was frozen or put into eval() and stays so: it could not go "
                "on learning. No such switch is needed here."
            )
    returned = numbers(loss, "the loss").mean()
    compare(returned, right(old_d), what="the loss that is returned")
    return "D has learned, and G knows nothing of it."


def flat(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


@exercise(
    "4.4",
    "Spot the bug: what is 0.8?",
    (
        "Look at the signature: nn.BatchNorm1d(num_features, eps, momentum, ...). "
        "Which argument is the second?",
        "0.8 became eps, which is added to the variance. It was meant as momentum. But "
        "Keras' momentum is the weight of the *old* average, PyTorch's of the new "
        "batch.",
        "nn.BatchNorm1d(features, momentum=0.2): 0.8 of the old, 0.2 of the new.",
    ),
)
def what_is_point_eight(trial, answer):
    for features in (6, 9):
        layer_of(trial, answer, features)
    return "Nothing crashed and samples still came out: such bugs live for years."


def layer_of(trial, answer, features):
    if isinstance(answer, nn.Module):
        raise Wrong(
            "That is a layer; pass the function that makes one: norm, not norm(6)."
        )
    layer = trial.run(answer, features)
    if not isinstance(layer, nn.Module):
        raise Wrong(f"Expected a layer, got {type(layer).__name__}.")
    trial.run(lambda: layer.to("cpu", torch.float32).train())
    want = nn.BatchNorm1d(features, momentum=0.2)
    x, narrow = 3 + 0.1 * torch.randn(64, features), 0.003 * torch.randn(64, features)
    y = numbers(trial.run(layer, x), "what the layer gives")
    want(x)
    means = [getattr(part, "running_mean", None) for part in layer.modules()]
    mean = next((m for m in means if m is not None), None)
    if mean is None:
        raise Wrong("The layer keeps no running mean: that is what 0.8 was meant for.")
    mean = numbers(mean, "the running mean")
    if mean.shape != (features,):
        raise Wrong(f"The running mean has the shape {tuple(mean.shape)}.")
    new = (mean / x.mean(0)).mean().item()  # the weight of this batch
    spread, published = y.std(0).mean().item(), 0.1 / math.sqrt(0.01 + 0.8)
    if abs(spread - published) < 0.02:
        if abs(new - 0.1) < 0.01:
            raise NotAttempted("this is the code as published.")
        raise Wrong("eps is still 0.8: it is added to the variance and swallows it.")
    y_narrow = numbers(trial.run(layer, narrow), "what the layer gives")
    # The variance of y is variance / (variance + eps).
    variance = narrow.var(0, correction=0).double()
    of_each = variance / y_narrow.var(0, correction=0) - variance
    eps = of_each.mean().item()
    alike = of_each.std() < 0.01 * eps  # otherwise something else changes y, too
    if alike and abs(eps / 1e-5 - 1) > 0.02:
        raise Wrong(f"eps is {eps:.2g} now, but PyTorch's usual one is 1e-5.")
    if abs(new - 0.8) < 0.01:
        raise Wrong(
            "eps is fixed. But in Keras 0.8 is the weight of the *old* average, in "
            "PyTorch momentum is the weight of the new batch."
        )
    if abs(new - 0.1) < 0.005:
        raise Wrong(
            "eps is fixed, momentum is PyTorch's default: 0.9 of the old average. The "
            "Keras line keeps 0.8 of it."
        )
    if abs(new - 0.2) > 0.005:
        raise Wrong(f"A new batch has the weight {new:.2f}; it should have 0.2.")
    if sum(p.numel() for p in layer.parameters() if p.requires_grad) != 2 * features:
        raise Wrong(
            "A scale and a shift for each feature, weight and bias, were learned "
            "before and must still be: leave affine=True."
        )
    compare(y_narrow, want(narrow), what="what the layer gives")
    trial.run(layer.eval)
    compare(
        trial.run(layer, x),
        want.eval()(x),
        what="what the layer gives after training, in eval()",
    )


@exercise(
    "4.5",
    "Plot and say: when two clouds part",
    (
        "JSD(p, q) = KL(p || m) / 2 + KL(q || m) / 2 with m = (p + q) / 2. Integrate "
        "numerically on a fine grid, as in section 2.",
        "For each theta: p = N(0, 1), q = N(theta, 1) on a grid from -10 to 20; KL is "
        "the sum of p * log(p / m) * dx. Far out both densities are 0: use log_prob.",
        "log_m = torch.logaddexp(log_p, log_q) - log(2), and JSD = sum of (p * (log_p "
        "- log_m) + q * (log_q - log_m)) / 2 * dx.",
    ),
)
def jsd_against_distance(trial, answer):
    theta = torch.linspace(0, 10, 21)
    grid = torch.linspace(-12, 22, 6801, dtype=torch.float64)
    dx = (grid[1] - grid[0]).item()
    log_p = torch.distributions.Normal(0.0, 1.0).log_prob(grid)
    log_q = torch.stack(
        [torch.distributions.Normal(t.double(), 1.0).log_prob(grid) for t in theta]
    )
    log_m = torch.logaddexp(log_p.expand_as(log_q), log_q) - math.log(2)
    p, q = log_p.exp(), log_q.exp()
    jsd = 0.5 * ((p * (log_p - log_m)).sum(1) + (q * (log_q - log_m)).sum(1)) * dx
    alt = "Your curve: the JSD of two Gaussians against their distance."
    points = drawn(trial, answer, theta, alt=alt)
    curves = {
        "That is the KL divergence, theta^2 / 2; it grows forever.": theta.square() / 2,
        "That is in bits (log2); the course takes nats.": jsd / math.log(2),
        "That is twice the JSD: each KL has the weight 1/2.": 2 * jsd,
        "That is the value V of the game, -log 4 + 2 JSD.": 2 * jsd - math.log(4),
        "That is the root of the JSD.": jsd.clamp(min=0).sqrt(),
        "m is p + q without the half: it must be a density.": jsd - math.log(2),
        "That is the Wasserstein distance, theta itself.": theta,
    }
    mistakes = {text: (theta, heights) for text, heights in curves.items()}
    match_curve(points, theta, jsd, mistakes)
    return (
        "Only you can grade the sentence. Ours: once the two hardly overlap, the JSD "
        f"is log 2 = {math.log(2):.3f} except for a tiny remainder, and its slope is "
        "practically zero: overlap that thin no longer tells a generator where to go."
    )
