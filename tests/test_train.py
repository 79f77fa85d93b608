"""The loop ends, weighs, stops and tells the truth; files are whole or refused."""

import json
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

from gencourse import data, faces, losses, metrics, store, train
from gencourse.models import GAN, VAE, Autoencoder
from gencourse.steps import AutoencoderStep, GANStep, VAEStep
from tools.measure import compare

SMALL = dict(size=16, channels=1, width=4)


class Recorder:
    """A step that learns nothing and returns what it was told to."""

    def __init__(self, values=None):
        self.seen, self.values = [], values

    def __call__(self, x):
        self.seen.append(x)
        n = len(self.seen)
        return {"loss": float(n) if self.values is None else self.values[n - 1]}


def batches(*sizes):
    return [torch.full((n, 2), float(i)) for i, n in enumerate(sizes)]


# --- ends and history -----------------------------------------------------------------
def test_epochs_are_weighted_by_batch_size():
    history = train.fit(Recorder(), batches(4, 4, 1), epochs=2)
    assert history.steps == {"loss": [1, 2, 3, 4, 5, 6]}
    first, second = (4 * 1 + 4 * 2 + 1 * 3) / 9, (4 * 4 + 4 * 5 + 1 * 6) / 9
    assert history.epochs["loss"] == pytest.approx([first, second])
    assert history.images == 18 and len(history) == 6
    assert history.last() == {"loss": 6} and not history.interrupted


def test_steps_end_in_the_middle_of_an_epoch():
    step = Recorder()
    history = train.fit(step, batches(4, 4, 1), steps=4)
    assert [int(x[0, 0]) for x in step.seen] == [0, 1, 2, 0]
    assert history.epochs["loss"] == pytest.approx([(4 + 8 + 3) / 9, 4])


def test_seconds_end_in_time():
    start = time.perf_counter()
    history = train.fit(lambda x: time.sleep(0.01) or {"a": 1}, batches(1), seconds=0.3)
    elapsed = time.perf_counter() - start
    assert 0.3 <= history.seconds <= elapsed < 1.0


def test_the_first_limit_ends():
    assert len(train.fit(Recorder(), batches(1, 1), epochs=3, steps=100)) == 6
    assert len(train.fit(Recorder(), batches(1, 1), epochs=3, steps=5)) == 5
    assert len(train.fit(Recorder(), batches(1, 1), epochs=3, seconds=60)) == 6


def test_a_history_goes_on():
    history = train.fit(Recorder(), batches(2, 1), epochs=1)
    seconds = history.seconds
    again = train.fit(Recorder(), batches(2, 1), epochs=1, history=history)
    assert again is history
    assert history.steps == {"loss": [1, 2, 1, 2]}
    assert len(history.epochs["loss"]) == 2
    assert history.images == 6 and history.seconds > seconds
    with pytest.raises(ValueError, match="new history"):
        train.fit(lambda x: {"elbo": 1.0}, batches(1), steps=1, history=history)


def test_tuples_give_their_first_member_and_tensors_count_as_numbers():
    pairs = [(torch.zeros(3, 2), torch.arange(3)), [torch.zeros(1, 2), torch.arange(1)]]
    step = Recorder(values=[torch.tensor(2.0), np.float32(4)])
    history = train.fit(step, pairs, epochs=1)
    assert [tuple(x.shape) for x in step.seen] == [(3, 2), (1, 2)]
    assert history.epochs["loss"] == [2.5]
    assert all(type(v) is float for v in history.steps["loss"])


def test_a_data_loader_is_fine():
    data = torch.utils.data.TensorDataset(torch.rand(10, 2), torch.arange(10))
    loader = torch.utils.data.DataLoader(data, batch_size=4)
    assert train.fit(Recorder(), loader, epochs=2).images == 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(), "say when to end"),
        (dict(epochs=0), "epochs must be"),
        (dict(epochs=1.5), "epochs must be"),
        (dict(steps=-1), "steps must be"),
        (dict(steps=True), "steps must be"),
        (dict(seconds=0), "seconds must be"),
        (dict(seconds=float("nan")), "seconds must be"),
    ],
)
def test_impossible_ends_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        train.fit(Recorder(), batches(1), **options)


def test_one_tensor_is_not_taken_for_batches():
    with pytest.raises(TypeError, match="x.split"):
        train.fit(Recorder(), torch.zeros(4, 2), epochs=1)


@pytest.mark.parametrize(
    "batch", [None, (), "x", torch.tensor(1.0), {"x": torch.zeros(2)}]
)
def test_a_batch_that_holds_no_tensor_is_named(batch):
    history = train.History()
    with pytest.raises(TypeError, match="batch 2 is .*expected a tensor of images"):
        train.fit(
            lambda x: {"a": 1.0}, [torch.zeros(2, 1), batch], epochs=1, history=history
        )
    assert history.steps == {"a": [1.0]} and history.epochs == {"a": [1.0]}


def test_batches_that_give_nothing_are_an_error():
    with pytest.raises(ValueError, match="nothing to train on"):
        train.fit(Recorder(), [], epochs=2)
    step = Recorder()
    with pytest.raises(ValueError, match="only once, not for 2 epochs"):
        train.fit(step, (b for b in batches(1, 1)), epochs=2)
    assert step.seen == []
    with pytest.raises(ValueError, match="nothing in epoch 2.*only once"):
        train.fit(step, (b for b in batches(1, 1)), steps=5)
    assert len(train.fit(step, (b for b in batches(1, 1)), epochs=1)) == 2
    assert len(train.fit(step, (b for b in batches(1, 1, 1)), steps=2)) == 2


@pytest.mark.parametrize(
    "returned", [None, 3.0, {}, {"loss": "low"}, {"loss": torch.zeros(2)}]
)
def test_a_step_must_return_numbers(returned):
    with pytest.raises(TypeError, match="a step must return a dict"):
        train.fit(lambda x: returned, batches(1), steps=1)


# --- a loss that is no number ---------------------------------------------------------
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_divergence_stops_at_once_and_tells(bad):
    step = Recorder(values=[0.5, 0.25, bad, 0.1])
    with pytest.raises(train.TrainingDiverged) as error:
        train.fit(step, batches(2, 2, 2, 2), epochs=1)
    assert len(step.seen) == 3
    message = str(error.value)
    assert "step 3" in message and f"loss = {bad}" in message
    assert "Last finite values: loss = 0.25" in message
    assert "learning rate" in message
    assert error.value.history.steps == {"loss": [0.5, 0.25]}
    assert error.value.history.epochs == {"loss": [0.375]}
    assert isinstance(error.value, RuntimeError)


@pytest.mark.parametrize(
    ("model_class", "step_class"),
    [(Autoencoder, AutoencoderStep), (VAE, VAEStep), (GAN, GANStep)],
)
def test_divergence_leaves_the_weights_of_the_last_good_step(model_class, step_class):
    torch.manual_seed(0)
    model = model_class(3, **SMALL)
    good, bad = torch.rand(4, 1, 16, 16), torch.full((4, 1, 16, 16), float("nan"))
    with pytest.raises(train.TrainingDiverged, match="step 3.*finite"):
        train.fit(step_class(model), [good, good, bad, good], epochs=1)
    assert all(p.isfinite().all() for p in model.parameters())
    train.fit(step_class(model), [good], steps=1)


def test_a_far_too_large_learning_rate_is_caught():
    torch.manual_seed(0)
    step = VAEStep(VAE(3, **SMALL), lr=1e3)
    with pytest.raises(train.TrainingDiverged, match="learning rate"):
        train.fit(step, [torch.rand(4, 1, 16, 16)], steps=200)
    assert all(p.isfinite().all() for p in step.model.parameters())


# --- the stop button ------------------------------------------------------------------
def interrupting(at, times=1):
    def step(x):
        step.n += 1
        if step.n == at:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)
        step.finished += 1
        return {"loss": float(step.n)}

    step.n = step.finished = 0
    return step


def test_an_interrupt_finishes_the_step_and_says_so(capsys):
    previous = signal.getsignal(signal.SIGINT)
    step = interrupting(at=5)
    history = train.fit(step, batches(2, 2, 2), epochs=100)
    assert step.finished == 5 and history.steps["loss"] == [1, 2, 3, 4, 5]
    assert history.interrupted and history.epochs["loss"] == [2, 4.5]
    out = capsys.readouterr().out
    assert out.count("\n") == 1 and "at step 5" in out and "kept" in out
    assert signal.getsignal(signal.SIGINT) is previous
    train.fit(step, batches(2), steps=1, history=history)
    assert not history.interrupted and len(history) == 6


def test_a_second_interrupt_raises_at_once():
    previous = signal.getsignal(signal.SIGINT)
    step, history = interrupting(at=3, times=2), train.History()
    with pytest.raises(KeyboardInterrupt):
        train.fit(step, batches(2), steps=50, history=history)
    assert step.n == 3 and step.finished == 2
    assert history.steps["loss"] == [1, 2]
    assert signal.getsignal(signal.SIGINT) is previous


def test_an_interrupt_during_real_training_leaves_a_model_that_works(tmp_path):
    model = Autoencoder(3, **SMALL)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    x = torch.rand(8, 1, 16, 16)
    history = train.fit(AutoencoderStep(model), [x], seconds=20)
    timer.join()
    assert history.interrupted and history.seconds < 10
    assert len(history) > 0 and model(x).isfinite().all()
    store.save(model, tmp_path / "m.safetensors")


def test_a_keyboard_interrupt_from_elsewhere_counts_as_the_stop_button(capsys):
    def step(x):
        step.n += 1
        if step.n == 3:
            raise KeyboardInterrupt
        return {"loss": 1.0}

    step.n = 0
    history = train.fit(step, batches(2), steps=10)
    assert history.interrupted and len(history) == 2
    assert "Stopped by hand at step 2" in capsys.readouterr().out


def test_the_handler_is_put_back_after_an_error():
    previous = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError):
        train.fit(lambda x: 1 / 0, batches(1), steps=1)
    assert signal.getsignal(signal.SIGINT) is previous


def test_other_threads_can_train():
    results = []
    thread = threading.Thread(
        target=lambda: results.append(train.fit(Recorder(), batches(1, 1), epochs=2))
    )
    thread.start()
    thread.join()
    assert len(results[0]) == 4


# --- progress -------------------------------------------------------------------------
SLOW_CELL = """
import time, torch
from gencourse import train
def step(x):
    time.sleep(0.05)
    return {"loss": 1.0}
h = train.fit(step, [torch.zeros(1, 1)], seconds=2.6)
print(h.interrupted)
"""


def test_a_bar_is_for_people_and_stored_notebooks_hold_nothing_of_it():
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3")
    try:

        def run(person):
            messages = []
            client.execute_interactive(
                SLOW_CELL,
                allow_stdin=person,
                timeout=60,
                output_hook=messages.append,
                stdin_hook=lambda _: None,
            )
            shown = [(m["msg_type"], m["content"]) for m in messages]
            return [(k, c) for k, c in shown if k not in ("status", "execute_input")]

        # As nbclient and nbval run it: the print and nothing else.
        assert [(k, c.get("text")) for k, c in run(person=False)] == [
            ("stream", "False\n")
        ]
        # As JupyterLab does: a bar, emptied at the end.
        messages = run(person=True)
        kinds = [k for k, _ in messages]
        assert kinds.count("display_data") == 1
        assert kinds.count("stream") == 1  # no warning, no text bar
        updates = [c["data"] for k, c in messages if k == "update_display_data"]
        assert updates == [{"text/plain": ""}]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_without_a_terminal_nobody_watches(capsys, monkeypatch):
    assert not train._person_watches()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert train._person_watches()


def test_a_bar_can_be_asked_for_and_leaves_nothing(capsys, monkeypatch):
    monkeypatch.setattr(train._Bar, "__init__", _impatient(train._Bar.__init__))
    train.fit(Recorder(), batches(1), steps=5, progress=True)
    captured = capsys.readouterr()
    assert "loss 1" in captured.err and captured.out == ""
    assert captured.err.split("\r")[-2].strip() == ""
    train.fit(Recorder(), batches(1), steps=5, progress=False)
    assert capsys.readouterr().err == ""


def _impatient(init):
    def patched(self, wanted):
        init(self, wanted)
        self.next_time = 0.0

    return patched


# --- seeds ----------------------------------------------------------------------------
def test_the_same_seed_trains_the_same_model():
    def run():
        train.seed_everything(3)
        model = VAE(3, **SMALL)
        x = torch.rand(24, 1, 16, 16)
        history = train.fit(VAEStep(model), list(x.split(8)), epochs=3)
        return history.steps, [p.detach().clone() for p in model.parameters()]

    (steps_1, weights_1), (steps_2, weights_2) = run(), run()
    assert steps_1 == steps_2
    assert all(torch.equal(a, b) for a, b in zip(weights_1, weights_2, strict=True))


def test_the_seed_reaches_every_generator():
    def draw():
        return random.random(), np.random.rand(), torch.rand(()).item()

    assert train.seed_everything(5) is None
    first = draw()
    train.seed_everything(5)
    assert draw() == first
    train.seed_everything(6)
    assert all(a != b for a, b in zip(draw(), first, strict=True))
    for wrong in (-1, 2**32, 1.5, "0", True):
        with pytest.raises(ValueError, match="seed must be"):
            train.seed_everything(wrong)


# --- files ----------------------------------------------------------------------------
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
    model = make()
    path = tmp_path / "model.safetensors"
    store.save(model, path)
    state = torch.get_rng_state()
    again = store.load(type(model), str(path))
    assert torch.equal(torch.get_rng_state(), state)
    assert same(model, again) and again.settings == model.settings
    assert os.listdir(tmp_path) == ["model.safetensors"]
    x = torch.rand(2, 1, 16, 16, dtype=next(model.parameters()).dtype)
    model.eval(), again.eval()
    if isinstance(model, GAN):
        assert torch.equal(model.discriminate(x), again.discriminate(x))
    elif isinstance(model, VAE):
        assert torch.equal(model.encode(x)[1], again.encode(x)[1])
    else:
        assert torch.equal(model(x), again(x))


def test_the_variance_that_training_found_is_saved(tmp_path):
    model = VAE(3, **SMALL)
    VAEStep(model, s2="optimal")(torch.rand(4, 1, 16, 16))
    store.save(model, tmp_path / "m")
    assert store.load(VAE, tmp_path / "m").s2.item() == model.s2.item() != 0.1


def test_a_file_of_another_class_is_refused(tmp_path):
    store.save(VAE(3, **SMALL), tmp_path / "m")
    with pytest.raises(
        ValueError, match=r"m holds a model of class VAE, not Autoencoder"
    ):
        store.load(Autoencoder, tmp_path / "m")


def write(path, tensors, sign=True, **changes):
    """A file as save writes it, with some of its description replaced."""
    model = Autoencoder(3, **SMALL)
    metadata = {
        "format": "gencourse model",
        "version": "1",
        "class": "Autoencoder",
        "settings": json.dumps(model.settings),
    }
    metadata.update(changes)
    if sign:
        metadata["sha256"] = store.digest(
            metadata["class"], metadata["settings"], tensors
        )
    safetensors.torch.save_file(tensors, path, metadata)


def tensors_of(model):
    return {k: v.contiguous() for k, v in model.state_dict().items()}


def test_a_file_that_does_not_fit_its_settings_is_refused(tmp_path):
    path, good = tmp_path / "m", tensors_of(Autoencoder(3, **SMALL))
    write(path, good)
    store.load(Autoencoder, path)  # the oracle of this test writes files that load
    wrong_shape = dict(good) | {"encoder.layers.0.bias": torch.zeros(5)}
    missing = {k: v for k, v in good.items() if k != "encoder.layers.0.bias"}
    extra = dict(good) | {"more": torch.zeros(1)}
    for tensors, message in [
        (wrong_shape, r"encoder.layers.0.bias should be \(4,\), the file has \(5,\)"),
        (missing, r"should be \(4,\), the file has nothing"),
        (extra, r"more should be nothing, the file has \(1,\)"),
        ({k: v.to(torch.int32) for k, v in good.items()}, "int32"),
        ({}, "the file has nothing"),
    ]:
        write(path, tensors)
        with pytest.raises(ValueError, match=message) as error:
            store.load(Autoencoder, path)
        assert str(path) in str(error.value)


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
        loaded = store.load(type(model), tmp_path / "m")
        assert same(loaded, model)
        kinds = [[v.dtype for v in m.state_dict().values()] for m in (loaded, model)]
        assert kinds[0] == kinds[1]


@pytest.mark.parametrize(
    "settings",
    [
        "[" * 100_000,
        '{"latent_dim": 1' + 400 * "0" + "}",
        '{"latent_dim": 3, "size": 17}',
        '{"latent_dim": 3, "size": 16, "channels": 1, "width": 1000000000000}',
        '{"latent_dim": "3"}',
        '{"latent_dim": [3]}',
        '{"latent_dim": null}',
        '{"latent_dim": NaN}',
        '{"latent_dim": 1e400}',
        '{"latent_dim": true}',
        '{"self": 1}',
        '{"device": 1}',
        "[3]",
        "__import__('os')",
        "",
    ],
)
def test_strange_settings_are_refused(settings, tmp_path):
    path = tmp_path / "m"
    write(path, tensors_of(Autoencoder(3, **SMALL)), settings=settings)
    with pytest.raises(ValueError, match="m (has|does not fit)"):
        store.load(Autoencoder, path)


def test_settings_that_claim_a_huge_model_take_no_memory(tmp_path):
    path = tmp_path / "m"
    huge = dict(latent_dim=4096, size=124, channels=3, width=4096)  # terabytes
    write(path, tensors_of(Autoencoder(3, **SMALL)), settings=json.dumps(huge))
    with pytest.raises(ValueError, match="does not fit its settings"):
        store.load(Autoencoder, path)


def test_other_files_are_refused_by_name(tmp_path):
    model = Autoencoder(3, **SMALL)
    path = tmp_path / "m.safetensors"
    with pytest.raises(FileNotFoundError, match="m.safetensors"):
        store.load(Autoencoder, path)
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        store.load(Autoencoder, tmp_path)
    safetensors.torch.save_file(tensors_of(model), path)
    with pytest.raises(ValueError, match="m.safetensors is .* not one that"):
        store.load(Autoencoder, path)
    write(path, tensors_of(model), version="2")
    with pytest.raises(ValueError, match="version '2'"):
        store.load(Autoencoder, path)
    write(path, tensors_of(model), sign=False)
    with pytest.raises(ValueError, match="checksum"):
        store.load(Autoencoder, path)


class Trap:
    def __reduce__(self):
        return (os.mkdir, (self.path,))


def test_a_pickle_is_refused_unread(tmp_path):
    trap = Trap()
    Trap.path = str(tmp_path / "sprung")
    path = tmp_path / "m.safetensors"
    path.write_bytes(pickle.dumps(trap))
    with pytest.raises(ValueError, match="never opened"):
        store.load(Autoencoder, path)
    torch.save(Autoencoder(3, **SMALL).state_dict(), path)
    with pytest.raises(ValueError, match="never opened"):
        store.load(Autoencoder, path)
    assert not (tmp_path / "sprung").exists()


def test_damage_anywhere_is_noticed(tmp_path):
    path = tmp_path / "m.safetensors"
    store.save(VAE(3, **SMALL), path)
    data, seed = path.read_bytes(), random.randrange(10**6)
    rng = random.Random(seed)
    print(f"seed {seed}")
    for cut in [0, 1, 7, 8, 100, len(data) - 1, *rng.sample(range(len(data)), 20)]:
        path.write_bytes(data[:cut])
        with pytest.raises(ValueError, match="m.safetensors"):
            store.load(VAE, path)
    path.write_bytes(data + b"\0")
    with pytest.raises(ValueError, match="m.safetensors"):
        store.load(VAE, path)
    for place in [0, 7, 8, 9, len(data) - 1, *rng.sample(range(len(data)), 60)]:
        flipped = bytearray(data)
        flipped[place] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        try:
            model = store.load(VAE, path)
        except ValueError as error:
            assert "m.safetensors" in str(error)
        else:  # a flip in the spaces that pad the header changes nothing
            assert same(model, _original(data, tmp_path))


def _original(data, folder):
    path = folder / "original"
    path.write_bytes(data)
    return store.load(VAE, path)


def test_a_failed_save_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "m"
    store.save(Autoencoder(3, **SMALL), path)
    before = path.read_bytes()

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store.save(Autoencoder(3, **SMALL), path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["m"]


def test_a_kill_during_save_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "m"
    model = Autoencoder(3, **SMALL)
    store.save(model, path)
    code = (
        "import os, signal, sys\n"
        "from gencourse import models, store\n"
        "os.fsync = lambda fd: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"store.save(models.Autoencoder(9, 16, 1, 4), {str(path)!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", code])
    assert done.returncode == -signal.SIGKILL
    assert same(store.load(Autoencoder, path), model)


def test_save_refuses_what_load_could_not_rebuild(tmp_path):
    with pytest.raises(TypeError, match="Linear has no .settings"):
        store.save(torch.nn.Linear(2, 2), tmp_path / "m")
    model = Autoencoder(3, **SMALL)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        store.save(model, tmp_path / "nowhere" / "m")
    with pytest.raises(IsADirectoryError):
        store.save(model, tmp_path)
    for wrong in ("relu", float("nan"), None, torch.zeros(2)):
        model.settings["width"] = wrong
        with pytest.raises(ValueError, match="Autoencoder has the setting width = "):
            store.save(model, tmp_path / "m")
    assert os.listdir(tmp_path) == []


def test_a_model_in_the_place_of_its_class_is_named(tmp_path):
    for wrong in ("VAE", Autoencoder(3, **SMALL)):
        with pytest.raises(TypeError, match="give the class itself, such as VAE; got"):
            store.load(wrong, tmp_path / "m")
        with pytest.raises(TypeError, match="give the class itself, such as VAE; got"):
            store.pretrained(wrong)


@pytest.mark.parametrize(("model_class", "name"), [(VAE, "vae_64"), (GAN, "gan_64")])
def test_the_larger_models_draw_faces(model_class, name):
    drawn = store.pretrained(model_class, name).sample(
        24, torch.Generator().manual_seed(1)
    )
    assert drawn.shape == (24, 3, 64, 64)
    assert metrics.fidelity(drawn) < 0.1  # PCA gets 0.10 at 32 pixels
    assert (store.PRETRAINED / f"{name}.safetensors").stat().st_size < 2_000_000


def test_stored_results_are_those_of_the_script_and_of_the_stored_models():
    content = json.loads((store.PRETRAINED / "comparison.json").read_text())
    assert {row["name"] for row in content["variances"]} == set(compare.VARIANCES)
    assert {row["name"] for row in content["remedies"]} == set(compare.REMEDIES)
    assert content["settings"]["s2"] == compare.S2
    row = {r["name"]: r for r in content["families"] if r["seed"] == 0}
    row |= {r["name"]: r for r in content["variances"]}
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


def test_the_stored_gan_draws_faces():
    drawn = store.pretrained(GAN).sample(40, torch.Generator().manual_seed(0))
    assert metrics.fidelity(drawn) < 0.1
    assert metrics.fidelity(faces.render(faces.sample_knobs(9), 32)) < 0.01


def test_best_device_can_hold_a_model():
    device = train.best_device()
    assert isinstance(device, torch.device)
    assert (
        Autoencoder(3, **SMALL)
        .to(device)
        .decode(torch.zeros(1, 3, device=device))
        .isfinite()
        .all()
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(
    ("model_class", "step_class"),
    [(Autoencoder, AutoencoderStep), (VAE, VAEStep), (GAN, GANStep)],
)
def test_models_on_a_gpu_train_and_are_saved_for_a_cpu(
    model_class, step_class, tmp_path
):
    model = model_class(3, **SMALL).cuda()
    history = train.fit(step_class(model), [torch.rand(4, 1, 16, 16)], steps=3)
    assert len(history) == 3
    store.save(model, tmp_path / "m")
    assert same(store.load(model_class, tmp_path / "m"), model.cpu())
