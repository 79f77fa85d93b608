"""Build the web site in build/html from docs/ and the stored lessons; runs no lesson.

Nothing is written twice: lessons are copied with their outputs; the map of lessons
comes from README.md, the notation from lesson 01, the exercises from all lessons, and
the pages on the package from its docstrings. Called by the Makefile (`make html`).
"""

import os
import posixpath
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from urllib.parse import unquote

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
SOURCE = BUILD / "site"
TARGET = BUILD / "html"
SKIPPED = ("playground", "conf.py", "_static", "_templates")
LINK = re.compile(r"(!?)\[((?:[^][]|\[[^]]*\])*)\]\(([^()\s]+)\)")
NOTATION = "The symbols of this course"

EXERCISES = """\
# Exercises

All exercises of the course in one place. Do them in the lessons: there you can run
your answer, and the cell tells you whether it is right or what went wrong. Solutions
are folded; open one only after a try of your own.
"""


class Failure(Exception):
    """What is missing or wrong in the sources, and where."""


# --- reading the course ---------------------------------------------------------------


def lessons() -> dict[str, NotebookNode]:
    """The stored lessons by the names of their files, in order."""
    paths = sorted((ROOT / "notebooks").glob("*.ipynb"))
    return {path.name: nbformat.read(path, as_version=4) for path in paths}


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def headings(nb: NotebookNode) -> Iterator[str]:
    """The texts of all headings, without the characters of Markdown."""
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            outside = re.sub(r"^```.*?^```", "", cell.source, flags=re.M | re.S)
            for text in re.findall(r"^#+ +(.+?) *$", outside, re.M):
                yield re.sub(r"[`*]", "", text)


def title(nb: NotebookNode) -> str:
    return next(headings(nb))


def slug(heading: str) -> str:
    """The anchor that the site gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def section(text: str, heading: str) -> str:
    """What stands under a heading of the second level, up to the next one."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    if found is None:
        raise Failure(f"there is no section `## {heading}`")
    return found[1].strip()


# --- links ----------------------------------------------------------------------------


def page_of(path: str) -> str | None:
    """Where a file of the repository is on the site; None if it has no page.

    A link to a file without a page becomes plain text.
    """
    folder, name = posixpath.split(path)
    stem, suffix = posixpath.splitext(name)
    if folder == "notebooks" and suffix == ".ipynb":
        return name
    if folder == "notebooks/figures":
        return f"figures/{name}"
    if path.startswith("gencourse/") and suffix == ".py" and not stem.startswith("_"):
        return f"api/{path.split('/')[1].removesuffix('.py')}.rst"
    if folder.startswith("docs") and suffix == ".md":
        return path.removeprefix("docs/")
    return None


def relink(text: str, file: str, page: str, course: dict[str, NotebookNode]) -> str:
    """Make the links of `file` in the repository links of `page` on the site.

    Anchors may be written as JupyterLab makes them (`#2.-The-loss`) or as the site does
    (`#2-the-loss`).
    """

    def new(match: re.Match) -> str:
        bang, words, target = match.groups()
        if "://" in target:
            return match[0]
        path, _, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(file), path))
        path = path if target.partition("#")[0] else file
        if not (ROOT / path).exists():
            return match[0]  # a formula such as [f](x), or an error for Sphinx to name
        to = page_of(path)
        if to is None:
            return words
        if anchor and path.endswith(".ipynb"):
            anchor = anchor_of(anchor, course[posixpath.basename(path)], file)
        if to == page and anchor:
            return f"{bang}[{words}](#{anchor})"
        to = posixpath.relpath(to, posixpath.dirname(page) or ".")
        return f"{bang}[{words}]({to}{'#' + anchor if anchor else ''})"

    return LINK.sub(new, text)


def anchor_of(anchor: str, nb: NotebookNode, file: str) -> str:
    wanted = unquote(anchor)
    for heading in headings(nb):
        if wanted in (heading.replace(" ", "-"), slug(heading)):
            return slug(heading)
    raise Failure(f"{file} links to #{anchor}, but {title(nb)} has no such heading")


# --- pages ----------------------------------------------------------------------------


def dressed(cell: NotebookNode) -> NotebookNode:
    """A copy of a cell: solutions and results fold, pictures have their texts."""
    cell = deepcopy(cell)
    if cell.cell_type != "code":
        return cell
    shown = {}
    if "solution" in tags(cell):
        cell.metadata["tags"] = [*tags(cell), "hide-cell"]
        shown |= {"code_prompt_show": "Solution", "code_prompt_hide": "Solution"}
    elif "reveal" in tags(cell):
        cell.metadata["tags"] = [*tags(cell), "hide-output"]
        shown |= {"code_prompt_show": "Result", "code_prompt_hide": "Result"}
    pictures = [o for o in cell.outputs if "image/png" in o.get("data", {})]
    if len(pictures) > 1:
        raise Failure(f"a cell has {len(pictures)} pictures, but one text for all")
    for output in pictures:
        shown["image"] = {"alt": " ".join(output.data["text/plain"].split())}
    if shown:
        cell.metadata["mystnb"] = shown
    return cell


def lesson_page(name: str, course: dict[str, NotebookNode]) -> NotebookNode:
    nb = deepcopy(course[name])
    nb.cells = [dressed(cell) for cell in nb.cells]
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = relink(cell.source, f"notebooks/{name}", name, course)
    return nb


def exercises(nb: NotebookNode) -> list[NotebookNode]:
    """The cells of a lesson's exercises, without heading and report around them."""
    return [
        cell
        for cell in nb.cells
        if {"exercise", "solution"} & set(tags(cell))
        and not cell.source.startswith(("## ", "checks.report("))
    ]


def exercise_page(course: dict[str, NotebookNode]) -> NotebookNode:
    """All exercises, each with a link to its place in its lesson."""
    new = nbformat.v4.new_markdown_cell
    page = nbformat.v4.new_notebook(metadata=course["00_start_here.ipynb"].metadata)
    page.cells.append(new(EXERCISES))
    for name, nb in course.items():
        cells = exercises(nb)
        if cells:
            page.cells.append(new(f"## {title(nb)}"))
        for cell in map(dressed, cells):
            cell.id = f"{name[:2]}-{cell.id}"
            file = f"notebooks/{name}"
            if cell.cell_type == "markdown" and cell.source.startswith("### "):
                heading, _, task = cell.source.partition("\n")
                words = heading.removeprefix("### ").replace("`", "")
                link = f"[Do it in lesson {name[:2]}](../{file}#{slug(words)})"
                cell.source = f"{heading}\n{task.strip()}\n\n{link}"
            if cell.cell_type == "markdown":
                # From docs/, so that links within a lesson lead back to it.
                source = re.sub(r"\]\(#", f"](../{file}#", cell.source)
                source = re.sub(r"\]\((?=0\d_)", "](../notebooks/", source)
                cell.source = relink(
                    source, "docs/exercises.md", "exercises.ipynb", course
                )
            page.cells.append(cell)
    return page


def lesson_cards() -> str:
    """README.md's table of lessons as cards."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    cards = []
    for line in section(readme, "Lessons").splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        found = re.fullmatch(r"\[(.+)\]\(notebooks/(.+)\.ipynb\)", cells[0])
        if found:
            name, link = found.groups()
            question, reading, running = cells[1:]
            cards.append(
                f":::{{grid-item-card}} {name}\n:link: {link}\n"
                f":link-type: doc\n\n{question}\n\n"
                f"*{reading} to read, {running} to run*\n:::"
            )
    if not cards:
        raise Failure("README.md has no table of lessons under `## Lessons`")
    return "::::{grid} 1 2 2 2\n:gutter: 3\n\n" + "\n".join(cards) + "\n::::"


def notation(course: dict[str, NotebookNode]) -> str:
    cells = course["01_compression_and_generation.ipynb"].cells
    text = next(c.source for c in cells if c.source.startswith(f"## {NOTATION}"))
    _, bar, table = section(text, NOTATION).partition("\n| ")
    return bar.strip() + " " + table


def module_names() -> list[str]:
    """The public modules in the order in which the package's docstring names them."""
    sys.path.insert(0, str(ROOT))
    import gencourse

    def place(name: str) -> int:
        found = re.search(rf"^ +{name}/? +", gencourse.__doc__, re.M)
        return found.start() if found else len(gencourse.__doc__)

    return sorted(gencourse.__all__, key=place)


def module_page(name: str) -> str:
    line = f"gencourse.{name}"
    return f"{line}\n{'=' * len(line)}\n\n.. automodule:: {line}\n   :members:\n"


# --- docstrings -----------------------------------------------------------------------

STARTS = re.compile(r"(Arguments|Returns|Raises|Source|Taught in)(:?)(?= |$)")
NAMES = re.compile(r"(?!in:)([a-z]\w*(?:, [a-z]\w*)*): +(?=\S)")


def restructured(text: str) -> str:
    """Turn one of our docstrings, which is plain text, into reStructuredText.

    Indented paragraphs are code, or the table of modules. A line that begins with
    `name: ` tells of an argument, one that begins with Returns, Raises, Source or
    Taught in starts a paragraph.
    """
    blocks: list[str] = []
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        if all(line.startswith("    ") for line in block.splitlines()):
            rows = [
                re.fullmatch(r" +(\w+)/?  +(.+)", line) for line in block.splitlines()
            ]
            if all(rows):
                modules = [f"- :mod:`~gencourse.{r[1]}`: {inline(r[2])}" for r in rows]
                block = "\n".join(modules)
            blocks.append(block if all(rows) else "::\n\n" + block)
            continue
        part: list[str] = []
        for line in block.splitlines():
            if part and (STARTS.match(line) or NAMES.match(line)):
                blocks.append(finished(part))
                part = []
            part.append(line.strip())
        blocks.append(finished(part))
    return "\n\n".join(blocks) + "\n"


def finished(lines: list[str]) -> str:
    text = " ".join(lines)
    if found := STARTS.match(text):
        return f"**{found[1]}**{found[2]}{inline(text[found.end() :])}"
    if found := NAMES.match(text):
        return f"- **{inline(found[1])}**: {inline(text[found.end() :])}"
    return inline(text)


def inline(text: str) -> str:
    """Escape what reStructuredText would read as markup; `code` becomes ``code``."""
    parts = re.split(r"`([^`]+)`", text)
    parts[::2] = [re.sub(r"([*|_\\`])", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [f"``{part}``" for part in parts[1::2]]
    return re.sub(r"\blesson (0\d)\b", lesson_reference, "".join(parts))


def lesson_reference(match: re.Match) -> str:
    (path,) = (ROOT / "notebooks").glob(f"{match[1]}_*.ipynb")
    return f":doc:`lesson {match[1]} </{path.stem}>`"


# --- building -------------------------------------------------------------------------


def prepare(target: Path) -> None:
    """Write everything that Sphinx reads to `target`."""
    course = lessons()
    (target / "api").mkdir(parents=True)
    shutil.copytree(ROOT / "notebooks/figures", target / "figures")
    modules = module_names()
    filled = {
        "<!-- lessons -->": lesson_cards(),
        "<!-- notation -->": notation(course),
        "<!-- modules -->": "\n".join(f"api/{name}" for name in modules),
        "<!-- lesson files -->": "\n".join(course),
    }
    for path in sorted((ROOT / "docs").rglob("*.md")):
        name = path.relative_to(ROOT / "docs").as_posix()
        if name.startswith(SKIPPED):
            continue
        text = path.read_text(encoding="utf-8")
        for mark, words in filled.items():
            text = text.replace(mark, words)
        text = relink(text, f"docs/{name}", name, course)
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text(text, encoding="utf-8")
    for name in modules:
        (target / f"api/{name}.rst").write_text(module_page(name), encoding="utf-8")
    for name in course:
        nbformat.write(lesson_page(name, course), target / name)
    nbformat.write(exercise_page(course), target / "exercises.ipynb")


def build() -> None:
    for folder in (SOURCE, TARGET, BUILD / "doctrees"):
        shutil.rmtree(folder, ignore_errors=True)
    prepare(SOURCE)
    sphinx = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q"]
    folders = ["-c", ROOT / "docs", "-d", BUILD / "doctrees", SOURCE, TARGET]
    playground = [
        sys.executable,
        "-m",
        "tools.publish.playground",
        "--to",
        TARGET / "playground.html",
    ]
    for command in (sphinx + folders, [*playground, "--home", "index.html"]):
        done = subprocess.run(command, cwd=ROOT)
        if done.returncode:
            raise Failure("the site was not built; see above")
    print(f"\nOpen {os.path.relpath(TARGET / 'index.html')} in a browser.")


def main() -> None:
    try:
        build()
    except Failure as failure:
        sys.exit(str(failure))


if __name__ == "__main__":
    main()
