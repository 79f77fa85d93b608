"""Small data sets on disk, for test_data and test_sources."""

import gzip
import struct

import numpy as np
from PIL import Image

PARTS = ("train", "t10k")


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
