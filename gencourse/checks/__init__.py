"""Checks for the exercises: say what is wrong, in the words of the exercise.

    checks.check("3.2", my_function)    right, or what is wrong with it
    checks.hint("3.2")                  the next of three hints
    checks.report("3")                  what is attempted and solved in lesson 03

An answer is run with copies of the inputs, for at most twenty seconds and with at most
four gigabytes more. What it raises is shown with its place. The exercises themselves,
with their hints and the wrong answers that they know, are in `lesson01.py` to
`lesson05.py`.
"""

import inspect
import linecache
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from textwrap import fill
from typing import Any

import torch

from gencourse.checks.compare import NotAttempted, Wrong
from gencourse.checks.exercise import Exercise, exercises
from gencourse.checks.sandbox import AnswerRaised, Trial, undisturbed

SECONDS = 20  # for all runs of an answer in one check
LESSONS = ("1", "2", "3", "4", "5")


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


_state: dict[str, str] = {}  # number -> "solved" or "attempted"
_hints_seen: dict[str, int] = {}


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
    exercise, trial = _find(number), Trial(SECONDS)
    number = exercise.number
    name = f"Exercise {number}"
    error = None
    try:
        if len(answers) + 1 != len(inspect.signature(exercise.test).parameters):
            raise Wrong(
                f'Give the check your answer: checks.check("{number}", answer).'
            )
        if any(answer is ... for answer in answers):
            raise NotAttempted("replace the three dots by your answer.")
        with (
            undisturbed(),
            torch.random.fork_rng(devices=[]),
            torch.inference_mode(False),
            torch.enable_grad(),
        ):
            torch.set_default_dtype(torch.float32)
            torch.manual_seed(0)
            praise = exercise.test(trial, *answers)
    except NotAttempted as why:
        text = f'not attempted yet: {why} If you are stuck: checks.hint("{number}")'
        return Verdict(_wrap(f"{name}: {text}")), ""
    except AnswerRaised as raised:
        error = raised.__cause__
        text = f"{name}: {_what_was_raised(error)}"
    except Wrong as wrong:
        text = _wrap(f'{name}: not yet. {wrong} More: checks.hint("{number}")')
    else:
        return Verdict(_wrap(f"{name}: right. {praise}"), True, trial.picture), "solved"
    return Verdict(text, False, trial.picture, error), "attempted"


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
    import_module(f"gencourse.checks.lesson0{lesson}")
    mine = {n: e for n, e in exercises.items() if n.startswith(f"{lesson}.")}
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
