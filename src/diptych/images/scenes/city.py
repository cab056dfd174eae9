"""Paints skylines: towers with steps, slanted roofs and spires; in the future tapered towers, domes and air traffic."""

from __future__ import annotations

from diptych.images.scenes.canvas import Colour, Point, mix
from diptych.images.scenes.painting import Painting
from diptych.images.scenes.rng import RandomStream, cosine, sine, smooth

NEON: tuple[Colour, ...] = ((84, 244, 255), (255, 92, 206), (255, 214, 110), (150, 120, 255))


def _room_for_sun(p: Painting, x: float, base: float) -> float:
    """A factor for heights, below 1 near a low sun, so that the buildings do not hide it."""
    if p.luminary is None or p.luminary.y < base - 0.55:
        return 1.0
    return 0.42 + 0.58 * smooth((abs(x - p.luminary.x) - 0.6 * p.luminary.r) / 0.24)


def skyline(p: Painting, name: str, base: float, height: float, depth: float, windows: bool) -> None:
    """A row of buildings that stand at `base`, of which the tallest is about `height` high."""
    rng = p.rng.child(name)
    focus = p.w * {"left": 0.28, "right": 0.72}.get(p.scene.subject_side or "", rng.uniform(0.3, 0.7))
    futuristic = p.scene.style == "futuristic"
    x = -0.04
    while x < p.w + 0.02:
        wide = rng.uniform(0.065, 0.115) * (0.85 + 0.3 * depth)
        centre = x + wide / 2
        swell = 1.0 - 0.42 * min(1.0, abs(centre - focus) / (0.6 * p.w))
        tall = height * rng.uniform(0.45, 1.0) * swell * _room_for_sun(p, centre, base)
        if futuristic:
            _future_tower(p, rng, centre, base, wide, tall * 1.08, depth, windows)
        else:
            _building(p, rng, centre, base, wide, tall, depth, windows)
        x += wide * (rng.uniform(0.82, 1.02) if depth > 0.2 else rng.uniform(0.92, 1.12))


def _faces(p: Painting, rng: RandomStream, depth: float) -> tuple[Colour, Colour, Colour]:
    """The colours of the lit face, the shaded face and the foot."""
    tone = rng.choice(("concrete", "steel", "concrete", "stone", "steel"))
    base = p.colour(p.scene.subject_colour, tone)
    if p.palette.dark:
        base = p.palette.dim(base, 0.32)
    base = mix(base, p.palette.haze, depth)
    return (
        mix(base, p.palette.glow, 0.10),
        p.palette.dim(base, 0.26 * (1 - depth)),
        mix(base, p.palette.haze, 0.22),
    )


def _building(
    p: Painting,
    rng: RandomStream,
    x: float,
    base: float,
    wide: float,
    tall: float,
    depth: float,
    windows: bool,
) -> None:
    canvas = p.canvas
    light, dark, foot = _faces(p, rng, depth)
    half, top = wide / 2, base - tall
    kind = rng.integer(0, 5)
    side = p.light_from
    edge = x - side * half * 0.36
    if kind == 1:  # stepped
        canvas.rect(x - 0.62 * half, top - 0.10 * tall, x + 0.62 * half, top, light)
        canvas.rect(
            min(edge, x - side * 0.62 * half), top - 0.10 * tall, max(edge, x - side * 0.62 * half), top, dark
        )
    elif kind == 2:  # slanted roof
        canvas.polygon(((x - half, top), (x + half, top), (x + side * half, top - 0.30 * wide)), light)
    elif kind == 3:  # spire
        canvas.polygon(((x - 0.6 * half, top), (x, top - 0.55 * wide), (x + 0.6 * half, top)), dark)
        canvas.line(((x, top - 0.4 * wide), (x, top - 1.1 * wide)), 0.006, dark)
    elif kind == 4:  # mast
        canvas.line(((x + 0.3 * half, top), (x + 0.3 * half, top - 0.5 * wide)), 0.005, dark)
    body = [(x - half, top), (x + half, top), (x + half, base), (x - half, base)]
    canvas.shade([body], ((0.0, light), (1.0, foot)))
    flank = [(edge, top), (x - side * half, top), (x - side * half, base), (edge, base)]
    canvas.shade([flank], ((0.0, dark), (1.0, mix(dark, foot, 0.5))))
    if windows:
        _windows(p, rng, x - half, x + half, top, base, dark)
    elif p.palette.dark and depth < 0.75:
        _sparks(p, rng, x, half, top, base)


def _windows(
    p: Painting, rng: RandomStream, x0: float, x1: float, top: float, base: float, dark: Colour
) -> None:
    """A grid of windows: by night some groups are lit, by day all are dark."""
    columns = max(2, int((x1 - x0) / 0.021))
    cell = (x1 - x0) / columns
    rows = max(1, int((base - top - 0.015) / (0.030 if rng.chance(0.5) else 0.025)))
    step = (base - top - 0.015) / rows
    rate = rng.uniform(0.35, 0.65) if p.palette.dark else 0.92
    lit: list[tuple[float, float, float, float]] = []
    unlit: list[tuple[float, float, float, float]] = []
    for row in range(rows):
        y = top + 0.012 + row * step
        for column in range(columns):
            x = x0 + column * cell
            box = (x + 0.26 * cell, y, x + 0.76 * cell, y + 0.52 * step)
            (lit if rng.chance(rate) else unlit).append(box)
    if p.palette.dark:
        p.canvas.rects(lit, mix(p.palette.window, (255, 170, 80), rng.random() * 0.4))
        p.canvas.rects(unlit, mix(dark, (10, 10, 30), 0.22))
    else:
        p.canvas.rects(lit, mix(mix(dark, (60, 90, 140), 0.45), p.palette.sky[1], 0.2))


def _sparks(p: Painting, rng: RandomStream, x: float, half: float, top: float, base: float) -> None:
    """A few lit windows far away."""
    for _ in range(4):
        wx, wy = x + rng.uniform(-0.7, 0.6) * half, top + (base - top) * rng.uniform(0.1, 0.8)
        p.canvas.rect(wx, wy, wx + 0.006, wy + 0.008, mix(p.palette.window, p.palette.haze, 0.35))


# ---- the future


def _future_tower(
    p: Painting,
    rng: RandomStream,
    x: float,
    base: float,
    wide: float,
    tall: float,
    depth: float,
    windows: bool,
) -> None:
    canvas = p.canvas
    steel = p.palette.dim(p.colour(p.scene.subject_colour, "steel"), 0.30 if p.palette.dark else 0.05)
    steel = mix(mix(steel, (92, 60, 170), 0.20), p.palette.haze, depth)
    light, dark = mix(steel, p.palette.glow, 0.20), p.palette.dim(steel, 0.30 * (1 - depth))
    neon = mix(rng.choice(NEON), p.palette.haze, depth * 0.8)
    kind = rng.choice(("needle", "blade", "dome", "ring", "blade", "needle", "twin"))
    half, top = wide * 0.5, base - tall
    side = p.light_from
    if kind == "dome":
        tall *= 0.42
        top = base - tall
        _dome(p, x, base, wide * 1.05, tall, light, dark, neon)
        return
    profile = _profile(kind, half, top, base)
    outline = [(x - r, y) for r, y in profile] + [(x + r, y) for r, y in profile[::-1]]
    canvas.shade([outline], ((0.0, light), (1.0, mix(steel, p.palette.haze, 0.25))))
    flank = [(x - side * r, y) for r, y in profile] + [(x - side * r * 0.15, y) for r, y in profile[::-1]]
    canvas.shade([flank], ((0.0, dark), (1.0, mix(dark, p.palette.haze, 0.2))), 0.85)
    canvas.line(((x, top + 0.02), (x, top - 0.22 * tall * (0.6 if kind == "needle" else 0.3))), 0.005, light)
    if windows:
        _bands(p, rng, x, profile, neon)
        canvas.line([(x + side * r * 0.97, y) for r, y in profile], 0.0042, neon, 0.9)
    if kind == "ring":
        y = top + 0.24 * tall
        canvas.ellipse(x, y, half * 1.7, 0.020, dark)
        canvas.ellipse(x, y - 0.006, half * 1.7, 0.015, light)
        canvas.ellipse(x, y - 0.006, half * 1.2, 0.008, neon, 0.85)
    if p.palette.dark and windows:
        canvas.glow(x, top, 0.036, 0.05, neon, 0.42)


def _profile(kind: str, half: float, top: float, base: float) -> list[tuple[float, float]]:
    """The outline of a tower, as (half of the width, height) from top to base."""
    points = []
    for i in range(13):
        t = i / 12
        if kind == "needle":
            r = half * (0.10 + 0.90 * t * t)
        elif kind == "blade":
            r = half * (0.34 + 0.62 * smooth(t * 1.5) - 0.10 * t)
        elif kind == "ring":
            r = half * (0.50 - 0.16 * sine(t * 0.5) + 0.30 * t * t)
        else:
            r = half * (0.62 + 0.22 * sine(t * 0.5 + 0.02))
        points.append((r, top + (base - top) * t))
    return points


def _dome(
    p: Painting, x: float, base: float, wide: float, tall: float, light: Colour, dark: Colour, neon: Colour
) -> None:
    half = wide * 0.62
    drum = 0.35 * tall
    cap: list[Point] = [
        (x + half * cosine(0.5 + i / 48), base - drum - (tall - drum) * sine(i / 48)) for i in range(25)
    ]
    p.canvas.shade([[*cap, (x + half, base), (x - half, base)]], ((0.0, light), (1.0, dark)))
    for k in (-0.55, 0.0, 0.55):
        rib = [(x + k * half * cosine(t / 48), base - drum - (tall - drum) * sine(t / 48)) for t in range(13)]
        p.canvas.line(rib, 0.003, neon, 0.55)
    p.canvas.rect(x - half, base - drum - 0.006, x + half, base - drum, neon, 0.85)


def _bands(
    p: Painting, rng: RandomStream, x: float, profile: list[tuple[float, float]], neon: Colour
) -> None:
    """Lit storeys on a tower of the future."""
    top, base = profile[0][1], profile[-1][1]
    count = max(3, int((base - top) / 0.021))
    glass = p.palette.window if p.palette.dark else mix(p.palette.sky[0], (255, 255, 255), 0.55)
    boxes: dict[Colour, list[tuple[float, float, float, float]]] = {glass: [], neon: []}
    for i in range(1, count):
        t = i / count
        y = top + (base - top) * t
        at = min(11, int(t * 12))
        r = profile[at][0] + (profile[at + 1][0] - profile[at][0]) * (t * 12 - at)
        if r < 0.008 or not rng.chance(0.72):
            continue
        colour = neon if rng.chance(0.2) else glass
        a, b = rng.uniform(-0.85, 0.1) * r, rng.uniform(0.15, 0.85) * r
        boxes[colour].append((x + a, y, x + b, y + 0.0075))
    for colour, many in boxes.items():
        p.canvas.rects(many, colour)


def sky_traffic(p: Painting, top: float, bottom: float, count: int) -> None:
    """Flying vehicles with trails of light."""
    rng, canvas = p.rng.child("traffic"), p.canvas
    for i in range(count):
        x, y = rng.uniform(0.08, 0.92) * p.w, top + (bottom - top) * (i + rng.random()) / count
        s, way = rng.uniform(0.020, 0.034), rng.choice((-1.0, 1.0))
        neon = NEON[i % 2]
        canvas.polygon(
            ((x - way * s, y - 0.006), (x - way * 5.5 * s, y), (x - way * s, y + 0.006)), neon, 0.45
        )
        canvas.ellipse(x, y, s, 0.30 * s, p.palette.dim(p.palette.of("steel"), 0.35))
        canvas.ellipse(x + 0.15 * way * s, y - 0.2 * s, 0.5 * s, 0.26 * s, mix(neon, (255, 255, 255), 0.35))
        canvas.glow(x - way * s, y, 1.3 * s, 0.9 * s, neon, 0.7)


def sky_bridges(p: Painting, base: float, height: float) -> None:
    """Lit tubes between the towers."""
    rng = p.rng.child("bridges")
    for _ in range(2):
        x, y = rng.uniform(0.1, 0.6) * p.w, base - height * rng.uniform(0.2, 0.42)
        wide = rng.uniform(0.2, 0.32)
        p.canvas.rect(x, y, x + wide, y + 0.011, p.palette.dim(p.palette.of("steel"), 0.4))
        p.canvas.rect(x, y + 0.003, x + wide, y + 0.007, mix(rng.choice(NEON[:2]), p.palette.haze, 0.1))
