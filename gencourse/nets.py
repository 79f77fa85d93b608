"""The networks of the course: `Encoder` reads an image, `Decoder` draws one.

Autoencoder = Encoder + Decoder. VAE = Encoder with twice the outputs + Decoder. GAN =
Decoder as generator + Encoder with one output and a stem as discriminator. The third
network, `Denoiser`, works on vectors alone: it says which way leads from noise to a
code.

Encoder and decoder climb down or up a ladder of grids, a factor of two at a time, until
the grid is 4 wide or its side is odd: 32 -> 16 -> 8 -> 4, or 28 -> 14 -> 7. The first
three rungs have width, 2 width and 4 width channels; further rungs stay at 4 width.
At the image's own size, decoder and stem have half the width.
"""

import torch
from torch import Tensor, nn


class Encoder(nn.Module):
    """An image in, a vector out: strided convolutions, then one linear layer.

    Args:
        outputs: Numbers per image.
        size: Pixels per side, a multiple of 4 from 16 to 128.
        channels: 1 (gray) or 3 (RGB).
        width: Channels after the first convolution.
        spectral_norm: Divide every weight by its largest singular value, which bounds
            the slope of the network (Miyato et al. 2018). For discriminators.
        minibatch_std: Let the network see how much the images of a batch differ (Karras
            et al. 2018). For discriminators.

    Raises:
        ValueError: One of these is out of its range, or images have another shape.

    Taught in: lesson 02, and 04 as discriminator
    """

    def __init__(
        self,
        outputs: int,
        size: int = 32,
        channels: int = 3,
        width: int = 16,
        spectral_norm: bool = False,
        minibatch_std: bool = False,
        stem: bool = False,
    ) -> None:
        super().__init__()
        ladder, grid = _ladder(size, channels, width)
        _check_count("outputs", outputs)
        self.image_shape = (channels, size, size)
        layers: list[nn.Module] = []
        if stem:
            ladder[0] = max(1, width // 2)
            layers += [nn.Conv2d(channels, ladder[0], kernel_size=3, padding=1)]
            layers += [nn.LeakyReLU(0.2)]
        for c_in, c_out in zip(ladder, ladder[1:], strict=False):
            # 4x4 with stride 2 halves the grid and covers every pixel equally often.
            layers += [nn.Conv2d(c_in, c_out, kernel_size=4, stride=2, padding=1)]
            # SiLU is as good in an autoencoder, but clearly worse in a discriminator.
            layers += [nn.LeakyReLU(0.2)]
        if minibatch_std:
            layers += [MinibatchStd()]
        c_last = ladder[-1] + minibatch_std
        layers += [nn.Flatten(), nn.Linear(c_last * grid * grid, outputs)]
        self.layers = nn.Sequential(*layers)
        _initialize(self)
        if spectral_norm:
            for layer in self.layers:
                if isinstance(layer, (nn.Conv2d, nn.Linear)):
                    nn.utils.parametrizations.spectral_norm(layer)

    def forward(self, x: Tensor) -> Tensor:
        _check_images(x, self.image_shape)
        return self.layers(x)  # (B, C, S, S) -> (B, 4 width, 4, 4) -> (B, outputs)


class Decoder(nn.Module):
    """A vector in, an image's logits out: the encoder's ladder, climbed up again.

    The image is `sigmoid(logits)`; a Bernoulli likelihood needs the logits themselves.

    Args:
        latent_dim: Numbers per image.
        size, channels, width: As in `Encoder`.

    Raises:
        ValueError: One of these is out of its range, or codes have another shape.

    Taught in: lesson 02, and 04 as generator
    """

    def __init__(
        self, latent_dim: int, size: int = 32, channels: int = 3, width: int = 16
    ) -> None:
        super().__init__()
        ladder, grid = _ladder(size, channels, width)
        _check_count("latent_dim", latent_dim)
        self.latent_dim, self.image_shape = latent_dim, (channels, size, size)
        ladder = ladder[::-1]
        layers: list[nn.Module] = [nn.Linear(latent_dim, ladder[0] * grid * grid)]
        layers += [nn.Unflatten(1, (ladder[0], grid, grid))]
        ladder[-1] = max(1, width // 2)
        for c_in, c_out in zip(ladder, ladder[1:], strict=False):
            # SiLU: a fifth less error after 15 s than the leaky ReLU of the encoder.
            # Then four values for every pixel, laid out as 2x2 pixels: twice the grid.
            layers += [nn.SiLU(), nn.Conv2d(c_in, 4 * c_out, kernel_size=3, padding=1)]
            layers += [nn.PixelShuffle(2)]
        # Each of the four values comes from a filter of its own, which leaves speckle.
        # A last convolution at full size lets neighbors agree.
        layers += [nn.SiLU(), nn.Conv2d(ladder[-1], channels, kernel_size=3, padding=1)]
        self.layers = nn.Sequential(*layers)
        _initialize(self)

    def forward(self, z: Tensor) -> Tensor:
        if z.shape[1:] != (self.latent_dim,):
            raise ValueError(
                f"expected codes of shape (B, {self.latent_dim}), got {tuple(z.shape)}"
            )
        return self.layers(z)  # (B, latent_dim) -> (B, 4 width, 4, 4) -> (B, C, S, S)

    @torch.no_grad()
    def start_at(self, x: Tensor) -> None:
        """Let an untrained decoder draw with the average brightness of the images x.

        Without this, images that are mostly black (such as MNIST) push all pixels the
        same way in the first steps, all layers join in, and the sigmoid saturates at
        black, where it has no gradient left to recover with. A decoder whose last bias
        is not zero is left as it is.

        Args:
            x: (B, C, S, S) in [0, 1].
        """
        _check_images(x, self.image_shape)
        bias = self.layers[-1].bias  # (C,)
        if not bias.any():
            mean = x.mean((0, 2, 3)).clamp(0.01, 0.99)  # (C,)
            bias.copy_(torch.logit(mean))


class Denoiser(nn.Module):
    """(z_t, t) -> v: three hidden layers that are told how noisy the vector is.

    t enters as sines and cosines of eight frequencies, because a layer that sees t as
    one number among others can hardly tell 0.01 from 0.02. The last layer begins at
    zero: an untrained denoiser moves nothing.

    Args:
        dim: Numbers per vector, in and out.
        width: Units of each hidden layer.
        conditions: Numbers that say what is wanted, such as words or a class as zeros
            and ones; all zero means "anything". 0 if there are none.

    Raises:
        ValueError: One of these is out of its range, or an input has another shape.

    Taught in: lesson 06
    """

    def __init__(self, dim: int, width: int = 128, conditions: int = 0) -> None:
        super().__init__()
        _check_count("dim", dim)
        _check_count("width", width)
        if conditions != 0:
            _check_count("conditions", conditions)
        self.dim, self.conditions = dim, conditions
        self.register_buffer("frequencies", 2.0 ** torch.arange(8))  # radians
        sizes = [dim + 16 + conditions, width, width, width]
        layers: list[nn.Module] = []
        for n_in, n_out in zip(sizes, sizes[1:], strict=False):
            layers += [nn.Linear(n_in, n_out), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, dim))
        _initialize(self)
        nn.init.zeros_(self.layers[-1].weight)

    def forward(self, z_t: Tensor, t: Tensor, words: Tensor | None = None) -> Tensor:
        n = len(z_t)
        if words is None:
            words = z_t.new_zeros(n, self.conditions)
        for name, x, columns in (
            ("vectors", z_t, self.dim),
            ("times t", t, 1),
            ("words", words, self.conditions),
        ):
            if x.shape != (n, columns):
                raise ValueError(
                    f"expected {name} of shape ({n}, {columns}), got {tuple(x.shape)}"
                )
        angles = t * self.frequencies  # (B, 8)
        return self.layers(torch.cat([z_t, angles.sin(), angles.cos(), words], dim=1))


class MinibatchStd(nn.Module):
    """One more channel: the batch's standard deviation, averaged over all features.

    (B, C, S, S) -> (B, C + 1, S, S). Small where a generator repeats itself.
    Source: Karras et al. 2018, section 3. Taught in: lesson 04
    """

    def forward(self, h: Tensor) -> Tensor:
        # The small constant keeps the root's gradient finite where all images agree.
        std = (h.var(dim=0, unbiased=False) + 1e-8).sqrt().mean()  # one number
        return torch.cat([h, std.expand(len(h), 1, *h.shape[2:])], dim=1)


def _ladder(size: int, channels: int, width: int) -> tuple[list[int], int]:
    """The channels of each rung, from the image down, and the side of the last grid."""
    if not isinstance(size, int) or size not in range(16, 129, 4):
        raise ValueError(f"size must be a multiple of 4 from 16 to 128, got {size!r}")
    if type(channels) is not int or channels not in (1, 3):
        raise ValueError(f"channels must be 1 (gray) or 3 (RGB), got {channels!r}")
    _check_count("width", width)
    ladder, grid = [channels], size
    while grid > 4 and grid % 2 == 0:
        ladder.append(width * min(2 ** (len(ladder) - 1), 4))
        grid //= 2
    return ladder, grid


def _check_images(x: Tensor, shape: tuple[int, int, int]) -> None:
    if x.shape[1:] != shape:
        c, s, _ = shape
        raise ValueError(
            f"expected images of shape (B, {c}, {s}, {s}), got {tuple(x.shape)}"
        )


def _check_count(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 4096:
        raise ValueError(f"{name} must be a whole number from 1 to 4096, got {value!r}")


def _initialize(network: nn.Module) -> None:
    """Weights that keep the size of the signal from layer to layer (He et al. 2015)."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    # Convolutions on a CPU are up to three times faster with the channels innermost.
    network.to(memory_format=torch.channels_last)
