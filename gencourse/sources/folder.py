"""Any folder of images: which files it holds, and how they are decoded."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import warnings
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gencourse.sources.disk import ImageFile, refuse_devices
from gencourse.sources.source import Request, Source


def folder_sources(request: Request) -> tuple:
    listings = list_folder(request.name)
    class_of = {path: name for listing in listings for path, name in listing.items()}
    classes = tuple(sorted(set(class_of.values())))
    classes = None if "" in classes or len(classes) < 2 else classes
    channels = request.channels or (1 if all_gray(class_of) else 3)
    sources = []
    for listing in listings:
        labels = classes and torch.tensor([classes.index(c) for c in listing.values()])
        sources.append(photos(list(listing), request.size, channels, labels))
    return sources, channels, classes


def photos(paths: list, size: int, channels: int, labels: Tensor | None) -> Source:
    """A source of image"""

    def read(rows: Tensor) -> Tensor:
        return read_images([paths[row] for row in rows], size, channels)

    def stamp(rows: Tensor) -> str:
        return stamp_of([paths[row] for row in rows])

    return Source(len(paths), read, labels, stamp=stamp, decoded=True)


SUFFIXES = tuple(".bmp .gif .jpeg .jpg .pgm .png .ppm .tif .tiff .webp".split())
# Only these decoders run, whatever a file is called (EPS would start Ghostscript).
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


def list_folder(folder: Path) -> list[dict[Path, str]]:
    """The images of train and of test, or of the whole folder where it has no split."""
    try:
        folders = [entry for entry in folder.iterdir() if entry.is_dir()]
    except OSError as error:
        raise RuntimeError(f"cannot look into {folder}: {error}") from error
    below = {entry.name.lower(): entry for entry in folders}
    tests = [below[t] for t in ("test", "val", "valid", "validation") if t in below]
    if tests and "train" in below:
        return [list_images(below["train"]), list_images(tests[0])]
    return [list_images(folder)]


def list_images(folder: Path) -> dict[Path, str]:
    """All images below a folder, sorted, each with the name of its class ("": none)."""

    def refuse(error: OSError) -> None:
        raise RuntimeError(f"cannot look into {error.filename}: {error}") from error

    found, seen = [], set()
    for here, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        if os.path.realpath(here) in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(os.path.realpath(here))
        folders[:] = [f for f in folders if not f.startswith((".", "__MACOSX"))]
        for name in names:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                found.append(Path(here, name).relative_to(folder).parts)
    if not found:
        kinds = " ".join(SUFFIXES)
        raise FileNotFoundError(f"no images in {folder} or below (looked for {kinds})")
    found.sort()
    depth = 0  # a folder that holds everything names no class
    while min(map(len, found)) > depth + 2 and len({p[depth] for p in found}) == 1:
        depth += 1
    return {folder.joinpath(*p): p[depth] if len(p) > depth + 1 else "" for p in found}


def stamp_of(paths: list[ImageFile]) -> str:
    """A hash of names, sizes and times: another one when a file has been changed."""
    stats = []
    for path in paths:
        on_disk = path.root.filename if isinstance(path, zipfile.Path) else path
        with contextlib.suppress(OSError):  # a broken link is named when it is read
            stat = os.stat(on_disk)
            stats.append(f"{path} {stat.st_size} {stat.st_mtime_ns}")
    return hashlib.sha256("\n".join(stats).encode("utf-8", "replace")).hexdigest()


def read_images(paths: list[ImageFile], size: int, channels: int) -> Tensor:
    """uint8 (N, channels, size, size), decoded by a thread per core."""

    def attempt(path: ImageFile) -> np.ndarray | str:
        try:
            return decode(path, size, channels)
        except Exception as error:  # a damaged image can raise anything in a decoder
            return f"{path}: {str(error).partition(' <_io')[0] or type(error).__name__}"

    with warnings.catch_warnings(action="ignore"), ThreadPoolExecutor() as pool:
        images = list(pool.map(attempt, paths))
    bad = [image for image in images if isinstance(image, str)]
    if bad:
        shown = "\n  ".join(bad[:5] + [f"and {len(bad) - 5} more"] * (len(bad) > 5))
        raise RuntimeError(
            f"{len(bad)} of {len(paths)} images cannot be read:\n  {shown}\n"
            "Nothing was deleted: repair them or move them away, then load again."
        )
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def all_gray(paths: Iterable[Path]) -> bool:
    from PIL import Image

    with warnings.catch_warnings(action="ignore"):
        for path in paths:
            with contextlib.suppress(Exception):  # they are named when decoded
                refuse_devices(path)
                with Image.open(path, formats=FORMATS) as x:
                    if x.mode not in ("1", "L", "LA") and x.mode[0] != "I":
                        return False
    return True


def decode(path: ImageFile, size: int, channels: int) -> np.ndarray:
    """The central square of an image, upright and over white: uint8 (size, size, C)."""
    from PIL import Image, ImageOps

    refuse_devices(path)
    data = path.read_bytes()
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    if image.format == "PNG":  # decoding alone would not compare the checksums
        image.verify()
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    image.draft(None, (2 * size, 2 * size))  # decodes large JPEGs at a fraction
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range is not known")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float32)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("gray values of more than 16 bits")
        image = Image.fromarray((values / 257).round().astype(np.uint8))
    elif image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("L" if channels == 1 else "RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(size, size, channels)
