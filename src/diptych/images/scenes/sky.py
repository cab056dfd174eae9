"""Paints the sky with sun and moon, clouds, stars, birds, aurora and rainbow."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from diptych.images.scenes.canvas import Colour, mix, ramp
from diptych.images.scenes.painting import Luminary, Painting
from diptych.images.scenes.rng import Floats, RandomStream, cosine, sine, sines

_BAND = 256  # rows painted at a time, so that a large picture does not need gigabytes
_CIRCLE = tuple((cosine(i / 28), sine(i / 28)) for i in range(28))


def paint_sky(p: Painting, horizon: float) -> None:
    """The gradient down to the horizon, with the glow around the sun or the moon."""
    canvas, sky = p.canvas, p.palette.sky
    shown = min(canvas.height, max(8, int((horizon + 0.06 * p.h) / canvas.pixel)))
    rows = canvas.height if p.scene.subject == "temple" else shown  # a plateau is surrounded by sky
    gaps = len(sky) - 1
    column = ramp([(i * shown / (gaps * rows), colour) for i, colour in enumerate(sky)], rows)
    for first in range(0, rows, _BAND):
        band = column[first : first + _BAND]
        values = np.empty((len(band), canvas.width, 3), np.float32)
        values[:] = band[:, None, :]
        if p.luminary is not None:
            _add_glow(p, values, first, p.luminary)
        canvas.put_rows(first * canvas.pixel, values)
    if rows < canvas.height:
        canvas.rect(0, rows * canvas.pixel, p.w, p.h, p.palette.haze)


def _add_glow(p: Painting, values: npt.NDArray[np.float32], first: int, luminary: Luminary) -> None:
    """Adds the light around the sun or the moon to the rows of the sky from `first` on."""
    rows, columns, _ = values.shape
    pixel, half = np.float32(p.canvas.pixel), np.float32(0.5)
    across = (np.arange(columns, dtype=np.float32) + half) * pixel - np.float32(luminary.x)
    down = (np.arange(first, first + rows, dtype=np.float32) + half) * pixel - np.float32(luminary.y)
    dx, dy = across[None, :], down[:, None]
    moon = luminary.kind != "sun"
    wide = np.float32(1.0 if moon else 0.55)  # a low sun lights a wide band
    reach = np.float32(luminary.r * (2.2 if moon else 3.4))
    near = 1 / (1 + (dx * dx + dy * dy) / (reach * reach))
    far = 1 / (1 + (dx * dx * wide * wide + dy * dy) / np.float32(0.30 * 0.30))
    strength = near * near * np.float32(0.55 if moon else 0.62)
    strength += far * far * np.float32(0.14 if moon else 0.34)
    light = np.asarray(mix(luminary.colour, p.palette.glow, 0.35), np.float32)
    values += (light - values) * strength[..., None]


def paint_stars(p: Painting, bottom: float, many: float = 1.0) -> None:
    """Stars of three sizes, fewer towards the horizon."""
    rng, canvas = p.rng.child("stars"), p.canvas
    least = 0.55 * canvas.pixel
    for i in range(int(90 * many * p.w * p.h)):
        x, drop = rng.uniform(0, p.w), rng.random()
        y = drop * bottom
        size, bright = rng.random(), rng.uniform(0.45, 1.0) * (1.0 - 0.7 * drop)
        tone = rng.choice(((255, 255, 255), (214, 228, 255), (255, 240, 214)))
        if p.luminary and _near(p.luminary, x, y, 1.5):
            continue
        if i % 13 == 0:
            r = max(1.3 * least, 0.0052 + 0.004 * size)
            _twinkle(p, x, y, r, tone)
        else:
            r = max(least, 0.0016 + 0.0016 * size)
            canvas.ellipse(x, y, r, r, tone, min(1.0, bright + 0.15))


def _twinkle(p: Painting, x: float, y: float, r: float, tone: Colour) -> None:
    p.canvas.glow(x, y, 3.2 * r, 3.2 * r, tone, 0.35)
    k = 0.22 * r
    p.canvas.polygon(
        (
            (x, y - 1.6 * r),
            (x + k, y - k),
            (x + 1.6 * r, y),
            (x + k, y + k),
            (x, y + 1.6 * r),
            (x - k, y + k),
            (x - 1.6 * r, y),
            (x - k, y - k),
        ),
        tone,
    )
    p.canvas.ellipse(x, y, 0.5 * r, 0.5 * r, (255, 255, 255))


def _near(luminary: Luminary, x: float, y: float, radii: float) -> bool:
    dx, dy, reach = x - luminary.x, y - luminary.y, luminary.r * radii
    return dx * dx + dy * dy < reach * reach


def paint_luminary(p: Painting) -> None:
    """A sun with a soft rim, a moon with its dark areas, or a crescent."""
    luminary = p.luminary
    if luminary is None:
        return
    canvas, x, y, r, colour = p.canvas, luminary.x, luminary.y, luminary.r, luminary.colour
    if luminary.kind == "sun":
        for k, alpha in ((1.75, 0.10), (1.38, 0.16)):
            canvas.ellipse(x, y, k * r, k * r, mix(colour, (255, 255, 255), 0.15), alpha)
        core = mix(colour, (255, 246, 210), 0.25 if colour[1] < 90 else 0.62)
        canvas.disc(x, y, r, ((0.0, core), (1.0, mix(colour, core, 0.3))))
    elif luminary.kind == "moon":
        canvas.ellipse(x, y, 1.3 * r, 1.3 * r, colour, 0.10)
        canvas.disc(
            x, y, r, ((0.0, mix(colour, (255, 255, 255), 0.3)), (1.0, mix(colour, (120, 130, 170), 0.10)))
        )
        sea = mix(colour, (120, 130, 160), 0.22)
        for dx, dy, size in ((-0.35, -0.2, 0.26), (0.25, 0.3, 0.2), (0.1, -0.45, 0.14), (-0.25, 0.45, 0.12)):
            canvas.ellipse(x + dx * r, y + dy * r, size * r, size * r, sea)
    else:
        _crescent(p, luminary)


def _crescent(p: Painting, luminary: Luminary) -> None:
    x, y, r = luminary.x, luminary.y, luminary.r
    outer = [(x + r * cosine(i / 48 + 0.18), y + r * sine(i / 48 + 0.18)) for i in range(31)]
    (x0, y0), (x1, y1) = outer[0], outer[-1]
    inner = []
    for i in range(1, 24):
        t = i / 24
        bulge = 1.0 * t * (1 - t) * r
        inner.append((x1 + (x0 - x1) * t - 0.9 * bulge, y1 + (y0 - y1) * t + 0.9 * bulge))
    p.canvas.shade([outer + inner], ((0.0, (255, 255, 250)), (1.0, luminary.colour)))


# ---- clouds


def paint_clouds(p: Painting, top: float, bottom: float) -> None:
    """The clouds of the scene between two heights: heaps by day, bands at sunset, a closed cover if overcast."""
    rng, amount = p.rng.child("clouds"), p.scene.clouds
    if amount in (None, "none"):
        return
    calm = "serene" in p.scene.moods or "minimal" in p.scene.moods
    bands = p.scene.time in ("dawn", "sunset", "dusk") and rng.chance(0.45 if not calm else 0.8)
    if amount == "many":
        _cover(p, rng, top, bottom)
        return
    count = rng.integer(3, 4) if amount == "some" else 6
    places = [(i + rng.uniform(0.15, 0.85)) / count * p.w for i in range(count)]
    for i, x in enumerate(places):
        level = (i * 0.618 + rng.uniform(0, 0.25)) % 1.0
        y = top + (bottom - top) * (0.12 + 0.72 * level)
        size = rng.uniform(0.10, 0.17) * (1.15 - 0.55 * level)
        if (
            p.luminary and abs(y - p.luminary.y) < p.luminary.r + 0.9 * size
        ):  # do not cover the sun or the moon
            reach = p.luminary.r + size * (2.0 if bands else 1.5)
            if abs(x - p.luminary.x) < reach:
                x = p.luminary.x + (reach if x > p.luminary.x else -reach)
        if bands:
            band_cloud(p, rng, x, y, size * 1.9)
        else:
            heap_cloud(p, rng, x, y, size)


def _cover(p: Painting, rng: RandomStream, top: float, bottom: float) -> None:
    """A closed cover: rows of heaps, of which the lowest are far away, thin and uneven."""
    p.canvas.veil(0.0, top, p.palette.cloud_dark, 0.85, 0.75)
    p.canvas.veil(top, bottom, p.palette.cloud_dark, 0.75, 0.0)
    for row in range(4):
        level = 1.0 - row / 3
        y = top + (bottom - top) * (0.02 + 0.74 * level)
        count = 7 - row
        for i in range(count + 1):
            x = (i + rng.uniform(-0.3, 0.3)) / count * p.w
            size = rng.uniform(0.13, 0.19) * (1.25 - 0.65 * level)
            heap_cloud(p, rng, x, y + rng.uniform(-0.02, 0.02), size, 0.92 - 0.35 * level, level * 0.4)


def heap_cloud(
    p: Painting, rng: RandomStream, x: float, y: float, size: float, alpha: float = 0.94, depth: float = 0.0
) -> None:
    """A cloud with round tops over a flat base, lit from above and from the side of the sun."""
    puffs = rng.integer(4, 6)
    discs = []
    for i in range(puffs):
        t = (i + 0.5) / puffs * 2 - 1
        r = size * (0.30 + 0.34 * (1 - t * t)) * rng.uniform(0.85, 1.15)
        discs.append((x + t * size * 1.05, y - 0.42 * r, r))
    light = mix(p.palette.cloud_light, p.palette.haze, depth)
    dark = mix(p.palette.cloud_dark, p.palette.haze, depth)
    ends = ((1.15, 0.16), (1.24, 0.145), (1.31, 0.10), (1.34, 0.04), (1.33, 0.0))
    base = [(x + k * size, y - up * size) for k, up in ends]
    base += [(x - k * size, y - up * size) for k, up in reversed(ends)]
    shapes = [_cut_disc(cx, cy, r, y) for cx, cy, r in discs]
    p.canvas.shade([*shapes, base], ((0.0, light), (0.55, mix(light, dark, 0.35)), (1.0, dark)), alpha)
    lift = 0.10 * size
    tops = [
        _cut_disc(cx + p.light_from * 0.5 * lift, cy - lift * 0.2, r * 0.72, y - 0.12 * size)
        for cx, cy, r in discs
    ]
    p.canvas.shade(
        tops, ((0.0, mix(light, (255, 255, 255), 0.25)), (1.0, mix(light, dark, 0.30))), alpha * 0.6
    )


def _cut_disc(x: float, y: float, r: float, floor: float) -> list[tuple[float, float]]:
    return [(x + r * c, min(floor, y + r * s)) for c, s in _CIRCLE]


def band_cloud(p: Painting, rng: RandomStream, x: float, y: float, size: float) -> None:
    """Long thin bands, brightest underneath, as low sun lights them."""
    for i in range(rng.integer(3, 5)):
        half = size * rng.uniform(0.35, 0.9)
        thick = size * rng.uniform(0.07, 0.13)
        cx, cy = x + rng.uniform(-0.4, 0.4) * size, y + (i - 1.5) * thick * 0.9
        p.canvas.stroke(
            cx, cy, half, thick, mix(p.palette.cloud_dark, p.palette.cloud_light, 0.25 + 0.12 * i), 0.62
        )
        p.canvas.stroke(cx, cy + 0.3 * thick, half * 0.8, thick * 0.4, p.palette.cloud_light, 0.7)


def cloud_bank(p: Painting, name: str, x: float, y: float, size: float, alpha: float = 0.95) -> None:
    """A low bank of clouds: three heaps that overlap."""
    rng = p.rng.child(name)
    for dx, dy, k in ((-0.9, 0.06, 0.62), (0.85, 0.09, 0.66), (0.0, 0.16, 0.9)):
        heap_cloud(p, rng, x + dx * size, y + dy * size, size * k * rng.uniform(0.9, 1.1), alpha)


# ---- birds, aurora, rainbow


def paint_birds(p: Painting, top: float, bottom: float) -> None:
    """A small flock of birds, each drawn as two curved wings."""
    rng = p.rng.child("birds")
    dark = p.scene.time in ("night", "dusk")
    colour = (196, 206, 232) if dark else mix(p.palette.dim(p.palette.haze, 0.9), (30, 26, 44), 0.6)
    x0 = rng.uniform(0.18, 0.62) * p.w
    y0 = top + (bottom - top) * rng.uniform(0.25, 0.6)
    least = 2.2 * p.canvas.pixel
    for i in range(rng.integer(4, 7)):
        x, y = x0 + (i - 1) * rng.uniform(0.035, 0.065), y0 + rng.uniform(-0.05, 0.05)
        s = max(least, rng.uniform(0.018, 0.030))
        flap = rng.uniform(0.35, 0.65)
        t = max(0.20 * s, 0.5 * p.canvas.pixel)
        p.canvas.polygon(
            (
                (x, y),
                (x - 0.5 * s, y - flap * s),
                (x - 1.1 * s, y - 0.6 * flap * s),
                (x - 0.5 * s, y - flap * s + t),
                (x, y + t),
                (x + 0.5 * s, y - flap * s + t),
                (x + 1.1 * s, y - 0.6 * flap * s),
                (x + 0.5 * s, y - flap * s),
            ),
            colour,
        )


def paint_aurora(p: Painting, bottom: float) -> None:
    """Curtains of green and violet light over the whole sky."""
    canvas, rng = p.canvas, p.rng.child("aurora")
    rows = canvas.rows(0.0, bottom).astype(np.float32)
    height, width, _ = rows.shape
    x: Floats = (np.arange(width, dtype=np.float64) + 0.5) * canvas.pixel
    y = ((np.arange(height) + 0.5) * canvas.pixel)[:, None]
    for colour, level in (((96, 255, 176), 0.55), ((150, 110, 255), 0.38), ((80, 230, 220), 0.72)):
        a, b, c = rng.random(), rng.random(), rng.random()
        edge = bottom * (level + 0.12 * sines(0.9 * x + a) + 0.05 * sines(2.3 * x + b))
        fold = 0.55 + 0.45 * sines(5.1 * x + 0.6 * sines(1.7 * x + c) + a)
        above = np.clip((edge[None] - y) / (0.42 * bottom), 0, 1)
        strength = np.where(above > 0, (1 - above) * (1 - above), 0) * np.clip((edge[None] - y) / 0.02, 0, 1)
        amount = (0.62 * strength * fold[None]).astype(np.float32)[..., None]
        rows += (np.asarray(colour, np.float32) - rows) * amount
    canvas.put_rows(0.0, rows)


def paint_rainbow(p: Painting, base: float) -> None:
    """A rainbow of six thin arcs."""
    cx, r = p.w * 0.5, 0.46 * p.w
    colours = ((232, 72, 72), (246, 150, 64), (250, 222, 90), (98, 196, 110), (80, 150, 230), (150, 100, 210))
    for i, colour in enumerate(colours):
        k = r - 0.016 * i
        arc = [(cx + k * cosine(0.5 + j / 96), base + 1.05 * k * sine(0.5 + j / 96)) for j in range(49)]
        p.canvas.line(arc, 0.018, colour, 0.5)
