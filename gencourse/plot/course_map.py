"""`plot.map_of_the_course`; may be skipped at first reading."""

from __future__ import annotations

import numpy as np

from gencourse.plot.blocks import MATH
from gencourse.plot.images import checked_images, squares
from gencourse.plot.picture import BLUE, ORANGE, Picture, canvas

INK, DOTS = "#222222", {"color": "#222222", "lw": 1.6, "ls": (0, (2, 2)), "zorder": 5}
ALT = (
    "Map of the course, highlighted: {highlight}. Left: image space, {pixels:,} "
    "numbers, almost all of it noise; faces lie on a thin curved sheet in it. Right: "
    "latent space, {latents:,} numbers, a round flat cloud. The arrow 'compress' "
    "(encoder) leads from left to right, the arrow 'generate' (decoder) from right to "
    "left. A dashed path with numbered stops runs straight through latent space and "
    "bends with the sheet in image space."
)


def map_of_the_course(
    highlight: str = "both", *, images, numbers: tuple[int, int] = (49_152, 8)
) -> Picture:
    """The course's two arrows: compress (image to latent), generate (latent to image).

    Args:
        highlight: "compress", "generate" or "both"; the other arrow is pale.
        images: up to 5 faces (N, C, H, W), best at size 48, from equal steps on a
            straight line through latent space: the stops of the path.
        numbers: how many there are in an image and in a latent vector.
    """
    colors = {"compress": BLUE, "generate": ORANGE}
    if highlight not in ("both", *colors):
        raise ValueError(f"{highlight=}: expected 'both', 'compress' or 'generate'")
    images = checked_images(images)[:5]
    tiles = squares(images, 48 / images.shape[3])
    walk = np.linspace(0.06, 0.94, len(tiles))
    pixels, latents = numbers
    alt = ALT.format(pixels=pixels, latents=latents, highlight=highlight)
    with canvas(alt, width=960, height=420) as page:
        page.figure.set_layout_engine("none")
        axes = page.axes[0]
        axes.set_position((0, 0, 1, 1))
        axes.axis("off")
        _image_space(axes, walk, tiles)
        _latent_space(axes, walk)
        for at, name, count in ((222, "image", pixels), (808, "latent", latents)):
            axes.text(at, 384, f"{name} space", ha="center", size=19, weight="bold")
            axes.text(at, 361, f"{count:,} numbers", ha="center", color="#555555")
        for name, color in colors.items():
            _arrow(axes, name, color, dim=highlight not in ("both", name))
        axes.set(xlim=(0, 960), ylim=(0, 420))
    return page.picture


def _arrow(axes, name: str, color: str, dim: bool) -> None:
    """Draw an arrow between the spaces with its name and symbols; pale if dim."""
    start, end, y, at, symbols = {
        "compress": (448, 656, 318, 234, r"encoder  $q_\phi(z\,|\,x)$"),
        "generate": (656, 448, 64, 134, r"decoder  $p_\theta(x\,|\,z)$,  $G(z)$"),
    }[name]
    color, ink = ("#C9C9C9", "#ABABAB") if dim else (color, INK)
    shape = {
        "arrowstyle": "simple,head_length=1.1,head_width=1.5,tail_width=0.5",
        "connectionstyle": "arc3,rad=-0.25",
        "mutation_scale": 15 if dim else 27,
    }
    shape |= {"color": color, "lw": 0, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (end, at), (start, at), arrowprops=shape)
    word = {"ha": "center", "size": 16 if dim else 20, "weight": "bold"}
    axes.text(553, y, name, color=color, **word)
    axes.text(553, y - 27, symbols, ha="center", size=14, color=ink, **MATH)


def _sheet(u, v) -> tuple[np.ndarray, np.ndarray]:
    """The place on the curved sheet of the point (u, v) of the flat latent square."""
    return 34 + 312 * u + 56 * v, 112 + 146 * v + 42 * np.sin(5.6 * u + 0.5)


def _tint(u) -> np.ndarray:
    """The color of a place in latent space, the same on the sheet and in the cloud."""
    ends = np.array([[127, 191, 232], [228, 230, 220], [243, 181, 98]]) / 255
    u = np.clip(np.asarray(u), 0, 1)
    return np.stack([np.interp(u, (0, 0.5, 1), ends[:, i]) for i in range(3)], -1)


def _paste(axes, pixels: np.ndarray, x: float, y: float, wide: int, zorder: int):
    x, y = round(x - wide / 2), round(y - wide / 2)  # on whole pixels
    place = {"extent": (x, x + wide, y, y + wide), "aspect": "auto", "zorder": zorder}
    axes.imshow(pixels, interpolation="nearest", **place)


def _image_space(axes, walk: np.ndarray, tiles: np.ndarray) -> None:
    from matplotlib.patches import FancyBboxPatch

    box = {"boxstyle": "round,pad=0,rounding_size=14", "lw": 1.2}
    axes.add_patch(
        FancyBboxPatch((14, 22), 416, 328, fc="#F7F7F7", ec="#888888", **box)
    )
    rng = np.random.default_rng(2)
    for x, y in ((42, 318), (246, 320), (396, 322), (44, 52), (132, 50), (392, 60)):
        _paste(axes, rng.random((8, 8, 3)), x, y, 32, 2)
    u, v = np.meshgrid(np.linspace(0, 1, 121), np.linspace(0, 1, 9))
    x, y = _sheet(u, v)
    for i in range(120):  # strips, darker where the sheet turns away
        xs = [x[0, i], x[-1, i], x[-1, i + 1], x[0, i + 1]]
        ys = [y[0, i], y[-1, i], y[-1, i + 1], y[0, i + 1]]
        shade = 0.95 + 0.05 * np.cos(5.6 * u[0, i] + 0.2)
        axes.fill(xs, ys, color=shade * _tint(u[0, i]), lw=0.8, zorder=3)
    axes.plot(x[:, ::10], y[:, ::10], color="white", lw=0.9, zorder=4)
    axes.plot(x[::2].T, y[::2].T, color="white", lw=0.9, zorder=4)
    axes.plot(*_sheet(u[0], 0.5), **DOTS)
    for stop, (tile, at) in enumerate(zip(tiles, walk, strict=True), 1):
        x, y = _sheet(at, 0.5)
        _paste(axes, np.ones((1, 1, 3)), x, y, tile.shape[1] + 4, 6)
        _paste(axes, tile, x, y, tile.shape[1], 7)
        _number(axes, stop, x, y + 27, at)


def _latent_space(axes, walk: np.ndarray) -> None:
    center, radius = np.array([808.0, 186.0]), 104.0
    points = np.random.default_rng(4).standard_normal((1800, 2)) * 0.45
    points = points[(points**2).sum(1) < 1.3]
    dots = {"s": 24, "lw": 0, "alpha": 0.8, "zorder": 2}
    tints = _tint((points[:, 0] + 1) / 2)
    axes.scatter(*(center + radius * points).T, color=tints, **dots)
    line = {"arrowstyle": "-|>", "color": "#666666", "shrinkA": 0, "shrinkB": 0}
    for end in ((138, 0), (0, 150)):
        axes.annotate("", center + end, center - end, arrowprops=line)
    axes.text(944, 199, "$z_1$", ha="right", size=16, **MATH)
    axes.text(816, 324, "$z_2$", size=16, **MATH)
    x, y = center[0] + 2.1 * radius * (walk - 0.5), center[1] - 40 + 80 * walk
    axes.plot(x, y, **DOTS)
    for stop, (at, *place) in enumerate(zip(walk, x, y, strict=True), 1):
        _number(axes, stop, *place, at)


def _number(axes, stop: int, x: float, y: float, at: float) -> None:
    """Draw a stop of the path, the same on a face's tile and in the cloud."""
    axes.scatter(x, y, s=210, color=_tint(at), ec=INK, lw=1.6, zorder=8)
    axes.text(x, y - 1, stop, ha="center", va="center", size=11, zorder=9)
