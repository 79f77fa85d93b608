"""CelebA: photographs of faces, with 40 attributes each."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from gencourse.sources.disk import damaged, refuse_devices
from gencourse.sources.download import downloading
from gencourse.sources.folder import photos
from gencourse.sources.source import Request


def celeba_sources(request: Request) -> tuple:
    c = request.channels or 3
    parts, attributes = celeba(request)
    return [photos(paths, request.size, c, y) for paths, y in parts], c, attributes


def celeba(request) -> tuple:
    """[(paths, labels (n, 40)) of train, of test], and the names of the attributes."""
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
