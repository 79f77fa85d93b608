"""Running a learner's function: with copies, within limits, leaving no trace."""

import copy
import ctypes
import faulthandler
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy
import torch
from torch import Tensor

from gencourse.checks.compare import NotAttempted, Wrong, short

BYTES = 4 * 2**30


class AnswerRaised(Exception):
    """The learner's code raised; `__cause__` is what it raised."""


class OutOfTime(BaseException):
    """Not an Exception, so that `except Exception` in an answer lets it through."""


class Trial:
    """One check of an answer: how many seconds are left for it, and what it drew."""

    def __init__(self, seconds: float) -> None:
        self.seconds = self.seconds_left = seconds
        self.picture: Any = None

    def run(self, answer: Callable, *inputs: Any) -> Any:
        """Call a learner's function with copies of the inputs, within the limits.

        Raises NotAttempted if it returns `...`, Wrong if it is no function, returns
        None or exceeds a limit, and passes on what it raises with its place.
        """
        if not callable(answer):
            raise Wrong(
                f"Expected a function, got {short(answer)}: pass it without ()."
            )
        copies = [
            v.detach().clone()
            if isinstance(v, Tensor)
            else copy.deepcopy(v)
            if isinstance(v, list | dict)
            else v
            for v in inputs
        ]
        try:
            with undisturbed(), _limits(self.seconds_left, self.seconds):
                started = time.perf_counter()
                seed = int(torch.randint(2**62, ()))
                result = answer(*copies)
                # Whatever the answer drew or seeded, the check has numbers of its own.
                torch.manual_seed(seed)
                self.seconds_left = max(
                    0.01, self.seconds_left + started - time.perf_counter()
                )
        except OutOfTime:
            raise Wrong(
                f"Your code was stopped after {self.seconds} seconds. Does a loop "
                "never end?"
            ) from None
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, MemoryError) or "allocate memory" in str(error):
                raise Wrong(
                    "Your code asked for more memory than there is for an exercise "
                    f"({BYTES // 2**30} GB). Is an array of the wrong shape?"
                ) from None
            raise AnswerRaised from error
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise AnswerRaised from error
        if result is ...:
            raise NotAttempted("replace the three dots by your answer.")
        if result is None:
            raise Wrong("Your function returns None. Is `return` missing?")
        return result


# --- what an answer must not change ---------------------------------------------------
@contextmanager
def undisturbed() -> Iterator[None]:
    """Put torch's settings and all states of random numbers back afterwards."""
    grad, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    states = random.getstate(), numpy.random.get_state()
    try:
        yield
    finally:
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
        random.setstate(states[0])
        numpy.random.set_state(states[1])


# --- the limits -----------------------------------------------------------------------
@contextmanager
def _limits(seconds: float, in_all: float) -> Iterator[None]:
    """Stop what runs too long or takes too much memory, as far as the system allows.

    seconds: what is left for this run, of `in_all` for the check. Python code is
    stopped anywhere. A call into C that never returns ends the kernel after three times
    `in_all`: nothing else can end it. Outside Linux a huge array is
    refused only when the system itself refuses it.
    """
    main = threading.current_thread() is threading.main_thread()
    signals = main and hasattr(signal, "setitimer")
    with _memory_limit(), _alarm(seconds, in_all) if signals else _interrupt(seconds):
        yield


@contextmanager
def _alarm(seconds: float, in_all: float) -> Iterator[None]:
    rounds, done = 0, False

    def stop(_signal: int, frame: Any) -> None:
        nonlocal rounds
        rounds += 1
        if done:
            return
        if rounds > 1:  # a bare `except:` has caught it: raise at every further line
            sys.settrace(lambda *_: None)
            while frame is not None and frame.f_code.co_filename != __file__:
                frame.f_trace = _raise_at_every_line
                frame = frame.f_back
        raise OutOfTime

    with suppress(Exception):  # there may be no stderr to write to
        faulthandler.dump_traceback_later(3 * in_all, exit=True, file=sys.__stderr__)
    tracer, handler = sys.gettrace(), signal.signal(signal.SIGALRM, stop)
    # It rings again and again: whoever catches it once is rung a second time.
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.5)
    try:
        yield
    finally:
        done = True
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        sys.settrace(tracer)


def _raise_at_every_line(frame: Any, event: str, argument: Any) -> Callable:
    if event == "line":
        raise OutOfTime
    return _raise_at_every_line


@contextmanager
def _interrupt(seconds: float) -> Iterator[None]:
    """The same without signals; a sleep is stopped only when it is over."""
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    me, done = ctypes.c_ulong(threading.get_ident()), threading.Event()

    def stop() -> None:
        wait = seconds
        while not done.wait(wait):
            raise_in(me, ctypes.py_object(OutOfTime))
            wait = 0.5

    watch = threading.Thread(target=stop, daemon=True)
    watch.start()
    try:
        yield
    finally:
        done.set()
        watch.join()
        raise_in(me, None)  # forget what came too late


@contextmanager
def _memory_limit() -> Iterator[None]:
    try:
        import resource

        with open("/proc/self/statm") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    room = taken + BYTES + 2**28 * torch.get_num_threads()  # threads reserve some
    # A GPU's driver reserves hundreds of gigabytes of addresses at its first use.
    if torch.cuda.is_available() or -1 not in (soft, hard) and room > hard:
        yield
        return
    limit = room if soft == resource.RLIM_INFINITY else min(room, soft)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
