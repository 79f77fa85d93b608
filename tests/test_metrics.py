"""Each metric on a case whose answer is known, and on faces crippled on purpose."""

import math

import pytest
import torch

from gencourse import faces, metrics

SMILE, N = faces.SMILE, 300


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def real():
    """Knobs of some real faces, and the faces."""
    knobs = faces.sample_knobs(N, seed=31)
    return knobs, faces.render(knobs, 32)


def blur(x):
    return torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def noisy(x, size, seed=0):
    return (x + size * torch.randn(x.shape, generator=seeded(seed))).clamp(0, 1)


def test_fidelity_of_faces_and_of_noise():
    real = faces.render(faces.sample_knobs(16, seed=4), 32)
    assert metrics.fidelity(real) < 1e-3
    assert metrics.fidelity(torch.rand(8, 3, 32, 32)) > 0.25


def test_coverage_of_real_by_real_is_one_minus_two_to_the_minus_k():
    a, b = faces.sample_knobs(2000, seed=1), faces.sample_knobs(2000, seed=2)
    for k in (1, 3, 5):
        assert metrics.coverage(a, b, k) == pytest.approx(1 - 2.0**-k, abs=0.03)


def test_coverage_of_itself_of_half_and_of_one_point():
    a, b = faces.sample_knobs(1000, seed=1), faces.sample_knobs(1000, seed=2)
    assert metrics.coverage(a, a) == 1
    assert metrics.coverage(a, b[:1].expand(1000, 8)) < 0.05
    half = b.clone()
    half[:, 4] = half[:, 4].abs()  # never frowns
    assert 0.5 < metrics.coverage(a, half) < 0.85


def test_coverage_by_hand():
    real = torch.tensor([[0.0], [1.0], [3.0]])  # radii for k = 1: 1, 1, 2
    assert metrics.coverage(real, torch.tensor([[-0.5]]), 1) == pytest.approx(1 / 3)
    assert metrics.coverage(real, torch.tensor([[1.5]]), 1) == pytest.approx(2 / 3)


def test_coverage_errors():
    with pytest.raises(ValueError, match=r"\(9, 8\), \(9, 7\)"):
        metrics.coverage(torch.zeros(9, 8), torch.zeros(9, 7))
    with pytest.raises(ValueError, match="k must.*4.*5"):
        metrics.coverage(torch.zeros(5, 8), torch.zeros(9, 8))
    with pytest.raises(ValueError, match=r"k must.*1\.5"):
        metrics.coverage(torch.zeros(9, 8), torch.zeros(9, 8), 1.5)


@pytest.mark.parametrize(
    "n_real, n_fake, k", [(100, 100, 5), (60, 30, 2), (40, 120, 1)]
)
def test_perfect_coverage_is_the_mean_coverage_of_real_points(n_real, n_fake, k):
    rng = seeded(n_real)
    shares = [
        metrics.coverage(
            torch.rand(n_real, 3, generator=rng),
            torch.rand(n_fake, 3, generator=rng),
            k,
        )
        for _ in range(300)
    ]
    expected = metrics.perfect_coverage(n_real, n_fake, k)
    assert sum(shares) / 300 == pytest.approx(expected, abs=0.01)


def test_perfect_coverage_of_many_points_is_one_minus_two_to_the_minus_k():
    assert metrics.perfect_coverage(10**6, 10**6, 5) == pytest.approx(
        1 - 2**-5, abs=1e-5
    )


def test_wilson_interval_in_closed_form():
    # The limits solve |share - p| = z sqrt(p (1 - p) / n), z = 1.96.
    for share, n in ((0.97, 300), (0.0, 20), (1.0, 20), (0.5, 7)):
        share = round(share * n) / n
        for p in metrics.wilson_interval(share, n):
            distance = 1.959964 * (p * (1 - p) / n) ** 0.5
            assert abs(share - p) == pytest.approx(distance, abs=1e-6)
    low, high = metrics.wilson_interval(1.0, 20)
    assert low < 0.9 and high == pytest.approx(1)


def test_knob_spread_of_crippled_knobs(real):
    knobs, again = real[0], faces.sample_knobs(N, seed=32)
    ratio, error = metrics.knob_spread(knobs, again)
    assert ((ratio - 1).abs() < 3 * error).all()
    # A uniform knob has kurtosis 1.8: var(std) / std^2 = (1.8 - 1) / (4 N), twice.
    assert error.mean().item() == pytest.approx((2 * 0.8 / 4 / N) ** 0.5, rel=0.2)
    frozen = again.clone()
    frozen[:, SMILE] = 0
    ratio, error = metrics.knob_spread(knobs, frozen)
    assert ratio[SMILE] == 0 and error[SMILE] == 0 and ratio.median() > 0.9
    ratio, error = metrics.knob_spread(knobs, 0.7 * again)
    assert ((ratio - 0.7).abs() < 3 * error).all() and ratio.max() < 0.85


def test_sharpness_known_answers():
    i = torch.arange(8)
    checker = ((i[:, None] + i) % 2).float().expand(2, 3, 8, 8)
    ramp = (i / 8).expand(1, 1, 8, 8)
    torch.testing.assert_close(metrics.sharpness(checker), torch.ones(2))
    torch.testing.assert_close(metrics.sharpness(ramp), torch.zeros(1))
    face = faces.render(faces.sample_knobs(8), 32)
    blurred = torch.nn.functional.avg_pool2d(face, 3, 1, 1)
    assert (metrics.sharpness(blurred) < 0.6 * metrics.sharpness(face)).all()


def test_detail_and_noise_of_crippled_faces(real):
    x = real[1][:40]
    white = torch.randn(x.shape, generator=seeded())
    fine = metrics.sharpness(x).mean().item()

    def means(images):
        detail, noise = metrics.detail(images, x)
        both = (metrics.sharpness(images) / metrics.sharpness(x)).square()
        torch.testing.assert_close(detail.square() + noise.square(), both)
        return detail.mean().item(), noise.mean().item()

    assert means(x) == pytest.approx((1, 0), abs=1e-5)
    assert means(x / 2) == pytest.approx((0.5, 0), abs=1e-5)
    # The Laplacian of white noise of size s has the variance s^2 (1 + 4 / 16).
    rest = 0.05 * 1.25**0.5 / fine
    assert means(x + 0.05 * white) == pytest.approx((1, rest), rel=0.1)
    assert means(0.05 * white) == pytest.approx((0, rest), abs=0.1)
    detail, noise = means(blur(x))
    assert detail < 0.6 and noise < 0.4
    # Sharpness takes noise for detail: with enough of it a blur is sharper than real.
    smear = blur(x) + 0.09 * white
    assert metrics.sharpness(smear).mean() > fine
    detail, noise = means(smear)
    assert detail < 0.6 and noise > 0.8


def test_detail_of_noisy_faces_after_projection(real):
    x = noisy(real[1][:12], 0.06)
    found = faces.render(faces.project(x).knobs, 32)
    detail, noise = metrics.detail(x, found)
    assert abs(detail.mean() - 1) < 0.1 and noise.mean() > 0.5


@pytest.mark.parametrize("dimension, ambient", [(1, 5), (2, 40), (5, 40)])
def test_two_nn_on_linear_subspaces(dimension, ambient):
    rng = torch.Generator().manual_seed(dimension)
    points = torch.rand(4000, dimension, generator=rng, dtype=torch.float64)
    basis = torch.linalg.qr(torch.randn(ambient, dimension, generator=rng).double()).Q
    estimate, error = metrics.two_nn_dimension(points @ basis.T)
    assert abs(estimate - dimension) < 0.06 * dimension + 3 * error
    assert error == pytest.approx(estimate / math.sqrt(4000))


def test_two_nn_on_a_sphere():
    rng = torch.Generator().manual_seed(0)
    points = torch.nn.functional.normalize(torch.randn(4000, 3, generator=rng), dim=1)
    estimate, error = metrics.two_nn_dimension(points)
    assert abs(estimate - 2) < 4 * error


def test_two_nn_errors():
    with pytest.raises(ValueError, match=r"points.*3.*\(2, 3\)"):
        metrics.two_nn_dimension(torch.rand(2, 3))
    with pytest.raises(ValueError, match="4 points equal"):
        metrics.two_nn_dimension(torch.rand(2, 3).repeat(2, 1))
    with pytest.raises(ValueError, match=r"points \(N, ...\).*\(5,\)"):
        metrics.two_nn_dimension(torch.rand(5))
    with pytest.raises(ValueError, match="equally far"):
        metrics.two_nn_dimension(torch.eye(4))


def test_principal_angles_known_answers():
    identity = torch.eye(4)
    turned = torch.tensor([[1.0, 0], [0, math.cos(0.3)], [0, math.sin(0.3)], [0, 0]])
    angles = metrics.principal_angles(identity[:, :2], turned)
    torch.testing.assert_close(
        angles,
        torch.tensor([math.degrees(0.3), 0.0], dtype=torch.float64),
        atol=1e-5,
        rtol=0,
    )
    mixed = identity[:, :2] @ torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    assert metrics.principal_angles(identity[:, :2], mixed).max() < 1e-4
    assert metrics.principal_angles(identity[:, :2], identity[:, 2:]).min() > 89.99
    with pytest.raises(ValueError, match=r"\(4, 4\), \(3, 3\)"):
        metrics.principal_angles(identity, torch.eye(3))
    with pytest.raises(ValueError, match="not independent"):
        metrics.principal_angles(torch.ones(4, 2), identity)


def test_knob_r2_known_answers():
    rng = torch.Generator().manual_seed(3)
    z, z_test = torch.randn(2, 2000, 3, generator=rng)

    def knobs(z):
        noise = torch.randn(len(z), generator=rng)
        bent = z[:, 0] ** 2
        return torch.stack([2 * z[:, 0] - z[:, 1], z[:, 2] + noise, bent, noise], dim=1)

    fit, judge = knobs(z), knobs(z_test)
    linear = metrics.knob_r2(z, fit, z_test, judge)
    bent = metrics.knob_r2(z, fit, z_test, judge, degree=2)
    assert linear[0] > 0.999 and abs(linear[1] - 0.5) < 0.06
    assert linear[2] < 0.05 and bent[2] > 0.999 and bent[3] < 0.05
    for wrong in (
        (z, fit[:-1], z_test, judge),
        (z, fit, z_test[:, :2], judge),
        (z, fit, z_test, judge[:, :3]),
        (z[:, 0], fit, z_test[:, 0], judge),
        (z[:, :0], fit, z_test[:, :0], judge),
    ):
        with pytest.raises(ValueError, match=r"z \(N, k\), knobs \(N, K\).*got"):
            metrics.knob_r2(*wrong)
    with pytest.raises(ValueError, match=r"z_test.*2.*\(1, 3\)"):
        metrics.knob_r2(z, fit, z_test[:1], judge[:1])


def test_active_units_by_hand_and_errors():
    mu = torch.tensor([[0.0, 1.0, 0.05], [0.0, -1.0, -0.05], [0.0, 1.0, 0.05]])
    assert metrics.active_units(mu) == 1
    assert metrics.active_units(mu, threshold=1e-4) == 2
    for bad in (torch.zeros(5), torch.zeros(1, 3)):
        with pytest.raises(ValueError, match="mu.*latent_dim"):
            metrics.active_units(bad)


def test_frechet_distance_in_closed_form():
    # With S1 = a I and S2 = b I it is |m1 - m2|^2 + D (sqrt a - sqrt b)^2.
    points = torch.randn(4000, 4, generator=torch.Generator().manual_seed(0)).double()
    white = points - points.mean(0)
    factor = torch.linalg.cholesky(white.T.cov())
    white = white @ torch.linalg.inv(factor).T  # covariance exactly I
    shift = torch.tensor([1.0, 2.0, 0.0, 0.0])
    expected = 5 + 4 * (3 - 2) ** 2
    distance = metrics.frechet_distance(3 * white, 2 * white + shift)
    assert distance == pytest.approx(expected, rel=1e-9)
    assert metrics.frechet_distance(white, white) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_on_a_line():
    a, b = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [5.0], [9.0]])
    # One coordinate: (m1 - m2)^2 + (s1 - s2)^2 with the sample deviations.
    expected = (1 - 5) ** 2 + (2**0.5 - 4) ** 2
    assert metrics.frechet_distance(a, b) == pytest.approx(expected)


def test_frechet_distance_against_scipy():
    from scipy.linalg import sqrtm

    rng = torch.Generator().manual_seed(1)
    a = torch.randn(300, 5, generator=rng) @ torch.randn(5, 5, generator=rng)
    b = torch.randn(200, 5, generator=rng) @ torch.randn(5, 5, generator=rng) + 1
    s1, s2 = a.double().T.cov().numpy(), b.double().T.cov().numpy()
    between = (a.double().mean(0) - b.double().mean(0)).square().sum().item()
    oracle = between + (s1 + s2 - 2 * sqrtm(s1 @ s2).real).trace()
    assert metrics.frechet_distance(a, b) == pytest.approx(oracle, rel=1e-6)
    assert metrics.frechet_distance(b, a) == pytest.approx(oracle, rel=1e-6)


def test_frechet_distance_of_finite_gaussian_samples():
    rng = torch.Generator().manual_seed(2)
    n, d = 400, 8
    distances = [
        metrics.frechet_distance(*torch.randn(2, n, d, generator=rng))
        for _ in range(40)
    ]
    assert sum(distances) / 40 == pytest.approx(d * (d + 5) / 4 * 2 / n, rel=0.1)


def test_frechet_distance_errors():
    with pytest.raises(ValueError, match=r"\(9, 2\), \(9, 3\)"):
        metrics.frechet_distance(torch.zeros(9, 2), torch.zeros(9, 3))
    with pytest.raises(ValueError, match="too few"):
        metrics.frechet_distance(torch.zeros(9, 8), torch.zeros(8, 8))


def test_nearest_distance_by_hand_and_errors():
    training = torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)])
    images = torch.stack([torch.full((1, 2, 2), 0.25), torch.ones(1, 2, 2)])
    nearest = metrics.nearest_distance(images, training)
    torch.testing.assert_close(nearest, torch.tensor([0.25, 0.0]))
    for one, other in (
        (images, training[:, :, :1]),
        (images[:, 0, 0, 0], training[:, 0, 0, 0]),
        (images, training[:0]),
    ):
        with pytest.raises(ValueError, match=r"images \(N, ...\).*got"):
            metrics.nearest_distance(one, other)


def test_nearer_to_training_catches_noisy_copies_and_accuses_no_fresh_face(real):
    training = faces.render(faces.sample_knobs(1000, seed=41), 32)
    held_out = faces.render(faces.sample_knobs(1000, seed=42), 32)
    for size in (0, 0.05, 0.07):
        copies = noisy(training[:100], size)
        share, low, high = metrics.nearer_to_training(copies, training, held_out)
        assert share > 0.98 and low > 0.9
        fresh = noisy(real[1][:200], size)
        share, low, high = metrics.nearer_to_training(fresh, training, held_out)
        assert low < 0.5 < high


def test_nearer_to_training_by_hand_and_errors():
    training, held_out = torch.tensor([[0.0], [4.0]]), torch.tensor([[1.0], [4.0]])
    samples = torch.tensor([[0.1], [0.9], [4.0], [0.2]])  # 4.0 is as near to both
    share, low, high = metrics.nearer_to_training(samples, training, held_out)
    assert share == 2.5 / 4 and low < share < high
    with pytest.raises(ValueError, match=r"held_out \(M, ...\).*\(1, 1\)"):
        metrics.nearer_to_training(samples, training, held_out[:1])


def two_samples(fake, seed=0):
    knobs = faces.sample_knobs(N, seed=50 + seed)
    return metrics.two_sample_accuracy(faces.render(knobs, 16), fake, seed=seed)


def test_two_sample_accuracy_of_real_and_of_crippled_faces():
    knobs = faces.sample_knobs(N, seed=60)
    _, low, high = two_samples(faces.render(knobs, 16))
    assert low < 0.5 < high
    shrunk = faces.render(0.5 * knobs, 16)
    blurred = 0.5 * blur(faces.render(knobs, 16)) + 0.5 * faces.render(knobs, 16)
    for fake in (shrunk, blurred):
        accuracy, low, high = two_samples(fake)
        assert low > 0.6 and low < accuracy <= high


def test_two_sample_accuracy_is_seeded_and_leaves_no_trace():
    a, b = torch.rand(2, 12, 1, 16, 16, generator=seeded())
    torch.manual_seed(7)
    first = torch.rand(1)
    torch.manual_seed(7)
    with torch.no_grad():
        accuracies = [metrics.two_sample_accuracy(a, b, epochs=2) for _ in range(2)]
    assert accuracies[0] == accuracies[1] and torch.rand(1) == first
    # The surplus of the larger set is left out, so that 0.5 stays the chance level.
    _, low, high = metrics.two_sample_accuracy(torch.cat([a] * 20), b[:4], epochs=1)
    assert high - low > 0.5


# --- all metrics ----------------------------------------------------------------------
X = torch.rand(12, 3, 16, 16, generator=torch.Generator().manual_seed(1))
K, L = torch.rand(2, 12, 3, generator=torch.Generator().manual_seed(2))
METRICS = {
    "fidelity": [X[:2]],
    "coverage": [K, L],
    "sharpness": [X],
    "active_units": [K],
    "detail": [X, X.flip(0)],
    "frechet_distance": [K, L],
    "knob_spread": [K, L],
    "nearer_to_training": [X[:2], X[2:6], X[6:10]],
    "nearest_distance": [X, X.flip(0)],
    "two_nn_dimension": [K],
    "two_sample_accuracy": [X, X.flip(0)],
    "principal_angles": [K, L],
    "knob_r2": [K, L, K.flip(0), L.flip(0)],
}


@pytest.mark.parametrize("name", METRICS)
def test_metrics_refuse_nan_whole_numbers_and_arrays(name):
    """NaN compares as false and is clamped to 0: it could look like a good mark."""
    metric, inputs = getattr(metrics, name), METRICS[name]
    metric(*[x.clone().requires_grad_() for x in inputs])
    for place in range(len(inputs)):
        for bad in (math.nan, math.inf, -math.inf):
            wrong = [x.clone() for x in inputs]
            wrong[place].view(-1)[5] = bad
            with pytest.raises(ValueError, match="finite.* 1 values"):
                metric(*wrong)
        for bad, got in (
            (inputs[place].to(torch.uint8), "uint8"),
            (inputs[place].numpy(), "ndarray"),
        ):
            wrong = [*inputs[:place], bad, *inputs[place + 1 :]]
            with pytest.raises(TypeError, match=f"floats.*{got}"):
                metric(*wrong)
        empty = [*inputs[:place], inputs[place][:0], *inputs[place + 1 :]]
        with pytest.raises(ValueError, match=r"got .*\(0, "):
            metric(*empty)


@pytest.mark.parametrize("name", METRICS)
def test_metrics_are_the_same_in_double_and_mixed_precision(name):
    metric, inputs = getattr(metrics, name), METRICS[name]

    def numbers(*inputs):
        value = metric(*inputs)
        parts = value if isinstance(value, tuple) else (value,)
        return torch.cat([torch.as_tensor(part).double().flatten() for part in parts])

    expected = numbers(*inputs)
    double = [x.double() for x in inputs]
    for given in (double, [double[0], *inputs[1:]], [inputs[0], *double[1:]]):
        torch.testing.assert_close(numbers(*given), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n, d", [(7, 1), (12, 6), (40, 3), (60, 2)])
def test_metrics_do_not_see_the_order_of_points_nor_a_shift(n, d):
    rng = torch.Generator().manual_seed(n)
    a, b = torch.rand(2, n, d, generator=rng, dtype=torch.float64)
    order, shift = torch.randperm(n, generator=rng), 1e4
    share = metrics.coverage(a, b)
    assert metrics.coverage(a[order], b.flip(0)) == pytest.approx(share)
    # Single precision far from the origin: cdist alone would round all of it off.
    far = [(x + shift).float() for x in (a, b)]
    exact = metrics.coverage(*[x.double() - shift for x in far])
    assert metrics.coverage(*far) == pytest.approx(exact)
    distance = metrics.frechet_distance(a, b)
    assert metrics.frechet_distance(b, a[order]) == pytest.approx(distance, abs=1e-8)
    assert metrics.frechet_distance(a, a[order]) == pytest.approx(0, abs=1e-8)
    assert metrics.frechet_distance(a + 1, b + 1) == pytest.approx(distance, abs=1e-8)
    dimension, _ = metrics.two_nn_dimension(a)
    assert metrics.two_nn_dimension(3 * a[order] + 1)[0] == pytest.approx(dimension)
    assert metrics.active_units(a[order]) == metrics.active_units(a)


@pytest.mark.parametrize("n, m, channels, size", [(1, 1, 1, 3), (40, 70, 3, 20)])
def test_image_metrics_judge_each_image_alone(n, m, channels, size):
    rng = torch.Generator().manual_seed(size)
    images = torch.rand(n, channels, size, size, generator=rng)
    training = torch.rand(m, channels, size, size, generator=rng)
    order = torch.randperm(n, generator=rng)
    sharp = metrics.sharpness(images)
    torch.testing.assert_close(metrics.sharpness(images[order]), sharp[order])
    assert metrics.sharpness(torch.full_like(images, 0.5)).eq(0).all()
    by_hand = (images[:, None].double() - training).square().flatten(2).mean(2).sqrt()
    near = metrics.nearest_distance(images, training)
    torch.testing.assert_close(near, by_hand.amin(1).float())
    assert metrics.nearest_distance(images, torch.cat([training, images])).eq(0).all()
