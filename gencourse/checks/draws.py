"""What the exercises that draw random numbers have in common."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gencourse.checks.compare import Wrong, listed, name_mistake, numbers
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


def judge_gaussian(draws: Tensor, mu: Tensor, logvar: Tensor) -> None:
    """Raise Wrong unless each column of the draws is a sample of N(mu, exp(logvar)).

    Args:
        draws: (n, k), n about 10,000.
        mu, logvar: (k,) each.
    """
    mean, std, sigma = draws.mean(0), draws.std(0), (logvar / 2).exp().double()
    mistakes = {
        "sigma is exp(logvar) here; that is the variance, its square.": sigma**2,
        "sigma is exp(2 logvar) here, squared twice; it is exp(logvar / 2).": sigma**4,
        "sigma is exp(-logvar / 2) here: the sign of logvar is flipped.": 1 / sigma,
        "The half belongs in the exponent: exp(0.5 * logvar).": sigma**2 / 2,
        "logvar itself was used as the spread; it is a logarithm.": logvar.abs(),
        "logvar is not used: every spread is 1.": torch.ones_like(mu),
    }
    name_mistake(std, mistakes, tolerance=0.02)
    standardized = (draws - mu) / sigma
    if standardized.mean(0).abs().max() > 0.06:
        raise Wrong(
            f"The means of the draws are {listed(mean)}, they should be {listed(mu)}. "
            "Is the noise centered at 0?"
        )
    if not torch.allclose(std, sigma, rtol=0.05):
        raise Wrong(
            f"The deviations are {listed(std)}, they should be {listed(sigma)}."
        )
    if (standardized.pow(4).mean(0) - 3).abs().max() > 0.6:
        raise Wrong(
            "Mean and deviation are right, but the draws are not Gaussian. Start from "
            "torch.randn, not torch.rand."
        )
    if standardized.T.corrcoef().triu(1).abs().max() > 0.06:
        raise Wrong("The numbers of a draw are not independent: one noise each.")


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
