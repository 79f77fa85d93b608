"""The table of claims: what fails under which condition, on a lesson of three cells."""

import json
import re
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
import torch

from gencourse import store, train
from tools.measure import claims
from tools.publish import notebooks

LESSON = [
    "SEED = 0\nSTEPS = 50",
    "import torch\n"
    "w = torch.zeros((), requires_grad=True)\n"
    "optimizer = torch.optim.Adam([w], lr=0.1)\n"
    "for _ in range(STEPS):\n"
    "    optimizer.zero_grad()\n"
    "    (w - 1).square().backward()\n"
    "    optimizer.step()",
    "assert 1 + 1 == 2\n"
    'print("ok: an identity")\n'
    "assert abs(w - 1) < 0.5\n"
    "torch.testing.assert_close(w.item(), 1.0, atol=0.5, rtol=0)\n"
    'print("ok: w was learned | found")',
    'assert SEED == 0\nprint("ok: true of one seed only")',
]


@pytest.fixture
def lesson(tmp_path, monkeypatch):
    """The path of a small lesson; what a condition changes is changed back."""
    monkeypatch.setattr(claims, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)
    monkeypatch.chdir(tmp_path)
    for owner, name in (
        (torch.optim.Adam, "step"),
        (torch.optim.SGD, "step"),
        (train, "fit"),
        (store, "pretrained"),
        (claims.sys, "displayhook"),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    new = nbformat.v4.new_code_cell
    cells = [nbformat.v4.new_markdown_cell("# A lesson"), *map(new, LESSON)]
    cells[1].metadata["tags"] = ["parameters"]
    for cell in cells[3:]:
        lines = [x for x in cell.source.splitlines() if x.startswith("print")]
        text = "".join(line[7:-2] + "\n" for line in lines)
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=text)]
    notebooks.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "09_lesson.ipynb")
    return tmp_path / "09_lesson.ipynb"


def found(path: Path, condition: str) -> list[str]:
    claims.measure(path, condition)
    return list(claims.kept(path, condition)[1].values())


def test_a_seed_is_another_seed(lesson):
    assert found(lesson, "seed 2") == ["", "", "SEED == 0"]


def test_without_learning_only_an_identity_holds(lesson):
    identity, learned, _ = found(lesson, "untrained")
    assert identity == "" and "abs(w - 1) < 0.5; torch.testing.assert_close" in learned


def test_the_table_says_what_fails_and_forgets_another_source(lesson):
    found(lesson, "seed 1")
    claims.measure(lesson, "untrained")
    page = claims.table(lesson)
    assert "| an identity | holds | – | – | holds |" in page
    assert "| w was learned \\| found | holds | – | – | **fails** |" in page
    file, _ = claims.kept(lesson, "untrained")
    changed = json.loads(file.read_text()) | {"source": []}
    file.write_text(json.dumps(changed))
    assert claims.kept(lesson, "untrained")[1] == {}


def test_a_cell_that_stops_reaches_none_of_its_claims(lesson, capsys):
    nb = notebooks.read(lesson)
    nb.cells[3].source = "no_such_name\n" + nb.cells[3].source
    notebooks.write(nb, lesson)
    assert len(found(lesson, "seed 1")) == 1
    assert "no_such_name" in capsys.readouterr().out
    assert "| an identity | **fails** | – |" in claims.table(lesson)


def test_every_claim_has_an_assertion_of_its_own():
    """A failure counts against the next `ok:`, so a claim without one cannot fail."""
    for path in notebooks.lessons():
        for cell in claims.lesson_code(path):
            parts = re.findall(r"assert|print\(\s*f?\"ok:", cell.source)
            for before, part in pairwise(["", *parts]):
                assert "assert" in (before, part), (path.name, cell.id)
