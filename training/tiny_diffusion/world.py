"""What the tiny generator is taught: scenes drawn by lot, what is held out of them, and their captions.

A scene is a pure function of its seed. Each has many captions, and all of them are prompts that the painter
understands, so that the painter can be judged by the same benchmark.
"""

from __future__ import annotations

from diptych.images.scenes import CLASSES, Scene, Thing
from diptych.images.scenes.painter import complete, render
from diptych.images.scenes.rng import RandomStream
from diptych.images.scenes.vocabulary import TIMES

__all__ = ["COLOURS", "OBJECTS", "SIDES", "caption", "draw", "held_out", "paint"]

SIZE = 64
SIDES = ("left", "centre", "right")
SUNS = ("white", "yellow", "orange", "red")
MOONS = ("white", "yellow", "red")
OBJECTS: dict[str, tuple[str, ...]] = {
    "city": ("boat", "tree", "balloon", "house"),
    "mountains": ("pine", "house", "balloon", "waterfall", "castle", "campfire"),
    "sea": ("boat", "ship", "lighthouse", "balloon"),
    "desert": ("cactus", "house", "balloon", "palm", "pyramid"),
    "forest": ("house", "campfire", "castle", "balloon"),
    "temple": ("tree", "pine", "palm", "balloon"),
    "field": ("tree", "house", "windmill", "balloon"),
    "island": ("boat", "lighthouse", "balloon", "ship"),
    "village": ("windmill", "tree", "balloon"),
    "space": ("rocket",),
}
COLOURS: dict[str, tuple[str, ...]] = {
    "balloon": ("red", "yellow", "blue", "green"),
    "house": ("red", "blue"),
    "lighthouse": ("red", "blue"),
    "boat": ("red", "white", "blue"),
    "tree": ("red", "green"),
}
MOODS = ("serene", "misty", "pastel", "vibrant", "dark", "mystic", "warm")

# Never seen in training: the benchmark asks for them to see whether the parts of a caption combine.
HELD_OUT_TIMES = frozenset(
    (
        ("city", "dawn"),
        ("mountains", "dusk"),
        ("sea", "morning"),
        ("desert", "dusk"),
        ("forest", "sunset"),
        ("temple", "morning"),
        ("field", "night"),
        ("island", "dawn"),
        ("village", "noon"),
    )
)
HELD_OUT_LUMINARIES = frozenset((("red", "left"), ("white", "right"), ("orange", "centre")))
HELD_OUT_OBJECTS = frozenset((("balloon", "blue"), ("house", "right"), ("boat", "left"), ("tree", "right")))


def draw(seed: int, free: bool = False) -> Scene:
    """The scene number `seed`, every choice made; never one that is held out, unless `free`."""
    for attempt in range(100):
        rng = RandomStream("tiny", seed, attempt)
        scene = complete(_request(rng), rng)
        if free or not held_out(scene):
            return scene
    raise AssertionError("a hundred draws in a row were held out")


def paint(seed: int, scene: Scene, size: int = SIZE):  # type: ignore[no-untyped-def]
    """The painting of a scene drawn with this seed: uint8 (size, size, 3)."""
    return render(scene, RandomStream("tiny", seed), size, size)


def held_out(scene: Scene) -> bool:
    """Whether any combination in the scene is kept from training."""
    return (
        (scene.subject, scene.time) in HELD_OUT_TIMES
        or (scene.luminary_colour, scene.luminary_side) in HELD_OUT_LUMINARIES
        or any(
            (thing.name, what) in HELD_OUT_OBJECTS
            for thing in scene.objects or ()
            for what in (thing.colour, thing.side)
        )
    )


def _request(rng: RandomStream) -> Scene:
    """A scene with everything chosen that a caption can name."""
    subject = rng.choice(CLASSES)
    space = subject == "space"
    time = "night" if space else rng.choice(TIMES)
    weather = "clear" if space or rng.chance(0.88) else rng.choice(("fog", "rain", "snow", "storm"))
    if subject == "desert" and weather == "snow":
        weather = "clear"
    clear = weather == "clear"
    luminary = "none"
    if clear and rng.chance(0.15 if space else 0.85):
        luminary = rng.choice(("moon", "moon", "crescent")) if time == "night" else "sun"
    style = None
    if rng.chance(0.3):
        style = {"city": "futuristic", "temple": "ancient"}.get(subject)
    return Scene(
        subject=subject,
        time=time,
        weather=weather,
        luminary=luminary,
        luminary_colour=None if luminary == "none" else rng.choice(SUNS if luminary == "sun" else MOONS),
        luminary_side=None if luminary == "none" else rng.choice(SIDES),
        clouds=rng.choice(("some", "none")) if clear and not space else None,
        stars=space or (clear and time == "night" and rng.chance(0.6)),
        birds=clear and not space and time not in ("dusk", "night") and rng.chance(0.25),
        objects=_things(subject, rng),
        moods=(rng.choice(MOODS),) if rng.chance(0.15) and not space else (),
        style=style,
    )


def _things(subject: str, rng: RandomStream) -> tuple[Thing, ...]:
    """No object, one, or two on different sides."""
    count = 0 if rng.chance(0.35) else 2 if rng.chance(0.35) else 1
    first = rng.choice(("left", "right"))
    sides = (first, "right" if first == "left" else "left")
    names: list[str] = []
    for _ in range(count):
        left = [name for name in OBJECTS[subject] if name not in names]
        if left:
            names.append(rng.choice(left))
    return tuple(
        Thing(name, rng.choice(COLOURS[name]) if name in COLOURS else None, side)
        for name, side in zip(names, sides, strict=False)
    )


# ---- captions

NAMES: dict[str, tuple[str, ...]] = {
    "city": ("a city", "the city", "a city skyline", "a metropolis", "a town"),
    "mountains": ("mountains", "the mountains", "mountain peaks", "a mountain range", "a mountain"),
    "sea": ("the sea", "the ocean", "a sea", "a seascape", "the open water"),
    "desert": ("a desert", "the desert", "desert dunes", "the dunes"),
    "forest": ("a forest", "the forest", "the woods", "a woodland", "a grove"),
    "temple": ("a temple", "the temple", "a shrine", "a sanctuary"),
    "field": ("a field", "the fields", "a meadow", "farmland", "the countryside"),
    "island": ("an island", "the island", "a tropical island", "an isle"),
    "village": ("a village", "the village", "a hamlet", "a settlement"),
    "space": ("space", "outer space", "a galaxy", "the cosmos", "the universe"),
}
_AT = {
    "dawn": ("at dawn", "at sunrise", "at daybreak"),
    "morning": ("in the morning", "in the morning"),
    "noon": ("at noon", "at midday", "by day", "in the afternoon", "on a sunny day"),
    "sunset": ("at sunset", "at sundown", "at sunset"),
    "dusk": ("at dusk", "at twilight", "in the evening"),
    "night": ("at night", "at night", "at midnight"),
}
_LIGHT = {
    "dawn": ("a {m}dawn", "a {m}sunrise"),
    "morning": ("a {m}morning",),
    "noon": ("a {m}day",),
    "sunset": ("a {m}sunset", "a {m}sundown"),
    "dusk": ("a {m}dusk", "a {m}evening", "a {m}twilight"),
    "night": ("a {m}night",),
}
_WEATHER = {
    "fog": ("in fog", "in mist", "in haze"),
    "rain": ("in the rain", "in rain", "in drizzle"),
    "snow": ("in snow", "in falling snow"),
    "storm": ("in a storm", "in a thunderstorm"),
}
_ON = {"left": "on the left", "right": "on the right", "centre": "in the centre"}
_CALLED = {"palm": "palm tree", "pine": "pine tree", "crescent": "crescent moon"}
_ALSO = {
    "ancient": ("old",),
    "birds": ("seagulls",),
    "boat": ("sailboat",),
    "campfire": ("bonfire", "fire"),
    "castle": ("fortress",),
    "centre": ("middle", "center"),
    "dark": ("gloomy",),
    "futuristic": ("cyberpunk",),
    "house": ("cottage", "cabin", "hut"),
    "mystic": ("magical", "mystical"),
    "orange": ("amber",),
    "pastel": ("soft",),
    "red": ("crimson", "scarlet"),
    "rocket": ("spaceship",),
    "serene": ("calm", "peaceful", "tranquil", "quiet"),
    "vibrant": ("colourful", "bright", "vivid"),
    "waterfall": ("cascade",),
}
_OPENINGS = ("a picture of", "a painting of", "an illustration of", "a landscape of", "a beautiful view of")
_OVER = ("over", "over", "above")


def caption(scene: Scene, rng: RandomStream, said: float = 0.9) -> str:
    """One of many ways of saying what the scene shows; each thing that can be seen, and its colour and side,
    is named with the probability `said`.
    """
    text = _sentence(scene, rng, said)
    if rng.chance(0.1) and text.split()[0] in ("a", "an", "the"):
        text = f"{rng.choice(_OPENINGS)} {text}"
    spoken = []
    for word in text.split():
        plain = word.rstrip(",")
        also = rng.choice(_ALSO[plain]) if plain in _ALSO and rng.chance(0.2) else plain
        spoken.append(also + word[len(plain) :])
    return article(" ".join(spoken))


def _sentence(scene: Scene, rng: RandomStream, said: float) -> str:
    subject = rng.choice(NAMES[scene.subject])
    moods = " ".join(scene.moods)
    extras = _extras(scene, rng, said)
    when = scene.time or "noon"
    weather = rng.choice(_WEATHER[scene.weather]) if scene.weather in _WEATHER else ""
    form = rng.integer(0, 4)
    if form == 0 and scene.subject != "space":
        light = rng.choice(_LIGHT[when]).format(m=f"{moods} " if moods else "")
        head = [article(light), rng.choice(_OVER), adorned(subject, scene.style or ""), weather]
        return _joined(head, extras, rng)
    named = adorned(subject, " ".join(word for word in (scene.style, moods) if word))
    at = "" if scene.subject == "space" else rng.choice(_AT[when])
    if form == 1 and extras:
        return " ".join(part for part in (_listed(extras), rng.choice(_OVER), named, at, weather) if part)
    if form == 2 and at:
        return _joined([f"{at},", named, weather], extras, rng)
    return _joined([named, at, weather], extras, rng)


def _joined(head: list[str], extras: list[str], rng: RandomStream) -> str:
    text = " ".join(part for part in head if part)
    if not extras:
        return text
    return f"{text} with {_listed(extras)}" if rng.chance(0.5) else ", ".join((text, *extras))


def _listed(extras: list[str]) -> str:
    return extras[0] if len(extras) == 1 else f"{', '.join(extras[:-1])} and {extras[-1]}"


def adorned(noun: str, adjectives: str) -> str:
    """ "a city", "serene" -> "a serene city"."""
    if not adjectives:
        return noun
    first, _, rest = noun.partition(" ")
    return article(f"{first} {adjectives} {rest}") if first in ("a", "an", "the") else f"{adjectives} {noun}"


def article(text: str) -> str:
    """ "a orange sun" -> "an orange sun" and the other way round."""
    first, _, rest = text.partition(" ")
    return f"{'an' if rest[:1] in 'aeiou' else 'a'} {rest}" if first in ("a", "an") else text


def named(kind: str, colour: str | None, side: str | None) -> str:
    """ "a red sun on the left"."""
    words = ["a", colour, _CALLED.get(kind, kind), _ON[side] if side else None]
    return article(" ".join(word for word in words if word))


def _extras(scene: Scene, rng: RandomStream, said: float) -> list[str]:
    extras = []
    if scene.luminary not in (None, "none"):
        colour = scene.luminary_colour if rng.chance(said) else None
        side = scene.luminary_side if rng.chance(said) else None
        if rng.chance(said):
            extras.append(named(scene.luminary or "sun", colour, side))
    for thing in scene.objects or ():
        colour = thing.colour if rng.chance(said) else None
        side = thing.side if rng.chance(said) else None
        if rng.chance(said):
            extras.append(named(thing.name, colour, side))
    if scene.weather == "clear" and scene.clouds == "some" and rng.chance(said):
        extras.append("clouds")
    if scene.stars and scene.subject != "space" and rng.chance(said):
        extras.append("stars")
    if scene.birds and rng.chance(said):
        extras.append("birds")
    if len(extras) > 1 and rng.chance(0.5):
        extras = [extras.pop(rng.integer(0, len(extras) - 1)) for _ in range(len(extras))]
    return extras
