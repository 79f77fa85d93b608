"""What the Makefile calls: set-up, JupyterLab, storing lessons, and how tools fail."""

import ast
import os
import shutil
import subprocess
import sys
import threading
import webbrowser
from pathlib import Path

import nbformat
import pytest

from tools import command
from tools.command import Failure
from tools.publish import notebooks
from tools.setup import lab, setup_env

ROOT = Path(__file__).resolve().parent.parent
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="no make here")


# --- set-up ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "age"),
    [((3, 9, 1), "too old"), ((3, 15, 0), "too new(.|\n)*3.14 is the newest")],
)
def test_an_unsuitable_python_is_refused_with_the_versions_that_work(
    version, age, monkeypatch
):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match=rf"3\.13, and 3\.14(.|\n)*{age}"):
        setup_env.suitable_python(version)
    assert setup_env.suitable_python((3, 11, 0)) == sys.executable


def test_another_python_is_used_where_the_first_is_unsuitable(monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda name: {"python3.12": "other"}.get(name))
    monkeypatch.setattr(setup_env, "works", lambda python: True)
    assert setup_env.suitable_python((3, 15, 0)) == "other"
    assert "3.15" in capsys.readouterr().err
    monkeypatch.setattr(setup_env, "works", lambda python: False)  # a broken link
    with pytest.raises(SystemExit):
        setup_env.suitable_python((3, 15, 0))


def test_the_newest_python_gives_way_unless_it_was_named(monkeypatch):
    monkeypatch.setattr(setup_env, "works", lambda python: True)
    found = {"python3.13": "older"}
    monkeypatch.setattr(shutil, "which", found.get)
    assert setup_env.suitable_python((3, 14, 0)) == "older"
    assert setup_env.suitable_python((3, 14, 0), keep=True) == sys.executable
    assert setup_env.suitable_python((3, 11, 0)) == sys.executable
    found.clear()
    assert setup_env.suitable_python((3, 14, 0)) == sys.executable


@pytest.mark.parametrize(
    ("asked", "platform", "gpu", "reachable", "small"),
    [
        ("", "linux", False, True, True),
        ("", "linux", False, False, False),
        ("", "linux", True, True, False),
        ("", "darwin", False, True, False),
        ("gpu", "linux", False, True, False),
        ("cpu", "linux", True, False, True),
    ],
)
def test_without_a_gpu_linux_gets_the_small_build(
    asked, platform, gpu, reachable, small, monkeypatch
):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(setup_env, "sees_gpu", lambda: gpu)
    monkeypatch.setattr(setup_env, "answers", lambda address: reachable)
    assert setup_env.wants_cpu_build(asked == "cpu", asked == "gpu") == small


def test_a_gpu_is_seen_only_where_its_driver_lists_one(monkeypatch):
    def driver(answer):
        def run(line, **_):
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(subprocess, "check_output", run)
        return setup_env.sees_gpu()

    assert driver(b"GPU 0: NVIDIA T4")
    assert not driver(b"No devices were found")
    assert not driver(FileNotFoundError())
    assert not driver(subprocess.CalledProcessError(9, "nvidia-smi"))


def test_a_server_that_does_not_answer_is_not_waited_for():
    assert not setup_env.answers("http://127.0.0.1:1/")


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("ERROR: [Errno 28] No space left on device", "CPU=1"),
        ("NewConnectionError: Temporary failure in name resolution", "network"),
        (
            "broken by 'ReadTimeoutError: timed out'\nno matching distribution",
            "network",
        ),
        ("ERROR: No matching distribution found for torch==2.13.0", "no suitable"),
        ("error: metadata-generation-failed", "make distclean"),
    ],
)
def test_failures_of_pip_are_explained(output, reason):
    assert reason in setup_env.explain(output)


@pytest.fixture
def set_up(tmp_path, monkeypatch):
    """Return `set_up(pip, venv)`: run the script in an empty folder.

    The statuses and outputs of pip and venv are given; nothing is installed. What was
    called is in `set_up.lines`.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(setup_env, "VERSIONS", (sys.version_info[:2],))
    monkeypatch.setattr(setup_env, "answers", lambda address: True)
    monkeypatch.setattr(setup_env, "sees_gpu", lambda: False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys, "argv", ["setup_env.py"])

    def run(line, **_):
        set_up.lines.append(line)
        Path(".venv/bin").mkdir(parents=True, exist_ok=True)
        return subprocess.CompletedProcess(line, set_up.venv, b"no ensurepip")

    def call(line, **_):
        if line[1] == "-c":
            return int(not set_up.works)
        set_up.lines.append(line)
        Path(setup_env.PIP_LOG).write_text(set_up.log)
        return int(bool(set_up.log))

    def set_up(venv=0, log="", works=False):
        set_up.venv, set_up.log, set_up.works, set_up.lines = venv, log, works, []
        setup_env.main()

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(subprocess, "call", call)
    return set_up


def test_only_a_finished_set_up_is_ready(set_up, tmp_path):
    with pytest.raises(SystemExit, match="network"):
        set_up(log="ConnectionError")
    assert not (tmp_path / ".venv/ready").exists()
    set_up()
    assert (tmp_path / ".venv/ready").read_text() == f"{tmp_path}\n"


def test_the_small_build_is_asked_for_and_can_be_refused(set_up, monkeypatch):
    set_up()
    assert setup_env.CPU_INDEX in set_up.lines[-1]
    monkeypatch.setattr(sys, "argv", ["setup_env.py", "--gpu=1"])
    set_up()
    assert setup_env.CPU_INDEX not in set_up.lines[-1]


def test_a_broken_environment_is_replaced_and_a_working_one_kept(set_up):
    set_up(works=False)
    assert "--clear" in set_up.lines[0]
    set_up(works=True)
    assert "--clear" not in set_up.lines[0]


def test_a_python_without_venv_is_explained(set_up):
    with pytest.raises(SystemExit, match="no ensurepip(.|\n)*install python3-venv"):
        set_up(venv=1)


def test_ctrl_c_ends_the_set_up_with_advice(set_up, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(setup_env, "install", stopped)
    with pytest.raises(SystemExit, match="same command again"):
        set_up()


@needs_make
@pytest.mark.parametrize(
    ("script", "message"),
    [
        (None, "was not found"),
        ("#!/bin/sh\necho 'Python 3.9 is too old' >&2; exit 1\n", "too old"),
    ],
)
def test_make_stops_when_set_up_fails(tmp_path, script, message):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "a python"
    if script:
        python.write_text(script)
        python.chmod(0o755)
    line = ["make", f"PYTHON={python}", "lab"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
    assert not (tmp_path / ".venv").exists()


@needs_make
def test_lessons_are_tested_even_if_a_unit_test_fails(tmp_path):
    """A stand-in for Python fails in the unit tests and writes down its arguments."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/log\ntest "$3" != tests\n')
    python.chmod(0o755)
    (tmp_path / ".venv/ready").write_text(f"{tmp_path}\n")
    done = subprocess.run(["make", "test"], cwd=tmp_path, capture_output=True)
    assert done.returncode != 0
    log = (tmp_path / "log").read_text()
    assert "-m pytest tests" in log and "--nbval" in log


def test_an_old_python_can_read_the_set_up():
    source = (ROOT / "tools/setup/setup_env.py").read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 6))


# --- JupyterLab -----------------------------------------------------------------------


def test_without_a_display_no_browser_is_opened(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert not lab.has_display()


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no root here")
def test_only_root_is_allowed_as_root(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "--allow-root" in lab.command(8888, [])
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "--allow-root" not in lab.command(8888, [])


def test_lab_opens_the_table_of_contents(monkeypatch, tmp_path):
    monkeypatch.setattr(lab, "ROOT", tmp_path)
    assert lab.first_page() == "/lab"
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks/00_start_here.ipynb").touch()
    (tmp_path / "notebooks/01_a.ipynb").touch()
    assert lab.first_page() == "/lab/tree/notebooks/00_start_here.ipynb"


def test_the_lab_opens_the_edition_in_another_language(tmp_path, monkeypatch):
    folder = tmp_path / "build/zh_CN/notebooks"
    folder.mkdir(parents=True)
    (folder / "00_start_here.ipynb").touch()
    monkeypatch.setattr(lab, "ROOT", tmp_path)
    monkeypatch.setenv("GENCOURSE_LANG", "zh_CN")
    assert lab.first_page() == "/lab/tree/build/zh_CN/notebooks/00_start_here.ipynb"


def test_no_command_line_shows_the_token(monkeypatch, tmp_path):
    """Other users see command lines: JupyterLab's, and that of the browser."""
    lines, opened = [], threading.Event()

    class Server:
        def __init__(self, line, **_):
            lines.append(" ".join(line))

        def wait(self):
            assert opened.wait(60)
            self.page = lab.REDIRECT.read_text(encoding="utf-8")
            assert os.name == "nt" or lab.REDIRECT.stat().st_mode & 0o077 == 0
            lines.append(self.page.count("token=0123abc") == 1)

    def browse(address):
        lines.append(address)
        opened.set()

    monkeypatch.setattr(sys, "argv", ["lab.py"])
    monkeypatch.setattr(lab, "REDIRECT", tmp_path / "build/page.html")
    monkeypatch.setattr(lab, "has_display", lambda: True)
    monkeypatch.setattr(lab, "wait_until_open", lambda port, server: None)
    monkeypatch.setattr(lab.secrets, "token_hex", lambda n: "0123abc")
    monkeypatch.setattr(lab.signal, "signal", lambda *_: None)
    monkeypatch.setattr(subprocess, "Popen", Server)
    monkeypatch.setattr(webbrowser, "open", browse)
    monkeypatch.setenv("JUPYTER_TOKEN", "")
    lab.main()
    server, browser, redirected = lines
    assert redirected and "0123abc" not in server + browser
    assert "open_browser=True" not in server
    assert os.environ["JUPYTER_TOKEN"] == "0123abc"
    assert not lab.REDIRECT.exists()


# --- how tools run --------------------------------------------------------------------


@pytest.mark.parametrize("error", [Failure("no"), OSError("no"), KeyboardInterrupt()])
def test_a_tool_that_fails_says_why_without_a_traceback(error):
    def work():
        raise error

    with pytest.raises(SystemExit) as stopped:
        command.run(work)
    assert stopped.value.code in ("no", "") or "Stopped" in stopped.value.code


BOOKS = "B\u00fccher \u56fe"  # a folder that a terminal may not be able to show


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", b"B?cher ?"), ("cp1252", b"B\xfccher ?")]
)
def test_a_terminal_that_cannot_show_a_character_ends_no_tool(encoding, shown):
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"from tools import command; command.run(lambda: print({BOOKS!r}))",
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout


def test_every_tool_runs_so():
    for path in ROOT.glob("tools/*/*.py"):
        source = path.read_text(encoding="utf-8")
        if '"__main__"' in source and path.parent.name != "setup":
            assert "    command.run(" in source, path


def test_a_terminal_that_cannot_show_a_path_does_not_end_the_set_up():
    code = (
        "import shutil, sys; from tools.setup import setup_env\n"
        f"sys.executable, shutil.which = {BOOKS!r}, lambda name: {BOOKS!r}\n"
        "setup_env.works = lambda python: True\n"
        "setup_env.suitable_python((3, 15, 0))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert b"3.15" in done.stderr


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    target = tmp_path / "new/page.html"
    command.write("old", target)

    def fail(*_):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="no space left"):
            command.write("new", target)
    assert [path.read_text() for path in target.parent.iterdir()] == ["old"]
    command.write("new", target)
    assert [path.read_text() for path in target.parent.iterdir()] == ["new"]


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
            v4.new_markdown_cell("# The lesson\n\nWhat is $x$? See two."),
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
    assert notebooks.store("", rerun=False) == []
    assert path.read_bytes() == first


def test_a_lesson_that_fails_is_left_as_it_was(lessons):
    path = lessons / "01_a.ipynb"
    nb = notebooks.read(path)
    nb.cells[2].source = "raise ValueError('the eighth knob')"
    nbformat.write(nb, path)
    before = path.read_bytes()
    with pytest.raises(Failure, match="01_a.ipynb stopped(.|\n)*eighth knob"):
        notebooks.store("01")
    assert path.read_bytes() == before


def test_an_appendix_has_a_number_of_its_own(lessons):
    (lessons / "01b_appendix.ipynb").touch()
    assert [path.stem for path in notebooks.lessons("01", lessons)] == ["01_a"]
    assert [path.stem for path in notebooks.lessons("01b", lessons)] == ["01b_appendix"]
    assert len(notebooks.lessons("", lessons)) == 2


def test_an_unknown_lesson_is_named(lessons):
    with pytest.raises(Failure, match=r"07_\*\.ipynb"):
        notebooks.store("07")
