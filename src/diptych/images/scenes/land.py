"""Paints the shapes of the land: mountains, hills, dunes, rocks and cliffs."""

from __future__ import annotations

from itertools import pairwise

from diptych.images.scenes.canvas import Colour, Point, mix
from diptych.images.scenes.painting import Painting
from diptych.images.scenes.rng import Noise, RandomStream, smooth


def hill_line(
    p: Painting, rng: RandomStream, level: float, swell: float, pace: float = 2.0, octaves: int = 2
) -> list[Point]:
    """A rolling line across the picture, at the height `level` +- `swell`."""
    noise, start = Noise(rng, octaves, 0.35), rng.uniform(0, 20)
    steps = int(40 * p.w) + 2
    return [
        (p.w * i / steps, level - swell * noise(start + pace * p.w * i / steps)) for i in range(-1, steps + 2)
    ]


def fill_below(
    p: Painting, line: list[Point], top: Colour, bottom: Colour, depth: float | None = None
) -> None:
    """Fills the ground under a line with a gradient, from its highest point to `depth` below it or the lower edge."""
    low = p.h + 0.02 if depth is None else max(y for _, y in line) + depth
    p.canvas.shade([[*line, (line[-1][0], low), (line[0][0], low)]], ((0.0, top), (1.0, bottom)))


def hills(
    p: Painting,
    name: str,
    level: float,
    swell: float,
    material: str | Colour,
    depth: float,
    pace: float = 2.0,
) -> list[Point]:
    """Hills down to the lower edge, with a sunlit rim. Returns their upper edge."""
    rng = p.rng.child(name)
    line = hill_line(p, rng, level, swell, pace)
    base = p.palette.of(material, depth)
    fill_below(p, line, mix(base, p.palette.glow, 0.16), p.palette.dim(base, 0.16))
    p.canvas.line(line, 0.004, mix(base, p.palette.glow, 0.4), 0.55)
    return line


def height_at(line: list[Point], x: float) -> float:
    """The height of a line at x."""
    for (x0, y0), (x1, y1) in pairwise(line):
        if x0 <= x <= x1:
            return y0 + (y1 - y0) * (x - x0) / max(1e-9, x1 - x0)
    return line[-1][1]


def mountain_range(
    p: Painting,
    name: str,
    base: float,
    height: float,
    depth: float,
    count: int,
    snow: bool,
    material: str = "rock",
) -> None:
    """Peaks that rise from `base`, each with a lit and a shaded face, and with snow on the tallest."""
    rng = p.rng.child(name)
    spacing = p.w / count
    order = []
    for i in range(-1, count + 1):
        x = (i + 0.5 + rng.uniform(-0.28, 0.28)) * spacing
        tall = height * rng.uniform(0.55, 1.0)
        if p.luminary and p.luminary.y > base - 1.3 * height:  # make room for a low sun
            away = abs(x - p.luminary.x) / spacing
            tall *= 0.55 + 0.45 * smooth(away / 1.1)
        order.append((tall, x, rng.uniform(0.75, 1.05)))
    for tall, x, spread in sorted(order):
        _peak(p, rng, x, base, tall, tall * spread * 0.95, depth, snow and tall > 0.6 * height, material)


def _edge(rng: RandomStream, a: Point, b: Point, rough: float, steps: int = 7) -> list[Point]:
    """A crooked line from a to b."""
    points = [a]
    for i in range(1, steps):
        t = (i + rng.uniform(-0.25, 0.25)) / steps
        k = rough * rng.uniform(-1.0, 1.0)
        points.append((a[0] + (b[0] - a[0]) * t + k, a[1] + (b[1] - a[1]) * t + 0.5 * k))
    return [*points, b]


def _peak(
    p: Painting,
    rng: RandomStream,
    x: float,
    base: float,
    tall: float,
    half: float,
    depth: float,
    snow: bool,
    material: str,
) -> None:
    canvas, palette = p.canvas, p.palette
    rock = palette.of(material, depth)
    light, dark = (
        mix(rock, palette.glow, 0.26 * (1 - 0.6 * depth)),
        mix(palette.dim(rock, 0.42 * (1 - depth)), palette.shade, 0.06),
    )
    foot = mix(rock, palette.haze, 0.30)
    top = (x, base - tall)
    left = _edge(rng, top, (x - half, base), 0.028 * tall)
    right = _edge(rng, top, (x + half, base), 0.028 * tall)
    spine = _edge(rng, top, (x - p.light_from * 0.16 * half, base), 0.10 * tall, 6)
    lit, shaded = (left, right) if p.light_from < 0 else (right, left)
    canvas.shade([shaded + spine[::-1]], ((0.0, dark), (1.0, mix(dark, foot, 0.75))))
    canvas.shade([lit + spine[::-1]], ((0.0, light), (1.0, mix(light, foot, 0.75))))
    for _ in range(3):  # gullies on the lit face
        t = rng.uniform(0.25, 0.7)
        a, b = spine[int(t * 5)], lit[min(len(lit) - 1, int(t * 6) + 1)]
        m = (a[0] + (b[0] - a[0]) * 0.55, a[1] + (b[1] - a[1]) * 0.55 + 0.10 * tall)
        canvas.polygon((a, m, (a[0] * 0.6 + m[0] * 0.4, m[1] + 0.16 * tall)), dark, 0.35 * (1 - depth))
    if snow:
        _snow_cap(p, rng, lit, shaded, spine, depth)


def _snow_cap(
    p: Painting, rng: RandomStream, lit: list[Point], shaded: list[Point], spine: list[Point], depth: float
) -> None:
    white = p.palette.of("snow", depth * 0.7)
    bright = mix(white, p.palette.glow, 0.22)
    shadow = mix(p.palette.dim(white, 0.16), (120, 140, 200), 0.22 if not p.palette.dark else 0.06)
    for face, colour in ((shaded, shadow), (lit, bright)):
        edge = face[: 3 + rng.integer(0, 1)]
        hem = [edge[-1]]
        tx, ty = spine[2]
        for i in range(1, 5):
            t = i / 5
            dy = (edge[0][1] - ty) * (0.16 if i % 2 else -0.26)
            hem.append((edge[-1][0] + (tx - edge[-1][0]) * t, edge[-1][1] + (ty - edge[-1][1]) * t + dy))
        p.canvas.polygon([*edge, *hem[1:], spine[2], spine[1]], colour)


def dune(p: Painting, name: str, level: float, swell: float, depth: float, crest_at: float) -> list[Point]:
    """A dune with a long crest, whose lee side is in shadow along an S-shaped ridge. Returns its upper edge."""
    rng = p.rng.child(name)
    canvas, palette = p.canvas, p.palette
    sand = p.colour(p.scene.subject_colour if p.scene.subject == "desert" else None, "sand", depth)
    line = []
    noise, start = Noise(rng, 1), rng.uniform(0, 20)
    steps = int(48 * p.w)
    for i in range(-1, steps + 2):
        x = p.w * i / steps
        away = (x - crest_at) / (0.42 * p.w)
        hump = 1 / (1 + 2.2 * away * away)
        line.append((x, level - swell * (hump * 1.25 - 0.35 + 0.22 * noise(start + 2.2 * x))))
    bright = mix(sand, palette.glow, 0.26)
    fill_below(p, line, bright, palette.dim(sand, 0.10))
    top_x, top_y = min(line, key=lambda point: point[1])
    lee = -p.light_from
    ridge = []
    low = p.h + 0.02
    for i in range(21):
        t = i / 20
        bend = (smooth(t * 1.6) - 0.9 * t) * 0.30 + 0.10 * noise(start + 5 + 1.4 * t) * t
        ridge.append((top_x - lee * bend * p.w * 0.8, top_y + (low - top_y) * t))
    far = [(x, y) for x, y in line if (x - top_x) * lee >= 0]
    far = far if lee > 0 else far[::-1]
    corner = (p.w + 0.05 if lee > 0 else -0.05, low)
    shadow = palette.dim(mix(sand, palette.shade, 0.10), 0.30)
    canvas.shade(
        [[*far, corner, *ridge[::-1]]],
        ((0.0, shadow), (0.75, mix(shadow, sand, 0.65)), (1.0, mix(shadow, sand, 0.8))),
        0.85,
    )
    canvas.line(line, 0.0045, mix(bright, palette.glow, 0.45), 0.75)
    return line


def mesas(p: Painting, base: float) -> None:
    """Flat-topped rocks on the horizon."""
    rng = p.rng.child("mesas")
    for i in range(3):
        x = (i + rng.uniform(0.2, 0.8)) / 3 * p.w
        if p.luminary and abs(x - p.luminary.x) < 0.2:
            continue
        half, tall, depth = rng.uniform(0.06, 0.13), rng.uniform(0.07, 0.15), rng.uniform(0.45, 0.65)
        rock = p.palette.of("mesa", depth)
        top = [(x - half, base - tall), (x - 0.3 * half, base - tall * 1.05), (x + half, base - tall * 0.97)]
        p.canvas.shade(
            [[*top, (x + 1.35 * half, base), (x - 1.35 * half, base)]],
            ((0.0, mix(rock, p.palette.glow, 0.15)), (1.0, mix(rock, p.palette.haze, 0.4))),
        )
        side = -p.light_from
        p.canvas.polygon(
            (
                (x + side * half * 0.35, base - tall),
                (x + side * half, base - tall * 0.98),
                (x + side * 1.35 * half, base),
                (x + side * 0.5 * half, base),
            ),
            p.palette.dim(rock, 0.25),
            0.6,
        )


def cliff(
    p: Painting, name: str, x0: float, x1: float, top: float, bottom: float, depth: float, grass: bool = True
) -> None:
    """A block of rock with cracked faces and grass on top."""
    rng = p.rng.child(name)
    canvas, palette = p.canvas, p.palette
    rock = palette.of("cliff", depth)
    left = _edge(rng, (x0, top), (x0 - 0.02, bottom), 0.014, 6)
    right = _edge(rng, (x1, top), (x1 + 0.02, bottom), 0.014, 6)
    canvas.shade(
        [left + right[::-1]],
        ((0.0, mix(rock, palette.glow, 0.14)), (0.6, rock), (1.0, palette.dim(rock, 0.35))),
    )
    span = x1 - x0
    faces = max(2, int(span / 0.09))
    for i in range(faces):
        a = x0 + span * (i + rng.uniform(0.0, 0.4)) / faces
        b = a + span / faces * rng.uniform(0.35, 0.7)
        end = top + (bottom - top) * rng.uniform(0.5, 1.0)
        shade = palette.dim(rock, 0.30) if i % 2 else mix(rock, palette.glow, 0.12)
        canvas.polygon(
            ((a, top), (b, top), (b + rng.uniform(-0.02, 0.02), end), ((a + b) / 2, end + 0.03)), shade, 0.45
        )
    if grass:
        turf = palette.of("grass", depth)
        brow = [
            (x0 - 0.012, top + 0.012),
            (x0 + 0.02, top - 0.014),
            (x1 - 0.02, top - 0.014),
            (x1 + 0.012, top + 0.012),
        ]
        fringe = []
        steps = max(4, int(span / 0.03))
        for i in range(steps + 1):
            x = x1 + 0.012 - (span + 0.024) * i / steps
            fringe.append((x, top + (0.030 if i % 2 else 0.012) * rng.uniform(0.7, 1.3)))
        canvas.shade([brow + fringe], ((0.0, mix(turf, palette.glow, 0.25)), (1.0, palette.dim(turf, 0.25))))
