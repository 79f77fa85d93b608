"""The exercises of lesson 02, with their hints and the wrong answers that they know."""

import torch

from gencourse import faces, losses
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
    "2.1",
    "Predict: the largest step",
    (
        "Follow the distance to the minimum, e = w - 3. What does one step make of it?",
        "The gradient is 2 (w - 3) = 2e, so a step gives e - eta * 2e = (1 - 2 eta) e.",
        "It converges while |1 - 2 eta| < 1. For which eta is that just not so?",
    ),
)
def largest_step(trial, prediction):
    eta = number(prediction, "the step size")
    if abs(eta - 0.5) < 0.02:
        raise Wrong(
            "0.5 is the *best* step: it lands on the minimum at once. Larger ones jump "
            "over it, and still come nearer each time. Up to where?"
        )
    if abs(eta - 2) < 0.02:
        raise Wrong(
            "That is right for the loss (w - 3)^2 / 2. Here the gradient is 2 (w - 3)."
        )
    if eta <= 0:
        raise Wrong("A step size is positive; with a negative one the loss rises.")
    if abs(eta - 1) > 0.01:
        how = "converges" if eta < 1 else "runs away"
        raise Wrong(
            f"With steps of {eta:g} it {how}: each step multiplies w - 3 by "
            f"{1 - 2 * eta:.3g}. The limit is elsewhere."
        )
    return (
        "At 1 it jumps from one side to the other forever. For every quadratic loss the "
        "limit is 2 over the largest curvature, here 2 / 2."
    )


@exercise(
    "2.2",
    "The gradient of the squared error",
    (
        "Take one pixel first: the derivative of (x - x_hat)^2 in x_hat, with the "
        "chain rule.",
        "The inner derivative of x - x_hat in x_hat is -1.",
        "2 (x - x_hat) times -1 is 2 (x_hat - x). No sum: every pixel has its own.",
    ),
)
def gradient_of_squared_error(trial, answer):
    x, x_hat = torch.rand(4, 3, 5, 5), torch.rand(4, 3, 5, 5)
    want = 2 * (x_hat - x)
    compare(
        trial.run(answer, x, x_hat),
        want,
        [
            ("The sign is turned: downhill would lead away from x.", -want),
            ("The factor 2 from the square is missing.", want / 2),
            ("The factor 2 is missing and the sign is turned.", -want / 2),
            ("That is the gradient of the *mean* over an image; the loss is the sum.", want / 75),
            ("That is the gradient of the mean over the batch and the pixels; the loss is the sum.", want / 300),
            ("That is the mean over the batch; each image has its own loss here.", want / 4),
            ("This is the loss, not its gradient.", losses.squared_error(x, x_hat)),
            ("These are the squares themselves, not their derivative.", (x - x_hat).square()),
            ("You summed over the pixels; each pixel has its own derivative.", want.flatten(1).sum(1)),
            ("You summed over everything; each pixel has its own derivative.", want.sum()),
            ("That is the derivative of |x - x_hat|.", (x_hat - x).sign()),
        ],
        "the gradient",
    )  # fmt: skip
    return "Each pixel is pulled straight towards its value, the harder the farther."


@exercise(
    "2.3",
    "Spot the bug: a mean that says it is a sum",
    (
        "Print the value for images of 8 x 8 and of 64 x 64 pixels. A sum over pixels "
        "grows with their number; does it?",
        "F.mse_loss divides by all values of the whole batch. The formula wants no "
        "division, and one number for each image.",
        "(x - x_hat).square().flatten(1).sum(1): sum over everything but the batch.",
    ),
)
def mean_for_sum(trial, answer):
    for shape in ((4, 3, 8, 8), (5, 1, 6, 6)):
        x, x_hat = torch.rand(shape), torch.rand(shape)
        want = losses.squared_error(x, x_hat)
        got = numbers(trial.run(answer, x, x_hat), "the loss")
        if got.numel() == 1 and torch.isclose(got, want.mean().double() / x[0].numel()):
            raise NotAttempted(
                "this is the code as published. It gives one number, "
                f"{got.item():.3f}; the formula gives {want[0]:.1f} for the first image."
            )
        compare(
            got,
            want,
            [
                ("This is summed over the batch, too: expected one number per image.", want.sum()),
                ("This is the mean over the batch: expected one number per image.", want.mean()),
                ("There is one number per image now, but it is still the mean over its pixels.", want / x[0].numel()),
                ("You sum over the batch and keep the pixels: it is the other way round.", (x - x_hat).square().sum(0)),
                ("The square root is too much: ||.||^2 is the sum of squares itself.", want.sqrt()),
                ("You summed the channels only: sum over height and width, too.", (x - x_hat).square().sum(1)),
                ("There is one number per pixel: sum them for each image.", (x - x_hat).square()),
                ("That is the sum of |x - x_hat|, not of its square.", (x - x_hat).abs().flatten(1).sum(1)),
            ],
            "the loss",
        )  # fmt: skip
    return (
        "Alone, the two differ by a constant factor, which Adam hardly notices. Beside "
        "a second term (lesson 03) the factor is its weight: 12,288 at 64 x 64 x 3."
    )


@exercise(
    "2.4",
    "Plot and say: the price of a shift",
    (
        "You need nine numbers. Write the one for s = 2 first, then put it into a loop.",
        "Compute losses.squared_error(x, shifted).mean() for s = 0, 1, ..., 8 in a "
        "list.",
        "error = [losses.squared_error(x, torch.roll(x, s, dims=3)).mean() for s in "
        "range(9)], then axes.plot(range(9), error) and labels.",
    ),
)
def price_of_a_shift(trial, answer):
    x = faces.render(faces.sample_knobs(64, seed=7), 32)

    def price(dims, measure):
        moved = [torch.roll(x, s, dims=dims) for s in range(9)]
        return torch.stack([measure(y).mean() for y in moved])

    def squared(y):
        return losses.squared_error(x, y)

    want, s = price(3, squared), range(9)
    curves, _ = drawn(
        trial,
        answer,
        x,
        alt="Your curve: the squared error of a face and its shifted copy.",
    )
    match_curve(
        curves,
        s,
        want,
        [
            ("These are shifts up and down; the task shifts to the side (the last axis).", s, price(2, squared)),
            ("This is the mean per pixel value; take the sum over each image.", s, want / 3072),
            ("This is the sum over all faces; take the mean over them.", s, want * 64),
            ("The heights are right, but a shift of 0 stands at x = 1.", range(1, 10), want),
            ("The curve begins at a shift of 1; begin at 0, where nothing is lost.", range(1, 9), want[1:]),
            ("This is the root of the error; plot the squared error itself.", s, price(3, lambda y: squared(y).sqrt())),
            ("This is the absolute error; the lesson's loss is the squared one.", s, price(3, lambda y: (x - y).abs().flatten(1).sum(1))),
        ],
    )  # fmt: skip
    return (
        "Only you can grade the sentence. Ours: the price grows almost in proportion to "
        f"the shift from the first pixel on, which nobody sees and which costs "
        f"{want[1]:.0f} already."
    )


@exercise(
    "2.5",
    "Draw codes from a Gaussian",
    (
        "You need the mean of the codes, (k,), and their covariance, (k, k): "
        "codes.T.cov().",
        "torch.distributions.MultivariateNormal(mean, covariance) draws. By hand: "
        "noise @ L.T + mean, with L the Cholesky factor of the covariance.",
        "return torch.distributions.MultivariateNormal(codes.mean(0), "
        "codes.T.cov()).sample((n,)).",
    ),
)
def draw_codes(trial, answer):
    mix = torch.tensor([[1.0, 0.0, 0.0], [1.5, 0.6, 0.0], [-0.5, 0.2, 2.0]])
    box = (torch.rand(4000, 3) - 0.5) * 12**0.5  # not Gaussian, but the draws must be
    codes = box @ mix.T + torch.tensor([2.0, -1.0, 0.5])
    mean, covariance = codes.mean(0).double(), codes.T.cov().double()
    got = numbers(trial.run(answer, codes, 20_000), "the draws")
    if got.shape != (20_000, 3):
        raise Wrong(f"Expected n draws, shape (20000, 3), got {tuple(got.shape)}.")
    if not got.isfinite().all():
        raise Wrong("Some draws are not finite numbers.")
    drawn_mean, drawn_covariance = got.mean(0), got.T.cov()
    if drawn_mean.abs().max() < 0.1:
        raise Wrong("The draws lie around 0, not around the mean of the codes.")
    if (drawn_mean - mean).abs().max() > 0.1:
        raise Wrong(f"The mean of the draws is {drawn_mean.tolist()}.")
    looked_at = (
        (
            torch.diag(covariance.diagonal()),
            "Each dimension has the right spread, but the draws are not correlated, and "
            "the codes are. Use the whole covariance, not only its diagonal.",
        ),
        (
            covariance @ covariance.T,
            "The covariance itself was used as a factor of the noise. Use its Cholesky "
            "factor, or MultivariateNormal.",
        ),
        (torch.eye(3), "The spread is that of N(0, I), not that of the codes."),
        (
            torch.diag(covariance.diagonal().square()),
            "The variance was used as a standard deviation, and the correlations are "
            "missing.",
        ),
        (
            torch.linalg.cholesky(covariance).T @ torch.linalg.cholesky(covariance),
            "The Cholesky factor is on the wrong side: noise @ L.T, since each draw is "
            "a row.",
        ),
        (torch.zeros(3, 3), "All draws are the same: there is no noise."),
    )
    for wrong, text in looked_at:
        if _near(drawn_covariance, wrong.double()):
            raise Wrong(text)
    if _near(drawn_covariance.diagonal(), covariance.diagonal()) and not _near(
        drawn_covariance, covariance
    ):
        correlations = drawn_covariance[0, 1:], covariance[0, 1:]
        raise Wrong(
            "The variances are right, the covariances are not: with the first dimension "
            f"{listed(correlations[0])} instead of {listed(correlations[1])}."
        )
    if not _near(drawn_covariance, covariance):
        raise Wrong(
            f"The variances of the draws are {listed(drawn_covariance.diagonal())}, "
            f"those of the codes {listed(covariance.diagonal())}; compare "
            "draws.T.cov() with codes.T.cov()."
        )
    white = torch.linalg.solve_triangular(
        torch.linalg.cholesky(covariance), (got - mean).T, upper=False
    )
    if (white.pow(4).mean(1) - 3).abs().max() > 0.5:
        same = torch.cdist(got[:500], codes.double()).min(1).values.median() < 0.01
        raise Wrong(
            "These are the codes themselves, drawn again: nothing new is made."
            if same
            else "Mean and covariance are right, but the draws are not Gaussian."
        )
    few = numbers(trial.run(answer, codes[:, :2], 7), "the draws")
    if few.shape != (7, 2):
        raise Wrong(
            f"For 7 draws of 2 numbers the shape must be (7, 2), not {tuple(few.shape)}."
        )
    return "With these lines section 8 turned an autoencoder into a generator."


def _near(got, want):
    return (got - want).abs().max() < 0.05 * want.abs().max() + 0.02
