"""`plot.vae_diagram`; may be skipped at first reading."""

from __future__ import annotations

from gencourse.plot.blocks import MATH, arrow, box
from gencourse.plot.images import checked_images, squares
from gencourse.plot.picture import BLACK, BLUE, ORANGE, Picture, canvas

FROM_KL, FROM_RECON = "#007A59", "#A8327F"
ALT = (
    "Above, z is drawn directly, and the gradient of the reconstruction stops there. "
    "Below, z is mu + sigma eps, and the gradient passes to the encoder. The VAE, "
    "drawn twice: image x, encoder, mu and logvar, z (eps enters from below), decoder, "
    "x hat. One term of the loss sits at mu and logvar, the other at x hat."
)
BOXES = {  # from left to right: name -> center, width, height
    "x": (60, 64, 64),
    "encoder": (200, 104, 60),
    "code": (358, 104, 60),
    "z": (540, 132, 60),
    "decoder": (718, 104, 60),
    "x_hat": (866, 64, 64),
}


def vae_diagram(x, x_hat) -> Picture:
    """The VAE and the paths of its gradients, without and with reparameterization.

    Args:
        x, x_hat: (1, C, H, W) in [0, 1], an image and its reconstruction.
    """
    tiles = {"x": x, "x_hat": x_hat}
    tiles = {
        name: squares(checked_images(tile), 64 / tile.shape[3])[0]
        for name, tile in tiles.items()
    }
    with canvas(ALT, width=960, height=480) as page:
        page.figure.set_layout_engine("none")
        axes = page.axes[0]
        axes.set_position((0, 0, 1, 1))
        axes.axis("off")
        _row(axes, 340, tiles, "z drawn directly: the gradient stops", r"$z \sim q$")
        title = "reparameterized: the gradient passes"
        _row(axes, 120, tiles, title, r"$z = \mu + \sigma\varepsilon$")
        arrow(axes, (540, 62), (540, 88), BLACK, 2.5)
        _text(axes, 540, 46, r"$\varepsilon \sim \mathcal{N}(0, I)$", BLACK)
        axes.set(xlim=(0, 960), ylim=(0, 480))
    return page.picture


def _row(axes, y: float, tiles: dict, title: str, formula: str) -> None:
    """Draw the boxes around height y, arrows forward and gradients backward."""
    passes = "=" in formula
    axes.text(28, y + 88, title, size=15, weight="bold", color=BLACK)
    _box(axes, "encoder", y, "encoder\n$q_\\phi(z\\,|\\,x)$", BLUE)
    _box(axes, "code", y, "$\\mu$, logvar")
    _box(axes, "z", y, formula, line="-" if passes else "--")
    _box(axes, "decoder", y, "decoder\n$p_\\theta(x\\,|\\,z)$", ORANGE)
    for name, label in (("x", "$x$"), ("x_hat", r"$\hat{x}$")):
        center, wide, high = BOXES[name]
        sides = (center - wide / 2, center + wide / 2, y - high / 2, y + high / 2)
        axes.imshow(tiles[name], extent=sides, aspect="auto", interpolation="nearest")
        _text(axes, center, y - 48, label, BLACK)
    _text(axes, 358, y + 46, "KL to the prior", FROM_KL)
    _text(axes, 866, y + 46, "squared error", FROM_RECON)
    names = list(BOXES)
    for left, right in zip(names, names[1:], strict=False):
        start, end = _side(left, 1), _side(right, -1)
        arrow(axes, (start, y + 14), (end, y + 14), BLACK, 2.5)
        if left == "code" and not passes:
            _text(axes, (start + end) / 2, y - 6, "✕", FROM_RECON)
        elif passes and left != "x" or left in ("z", "decoder"):
            arrow(axes, (end, y - 4), (start, y - 4), FROM_RECON, 2.5)
        if left == "encoder":
            arrow(axes, (end, y - 20), (start, y - 20), FROM_KL, 2.5)


def _side(name: str, direction: int) -> float:
    center, wide, _ = BOXES[name]
    return center + direction * (wide / 2 + 4)


def _text(axes, x: float, y: float, text: str, color: str) -> None:
    place = {"ha": "center", "va": "center", "size": 14, "zorder": 3}
    axes.text(x, y, text, color=color, **place, **MATH)


def _box(axes, name: str, y: float, text: str, fill: str = "", line: str = "-") -> None:
    center, *size = BOXES[name]
    box(axes, (center, y), size, fill, line=line)
    _text(axes, center, y, text, "white" if fill else BLACK)
