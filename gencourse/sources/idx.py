"""MNIST and its relatives: files in the idx format."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gencourse.sources.disk import convert, damaged, refuse_devices
from gencourse.sources.download import downloading
from gencourse.sources.source import Request, Source

FASHION = "T-shirt/top Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag Ankle-boot"
IDX_SETS = {  # name -> torchvision's class (and folder), names of the ten classes
    "mnist": ("MNIST", "0 1 2 3 4 5 6 7 8 9"),
    "fashion-mnist": ("FashionMNIST", FASHION),
    "kmnist": ("KMNIST", "o ki su tsu na ha ma ya re wo"),
}


def idx_sources(request: Request) -> tuple:
    folder, classes = IDX_SETS[request.name]
    sources = [gray_source(x, y, request, True) for x, y in idx_set(request, folder)]
    return sources, request.channels or 1, tuple(classes.split())


def gray_source(
    images: Tensor, labels: Tensor, request: Request, cache: bool = False
) -> Source:
    """A source of gray images (N, H, H) in memory, uint8 or float32."""

    def read(rows: Tensor) -> Tensor:
        x = convert(images[rows, None], torch.float32)  # (B, 1, H, H)
        if (x.shape[-1], request.size) == (28, 32):
            x = F.pad(x, (2, 2, 2, 2))
        elif x.shape[-1] != request.size:
            x = F.interpolate(x, (request.size,) * 2, mode="bilinear", antialias=True)
        return x.clamp(0, 1).expand(-1, request.channels or 1, -1, -1)

    def stamp(rows: Tensor) -> str:
        return hashlib.sha256(images[rows].numpy()).hexdigest()

    return Source(len(images), read, labels, stamp=stamp if cache else None)


def idx_set(request, class_name: str) -> list[tuple[Tensor, Tensor]]:
    """Images (n, 28, 28) uint8 and labels (n,), of train and of test."""
    folder = request.root / class_name / "raw"
    kinds = ("images-idx3-ubyte", "labels-idx1-ubyte")
    pairs = [[f"{part}-{kind}" for kind in kinds] for part in ("train", "t10k")]

    def path(stem: str) -> Path:
        plain = folder / stem  # not .exists(), which raises for a folder without rights
        return plain if os.path.exists(plain) else folder / f"{stem}.gz"

    missing = [p.name for p in map(path, sum(pairs, [])) if not os.path.exists(p)]
    if missing:
        with downloading(request, missing, folder) as (torchvision, arrivals):
            getattr(torchvision.datasets, class_name)(str(arrivals), download=True)
            for name in missing:  # a .gz carries a checksum, unlike what is in it
                os.replace(arrivals / class_name / "raw" / name, folder / name)
    found = []
    for images, labels in (map(path, pair) for pair in pairs):
        x, y = read_idx(images, (28, 28)), read_idx(labels, ()).long()
        if len(x) != len(y):
            raise damaged(labels, f"{len(y)} labels for {len(x)} images")
        if y.max() > 9:
            raise damaged(labels, f"label {y.max()} where 0..9 are expected")
        found.append((x, y))
    return found


def read_idx(path: Path, item: tuple[int, ...]) -> Tensor:
    """The uint8 tensor (n, *item) in an idx file (plain or .gz), checked to the byte.

    A reader of our own: torchvision's does not check a file's length, nor read a .gz.
    """
    try:
        refuse_devices(path)
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            data = file.read(2**26)  # more than any of the sets holds
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise damaged(path, f"{type(error).__name__}: {error}") from error
    start = 4 * (2 + len(item))
    magic, n, *shape = np.frombuffer(data[:start].ljust(start), dtype=">u4").tolist()
    if (magic, *shape) != (0x801 + len(item), *item):
        header = data[:start].hex(" ")
        raise damaged(path, f"it begins with '{header}', which is not idx of {item}")
    expected = start + n * int(np.prod(item))
    if len(data) != expected or n == 0:
        raise damaged(path, f"{len(data):,} bytes where its header says {expected:,}")
    pixels = torch.frombuffer(bytearray(data), dtype=torch.uint8, offset=start)
    return pixels.view(n, *item)
