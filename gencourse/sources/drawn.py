"""Images that need no file: our faces, and scikit-learn's handwritten digits."""

from __future__ import annotations

import torch
from torch import Tensor

from gencourse.sources.idx import gray_source
from gencourse.sources.source import Request, Source, rng_for

JITTER = 0.2  # a character's knobs vary by so much, up or down


def faces_source(request: Request) -> Source:
    from gencourse import faces

    counts, seeds = _drawn(request)
    knobs = torch.cat(list(map(faces.sample_knobs, counts, seeds)))
    return _faces(request, counts, knobs, tuple(faces.KNOB_NAMES))


def characters_source(request: Request) -> Source:
    from gencourse import faces

    counts, seeds = _drawn(request)
    jitter = JITTER * torch.cat(list(map(faces.sample_knobs, counts, seeds)))
    rng = rng_for(request.seed, 2)
    centers = faces.characters()
    labels = torch.randint(len(centers), (sum(counts),), generator=rng)
    names = tuple(f"character {i}" for i in range(len(centers)))
    return _faces(request, counts, centers[labels] + jitter, names, labels)


def _drawn(request: Request) -> tuple[list[int], list[int]]:
    """How many faces for train and test, and a seed for each."""
    if request.size < 16:
        raise ValueError(f"size {request.size} is too small for faces; take 16 or more")
    counts = [request.train_size or 20_000, request.test_size or 2_000]
    # Seeds that nobody would type: sample_knobs(n, seed=0) in a lesson must not draw
    # the training faces again and call them fresh.
    return counts, [rng_for(request.seed, part).initial_seed() for part in range(2)]


def _faces(
    request: Request,
    counts: list[int],
    knobs: Tensor,
    names: tuple[str, ...],
    labels: Tensor | None = None,
) -> Source:
    from gencourse import faces

    def read(rows: Tensor) -> Tensor:
        with torch.no_grad():
            return faces.render(knobs[rows], request.size, gray=request.channels == 1)

    return Source(counts, request.channels or 3, read, names, labels, knobs=knobs)


def digits_source(request: Request) -> Source:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float().div(16)  # (1797, 8, 8)
    labels = torch.from_numpy(bunch.target).long()
    return gray_source([len(images)], images, labels, tuple("0123456789"), request)
