"""What the course measures: fidelity, variety, detail, copies, and latent spaces.

Every function takes and returns plain tensors or floats. Its docstring names the unit,
the value for real faces, and what the number cannot see. All raise TypeError for
anything but tensors of floats, and ValueError for NaN, infinity and shapes that do not
fit.
"""

from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from gencourse import faces, losses, nets


def fidelity(images: Tensor) -> float:
    """Median distance to the manifold of faces: small is good, 0 for real faces.

    Args:
        images: (N, 3 or 1, size, size) in [0, 1].

    Returns:
        The median over the images of `faces.project(images).distance`, a root mean
        squared error per pixel value. It favors models trained on squared error, a
        model stuck on one real face gets 0, and as a median it does not see faults in
        fewer than half of the images.

    Taught in: lesson 01.
    """
    _check(images=(images, "N, C, H, W"))
    return faces.project(images).distance.median().item()


def coverage(real_knobs: Tensor, fake_knobs: Tensor, k: int = 5) -> float:
    """Share of real faces that have a generated face in their neighborhood.

    The neighborhood of a real face is the ball that reaches to its k-th nearest real
    neighbor, in knob space. The images' knobs come from `faces.project`.

    Args:
        real_knobs, fake_knobs: (N, D) and (M, D), N > k; take M = N to compare models.

    Returns:
        A share in [0, 1]. Real faces get `perfect_coverage`, not exactly 1, a generator
        stuck on one face at most 0.2 at N = 100 and 0.05 from 300 on. For real faces
        the standard deviation is up to 1.3 times the binomial one, because
        neighborhoods overlap: 0.02, 0.012 and 0.006 for N = 100, 300 and 1000. It does
        not see a frozen knob at N = 100, and up to N = 300 faces that differ a little
        less than real ones score above perfect: look at `knob_spread`, too.

    Source: Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics for Generative
    Models", section 3.2 (there in a feature space, here in the true latent space).
    Taught in: lesson 02.
    """
    _check(real_knobs=(real_knobs, "N, D"), fake_knobs=(fake_knobs, "M, D"))
    if not isinstance(k, Integral) or not 1 <= k < len(real_knobs):
        raise ValueError(f"k must be 1 to N - 1 = {len(real_knobs) - 1}; got {k!r}")
    # cdist rounds off the distances of points far from the origin.
    real_knobs, fake_knobs = real_knobs.cpu().double(), fake_knobs.cpu().double()
    radius = _nearest(real_knobs, k)[:, -1]
    closest = torch.cdist(real_knobs, fake_knobs).min(dim=1).values
    return (closest <= radius).float().mean().item()


def perfect_coverage(n_real: int, n_fake: int, k: int = 5) -> float:
    """1 - prod_j (N - j) / (N + M - j), j = 1 to k: `coverage` of real by real points.

    A real point has N - 1 others and M points of the second set around it. It is not
    covered if its k nearest are all of the N - 1, and any k are equally likely to be.

    Args:
        n_real, n_fake: N and M, the sizes of the two sets.
        k: as in `coverage`.

    Returns:
        The expected share, whatever the distribution; 1 - 2^-k for large N = M.

    Source: Naeem et al. 2020, section 3. Taught in: lesson 05.
    """
    missed = 1.0
    for j in range(1, k + 1):
        missed *= (n_real - j) / (n_real + n_fake - j)
    return 1 - missed


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """The shares p that explain `share` of n independent trials, with 95% confidence.

    Args:
        share: in [0, 1].
        n: trials, at least 1.

    Returns:
        Lower and upper limit in [0, 1]. At shares of 0 and 1, too, the interval has a
        width, unlike share +- 2 standard errors.

    Source: Wilson 1927, as implemented by SciPy. Taught in: lesson 05.
    """
    from scipy.stats import binomtest

    low, high = binomtest(round(share * n), n).proportion_ci(method="wilson")
    return float(low), float(high)


def knob_spread(real_knobs: Tensor, fake_knobs: Tensor) -> tuple[Tensor, Tensor]:
    """std(fake knob) / std(real knob): how much of its variety did each knob keep?

    Args:
        real_knobs, fake_knobs: (N, D) and (M, D), N, M >= 2, from `faces.project`.

    Returns:
        The ratios (D,) and their standard errors (D,), by 200 bootstrap samples. Real
        faces get 1 with an error of 0.06, 0.037 and 0.02 for N = M = 100, 300 and 1000;
        a frozen knob gets 0. It does not see which values are missing, nor which
        combinations: that takes a histogram. The knobs are those that the referee
        reads, so blur and low contrast cost spread, too.

    Source: Efron 1979 (bootstrap). Taught in: lesson 05.
    """
    inputs = {"real_knobs": (real_knobs, "N, D"), "fake_knobs": (fake_knobs, "M, D")}
    _check(at_least=2, **inputs)
    real, fake = real_knobs.cpu().double(), fake_knobs.cpu().double()
    rng = torch.Generator().manual_seed(0)

    def drawn_again(points: Tensor) -> Tensor:
        return points[torch.randint(len(points), (len(points),), generator=rng)]

    ratios = torch.stack(
        [drawn_again(fake).std(0) / drawn_again(real).std(0) for _ in range(200)]
    )
    return fake.std(0) / real.std(0), ratios.std(0)


def sharpness(images: Tensor) -> Tensor:
    """RMS of (pixel - mean of its four neighbors): the strength of fine detail.

    Args:
        images: (N, C, H, W), H, W >= 3. The outermost pixels lack a neighbor and are
            left out.

    Returns:
        (N,), in the unit of the pixels: 0 for constant images and straight ramps, 1 for
        a checkerboard of zeros and ones. It cannot tell detail from noise: see
        `detail`.

    Taught in: lesson 05.
    """
    _check(images=(images, "N, C, H, W"))
    return _laplacian(images).square().mean((1, 2, 3)).sqrt()


def detail(images: Tensor, projected: Tensor) -> tuple[Tensor, Tensor]:
    """L(x) = detail L(x_face) + rest: splits sharpness into true detail and noise.

    L is the Laplacian that `sharpness` measures, x_face the real face nearest to x. The
    slope of the least-squares fit is the detail; the noise is the RMS of the rest over
    that of L(x_face). Thus detail^2 + noise^2 = (sharpness(x) / sharpness(x_face))^2.

    Args:
        images: x, (N, C, H, W), H, W >= 3.
        projected: x_face, the same shape: `faces.render(faces.project(x).knobs, size)`.

    Returns:
        Detail and noise, (N,) each: 1 and 0 for real faces, up to the error of
        `faces.project`. A blur lowers the detail, sharpening raises it above 1;
        speckle, and edges where the face has none, are noise. Nothing is said about
        faces that are missing.

    Taught in: lesson 05.
    """
    _check(images=(images, "N, C, H, W"), projected=(projected, "N, C, H, W"))
    fine, true = _laplacian(images), _laplacian(projected.to(images))
    energy = true.square().sum((1, 2, 3))
    slope = (fine * true).sum((1, 2, 3)) / energy
    rest = fine - slope.view(-1, 1, 1, 1) * true
    return slope, (rest.square().sum((1, 2, 3)) / energy).sqrt()


def two_sample_accuracy(
    real: Tensor, fake: Tensor, epochs: int = 40, seed: int = 0
) -> tuple[float, float, float]:
    """How often does a fresh discriminator tell unseen fakes from unseen real images?

    A small `Encoder` learns on half of the images and is judged on the other half. It
    needs no knobs. It may favor GANs, whose discriminator is such a network.

    Args:
        real, fake: (N, C, size, size) and (M, C, size, size) in [0, 1]. Of the larger
            set, only as many as the smaller one has are used, at random.
        epochs: passes through the half that it learns from.
        seed: of the network, the halves and the batches.

    Returns:
        The accuracy, and the limits of its Wilson interval (95%). Two sets of real
        images get 0.5 (limits 0.057 away for N = M = 300), 1 means that every fake was
        recognized. How far a model is from perfect also depends on N: more images teach
        the discriminator more, so compare equal numbers. It does not say what gave the
        fakes away, and hardly sees pixel noise of 0.03 or a missing corner of the cube
        of knobs. Takes about 4 s on one core for 300 + 300 images of 32x32.

    Source: Lopez-Paz & Oquab 2017, "Revisiting Classifier Two-Sample Tests", section 3.
    Taught in: lesson 05.
    """
    _check(at_least=2, real=(real, "N, C, S, S"), fake=(fake, "M, C, S, S"))
    n = min(len(real), len(fake))
    # The caller's random numbers stay as they are, and a caller may be in no_grad.
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.default_generator.manual_seed(seed)
        real, fake = (
            x.detach().cpu().float()[torch.randperm(len(x))[:n]] for x in (real, fake)
        )
        network = nets.Encoder(1, real.shape[-1], real.shape[1], width=8)
        optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
        for _ in range(epochs):
            for rows in torch.randperm(n // 2).split(16):
                logits = network(torch.cat([real[rows], fake[rows]])).squeeze(1)
                loss = losses.discriminator_loss(*logits.chunk(2)).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    with torch.no_grad():
        right = torch.cat([network(real[n // 2 :]) > 0, network(fake[n // 2 :]) <= 0])
    accuracy = right.float().mean().item()
    return accuracy, *wilson_interval(accuracy, len(right))


def active_units(mu: Tensor, threshold: float = 0.01) -> int:
    """How many latent dimensions have Var_x(mu_j(x)) > threshold: those in use.

    Args:
        mu: (N, latent_dim), the encoder's means for N >= 2 images.
        threshold: in squared units of z, whose prior has variance 1.

    Returns:
        A count from 0 (collapse: mu says nothing about x) to latent_dim.

    Source: Burda et al. 2016, "Importance Weighted Autoencoders", section 5.2.
    Taught in: lesson 03.
    """
    _check(at_least=2, mu=(mu, "N, latent_dim"))
    return int((mu.var(dim=0) > threshold).sum())


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)): Frechet distance of two Gaussians.

    The Gaussians have the means m and covariances S of the two sets of points. In the
    features of an Inception network this is the FID; here the points are knobs.

    Args:
        first, second: (N, D) and (M, D), N, M > D.

    Returns:
        The (squared) distance in squared units of the points, 0 for equal means and
        covariances. Finite sets of one distribution give more than 0, for Gaussians of
        variance v in all directions about v D (D + 5) / 4 (1/N + 1/M): compare equal
        sizes. Two sets of real knobs get 0.16, 0.053 and 0.016 with N = M = 100, 300
        and 1000. It sees means and covariances only, no other shape.

    Source: Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule", eq. 6;
    Dowson & Landau 1982. Taught in: lesson 05.
    """
    _check(first=(first, "N, D"), second=(second, "M, D"))
    if min(len(first), len(second)) <= first.shape[1]:
        raise ValueError(
            f"{len(first)} and {len(second)} points are too few for a covariance in "
            f"{first.shape[1]} dimensions"
        )
    first, second = first.cpu().double(), second.cpu().double()
    # cov() of a single coordinate is a number, not a matrix of one.
    s1, s2 = (x.T.cov().reshape(2 * x.shape[1:]) for x in (first, second))
    # S1 S2 has the eigenvalues of a symmetric positive matrix: real and not negative.
    roots = torch.linalg.eigvals(s1 @ s2).real.clamp(min=0).sqrt()
    between = (first.mean(0) - second.mean(0)).square().sum()
    return max(0.0, (between + s1.trace() + s2.trace() - 2 * roots.sum()).item())


def nearest_distance(images: Tensor, training: Tensor) -> Tensor:
    """min_n sqrt(mean (x - x_n)^2): how far is each image from the nearest of a set?

    Args:
        images, training: (N, ...) and (M, ...), of one shape.

    Returns:
        (N,), a root mean squared error per value; 0 for an exact copy. Much less than
        for real images that were not trained on means copying. More means nothing,
        because noise hides a copy: see `nearer_to_training`.

    Taught in: lesson 05.
    """
    _check(images=(images, "N, ..."), training=(training, "M, ..."))
    images, training = images.flatten(1), training.flatten(1).to(images)
    nearest = []
    for batch in images.split(128):  # bounds the memory
        # cdist is fast but rounds off small distances: measure the best ones again.
        distance = torch.cdist(batch, training)
        near = distance.topk(min(4, len(training)), largest=False).indices
        nearest.append((training[near] - batch[:, None]).norm(dim=2).min(1).values)
    return torch.cat(nearest) / images.shape[1] ** 0.5


def nearer_to_training(
    samples: Tensor, training: Tensor, held_out: Tensor
) -> tuple[float, float, float]:
    """The share of samples that are nearer to the training set than to a held-out one.

    Noise moves a sample away from both sets alike: a noisy copy, too, is nearer to its
    original.

    Args:
        samples, training, held_out: (N, ...), (M, ...) and (M, ...): images, or
            features that a copy keeps. (A VAE's copy of a face is near to it in
            pixels, but not in knobs, where the smile is lost.) The two sets come
            from one distribution and are equally large.

    Returns:
        The share, and the limits of its Wilson interval (95%). 0.5 when nothing is
        copied, 1 when everything is; with a share c of copies about (1 + c) / 2. The
        interval holds for varied samples: those of a model stuck on one face share
        one neighbor, and get 0 or 1 by chance.

    Source: after Meehan et al. 2020, "A Non-Parametric Test to Detect Data-Copying in
    Generative Models" (who compare the distances of samples and held-out images to the
    training set). Taught in: lesson 05.
    """
    _check(
        samples=(samples, "N, ..."),
        training=(training, "M, ..."),
        held_out=(held_out, "M, ..."),
    )
    gain = nearest_distance(samples, held_out) - nearest_distance(samples, training)
    share = ((gain.sign() + 1) / 2).mean().item()  # a tie counts as one half
    return share, *wilson_interval(share, len(samples))


def two_nn_dimension(points: Tensor) -> tuple[float, float]:
    """d = N / sum_i log(r2_i / r1_i): how many dimensions do the points fill locally?

    r1 and r2 are the distances of a point to its nearest and second nearest neighbor.
    In d dimensions their ratio follows a Pareto law with exponent d, whose
    maximum-likelihood estimate this is. It assumes that the density hardly changes over
    such distances.

    Args:
        points: (N, D) or (N, C, H, W), N >= 3, no two equal.

    Returns:
        The estimate of d and its standard error d / sqrt(N), which holds for
        independent ratios; neighbors share points, so it is up to a quarter too small.

    Source: Facco et al. 2017, "Estimating the intrinsic dimension of datasets by a
    minimal neighborhood information" (who fit a line to the same law; the estimate is
    the same in the limit). Taught in: lesson 01.
    """
    _check(at_least=3, points=(points, "N, ..."))
    near = _nearest(points.flatten(1), 2).double()
    if equal := int((near[:, 0] == 0).sum()):
        raise ValueError(f"{equal} points equal another one: remove duplicates first")
    total = (near[:, 1] / near[:, 0]).log().sum().item()
    if total == 0:
        raise ValueError("all neighbors are equally far: the dimension is undefined")
    dimension = len(near) / total
    return dimension, dimension / len(near) ** 0.5


def principal_angles(first: Tensor, second: Tensor) -> Tensor:
    """cos(theta_i) = the i-th singular value of Q1^T Q2: angles between two subspaces.

    Args:
        first, second: (D, k) and (D, m), whose columns span the subspaces; they must be
            independent, but not orthogonal.

    Returns:
        min(k, m) angles in degrees, largest first; all 0 when one subspace contains the
        other, 90 where a direction of one is orthogonal to all of the other.

    Source: Björck & Golub 1973, as implemented by SciPy. Taught in: lesson 02.
    """
    from scipy.linalg import subspace_angles

    _check(first=(first, "D, k"), second=(second, "D, m"))
    angles = subspace_angles(_numpy(first), _numpy(second))
    if len(angles) < min(first.shape[1], second.shape[1]):
        shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise ValueError(f"the columns of a basis are not independent: {shapes}")
    return torch.from_numpy(angles).rad2deg()


def knob_r2(
    z: Tensor, knobs: Tensor, z_test: Tensor, knobs_test: Tensor, degree: int = 1
) -> Tensor:
    """R^2 = 1 - sum (knob - prediction)^2 / sum (knob - mean)^2, one number per knob.

    A ridge regression predicts each knob from the latent vector and is judged on points
    that it has not seen.

    Args:
        z, knobs: (N, k) and (N, K), N >= 2, to fit on.
        z_test, knobs_test: (M, k) and (M, K), M >= 2, to judge on.
        degree: of the polynomial in z; 1 finds what z shows linearly, 2 or 3 also what
            is bent.

    Returns:
        (K,), 1 when z determines the knob, 0 when it says no more than the knob's mean,
        negative when it is worse than the mean.

    Taught in: lesson 02.
    """
    from sklearn.linear_model import Ridge
    from sklearn.metrics import r2_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    _check(
        at_least=2,
        z=(z, "N, k"),
        knobs=(knobs, "N, K"),
        z_test=(z_test, "M, k"),
        knobs_test=(knobs_test, "M, K"),
    )
    regression = make_pipeline(
        StandardScaler(), PolynomialFeatures(degree), StandardScaler(), Ridge(1e-3)
    ).fit(_numpy(z), _numpy(knobs))
    prediction = regression.predict(_numpy(z_test))
    score = r2_score(_numpy(knobs_test), prediction, multioutput="raw_values")
    return torch.from_numpy(score).float()


def _check(at_least: int = 1, **inputs: tuple[Tensor, str]) -> None:
    """Raises unless all inputs are finite floats in shapes that fit together.

    Args:
        at_least: rows in every input.
        inputs: name -> (tensor, shape), such as "N, D". An axis has the same size in
            all shapes that name it, and at least 1; "..." is one or more axes.
    """
    for name, (x, _) in inputs.items():
        if not isinstance(x, Tensor) or not x.is_floating_point():
            got = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"{name} must be a tensor of floats; got {got}")
        if bad := int((~x.isfinite()).sum()):
            raise ValueError(f"{name} must be finite; {bad} values are NaN or infinite")
    sizes: dict[str, int | torch.Size] = {}
    for x, shape in inputs.values():
        axes, got = shape.split(", "), list(x.shape)
        if axes[-1] == "..." and len(got) >= len(axes):
            got[len(axes) - 1 :] = [x.shape[len(axes) - 1 :]]
        for axis, size in zip(axes, got, strict=False):
            sizes.setdefault(axis, size)
        if got != [sizes.get(axis) for axis in axes] or x.numel() == 0:
            want = ", ".join(f"{name} ({shape})" for name, (_, shape) in inputs.items())
            shapes = ", ".join(str(tuple(x.shape)) for x, _ in inputs.values())
            raise ValueError(f"expected {want}, none empty; got {shapes}")
    for name, (x, shape) in inputs.items():
        if len(x) < at_least:
            need = f"{name} ({shape}) must have at least {at_least} rows"
            raise ValueError(f"{need}; got {tuple(x.shape)}")


def _laplacian(images: Tensor) -> Tensor:
    """Pixel - mean of its four neighbors: (N, C, H, W) -> (N, C, H - 2, W - 2)."""
    if min(images.shape[2:]) < 3:
        raise ValueError(f"images must be 3 x 3 or more; got {tuple(images.shape[2:])}")
    center = images[..., 1:-1, 1:-1]
    vertical = images[..., :-2, 1:-1] + images[..., 2:, 1:-1]
    horizontal = images[..., 1:-1, :-2] + images[..., 1:-1, 2:]
    return center - (vertical + horizontal) / 4


def _numpy(x: Tensor) -> np.ndarray:
    return x.detach().cpu().double().numpy()


def _nearest(points: Tensor, k: int) -> Tensor:
    """Distances to the k nearest other points, ascending: (N, k)."""
    points = points - points.mean(0)
    nearest = []
    for start in range(0, len(points), 256):  # bounds the memory
        batch = points[start : start + 256]
        distance = torch.cdist(batch, points)
        rows = torch.arange(len(batch), device=points.device)
        distance[rows, rows + start] = float("inf")  # no point is its own neighbor
        # cdist is fast but rounds off small distances: measure the best ones again.
        near = distance.topk(min(k + 8, len(points) - 1), largest=False).indices
        exact = (points[near] - batch[:, None]).norm(dim=2)
        nearest.append(exact.topk(k, largest=False).values)
    return torch.cat(nearest)
