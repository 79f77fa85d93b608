"""`gencourse train`: the lessons' steps on one or many devices, for hours or days.

    gencourse train vae faces --out runs/vae --epochs 20
    gencourse train vae faces --out runs/vae --epochs 20 --resume

Lightning Fabric starts the processes and carries tensors between them. Each process
holds the whole model and takes its share of every batch; gradients are averaged before
each update, so that all copies stay equal. What is exact and what is not, and the lines
for torchrun and Slurm, stand in docs/scaling.md. May be skipped at first reading.
"""

import argparse
import contextlib
import functools
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
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
OWN = dict.fromkeys(["beta", "s2"], "vae")
OWN |= dict.fromkeys(["r1", "ema", "spectral_norm", "minibatch_std"], "gan")
# What may change when a run goes on; anything else would make it another run.
FREE = ["epochs", "steps", "accumulate", "checkpoint_every", "resume", "out", "command"]
FREE += ["accelerator", "devices", "data_root"]
_FORMAT = "gencourse checkpoint 1"
_STARTER = "GENCOURSE_STARTER"  # tells a process that Fabric starts who started it

NO_FABRIC = """\
this needs Lightning Fabric, which is not installed here:
  pip install "lightning-fabric>=2.5"
(In the folder of the course: pip install -c constraints.txt -e ".[scale]")"""


class Problem(Exception):
    """What to say, in plain words (nothing, where another process says it)."""

    def __init__(self, message: str, code: int = 2) -> None:
        super().__init__(message)
        self.code = code


# --- the command ----------------------------------------------------------------------
def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0 is success, 2 a wrong request, 1 a failed training.

    A run stopped by Ctrl-C or SIGTERM gives 130 or 143, as the shell expects.
    """
    if starter := os.environ.pop(_STARTER, None):
        threading.Thread(target=_follow, args=[int(starter)], daemon=True).start()
    asked = _parser().parse_args(arguments)
    try:
        check(asked)
        fabric = _fabric(asked)
    except Problem as problem:
        return _say(problem)
    patience = 0
    try:
        with _Stop() as stop:
            code = run(asked, fabric, stop)
        patience = 10
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    except Problem as problem:
        code, patience = _say(problem), 10
    except (OSError, RuntimeError) as error:
        # A full disk, too little memory, or another process that is gone.
        again = f"Go on from the last checkpoint in {asked.out} with --resume"
        code = _say(Problem(f"training stopped: {error}. {again}", code=1))
    finally:
        for child in getattr(fabric.strategy.launcher, "procs", []):
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(patience)
            child.kill()
    # Fabric kills the whole run when a process that it started reports a failure, which
    # could cut the message of the first one short.
    return code if fabric.local_rank == 0 else 0


def _say(problem: Problem) -> int:
    if str(problem):
        print(f"gencourse train: {problem}", file=sys.stderr, flush=True)
    return problem.code


def _follow(starter: int) -> None:
    """End with the process that started this one.

    Where that is killed before the two have met, this one would wait for half an hour.
    """
    while os.getppid() == starter:
        time.sleep(1)
    os._exit(1)


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
    _check_batch(asked, asked.devices or 1)
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
    devices, nodes = _processes(asked.devices, os.environ)
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


def _processes(devices: int | None, environ: Any) -> tuple[int | None, int]:
    """Processes per machine (None: Fabric decides) and machines.

    Whoever started us, torchrun or srun, has said it in the environment.
    """
    if "LOCAL_WORLD_SIZE" in environ:  # torchrun
        found = int(environ["LOCAL_WORLD_SIZE"])
        nodes = int(environ["WORLD_SIZE"]) // found
    elif "SLURM_STEP_NUM_TASKS" in environ and "SLURM_NTASKS" in environ:  # srun
        nodes = int(environ.get("SLURM_STEP_NUM_NODES", 1))
        found = int(environ["SLURM_STEP_NUM_TASKS"]) // nodes
    else:
        return devices, 1
    if devices not in (None, found):
        raise Problem(
            f"--devices {devices} was asked for, but {found} processes on each of "
            f"{nodes} machines were started: leave it out"
        )
    return found, nodes


# --- a run ----------------------------------------------------------------------------
def run(asked: argparse.Namespace, fabric: Any, stop: "_Stop") -> int:
    """Train on all processes; returns the exit code."""
    os.environ[_STARTER] = str(os.getpid())
    try:
        fabric.launch()
    except (ValueError, RuntimeError) as error:
        raise Problem(f"the processes could not be started: {error}") from error
    finally:
        del os.environ[_STARTER]
    first = fabric.global_rank == 0
    say = functools.partial(print, flush=True) if first else lambda _: None
    # Fast algorithms whose sums vary from run to run would make no run repeatable.
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False

    problem = folder = None
    with fabric.rank_zero_first(local=True):  # one process fills the cache for all
        try:
            images = _load(asked)
        except (ValueError, RuntimeError, OSError) as error:
            problem = error
    with _together(fabric):
        if problem:
            raise problem
        _check_batch(asked, fabric.world_size)
        if len(images) < asked.batch_size:
            raise Problem(
                f"--batch-size {asked.batch_size} is more than the {len(images)} "
                "images: take a smaller one"
            )
        train.seed_everything(asked.seed)
        step = _build(asked, images.pixels.shape[1], fabric.device, asked.seed)
        if first:
            settings = settings_of(asked) | {"images": len(images)}
            folder = Folder(asked.out, settings, asked.resume)

    if fabric.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(fabric.device)
        if images.pixels.nbytes < free / 4:
            images = images.to(fabric.device)
    batches = images.batches(asked.batch_size, seed=asked.seed, drop_last=True)
    rows_of = functools.lru_cache(maxsize=1)(batches.rows)
    per_epoch = len(batches)
    total = asked.steps or (asked.epochs or 10) * per_epoch
    saved = folder and folder.saved
    if saved is None:
        steps.start(step.model, images[rows_of(0)[0]].to(fabric.device))
    # Sent to all even at the start: processors of two kinds may draw other weights.
    restore(step, *fabric.broadcast(saved or snapshot(step)))

    noise = _SharedNoise(step)
    share(step, fabric, noise, asked.accumulate)
    each = asked.batch_size // fabric.world_size // asked.accumulate
    say(
        f"{asked.model} on {asked.data}: {images}, {fabric.device.type}. Batch "
        f"{asked.batch_size} = {fabric.world_size} processes x {asked.accumulate} "
        f"parts x {each} images. From step {step.steps_done} to {total}."
    )

    written, since = step.steps_done, time.perf_counter()
    with stop.after_a_step(), noise:
        while step.steps_done < total:
            epoch, batch = divmod(step.steps_done, per_epoch)
            rows = rows_of(epoch)[batch].chunk(fabric.world_size)[fabric.global_rank]
            try:
                values = step(images[rows])
            except FloatingPointError as error:
                told = (
                    f"training stopped at step {step.steps_done + 1}: {error}. The "
                    f"last checkpoint is of step {written}. Start anew in another "
                    "folder with a smaller --lr, and with --precision 32"
                )
                raise Problem(told if first else "", code=1) from error
            done = step.steps_done
            # A signal that one process got stops all.
            pressed = int(fabric.all_reduce(stop.pressed, reduce_op="max"))
            if first:
                folder.add(done, epoch + 1, values)
            if done % asked.checkpoint_every == 0 or done == total or pressed:
                # All take part, so that none runs ahead of a failed write.
                with _together(fabric, f"no checkpoint at step {done}: ", code=1):
                    if first:
                        folder.checkpoint(done, *snapshot(step))
                speed = (done - written) * asked.batch_size
                speed /= time.perf_counter() - since
                numbers = ", ".join(f"{k} {v:.5g}" for k, v in values.items())
                say(
                    f"step {done} of {total}, epoch {epoch + 1}: {numbers}; "
                    f"{speed:,.0f} images/s"
                )
                written, since = done, time.perf_counter()
            if pressed and done < total:
                say(
                    f"Stopped by {signal.Signals(pressed).name} at step {done} of "
                    f"{total}; all of it is in {asked.out}. Go on with the same "
                    "command and --resume."
                )
                return 128 + pressed
    if first:
        if asked.ema:
            step.use_average()
        path = asked.out / "model.safetensors"
        train.save(step.model, path)
        say(
            f"Step {step.steps_done}: the model is in {path}; read it with "
            f"train.load({type(step.model).__name__}, ...)"
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
    how = given("lr", "beta", "r1", "ema")
    (how if asked.s2 == "optimal" else options).update(given("s2"))
    model = model_class(size=asked.size, channels=channels, **options).to(device)
    if asked.model != "autoencoder":
        how["rng"] = torch.Generator("cpu").manual_seed(seed)
    return step_class(model, **how)


def _check_batch(asked: argparse.Namespace, processes: int) -> None:
    parts = processes * asked.accumulate
    if asked.batch_size % parts:
        raise Problem(
            f"--batch-size {asked.batch_size} cannot be divided by {processes} "
            f"processes x --accumulate {asked.accumulate} = {parts} equal parts: take "
            f"{max(1, round(asked.batch_size / parts)) * parts}"
        )


@contextlib.contextmanager
def _together(fabric: Any, what: str = "", code: int = 2) -> Iterator[None]:
    """Raise Problem in all processes where one has one; only one of them says it."""
    problem = None
    try:
        yield
    except (Problem, ValueError, RuntimeError, OSError) as error:
        problem = f"{what}{error}"
    of_first = fabric.broadcast(problem)
    if fabric.all_reduce(int(problem is not None), reduce_op="max"):
        told = problem and (of_first is None or fabric.global_rank == 0)
        raise Problem(problem if told else "", code)


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
            flat = fabric.all_reduce(
                torch.cat([*(g.reshape(-1) for g in gradients), numbers])
            )
            *averages, numbers = flat.split([*sizes, len(numbers)])
            for gradient, average in zip(gradients, averages, strict=True):
                gradient.copy_(average.view(gradient.shape))
        steps.descend(optimizer, numbers[0])
        return dict(zip(values, numbers[1:].tolist(), strict=True))

    step.update = update
    if hasattr(step, "mean"):
        step.mean = fabric.all_reduce


def _autocast(network: nn.Module, fabric: Any) -> None:
    # Around each network and not around the step: losses are computed from float32.
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
    """While open, Ctrl-C and SIGTERM end the command: in training after the step."""

    def __enter__(self) -> "_Stop":
        self.pressed, self.waits = 0, False
        self.previous = {
            number: signal.signal(number, self.press)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def press(self, number: int, _: object) -> None:
        if not self.waits or (self.pressed and number == signal.SIGINT):
            raise SystemExit(128 + number)
        self.pressed = number

    @contextlib.contextmanager
    def after_a_step(self) -> Iterator[None]:
        """Here a first signal only asks to stop; a second Ctrl-C stops at once."""
        self.waits = True
        yield
        self.waits = False

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
    names = [name for name in ("steps_done", "g_loss") if hasattr(step, name)]
    return tensors, {name: getattr(step, name) for name in names}


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
            for key, value in under(f"{name}.{i}").items():
                if value.dim():
                    # As the weights lie: fused Adam goes through memory in its order.
                    value = torch.empty_like(p, requires_grad=False).copy_(value)
                optimizer.state[p][key] = value.to(p.device)
    if "rng" in tensors:
        step.rng.set_state(tensors["rng"])
    vars(step).update(numbers)


def _optimizers(step: Any) -> dict[str, torch.optim.Optimizer]:
    found = vars(step).items()
    return {k: v for k, v in found if isinstance(v, torch.optim.Optimizer)}


class Folder:
    """What a run writes: run.json, losses.csv, checkpoints/ and model.safetensors.

    Only the first process has one. `saved` is the newest whole checkpoint, or None.
    Raises Problem for a folder that does not fit.
    """

    def __init__(self, path: Path, settings: dict[str, Any], resume: bool) -> None:
        self.path, self.settings = path, settings
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
            # A start that was killed may have left a file without its name.
            elif path.exists() and set(path.iterdir()) - set(path.glob(".partial-*")):
                raise Problem(f"{path} is not an empty folder: name another one")
            path.mkdir(parents=True, exist_ok=True)
            content = json.dumps(settings, indent=2) + "\n"
            train.write_whole(description, content.encode())
            self.checkpoints.mkdir(exist_ok=True)
            self.saved = self._latest()
            self.file = self._losses(self.saved[1]["steps_done"] if self.saved else 0)
        except OSError as error:
            raise Problem(f"cannot write in {path} ({error})") from error

    def _compare(self, description: Path) -> None:
        try:
            there = dict(json.loads(description.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
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

    def _steps(self) -> list[Path]:
        return sorted(self.checkpoints.glob("step-*.safetensors"))

    def _latest(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        for path in reversed(self._steps()):
            try:
                return self._read(path)
            except (ValueError, OSError) as error:
                print(f"Not taken: {error}", file=sys.stderr)
        return None

    def _read(self, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, metadata = train._read(path)
        about = metadata.get("about", "")
        if metadata.get("sha256") != train._digest(_FORMAT, about, tensors):
            raise ValueError(f"{path} is damaged, or no checkpoint of this command")
        about = json.loads(about)
        if about["settings"] != self.settings:
            raise Problem(f"{path} is of a run with other settings: move it away")
        return tensors, about["numbers"]

    def checkpoint(self, done: int, tensors: dict, numbers: dict[str, Any]) -> None:
        """Write one, whole or not at all, and keep it and the one before."""
        about = json.dumps({"settings": self.settings, "numbers": numbers})
        digest = train._digest(_FORMAT, about, tensors)
        metadata = {"format": _FORMAT, "about": about, "sha256": digest}
        path = self.checkpoints / f"step-{done:09d}.safetensors"
        os.fsync(self.file.fileno())
        train.write_whole(path, safetensors.torch.save(tensors, metadata))
        steps = self._steps()
        before = [other for other in steps if other < path]
        for other in steps:
            # Those of later steps were not taken: they are damaged, and redone.
            if other not in (path, *before[-1:]):
                other.unlink()

    def _losses(self, done: int) -> Any:
        """losses.csv with the steps done: what came after a checkpoint is redone."""
        path = self.path / "losses.csv"
        if done and path.exists():
            content = path.read_bytes()
            line = re.search(rb"^%d,.*\n" % done, content, re.MULTILINE)
            if line is None:
                raise Problem(
                    f"{path} is damaged: it has no line for step {done}. Move it "
                    f"away to go on with a new one from step {done + 1}"
                )
            os.truncate(path, line.end())
        # Line by line, so that one can watch it grow and a crash costs nothing.
        return open(path, "a" if done else "w", encoding="utf-8", buffering=1)

    def add(self, done: int, epoch: int, values: dict[str, float]) -> None:
        """One line of losses.csv."""
        if self.file.tell() == 0:
            self.file.write(",".join(["step", "epoch", *values]) + "\n")
        self.file.write(",".join(map(repr, [done, epoch, *values.values()])) + "\n")
