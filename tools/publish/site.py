"""Build the web site in build/html from docs/ and the stored lessons; runs no lesson.

Each language of `translations/` gets a folder of its own with the same pages.

Nothing is written twice: lessons are copied with their outputs; the map of lessons
comes from README.md, the notation from lesson 01, the exercises from all lessons, and
the pages on the package from its docstrings. Called by the Makefile (`make html`).
"""

import ast
import os
import posixpath
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote

import nbformat
from nbformat import NotebookNode

import gencourse
from tools import command
from tools.command import Failure
from tools.publish import notebooks, translations
from tools.publish.formulas import FORMULAS
from tools.publish.notebooks import ROOT, headings, slug, tags

BUILD = ROOT / "build"
SOURCE = BUILD / "site"
TARGET = BUILD / "html"
PROMPTS = "code_prompt_show", "code_prompt_hide"  # over what is folded
LINK = re.compile(r"(!?)\[((?:[^][]|\[[^]]*\])*)\]\(([^()\s]+)\)")
CHART = re.compile(r"plot\.(curves|bars|histogram)\(")
IMAGES = re.compile(r"plot\.(canvas|grid|pairs|explorer|heat|scatter_map|map_of)")
NOTATION = "164a4259"  # the cell with the table of symbols
Words = Callable[[str], str]  # what the site says itself, in the reader's language


# --- reading the course ---------------------------------------------------------------


def title(nb: NotebookNode) -> str:
    return notebooks.heading(nb)[0]


def section(text: str, heading: str) -> str:
    """Return the text under a heading of the second level, up to the next one."""
    match = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    if match is None:
        raise Failure(f"There is no section `## {heading}`")
    return match[1].strip()


# --- links ----------------------------------------------------------------------------


def page_of(path: str) -> str | None:
    """Return the page of a file or folder of the repository; None if it has none.

    A link to a file without a page becomes plain text.
    """
    folder, name = posixpath.split(path)
    if folder == "notebooks" and name.endswith(".ipynb"):
        return name
    if folder == "notebooks/figures":
        return f"figures/{name}"
    if folder.startswith("docs") and name.endswith(".md"):
        return path.removeprefix("docs/")
    module = re.fullmatch(r"gencourse/(\w+)\b.*", path)
    if module and module[1] in module_names():
        return f"api/{module[1]}.rst"
    return None


def relink(text: str, file: str, page: str, course: dict[str, NotebookNode]) -> str:
    """Turn the links of `file` in the repository into links of `page` on the site.

    Anchors may be written as in JupyterLab (`#2.-The-loss`) or as on the site
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


def dressed(cell: NotebookNode, _: Words = str) -> NotebookNode:
    """Return a copy of a cell: what a reader need not see folds.

    Solutions, results to predict, and code that only draws fold; pictures get alt texts
    and charts a class, by which the page turns them over in the dark.
    """
    cell = deepcopy(cell)
    if cell.cell_type != "code":
        return cell
    shown = {}
    if "solution" in tags(cell):
        cell.metadata["tags"].append("hide-cell")
        shown |= dict.fromkeys(PROMPTS, _("Solution"))
    elif "reveal" in tags(cell):
        cell.metadata["tags"].append("hide-output")
        shown |= dict.fromkeys(PROMPTS, _("Result"))
    elif only_draws(cell):
        cell.metadata.setdefault("tags", []).append("hide-input")
        shown |= dict.fromkeys(PROMPTS, _("Code of the figure"))
    pictures = [o for o in cell.outputs if "image/png" in o.get("data", {})]
    if len(pictures) > 1:
        raise Failure(f"a cell has {len(pictures)} pictures, but only one alt text")
    for output in pictures:
        shown["image"] = {"alt": " ".join(output.data["text/plain"].split())}
        if CHART.search(cell.source) and not IMAGES.search(cell.source):
            shown["image"]["classes"] = "chart"
    if shown:
        cell.metadata["mystnb"] = shown
    return cell


def only_draws(cell: NotebookNode) -> bool:
    """Return whether a cell is nothing but one call or one canvas of `plot`."""
    pictures = [o for o in cell.outputs if "image/png" in o.get("data", {})]
    if not pictures or "exercise" in tags(cell):
        return False
    first, *rest = ast.parse(cell.source).body
    if isinstance(first, ast.With):
        calls = ast.unparse(first.items[0].context_expr).startswith("plot.canvas(")
        return calls and [type(line) for line in rest] == [ast.Expr]
    call = isinstance(first, ast.Expr) and ast.unparse(first).startswith("plot.")
    return call and not rest


def lesson_page(
    name: str, course: dict[str, NotebookNode], _: Words = str
) -> NotebookNode:
    nb = deepcopy(course[name])
    nb.cells = [dressed(cell, _) for cell in nb.cells]
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = relink(cell.source, f"notebooks/{name}", name, course)
    return nb


def exercises(nb: NotebookNode) -> list[NotebookNode]:
    """Return the cells of a lesson's exercises, without the heading and the report."""
    return [
        cell
        for cell in nb.cells
        if {"exercise", "solution"} & tags(cell)
        and not cell.source.startswith(("## ", "checks.report("))
    ]


def exercise_page(course: dict[str, NotebookNode], _: Words = str) -> NotebookNode:
    """Return a page with all exercises, each with a link to its place in a lesson."""
    new = nbformat.v4.new_markdown_cell
    page = nbformat.v4.new_notebook(metadata=course["00_start_here.ipynb"].metadata)
    intro = _(
        "All exercises of the course in one place. Do them in the lessons: there you "
        "can run your answer, and the cell tells you whether it is right or what went "
        "wrong. Solutions are folded; try on your own before you open one."
    )
    page.cells.append(new("# " + _("Exercises") + f"\n\n{intro}"))
    for name, nb in course.items():
        cells = exercises(nb)
        if cells:
            page.cells.append(new(f"## {title(nb)}"))
        for cell in [dressed(cell, _) for cell in cells]:
            cell.id = f"{name[:2]}-{cell.id}"
            file = f"notebooks/{name}"
            if cell.cell_type == "markdown" and cell.source.startswith("### "):
                heading, task = cell.source.split("\n", 1)
                words = heading.removeprefix("### ").replace("`", "")
                link = _("Do it in lesson {number}").format(number=name[:2])
                link = f"[{link}](../{file}#{slug(words)})"
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


def lesson_cards(tongue: str = "") -> str:
    """Return README.md's table of lessons as cards, and its appendices as lines."""
    _ = translations.words(tongue)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = translations.translated(section(readme, "Lessons"), "README", tongue)
    cards, appendices = [], []
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        lesson = re.fullmatch(r"\[(.+)\]\(notebooks/(.+)\.ipynb\)", cells[0])
        if lesson:
            name, link = lesson.groups()
            question, reading, running = cells[1:]
            times = _("{reading} to read, {running} to run")
            times = f"*{times.format(reading=reading, running=running)}*"
            if link[2].isalpha():
                appendices.append(f"[{name}]({link}.ipynb): {question} {times}")
                continue
            cards.append(
                f":::{{grid-item-card}} {name}\n:link: {link}\n"
                f":link-type: doc\n\n{question}\n\n{times}\n:::"
            )
    grid = "::::{grid} 1 2 2 3\n:gutter: 3\n\n" + "\n".join(cards) + "\n::::"
    return "\n\n".join([grid, *appendices])


def notation(course: dict[str, NotebookNode]) -> str:
    cells = course["01_compression_and_generation.ipynb"].cells
    text = next(cell.source for cell in cells if cell.id == NOTATION)
    return text[text.index("\n| ") :].strip()


def module_names() -> list[str]:
    """Return the public modules in the order of the package's docstring."""
    return re.findall(r"^    (\w+)/?  +", gencourse.__doc__, re.M)


def module_page(name: str) -> str:
    """Return the page of a module, with what it defines or else names in `__all__`."""
    line = f"gencourse.{name}"
    page = f"{line}\n{'=' * len(line)}\n\n.. automodule:: {line}\n   :members:\n"
    # Without a list, whatever the module imports would be on its page.
    if hasattr(import_module(line), "__all__"):
        page += "   :imported-members:\n"
    return page


def glossary(text: str) -> str:
    """Give each name of a term a line, so that the search leads to it by any of them.

    The file has `latent space · 潜在空间 (潜空间, 隐空间)`: English, Chinese, synonyms;
    in Chinese it has `潜在空间 (潜空间, 隐空间) · latent space`.
    """

    def names(match: re.Match) -> str:
        lines = []
        for term in match[0].split(" · "):
            name, _, synonyms = term.rstrip(")").partition(" (")
            # What is short for an English term stays with it.
            chinese = "\u4e00" <= synonyms[:1] <= "\u9fff"
            lines += [name, *synonyms.split(", ")] if chinese else [term]
        return "\n".join(lines)

    return re.sub(r"^\S.* · \S.*$", names, text, flags=re.M)


# --- docstrings -----------------------------------------------------------------------


def docstring(text: str) -> str:
    """Prepare a Google-style docstring with formulas for Sphinx.

    Formulas and names are escaped, `code` and indented examples are not. Sources and
    lessons get paragraphs of their own, "lesson 02" becomes a link, and the package's
    table of modules becomes a list of links.
    """
    for plain, drawn in FORMULAS.items():
        start = re.escape(plain).replace(r"\ ", r"\s+")
        text = re.sub(rf"\A{start}", lambda _, tex=drawn: f":math:`{tex}`", text)
    text = re.sub(r"^    (\w+)/?  +(.+)$", module_line, text, flags=re.M)
    text = re.sub(r"^(\S.*)\n\n(?= {4})", r"\1\n\n::\n\n", text, flags=re.M)
    parts = re.split(r"(`[^`]+`|::\n\n(?: {4}.*\n|\n)+)", text + "\n")
    for number in range(0, len(parts), 2):
        part = re.sub(r"([*|\\]|_(?!\w))", r"\\\1", parts[number])
        part = re.sub(r"\b(Source|Taught\s+in): ", r"\n\n**\1**: ", part)
        parts[number] = re.sub(r"\blesson (0\d)\b", lesson_link, part)
    return "".join(parts)


def module_line(match: re.Match) -> str:
    return f"- :doc:`gencourse.{match[1]} </api/{match[1]}>`: {match[2]}"


def lesson_link(match: re.Match) -> str:
    (path,) = notebooks.lessons(match[1])
    return f":doc:`lesson {match[1]} </{path.stem}>`"


# --- building -------------------------------------------------------------------------


def prepare(target: Path, tongue: str = "") -> None:
    """Write everything that Sphinx reads to `target`, in a language."""
    course, _ = translations.course(tongue), translations.words(tongue)
    shutil.copytree(ROOT / "notebooks/figures", target / "figures")
    modules = module_names()
    filled = {
        "<!-- lessons -->": lesson_cards(tongue),
        "<!-- notation -->": notation(course),
        "<!-- modules -->": "\n".join(f"api/{name}" for name in modules),
        "<!-- lesson files -->": "\n".join(course),
    }
    for path in sorted((ROOT / "docs").glob("*.md")):
        text = translations.page(path, tongue)
        for mark, words in filled.items():
            text = text.replace(mark, words)
        if path.name == "glossary.md":
            text = glossary(text)
        text = relink(text, f"docs/{path.name}", path.name, course)
        command.write(text, target / path.name)
    for name in modules:
        command.write(module_page(name), target / f"api/{name}.rst")
    for name in course:
        notebooks.write(lesson_page(name, course, _), target / name)
    notebooks.write(exercise_page(course, _), target / "exercises.ipynb")


def start_sphinx(tongue: str) -> subprocess.Popen:
    """Start to build the site in a language; docs/conf.py asks GENCOURSE_LANG."""
    source, doctrees = SOURCE / (tongue or "en"), BUILD / "doctrees" / tongue
    prepare(source, tongue)
    sphinx = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q"]
    folders = ["-c", ROOT / "docs", "-d", doctrees, source, TARGET / tongue]
    language = os.environ | {"GENCOURSE_LANG": tongue}
    return subprocess.Popen(sphinx + folders, cwd=ROOT, env=language)


def build() -> None:
    from tools.publish import playground  # loads torch

    for folder in (SOURCE, TARGET, BUILD / "doctrees"):
        shutil.rmtree(folder, ignore_errors=True)
    running = [start_sphinx(tongue) for tongue in ("", *translations.languages())]
    if any([process.wait() for process in running]):
        raise Failure("The site was not built; Sphinx's messages are above.")
    # myst-nb leaves copies of the notebooks beside the folder that it writes to.
    shutil.rmtree(TARGET / "jupyter_execute", ignore_errors=True)
    page = playground.page()
    for tongue in ("", *translations.languages()):
        command.write(page, TARGET / tongue / "playground.html")
    print(f"\nOpen {os.path.relpath(TARGET / 'index.html')} in a browser.")


if __name__ == "__main__":
    command.run(build)
