"""Models in files: `save(model, path)`, `load(VAE, path)`, and the course's own.

Saved models are safetensors files: plain numbers with a description, nothing in them
is ever executed.
"""

import contextlib
import hashlib
import inspect
import json
import math
import os
import re
import secrets
import shutil
import time
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

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
    refuse_devices(path)
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
        "sha256": digest(name, settings, tensors),
    }
    write_whole(path, safetensors.torch.save(tensors, metadata))


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file at once: whoever reads it sees the old or the new one, whole.

    A link stays a link, rights stay as they are, and a file that may not be written is
    not replaced either. Raises OSError.
    """
    path = path.resolve()
    clear_stale(path.parent)
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


def clear_stale(folder: Path) -> None:
    """Remove what killed processes left: files of this name, a day old."""
    for path in folder.glob(".partial-*"):
        with contextlib.suppress(OSError):
            ours = re.fullmatch(r"\.partial-\d+-[0-9a-f]{8}", path.name)
            if ours and time.time() - path.lstat().st_mtime > 86_400:
                path.unlink()


def refuse_devices(path: Path) -> None:
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
    refuse_devices(path)
    tensors, metadata = read(path)
    if metadata.get("format") != _FORMAT or metadata.get("version") != _VERSION:
        raise ValueError(
            f"{path} is a safetensors file, but not one that this version of gencourse "
            f"wrote: its format is {metadata.get('format')!r}, "
            f"version {metadata.get('version')!r}"
        )
    name, settings_text = metadata.get("class", ""), metadata.get("settings", "")
    if metadata.get("sha256") != digest(name, settings_text, tensors):
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
    tools/measure/compare.py made the files, and `gencourse train` those of 64x64
    (docs/scaling.md).
    Raises what `load` raises.
    """
    _check_class(model_class)
    file = f"{name or model_class.__name__.lower()}.safetensors"
    return load(model_class, PRETRAINED / file)


def results() -> dict[str, Any]:
    """What was measured on the stored models: the content of comparison.json.

    Returns its lists of rows, "families", "variances" and "remedies", and the settings.
    tools/measure/compare.py made the file.
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


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
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


def digest(name: str, settings: str, tensors: dict[str, Tensor]) -> str:
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
