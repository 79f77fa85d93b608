"""data: every set in its promised form, and every damaged file named, never taken."""

import gzip
import hashlib
import os
import struct
import subprocess
import sys
import textwrap
import threading
import types
import zipfile
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from gencourse import data, faces
from gencourse.sources import download, source
from gencourse.sources import folder as folder_source

REPOSITORY = Path(__file__).resolve().parents[1]
PARTS = ("train", "t10k")


# ------------------------------------------------------------------------- helpers


def idx_bytes(array):
    shape = array.shape
    header = struct.pack(f">{1 + len(shape)}I", 0x800 + len(shape), *shape)
    return header + array.astype(np.uint8).tobytes()


def idx_files(n_train=30, n_test=10, seed=0):
    """The four files of a small MNIST: name -> bytes."""
    rng = np.random.default_rng(seed)
    files = {}
    for part, n in zip(PARTS, (n_train, n_test), strict=True):
        images = rng.integers(0, 256, (n, 28, 28))
        files[f"{part}-images-idx3-ubyte"] = idx_bytes(images)
        files[f"{part}-labels-idx1-ubyte"] = idx_bytes(np.arange(n) % 10)
    return files


def write_idx(root, files, folder="MNIST", zipped=False):
    raw = root / folder / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if zipped:
            (raw / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (raw / name).write_bytes(content)
    return raw


def snapshot(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def draw(path, color=(200, 100, 50), size=(20, 16), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path)
    return path


def colored_folder(folder, n=20):
    """n images of one color each, so that every image can be told from its pixels."""
    for i in range(n):
        draw(folder / f"{i:03}.png", (i * 10, 255 - i * 10, 7))
    return folder


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", refuse)


# ------------------------------------------------------------- what load returns


@pytest.mark.parametrize("size", [8, 16, 28, 32, 48])
@pytest.mark.parametrize("channels", [None, 1, 3])
def test_digits_any_size_and_channels(size, channels):
    found = data.load("digits", size, channels=channels, train_size=40, test_size=9)
    assert (found.size, found.channels) == (size, channels or 1)
    assert found.target_names == tuple("0123456789")
    for part, n in ((found.train, 40), (found.test, 9)):
        assert part.pixels.shape == (n, channels or 1, size, size) and len(part) == n
        assert part.pixels.dtype == torch.float32
        assert 0 <= part.pixels.min() and part.pixels.max() <= 1
        assert part.labels.shape == (n,) and part.labels.dtype == torch.int64
        assert part.knobs is None


def test_digits_are_scikit_learns_and_split_apart():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pairs = zip(bunch.images, bunch.target.tolist(), strict=True)
    source = {image.tobytes(): label for image, label in pairs}
    found = data.load("digits", 8)
    seen = []
    for part in (found.train, found.test):
        images = (part.pixels[:, 0] * 16).double().numpy()
        assert [source[image.tobytes()] for image in images] == part.labels.tolist()
        seen += [image.tobytes() for image in images]
    assert len(seen) == 1797 and set(seen) == set(source)


def test_faces_match_their_knobs_and_train_and_test_differ():
    found = data.load("faces", 16, train_size=60, test_size=20, seed=3)
    assert found.target_names == tuple(faces.KNOB_NAMES) and found.channels == 3
    for part in (found.train, found.test):
        assert part.knobs.shape == (len(part), 8) and part.labels is None
        expected = faces.render(part.knobs, 16)
        torch.testing.assert_close(part.pixels, expected, check_stride=False)
    distance = torch.cdist(found.train.knobs, found.test.knobs)
    assert distance.min() > 0.01
    typed = torch.cat([faces.sample_knobs(60, seed) for seed in range(8)])
    assert torch.cdist(found.train.knobs, typed).min() > 1e-6
    gray = data.load("faces", 16, channels=1, train_size=5, test_size=2, seed=3)
    assert gray.train.pixels.shape == (5, 1, 16, 16)
    assert data.load("faces", 16, train_size=1, test_size=1).train.knobs.shape == (1, 8)


def test_the_seed_decides(tmp_path):
    write_idx(tmp_path, idx_files())
    colored_folder(tmp_path / "own")
    for name in ("faces", "digits", "mnist", tmp_path / "own"):
        ask = partial(data.load, name, 16, train_size=9, test_size=4, root=tmp_path)
        one, again, other = ask(seed=1), ask(seed=1), ask(seed=2)
        assert torch.equal(one.train.pixels, again.train.pixels)
        assert torch.equal(one.test.pixels, again.test.pixels)
        assert not torch.equal(one.train.pixels, other.train.pixels)


@pytest.mark.parametrize("zipped", [False, True])
def test_mnist_pads_to_32_without_changing_a_pixel(tmp_path, zipped):
    files = idx_files()
    write_idx(tmp_path, files, zipped=zipped)
    found = data.load("mnist", root=tmp_path, download=False)
    raw = np.frombuffer(files["train-images-idx3-ubyte"][16:], np.uint8)
    expected = torch.from_numpy(raw.reshape(30, 1, 28, 28).copy()).double() / 255
    assert (len(found.train), len(found.test)) == (30, 10)
    assert found.train.labels.tolist() == [i % 10 for i in range(30)]
    inner = found.train.pixels[:, :, 2:30, 2:30].double()
    torch.testing.assert_close(inner, expected, atol=1e-7, rtol=0)
    assert F.pad(inner, (2, 2, 2, 2)).equal(found.train.pixels.double())
    plain = data.load("mnist", 28, root=tmp_path)
    torch.testing.assert_close(plain.train.pixels.double(), expected, atol=1e-7, rtol=0)
    # Antialiased: at half the size the mean of a picture stays what it was.
    small = data.load("mnist", 16, root=tmp_path).train.pixels
    torch.testing.assert_close(
        small.mean((1, 2, 3)), expected.float().mean((1, 2, 3)), atol=0.02, rtol=0
    )


@pytest.mark.parametrize(
    "name, folder", [("fashion-mnist", "FashionMNIST"), ("kmnist", "KMNIST")]
)
def test_relatives_of_mnist(tmp_path, monkeypatch, name, folder):
    write_idx(tmp_path, idx_files(), folder)
    monkeypatch.setenv("GENCOURSE_DATA", str(tmp_path))
    found = data.load(name.upper().replace("-", "_"), 32, train_size=7)
    assert len(found.train) == 7 and len(found.test) == 10
    assert len(found.target_names) == 10 and found.name == name
    source = data.load(name).train
    for pixels, label in zip(found.train.pixels, found.train.labels, strict=True):
        match = (source.pixels == pixels).flatten(1).all(1).nonzero()
        assert match.shape == (1, 1) and source.labels[match[0, 0]] == label


def test_root_argument_beats_environment_and_default_is_data(tmp_path, monkeypatch):
    monkeypatch.setenv("GENCOURSE_DATA", str(tmp_path / "env"))
    assert source.find_root(tmp_path / "argument") == tmp_path / "argument"
    assert source.find_root(None) == tmp_path / "env"
    monkeypatch.delenv("GENCOURSE_DATA")
    assert source.find_root(None).name == "data"


# ------------------------------------------------------------------ images, batches


def some_images(n=10, dtype=torch.float32):
    pixels = torch.arange(n)[:, None, None, None].expand(n, 3, 8, 8)
    pixels = pixels.to(dtype) if dtype == torch.uint8 else pixels / 255
    return data.Images(pixels, labels=torch.arange(n))


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_indexing_gives_float_copies(dtype):
    images = some_images(10, dtype)

    def ids(batch):
        assert batch.dtype == torch.float32
        return (batch[..., 0, 0, 0] * 255).round().int().tolist()

    assert ids(images[2:5]) == [2, 3, 4] and ids(images[::-4]) == [9, 5, 1]
    assert ids(images[[7, 7, -1]]) == [7, 7, 9] and ids(images[torch.tensor([4])]) == [
        4
    ]
    assert ids(images[images.labels > 7]) == [8, 9] and ids(images[np.array([3])]) == [
        3
    ]
    assert images[3].shape == (3, 8, 8) and images[[]].shape == (0, 3, 8, 8)
    assert len(list(images)) == 10
    before = images.pixels.clone()
    images[:].zero_()
    for batch in images.batches(4, shuffle=False):
        batch.zero_()
    assert torch.equal(images.pixels, before)
    for wrong in (10, -11, [0, 10], [0.5], torch.ones(3).bool()):
        with pytest.raises(IndexError):
            images[wrong]


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
@pytest.mark.parametrize("channels", [1, 3])
def test_batches_are_channels_last(dtype, channels):
    images = data.Images(torch.zeros(10, channels, 8, 8, dtype=dtype))
    for x in images.batches(4):
        assert x.is_contiguous(memory_format=torch.channels_last)
        assert x.dtype == torch.float32


def epoch(batches):
    return [[int(round(v)) for v in (x[:, 0, 0, 0] * 255).tolist()] for x in batches]


def test_each_epoch_is_a_new_permutation_given_by_the_seed():
    images = some_images(10)
    batches = images.batches(4, seed=5)
    epochs = [epoch(batches) for _ in range(3)]
    for one in epochs:
        assert [len(x) for x in one] == [4, 4, 2]
        assert sorted(sum(one, [])) == list(range(10))
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    again = images.batches(4, seed=5)
    assert [epoch(again) for _ in range(3)] == epochs
    assert epoch(images.batches(4, seed=6)) != epochs[0]
    resumed = images.batches(4, seed=5)
    resumed.epoch = 2
    assert epoch(resumed) == epochs[2]


def test_torch_seed_and_two_iterations_at_once_do_not_interfere():
    images = some_images(10)
    expected = [epoch(b) for b in [images.batches(3)] for _ in range(2)]
    batches = images.batches(3)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    pairs = list(zip(batches, batches, strict=True))
    assert epoch(a for a, _ in pairs) == expected[0]
    assert epoch(b for _, b in pairs) == expected[1]
    assert torch.equal(torch.get_rng_state(), state)


def test_drop_last_order_and_lengths():
    images = some_images(10)
    for size, keep, drop in (
        (1, 10, 10),
        (3, 4, 3),
        (5, 2, 2),
        (10, 1, 1),
        (99, 1, None),
    ):
        assert len(images.batches(size)) == len(epoch(images.batches(size))) == keep
        if drop:
            dropping = images.batches(size, drop_last=True)
            assert len(dropping) == drop and {len(x) for x in epoch(dropping)} == {size}
    assert sum(epoch(images.batches(4, shuffle=False)), []) == list(range(10))
    with pytest.raises(ValueError, match="10 images give no batch of 11"):
        images.batches(11, drop_last=True)
    for wrong in (images.pixels[:0], 1), (images.pixels, 0):
        with pytest.raises(ValueError, match="no batch"):
            data.Images(wrong[0]).batches(wrong[1])


def test_to_device():
    found = data.load("digits", 8, train_size=5, test_size=2).to("meta")
    assert found.train.pixels.is_meta and found.test.labels.is_meta
    assert found.target_names and found.train.knobs is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_on_a_gpu():
    images = some_images(10, torch.uint8)
    on_gpu = images.to("cuda").batches(4, seed=1)
    assert epoch(on_gpu) == epoch(images.batches(4, seed=1))
    assert next(iter(on_gpu)).is_cuda


# ------------------------------------------------------------------- wrong arguments


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ({"name": "minst"}, ValueError, "'minst'.*faces, digits, mnist"),
        ({"name": ""}, ValueError, "celeba; or give the path"),
        ({"name": "no/such/place"}, FileNotFoundError, "such/place.*faces, digits"),
        ({"name": Path("nowhere")}, FileNotFoundError, "nowhere.*faces, digits"),
        ({"name": 3}, TypeError, "not int"),
        ({"name": "digits", "size": 30}, ValueError, "size 30 is not supported"),
        ({"name": "digits", "size": 4}, ValueError, "size 4 is not supported"),
        ({"name": "digits", "size": 260}, ValueError, "size 260 is not supported"),
        ({"name": "digits", "size": 32.0}, ValueError, "size 32.0 is not supported"),
        ({"name": "faces", "size": 12}, ValueError, "size 12.*16 or more"),
        ({"name": "digits", "channels": 2}, ValueError, "channels is 2"),
        ({"name": "digits", "train_size": 0}, ValueError, "size is 0; .* 1 or more"),
        ({"name": "digits", "test_size": 1.5}, ValueError, "test_size is 1.5"),
        ({"name": "digits", "train_size": 1797}, ValueError, "1797.*1797"),
        ({"name": "digits", "test_size": 1797}, ValueError, "1797 images: too few"),
    ],
)
def test_wrong_arguments(arguments, error, words):
    with pytest.raises(error, match=words):
        data.load(**arguments)


def test_more_than_the_set_holds(tmp_path):
    write_idx(tmp_path, idx_files())
    with pytest.raises(ValueError, match="train_size is 31, but mnist has only 30"):
        data.load("mnist", root=tmp_path, train_size=31)
    with pytest.raises(ValueError, match="test_size is 11, but mnist has only 10"):
        data.load("mnist", root=tmp_path, test_size=11)


# ---------------------------------------------------------------- damaged idx files


IMAGES = "train-images-idx3-ubyte"
LABELS = "train-labels-idx1-ubyte"


def flip(content, position, to):
    return content[:position] + bytes([to]) + content[position + 1 :]


@pytest.mark.parametrize(
    "name, damage, words",
    [
        (IMAGES, lambda c: b"", "not idx"),
        (IMAGES, lambda c: c[:9], "not idx"),
        (IMAGES, lambda c: c[:16], "16 bytes where its header says"),
        (IMAGES, lambda c: c[:-1], "23,535 bytes where its header says 23,536"),
        (IMAGES, lambda c: c + b"x", "23,537 bytes"),
        (IMAGES, lambda c: flip(c, 2, 9), "not idx"),
        (IMAGES, lambda c: flip(c, 3, 1), "not idx"),
        (IMAGES, lambda c: flip(c, 4, 255), "header says"),
        (IMAGES, lambda c: flip(c, 11, 14), "not idx of .28, 28."),
        (IMAGES, lambda c: b"<!DOCTYPE html><html>404</html>", "not idx"),
        (IMAGES, lambda c: idx_bytes(np.zeros((0, 28, 28))), "header says"),
        (LABELS, lambda c: c[:-1], "37 bytes where its header says 38"),
        (LABELS, lambda c: flip(c, 20, 200), "label 200"),
        (LABELS, lambda c: idx_bytes(np.zeros(29)), "29 labels for 30 images"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_damaged_idx_file_is_named_and_kept(
    tmp_path, no_network, name, damage, words, zipped
):
    files = idx_files()
    files[name] = damage(files[name])
    write_idx(tmp_path, files, zipped=zipped)
    before = snapshot(tmp_path)
    with pytest.raises(RuntimeError, match=f"{name}.*{words}.*Nothing was deleted"):
        data.load("mnist", root=tmp_path)
    assert snapshot(tmp_path) == before


def test_damaged_gz_is_named(tmp_path, no_network):
    files = idx_files()
    raw = write_idx(tmp_path, files, zipped=True)
    path = raw / f"{IMAGES}.gz"
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    cases = [whole[:n] for n in (0, 5, 12, len(whole) // 2, len(whole) - 1)]
    for position in rng.integers(10, len(whole), 20):
        cases.append(flip(whole, position, whole[position] ^ 1))
    for content in cases:
        path.write_bytes(content)
        with pytest.raises(RuntimeError, match=f"{IMAGES}.gz"):
            data.load("mnist", root=tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(RuntimeError, match=f"{IMAGES}.gz is damaged.*directory"):
        data.load("mnist", root=tmp_path)


def test_missing_files_without_a_network(tmp_path, no_network):
    files = idx_files()
    del files[LABELS]
    raw = write_idx(tmp_path, files)
    before = snapshot(tmp_path)
    with pytest.raises(FileNotFoundError) as told:
        data.load("mnist", root=tmp_path, download=False)
    assert f"put {LABELS}.gz into {raw}" in str(told.value)
    with pytest.raises(RuntimeError) as told:
        data.load("mnist", root=tmp_path)
    for words in ("Name or service not known", f"{LABELS}.gz", "'digits', 'faces' and"):
        assert words in str(told.value)
    assert snapshot(tmp_path) == before and os.listdir(tmp_path) == ["MNIST"]


# ----------------------------------------------------------------------- downloads


@pytest.fixture
def mirror(monkeypatch):
    """A web server in this process with a small MNIST; `cut` breaks one connection."""
    served = {f"/{name}.gz": gzip.compress(c) for name, c in idx_files().items()}
    state = types.SimpleNamespace(files=served, cut=None, reset=False, requests=[])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            content = state.files[self.path]
            state.requests.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            cut = state.cut and self.path.endswith(state.cut)
            self.wfile.write(content[: len(content) // 2] if cut else content)
            if cut and state.reset:
                linger = struct.pack("ii", 1, 0)  # close with a reset
                self.connection.setsockopt(1, 13, linger)
                self.connection.close()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}/"
    state.resources = [
        (path[1:], hashlib.md5(content).hexdigest()) for path, content in served.items()
    ]
    mnist = download.torchvision().datasets.MNIST
    monkeypatch.setattr(mnist, "mirrors", [state.url])
    monkeypatch.setattr(mnist, "resources", state.resources)
    yield state
    server.shutdown()
    server.server_close()


def test_download_and_then_never_again(tmp_path, mirror):
    found = data.load("mnist", root=tmp_path / "new" / "root")
    assert (len(found.train), len(found.test)) == (30, 10)
    again = data.load("mnist", root=tmp_path / "new" / "root", download=False)
    assert torch.equal(found.train.pixels, again.train.pixels)
    raw = tmp_path / "new" / "root" / "MNIST" / "raw"
    assert sorted(os.listdir(raw)) == sorted(path[1:] for path in mirror.files)
    assert os.listdir(tmp_path / "new" / "root") == ["MNIST"]
    # torchvision itself accepts what lies there.
    mirror.files.clear()
    theirs = download.torchvision().datasets.MNIST(tmp_path / "new/root", download=True)
    assert len(theirs) == 30


@pytest.mark.parametrize("damage", ["short", "reset", "changed", "missing"])
def test_broken_download_leaves_nothing(tmp_path, mirror, damage):
    name = f"{IMAGES}.gz"
    if damage == "changed":
        mirror.files[f"/{name}"] = gzip.compress(b"a login page")
    elif damage == "missing":
        del mirror.files[f"/{name}"]
    else:
        mirror.cut, mirror.reset = name, damage == "reset"
    with pytest.raises(RuntimeError, match="mnist could not be downloaded"):
        data.load("mnist", root=tmp_path)
    assert snapshot(tmp_path) == {}
    assert not list(tmp_path.glob(".partial-*"))


def test_download_keeps_the_files_that_are_there(tmp_path, mirror):
    mine = idx_files(seed=7)
    del mine[LABELS]
    raw = write_idx(tmp_path, mine)
    before = snapshot(raw)
    data.load("mnist", root=tmp_path)
    after = snapshot(raw)
    assert after.pop(Path(f"{LABELS}.gz")) == mirror.files[f"/{LABELS}.gz"]
    assert after == before


def test_root_that_cannot_be_written(tmp_path, mirror):
    (tmp_path / "MNIST").write_text("a file in the way")
    with pytest.raises(RuntimeError, match="set GENCOURSE_DATA to a folder"):
        data.load("mnist", root=tmp_path)
    assert (tmp_path / "MNIST").read_text() == "a file in the way"


def test_two_processes_download_and_cache_at_once(tmp_path, mirror):
    colored_folder(tmp_path / "own", 12)
    script = f"""
        import torch
        from gencourse import data
        from gencourse.sources import download, source
        torch.set_num_threads(1)
        mnist = download.torchvision().datasets.MNIST
        mnist.mirrors, mnist.resources = [{mirror.url!r}], {mirror.resources!r}
        source.CACHE_FROM = 0
        for _ in range(2):
            own = data.load({str(tmp_path / "own")!r}, 16, root={str(tmp_path)!r})
            one = data.load("mnist", root={str(tmp_path)!r})
            print(len(one.train), one.train.pixels.sum().item(),
                  own.train.pixels.sum().item())
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
        for _ in range(2)
    ]
    lines = sum((p.communicate(timeout=120)[0].splitlines() for p in running), [])
    assert [p.returncode for p in running] == [0, 0]
    assert len(lines) == 4 and len(set(lines)) == 1
    assert not list(tmp_path.rglob(".partial-*"))


# -------------------------------------------------------------- torchvision's import


def fresh_python(code, *paths):
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([*map(str, paths), str(REPOSITORY)])
    }
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def fake_torchvision(tmp_path, monkeypatch):
    """Puts a package `torchvision` made of the code given before the real one."""

    def loaded():
        return [name for name in sys.modules if name.split(".")[0] == "torchvision"]

    def install(code):
        (tmp_path / "torchvision").mkdir()
        path = tmp_path / "torchvision" / "__init__.py"
        path.write_text(textwrap.dedent(code))

    real = {name: sys.modules.pop(name) for name in loaded()}
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(download, "_declared", [])
    yield install
    for name in loaded():
        del sys.modules[name]
    sys.modules.update(real)


def test_torchvision_that_is_installed_here():
    # Whether the plain import works depends on the build; through data it must.
    done = fresh_python("""
        from gencourse.sources import download
        try:
            import torchvision
            plain = True
        except RuntimeError as error:
            plain = False
            assert "operator torchvision::" in str(error)
        torchvision = download.torchvision()
        assert torchvision.datasets.MNIST and torchvision.datasets.CelebA
        import torchvision as again
        assert again is torchvision and download.torchvision() is torchvision
        assert plain == (len(download._declared) == 0)
        print("fine")
    """)
    assert done.stdout == "fine\n", done.stderr


def test_missing_operators_are_declared_whatever_their_names(fake_torchvision):
    fake_torchvision("""
        import torch
        for name in ("first_new", "second_new"):
            torch.library.register_fake(f"torchvision::{name}", lambda *a: a[0])
    """)
    download.torchvision()
    assert len(download._declared) == 2
    assert torch.ops.torchvision.first_new and torch.ops.torchvision.second_new


def test_torchvision_that_works_is_left_alone(fake_torchvision, monkeypatch):
    fake_torchvision("name = 'whole'")
    monkeypatch.setattr(torch.library, "Library", None)  # would fail, if it were called
    assert download.torchvision().name == "whole" and download._declared == []


@pytest.mark.parametrize(
    "code",
    [
        "raise RuntimeError('compiled with different CUDA major versions')",
        "raise AttributeError('no attribute xyz')",
        "import torch.nothing_of_the_kind",
        "raise RuntimeError('operator torchvision::never does not exist')",
    ],
)
def test_versions_that_do_not_match(fake_torchvision, code):
    fake_torchvision(code)
    with pytest.raises(RuntimeError) as told:
        download.torchvision()
    minor = int(torch.__version__.split(".")[1])
    assert torch.__version__ in str(told.value)
    assert f"torchvision==0.{minor + 15}.*" in str(told.value)


def test_torchvision_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(RuntimeError, match="pip install 'torchvision"):
        download.torchvision()


# --------------------------------------------------------------- folders of images


def test_folder_flat(tmp_path):
    own = colored_folder(tmp_path / "own", 20)
    (own / ".DS_Store").write_bytes(b"x")
    (own / "._000.png").write_bytes(b"AppleDouble")
    (own / "notes.txt").write_text("not an image")
    (own / "folder.png").mkdir()
    before = snapshot(tmp_path)
    found = data.load(own, 16, root=tmp_path / "root")
    assert (len(found.train), len(found.test), found.channels) == (18, 2, 3)
    assert found.train.labels is None and found.target_names is None
    ids = [
        (part.pixels[:, 0, 0, 0] * 25.5).round().int().tolist()
        for part in (found.train, found.test)
    ]
    assert ids[0] == sorted(ids[0]) and sorted(ids[0] + ids[1]) == list(range(20))
    assert snapshot(tmp_path) == before and not (tmp_path / "root").exists()
    part = data.load(str(own), 16, train_size=5, test_size=9)
    assert (len(part.train), len(part.test)) == (5, 9)
    with pytest.raises(ValueError, match="20 images: too few for train_size 15"):
        data.load(own, 16, train_size=15, test_size=9)


def test_folder_with_classes_and_a_split_of_its_own(tmp_path):
    colors = {"cat": (250, 0, 0), "dog": (0, 250, 0), "owl": (0, 0, 250)}
    for part, n in (("train", 4), ("Test", 2)):
        for name, color in colors.items():
            for i in range(n):
                draw(tmp_path / "split" / part / name / "deep" / f"{i}.jpg", color)
    found = data.load(tmp_path / "split", 8)
    assert (len(found.train), len(found.test)) == (12, 6)
    assert found.target_names == ("cat", "dog", "owl")
    for part in (found.train, found.test):
        assert torch.equal(part.pixels.mean((2, 3)).argmax(1), part.labels)
    nested = data.load(tmp_path / "split" / "train", 8)
    assert nested.target_names == ("cat", "dog", "owl") and len(nested.test) == 1
    # One folder around everything names no class.
    (tmp_path / "outer").mkdir()
    (tmp_path / "split" / "train").rename(tmp_path / "outer" / "train")
    assert data.load(tmp_path / "outer", 8).target_names == ("cat", "dog", "owl")


def test_links_are_followed_and_loops_end(tmp_path):
    colored_folder(tmp_path / "elsewhere", 6)
    own = tmp_path / "own"
    own.mkdir()
    (own / "linked").symlink_to(tmp_path / "elsewhere")
    (own / "loop").symlink_to(own)
    assert len(data.load(own, 8).train) == 5


def gradient(height=64, width=64):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, 0 * x], -1).astype(np.uint8)


def one(path, size=8, channels=3):
    return torch.tensor(folder_source.decode(path, size, channels)).permute(2, 0, 1)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".bmp", ".webp", ".tiff"])
def test_formats(tmp_path, suffix):
    path = tmp_path / f"image{suffix}"
    Image.fromarray(gradient()).save(path)
    expected = F.interpolate(
        torch.from_numpy(gradient()).permute(2, 0, 1)[None].float(),
        (8, 8),
        mode="bilinear",
        antialias=True,
    )[0]
    assert (one(path).float() - expected).abs().max() < 16  # GIF has 256 colors
    assert one(path, channels=1).shape == (1, 8, 8)


def test_modes(tmp_path):
    def saved(image, name, **options):
        image.save(tmp_path / name, **options)
        return one(tmp_path / name, 8)

    red = Image.new("RGB", (16, 16), (255, 0, 0))
    half = Image.new("RGBA", (16, 16), (255, 0, 0, 128))
    assert (saved(half, "rgba.png")[1] - 127.0).abs().max() <= 1
    clear = Image.new("LA", (16, 16), (0, 0))
    assert saved(clear, "la.png").min() == 255
    palette = red.quantize(4)
    assert saved(palette, "palette.png")[0].min() == 255
    assert saved(palette, "see.png", transparency=0).min() == 255
    assert saved(red.convert("CMYK"), "cmyk.jpg")[0].min() > 240
    assert saved(Image.new("1", (16, 16), 1), "bit.png").min() == 255
    deep = Image.fromarray(np.full((16, 16), 32896, np.uint16))
    assert (saved(deep, "deep.png") == 128).all()
    assert (saved(deep, "deep.tiff") == 128).all()
    with pytest.raises(ValueError, match="floating-point"):
        saved(Image.fromarray(np.ones((8, 8), np.float32)), "float.tiff")


def test_center_crop_and_orientation(tmp_path):
    wide = gradient(64, 192)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.fromarray(wide[:, 64:128]).save(tmp_path / "middle.png")
    assert torch.equal(one(tmp_path / "wide.png"), one(tmp_path / "middle.png"))
    upright = Image.fromarray(wide)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 270 degrees
    upright.save(tmp_path / "turned.png", exif=exif)
    turned = one(tmp_path / "turned.png").float()
    expected = torch.rot90(one(tmp_path / "wide.png").float(), -1, (1, 2))
    assert (turned - expected).abs().max() <= 2


def test_gray_folders_stay_gray(tmp_path):
    for i in range(4):
        draw(tmp_path / "gray" / f"{i}.png", i * 60, mode="L")
    assert data.load(tmp_path / "gray", 8).channels == 1
    assert data.load(tmp_path / "gray", 8, channels=3).channels == 3
    draw(tmp_path / "gray" / "red.png", (255, 0, 0))
    assert data.load(tmp_path / "gray", 8).channels == 3


def test_folder_without_images(tmp_path):
    (tmp_path / "a.csv").write_text("1")
    with pytest.raises(FileNotFoundError, match=rf"no images in {tmp_path}.*\.png"):
        data.load(tmp_path)
    draw(tmp_path / "only.png")
    with pytest.raises(ValueError, match="1 images: too few"):
        data.load(tmp_path)


def test_images_that_cannot_be_read_are_all_named(tmp_path):
    own = colored_folder(tmp_path / "own", 40)
    whole = (own / "000.png").read_bytes()
    damages = {
        "empty.png": b"",
        "text.jpg": b"this is text",
        "cut.png": whole[:-20],
        "flipped.png": flip(whole, 45, whole[45] ^ 255),
        "vector.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    }
    for name, content in damages.items():
        (own / name).write_bytes(content)
    (own / "broken.png").symlink_to(tmp_path / "nowhere.png")
    before = snapshot(own)
    with pytest.raises(RuntimeError) as told:
        data.load(own, 8, train_size=41, test_size=5)
    message = str(told.value)
    assert "Nothing was deleted" in message and "images cannot be read" in message
    named = [name for name in (*damages, "broken.png") if str(own / name) in message]
    assert len(named) >= 3
    assert snapshot(own) == before
    for name in damages:
        with pytest.raises(Exception, match="."):
            folder_source.decode(own / name, 8, 3)


def test_many_unreadable_images_are_counted(tmp_path):
    for i in range(30):
        (tmp_path / f"{i}.png").write_bytes(b"nothing")
    with pytest.raises(RuntimeError, match=r"27 of 27 images(.|\n)*and 22 more"):
        data.load(tmp_path, 8)


def test_too_many_pixels(tmp_path, monkeypatch):
    colored_folder(tmp_path / "own", 4)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(RuntimeError, match="decompression bomb"):
        data.load(tmp_path / "own", 8)


# ------------------------------------------------------------ large sets and caches


@pytest.fixture
def small_limit(monkeypatch):
    monkeypatch.setattr(data, "FLOAT_LIMIT", 1000)


def mapped(tensor):
    """Whether a tensor's memory is a file's."""
    address = tensor.data_ptr()
    for line in Path("/proc/self/maps").read_text().splitlines():
        low, high = (int(x, 16) for x in line.split()[0].split("-"))
        if low <= address < high:
            return line.endswith(".npy")
    return False


def test_large_sets_stay_uint8(tmp_path, small_limit):
    write_idx(tmp_path, idx_files())
    colored_folder(tmp_path / "own")
    for name in ("faces", "digits", "mnist", tmp_path / "own"):
        ask = partial(data.load, name, 16, train_size=9, test_size=4, root=tmp_path)
        large = ask()
        assert large.train.pixels.dtype == torch.uint8
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(data, "FLOAT_LIMIT", 2**30)
            small = ask()
        for a, b in ((large.train, small.train), (large.test, small.test)):
            assert b.pixels.dtype == torch.float32
            assert (a[:] - b.pixels).abs().max() <= 0.5 / 255 + 1e-6
        if sys.platform == "linux":
            assert mapped(large.train.pixels) == (name not in ("faces", "digits"))
        x = next(iter(large.train.batches(4)))
        assert x.dtype == torch.float32 and x.max() <= 1
        assert x.is_contiguous(memory_format=torch.channels_last)


def cache_files(root):
    return sorted((root / "cache").glob("*.npy"))


def test_cache_is_used_and_a_stale_one_is_not(tmp_path, monkeypatch, small_limit):
    own = colored_folder(tmp_path / "own")
    ask = partial(data.load, own, 16, root=tmp_path / "root")
    first = ask()
    assert len(cache_files(tmp_path / "root")) == 2
    with monkeypatch.context() as patch:
        patch.setattr(folder_source, "decode", None)  # would fail, if it were called
        again = ask()
    assert torch.equal(first.train.pixels, again.train.pixels)
    for path in own.iterdir():
        draw(path, (1, 2, 3))
        os.utime(path, (1, 1))  # a clock that jumps back
    changed = ask()
    assert (changed.train[:] * 255).round().unique().tolist() == [1, 2, 3]
    assert (first.train[:] * 255).unique().numel() > 3


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "header", "more"])
def test_damaged_cache_is_made_anew(tmp_path, small_limit, damage):
    own = colored_folder(tmp_path / "own")
    ask = partial(data.load, own, 16, root=tmp_path)
    expected = ask().train.pixels.clone()
    for path in cache_files(tmp_path):
        content = path.read_bytes()
        damaged = {
            "cut": content[:-1],
            "flip": flip(content, 500, content[500] ^ 4),
            "empty": b"",
            "header": flip(content, 3, 0),
            "more": content + b"x",
        }[damage]
        path.unlink()
        path.write_bytes(damaged)
    assert torch.equal(ask().train.pixels, expected)
    assert torch.equal(ask().train.pixels, expected)


def test_cache_that_cannot_be_written(tmp_path, monkeypatch, small_limit):
    own = colored_folder(tmp_path / "own")
    (tmp_path / "cache").write_text("in the way")
    with pytest.warns(UserWarning, match="kept in memory.*GENCOURSE_DATA"):
        found = data.load(own, 16, root=tmp_path)
    assert found.train.pixels.dtype == torch.uint8 and len(found.train) == 18
    assert (tmp_path / "cache").read_text() == "in the way"

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(UserWarning, match="No space left"):
        data.load(own, 16, root=tmp_path / "full")
    assert os.listdir(tmp_path / "full" / "cache") == []


def test_unreadable_image_while_caching(tmp_path, small_limit):
    own = colored_folder(tmp_path / "own")
    (own / "bad.png").write_bytes(b"bad")
    with pytest.raises(RuntimeError, match="bad.png"):
        data.load(own, 16, root=tmp_path, train_size=11, test_size=10)
    assert not list(tmp_path.rglob(".partial-*"))


def test_kill_while_caching(tmp_path):
    own = colored_folder(tmp_path / "own")
    code = f"""
        import os
        from gencourse import data
        data.FLOAT_LIMIT = 1000
        os.fsync = lambda _: os.kill(os.getpid(), 9)
        data.load({str(own)!r}, 16, root={str(tmp_path)!r})
    """
    assert fresh_python(code).returncode == -9
    assert list((tmp_path / "cache").glob(".partial-*")) and not cache_files(tmp_path)
    expected = data.load(own, 16, root=tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "FLOAT_LIMIT", 1000)
        found = data.load(own, 16, root=tmp_path)
    assert torch.equal(found.train[:], expected.train.pixels)


# ------------------------------------------------------------------------- celeba


ATTRIBUTES = [f"Attribute_{i}" for i in range(40)]


def celeba(root, n=12, packed=False):
    """A small CelebA: image i is gray level 20 * i; parts 0, 1, 2 in turn."""
    folder = root / "celeba"
    names = [f"{i + 1:06}.jpg" for i in range(n)]
    for i, name in enumerate(names):
        draw(folder / "img_align_celeba" / name, (20 * i,) * 3, (178, 218))
    parts = "".join(f"{name} {i % 3}\n" for i, name in enumerate(names))
    (folder / "list_eval_partition.txt").write_text(parts)
    flags = (" ".join("1" if i >> j & 1 else "-1" for j in range(40)) for i in range(n))
    rows = [f"{name}  {row}" for name, row in zip(names, flags, strict=True)]
    text = "\n".join([f"{n} ", " ".join(ATTRIBUTES) + " ", *rows]) + "\n"
    (folder / "list_attr_celeba.txt").write_text(text)
    if packed:
        with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
            for name in names:
                path = folder / "img_align_celeba" / name
                archive.write(path, f"img_align_celeba/{name}")
                path.unlink()
        (folder / "img_align_celeba").rmdir()
    return folder


@pytest.mark.parametrize("packed", [False, True])
def test_celeba(tmp_path, monkeypatch, packed):
    monkeypatch.setattr(source, "CACHE_FROM", 1)
    folder = celeba(tmp_path, packed=packed)
    before = snapshot(folder)
    found = data.load("celeba", 64, root=tmp_path)
    assert found.target_names == tuple(ATTRIBUTES) and found.channels == 3
    for part, first in ((found.train, 0), (found.test, 2)):
        ids = (part.pixels.mean((1, 2, 3)) * 255 / 20).round().int().tolist()
        assert ids == list(range(first, 12, 3))
        bits = (part.labels * 2 ** torch.arange(40)).sum(1)
        assert bits.tolist() == ids and part.labels.shape == (4, 40)
    assert len(cache_files(tmp_path)) == 2 and snapshot(folder) == before
    monkeypatch.setattr(folder_source, "decode", None)
    again = data.load("celeba", 64, root=tmp_path)
    assert torch.equal(again.train.pixels, found.train.pixels)
    with pytest.raises(ValueError, match="train_size is 5, but celeba has only 4"):
        data.load("celeba", 64, root=tmp_path, train_size=5)


def test_celeba_by_hand_when_it_cannot_be_downloaded(tmp_path, no_network):
    with pytest.raises(RuntimeError) as told:
        data.load("celeba", root=tmp_path)
    for words in (
        "img_align_celeba.zip",
        "list_eval_partition.txt",
        "list_attr_celeba",
    ):
        assert words in str(told.value)
    assert str(tmp_path / "celeba") in str(told.value)
    with pytest.raises(FileNotFoundError, match="img_align_celeba.zip"):
        data.load("celeba", root=tmp_path, download=False)


def test_celeba_download_moves_whole_files(tmp_path, monkeypatch):
    source = celeba(tmp_path / "source", packed=True)
    utils = download.torchvision().datasets.utils
    calls = []

    def fetch(file_id, root, filename, md5):
        calls.append(filename)
        if filename == "list_attr_celeba.txt" and len(calls) < 3:
            Path(root, filename).write_text("half")
            raise RuntimeError("File not found or corrupted.")
        Path(root, filename).write_bytes((source / filename).read_bytes())

    monkeypatch.setattr(utils, "download_file_from_google_drive", fetch)
    with pytest.raises(RuntimeError, match="celeba could not be downloaded"):
        data.load("celeba", root=tmp_path)
    assert sorted(os.listdir(tmp_path / "celeba")) == ["img_align_celeba.zip"]
    assert len(data.load("celeba", 16, root=tmp_path).train) == 4
    assert calls.count("img_align_celeba.zip") == 1


def damage_text(name, change):
    def apply(folder):
        path = folder / name
        path.write_text(change(path.read_text()))

    return apply


@pytest.mark.parametrize(
    "damage, words",
    [
        (damage_text("list_eval_partition.txt", lambda t: ""), "partition.*no rows"),
        (damage_text("list_eval_partition.txt", lambda t: t[:-2]), "partition.txt"),
        (damage_text("list_eval_partition.txt", lambda t: t[:26]), "other images"),
        (damage_text("list_eval_partition.txt", lambda t: t + "x y\n"), "partition"),
        (damage_text("list_attr_celeba.txt", lambda t: t[:-9]), "attr_celeba.txt"),
        (damage_text("list_attr_celeba.txt", lambda t: "12\n"), "attr_celeba.txt"),
        (lambda f: (f / "list_attr_celeba.txt").write_bytes(b"\xff\xfe"), "attr"),
        (lambda f: (f / "img_align_celeba.zip").write_bytes(b"PK half"), "celeba.zip"),
        (
            damage_text("list_eval_partition.txt", lambda t: t.replace(" 2", " 1")),
            "train or test has no images",
        ),
    ],
)
def test_damaged_celeba_is_named(tmp_path, damage, words):
    folder = celeba(tmp_path, packed=True)
    damage(folder)
    before = snapshot(folder)
    with pytest.raises(RuntimeError, match=words):
        data.load("celeba", 16, root=tmp_path)
    assert snapshot(folder) == before


def test_celeba_with_missing_or_flipped_images(tmp_path):
    folder = celeba(tmp_path / "a")
    (folder / "img_align_celeba" / "000004.jpg").unlink()
    with pytest.raises(RuntimeError, match="1 of 4 images(.|\n)*000004.jpg"):
        data.load("celeba", 16, root=tmp_path / "a")
    archive = celeba(tmp_path / "b", packed=True) / "img_align_celeba.zip"
    content = archive.read_bytes()
    archive.write_bytes(flip(content, 400, content[400] ^ 1))
    with pytest.raises(RuntimeError, match="000001.jpg: .*CRC"):
        data.load("celeba", 16, root=tmp_path / "b")
