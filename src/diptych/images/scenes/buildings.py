"""Temples, houses, lighthouses, windmills, castles, bridges."""

from __future__ import annotations

from diptych.images.scenes.canvas import Colour, Point, mix
from diptych.images.scenes.painting import Painting
from diptych.images.scenes.palette import NAMED
from diptych.images.scenes.rng import RandomStream

_WALLS: tuple[Colour, ...] = (
    (248, 234, 208),
    (248, 234, 208),
    (236, 206, 170),
    (224, 226, 226),
    (240, 214, 190),
)
_TILES: tuple[Colour, ...] = ((200, 88, 66), (176, 74, 62), (214, 118, 74), (122, 84, 84), (84, 98, 128))


def temple(p: Painting, x: float, base: float, wide: float) -> None:
    """A temple with columns, seen from the front. An ancient one is weathered and cracked, and lacks a corner."""
    canvas, palette = p.canvas, p.palette
    ancient = p.scene.style == "ancient"
    rng = p.rng.child("temple")
    material = "weathered" if ancient else "stone"
    stone = palette.of(NAMED[p.scene.subject_colour] if p.scene.subject_colour else material)
    light, dark = mix(stone, palette.glow, 0.22), palette.dim(stone, 0.34)
    half = wide / 2
    step = 0.030 * wide
    for i, k in enumerate((1.14, 1.08, 1.02)):
        y = base - step * i
        canvas.shade(
            [[(x - half * k, y - step), (x + half * k, y - step), (x + half * k, y), (x - half * k, y)]],
            ((0.0, light), (0.25, stone), (1.0, dark)),
        )
    floor = base - 3 * step
    tall = 0.44 * wide
    roof = floor - tall
    inside = palette.dim(stone, 0.66)
    glow = mix(inside, (255, 176, 84), 0.62 if palette.dark else 0.10)
    columns = 6
    broken = columns - 1 if p.light_from < 0 else 0
    left, right = x - 0.88 * half, x + 0.88 * half
    if ancient:  # the wall behind the broken column is gone
        left, right = (left, x + 0.56 * half) if broken else (x - 0.56 * half, right)
    canvas.shade(
        [
            [
                (left, roof),
                (right, roof),
                (right, floor),
                (left, floor),
            ]
        ],
        ((0.0, inside), (1.0, glow)),
    )
    door = 0.10 * wide
    canvas.rect(
        x - door,
        roof + 0.28 * tall,
        x + door,
        floor,
        mix(inside, (255, 208, 120), 0.75) if palette.dark else palette.dim(inside, 0.35),
    )
    for i in range(columns):
        cx = x + (i / (columns - 1) * 2 - 1) * 0.86 * half
        short = 0.42 if ancient and i == broken else 0.0
        _column(p, rng, cx, floor, roof + short * tall, 0.058 * wide, light, stone, dark, ancient)
    _pediment(p, rng, x, roof, half, light, stone, dark, ancient, 1 if broken else -1)
    if ancient:
        _ruin_marks(p, rng, x, floor, half, tall, dark)


def _column(
    p: Painting,
    rng: RandomStream,
    x: float,
    floor: float,
    top: float,
    r: float,
    light: Colour,
    stone: Colour,
    dark: Colour,
    ancient: bool,
) -> None:
    canvas, side = p.canvas, p.light_from
    r = r / 2
    shaft = [(x - 0.86 * r, top), (x + 0.86 * r, top), (x + r, floor), (x - r, floor)]
    canvas.shade([shaft], ((0.0, stone), (1.0, mix(stone, dark, 0.12))))
    lit = [
        (x + side * 0.86 * r, top),
        (x + side * 0.2 * r, top),
        (x + side * 0.25 * r, floor),
        (x + side * r, floor),
    ]
    canvas.polygon(lit, light, 0.8)
    shade = [
        (x - side * 0.86 * r, top),
        (x - side * 0.35 * r, top),
        (x - side * 0.42 * r, floor),
        (x - side * r, floor),
    ]
    canvas.polygon(shade, dark, 0.62)
    canvas.rect(x - 1.25 * r, floor - 0.5 * r, x + 1.25 * r, floor, stone)
    if ancient:
        for _ in range(2):
            y = top + (floor - top) * rng.uniform(0.2, 0.9)
            canvas.line(((x - 0.8 * r, y), (x, y + 0.5 * r), (x + 0.7 * r, y + 0.1 * r)), 0.12 * r, dark, 0.6)
    canvas.rect(x - 1.30 * r, top, x + 1.30 * r, top + 0.55 * r, light)
    canvas.rect(x - 1.30 * r, top + 0.40 * r, x + 1.30 * r, top + 0.62 * r, dark, 0.45)


def _pediment(
    p: Painting,
    rng: RandomStream,
    x: float,
    roof: float,
    half: float,
    light: Colour,
    stone: Colour,
    dark: Colour,
    ancient: bool,
    broken: int,
) -> None:
    canvas = p.canvas
    beam = 0.15 * half
    ends = (x - 1.04 * half, x + 1.04 * half)
    y0, y1 = roof - beam, roof
    right = ends[1] if not (ancient and broken > 0) else x + 0.74 * half
    left = ends[0] if not (ancient and broken < 0) else x - 0.74 * half
    canvas.shade(
        [[(left, y0), (right, y0), (right - 0.02 * half, y1), (left + 0.02 * half, y1)]],
        ((0.0, light), (0.3, stone), (1.0, dark)),
    )
    canvas.rect(left, y0 + 0.40 * beam, right, y0 + 0.52 * beam, dark, 0.45)
    peak = y0 - 0.36 * half
    outline: list[Point] = [(ends[0], y0), (x, peak), (ends[1], y0)]
    if ancient:
        cut = 0.74 * half * broken
        stub = y0 - 0.36 * half * (1 - 0.71)
        jag = [
            (x + cut, y0),
            (x + cut * 1.06, y0 - 0.3 * (y0 - stub)),
            (x + cut * 0.93, y0 - 0.55 * (y0 - stub)),
            (x + cut * 0.97, stub),
        ]
        outline = [(ends[0], y0), (x, peak), *jag[::-1]] if broken > 0 else [*jag, (x, peak), (ends[1], y0)]
    canvas.shade([outline], ((0.0, light), (1.0, stone)))
    inner = [
        (x - 0.74 * half, y0 - 0.05 * half),
        (x, peak + 0.11 * half),
        (x + 0.74 * half, y0 - 0.05 * half),
    ]
    if ancient:
        inner[2 if broken > 0 else 0] = (x + 0.60 * half * broken, y0 - 0.05 * half)
    canvas.polygon(inner, dark, 0.62)
    canvas.ellipse(x, y0 - 0.13 * half, 0.075 * half, 0.075 * half, light)
    roof_tone = (
        p.palette.of("roof") if not ancient and p.scene.subject_colour is None else mix(stone, dark, 0.25)
    )
    thick = 0.075 * half
    if not ancient:
        canvas.polygon(
            (
                outline[0],
                (x, peak),
                outline[-1],
                (ends[1] + 0.03 * half, y0 - thick),
                (x, peak - thick * 1.15),
                (ends[0] - 0.03 * half, y0 - thick),
            ),
            roof_tone,
        )
    else:
        whole = (ends[0], 1.0) if broken > 0 else (ends[1], -1.0)
        cut, fall = x + 0.66 * half * broken, peak + 0.36 * half * 0.64
        canvas.polygon(((x, peak), (cut, fall), (cut, fall - thick), (x, peak - thick)), roof_tone)
        canvas.polygon(
            ((whole[0], y0), (x, peak), (x, peak - thick), (whole[0] - 0.03 * half * whole[1], y0 - thick)),
            roof_tone,
        )


def _ruin_marks(
    p: Painting, rng: RandomStream, x: float, floor: float, half: float, tall: float, dark: Colour
) -> None:
    """Ivy, cracks and fallen drums."""
    canvas = p.canvas
    ivy = p.palette.of("leaf")
    side = -p.light_from
    for i in range(16):
        t = rng.random()
        cx, cy = x - side * half * (0.98 - 0.16 * rng.random() * (1 - t)), floor - tall * 1.1 * t
        r = half * rng.uniform(0.022, 0.05) * (1.2 - 0.6 * t)
        canvas.ellipse(cx, cy, r, 0.8 * r, p.palette.dim(ivy, 0.28) if i % 3 else p.palette.light(ivy, 0.1))
    stone = p.palette.of("weathered")
    for i in range(3):
        cx, r = x + side * half * (1.02 + 0.13 * i), half * rng.uniform(0.035, 0.055)
        cy = floor + 0.155 * half
        canvas.shade(
            [
                [
                    (cx - 1.2 * r, cy - r),
                    (cx + 1.2 * r, cy - 0.9 * r),
                    (cx + 1.3 * r, cy + r),
                    (cx - 1.3 * r, cy + r),
                ]
            ],
            ((0.0, p.palette.light(stone, 0.2)), (1.0, dark)),
        )


def pagoda(p: Painting, x: float, base: float, wide: float) -> None:
    """A temple of five tiers with upturned eaves."""
    canvas, palette = p.canvas, p.palette
    wall, roof = (
        palette.of("plaster"),
        palette.of(NAMED[p.scene.subject_colour] if p.scene.subject_colour else "roof"),
    )
    y, half = base, 0.40 * wide
    canvas.rect(x - 1.2 * half, y - 0.05 * wide, x + 1.2 * half, y, palette.of("stone"))
    y -= 0.05 * wide
    for _ in range(4):
        tall = 0.17 * wide
        canvas.shade(
            [
                [
                    (x - 0.7 * half, y - tall),
                    (x + 0.7 * half, y - tall),
                    (x + 0.7 * half, y),
                    (x - 0.7 * half, y),
                ]
            ],
            ((0.0, palette.dim(wall, 0.4)), (1.0, wall)),
        )
        for k in (-0.42, 0.0, 0.42):
            lit = palette.window if palette.dark else palette.dim(wall, 0.55)
            canvas.rect(x + (k - 0.1) * half, y - 0.68 * tall, x + (k + 0.1) * half, y - 0.1 * tall, lit)
        y -= tall
        eave = 0.045 * wide
        canvas.shade(
            [
                [
                    (x - 1.15 * half, y - 0.35 * eave),
                    (x - 0.9 * half, y - 0.1 * eave),
                    (x - 0.55 * half, y - 1.6 * eave),
                    (x + 0.55 * half, y - 1.6 * eave),
                    (x + 0.9 * half, y - 0.1 * eave),
                    (x + 1.15 * half, y - 0.35 * eave),
                    (x + 0.9 * half, y + 0.6 * eave),
                    (x - 0.9 * half, y + 0.6 * eave),
                ]
            ],
            ((0.0, palette.light(roof, 0.25)), (1.0, palette.dim(roof, 0.3))),
        )
        y -= 1.2 * eave
        half *= 0.82
    canvas.line(((x, y), (x, y - 0.13 * wide)), 0.016 * wide, palette.of("roof"))


def house(
    p: Painting,
    rng: RandomStream,
    x: float,
    base: float,
    wide: float,
    colour: str | None = None,
    depth: float = 0.0,
) -> None:
    """A cottage with a gabled roof, a door, windows and a chimney."""
    canvas, palette = p.canvas, p.palette
    wall = palette.of(rng.choice(_WALLS), depth)
    tile = palette.of(NAMED[colour] if colour else rng.choice(_TILES), depth)
    tall, half, side = 0.52 * wide, wide / 2, p.light_from
    split = x - side * 0.12 * wide
    top = base - tall
    canvas.shade(
        [[(x - half, top), (x + half, top), (x + half, base), (x - half, base)]],
        ((0.0, wall), (1.0, palette.dim(wall, 0.12))),
    )
    shaded = (split, x + half) if side < 0 else (x - half, split)
    canvas.rect(shaded[0], top, shaded[1], base, palette.dim(wall, 0.5), 0.42)
    gable = x + side * 0.20 * wide
    peak = top - 0.46 * wide
    canvas.rect(
        x - side * 0.26 * wide - 0.05 * wide,
        peak - 0.02 * wide,
        x - side * 0.26 * wide + 0.05 * wide,
        top,
        palette.dim(wall, 0.35),
    )
    canvas.polygon(((gable, peak), (x + side * half * 1.0, top), (split, top)), wall)
    canvas.polygon(
        (
            (gable, peak),
            (x - side * 0.30 * wide, peak),
            (x - side * half * 1.16, top + 0.02 * wide),
            (split - side * 0.02 * wide, top + 0.02 * wide),
        ),
        tile,
    )
    canvas.line(
        ((gable, peak), (x + side * half * 1.12, top + 0.03 * wide)), 0.06 * wide, palette.dim(tile, 0.25)
    )
    canvas.line(((gable, peak), (split, top + 0.03 * wide)), 0.05 * wide, palette.light(tile, 0.15))
    lit = palette.window if palette.dark else mix(palette.dim(wall, 0.6), (90, 130, 170), 0.5)
    door = x + side * 0.20 * wide
    canvas.rect(
        door - 0.07 * wide,
        base - 0.30 * wide,
        door + 0.07 * wide,
        base,
        palette.dim(palette.of("wood", depth), 0.1),
    )
    for k in (-0.36, -0.16):
        wx = x - side * k * -1.0 * wide
        canvas.rect(wx - 0.06 * wide, top + 0.14 * wide, wx + 0.06 * wide, top + 0.30 * wide, lit)
    canvas.rect(gable - 0.045 * wide, top - 0.16 * wide, gable + 0.045 * wide, top - 0.04 * wide, lit)
    if palette.dark:
        canvas.glow(x - side * 0.26 * wide, top + 0.22 * wide, 0.5 * wide, 0.36 * wide, palette.window, 0.42)


def church(p: Painting, x: float, base: float, wide: float, depth: float = 0.0) -> None:
    """A village church with a pointed tower."""
    canvas, palette = p.canvas, p.palette
    wall, tile = palette.of("plaster", depth), palette.of((110, 84, 104), depth)
    canvas.rect(x, base - 0.6 * wide, x + wide, base, palette.dim(wall, 0.14))
    canvas.polygon(
        (
            (x, base - 0.6 * wide),
            (x + 0.1 * wide, base - 0.95 * wide),
            (x + 0.95 * wide, base - 0.95 * wide),
            (x + 1.08 * wide, base - 0.6 * wide),
        ),
        tile,
    )
    canvas.shade(
        [
            [
                (x - 0.26 * wide, base - 1.25 * wide),
                (x + 0.16 * wide, base - 1.25 * wide),
                (x + 0.16 * wide, base),
                (x - 0.26 * wide, base),
            ]
        ],
        ((0.0, palette.light(wall, 0.1)), (1.0, wall)),
    )
    canvas.polygon(
        (
            (x - 0.32 * wide, base - 1.25 * wide),
            (x - 0.05 * wide, base - 2.15 * wide),
            (x + 0.22 * wide, base - 1.25 * wide),
        ),
        tile,
    )
    lit = palette.window if palette.dark else palette.dim(wall, 0.55)
    canvas.rect(x - 0.11 * wide, base - 1.1 * wide, x + 0.02 * wide, base - 0.8 * wide, lit)
    for k in (0.35, 0.62):
        canvas.rect(x + k * wide, base - 0.44 * wide, x + (k + 0.12) * wide, base - 0.14 * wide, lit)


def lighthouse(p: Painting, x: float, base: float, tall: float, colour: str | None) -> None:
    """A striped lighthouse on a rock; its lamp is lit when it is dark."""
    canvas, palette = p.canvas, p.palette
    rock = palette.of("rock")
    canvas.shade(
        [
            [
                (x - 0.42 * tall, base + 0.04 * tall),
                (x - 0.28 * tall, base - 0.07 * tall),
                (x - 0.05 * tall, base - 0.13 * tall),
                (x + 0.22 * tall, base - 0.09 * tall),
                (x + 0.44 * tall, base + 0.04 * tall),
            ]
        ],
        ((0.0, palette.light(rock, 0.2)), (1.0, palette.dim(rock, 0.35))),
    )
    foot, top = base - 0.08 * tall, base - tall
    white, band = palette.of("white"), palette.of(NAMED[colour or "red"])
    for i in range(6):
        t0, t1 = i / 6, (i + 1) / 6
        r0, r1 = (0.115 - 0.045 * t0) * tall, (0.115 - 0.045 * t1) * tall
        y0, y1 = foot + (top - foot) * t0, foot + (top - foot) * t1
        tone = band if i % 2 else white
        canvas.polygon(((x - r0, y0), (x + r0, y0), (x + r1, y1), (x - r1, y1)), tone)
        side = -p.light_from
        canvas.polygon(
            (
                (x + side * 0.25 * r0, y0),
                (x + side * r0, y0),
                (x + side * r1, y1),
                (x + side * 0.25 * r1, y1),
            ),
            palette.dim(tone, 0.5),
            0.5,
        )
    canvas.rect(x - 0.10 * tall, top - 0.012 * tall, x + 0.10 * tall, top + 0.012 * tall, palette.of("dark"))
    lamp = (255, 240, 170) if palette.dark else mix(palette.sky[1], (255, 255, 255), 0.5)
    canvas.rect(x - 0.05 * tall, top - 0.11 * tall, x + 0.05 * tall, top - 0.012 * tall, lamp)
    canvas.polygon(
        ((x - 0.07 * tall, top - 0.11 * tall), (x, top - 0.20 * tall), (x + 0.07 * tall, top - 0.11 * tall)),
        band,
    )
    if palette.dark:
        y, way = top - 0.06 * tall, 1.0 if x < p.w / 2 else -1.0
        canvas.polygon(((x, y), (x + way * 1.0, y - 0.14), (x + way * 1.0, y + 0.02)), (255, 240, 180), 0.16)
        canvas.glow(x, y, 0.28 * tall, 0.28 * tall, (255, 236, 160), 0.8)


def windmill(p: Painting, x: float, base: float, tall: float) -> None:
    """A windmill with four latticed sails."""
    canvas, palette = p.canvas, p.palette
    wall, wood = palette.of("plaster"), palette.dim(palette.of("wood"), 0.15)
    body = [
        (x - 0.10 * tall, base - 0.66 * tall),
        (x + 0.10 * tall, base - 0.66 * tall),
        (x + 0.17 * tall, base),
        (x - 0.17 * tall, base),
    ]
    canvas.shade([body], ((0.0, palette.light(wall, 0.15)), (1.0, palette.dim(wall, 0.2))))
    side = -p.light_from
    canvas.polygon(
        (
            (x + side * 0.03 * tall, base - 0.66 * tall),
            (x + side * 0.10 * tall, base - 0.66 * tall),
            (x + side * 0.17 * tall, base),
            (x + side * 0.06 * tall, base),
        ),
        palette.dim(wall, 0.5),
        0.5,
    )
    canvas.polygon(
        (
            (x - 0.13 * tall, base - 0.65 * tall),
            (x, base - 0.84 * tall),
            (x + 0.13 * tall, base - 0.65 * tall),
        ),
        palette.of("roof"),
    )
    canvas.rect(x - 0.04 * tall, base - 0.16 * tall, x + 0.04 * tall, base, wood)
    hub = (x, base - 0.68 * tall)
    sail = mix(palette.of("white"), palette.haze, 0.1)
    for dx, dy in ((0.62, -0.78), (0.78, 0.62), (-0.62, 0.78), (-0.78, -0.62)):
        end = (hub[0] + 0.44 * tall * dx, hub[1] + 0.44 * tall * dy)
        near = (hub[0] + 0.10 * tall * dx, hub[1] + 0.10 * tall * dy)
        off = (-dy * 0.09 * tall, dx * 0.09 * tall)
        canvas.polygon(
            (near, end, (end[0] + off[0], end[1] + off[1]), (near[0] + off[0], near[1] + off[1])), sail
        )
        canvas.line((hub, end), 0.022 * tall, wood)
    canvas.ellipse(hub[0], hub[1], 0.03 * tall, 0.03 * tall, wood)


def castle(p: Painting, x: float, base: float, wide: float, depth: float = 0.1) -> None:
    """Towers with pointed roofs around a keep."""
    canvas, palette = p.canvas, p.palette
    wall, tile = palette.of("stone", depth), palette.of((88, 96, 150), depth)
    for dx, half, tall in (
        (-0.36, 0.09, 0.52),
        (0.36, 0.09, 0.56),
        (-0.16, 0.10, 0.78),
        (0.18, 0.09, 0.70),
        (0.0, 0.13, 0.95),
    ):
        cx, r, top = x + dx * wide, half * wide, base - tall * wide
        canvas.shade(
            [[(cx - r, top), (cx + r, top), (cx + r, base), (cx - r, base)]],
            ((0.0, palette.light(wall, 0.15)), (1.0, palette.dim(wall, 0.15))),
        )
        canvas.rect(
            cx - (r if p.light_from > 0 else -0.2 * r),
            top,
            cx + (r if p.light_from < 0 else -0.2 * r),
            base,
            palette.dim(wall, 0.5),
            0.35,
        )
        canvas.polygon(((cx - 1.25 * r, top), (cx, top - 0.28 * wide), (cx + 1.25 * r, top)), tile)
        lit = palette.window if palette.dark else palette.dim(wall, 0.6)
        canvas.rect(cx - 0.2 * r, top + 0.08 * wide, cx + 0.2 * r, top + 0.18 * wide, lit)
    canvas.rect(x - 0.42 * wide, base - 0.24 * wide, x + 0.42 * wide, base, wall)
    for i in range(9):
        canvas.rect(
            x + (-0.42 + i * 0.0988) * wide,
            base - 0.28 * wide,
            x + (-0.37 + i * 0.0988) * wide,
            base - 0.23 * wide,
            wall,
        )
    canvas.ellipse(x, base - 0.12 * wide, 0.06 * wide, 0.08 * wide, palette.dim(wall, 0.65))
    canvas.rect(x - 0.06 * wide, base - 0.12 * wide, x + 0.06 * wide, base, palette.dim(wall, 0.65))


def tower(p: Painting, x: float, base: float, tall: float) -> None:
    """A slender watch tower; in scenes of the future a needle with a ring."""
    canvas, palette = p.canvas, p.palette
    wall = palette.of("steel" if p.scene.style == "futuristic" else "stone")
    canvas.shade(
        [
            [
                (x - 0.05 * tall, base - tall),
                (x + 0.05 * tall, base - tall),
                (x + 0.09 * tall, base),
                (x - 0.09 * tall, base),
            ]
        ],
        ((0.0, palette.light(wall, 0.2)), (1.0, palette.dim(wall, 0.2))),
    )
    side = -p.light_from
    canvas.polygon(
        ((x, base - tall), (x + side * 0.05 * tall, base - tall), (x + side * 0.09 * tall, base), (x, base)),
        palette.dim(wall, 0.5),
        0.45,
    )
    canvas.rect(
        x - 0.10 * tall, base - 1.02 * tall, x + 0.10 * tall, base - 0.92 * tall, palette.dim(wall, 0.15)
    )
    canvas.polygon(
        (
            (x - 0.11 * tall, base - 1.02 * tall),
            (x, base - 1.28 * tall),
            (x + 0.11 * tall, base - 1.02 * tall),
        ),
        palette.of("roof"),
    )
    lit = palette.window if palette.dark else palette.dim(wall, 0.6)
    for k in (0.3, 0.55, 0.78):
        canvas.rect(x - 0.016 * tall, base - (k + 0.07) * tall, x + 0.016 * tall, base - k * tall, lit)


def bridge(p: Painting, y: float, far: float) -> None:
    """A suspension bridge across the water."""
    canvas, palette = p.canvas, p.palette
    thing = p.thing("bridge")
    red = palette.of(NAMED[thing.colour] if thing and thing.colour else (204, 84, 62), far)
    red = palette.light(red, 0.30 if palette.dark else 0.05)
    deck, top = y - 0.055, y - 0.25
    piers = (0.24 * p.w, 0.76 * p.w)
    canvas.rect(0, deck, p.w, deck + 0.014, palette.dim(red, 0.25))
    for x in piers:
        canvas.rect(x - 0.014, top, x - 0.004, y, red)
        canvas.rect(x + 0.004, top, x + 0.014, y, palette.dim(red, 0.15))
        for k in (0.0, 0.08, 0.15):
            canvas.rect(x - 0.014, top + k, x + 0.014, top + k + 0.010, red)
    spans = ((-0.28 * p.w, piers[0]), piers, (piers[1], 1.28 * p.w))
    for a, b in spans:
        cable = []
        for i in range(25):
            t = i / 24
            cx, cy = a + (b - a) * t, top + (deck - top - 0.012) * 4 * t * (1 - t)
            cable.append((cx, cy))
            canvas.line(((cx, cy), (cx, deck)), 0.0022, red, 0.8)
        canvas.line(cable, 0.006, red)
