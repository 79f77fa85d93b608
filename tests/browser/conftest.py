"""A headless Chromium without a network: `make test-browser` runs these tests."""

import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from tools.publish.book import CHROMIUM

ROOT = Path(__file__).resolve().parents[2]
NO_NETWORK = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
PATIENCE = 300_000  # ms; no test needs them, they only end one that hangs
LOCAL = ("file:", "data:", "blob:", "about:", "http://127.0.0.1:", "ws://127.0.0.1:")


@pytest.fixture(scope="session")
def browser():
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if path is None:
        pytest.fail(f"no browser: install one of {', '.join(CHROMIUM)}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            args=["--no-sandbox", "--disable-dev-shm-usage", NO_NETWORK],
        )
        yield browser
        browser.close()


@contextmanager
def quiet_pages(browser):
    """Give `open(address, **options)`, which returns a page in a context of its own.

    `options` go to `browser.new_context` (viewport, color_scheme ...). In the end, an
    error on a page's console or a request to another machine fails the test.
    """
    contexts, problems = [], []

    def note_request(request):
        if not request.url.startswith(LOCAL):
            problems.append(f"asked the network for {request.url}")

    def note_error(message):
        source = message.location["url"]
        # Browsers ask every server for an icon; not having one is no fault.
        if message.type == "error" and not source.endswith("/favicon.ico"):
            problems.append(f"{source}: {message.text}")

    def note_failure(request):
        # What a page no longer needs when it is left is aborted, not missing.
        if request.failure != "net::ERR_ABORTED":
            problems.append(f"could not load {request.url}: {request.failure}")

    def open(address, **options):
        context = browser.new_context(**options)
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        context.on("request", note_request)
        context.on("requestfailed", note_failure)
        context.on("console", note_error)
        context.on("weberror", lambda error: problems.append(str(error.error)))
        page = context.new_page()
        page.goto(str(address))
        return page

    yield open
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def open_page(browser):
    with quiet_pages(browser) as open:
        yield open


@pytest.fixture(scope="module")
def open_shared_page(browser):
    """The same as `open_page`, for a page that all tests of a module share."""
    with quiet_pages(browser) as open:
        yield open


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


@pytest.fixture(scope="session")
def site(run_tool):
    """The folder of the finished site."""
    run_tool("site")
    return ROOT / "build/html"
