"""Running a learner's function: with copies, in limited time, leaving no trace."""

import copy
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy
import torch
from torch import Tensor

from gencourse.checks.compare import NotAttempted, Wrong, short


class AnswerRaised(Exception):
    """The learner's code raised; `__cause__` is what it raised."""


class OutOfTime(BaseException):
    """Not an Exception, so that `except Exception` in an answer lets it through."""


class Trial:
    """One check of an answer: its time, its drawing, and whether it is nested."""

    def __init__(self, seconds: float) -> None:
        self.seconds = self.seconds_left = seconds
        self.picture: Any = None
        self.nested = False

    def run(self, answer: Callable, *inputs: Any) -> Any:
        """Call a learner's function with copies of the inputs.

        Raises:
            NotAttempted: it returns `...`.
            Wrong: it is not a function, returns None, or does not end in time.
            AnswerRaised: it raises. The stop button's KeyboardInterrupt passes.
        """
        assert_function(answer)
        copies = [_copied(value) for value in inputs]
        # Whatever the answer draws or seeds, the check has numbers of its own.
        seed = int(torch.randint(2**62, ()))
        try:
            with settings_restored():
                result = self._in_time(answer, copies)
        except OutOfTime:
            raise Wrong(
                f"Your code was stopped after {self.seconds} seconds. Does a loop "
                "never end, or is it far too much work?"
            ) from None
        except (Exception, SystemExit) as error:
            raise AnswerRaised from error
        torch.default_generator.manual_seed(seed)
        if result is ...:
            raise NotAttempted("replace the three dots by your answer.")
        if result is None:
            raise Wrong("Your function returns None. Is `return` missing?")
        return result

    def _in_time(self, answer: Callable, copies: list) -> Any:
        """Call the answer; raise OutOfTime when no seconds are left.

        There is no limit outside the main thread, on Windows, or in a C call that
        never returns; there, use Jupyter's buttons to stop and to restart.
        """
        in_main = threading.current_thread() is threading.main_thread()
        if not (in_main and hasattr(signal, "setitimer")):
            return answer(*copies)
        running = True

        def ring(_: int, frame: Any) -> None:
            # Never in our `finally`, nor in what it calls: an alarm may come late.
            if running and (frame is None or frame.f_code.co_filename != __file__):
                raise OutOfTime

        handler = signal.signal(signal.SIGALRM, ring)
        # Then every 10 microseconds: a loop with a bare `except:` may swallow many
        # before one arrives outside its `try`.
        signal.setitimer(signal.ITIMER_REAL, self.seconds_left, 1e-5)
        try:
            return answer(*copies)
        finally:
            running = False
            left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
            self.seconds_left = max(left, 0.01)  # 0 would switch the alarm off
            signal.signal(signal.SIGALRM, handler)


def assert_function(answer: Any) -> None:
    if not callable(answer):
        raise Wrong(f"Expected a function, got {short(answer)}: pass it without ().")


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):  # a leaf itself, so that its gradient can be asked
        return value if value.requires_grad else value.clone()
    return copy.deepcopy(value) if isinstance(value, list | dict) else value


# --- what an answer must not change ---------------------------------------------------
def _set_default_device(device: torch.device) -> None:
    # None means the CPU as well, and costs nothing at each call of torch.
    torch.set_default_device(None if device.type == "cpu" else device)


SETTINGS: tuple[tuple[Callable, Callable], ...] = (  # how to read and how to set each
    (torch.get_default_device, _set_default_device),
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.is_grad_enabled, torch.set_grad_enabled),
)


@contextmanager
def settings_restored() -> Iterator[None]:
    before = [read() for read, _ in SETTINGS]
    try:
        yield
    finally:
        for (read, put), value in zip(SETTINGS, before, strict=True):
            if read() != value:
                put(value)


@contextmanager
def fresh_state() -> Iterator[None]:
    """The same settings and random numbers for every check; afterwards the caller's."""
    states = random.getstate(), numpy.random.get_state()
    with (
        settings_restored(),
        torch.random.fork_rng(devices=[]),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        try:
            torch.set_default_device(None)
            torch.set_default_dtype(torch.float32)
            torch.default_generator.manual_seed(0)
            random.seed(0)
            numpy.random.seed(0)
            yield
        finally:
            random.setstate(states[0])
            numpy.random.set_state(states[1])
