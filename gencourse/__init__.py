"""How machines generate images: the package behind the six lessons in notebooks/.

`Encoder` turns an image into a vector, `Decoder` turns a vector into an image. An
autoencoder is both; a VAE is both, with twice as many encoder outputs; a GAN's
generator is a decoder and its discriminator an encoder with one output. A flow carries
noise to codes for a decoder, with a third network, the `Denoiser`.

The lessons teach the files at the top of this folder. Read them in the order in which
data flows:

    faces     knobs, render(knobs, size), project(images): the true decoder, the referee
    data      load(name, size): faces, handwriting, downloads, a folder; batches
    nets      Encoder, Decoder, Denoiser
    models    Autoencoder, VAE, GAN, Flow
    losses    one number per example; the equation is the first line
    steps     one update of each model
    train     seed_everything, fit
    metrics   fidelity, coverage, and the other numbers that the lessons compare

Skip the rest at first reading:

    referee   how faces.project finds the nearest face
    store     saved models, and the results that come with the course
    plot/     pictures with a text for those who cannot see them
    checks/   the exercises: what is wrong with an answer, hints, progress
    language  messages and figures in the reader's language
    sources/  where images come from: faces, digits, files, folders, downloads
    scale/    the command `gencourse train`, for many devices

Each is imported when it is first used, so `import gencourse` costs nothing.
"""

from importlib import import_module
from types import ModuleType

__version__ = "0.1.0"

__all__ = [
    "checks",
    "data",
    "faces",
    "language",
    "losses",
    "metrics",
    "models",
    "nets",
    "plot",
    "referee",
    "scale",
    "sources",
    "steps",
    "store",
    "train",
]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
