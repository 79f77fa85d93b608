"""Models in files: `save(model, path)`, `load(VAE, path)`, and those that come along.

Saved models are safetensors files: numbers with a description. Nothing in them is ever
executed.
"""

import json
import os
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

PRETRAINED = Path(__file__).parent / "pretrained"


def save(model: nn.Module, path: str | Path) -> None:
    """Write a model's weights and settings to a safetensors file, whole or not at all.

    Args:
        model: Autoencoder, VAE or GAN: anything whose `.settings`, numbers, are the
            arguments that rebuild it.
        path: Conventionally ends in .safetensors. An existing file is replaced only
            once the new one is complete.

    Raises:
        TypeError: The model has no settings.
        OSError: The file cannot be written; an existing one is left as it was.
    """
    if not hasattr(model, "settings"):
        raise TypeError(
            f"{type(model).__name__} has no .settings, the arguments that rebuild it: "
            "save a model of gencourse.models, or keep model.state_dict()"
        )
    metadata = {"class": type(model).__name__, "settings": json.dumps(model.settings)}
    tensors = {  # cloned: safetensors refuses tensors that share their memory
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
    write_whole(Path(path).expanduser(), safetensors.torch.save(tensors, metadata))


def load(model_class: type[nn.Module], path: str | Path) -> nn.Module:
    """The model of this class that `save` wrote to path, on the CPU.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is damaged, of another kind or class, or does not fit its own
            settings.
    """
    path = Path(path).expanduser()
    tensors, metadata = read(path)
    name = model_class.__name__
    if metadata.get("class") != name:
        raise ValueError(
            f"{path} holds a model of class {metadata.get('class')}, not {name}: load "
            "it with the class that was saved"
        )
    try:
        # Shapes only: whatever the settings claim takes no memory, and building the
        # model draws no random numbers, so that a training goes the same after a load.
        with torch.device("meta"):
            model = model_class(**json.loads(metadata["settings"]))
        model.load_state_dict(tensors, assign=True)
    except Exception as error:  # whatever a class says of its arguments
        raise ValueError(f"{path} does not fit its class {name}: {error}") from error
    return model.to(memory_format=torch.channels_last)


def pretrained(model_class: type[nn.Module], name: str = "") -> nn.Module:
    """A model of this class that was trained on faces for some minutes and stored.

    tools/measure/compare.py made the files, and `gencourse train` those of 64x64
    (docs/scaling.md).

    Args:
        model_class: Autoencoder, VAE or GAN (32x32 RGB faces, 10 latent dimensions).
        name: Of the file, by default the class in lowercase. "vae_precise" is a VAE
            with a small decoder variance; "vae_64" and "gan_64" draw 64x64 faces from
            16 dimensions.
    """
    name = name or model_class.__name__.lower()
    return load(model_class, PRETRAINED / f"{name}.safetensors")


def results() -> dict[str, Any]:
    """What was measured on the stored models: the content of comparison.json.

    Returns:
        Lists of rows, "families", "variances" and "remedies", and the settings.
        tools/measure/compare.py made the file.
    """
    return json.loads((PRETRAINED / "comparison.json").read_text(encoding="utf-8"))


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file."""
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


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file at once: a reader sees the old or the new content, never a part.

    Raises:
        OSError: It cannot be written; an existing file is left as it was.
    """
    part = path.with_name(f".partial-{os.getpid()}")
    try:
        with open(part, "wb") as file:
            file.write(content)
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        message = f"{error.strerror}; nothing was written, try another folder"
        raise OSError(error.errno, message, str(path)) from error
    finally:
        part.unlink(missing_ok=True)
