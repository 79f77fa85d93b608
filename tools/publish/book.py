"""Print all lessons as one book, build/gencourse.pdf. Called by `make pdf`.

python -m tools.publish.book [--language zh_CN]     build/zh_CN/gencourse.pdf

Sphinx puts the pages of the web site on a single one, and Chromium, without a window,
prints it. Solutions and results are unfolded; code that only draws is left out.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tools import command
from tools.command import Failure
from tools.publish import site, translations

SOURCE = site.BUILD / "book"
PAGE = site.BUILD / "book-html"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

BOOK = """\
# {title}

{about}

```{{toctree}}
{pages}
```
"""

STYLE = """
.bd-header, .bd-header-article, .bd-sidebar, .bd-sidebar-primary,
.bd-sidebar-secondary, .headerlink, .bd-footer, .prev-next-footer,
details:not([open]), button.copybtn { display: none !important; }
span[id^="document-"] + section { break-before: page; }
h1, h2, h3, h4 { break-after: avoid; }
mjx-container > svg { max-width: 100%; }
img, svg, table, pre { break-inside: avoid; }
pre { white-space: pre-wrap; }
"""

# A reader of paper cannot unfold what is folded.
UNFOLD = """async () => {
  for (const fold of document.querySelectorAll("details:not(:has(.cell_input))"))
    fold.open = true;
  for (const fold of document.querySelectorAll(".tag_solution details"))
    fold.open = true;
  const images = [...document.images];
  images.forEach(image => { image.loading = "eager"; });
  await Promise.all(images.map(image => image.decode().catch(() => {})));
  await MathJax.startup.promise;
}"""


def pages() -> list[str]:
    """Return the pages of the book: the lessons, and what they refer to."""
    return [*translations.course(), "notation", "glossary", "references"]


def build(tongue: str = "") -> None:
    _ = translations.words(tongue)
    for folder in (SOURCE, PAGE):
        shutil.rmtree(folder, ignore_errors=True)
    site.prepare(SOURCE, tongue)
    text = BOOK.format(
        title=_("How machines generate images"),
        about=_(
            "Six lessons on the autoencoder, the variational autoencoder, the "
            "generative adversarial network, all of them compared on the same images, "
            "and diffusion. The notebooks of the course hold the same text and code, "
            "ready to run."
        ),
        pages="\n".join(pages()),
    )
    command.write(text, SOURCE / "book.md")
    line = [sys.executable, "-m", "sphinx", "-b", "singlehtml", "-q", "-Q"]
    line += ["-D", "root_doc=book", "-c", site.ROOT / "docs"]
    line += ["-d", site.BUILD / "book-doctrees", SOURCE, PAGE]
    language = os.environ | {"GENCOURSE_LANG": tongue}
    if subprocess.run(line, cwd=site.ROOT, env=language).returncode:
        raise Failure("The page of the book was not built. Does `make html` build?")
    target = site.BUILD / tongue / "gencourse.pdf"
    target.parent.mkdir(exist_ok=True)
    print_page(target)
    print(f"\nThe book is {os.path.relpath(target)}.")


def print_page(target: Path) -> None:
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if path is None:
        raise Failure(f"No browser was found: install one of {', '.join(CHROMIUM)}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        page = browser.new_page(color_scheme="light")
        page.set_default_timeout(600_000)
        page.goto((PAGE / "book.html").as_uri())
        page.add_style_tag(content=STYLE)
        page.evaluate(UNFOLD)
        page.pdf(
            path=target,
            format="A4",
            margin={side: "18mm" for side in ("top", "right", "bottom", "left")},
            scale=0.8,
            outline=True,
            tagged=True,
            print_background=True,
            display_header_footer=True,
            header_template="<span></span>",
            footer_template='<div style="width: 100%; font-size: 8px; text-align: '
            'center"><span class="pageNumber"></span></div>',
        )
        browser.close()


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("--language", default="", choices=translations.languages())
    build(parser.parse_args().language)


if __name__ == "__main__":
    command.run(main)
