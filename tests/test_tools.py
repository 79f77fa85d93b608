"""What the Makefile calls: set-up, running, cleaning and publishing lessons."""

import os
import re
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import nbformat
import pytest

from tools.publish import notebooks
from tools.setup import lab, setup_env

ROOT = Path(__file__).resolve().parent.parent
Usage = namedtuple("Usage", "total used free")


# --- set-up ---------------------------------------------------------------------------


def test_old_python_is_refused_in_plain_words():
    with pytest.raises(setup_env.Problem, match=r"Python 3\.9\.1 is too old.*3\.11"):
        setup_env.check_version((3, 9, 1))
    setup_env.check_version((3, 11, 0))


@pytest.mark.parametrize("module", ["venv", "ensurepip"])
def test_missing_venv_is_explained(module):
    with pytest.raises(setup_env.Problem, match=rf"`{module}` is missing(.|\n)*-venv"):
        setup_env.check_venv_module(missing=module)


def test_a_full_disk_is_noticed_before(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(9, 8, int(1e9)))
    with pytest.raises(
        setup_env.Problem, match=r"1\.0 GB are free(.|\n)*about 2\.5 GB"
    ):
        setup_env.check_space(tmp_path)
    setup_env.check_space(tmp_path, already=2.0)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("ERROR: [Errno 28] No space left on device", "The disk is full"),
        (
            "Retrying ... NewConnectionError: Temporary failure in name",
            "did not answer",
        ),
        (
            "connection broken by 'ReadTimeoutError'; no matching distribution",
            "network",
        ),
        (
            "ERROR: No matching distribution found for torch==2.13.0",
            "no fitting version",
        ),
        ("error: metadata-generation-failed", "make distclean"),
    ],
)
def test_failures_of_pip_are_explained(words, says):
    assert says in setup_env.explain(words)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder in which `make_venv` makes an empty .venv at once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(setup_env, "NEEDED_GB", 0.0)

    def run(command, **_):
        assert command[1:3] == ["-m", "venv"]
        return subprocess.CompletedProcess(command, 0, b"")

    monkeypatch.setattr(subprocess, "run", run)
    return tmp_path


def test_an_unfinished_set_up_is_redone(folder, capsys):
    setup_env.make_venv()
    assert (folder / ".venv/unfinished").exists()
    (folder / ".venv/half a package").touch()
    setup_env.make_venv()
    assert not (folder / ".venv/half a package").exists()
    assert "was not finished" in capsys.readouterr().out


def test_a_set_up_whose_python_is_gone_is_redone(folder, capsys):
    (folder / ".venv").mkdir()
    (folder / ".venv/ready").touch()
    (folder / ".venv/old").touch()
    setup_env.make_venv()
    assert not (folder / ".venv/old").exists() and not (folder / ".venv/ready").exists()
    assert "is gone" in capsys.readouterr().out


def test_a_strangers_folder_is_left_alone(folder):
    (folder / ".venv").mkdir()
    (folder / ".venv/mine").touch()
    with pytest.raises(setup_env.Problem, match="did not make"):
        setup_env.make_venv()
    assert (folder / ".venv/mine").exists()


@pytest.mark.parametrize("error", [setup_env.Problem("no"), KeyboardInterrupt(), None])
def test_only_a_finished_set_up_is_ready(folder, monkeypatch, error):
    def install(*_):
        if error is not None:
            raise error

    monkeypatch.setattr(setup_env, "install", install)
    monkeypatch.setattr(setup_env, "try_imports", lambda: None)
    monkeypatch.setattr(sys, "argv", ["setup_env.py"])
    if error is None:
        setup_env.main()
        assert (folder / ".venv/ready").read_text() == f"{folder}\n"
    else:
        with pytest.raises(SystemExit) as stopped:
            setup_env.main()
        assert stopped.value.code not in (0, None)
        assert not (folder / ".venv/ready").exists()
    assert (folder / ".venv/unfinished").exists() == (error is not None)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("script", "says"),
    [
        (None, "Python was not found"),
        ("#!/bin/sh\necho 'Python 3.9 is too old' >&2; exit 1\n", "too old"),
    ],
)
def test_make_stops_when_set_up_fails(tmp_path, script, says):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "fake-python"
    if script:
        python.write_text(script)
        python.chmod(0o755)
    done = subprocess.run(
        ["make", f"PYTHON={python}", "lab"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert says in done.stdout + done.stderr
    assert not (tmp_path / ".venv").exists()


def test_the_set_up_can_be_read_by_an_old_python():
    source = (ROOT / "tools/setup/setup_env.py").read_text(encoding="utf-8")
    assert not re.search(r"\bf['\"]|:=|-> |^from __future__", source, re.MULTILINE)
    assert "match " not in source


# --- JupyterLab -----------------------------------------------------------------------


def test_without_a_display_no_browser_is_opened(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert not lab.has_display()


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no root here")
def test_only_root_is_allowed_as_root(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "--allow-root" in lab.command(8888, False, [])
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "--allow-root" not in lab.command(8888, False, [])


def test_lab_opens_the_table_of_contents(monkeypatch, tmp_path):
    monkeypatch.setattr(lab, "ROOT", tmp_path)
    assert lab.first_page() == "/lab"
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks/01_a.ipynb").touch()
    assert lab.first_page() == "/lab/tree/notebooks/01_a.ipynb"
    (tmp_path / "notebooks/00_start_here.ipynb").touch()
    assert lab.first_page() == "/lab/tree/notebooks/00_start_here.ipynb"


# --- notebooks ------------------------------------------------------------------------


@pytest.fixture
def lessons(tmp_path, monkeypatch):
    """A folder with one small lesson, not yet run and not clean."""
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)
    v4 = nbformat.v4
    picture = (
        "from IPython.display import display\nimport base64\n"
        'png = base64.b64decode("iVBORw0KGgo=")\n'
        'text = "A picture of nothing at all."\n'
        f'widget = {{"{notebooks.WIDGET}": {{}}}}\n'
        'display(widget | {"image/png": png, "text/plain": text}, raw=True)'
    )
    nb = v4.new_notebook(
        metadata={
            "kernelspec": {"name": "mine", "display_name": "Mine"},
            "widgets": {},
        },
        cells=[
            v4.new_markdown_cell(
                "# The lesson\n\nWhat is $x$? See [two](02_b.ipynb#c)."
            ),
            v4.new_code_cell(
                'SEED = 0\nDATASET = "faces"',
                metadata={"tags": ["parameters"], "collapsed": True},
            ),
            v4.new_code_cell("print('one')\nprint('two')", execution_count=7),
            v4.new_code_cell(picture),
            v4.new_code_cell(""),
        ],
    )
    nbformat.write(nb, tmp_path / "01_a.ipynb")
    return tmp_path


def test_store_runs_cleans_and_is_stable(lessons, capsys):
    path = lessons / "01_a.ipynb"
    assert notebooks.store("01") == []
    first = path.read_bytes()
    nb = notebooks.read(path)
    assert nb.metadata == notebooks.METADATA
    assert nb.cells[1].metadata == {"tags": ["parameters"]}
    assert [cell.get("execution_count") for cell in nb.cells] == [None, 1, 2, 3]
    assert [output.text for output in nb.cells[2].outputs] == ["one\ntwo\n"]
    assert set(nb.cells[3].outputs[0].data) == {"image/png", "text/plain"}
    assert notebooks.store("01") == []
    assert path.read_bytes() == first
    assert "unchanged" in capsys.readouterr().out
    assert notebooks.clean_only("") == []
    assert path.read_bytes() == first


def test_a_lesson_that_fails_is_left_as_it_was(lessons):
    path = lessons / "01_a.ipynb"
    nb = notebooks.read(path)
    nb.cells[2].source = "raise ValueError('the eighth knob')"
    nbformat.write(nb, path)
    before = path.read_bytes()
    with pytest.raises(notebooks.Failure, match="01_a.ipynb stopped(.|\n)*eighth knob"):
        notebooks.store("01")
    assert path.read_bytes() == before


def test_an_unknown_lesson_is_named(lessons):
    with pytest.raises(notebooks.Failure, match=r"07\*\.ipynb"):
        notebooks.store("07")


def test_pages_need_no_network(lessons, tmp_path):
    pytest.importorskip("nbconvert")
    before = (lessons / "01_a.ipynb").read_bytes()
    notebooks.pages("", tmp_path / "build")
    assert (lessons / "01_a.ipynb").read_bytes() == before
    page = (tmp_path / "build/01_a.html").read_text(encoding="utf-8")
    assert "<title>The lesson</title>" in page
    assert 'href="02_b.html#c"' in page
    assert 'alt="A picture of nothing at all."' in page
    loaded = re.findall(r"""(?:src|import\()\s*=?\s*["']([^"']*)""", page)
    assert [a for a in loaded if not a.startswith("data:")] == ["tex-svg.js"]
    assert (tmp_path / "build/tex-svg.js").stat().st_size > 1_000_000
    start = (tmp_path / "build/index.html").read_text(encoding="utf-8")
    assert '<a href="01_a.html">The lesson</a><br>What is $x$? See two.' in start
