"""Every lesson in JupyterLab, four at once: run all, move a slider, do an exercise."""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
# The longest first: they are the ones that should meet.
LESSONS = sorted((path.stem for path in ROOT.glob("notebooks/*.ipynb")), reverse=True)
AT_ONCE = 4
HANGS = 3_600_000  # ms; no lesson needs them, they only end one that hangs
RUN_ALL = """() => {
  const start = performance.now();
  jupyterapp.commands.execute("notebook:run-all-cells").then((succeeded) => {
    window.ran = { succeeded, seconds: (performance.now() - start) / 1000 };
  });
}"""
SETTINGS = {
    # Every cell is in the page at once, not only those in view.
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
    },
}
by_lesson = pytest.mark.parametrize("lesson", LESSONS)


def copy_course(target):
    """Copy the lessons without execution counts: a count shows that a cell has run."""
    shutil.copytree(ROOT / "notebooks/figures", target / "figures")
    for lesson in LESSONS:
        text = (ROOT / f"notebooks/{lesson}.ipynb").read_text(encoding="utf-8")
        text = re.sub(r'"execution_count": \d+', '"execution_count": null', text)
        (target / f"{lesson}.ipynb").write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Return `url(path)`: the address of a path in a JupyterLab for the lessons."""
    folder = tmp_path_factory.mktemp("lab")
    copy_course(folder / "notebooks")
    for name, values in SETTINGS.items():
        file = folder / f"settings/{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    names = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    }
    folders = {name: str(folder / path) for name, path in names.items()}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += ["--ip=127.0.0.1", f"--port={port}", "--LabApp.expose_app_in_browser=1"]
    command += [f"--ServerApp.root_dir={folder / 'notebooks'}"]
    environment = os.environ | folders | {"JUPYTER_TOKEN": token}
    log = folder / "log.txt"
    with open(log, "w") as output:
        server = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output
        )

    def url(path):
        return f"http://127.0.0.1:{port}/{path}?token={token}"

    try:
        while True:
            try:
                urllib.request.urlopen(url("api")).close()
                break
            except OSError:
                assert server.poll() is None, log.read_text()
                time.sleep(0.2)
        yield url
    finally:
        server.terminate()
        server.wait()


def peak_memory(kernel):
    """The most memory that a kernel has had, in MiB; None where Linux does not tell."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if kernel in (process / "cmdline").read_text():
                status = (process / "status").read_text()
                return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) // 1024
        except OSError:  # it has ended, or is not ours
            continue


@pytest.fixture(scope="module")
def pages(lab, open_shared_page):
    """The lessons after Run All Cells: a page of JupyterLab for each."""
    pages = {}
    for first in range(0, len(LESSONS), AT_ONCE):
        together = LESSONS[first : first + AT_ONCE]
        for lesson in together:
            address = lab(f"lab/workspaces/{lesson}/tree/{lesson}.ipynb")
            page = open_shared_page(address, viewport={"width": 1400, "height": 1000})
            page.get_by_text("(ipykernel) | Idle").wait_for()
            pages[lesson] = page
        for lesson in together:
            pages[lesson].evaluate(RUN_ALL)
        for lesson in together:
            pages[lesson].wait_for_function("window.ran", timeout=HANGS, polling=1000)
    return pages


def shown(page, kind):
    """The texts of all outputs of a kind."""
    return page.locator(f'[data-mime-type="{kind}"]').all_text_contents()


@by_lesson
def test_a_lesson_runs_and_is_right(lesson, pages):
    page = pages[lesson]
    assert shown(page, "application/vnd.jupyter.error") == []
    assert shown(page, "application/vnd.jupyter.stderr") == []
    assert page.evaluate("ran.succeeded")
    nb = nbformat.read(ROOT / f"notebooks/{lesson}.ipynb", as_version=4)
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    claims = [
        line
        for cell in code
        for output in cell.outputs
        for line in output.get("text", "").splitlines()
        if line.startswith("ok:")
    ]
    lines = "\n".join(shown(page, "application/vnd.jupyter.stdout")).splitlines()
    assert [line for line in lines if line.startswith("ok:")] == claims
    folded = ["solution" in cell.metadata.get("tags", []) for cell in code]
    assert page.locator(".jp-InputPlaceholder").count() == sum(folded)
    counts = page.locator(".jp-CodeCell .jp-InputPrompt").all_text_contents()
    in_order = [f"[{n}]:" for n, is_folded in enumerate(folded, 1) if not is_folded]
    assert [count for count in counts if count] == in_order


@by_lesson
def test_run_all_gives_no_answer_away(lesson, pages):
    page = pages[lesson]
    nb = nbformat.read(ROOT / f"notebooks/{lesson}.ipynb", as_version=4)
    answers = [
        output.data["text/plain"]
        for cell in nb.cells
        if {"solution", "reveal"} & set(cell.metadata.get("tags", []))
        for output in cell.outputs
    ]
    folds = page.locator(".jp-OutputArea details")
    if answers:
        folds.nth(len(answers) - 1).wait_for()
    assert folds.count() == len(answers)

    def visible():
        return " ".join(page.locator(".jp-Notebook").inner_text().split())

    before = visible()
    assert [text for text in answers if " ".join(text.split()) in before] == []
    assert not any(fold.is_visible() for fold in folds.locator("pre, img").all())
    for fold, text in zip(folds.all(), answers, strict=True):  # until it is asked for
        fold.locator("summary").click()
        fold.locator("pre, img").wait_for()
        alt = fold.locator("img")
        seen = alt.get_attribute("alt") if alt.count() else visible()
        assert " ".join(text.split()) in seen


def test_four_lessons_at_once_stay_within_memory(pages, lab, capsys):
    with urllib.request.urlopen(lab("api/sessions")) as answer:
        kernels = {Path(s["path"]).stem: s["kernel"]["id"] for s in json.load(answer)}
    memory = {lesson: peak_memory(kernels[lesson]) for lesson in pages}
    with capsys.disabled():
        print(f"\nJupyterLab, {AT_ONCE} lessons at once:")
        for lesson, page in pages.items():
            seconds = page.evaluate("ran.seconds")
            print(f"  {lesson}: {seconds:.0f} s, at most {memory[lesson]} MiB")
    # The libraries for a GPU alone take gigabytes.
    assert torch.cuda.is_available() or max(filter(None, memory.values())) < 2048


def test_a_slider_draws_another_picture(pages):
    moved = 0
    for lesson, page in pages.items():
        nb = (ROOT / f"notebooks/{lesson}.ipynb").read_text(encoding="utf-8")
        panels = page.locator(".jp-OutputArea-output:has(.widget-slider)")
        assert panels.count() == nb.count("plot.explorer(")
        for panel in panels.all():
            before = panel.locator("img").first.get_attribute("src")
            handle = panel.locator(".noUi-handle").first
            handle.scroll_into_view_if_needed()
            handle.focus()
            for _ in range(12):
                handle.press("ArrowRight")
            page.wait_for_function(
                """([panel, before]) => panel.querySelector("pre")
                || panel.querySelector("img").src !== before""",
                arg=[panel.element_handle(), before],
            )
            assert panel.locator("pre").all_text_contents() == [], lesson
            moved += 1
    assert moved


def test_an_answer_is_judged(pages):
    """Type over the starter of exercise 3.3 and run it: wrong, then right."""
    page = pages["03_vae"]
    cell = page.locator('.jp-CodeCell:has-text("checks.check(\\"3.3\\"")').first
    formula = "0.5 * (mu**2 + logvar.exp() - 1 - logvar)"
    for reduction, verdict in ((".sum()", "batch"), (".sum(1)", "right.")):
        cell.locator(".cm-content").click()
        page.keyboard.press("Control+a")
        page.keyboard.insert_text(
            f"def kl_to_prior(mu, logvar):\n    return {formula}{reduction}\n\n\n"
            'checks.check("3.3", kl_to_prior)'
        )
        page.keyboard.press("Control+Enter")
        cell.locator(".jp-OutputArea-output", has_text=verdict).wait_for()
