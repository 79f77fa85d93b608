"""CelebA: photographs of faces, with 40 attributes each.

The archive stays packed: one file instead of 202,599, each image with a checksum.
torchvision's own loader would unpack it, wants three more lists, and even for files
that are there already the package gdown.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from gencourse.sources.download import downloading
from gencourse.sources.folder import photo_source
from gencourse.sources.source import Request, Source, damaged


def celeba_source(request: Request) -> Source:
    folder = request.root / "celeba"
    lists = ("list_eval_partition.txt", "list_attr_celeba.txt")
    packed, unpacked = folder / "img_align_celeba.zip", folder / "img_align_celeba"
    needed = lists if unpacked.is_dir() else (*lists, packed.name)
    missing = [name for name in needed if not (folder / name).exists()]
    if missing:
        with downloading(request, missing, folder) as (torchvision, arrivals):
            fetch = torchvision.datasets.utils.download_file_from_google_drive
            for file_id, md5, name in torchvision.datasets.CelebA.file_list:
                if name in missing:
                    fetch(file_id, str(arrivals), name, md5)
                    os.replace(arrivals / name, folder / name)
    partition, attributes = (folder / name for name in lists)
    names, parts, _ = read_list(partition)
    also, flags, (_, header) = read_list(attributes, skip=2)
    if names != also or len(header.split()) != flags.shape[1]:
        raise damaged(attributes, f"it does not fit {partition.name}")
    images, archive = unpacked, None
    if not unpacked.is_dir():
        try:
            images, archive = zipfile.Path(packed, f"{unpacked.name}/"), packed
        except Exception as error:  # a damaged archive can raise anything
            raise damaged(packed, error) from error
    order = [(parts[:, 0] == part).nonzero()[:, 0] for part in (0, 2)]  # train, test
    counts, rows = list(map(len, order)), torch.cat(order)
    if 0 in counts:
        raise damaged(partition, "train or test has no images")
    return photo_source(
        counts,
        [images / names[row] for row in rows],
        request,
        channels=request.channels or 3,
        target_names=tuple(header.split()),
        labels=flags[rows].gt(0).long(),
        archive=archive,
    )


def read_list(path: Path, skip: int = 0) -> tuple[list[str], Tensor, list[str]]:
    """Names and numbers (n, k) from lines `name number ...`, and the lines skipped."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        rows = [line.split() for line in lines[skip:]]
        numbers = torch.tensor([[int(value) for value in row[1:]] for row in rows])
        if numbers.dim() != 2 or numbers.numel() == 0:
            raise ValueError("it has no rows of a name and numbers")
        return [row[0] for row in rows], numbers, lines[:skip]
    except (OSError, ValueError, IndexError, RuntimeError) as error:
        raise damaged(path, error) from error
