"""Pictures for the lessons: every function takes tensors and gives one `Picture`.

A picture always has an alternative text that says in words what is to be seen: it
stands where pictures cannot be shown, screen readers read it, and tests compare it.
Fonts and colors leave matplotlib's own settings alone; color-blind readers can tell the
colors apart.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

# Okabe & Ito 2008, "Color Universal Design", without the yellow (too faint on white).
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
AMBER, SKY, BLACK, GRAY = "#E69F00", "#56B4E9", "#222222", "#8A8A8A"
COLORS = (BLUE, ORANGE, GREEN, PINK, AMBER, SKY, BLACK, GRAY)
CONTINUOUS, DIVERGING = "viridis", "PuOr_r"

DPI, FACE = 100, 96  # FACE: the pixels at which a small image is shown
MAX_WIDTH, MAX_HEIGHT = 1000, 2000  # pixels; the width of a notebook's cell

_STYLE = (  # groups of settings, as matplotlib.rc takes them
    ("figure", {"dpi": DPI, "facecolor": "white"}),
    ("text", {"color": BLACK}),
    ("font", {"family": "DejaVu Sans", "size": 13}),  # matplotlib brings it
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
_DASHES = {"color": GRAY, "lw": 1.5, "ls": (0, (4, 3)), "zorder": 1}

Labels = Sequence[str] | None
Lines = Mapping[str, float] | None  # text -> where the line lies


@dataclass(frozen=True, repr=False)
class Picture:
    """A PNG file and its alternative text; a cell that ends with one shows it."""

    png: bytes
    alt: str

    def __post_init__(self) -> None:
        _check_alt(self.alt)

    @property
    def width(self) -> int:
        return int.from_bytes(self.png[16:20], "big")

    @property
    def height(self) -> int:
        return int.from_bytes(self.png[20:24], "big")

    def save(self, path) -> None:
        """Writes the PNG file."""
        with open(path, "wb") as file:
            file.write(self.png)

    def __repr__(self) -> str:
        return f"Picture({self.width} x {self.height}: {self.alt})"

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        data = {"image/png": self.png, "text/plain": self.alt}
        return data, {"image/png": {"alt": self.alt}}  # where nbconvert looks for it


def _check_alt(alt: str) -> None:
    if not isinstance(alt, str) or len(alt.strip()) < 20:
        raise ValueError(
            f"alt={alt!r} is too short: say in a sentence of at least 20 characters "
            "what the picture shows, for readers who cannot see it"
        )


def _encode(rgb: np.ndarray, alt: str, level: int = 9) -> bytes:
    from PIL import Image, PngImagePlugin

    info = PngImagePlugin.PngInfo()
    info.add_text("Description", alt)
    file = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(rgb))
    image.save(file, "png", pnginfo=info, compress_level=level)
    return file.getvalue()


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever the reader's own settings are
        for group, settings in _STYLE:
            matplotlib.rc(group, **settings)
        yield


@contextmanager
def canvas(
    alt: str, rows: int = 1, columns: int = 1, width: int = 900, height: int = 400
) -> Iterator[SimpleNamespace]:
    """Gives matplotlib axes in the style of the course, and the Picture made of them.

        with plot.canvas("A parabola with its minimum at 0.") as page:
            page.axes[0].plot(x, x**2)
        page.picture

    width, height: pixels, at most 1000 x 2000. `page.axes` lists the axes row by row,
    `page.figure` is the figure, `page.picture` is there when the block has ended.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    _check_alt(alt)
    if not (100 <= width <= MAX_WIDTH and 40 <= height <= MAX_HEIGHT):
        raise ValueError(
            f"a picture of {width} x {height} pixels: the width must be 100 to "
            f"{MAX_WIDTH}, the height 40 to {MAX_HEIGHT}; take fewer rows, columns or "
            "images, or a smaller scale"
        )
    with _style():
        figure = Figure((width / DPI, height / DPI), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
        agg = FigureCanvasAgg(figure)
        axes = list(figure.subplots(rows, columns, squeeze=False).flat) if rows else []
        page = SimpleNamespace(figure=figure, axes=axes)
        yield page
        agg.draw()
        rgb = np.asarray(agg.buffer_rgba())[..., :3]
        page.picture = Picture(_encode(rgb, alt), alt)


# --- numbers and images as they come --------------------------------------------------


def _numbers(values, name: str, ndim: int = 1) -> np.ndarray:
    array = torch.as_tensor(values).detach().cpu().double().numpy()
    if array.ndim != ndim or array.size == 0:
        raise ValueError(f"{name}: expected {ndim}-D numbers, got shape {array.shape}")
    if not np.isfinite(array).any():
        raise ValueError(f"{name}: not one finite number among {array.size}")
    return array


def _stack(images) -> Tensor:
    if isinstance(images, (list, tuple)):
        images = [torch.as_tensor(image).detach().cpu() for image in images]
        shapes = sorted({tuple(image.shape) for image in images})
        if len(shapes) != 1:
            raise ValueError(f"expected images or rows of one shape, got {shapes}")
        images = torch.stack(images)
    return torch.as_tensor(images).detach().cpu()


def _images(images, name: str = "images") -> Tensor:
    """(N, C, H, W) float in [0, 1] on the CPU.

    Overshoot up to 0.5 (linear reconstructions have it) is clipped; more is an error.
    """
    x = _stack(images)
    x = x[None] if x.ndim == 3 else x
    if x.ndim != 4 or x.shape[1] not in (1, 3) or x.numel() == 0:
        raise ValueError(f"{name}: expected (N, 1 or 3, H, W), got {tuple(x.shape)}")
    if not x.is_floating_point():
        raise TypeError(f"{name}: {x.dtype}, expected floats in [0, 1]: divide by 255")
    x = x.float()
    if not x.isfinite().all():
        raise ValueError(f"{name}: {(~x.isfinite()).sum()} values are NaN or infinite")
    low, high = x.min().item(), x.max().item()
    if low < -0.5 or high > 1.5:
        raise ValueError(
            f"{name}: values from {low:.3g} to {high:.3g}, expected [0, 1]; "
            "logits need a sigmoid, bytes a division by 255"
        )
    return x.clamp(0, 1)


def _pixels(x: Tensor, scale: float) -> np.ndarray:
    """(N, H, W, 3) bytes: a pixel becomes a square, or is averaged if scale < 1."""
    if scale < 1:
        size = [max(1, round(side * scale)) for side in x.shape[2:]]
        x = torch.nn.functional.interpolate(x, size, mode="area")
    else:
        x = x.repeat_interleave(int(scale), 2).repeat_interleave(int(scale), 3)
    return (x * 255).round().byte().expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()


def _check_count(labels: Sequence | None, name: str, wanted: int) -> None:
    if labels is not None and len(labels) != wanted:
        raise ValueError(f"{name}: expected {wanted} of them, got {len(labels)}")


def _text_size(texts: Sequence[str | None] | None, points: float) -> tuple[int, int]:
    """Width and height in pixels of the largest of some texts, 0 without any."""
    from matplotlib.figure import Figure

    figure = Figure(dpi=DPI)
    texts = [figure.text(0, 0, text, size=points) for text in texts or [] if text]
    sizes = [text.get_window_extent().size for text in texts]
    return tuple(np.ceil(np.max([(0, 0), *sizes], axis=0)).astype(int).tolist())


# --- images ---------------------------------------------------------------------------


def grid(
    images,
    *,
    alt: str,
    columns: int = 8,
    titles: Labels = None,
    row_labels: Labels = None,
    column_labels: Labels = None,
    title: str | None = None,
    scale: int | None = None,
) -> Picture:
    """Images in rows, each pixel drawn as a whole square of `scale` x `scale` pixels.

    images: (N, C, H, W), or (rows, columns, C, H, W), or a list of rows (N, C, H, W) or
    of images (C, H, W); floats in [0, 1], C = 1 or 3. columns: images in a row (a list
    of rows has its own). titles: one per image, above it. row_labels stand at the left,
    column_labels on top. scale: None draws an image about 96 pixels wide, or smaller
    where a row would not fit (averaging pixels if nothing else helps).
    """
    x = _stack(images)
    if x.ndim == 5:
        columns, x = x.shape[1], x.flatten(0, 1)
    x = _images(x)
    columns = min(columns, len(x))
    rows = -(-len(x) // columns)
    _check_count(titles, "titles", len(x))
    _check_count(row_labels, "row_labels", rows)
    _check_count(column_labels, "column_labels", columns)
    with _style():
        label_width, _ = _text_size(row_labels, 13)
        words, over = _text_size(titles, 12)
        column_words, column_height = _text_size(column_labels, 13)
        title_width, title_height = _text_size([title], 14)
    words, edge, gap = max(words, column_words) + 6, 8, 6
    left = edge + (label_width + 12 if row_labels else 0)
    over += 6 if titles else 0
    top = edge + (title_height + 12 if title else 0)
    top += column_height + 8 if column_labels else 0

    def total(scale: float) -> int:
        pitch = max(round(x.shape[3] * scale), words) + gap
        return left + columns * pitch - gap + edge

    if scale is None:
        scale = max(1, round(FACE / x.shape[3]))
        while total(scale) > MAX_WIDTH and x.shape[3] * scale > 16:
            scale = scale - 1 if scale > 1 else 1 / (round(1 / scale) + 1)
    elif scale < 1 or scale != int(scale):
        raise ValueError(f"scale={scale}: expected a whole number from 1 up")
    tiles = _pixels(x, scale)
    high, wide = tiles.shape[1:3]
    step = max(wide, words) + gap
    height = max(40, top + rows * (over + high + gap) - gap + edge)
    width = max(100, total(scale), title_width + 2 * edge)
    page = np.full((height, width, 3), 255, np.uint8)
    with canvas(alt, rows=0, width=width, height=height) as drawing:

        def write(px: float, py: float, text: str, va: str = "bottom", **how) -> None:
            drawing.figure.text(px, height - py, text, transform=None, va=va, **how)

        for i, tile in enumerate(tiles):
            row, column = divmod(i, columns)
            px = left + column * step + (step - gap - wide) // 2
            py = top + row * (over + high + gap) + over
            page[py - 1 : py + high + 1, px - 1 : px + wide + 1] = 208  # a thin frame
            page[py : py + high, px : px + wide] = tile
            if titles:
                write(px + wide / 2, py - 5, titles[i], size=12, ha="center")
            if column_labels and row == 0:
                write(px + wide / 2, top - 7, column_labels[i], ha="center")
            if row_labels and column == 0:
                right = {"ha": "right", "multialignment": "right"}
                write(left - 12, py + high / 2, row_labels[row], "center", **right)
        if title:
            write(edge, edge, title, "top", size=14)
        drawing.figure.figimage(page, origin="upper")
    return drawing.picture


def pairs(
    x,
    x_hat,
    *,
    alt: str,
    difference: bool = False,
    labels: Sequence[str] = ("original", "reconstruction"),
) -> Picture:
    """Images above, their reconstructions below, and |x_hat - x| if asked for.

    x, x_hat: (N, C, H, W) in [0, 1], N about 8. The difference is black where there is
    none and in full color where it is largest; its label tells how large.
    """
    x, x_hat = _images(x, "x"), _images(x_hat, "x_hat")
    if x.shape != x_hat.shape:
        raise ValueError(f"x {tuple(x.shape)} and x_hat {tuple(x_hat.shape)} differ")
    rows, labels = [x, x_hat], list(labels)
    if difference:
        error = (x_hat - x).abs()
        limit = max(error.max().item(), 1e-12)
        rows.append(error / limit)
        labels.append(f"|difference|\n(0 to {limit:.2g})")
    return grid(rows, alt=alt, row_labels=labels)


# --- numbers --------------------------------------------------------------------------


def _check_series(series: Mapping, limit: int = len(COLORS)) -> None:
    got = len(series) if isinstance(series, Mapping) else type(series).__name__
    if not isinstance(series, Mapping) or not 1 <= len(series) <= limit:
        raise ValueError(f"expected a dict of 1 to {limit} names, got {got}")


def _note(axes, text: str, at, offset: tuple[float, float], **how) -> None:
    """Writes text some points beside a place in the axes."""
    axes.annotate(text, at, xytext=offset, textcoords="offset points", **how)


def _labels_at_right(axes, ends: list[tuple[float, str, str]]) -> None:
    """Writes (y, text, color) beside the axes at the height of y, pushed apart."""
    from matplotlib.colors import to_rgb

    axes.figure.draw_without_rendering()
    box, gap, place = axes.get_window_extent(), 21, axes.transData.transform
    marks = sorted((place((1, y))[1], *rest) for y, *rest in ends)
    heights, floor, ceiling = [], box.y0, box.y1
    for pixel, *_ in marks:
        heights.append(max(min(pixel, box.y1), floor))
        floor = heights[-1] + gap
    for i in reversed(range(len(heights))):
        heights[i] = min(heights[i], ceiling)
        ceiling = heights[i] - gap
    for pixel, (_, text, color) in zip(heights, marks, strict=True):
        at = (1, (pixel - box.y0) / box.height)
        dark = tuple(0.78 * part for part in to_rgb(color))  # text needs contrast
        _note(axes, text, at, (8, 0), xycoords="axes fraction", va="center", color=dark)


def _vlines(axes, lines: Lines) -> None:
    """Dashed vertical lines with their texts on top."""
    above = {"xycoords": ("data", "axes fraction"), "ha": "center", "va": "bottom"}
    for text, at in (lines or {}).items():
        axes.axvline(at, **_DASHES)
        _note(axes, text, (at, 1), (0, 4), color="#555555", **above)


def _legend(axes, title: str | None = None, **how) -> None:
    """A legend at the right of the axes, where it covers no data."""
    how |= {"loc": "upper left", "bbox_to_anchor": (1.01, 1), "alignment": "left"}
    how |= {"title_fontsize": 12, "handlelength": 1.2, "handletextpad": 0.5}
    axes.legend(title=title, **how)


def _colorbar(page, marks, axes, label: str, aspect: float = 20) -> None:
    how = {"fraction": 0.05, "pad": 0.02, "aspect": aspect}
    bar = page.figure.colorbar(marks, ax=axes, label=label, **how)
    bar.outline.set_visible(False)
    bar.solids.set_alpha(1)


def _logarithmic(axes, which: str, ticks=None) -> None:
    """A logarithmic axis with plain numbers: at given ticks, or at 1, 2, 5, 10 ..."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    if ticks is not None or high < 300 * low:
        given = FixedLocator(ticks) if ticks is not None else LogLocator(subs=(1, 2, 5))
        axis.set_major_locator(given)
        axis.set_minor_locator(NullLocator())
    if high < 1e5 * low:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def curves(
    series: Mapping[str, object],
    *,
    xlabel: str,
    ylabel: str,
    alt: str,
    log: bool = False,
    log_x: bool = False,
    markers: bool = False,
    hlines: Lines = None,
    vlines: Lines = None,
    ylim: tuple[float, float] | None = None,
) -> Picture:
    """Lines with their names beside them: training curves, sweeps, intervals as bands.

    series: name -> y, or (x, y), or (x, y, low, high) with a band from low to high; at
    most 8 names, "" is not written. Without x the first value stands at 1, as the first
    epoch does. NaN leaves a gap. log, log_x: logarithmic axes. markers: a dot at each
    value. hlines, vlines: text -> value of a dashed line.
    """
    _check_series(series)
    ends = []
    with canvas(alt, height=420) as page:
        axes = page.axes[0]
        for (name, data), color in zip(series.items(), COLORS, strict=False):
            data = data if isinstance(data, tuple) else (range(1, len(data) + 1), data)
            parts = [_numbers(part, f"series {name!r}") for part in data]
            lengths = [len(part) for part in parts]
            if len(parts) not in (2, 4) or len(set(lengths)) != 1:
                raise ValueError(
                    f"series {name!r}: expected y, (x, y) or (x, y, low, high) of one "
                    f"length, got lengths {lengths}"
                )
            x, y, *band = parts
            shown = y[np.isfinite(y)]
            if log and (shown <= 0).any():
                raise ValueError(f"series {name!r}: {shown.min():.3g} has no logarithm")
            if band:
                axes.fill_between(x, *band, color=color, alpha=0.2, lw=0)
            (line,) = axes.plot(x, y, color=color, clip_on=ylim is not None, zorder=3)
            line.set_marker("o" if markers or len(shown) == 1 else "")
            ends.append((shown[-1], name, color))
        for text, at in (hlines or {}).items():
            axes.axhline(at, **_DASHES)
            ends.append((at, text, GRAY))
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.margins(x=0.01)
        if log:
            _logarithmic(axes, "y")
        if log_x:
            _logarithmic(axes, "x", x if len(x) <= 10 else None)
        if ylim is not None:
            axes.set_ylim(*ylim)
        _vlines(axes, vlines)
        _labels_at_right(axes, [end for end in ends if end[1]])
    return page.picture


def bars(
    values: Mapping[str, object],
    *,
    xlabel: str,
    alt: str,
    errors: Mapping[str, object] | None = None,
    fmt: str = "{:.3g}",
    vlines: Lines = None,
) -> Picture:
    """Horizontal bars, one per name, with the number at the end of each.

    values: name -> number, or name -> {group: number} with a color per group. xlabel:
    the quantity and its unit. errors: shaped like values, half the length of each
    interval. fmt: how numbers are written. vlines: text -> value of a dashed line.
    """
    _check_series(values, 40)
    table, errors = (
        {k: v if isinstance(v, Mapping) else {"": v} for k, v in numbers.items()}
        for numbers in (values, errors or {})
    )
    groups = list(dict.fromkeys(group for row in table.values() for group in row))
    _check_series(dict.fromkeys(groups))
    thick, side_by_side = 0.8 / len(groups), len(groups) > 1
    row_height = 12 + 26 * len(groups) if side_by_side else 40
    height = 90 + 30 * bool(vlines) + row_height * len(table)
    plate = {"bbox": {"fc": "white", "ec": "none", "pad": 1, "alpha": 0.85}}
    with canvas(alt, height=height) as page:
        axes = page.axes[0]
        for at, (name, row) in enumerate(table.items()):
            for group, value in row.items():
                g, value = groups.index(group), float(value)
                if not np.isfinite(value):
                    raise ValueError(f"{name!r}: cannot draw a bar for {value}")
                error = errors.get(name, {}).get(group, 0.0)
                y = at + (g - (len(groups) - 1) / 2) * thick
                axes.barh(y, value, 0.9 * thick, color=COLORS[g])
                if error:
                    axes.errorbar(value, y, xerr=error, color=BLACK, lw=2, capsize=4)
                side, ha = (-1, "right") if value < 0 else (1, "left")
                text, end = fmt.format(value).replace("-", "−"), value + side * error
                where = {"offset": (6 * side, 0), "ha": ha, "va": "center"}
                _note(axes, text, (end, y), **where, **plate)
        axes.set_yticks(range(len(table)), list(table), fontsize=13)
        axes.set(xlabel=xlabel, ylim=(len(table) - 0.5, -0.5))
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        low, high = axes.get_xlim()
        room = 0.1 * (high - low)  # for the numbers
        axes.set_xlim(low - room * (low < 0), high + room * (high > 0))
        if low < 0 < high:
            axes.axvline(0, color="#555555", lw=0.8)
        if side_by_side:
            for group, color in zip(groups, COLORS, strict=False):
                axes.barh(0, 0, color=color, label=group)
            _legend(axes)
        _vlines(axes, vlines)
    return page.picture


def histogram(
    series: Mapping[str, object],
    *,
    xlabel: str,
    alt: str,
    bins: int = 40,
    log_x: bool = False,
    vlines: Lines = None,
) -> Picture:
    """Densities of several sets of numbers on common bins; each area is 1.

    series: name -> numbers of any shape. log_x: bins of equal ratio, density per
    decade. vlines: text -> value of a dashed line.
    """
    _check_series(series)
    data = {k: _numbers(torch.as_tensor(v).flatten(), k) for k, v in series.items()}
    everything = np.concatenate(list(data.values()))
    if not np.isfinite(everything).all() or (log_x and everything.min() <= 0):
        raise ValueError("histogram: numbers are NaN, infinite or, with log_x, <= 0")
    scale = np.log10 if log_x else np.asarray
    edges = np.histogram_bin_edges(scale(everything), bins)
    places = 10**edges if log_x else edges
    with canvas(alt, height=360) as page:
        axes = page.axes[0]
        for (name, values), color in zip(data.items(), COLORS, strict=False):
            density = np.histogram(scale(values), edges, density=True)[0]
            axes.stairs(density, places, fill=True, color=color, alpha=0.15)
            axes.stairs(density, places, color=color, lw=2.5, label=name)
        axes.set(xlabel=xlabel, ylabel="density per decade" if log_x else "density")
        axes.margins(x=0.01)
        if log_x:
            _logarithmic(axes, "x")
        axes.set_ylim(0, None)
        if len(data) > 1:
            _legend(axes)
        _vlines(axes, vlines)
    return page.picture


def heat(
    matrix,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    *,
    alt: str,
    xlabel: str = "",
    ylabel: str = "",
    label: str = "",
    fmt: str = "{:.2f}",
    low: float | None = None,
    high: float | None = None,
) -> Picture:
    """A matrix as colored cells with its numbers written in them.

    matrix: (rows, columns); NaN is left empty. low, high: ends of the color scale
    (default: the data's); with low < 0 zero is white. label: what the numbers are.
    """
    values = _numbers(matrix, "matrix", 2)
    rows, columns = values.shape
    _check_count(row_labels, "row_labels", rows)
    _check_count(column_labels, "column_labels", columns)
    low = np.nanmin(values) if low is None else low
    high = np.nanmax(values) if high is None else high
    colors = DIVERGING if low < 0 else "Blues"
    low, high = (min(low, -high), max(-low, high)) if low < 0 else (low, high)
    width, height = min(MAX_WIDTH, 260 + 64 * columns), max(200, 110 + 36 * rows)
    with canvas(alt, width=width, height=height) as page:
        axes = page.axes[0]
        white = {"linewidth": 2, "edgecolor": "white"}
        mesh = axes.pcolormesh(values, cmap=colors, vmin=low, vmax=high, **white)
        middle = {"size": 12, "ha": "center", "va": "center"}
        for (i, j), value in np.ndenumerate(values):
            if np.isfinite(value):
                light = np.dot(mesh.cmap(mesh.norm(value))[:3], (0.3, 0.59, 0.11))
                ink, text = (BLACK if light > 0.5 else "white"), fmt.format(value)
                axes.text(j + 0.5, i + 0.5, text.replace("-", "−"), color=ink, **middle)
        axes.set_xticks(np.arange(columns) + 0.5, column_labels)
        axes.set_yticks(np.arange(rows) + 0.5, row_labels)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.invert_yaxis()
        axes.grid(False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        _colorbar(page, mesh, axes, label)
    return page.picture


def scatter_map(
    points,
    values=None,
    *,
    alt: str,
    panels: Mapping[str, object] | None = None,
    names: Labels = None,
    label: str = "",
    xlabel: str = "$z_1$",
    ylabel: str = "$z_2$",
    size: float = 12,
) -> Picture:
    """Points in the plane, colored by a number (color scale) or a class (legend).

    points: (N, 2). values: (N,), floats for a scale, integers for classes, whose names
    are names[class]. label: what the color tells. panels: title -> values draws the
    same points once for each, on one common scale.
    """
    xy = _numbers(points, "points", 2)
    if xy.shape[1] != 2:
        raise ValueError(f"points: expected (N, 2), got {xy.shape}")
    values = torch.zeros(len(xy)).long() if values is None else values
    panels = dict(panels or {"": values})
    for name, v in panels.items():
        panels[name] = v = torch.as_tensor(v).detach().cpu()
        if v.shape != (len(xy),):
            raise ValueError(f"values {name!r}: {tuple(v.shape)} for {len(xy)} points")
    floats = [v for v in panels.values() if v.is_floating_point()]
    low = min((v.min().item() for v in floats), default=0)
    high = max((v.max().item() for v in floats), default=1)
    columns, rows = min(4, len(panels)), -(-len(panels) // 4)
    width = 560 if columns == 1 else min(MAX_WIDTH, 90 + 310 * columns)
    height = round((width - 100) / columns * rows) + 30 + 40 * rows
    how = {"s": size, "alpha": 0.8, "lw": 0}
    with canvas(alt, rows, columns, width, height) as page:
        for axes, (name, v) in zip(page.axes, panels.items(), strict=False):
            axes.set_aspect("equal")
            axes.set_title(name)
            if v.is_floating_point():
                scale = {"cmap": CONTINUOUS, "vmin": low, "vmax": high}
                marks = axes.scatter(*xy.T, c=v, **scale, **how)
            else:
                for k, index in enumerate(v.unique().tolist()):
                    mark = {"color": COLORS[k % 8], "marker": "o^s"[k // 8 % 3]}
                    mark["label"] = names[index] if names else str(index)
                    axes.scatter(*xy[v == index].T, **mark, **how)
        for i, axes in enumerate(page.axes):
            axes.set_visible(i < len(panels))
            left, below = i % columns == 0, i + columns >= len(panels)
            axes.tick_params(labelleft=left, labelbottom=below)
            axes.set(xlabel=xlabel if below else "", ylabel=ylabel if left else "")
        if floats:
            _colorbar(page, marks, page.axes, label, 20 + 10 * (rows > 1))
        elif len(v.unique()) > 1:
            _legend(page.axes[columns - 1], label, markerscale=2.5)
    return page.picture


def map_of_the_course(highlight: str = "both", images=None) -> Picture:
    """The course's two arrows: compress (image to latent), generate (latent to image).

    highlight: "compress", "generate" or "both"; the other arrow is pale. images: up to
    5 faces (N, C, H, W), best at size 56, that stand on the sheet (default: drawings).
    """
    from gencourse import _map

    if highlight not in ("both", "compress", "generate"):
        raise ValueError(f"{highlight=}: expected 'compress', 'generate' or 'both'")
    x = None if images is None else _images(images)[:5]
    tiles = None if x is None else _pixels(x, 56 / x.shape[3])
    with canvas(_map.ALT.format(highlight), width=960, height=420) as page:
        _map.draw(page, tiles, highlight, {"compress": BLUE, "generate": ORANGE})
    return page.picture


def explorer(
    draw: Callable[[list[float]], Tensor | Picture],
    sliders: Sequence,
    *,
    alt: str,
    twin: Picture | None = None,
    sample: Callable[[], Sequence[float]] | None = None,
):
    """Sliders that redraw an image at once; in a stored notebook the twin is seen.

    draw: takes the list of the sliders' values, gives one image (C, H, W) in [0, 1] or
    a Picture; what it raises while a slider moves is shown below the sliders. sliders:
    names (from -1 to 1, at 0) or (name, low, high, value[, step]). twin: the static
    picture, such as `grid` with a row per slider (default: the first image). sample:
    gives the values for the button "random" (default: uniform).
    """
    from gencourse._explorer import Explorer

    _check_alt(alt)

    def picture(values: list[float]) -> Picture:
        drawn = draw(values)
        if isinstance(drawn, Picture):
            return drawn
        x = _images(drawn, "draw(values)")[:1]
        return Picture(_encode(_pixels(x, max(1, 320 // x.shape[3]))[0], alt, 1), alt)

    return Explorer(picture, sliders, alt, twin, sample)
