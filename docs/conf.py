"""Settings of the web site; `make html` builds it (tools/publish/site.py)."""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.publish import site  # noqa: E402

project = "gencourse"
author = "The gencourse authors"
html_title = "How machines generate images"
project_copyright = "The gencourse authors. Code: MIT. Text and figures: CC BY 4.0"
language = "en"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx_copybutton", "sphinx_design"]
templates_path = ["_templates"]
# Quotation marks and dashes stand in the text as they should be read.
smartquotes = False

nb_execution_mode = "off"
nb_ipywidgets_js = {}
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
maximum_signature_line_length = 80

# One file from a package: formulas are drawn without a network.
package = importlib.util.find_spec("sphinx-mathjax-offline")
mathjax = Path(package.origin).parent / "static/mathjax/tex-svg.js"
mathjax_path = mathjax.name

html_theme = "sphinx_book_theme"
html_static_path = ["_static", str(mathjax)]
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
# The theme writes an error to the console where this is not said.
html_context = {"default_mode": "auto"}
html_theme_options = {
    "logo": {"text": html_title},
    # Without this the search field stands there twice.
    "navbar_persistent": [],
    "use_download_button": False,
    "show_toc_level": 2,
    "show_navbar_depth": 1,
}
# Outputs and error messages are for reading, not for running.
copybutton_selector = "div.cell_input div.highlight pre, div.highlight-sh pre"


def setup(app):
    def process(app, what, name, obj, options, lines):
        lines[:] = site.restructured("\n".join(lines)).splitlines()

    app.connect("autodoc-process-docstring", process)
