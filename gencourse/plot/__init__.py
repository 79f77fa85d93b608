"""Pictures for the lessons: every function takes tensors and returns one `Picture`.

A picture always has an alternative text that describes it: the text is shown where
pictures cannot be, screen readers read it aloud, and tests compare it. matplotlib's own
settings stay as they are, and color-blind readers can tell the colors apart.
"""

from gencourse.plot.charts import bars, curves, heat, histogram, scatter_map
from gencourse.plot.course_map import map_of_the_course
from gencourse.plot.folded import Folded
from gencourse.plot.images import grid, pairs
from gencourse.plot.picture import BLACK, BLUE, GRAY, GREEN, ORANGE, Picture, canvas
from gencourse.plot.sliders import explorer
from gencourse.plot.two_players import two_players
from gencourse.plot.vae_diagram import vae_diagram

__all__ = [
    "BLACK",
    "BLUE",
    "GRAY",
    "GREEN",
    "ORANGE",
    "Folded",
    "Picture",
    "bars",
    "canvas",
    "curves",
    "explorer",
    "grid",
    "heat",
    "histogram",
    "map_of_the_course",
    "pairs",
    "scatter_map",
    "two_players",
    "vae_diagram",
]
