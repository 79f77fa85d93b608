"""What `data.load` asks of a source of images, and what the source provides."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor


@dataclass(frozen=True)
class Request:
    """The arguments of `data.load`, checked."""

    name: str | Path  # of a data set, or the path of a folder
    size: int
    channels: int | None  # None: as the images are
    train_size: int | None  # None: all
    test_size: int | None
    seed: int
    root: Path
    download: bool


@dataclass
class Source:
    """Images that are not read yet: those of train, then those of test.

    Attributes:
        counts: How many images train and test have, or one set that is to be split.
        channels: 1 or 3.
        read: Row numbers (B,) -> (B, C, S, S), float32 in [0, 1] or uint8.
        target_names, labels, knobs: As in `data.Dataset` and `data.Images`.
        stamp: Row numbers -> a text that changes if their files do; None if the images
            do not come from image files.
    """

    counts: list[int]
    channels: int
    read: Callable[[Tensor], Tensor]
    target_names: tuple[str, ...] | None = None
    labels: Tensor | None = None
    knobs: Tensor | None = None
    stamp: Callable[[Tensor], str] | None = None


def resolve(name: str | Path, names: tuple[str, ...]) -> str | Path:
    """One of the names, or the path of a folder that exists.

    Raises:
        ValueError: There is no such name.
        FileNotFoundError: There is no such folder.
    """
    plain = name.strip().lower().replace("_", "-") if isinstance(name, str) else None
    if plain in names:
        return plain
    path = Path(os.path.expanduser(name))
    if os.path.isdir(path) and plain != "":  # Path.is_dir raises for a long name
        return path
    advice = f"The names are {', '.join(names)}; or give the path of a folder of images"
    if plain is None or "/" in name or os.sep in name:
        raise FileNotFoundError(f"there is no folder {shown(path)}. {advice}.")
    raise ValueError(f"unknown data set {name!r}. {advice}.")


def find_root(root: str | Path | None) -> Path:
    """The folder of downloads and caches: root, GENCOURSE_DATA or data/."""
    repository = Path(__file__).resolve().parents[2]
    here = repository if (repository / "pyproject.toml").is_file() else Path.cwd()
    return Path(root or os.environ.get("GENCOURSE_DATA") or here / "data").expanduser()


def rng_for(seed: int, stream: int) -> torch.Generator:
    """A separate generator for each pair of numbers."""
    digest = hashlib.sha256(f"{seed} {stream}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def choose_rows(counts: list[int], request: Request) -> tuple[Tensor, Tensor]:
    """Row numbers for train and test, each in order.

    Raises:
        ValueError: Fewer images than wanted.
    """
    name, n_train, n_test = shown(request.name), request.train_size, request.test_size
    if len(counts) == 1:
        n, share = counts[0], 1 / 6 if request.name == "digits" else 0.1
        n_test = n_test or max(1, round(n * share))
        n_train = n_train or max(1, n - n_test)
        if n_train + n_test > n:
            raise ValueError(
                f"{name} has too few images to split: train_size {n_train} and "
                f"test_size {n_test} make {n_train + n_test}, but it has {n}"
            )
        order = torch.randperm(n, generator=rng_for(request.seed, 0))
        train, test = order[n_test : n_test + n_train], order[:n_test]
    else:
        wanted = {"train_size": n_train, "test_size": n_test}
        for n, (argument, size) in zip(counts, wanted.items(), strict=True):
            if size is not None and size > n:
                raise ValueError(f"{argument} is {size}, but {name} has only {n}")
        train, test = (
            torch.randperm(n, generator=rng_for(request.seed, part))
            for part, n in enumerate(counts)
        )
        train, test = train[:n_train], test[:n_test] + counts[0]
    return train.sort().values, test.sort().values


def shown(name: str | Path) -> str:
    """A file name as text that can be printed, even if it is not valid UTF-8."""
    return os.fsencode(name).decode("utf-8", "replace")


def damaged(path: Path, reason: object) -> RuntimeError:
    """The error for a file of a data set that cannot be right."""
    return RuntimeError(
        f"{shown(path)} is damaged or not the expected file: {reason}. Nothing was "
        "deleted: move it away or replace it with a good copy, then load again."
    )
