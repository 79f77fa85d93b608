"""The checks of the exercises: the starters, the solutions, right and wrong answers."""

import math
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import nbformat
import pytest
import torch
import torch.nn.functional as F
from wrong_answers import ARGUMENTS, RIGHT, WRONG

from gencourse import checks, faces, losses, metrics, plot

NOTEBOOKS = sorted(
    (Path(__file__).resolve().parent.parent / "notebooks").glob("0[1-5]_*.ipynb")
)
NUMBERS = [n for lesson in checks.LESSONS for n in checks._of_lesson(lesson)]


@pytest.fixture(autouse=True)
def fresh():
    checks._state.clear()
    checks._hints_seen.clear()


def names():
    found = {"math": math, "torch": torch, "F": F, "checks": checks}
    return found | {"losses": losses, "metrics": metrics, "faces": faces, "plot": plot}


def typed(number, source):
    """The answer that a learner has typed: a value, or a function with this body."""
    if number not in ARGUMENTS:
        return eval(source, names())
    body = textwrap.indent(source.strip("\n"), "    ")
    space = names()
    exec(f"def answer({ARGUMENTS[number]}):\n{body}\n", space)
    return space["answer"]


def cases(table):
    return [
        pytest.param(number, case, id=f"{number}-{i}")
        for number, found in table.items()
        for i, case in enumerate(found)
    ]


def exercise_cells(tag):
    """Exercise number -> the code cells with that tag that check it."""
    found = {}
    for path in NOTEBOOKS:
        for cell in nbformat.read(path, as_version=4).cells:
            call = "solution" if tag == "solution" else "check"
            match = re.search(rf'^checks\.{call}\("(\d\.\d)"', cell.source, re.M)
            if match and tag in cell.metadata.get("tags", []):
                assert match[1] not in found
                found[match[1]] = cell
    return found


def run_cell(source):
    """Run a cell on its own, as a learner who has run only the imports."""
    *first, last = source.rstrip().split("\n")
    space = names()
    space["MultivariateNormal"] = torch.distributions.MultivariateNormal
    exec("\n".join(first), space)
    return eval(last, space)


# --- the exercises --------------------------------------------------------------------
def test_each_lesson_has_four_to_six_exercises_of_all_kinds():
    starters, solutions = exercise_cells("exercise"), exercise_cells("solution")
    assert sorted(starters) == sorted(solutions) == sorted(NUMBERS)
    for path, lesson in zip(NOTEBOOKS, checks.LESSONS, strict=True):
        found = checks._of_lesson(lesson)
        assert 4 <= len(found) <= 6
        cells = nbformat.read(path, as_version=4).cells
        text = "\n".join(c.source for c in cells if c.cell_type == "markdown")
        for number, exercise in found.items():
            assert re.search(rf"^### Exercise {number} · \S", text, re.M)
            assert len(set(exercise.hints)) == 3 and all(exercise.hints)
        for kind in ("Predict first", "Spot the bug", "Plot and say"):
            assert re.search(rf"^\*{kind} · .*\d minutes\*$", text, re.M)
        assert f'checks.report("{lesson}")' in cells[-1].source


@pytest.mark.parametrize("number", NUMBERS)
def test_the_starter_is_not_attempted(number):
    cell = exercise_cells("exercise")[number]
    verdict = run_cell(cell.source)
    assert not verdict and "not attempted yet" in verdict.text
    assert "attempted     " not in checks.report(number[0]).text.replace("not ", "")
    stored = "".join(out.get("text", "") for out in cell.outputs)
    assert stored.strip() == verdict.text  # the notebook shows the same


@pytest.mark.parametrize("number", NUMBERS)
def test_the_solution_passes(number):
    verdict = run_cell(exercise_cells("solution")[number].source)
    assert verdict and verdict.text.startswith(f"Exercise {number}: this solution is")
    assert "solved" not in checks.report(number[0]).text.partition("solved:")[0]


@pytest.mark.parametrize("number", NUMBERS)
def test_at_least_three_wrong_answers_are_known(number):
    assert len(WRONG[number]) >= 3 and RIGHT[number]


@pytest.mark.parametrize(("number", "case"), cases(WRONG))
def test_a_wrong_answer_gets_its_own_hint(number, case):
    source, hint = case
    verdict = checks.check(number, typed(number, source))
    text = " ".join(verdict.text.split())
    assert not verdict and "not attempted" not in text
    assert any(part in text for part in hint.split("|")), text


@pytest.mark.parametrize(("number", "source"), cases(RIGHT))
def test_other_right_answers_pass(number, source):
    verdict = checks.check(number, typed(number, source))
    assert verdict, verdict.text
    assert f"{number}   solved" in checks.report(number[0]).text


@pytest.mark.parametrize("number", [n for n in NUMBERS if n in ARGUMENTS])
@pytest.mark.parametrize(
    "value", ["None", "'text'", "math.nan", "torch.zeros(0)", "torch.zeros(2, 3, 4, 5)"]
)
def test_nonsense_is_never_right(number, value):
    verdict = checks.check(number, typed(number, f"return {value}"))
    assert not verdict and "not attempted" not in verdict.text


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("value", [None, "text", math.inf, [], {}, object(), -1e9])
def test_values_that_are_no_answers_get_a_verdict(number, value):
    assert not checks.check(number, value)


# --- what is said and kept ------------------------------------------------------------
def test_an_exception_is_shown_with_its_place():
    def answer(mu, logvar):
        wrong = mu + logvar
        return wrong.no_such_thing

    verdict = checks.check("3.3", answer)
    assert "AttributeError" in verdict.text and "no_such_thing" in verdict.text
    assert re.search(r"line \d+ in answer: return wrong.no_such_thing", verdict.text)
    assert isinstance(verdict.error, AttributeError)


def test_a_forgotten_answer_is_asked_for():
    for answers in ((), (1, 2)):
        assert "Give the check your answer" in checks.check("3.3", *answers).text


def test_the_course_s_own_frames_are_not_shown():
    verdict = checks.check("3.2", lambda mu, logvar: mu + nothing)  # noqa: F821
    assert "NameError" in verdict.text and "with_leaves" not in verdict.text


def test_leaving_and_interrupting():
    verdict = checks.check("3.3", lambda mu, logvar: exit(3))
    assert "SystemExit" in verdict.text

    def interrupted(mu, logvar):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checks.check("3.3", interrupted)


def test_hints_rise_and_stay():
    texts = [checks.hint("3.3").text for _ in range(4)]
    assert [t[:11] for t in texts] == [f"Hint {n} of 3" for n in (1, 2, 3, 3)]
    assert checks.hint("3.3", 1).text == texts[0]
    assert "3 of 3 hints" in checks.report("3").text


def test_the_report_knows_attempts_and_forgets_no_success():
    checks.check("3.1", 10)
    assert "3.1   attempted" in checks.report("03").text
    checks.check("3.1", 5)
    checks.check("3.1", 10)
    report = checks.report("3")
    assert "3.1   solved" in report.text and "solved: 1 of 6" in report.text
    assert not report


@pytest.mark.parametrize("call", [checks.check, checks.hint])
@pytest.mark.parametrize("number", ["3.9", "9.1", "", "x"])
def test_an_unknown_exercise_is_named(call, number):
    with pytest.raises(ValueError, match="exercise"):
        call(number)


def test_an_unknown_level_or_lesson_is_named():
    with pytest.raises(ValueError, match="'7'"):
        checks.report("7")
    with pytest.raises(ValueError, match="level"):
        checks.hint("3.3", 4)


def test_a_number_may_be_written_in_other_ways():
    assert checks.check("03.1", 5) and checks.check(3.2, losses.log_normal) is not None
    checks.hint("03.1")
    report = checks.report("3").text
    assert "3.1   solved" in report and "1 of 3 hints" in report


def test_an_answer_that_seeds_does_not_seed_the_check():
    def seeded(real, first, second):
        torch.manual_seed(0)
        n = min(len(first), len(second))
        pick = torch.randperm(len(second))[:n]
        return [
            metrics.frechet_distance(real, s)
            for s in (first[torch.randperm(len(first))[:n]], second[pick])
        ]

    assert checks.check("5.4", seeded)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs Unix signals")
def test_what_python_cannot_stop_ends_the_process():
    code = (
        "import itertools; from gencourse import checks; checks.SECONDS = 1;"
        "checks.check('3.3', lambda mu, logvar: sum(itertools.repeat(0)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1 and "Timeout" in done.stderr
    assert "<lambda>" in done.stderr


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs Unix signals")
def test_what_ends_the_process_waits_for_the_whole_limit(monkeypatch):
    """However little of it a slow answer has left for the next run."""
    waits = []
    monkeypatch.setattr(
        "faulthandler.dump_traceback_later", lambda wait, **_: waits.append(wait)
    )
    assert checks.check("1.2", lambda size, c, levels: c * size**2 * math.log10(levels))
    assert len(waits) > 1 and set(waits) == {3 * checks.SECONDS}


def test_a_wrong_solution_is_an_error():
    with pytest.raises(AssertionError, match="summed over the batch"):
        checks.solution("3.3", lambda m, v: losses.kl_to_prior(m, v).sum())


def test_a_check_leaves_the_random_numbers_and_the_inputs_alone():
    torch.manual_seed(5)
    want = torch.rand(3)
    torch.manual_seed(5)

    def in_place(mu, logvar):
        torch.manual_seed(99)
        return 0.5 * (mu.square_() + logvar.exp() - 1 - logvar).sum(1)

    assert checks.check("3.3", in_place)
    assert torch.equal(torch.rand(3), want)


def test_settings_that_an_answer_changes_are_put_back():
    import random

    import numpy

    def rude(mu, logvar):
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        random.seed(0), numpy.random.seed(0)
        return losses.kl_to_prior(mu, logvar)

    before = random.getstate(), numpy.random.get_state()[1].tolist()
    assert checks.check("3.3", rude)
    assert torch.is_grad_enabled() and torch.get_default_dtype() == torch.float32
    assert (random.getstate(), numpy.random.get_state()[1].tolist()) == before


def test_settings_around_a_check_do_not_matter():
    with torch.no_grad():
        assert run_cell(exercise_cells("solution")["3.2"].source)
        assert run_cell(exercise_cells("solution")["4.3"].source)
        assert not torch.is_grad_enabled()
    torch.set_default_dtype(torch.float64)
    try:
        assert run_cell(exercise_cells("solution")["4.4"].source)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


class Rude(Exception):
    def __str__(self):
        raise ValueError

    __repr__ = __array__ = __str__


@pytest.mark.parametrize(
    "number", ["1.2", "3.2", "3.3", "3.4", "4.2", "4.3", "4.4", "5.4"]
)
@pytest.mark.parametrize(
    "value", [Rude(), 1 + 2j, torch.eye(3).to_sparse(), Rude, [[1], [2, 3]]]
)
def test_strange_objects_get_a_verdict(number, value):
    assert not checks.check(number, lambda *_: value)

    def answer(*_):
        raise Rude

    assert "raised Rude" in checks.check(number, answer).text


def test_a_drawing_that_fails_is_the_answer_s_error():
    def answer(axes, variances):
        axes.plot(variances)
        axes.set(xlabel="$x^{2$", ylabel="y")
        return "A sentence of at least five words."

    assert "raised ValueError" in checks.check("1.5", answer).text
    assert "Expected a function" in checks.check("1.5", 5).text


def test_a_curve_without_its_sentence_is_shown():
    def answer(axes, variances):
        axes.plot(variances)
        axes.set(xlabel="x", ylabel="y")
        return ...

    verdict = checks.check("1.5", answer)
    assert verdict.picture is not None and "Now return a sentence" in verdict.text


def test_the_picture_is_shown_even_if_it_is_wrong(monkeypatch):
    import IPython.display

    shown = []
    monkeypatch.setattr(IPython.display, "display", shown.append)
    source, _ = WRONG["2.4"][0]
    verdict = checks.check("2.4", typed("2.4", source))
    verdict._ipython_display_()
    assert isinstance(shown[0], plot.Picture) and shown[0] is verdict.picture
    assert checks.check("3.1", 5).picture is None


# --- limits ---------------------------------------------------------------------------
def endless(*_):
    while True:
        pass


def endless_and_stubborn(*_):
    while True:
        try:
            time.sleep(0.01)
        except:  # noqa: E722
            pass


def asleep(*_):
    time.sleep(1000)


def test_all_runs_of_one_check_share_the_time(monkeypatch):
    monkeypatch.setattr(checks, "SECONDS", 0.5)

    def slow(size, channels, levels):
        time.sleep(0.3)
        return channels * size**2 * math.log10(levels)

    text = " ".join(checks.check("1.2", slow).text.split())
    assert "stopped after 0.5 seconds" in text


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs Unix signals")
@pytest.mark.parametrize("answer", [endless, endless_and_stubborn, asleep])
def test_what_never_ends_is_stopped(monkeypatch, answer):
    monkeypatch.setattr(checks, "SECONDS", 0.3)
    handler, started = signal.getsignal(signal.SIGALRM), time.perf_counter()
    verdict = checks.check("3.3", answer)
    assert "stopped after 0.3 seconds" in " ".join(verdict.text.split())
    assert time.perf_counter() - started < 10
    assert signal.getsignal(signal.SIGALRM) == handler
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_it_is_stopped_without_signals_too(monkeypatch):
    monkeypatch.setattr(checks, "SECONDS", 0.3)
    monkeypatch.delattr(signal, "setitimer")
    assert "stopped after" in checks.check("3.3", endless).text
    assert checks.check("3.3", losses.kl_to_prior)


def test_it_is_stopped_in_another_thread_too(monkeypatch):
    monkeypatch.setattr(checks, "SECONDS", 0.3)
    found = []
    thread = threading.Thread(target=lambda: found.append(checks.check("3.3", endless)))
    thread.start()
    thread.join(30)
    assert "stopped after" in found[0].text


def many_arrays(*_):
    kept = []
    while True:
        kept.append(torch.empty(2**27))


@pytest.mark.skipif(
    not Path("/proc/self/statm").exists() or torch.cuda.is_available(),
    reason="the limit is set on Linux without a GPU",
)
@pytest.mark.parametrize(
    "answer",
    [
        lambda *_: torch.zeros(2**34),
        lambda *_: [0] * 2**34,
        lambda *_: torch.zeros(2**13, 2**12, 2**10).numpy(),
        many_arrays,
    ],
)
def test_huge_arrays_are_refused(answer):
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    text = " ".join(checks.check("3.3", answer).text.split())
    assert "more memory" in text
    assert resource.getrlimit(resource.RLIMIT_AS) == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_answers_may_be_on_a_gpu():
    assert checks.check(
        "3.3", lambda m, v: losses.kl_to_prior(m.to("cuda"), v.to("cuda"))
    )
