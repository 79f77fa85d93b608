"""Reads the chosen images into memory, or into a cache on disk."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gencourse.sources.source import Request, Source, shown

# Fewer image files than these are decoded at each load, more only once, into a cache.
CACHE_FROM = 2_000


class UnreadableImages(RuntimeError):
    """Names the first few images that cannot be read, and counts all of them."""

    def __init__(self, problems: list[str], n: int) -> None:
        self.problems = problems  # path and reason of each
        more = [f"and {len(problems) - 5:,} more"] if len(problems) > 5 else []
        super().__init__(
            f"{len(problems):,} of {n:,} images cannot be read:\n  "
            + "\n  ".join(problems[:5] + more)
            + "\nNothing was deleted: repair them or move them away, then load again."
        )


def convert(pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """Pixels as float32 in [0, 1] or as uint8; unchanged if they are so already."""
    if pixels.dtype == dtype:
        return pixels
    if dtype == torch.float32:
        return pixels.float().div_(255)
    return pixels.mul(255).round().byte()


def read_pixels(
    source: Source, parts: tuple[Tensor, Tensor], dtype: torch.dtype, request: Request
) -> Tensor:
    """The pixels (N, C, size, size) of the rows of train, then of test.

    They come from a cache on disk if they are many image files, or uint8.

    Raises:
        UnreadableImages: Some cannot be read; all were tried.
    """
    from tqdm.auto import tqdm

    n, item = sum(map(len, parts)), (request.size, request.size, source.channels)
    step = max(16, 2**21 // math.prod(item))  # some megabytes
    chunks = [chunk for rows in parts for chunk in rows.split(step)]
    many = source.stamp is not None and n >= CACHE_FROM

    def blocks(dtype: torch.dtype) -> Iterator[Tensor]:  # (B, S, S, C) each
        problems = []
        for rows in tqdm(chunks, "images", delay=2, leave=False, disable=not many):
            try:
                pixels = source.read(rows)
            except UnreadableImages as error:
                problems += error.problems
                continue
            yield convert(pixels, dtype).permute(0, 2, 3, 1)
        if problems:
            raise UnreadableImages(problems, n)

    pixels = None
    if source.stamp and (many or dtype == torch.uint8):
        stamp, folder = source.stamp(torch.cat(parts)), request.root / "cache"
        pixels = cached(lambda: blocks(torch.uint8), (n, *item), stamp, folder)
    if pixels is None:
        pixels, start = torch.empty(n, *item, dtype=dtype), 0
        for block in blocks(dtype):
            pixels[start : start + len(block)] = block
            start += len(block)
    return convert(pixels.permute(0, 3, 1, 2), dtype)


def cached(
    blocks: Callable[[], Iterable[Tensor]],
    shape: tuple[int, ...],
    stamp: str,
    folder: Path,
) -> Tensor | None:
    """uint8 pixels of this shape, memory-mapped from a file in the folder.

    The first call writes the file from the blocks; another stamp makes another file.
    None, with a warning, if it cannot be written.
    """
    key = hashlib.sha256(f"2 {shape} {stamp}".encode()).hexdigest()[:24]
    path, partial = folder / f"{key}.npy", folder / f"{key}.{os.getpid()}.part"
    with contextlib.suppress(OSError, EOFError, ValueError):  # not there, or cut short
        return torch.from_numpy(np.load(path, mmap_mode="c"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Not written through a memory map: on a full disk that kills the process.
        with open(partial, "wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for block in blocks():
                file.write(block.numpy().tobytes())
        os.replace(partial, path)
        return torch.from_numpy(np.load(path, mmap_mode="c"))
    except OSError as error:
        warnings.warn(
            f"no cache in {shown(folder)} ({error}): the images are kept in memory and "
            "decoded again next time; set GENCOURSE_DATA to a folder you can write to",
            stacklevel=4,
        )
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
