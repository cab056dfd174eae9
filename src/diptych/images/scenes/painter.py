"""Turns a scene into pixels: makes the choices that the prompt left open, then paints from the sky down."""

from __future__ import annotations

from dataclasses import replace

from diptych.images.scenes import sky, weather
from diptych.images.scenes.canvas import Bytes, Canvas, mix
from diptych.images.scenes.ground import HORIZON
from diptych.images.scenes.natural import nebula
from diptych.images.scenes.objects import ON_WATER, paint_objects
from diptych.images.scenes.painting import Luminary, Painting
from diptych.images.scenes.palette import NAMED, palette_for
from diptych.images.scenes.rng import RandomStream
from diptych.images.scenes.subjects import SUBJECTS
from diptych.images.scenes.understanding import Scene, Thing

_USUAL_TIMES = ("dawn", "morning", "noon", "sunset", "sunset", "dusk", "night")
_USUAL_OBJECTS = {"sea": "boat", "desert": "cactus", "space": "rocket", "field": "tree", "mountains": "pine"}
_WITH_WATER = frozenset(("sea", "island"))
_MAY_HAVE_WATER = frozenset(("city", "mountains", "forest", "temple", "village"))


def complete(scene: Scene, rng: RandomStream) -> Scene:
    """Makes every choice that the prompt left open. The result describes what the picture shows."""
    rng = rng.child("choices")
    if not scene.subject:
        scene = replace(scene, subject=rng.choice(("mountains", "sea", "island", "field", "desert")))
    time = scene.time or _time_for(scene, rng)
    dark = time in ("dusk", "night")
    weather_name = scene.weather or ("storm" if "stormy" in scene.moods else "clear")
    hidden = weather_name in ("rain", "storm", "snow", "fog", "cloudy")
    luminary = scene.luminary
    if luminary is None:
        likely = 0.0 if hidden or scene.subject == "space" else 0.85
        luminary = ("moon" if time == "night" else "sun") if rng.chance(likely) else "none"
        if luminary == "moon" and rng.chance(0.3):
            luminary = "crescent"
    clouds = scene.clouds
    if clouds is None:
        calm_sky = "minimal" in scene.moods or scene.subject == "space" or scene.weather == "clear"
        seen = scene.aurora or scene.stars or scene.luminary not in (None, "none")
        clouds = "none" if calm_sky else rng.choice(("some", "none"))
        if weather_name in ("rain", "storm", "cloudy", "snow"):
            clouds = "some" if seen else "many"
    stars = (
        scene.stars
        if scene.stars is not None
        else scene.subject == "space"
        or (time == "night" and not hidden)
        or (time == "dusk" and rng.chance(0.3))
    )
    birds = (
        scene.birds
        if scene.birds is not None
        else (not dark and not hidden and scene.subject != "space" and rng.chance(0.3))
    )
    objects = scene.objects
    if objects is None:
        usual = _USUAL_OBJECTS.get(scene.subject)
        objects = (Thing(usual),) if usual and usual not in scene.absent and rng.chance(0.4) else ()
    side, colour = rng.choice(("left", "centre", "right")), _usual_colour(luminary, time, rng)
    return replace(
        scene,
        time=time,
        weather=weather_name,
        luminary=luminary,
        clouds=clouds,
        stars=stars,
        birds=birds,
        objects=objects,
        water=_has_water(scene, objects, rng),
        luminary_side=None if luminary == "none" else scene.luminary_side or side,
        luminary_colour=None if luminary == "none" else scene.luminary_colour or colour,
    )


def _time_for(scene: Scene, rng: RandomStream) -> str:
    if scene.subject == "space" or scene.stars or scene.aurora or scene.luminary in ("moon", "crescent"):
        return "night"
    if scene.style == "futuristic":
        return rng.choice(("dusk", "sunset", "night"))
    if "golden" in scene.moods or scene.cloud_colour == "golden":
        return rng.choice(("sunset", "dawn"))
    if scene.luminary == "sun" or scene.rainbow:
        return rng.choice(_USUAL_TIMES[:5])
    return rng.choice(_USUAL_TIMES)


def _usual_colour(luminary: str, time: str, rng: RandomStream) -> str:
    if luminary != "sun":
        return rng.choice(("white", "white", "yellow"))
    low = {"sunset": ("orange", "yellow", "red"), "dusk": ("orange", "red"), "dawn": ("yellow", "orange")}
    return rng.choice(low.get(time, ("yellow", "yellow", "white")))


def _has_water(scene: Scene, objects: tuple[Thing, ...], rng: RandomStream) -> bool:
    if scene.subject in _WITH_WATER:
        return True
    if scene.water is not None:
        return scene.water
    if (
        scene.subject not in _MAY_HAVE_WATER
        or scene.ground
        or any(t.name in ("river", "path") for t in objects)
    ):
        return False
    if (
        "sea" in scene.settings
        or "island" in scene.settings
        or any(t.name in ON_WATER or t.name == "bridge" for t in objects)
    ):
        return True
    if scene.subject == "city" and ("serene" in scene.moods or scene.style == "futuristic"):
        return True
    return scene.subject in ("city", "mountains") and rng.chance(0.55)


_DISC: dict[str, tuple[int, int, int]] = {
    "red": (232, 54, 44),
    "orange": (255, 146, 40),
    "yellow": (255, 222, 84),
    "golden": (255, 206, 92),
    "white": (255, 253, 242),
    "silver": (224, 232, 248),
}


def place_luminary(scene: Scene, horizon: float, w: float, h: float, rng: RandomStream) -> Luminary | None:
    """Places the sun or the moon on the side that the scene names, lower towards evening, and always in view."""
    if scene.luminary in (None, "none"):
        return None
    rng = rng.child("luminary")
    side = {"left": (0.16, 0.28), "centre": (0.45, 0.55), "right": (0.72, 0.84)}[
        scene.luminary_side or "centre"
    ]
    x = rng.uniform(*side) * w
    kind = scene.luminary or "sun"
    low = kind == "sun" and scene.time in ("sunset", "dawn", "dusk")
    r = rng.uniform(0.075, 0.098) if low else rng.uniform(0.060, 0.074)
    if low:
        lift = {
            "city": 0.34,
            "mountains": 0.36,
            "forest": 0.40,
            "temple": 0.46,
            "village": 0.22,
            "desert": 0.13,
        }
        y = horizon - lift.get(scene.subject, 0.12) * h * rng.uniform(0.92, 1.08)
    else:
        y = rng.uniform(0.15, 0.23) * h
    if scene.subject == "temple" and scene.luminary_side == "centre":
        y = 0.15 * h
    colour = scene.luminary_colour or "yellow"
    return Luminary(kind, x, max(y, r + 0.04), r, _DISC.get(colour, NAMED[colour]))


def render(scene: Scene, rng: RandomStream, width: int, height: int) -> Bytes:
    """Paints a completed scene, with the same content at any size: uint8 (height, width, 3)."""
    canvas = Canvas(width, height)
    time = scene.time or "noon"
    moods = scene.moods
    if scene.style == "futuristic" and "neon" not in moods and time in ("dusk", "night"):
        moods = (*moods, "neon")
    sky_time = "night" if scene.subject == "space" and time in ("dusk", "noon", "morning") else time
    palette = palette_for(
        sky_time, moods, scene.weather or "clear", scene.sky_colour, scene.cloud_colour, rng.child("palette")
    )
    if scene.subject == "space":
        palette = replace(
            palette, sky=tuple(mix(c, (4, 4, 18), 0.55 if sky_time == "night" else 0.25) for c in palette.sky)
        )
    horizon = HORIZON[scene.subject] * canvas.h
    p = Painting(canvas, scene, palette, rng, place_luminary(scene, horizon, canvas.w, canvas.h, rng))
    _paint_above(p, horizon)
    SUBJECTS[scene.subject](p)
    if scene.clouds == "around" and scene.subject != "temple":
        _low_clouds(p, horizon)
    paint_objects(p)
    if scene.birds:
        sky.paint_birds(p, 0.08 * p.h, min(0.42 * p.h, horizon - 0.1))
    weather.paint_weather(p)
    return canvas.finish()


def _paint_above(p: Painting, horizon: float) -> None:
    sky.paint_sky(p, horizon)
    if p.scene.subject == "space":
        nebula(p)
    if p.scene.stars:
        sky.paint_stars(p, horizon, 1.9 if p.scene.subject == "space" else 1.0)
    if p.scene.aurora:
        sky.paint_aurora(p, 0.62 * p.h)
    if p.scene.rainbow:
        sky.paint_rainbow(p, horizon)
    sky.paint_luminary(p)
    if p.scene.weather == "storm":
        weather.paint_lightning(p, horizon)
    low = {"city": 0.36, "forest": 0.34, "mountains": 0.36, "temple": 0.36}.get(p.scene.subject, 0.0)
    sky.paint_clouds(p, 0.10 * p.h, (low or max(0.3, HORIZON[p.scene.subject] - 0.16)) * p.h)


def _low_clouds(p: Painting, horizon: float) -> None:
    for number, x in enumerate((0.05, 0.95, 0.30, 0.72)):
        sky.cloud_bank(p, f"bank {number}", x * p.w, horizon + 0.06 * (number % 2), 0.14)
