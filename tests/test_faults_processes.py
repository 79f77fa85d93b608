"""Killed processes, several at once, full and read-only disks, clocks that jump.

What is random prints its seed; GENCOURSE_FAULT_SEED repeats it (default: a new one).
"""

import errno
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import faults
import pytest
import torch

from gencourse import data, store, train
from gencourse.models import VAE, Autoencoder
from gencourse.sources import download
from gencourse.sources import folder as folder_source

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
SMALL = dict(size=16, channels=1, width=4)


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# --------------------------------------------------------------------------- kill -9
@needs_fork
def test_kill_while_saving_leaves_a_whole_model(tmp_path):
    seed = faults.new_rng().randrange(10**6)
    (tmp_path / "models").mkdir()
    done = faults.in_a_python_of_its_own(
        "kill_saving",
        path=str(tmp_path / "models" / "m.safetensors"),
        seed=seed,
        seconds=4,
    )
    assert done["trials"] >= 5


@needs_fork
def test_what_is_loaded_while_others_save_is_whole(tmp_path):
    path = str(tmp_path / "m.safetensors")
    done = faults.in_a_python_of_its_own("load_while_saving", path=path, seconds=60)
    assert done["loads"] >= 200 and done["found"] == [2, 3]


@needs_fork
def test_kill_while_downloading_and_caching_leaves_whole_files(tmp_path):
    seed = faults.new_rng().randrange(10**6)
    folder = faults.pictures(tmp_path / "own")
    with faults.Server(faults.zipped(faults.mnist_files()), slowly=True) as server:
        done = faults.in_a_python_of_its_own(
            "kill_loading",
            root=str(tmp_path),
            folder=str(folder),
            url=server.url,
            resources=server.resources,
            seed=seed,
            seconds=5,
        )
    assert done["trials"] >= 4


@needs_fork
def test_processes_that_fetch_and_cache_at_once_make_one_cache(tmp_path):
    folder = faults.pictures(tmp_path / "own")
    with faults.Server(faults.zipped(faults.mnist_files()), slowly=True) as server:
        done = faults.in_a_python_of_its_own(
            "load_together",
            root=str(tmp_path),
            folder=str(folder),
            url=server.url,
            resources=server.resources,
            seconds=3,
            processes=3,
        )
    assert done["rounds"] >= 2


def test_what_killed_processes_left_goes_after_a_day_and_nothing_else(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(data, "FLOAT_LIMIT", 1000)
    cache, now = tmp_path / "cache", time.time()
    cache.mkdir()
    ours = ".partial-4711-0123abcd"
    mine = [".partial-mine-0123abcd", "partial-4711-0123abcd"]
    mine += [".partial-2024-notes-0123abcd"]
    for folder in (tmp_path, cache):
        for name in (ours, *mine):
            (folder / name).write_text("")
            os.utime(folder / name, (now - 90_000,) * 2)
        (folder / ".partial-4711-00000000").write_text("another process writes this")
    old, new = (tmp_path / f".partial-4711-{i:08}" for i in (1, 2))  # downloads
    for folder in (old, new):
        faults.put(folder / "MNIST", {"half": b""})
        os.utime(folder, (now - 90_000,) * 2)
        os.utime(folder / "MNIST", (now - 90_000,) * 2)
    os.utime(old / "MNIST" / "half", (now - 90_000,) * 2)
    left = sorted([*mine, ".partial-4711-00000000"])

    store.save(Autoencoder(3, **SMALL), tmp_path / "m")
    wanted = [*left, "cache", "m", old.name, new.name]
    assert sorted(os.listdir(tmp_path)) == sorted(wanted)
    data.load(faults.pictures(tmp_path / "own"), 16, root=tmp_path)
    assert sorted(p.name for p in cache.iterdir() if p.suffix != ".npy") == left
    with faults.Server(faults.zipped(faults.mnist_files())) as server:
        mnist = download.torchvision().datasets.MNIST
        monkeypatch.setattr(mnist, "mirrors", [server.url])
        monkeypatch.setattr(mnist, "resources", server.resources)
        data.load("mnist", root=tmp_path)
    wanted = [*left, "cache", "m", "own", "MNIST", new.name]
    assert sorted(os.listdir(tmp_path)) == sorted(wanted)


# ------------------------------------------------------------------------- full disks
def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_is_full_at_any_byte_keeps_the_old_model(tmp_path):
    rng = faults.new_rng()
    path, old = tmp_path / "m", Autoencoder(3, **SMALL)
    store.save(old, path)
    before = path.read_bytes()
    new = Autoencoder(3, **SMALL)
    for size in [
        0,
        1,
        len(before) - 1,
        *(rng.randrange(len(before)) for _ in range(9)),
    ]:
        with faults.largest_file(size), pytest.raises(OSError):
            store.save(new, path)
        assert path.read_bytes() == before and os.listdir(tmp_path) == ["m"]
    with faults.largest_file(len(before)):
        store.save(new, path)
    assert same(store.load(Autoencoder, path), new)


def test_a_disk_that_is_full_at_any_byte_gives_images_without_a_cache(
    tmp_path, monkeypatch
):
    rng = faults.new_rng()
    folder = faults.pictures(tmp_path / "own")
    wanted = data.load(folder, 16, root=tmp_path).train.pixels
    monkeypatch.setattr(data, "FLOAT_LIMIT", 1000)
    for size in (0, 100, *(rng.randrange(128, 13_000) for _ in range(4))):
        with faults.largest_file(size), pytest.warns(UserWarning, match="no cache in"):
            found = data.load(folder, 16, root=tmp_path)
        torch.testing.assert_close(found.train[:], wanted, check_stride=False)
        assert [p for p in (tmp_path / "cache").iterdir() if p.suffix != ".npy"] == []
    found = data.load(folder, 16, root=tmp_path)
    torch.testing.assert_close(found.train[:], wanted, check_stride=False)


def test_a_disk_that_is_full_while_downloading_is_told_and_left_clean(
    tmp_path, monkeypatch
):
    rng = faults.new_rng()
    contents = faults.zipped(faults.mnist_files())
    mnist = download.torchvision().datasets.MNIST
    with faults.Server(contents) as server:
        monkeypatch.setattr(mnist, "mirrors", [server.url])
        monkeypatch.setattr(mnist, "resources", server.resources)
        for size in (0, rng.randrange(100, 4000)):
            with faults.largest_file(size), pytest.raises(RuntimeError) as told:
                data.load("mnist", root=tmp_path)
            assert "File too large" in str(told.value)
            assert "set GENCOURSE_DATA" in str(told.value)
            whole = {
                name: contents[Path(name).name] for name in faults.snapshot(tmp_path)
            }
            assert faults.snapshot(tmp_path) == whole
            assert not list(tmp_path.rglob(".partial-*"))
        assert len(data.load("mnist", root=tmp_path).train) == 12


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_errors_of_a_full_disk_at_the_last_moment(tmp_path, monkeypatch, call):
    path, old = tmp_path / "models" / "m", VAE(3, **SMALL)
    path.parent.mkdir()
    store.save(old, path)
    folder = faults.pictures(tmp_path / "own")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        patch.setattr(data, "FLOAT_LIMIT", 1000)
        with pytest.raises(OSError, match="No space left"):
            store.save(VAE(3, **SMALL), path)
        with pytest.warns(UserWarning, match="No space left"):
            assert len(data.load(folder, 16, root=tmp_path).train) == 18
    assert same(store.load(VAE, path), old)
    assert os.listdir(path.parent) == ["m"] and os.listdir(tmp_path / "cache") == []


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 256 kB, which may also be made read-only."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    allowed = sys.platform == "linux" and os.geteuid() == 0
    if not allowed or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root, and Linux")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_real_disk_that_is_full(small_disk, tmp_path, monkeypatch):
    old = Autoencoder(3, **SMALL)
    store.save(old, small_disk / "m")
    with pytest.raises(OSError, match="No space left"):
        store.save(Autoencoder(8, 64, 3, 32), small_disk / "m")
    assert same(store.load(Autoencoder, small_disk / "m"), old)
    assert os.listdir(small_disk) == ["m"]
    (small_disk / "rest").write_bytes(b"x" * 150_000)
    folder = faults.pictures(tmp_path / "own", 40)
    monkeypatch.setattr(data, "FLOAT_LIMIT", 1000)
    with pytest.warns(UserWarning, match="no cache in .*No space left"):
        found = data.load(folder, 64, root=small_disk)
    assert len(found.train) == 36 and found.train[:].isfinite().all()
    assert not list(small_disk.rglob(".partial-*"))


def test_a_real_disk_that_is_read_only(small_disk, tmp_path, monkeypatch):
    model = Autoencoder(3, **SMALL)
    store.save(model, small_disk / "m")
    faults.put(small_disk / "MNIST" / "raw", faults.mnist_files())
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    before = faults.snapshot(small_disk)
    monkeypatch.setenv("HOME", str(small_disk))
    monkeypatch.setattr(data, "FLOAT_LIMIT", 1000)
    with pytest.warns(UserWarning, match="kept in memory.*set GENCOURSE_DATA"):
        assert len(data.load("mnist", root=small_disk).train) == 12
    with pytest.raises(
        RuntimeError, match=r"kmnist could not be .*Read-only(.|\n)*GENCOURSE"
    ):
        data.load("kmnist", root=small_disk)
    with pytest.raises(OSError, match="Read-only file system"):
        store.save(Autoencoder(3, **SMALL), small_disk / "m")
    assert same(store.load(Autoencoder, small_disk / "m"), model)
    assert faults.snapshot(small_disk) == before


# ---------------------------------------------------------------------------- rights
@pytest.fixture
def readable_folder():
    """A folder that other users can reach, unlike pytest's."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in folder.rglob("*"):
        path.chmod(0o700)
    shutil.rmtree(folder)


def test_a_home_and_a_cache_without_rights(readable_folder, monkeypatch):
    """Whatever needs no writing works; the rest says what is not allowed."""
    here = readable_folder
    faults.put(here / "MNIST" / "raw", faults.mnist_files())
    own = faults.pictures(here / "own", 12)
    model = Autoencoder(3, **SMALL)
    store.save(model, here / "m")
    for path in (*here.rglob("*"), here):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = faults.snapshot(here)
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.setenv("GENCOURSE_DATA", str(here))
    download.torchvision()  # imported while everything can be read
    data.load("digits", 8)
    with faults.as_an_ordinary_user():
        assert len(data.load("digits", 8, train_size=9, test_size=2).train) == 9
        assert len(data.load("faces", 16, train_size=3, test_size=2).train) == 3
        assert len(data.load("mnist").train) == 12
        assert same(store.load(Autoencoder, here / "m"), model)
        monkeypatch.setattr(data, "FLOAT_LIMIT", 1000)
        for name in ("mnist", own):
            with pytest.warns(UserWarning, match="no cache.*Permission denied"):
                assert len(data.load(name, 16).train) > 9
        with pytest.raises(RuntimeError, match="kmnist could not.*Permission denied"):
            data.load("kmnist")
        with pytest.raises(PermissionError, match=str(here)):
            store.save(model, here / "m")
    assert faults.snapshot(here) == before


def test_a_file_that_may_not_be_written_is_not_replaced(readable_folder):
    path = readable_folder / "m"
    path.write_bytes(b"precious")
    path.chmod(0o444)
    readable_folder.chmod(0o777)
    with faults.as_an_ordinary_user(), pytest.raises(PermissionError, match=str(path)):
        store.save(Autoencoder(3, **SMALL), path)
    assert path.read_bytes() == b"precious" and os.listdir(path.parent) == ["m"]


def test_files_that_may_not_be_read_are_named(readable_folder):
    here = readable_folder
    raw = faults.put(here / "MNIST" / "raw", faults.mnist_files())
    own = faults.pictures(here / "own", 12)
    locked = faults.pictures(here / "locked", 3)
    store.save(Autoencoder(3, **SMALL), here / "m")
    secret = ["m", "own/003.png", "MNIST/raw/t10k-images-idx3-ubyte", "locked"]
    for name in secret:
        (here / name).chmod(0)
    with faults.as_an_ordinary_user():
        with pytest.raises((OSError, ValueError), match="Permission denied") as told:
            store.load(Autoencoder, here / "m")
        assert str(here / "m") in str(told.value)
        with pytest.raises(RuntimeError, match="t10k-images.*PermissionError"):
            data.load("mnist", root=here)
        with pytest.raises(RuntimeError, match="003.png: .*Permission denied"):
            data.load(own, 16, root=here, train_size=11, test_size=1)
        with pytest.raises(RuntimeError, match="cannot look into .*locked"):
            data.load(locked, 16, root=here)
    assert len(os.listdir(raw)) == 4


# --------------------------------------------------------------- no network, odd clocks
def test_a_server_that_is_gone_is_told_and_nothing_is_left(tmp_path, monkeypatch):
    contents = faults.zipped(faults.mnist_files())
    mnist = download.torchvision().datasets.MNIST
    with faults.Server(contents) as server:
        monkeypatch.setattr(mnist, "mirrors", [server.url])
        monkeypatch.setattr(mnist, "resources", server.resources)
    with pytest.raises(RuntimeError) as told:
        data.load("mnist", root=tmp_path)
    for words in ("mnist could not be downloaded", str(tmp_path), "Without a network"):
        assert words in str(told.value)
    assert faults.snapshot(tmp_path) == {} and not list(tmp_path.rglob(".partial-*"))


@pytest.mark.parametrize("jump", [-1e9, 1e9])
def test_a_clock_that_jumps_changes_no_time_limit(jump, monkeypatch, capsys):
    now, calls = time.time(), []

    def jumping():
        calls.append(jump)
        return now + jump * len(calls)

    def step(x):
        assert len(calls) < 2000, "it does not end"
        time.sleep(0.01)
        return {"loss": time.time() * 0}

    monkeypatch.setattr(time, "time", jumping)
    monkeypatch.setattr(train, "_Bar", lambda _: Impatient(True))
    start = time.monotonic()
    history = train.fit(step, [torch.zeros(1, 1)], seconds=0.3)
    elapsed = time.monotonic() - start
    assert 0.3 <= history.seconds <= elapsed < 3 and len(history) > 3
    assert len(calls) > 3
    more = train.fit(step, [torch.zeros(1, 1)], seconds=0.1, history=history)
    assert 0.4 <= more.seconds < elapsed + 3


class Impatient(train._Bar):
    """A bar that shows from the first step on: tqdm reads the clock too."""

    def __init__(self, wanted):
        super().__init__(wanted)
        self.next_time = 0.0


def test_files_from_the_past_and_the_future_are_cached_once(tmp_path, monkeypatch):
    folder = faults.pictures(tmp_path / "own")
    monkeypatch.setattr(data, "FLOAT_LIMIT", 1000)
    seen = []
    for stamp in (0, 1, 2**31 + 7, 2**33):
        for path in folder.iterdir():
            os.utime(path, (stamp, stamp))
        monkeypatch.setattr(time, "time", lambda stamp=stamp: float(stamp - 10**6))
        seen.append(data.load(folder, 16, root=tmp_path).train[:])
        caches = len(list((tmp_path / "cache").glob("*.npy")))
        with monkeypatch.context() as patch:
            patch.setattr(
                folder_source, "decode", None
            )  # would fail, if it were called
            again = data.load(folder, 16, root=tmp_path).train[:]
        assert torch.equal(again, seen[0])
        assert caches == 2 * len(seen)
