"""The settings of a run: read once from the command line, checked before it starts."""

import argparse
import math
import os
from dataclasses import asdict, dataclass
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
# Options of one family only.
OWN = dict.fromkeys(["beta", "s2"], "vae")
OWN |= dict.fromkeys(["r1", "ema", "spectral_norm", "minibatch_std"], "gan")
# A resumed run may change these; any other would make it a different run.
FREE = ["epochs", "steps", "checkpoint_every", "resume", "out", "accelerator"]
FREE += ["devices", "data_root"]


class Problem(Exception):
    """What the user must know and do; `code` is the exit code."""

    def __init__(self, message: str, code: int = 2) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Settings:
    """One field per option of `gencourse train`; None leaves the choice to the code."""

    model: str
    data: str | Path  # the name of a data set, or a folder
    out: Path
    resume: bool
    epochs: int | None
    steps: int | None
    batch_size: int
    lr: float | None
    seed: int
    size: int
    channels: int | None
    train_size: int | None
    latent_dim: int | None
    width: int
    beta: float | None
    s2: float | str | None
    r1: float | None
    ema: float | None
    spectral_norm: bool | None
    minibatch_std: bool | None
    precision: str
    accelerator: str
    devices: int | None
    checkpoint_every: int
    data_root: Path | None

    def decisive(self) -> dict[str, Any]:
        """Those that decide the numbers of a run, ready for JSON."""
        values = asdict(self) | {"data": str(self.data)}
        return {name: value for name, value in values.items() if name not in FREE}

    def load_images(self) -> data.Images:
        return data.load(
            self.data,
            self.size,
            channels=self.channels,
            train_size=self.train_size,
            seed=self.seed,
            root=self.data_root,
        ).train

    def build(self, channels: int, device: torch.device | str) -> Any:
        """The step, with a new model in it."""
        model_class, step_class = FAMILIES[self.model]

        def chosen(*names: str) -> dict[str, Any]:
            values = {name: getattr(self, name) for name in names}
            return {name: value for name, value in values.items() if value is not None}

        of_model = chosen("latent_dim", "width", "spectral_norm", "minibatch_std")
        of_step = chosen("lr", "beta", "r1", "ema")
        (of_step if self.s2 == "optimal" else of_model).update(chosen("s2"))
        model = model_class(size=self.size, channels=channels, **of_model).to(device)
        if self.model != "autoencoder":
            of_step["rng"] = torch.Generator("cpu").manual_seed(self.seed)
        return step_class(model, **of_step)

    def check_batch(self, processes: int) -> None:
        if self.batch_size % processes:
            even = max(1, self.batch_size // processes) * processes
            raise Problem(
                f"--batch-size {self.batch_size} cannot be divided evenly among "
                f"{processes} processes: use {even}"
            )


def parse(arguments: list[str] | None = None) -> Settings:
    """Read and check the command line; None reads that of this process.

    Raises:
        Problem: A value is impossible.
        SystemExit: argparse does not understand the command line.
    """
    values = vars(_parser().parse_args(arguments))
    del values["command"]
    for name, value in values.items():
        option = "--" + name.replace("_", "-")
        if value is not None and OWN.get(name, values["model"]) != values["model"]:
            raise Problem(f"{option} is for {OWN[name]}, not for {values['model']}")
        if type(value) is int and value < 1 and name != "seed":
            raise Problem(f"{option} must be at least 1, got {value}")
        if type(value) is float and not 0 <= value < math.inf:
            raise Problem(f"{option} must be finite and at least 0, got {value}")
    # Beyond these float32 holds zero or infinity.
    if type(values["s2"]) is float and not 1e-37 < values["s2"] < 1e37:
        raise Problem(f"--s2 must be from 1e-37 to 1e37, got {values['s2']}")
    if not 0 <= values["seed"] < 2**32:
        raise Problem(f"--seed must be from 0 to 2**32 - 1, got {values['seed']}")
    cores = os.cpu_count() or 1
    if (values["devices"] or 1) > 2 * cores:
        raise Problem(
            f"--devices {values['devices']} is too many for the {cores} cores of this "
            f"machine: use at most {2 * cores}"
        )
    try:
        values["data"] = resolve(values["data"], data.NAMES)
        settings = Settings(**values)
        # Takes no memory, but a wrong size or latent dimension raises an error.
        with torch.device("meta"):
            settings.build(settings.channels or 3, "meta")
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        raise Problem(str(error)) from error
    settings.check_batch(settings.devices or 1)
    return settings


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gencourse", description="How machines generate images."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser(
        "train",
        help="train a model on one or many devices",
        description="Train a model on one or many devices, with checkpoints. "
        "See docs/scaling.md.",
    )
    add = train.add_argument
    add("model", choices=FAMILIES)
    add("data", help=f"{', '.join(data.NAMES)}, or a folder of images")
    add("--out", required=True, type=_path, help="folder for everything the run writes")
    add("--resume", action="store_true", help="continue from the last checkpoint")

    until = train.add_mutually_exclusive_group()
    until.add_argument("--epochs", type=int, help="passes over the data (default 10)")
    until.add_argument("--steps", type=int, help="updates, instead of epochs")
    add("--batch-size", type=int, default=128, help="of all processes together (128)")
    add("--lr", type=float, help="learning rate of Adam")
    add("--seed", type=int, default=0)

    add("--size", type=int, default=32, help="side of the images (32)")
    add("--channels", type=int, choices=(1, 3), help="gray or RGB (as in the data)")
    add("--train-size", type=int, help="images to train on (all)")
    add("--latent-dim", type=int, help="numbers per code")
    add("--width", type=int, default=16, help="channels of the first convolution (16)")
    add("--beta", type=float, help="vae: weight of the KL")
    add("--s2", type=variance, help="vae: the decoder's variance, or 'optimal'")
    add("--r1", type=float, help="gan: gamma of the R1 penalty")
    add("--ema", type=float, help="gan: decay of the averaged generator, e.g. 0.999")
    switch = {"action": "store_const", "const": True}
    add("--spectral-norm", **switch, help="gan: bound the discriminator's slope")
    add("--minibatch-std", **switch, help="gan: let it see how much images differ")

    add("--precision", choices=("32", "bf16"), default="32")
    add("--accelerator", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    add("--devices", type=int, help="processes per machine (all GPUs, or one CPU)")
    add("--checkpoint-every", type=int, default=500, help="in steps (500)")
    add("--data-root", type=_path, help="folder for downloads and caches")
    return parser


def _path(text: str) -> Path:
    # A shell leaves the tilde in --out=~/runs as it is.
    path = os.path.expanduser(text)
    if path.startswith("~"):
        raise argparse.ArgumentTypeError(
            f"there is no home folder for {text}: write the path in full"
        )
    return Path(path)


def variance(text: str) -> float | str:
    return text if text == "optimal" else float(text)
