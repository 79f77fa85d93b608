"""The course in other languages, from the English files and gettext catalogs.

python -m tools.publish.translations update        bring the catalogs in step
python -m tools.publish.translations update 03     begin those of 03, list gaps
python -m tools.publish.translations build zh_CN   the notebooks, in build/zh_CN
python -m tools.publish.translations run zh_CN 03  and their results and figures

Every paragraph is an entry, with its cell's id as context, so a change in English is
seen by itself: the old translation is marked fuzzy, and until somebody has looked at
it, readers get the English paragraph. Nothing English waits for a translation.
"""

import ast
import difflib
import hashlib
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from io import BytesIO
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import nbformat
from babel.messages.catalog import Catalog, Message
from babel.messages.pofile import read_po, write_po
from nbformat import NotebookNode

from gencourse import language
from gencourse.language import normal
from tools import command
from tools.command import Failure
from tools.publish import notebooks
from tools.publish.notebooks import ROOT, headings, slug

TEXTS = ROOT / "translations"  # of pages and lessons, a folder for each language
SPOKEN = language.FOLDER  # what the package says; it travels with the package
BUILD = ROOT / "build"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = "README.{}.md"  # on the first page of a repository
WAS = "was: "  # in a comment on a fuzzy text: what was translated
SIMILAR = 0.5  # from here on a changed text keeps its translation, as a fuzzy one


class Text(NamedTuple):
    context: str | None
    english: str


# --- paragraphs of Markdown -----------------------------------------------------------

FORMULA = re.compile(r"\$\$.*?\$\$|\$[^$\n]+(?:\n[^$\n]+)?\$", re.DOTALL)
CODE = re.compile(r"(?<!`)`[^`]+`(?!`)")
LINK = re.compile(r"\]\(([^()\s]+)\)|(?m:^\[[^]]+\]: *(\S+))|:link: *(\S+)")
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)


def paragraphs(source: str) -> list[str]:
    """Split Markdown at its empty lines, but not within formulas and ``` fences."""
    parts, lines, inside = [], [], ""
    for line in source.split("\n"):
        bare = line.strip()
        if not (bare or inside):
            parts.append("\n".join(lines))
            lines = []
            continue
        lines.append(line)
        if inside:
            closed = bare == inside if inside == "```" else bare.endswith(inside)
            inside = "" if closed else inside
        elif bare.startswith("```") and not bare.startswith("````"):
            inside = "```"
        elif bare.startswith("$$") and bare.count("$$") == 1:
            inside = "$$"
    return [part for part in [*parts, "\n".join(lines)] if part]


def has_words(paragraph: str) -> bool:
    """Return whether there is something to translate."""
    bare = paragraph.strip()
    if re.match("```(?!`)", bare):  # code, or what Sphinx reads
        return ":caption:" in bare or "{button-link}" in bare
    for part in (FORMULA, CODE, COMMENT):
        bare = part.sub("", bare)
    return bool(re.search(r"[^\W\d_]{2}", bare))


def markdown(source: str, change: Callable[[str], str]) -> str:
    """Return Markdown with each of its paragraphs changed."""
    return "\n\n".join(
        change(part) if has_words(part) else part for part in paragraphs(source)
    )


# --- what there is to translate -------------------------------------------------------


def of_markdown(source: str, context: str | None = None) -> Iterator[Text]:
    yield from (Text(context, p) for p in paragraphs(source) if has_words(p))


def of_lesson(path: Path) -> Iterator[Text]:
    for cell in notebooks.read(path).cells:
        if cell.cell_type == "markdown":
            yield from of_markdown(cell.source, cell.id)


def words_of(node: ast.AST) -> str | None:
    """Return a string of a program as a message, with `{places}` for its values."""
    if isinstance(node, ast.JoinedStr):
        return "".join(map(words_of, node.values))
    if isinstance(node, ast.FormattedValue):
        return "{" + ast.unparse(ast.JoinedStr([node]))[3:-2] + "}"
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return None


def strings(
    tree: ast.AST, inside: tuple[ast.AST, ...] = ()
) -> Iterator[tuple[str, tuple[ast.AST, ...]]]:
    """Yield each string of a program with all that contains it, the outermost first."""
    for node in ast.iter_child_nodes(tree):
        words = words_of(node)
        if words is not None:
            yield words, (*inside, tree)
        if not isinstance(node, ast.JoinedStr):
            yield from strings(node, (*inside, tree))


def called(node: ast.AST) -> str:
    """Return the name of the function that a node calls."""
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


def of_checks(path: Path) -> Iterator[Text]:
    """Yield titles, hints and verdicts: the strings that read as words."""
    for words, inside in strings(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(inside[-1], ast.Expr):  # a docstring
            continue
        if any(called(node).endswith("Error") for node in inside):
            continue
        spoken = called(inside[-1]) in ("translate", "_say", "exercise")
        spoken |= words in ("attempted", "solved")
        spoken |= isinstance(inside[-1], ast.IfExp)
        own = language.PLACE.sub("", words)
        if re.search(r"[A-Za-z]{2}", own) and (" " in own.strip() or spoken):
            yield Text(None, words)


LABELS = "alt title titles label labels row_labels column_labels xlabel ylabel".split()
LABELS += ["hlines", "vlines", "suptitle"]
# What figures say without being a label by these rules.
NAMES = ["image space", "latent space", "{count} numbers"]
NAMES += ["compress", "generate", "both", "original", "reconstruction"]
NAMES += ["encoder", "decoder", "gradient", "learns", "stays"]
NAMES += ["linear", "cubic", "paths", "pasted"]
DRAWN = ["faces", "plot/course_map", "plot/images", "plot/sliders"]
DRAWN += ["plot/two_players", "plot/vae_diagram"]
WRITTEN = (".text", ".annotate", "plot.explorer")  # calls whose strings are labels
SILENT = ("print", "checks.", "data.load", "store.")


def of_figures() -> Iterator[Text]:
    """Yield labels and alt texts: those of the package, then those of the lessons."""
    for module in DRAWN:
        source = (ROOT / f"gencourse/{module}.py").read_text(encoding="utf-8")
        for words, inside in strings(ast.parse(source)):
            if is_label(words, inside, module):
                yield Text(None, words)
    yield from (Text(None, name) for name in NAMES)
    for path in notebooks.lessons():
        for cell in notebooks.read(path).cells:
            if cell.cell_type == "code":
                for words, inside in strings(ast.parse(cell.source)):
                    if is_label(words, inside):
                        yield Text(None, words)


def is_label(words: str, inside: tuple[ast.AST, ...], module: str = "") -> bool:
    holder, calls = inside[-1], [called(node) for node in inside]
    keywords = {node.arg for node in inside if isinstance(node, ast.keyword)}
    named = not keywords.isdisjoint(LABELS)
    own = language.PLACE.sub("", words)
    # A word has three letters; where a label must be, two will do, as in "in z".
    if not re.search(r"[^\W\d_]{3}" + "|[A-Za-z]{2} " * named, own):
        return False
    if isinstance(holder, ast.Expr | ast.Assert | ast.Compare):
        return False
    if isinstance(holder, ast.Subscript) and isinstance(holder.ctx, ast.Load):
        return False
    if any(isinstance(n, ast.Assert | ast.Raise | ast.FormattedValue) for n in inside):
        return False
    if any(call.startswith(SILENT) for call in calls) or "textcoords" in keywords:
        return False
    if module == "plot/sliders":
        return calls[-1] == "translate"
    written = not keywords and any(call.endswith(WRITTEN) for call in calls)
    if named or (written and words.isalpha()):
        return True
    in_dict = isinstance(holder, ast.Dict | ast.DictComp) and not module
    return in_dict or " " in own.strip() or calls[-1] == "Knob"


def of_tools() -> Iterator[Text]:
    """Yield what site and slides say themselves: `_("...")` in the tools' sources."""
    sources = [*(ROOT / "tools/publish").glob("*.py"), ROOT / "docs/conf.py"]
    for path in sorted(sources):
        for words, inside in strings(ast.parse(path.read_text(encoding="utf-8"))):
            if called(inside[-1]) == "_":
                yield Text(None, words)


def sources() -> dict[Path, Callable[[], Iterator[Text]]]:
    """Return how to read the texts of each catalog, by its path in a language."""
    found: dict[Path, Callable[[], Iterator[Text]]] = {}
    for path in notebooks.lessons():
        found[TEXTS / "{}" / f"{path.stem}.po"] = lambda path=path: of_lesson(path)
    for path in PAGES:
        found[TEXTS / "{}" / f"{path.stem}.po"] = lambda path=path: of_markdown(
            path.read_text(encoding="utf-8")
        )
    found[TEXTS / "{}/site.po"] = of_tools
    found[SPOKEN / "{}/figures.po"] = of_figures
    common = sorted((ROOT / "gencourse/checks").glob("[!l]*.py"))
    found[SPOKEN / "{}/checks.po"] = lambda: (
        text for path in common for text in of_checks(path)
    )
    for path in sorted((ROOT / "gencourse/checks").glob("lesson*.py")):
        found[SPOKEN / "{}" / f"checks_{path.stem}.po"] = lambda path=path: of_checks(
            path
        )
    return found


# --- catalogs -------------------------------------------------------------------------

HEADER = """\
msgid ""
msgstr ""
"Language: {}\\n"
"MIME-Version: 1.0\\n"
"Content-Type: text/plain; charset=utf-8\\n"
"Content-Transfer-Encoding: 8bit\\n"

"""


def languages() -> list[str]:
    return sorted(path.name for path in TEXTS.iterdir() if path.is_dir())


def read(path: Path, tongue: str) -> Catalog:
    if not path.exists():
        return Catalog(tongue)
    with open(path, "rb") as file:
        return read_po(file, locale=tongue)


def updated(old: Catalog, texts: list[Text]) -> Catalog:
    """Return the catalog with exactly these texts, and what is still right in it.

    A text that changed keeps its translation as a fuzzy one; one that has gone becomes
    obsolete, and comes back with its translation if the text does.
    """
    new = Catalog(old.locale)
    known = [*(m for m in old if m.id), *old.obsolete.values()]
    known = [message for message in known if message.string]
    found: dict[Text, Message] = {}
    wanted = list(dict.fromkeys(texts))
    for same in (same_place, same_words, similar):
        for text in wanted:
            if text not in found and (message := same(text, known)):
                found[text] = message
                known = [other for other in known if other is not message]
    for context, english in wanted:
        message = found.get(Text(context, english))
        if message is None:
            new.add(english, context=context)
            continue
        notes = takewhile(lambda line: not line.startswith(WAS), message.user_comments)
        was = source(message)
        changed = normal(was) != normal(english)
        unsure = message.fuzzy and was == message.id
        new.add(
            english,
            message.string,
            context=context,
            flags={"fuzzy"} if changed or unsure else (),
            user_comments=[*notes, *([WAS + normal(was)] if changed else [])],
        )
    for message in known:
        # An obsolete entry is never fuzzy: store it with the text that was translated.
        old_text = Message(source(message), message.string, context=message.context)
        new.obsolete[old_text.id, old_text.context] = old_text
    return new


def source(message: Message) -> str:
    """Return the text that was translated; of a fuzzy one, a comment knows it."""
    notes = " ".join(message.user_comments)
    return notes.partition(WAS)[2] if message.fuzzy and WAS in notes else message.id


def same_place(text: Text, known: list[Message]) -> Message | None:
    here = (m for m in known if m.context == text.context)
    return same_words(text, list(here))


def same_words(text: Text, known: list[Message]) -> Message | None:
    words = normal(text.english)
    return next((m for m in known if normal(source(m)) == words), None)


def similar(text: Text, known: list[Message]) -> Message | None:
    """Return the most similar text of the same cell or page, if it is similar."""
    words = text.english.split()
    best = SIMILAR, None
    for message in known:
        if message.context == text.context:
            match = difflib.SequenceMatcher(None, words, source(message).split())
            best = max(best, (match.ratio(), message), key=lambda pair: pair[0])
    return best[1]


def serialized(catalog: Catalog) -> str:
    """Return the text of the file; it names no date and no version."""
    file = BytesIO()
    write_po(file, catalog, width=0, omit_header=True)
    locale = f"{catalog.locale.language}_{catalog.locale.territory}"
    return HEADER.format(locale) + file.getvalue().decode()


def faults(english: str, translation: str) -> list[str]:
    """Return which formulas, links, numbers, code and places are not the same."""
    wrong = []
    for what, parts in KEPT.items():
        before, after = Counter(parts(english)), Counter(parts(translation))
        if before != after:
            lost, added = list(before - after), list(after - before)
            wrong.append(f"{what}: lost {lost}, added {added}")
    return wrong


def numbers(text: str) -> list[str]:
    for part in (FORMULA, CODE, COMMENT, LINK, language.PLACE):
        text = part.sub(" ", text)
    return re.findall(r"\d+(?:[,.]\d+)*", text)


def formulas(text: str) -> list[str]:
    return [normal(formula).rstrip("$ .,") for formula in FORMULA.findall(text)]


KEPT: dict[str, Callable[[str], list]] = {
    "formulas": formulas,
    "code": lambda text: list(map(normal, CODE.findall(text))),
    "links": lambda text: LINK.findall(text),
    "numbers": numbers,
    "places": lambda text: sorted(set(language.PLACE.findall(FORMULA.sub("", text)))),
    "levels": lambda text: re.findall(r"(?m)^ *(?:#+ )?", text)[:1],
}


def update(wanted: str = "") -> None:
    """Bring the catalogs in step; begin the wanted ones, and list what they lack."""
    for tongue in languages():
        lacking = []
        for place, texts in sources().items():
            path = Path(str(place).format(tongue))
            named = bool(wanted) and wanted in path.stem
            if not (path.exists() or named):
                print(f"{path.relative_to(ROOT)}: not begun")
                continue
            catalog = updated(read(path, tongue), list(texts()))
            new = serialized(catalog)
            if not path.exists() or path.read_text(encoding="utf-8") != new:
                command.write(new, path)
            messages = [message for message in catalog if message.id]
            fuzzy = [m for m in messages if m.fuzzy]
            missing = [m for m in messages if not m.string]
            done = len(messages) - len(fuzzy) - len(missing)
            print(
                f"{path.relative_to(ROOT)}: {done} of {len(messages)} translated, "
                f"{len(fuzzy)} fuzzy, {len(missing)} missing"
            )
            if named:
                lacking += [("fuzzy", m) for m in fuzzy]
                lacking += [("missing", m) for m in missing]
        for what, message in lacking:
            print(f"{what}: {normal(message.id)[:80]}")
        readme = ROOT / README.format(tongue.replace("_", "-"))
        command.write(page(PAGES[0], tongue), readme)


# --- pages and notebooks in another language ------------------------------------------


@cache
def catalog(name: str, tongue: str) -> dict[tuple[str | None, str], str]:
    """Return (context, text) -> translation of a page or lesson."""
    path = TEXTS / tongue / f"{name}.po"
    known = language.translations(path) if path.exists() else {}
    return {(context, normal(text)): new for (context, text), new in known.items()}


def translated(source: str, name: str, tongue: str, context: str | None = None) -> str:
    """Return Markdown in another language; what is not translated stays English."""
    if not tongue:
        return source
    known = catalog(name, tongue)
    return markdown(source, lambda part: known.get((context, normal(part)), part))


def words(tongue: str) -> Callable[[str], str]:
    """Return the `_` that translates what site and slides say themselves."""
    known = catalog("site", tongue) if tongue else {}
    return lambda text: known.get((None, normal(text)), text)


def page(path: Path, tongue: str = "") -> str:
    """Return a page of the repository; its links to headings follow `course`."""
    source = path.read_text(encoding="utf-8")
    if not tongue:
        return source
    text = translated(source, path.stem, tongue).rstrip("\n") + "\n"
    if path == PAGES[0]:
        return text.replace(f"[中文]({README.format('zh-CN')})", "[English](README.md)")
    return follow(text, stored(), course(tongue))


@cache
def stored() -> dict[str, NotebookNode]:
    return {path.name: notebooks.read(path) for path in notebooks.lessons()}


@cache
def course(tongue: str = "") -> dict[str, NotebookNode]:
    """Return all lessons by the names of their files, with their results."""
    if not tongue:
        return stored()
    if tongue not in languages():
        known = ", ".join(languages())
        raise Failure(f"There is no translations/{tongue}; there is: {known}")
    lessons = {name: lesson(name, tongue) for name in stored()}
    for name, nb in lessons.items():
        for cell in nb.cells:
            if cell.cell_type == "markdown":
                cell.source = follow(cell.source, stored(), lessons, name)
    return lessons


def lesson(name: str, tongue: str) -> NotebookNode:
    """Return a lesson in another language, its code and results as they are stored."""
    nb = deepcopy(stored()[name])
    say = language.translator(tongue)
    results = results_of(name, tongue)
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            stem = name.removesuffix(".ipynb")
            cell.source = translated(cell.source, stem, tongue, cell.id)
        elif cell.id in results:
            cell.outputs = results[cell.id]
        elif cell.cell_type == "code":
            for output in cell.outputs:
                text = output.get("data", {}).get("text/plain")
                if text is not None:
                    output.data["text/plain"] = say(text)
    nb.metadata["language"] = tongue
    return nb


def results_of(name: str, tongue: str) -> dict[str, list[NotebookNode]]:
    """Return the results of `run` by the ids of cells, if they belong to this code."""
    path = BUILD / tongue / "results" / name
    if not path.exists():
        return {}
    run = [cell for cell in notebooks.read(path).cells if cell.cell_type == "code"]
    code = [cell for cell in stored()[name].cells if cell.cell_type == "code"]
    if [cell.source for cell in run if not is_switch(cell)] != [c.source for c in code]:
        return {}
    return {cell.id: cell.outputs for cell in run}


# --- links to headings ----------------------------------------------------------------

TO_HEADING = re.compile(r"\]\(((?:[^()\s#]*/)?(\w+\.ipynb)|)#([^()\s]+)\)")


def follow(
    text: str,
    before: dict[str, NotebookNode],
    after: dict[str, NotebookNode],
    own: str = "",
) -> str:
    """Let links to headings of lessons lead to the translated headings."""

    def new(match: re.Match) -> str:
        path, name, anchor = match.groups()
        name = name or own
        if name not in before:
            return match[0]
        pairs = zip(headings(before[name]), headings(after[name]), strict=True)
        for old, translation in pairs:
            if unquote(anchor) in (old.replace(" ", "-"), slug(old)):
                return f"]({path}#{translation.replace(' ', '-')})"
        return match[0]

    return TO_HEADING.sub(new, text)


# --- notebooks to work with -----------------------------------------------------------

SWITCH = """\
import os

os.environ["GENCOURSE_LANG"] = "{}"  # {}"""


def is_switch(cell: NotebookNode) -> bool:
    return cell.id == "language"


def with_switch(nb: NotebookNode, tongue: str) -> NotebookNode:
    """Add a cell in front of all code that chooses the language of the package."""
    _ = words(tongue)
    code = SWITCH.format(tongue, _("the language of checks and figures"))
    cell = nbformat.v4.new_code_cell(code, id="language")
    cell.metadata["tags"] = ["skip-slide"]
    first = next(n for n, c in enumerate(nb.cells) if c.cell_type == "code")
    nb.cells.insert(first, cell)
    return nb


def folder(tongue: str) -> Path:
    """Write the notebooks for other editions to build/LANGUAGE/course."""
    target = BUILD / tongue / "course"
    for name, nb in to_work_with(tongue):
        notebooks.write(nb, target / name)
    return with_figures(target)


def to_work_with(tongue: str) -> Iterator[tuple[str, NotebookNode]]:
    for name, nb in course(tongue).items():
        yield name, with_switch(deepcopy(nb), tongue)


def with_figures(target: Path) -> Path:
    figures = notebooks.FOLDER / "figures"
    shutil.copytree(figures, target / "figures", dirs_exist_ok=True)
    return target


def build(tongue: str) -> Path:
    """Write the notebooks to build/LANGUAGE/notebooks, but over nobody's work."""
    target = BUILD / tongue / "notebooks"
    for name, nb in to_work_with(tongue):
        nb.metadata["made"] = digest(nb)
        path = target / name
        if path.exists():
            there = notebooks.read(path)
            if there.metadata.get("made") != digest(there):
                print(f"{path.relative_to(ROOT)} has changes of yours and stays as is")
                continue
        notebooks.write(nb, path)
    return with_figures(target)


def digest(nb: NotebookNode) -> str:
    text = "\0".join(cell.source for cell in nb.cells)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def run(tongue: str, number: str) -> None:
    """Run lessons in another language and keep their results for all editions."""
    for path in notebooks.lessons(number):
        nb = with_switch(lesson(path.name, tongue), tongue)
        seconds = notebooks.run(nb, path.name)
        notebooks.write(notebooks.clean(nb), BUILD / tongue / "results" / path.name)
        print(f"{path.name}: {seconds:.0f} s", flush=True)


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("what", choices=["update", "build", "run"])
    parser.add_argument("of", nargs="?", default="", help="a language; or a catalog")
    parser.add_argument("lesson", nargs="?", default="", help="02, say; default: all")
    args = parser.parse_args()
    if args.what == "update":
        update(args.of)
        return
    course(args.of)
    if args.what == "run":
        run(args.of, args.lesson)
        course.cache_clear()
    print(f"The notebooks are in {build(args.of).relative_to(ROOT)}.")


if __name__ == "__main__":
    command.run(main)
