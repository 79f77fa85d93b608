"""One update of each model: `step(x) -> dict of floats`. The unit of teaching.

A step moves x to the model's device, measures, descends and returns what it measured.
If the loss or its gradient is not finite, it raises FloatingPointError and leaves the
weights as they were. x holds floats in [0, 1]: anything else is a TypeError or a
ValueError that says how to scale it.

Each `measure` returns "loss", which the step lowers, and the means over the batch to
report. It may be replaced: that is how `gencourse train` averages over devices.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Adam, Optimizer

from gencourse import losses
from gencourse.models import GAN, VAE, Autoencoder, Flow


class AutoencoderStep:
    """Lower the mean over the batch of ||x - x_hat||^2 by one step of Adam.

    `step(x)` returns {"loss"}: the squared error per image, summed over its pixels.

    Args:
        model: Anything that maps images to reconstructions. If it has a `Decoder` of
            ours, the first step sets that to the brightness of the images.
        lr, betas: Adam's.

    Taught in: lesson 02
    """

    def __init__(
        self,
        model: Autoencoder | nn.Module,
        lr: float = 4e-3,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        self.model = model
        self.optimizer = Adam(model.parameters(), lr, betas, fused=True)
        self.steps_done = 0

    def __call__(self, x: Tensor) -> dict[str, float]:
        x = on_model(x, self.model)
        if self.steps_done == 0:
            start_decoder(self.model, x)
        values = self.measure(x)
        descend(self.optimizer, values["loss"])
        self.steps_done += 1
        return floats(values)

    def measure(self, x: Tensor) -> dict[str, Tensor]:
        x_hat = self.model(x)
        return {"loss": losses.squared_error(x, x_hat).mean()}


class VAEStep:
    """Lower the mean over the batch of nll + beta * kl, with one z for each image.

    `step(x)` returns {"loss", "recon", "kl", "squared_error", "elbo"}: recon is the
    nll; recon, kl and elbo = -recon - kl (whatever beta is) in nats per image.

    Args:
        model: A VAE.
        beta: A weight, or a function of the number of steps done so far (warm-up:
            `lambda n: min(1, n / 500)`).
        s2: "fixed" uses model.s2. "optimal" takes each batch's mean squared error, its
            best value, and keeps a running average in model.s2 for evaluation.
        likelihood: "gaussian", or "bernoulli" for binary pixels.
        lr, betas: Adam's.
        rng: Draws eps.

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
        _check_choice("s2", s2, "fixed", "optimal")
        _check_choice("likelihood", likelihood, "gaussian", "bernoulli")
        if likelihood == "bernoulli" and s2 == "optimal":
            raise ValueError("a Bernoulli likelihood has no variance: use s2='fixed'")
        self.model, self.beta, self.rng = model, beta, rng
        self.s2, self.likelihood = s2, likelihood
        self.optimizer = Adam(model.parameters(), lr, betas, fused=True)
        self.steps_done = 0

    def __call__(self, x: Tensor) -> dict[str, float]:
        x = on_model(x, self.model)
        if self.steps_done == 0:
            start_decoder(self.model, x)
        values = self.measure(x)
        descend(self.optimizer, values["loss"])
        if self.s2 == "optimal":
            s2 = self.optimal_s2(x, values["squared_error"])
            self.model.s2.lerp_(s2, 0.05 if self.steps_done else 1.0)
        self.steps_done += 1
        return floats(values)

    def measure(self, x: Tensor) -> dict[str, Tensor]:
        beta = self.beta(self.steps_done) if callable(self.beta) else self.beta
        mu, logvar = self.model.encode(x)
        z = self.model.reparameterize(mu, logvar, self.rng)
        logits = self.model.decoder(z)
        x_hat = torch.sigmoid(logits)

        squared_error = losses.squared_error(x, x_hat)  # (B,)
        s2 = self.model.s2
        if self.s2 == "optimal":
            s2 = self.optimal_s2(x, squared_error.mean())
        if self.likelihood == "gaussian":
            nll = losses.gaussian_nll(x, x_hat, s2)
        else:
            nll = losses.bernoulli_nll(x, logits)
        kl = losses.kl_to_prior(mu, logvar)
        return {
            "loss": (nll + beta * kl).mean(),
            "recon": nll.mean(),
            "kl": kl.mean(),
            "squared_error": squared_error.mean(),
            "elbo": losses.elbo(nll, kl).mean(),
        }

    def optimal_s2(self, x: Tensor, squared_error: Tensor) -> Tensor:
        """The variance that maximizes the likelihood: the mean squared error per value.

        At an optimum the gradient through it is zero, so it counts as a constant.
        """
        s2 = squared_error.detach() / x[0].numel()
        if not s2.isfinite():
            raise FloatingPointError(f"squared error per value = {s2.item()}")
        return s2.clamp(min=1e-8)  # an exact copy has no variance to divide by


class GANStep:
    """The discriminator's turn, then the generator's, each with its own Adam.

    `step(x)` returns {"d_loss", "g_loss", "d_real", "d_fake"}: d_loss without
    penalties, to compare with log 4; d_real and d_fake are the means of D(x) and
    D(G(z)), probabilities (with "wasserstein" scores). While the generator rests,
    g_loss keeps its last value.

    Args:
        model: A GAN.
        loss: "non-saturating", "saturating" or "wasserstein" (the discriminator is then
            a critic).
        r1: gamma of (gamma / 2) ||grad D(real)||^2.
        r1_every: Take that penalty only once in so many steps, then that many times as
            strong: nearly the same pull for a fraction of the time.
        gp: The weight of the gradient penalty; None means 10 with "wasserstein", else
            0.
        n_critic: The generator moves once in n_critic steps.
        lr, betas: Both Adams'.
        ema: `.average` is a generator whose weights are a running average, average <-
            ema * average + (1 - ema) * generator, which draws better than the latest
            one; `use_average()` moves it into the model. After n steps it looks back
            over no more than about n / 9 of them. With ema = 0 it is the model's
            generator itself.
        rng: Draws z.

    Source: Goodfellow et al. 2014, algorithm 1; Gulrajani et al. 2017; Mescheder et al.
    2018; Karras et al. 2018 (ema); Karras et al. 2020, appendix B (r1_every).
    Taught in: lesson 04
    """

    def __init__(
        self,
        model: GAN,
        loss: str = "non-saturating",
        r1: float = 0.0,
        r1_every: int = 1,
        gp: float | None = None,
        n_critic: int = 1,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.5, 0.9),
        ema: float = 0.0,
        rng: torch.Generator | None = None,
    ) -> None:
        _check_choice("loss", loss, "non-saturating", "saturating", "wasserstein")
        if gp is None:
            gp = 10.0 if loss == "wasserstein" else 0.0
        for name, value, least, below in (
            ("r1", r1, 0, float("inf")),
            ("r1_every", r1_every, 1, float("inf")),
            ("gp", gp, 0, float("inf")),
            ("n_critic", n_critic, 1, float("inf")),
            ("ema", ema, 0, 1),
        ):
            if not least <= value < below:
                raise ValueError(f"{name} must be in [{least}, {below}), got {value!r}")
        self.model, self.loss, self.rng = model, loss, rng
        self.r1, self.r1_every, self.gp = r1, r1_every, gp
        self.n_critic, self.ema = n_critic, ema
        self.average = model.generator
        if ema:
            self.average = copy.deepcopy(model.generator).requires_grad_(False)
        self.d_optimizer = Adam(model.discriminator.parameters(), lr, betas, fused=True)
        self.g_optimizer = Adam(model.generator.parameters(), lr, betas, fused=True)
        self.steps_done = 0
        self.g_loss = float("nan")

    def __call__(self, x: Tensor) -> dict[str, float]:
        real = on_model(x, self.model)
        fake = self.model.generate(self.model.prior(len(real), self.rng))
        # detach: the discriminator's loss must not move the generator.
        d_values = self.measure_discriminator(real, fake.detach())
        descend(self.d_optimizer, d_values.pop("loss"))
        # The new discriminator judges the same fakes again.
        if self.steps_done % self.n_critic == 0:
            g_values = self.measure_generator(fake)
            descend(self.g_optimizer, g_values["loss"])
            self.g_loss = g_values["loss"].item()
            if self.ema:
                follow(self.average, self.model.generator, self.ema, self.steps_done)
        self.steps_done += 1
        d_values = floats(d_values)
        return {"d_loss": d_values.pop("d_loss"), "g_loss": self.g_loss} | d_values

    def measure_discriminator(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        discriminate, wasserstein = self.model.discriminate, self.loss == "wasserstein"
        real_logits, fake_logits = discriminate(real), discriminate(fake)
        d_losses = losses.critic_loss if wasserstein else losses.discriminator_loss
        d_loss = d_losses(real_logits, fake_logits).mean()
        penalty = torch.zeros_like(d_loss)
        if self.r1 and self.steps_done % self.r1_every == 0:
            r1 = losses.r1_penalty(discriminate, real)
            penalty = penalty + self.r1_every * self.r1 / 2 * r1.mean()
        if self.gp:
            gp = losses.gradient_penalty(discriminate, real, fake, self.rng)
            penalty = penalty + self.gp * gp.mean()
        if not wasserstein:
            real_logits, fake_logits = real_logits.sigmoid(), fake_logits.sigmoid()
        return {
            "loss": d_loss + penalty,
            "d_loss": d_loss,
            "d_real": real_logits.mean(),
            "d_fake": fake_logits.mean(),
        }

    def measure_generator(self, fake: Tensor) -> dict[str, Tensor]:
        g_losses = {
            "non-saturating": losses.generator_loss,
            "saturating": losses.saturating_generator_loss,
            "wasserstein": losses.critic_generator_loss,
        }[self.loss]
        return {"loss": g_losses(self.model.discriminate(fake)).mean()}

    def use_average(self) -> None:
        """Put the averaged weights into the model's generator, to draw with them."""
        self.model.generator.load_state_dict(self.average.state_dict())


class FlowStep:
    """Lower the mean over the batch of ||v(z_t, t) - (eps - z)||^2 by a step of Adam.

    `step(x)` returns {"loss"}: the squared error per example. Its best value is not
    zero (see `losses.flow_matching_loss`). x holds codes, with the words beside them:
    (B, latent_dim + conditions), or images (B, C, S, S).

    Args:
        model: A Flow that knows mean and deviation of the codes (`model.start_at`), or
            a PixelFlow.
        drop: The share of examples whose words are hidden, so that the model also
            learns what is likely without words; guidance needs both.
        least_t: t ~ U(least_t, 1). Where a network guesses the clean image, the error
            of its velocity grows as 1 / t: leave the smallest t out.
        lr, betas: Adam's.
        ema: As in `GANStep`; `use_average()` moves the average into the model.
        rng: Draws t, eps and whose words are hidden.

    Source: Lipman et al. 2023; Ho & Salimans 2022, algorithm 1 (drop).
    Taught in: lesson 06
    """

    def __init__(
        self,
        model: Flow,
        drop: float = 0.1,
        least_t: float = 0.0,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        ema: float = 0.998,
        rng: torch.Generator | None = None,
    ) -> None:
        for name, value in (("drop", drop), ("least_t", least_t), ("ema", ema)):
            if not 0 <= value < 1:
                raise ValueError(f"{name} must be in [0, 1), got {value!r}")
        self.model, self.drop, self.least_t = model, drop, least_t
        self.ema, self.rng = ema, rng
        self.average = copy.deepcopy(model).requires_grad_(False)
        self.optimizer = Adam(model.parameters(), lr, betas, fused=True)
        self.steps_done = 0

    def __call__(self, x: Tensor) -> dict[str, float]:
        values = self.measure(x.to(self.model.mean))
        descend(self.optimizer, values["loss"])
        follow(self.average, self.model, self.ema, self.steps_done)
        self.steps_done += 1
        return floats(values)

    def measure(self, x: Tensor) -> dict[str, Tensor]:
        n_words = self.model.net.conditions
        z, words = (x[:, :-n_words], x[:, -n_words:]) if n_words else (x, None)
        z = self.model.normalize(z)
        t = self.least_t + (1 - self.least_t) * self._uniform(z)  # (B, 1)
        eps = self.model.prior(len(z), self.rng)  # drawn anew at each step
        if n_words:
            words = words * (self._uniform(z) >= self.drop)
        share = t.view(-1, *[1] * (z.ndim - 1))  # of noise, (B, 1) or (B, 1, 1, 1)
        v = self.model.velocity((1 - share) * z + share * eps, t, words)
        return {"loss": losses.flow_matching_loss(v, z, eps).mean()}

    def use_average(self) -> None:
        """Put the averaged weights into the model, to draw with them."""
        self.model.load_state_dict(self.average.state_dict())

    def _uniform(self, z: Tensor) -> Tensor:
        device = z.device if self.rng is None else self.rng.device
        return torch.rand(len(z), 1, generator=self.rng, device=device).to(z)


@torch.no_grad()
def follow(average: nn.Module, latest: nn.Module, ema: float, step: int) -> None:
    """average <- ema * average + (1 - ema) * latest, for each weight.

    A young average follows faster, so that it forgets the first weights: after `step`
    steps it looks back over about step / 9 of them.
    """
    share = max(1 - ema, 9 / (10 + step))
    pairs = zip(average.parameters(), latest.parameters(), strict=True)
    for mean, weight in pairs:
        mean.lerp_(weight, share)


def on_model(x: Tensor, model: nn.Module) -> Tensor:
    """Images (B, ...) in [0, 1], on the model's device and in its dtype."""
    losses.check_pixels(x)
    return x.to(next(model.parameters()))


def start_decoder(model: nn.Module, x: Tensor) -> None:
    """Set an untrained `Decoder` to the brightness of the images x."""
    decoder = getattr(model, "decoder", None)
    if hasattr(decoder, "start_at"):
        decoder.start_at(x)


def descend(optimizer: Optimizer, loss: Tensor) -> None:
    """One step down the gradient of the loss, if both are finite.

    Raises:
        FloatingPointError: One is not; the weights stay as they were.
    """
    learning = [weight for weight in weights(optimizer) if weight.requires_grad]
    optimizer.zero_grad()
    # `inputs` leaves the other player's weights out of the backward pass.
    loss.backward(inputs=learning)
    norm = get_total_norm([w.grad for w in learning if w.grad is not None])
    if not torch.isfinite(norm + loss.detach()):
        raise FloatingPointError(
            f"loss = {loss.item()}, norm of its gradient = {norm.item()}"
        )
    optimizer.step()
    # Within torch.autocast the next step would use copies of the old weights.
    torch.clear_autocast_cache()


def weights(optimizer: Optimizer) -> list[nn.Parameter]:
    """All the weights that this optimizer moves."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def floats(values: dict[str, Tensor]) -> dict[str, float]:
    """Plain numbers, which hold no graph and no memory of a device."""
    return {name: value.item() for name, value in values.items()}


def _check_choice(name: str, value: str, *choices: str) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}")
