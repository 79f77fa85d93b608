"""Turn lessons into reveal.js decks; `python -m tools.publish.editions slides`.

The text is read in blocks. `Deck` decides which of them make a slide, and
`slides/deck.html.j2` and `slides/deck.css` decide what a slide looks like.
"""

import ast
import html
import importlib.util
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter
from nbconvert.preprocessors import Preprocessor
from nbformat import NotebookNode

from gencourse.language import text_width
from tools import command
from tools.command import Failure
from tools.publish import notebooks, translations
from tools.publish.notebooks import tags

TEMPLATES = Path(__file__).resolve().parent / "slides"

# --- reading the text -----------------------------------------------------------------

SENTENCE_END = re.compile(
    r"(?:(?<=[.?!])|(?<=[.?!][)\"*]))\s+(?=[A-Z$(*`\"])"
    r"|(?<=[。？！])(?![”）*\s]|$)|(?<=[。？！][”）])(?=\S)"
)
ABBREVIATIONS = re.compile(r"(\bet al|\be\.g|\bi\.e|\bvs|\bFig|& [A-Z]\w+|\bno)\.$")


def blocks(source: str) -> list[tuple[str, str]]:
    """Split Markdown into (kind, text).

    Kinds: heading, formula, list, table, quote, code, text.
    """
    done: list[tuple[str, str]] = []
    kind, lines = "", []

    def close() -> None:
        nonlocal kind, lines
        text = "\n".join(lines).strip("\n")
        if text.strip():
            done.append((kind, text))
        kind, lines = "", []

    for line in source.splitlines():
        bare = line.strip()
        if kind == "formula":
            lines.append(bare)
            if bare.endswith("$$"):
                close()
        elif bare.startswith("$$"):
            close()
            kind, lines = "formula", [bare]
            if bare.endswith("$$") and len(bare) > 2:
                close()
        elif re.match(r"#{1,6} ", line):
            close()
            done.append(("heading", line))
        elif not bare:
            if kind == "list":
                lines.append("")
            else:
                close()
        else:
            new = kind_of(line)
            if kind == "list":
                left = lines[-1] == "" and new != "list" and line[0] != " "
            else:
                left = bool(kind) and new != kind and (kind, new) != ("text", "code")
            if left:
                close()
            kind = kind or new
            lines.append(line if kind in ("list", "code") else bare)
    close()
    return done


def kind_of(line: str) -> str:
    if re.match(r"\s*([-*]|\d+\.) ", line):
        return "list"
    if line.startswith("|"):
        return "table"
    if line.startswith(">"):
        return "quote"
    return "code" if line.startswith("    ") else "text"


def sentences(text: str) -> list[str]:
    """Split a paragraph at the ends of its sentences, but not within formulas."""
    text = " ".join(text.split())
    hidden: list[str] = []

    def hide(match: re.Match) -> str:
        hidden.append(match[0])
        return f"$\0{len(hidden) - 1}\0"

    parts = SENTENCE_END.split(re.sub(r"\$[^$]+\$|`[^`]+`", hide, text))
    joined: list[str] = []
    for part in parts:
        if joined and ABBREVIATIONS.search(joined[-1]):
            joined[-1] += f" {part}"
        else:
            joined.append(part)
    return [
        re.sub(r"\$\0(\d+)\0", lambda m: hidden[int(m[1])], part) for part in joined
    ]


def width(text: str) -> int:
    """Estimate how many letters wide a line of Markdown is."""
    text = re.sub(r"\]\([^)]*\)", "", text)
    text = re.sub(
        r"\$([^$]+)\$", lambda m: re.sub(r"\\[a-zA-Z]+|[{}_^ ]", "x", m[1]), text
    )
    return text_width(re.sub(r"[*`\[\\]", "", text))


def height(kind: str, text: str) -> float:
    """Estimate how many lines a block takes on a slide."""
    if kind == "formula":
        return 3.0
    if kind == "code":
        return 0.8 * len(text.splitlines()) + 0.5
    if kind == "table":
        return len(text.splitlines()) * 1.2
    items = (" ".join(item.split()) for item in pieces_of(kind, text))
    return sum(-(-width(item) // 66) + 0.4 for item in items)


def pieces_of(kind: str, text: str) -> list[str]:
    """Return the items of a list, and any other block as it is."""
    if kind != "list":
        return [text]
    return [i for i in re.split(r"\n(?=(?:[-*]|\d+\.) )", text) if i.strip()]


def plain_heading(text: str) -> str:
    """`## 3. Two arrows` becomes `Two arrows`."""
    return re.sub(r"^#+ (\d+\. )?", "", text).strip()


# --- the slides -----------------------------------------------------------------------

ROOM = 12.0  # lines of text on a slide, as `height` counts them
CLAIM = re.compile(r"[^*/_|[\]]{10,90}")  # words, not code
# A formula within a line must not be separated from the comma or period after it.
TIGHT = re.compile(r"((?<!\$)\$[^$]+\$(?!\$)[.,;:?!)]+)")
HEADLINE = 80  # letters
HEADINGS = ("title", "section", "part", "quote")  # nothing joins these
# What the lessons say in each language: sections without slides, and leads of lists.
READING = ("References", "参考文献")
ABLE = "After this lesson you can|学完这一课，你将能够"
QUESTIONS = re.compile(r"\*\*(Questions for yourself|想一想)[.。]\*\*")
WAY = re.compile(r"(Back|Next|上一课|下一课)[:：] ?\[")


@dataclass
class Slide:
    """One slide; text is Markdown, `kind` is a class of slides/deck.css."""

    kind: str
    headline: str
    body: str = ""
    code: str = ""
    output: str = ""
    figure: str = ""
    alt: str = ""
    caption: str = ""
    checked: str = ""
    before: str = ""  # the paragraph before, which may end with a question
    begins: str = ""  # the section that begins here, and its question
    notes: list[str] = field(default_factory=list)


class Deck(Preprocessor):
    """Turn a lesson into slides: one cell each, with its parts in `metadata.slide`.

    A heading, a figure, a formula, a list with a title and an exercise each make a
    slide; the text around them becomes the notes of the slide before. The tag `slide`
    adds a cell that would be left out, `slide-code` shows the code of a cell, and
    `skip-slide` leaves a cell out.
    """

    def preprocess(self, nb, resources):
        self.slides: list[Slide] = []
        self.words = translations.words(nb.metadata.get("language", ""))
        self.topic, self.before = "", ""  # the last heading, the last paragraph
        self.named: set[str] = set()  # headlines of figures
        for cell in nb.cells:
            if tags(cell) & {"skip-slide", "solution", "parameters"}:
                continue
            if cell.cell_type == "markdown":
                self.markdown(cell)
            elif cell.cell_type == "code" and "exercise" not in tags(cell):
                self.code(cell)
        for slide in self.slides:
            self.finish(slide)
        nb.cells = [self.cell(slide) for slide in joined(self.slides)]
        return nb, resources

    def cell(self, slide: Slide) -> NotebookNode:
        parts = asdict(slide) | {"notes": "\n\n".join(slide.notes)}
        return nbformat.v4.new_markdown_cell(
            metadata=nbformat.from_dict({"slide": parts})
        )

    def finish(self, slide: Slide) -> None:
        if slide.figure:
            self.name_figure(slide)
            slide.caption = fitting(sentences(slide.alt), 190)
            _ = self.words
            slide.notes.insert(0, _("The figure: {text}").format(text=slide.alt))
        if not slide.notes:
            slide.notes = [slide.body or slide.headline]

    def add(self, slide: Slide) -> None:
        slide.before = self.before
        self.slides.append(slide)
        self.before = ""

    def note(self, text: str) -> None:
        self.before = text
        if self.slides:
            self.slides[-1].notes.append(text)

    def name_figure(self, slide: Slide) -> None:
        """Choose a headline: a question just asked, what was checked, or the topic."""
        question = sentences(slide.before)[-1]
        if question.endswith(("?", "？")) and width(question) <= HEADLINE:
            slide.headline = question
        elif slide.headline in self.named and CLAIM.fullmatch(slide.checked):
            slide.headline = (slide.checked[0].upper() + slide.checked[1:]).rstrip(",;")
            slide.checked = "by a cell of the lesson"
        self.named.add(slide.headline)

    # text

    def markdown(self, cell: NotebookNode) -> None:
        parts = blocks(cell.source)
        if "exercise" in tags(cell) and parts[0][1].startswith("### "):
            self.pages("exercise", plain_heading(parts[0][1]), parts[1:])
            return
        if "slide" in tags(cell):
            if parts[0][1].startswith("### "):
                self.topic = plain_heading(parts.pop(0)[1])
            elif parts[0][0] == "heading":
                self.heading(parts.pop(0)[1], parts)
            self.pages("list", self.topic, parts)
            return
        lead, skipping = "", False
        while parts:
            kind, text = parts.pop(0)
            after = parts[0] if parts else ("", "")
            if kind == "heading":
                lead, skipping = "", plain_heading(text) in READING
            if skipping:
                continue
            if kind == "heading":
                self.heading(text, parts)
            elif kind == "formula":
                self.formula(text, lead, after)
            elif kind == "table":
                self.add(Slide("list", self.topic, text))
            elif kind == "quote":
                self.quote(text)
            elif after[0] == "list" and is_title(text):
                self.pages("list", text.strip("*"), [parts.pop(0)])
            elif title := QUESTIONS.match(text):
                questions = sentences(text[title.end() :])
                items = "\n".join(f"- {question}" for question in questions)
                self.pages("list", title[1], [("list", items)])
            elif not WAY.match(text):
                self.note(text)
                lead = pieces_of(kind, text)[-1]

    def heading(self, text: str, parts: list[tuple[str, str]]) -> None:
        """Begin a lesson, a section or, if text follows it, a part of a section."""
        self.topic = plain_heading(text)
        level = len(text) - len(text.lstrip("#"))
        first = parts[0][1] if parts and parts[0][0] == "text" else ""
        question = re.fullmatch(r"\*{1,2}([^*].*?[^*])\*{1,2}", first, re.DOTALL)
        if level <= 2 or question:
            if question:
                parts.pop(0)
            kind = {1: "title", 2: "section"}.get(level, "part")
            self.add(Slide(kind, self.topic, question[1] if question else ""))
        elif first and not (len(parts) > 1 and parts[1][0] == "formula"):
            self.add(Slide("part", self.topic, fitting(sentences(first), 240)))

    def formula(self, text: str, lead: str, after: tuple[str, str]) -> None:
        lead = re.sub(r"^\s*([-*]|\d+\.) ", "", lead)
        term = re.match(r"\*\*([^*]+?)[.:]?\*\*[.:]?\s*", lead)
        leading = sentences(lead[term.end() :] if term else lead)
        leading = [sentence for sentence in leading if not sentence.startswith("(")]
        body = f"{fitting(leading, 230, reverse=True)}\n\n{stacked(text)}"
        if after[0] == "text" and after[1][0].islower():
            body += "\n\n" + fitting(sentences(after[1]), 170)
        self.add(Slide("formula", term[1] if term else self.topic, body))

    def quote(self, text: str) -> None:
        words = re.sub(r"^> ?", "", text, flags=re.MULTILINE)
        title, rest = re.fullmatch(r"(?s)(?:\*\*(.+?)\.?\*\*)?(.*)", words).groups()
        self.pages("quote", title or self.topic, [("text", rest.strip())])

    def pages(self, kind: str, title: str, parts: list[tuple[str, str]]) -> None:
        """Spread blocks evenly over as many slides as they need."""
        pieces = [
            (what, piece, "\n" if what == "list" and number else "\n\n")
            for what, text in parts
            for number, piece in enumerate(pieces_of(what, text))
        ]
        heights = [height(what, piece) for what, piece, _ in pieces]
        # As few slides as possible, and among these layouts the most even one.
        tries = (filled(heights, ROOM * part / 20) for part in range(1, 21))
        starts = min(tries, key=len)
        pages: list[str] = []
        for number, (_, piece, gap) in enumerate(pieces):
            if number in starts:
                pages.append(piece)
            else:
                pages[-1] += gap + piece
        for number, page in enumerate(pages, 1):
            part = f" ({number}/{len(pages)})" if len(pages) > 1 else ""
            self.add(Slide(kind, title + part, page))

    # code

    def code(self, cell: NotebookNode) -> None:
        printed = notebooks.printed(cell).strip("\n")
        checked = re.findall(r"^ok: (.+(?:\n {4}.+)*)", printed, re.MULTILINE)
        checked = [" ".join(line.split()) for line in checked]
        if "slide-code" in tags(cell):
            self.add(Slide("code", self.topic, code=essential(cell.source)))
        for output in cell.outputs:
            png = output.get("data", {}).get("image/png")
            if png:
                alt = " ".join(output.data["text/plain"].split())
                self.add(Slide("figure", self.topic, figure=png.strip(), alt=alt))
            table = output.get("data", {}).get("text/markdown")
            if table and "slide" in tags(cell):  # with its ranges it would be too wide
                table = re.sub(r"\*\*| \((range|[\d.]+ to [\d.]+)\)", "", table)
                self.add(Slide("list", self.topic, table))
        if "slide" in tags(cell) and printed:
            self.add(Slide("output", self.topic, output=printed))
        elif checked and self.slides:
            self.check(checked)

    def check(self, checked: list[str]) -> None:
        """Show the first check after a figure, formula or code if it reads as text."""
        slide = self.slides[-1]
        first = not any(note.startswith("Checked: ") for note in slide.notes)
        near = not slide.notes if slide.figure else slide.kind in ("formula", "code")
        words = len(re.findall(r"[a-z]{2,}", checked[0])) >= 3
        if first and near and words and len(checked[0]) <= 100:
            if not re.search(r"\[|paragraph", checked[0]):
                slide.checked = checked[0]
        slide.notes.append("Checked: " + "; ".join(checked))


def joined(slides: list[Slide]) -> list[Slide]:
    """Let a section, or a part of one, begin on the slide that follows."""
    kept: list[Slide] = []
    for slide in slides:
        before = kept[-1] if kept else slide
        if before.kind in ("section", "part") and slide.kind not in HEADINGS:
            named = "" if slide.headline == before.headline else before.headline
            asked = before.kind == "section" or before.body.endswith(("?", "？"))
            question = before.body if asked else ""
            slide.begins = ": ".join(filter(None, [named, question]))
            slide.notes = before.notes + slide.notes
            kept.pop()
        kept.append(slide)
    return kept


def essential(source: str) -> str:
    """Return the functions that a cell defines, or all of it if it defines none."""
    functions = [n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef)]
    parts = [ast.get_source_segment(source, node) or "" for node in functions]
    return "\n\n\n".join(parts) or source


def stacked(formula: str) -> str:
    """Stack the parts of a wide formula, which `\\qquad` separates."""
    parts = re.split(r"\\qquad", formula.strip("$"))
    if len(parts) == 1 or width(f"${formula.strip('$')}$") < 50:
        return formula
    rows = r" \\[0.6em] ".join(parts)
    return rf"$$\begin{{gathered}}{rows}\end{{gathered}}$$"


def filled(heights: list[float], room: float) -> list[int]:
    """Return the numbers of the pieces that begin a slide with this much room."""
    starts, used = [], room
    for number, needed in enumerate(heights):
        if not starts or used + needed > room:
            starts.append(number)
            used = 0.0
        used += needed
    return starts


def is_title(text: str) -> bool:
    return bool(re.fullmatch(rf"\*\*[^*]+\*\*|{ABLE}", text))


def fitting(candidates: list[str], room: int, reverse: bool = False) -> str:
    """Return as many sentences as fit, at least one; `reverse`: from the last one."""
    taken: list[str] = []
    for sentence in candidates[::-1] if reverse else candidates:
        if taken and sum(map(width, taken)) + width(sentence) > room:
            break
        taken.append(sentence)
    text = " ".join(taken[::-1] if reverse else taken)
    return re.sub(r"(?<=[。？！”）]) ", "", text)


# --- the files ------------------------------------------------------------------------

INDEX = """\
<!DOCTYPE html>
<html lang="{language}">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 18px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 3rem auto;
       padding: 0 1rem; color: #222; }}
ul {{ list-style: none; padding: 0; }}
li {{ margin: 0 0 1.2rem; }}
a {{ font-weight: 600; color: #0b5394; }}
</style>
<h1>{title}</h1>
<ul>
{entries}
</ul>
</html>
"""


def slides(folder: Path, target: Path) -> None:
    """Write a deck for each lesson of a folder, and a page that links to all decks."""
    from jinja2 import FileSystemLoader

    target.mkdir(parents=True, exist_ok=True)
    copy_scripts(target)
    exporter = HTMLExporter(
        extra_loaders=[FileSystemLoader(TEMPLATES)],
        template_file="deck.html.j2",
        filters={
            "tight": lambda text: TIGHT.sub(r"<span>\1</span>", text),
            "unwrap": lambda text: re.sub(r"^\s*<p>|</p>\s*$", "", text),
        },
    )
    exporter.register_preprocessor(Deck, enabled=True)
    css = (TEMPLATES / "deck.css").read_text(encoding="utf-8") + code_colors()
    entries, tongue = [], ""
    for path in notebooks.lessons(folder=folder):
        if path.name.startswith("00_"):
            continue
        nb = notebooks.read(path)
        title, question = notebooks.heading(nb)
        tongue = nb.metadata.get("language", "")
        _ = translations.words(tongue)
        nb.metadata |= {"title": title, "checked": _("checked: ")}
        page, _ = exporter.from_notebook_node(nb, resources={"css": css})
        command.write(page, target / f"{path.stem}.html")
        link = f'<a href="{path.stem}.html">{html.escape(title)}</a>'
        entries.append(f"<li>{link}<br>{html.escape(question)}</li>")
        print(f"{target / path.stem}.html: {page.count('<aside')} slides")
    index = target / "index.html"
    words = {
        "language": tongue.replace("_", "-") or "en",
        "title": translations.words(tongue)("How machines generate images"),
    }
    command.write(INDEX.format(entries="\n".join(entries), **words), index)
    print(f"\nOpen {index} in a browser. Arrow keys: next slide. S: notes.")


def copy_scripts(target: Path) -> None:
    """Copy reveal.js and MathJax from the packages that contain them."""
    reveal = static_files("sphinx_revealjs", "_static/revealjs")
    (target / "reveal").mkdir(exist_ok=True)
    files = "dist/reveal.js", "dist/reveal.css", "plugin/notes/notes.js", "LICENSE"
    for name in files:
        shutil.copy(reveal / name, target / "reveal")
    shutil.copy(mathjax(), target)


def mathjax() -> Path:
    """Return the file that draws formulas without a network."""
    return static_files("sphinx-mathjax-offline", "static/mathjax") / "tex-svg.js"


def static_files(package: str, folder: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        name = package.replace("_", "-")
        raise Failure(
            f"The package {name} is missing. `make slides` and `make html` install it, "
            f"and so does: python -m pip install -c constraints.txt {name}"
        )
    return Path(spec.origin).parent / folder


def code_colors() -> str:
    from pygments.formatters import HtmlFormatter

    return HtmlFormatter(style="default").get_style_defs(".highlight")
