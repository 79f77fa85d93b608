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

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        import ipywidgets

        if isinstance(self.content, Picture):
            data, metadata = self.content._repr_mimebundle_()
            png = base64.b64encode(self.content.png).decode()
            alt = html.escape(self.content.alt)
            inside = f'<img alt="{alt}" src="data:image/png;base64,{png}">'
        else:
            data, metadata = {"text/plain": self.content}, {}
            inside = f"<pre>{html.escape(self.content)}</pre>"
        summary = f"<summary style='cursor:pointer'>{html.escape(self.title)}</summary>"
        widget = ipywidgets.HTML(f"<details>{summary}{inside}</details>")
        return data | {WIDGET: widget._repr_mimebundle_()[WIDGET]}, metadata
