"""Turns a prompt into a scene: finds the words that belong together, and those that are not understood."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

from diptych.images.scenes.vocabulary import CLASSES, CUTTING, IMPLIED, JOINING, VOCABULARY

_LONGEST = max(phrase.count(" ") + 1 for phrase in VOCABULARY)
_TOKEN = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|[.,;:!?()]|[^\s\w\x00-\x1f\x7f'\"’“”`\-–—/_]", re.UNICODE)
_BREAKS = frozenset(".,;:!?()")
_NOUNS = frozenset(("subject", "luminary", "sky", "object", "time"))

# When several subjects are named, the first of these is the subject and the others its surroundings.
_PRIORITY = ("temple", "village", "city", "island", "space", "field", "forest", "desert", "mountains", "sea")


@dataclass(frozen=True)
class Thing:
    """An object in the scene, with its number, colour and side if the prompt names them."""

    name: str
    colour: str | None = None
    side: str | None = None
    count: int = 1


@dataclass(frozen=True)
class Scene:
    """What a picture shows. None leaves the choice to the painter."""

    subject: str = ""  # empty until the painter has chosen one
    time: str | None = None
    weather: str | None = None
    luminary: str | None = None  # sun, moon, crescent or none
    luminary_colour: str | None = None
    luminary_side: str | None = None
    clouds: str | None = None  # none, some, many or around
    cloud_colour: str | None = None
    stars: bool | None = None
    birds: bool | None = None
    sky_colour: str | None = None
    subject_colour: str | None = None
    subject_side: str | None = None
    settings: tuple[str, ...] = ()
    water: bool | None = None
    ground: bool = False
    objects: tuple[Thing, ...] | None = None
    absent: tuple[str, ...] = ()
    moods: tuple[str, ...] = ()
    style: str | None = None
    aurora: bool = False
    rainbow: bool = False
    around: tuple[str, ...] = ()
    understood: tuple[str, ...] = field(default=(), compare=False)
    ignored: tuple[str, ...] = field(default=(), compare=False)


@dataclass
class _Word:
    """A word or phrase that was understood, and what belongs to it."""

    text: str
    kind: str
    value: str
    colour: str | None = None
    side: str | None = None
    count: int = 1
    around: bool = False
    negated: bool = False


def normalise(prompt: str) -> str:
    """The prompt in lower case with single spaces. Case and spaces do not change the picture."""
    return " ".join(prompt.split()).lower()


def understand(prompt: str) -> Scene:
    """The scene that a prompt asks for. Words that the painter does not understand are in `ignored`."""
    words, ignored = _read(normalise(prompt))
    _bind(words)
    ignored = (*ignored, *dict.fromkeys(word.text for word in words if word.kind == "left out"))
    scene = _gather([word for word in words if word.kind in _NOUNS or word.kind in _GATHERED])
    return replace(
        scene,
        understood=tuple(dict.fromkeys(w.text for w in words if w.kind not in _SILENT)),
        ignored=ignored,
    )


def _read(text: str) -> tuple[list[_Word], tuple[str, ...]]:
    tokens = _TOKEN.findall(text)
    words: list[_Word] = []
    ignored: dict[str, None] = {}
    at = 0
    while at < len(tokens):
        phrase, length = _longest_phrase(tokens, at)
        if length:
            kind, value = VOCABULARY[phrase]
            plural = kind == "object" and not phrase.endswith(tokens[at + length - 1])
            words.append(_Word(phrase, kind, value, count=3 if plural else 1))
            at += length
            continue
        token = tokens[at]
        if token in _BREAKS:
            words.append(_Word("", "break", token))
        elif token in CUTTING:
            words.append(_Word("", "cut", token))
        elif token not in JOINING:
            ignored[token if len(token) <= 40 else token[:39] + "…"] = None
        at += 1
    return words, tuple(ignored)


def nearest(word: str) -> str | None:
    """The word of the painter that is spelled most like this one, or None where none is."""
    found = get_close_matches(word, VOCABULARY, n=1, cutoff=0.75)
    return found[0] if found else None


def _longest_phrase(tokens: list[str], at: int) -> tuple[str, int]:
    for length in range(min(_LONGEST, len(tokens) - at), 0, -1):
        head = " ".join(tokens[at : at + length - 1])
        for last in _singulars(tokens[at + length - 1]):
            phrase = f"{head} {last}".strip()
            if phrase in VOCABULARY:
                return phrase, length
        if length == 1 and tokens[at] in JOINING:
            return "", 0
    return "", 0


def _singulars(word: str) -> Iterator[str]:
    yield word
    if word.endswith("ies"):
        yield word[:-3] + "y"
    if word.endswith("es"):
        yield word[:-2]
    if word.endswith("s"):
        yield word[:-1]


def _bind(words: list[_Word]) -> None:
    """Assigns colours, sides and counts to the nouns that they belong to."""
    for i, word in enumerate(words):
        if word.kind == "colour":
            after = _next_noun(words, i, ("colour", "mood", "style", "count", "distance"))
            noun = (
                _noun_before(words, i) if i and words[i - 1].kind == "is" else after or _noun_before(words, i)
            )
            if noun is None or noun.kind == "time":
                word.kind, word.value = _colour_as_mood(word.value)
            elif noun.colour in (None, word.value):
                noun.colour = word.value
            else:  # a second colour of one thing
                word.kind = "left out"
        elif word.kind == "side":
            noun = _noun_before(words, i) or _next_noun(
                words, i, ("colour", "mood", "style", "count", "break", "cut")
            )
            if noun is not None:
                noun.side = word.value
        elif word.kind == "count":
            noun = _next_noun(words, i, ("colour", "mood", "style"))
            if noun is not None:
                noun.count = int(word.value)
        elif word.kind == "not":
            noun = _next_noun(words, i, ("colour", "count"))
            if noun is not None:
                noun.negated = True
        elif word.kind == "around":
            _bind_around(words, i)


def _bind_around(words: list[_Word], i: int) -> None:
    """Marks everything listed after "surrounded by", up to a full stop."""
    for other in words[i + 1 :]:
        if other.kind == "break" and other.text == "" and other.value in ".;":
            break
        other.around = other.kind in _NOUNS


def _next_noun(words: list[_Word], i: int, skip: tuple[str, ...]) -> _Word | None:
    for other in words[i + 1 :]:
        if other.kind in _NOUNS:
            return other
        if other.kind not in skip:
            return None
    return None


def _noun_before(words: list[_Word], i: int) -> _Word | None:
    for other in reversed(words[:i]):
        if other.kind in _NOUNS and other.kind != "time":
            return other
        if other.kind == "break":
            return None
    return None


def _colour_as_mood(colour: str) -> tuple[str, str]:
    """What a colour without a noun means: a mood if there is one for it, otherwise the colour of the sky."""
    moods = {"golden": "golden", "white": "winter", "grey": "stormy", "black": "dark", "silver": "cold"}
    return ("mood", moods[colour]) if colour in moods else ("sky colour", colour)


_SILENT = frozenset(("break", "is", "cut", "left out"))
_GATHERED = frozenset(("weather", "mood", "style", "sky colour"))


def _gather(words: list[_Word]) -> Scene:
    """Collects what the words ask for, and chooses the subject."""
    fields: dict[str, object] = {}
    subjects: list[_Word] = []
    objects: dict[str, Thing] = {}
    moods: dict[str, None] = {}
    absent: list[str] = []
    around: list[str] = []
    for word in words:
        if word.around and word.kind in ("sky", "object"):
            around.append(word.value)
        if word.negated:
            absent.append(word.value)
        elif word.kind == "subject":
            subjects.append(word)
        elif word.kind == "object":
            objects[word.value] = Thing(word.value, word.colour, word.side, word.count)
        elif word.kind == "mood":
            moods[word.value] = None
        elif word.kind == "luminary":
            fields.setdefault("luminary", word.value)
            fields.setdefault("luminary_colour", word.colour)
            fields.setdefault("luminary_side", word.side)
        elif word.kind == "sky":
            fields.update(_sky_fields(word))
        elif word.kind == "sky colour":
            fields.setdefault("sky_colour", word.value)
        elif word.kind == "time":
            fields.setdefault("time", word.value)
            if word.text == "golden hour":
                moods["golden"] = None
        else:
            fields.setdefault(word.kind, word.value)
    for name in absent:
        fields.update(_absent_fields(name))
        objects.pop(name, None)
    subject, settings, chosen = _choose(subjects, tuple(objects), fields.get("water") is True)
    if chosen is not None:
        fields["subject_colour"], fields["subject_side"] = chosen.colour, chosen.side
    if subject is not None:
        fields["subject"] = subject
    return Scene(
        settings=settings,
        objects=tuple(objects.values()) or None,
        moods=tuple(moods),
        absent=tuple(absent),
        around=tuple(dict.fromkeys(around)),
        **fields,  # type: ignore[arg-type]  # each key is one of Scene's own fields, filled just above
    )


def _sky_fields(word: _Word) -> dict[str, object]:
    if word.value == "clouds":
        amount = "around" if word.around else "many" if word.count > 3 else "some"
        return {"clouds": amount, "cloud_colour": word.colour}
    if word.value == "sky":
        return {"sky_colour": word.colour} if word.colour else {}
    return {word.value: True}


def _absent_fields(name: str) -> dict[str, object]:
    if name == "clouds":
        return {"clouds": "none"}
    if name in ("sun", "moon", "crescent"):
        return {"luminary": "none", "luminary_colour": None, "luminary_side": None}
    if name in ("stars", "birds", "water", "aurora", "rainbow"):
        return {name: False}
    return {}


def _choose(
    subjects: list[_Word], objects: tuple[str, ...], water: bool
) -> tuple[str | None, tuple[str, ...], _Word | None]:
    """(subject, its surroundings, the word that named it)."""
    ranked = sorted(subjects, key=lambda word: _PRIORITY.index(word.value))
    if ranked:
        others = tuple(name for name in dict.fromkeys(w.value for w in ranked[1:]) if name != ranked[0].value)
        return ranked[0].value, others, ranked[0]
    for name in objects:
        if name in IMPLIED:
            return IMPLIED[name], (), None
    return ("sea" if water else None), (), None


assert set(_PRIORITY) == set(CLASSES)
