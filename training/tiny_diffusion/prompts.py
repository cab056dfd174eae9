"""The benchmark's thousand prompts, in the manner of GenEval but of a closed vocabulary, and what each asks.

Seven categories; three prompts in ten ask for a combination that was held out of training.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from diptych.images.scenes import Scene
from diptych.images.scenes.rng import RandomStream
from tiny_diffusion import world

CATEGORIES = ("subject", "time", "colour", "position", "presence", "two objects", "binding")
COUNT = 1000
_FIRST_SEED = 3_000_000_000  # far from the seeds of training

Ask = tuple[str, str]
"""A group of the checkers and the class that is asked for, as ("sun or moon side", "left")."""


@dataclass(frozen=True)
class Prompt:
    """A prompt, what a picture of it must show to pass, and whether training held that combination out."""

    text: str
    category: str
    held_out: bool
    asks: tuple[Ask, ...]


def prompts(count: int = COUNT) -> list[Prompt]:
    """The first `count` prompts: always the same."""
    return [_prompt(number) for number in range(count)]


def _prompt(number: int) -> Prompt:
    category, held_out = CATEGORIES[number % len(CATEGORIES)], number % 10 < 3
    for attempt in range(10_000):
        seed = _FIRST_SEED + number * 10_000 + attempt
        found = _CUT[category](world.draw(seed, free=True), RandomStream("prompt", seed))
        if found is None or world.held_out(found[0]) != held_out:
            continue
        scene, asks = found
        return Prompt(world.caption(scene, RandomStream("words", seed), said=1.0), category, held_out, asks)
    raise AssertionError(f"no scene suits {category}")


Cut = tuple[Scene, tuple[Ask, ...]]


def _bare(scene: Scene) -> Scene:
    """Only the subject and the time of day."""
    return Scene(scene.subject, scene.time, weather="clear", luminary="none", clouds="none")


def _subject(scene: Scene, rng: RandomStream) -> Cut | None:
    return _bare(scene), (("subject", scene.subject),)


def _time(scene: Scene, rng: RandomStream) -> Cut | None:
    return None if scene.subject == "space" else (_bare(scene), (("time", scene.time or ""),))


def _luminary(scene: Scene) -> Scene:
    return replace(
        _bare(scene),
        luminary=scene.luminary,
        luminary_colour=scene.luminary_colour,
        luminary_side=scene.luminary_side,
    )


def _colour(scene: Scene, rng: RandomStream) -> Cut | None:
    coloured = [thing for thing in scene.objects or () if thing.colour]
    if coloured and _light(scene) and rng.chance(0.5):
        thing = coloured[0]
        asks = ((thing.name, "yes"), (f"{thing.name} colour", thing.colour or ""))
        return replace(_bare(scene), objects=(thing,)), asks
    if scene.luminary == "none":
        return None
    return _luminary(scene), (_kind(scene), ("sun or moon colour", scene.luminary_colour or ""))


def _light(scene: Scene) -> bool:
    """Whether there is light enough to tell the colours of things."""
    return scene.time in ("dawn", "morning", "noon", "sunset")


def _kind(scene: Scene) -> Ask:
    return ("sun or moon", scene.luminary or "")


def _position(scene: Scene, rng: RandomStream) -> Cut | None:
    if scene.objects and rng.chance(0.5):
        thing = scene.objects[0]
        asks = ((thing.name, "yes"), (f"{thing.name} side", thing.side or ""))
        return replace(_bare(scene), objects=(thing,)), asks
    if scene.luminary == "none":
        return None
    return _luminary(scene), (_kind(scene), ("sun or moon side", scene.luminary_side or ""))


def _presence(scene: Scene, rng: RandomStream) -> Cut | None:
    bare, found = _bare(scene), []
    if scene.objects:
        found.append((replace(bare, objects=scene.objects[:1]), ((scene.objects[0].name, "yes"),)))
    if scene.clouds == "some" and scene.weather == "clear":
        found.append((replace(bare, clouds="some"), (("clouds", "yes"),)))
    if scene.stars and scene.subject != "space":
        found.append((replace(bare, stars=True), (("stars", "yes"),)))
    if scene.birds:
        found.append((replace(bare, birds=True), (("birds", "yes"),)))
    return rng.choice(found) if found else None


def _two_objects(scene: Scene, rng: RandomStream) -> Cut | None:
    things = scene.objects or ()
    if len(things) < 2:
        return None
    return replace(_bare(scene), objects=things), tuple((thing.name, "yes") for thing in things)


def _binding(scene: Scene, rng: RandomStream) -> Cut | None:
    """A coloured sun or moon and a coloured thing, each with its own colour and side."""
    coloured = [thing for thing in scene.objects or () if thing.colour]
    if not coloured or scene.luminary == "none" or not _light(scene):
        return None
    thing = coloured[0]
    if thing.side == scene.luminary_side or thing.colour == scene.luminary_colour:
        return None
    return replace(_luminary(scene), objects=(thing,)), (
        ("sun or moon colour", scene.luminary_colour or ""),
        ("sun or moon side", scene.luminary_side or ""),
        (f"{thing.name} colour", thing.colour or ""),
        (f"{thing.name} side", thing.side or ""),
    )


_CUT = {
    "subject": _subject,
    "time": _time,
    "colour": _colour,
    "position": _position,
    "presence": _presence,
    "two objects": _two_objects,
    "binding": _binding,
}
