"""The web site as readers meet it: from a folder or a server, on a phone, in the dark.

GENCOURSE_SITE names a folder with the finished site; without it the site is built.
"""

import functools
import http.server
import os
import re
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
LESSONS = sorted(path.stem for path in ROOT.glob("notebooks/*.ipynb"))
PAGES = [
    *(f"{name}.html" for name in LESSONS),
    *(f"{path.stem}.html" for path in sorted(ROOT.glob("docs/*.md"))),
    *(f"api/{p.stem}.html" for p in sorted(ROOT.glob("gencourse/[a-z]*.py"))),
    *(f"api/{p.parent.name}.html" for p in ROOT.glob("gencourse/*/__init__.py")),
    "exercises.html",
    "search.html",
]


@pytest.fixture(scope="session")
def site(run_tool):
    if "GENCOURSE_SITE" in os.environ:
        return ROOT / os.environ["GENCOURSE_SITE"]
    run_tool("site")
    return ROOT / "build/html"


@pytest.fixture(scope="session")
def server(site):
    """The address of a web server for the site."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def pages_of(site):
    return [path for path in site.rglob("*.html") if "_static" not in path.parts]


def formulas_are_drawn(page):
    """Wait for MathJax, then every formula must hold a drawing and no error."""
    if page.locator(".math").count():
        page.wait_for_selector("mjx-container", state="attached")
        page.evaluate("MathJax.startup.promise")
    bare = "els => els.filter(e => !e.querySelector('mjx-container svg')).length"
    assert page.locator(".math").evaluate_all(bare) == 0
    assert page.locator("mjx-merror, [data-mjx-error]").count() == 0
    text = page.evaluate(
        """() => {
            const copy = document.querySelector('main').cloneNode(true);
            copy.querySelectorAll('pre, code, mjx-container').forEach(e => e.remove());
            return copy.textContent;
        }"""
    )
    marks = ("$$", "$ ", "\\(", "\\[", "\\begin", "\\frac", "\\mathcal")
    left = [mark for mark in marks if mark in text]
    assert not left, "formulas that nobody drew"


def overflow(page):
    """How many pixels the page is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")


# --- every page -----------------------------------------------------------------------


def test_the_pages_are_these(site):
    found = {path.relative_to(site).as_posix() for path in pages_of(site)}
    assert found - {"playground.html"} == set(PAGES)
    assert "playground.html" in found


@pytest.mark.parametrize("name", PAGES)
def test_page(name, site, open_page):
    page = open_page((site / name).as_uri(), viewport={"width": 1280, "height": 900})
    assert page.locator("h1:visible").count() == 1
    images = page.locator("article img").evaluate_all(
        "imgs => imgs.map(i => { i.loading = 'eager'; return [i.src, i.alt]; })"
    )
    assert [src for src, alt in images if len(alt) < 20] == []
    page.wait_for_function("[...document.images].every(image => image.complete)")
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    formulas_are_drawn(page)
    assert overflow(page) <= 0


@pytest.mark.parametrize("name", PAGES)
def test_page_on_a_phone_in_the_dark(name, site, open_page):
    page = open_page(
        (site / name).as_uri(),
        viewport={"width": 390, "height": 844},
        color_scheme="dark",
    )
    formulas_are_drawn(page)
    assert overflow(page) <= 0
    back, ink = (
        sum(map(int, re.findall(r"\d+", color)[:3])) / 3
        for color in page.evaluate(
            """() => [
                getComputedStyle(document.body).backgroundColor,
                getComputedStyle(document.querySelector('.bd-article h1, h1')).color,
            ]"""
        )
    )
    assert back < 60 and ink > 180


@pytest.mark.parametrize("name", LESSONS)
def test_pictures_of_a_lesson_have_their_texts(name, site, open_page):
    nb = nbformat.read(ROOT / f"notebooks/{name}.ipynb", as_version=4)
    outputs = [o for cell in nb.cells for o in cell.get("outputs", [])]
    wanted = [
        " ".join(output.data["text/plain"].split())
        for output in outputs
        if "image/png" in output.get("data", {})
    ]
    page = open_page((site / f"{name}.html").as_uri())
    images = page.locator("article .cell_output img")
    assert images.evaluate_all("imgs => imgs.map(i => i.alt)") == wanted
    assert wanted


# --- links ----------------------------------------------------------------------------


class Links(HTMLParser):
    """The anchors of a page and what it links to or loads."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.targets = set(), set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids.add(found.get("id"))
        for key in ("href", "src"):
            if found.get(key):
                self.targets.add((tag, found[key]))


def test_links_lead_somewhere_and_nothing_is_loaded_from_outside(site):
    parsed = {path: Links(path) for path in pages_of(site)}
    wrong, inside = [], 0
    for path, page in parsed.items():
        for tag, target in page.targets:
            parts = urlsplit(target)
            if parts.scheme in ("http", "https", "mailto") or target.startswith("//"):
                if tag != "a":
                    wrong.append(f"{path.name} loads {target}")
                continue
            if parts.scheme == "data":
                continue
            inside += 1
            to = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if not to.is_file():
                wrong.append(f"{path.name} links to {target}: no such file")
            elif anchor and to in parsed and anchor not in parsed[to].ids:
                wrong.append(f"{path.name} links to {target}: no such place")
    assert wrong == []
    assert inside > 500


def test_from_a_lesson_to_the_next_and_back_to_the_start(site, open_page):
    page = open_page((site / "index.html").as_uri())
    page.locator(".sd-card", has_text="The autoencoder").click()
    page.locator("article a", has_text="03 ·").last.click()
    assert page.url.endswith("03_vae.html")
    page.locator(".bd-sidebar-primary a", has_text="Playground").click()
    assert page.url.endswith("playground.html")
    page.locator("a[href^='index.html']").first.click()
    assert (
        page.locator("article h1")
        .inner_text()
        .startswith("How machines generate images")
    )


# --- search, solutions, server --------------------------------------------------------


@pytest.mark.parametrize("where", ["folder", "server"])
@pytest.mark.parametrize(
    ("words", "title"),
    [("reparameterization", "03 · The variational"), ("重参数化技巧", "Glossary")],
)
def test_search(where, words, title, site, server, open_page):
    start = site.as_uri() if where == "folder" else server
    page = open_page(f"{start}/search.html?q={quote(words)}")
    page.wait_for_selector("#search-results li a")
    found = page.locator("#search-results li a").all_inner_texts()
    assert any(title in text for text in found), found


def test_search_from_a_page(site, open_page):
    page = open_page((site / "index.html").as_uri())
    page.keyboard.press("Control+k")
    page.keyboard.type("mode collapse")
    page.keyboard.press("Enter")
    page.wait_for_selector("#search-results li a:has-text('adversarial network')")


def test_the_theme_can_be_switched_by_hand(site, open_page):
    page = open_page((site / "index.html").as_uri(), color_scheme="light")
    for mode in ("dark", "light"):
        page.locator("button.theme-switch-button:visible").click()
        page.locator(f".theme-change-button[data-mode={mode}]:visible").click()
        assert page.locator("html").get_attribute("data-theme") == mode


def test_the_same_over_http(server, open_page):
    for name in ("index.html", "03_vae.html", "exercises.html", "api/losses.html"):
        page = open_page(f"{server}/{name}")
        formulas_are_drawn(page)
        page.wait_for_function("[...document.images].every(image => image.complete)")
        assert page.evaluate("[...document.images].every(i => i.naturalWidth > 0)")


def tagged(tag):
    """How many cells of each lesson have a tag."""
    counts = {}
    for name in LESSONS:
        nb = nbformat.read(ROOT / f"notebooks/{name}.ipynb", as_version=4)
        counts[name] = sum(tag in c.metadata.get("tags", []) for c in nb.cells)
    return {name: count for name, count in counts.items() if count}


def test_solutions_are_folded_and_open_on_a_click(site, open_page):
    wanted = tagged("solution")
    assert wanted
    wanted["exercises"] = sum(wanted.values())
    for name, count in wanted.items():
        page = open_page((site / f"{name}.html").as_uri())
        solutions = page.locator("details:has(summary:has-text('Solution'))")
        assert solutions.count() == count
        code = solutions.locator("pre:has-text('# Solution of exercise')")
        assert code.count() == count
        assert not any(code.nth(i).is_visible() for i in range(count))
        solutions.first.locator("summary").click()
        assert code.first.is_visible()


def test_the_page_of_exercises_has_them_all_and_links_to_each(site, open_page):
    titles = [
        line.removeprefix("### ").replace("`", "")
        for name in tagged("exercise")
        for cell in nbformat.read(ROOT / f"notebooks/{name}.ipynb", as_version=4).cells
        for line in cell.source.splitlines()[:1]
        if "exercise" in cell.metadata.get("tags", []) and line.startswith("### ")
    ]
    assert titles
    page = open_page((site / "exercises.html").as_uri())
    heads = page.locator("article h3").evaluate_all(
        "hs => hs.map(h => h.firstChild.textContent)"
    )
    assert heads == titles
    links = page.locator("article a", has_text="Do it in lesson")
    assert links.count() == len(titles)
    links.last.click()
    target = page.locator(f"[id='{unquote(urlsplit(page.url).fragment)}']")
    assert titles[-1] in target.first.inner_text()
