"""The gradient that flows through what an answer gives."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gencourse.checks.compare import Wrong


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


def judge_gradients(
    result: Any,
    leaves: Sequence[Tensor],
    names: Sequence[str],
    exact: Sequence[Tensor],
    hint: str,
) -> None:
    """Raise Wrong, with the hint, unless the gradients of the result are exact.

    Args:
        result: what the answer gave, a tensor or a list of tensors.
        leaves: the inputs with respect to which to differentiate.
        names: the names of the leaves in the messages.
        exact: the right gradients, in the shapes of the leaves.
        hint: what often makes a gradient wrong although the values are right.
    """
    gradients = gradients_of(result, leaves, names)
    for name, leaf, got, want in zip(names, leaves, gradients, exact, strict=True):
        off = (got - want).abs().nan_to_num(math.inf).flatten()
        if off.max() > 1e-3:
            at = off.argmax()
            leaf, got, want = (t.flatten()[at].item() for t in (leaf, got, want))
            raise Wrong(
                f"The values are right, but at {name} = {leaf:.3g} the gradient is "
                f"{got:.3g}, not {want:.3g}. {hint}"
            )
