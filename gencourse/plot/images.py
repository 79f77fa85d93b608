"""Images as they come: in rows, or above their reconstructions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gencourse.plot.picture import (
    DPI,
    FACE,
    MAX_WIDTH,
    Labels,
    Picture,
    canvas,
    check_count,
    style,
)


def _stack(images) -> Tensor:
    if isinstance(images, (list, tuple)):
        images = [torch.as_tensor(image).detach().cpu() for image in images]
        shapes = sorted({tuple(image.shape) for image in images})
        if len(shapes) != 1:
            raise ValueError(f"expected images or rows of one shape, got {shapes}")
        images = torch.stack(images)
    return torch.as_tensor(images).detach().cpu()


def checked_images(images, name: str = "images") -> Tensor:
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


def squares(x: Tensor, scale: float) -> np.ndarray:
    """(N, H, W, 3) bytes: a pixel becomes a square, or is averaged if scale < 1."""
    if scale < 1:
        size = [max(1, round(side * scale)) for side in x.shape[2:]]
        x = torch.nn.functional.interpolate(x, size, mode="area")
    else:
        x = x.repeat_interleave(int(scale), 2).repeat_interleave(int(scale), 3)
    return (x * 255).round().byte().expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()


def _text_size(texts: Sequence[str | None] | None, points: float) -> tuple[int, int]:
    """Width and height in pixels of the largest of some texts, 0 without any."""
    from matplotlib.figure import Figure

    figure = Figure(dpi=DPI)
    texts = [figure.text(0, 0, text, size=points) for text in texts or [] if text]
    sizes = [text.get_window_extent().size for text in texts]
    return tuple(np.ceil(np.max([(0, 0), *sizes], axis=0)).astype(int).tolist())


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
    x = checked_images(x)
    columns = min(columns, len(x))
    rows = -(-len(x) // columns)
    check_count(titles, "titles", len(x))
    check_count(row_labels, "row_labels", rows)
    check_count(column_labels, "column_labels", columns)
    with style():
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
    tiles = squares(x, scale)
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
