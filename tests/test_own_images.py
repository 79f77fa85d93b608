"""Lessons 02 to 06 with the reader's own images, and with other sizes and counts.

A reader's folder may hold few images, gray or in color. The last section of a lesson,
which uses it, must run to its end and claim nothing of images that nobody measured.
"""

import ast
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gencourse import data, train
from tools.publish import notebooks

# What a reader might set. Below, each training is cut short and faces are few.
SETTINGS = {
    "02": {"SIZE": 16, "N_FACES": 200, "LATENT_DIM": 2, "N_JUDGED": 10},
    "03": {"N_FACES": 200, "STEPS": 20, "N_JUDGED": 10},
    "04": {"N_FACES": 200, "LATENT_DIM": 3, "RING_STEPS": 60, "N_JUDGED": 24},
    "05": {"N_JUDGED": 10, "DATASET_SIZE": 32},
    "06": {"N_JUDGED": 10, "RING_STEPS": 60, "FLOW_STEPS": 60},
}
N_STEPS = 20
N_FACES = 500  # where a lesson takes more, whatever its parameters say


def drawn(n: int, color: bool, rng: np.random.Generator) -> list[np.ndarray]:
    """Bytes (48, 64, 3) or (48, 64): a disk before a ramp, with noise."""
    y, x = np.mgrid[0:48, 0:64]
    images = []
    for _ in range(n):
        corner, right, down, disk = rng.uniform(0, 255, (4, 3))
        ramp = corner + right * x[..., None] / 64 + down * y[..., None] / 48
        inside = np.hypot(x - rng.uniform(10, 54), y - rng.uniform(10, 38)) < 12
        image = np.where(inside[..., None], disk, ramp / 3)
        image = image + rng.normal(0, 6, image.shape)
        image = image.clip(0, 255).astype(np.uint8)
        images.append(image if color else image[..., 0])
    return images


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[Path, int]:
    """Each folder with the number of its images that `data.load` keeps for testing."""
    rng = np.random.default_rng(0)
    contents = {
        "8 gray": (drawn(8, False, rng), 1),
        "40 in color": (drawn(40, True, rng), 4),
        "10 copies": ([np.full((20, 20), 200, np.uint8)] * 10, 1),
    }
    sizes = {}
    for name, (images, n_test) in contents.items():
        folder = tmp_path_factory.mktemp("images") / name
        folder.mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image).save(folder / f"{i:03d}.png")
        sizes[folder] = n_test
    return sizes


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch):
    """Short trainings on few faces; and the lessons' choice of threads ends here."""
    fit, load, threads = train.fit, data.load, torch.get_num_threads()

    def short_fit(step, batches, steps=N_STEPS, **others):
        return fit(step, batches, steps=min(steps, N_STEPS), **others)

    def small_load(name, train_size=None, **others):
        train_size = train_size and min(train_size, N_FACES)
        return load(name, train_size=train_size, **others)

    monkeypatch.setattr(train, "fit", short_fit)
    monkeypatch.setattr(data, "load", small_load)
    yield
    torch.set_num_threads(threads)


def run(source: str, name: str, namespace: dict) -> None:
    """A cell as Jupyter runs it: it shows the value of a line that is an expression."""
    lines = ast.Interactive(ast.parse(source).body)
    exec(compile(lines, name, "single"), namespace)


@pytest.mark.parametrize("number", SETTINGS)
def test_lesson_runs_to_its_end(number, folders, capsys):
    (path,) = notebooks.lessons(number)
    cells = [
        cell.source
        for cell in notebooks.read(path).cells
        if cell.cell_type == "code"
        and not {"exercise", "solution"} & set(cell.metadata.get("tags", []))
    ]
    parameters, *cells = cells
    section = next(i for i, source in enumerate(cells) if "DATASET" in source)
    namespace = {}
    run(parameters, f"{number}, parameters", namespace)
    assert SETTINGS[number].keys() <= namespace.keys()
    namespace |= SETTINGS[number]
    for i, source in enumerate(cells[:section]):
        try:
            run(source, f"{number}, cell {i}", namespace)
        except AssertionError:
            assert '"ok: ' in source  # a claim about faces: it needs the full training
    for folder, n_test in folders.items():
        capsys.readouterr()
        namespace["DATASET"] = str(folder)
        for i, source in enumerate(cells[section:], section):
            run(source, f"{number}, cell {i}, {folder.name}", namespace)
        shown = capsys.readouterr().out
        assert f"\n{n_test} test images" in shown
        assert re.findall(r".*\bdigits?\b.*", shown) == [
            "no claim: this one was measured on digits only"
        ]
