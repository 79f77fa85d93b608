"""`plot.two_players`; may be skipped at first reading."""

from __future__ import annotations

from gencourse.plot.blocks import MATH, arrow, box
from gencourse.plot.picture import BLACK, BLUE, GRAY, ORANGE, Picture, canvas

ALT = (
    "In D's turn the gradient runs back from the loss into D only: between the fake "
    "and G it is cut. In G's turn it runs back through D, which stays as it is, into "
    "G. Block diagram of a GAN, once for each turn: noise z goes through G and becomes "
    "a fake, and D, which in its own turn also sees real images, gives a logit from "
    "which the loss is made."
)
WIDE = {"width": 4, "head": 22}


def two_players() -> Picture:
    """The two turns of a GAN: who is judged, who learns, and where the gradient ends.

    Taught in: lesson 04
    """
    with canvas(ALT, rows=2, width=960, height=440) as page:
        _turn(page.axes[0], "D's turn", BLUE, learns="D")
        _turn(page.axes[1], "G's turn", ORANGE, learns="G")
    return page.picture


def _turn(axes, title: str, color: str, learns: str) -> None:
    axes.set(xlim=(20, 980), ylim=(0, 175))
    axes.set_title(title, weight="bold")
    axes.axis("off")
    for name, x in (("G", 190), ("D", 560)):
        _network(axes, name, x, color if name == learns else "")
    labels = [("$z$", 50, 80), ("fake $G(z)$", 375, 80)]
    if learns == "D":
        labels += [("real $x$", 375, 150)]
        arrow(axes, (425, 145), (512, 102), GRAY)
    for text, x, y in labels:
        axes.text(x, y, text, ha="center", va="center", size=16, **MATH)
    for start, end in ((75, 138), (242, 312), (438, 508), (612, 785)):
        arrow(axes, (start, 84), (end, 84), GRAY)
    loss = r"$-\log\,D(G(z))$"
    if learns == "D":
        loss = "$-\\log\\,D(x)$\n$-\\log(1-D(G(z)))$"
    axes.text(800, 74, loss, va="center", size=15, **MATH)
    axes.text(698, 96, "logits", ha="center", color="#555555")
    arrow(axes, (785, 62), (612, 62), color, **WIDE)
    if learns == "D":
        axes.text(275, 36, "✂", ha="center", va="center", size=30, color=color)
        axes.text(275, 8, "detach: no gradient into G", ha="center", color=color)
    else:
        arrow(axes, (508, 62), (438, 62), color, **WIDE)
        arrow(axes, (312, 62), (242, 62), color, **WIDE)
    axes.text(698, 28, "gradient", ha="center", color=color)


def _network(axes, name: str, x: float, color: str) -> None:
    """A box around (x, 74), filled if the network learns in this turn."""
    box(axes, (x, 74), (96, 72), fill=color or "#F2F2F2", edge=color or GRAY)
    ink = "white" if color else BLACK
    axes.text(x, 80, name, ha="center", va="center", size=22, weight="bold", color=ink)
    note = "learns" if color else "stays"
    axes.text(x, 50, note, ha="center", va="center", size=11, color=ink)
