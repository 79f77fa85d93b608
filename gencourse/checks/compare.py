"""Comparing an answer with what is right, and naming the mistake that was made."""

import math
import reprlib
from collections.abc import Sequence
from typing import Any

import numpy
import torch
from torch import Tensor


class Wrong(Exception):
    """The answer is wrong; the message says how, in the words of the exercise."""


class NotAttempted(Exception):
    """The answer is still the starter."""


def numbers(value: Any, what: str = "your result") -> Tensor:
    """The answer as a float64 tensor on the CPU; Wrong if it is not made of numbers."""
    if isinstance(value, tuple) and hasattr(value, "indices"):
        raise Wrong(f"Take .values for {what}: min and sort give indices, too.")
    try:
        if (
            max(
                getattr(value, "size", 0) if isinstance(value, numpy.ndarray) else 0,
                len(value) if isinstance(value, list | tuple | range) else 0,
            )
            > 10**7
        ):
            raise Wrong(f"There are far too many numbers in {what}.")
        if isinstance(value, list | tuple) and any(
            isinstance(v, Tensor) for v in value
        ):
            value = torch.stack([torch.as_tensor(v) for v in value])
        elif not isinstance(value, Tensor):
            value = numpy.array(value, order="C")
            if value.dtype == object or value.dtype == numpy.longdouble:
                value = value.astype(float)
            value = torch.as_tensor(value)
        if value.is_complex():
            raise TypeError("complex")
        return (value.to_dense() if value.is_sparse else value).detach().cpu().double()
    except Wrong:
        raise
    except Exception:  # whatever an object of the learner's own may do
        raise Wrong(f"Expected numbers for {what}, got {short(value)}.") from None


def number(value: Any, what: str = "your answer") -> float:
    """The answer as one finite float; Wrong if it is anything else."""
    found = numbers(value, what)
    if found.numel() != 1 or not math.isfinite(found.item()):
        got = found.item() if found.numel() == 1 else short(value)
        raise Wrong(f"Expected one number for {what}, got {got}.")
    return found.item()


Mistakes = Sequence[tuple[str, Any]]


def compare(
    got: Any,
    want: Any,
    mistakes: Mistakes = (),
    what: str = "your result",
    tolerance: float = 1e-3,
) -> None:
    """Pass if got is want; otherwise raise Wrong, with the hint of the mistake made.

    mistakes: (hint, what that mistake would give).
    """
    got, want = numbers(got, what), numbers(want)
    if _same(got, want, tolerance):
        if got.shape == want.shape or want.numel() == 1:
            return
        raise Wrong(
            f"The numbers are right, but their shape is {tuple(got.shape)}, not "
            f"{tuple(want.shape)}. Added to others, (B, 1) and (B,) make (B, B)."
        )
    for text, value in mistakes:
        if _same(got, numbers(value), tolerance):
            raise Wrong(text)
    if got.squeeze().shape != want.squeeze().shape:
        raise Wrong(
            f"Expected the shape {tuple(want.shape)} for {what}, "
            f"got {tuple(got.shape)}."
        )
    if not got.isfinite().all():
        raise Wrong(f"There is {got[~got.isfinite()][0].item()} in {what}.")
    if want.numel() == 1:
        raise Wrong(f"For {what} you get {got.item():.5g}; {want.item():.5g} is right.")
    factor = _factor(got, want, tolerance)
    if factor is not None:
        raise Wrong(
            f"Everywhere {what} is {factor:.4g} times what it should be: is there a "
            "wrong factor or sign?"
        )
    got, want = got.flatten(), want.flatten()
    at = (got - want).abs().argmax()
    raise Wrong(
        f"The largest difference: {what} has {got[at]:.4g} where {want[at]:.4g} is "
        "right."
    )


def _same(got: Tensor, want: Tensor, tolerance: float) -> bool:
    got, want = got.squeeze(), want.squeeze()
    if got.shape != want.shape:
        return False
    finite = want[want.isfinite()].abs()
    scale = finite.mean().item() if finite.numel() else 1.0
    return torch.allclose(
        got, want, rtol=tolerance, atol=tolerance * scale + 1e-9, equal_nan=True
    )


def _factor(got: Tensor, want: Tensor, tolerance: float) -> float | None:
    factor = ((got.squeeze() * want.squeeze()).sum() / want.square().sum()).item()
    if math.isfinite(factor) and abs(factor) > tolerance:
        return factor if _same(got, factor * want, tolerance) else None
    return None


def listed(values: Tensor) -> str:
    """A few numbers for a message: 0.37, 1.00, 2.12."""
    return ", ".join(f"{v:.2f}" for v in values.tolist())


def short(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    try:
        text = reprlib.repr(value)
    except Exception:
        text = f"an object of type {type(value).__name__}"
    return text if len(text) < 60 else f"{text[:57]}..."
