"""The web site as readers meet it: from a folder or a server, on a phone, at night."""

import functools
import http.server
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = {
    path.stem: nbformat.read(path, as_version=4)
    for path in sorted(ROOT.glob("notebooks/*.ipynb"))
}
DESKTOP = {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"}
PHONE = {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"}

# What is wrong with a page, as a list of words.
PROBLEMS = r"""async ([dark]) => {
  const problems = [];
  const wrong = (is, what) => { if (is) problems.push(what); };
  const images = [...document.images];
  images.forEach(image => { image.loading = "eager"; });
  await Promise.all(images.map(image => image.decode().catch(() => {})));
  wrong(images.some(image => !image.naturalWidth), "an image was not loaded");
  for (const image of document.querySelectorAll("article img")) {
    // A Chinese character says as much as two letters.
    const letters = image.alt.replace(/[^\0-\xff]/g, "..").length;
    wrong(letters < 20, `${image.src}: no text that says what it shows`);
  }
  const formulas = [...document.querySelectorAll(".math")];
  if (formulas.length) await MathJax.startup.promise;
  const drawn = formulas.every(formula => formula.querySelector("mjx-container svg"));
  wrong(!drawn, "a formula was not drawn");
  wrong(document.querySelector("mjx-merror, [data-mjx-error]"), "a bad formula");
  const prose = document.querySelector("main").cloneNode(true);
  prose.querySelectorAll("pre, code, mjx-container").forEach(part => part.remove());
  const bare = prose.textContent.match(/\$\$|\$ |\\[([]|\\(begin|frac|mathcal)/);
  wrong(bare, `${bare} in the text`);
  const heads = [...document.querySelectorAll("h1")].filter(h => h.checkVisibility());
  wrong(heads.length !== 1, `${heads.length} headlines`);
  const wide = document.documentElement.scrollWidth - window.innerWidth;
  wrong(wide > 0, `${wide} pixels wider than the window`);
  const shade = (color) => {
    const [red, green, blue] = color.match(/\d+/g).map(Number);
    return (red + green + blue) / 3;
  };
  const ground = shade(getComputedStyle(document.body).backgroundColor);
  const ink = shade(getComputedStyle(heads[0]).color);
  const apart = dark ? ground < 60 && ink > 180 : ground > 230 && ink < 90;
  wrong(!apart, `ink ${ink} on ground ${ground}`);
  return problems;
}"""


def pages_of(site):
    """The pages that readers visit, in order."""
    pages = (path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    return sorted(page for page in pages if "_static/" not in page)


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


# --- every page -----------------------------------------------------------------------


def problems_of_all_pages(site, start, open_page, options):
    pages = pages_of(site)
    assert {f"{name}.html" for name in NOTEBOOKS} < set(pages)
    page = open_page(f"{start}/index.html", **options)
    problems = {}
    for name in pages:
        page.goto(f"{start}/{name}")
        problems[name] = page.evaluate(PROBLEMS, [options["color_scheme"] == "dark"])
    return {name: words for name, words in problems.items() if words}


def test_every_page_from_the_folder(site, open_page):
    assert problems_of_all_pages(site, site.as_uri(), open_page, DESKTOP) == {}


def test_every_page_from_a_server_on_a_phone_in_the_dark(site, server, open_page):
    assert problems_of_all_pages(site, server, open_page, PHONE) == {}


def test_what_is_wrong_would_be_noticed(site, open_page):
    page = open_page((site / "03_vae.html").as_uri(), **DESKTOP)
    page.evaluate(
        """() => {
            const main = document.querySelector("main");
            main.insertAdjacentHTML("beforeend", `<h1>Two</h1> $$ <p class="math">x</p>
                <div style="width: 3000px; height: 1px"></div>`);
            document.querySelector("article img").alt = "";
            document.querySelector("article img").src = "data:image/png,";
            document.body.style.background = "black";
        }"""
    )
    problems = " ".join(page.evaluate(PROBLEMS, [False]))
    for words in ("not loaded", "no text", "not drawn", r"$$", "2 headlines"):
        assert words in problems
    assert "wider" in problems and "ground 0" in problems


def test_the_page_of_a_lesson_shows_its_pictures_with_their_texts(site):
    for name, nb in NOTEBOOKS.items():
        data = [
            out.get("data", {}) for cell in nb.cells for out in cell.get("outputs", [])
        ]
        texts = [" ".join(d["text/plain"].split()) for d in data if "image/png" in d]
        links = Links(site / f"{name}.html")
        assert [text for text in links.texts if text in texts] == texts, name


# --- links ----------------------------------------------------------------------------


class Links(HTMLParser):
    """The anchors of a page, what it links to or loads, and its pictures' texts."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.targets, self.texts = set(), set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.ids.add(values.get("id"))
        if tag == "img":
            self.texts.append(values.get("alt"))
        for key in ("href", "src"):
            if values.get(key):
                self.targets.add((tag, values[key]))


def test_links_lead_somewhere_and_nothing_is_loaded_from_outside(site):
    parsed = {site / name: Links(site / name) for name in pages_of(site)}
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
    page.locator("a[href='index.html']").first.click()
    assert "How machines generate" in page.locator("article h1").inner_text()


def test_every_page_leads_to_the_same_page_in_the_other_language(site, open_page):
    english = [name for name in pages_of(site) if not name.startswith("zh_CN/")]
    chinese = [name for name in pages_of(site) if name.startswith("zh_CN/")]
    assert [f"zh_CN/{name}" for name in english] == chinese
    page = open_page((site / "index.html").as_uri(), **DESKTOP)
    for name in english:
        if name == "playground.html":
            continue
        page.goto((site / name).as_uri())
        for to in (f"zh_CN/{name}", name):
            page.locator("a.language-switch:visible").click()
            page.wait_for_url((site / to).as_uri())


# --- search, theme, solutions ---------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "words", "title"),
    [
        ("folder", "reparameterization", "03 · The variational"),
        ("server", "重参数化技巧", "Glossary"),
        ("server/zh_CN", "重参数化", "术语表"),
        ("folder/zh_CN", "先验", "术语表"),
        ("folder/zh_CN", "reparameterization", "03 ·"),
    ],
)
def test_search(where, words, title, site, server, open_page):
    where, _, language = where.partition("/")
    start = site.as_uri() if where == "folder" else server
    start += f"/{language}" if language else ""
    page = open_page(f"{start}/search.html?q={quote(words)}")
    page.locator("#search-results li a", has_text=title).first.wait_for()


@pytest.mark.parametrize("words", ["潜在空间", "潜空间", "latent space"])
def test_search_leads_to_the_entry_of_the_glossary(words, site, open_page):
    page = open_page(f"{site.as_uri()}/search.html?q={quote(words)}")
    page.locator("#search-results li a[href*='#term-']").first.click()
    place = page.locator(f"[id='{urlsplit(page.url).fragment}']")
    assert words in place.inner_text()


def test_search_from_a_page(site, open_page):
    page = open_page((site / "index.html").as_uri())
    page.keyboard.press("Control+k")
    page.keyboard.type("mode collapse")
    page.keyboard.press("Enter")
    page.locator("#search-results li a", has_text="Mode collapse").wait_for()


def test_the_theme_can_be_switched_by_hand(site, open_page):
    page = open_page((site / "index.html").as_uri(), color_scheme="light")
    for mode in ("dark", "light"):
        page.locator("button.theme-switch-button:visible").click()
        page.locator(f".theme-change-button[data-mode={mode}]:visible").click()
        page.locator(f"html[data-theme={mode}]").wait_for()


def test_the_page_of_exercises_has_them_all_with_folded_solutions(site, open_page):
    cells = [cell for nb in NOTEBOOKS.values() for cell in nb.cells]
    titles = [
        cell.source.splitlines()[0].removeprefix("### ").replace("`", "")
        for cell in cells
        if "exercise" in cell.metadata.get("tags", [])
        and cell.source.startswith("### ")
    ]
    solutions = sum("solution" in cell.metadata.get("tags", []) for cell in cells)
    assert titles and solutions

    page = open_page((site / "exercises.html").as_uri())
    heads = "heads => heads.map(head => head.firstChild.textContent)"
    assert page.locator("article h3").evaluate_all(heads) == titles
    folded = page.locator("details:not([open]):has(pre:has-text('# Solution of'))")
    assert folded.count() == solutions
    code = folded.first.locator("pre").first
    assert not code.is_visible()
    folded.first.locator("summary").click()
    page.locator("details[open] pre:has-text('# Solution of')").wait_for()

    links = page.locator("article a", has_text="Do it in lesson")
    assert links.count() == len(titles)
    links.last.click()
    place = page.locator(f"[id='{unquote(urlsplit(page.url).fragment)}']").first
    assert titles[-1] in place.inner_text()
    assert page.locator("details:not([open]) summary:visible").count()
