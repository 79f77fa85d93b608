"""Draw the pictures of README and the pages again, in notebooks/figures.

python -m tools.measure.figures

faces.png turns each knob; comparison.png is the output of a cell of lesson 05;
steps.png follows a face from noise in twenty steps; and larger.png shows samples of
the two stored models of 64 x 64 pixels. Their quality is printed for docs/scaling.md.
"""

import base64

import torch

from gencourse import data, faces, metrics, plot, store
from gencourse.models import GAN, VAE, PixelFlow, z_hat_of
from tools import command
from tools.publish import notebooks

FIGURES = notebooks.FOLDER / "figures"
N_JUDGED, N_STEPS = 300, 20


def knobs_turned() -> plot.Picture:
    knobs = torch.zeros(8, 9, 8)  # knob, position, all knobs
    for k in range(8):
        knobs[k, :, k] = torch.linspace(-1, 1, 9)
    drawn = faces.render(knobs.flatten(0, 1), 80).view(8, 9, 3, 80, 80)
    names = list(faces.KNOB_NAMES)
    return plot.grid(drawn, row_labels=names, alt="Each knob turned from -1 to 1")


def stored_output(lesson: str, beginning: str) -> bytes:
    """Return the picture of a lesson whose text begins with these words."""
    (path,) = notebooks.lessons(lesson)
    for cell in notebooks.read(path).cells:
        for output in cell.get("outputs", []):
            shown = output.get("data", {})
            if shown.get("text/plain", "").startswith(beginning):
                return base64.b64decode(shown["image/png"])
    raise command.Failure(f"{path.name} shows no picture '{beginning} ...'")


@torch.no_grad()
def noise_to_face() -> plot.Picture:
    """Draw what a flow of images holds at each step, and its guess at that moment."""
    model = store.pretrained(PixelFlow, "flow_pixels")
    x = model.prior(1, torch.Generator().manual_seed(6))
    held, guesses = [], []
    for i in range(N_STEPS, 0, -1):  # Euler's method, as in PixelFlow.sample
        t = torch.full((1, 1), i / N_STEPS)
        v = model.velocity(x, t)
        held.append(x)
        guesses.append(z_hat_of(v, x, t.view(-1, 1, 1, 1)))
        x = x - v / N_STEPS
    half = N_STEPS // 2
    rows = [part for i in (0, half) for part in (held[i:], guesses[i:])]
    shown = torch.stack([torch.cat(row[:half]) for row in rows])
    return plot.grid(
        model.restore(shown).clamp(0, 1),
        row_labels=["steps 1 to 10", "guess", "steps 11 to 20", "guess"],
        alt="Twenty steps from noise to a face",
    )


def larger() -> plot.Picture:
    """Draw samples of the stored models of 64 x 64 pixels; print how good they are."""
    real = data.load("faces", 64, train_size=1, test_size=2 * N_JUDGED).test
    rows = {"real faces": real[N_JUDGED:]}
    for model_class in (VAE, GAN):
        name = model_class.__name__
        model = store.pretrained(model_class, f"{name.lower()}_64")
        rng = torch.Generator().manual_seed(0)
        rows[name] = model.sample(N_JUDGED, rng)
    for name, images in rows.items():
        judged = faces.project(images)
        near = judged.distance.median()
        pairs = metrics.detail(images, faces.render(judged.knobs, 64))
        detail, noise = (values.mean() for values in pairs)
        cover = metrics.coverage(real.knobs[:N_JUDGED], judged.knobs)
        print(f"| {name} | {near:.3f} | {detail:.2f} | {noise:.2f} | {cover:.2f} |")
    shown = torch.stack([images[:6] for images in rows.values()])
    return plot.grid(
        shown, row_labels=list(rows), alt="Real and drawn faces, 64 pixels"
    )


def main() -> None:
    knobs_turned().save(FIGURES / "faces.png")
    (FIGURES / "comparison.png").write_bytes(stored_output("05", "Real faces and samp"))
    noise_to_face().save(FIGURES / "steps.png")
    larger().save(FIGURES / "larger.png")


if __name__ == "__main__":
    command.run(main)
