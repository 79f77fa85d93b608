"""The exercises of lesson 01, with their hints and the wrong answers that they know."""

import math

import torch

from gencourse import faces
from gencourse.checks.compare import NotAttempted, Wrong, compare, scalar
from gencourse.checks.drawing import drawn, match_curve
from gencourse.checks.draws import draws_of, judge_gaussian, refuse_other_shapes
from gencourse.checks.exercise import exercise


@exercise(
    "1.1",
    "Predict: the ball in the cube",
    (
        "In two dimensions the disc fills 79% of the square, in three the ball 52% of "
        "the cube. What happens to a corner when dimensions are added?",
        "There are 2^8 = 256 corners, and each is sqrt(8) = 2.8 from the middle. The "
        "ball reaches only to 1.",
        "The ball's volume is pi^4 / 24 = 4.06, the cube's 2^8 = 256. Divide.",
    ),
)
def ball_in_cube(trial, prediction):
    share = scalar(prediction, "the share")
    exact = math.pi**4 / 24 / 2**8
    if not 0 <= share <= 1:
        raise Wrong("A share lies between 0 and 1. If you thought of 2%, write 0.02.")
    if share > 0.4:
        raise Wrong(
            f"You predict {share:g}. That holds in two or three dimensions (0.79, "
            "0.52), where our intuition comes from. In eight nearly everything is in "
            "the corners."
        )
    if not exact / 4 <= share <= 4 * exact:
        far = "large" if share > exact else "small"
        raise Wrong(f"You predict {share:g}: too {far}, by more than a factor of four.")
    return (
        f"Exactly it is {exact:.4f}. In high dimensions hardly anything is near the "
        "middle. Eight are enough for that; an image has thousands."
    )


@exercise(
    "1.2",
    "How many images are there?",
    (
        "Each value can take `levels` values, independently of the others. How many "
        "ways are there for two values? For n?",
        "There are levels ** n images, with n = channels * size * size. That number "
        "may be too large for a float, but its logarithm is not.",
        "log10(levels ** n) = n * log10(levels).",
    ),
)
def log10_images(trial, answer):
    for size, channels, levels in ((8, 1, 17), (32, 3, 256), (128, 3, 256)):
        n = channels * size * size
        log10 = math.log10(levels)
        got = trial.run(answer, size, channels, levels)
        text = f"{size} x {size}, {channels} channel(s), {levels} levels"
        if isinstance(got, int) and got == levels**n:
            raise Wrong("That is the number of images itself; take its logarithm.")
        mistakes = {
            "You took the natural logarithm; digits need log10.": n * math.log(levels),
            "That is log2, in bits; digits need log10.": n * math.log2(levels),
            "The channels are missing.": n / channels * log10,
            "Only one side is counted: there are size * size pixels.": n / size * log10,
            "You swapped base and exponent: every value has `levels` choices, so there "
            "are levels ** n images, not n ** levels.": levels * math.log10(n),
            "The n is missing: this is the logarithm for a single value.": log10,
            "This is the count of values n; how many images do they make?": n,
        }
        what = f"log10 of the number of images ({text})"
        compare(got, n * log10, mistakes, what, tolerance=1e-5)
    return (
        "The digits of lesson 02's last section: 8 x 8 and 17 levels, 10^78.7 images."
    )


@exercise(
    "1.3",
    "Blend knobs",
    (
        "At t = 0 you want z_a, at t = 1 z_b, and halfway the mean of the two.",
        "(1 - t) z_a + t z_b, for each t. t has the shape (T,), z_a has (8,): what "
        "shape must t have so that the product is (T, 8)?",
        "t[:, None] has the shape (T, 1): (1 - t[:, None]) * z_a + t[:, None] * z_b.",
    ),
)
def blend_knobs(trial, answer):
    z_a, z_b = faces.sample_knobs(2, seed=3)
    for n in (8, 7, 1):  # with eight steps (T,) fits (8,) by accident
        t = torch.rand(n)
        ruler = torch.linspace(0, 1, n)[:, None]
        want = (1 - t[:, None]) * z_a + t[:, None] * z_b
        matched_with_knobs = (1 - t) * z_a + t * z_b if n == 8 else torch.tensor([])
        mistakes = {
            "The path runs backwards: at t = 0 it must be at z_a.": z_a + z_b - want,
            "The steps are not at the given t; t need not be evenly spaced.": (
                (1 - ruler) * z_a + ruler * z_b
            ),
            "It has the shape (8, T): there must be a row per t, not per knob.": want.T,
            "There is no weight on z_a: multiply it by 1 - t.": z_a + t[:, None] * z_b,
            "z_a + t (z_a + z_b) has a wrong sign: add t (z_b - z_a).": (
                z_a + t[:, None] * (z_a + z_b)
            ),
            "z_a + t (z_a - z_b) leads away from z_b: add t (z_b - z_a).": (
                z_a + t[:, None] * (z_a - z_b)
            ),
            "The start is missing: this is only the way from z_a, so add z_a.": (
                t[:, None] * (z_b - z_a)
            ),
            "Each knob gets its own t: t of shape (8,) was matched with the knobs, not "
            "with the steps. Make it (T, 1).": matched_with_knobs,
        }
        compare(trial.run(answer, z_a, z_b, t), want, mistakes, "the path")
    return "Such a path is a straight line in latent space and a curve in image space."


@exercise(
    "1.4",
    "Spot the bug: the spread of a draw",
    (
        "logvar is the logarithm of the variance, so exp(logvar) is the variance. What "
        "does a standard normal number have to be multiplied by?",
        "Multiplying by s makes the standard deviation s, and the variance s^2. For a "
        "variance of exp(logvar) you need its square root.",
        "The square root of exp(logvar) is exp(logvar / 2).",
    ),
)
def spread_of_a_draw(trial, answer):
    mu, logvar = torch.tensor([0.5, -1.0, 3.0]), torch.tensor([-2.0, 0.0, 1.5])
    draws = draws_of(trial, answer, mu, logvar, 10_000, shape=(10_000, 3))
    if torch.allclose(draws.std(0), logvar.exp().double(), rtol=0.05):
        raise NotAttempted(
            "this is the code as published, or does the same. A variance of exp(-2) = "
            f"0.14 is asked for, and the draws have {draws[:, 0].var():.2f}."
        )
    judge_gaussian(draws, mu, logvar)
    for n, k in ((4, 3), (5, 2)):
        few = trial.run(answer, torch.zeros(k), torch.zeros(k), n)
        refuse_other_shapes(few, (n, k))
    return "The bug shows only where logvar is not 0, which is why it is easily missed."


@exercise(
    "1.5",
    "Plot and say: what PCA keeps",
    (
        "The share that k components keep is the sum of the k largest variances over "
        "the sum of all.",
        "torch.cumsum gives all those sums at once.",
        "share = variances.cumsum(0) / variances.sum(), over k = 1, 2, ..., "
        "len(variances). Then axes.plot(k, share), axes.set(xlabel=..., ylabel=...).",
    ),
)
def what_pca_keeps(trial, answer):
    x = faces.render(faces.sample_knobs(600, seed=5), 16).flatten(1)
    variances = torch.linalg.svdvals(x - x.mean(0)).square() / len(x)
    n, sums = len(variances), variances.cumsum(0)
    k = range(1, n + 1)
    own, share = variances / sums[-1], sums / sums[-1]
    alt = "Your curve: the share of the variance against the number of components."
    points = drawn(trial, answer, variances, alt=alt)
    if points[1].max() > 50:  # in percent
        points = points * torch.tensor([[1.0], [0.01]])
    deviations = variances.sqrt().cumsum(0) / variances.sqrt().sum()
    mistakes = {
        "This is each component's own variance; add up the first k.": (k, variances),
        "This is each component's own share; add up the first k.": (k, own),
        "The sums are right. Divide by the sum of all for a share.": (k, sums),
        "These are shares of the standard deviation; variances add up, deviations do "
        "not.": (k, deviations),
        "The heights are right, but the first is at k = 0. One component is k = 1.": (
            range(n),
            share,
        ),
        "This is the share that is *lost*; the kept one rises.": (k, 1 - share),
        "The axes are swapped: the number of components to the right.": (share, k),
    }
    match_curve(points, k, share, mistakes)
    enough = int((share < 0.95).sum()) + 1
    return (
        "Only you can grade the sentence. Ours: these faces were made from eight "
        f"knobs, and yet it takes {enough} straight directions to keep 95% of their "
        "variance, because they lie on a curved sheet. (Section 5 counts more, on more "
        "and larger images.)"
    )
