"""Downloads, by torchvision, into a temporary folder first."""

from __future__ import annotations

import contextlib
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import torch

from gencourse.sources.source import Request

OFFLINE = "'digits', 'faces' and folders of your own images need no download."


@contextlib.contextmanager
def downloading(
    request: Request, missing: list[str], folder: Path
) -> Iterator[tuple[ModuleType, Path]]:
    """torchvision, and a temporary folder to download the missing files into.

    torchvision writes to the final name at once, so an interrupted download would leave
    half a file there: move what has arrived into the folder where it belongs.

    Raises:
        FileNotFoundError: request.download is False.
        RuntimeError: what went wrong, and how to get the files by hand.
    """
    by_hand = f"put {', '.join(missing)} into {folder}"
    if request.name == "celeba":
        by_hand += " (from mmlab.ie.cuhk.edu.hk/projects/CelebA.html, still packed)"
    if not request.download:
        raise FileNotFoundError(
            f"{request.name} is not complete. Load it with download=True, or "
            f"{by_hand}, or set GENCOURSE_DATA to the folder that has it. {OFFLINE}"
        )
    module = torchvision()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=request.root, prefix=".part-") as arrivals:
            yield module, Path(arrivals)
    # URLError, HTTPException, wrong checksum, no gdown, disk full: the remedy is one.
    except Exception as error:
        raise RuntimeError(
            f"{request.name} could not be downloaded to {request.root}: "
            f"{str(error).strip()}\n"
            f"Try again later, or {by_hand}, or set GENCOURSE_DATA to a folder that "
            f"has it or that you can write to. {OFFLINE}"
        ) from error


_declared: list[torch.library.Library] = []  # a library's operators die with it


def torchvision() -> ModuleType:
    """The module torchvision, even if its compiled operators cannot be loaded.

    A CPU-only torch beside a torchvision built for CUDA fails at import: `operator
    torchvision::nms does not exist`. Declaring the operators lets the import pass;
    only object detection would run them.

    Raises:
        RuntimeError: it cannot be imported for another reason.
    """
    tried = set()
    while True:
        try:
            import torchvision

            return torchvision
        except Exception as error:
            missing = re.search(r"torchvision::(\w+) does not exist", str(error))
            if missing is None or missing[1] in tried:
                minor = int(torch.__version__.split(".")[1])
                raise RuntimeError(
                    f"torchvision cannot be imported with torch {torch.__version__}: "
                    f"{error}. torch 2.k and torchvision 0.(k + 15) belong together: "
                    f"pip install 'torchvision==0.{minor + 15}.*'. {OFFLINE}"
                ) from error
        tried.add(missing[1])
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        _declared.append(torch.library.Library("torchvision", "FRAGMENT"))
        _declared[-1].define(f"{missing[1]}(Tensor a, Tensor b, float c) -> Tensor")
