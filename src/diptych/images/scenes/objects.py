"""Places and paints the objects that a prompt can add to any scene."""

from __future__ import annotations

from collections.abc import Callable

from diptych.images.scenes import buildings, trees
from diptych.images.scenes.canvas import mix
from diptych.images.scenes.city import sky_traffic
from diptych.images.scenes.painting import Painting
from diptych.images.scenes.palette import NAMED
from diptych.images.scenes.rng import RandomStream, cosine, sine
from diptych.images.scenes.understanding import Thing

_SLOTS = {"left": (0.16, 0.30, 0.06), "right": (0.84, 0.70, 0.94), "centre": (0.50, 0.42, 0.58)}
ON_WATER = frozenset(("boat", "ship"))
IN_THE_AIR = frozenset(("balloon", "planet", "flyer"))
PAINTED_BY_SUBJECT = frozenset(("waterfall", "river", "path", "bridge", "ruins"))


def paint_objects(p: Painting) -> None:
    """Paints every object of the scene that its subject has not painted, the farthest first."""
    for thing in sorted(p.scene.objects or (), key=lambda thing: _ORDER.index(thing.name)):
        if thing.name in PAINTED_BY_SUBJECT:
            continue
        rng = p.rng.child(thing.name)
        if thing.name == "flyer":
            sky_traffic(p, 0.14 * p.h, 0.44 * p.h, 2 + thing.count)
            continue
        for number in range(thing.count):
            x = _spot(p, thing, rng, number)
            _PAINT[thing.name](p, thing, rng, x, _foot(p, thing, rng, number), 1.0 if number == 0 else 0.82)


def _spot(p: Painting, thing: Thing, rng: RandomStream, number: int) -> float:
    side = thing.side or rng.choice(("left", "right"))
    if thing.side is None and number % 2:
        side = "left" if p.taken and p.taken[-1] > p.w / 2 else "right"
    slots: tuple[float, ...] = _SLOTS[side]
    if (
        thing.side is None or number
    ):  # an object for which the prompt names a side stays there, even if it is crowded
        slots = (*slots, *_SLOTS["left"], *_SLOTS["right"])
    tried = []
    for slot in slots:
        x = (slot + rng.uniform(-0.025, 0.025)) * p.w
        room = _room(p, thing, x)
        tried.append((room, x))
        if room > 0:
            break
    else:
        x = max(tried)[1]
    p.taken.append(x)
    return x


def _room(p: Painting, thing: Thing, x: float) -> float:
    """The distance of x from the nearest object, and for flying objects from the sun, minus the distance needed."""
    near = [abs(x - other) - 0.13 for other in p.taken]
    if p.luminary is not None and thing.name in IN_THE_AIR:
        near.append(abs(x - p.luminary.x) - 0.16)
    return min(near, default=1.0)


def _foot(p: Painting, thing: Thing, rng: RandomStream, number: int) -> float:
    if thing.name in ON_WATER and p.shore is not None:
        room = p.h - p.shore
        return p.shore + room * (rng.uniform(0.30, 0.46) + 0.16 * (number % 3))
    if thing.name in IN_THE_AIR:
        return (rng.uniform(0.20, 0.30) + 0.10 * (number % 3)) * p.h
    return p.stand + rng.uniform(-0.01, 0.02) + 0.02 * (number % 3)


def _boat(p: Painting, thing: Thing, rng: RandomStream, x: float, y: float, k: float) -> None:
    canvas, palette = p.canvas, p.palette
    s, way = 0.105 * k, rng.choice((-1.0, 1.0))
    hull = palette.dim(palette.of("wood"), 0.1)
    sail = palette.of(NAMED[thing.colour]) if thing.colour else mix(palette.of("white"), palette.glow, 0.2)
    canvas.glow(x, y + 0.45 * s, 1.0 * s, 0.5 * s, palette.dim(palette.of("water"), 0.6), 0.5)
    for i in range(6):
        canvas.stroke(
            x + rng.uniform(-0.12, 0.12) * s,
            y + (0.22 + 0.17 * i) * s,
            s * (0.62 - 0.08 * i),
            0.06 * s,
            mix(sail, palette.of("water"), 0.35),
            0.55 - 0.06 * i,
        )
    canvas.polygon(
        (
            (x - 0.72 * s, y - 0.12 * s),
            (x + 0.78 * s, y - 0.16 * s),
            (x + 0.46 * s, y + 0.16 * s),
            (x - 0.50 * s, y + 0.16 * s),
        ),
        hull,
    )
    canvas.polygon(
        (
            (x - 0.72 * s, y - 0.12 * s),
            (x + 0.78 * s, y - 0.16 * s),
            (x + 0.74 * s, y - 0.09 * s),
            (x - 0.68 * s, y - 0.05 * s),
        ),
        palette.light(hull, 0.5),
    )
    canvas.line(((x, y - 0.1 * s), (x, y - 1.5 * s)), 0.045 * s, hull)
    canvas.polygon(
        (
            (x + way * 0.06 * s, y - 1.45 * s),
            (x + way * 0.62 * s, y - 0.36 * s),
            (x + way * 0.06 * s, y - 0.28 * s),
        ),
        sail,
    )
    canvas.polygon(
        (
            (x - way * 0.06 * s, y - 1.32 * s),
            (x - way * 0.50 * s, y - 0.32 * s),
            (x - way * 0.06 * s, y - 0.28 * s),
        ),
        palette.dim(sail, 0.2),
    )


def _ship(p: Painting, thing: Thing, rng: RandomStream, x: float, y: float, k: float) -> None:
    canvas, palette = p.canvas, p.palette
    s = 0.15 * k
    hull = palette.of(NAMED[thing.colour] if thing.colour else "wood")
    canvas.polygon(
        (
            (x - 0.9 * s, y - 0.28 * s),
            (x + 1.0 * s, y - 0.34 * s),
            (x + 0.66 * s, y + 0.16 * s),
            (x - 0.7 * s, y + 0.16 * s),
        ),
        hull,
    )
    canvas.polygon(
        (
            (x - 0.9 * s, y - 0.28 * s),
            (x + 1.0 * s, y - 0.34 * s),
            (x + 0.95 * s, y - 0.24 * s),
            (x - 0.86 * s, y - 0.18 * s),
        ),
        palette.light(hull, 0.45),
    )
    sail = mix(palette.of("white"), palette.glow, 0.2)
    for dx, tall in ((-0.5, 1.15), (0.05, 1.45), (0.55, 1.05)):
        cx = x + dx * s
        canvas.line(((cx, y - 0.2 * s), (cx, y - tall * s - 0.1 * s)), 0.04 * s, palette.dim(hull, 0.3))
        for i in range(2):
            y0, y1 = y - tall * s * (0.98 - 0.42 * i), y - tall * s * (0.62 - 0.36 * i)
            canvas.polygon(
                (
                    (cx - 0.20 * s, y0),
                    (cx + 0.22 * s, y0),
                    (cx + 0.30 * s, (y0 + y1) / 2),
                    (cx + 0.24 * s, y1),
                    (cx - 0.24 * s, y1),
                    (cx - 0.14 * s, (y0 + y1) / 2),
                ),
                palette.dim(sail, 0.12 * i),
            )
    for i in range(4):
        canvas.stroke(
            x, y + (0.24 + 0.14 * i) * s, s * (0.8 - 0.14 * i), 0.05 * s, palette.dim(hull, 0.3), 0.5
        )


def _tree(p: Painting, thing: Thing, rng: RandomStream, x: float, y: float, k: float) -> None:
    colour = p.palette.of(
        NAMED[thing.colour] if thing.colour else (226, 130, 62) if "autumn" in p.scene.moods else "leaf"
    )
    trees.round_tree(
        p.canvas,
        rng,
        x,
        y,
        0.27 * k,
        p.palette.dim(colour, 0.22),
        p.palette.light(colour, 0.12),
        p.light_from,
    )


def _palm(p: Painting, thing: Thing, rng: RandomStream, x: float, y: float, k: float) -> None:
    lean = -1.0 if x > p.w / 2 else 1.0
    trees.palm(p.canvas, rng, x, y, 0.27 * k, p.colour(thing.colour, "leaf"), p.palette.of("wood"), lean)


def _pine(p: Painting, thing: Thing, rng: RandomStream, x: float, y: float, k: float) -> None:
    colour = p.colour(thing.colour, "pine")
    trees.pine(p.canvas, x, y, 0.28 * k, colour, p.palette.light(colour, 0.25), p.light_from)


def _cactus(p: Painting, thing: Thing, rng: RandomStream, x: float, y: float, k: float) -> None:
    colour = p.palette.dim(p.colour(thing.colour, "leaf"), 0.12)
    p.canvas.ellipse(
        x - p.light_from * 0.05, y, 0.07 * k, 0.010, p.palette.dim(p.palette.of("sand"), 0.5), 0.5
    )
    trees.cactus(p.canvas, x, y, 0.21 * k, colour, p.palette.light(colour, 0.35), p.light_from)


def _house(p: Painting, thing: Thing, rng: RandomStream, x: float, y: float, k: float) -> None:
    buildings.house(p, rng, x, y, 0.17 * k, thing.colour)


def _tower(p: Painting, thing: Thing, rng: RandomStream, x: float, y: float, k: float) -> None:
    buildings.tower(p, x, y, 0.27 * k)


def _castle(p: Painting, thing: Thing, rng: RandomStream, x: float, y: float, k: float) -> None:
    buildings.castle(p, x, y, 0.26 * k)


def _lighthouse(p: Painting, thing: Thing, rng: RandomStream, x: float, y: float, k: float) -> None:
    base = p.shore + 0.10 if p.shore is not None and p.scene.subject in ("sea", "island") else y
    buildings.lighthouse(p, x, base, 0.30 * k, thing.colour)


def _windmill(p: Painting, thing: Thing, rng: RandomStream, x: float, y: float, k: float) -> None:
    buildings.windmill(p, x, y, 0.28 * k)


def _fence(p: Painting, thing: Thing, rng: RandomStream, x: float, y: float, k: float) -> None:
    white = p.colour(thing.colour, "white")
    half = 0.22
    for dy in (0.020, 0.042):
        p.canvas.rect(x - half, y - dy, x + half, y - dy + 0.009, p.palette.dim(white, 0.1))
    for i in range(10):
        cx = x - half + 2 * half * i / 9
        p.canvas.polygon(
            (
                (cx - 0.008, y),
                (cx - 0.008, y - 0.056),
                (cx, y - 0.068),
                (cx + 0.008, y - 0.056),
                (cx + 0.008, y),
            ),
            white,
        )


def _flowers(p: Painting, thing: Thing, rng: RandomStream, x: float, y: float, k: float) -> None:
    kinds = ((236, 80, 80), (255, 206, 84), (246, 150, 190), (250, 246, 236))
    wanted = (NAMED[thing.colour],) if thing.colour else kinds
    trees.flowers(p, "asked flowers", p.h - 0.17, p.h, tuple(p.palette.of(c) for c in wanted), 60)


def _campfire(p: Painting, thing: Thing, rng: RandomStream, x: float, y: float, k: float) -> None:
    canvas, s = p.canvas, 0.075 * k
    canvas.glow(x, y - 0.4 * s, 3.6 * s, 2.6 * s, (255, 150, 60), 0.62 if p.palette.dark else 0.3)
    wood = p.palette.of("wood")
    canvas.line(((x - 0.7 * s, y), (x + 0.6 * s, y - 0.28 * s)), 0.2 * s, wood)
    canvas.line(((x + 0.7 * s, y), (x - 0.6 * s, y - 0.28 * s)), 0.2 * s, p.palette.dim(wood, 0.2))
    for size, tone in ((1.0, (250, 110, 40)), (0.68, (255, 176, 60)), (0.38, (255, 240, 170))):
        w, h = 0.52 * s * size, 1.5 * s * size
        canvas.polygon(
            (
                (x, y - 0.1 * s),
                (x - w, y - 0.25 * s - 0.2 * h),
                (x - 0.5 * w, y - 0.55 * h),
                (x - 0.25 * w, y - 0.45 * h),
                (x + 0.1 * w, y - h),
                (x + 0.45 * w, y - 0.5 * h),
                (x + 0.75 * w, y - 0.62 * h),
                (x + w, y - 0.2 * s - 0.15 * h),
            ),
            tone,
        )
    for _ in range(5):
        canvas.ellipse(
            x + rng.uniform(-0.8, 0.8) * s,
            y - rng.uniform(1.4, 2.6) * s,
            0.05 * s,
            0.05 * s,
            (255, 200, 110),
            0.9,
        )


def _rocket(p: Painting, thing: Thing, rng: RandomStream, x: float, y: float, k: float) -> None:
    canvas, palette = p.canvas, p.palette
    s = 0.22 * k
    flying = p.scene.subject == "space" or p.scene.style == "futuristic"
    base = rng.uniform(0.36, 0.46) * p.h if flying else y
    white = mix(palette.of("white"), (255, 255, 255), 0.5)
    red = NAMED[thing.colour or "red"]
    if flying:
        canvas.glow(x, base + 0.2 * s, 0.35 * s, 0.7 * s, (255, 170, 70), 0.7)
        for w, h, tone in ((0.12, 0.5, (255, 130, 40)), (0.07, 0.34, (255, 220, 120))):
            canvas.polygon(((x - w * s, base), (x, base + h * s), (x + w * s, base)), tone)
    canvas.polygon(
        ((x - 0.12 * s, base - 0.25 * s), (x - 0.26 * s, base + 0.04 * s), (x - 0.08 * s, base)), red
    )
    canvas.polygon(
        ((x + 0.12 * s, base - 0.25 * s), (x + 0.26 * s, base + 0.04 * s), (x + 0.08 * s, base)),
        palette.dim(red, 0.3),
    )
    body = [
        (x + 0.15 * s * sine(0.04 + 0.40 * t / 16) * (1.05 - 0.2 * t / 16), base - s * t / 16)
        for t in range(17)
    ]
    canvas.polygon(body + [(2 * x - px, py) for px, py in body[::-1]], white)
    canvas.polygon(body + [(x + 0.35 * (px - x), py) for px, py in body[::-1]], (176, 184, 206))
    nose = [point for point in body if point[1] < base - 0.74 * s]
    canvas.polygon(nose + [(2 * x - px, py) for px, py in nose[::-1]], red)
    canvas.ellipse(x, base - 0.56 * s, 0.07 * s, 0.07 * s, (70, 90, 130))
    canvas.ellipse(x - 0.01 * s, base - 0.57 * s, 0.045 * s, 0.045 * s, (150, 214, 250))


def _planet(p: Painting, thing: Thing, rng: RandomStream, x: float, y: float, k: float) -> None:
    ringed_planet(p, x, y, 0.085 * k, NAMED[thing.colour] if thing.colour else (226, 178, 120), True)


def ringed_planet(
    p: Painting, x: float, y: float, r: float, colour: tuple[int, int, int], ring: bool
) -> None:
    """A banded planet, lit from the side, with or without a ring."""
    canvas = p.canvas
    light, dark = mix(colour, (255, 255, 255), 0.28), mix(colour, p.palette.sky[0], 0.62)
    canvas.glow(x, y, 1.5 * r, 1.5 * r, light, 0.30)
    if ring:
        _ring(p, x, y, r, light, 0.5, 1.0)
    canvas.disc(
        x,
        y,
        r,
        (
            (0.0, light),
            (0.28, colour),
            (0.36, light),
            (0.5, mix(colour, dark, 0.2)),
            (0.58, colour),
            (1.0, mix(colour, dark, 0.35)),
        ),
    )
    side = -p.light_from
    limb = [(x + side * r * sine(t / 48), y - r * cosine(t / 48)) for t in range(25)]
    for k in (0.70, 0.52, 0.34, 0.16):  # the night side, darker in steps
        inner = [(x + side * r * k * sine(t / 48), y - r * cosine(t / 48)) for t in range(25)]
        canvas.polygon(limb + inner[::-1], dark, 0.34)
    if ring:
        _ring(p, x, y, r, light, 0.0, 0.5)


def _ring(
    p: Painting, x: float, y: float, r: float, colour: tuple[int, int, int], start: float, end: float
) -> None:
    for reach, thick, alpha in ((1.95, 0.16, 0.85), (1.62, 0.10, 0.6)):
        arc = []
        for i in range(33):
            a = start + (end - start) * i / 32
            dx, dy = reach * r * cosine(a), 0.34 * reach * r * sine(a)
            arc.append((x + dx, y + dy - 0.22 * dx))
        p.canvas.line(arc, thick * r, colour, alpha)


def _balloon(p: Painting, thing: Thing, rng: RandomStream, x: float, y: float, k: float) -> None:
    canvas, palette, r = p.canvas, p.palette, 0.068 * k
    tones = [palette.of(c) for c in ((226, 84, 70), (250, 200, 90), (70, 150, 180))]
    first = palette.of(NAMED[thing.colour]) if thing.colour else rng.choice(tones)
    second = mix(palette.of("white"), palette.glow, 0.2)

    def gores(k0: float, k1: float) -> list[tuple[float, float]]:
        side = [(_envelope(t / 20, r), y - r + 2.5 * r * t / 20) for t in range(21)]
        return [(x + k0 * w, cy) for w, cy in side] + [(x + k1 * w, cy) for w, cy in side[::-1]]

    for i in range(6):
        k0, k1 = -cosine(i / 12), -cosine((i + 1) / 12)
        canvas.polygon(gores(k0, k1), first if i % 2 == 0 else second)
    shade = (-1.0, -0.35) if p.light_from > 0 else (0.35, 1.0)
    canvas.polygon(gores(*shade), palette.dim(first, 0.5), 0.35)
    bottom = y + 1.5 * r
    wood = palette.of("wood")
    for dx in (-0.2, 0.2):
        canvas.line(((x + dx * r, bottom - 0.05 * r), (x + 0.8 * dx * r, bottom + 0.42 * r)), 0.03 * r, wood)
    canvas.rect(x - 0.2 * r, bottom + 0.38 * r, x + 0.2 * r, bottom + 0.66 * r, wood)


def _envelope(t: float, r: float) -> float:
    """Half the width of a balloon at the part t of its height, from the top."""
    round_part = sine(0.02 + 0.48 * t * (1 - 0.28 * t)) * 1.02
    return r * max(0.18, round_part) if t > 0.5 else r * round_part


def _rocks(p: Painting, thing: Thing, rng: RandomStream, x: float, y: float, k: float) -> None:
    rock = p.palette.of("rock")
    for i in range(4):
        cx, r = x + (i - 1.5) * 0.055, rng.uniform(0.028, 0.058) * k
        body = [
            (cx - 1.2 * r, y + 0.3 * r),
            (cx - 0.8 * r, y - 0.7 * r),
            (cx - 0.1 * r, y - 1.1 * r),
            (cx + 0.8 * r, y - 0.5 * r),
            (cx + 1.2 * r, y + 0.3 * r),
        ]
        p.canvas.shade([body], ((0.0, p.palette.light(rock, 0.25)), (1.0, p.palette.dim(rock, 0.35))))


def _pyramid(p: Painting, thing: Thing, rng: RandomStream, x: float, y: float, k: float) -> None:
    stone = p.colour(thing.colour, "sand", 0.12)
    half, tall, foot = 0.17 * k, 0.20 * k, y - 0.06
    edge = x - p.light_from * 0.3 * half
    lit, shaded = x + p.light_from * half, x - p.light_from * half
    light, dark = p.palette.light(stone, 0.25), p.palette.dim(stone, 0.34)
    p.canvas.shade([[(x, foot - tall), (lit, foot), (edge, foot + 0.03)]], ((0.0, light), (1.0, stone)))
    p.canvas.shade([[(x, foot - tall), (shaded, foot), (edge, foot + 0.03)]], ((0.0, dark), (1.0, stone)))
    for i in range(1, 6):
        t = i / 6
        a, b = x + (lit - x) * t, x + (edge - x) * t
        p.canvas.line(((a, foot - tall * (1 - t)), (b, foot - tall + (tall + 0.03) * t)), 0.002, dark, 0.35)


_PAINT: dict[str, Callable[[Painting, Thing, RandomStream, float, float, float], None]] = {
    "boat": _boat,
    "ship": _ship,
    "tree": _tree,
    "palm": _palm,
    "pine": _pine,
    "cactus": _cactus,
    "house": _house,
    "tower": _tower,
    "castle": _castle,
    "lighthouse": _lighthouse,
    "windmill": _windmill,
    "fence": _fence,
    "flowers": _flowers,
    "campfire": _campfire,
    "rocket": _rocket,
    "planet": _planet,
    "balloon": _balloon,
    "rocks": _rocks,
    "pyramid": _pyramid,
}
_ORDER = (
    "planet",
    "balloon",
    "flyer",
    "pyramid",
    "castle",
    "lighthouse",
    "tower",
    "windmill",
    "house",
    "tree",
    "pine",
    "palm",
    "cactus",
    "ship",
    "boat",
    "rocks",
    "rocket",
    "campfire",
    "flowers",
    "fence",
    *sorted(PAINTED_BY_SUBJECT),
)
