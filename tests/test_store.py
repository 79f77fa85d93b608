"""Saved models come back bit for bit; other files are refused, and none is half."""

import errno
import io
import json
import os
import pickle
import signal
import subprocess
import sys

import pytest
import safetensors.torch
import torch

from gencourse import data, faces, losses, metrics, referee, store
from gencourse.models import GAN, VAE, Autoencoder, Flow, PixelFlow
from gencourse.steps import AutoencoderStep, VAEStep
from tools.measure import compare

SMALL = dict(size=16, channels=1, width=4)
MODELS = [
    lambda: Autoencoder(3, **SMALL),
    lambda: VAE(3, s2=0.02, **SMALL),
    lambda: GAN(3, spectral_norm=True, minibatch_std=True, **SMALL),
    lambda: GAN(3, **SMALL).double(),
]


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(
        torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a
    )


@pytest.mark.parametrize("make", MODELS)
def test_a_saved_model_comes_back_bit_for_bit(make, tmp_path):
    model, path = make(), tmp_path / "model.safetensors"
    store.save(model, path)
    state = torch.get_rng_state()
    again = store.load(type(model), str(path))
    assert torch.equal(torch.get_rng_state(), state)
    assert same(model, again) and again.settings == model.settings
    assert os.listdir(tmp_path) == ["model.safetensors"]
    # Convolutions add in the order in which weights lie in memory.
    for before, after in zip(model.parameters(), again.parameters(), strict=True):
        assert before.stride() == after.stride() and after.requires_grad
    x = torch.rand(2, 1, 16, 16, dtype=next(model.parameters()).dtype)
    model.eval(), again.eval()
    if isinstance(model, GAN):
        assert torch.equal(model.discriminate(x), again.discriminate(x))
    elif isinstance(model, VAE):
        assert torch.equal(model.encode(x)[1], again.encode(x)[1])
    else:
        assert torch.equal(model(x), again(x))


def test_a_loaded_model_can_be_trained_on(tmp_path):
    model, x = Autoencoder(3, **SMALL), torch.rand(4, 1, 16, 16)
    store.save(model, tmp_path / "m")
    again = store.load(Autoencoder, tmp_path / "m")
    losses_of = [
        [AutoencoderStep(m)(x)["loss"] for _ in range(3)] for m in (model, again)
    ]
    assert losses_of[0] == losses_of[1] and same(model, again)


def test_the_variance_that_training_found_is_saved(tmp_path):
    model = VAE(3, **SMALL)
    VAEStep(model, s2="optimal")(torch.rand(4, 1, 16, 16))
    store.save(model, tmp_path / "m")
    assert store.load(VAE, tmp_path / "m").s2.item() == model.s2.item() != 0.1


class Another(torch.nn.Module):
    """Whole numbers beside floats, and two names for one layer."""

    def __init__(self, n=3):
        super().__init__()
        self.settings = {"n": n}
        self.norm = torch.nn.BatchNorm1d(n)
        self.again = self.norm


def test_models_of_several_types_come_back(tmp_path):
    half = VAE(3, **SMALL)
    half.decoder.half()
    other = Another()
    other.norm.num_batches_tracked += 7
    for model in (half, other):
        store.save(model, tmp_path / "m")
        assert same(store.load(type(model), tmp_path / "m"), model)


def test_a_model_that_cannot_be_rebuilt_is_not_saved(tmp_path):
    with pytest.raises(TypeError, match="Linear has no .settings"):
        store.save(torch.nn.Linear(2, 2), tmp_path / "m")
    assert os.listdir(tmp_path) == []


# --- other files ----------------------------------------------------------------------
def test_a_missing_file_and_another_class_are_named(tmp_path):
    path = tmp_path / "m.safetensors"
    with pytest.raises(FileNotFoundError, match="m.safetensors"):
        store.load(VAE, path)
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        store.load(VAE, tmp_path)
    store.save(VAE(3, **SMALL), path)
    with pytest.raises(ValueError, match="m.safetensors .* class VAE, not Autoencoder"):
        store.load(Autoencoder, path)


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def with_settings(settings, **changed):
    """A file as `save` writes it, but for its settings and some of its tensors."""
    tensors = {
        k: v.contiguous() for k, v in Autoencoder(3, **SMALL).state_dict().items()
    }
    tensors = {k: v for k, v in (tensors | changed).items() if v is not None}
    metadata = {"class": "Autoencoder", "settings": settings}
    return safetensors.torch.save(tensors, metadata)


def hostile_files(canary):
    """Contents that are no saved autoencoder: what is wrong with it -> bytes."""
    settings, zipped = json.dumps(dict(latent_dim=3, **SMALL)), io.BytesIO()
    whole, trap = with_settings(settings), Trap(canary)
    torch.save(trap, zipped)
    bias = "encoder.layers.0.bias"
    huge = json.dumps(dict(latent_dim=4096, size=124, channels=3, width=4096))
    yield "empty", b""
    yield "a web page", b"<!DOCTYPE html><html><body>404 not found</body></html>"
    yield "zeros", bytes(5000)
    yield "a pickle", pickle.dumps(trap)
    yield "a zipped pickle", zipped.getvalue()
    yield "cut in the header", whole[:100]
    yield "cut in the weights", whole[:-1]
    yield "too long", whole + b"\0"
    yield "a header without an end", b"\xff" * 8 + whole[8:]
    yield "no settings", safetensors.torch.save({"a": torch.zeros(1)})
    yield "a tensor of another shape", with_settings(settings, **{bias: torch.zeros(5)})
    yield "a missing tensor", with_settings(settings, **{bias: None})
    yield "one more tensor", with_settings(settings, more=torch.zeros(1))
    whole_numbers = torch.zeros(4, dtype=torch.int32)
    yield "whole numbers", with_settings(settings, **{bias: whole_numbers})
    yield "terabytes", with_settings(huge)
    for strange in (
        "[" * 100_000,
        '{"latent_dim": 1' + 400 * "0" + "}",
        '{"latent_dim": NaN}',
        '{"latent_dim": null}',
        '{"device": 1}',
        "__import__('os')",
    ):
        yield f"settings {strange:.20}", with_settings(strange)


def test_hostile_files_are_refused_unread(tmp_path):
    canary, path = tmp_path / "canary", tmp_path / "m.safetensors"
    refused = 0
    for what, content in hostile_files(str(canary)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="m.safetensors"):
            store.load(Autoencoder, path)
            print(f"{what} was not refused")
        assert not canary.exists()
        refused += 1
    assert refused > 20
    path.write_bytes(with_settings(json.dumps(dict(latent_dim=3, **SMALL))))
    store.load(Autoencoder, path)  # so the files above were refused for their fault
    pickle.loads(pickle.dumps(Trap(str(canary))))
    assert canary.exists()  # so the trap works


def test_a_file_cut_anywhere_or_with_a_garbled_header_is_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    store.save(VAE(3, **SMALL), path)
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    damaged = [whole[:n] for n in range(0, len(whole), len(whole) // 40)]
    for n in range(0, header, 23):
        damaged.append(whole[:n] + bytes([whole[n] ^ 0x80]) + whole[n + 1 :])
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(ValueError, match="m.safetensors .*(damaged|does not fit)"):
            store.load(VAE, path)


# --- whole or not at all --------------------------------------------------------------
@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_failed_save_says_why_and_leaves_the_old_file(
    tmp_path, monkeypatch, call, reason
):
    def fail(*_):
        raise OSError(reason, os.strerror(reason), "a name that nobody gave")

    path = tmp_path / "m"
    store.save(Autoencoder(3, **SMALL), path)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        if call == "open":
            patch.setattr(store, "open", fail, raising=False)
        else:
            patch.setattr(os, call, fail)
        with pytest.raises(OSError) as error:
            store.save(Autoencoder(3, **SMALL), path)
    for words in (os.strerror(reason), str(path), "nothing was written"):
        assert words in str(error.value)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["m"]


def test_a_disk_that_fills_up_in_the_middle_keeps_the_old_file(tmp_path):
    resource = pytest.importorskip("resource", reason="needs a Unix")
    path = tmp_path / "m"
    store.save(Autoencoder(3, **SMALL), path)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match=str(path)):
            store.save(Autoencoder(3, **SMALL), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["m"]


def test_a_missing_folder_and_a_folder_in_place_of_the_file_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere/m"):
        store.save(Autoencoder(3, **SMALL), tmp_path / "nowhere" / "m")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match="folder"):
        store.save(Autoencoder(3, **SMALL), tmp_path / "folder")
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a Unix")
def test_a_kill_while_saving_leaves_the_old_file_whole(tmp_path):
    path, model = tmp_path / "m", Autoencoder(3, **SMALL)
    store.save(model, path)
    code = (
        "import os, signal\n"
        "from gencourse import models, store\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"store.save(models.Autoencoder(9, 16, 1, 4), {str(path)!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", code])
    assert done.returncode == -signal.SIGKILL
    assert len(os.listdir(tmp_path)) == 2  # so it was killed while it saved
    assert same(store.load(Autoencoder, path), model)


# --- what comes along -----------------------------------------------------------------
CLASSES = {"autoencoder": Autoencoder, "vae": VAE, "gan": GAN}


@pytest.mark.parametrize(
    "name",
    sorted(
        path.stem
        for path in store.PRETRAINED.glob("*.safetensors")
        # tests/test_faces.py has the one, tests below the others
        if path.name
        not in (referee.STORED, "vae_dial.safetensors", "collapse.safetensors")
        and not path.name.startswith("flow")
    ),
)
def test_stored_models_draw_faces(name):
    model = store.pretrained(CLASSES[name.split("_")[0]], name)
    size = model.settings["size"]
    assert size == (64 if name.endswith("_64") else 32)
    x = faces.render(faces.sample_knobs(12, 1), size)
    if isinstance(model, Autoencoder):
        drawn = model(x).detach()
    elif name == "vae_precise":  # made for its reconstructions
        drawn = model.decode(model.encode(x)[0]).detach()
    else:
        drawn = model.sample(12, torch.Generator().manual_seed(1))
    assert drawn.shape == x.shape
    assert metrics.fidelity(drawn) < 0.1  # PCA gets 0.10 at 32 pixels
    assert (store.PRETRAINED / f"{name}.safetensors").stat().st_size < 2_000_000


FLOWS = {  # name -> the model that draws its codes
    "flow": ("autoencoder", Autoencoder),
    "flow_words": ("autoencoder", Autoencoder),
    "flow_precise": ("vae_precise", VAE),
}


def test_stored_flows_draw_faces():
    rng = torch.Generator().manual_seed(1)
    stored = {path.stem for path in store.PRETRAINED.glob("flow*.safetensors")}
    assert stored == set(compare.FLOWS)
    drawn = {}
    for name in stored - FLOWS.keys():
        pixels = store.pretrained(PixelFlow, name)
        drawn[name] = pixels.sample(12, rng, steps=20, heun=False)
    for name, (decoder, model_class) in FLOWS.items():
        codes = store.pretrained(Flow, name).sample(12, rng)
        drawn[name] = store.pretrained(model_class, decoder).decode(codes).detach()
    for name, images in drawn.items():
        assert metrics.fidelity(images.clamp(0, 1)) < 0.06, name  # N(0, I) gets 0.08
        path = store.PRETRAINED / f"{name}.safetensors"
        assert path.stat().st_size < 1_100_000


def test_stored_results_are_those_of_the_script_and_of_the_stored_models():
    content = store.results()
    assert {row["name"] for row in content["variances"]} == set(compare.VARIANCES)
    assert {row["name"] for row in content["remedies"]} == set(compare.REMEDIES)
    assert {row["name"] for row in content["flows"]} == set(compare.FLOWS)
    assert content["settings"]["s2"] == compare.S2
    row = {r["name"]: r for r in content["families"] if r["seed"] == 0}
    row |= {r["name"]: r for r in content["variances"] if r["seed"] == 0}
    real = data.load("faces", compare.SIZE, train_size=compare.N_TRAIN, seed=0)
    x = real.test[:1000]
    for name, model in (
        ("AE, mixture", store.pretrained(Autoencoder)),
        ("VAE", store.pretrained(VAE)),
        (compare.PRECISE, store.pretrained(VAE, "vae_precise")),
    ):
        with torch.no_grad():
            z = model.encode(x)
            x_hat = model.decode(z if isinstance(model, Autoencoder) else z[0])
        error = losses.squared_error(x, x_hat).mean().item()
        assert error == pytest.approx(row[name]["error"], rel=0.01)


def test_the_stored_dial_fits_the_stored_models():
    dial, _ = store.read(store.PRETRAINED / "vae_dial.safetensors")
    assert dial["s2"].tolist() == torch.tensor(compare.VARIANCES).tolist()
    assert len(dial["x_hat"]) == len(dial["kl"]) == len(compare.VARIANCES)
    n = compare.VARIANCES.index(compare.PRECISE)
    real = data.load("faces", compare.SIZE, train_size=100, seed=0)
    model = store.pretrained(VAE, "vae_precise")
    with torch.no_grad():
        mu, logvar = model.encode(real.test[:])
        x_hat = model.decode(mu[:3])
    kl = losses.kl_per_dimension(mu, logvar).mean(0)
    torch.testing.assert_close(dial["kl"][n], kl, rtol=0.01, atol=1e-3)
    difference = dial["x_hat"][n] / 255 - x_hat
    assert difference.abs().max() < 0.01
