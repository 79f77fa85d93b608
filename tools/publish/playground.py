"""The playground: one web page that draws faces with networks of lessons 02, 03 and 06.

The page holds the weights of the decoders of the VAE and of the autoencoder (16 bits
each, base64) and of the flow with words (32 bits: rounding would add up over its twenty
steps). It needs neither a network nor a server. docs/playground/template.html is its
design and behavior; tools/publish/site.py puts it beside the lessons.
"""

import base64
import json
import re
from pathlib import Path

import torch
from torch import nn

from gencourse import faces, losses, models, store

TEMPLATE = Path(__file__).resolve().parents[2] / "docs/playground/template.html"
FACES = 2000
UNUSED = 0.01  # nats: about what a variance of mu of 0.02 is worth
STEPS = 20  # from noise to a face


def pack(decoder: nn.Module) -> dict:
    """Return shapes and weights of a `nets.Decoder` as the page reads them."""
    layers = [m for m in decoder.layers if isinstance(m, (nn.Linear, nn.Conv2d))]
    linear, *convolutions = layers
    return {
        "latentDim": decoder.latent_dim,
        "grid": decoder.layers[1].unflattened_size[1],
        "linear": linear.out_features,
        "convolutions": [[m.in_channels, m.out_channels] for m in convolutions],
        "weights": packed(layers, "<f2"),
    }


def pack_flow(flow: models.Flow) -> dict:
    """Return what the page needs of a flow."""
    layers = [m for m in flow.net.layers if isinstance(m, nn.Linear)]
    return {
        "conditions": flow.settings["conditions"],
        "frequencies": flow.net.frequencies.tolist(),
        "mean": flow.mean.tolist(),
        "std": flow.std.tolist(),
        "layers": [[m.in_features, m.out_features] for m in layers],
        "weights": packed(layers, "<f4"),
        "steps": STEPS,
    }


def packed(layers: list[nn.Module], kind: str) -> str:
    """Return the weights and biases of layers as numbers of this kind, in base64."""
    parts = [part for m in layers for part in (m.weight, m.bias)]
    values = torch.cat([part.detach().float().flatten() for part in parts])
    return base64.b64encode(values.numpy().astype(kind).tobytes()).decode()


@torch.no_grad()
def nats(vae: models.VAE) -> list[float]:
    """Return the mean KL to the prior of each latent dimension, on unseen faces."""
    total = torch.zeros(vae.settings["latent_dim"], dtype=torch.float64)
    for knobs in faces.sample_knobs(FACES, seed=0x91A7).split(500):
        x = faces.render(knobs, vae.settings["size"])
        total += losses.kl_per_dimension(*vae.encode(x)).double().sum(0)
    return [round(value, 3) for value in (total / FACES).tolist()]


def about_unused(unused: list[bool]) -> str:
    names = [f"<i>z</i>{j}" for j, is_unused in enumerate(unused) if is_unused]
    if not names:
        return "Every latent dimension is used."
    return (
        f"Unused, with a KL below {UNUSED} nats: {', '.join(names)}. Such a dimension "
        "says almost nothing about a face, and the picture hardly changes."
    )


def page() -> str:
    """Return the text of the page, from the template and the stored models."""
    vae = store.pretrained(models.VAE)
    autoencoder = store.pretrained(models.Autoencoder)
    flow = store.pretrained(models.Flow, "flow_words")
    template = TEMPLATE.read_text(encoding="utf-8")
    kl = nats(vae)
    unused = [value < UNUSED for value in kl]
    model = pack(vae.decoder) | {
        "nats": kl,
        "unused": unused,
        "knobs": [list(knob) for knob in faces.KNOBS],
        "sizes": [faces.SMALLEST, faces.LARGEST],
        "autoencoder": pack(autoencoder.decoder),
        "flow": pack_flow(flow),
    }

    def count(network: nn.Module) -> int:
        return sum(weights.numel() for weights in network.parameters())

    values = {
        "faces": f"{FACES:,}",
        "weights": f"{count(vae.decoder):,}",
        "flow_weights": f"{count(flow.net) + count(autoencoder.decoder):,}",
        "steps": str(STEPS),
        "unused": about_unused(unused),
        # A "<" in a text could end the element that contains it.
        "model": json.dumps(model).replace("<", "\\u003c"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template)
