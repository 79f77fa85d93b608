"""MNIST and its relatives: files in the idx format."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gencourse.sources.cache import convert
from gencourse.sources.download import download
from gencourse.sources.source import Request, Source, damaged

FILES = (
    "train-images-idx3-ubyte",
    "t10k-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-labels-idx1-ubyte",
)


class IdxSet(NamedTuple):
    folder: str  # torchvision's name for it, so that its copies can be used
    url: str
    classes: str
    md5: str  # of FILES with .gz


IDX_SETS = {
    "mnist": IdxSet(
        "MNIST",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "0 1 2 3 4 5 6 7 8 9",
        """f68b3c2dcbeaaa9fbdd348bbdeb94873 9fb629c4189551a2d022fa330f9573f3
        d53e105ee54ea40749a09fcbcd1e9432 ec29112dd5afa0611ce80d1b7f02629c""",
    ),
    "fashion-mnist": IdxSet(
        "FashionMNIST",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "T-shirt/top Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag Ankle-boot",
        """8d4fb7e6c68d591d4c3dfef9ec88bf0d bef4ecab320f06d8554ea6380940ec79
        25c81989df183df01b3e8a0aad5dffbe bb300cfdad3c16e7a12a480ee83cd310""",
    ),
    "kmnist": IdxSet(
        "KMNIST",
        "http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
        "o ki su tsu na ha ma ya re wo",
        """bdb82020997e1d708af4cf47b453dcf7 5c965bf0a639b31b8f53240b1b52f4d7
        e144d726b3acfaa3e44228e80efcd344 7320c461ea6c1c855c0b718fb2a4b134""",
    ),
}


def idx_source(request: Request) -> Source:
    chosen = IDX_SETS[request.name]
    folder = request.root / chosen.folder / "raw"
    missing = {
        f"{name}.gz": md5
        for name, md5 in zip(FILES, chosen.md5.split(), strict=True)
        if not (folder / name).exists() and not (folder / f"{name}.gz").exists()
    }
    if missing:
        download(request, chosen.url, missing, folder)
    paths = [folder / name for name in FILES]
    paths = [p if p.exists() else p.with_name(f"{p.name}.gz") for p in paths]
    images = [read_idx(path, (28, 28)) for path in paths[:2]]
    labels = [read_idx(path, ()).long() for path in paths[2:]]
    for x, y, path in zip(images, labels, paths[2:], strict=True):
        if len(x) != len(y):
            raise damaged(path, f"{len(y)} labels for {len(x)} images")
        if y.max() > 9:
            raise damaged(path, f"label {y.max()} is not in 0..9")
    counts, names = list(map(len, images)), tuple(chosen.classes.split())
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

    Raises:
        RuntimeError: It cannot be read, or its header and length disagree.
    """
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(path, f"{type(error).__name__}: {error}") from error
    start, item_size = 4 * (2 + len(item)), math.prod(item)
    n = max(0, len(data) - start) // item_size
    header = struct.pack(f">{2 + len(item)}I", 0x801 + len(item), n, *item)
    if n == 0 or not data.startswith(header) or len(data) != start + n * item_size:
        found = f"{len(data):,} bytes that begin with '{data[:start].hex(' ')}'"
        wanted = f"an idx file of {item} images" if item else "an idx file of labels"
        raise damaged(path, f"{found} are not {wanted}")
    pixels = torch.frombuffer(bytearray(data), dtype=torch.uint8, offset=start)
    return pixels.view(n, *item)
