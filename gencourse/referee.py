"""The search behind `faces.project`: the knobs of the face nearest to an image.

A small network reads the knobs from the image. From there the method of Levenberg and
Marquardt goes downhill: it measures how the drawing changes with each knob and chooses
the length and direction of a step accordingly. For one of our faces this ends at error
0, usually within a few steps. Only images that stay above it get more first guesses.
tools/measure/reader.py trains the network.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from gencourse import nets, store
from gencourse.faces import KNOBS, OPENING, SMALLEST, SMILE, render, sample_knobs

STORED, SIZE = "knob_reader.safetensors", 32  # the network, and what it reads
# Mean squared errors: at most that of a face found, at least that of a face missed,
# what needs other starts, what is no face.
FOUND, MISSED, FAR, NO_FACE = 1e-9, 0.001**2, 0.01**2, 0.03**2


@torch.no_grad()  # also in the threads of `faces.project`
def nearest(images: Tensor, starts: int) -> tuple[Tensor, Tensor]:
    """The knobs (N, 8) in [-1, 1] of the faces found, and mean squared errors (N,)."""
    first = reader(images.device)(as_read(images)).clamp(-1, 1)
    knobs, error = _refine(images, first, rounds=1)

    def improve(rows: Tensor, guesses: Tensor, rounds: int) -> None:
        """Refine guesses (len(rows), K, 8); keep what is nearer than before."""
        n, k, _ = guesses.shape
        repeated = images[rows].repeat_interleave(k, 0)
        found, found_error = _refine(repeated, guesses.flatten(0, 1), rounds)
        found_error, best = found_error.view(n, k).min(1)
        found = _pick(found.view(n, k, -1), best[:, None])[:, 0]
        better = found_error < error[rows]
        knobs[rows[better]], error[rows[better]] = found[better], found_error[better]

    far = (error > FAR).nonzero()[:, 0]
    near = ((error > FOUND) & (error <= FAR)).nonzero()[:, 0]
    if len(near) > 0:
        improve(near, knobs[near, None], rounds=2)
    if len(far) > 0:
        improve(far, _best_starts(images[far], knobs[far], starts), rounds=6)
    # A face that was missed, mostly by its mouth or eyes, agrees with the image in most
    # pixels. Where a model drew the image, or a part of it, all are a little off there,
    # and more starts would not lessen that.
    rows = ((error > MISSED) & (error < NO_FACE)).nonzero()[:, 0]
    drawn = render(knobs[rows], images.shape[-1], images.shape[1] == 1)
    off = (drawn - images[rows]).abs().flatten(1)
    most = off.kthvalue(3 * off.shape[1] // 4, dim=1).values
    rows = rows[most < 0.2 * error[rows].sqrt()]
    if len(rows) > 0:
        around = 0.6 * sample_knobs(48, seed=0xFACE).to(images.device)
        for part in rows.split(8):  # bounds the memory
            improve(part, (knobs[part, None] + around).clamp(-1, 1), rounds=3)
    return knobs, error


def as_read(images: Tensor) -> Tensor:
    """Images (N, 3 or 1, size, size) as the network reads them: (N, 3, 32, 32)."""
    images = images.expand(-1, 3, -1, -1)
    if images.shape[-1] != SIZE:
        images = F.interpolate(images, (SIZE, SIZE), mode="bilinear", antialias=True)
    return images.contiguous(memory_format=torch.channels_last)


@lru_cache(maxsize=4)
def reader(device: torch.device) -> nets.Encoder:
    """The stored network: images (N, 3, 32, 32) -> first guesses of the knobs."""
    tensors, _ = store.read(store.PRETRAINED / STORED)
    with torch.device("meta"):  # draws no random numbers
        network = nets.Encoder(len(KNOBS), SIZE)
    network.load_state_dict(tensors, assign=True)
    # Half precision in the file keeps it small.
    return network.to(device, torch.float32, memory_format=torch.channels_last)


def _best_starts(images: Tensor, knobs: Tensor, starts: int) -> Tensor:
    """The best quarter of some starts, at least one, after a round at half the size.

    Half of the new ones are the face found with another mouth (a closed smile can look
    like an open frown), half are the most similar faces of a bank.

    Returns:
        (N, max(1, starts // 4), 8)
    """
    n, channels, size, _ = images.shape
    gray = channels == 1
    small = F.adaptive_avg_pool2d(images, max(SMALLEST, size // 2))
    tiny = F.adaptive_avg_pool2d(images, SMALLEST).flatten(1)
    levels = torch.linspace(-0.9, 0.9, 5, device=images.device)
    mouths = _with_mouths(knobs, torch.cartesian_prod(levels, levels).expand(n, -1, 2))
    drawn = render(mouths.flatten(0, 1), SMALLEST, gray).view(*mouths.shape[:2], -1)
    mouth_error = (drawn - tiny[:, None]).square().mean(2)
    known = (mouths - knobs[:, None]).abs().amax(2) < 0.35
    mouth_error = mouth_error.masked_fill(known, torch.inf)
    bank_knobs, bank_images = _bank(gray, images.device)
    bank_error = torch.cdist(tiny, bank_images)
    guesses = [knobs[:, None]]
    guesses += [_pick(mouths, mouth_error.topk(starts // 2, largest=False).indices)]
    guesses += [bank_knobs[bank_error.topk((starts - 1) // 2, largest=False).indices]]
    tried, error = _refine(
        small.repeat_interleave(starts, 0), torch.cat(guesses, 1).flatten(0, 1), 1
    )
    error = error.view(n, starts)
    best = error.topk(max(1, starts // 4), largest=False).indices
    tried = _pick(tried.view(n, starts, -1), best)
    # Where the first start is among them, its round at full size was the better one.
    return torch.where(best[:, :, None] == 0, knobs[:, None], tried)


def _with_mouths(knobs: Tensor, mouths: Tensor) -> Tensor:
    """Knobs (N, 8) with each of their mouths (N, K, 2): (N, K, 8)."""
    faces = knobs[:, None].repeat(1, mouths.shape[1], 1)
    faces[:, :, SMILE : OPENING + 1] = mouths
    return faces


def _pick(knobs: Tensor, index: Tensor) -> Tensor:
    """From knobs (N, K, 8) those with the indices (N, J): (N, J, 8)."""
    return knobs.gather(1, index[:, :, None].expand(-1, -1, len(KNOBS)))


@lru_cache(maxsize=4)
def _bank(gray: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    """Faces to start from: knobs (4096, 8) and their pixels at 16 x 16, flat."""
    knobs = sample_knobs(4096, seed=0xBA2C).to(device)  # a seed that nobody types
    return knobs, render(knobs, SMALLEST, gray).flatten(1)


def _refine(images: Tensor, knobs: Tensor, rounds: int) -> tuple[Tensor, Tensor]:
    """Better knobs (N, 8) and their mean squared errors (N,).

    A face that was found, or that a round has hardly improved, gets no further round.
    """
    knobs, error = _round(images, knobs)
    rows = (error > FOUND).nonzero()[:, 0]
    for _ in range(rounds - 1):
        if len(rows) == 0:
            break
        before = error[rows]
        knobs[rows], error[rows] = _round(images[rows], knobs[rows])
        rows = rows[(error[rows] > FOUND) & (error[rows] < 0.995 * before)]
    return knobs, error


def _round(images: Tensor, knobs: Tensor) -> tuple[Tensor, Tensor]:
    """Three steps of Levenberg-Marquardt with a single Jacobian: knobs, errors (N,).

    The Jacobian costs eight renderings. After a step, Broyden's update corrects it by
    what the new rendering has shown.
    """
    n, channels, size, _ = images.shape
    target = images.flatten(1)
    eye = torch.eye(len(KNOBS), device=images.device)
    damping = torch.full((n, 1, 1), 1e-3, device=images.device)

    def draw(knobs: Tensor) -> Tensor:
        return render(knobs, size, gray=channels == 1).flatten(1)

    drawn = draw(knobs)
    error = (drawn - target).square().mean(1)
    # One-sided differences, towards the inside of the cube.
    h = torch.where(knobs > 0, -0.01, 0.01)[:, :, None]
    moved = draw((knobs[:, None] + h * eye).flatten(0, 1)).view(n, len(KNOBS), -1)
    jacobian = (moved - drawn[:, None]) / h
    for _ in range(3):
        gradient = torch.einsum("nkd,nd->nk", jacobian, drawn - target)
        # A knob at its limit that wants to go further is left out of the step.
        stuck = ((knobs >= 1) & (gradient < 0)) | ((knobs <= -1) & (gradient > 0))
        free = (~stuck).to(images.dtype)
        curvature = jacobian @ jacobian.mT * free[:, :, None] * free[:, None]
        scale = damping * curvature.diagonal(dim1=1, dim2=2).mean(1).view(n, 1, 1)
        move = torch.linalg.solve(curvature + (scale + 1e-6) * eye, gradient * free)
        tried = (knobs - move).clamp(-1, 1)
        tried_drawn = draw(tried)
        tried_error = (tried_drawn - target).square().mean(1)
        step = tried - knobs
        surprise = tried_drawn - drawn - torch.einsum("nkd,nk->nd", jacobian, step)
        step = step / step.square().sum(1, keepdim=True).clamp(min=1e-12)
        jacobian = jacobian + step[:, :, None] * surprise[:, None]
        better = tried_error < error
        knobs = torch.where(better[:, None], tried, knobs)
        drawn = torch.where(better[:, None], tried_drawn, drawn)
        error = torch.where(better, tried_error, error)
        damping = torch.where(better[:, None, None], damping * 0.2, damping * 8)
    return knobs, error
