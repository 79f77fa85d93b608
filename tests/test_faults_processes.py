"""Killed processes, several at once, full and read-only disks, clocks that jump.

What is random prints its seed; GENCOURSE_FAULT_SEED repeats it (default: a new one).
"""

import os
import time
from pathlib import Path

import faults
import pytest
import torch

from gencourse import data
from gencourse.sources import download
from gencourse.sources import folder as folder_source

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
SMALL = dict(size=16, channels=1, width=4)


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
