"""Stored notebooks are clean; that their outputs are true, `make lessons` checks."""

import re
from pathlib import Path

import nbformat
import pytest

from tools.publish import notebooks

ROOT = Path(__file__).resolve().parent.parent
STORED = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_there_are_lessons():
    assert [path for path in STORED if re.match(r"0[1-9]_", path.name)]


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_stored_notebook_is_clean(path):
    assert notebooks.problems(path) == []


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_links_lead_somewhere(path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", cell.source):
                assert (path.parent / link).exists(), f"a cell links to {link}"


def test_sanitize_file_is_read_by_nbval():
    plugin = pytest.importorskip("nbval.plugin")
    text = (ROOT / "tests/sanitize.cfg").read_text(encoding="utf-8")
    patterns = plugin.get_sanitize_patterns(text)
    assert len(patterns) == text.count("regex:") >= 1
    for regex, replacement in patterns:
        assert re.sub(regex, replacement, "took 1.5 s") == "took TIME"
        assert re.sub(regex, replacement, "1.5 nats, 3 seeds") == "1.5 nats, 3 seeds"


# --- the checker itself ---------------------------------------------------------------

PNG = "iVBORw0KGgo="
ALT = "A line that rises from one to three."


def good_notebook() -> nbformat.NotebookNode:
    v4 = nbformat.v4
    picture = v4.new_output("execute_result", {"image/png": PNG, "text/plain": ALT})
    picture.execution_count = 3
    nb = v4.new_notebook(
        cells=[
            v4.new_markdown_cell("# A lesson"),
            code('SEED = 0\nDATASET = "faces"\nEPOCHS: int = 3', tags=["parameters"]),
            code("train()", "loss 0.123\n", tags=["nbval-ignore-output"]),
            code("picture()", picture),
            code("check()", "ok: the loss fell\n"),
        ]
    )
    nb.cells[2], nb.cells[3] = nb.cells[3], nb.cells[2]
    number(nb)
    return notebooks.clean(nb)


def code(source, *outputs, tags=()):
    cell = nbformat.v4.new_code_cell(source)
    if tags:
        cell.metadata["tags"] = list(tags)
    for output in outputs:
        if isinstance(output, str):
            output = nbformat.v4.new_output("stream", name="stdout", text=output)
        cell.outputs.append(output)
    return cell


def number(nb):
    cells = [cell for cell in nb.cells if cell.cell_type == "code"]
    for count, cell in enumerate(cells, 1):
        cell.execution_count = count
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = count


def problems(nb, tmp_path, name="01_lesson.ipynb") -> list[str]:
    path = tmp_path / name
    notebooks.write(nb, path)
    return notebooks.problems(path)


def test_a_good_notebook_passes(tmp_path):
    assert problems(good_notebook(), tmp_path) == []


def test_opening_a_notebook_leaves_it_clean(tmp_path):
    nb = good_notebook()
    nb.metadata.language_info.update(version="3.12.1", nbconvert_exporter="python")
    assert problems(nb, tmp_path) == []


def picture_of(nb):
    return nb.cells[2].outputs[0]


def swap_counts(nb):
    nb.cells[1].execution_count, nb.cells[2].execution_count = 2, 1


def store_error(nb):
    error = nbformat.v4.new_output("error", ename="ValueError", evalue="no")
    nb.cells[4].outputs.append(error)


def store_stderr(nb):
    warning = nbformat.v4.new_output("stream", name="stderr", text="a warning\n")
    nb.cells[4].outputs.append(warning)


BAD = {
    "execution counts are": swap_counts,
    "not 1 to 4": lambda nb: nb.cells[4].update(execution_count=None),
    "stores an error": store_error,
    "stores stderr": store_stderr,
    "stores image/svg": lambda nb: picture_of(nb).data.update(
        {"image/svg+xml": "<svg/>"}
    ),
    "stores text/html": lambda nb: picture_of(nb).data.update({"text/html": "<table>"}),
    "stores application/vnd": lambda nb: picture_of(nb).data.update(
        {notebooks.WIDGET: {"model_id": "1"}}
    ),
    "without a text": lambda nb: picture_of(nb).data.update({"text/plain": "a plot"}),
    "without a text that describes": lambda nb: picture_of(nb).data.update(
        {"text/plain": "<Figure size 640x480 with 1 Axes>"}
    ),
    "stores a picture of": lambda nb: picture_of(nb).data.update(
        {"image/png": "A" * 1_400_000}
    ),
    "the file has": lambda nb: nb.cells[0].update(source="A" * 2_000_001),
    "stores a progress bar": lambda nb: picture_of(nb).data.update(
        {"text/plain": "  0%|          | 0/3 [00:00<?, ?it/s]"}
    ),
    "stores a progress line": lambda nb: nb.cells[4].outputs[0].update(text="ok: 1\r2"),
    "by `make notebooks`": lambda nb: nb.metadata.update(widgets={"state": {}}),
    "metadata, widgets or": lambda nb: nb.cells[1].metadata.update(
        execution={"iopub.status.busy": "now"}
    ),
    "layout of the file": lambda nb: nb.metadata.kernelspec.update(name="mine"),
    "not tagged `parameters`": lambda nb: nb.cells[1].metadata.update(tags=[]),
    "begin with ['DATASET', 'SEED']": lambda nb: nb.cells[1].update(
        source='DATASET = "faces"\nSEED = 0'
    ),
    "epochs is not in capitals": lambda nb: nb.cells[1].update(
        source='SEED = 0\nDATASET = "faces"\nepochs = 3'
    ),
    "has 21 lines": lambda nb: nb.cells[4].update(source="\n".join(["x = 1"] * 21)),
    "has a line of 89 columns": lambda nb: nb.cells[4].update(source="x" * 89),
    "is empty": lambda nb: nb.cells[4].update(source=""),
    "names a path": lambda nb: nb.cells[4].update(source="open('/" + "home/me/x')"),
    "names a path of": lambda nb: nb.cells[0].update(source="# See C:" + "\\data"),
    "prints a path": lambda nb: nb.cells[4].outputs[0].update(text="ok: /" + "tmp/x\n"),
    "no line that begins with 'ok:'": lambda nb: (
        nb.cells[4].outputs[0].update(text="ok")
    ),
    "the next code cell prints": lambda nb: nb.cells[4].metadata.update(
        tags=["nbval-ignore-output"]
    ),
}


@pytest.mark.parametrize("says", BAD)
def test_the_checker_finds(says, tmp_path):
    nb = good_notebook()
    BAD[says](nb)
    found = problems(nb, tmp_path)
    assert any(says in line for line in found), found


def test_the_start_page_needs_no_parameters(tmp_path):
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Start")])
    nb = notebooks.clean(nb)
    assert problems(nb, tmp_path, "00_start_here.ipynb") == []
    assert problems(nb, tmp_path, "01_lesson.ipynb")
