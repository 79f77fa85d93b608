"""Each metric on a case whose answer is known."""

import math

import pytest
import torch

from gencourse import faces, metrics


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
    with pytest.raises(ValueError, match="same D"):
        metrics.coverage(torch.zeros(9, 8), torch.zeros(9, 7))
    with pytest.raises(ValueError, match="more than k = 5"):
        metrics.coverage(torch.zeros(5, 8), torch.zeros(9, 8))


def test_sharpness_known_answers():
    i = torch.arange(8)
    checker = ((i[:, None] + i) % 2).float().expand(2, 3, 8, 8)
    ramp = (i / 8).expand(1, 1, 8, 8)
    torch.testing.assert_close(metrics.sharpness(checker), torch.ones(2))
    torch.testing.assert_close(metrics.sharpness(ramp), torch.zeros(1))
    face = faces.render(faces.sample_knobs(8), 32)
    blurred = torch.nn.functional.avg_pool2d(face, 3, 1, 1)
    assert (metrics.sharpness(blurred) < 0.6 * metrics.sharpness(face)).all()


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
    with pytest.raises(ValueError, match="at least three"):
        metrics.two_nn_dimension(torch.rand(2, 3))
    with pytest.raises(ValueError, match="4 points equal another"):
        metrics.two_nn_dimension(torch.rand(2, 3).repeat(2, 1))


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
    with pytest.raises(ValueError, match="bases"):
        metrics.principal_angles(identity, torch.eye(3))


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
    with pytest.raises(ValueError, match="needs its knobs"):
        metrics.knob_r2(z, fit[:-1], z_test, judge)


def test_active_units_by_hand_and_errors():
    mu = torch.tensor([[0.0, 1.0, 0.05], [0.0, -1.0, -0.05], [0.0, 1.0, 0.05]])
    assert metrics.active_units(mu) == 1
    assert metrics.active_units(mu, threshold=1e-4) == 2
    for bad in (torch.zeros(5), torch.zeros(1, 3)):
        with pytest.raises(ValueError, match="must be"):
            metrics.active_units(bad)


def test_frechet_distance_in_closed_form():
    # With S1 = a I and S2 = b I it is |m1 - m2|^2 + D (sqrt a - sqrt b)^2.
    points = torch.randn(4000, 4, generator=torch.Generator().manual_seed(0)).double()
    white = points - points.mean(0)
    factor = torch.linalg.cholesky(white.T.cov())
    white = white @ torch.linalg.inv(factor).T  # covariance exactly I
    shift = torch.tensor([1.0, 2.0, 0.0, 0.0])
    expected = 5 + 4 * (3 - 2) ** 2
    found = metrics.frechet_distance(3 * white, 2 * white + shift)
    assert found == pytest.approx(expected, rel=1e-9)
    assert metrics.frechet_distance(white, white) == pytest.approx(0, abs=1e-9)


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
    found = [
        metrics.frechet_distance(*torch.randn(2, n, d, generator=rng))
        for _ in range(40)
    ]
    assert sum(found) / 40 == pytest.approx(d * (d + 5) / 4 * 2 / n, rel=0.1)


def test_frechet_distance_errors():
    with pytest.raises(ValueError, match="expected"):
        metrics.frechet_distance(torch.zeros(9, 2), torch.zeros(9, 3))
    with pytest.raises(ValueError, match="too few"):
        metrics.frechet_distance(torch.zeros(9, 8), torch.zeros(8, 8))


def test_nearest_distance_by_hand_and_errors():
    training = torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)])
    images = torch.stack([torch.full((1, 2, 2), 0.25), torch.ones(1, 2, 2)])
    found = metrics.nearest_distance(images, training)
    torch.testing.assert_close(found, torch.tensor([0.25, 0.0]))
    with pytest.raises(ValueError, match="one shape"):
        metrics.nearest_distance(images, training[:, :, :1])
