"""Paints trees, cacti, grass and flowers. Positions and sizes are in the units of `Canvas`."""

from __future__ import annotations

from diptych.images.scenes.canvas import Canvas, Colour, Point, mix
from diptych.images.scenes.painting import Painting
from diptych.images.scenes.rng import RandomStream, cosine, sine


def pine(canvas: Canvas, x: float, y: float, h: float, colour: Colour, light: Colour, side: float) -> None:
    """A fir of four tiers that stands at (x, y), lighter on the side of the sun."""
    canvas.rect(x - 0.03 * h, y - 0.12 * h, x + 0.03 * h, y, mix(colour, (50, 30, 30), 0.5))
    outline: list[Point] = [(x, y - h)]
    left: list[Point] = []
    for i in range(4):
        t = (i + 1) / 4
        w, foot = 0.24 * h * (0.25 + 0.75 * t), y - h + 0.92 * h * t
        outline += [(x + w, foot), (x + 0.5 * w, foot - 0.02 * h)]
        left = [(x - 0.5 * w, foot - 0.02 * h), (x - w, foot), *left]
    canvas.polygon(outline + left, colour)
    for i in range(4):
        t = (i + 1) / 4
        w, foot = 0.24 * h * (0.25 + 0.75 * t), y - h + 0.92 * h * t
        canvas.polygon(
            (
                (x, foot - 0.25 * h),
                (x + side * w * 0.92, foot - 0.004 * h),
                (x + side * 0.2 * w, foot - 0.05 * h),
            ),
            light,
        )


def plain_pine(x: float, y: float, h: float) -> list[Point]:
    """The outline of a distant fir."""
    w = 0.19 * h
    return [
        (x, y - h),
        (x + 0.5 * w, y - 0.62 * h),
        (x + 0.3 * w, y - 0.62 * h),
        (x + 0.8 * w, y - 0.3 * h),
        (x + 0.5 * w, y - 0.3 * h),
        (x + w, y),
        (x - w, y),
        (x - 0.5 * w, y - 0.3 * h),
        (x - 0.8 * w, y - 0.3 * h),
        (x - 0.3 * w, y - 0.62 * h),
        (x - 0.5 * w, y - 0.62 * h),
    ]


def round_tree(
    canvas: Canvas,
    rng: RandomStream,
    x: float,
    y: float,
    h: float,
    colour: Colour,
    light: Colour,
    side: float,
) -> None:
    """A broad-leaved tree: a trunk, a fork and a crown of overlapping discs."""
    bark = mix(colour, (70, 40, 36), 0.72)
    canvas.polygon(
        (
            (x - 0.045 * h, y),
            (x - 0.022 * h, y - 0.45 * h),
            (x + 0.022 * h, y - 0.45 * h),
            (x + 0.045 * h, y),
        ),
        bark,
    )
    canvas.line(((x, y - 0.32 * h), (x + 0.13 * h, y - 0.52 * h)), 0.022 * h, bark)
    rounds = [
        (0.0, 0.70, 0.27),
        (-0.19, 0.56, 0.19),
        (0.20, 0.57, 0.20),
        (-0.08, 0.52, 0.18),
        (0.10, 0.80, 0.17),
    ]
    placed = [
        (x + (dx + rng.uniform(-0.03, 0.03)) * h, y - dy * h, r * h * rng.uniform(0.92, 1.08))
        for dx, dy, r in rounds
    ]
    for cx, cy, r in placed:
        canvas.ellipse(cx, cy, r, r * 0.94, colour)
    for cx, cy, r in placed:
        canvas.ellipse(cx + side * 0.2 * r, cy - 0.22 * r, r * 0.70, r * 0.60, light, 0.55)
    for cx, cy, r in placed[:3]:
        canvas.ellipse(
            cx + side * 0.36 * r, cy - 0.42 * r, r * 0.32, r * 0.22, mix(light, (255, 255, 220), 0.2), 0.6
        )


def cypress(canvas: Canvas, x: float, y: float, h: float, colour: Colour, light: Colour, side: float) -> None:
    """A cypress, slender and pointed."""
    w = 0.13 * h

    def flame(k: float, shift: float) -> list[Point]:
        return [
            (
                x + shift + k * w * 1.05 * sine(t / 40),
                y - h * (t / 20) * (0.6 + 0.4 * t / 20) * (0.4 + 0.6 * k),
            )
            for t in range(21)
        ] + [
            (
                x + shift - k * w * 1.05 * sine(t / 40),
                y - h * (t / 20) * (0.6 + 0.4 * t / 20) * (0.4 + 0.6 * k),
            )
            for t in range(20, -1, -1)
        ]

    canvas.polygon(flame(1.0, 0.0), colour)
    canvas.polygon(flame(0.45, side * 0.25 * w), light, 0.5)


def palm(
    canvas: Canvas, rng: RandomStream, x: float, y: float, h: float, colour: Colour, bark: Colour, lean: float
) -> None:
    """A palm with a bent trunk and seven drooping fronds."""
    top = (x + lean * 0.32 * h, y - h)
    trunk = []
    for i in range(11):
        t = i / 10
        trunk.append((x + lean * 0.32 * h * t * t, y - h * t))
    left = [(px - (0.034 - 0.016 * i / 10) * h, py) for i, (px, py) in enumerate(trunk)]
    right = [(px + (0.034 - 0.016 * i / 10) * h, py) for i, (px, py) in enumerate(trunk)]
    canvas.polygon(left + right[::-1], bark)
    for i, (px, py) in enumerate(trunk[1:-1]):
        if i % 2:
            canvas.line(
                ((px - 0.022 * h, py), (px + 0.022 * h, py - 0.012 * h)),
                0.008 * h,
                mix(bark, (0, 0, 0), 0.25),
            )
    shades = (mix(colour, (0, 20, 30), 0.28), colour, mix(colour, (240, 255, 160), 0.2))
    for order, reach in enumerate((-0.92, 0.90, -0.62, 0.64, -0.35, 0.30, 0.02)):
        _frond(
            canvas,
            top,
            reach * h * 0.60 * rng.uniform(0.92, 1.08),
            0.34 * h * rng.uniform(0.8, 1.1),
            abs(reach),
            shades[order // 3],
        )
    canvas.ellipse(top[0], top[1] + 0.02 * h, 0.035 * h, 0.03 * h, mix(bark, (60, 30, 20), 0.4))


def _frond(canvas: Canvas, top: Point, dx: float, size: float, flatness: float, colour: Colour) -> None:
    x, y = top
    rise, drop = (0.62 - 0.30 * flatness) * size, (0.15 + 0.55 * flatness) * size
    over, under = [], []
    for i in range(9):
        t = i / 8
        cx, cy = x + dx * t, y - rise * 4 * t * (1 - t) * 0.9 + drop * t * t
        thick = 0.17 * size * (4 * t * (1 - t) * (1.15 - 0.5 * t) + 0.10 * (1 - t))
        over.append((cx, cy - 0.35 * thick))
        under.append((cx, cy + 0.9 * thick + (0.05 * size if i % 2 else 0.0) * (t > 0.15) * (1 - t)))
    canvas.polygon(over + under[::-1], colour)


def cactus(canvas: Canvas, x: float, y: float, h: float, colour: Colour, light: Colour, side: float) -> None:
    """A saguaro with two arms."""
    t = 0.085 * h
    _rounded(canvas, x, y, y - h, t, colour)
    for direction, level, reach, up in ((-1.0, 0.38, 0.24, 0.34), (1.0, 0.50, 0.22, 0.28)):
        ax = x + direction * reach * h
        canvas.line(((x, y - level * h), (ax, y - level * h)), 1.3 * t, colour)
        canvas.ellipse(ax, y - level * h, 0.65 * t, 0.65 * t, colour)
        _rounded(canvas, ax, y - level * h, y - (level + up) * h, 0.68 * t, colour)
        canvas.line(
            ((ax + side * 0.2 * t, y - level * h), (ax + side * 0.2 * t, y - (level + up * 0.9) * h)),
            0.26 * t,
            light,
        )
    canvas.line(((x + side * 0.35 * t, y), (x + side * 0.35 * t, y - 0.95 * h)), 0.4 * t, light)


def _rounded(canvas: Canvas, x: float, y0: float, y1: float, half: float, colour: Colour) -> None:
    canvas.rect(x - half, y1 + half, x + half, y0, colour)
    canvas.ellipse(x, y1 + half, half, half, colour)


def tree_line(p: Painting, name: str, y: float, height: float, colour: Colour, bumps: bool = False) -> None:
    """A distant row of firs, or of round crowns if `bumps`, along a level line."""
    rng = p.rng.child(name)
    x = -0.02
    while x < p.w + 0.02:
        h = height * rng.uniform(0.55, 1.1)
        if bumps:
            p.canvas.ellipse(x, y - 0.3 * h, 0.55 * h, 0.62 * h, colour)
        else:
            p.canvas.polygon(plain_pine(x, y + 0.2 * h, 1.2 * h), colour)
        x += height * rng.uniform(0.25, 0.6)
    p.canvas.rect(0, y - 0.15 * height, p.w, y + 0.1 * height, colour)


def grass_fringe(
    p: Painting, name: str, y: float, height: float, colour: Colour, density: float = 60.0
) -> None:
    """Blades of grass along the lower edge of the picture."""
    rng = p.rng.child(name)
    for _ in range(int(density * p.w)):
        x = rng.uniform(-0.02, p.w + 0.02)
        h, lean = height * rng.uniform(0.4, 1.0), rng.uniform(-0.35, 0.35)
        p.canvas.polygon(
            ((x - 0.005, y), (x + lean * h * 0.4, y - 0.6 * h), (x + lean * h, y - h), (x + 0.005, y)), colour
        )


def flowers(
    p: Painting, name: str, top: float, bottom: float, colours: tuple[Colour, ...], count: int
) -> None:
    """Flowers scattered over the ground, larger in front."""
    rng = p.rng.child(name)
    stem = p.palette.dim(p.palette.of("leaf"), 0.2)
    spots = sorted((rng.random(), rng.uniform(0, p.w), rng.random()) for _ in range(int(count * p.w)))
    for t, x, kind in spots:
        y = top + (bottom - top) * (0.35 * t + 0.65 * t * t)
        r = 0.004 + 0.011 * t
        colour = colours[int(kind * len(colours))]
        p.canvas.line(((x, y), (x, y + 2.6 * r)), 0.4 * r, stem)
        if r * p.canvas.scale < 7:
            p.canvas.ellipse(x, y, r, 0.85 * r, colour)
            continue
        for i in range(5):
            p.canvas.ellipse(
                x + 0.7 * r * cosine(i / 5 + kind),
                y + 0.6 * r * sine(i / 5 + kind),
                0.55 * r,
                0.5 * r,
                colour,
            )
        p.canvas.ellipse(x, y, 0.36 * r, 0.32 * r, p.palette.of((255, 216, 90)))
