"""Every slide of every deck, opened from a file: it fits, and everything is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LESSONS = sorted(p.stem for p in ROOT.glob("notebooks/0[1-9]*.ipynb"))
SCREEN = {"viewport": {"width": 1280, "height": 720}}
READY = "window.Reveal && Reveal.isReady()"

# What is wrong with the slide that is shown, as a list of words.
PROBLEMS = """() => {
  const slide = Reveal.getCurrentSlide();
  const page = slide.querySelector(".page");
  const problems = [];
  const wrong = (is, what) => { if (is) problems.push(what); };
  wrong(page.scrollHeight > page.clientHeight, "too high");
  wrong(page.scrollWidth > page.clientWidth, "too wide");
  const area = page.getBoundingClientRect();
  const scale = Reveal.getScale();
  for (const part of page.children) {
    const box = part.getBoundingClientRect();
    wrong(part.scrollWidth > part.clientWidth + 1, "a part is too wide");
    wrong(box.bottom > area.bottom || box.right > area.right, "a part sticks out");
  }
  for (const text of page.querySelectorAll(".text")) {
    const least = text.closest(".code, .output") ? 20 : 28;
    wrong(parseFloat(getComputedStyle(text).fontSize) < least, "small text");
  }
  for (const formula of page.querySelectorAll("mjx-container[display]")) {
    wrong(parseFloat(getComputedStyle(formula).fontSize) < 28, "a small formula");
  }
  const images = [...page.querySelectorAll("img")];
  wrong(images.length > 1, "two figures");
  for (const image of images) {
    wrong(!(image.complete && image.naturalWidth), "an image was not loaded");
    wrong(image.alt.length < 20, "an image without a text");
    wrong(image.getBoundingClientRect().height < 280 * scale, "a small figure");
    wrong(!page.querySelector(".caption").innerText.trim(), "no caption");
  }
  const prose = page.cloneNode(true);
  prose.querySelectorAll("pre, code, mjx-container").forEach(part => part.remove());
  wrong(prose.textContent.includes("$"), "a formula was not drawn");
  wrong(page.querySelector("mjx-merror, [data-mjx-error]"), "a bad formula");
  wrong(!page.querySelector("h1, h2").innerText.trim(), "no headline");
  wrong(!slide.querySelector("aside.notes").textContent.trim(), "no notes");
  return problems;
}"""
# The problems of all slides by their headlines, and how many slides were visited.
WALK = f"""() => {{
  const problemsOf = {PROBLEMS};
  const problems = {{}}, visited = new Set();
  for (let more = true; more; Reveal.next()) {{
    more = !Reveal.isLastSlide();
    visited.add(Reveal.getCurrentSlide());
    const wrong = problemsOf();
    const headline = Reveal.getCurrentSlide().innerText.split("\\n")[0];
    if (wrong.length) problems[`${{visited.size}}: ${{headline}}`] = wrong;
  }}
  return [problems, visited.size];
}}"""


@pytest.fixture(scope="session")
def decks(run_tool, tmp_path_factory):
    target = tmp_path_factory.mktemp("slides")
    run_tool("editions", "slides", "--to", target)
    return target


@pytest.fixture
def open_deck(decks, open_page):
    def open(lesson, query=""):
        page = open_page(f"{(decks / lesson).as_uri()}.html{query}", **SCREEN)
        page.wait_for_function(READY)
        return page

    return open


@pytest.mark.parametrize("lesson", LESSONS)
def test_every_slide_is_in_order(lesson, open_deck):
    page = open_deck(lesson)
    problems, visited = page.evaluate(WALK)
    assert problems == {}
    assert visited == page.evaluate("Reveal.getTotalSlides()") >= 15
    assert page.locator(".page mjx-container svg").count() >= 5


def test_what_is_wrong_would_be_noticed(open_deck):
    page = open_deck(LESSONS[0])
    page.evaluate(
        """() => {
          while (!Reveal.getCurrentSlide().querySelector("img")) Reveal.next();
          const page = Reveal.getCurrentSlide().querySelector(".page");
          page.querySelector(".caption").innerHTML = "<p>$x$ and words</p>".repeat(20);
          page.querySelector("img").alt = "";
          page.querySelector("h2").innerText = "word".repeat(100);
          Reveal.getCurrentSlide().querySelector("aside").innerHTML = "";
        }"""
    )
    problems = set(page.evaluate(PROBLEMS))
    assert {"too high", "too wide", "a part sticks out"} <= problems
    assert {"an image without a text", "a small figure", "no notes"} <= problems
    assert "a formula was not drawn" in problems


def test_the_speaker_sees_the_notes(open_deck):
    page = open_deck(LESSONS[0])
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert page.evaluate("Reveal.getSlidePastCount()") == 3
    notes = page.evaluate(
        "Reveal.getCurrentSlide().querySelector('aside.notes p').innerText"
    )
    with page.expect_popup() as popup:
        page.keyboard.press("s")
    words = " ".join(re.findall(r"\w+", notes)[:6])
    popup.value.wait_for_function(
        "words => document.body.innerText.replace(/\\W+/g, ' ').includes(words)",
        arg=words,
    )


def test_printing_gives_a_page_for_each_slide(open_deck):
    page = open_deck(LESSONS[-1], "?print-pdf")
    total = page.locator(".page").count()
    page.wait_for_function(
        "total => document.querySelectorAll('.pdf-page').length === total", arg=total
    )
    printed = page.pdf(prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) == total


def test_the_index_leads_to_every_deck(decks, open_page):
    page = open_page((decks / "index.html").as_uri(), **SCREEN)
    links = page.locator("a").evaluate_all("all => all.map(a => a.href)")
    assert [Path(link).stem for link in links] == LESSONS
    page.locator("a").first.click()
    page.wait_for_function(READY)
