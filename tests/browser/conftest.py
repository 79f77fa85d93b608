"""A headless Chromium that sees no network: `make test-browser` runs these tests."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent.parent
NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
LOCAL = ("file:", "data:", "blob:", "about:", "http://127.0.0.1", "http://localhost")


@pytest.fixture(scope="session")
def browser():
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.fail(f"no browser: none of {', '.join(NAMES)} was found; install one")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """Return `open(address, **context)`; its page must stay quiet and at home.

    `context` goes to `browser.new_context` (viewport, color_scheme ...). At the end of
    the test an error on a page's console or a request to another machine fails it.
    """
    contexts, problems = [], []

    def guard(route):
        if route.request.url.startswith(LOCAL):
            route.continue_()
        else:
            problems.append(f"asked the network for {route.request.url}")
            route.abort()

    def open(address, **context):
        contexts.append(browser.new_context(**context))
        page = contexts[-1].new_page()
        page.route("**/*", guard)
        page.on("pageerror", lambda error: problems.append(f"page error: {error}"))
        page.on(
            "console", lambda line: line.type == "error" and problems.append(line.text)
        )
        page.on(
            "requestfailed",
            lambda request: problems.append(f"could not load {request.url}"),
        )
        page.goto(str(address))
        return page

    yield open
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture(scope="session")
def run_tool():
    """Return `run(name, *arguments)`: run a tool and fail with its output."""

    def run(name, *arguments):
        command = [sys.executable, "-m", f"tools.publish.{name}", *arguments]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    return run
