"""`gencourse train`: the same numbers whatever the number of processes and restarts."""

import contextlib
import csv
import io
import math
import os
import re
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image

from gencourse import data, models, steps, store, train
from gencourse.scale import checkpoints, settings
from gencourse.scale import command as train_command

pytest.importorskip(
    "lightning_fabric", reason="lightning-fabric is missing: pip install -e .[scale]"
)

ROOT = Path(__file__).resolve().parent.parent
CLASSES = {"autoencoder": models.Autoencoder, "vae": models.VAE, "gan": models.GAN}
MODELS = {
    "autoencoder": "",
    "vae": "--s2 optimal --beta 0.5",
    "gan": "--r1 0.1 --ema 0.9 --spectral-norm",
}
SMALL = "--size 16 --width 4 --latent-dim 3 --batch-size 32 --accelerator cpu"
LIMIT = 300  # seconds; only a test that hangs meets it
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="there is no /proc"
)


def command(model, out, more="", devices=1, images="digits --train-size 200"):
    line = f"train {model} {images} {SMALL} --devices {devices} {more}"
    return [*line.split(), "--out", str(out)]


def start(*arguments, launcher=("-m", "gencourse")):
    # One thread each, whatever else the machine does: sums in one order.
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
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
        out, err = process.communicate(timeout=LIMIT)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out, err


def wait_until(condition, process):
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_training(out, done=1):
    """Whether losses.csv has this many lines with numbers."""
    path = out / "losses.csv"
    return path.exists() and path.read_bytes().count(b"\n") > done


@pytest.fixture
def here(capsys):
    """Run the command in this process and return (exit code, out, err)."""

    def run(*arguments):
        with torch.random.fork_rng(devices=[]):
            code = train_command.main(list(arguments))
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def done(here):
    """Run the command in this process to its end and return what it printed."""

    def run(*arguments):
        code, out, err = here(*arguments)
        assert code == 0, err
        return out

    return run


def curve(folder):
    with open(folder / "losses.csv", encoding="utf-8") as file:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    assert [row.pop("step") for row in rows] == list(range(1, len(rows) + 1))
    return rows


def assert_close(a, b, rel):
    assert len(a) == len(b) > 0
    for n, (row, other) in enumerate(zip(a, b, strict=True)):
        assert row == pytest.approx(other, rel=rel, abs=rel), f"step {n + 1}"


def exactly(folder):
    """The curve, character by character, and all bits of the model."""
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    bits = {name: tensor.view(torch.int32).tolist() for name, tensor in tensors.items()}
    return (folder / "losses.csv").read_text(encoding="utf-8"), bits


def steps_kept(folder):
    return sorted(int(p.stem[5:]) for p in (folder / "checkpoints").iterdir())


# --- the same numbers -----------------------------------------------------------------
@pytest.mark.parametrize("model", MODELS)
def test_one_process_does_what_the_lessons_do(model, tmp_path, done):
    done(*command(model, tmp_path / "a", f"--steps 15 {MODELS[model]}"))
    images = data.load("digits", 16, train_size=200).train
    train.seed_everything(0)
    rng = torch.Generator().manual_seed(0)
    options = {"spectral_norm": True} if model == "gan" else {}
    net = CLASSES[model](3, 16, 1, 4, **options)
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


def test_bf16_stays_finite_and_near(tmp_path, done):
    for precision in ("32", "bf16"):
        more = f"--steps 6 --precision {precision} {MODELS['gan']}"
        done(*command("gan", tmp_path / precision, more))
    full, half = curve(tmp_path / "32"), curve(tmp_path / "bf16")
    assert full != half
    assert all(math.isfinite(v) for row in half for v in row.values())
    assert_close(half, full, 0.1)
    store.load(models.GAN, tmp_path / "bf16/model.safetensors")


# --- resuming -------------------------------------------------------------------------
@pytest.mark.parametrize("model", ["vae", "gan"])
def test_a_run_in_pieces_is_the_run_in_one_go(model, tmp_path, done):
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    more = f"{MODELS[model]} --checkpoint-every 4 --steps"
    done(*command(model, whole, f"{more} 17"))
    # 6 batches make an epoch: a piece ends within one, one at its end, one beyond.
    done(*command(model, pieces, f"{more} 5"))
    done(*command(model, pieces, f"{more} 12 --resume"))
    done(*command(model, pieces, f"{more} 17 --resume"))
    assert exactly(pieces) == exactly(whole)
    assert steps_kept(pieces) == [16, 17]
    # A complete run that is asked for fewer steps stays as it is.
    assert "Step 17" in done(*command(model, pieces, f"{more} 9 --resume"))
    assert exactly(pieces) == exactly(whole)


@pytest.mark.slow
def test_after_kill_9_it_follows_the_uninterrupted_curve(tmp_path, done):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    more = f"{MODELS['gan']} --checkpoint-every 7 --steps"
    total = kill_after_two_checkpoints(killed, more, devices=1)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the process
    try:
        done(*command("gan", killed, f"{total} --resume"))
        done(*command("gan", whole, total))
    finally:
        torch.set_num_threads(n_threads)
    assert exactly(killed) == exactly(whole)


@pytest.mark.slow
def test_after_kill_9_two_processes_do_so_too_and_train_as_one(tmp_path, done):
    whole, killed, one = (tmp_path / name for name in ("whole", "killed", "one"))
    more = f"{MODELS['gan']} --checkpoint-every 7 --steps"
    total = kill_after_two_checkpoints(killed, more, devices=2)
    runs = [
        start(*command("gan", killed, f"{total} --resume", devices=2)),
        start(*command("gan", whole, total, devices=2)),
    ]
    done(*command("gan", one, f"{more} 15"))
    for run in runs:
        code, out, err = finish(run)
        assert code == 0, err
        assert "Processes: 2 on cpu, each with 16 images" in out
    assert exactly(killed) == exactly(whole)
    assert_close(curve(whole)[:15], curve(one), 1e-4)


def kill_after_two_checkpoints(out, more, devices):
    """Return the options to resume with: ten steps more than were saved."""
    process = start(*command("gan", out, f"{more} 1000000", devices))
    wait_until(lambda: len(list(out.glob("checkpoints/step*"))) > 1, process)
    process.kill()
    finish(process)
    assert not (out / "model.safetensors").exists()
    return f"{more} {max(steps_kept(out)) + 10}"


@pytest.mark.slow
def test_two_processes_train_as_one_and_a_signal_to_one_stops_both(tmp_path, done):
    out, one = tmp_path / "a", tmp_path / "one"
    more = f"{MODELS['vae']} --steps"
    process = start(*command("vae", out, f"{more} 1000000", devices=2))
    done(*command("vae", one, f"{more} 15"))
    wait_until(lambda: is_training(out, 15), process)
    process.terminate()
    code, text, err = finish(process)
    assert code == 128 + signal.SIGTERM, err
    assert "Stopped by SIGTERM at step" in text and "--resume" in text
    stopped = len(curve(out))
    assert steps_kept(out) == [stopped]
    assert_close(curve(out)[:15], curve(one), 1e-4)
    # One process may continue where two stopped.
    done(*command("vae", out, f"{more} {stopped + 3} --resume"))
    assert len(curve(out)) == stopped + 3


@pytest.fixture
def signal_after(monkeypatch):
    """Send a signal to this process when a line of losses.csv is written."""

    def install(name, line):
        add = checkpoints.Folder.add

        def add_and_send(folder, done, *values):
            add(folder, done, *values)
            if done == line:
                signal.raise_signal(getattr(signal, name))

        monkeypatch.setattr(checkpoints.Folder, "add", add_and_send)

    return install


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_saves_and_says_how_to_continue(name, tmp_path, here, signal_after):
    if not hasattr(signal, name):
        pytest.skip(f"there is no {name} here")
    if signal.getsignal(getattr(signal, name)) == signal.SIG_IGN:
        pytest.skip(f"{name} is ignored here, as under nohup")
    out = tmp_path / "a"
    signal_after(name, 2)
    previous = signal.getsignal(getattr(signal, name))
    code, text, _ = here(*command("vae", out, "--steps 9"))
    assert signal.getsignal(getattr(signal, name)) == previous
    assert code == 128 + getattr(signal, name)
    assert f"Stopped by {name} at step 3" in text and "--resume" in text
    assert steps_kept(out) == [len(curve(out))] == [3]


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no SIGHUP")
def test_nohup_is_respected(tmp_path, done, signal_after):
    signal_after("SIGHUP", 2)
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        done(*command("vae", tmp_path / "a", "--steps 3"))
    finally:
        signal.signal(signal.SIGHUP, previous)
    assert len(curve(tmp_path / "a")) == 3


def test_a_damaged_checkpoint_is_skipped_for_the_one_before(tmp_path, here, done):
    out = tmp_path / "a"
    more = "--checkpoint-every 5 --steps"
    done(*command("vae", out, f"{more} 10"))
    before = exactly(out)
    newest = out / "checkpoints/step-000000010.safetensors"
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    code, text, err = here(*command("vae", out, f"{more} 10 --resume"))
    assert code == 0 and "damaged" in err and "From step 5 to 10" in text
    assert exactly(out) == before
    # Damaged ones of later steps do not drive out those of a run that starts again.
    for path in (out / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    code, text, err = here(*command("vae", out, f"{more} 7 --resume"))
    assert code == 0 and err.count("Skipped") == 2 and "From step 0 to 7" in text
    assert steps_kept(out) == [5, 7]


def test_damaged_losses_are_reported_and_lost_ones_started_again(tmp_path, here, done):
    out = tmp_path / "a"
    done(*command("vae", out, "--steps 3"))
    losses = out / "losses.csv"
    for damaged in (b"", losses.read_bytes()[:120], b"\xff\xfe" * 99):
        losses.write_bytes(damaged)
        code, _, err = here(*command("vae", out, "--steps 4 --resume"))
        assert code == 2 and "losses.csv is damaged" in err and "Move it away" in err
    losses.unlink()
    for total in (5, 6):
        done(*command("vae", out, f"--steps {total} --resume"))
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
    assert code == 1 and "No space" in err and "--resume" in err and str(out) in err


# --- processes ------------------------------------------------------------------------
def members(process):
    """The processes of a session, by /proc."""
    alive = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, session = stat.read_text().rsplit(")", 1)[1].split()[:4]
            if int(session) == process.pid and state != "Z":
                alive.append(int(stat.parent.name))
    return alive


def test_a_start_that_is_ended_ends_the_processes_it_started(monkeypatch):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    launcher = types.SimpleNamespace(procs=[child])
    fabric = types.SimpleNamespace(strategy=types.SimpleNamespace(launcher=launcher))

    def ended(*_):
        raise SystemExit(128 + signal.SIGTERM)

    monkeypatch.setattr(train_command, "run", ended)
    with pytest.raises(SystemExit):
        train_command._run(None, fabric)
    assert child.wait(LIMIT) != 0 and launcher.procs == []
    child.stdin.close()


@pytest.mark.slow
@needs_proc
def test_a_process_that_is_lost_ends_the_run_in_plain_words(tmp_path):
    out = tmp_path / "a"
    process = start(*command("vae", out, "--steps 1000000", devices=2))
    wait_until(lambda: is_training(out), process)
    (other,) = set(members(process)) - {process.pid}
    os.kill(other, signal.SIGKILL)
    code, _, err = finish(process)
    assert "Traceback" not in err
    # On a machine that is very busy Fabric may kill the first process before it speaks.
    assert code == -signal.SIGKILL or (code == 1 and "--resume" in err)


@pytest.mark.slow
def test_a_problem_of_one_process_ends_all_and_is_said_once(tmp_path):
    (tmp_path / "thesis.txt").touch()  # only the first looks into the folder
    code, _, err = finish(start(*command("vae", tmp_path, "--steps 9", devices=2)))
    assert code == 2 and err.count("thesis.txt") == 1 and "Traceback" not in err


@pytest.mark.slow
def test_torchrun_starts_it_too(tmp_path):
    arguments = command("autoencoder", tmp_path / "a", "--steps 6")
    at = arguments.index("--devices")
    del arguments[at : at + 2]
    launcher = "-m torch.distributed.run --standalone --nproc-per-node 2 -m gencourse"
    code, out, err = finish(start(*arguments, launcher=launcher.split()))
    assert code == 0, err
    assert "Processes: 2 on" in out and len(curve(tmp_path / "a")) == 6


def test_torchrun_and_slurm_decide_how_many_processes_there_are():
    processes = train_command.processes
    assert processes(None, {}) == (None, 1)
    assert processes(3, {}) == (3, 1)
    torchrun = {"LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8"}
    assert processes(None, torchrun) == processes(4, torchrun) == (4, 2)
    slurm = {"SLURM_NTASKS": "16", "SLURM_STEP_NUM_TASKS": "16"}
    assert processes(None, slurm | {"SLURM_STEP_NUM_NODES": "2"}) == (8, 2)
    with pytest.raises(settings.Problem, match="--devices 3 .* 4 .* 2 machines"):
        processes(3, torchrun)


# --- folders, paths and terminals -----------------------------------------------------
def test_a_tilde_is_the_home_folder(tmp_path, done, monkeypatch):
    home, here = tmp_path / "home", tmp_path / "here"
    (home / "photos").mkdir(parents=True)
    here.mkdir()
    for n in range(40):
        Image.new("L", (16, 16), 6 * n).save(home / f"photos/{n}.png")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.chdir(here)
    line = f"train vae ~/photos {SMALL} --steps 1 --out=~/runs/a --data-root=~/cache"
    done(*line.split())
    assert (home / "runs/a/model.safetensors").exists()
    assert not list(here.iterdir())


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_that_lacks_a_character_is_no_reason_to_stop(
    encoding, tmp_path, monkeypatch
):
    for name in ("stdout", "stderr"):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, name, stream)
    out = tmp_path / "日本"
    for code in (0, 2):  # the second time the folder contains a run
        assert train_command.main(command("autoencoder", out, "--steps 2")) == code
    for stream in (sys.stdout, sys.stderr):
        assert rb"\u65e5\u672c" in stream.buffer.getvalue()
    assert (out / "model.safetensors").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="file names are Unicode here")
def test_names_that_are_not_utf_8_are_paths_too(tmp_path, done):
    out = tmp_path / os.fsdecode(b"r\xe9sum\xe9")
    folder = tmp_path / os.fsdecode(b"bilder\xff")
    folder.mkdir()
    for n in range(40):
        Image.new("L", (16, 16), 6 * n).save(folder / f"{n}.png")
    for more in ("--steps 1", "--steps 2 --resume"):
        arguments = command("vae", out, more, images="FOLDER")
        arguments[arguments.index("FOLDER")] = str(folder)
        done(*arguments)
    assert len(curve(out)) == 2


def test_a_reader_that_left_does_not_end_the_run(tmp_path, monkeypatch):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, Closed())
    out = tmp_path / "a"
    for code in (0, 2):  # the second time the folder contains a run
        assert train_command.main(command("vae", out, "--steps 2")) == code
    assert (out / "model.safetensors").exists()


def test_folders_that_contain_something_else_are_left_alone(tmp_path, here, done):
    (tmp_path / "file").touch()
    code, _, err = here(*command("vae", tmp_path / "file/a", "--steps 1"))
    assert code == 2 and "cannot write in" in err
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.txt").touch()
    code, _, err = here(*command("vae", tmp_path / "full", "--steps 1"))
    assert code == 2 and "thesis.txt" in err and "another folder" in err
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["thesis.txt"]

    out = tmp_path / "run"
    out.mkdir()
    for name in (".DS_Store", "._run", "Thumbs.db", "desktop.ini"):
        (out / name).touch()  # this folder is empty to its owner
    done(*command("vae", out, "--steps 2"))
    before = exactly(out)
    code, _, err = here(*command("vae", out, "--steps 2"))
    assert code == 2 and "add --resume" in err
    code, _, err = here(*command("vae", out, "--steps 4 --resume --seed 1 --lr 0.1"))
    assert code == 2 and "lr was None and is now 0.1; seed was 0 and is now 1" in err
    assert exactly(out) == before


def test_other_images_are_another_run(tmp_path, here, done):
    folder, out = tmp_path / "images", tmp_path / "a"
    folder.mkdir()
    x = torch.randint(256, (80, 16, 16), dtype=torch.uint8).numpy()
    for n in range(80):
        Image.fromarray(x[n]).save(folder / f"{n:02d}.png")
    images = str(folder)
    done(*command("vae", out, "--steps 2", images=images))
    for n in range(80):  # mirrored, so of the same brightness
        Image.fromarray(x[n, :, ::-1].copy()).save(folder / f"{n:02d}.png")
    code, _, err = here(*command("vae", out, "--steps 4 --resume", images=images))
    assert code == 2 and str(folder) in err and "other images" in err
    Image.new("L", (16, 16)).save(folder / "80.png")
    code, _, err = here(*command("vae", out, "--steps 4 --resume", images=images))
    assert code == 2 and "images was 72 and is now 73" in err
    assert len(curve(out)) == 2


# --- what cannot work -----------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("vae no-such-set", "'no-such-set'.* faces"),
        ("vae no/such/folder", "no folder no/such/folder"),
        ("vae digits --r1 1", "--r1 is for gan, not for vae"),
        ("gan digits --minibatch-std --beta 1", "--beta is for vae, not for gan"),
        ("vae digits --beta nan", "--beta .* nan"),
        ("vae digits --lr inf", "--lr .* inf"),
        ("vae digits --s2 -1", "--s2 .* -1.0"),
        ("vae digits --s2 1e-300", "--s2 .* 1e-300"),
        ("vae digits --seed -1", "--seed .* -1"),
        ("vae digits --seed 99999999999999999999", "--seed .* 99999999999999999999"),
        ("vae digits --size 30", "size must be a multiple of 4.* 30"),
        ("vae digits --latent-dim 0", "--latent-dim must be at least 1, got 0"),
        ("vae digits --epochs 0", "--epochs must be at least 1, got 0"),
        ("vae digits --width 99999999999999", "width .* 99999999999999"),
        ("gan digits --ema 1", "ema must be .* 1.0"),
        ("vae digits --batch-size 33 --devices 2", "33 .* 2 processes: use 32"),
        ("vae digits --devices 9999 --batch-size 9999", "--devices 9999 .* at most"),
        ("vae digits --train-size 20", "--batch-size 128 is more than the 20 images"),
        ("vae digits --train-size 9000", "train_size.* 9000"),
        ("vae digits --resume", "contains no run to resume: leave out --resume"),
    ],
)
def test_wrong_requests_are_refused_in_plain_words(arguments, words, tmp_path, here):
    out = tmp_path / "a"
    more = ["--out", str(out), "--accelerator", "cpu", "--steps", "1"]
    if "--epochs" in arguments:
        more = more[:-2]
    code, _, err = here("train", *arguments.split(), *more)
    assert code == 2 and re.search(f"^gencourse train: .*{words}", err), err
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("diffusion digits --out x", "invalid choice: 'diffusion'"),
        (
            "vae digits --out x --s2 small",
            "argument --s2: invalid variance value: 'small'",
        ),
        ("vae digits --out ~no-such-user/x", "~no-such-user"),
    ],
)
def test_unknown_models_and_values_are_refused(arguments, words, capsys):
    with pytest.raises(SystemExit):
        train_command.main(["train", *arguments.split()])
    assert words in capsys.readouterr().err


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_checkpoint(
    tmp_path, here
):
    out = tmp_path / "a"
    more = "--steps 200 --checkpoint-every 1 --lr 1e30"
    code, _, err = here(*command("autoencoder", out, more))
    assert code == 1
    assert "training stopped at step" in err and "smaller --lr" in err
    assert max(steps_kept(out)) == len(curve(out))
    assert f"last checkpoint is of step {len(curve(out))}" in err
    assert not (out / "model.safetensors").exists()
    code, _, err = here(*command("vae", tmp_path / "b", "--steps 2 --beta 1e300"))
    assert code == 1 and "step 1: loss = inf" in err and "no checkpoint yet" in err


def test_without_fabric_it_says_what_to_install(tmp_path, here, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    code, _, err = here(*command("vae", tmp_path / "a", "--steps 1"))
    assert code == 2 and "pip install" in err
