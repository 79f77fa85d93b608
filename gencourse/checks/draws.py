"""What the exercises that draw random numbers have in common."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gencourse.checks.compare import Wrong, numbers
from gencourse.checks.sandbox import Trial


def draws_of(
    trial: Trial, answer: Callable, *inputs: Any, shape: tuple[int, int]
) -> Tensor:
    """Return the draws of `answer(*inputs)`, (n, k), one in each row.

    Raises:
        Wrong: the shape differs, some draws are not finite, all rows are equal, or a
            second call gives the same draws.
    """
    draws = numbers(trial.run(answer, *inputs), "the draws")
    if draws.shape != shape:
        raise Wrong(
            f"Expected n draws, shape {shape}, got {tuple(draws.shape)}: one row for "
            "each draw, with noise of its own."
        )
    if not draws.isfinite().all():
        raise Wrong("Some draws are not finite: is there a root of a negative number?")
    if draws.std(0).max() < 1e-3:
        raise Wrong("All draws are the same: every draw needs noise of its own.")
    refuse_repeated(draws, numbers(trial.run(answer, *inputs), "the draws"))
    return draws


def refuse_repeated(draws: Tensor, again: Tensor) -> None:
    """Raise Wrong if two calls gave the same draws, as an answer that seeds does."""
    if torch.equal(draws, again):
        raise Wrong(
            "Two calls gave the same draws. Do not set a seed inside: each call "
            "must draw new noise."
        )


def refuse_other_shapes(draws: Any, shape: tuple[int, int]) -> None:
    got = tuple(numbers(draws, "the draws").shape)
    if got != shape:
        n, k = shape
        raise Wrong(
            f"For {n} draws of {k} numbers the shape must be {shape}, not {got}."
        )
