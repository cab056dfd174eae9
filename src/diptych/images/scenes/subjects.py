"""The ten subjects and who paints each."""

from __future__ import annotations

from collections.abc import Callable

from diptych.images.scenes import settled, wild
from diptych.images.scenes.painting import Painting

SUBJECTS: dict[str, Callable[[Painting], None]] = {
    "city": settled.paint_city,
    "mountains": wild.paint_mountains,
    "sea": wild.paint_sea,
    "desert": wild.paint_desert,
    "forest": wild.paint_forest,
    "temple": settled.paint_temple,
    "field": wild.paint_field,
    "island": wild.paint_island,
    "village": settled.paint_village,
    "space": wild.paint_space,
}
