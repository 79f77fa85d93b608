"""Cartoon faces whose eight true latent variables are known: the course's ground truth.

`render` is the *true decoder*: it maps eight knobs to an image. `project` is the
*referee*: it finds the face nearest to any image, so that "how far from a real face is
this?" and "which knobs does it show?" have numerical answers.

Every part of a face is a shape given by a signed distance (negative inside) or by a
band between two curves. A pixel takes a shape's color in proportion to how much of the
pixel the shape covers, so edges are smooth at any size and the image is (almost
everywhere) differentiable in the knobs. Parts are painted from back to front and always
overlap what lies below them; two shapes never share an edge, which would leave a bright
seam.

Taught in: lesson 01.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from numbers import Integral
from typing import NamedTuple

import torch
from torch import Tensor


class Knob(NamedTuple):
    """One true latent variable; `low` and `high` say what -1 and +1 look like."""

    name: str
    low: str
    high: str


KNOBS = (
    Knob("face width", "narrow", "wide"),
    Knob("skin tone", "light", "dark"),
    Knob("eye gap", "close together", "far apart"),
    Knob("gaze", "to the left", "to the right"),
    Knob("smile", "frown", "smile"),
    Knob("mouth opening", "closed", "open"),
    Knob("head tilt", "to the left", "to the right"),
    Knob("hair color", "black", "blond"),
)
KNOB_NAMES = tuple(knob.name for knob in KNOBS)
SMILE, OPENING = KNOB_NAMES.index("smile"), KNOB_NAMES.index("mouth opening")

SMALLEST, LARGEST = 16, 256
_FAR = 1e6  # beyond it squares overflow, and NaN would be drawn

# Colors are RGB in [0, 1]; the two ramps run through three colors from knob -1 to +1.
_SKIN = ((1.00, 0.86, 0.74), (0.84, 0.60, 0.42), (0.42, 0.26, 0.18))
_HAIR = ((0.10, 0.08, 0.10), (0.52, 0.24, 0.12), (0.98, 0.82, 0.42))
_BACKGROUND_TOP, _BACKGROUND_BOTTOM = (0.70, 0.84, 0.92), (0.90, 0.95, 0.96)
_SHIRT, _COLLAR = (0.16, 0.44, 0.52), (0.97, 0.97, 0.95)
_EYE_WHITE, _IRIS, _PUPIL = (0.99, 0.99, 0.98), (0.16, 0.30, 0.42), (0.03, 0.04, 0.07)
_MOUTH, _TEETH, _TONGUE = (0.33, 0.05, 0.09), (0.99, 0.98, 0.95), (0.85, 0.36, 0.38)


def sample_knobs(n: int, seed: int = 0) -> Tensor:
    """knobs ~ Uniform([-1, 1]^8): the true prior of the course's faces.

    Args:
        n: how many faces.
        seed: the same seed gives the same knobs.

    Returns:
        (n, 8) float32, columns in the order of `KNOBS`.
    """
    if not isinstance(n, Integral) or n < 0:
        raise ValueError(f"n must be a whole number, 0 or more; got {n!r}")
    if not isinstance(seed, Integral) or not -(2**63) <= seed < 2**64:
        raise ValueError(f"seed must be a whole number of 64 bits; got {seed!r}")
    rng = torch.Generator().manual_seed(int(seed))
    return torch.rand(int(n), len(KNOBS), generator=rng) * 2 - 1


def characters() -> Tensor:
    """Sixteen faces, any two of which differ by 1.2 in at least four knobs.

    The knobs are the words of the extended Hamming code, 0.6 for a 1 and -0.6 for a 0.

    Returns:
        (16, 8) float32, columns in the order of `KNOBS`.

    Source: Hamming 1950, "Error Detecting and Error Correcting Codes", section 4.
    Taught in: lesson 04.
    """
    bits = torch.cartesian_prod(*[torch.tensor([0, 1])] * 4)  # (16, 4)
    parity = bits @ (1 - torch.eye(4, dtype=torch.long)) % 2  # each of three bits
    return torch.cat([bits, parity], dim=1) * 1.2 - 0.6


def render(knobs: Tensor, size: int = 32, gray: bool = False) -> Tensor:
    """x = render(knobs): the true decoder, from eight numbers to an image.

    Args:
        knobs: (N, 8) floats in [-1, 1]; values outside draw an exaggerated face.
        size: pixels per side, 16 to 256.
        gray: one channel (luminance) instead of three.

    Returns:
        (N, 3 or 1, size, size) in [0, 1], of the knobs' dtype and on their device,
        differentiable with respect to the knobs.

    Raises:
        ValueError: for another shape or size, or a knob that is not finite.

    Taught in: lesson 01.
    """
    if not isinstance(knobs, Tensor) or knobs.shape[1:] != (len(KNOBS),):
        got = tuple(knobs.shape) if isinstance(knobs, Tensor) else type(knobs).__name__
        raise ValueError(
            f"knobs must be a tensor (N, {len(KNOBS)}) of {', '.join(KNOB_NAMES)}; "
            f"got {got}. For one face use knobs[None]."
        )
    if not knobs.is_floating_point():
        raise ValueError(f"knobs must be floats in [-1, 1]; got {knobs.dtype}")
    if not (knobs.abs() <= _FAR).all():
        largest = knobs.abs().max()
        raise ValueError(f"knobs must be finite, at most {_FAR:g}; got {largest:g}")
    _check_size(size)
    size = int(size)
    if knobs.dtype in (torch.float16, torch.bfloat16):
        # Half precision has too few digits to say where an edge crosses a pixel.
        return render(knobs.float(), size, gray).to(knobs.dtype)
    # A few megabytes at a time stay in the processor's cache: about twice as fast.
    chunk = max(1, 2**17 // size**2)
    images = torch.cat([_paint(part, size) for part in knobs.split(chunk)])
    if gray:
        weights = images.new_tensor([0.299, 0.587, 0.114])  # luminance, ITU-R BT.601
        images = torch.einsum("nchw,c->nhw", images, weights)[:, None]
    return images.clamp(0, 1)


def _check_size(size: int) -> None:
    if not isinstance(size, Integral) or not SMALLEST <= size <= LARGEST:
        raise ValueError(
            f"size must be a whole number from {SMALLEST} to {LARGEST}; got {size!r}"
        )


def _paint(knobs: Tensor, size: int) -> Tensor:
    """One chunk of faces: knobs (N, 8) -> (N, 3, size, size)."""
    pixel = 2.0 / size  # the image spans [-1, 1] in both directions; y grows downwards
    line = torch.arange(size, device=knobs.device, dtype=knobs.dtype) * pixel
    line = line - 1 + pixel / 2
    x0, y0 = line.view(1, 1, 1, size), line.view(1, 1, size, 1)
    column = knobs.view(-1, 8, 1, 1, 1).unbind(1)  # eight tensors (N, 1, 1, 1)
    width, skin_tone, eye_gap, gaze, smile, opening, tilt, hair_color = column

    skin, hair = _ramp(_SKIN, skin_tone), _ramp(_HAIR, hair_color)
    lips = skin * skin.new_tensor([0.72, 0.48, 0.46]).view(1, 3, 1, 1)

    # Head coordinates: turned about the neck by up to 17 degrees.
    angle, pivot = 0.3 * tilt, 0.62
    cos, sin = angle.cos(), angle.sin()
    x = x0 * cos + (y0 - pivot) * sin
    y = (y0 - pivot) * cos - x0 * sin + pivot
    side = x.sign()  # -1 left of the nose, +1 right of it: draws both eyes at once

    def covered(distance: Tensor) -> Tensor:
        """Share of a pixel inside a shape, from the signed distance at its center."""
        return (0.5 - distance / pixel).clamp(0, 1)

    def band(offset: Tensor, half: Tensor) -> Tensor:
        """Share of a pixel within `half` of a curve at distance `offset`."""
        upper = (0.5 + (half - offset) / pixel).clamp(0, 1)
        return upper + (0.5 + (half + offset) / pixel).clamp(0, 1) - 1

    def ellipse(dx: Tensor, dy: Tensor, rx, ry) -> Tensor:
        """Signed distance to an ellipse, exact to first order at its edge."""
        u, v = dx / rx, dy / ry
        radius = (u**2 + v**2 + 1e-6).sqrt()
        slope = ((u / rx) ** 2 + (v / ry) ** 2 + 1e-6).sqrt()
        return radius * (radius - 1) / slope

    def arc(dx: Tensor, rx: float) -> Tensor:
        """Half-height of a lens shape: 1 in the middle, 0 at both ends."""
        return (1 - (dx / rx) ** 2).clamp(min=1e-4).sqrt() - 1e-2

    top, bottom = knobs.new_tensor([_BACKGROUND_TOP, _BACKGROUND_BOTTOM]).view(
        2, 1, 3, 1, 1
    )
    image = torch.lerp(top, bottom, (y0 + 1) / 2).expand(len(knobs), 3, size, size)

    def paint(color, cover: Tensor) -> None:
        nonlocal image
        if not isinstance(color, Tensor):
            color = knobs.new_tensor(color).view(1, 3, 1, 1)
        image = torch.lerp(image, color, cover)

    # Below width = -5 an ellipse would be 0 wide and its distance NaN.
    half_width = (0.60 + 0.11 * width).clamp(min=0.05)
    eye_x = 0.265 + 0.070 * eye_gap
    eye_dx, eye_dy = x - side * eye_x, y - 0.02

    # Back to front: hair behind the head, neck, shirt, ears, head.
    paint(hair * 0.72, covered(ellipse(x, y + 0.10, half_width + 0.15, 0.80)))
    paint(skin * 0.80, covered(torch.maximum(x0.abs() - 0.20, 0.3 - y0)))
    paint(_SHIRT, covered(ellipse(x0, y0 - 1.22, 0.86, 0.46)))
    paint(_COLLAR, covered(ellipse(x0, y0 - 0.76, 0.27, 0.14)))
    paint(skin * 0.80, covered(ellipse(x0, y0 - 0.70, 0.20, 0.14)))
    paint(skin * 0.90, covered(ellipse(side * x - half_width, y - 0.10, 0.10, 0.15)))
    head = covered(ellipse(x, y - 0.04, half_width, 0.70))
    paint(skin, head)
    # Cheeks, then hair in front, which reaches beyond the head on to the hair behind.
    blush = (1 - ((side * x - 0.37) / 0.19) ** 2 - ((y - 0.32) / 0.13) ** 2).clamp(
        min=0
    )
    paint(lips, 0.32 * blush * head)
    hairline = -0.36 - 0.16 * x + 0.55 * x**2
    front = covered(ellipse(x, y + 0.08, half_width + 0.09, 0.76))
    paint(hair, front * covered((y - hairline) / (1 + (1.1 * x - 0.16) ** 2).sqrt()))

    # Eyes: white, iris and pupil that follow the gaze, a glint, the brow.
    white = covered(ellipse(eye_dx, eye_dy, 0.165, 0.155))
    iris_dx = eye_dx - 0.075 * gaze
    paint(skin * 0.55, covered(ellipse(eye_dx, eye_dy, 0.185, 0.175)))
    paint(_EYE_WHITE, white)
    paint(_IRIS, white * covered(ellipse(iris_dx, eye_dy, 0.105, 0.120)))
    paint(_PUPIL, white * covered(ellipse(iris_dx, eye_dy, 0.062, 0.075)))
    paint(
        _EYE_WHITE, white * covered(ellipse(iris_dx + 0.03, eye_dy + 0.045, 0.03, 0.03))
    )
    brow_dy = y + 0.235 - 0.9 * (side * eye_dx + 0.06) ** 2
    paint(hair * 0.62, band(brow_dy, 0.034 * arc(eye_dx, 0.19)))

    # Nose, then the mouth: lips, the dark inside, teeth above and tongue below.
    paint(skin * 0.74, band(y - 0.235 + 4.0 * x**2, 0.026 * arc(x, 0.085)))
    mouth_x, open_half = 0.33, 0.074 * (1 + opening)
    middle = y - 0.455 - 0.17 * smile * (0.5 - (x / mouth_x) ** 2)
    steep = (1 + (0.34 * smile * x / mouth_x**2) ** 2).sqrt().clamp(max=1.6)
    middle = middle / steep
    inside = band(middle, open_half * arc(x, mouth_x))
    paint(lips, band(middle, (open_half + 0.036) * arc(x, mouth_x + 0.036)))
    paint(_MOUTH, inside)
    paint(_TONGUE, inside * covered(ellipse(x, middle - 1.15 * open_half, 0.16, 0.06)))
    paint(_TEETH, inside * covered(middle + 0.52 * open_half))
    return image


def _ramp(colors: tuple, knob: Tensor) -> Tensor:
    """A smooth curve through three colors: knob (N, 1, 1, 1) -> (N, 3, 1, 1)."""
    first, middle, last = knob.new_tensor(colors).view(3, 1, 3, 1, 1)
    return middle + knob * (last - first) / 2 + knob**2 * ((first + last) / 2 - middle)


class Projection(NamedTuple):
    """What `project` finds: the nearest face's knobs and how far away it is."""

    knobs: Tensor  # (N, 8) in [-1, 1]
    distance: Tensor  # (N,) root mean squared error per pixel value, 0 on the manifold


def project(images: Tensor, starts: int = 5) -> Projection:
    """min over knobs of ||x - render(knobs)||: the referee of the course.

    A small network reads first knobs from the image, and gradient descent that uses the
    renderer's derivative with respect to every knob refines them (`referee.nearest`).
    Knobs stay within [-1, 1].

    Args:
        images: (N, 3 or 1, size, size) floats in [0, 1].
        starts: first guesses for an image that does not look like one of our faces.

    Returns:
        `Projection(knobs, distance)`. The distance is the root mean squared error per
        pixel value (same unit as the pixels); it is 0 when the image is one of our
        faces. The search is local: in rare cases a nearer face exists, so the distance
        is an upper bound.

    Raises:
        ValueError: The shape is wrong, a pixel is not a finite float, or starts is not
            from 1 to 16.

    Source: Levenberg 1944, Marquardt 1963, Broyden 1965. Taught in: lesson 01.
    """
    from gencourse import referee  # draws with this file, so it comes later

    if (
        not isinstance(images, Tensor)
        or images.ndim != 4
        or images.shape[1] not in (1, 3)
    ):
        got = (
            tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        )
        raise ValueError(f"images must have shape (N, 3 or 1, size, size); got {got}")
    if images.shape[2] != images.shape[3]:
        raise ValueError(f"images must be square; got {tuple(images.shape[2:])}")
    _check_size(images.shape[3])
    if not images.is_floating_point():
        raise ValueError(f"images must be floats in [0, 1]; got {images.dtype}")
    if not (images.abs() <= _FAR).all():
        raise ValueError(f"images must be finite; got NaN or values beyond {_FAR:,.0f}")
    if not isinstance(starts, int) or not 1 <= starts <= 16:
        raise ValueError(f"starts must be a whole number from 1 to 16; got {starts!r}")
    if len(images) == 0:
        return Projection(images.new_zeros(0, len(KNOBS)), images.new_zeros(0))
    chunk = min(32, 2**17 // images.shape[3] ** 2)  # bounds the memory at 128 and 256
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        parts = pool.map(referee.nearest, images.float().split(chunk), repeat(starts))
    knobs, error = (torch.cat(column) for column in zip(*parts, strict=True))
    return Projection(knobs, error.sqrt())
