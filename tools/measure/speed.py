"""How fast the course is here: `make bench`, or python -m tools.measure.speed --quick.

Each number is the median of several runs. What is compared runs in turns within one
process, so that a busy machine slows both alike. The common way is a plain loop over a
DataLoader with torchvision's transforms, the same network in torch's default memory
format and the default Adam.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from gencourse import data, faces, metrics, train
from gencourse.models import GAN, VAE, Autoencoder
from gencourse.sources.download import torchvision
from gencourse.steps import AutoencoderStep, GANStep, VAEStep

BATCH, MLP_BATCH = 128, 256
DEVICE = train.best_device()


class MlpVAE(nn.Module):
    """The 784-400-20 VAE of many tutorials, with the verbs that VAEStep asks for."""

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


# --- the common way -------------------------------------------------------------------
def data_loader(images: Tensor, batch: int, classic: bool = False) -> Iterable:
    """A DataLoader over pictures, as torchvision's MNIST and CIFAR give them.

    With the transforms that torchvision's documentation recommends, or the classic one.
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


def common_autoencoder(
    model: Autoencoder, lr: float = 1e-3
) -> Callable[[Tensor], None]:
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


# --- measuring ------------------------------------------------------------------------
def seconds_in_turns(
    runs: int, *contestants: Callable[[], object]
) -> list[list[float]]:
    """Seconds of each contestant in each round, after one round to warm up."""
    times: list[list[float]] = [[] for _ in contestants]
    for turn in range(runs + 1):
        for taken, contestant in zip(times, contestants, strict=True):
            start = time.perf_counter()
            contestant()
            if DEVICE.type == "cuda":
                torch.cuda.synchronize()
            if turn:
                taken.append(time.perf_counter() - start)
    return times


def ratio(slow: list[float], fast: list[float]) -> float:
    return statistics.median(s / f for s, f in zip(slow, fast, strict=True))


def measure(runs: int, images: int) -> list[dict]:
    """Every number, as a dict with what, value, unit, goal and reached."""
    rows: list[dict] = []

    def report(what, value, unit, sense="", target=0.0):
        goal = f"{sense} {target:,}" if sense else ""
        reached = value >= target if sense == "at least" else value <= target
        row = dict(what=what, value=value, unit=unit, goal=goal)
        rows.append(row | dict(reached=reached if sense else None))
        number = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
        verdict = ("reached" if reached else "MISSED") if sense else ""
        print(f"{what:34} {number:>9} {unit:13} {goal:15} {verdict}".rstrip())
        sys.stdout.flush()

    rgb = data.load("faces", 32, train_size=images, test_size=1).train
    ready = rgb.to(DEVICE)  # the course's way with data that fit
    loader = data_loader(rgb[:], BATCH)
    for model_class, make_step, make_common, target in (
        (Autoencoder, AutoencoderStep, common_autoencoder, 4000),
        (VAE, VAEStep, common_vae, 4000),
        (GAN, GANStep, common_gan, 1500),
    ):
        step = make_step(model_class().to(DEVICE))
        plain = model_class().to(DEVICE, memory_format=torch.contiguous_format)
        common = make_common(plain)
        batches = ready.batches(BATCH)
        ours, theirs = seconds_in_turns(
            runs,
            lambda step=step, batches=batches: train.fit(step, batches, epochs=1),
            lambda common=common: [common(x) for x, _ in loader],
        )
        name = f"{model_class.__name__}, 3x32x32, width 16"
        speed = images / statistics.median(ours)
        report(name, speed, "images/s", "at least", target)
        report("  against the common way", ratio(theirs, ours), "times")

    step, batches = AutoencoderStep(Autoencoder().to(DEVICE)), ready.batches(BATCH)

    def bare() -> None:
        for x in batches:
            step(x)

    alone, fitted = seconds_in_turns(
        3 * runs, bare, lambda: train.fit(step, batches, epochs=1)
    )
    cost = 100 * (ratio(fitted, alone) - 1)
    report("fit over the bare loop", cost, "%", "at most", 3)
    empty = [rgb[:BATCH]] * 2000
    nothing = {"loss": 1.0}
    (taken,) = seconds_in_turns(
        runs, lambda: train.fit(lambda x: nothing, empty, epochs=1)
    )
    cost = statistics.median(taken) / len(empty) * 1e6
    report("  its own time per step", cost, "microseconds")

    gray = data.load("faces", 28, channels=1, train_size=images, test_size=1).train
    loader = data_loader(gray[:], MLP_BATCH)
    classic = data_loader(gray[:], MLP_BATCH, classic=True)
    step = VAEStep(MlpVAE().to(DEVICE), likelihood="bernoulli")
    common, ready = common_vae(MlpVAE().to(DEVICE)), gray.to(DEVICE)
    ours, theirs, with_classic = seconds_in_turns(
        runs,
        lambda: train.fit(step, ready.batches(MLP_BATCH), epochs=1),
        lambda: [common(x) for x, _ in loader],
        lambda: [common(x) for x, _ in classic],
    )
    speed = images / statistics.median(ours)
    report(f"VAE 784-400-20, batch {MLP_BATCH}", speed, "images/s")
    report("  against the common way", ratio(theirs, ours), "times", "at least", 4)
    report("  against the classic ToTensor", ratio(with_classic, ours), "times")

    knobs = faces.sample_knobs(20_000)
    (taken,) = seconds_in_turns(min(runs, 3), lambda: faces.render(knobs, 32))
    report("render 20,000 faces at 32x32", statistics.median(taken), "s", "at most", 4)
    fresh = faces.render(faces.sample_knobs(256, seed=1), 32)
    (taken,) = seconds_in_turns(min(runs, 3), lambda: faces.project(fresh))
    report("project 256 images at 32x32", statistics.median(taken), "s", "at most", 8)
    points = faces.render(knobs[:2000], 32).flatten(1)
    (taken,) = seconds_in_turns(min(runs, 3), lambda: metrics.two_nn_dimension(points))
    report("TwoNN of 2,000 images at 32x32", statistics.median(taken), "s")
    return rows


def machine() -> str:
    """What the numbers were measured with."""
    name = (
        f"torch {torch.__version__}, Python {platform.python_version()}, "
        f"{torch.get_num_threads()} threads on {os.cpu_count()} cores"
    )
    if DEVICE.type == "cuda":
        name += f", {torch.cuda.get_device_name()}"
    return name + (
        f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    options = parser.parse_args()
    runs, images = (3, 1024) if options.quick else (7, 4096)
    here = machine()
    print(f"{here}; batch {BATCH}, medians of {runs} runs of {images} images")
    rows = measure(runs, images)
    missed = sum(row["reached"] is False for row in rows)
    print("all targets reached" if not missed else f"{missed} target(s) missed")
    if options.json:
        text = json.dumps({"machine": here, "rows": rows}, indent=1)
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
