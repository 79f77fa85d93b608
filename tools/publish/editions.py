"""Write other editions of the stored lessons. Called by the Makefile.

python -m tools.publish.editions student    without solutions and outputs, for a class
python -m tools.publish.editions handout    one zip for a class: that, and all it needs
python -m tools.publish.editions slides     a reveal.js deck for each lesson
python -m tools.publish.editions nbgrader   the exercises as nbgrader assignments
"""

import ast
import re
import shutil
from pathlib import Path

import nbformat
from nbconvert.preprocessors import ClearOutputPreprocessor, TagRemovePreprocessor
from nbformat import NotebookNode

from tools import command
from tools.command import Failure
from tools.publish import deck, notebooks, translations
from tools.publish.deck import sentences
from tools.publish.notebooks import ROOT, lessons, tags

# --- the student edition --------------------------------------------------------------


def student(folder: Path, target: Path) -> None:
    """Write the notebooks without solutions, outputs and execution counts."""
    target.mkdir(parents=True, exist_ok=True)
    remove = TagRemovePreprocessor(remove_cell_tags={"solution"}, enabled=True)
    clear = ClearOutputPreprocessor(enabled=True)
    for path in lessons(folder=folder):
        nb, _ = clear.preprocess(*remove.preprocess(notebooks.read(path), {}))
        nb.cells = [without_solutions(cell) for cell in nb.cells]
        notebooks.write(nb, target / path.name)
        copy_linked(nb, path, target)
        print(f"{target / path.name}")


def without_solutions(cell: NotebookNode) -> NotebookNode:
    """Remove what the introduction to the exercises says about solutions."""
    if "exercise" in tags(cell) and cell.source.startswith("## "):
        heading, _, text = cell.source.partition("\n\n")
        told = [s for s in sentences(text) if re.search("(?i)solution|解答", s)]
        kept = [s for s in sentences(text) if s not in told]
        cell.source = f"{heading}\n\n{' '.join(kept)}"
    return cell


def copy_linked(nb: NotebookNode, path: Path, target: Path) -> None:
    """Copy the files that the text links to, so that the links still work."""
    for cell in nb.cells:
        if cell.cell_type != "markdown":
            continue
        links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", cell.source)
        for link in links + re.findall(r"<img[^>]*src=[\"']([^\"':]+)", cell.source):
            if link.endswith(".ipynb"):
                continue
            if link.startswith("..") or not (path.parent / link).is_file():
                raise Failure(
                    f"{path.name} links to {link!r}, which is not a file in the folder "
                    "of the notebooks: students would not have it. Move it there, or "
                    "mention it without a link."
                )
            (target / link).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path.parent / link, target / link)


# --- one zip for a class --------------------------------------------------------------

HANDED_OUT = (
    ".devcontainer",
    "LICENSE",
    "Makefile",
    "constraints.txt",
    "data/README.md",
    "environment.yml",
    "gencourse",
    "pyproject.toml",
    "tools/setup",
)

HANDOUT = """\
# gencourse: how machines generate images

On Linux and macOS, with Python 3.11 to 3.14 and `make`, in this folder:

    make lab

It sets everything up in `.venv` (once; a few minutes) and opens the course in
JupyterLab. On Windows, in PowerShell:

    py -3.12 -m venv .venv
    .venv\\Scripts\\python -m pip install -c constraints.txt -e ".[dev]"
    .venv\\Scripts\\python tools\\setup\\lab.py

In VS Code, run `make lab` once, then open a notebook and choose `.venv` as its kernel.
After the set-up no network is needed. The notebooks are in `notebooks/`; begin with
`00_start_here.ipynb`.
"""


def handout(folder: Path, target: Path) -> None:
    """Write one zip: the student edition, the package, and what sets it up."""
    root = target / "gencourse"
    shutil.rmtree(target, ignore_errors=True)  # what was taken out of the course
    student(folder, root / "notebooks")
    ignore = shutil.ignore_patterns("__pycache__", ".*")
    for name in HANDED_OUT:
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, place, ignore=ignore)
        else:
            shutil.copyfile(ROOT / name, place)
    command.write(HANDOUT, root / "README.md")
    archive = shutil.make_archive(str(root), "zip", root_dir=target, base_dir=root.name)
    print(f"\n{archive}: for a class, without solutions")


# --- exercises for nbgrader -----------------------------------------------------------

POINTS = {
    "predict first": 1,
    "one line": 1,
    "a few lines": 2,
    "spot the bug": 2,
    "plot and say": 2,
    "think": 3,
}
# The same kinds in the other languages, for `assignment`.
POINTS |= {"先预测": 1, "一行": 1, "几行": 2, "找错": 2, "画图并说明": 2, "思考": 3}

CONFIG = '''\
"""Settings of nbgrader for this course; docs/teaching.md says how to use them."""

from pathlib import Path

c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "gencourse"
c.CourseDirectory.root = str(Path(__file__).resolve().parent)
# What students find in place of the solution.
c.ClearSolutions.code_stub = {"python": "# Change the code above this line."}
c.ExecutePreprocessor.timeout = 300  # seconds for a cell
'''


def nbgrader(folder: Path, target: Path) -> None:
    """Write an assignment for each lesson with exercises, and nbgrader's settings."""
    made = 0
    for path in lessons(folder=folder):
        nb = assignment(notebooks.read(path), path.name)
        if nb is None:
            continue
        number = path.name[:2]
        place = target / "source" / number
        place.mkdir(parents=True, exist_ok=True)
        notebooks.write(nb, place / f"{number}.ipynb")
        marked = [cell.metadata.get("nbgrader", {}) for cell in nb.cells]
        points = sum(marks.get("points", 0) for marks in marked)
        print(f"{place / f'{number}.ipynb'}: {points} points")
        made += 1
    if not made:
        raise Failure(f"No notebook in {folder} has cells tagged `exercise`.")
    command.write(CONFIG, target / "nbgrader_config.py")


def assignment(nb: NotebookNode, name: str) -> NotebookNode | None:
    """Return the imports and the exercises of a lesson, or None without exercises.

    The imports are the cells before the first section; exercises need nothing else.
    """
    exercises = [cell for cell in nb.cells if "exercise" in tags(cell)]
    solutions = [cell for cell in nb.cells if "solution" in tags(cell)]
    if not exercises:
        return None
    later = (n for n, cell in enumerate(nb.cells) if cell.source.startswith("## "))
    cells, task = nb.cells[: next(later)], None
    for cell in exercises:
        if cell.cell_type == "markdown":
            if cell.source.startswith("### "):
                task = cell
            cells.append(without_solutions(cell))
        elif called(cell.source, "check"):
            if task is None or not solutions:
                raise Failure(
                    f"{name}: no task or no solution belongs to\n{cell.source}"
                )
            cells += answer_and_test(task, cell, solutions.pop(0), name)
            task = None
        elif not called(cell.source, "report"):
            cells.append(cell)
    if task is not None or solutions:
        raise Failure(f"{name}: an exercise lacks its task, starter or solution")
    nb.cells = cells
    return ClearOutputPreprocessor(enabled=True).preprocess(nb, {})[0]


def heading_of(task: NotebookNode) -> str:
    return task.source.partition("\n")[0].lstrip("# ")


def called(source: str, function: str) -> ast.Call | None:
    """Return the last statement if it is `checks.<function>(...)`."""
    body = ast.parse(source).body
    call = getattr(body[-1], "value", None) if body else None
    wanted = isinstance(call, ast.Call) and ast.unparse(call.func)
    return call if wanted == f"checks.{function}" else None


def answer_and_test(task, starter, solution, name) -> list[NotebookNode]:
    """Return the cell that students fill in and the cell that grades it."""
    check, solved = called(starter.source, "check"), called(solution.source, "solution")
    title = heading_of(task)
    number = check.args[0].value
    if solved is None or solved.args[0].value != number:
        raise Failure(
            f"{name}, {title!r}: the solution must end with "
            f'checks.solution("{number}", answer), not with\n{solution.source}'
        )
    kind = re.search("|".join(POINTS), task.source.partition("\n")[2].lower())
    if kind is None:
        known = ", ".join(POINTS)
        raise Failure(f"{name}, {title!r}: the second line must name one of: {known}")
    answer = arguments(starter.source, check)
    best = arguments(solution.source, solved)
    right = before(solution.source, solved)
    if best != answer:
        gap = "\n\n\n" if right.splitlines()[-1].startswith(" ") else "\n"
        right += f"{gap}{answer} = {best}"
    test = (
        "from gencourse import checks\n\n"
        f'verdict = checks.check("{number}", {answer})\n'
        "assert verdict, verdict.text\nverdict"
    )
    key = number.replace(".", "-")
    task.metadata["nbgrader"] = marks(f"task-{key}", locked=True)
    points = POINTS[kind[0]]
    return [
        code_cell(
            f"{before(starter.source, check)}\n\n\n"
            f"### BEGIN SOLUTION\n{right}\n### END SOLUTION",
            marks(f"answer-{key}", solution=True),
        ),
        code_cell(test, marks(f"test-{key}", grade=True, locked=True, points=points)),
    ]


def arguments(source: str, call: ast.Call) -> str:
    """Return the answers in `checks.check(number, answers)` as they are written."""
    return ", ".join(ast.get_source_segment(source, arg) for arg in call.args[1:])


def before(source: str, call: ast.Call) -> str:
    """Return the source up to the statement that is this call."""
    return "\n".join(source.splitlines()[: call.lineno - 1]).strip("\n")


def code_cell(source: str, nbgrader: dict) -> NotebookNode:
    return nbformat.v4.new_code_cell(
        source, id=nbgrader["grade_id"], metadata={"nbgrader": nbgrader}
    )


def marks(grade_id: str, **given) -> dict:
    return {
        "grade": False,
        "grade_id": grade_id,
        "locked": False,
        "schema_version": 3,
        "solution": False,
        "task": False,
    } | given


EDITIONS = {
    "student": student,
    "handout": handout,
    "slides": deck.slides,
    "nbgrader": nbgrader,
}


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("edition", choices=EDITIONS)
    parser.add_argument(
        "--notebooks", type=Path, default=notebooks.FOLDER, help="another folder"
    )
    parser.add_argument("--language", default="", help="zh_CN, say; default: English")
    parser.add_argument("--to", type=Path, help="default: build/EDITION")
    args = parser.parse_args()
    folder, target = args.notebooks, Path("build") / args.language / args.edition
    if args.language:
        folder = translations.folder(args.language)
    EDITIONS[args.edition](folder, args.to or target)


if __name__ == "__main__":
    command.run(main)
