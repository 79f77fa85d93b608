"""The playground: what its page contains."""

import base64
import json
import re

import numpy as np
import pytest
import torch

from gencourse import models, store
from tools.publish import playground


@pytest.fixture(scope="module")
def text():
    return playground.page()


def test_the_page_holds_every_weight(text):
    (found,) = re.findall(r'type="application/json" id="model">(.*?)</script>', text)
    model = json.loads(found)
    weights = np.frombuffer(base64.b64decode(model["weights"]), "<f2")
    decoder = store.pretrained(models.VAE).decoder
    wanted = torch.cat([w.detach().flatten() for w in decoder.parameters()]).numpy()
    np.testing.assert_allclose(weights, wanted, rtol=2**-11, atol=2**-25)
    assert f"{len(wanted):,} weights" in text and "{{" not in text
    assert len(model["nats"]) == len(model["unused"]) == model["latentDim"] == 10


@pytest.mark.parametrize(
    ("home", "lesson"),
    [
        ("index.html", "03_vae.html"),
        ("../index.html", "../03_vae.html"),
        ("course/", "course/03_vae.html"),
    ],
)
def test_links_follow_the_home_page(text, monkeypatch, home, lesson):
    monkeypatch.setattr(playground, "nats", lambda vae: [1.0] * 10)
    assert set(re.findall('href="(.*?)"', playground.page(home))) == {
        "data:,",
        home,
        lesson,
    }


def test_the_page_is_written_where_it_is_asked_for(text, tmp_path, monkeypatch):
    monkeypatch.setattr(playground, "page", lambda home: text)
    target = tmp_path / "new" / "page.html"
    playground.main(["--to", str(target)])
    assert target.read_text(encoding="utf-8") == text


def test_missing_weights_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "PRETRAINED", tmp_path)
    with pytest.raises(OSError, match=r"vae\.safetensors"):
        playground.page()


def test_unused_dimensions_are_listed():
    assert "Every" in playground.about_unused([False, False])
    words = playground.about_unused([True, False, True])
    assert "<i>z</i>0, <i>z</i>2" in words and "<i>z</i>1" not in words
