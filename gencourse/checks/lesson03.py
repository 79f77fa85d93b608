"""The exercises of lesson 03, with their hints and the wrong answers that they know."""

import math

import torch

from gencourse import losses, store
from gencourse.checks.compare import (
    NotAttempted,
    Wrong,
    compare,
    name_mistake,
    numbers,
    scalar,
)
from gencourse.checks.drawing import drawn, match_curve
from gencourse.checks.draws import judge_gaussian, refuse_other_shapes, refuse_repeated
from gencourse.checks.exercise import exercise
from gencourse.checks.gradients import gradients_of, judge_gradients


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
    nats = scalar(prediction, "the KL")
    mistakes = {
        "Each dimension costs mu^2 / 2, not mu^2: the half is missing.": 10,
        "That is one dimension. The KL of an image is the sum over all ten.": 0.5,
        "The KL is zero only at mu = 0 *and* sigma = 1.": 0,
        "The KL is never negative.": -5,
        "That is in bits. The course counts in nats.": 5 / math.log(2),
    }
    name_mistake(nats, mistakes, tolerance=0.002)
    if abs(nats - 5) > 0.25:
        raise Wrong(f"You predict {nats:g} nats; that is not it. Use the formula.")
    return "Five nats: mu^2 / 2 in each of ten dimensions."


@exercise(
    "3.2",
    "Spot the bug: the spread of a draw",
    (
        "logvar is the logarithm of the variance, so exp(logvar) is the variance. What "
        "does a standard normal number have to be multiplied by?",
        "Multiplying by s makes the standard deviation s, and the variance s^2. For a "
        "variance of exp(logvar) you need its square root.",
        "return mu + torch.exp(0.5 * logvar) * torch.randn_like(mu).",
    ),
)
def reparameterize(trial, answer):
    n, means, logvars = 10_000, torch.randn(2, 2), torch.tensor([[-2, 1], [0.5, -1]])
    mu, logvar = means.repeat(n, 1), logvars.repeat(n, 1)  # n draws of two images
    sigma = (logvar / 2).exp()
    leaves = [mu.clone().requires_grad_(), logvar.clone().requires_grad_()]
    z = trial.run(answer, *leaves)
    draws = numbers(z, "z")
    refuse_other_shapes(trial.run(answer, torch.zeros(4, 3), torch.zeros(4, 3)), (4, 3))
    if draws.shape != mu.shape:
        raise Wrong(f"Expected z of the shape of mu, got {tuple(draws.shape)}.")
    if not draws.isfinite().all():
        raise Wrong("Some z are nan: logvar may be negative, so it has no root.")
    if torch.equal(draws, mu.double()):
        raise Wrong("z is mu: there is no noise.")
    spread = draws.view(n, 4).std(0)
    if torch.allclose(spread, logvars.flatten().exp().double(), rtol=0.05):
        raise NotAttempted(
            "this is the code as published, or does the same. A variance of exp(-2) = "
            f"0.14 is asked for, and the draws have {spread[0].square():.2f}."
        )
    refuse_repeated(draws, numbers(trial.run(answer, mu, logvar), "z"))
    eps = (draws - mu) / sigma
    if (eps[1:] - eps[:1]).abs().max() < 1e-3:
        raise Wrong("All images share one eps: draw one for every entry of mu.")
    if (eps[:, 0] - eps[:, 1]).abs().max() < 1e-3:
        raise Wrong("All dimensions of an image share one eps: draw one for each.")
    judge_gaussian(draws.view(n, 4), means.flatten(), logvars.flatten())
    judge_gradients(
        z,
        leaves,
        names=("mu", "logvar"),
        exact=(torch.ones_like(mu), eps * sigma / 2),
        hint="torch.normal passes none on: scale and shift torch.randn_like yourself.",
    )
    return (
        "The draw is random, and the gradient flows through mu and sigma. The bug "
        "shows only where logvar is not 0, which is why it is easily missed."
    )


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
    want, k = terms.sum(1), mu.shape[1]
    off_center, swapped = 0.5 * mu**2, 0.5 * ((1 + mu**2) / logvar.exp() - 1 + logvar)
    mistakes = {
        "Your KL is summed over the batch: expected one number per image.": terms.sum(),
        "Your KL is averaged over the batch: keep one number per image.": want.mean(),
        "Your KL is averaged over everything: sum over each image.": terms.mean(),
        "Your KL is the mean over the dimensions; it is their sum.": terms.mean(1),
        "You summed over the images, kept the dimensions: take dim=1.": terms.sum(0),
        "Your KL has one number per dimension: sum them up for each image.": terms,
        "The sign is flipped: a KL is never negative.": -want,
        "The half in front is missing.": 2 * want,
        "You took logvar for log sigma: exp(logvar) is already the variance.": (
            losses.kl_to_prior(mu, 2 * logvar)
        ),
        "You used the deviation exp(logvar / 2) where the variance exp(logvar) "
        "belongs.": (off_center + 0.5 * ((logvar / 2).exp() - 1 - logvar)).sum(1),
        "The -1 is missing: at mu = 0, sigma = 1 the KL must be 0.": want + k / 2,
        "The -1 is outside the sum: it belongs to every dimension.": want + (k - 1) / 2,
        "The sign of the logarithm is flipped.": (terms + logvar).sum(1),
        "mu is missing: being off-center costs, too.": (terms - off_center).sum(1),
        "That is KL(prior || q): the two are swapped.": swapped.sum(1),
        "mu is not squared.": (terms - off_center + 0.5 * mu).sum(1),
    }
    compare(trial.run(answer, mu, logvar), want, mistakes, "the KL")


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
    x = torch.rand(5, 784)
    logits = [scale * torch.randn(5, 784) for scale in (1, 0, 2, 3)]
    mu, logvar, zero = torch.randn(5, 200), torch.randn(5, 200), torch.zeros(5, 200)
    codes = [(zero, zero), (mu, zero), (zero, logvar), (mu / 2, logvar / 2)]

    def loss(logits, code):
        return _one_loss(trial.run(answer, x, logits, *code))

    # The loss as a straight line over one of its terms, while the other stays.
    recon = [losses.bernoulli_nll(x, each).mean() for each in logits]
    per_recon, constant, off = _line(recon, [loss(each, codes[0]) for each in logits])
    if abs(per_recon) < 1e-6:
        raise Wrong(
            "The loss does not change with the logits: the reconstruction is gone."
        )
    if per_recon < 0:
        raise Wrong(
            "The loss falls when the reconstruction gets worse: a sign is flipped."
        )
    if off > 0.005:
        raise Wrong("The reconstruction is not the starter's cross-entropy any more.")
    kl = [losses.kl_to_prior(*code).mean() for code in codes]
    per_kl, _, off = _line(kl, [loss(logits[0], code) for code in codes])
    if abs(per_kl) < 1e-6:
        raise Wrong("The loss does not change with mu and logvar: the KL is gone.")
    if off > 0.005:
        raise Wrong(
            "The KL is not the starter's any more: its parts do not fit together."
        )
    _judge_weight(per_kl / per_recon)
    if abs(constant / per_kl) > 0.1:
        raise Wrong(
            "The weights are right, but at mu = 0 and sigma = 1 the KL must be 0, and "
            f"yours is {constant / per_kl:.1f}. Is the -1 of every dimension missing?"
        )
    leaves = [v.clone().requires_grad_() for v in (logits[0], mu, logvar)]
    total = trial.run(answer, x, *leaves)
    gradients_of(total, leaves, ("logits", "mu", "logvar"))
    return "Now it is the negative ELBO, up to one factor in front of all of it."


def _one_loss(loss):
    if isinstance(loss, tuple | list) and len(loss) == 2:
        raise Wrong("Add the two terms: return one loss, not two.")
    loss = numbers(loss, "the loss")
    if loss.shape not in ((), (1,), (5,)):
        raise Wrong(
            f"Expected one loss, or one per image, got {tuple(loss.shape)}: shapes "
            "like (5,) + (5, 1) become (5, 5)."
        )
    return scalar(loss.mean(), "the mean of your loss")


def _line(x, y):
    """Fit y = slope * x + intercept; return both, and how far y is off the line.

    The distance is relative to the range of y, and 0 if y is constant.
    """
    x, y = numbers(x), numbers(y)
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    intercept = y.mean() - slope * x.mean()
    distance = (y - slope * x - intercept).abs().max() / (y.max() - y.min() + 1e-12)
    return slope.item(), intercept.item(), distance.item()


def _judge_weight(beta):
    """Raise unless one nat of KL weighs as much as one nat of reconstruction."""
    if abs(beta / (784 / 200) - 1) < 0.005:
        raise NotAttempted(
            "this is the code as published (or has the same balance): one nat of KL "
            "weighs 3.92 times as much as one nat of reconstruction. It should weigh 1."
        )
    mistakes = {
        "The KL is *subtracted*: the wrong sign of section 6.": -1,
        "The pixels are still averaged, and the KL is summed over everything.": 5 * 784,
        "The reconstruction is summed over everything, the KL a mean.": 1 / 1000,
        "The KL is summed now, but the reconstruction is still a mean over 784.": 784,
        "The reconstruction is summed now, the KL is still a mean over 200.": 1 / 200,
        "The KL is averaged over the batch and the reconstruction is summed.": 1 / 5,
        "The KL is summed over the batch and the reconstruction is averaged.": 5,
        "The weight is upside down: 200 / 784 is needed.": (784 / 200) ** 2,
        "The half of the KL is missing.": 2,
    }
    name_mistake(beta, mistakes, tolerance=0.0025)
    if abs(beta - 1) > 0.005:
        raise Wrong(
            f"One nat of KL weighs {beta:.3g} times as much as one of reconstruction."
        )


@exercise(
    "3.5",
    "Plot and say: what a nat buys",
    (
        "Between two neighboring runs the KL rises and the error falls. How much error "
        "is gone for each nat?",
        "price = -(change of the error) / (change of the KL), one number for each pair "
        "of neighbors: five for six runs. It belongs at the KL in the middle.",
        "for a, b in zip(rows, rows[1:]): middle = (a['kl'] + b['kl']) / 2; price = "
        "(a['distortion'] - b['distortion']) / (b['kl'] - a['kl']). Then "
        "axes.plot(middle, price, 'o-').",
    ),
)
def what_a_nat_buys(trial, answer):
    rows = [row for row in store.results()["variances"] if row["seed"] == 0]
    kl, error, at_mean, s2 = (
        torch.tensor([row[key] for row in rows], dtype=torch.float64)
        for key in ("kl", "distortion", "error", "name")
    )
    alt = "Your curve: the error that one nat takes away, against the KL."
    points = drawn(trial, answer, rows, alt=alt)
    middle, price = (kl[1:] + kl[:-1]) / 2, -error.diff() / kl.diff()
    mistakes = {
        "The sign is flipped: count the error that is *gone* as positive.": (
            middle,
            -price,
        ),
        "This is what a unit of error costs in nats; turn it upside down.": (
            middle,
            1 / price,
        ),
        "The heights are right. Put each between its two runs, at the KL in the "
        "middle.": (kl[1:], price),
        "The heights are right. Put each between its two runs, at the mean of their "
        "KL.": (kl[:-1], price),
        "This is the error at z = mu; take row['distortion'].": (
            middle,
            -at_mean.diff() / kl.diff(),
        ),
        "This is the error itself; take its change for each nat.": (kl, error),
        "This is the change of the error; divide it by that of the KL.": (
            middle,
            error.diff().abs(),
        ),
        "This is the error divided by the KL; take the changes of both.": (
            kl,
            error / kl,
        ),
        "The axes are swapped: the KL to the right.": (price, middle),
    }
    match_curve(points, middle, price, mistakes)
    inside = ((2 * s2[:-1] <= price) & (price <= 2 * s2[1:])).sum()
    return (
        "Only you can grade the sentence. Ours: the more nats there are, the less one "
        f"more buys, from {price.max():.1f} down to {price.min():.2f}. At the optimum "
        "a nat buys exactly 2 s^2, because there the loss error / (2 s^2) + KL stays "
        "as it is. So each price should lie between the 2 s^2 of its two runs: "
        f"{inside} of {len(price)} do."
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
    offsets = torch.tensor([-5000.0, 0.0, 3000.0, -200.0])
    one_apart = 2000 * torch.eye(6)  # each image has one weight far from the others
    for log_w in (
        small,
        small + offsets,
        one_apart,
        -one_apart,
        small[:1],
        small[:3, :2],
    ):
        bound_of_a_batch(trial, answer, log_w)
    return "Nothing was exponentiated that could not be."


def bound_of_a_batch(trial, answer, log_w):
    want, (n_draws, n_images) = losses.importance_weighted_bound(log_w), log_w.shape
    got = numbers(trial.run(answer, log_w), "the bound")
    if got.isnan().any():
        raise Wrong("Something became nan: inf - inf? Stay with logarithms.")
    if got.isinf().any():
        cause = (
            "underflow: exp(-5000) is 0"
            if got.min() < 0
            else "overflow: exp(2000) is infinite"
        )
        raise Wrong(
            f"The weights {cause} for a computer. Take the logarithm of the sum "
            "without leaving the logarithms, for each image on its own scale."
        )
    mistakes = {
        "This is the mean of the logarithms, which is the ELBO (K = 1). The mean must "
        "be inside the logarithm.": log_w.mean(0),
        "log K is missing: take the *mean* of the weights.": want + math.log(n_draws),
        "log K has the wrong sign.": want + 2 * math.log(n_draws),
        "You took the mean over the images: the K draws are in dim 0.": (
            torch.logsumexp(log_w, 1) - math.log(n_images)
        ),
        "That is the largest weight only.": log_w.max(0).values,
        "That is averaged over the batch: expected one number per image.": want.mean(),
    }
    compare(got, want, mistakes, "the bound", tolerance=1e-5)
