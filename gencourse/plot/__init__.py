"""Pictures for the lessons: every function takes tensors and returns one `Picture`.

A picture always has an alternative text that describes it: it is shown where pictures
cannot be, screen readers read it aloud, and tests compare it. matplotlib's own settings
stay as they are, and color-blind readers can tell the colors apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from gencourse.plot.charts import bars, curves, heat, histogram, scatter_map
from gencourse.plot.images import checked_images, grid, pairs, squares
from gencourse.plot.picture import (
    BLACK,
    BLUE,
    COLORS,
    GRAY,
    GREEN,
    MAX_WIDTH,
    ORANGE,
    Picture,
    canvas,
    check_alt,
    encode,
)

__all__ = [
    "BLACK",
    "BLUE",
    "COLORS",
    "GRAY",
    "GREEN",
    "MAX_WIDTH",
    "ORANGE",
    "Picture",
    "bars",
    "canvas",
    "curves",
    "explorer",
    "grid",
    "heat",
    "histogram",
    "map_of_the_course",
    "pairs",
    "scatter_map",
]


def map_of_the_course(highlight: str = "both", images=None) -> Picture:
    """The course's two arrows: compress (image to latent), generate (latent to image).

    Args:
        highlight: "compress", "generate" or "both"; the other arrow is pale.
        images: up to 5 faces (N, C, H, W), best at size 56, to show on the sheet
            instead of drawn ones.
    """
    from gencourse.plot import course_map

    if highlight not in ("both", "compress", "generate"):
        raise ValueError(f"{highlight=}: expected 'compress', 'generate' or 'both'")
    tiles = None
    if images is not None:
        x = checked_images(images)[:5]
        tiles = squares(x, 56 / x.shape[3])
    with canvas(course_map.ALT.format(highlight), width=960, height=420) as page:
        course_map.draw(page, tiles, highlight, {"compress": BLUE, "generate": ORANGE})
    return page.picture


def explorer(
    draw: Callable[[list[float]], Tensor | Picture],
    sliders: Sequence,
    *,
    alt: str,
    twin: Picture | None = None,
    sample: Callable[[], Sequence[float]] | None = None,
):
    """Sliders that redraw an image at once; a stored notebook shows the twin.

    Args:
        draw: takes the list of slider values and returns one image (C, H, W) in [0, 1]
            or a Picture. An error that it raises is shown below the sliders.
        sliders: names (from -1 to 1, first at 0) or (name, low, high, first[, step]).
        twin: a static picture, such as a `grid` with a row per slider (default: the
            first image).
        sample: returns the values for the button "random" (default: uniform).
    """
    from gencourse.plot.sliders import Explorer

    check_alt(alt)

    def picture(values: list[float]) -> Picture:
        drawn = draw(values)
        if isinstance(drawn, Picture):
            return drawn
        x = checked_images(drawn, "draw(values)")[:1]
        return Picture(encode(squares(x, max(1, 320 // x.shape[3]))[0], alt, 1), alt)

    return Explorer(picture, sliders, alt, twin, sample)
