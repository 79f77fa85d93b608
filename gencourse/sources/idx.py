"""MNIST and its relatives: files in the idx format."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from gencourse.sources.cache import convert
from gencourse.sources.download import downloading
from gencourse.sources.source import Request, Source, damaged

FASHION = "T-shirt/top Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag Ankle-boot"
IDX_SETS = {  # name -> torchvision's class (and folder), names of the ten classes
    "mnist": ("MNIST", "0 1 2 3 4 5 6 7 8 9"),
    "fashion-mnist": ("FashionMNIST", FASHION),
    "kmnist": ("KMNIST", "o ki su tsu na ha ma ya re wo"),
}


def idx_source(request: Request) -> Source:
    class_name, classes = IDX_SETS[request.name]
    folder = request.root / class_name / "raw"
    kinds = ("images-idx3-ubyte", "labels-idx1-ubyte")
    stems = [f"{part}-{kind}" for kind in kinds for part in ("train", "t10k")]

    def path(stem: str) -> Path:
        plain = folder / stem  # not .exists(), which raises for a name that is too long
        return plain if os.path.exists(plain) else folder / f"{stem}.gz"

    missing = [p.name for p in map(path, stems) if not os.path.exists(p)]
    if missing:
        with downloading(request, missing, folder) as (torchvision, arrivals):
            getattr(torchvision.datasets, class_name)(str(arrivals), download=True)
            for name in missing:  # a .gz has a checksum, unlike the file inside
                os.replace(arrivals / class_name / "raw" / name, folder / name)
    images = [read_idx(path(stem), (28, 28)) for stem in stems[:2]]
    labels = [read_idx(path(stem), ()).long() for stem in stems[2:]]
    for x, y, stem in zip(images, labels, stems[2:], strict=True):
        if len(x) != len(y):
            raise damaged(path(stem), f"{len(y)} labels for {len(x)} images")
        if y.max() > 9:
            raise damaged(path(stem), f"label {y.max()} is not in 0..9")
    counts, names = list(map(len, images)), tuple(classes.split())
    return gray_source(counts, torch.cat(images), torch.cat(labels), names, request)


def gray_source(
    counts: list[int],
    images: Tensor,
    labels: Tensor,
    target_names: tuple[str, ...],
    request: Request,
) -> Source:
    """A source of gray images (N, H, H) in memory, uint8 or float32 in [0, 1]."""
    channels = request.channels or 1

    def read(rows: Tensor) -> Tensor:
        x = convert(images[rows, None], torch.float32)  # (B, 1, H, H)
        if (x.shape[-1], request.size) == (28, 32):
            x = F.pad(x, (2, 2, 2, 2))
        elif x.shape[-1] != request.size:
            x = F.interpolate(x, (request.size,) * 2, mode="bilinear", antialias=True)
        return x.clamp(0, 1).expand(-1, channels, -1, -1)

    return Source(counts, channels, read, target_names, labels)


def read_idx(path: Path, item: tuple[int, ...]) -> Tensor:
    """The uint8 tensor (n, *item) in an idx file, plain or .gz.

    torchvision's reader neither reads a .gz nor says which file is damaged.

    Raises:
        RuntimeError: it cannot be read, or its header and length disagree.
    """
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(path, f"{type(error).__name__}: {error}") from error
    start, item_size = 4 * (2 + len(item)), math.prod(item)
    n = (len(data) - start) // item_size
    header = struct.pack(">II", 0x801 + len(item), max(n, 0))
    header += struct.pack(f">{len(item)}I", *item)
    if n < 1 or data[:start] != header or len(data) != start + n * item_size:
        begin = data[:start].hex(" ")
        what = f"idx file of {item} images" if item else "idx file of labels"
        raise damaged(path, f"{len(data):,} bytes, from '{begin}' on, are no {what}")
    pixels = torch.frombuffer(bytearray(data), dtype=torch.uint8, offset=start)
    return pixels.view(n, *item)
