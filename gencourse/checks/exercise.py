"""What an exercise is: a number, a title, three hints and a test."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Exercise:
    """One exercise: `test(trial, *answers)` returns praise or raises Wrong."""

    number: str
    title: str
    hints: tuple[str, str, str]
    test: Callable[..., str]


exercises: dict[str, Exercise] = {}


def exercise(
    number: str, title: str, hints: tuple[str, str, str]
) -> Callable[[Callable[..., str]], Callable[..., str]]:
    """Register `test(trial, *answers)`, which returns praise or raises Wrong."""

    def register(test: Callable[..., str]) -> Callable[..., str]:
        exercises[number] = Exercise(number, title, hints, test)
        return test

    return register
