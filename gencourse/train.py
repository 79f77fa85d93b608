"""The loop that all models share.

`fit` calls `step(x)` for each batch and keeps what the step returns: the step is where
the learning happens, the loop stays out of the way.
"""

import contextlib
import math
import random
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import length_hint
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm


def seed_everything(seed: int) -> None:
    """Seed NumPy, Python and torch.

    The same seed gives the same numbers on the same machine with the same number of
    threads.

    Args:
        seed: A whole number from 0 to 2**32 - 1.
    """
    np.random.seed(seed)  # refuses any other seed
    random.seed(int(seed))
    torch.manual_seed(seed)


def best_device() -> torch.device:
    """The GPU if torch finds one that CUDA drives, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass
class History:
    """What training measured; its dicts of lists can be plotted as they are.

    Attributes:
        steps: Every value that the step returned, one per step.
        epochs: Their means over each pass through the batches, weighted by batch size
            (the last pass may be a partial one).
        images: How many images were seen.
        seconds: How long it took.
        interrupted: Whether the last call was stopped by hand.
    """

    steps: dict[str, list[float]] = field(default_factory=dict)
    epochs: dict[str, list[float]] = field(default_factory=dict)
    images: int = 0
    seconds: float = 0.0
    interrupted: bool = False

    def __len__(self) -> int:
        """The number of steps."""
        return max(map(len, self.steps.values()), default=0)

    def last(self) -> dict[str, float]:
        """What the latest step returned."""
        return {name: values[-1] for name, values in self.steps.items()}


class TrainingDiverged(RuntimeError):
    """A loss was NaN or infinite."""

    def __init__(self, problem: str, history: History) -> None:
        last = ", ".join(f"{k} = {v:.5g}" for k, v in history.last().items())
        super().__init__(
            f"training stopped at step {len(history) + 1} with a value that is not "
            f"finite: {problem}. Last finite values: {last or 'none'}. "
            "Try a smaller learning rate; check the sign of each term of the loss and "
            "that the images are finite and in [0, 1]. If your own step had already "
            "changed the weights, build the model again."
        )


def fit(
    step: Callable[[Tensor], dict[str, float]],
    batches: Iterable[Any],
    *,
    epochs: int | None = None,
    steps: int | None = None,
    seconds: float | None = None,
    history: History | None = None,
    progress: bool | None = None,
) -> History:
    """Call step(x) for every batch x until the first limit is reached.

    The stop button (Ctrl-C) ends training at once and keeps model and history. The
    interrupted step is not in the history; the optimizers of `steps` have then moved
    all their weights or none. If an error ends training, the exception carries the
    history as `.history`.

    Args:
        step: x -> dict of floats, the same names each time.
        batches: Gives x, or tuples (x, ...) of which only x is used. It is read once
            per epoch: a list, `Images.batches(...)` or a DataLoader; a generator lasts
            for one epoch.
        epochs, steps, seconds: When to end, at least one of them; the first one reached
            counts.
        history: An earlier history, to continue.
        progress: Whether to show a bar after 2 s; None shows it to a person at a
            notebook or terminal.

    Returns:
        The history, with `.interrupted` set if training was stopped by hand.

    Raises:
        TrainingDiverged: A value is NaN or infinite.
        ValueError, TypeError: There is nothing to train on, no limit, or the step does
            not return numbers.

    Taught in: lesson 02
    """
    if isinstance(batches, Tensor):
        raise TypeError("batches is one tensor: pass a list, such as x.split(64)")
    epochs, steps, seconds = _limits(epochs=epochs, steps=steps, seconds=seconds)
    history = History() if history is None else history
    history.interrupted = False
    earlier, start = history.seconds, time.perf_counter()
    bar = _open_bar(batches, epochs, steps, progress)
    done = epoch = 0
    try:
        while epoch < epochs:
            epoch += 1
            images, sums = 0, {}
            past = max(map(len, history.epochs.values()), default=0)
            for batch in batches:
                x = batch[0] if isinstance(batch, tuple | list) else batch
                if len(x) == 0:
                    raise ValueError(f"batch {done + 1} holds no images: leave it out")
                values = _call(step, x, history)
                done += 1
                images += len(x)
                history.images += len(x)
                history.seconds = earlier + time.perf_counter() - start
                for name, value in values.items():
                    history.steps.setdefault(name, []).append(value)
                    sums[name] = sums.get(name, 0.0) + value * len(x)
                    # The mean of the epoch so far: right whenever training ends.
                    history.epochs.setdefault(name, [])[past:] = [sums[name] / images]
                _show(bar, values)
                if done >= steps or history.seconds - earlier >= seconds:
                    return history
            if images == 0:
                raise ValueError(
                    f"batches gave nothing in epoch {epoch}. Are there fewer images "
                    "than a batch? Is it a generator, which can be read only once? "
                    "Pass a list, Images.batches(...) or a DataLoader"
                )
    except KeyboardInterrupt:
        _stop(history)
    except Exception as error:
        error.history = history
        error.add_note(
            f"Training ended at step {len(history) + 1}. The history until then is in "
            "the exception: import sys; history = sys.last_value.history"
        )
        raise
    finally:
        _close(bar)
    return history


def _call(step: Callable, x: Tensor, history: History) -> dict[str, float]:
    """What the step returned, as finite floats under the history's names."""
    try:
        returned = step(x)
    except FloatingPointError as error:
        raise TrainingDiverged(str(error), history) from error
    try:
        values = {name: float(value) for name, value in returned.items()}
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"a step must return a dict of single numbers, got {returned!r:.80}"
        ) from error
    if history.steps and values.keys() != history.steps.keys():
        raise ValueError(
            f"the step returned {list(values)}, but the history contains "
            f"{list(history.steps)}: start a new history for another kind of step"
        )
    for name, value in values.items():
        if not math.isfinite(value):
            raise TrainingDiverged(f"{name} = {value}", history)
    return values


def _stop(history: History) -> None:
    history.interrupted = True
    # Drop what a step recorded under some of its names only.
    for lists in (history.steps, history.epochs):
        complete = min(map(len, lists.values()), default=0)
        for values in lists.values():
            del values[complete:]
    print(
        f"Stopped by hand at step {len(history)}, after {history.seconds:.0f} s: "
        "model and history are kept. Continue with fit(..., history=history)."
    )


def _limits(**limits: float | None) -> list[float]:
    """The limits, infinite where none was given."""
    if all(limit is None for limit in limits.values()):
        raise ValueError("say when to end: epochs=..., steps=... or seconds=...")
    for name, limit in limits.items():
        if limit is not None and not limit > 0:
            raise ValueError(f"{name} must be > 0, got {limit!r}")
    return [math.inf if limit is None else limit for limit in limits.values()]


# --- progress, for people: no fault of a bar may end a training -----------------------
def _open_bar(
    batches: Iterable, epochs: float, steps: float, wanted: bool | None
) -> tqdm:
    """A tqdm bar that appears after 2 s and leaves nothing behind."""
    with contextlib.suppress(Exception):
        if _person_watches() if wanted is None else wanted:
            from tqdm.auto import tqdm as bar  # in a notebook this loads ipywidgets

            total = min(steps, epochs * (length_hint(batches) or math.inf))
            return bar(total=total, delay=2, leave=False, unit=" steps")
    return tqdm(disable=True)


def _show(bar: tqdm, values: dict[str, float]) -> None:
    with contextlib.suppress(Exception):
        if bar.update():
            bar.set_postfix(values)


def _close(bar: tqdm) -> None:
    with contextlib.suppress(Exception):
        bar.total = None  # tqdm keeps a bar that has not reached its end
        bar.close()


def _person_watches() -> bool:
    """Whether a person sits at this notebook or terminal.

    Programs that run notebooks (nbclient, nbval, nbconvert, papermill) tell the kernel
    that nobody can answer a question, and stored notebooks must hold no bar.
    """
    ipython = sys.modules.get("IPython")
    kernel = getattr(ipython.get_ipython() if ipython else None, "kernel", None)
    if kernel is None:
        return sys.stderr.isatty()
    return bool(kernel.get_parent("shell")["content"]["allow_stdin"])
