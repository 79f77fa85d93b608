"""A picture with a text for readers who cannot see it, and the style of all figures."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from gencourse.language import text_width, translate

# Okabe & Ito 2008, "Color Universal Design", without the yellow (too faint on white).
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
AMBER, SKY, BLACK, GRAY = "#E69F00", "#56B4E9", "#222222", "#8A8A8A"
COLORS = (BLUE, ORANGE, GREEN, PINK, AMBER, SKY, BLACK, GRAY)

FONT = "DejaVu Sans"  # it comes with matplotlib
DPI, FACE = 100, 96  # FACE: the width in pixels at which a small image is shown
MAX_WIDTH, MAX_HEIGHT = 1000, 2000  # in pixels; a notebook's cell is 1000 wide

_STYLE = (  # groups of settings, as matplotlib.rc takes them
    ("figure", {"dpi": DPI, "facecolor": "white"}),
    ("text", {"color": BLACK}),
    ("font", {"family": FONT, "size": 13}),
    ("axes", {"titlesize": 14, "titlelocation": "left", "titlepad": 10}),
    ("axes", {"labelsize": 13, "labelcolor": BLACK, "linewidth": 0.8}),
    ("axes", {"edgecolor": "#555555", "grid": True, "axisbelow": True}),
    ("axes", {"prop_cycle": f"cycler(color={list(COLORS)})"}),
    ("axes.spines", {"top": False, "right": False}),
    ("grid", {"color": "#E3E3E3"}),
    (("xtick", "ytick"), {"labelsize": 12, "color": "#444444"}),
    ("lines", {"linewidth": 2.5, "markersize": 7}),
    ("legend", {"fontsize": 12, "frameon": False}),
)

# Chinese, Japanese and Korean, which DejaVu Sans lacks: on Linux, Windows and macOS.
_CJK_FONTS = (
    "Noto Sans CJK SC, Noto Sans CJK TC, Noto Sans CJK JP, Noto Sans CJK KR, "
    "Noto Sans SC, Noto Sans JP, Noto Sans KR, Source Han Sans SC, WenQuanYi Zen Hei, "
    "WenQuanYi Micro Hei, Droid Sans Fallback, Microsoft YaHei, SimHei, Yu Gothic, "
    "Microsoft JhengHei, MS Gothic, Malgun Gothic, PingFang SC, Hiragino Sans GB, "
    "Hiragino Sans, Heiti TC, Apple SD Gothic Neo, AppleGothic, Arial Unicode MS"
).split(", ")

Labels = Sequence[str] | None
Lines = Mapping[str, float] | None  # text -> where the line lies


@dataclass(frozen=True)
class Picture:
    """A PNG file and its alternative text; a cell that ends with one shows it."""

    png: bytes = field(repr=False)
    alt: str

    def __post_init__(self) -> None:
        if text_width(self.alt.strip()) < 20:
            raise ValueError(
                f"alt={self.alt!r} is too short: say in a sentence of at least 20 "
                "characters what the picture shows, for readers who cannot see it"
            )

    def save(self, path) -> None:
        """Write the PNG file."""
        Path(path).write_bytes(self.png)

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        data = {"image/png": self.png, "text/plain": self.alt}
        return data, {"image/png": {"alt": self.alt}}  # where nbconvert looks for it


def encode(rgb: np.ndarray, alt: str, level: int = 9, chart: bool = False) -> Picture:
    """Make a Picture of RGB bytes (H, W, 3); a low level (0 to 9) is fast.

    A chart needs few colors: it gets a palette, which makes the file three times
    smaller, unless some value would move by more than 10 of 255.
    """
    from PIL import Image, PngImagePlugin

    info = PngImagePlugin.PngInfo()
    info.add_text("Description", alt)
    file = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(rgb))
    if chart:
        few = image.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        if np.abs(np.asarray(few.convert("RGB"), int) - rgb).max() <= 10:
            image = few
    image.save(file, "png", pnginfo=info, compress_level=level)
    return Picture(file.getvalue(), alt)


@contextmanager
def style() -> Iterator[None]:
    """Draw in the course's style, with the fonts that `use_fallback_fonts` tries."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        settings = matplotlib.rcParams
        own = [settings.get(f"font.{name}", [name]) for name in settings["font.family"]]
        matplotlib.rcdefaults()
        for group, options in _STYLE:
            matplotlib.rc(group, **options)
        settings["font.sans-serif"] = [FONT, *chain(*own), *_CJK_FONTS]
        # matplotlib warns of each missing character; `canvas` warns once of all.
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        yield


def use_fallback_fonts(figure) -> tuple[list[str], str]:
    """Let texts take characters that their font lacks from other installed fonts.

    It adds only the fonts that are needed: matplotlib opens every font of a text and
    logs a warning for each one without a bold weight.

    Returns:
        The families that were added, and the characters that no font has.
    """
    from matplotlib import rcParams
    from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
    from matplotlib.text import Text

    plain = get_font(findfont(FONT))
    texts = [t for t in figure.findobj(Text) if not t.get_fontproperties().get_file()]
    missing = {c for text in texts for c in text.get_text()}
    missing = {
        c for c in missing if c.isprintable() and not plain.get_char_index(ord(c))
    }
    if missing:
        _add_new_fonts()
    families = [name for text in texts for name in text.get_fontfamily()]
    installed = {font.name.lower() for font in fontManager.ttflist}
    added = []
    for family in dict.fromkeys([*families, *rcParams["font.sans-serif"]]):
        if missing and family.lower() in installed:
            font = get_font(findfont(FontProperties(family=[family])))
            covered = {c for c in missing if font.get_char_index(ord(c))}
            missing -= covered
            added += [family] if covered else []
    for text in texts if added else ():
        own = text.get_fontfamily()
        # The words beside a formula are drawn in the first font alone.
        formula = "$" in text.get_text()
        text.set_fontfamily([*added, *own] if formula else [*own, *added])
    return added, "".join(sorted(missing))


@cache
def _add_new_fonts() -> None:
    """Tell matplotlib of fonts that were installed after it made its list of them."""
    from matplotlib.font_manager import findSystemFonts, fontManager

    known = {font.fname for font in fontManager.ttflist}
    for path in set(findSystemFonts()) - known:
        with suppress(Exception):  # a file that matplotlib cannot read
            fontManager.addfont(path)


def translate_categories(figure) -> None:
    """Translate the names on axes that have names for numbers, as of `barh`."""
    from matplotlib.axis import Axis
    from matplotlib.category import StrCategoryFormatter

    for axis in figure.findobj(Axis):
        own = axis.get_major_formatter()
        if isinstance(own, StrCategoryFormatter):
            axis.set_major_formatter(lambda at, _, own=own: translate(own(at)))


@contextmanager
def canvas(
    alt: str, rows: int = 1, columns: int = 1, width: int = 900, height: int = 400
) -> Iterator[SimpleNamespace]:
    """Make matplotlib axes in the style of the course, and a Picture of them.

        with plot.canvas("A parabola with its minimum at 0.") as page:
            page.axes[0].plot(x, x**2)
        page.picture

    `page.axes` lists the axes row by row, `page.figure` is the figure, and
    `page.picture` exists once the block has ended.

    Args:
        rows, columns: of axes; with rows = 0 the figure has none.
        width, height: in pixels, at most 1000 x 2000.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    if width > MAX_WIDTH or height > MAX_HEIGHT:
        raise ValueError(
            f"a picture of {width} x {height} pixels is larger than {MAX_WIDTH} x "
            f"{MAX_HEIGHT}: take fewer rows, columns or images, or a smaller scale"
        )
    with style():
        figure = Figure((width / DPI, height / DPI), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
        agg = FigureCanvasAgg(figure)
        axes = list(figure.subplots(rows, columns, squeeze=False).flat) if rows else []
        page = SimpleNamespace(figure=figure, axes=axes)
        yield page
        for text in figure.findobj(Text):
            text.set_text(translate(text.get_text()))
        translate_categories(figure)
        use_fallback_fonts(figure)
        agg.draw()  # sets the texts of the ticks
        added, missing = use_fallback_fonts(figure)
        if added:
            agg.draw()
        if missing:
            warnings.warn(
                f"no font found for {missing}: name one that has them in "
                "matplotlib.rcParams['font.family'], or install one, such as Noto Sans "
                "CJK, and restart the kernel",
                stacklevel=3,
            )
        rgb = np.asarray(agg.buffer_rgba())[..., :3]
        page.picture = encode(rgb, translate(alt), chart=rows > 0)
