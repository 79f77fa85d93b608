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
