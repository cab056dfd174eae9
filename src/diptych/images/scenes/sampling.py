"""Random scenes with labels: a picture, a caption, its class and attributes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from diptych.images.scenes.canvas import Bytes
from diptych.images.scenes.painter import complete, render
from diptych.images.scenes.rng import RandomStream
from diptych.images.scenes.understanding import Scene, Thing
from diptych.images.scenes.vocabulary import CLASSES, TIMES

_NAMES: dict[str, tuple[str, ...]] = {
    "city": ("a city", "a city", "the skyline of a city", "a metropolis"),
    "mountains": ("the mountains", "mountains", "high mountain peaks", "a mountain range"),
    "sea": ("the sea", "the open sea", "the ocean", "a seascape"),
    "desert": ("the desert", "a desert", "desert dunes", "the dunes of a desert"),
    "forest": ("a forest", "the forest", "the woods", "a woodland"),
    "temple": ("a temple", "a temple", "a temple on a hill", "a shrine of stone"),
    "field": ("a field", "the fields", "a meadow", "farmland"),
    "island": ("an island", "a small island", "a tropical island", "an isle"),
    "village": ("a village", "a village", "a small village", "a hamlet"),
    "space": ("outer space", "space", "a distant galaxy", "the cosmos"),
}
_OBJECTS: dict[str, tuple[str, ...]] = {
    "city": ("boat", "tree", "balloon", "bridge"),
    "mountains": ("pine", "house", "balloon", "waterfall", "boat", "campfire"),
    "sea": ("boat", "boat", "lighthouse", "ship"),
    "desert": ("cactus", "cactus", "house", "balloon", "palm"),
    "forest": ("house", "campfire", "path", "river"),
    "temple": ("tree", "pine", "waterfall", "palm"),
    "field": ("tree", "house", "windmill", "balloon", "fence"),
    "island": ("boat", "lighthouse", "balloon"),
    "village": ("windmill", "tree", "balloon", "river"),
    "space": ("rocket", "rocket"),
}
_MOODS = ("serene", "misty", "pastel", "dreamy", "vibrant", "dark", "mystic", "warm")
_AT: dict[str, tuple[str, ...]] = {
    "dawn": ("at dawn", "at sunrise", "at daybreak"),
    "morning": ("in the morning", "on a clear morning", "in the morning"),
    "noon": ("at noon", "at midday", "by day"),
    "sunset": ("at sunset", "at sundown", "at sunset"),
    "dusk": ("at dusk", "at twilight", "in the evening"),
    "night": ("at night", "by night", "at midnight"),
}
_WEATHER_NAMES = {
    "fog": "in fog",
    "rain": "in the rain",
    "snow": "in falling snow",
    "storm": "in a thunderstorm",
}
_SIDE_NAMES = {"left": "on the left", "right": "on the right", "centre": "in the centre"}
_ARTICLES = {"a": "a", "e": "an", "i": "an", "o": "an", "u": "an"}


@dataclass(frozen=True, eq=False)
class Sample:
    """A painted scene with its labels.

    Attributes:
        image: uint8 (size, size, 3).
        caption: What the scene shows, in words.
        label: The index of the class in `CLASSES`.
        attributes: subject, time, weather, luminary, luminary_colour, luminary_side, objects, clouds, cloud_colour,
            stars, birds, water, moods and style.
    """

    image: Bytes
    caption: str
    label: int
    attributes: Mapping[str, object]


def sample(seed: int, size: int = 64) -> Sample:
    """A random scene, the same for the same arguments on every machine.

    Args:
        seed: The number of the scene.
        size: The width and height in pixels.
    """
    rng = RandomStream("sample", seed)
    scene = complete(_request(rng.child("request")), rng)
    caption = _caption(scene, rng.child("caption"))
    return Sample(render(scene, rng, size, size), caption, CLASSES.index(scene.subject), _attributes(scene))


def _request(rng: RandomStream) -> Scene:
    """A random scene, with every choice made that a caption can name."""
    subject = rng.choice(CLASSES)
    time = "night" if subject == "space" else rng.choice(TIMES)
    weather = (
        rng.choice(("fog", "rain", "snow", "storm")) if rng.chance(0.12) and subject != "space" else "clear"
    )
    clear = weather == "clear"
    night = time == "night"
    luminary = "none"
    if clear and rng.chance(0.2 if subject == "space" else 0.78):
        luminary = rng.choice(("moon", "moon", "crescent")) if night else "sun"
    colours = ("white", "yellow", "orange", "red") if luminary == "sun" else ("white", "yellow", "silver")
    objects: tuple[Thing, ...] = ()
    if rng.chance(0.45):
        name = rng.choice(_OBJECTS[subject])
        objects = (Thing(name, None, rng.choice(("left", "right")) if rng.chance(0.5) else None),)
    if subject == "desert" and weather == "snow":
        weather = "clear"
    style = None
    if subject in ("city", "temple") and rng.chance(0.3):
        style = "futuristic" if subject == "city" else "ancient"
    return Scene(
        subject=subject,
        time=time,
        weather=weather,
        luminary=luminary,
        luminary_colour=None if luminary == "none" else rng.choice(colours),
        luminary_side=None if luminary == "none" else rng.choice(("left", "centre", "right")),
        clouds=rng.choice(("some", "none")) if clear and subject != "space" else None,
        cloud_colour=None,
        stars=True if subject == "space" else (clear and night and rng.chance(0.6)),
        birds=clear and subject != "space" and time not in ("dusk", "night") and rng.chance(0.25),
        objects=objects,
        moods=(rng.choice(_MOODS),) if rng.chance(0.25) and subject != "space" else (),
        style=style,
    )


def _attributes(scene: Scene) -> Mapping[str, object]:
    return MappingProxyType(
        {
            "subject": scene.subject,
            "time": scene.time,
            "weather": scene.weather,
            "luminary": scene.luminary,
            "luminary_colour": scene.luminary_colour,
            "luminary_side": scene.luminary_side,
            "objects": tuple(thing.name for thing in scene.objects or ()),
            "clouds": scene.clouds != "none",
            "cloud_colour": scene.cloud_colour,
            "stars": bool(scene.stars),
            "birds": bool(scene.birds),
            "water": bool(scene.water),
            "moods": scene.moods,
            "style": scene.style,
        }
    )


def _caption(scene: Scene, rng: RandomStream) -> str:
    """One of several descriptions of the scene."""
    subject = rng.choice(_NAMES[scene.subject])
    adjectives = [word for word in (scene.style, *scene.moods) if word]
    if adjectives:
        article, _, noun = subject.partition(" ")
        if article in ("a", "an"):
            subject = f"{_ARTICLES.get(adjectives[0][0], 'a')} {' '.join(adjectives)} {noun}"
        elif article == "the":
            subject = f"the {' '.join(adjectives)} {noun}"
        else:
            subject = f"{' '.join(adjectives)} {subject}"
    when = rng.choice(_AT[scene.time or "noon"]) if scene.subject != "space" else ""
    weather = _WEATHER_NAMES.get(scene.weather or "", "")
    extras = _extras(scene, rng)
    listed = " and ".join((", ".join(extras[:-1]), extras[-1])) if len(extras) > 1 else "".join(extras)
    style = rng.integer(0, 3)
    if style == 0:
        text = " ".join(part for part in (subject, when, weather, f"with {listed}" if listed else "") if part)
    elif style == 1:
        text = ", ".join(part for part in (f"{subject} {when}".strip(), weather, *extras) if part)
    elif style == 2 and listed:
        text = " ".join(part for part in (listed, "over", subject, when, weather) if part)
    else:
        text = ", ".join(
            part
            for part in (when, f"{subject} {weather}".strip(), f"with {listed}" if listed else "")
            if part
        )
    return text


def _extras(scene: Scene, rng: RandomStream) -> list[str]:
    extras = []
    if scene.luminary not in (None, "none"):
        kind = {"crescent": "crescent moon"}.get(scene.luminary or "", scene.luminary or "")
        colour = scene.luminary_colour or ""
        text = f"{_ARTICLES.get(colour[:1], 'a')} {colour} {kind}"
        extras.append(f"{text} {_SIDE_NAMES[scene.luminary_side or 'centre']}" if rng.chance(0.9) else text)
    for thing in scene.objects or ():
        name = {"palm": "palm tree", "pine": "pine tree", "balloon": "hot air balloon"}.get(
            thing.name, thing.name
        )
        text = f"{_ARTICLES.get(name[0], 'a')} {name}"
        extras.append(f"{text} {_SIDE_NAMES[thing.side]}" if thing.side else text)
    if scene.weather == "clear" and scene.clouds == "some":
        extras.append("clouds")
    if scene.stars and scene.subject != "space":
        extras.append("stars")
    if scene.birds:
        extras.append("birds")
    return extras
