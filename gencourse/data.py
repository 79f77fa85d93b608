"""Images to learn from: `load(name, size)` gives train and test apart, ready in memory.

    data = load("faces", size=32)
    for x in data.train.batches(128):      # (128, 3, 32, 32), float32 in [0, 1]
        ...

All pixels lie in one tensor and a batch is a gather by shuffled index: several times
faster than decoding and transforming image by image in a DataLoader. How files are
read, checked, downloaded and cached stands in `files`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gencourse.sources.celeba import celeba_sources
from gencourse.sources.disk import convert
from gencourse.sources.drawn import digits_sources, faces_sources
from gencourse.sources.folder import folder_sources
from gencourse.sources.idx import IDX_SETS, idx_sources
from gencourse.sources.source import (
    Request,
    choose_rows,
    fill,
    find_root,
    resolve,
    rng_for,
)

# Train and test together stay float32 up to this many bytes, and uint8 beyond.
FLOAT_LIMIT = 2**30
NAMES = ("faces", "digits", *IDX_SETS, "celeba")


@dataclass(eq=False, repr=False)
class Images:
    """N images and what is known about them; `images[index]` is a float32 batch.

    pixels: (N, C, S, S), float32 in [0, 1], or uint8 where float32 would take more than
        `FLOAT_LIMIT` bytes (then memory-mapped if it comes from files). channels_last.
    labels: (N,) int64 classes (celeba: (N, 40), 1 = has the attribute), or None.
    knobs: (N, 8) float32 in [-1, 1] for faces, or None.
    """

    pixels: Tensor
    labels: Tensor | None = None
    knobs: Tensor | None = None

    def __post_init__(self) -> None:
        pixels, kinds = self.pixels, (torch.float32, torch.uint8)
        if pixels.ndim != 4 or pixels.dtype not in kinds:
            got = f"{tuple(pixels.shape)} {pixels.dtype}"
            raise ValueError(
                f"pixels must be (N, C, S, S), float32 in [0, 1] or uint8; got {got}"
            )
        for name, x in (("labels", self.labels), ("knobs", self.knobs)):
            if x is not None and len(x) != len(pixels):
                raise ValueError(f"{len(x)} {name} for {len(pixels)} images")
        # Convolutions like it, and one image is one piece of memory for the gather.
        self.pixels = self.pixels.contiguous(memory_format=torch.channels_last)

    def __len__(self) -> int:
        return self.pixels.shape[0]

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.pixels.shape[1:]))
        return f"{len(self):,} images {shape} {str(self.pixels.dtype)[6:]}"

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Tensor:
        """A copy as float32 in [0, 1]: (B, C, S, S), or (C, S, S) for a single int.

        index: an int, a slice, a list or tensor of ints, or a mask of N booleans.
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

        The last batch of an epoch is smaller if it does not come out even; `drop_last`
        leaves it out. The same seed gives the same batches, epoch by epoch.
        """
        return Batches(self, batch_size, shuffle, seed, drop_last)

    def to(self, device: torch.device | str) -> Images:
        """The same images on another device (a memory-mapped set is read whole)."""
        parts = (self.pixels, self.labels, self.knobs)
        return Images(*(x if x is None else x.to(device) for x in parts))


@dataclass(eq=False, repr=False)
class Batches:
    """One epoch of x (B, C, S, S) per iteration, see `Images.batches`.

    `epoch` counts the epochs begun. The order of an epoch depends on seed and epoch
    alone: setting `epoch` resumes a run.
    """

    images: Images
    batch_size: int
    shuffle: bool
    seed: int
    drop_last: bool
    epoch: int = 0

    def __post_init__(self) -> None:
        n, size = len(self.images), self.batch_size
        if type(size) is not int or size < 1 or len(self) == 0:
            raise ValueError(f"{n} images give no batch of {size!r}: take another size")

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

    target_names: names of the classes (celeba: attributes; faces: knobs), or None.
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

    name: "faces" (drawn here, with knobs), "digits" (scikit-learn's handwriting),
        "mnist", "fashion-mnist", "kmnist", "celeba" (downloaded once), or the path of a
        folder: all images below it, in order of their names. Its subfolders train/ and
        test/ (or val/) are the split, else a seeded tenth is the test set. Where all
        images lie in subfolders, these name the classes.
    size: side in pixels, a multiple of 4 in 8..256 (faces from 16). Photographs are cut
        to their central square. 28x28 sets become 32x32 by a black border; all else is
        resized by antialiased bilinear interpolation, which never leaves [0, 1].
    channels: 1 (gray) or 3 (RGB) converts; None keeps what the set has.
    train_size, test_size: how many images (None: all; faces 20,000 and 2,000).
    seed: decides choices, splits and the knobs of faces. Train and test are disjoint.
    root: where downloads and caches lie, or else the environment variable
        GENCOURSE_DATA, or else data/. MNIST's files are looked for in root/MNIST/raw.
    download: False never touches the network.

    Raises ValueError (unknown name, argument out of range), FileNotFoundError (nothing
    there) or RuntimeError (damaged file, no network).

    Taught in: lesson 01.
    """
    if not isinstance(size, int) or size not in range(8, 257, 4):
        raise ValueError(
            f"size {size!r} is not supported; take a multiple of 4, 8..256"
        )
    if channels not in (None, 1, 3):
        raise ValueError(f"channels is {channels!r}; it must be 1, 3 or None")
    for n in (train_size, test_size):
        if n is not None and not (isinstance(n, int) and n > 0):
            raise ValueError(f"train_size or test_size is {n!r}; it must be 1 or more")
    request = Request(
        resolve(name, NAMES),
        size,
        channels,
        (train_size, test_size),
        seed,
        find_root(root),
        download,
    )
    readers = {
        "faces": faces_sources,
        "digits": digits_sources,
        "celeba": celeba_sources,
    }
    readers |= dict.fromkeys(IDX_SETS, idx_sources)
    sources, channels, target_names = readers.get(request.name, folder_sources)(request)

    rows = choose_rows([source.n for source in sources], request)
    as_float = sum(map(len, rows)) * channels * size**2 * 4 <= FLOAT_LIMIT
    images = []
    for source, chosen in zip([sources[0], sources[-1]], rows, strict=True):
        pixels = fill(source, chosen, channels, request, as_float)
        extras = [x if x is None else x[chosen] for x in (source.labels, source.knobs)]
        images.append(Images(pixels, *extras))
    return Dataset(str(request.name), size, channels, *images, target_names)
