"""The three families, built from the same two networks. No loss, optimizer or device.

Each model keeps its constructor's arguments in `.settings`, so that a saved file can
rebuild it. Images x are (B, C, S, S) in [0, 1]; codes z are (B, latent_dim).
"""

import torch
from torch import Tensor, nn

from gencourse.nets import Decoder, Encoder


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
            1, size, channels, width, spectral_norm, minibatch_std
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


def _normal(
    shape: tuple[int, ...], like: Tensor, rng: torch.Generator | None
) -> Tensor:
    # A generator draws on its own device only: the same seed then gives the same codes
    # whether the model sits on a CPU or a GPU.
    device = like.device if rng is None else rng.device
    noise = torch.randn(shape, generator=rng, device=device, dtype=like.dtype)
    return noise.to(like.device)
