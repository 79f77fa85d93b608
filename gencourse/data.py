"""Images to learn from: `load(name, size)` gives train and test apart, ready in memory.

    data = load("faces", size=32)
    for x in data.train.batches(128):      # (128, 3, 32, 32), float32 in [0, 1]
        ...

All pixels lie in one tensor and a batch is a gather by shuffled index: several times
faster than decoding and transforming image by image in a DataLoader. How files are
read, checked, downloaded and cached stands in `files`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gencourse import files

# Train and test together stay float32 up to this many bytes, and uint8 beyond.
FLOAT_LIMIT = 2**30
# Fewer image files than these are decoded at each load, more only once, into a cache.
CACHE_FROM = 2_000

FASHION = "T-shirt/top Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag Ankle-boot"
IDX_SETS = {  # name -> torchvision's class (and folder), names of the ten classes
    "mnist": ("MNIST", "0 1 2 3 4 5 6 7 8 9"),
    "fashion-mnist": ("FashionMNIST", FASHION),
    "kmnist": ("KMNIST", "o ki su tsu na ha ma ya re wo"),
}
NAMES = ("faces", "digits", *IDX_SETS, "celeba")
_Ask = SimpleNamespace  # load's arguments: name, root, size, channels, wanted, ...


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
        return files.convert(batch.permute(0, 3, 1, 2), torch.float32)  # (B, C, S, S)

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
            order = torch.randperm(len(order), generator=_rng(self.seed, epoch))
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
    ask = _Ask(name=files.resolve(name, NAMES), root=files.find_root(root))
    ask.channels = channels and int(channels)
    ask.size, ask.wanted = size, (train_size, test_size)
    ask.seed, ask.download = seed, download
    readers = {"faces": _faces, "digits": _digits, "celeba": _celeba}
    readers |= dict.fromkeys(IDX_SETS, _idx_set)
    sources, channels, target_names = readers.get(ask.name, _folder)(ask)

    rows = _rows([source.n for source in sources], ask)
    as_float = sum(map(len, rows)) * channels * size**2 * 4 <= FLOAT_LIMIT
    images = []
    for source, chosen in zip([sources[0], sources[-1]], rows, strict=True):
        pixels = _store(source, chosen, channels, ask, as_float)
        extras = [x if x is None else x[chosen] for x in (source.labels, source.knobs)]
        images.append(Images(pixels, *extras))
    return Dataset(str(ask.name), size, channels, *images, target_names)


@dataclass
class _Source:
    """n images before they are read: `read(rows)` gives (B, C, S, S)."""

    n: int
    read: Callable[[Tensor], Tensor]  # float32 in [0, 1], or uint8
    labels: Tensor | None = None
    knobs: Tensor | None = None
    stamp: Callable[[Tensor], str] | None = None  # tells whether the files changed
    decoded: bool = False  # from image files, which takes time


def _rng(seed: int, stream: int) -> torch.Generator:
    """A generator of its own for each pair of numbers."""
    digest = hashlib.sha256(f"{seed} {stream}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def _rows(counts: list[int], ask: _Ask) -> list[Tensor]:
    """Indices for train and test, in order: chosen from both, or one set split."""
    if len(counts) == 2:
        orders = []
        for part, what in enumerate(("train_size", "test_size")):
            n, wanted = counts[part], ask.wanted[part]
            if wanted is not None and wanted > n:
                raise ValueError(f"{what} is {wanted}, but {ask.name} has only {n}")
            orders.append(torch.randperm(n, generator=_rng(ask.seed, part))[:wanted])
    else:
        n, share = counts[0], 1 / 6 if ask.name == "digits" else 0.1
        n_test = ask.wanted[1] or max(1, round(n * share))
        n_train = ask.wanted[0] or max(1, n - n_test)
        if n_train + n_test > n:
            sizes = f"train_size {n_train} and test_size {n_test}"
            raise ValueError(f"{ask.name} has {n} images: too few for {sizes}")
        order = torch.randperm(n, generator=_rng(ask.seed, 0))
        orders = [order[n_test : n_test + n_train], order[:n_test]]
    return [order.sort().values for order in orders]


def _store(source: _Source, rows: Tensor, c: int, ask: _Ask, as_float: bool) -> Tensor:
    """The pixels of rows, (n, C, size, size): in memory, or mapped from a cache."""
    dtype = torch.float32 if as_float else torch.uint8
    shape = (len(rows), ask.size, ask.size, c)
    slow = source.decoded and len(rows) >= CACHE_FROM

    def read(chunk: slice) -> Tensor:
        return source.read(rows[chunk]).permute(0, 2, 3, 1)

    if source.stamp and (slow or not as_float):
        pixels = files.cached(read, shape, source.stamp(rows), ask.root / "cache")
        if pixels is not None:
            return files.convert(pixels.permute(0, 3, 1, 2), dtype)
    pixels = torch.empty(shape, dtype=dtype)
    for chunk in files.chunks(shape, bar=slow):
        pixels[chunk] = files.convert(read(chunk), dtype)
    return pixels.permute(0, 3, 1, 2)


# ------------ set by set: sources of train and test (or one to split), channels, names


def _faces(ask: _Ask) -> tuple:
    from gencourse import faces

    if ask.size < 16:
        raise ValueError(f"size {ask.size} is too small for faces; take 16 or more")
    channels, sources = ask.channels or 3, []
    for part, n in enumerate((ask.wanted[0] or 20_000, ask.wanted[1] or 2_000)):
        # Seeds that nobody would type: sample_knobs(n, seed=0) in a lesson must not
        # draw the training faces again and call them fresh.
        knobs = faces.sample_knobs(n, seed=_rng(ask.seed, part).initial_seed())

        def read(rows: Tensor, knobs: Tensor = knobs) -> Tensor:
            with torch.no_grad():
                return faces.render(knobs[rows], ask.size, gray=channels == 1)

        sources.append(_Source(n, read, knobs=knobs))
    return sources, channels, tuple(faces.KNOB_NAMES)


def _digits(ask: _Ask) -> tuple:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float().div(16)  # (1797, 8, 8)
    labels = torch.from_numpy(bunch.target).long()
    return [_gray(images, labels, ask)], ask.channels or 1, tuple("0123456789")


def _idx_set(ask: _Ask) -> tuple:
    folder, classes = IDX_SETS[ask.name]
    sources = [_gray(x, y, ask, True) for x, y in files.idx_set(ask, folder)]
    return sources, ask.channels or 1, tuple(classes.split())


def _gray(images: Tensor, labels: Tensor, ask: _Ask, cache: bool = False) -> _Source:
    """A source of gray images (N, H, H) in memory, uint8 or float32."""

    def read(rows: Tensor) -> Tensor:
        x = files.convert(images[rows, None], torch.float32)  # (B, 1, H, H)
        if (x.shape[-1], ask.size) == (28, 32):
            x = F.pad(x, (2, 2, 2, 2))
        elif x.shape[-1] != ask.size:
            x = F.interpolate(x, (ask.size,) * 2, mode="bilinear", antialias=True)
        return x.clamp(0, 1).expand(-1, ask.channels or 1, -1, -1)

    def stamp(rows: Tensor) -> str:
        return hashlib.sha256(images[rows].numpy()).hexdigest()

    return _Source(len(images), read, labels, stamp=stamp if cache else None)


def _celeba(ask: _Ask) -> tuple:
    c = ask.channels or 3
    parts, attributes = files.celeba(ask)
    return [_photos(paths, ask.size, c, y) for paths, y in parts], c, attributes


def _folder(ask: _Ask) -> tuple:
    listings = files.list_folder(ask.name)
    class_of = {path: name for listing in listings for path, name in listing.items()}
    classes = tuple(sorted(set(class_of.values())))
    classes = None if "" in classes or len(classes) < 2 else classes
    channels = ask.channels or (1 if files.all_gray(class_of) else 3)
    sources = []
    for listing in listings:
        labels = classes and torch.tensor([classes.index(c) for c in listing.values()])
        sources.append(_photos(list(listing), ask.size, channels, labels))
    return sources, channels, classes


def _photos(paths: list, size: int, channels: int, labels: Tensor | None) -> _Source:
    """A source of image files."""

    def read(rows: Tensor) -> Tensor:
        return files.read_images([paths[row] for row in rows], size, channels)

    def stamp(rows: Tensor) -> str:
        return files.stamp([paths[row] for row in rows])

    return _Source(len(paths), read, labels, stamp=stamp, decoded=True)
