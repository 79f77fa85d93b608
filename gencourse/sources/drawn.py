"""Images that need no file: our faces, and scikit-learn's handwritten digits."""

from __future__ import annotations

import torch
from torch import Tensor

from gencourse.sources.idx import gray_source
from gencourse.sources.source import Request, Source, rng_for


def faces_source(request: Request) -> Source:
    from gencourse import faces

    if request.size < 16:
        raise ValueError(f"size {request.size} is too small for faces; take 16 or more")
    counts = [request.train_size or 20_000, request.test_size or 2_000]
    # Seeds that nobody would type: sample_knobs(n, seed=0) in a lesson must not draw
    # the training faces again and call them fresh.
    seeds = [rng_for(request.seed, part).initial_seed() for part in range(2)]
    knobs = torch.cat(list(map(faces.sample_knobs, counts, seeds)))

    def read(rows: Tensor) -> Tensor:
        with torch.no_grad():
            return faces.render(knobs[rows], request.size, gray=request.channels == 1)

    names = tuple(faces.KNOB_NAMES)
    return Source(counts, request.channels or 3, read, names, knobs=knobs)


def digits_source(request: Request) -> Source:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float().div(16)  # (1797, 8, 8)
    labels = torch.from_numpy(bunch.target).long()
    return gray_source([len(images)], images, labels, tuple("0123456789"), request)
