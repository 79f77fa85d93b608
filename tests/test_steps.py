"""A step does one right update: held against gradients worked out another way."""

import copy
import math

import pytest
import torch
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from gencourse.models import GAN, VAE, Autoencoder
from gencourse.steps import AutoencoderStep, GANStep, VAEStep

SMALL = dict(size=16, channels=1, width=4)
NAN, INF = float("nan"), float("inf")


def images(n=6, seed=0):
    return torch.rand(n, 1, 16, 16, generator=torch.Generator().manual_seed(seed))


def weights(module):
    return [p.detach().clone() for p in module.parameters()]


def changed(module, before):
    return [
        not torch.equal(p, b) for p, b in zip(module.parameters(), before, strict=True)
    ]


def adam_by_hand(module, loss, lr):
    """Adam's first step: each weight moves by lr * g / (|g| + eps)."""
    gradients = torch.autograd.grad(loss, list(module.parameters()))
    return [
        p.detach() - lr * g / (g.abs() + 1e-8)
        for p, g in zip(module.parameters(), gradients, strict=True)
    ]


def assert_same(module, expected):
    for p, e in zip(module.parameters(), expected, strict=True):
        torch.testing.assert_close(p.detach(), e, rtol=1e-4, atol=1e-6)


def test_autoencoder_step_is_adam_on_the_mean_squared_error_per_image():
    model, x = Autoencoder(3, **SMALL), images()
    twin = copy.deepcopy(model)
    twin.decoder.start_at(x)
    loss = (x - twin(x)).pow(2).sum() / len(x)
    expected = adam_by_hand(twin, loss, 1e-3)
    values = AutoencoderStep(model, lr=1e-3)(x)
    assert values == {"loss": pytest.approx(loss.item(), rel=1e-5)}
    assert_same(model, expected)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_vae_step_is_adam_on_nll_plus_beta_kl(likelihood):
    model, x = VAE(3, s2=0.07, **SMALL), images()
    x = (x > 0.5).float() if likelihood == "bernoulli" else x
    twin, beta = copy.deepcopy(model), 2.5
    twin.decoder.start_at(x)
    mu, logvar = twin.encode(x)
    q = Normal(mu, (logvar / 2).exp())
    eps = torch.randn(mu.shape, generator=torch.Generator().manual_seed(5))
    logits = twin.decoder(mu + q.stddev * eps)
    if likelihood == "gaussian":
        p = Independent(Normal(logits.sigmoid(), math.sqrt(0.07)), 3)
    else:
        p = Independent(Bernoulli(logits=logits), 3)
    recon = -p.log_prob(x).mean()
    kl = kl_divergence(q, Normal(torch.zeros(3), torch.ones(3))).sum(1).mean()
    expected = adam_by_hand(twin, recon + beta * kl, 1e-3)

    rng = torch.Generator().manual_seed(5)
    step = VAEStep(model, beta=beta, likelihood=likelihood, lr=1e-3, rng=rng)
    values = step(x)
    assert values["recon"] == pytest.approx(recon.item(), rel=1e-4)
    assert values["kl"] == pytest.approx(kl.item(), rel=1e-4)
    assert values["loss"] == pytest.approx((recon + beta * kl).item(), rel=1e-4)
    assert values["elbo"] == pytest.approx(-(recon + kl).item(), rel=1e-4)
    error = (x - logits.sigmoid()).pow(2).sum((1, 2, 3)).mean()
    assert values["squared_error"] == pytest.approx(error.item(), rel=1e-4)
    assert_same(model, expected)
    assert model.s2.item() == pytest.approx(0.07)


def test_optimal_s2_is_the_mean_squared_error_and_is_kept_in_the_model():
    model, x = VAE(3, **SMALL), images()
    step = VAEStep(model, s2="optimal", lr=0.0)
    values = step(x)
    d = x[0].numel()
    mse = values["squared_error"] / d
    assert model.s2.item() == pytest.approx(mse, rel=1e-5)
    best = d / 2 * (1 + math.log(2 * math.pi * mse))
    assert values["recon"] == pytest.approx(best, rel=1e-5)
    # Afterwards an average that follows slowly.
    mse_2 = step(1 - x)["squared_error"] / d
    assert model.s2.item() == pytest.approx(0.95 * mse + 0.05 * mse_2, rel=1e-4)
    assert step.model.settings["s2"] == 0.1


def test_gradient_with_optimal_s2_is_the_gradient_through_it():
    model, x = VAE(3, **SMALL).double(), images().double()
    twin = copy.deepcopy(model)
    twin.decoder.start_at(x)
    mu, logvar = twin.encode(x)
    rng = torch.Generator().manual_seed(5)
    eps = torch.randn(mu.shape, generator=rng, dtype=torch.float64)
    x_hat = twin.decode(mu + (logvar / 2).exp() * eps)
    d = x[0].numel()
    nll = d / 2 * torch.log(2 * math.pi * (x - x_hat).square().mean()) + d / 2
    kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(1).mean()
    gradients = torch.autograd.grad(nll + kl, list(twin.parameters()))
    VAEStep(model, s2="optimal", lr=0.0, rng=torch.Generator().manual_seed(5))(x)
    for p, g in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(p.grad, g)


def test_beta_may_be_a_function_of_the_steps_done():
    seen = []

    def warm_up(n):
        seen.append(n)
        return 0.5 * n

    step = VAEStep(VAE(3, **SMALL), beta=warm_up)
    for n in range(3):
        values = step(images())
        weighted = values["recon"] + 0.5 * n * values["kl"]
        assert values["loss"] == pytest.approx(weighted, rel=1e-5)
    assert seen == [0, 1, 2]


def test_vae_step_refuses_what_it_does_not_know():
    model = VAE(3, **SMALL)
    with pytest.raises(ValueError, match="s2 must be one of fixed, optimal; got 0.1"):
        VAEStep(model, s2=0.1)
    with pytest.raises(ValueError, match="likelihood must be .*got 'laplace'"):
        VAEStep(model, likelihood="laplace")
    with pytest.raises(ValueError, match="no variance"):
        VAEStep(model, likelihood="bernoulli", s2="optimal")


# --- the two players ------------------------------------------------------------------
def prob(logit):
    return 1 / (1 + torch.exp(-logit))


G_LOSSES = {
    "non-saturating": lambda logit: -prob(logit).log(),
    "saturating": lambda logit: (1 - prob(logit)).log(),
    "wasserstein": lambda logit: -logit,
}


@pytest.mark.parametrize("loss", G_LOSSES)
def test_gan_step_moves_each_player_down_its_own_loss_only(loss):
    model, x = GAN(3, **SMALL), images()
    twin = copy.deepcopy(model)
    z = torch.randn(6, 3, generator=torch.Generator().manual_seed(2))
    fake = torch.sigmoid(twin.generator(z))
    real_logit, fake_logit = twin.discriminator(x), twin.discriminator(fake.detach())
    if loss == "wasserstein":
        d_loss = fake_logit.mean() - real_logit.mean()
        d_real, d_fake = real_logit.mean().item(), fake_logit.mean().item()
    else:
        d_loss = -(prob(real_logit).log() + (1 - prob(fake_logit)).log()).mean()
        d_real, d_fake = prob(real_logit).mean().item(), prob(fake_logit).mean().item()
    d_expected = adam_by_hand(twin.discriminator, d_loss, 1e-3)
    with torch.no_grad():
        for p, e in zip(twin.discriminator.parameters(), d_expected, strict=True):
            p.copy_(e)
    g_loss = G_LOSSES[loss](twin.discriminator(fake)).mean()
    g_expected = adam_by_hand(twin.generator, g_loss, 1e-3)

    rng = torch.Generator().manual_seed(2)
    values = GANStep(model, loss=loss, gp=0.0, lr=1e-3, rng=rng)(x)
    assert values["d_loss"] == pytest.approx(d_loss.item(), rel=1e-4, abs=1e-6)
    assert values["g_loss"] == pytest.approx(g_loss.item(), rel=1e-4, abs=1e-6)
    assert values["d_real"] == pytest.approx(d_real, rel=1e-4, abs=1e-6)
    assert values["d_fake"] == pytest.approx(d_fake, rel=1e-4, abs=1e-6)
    assert_same(model.discriminator, d_expected)
    assert_same(model.generator, g_expected)


def test_penalties_enter_with_their_weights():
    def d_gradients(**options):
        torch.manual_seed(0)
        model = GAN(3, **SMALL).double()
        step = GANStep(model, lr=0.0, rng=torch.Generator().manual_seed(1), **options)
        values = step(images().double())
        return [p.grad.clone() for p in model.discriminator.parameters()], values, model

    plain, values, model = d_gradients()
    with_r1, values_r1, _ = d_gradients(r1=3.0)
    assert values_r1 == values  # d_loss is reported without penalties
    x = images().double().requires_grad_()
    (slope,) = torch.autograd.grad(model.discriminator(x).sum(), x, create_graph=True)
    penalty = 3.0 / 2 * slope.square().sum() / len(x)
    extra = torch.autograd.grad(
        penalty, list(model.discriminator.parameters()), allow_unused=True
    )
    for a, b, e in zip(plain, with_r1, extra, strict=True):
        torch.testing.assert_close(b - a, torch.zeros_like(a) if e is None else e)

    with_gp = d_gradients(gp=2.0)[0]
    twice = d_gradients(gp=4.0)[0]
    assert any(not torch.allclose(a, b) for a, b in zip(plain, with_gp, strict=True))
    for a, b, c in zip(plain, with_gp, twice, strict=True):
        torch.testing.assert_close(c - a, 2 * (b - a))


def test_a_lazy_r1_is_as_strong_on_average():
    torch.manual_seed(0)
    model = GAN(3, **SMALL).double()
    x, fake = images().double(), torch.rand_like(images()).double()
    step = GANStep(model, r1=3.0, r1_every=4)
    penalties = []
    for step.steps_done in range(8):
        values = step.measure_discriminator(x, fake)
        penalties.append((values["loss"] - values["d_loss"]).item())
    every = GANStep(model, r1=3.0).measure_discriminator(x, fake)
    strong = 4 * (every["loss"] - every["d_loss"]).item()
    assert penalties == pytest.approx([strong, 0, 0, 0] * 2)


def test_gradient_penalty_comes_with_wasserstein_unless_told_otherwise():
    model = GAN(3, **SMALL)
    assert GANStep(model, loss="wasserstein").gp == 10
    assert GANStep(model, loss="wasserstein", gp=0.0).gp == 0
    assert GANStep(model).gp == 0


def test_n_critic_rests_the_generator():
    model = GAN(3, **SMALL)
    step = GANStep(model, n_critic=3)
    moved, g_losses = [], []
    for _ in range(6):
        before, d_before = weights(model.generator), weights(model.discriminator)
        g_losses.append(step(images())["g_loss"])
        moved.append(any(changed(model.generator, before)))
        assert any(changed(model.discriminator, d_before))
    assert moved == [True, False, False, True, False, False]
    assert g_losses[0] == g_losses[1] == g_losses[2] != g_losses[3] == g_losses[5]


def test_gan_step_refuses_what_it_does_not_know():
    model = GAN(3, **SMALL)
    with pytest.raises(ValueError, match="loss must be one of .*got 'hinge'"):
        GANStep(model, loss="hinge")
    for name, wrong in (
        ("r1", -1.0), ("r1", NAN), ("gp", -2), ("n_critic", 0),
        ("r1_every", 0), ("ema", 1.0),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"{name} must be .*got {wrong}"):
            GANStep(model, **{name: wrong})


def test_each_weight_gets_one_gradient_in_its_own_turn():
    """So that a hook on each weight can average gradients over devices."""
    model, seen = GAN(3, **SMALL), []
    for name, weight in model.named_parameters():
        weight.register_post_accumulate_grad_hook(
            lambda _, name=name: seen.append(name)
        )
    GANStep(model, r1=1.0, gp=1.0)(images())
    names = [name for name, _ in model.named_parameters()]
    assert sorted(seen) == sorted(names)
    assert [name.startswith("generator") for name in seen] == sorted(
        name.startswith("generator") for name in names
    )


# --- what must not happen -------------------------------------------------------------
STEPS = [(Autoencoder, AutoencoderStep), (VAE, VAEStep), (GAN, GANStep)]


SCALED = {
    "from -1 to 1": lambda x: 2 * x - 1,
    "from 0 to 255": lambda x: 255 * x,
    "of an enlarged image that overshoots": lambda x: x + 0.05,
    "one pixel is NaN": lambda x: torch.where(x == x.max(), NAN, x),
    "one pixel is infinite": lambda x: torch.where(x == x.max(), INF, x),
}


@pytest.mark.parametrize(("model_class", "step_class"), STEPS)
@pytest.mark.parametrize("steps_done", [0, 1])
def test_images_outside_0_to_1_are_refused_before_they_touch_the_weights(
    model_class, step_class, steps_done
):
    model = model_class(3, **SMALL)
    step = step_class(model)
    for _ in range(steps_done):
        step(images())
    before, x = weights(model), images()
    x[0, 0, 0, 0], x[1, 0, 0, 0] = 0, 1
    for name, scale in SCALED.items():
        least, greatest = scale(x).min().item(), scale(x).max().item()
        got = f"got values from {least:.4g} to {greatest:.4g}"
        with pytest.raises(ValueError, match=rf"{got}.*\(x \+ 1\) / 2.*x / 255"):
            step(scale(x))
            print(f"images {name} were not refused")
    assert not any(changed(model, before))
    step((1 + 1e-6) * x)  # as rounding does
    assert all(p.isfinite().all() for p in model.parameters())


def test_a_bernoulli_elbo_is_never_positive():
    x, values = torch.zeros(4, 1, 16, 16), {}
    step = VAEStep(VAE(2, **SMALL), likelihood="bernoulli")
    for _ in range(30):
        values = step(x)
    assert -50 < values["elbo"] < 0


@pytest.mark.parametrize(("model_class", "step_class"), STEPS)
def test_batches_that_no_step_can_take_are_named(model_class, step_class):
    model = model_class(3, **SMALL)
    before = weights(model)
    for wrong, error, words in (
        (torch.rand(0, 1, 16, 16), ValueError, r"without images, \(0, 1, 16, 16\)"),
        (torch.rand(2, 3, 16, 16), ValueError, r"expected .* got \(2, 3, 16, 16\)"),
        (torch.rand(2, 1, 20, 20), ValueError, r"expected .* got \(2, 1, 20, 20\)"),
        (torch.rand(1, 16, 16), ValueError, r"expected .* got \(1, 16, 16\)"),
        (torch.ones(2, 1, 16, 16).byte(), TypeError, "floats.*uint8.*x / 255"),
        (torch.ones(2, 1, 16, 16).bool(), TypeError, "floats.*bool"),
        (images().numpy(), TypeError, "got ndarray"),
    ):
        with pytest.raises(error, match=words):
            step_class(model)(wrong)
    assert not any(changed(model, before))


def test_a_loss_that_is_no_number_stops_the_step_before_it_touches_the_weights():
    for beta, weight in ((NAN, 0.0), (1.0, NAN)):
        model = VAE(3, **SMALL)
        with torch.no_grad():
            model.encoder.layers[0].weight[0, 0] += weight
        before = weights(model.decoder)
        step = VAEStep(model, beta=lambda _, beta=beta: beta)
        step.steps_done = 1  # else the decoder starts at the brightness of the images
        with pytest.raises(FloatingPointError, match="loss = nan"):
            step(images())
        assert not any(changed(model.decoder, before))


def test_an_optimal_variance_that_is_no_number_or_zero():
    model, x = VAE(3, **SMALL), torch.ones(4, 1, 16, 16)
    step = VAEStep(model, s2="optimal")
    with torch.no_grad():
        list(model.decoder.parameters())[-1].fill_(50.0)  # draws exactly white
    assert step(x)["squared_error"] == 0 and model.s2 > 0
    with torch.no_grad():
        model.encoder.layers[0].weight.fill_(NAN)
    with pytest.raises(FloatingPointError, match="squared error per value = nan"):
        step(x)
    assert model.s2.isfinite()


def test_frozen_weights_stay_as_they_are():
    model = Autoencoder(3, **SMALL)
    model.encoder.requires_grad_(False)
    frozen, learning = weights(model.encoder), weights(model.decoder)
    AutoencoderStep(model)(images())
    assert not any(changed(model.encoder, frozen))
    assert all(changed(model.decoder, learning))


def test_each_step_within_autocast_uses_the_newest_weights():
    step = AutoencoderStep(Autoencoder(3, **SMALL))
    with torch.autocast("cpu", torch.bfloat16):
        assert step(images()) != step(images())


OPTIONS = [
    *[(Autoencoder, AutoencoderStep, {}), (VAE, VAEStep, {}), (GAN, GANStep, {})],
    (VAE, VAEStep, {"s2": "optimal"}),
    (VAE, VAEStep, {"likelihood": "bernoulli"}),
    (VAE, VAEStep, {"beta": lambda n: n}),
    (GAN, GANStep, {"loss": "wasserstein", "n_critic": 2}),
    (GAN, GANStep, {"r1": 1.0, "ema": 0.9}),
    (GAN, GANStep, {"loss": "saturating"}),
]


@pytest.mark.parametrize(("model_class", "step_class", "options"), OPTIONS)
def test_steps_on_any_images_keep_the_weights_finite(model_class, step_class, options):
    for b, size, channels, fill, dtype in (
        (1, 16, 1, None, torch.float32),
        (5, 20, 3, None, torch.float64),
        (2, 28, 1, None, torch.float16),
        (3, 16, 3, 0.0, torch.float32),
        (3, 16, 1, 0.5, torch.float32),
        (3, 20, 1, 1.0, torch.float16),
    ):
        model = model_class(2, size, channels, 3)
        before = weights(model)
        x = torch.rand(b, channels, size, size) if fill is None else fill
        x = torch.as_tensor(x).expand(b, channels, size, size).to(dtype)
        step = step_class(model, **options)
        values = step(x), step(x[:1])
        assert all(math.isfinite(v) for part in values for v in part.values())
        after = list(model.parameters())
        assert all(p.isfinite().all() and p.dtype == torch.float32 for p in after)
        assert any(changed(model, before))


def test_a_bad_gradient_of_a_finite_loss_stops_the_step_too():
    class Root(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return x + self.a.abs().sqrt()  # slope without bound at 0

    model = Root()
    with pytest.raises(FloatingPointError, match="norm of its gradient = (nan|inf)"):
        AutoencoderStep(model)(images())
    assert model.a.item() == 0


@pytest.mark.parametrize(("model_class", "step_class"), STEPS)
def test_each_model_learns_within_seconds(model_class, step_class):
    # Left half or upper half white: easy, but impossible for a step that is wrong.
    torch.manual_seed(0)
    x = torch.zeros(2, 1, 16, 16)
    x[0, 0, :, :8] = x[1, 0, :8] = 1
    x = x.repeat(8, 1, 1, 1)
    model = model_class(4, **SMALL)
    steadier = {"betas": (0.5, 0.99)} if model_class is GAN else {}
    step = step_class(model, lr=2e-3, **steadier)
    first = [step(x) for _ in range(3)]
    last = [step(x) for _ in range(300)][-20:]

    def mean(values, name):
        return sum(v[name] for v in values) / len(values)

    if model_class is Autoencoder:
        assert mean(last, "loss") < 0.25 * mean(first, "loss")
    elif model_class is VAE:
        assert mean(last, "squared_error") < 0.5 * mean(first, "squared_error")
        assert mean(last, "elbo") > mean(first, "elbo")
    else:
        # Each generated image comes near one of the two, if perhaps always the same.
        def distance(gan):
            return torch.cdist(gan.sample(64).flatten(1), x[:2].flatten(1)).amin(1)

        untrained = model_class(4, **SMALL)
        assert distance(model).mean() < 0.6 * distance(untrained).mean()


@pytest.mark.parametrize("kind", ["autoencoder", "vae"])
@pytest.mark.parametrize("seed", [0, 1])
def test_mostly_black_images_do_not_kill_the_decoder(kind, seed):
    """White strokes on black, as in MNIST: the best constant image is soon beaten."""
    torch.manual_seed(seed)
    x = torch.zeros(512, 1, 32, 32)
    for image, place in zip(x, torch.randint(6, 22, (512, 3)), strict=True):
        row, column, length = place.tolist()
        image[0, row : row + 3, column : column + 3 + length // 2] = 1
        image[0, row : row + 3 + length // 2, column : column + 3] = 1
    if kind == "vae":
        step = VAEStep(VAE(16, channels=1), s2="optimal")
    else:
        step = AutoencoderStep(Autoencoder(16, channels=1))
    for _ in range(12):
        for batch in torch.randperm(512).split(32):
            values = step(x[batch])
    constant = (x - x.mean(0)).square().flatten(1).sum(1).mean()
    error = values["loss" if kind == "autoencoder" else "squared_error"]
    assert error < 0.7 * constant, f"{error} against {constant} of the mean image"


def test_the_average_generator_follows_the_latest_one():
    model = GAN(3, **SMALL)
    step = GANStep(model, ema=0.9)
    expected = weights(model.generator)
    # A young average follows quickly, an old one by 1 - ema.
    for done, share in ((0, 0.9), (5, 0.6), (1000, 0.1)):
        step.steps_done = done
        step(images(seed=done))
        for old, new in zip(expected, model.generator.parameters(), strict=True):
            old.lerp_(new.detach(), share)
    for found, want in zip(step.average.parameters(), expected, strict=True):
        torch.testing.assert_close(found, want)
    step.use_average()
    for found, want in zip(model.generator.parameters(), expected, strict=True):
        torch.testing.assert_close(found, want)


def test_without_ema_the_average_is_the_generator_and_costs_nothing():
    model = GAN(3, **SMALL)
    step = GANStep(model)
    step(images())
    assert step.average is model.generator
    after = weights(model.generator)
    step.use_average()
    assert not any(changed(model.generator, after))
