"""Every lesson in JupyterLab: run all cells, move a slider, answer an exercise."""

import json
import os
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


def run_all(page):
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).first.click()
    page.wait_for_timeout(2000)
    page.wait_for_function(IDLE, timeout=SECONDS * 1000)
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
        folded = page.locator(".jp-InputPlaceholder").count()
        run_all(page)

        errors = page.locator('[data-mime-type="application/vnd.jupyter.error"]')
        assert errors.all_inner_texts() == []
        stderr = page.locator('[data-mime-type="application/vnd.jupyter.stderr"]')
        assert stderr.all_inner_texts() == []
        prompts = page.locator(".jp-CodeCell .jp-InputPrompt").all_inner_texts()
        assert [p for p in prompts if p.strip()] == [
            f"[{n}]:" for n in range(1, len(code) + 1)
        ]
        solutions = ["solution" in c["metadata"].get("tags", []) for c in code]
        assert folded == sum(solutions)

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
    page = panel.page
    for _ in range(100):
        if picture.get_attribute("src") != before:
            return
        page.wait_for_timeout(100)
    pytest.fail("the slider was moved and the picture stayed the same")


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
