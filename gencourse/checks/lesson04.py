"""The exercises of lesson 04, with their hints and the wrong answers that they know."""

import copy
import math

import torch
from torch import nn

from gencourse import losses
from gencourse.checks.compare import NotAttempted, Wrong, compare, number, numbers
from gencourse.checks.drawing import drawn, match_curve
from gencourse.checks.exercise import exercise


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
    n = number(prediction, "the number of steps")
    exact = math.log(4) / math.log(1.01)
    for low, high, text in (
        (6.5, 10.5, "So the distance would grow by 10% a step. It grows by far less."),
        (66, 74, "That is where the *square* of the distance has doubled."),
    ):
        if low <= n <= high:
            raise Wrong(text)
    if not 0.75 * exact <= n <= 1.25 * exact:
        few = "few" if n < exact else "many"
        raise Wrong(f"You predict {n:g} steps: too {few}, by more than a quarter.")
    return (
        f"It takes {math.ceil(exact)} steps. The drift is quadratic in the step size, "
        "so small steps hide it for a long time; they do not stop it."
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
    softplus = torch.nn.functional.softplus
    want = losses.discriminator_loss(real, fake)
    compare(
        trial.run(answer, real, fake),
        want,
        [
            ("Real and fake are swapped: D would learn to call fakes real.", losses.discriminator_loss(fake, real)),
            ("The sign is turned: this is what D maximizes, not a loss.", -want),
            ("Only the real images are there; the fakes are missing.", softplus(-real)),
            ("Only the fakes are there; the real images are missing.", softplus(fake)),
            ("The fakes are called real, too: that is the *generator's* wish.", softplus(-real) + softplus(-fake)),
            ("That is the mean over the pairs: expected one number per pair.", want.mean()),
            ("That is the sum over the pairs: expected one number per pair.", want.sum()),
            ("This is half of it: the two terms are added, not averaged.", want / 2),
            ("The logarithms were taken of the logits; they need sigmoid(logit).", -real.log() - (1 - fake).log()),
            ("That is log2, in bits; the course takes natural logarithms.", want / math.log(2)),
        ],
        "the loss",
        tolerance=1e-4,
    )  # fmt: skip
    far = torch.tensor([-200.0, 200.0, -200.0, 50.0])
    far_fake = torch.tensor([200.0, -200.0, -50.0, 30.0])
    got = numbers(trial.run(answer, far, far_fake), "the loss")
    if not got.isfinite().all():
        raise Wrong(
            "Right for small logits. At a logit of 200 or -200 it is not finite, and a "
            "training run would end there: exp(200) is too large for a float32, and the "
            "sigmoid of -200 is rounded to 0. Look for a function made for logits."
        )
    compare(
        got,
        losses.discriminator_loss(far, far_fake),
        [],
        "the loss at large logits (is something clamped there? the gradient dies)",
    )
    leaves = [v.clone().requires_grad_(True) for v in (far, far_fake)]
    loss = trial.run(lambda: answer(*leaves))
    if isinstance(loss, torch.Tensor) and loss.requires_grad:
        try:
            gradients = torch.autograd.grad(loss.sum(), leaves, allow_unused=True)
        except RuntimeError:
            raise Wrong(
                "Leave the gradient to the caller: no backward() in here."
            ) from None
        if any(g is None or not g.isfinite().all() for g in gradients):
            raise Wrong(
                "The loss is right everywhere, but its gradient at a logit of +-200 is "
                "missing or nan: the branch that is not used counts in the gradient, too."
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
    stale = [torch.randn_like(p) for p in D.parameters()]
    before_g, before_d = copy.deepcopy(G.state_dict()), copy.deepcopy(D.state_dict())

    original = copy.deepcopy(D)

    def after(loss, keep_stale=False):  # D's weights after a step by this loss
        twin = copy.deepcopy(original)
        grads = torch.autograd.grad(
            loss(twin), list(twin.parameters()), allow_unused=True
        )
        with torch.no_grad():
            for p, g, old in zip(twin.parameters(), grads, stale, strict=True):
                p -= 0.1 * (torch.zeros_like(p) if g is None else g)
                p -= 0.1 * old if keep_stale else 0
        return torch.cat([p.detach().flatten() for p in twin.parameters()])

    fake = G(z).detach()
    softplus = torch.nn.functional.softplus

    def right(D):
        return losses.discriminator_loss(D(x), D(fake)).mean()

    want = right(D).detach()
    for p, old in zip(D.parameters(), stale, strict=True):
        p.grad = old.clone()  # what the step before has left behind
    for p in G.parameters():
        p.grad = torch.full_like(p, 0.5)  # somebody else's, to be left alone
    optimizer, stepped = torch.optim.SGD(D.parameters(), lr=0.1), []
    optimizer.register_step_post_hook(lambda *_: stepped.append(True))
    loss = trial.run(answer, G, D, optimizer, x, z)

    if any(not torch.equal(v, before_g[k]) for k, v in G.state_dict().items()):
        raise Wrong("G was changed. In this step only D learns.")
    got = torch.cat([p.detach().flatten() for p in D.parameters()])
    old = torch.cat([v.flatten() for v in before_d.values()])
    if torch.equal(got, old):
        raise Wrong(
            "D was not changed. Is backward() or step() missing, or does zero_grad() stand "
            "between them?"
        )
    if any(p.grad is None or (p.grad != 0.5).any() for p in G.parameters()):
        raise Wrong(
            "The gradients of G have changed: is detach forgotten? G's next step would "
            "begin with them, and they point the wrong way. (Wiping them afterwards "
            "would wipe what somebody else has left there.)"
        )
    if len(stepped) != 1:
        raise Wrong(
            f"The given optimizer made {len(stepped)} steps; it must make exactly one."
        )
    compare(
        got,
        after(right),
        [
            ("The old gradients were still there: optimizer.zero_grad() is missing, or comes after backward().", after(right, True)),
            ("Only the old gradients were used: backward() is missing, or step() stands before it.", old - 0.1 * torch.cat([s.flatten() for s in stale])),
            ("D went uphill: the sign of the loss is turned.", after(lambda D: -right(D))),
            ("Real and fake are swapped.", after(lambda D: losses.discriminator_loss(D(fake), D(x)).mean())),
            ("D saw only the real images.", after(lambda D: softplus(-D(x)).mean())),
            ("D saw only the fakes.", after(lambda D: softplus(D(fake)).mean())),
            ("That is the sum over the batch; take the mean.", after(lambda D: right(D) * 16)),
            ("This is half of the loss: add the two terms.", after(lambda D: right(D) / 2)),
            ("The fakes were called real: that is G's loss.", after(lambda D: (softplus(-D(x)) + softplus(-D(fake))).mean())),
        ],
        "the weights of D after the step",
    )  # fmt: skip
    for name, network in (("G", G), ("D", D)):
        if not all(p.requires_grad for p in network.parameters()) or not all(
            part.training for part in network.modules()
        ):
            raise Wrong(
                f"{name} was frozen or put into eval() and stays so: it could not go on "
                "learning. No such switch is needed here."
            )
    loss = numbers(loss, "the loss")
    compare(loss.mean(), want, [], "the loss that is returned", tolerance=1e-3)
    return "D has learned, and G knows nothing of it."


@exercise(
    "4.4",
    "Spot the bug: what is 0.8?",
    (
        "Look at the signature: nn.BatchNorm1d(num_features, eps, momentum, ...). "
        "Which argument is the second?",
        "0.8 became eps, which is added to the variance. It was meant as momentum. But "
        "Keras' momentum is the weight of the *old* average, PyTorch's of the new batch.",
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
    x, narrow = 3 + 0.1 * torch.randn(64, features), 0.01 * torch.randn(64, features)
    spread = numbers(trial.run(layer, x), "what the layer gives").std(0).mean().item()
    means = [getattr(part, "running_mean", None) for part in layer.modules()]
    mean = next((m for m in means if m is not None), None)
    if mean is None:
        raise Wrong("The layer keeps no running mean: that is what 0.8 was meant for.")
    mean = numbers(mean, "the running mean")
    if mean.shape != (features,):
        raise Wrong(f"The running mean has the shape {tuple(mean.shape)}.")
    new = (mean / x.mean(0)).mean().item()  # the weight of this batch
    variance = narrow.var(0, unbiased=False)
    usual = (narrow.std(0) / (variance + 1e-5).sqrt()).mean().item()
    gave = (
        numbers(trial.run(layer, narrow), "what the layer gives").std(0).mean().item()
    )
    published = 0.1 / math.sqrt(0.01 + 0.8)
    if abs(spread - published) < 0.02:
        if abs(new - 0.1) < 0.01:
            raise NotAttempted(
                "this is the code as published. Features with a spread of 0.1 leave it "
                f"with {spread:.2f}, not with 1."
            )
        raise Wrong("eps is still 0.8: it is added to the variance and swallows it.")
    if abs(spread - 1) > 0.03 or abs(gave / usual - 1) > 0.06:
        raise Wrong(
            f"Features with a spread of 0.1 and 0.01 leave the layer with {spread:.2f} "
            f"and {gave:.2f}, not with 1 and {usual:.2f}: is eps PyTorch's usual 1e-5?"
        )
    if abs(new - 0.8) < 0.01:
        raise Wrong(
            "eps is mended. But in Keras 0.8 is the weight of the *old* average, in "
            "PyTorch momentum is the weight of the new batch."
        )
    if abs(new - 0.1) < 0.005:
        raise Wrong(
            "eps is mended, momentum is PyTorch's default: 0.9 of the old average. The "
            "authors wanted 0.8 of it."
        )
    if abs(new - 0.2) > 0.005:
        raise Wrong(f"A new batch has the weight {new:.2f}; it should have 0.2.")


@exercise(
    "4.5",
    "Plot and say: when the humps part",
    (
        "JSD(p, q) = KL(p || m) / 2 + KL(q || m) / 2 with m = (p + q) / 2. Integrate "
        "numerically on a fine grid, as in section 2.",
        "For each theta: p = N(0, 1), q = N(theta, 1) on a grid from -10 to 20; KL is "
        "the sum of p * log(p / m) * dx. Far out both densities are 0: use log_prob.",
        "log_m = torch.logaddexp(log_p, log_q) - log(2), and JSD = sum of (p * (log_p "
        "- log_m) + q * (log_q - log_m)) / 2 * dx.",
    ),
)
def supports_part(trial, answer):
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
    curves, _ = drawn(
        trial,
        answer,
        theta,
        alt="Your curve: the JSD of two Gaussians against their distance.",
    )
    match_curve(
        curves,
        theta,
        jsd,
        [
            ("That is the KL divergence, theta^2 / 2; it grows forever.", theta, theta.square() / 2),
            ("That is in bits (log2); the course takes nats.", theta, jsd / math.log(2)),
            ("That is twice the JSD: each KL has the weight 1/2.", theta, 2 * jsd),
            ("That is the value V of the game, -log 4 + 2 JSD.", theta, 2 * jsd - math.log(4)),
            ("That is the root of the JSD.", theta, jsd.clamp(min=0).sqrt()),
            ("m is p + q without the half: it must be a density.", theta, jsd - math.log(2)),
            ("That is the Wasserstein distance, theta itself.", theta, theta),
        ],
    )  # fmt: skip
    return (
        "Only you can grade the sentence. Ours: once the humps hardly overlap, the JSD "
        f"is log 2 = {math.log(2):.3f} but for a tiny rest, and its slope is practically "
        "zero: it no longer tells a generator where to go."
    )
