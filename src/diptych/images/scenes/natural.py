"""Paints the natural subjects: mountains, sea, island, desert, forest, field and space."""

from __future__ import annotations

from diptych.images.scenes import land, trees, water
from diptych.images.scenes.canvas import Colour, mix
from diptych.images.scenes.ground import HORIZON, backdrop, calm, falls, frame, meadow, ways
from diptych.images.scenes.objects import ringed_planet
from diptych.images.scenes.painting import Painting
from diptych.images.scenes.palette import NAMED
from diptych.images.scenes.rng import RandomStream, cosine, sine


def paint_mountains(p: Painting) -> None:
    """Three ranges, the farther the hazier, in front of them foothills with firs, and a meadow or a lake."""
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
    rng = p.rng.child("firs")
    colour2 = p.palette.of("pine", 0.16)
    for i in range(int(26 * p.w)):
        x = (i + rng.random()) / 26
        h = rng.uniform(0.045, 0.085)
        p.canvas.polygon(trees.plain_pine(x, land.height_at(slope, x) + 0.012, h), colour2)
    p.stand = base + 0.15
    if p.scene.water:
        water.paint_water(p, base + 0.045, None, calm(p), 0.80)
    else:
        meadow(p, "meadow", base + 0.075, 0.025)
        ways(p, base + 0.085)
    frame(p)


def paint_sea(p: Painting) -> None:
    """Open water up to a low horizon, with waves in front."""
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
    """A green mound with palms on a ring of sand, surrounded by water."""
    horizon = p.y(HORIZON["island"])
    backdrop(p, horizon)
    rng = p.rng.child("island")
    water.paint_water(p, horizon, None, calm(p), 0.55)
    p.canvas.veil(horizon, horizon + 0.03, p.palette.haze, 0.5, 0.0)
    x = p.w * {"left": 0.36, "right": 0.64}.get(p.scene.subject_side or "", rng.uniform(0.42, 0.58))
    base = horizon + 0.17 * p.h
    half = rng.uniform(0.27, 0.33)
    canvas, palette = p.canvas, p.palette
    for k, alpha in ((1.36, 0.22), (1.20, 0.35)):
        canvas.ellipse(x, base + 0.012, half * k, 0.060 * k, palette.of("shallow"), alpha)
    for i in range(7):  # its reflection in the water
        y = base + 0.045 + 0.02 * i
        canvas.stroke(
            x + rng.uniform(-0.04, 0.04),
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
    places = [(-0.62, 0.26), (-0.28, 0.34), (0.20, 0.30), (0.60, 0.24)][: rng.integer(3, 4)]
    green, bark = palette.of("leaf"), palette.of("wood")
    for t, tall in places:
        px = x + (t + rng.uniform(-0.08, 0.08)) * half
        trees.palm(
            canvas,
            rng,
            px,
            base - 0.02 - 0.045 * (1 - t * t),
            tall * rng.uniform(0.85, 1.05),
            green,
            bark,
            1.0 if t > 0 else -1.0,
        )
    canvas.stroke(
        x, base + 0.048, half * 1.02, 0.008, mix(palette.cloud_light, palette.of("shallow"), 0.2), 0.8
    )
    p.stand = base - 0.004


def _mound(p: Painting, x: float, base: float, half: float) -> None:
    rng, palette = p.rng.child("mound"), p.palette
    grass = palette.of(NAMED[p.scene.subject_colour] if p.scene.subject_colour else "leaf")
    rise = rng.uniform(0.07, 0.12)
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


def paint_desert(p: Painting) -> None:
    """Rocks on the horizon and three dunes."""
    horizon = p.y(HORIZON["desert"])
    backdrop(p, horizon)
    rng = p.rng.child("desert")
    land.mesas(p, horizon + 0.01)
    at = rng.uniform(0.2, 0.8)
    land.dune(p, "third dune", horizon + 0.02, 0.05, 0.45, p.w * (at + 0.35 if at < 0.5 else at - 0.35))
    land.dune(p, "second dune", horizon + 0.10 * p.h, 0.085, 0.18, p.w * at)
    land.dune(p, "first dune", horizon + 0.24 * p.h, 0.075, 0.0, p.w * (1.02 - at))
    p.stand = horizon + 0.25 * p.h
    ways(p, horizon + 0.28 * p.h)


def paint_forest(p: Painting) -> None:
    """Rows of trees, ever nearer, a clearing, and dark trunks at the sides."""
    base = p.y(HORIZON["forest"])
    backdrop(p, base - 0.16)
    rng, canvas, palette = p.rng.child("forest"), p.canvas, p.palette
    leafy = "autumn" in p.scene.moods or "spring" in p.scene.moods or (not p.has("pine") and rng.chance(0.3))
    trees.tree_line(p, "far firs", base - 0.10, 0.26, palette.of("pine", 0.66), leafy)
    canvas.veil(base - 0.3, base, palette.haze, 0.0, 0.35)
    trees.tree_line(p, "farther firs", base - 0.02, 0.30, palette.of("pine", 0.42), leafy)
    canvas.veil(base - 0.25, base + 0.02, palette.haze, 0.0, 0.45)
    meadow(p, "clearing", base + 0.02, 0.012, "grass")
    gap = p.w * rng.uniform(0.42, 0.58)
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
            h = tall * rng.uniform(0.8, 1.15)
            away = abs(x - gap)
            if away > 0.11 + 0.14 * row and not (p.scene.water and row and away < 0.32):
                _forest_tree(p, rng, x, base + drop * rng.uniform(0.8, 1.1), h, leafy)
            x += tall * rng.uniform(0.22, 0.36)
    p.stand = base + 0.17
    frame(p)


def _forest_tree(p: Painting, rng: RandomStream, x: float, y: float, h: float, leafy: bool) -> None:
    own = p.rng.child(f"tree {x:.3f}")
    if leafy:
        kinds: tuple[Colour, ...] = ((84, 152, 72), (104, 168, 76), (64, 132, 78))
        if "autumn" in p.scene.moods:
            kinds = ((222, 118, 48), (236, 168, 60), (196, 76, 50))
        if "spring" in p.scene.moods:
            kinds = ((246, 176, 198), (156, 204, 104), (250, 204, 214))
        wanted = NAMED[p.scene.subject_colour] if p.scene.subject_colour else own.choice(kinds)
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
    colour = p.palette.dim(p.colour(p.scene.subject_colour, "pine"), own.uniform(0.0, 0.3))
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
    """Rows of crops that lead to the horizon, with hills behind and ears or flowers in front."""
    horizon = p.y(HORIZON["field"])
    backdrop(p, horizon)
    rng, palette, canvas = p.rng.child("field"), p.palette, p.canvas
    if not p.scene.settings:
        land.hills(p, "far hills", horizon - 0.035, 0.035, "pine", 0.55, 1.6)
    land.hills(p, "near hills", horizon + 0.005, 0.018, "leaf", 0.30, 2.4)
    trees.tree_line(p, "hedge", horizon + 0.012, 0.030, palette.of("pine", 0.28), True)
    crop, furrow = rng.choice(_CROPS)
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
    _rows(p, p.w * rng.uniform(0.3, 0.7), top, light)
    p.stand = horizon + 0.13
    ways(p, top, p.w * rng.uniform(0.4, 0.6))
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


def paint_space(p: Painting) -> None:
    """A large planet and its moons over ground with craters."""
    rng, canvas = p.rng.child("space"), p.canvas
    kinds: tuple[Colour, ...] = (
        (226, 150, 96),
        (96, 160, 220),
        (214, 110, 130),
        (150, 120, 220),
        (110, 190, 170),
    )
    wanted = NAMED[p.scene.subject_colour] if p.scene.subject_colour else rng.choice(kinds)
    planet = p.thing("planet")
    side = (planet.side if planet else None) or ("right" if p.light_from < 0 else "left")
    x = p.w * {"left": 0.32, "right": 0.68}.get(side, 0.5)
    if planet and planet.colour:
        wanted = NAMED[planet.colour]
    ringed_planet(p, x, rng.uniform(0.36, 0.46) * p.h, rng.uniform(0.15, 0.20), wanted, rng.chance(0.6))
    other = kinds[rng.integer(0, 4)]
    away = 0.80 if x < 0.5 * p.w else 0.20
    ringed_planet(p, away * p.w, rng.uniform(0.16, 0.5) * p.h, rng.uniform(0.025, 0.05), other, False)
    base = p.y(HORIZON["space"])
    rock = mix(p.palette.of("moonrock"), (128, 120, 160), 0.35)
    tone = mix(rock, p.palette.sky[-1], 0.2)
    line = land.hill_line(p, p.rng.child("far ground"), base - 0.02, 0.045, 3.0, 4)
    land.fill_below(p, line, mix(tone, p.palette.sky[-1], 0.55), mix(tone, p.palette.sky[1], 0.4))
    line = land.hill_line(p, p.rng.child("ground"), base + 0.045, 0.022, 1.4)
    land.fill_below(p, line, mix(tone, (255, 255, 255), 0.18), mix(tone, (0, 0, 10), 0.5))
    canvas.line(line, 0.004, mix(tone, (255, 255, 255), 0.5), 0.8)
    for i in range(6):
        t = (i + 0.5) / 6
        cx, cy, r = (
            rng.uniform(0.04, 0.96) * p.w,
            base + 0.07 + (p.h - base - 0.08) * t,
            0.03 + 0.07 * t * rng.random(),
        )
        canvas.ellipse(cx, cy, r, 0.30 * r, mix(tone, (0, 0, 14), 0.42))
        canvas.ellipse(
            cx + p.light_from * 0.06 * r, cy + 0.09 * r, 0.9 * r, 0.22 * r, mix(tone, (255, 255, 255), 0.10)
        )
    p.stand = base + 0.12


def nebula(p: Painting) -> None:
    """Clouds of coloured gas."""
    rng = p.rng.child("nebula")
    tones: tuple[Colour, ...] = ((196, 60, 160), (70, 90, 220), (40, 170, 190), (240, 120, 90))
    first, second = rng.choice(tones[:2]), rng.choice(tones[1:])
    x, y = rng.uniform(0.2, 0.8) * p.w, rng.uniform(0.2, 0.5) * p.h
    for i in range(16):
        t = i / 15 - 0.5
        r = rng.uniform(0.10, 0.26)
        cx, cy = x + t * 1.1 + rng.uniform(-0.08, 0.08), y - t * 0.55 + rng.uniform(-0.08, 0.08)
        p.canvas.glow(cx, cy, r, r * rng.uniform(0.6, 1.0), mix(first, second, rng.random()), 0.30)
