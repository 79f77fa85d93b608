"""How fast the course runs here: a table in Markdown, for docs/benchmarks.md.

python -m tools.measure.speed [--quick]

Each number is the median of several runs. What is compared runs in turns within one
process, so that a busy machine slows both alike. The common way is a plain loop over a
DataLoader with torchvision's transforms, the same network in torch's default memory
format and the default Adam.
"""

import statistics
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from types import ModuleType

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from gencourse import data, faces, metrics, train
from gencourse.models import GAN, VAE, Autoencoder
from gencourse.steps import AutoencoderStep, GANStep, VAEStep
from tools import command
from tools.measure import timing
from tools.measure.timing import DEVICE, median_seconds, ratio, seconds_in_turns

BATCH, MLP_BATCH = 128, 256


class MlpVAE(nn.Module):
    """The 784-400-20 VAE of many tutorials, with the methods that VAEStep calls."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 40)
        )
        self.decoder = nn.Sequential(
            nn.Linear(20, 400),
            nn.ReLU(),
            nn.Linear(400, 784),
            nn.Unflatten(1, (1, 28, 28)),
        )
        self.register_buffer("s2", torch.tensor(0.1))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mu, logvar = self.encoder(x).chunk(2, dim=1)
        return mu, logvar

    def reparameterize(self, mu: Tensor, logvar: Tensor, rng: None = None) -> Tensor:
        return mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)


class UvAAutoencoder(nn.Module):
    """The autoencoder of a widely read tutorial, with 32 channels as it has for faces.

    Strided 3x3 convolutions and GELU down to 4x4, transposed ones up again, and one
    more convolution at 16x16 and 8x8. Its images run from -1 to 1.

    Source: Lippe, UvA Deep Learning Tutorials, number 9.
    """

    def __init__(self, latent_dim: int, width: int = 32) -> None:
        super().__init__()
        down = [3, width, width, 2 * width, 2 * width, 2 * width]
        layers: list[nn.Module] = []
        for i, (c_in, c_out) in enumerate(zip(down, down[1:], strict=False)):
            layers += [nn.Conv2d(c_in, c_out, 3, stride=2 - i % 2, padding=1)]
            layers += [nn.GELU()]
        layers += [nn.Flatten(), nn.Linear(2 * width * 16, latent_dim)]
        self.encoder = nn.Sequential(*layers)
        layers = [nn.Linear(latent_dim, 2 * width * 16), nn.GELU()]
        layers += [nn.Unflatten(1, (2 * width, 4, 4))]
        up = down[::-1]
        for i, (c_in, c_out) in enumerate(zip(up, up[1:], strict=False)):
            options = {"padding": 1} | ({} if i % 2 else {"output_padding": 1})
            layer = nn.Conv2d if i % 2 else nn.ConvTranspose2d
            layers += [layer(c_in, c_out, 3, stride=2 - i % 2, **options), nn.GELU()]
        self.decoder = nn.Sequential(*layers[:-1], nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return (self.decoder(self.encoder(2 * x - 1)) + 1) / 2


# --- the common way -------------------------------------------------------------------
_operators: list[torch.library.Library] = []  # a library's operators die with it


def torchvision() -> ModuleType:
    """Return torchvision, even one built for CUDA beside a CPU-only torch.

    Its import then misses operators that only object detection would run.
    """
    try:
        return import_module("torchvision")
    except RuntimeError:  # operator torchvision::nms does not exist
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        _operators.append(torch.library.Library("torchvision", "FRAGMENT"))
        for name in ("nms", "qnms"):
            _operators[0].define(f"{name}(Tensor a, Tensor b, float c) -> Tensor")
        return import_module("torchvision")


def data_loader(images: Tensor, batch: int, classic: bool = False) -> Iterable:
    """Return a DataLoader over pictures such as torchvision's MNIST and CIFAR give.

    Its transforms are those that torchvision's documentation recommends or, with
    `classic`, the older ToTensor.
    """
    transforms = torchvision().transforms
    if classic:
        to_tensor = transforms.ToTensor()
    else:
        v2 = import_module("torchvision.transforms.v2")
        to_tensor = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    arrays = (images * 255).byte().permute(0, 2, 3, 1).squeeze(3).numpy()

    class Pictures(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(arrays)

        def __getitem__(self, i: int) -> tuple[Tensor, int]:
            return to_tensor(Image.fromarray(arrays[i])), 0

    return torch.utils.data.DataLoader(Pictures(), batch, shuffle=True)


def common_autoencoder(model: nn.Module, lr: float = 1e-3) -> Callable[[Tensor], None]:
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)

    def step(x: Tensor) -> None:
        x = x.to(DEVICE)
        loss = F.mse_loss(model(x), x, reduction="sum") / len(x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def common_vae(model: VAE | MlpVAE, lr: float = 1e-3) -> Callable[[Tensor], None]:
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)

    def step(x: Tensor) -> None:
        x = x.to(DEVICE)
        mu, logvar = model.encode(x)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        x_hat = torch.sigmoid(model.decoder(z))
        recon = F.binary_cross_entropy(x_hat, x, reduction="sum")
        kl = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
        optimizer.zero_grad()
        (recon + kl).backward()
        optimizer.step()
        (recon + kl).item()

    return step


def common_gan(model: GAN) -> Callable[[Tensor], None]:
    d_optimizer = torch.optim.Adam(model.discriminator.parameters(), lr=4e-4)
    g_optimizer = torch.optim.Adam(model.generator.parameters(), lr=4e-4)
    bce = F.binary_cross_entropy_with_logits

    def step(x: Tensor) -> None:
        x = x.to(DEVICE)
        ones, zeros = torch.ones(len(x), 1), torch.zeros(len(x), 1)
        ones, zeros = ones.to(DEVICE), zeros.to(DEVICE)
        d_optimizer.zero_grad()
        z = torch.randn(len(x), 16, device=DEVICE)
        fake = torch.sigmoid(model.generator(z))
        d_loss = bce(model.discriminator(x), ones)
        d_loss = d_loss + bce(model.discriminator(fake.detach()), zeros)
        d_loss.backward()
        d_optimizer.step()
        g_optimizer.zero_grad()
        g_loss = bce(model.discriminator(fake), ones)
        g_loss.backward()
        g_optimizer.step()
        d_loss.item(), g_loss.item()

    return step


FAMILIES = {
    "AE": (Autoencoder, AutoencoderStep, common_autoencoder),
    "VAE": (VAE, VAEStep, common_vae),
    "GAN": (GAN, GANStep, common_gan),
}


# --- measuring ------------------------------------------------------------------------
def epochs_in_turns(
    name: str, images: data.Images, batch: int, runs: int
) -> list[list[float]]:
    """Return the seconds of epochs of the course, of the common way, of bare steps."""
    model_class, make_step, make_common = FAMILIES[name]
    _, channels, size, _ = images.pixels.shape
    shape = {"size": size, "channels": channels}
    step = make_step(model_class(**shape).to(DEVICE))
    plain = model_class(**shape).to(DEVICE, memory_format=torch.contiguous_format)
    common, loader = make_common(plain), data_loader(images[:], batch)
    ready = images.to(DEVICE)  # the course's way with data that fit
    batches, x = ready.batches(batch), ready[:batch]
    return seconds_in_turns(
        runs,
        lambda: train.fit(step, batches, epochs=1),
        lambda: [common(x) for x, _ in loader],
        lambda: [step(x) for _ in range(max(1, len(images) // batch))],
    )


def report(what: str, value: float, unit: str, goal: str = "") -> None:
    """Print a row; `goal` is "at least" or "at most" a number."""
    if goal:
        target = float(goal.split()[-1].replace(",", ""))
        reached = value >= target if goal.startswith("at least") else value <= target
        goal += ": reached" if reached else ": MISSED"
    number = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
    timing.row(what, number, unit, goal)


def families(runs: int, images: int) -> None:
    """Compare the steps of the course with the common way, in images a second."""
    rgb = data.load("faces", 32, train_size=images, test_size=1).train
    for name, goal in (("AE", 4000), ("VAE", 4000), ("GAN", 1500)):
        ours, theirs, _ = epochs_in_turns(name, rgb, BATCH, runs)
        speed = images / statistics.median(ours)
        what = f"{name}, 3x32x32, width 16"
        report(what, speed, "images/s", f"at least {goal:,}")
        report("- against the common way", ratio(theirs, ours), "times")


def loop(runs: int, images: int) -> None:
    """Measure what `fit` costs beside the steps."""
    rgb = data.load("faces", 32, train_size=images, test_size=1).train
    batches = rgb.to(DEVICE).batches(BATCH)
    step = AutoencoderStep(Autoencoder().to(DEVICE))
    bare, fitted = seconds_in_turns(
        3 * runs,
        lambda: [step(x) for x in batches],
        lambda: train.fit(step, batches, epochs=1),
    )
    report("fit over the bare loop", 100 * (ratio(fitted, bare) - 1), "%", "at most 3")
    empty = [rgb[:BATCH]] * 2000

    def idle(x: Tensor) -> dict[str, float]:
        return {"loss": 1.0}

    seconds = median_seconds(runs, lambda: train.fit(idle, empty, epochs=1))
    report("- its own time per step", seconds / len(empty) * 1e6, "microseconds")


def tutorial_network(runs: int, images: int) -> None:
    """Compare the course's step with the common way on the 784-400-20 network."""
    gray = data.load("faces", 28, channels=1, train_size=images, test_size=1).train
    loader = data_loader(gray[:], MLP_BATCH)
    classic = data_loader(gray[:], MLP_BATCH, classic=True)
    step = VAEStep(MlpVAE().to(DEVICE), likelihood="bernoulli")
    common, batches = (
        common_vae(MlpVAE().to(DEVICE)),
        gray.to(DEVICE).batches(MLP_BATCH),
    )
    ours, theirs, with_classic = seconds_in_turns(
        runs,
        lambda: train.fit(step, batches, epochs=1),
        lambda: [common(x) for x, _ in loader],
        lambda: [common(x) for x, _ in classic],
    )
    speed = images / statistics.median(ours)
    report(f"VAE 784-400-20, batch {MLP_BATCH}", speed, "images/s")
    report("- against the common way", ratio(theirs, ours), "times", "at least 4")
    report("- against the classic ToTensor", ratio(with_classic, ours), "times")


def referee(runs: int) -> None:
    """Measure rendering, projection and the estimate of the dimension."""
    knobs = faces.sample_knobs(20_000)
    seconds = median_seconds(runs, lambda: faces.render(knobs, 32))
    report("render 20,000 faces at 32x32", seconds, "s", "at most 4")
    fresh = faces.render(faces.sample_knobs(256, seed=1), 32)
    seconds = median_seconds(runs, lambda: faces.project(fresh))
    report("project 256 images at 32x32", seconds, "s", "at most 8")
    points = faces.render(knobs[:2000], 32).flatten(1)
    seconds = median_seconds(runs, lambda: metrics.two_nn_dimension(points))
    report("TwoNN of 2,000 images at 32x32", seconds, "s")


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs")
    runs, images = (3, 1024) if parser.parse_args().quick else (7, 4096)
    print(
        f"{timing.machine()}; batch {BATCH}, medians of {runs} runs of {images} images"
    )
    timing.header("what", "value", "unit", "goal")
    families(runs, images)
    loop(runs, images)
    tutorial_network(runs, images)
    referee(min(runs, 3))


if __name__ == "__main__":
    command.run(main)
