"""What can go wrong with files: reading, checking, downloading and caching for `data`.

May be skipped at first reading. Downloads arrive in a private folder and move into
place when their checksum is right, caches carry a checksum in their name, and whatever
is damaged is named in an error. Nothing that a user put there is changed or deleted.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import re
import secrets
import shutil
import socket
import sys
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

SUFFIXES = tuple(".bmp .gif .jpeg .jpg .pgm .png .ppm .tif .tiff .webp".split())
# Only these decoders run, whatever a file is called (EPS would start Ghostscript).
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
OFFLINE = "Without a network: 'digits', 'faces' and folders of images need no download."
ImageFile = Path | zipfile.Path


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
    repository = Path(__file__).resolve().parents[1]
    here = repository if (repository / "pyproject.toml").is_file() else Path.cwd()
    path = Path(root or os.environ.get("GENCOURSE_DATA") or here / "data")
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{path} begins with the home of an unknown user: write the path in full"
        ) from error


def refuse_devices(path: ImageFile) -> None:
    """An error for what would be read for ever; what is not there is told elsewhere."""
    if not path.is_file() and path.exists() and not path.is_dir():
        raise ValueError("a device or a pipe, not a file")


def damaged(path: Path, why: object) -> RuntimeError:
    return RuntimeError(
        f"{path} is damaged or not what it should be: {why}. Nothing was deleted: move "
        "the file away or put a whole one in its place, then load again."
    )


# ------------------------------------------------------------- pixels: blocks and cache


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


# ------------------------------------------------------ mnist, its relatives and celeba


def idx_set(ask, class_name: str) -> list[tuple[Tensor, Tensor]]:
    """Images (n, 28, 28) uint8 and labels (n,), of train and of test."""
    folder = ask.root / class_name / "raw"
    kinds = ("images-idx3-ubyte", "labels-idx1-ubyte")
    pairs = [[f"{part}-{kind}" for kind in kinds] for part in ("train", "t10k")]

    def path(stem: str) -> Path:
        plain = folder / stem  # not .exists(), which raises for a folder without rights
        return plain if os.path.exists(plain) else folder / f"{stem}.gz"

    missing = [p.name for p in map(path, sum(pairs, [])) if not os.path.exists(p)]
    if missing:
        with downloading(ask, missing, folder) as (torchvision, arrivals):
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


def celeba(ask) -> tuple:
    """[(paths, labels (n, 40)) of train, of test], and the names of the attributes."""
    folder = ask.root / "celeba"
    lists = ("list_eval_partition.txt", "list_attr_celeba.txt")
    packed, unpacked = folder / "img_align_celeba.zip", folder / "img_align_celeba"
    needed = lists if unpacked.is_dir() else (*lists, packed.name)
    missing = [name for name in needed if not (folder / name).exists()]
    if missing:
        with downloading(ask, missing, folder) as (torchvision, arrivals):
            fetch = torchvision.datasets.utils.download_file_from_google_drive
            for file_id, md5, name in torchvision.datasets.CelebA.file_list:
                if name in missing:
                    fetch(file_id, str(arrivals), name, md5)
                    os.replace(arrivals / name, folder / name)
    partition, attributes = (folder / name for name in lists)
    # 0, 1, 2: train, validation, test
    names, kinds, _ = read_table(partition, (0, 1, 2))
    also, flags, (count, header) = read_table(attributes, (-1, 1), skip=2)
    if names != also or str(len(names)) != count.strip():
        raise damaged(attributes, f"it lists other images than {partition}")
    if len(header.split()) != flags.shape[1]:
        names_found = f"{len(header.split())} names of attributes"
        raise damaged(attributes, f"{names_found} for {flags.shape[1]} columns")
    if not {0, 2} <= set(kinds[:, 0].tolist()):
        raise damaged(partition, "train or test has no images")
    below = unpacked
    try:
        if not unpacked.is_dir():  # read from the archive, which stays packed
            below = zipfile.Path(packed, f"{unpacked.name}/")
    except Exception as error:  # a damaged archive can raise anything
        raise damaged(packed, error) from error
    found = []
    for kind in (0, 2):
        rows = (kinds[:, 0] == kind).nonzero()[:, 0]
        found.append(([below / names[row] for row in rows], flags[rows].gt(0).long()))
    return found, tuple(header.split())


def read_table(
    path: Path, allowed: tuple[int, ...], skip: int = 0
) -> tuple[list[str], Tensor, list[str]]:
    """Names and numbers from rows `name number ...`, and the first `skip` lines."""
    try:
        refuse_devices(path)
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        rows = [line.split() for line in lines[skip:]]
        # Path(name).name: a list must not lead out of the folder.
        names = [Path(row[0]).name for row in rows]
        numbers = torch.tensor([[int(value) for value in row[1:]] for row in rows])
        if numbers.dim() != 2 or numbers.numel() == 0:
            raise ValueError("there are no rows in it")
        if len(set(names)) < len(names):
            raise ValueError("an image is listed more than once")
        if not torch.isin(numbers, torch.tensor(allowed)).all():
            raise ValueError(f"it holds other numbers than {allowed}")
        return names, numbers, lines[:skip]
    except (OSError, ValueError, IndexError, RuntimeError) as error:
        raise damaged(path, error) from error


# ------------------------------------------------------------------ images in files


def list_folder(folder: Path) -> list[dict[Path, str]]:
    """The images of train and of test, or of the whole folder where it has no split."""
    try:
        folders = [entry for entry in folder.iterdir() if entry.is_dir()]
    except OSError as error:
        raise RuntimeError(f"cannot look into {folder}: {error}") from error
    below = {entry.name.lower(): entry for entry in folders}
    tests = [below[t] for t in ("test", "val", "valid", "validation") if t in below]
    if tests and "train" in below:
        return [list_images(below["train"]), list_images(tests[0])]
    return [list_images(folder)]


def list_images(folder: Path) -> dict[Path, str]:
    """All images below a folder, sorted, each with the name of its class ("": none)."""

    def refuse(error: OSError) -> None:
        raise RuntimeError(f"cannot look into {error.filename}: {error}") from error

    found, seen = [], set()
    for here, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        if os.path.realpath(here) in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(os.path.realpath(here))
        folders[:] = [f for f in folders if not f.startswith((".", "__MACOSX"))]
        for name in names:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                found.append(Path(here, name).relative_to(folder).parts)
    if not found:
        kinds = " ".join(SUFFIXES)
        raise FileNotFoundError(f"no images in {folder} or below (looked for {kinds})")
    found.sort()
    depth = 0  # a folder that holds everything names no class
    while min(map(len, found)) > depth + 2 and len({p[depth] for p in found}) == 1:
        depth += 1
    return {folder.joinpath(*p): p[depth] if len(p) > depth + 1 else "" for p in found}


def stamp(paths: list[ImageFile]) -> str:
    """A hash of names, sizes and times: another one when a file has been changed."""
    stats = []
    for path in paths:
        on_disk = path.root.filename if isinstance(path, zipfile.Path) else path
        with contextlib.suppress(OSError):  # a broken link is named when it is read
            stat = os.stat(on_disk)
            stats.append(f"{path} {stat.st_size} {stat.st_mtime_ns}")
    return hashlib.sha256("\n".join(stats).encode("utf-8", "replace")).hexdigest()


def read_images(paths: list[ImageFile], size: int, channels: int) -> Tensor:
    """uint8 (N, channels, size, size), decoded by a thread per core."""

    def attempt(path: ImageFile) -> np.ndarray | str:
        try:
            return decode(path, size, channels)
        except Exception as error:  # a damaged image can raise anything in a decoder
            return f"{path}: {str(error).partition(' <_io')[0] or type(error).__name__}"

    with warnings.catch_warnings(action="ignore"), ThreadPoolExecutor() as pool:
        images = list(pool.map(attempt, paths))
    bad = [image for image in images if isinstance(image, str)]
    if bad:
        shown = "\n  ".join(bad[:5] + [f"and {len(bad) - 5} more"] * (len(bad) > 5))
        raise RuntimeError(
            f"{len(bad)} of {len(paths)} images cannot be read:\n  {shown}\n"
            "Nothing was deleted: repair them or move them away, then load again."
        )
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def all_gray(paths: Iterable[Path]) -> bool:
    from PIL import Image

    with warnings.catch_warnings(action="ignore"):
        for path in paths:
            with contextlib.suppress(Exception):  # they are named when decoded
                refuse_devices(path)
                with Image.open(path, formats=FORMATS) as x:
                    if x.mode not in ("1", "L", "LA") and x.mode[0] != "I":
                        return False
    return True


def decode(path: ImageFile, size: int, channels: int) -> np.ndarray:
    """The central square of an image, upright and over white: uint8 (size, size, C)."""
    from PIL import Image, ImageOps

    refuse_devices(path)
    data = path.read_bytes()
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    if image.format == "PNG":  # decoding alone would not compare the checksums
        image.verify()
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    image.draft(None, (2 * size, 2 * size))  # decodes large JPEGs at a fraction
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range is not known")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float32)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("gray values of more than 16 bits")
        image = Image.fromarray((values / 257).round().astype(np.uint8))
    elif image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("L" if channels == 1 else "RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(size, size, channels)


# ------------------------------------------------------------ downloads, by torchvision


@contextlib.contextmanager
def partial_folder(root: Path) -> Iterator[Path]:
    """A folder of our own in root, gone afterwards with all that is in it."""
    folder = root / f".partial-{os.getpid()}-{secrets.token_hex(4)}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def downloading(ask, missing: list[str], folder: Path) -> Iterator[tuple]:
    """torchvision and an empty folder to download into; all that fails is told clearly.

    ask: the name, root and download of `data.load`. torchvision writes straight to the
    final name, so a download that is cut leaves half a file there. In a private folder
    it may, and two processes do not meet.
    """
    by_hand = f"put {', '.join(missing)} into {folder}"
    if ask.name == "celeba":
        by_hand += " (from mmlab.ie.cuhk.edu.hk/projects/CelebA.html, still packed)"
    if not ask.download:
        raise FileNotFoundError(
            f"{ask.name} is not complete. Load with download=True, or {by_hand}, or "
            f"set GENCOURSE_DATA to the folder that has it. {OFFLINE}"
        )
    module = torchvision()
    timeout = socket.getdefaulttimeout()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        clear_stale(ask.root)
        with partial_folder(ask.root) as arrivals:
            socket.setdefaulttimeout(30)  # torchvision sets none: a dead line hangs
            yield module, arrivals
    # URLError, HTTPException, wrong checksum, no gdown, disk full: one way to go on.
    except Exception as error:
        raise RuntimeError(
            f"{ask.name} could not be downloaded to {ask.root}: {str(error).strip()}\n"
            f"Try again later, or {by_hand}, or set GENCOURSE_DATA to a folder that "
            f"has it or can be written to. {OFFLINE}"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)


_declared: list[torch.library.Library] = []  # a library's operators die with it


def torchvision():
    """The module torchvision, also where its compiled operators cannot be loaded.

    A CPU-only torch beside a torchvision built for CUDA fails at import: `operator
    torchvision::nms does not exist`. Declaring the names lets the import pass; the
    operators themselves (for object detection) are not needed here.
    """
    tried: set[str] = set()
    while True:
        try:
            import torchvision

            return torchvision
        except Exception as error:
            problem = error
        missing = re.search(r"operator torchvision::(\w+) does not exist", str(problem))
        if missing is None or missing[1] in tried:
            minor = int(torch.__version__.split(".")[1])
            raise RuntimeError(
                f"torchvision cannot be imported with torch {torch.__version__}: "
                f"{problem}. torch 2.k and torchvision 0.(k + 15) belong together: "
                f"pip install 'torchvision==0.{minor + 15}.*'. {OFFLINE}"
            ) from problem
        tried.add(missing[1])
        for module in [m for m in sys.modules if m.split(".")[0] == "torchvision"]:
            del sys.modules[module]
        _declared.append(torch.library.Library("torchvision", "FRAGMENT"))
        _declared[-1].define(f"{missing[1]}(Tensor a, Tensor b, float c) -> Tensor")
