"""One step on many processes: each takes a share of the batch, as if it were whole.

Every process holds the whole model and calls the lesson's step with its own rows of
each batch. The loss is a mean over images, so its gradient over the whole batch is the
mean of the gradients over equal shares. If all processes average their gradients before
each update, all copies of the model make the update that one process would make.

The averaging belongs between the gradient and the optimizer, in the middle of the step.
Hooks on the weights do it there, so `steps` stays as plain as the lessons: torch calls
a hook as soon as backward() has completed the gradient of its weight. (The inner
gradient of R1 is never stored in a weight and calls no hook.) torch's
DistributedDataParallel does not fit: it prepares each backward() in the one call
model(x), but a step calls encoder and decoder apart, and the discriminator several
times.

Gradients are not all: a variance measured on the batch, the values that are reported,
and the noise of the codes are made those of the whole batch too.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gencourse import steps


def share(step: Any, fabric: Any) -> None:
    """Make a step use the precision of Fabric and serve all its processes."""
    for network in step.model.children():
        network.forward = _in_precision(network.forward, fabric)
    if fabric.world_size == 1:
        return
    for optimizer in optimizers(step).values():
        _average_gradients(steps.weights(optimizer), fabric)
    for name in ("measure", "measure_discriminator", "measure_generator"):
        if hasattr(step, name):
            setattr(step, name, _measure_all(getattr(step, name), fabric))
    if hasattr(step, "optimal_s2"):
        s2_of = step.optimal_s2
        step.optimal_s2 = lambda x, error: s2_of(x, fabric.all_reduce(error.detach()))
    _share_noise(step.model, fabric)


def optimizers(step: Any) -> dict[str, torch.optim.Optimizer]:
    """The optimizers of a step by the names of its attributes."""
    attributes = vars(step).items()
    return {k: v for k, v in attributes if isinstance(v, torch.optim.Optimizer)}


def _in_precision(forward: Callable, fabric: Any) -> Callable:
    # Around each network and not around the step: losses are computed from float32.
    def in_precision(x: Tensor) -> Tensor:
        with fabric.autocast():
            out = forward(x)
        return out.float()

    return in_precision


def _average_gradients(weights: list[nn.Parameter], fabric: Any) -> None:
    """Let each backward pass end with the gradients of the whole batch."""
    ready: list[Tensor] = []

    def average(weight: nn.Parameter) -> None:
        ready.append(weight.grad)
        if len(ready) == len(weights):  # one message is faster than many
            flat = fabric.all_reduce(torch.cat([g.reshape(-1) for g in ready]))
            means = flat.split([g.numel() for g in ready])
            for gradient, mean in zip(ready, means, strict=True):
                gradient.copy_(mean.view(gradient.shape))
            ready.clear()

    for weight in weights:
        weight.register_post_accumulate_grad_hook(average)


def _measure_all(measure: Callable, fabric: Any) -> Callable:
    """The values of the whole batch, with the gradients of this process's share."""

    def measure_all(*inputs: Tensor) -> dict[str, Tensor]:
        values = measure(*inputs)
        own = torch.stack(list(values.values()))
        means = own + (fabric.all_reduce(own.detach()) - own.detach())
        return dict(zip(values, means, strict=True))

    return measure_all


def _share_noise(model: nn.Module, fabric: Any) -> None:
    """Make the codes independent of the number of processes.

    Each process draws those of the whole batch, from the same random numbers, and keeps
    its rows; codes are small next to images.
    """
    n_processes = fabric.world_size

    def own(rows: Tensor) -> Tensor:
        return rows.chunk(n_processes)[fabric.global_rank]

    if hasattr(model, "prior"):
        prior = model.prior
        model.prior = lambda n, rng=None: own(prior(n * n_processes, rng))
    if hasattr(model, "reparameterize"):
        draw = model.reparameterize
        model.reparameterize = lambda mu, logvar, rng=None: own(
            draw(mu.repeat(n_processes, 1), logvar.repeat(n_processes, 1), rng)
        )
