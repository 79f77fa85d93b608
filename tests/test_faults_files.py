"""Files that are cut, flipped, empty, of another kind, hostile: named, never believed.

What is random prints its seed; GENCOURSE_FAULT_SEED repeats it (default: a new one).
Where a format holds no checksum, the test's name says what cannot be noticed.
"""

import gzip
import io
import os
import pickle
import shutil
import zipfile
import zlib

import faults
import numpy as np
import pytest
import torch
from PIL import Image

from gencourse import data
from gencourse.sources import download
from gencourse.sources import folder as folder_source
from gencourse.sources.source import rng_for


def not_what_it_should_be():
    """Contents of another kind: what it is -> bytes."""
    picture, archive, array = io.BytesIO(), io.BytesIO(), io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("inside.txt", "text")
    np.save(array, np.zeros(3))
    return {
        "empty": b"",
        "a web page": b"<!DOCTYPE html><html><body>404 not found</body></html>",
        "a picture": picture.getvalue(),
        "an archive": archive.getvalue(),
        "an array": array.getvalue(),
        "zeros": bytes(5000),
        "ones": b"\xff" * 5000,
        "gzip": gzip.compress(b"\0" * 5000),
    }


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def traps(canary):
    trap = Trap(canary)
    zipped, legacy = io.BytesIO(), io.BytesIO()
    torch.save(trap, zipped)
    torch.save(trap, legacy, _use_new_zipfile_serialization=False)
    array = io.BytesIO()
    np.save(array, np.array([trap], dtype=object), allow_pickle=True)
    yield from (pickle.dumps(trap, protocol) for protocol in range(6))
    yield from (zipped.getvalue(), legacy.getvalue(), array.getvalue())
    yield gzip.compress(pickle.dumps(trap))


def test_a_pickle_is_refused_as_data_too(tmp_path, monkeypatch):
    canary, raw = tmp_path / "canary", tmp_path / "MNIST" / "raw"
    monkeypatch.setattr(data, "FLOAT_LIMIT", 1000)
    faults.put(raw, faults.mnist_files())
    wanted = data.load("mnist", root=tmp_path).train.pixels.clone()
    own = faults.pictures(tmp_path / "own", 12)
    for content in traps(canary):
        # A cache whose name promises just this content.
        for path in list((tmp_path / "cache").glob("*.npy")):
            key = path.stem.split("-")[0]
            path.unlink()
            path = path.with_name(f"{key}-{zlib.crc32(content):08x}.npy")
            path.write_bytes(content)
        assert torch.equal(data.load("mnist", root=tmp_path).train.pixels, wanted)
        (own / "003.png").write_bytes(content)
        with pytest.raises(RuntimeError, match="003.png"):
            data.load(own, 16, root=tmp_path, train_size=11, test_size=1)
        (raw / "train-images-idx3-ubyte").write_bytes(content)
        with pytest.raises(RuntimeError, match="train-images.*not idx"):
            data.load("mnist", root=tmp_path)
        faults.put(raw, faults.mnist_files())
    assert not canary.exists()


# ------------------------------------------------------------------- idx files and .gz
def numbers(root):
    found = data.load("mnist", 28, root=root, download=False)
    parts = (found.train, found.test)
    return [(part[:] * 255).round().byte().numpy().tobytes() for part in parts] + [
        part.labels.tolist() for part in parts
    ]


def test_damaged_gz_of_mnist_gives_an_error_or_the_same_numbers(tmp_path):
    """A .gz holds a checksum: only names and dates in its header can change unseen."""
    rng = faults.new_rng()
    contents = faults.zipped(faults.mnist_files(4, 2))
    raw = faults.put(tmp_path / "MNIST" / "raw", contents)
    wanted = numbers(tmp_path)
    noticed = 0
    for name, whole in contents.items():
        chosen = [*range(min(len(whole), 40)), *faults.places(rng, len(whole), 40)]
        damaged = [faults.flipped(whole, place, rng) for place in chosen]
        damaged += [whole[:size] for size in faults.places(rng, len(whole), 20)]
        damaged += [whole + b"more", whole + whole, *not_what_it_should_be().values()]
        for content in damaged:
            (raw / name).write_bytes(content)
            try:
                assert numbers(tmp_path) == wanted
            except RuntimeError as error:
                assert str(raw / name) in str(error)
                noticed += 1
            assert (raw / name).read_bytes() == content
        (raw / name).write_bytes(whole)
    assert noticed > 300


def test_damage_of_idx_is_noticed_but_for_single_pixels_and_labels(tmp_path):
    """A plain idx file holds no checksum: a flipped pixel is just another pixel, and
    a label another of the ten classes. All else is noticed."""
    rng = faults.new_rng()
    contents = faults.mnist_files(4, 2)
    raw = faults.put(tmp_path / "MNIST" / "raw", contents)
    for name, whole in contents.items():
        start = 16 if "images" in name else 8
        chosen = [*range(start)] * 3
        damaged = [faults.flipped(whole, place, rng) for place in chosen]
        damaged += [whole[:size] for size in faults.places(rng, len(whole), 20)]
        damaged += [whole + b"\0", whole[1:], *not_what_it_should_be().values()]
        if "labels" in name:
            place = rng.randrange(start, len(whole))
            other = bytes([rng.randrange(10, 256)])
            damaged += [whole[:place] + other + whole[place + 1 :]]
        for content in damaged:
            (raw / name).write_bytes(content)
            with pytest.raises(RuntimeError, match="Nothing was deleted") as told:
                data.load("mnist", root=tmp_path)
            assert str(raw / name) in str(told.value)
            assert (raw / name).read_bytes() == content
        (raw / name).unlink()
        (raw / name).mkdir()
        with pytest.raises(RuntimeError, match="Is a directory"):
            data.load("mnist", root=tmp_path)
        (raw / name).rmdir()
        (raw / name).write_bytes(whole)
    assert len(data.load("mnist", root=tmp_path).train) == 4


# ------------------------------------------------------------------- folders of images
def decoded(path):
    """The pixels, or None where the error names the file."""
    try:
        return folder_source.read_images([path], 8, 3)
    except RuntimeError as error:
        assert str(path) in str(error) and "Nothing was deleted" in str(error)


@pytest.fixture(params=["png", "jpg", "gif", "bmp", "webp", "tiff", "ppm"])
def image(request, tmp_path):
    y, x = np.mgrid[:12, :10]
    pixels = np.stack([20 * x, 20 * y, (x * y * 37) % 256], -1).astype(np.uint8)
    path = tmp_path / f"image.{request.param}"
    Image.fromarray(pixels).save(path)
    return path, path.read_bytes()


def test_every_cut_of_an_image_is_noticed_in_every_format(image):
    path, whole = image
    wanted = decoded(path)
    assert wanted is not None
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        found = decoded(path)
        assert found is None or torch.equal(found, wanted), size
        assert path.read_bytes() == whole[:size]


def test_flipped_bytes_of_an_image_are_noticed_in_png_and_only_there_always(image):
    """PNG holds checksums. In the other formats a flip may give another picture: then
    its shape is right and nothing else is harmed."""
    path, whole = image
    rng = faults.new_rng()
    wanted = decoded(path)
    png = path.suffix == ".png"
    chosen = range(len(whole)) if png else faults.places(rng, len(whole), 80)
    for place in chosen:
        path.write_bytes(faults.flipped(whole, place, rng))
        found = decoded(path)
        if png:
            assert found is None or torch.equal(found, wanted), place
        assert found is None or found.shape == (1, 3, 8, 8)


@pytest.mark.parametrize("kind", set(not_what_it_should_be()) - {"a picture"})
def test_what_is_no_image_is_named(tmp_path, kind):
    own = faults.pictures(tmp_path / "own", 4)
    (own / "bad.png").write_bytes(not_what_it_should_be()[kind])
    before = faults.snapshot(own)
    with pytest.raises(
        RuntimeError, match="1 of 4 images cannot be read(.|\n)*bad.png"
    ):
        data.load(own, 8, train_size=4, test_size=1, seed=seed_with(own, "bad.png"))
    assert faults.snapshot(own) == before


def seed_with(own, name):
    """A seed that puts the image into the training set of four out of five."""
    place = sorted(os.listdir(own)).index(name)
    for seed in range(50):
        order = torch.randperm(5, generator=rng_for(seed, 0))
        if order[0] != place:
            return seed


# ------------------------------------------------------------------------------ caches
@pytest.fixture
def cached(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "FLOAT_LIMIT", 1000)
    own = faults.pictures(tmp_path / "own", 12)

    def ask():
        return data.load(own, 8, root=tmp_path).train[:]

    wanted = ask()
    (path,) = [p for p in (tmp_path / "cache").iterdir() if p.stat().st_size > 2000]
    return ask, wanted, path


def test_every_damage_of_a_cache_is_noticed_and_mended(cached):
    ask, wanted, path = cached
    rng = faults.new_rng()
    whole = path.read_bytes()
    damaged = [
        faults.flipped(whole, p, rng) for p in faults.places(rng, len(whole), 60)
    ]
    damaged += [whole[:size] for size in faults.places(rng, len(whole), 20)]
    damaged += [whole + b"\0", *not_what_it_should_be().values()]
    for content in damaged:
        path.unlink()
        path.write_bytes(content)
        assert torch.equal(ask(), wanted)
        assert path.read_bytes() == whole


def test_a_cache_of_another_shape_is_not_taken_whatever_its_checksum(cached):
    ask, wanted, path = cached
    whole = path.read_bytes()
    for array in (np.zeros((1, 8, 8, 3), np.uint8), np.zeros((11, 8, 8, 3), np.int8)):
        path.unlink()
        out = io.BytesIO()
        np.save(out, array)
        key = path.stem.split("-")[0]
        other = path.with_name(f"{key}-{zlib.crc32(out.getvalue()):08x}.npy")
        other.write_bytes(out.getvalue())
        assert torch.equal(ask(), wanted) and path.read_bytes() == whole
        other.unlink()


def test_a_folder_in_the_place_of_a_cache_is_left_alone(cached):
    ask, wanted, path = cached
    path.unlink()
    path.mkdir()
    (path / "mine.txt").write_text("keep")
    with pytest.warns(UserWarning, match="no cache in"):
        assert torch.equal(ask(), wanted)
    assert (path / "mine.txt").read_text() == "keep"
    shutil.rmtree(path)
    assert torch.equal(ask(), wanted) and path.is_file()


# --------------------------------------------------------------------------- downloads
def test_every_damage_of_a_download_is_noticed_and_nothing_is_kept(
    tmp_path, monkeypatch
):
    rng = faults.new_rng()
    whole = faults.zipped(faults.mnist_files())
    served = dict(whole)
    mnist = download.torchvision().datasets.MNIST
    with faults.Server(served) as server:
        monkeypatch.setattr(mnist, "mirrors", [server.url])
        monkeypatch.setattr(mnist, "resources", server.resources)
        for name, content in whole.items():
            place = rng.randrange(len(content))
            for bad in (
                faults.flipped(content, place, rng),
                content[: rng.randrange(len(content))],
                b"",
                content + b"more",
                b"<html>please log in</html>",
            ):
                served[name] = bad
                with pytest.raises(RuntimeError, match="could not be downloaded"):
                    data.load("mnist", root=tmp_path)
                assert faults.snapshot(tmp_path) == {}
                assert not list(tmp_path.rglob(".partial-*"))
            served[name] = content
        assert len(data.load("mnist", root=tmp_path).train) == 12


def test_names_inside_a_download_lead_nowhere(tmp_path, monkeypatch):
    """A .gz may carry a file name: '../../canary' must not appear."""
    served = {}
    for name, content in faults.mnist_files().items():
        plain = gzip.compress(content)  # a header of ten bytes, without a name
        named = b"\x1f\x8b\x08\x08" + plain[4:10] + b"../../canary\0" + plain[10:]
        assert gzip.decompress(named) == content
        served[f"{name}.gz"] = named
    mnist = download.torchvision().datasets.MNIST
    with faults.Server(served) as server:
        monkeypatch.setattr(mnist, "mirrors", [server.url])
        monkeypatch.setattr(mnist, "resources", server.resources)
        found = data.load("mnist", root=tmp_path / "a" / "b" / "c")
    assert len(found.train) == 12
    assert sorted(faults.snapshot(tmp_path)) == sorted(
        f"a/b/c/MNIST/raw/{name}" for name in served
    )


# ---------------------------------------------------------------------------- archives
def jpeg(color):
    out = io.BytesIO()
    Image.new("RGB", (178, 218), color).save(out, "JPEG")
    return out.getvalue()


OUTSIDE = [
    "../canary.jpg",
    "../../canary.jpg",
    "{folder}/canary.jpg",
    "a/../../canary.jpg",
]


@pytest.mark.parametrize("unpacked", [False, True])
@pytest.mark.parametrize("outside", OUTSIDE)
def test_a_list_of_images_cannot_lead_out_of_its_folder(tmp_path, outside, unpacked):
    """An image that lies elsewhere is not read, whatever the list calls it."""
    names = [outside.format(folder=tmp_path), "2.jpg"]
    members = {"img_align_celeba/2.jpg": jpeg("white")}
    folder = faults.celeba(tmp_path / "root", names, members)
    for place in (folder, folder.parent, tmp_path):
        (place / "canary.jpg").write_bytes(jpeg("red"))
    if unpacked:
        faults.put(folder / "img_align_celeba", {"2.jpg": jpeg("white")})
        (folder / "img_align_celeba" / "a").mkdir()
    before = faults.snapshot(tmp_path)
    with pytest.raises(RuntimeError, match="1 of 1 images cannot.*(.|\n)*canary.jpg"):
        data.load("celeba", 16, root=tmp_path / "root")
    assert faults.snapshot(tmp_path) == before


@pytest.mark.parametrize("outside", OUTSIDE)
def test_members_of_an_archive_are_not_written_outside(tmp_path, outside):
    member = outside.format(folder=tmp_path)
    white = {f"img_align_celeba/{i}.jpg": jpeg("white") for i in (1, 2)}
    folder = faults.celeba(
        tmp_path / "root", ["1.jpg", "2.jpg"], white | {member: jpeg("red")}
    )
    before = faults.snapshot(tmp_path)
    found = data.load("celeba", 16, root=tmp_path / "root")
    assert found.train[:].min() > 0.98 and found.test[:].min() > 0.98
    assert faults.snapshot(tmp_path) == before and folder.is_dir()


def test_a_link_in_an_archive_is_not_followed(tmp_path):
    (tmp_path / "secret.jpg").write_bytes(jpeg("red"))
    folder = faults.celeba(
        tmp_path / "root", ["1.jpg", "2.jpg"], {"img_align_celeba/2.jpg": jpeg("white")}
    )
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "a") as archive:
        link = zipfile.ZipInfo("img_align_celeba/1.jpg")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, str(tmp_path / "secret.jpg"))
    with pytest.raises(RuntimeError, match="1 of 1 images cannot be read(.|\n)*1.jpg"):
        data.load("celeba", 16, root=tmp_path / "root")


def test_damage_of_a_packed_celeba_gives_an_error_or_the_same_pixels(tmp_path):
    """Each member of a zip file has a checksum. (A flip in what nobody reads, a date
    or a comment, changes nothing.)"""
    rng = faults.new_rng()
    members = {f"img_align_celeba/{i}.jpg": jpeg("white") for i in (1, 2)}
    folder = faults.celeba(tmp_path, ["1.jpg", "2.jpg"], members)
    path = folder / "img_align_celeba.zip"
    whole = path.read_bytes()
    wanted = data.load("celeba", 16, root=tmp_path)
    damaged = [
        faults.flipped(whole, p, rng) for p in faults.places(rng, len(whole), 60)
    ]
    damaged += [whole[:size] for size in faults.places(rng, len(whole), 15)]
    noticed = 0
    for content in damaged + list(not_what_it_should_be().values()):
        path.write_bytes(content)
        try:
            found = data.load("celeba", 16, root=tmp_path)
            assert torch.equal(found.train[:], wanted.train[:])
            assert torch.equal(found.test[:], wanted.test[:])
        except RuntimeError as error:
            assert "celeba" in str(error)
            noticed += 1
    assert noticed > 50


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("partition", b" 2", b" " + b"9" * 30, "verflow"),
        ("partition", b"3.jpg 0", b"3.jpg 5", r"other numbers than \(0, 1, 2\)"),
        ("partition", b"3.jpg", b"1.jpg", "listed more than once"),
        ("partition", b" ", b"", "no rows in it"),
        ("attr", b"3.jpg 1", b"3.jpg 7", r"other numbers than \(-1, 1\)"),
        ("attr", b"Attribute_3 ", b"", "39 names of attributes for 40 columns"),
    ],
)
def test_damaged_lists_of_celeba_are_named(tmp_path, name, old, new, words):
    names = [f"{i}.jpg" for i in range(1, 5)]
    members = {f"img_align_celeba/{name}": jpeg("white") for name in names}
    folder = faults.celeba(tmp_path, names, members)
    (path,) = folder.glob(f"*{name}*.txt")
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(RuntimeError, match=f"{path} is damaged .*{words}"):
        data.load("celeba", 16, root=tmp_path)


def test_names_and_roots_that_no_folder_can_have_are_named(monkeypatch):
    with pytest.raises(ValueError, match="unknown data set 'xxx"):
        data.load("x" * 300)
    with pytest.raises(FileNotFoundError, match="into x{300}/MNIST/raw"):
        data.load("mnist", root="x" * 300, download=False)
    monkeypatch.setenv("GENCOURSE_DATA", "~nobody-of-this-name/data")
    with pytest.raises(ValueError, match="~nobody-of-this-name.*unknown user"):
        data.load("mnist", download=False)
