"""The exercises of lesson 03, with their hints and the wrong answers that they know."""

import math

import torch
import torch.nn.functional as F

from gencourse import losses, store
from gencourse.checks.compare import (
    NotAttempted,
    Wrong,
    compare,
    listed,
    number,
    numbers,
)
from gencourse.checks.drawing import drawn, match_curve
from gencourse.checks.exercise import exercise


@exercise(
    "3.1",
    "Predict: the price of being off-center",
    (
        "Put sigma = 1 into the formula for the KL. Which terms are left?",
        "With sigma = 1 only mu^2 / 2 is left in each dimension.",
        "Ten dimensions, each 1^2 / 2 nats: add them up.",
    ),
)
def off_center(trial, prediction):
    nats = number(prediction, "the KL")
    for wrong, text in (
        (10, "Each dimension costs mu^2 / 2, not mu^2: the half is missing."),
        (0.5, "That is one dimension. The KL of an image is the sum over all ten."),
        (0, "The KL is zero only at mu = 0 *and* sigma = 1."),
        (-5, "The KL is never negative."),
        (5 / math.log(2), "That is in bits. The course counts in nats."),
    ):
        if abs(nats - wrong) < 0.02:
            raise Wrong(text)
    if abs(nats - 5) > 0.25:
        raise Wrong(f"You predict {nats:g} nats; that is not it. Use the formula.")
    return "Five nats: mu^2 / 2 in each of ten dimensions."


@exercise(
    "3.2",
    "Reparameterize",
    (
        "Keep what is random apart from what is learned: draw something that does not "
        "depend on mu and logvar, and then shift and stretch it.",
        "z = mu + sigma * eps. sigma is exp(logvar / 2), and eps is standard normal, a "
        "number of its own for every entry of mu, at every call.",
        "return mu + torch.exp(0.5 * logvar) * torch.randn_like(mu).",
    ),
)
def reparameterize(trial, answer):
    mu = torch.tensor([[0.5, -2.0], [3.0, 1.0]]).repeat_interleave(20_000, 0)
    logvar = torch.tensor([[-2.0, 1.0], [0.5, -1.0]]).repeat_interleave(20_000, 0)
    mu.requires_grad_(True), logvar.requires_grad_(True)
    leaves = mu, logvar

    def with_leaves():
        return answer(*leaves)

    z = trial.run(with_leaves if callable(answer) else answer)
    again = numbers(trial.run(with_leaves), "z")
    draws = numbers(z, "z")
    few = numbers(trial.run(answer, torch.zeros(4, 3), torch.zeros(4, 3)), "z")
    if few.shape != (4, 3):
        raise Wrong(f"For mu of shape (4, 3) z has the shape {tuple(few.shape)}.")
    if draws.shape != mu.shape:
        raise Wrong(f"Expected z of the shape of mu, got {tuple(draws.shape)}.")
    if not draws.isfinite().all():
        raise Wrong("Some z are nan: logvar may be negative, so it has no root.")
    if torch.equal(draws, mu.detach().double()):
        raise Wrong("z is mu: there is no noise.")
    if torch.equal(draws, again):
        raise Wrong("Two calls gave the same z: eps must be drawn anew at each call.")
    sigma = (logvar / 2).exp().detach().double()
    eps = (draws - mu.detach().double()) / sigma
    if (eps[1:] - eps[:1]).abs().max() < 1e-3:
        raise Wrong("All images share one eps: draw one for every entry of mu.")
    if (eps[:, 0] - eps[:, 1]).abs().max() < 1e-3:
        raise Wrong("All dimensions of an image share one eps: draw one for each.")
    mean, std = draws.view(2, -1, 2).mean(1), draws.view(2, -1, 2).std(1)
    want = sigma.view(2, -1, 2)[:, 0]
    for factor, text in (
        (2, "sigma is exp(logvar) here, but that is the variance; sigma is its root."),
        (4, "sigma is exp(2 logvar) here; it is exp(logvar / 2)."),
        (-1, "sigma is exp(-logvar / 2) here: the sign of logvar is turned."),
        (0, "logvar is not used: every draw has the spread 1."),
    ):
        if torch.allclose(std, want.log().mul(factor).exp(), rtol=0.04):
            raise Wrong(text)
    if torch.allclose(std, 0.5 * want.square(), rtol=0.04):
        raise Wrong("The half belongs into the exponent: exp(0.5 * logvar).")
    if (mean - mu.detach().double().view(2, -1, 2)[:, 0]).abs().max() > 0.08:
        raise Wrong(
            f"The mean of the draws is not mu. Is the noise centered at 0? {_h(z)}"
        )
    if not torch.allclose(std, want, rtol=0.04):
        raise Wrong(
            f"The spread of the draws is {listed(std[0])}, not {listed(want[0])}."
        )
    if ((eps / eps.std()).pow(4).mean() - 3).abs() > 0.3:
        raise Wrong("eps is not Gaussian: use torch.randn_like, not torch.rand_like.")
    if not (isinstance(z, torch.Tensor) and z.requires_grad):
        raise Wrong(
            "The draws are right, but no gradient can flow through them to mu and "
            "logvar: .sample(), .detach() or no_grad cut it off."
        )
    try:
        grads = torch.autograd.grad(z.sum(), leaves, allow_unused=True)
    except RuntimeError:
        raise Wrong(
            "Leave the gradient to the caller: no backward() in here."
        ) from None
    right = (torch.ones_like(mu), eps * sigma / 2)
    for name, grad, exact in zip(("mu", "logvar"), grads, right, strict=True):
        if grad is None:
            raise Wrong(f"The draws are right, but no gradient flows to {name}.")
        if not torch.allclose(grad.double(), exact.double(), atol=1e-3, rtol=1e-3):
            raise Wrong(f"The draws are right, the gradient in {name} is not.")
    return "The draw is random, and the gradient flows through mu and sigma."


@exercise(
    "3.3",
    "The KL term, one number per image",
    (
        "KL = E_q[log q - log p]. For two Gaussians in one dimension E_q[z^2] = mu^2 + "
        "sigma^2 is all that you need; then add up the dimensions.",
        "For each dimension (mu^2 + sigma^2 - 1 - log sigma^2) / 2. sigma^2 is "
        "exp(logvar), and log sigma^2 is logvar itself.",
        "return 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(dim=1).",
    ),
)
def kl_term(trial, answer):
    for shape in ((6, 4), (5, 3)):
        kl_of_a_batch(trial, answer, torch.randn(shape), torch.randn(shape))
    return "It is never negative, and 0 only at mu = 0, sigma = 1."


def kl_of_a_batch(trial, answer, mu, logvar):
    terms = losses.kl_per_dimension(mu, logvar)
    want = terms.sum(1)
    log_sigma = 0.5 * (mu**2 + (2 * logvar).exp() - 1 - 2 * logvar)
    sigma_for_variance = 0.5 * (mu**2 + (0.5 * logvar).exp() - 1 - logvar)
    compare(
        trial.run(answer, mu, logvar),
        want,
        [
            ("Your KL is summed over the batch: expected one number per image.", terms.sum()),
            ("Your KL is averaged over the batch: expected one number per image.", want.mean()),
            ("Your KL is averaged over everything: expected one number per image, summed over its dimensions.", terms.mean()),
            ("Your KL is the mean over the dimensions; it is their sum.", terms.mean(1)),
            ("You summed over the images and kept the dimensions: sum over dim=1.", terms.sum(0)),
            ("Your KL has one number per dimension: sum them up for each image.", terms),
            ("The sign is turned: a KL is never negative.", -want),
            ("The half in front is missing.", 2 * want),
            ("You took logvar for log sigma: exp(logvar) is already the variance.", log_sigma.sum(1)),
            ("You used the deviation exp(logvar / 2) where the variance exp(logvar) belongs.", sigma_for_variance.sum(1)),
            ("The -1 is missing: at mu = 0, sigma = 1 the KL must be 0.", want + mu.shape[1] / 2),
            ("The -1 stands outside the sum: it belongs to every dimension.", want + (mu.shape[1] - 1) / 2),
            ("The sign of the logarithm is turned.", (terms + logvar).sum(1)),
            ("mu is missing: being off-center costs, too.", (terms - 0.5 * mu**2).sum(1)),
            ("That is KL(prior || q), the other way round.", 0.5 * ((1 + mu**2) / logvar.exp() - 1 + logvar).sum(1)),
            ("mu is not squared.", 0.5 * (mu + logvar.exp() - 1 - logvar).sum(1)),
        ],
        "the KL",
    )  # fmt: skip


@exercise(
    "3.4",
    "Spot the bug: two means, one weight",
    (
        "The reconstruction is a mean over 784 pixels, the KL a mean over 200 "
        "dimensions. What would the ELBO have?",
        "The ELBO has sums in both places. Each mean is its sum divided by another "
        "number, so the KL is weighted 784 / 200 = 3.92 times too heavily.",
        "Sum the cross-entropy over the pixels of an image, sum the KL over its "
        "dimensions, add, and take the mean over the batch at the end.",
    ),
)
def two_means(trial, answer):
    x, logits = torch.rand(5, 784), torch.randn(5, 784)
    mu, logvar = torch.randn(5, 200), 0.3 * torch.randn(5, 200)
    bce = F.binary_cross_entropy_with_logits(logits, x, reduction="none")
    kl = losses.kl_to_prior(mu, logvar)

    def gain(x, logits, mu, logvar):
        loss = trial.run(answer, x, logits, mu, logvar)
        if isinstance(loss, tuple | list) and len(loss) == 2:
            raise Wrong("Add the two terms: one loss is wanted, not two.")
        loss = numbers(loss, "the loss")
        if loss.shape not in ((), (1,), (5,)):
            raise Wrong(
                f"Expected one loss, or one per image, got {tuple(loss.shape)}: shapes "
                "like (5,) + (5, 1) become (5, 5)."
            )
        return number(loss.mean(), "the mean of your loss")

    # How much does the loss move when only one of the two terms moves?
    base = gain(x, logits, mu, logvar)
    d_kl = gain(x, logits, torch.zeros_like(mu), torch.zeros_like(mu)) - base
    weight_kl = d_kl / -kl.mean().item()
    wide = torch.randn_like(logvar)
    only_wide = gain(x, logits, torch.zeros_like(mu), wide) - base - d_kl
    in_wide = losses.kl_to_prior(torch.zeros_like(mu), wide).mean().item()
    flat = torch.zeros_like(logits)
    d_bce = gain(x, flat, mu, logvar) - base
    moved = (math.log(2) * 784 - bce.sum(1).mean()).item()
    weight_bce = d_bce / moved
    if abs(weight_bce) < 1e-9:
        raise Wrong(
            "The loss does not change with the logits: the reconstruction is gone."
        )
    if abs(weight_kl) < 1e-9:
        raise Wrong("The loss does not change with mu and logvar: the KL is gone.")
    if weight_bce < 0:
        raise Wrong(
            "The loss falls when the reconstruction gets worse: a sign is turned."
        )
    other = 2 * torch.randn_like(logits)
    d_other = gain(x, other, mu, logvar) - base
    bce_other = F.binary_cross_entropy_with_logits(other, x, reduction="none").sum(1)
    if abs(d_other / weight_bce / (bce_other - bce.sum(1)).mean().item() - 1) > 0.005:
        raise Wrong("The reconstruction is not the starter's cross-entropy any more.")
    only_mu = gain(x, logits, mu, torch.zeros_like(mu)) - base - d_kl
    in_mu = 0.5 * mu.square().sum(1).mean().item()
    if abs(only_wide / in_wide / (only_mu / in_mu) - 1) > 0.005:
        raise Wrong(
            "The KL is not the starter's any more: its parts do not fit together."
        )
    beta = weight_kl / weight_bce
    if abs(beta - 784 / 200) < 0.02:
        raise NotAttempted(
            "this is the code as published (or has the same balance): one nat of KL "
            "weighs 3.92 times as much as one nat of reconstruction. It should weigh 1."
        )
    for wrong, text in (
        (-1.0, "The KL is *subtracted*: the wrong sign of section 6."),
        (
            5 * 784.0,
            "The pixels are still averaged, and the KL is summed over everything.",
        ),
        (
            1 / 1000,
            "The reconstruction is summed over everything, and the KL is still a mean.",
        ),
        (
            784.0,
            "The KL is summed now, but the reconstruction is still a mean over 784.",
        ),
        (
            1 / 200,
            "The reconstruction is summed now, but the KL is still a mean over 200.",
        ),
        (1 / 5, "The KL is averaged over the batch and the reconstruction is summed."),
        (5.0, "The KL is summed over the batch and the reconstruction is averaged."),
        ((784 / 200) ** 2, "The weight is upside down: 200 / 784 is needed."),
        (2.0, "The half of the KL is missing."),
    ):
        if abs(beta / wrong - 1) < 0.005:
            raise Wrong(
                f"{text} One nat of KL weighs {beta:.3g} times one of the other."
            )
    if abs(beta - 1) > 0.005:
        raise Wrong(
            f"One nat of KL weighs {beta:.3g} times as much as one of the other."
        )
    return "Now it is the negative ELBO, up to one factor in front of all of it."


@exercise(
    "3.5",
    "Plot and say: rate and distortion",
    (
        "What is paid for, and in which coin? The rate is the price, so it goes to the "
        "right; one point for each row.",
        "rate = [row['kl'] for row in rows], and the same for the error. Rate goes to "
        "the right, error goes up.",
        "axes.plot(rate, error, 'o-'), then axes.set(xlabel='KL, nats per image', "
        "ylabel='squared error per image').",
    ),
)
def rate_distortion(trial, answer):
    rows = store.results()["variances"]
    kl, error, s2 = ([row[key] for row in rows] for key in ("kl", "error", "name"))
    curves, _ = drawn(
        trial,
        answer,
        rows,
        alt="Your curve: squared error against KL, a point per trained VAE.",
    )
    match_curve(
        curves,
        kl,
        error,
        [
            ("The axes are swapped: rate (KL) to the right, distortion (error) up.", error, kl),
            ("This is the error against the decoder's variance; take the KL instead.", s2, error),
            ("This is the KL against the decoder's variance; take error against KL.", s2, kl),
            ("This is the distance of the *samples*; take the squared error.", kl, [r["fidelity"] for r in rows]),
            ("This is the error against the number of the row; take the KL for x.", range(len(rows)), error),
            ("This is the loss, error + KL; the two belong on two axes.", kl, [a + b for a, b in zip(kl, error, strict=True)]),
        ],
    )  # fmt: skip
    return (
        "Only you can grade the sentence. Ours: the first nats of KL buy much, the "
        f"last little: the error falls from {max(error):.0f} to {min(error):.1f} while "
        f"the KL rises from {min(kl):.0f} to {max(kl):.0f} nats."
    )


@exercise(
    "3.6",
    "A bound from weights that underflow",
    (
        "You want the logarithm of a mean of numbers like exp(-5000), which a computer "
        "rounds to 0.",
        "log(sum(exp(a))) = m + log(sum(exp(a - m))) for any m; take the largest a. "
        "torch.logsumexp does it.",
        "torch.logsumexp(log_w, dim=0) - math.log(len(log_w)): the mean is the sum "
        "over K, and log(sum / K) = log(sum) - log(K).",
    ),
)
def bound_from_weights(trial, answer):
    small = 2 * torch.randn(6, 4)
    apart = torch.zeros(6, 4)
    apart[0], apart[1:, 2] = -400.0, 900.0  # weights of one image that differ a lot
    offsets = torch.tensor([-5000.0, 0.0, 3000.0, -200.0])
    for log_w in (small, small + offsets, small + apart, small[:1], small[:3, :2]):
        bound_of_a_batch(trial, answer, log_w)
    return "Nothing was exponentiated that could not be."


def bound_of_a_batch(trial, answer, log_w):
    want, (K, B) = losses.importance_weighted_bound(log_w), log_w.shape
    got = numbers(trial.run(answer, log_w), "the bound")
    if got.isnan().any():
        raise Wrong("Something became nan: inf - inf? Stay with logarithms.")
    if got.isinf().any():
        how, what = (
            ("under", "-5000) is 0") if got.min() < 0 else ("over", "900) is infinite")
        )
        raise Wrong(
            f"The weights {how}flow: exp({what} for a computer. Take the logarithm of the "
            "sum without leaving the logarithms, for each image on its own scale."
        )
    compare(
        got,
        want,
        [
            ("This is the mean of the logarithms, which is the ELBO (K = 1). The mean must stand inside the logarithm.", log_w.mean(0)),
            ("log K is missing: the bound has the *mean* of the weights, not their sum.", want + math.log(K)),
            ("log K has the wrong sign.", want + 2 * math.log(K)),
            ("You took the mean over the images: the K draws are in dim 0.", torch.logsumexp(log_w, 1) - math.log(B)),
            ("That is the largest weight only.", log_w.max(0).values),
            ("That is averaged over the batch: expected one number per image.", want.mean()),
        ],
        "the bound",
        tolerance=1e-5,
    )  # fmt: skip


def _h(z):
    low = numbers(z).min().item()
    return f"(the smallest draw is {low:.2f})"
