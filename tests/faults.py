"""Small data sets, a web server, and processes that are killed: for test_faults_*.

`kill_saving`, `kill_loading`, `load_while_saving` and `load_together` run in a fresh
Python of their own, because a process that has threads, as pytest's may have, must not
fork.
"""

import contextlib
import gzip
import hashlib
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import traceback
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tqdm import tqdm

from gencourse import data
from gencourse.sources import download

TESTS = Path(__file__).resolve().parent


def new_rng():
    """Random places to break: another seed each run, or that of GENCOURSE_FAULT_SEED.

    pytest shows what is printed when the test fails.
    """
    seed = int(os.environ.get("GENCOURSE_FAULT_SEED") or random.randrange(10**6))
    print(f"GENCOURSE_FAULT_SEED={seed}")
    return random.Random(seed)


def places(rng, n, count):
    """Both ends and some random places of n bytes."""
    chosen = {0, 1, n // 2, n - 2, n - 1} | {rng.randrange(n) for _ in range(count)}
    return sorted(place for place in chosen if 0 <= place < n)


def flipped(content, place, rng):
    """One byte changed to another value."""
    other = bytes([content[place] ^ rng.randrange(1, 256)])
    return content[:place] + other + content[place + 1 :]


def snapshot(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# ----------------------------------------------------------------- data to be broken


def mnist_files(n_train=12, n_test=6):
    """A small MNIST: name -> content."""
    rng, found = np.random.default_rng(0), {}
    for part, n in (("train", n_train), ("t10k", n_test)):
        pixels = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        header = struct.pack(">4I", 0x803, n, 28, 28)
        found[f"{part}-images-idx3-ubyte"] = header + pixels.tobytes()
        labels = (np.arange(n) % 10).astype(np.uint8)
        header = struct.pack(">2I", 0x801, n)
        found[f"{part}-labels-idx1-ubyte"] = header + labels.tobytes()
    return found


def zipped(contents):
    return {f"{name}.gz": gzip.compress(c, mtime=0) for name, c in contents.items()}


def put(folder, contents):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def pictures(folder, n=20, side=24):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for i in range(n):
        pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03}.png")
    return folder


def celeba(root, names, members):
    """A packed CelebA that lists `names`; members: name in the archive -> content."""
    import zipfile

    folder = root / "celeba"
    folder.mkdir(parents=True)
    kinds = "".join(f"{name} {2 * (i % 2)}\n" for i, name in enumerate(names))
    (folder / "list_eval_partition.txt").write_text(kinds)
    flags = "".join(f"{name} {'1 ' * 40}\n" for name in names)
    header = " ".join(f"Attribute_{i}" for i in range(40))
    text = f"{len(names)}\n{header}\n{flags}"
    (folder / "list_attr_celeba.txt").write_text(text)
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return folder


class Server:
    """A web server on this machine; `slowly` sends a few hundred bytes at a time."""

    def __init__(self, contents, slowly=False):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                content = contents[self.path[1:]]
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                size = 256 if slowly else len(content)
                with contextlib.suppress(OSError):  # the reader was killed
                    for start in range(0, len(content), size):
                        self.wfile.write(content[start : start + size])
                        time.sleep(0.0005 * slowly)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        self.resources = [
            (name, hashlib.md5(content).hexdigest())
            for name, content in contents.items()
        ]

    def __enter__(self):
        serve = self.server.serve_forever
        threading.Thread(target=serve, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def ready_to_fork(url, resources):
    """One thread, and no lock that a killed process would keep from the others."""
    torch.set_num_threads(1)
    tqdm.monitor_interval = 0
    tqdm.set_lock(threading.RLock())
    mnist = download.torchvision().datasets.MNIST
    mnist.mirrors, mnist.resources = [url], [tuple(pair) for pair in resources]


# ------------------------------------------------------------ processes that are killed


def in_a_python_of_its_own(function, **arguments):
    """Run one of the functions below; return what it returns."""
    code = (
        f"import sys, json; sys.path[:0] = {[str(TESTS), str(TESTS.parent)]!r}\n"
        f"import faults\n"
        f"given = json.loads(sys.stdin.read())\n"
        f"print(json.dumps(faults.{function}(**given)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(arguments),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    print(done.stdout)
    return json.loads(done.stdout.splitlines()[-1])


def start(work):
    """A copy of this process that does the work; its end is 0 where all went well."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        signal.alarm(50)  # a copy that hangs must not outlive the test
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)
    return child


def end(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_after(work, seconds):
    """kill -9 a process that does the work; it may have been done before."""
    child = start(work)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    code = end(child)
    assert code in (0, -signal.SIGKILL), code


def sums(dataset):
    return [part[:].double().sum().item() for part in (dataset.train, dataset.test)]


def check_root(root, served):
    """What lies in root after whatever happened is whole."""
    for path in root.glob("MNIST/raw/*"):
        assert hashlib.md5(path.read_bytes()).hexdigest() == served[path.name], path
    for path in root.glob("cache/*.npy"):
        assert path.stem.endswith(f"-{zlib.crc32(path.read_bytes()):08x}"), path


def load_all(root, folder):
    """Both sets, cached: a download and a folder of images."""
    data.FLOAT_LIMIT = 1000
    sets = (data.load("mnist", 32, root=root), data.load(folder, 32, root=root))
    return [sums(dataset) for dataset in sets]


def kill_loading(root, folder, url, resources, seed, seconds):
    """Kill processes that download one set, read another and cache both."""
    ready_to_fork(url, resources)
    rng, root, served = random.Random(seed), Path(root), dict(resources)
    wanted = load_all(root / "whole", folder)

    def work(here):
        assert load_all(here, folder) == wanted

    here = root / "killed"
    begun = time.monotonic()
    assert end(start(lambda: work(here))) == 0
    takes = time.monotonic() - begun
    trials, stopped_inside = 0, 0
    while time.monotonic() < begun + seconds:
        shutil.rmtree(here)
        for _ in range(2):
            kill_after(lambda: work(here), rng.uniform(0, takes))
            check_root(here, served)
            stopped_inside += any(here.rglob(".partial-*"))
        assert end(start(lambda: work(here))) == 0, "the next call fails"
        check_root(here, served)
        trials += 2
    return {"trials": trials, "stopped inside": stopped_inside}


def load_together(root, folder, url, resources, seconds, processes):
    """Several processes at once fetch and cache the same into an empty folder."""
    ready_to_fork(url, resources)
    root, served = Path(root), dict(resources)
    wanted = load_all(root / "whole", folder)
    rounds, limit = 0, time.monotonic() + seconds
    while time.monotonic() < limit:
        here = root / f"round {rounds}"
        barrier, go = os.pipe()

        def work(here=here, barrier=barrier, go=go):
            os.close(go)
            os.read(barrier, 1)  # until the parent closes its end
            assert load_all(here, folder) == wanted

        children = [start(work) for _ in range(processes)]
        os.close(go)
        assert [end(child) for child in children] == [0] * processes
        os.close(barrier)
        check_root(here, served)
        lying = sorted(str(p.relative_to(here)) for p in here.rglob("*") if p.is_file())
        caches = [name for name in lying if name.startswith("cache")]
        assert len(caches) == 4, caches  # train and test of two sets
        assert len(lying) == 8, lying
        assert not list(here.rglob(".partial-*"))
        rounds += 1
    return {"rounds": rounds}


# ----------------------------------------------------------------- disks and rights


@contextlib.contextmanager
def largest_file(size):
    """No file may grow beyond so many bytes, as if the disk were full there."""
    resource = pytest.importorskip("resource", reason="needs a Unix")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def as_an_ordinary_user():
    """Root may do everything: act as nobody for a while. Others act as themselves."""
    if not hasattr(os, "geteuid"):
        pytest.skip("needs a Unix")
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
