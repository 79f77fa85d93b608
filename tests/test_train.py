"""The loop ends, weighs, stops and tells the truth."""

import contextlib
import random
import sys
import time

import numpy as np
import pytest
import torch
import tqdm.auto
from torch.optim import adam

from gencourse import store, train
from gencourse.models import GAN, VAE, Autoencoder
from gencourse.steps import AutoencoderStep, GANStep, VAEStep

SMALL = dict(size=16, channels=1, width=4)
FAMILIES = [(Autoencoder, AutoencoderStep), (VAE, VAEStep), (GAN, GANStep)]


class Recorder:
    """A step that learns nothing and returns the values that it was given."""

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


def test_the_first_limit_ends(monkeypatch):
    # A clock that moves on by a second whenever it is read.
    seconds = iter(range(1000))
    monkeypatch.setattr(train.time, "perf_counter", lambda: float(next(seconds)))
    assert len(train.fit(Recorder(), batches(1, 1), epochs=3, steps=100)) == 6
    assert len(train.fit(Recorder(), batches(1, 1), epochs=3, steps=5)) == 5
    assert len(train.fit(Recorder(), batches(1, 1), epochs=3, seconds=60)) == 6
    history = train.fit(Recorder(), batches(1, 1), epochs=3, seconds=2.5)
    assert len(history) == history.seconds == 3
    train.fit(Recorder(), batches(1), seconds=2, history=history)
    assert len(history) == history.seconds == 5


def test_a_history_goes_on():
    history = train.fit(Recorder(), batches(2, 1), epochs=1)
    again = train.fit(Recorder(), batches(2, 1), epochs=1, history=history)
    assert again is history and history.images == 6
    assert history.steps == {"loss": [1, 2, 1, 2]}
    assert len(history.epochs["loss"]) == 2
    with pytest.raises(ValueError, match="elbo.*loss.*new history"):
        train.fit(lambda x: {"elbo": 1.0}, batches(1), steps=1, history=history)
    new = train.History()
    assert train.fit(Recorder(), batches(1), steps=1, history=new) is new


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
    "limits",
    [
        dict(),
        dict(epochs=0),
        dict(steps=-1),
        dict(seconds=0),
        dict(seconds=float("nan")),
    ],
)
def test_impossible_ends_are_refused(limits):
    with pytest.raises(ValueError, match="|".join(limits) or "say when to end"):
        train.fit(Recorder(), batches(1), **limits)


def test_one_tensor_is_not_taken_for_batches():
    with pytest.raises(TypeError, match="x.split"):
        train.fit(Recorder(), torch.zeros(4, 2), epochs=1)


def test_batches_that_give_nothing_are_an_error():
    with pytest.raises(ValueError, match="nothing in epoch 1.*fewer images"):
        train.fit(Recorder(), [], epochs=2)
    step = Recorder()
    with pytest.raises(ValueError, match="nothing in epoch 2.*only once") as error:
        train.fit(step, (b for b in batches(1, 1)), epochs=3)
    assert error.value.history.steps == {"loss": [1, 2]}
    assert len(train.fit(step, (b for b in batches(1, 1)), epochs=1)) == 2
    assert len(train.fit(step, (b for b in batches(1, 1, 1)), steps=2)) == 2


@pytest.mark.parametrize(
    "returned", [None, 3.0, {"loss": "low"}, {"loss": torch.zeros(2)}]
)
def test_a_step_must_return_numbers(returned):
    with pytest.raises(TypeError, match="dict of single numbers, got"):
        train.fit(lambda x: returned, batches(1), steps=1)


# --- a loss that is no number ---------------------------------------------------------
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_divergence_stops_at_once_and_names_step_values_and_remedy(bad):
    step = Recorder(values=[0.5, 0.25, bad, 0.1])
    with pytest.raises(train.TrainingDiverged) as error:
        train.fit(step, batches(2, 2, 2, 2), epochs=1)
    assert len(step.seen) == 3
    for words in ("step 3", f"loss = {bad}", "loss = 0.25", "learning rate"):
        assert words in str(error.value)
    assert error.value.history.steps == {"loss": [0.5, 0.25]}
    assert error.value.history.epochs == {"loss": [0.375]}
    assert isinstance(error.value, RuntimeError)


BAD_BATCHES = {
    "NaN": torch.full((4, 1, 16, 16), float("nan")),
    "from -1 to": torch.linspace(-1, 1, 16).expand(4, 1, 16, 16),
    "batch 3 holds no images": torch.zeros(0, 1, 16, 16),
    r"expected .* got \(4, 1, 20, 20\)": torch.zeros(4, 1, 20, 20),
    "got dict": {"pixels": torch.zeros(4, 1, 16, 16)},
}


@pytest.mark.parametrize("words", BAD_BATCHES)
@pytest.mark.parametrize(("model_class", "step_class"), FAMILIES)
def test_a_bad_batch_in_the_middle_loses_neither_model_nor_history(
    model_class, step_class, words
):
    good, step = torch.rand(4, 1, 16, 16), step_class(model_class(3, **SMALL))
    given = [good, good, BAD_BATCHES[words], good]
    with pytest.raises((ValueError, TypeError), match=words) as error:
        train.fit(step, given, epochs=1)
    kept = error.value.history
    assert len(kept) == 2 and kept.images == 8 and len(kept.epochs) == len(kept.steps)
    (note,) = error.value.__notes__
    assert "step 3" in note and "history" in note
    train.fit(step, [good], steps=1, history=kept)
    assert len(kept) == 3
    assert all(p.isfinite().all() for p in step.model.parameters())


@pytest.mark.parametrize(("model_class", "step_class"), FAMILIES)
def test_divergence_leaves_the_weights_of_the_last_good_step(model_class, step_class):
    model, seen = model_class(3, **SMALL), []

    def overflow(_, __, output):
        seen.append(output)
        return output * float("inf") if len(seen) > 6 else output

    for network in model.children():
        network.register_forward_hook(overflow)
    history = train.History()
    with pytest.raises(train.TrainingDiverged, match="not finite"):
        train.fit(
            step_class(model), [torch.rand(4, 1, 16, 16)], steps=20, history=history
        )
    assert 0 < len(history) < 20
    assert all(p.isfinite().all() for p in model.parameters())
    seen.clear()
    train.fit(step_class(model), [torch.rand(4, 1, 16, 16)], steps=1)


def test_a_far_too_large_learning_rate_is_caught():
    step = VAEStep(VAE(3, **SMALL), lr=1e3)
    with pytest.raises(train.TrainingDiverged, match="learning rate"):
        train.fit(step, [torch.rand(4, 1, 16, 16)], steps=200)
    assert all(p.isfinite().all() for p in step.model.parameters())


# --- the stop button ------------------------------------------------------------------
def stopped_at_line(n, module, step, batches):
    """Train for one epoch and press Ctrl-C before the n-th line of this module."""
    lines = 0

    def trace(frame, event, _):
        nonlocal lines
        if frame.f_code.co_filename != module.__file__:
            return None
        lines += event == "line"
        if event == "line" and lines == n:
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        return train.fit(step, batches, epochs=1)
    finally:
        sys.settrace(before)


def test_the_stop_button_keeps_the_history_and_says_how_to_continue(capsys):
    step = Recorder(values=[1.0, 2.0, 3.0, 4.0])

    def press_at_the_end(x):
        if len(step.seen) == 4:
            raise KeyboardInterrupt
        return step(x)

    history = train.fit(press_at_the_end, batches(2, 2, 2), epochs=100)
    assert history.interrupted and history.steps["loss"] == [1, 2, 3, 4]
    assert history.epochs["loss"] == [2, 4] and history.images == 8
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    for words in ("step 4", "kept", "history=history"):
        assert words in printed
    train.fit(Recorder(), batches(2), steps=1, history=history)
    assert not history.interrupted and len(history) == 5


def test_wherever_the_stop_button_is_pressed_each_step_is_in_the_history_or_not():
    def step(x):
        return {"loss": 1.0, "kl": 2.0, "elbo": 3.0}

    lengths = set()
    for n in range(1, 150):
        with contextlib.suppress(KeyboardInterrupt):  # before or after the loop
            history = stopped_at_line(n, train, step, batches(2, 2))
            lengths.add(len(history))
            for lists in (history.steps, history.epochs):
                assert len({len(values) for values in lists.values()}) <= 1
    assert lengths == {0, 1, 2}


def test_wherever_the_stop_button_is_pressed_no_update_is_half_made():
    def flat(model):
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    x, ends = torch.rand(4, 1, 16, 16), []
    for n in (10**9, *range(1, 400, 12)):
        torch.manual_seed(0)
        step = AutoencoderStep(Autoencoder(3, **SMALL))
        step(x)
        before = flat(step.model)
        history = stopped_at_line(n, adam, step, [x])
        after = flat(step.model)
        if not ends:
            ends = [before, after]  # of a whole step
        assert any(torch.equal(after, end) for end in ends)
        train.fit(step, [x], epochs=1, history=history)
    assert not torch.equal(*ends)


def test_a_stopped_training_leaves_a_model_that_works(tmp_path):
    model, x = Autoencoder(3, **SMALL), torch.rand(8, 1, 16, 16)
    step, calls = AutoencoderStep(model), []

    def press(*_):  # in the backward pass: the middle of a step
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    next(model.parameters()).register_post_accumulate_grad_hook(press)
    history = train.fit(step, [x], steps=20)
    assert history.interrupted and len(history) == 2
    assert model(x).isfinite().all()
    store.save(model, tmp_path / "m.safetensors")
    train.fit(step, [x], steps=2, history=history)
    assert len(history) == 4


# --- progress -------------------------------------------------------------------------
SETUP = """
import torch, tqdm.auto
from gencourse import train
Bar = tqdm.auto.tqdm
tqdm.auto.tqdm = lambda **options: Bar(**options | dict(delay=1e-9, mininterval=0))
"""
CELL = """
history = train.fit(lambda x: {"loss": 1.0}, [torch.zeros(1, 1)], steps=9)
print(len(history), history.interrupted)
"""


def test_a_bar_is_for_people_and_stored_notebooks_hold_nothing_of_it():
    """nbclient and nbval say that nobody can answer a question, JupyterLab that one
    can. Whatever fails in the bar, training goes on."""
    from jupyter_client.manager import start_new_kernel

    def run(cell, person):
        messages = []
        client.execute_interactive(
            cell,
            allow_stdin=person,
            timeout=600,
            output_hook=messages.append,
            stdin_hook=lambda _: None,
        )
        shown = [(m["msg_type"], m["content"]) for m in messages]
        return [(k, c) for k, c in shown if k not in ("status", "execute_input")]

    def printed(messages):
        return [
            c["text"] for k, c in messages if k == "stream" and c["name"] == "stdout"
        ]

    manager, client = start_new_kernel(kernel_name="python3")
    try:
        run(SETUP, person=False)
        (only,) = run(CELL, person=False)
        assert only[0] == "stream" and only[1]["text"] == "9 False\n"
        messages = run(CELL, person=True)
        kinds = [kind for kind, _ in messages]
        assert kinds.count("display_data") == 1 and kinds.count("stream") == 1
        assert printed(messages) == ["9 False\n"]
        # As without ipywidgets: tqdm raises ImportError when it opens the bar.
        broken = run("tqdm.notebook.IProgress = None" + CELL, person=True)
        assert printed(broken) == ["9 False\n"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@pytest.mark.parametrize("fails", ["import", "update", "set_postfix", "close"])
def test_a_bar_that_fails_ends_no_training(monkeypatch, fails):
    called = []

    def fail(*_, **__):
        called.append(fails)
        raise ImportError("IProgress not found. Please update jupyter and ipywidgets.")

    # A clock that moves on by 3 s at each look, so that any bar would appear.
    seconds = iter(range(0, 10**6, 3))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(seconds)))
    monkeypatch.setattr(tqdm.std.tqdm, "__del__", lambda self: None)
    monkeypatch.setattr(tqdm.std.tqdm, "update", lambda self: True)  # it was drawn
    if fails == "import":
        monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    else:
        monkeypatch.setattr(tqdm.std.tqdm, fails, fail)
    history = train.fit(Recorder(), batches(1, 1), epochs=2, progress=True)
    assert history.steps["loss"] == [1, 2, 3, 4] and not history.interrupted
    assert called or fails == "import"


def test_a_bar_can_be_asked_for_and_leaves_nothing(capsys, monkeypatch):
    bar = tqdm.auto.tqdm
    at_once = dict(delay=1e-9, mininterval=0)
    monkeypatch.setattr(tqdm.auto, "tqdm", lambda **options: bar(**options | at_once))
    train.fit(Recorder(), batches(1), steps=5, progress=True)
    captured = capsys.readouterr()
    assert "5/5" in captured.err and "loss=5" in captured.err and captured.out == ""
    assert captured.err.split("\r")[-2].strip() == ""
    train.fit(Recorder(), batches(1), steps=5, progress=False)
    assert capsys.readouterr().err == ""


def test_without_a_terminal_nobody_watches(capsys, monkeypatch):
    assert not train._person_watches()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert train._person_watches()


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

    train.seed_everything(5)
    first = draw()
    train.seed_everything(np.int64(5))
    assert draw() == first
    train.seed_everything(6)
    assert all(a != b for a, b in zip(draw(), first, strict=True))
    for wrong in (-1, 2**32, 1.5, "0"):
        before = torch.get_rng_state()
        with pytest.raises((ValueError, TypeError)):
            train.seed_everything(wrong)
        assert torch.equal(torch.get_rng_state(), before)


# --- devices --------------------------------------------------------------------------
def test_best_device_can_hold_a_model():
    device = train.best_device()
    model = Autoencoder(3, **SMALL).to(device)
    assert model.decode(torch.zeros(1, 3, device=device)).isfinite().all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("model_class", "step_class"), FAMILIES)
def test_models_on_a_gpu_train_and_are_saved_for_a_cpu(
    model_class, step_class, tmp_path
):
    model = model_class(3, **SMALL).cuda()
    history = train.fit(step_class(model), [torch.rand(4, 1, 16, 16)], steps=3)
    assert len(history) == 3
    store.save(model, tmp_path / "m")
    saved, weights = store.load(model_class, tmp_path / "m"), model.cpu().state_dict()
    assert all(torch.equal(v, weights[k]) for k, v in saved.state_dict().items())
