"""Every loss against an oracle that shares no code with it, in float64."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from gencourse import losses

B, SHAPE = 5, (3, 4, 4)


def randn(*shape, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def close(a, b, tol=1e-12):
    torch.testing.assert_close(a, b, rtol=tol, atol=tol)


def normal(mean, deviation):
    # torch.distributions would take plain numbers for float32.
    return Normal(
        torch.as_tensor(mean, dtype=torch.float64),
        torch.tensor(deviation, dtype=torch.float64),
    )


def images(seed):
    return torch.sigmoid(randn(B, *SHAPE, seed=seed))


def finite_difference(f, x, h=1e-6):
    """df/dx of a scalar function, value by value."""
    grad = torch.zeros_like(x)
    flat, out = x.reshape(-1), grad.reshape(-1)
    for i in range(len(flat)):
        step = torch.zeros_like(flat)
        step[i] = h
        up = f((flat + step).view_as(x))
        out[i] = (up - f((flat - step).view_as(x))) / (2 * h)
    return grad


# --- reconstruction -------------------------------------------------------------------
def test_squared_error_is_a_sum_of_squares_per_image():
    x, x_hat = images(0), images(1)
    by_hand = [
        sum(
            (a - b) ** 2
            for a, b in zip(x[i].flatten(), x_hat[i].flatten(), strict=True)
        )
        for i in range(B)
    ]
    close(losses.squared_error(x, x_hat), torch.stack(by_hand))
    assert losses.squared_error(x, x).eq(0).all()


def test_squared_error_has_the_gradient_of_the_text():
    x, x_hat = images(0), images(1).requires_grad_()
    losses.squared_error(x, x_hat).sum().backward()
    close(x_hat.grad, 2 * (x_hat.detach() - x))


@pytest.mark.parametrize("s2", [0.02, 0.5, 3.0])
def test_gaussian_nll_is_that_of_torch_distributions(s2):
    x, x_hat = images(0), images(1)
    oracle = -Independent(normal(x_hat, s2**0.5), 3).log_prob(x)
    close(losses.gaussian_nll(x, x_hat, s2), oracle)
    as_tensor = torch.tensor(s2, dtype=torch.float64)
    close(losses.gaussian_nll(x, x_hat, as_tensor), oracle)


def test_gaussian_nll_is_differentiable_in_s2_with_its_minimum_at_the_mean_error():
    x, x_hat = images(0), images(1)
    best = (x - x_hat).square().mean(dim=(1, 2, 3))[0]
    s2 = best.clone().requires_grad_()
    losses.gaussian_nll(x[:1], x_hat[:1], s2).sum().backward()
    assert abs(s2.grad.item()) < 1e-9
    assert gradcheck(lambda s: losses.gaussian_nll(x, x_hat, s), (s2 * 2,))


@pytest.mark.parametrize("s2", [0.0, -1.0, float("nan"), float("inf")])
def test_gaussian_nll_refuses_what_is_no_variance(s2):
    with pytest.raises(ValueError, match="variance"):
        losses.gaussian_nll(images(0), images(1), s2)


def test_gaussian_nll_refuses_one_variance_per_example():
    with pytest.raises(ValueError, match="one number"):
        losses.gaussian_nll(images(0), images(1), torch.ones(B, dtype=torch.float64))


def test_bernoulli_nll_is_that_of_torch_distributions():
    x, logits = (images(0) > 0.5).double(), 3 * randn(B, *SHAPE, seed=1)
    oracle = -Independent(Bernoulli(logits=logits), 3).log_prob(x)
    close(losses.bernoulli_nll(x, logits), oracle)


def test_bernoulli_nll_on_gray_levels_is_lowest_at_the_entropy():
    x = images(0)
    entropy = -(x * x.log() + (1 - x) * (1 - x).log()).sum((1, 2, 3))
    close(losses.bernoulli_nll(x, torch.logit(x)), entropy)
    assert (losses.bernoulli_nll(x, torch.logit(x) + 0.1) > entropy).all()
    assert (losses.bernoulli_nll(x, torch.logit(x) - 0.1) > entropy).all()


def test_bernoulli_nll_survives_certain_logits():
    x = torch.ones(1, 2, dtype=torch.float64)
    logits = torch.tensor([[-1e4, 1e4]], dtype=torch.float64)
    close(losses.bernoulli_nll(x, logits), torch.tensor([1e4], dtype=torch.float64))


# --- the variational autoencoder ------------------------------------------------------
def test_kl_is_that_of_torch_distributions_and_its_gradient_too():
    mu, logvar = 2 * randn(B, 4), randn(B, 4, seed=1)
    q = Normal(mu, (0.5 * logvar).exp())
    oracle = kl_divergence(q, Normal(torch.zeros_like(mu), torch.ones_like(mu)))
    close(losses.kl_per_dimension(mu, logvar), oracle)
    close(losses.kl_to_prior(mu, logvar), oracle.sum(1))
    mu, logvar = mu.requires_grad_(), logvar.requires_grad_()
    losses.kl_to_prior(mu, logvar).sum().backward()
    close(mu.grad, mu.detach())
    close(logvar.grad, (logvar.detach().exp() - 1) / 2)


def test_kl_agrees_with_numerical_integration():
    mu, logvar = torch.tensor([[0.7]]).double(), torch.tensor([[-1.1]]).double()
    z = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    q, p = normal(0.7, math.exp(-0.55)), normal(0.0, 1.0)
    log_q = q.log_prob(z)
    integral = torch.trapezoid(log_q.exp() * (log_q - p.log_prob(z)), z)
    close(losses.kl_to_prior(mu, logvar)[0], integral, 1e-8)


def test_kl_is_zero_at_the_prior_only_and_accurate_beside_it():
    zero = torch.zeros(1, 3)
    assert losses.kl_to_prior(zero, zero).item() == 0
    near = torch.full((1, 3), 1e-3)
    expected = 3 * 0.5 * (math.expm1(1e-3) - 1e-3)
    assert losses.kl_to_prior(zero, near).item() == pytest.approx(expected, rel=1e-3)


def test_elbo_is_minus_both():
    nll, kl = randn(B), randn(B, seed=1).abs()
    close(losses.elbo(nll, kl), -(nll + kl))


def test_log_normal_is_that_of_torch_distributions():
    z, mu, logvar = randn(7, B, 4), randn(B, 4, seed=1), randn(B, 4, seed=2)
    oracle = Independent(Normal(mu, (logvar / 2).exp()), 1)
    close(losses.log_normal(z, mu, logvar), oracle.log_prob(z))
    close(losses.log_normal(z), normal(0.0, 1.0).log_prob(z).sum(-1))
    with pytest.raises(ValueError, match="mu"):
        losses.log_normal(z, mu[:1], logvar)


def test_bounds_on_a_model_whose_log_p_is_known():
    # z ~ N(0, 1), x | z ~ N(w z, s2): then x ~ N(0, w^2 + s2) and the posterior is
    # N(w x / (w^2 + s2), s2 / (w^2 + s2)).
    w, s2, x = 1.3, 0.4, torch.tensor([[0.9], [-2.0]], dtype=torch.float64)
    log_p = normal(0.0, (w**2 + s2) ** 0.5).log_prob(x)[:, 0]
    mean, variance = w * x / (w**2 + s2), s2 / (w**2 + s2)
    logvar = torch.full_like(x, math.log(variance))

    def log_w(mu, logvar, z):
        log_lik = normal(w * z, s2**0.5).log_prob(x)[..., 0]
        return log_lik + losses.log_normal(z) - losses.log_normal(z, mu, logvar)

    # With the true posterior every weight is p(x), whatever z.
    z = mean + variance**0.5 * randn(3, 2, 1)
    bound = losses.importance_weighted_bound(log_w(mean, logvar, z))
    close(bound, log_p, 1e-10)

    # With a wrong one the bound rises with K from the ELBO to log p(x).
    mu, logvar = mean + 0.3, logvar + 0.5
    z = mu + (0.5 * logvar).exp() * randn(60_000, 2, 1)
    weights = log_w(mu, logvar, z)
    elbo = torch.stack([losses.importance_weighted_bound(k[None]) for k in weights[:9]])
    close(elbo, weights[:9])
    averages = [
        torch.stack(
            [losses.importance_weighted_bound(part) for part in weights.split(k)]
        ).mean(0)
        for k in (1, 5, 50)
    ]
    nll = -(normal(w * mu, s2**0.5).log_prob(x)[:, 0])
    nll = nll + w**2 * logvar.exp()[:, 0] / (2 * s2)  # E_q, in closed form
    exact = losses.elbo(nll, losses.kl_to_prior(mu, logvar))
    close(averages[0], exact, 2e-2)
    assert (averages[0] < averages[1] - 0.01).all()
    assert (averages[1] < averages[2]).all()
    close(averages[2], log_p, 2e-2)


def test_importance_weighted_bound_does_not_underflow():
    log_w = torch.tensor([[-1000.0], [-1001.0]], dtype=torch.float64)
    expected = -1000 + math.log((1 + math.exp(-1)) / 2)
    assert losses.importance_weighted_bound(log_w).item() == pytest.approx(expected)


# --- the two players ------------------------------------------------------------------
def test_player_losses_are_logs_of_probabilities():
    real, fake = randn(B), randn(B, seed=1)
    d_real, d_fake = 1 / (1 + (-real).exp()), 1 / (1 + (-fake).exp())
    close(losses.discriminator_loss(real, fake), -d_real.log() - (1 - d_fake).log())
    close(losses.generator_loss(fake), -d_fake.log())
    close(losses.saturating_generator_loss(fake), (1 - d_fake).log())
    close(losses.critic_loss(real, fake), fake - real)
    close(losses.critic_generator_loss(fake), -fake)
    zero = torch.zeros(B, dtype=torch.float64)
    close(losses.discriminator_loss(zero, zero), zero + math.log(4))


def test_generator_losses_have_the_gradients_of_the_text():
    logits = torch.linspace(-6, 6, 13, dtype=torch.float64, requires_grad=True)
    d = torch.sigmoid(logits.detach())
    for loss, expected in (
        (losses.generator_loss, d - 1),
        (losses.saturating_generator_loss, -d),
    ):
        (grad,) = torch.autograd.grad(loss(logits).sum(), logits)
        close(grad, expected)


def test_player_losses_survive_certain_logits():
    big = torch.tensor([1e4], dtype=torch.float64)
    assert losses.discriminator_loss(big, -big).item() == 0
    assert losses.discriminator_loss(-big, big).item() == 2e4
    assert losses.generator_loss(-big).item() == 1e4
    assert losses.saturating_generator_loss(big).item() == -1e4


class Critic(nn.Module):
    """A small smooth critic whose input gradient is not constant."""

    def __init__(self):
        super().__init__()
        d = math.prod(SHAPE)
        self.a = nn.Parameter(randn(d, 6, seed=3) / 4)
        self.b = nn.Parameter(randn(6, seed=4))

    def forward(self, x):
        return torch.tanh(x.flatten(1) @ self.a) @ self.b


def by_differences(critic, x):
    """Each image's gradient, one pixel at a time."""
    with torch.no_grad():
        rows = [
            finite_difference(lambda v: critic(v[None])[0], image).flatten()
            for image in x
        ]
    return torch.stack(rows)


def test_gradient_penalty_is_that_of_finite_differences():
    critic, real, fake = Critic(), images(0), images(1)
    penalty = losses.gradient_penalty(
        critic, real, fake, torch.Generator().manual_seed(7)
    )
    alpha = torch.rand(
        B, generator=torch.Generator().manual_seed(7), dtype=torch.float64
    )
    mix = torch.stack(
        [a * r + (1 - a) * f for a, r, f in zip(alpha, real, fake, strict=True)]
    )
    norms = by_differences(critic, mix).square().sum(1).sqrt()
    close(penalty.detach(), (norms - 1) ** 2, 1e-6)


def test_r1_penalty_is_that_of_finite_differences_without_gamma_half():
    critic, real = Critic(), images(0)
    oracle = by_differences(critic, real).square().sum(1)
    close(losses.r1_penalty(critic, real).detach(), oracle, 1e-6)


@pytest.mark.parametrize("kind", ["gp", "r1"])
def test_penalties_are_differentiable_in_the_weights(kind):
    critic, real, fake = Critic(), images(0), images(1)

    def penalty(weights):
        def judge(x):
            return torch.tanh(x.flatten(1) @ weights) @ critic.b.detach()

        if kind == "r1":
            return losses.r1_penalty(judge, real).sum()
        rng = torch.Generator().manual_seed(1)
        return losses.gradient_penalty(judge, real, fake, rng).sum()

    weights = critic.a.detach().clone().requires_grad_()
    (grad,) = torch.autograd.grad(penalty(weights), weights)
    oracle = finite_difference(lambda w: penalty(w).detach(), weights.detach())
    close(grad, oracle, 1e-5)


def test_penalties_of_a_linear_critic_are_known_and_the_same_without_grad_mode():
    slope = randn(math.prod(SHAPE))
    norm = slope.norm()

    def critic(x):
        return x.flatten(1) @ slope

    with torch.no_grad():
        gp = losses.gradient_penalty(critic, images(0), images(1))
        r1 = losses.r1_penalty(critic, images(0))
    close(gp, (norm - 1).square().expand(B))
    close(r1, norm.square().expand(B))


def test_gradient_penalty_is_finite_where_the_critic_is_flat():
    scale = torch.zeros((), dtype=torch.float64, requires_grad=True)
    penalty = losses.gradient_penalty(
        lambda x: scale * x.flatten(1).sum(1), images(0), images(1)
    )
    close(penalty.detach(), torch.ones(B, dtype=torch.float64))
    penalty.sum().backward()
    assert scale.grad.isfinite()


def test_penalties_leave_the_images_alone():
    real, fake = images(0).requires_grad_(), images(1).requires_grad_()
    losses.gradient_penalty(Critic(), real, fake).sum().backward()
    losses.r1_penalty(Critic(), real).sum().backward()
    assert real.grad is None and fake.grad is None


# --- every loss, any shape and type ---------------------------------------------------
def sigmoid(x):
    return 1 / (1 + torch.exp(-x))


def slope(x):
    return (torch.arange(x[0].numel()) % 3 - 1).to(x.dtype)


def linear(x):
    return x.flatten(1) @ slope(x)


# Each row: the loss, the kinds of its arguments, the formula in plain double precision.
LOSSES = {
    "squared_error": (
        losses.squared_error, ("pixels", "pixels"),
        lambda x, y: ((x - y) ** 2).flatten(1).sum(1),
    ),
    "gaussian_nll": (
        lambda x, y: losses.gaussian_nll(x, y, 0.3), ("reals", "reals"),
        lambda x, y: (
            ((x - y) ** 2 / 0.3 + math.log(0.6 * math.pi)).flatten(1).sum(1) / 2
        ),
    ),
    "bernoulli_nll": (
        losses.bernoulli_nll, ("pixels", "reals"),
        lambda x, y: (
            -(x * sigmoid(y).log() + (1 - x) * sigmoid(-y).log()).flatten(1).sum(1)
        ),
    ),
    "kl_to_prior": (
        losses.kl_to_prior, ("codes", "codes"),
        lambda m, v: ((m**2 + v.exp() - 1 - v) / 2).sum(1),
    ),
    "elbo": (losses.elbo, ("rows", "rows"), lambda nll, kl: -(nll + kl)),
    "log_normal": (
        losses.log_normal, ("codes", "codes", "codes"),
        lambda z, m, v: (
            -(math.log(2 * math.pi) + v + (z - m) ** 2 / v.exp()).sum(1) / 2
        ),
    ),
    "importance_weighted_bound": (
        lambda w: losses.importance_weighted_bound(w.T), ("codes",),
        lambda w: w.exp().mean(1).log(),
    ),
    "discriminator_loss": (
        losses.discriminator_loss, ("rows", "rows"),
        lambda r, f: -sigmoid(r).log() - sigmoid(-f).log(),
    ),
    "generator_loss": (
        losses.generator_loss, ("rows",), lambda f: -sigmoid(f).log(),
    ),
    "saturating_generator_loss": (
        losses.saturating_generator_loss, ("rows",), lambda f: sigmoid(-f).log(),
    ),
    "critic_loss": (losses.critic_loss, ("rows", "rows"), lambda r, f: f - r),
    "critic_generator_loss": (losses.critic_generator_loss, ("rows",), lambda f: -f),
    "r1_penalty": (
        lambda x: losses.r1_penalty(lambda v: linear(v) ** 2 / 2, x), ("reals",),
        lambda x: linear(x) ** 2 * slope(x).square().sum(),
    ),
}  # fmt: skip


def arguments(kinds, b, shape, dtype):
    sizes = {"rows": (b,), "codes": (b, shape[-1])}
    drawn = [
        randn(*sizes.get(kind, (b, *shape)), seed=i) for i, kind in enumerate(kinds)
    ]
    return [
        (x.sigmoid() if kind == "pixels" else x).to(dtype)
        for x, kind in zip(drawn, kinds, strict=True)
    ]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("dtype", "tol"),
    [(torch.float16, 2e-2), (torch.float32, 1e-4), (torch.float64, 1e-10)],
)
def test_losses_are_the_formula_and_judge_each_example_alone(name, dtype, tol):
    loss, kinds, formula = LOSSES[name]
    shapes = [(1,), (7,), (1, 1, 1), (3, 5, 2), (1, 9, 9)]
    for b, shape in itertools.product((1, 4), shapes):
        inputs = arguments(kinds, b, shape, dtype)
        value = loss(*inputs)
        assert value.shape == (b,) and value.dtype == dtype
        oracle = formula(*[x.double() for x in inputs])
        torch.testing.assert_close(value.double(), oracle, rtol=tol, atol=4 * tol)
        order = torch.randperm(b)
        permuted = loss(*[x[order] for x in inputs])
        torch.testing.assert_close(permuted, value[order], rtol=tol, atol=tol)
        alone = [loss(*[x[i : i + 1] for x in inputs]) for i in range(b)]
        torch.testing.assert_close(torch.cat(alone), value, rtol=tol, atol=tol)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_refuse_whole_numbers(name):
    loss, kinds, _ = LOSSES[name]
    for dtype in (torch.uint8, torch.int64, torch.bool):
        with pytest.raises(TypeError, match=f"{dtype}"):
            loss(*arguments(kinds, 2, (4,), dtype))


def test_a_likelihood_of_binary_pixels_refuses_what_is_no_probability():
    logits = torch.zeros(1, 4)
    for least, greatest in ((-1, 1), (0, 255), (-0.05, 1.03)):
        x = torch.tensor([[least, 0.2, 0.7, greatest]])
        with pytest.raises(ValueError, match=rf"{least} to {greatest}.*\(x \+ 1\) / 2"):
            losses.bernoulli_nll(x, logits)
    with pytest.raises(ValueError, match="got values from nan.*isnan"):
        losses.bernoulli_nll(torch.full((1, 4), float("nan")), logits)
    x = torch.tensor([[0.0, -1e-6, 1 + 1e-6, 1.0]])  # rounded
    assert losses.bernoulli_nll(x, logits).item() == pytest.approx(4 * math.log(2))


def test_a_gaussian_density_and_the_squared_error_take_any_reals():
    x = torch.tensor([[-300.0, 4e3]])
    assert losses.squared_error(x, x + 2).item() == 8
    assert losses.gaussian_nll(x, x, 1.0).item() == pytest.approx(math.log(2 * math.pi))


def test_a_small_variance_is_the_same_in_half_precision():
    x = torch.rand(2, 1, dtype=torch.float64)
    exact = losses.gaussian_nll(x, x, 1e-7)
    half = losses.gaussian_nll(x.half(), x.half(), 1e-7)
    torch.testing.assert_close(half.double(), exact, rtol=1e-3, atol=0)


# --- shapes ---------------------------------------------------------------------------
COLUMN, ROW = torch.zeros(B, 1), torch.zeros(B)
X = torch.zeros(B, *SHAPE)


@pytest.mark.parametrize(
    "call",
    [
        lambda: losses.squared_error(X, X[:1]),
        lambda: losses.squared_error(X, X[:, :1]),
        lambda: losses.squared_error(ROW, ROW),
        lambda: losses.gaussian_nll(X, X[0], 1.0),
        lambda: losses.bernoulli_nll(X, X.flatten(1)),
        lambda: losses.kl_to_prior(torch.zeros(B, 4), torch.zeros(B, 1)),
        lambda: losses.kl_to_prior(ROW, ROW),
        lambda: losses.elbo(ROW, COLUMN),
        lambda: losses.elbo(ROW.mean(), ROW),
        lambda: losses.importance_weighted_bound(ROW),
        lambda: losses.importance_weighted_bound(torch.zeros(0, B)),
        lambda: losses.discriminator_loss(ROW, COLUMN),
        lambda: losses.discriminator_loss(COLUMN, COLUMN),
        lambda: losses.discriminator_loss(ROW, ROW[:2]),
        lambda: losses.generator_loss(COLUMN),
        lambda: losses.saturating_generator_loss(COLUMN),
        lambda: losses.critic_loss(ROW, COLUMN),
        lambda: losses.critic_generator_loss(COLUMN),
        lambda: losses.gradient_penalty(lambda x: x.flatten(1).sum(1), X, X[:1]),
        lambda: losses.gradient_penalty(lambda x: x.flatten(1)[:, :1], X, X),
        lambda: losses.r1_penalty(lambda x: x.flatten(1)[:, :1], X),
    ],
)
def test_shapes_that_would_broadcast_are_refused(call):
    with pytest.raises(ValueError, match=r"expected|must be"):
        call()


def test_the_message_names_the_shapes_received():
    with pytest.raises(ValueError, match=r"nll \(5,\), kl \(5, 1\)"):
        losses.elbo(ROW, COLUMN)
