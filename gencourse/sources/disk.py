"""Pixels on disk: blocks, caches, and errors for damaged files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

ImageFile = Path | zipfile.Path


def refuse_devices(path: ImageFile) -> None:
    """An error for what would be read for ever; what is not there is told elsewhere."""
    if not path.is_file() and path.exists() and not path.is_dir():
        raise ValueError("a device or a pipe, not a file")


def damaged(path: Path, why: object) -> RuntimeError:
    return RuntimeError(
        f"{path} is damaged or not what it should be: {why}. Nothing was deleted: move "
        "the file away or put a whole one in its place, then load again."
    )


def convert(pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """Between float32 in [0, 1] and uint8; as it is where nothing is to do."""
    if pixels.dtype == dtype:
        return pixels
    if dtype == torch.float32:
        return pixels.float().div_(255)
    return pixels.mul(255).round().byte()


def chunks(shape: tuple[int, ...], bar: bool) -> Iterator[slice]:
    """Slices over the images, some megabytes each; a progress bar after two seconds."""
    from tqdm.auto import tqdm

    n, step = shape[0], max(16, 2**21 // int(np.prod(shape[1:])))
    look = {"desc": "images", "delay": 2, "leave": False, "disable": not bar}
    for start in tqdm(range(0, n, step), **look):
        yield slice(start, min(start + step, n))


def clear_stale(folder: Path) -> None:
    """Remove what killed processes left: files and folders of this name, a day old."""
    for path in folder.glob(".partial-*"):
        with contextlib.suppress(OSError):
            if not re.fullmatch(r"\.partial-\d+-[0-9a-f]{8}", path.name):
                continue
            newest = max(p.lstat().st_mtime for p in (path, *path.rglob("*")))
            if time.time() - newest > 86_400:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _crc(path: Path) -> int:
    return zlib.crc32(np.memmap(path, mode="r"))


def _mapped(path: Path) -> Tensor:
    # Not np.load, which would also open an archive.
    return torch.from_numpy(np.lib.format.open_memmap(path, mode="c"))


def cached(
    read: Callable[[slice], Tensor], shape: tuple[int, ...], stamp: str, folder: Path
) -> Tensor | None:
    """What `read` gives, as a memory-mapped uint8 file; None where none can be written.

    Its name holds a hash of what the pixels are made from (a stale file is not found)
    and the checksum of the whole file (a damaged one is not taken, but made anew).
    """
    key = hashlib.sha256(f"1 {shape} {stamp}".encode()).hexdigest()[:24]
    for path in sorted(folder.glob(f"{key}-*.npy")):
        with contextlib.suppress(OSError, ValueError):
            if path.is_file() and path.stem == f"{key}-{_crc(path):08x}":
                pixels = _mapped(path)
                if pixels.shape == shape and pixels.dtype == torch.uint8:
                    return pixels
    clear_stale(folder)
    partial = folder / f".partial-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Written, not mapped: a full disk is an OSError here, but kills through a map.
        with open(partial, "xb") as file:
            kind = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, kind)
            for rows in chunks(shape, bar=True):
                file.write(convert(read(rows), torch.uint8).numpy().tobytes())
            file.flush()
            os.fsync(file.fileno())
        path = folder / f"{key}-{_crc(partial):08x}.npy"
        os.replace(partial, path)
        return _mapped(path)
    except OSError as error:
        warnings.warn(
            f"no cache in {folder} ({error}): {shape[0]} images are kept in memory and "
            "made again next time; set GENCOURSE_DATA to a folder that can be written",
            stacklevel=4,
        )
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
