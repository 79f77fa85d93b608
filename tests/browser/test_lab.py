"""Every lesson in JupyterLab: run all cells, move a slider, answer an exercise."""

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

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
LESSONS = sorted(ROOT.glob("notebooks/*.ipynb"))
SECONDS = 600
IDLE = (
    "document.querySelector('.jp-Notebook-ExecutionIndicator')"
    "?.dataset?.status === 'idle'"
)
PROMPTS = (
    "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')]"
    ".map(e => e.textContent)"
)
SETTINGS = {
    # Every cell is in the page at once, not only those in view.
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
    },
}


@pytest.fixture
def lab(tmp_path):
    """Return the address of a JupyterLab on a copy of the lessons."""
    course = tmp_path / "notebooks"
    shutil.copytree(
        ROOT / "notebooks", course, ignore=shutil.ignore_patterns(".ipynb_checkpoints")
    )
    for path in course.glob("*.ipynb"):  # so that a number tells that a cell has run
        text = path.read_text(encoding="utf-8")
        text = re.sub(r'"execution_count": \d+', '"execution_count": null', text)
        path.write_text(text, encoding="utf-8")
    for name, values in SETTINGS.items():
        file = tmp_path / f"settings/{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(8)
    settings = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    }
    folders = {name: str(tmp_path / folder) for name, folder in settings.items()}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += ["--ip=127.0.0.1", f"--port={port}", f"--ServerApp.root_dir={course}"]
    command += [f"--IdentityProvider.token={token}"]
    with open(tmp_path / "log.txt", "w") as log:
        server = subprocess.Popen(
            command, env=os.environ | folders, stdout=log, stderr=log
        )
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api?token={token}")
                break
            except OSError:
                assert server.poll() is None, (tmp_path / "log.txt").read_text()
                time.sleep(0.25)
        yield f"http://127.0.0.1:{port}/lab/tree/NAME?token={token}&reset"
    finally:
        server.terminate()
        server.wait(30)


def wait_until(page, condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited for {seconds} s"
        page.wait_for_timeout(200)


def run_all(page):
    # While JupyterLab is still restoring its layout, a click may be lost.
    page.get_by_text("(ipykernel) | Idle").wait_for(timeout=90_000)
    page.wait_for_timeout(1000)
    for _ in range(4):
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_text("Run All Cells", exact=True).first.click()
        page.wait_for_timeout(5000)
        if set(page.evaluate(PROMPTS)) - {"[ ]:", ""}:
            break
    # From the last star to counts again.
    wait_until(
        page,
        lambda: "[*]:" not in page.evaluate(PROMPTS) and page.evaluate(IDLE),
        SECONDS,
    )
    page.wait_for_timeout(1000)


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem[:2])
def test_a_lesson_runs_in_jupyterlab(browser, lab, path):
    code = [
        cell
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
        if cell["cell_type"] == "code"
    ]
    outside = []
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.on(
        "request",
        lambda r: (
            r.url.startswith(("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:"))
            or outside.append(r.url)
        ),
    )
    try:
        page.goto(lab.replace("NAME", path.name), wait_until="domcontentloaded")
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=90_000)
        page.wait_for_function(IDLE, timeout=90_000)
        run_all(page)

        errors = page.locator('[data-mime-type="application/vnd.jupyter.error"]')
        assert errors.all_inner_texts() == []
        stderr = page.locator('[data-mime-type="application/vnd.jupyter.stderr"]')
        assert stderr.all_inner_texts() == []
        solutions = ["solution" in c["metadata"].get("tags", []) for c in code]
        assert page.locator(".jp-InputPlaceholder").count() == sum(solutions)
        shown = [f"[{n}]:" for n, hidden in enumerate(solutions, 1) if not hidden]
        assert [p for p in page.evaluate(PROMPTS) if p] == shown

        explorers = sum("plot.explorer(" in "".join(c["source"]) for c in code)
        panels = page.locator(".jp-OutputArea-output:has(.widget-slider)")
        assert panels.count() == explorers
        if explorers:
            move_a_slider(panels.first)
        if path.stem.startswith("03"):
            answer_an_exercise(page)
        assert outside == []
    finally:
        page.close()


def move_a_slider(panel):
    picture = panel.locator("img").first
    before = picture.get_attribute("src")
    handle = panel.locator(".noUi-handle").first
    handle.scroll_into_view_if_needed()
    handle.focus()
    for _ in range(12):
        handle.press("ArrowRight")
    wait_until(panel.page, lambda: picture.get_attribute("src") != before, 20)


def answer_an_exercise(page):
    """Type over the starter of exercise 3.3 and run it: wrong, then right."""
    cell = page.locator('.jp-CodeCell:has-text("checks.check(\\"3.3\\"")').first
    formula = "0.5 * (mu**2 + logvar.exp() - 1 - logvar)"
    for reduction, verdict in (
        (".sum()", "summed over the batch"),
        (".sum(1)", "right."),
    ):
        cell.locator(".cm-content").click()
        page.keyboard.press("Control+a")
        page.keyboard.insert_text(
            f"def kl_to_prior(mu, logvar):\n    return {formula}{reduction}\n\n\n"
            'checks.check("3.3", kl_to_prior)'
        )
        page.keyboard.press("Control+Enter")
        output = cell.locator(".jp-OutputArea-output").first
        output.get_by_text(verdict).wait_for(timeout=60_000)
