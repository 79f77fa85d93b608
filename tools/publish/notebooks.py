"""Run, clean and check the lessons. Called by the Makefile.

python -m tools.publish.notebooks store [02]   run in place, clean, check
python -m tools.publish.notebooks clean [02]   clean and check without running
"""

import re
import time
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from tools import command
from tools.command import Failure

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


# --- reading and writing --------------------------------------------------------------


def lessons(number: str = "", folder: Path | None = None) -> list[Path]:
    """Return the notebooks of a folder in order, or the one with this number.

    A letter after the number, as in 03b, marks an appendix.
    """
    folder = folder or FOLDER
    pattern = f"{number}_*.ipynb" if number else "*.ipynb"
    paths = sorted(folder.glob(pattern))
    if not paths:
        raise Failure(f"There is no notebook {folder / pattern}")
    return paths


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def serialize(nb: NotebookNode) -> str:
    """Return the text of the file, the same on every machine."""
    return nbformat.writes(nb, version=4).rstrip("\n") + "\n"


def write(nb: NotebookNode, path: Path) -> None:
    command.write(serialize(nb), path)


def tags(cell: NotebookNode) -> set[str]:
    return set(cell.metadata.get("tags", []))


def printed(cell: NotebookNode) -> str:
    """Return what a code cell printed."""
    return "".join(out.text for out in cell.outputs if out.output_type == "stream")


def heading(nb: NotebookNode) -> tuple[str, str]:
    """Return the first heading and the first paragraph under it, as plain text."""
    text = next((c.source for c in nb.cells if c.cell_type == "markdown"), "")
    title, _, rest = text.partition("\n")
    paragraph = next((p for p in rest.split("\n\n") if p.strip()), "")
    return plain(title.lstrip("# ")), plain(paragraph)


def headings(nb: NotebookNode) -> Iterator[str]:
    """Yield the texts of all headings, without the characters of Markdown."""
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            outside = re.sub(r"^```.*?^```", "", cell.source, flags=re.M | re.S)
            for text in re.findall(r"^#+ +(.+?) *$", outside, re.M):
                yield re.sub(r"[`*]", "", text)


def slug(heading: str) -> str:
    """Return the anchor that the site gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def plain(markdown: str) -> str:
    return " ".join(re.sub(r"\[([^]]*)\]\([^)]*\)|[*_`#>]", r"\1", markdown).split())


# --- running and cleaning -------------------------------------------------------------


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
    """Remove in place what does not belong to the lesson; return the notebook.

    Tags stay; all other metadata, widgets and empty cells at the end go. Pieces of one
    stream are joined. Solutions are folded, and so is the result of an experiment that
    a learner should predict first.
    """
    nb.metadata = nbformat.from_dict(METADATA)
    nb.nbformat, nb.nbformat_minor = 4, 5
    while nb.cells and not nb.cells[-1].source.strip():
        nb.cells.pop()
    for cell in nb.cells:
        kept = {key: cell.metadata[key] for key in CELL_METADATA & cell.metadata.keys()}
        folded = FOLDED & tags(cell)
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
    """Return what keeps a stored notebook from being clean, one line per problem."""
    text = path.read_text(encoding="utf-8")
    nb = nbformat.reads(text, as_version=4)
    faults = []
    if len(text.encode()) > FILE_BYTES:
        faults.append(f"the file has {len(text.encode()):,} bytes, over {FILE_BYTES:,}")
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    counts = [cell.execution_count for cell in code]
    if counts != list(range(1, len(code) + 1)):
        faults.append(f"execution counts are {counts}, not 1 to {len(code)}")
    if not path.name.startswith("00_"):
        faults += parameter_problems(nb)
    for number, cell in enumerate(nb.cells, 1):
        for line in cell_problems(cell):
            faults.append(f"cell {number}: {line}")
    for cell, after in zip_longest(code, code[1:]):
        if "nbval-ignore-output" in tags(cell):
            if after is None or not re.search("^ok:", printed(after), re.M):
                faults.append(
                    f"cell [{cell.execution_count}] is tagged nbval-ignore-output, but "
                    "the next code cell prints no line that begins with 'ok:'"
                )
    # JupyterLab writes the version of Python there whenever it opens a notebook.
    language = nb.metadata.get("language_info", {})
    clean(nb).metadata.language_info = language
    if not faults and (serialize(nb) != text or language.get("name") != "python"):
        faults.append(
            "metadata, widgets or layout of the file are not as stored by "
            "`make notebooks`; python -m tools.publish.notebooks clean repairs it"
        )
    return [f"{path.name}: {line}" for line in faults]


def parameter_problems(nb: NotebookNode) -> list[str]:
    if len(nb.cells) < 2 or "parameters" not in tags(nb.cells[1]):
        return ["the second cell is not tagged `parameters`"]
    names = re.findall(r"^(\w+)(?:: *[^=]+)? *=", nb.cells[1].source, re.MULTILINE)
    faults = []
    if names[:2] != ["SEED", "DATASET"]:
        faults.append(f"the parameters begin with {names[:2]}, not SEED and DATASET")
    small = [name for name in names if name != name.upper()]
    return faults + [f"the parameter {name} is not in capitals" for name in small]


def cell_problems(cell: NotebookNode) -> list[str]:
    faults = [f"names a path of a machine: {p}" for p in machine_paths(cell.source)]
    if cell.cell_type != "code":
        return faults
    lines = cell.source.splitlines()
    if not cell.source.strip():
        faults.append("is empty")
    if len(lines) > CELL_LINES:
        faults.append(f"has {len(lines)} lines, over {CELL_LINES}")
    if max(map(len, lines), default=0) > CELL_COLUMNS:
        faults.append(f"has a line of {max(map(len, lines))} columns")
    for output in cell.outputs:
        faults += output_problems(output)
    return faults


def output_problems(output: NotebookNode) -> list[str]:
    if output.output_type == "error":
        return [f"stores an error: {output.ename}: {output.evalue}"]
    if output.output_type == "stream":
        faults = [
            f"prints a path of a machine: {p}" for p in machine_paths(output.text)
        ]
        if output.name == "stderr":
            faults.append(f"stores stderr: {output.text[:80]!r}")
        if "\r" in output.text:
            faults.append("stores a progress line")
        return faults
    faults = [f"stores {mime}" for mime in output.data if mime not in SHOWN]
    text = output.data.get("text/plain", "")
    faults += [f"shows a path of a machine: {p}" for p in machine_paths(text)]
    if "%|" in text:
        faults.append("stores a progress bar")
    if "image/png" in output.data:
        size = len(output.data["image/png"]) * 3 // 4
        if size > IMAGE_BYTES:
            faults.append(f"stores a picture of {size:,} bytes, over {IMAGE_BYTES:,}")
        if len(text.strip()) < 20 or text.startswith("<"):
            faults.append(f"has a picture without a text that describes it: {text!r}")
    return faults


def machine_paths(text: str) -> list[str]:
    return [match[0] for match in MACHINE_PATH.finditer(text)]


def store(number: str, rerun: bool = True) -> list[str]:
    """Run the lessons in place and clean them; return what is still wrong."""
    faults = []
    for path in lessons(number):
        before = path.read_text(encoding="utf-8")
        nb = read(path)
        seconds = f"{run(nb, path.name):.0f} s, " if rerun else ""
        write(clean(nb), path)
        same = path.read_text(encoding="utf-8") == before
        print(f"{path.name}: {seconds}{'unchanged' if same else 'changed'}", flush=True)
        faults += problems(path)
    return faults


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("what", choices=["store", "clean"])
    parser.add_argument("lesson", nargs="?", default="", help="02, say; default: all")
    args = parser.parse_args()
    faults = store(args.lesson, rerun=args.what == "store")
    if faults:
        raise Failure("Stored, but not clean yet:\n" + "\n".join(faults))


if __name__ == "__main__":
    command.run(main)
