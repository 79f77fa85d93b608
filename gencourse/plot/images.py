"""Images in rows, or above their reconstructions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gencourse.language import translate
from gencourse.plot.picture import (
    DPI,
    FACE,
    MAX_WIDTH,
    Labels,
    Picture,
    canvas,
    style,
    use_fallback_fonts,
)

EDGE, GAP = 8, 6  # pixels of white around a grid and between its images


def _stack(images) -> Tensor:
    if isinstance(images, (list, tuple)):
        images = torch.stack([torch.as_tensor(image).cpu() for image in images])
    return torch.as_tensor(images).detach().cpu()


def checked_images(images, name: str = "images") -> Tensor:
    """Return images as (N, C, H, W) floats in [0, 1] on the CPU.

    Linear reconstructions may overshoot by up to 0.5 and are clipped.
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
            "apply a sigmoid to logits, divide bytes by 255"
        )
    return x.clamp(0, 1)


def squares(x: Tensor, scale: float) -> np.ndarray:
    """(N, H, W, 3) bytes: a pixel becomes a square, or is averaged if scale < 1."""
    if scale < 1:
        size = [max(1, round(side * scale)) for side in x.shape[2:]]
        x = torch.nn.functional.interpolate(x, size, mode="area")
    else:
        x = x.repeat_interleave(int(scale), 2).repeat_interleave(int(scale), 3)
    return (x * 255).round().byte().expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()


def _text_size(texts: Labels, points: float) -> tuple[int, int]:
    """Width and height in pixels of the largest of the texts, 0 without any."""
    from matplotlib.figure import Figure

    figure = Figure(dpi=DPI)
    shown = [translate(text) for text in texts or [] if text]
    texts = [figure.text(0, 0, text, size=points) for text in shown]
    use_fallback_fonts(figure)
    sizes = [text.get_window_extent().size for text in texts]
    return tuple(np.ceil(np.max([(0, 0), *sizes], axis=0)).astype(int).tolist())


def _fitting_scale(side: int, columns: int, text_width: int, room: int) -> float:
    """The scale for images 96 pixels wide, or less where a row exceeds the room."""
    scale = max(1, round(FACE / side))
    while side * scale > 16:
        pitch = max(round(side * scale), text_width) + GAP
        if columns * pitch - GAP <= room:
            break
        scale = scale - 1 if scale > 1 else 1 / (round(1 / scale) + 1)
    return scale


def _check_count(labels: Labels, name: str, wanted: int) -> None:
    if labels is not None and len(labels) != wanted:
        raise ValueError(f"{name}: expected {wanted} of them, got {len(labels)}")


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

    Args:
        images: (N, C, H, W), or (rows, columns, C, H, W), or a list of rows
            (N, C, H, W) or of images (C, H, W); floats in [0, 1], C = 1 or 3.
        columns: images in a row; rows given as such keep their length.
        titles: one per image, above it.
        row_labels, column_labels: at the left of the rows, above the columns.
        scale: None draws an image about 96 pixels wide, or smaller where a row would
            not fit (averaging pixels if necessary).
    """
    x = _stack(images)
    if x.ndim == 5:
        columns, x = x.shape[1], x.flatten(0, 1)
    x = checked_images(x)
    columns = min(columns, len(x))
    rows = -(-len(x) // columns)
    _check_count(titles, "titles", len(x))
    _check_count(row_labels, "row_labels", rows)
    _check_count(column_labels, "column_labels", columns)
    with style():
        row_width, _ = _text_size(row_labels, 13)
        text_width, above = _text_size(titles, 12)
        column_width, column_height = _text_size(column_labels, 13)
        title_width, title_height = _text_size([title], 14)
    text_width = max(text_width, column_width) + GAP
    above += 6 if titles else 0  # each row
    left = EDGE + (row_width + 12 if row_labels else 0)
    top = EDGE + (title_height + 12 if title else 0) + above  # of the first image
    top += column_height + 8 if column_labels else 0
    if scale is None:
        room = MAX_WIDTH - left - EDGE
        scale = _fitting_scale(x.shape[3], columns, text_width, room)
    tiles = squares(x, scale)
    high, wide = tiles.shape[1:3]
    pitch_x, pitch_y = max(wide, text_width) + GAP, above + high + GAP
    width = max(left + columns * pitch_x - GAP + EDGE, title_width + 2 * EDGE)
    height = top + (rows - 1) * pitch_y + high + EDGE
    corners = [  # of the images
        (left + column * pitch_x + (pitch_x - GAP - wide) // 2, top + row * pitch_y)
        for row in range(rows)
        for column in range(columns)
    ]
    page = np.full((height, width, 3), 255, np.uint8)
    for tile, (px, py) in zip(tiles, corners, strict=False):
        page[py - 1 : py + high + 1, px - 1 : px + wide + 1] = 208  # a thin frame
        page[py : py + high, px : px + wide] = tile
    with canvas(alt, rows=0, width=width, height=height) as drawing:
        drawing.figure.figimage(page, origin="upper")

        def write(px: float, py: float, text: str, **options) -> None:
            options = {"va": "bottom", "ha": "center", "transform": None} | options
            drawing.figure.text(px, height - py, text, **options)

        for text, (px, py) in zip(titles or (), corners, strict=False):
            write(px + wide / 2, py - 5, text, size=12)
        for text, (px, py) in zip(column_labels or (), corners, strict=False):
            write(px + wide / 2, py - above - 7, text)
        for text, (_, py) in zip(row_labels or (), corners[::columns], strict=False):
            right = {"va": "center", "ha": "right", "multialignment": "right"}
            write(left - 12, py + high / 2, text, **right)
        if title:
            write(EDGE, EDGE, title, va="top", ha="left", size=14)
    return drawing.picture


def pairs(
    x,
    x_hat,
    *,
    alt: str,
    difference: bool = False,
    labels: Sequence[str] = ("original", "reconstruction"),
) -> Picture:
    """Images above, their reconstructions below, and optionally |x_hat - x|.

    Args:
        x, x_hat: (N, C, H, W) in [0, 1], N about 8.
        difference: adds a row that is black where x_hat equals x and brightest where
            they differ most; its label says by how much.
        labels: the names of the first two rows.
    """
    x, x_hat = checked_images(x, "x"), checked_images(x_hat, "x_hat")
    if x.shape != x_hat.shape:
        raise ValueError(f"x {tuple(x.shape)} and x_hat {tuple(x_hat.shape)} differ")
    rows, labels = [x, x_hat], list(labels)
    if difference:
        error = (x_hat - x).abs()
        limit = max(error.max().item(), 1e-12)
        rows.append(error / limit)
        labels.append(f"|difference|\n(0 to {limit:.2g})")
    return grid(rows, alt=alt, row_labels=labels)
