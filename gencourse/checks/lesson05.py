"""The exercises of lesson 05, with their hints and the wrong answers that they know."""

import torch

from gencourse import faces, metrics, store
from gencourse.checks.compare import NotAttempted, Wrong, compare, number
from gencourse.checks.drawing import drawn, match_curve
from gencourse.checks.exercise import exercise


@exercise(
    "5.1",
    "Predict: the bias of a Frechet distance",
    (
        "Two sets from one distribution should be at distance 0. They are not, because "
        "their means and covariances are estimated. How does the error of a mean fall?",
        "The error of a mean falls like 1 / sqrt(n). The distance is a *square* of such "
        "errors.",
        "Squares of 1 / sqrt(n) are 1 / n (once n is well above the number of "
        "dimensions): four times as many points, a quarter.",
    ),
)
def bias_of_frechet(trial, prediction):
    factor = number(prediction, "the factor")
    for wrong, text in (
        (2, "That is how the error of a mean falls. The distance is squared."),
        (16, "That would be 1 / n^2. It is a square of 1 / sqrt(n)."),
        (1, "The bias does fall: it comes from estimating means and covariances."),
        (0.25, "The factor by which it gets *smaller* is meant: 1 over yours."),
    ):
        if abs(factor - wrong) < 0.05 * wrong:
            raise Wrong(text)
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
        of_fake = torch.cdist(fake, fake).sort(1).values[:, k]

        def share(inside):
            return inside.float().mean()

        nearest = between.min(1).values
        inside = between <= radius[:, k, None]
        mistakes = [
            ("Real and fake are swapped.", torch.tensor(metrics.coverage(fake, real, k))),
            ("Each point counts itself as its nearest neighbor: your k is one too small.", share(nearest <= radius[:, k - 1])),
            ("Your k is one too large.", share(nearest <= radius[:, k + 1])),
            ("That is precision: the share of *fakes* that lie in some real ball.", share(inside.any(0))),
            ("That is recall: real points within the balls around *fakes*.", share((between <= of_fake).any(1))),
            ("That is density's count: how many pairs lie inside. For coverage one is enough.", share(inside)),
            ("That is density: the number of balls around a fake, over k.", inside.float().sum(0).mean() / k),
            ("That is the share *not* covered.", share(nearest > radius[:, k])),
            ("That is the number of covered points; divide by the number of real ones.", (nearest <= radius[:, k]).sum()),
            ("That is in percent.", 100 * share(nearest <= radius[:, k])),
            ("One answer per real point; take the share.", nearest <= radius[:, k]),
            ("Divide by the number of real points, not of fakes.", (nearest <= radius[:, k]).sum() / 90),
        ]  # fmt: skip
        # A value of 0 or 1 may come from many mistakes and tells none from another.
        mistakes = [
            (t, v) for t, v in mistakes if float(v.float().mean()) not in (0, 1)
        ]
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
    absolute = (images[:, None] - training).abs().flatten(2)
    compare(
        trial.run(answer, images, training),
        between.min(1).values / d**0.5,
        [
            ("That is the mean distance to the training images; take the smallest.", between.mean(1) / d**0.5),
            ("That is the farthest training image; take the nearest.", between.max(1).values / d**0.5),
            ("You went through the training images and looked for the nearest generated one.", between.min(0).values / d**0.5),
            ("The distance is not divided: a root *mean* square is wanted.", between.min(1).values),
            ("You divided the root by d, not by the root of d: take the mean first, then the root.", between.min(1).values / d),
            ("The root is missing: that is the mean square.", between.min(1).values.square() / d),
            ("That is the sum of squares; take the mean and the root.", between.min(1).values.square()),
            ("That is the mean absolute difference; a root mean *square* is wanted.", absolute.mean(2).min(1).values),
            ("That is averaged over the images: expected one number per image.", between.min(1).values.mean() / d**0.5),
            ("These are the indices of the nearest images, not their distances.", between.argmin(1)),
            ("These are all distances: for each image take the smallest.", between / d**0.5),
        ],
        "the distance",
    )  # fmt: skip


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
    gains, good, raw, swapped = {}, [], [], []
    sizes = (100, 2000), (2000, 100), (150, 2000), (2000, 150)
    for k in range(320):
        n_first, n_second = sizes[k % 4]
        first_is_good, far = k % 8 < 4, k >= 240
        real, first = torch.randn(2000, 8), torch.randn(n_first, 8)
        second = torch.randn(n_second, 8)
        wrong = second if first_is_good else first
        # Off in the mean, for the last trials in the spread and farther in the mean.
        kind = "a little" if not far else "in spread" if k % 16 < 8 else "far"
        _ = wrong.mul_(1.3) if kind == "in spread" else wrong.add_(0.4 if far else 0.16)
        result = trial.run(answer, real, first, second)
        try:
            a, b = result
        except (TypeError, ValueError):
            raise Wrong(
                "Expected two distances, (of the first, of the second)."
            ) from None
        a, b = number(a, "a distance"), number(b, "a distance")
        if k < 16:
            published = [metrics.frechet_distance(real, m) for m in (first, second)]
            small, large = (0, 1) if n_first < n_second else (1, 0)
            raw += [abs(a - published[0]), abs(b - published[1])]
            swapped.append(abs((a, b)[large] - published[small]))
        key = kind, n_first < n_second, first_is_good
        gains.setdefault(key, []).append(b - a if first_is_good else a - b)
        good.append(a if first_is_good else b)
        if k == 15 and max(raw) < 1e-6:
            raise NotAttempted(
                "this compares 100 points with 2,000. A perfect model of which there are "
                "100 loses against a slightly wrong one of which there are 2,000."
            )
        if k == 15 and max(swapped) < 1e-3:
            raise Wrong("The two results are swapped.")
    mean = {key: sum(g) / len(g) for key, g in gains.items()}
    if max(map(abs, mean.values())) < 0.01:
        raise Wrong("The two models get the same distance, although one is off.")
    if not -0.15 < sum(good) / len(good) < 0.7:
        raise Wrong(
            f"A perfect model gets a distance of {sum(good) / len(good):.2f} on average; "
            "a few tenths come from chance, the rest does not."
        )
    true = {"a little": 8 * 0.16**2, "in spread": 8 * 0.3**2, "far": 8 * 0.4**2}
    for (kind, first_is_small, first_is_good), gain in mean.items():
        if abs(gain - true[kind]) > (0.13 if kind == "a little" else 0.35):
            which = "first" if first_is_small else "second"
            off = "second" if first_is_good else "first"
            raise Wrong(
                f"When the {which} set is the small one and the {off} model is off, that "
                f"model comes out {gain:.2f} farther on average; in truth it is "
                f"{true[kind]:.2f}. Copies of the points do not help the small set: bring "
                "the large one down to its size, whichever it is."
            )
    punished = sum(
        (gain if first_is_small != first_is_good else -gain) / 4
        for (kind, first_is_small, first_is_good), gain in mean.items()
        if kind == "a little"
    )
    if abs(punished) > 0.065:
        raise Wrong(
            f"The small set still pays {punished:.2f} for being small: both sets must be "
            "of one size."
        )
    return (
        "At equal n the biases are nearly equal. Only nearly: they depend on the model, "
        "too, so Chong & Forsyth (2020) extrapolate to infinite n instead."
    )


@exercise(
    "5.5",
    "Plot and say: near, and everywhere",
    (
        "Eighteen rows, eighteen dots: collect the two numbers of each row in two "
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

    curves, _ = drawn(
        trial,
        answer,
        rows,
        alt="Your dots: coverage against distance, one per trained model.",
    )
    match_curve(
        curves,
        distance,
        cover,
        [
            ("The axes are swapped: distance to the right, coverage up.", cover, distance),
            ("These are the medians. Show the single runs: their spread is part of the message.", medians(distance), medians(cover)),
            ("Take the samples' distance, not that of the reconstructions.", *zip(*[(r["fidelity x_hat"], r["coverage"]) for r in rows if r.get("fidelity x_hat")], strict=True)),
            ("That is the 90% quantile of the distance; take the median, 'fidelity'.", column("fidelity 90%"), cover),
            ("That is the Frechet distance; take the distance to the manifold.", column("frechet"), cover),
            ("That is the sharpness; take the coverage.", distance, column("sharpness")),
        ],
    )  # fmt: skip
    return (
        "Only you can grade the sentence. Ours: good models are at the upper left, near "
        "the manifold and everywhere on it."
    )
