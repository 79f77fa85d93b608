"""Settings of the web site; `make html` builds it (tools/publish/site.py)."""

import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sphinx import search  # noqa: E402
from sphinx.search.en import SearchEnglish  # noqa: E402

from tools.publish import deck, site, translations  # noqa: E402

TONGUE = os.environ.get("GENCOURSE_LANG", "")
_ = translations.words(TONGUE)

project = "gencourse"
author = "The gencourse authors"
html_title = _("How machines generate images")
project_copyright = "The gencourse authors. Code: MIT. Text and figures: CC BY 4.0"
language = TONGUE or "en"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
templates_path = ["_templates"]
# The text has the quotation marks and dashes that readers should see.
smartquotes = False

nb_execution_mode = "off"
nb_ipywidgets_js = {}
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
# Arguments are lists, as they are written: several names may share a line.
napoleon_use_param = False
napoleon_use_rtype = False
napoleon_use_ivar = True
default_role = "code"
maximum_signature_line_length = 80

# Formulas are drawn without a network.
mathjax_path = deck.mathjax().name

html_theme = "sphinx_book_theme"
html_static_path = ["_static", str(deck.mathjax())]
html_css_files = ["course.css"]
html_js_files = ["course.js"]
html_copy_source = False
html_show_sphinx = False
html_use_index = False
html_domain_indices = False
html_sidebars = {
    "**": [
        "navbar-logo.html",
        "search-button-field.html",
        "sbt-sidebar-nav.html",
        "playground-link.html",
    ]
}
# Without this the theme writes an error to the browser's console.
html_context = {
    "default_mode": "auto",
    "other_language": "../" if TONGUE else "zh_CN/",
    "name_of_other_language": "English" if TONGUE else "中文",
    "playground": _("Playground: turn the knobs"),
}
html_theme_options = {
    "logo": {"text": html_title},
    # Without this the search field appears twice.
    "navbar_persistent": [],
    "use_download_button": False,
    "article_header_end": ["language-switch.html", "article-header-buttons.html"],
    "show_toc_level": 2,
    "show_navbar_depth": 1,
}
# Outputs and error messages are for reading, not for running.
copybutton_selector = "div.cell_input div.highlight pre, div.highlight-sh pre"


class SearchChinese(SearchEnglish):
    """English words, and each two neighboring characters: that needs no dictionary."""

    lang = "zh"
    js_splitter_code = """
const runs = /[\\u4e00-\\u9fff]+|[\\w\\u00c0-\\u024f]+/gu;
var splitQuery = (query) => (query.match(runs) || []).flatMap(
  (run) => run < "\\u4e00" || run.length < 3 ? [run]
    : Array.from({ length: run.length - 1 }, (_, i) => run.slice(i, i + 2)));
"""

    def split(self, input):
        for run in re.findall(r"[\u4e00-\u9fff]+|[^\W\u4e00-\u9fff]+", input):
            if run < "\u4e00" or len(run) < 3:
                yield run
            else:
                yield from (run[i : i + 2] for i in range(len(run) - 1))


search.languages["zh"] = SearchChinese


def setup(app):
    def process(app, what, name, obj, options, lines):
        lines[:] = site.docstring("\n".join(lines)).splitlines()

    # Before napoleon, which reads the sections.
    app.connect("autodoc-process-docstring", process, priority=400)
