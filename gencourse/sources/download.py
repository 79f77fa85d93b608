"""Downloads: whole, with the right checksum, or not at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
from http.client import HTTPException
from pathlib import Path

import torch

from gencourse.sources.source import Request


def download(request: Request, url: str, files: dict[str, str], folder: Path) -> None:
    """Fetch files into the folder; what arrived before a failure stays.

    Args:
        request: Names the data set, and says whether the network may be used.
        url: The address of the files without their names.
        files: Name -> MD5 checksum.

    Raises:
        FileNotFoundError: request.download is False.
        RuntimeError: What went wrong, and how to get the files by hand.
    """
    remedy = (
        f"put {', '.join(files)} into {folder}, or set GENCOURSE_DATA to another "
        "folder. 'digits', 'faces' and folders of your own images need no download"
    )
    if not request.download:
        raise FileNotFoundError(
            f"{request.name} is not complete: load it with download=True, or {remedy}"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Beside its final place, because a download that is cut short leaves a part.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as temporary:
            for name, md5 in files.items():
                arrived = Path(temporary, name)
                torch.hub.download_url_to_file(url + name, str(arrived))
                if hashlib.md5(arrived.read_bytes()).hexdigest() != md5:
                    raise OSError(f"{url}{name} arrived damaged")
                os.replace(arrived, folder / name)
    except (OSError, HTTPException) as error:
        raise RuntimeError(
            f"{request.name} could not be downloaded to {folder}: {error}. Try again "
            f"later, or {remedy}"
        ) from error
