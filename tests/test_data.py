"""data: every set in its promised form, images by index and in batches."""

import itertools
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from samples import colored_folder, idx_files, write_idx

from gencourse import data, faces, train
from gencourse.sources import source

# --------------------------------------------------------------- what load returns


@pytest.mark.parametrize("size", [8, 16, 28, 32, 48])
@pytest.mark.parametrize("channels", [None, 1, 3])
def test_digits_any_size_and_channels(size, channels):
    loaded = data.load("digits", size, channels=channels, train_size=40, test_size=9)
    assert (loaded.size, loaded.channels) == (size, channels or 1)
    assert loaded.target_names == tuple("0123456789")
    for part, n in ((loaded.train, 40), (loaded.test, 9)):
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
    loaded = data.load("digits", 8)
    seen = []
    for part in (loaded.train, loaded.test):
        images = (part.pixels[:, 0] * 16).double().numpy()
        assert [source[image.tobytes()] for image in images] == part.labels.tolist()
        seen += [image.tobytes() for image in images]
    assert len(seen) == 1797 and set(seen) == set(source)


def test_faces_match_their_knobs_and_train_and_test_differ():
    loaded = data.load("faces", 16, train_size=60, test_size=20, seed=3)
    assert loaded.target_names == tuple(faces.KNOB_NAMES) and loaded.channels == 3
    for part in (loaded.train, loaded.test):
        assert part.knobs.shape == (len(part), 8) and part.labels is None
        expected = faces.render(part.knobs, 16)
        torch.testing.assert_close(part.pixels, expected, check_stride=False)
    distance = torch.cdist(loaded.train.knobs, loaded.test.knobs)
    assert distance.min() > 0.01
    typed = torch.cat([faces.sample_knobs(60, seed) for seed in range(8)])
    assert torch.cdist(loaded.train.knobs, typed).min() > 1e-6
    gray = data.load("faces", 16, channels=1, train_size=5, test_size=2, seed=3)
    assert gray.train.pixels.shape == (5, 1, 16, 16)
    assert data.load("faces", 16, train_size=1, test_size=1).train.knobs.shape == (1, 8)


def test_characters_are_sixteen_faces_with_small_differences():
    loaded = data.load("characters", 16, train_size=400, test_size=80, seed=3)
    assert len(loaded.target_names) == 16
    for part in (loaded.train, loaded.test):
        assert (part.labels.bincount(minlength=16) > 0).all()
        away = part.knobs - faces.characters()[part.labels]
        assert 0.15 < away.abs().max() <= 0.2
        expected = faces.render(part.knobs, 16)
        torch.testing.assert_close(part.pixels, expected, check_stride=False)
    assert torch.cdist(loaded.train.knobs, loaded.test.knobs).min() > 0


def test_the_seed_decides(tmp_path):
    write_idx(tmp_path, idx_files())
    colored_folder(tmp_path / "own")
    for name in ("faces", "characters", "digits", "mnist", tmp_path / "own"):
        load = partial(data.load, name, 16, train_size=9, test_size=4, root=tmp_path)
        one, again, other = load(seed=1), load(seed=1), load(seed=2)
        assert torch.equal(one.train.pixels, again.train.pixels)
        assert torch.equal(one.test.pixels, again.test.pixels)
        assert not torch.equal(one.train.pixels, other.train.pixels)


@pytest.mark.parametrize("zipped", [False, True])
def test_mnist_pads_to_32_without_changing_a_pixel(tmp_path, zipped):
    files = idx_files()
    write_idx(tmp_path, files, zipped=zipped)
    loaded = data.load("mnist", root=tmp_path, download=False)
    raw = np.frombuffer(files["train-images-idx3-ubyte"][16:], np.uint8)
    expected = torch.from_numpy(raw.reshape(30, 1, 28, 28).copy()).double() / 255
    assert (len(loaded.train), len(loaded.test)) == (30, 10)
    assert loaded.train.labels.tolist() == [i % 10 for i in range(30)]
    inner = loaded.train.pixels[:, :, 2:30, 2:30].double()
    torch.testing.assert_close(inner, expected, atol=1e-7, rtol=0)
    assert F.pad(inner, (2, 2, 2, 2)).equal(loaded.train.pixels.double())
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
    loaded = data.load(name.upper().replace("-", "_"), 32, train_size=7)
    assert len(loaded.train) == 7 and len(loaded.test) == 10
    assert len(loaded.target_names) == 10 and loaded.name == name
    source = data.load(name).train
    for pixels, label in zip(loaded.train.pixels, loaded.train.labels, strict=True):
        match = (source.pixels == pixels).flatten(1).all(1).nonzero()
        assert match.shape == (1, 1) and source.labels[match[0, 0]] == label


def test_root_argument_beats_environment_and_default_is_data(tmp_path, monkeypatch):
    monkeypatch.setenv("GENCOURSE_DATA", str(tmp_path / "env"))
    assert source.find_root(tmp_path / "argument") == tmp_path / "argument"
    assert source.find_root(None) == tmp_path / "env"
    monkeypatch.delenv("GENCOURSE_DATA")
    assert source.find_root(None).name == "data"


# ----------------------------------------------------------------- images, batches


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
    assert ids(images[[7, 7, -1]]) == [7, 7, 9]
    assert ids(images[torch.tensor([4])]) == [4] and ids(images[np.array([3])]) == [3]
    assert ids(images[images.labels > 7]) == [8, 9]
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


def test_batches_that_no_set_can_give():
    images = some_images(10)
    with pytest.raises(ValueError, match="10 images give no batch of 11"):
        images.batches(11, drop_last=True)
    with pytest.raises(ValueError, match="0 images give no batch of 1"):
        data.Images(images.pixels[:0]).batches(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_every_image_comes_once_in_an_epoch(dtype):
    for n, size in itertools.product(range(1, 10), range(1, 11)):
        for shuffle, drop_last in itertools.product([True, False], repeat=2):
            if drop_last and size > n:
                continue
            batches = some_images(n, dtype).batches(size, shuffle, n, drop_last)
            parts = epoch(batches)
            full, rest = divmod(n, size)
            kept = [size] * full + [rest] * (rest > 0 and not drop_last)
            assert [len(part) for part in parts] == kept and len(batches) == len(kept)
            ids = sum(parts, [])
            assert len(set(ids)) == len(ids) and set(ids) <= set(range(n))
            assert shuffle or ids == list(range(len(ids)))


@pytest.mark.parametrize("size", [1, 3, 7, 8])
def test_the_mean_of_an_epoch_does_not_depend_on_the_batch_size(size):
    batches = some_images(7).batches(size)
    history = train.fit(lambda x: {"a": x.mean().item()}, batches, epochs=2)
    assert history.images == 14
    assert history.epochs["a"] == pytest.approx([3 / 255] * 2, abs=1e-6)


def test_images_of_another_kind_are_refused_not_darkened():
    pixels = torch.ones(5, 3, 8, 8)
    for dtype in (torch.float16, torch.float64, torch.int64, torch.bool):
        with pytest.raises(ValueError, match=f"float32.*uint8.*5, 3, 8, 8.*{dtype}"):
            data.Images(pixels.to(dtype))
    with pytest.raises(ValueError, match=r"\(N, C, S, S\).*got \(3, 8, 8\)"):
        data.Images(pixels[0])
    with pytest.raises(ValueError, match="4 labels for 5 images"):
        data.Images(pixels, labels=torch.arange(4))
    with pytest.raises(ValueError, match="6 knobs for 5 images"):
        data.Images(pixels, knobs=torch.zeros(6, 8))
    for wrong in (2.5, "3", None, -1, 0):
        with pytest.raises(ValueError, match=f"batch_size is {wrong!r}.*whole number"):
            data.Images(pixels).batches(wrong)
    with pytest.raises(ValueError, match="seed is 0.5.*whole number"):
        data.Images(pixels).batches(2, seed=0.5)


def test_to_device():
    loaded = data.load("digits", 8, train_size=5, test_size=2).to("meta")
    assert loaded.train.pixels.is_meta and loaded.test.labels.is_meta
    assert loaded.target_names and loaded.train.knobs is None


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
        ({"name": "minst"}, ValueError, "'minst'.*faces, characters, digits, mnist"),
        ({"name": ""}, ValueError, "celeba; or give the path"),
        ({"name": "no/such/place"}, FileNotFoundError, "such/place.*faces, characters"),
        ({"name": Path("nowhere")}, FileNotFoundError, "nowhere.*faces, characters"),
        ({"name": 3}, TypeError, "not int"),
        ({"name": "digits", "size": 30}, ValueError, "size 30 is not supported"),
        ({"name": "digits", "size": 4}, ValueError, "size 4 is not supported"),
        ({"name": "digits", "size": 260}, ValueError, "size 260 is not supported"),
        ({"name": "digits", "size": 32.0}, ValueError, "size is 32.0.*whole number"),
        ({"name": "digits", "size": "32"}, ValueError, "size is '32'.*whole number"),
        ({"name": "faces", "size": 12}, ValueError, "size 12.*16 or more"),
        ({"name": "digits", "channels": 2}, ValueError, "channels is 2.*1, 3"),
        ({"name": "digits", "channels": 3.0}, ValueError, "channels is 3.0.*whole"),
        ({"name": "digits", "train_size": 0}, ValueError, "train_size is 0.*1 or more"),
        ({"name": "digits", "test_size": 1.5}, ValueError, "test_size is 1.5"),
        ({"name": "digits", "seed": 1.5}, ValueError, "seed is 1.5.*whole number"),
        ({"name": "digits", "seed": None}, ValueError, "seed is None.*whole number"),
        ({"name": "digits", "train_size": 1797}, ValueError, "too few.*1797.*2097"),
        ({"name": "digits", "test_size": 1797}, ValueError, "too few.*1797.*1798"),
    ],
)
def test_wrong_arguments(arguments, error, words):
    with pytest.raises(error, match=words):
        data.load(**arguments)


def test_whole_numbers_of_other_types_are_numbers():
    plain = data.load("digits", 16, channels=3, train_size=4, test_size=2, seed=7)
    sixteen, three, four, two, seven = np.array([16, 3, 4, 2, 7])
    loaded = data.load(
        "digits", sixteen, channels=three, train_size=four, test_size=two, seed=seven
    )
    assert torch.equal(loaded.train.pixels, plain.train.pixels)
    assert repr(loaded) == repr(plain)
    batches, same = (
        loaded.train.batches(two, seed=seven),
        plain.train.batches(2, seed=7),
    )
    for x, y in zip(batches, same, strict=True):
        assert torch.equal(x, y)


def test_more_than_the_set_holds(tmp_path):
    write_idx(tmp_path, idx_files())
    with pytest.raises(ValueError, match="train_size is 31, but mnist has only 30"):
        data.load("mnist", root=tmp_path, train_size=31)
    with pytest.raises(ValueError, match="test_size is 11, but mnist has only 10"):
        data.load("mnist", root=tmp_path, test_size=11)


# ------------------------------------------------------------------------ large sets


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
    for name in ("faces", "characters", "digits", "mnist", tmp_path / "own"):
        load = partial(data.load, name, 16, train_size=9, test_size=4, root=tmp_path)
        large = load()
        assert large.train.pixels.dtype == torch.uint8
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(data, "FLOAT_LIMIT", 2**30)
            small = load()
        for a, b in ((large.train, small.train), (large.test, small.test)):
            assert b.pixels.dtype == torch.float32
            assert (a[:] - b.pixels).abs().max() <= 0.5 / 255 + 1e-6
        if sys.platform == "linux":
            assert mapped(large.train.pixels) == (name == tmp_path / "own")
        x = next(iter(large.train.batches(4)))
        assert x.dtype == torch.float32 and x.max() <= 1
        assert x.is_contiguous(memory_format=torch.channels_last)
