"""The exercises of lesson 05, with their hints and the wrong answers that they know."""

from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import torch

from gencourse import faces, metrics, store
from gencourse.checks.compare import NotAttempted, Wrong, compare, name_mistake, scalar
from gencourse.checks.drawing import drawn, match_curve
from gencourse.checks.exercise import exercise
from gencourse.checks.sandbox import AnswerRaised


@exercise(
    "5.1",
    "Predict: the bias of a Frechet distance",
    (
        "Two sets from one distribution should be at distance 0. They are not, because "
        "their means and covariances are estimated. How does the error of a mean fall?",
        "The error of a mean falls like 1 / sqrt(n). The distance is a *square* of "
        "such errors.",
        "Squares of 1 / sqrt(n) are 1 / n (once n is well above the number of "
        "dimensions): four times as many points, a quarter.",
    ),
)
def bias_of_frechet(trial, prediction):
    factor = scalar(prediction, "the factor")
    mistakes = {
        "That is how the error of a mean falls. The distance is squared.": 2,
        "That would be 1 / n^2. It is a square of 1 / sqrt(n).": 16,
        "The bias does fall: it comes from estimating means and covariances.": 1,
        "Give the factor by which it gets *smaller*: 1 over yours.": 0.25,
    }
    name_mistake(factor, mistakes, tolerance=0.025)
    if not 3.5 <= factor <= 4.5:
        raise Wrong(f"You predict a factor of {factor:g}; that is not it.")
    return "A factor of 4: the bias goes like 1 / n, so never compare unequal n."


@exercise(
    "5.2",
    "Coverage",
    (
        "For each real point: how far is its k-th nearest *other* real point? Then: is "
        "any fake at most that far away?",
        "In torch.cdist(real, real) every point is its own nearest neighbor, at "
        "distance 0: sort each row and take the entry k, counting from 0.",
        "radius = torch.cdist(real, real).sort(1).values[:, k]; nearest = "
        "torch.cdist(real, fake).min(1).values; (nearest <= radius).float().mean().",
    ),
)
def coverage(trial, answer):
    for k, shift in ((5, 1.6), (3, 1.2)):
        real, fake = torch.randn(120, 3), torch.randn(90, 3) + shift
        to_real, between = torch.cdist(real, real), torch.cdist(real, fake)
        radius = to_real.sort(1).values

        def share(inside):
            return inside.float().mean()

        nearest = between.min(1).values
        in_fake = between <= torch.cdist(fake, fake).sort(1).values[:, k]
        inside, covered = between <= radius[:, k, None], nearest <= radius[:, k]
        swapped = metrics.coverage(fake, real, k)
        mistakes = {
            "Real and fake are swapped.": torch.tensor(swapped),
            "Each point counts itself as its nearest neighbor: your k is one too "
            "small.": share(nearest <= radius[:, k - 1]),
            "Your k is one too large.": share(nearest <= radius[:, k + 1]),
            "That is precision: the share of *fakes* in some ball.": share(
                inside.any(0)
            ),
            "That is recall, with balls around the *fakes*.": share(in_fake.any(1)),
            "That is density's count of pairs; one is enough.": share(inside),
            "That is density: the balls around a fake, over k.": inside.sum()
            / len(fake)
            / k,
            "That is the share *not* covered.": share(~covered),
            "That is the number of covered points, not their share.": covered.sum(),
            "That is in percent.": 100 * share(covered),
            "One answer per real point; take the share.": covered,
            "Divide by the number of real points.": covered.sum() / len(fake),
        }
        # A value of 0 or 1 may come from many mistakes and tells none from another.
        mistakes = {t: v for t, v in mistakes.items() if v.float().mean() not in (0, 1)}
        compare(
            trial.run(answer, real, fake, k),
            metrics.coverage(real, fake, k),
            mistakes,
            "the coverage",
            tolerance=1e-5,
        )
    return "Collapse shows here: a model stuck on one face covers almost no ball."


@exercise(
    "5.3",
    "Is it copying?",
    (
        "For each generated image you want its distance to every training image, and "
        "then the smallest of them.",
        "Flatten the images, torch.cdist gives (N, M) distances, min over the training "
        "images. A root *mean* square divides the square by the number of values.",
        "torch.cdist(images.flatten(1), training.flatten(1)).min(1).values / "
        "images[0].numel() ** 0.5.",
    ),
)
def is_it_copying(trial, answer):
    x = faces.render(faces.sample_knobs(60, seed=9), 16)
    images = (x[:10] + 0.05 * torch.randn(10, 3, 16, 16)).clamp(0, 1)
    distances(trial, answer, images, x[3:])
    distances(trial, answer, images[:7, :1, :12], x[3:30, :1, :12])
    return "Much smaller than for fresh real images: then the model copies."


def distances(trial, answer, images, training):
    d = images[0].numel()
    between = torch.cdist(images.flatten(1).double(), training.flatten(1).double())
    absolute = (images[:, None] - training).abs().flatten(2).mean(2).min(1).values
    nearest, farthest = between.min(1).values, between.max(1).values
    want = nearest / d**0.5
    mistakes = {
        "That is the mean distance; take the smallest.": between.mean(1) / d**0.5,
        "That is the farthest training image; take the nearest.": farthest / d**0.5,
        "You went through the training images and looked for the nearest generated "
        "one.": between.min(0).values / d**0.5,
        "The distance is not divided: take the root *mean* square.": nearest,
        "You divided by d after the root: divide by the root of d.": nearest / d,
        "The root is missing: that is the mean square.": nearest.square() / d,
        "That is the sum of squares; take the mean and the root.": nearest.square(),
        "That is the mean absolute error; take squares.": absolute,
        "That is averaged over the images: expected one number per image.": want.mean(),
        "These are the indices of the nearest, not the distances.": between.argmin(1),
        "These are all distances: for each image take the smallest.": between / d**0.5,
    }
    compare(trial.run(answer, images, training), want, mistakes, "the distance")


@exercise(
    "5.4",
    "Spot the bug: the better model loses",
    (
        "Call it with two samples of *one* model, 100 and 2,000 points. Which seems "
        "better?",
        "The smaller set gets a larger distance by chance alone (exercise 5.1). What "
        "could you do with the larger one?",
        "n = min(len(first), len(second)), and give metrics.frechet_distance the first "
        "n points of each.",
    ),
)
def better_model_loses(trial, answer):
    _refuse_published(trial, answer)
    of_perfect, paid_by_small = [], []
    for flaw, small, flawed in product(FLAWS, SETS, SETS):
        gaps = []
        for n_small in (100, 150) * (flaw.rounds // 2):
            real, sets = _point_sets(n_small, small)
            sets[flawed] = flaw.spoil(sets[flawed])
            distance = _distances(trial, answer, real, sets)
            off, (perfect,) = distance.pop(flawed), distance.values()
            gaps.append(off - perfect)
            of_perfect.append(perfect)
        gap = sum(gaps) / flaw.rounds
        if max(map(abs, gaps)) < 1e-6:
            raise Wrong("The two models get the same distance, although one is off.")
        if abs(gap - flaw.distance) > flaw.tolerance:
            raise Wrong(
                f"When the {small} set is the small one and the {flawed} model is off, "
                f"that model comes out {gap:.2f} farther on average; the true distance "
                f"is {flaw.distance:.2f}. Bring the large set down to the size of the "
                "small one, whichever it is."
            )
        if flaw is FLAWS[0]:  # so small a flaw that chance decides
            paid_by_small.append(gap if small == flawed else -gap)
    average = sum(of_perfect) / len(of_perfect)
    if not -0.15 < average < 0.7:
        raise Wrong(
            f"A perfect model gets a distance of {average:.2f} on average; "
            "a few tenths come from chance, the rest does not."
        )
    paid = sum(paid_by_small) / len(paid_by_small)
    if abs(paid) > 0.065:
        raise Wrong(
            f"The small set still pays {paid:.2f} for being small: both sets must "
            "have the same size."
        )
    return (
        "At equal n the biases are nearly equal. Only nearly: they depend on the "
        "model, too, so Chong & Forsyth (2020) extrapolate to infinite n instead."
    )


SETS = "first", "second"


class Flaw(NamedTuple):
    """How a model differs from the real points, eight standard normal numbers each."""

    spoil: Callable[[torch.Tensor], torch.Tensor]
    distance: float  # in truth, without any bias
    rounds: int
    tolerance: float  # of the distance's average over the rounds


FLAWS = (
    Flaw(lambda points: points + 0.16, 8 * 0.16**2, rounds=40, tolerance=0.13),
    Flaw(lambda points: points + 0.4, 8 * 0.4**2, rounds=10, tolerance=0.35),
    Flaw(lambda points: points * 1.3, 8 * 0.3**2, rounds=10, tolerance=0.35),
)


def _point_sets(n_small, small):
    sizes = dict.fromkeys(SETS, 2000) | {small: n_small}
    return torch.randn(2000, 8), {name: torch.randn(sizes[name], 8) for name in SETS}


def _distances(trial, answer, real, sets):
    result = trial.run(answer, real, *sets.values())
    try:
        first, second = result
    except (TypeError, ValueError):
        raise Wrong("Expected two distances, (of the first, of the second).") from None
    except Exception as error:  # a map or a generator runs only now
        raise AnswerRaised from error
    values = (scalar(value, "a distance") for value in (first, second))
    return dict(zip(SETS, values, strict=True))


def _refuse_published(trial, answer):
    """Raise if the distances are those of the starter, or those swapped."""
    ratios, swapped = [], []
    for small, large in (SETS, SETS[::-1]):
        real, sets = _point_sets(100, small)
        got = _distances(trial, answer, real, sets)
        published = {n: metrics.frechet_distance(real, s) for n, s in sets.items()}
        ratios += [got[name] / published[name] for name in SETS]
        swapped.append(got[large] / published[small])
    if all(abs(ratio - 1) < 1e-5 for ratio in ratios):
        raise NotAttempted(
            "this compares 100 points with 2,000. A perfect model of which there are "
            "100 loses against a slightly wrong one of which there are 2,000."
        )
    if all(abs(ratio - 1) < 0.1 for ratio in ratios):
        raise Wrong(
            "The small set pays as much as before. Bring the large set down to the "
            "size of the small one, whichever it is."
        )
    if all(abs(ratio - 1) < 1e-3 for ratio in swapped):
        raise Wrong("The two results are swapped.")


@exercise(
    "5.5",
    "Plot and say: near, and everywhere",
    (
        "Twenty-one rows, twenty-one dots: collect the two numbers of each row in two "
        "lists, in the same order.",
        "A dot for each row: axes.scatter(distances, coverages). A color for each "
        "row['name'] helps, but is not needed.",
        "axes.scatter([r['fidelity'] for r in rows], [r['coverage'] for r in rows]), "
        "then axes.set(xlabel=..., ylabel=...).",
    ),
)
def near_and_everywhere(trial, answer):
    rows = store.results()["families"]

    def column(key):
        return [row[key] for row in rows]

    distance, cover = column("fidelity"), column("coverage")
    names = list(dict.fromkeys(column("name")))

    def medians(values):
        of = [
            [v for v, r in zip(values, rows, strict=True) if r["name"] == n]
            for n in names
        ]
        return [sorted(v)[len(v) // 2] for v in of]

    alt = "Your dots: coverage against distance, one per trained model."
    points = drawn(trial, answer, rows, alt=alt)
    x_hat = [row for row in rows if row.get("fidelity x_hat")]
    of_x_hat = [r["fidelity x_hat"] for r in x_hat], [r["coverage"] for r in x_hat]
    mistakes = {
        "The axes are swapped: distance to the right, coverage up.": (cover, distance),
        "These are the medians. Show the single runs: their spread is part of the "
        "message.": (medians(distance), medians(cover)),
        "Take the samples' distance, not that of the reconstructions.": of_x_hat,
        "That is the 90% quantile of the distance.": (column("fidelity 90%"), cover),
        "That is the Frechet distance.": (column("frechet"), cover),
        "That is the sharpness; take the coverage.": (distance, column("sharpness")),
    }
    match_curve(points, distance, cover, mistakes)
    return (
        "Only you can grade the sentence. Ours: good models are at the upper left, "
        "near the manifold and everywhere on it."
    )
