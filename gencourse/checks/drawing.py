"""What an answer drew on the axes, and whether it is the curve that was asked for."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy
import torch
from torch import Tensor

from gencourse.checks.compare import NotAttempted, Wrong, numbers, short
from gencourse.checks.sandbox import Trial


def drawn(
    trial: Trial, answer: Callable, *inputs: Any, alt: str
) -> tuple[list[Tensor], str]:
    """Let `answer(axes, *inputs)` draw; return its curves, (2, n) each, and sentence.

    The picture goes into the verdict. Raises Wrong if nothing is drawn, an axis has no
    label, or the sentence is missing.
    """
    from gencourse import plot

    if not callable(answer):
        raise Wrong(f"Expected a function, got {short(answer)}: pass it without ().")

    def draw(*copies: Any) -> tuple:
        with plot.canvas(alt) as page:
            said = answer(page.axes[0], *copies)
        return page, said

    page, sentence = trial.run(draw, *inputs)
    (axes,), trial.picture = page.axes, page.picture
    lines = [torch.as_tensor(line.get_xydata().T) for line in axes.get_lines()]
    scattered = [c for c in axes.collections if type(c).__name__ == "PathCollection"]
    places = [
        numpy.ma.filled(c.get_offsets().astype(float), numpy.nan) for c in scattered
    ]
    dots = [torch.tensor(place).reshape(-1, 2).T for place in places]
    bars = [b for b in axes.patches if hasattr(b, "get_height")]
    tops = [[b.get_x() + b.get_width() / 2, b.get_height()] for b in bars]
    found = [*lines, *dots, torch.tensor(tops).reshape(-1, 2).T]
    curves = [curve.double() for curve in found if curve.numel()]
    if not curves and sentence is ...:
        raise NotAttempted("draw, and replace the three dots by your sentence.")
    if not curves:
        raise Wrong("There is no curve on the axes. Draw with axes.plot(x, y).")
    if not (axes.get_xlabel().strip() and axes.get_ylabel().strip()):
        raise Wrong(
            "The curve is there, but who sees it cannot know what it shows. Label both "
            'axes: axes.set(xlabel="...", ylabel="...").'
        )
    # Five words, or as much in a language that is written without spaces.
    if not isinstance(sentence, str) or (
        len(sentence.split()) < 5 and (sentence.isascii() or len(sentence) < 10)
    ):
        raise Wrong(
            "The curve is there. Now return a sentence that says what it shows, at "
            f"least five words; got {short(sentence)}."
        )
    return curves, sentence


def match_curve(
    curves: list[Tensor], x: Any, y: Any, mistakes: Sequence[tuple[str, Any, Any]] = ()
) -> None:
    """Pass if every point (x, y) has been drawn, in whatever order and pieces.

    mistakes: (hint, x, y) of curves that a plausible mistake would draw.
    """
    points = torch.cat(curves, dim=1)
    if points.shape[1] > 20_000:
        raise Wrong(f"{points.shape[1]:,} points are far too many for this curve.")
    finite = points.isfinite().all(0)
    if _drawn_there(points[:, finite], x, y):
        return
    if not finite.all():
        raise Wrong(
            "Some points of the curve are nan or infinite and cannot be drawn. Is "
            "there a 0 * log(0) or a division by 0?"
        )
    for text, wrong_x, wrong_y in mistakes:
        if _drawn_there(points, wrong_x, wrong_y):
            raise Wrong(text)
    wanted, n = numbers(x), points.shape[1]
    if n < len(wanted):
        raise Wrong(f"Expected a curve of {len(wanted)} points, got {n}.")
    near = (points[0] - wanted[:, None]).abs().min(1).values
    if near.max() > 1e-3 * wanted.abs().mean():
        at = wanted[near.argmax()].item()
        raise Wrong(f"A point is missing: there is none at x = {at:.4g}.")
    raise Wrong("The x values are right, the heights are not.")


def _drawn_there(points: Tensor, x: Any, y: Any) -> bool:
    if len(x) != len(y) or not points.numel():
        return False
    wanted = torch.stack([numbers(x), numbers(y)])
    scale = wanted.abs().mean(1, keepdim=True).clamp(min=1e-9)
    apart = torch.cdist((wanted / scale).T, (points / scale).T, p=math.inf)
    return bool((apart.min(1).values < 1e-3).all())
