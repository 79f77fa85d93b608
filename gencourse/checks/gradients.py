"""The gradient that flows through what an answer gives."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gencourse.checks.compare import Wrong


def with_leaves(answer: Callable, leaves: Sequence[Tensor]) -> Callable:
    """Bind the leaves to the answer, because `Trial.run` would pass copies of them."""
    return (lambda: answer(*leaves)) if callable(answer) else answer


def gradients_of(
    result: Any, leaves: Sequence[Tensor], names: Sequence[str]
) -> list[Tensor]:
    """Return the gradients of the result's sum, float64.

    Raises:
        Wrong: the gradient is cut off from the leaf of that name.
    """
    if isinstance(result, list) and all(isinstance(item, Tensor) for item in result):
        result = torch.stack(result)
    if not (isinstance(result, Tensor) and result.requires_grad):
        raise Wrong(
            "The values are right, but no gradient can flow through them to "
            f"{' and '.join(names)}: .sample(), .item(), .detach() or no_grad cut it "
            "off."
        )
    try:
        gradients = torch.autograd.grad(result.sum(), leaves, allow_unused=True)
    except RuntimeError:
        raise Wrong(
            "Leave the gradient to the caller: no backward() in here."
        ) from None
    for name, gradient in zip(names, gradients, strict=True):
        if gradient is None:
            raise Wrong(f"The values are right, but no gradient flows to {name}.")
    return [gradient.double() for gradient in gradients]
