"""The checks of the exercises: the starters, the solutions, right and wrong answers."""

import math
import random
import re
import signal
import textwrap
import threading
from pathlib import Path

import nbformat
import numpy
import pytest
import torch
import torch.nn.functional as F
from wrong_answers import ARGUMENTS, RIGHT, WRONG

from gencourse import checks, faces, losses, metrics, plot

NOTEBOOKS = sorted(
    (Path(__file__).resolve().parent.parent / "notebooks").glob("0[1-6]_*.ipynb")
)
WIDGET = "application/vnd.jupyter.widget-view+json"
NUMBERS = [n for lesson in checks.LESSONS for n in checks._of_lesson(lesson)]


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    # So much that even a busy machine never stops a right answer.
    monkeypatch.setattr(checks, "SECONDS", 3600)
    checks._progress.states.clear()
    checks._progress.hints.clear()


def names():
    libraries = {"math": math, "random": random, "numpy": numpy, "torch": torch, "F": F}
    course = {"checks": checks, "losses": losses, "metrics": metrics, "faces": faces}
    return libraries | course | {"plot": plot}


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
        for number, answers in table.items()
        for i, case in enumerate(answers)
    ]


def exercise_cells(tag):
    """Exercise number -> the code cells with that tag that check it."""
    cells = {}
    for path in NOTEBOOKS:
        for cell in nbformat.read(path, as_version=4).cells:
            call = "solution" if tag == "solution" else "check"
            match = re.search(rf'^checks\.{call}\("(\d\.\d)"', cell.source, re.M)
            if match and tag in cell.metadata.get("tags", []):
                assert match[1] not in cells
                cells[match[1]] = cell
    return cells


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
        exercises = checks._of_lesson(lesson)
        assert 4 <= len(exercises) <= 6
        cells = nbformat.read(path, as_version=4).cells
        text = "\n".join(c.source for c in cells if c.cell_type == "markdown")
        for number, exercise in exercises.items():
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
@pytest.mark.parametrize("value", ["'text'", "math.nan", "torch.zeros(2, 3, 4, 5)"])
def test_nonsense_is_never_right(number, value):
    verdict = checks.check(number, typed(number, f"return {value}"))
    assert not verdict and "not attempted" not in verdict.text


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("value", ["text", math.inf, [], object()])
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


def test_what_an_answer_raises_later_is_its_error_too():
    def answer(real, first, second):
        return map(lambda points: points.no_such_thing, (first, second))

    assert "raised AttributeError" in checks.check("5.4", answer).text


def test_a_forgotten_answer_is_asked_for():
    for answers in ((), (1, 2)):
        assert "Give the check your answer" in checks.check("3.3", *answers).text


def test_the_course_s_own_frames_are_not_shown():
    verdict = checks.check("3.2", lambda mu, logvar: mu + nothing)  # noqa: F821
    assert "NameError" in verdict.text and "in_time" not in verdict.text


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


def test_the_same_answer_gets_the_same_verdict():
    def noisy(mu, logvar):
        noise = [random.random(), numpy.random.rand(), torch.rand(1).item()]
        return torch.full((len(mu),), sum(noise))

    texts = {checks.check("3.3", noisy).text for _ in range(3)}
    assert len(texts) == 1


def test_a_wrong_solution_is_an_error():
    with pytest.raises(AssertionError, match="summed over the batch"):
        checks.solution("3.3", lambda m, v: losses.kl_to_prior(m, v).sum())


def test_a_check_leaves_the_random_numbers_and_the_inputs_alone():
    def draw():
        return random.random(), numpy.random.rand(), torch.rand(1).item()

    def in_place(mu, logvar):
        torch.manual_seed(99), random.seed(99), numpy.random.seed(99)
        return 0.5 * (mu.square_() + logvar.exp() - 1 - logvar).sum(1)

    torch.manual_seed(5), random.seed(5), numpy.random.seed(5)
    want = draw()
    torch.manual_seed(5), random.seed(5), numpy.random.seed(5)
    assert checks.check("3.3", in_place)
    assert draw() == want


@pytest.mark.parametrize(
    "change",
    [
        lambda: torch.set_grad_enabled(False),
        lambda: torch.set_default_dtype(torch.float64),
        lambda: torch.set_default_device("meta"),
    ],
)
def test_settings_that_an_answer_changes_are_put_back(change):
    def settings():
        default = torch.zeros(1)
        return torch.is_grad_enabled(), default.dtype, default.device

    def rude(mu, logvar):
        kl = losses.kl_to_prior(mu, logvar)
        change()
        return kl

    before = settings()
    assert checks.check("3.3", rude)
    assert settings() == before


def test_settings_around_a_check_do_not_matter():
    with torch.no_grad():
        assert run_cell(exercise_cells("solution")["3.2"].source)
        assert run_cell(exercise_cells("solution")["4.3"].source)
        assert not torch.is_grad_enabled()
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        assert run_cell(exercise_cells("solution")["4.4"].source)
        assert torch.get_default_dtype() == torch.float64
        assert torch.get_default_device().type == "meta"
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)


class Rude(Exception):
    def __str__(self):
        raise ValueError

    __repr__ = __array__ = __str__


@pytest.mark.parametrize("number", ["1.2", "3.2", "3.4", "4.4", "5.4"])
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


# --- what stays folded ----------------------------------------------------------------
@pytest.fixture
def shown(monkeypatch):
    """What is displayed: a list of bundles, MIME type -> content."""
    import IPython.display

    bundles = []
    monkeypatch.setattr(
        IPython.display, "display", lambda it: bundles.append(it._repr_mimebundle_()[0])
    )
    return bundles


@pytest.mark.parametrize("number", NUMBERS)
def test_a_solution_shows_nothing_until_it_is_opened(number, shown, capsys):
    verdict = run_cell(exercise_cells("solution")[number].source)
    verdict._ipython_display_()
    assert capsys.readouterr().out == ""
    assert [WIDGET in bundle for bundle in shown] == [True] * len(shown)
    assert shown[-1]["text/plain"] == verdict.text
    assert ("image/png" in shown[0]) == (verdict.picture is not None)


def test_the_result_of_an_experiment_is_folded(shown, capsys):
    with checks.reveal("3.1"):
        print("5.000 nats")
    assert capsys.readouterr().out == ""
    assert shown[0]["text/plain"] == "5.000 nats\n" and WIDGET in shown[0]
    with pytest.raises(ValueError, match="exercise"), checks.reveal("3.9"):
        pass
    with pytest.raises(KeyError), checks.reveal("3.1"):
        print("half of it")
        raise KeyError
    assert shown[1]["text/plain"] == "half of it\n"


def test_every_experiment_of_a_lesson_is_folded():
    for path in NOTEBOOKS:
        for cell in nbformat.read(path, as_version=4).cells:
            if "reveal" in cell.metadata.get("tags", []):
                assert "with checks.reveal(" in cell.source
                assert all(WIDGET not in o.data for o in cell.outputs)


# --- a check within an answer ---------------------------------------------------------
def test_a_check_inside_the_answer_is_reported():
    def largest_slack(n, levels, log10_faces):
        checks.check("1.2", largest_slack)
        return math.ceil((levels * 10 ** (-log10_faces / n) - 1) / 2) - 1

    def swallows(n, levels, log10_faces):
        try:
            checks.solution("1.2", swallows)
        except Exception:
            return math.ceil((levels * 10 ** (-log10_faces / n) - 1) / 2) - 1

    def forgets_return(mu, logvar):
        checks.check("1.1", 0.02)

    def draws(axes, variances):
        checks.check("1.5", draws)
        return "It says more than it seems to."

    class Norm(torch.nn.BatchNorm1d):
        def __init__(self, features):
            super().__init__(features, momentum=0.2)
            checks.check("4.4", Norm)

    for number, answer in [
        ("1.2", largest_slack),
        ("1.2", swallows),
        ("3.3", forgets_return),
        ("1.5", draws),
        ("4.4", Norm),
    ]:
        text = " ".join(checks.check(number, answer).text.split())
        assert "inside your function" in text and "left margin" in text
    assert checks.check("1.1", 0.02)  # and the next check is at the left margin again


def test_a_check_that_only_the_answer_calls_is_an_error():
    def largest_slack(n, levels, log10_faces):
        checks.check("1.2", largest_slack)
        return math.ceil((levels * 10 ** (-log10_faces / n) - 1) / 2) - 1

    with pytest.raises(RuntimeError, match="left margin"):
        largest_slack(64, 17, 4)


def test_a_hint_inside_the_answer_is_fine():
    def kl(mu, logvar):
        checks.hint("3.3")
        return losses.kl_to_prior(mu, logvar)

    assert checks.check("3.3", kl)


# --- the limit ------------------------------------------------------------------------
def endless(*_):
    while True:
        pass


def endless_but_for_exceptions(*_):
    try:
        endless()
    except Exception:
        endless()


def endless_in_spite_of_all(*_):
    while True:
        try:
            torch.rand(100, 100) @ torch.rand(100, 100)
        except:  # noqa: E722
            pass


def asleep(*_):
    threading.Event().wait()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs Unix signals")
@pytest.mark.parametrize(
    "answer", [endless, endless_but_for_exceptions, endless_in_spite_of_all, asleep]
)
def test_what_never_ends_is_stopped(monkeypatch, answer):
    monkeypatch.setattr(checks, "SECONDS", 0.1)
    handler = signal.getsignal(signal.SIGALRM)
    verdict = checks.check("3.3", answer)
    assert "stopped after 0.1 seconds" in " ".join(verdict.text.split())
    assert signal.getsignal(signal.SIGALRM) == handler
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs Unix signals")
def test_all_runs_of_one_check_share_the_time(monkeypatch):
    left = []

    def answer(n, levels, log10_faces):
        left.append(signal.getitimer(signal.ITIMER_REAL)[0])
        return math.ceil((levels * 10 ** (-log10_faces / n) - 1) / 2) - 1

    assert checks.check("1.2", answer)
    assert left == sorted(left, reverse=True) and len(set(left)) == len(left) > 1


def test_where_there_are_no_signals_answers_are_checked_too(monkeypatch):
    verdicts = []
    thread = threading.Thread(
        target=lambda: verdicts.append(checks.check("3.3", losses.kl_to_prior))
    )
    thread.start()
    thread.join()
    monkeypatch.delattr(signal, "setitimer", raising=False)
    verdicts.append(checks.check("3.3", losses.kl_to_prior))
    assert all(verdicts) and len(verdicts) == 2


def test_what_an_answer_gives_raises_no_warning(recwarn):
    verdict = checks.check("4.4", lambda n: torch.nn.LSTM(n, n))
    assert "Expected numbers" in verdict.text and not recwarn.list


def test_an_array_that_is_too_large_is_the_answer_s_error():
    text = checks.check("3.3", lambda *_: torch.zeros(2**60)).text
    assert "raised RuntimeError" in text and "line" in text


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_answers_may_be_on_a_gpu():
    assert checks.check(
        "3.3", lambda m, v: losses.kl_to_prior(m.to("cuda"), v.to("cuda"))
    )
