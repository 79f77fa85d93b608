"""Seconds of training until a given quality: tables in Markdown, for the docs.

python -m tools.measure.quality [--seeds 3] [--limit 45] [--data-root FOLDER]

A VAE trains until it reaches given ELBOs on handwriting, and an autoencoder until it
reaches given errors on faces, both on images that were not trained on. The course's way
(`train.fit` and the steps with their defaults; once with the batch of 16 and the single
thread of the lessons) runs in turns with the common way of tools/measure/speed.py: the
same network, with Adam's usual rate and with ours, the 784-400-20 network of PyTorch's
examples, and the autoencoder of the UvA's tutorial 9. The clock stops while the quality
is measured. If pythae is installed (pip install pythae), its models and its trainer
compete too.

The handwriting is MNIST if it is in the data folder, and scikit-learn's digits if not.
It is made black and white, so that the Bernoulli likelihood is a likelihood and its
ELBO a bound.
"""

import contextlib
import importlib.util
import io
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from gencourse import data, losses, train
from gencourse.models import VAE, Autoencoder
from gencourse.steps import AutoencoderStep, VAEStep
from tools import command
from tools.measure import speed, timing

BATCH = 128
# Where to stop the clock: nats per digit, and squared error per face.
NATS = {"mnist": (150, 130, 115, 105), "digits": (200, 150, 130, 120)}
ERRORS = (60, 30, 15, 10)


class Race:
    """A stopwatch: the seconds until a quality falls to each target."""

    def __init__(self, targets: tuple[int, ...], limit: float) -> None:
        self.targets, self.limit = targets, limit
        self.reached: dict[int, float] = {}
        self.seconds, self.epochs, self.start = 0.0, 0, time.perf_counter()

    def lap(self, quality: Callable[[], float]) -> bool:
        """Stop the clock, measure, start it again; return whether the race is over."""
        self.seconds += time.perf_counter() - self.start
        self.epochs += 1
        value = quality()
        for target in self.targets:
            if value <= target and self.seconds <= self.limit:
                self.reached.setdefault(target, self.seconds)
        self.start = time.perf_counter()
        return len(self.reached) == len(self.targets) or self.seconds > self.limit

    def run(self, epoch: Callable[[], object], quality: Callable[[], float]) -> None:
        self.start = time.perf_counter()
        while True:
            epoch()
            if self.lap(quality):
                return


# --- what is measured -----------------------------------------------------------------
@torch.no_grad()
def negative_elbo(
    x: Tensor,
    encode: Callable[[Tensor], tuple[Tensor, Tensor]],
    logits: Callable[[Tensor], Tensor],
) -> float:
    """Return nats per image, with one draw of z from the same generator every time."""
    total, rng = 0.0, torch.Generator().manual_seed(0)
    for part in x.split(500):
        mu, logvar = encode(part)
        z = mu + torch.exp(0.5 * logvar) * torch.randn(mu.shape, generator=rng).to(mu)
        nll = losses.bernoulli_nll(part, logits(z))
        total -= losses.elbo(nll, losses.kl_to_prior(mu, logvar)).sum().item()
    return total / len(x)


@torch.no_grad()
def error(x: Tensor, reconstruct: Callable[[Tensor], Tensor]) -> float:
    """Return the mean squared error per image, summed over its pixels."""
    parts = [losses.squared_error(p, reconstruct(p)).sum() for p in x.split(500)]
    return sum(part.item() for part in parts) / len(x)


# --- the contestants ------------------------------------------------------------------
def ours(
    step: Callable,
    images: data.Images,
    race: Race,
    quality: Callable,
    batch: int = BATCH,
) -> None:
    batches = images.to(timing.DEVICE).batches(batch)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads if batch == BATCH else 1)  # as in the lessons
    try:
        race.run(lambda: train.fit(step, batches, epochs=1), quality)
    finally:
        torch.set_num_threads(threads)


def common(step: Callable, images: data.Images, race: Race, quality: Callable) -> None:
    loader = speed.data_loader(images[:], BATCH)
    race.run(lambda: [step(x) for x, _ in loader], quality)


def pythae(
    model: nn.Module, images: data.Images, race: Race, quality: Callable
) -> None:
    """Run a public library's trainer, with our batch size and its rate of 0.001."""
    from pythae.data.datasets import BaseDataset
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.trainers.training_callbacks import TrainingCallback

    class Over(Exception):
        pass

    class Clock(TrainingCallback):
        def on_train_begin(self, *_: object, **__: object) -> None:
            race.start = time.perf_counter()

        def on_epoch_end(self, *_: object, **__: object) -> None:
            model.eval()
            if race.lap(quality):
                raise Over

    with tempfile.TemporaryDirectory() as folder:
        config = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=10_000,
            learning_rate=1e-3,
            per_device_train_batch_size=BATCH,
            no_cuda=timing.DEVICE.type == "cpu",
            seed=torch.initial_seed() % 2**32,
        )
        rows = BaseDataset(images[:].contiguous(), torch.zeros(len(images)))
        trainer = BaseTrainer(model, rows, training_config=config, callbacks=[Clock()])
        with contextlib.suppress(Over), contextlib.redirect_stderr(io.StringIO()):
            trainer.train()


def vae_contest(images: data.Images, test: Tensor) -> dict[str, Callable]:
    """Return run(race) for each name; every run trains a new model."""
    vae = partial(VAE, size=28, channels=1, latent_dim=20)
    x = test.contiguous().to(timing.DEVICE)

    def of(model: nn.Module, logits: Callable | None = None) -> Callable[[], float]:
        return lambda: negative_elbo(x, model.encode, logits or model.decoder)

    def course(race: Race, make: Callable = vae, batch: int = BATCH) -> None:
        model = make().to(timing.DEVICE)
        ours(VAEStep(model, likelihood="bernoulli"), images, race, of(model), batch)

    def usual(race: Race, make: Callable = vae, lr: float = 1e-3) -> None:
        model = make().to(timing.DEVICE, memory_format=torch.contiguous_format)
        common(speed.common_vae(model, lr), images, race, of(model))

    def peer(race: Race) -> None:
        from pythae.models import VAE as PeerVAE
        from pythae.models import VAEConfig

        model = PeerVAE(VAEConfig((1, 28, 28), 20, reconstruction_loss="bce"))

        def encode(x: Tensor) -> tuple[Tensor, Tensor]:
            out = model.encoder(x)
            return out.embedding, out.log_covariance

        def logits(z: Tensor) -> Tensor:
            return model.decoder(z).reconstruction.reshape(-1, 1, 28, 28).logit(1e-7)

        pythae(model, images, race, lambda: negative_elbo(x, encode, logits))

    return {
        "the course": course,
        "the course, batch 16": partial(course, batch=16),
        "common way": usual,
        "common way, our rate": partial(usual, lr=4e-3),
        "784-400-20, the course": partial(course, make=speed.MlpVAE),
        "784-400-20, common way": partial(usual, make=speed.MlpVAE),
        "pythae": peer,
    }


def autoencoder_contest(images: data.Images, test: Tensor) -> dict[str, Callable]:
    test = test.to(timing.DEVICE)

    def course(race: Race, batch: int = BATCH) -> None:
        model = Autoencoder(latent_dim=16).to(timing.DEVICE)
        ours(AutoencoderStep(model), images, race, lambda: error(test, model), batch)

    def usual(race: Race, lr: float = 1e-3, make: Callable = Autoencoder) -> None:
        model = make(latent_dim=16)
        model.to(timing.DEVICE, memory_format=torch.contiguous_format)
        step = speed.common_autoencoder(model, lr)
        common(step, images, race, lambda: error(test, model))

    def peer(race: Race) -> None:
        from pythae.models import AE, AEConfig

        model, x = AE(AEConfig((3, 32, 32), 16)), test.contiguous()

        def reconstruct(x: Tensor) -> Tensor:
            code = model.encoder(x).embedding
            return model.decoder(code).reconstruction.reshape(x.shape)

        pythae(model, images, race, lambda: error(x, reconstruct))

    return {
        "the course": course,
        "the course, batch 16": partial(course, batch=16),
        "common way": usual,
        "common way, our rate": partial(usual, lr=4e-3),
        "UvA's tutorial 9": partial(usual, make=speed.UvAAutoencoder),
        "pythae": peer,
    }


# --- tables ---------------------------------------------------------------------------
def contest(
    title: str,
    targets: tuple,
    contestants: dict[str, Callable],
    seeds: int,
    limit: float,
) -> None:
    """Let all contestants run in turns, once for each seed, and print the medians."""
    if importlib.util.find_spec("pythae") is None:
        contestants.pop("pythae")
    races: dict[str, list[Race]] = {name: [] for name in contestants}
    for run in contestants.values():  # fills caches and starts thread pools
        run(Race(targets, limit=0.5))
    order = list(contestants)
    for seed in range(seeds):
        for name in order:
            train.seed_everything(seed)
            races[name].append(Race(targets, limit))
            with contextlib.suppress(train.TrainingDiverged):  # it misses its targets
                contestants[name](races[name][-1])
        order = order[2:] + order[:2]  # so that nobody is always first
    medians = {
        name: [
            statistics.median(race.reached.get(target, math.inf) for race in runs)
            for target in targets
        ]
        for name, runs in races.items()
    }
    print()
    timing.header(title, "an epoch", *targets)
    for name, seconds in medians.items():
        epoch = statistics.median(race.seconds / race.epochs for race in races[name])
        cells = []
        for taken, ours in zip(seconds, medians["the course"], strict=True):
            ratio = f" ({taken / ours:.1f})" if math.isfinite(ours) else ""
            late = f"not in {limit:.0f}"
            cells.append(f"{taken:.1f}{ratio}" if math.isfinite(taken) else late)
        timing.row(name, f"{epoch:.2f}", *cells)


def handwriting(root: Path | None) -> data.Dataset:
    """Return MNIST if it is in the data folder, and scikit-learn's digits if not."""
    sizes = {"train_size": 8000, "test_size": 2000}
    try:
        return data.load("mnist", 28, root=root, download=False, **sizes)
    except FileNotFoundError:
        return data.load("digits", 28)


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=45, help="seconds for each run")
    parser.add_argument("--data-root", type=Path, help="folder that holds MNIST/raw")
    options = parser.parse_args()
    print(
        f"{timing.machine()}; medians of {options.seeds} seeds, batch {BATCH}; in "
        "brackets: the median over that of the course"
    )
    started = time.perf_counter()
    digits = handwriting(options.data_root)
    images = data.Images((digits.train[:] > 0.5).float())
    contest(
        f"VAE on {len(images):,} of {digits.name}: seconds to an ELBO of minus",
        NATS[digits.name],
        vae_contest(images, (digits.test[:] > 0.5).float()),
        options.seeds,
        options.limit,
    )
    drawn = data.load("faces", 32, train_size=8000, test_size=1000)
    contest(
        "autoencoder on 8,000 faces: seconds to a squared error of",
        ERRORS,
        autoencoder_contest(drawn.train, drawn.test[:]),
        options.seeds,
        options.limit,
    )
    print(f"\n{time.perf_counter() - started:.0f} s in all")


if __name__ == "__main__":
    command.run(main)
