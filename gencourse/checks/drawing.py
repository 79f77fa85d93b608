"""What an answer drew on the axes, and whether it is the curve that was asked for."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy
import torch
from torch import Tensor

from gencourse.checks.compare import NotAttempted, Wrong, numbers, short
from gencourse.checks.sandbox import Trial, assert_function


def drawn(trial: Trial, answer: Callable, *inputs: Any, alt: str) -> Tensor:
    """Let `answer(axes, *inputs)` draw; return the points that it drew, (2, n).

    The picture goes into the verdict.

    Raises:
        Wrong: nothing is drawn, an axis has no label, or the sentence is missing.
    """
    from gencourse import plot

    assert_function(answer)

    def draw(*copies: Any) -> tuple:
        with plot.canvas(alt) as page:
            sentence = answer(page.axes[0], *copies)
        return page, sentence

    page, sentence = trial.run(draw, *inputs)
    (axes,), trial.picture = page.axes, page.picture
    points = _points(axes)
    if not points.numel() and sentence is ...:
        raise NotAttempted("draw, and replace the three dots by your sentence.")
    if not points.numel():
        raise Wrong("There is no curve on the axes. Draw with axes.plot(x, y).")
    if not (axes.get_xlabel().strip() and axes.get_ylabel().strip()):
        raise Wrong(
            "The curve is drawn, but a reader cannot tell what it shows. Label both "
            'axes: axes.set(xlabel="...", ylabel="...").'
        )
    # Five words, or as much in a language that is written without spaces.
    if not isinstance(sentence, str) or (
        len(sentence.split()) < 5 and (sentence.isascii() or len(sentence) < 10)
    ):
        raise Wrong(
            "The curve is drawn. Now return a sentence that says what it shows, at "
            f"least five words; got {short(sentence)}."
        )
    return points


def _points(axes: Any) -> Tensor:
    """The points of all lines, dots, areas, bars and stairs, (2, n), float64."""
    pieces = [line.get_xydata() for line in axes.get_lines()]
    for collection in axes.collections:
        if type(collection).__name__ == "PathCollection":  # of axes.scatter
            pieces.append(numpy.ma.filled(collection.get_offsets(), numpy.nan))
        else:  # of fill_between, stackplot, vlines
            pieces += [path.vertices for path in collection.get_paths()]
    for patch in axes.patches:
        if hasattr(patch, "get_height"):  # a bar
            pieces.append([[patch.get_x() + patch.get_width() / 2, patch.get_height()]])
        elif hasattr(patch, "get_data"):  # stairs: a height from each edge to the next
            heights, edges, _ = patch.get_data()
            for x in (edges[:-1], (edges[:-1] + edges[1:]) / 2, edges[1:]):
                pieces.append(numpy.stack([x, heights], axis=1))
    pieces = [numpy.asarray(piece, float).reshape(-1, 2) for piece in pieces]
    return torch.from_numpy(numpy.concatenate([*pieces, numpy.empty((0, 2))])).T


Curves = Mapping[str, tuple[Any, Any]]  # hint -> x and y that the mistake would draw


def match_curve(points: Tensor, x: Any, y: Any, mistakes: Curves) -> None:
    """Pass if every point (x, y) has been drawn, in whatever order and pieces.

    Args:
        points: what was drawn, (2, n).
        x, y: what is right, n numbers each.
        mistakes: for each hint, the curve that the mistake would draw.
    """
    if points.shape[1] > 20_000:
        raise Wrong(f"{points.shape[1]:,} points are far too many for this curve.")
    finite = points.isfinite().all(0)
    if _contain(points[:, finite], x, y):
        return
    if not finite.all():
        raise Wrong(
            "Some points of the curve are nan or infinite and cannot be drawn. Is "
            "there a 0 * log(0) or a division by 0?"
        )
    for text, (wrong_x, wrong_y) in mistakes.items():
        if _contain(points, wrong_x, wrong_y):
            raise Wrong(text)
    wanted, n = numbers(x), points.shape[1]
    if n < len(wanted):
        raise Wrong(f"Expected a curve of {len(wanted)} points, got {n}.")
    distance = (points[0] - wanted[:, None]).abs().min(1).values
    if distance.max() > 1e-3 * wanted.abs().mean():
        missing = wanted[distance.argmax()].item()
        raise Wrong(f"A point is missing: there is none at x = {missing:.4g}.")
    raise Wrong("The x values are right, the heights are not.")


def _contain(points: Tensor, x: Any, y: Any) -> bool:
    """Whether each (x, y) is among the points, to a thousandth of the mean size."""
    if len(x) != len(y) or not points.numel():
        return False
    wanted = torch.stack([numbers(x), numbers(y)])
    scale = wanted.abs().mean(1, keepdim=True).clamp(min=1e-9)
    apart = torch.cdist((wanted / scale).T, (points / scale).T, p=math.inf)
    return bool((apart.min(1).values < 1e-3).all())
