"""The playground: what its page contains."""

import base64
import json
import re

import numpy as np
import torch

from gencourse import models, store
from tools.publish import playground


def test_the_page_holds_every_weight():
    text = playground.page()
    (found,) = re.findall(r'type="application/json" id="model">(.*?)</script>', text)
    model = json.loads(found)
    flow = store.pretrained(models.Flow, "flow_words")
    networks = (
        (model, store.pretrained(models.VAE).decoder, "<f2"),
        (model["autoencoder"], store.pretrained(models.Autoencoder).decoder, "<f2"),
        (model["flow"], flow.net, "<f4"),
    )
    counts = []
    for packed, network, kind in networks:
        weights = np.frombuffer(base64.b64decode(packed["weights"]), kind)
        wanted = torch.cat([w.detach().flatten() for w in network.parameters()]).numpy()
        exact = {"rtol": 2**-11, "atol": 2**-25} if kind == "<f2" else {"rtol": 0}
        np.testing.assert_allclose(weights, wanted, **exact)
        counts.append(len(wanted))
    of_vae, of_autoencoder, of_flow = counts
    assert f"{of_vae:,} weights" in text and "{{" not in text
    assert f"{of_autoencoder + of_flow:,} weights" in text
    assert len(text.encode()) < 1_000_000
    assert len(model["nats"]) == len(model["unused"]) == model["latentDim"] == 10


def test_unused_dimensions_are_listed():
    assert "Every" in playground.about_unused([False, False])
    words = playground.about_unused([True, False, True])
    assert "<i>z</i>0, <i>z</i>2" in words and "<i>z</i>1" not in words
