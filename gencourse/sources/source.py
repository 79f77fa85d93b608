"""What every source of images provides, and how its images are chosen and stored."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gencourse.sources.disk import cached, chunks, convert

# Fewer image files than these are decoded at each load, more only once, into a cache.
CACHE_FROM = 2_000


@dataclass(frozen=True)
class Request:
    """What `data.load` was asked for, checked."""

    name: str | Path  # of a set, or the path of a folder
    size: int
    channels: int | None  # None: as the images are
    wanted: tuple[int | None, int | None]  # train_size, test_size
    seed: int
    root: Path
    download: bool


@dataclass
class Source:
    """n images before they are read: `read(rows)` gives (B, C, S, S)."""

    n: int
    read: Callable[[Tensor], Tensor]  # float32 in [0, 1], or uint8
    labels: Tensor | None = None
    knobs: Tensor | None = None
    stamp: Callable[[Tensor], str] | None = None  # tells whether the files changed
    decoded: bool = False  # from image files, which takes time


def rng_for(seed: int, stream: int) -> torch.Generator:
    """A generator of its own for each pair of numbers."""
    digest = hashlib.sha256(f"{seed} {stream}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def choose_rows(counts: list[int], request: Request) -> list[Tensor]:
    """Indices for train and test, in order: chosen from both, or one set split."""
    if len(counts) == 2:
        orders = []
        for part, what in enumerate(("train_size", "test_size")):
            n, wanted = counts[part], request.wanted[part]
            if wanted is not None and wanted > n:
                raise ValueError(f"{what} is {wanted}, but {request.name} has only {n}")
            orders.append(
                torch.randperm(n, generator=rng_for(request.seed, part))[:wanted]
            )
    else:
        n, share = counts[0], 1 / 6 if request.name == "digits" else 0.1
        n_test = request.wanted[1] or max(1, round(n * share))
        n_train = request.wanted[0] or max(1, n - n_test)
        if n_train + n_test > n:
            sizes = f"train_size {n_train} and test_size {n_test}"
            raise ValueError(f"{request.name} has {n} images: too few for {sizes}")
        order = torch.randperm(n, generator=rng_for(request.seed, 0))
        orders = [order[n_test : n_test + n_train], order[:n_test]]
    return [order.sort().values for order in orders]


def fill(
    source: Source, rows: Tensor, c: int, request: Request, as_float: bool
) -> Tensor:
    """The pixels of rows, (n, C, size, size): in memory, or mapped from a cache."""
    dtype = torch.float32 if as_float else torch.uint8
    shape = (len(rows), request.size, request.size, c)
    slow = source.decoded and len(rows) >= CACHE_FROM

    def read(chunk: slice) -> Tensor:
        return source.read(rows[chunk]).permute(0, 2, 3, 1)

    if source.stamp and (slow or not as_float):
        pixels = cached(read, shape, source.stamp(rows), request.root / "cache")
        if pixels is not None:
            return convert(pixels.permute(0, 3, 1, 2), dtype)
    pixels = torch.empty(shape, dtype=dtype)
    for chunk in chunks(shape, bar=slow):
        pixels[chunk] = convert(read(chunk), dtype)
    return pixels.permute(0, 3, 1, 2)


def resolve(name: str | Path, names: tuple[str, ...]) -> str | Path:
    """One of the names, or the path of a folder that exists."""
    plain = name.strip().lower().replace("_", "-") if isinstance(name, str) else None
    if plain in names:
        return plain
    path = Path(os.path.expanduser(name))
    if os.path.isdir(path) and plain != "":  # Path.is_dir raises for a long name
        return path
    known = f"The names are {', '.join(names)}; or give the path of a folder of images."
    if plain is None or "/" in name or os.sep in name:
        raise FileNotFoundError(f"there is no folder {path}. {known}")
    raise ValueError(f"unknown data set {name!r}. {known}")


def find_root(root: str | Path | None) -> Path:
    repository = Path(__file__).resolve().parents[2]
    here = repository if (repository / "pyproject.toml").is_file() else Path.cwd()
    path = Path(root or os.environ.get("GENCOURSE_DATA") or here / "data")
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{path} begins with the home of an unknown user: write the path in full"
        ) from error
