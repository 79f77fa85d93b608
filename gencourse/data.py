"""Images to learn from: `load(name, size)` gives train and test apart, ready in memory.

    data = load("faces", size=32)
    for x in data.train.batches(128):      # (128, 3, 32, 32), float32 in [0, 1]
        ...

All pixels lie in one tensor, and a batch is a gather by shuffled index: several times
faster than decoding and transforming image by image in a DataLoader. `sources` finds,
reads, downloads and caches files.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gencourse.sources.cache import convert, read_pixels
from gencourse.sources.celeba import celeba_source
from gencourse.sources.drawn import characters_source, digits_source, faces_source
from gencourse.sources.folder import folder_source
from gencourse.sources.idx import IDX_SETS, idx_source
from gencourse.sources.source import (
    Request,
    choose_rows,
    find_root,
    resolve,
    rng_for,
    shown,
)

# Train and test together stay float32 up to this many bytes, and uint8 beyond.
FLOAT_LIMIT = 2**30
SOURCES = {
    "faces": faces_source,
    "characters": characters_source,
    "digits": digits_source,
    **dict.fromkeys(IDX_SETS, idx_source),
    "celeba": celeba_source,
}
NAMES = tuple(SOURCES)


@dataclass(eq=False, repr=False)
class Images:
    """N images and what is known about them; `images[index]` is a float32 batch.

    Attributes:
        pixels: (N, C, S, S), float32 in [0, 1], or uint8 where float32 would take more
            than `FLOAT_LIMIT` bytes (memory-mapped if made from image files). In the
            memory format channels_last.
        labels: (N,) int64 classes (celeba: (N, 40), 1 = has the attribute), or None.
        knobs: (N, 8) float32 in [-1, 1] for faces, or None.
    """

    pixels: Tensor
    labels: Tensor | None = None
    knobs: Tensor | None = None

    def __post_init__(self) -> None:
        pixels = self.pixels
        if pixels.ndim != 4 or pixels.dtype not in (torch.float32, torch.uint8):
            got = f"{tuple(pixels.shape)} {pixels.dtype}"
            raise ValueError(
                f"pixels must be (N, C, S, S), float32 in [0, 1] or uint8; got {got}"
            )
        for name, x in (("labels", self.labels), ("knobs", self.knobs)):
            if x is not None and len(x) != len(pixels):
                raise ValueError(f"{len(x)} {name} for {len(pixels)} images")
        # Convolutions like it, and for the gather each image is one piece of memory.
        self.pixels = pixels.contiguous(memory_format=torch.channels_last)

    def __len__(self) -> int:
        return self.pixels.shape[0]

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.pixels.shape[1:]))
        return f"{len(self):,} images {shape} {str(self.pixels.dtype)[6:]}"

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Tensor:
        """A copy as float32 in [0, 1]: (B, C, S, S), or (C, S, S) for a single int.

        Args:
            index: An int, a slice, a list or tensor of ints, or a mask of N booleans.
        """
        index = index.cpu().numpy() if isinstance(index, Tensor) else index
        rows = torch.as_tensor(np.arange(len(self))[index].copy())
        batch = self._gather(rows.reshape(-1).to(self.pixels.device))
        return batch if rows.dim() else batch[0]

    def _gather(self, rows: Tensor) -> Tensor:
        # Seen as (N, S, S, C) each image is copied whole: many times faster than
        # index_select on the channels_last view, and the result stays channels_last.
        batch = self.pixels.permute(0, 2, 3, 1).index_select(0, rows)
        return convert(batch.permute(0, 3, 1, 2), torch.float32)  # (B, C, S, S)

    def batches(
        self,
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
    ) -> Batches:
        """Epochs of shuffled batches: each `for x in batches` is one, in a new order.

        Args:
            batch_size: Images per batch; the last batch of an epoch may be smaller.
            shuffle: False keeps the order of the images.
            seed: The same seed gives the same batches, epoch by epoch.
            drop_last: Leave out a last batch that is smaller.

        Raises:
            ValueError: There is no batch of this size, or a number is not whole.
        """
        return Batches(self, batch_size, shuffle, seed, drop_last)

    def to(self, device: torch.device | str) -> Images:
        """The same images on another device (a memory-mapped set is read whole)."""
        parts = (self.pixels, self.labels, self.knobs)
        return Images(*(x if x is None else x.to(device) for x in parts))


@dataclass(eq=False, repr=False)
class Batches:
    """One epoch of x (B, C, S, S) per iteration, see `Images.batches`.

    `epoch` counts the epochs that have begun. The order of an epoch depends only on
    seed and epoch: setting `epoch` resumes a run.
    """

    images: Images
    batch_size: int
    shuffle: bool
    seed: int
    drop_last: bool
    epoch: int = 0

    def __post_init__(self) -> None:
        self.batch_size = _whole("batch_size", self.batch_size, at_least=1)
        self.seed = _whole("seed", self.seed)
        if len(self) == 0:
            n = len(self.images)
            raise ValueError(f"{n} images give no batch of {self.batch_size}")

    def __len__(self) -> int:
        full, rest = divmod(len(self.images), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def rows(self, epoch: int) -> tuple[Tensor, ...]:
        """The rows of `images` in each batch of this epoch."""
        order = torch.arange(len(self.images))
        if self.shuffle:
            order = torch.randperm(len(order), generator=rng_for(self.seed, epoch))
        rows = order.to(self.images.pixels.device).split(self.batch_size)
        return rows[: len(self)]

    def __iter__(self) -> Iterator[Tensor]:
        rows = self.rows(self.epoch)
        self.epoch += 1
        return map(self.images._gather, rows)


@dataclass(eq=False, repr=False)
class Dataset:
    """What `load` returns: `train` and `test` Images of (channels, size, size).

    Attributes:
        target_names: Names of the classes (celeba: attributes; faces: knobs), or None.
    """

    name: str
    size: int
    channels: int
    train: Images
    test: Images
    target_names: tuple[str, ...] | None = None

    def __repr__(self) -> str:
        return f"Dataset {self.name}: train {self.train}, test {self.test}"

    def to(self, device: torch.device | str) -> Dataset:
        """The same data on another device."""
        return replace(self, train=self.train.to(device), test=self.test.to(device))


# -------------------------------------------------------------------------------- load


def load(
    name: str | Path,
    size: int = 32,
    *,
    channels: int | None = None,
    train_size: int | None = None,
    test_size: int | None = None,
    seed: int = 0,
    root: str | Path | None = None,
    download: bool = True,
) -> Dataset:
    """Images (N, C, size, size) in [0, 1] by name or from a folder, split in two.

    Args:
        name: "faces" (drawn here, with knobs), "characters" (sixteen faces, drawn with
            small differences: `faces.characters`), "digits" (scikit-learn's
            handwriting), "mnist", "fashion-mnist", "kmnist" (downloaded once), "celeba"
            (downloaded by hand, see data/README.md), or the path of a folder: all
            images below it, in order of their names. Its subfolders train/ and test/
            (or val/) are the split; otherwise a seeded tenth is the test set. If all
            images lie in subfolders, these name the classes.
        size: Side in pixels, a multiple of 4 in 8..256 (faces from 16). Photographs are
            cut to their central square. 28x28 sets become 32x32 by a black border;
            otherwise images are resized by antialiased bilinear interpolation, which
            never leaves [0, 1].
        channels: 1 (gray) or 3 (RGB) converts; None keeps what the set has.
        train_size: How many images to train on (None: all; drawn faces 20,000).
        test_size: How many to test on (None: all; drawn faces 2,000).
        seed: Decides choices, splits and the knobs of faces.
        root: The folder of downloads and caches; None: the environment variable
            GENCOURSE_DATA, else data/. MNIST's files belong in root/MNIST/raw.
        download: False never touches the network.

    Returns:
        A `Dataset`; no image is in both train and test.

    Raises:
        ValueError: An unknown name, an argument out of range, too few images to split.
        FileNotFoundError: No such folder, no images, or files that are missing.
        RuntimeError: Damaged files (the first are named, all are counted), or a
            download that failed.

    Taught in: lesson 01
    """
    size, seed = _whole("size", size), _whole("seed", seed)
    if size not in range(8, 257, 4):
        raise ValueError(f"size {size} is not supported; take a multiple of 4, 8..256")
    channels = _whole("channels", channels, optional=True)
    if channels not in (None, 1, 3):
        raise ValueError(f"channels is {channels}; it must be 1, 3 or None")
    train_size = _whole("train_size", train_size, at_least=1, optional=True)
    test_size = _whole("test_size", test_size, at_least=1, optional=True)
    request = Request(
        resolve(name, NAMES),
        size,
        channels,
        train_size,
        test_size,
        seed,
        find_root(root),
        download,
    )
    source = SOURCES.get(request.name, folder_source)(request)
    train, test = choose_rows(source.counts, request)
    n_bytes = (len(train) + len(test)) * source.channels * size**2 * 4
    dtype = torch.float32 if n_bytes <= FLOAT_LIMIT else torch.uint8
    pixels = read_pixels(source, (train, test), dtype, request)
    parts = []
    for x, rows in ((pixels[: len(train)], train), (pixels[len(train) :], test)):
        extras = [y if y is None else y[rows] for y in (source.labels, source.knobs)]
        parts.append(Images(x, *extras))
    return Dataset(
        shown(request.name), size, source.channels, *parts, source.target_names
    )


def _whole(
    name: str, value: object, at_least: int | None = None, optional: bool = False
) -> int | None:
    """value as an int: NumPy's whole numbers count, 2.0 does not."""
    if value is None and optional:
        return None
    with contextlib.suppress(TypeError):
        n = operator.index(value)
        if at_least is None or n >= at_least:
            return n
    wanted = "a whole number" + (f", {at_least} or more" if at_least else "")
    raise ValueError(f"{name} is {value!r}; it must be {wanted}")
