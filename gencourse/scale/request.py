"""What the command line asks for, and which requests are impossible."""

import argparse
from pathlib import Path
from typing import Any

import torch

from gencourse import data, models, steps
from gencourse.sources.source import resolve

FAMILIES = {
    "autoencoder": (models.Autoencoder, steps.AutoencoderStep),
    "vae": (models.VAE, steps.VAEStep),
    "gan": (models.GAN, steps.GANStep),
}
# What belongs to one family only.
OWN = dict.fromkeys(["beta", "s2"], "vae")
OWN |= dict.fromkeys(["r1", "ema", "spectral_norm", "minibatch_std"], "gan")
# What may change when a run goes on; anything else would make it another run.
FREE = ["epochs", "steps", "accumulate", "checkpoint_every", "resume", "out", "command"]
FREE += ["accelerator", "devices", "data_root"]


class Problem(Exception):
    """What to say, in plain words (nothing, where another process says it)."""

    def __init__(self, message: str, code: int = 2) -> None:
        super().__init__(message)
        self.code = code


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gencourse", description="How machines generate images."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    sub = commands.add_parser(
        "train",
        help="train a model on one or many devices",
        description="Train a model on one or many devices, with checkpoints. "
        "docs/scaling.md tells more.",
    )
    add = sub.add_argument
    add("model", choices=FAMILIES)
    add("data", help=f"{', '.join(data.NAMES)}, or a folder of images")
    add("--out", required=True, type=Path, help="folder for all that the run writes")
    add("--resume", action="store_true", help="go on from the folder's last checkpoint")

    until = sub.add_mutually_exclusive_group()
    until.add_argument("--epochs", type=int, help="passes over the data (default 10)")
    until.add_argument("--steps", type=int, help="updates, instead of epochs")
    add("--batch-size", type=int, default=128, help="of all processes together (128)")
    add("--accumulate", type=int, default=1, help="parts of a process's share (1)")
    add("--lr", type=float, help="learning rate of Adam")
    add("--seed", type=int, default=0)

    add("--size", type=int, default=32, help="side of the images (32)")
    add("--channels", type=int, choices=(1, 3), help="gray or RGB (as in the data)")
    add("--train-size", type=int, help="images to train on (all)")
    add("--latent-dim", type=int, help="numbers per code")
    add("--width", type=int, default=16, help="channels of the first convolution (16)")
    add("--beta", type=float, help="vae: weight of the KL")
    add("--s2", type=_variance, help="vae: the decoder's variance, or 'optimal'")
    add("--r1", type=float, help="gan: gamma of the R1 penalty")
    add("--ema", type=float, help="gan: decay of the averaged generator, e.g. 0.999")
    switch = {"action": "store_const", "const": True}
    add("--spectral-norm", **switch, help="gan: bound the discriminator's slope")
    add("--minibatch-std", **switch, help="gan: let it see how much images differ")

    add("--precision", choices=("32", "bf16"), default="32")
    add("--accelerator", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    add("--devices", type=int, help="processes per machine (all GPUs, or one CPU)")
    add("--checkpoint-every", type=int, default=500, help="in steps (500)")
    add("--data-root", type=Path, help="folder of downloads and caches")
    return parser


def _variance(text: str) -> float | str:
    return text if text == "optimal" else float(text)


def check(asked: argparse.Namespace) -> None:
    """Raise Problem for what can be seen to be wrong before anything starts."""
    for name, value in vars(asked).items():
        option = "--" + name.replace("_", "-")
        if value is not None and OWN.get(name, asked.model) != asked.model:
            raise Problem(f"{option} is for {OWN[name]}, not for {asked.model}")
        if type(value) is int and value < 1 and name != "seed":
            raise Problem(f"{option} must be at least 1, got {value}")
    if not 0 <= (asked.beta or 0) < float("inf"):
        raise Problem(f"--beta is a weight >= 0, got {asked.beta}")
    check_batch(asked, asked.devices or 1)
    try:
        resolve(asked.data, data.NAMES)
        # Nothing is allocated: a wrong size or latent dimension shows here.
        with torch.device("meta"):
            build(asked, channels=asked.channels or 3)
    except (ValueError, TypeError, FileNotFoundError) as error:
        raise Problem(str(error)) from error


def settings_of(asked: argparse.Namespace) -> dict[str, Any]:
    """What decides the numbers of a run."""
    return {k: v for k, v in vars(asked).items() if k not in FREE}


def load_images(asked: argparse.Namespace) -> data.Images:
    return data.load(
        asked.data,
        asked.size,
        channels=asked.channels,
        train_size=asked.train_size,
        seed=asked.seed,
        root=asked.data_root,
    ).train


def build(
    asked: argparse.Namespace,
    channels: int,
    device: torch.device | str = "meta",
    seed: int = 0,
) -> Any:
    """The step, with a new model in it."""
    model_class, step_class = FAMILIES[asked.model]

    def given(*names: str) -> dict[str, Any]:
        found = {name: getattr(asked, name) for name in names}
        return {name: value for name, value in found.items() if value is not None}

    options = given("latent_dim", "width", "spectral_norm", "minibatch_std")
    how = given("lr", "beta", "r1", "ema")
    (how if asked.s2 == "optimal" else options).update(given("s2"))
    model = model_class(size=asked.size, channels=channels, **options).to(device)
    if asked.model != "autoencoder":
        how["rng"] = torch.Generator("cpu").manual_seed(seed)
    return step_class(model, **how)


def check_batch(asked: argparse.Namespace, processes: int) -> None:
    parts = processes * asked.accumulate
    if asked.batch_size % parts:
        raise Problem(
            f"--batch-size {asked.batch_size} cannot be divided by {processes} "
            f"processes x --accumulate {asked.accumulate} = {parts} equal parts: take "
            f"{max(1, round(asked.batch_size / parts)) * parts}"
        )
