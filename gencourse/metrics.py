"""What the course measures: the referee's verdicts, sharpness, dimensions, subspaces.

Every function takes and returns plain tensors or floats; its docstring names the unit.
None takes NaN, infinity, numbers beyond 1e15 (ValueError) or whole numbers (TypeError).
"""

import math
from functools import reduce
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from gencourse import faces

_FAR = 1e15  # beyond it squares overflow, and eigvals of infinity never ends


def fidelity(images: Tensor) -> float:
    """Median distance to the manifold of faces: small is good, 0 for real faces.

    Arguments: `images`, (N, 3 or 1, size, size) in [0, 1].
    Returns: the median over the images of `faces.project(images).distance`, a root mean
    squared error per pixel value.
    Taught in: lesson 01.
    """
    (images,) = _checked(images=images)
    if len(images) == 0:
        raise ValueError(f"need at least one image; got {tuple(images.shape)}")
    return faces.project(images).distance.median().item()


def coverage(real_knobs: Tensor, fake_knobs: Tensor, k: int = 5) -> float:
    """Share of real faces that have a generated face in their neighborhood.

    The neighborhood of a real face is the ball that reaches to its k-th nearest real
    neighbor, in knob space. The images' knobs come from `faces.project`.

    Arguments: `real_knobs` (N, D) and `fake_knobs` (M, D); take M = N to compare
    models.
    Returns: a share in [0, 1]. A second set of N real faces gets about 1 - 2^-k (0.97
    for k = 5), not exactly 1; a generator stuck on one face gets almost 0.
    Raises: ValueError if the shapes do not fit or N <= k.

    Source: Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics for Generative
    Models", section 3.2 (there in a feature space, here in the true latent space).
    Taught in: lesson 02.
    """
    real_knobs, fake_knobs = _checked(real_knobs=real_knobs, fake_knobs=fake_knobs)
    same = fake_knobs.shape[1:] == real_knobs.shape[1:]
    if real_knobs.ndim != 2 or not same or len(fake_knobs) == 0:
        raise ValueError(
            "real_knobs and fake_knobs must be (N, D) and (M, D), the same D, M > 0; "
            f"got {tuple(real_knobs.shape)} and {tuple(fake_knobs.shape)}"
        )
    if not isinstance(k, Integral) or not 1 <= k < len(real_knobs):
        raise ValueError(
            f"need more than k = {k!r} real points, k a whole number from 1 on; "
            f"got {len(real_knobs)}"
        )
    # cdist rounds off the distances of points far from the origin.
    real_knobs, fake_knobs = real_knobs.double(), fake_knobs.double()
    radius = _nearest(real_knobs, k)[:, -1]
    closest = torch.cdist(real_knobs, fake_knobs).min(dim=1).values
    return (closest <= radius).float().mean().item()


def sharpness(images: Tensor) -> Tensor:
    """RMS of (pixel - mean of its four neighbors): the strength of fine detail.

    Arguments: `images`, (N, C, H, W) with H, W >= 3; the outermost pixels have no four
    neighbors and are left out.
    Returns: (N,), in the unit of the pixels: 0 for constant images and straight ramps,
    1 for a checkerboard of zeros and ones.
    Taught in: lesson 03.
    """
    (images,) = _checked(images=images)
    if images.ndim != 4 or min(images.shape[2:]) < 3 or images.shape[1] == 0:
        raise ValueError(
            f"images must be (N, C, H, W), H, W >= 3; got {tuple(images.shape)}"
        )
    center = images[..., 1:-1, 1:-1]
    vertical = images[..., :-2, 1:-1] + images[..., 2:, 1:-1]
    horizontal = images[..., 1:-1, :-2] + images[..., 1:-1, 2:]
    return (center - (vertical + horizontal) / 4).square().mean((1, 2, 3)).sqrt()


def active_units(mu: Tensor, threshold: float = 0.01) -> int:
    """How many latent dimensions have Var_x(mu_j(x)) > threshold: those in use.

    Arguments: `mu`, (N, latent_dim), the encoder's means for N >= 2 images; `threshold`
    in squared units of z, whose prior has variance 1.
    Returns: a count from 0 (collapse: mu says nothing about x) to latent_dim.
    Raises: ValueError if `mu` has another shape or fewer than two rows.

    Source: Burda et al. 2016, "Importance Weighted Autoencoders", section 5.2. Taught
    in: lesson 03.
    """
    (mu,) = _checked(mu=mu)
    if mu.ndim != 2 or len(mu) < 2:
        raise ValueError(f"mu must be (N, latent_dim), N >= 2; got {tuple(mu.shape)}")
    return int((mu.var(dim=0) > threshold).sum())


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)): Frechet distance of two Gaussians.

    The Gaussians have the means m and covariances S of the two sets of points. In the
    features of an Inception network this is the FID; here the points are knobs.

    Arguments: `first` (N, D) and `second` (M, D), N, M > D.
    Returns: the (squared) distance in squared units of the points, 0 for equal means
    and covariances. Finite sets of one distribution give more than 0, for Gaussians of
    variance v in all directions about v D (D + 5) / 4 (1/N + 1/M): compare equal sizes.
    Raises: ValueError if the shapes do not fit or there are too few points.

    Source: Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule", eq. 6;
    Dowson & Landau 1982. Taught in: lesson 05.
    """
    first, second = _checked(first=first, second=second)
    if first.ndim != 2 or first.shape[1:] != second.shape[1:]:
        raise ValueError(
            "expected (N, D) and (M, D); got "
            f"{tuple(first.shape)} and {tuple(second.shape)}"
        )
    if min(len(first), len(second)) <= first.shape[1]:
        raise ValueError(
            f"{len(first)} and {len(second)} points are too few for a covariance in "
            f"{first.shape[1]} dimensions"
        )
    first, second = first.double(), second.double()
    # cov() of a single coordinate is a number, not a matrix of one.
    s1, s2 = (x.T.cov().reshape(2 * x.shape[1:]) for x in (first, second))
    # S1 S2 has the eigenvalues of a symmetric positive matrix: real and not negative.
    roots = torch.linalg.eigvals(s1 @ s2).real.clamp(min=0).sqrt()
    between = (first.mean(0) - second.mean(0)).square().sum()
    return max(0.0, (between + s1.trace() + s2.trace() - 2 * roots.sum()).item())


def nearest_distance(images: Tensor, training: Tensor) -> Tensor:
    """min_n sqrt(mean (x - x_n)^2): how far is each image from the nearest of a set?

    Arguments: `images` (N, ...) and `training` (M, ...) of one shape.
    Returns: (N,), a root mean squared error per value; 0 for an exact copy. Compare
    with the same for real images that were not trained on: much less means copying.
    Raises: ValueError if the shapes do not fit.
    Taught in: lesson 05.
    """
    images, training = _checked(images=images, training=training)
    same = images.ndim >= 2 and images.shape[1:] == training.shape[1:]
    if not same or training.numel() == 0:
        raise ValueError(
            "expected images of one shape; got "
            f"{tuple(images.shape)} and {tuple(training.shape)}"
        )
    images, training = images.flatten(1), training.flatten(1)
    found = []
    for some in images.split(64):  # bounds the memory
        # cdist is fast but rounds off small distances: measure the best ones again.
        distance = torch.cdist(some, training)
        near = distance.topk(min(4, len(training)), largest=False).indices
        found.append((training[near] - some[:, None]).norm(dim=2).min(1).values)
    return torch.cat(found) / images.shape[1] ** 0.5


def two_nn_dimension(points: Tensor) -> tuple[float, float]:
    """d = N / sum_i log(r2_i / r1_i): how many dimensions do the points fill locally?

    r1 and r2 are the distances of a point to its nearest and second nearest neighbor.
    In d dimensions their ratio follows a Pareto law with exponent d, whose
    maximum-likelihood estimate this is. It assumes that the density hardly changes over
    such distances.

    Arguments: `points`, (N, D) or (N, C, H, W), no two equal.
    Returns: the estimate of d and its standard error d / sqrt(N).
    Raises: ValueError for fewer than three points, for equal points or where all
    neighbors are equally far.

    Source: Facco et al. 2017, "Estimating the intrinsic dimension of datasets by a
    minimal neighborhood information" (who fit a line to the same law; the estimate is
    the same in the limit). Taught in: lesson 01.
    """
    (points,) = _checked(points=points)
    if points.ndim < 2 or len(points) < 3:
        raise ValueError(
            f"need at least three points, (N, D); got {tuple(points.shape)}"
        )
    points = points.flatten(1)
    near = _nearest(points, 2).double()
    if (near[:, 0] == 0).any():
        equal = int((near[:, 0] == 0).sum())
        raise ValueError(f"{equal} points equal another one: remove duplicates first")
    total = (near[:, 1] / near[:, 0]).log().sum().item()
    if total == 0:
        raise ValueError("all neighbors are equally far: this has no dimension")
    dimension = len(near) / total
    return dimension, dimension / len(near) ** 0.5


def _checked(**tensors: Tensor) -> list[Tensor]:
    """The same in one type, at least single precision (cdist knows no half)."""
    for name, x in tensors.items():
        if not isinstance(x, Tensor) or not x.is_floating_point():
            got = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"{name} must be a floating point tensor; got {got}")
        # In half precision the limit itself would be infinite.
        if not (x.isfinite() & (x.abs() <= min(_FAR, torch.finfo(x.dtype).max))).all():
            worst = x.detach().abs().max().item()
            kind = "got NaN or infinity"
            if math.isfinite(worst):
                kind = f"squares of {worst:.3g} are too large, scale it down"
            raise ValueError(f"{name} must be finite; {kind}")
    types = (x.dtype for x in tensors.values())
    dtype = reduce(torch.promote_types, types, torch.float32)
    return [x.to(dtype) for x in tensors.values()]


def _numpy(x: Tensor) -> np.ndarray:
    return x.detach().double().cpu().numpy()


def _nearest(points: Tensor, k: int) -> Tensor:
    """Distances to the k nearest other points, ascending: (N, k)."""
    points = points - points.mean(0)
    found = []
    for start in range(0, len(points), 256):  # bounds the memory
        some = points[start : start + 256]
        distance = torch.cdist(some, points)
        rows = torch.arange(len(some), device=points.device)
        distance[rows, rows + start] = float("inf")  # no point is its own neighbor
        # cdist is fast but rounds off small distances: measure the best ones again.
        near = distance.topk(min(k + 8, len(points) - 1), largest=False).indices
        exact = (points[near] - some[:, None]).norm(dim=2)
        found.append(exact.topk(k, largest=False).values)
    return torch.cat(found)


def principal_angles(first: Tensor, second: Tensor) -> Tensor:
    """cos(theta_i) = the i-th singular value of Q1^T Q2: angles between two subspaces.

    Arguments: `first` (D, k) and `second` (D, m), whose columns span the subspaces;
    they need not be orthogonal.
    Returns: min(k, m) angles in degrees, largest first; all 0 when one subspace
    contains the other, 90 where a direction of one is orthogonal to all of the other.
    Raises: ValueError if the shapes do not fit or the columns are not independent.

    Source: Björck & Golub 1973, as implemented by SciPy. Taught in: lesson 02.
    """
    from scipy.linalg import subspace_angles

    first, second = _checked(first=first, second=second)
    if first.ndim != 2 or second.ndim != 2 or len(first) != len(second):
        raise ValueError(
            "bases must be (D, k) and (D, m); got "
            f"{tuple(first.shape)} and {tuple(second.shape)}"
        )
    angles = subspace_angles(_numpy(first), _numpy(second))
    if not 0 < len(angles) == min(first.shape[1], second.shape[1]):
        raise ValueError(
            "the columns of each basis must be independent; got bases "
            f"{tuple(first.shape)} and {tuple(second.shape)}, {len(angles)} angles"
        )
    return torch.from_numpy(angles).rad2deg()


def knob_r2(
    z: Tensor, knobs: Tensor, z_test: Tensor, knobs_test: Tensor, degree: int = 1
) -> Tensor:
    """R^2 = 1 - sum (knob - prediction)^2 / sum (knob - mean)^2, one number per knob.

    A ridge regression predicts each knob from the latent vector and is judged on points
    that it has not seen.

    Arguments: `z` (N, k) and `knobs` (N, 8) to fit on, `z_test` and `knobs_test` to
    judge on; `degree`, of the polynomial in z: 1 asks what z shows linearly, 2 or 3
    also what is bent.
    Returns: (8,), 1 when z tells the knob exactly, 0 when it says no more than the
    knob's mean, negative when it is worse than the mean.
    Taught in: lesson 02.
    """
    from sklearn.linear_model import Ridge
    from sklearn.metrics import r2_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    z, knobs, z_test, knobs_test = _checked(
        z=z, knobs=knobs, z_test=z_test, knobs_test=knobs_test
    )
    for name, a, b in (("z", z, z_test), ("knobs", knobs, knobs_test)):
        if a.ndim != 2 or a.shape[1:] != b.shape[1:] or a.shape[1] == 0:
            raise ValueError(
                f"{name} and {name}_test must be (N, D) and (M, D), the same D (for "
                "one knob knobs[:, :1]); "
                f"got {tuple(a.shape)} and {tuple(b.shape)}"
            )
    if len(z) != len(knobs) or len(z_test) != len(knobs_test):
        raise ValueError(
            "each latent vector needs its knobs; got "
            f"{len(z)} and {len(knobs)} to fit, "
            f"{len(z_test)} and {len(knobs_test)} to judge"
        )
    if len(z) == 0 or len(z_test) < 2:
        raise ValueError(
            f"need points to fit and at least two to judge; got {len(z)}, {len(z_test)}"
        )
    fitted = make_pipeline(
        StandardScaler(), PolynomialFeatures(degree), StandardScaler(), Ridge(1e-3)
    ).fit(_numpy(z), _numpy(knobs))
    guess = fitted.predict(_numpy(z_test))
    score = r2_score(_numpy(knobs_test), guess, multioutput="raw_values")
    return torch.from_numpy(score).float()
