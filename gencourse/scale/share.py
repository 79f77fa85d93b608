"""One step, many devices: a share of each batch, and gradients averaged."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gencourse import steps


def share(step: Any, fabric: Any, noise: "SharedNoise", parts: int) -> None:
    """Let a step work on one share of each batch, in so many parts.

    Gradients are averaged by hand instead of by DistributedDataParallel: a step calls
    parts of its model several times, in turns, with double backward passes for R1,
    which the hooks of a wrapper cannot follow.
    """
    noise.rank, noise.processes = fabric.global_rank, fabric.world_size
    for network in step.model.children():
        _autocast(network, fabric)

    def update(
        optimizer: torch.optim.Optimizer, measure: Callable, *inputs: Tensor
    ) -> dict[str, float]:
        weights = steps.weights(optimizer)
        optimizer.zero_grad()
        # Fakes are cut off their generator, and their gradient is handed to it when all
        # parts are done: its graph can be passed only once.
        leaves = [x.detach().requires_grad_(x.requires_grad) for x in inputs]
        wanted = weights + [leaf for leaf in leaves if leaf.requires_grad]
        found = []
        for part, pieces in enumerate(
            zip(*(x.chunk(parts) for x in leaves), strict=True)
        ):
            noise.begin(part, parts)
            loss, values = measure(*pieces)
            fabric.backward(loss / parts, inputs=wanted)
            found.append(torch.stack([loss, *values.values()]).detach().float())
        noise.begin(0, 1)
        for x, leaf in zip(inputs, leaves, strict=True):
            if leaf.grad is not None:
                fabric.backward(x, gradient=leaf.grad, inputs=weights)
        numbers = torch.stack(found).mean(0)
        if fabric.world_size > 1:
            gradients = [p.grad for p in weights if p.grad is not None]
            sizes = [g.numel() for g in gradients]
            flat = fabric.all_reduce(
                torch.cat([*(g.reshape(-1) for g in gradients), numbers])
            )
            *averages, numbers = flat.split([*sizes, len(numbers)])
            for gradient, average in zip(gradients, averages, strict=True):
                gradient.copy_(average.view(gradient.shape))
        steps.descend(optimizer, numbers[0])
        return dict(zip(values, numbers[1:].tolist(), strict=True))

    step.update = update
    if hasattr(step, "mean"):
        step.mean = fabric.all_reduce


def _autocast(network: nn.Module, fabric: Any) -> None:
    # Around each network and not around the step: losses are computed from float32.
    forward = network.forward

    def in_precision(x: Tensor) -> Tensor:
        with fabric.autocast():
            out = forward(x)
        return out.float()

    network.forward = in_precision


class SharedNoise(TorchFunctionMode):
    """While open, a step's random numbers do not depend on the number of processes.

    Each process draws for the whole batch, from the same generator, and takes the rows
    of its share; codes are small next to images.
    """

    def __init__(self, step: Any) -> None:
        super().__init__()
        self.rng = getattr(step, "rng", None)
        self.rank, self.processes = 0, 1
        self.begin(0, 1)

    def begin(self, part: int, parts: int) -> None:
        """The next draws are for this part of a share."""
        self.part, self.parts, self.calls = part, parts, 0
        if part == 0:
            self.drawn: list[Tensor] = []

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        ours = func in (torch.randn, torch.rand) and self.rng is not None
        if not ours or kwargs.get("generator") is not self.rng:
            return func(*args, **kwargs)
        n, *shape = args[0] if isinstance(args[0], (tuple, list)) else args
        if self.part == 0:
            n_all = n * self.parts * self.processes
            self.drawn.append(func((n_all, *shape), **kwargs))
        start = (self.rank * self.parts + self.part) * n
        self.calls += 1
        return self.drawn[self.calls - 1][start : start + n]
