"""Paints the weather over the finished picture: fog, rain, snow and lightning."""

from __future__ import annotations

from diptych.images.scenes.canvas import mix
from diptych.images.scenes.painting import Painting


def paint_weather(p: Painting) -> None:
    """The fog, rain or snow of the scene's weather, and the mist of its mood."""
    weather = p.scene.weather
    if weather == "fog" or "misty" in p.scene.moods:
        _fog(p, 0.85 if weather == "fog" else 0.6)
    if weather in ("rain", "storm"):
        _rain(p)
    if weather == "snow":
        _snow(p)


def paint_lightning(p: Painting, base: float) -> None:
    """Lightning from the clouds, behind the land."""
    rng = p.rng.child("lightning")
    x, y = p.w * rng.uniform(0.25, 0.75), 0.10 * p.h
    bolt = [(x, y)]
    while y < base:
        y += rng.uniform(0.03, 0.07)
        x += rng.uniform(-0.05, 0.05)
        bolt.append((x, y))
    p.canvas.glow(x, 0.4 * base, 0.4, 0.6, (190, 200, 255), 0.5)
    p.canvas.line(bolt, 0.011, (200, 206, 255), 0.6)
    p.canvas.line(bolt, 0.005, (255, 255, 255))
    middle = bolt[len(bolt) // 3]
    fork = [
        middle,
        (middle[0] + 0.06, middle[1] + 0.06),
        (middle[0] + 0.05, middle[1] + 0.12),
        (middle[0] + 0.11, middle[1] + 0.19),
    ]
    p.canvas.line(fork, 0.004, (240, 240, 255), 0.9)


def _fog(p: Painting, strength: float) -> None:
    rng = p.rng.child("fog")
    white = mix(p.palette.haze, p.palette.cloud_light, 0.35)
    for i in range(5):
        y = (0.42 + 0.11 * i) * p.h
        p.canvas.veil(y - 0.09 * p.h, y, white, 0.0, 0.42 * strength)
        p.canvas.veil(y, y + 0.08 * p.h, white, 0.42 * strength, 0.0)
        for _ in range(3):
            p.canvas.glow(
                rng.uniform(0, p.w), y + rng.uniform(-0.03, 0.03), 0.42, 0.06, white, 0.55 * strength
            )


def _rain(p: Painting) -> None:
    rng = p.rng.child("rain")
    colour = mix(p.palette.haze, (255, 255, 255), 0.35)
    slant = rng.choice((-1.0, 1.0)) * (0.22 if p.scene.weather == "storm" else 0.10)
    for _ in range(int(150 * p.w * p.h)):
        x, y, size = rng.uniform(-0.05, p.w), rng.uniform(-0.05, p.h), rng.uniform(0.03, 0.075)
        p.canvas.line(((x, y), (x + slant * size, y + size)), 0.0022, colour, 0.42)


def _snow(p: Painting) -> None:
    rng = p.rng.child("snow")
    for _ in range(int(170 * p.w * p.h)):
        x, y, near = rng.uniform(0, p.w), rng.uniform(0, p.h), rng.random()
        r = 0.0022 + 0.0050 * near * near
        p.canvas.ellipse(x, y, r, r, (255, 255, 255), 0.55 + 0.4 * near)
