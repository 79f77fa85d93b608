"""The sliders of `plot.explorer`; may be skipped at first reading."""

from __future__ import annotations

import html
import random
from collections.abc import Sequence

import ipywidgets as w

WIDGET = "application/vnd.jupyter.widget-view+json"


class Explorer:
    """Sliders beside an image: `values`, `set(values)`, `sliders`, `image`, `widget`.

    Its arguments are those of `plot.explorer`, but `draw` always returns a Picture.
    """

    def __init__(self, draw, sliders, alt, twin, sample) -> None:
        self.draw, self.alt, self.sample, self.sliders = draw, alt, sample, []
        self.quiet = False
        size = {"style": {"description_width": "110px"}, "layout": {"width": "340px"}}
        for item in sliders:
            item = (item,) if isinstance(item, str) else tuple(item)
            name, low, high, value, step = item + (None, -1, 1, 0, 0.05)[len(item) :]
            if not low <= value <= high or low == high:
                raise ValueError(f"slider {name!r}: {value} is not in [{low}, {high}]")
            slider = w.FloatSlider(value, min=low, max=high, step=step, **size)
            slider.description = name
            slider.readout_format = ".0f" if step >= 1 else ".2f"
            slider.observe(self._moved, names="value")
            self.sliders.append(slider)
        start, first = self.values, draw(self.values)
        self.twin = twin or first
        self.image = w.Image(value=first.png, layout={"margin": "0 0 0 24px"})
        self.message = w.HTML()
        shuffle = w.Button(description="random", icon="random")
        shuffle.on_click(lambda _: self.set(self._random()))
        reset = w.Button(description="reset", icon="undo")
        reset.on_click(lambda _: self.set(start))
        buttons = w.HBox([shuffle, reset], layout={"margin": "8px 0 0 110px"})
        layout = {"align_items": "center", "flex_flow": "row wrap"}
        panel = w.HBox([w.VBox([*self.sliders, buttons]), self.image], layout=layout)
        self.widget = w.VBox([panel, self.message])

    @property
    def values(self) -> list[float]:
        return [slider.value for slider in self.sliders]

    def set(self, values: Sequence[float]) -> None:
        """Moves all sliders, within their ranges, and draws once."""
        if len(values) != len(self.sliders):
            raise ValueError(f"expected {len(self.sliders)} values, got {len(values)}")
        self.quiet = True
        for slider, value in zip(self.sliders, values, strict=True):
            slider.value = float(value)
        self.quiet = False
        self._moved()

    def _moved(self, _=None) -> None:
        if self.quiet:
            return
        try:
            self.image.value, self.message.value = self.draw(self.values).png, ""
        except Exception as error:  # what a callback prints is not shown
            text = html.escape(f"{type(error).__name__}: {error}")
            self.message.value = f"<pre style='color:#D55E00'>{text}</pre>"

    def _random(self) -> list[float]:
        if self.sample is not None:
            return list(self.sample())
        steps = [round((s.max - s.min) / s.step) for s in self.sliders]
        pairs = zip(self.sliders, steps, strict=True)
        return [s.min + s.step * random.randint(0, n) for s, n in pairs]

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        # A live front end prefers the widget; all others show the twin.
        data, metadata = self.twin._repr_mimebundle_()
        widget = self.widget._repr_mimebundle_()[WIDGET]
        return {**data, "text/plain": self.alt, WIDGET: widget}, metadata
