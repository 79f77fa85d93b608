"""Slides: turn a lesson into a reveal.js deck. `editions.py slides` writes them.

The text is read in blocks; `Deck` decides which of them make a slide;
`slides/deck.html.j2` and `slides/deck.css` give them their form.
"""

import ast
import importlib.util
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter
from nbconvert.preprocessors import Preprocessor
from nbformat import NotebookNode

from tools.publish import notebooks
from tools.publish.notebooks import Failure

TEMPLATES = Path(__file__).resolve().parent / "slides"


def tags(cell: NotebookNode) -> set[str]:
    return set(cell.metadata.get("tags", []))


def text_of(cell: NotebookNode) -> str:
    """Return what a code cell printed."""
    printed = (out.text for out in cell.outputs if out.output_type == "stream")
    return "".join(printed).strip("\n")


# --- reading the text -----------------------------------------------------------------

SENTENCE_END = re.compile(r"(?:(?<=[.?!])|(?<=[.?!][)\"*]))\s+(?=[A-Z$(*`\"])")
ABBREVIATIONS = re.compile(r"(\bet al|\be\.g|\bi\.e|\bvs|\bFig|& [A-Z]\w+|\bno)\.$")
# A sentence that begins like this needs the one before it.
DANGLING = re.compile(
    r"\(|(This|That|These|Those|It|They|Both|None|Now|One more|One pair|So|But|And|Then"
    r"|Here|Same|With(out)? (the|room|none|a)|In Jupyter|Be|Remember|Why|How|Keep|Look"
    r"|Count|Put|We|Judged|Only|Half a|Averaging|Like|Will|Does|Is|The live|A folder)\b"
)


def blocks(source: str) -> list[tuple[str, str]]:
    """Split Markdown into (kind, text).

    Kinds: heading, formula, list, table, quote, code, text.
    """
    found: list[tuple[str, str]] = []
    kind, lines = "", []

    def close() -> None:
        nonlocal kind, lines
        text = "\n".join(lines).strip("\n")
        if text.strip():
            found.append((kind, text))
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
            found.append(("heading", line))
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
    return found


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
    """Return about how many letters a line of Markdown takes."""
    text = re.sub(r"\]\([^)]*\)", "", text)
    text = re.sub(
        r"\$([^$]+)\$", lambda m: re.sub(r"\\[a-zA-Z]+|[{}_^ ]", "x", m[1]), text
    )
    return len(re.sub(r"[*`\[\\]", "", text))


def height(kind: str, text: str) -> float:
    """Return about how many lines a block takes on a slide."""
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
# A formula within a line stays together with the comma or period after it.
TIGHT = re.compile(r"((?<!\$)\$[^$]+\$(?!\$)[.,;:?!)]+)")
HEADLINE, CAPTION = 80, 165  # letters
READING = ("References",)  # sections without slides


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
    asked: str = ""  # the paragraph before, in case that it ends with a question
    notes: list[str] = field(default_factory=list)


class Deck(Preprocessor):
    """Turn a lesson into slides: a cell for each, its parts in `metadata.slide`.

    A heading, a figure, a formula, a list with a title and an exercise each make a
    slide; the text around them becomes the notes of the slide before. Tags: `slide`
    shows a cell that would not be shown, `slide-code` shows the code of a cell, and
    `skip-slide` leaves a cell out.
    """

    def preprocess(self, nb, resources):
        self.slides: list[Slide] = []
        self.topic, self.before = "", ""  # the last heading, the last paragraph
        self.named: set[str] = set()  # headlines of figures
        self.fresh: Slide | None = None  # a figure, if no text came after it yet
        self.alone = True  # whether it is the only one since the last text
        for cell in nb.cells:
            if tags(cell) & {"skip-slide", "solution", "parameters"}:
                continue
            if cell.cell_type == "markdown":
                self.markdown(cell)
            elif cell.cell_type == "code" and "exercise" not in tags(cell):
                self.code(cell)
        for slide in self.slides:
            self.finish(slide)
        nb.cells = [self.cell(slide) for slide in self.slides]
        return nb, resources

    def cell(self, slide: Slide) -> NotebookNode:
        parts = asdict(slide) | {"notes": "\n\n".join(slide.notes)}
        return nbformat.v4.new_markdown_cell(
            metadata=nbformat.from_dict({"slide": parts})
        )

    def finish(self, slide: Slide) -> None:
        if slide.figure:
            self.name_figure(slide)
            if not slide.caption:
                slide.caption = fitting(sentences(slide.alt), 190)
            slide.notes.insert(0, f"The figure: {slide.alt}")
        if not slide.notes:
            slide.notes = [slide.body or slide.headline]

    def add(self, slide: Slide) -> None:
        slide.asked = self.before
        self.slides.append(slide)
        # Words after two figures speak of both, or of the first.
        self.alone = self.fresh is None
        self.fresh = slide if slide.figure else None
        self.before = ""

    def note(self, text: str) -> None:
        self.before = text
        if self.slides:
            self.slides[-1].notes.append(text)

    def name_figure(self, slide: Slide) -> None:
        """Find a headline: a question just asked, the topic, or what was checked."""
        asked = sentences(slide.asked)[-1]
        if asked.endswith("?") and width(asked) <= HEADLINE:
            slide.headline = asked
        elif slide.headline in self.named and CLAIM.fullmatch(slide.checked):
            slide.headline = slide.checked[0].upper() + slide.checked[1:]
            slide.checked = "by a cell of the lesson"
        self.named.add(slide.headline)

    # text

    def markdown(self, cell: NotebookNode) -> None:
        found = blocks(cell.source)
        if "exercise" in tags(cell) and found[0][1].startswith("### "):
            self.pages("exercise", plain_heading(found[0][1]), found[1:])
            return
        if "slide" in tags(cell):
            if found[0][1].startswith("### "):
                self.topic = plain_heading(found.pop(0)[1])
            elif found[0][0] == "heading":
                self.heading(found.pop(0)[1], found)
            self.pages("list", self.topic, found)
            return
        lead, skipping = "", False
        while found:
            kind, text = found.pop(0)
            after = found[0] if found else ("", "")
            caption_for, self.fresh = self.fresh, None
            if kind == "heading":
                lead, skipping = "", plain_heading(text) in READING
            if skipping:
                continue
            if kind == "heading":
                self.heading(text, found)
            elif kind == "formula":
                self.formula(text, lead, after)
            elif kind == "table":
                self.add(Slide("list", self.topic, text))
            elif kind == "quote":
                self.quote(text)
            elif after[0] == "list" and is_title(text):
                self.pages("list", text.strip("*"), [found.pop(0)])
            elif text.startswith("**Questions for yourself.**"):
                asked = sentences(text.removeprefix("**Questions for yourself.**"))
                items = "\n".join(f"- {question}" for question in asked)
                self.pages("list", "Questions for yourself", [("list", items)])
            elif not re.match(r"(Back|Next): \[", text):
                if caption_for and self.alone and kind == "text":
                    first = sentences(text)[0]
                    if width(first) <= CAPTION and not DANGLING.match(first):
                        caption_for.caption = first.removesuffix(":")
                self.note(text)
                lead = pieces_of(kind, text)[-1]

    def heading(self, text: str, found: list[tuple[str, str]]) -> None:
        """Begin a lesson, a section or, if it has words of its own, a part of one."""
        self.topic = plain_heading(text)
        level = len(text) - len(text.lstrip("#"))
        first = found[0][1] if found and found[0][0] == "text" else ""
        if level <= 2:
            asked = re.fullmatch(r"\*{1,2}([^*].*?[^*])\*{1,2}", first, re.DOTALL)
            if asked:
                found.pop(0)
            kind = "title" if level == 1 else "section"
            self.add(Slide(kind, self.topic, asked[1] if asked else ""))
        elif first and not (len(found) > 1 and found[1][0] == "formula"):
            self.add(Slide("part", self.topic, fitting(sentences(first), 240)))

    def formula(self, text: str, lead: str, after: tuple[str, str]) -> None:
        lead = re.sub(r"^\s*([-*]|\d+\.) ", "", lead)
        term = re.match(r"\*\*([^*]+?)[.:]?\*\*[.:]?\s*", lead)
        said = sentences(lead[term.end() :] if term else lead)
        said = [sentence for sentence in said if not sentence.startswith("(")]
        body = f"{fitting(said[::-1], 230, keep=True)}\n\n{stacked(text)}"
        if after[0] == "text" and after[1][0].islower():
            body += "\n\n" + fitting(sentences(after[1]), 170)
        self.add(Slide("formula", term[1] if term else self.topic, body))

    def quote(self, text: str) -> None:
        words = re.sub(r"^> ?", "", text, flags=re.MULTILINE)
        title, rest = re.fullmatch(r"(?s)(?:\*\*(.+?)\.?\*\*)?(.*)", words).groups()
        self.pages("part", title or self.topic, [("text", rest.strip())])

    def pages(self, kind: str, title: str, found: list[tuple[str, str]]) -> None:
        """Lay blocks out on as many slides as they need, evenly."""
        pieces = [
            (what, piece, "\n" if what == "list" and number else "\n\n")
            for what, text in found
            for number, piece in enumerate(pieces_of(what, text))
        ]
        heights = [height(what, piece) for what, piece, _ in pieces]
        # As few slides as possible; among those ways the one with the most even slides.
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
        printed = text_of(cell)
        checked = re.findall(r"^ok: (.+(?:\n {4}.+)*)", printed, re.MULTILINE)
        checked = [" ".join(line.split()) for line in checked]
        if "slide-code" in tags(cell):
            self.add(Slide("code", self.topic, code=essential(cell.source)))
        for output in cell.outputs:
            png = output.get("data", {}).get("image/png")
            if png:
                alt = " ".join(output.data["text/plain"].split())
                self.add(Slide("figure", self.topic, figure=png.strip(), alt=alt))
        if "slide" in tags(cell) and printed:
            self.add(Slide("output", self.topic, output=printed))
        elif checked and self.slides:
            self.check(checked)

    def check(self, checked: list[str]) -> None:
        """Show the first check after a figure, a formula or code, if it is words."""
        slide = self.slides[-1]
        first = not any(note.startswith("Checked: ") for note in slide.notes)
        near = slide is self.fresh or slide.kind in ("formula", "code")
        words = len(re.findall(r"[a-z]{2,}", checked[0])) >= 3
        if first and near and words and len(checked[0]) <= 100:
            if not re.search(r"\[|paragraph", checked[0]):
                slide.checked = checked[0]
        slide.notes.append("Checked: " + "; ".join(checked))


def essential(source: str) -> str:
    """Return the functions that a cell defines, or all of it if it defines none."""
    found = [n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef)]
    parts = [ast.get_source_segment(source, node) or "" for node in found]
    return "\n\n\n".join(parts) or source


def stacked(formula: str) -> str:
    """Put the parts of a wide formula, which `\\qquad` separates, below each other."""
    parts = re.split(r"\\qquad", formula.strip("$"))
    if len(parts) == 1 or width(f"${formula.strip('$')}$") < 50:
        return formula
    rows = r" \\[0.6em] ".join(parts)
    return rf"$$\begin{{gathered}}{rows}\end{{gathered}}$$"


def filled(heights: list[float], room: float) -> list[int]:
    """Return which pieces begin a slide if each slide has this room."""
    starts, used = [], room
    for number, needed in enumerate(heights):
        if not starts or used + needed > room:
            starts.append(number)
            used = 0.0
        used += needed
    return starts


def is_title(text: str) -> bool:
    return bool(re.fullmatch(r"\*\*[^*]+\*\*|After this lesson you can", text))


def fitting(candidates: list[str], room: int = CAPTION, keep: bool = False) -> str:
    """Return as many sentences as fit, at least one; `keep`: they come backwards."""
    taken: list[str] = []
    for sentence in candidates:
        if taken and sum(map(width, taken)) + width(sentence) > room:
            break
        taken.append(sentence)
    return " ".join(taken[::-1] if keep else taken)


# --- the files ------------------------------------------------------------------------


def write(paths: list[Path], target: Path) -> None:
    """Write a deck for each lesson, and a page that links to all of them."""
    from jinja2 import FileSystemLoader

    target.mkdir(parents=True, exist_ok=True)
    copy_reveal(target / "reveal")
    exporter = HTMLExporter(
        extra_loaders=[FileSystemLoader(TEMPLATES)],
        template_file="deck.html.j2",
        filters={
            "tight": lambda text: TIGHT.sub(r"<span>\1</span>", text),
            "unwrap": lambda text: re.sub(r"^\s*<p>|</p>\s*$", "", text),
        },
    )
    exporter.register_preprocessor(Deck, enabled=True)
    deck = {
        "css": (TEMPLATES / "deck.css").read_text(encoding="utf-8") + code_colors(),
        "mathjax": notebooks.mathjax(target),
    }
    entries = []
    for path in paths:
        if path.name.startswith("00_"):
            continue
        nb = notebooks.read(path)
        title, question = notebooks.heading(nb)
        nb.metadata["title"] = title
        page, _ = exporter.from_notebook_node(nb, resources={"deck": deck})
        name = path.with_suffix(".html").name
        (target / name).write_text(page, encoding="utf-8")
        entries.append((name, title, question))
        print(f"{target / name}: {page.count('<aside')} slides")
    (target / "index.html").write_text(notebooks.index(entries), encoding="utf-8")
    print(f"\nOpen {target / 'index.html'} in a browser. Arrow keys, S: notes.")


def copy_reveal(target: Path) -> None:
    """Copy reveal.js (MIT license) from the package that brings it."""
    package = importlib.util.find_spec("sphinx_revealjs")
    if package is None or package.origin is None:
        raise Failure(
            "reveal.js is missing; it comes with a package. `make slides` installs it, "
            "or: python -m pip install -c constraints.txt sphinx-revealjs"
        )
    source = Path(package.origin).parent / "_static/revealjs"
    target.mkdir(parents=True, exist_ok=True)
    for name in ("dist/reveal.js", "dist/reveal.css", "plugin/notes/notes.js"):
        shutil.copy(source / name, target)
    shutil.copy(source / "LICENSE", target)


def code_colors() -> str:
    from pygments.formatters import HtmlFormatter

    return HtmlFormatter(style="default").get_style_defs(".highlight")
