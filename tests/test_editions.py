"""Student edition, slides and assignments, made from the stored lessons."""

import ast
import re
import subprocess
import zipfile
from collections import Counter
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tools.command import Failure
from tools.publish import deck, editions, notebooks

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
STORED = sorted(FOLDER.glob("*.ipynb"))
LESSONS = [path for path in STORED if not path.name.startswith("00_")]
by_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
MAIN = [path for path in LESSONS if path.stem[:3].endswith("_")]  # no appendix
by_main_lesson = pytest.mark.parametrize("path", MAIN, ids=lambda path: path.stem)
PNG = "iVBORw0KGgo="


def text(source, *tags):
    return nbformat.v4.new_markdown_cell(source, metadata={"tags": list(tags)})


def code(source, *tags, prints="", figure=""):
    cell = nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)})
    if prints:
        cell.outputs.append(
            nbformat.v4.new_output("stream", name="stdout", text=prints)
        )
    if figure:
        data = {"image/png": PNG, "text/plain": figure}
        cell.outputs.append(nbformat.v4.new_output("display_data", data))
    return cell


def exercise():
    return [
        text(
            "## Exercises\n\nFill in. A solution is folded below. Good luck!",
            "exercise",
        ),
        text(
            "### Exercise 1.2 · Images\n\n*One line · 4 minutes*\n\nCount.", "exercise"
        ),
        code(
            "def count(n, levels, log10_faces):\n    return ...\n\n\n"
            'checks.check("1.2", count)',
            "exercise",
            prints="Exercise 1.2: not attempted yet.\n",
        ),
        code(
            "# Solution of exercise 1.2\n"
            "def best(n, levels, log10_faces):\n"
            "    edge = levels * 10 ** (-log10_faces / n)\n"
            "    return math.ceil((edge - 1) / 2) - 1\n\n\n"
            'checks.solution("1.2", best)',
            "solution",
        ),
        code('checks.report("1")', "exercise"),
    ]


@pytest.fixture
def lesson(tmp_path):
    """A folder with a small lesson, which links to a picture beside it."""
    cells = [
        text("# 01 · A lesson\n\n**Why?**\n\n![A dot](figures/dot.png)"),
        code("SEED = 0", "parameters"),
        code("import math\nfrom pathlib import Path\n\nfrom gencourse import checks"),
        text("## 1. A section\n\n*What is there?*\n\nWords."),
        code('assert Path("figures/dot.png").exists()\n1 + 1', prints="ok: it is\n"),
        *exercise(),
    ]
    folder = tmp_path / "notebooks"
    (folder / "figures").mkdir(parents=True)
    (folder / "figures/dot.png").write_bytes(b"dot")
    nb = nbformat.v4.new_notebook(cells=cells, metadata=notebooks.METADATA)
    notebooks.write(nb, folder / "01_lesson.ipynb")
    return folder


# --- the student edition --------------------------------------------------------------


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    target = tmp_path_factory.mktemp("student")
    editions.student(FOLDER, target)
    return target


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_students_get_everything_but_solutions_and_outputs(path, student):
    whole = notebooks.read(path)
    mine = notebooks.read(student / path.name)
    nbformat.validate(mine)
    kept = [c for c in whole.cells if "solution" not in notebooks.tags(c)]
    assert [c.id for c in mine.cells] == [c.id for c in kept]
    for before, after in zip(kept, mine.cells, strict=True):
        if not before.source.startswith("## Exercises"):
            assert after.source == before.source
        if after.cell_type == "code":
            assert after.outputs == [] and after.execution_count is None
        assert "checks.solution" not in after.source
        assert "olution of exercise" not in after.source
        assert "olded" not in after.source or "exercise" not in notebooks.tags(after)


def test_the_lessons_have_solutions_to_remove():
    cells = [cell for path in LESSONS for cell in notebooks.read(path).cells]
    assert sum("solution" in notebooks.tags(cell) for cell in cells) >= 20


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_links_of_the_student_edition_lead_somewhere(path, student):
    for cell in notebooks.read(student / path.name).cells:
        if cell.cell_type == "markdown":
            for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", cell.source):
                assert (student / link).is_file(), link


def test_the_student_edition_runs_where_it_lies(lesson, tmp_path):
    target = tmp_path / "student"
    editions.student(lesson, target)
    nb = notebooks.read(target / "01_lesson.ipynb")
    assert "Fill in. Good luck!" in nb.cells[5].source
    where = {"metadata": {"path": str(target)}}
    NotebookClient(nb, timeout=60, kernel_name="python3", resources=where).execute()
    (output,) = nb.cells[7].outputs
    assert "not attempted" in output.text


def test_a_link_that_students_could_not_follow_is_refused(lesson, tmp_path):
    nb = notebooks.read(lesson / "01_lesson.ipynb")
    nb.cells[0].source = "[the script](../tools/measure/compare.py)"
    notebooks.write(nb, lesson / "01_lesson.ipynb")
    with pytest.raises(Failure, match=r"01_lesson.*'\.\./tools/measure/compare\.py'"):
        editions.student(lesson, tmp_path / "student")


# --- one zip for a class --------------------------------------------------------------


@pytest.fixture(scope="module")
def handed_out(tmp_path_factory):
    """The files of the zip, by their paths in it."""
    target = tmp_path_factory.mktemp("handout")
    editions.handout(FOLDER, target / "out")
    with zipfile.ZipFile(target / "out/gencourse.zip") as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        return {name.removeprefix("gencourse/"): archive.read(name) for name in names}


def test_a_handout_has_what_the_set_up_needs(handed_out):
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "README.md"):
        assert name in handed_out
    for path in (ROOT / "tools/setup").glob("*.py"):
        assert f"tools/setup/{path.name}" in handed_out
    kept = subprocess.check_output(
        ["git", "ls-files", "gencourse"], cwd=ROOT, text=True
    )
    assert set(kept.split()) <= set(handed_out)
    assert {f"notebooks/{path.name}" for path in STORED} <= set(handed_out)
    assert not [n for n in handed_out if n.startswith("tests/") or "__pycache__" in n]


def test_a_handout_has_no_solution(handed_out):
    """No solution cell, and no function of one, is in any file."""
    texts = {n: b.decode("utf-8", "replace") for n, b in handed_out.items()}
    functions = {}
    for name, text in texts.items():
        assert "olution of exercise" not in text, name
        if name.startswith("notebooks/") and name.endswith(".ipynb"):
            assert "checks.solution" not in text, name
        if name.endswith(".py"):
            functions |= dict.fromkeys(bodies(text), name)
    solved = 0
    for path in LESSONS:
        for cell in notebooks.read(path).cells:
            if "solution" in notebooks.tags(cell):
                found = [functions[b] for b in bodies(cell.source) if b in functions]
                assert found == [], f"{path.name}: {cell.source}"
                solved += 1
    assert solved >= 20


def bodies(source):
    """The bodies of the functions in a source, without docstrings, in one form."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            skip = ast.get_docstring(node) is not None
            yield "\n".join(map(ast.unparse, node.body[skip:]))


# --- slides ---------------------------------------------------------------------------


def slides(*cells) -> list[dict]:
    nb = nbformat.v4.new_notebook(cells=list(cells))
    nb, _ = deck.Deck().preprocess(nb, {})
    return [cell.metadata.slide for cell in nb.cells]


def test_sentences_end_at_periods_but_not_in_formulas_or_names():
    assert deck.sentences("As $a. B$ says. It is (Doe et al. 2020) so. (No!) Why?") == [
        "As $a. B$ says.",
        "It is (Doe et al. 2020) so.",
        "(No!)",
        "Why?",
    ]


def test_blocks_of_markdown():
    source = (
        "## A\n\none\ntwo\n\n$$a\n= b$$\n\n- c\n  d\n\n  e\n- f\n\n| g |\n|---|\n\n> h"
    )
    assert [(kind, text.replace("\n", "/")) for kind, text in deck.blocks(source)] == [
        ("heading", "## A"),
        ("text", "one/two"),
        ("formula", "$$a/= b$$"),
        ("list", "- c/  d//  e/- f"),
        ("table", "| g |/|---|"),
        ("quote", "> h"),
    ]


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_a_lesson_fits_into_a_lecture(path):
    nb, _ = deck.Deck().preprocess(notebooks.read(path), {})
    assert len(nb.cells) <= 45


def test_a_section_and_its_question():
    (slide,) = slides(text("## 3. Two arrows\n\n*What is it?*\n\nFor the notes."))
    assert (slide.kind, slide.headline, slide.body) == (
        "section",
        "Two arrows",
        "What is it?",
    )
    assert slide.notes == "For the notes."


def test_the_question_of_a_part_reaches_its_slide():
    (slide,) = slides(text("### Steps\n\n*How many?*"), code("plot()", figure="A."))
    assert (slide.headline, slide.begins) == ("Steps", "How many?")


def test_a_section_begins_on_its_first_figure():
    (slide,) = slides(
        text("## 1. Blur\n\n*Why?*\n\nWords."), code("plot()", figure="A.")
    )
    assert (slide.headline, slide.begins) == ("Blur", "Why?")
    assert "Words." in slide.notes
    cells = text("## 1. Blur\n\n*Why?*\n\nWhat is lost?"), code("plot()", figure="A.")
    (slide,) = slides(*cells)
    assert (slide.headline, slide.begins) == ("What is lost?", "Blur: Why?")


def test_a_figure_with_caption_check_and_notes():
    (slide,) = slides(
        text("## 1. Blur\n\n*Why?*"),
        code("plot()", figure="A curve that falls."),
        code("assert True", prints="ok: the fine detail is missing\n"),
        text("Edges are soft here. It has a reason."),
    )
    assert (slide.kind, slide.headline, slide.figure) == ("figure", "Blur", PNG)
    assert slide.caption == slide.alt == "A curve that falls."
    assert slide.checked == "the fine detail is missing"
    assert "It has a reason." in slide.notes
    assert slide.code == "" and "plot()" not in str(slide)


def test_a_second_figure_takes_a_question_or_a_check_as_headline():
    found = slides(
        text("## 1. Blur"),
        code("plot()", figure="One."),
        text("Numbers follow. How much detail is left?"),
        code("plot()", figure="Two."),
        code("plot()", figure="Three."),
        code("assert True", prints="ok: the fine detail is missing\n"),
    )
    assert [slide.headline for slide in found] == [
        "Blur",
        "How much detail is left?",
        "The fine detail is missing",
    ]


def test_a_formula_with_the_words_that_lead_to_it():
    words = "Old words. (An aside.) The loss is\n\n$$L = x$$\n\nwhere it is."
    (slide,) = slides(text(f"## 1. Loss\n\n{words}"))
    assert slide.kind == "formula"
    assert slide.body == "Old words. The loss is\n\n$$L = x$$\n\nwhere it is."


def test_a_wide_formula_is_stacked():
    half = "a + b + c + d + e + f + g + h + i + j"
    stacked = deck.stacked(rf"$${half}, \qquad {half}$$")
    assert stacked.count(r"\\") == 1 and "qquad" not in stacked
    assert deck.stacked(r"$$a, \qquad b$$") == r"$$a, \qquad b$$"


def test_a_long_list_is_dealt_evenly_to_slides():
    items = "\n".join(f"- {'word ' * 30}{n}." for n in range(6))
    found = slides(text(f"**What to remember**\n\n{items}"))
    assert len(found) == 2
    assert [slide.body.count("- ") for slide in found] == [3, 3]
    assert found[1].headline == "What to remember (2/2)"


def test_tags_steer_the_deck():
    cells = [
        text("# T"),
        code("import os\n\n\ndef f(x):\n    return x"),
        text("Words."),
    ]
    assert len(slides(*cells)) == 1
    cells[1].metadata.tags, cells[2].metadata.tags = ["slide-code"], ["slide"]
    title, shown, words = slides(*cells)
    assert shown.code == "def f(x):\n    return x" and words.body == "Words."
    cells[0].metadata.tags = ["skip-slide"]
    assert len(slides(*cells)) == 2


def test_exercises_without_starter_and_solution():
    (slide,) = slides(*exercise())
    assert (slide.kind, slide.headline) == ("exercise", "Exercise 1.2 · Images")
    assert slide.body == "*One line · 4 minutes*\n\nCount."
    assert "checks.check" not in str(slide) and "log10" not in str(slide)


@by_lesson
def test_every_figure_and_exercise_of_a_lesson_is_shown_once(path):
    nb = notebooks.read(path)
    shown = [c for c in nb.cells if not notebooks.tags(c) & {"skip-slide", "solution"}]
    pictures = [
        output.data["image/png"].strip()
        for cell in shown
        if cell.cell_type == "code" and "exercise" not in notebooks.tags(cell)
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    titles = [
        cell.source.splitlines()[0].removeprefix("### ")
        for cell in shown
        if cell.source.startswith("### Exercise")
    ]
    coded = sum("slide-code" in notebooks.tags(cell) for cell in shown)
    found = slides(*nb.cells)
    assert Counter(s.figure for s in found if s.figure) == Counter(pictures)
    names = [re.sub(r" \(\d/\d\)$", "", s.headline) for s in found]
    assert list(dict.fromkeys(n for n in names if n.startswith("Exercise "))) == titles
    assert sum(slide.kind == "code" for slide in found) == coded
    assert all(slide.notes.strip() and slide.headline for slide in found)
    appendix = path not in MAIN
    assert len(pictures) >= (4 if appendix else 7) and len(titles) >= 4 * (not appendix)


def test_decks_are_written_with_an_index(lesson, tmp_path, monkeypatch):
    monkeypatch.setattr(deck, "copy_scripts", lambda target: None)
    deck.slides(lesson, tmp_path / "slides")
    page = (tmp_path / "slides/01_lesson.html").read_text(encoding="utf-8")
    assert page.count('<aside class="notes">') == 3
    assert "<h1>01 · A lesson</h1>" in page and "https://" not in page
    index = (tmp_path / "slides/index.html").read_text(encoding="utf-8")
    assert 'href="01_lesson.html"' in index


def test_missing_reveal_is_explained(lesson, tmp_path, monkeypatch):
    monkeypatch.setattr(deck.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Failure, match="sphinx-revealjs(.|\n)*make slides"):
        deck.slides(lesson, tmp_path / "slides")


# --- assignments ----------------------------------------------------------------------

SOLUTION = re.compile(r"### BEGIN SOLUTION.*?### END SOLUTION", re.DOTALL)


@by_main_lesson
def test_assignments_have_the_format_of_nbgrader(path):
    nb = editions.assignment(notebooks.read(path), path.name)
    nbformat.validate(nb)
    marked = [c for c in nb.cells if "nbgrader" in c.metadata]
    ids = [c.metadata.nbgrader.grade_id for c in marked]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[\w-]+", i) for i in ids)
    tests = [c for c in marked if c.metadata.nbgrader.grade]
    answers = [c for c in marked if c.metadata.nbgrader.solution]
    asked = [c for c in nb.cells if c.source.startswith("### Exercise")]
    assert len(tests) == len(answers) == len(asked) >= 4
    for cell in marked:
        assert cell.metadata.nbgrader.schema_version == 3
    for cell in tests:
        assert cell.metadata.nbgrader.locked and cell.metadata.nbgrader.points >= 1
    for cell in answers:
        assert not cell.metadata.nbgrader.locked
        assert len(SOLUTION.findall(cell.source)) == 1
        assert "checks." not in cell.source.replace("import checks", "")
    assert not any(c.get("outputs") for c in nb.cells)


def run_assignment(nb, keep_solutions):
    """Run the cells as nbgrader does, and return the grade_ids of tests that fail."""
    names, failed = {}, {}
    for cell in nb.cells:
        if cell.cell_type != "code":
            continue
        source = cell.source if keep_solutions else SOLUTION.sub("", cell.source)
        try:
            exec(source, names)
        except AssertionError as error:
            failed[cell.metadata.nbgrader.grade_id] = str(error)
    return failed


@pytest.mark.slow
def test_the_tests_of_an_assignment_pass_with_the_solutions_only():
    nb = editions.assignment(notebooks.read(LESSONS[0]), LESSONS[0].name)
    assert run_assignment(nb, keep_solutions=True) == {}
    failed = run_assignment(nb, keep_solutions=False)
    tests = [c for c in nb.cells if c.metadata.get("nbgrader", {}).get("grade")]
    assert list(failed) == [c.metadata.nbgrader.grade_id for c in tests]
    assert all(words.startswith("Exercise 1.") for words in failed.values())


def test_an_assignment_of_a_small_lesson(lesson, tmp_path):
    editions.nbgrader(lesson, tmp_path / "course")
    nb = notebooks.read(tmp_path / "course/source/01/01.ipynb")
    sources = [cell.source for cell in nb.cells]
    assert "## 1. A section" not in "\n".join(sources)
    assert sources[-2] == (
        "def count(n, levels, log10_faces):\n    return ...\n\n\n"
        "### BEGIN SOLUTION\n# Solution of exercise 1.2\n"
        "def best(n, levels, log10_faces):\n"
        "    edge = levels * 10 ** (-log10_faces / n)\n"
        "    return math.ceil((edge - 1) / 2) - 1\n\n\n"
        "count = best\n### END SOLUTION"
    )
    assert 'checks.check("1.2", count)' in sources[-1]
    assert nb.cells[-1].metadata.nbgrader.points == 1
    config = (tmp_path / "course/nbgrader_config.py").read_text(encoding="utf-8")
    compile(config, "nbgrader_config.py", "exec")


@pytest.mark.parametrize(
    ("number", "old", "new", "says"),
    [
        (6, "One line", "Hard", "one of: predict first"),
        (8, 'solution("1.2"', 'solution("1.3"', "Exercise 1.2.*must end with"),
        (6, "### ", "#### ", "no task or no solution"),
    ],
)
def test_an_exercise_that_cannot_be_graded_is_refused(
    number, old, new, says, lesson, tmp_path
):
    nb = notebooks.read(lesson / "01_lesson.ipynb")
    assert old in nb.cells[number].source
    nb.cells[number].source = nb.cells[number].source.replace(old, new)
    notebooks.write(nb, lesson / "01_lesson.ipynb")
    with pytest.raises(Failure, match=says):
        editions.nbgrader(lesson, tmp_path / "course")


def test_a_folder_without_exercises_is_refused(tmp_path):
    with pytest.raises(Failure, match="no notebook"):
        editions.nbgrader(tmp_path, tmp_path / "course")
