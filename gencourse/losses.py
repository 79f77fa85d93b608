"""The losses: pure functions that return one number per example, shape (B,).

A reduction is never a default: images are summed over their pixels and the batch is
left to the caller, who writes `.mean()`. Sign conventions are in the names: `elbo` goes
up, `*_loss`, `*_nll` and `*_penalty` go down, `kl` is never negative. Likelihoods, KL
and ELBO are in nats per image. Discriminators give logits, never probabilities.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


# --- reconstruction -------------------------------------------------------------------
def squared_error(x: Tensor, x_hat: Tensor) -> Tensor:
    """||x - x_hat||_2^2, the sum over all pixels and channels of an image.

    x, x_hat: (B, ...), the same shape, usually (B, C, S, S) in [0, 1].
    Returns (B,); zero only where x_hat equals x: C*S*S times the mean per value.
    Raises ValueError when the shapes differ.
    Source: Hinton & Salakhutdinov 2006. Taught in: lesson 02
    """
    _check_images(x=x, x_hat=x_hat)
    return (x - x_hat).square().flatten(1).sum(1)


def gaussian_nll(x: Tensor, x_hat: Tensor, s2: float | Tensor) -> Tensor:
    """-log p(x|z) = ||x - x_hat||^2 / (2 s2) + (d/2) log(2 pi s2).

    The density is N(x; x_hat, s2 I). x, x_hat: (B, ...), d values per example. s2: one
    variance > 0 for all values (a float or a tensor of one element).
    Returns nats per example, (B,). A density may exceed 1, so this may be negative; at
    s2 = 1/2 it is the squared error plus a constant.
    Raises ValueError when the shapes differ or s2 is not positive and finite.
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

    x: (B, ...) in [0, 1]. logits: the same shape, before the sigmoid.
    Returns nats per example, (B,), when x holds only zeros and ones. On gray levels it
    is a cross-entropy whose minimum is the entropy of x, not zero, and not a
    likelihood.
    Raises ValueError when the shapes differ.
    Source: Kingma & Welling 2014, appendix C.1. Taught in: lesson 03
    """
    _check_images(x=x, logits=logits)
    check_pixels(x)
    nll = F.binary_cross_entropy_with_logits(logits, x, reduction="none")
    return nll.flatten(1).sum(1)


# --- the variational autoencoder ------------------------------------------------------
def kl_per_dimension(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu_j, sigma_j^2) || N(0, 1)) = (mu_j^2 + sigma_j^2 - 1 - log sigma_j^2) / 2.

    mu, logvar: (B, latent_dim); logvar = log sigma^2.
    Returns nats, (B, latent_dim); a dimension near zero for every x is switched off.
    Raises ValueError when the shapes differ.
    Source: Kingma & Welling 2014, appendix B. Taught in: lesson 03
    """
    _check_codes(mu=mu, logvar=logvar)
    # expm1 keeps digits that exp(logvar) - 1 would lose near the prior.
    return 0.5 * (mu.square() + torch.expm1(logvar) - logvar)


def kl_to_prior(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(q(z|x) || N(0, I)) = 1/2 sum_j (mu_j^2 + sigma_j^2 - 1 - log sigma_j^2).

    mu, logvar: (B, latent_dim); logvar = log sigma^2, so exp(logvar) is the variance.
    Returns nats per example, (B,); never negative, zero only at mu = 0 and sigma = 1.
    Raises ValueError when the shapes differ.
    Source: Kingma & Welling 2014, appendix B. Taught in: lesson 03
    """
    return kl_per_dimension(mu, logvar).sum(1)


def elbo(nll: Tensor, kl: Tensor) -> Tensor:
    """ELBO = E_q[log p(x|z)] - KL(q(z|x) || p(z)) = -nll - kl  <=  log p(x).

    nll: (B,) nats, -log p(x|z) at one z drawn from q(z|x) (or averaged over several).
    kl: (B,) nats. Returns nats per example, (B,): the higher the better. With one z it
    is an unbiased estimate of the bound; at z = mu it bounds nothing.
    Raises ValueError when the shapes are not (B,).
    Source: Kingma & Welling 2014, equation 3. Taught in: lesson 03
    """
    _check_per_example(nll=nll, kl=kl)
    return -nll - kl


def log_normal(
    z: Tensor, mu: Tensor | float = 0.0, logvar: Tensor | float = 0.0
) -> Tensor:
    """log N(z; mu, sigma^2 I) = -1/2 sum [log 2 pi + logvar + (z - mu)^2 / sigma^2].

    z: (..., latent_dim). mu, logvar: 0.0 for the prior, or tensors (B, latent_dim)
    where z is (B, latent_dim) or (K, B, latent_dim), K draws for each example.
    Returns nats, the shape of z without its last dimension.
    Raises ValueError when the shapes do not fit.
    Taught in: lesson 03
    """
    _check_floats(z=z)
    for name, value in (("mu", mu), ("logvar", logvar)):
        if isinstance(value, Tensor) and value.shape not in (z.shape, z.shape[1:]):
            shapes = f"{tuple(value.shape)}, but z is {tuple(z.shape)}"
            raise ValueError(f"{name} is {shapes}")
    logvar = torch.as_tensor(logvar, dtype=z.dtype, device=z.device)
    terms = math.log(2 * math.pi) + logvar + (z - mu).square() * torch.exp(-logvar)
    return -0.5 * terms.sum(-1)


def importance_weighted_bound(log_w: Tensor) -> Tensor:
    """L_K = log( (1/K) sum_k w_k ), with w_k = p(x|z_k) p(z_k) / q(z_k|x).

    log_w: (K, B), the logs of the weights at K draws z_k ~ q(z|x), for example
    `-nll + log_normal(z) - log_normal(z, mu, logvar)`.
    Returns nats per example, (B,). K = 1 is the ELBO's estimate; on average the bound
    rises with K towards log p(x). Computed with logsumexp, because the weights
    themselves underflow.
    Raises ValueError when log_w is not (K, B).
    Source: Burda et al. 2016, equation 8. Taught in: lesson 03
    """
    _check_floats(log_w=log_w)
    if log_w.ndim != 2 or len(log_w) == 0:
        raise ValueError(f"log_w must be (K, B) with K >= 1, got {tuple(log_w.shape)}")
    return torch.logsumexp(log_w, dim=0) - math.log(len(log_w))


# --- the two players ------------------------------------------------------------------
def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-log D(x) - log(1 - D(G(z))), with D = sigmoid(logit).

    real_logits, fake_logits: (B,). Returns (B,); zero when D is certain and right, log
    4 when D = 1/2 everywhere.
    Raises ValueError when the shapes are not (B,).
    Source: Goodfellow et al. 2014, equation 1. Taught in: lesson 04
    """
    _check_per_example(real_logits=real_logits, fake_logits=fake_logits)
    return F.softplus(-real_logits) + F.softplus(fake_logits)


def generator_loss(fake_logits: Tensor) -> Tensor:
    """-log D(G(z)), the non-saturating loss: strong gradients where G is losing.

    fake_logits: (B,). Returns (B,); zero when D takes the fake for certainly real.
    Raises ValueError when the shape is not (B,).
    Source: Goodfellow et al. 2014, section 3. Taught in: lesson 04
    """
    _check_per_example(fake_logits=fake_logits)
    return F.softplus(-fake_logits)


def saturating_generator_loss(fake_logits: Tensor) -> Tensor:
    """log(1 - D(G(z))), the minimax loss: its gradient vanishes where G is losing.

    fake_logits: (B,). Returns (B,), never positive; zero when D is certain of the fake.
    Raises ValueError when the shape is not (B,).
    Source: Goodfellow et al. 2014, equation 1. Taught in: lesson 04
    """
    _check_per_example(fake_logits=fake_logits)
    return -F.softplus(fake_logits)


def critic_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """f(G(z)) - f(x): the negative of its mean estimates the Wasserstein distance.

    real_scores, fake_scores: (B,), any real numbers (a critic has no sigmoid). Returns
    (B,); zero where the critic cannot tell the pair apart.
    Raises ValueError when the shapes are not (B,).
    Source: Arjovsky et al. 2017, section 3. Taught in: lesson 04
    """
    _check_per_example(real_scores=real_scores, fake_scores=fake_scores)
    return fake_scores - real_scores


def critic_generator_loss(fake_scores: Tensor) -> Tensor:
    """-f(G(z)): the generator raises the critic's score.

    fake_scores: (B,). Returns (B,); only its changes mean something, not its zero.
    Raises ValueError when the shape is not (B,).
    Source: Arjovsky et al. 2017, section 3. Taught in: lesson 04
    """
    _check_per_example(fake_scores=fake_scores)
    return -fake_scores


def gradient_penalty(
    critic: Callable[[Tensor], Tensor],
    real: Tensor,
    fake: Tensor,
    rng: torch.Generator | None = None,
) -> Tensor:
    """(||grad f(x_mix)||_2 - 1)^2 at x_mix = alpha x + (1 - alpha) G(z).

    critic: images -> scores (B,); it must judge each image alone (no batch norm). real,
    fake: (B, ...), the same shape. rng: draws alpha ~ U(0, 1), one number per image.
    Returns (B,), to be weighted by lambda (10 in the paper); the norm runs over all
    pixels of an image. Zero where the norm is one. Differentiable in the critic's
    weights.
    Raises ValueError when shapes differ or the critic does not give (B,).
    Source: Gulrajani et al. 2017, equation 3. Taught in: lesson 04
    """
    _check_images(real=real, fake=fake)
    device = real.device if rng is None else rng.device
    alpha = torch.rand(len(real), generator=rng, device=device, dtype=real.dtype)
    alpha = alpha.to(real.device).view(-1, *[1] * (real.ndim - 1))  # (B, 1, 1, 1)
    gradient = _input_gradient(critic, alpha * real + (1 - alpha) * fake)
    return (torch.linalg.vector_norm(gradient, dim=1) - 1).square()


def r1_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    """||grad D(x)||_2^2 at real images, where D stands for the logit.

    discriminator: images -> logits (B,), each image judged alone. real: (B, ...).
    Returns (B,), *without* the factor gamma/2 of the paper's R1, which the caller puts
    in front. Zero where D is flat. Differentiable in the discriminator's weights.
    Raises ValueError when the discriminator does not give (B,).
    Source: Mescheder et al. 2018, equation 9. Taught in: lesson 04
    """
    _check_images(real=real)
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


# --- values and shapes that would give a plausible wrong number -----------------------
def check_pixels(x: Tensor) -> None:
    """Raise TypeError unless x holds floats, ValueError unless they are in [0, 1]."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(
            f"images must be a tensor of floats in [0, 1], got {got}: convert whole "
            "numbers from 0 to 255 by x / 255"
        )
    if not ((x >= -1e-3) & (x <= 1 + 1e-3)).all():  # a resized image rounds a little
        raise ValueError(
            f"images must be in [0, 1], got values from {x.min().item():.4g} to "
            f"{x.max().item():.4g}. Values from -1 to 1: use (x + 1) / 2; from 0 to "
            "255: x / 255; slightly beyond: x.clamp(0, 1)"
        )


def _check_floats(**tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            got = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(f"{name} must be a floating point tensor, got {got}")


def _check_images(**tensors: Tensor) -> None:
    _check_floats(**tensors)
    first = next(iter(tensors.values()))
    for tensor in tensors.values():
        if tensor.ndim < 2 or tensor.shape != first.shape:
            shapes = ", ".join(f"{n} {tuple(t.shape)}" for n, t in tensors.items())
            raise ValueError(f"expected one shape (B, ...) for all: got {shapes}")


def _check_codes(**tensors: Tensor) -> None:
    _check_floats(**tensors)
    first = next(iter(tensors.values()))
    for tensor in tensors.values():
        if tensor.ndim != 2 or tensor.shape != first.shape:
            shapes = ", ".join(f"{n} {tuple(t.shape)}" for n, t in tensors.items())
            raise ValueError(f"expected the same shape (B, latent_dim): got {shapes}")


def _check_per_example(**tensors: Tensor) -> None:
    _check_floats(**tensors)
    first = next(iter(tensors.values()))
    for tensor in tensors.values():
        if tensor.ndim != 1 or tensor.shape != first.shape:
            shapes = ", ".join(f"{n} {tuple(t.shape)}" for n, t in tensors.items())
            raise ValueError(f"expected one number per example, (B,): got {shapes}")
