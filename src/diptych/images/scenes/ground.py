"""Parts that several subjects share: surroundings, meadows, waterfalls, paths, and grass along the lower edge."""

from __future__ import annotations

from diptych.images.scenes import buildings, city, land, trees, water
from diptych.images.scenes.painting import Painting

HORIZON = {
    "city": 0.76,
    "mountains": 0.74,
    "sea": 0.50,
    "desert": 0.60,
    "forest": 0.66,
    "temple": 0.70,
    "field": 0.52,
    "island": 0.54,
    "village": 0.58,
    "space": 0.80,
}
"""How far down the picture each subject's ground begins, as a part of its height."""


def calm(p: Painting) -> float:
    """How calm the water is, from 0 to 1."""
    if p.scene.weather == "storm" or "stormy" in p.scene.moods:
        return 0.05
    return 0.96 if "serene" in p.scene.moods else 0.72


def backdrop(p: Painting, base: float) -> None:
    """The surroundings that the prompt names besides the subject, painted far behind it."""
    for name in p.scene.settings:
        if name == "mountains":
            land.mountain_range(p, "far range", base + 0.02, 0.36, 0.50, 4, True)
            land.mountain_range(p, "near range", base + 0.02, 0.24, 0.34, 5, False)
        elif name == "city":
            city.skyline(p, "far city", base, 0.26, 0.5, False)
        elif name == "forest":
            trees.tree_line(p, "far wood", base, 0.13, p.palette.of("pine", 0.35))
        elif name == "desert":
            land.dune(p, "far dune", base - 0.02, 0.06, 0.4, 0.3 * p.w)
        elif name in ("village", "temple"):
            rng = p.rng.child("far houses")
            for i in range(5):
                buildings.house(p, rng, (0.12 + 0.19 * i) * p.w, base + 0.01, 0.055, None, 0.4)


def meadow(p: Painting, name: str, level: float, swell: float = 0.02, material: str = "grass") -> None:
    """Rolling grass, or snow in winter, down to the lower edge."""
    if p.scene.weather == "snow" or "winter" in p.scene.moods:
        material = "snow"
    land.hills(p, name, level, swell, material, 0.0)


def frame(p: Painting, material: str = "pine") -> None:
    """Dark grass along the lower edge."""
    dark = p.palette.dim(p.palette.of(material), 0.55)
    trees.grass_fringe(p, "fringe", p.h + 0.005, 0.075, dark)


def falls(p: Painting, base: float) -> None:
    """A cliff with a waterfall beside the subject, if the scene has one."""
    thing = p.thing("waterfall")
    if thing is None:
        return
    rng = p.rng.child("falls")
    side = thing.side or rng.choice(("left", "right"))
    for number in range(2 if "waterfall" in p.scene.around else min(3, thing.count)):
        left = (side == "left") != bool(number % 2)
        centre = p.w * (0.20 if left else 0.80) + 0.1 * (number // 2)
        if side == "centre" and number == 0:
            centre = p.w * 0.5
        top = base - rng.uniform(0.24, 0.30)
        land.cliff(p, f"cliff {number}", centre - 0.17, centre + 0.17, top, base + 0.06, 0.16)
        water.paint_fall(p, f"fall {number}", centre, top - 0.005, base + 0.035, 0.085, 0.05)
        water.paint_mist(p, f"spray {number}", centre, base + 0.03, 0.075)


def ways(p: Painting, top: float, x: float | None = None) -> None:
    """A river or a path, if the scene has one."""
    start = p.w * p.rng.child("ways").uniform(0.38, 0.62) if x is None else x
    if p.has("river"):
        water.paint_river(p, top, start)
    elif p.has("path"):
        water.paint_path(p, top, start)
