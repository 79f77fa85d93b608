"""Properties that hold for any shape, size, type and batch, not only for examples.

Each example comes from a fixed seed (`derandomize`), so every run tries the same ones.
"""

import math
import tempfile

import numpy as np
import pytest
import torch
from hypothesis import assume, configuration, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from gencourse import data, losses, train
from gencourse.models import GAN, VAE, Autoencoder
from gencourse.sources import folder as folder_source
from gencourse.steps import AutoencoderStep, GANStep, VAEStep

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


# ------------------------------------------------------------------------------ losses
def sigmoid(x):
    return 1 / (1 + torch.exp(-x))


def linear(x):
    return x.flatten(1) @ slope(x)


def slope(x):
    return (torch.arange(x[0].numel()) % 3 - 1).to(x.dtype)


# Each row: the loss, what it is given, the formula in plain double precision.
LOSSES = {
    "squared_error": (
        losses.squared_error,
        ("pixels", "pixels"),
        lambda x, y: ((x - y) ** 2).flatten(1).sum(1),
    ),
    "gaussian_nll": (
        lambda x, y: losses.gaussian_nll(x, y, 0.3),
        ("pixels", "pixels"),
        lambda x, y: (((x - y) ** 2 / 0.3 + math.log(0.6 * math.pi)) / 2)
        .flatten(1)
        .sum(1),
    ),
    "bernoulli_nll": (
        losses.bernoulli_nll,
        ("pixels", "images"),
        lambda x, y: (
            -(x * sigmoid(y).log() + (1 - x) * sigmoid(-y).log()).flatten(1).sum(1)
        ),
    ),
    "kl_to_prior": (
        losses.kl_to_prior,
        ("codes", "codes"),
        lambda m, v: ((m**2 + v.exp() - 1 - v) / 2).sum(1),
    ),
    "elbo": (losses.elbo, ("rows", "rows"), lambda nll, kl: -(nll + kl)),
    "log_normal": (
        losses.log_normal,
        ("codes", "codes", "codes"),
        lambda z, m, v: (-(math.log(2 * math.pi) + v + (z - m) ** 2 / v.exp()) / 2).sum(
            1
        ),
    ),
    "importance_weighted_bound": (
        lambda w: losses.importance_weighted_bound(w.T),
        ("codes",),
        lambda w: w.exp().mean(1).log(),
    ),
    "discriminator_loss": (
        losses.discriminator_loss,
        ("rows", "rows"),
        lambda r, f: -sigmoid(r).log() - sigmoid(-f).log(),
    ),
    "generator_loss": (
        losses.generator_loss,
        ("rows",),
        lambda f: -sigmoid(f).log(),
    ),
    "saturating_generator_loss": (
        losses.saturating_generator_loss,
        ("rows",),
        lambda f: sigmoid(-f).log(),
    ),
    "critic_loss": (losses.critic_loss, ("rows", "rows"), lambda r, f: f - r),
    "critic_generator_loss": (losses.critic_generator_loss, ("rows",), lambda f: -f),
    "r1_penalty": (
        lambda x: losses.r1_penalty(lambda v: linear(v) ** 2 / 2, x),
        ("images",),
        lambda x: linear(x) ** 2 * slope(x).square().sum(),
    ),
}  # fmt: skip


def arguments(kinds, b, shape, seed, dtype):
    rng = rng_of(seed)
    sizes = {"rows": (b,), "codes": (b, shape[-1])}
    drawn = []
    for kind in kinds:
        x = torch.randn(sizes.get(kind, (b, *shape)), generator=rng)
        drawn.append((x.sigmoid() if kind == "pixels" else x).to(dtype))
    return drawn


@pytest.mark.parametrize("name", LOSSES)
@examples(25)
@given(
    b=st.integers(1, 6),
    shape=st.sampled_from([(1,), (7,), (1, 1, 1), (3, 5, 2), (1, 9, 9)]),
    seed=seeds,
    dtype=st.sampled_from(list(FLOATS)),
)
def test_losses_are_the_formula_and_judge_each_example_alone(
    name, b, shape, seed, dtype
):
    loss, kinds, formula = LOSSES[name]
    given_ones = arguments(kinds, b, shape, seed, dtype)
    found = loss(*given_ones)
    assert found.shape == (b,) and found.dtype == dtype
    tol = FLOATS[dtype]
    oracle = formula(*[x.double() for x in given_ones])
    torch.testing.assert_close(found.double(), oracle, rtol=tol, atol=4 * tol)

    order = orders(b, seed)
    torch.testing.assert_close(
        loss(*[x[order] for x in given_ones]), found[order], rtol=tol, atol=tol
    )
    alone = [loss(*[x[i : i + 1] for x in given_ones]) for i in range(b)]
    torch.testing.assert_close(torch.cat(alone), found, rtol=tol, atol=tol)
    # A bad pixel spoils its own example and no other.
    bad = given_ones[0].clone()
    bad[0] = NAN
    spoiled = loss(bad, *given_ones[1:])
    assert spoiled[0].isnan()
    torch.testing.assert_close(spoiled[1:], found[1:], rtol=tol, atol=tol)


@pytest.mark.parametrize("dtype", WHOLE)
@pytest.mark.parametrize("name", LOSSES)
def test_losses_refuse_whole_numbers_by_name(name, dtype):
    loss, kinds, _ = LOSSES[name]
    whole = [x.to(dtype) for x in arguments(kinds, 2, (4,), 0, torch.float32)]
    with pytest.raises(TypeError, match=f"must be a floating point.*{dtype}"):
        loss(*whole)


def test_losses_refuse_what_is_no_tensor_and_no_variance():
    with pytest.raises(TypeError, match="x must be .* tensor, got ndarray"):
        losses.squared_error(np.zeros((2, 3)), np.zeros((2, 3)))
    x = torch.rand(2, 3)
    for wrong in (INF, NAN, 0.0, -1.0, 1e-50):
        with pytest.raises(ValueError, match=f"variance.*got {wrong}"):
            losses.gaussian_nll(x, x, wrong)
    # A variance that half precision would round to another one.
    exact = losses.gaussian_nll(x[:, :1].double(), x[:, :1].double(), 1e-7)
    half = losses.gaussian_nll(x[:, :1].half(), x[:, :1].half(), 1e-7)
    torch.testing.assert_close(half.double(), exact, rtol=1e-3, atol=0)


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


@examples(20)
@given(n=st.integers(1, 30), batch_size=st.integers(1, 31), epochs=st.integers(1, 3))
def test_the_mean_of_an_epoch_does_not_depend_on_the_batch_size(n, batch_size, epochs):
    batches = numbered(n, torch.float32).batches(batch_size)
    history = train.fit(lambda x: {"a": x.mean().item()}, batches, epochs=epochs)
    assert history.images == n * epochs
    assert history.epochs["a"] == pytest.approx([(n - 1) / 2 / 255] * epochs, abs=1e-6)


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


# ------------------------------------------------------------------------------- steps
FAMILIES = [(Autoencoder, AutoencoderStep), (VAE, VAEStep), (GAN, GANStep)]


def constant_or_random(b, channels, size, fill, seed):
    if fill is None:
        return torch.rand(b, channels, size, size, generator=rng_of(seed))
    return torch.full((b, channels, size, size), fill)


@examples(60)
@given(
    family=st.sampled_from(FAMILIES),
    options=st.integers(0, 3),
    b=st.integers(1, 5),
    size=st.sampled_from([16, 20, 28]),
    channels=st.sampled_from([1, 3]),
    latent_dim=st.integers(1, 5),
    width=st.integers(1, 5),
    fill=st.sampled_from([None, 0.0, 0.5, 1.0]),
    dtype=st.sampled_from(list(FLOATS)),
    seed=seeds,
)
def test_steps_on_any_legal_shape_keep_the_weights_finite(
    family, options, b, size, channels, latent_dim, width, fill, dtype, seed
):
    model_class, step_class = family
    chosen = {
        AutoencoderStep: [{}] * 4,
        VAEStep: [
            {}, {"s2": "optimal"}, {"likelihood": "bernoulli"}, {"beta": lambda n: n}
        ],
        GANStep: [
            {}, {"loss": "wasserstein", "n_critic": 2}, {"r1": 1.0, "ema": 0.9},
            {"loss": "saturating"},
        ],
    }[step_class][options]  # fmt: skip
    torch.manual_seed(seed)
    std = {"minibatch_std": True} if model_class is GAN and options == 2 else {}
    model = model_class(latent_dim, size, channels, width, **std)
    before = [p.detach().clone() for p in model.parameters()]
    x = constant_or_random(b, channels, size, fill, seed).to(dtype)
    step = step_class(model, **chosen)
    history = train.fit(step, [x, x[:1]], steps=2)
    assert len(history) == 2 and history.images == b + 1
    assert all(math.isfinite(v) for v in sum(history.steps.values(), []))
    after = list(model.parameters())
    assert all(p.isfinite().all() and p.dtype == torch.float32 for p in after)
    assert any(not torch.equal(p, q) for p, q in zip(before, after, strict=True))


@pytest.mark.parametrize(("model_class", "step_class"), FAMILIES)
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_bad_pixel_in_the_very_first_batch_leaves_the_model_as_it_was(
    model_class, step_class, bad
):
    """The decoder starts at the brightness of the first images: not at that of NaN."""
    model = model_class(3, 16, 1, 4)
    before = [p.detach().clone() for p in model.parameters()]
    x = torch.rand(4, 1, 16, 16)
    x[2, 0, 3, 3] = bad
    step, history = step_class(model), train.History()
    with pytest.raises(train.TrainingDiverged, match="step 1.*the images are finite"):
        train.fit(step, [x], steps=1, history=history)
    unchanged = zip(before, model.parameters(), strict=True)
    assert all(torch.equal(p, q) for p, q in unchanged)
    train.fit(step, [x.nan_to_num(0.5, 0.5, 0.5)], steps=2, history=history)
    assert len(history) == 2
    with pytest.raises(train.TrainingDiverged) as error:
        train.fit(step, [x], steps=1, history=history)
    assert error.value.history is history and len(history) == 2


@pytest.mark.parametrize(("model_class", "step_class"), FAMILIES)
def test_batches_that_no_step_can_take_are_named(model_class, step_class):
    model = model_class(3, 16, 1, 4)
    before = [p.detach().clone() for p in model.parameters()]
    for wrong, error, words in (
        (torch.rand(0, 1, 16, 16), ValueError, r"without images, \(0, 1, 16, 16\)"),
        (torch.rand(2, 3, 16, 16), ValueError, r"expected .* got \(2, 3, 16, 16\)"),
        (torch.rand(2, 1, 20, 20), ValueError, r"expected .* got \(2, 1, 20, 20\)"),
        (torch.rand(1, 16, 16), ValueError, r"expected images .* got \(1, 16, 16\)"),
        *[(torch.ones(2, 1, 16, 16).to(d), TypeError, f"floats.*{d}") for d in WHOLE],
    ):
        with pytest.raises(error, match=words):
            step_class(model)(wrong)
    unchanged = zip(before, model.parameters(), strict=True)
    assert all(torch.equal(p, q) for p, q in unchanged)
    for lr in (INF, NAN, -1e-3):
        with pytest.raises(ValueError, match=f"lr must be >= 0 and finite, got {lr}"):
            step_class(model, lr=lr)


def test_weights_of_penalties_and_counts_out_of_range_are_named():
    model = GAN(3, 16, 1, 4)
    for name, wrong in (
        ("r1", -1.0), ("r1", NAN), ("gp", INF), ("gp", -2), ("n_critic", 1.5)
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"{name} .*got {wrong}"):
            GANStep(model, **{name: wrong})


def test_an_empty_batch_is_named_and_the_history_kept():
    history = train.History()
    empty = [torch.zeros(3, 2), torch.zeros(0, 2)]
    with pytest.raises(ValueError, match="batch 2 has no images"):
        train.fit(lambda x: {"a": 1.0}, empty, epochs=1, history=history)
    assert history.steps == {"a": [1.0]} and history.epochs == {"a": [1.0]}


def test_a_bad_number_in_a_layer_is_refused_by_the_step():
    """Not only bad pixels: weights that were spoiled elsewhere are reported too."""
    model = Autoencoder(3, 16, 1, 4)
    with torch.no_grad():
        next(m for m in model.modules() if isinstance(m, nn.Linear)).weight[0, 0] = NAN
    with pytest.raises(FloatingPointError, match="loss = nan"):
        AutoencoderStep(model)(torch.rand(2, 1, 16, 16))


# ------------------------------------------------------------ odd points, odd gradients
@pytest.mark.parametrize(("model_class", "step_class"), FAMILIES)
def test_steps_take_tensors_of_inference_mode_and_name_what_cannot_learn(
    model_class, step_class
):
    model = model_class(3, 16, 1, 4)
    step, x = step_class(model), torch.rand(4, 1, 16, 16)
    with torch.inference_mode():
        made_there = x.clone()
    assert math.isfinite(sum(step(made_there).values()))
    for switch in (torch.no_grad, torch.inference_mode):
        with switch(), pytest.raises(RuntimeError, match="nothing here can learn"):
            step(x)
    for wrong in (x.numpy(), x.tolist(), None):
        with pytest.raises(TypeError, match=f"got {type(wrong).__name__}"):
            step(wrong)
    first, *_ = model.parameters()
    first.requires_grad_(False)
    before = first.clone()
    step(x)
    assert torch.equal(first, before)
    model.requires_grad_(False)
    with pytest.raises(RuntimeError, match="nothing here can learn"):
        step(x)


def test_each_step_within_autocast_uses_the_newest_weights():
    step, x = AutoencoderStep(Autoencoder(3, 16, 1, 4)), torch.rand(4, 1, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert step(x) != step(x)


def test_an_optimal_variance_that_is_no_number_or_zero():
    model = VAE(3, 16, 1, 4)
    step, x = VAEStep(model, s2="optimal"), torch.ones(4, 1, 16, 16)
    with torch.no_grad():
        list(model.decoder.parameters())[-1].fill_(50.0)  # draws exactly white
    step.steps_done = 1  # else the first batch sets the brightness
    values = step(x)
    assert values["squared_error"] == 0 and model.s2 > 0
    with torch.no_grad():
        model.encoder.layers[0].weight.fill_(NAN)
    with pytest.raises(train.TrainingDiverged, match="squared error per value = nan"):
        train.fit(step, [x], steps=1)


def test_weights_of_the_kl_out_of_range_are_named():
    for wrong in (-INF, NAN, INF, "1", None):
        with pytest.raises(ValueError, match=f"beta .*got {wrong!r}"):
            VAEStep(VAE(3, 16, 1, 4), beta=wrong)
