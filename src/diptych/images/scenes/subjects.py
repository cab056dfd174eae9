"""The ten subjects: how each is composed, from the horizon to the lower edge."""

from __future__ import annotations

from collections.abc import Callable

from diptych.images.scenes import buildings, city, land, trees, water
from diptych.images.scenes.canvas import Colour, mix
from diptych.images.scenes.dice import cosine, sine
from diptych.images.scenes.objects import ringed_planet
from diptych.images.scenes.painting import Painting
from diptych.images.scenes.palette import NAMED
from diptych.images.scenes.sky import cloud_bank

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


def calm(p: Painting) -> float:
    """How still the water is, 0 to 1."""
    if p.scene.weather == "storm" or "stormy" in p.scene.moods:
        return 0.05
    return 0.96 if "serene" in p.scene.moods else 0.72


def backdrop(p: Painting, base: float) -> None:
    """The surroundings that the prompt names besides the subject, far away behind it."""
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
            dice = p.dice.child("far houses")
            for i in range(5):
                buildings.house(p, dice, (0.12 + 0.19 * i) * p.w, base + 0.01, 0.055, None, 0.4)


def _meadow(p: Painting, name: str, level: float, swell: float = 0.02, material: str = "grass") -> None:
    if p.scene.weather == "snow" or "winter" in p.scene.moods:
        material = "snow"
    land.hills(p, name, level, swell, material, 0.0)


def _frame(p: Painting, material: str = "pine") -> None:
    """Dark grass along the lower edge, which sets the picture back."""
    dark = p.palette.dim(p.palette.of(material), 0.55)
    trees.grass_fringe(p, "fringe", p.h + 0.005, 0.075, dark)


# ---- city


def paint_city(p: Painting) -> None:
    """Three rows of buildings, then water that mirrors them, or a park."""
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
    _meadow(p, "park", base + 0.006, 0.004)
    if p.has("river"):
        water.paint_river(p, base + 0.03, p.w * 0.5)
    else:
        water.paint_path(p, base + 0.02, p.w * p.dice.child("street").between(0.4, 0.6), 0.16)


# ---- mountains


def paint_mountains(p: Painting) -> None:
    """Three ranges, each hazier than the one before it, then foothills with firs, then a meadow or a lake."""
    base = p.y(HORIZON["mountains"])
    green = p.scene.subject_colour
    for name, tall, depth, count in (
        ("third", 0.40, 0.72, 5),
        ("second", 0.46, 0.46, 3),
        ("first", 0.50, 0.14, 2),
    ):
        land.mountain_range(p, f"{name} range", base + 0.03, tall, depth, count + int(p.w > 1.4), True)
        p.canvas.veil(base - 0.16, base + 0.03, p.palette.haze, 0.0, 0.42)
    if green:
        p.canvas.veil(base - 0.5, base, p.palette.of(NAMED[green]), 0.0, 0.35)
    falls(p, base)
    slope = land.hills(p, "foothills", base, 0.035, "pine", 0.28)
    dice = p.dice.child("firs")
    colour2 = p.palette.of("pine", 0.16)
    for i in range(int(26 * p.w)):
        x = (i + dice.unit()) / 26
        h = dice.between(0.045, 0.085)
        p.canvas.polygon(trees.plain_pine(x, land.height_at(slope, x) + 0.012, h), colour2)
    p.stand = base + 0.15
    if p.scene.water:
        water.paint_water(p, base + 0.045, None, calm(p), 0.80)
    else:
        _meadow(p, "meadow", base + 0.075, 0.025)
        ways(p, base + 0.085)
    _frame(p)


def falls(p: Painting, base: float) -> None:
    """A cliff with a waterfall beside the subject, if the scene has one."""
    thing = p.thing("waterfall")
    if thing is None:
        return
    dice = p.dice.child("falls")
    side = thing.side or dice.pick(("left", "right"))
    for number in range(2 if "waterfall" in p.scene.around else min(3, thing.count)):
        left = (side == "left") != bool(number % 2)
        centre = p.w * (0.20 if left else 0.80) + 0.1 * (number // 2)
        if side == "centre" and number == 0:
            centre = p.w * 0.5
        top = base - dice.between(0.24, 0.30)
        land.cliff(p, f"cliff {number}", centre - 0.17, centre + 0.17, top, base + 0.06, 0.16)
        water.paint_fall(p, f"fall {number}", centre, top - 0.005, base + 0.035, 0.085, 0.05)
        water.paint_mist(p, f"spray {number}", centre, base + 0.03, 0.075)


def ways(p: Painting, top: float, x: float | None = None) -> None:
    """A river or a path, if the scene has one."""
    start = p.w * p.dice.child("ways").between(0.38, 0.62) if x is None else x
    if p.has("river"):
        water.paint_river(p, top, start)
    elif p.has("path"):
        water.paint_path(p, top, start)


# ---- sea and island


def paint_sea(p: Painting) -> None:
    """Open water up to a low horizon, with swell close by."""
    horizon = p.y(HORIZON["sea"])
    backdrop(p, horizon)
    water.paint_water(p, horizon, None, calm(p), 0.55)
    p.stand = p.h - 0.10
    rough = 1.0 - calm(p)
    if rough > 0.1:
        water.paint_waves(p, horizon + 0.22 * (p.h - horizon), p.h, rough)
    p.canvas.veil(horizon - 0.02, horizon, p.palette.haze, 0.0, 0.5)
    p.canvas.veil(horizon, horizon + 0.03, p.palette.haze, 0.6, 0.0)


def paint_island(p: Painting) -> None:
    """A green mound with palms on a ring of sand, water all around."""
    horizon = p.y(HORIZON["island"])
    backdrop(p, horizon)
    dice = p.dice.child("island")
    water.paint_water(p, horizon, None, calm(p), 0.55)
    p.canvas.veil(horizon, horizon + 0.03, p.palette.haze, 0.5, 0.0)
    x = p.w * {"left": 0.36, "right": 0.64}.get(p.scene.subject_side or "", dice.between(0.42, 0.58))
    base = horizon + 0.17 * p.h
    half = dice.between(0.27, 0.33)
    canvas, palette = p.canvas, p.palette
    for k, alpha in ((1.36, 0.22), (1.20, 0.35)):
        canvas.ellipse(x, base + 0.012, half * k, 0.060 * k, palette.of("shallow"), alpha)
    for i in range(7):  # what the water mirrors of it
        y = base + 0.045 + 0.02 * i
        canvas.stroke(
            x + dice.between(-0.04, 0.04),
            y,
            half * (0.92 - 0.11 * i),
            0.011,
            palette.dim(palette.of("leaf"), 0.35),
            0.42 - 0.045 * i,
        )
    sand = palette.of("beach")
    canvas.shade(
        [[(x + half * 1.08 * cosine(i / 36), base + 0.050 * sine(i / 36)) for i in range(36)]],
        ((0.0, palette.light(sand, 0.2)), (1.0, palette.dim(sand, 0.2))),
    )
    _mound(p, x, base, half)
    places = [(-0.62, 0.26), (-0.28, 0.34), (0.20, 0.30), (0.60, 0.24)][: dice.whole(3, 4)]
    green, bark = palette.of("leaf"), palette.of("wood")
    for t, tall in places:
        px = x + (t + dice.between(-0.08, 0.08)) * half
        trees.palm(
            canvas,
            dice,
            px,
            base - 0.02 - 0.045 * (1 - t * t),
            tall * dice.between(0.85, 1.05),
            green,
            bark,
            1.0 if t > 0 else -1.0,
        )
    canvas.stroke(
        x, base + 0.048, half * 1.02, 0.008, mix(palette.cloud_light, palette.of("shallow"), 0.2), 0.8
    )
    p.stand = base - 0.004


def _mound(p: Painting, x: float, base: float, half: float) -> None:
    dice, palette = p.dice.child("mound"), p.palette
    grass = palette.of(NAMED[p.scene.subject_colour] if p.scene.subject_colour else "leaf")
    rise = dice.between(0.07, 0.12)
    if p.has("waterfall"):
        rise = 0.16
    for k, up, dx, tone in ((0.62, 1.25, 0.18, palette.dim(grass, 0.28)), (0.84, 0.85, -0.08, grass)):
        top = [
            (x + (dx + k * cosine(0.5 + i / 48)) * half, base - rise * up * sine(i / 48)) for i in range(25)
        ]
        p.canvas.shade(
            [[*top, (x + (dx + k) * half, base + 0.012), (x + (dx - k) * half, base + 0.012)]],
            ((0.0, palette.light(tone, 0.2)), (1.0, palette.dim(tone, 0.25))),
        )
    if p.has("waterfall"):
        water.paint_fall(p, "island fall", x + 0.1 * half, base - rise * 0.95, base + 0.02, 0.05)
        water.paint_mist(p, "island spray", x + 0.1 * half, base + 0.02, 0.05)


# ---- desert, forest, field


def paint_desert(p: Painting) -> None:
    """Rocks on the horizon and three dunes."""
    horizon = p.y(HORIZON["desert"])
    backdrop(p, horizon)
    dice = p.dice.child("desert")
    land.mesas(p, horizon + 0.01)
    at = dice.between(0.2, 0.8)
    land.dune(p, "third dune", horizon + 0.02, 0.05, 0.45, p.w * (at + 0.35 if at < 0.5 else at - 0.35))
    land.dune(p, "second dune", horizon + 0.10 * p.h, 0.085, 0.18, p.w * at)
    land.dune(p, "first dune", horizon + 0.24 * p.h, 0.075, 0.0, p.w * (1.02 - at))
    p.stand = horizon + 0.25 * p.h
    ways(p, horizon + 0.28 * p.h)


def paint_forest(p: Painting) -> None:
    """Rows of trees that come nearer, a clearing, and dark trunks at the sides."""
    base = p.y(HORIZON["forest"])
    backdrop(p, base - 0.16)
    dice, canvas, palette = p.dice.child("forest"), p.canvas, p.palette
    leafy = "autumn" in p.scene.moods or "spring" in p.scene.moods or (not p.has("pine") and dice.chance(0.3))
    trees.tree_line(p, "far firs", base - 0.10, 0.26, palette.of("pine", 0.66), leafy)
    canvas.veil(base - 0.3, base, palette.haze, 0.0, 0.35)
    trees.tree_line(p, "farther firs", base - 0.02, 0.30, palette.of("pine", 0.42), leafy)
    canvas.veil(base - 0.25, base + 0.02, palette.haze, 0.0, 0.45)
    _meadow(p, "clearing", base + 0.02, 0.012, "grass")
    gap = p.w * dice.between(0.42, 0.58)
    if p.scene.water:
        water.paint_water(p, base + 0.05, None, calm(p), 0.8)
    elif p.has("river"):
        water.paint_river(p, base + 0.02, gap)
    else:
        water.paint_path(p, base + 0.02, gap, 0.12)
    falls(p, base)
    for row, (tall, drop) in enumerate(((0.34, 0.03), (0.46, 0.12))):
        x = -0.03
        while x < p.w + 0.03:
            h = tall * dice.between(0.8, 1.15)
            away = abs(x - gap)
            if away > 0.11 + 0.14 * row and not (p.scene.water and row and away < 0.32):
                _forest_tree(p, dice, x, base + drop * dice.between(0.8, 1.1), h, leafy)
            x += tall * dice.between(0.22, 0.36)
    p.stand = base + 0.17
    _frame(p)


def _forest_tree(p: Painting, dice: object, x: float, y: float, h: float, leafy: bool) -> None:
    own = p.dice.child(f"tree {x:.3f}")
    if leafy:
        kinds: tuple[Colour, ...] = ((84, 152, 72), (104, 168, 76), (64, 132, 78))
        if "autumn" in p.scene.moods:
            kinds = ((222, 118, 48), (236, 168, 60), (196, 76, 50))
        if "spring" in p.scene.moods:
            kinds = ((246, 176, 198), (156, 204, 104), (250, 204, 214))
        wanted = NAMED[p.scene.subject_colour] if p.scene.subject_colour else own.pick(kinds)
        colour = p.palette.of(wanted)
        trees.round_tree(
            p.canvas,
            own,
            x,
            y,
            h * 0.9,
            p.palette.dim(colour, 0.2),
            p.palette.light(colour, 0.15),
            p.light_from,
        )
        return
    colour = p.palette.dim(p.colour(p.scene.subject_colour, "pine"), own.between(0.0, 0.3))
    light = p.palette.light(colour, 0.20)
    if p.scene.weather == "snow" or "winter" in p.scene.moods:
        light = p.palette.of("snow")
    trees.pine(p.canvas, x, y, h, colour, light, p.light_from)


_CROPS: tuple[tuple[Colour, Colour], ...] = (
    ((236, 196, 92), (206, 158, 66)),
    ((140, 190, 86), (104, 158, 72)),
    ((168, 132, 206), (112, 150, 92)),
    ((226, 92, 84), (104, 158, 72)),
    ((250, 214, 84), (118, 164, 72)),
)


def paint_field(p: Painting) -> None:
    """Crop rows that run to the horizon, hills behind and ears or flowers in front."""
    horizon = p.y(HORIZON["field"])
    backdrop(p, horizon)
    dice, palette, canvas = p.dice.child("field"), p.palette, p.canvas
    if not p.scene.settings:
        land.hills(p, "far hills", horizon - 0.035, 0.035, "pine", 0.55, 1.6)
    land.hills(p, "near hills", horizon + 0.005, 0.018, "leaf", 0.30, 2.4)
    trees.tree_line(p, "hedge", horizon + 0.012, 0.030, palette.of("pine", 0.28), True)
    crop, furrow = dice.pick(_CROPS)
    if "golden" in p.scene.moods:
        crop, furrow = _CROPS[0]
    if p.scene.subject_colour:
        crop = NAMED[p.scene.subject_colour]
        furrow = mix(crop, (70, 110, 60), 0.45)
    if p.scene.weather == "snow" or "winter" in p.scene.moods:
        crop, furrow = (246, 250, 255), (206, 216, 232)
    top = horizon + 0.02
    light, dark = palette.of(crop), palette.of(furrow)
    canvas.shade(
        [[(0, top), (p.w, top), (p.w, p.h + 0.02), (0, p.h + 0.02)]],
        ((0.0, mix(dark, palette.haze, 0.35)), (1.0, dark)),
    )
    _rows(p, p.w * dice.between(0.3, 0.7), top, light)
    p.stand = horizon + 0.13
    ways(p, top, p.w * dice.between(0.4, 0.6))
    trees.grass_fringe(p, "ears", p.h + 0.01, 0.13, palette.dim(light, 0.22), 80)
    trees.flowers(
        p, "blossoms", p.h - 0.10, p.h, (palette.light(light, 0.25), palette.of((255, 240, 220))), 26
    )


def _rows(p: Painting, vanish: float, top: float, colour: Colour) -> None:
    low = p.h + 0.02
    pitch = 0.135
    far = mix(colour, p.palette.haze, 0.35)
    wedges = []
    for i in range(-22, 23):
        a = vanish + (i - 0.29) * pitch * 1.0
        wedges.append(
            [
                (vanish + (a - vanish) * 0.10, top),
                (vanish + (a - vanish + 0.58 * pitch) * 0.10, top),
                (vanish + (a - vanish + 0.58 * pitch) * 1.9, low),
                (vanish + (a - vanish) * 1.9, low),
            ]
        )
    p.canvas.shade(wedges, ((0.0, far), (0.35, colour), (1.0, p.palette.light(colour, 0.10))))


# ---- temple


def paint_temple(p: Painting) -> None:
    """A large temple: on a hill, on sand, by the sea, or on a plateau among falls and clouds."""
    base = p.y(HORIZON["temple"])
    dice = p.dice.child("temple place")
    x = p.w * {"left": 0.36, "right": 0.64}.get(p.scene.subject_side or "", dice.between(0.46, 0.54))
    grand = p.has("waterfall") or "clouds" in p.scene.around
    wide = dice.between(0.43, 0.47) if grand else dice.between(0.50, 0.56)
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
        _meadow(p, "temple green", base + 0.025, 0.008)
    if p.has("river"):
        water.paint_river(p, base + 0.06, x)
    else:
        _steps(p, x, base)
    _frame(p, "leaf")


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
    """Solid rock under the temple, with cliffs and falls on both sides of it."""
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


# ---- village and space


def paint_village(p: Painting) -> None:
    """Rows of small houses over rolling hills around a church."""
    base = p.y(HORIZON["village"])
    backdrop(p, base)
    dice = p.dice.child("village")
    if not p.scene.settings:
        land.hills(p, "village far hills", base - 0.05, 0.04, "pine", 0.52, 1.7)
    church_x = p.w * dice.between(0.3, 0.7)
    rows = ((0.0, 0.078, 0.26), (0.115 * p.h, 0.102, 0.10), (0.245 * p.h, 0.135, 0.0))
    for row, (drop, size, depth) in enumerate(rows):
        if row == 2 and p.scene.water:
            water.paint_water(p, base + drop - 0.01, None, calm(p), 0.75)
            break
        line = land.hills(p, f"village hill {row}", base + drop, 0.022, _ground(p), depth, 1.8)
        if row == 1:
            buildings.church(p, church_x, land.height_at(line, church_x) + 0.015, 0.12, depth)
        x = dice.between(0.02, 0.10)
        while x < p.w:
            foot = land.height_at(line, min(p.w, max(0.0, x))) + 0.022
            if not (row == 1 and abs(x - church_x - 0.03) < 0.12):
                if dice.chance(0.80):
                    buildings.house(
                        p,
                        p.dice.child(f"house {row} {x:.3f}"),
                        x,
                        foot,
                        size * dice.between(0.85, 1.1),
                        p.scene.subject_colour,
                        depth,
                    )
                else:
                    colour = p.palette.of("leaf", depth)
                    trees.round_tree(
                        p.canvas,
                        dice,
                        x,
                        foot,
                        size * 1.25,
                        p.palette.dim(colour, 0.25),
                        p.palette.light(colour, 0.1),
                        p.light_from,
                    )
            x += size * dice.between(1.25, 1.75)
        if row == 1:
            ways(p, base + drop + 0.05)
    p.stand = base + 0.30 * p.h
    _frame(p, "leaf")


def _ground(p: Painting) -> str:
    if p.scene.weather == "snow" or "winter" in p.scene.moods:
        return "snow"
    return "sand" if "desert" in p.scene.settings else "grass"


def paint_space(p: Painting) -> None:
    """A great planet and its moons over a cratered ground."""
    dice, canvas = p.dice.child("space"), p.canvas
    kinds: tuple[Colour, ...] = (
        (226, 150, 96),
        (96, 160, 220),
        (214, 110, 130),
        (150, 120, 220),
        (110, 190, 170),
    )
    wanted = NAMED[p.scene.subject_colour] if p.scene.subject_colour else dice.pick(kinds)
    planet = p.thing("planet")
    side = (planet.side if planet else None) or ("right" if p.light_from < 0 else "left")
    x = p.w * {"left": 0.32, "right": 0.68}.get(side, 0.5)
    if planet and planet.colour:
        wanted = NAMED[planet.colour]
    ringed_planet(p, x, dice.between(0.36, 0.46) * p.h, dice.between(0.15, 0.20), wanted, dice.chance(0.6))
    other = kinds[dice.whole(0, 4)]
    away = 0.80 if x < 0.5 * p.w else 0.20
    ringed_planet(p, away * p.w, dice.between(0.16, 0.5) * p.h, dice.between(0.025, 0.05), other, False)
    base = p.y(HORIZON["space"])
    rock = mix(p.palette.of("moonrock"), (128, 120, 160), 0.35)
    tone = mix(rock, p.palette.sky[-1], 0.2)
    line = land.hill_line(p, p.dice.child("far ground"), base - 0.02, 0.045, 3.0, 4)
    land.fill_below(p, line, mix(tone, p.palette.sky[-1], 0.55), mix(tone, p.palette.sky[1], 0.4))
    line = land.hill_line(p, p.dice.child("ground"), base + 0.045, 0.022, 1.4)
    land.fill_below(p, line, mix(tone, (255, 255, 255), 0.18), mix(tone, (0, 0, 10), 0.5))
    canvas.line(line, 0.004, mix(tone, (255, 255, 255), 0.5), 0.8)
    for i in range(6):
        t = (i + 0.5) / 6
        cx, cy, r = (
            dice.between(0.04, 0.96) * p.w,
            base + 0.07 + (p.h - base - 0.08) * t,
            0.03 + 0.07 * t * dice.unit(),
        )
        canvas.ellipse(cx, cy, r, 0.30 * r, mix(tone, (0, 0, 14), 0.42))
        canvas.ellipse(
            cx + p.light_from * 0.06 * r, cy + 0.09 * r, 0.9 * r, 0.22 * r, mix(tone, (255, 255, 255), 0.10)
        )
    p.stand = base + 0.12


def nebula(p: Painting) -> None:
    """Clouds of coloured gas."""
    dice = p.dice.child("nebula")
    tones: tuple[Colour, ...] = ((196, 60, 160), (70, 90, 220), (40, 170, 190), (240, 120, 90))
    first, second = dice.pick(tones[:2]), dice.pick(tones[1:])
    x, y = dice.between(0.2, 0.8) * p.w, dice.between(0.2, 0.5) * p.h
    for i in range(16):
        t = i / 15 - 0.5
        r = dice.between(0.10, 0.26)
        cx, cy = x + t * 1.1 + dice.between(-0.08, 0.08), y - t * 0.55 + dice.between(-0.08, 0.08)
        p.canvas.glow(cx, cy, r, r * dice.between(0.6, 1.0), mix(first, second, dice.unit()), 0.30)


SUBJECTS: dict[str, Callable[[Painting], None]] = {
    "city": paint_city,
    "mountains": paint_mountains,
    "sea": paint_sea,
    "desert": paint_desert,
    "forest": paint_forest,
    "temple": paint_temple,
    "field": paint_field,
    "island": paint_island,
    "village": paint_village,
    "space": paint_space,
}
