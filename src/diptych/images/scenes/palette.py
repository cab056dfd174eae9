"""Colours by time of day and mood: of the sky, of materials in this light, and of the haze in the distance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from diptych.images.scenes.canvas import Colour, mix
from diptych.images.scenes.rng import RandomStream

# Materials in plain daylight.
MATERIALS: dict[str, Colour] = {
    "grass": (112, 172, 82),
    "meadow": (150, 194, 96),
    "pine": (44, 104, 84),
    "leaf": (84, 152, 72),
    "wheat": (230, 190, 96),
    "sand": (240, 206, 146),
    "beach": (246, 222, 170),
    "mesa": (206, 128, 92),
    "rock": (124, 122, 140),
    "cliff": (140, 126, 120),
    "snow": (246, 250, 255),
    "earth": (158, 118, 84),
    "path": (224, 196, 150),
    "wood": (122, 84, 58),
    "plaster": (248, 234, 208),
    "roof": (200, 88, 66),
    "stone": (240, 228, 206),
    "weathered": (206, 192, 162),
    "concrete": (150, 160, 182),
    "steel": (104, 122, 160),
    "moonrock": (150, 148, 164),
    "water": (62, 146, 196),
    "shallow": (112, 206, 210),
    "white": (250, 250, 250),
    "dark": (40, 40, 54),
}

# Colours that a prompt can name.
NAMED: dict[str, Colour] = {
    "red": (226, 50, 44),
    "orange": (255, 140, 36),
    "yellow": (255, 218, 72),
    "golden": (255, 200, 80),
    "white": (255, 252, 240),
    "silver": (216, 224, 238),
    "pink": (255, 150, 184),
    "purple": (150, 88, 196),
    "blue": (72, 130, 226),
    "turquoise": (64, 200, 196),
    "green": (84, 176, 88),
    "brown": (136, 92, 62),
    "black": (34, 32, 42),
    "grey": (148, 150, 160),
}

Sky = tuple[Colour, ...]

SKIES: dict[str, tuple[Sky, ...]] = {
    "dawn": (
        ((74, 86, 150), (142, 128, 186), (226, 164, 182), (255, 206, 176), (255, 234, 202)),
        ((88, 116, 170), (158, 162, 202), (240, 190, 186), (255, 222, 190), (255, 240, 214)),
    ),
    "morning": (
        ((82, 150, 216), (142, 196, 234), (202, 228, 238), (246, 240, 222)),
        ((96, 168, 214), (160, 210, 226), (220, 236, 226), (255, 240, 208)),
    ),
    "noon": (
        ((36, 112, 204), (84, 162, 230), (156, 208, 244), (218, 240, 250)),
        ((40, 136, 212), (104, 188, 232), (178, 224, 244), (230, 246, 250)),
    ),
    "sunset": (
        ((44, 32, 92), (112, 46, 118), (208, 72, 104), (250, 128, 86), (255, 200, 114)),
        ((70, 62, 136), (156, 86, 150), (240, 116, 126), (255, 168, 118), (255, 222, 158)),
        ((84, 30, 66), (172, 50, 66), (238, 104, 62), (255, 162, 74), (255, 216, 124)),
        ((44, 66, 116), (112, 100, 140), (222, 132, 112), (252, 172, 98), (255, 216, 140)),
    ),
    "dusk": (
        ((18, 22, 64), (44, 42, 106), (98, 66, 134), (178, 96, 136), (236, 154, 134)),
        ((16, 34, 68), (36, 62, 108), (82, 92, 140), (160, 126, 150), (226, 172, 156)),
    ),
    "night": (
        ((4, 8, 30), (10, 20, 58), (22, 42, 92), (46, 76, 132)),
        ((10, 8, 36), (24, 18, 66), (46, 36, 100), (80, 66, 134)),
        ((4, 18, 34), (8, 36, 60), (18, 62, 88), (44, 100, 118)),
    ),
}

# tint of the light, colour of the shadows, strength of the tint.
_LIGHT: dict[str, tuple[tuple[float, float, float], Colour, float]] = {
    "dawn": ((0.92, 0.80, 0.84), (98, 76, 128), 0.26),
    "morning": ((1.0, 0.97, 0.90), (120, 130, 160), 0.06),
    "noon": ((1.0, 1.0, 1.0), (100, 120, 160), 0.0),
    "sunset": ((0.96, 0.72, 0.62), (86, 36, 98), 0.33),
    "dusk": ((0.52, 0.58, 0.78), (44, 32, 100), 0.42),
    "night": ((0.42, 0.54, 0.76), (16, 28, 74), 0.36),
}

_SUN: dict[str, Colour] = {
    "dawn": (255, 226, 168),
    "morning": (255, 244, 190),
    "noon": (255, 250, 214),
    "sunset": (255, 226, 140),
    "dusk": (255, 176, 112),
    "night": (255, 226, 150),
}


@dataclass(frozen=True)
class Palette:
    """The colours of one picture."""

    sky: Sky
    haze: Colour
    glow: Colour
    cloud_light: Colour
    cloud_dark: Colour
    tint: tuple[float, float, float]
    shade: Colour
    shade_amount: float
    window: Colour
    dark: bool  # windows are lit
    grade: tuple[tuple[str, float], ...] = ()

    def of(self, base: str | Colour, depth: float = 0.0) -> Colour:
        """A material or colour in this light, mixed with haze by `depth`, from 0 (near) to 1 (far)."""
        r, g, b = MATERIALS[base] if isinstance(base, str) else base
        t = self.tint
        lit = (int(r * t[0]), int(g * t[1]), int(b * t[2]))
        lit = mix(lit, self.shade, self.shade_amount)
        return mix(graded(lit, self.grade), self.haze, depth)

    def light(self, colour: Colour, amount: float) -> Colour:
        """The colour mixed with that of the light."""
        return mix(colour, self.glow, amount)

    def dim(self, colour: Colour, amount: float) -> Colour:
        """The colour mixed with that of the shadows."""
        return mix(colour, mix(self.shade, (0, 0, 0), 0.35), amount)


def graded(colour: Colour, grade: Sequence[tuple[str, float]]) -> Colour:
    """The colour after the changes of the moods, applied in order."""
    for change, amount in grade:
        if change == "saturate":
            grey = (colour[0] * 299 + colour[1] * 587 + colour[2] * 114) // 1000
            colour = (
                _clip(grey + (colour[0] - grey) * amount),
                _clip(grey + (colour[1] - grey) * amount),
                _clip(grey + (colour[2] - grey) * amount),
            )
        elif change == "scale":
            colour = (_clip(colour[0] * amount), _clip(colour[1] * amount), _clip(colour[2] * amount))
        else:
            colour = mix(colour, _WASHES[change], amount)
    return colour


def _clip(value: float) -> int:
    return 0 if value <= 0 else 255 if value >= 255 else int(value + 0.5)


_WASHES: dict[str, Colour] = {
    "white": (255, 252, 248),
    "gold": (255, 186, 72),
    "rose": (255, 176, 206),
    "violet": (122, 60, 190),
    "teal": (40, 150, 160),
    "slate": (92, 106, 124),
    "ice": (206, 228, 246),
    "ink": (14, 14, 26),
    "rust": (206, 112, 48),
    "spring": (188, 226, 140),
}

# How each mood changes colours: the first list is for the sky, the second for everything below it.
MOODS: dict[str, tuple[tuple[tuple[str, float], ...], tuple[tuple[str, float], ...]]] = {
    "serene": ((("white", 0.08), ("saturate", 0.94)), (("saturate", 0.94),)),
    "golden": ((("gold", 0.34), ("saturate", 1.08)), (("gold", 0.16),)),
    "misty": ((("saturate", 0.55), ("white", 0.22)), (("saturate", 0.72),)),
    "pastel": ((("saturate", 0.72), ("white", 0.34)), (("saturate", 0.78), ("white", 0.30))),
    "dreamy": ((("rose", 0.26), ("violet", 0.06), ("white", 0.10)), (("rose", 0.16), ("violet", 0.05))),
    "vibrant": ((("saturate", 1.35),), (("saturate", 1.4), ("scale", 1.04))),
    "dark": ((("scale", 0.55), ("saturate", 0.85)), (("scale", 0.55), ("saturate", 0.85))),
    "stormy": ((("saturate", 0.35), ("slate", 0.35), ("scale", 0.82)), (("saturate", 0.65), ("scale", 0.84))),
    "grey": ((("saturate", 0.5), ("scale", 0.92)), (("saturate", 0.7), ("scale", 0.92))),
    "monochrome": ((("saturate", 0.0),), (("saturate", 0.0),)),
    "neon": ((("violet", 0.16), ("saturate", 1.2)), (("saturate", 1.15), ("violet", 0.12))),
    "winter": ((("ice", 0.22), ("saturate", 0.8)), (("saturate", 0.8), ("ice", 0.10))),
    "autumn": ((("gold", 0.10),), (("rust", 0.16), ("saturate", 1.1))),
    "spring": ((("white", 0.06), ("rose", 0.05)), (("spring", 0.10),)),
    "summer": ((("saturate", 1.15),), (("saturate", 1.15),)),
    "mystic": ((("violet", 0.22), ("teal", 0.10)), (("violet", 0.14), ("teal", 0.10))),
    "vintage": ((("saturate", 0.6), ("gold", 0.16)), (("saturate", 0.65), ("gold", 0.10))),
    "cold": ((("ice", 0.20), ("saturate", 0.85)), (("ice", 0.08), ("saturate", 0.85))),
    "warm": ((("gold", 0.16), ("saturate", 1.05)), (("gold", 0.08),)),
    "minimal": ((("white", 0.10), ("saturate", 0.85)), (("saturate", 0.82), ("white", 0.06))),
}


def palette_for(
    time: str,
    moods: Sequence[str],
    weather: str,
    sky_colour: str | None,
    cloud_colour: str | None,
    rng: RandomStream,
) -> Palette:
    """The palette of a scene. `rng` chooses one of the skies for the time of day."""
    skies = SKIES[time]
    sky = rng.choice(skies)
    if "golden" in moods and time == "sunset":
        sky = skies[2]
    changes = [MOODS[mood] for mood in moods if mood in MOODS]
    if weather in ("storm", "rain"):
        changes.append(MOODS["stormy"] if weather == "storm" else MOODS["grey"])
    if weather in ("fog", "snow"):
        changes.append(MOODS["misty"] if weather == "fog" else MOODS["winter"])
    above = tuple(change for sky_part, _ in changes for change in sky_part)
    below = tuple(change for _, ground_part in changes for change in ground_part)
    if sky_colour is not None:
        wanted = NAMED[sky_colour]
        sky = tuple(mix(colour, wanted, 0.76 - 0.08 * i) for i, colour in enumerate(sky))
    sky = tuple(graded(colour, above) for colour in sky)
    tint, shade, amount = _LIGHT[time]
    haze = mix(sky[-1], sky[-2], 0.45)
    glow = graded(mix(_SUN[time], (255, 255, 255), 0.1) if time != "night" else (190, 206, 246), above)
    light = mix(sky[-1], (255, 255, 255), {"sunset": 0.30, "dusk": 0.08}.get(time, 0.6))
    if time == "night":
        light = mix(sky[-1], (170, 186, 226), 0.45)
    dark = mix(sky[1], sky[-1], 0.55)
    palette = Palette(
        sky,
        haze,
        glow,
        light,
        dark,
        tint,
        shade,
        amount,
        (255, 214, 122),
        time in ("dusk", "night", "sunset"),
        below,
    )
    if cloud_colour is not None:
        wanted = NAMED[cloud_colour]
        dim = {"night": 0.35, "dusk": 0.2}.get(time, 0.0)
        bright = mix(mix(wanted, (255, 255, 255), 0.25), sky[1], dim)
        palette = replace(
            palette, cloud_light=bright, cloud_dark=mix(mix(wanted, sky[-2], 0.3), shade, 0.08 + dim)
        )
    return palette
