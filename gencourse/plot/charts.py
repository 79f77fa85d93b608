"""Numbers: curves, bars, histograms, matrices, points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from gencourse.language import translate
from gencourse.plot.picture import (
    BLACK,
    COLORS,
    GRAY,
    MAX_WIDTH,
    Lines,
    Picture,
    canvas,
)

_DASHES = {"color": GRAY, "lw": 1.5, "ls": (0, (4, 3)), "zorder": 1}


def _numbers(values, name: str, ndim: int = 1) -> np.ndarray:
    """Return an array; at least one of its numbers is finite."""
    array = torch.as_tensor(values).detach().cpu().double().numpy()
    if array.ndim != ndim or array.size == 0:
        raise ValueError(f"{name}: expected {ndim}-D numbers, got shape {array.shape}")
    if not np.isfinite(array).any():
        raise ValueError(f"{name}: none of its {array.size} numbers is finite")
    return array


def _check_series(series: Mapping, most: int = len(COLORS)) -> None:
    got = len(series) if isinstance(series, Mapping) else type(series).__name__
    if got not in range(1, most + 1):
        raise ValueError(f"expected a dict of 1 to {most} names, got {got}")


def _note(axes, text: str, at, offset: tuple[float, float], **options) -> None:
    """Write text beside a place in the axes, shifted by an offset in points."""
    axes.annotate(text, at, xytext=offset, textcoords="offset points", **options)


def _labels_at_right(axes, ends: list[tuple[float, str, str]]) -> None:
    """Write each (y, text, color) beside the axes at height y, or as near as fits."""
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
    """Draw dashed vertical lines with their texts above the axes."""
    above = {"xycoords": ("data", "axes fraction"), "ha": "center", "va": "bottom"}
    for text, at in (lines or {}).items():
        axes.axvline(at, **_DASHES)
        _note(axes, text, (at, 1), (0, 4), color="#555555", **above)


def _legend(axes) -> None:
    """Draw a legend at the right of the axes, where it covers no data."""
    place = {"loc": "upper left", "bbox_to_anchor": (1.01, 1)}
    axes.legend(**place, handlelength=1.2, handletextpad=0.5)


def _colorbar(page, marks, axes, label: str, aspect: float = 20) -> None:
    shape = {"fraction": 0.05, "pad": 0.02, "aspect": aspect}
    bar = page.figure.colorbar(marks, ax=axes, label=label, **shape)
    bar.outline.set_visible(False)
    bar.solids.set_alpha(1)


def _logarithmic(axes, which: str, ticks=None) -> None:
    """Make an axis logarithmic, with plain numbers at ticks or at 1, 2, 5, 10 ..."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    if ticks is not None or high < 300 * low:
        one_two_five = LogLocator(subs=(1, 2, 5))
        axis.set_major_locator(one_two_five if ticks is None else FixedLocator(ticks))
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

    Args:
        series: name -> y, or (x, y), or (x, y, low, high) with a band from low to high;
            at most 8. Without x the first value is at 1, as the first epoch is. NaN
            leaves a gap.
        log, log_x: logarithmic axes.
        markers: a dot at each value.
        hlines, vlines: text -> value of a dashed line.
    """
    _check_series(series)
    ends = []
    with canvas(alt, height=420) as page:
        axes = page.axes[0]
        for (name, data), color in zip(series.items(), COLORS, strict=False):
            data = data if isinstance(data, tuple) else (range(1, len(data) + 1), data)
            parts = [_numbers(part, f"series {name!r}") for part in data]
            if len(parts) not in (2, 4) or len({len(part) for part in parts}) > 1:
                raise ValueError(
                    f"series {name!r}: expected y, (x, y) or (x, y, low, high) of one "
                    f"length, got lengths {[len(part) for part in parts]}"
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
        _labels_at_right(axes, ends)
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

    Args:
        values: name -> number, or name -> {group: number} with a color per group.
        xlabel: the quantity and its unit.
        errors: half the length of each interval, in a dict like values.
        fmt: the format of the numbers.
        vlines: text -> value of a dashed line.
    """
    _check_series(values, 40)
    table, errors = (
        {k: v if isinstance(v, Mapping) else {"": v} for k, v in numbers.items()}
        for numbers in (values, errors or {})
    )
    groups = list(dict.fromkeys(group for row in table.values() for group in row))
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
                place = {"offset": (6 * side, 0), "ha": ha, "va": "center"}
                _note(axes, text, (end, y), **place, **plate)
        axes.set_yticks(range(len(table)), list(map(translate, table)), fontsize=13)
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
    bins: int | Sequence[float] = 40,
    vlines: Lines = None,
) -> Picture:
    """Densities of several sets of numbers on common bins; each area is 1.

    Args:
        series: name -> numbers of any shape.
        bins: their number, or their edges.
        vlines: text -> value of a dashed line.
    """
    _check_series(series)
    data = {k: _numbers(torch.as_tensor(v).flatten(), k) for k, v in series.items()}
    edges = np.histogram_bin_edges(np.concatenate(list(data.values())), bins)
    with canvas(alt, height=360) as page:
        axes = page.axes[0]
        for (name, values), color in zip(data.items(), COLORS, strict=False):
            density, _ = np.histogram(values, edges, density=True)
            axes.stairs(density, edges, fill=True, color=color, alpha=0.15)
            axes.stairs(density, edges, color=color, lw=2.5, label=name)
        axes.set(xlabel=xlabel, ylabel="density")
        axes.margins(x=0.01)
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
    low: float,
    high: float,
    xlabel: str = "",
    label: str = "",
) -> Picture:
    """A matrix as colored cells with its numbers written in them.

    Args:
        matrix: (rows, columns); NaN is left empty.
        low, high: ends of the color scale.
        label: what the numbers are.
    """
    values = _numbers(matrix, "matrix", 2)
    rows, columns = values.shape
    width, height = min(MAX_WIDTH, 260 + 64 * columns), max(200, 110 + 36 * rows)
    with canvas(alt, width=width, height=height) as page:
        axes = page.axes[0]
        white = {"linewidth": 2, "edgecolor": "white"}
        mesh = axes.pcolormesh(values, cmap="Blues", vmin=low, vmax=high, **white)
        middle = {"size": 12, "ha": "center", "va": "center"}
        for (i, j), value in np.ndenumerate(values):
            if np.isfinite(value):
                light = np.dot(mesh.cmap(mesh.norm(value))[:3], (0.3, 0.59, 0.11))
                ink = BLACK if light > 0.5 else "white"
                text = f"{value:.2f}".replace("-", "−")
                axes.text(j + 0.5, i + 0.5, text, color=ink, **middle)
        axes.set_xticks(
            np.arange(columns) + 0.5, [translate(str(text)) for text in column_labels]
        )
        axes.set_yticks(
            np.arange(rows) + 0.5, [translate(str(text)) for text in row_labels]
        )
        axes.set(xlabel=xlabel)
        axes.invert_yaxis()
        axes.grid(False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        _colorbar(page, mesh, axes, label)
    return page.picture


def scatter_map(
    points, *, panels: Mapping[str, object], alt: str, label: str = "", size: float = 12
) -> Picture:
    """The same points of the plane once for each panel, colored by its numbers.

    Args:
        points: (N, 2), such as two-dimensional codes.
        panels: title -> N numbers; all panels share one color scale.
        label: what the colors mean.
        size: area of a dot in square points.
    """
    xy = _numbers(points, "points", 2)
    if xy.shape[1] != 2:
        raise ValueError(f"points: expected (N, 2), got {xy.shape}")
    colors = [_numbers(values, title) for title, values in panels.items()]
    low, high = np.nanmin(colors), np.nanmax(colors)
    columns, rows = min(4, len(panels)), -(-len(panels) // 4)
    width = 560 if columns == 1 else min(MAX_WIDTH, 90 + 310 * columns)
    height = round((width - 100) / columns * rows) + 30 + 40 * rows
    dots = {"s": size, "alpha": 0.8, "lw": 0}
    scale = {"cmap": "viridis", "vmin": low, "vmax": high}
    with canvas(alt, rows, columns, width, height) as page:
        for axes, title, numbers in zip(page.axes, panels, colors, strict=False):
            axes.set_aspect("equal")
            axes.set_title(title)
            marks = axes.scatter(*xy.T, c=numbers, **scale, **dots)
        for i, axes in enumerate(page.axes):
            axes.set_visible(i < len(panels))
            left, below = i % columns == 0, i + columns >= len(panels)
            axes.tick_params(labelleft=left, labelbottom=below)
            axes.set(xlabel="$z_1$" if below else "", ylabel="$z_2$" if left else "")
        _colorbar(page, marks, page.axes, label, 20 + 10 * (rows > 1))
    return page.picture
