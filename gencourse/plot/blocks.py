"""Boxes and arrows of the block diagrams; may be skipped at first reading."""

from __future__ import annotations

from gencourse.plot.picture import GRAY

MATH = {"math_fontfamily": "stix"}


def box(axes, center, size, fill: str = "", edge: str = "", line: str = "-") -> None:
    """Draw a box with round corners; without a color for its edge, that of its fill."""
    from matplotlib.patches import FancyBboxPatch

    (x, y), (wide, high) = center, size
    style = {"boxstyle": "round,pad=0,rounding_size=10", "lw": 1.6, "ls": line}
    style |= {"fc": fill or "white", "ec": edge or fill or GRAY}
    axes.add_patch(FancyBboxPatch((x - wide / 2, y - high / 2), wide, high, **style))


def arrow(axes, start, end, color: str, width: float = 2, head: float = 16) -> None:
    shape = {"arrowstyle": "-|>", "mutation_scale": head, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", end, start, arrowprops={"color": color, "lw": width, **shape})
