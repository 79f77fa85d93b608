"""Lesson 06's network, model, loss and step, against closed forms."""

import copy
import math

import pytest
import torch

from gencourse import losses, store
from gencourse.models import Flow, PixelFlow, integrate, score_of, z_hat_of
from gencourse.nets import Denoiser
from gencourse.steps import FlowStep

SMALL = dict(latent_dim=3, size=16, channels=1, width=4)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def flow(conditions=0, seed=0):
    """An untrained flow that moves something: its last layer is zero otherwise."""
    torch.manual_seed(seed)
    model = Flow(3, width=16, conditions=conditions).double()
    torch.nn.init.normal_(model.net.layers[-1].weight)
    model.start_at(5 + 2 * torch.randn(500, 3, dtype=torch.float64))
    return model


# --- the network ----------------------------------------------------------------------


def test_a_new_denoiser_says_that_nothing_moves():
    z, t = torch.randn(5, 3), torch.rand(5, 1)
    assert not Denoiser(3)(z, t).any()
    assert not Flow(3).velocity(z, t).any()


def test_a_denoiser_sees_the_vector_the_time_and_the_words():
    net = flow(conditions=2).net
    z, t = torch.randn(1, 3).double(), torch.full((1, 1), 0.3).double()
    words, v = torch.zeros(1, 2).double(), net(z, t)
    assert torch.equal(net(z, t, words), v)  # zeros ask for anything
    assert not torch.allclose(net(z + 0.1, t), v)
    assert not torch.allclose(net(z, t + 0.01), v)
    assert not torch.allclose(net(z, t, words + 1), v)


@pytest.mark.parametrize("name", ["dim", "width", "conditions"])
@pytest.mark.parametrize("value", [-1, 2.5, True])
def test_impossible_denoisers_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"{name} must be .*got {value!r}"):
        Denoiser(**({"dim": 3} | {name: value}))


@pytest.mark.parametrize(
    ("which", "wrong"), [("z_t", (5, 4)), ("t", (5,)), ("words", (5, 3))]
)
def test_wrong_inputs_are_named_with_what_was_expected(which, wrong):
    shapes = {"z_t": (5, 3), "t": (5, 1), "words": (5, 2)}
    inputs = {k: torch.zeros(v) for k, v in (shapes | {which: wrong}).items()}
    with pytest.raises(ValueError, match="expected .* of shape") as error:
        Denoiser(3, conditions=2)(**inputs)
    assert str(wrong) in str(error.value) and str(shapes[which]) in str(error.value)


# --- the integral ---------------------------------------------------------------------


def test_integration_is_exact_where_it_must_be():
    z = torch.randn(4, 2, dtype=torch.float64)
    straight = torch.tensor([2.0, -1.0], dtype=torch.float64)
    for heun in (False, True):
        end = integrate(lambda z, t: straight.expand_as(z), z, 1, 0, 3, heun)
        torch.testing.assert_close(end, z - straight)
    # Heun's method integrates a velocity that is linear in t exactly.
    end = integrate(lambda z, t: 2 * t.expand_as(z), z, 0, 1, 3)
    torch.testing.assert_close(end, z + 1)


@pytest.mark.parametrize(("heun", "order"), [(False, 1), (True, 2)])
def test_error_falls_with_the_order_of_the_method(heun, order):
    z = torch.ones(1, 1, dtype=torch.float64)
    error = [
        abs(integrate(lambda z, t: z, z, 0, 1, n, heun).item() - math.e)
        for n in (50, 100)
    ]
    assert error[0] / error[1] == pytest.approx(2**order, rel=0.05)


def test_euler_never_asks_at_the_end_and_heun_does():
    for heun, last in ((False, 0.25), (True, 0.0)):
        asked = []
        integrate(
            lambda z, t, asked=asked: asked.append(t[0].item()) or z,
            torch.ones(1, 1), 1, 0, 4, heun,
        )  # fmt: skip
        assert asked[0] == 1 and min(asked) == last


@pytest.mark.parametrize("steps", [0, -1, 2.0, True])
def test_impossible_numbers_of_steps_are_refused(steps):
    with pytest.raises(ValueError, match=f"steps must be .*got {steps!r}"):
        integrate(lambda z, t: z, torch.ones(1, 1), 1, 0, steps)


# --- the model ------------------------------------------------------------------------


def test_the_exact_flow_between_gaussians():
    # Codes N(m, s^2): every z_t is Gaussian, so the best velocity is known, and the
    # flow is the straight map from N(0, 1) to N(m, s^2).
    m, s = 3.0, 0.5
    z = torch.randn(1000, 1, dtype=torch.float64, generator=rng())

    def v(z_t, t):
        variance = (1 - t) ** 2 * s**2 + t**2
        slope = (t - (1 - t) * s**2) / variance
        return -m + slope * (z_t - (1 - t) * m)

    torch.testing.assert_close(integrate(v, z, 1, 0, 200), m + s * z, rtol=0, atol=1e-4)
    # The score of N((1 - t) m, (1 - t)^2 s^2 + t^2) from the same velocity.
    t = torch.full((1000, 1), 0.4, dtype=torch.float64)
    z_t = z.clone().requires_grad_()
    variance = torch.tensor(0.36 * s**2 + 0.16, dtype=torch.float64)
    normal = torch.distributions.Normal(0.6 * m, variance.sqrt())
    (gradient,) = torch.autograd.grad(normal.log_prob(z_t).sum(), z_t)
    torch.testing.assert_close(score_of(v(z_t, t), z_t, t), gradient)


def test_conversions_give_back_what_made_the_noisy_code():
    z, eps = torch.randn(2, 6, 3, dtype=torch.float64, generator=rng())
    t = torch.rand(6, 1, dtype=torch.float64, generator=rng(1))
    z_t = (1 - t) * z + t * eps
    torch.testing.assert_close(z_hat_of(eps - z, z_t, t), z)
    torch.testing.assert_close(score_of(eps - z, z_t, t), -eps / t)


def test_codes_are_normalized_and_restored():
    model = flow()
    codes = 5 + 2 * torch.randn(9, 3, dtype=torch.float64)
    torch.testing.assert_close(model.restore(model.normalize(codes)), codes)
    model.start_at(codes)
    z = model.normalize(codes)
    torch.testing.assert_close(z.mean(0), torch.zeros(3).double())
    torch.testing.assert_close(z.std(0), torch.ones(3).double())


def test_samples_are_restored_follow_the_seed_and_have_no_gradient():
    model = Flow(3)
    model.start_at(torch.tensor([[3.0, 0.0, 1.0], [5.0, 8.0, 1.0]]))
    eps = model.prior(7, rng())  # an untrained flow carries it nowhere
    torch.testing.assert_close(model.sample(7, rng()), model.mean + model.std * eps)
    model = flow()
    assert torch.equal(model.sample(4, rng(1)), model.sample(4, rng(1)))
    assert not torch.equal(model.sample(4, rng(1)), model.sample(4, rng(2)))
    assert not model.sample(1).requires_grad


def test_guidance_goes_from_nothing_through_the_words_and_beyond():
    model = flow(conditions=2)
    z, t = torch.randn(4, 3).double(), torch.rand(4, 1).double()
    words = torch.tensor([1.0, 0.0])
    nothing = model.velocity(z, t)
    v = {w: model.velocity(z, t, words, w) for w in (0, 1, 3)}
    torch.testing.assert_close(v[0], nothing)
    torch.testing.assert_close(v[1], model.net(z, t, words.expand(4, 2).double()))
    torch.testing.assert_close(v[3], nothing + 3 * (v[1] - nothing))
    assert not torch.allclose(v[0], v[1])
    rows = model.velocity(z, t, words.expand(4, 2), 3)  # words for each example
    torch.testing.assert_close(rows, v[3])


def test_noise_and_back():
    model = flow(conditions=2)
    z = model.normalize(model.sample(5, rng()))
    words = torch.tensor([0.0, 1.0])
    eps = model.carry(z, 0, 1, words, steps=200)
    torch.testing.assert_close(
        model.carry(eps, 1, 0, words, steps=200), z, rtol=0, atol=1e-3
    )
    half = model.carry(z, 0, 0.5, words, steps=100)
    torch.testing.assert_close(
        model.carry(half, 0.5, 1, words, steps=100), eps, rtol=0, atol=1e-10
    )


def test_pixel_flow_points_away_from_its_guess():
    model = PixelFlow(**SMALL)
    x_t, t = torch.randn(4, 1, 16, 16), torch.full((4, 1), 0.5)
    x_hat = model.clean(x_t, t)
    assert x_hat.min() >= -1 and x_hat.max() <= 1
    v = model.velocity(x_t, t)
    torch.testing.assert_close(z_hat_of(v, x_t, t.view(4, 1, 1, 1)), x_hat)
    # One step of Euler from pure noise ends at the guess.
    image = model.sample(2, rng(), steps=1, heun=False)
    guess = model.clean(model.prior(2, rng()), torch.ones(2, 1))
    torch.testing.assert_close(image, model.restore(guess))


@pytest.mark.parametrize(("start", "end", "heun"), [(1, 0, True), (0, 1, False)])
def test_pixel_flow_has_no_velocity_without_noise(start, end, heun):
    model = PixelFlow(**SMALL)
    with pytest.raises(ValueError, match=r"t = 0.*heun=False"):
        model.carry(model.prior(2, rng()), start, end, steps=3, heun=heun)
    assert model.sample(2, rng(), steps=3, heun=False).isfinite().all()


@pytest.mark.parametrize(
    "make", [lambda: Flow(3, 16, 2), lambda: PixelFlow(**SMALL)], ids=["Flow", "pixels"]
)
def test_flows_are_stored_whole(make, tmp_path):
    model = make()
    torch.nn.init.normal_(model.net.layers[-1].weight)
    model.start_at(torch.rand(9, *model.mean.shape))
    store.save(model, tmp_path / "m")
    again = store.load(type(model), tmp_path / "m")
    options = dict(steps=3, heun=False)
    assert torch.equal(
        model.sample(3, rng(), **options), again.sample(3, rng(), **options)
    )
    assert torch.equal(model.mean, again.mean) and torch.equal(model.std, again.std)


# --- the loss and the step ------------------------------------------------------------


def test_loss_against_one_worked_by_hand():
    z, eps = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[3.0, 1.0]] * 2)
    v = torch.tensor([[2.0, -1.0], [0.0, 0.0]])  # eps - z in the first row
    assert losses.flow_matching_loss(v, z, eps).tolist() == [0.0, 10.0]
    with pytest.raises(ValueError, match=r"v \(2, 2\), z \(2, 2\), eps \(1, 2\)"):
        losses.flow_matching_loss(v, z, eps[:1])


def test_the_gradient_vanishes_at_the_mean_velocity():
    # One place, many pairs that lead through it: their mean is the best answer, and
    # the loss that is left is their variance.
    z, eps = torch.randn(2, 1000, 3, dtype=torch.float64, generator=rng())
    best = (eps - z).mean(0, keepdim=True).requires_grad_()
    loss = losses.flow_matching_loss(best.expand_as(z), z, eps).mean()
    (gradient,) = torch.autograd.grad(loss, best)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))
    variance = (eps - z).var(0, unbiased=False).sum()
    torch.testing.assert_close(loss.detach(), variance)


def test_a_step_is_adam_on_the_loss_at_a_random_time():
    model = flow(conditions=2)
    twin = copy.deepcopy(model)
    codes = 5 + torch.randn(8, 3, dtype=torch.float64)
    words = (torch.rand(8, 2) > 0.5).double()
    step = FlowStep(model, drop=0.5, least_t=0.2, lr=1e-3, rng=rng(4))
    loss = step(torch.cat([codes, words], 1))["loss"]

    draws = rng(4)
    t = 0.2 + 0.8 * torch.rand(8, 1, generator=draws).double()
    z, eps = (
        (codes - twin.mean) / twin.std,
        torch.randn(8, 3, generator=draws, dtype=torch.float64),
    )
    kept = torch.rand(8, 1, generator=draws) >= 0.5
    assert 0 < kept.sum() < 8
    v = twin.net((1 - t) * z + t * eps, t, words * kept)
    expected = (v - eps + z).square().sum() / 8
    assert loss == pytest.approx(expected.item())
    gradients = torch.autograd.grad(expected, list(twin.parameters()))
    for new, old, g in zip(
        model.parameters(), twin.parameters(), gradients, strict=True
    ):
        moved = old - 1e-3 * g / (g.abs() + 1e-8)
        torch.testing.assert_close(new, moved, rtol=1e-4, atol=1e-7)


def test_a_young_average_follows_fast_and_an_old_one_slowly():
    model = Flow(2, 8)
    step = FlowStep(model, ema=0.9)
    for n in range(100):
        before = copy.deepcopy(step.average.state_dict())
        step(torch.randn(16, 2))
        share = max(0.1, 9 / (10 + n))
        latest = dict(model.named_parameters())
        for name, average in step.average.named_parameters():
            expected = (1 - share) * before[name] + share * latest[name]
            torch.testing.assert_close(average, expected)
    step.use_average()
    for weight, average in zip(
        model.parameters(), step.average.parameters(), strict=True
    ):
        assert torch.equal(weight, average)


@pytest.mark.parametrize("name", ["drop", "least_t", "ema"])
@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_impossible_shares_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"{name} must be .*got {value!r}"):
        FlowStep(Flow(2), **{name: value})


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_flow_learns_two_places_and_their_words(seed):
    # Two points; the word says which. No mixture, no mode lost, words obeyed.
    torch.manual_seed(seed)
    which = torch.rand(512, 1).round()
    codes = torch.cat([10 + 4 * which, 2 - which], 1)
    words = torch.cat([which, 1 - which], 1)
    model = Flow(2, 64, conditions=2)
    model.start_at(codes)
    step = FlowStep(model)
    untrained = model.sample(200, rng(seed))
    for _ in range(1500):
        rows = torch.randint(512, (128,))
        step(torch.cat([codes, words], 1)[rows])
    step.use_average()

    def near(samples):  # the share near each of the two
        ends = torch.tensor([[10.0, 2.0], [14.0, 1.0]])
        return (
            (torch.cdist(samples / model.std, ends / model.std) < 0.5).float().mean(0)
        )

    free = near(model.sample(200, rng(seed)))
    told = near(model.sample(200, rng(seed), words=torch.tensor([1.0, 0.0])))
    assert near(untrained).sum() < 0.5
    assert free.sum() > 0.85 and free.min() > 0.3
    assert told[1] > 0.85
