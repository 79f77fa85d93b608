"""The losses: pure functions that return one number per example, shape (B,).

No function reduces over the batch: images are summed over their pixels, and the caller
writes `.mean()`. The names state the sign: `elbo` goes up, `*_loss`, `*_nll` and
`*_penalty` go down, `kl` is never negative. Likelihoods, KL and ELBO are in nats per
image. Discriminators give logits, never probabilities. Shapes that would broadcast
raise ValueError, integer tensors TypeError.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


# --- reconstruction -------------------------------------------------------------------
def squared_error(x: Tensor, x_hat: Tensor) -> Tensor:
    """||x - x_hat||_2^2, the sum over all pixels and channels of an image.

    Args:
        x, x_hat: (B, ...), the same shape, usually (B, C, S, S) in [0, 1].

    Returns:
        (B,), C*S*S times the mean per value; zero only where x_hat equals x.

    Source: Hinton & Salakhutdinov 2006. Taught in: lesson 02
    """
    _check_shapes("(B, ...)", x=x, x_hat=x_hat)
    return (x - x_hat).square().flatten(1).sum(1)


def gaussian_nll(x: Tensor, x_hat: Tensor, s2: float | Tensor) -> Tensor:
    """-log p(x|z) = ||x - x_hat||^2 / (2 s2) + (d/2) log(2 pi s2).

    The density is N(x; x_hat, s2 I).

    Args:
        x, x_hat: (B, ...), the same shape, d values of any size per example.
        s2: One variance > 0 for all values: a float or a tensor of one element.

    Returns:
        Nats per example, (B,). A density may exceed 1, so this may be negative; at s2 =
        1/2 it is the squared error plus a constant.

    Raises:
        ValueError: s2 is not positive and finite.

    Source: Kingma & Welling 2014, appendix C.2. Taught in: lesson 03
    """
    error = squared_error(x, x_hat)
    if isinstance(s2, Tensor) and s2.numel() != 1:
        raise ValueError(f"s2 must be one number for all values, got {tuple(s2.shape)}")
    # At least single precision: a small variance is nearly zero in half.
    dtype = torch.promote_types(error.dtype, torch.float32)
    variance = torch.as_tensor(s2, dtype=dtype, device=error.device).reshape(())
    if not 0 < variance < math.inf:
        raise ValueError(
            f"s2 is a variance and must be > 0 and finite in {dtype}, got {s2}"
        )
    d = x.shape[1:].numel()
    return error / (2 * variance) + d / 2 * torch.log(2 * math.pi * variance)


def bernoulli_nll(x: Tensor, logits: Tensor) -> Tensor:
    """-log p(x|z) = -sum [x log p + (1 - x) log(1 - p)], with p = sigmoid(logits).

    Args:
        x: (B, ...) in [0, 1].
        logits: The same shape, before the sigmoid.

    Returns:
        Nats per example, (B,), when x holds only zeros and ones. On gray levels this is
        a cross-entropy, not a likelihood: its minimum is the entropy of x, not zero.

    Raises:
        ValueError: A value of x is outside [0, 1].

    Source: Kingma & Welling 2014, appendix C.1. Taught in: lesson 03
    """
    _check_shapes("(B, ...)", x=x, logits=logits)
    check_pixels(x)
    nll = F.binary_cross_entropy_with_logits(logits, x, reduction="none")
    return nll.flatten(1).sum(1)


# --- the variational autoencoder ------------------------------------------------------
def kl_per_dimension(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu_j, sigma_j^2) || N(0, 1)) = (mu_j^2 + sigma_j^2 - 1 - log sigma_j^2) / 2.

    Args:
        mu, logvar: (B, latent_dim); logvar = log sigma^2.

    Returns:
        Nats, (B, latent_dim); a dimension near zero for every x is switched off.

    Source: Kingma & Welling 2014, appendix B. Taught in: lesson 03
    """
    _check_shapes("(B, latent_dim)", mu=mu, logvar=logvar)
    # expm1 keeps digits that exp(logvar) - 1 would lose near the prior.
    return 0.5 * (mu.square() + torch.expm1(logvar) - logvar)


def kl_to_prior(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(q(z|x) || N(0, I)) = 1/2 sum_j (mu_j^2 + sigma_j^2 - 1 - log sigma_j^2).

    Args:
        mu, logvar: (B, latent_dim); logvar = log sigma^2, so exp(logvar) is the
            variance.

    Returns:
        Nats per example, (B,); never negative, zero only at mu = 0 and sigma = 1.

    Source: Kingma & Welling 2014, appendix B. Taught in: lesson 03
    """
    return kl_per_dimension(mu, logvar).sum(1)


def elbo(nll: Tensor, kl: Tensor) -> Tensor:
    """ELBO = E_q[log p(x|z)] - KL(q(z|x) || p(z)) = -nll - kl  <=  log p(x).

    Args:
        nll: (B,) nats, -log p(x|z) at one z drawn from q(z|x), or averaged over
            several.
        kl: (B,) nats.

    Returns:
        Nats per example, (B,): the higher, the better. With one z it is an unbiased
        estimate of the bound; at z = mu it bounds nothing.

    Source: Kingma & Welling 2014, equation 3. Taught in: lesson 03
    """
    _check_shapes("(B,)", nll=nll, kl=kl)
    return -nll - kl


def log_normal(
    z: Tensor, mu: Tensor | float = 0.0, logvar: Tensor | float = 0.0
) -> Tensor:
    """log N(z; mu, sigma^2 I) = -1/2 sum [log 2 pi + logvar + (z - mu)^2 / sigma^2].

    Args:
        z: (..., latent_dim).
        mu, logvar: 0.0 for the prior, or tensors (B, latent_dim) if z is (B,
            latent_dim) or (K, B, latent_dim), K draws for each example.

    Returns:
        Nats, the shape of z without its last dimension.

    Taught in: lesson 03
    """
    _check_floats(z=z)
    for name, value in (("mu", mu), ("logvar", logvar)):
        if isinstance(value, Tensor) and value.shape not in (z.shape, z.shape[1:]):
            raise ValueError(
                f"{name} is {tuple(value.shape)}, but z is {tuple(z.shape)}"
            )
    logvar = torch.as_tensor(logvar, dtype=z.dtype, device=z.device)
    terms = math.log(2 * math.pi) + logvar + (z - mu).square() * torch.exp(-logvar)
    return -0.5 * terms.sum(-1)


def importance_weighted_bound(log_w: Tensor) -> Tensor:
    """L_K = log( (1/K) sum_k w_k ), with w_k = p(x|z_k) p(z_k) / q(z_k|x).

    Args:
        log_w: (K, B), the logs of the weights at K draws z_k ~ q(z|x), for example
            `-nll + log_normal(z) - log_normal(z, mu, logvar)`.

    Returns:
        Nats per example, (B,). K = 1 is the ELBO's estimate; on average the bound rises
        with K toward log p(x). Computed with logsumexp, because the weights themselves
        underflow.

    Source: Burda et al. 2016, equation 8. Taught in: lesson 03
    """
    _check_floats(log_w=log_w)
    if log_w.ndim != 2 or len(log_w) == 0:
        raise ValueError(f"log_w must be (K, B) with K >= 1, got {tuple(log_w.shape)}")
    return torch.logsumexp(log_w, dim=0) - math.log(len(log_w))


# --- the two players: logits and scores are (B,), one per image -----------------------
def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-log D(x) - log(1 - D(G(z))), with D = sigmoid(logit).

    Zero when D is certain and right, log 4 when D = 1/2 everywhere.

    Source: Goodfellow et al. 2014, equation 1. Taught in: lesson 04
    """
    _check_shapes("(B,)", real_logits=real_logits, fake_logits=fake_logits)
    return F.softplus(-real_logits) + F.softplus(fake_logits)


def generator_loss(fake_logits: Tensor) -> Tensor:
    """-log D(G(z)), the non-saturating loss: strong gradients where G is losing.

    Zero when D is certain that the fake is real.

    Source: Goodfellow et al. 2014, section 3. Taught in: lesson 04
    """
    _check_shapes("(B,)", fake_logits=fake_logits)
    return F.softplus(-fake_logits)


def saturating_generator_loss(fake_logits: Tensor) -> Tensor:
    """log(1 - D(G(z))), the minimax loss: its gradient vanishes where G is losing.

    Never positive; zero when D is certain that the fake is fake.

    Source: Goodfellow et al. 2014, equation 1. Taught in: lesson 04
    """
    _check_shapes("(B,)", fake_logits=fake_logits)
    return -F.softplus(fake_logits)


def critic_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """f(G(z)) - f(x): the negative of its mean estimates the Wasserstein distance.

    Scores are any real numbers: a critic has no sigmoid. Zero where it cannot tell the
    pair apart.

    Source: Arjovsky et al. 2017, section 3. Taught in: lesson 04
    """
    _check_shapes("(B,)", real_scores=real_scores, fake_scores=fake_scores)
    return fake_scores - real_scores


def critic_generator_loss(fake_scores: Tensor) -> Tensor:
    """-f(G(z)): the generator raises the critic's score.

    Only changes have a meaning, zero has none.

    Source: Arjovsky et al. 2017, section 3. Taught in: lesson 04
    """
    _check_shapes("(B,)", fake_scores=fake_scores)
    return -fake_scores


def gradient_penalty(
    critic: Callable[[Tensor], Tensor],
    real: Tensor,
    fake: Tensor,
    rng: torch.Generator | None = None,
) -> Tensor:
    """(||grad f(x_mix)||_2 - 1)^2 at x_mix = alpha x + (1 - alpha) G(z).

    Args:
        critic: Images -> scores (B,); it must judge each image alone (no batch norm).
        real, fake: (B, ...), the same shape.
        rng: Draws alpha ~ U(0, 1), one number per image.

    Returns:
        (B,), to be weighted by lambda (10 in the paper); the norm runs over all pixels
        of an image. Zero where the norm is one. Differentiable in the critic's weights.

    Source: Gulrajani et al. 2017, equation 3. Taught in: lesson 04
    """
    _check_shapes("(B, ...)", real=real, fake=fake)
    device = real.device if rng is None else rng.device
    alpha = torch.rand(len(real), generator=rng, device=device, dtype=real.dtype)
    alpha = alpha.to(real.device).view(-1, *[1] * (real.ndim - 1))  # (B, 1, 1, 1)
    gradient = _input_gradient(critic, alpha * real + (1 - alpha) * fake)
    return (torch.linalg.vector_norm(gradient, dim=1) - 1).square()


def r1_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    """||grad D(x)||_2^2 at real images, where D stands for the logit.

    Args:
        discriminator: Images -> logits (B,), each image judged alone.
        real: (B, ...).

    Returns:
        (B,), *without* the factor gamma/2 of the paper's R1, which the caller puts in
        front. Zero where D is flat. Differentiable in the discriminator's weights.

    Source: Mescheder et al. 2018, equation 9. Taught in: lesson 04
    """
    _check_shapes("(B, ...)", real=real)
    return _input_gradient(discriminator, real).square().sum(1)


def _input_gradient(network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The gradient of each example's output in its own pixels, (B, C*S*S)."""
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        out = network(x)
        if out.shape != (len(x),):
            raise ValueError(
                f"expected one number per image, ({len(x)},), got {tuple(out.shape)}"
            )
        # An image's output depends on that image alone, so the gradient of the sum
        # holds every image's own gradient.
        (gradient,) = torch.autograd.grad(out.sum(), x, create_graph=True)
    return gradient.flatten(1)


# --- the flow: codes and noise are (B, ...) -------------------------------------------
def flow_matching_loss(v: Tensor, z: Tensor, eps: Tensor) -> Tensor:
    """||v - (eps - z)||_2^2, at z_t = (1 - t) z + t eps, whose velocity is eps - z.

    Args:
        v: What the network says at z_t and t, (B, ...).
        z, eps: The data and the noise that made z_t, the same shape.

    Returns:
        (B,). It is zero only by chance: many pairs lead through the same z_t, and the
        best v is their mean. What is left over is their variance.

    Source: Lipman et al. 2023, equation 23 (with time reversed). Taught in: lesson 06
    """
    _check_shapes("(B, ...)", v=v, z=z, eps=eps)
    return squared_error(eps - z, v)


# --- values and shapes that would give a plausible wrong number -----------------------
def check_pixels(x: Tensor) -> None:
    """Accept only a batch of images (B, ...), floats in [0, 1].

    Raises:
        TypeError: x does not hold floats.
        ValueError: A value is NaN or outside [0, 1], or there is no image.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(
            f"images must be a tensor of floats in [0, 1], got {_kind(x)}: convert "
            "whole numbers from 0 to 255 by x / 255"
        )
    if x.numel() == 0:
        raise ValueError(f"a batch without images, {tuple(x.shape)}: leave it out")
    least, greatest = (value.item() for value in x.aminmax())
    if not (-1e-3 <= least and greatest <= 1 + 1e-3):  # a resized image rounds a little
        raise ValueError(
            f"images must be in [0, 1], got values from {least:.4g} to {greatest:.4g}. "
            "Values from -1 to 1: use (x + 1) / 2; from 0 to 255: x / 255; slightly "
            "beyond: x.clamp(0, 1); NaN: find it with x.isnan()"
        )


def _check_shapes(expected: str, **tensors: Tensor) -> None:
    """Refuse tensors that are not all of one shape of the expected kind."""
    _check_floats(**tensors)
    dimensions = {"(B,)": [1], "(B, latent_dim)": [2], "(B, ...)": range(2, 10)}
    first = next(iter(tensors.values())).shape
    same = all(tensor.shape == first for tensor in tensors.values())
    if not same or len(first) not in dimensions[expected]:
        shapes = ", ".join(f"{name} {tuple(t.shape)}" for name, t in tensors.items())
        raise ValueError(f"expected one shape {expected}: got {shapes}")


def _check_floats(**tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            raise TypeError(f"{name} must be a tensor of floats, got {_kind(tensor)}")


def _kind(value: Tensor | object) -> str:
    return str(value.dtype) if isinstance(value, Tensor) else type(value).__name__
