"""One update of each model: `step(x) -> dict of floats`. The unit of teaching.

A step holds the model and its optimizer(s), moves x to the model's device and returns
what it measured. It updates nothing and raises FloatingPointError when the loss or its
gradient is not finite, so that the weights stay usable. Whole numbers for pixels are a
TypeError, a batch without images is a ValueError.

`step.update` (and `step.mean` of the VAE) is all that changes when a batch is shared by
several devices: `cli` puts its own there.
"""

import copy
import math
from collections.abc import Callable, Iterable
from numbers import Real

import torch
from torch import Tensor, nn

from gencourse import losses
from gencourse.models import GAN, VAE, Autoencoder

# The loss to go down, and the means over the batch to report.
Measured = tuple[Tensor, dict[str, Tensor]]

_LEAST_S2 = 1e-8  # far below a gray level; an exact copy would have no variance at all


class AutoencoderStep:
    """Lower the mean over the batch of ||x - x_hat||^2 by one step of Adam.

    model: anything that maps images to reconstructions; if it has our `Decoder`, the
    first call starts that at the brightness of the images. lr, betas: Adam's.
    Returns {"loss": squared error per image, summed over its pixels}.
    Taught in: lesson 02
    """

    def __init__(
        self,
        model: Autoencoder | nn.Module,
        lr: float = 4e-3,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        self.model = model
        self.optimizer = _adam(model.parameters(), lr, betas)
        self.update = update
        self.steps_done = 0

    def __call__(self, x: Tensor) -> dict[str, float]:
        x = _moved(x, self.model)
        if self.steps_done == 0:
            start(self.model, x)
        values = self.update(self.optimizer, self.measure, x)
        self.steps_done += 1
        return values

    def measure(self, x: Tensor) -> Measured:
        x_hat = self.model(x)
        loss = losses.squared_error(x, x_hat).mean()
        return loss, {"loss": loss}


class VAEStep:
    """Lower the mean over the batch of nll + beta * kl, with one z for each image.

    model: a VAE. beta: a weight, or a function of the number of steps done so far
    (warm-up: `lambda n: min(1, n / 500)`). lr, betas: Adam's. rng: draws eps.
    s2: "fixed" uses model.s2; "optimal" takes each batch's mean squared error, its best
    value, and keeps a running average in model.s2 for evaluation.
    likelihood: "gaussian", or "bernoulli" for binary pixels.
    Returns {"loss", "recon", "kl", "squared_error", "elbo"}: recon is the nll; recon,
    kl and elbo = -recon - kl (whatever beta is) in nats per image.
    Source: Kingma & Welling 2014; Higgins et al. 2017 (beta); Rybkin et al. 2021 (s2).
    Taught in: lesson 03
    """

    def __init__(
        self,
        model: VAE,
        beta: float | Callable[[int], float] = 1.0,
        s2: str = "fixed",
        likelihood: str = "gaussian",
        lr: float = 4e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        rng: torch.Generator | None = None,
    ) -> None:
        _check_choice("s2", s2, ("fixed", "optimal"))
        _check_choice("likelihood", likelihood, ("gaussian", "bernoulli"))
        if likelihood == "bernoulli" and s2 == "optimal":
            raise ValueError("a Bernoulli likelihood has no variance: leave s2='fixed'")
        # A negative weight is the wrong sign that lesson 03 shows.
        if not callable(beta) and not (isinstance(beta, Real) and math.isfinite(beta)):
            raise ValueError(f"beta is a finite weight or a function, got {beta!r}")
        self.model, self.beta, self.rng = model, beta, rng
        self.s2, self.likelihood = s2, likelihood
        self.optimizer = _adam(model.parameters(), lr, betas)
        self.update = update
        self.mean: Callable[[Tensor], Tensor] = lambda value: value
        self.steps_done = 0

    def __call__(self, x: Tensor) -> dict[str, float]:
        model = self.model
        x = _moved(x, model)
        if self.steps_done == 0:
            start(model, x)
        values = self.update(self.optimizer, self.measure, x)
        if self.s2 == "optimal":
            s2 = max(values["squared_error"] / x[0].numel(), _LEAST_S2)
            s2 = model.s2.new_tensor(s2)
            model.s2.lerp_(s2, 0.05 if self.steps_done else 1.0)
        self.steps_done += 1
        return values

    def measure(self, x: Tensor) -> Measured:
        model = self.model
        beta = self.beta(self.steps_done) if callable(self.beta) else self.beta
        mu, logvar = model.encode(x)
        z = model.reparameterize(mu, logvar, self.rng)
        logits = model.decoder(z)
        x_hat = torch.sigmoid(logits)

        squared_error = losses.squared_error(x, x_hat)  # (B,)
        s2 = model.s2
        if self.s2 == "optimal":
            # The variance that maximizes the likelihood is the mean squared error. At
            # an optimum the gradient through it is zero, so it counts as a constant.
            s2 = self.mean(squared_error.detach().mean()) / x[0].numel()
            if not s2.isfinite():
                raise FloatingPointError(f"squared error per value = {s2.item()}")
            s2 = s2.clamp(min=_LEAST_S2)
        if self.likelihood == "gaussian":
            nll = losses.gaussian_nll(x, x_hat, s2)
        else:
            nll = losses.bernoulli_nll(x, logits)
        kl = losses.kl_to_prior(mu, logvar)
        loss = (nll + beta * kl).mean()
        return loss, {
            "loss": loss,
            "recon": nll.mean(),
            "kl": kl.mean(),
            "squared_error": squared_error.mean(),
            "elbo": losses.elbo(nll, kl).mean(),
        }


class GANStep:
    """The discriminator's turn, then the generator's, each with its own Adam.

    model: a GAN. loss: "non-saturating", "saturating" or "wasserstein" (where the
    discriminator is a critic). r1: gamma of (gamma / 2) ||grad D(real)||^2. gp: the
    weight of the gradient penalty; None means 10 with "wasserstein", else 0. n_critic:
    the generator moves once in so many steps. lr, betas: both Adams'. ema: `.average`
    is a generator whose weights are a running average, average <- ema * average + (1 -
    ema) * generator, which draws better than the latest one; `use_average()` moves it
    into the model. With ema = 0 it is the model's generator itself. rng: the source of
    z.
    Returns {"d_loss", "g_loss", "d_real", "d_fake"}: d_loss without penalties, so that
    it compares with log 4; d_real, d_fake the mean of D(x) and D(G(z)), probabilities
    (with "wasserstein" the mean scores). Where the generator did not move, g_loss is
    the last.
    Source: Goodfellow et al. 2014, algorithm 1; Gulrajani et al. 2017; Mescheder et al.
    2018; Karras et al. 2018 (ema).
    Taught in: lesson 04
    """

    def __init__(
        self,
        model: GAN,
        loss: str = "non-saturating",
        r1: float = 0.0,
        gp: float | None = None,
        n_critic: int = 1,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.5, 0.9),
        ema: float = 0.0,
        rng: torch.Generator | None = None,
    ) -> None:
        _check_choice("loss", loss, ("non-saturating", "saturating", "wasserstein"))
        if not isinstance(n_critic, int) or n_critic < 1:
            raise ValueError(
                f"n_critic must be a whole number, at least 1; got {n_critic!r}"
            )
        for name, weight in (("r1", r1), ("gp", 0.0 if gp is None else gp)):
            if not 0 <= weight < float("inf"):
                raise ValueError(f"{name} is a weight >= 0, got {weight!r}")
        if not 0 <= ema < 1:
            raise ValueError(f"ema must be in [0, 1), got {ema!r}")
        self.model, self.loss, self.n_critic, self.rng = model, loss, n_critic, rng
        self.ema = ema
        self.average = model.generator
        if ema:
            self.average = copy.deepcopy(model.generator).requires_grad_(False)
        self.r1 = r1
        self.gp = (10.0 if loss == "wasserstein" else 0.0) if gp is None else gp
        self.d_optimizer = _adam(model.discriminator.parameters(), lr, betas)
        self.g_optimizer = _adam(model.generator.parameters(), lr, betas)
        self.update = update
        self.steps_done = 0
        self.g_loss = float("nan")

    def __call__(self, x: Tensor) -> dict[str, float]:
        model = self.model
        real = _moved(x, model)
        fake = model.generate(model.prior(len(real), self.rng))
        # detach: the discriminator's loss must not move the generator.
        d_values = self.update(
            self.d_optimizer, self.measure_discriminator, real, fake.detach()
        )
        # The new discriminator judges the same fakes again.
        if self.steps_done % self.n_critic == 0:
            g_values = self.update(self.g_optimizer, self.measure_generator, fake)
            self.g_loss = g_values["g_loss"]
            if self.ema:
                self._follow()
        self.steps_done += 1
        return {"d_loss": d_values.pop("d_loss"), "g_loss": self.g_loss} | d_values

    def measure_discriminator(self, real: Tensor, fake: Tensor) -> Measured:
        model, wasserstein = self.model, self.loss == "wasserstein"
        real_logits, fake_logits = model.discriminate(real), model.discriminate(fake)
        d_losses = losses.critic_loss if wasserstein else losses.discriminator_loss
        d_loss = d_losses(real_logits, fake_logits).mean()
        penalty = torch.zeros_like(d_loss)
        if self.r1:
            r1 = losses.r1_penalty(model.discriminate, real)
            penalty = penalty + self.r1 / 2 * r1.mean()
        if self.gp:
            gp = losses.gradient_penalty(model.discriminate, real, fake, self.rng)
            penalty = penalty + self.gp * gp.mean()
        if not wasserstein:
            real_logits, fake_logits = real_logits.sigmoid(), fake_logits.sigmoid()
        return d_loss + penalty, {
            "d_loss": d_loss,
            "d_real": real_logits.mean(),
            "d_fake": fake_logits.mean(),
        }

    def measure_generator(self, fake: Tensor) -> Measured:
        g_losses = {
            "non-saturating": losses.generator_loss,
            "saturating": losses.saturating_generator_loss,
            "wasserstein": losses.critic_generator_loss,
        }[self.loss]
        g_loss = g_losses(self.model.discriminate(fake)).mean()
        return g_loss, {"g_loss": g_loss}

    @torch.no_grad()
    def _follow(self) -> None:
        latest = self.model.generator.parameters()
        for old, new in zip(self.average.parameters(), latest, strict=True):
            old.lerp_(new, 1 - self.ema)

    def use_average(self) -> None:
        """Put the averaged weights into the model's generator, to draw with them."""
        self.model.generator.load_state_dict(self.average.state_dict())


def start(model: nn.Module, x: Tensor) -> None:
    """Let a new decoder begin at the brightness of the images, see `Decoder`."""
    decoder = getattr(model, "decoder", None)
    wanted = getattr(getattr(model, "encoder", None), "image_shape", x.shape[1:])
    # Images that the encoder or the update will refuse must not touch the weights.
    fits = x.shape[1:] == wanted and x.isfinite().all()
    if hasattr(decoder, "start_at") and fits:
        decoder.start_at(x)


def _adam(
    parameters: Iterable[nn.Parameter], lr: float, betas: tuple[float, float]
) -> torch.optim.Adam:
    if not 0 <= lr < float("inf"):
        raise ValueError(f"lr must be >= 0 and finite, got {lr!r}")
    return torch.optim.Adam(parameters, lr=lr, betas=betas, fused=True)


def update(
    optimizer: torch.optim.Optimizer, measure: Callable[..., Measured], *inputs: Tensor
) -> dict[str, float]:
    """Measure a loss, move down its gradient, and return what else was measured.

    measure: inputs (B, ...) -> (loss, dict of means over the batch).
    """
    optimizer.zero_grad()
    loss, values = measure(*inputs)
    moving = [weight for weight in weights(optimizer) if weight.requires_grad]
    if not moving or not loss.requires_grad:
        raise RuntimeError(
            "nothing here can learn: leave torch.no_grad() or inference_mode(), and "
            "check that the model's weights have requires_grad"
        )
    # `inputs` leaves the other player's weights out of the backward pass.
    loss.backward(inputs=moving)
    descend(optimizer, loss)
    return {name: value.item() for name, value in values.items()}


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step down the gradient of the loss, or an error and no step at all."""
    norms = [p.grad.norm() for p in weights(optimizer) if p.grad is not None]
    norm = torch.stack(norms).norm()
    if not torch.isfinite(norm + loss.detach()):
        raise FloatingPointError(
            f"loss = {loss.item()}, norm of its gradient = {norm.item()}"
        )
    optimizer.step()
    # Within torch.autocast the next step would use copies of the old weights.
    torch.clear_autocast_cache()


def weights(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """All that this optimizer moves."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def _moved(x: Tensor, model: nn.Module) -> Tensor:
    """Images on the model's device and in its type, or an error."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"images must be a tensor of floats in [0, 1], got {got}")
    if x.ndim == 0 or len(x) == 0:
        raise ValueError(f"a batch without images, {tuple(x.shape)}: leave it out")
    if x.is_inference() and not torch.is_inference_mode_enabled():
        x = x.clone()  # autograd takes the copy, but not the original
    return x.to(next(model.parameters()))


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}")
