"""`gencourse train`: the same numbers whatever the number of processes and restarts."""

import contextlib
import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch

from gencourse import data, models, steps, store, train
from gencourse.scale import checkpoints, request, share
from gencourse.scale import command as train_command

pytest.importorskip(
    "lightning_fabric", reason="lightning-fabric is missing: pip install -e .[scale]"
)

ROOT = Path(__file__).resolve().parent.parent
CLASSES = {"autoencoder": models.Autoencoder, "vae": models.VAE, "gan": models.GAN}
SMALL = "digits --size 16 --width 4 --latent-dim 3 --train-size 200 --batch-size 32"
SMALL += " --accelerator cpu --devices"


def command(model, out, more="", devices=1):
    line = f"train {model} {SMALL} {devices} {more}"
    return [*line.split(), "--out", str(out)]


def start(*arguments, launcher=("-m", "gencourse"), **environment):
    # One thread each, whatever else the machine does: sums in one order.
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | environment
    return subprocess.Popen(
        [sys.executable, *launcher, *arguments],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process):
    try:
        out, err = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out, err


def call(*arguments, **options):
    code, out, err = finish(start(*arguments, **options))
    assert code == 0, err
    return out


@pytest.fixture
def here(capsys):
    """Run the command in this process and return (exit code, out, err)."""

    def run(*arguments):
        with torch.random.fork_rng(devices=[]):
            code = train_command.main(list(arguments))
        return code, *capsys.readouterr()

    return run


def curve(folder):
    with open(folder / "losses.csv", encoding="utf-8") as file:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    assert [row.pop("step") for row in rows] == list(range(1, len(rows) + 1))
    return rows


def assert_close(found, wanted, rel):
    assert len(found) == len(wanted) > 0
    for n, (a, b) in enumerate(zip(found, wanted, strict=True)):
        assert a == pytest.approx(b, rel=rel, abs=rel), f"step {n + 1}"


def exactly(folder):
    """The curve, character by character, and all bits of the model."""
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    bits = {name: tensor.view(torch.int32).tolist() for name, tensor in tensors.items()}
    return (folder / "losses.csv").read_text(encoding="utf-8"), bits


# --- the same numbers -----------------------------------------------------------------
MODELS = {
    "autoencoder": "",
    "vae": "--s2 optimal --beta 0.5",
    "gan": "--r1 0.1 --ema 0.9",
}


@pytest.mark.parametrize("model", MODELS)
def test_one_process_does_what_the_lessons_do(model, tmp_path, here):
    code, _, err = here(*command(model, tmp_path / "a", f"--steps 15 {MODELS[model]}"))
    assert code == 0, err
    images = data.load("digits", 16, train_size=200).train
    train.seed_everything(0)
    rng = torch.Generator().manual_seed(0)
    net = CLASSES[model](3, 16, 1, 4)
    step = {
        "autoencoder": lambda: steps.AutoencoderStep(net),
        "vae": lambda: steps.VAEStep(net, beta=0.5, s2="optimal", rng=rng),
        "gan": lambda: steps.GANStep(net, r1=0.1, ema=0.9, rng=rng),
    }[model]()
    history = train.fit(step, images.batches(32, drop_last=True), steps=15)
    rows = curve(tmp_path / "a")
    assert [row.pop("epoch") for row in rows] == [1] * 6 + [2] * 6 + [3] * 3
    for name, values in history.steps.items():
        assert [row[name] for row in rows] == pytest.approx(values, rel=1e-6)
    if model == "gan":
        step.use_average()
    saved = store.load(CLASSES[model], tmp_path / "a/model.safetensors")
    for name, value in saved.state_dict().items():
        torch.testing.assert_close(value, net.state_dict()[name], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_two_processes_give_the_curve_of_one(model, tmp_path, here):
    more = f"--steps 20 {MODELS[model]}"
    two = start(*command(model, tmp_path / "two", more, devices=2))
    code, _, err = here(*command(model, tmp_path / "one", more))
    assert code == 0, err
    code, out, err = finish(two)
    assert code == 0, err
    assert "2 processes x 1 parts x 16 images" in out
    assert_close(curve(tmp_path / "two"), curve(tmp_path / "one"), 1e-4)
    for name in ("one", "two"):
        store.load(CLASSES[model], tmp_path / name / "model.safetensors")


@pytest.mark.parametrize(
    ("model", "more"),
    [("autoencoder", ""), ("vae", "--s2 0.05"), ("gan", "--r1 0.1 --ema 0.9")],
)
def test_a_batch_in_two_parts_gives_the_curve_of_one(model, more, tmp_path, here):
    for parts in (1, 2):
        name = str(parts)
        options = f"--steps 15 --accumulate {parts} {more}"
        code, _, err = here(*command(model, tmp_path / name, options))
        assert code == 0, err
    assert_close(curve(tmp_path / "2"), curve(tmp_path / "1"), 1e-4)


def test_parts_of_a_wasserstein_batch_share_one_draw_of_the_penalty():
    # Not offered by the command, but the hardest case: noise inside a measured part.
    def run(parts):
        torch.manual_seed(0)
        rng = torch.Generator().manual_seed(1)
        step = steps.GANStep(models.GAN(3, 16, 1, 4), loss="wasserstein", rng=rng)
        noise = share.SharedNoise(step)
        share.share(step, one_device(), noise, parts)
        x = torch.rand(12, 1, 16, 16, generator=torch.Generator().manual_seed(2))
        with noise:
            return [step(x) for _ in range(5)]

    assert_close(run(3), run(1), 1e-4)


def one_device():
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    return fabric


def test_what_is_not_exact_is_what_the_docs_name(tmp_path, here):
    """Statistics of a batch see one part only."""
    for model, more in (("vae", "--s2 optimal"), ("gan", "--minibatch-std")):
        for parts in (1, 2):
            options = f"--steps 3 --accumulate {parts} {more}"
            assert here(*command(model, tmp_path / f"{model}{parts}", options))[0] == 0
        one, two = curve(tmp_path / f"{model}1"), curve(tmp_path / f"{model}2")
        with pytest.raises(AssertionError, match="step [123]"):
            assert_close(two, one, 1e-4)
    text = (ROOT / "docs/scaling.md").read_text(encoding="utf-8")
    assert "`--minibatch-std`" in text and "`--s2 optimal`" in text


# --- going on -------------------------------------------------------------------------
@pytest.mark.parametrize("model", MODELS)
def test_a_run_in_pieces_is_the_run_in_one_go(model, tmp_path, here):
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    more = f"{MODELS[model]} --checkpoint-every 4 --steps"
    assert here(*command(model, whole, f"{more} 17"))[0] == 0
    # 6 batches make an epoch: a piece ends within one, one at its end, one beyond.
    assert here(*command(model, pieces, f"{more} 5"))[0] == 0
    assert here(*command(model, pieces, f"{more} 12 --resume"))[0] == 0
    assert here(*command(model, pieces, f"{more} 17 --resume"))[0] == 0
    assert exactly(pieces) == exactly(whole)
    assert steps_kept(pieces) == [16, 17]
    # A complete run goes on nowhere, and asked for fewer steps it keeps its own.
    _, text, _ = here(*command(model, pieces, f"{more} 9 --resume"))
    assert "Step 17: the model is in" in text
    assert exactly(pieces) == exactly(whole)


def steps_kept(folder):
    return sorted(int(p.stem[5:]) for p in (folder / "checkpoints").iterdir())


def test_losses_that_were_lost_are_told_or_begun_anew(tmp_path, here):
    out = tmp_path / "a"
    assert here(*command("vae", out, "--steps 3"))[0] == 0
    losses = out / "losses.csv"
    for damaged in (b"", losses.read_bytes()[:120], b"\xff\xfe" * 99):
        losses.write_bytes(damaged)
        code, _, err = here(*command("vae", out, "--steps 4 --resume"))
        assert code == 2 and "losses.csv is damaged" in err and "Move it away" in err
    losses.unlink()
    assert here(*command("vae", out, "--steps 5 --resume"))[0] == 0
    with open(losses, encoding="utf-8") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["4", "5"]
    assert here(*command("vae", out, "--steps 6 --resume"))[0] == 0
    with open(losses, encoding="utf-8") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["4", "5", "6"]


def test_a_full_disk_ends_the_run_and_keeps_the_last_checkpoint(
    tmp_path, here, monkeypatch
):
    def full(*_):
        raise OSError(28, "No space left on device")

    write_whole = store.write_whole
    monkeypatch.setattr(
        store,
        "write_whole",
        lambda path, content: (
            ("000004" in path.name and full()) or write_whole(path, content)
        ),
    )
    out = tmp_path / "a"
    code, _, err = here(*command("vae", out, "--steps 9 --checkpoint-every 2"))
    assert code == 1 and "no checkpoint at step 4: " in err and "No space" in err
    assert steps_kept(out) == [2]
    monkeypatch.setattr(checkpoints.Folder, "add", full)
    code, _, err = here(*command("vae", out, "--steps 9 --resume"))
    assert code == 1 and "No space" in err and f"{out} with --resume" in err


def wait_until(condition, process):
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
def test_after_kill_9_it_follows_the_uninterrupted_curve(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    more = "--r1 0.1 --ema 0.9 --checkpoint-every 25 --steps 200"
    other = start(*command("gan", whole, more))
    process = start(*command("gan", killed, more))
    wait_until((killed / "checkpoints/step-000000050.safetensors").exists, process)
    process.kill()
    process.communicate()
    assert not (killed / "model.safetensors").exists()
    out = call(*command("gan", killed, more + " --resume"))
    begun = int(out.split("From step ")[1].split()[0])
    assert begun >= 50 and begun % 25 == 0
    assert finish(other)[0] == 0
    assert exactly(killed) == exactly(whole)


def members(process):
    """The processes of a session, by /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, session = stat.read_text().rsplit(")", 1)[1].split()[:4]
            if int(session) == process.pid and state != "Z":
                found.append(int(stat.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_start_that_is_ended_leaves_no_process_behind(number, tmp_path):
    process = start(*command("vae", tmp_path / "a", "--steps 100000", devices=2))
    try:
        wait_until(lambda: len(members(process)) == 2, process)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)  # until the last has closed its pipes
        assert process.returncode == (143 if number == signal.SIGTERM else -number)
        assert not err and not members(process)
    finally:
        for member in members(process):
            os.kill(member, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc")
def test_a_process_that_is_lost_ends_the_run_in_plain_words(tmp_path):
    out = tmp_path / "a"
    process = start(*command("vae", out, "--steps 100000", devices=2))
    wait_until((out / "losses.csv").exists, process)
    (other,) = set(members(process)) - {process.pid}
    os.kill(other, signal.SIGKILL)
    code, _, err = finish(process)
    assert code == 1 and "Traceback" not in err
    assert "training stopped" in err and f"{out} with --resume" in err
    assert not members(process)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_a_signal_saves_and_says_how_to_go_on(devices, tmp_path, here):
    out = tmp_path / "a"
    number = signal.SIGTERM if devices == 2 else signal.SIGINT
    process = start(*command("vae", out, "--steps 100000", devices))
    wait_until((out / "losses.csv").exists, process)
    time.sleep(0.3)
    process.send_signal(number)
    code, text, err = finish(process)
    assert code == 128 + number, err
    assert f"Stopped by {number.name} at step" in text and "--resume" in text
    stopped = len(curve(out))
    (checkpoint,) = (out / "checkpoints").iterdir()
    assert checkpoint.name == f"step-{stopped:09d}.safetensors"
    # One process may go on where two stopped.
    code, _, err = here(*command("vae", out, f"--steps {stopped + 3} --resume"))
    assert code == 0, err
    assert len(curve(out)) == stopped + 3


def test_a_damaged_checkpoint_is_left_out_for_the_one_before(tmp_path, here):
    out = tmp_path / "a"
    more = "--checkpoint-every 5 --steps"
    assert here(*command("vae", out, f"{more} 10"))[0] == 0
    before = exactly(out)
    newest = out / "checkpoints/step-000000010.safetensors"
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    code, text, err = here(*command("vae", out, f"{more} 10 --resume"))
    assert code == 0 and "damaged" in err and "From step 5 to 10" in text
    assert exactly(out) == before
    # Damaged ones of later steps do not drive out those of a run that begins anew.
    for path in (out / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    code, text, err = here(*command("vae", out, f"{more} 7 --resume"))
    assert code == 0 and err.count("Not taken") == 2 and "From step 0 to 7" in text
    assert steps_kept(out) == [5, 7]


# --- precision, devices ---------------------------------------------------------------
@pytest.mark.parametrize("model", MODELS)
def test_bf16_stays_finite_and_near(model, tmp_path, here):
    for precision in ("32", "bf16"):
        more = f"--steps 12 --precision {precision} {MODELS[model]}"
        assert here(*command(model, tmp_path / precision, more))[0] == 0
    full, half = curve(tmp_path / "32"), curve(tmp_path / "bf16")
    assert full != half
    assert all(math.isfinite(v) for row in half for v in row.values())
    assert_close(half, full, 0.1)
    store.load(CLASSES[model], tmp_path / "bf16/model.safetensors")


@pytest.mark.slow
def test_torchrun_starts_it_too(tmp_path):
    arguments = command("autoencoder", tmp_path / "a", "--steps 6")
    at = arguments.index("--devices")
    del arguments[at : at + 2]
    launcher = "-m torch.distributed.run --standalone --nproc-per-node 2 -m gencourse"
    out = call(*arguments, launcher=launcher.split())
    assert "2 processes" in out and len(curve(tmp_path / "a")) == 6


def test_processes_come_from_whoever_started_them():
    assert train_command._processes(None, {}) == (None, 1)
    assert train_command._processes(3, {}) == (3, 1)
    torchrun = {"LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8"}
    assert (
        train_command._processes(None, torchrun)
        == train_command._processes(4, torchrun)
        == (4, 2)
    )
    slurm = {"SLURM_NTASKS": "16", "SLURM_STEP_NUM_TASKS": "16"}
    slurm["SLURM_STEP_NUM_NODES"] = "2"
    assert train_command._processes(None, slurm) == (8, 2)
    with pytest.raises(
        request.Problem, match="--devices 3 .* 4 processes on each of 2"
    ):
        train_command._processes(3, torchrun)


# --- what cannot work -----------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("vae no-such-set", "unknown data set 'no-such-set'. The names are faces"),
        ("vae no/such/folder", "there is no folder no/such/folder"),
        ("vae digits --r1 1", "--r1 is for gan, not for vae"),
        ("gan digits --minibatch-std --beta 1", "--beta is for vae, not for gan"),
        ("vae digits --beta nan", "--beta is a weight >= 0, got nan"),
        ("vae digits --s2 -1", "s2 is a variance and must be > 0, got -1.0"),
        ("vae digits --size 30", "size must be a multiple of 4"),
        ("vae digits --latent-dim 0", "--latent-dim must be at least 1, got 0"),
        ("vae digits --epochs 0", "--epochs must be at least 1, got 0"),
        ("gan digits --ema 1", "ema must be in [0, 1), got 1.0"),
        ("vae digits --batch-size 33 --accumulate 2", "cannot be divided by 1 proc"),
        ("vae digits --devices 7", "cannot be divided by 7 processes"),
        ("vae digits --train-size 20", "--batch-size 128 is more than the 20 images"),
        ("vae digits --train-size 9000", "train_size 9000"),
        ("vae digits --resume", "holds no run to go on with: leave out --resume"),
    ],
)
def test_wrong_requests_are_refused_in_plain_words(arguments, says, tmp_path, here):
    out = tmp_path / "a"
    more = ["--out", str(out), "--accelerator", "cpu", "--steps", "1"]
    if "--epochs" in arguments:
        more = more[:-2]
    code, _, err = here("train", *arguments.split(), *more)
    assert code == 2
    assert err.startswith("gencourse train: ") and says in err
    assert not out.exists()


def test_unknown_models_and_values_are_refused(capsys):
    for arguments, says in (
        ("diffusion digits", "invalid choice: 'diffusion'"),
        ("vae digits --s2 small", "argument --s2: invalid"),
    ):
        with pytest.raises(SystemExit):
            train_command.main(["train", *arguments.split(), "--out", "x"])
        assert says in capsys.readouterr().err


def test_folders_that_hold_something_else_are_left_alone(tmp_path, here):
    (tmp_path / "file").touch()
    code, _, err = here(*command("vae", tmp_path / "file/a", "--steps 1"))
    assert code == 2 and "cannot write in" in err
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.txt").touch()
    code, _, err = here(*command("vae", tmp_path / "full", "--steps 1"))
    assert code == 2 and "is not an empty folder" in err
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["thesis.txt"]

    out = tmp_path / "run"
    assert here(*command("vae", out, "--steps 2"))[0] == 0
    before = exactly(out)
    code, _, err = here(*command("vae", out, "--steps 2"))
    assert code == 2 and "holds a run: add --resume" in err
    code, _, err = here(*command("vae", out, "--steps 4 --resume --seed 1 --lr 0.1"))
    assert code == 2 and "lr was None and is now 0.1; seed was 0 and is now 1" in err
    description = out / "run.json"
    fewer = description.read_text(encoding="utf-8").replace(
        '"images": 200', '"images": 9'
    )
    description.write_text(fewer, encoding="utf-8")
    code, _, err = here(*command("vae", out, "--steps 4 --resume"))
    assert code == 2 and "images was 9 and is now 200" in err
    assert exactly(out) == before


def test_a_checkpoint_of_other_settings_is_refused(tmp_path, here):
    for seed in (0, 1):
        more = f"--steps 2 --seed {seed}"
        assert here(*command("vae", tmp_path / str(seed), more))[0] == 0
    name = "checkpoints/step-000000002.safetensors"
    (tmp_path / "1" / name).replace(tmp_path / "0" / name)
    code, _, err = here(*command("vae", tmp_path / "0", "--steps 3 --resume"))
    assert code == 2 and "is of a run with other settings" in err


@pytest.mark.slow
def test_a_problem_ends_all_processes_and_is_said_once(tmp_path):
    # Each process sees that there are too few images.
    arguments = command("vae", tmp_path / "a", "--batch-size 300", devices=2)
    code, _, err = finish(start(*arguments))
    assert code == 2
    assert err.count("is more than the 200 images") == 1, err


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_checkpoint(
    tmp_path, here
):
    out = tmp_path / "a"
    more = "--steps 200 --checkpoint-every 1 --lr 1e30"
    code, _, err = here(*command("autoencoder", out, more))
    assert code == 1
    assert "training stopped at step" in err and "smaller --lr" in err
    newest = max((out / "checkpoints").iterdir())
    assert f"last checkpoint is of step {len(curve(out))}" in err
    assert f"{len(curve(out)):09d}" in newest.name
    assert not (out / "model.safetensors").exists()


def test_without_fabric_it_says_what_to_install(tmp_path, here, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    code, _, err = here(*command("vae", tmp_path / "a", "--steps 1"))
    assert code == 2 and "pip install" in err


def test_files_of_a_run_hold_numbers_only(tmp_path, here):
    out = tmp_path / "a"
    assert here(*command("gan", out, "--steps 2 --ema 0.9"))[0] == 0
    names = sorted(p.name for p in out.iterdir())
    assert names == ["checkpoints", "losses.csv", "model.safetensors", "run.json"]
    assert json.loads((out / "run.json").read_text())["ema"] == 0.9
    (path, *_) = (out / "checkpoints").iterdir()
    found = safetensors.torch.load_file(path)
    kinds = {name.split(".")[0] for name in found}
    assert kinds == {"model", "average", "d_optimizer", "g_optimizer", "rng"}
