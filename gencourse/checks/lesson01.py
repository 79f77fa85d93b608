"""The exercises of lesson 01, with their hints and the wrong answers that they know."""

import math

import numpy
import torch

from gencourse import faces, metrics
from gencourse.checks.compare import (
    NotAttempted,
    Wrong,
    compare,
    name_mistake,
    numbers,
    scalar,
)
from gencourse.checks.drawing import drawn, match_curve
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
    "How far off may every value be?",
    (
        "Section 1 has the bound. Take its logarithm, which is never too large or too "
        "small for a float. For which slack is it below 0?",
        "log10_faces + n_values * log10((2 * slack + 1) / levels) grows with the "
        "slack. Try 0, 1, 2, ... and stop before it reaches 0.",
        "slack = 0; while log10_faces + n_values * math.log10((2 * slack + 3) / "
        "levels) < 0: slack += 1; return slack. (2 * slack + 3 = 2 * (slack + 1) + 1.)",
    ),
)
def largest_slack(trial, answer):
    for case in ((100, 32, 19.27), (4, 256, 8.0), (49_152, 256, 19.27)):
        n, levels, log10_faces = case
        edge = levels * 10 ** (-log10_faces / n)  # 2 slack + 1 must be below
        want = last_below((edge - 1) / 2)
        got = scalar(trial.run(answer, *case), "the slack")
        if got == want:
            continue
        where = f" ({n:,} values, {levels} levels)"
        if got < 0 or got % 1:
            raise Wrong(f"A slack is 0, 1, 2, ... levels; you get {got:g}{where}.")
        mistakes = {
            "One too many: with it the bound is 1 or more. Allow 2 * slack + 1 levels, "
            "and return the last slack before that.": want + 1,
            "A value may be off in both directions: 2 * slack + 1 levels.": (
                last_below(edge - 1)
            ),
            "That is the slack for a single face: add log10_faces. (If you did: take "
            "n_values as it is given, not 49,152.)": last_below((levels - 1) / 2),
            "More faces make it likelier, not less likely: add log10_faces.": (
                last_below((levels * 10 ** (log10_faces / n) - 1) / 2)
            ),
            "You took the natural logarithm; log10_faces needs log10.": (
                last_below((levels * math.exp(-log10_faces / n) - 1) / 2)
            ),
        }
        if n == 100:  # here they all differ
            name_mistake(got, mistakes)
        if got > want:
            bound = log10_bound(got, *case)
            raise Wrong(f"With slack = {got:g} the bound is 10^{bound:.3g}{where}.")
        more = got + 1
        bound = log10_bound(more, *case)
        raise Wrong(f"With slack = {more:g} the bound is still 10^{bound:.3g}{where}.")
    bound = log10_bound(want, *case)
    return (
        f"At 128 x 128 pixels every value may be off by {want} levels, which allows at "
        f"most 255 of 256, and the bound is still 10^{bound:.0f}. In "
        "49,152 dimensions, a cube whose edge is shorter by 1/256 has only 10^-84 of "
        "the volume: a single value that is off by more spoils the image."
    )


def log10_bound(slack: float, n: int, levels: int, log10_faces: float) -> float:
    return log10_faces + n * math.log10((2 * slack + 1) / levels)


def last_below(edge: float) -> int:
    """The last whole number below the edge."""
    return math.ceil(edge) - 1


@exercise(
    "1.3",
    "Blend four faces",
    (
        "A sheet is a path of paths: go from z_a down to z_c and from z_b down to z_d, "
        "then from the one to the other.",
        "Row s, column t: (1 - t) * left[s] + t * right[s], with left[s] = (1 - s) * "
        "z_a + s * z_c. In one go, let s have the shape (n, 1, 1) and t (1, n, 1).",
        "s = torch.linspace(0, 1, n)[:, None, None]; t = s.transpose(0, 1); left = "
        "torch.lerp(z_a, z_c, s); right = torch.lerp(z_b, z_d, s); return "
        "torch.lerp(left, right, t).",
    ),
)
def blend_four_faces(trial, answer):
    z_a, z_b, z_c, z_d = faces.sample_knobs(4, seed=3)

    def sheet(a, b, c, d, steps):
        s, t = steps[:, None, None], steps[None, :, None]
        return (1 - s) * ((1 - t) * a + t * b) + s * ((1 - t) * c + t * d)

    for n in (8, 5, 2):  # with eight steps (n,) fits (8,) by accident
        steps = torch.linspace(0, 1, n)
        want = sheet(z_a, z_b, z_c, z_d, steps)
        s, t = steps[:, None, None], steps[None, :, None]
        down, right = z_a + s * (z_c - z_a), z_a + t * (z_b - z_a)
        mistakes = {
            "Rows and columns are swapped: z_b belongs at the upper right.": (
                want.transpose(0, 1)
            ),
            "The sheet is upside down: z_a belongs at the upper left.": want.flip(0),
            "Left and right are swapped: z_a belongs at the upper left.": want.flip(1),
            "The steps stop before the last corner: linspace reaches it.": sheet(
                z_a, z_b, z_c, z_d, torch.arange(n) / n
            ),
            "The corner z_d is not used: blend *four* faces.": down + right - z_a,
            "At every place the weights of the four faces must add up to 1.": (
                2 * want
            ),
            "At each place, this is the mean of two paths that start at z_a.": (
                (down + right) / 2
            ),
            "There is one row of faces here, n times: blend downwards, too.": (
                right.expand(n, n, 8)
            ),
        }
        compare(trial.run(answer, z_a, z_b, z_c, z_d, n), want, mistakes, "the sheet")
    return (
        "Flat in latent space, this sheet is curved in image space. To see it: "
        "plot.grid(list(faces.render(sheet.flatten(0, 1)).unflatten(0, (n, n)))), "
        "with an alt text."
    )


@exercise(
    "1.4",
    "Spot the bug: a ghost that glitters",
    (
        "Print a, b and a + b for one bright pixel, say 200 and 180. The sum should be "
        "380.",
        "A uint8 has 256 levels: 380 becomes 380 - 256 = 124. Half of it is 62, and "
        "190 is right.",
        "Leave the bytes before adding, return to them at the end: ((a.int() + "
        "b.int()) // 2).to(torch.uint8).",
    ),
)
def ghost_that_glitters(trial, answer):
    a, b = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)
    a[0, 0], b[0, 0] = 255, 255
    exact = (a.double() + b.double()) / 2
    got = trial.run(answer, a, b)
    values = numbers(got, "the midpoint")
    bright = (a.int() + b.int() > 255).flatten().nonzero()[0].item()
    pair = f"{a.flatten()[bright]} and {b.flatten()[bright]}"
    wrapped = (a + b).double()
    if values.shape == a.shape and (values - wrapped / 2).abs().max() <= 0.5:
        raise NotAttempted(
            "this is the starter, or does the same: halfway between the values "
            f"{pair} it gives {values.flatten()[bright]:g}."
        )
    mistakes = {
        "That is the sum, clamped: it is not halved.": (2 * exact).clamp(max=255),
        "That is the sum: it is not halved.": 2 * exact,
        "The sum is clamped before it is halved: no value gets over 127.": (
            (2 * exact).clamp(max=255) // 2
        ),
        "Both halves are rounded down, and halfway between 255 and 255 you get 254. "
        "Add first, with more room than 256 levels.": (a // 2 + b // 2).double(),
        "The result is right, but from 0 to 1. Bytes go from 0 to 255.": exact / 255,
    }
    name_mistake(values, mistakes, tolerance=1e-6)
    if values.shape != a.shape:
        compare(values, exact, what="the midpoint")
    if not (values - exact).abs().max() <= 0.5:
        at = (values - exact).abs().nan_to_num(math.inf).argmax()
        raise Wrong(
            f"Halfway between {a.flatten()[at]} and {b.flatten()[at]} lies "
            f"{exact.flatten()[at]:g}, not {values.flatten()[at]:g}."
        )
    if getattr(got, "dtype", None) not in (torch.uint8, numpy.dtype("uint8")):
        raise Wrong(
            "The values are right, but they are no bytes any more: end with "
            ".to(torch.uint8)."
        )
    return (
        "Nothing crashed, and dark faces looked right: the sum overflows only where "
        "it exceeds 255. Floats in [0, 1], as in this course, have no such edge."
    )


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


@exercise(
    "1.6",
    "Plot and say: freeze the knobs",
    (
        "Write it for one number of moving knobs first: set the others to 0, render, "
        "and ask metrics.two_nn_dimension for its estimate and its error.",
        "Work on a copy, knobs.clone(), or the next round finds the knobs of this one "
        "already frozen. The last 8 - m knobs are frozen[:, m:].",
        "for m in (3, ..., 8): frozen = knobs.clone(); frozen[:, m:] = 0; d, _ = "
        "metrics.two_nn_dimension(faces.render(frozen, 16)). Then axes.plot(m, d).",
    ),
)
def freeze_the_knobs(trial, answer):
    knobs = faces.sample_knobs(1000, seed=5)
    moving = range(3, 9)

    def estimates(keep, of_images=True):
        found = []
        for m in moving:
            frozen = torch.zeros_like(knobs)
            frozen[:, keep(m)] = knobs[:, keep(m)]
            points = faces.render(frozen, 16) if of_images else frozen
            found.append(metrics.two_nn_dimension(points)[0])
        return found

    alt = "Your curve: TwoNN's estimate against the number of knobs that move."
    points = drawn(trial, answer, knobs, alt=alt)
    d = estimates(lambda m: slice(m))
    mistakes = {
        "The heights are right. To the right goes the number of knobs that *move*, 8 "
        "for no frozen one.": ([8 - m for m in moving], d),
        "The axes are swapped: the number of moving knobs to the right.": (d, moving),
        "This is the dimension of the knobs; render them and ask the images.": (
            moving,
            estimates(lambda m: slice(m), of_images=False),
        ),
        "The first knobs are frozen here; freeze the last ones.": (
            moving,
            estimates(lambda m: slice(8 - m, 8)),
        ),
        "The estimate does not change: were the knobs rendered before they were "
        "frozen?": (moving, [d[-1]] * len(d)),
        "All have the estimate of the fewest: freeze a copy, knobs.clone(), each "
        "time.": (moving, [d[0]] * len(d)),
    }
    match_curve(points, moving, d, mistakes)
    return (
        f"Only you can grade the sentence. Ours: from {d[-1]:.1f} for eight knobs to "
        f"{d[0]:.1f} for three, each frozen knob takes away about one dimension. A "
        "ruler that may be off by one still sees a difference of one."
    )
