"""Checks for the exercises: say what is wrong, in the words of the exercise.

    checks.check("3.2", my_function)    right, or what is wrong with it
    checks.hint("3.2")                  the next of three hints
    checks.report("3")                  what is attempted and solved in lesson 03

An answer is run with copies of the inputs, for at most twenty seconds and with at most
four gigabytes more. What it raises is shown with its place. The exercises themselves,
with their hints and the wrong answers that they know, are in `_exercises01.py` to
`_exercises05.py`.
"""

import copy
import ctypes
import faulthandler
import inspect
import linecache
import math
import random
import reprlib
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy
import torch
from torch import Tensor

SECONDS = 20  # for all runs of an answer in one check
BYTES = 4 * 2**30
LESSONS = ("1", "2", "3", "4", "5")


class Wrong(Exception):
    """The answer is wrong; the message says how, in the words of the exercise."""


class NotAttempted(Exception):
    """The answer is still the starter."""


class _AnswerRaised(Exception):
    """The learner's code raised; `__cause__` is what it raised."""


class _OutOfTime(BaseException):
    """Not an Exception, so that `except Exception` in an answer lets it through."""


@dataclass(frozen=True)
class Exercise:
    """One exercise: `test(*answers)` returns praise or raises Wrong."""

    number: str
    title: str
    hints: tuple[str, str, str]
    test: Callable[..., str]


@dataclass(frozen=True, repr=False)
class Verdict:
    """What a check found: true if the answer is right. A cell that ends with it shows
    `text`, and above it the picture that the answer drew, if it drew one.
    """

    text: str
    passed: bool = False
    picture: Any = None
    error: BaseException | None = None

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        return self.text

    def _ipython_display_(self) -> None:
        from IPython.display import display

        if self.picture is not None:
            display(self.picture)
        print(self.text)


_exercises: dict[str, Exercise] = {}
_state: dict[str, str] = {}  # number -> "solved" or "attempted"
_hints_seen: dict[str, int] = {}
_picture: Any = None  # what the answer that is being checked drew
_seconds_left = 0.0  # for the answer that is being checked


# --- what a learner calls -------------------------------------------------------------
def check(number: str, *answers: Any) -> Verdict:
    """Return whether the answers are right, and if not, what is wrong.

    number: such as "3.2", lesson and exercise. answers: what the exercise asks for, a
    function or a value. Inputs are on the CPU; results may be on any device, float32 or
    float64, tensors, arrays or numbers.
    Returns a Verdict; `verdict.error` is the exception that the answer raised, if any.
    Raises ValueError if there is no such exercise.
    """
    number = _find(number).number
    verdict, state = _judge(number, answers)
    if state and _state.get(number) != "solved":
        _state[number] = state
    return verdict


def solution(number: str, *answers: Any) -> Verdict:
    """Put the course's own answer to the check, without counting it as the learner's.

    Raises AssertionError if the check does not accept it.
    """
    verdict, _ = _judge(number, answers)
    if not verdict:
        raise AssertionError(f"the solution fails: {verdict.text}") from verdict.error
    text = verdict.text.replace("right.", "this solution is right.", 1)
    return Verdict(text, True, verdict.picture)


def hint(number: str, level: int = 0) -> Verdict:
    """Return the next hint of an exercise, or the one of the given level, 1 to 3.

    Raises ValueError if there is no such exercise or level.
    """
    exercise = _find(number)
    number = exercise.number
    if level not in range(4):
        raise ValueError(f"there are hints of level 1, 2 and 3, not {level!r}")
    level = level or min(_hints_seen.get(number, 0) + 1, 3)
    _hints_seen[number] = max(level, _hints_seen.get(number, 0))
    more = f' checks.hint("{number}") again says more.' if level < 3 else ""
    return Verdict(_wrap(f"Hint {level} of 3: {exercise.hints[level - 1]}{more}"))


def report(lesson: str) -> Verdict:
    """Return the state of each exercise of a lesson ("3" or "03") since the start."""
    found = _of_lesson(str(lesson))
    rows = []
    for number, exercise in found.items():
        seen = _hints_seen.get(number, 0)
        hints = f"   ({seen} of 3 hints)" if seen else ""
        state = _state.get(number, "not attempted")
        rows.append(f"{number}   {state:<15}{exercise.title}{hints}")
    solved = sum(_state.get(number) == "solved" for number in found)
    rows.append(f"solved: {solved} of {len(found)}")
    return Verdict("\n".join(rows), solved == len(found))


# --- the judge ------------------------------------------------------------------------
def _judge(number: str, answers: Sequence[Any]) -> tuple[Verdict, str]:
    global _picture, _seconds_left
    exercise, _picture, _seconds_left = _find(number), None, SECONDS
    number = exercise.number
    name = f"Exercise {number}"
    error = None
    try:
        if len(answers) != len(inspect.signature(exercise.test).parameters):
            raise Wrong(
                f'Give the check your answer: checks.check("{number}", answer).'
            )
        if any(answer is ... for answer in answers):
            raise NotAttempted("replace the three dots by your answer.")
        with (
            _undisturbed(),
            torch.random.fork_rng(devices=[]),
            torch.inference_mode(False),
            torch.enable_grad(),
        ):
            torch.set_default_dtype(torch.float32)
            torch.manual_seed(0)
            praise = exercise.test(*answers)
    except NotAttempted as why:
        text = f'not attempted yet: {why} If you are stuck: checks.hint("{number}")'
        return Verdict(_wrap(f"{name}: {text}")), ""
    except _AnswerRaised as raised:
        error = raised.__cause__
        text = f"{name}: {_what_was_raised(error)}"
    except Wrong as wrong:
        text = _wrap(f'{name}: not yet. {wrong} More: checks.hint("{number}")')
    else:
        return Verdict(_wrap(f"{name}: right. {praise}"), True, _picture), "solved"
    return Verdict(text, False, _picture, error), "attempted"


def _find(number: str) -> Exercise:
    number = str(number).lstrip("0")
    found = _of_lesson(number.partition(".")[0])
    if number not in found:
        raise ValueError(f"there is no exercise {number!r}, only {', '.join(found)}")
    return found[number]


def _of_lesson(lesson: str) -> dict[str, Exercise]:
    lesson = lesson.lstrip("0")
    if lesson not in LESSONS:
        raise ValueError(f"there are exercises for lessons 1 to 5, not {lesson!r}")
    import_module(f"gencourse._exercises0{lesson}")
    mine = {n: e for n, e in _exercises.items() if n.startswith(f"{lesson}.")}
    return dict(sorted(mine.items()))


def _what_was_raised(error: BaseException) -> str:
    """The exception and the places in the learner's code that led to it."""
    places = [
        f"  line {frame.lineno} in {frame.name}: {frame.line or _source(frame)}"
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).parent != Path(__file__).parent
        and "site-packages" not in frame.filename
    ]
    try:
        said = f"your code raised {type(error).__name__}: {error}"
    except Exception:
        said = f"your code raised {type(error).__name__}"
    return "\n".join([_wrap(said), *places[-5:]])


def _source(frame: traceback.FrameSummary) -> str:
    return linecache.getline(frame.filename, frame.lineno).strip()


def _wrap(text: str) -> str:
    return "\n".join(fill(line, 84) for line in text.splitlines())


# --- what an exercise uses ------------------------------------------------------------
def exercise(
    number: str, title: str, hints: tuple[str, str, str]
) -> Callable[[Callable[..., str]], Callable[..., str]]:
    """Register `test(*answers)`, which returns praise or raises Wrong."""

    def register(test: Callable[..., str]) -> Callable[..., str]:
        _exercises[number] = Exercise(number, title, hints, test)
        return test

    return register


def run(answer: Callable, *inputs: Any) -> Any:
    """Call a learner's function with copies of the inputs, within the limits.

    Raises NotAttempted if it returns `...`, Wrong if it is no function, returns None or
    exceeds a limit, and passes on what it raises with its place.
    """
    if not callable(answer):
        raise Wrong(f"Expected a function, got {_short(answer)}: pass it without ().")
    global _seconds_left
    copies = [
        v.detach().clone()
        if isinstance(v, Tensor)
        else copy.deepcopy(v)
        if isinstance(v, list | dict)
        else v
        for v in inputs
    ]
    try:
        with _undisturbed(), _limits(_seconds_left):
            started = time.perf_counter()
            seed = int(torch.randint(2**62, ()))
            result = answer(*copies)
            # Whatever the answer drew or seeded, the check has numbers of its own.
            torch.manual_seed(seed)
            _seconds_left = max(0.01, _seconds_left + started - time.perf_counter())
    except _OutOfTime:
        raise Wrong(
            f"Your code was stopped after {SECONDS} seconds. Does a loop never end?"
        ) from None
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise Wrong(
                "Your code asked for more memory than there is for an exercise "
                f"({BYTES // 2**30} GB). Is an array of the wrong shape?"
            ) from None
        raise _AnswerRaised from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _AnswerRaised from error
    if result is ...:
        raise NotAttempted("replace the three dots by your answer.")
    if result is None:
        raise Wrong("Your function returns None. Is `return` missing?")
    return result


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
        raise Wrong(f"Expected numbers for {what}, got {_short(value)}.") from None


def number(value: Any, what: str = "your answer") -> float:
    """The answer as one finite float; Wrong if it is anything else."""
    found = numbers(value, what)
    if found.numel() != 1 or not math.isfinite(found.item()):
        got = found.item() if found.numel() == 1 else _short(value)
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


def drawn(answer: Callable, *inputs: Any, alt: str) -> tuple[list[Tensor], str]:
    """Let `answer(axes, *inputs)` draw; return its curves, (2, n) each, and sentence.

    The picture goes into the verdict. Raises Wrong if nothing is drawn, an axis has no
    label, or the sentence is missing.
    """
    global _picture
    from gencourse import plot

    if not callable(answer):
        raise Wrong(f"Expected a function, got {_short(answer)}: pass it without ().")

    def draw(*copies: Any) -> tuple:
        with plot.canvas(alt) as page:
            said = answer(page.axes[0], *copies)
        return page, said

    page, sentence = run(draw, *inputs)
    (axes,), _picture = page.axes, page.picture
    lines = [torch.as_tensor(line.get_xydata().T) for line in axes.get_lines()]
    scattered = [c for c in axes.collections if type(c).__name__ == "PathCollection"]
    places = [
        numpy.ma.filled(c.get_offsets().astype(float), numpy.nan) for c in scattered
    ]
    dots = [torch.tensor(place).reshape(-1, 2).T for place in places]
    bars = [b for b in axes.patches if hasattr(b, "get_height")]
    tops = [[b.get_x() + b.get_width() / 2, b.get_height()] for b in bars]
    found = [*lines, *dots, torch.tensor(tops).reshape(-1, 2).T]
    curves = [curve.double() for curve in found if curve.numel()]
    if not curves and sentence is ...:
        raise NotAttempted("draw, and replace the three dots by your sentence.")
    if not curves:
        raise Wrong("There is no curve on the axes. Draw with axes.plot(x, y).")
    if not (axes.get_xlabel().strip() and axes.get_ylabel().strip()):
        raise Wrong(
            "The curve is there, but who sees it cannot know what it shows. Label both "
            'axes: axes.set(xlabel="...", ylabel="...").'
        )
    # Five words, or as much in a language that is written without spaces.
    if not isinstance(sentence, str) or (
        len(sentence.split()) < 5 and (sentence.isascii() or len(sentence) < 10)
    ):
        raise Wrong(
            "The curve is there. Now return a sentence that says what it shows, at "
            f"least five words; got {_short(sentence)}."
        )
    return curves, sentence


def match_curve(
    curves: list[Tensor], x: Any, y: Any, mistakes: Sequence[tuple[str, Any, Any]] = ()
) -> None:
    """Pass if every point (x, y) has been drawn, in whatever order and pieces.

    mistakes: (hint, x, y) of curves that a plausible mistake would draw.
    """
    points = torch.cat(curves, dim=1)
    if points.shape[1] > 20_000:
        raise Wrong(f"{points.shape[1]:,} points are far too many for this curve.")
    finite = points.isfinite().all(0)
    if _drawn_there(points[:, finite], x, y):
        return
    if not finite.all():
        raise Wrong(
            "Some points of the curve are nan or infinite and cannot be drawn. Is "
            "there a 0 * log(0) or a division by 0?"
        )
    for text, wrong_x, wrong_y in mistakes:
        if _drawn_there(points, wrong_x, wrong_y):
            raise Wrong(text)
    wanted, n = numbers(x), points.shape[1]
    if n < len(wanted):
        raise Wrong(f"Expected a curve of {len(wanted)} points, got {n}.")
    near = (points[0] - wanted[:, None]).abs().min(1).values
    if near.max() > 1e-3 * wanted.abs().mean():
        at = wanted[near.argmax()].item()
        raise Wrong(f"A point is missing: there is none at x = {at:.4g}.")
    raise Wrong("The x values are right, the heights are not.")


def _drawn_there(points: Tensor, x: Any, y: Any) -> bool:
    if len(x) != len(y) or not points.numel():
        return False
    wanted = torch.stack([numbers(x), numbers(y)])
    scale = wanted.abs().mean(1, keepdim=True).clamp(min=1e-9)
    apart = torch.cdist((wanted / scale).T, (points / scale).T, p=math.inf)
    return bool((apart.min(1).values < 1e-3).all())


def listed(values: Tensor) -> str:
    """A few numbers for a message: 0.37, 1.00, 2.12."""
    return ", ".join(f"{v:.2f}" for v in values.tolist())


def _short(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    try:
        text = reprlib.repr(value)
    except Exception:
        text = f"an object of type {type(value).__name__}"
    return text if len(text) < 60 else f"{text[:57]}..."


# --- what an answer must not change ---------------------------------------------------
@contextmanager
def _undisturbed() -> Iterator[None]:
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
def _limits(seconds: float) -> Iterator[None]:
    """Stop what runs too long or takes too much memory, as far as the system allows.

    Python code is stopped anywhere. A call into C that never returns ends the kernel
    after three times as long: nothing else can end it. Outside Linux a huge array is
    refused only when the system itself refuses it.
    """
    main = threading.current_thread() is threading.main_thread()
    signals = main and hasattr(signal, "setitimer")
    with _memory_limit(), _alarm(seconds) if signals else _interrupt(seconds):
        yield


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
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
        raise _OutOfTime

    with suppress(Exception):  # there may be no stderr to write to
        faulthandler.dump_traceback_later(3 * SECONDS, exit=True, file=sys.__stderr__)
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
        raise _OutOfTime
    return _raise_at_every_line


@contextmanager
def _interrupt(seconds: float) -> Iterator[None]:
    """The same without signals; a sleep is stopped only when it is over."""
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    me, done = ctypes.c_ulong(threading.get_ident()), threading.Event()

    def stop() -> None:
        wait = seconds
        while not done.wait(wait):
            raise_in(me, ctypes.py_object(_OutOfTime))
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
