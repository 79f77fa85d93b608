"""The loop that all models share, and saving what it made.

`fit` calls `step(x)` for each batch and keeps what the step returns: the step is where
the learning happens, the loop stays out of the way. Saved models are safetensors files:
plain numbers with a description, nothing in them is ever executed.
"""

import contextlib
import hashlib
import inspect
import json
import math
import os
import random
import re
import secrets
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn


def seed_everything(seed: int) -> None:
    """Start the random numbers of Python, NumPy and torch from one seed.

    seed: a whole number from 0 to 2**32 - 1. The same seed gives the same numbers on
    the same machine with the same number of threads.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"seed must be a whole number in 0..2**32 - 1, got {seed!r}")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def best_device() -> torch.device:
    """The GPU where torch finds one that CUDA drives, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


# --- the loop -------------------------------------------------------------------------
@dataclass
class History:
    """What training measured; its dicts of lists can be plotted as they are.

    steps: every value that the step returned, one per step. epochs: their means over
    each pass through the batches, weighted by batch size (the last pass may be a
    partial one).
    images: how many images were seen. seconds: how long it took. interrupted: whether
    the last call was stopped by hand.
    """

    steps: dict[str, list[float]] = field(default_factory=dict)
    epochs: dict[str, list[float]] = field(default_factory=dict)
    images: int = 0
    seconds: float = 0.0
    interrupted: bool = False

    def __len__(self) -> int:
        """How many steps were made."""
        return max((len(values) for values in self.steps.values()), default=0)

    def last(self) -> dict[str, float]:
        """What the latest step returned."""
        return {name: values[-1] for name, values in self.steps.items() if values}


class TrainingDiverged(RuntimeError):
    """A loss was NaN or infinite. `.history` holds what was measured before."""

    def __init__(self, message: str, history: History) -> None:
        super().__init__(message)
        self.history = history


def fit(
    step: Callable[[Tensor], dict[str, float]],
    batches: Iterable[Any],
    *,
    epochs: int | None = None,
    steps: int | None = None,
    seconds: float | None = None,
    history: History | None = None,
    progress: bool | None = None,
) -> History:
    """Call step(x) for every batch x, again and again, and keep what it returns.

    step: x -> dict of floats, the same names each time. batches: gives x, or tuples (x,
    ...) of which only x is used; it must be re-iterable (a list, `Images.batches`, a
    DataLoader) where it is passed through more than once. epochs, steps, seconds: when
    to end; with several, whichever comes first. history: of an earlier call, to be
    continued.
    progress: a bar; None shows one to a person at a notebook or terminal after 2 s.
    Returns the history. The stop button (Ctrl-C) finishes the step at hand, prints a
    line and returns too: model and history stay as they are. A second press raises
    KeyboardInterrupt at once.
    Raises TrainingDiverged when a value is NaN or infinite, ValueError for an
    impossible request or batches that give nothing, TypeError when step does not return
    numbers.
    Taught in: lesson 02
    """
    _check_limits(batches, epochs, steps, seconds)
    history = History() if history is None else history
    history.interrupted = False
    seconds_before = history.seconds
    bar = _Bar(_person_watches() if progress is None else progress)
    start = time.perf_counter()
    done, epoch = 0, 0
    limit_reached = False
    with _StopButton() as stop:
        try:
            while not limit_reached and epoch != epochs:
                totals: dict[str, float] = {}
                images = 0
                try:
                    for batch in batches:
                        x = batch
                        if isinstance(batch, (tuple, list)) and batch:
                            x = batch[0]
                        if not isinstance(x, (Tensor, np.ndarray)) or x.ndim == 0:
                            raise TypeError(
                                f"batch {done + 1} is {x!r:.60}: expected a tensor of "
                                "images, or a tuple that begins with one"
                            )
                        if len(x) == 0:
                            raise ValueError(
                                f"batch {done + 1} has no images: leave it out"
                            )
                        values = _call(step, x, history)
                        images += len(x)
                        for name, value in values.items():
                            history.steps.setdefault(name, []).append(value)
                            totals[name] = totals.get(name, 0.0) + value * len(x)
                        history.images += len(x)
                        done += 1
                        elapsed = time.perf_counter() - start
                        history.seconds = seconds_before + elapsed
                        limit_reached = (
                            stop.pressed
                            or done == steps
                            or (seconds is not None and elapsed >= seconds)
                        )
                        if bar.wanted:
                            part = _part_done(
                                batches, epochs, steps, seconds, done, elapsed
                            )
                            bar.show(part, values)
                        if limit_reached:
                            break
                finally:
                    for name, total in totals.items():
                        history.epochs.setdefault(name, []).append(total / images)
                epoch += 1
                if images == 0:
                    raise ValueError(_nothing_came(epoch))
        except KeyboardInterrupt:
            if stop.pressed:
                raise
            stop.pressed = True
        finally:
            bar.close()
    if stop.pressed:
        history.interrupted = True
        print(
            f"Stopped by hand at step {len(history)}, after {history.seconds:.0f} s: "
            "model and history are kept. Go on with fit(..., history=history)."
        )
    return history


def _call(step: Callable, x: Tensor, history: History) -> dict[str, float]:
    """What the step returned, as finite floats, under the history's names."""
    try:
        returned = step(x)
    except FloatingPointError as error:
        raise _diverged(str(error), history) from error
    if not isinstance(returned, dict) or not returned:
        raise TypeError(f"a step must return a dict of numbers, got {returned!r}")
    if history.steps and returned.keys() != history.steps.keys():
        raise ValueError(
            f"the step returned {list(returned)}, but the history holds "
            f"{list(history.steps)}: start a new history for another kind of step"
        )
    try:
        values = {name: float(value) for name, value in returned.items()}
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise TypeError(
            f"a step must return a dict of single numbers: {error}"
        ) from error
    for name, value in values.items():
        if not math.isfinite(value):
            raise _diverged(f"{name} = {value}", history)
    return values


def _diverged(what: str, history: History) -> TrainingDiverged:
    last = ", ".join(f"{name} = {value:.5g}" for name, value in history.last().items())
    return TrainingDiverged(
        f"training stopped at step {len(history) + 1}: {what} is not finite. "
        f"Last finite values: {last or 'none, this was the first step'}. "
        "Try a smaller learning rate; check the sign of each term of the loss and that "
        "the images are finite and in [0, 1]. If your step changed the weights before "
        "it returned this, build the model anew.",
        history,
    )


def _check_limits(
    batches: Iterable, epochs: int | None, steps: int | None, seconds: float | None
) -> None:
    if epochs is None and steps is None and seconds is None:
        raise ValueError("say when to end: epochs=..., steps=... or seconds=...")
    if isinstance(batches, Tensor):
        raise TypeError("batches is one tensor: pass a list, such as x.split(64)")
    for name, value in (("epochs", epochs), ("steps", steps)):
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int) or value < 1
        ):
            raise ValueError(f"{name} must be a whole number >= 1, got {value!r}")
    if seconds is not None and not seconds > 0:
        raise ValueError(f"seconds must be > 0, got {seconds!r}")
    if isinstance(batches, Iterator) and epochs not in (None, 1):
        raise ValueError(
            f"a generator can be read only once, not for {epochs} epochs: pass a list, "
            "Images.batches(...) or a DataLoader"
        )


def _nothing_came(epoch: int) -> str:
    if epoch == 1:
        return "batches gave nothing to train on: are there fewer images than a batch?"
    return (
        f"batches gave nothing in epoch {epoch}: a generator can be read only once. "
        "Pass a list, Images.batches(...) or a DataLoader"
    )


class _StopButton:
    """While open, a first interrupt sets `.pressed`, a second raises KeyboardInterrupt.

    Only the main thread receives interrupts; elsewhere this does nothing.
    """

    def __enter__(self) -> "_StopButton":
        self.pressed = False
        self.previous = None
        if threading.current_thread() is threading.main_thread():
            self.previous = signal.getsignal(signal.SIGINT)
            # None means a handler that was not set from Python and cannot be put back.
            if self.previous is not None:
                signal.signal(signal.SIGINT, self.press)
        return self

    def press(self, *_: object) -> None:
        if self.pressed:
            raise KeyboardInterrupt
        self.pressed = True

    def __exit__(self, *_: object) -> None:
        if self.previous is not None:
            signal.signal(signal.SIGINT, self.previous)


# --- progress, for people -------------------------------------------------------------
def _person_watches() -> bool:
    """Whether a person sits at this notebook or terminal.

    Programs that execute notebooks (nbclient, nbval, nbconvert, papermill) tell the
    kernel that nobody can answer a question, and stored notebooks must hold no progress
    bar.
    """
    kernel = _kernel()
    if kernel is None:
        return sys.stderr.isatty()
    try:
        return bool(kernel.get_parent("shell")["content"]["allow_stdin"])
    except (AttributeError, KeyError, TypeError):
        return False


def _kernel() -> Any:
    """The Jupyter kernel that runs this, or None."""
    module = sys.modules.get("IPython")
    return getattr(module.get_ipython() if module else None, "kernel", None)


def _part_done(
    batches: Iterable,
    epochs: int | None,
    steps: int | None,
    seconds: float | None,
    done: int,
    elapsed: float,
) -> float:
    """How much of the work is behind us, from 0 to 1."""
    parts = [0.0]
    if steps:
        parts.append(done / steps)
    if seconds:
        parts.append(elapsed / seconds)
    if epochs and hasattr(batches, "__len__"):
        parts.append(done / (epochs * len(batches)))
    return min(1.0, max(parts))


class _Bar:
    """A tqdm bar that appears after 2 s and leaves nothing behind."""

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted
        self.bar = self.output = None
        self.next_time = time.perf_counter() + 2.0

    def show(self, part: float, values: dict[str, float]) -> None:
        now = time.perf_counter()
        if now < self.next_time:
            return
        self.next_time = now + 0.25
        if self.bar is None:
            self._open()
        text = ", ".join(f"{name} {value:.3g}" for name, value in values.items())
        self.bar.n = part
        self.bar.set_postfix_str(text)

    def _open(self) -> None:
        # Imported only here: in a notebook tqdm draws with ipywidgets.
        look = dict(total=1.0, bar_format="{l_bar}{bar}| {elapsed}{postfix}")
        if _kernel() is None:
            from tqdm import tqdm

            self.bar = tqdm(leave=False, **look)
        else:
            from IPython.display import display
            from tqdm.notebook import tqdm

            self.bar = tqdm(leave=False, display=False, **look)
            self.output = display(self.bar.container, display_id=True)
        self.bar.start_t -= 2.0

    def close(self) -> None:
        if self.bar is not None:
            self.bar.n = self.bar.total  # tqdm keeps a bar that did not reach its end
            self.bar.close()
        if self.output is not None:
            # A notebook that was saved would else show an error for the closed widget.
            self.output.update({"text/plain": ""}, raw=True)


# --- files ----------------------------------------------------------------------------
_FORMAT, _VERSION = "gencourse model", "1"


def save(model: nn.Module, path: str | Path) -> None:
    """Write a model's weights and settings to a safetensors file, all of it or nothing.

    model: Autoencoder, VAE or GAN (anything with `.settings`). path: conventionally
    ends in .safetensors; an existing file is replaced only once the new one is
    complete.
    Raises TypeError for a model without settings, ValueError for settings that are not
    numbers or a path that is a device or a pipe, FileNotFoundError when the folder is
    missing, IsADirectoryError when path is a folder, PermissionError when the file
    there may not be written.
    """
    path = Path(path).expanduser()
    if not isinstance(getattr(model, "settings", None), dict):
        raise TypeError(
            f"{type(model).__name__} has no .settings, the arguments that rebuild it"
        )
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give the name of a file in it")
    _refuse_devices(path)
    if not path.resolve().parent.is_dir():
        parent = path.resolve().parent
        raise FileNotFoundError(f"there is no folder {parent}: create it first")
    tensors = {  # cloned: safetensors refuses tensors that share their memory
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
    name, settings = type(model).__name__, json.dumps(model.settings, default=repr)
    _checked_settings(type(model), settings, name)
    metadata = {
        "format": _FORMAT,
        "version": _VERSION,
        "class": name,
        "settings": settings,
        "sha256": _digest(name, settings, tensors),
    }
    write_whole(path, safetensors.torch.save(tensors, metadata))


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file at once: whoever reads it sees the old or the new one, whole.

    A link stays a link, rights stay as they are, and a file that may not be written is
    not replaced either. Raises OSError.
    """
    path = path.resolve()
    _clear_stale(path.parent)
    temporary = path.with_name(f".partial-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            open(path, "r+b").close()  # raises where the file may not be written
            shutil.copymode(path, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _clear_stale(folder: Path) -> None:
    """Remove what killed processes left: files of this name, a day old."""
    for path in folder.glob(".partial-*"):
        with contextlib.suppress(OSError):
            ours = re.fullmatch(r"\.partial-\d+-[0-9a-f]{8}", path.name)
            if ours and time.time() - path.lstat().st_mtime > 86_400:
                path.unlink()


def _refuse_devices(path: Path) -> None:
    if not path.is_file() and path.exists():  # reading a pipe would wait for ever
        raise ValueError(f"{path} is a device or a pipe: give the name of a file")


def load(model_class: type[nn.Module], path: str | Path) -> nn.Module:
    """The model of this class that `save` wrote to path, on the CPU.

    Nothing in the file is executed, and nothing is built before all its parts are
    checked.
    Raises FileNotFoundError or IsADirectoryError when there is no such file,
    PermissionError when it may not be read, ValueError when it is damaged, of another
    kind or class, or does not fit its own settings, TypeError when model_class is no
    class.
    """
    _check_class(model_class)
    path = Path(path).expanduser()
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, not a saved model")
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    _refuse_devices(path)
    tensors, metadata = _read(path)
    if metadata.get("format") != _FORMAT or metadata.get("version") != _VERSION:
        raise ValueError(
            f"{path} is a safetensors file, but not one that this version of gencourse "
            f"wrote: its format is {metadata.get('format')!r}, "
            f"version {metadata.get('version')!r}"
        )
    name, settings_text = metadata.get("class", ""), metadata.get("settings", "")
    if metadata.get("sha256") != _digest(name, settings_text, tensors):
        raise ValueError(f"{path} is damaged: its content does not match its checksum")
    if name != model_class.__name__:
        raise ValueError(
            f"{path} holds a model of class {name}, not {model_class.__name__}: "
            f"call load({name}, ...)"
        )
    settings = _checked_settings(model_class, settings_text, path)
    # Building a model draws weights: leave no trace in the stream of random numbers,
    # so that training goes the same whether or not something was loaded before.
    with torch.random.fork_rng(devices=[]):
        try:
            # A model on the meta device has shapes but takes no memory.
            with torch.device("meta"):
                expected = model_class(**settings).state_dict()
        except Exception as error:  # whatever a class says of its arguments
            raise ValueError(
                f"{path} has impossible settings: {type(error).__name__}: {error}"
            ) from error
        for key in sorted(expected.keys() | tensors.keys()):
            want, got = _kind(expected.get(key)), _kind(tensors.get(key))
            if want != got:
                raise ValueError(
                    f"{path} does not fit its settings {settings}: "
                    f"{key} should be {want}, the file has {got}"
                )
        model = model_class(**settings)
    for key, value in model.state_dict(keep_vars=True).items():
        value.data = value.data.to(tensors[key].dtype)
    model.load_state_dict(tensors)
    return model


def _kind(tensor: Tensor | None) -> str:
    """What must agree: the shape, and the type but for the precision of floats."""
    if tensor is None:
        return "nothing"
    kind = "" if tensor.is_floating_point() else f" {tensor.dtype}"
    return f"{tuple(tensor.shape)}{kind}"


PRETRAINED = Path(__file__).parent / "pretrained"


def pretrained(model_class: type[nn.Module], name: str = "") -> nn.Module:
    """A model of this class that was trained on faces for some minutes and stored.

    model_class: Autoencoder, VAE or GAN (32x32 RGB faces, 10 latent dimensions). name:
    of the file, by default the class in small letters; "vae_precise" is a VAE with a
    small decoder variance; "vae_64" and "gan_64" draw 64x64 faces from 16 dimensions.
    tools/compare.py made the files, and `gencourse train` those of 64x64
    (docs/scaling.md).
    Raises what `load` raises.
    """
    _check_class(model_class)
    file = f"{name or model_class.__name__.lower()}.safetensors"
    return load(model_class, PRETRAINED / file)


def stored_results() -> dict[str, Any]:
    """What was measured on the stored models: the content of comparison.json.

    Returns its lists of rows, "families", "variances" and "remedies", and the settings.
    tools/compare.py made the file.
    Raises FileNotFoundError when it is missing, ValueError when it is damaged.
    """
    path = PRETRAINED / "comparison.json"
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        for name in ("families", "variances", "remedies"):
            if not all(isinstance(row, dict) for row in results[name]):
                raise ValueError(f"{name} is not a list of rows")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged ({type(error).__name__}: {error}): put back the file "
            "that came with the course"
        ) from error
    return results


def _check_class(model_class: type[nn.Module]) -> None:
    if not isinstance(model_class, type):
        raise TypeError(f"give the class itself, such as VAE; got {model_class!r:.60}")


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    # Read at once: safe_open opens a file twice, and it may be replaced in between.
    content = path.read_bytes()
    try:
        tensors = safetensors.torch.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return tensors, header.get("__metadata__") or {}
    except (safetensors.SafetensorError, KeyError) as error:
        raise ValueError(
            f"{path} is not a whole safetensors file ({error}): it is damaged, cut "
            "short or of another kind. Pickled files (.pt, .pth, .pkl) are never "
            "opened, because they can run code"
        ) from error


def _digest(name: str, settings: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(f"{name}\n{settings}\n".encode())
    for key in sorted(tensors):
        tensor = tensors[key]
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _checked_settings(
    model_class: type[nn.Module], text: str, path: Path | str
) -> dict[str, int | float | bool]:
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} has settings that cannot be read: {error}") from error
    allowed = inspect.signature(model_class).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in allowed.values())
    remedy = (
        "model.settings are the arguments that build the model anew, numbers only; for "
        "others keep model.state_dict()"
    )
    if not isinstance(settings, dict) or not (
        takes_any or settings.keys() <= allowed.keys()
    ):
        raise ValueError(
            f"{path} has settings {text}; {model_class.__name__} takes "
            f"{list(allowed)}: {remedy}"
        )
    for key, value in settings.items():
        if type(value) not in (int, float, bool) or not abs(value) < math.inf:
            raise ValueError(
                f"{path} has the setting {key} = {value!r}, not a number: {remedy}"
            )
    return settings
