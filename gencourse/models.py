"""The families of models, built from the same networks. No loss, optimizer or device.

Each model keeps its constructor's arguments in `.settings`, so that a saved file can
rebuild it. Images x are (B, C, S, S) in [0, 1]; codes z are (B, latent_dim). For a
flow, t is (B, 1), the share of noise: 0 is data, 1 is pure noise.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gencourse.nets import Decoder, Denoiser, Encoder


class Autoencoder(nn.Module):
    """x -> z -> x_hat: compress an image into latent_dim numbers and draw it again.

    Args:
        latent_dim: Numbers per image.
        size: Pixels per side, a multiple of 4 from 16 to 128.
        channels: 1 (gray) or 3 (RGB).
        width: Channels of the first convolution.

    Source: Hinton & Salakhutdinov 2006. Taught in: lesson 02
    """

    def __init__(
        self, latent_dim: int = 8, size: int = 32, channels: int = 3, width: int = 16
    ) -> None:
        super().__init__()
        self.settings = dict(
            latent_dim=latent_dim, size=size, channels=channels, width=width
        )
        self.encoder = Encoder(latent_dim, size, channels, width)
        self.decoder = Decoder(latent_dim, size, channels, width)

    def encode(self, x: Tensor) -> Tensor:
        """Images (B, C, S, S) -> codes z (B, latent_dim)."""
        return self.encoder(x)

    def decode(self, z: Tensor) -> Tensor:
        """Codes z (B, latent_dim) -> images x_hat (B, C, S, S) in [0, 1]."""
        return torch.sigmoid(self.decoder(z))

    def forward(self, x: Tensor) -> Tensor:
        """Images -> their reconstructions x_hat, the same shape."""
        return self.decode(self.encode(x))


class VAE(nn.Module):
    """q(z|x) = N(mu(x), sigma(x)^2), p(x|z) = N(decode(z), s2 I), p(z) = N(0, I).

    For a Bernoulli likelihood use the logits, `model.decoder(z)`.

    Args:
        latent_dim, size, channels, width: As in `Autoencoder`.
        s2: The decoder's variance per value, a buffer, so that it is saved with the
            model.

    Source: Kingma & Welling 2014. Taught in: lesson 03
    """

    def __init__(
        self,
        latent_dim: int = 8,
        size: int = 32,
        channels: int = 3,
        width: int = 16,
        s2: float = 0.1,
    ) -> None:
        super().__init__()
        s2, numbers = float(s2), torch.finfo()
        if not numbers.tiny <= s2 <= numbers.max:  # smaller ones would be stored as 0
            raise ValueError(
                f"s2 is a variance and must be in [{numbers.tiny:.2g}, "
                f"{numbers.max:.2g}], got {s2!r}"
            )
        self.settings = dict(
            latent_dim=latent_dim, size=size, channels=channels, width=width, s2=s2
        )
        self.encoder = Encoder(2 * latent_dim, size, channels, width)
        self.decoder = Decoder(latent_dim, size, channels, width)
        self.register_buffer("s2", torch.tensor(s2))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images -> (mu, logvar), each (B, latent_dim); logvar = log sigma^2."""
        mu, logvar = self.encoder(x).chunk(2, dim=1)
        return mu, logvar

    def reparameterize(
        self, mu: Tensor, logvar: Tensor, rng: torch.Generator | None = None
    ) -> Tensor:
        """z = mu + sigma * eps with a new eps ~ N(0, I) at each call."""
        sigma = torch.exp(0.5 * logvar)
        return mu + sigma * _normal(mu.shape, mu, rng)

    def decode(self, z: Tensor) -> Tensor:
        """Codes z (B, latent_dim) -> the mean of p(x|z), (B, C, S, S) in [0, 1]."""
        return torch.sigmoid(self.decoder(z))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images -> (x_hat, mu, logvar), with one draw of z for each image."""
        mu, logvar = self.encode(x)
        return self.decode(self.reparameterize(mu, logvar)), mu, logvar

    def prior(self, n: int, rng: torch.Generator | None = None) -> Tensor:
        """z ~ N(0, I), (n, latent_dim)."""
        return _normal((n, self.settings["latent_dim"]), self.s2, rng)

    @torch.no_grad()
    def sample(self, n: int, rng: torch.Generator | None = None) -> Tensor:
        """decode(z) for z ~ N(0, I), (n, C, S, S): means, without pixel noise."""
        return self.decode(self.prior(n, rng))


class GAN(nn.Module):
    """G: z -> x draws images, D: x -> logit judges them; D(x) = sigmoid(logit).

    Args:
        latent_dim, size, channels, width: As in `Autoencoder`.
        spectral_norm, minibatch_std: Remedies in the discriminator, see `Encoder`.

    Source: Goodfellow et al. 2014. Taught in: lesson 04
    """

    def __init__(
        self,
        latent_dim: int = 16,
        size: int = 32,
        channels: int = 3,
        width: int = 16,
        spectral_norm: bool = False,
        minibatch_std: bool = False,
    ) -> None:
        super().__init__()
        self.settings = dict(
            latent_dim=latent_dim, size=size, channels=channels, width=width,
            spectral_norm=spectral_norm, minibatch_std=minibatch_std,
        )  # fmt: skip
        self.generator = Decoder(latent_dim, size, channels, width)
        self.discriminator = Encoder(
            1, size, channels, width, spectral_norm, minibatch_std, stem=True
        )

    def generate(self, z: Tensor) -> Tensor:
        """Codes z (B, latent_dim) -> images (B, C, S, S) in [0, 1]."""
        return torch.sigmoid(self.generator(z))

    def discriminate(self, x: Tensor) -> Tensor:
        """Images -> logits (B,): above 0 where D judges the image to be real."""
        return self.discriminator(x).squeeze(1)  # (B, 1) -> (B,)

    def prior(self, n: int, rng: torch.Generator | None = None) -> Tensor:
        """z ~ N(0, I), (n, latent_dim)."""
        like = next(self.generator.parameters())
        return _normal((n, self.settings["latent_dim"]), like, rng)

    @torch.no_grad()
    def sample(self, n: int, rng: torch.Generator | None = None) -> Tensor:
        """G(z) for z ~ N(0, I), (n, C, S, S)."""
        return self.generate(self.prior(n, rng))


class Flow(nn.Module):
    """dz/dt = v(z, t): carries noise (t = 1) to codes (t = 0), the learned prior.

    The network works on codes of mean 0 and standard deviation 1. `mean` and `std` of
    the real codes are buffers, so that they are saved with the model.

    Args:
        latent_dim: Numbers per code.
        width, conditions: As in `nets.Denoiser`.

    Source: Lipman et al. 2023; Liu et al. 2023 (there t runs the other way).
    Taught in: lesson 06
    """

    def __init__(
        self, latent_dim: int = 10, width: int = 128, conditions: int = 0
    ) -> None:
        super().__init__()
        self.settings = dict(latent_dim=latent_dim, width=width, conditions=conditions)
        self.net = Denoiser(latent_dim, width, conditions)
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("std", torch.ones(latent_dim))

    @torch.no_grad()
    def start_at(self, codes: Tensor) -> None:
        """Take mean and standard deviation from codes (N, latent_dim)."""
        self.mean.copy_(codes.mean(0))
        self.std.copy_(codes.std(0).clamp(min=1e-6))

    def normalize(self, z: Tensor) -> Tensor:
        """Codes -> codes of mean 0 and standard deviation 1, which the flow carries."""
        return (z - self.mean) / self.std

    def restore(self, z: Tensor) -> Tensor:
        """The inverse of `normalize`."""
        return self.mean + self.std * z

    def velocity(
        self, z_t: Tensor, t: Tensor, words: Tensor | None = None, guidance: float = 1.0
    ) -> Tensor:
        """v = v(nothing) + w (v(words) - v(nothing)), classifier-free guidance.

        Args:
            z_t: Normalized codes with noise, (B, latent_dim).
            t: (B, 1) in [0, 1].
            words: (conditions,) for all, or (B, conditions); None asks for anything.
            guidance: w. 0 ignores the words, 1 is what the model learned of them.

        Source: Ho & Salimans 2022, equation 6 (their w is ours - 1)
        """
        if words is None:
            return self.net(z_t, t)
        v = self.net(z_t, t, words.to(z_t).expand(len(z_t), -1))
        if guidance == 1:
            return v
        nothing = self.net(z_t, t)
        return nothing + guidance * (v - nothing)

    @torch.no_grad()
    def carry(
        self,
        z: Tensor,
        start: float,
        end: float,
        words: Tensor | None = None,
        guidance: float = 1.0,
        steps: int = 10,
        heun: bool = True,
    ) -> Tensor:
        """Normalized codes at t = start -> where the flow carries them until t = end.

        Args:
            start, end: 1 and 0 generate; 0 and 1 find the noise behind real codes.
            words, guidance: As in `velocity`.
            steps, heun: As in `integrate`.
        """

        def v(z: Tensor, t: Tensor) -> Tensor:
            return self.velocity(z, t, words, guidance)

        return integrate(v, z, start, end, steps, heun)

    def prior(self, n: int, rng: torch.Generator | None = None) -> Tensor:
        """eps ~ N(0, I), (n, latent_dim): where the flow begins."""
        return _normal((n, *self.mean.shape), self.mean, rng)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        rng: torch.Generator | None = None,
        words: Tensor | None = None,
        guidance: float = 1.0,
        steps: int = 10,
        heun: bool = True,
    ) -> Tensor:
        """New codes (n, latent_dim) in the units of the real ones, for a decoder."""
        z = self.carry(self.prior(n, rng), 1, 0, words, guidance, steps, heun)
        return self.restore(z)


class PixelFlow(Flow):
    """A flow of whole images: x_hat = decode(h + correction(h, t)), h = encode(x_t).

    An autoencoder that is told how noisy its input is, and learns to leave the noise
    out. Its guess x_hat of the clean image gives the velocity (x_t - x_hat) / t.

    Args:
        latent_dim: Numbers in the bottleneck h.
        size, channels, width: As in `Autoencoder`.

    Source: Vincent et al. 2010 (denoising autoencoders); Li & He 2025 (predict x).
    Taught in: lesson 06
    """

    def __init__(
        self, latent_dim: int = 32, size: int = 32, channels: int = 3, width: int = 16
    ) -> None:
        super().__init__(latent_dim)
        self.settings = dict(
            latent_dim=latent_dim, size=size, channels=channels, width=width
        )
        self.encoder = Encoder(latent_dim, size, channels, width)
        self.decoder = Decoder(latent_dim, size, channels, width)
        # Pixels from 0 to 1 become numbers from -1 to 1.
        self.mean = torch.full((channels, size, size), 0.5)
        self.std = torch.full((channels, size, size), 0.5)

    def clean(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Normalized images with noise and t (B, 1) -> the guess x_hat, normalized."""
        h = self.encoder(x_t)
        logits = self.decoder(h + self.net(h, t))
        return self.normalize(torch.sigmoid(logits))

    def velocity(
        self, x_t: Tensor, t: Tensor, words: None = None, guidance: float = 1.0
    ) -> Tensor:
        """v = (x_t - x_hat) / t, without words.

        Raises:
            ValueError: t = 0, where this is 0 / 0. Euler's method never asks there on
                the way from noise to images.
        """
        if (t == 0).any():
            raise ValueError(
                "a flow of images has no velocity at t = 0: go from a larger t to 0, "
                "with heun=False"
            )
        return (x_t - self.clean(x_t, t)) / t.view(-1, 1, 1, 1)


def integrate(
    velocity: Callable[[Tensor, Tensor], Tensor],
    z: Tensor,
    start: float,
    end: float,
    steps: int,
    heun: bool = True,
) -> Tensor:
    """z + the integral of v(z, t) dt from t = start to t = end, in equal steps.

    Args:
        velocity: z (B, ...) and t (B, 1) -> v, the shape of z.
        z: Where it begins, (B, ...).
        start, end: Times in [0, 1].
        steps: How many, at least 1.
        heun: Average the velocities at both ends of a step, for twice the price: the
            error falls with the square of the number of steps. Otherwise Euler's
            method, which never asks for the velocity at `end`.

    Source: Karras et al. 2022, algorithm 1. Taught in: lesson 06
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps must be a whole number from 1, got {steps!r}")
    h = (end - start) / steps
    for i in range(steps):
        t = z.new_full((len(z), 1), start + i * h)
        v = velocity(z, t)
        if heun:
            v = (v + velocity(z + h * v, t + h)) / 2
        z = z + h * v
    return z


def z_hat_of(v: Tensor, z_t: Tensor, t: Tensor) -> Tensor:
    """z_hat = z_t - t v: the clean code that a velocity points to."""
    return z_t - t * v


def score_of(v: Tensor, z_t: Tensor, t: Tensor) -> Tensor:
    """score = -eps_hat / t, the gradient of log p(z_t) if v is the best velocity.

    eps_hat = z_t + (1 - t) v is the noise that the velocity comes from.
    """
    return -(z_t + (1 - t) * v) / t


def _normal(
    shape: tuple[int, ...], like: Tensor, rng: torch.Generator | None
) -> Tensor:
    # A generator draws on its own device only: the same seed then gives the same codes
    # whether the model sits on a CPU or a GPU.
    device = like.device if rng is None else rng.device
    noise = torch.randn(shape, generator=rng, device=device, dtype=like.dtype)
    return noise.to(like.device)
