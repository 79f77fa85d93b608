"""Models in files: `save(model, path)`, `load(VAE, path)`, `pretrained(VAE)`.

A saved model is a safetensors file: numbers and their names, never code.
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
        model: Autoencoder, VAE, GAN or Flow: anything whose `.settings` are the
            arguments that rebuild it.
        path: Conventionally ends in .safetensors.

    Raises:
        TypeError: The model has no settings.
        OSError: The file cannot be written; an existing one is left as it was.
    """
    if not hasattr(model, "settings"):
        raise TypeError(
            f"{type(model).__name__} has no .settings, the arguments that rebuild it: "
            "add them, or use torch.save(model.state_dict(), path)"
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
        # Shapes only: this draws no random numbers, so that loading a model does not
        # change what is trained afterward, and takes no memory, whatever the settings.
        with torch.device("meta"):
            model = model_class(**json.loads(metadata["settings"]))
        model.load_state_dict(tensors, assign=True)
    except Exception as error:  # whatever a class says of its arguments
        raise ValueError(f"{path} does not fit its class {name}: {error}") from error
    return model.to(memory_format=torch.channels_last)


def pretrained(model_class: type[nn.Module], name: str = "") -> nn.Module:
    """A model of this class that comes with the course, trained on faces for minutes.

    tools/measure/compare.py trained them.

    Args:
        model_class: Autoencoder, VAE, GAN or Flow (32x32 RGB faces, 10 latent
            dimensions), or PixelFlow with its name.
        name: The file's name, by default the class in lowercase. "vae_precise" is a
            VAE with a small decoder variance, "gan_hour" a GAN that was trained for an
            hour; "vae_64" and "gan_64" draw 64x64 faces from 16 dimensions. "flow"
            carries noise to the codes of "autoencoder", "flow_words" does so with
            words, "flow_precise" to those of "vae_precise", and the PixelFlow
            "flow_pixels" to whole images.
    """
    name = name or model_class.__name__.lower()
    return load(model_class, PRETRAINED / f"{name}.safetensors")


def results() -> dict[str, Any]:
    """What tools/measure/compare.py measured on the stored models.

    Returns:
        Lists of rows, "families", "variances" and "remedies", and the "settings".
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
            "short or of another kind. Download or save it again. Pickled files "
            "(.pt, .pth, .pkl) are never opened, because they can run code"
        ) from error


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file at once: a reader sees the old or the new content, never a part.

    Raises:
        OSError: The file cannot be written; an existing one is left as it was.
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
