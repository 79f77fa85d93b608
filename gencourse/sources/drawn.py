"""What needs no file: our faces, and scikit-learn's handwriting."""

from __future__ import annotations

import torch
from torch import Tensor

from gencourse.sources.idx import gray_source
from gencourse.sources.source import Request, Source, rng_for


def faces_sources(request: Request) -> tuple:
    from gencourse import faces

    if request.size < 16:
        raise ValueError(f"size {request.size} is too small for faces; take 16 or more")
    channels, sources = request.channels or 3, []
    for part, n in enumerate((request.wanted[0] or 20_000, request.wanted[1] or 2_000)):
        # Seeds that nobody would type: sample_knobs(n, seed=0) in a lesson must not
        # draw the training faces again and call them fresh.
        knobs = faces.sample_knobs(n, seed=rng_for(request.seed, part).initial_seed())

        def read(rows: Tensor, knobs: Tensor = knobs) -> Tensor:
            with torch.no_grad():
                return faces.render(knobs[rows], request.size, gray=channels == 1)

        sources.append(Source(n, read, knobs=knobs))
    return sources, channels, tuple(faces.KNOB_NAMES)


def digits_sources(request: Request) -> tuple:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float().div(16)  # (1797, 8, 8)
    labels = torch.from_numpy(bunch.target).long()
    return (
        [gray_source(images, labels, request)],
        request.channels or 1,
        tuple("0123456789"),
    )
