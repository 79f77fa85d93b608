"""`gencourse train`: the lessons' steps on one or many devices, for hours or days.

    gencourse train vae faces --out runs/vae --epochs 20
    gencourse train vae faces --out runs/vae --epochs 20 --resume

Lightning Fabric starts the processes and carries tensors between them. Each process
holds the whole model and takes its share of every batch; gradients are averaged before
each update, so that all copies stay equal. What is exact and what is not, and the lines
for torchrun and Slurm, stand in docs/scaling.md. May be skipped at first reading.
"""

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gencourse import data, files, models, steps, train

FAMILIES = {
    "autoencoder": (models.Autoencoder, steps.AutoencoderStep),
    "vae": (models.VAE, steps.VAEStep),
    "gan": (models.GAN, steps.GANStep),
}
# What belongs to one family only.
OWN = {
    "beta": "vae",
    "s2": "vae",
    "r1": "gan",
    "ema": "gan",
    "spectral_norm": "gan",
    "minibatch_std": "gan",
}
# What may change when a run goes on; anything else would make it another run.
FREE = ["epochs", "steps", "accumulate", "checkpoint_every", "resume", "out", "command"]
FREE += ["accelerator", "devices", "nodes", "data_root", "no_download"]
KEPT = 2
_FORMAT = "gencourse checkpoint 1"

NO_FABRIC = """\
`gencourse train` needs Lightning Fabric, which is not installed here:
  pip install "lightning-fabric>=2.5"
(In the folder of the course: pip install -c constraints.txt -e ".[scale]")"""


class Problem(Exception):
    """Something that the caller can mend, in plain words."""


# --- the command ----------------------------------------------------------------------
def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0 is success, 2 a wrong request, 1 a failed training.

    A run stopped by Ctrl-C or SIGTERM gives 130 or 143, as the shell expects.
    """
    asked = _parser().parse_args(arguments)
    try:
        check(asked)
        fabric = _fabric(asked)
    except Problem as problem:
        print(f"gencourse train: {problem}", file=sys.stderr)
        return 2
    patience = 0
    try:
        code = run(asked, fabric)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        patience = 60
    except Problem as problem:
        if str(problem):
            print(f"gencourse train: {problem}", file=sys.stderr, flush=True)
        code, patience = 2, 10
    except FloatingPointError as error:
        if fabric.global_rank == 0:
            print(f"gencourse train: {error}", file=sys.stderr, flush=True)
        code, patience = 1, 10
    finally:
        _end(getattr(fabric.strategy.launcher, "procs", []), patience)
    # Fabric kills the whole run when a process that it started reports a failure, which
    # could cut the message of the first one short.
    return code if fabric.local_rank == 0 else 0


def _end(children: list[subprocess.Popen], patience: float) -> None:
    """Leave no process behind that waits for this one."""
    for child in children:
        try:
            child.wait(patience)
        except subprocess.TimeoutExpired:
            child.kill()


def _parser() -> argparse.ArgumentParser:
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
    add("--s2", help="vae: the decoder's variance, or 'optimal'")
    add("--r1", type=float, help="gan: gamma of the R1 penalty")
    add("--ema", type=float, help="gan: decay of the averaged generator, e.g. 0.999")
    switch = {"action": "store_const", "const": True}
    add("--spectral-norm", **switch, help="gan: bound the discriminator's slope")
    add("--minibatch-std", **switch, help="gan: let it see how much images differ")

    add("--precision", choices=("32", "bf16"), default="32")
    add("--accelerator", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    add("--devices", type=int, help="processes per machine (all GPUs, or one CPU)")
    add("--nodes", type=int, help="machines (as torchrun or Slurm say, else 1)")
    add("--checkpoint-every", type=int, default=500, help="in steps (500)")
    add("--data-root", type=Path, help="folder of downloads and caches")
    add("--no-download", action="store_true")
    return parser


def check(asked: argparse.Namespace) -> None:
    """Raise Problem for what can be seen to be wrong before anything starts."""
    for name, family in OWN.items():
        if getattr(asked, name) is not None and asked.model != family:
            option = "--" + name.replace("_", "-")
            raise Problem(f"{option} is for {family}, not for {asked.model}")
    least_one = ["epochs", "steps", "batch_size", "accumulate", "checkpoint_every"]
    least_one += ["latent_dim", "width", "train_size", "devices", "nodes"]
    for name in least_one:
        value = getattr(asked, name)
        if value is not None and value < 1:
            option = "--" + name.replace("_", "-")
            raise Problem(f"{option} must be at least 1, got {value}")
    if asked.s2 not in (None, "optimal"):
        try:
            float(asked.s2)
        except ValueError:
            raise Problem(f"--s2 is a number or 'optimal', got {asked.s2!r}") from None
    try:
        files.resolve(asked.data, data.NAMES)
        # Nothing is allocated: a wrong size or latent dimension shows here.
        with torch.device("meta"):
            _build(asked, channels=asked.channels or 3)
    except (ValueError, TypeError, FileNotFoundError) as error:
        raise Problem(str(error)) from error


def settings_of(asked: argparse.Namespace) -> dict[str, Any]:
    """What decides the numbers of a run."""
    return {k: v for k, v in vars(asked).items() if k not in FREE}


def _fabric(asked: argparse.Namespace) -> Any:
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise Problem(NO_FABRIC) from error
    for name in ("lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    devices, nodes = _processes(asked, os.environ)
    precision = {"32": "32-true", "bf16": "bf16-mixed"}[asked.precision]
    try:
        return Fabric(
            accelerator=asked.accelerator,
            devices=devices or "auto",
            num_nodes=nodes,
            precision=precision,
        )
    except (ValueError, RuntimeError) as error:
        raise Problem(f"these devices cannot be had: {error}") from error


def _processes(asked: argparse.Namespace, environ: Any) -> tuple[int | None, int]:
    """Processes per machine (None: Fabric decides) and machines.

    Whoever started us, torchrun or srun, has said it in the environment.
    """
    devices, nodes = asked.devices, asked.nodes
    if "LOCAL_WORLD_SIZE" in environ:  # torchrun
        local = int(environ["LOCAL_WORLD_SIZE"])
        found = local, int(environ["WORLD_SIZE"]) // local
    elif "SLURM_STEP_NUM_TASKS" in environ and "SLURM_NTASKS" in environ:  # srun
        found_nodes = int(environ.get("SLURM_STEP_NUM_NODES", 1))
        found = int(environ["SLURM_STEP_NUM_TASKS"]) // found_nodes, found_nodes
    else:
        return devices, nodes or 1
    if (devices or found[0], nodes or found[1]) != found:
        raise Problem(
            f"--devices {devices} --nodes {nodes} was asked for, but {found[0]} "
            f"processes on each of {found[1]} machines were started: leave both out"
        )
    return found


# --- a run ----------------------------------------------------------------------------
def run(asked: argparse.Namespace, fabric: Any) -> int:
    """Train on all processes; returns the exit code."""
    try:
        fabric.launch()
    except (ValueError, RuntimeError) as error:
        raise Problem(f"the processes could not be started: {error}") from error
    first = fabric.global_rank == 0
    # Fast algorithms whose sums vary from run to run would make no run repeatable.
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False

    images = problem = folder = saved = step = None
    with fabric.rank_zero_first(local=True):  # one process fills the cache for all
        try:
            images = _load(asked)
        except (ValueError, FileNotFoundError, RuntimeError, OSError) as error:
            problem = str(error)
    _agree(fabric, problem)
    try:
        _check_batch(asked, len(images), fabric.world_size)
        train.seed_everything(asked.seed)
        channels = images.pixels.shape[1]
        step = _build(asked, channels, fabric.device, asked.seed)
        if first:
            folder = Folder(asked.out, settings_of(asked), asked.resume)
            saved = folder.latest()
    except (Problem, ValueError) as error:
        problem = str(error)
    _agree(fabric, problem)

    if fabric.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(fabric.device)
        if images.pixels.nbytes < free / 4:
            images = images.to(fabric.device)
    batches = data.Batches(_Rows(len(images)), asked.batch_size, True, asked.seed, True)
    total = asked.steps or (asked.epochs or 10) * len(batches)
    if saved is None:
        (rows,) = islice(batches, 1)
        steps.start(step.model, images[rows].to(fabric.device))
    # Sent to all even at the start: processors of two kinds may draw other weights.
    restore(step, *fabric.broadcast(saved or snapshot(step)))

    noise = _SharedNoise(step)
    share(step, fabric, noise, asked.accumulate)
    if first:
        folder.begin(step.steps_done)
        print(_opening(asked, images, fabric, step.steps_done, total), flush=True)

    written = step.steps_done
    mark = time.perf_counter(), step.steps_done
    with _Stop() as stop, noise:
        pressed = 0
        while step.steps_done < total and not pressed:
            batches.epoch, skip = divmod(step.steps_done, len(batches))
            epoch = batches.epoch + 1
            for rows in islice(batches, skip, None):
                mine = rows.chunk(fabric.world_size)[fabric.global_rank]
                try:
                    values = step(images[mine])
                except FloatingPointError as error:
                    raise FloatingPointError(
                        f"training stopped at step {step.steps_done + 1}: {error}. The "
                        f"last checkpoint is of step {written}. Start anew in another "
                        "folder with a smaller --lr, and with --precision 32"
                    ) from error
                done = step.steps_done
                pressed = stop.agreed(fabric)
                if first:
                    folder.add(done, epoch, values)
                if done % asked.checkpoint_every == 0 or done == total or pressed:
                    # All take part, so that none runs ahead of a failed write.
                    problem = None
                    if first:
                        try:
                            folder.checkpoint(done, *snapshot(step))
                        except OSError as error:
                            problem = f"no checkpoint at step {done}: {error}"
                    _agree(fabric, problem)
                    written = done
                    if first:
                        print(_line(done, total, epoch, values, mark, asked.batch_size))
                        sys.stdout.flush()
                    mark = time.perf_counter(), done
                if done == total or pressed:
                    break
    if pressed and step.steps_done < total:
        if first:
            print(
                f"Stopped by {signal.Signals(pressed).name} at step "
                f"{step.steps_done} of {total}; all of it is in {asked.out}. "
                "Go on with the same command and --resume.",
                flush=True,
            )
        return 128 + pressed
    if first:
        if asked.ema:
            step.use_average()
        train.save(step.model, folder.path / "model.safetensors")
        print(
            f"Step {total}: the model is in {asked.out / 'model.safetensors'}; read it "
            f"with train.load({type(step.model).__name__}, ...)",
            flush=True,
        )
    return 0


def _load(asked: argparse.Namespace) -> data.Images:
    return data.load(
        asked.data,
        asked.size,
        channels=asked.channels,
        train_size=asked.train_size,
        seed=asked.seed,
        root=asked.data_root,
        download=not asked.no_download,
    ).train


def _build(
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
    if asked.s2 not in (None, "optimal"):
        options["s2"] = float(asked.s2)
    model = model_class(size=asked.size, channels=channels, **options).to(device)
    how = given("lr", "beta", "r1", "ema")
    if asked.s2 == "optimal":
        how["s2"] = "optimal"
    if asked.model != "autoencoder":
        how["rng"] = torch.Generator("cpu").manual_seed(seed)
    return step_class(model, **how)


def _check_batch(asked: argparse.Namespace, images: int, processes: int) -> None:
    parts = processes * asked.accumulate
    if asked.batch_size % parts:
        raise Problem(
            f"--batch-size {asked.batch_size} cannot be divided by {processes} "
            f"processes x --accumulate {asked.accumulate} = {parts} equal parts: take "
            f"{max(1, round(asked.batch_size / parts)) * parts}"
        )
    if images < asked.batch_size:
        raise Problem(
            f"--batch-size {asked.batch_size} is more than the {images} images: take "
            "a smaller one"
        )


def _agree(fabric: Any, problem: str | None) -> None:
    """Raise Problem in all processes where one has one; only one of them says it."""
    of_first = fabric.broadcast(problem)
    have = fabric.all_reduce(torch.tensor(float(problem is not None)), reduce_op="sum")
    if have:
        told = problem and (of_first is None or fabric.global_rank == 0)
        raise Problem(problem if told else "")


class _Rows:
    """Stands for the images in `data.Batches`, which then gives the rows' numbers.

    So each process gathers its own share only, and a run that goes on skips the batches
    that it has seen without reading them.
    """

    def __init__(self, n: int) -> None:
        self.n, self.pixels = n, torch.empty(0)

    def __len__(self) -> int:
        return self.n

    def _gather(self, rows: Tensor) -> Tensor:
        return rows


# --- one step, many devices -----------------------------------------------------------
def share(step: Any, fabric: Any, noise: "_SharedNoise", parts: int) -> None:
    """Let a step work on one share of each batch, in so many parts.

    Gradients are averaged by hand instead of by DistributedDataParallel: a step calls
    parts of its model several times, in turns, with double backward passes for R1,
    which the hooks of a wrapper cannot follow.
    """
    noise.rank, noise.processes = fabric.global_rank, fabric.world_size
    for network in step.model.children():
        _autocast(network, fabric)

    def mean(value: Tensor) -> Tensor:
        return fabric.all_reduce(value) if fabric.world_size > 1 else value

    def update(
        optimizer: torch.optim.Optimizer, measure: Callable, *inputs: Tensor
    ) -> dict[str, float]:
        weights = steps.weights(optimizer)
        optimizer.zero_grad()
        # Fakes are cut off their generator, and their gradient is handed to it when all
        # parts are done: its graph can be passed only once.
        leaves = [x.detach().requires_grad_(x.requires_grad) for x in inputs]
        wanted = weights + [leaf for leaf in leaves if leaf.requires_grad]
        found = []
        for part, pieces in enumerate(
            zip(*(x.chunk(parts) for x in leaves), strict=True)
        ):
            noise.begin(part, parts)
            loss, values = measure(*pieces)
            fabric.backward(loss / parts, inputs=wanted)
            found.append(torch.stack([loss, *values.values()]).detach().float())
        noise.begin(0, 1)
        for x, leaf in zip(inputs, leaves, strict=True):
            if leaf.grad is not None:
                fabric.backward(x, gradient=leaf.grad, inputs=weights)
        numbers = torch.stack(found).mean(0)
        if fabric.world_size > 1:
            gradients = [p.grad for p in weights if p.grad is not None]
            sizes = [g.numel() for g in gradients]
            flat = mean(torch.cat([*(g.reshape(-1) for g in gradients), numbers]))
            *averages, numbers = flat.split([*sizes, len(numbers)])
            for gradient, average in zip(gradients, averages, strict=True):
                gradient.copy_(average.view(gradient.shape))
        steps.descend(optimizer, numbers[0])
        return dict(zip(values, numbers[1:].tolist(), strict=True))

    step.update = update
    if hasattr(step, "mean"):
        step.mean = mean


def _autocast(network: nn.Module, fabric: Any) -> None:
    # Around each network and not around the step: autocast keeps converted weights
    # until it ends, so the generator's turn would meet the old discriminator. Losses
    # are computed from float32.
    forward = network.forward

    def in_precision(x: Tensor) -> Tensor:
        with fabric.autocast():
            out = forward(x)
        return out.float()

    network.forward = in_precision


class _SharedNoise(TorchFunctionMode):
    """While open, a step's random numbers do not depend on the number of processes.

    Each process draws for the whole batch, from the same generator, and takes the rows
    of its share; codes are small next to images.
    """

    def __init__(self, step: Any) -> None:
        super().__init__()
        self.rng = getattr(step, "rng", None)
        self.rank, self.processes = 0, 1
        self.begin(0, 1)

    def begin(self, part: int, parts: int) -> None:
        """The next draws are for this part of a share."""
        self.part, self.parts, self.calls = part, parts, 0
        if part == 0:
            self.drawn: list[Tensor] = []

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        ours = func in (torch.randn, torch.rand) and self.rng is not None
        if not ours or kwargs.get("generator") is not self.rng:
            return func(*args, **kwargs)
        n, *shape = args[0] if isinstance(args[0], (tuple, list)) else args
        if self.part == 0:
            n_all = n * self.parts * self.processes
            self.drawn.append(func((n_all, *shape), **kwargs))
        start = (self.rank * self.parts + self.part) * n
        self.calls += 1
        return self.drawn[self.calls - 1][start : start + n]


class _Stop:
    """While open, Ctrl-C and SIGTERM ask to stop; a second Ctrl-C stops at once."""

    def __enter__(self) -> "_Stop":
        self.pressed = 0
        self.previous = {
            number: signal.signal(number, self.press)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def press(self, number: int, _: object) -> None:
        if self.pressed and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.pressed = number

    def agreed(self, fabric: Any) -> int:
        """The signal that any of the processes got, or 0."""
        if fabric.world_size == 1:
            return self.pressed
        flag = torch.tensor(self.pressed, device=fabric.device)
        return int(fabric.all_reduce(flag, reduce_op="max"))

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)


# --- checkpoints ----------------------------------------------------------------------
def snapshot(step: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All that a step needs to go on: tensors, and numbers that JSON can hold."""
    tensors = {f"model.{k}": v for k, v in step.model.state_dict().items()}
    if getattr(step, "ema", 0):
        average = step.average.state_dict()
        tensors |= {f"average.{k}": v for k, v in average.items()}
    for name, optimizer in _optimizers(step).items():
        for i, state in optimizer.state_dict()["state"].items():
            tensors |= {f"{name}.{i}.{k}": v for k, v in state.items()}
    if getattr(step, "rng", None) is not None:
        tensors["rng"] = step.rng.get_state()
    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    numbers = {"steps_done": step.steps_done, "g_loss": getattr(step, "g_loss", None)}
    return tensors, numbers


def restore(step: Any, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
    """Put what `snapshot` took into a step of the same kind."""

    def under(prefix: str) -> dict[str, Tensor]:
        at = len(prefix) + 1
        return {k[at:]: v for k, v in tensors.items() if k.startswith(prefix + ".")}

    step.model.load_state_dict(under("model"))
    if getattr(step, "ema", 0):
        step.average.load_state_dict(under("average"))
    for name, optimizer in _optimizers(step).items():
        for i, p in enumerate(steps.weights(optimizer)):
            # Laid out as the weights are: fused Adam goes through memory in its order.
            optimizer.state[p] = {
                key: value.to(p.device)
                if value.dim() == 0
                else torch.empty_like(p, requires_grad=False).copy_(value)
                for key, value in under(f"{name}.{i}").items()
            }
            if not optimizer.state[p]:
                del optimizer.state[p]
    if "rng" in tensors:
        step.rng.set_state(tensors["rng"])
    step.steps_done = numbers["steps_done"]
    if hasattr(step, "g_loss"):
        step.g_loss = numbers["g_loss"]


def _optimizers(step: Any) -> dict[str, torch.optim.Optimizer]:
    found = vars(step).items()
    return {k: v for k, v in found if isinstance(v, torch.optim.Optimizer)}


class Folder:
    """What a run writes: run.json, losses.csv, checkpoints/ and model.safetensors.

    Only the first process has one. Raises Problem for a folder that does not fit.
    """

    def __init__(self, path: Path, settings: dict[str, Any], resume: bool) -> None:
        self.path, self.settings = path, settings
        self.losses = path / "losses.csv"
        self.checkpoints = path / "checkpoints"
        description = path / "run.json"
        holds_run = description.is_file()
        if resume and not holds_run:
            raise Problem(f"{path} holds no run to go on with: leave out --resume")
        if holds_run and not resume:
            raise Problem(f"{path} holds a run: add --resume, or name another folder")
        try:
            if resume:
                self._compare(description)
            elif path.is_dir() and any(path.iterdir()):
                raise Problem(f"{path} is not an empty folder: name another one")
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            train.write_whole(
                description, (json.dumps(settings, indent=2) + "\n").encode()
            )
        except OSError as error:
            raise Problem(f"cannot write in {path} ({error})") from error

    def _compare(self, description: Path) -> None:
        try:
            there = json.loads(description.read_text(encoding="utf-8"))
        except ValueError as error:
            raise Problem(f"{description} is damaged: {error}") from error
        other = [
            f"{key} was {there.get(key)!r} and is now {self.settings.get(key)!r}"
            for key in sorted(there.keys() | self.settings.keys())
            if there.get(key) != self.settings.get(key)
        ]
        if other:
            raise Problem(
                f"{self.path} is of another run: {'; '.join(other)}. Take the same "
                "settings, or another folder without --resume"
            )

    def latest(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The newest whole checkpoint, or None if there is none."""
        for path in sorted(self.checkpoints.glob("step-*.safetensors"), reverse=True):
            try:
                return self._read(path)
            except ValueError as error:
                print(f"Not taken: {error}", file=sys.stderr)
        return None

    def _read(self, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, metadata = train._read(path)
        if metadata.get("format") != _FORMAT:
            raise ValueError(f"{path} is not a checkpoint of this command")
        about = metadata.get("about", "")
        if metadata.get("sha256") != train._digest(_FORMAT, about, tensors):
            raise ValueError(f"{path} is damaged: it does not match its checksum")
        about = json.loads(about)
        if about["settings"] != self.settings:
            raise Problem(f"{path} is of a run with other settings: move it away")
        return tensors, about["numbers"]

    def checkpoint(self, done: int, tensors: dict, numbers: dict[str, Any]) -> None:
        """Write one, whole or not at all, and remove all but the last two."""
        about = json.dumps({"settings": self.settings, "numbers": numbers})
        digest = train._digest(_FORMAT, about, tensors)
        metadata = {"format": _FORMAT, "about": about, "sha256": digest}
        path = self.checkpoints / f"step-{done:09d}.safetensors"
        os.fsync(self.file.fileno())
        train.write_whole(path, safetensors.torch.save(tensors, metadata))
        for old in sorted(self.checkpoints.glob("step-*.safetensors"))[:-KEPT]:
            old.unlink()

    def begin(self, done: int) -> None:
        """Keep the losses of the steps done: what came after a checkpoint is redone."""
        if done and self.losses.is_file():
            lines = self.losses.read_text(encoding="utf-8").splitlines()[: done + 1]
            train.write_whole(
                self.losses, "".join(f"{line}\n" for line in lines).encode()
            )
        # Line by line, so that one can watch it grow and a crash costs nothing.
        mode = "a" if done else "w"
        self.file = open(self.losses, mode, encoding="utf-8", buffering=1)

    def add(self, done: int, epoch: int, values: dict[str, float]) -> None:
        """One line of losses.csv."""
        head = "" if done > 1 else ",".join(["step", "epoch", *values]) + "\n"
        line = ",".join(map(repr, [done, epoch, *values.values()]))
        try:
            self.file.write(f"{head}{line}\n")
        except OSError as error:
            raise Problem(f"cannot write in {self.path} ({error})") from error


# --- messages -------------------------------------------------------------------------
def _opening(
    asked: argparse.Namespace, images: data.Images, fabric: Any, done: int, total: int
) -> str:
    each = asked.batch_size // fabric.world_size // asked.accumulate
    return (
        f"{asked.model} on {asked.data}: {images}, {fabric.device.type}. Batch "
        f"{asked.batch_size} = {fabric.world_size} processes x {asked.accumulate} "
        f"parts x {each} images. From step {done} to {total}."
    )


def _line(
    done: int,
    total: int,
    epoch: int,
    values: dict[str, float],
    mark: tuple[float, int],
    batch_size: int,
) -> str:
    speed = (done - mark[1]) * batch_size / (time.perf_counter() - mark[0])
    shown = ", ".join(f"{name} {value:.5g}" for name, value in values.items())
    return f"step {done} of {total}, epoch {epoch}: {shown}; {speed:,.0f} images/s"
