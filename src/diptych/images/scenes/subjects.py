"""The ten subjects, and the function that paints each."""

from __future__ import annotations

from collections.abc import Callable

from diptych.images.scenes import built, natural
from diptych.images.scenes.painting import Painting

SUBJECTS: dict[str, Callable[[Painting], None]] = {
    "city": built.paint_city,
    "mountains": natural.paint_mountains,
    "sea": natural.paint_sea,
    "desert": natural.paint_desert,
    "forest": natural.paint_forest,
    "temple": built.paint_temple,
    "field": natural.paint_field,
    "island": natural.paint_island,
    "village": built.paint_village,
    "space": natural.paint_space,
}
