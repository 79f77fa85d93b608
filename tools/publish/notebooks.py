"""Run, clean, check and publish the lessons. Called by the Makefile.

python -m tools.publish.notebooks store [02]         run in place, clean, check
python -m tools.publish.notebooks clean [02]         clean and check without running
python -m tools.publish.notebooks pages --to build   run copies and write web pages
"""

import argparse
import html
import importlib.util
import os
import re
import shutil
import sys
import time
from itertools import zip_longest
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "notebooks"
WIDGET = "application/vnd.jupyter.widget-view+json"
METADATA = {
    "kernelspec": {
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "name": "python3",
    },
    "language_info": {
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "pygments_lexer": "ipython3",
    },
}
CELL_METADATA = {"slideshow", "tags"}
FOLDED = {"solution", "reveal"}  # JupyterLab shows such a cell as three dots
IMAGE_BYTES = 1_000_000
FILE_BYTES = 2_000_000
CELL_LINES = 20
CELL_COLUMNS = 88
SHOWN = {"text/plain", "image/png", "text/latex", "text/markdown"}
FOLDERS_OF_A_MACHINE = "home|root|tmp|work|Users|opt|var|mnt|content"
MACHINE_PATH = re.compile(
    rf"(?<![\w.:/])/({FOLDERS_OF_A_MACHINE})/\w|\b[A-Z]:\\\w", re.ASCII
)


class Failure(Exception):
    """A lesson that did not run; the message names the cell."""


def lessons(number: str = "") -> list[Path]:
    """Return the notebooks whose names begin with `number`, all of them for ''."""
    found = sorted(FOLDER.glob(f"{number}*.ipynb"))
    if not found:
        raise Failure(f"There is no lesson notebooks/{number}*.ipynb")
    return found


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def serialize(nb: NotebookNode) -> str:
    """Return the text of the file, the same on every machine."""
    return nbformat.writes(nb, version=4).rstrip("\n") + "\n"


def write(nb: NotebookNode, path: Path) -> None:
    """Replace the file at once, so that an interrupt leaves the old or the new one."""
    part = path.with_suffix(".part")
    part.write_text(serialize(nb), encoding="utf-8", newline="\n")
    os.replace(part, path)


def run(nb: NotebookNode, name: str, timeout: int = 300) -> float:
    """Run all cells in place and return the seconds; `Failure` names a bad cell."""
    client = NotebookClient(
        nb,
        timeout=timeout,
        kernel_name="python3",
        record_timing=False,
        store_widget_state=False,
        resources={"metadata": {"path": str(FOLDER)}},
    )
    started = time.perf_counter()
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        raise Failure(f"{name} stopped:\n{error}") from None
    return time.perf_counter() - started


def clean(nb: NotebookNode) -> NotebookNode:
    """Remove in place whatever is not the lesson's; return the notebook.

    What goes: metadata but for tags, widgets and their state, the splitting of one
    stream into several outputs, empty cells at the end. Solutions are folded, and so is
    the result of an experiment that a learner should predict first.
    """
    nb.metadata = nbformat.from_dict(METADATA)
    nb.nbformat, nb.nbformat_minor = 4, 5
    while nb.cells and not nb.cells[-1].source.strip():
        nb.cells.pop()
    for cell in nb.cells:
        kept = {key: cell.metadata[key] for key in CELL_METADATA & cell.metadata.keys()}
        folded = FOLDED & set(kept.get("tags", []))
        if folded and cell.cell_type == "code":
            kept["jupyter"] = {"outputs_hidden": True}
            if "solution" in folded:
                kept["jupyter"]["source_hidden"] = True
        cell.metadata = nbformat.from_dict(kept)
        cell.source = cell.source.strip("\n")
        if cell.cell_type == "code":
            cell.outputs = clean_outputs(cell.outputs)
    return nb


def clean_outputs(outputs: list[NotebookNode]) -> list[NotebookNode]:
    kept: list[NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream":
            if kept and kept[-1].get("name") == output.name:
                kept[-1].text += output.text
                continue
        elif output.output_type in ("display_data", "execute_result"):
            output.metadata = NotebookNode()
            output.data.pop(WIDGET, None)
            if not output.data:
                continue
        kept.append(output)
    return kept


def problems(path: Path) -> list[str]:
    """Return what keeps a stored notebook from being clean, a line for each."""
    text = path.read_text(encoding="utf-8")
    nb = nbformat.reads(text, as_version=4)
    found = []
    if len(text.encode()) > FILE_BYTES:
        found.append(f"the file has {len(text.encode()):,} bytes, over {FILE_BYTES:,}")
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    counts = [cell.execution_count for cell in code]
    if counts != list(range(1, len(code) + 1)):
        found.append(f"execution counts are {counts}, not 1 to {len(code)}")
    if not path.name.startswith("00_"):
        found += parameter_problems(nb)
    for number, cell in enumerate(nb.cells, 1):
        for line in cell_problems(cell):
            found.append(f"cell {number}: {line}")
    for cell, after in zip_longest(code, code[1:]):
        if "nbval-ignore-output" in cell.metadata.get("tags", []):
            if after is None or not prints_ok(after):
                found.append(
                    f"cell [{cell.execution_count}] is tagged nbval-ignore-output, but "
                    "the next code cell prints no line that begins with 'ok:'"
                )
    # JupyterLab writes the version of Python there whenever it opens a notebook.
    language = nb.metadata.get("language_info", {})
    clean(nb).metadata.language_info = language
    if not found and (serialize(nb) != text or language.get("name") != "python"):
        found.append(
            "metadata, widgets or layout of the file are not as stored by "
            "`make notebooks` (tools/publish/notebooks.py clean mends it)"
        )
    return [f"{path.name}: {line}" for line in found]


def parameter_problems(nb: NotebookNode) -> list[str]:
    if len(nb.cells) < 2 or "parameters" not in nb.cells[1].metadata.get("tags", []):
        return ["the second cell is not tagged `parameters`"]
    names = re.findall(r"^(\w+)(?:: *[^=]+)? *=", nb.cells[1].source, re.MULTILINE)
    found = []
    if names[:2] != ["SEED", "DATASET"]:
        found.append(f"the parameters begin with {names[:2]}, not SEED and DATASET")
    small = [name for name in names if name != name.upper()]
    return found + [f"the parameter {name} is not in capitals" for name in small]


def cell_problems(cell: NotebookNode) -> list[str]:
    found = [f"names a path of a machine: {p}" for p in machine_paths(cell.source)]
    if cell.cell_type != "code":
        return found
    lines = cell.source.splitlines()
    if not cell.source.strip():
        found.append("is empty")
    if len(lines) > CELL_LINES:
        found.append(f"has {len(lines)} lines, over {CELL_LINES}")
    if max(map(len, lines), default=0) > CELL_COLUMNS:
        found.append(f"has a line of {max(map(len, lines))} columns")
    for output in cell.outputs:
        found += output_problems(output)
    return found


def output_problems(output: NotebookNode) -> list[str]:
    if output.output_type == "error":
        return [f"stores an error: {output.ename}: {output.evalue}"]
    if output.output_type == "stream":
        found = [f"prints a path of a machine: {p}" for p in machine_paths(output.text)]
        if output.name == "stderr":
            found.append(f"stores stderr: {output.text[:80]!r}")
        if "\r" in output.text:
            found.append("stores a progress line")
        return found
    found = [f"stores {mime}" for mime in output.data if mime not in SHOWN]
    text = output.data.get("text/plain", "")
    found += [f"shows a path of a machine: {p}" for p in machine_paths(text)]
    if "%|" in text:
        found.append("stores a progress bar")
    if "image/png" in output.data:
        size = len(output.data["image/png"]) * 3 // 4
        if size > IMAGE_BYTES:
            found.append(f"stores a picture of {size:,} bytes, over {IMAGE_BYTES:,}")
        if len(text.strip()) < 20 or text.startswith("<"):
            found.append(f"has a picture without a text that describes it: {text!r}")
    return found


def machine_paths(text: str) -> list[str]:
    return [match[0] for match in MACHINE_PATH.finditer(text)]


def prints_ok(cell: NotebookNode) -> bool:
    text = "".join(out.text for out in cell.outputs if out.output_type == "stream")
    return any(line.startswith("ok:") for line in text.splitlines())


def store(number: str) -> list[str]:
    """Run the lessons in place and clean them; return what is still wrong."""
    found = []
    for path in lessons(number):
        before = path.read_text(encoding="utf-8")
        nb = read(path)
        seconds = run(nb, path.name)
        write(clean(nb), path)
        same = path.read_text(encoding="utf-8") == before
        print(f"{path.name}: {seconds:.0f} s, {'unchanged' if same else 'stored anew'}")
        found += problems(path)
    return found


def clean_only(number: str) -> list[str]:
    """Clean the stored lessons without running them; return what is still wrong."""
    found = []
    for path in lessons(number):
        write(clean(read(path)), path)
        found += problems(path)
    return found


PAGE = """\
{% extends "lab/index.html.j2" %}
{% block html_head_js %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block html_head_js_mathjax %}
<script>
MathJax = {tex: {inlineMath: [["$", "$"], ["\\\\(", "\\\\)"]], processEscapes: true}};
</script>
<script src="{{ resources.mathjax_url }}" defer></script>
{% endblock %}
{% block data_png scoped %}
<div class="jp-RenderedImage jp-OutputArea-output">
<img src="data:image/png;base64,{{ output.data["image/png"] }}"
 alt="{{ output.data["text/plain"] | escape_html }}">
</div>
{% endblock %}
"""


def pages(number: str, target: Path) -> None:
    """Run copies of the lessons and write them as web pages with an index."""
    from jinja2 import DictLoader
    from nbconvert import HTMLExporter

    target.mkdir(parents=True, exist_ok=True)
    exporter = HTMLExporter(
        extra_loaders=[DictLoader({"page.html.j2": PAGE})],
        template_file="page.html.j2",
        mathjax_url=mathjax(target),
        embed_images=True,
    )
    entries = []
    for path in lessons(number):
        nb = read(path)
        seconds = run(nb, path.name)
        title, question = heading(clean(nb))
        nb.metadata["title"] = title
        resources = {"metadata": {"name": path.stem, "path": str(FOLDER)}}
        page, _ = exporter.from_notebook_node(nb, resources=resources)
        page = re.sub(r'href="([\w-]+)\.ipynb(#[^"]*)?"', r'href="\1.html\2"', page)
        name = path.with_suffix(".html").name
        (target / name).write_text(page, encoding="utf-8")
        entries.append((name, title, question))
        print(f"{name}: {seconds:.0f} s", flush=True)
    (target / "index.html").write_text(index(entries), encoding="utf-8")
    print(f"\nOpen {target / 'index.html'} in a browser.")


def mathjax(target: Path) -> str:
    """Copy MathJax beside the pages and return its address there.

    Without the package that holds it the pages fetch it from its public address.
    """
    package = importlib.util.find_spec("sphinx-mathjax-offline")
    if package is None or package.origin is None:
        print("sphinx-mathjax-offline is not installed: formulas will need a network.")
        return "https://cdn.jsdelivr.net/npm/mathjax@3.2.2/es5/tex-svg.js"
    shutil.copy(Path(package.origin).parent / "static/mathjax/tex-svg.js", target)
    return "tex-svg.js"


def heading(nb: NotebookNode) -> tuple[str, str]:
    """Return the first heading and the first paragraph under it, as plain text."""
    text = next((c.source for c in nb.cells if c.cell_type == "markdown"), "")
    title, _, rest = text.partition("\n")
    paragraph = next((p for p in rest.split("\n\n") if p.strip()), "")
    return plain(title.lstrip("# ")), plain(paragraph)


def plain(markdown: str) -> str:
    return " ".join(re.sub(r"\[([^]]*)\]\([^)]*\)|[*_`#>]", r"\1", markdown).split())


def index(entries: list[tuple[str, str, str]]) -> str:
    rows = "\n".join(
        f'<li><a href="{name}">{html.escape(title)}</a><br>{html.escape(question)}</li>'
        for name, title, question in entries
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>How machines generate images</title>
<style>
body {{ font: 18px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 3rem auto;
       padding: 0 1rem; color: #222; }}
ul {{ list-style: none; padding: 0; }}
li {{ margin: 0 0 1.2rem; }}
a {{ font-weight: 600; color: #0b5394; }}
</style>
<h1>How machines generate images</h1>
<ul>
{rows}
</ul>
</html>
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["store", "clean", "pages"])
    parser.add_argument("lesson", nargs="?", default="", help="02, say; all without")
    parser.add_argument("--to", type=Path, default=Path("build"))
    args = parser.parse_args()
    try:
        if args.what == "pages":
            pages(args.lesson, args.to)
            return
        found = store(args.lesson) if args.what == "store" else clean_only(args.lesson)
    except Failure as failure:
        sys.exit(str(failure))
    except KeyboardInterrupt:
        sys.exit("\nStopped; the lesson that was running is as it was.")
    if found:
        sys.exit("Stored, but not clean yet:\n" + "\n".join(found))


if __name__ == "__main__":
    main()
