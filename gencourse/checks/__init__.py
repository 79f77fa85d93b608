"""Checks for the exercises: say what is wrong, in the words of the exercise.

    checks.check("3.2", my_function)    right, or what is wrong with it
    checks.hint("3.2")                  the next of three hints
    checks.report("3")                  what is attempted and solved in lesson 03
    with checks.reveal("3.1"): ...      what the block prints, folded

An answer is run with copies of the inputs, for at most `SECONDS`. What it raises is
shown with its place. The exercises themselves, with their hints and the wrong answers
that they know, are in `lesson01.py` to `lesson06.py`.
"""

import inspect
import re
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

from gencourse.checks.compare import NotAttempted, Wrong
from gencourse.checks.exercise import Exercise, exercises
from gencourse.checks.sandbox import AnswerRaised, Trial, fresh_state
from gencourse.language import pad, translate, wrap

SECONDS = 20  # for one check, however often it runs the answer
LESSONS = ("1", "2", "3", "4", "5", "6")
MISPLACED = "The check is inside your function: move it to the left margin."


@dataclass(frozen=True, repr=False)
class Verdict:
    """What a check says: true if the answer is right.

    A cell that ends with it shows the picture that the answer drew, if any, and `text`.
    """

    text: str
    passed: bool = False
    picture: Any = None
    error: BaseException | None = None
    attempted: bool = False
    fold: str = ""  # the line behind which a notebook hides it

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        return self.text

    def _ipython_display_(self) -> None:
        from IPython.display import display

        if self.fold:
            if self.picture is not None:
                _show_folded(f"{self.fold}: the picture", self.picture)
            _show_folded(self.fold, self.text)
            return
        if self.picture is not None:
            display(self.picture)
        print(self.text)


@dataclass
class Progress:
    """What the learner has done since the kernel started, by exercise number."""

    states: dict[str, str] = field(default_factory=dict)  # "attempted" or "solved"
    hints: dict[str, int] = field(default_factory=dict)  # how many were shown
    trial: Trial | None = None  # of the check that is running


_progress = Progress()


# --- what a learner calls -------------------------------------------------------------
def check(number: str, *answers: Any) -> Verdict:
    """Return whether the answers are right, and if not, what is wrong.

    Args:
        number: lesson and exercise, such as "3.2".
        answers: what the exercise asks for, a function or a value. Inputs are on the
            CPU; results may be on any device, float32 or float64, tensors, arrays or
            numbers.

    Returns:
        A Verdict; `verdict.error` is the exception that the answer raised, if any.

    Raises:
        ValueError: there is no such exercise.
        RuntimeError: the call is inside the function that it checks.
    """
    number = _find(number).number
    verdict = _judge(number, answers)
    if verdict:
        _progress.states[number] = "solved"
    elif verdict.attempted:
        _progress.states.setdefault(number, "attempted")
    return verdict


def solution(number: str, *answers: Any) -> Verdict:
    """Check the course's own answer, without counting it as the learner's.

    A notebook shows the verdict folded, so that Run All gives nothing away.

    Raises:
        AssertionError: the check does not accept it.
    """
    verdict = _judge(number, answers, ours=True)
    if not verdict:
        raise AssertionError(f"the solution fails: {verdict.text}") from verdict.error
    fold = f"Exercise {number}: what the solution gives"
    return Verdict(verdict.text, True, verdict.picture, fold=fold)


@contextmanager
def reveal(number: str) -> Iterator[None]:
    """Fold what the block prints: the experiment whose result an exercise predicts.

        with checks.reveal("1.1"):
            print(f"{inside:.3f} of the points lie in the ball")

    Raises:
        ValueError: there is no such exercise.
    """
    number, printed = _find(number).number, StringIO()
    try:
        with redirect_stdout(printed):
            yield
    finally:  # what an experiment has printed helps to see why it failed
        title = f"Exercise {number}: what the experiment gives"
        _show_folded(title, printed.getvalue())


def hint(number: str, level: int = 0) -> Verdict:
    """Return the next hint of an exercise, or the one of the given level, 1 to 3.

    Raises:
        ValueError: there is no such exercise or level.
    """
    exercise = _find(number)
    number, seen = exercise.number, _progress.hints.get(exercise.number, 0)
    if level not in range(4):
        raise ValueError(f"there are hints of level 1, 2 and 3, not {level!r}")
    level = level or min(seen + 1, 3)
    _progress.hints[number] = max(level, seen)
    parts = [f"Hint {level} of 3:", exercise.hints[level - 1]]
    if level < 3:
        parts.append(f'checks.hint("{number}") again says more.')
    return Verdict(_say(*parts))


def report(lesson: str) -> Verdict:
    """Return the state of each exercise of a lesson ("3" or "03") since the start."""
    of_lesson = _of_lesson(str(lesson))
    rows = []
    for number, exercise in of_lesson.items():
        seen = _progress.hints.get(number, 0)
        state = pad(_say(_progress.states.get(number, "not attempted")), 15)
        hints = "   " + _say(f"({seen} of 3 hints)") if seen else ""
        rows.append(f"{number}   {state}{_say(exercise.title)}{hints}")
    solved = sum(_progress.states.get(number) == "solved" for number in of_lesson)
    rows.append(_say(f"solved: {solved} of {len(of_lesson)}"))
    return Verdict("\n".join(rows), solved == len(of_lesson))


# --- the judge ------------------------------------------------------------------------
def _judge(number: str, answers: Sequence[Any], ours: bool = False) -> Verdict:
    exercise = _find(number)
    number, trial = exercise.number, Trial(SECONDS)
    name, more = f"Exercise {number}:", f'checks.hint("{number}")'
    _refuse_nesting(answers)
    _progress.trial = trial
    try:
        with fresh_state():
            praise = _test(exercise, trial, answers)
    except NotAttempted as why:
        parts = "not attempted yet:", str(why), f"If you are stuck: {more}"
        return Verdict(_say(name, *parts))
    except AnswerRaised as raised:
        error = raised.__cause__
        text = f"{_say(name)} {_what_was_raised(error)}"
        return Verdict(text, False, trial.picture, error, attempted=True)
    except Wrong as wrong:
        text = _say(name, "not yet.", str(wrong), f"More: {more}")
        return Verdict(text, False, trial.picture, attempted=True)
    else:
        right = "this solution is right." if ours else "right."
        text = _say(name, right, praise)
        return Verdict(text, True, trial.picture, attempted=True)
    finally:
        _progress.trial = None


def _test(exercise: Exercise, trial: Trial, answers: Sequence[Any]) -> str:
    if len(answers) + 1 != len(inspect.signature(exercise.test).parameters):
        raise Wrong(
            f'Give the check your answer: checks.check("{exercise.number}", answer).'
        )
    if any(answer is ... for answer in answers):
        raise NotAttempted("replace the three dots by your answer.")
    try:
        return exercise.test(trial, *answers)
    finally:
        if trial.nested:
            raise Wrong(MISPLACED)


def _refuse_nesting(answers: Sequence[Any]) -> None:
    """Raise RuntimeError if this check was called by the answer that it would run."""
    bodies = {getattr(answer, "__code__", None) for answer in answers} - {None}
    called_by_hand = any(
        frame.f_code in bodies for frame, _ in traceback.walk_stack(None)
    )
    if _progress.trial:
        _progress.trial.nested = True
    if _progress.trial or called_by_hand:
        raise RuntimeError(MISPLACED)


def _find(number: str) -> Exercise:
    number = str(number).lstrip("0")
    of_lesson = _of_lesson(number.partition(".")[0])
    if number not in of_lesson:
        known = ", ".join(of_lesson)
        raise ValueError(f"there is no exercise {number!r}, only {known}")
    return of_lesson[number]


def _of_lesson(lesson: str) -> dict[str, Exercise]:
    lesson = lesson.lstrip("0")
    if lesson not in LESSONS:
        raise ValueError(f"there are exercises for lessons 1 to 6, not {lesson!r}")
    import_module(f"gencourse.checks.lesson0{lesson}")
    return {n: exercises[n] for n in sorted(exercises) if n.startswith(f"{lesson}.")}


def _what_was_raised(error: BaseException) -> str:
    """The exception and the places in the learner's code that led to it."""
    places = [
        translate(f"line {frame.lineno} in {frame.name}: {frame.line}")
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).parent != Path(__file__).parent
        and "site-packages" not in frame.filename
    ]
    summary = f"your code raised {type(error).__name__}"
    try:
        summary += f": {error}"
    except Exception:  # whatever its own __str__ may do
        pass
    return "\n".join([_say(summary), *(f"  {place}" for place in places[-5:])])


def _show_folded(title: str, content: Any) -> None:
    from IPython.display import display

    from gencourse import plot

    display(plot.Folded(translate(title), content))


def _say(*parts: str) -> str:
    """Return the messages as one text in the reader's language, in lines."""
    text = " ".join(map(translate, parts))
    # Chinese punctuation brings its own space.
    text = re.sub(r"(?<=[，。：；？！]) ", "", text)
    return "\n".join(wrap(line, 84) for line in text.splitlines())
