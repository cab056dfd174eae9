"""Paints the subjects that people built: city, temple and village."""

from __future__ import annotations

from diptych.images.scenes import buildings, city, land, trees, water
from diptych.images.scenes.canvas import mix
from diptych.images.scenes.ground import HORIZON, backdrop, calm, frame, meadow, ways
from diptych.images.scenes.painting import Painting
from diptych.images.scenes.rng import cosine, sine
from diptych.images.scenes.sky import cloud_bank


def paint_city(p: Painting) -> None:
    """Three rows of buildings, and in front of them water that mirrors them, or a park."""
    base = p.y(HORIZON["city"])
    backdrop(p, base)
    p.canvas.veil(base - 0.45, base, p.palette.haze, 0.0, 0.55)
    city.skyline(p, "third row", base, 0.60, 0.66, False)
    p.canvas.veil(base - 0.34, base, p.palette.haze, 0.0, 0.45)
    city.skyline(p, "second row", base, 0.52, 0.38, False)
    p.canvas.veil(base - 0.26, base, p.palette.haze, 0.0, 0.40)
    if p.scene.style == "futuristic":
        city.sky_bridges(p, base, 0.5)
    city.skyline(p, "first row", base, 0.42, 0.06, True)
    if p.scene.style == "futuristic":
        city.sky_traffic(p, 0.16 * p.h, base - 0.28, 5)
    trees.tree_line(p, "quay trees", base, 0.035, p.palette.dim(p.palette.of("leaf", 0.05), 0.35), True)
    p.stand = base + 0.13
    if p.scene.water:
        p.canvas.rect(0, base, p.w, base + 0.012, p.palette.dim(p.palette.of("concrete"), 0.35))
        if p.has("bridge"):
            buildings.bridge(p, base + 0.012, 0.0)
        water.paint_water(p, base + 0.012, None, calm(p), 0.72)
        return
    meadow(p, "park", base + 0.006, 0.004)
    if p.has("river"):
        water.paint_river(p, base + 0.03, p.w * 0.5)
    else:
        water.paint_path(p, base + 0.02, p.w * p.rng.child("street").uniform(0.4, 0.6), 0.16)


def paint_temple(p: Painting) -> None:
    """A large temple on a hill, on sand, by the sea, or on a plateau among waterfalls and clouds."""
    base = p.y(HORIZON["temple"])
    rng = p.rng.child("temple place")
    x = p.w * {"left": 0.36, "right": 0.64}.get(p.scene.subject_side or "", rng.uniform(0.46, 0.54))
    grand = p.has("waterfall") or "clouds" in p.scene.around
    wide = rng.uniform(0.43, 0.47) if grand else rng.uniform(0.50, 0.56)
    if grand:
        base -= 0.045 * p.h
    if not p.scene.settings:
        land.mountain_range(p, "temple range", base + 0.04, 0.34 if grand else 0.24, 0.62, 4, True)
        p.canvas.veil(base - 0.2, base + 0.04, p.palette.haze, 0.0, 0.5)
    backdrop(p, base)
    if grand:
        _plateau(p, x, base, wide)
    else:
        _temple_ground(p, x, base)
    if p.scene.absent == () and _tree_kind(p):
        _temple_trees(p, x, base, wide, grand)
    if "pagoda" in p.scene.understood or "shrine" in p.scene.understood:
        buildings.pagoda(p, x, base + 0.035, wide * 1.15)
    else:
        buildings.temple(p, x, base + 0.035, wide)
    if grand and "clouds" in p.scene.around:
        for name, cx, cy, size in (
            ("left bank", 0.03, 0.95, 0.18),
            ("right bank", 0.97, 0.96, 0.19),
            ("low bank", 0.50, 1.02, 0.17),
        ):
            cloud_bank(p, name, cx * p.w, cy * p.h, size)
    p.stand = base + 0.13


def _tree_kind(p: Painting) -> bool:
    return "desert" not in p.scene.settings and p.scene.weather != "snow"


_TREES = ((-0.76, 0.24), (0.76, 0.26), (-0.90, 0.18), (0.92, 0.19))
_GRAND_TREES = ((-0.66, 0.17), (0.67, 0.19))


def _temple_trees(p: Painting, x: float, base: float, wide: float, grand: bool) -> None:
    dark = p.palette.dim(p.palette.of("pine"), 0.2)
    for k, tall in _GRAND_TREES if grand else _TREES:
        trees.cypress(
            p.canvas, x + k * wide, base + 0.04, tall, dark, p.palette.light(dark, 0.3), p.light_from
        )


def _temple_ground(p: Painting, x: float, base: float) -> None:
    if "desert" in p.scene.settings:
        land.dune(p, "temple sand", base + 0.0, 0.02, 0.0, 0.2 * p.w)
    elif p.scene.water:
        water.paint_water(p, base - 0.06, None, calm(p), 0.6)
        half = 0.62
        grass = p.palette.of("grass")
        mound = [(x + half * cosine(i / 40), base + 0.06 + 0.085 * sine(i / 40)) for i in range(40)]
        rock = [(px, py + 0.035) for px, py in mound]
        p.canvas.shade(
            [rock], ((0.0, p.palette.of("cliff")), (1.0, p.palette.dim(p.palette.of("cliff"), 0.35)))
        )
        p.canvas.shade([mound], ((0.0, p.palette.light(grass, 0.2)), (1.0, p.palette.dim(grass, 0.15))))
        return
    else:
        land.hills(p, "temple hill", base - 0.01, 0.030, "leaf", 0.25, 1.5)
        meadow(p, "temple green", base + 0.025, 0.008)
    if p.has("river"):
        water.paint_river(p, base + 0.06, x)
    else:
        _steps(p, x, base)
    frame(p, "leaf")


def _steps(p: Painting, x: float, base: float) -> None:
    """A paved way straight up to the steps."""
    stone = p.palette.of("path")
    top = base + 0.036
    p.canvas.shade(
        [[(x - 0.06, top), (x + 0.06, top), (x + 0.19, p.h + 0.01), (x - 0.19, p.h + 0.01)]],
        ((0.0, mix(stone, p.palette.haze, 0.15)), (1.0, p.palette.dim(stone, 0.15))),
    )
    for i in range(1, 6):
        t = i / 6
        y = top + (p.h - top) * t * (0.5 + 0.5 * t)
        k = 0.06 + 0.13 * (y - top) / (p.h - top)
        p.canvas.rect(x - k, y, x + k, y + 0.004, p.palette.dim(stone, 0.35), 0.6)


def _plateau(p: Painting, x: float, base: float, wide: float) -> None:
    """Rock under the temple, with cliffs and waterfalls on both sides."""
    thing = p.thing("waterfall")
    clouds = "clouds" in p.scene.around
    if clouds:
        for name, cx, size in (("far left", 0.20, 0.12), ("far right", 0.82, 0.13)):
            cloud_bank(p, name, cx * p.w, base - 0.13, size, 0.9)
    if thing is not None:
        for name, cx, top in (("left", 0.08, base - 0.26), ("right", 0.92, base - 0.22)):
            centre = cx * p.w
            land.cliff(p, f"{name} cliff", centre - 0.13, centre + 0.13, top, p.h, 0.20)
            foot = p.h - 0.10
            water.paint_fall(p, f"{name} fall", centre, top - 0.004, foot, 0.10)
            water.paint_mist(p, f"{name} spray", centre, foot, 0.09)
    if clouds:
        cloud_bank(p, "behind", 0.24 * p.w, base + 0.17, 0.085, 0.92)
        cloud_bank(p, "beside", 0.77 * p.w, base + 0.16, 0.085, 0.92)
    half = 0.76 * wide
    land.cliff(p, "plateau", x - half, x + half, base + 0.035, p.h + 0.05, 0.0)
    if thing is not None:
        for name, dx in (("front left", -0.62), ("front right", 0.60)):
            water.paint_fall(p, name, x + dx * half, base + 0.045, p.h, 0.06, 0.0)
            water.paint_mist(p, name + " mist", x + dx * half, p.h - 0.03, 0.09)


def paint_village(p: Painting) -> None:
    """Rows of small houses on rolling hills around a church."""
    base = p.y(HORIZON["village"])
    backdrop(p, base)
    rng = p.rng.child("village")
    if not p.scene.settings:
        land.hills(p, "village far hills", base - 0.05, 0.04, "pine", 0.52, 1.7)
    church_x = p.w * rng.uniform(0.3, 0.7)
    rows = ((0.0, 0.078, 0.26), (0.115 * p.h, 0.102, 0.10), (0.245 * p.h, 0.135, 0.0))
    for row, (drop, size, depth) in enumerate(rows):
        if row == 2 and p.scene.water:
            water.paint_water(p, base + drop - 0.01, None, calm(p), 0.75)
            break
        line = land.hills(p, f"village hill {row}", base + drop, 0.022, _village_ground(p), depth, 1.8)
        if row == 1:
            buildings.church(p, church_x, land.height_at(line, church_x) + 0.015, 0.12, depth)
        x = rng.uniform(0.02, 0.10)
        while x < p.w:
            foot = land.height_at(line, min(p.w, max(0.0, x))) + 0.022
            if not (row == 1 and abs(x - church_x - 0.03) < 0.12):
                if rng.chance(0.80):
                    buildings.house(
                        p,
                        p.rng.child(f"house {row} {x:.3f}"),
                        x,
                        foot,
                        size * rng.uniform(0.85, 1.1),
                        p.scene.subject_colour,
                        depth,
                    )
                else:
                    colour = p.palette.of("leaf", depth)
                    trees.round_tree(
                        p.canvas,
                        rng,
                        x,
                        foot,
                        size * 1.25,
                        p.palette.dim(colour, 0.25),
                        p.palette.light(colour, 0.1),
                        p.light_from,
                    )
            x += size * rng.uniform(1.25, 1.75)
        if row == 1:
            ways(p, base + drop + 0.05)
    p.stand = base + 0.30 * p.h
    frame(p, "leaf")


def _village_ground(p: Painting) -> str:
    if p.scene.weather == "snow" or "winter" in p.scene.moods:
        return "snow"
    return "sand" if "desert" in p.scene.settings else "grass"
