"""`plot.explorer`: sliders that redraw an image; may be skipped at first reading."""

from __future__ import annotations

import html
import random
from collections.abc import Callable, Sequence

from torch import Tensor

from gencourse.language import translate
from gencourse.plot.images import checked_images, squares
from gencourse.plot.picture import Picture, encode

WIDGET = "application/vnd.jupyter.widget-view+json"


def explorer(
    draw: Callable[[list[float]], Tensor | Picture],
    sliders: Sequence,
    *,
    alt: str,
    twin: Picture,
    sample: Callable[[], Sequence[float]] | None = None,
) -> Explorer:
    """Sliders that redraw an image at once; a stored notebook shows the twin.

    Args:
        draw: takes the list of slider values and returns one image (C, H, W) in [0, 1]
            or a Picture. Its errors are shown below the sliders.
        sliders: names (from -1 to 1, first at 0) or (name, low, high, first[, step]).
        twin: a static picture, such as a `grid` with a row per slider.
        sample: returns the values for the button "random" (default: uniform).
    """
    return Explorer(draw, sliders, alt, twin, sample)


class Explorer:
    """Sliders beside an image: `values`, `set(values)`, `sliders`, `image`."""

    def __init__(self, draw, sliders, alt, twin, sample) -> None:
        import ipywidgets as w

        self.draw, self.alt, self.twin, self.sample = draw, alt, twin, sample
        self.sliders, self.quiet = [], False
        size = {"style": {"description_width": "110px"}, "layout": {"width": "340px"}}
        for item in sliders:
            item = (item,) if isinstance(item, str) else tuple(item)
            name, low, high, value, step = item + (None, -1, 1, 0, 0.05)[len(item) :]
            slider = w.FloatSlider(value, min=low, max=high, step=step, **size)
            slider.description = translate(name)
            slider.readout_format = ".0f" if step >= 1 else ".2f"
            slider.observe(self._redraw, names="value")
            self.sliders.append(slider)
        start, first = self.values, self._png()
        self.image = w.Image(value=first, layout={"margin": "0 0 0 24px"})
        self.message = w.HTML()
        shuffle = w.Button(description=translate("random"), icon="random")
        shuffle.on_click(lambda _: self.set(self._random()))
        reset = w.Button(description=translate("reset"), icon="undo")
        reset.on_click(lambda _: self.set(start))
        buttons = w.HBox([shuffle, reset], layout={"margin": "8px 0 0 110px"})
        layout = {"align_items": "center", "flex_flow": "row wrap"}
        panel = w.HBox([w.VBox([*self.sliders, buttons]), self.image], layout=layout)
        self.widget = w.VBox([panel, self.message])

    @property
    def values(self) -> list[float]:
        return [slider.value for slider in self.sliders]

    def set(self, values: Sequence[float]) -> None:
        """Move all sliders, within their ranges, and draw once."""
        moves = list(zip(self.sliders, map(float, values), strict=True))
        self.quiet = True
        for slider, value in moves:
            slider.value = value
        self.quiet = False
        self._redraw()

    def _png(self) -> bytes:
        drawn = self.draw(self.values)
        if not isinstance(drawn, Picture):
            x = checked_images(drawn, "draw(values)")[:1]
            rgb = squares(x, max(1, 320 // x.shape[3]))[0]
            drawn = encode(rgb, self.alt, level=1)
        return drawn.png

    def _redraw(self, _=None) -> None:
        if self.quiet:
            return
        try:
            self.image.value, self.message.value = self._png(), ""
        except Exception as error:  # what a callback prints is not shown
            text = html.escape(f"{type(error).__name__}: {error}")
            self.message.value = f"<pre style='color:#D55E00'>{text}</pre>"

    def _random(self) -> Sequence[float]:
        if self.sample is not None:
            return self.sample()
        return [
            s.min + s.step * random.randint(0, round((s.max - s.min) / s.step))
            for s in self.sliders
        ]

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        # A live front end prefers the widget; all others show the twin.
        data, metadata = self.twin._repr_mimebundle_()
        widget = self.widget._repr_mimebundle_()[WIDGET]
        return {**data, "text/plain": translate(self.alt), WIDGET: widget}, metadata
