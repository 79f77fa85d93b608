"""Downloads, by torchvision, into a private folder first."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from gencourse.sources.disk import clear_stale

OFFLINE = "Without a network: 'digits', 'faces' and folders of images need no download."


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
def downloading(request, missing: list[str], folder: Path) -> Iterator[tuple]:
    """torchvision and an empty folder to download into; all that fails is told clearly.

    torchvision writes straight to the final name, so a download that is cut leaves half
    a file there. In a private folder it may, and two processes do not meet.
    """
    by_hand = f"put {', '.join(missing)} into {folder}"
    if request.name == "celeba":
        by_hand += " (from mmlab.ie.cuhk.edu.hk/projects/CelebA.html, still packed)"
    if not request.download:
        raise FileNotFoundError(
            f"{request.name} is not complete. Load with download=True, or {by_hand}, "
            f"or set GENCOURSE_DATA to the folder that has it. {OFFLINE}"
        )
    module = torchvision()
    timeout = socket.getdefaulttimeout()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        clear_stale(request.root)
        with partial_folder(request.root) as arrivals:
            socket.setdefaulttimeout(30)  # torchvision sets none: a dead line hangs
            yield module, arrivals
    # URLError, HTTPException, wrong checksum, no gdown, disk full: one way to go on.
    except Exception as error:
        raise RuntimeError(
            f"{request.name} could not be downloaded to {request.root}: "
            f"{str(error).strip()}\n"
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
