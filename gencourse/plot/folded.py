"""`plot.Folded`: what a learner opens when ready; may be skipped at first reading."""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass

from gencourse.plot.picture import Picture
from gencourse.plot.sliders import WIDGET


@dataclass(frozen=True)
class Folded:
    """A text or a picture behind a line that says what it is.

    JupyterLab opens the stored, hidden output of a cell as soon as the cell runs, so
    that Run All would show every answer. A widget stays closed until it is clicked; a
    stored notebook, which keeps no widgets, has the text or the picture itself.
    """

    title: str
    content: str | Picture

    @property
    def page(self) -> str:
        """The HTML of the widget: closed at first."""
        inside = f"<pre>{html.escape(str(self.content))}</pre>"
        if isinstance(self.content, Picture):
            png = base64.b64encode(self.content.png).decode()
            alt = html.escape(self.content.alt)
            inside = f'<img alt="{alt}" src="data:image/png;base64,{png}">'
        summary = f"<summary style='cursor:pointer'>{html.escape(self.title)}</summary>"
        return f"<details>{summary}{inside}</details>"

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        import ipywidgets

        data, metadata = {"text/plain": self.content}, {}
        if isinstance(self.content, Picture):
            data, metadata = self.content._repr_mimebundle_()
        widget = ipywidgets.HTML(self.page)._repr_mimebundle_()[WIDGET]
        return data | {WIDGET: widget}, metadata
