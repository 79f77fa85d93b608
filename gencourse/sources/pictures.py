"""Pictures in files: which endings are read, and how a file becomes a square."""

from __future__ import annotations

import contextlib
import io
import os
import threading
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from gencourse.sources.cache import UnreadableImages
from gencourse.sources.source import shown

# Only these decoders run, whatever a file is called (EPS would start Ghostscript).
DECODERS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# Endings of pictures that are not read, camera raw formats last.
OTHERS = """.avif .avifs .dds .eps .exr .hdr .heic .heif .hif .ico .j2k .jp2 .jxl .mpo
    .pfm .psd .qoi .svg .svgz .tga .webp .xcf .3fr .arw .cr2 .cr3 .crw .dng .erf .nef
    .nrw .orf .pef .raf .raw .rw2 .sr2 .srw .x3f"""
THREADS = min(8, os.cpu_count() or 1)
# Pictures of more pixels than this (after a JPEG is reduced) are decoded one at a time.
LARGE = 2**23
_one_at_a_time = threading.Lock()


@cache
def formats() -> tuple[list[str], frozenset[str], frozenset[str]]:
    """Pillow's decoders, the endings that they read, and those of other pictures."""
    Image.init()
    decoders = [name for name in DECODERS if name in Image.OPEN]
    endings = Image.registered_extensions().items()
    # .pfm holds floats, whose range is unknown.
    read = {e for e, name in endings if name in decoders} - {".pfm"}
    return decoders, frozenset(read), frozenset(OTHERS.split()) - read


def read_images(paths: list[Path], size: int, channels: int) -> Tensor:
    """uint8 (N, channels, size, size), decoded by several threads.

    Raises:
        UnreadableImages: After every image was tried.
    """

    def attempt(path: Path) -> np.ndarray | str:
        try:
            return decode(path, size, channels)
        except Exception as error:  # a damaged image can raise anything in a decoder
            reason = str(error).partition(" <_io")[0] or type(error).__name__
            return shown(f"{path}: {reason}")

    with warnings.catch_warnings(action="ignore"), ThreadPoolExecutor(THREADS) as pool:
        images = list(pool.map(attempt, paths))
    problems = [image for image in images if isinstance(image, str)]
    if problems:
        raise UnreadableImages(problems, len(paths))
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def all_gray(paths: Iterable[Path]) -> bool:
    """Whether no image has colors; those that cannot be read are named later."""
    decoders = formats()[0]
    with warnings.catch_warnings(action="ignore"):
        for path in paths:
            with contextlib.suppress(Exception), Image.open(path, "r", decoders) as x:
                if x.mode not in ("1", "L", "LA") and x.mode[0] != "I":
                    return False
    return True


def decode(path: Path, size: int, channels: int) -> np.ndarray:
    """The central square of an image, upright and over white: uint8 (size, size, C).

    Raises:
        ValueError: Too many pixels, or values of an unknown range. A damaged image can
            raise anything.
    """
    data, decoders, limit = path.read_bytes(), formats()[0], Image.MAX_IMAGE_PIXELS
    try:
        image = Image.open(io.BytesIO(data), formats=decoders)
    except Image.DecompressionBombError:
        raise ValueError(f"over {2 * limit:,} pixels: make it smaller") from None
    if image.format == "PNG":  # decoding alone would not compare the checksums
        image.verify()
        image = Image.open(io.BytesIO(data), formats=decoders)
    sides, pixels = f"{image.width:,} x {image.height:,}", image.width * image.height
    image.draft(None, (2 * size, 2 * size))  # decodes large JPEGs at a fraction
    if "progressive" not in image.info:  # a progressive one is decoded whole
        pixels = image.width * image.height
    if limit and pixels > limit:
        raise ValueError(f"{sides} pixels, over {limit:,}: make it smaller")
    with _one_at_a_time if pixels > LARGE else contextlib.nullcontext():
        return _square(image, size, channels)


def _square(image: Image.Image, size: int, channels: int) -> np.ndarray:
    ImageOps.exif_transpose(image, in_place=True)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    mode = "L" if channels == 1 else "RGB"
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range is unknown")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float32)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("gray values of more than 16 bits")
        image = Image.fromarray((values / 257).round().astype(np.uint8))
    elif image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode != mode:
        image = image.convert(mode)
    image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(size, size, channels)
