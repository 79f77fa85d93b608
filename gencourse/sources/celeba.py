"""CelebA: photographs of faces, with 40 attributes each."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from gencourse.sources.folder import photo_source
from gencourse.sources.source import Request, Source, damaged


def celeba_source(request: Request) -> Source:
    folder = request.root / "celeba"
    images = folder / "img_align_celeba"
    partition = folder / "list_eval_partition.txt"
    attributes = folder / "list_attr_celeba.txt"
    paths = (images, partition, attributes)
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        raise FileNotFoundError(
            f"celeba needs {', '.join(missing)} in {folder}: download them from "
            "mmlab.ie.cuhk.edu.hk/projects/CelebA.html and unpack the images there, or "
            "set GENCOURSE_DATA to the folder that has celeba/"
        )
    names, parts, _ = read_list(partition)
    also, flags, (_, header) = read_list(attributes, skip=2)
    if names != also or len(header.split()) != flags.shape[1]:
        raise damaged(attributes, f"it does not fit {partition.name}")
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
    )


def read_list(path: Path, skip: int = 0) -> tuple[list[str], Tensor, list[str]]:
    """Names and numbers (n, k) from lines `name number ...`, and the lines skipped."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [line.split() for line in lines[skip:]]
        numbers = torch.tensor([[int(value) for value in row[1:]] for row in rows])
        if numbers.dim() != 2 or numbers.numel() == 0:
            raise ValueError("it has no rows of a name and numbers")
        return [row[0] for row in rows], numbers, lines[:skip]
    except (OSError, ValueError, IndexError) as error:
        raise damaged(path, error) from error
