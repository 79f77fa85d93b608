"""Any folder of images: what lies in it, its split and its classes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import warnings
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from gencourse.sources.pictures import all_gray, formats, read_images
from gencourse.sources.source import Request, Source, shown

TESTS = ("test", "val", "valid", "validation")
HIDDEN = (".", "__MACOSX")


def folder_source(request: Request) -> Source:
    """Warn of pictures left out, and of classes that train or test lacks."""
    unread: Counter[str] = Counter()
    parts = find_split(request.name)
    listings = [list_images(part, unread) for part in parts]
    if unread:
        message = f"left out of {shown(request.name)}: {_count(unread)}"
        warnings.warn(message, stacklevel=3)
    classes = find_classes(parts, [set(listing.values()) for listing in listings])
    paths = [path for listing in listings for path in listing]
    labels, target_names = None, None
    if classes:
        class_of = [name for listing in listings for name in listing.values()]
        labels = torch.tensor([classes.index(name) for name in class_of])
        target_names = tuple(map(shown, classes))
    channels = request.channels or (1 if all_gray(paths) else 3)
    counts = list(map(len, listings))
    return photo_source(counts, paths, request, channels, target_names, labels)


def photo_source(
    counts: list[int],
    paths: list[Path],
    request: Request,
    channels: int,
    target_names: tuple[str, ...] | None,
    labels: Tensor | None,
) -> Source:
    """A source of image files."""

    def read(rows: Tensor) -> Tensor:
        return read_images([paths[row] for row in rows], request.size, channels)

    def stamp(rows: Tensor) -> str:
        lines = []
        for path in (paths[row] for row in rows):
            with contextlib.suppress(OSError):  # a broken link is named when it is read
                stat = path.stat()
                lines.append(f"{path} {stat.st_size} {stat.st_mtime_ns}")
        text = "\n".join(lines).encode("utf-8", "backslashreplace")
        return hashlib.sha256(text).hexdigest()

    return Source(counts, channels, read, target_names, labels, stamp=stamp)


def find_split(folder: Path) -> list[Path]:
    """The folders of train and of test, or only the folder if it is not split.

    One folder around everything, as archives often have it, does not count.

    Raises:
        ValueError: Two folders could be the same part, such as Train and train.
        RuntimeError: The folder cannot be opened.
    """
    try:
        visible = sorted(x for x in folder.iterdir() if not x.name.startswith(HIDDEN))
    except OSError as error:
        raise RuntimeError(f"cannot open {shown(folder)}: {error.strerror}") from error
    subfolders = [entry for entry in visible if entry.is_dir()]
    named = {
        part: [entry for entry in subfolders if entry.name.lower() == part]
        for part in ("train", *TESTS)
    }
    for same in named.values():
        if len(same) > 1:
            names = " and ".join(entry.name for entry in same)
            raise ValueError(
                f"{shown(folder)} contains {names}, but only one of them can be used: "
                "rename or merge them"
            )
    test = next((part for part in TESTS if named[part]), None)
    if test and named["train"]:
        return named["train"] + named[test]
    _, readable, others = formats()
    pictures = [x for x in visible if x.suffix.lower() in readable | others]
    around_everything = len(subfolders) == 1 and not pictures
    return find_split(subfolders[0]) if around_everything else [folder]


def list_images(folder: Path, unread: Counter[str]) -> dict[Path, str]:
    """All images below a folder in order, each with its class ("": none).

    Args:
        folder: Links in it are followed; hidden files and folders are not seen.
        unread: Counts by ending the pictures that are left out; it is added to.

    Raises:
        FileNotFoundError: There are no images.
        RuntimeError: A folder cannot be opened.
    """

    def refuse(error: OSError) -> None:
        name = shown(error.filename)
        raise RuntimeError(f"cannot open {name}: {error.strerror}") from error

    _, readable, others = formats()
    images, seen = [], set()  # seen: folders, because a link may lead back
    for here, subfolders, names in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = [f for f in subfolders if not f.startswith(HIDDEN)]
        for name in names:
            ending = "" if name.startswith(".") else os.path.splitext(name)[1].lower()
            if ending in readable:
                images.append(Path(here, name).relative_to(folder).parts)
            elif ending in others:
                unread[ending] += 1
    if not images:
        wanted = f"looked for {' '.join(sorted(readable))}"
        if unread:
            wanted += f"; found {_count(unread)}"
        raise FileNotFoundError(f"no images in {shown(folder)} or below ({wanted})")
    images.sort()
    depth = 0  # a folder that holds everything names no class
    while min(map(len, images)) > depth + 2 and len({p[depth] for p in images}) == 1:
        depth += 1
    return {folder.joinpath(*p): p[depth] if len(p) > depth + 1 else "" for p in images}


def find_classes(parts: list[Path], classes_of: list[set[str]]) -> list[str] | None:
    """The classes of all parts, sorted; None unless every image is in one of several.

    Warns of classes that one part lacks, and of a part without classes.
    """
    classes = sorted(set().union(*classes_of))
    if "" in classes or len(classes) < 2:
        if len(classes) > 2 and len({"" in part for part in classes_of}) == 2:
            flat = next(p for p, c in zip(parts, classes_of, strict=True) if "" in c)
            message = f"no labels: {shown(flat)} has images outside class folders"
            warnings.warn(message, stacklevel=4)
        return None
    for part, present in zip(parts, classes_of, strict=True):
        absent = [shown(name) for name in classes if name not in present]
        if absent:
            names = ", ".join(absent[:5] + ["..."] * (len(absent) > 5))
            message = f"{shown(part)} has no images of these classes: {names}"
            warnings.warn(message, stacklevel=4)
    return classes


def _count(unread: Counter[str]) -> str:
    counts = ", ".join(f"{n:,} {ending}" for ending, n in sorted(unread.items()))
    return f"{counts}; convert them to JPEG or PNG"
