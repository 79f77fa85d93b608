"""sources: files, folders and downloads; what is damaged or left out is named."""

import gzip
import hashlib
import os
import struct
import sys
import threading
import types
import warnings
import zlib
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from samples import colored_folder, draw, idx_bytes, idx_files, snapshot, write_idx

from gencourse import data
from gencourse.sources import idx, pictures

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", refuse)


@pytest.fixture
def small_limit(monkeypatch):
    monkeypatch.setattr(data, "FLOAT_LIMIT", 1000)


# -------------------------------------------------------------------- idx files


IMAGES = "train-images-idx3-ubyte"
LABELS = "train-labels-idx1-ubyte"


def flip(content, position, to):
    return content[:position] + bytes([to]) + content[position + 1 :]


@pytest.mark.parametrize(
    "name, damage, words",
    [
        (IMAGES, lambda c: b"", "not an idx file"),
        (IMAGES, lambda c: c[:9], "not an idx file"),
        (IMAGES, lambda c: c[:16], "not an idx file"),
        (IMAGES, lambda c: c[:-1], "23,535 bytes"),
        (IMAGES, lambda c: c + b"x", "23,537 bytes"),
        (IMAGES, lambda c: flip(c, 2, 9), "not an idx file"),
        (IMAGES, lambda c: flip(c, 4, 255), "not an idx file"),
        (IMAGES, lambda c: flip(c, 11, 14), "not an idx file of .28, 28. images"),
        (IMAGES, lambda c: b"<!DOCTYPE html><html>404</html>", "not an idx file"),
        (IMAGES, lambda c: idx_bytes(np.zeros((0, 28, 28))), "not an idx file"),
        (LABELS, lambda c: c[:-1], "labels"),
        (LABELS, lambda c: flip(c, 20, 200), "label 200"),
        (LABELS, lambda c: idx_bytes(np.zeros(29)), "29 labels for 30 images"),
    ],
)
def test_damaged_idx_file_is_named_and_kept(tmp_path, name, damage, words):
    files = idx_files()
    files[name] = damage(files[name])
    write_idx(tmp_path, files)
    before = snapshot(tmp_path)
    with pytest.raises(RuntimeError, match=f"{name}.*({words}).*Nothing was deleted"):
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
    with pytest.raises(FileNotFoundError) as error:
        data.load("mnist", root=tmp_path, download=False)
    assert f"put {LABELS}.gz into {raw}" in str(error.value)
    with pytest.raises(RuntimeError) as error:
        data.load("mnist", root=tmp_path)
    for words in ("Name or service not known", f"{LABELS}.gz", "'digits', 'faces' and"):
        assert words in str(error.value)
    assert snapshot(tmp_path) == before and os.listdir(tmp_path) == ["MNIST"]


# ----------------------------------------------------------------------- downloads


@pytest.fixture
def mirror(monkeypatch):
    """A web server in this process with a small MNIST; `cut` halves one file."""
    served = {f"/{name}.gz": gzip.compress(c) for name, c in idx_files().items()}
    state = types.SimpleNamespace(files=served, cut=None)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path not in state.files:
                self.send_error(404)
                return
            content = state.files[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            cut = state.cut and self.path.endswith(state.cut)
            self.wfile.write(content[: len(content) // 2] if cut else content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    md5 = [hashlib.md5(served[f"/{name}.gz"]).hexdigest() for name in idx.FILES]
    url = f"http://127.0.0.1:{server.server_port}/"
    mnist = idx.IDX_SETS["mnist"]._replace(url=url, md5=" ".join(md5))
    monkeypatch.setitem(idx.IDX_SETS, "mnist", mnist)
    yield state
    server.shutdown()
    server.server_close()


def test_download_and_then_never_again(tmp_path, mirror):
    root = tmp_path / "new" / "root"
    loaded = data.load("mnist", root=root)
    assert (len(loaded.train), len(loaded.test)) == (30, 10)
    again = data.load("mnist", root=root, download=False)
    assert torch.equal(loaded.train.pixels, again.train.pixels)
    raw = root / "MNIST" / "raw"
    assert sorted(os.listdir(raw)) == sorted(path[1:] for path in mirror.files)
    assert os.listdir(root) == ["MNIST"]


@pytest.mark.parametrize("damage", ["short", "changed", "missing"])
def test_broken_download_leaves_nothing(tmp_path, mirror, damage):
    name = f"{IMAGES}.gz"  # the first
    if damage == "changed":
        mirror.files[f"/{name}"] = gzip.compress(b"a login page")
    elif damage == "missing":
        del mirror.files[f"/{name}"]
    else:
        mirror.cut = name
    with pytest.raises(RuntimeError, match="mnist could not be downloaded"):
        data.load("mnist", root=tmp_path)
    assert os.listdir(tmp_path / "MNIST" / "raw") == []


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
    with pytest.raises(RuntimeError, match="set GENCOURSE_DATA to another folder"):
        data.load("mnist", root=tmp_path)
    assert (tmp_path / "MNIST").read_text() == "a file in the way"


def test_checksums_are_those_of_the_table():
    rows = (REPOSITORY / "data" / "README.md").read_text(encoding="utf-8").splitlines()
    for i, name in enumerate(idx.FILES):
        (row,) = (row for row in rows if row.startswith(f"| `{name}.gz`"))
        in_code = [chosen.md5.split()[i] for chosen in idx.IDX_SETS.values()]
        assert row.replace("`", "").split(" | ")[1:] == [
            *in_code[:2],
            f"{in_code[2]} |",
        ]


# ------------------------------------------------------------- folders of images


def load_with_warnings(*args, **kwargs):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = data.load(*args, **kwargs)
    return loaded, [str(warning.message) for warning in caught]


def test_folder_flat(tmp_path):
    own = colored_folder(tmp_path / "own", 20)
    (own / ".DS_Store").write_bytes(b"x")
    (own / "._000.png").write_bytes(b"AppleDouble")
    (own / "notes.txt").write_text("not an image")
    (own / "folder.png").mkdir()
    before = snapshot(tmp_path)
    loaded = data.load(own, 16, root=tmp_path / "root")
    assert (len(loaded.train), len(loaded.test), loaded.channels) == (18, 2, 3)
    assert loaded.train.labels is None and loaded.target_names is None
    ids = [
        (part.pixels[:, 0, 0, 0] * 25.5).round().int().tolist()
        for part in (loaded.train, loaded.test)
    ]
    assert ids[0] == sorted(ids[0]) and sorted(ids[0] + ids[1]) == list(range(20))
    assert snapshot(tmp_path) == before and not (tmp_path / "root").exists()
    part = data.load(str(own), 16, train_size=5, test_size=9)
    assert (len(part.train), len(part.test)) == (5, 9)
    with pytest.raises(ValueError, match="too few.*15.*9.*24.*20"):
        data.load(own, 16, train_size=15, test_size=9)


def test_folder_with_classes_and_a_split_of_its_own(tmp_path):
    colors = {"cat": (250, 0, 0), "dog": (0, 250, 0), "owl": (0, 0, 250)}
    for part, n in (("train", 4), ("Test", 2)):
        for name, color in colors.items():
            for i in range(n):
                draw(tmp_path / "split" / part / name / "deep" / f"{i}.jpg", color)
    loaded = data.load(tmp_path / "split", 8)
    assert (len(loaded.train), len(loaded.test)) == (12, 6)
    assert loaded.target_names == ("cat", "dog", "owl")
    for part in (loaded.train, loaded.test):
        assert torch.equal(part.pixels.mean((2, 3)).argmax(1), part.labels)
    nested = data.load(tmp_path / "split" / "train", 8)
    assert nested.target_names == ("cat", "dog", "owl") and len(nested.test) == 1
    # One folder around everything names no class, and hides no split.
    (tmp_path / "outer").mkdir()
    (tmp_path / "split").rename(tmp_path / "outer" / "split")
    for name in ("outer/.DS_Store", "outer/readme.txt"):
        (tmp_path / name).touch()
    outer = data.load(tmp_path / "outer", 8)
    assert torch.equal(outer.test.pixels, loaded.test.pixels)
    assert outer.target_names == ("cat", "dog", "owl")


def test_the_smallest_folders(tmp_path):
    own = colored_folder(tmp_path / "own", 8)
    loaded = data.load(own, 16)
    assert (len(loaded.train), len(loaded.test)) == (7, 1)
    for path in sorted(own.iterdir())[1:]:
        path.unlink()
    with pytest.raises(ValueError, match="own has too few.*split.*has 1"):
        data.load(own)
    (own / "000.png").unlink()
    (own / "a.csv").write_text("1")
    with pytest.raises(FileNotFoundError, match=rf"no images in {own}.*\.png"):
        data.load(own)


def test_a_home_in_paths(tmp_path, monkeypatch, small_limit):
    monkeypatch.setenv("HOME", str(tmp_path))
    colored_folder(tmp_path / "own", 8)
    for name in ("~/own", Path("~/own")):
        assert len(data.load(name, 16, root="~/root").train) == 7
    assert len(cache_files(tmp_path / "root")) == 1


def test_pictures_that_are_left_out_are_counted(tmp_path):
    """A telephone's .HEIC beside .JPG; .txt is no picture, ._x.heic is hidden."""
    own = colored_folder(tmp_path / "own", 8)
    for name in ("a.HEIC", "b.heic", "c.svg", "sub/d.NEF", "._a.heic", "e.txt", "f"):
        (own / name).parent.mkdir(exist_ok=True)
        (own / name).write_bytes(b"\0\0\0\x18ftypheic")
    loaded, messages = load_with_warnings(own, 16)
    assert len(loaded.train) == 7 and len(messages) == 1
    assert "2 .heic, 1 .nef, 1 .svg;" in messages[0] and str(own) in messages[0]
    assert "convert" in messages[0]
    for path in own.glob("*.png"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="no images in.*2 .heic.*convert"):
        data.load(own)


def test_two_folders_that_could_be_the_training_set(tmp_path):
    for part in ("train", "Train", "test"):
        colored_folder(tmp_path / part, 3)
    if len(os.listdir(tmp_path)) == 2:
        pytest.skip("this disk takes Train and train for the same")
    with pytest.raises(ValueError, match="Train and train.*rename"):
        data.load(tmp_path, 16)
    (tmp_path / "test").rename(tmp_path / "other")
    with pytest.raises(ValueError, match="Train and train.*rename"):
        data.load(tmp_path, 16)


def test_classes_that_train_or_test_lacks_are_named(tmp_path):
    def fill(*folders):
        for folder in folders:
            colored_folder(tmp_path / folder, 3)
        return load_with_warnings(tmp_path, 16)

    loaded, messages = fill("train/cat", "train/dog", "test/cat", "test/dog")
    assert messages == [] and loaded.test.labels.tolist() == [0, 0, 0, 1, 1, 1]
    loaded, messages = fill("train/owl", "test/elk", "test/fox")
    assert loaded.target_names == ("cat", "dog", "elk", "fox", "owl")
    assert loaded.test.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert [message.split("/")[-1] for message in messages] == [
        "train has no images of these classes: elk, fox",
        "test has no images of these classes: owl",
    ]
    loaded, messages = fill("test")  # some images outside of the classes
    assert loaded.train.labels is loaded.target_names is None
    assert len(messages) == 1 and "no labels" in messages[0] and "test" in messages[0]


@pytest.mark.skipif(sys.platform != "linux", reason="names are UTF-8 there")
def test_names_that_are_not_utf8_can_be_printed(tmp_path):
    for i, name in enumerate((b"\xe4pfel", b"birne", b"\xfcberall")):
        folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xf6bst/" + name))
        folder.mkdir(parents=True)
        for j in range(3):
            Image.new("L", (9, 9), 100 * i).save(os.fsencode(folder / f"{j}.png"))
    loaded = data.load(folder.parent, 16)
    assert loaded.target_names == ("birne", "\ufffdpfel", "\ufffdberall")
    color = torch.tensor([100, 0, 200])[loaded.train.labels] / 255
    torch.testing.assert_close(loaded.train.pixels.mean((1, 2, 3)), color)
    repr(loaded).encode()
    (folder / "0.png").write_bytes(b"")
    with pytest.raises(RuntimeError, match="\ufffdberall") as error:
        data.load(folder.parent, 16)
    str(error.value).encode()


def test_links_are_followed_and_loops_end(tmp_path):
    colored_folder(tmp_path / "elsewhere", 6)
    own = tmp_path / "own"
    own.mkdir()
    (own / "linked").symlink_to(tmp_path / "elsewhere")
    (own / "loop").symlink_to(own)
    assert len(data.load(own, 8).train) == 5


# ----------------------------------------------------------------------- pictures


def gradient(height=64, width=64):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, 0 * x], -1).astype(np.uint8)


def one(path, size=8, channels=3):
    return torch.tensor(pictures.decode(path, size, channels)).permute(2, 0, 1)


ENDINGS = """.apng .avif .bmp .gif .jfif .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif
    .tiff .webp"""


@pytest.mark.parametrize("ending", ENDINGS.split())
def test_endings(tmp_path, ending):
    if ending == ".avif" and ending not in pictures.formats()[1]:
        pytest.skip("this Pillow reads no AVIF")
    own = colored_folder(tmp_path / "own", 2)
    image = Image.fromarray(gradient()[..., :2].repeat((2, 1), -1))
    image = image.convert({".pbm": "1", ".pgm": "L"}.get(ending, "RGB"))
    path = own / f"image{ending.upper()}"
    kinds = {".jfif": "JPEG", ".jpe": "JPEG", ".pnm": "PPM", ".apng": "PNG"}
    image.save(path, kinds.get(ending))
    loaded, messages = load_with_warnings(own, 16)
    assert len(loaded.train) == 2 and messages == []
    expected = F.interpolate(
        torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None] / 1.0,
        (8, 8),
        mode="bilinear",
        antialias=True,
    )[0]
    # GIF has 256 colors, and a 1-bit image is dithered.
    assert (one(path).float() - expected).abs().max() < 16
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


@pytest.mark.parametrize("channels", [1, 3])
def test_a_plain_image_of_any_shape_keeps_its_color(tmp_path, channels):
    rng, path = np.random.default_rng(0), tmp_path / "plain.png"
    for _ in range(20):
        width, height = rng.integers(1, 71, 2).tolist()
        color = tuple(rng.integers(0, 256, 3).tolist())
        draw(path, color, (width, height))
        gray = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
        wanted = np.array(color if channels == 3 else [gray])
        x = pictures.decode(path, 20, channels)
        assert x.shape == (20, 20, channels) and x.dtype == np.uint8
        assert (abs(x - wanted) <= (0 if channels == 3 else 1)).all()


def decoded(path):
    """The pixels, or None where the error names the file."""
    try:
        return pictures.read_images([path], 8, 3)
    except RuntimeError as error:
        assert str(path) in str(error) and "Nothing was deleted" in str(error)


@pytest.mark.parametrize("kind", ["png", "jpg", "gif", "bmp", "webp", "tiff", "ppm"])
def test_every_cut_of_an_image_is_noticed(tmp_path, kind):
    path = tmp_path / f"image.{kind}"
    Image.fromarray(gradient(12, 10)).save(path)
    whole, wanted = path.read_bytes(), decoded(path)
    assert wanted is not None
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        x = decoded(path)
        assert x is None or torch.equal(x, wanted), size


def test_every_flipped_byte_of_a_png_is_noticed(tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(gradient(12, 10)).save(path)
    whole, wanted = path.read_bytes(), decoded(path)
    for place in range(len(whole)):
        path.write_bytes(flip(whole, place, whole[place] ^ 4))
        x = decoded(path)
        assert x is None or torch.equal(x, wanted), place


@pytest.mark.parametrize("in_memory", [True, False])
def test_broken_images_anywhere_are_counted_at_once(tmp_path, monkeypatch, in_memory):
    monkeypatch.setattr(data, "FLOAT_LIMIT", 2**30 if in_memory else 1)
    own = colored_folder(tmp_path / "own", 200)  # in groups of 16, see read_pixels
    damages = [
        b"",
        b"text",
        (own / "000.png").read_bytes()[:-20],
        b"%!PS-Adobe-3.0 EPSF",
    ]
    for i in range(5, 200, 22):
        (own / f"{i:03}.png").write_bytes(damages[i % 4])
    (own / "broken.png").symlink_to(tmp_path / "nowhere.png")
    before = snapshot(own)
    with pytest.raises(RuntimeError, match="10 of 201 images cannot be read") as error:
        data.load(own, 256, root=tmp_path)
    message = str(error.value)
    assert message.count(str(own)) == 5 and "and 5 more" in message
    assert "Nothing was deleted" in message
    assert snapshot(own) == before and cache_files(tmp_path) == []
    assert not (tmp_path / "cache").exists() or os.listdir(tmp_path / "cache") == []


def png_of_zeros(width, height):
    """A PNG of any size in a few bytes; only its header is true."""

    def chunk(kind, content):
        crc = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + crc

    header = chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


@pytest.mark.parametrize("side", [9_500, 13_000, 20_000])
def test_pictures_of_too_many_pixels_are_refused_in_words(tmp_path, side):
    path = tmp_path / "large.png"
    path.write_bytes(png_of_zeros(side, side))
    with pytest.raises(RuntimeError, match="large.png: .* pixels.*make it smaller"):
        pictures.read_images([path], 8, 3)


def test_a_large_jpeg_is_reduced_while_it_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3_000)
    Image.fromarray(gradient()).save(tmp_path / "plain.jpg")  # 64 x 64
    Image.fromarray(gradient()).save(tmp_path / "late.jpg", progressive=True)
    assert decoded(tmp_path / "plain.jpg") is not None
    with pytest.raises(RuntimeError, match="64 x 64 pixels, over 3,000"):
        pictures.read_images([tmp_path / "late.jpg"], 8, 3)


def test_large_pictures_are_decoded_one_at_a_time(tmp_path, monkeypatch):
    paths = sorted(colored_folder(tmp_path / "own", 2).iterdir())
    together = threading.Barrier(2)

    def meet(*_):
        together.wait(0.5)  # for ever, where nobody else comes

    monkeypatch.setattr(pictures, "THREADS", 2)
    monkeypatch.setattr(pictures, "_square", meet)
    monkeypatch.setattr(pictures, "LARGE", 10)
    with pytest.raises(RuntimeError, match="2 of 2 images.*(.|\n)*BrokenBarrierError"):
        pictures.read_images(paths, 8, 3)


# -------------------------------------------------------------------------- cache


def cache_files(root):
    return sorted((root / "cache").glob("*.npy"))


def test_cache_is_used_until_the_files_change(tmp_path, monkeypatch, small_limit):
    own = colored_folder(tmp_path / "own")
    load = partial(data.load, own, 16, root=tmp_path / "root")
    first = load()
    assert len(cache_files(tmp_path / "root")) == 1
    with monkeypatch.context() as patch:
        patch.setattr(pictures, "decode", None)  # would fail, if it were called
        again = load()
    assert torch.equal(first.train.pixels, again.train.pixels)
    for path in own.iterdir():
        draw(path, (1, 2, 3))
    changed = load()
    assert (changed.train[:] * 255).round().unique().tolist() == [1, 2, 3]
    assert (first.train[:] * 255).unique().numel() > 3


@pytest.mark.parametrize("size", [0, 5, 200, -1])
def test_a_cache_that_is_cut_short_is_rebuilt(tmp_path, small_limit, size):
    load = partial(data.load, colored_folder(tmp_path / "own"), 16, root=tmp_path)
    expected = load().train.pixels.clone()
    (path,) = cache_files(tmp_path)
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(whole[:size])
    assert torch.equal(load().train.pixels, expected)
    assert path.read_bytes() == whole


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch, small_limit):
    own = colored_folder(tmp_path / "own")
    (tmp_path / "cache").write_text("in the way")
    with pytest.warns(UserWarning, match="kept in memory.*GENCOURSE_DATA"):
        loaded = data.load(own, 16, root=tmp_path)
    assert loaded.train.pixels.dtype == torch.uint8 and len(loaded.train) == 18
    assert (tmp_path / "cache").read_text() == "in the way"


def test_a_disk_that_is_full(tmp_path, small_limit):
    resource = pytest.importorskip("resource", reason="needs a Unix")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    own = colored_folder(tmp_path / "own")
    resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, before[1]))  # of each file
    try:
        with pytest.warns(UserWarning, match="no cache in .*GENCOURSE_DATA"):
            loaded = data.load(own, 16, root=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(tmp_path / "cache") == []
    assert torch.equal(loaded.train[:], data.load(own, 16, root=tmp_path).train[:])


# ------------------------------------------------------------------------- celeba


ATTRIBUTES = [f"Attribute_{i}" for i in range(40)]
PARTITION, FLAGS = "list_eval_partition.txt", "list_attr_celeba.txt"


@pytest.fixture
def celeba(tmp_path):
    """A small CelebA: image i is gray level 20 * i; parts 0, 1, 2 in turn."""
    folder, n = tmp_path / "celeba", 12
    names = [f"{i + 1:06}.jpg" for i in range(n)]
    for i, name in enumerate(names):
        draw(folder / "img_align_celeba" / name, (20 * i,) * 3, (178, 218))
    parts = "".join(f"{name} {i % 3}\n" for i, name in enumerate(names))
    (folder / PARTITION).write_text(parts)
    flags = (" ".join("1" if i >> j & 1 else "-1" for j in range(40)) for i in range(n))
    rows = [f"{name}  {row}" for name, row in zip(names, flags, strict=True)]
    text = "\n".join([f"{n} ", " ".join(ATTRIBUTES) + " ", *rows]) + "\n"
    (folder / FLAGS).write_text(text)
    return folder


def test_celeba(celeba):
    loaded = data.load("celeba", 64, root=celeba.parent)
    assert loaded.target_names == tuple(ATTRIBUTES) and loaded.channels == 3
    for part, first in ((loaded.train, 0), (loaded.test, 2)):
        ids = (part.pixels.mean((1, 2, 3)) * 255 / 20).round().int().tolist()
        assert ids == list(range(first, 12, 3))
        bits = (part.labels * 2 ** torch.arange(40)).sum(1)
        assert bits.tolist() == ids and part.labels.shape == (4, 40)


def test_missing_parts_of_celeba_are_named(celeba):
    (celeba / FLAGS).unlink()
    with pytest.raises(FileNotFoundError, match=f"{FLAGS} in {celeba}.*CelebA.html"):
        data.load("celeba", root=celeba.parent)
    (celeba / "img_align_celeba").rename(celeba / "images")
    with pytest.raises(FileNotFoundError, match=f"img_align_celeba, {FLAGS}"):
        data.load("celeba", root=celeba.parent)


@pytest.mark.parametrize(
    "name, damage, words",
    [
        (PARTITION, lambda b: b"", "no rows"),
        (PARTITION, lambda b: b[:26], "does not fit"),
        (PARTITION, lambda b: b + b"x y\n", "damaged"),
        (PARTITION, lambda b: b.replace(b" 2", b" 1"), "test has no images"),
        (FLAGS, lambda b: b[:-9], "damaged"),
        (FLAGS, lambda b: b"12\n", "damaged"),
        (FLAGS, lambda b: b"\xff\xfe", "damaged"),
    ],
)
def test_damaged_lists_of_celeba_are_named(celeba, name, damage, words):
    content = damage((celeba / name).read_bytes())
    (celeba / name).write_bytes(content)
    with pytest.raises(RuntimeError, match=f"celeba.*txt.*{words}"):
        data.load("celeba", 16, root=celeba.parent)
    assert (celeba / name).read_bytes() == content
