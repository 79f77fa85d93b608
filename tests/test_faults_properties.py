"""Properties that hold for any shape, size, type and batch, not only for examples.

Each example comes from a fixed seed (`derandomize`), so every run tries the same ones.
"""

import tempfile

import numpy as np
import pytest
import torch
from hypothesis import assume, configuration, given, settings
from hypothesis import strategies as st
from PIL import Image

from gencourse import data, faces, metrics
from gencourse.sources import folder as folder_source

STORAGE = tempfile.TemporaryDirectory()  # else a folder appears in the repository
configuration.set_hypothesis_home_dir(STORAGE.name)
NAN, INF = float("nan"), float("inf")
FLOATS = {torch.float16: 2e-2, torch.float32: 1e-4, torch.float64: 1e-10}
WHOLE = (torch.uint8, torch.int32, torch.int64, torch.bool)
seeds = st.integers(0, 2**20)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """For many small tensors a second thread costs more than it gives."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def examples(n):
    return settings(max_examples=n, deadline=None, derandomize=True, database=None)


def rng_of(seed):
    return torch.Generator().manual_seed(seed)


def orders(n, seed):
    return torch.randperm(n, generator=rng_of(seed))


# ------------------------------------------------------------------------------- faces
knob = st.one_of(
    st.floats(-1, 1, width=32),
    st.floats(-20, 20, width=32),
    st.sampled_from([0.0, -1.0, 1.0, 1e6, -1e6]),
)


@examples(50)
@given(
    rows=st.lists(st.tuples(*[knob] * 8), min_size=1, max_size=4),
    size=st.integers(16, 50),
    gray=st.booleans(),
    seed=seeds,
)
def test_render_draws_a_picture_for_any_knobs_and_any_size(rows, size, gray, seed):
    knobs = torch.tensor(rows)
    x = faces.render(knobs, size, gray)
    assert x.shape == (len(rows), 1 if gray else 3, size, size)
    assert x.isfinite().all() and x.min() >= 0 and x.max() <= 1
    order = orders(len(rows), seed)
    torch.testing.assert_close(faces.render(knobs[order], size, gray), x[order])


def test_no_face_is_so_narrow_that_it_is_nan():
    """At some widths an ellipse would be exactly 0 wide: all floats near them."""
    widths = []
    for base in (0.60, 0.69, 0.75):
        for direction in (-INF, INF):
            width = np.float32(-base / 0.11)
            for _ in range(30):
                widths.append(float(width))
                width = np.nextafter(width, np.float32(direction))
    knobs = torch.zeros(len(widths), 8)
    knobs[:, 0] = torch.tensor(widths)
    assert faces.render(knobs, 16).isfinite().all()


@pytest.mark.parametrize("bad", [1e7, -1e30, INF, -INF, NAN])
def test_faces_too_far_out_are_refused_not_drawn_wrong(bad):
    knobs = torch.zeros(3, 8)
    knobs[1, 4] = bad
    with pytest.raises(ValueError, match="knobs must be finite"):
        faces.render(knobs, 16)
    with pytest.raises(ValueError, match="knobs must be finite"):
        faces.render(knobs.double(), 16)
    images = torch.zeros(3, 3, 16, 16)
    images[2, 1, 5, 5] = bad
    with pytest.raises(ValueError, match="images must be finite"):
        faces.project(images)


@examples(25)
@given(
    n=st.integers(1, 3),
    size=st.sampled_from([16, 17, 31, 64, 128]),
    seed=seeds,
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float64]),
)
def test_a_face_is_the_same_in_every_type(n, size, seed, dtype):
    """The rounding of knobs and of pixels is all that may differ."""
    knobs = faces.sample_knobs(n, seed).to(dtype)
    x = faces.render(knobs, size)
    assert x.dtype == dtype
    steps = {torch.float16: 2e-3, torch.bfloat16: 1e-2, torch.float64: 2e-4}
    exact = faces.render(knobs.float(), size).double()
    assert (x.double() - exact).abs().max() < steps[dtype]


@examples(12)
@given(
    n=st.integers(1, 3),
    size=st.sampled_from([16, 19, 32]),
    gray=st.booleans(),
    seed=seeds,
    dtype=st.sampled_from([torch.float16, torch.float32, torch.float64]),
)
def test_project_judges_each_image_alone_in_any_type(n, size, gray, seed, dtype):
    x = faces.render(faces.sample_knobs(n, seed), size, gray)
    noisy = x + 0.02 * torch.randn(x.shape, generator=rng_of(seed))
    x = torch.cat([noisy, torch.full_like(x[:1], seed % 5 / 4)]).to(dtype)
    found = faces.project(x)
    assert found.knobs.shape == (n + 1, 8) and found.knobs.abs().max() <= 1
    rmse = (faces.render(found.knobs, size, gray) - x.float()).square()
    torch.testing.assert_close(
        found.distance, rmse.mean((1, 2, 3)).sqrt(), atol=1e-4, rtol=1e-3
    )
    assert (found.distance[:n] < 0.08).all() and found.distance[n] > 0.1
    order = orders(n + 1, seed)
    again = faces.project(x[order])
    torch.testing.assert_close(again.distance, found.distance[order], atol=5e-3, rtol=0)


def test_project_names_settings_and_types_out_of_range():
    x = torch.zeros(1, 3, 16, 16)
    for name, wrong in (
        ("steps", -1),
        ("steps", 1.5),
        ("starts", 0),
        ("starts", 5000),
        ("starts", "2"),
    ):
        with pytest.raises(ValueError, match=f"{name} must be .* got {wrong!r}"):
            faces.project(x, **{name: wrong})
    for dtype in WHOLE:
        with pytest.raises(ValueError, match=f"floats in .0, 1.; got {dtype}"):
            faces.project(x.to(dtype))
    for wrong in (-1, 1.5, "3", None):
        with pytest.raises(ValueError, match="n must be a whole number"):
            faces.sample_knobs(wrong)


# ------------------------------------------------------------------ images and batches
def numbered(n, dtype):
    pixels = torch.arange(n)[:, None, None, None].expand(n, 1, 4, 4)
    return data.Images(pixels.byte() if dtype == torch.uint8 else pixels / 255)


@examples(60)
@given(
    n=st.integers(1, 60),
    batch_size=st.integers(1, 70),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    seed=st.integers(-(2**70), 2**70),
    dtype=st.sampled_from([torch.float32, torch.uint8]),
)
def test_every_image_comes_once_in_an_epoch(
    n, batch_size, shuffle, drop_last, seed, dtype
):
    assume(batch_size <= n or not drop_last)
    batches = numbered(n, dtype).batches(batch_size, shuffle, seed, drop_last)
    for _ in range(2):
        parts = [(x[:, 0, 0, 0] * 255).round().int().tolist() for x in batches]
        full, rest = divmod(n, batch_size)
        kept = [batch_size] * full + [rest] * (rest > 0 and not drop_last)
        assert [len(part) for part in parts] == kept and len(batches) == len(kept)
        ids = sum(parts, [])
        assert len(set(ids)) == len(ids) and set(ids) <= set(range(n))
        assert shuffle or ids == list(range(len(ids)))


def test_images_of_another_kind_are_refused_not_darkened():
    pixels = torch.ones(5, 3, 8, 8)
    for dtype in (torch.float16, torch.float64, torch.int64, torch.bool):
        with pytest.raises(
            ValueError, match=f"float32.*uint8; got .5, 3, 8, 8. {dtype}"
        ):
            data.Images(pixels.to(dtype))
    with pytest.raises(ValueError, match=r"\(N, C, S, S\).*got \(3, 8, 8\)"):
        data.Images(pixels[0])
    with pytest.raises(ValueError, match="4 labels for 5 images"):
        data.Images(pixels, labels=torch.arange(4))
    with pytest.raises(ValueError, match="6 knobs for 5 images"):
        data.Images(pixels, knobs=torch.zeros(6, 8))
    for wrong in (2.5, "3", None, True, -1, 0):
        with pytest.raises(ValueError, match=f"no batch of {wrong!r}"):
            data.Images(pixels).batches(wrong)


@examples(25)
@given(
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    color=st.tuples(*[st.integers(0, 255)] * 3),
    size=st.sampled_from([8, 20, 32]),
    channels=st.sampled_from([1, 3]),
)
def test_a_plain_image_of_any_shape_keeps_its_color(
    tmp_path_factory, width, height, color, size, channels
):
    path = tmp_path_factory.mktemp("plain") / "plain.png"
    Image.new("RGB", (width, height), color).save(path)
    x = folder_source.decode(path, size, channels)
    gray = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
    wanted = np.array(color if channels == 3 else [gray])
    assert x.shape == (size, size, channels) and x.dtype == np.uint8
    assert (abs(x - wanted) <= (0 if channels == 3 else 1)).all()


# ----------------------------------------------------------------------------- metrics
X = torch.rand(12, 3, 16, 16, generator=rng_of(1))
K, L = torch.rand(12, 3, generator=rng_of(2)), torch.rand(12, 3, generator=rng_of(3))
METRICS = {
    "fidelity": (metrics.fidelity, [X[:2]]),
    "coverage": (metrics.coverage, [K, L]),
    "sharpness": (metrics.sharpness, [X]),
    "active_units": (metrics.active_units, [K]),
    "frechet_distance": (metrics.frechet_distance, [K, L]),
    "nearest_distance": (metrics.nearest_distance, [X, X.flip(0)]),
    "two_nn_dimension": (metrics.two_nn_dimension, [K]),
    "principal_angles": (metrics.principal_angles, [K, L]),
    "knob_r2": (metrics.knob_r2, [K, L, K.flip(0), L.flip(0)]),
}


@pytest.mark.parametrize("name", METRICS)
def test_metrics_never_take_nan_for_a_number(name):
    """NaN compares as false and is clamped to 0: it could look like a good mark."""
    metric, good = METRICS[name]
    metric(*good)
    for place in range(len(good)):
        for bad in (NAN, INF, -INF):
            wrong = [x.clone() for x in good]
            wrong[place].view(-1)[5] = bad
            with pytest.raises(ValueError, match="must be finite"):
                metric(*wrong)
            with pytest.raises(ValueError, match="must be finite"):
                metric(*[x.half() for x in wrong])
        for dtype in WHOLE:
            wrong = list(good)
            wrong[place] = good[place].to(dtype)
            with pytest.raises(TypeError, match=f"floating point tensor; got {dtype}"):
                metric(*wrong)
        with pytest.raises(TypeError, match="got ndarray"):
            metric(*[x.numpy() for x in good])


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_metrics_are_the_same_in_every_type(name, dtype):
    metric, good = METRICS[name]
    rounded = [x.to(dtype) for x in good]
    found = torch.as_tensor(metric(*rounded), dtype=torch.float64)
    wanted = torch.as_tensor(metric(*[x.float() for x in rounded]), dtype=torch.float64)
    torch.testing.assert_close(found, wanted, rtol=1e-2, atol=1e-3)


@examples(40)
@given(n=st.integers(7, 60), d=st.integers(1, 6), seed=seeds)
def test_metrics_do_not_see_the_order_of_points_nor_a_shift(n, d, seed):
    rng = rng_of(seed)
    a, b = torch.rand(2, n, d, generator=rng, dtype=torch.float64)
    order, shift = orders(n, seed), 1e4
    cover = metrics.coverage(a, b)
    assert 0 <= cover <= 1
    assert metrics.coverage(a[order], b.flip(0)) == pytest.approx(cover)
    # Single precision far from the origin: cdist alone would round all of it off.
    far = [(x + shift).float() for x in (a, b)]
    exact = metrics.coverage(*[x.double() - shift for x in far])
    assert metrics.coverage(*far) == pytest.approx(exact)
    between = metrics.frechet_distance(a, b)
    assert metrics.frechet_distance(b, a[order]) == pytest.approx(between, abs=1e-8)
    assert metrics.frechet_distance(a, a[order]) == pytest.approx(0, abs=1e-8)
    assert metrics.frechet_distance(a + 1, b + 1) == pytest.approx(between, abs=1e-8)
    dimension, error = metrics.two_nn_dimension(a)
    assert dimension > 0 and error == pytest.approx(dimension / n**0.5)
    assert metrics.two_nn_dimension(3 * a[order] + 1)[0] == pytest.approx(dimension)
    assert metrics.active_units(a[order]) == metrics.active_units(a)


@examples(30)
@given(
    n=st.integers(1, 40),
    m=st.integers(1, 70),
    channels=st.sampled_from([1, 3]),
    size=st.integers(3, 20),
    seed=seeds,
)
def test_image_metrics_judge_each_image_alone(n, m, channels, size, seed):
    images = torch.rand(n, channels, size, size, generator=rng_of(seed))
    training = torch.rand(m, channels, size, size, generator=rng_of(seed + 1))
    order = orders(n, seed)
    sharp = metrics.sharpness(images)
    torch.testing.assert_close(metrics.sharpness(images[order]), sharp[order])
    assert metrics.sharpness(torch.full_like(images, 0.5)).eq(0).all()
    by_hand = (images[:, None].double() - training).square().flatten(2).mean(2).sqrt()
    near = metrics.nearest_distance(images, training)
    torch.testing.assert_close(near, by_hand.amin(1).float())
    assert metrics.nearest_distance(images, torch.cat([training, images])).eq(0).all()


def test_frechet_distance_on_a_line_and_metrics_without_an_answer():
    a, b = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [5.0], [9.0]])
    # One coordinate: (m1 - m2)^2 + (s1 - s2)^2 with the sample deviations.
    wanted = (1 - 5) ** 2 + (2**0.5 - 4) ** 2
    assert metrics.frechet_distance(a, b) == pytest.approx(wanted)
    with pytest.raises(ValueError, match="equally far"):
        metrics.two_nn_dimension(torch.eye(4))
    with pytest.raises(ValueError, match="at least one image"):
        metrics.fidelity(torch.zeros(0, 3, 16, 16))
    with pytest.raises(ValueError, match="M > 0"):
        metrics.coverage(K, K[:0])
    with pytest.raises(ValueError, match="at least two to judge; got 12, 1"):
        metrics.knob_r2(K, L, K[:1], L[:1])


# ------------------------------------------------------------ odd points, odd gradients
def test_metrics_refuse_numbers_whose_squares_overflow():
    huge = torch.rand(20, 3).double() * 1e160
    z = torch.rand(20, 3)
    for call in (
        lambda: metrics.two_nn_dimension(huge.float().clamp(max=1e38)),
        lambda: metrics.nearest_distance(huge, huge),
        lambda: metrics.sharpness(huge[:1, :, None, None].expand(1, 3, 5, 5)),
        lambda: metrics.coverage(huge, z),
        lambda: metrics.knob_r2(z, huge, z, z),
        lambda: metrics.frechet_distance(huge, z),  # LAPACK would never end
    ):
        with pytest.raises(ValueError, match="must be finite; squares of .* too large"):
            call()


def test_metrics_name_shapes_that_do_not_fit_and_mix_types():
    z, knobs = torch.rand(20, 3), torch.rand(20, 8)
    for a, b, c, d in (
        (z[:, 0], knobs, z[:, 0], knobs),
        (z, knobs, z[:, :2], knobs),
        (z, knobs, z, knobs[:, :3]),
        (z[:, :0], knobs, z[:, :0], knobs),
    ):
        with pytest.raises(ValueError, match="_test must be .* the same D"):
            metrics.knob_r2(a, b, c, d)
    for one, other in ((z[:, 0], z[:, 0]), (z[0, 0], z[0, 0]), (z[:, :0], z[:, :0])):
        with pytest.raises(ValueError, match="expected images of one shape"):
            metrics.nearest_distance(one, other)
    for dependent in (torch.zeros(5, 2), torch.ones(5, 2), torch.zeros(5, 0)):
        with pytest.raises(ValueError, match="columns of each basis must be indep"):
            metrics.principal_angles(dependent, torch.rand(5, 2))
    with pytest.raises(ValueError, match="more than k = 1.5 real points"):
        metrics.coverage(z, z, 1.5)
    assert metrics.nearest_distance(z.double(), z).max() == 0
    learned = z.clone().requires_grad_()
    metrics.knob_r2(learned, knobs, learned, knobs)
    metrics.principal_angles(learned, z)


def test_seeds_out_of_range_are_named():
    for wrong in (1.5, "1", None, 2**64):
        with pytest.raises(ValueError, match=f"seed must be .*got {wrong!r}"):
            faces.sample_knobs(2, wrong)
    same = faces.sample_knobs(np.int64(2), np.int64(3))
    assert torch.equal(same, faces.sample_knobs(2, 3))
