"""The true decoder and the referee."""

import numpy as np
import pytest
import torch

from gencourse import faces, referee, store

CAUGHT = [  # faces that the network's first guess alone does not lead to at 16 pixels
    [0.93, 0.99, 0.33, 0.09, -0.84, -0.52, 0.41, -0.89],
    [-0.8, 0.98, -0.54, -1.0, 0.9, -0.16, 0.16, 0.82],
    [0.48, 0.98, 0.33, -0.74, -0.97, -0.9, 0.97, -0.93],
    [-0.34, 0.91, -0.5, -0.12, -0.94, -0.79, -0.54, -0.31],
    [-0.88, 0.99, -0.24, 0.84, 0.9, -0.21, 0.18, -0.99],
]


@pytest.fixture(scope="module")
def fresh():
    knobs = faces.sample_knobs(256, seed=123)
    return knobs, faces.render(knobs, 32)


def test_knobs_are_uniform_seeded_and_named():
    knobs = faces.sample_knobs(20_000, seed=5)
    assert knobs.shape == (20_000, 8) and knobs.dtype == torch.float32
    assert knobs.min() >= -1 and knobs.max() <= 1
    assert knobs.mean(0).abs().max() < 0.02
    assert (knobs.var(0) - 1 / 3).abs().max() < 0.01  # variance of Uniform(-1, 1)
    assert torch.equal(knobs, faces.sample_knobs(20_000, seed=5))
    assert not torch.equal(knobs, faces.sample_knobs(20_000, seed=6))
    assert len(set(faces.KNOB_NAMES)) == 8


def test_any_two_characters_differ_in_at_least_four_knobs():
    knobs = faces.characters()
    assert knobs.shape == (16, 8) and (knobs.abs() == 0.6).all()
    different = (knobs[:, None] != knobs).sum(dim=2) + 8 * torch.eye(16)
    assert different.min() == 4


@pytest.mark.parametrize("size, gray", [(16, False), (33, True), (256, False)])
def test_shapes_and_range(size, gray):
    images = faces.render(faces.sample_knobs(3), size, gray)
    assert images.shape == (3, 1 if gray else 3, size, size)
    assert images.dtype == torch.float32
    assert images.min() >= 0 and images.max() <= 1


def test_chunks_do_not_change_the_picture():
    knobs = faces.sample_knobs(300, seed=9)
    alone = torch.cat([faces.render(k[None], 32) for k in knobs[::50]])
    torch.testing.assert_close(faces.render(knobs, 32)[::50], alone)


def test_sizes_show_the_same_face(fresh):
    """A large rendering, averaged down, is the small rendering up to anti-aliasing."""
    knobs, small = fresh
    large = faces.render(knobs[:32], 256)
    pooled = torch.nn.functional.avg_pool2d(large, 8)
    rmse = (pooled - small[:32]).square().mean().sqrt()
    spread = (small - small.mean(0)).square().mean().sqrt()
    assert rmse < 0.1 * spread


def test_gray_is_luminance(fresh):
    knobs, rgb = fresh
    gray = faces.render(knobs, 32, gray=True)
    expected = 0.299 * rgb[:, 0] + 0.587 * rgb[:, 1] + 0.114 * rgb[:, 2]
    torch.testing.assert_close(gray[:, 0], expected)


def test_gradient_against_finite_differences():
    """Kinks at pixel edges make single pixels jump; a smooth functional must agree."""
    rng = torch.Generator().manual_seed(0)
    knobs = (faces.sample_knobs(4, seed=2) * 0.8).double()
    weights = torch.rand(4, 3, 24, 24, generator=rng, dtype=torch.float64)

    def value(k):
        return (faces.render(k, 24) * weights).sum()

    gradient = torch.autograd.functional.jacobian(value, knobs)
    h, numeric = 1e-6, torch.zeros_like(knobs)
    for i in range(4):
        for j in range(8):
            step = torch.zeros_like(knobs)
            step[i, j] = h
            numeric[i, j] = (value(knobs + step) - value(knobs - step)) / (2 * h)
    torch.testing.assert_close(gradient, numeric, rtol=1e-4, atol=1e-3)
    assert (gradient.abs() > 1e-3).all()  # every knob moves the picture


def test_no_bright_seams_where_shapes_meet():
    """Inside the head there is no pixel brighter than its parts allow: on a
    dark-skinned, black-haired, closed-mouth face only eyes are bright, and no
    background shines through between the hair and the head."""
    knobs = torch.tensor([[0.5, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0, -1.0]])
    image = faces.render(knobs, 256)[0]
    line = torch.linspace(-1, 1, 256)
    y, x = torch.meshgrid(line, line, indexing="ij")
    head = (x / 0.62) ** 2 + ((y - 0.04) / 0.66) ** 2 < 1
    hair = ((x / 0.6) ** 2 + ((y + 0.1) / 0.7) ** 2 < 1) & (y < 0.3)
    eyes = (y - 0.02).abs() < 0.2
    assert image[2][(head | hair) & ~eyes].max() < 0.3


@pytest.mark.parametrize("size, gray", [(16, False), (33, True), (50, False)])
def test_render_draws_any_knobs_each_face_alone(size, gray):
    rng = torch.Generator().manual_seed(size)
    inside = torch.rand(40, 8, generator=rng) * 2 - 1
    far = torch.tensor([0.0, -1.0, 1.0, 1e6, -1e6])
    ends = far[torch.randint(len(far), inside.shape, generator=rng)]
    knobs = torch.cat([inside, 20 * inside, ends])
    x = faces.render(knobs, size, gray)
    assert x.isfinite().all() and x.min() >= 0 and x.max() <= 1
    order = torch.randperm(len(knobs), generator=rng)
    torch.testing.assert_close(faces.render(knobs[order], size, gray), x[order])


def test_no_face_is_so_narrow_that_it_is_nan():
    """At some widths an ellipse would be exactly 0 wide: all floats near them."""
    widths = []
    for base in (0.60, 0.69, 0.75):
        for direction in (-np.inf, np.inf):
            width = np.float32(-base / 0.11)
            for _ in range(30):
                widths.append(float(width))
                width = np.nextafter(width, np.float32(direction))
    knobs = torch.zeros(len(widths), 8)
    knobs[:, 0] = torch.tensor(widths)
    assert faces.render(knobs, 16).isfinite().all()


@pytest.mark.parametrize("size", [16, 31, 128])
@pytest.mark.parametrize(
    "dtype, tolerance",
    [(torch.float16, 2e-3), (torch.bfloat16, 1e-2), (torch.float64, 2e-4)],
)
def test_a_face_is_the_same_in_every_type(size, dtype, tolerance):
    """The rounding of knobs and of pixels is all that may differ."""
    knobs = faces.sample_knobs(3, seed=size).to(dtype)
    x = faces.render(knobs, size)
    assert x.dtype == dtype
    exact = faces.render(knobs.float(), size).double()
    assert (x.double() - exact).abs().max() < tolerance


@pytest.mark.parametrize(
    "bad, message",
    [
        (torch.zeros(8), r"got \(8,\)"),
        ([[0.0] * 8], "got list"),
        (torch.zeros(2, 8, dtype=torch.long), "int64"),
        (torch.full((1, 8), float("nan")), "finite.*nan"),
        (torch.full((1, 8), 1e7), r"1e\+06.*1e\+07"),
    ],
)
def test_render_names_what_is_wrong(bad, message):
    with pytest.raises(ValueError, match=message):
        faces.render(bad)


@pytest.mark.parametrize("size", [8, 257, 32.0])
def test_size_out_of_range(size):
    with pytest.raises(ValueError, match="16 to 256"):
        faces.render(torch.zeros(1, 8), size)


def test_numpy_numbers_are_sizes_and_counts():
    knobs = faces.sample_knobs(np.int64(2), seed=np.int64(3))
    assert torch.equal(knobs, faces.sample_knobs(2, seed=3))
    assert torch.equal(faces.render(knobs, np.int64(28)), faces.render(knobs, 28))


@pytest.mark.parametrize(
    "name, value", [("n", -1), ("n", 1.5), ("seed", 1.5), ("seed", 2**64)]
)
def test_sample_knobs_names_what_is_out_of_range(name, value):
    with pytest.raises(ValueError, match=f"{name} must.*{value!r}"):
        faces.sample_knobs(**{"n": 2, name: value})


def test_empty_batch():
    assert faces.render(torch.zeros(0, 8), 32).shape == (0, 3, 32, 32)
    assert faces.project(torch.zeros(0, 3, 32, 32)).distance.shape == (0,)


def test_project_finds_fresh_faces(fresh):
    knobs, images = fresh
    found = faces.project(images)
    assert found.knobs.shape == (256, 8) and found.distance.shape == (256,)
    assert found.distance.max() < 0.001
    wrong = (found.knobs - knobs).abs()
    assert wrong.quantile(0.95, dim=0).max() < 0.005
    # The distance is what it says: the RMSE between the image and the face found.
    rmse = (faces.render(found.knobs, 32) - images).square().mean((1, 2, 3)).sqrt()
    torch.testing.assert_close(found.distance, rmse, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size, gray", [(16, False), (28, True), (32, False)])
def test_project_finds_every_corner_of_the_cube(size, gray):
    """Here an earlier search, which started at random faces, missed one of six."""
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 8)
    found = faces.project(faces.render(corners, size, gray))
    assert found.distance.max() < 0.001


def test_project_frees_a_mouth_that_is_caught_between_pixels():
    """Each of these ended in a local minimum of the network's first guess."""
    knobs = torch.tensor(CAUGHT)
    found = faces.project(faces.render(knobs, 16))
    assert found.distance.max() < 0.001


def test_pixel_midpoints_are_far_and_knob_midpoints_are_near(fresh):
    knobs, images = fresh
    ghosts = faces.project((images[:64] + images[64:128]) / 2).distance.median()
    between = faces.render((knobs[:64] + knobs[64:128]) / 2, 32)
    assert ghosts > 20 * faces.project(between).distance.median()
    assert ghosts > 0.02


def test_project_survives_noise_and_never_leaves_the_cube(fresh):
    knobs, images = fresh
    rng = torch.Generator().manual_seed(1)
    noise = 0.03 * torch.randn(images[:64].shape, generator=rng)
    found = faces.project(images[:64] + noise)
    assert (found.knobs - knobs[:64]).abs().median() < 0.02
    assert abs(found.distance.median() - 0.03) < 0.003  # the noise is what remains
    wild = faces.project(torch.rand(16, 3, 32, 32, generator=rng))
    assert wild.knobs.abs().max() <= 1 and wild.distance.min() > 0.25


@pytest.mark.parametrize("size, gray", [(16, False), (28, True), (64, False)])
def test_project_at_other_sizes_and_in_gray(size, gray):
    knobs = faces.sample_knobs(24, seed=31)
    found = faces.project(faces.render(knobs, size, gray))
    assert found.distance.max() < 0.001
    assert (found.knobs - knobs).abs().median() < 1e-4


@pytest.mark.parametrize(
    "bad, message",
    [
        (torch.zeros(3, 32, 32), "shape"),
        (torch.zeros(1, 2, 32, 32), "shape"),
        (torch.zeros(1, 3, 32, 16), "square"),
        (torch.zeros(1, 3, 8, 8), "16 to 256"),
        (torch.full((1, 3, 32, 32), float("nan")), "finite"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), "floats.*uint8"),
    ],
)
def test_project_names_what_is_wrong(bad, message):
    with pytest.raises(ValueError, match=message):
        faces.project(bad)


@pytest.mark.parametrize("size, gray", [(16, True), (19, False), (32, False)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_project_judges_each_image_alone_in_any_type(size, gray, dtype):
    rng = torch.Generator().manual_seed(size)
    x = faces.render(faces.sample_knobs(3, seed=size), size, gray)
    noisy = x + 0.02 * torch.randn(x.shape, generator=rng)
    x = torch.cat([noisy, torch.full_like(x[:1], 0.25)]).to(dtype)
    found = faces.project(x)
    assert found.knobs.shape == (4, 8) and found.knobs.abs().max() <= 1
    rmse = (faces.render(found.knobs, size, gray) - x.float()).square()
    torch.testing.assert_close(
        found.distance, rmse.mean((1, 2, 3)).sqrt(), atol=1e-4, rtol=1e-3
    )
    assert (found.distance[:3] < 0.08).all() and found.distance[3] > 0.1
    order = torch.randperm(4, generator=rng)
    again = faces.project(x[order])
    torch.testing.assert_close(again.distance, found.distance[order], atol=5e-3, rtol=0)


@pytest.mark.parametrize("starts", [0, 17, 1.5, "2"])
def test_project_names_starts_out_of_range(starts):
    with pytest.raises(ValueError, match=f"starts must.*16.*{starts!r}"):
        faces.project(torch.zeros(1, 3, 16, 16), starts=starts)


def test_project_frees_a_face_that_looks_like_none_at_first():
    """One of these, in gray, once ended 0.017 away, beyond what counted as near."""
    knobs = faces.sample_knobs(128, seed=7002)[[4, 106]]
    assert faces.project(faces.render(knobs, 64, gray=True)).distance.max() < 0.001


def test_project_spends_no_extra_starts_on_rounded_pixels(monkeypatch):
    """Eight bits a pixel leave 0.0011, no more than a missed face may leave."""
    images = faces.render(faces.sample_knobs(32, seed=1), 32)
    drawn = []
    render = faces.render
    monkeypatch.setattr(
        referee, "render", lambda k, *a, **b: drawn.append(len(k)) or render(k, *a, **b)
    )
    found = faces.project((images * 255).round() / 255)
    assert 0.001 < found.distance.median() < 0.0012
    assert sum(drawn) / len(images) < 80


def test_more_starts_find_no_farther_faces(fresh):
    _, images = fresh
    ghosts = (images[:24] + images[24:48]) / 2
    one, many = (faces.project(ghosts, starts=n).distance for n in (1, 8))
    assert many.mean() < one.mean()


def test_project_leaves_the_random_state_alone(fresh):
    """Even when it loads its network for the first time."""
    referee.reader.cache_clear()
    before = torch.get_rng_state()
    first = faces.project(fresh[1][:4])
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(faces.project(fresh[1][:4]).knobs, first.knobs)


def test_the_stored_reader_is_small_and_near():
    knobs = faces.sample_knobs(200, seed=77)
    network = referee.reader(torch.device("cpu"))
    for size, gray in ((16, False), (32, True), (64, False)):
        read = network(referee.as_read(faces.render(knobs, size, gray)))
        assert (read - knobs).square().mean() < 0.005  # a third for a constant guess
    assert (store.PRETRAINED / referee.STORED).stat().st_size < 200_000


def test_every_knob_can_be_read_from_32_pixels():
    """A small network that has seen 4,000 faces reads every knob of fresh ones."""
    torch.manual_seed(0)
    knobs = faces.sample_knobs(4_500, seed=8)
    images = faces.render(knobs, 32)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 4, 2, 1), torch.nn.ReLU(),
        torch.nn.Conv2d(16, 32, 4, 2, 1), torch.nn.ReLU(),
        torch.nn.Flatten(), torch.nn.Linear(32 * 64, 64), torch.nn.ReLU(),
        torch.nn.Linear(64, 8),
    )  # fmt: skip
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    for epoch in range(12):
        if epoch == 9:
            optimizer.param_groups[0]["lr"] = 5e-4
        for index in torch.randperm(4_000).split(64):
            loss = (network(images[index]) - knobs[index]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        error = (network(images[4_000:]) - knobs[4_000:]).square().mean(0)
    r2 = 1 - error / knobs[4_000:].var(0)
    assert r2.min() > 0.85, dict(zip(faces.KNOB_NAMES, r2.tolist(), strict=True))
