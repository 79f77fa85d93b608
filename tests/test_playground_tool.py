"""What tools/publish/playground.py writes, and what it says when it cannot."""

import base64
import json
import os
import re
import shutil

import numpy as np
import pytest
import torch

from gencourse import models, store
from tools.publish import playground


@pytest.fixture(scope="module")
def text():
    return playground.page()


def refused(arguments, capsys):
    """The message of a run that must end with status 1."""
    with pytest.raises(SystemExit) as end:
        playground.main(list(map(str, arguments)))
    assert end.value.code == 1
    return capsys.readouterr().err


def test_the_page_holds_every_weight(text):
    (found,) = re.findall(r'type="application/json" id="model">(.*?)</script>', text)
    model = json.loads(found)
    weights = np.frombuffer(base64.b64decode(model["weights"]), "<f2")
    decoder = store.pretrained(models.VAE).decoder
    wanted = torch.cat([w.detach().flatten() for w in decoder.parameters()]).numpy()
    np.testing.assert_allclose(weights, wanted, rtol=2**-11, atol=2**-25)
    assert f"{len(wanted):,} weights" in text
    assert len(model["nats"]) == len(model["unused"]) == model["latentDim"] == 10


def test_the_page_is_the_same_every_time(text):
    assert playground.page() == text


@pytest.mark.parametrize(
    ("home", "lesson"),
    [
        ("index.html", "03_vae.html"),
        ("../index.html", "../03_vae.html"),
        ("course/", "course/03_vae.html"),
    ],
)
def test_links_follow_the_home_page(tmp_path, home, lesson):
    target = tmp_path / "new" / "page.html"
    playground.main(["--to", str(target), "--home", home])
    found = re.findall('href="(.*?)"', target.read_text(encoding="utf-8"))
    assert set(found) == {"data:,", home, lesson}


def test_missing_weights_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(store, "PRETRAINED", tmp_path)
    target = tmp_path / "page.html"
    message = refused(["--to", target], capsys)
    assert "the page cannot be made: there is no file" in message
    assert "vae.safetensors" in message
    assert not target.exists()


def test_damaged_weights_are_named(tmp_path, monkeypatch, capsys):
    whole = store.PRETRAINED / "vae.safetensors"
    (tmp_path / whole.name).write_bytes(whole.read_bytes()[:-1000])
    monkeypatch.setattr(store, "PRETRAINED", tmp_path)
    assert "damaged" in refused(["--to", tmp_path / "page.html"], capsys)


def test_weights_too_large_for_16_bits_are_refused():
    decoder = models.VAE(latent_dim=2).decoder
    playground.pack(decoder)
    torch.nn.init.constant_(decoder.layers[0].bias, 1e5)
    with pytest.raises(playground.Failure, match="not finite in 16 bits"):
        playground.pack(decoder)


def test_targets_that_cannot_be_written_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(playground, "page", lambda home: "page")
    assert "is a folder" in refused(["--to", tmp_path], capsys)
    file = tmp_path / "file"
    file.write_text("old")
    assert "cannot be written" in refused(["--to", file / "page.html"], capsys)


def test_an_interrupted_write_leaves_the_old_page(tmp_path, monkeypatch, capsys):
    target = tmp_path / "page.html"
    target.write_text("old")

    def fail(*_):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(playground.Failure, match="no space left"):
            playground.write("new", target)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]
    playground.write("new", target)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["new"]


def test_unused_dimensions_are_put_into_words():
    assert playground.about_unused([False, False]) == (
        "Every latent dimension is used."
    )
    one = playground.about_unused([False, True])
    assert one.startswith("<i>z</i>1 is unused: its KL is below 0.01 nats")
    two = playground.about_unused([True, True])
    assert two.startswith("<i>z</i>0 and <i>z</i>1 are unused: their KL is below")
    three = playground.about_unused([True, True, False, True])
    assert three.startswith("<i>z</i>0, <i>z</i>1 and <i>z</i>3 are unused")


def test_an_unknown_place_in_the_template_is_noticed(tmp_path, monkeypatch):
    template = tmp_path / "template.html"
    shutil.copy(playground.TEMPLATE, template)
    template.write_text(template.read_text(encoding="utf-8") + "{{wrong}}")
    monkeypatch.setattr(playground, "TEMPLATE", template)
    with pytest.raises(playground.Failure, match=r"differ in \['wrong'\]"):
        playground.page()
