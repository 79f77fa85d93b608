"""The loop that all models share.

`fit` calls `step(x)` for each batch and keeps what the step returns: the step is where
the learning happens, the loop stays out of the way.
"""

import math
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor


def seed_everything(seed: int) -> None:
    """Start the random numbers of Python, NumPy and torch from one seed.

    seed: a whole number from 0 to 2**32 - 1. The same seed gives the same numbers on
    the same machine with the same number of threads.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"seed must be a whole number in 0..2**32 - 1, got {seed!r}")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def best_device() -> torch.device:
    """The GPU where torch finds one that CUDA drives, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


# --- the loop -------------------------------------------------------------------------
@dataclass
class History:
    """What training measured; its dicts of lists can be plotted as they are.

    steps: every value that the step returned, one per step. epochs: their means over
    each pass through the batches, weighted by batch size (the last pass may be a
    partial one).
    images: how many images were seen. seconds: how long it took. interrupted: whether
    the last call was stopped by hand.
    """

    steps: dict[str, list[float]] = field(default_factory=dict)
    epochs: dict[str, list[float]] = field(default_factory=dict)
    images: int = 0
    seconds: float = 0.0
    interrupted: bool = False

    def __len__(self) -> int:
        """How many steps were made."""
        return max((len(values) for values in self.steps.values()), default=0)

    def last(self) -> dict[str, float]:
        """What the latest step returned."""
        return {name: values[-1] for name, values in self.steps.items() if values}


class TrainingDiverged(RuntimeError):
    """A loss was NaN or infinite. `.history` holds what was measured before."""

    def __init__(self, message: str, history: History) -> None:
        super().__init__(message)
        self.history = history


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
    """Call step(x) for every batch x, again and again, and keep what it returns.

    step: x -> dict of floats, the same names each time. batches: gives x, or tuples (x,
    ...) of which only x is used; it must be re-iterable (a list, `Images.batches`, a
    DataLoader) where it is passed through more than once. epochs, steps, seconds: when
    to end; with several, whichever comes first. history: of an earlier call, to be
    continued.
    progress: a bar; None shows one to a person at a notebook or terminal after 2 s.
    Returns the history. The stop button (Ctrl-C) finishes the step at hand, prints a
    line and returns too: model and history stay as they are. A second press raises
    KeyboardInterrupt at once.
    Raises TrainingDiverged when a value is NaN or infinite, ValueError for an
    impossible request or batches that give nothing, TypeError when step does not return
    numbers.
    Taught in: lesson 02
    """
    _check_limits(batches, epochs, steps, seconds)
    history = History() if history is None else history
    history.interrupted = False
    seconds_before = history.seconds
    bar = _Bar(_person_watches() if progress is None else progress)
    start = time.perf_counter()
    done, epoch = 0, 0
    limit_reached = False
    with _StopButton() as stop:
        try:
            while not limit_reached and epoch != epochs:
                totals: dict[str, float] = {}
                images = 0
                try:
                    for batch in batches:
                        x = batch
                        if isinstance(batch, (tuple, list)) and batch:
                            x = batch[0]
                        if not isinstance(x, (Tensor, np.ndarray)) or x.ndim == 0:
                            raise TypeError(
                                f"batch {done + 1} is {x!r:.60}: expected a tensor of "
                                "images, or a tuple that begins with one"
                            )
                        if len(x) == 0:
                            raise ValueError(
                                f"batch {done + 1} has no images: leave it out"
                            )
                        values = _call(step, x, history)
                        images += len(x)
                        for name, value in values.items():
                            history.steps.setdefault(name, []).append(value)
                            totals[name] = totals.get(name, 0.0) + value * len(x)
                        history.images += len(x)
                        done += 1
                        elapsed = time.perf_counter() - start
                        history.seconds = seconds_before + elapsed
                        limit_reached = (
                            stop.pressed
                            or done == steps
                            or (seconds is not None and elapsed >= seconds)
                        )
                        if bar.wanted:
                            part = _part_done(
                                batches, epochs, steps, seconds, done, elapsed
                            )
                            bar.show(part, values)
                        if limit_reached:
                            break
                finally:
                    for name, total in totals.items():
                        history.epochs.setdefault(name, []).append(total / images)
                epoch += 1
                if images == 0:
                    raise ValueError(_nothing_came(epoch))
        except KeyboardInterrupt:
            if stop.pressed:
                raise
            stop.pressed = True
        finally:
            bar.close()
    if stop.pressed:
        history.interrupted = True
        print(
            f"Stopped by hand at step {len(history)}, after {history.seconds:.0f} s: "
            "model and history are kept. Go on with fit(..., history=history)."
        )
    return history


def _call(step: Callable, x: Tensor, history: History) -> dict[str, float]:
    """What the step returned, as finite floats, under the history's names."""
    try:
        returned = step(x)
    except FloatingPointError as error:
        raise _diverged(str(error), history) from error
    if not isinstance(returned, dict) or not returned:
        raise TypeError(f"a step must return a dict of numbers, got {returned!r}")
    if history.steps and returned.keys() != history.steps.keys():
        raise ValueError(
            f"the step returned {list(returned)}, but the history holds "
            f"{list(history.steps)}: start a new history for another kind of step"
        )
    try:
        values = {name: float(value) for name, value in returned.items()}
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise TypeError(
            f"a step must return a dict of single numbers: {error}"
        ) from error
    for name, value in values.items():
        if not math.isfinite(value):
            raise _diverged(f"{name} = {value}", history)
    return values


def _diverged(what: str, history: History) -> TrainingDiverged:
    last = ", ".join(f"{name} = {value:.5g}" for name, value in history.last().items())
    return TrainingDiverged(
        f"training stopped at step {len(history) + 1}: {what} is not finite. "
        f"Last finite values: {last or 'none, this was the first step'}. "
        "Try a smaller learning rate; check the sign of each term of the loss and that "
        "the images are finite and in [0, 1]. If your step changed the weights before "
        "it returned this, build the model anew.",
        history,
    )


def _check_limits(
    batches: Iterable, epochs: int | None, steps: int | None, seconds: float | None
) -> None:
    if epochs is None and steps is None and seconds is None:
        raise ValueError("say when to end: epochs=..., steps=... or seconds=...")
    if isinstance(batches, Tensor):
        raise TypeError("batches is one tensor: pass a list, such as x.split(64)")
    for name, value in (("epochs", epochs), ("steps", steps)):
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int) or value < 1
        ):
            raise ValueError(f"{name} must be a whole number >= 1, got {value!r}")
    if seconds is not None and not seconds > 0:
        raise ValueError(f"seconds must be > 0, got {seconds!r}")
    if isinstance(batches, Iterator) and epochs not in (None, 1):
        raise ValueError(
            f"a generator can be read only once, not for {epochs} epochs: pass a list, "
            "Images.batches(...) or a DataLoader"
        )


def _nothing_came(epoch: int) -> str:
    if epoch == 1:
        return "batches gave nothing to train on: are there fewer images than a batch?"
    return (
        f"batches gave nothing in epoch {epoch}: a generator can be read only once. "
        "Pass a list, Images.batches(...) or a DataLoader"
    )


class _StopButton:
    """While open, a first interrupt sets `.pressed`, a second raises KeyboardInterrupt.

    Only the main thread receives interrupts; elsewhere this does nothing.
    """

    def __enter__(self) -> "_StopButton":
        self.pressed = False
        self.previous = None
        if threading.current_thread() is threading.main_thread():
            self.previous = signal.getsignal(signal.SIGINT)
            # None means a handler that was not set from Python and cannot be put back.
            if self.previous is not None:
                signal.signal(signal.SIGINT, self.press)
        return self

    def press(self, *_: object) -> None:
        if self.pressed:
            raise KeyboardInterrupt
        self.pressed = True

    def __exit__(self, *_: object) -> None:
        if self.previous is not None:
            signal.signal(signal.SIGINT, self.previous)


# --- progress, for people -------------------------------------------------------------
def _person_watches() -> bool:
    """Whether a person sits at this notebook or terminal.

    Programs that execute notebooks (nbclient, nbval, nbconvert, papermill) tell the
    kernel that nobody can answer a question, and stored notebooks must hold no progress
    bar.
    """
    kernel = _kernel()
    if kernel is None:
        return sys.stderr.isatty()
    try:
        return bool(kernel.get_parent("shell")["content"]["allow_stdin"])
    except (AttributeError, KeyError, TypeError):
        return False


def _kernel() -> Any:
    """The Jupyter kernel that runs this, or None."""
    module = sys.modules.get("IPython")
    return getattr(module.get_ipython() if module else None, "kernel", None)


def _part_done(
    batches: Iterable,
    epochs: int | None,
    steps: int | None,
    seconds: float | None,
    done: int,
    elapsed: float,
) -> float:
    """How much of the work is behind us, from 0 to 1."""
    parts = [0.0]
    if steps:
        parts.append(done / steps)
    if seconds:
        parts.append(elapsed / seconds)
    if epochs and hasattr(batches, "__len__"):
        parts.append(done / (epochs * len(batches)))
    return min(1.0, max(parts))


class _Bar:
    """A tqdm bar that appears after 2 s and leaves nothing behind."""

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted
        self.bar = self.output = None
        self.next_time = time.perf_counter() + 2.0

    def show(self, part: float, values: dict[str, float]) -> None:
        now = time.perf_counter()
        if now < self.next_time:
            return
        self.next_time = now + 0.25
        if self.bar is None:
            self._open()
        text = ", ".join(f"{name} {value:.3g}" for name, value in values.items())
        self.bar.n = part
        self.bar.set_postfix_str(text)

    def _open(self) -> None:
        # Imported only here: in a notebook tqdm draws with ipywidgets.
        look = dict(total=1.0, bar_format="{l_bar}{bar}| {elapsed}{postfix}")
        if _kernel() is None:
            from tqdm import tqdm

            self.bar = tqdm(leave=False, **look)
        else:
            from IPython.display import display
            from tqdm.notebook import tqdm

            self.bar = tqdm(leave=False, display=False, **look)
            self.output = display(self.bar.container, display_id=True)
        self.bar.start_t -= 2.0

    def close(self) -> None:
        if self.bar is not None:
            self.bar.n = self.bar.total  # tqdm keeps a bar that did not reach its end
            self.bar.close()
        if self.output is not None:
            # A notebook that was saved would else show an error for the closed widget.
            self.output.update({"text/plain": ""}, raw=True)
