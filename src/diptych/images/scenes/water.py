"""Paints water: reflections with ripples, strokes of light, waves, waterfalls, rivers and paths."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from diptych.images.scenes.canvas import Colour, mix, ramp
from diptych.images.scenes.painting import Painting
from diptych.images.scenes.rng import Floats, Noise, sines

Floats32 = npt.NDArray[np.float32]


def water_colours(p: Painting) -> tuple[Colour, Colour]:
    """The colours of the water far away and in front."""
    body = p.palette.of("water", 0.0)
    far = mix(body, p.palette.sky[-1], 0.55)
    near = mix(mix(body, p.palette.sky[0], 0.45), (0, 0, 20), 0.12)
    return far, near


def paint_water(
    p: Painting, top: float, bottom: float | None = None, calm: float = 0.7, mirror: float = 0.62
) -> None:
    """Water from `top` down over the whole width, which mirrors what is painted above it.

    Args:
        p: The picture.
        top, bottom: The upper and lower edge of the water; the lower edge of the picture by default.
        calm: From 0 (rough) to 1 (flat).
        mirror: The opacity of the reflection near the far shore, from 0 to 1.
    """
    canvas = p.canvas
    bottom = p.h if bottom is None else bottom
    p.shore = top if p.shore is None else p.shore
    rows = max(1, int((bottom - top) / canvas.pixel + 0.5))
    above = canvas.rows(max(0.0, top - 1.25 * (bottom - top)), top)[::-1].astype(np.float32)
    t = (np.arange(rows, dtype=np.float64) + 0.5) / rows
    source = np.minimum((t * (above.shape[0] - 1)).astype(np.int64), above.shape[0] - 1)
    image = _rippled(p, above[source], t, calm)
    far, near = water_colours(p)
    body = ramp(((0.0, far), (0.45, mix(far, near, 0.6)), (1.0, near)), rows)[:, None, :]
    keep = (mirror * (1.0 - 0.62 * t)).astype(np.float32)[:, None, None]
    canvas.put_rows(top, body + (image - body) * keep)
    _glints(p, top, bottom, calm)
    _sun_path(p, top, bottom)


def _rippled(p: Painting, image: Floats32, t: Floats, calm: float) -> Floats32:
    """Moves each row sideways by waves that grow towards the viewer."""
    rng = p.rng.child("ripples")
    phase = 26.0 * t / (0.35 + t)
    shift = (
        sines(phase + rng.random())
        + 0.6 * sines(2.7 * phase + rng.random())
        + 0.4 * sines(6.1 * phase + rng.random())
    )
    reach = (0.002 + (1.05 - calm) * 0.030 * (0.25 + t)) / p.canvas.pixel
    width = image.shape[1]
    columns = np.arange(width)[None, :] + (shift * reach + 4096.5).astype(np.int64)[:, None] - 4096
    columns = np.abs(columns)
    columns = np.where(columns >= width, 2 * width - 2 - columns, columns)
    moved: Floats32 = image[np.arange(image.shape[0])[:, None], np.clip(columns, 0, width - 1)]
    return moved


def _glints(p: Painting, top: float, bottom: float, calm: float) -> None:
    """Short horizontal strokes, lighter and darker than the water, larger in front."""
    rng, canvas = p.rng.child("glints"), p.canvas
    _, near = water_colours(p)
    light = mix(p.palette.sky[-1], (255, 255, 255), 0.0 if p.palette.dark else 0.45)
    for i in range(int(34 * p.w)):
        t = (i + rng.random()) / (34 * p.w)
        t = t * t * 0.8 + 0.2 * t
        y = top + (bottom - top) * (0.03 + 0.95 * t)
        half = (0.02 + 0.07 * t) * rng.uniform(0.5, 1.4)
        thick = 0.0028 + 0.006 * t
        colour = light if rng.chance(0.62) else mix(near, (0, 0, 0), 0.15)
        canvas.stroke(rng.uniform(0, p.w), y, half, thick, colour, 0.30 - 0.12 * calm)


def _sun_path(p: Painting, top: float, bottom: float) -> None:
    """The reflection of the sun or the moon, a column of strokes."""
    luminary = p.luminary
    if luminary is None:
        return
    rng, canvas = p.rng.child("sun path"), p.canvas
    colour = mix(luminary.colour, (255, 255, 255), 0.12)
    depth = bottom - top
    canvas.glow(luminary.x, top + 0.1 * depth, 2.6 * luminary.r, 0.7 * depth, luminary.colour, 0.28)
    y, row = top + 0.006, 0
    while y < bottom - 0.01:
        t = (y - top) / depth
        thick = 0.0055 + 0.011 * t
        half = luminary.r * (0.95 - 0.25 * t) * (0.5 + 0.62 * rng.random())
        x = luminary.x + rng.uniform(-0.5, 0.5) * luminary.r * (0.25 + 0.9 * t)
        canvas.stroke(x, y, half, thick, colour, 0.92 - 0.45 * t)
        if row % 3 == 1:
            off = luminary.r * rng.uniform(0.9, 1.5) * rng.choice((-1.0, 1.0))
            canvas.stroke(x + off, y + thick, half * 0.4, thick * 0.7, colour, 0.55 - 0.3 * t)
        y += thick * rng.uniform(1.25, 1.9)
        row += 1


def paint_waves(p: Painting, top: float, bottom: float, rough: float) -> None:
    """Rows of waves that grow towards the viewer, each with a lit edge and foam."""
    rng, canvas = p.rng.child("waves"), p.canvas
    height = 0.030 + 0.075 * rough
    far, near = water_colours(p)
    rows = 6
    for row in range(rows):
        t = (row + 0.4) / rows
        y = top + (bottom - top) * (t * 0.75 + 0.25 * t * t)
        size = height * (0.18 + 0.9 * t)
        length = 0.16 + 0.34 * t
        start = rng.random()
        crest = []
        x = -0.02
        while x < p.w + 0.04:
            u = (x / length + start) % 1.0
            rise = 1 - u / 0.62 if u < 0.62 else (u - 0.62) / 0.38  # the back is long and the front steep
            crest.append((x, y - size * rise * rise))
            x += 0.012
        colour = mix(far, near, min(1.0, 0.25 + 0.75 * t))
        body = [*crest, (p.w + 0.1, y + size * 1.7), (-0.1, y + size * 1.7)]
        canvas.shade(
            [body],
            ((0.0, mix(colour, p.palette.sky[-1], 0.38)), (0.4, colour), (1.0, mix(colour, near, 0.5))),
            0.55 + 0.40 * rough,
        )
        canvas.line(crest, 0.0018 + 0.003 * t, mix(p.palette.cloud_light, colour, 0.25), 0.30 + 0.5 * rough)


def paint_fall(
    p: Painting, name: str, x: float, top: float, bottom: float, width: float, depth: float = 0.1
) -> None:
    """A waterfall: a bright area with darker lines, and mist at its foot."""
    rng, canvas = p.rng.child(name), p.canvas
    white = mix(mix(p.palette.of("snow"), p.palette.cloud_light, 0.25), p.palette.haze, depth)
    white = mix(white, (255, 255, 255), 0.12 if p.scene.time == "night" else 0.42)
    blue = mix(p.palette.of("shallow"), white, 0.5)
    spread = 0.16 * width
    sheet = [
        (x - width / 2, top),
        (x + width / 2, top),
        (x + width / 2 + spread, bottom),
        (x - width / 2 - spread, bottom),
    ]
    canvas.shade([sheet], ((0.0, blue), (0.12, white), (0.6, mix(white, blue, 0.25)), (1.0, white)))
    for i in range(7):
        t = (i + rng.uniform(0.2, 0.8)) / 7 - 0.5
        x0, x1 = x + t * width * 0.94, x + t * (width + 2 * spread) * 0.94
        start = top + (bottom - top) * rng.uniform(0.02, 0.4)
        end = start + (bottom - start) * rng.uniform(0.4, 1.0)
        k = (end - top) / (bottom - top)
        j = (start - top) / (bottom - top)
        a, b = x0 + (x1 - x0) * j, x0 + (x1 - x0) * k
        thick = width * rng.uniform(0.03, 0.08)
        threads = ((a - thick / 2, start), (a + thick / 2, start), (b + thick, end), (b - thick, end))
        canvas.polygon(threads, mix(blue, p.palette.of("water"), 0.35), 0.45)
    canvas.ellipse(x, top, width / 2, 0.12 * width, blue)


def paint_mist(p: Painting, name: str, x: float, y: float, size: float, strength: float = 0.75) -> None:
    """Mist at the foot of a waterfall."""
    rng = p.rng.child(name)
    white = mix(p.palette.of("snow"), p.palette.cloud_light, 0.4)
    for _ in range(6):
        r = size * rng.uniform(0.45, 1.0)
        p.canvas.glow(
            x + rng.uniform(-1, 1) * size * 0.8,
            y + rng.uniform(-0.4, 0.3) * size,
            r,
            r * 0.7,
            white,
            strength,
        )


def winding(
    p: Painting, name: str, top: float, bottom: float, x: float, far: float, near: float
) -> list[tuple[float, float]]:
    """The outline of a river or path that winds from (x, top) to the lower edge, from width `far` to `near`."""
    noise = Noise(p.rng.child(name), 1)
    left, right = [], []
    for i in range(29):
        t = i / 28
        y = top + (bottom - top) * t * (0.45 + 0.55 * t)
        k = (y - top) / (bottom - top)
        centre = x + noise(1.0 + 2.6 * t) * (0.04 + 0.30 * k) + (p.w * 0.5 - x) * 0.4 * k
        half = far + (near - far) * k
        left.append((centre - half, y))
        right.append((centre + half, y))
    return left + right[::-1]


def paint_river(p: Painting, top: float, x: float) -> None:
    """A river that winds down to the viewer."""
    far, near = water_colours(p)
    bank = winding(p, "river", top, p.h + 0.02, x, 0.012, 0.17)
    p.canvas.shade([bank], ((0.0, mix(far, p.palette.sky[-1], 0.4)), (1.0, mix(far, near, 0.55))))
    rng = p.rng.child("river light")
    half = len(bank) // 2
    for i in range(3, half - 1, 2):
        (x0, y), (x1, _) = bank[i], bank[len(bank) - 1 - i]
        span = x1 - x0
        p.canvas.stroke(
            x0 + span * rng.uniform(0.3, 0.7),
            y,
            span * 0.2,
            0.003 + 0.01 * span,
            p.palette.cloud_light,
            0.55,
        )


def paint_path(p: Painting, top: float, x: float, near: float = 0.13) -> None:
    """A path of trodden earth that winds down to the viewer."""
    earth = p.palette.of("path")
    way = winding(p, "path", top, p.h + 0.02, x, 0.008, near)
    p.canvas.shade([way], ((0.0, mix(earth, p.palette.haze, 0.25)), (1.0, p.palette.dim(earth, 0.10))))
