"""Comparing an answer with what is right, and naming the mistake that was made."""

import math
import reprlib
from collections.abc import Mapping
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
        if isinstance(value, list | tuple) and any(
            isinstance(item, Tensor) for item in value
        ):
            value = torch.stack([numbers(item) for item in value])
        if not isinstance(value, Tensor):
            array = numpy.array(value)
            if array.dtype.kind not in "biufO":  # O: such as Fraction
                raise TypeError(array.dtype)
            # In the order "C", because torch knows no negative strides.
            value = torch.from_numpy(array.astype(float, order="C"))
        if value.is_complex():
            raise TypeError("complex")
        return (value.to_dense() if value.is_sparse else value).detach().cpu().double()
    except Exception:  # whatever an object of the learner's own may do
        raise Wrong(f"Expected numbers for {what}, got {short(value)}.") from None


def scalar(value: Any, what: str = "your answer") -> float:
    """The answer as one finite float; Wrong if it is anything else."""
    tensor = numbers(value, what)
    if tensor.numel() != 1 or not math.isfinite(tensor.item()):
        got = tensor.item() if tensor.numel() == 1 else short(value)
        raise Wrong(f"Expected one number for {what}, got {got}.")
    return tensor.item()


Mistakes = Mapping[str, Any]  # hint -> what the mistake would give


def compare(
    got: Any,
    want: Any,
    mistakes: Mistakes | None = None,
    what: str = "your result",
    tolerance: float = 1e-3,
) -> None:
    """Pass if got is want; otherwise raise Wrong, with the hint of the mistake made.

    Args:
        got: what the answer gave.
        want: what is right.
        mistakes: for each hint, what that mistake would give.
        what: the name of `got` in the messages.
        tolerance: relative to each number and to the mean size of all.
    """
    got, want = numbers(got, what), numbers(want)
    if _same(got, want, tolerance):
        if got.shape == want.shape or want.numel() == 1:
            return
        danger = " Added to others, (B, 1) and (B,) make (B, B)."
        raise Wrong(
            f"The numbers are right, but their shape is {tuple(got.shape)}, not "
            f"{tuple(want.shape)}.{danger if want.ndim == 1 else ''}"
        )
    name_mistake(got, mistakes or {}, tolerance)
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


def name_mistake(got: Any, mistakes: Mistakes, tolerance: float = 1e-3) -> None:
    """Raise Wrong with the hint of the first mistake that would give `got`, if any."""
    got = numbers(got)
    for text, value in mistakes.items():
        if _same(got, numbers(value), tolerance):
            raise Wrong(text)


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
