"""A recipe as values that JSON can hold, and back. A document may be untrusted: only known steps are accepted."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from diptych.errors import ModelError
from diptych.preprocessing.levels import Invert, Light, LowPass, Standardise
from diptych.preprocessing.steps import (
    MAX_STEPS,
    CentreCrop,
    Colour,
    Grey,
    Normalise,
    RecipeStep,
    Resize,
    Scale,
    SpatialOrder,
)

__all__ = ["from_document", "to_document"]

_VERSION = 1
_STEPS: tuple[tuple[str, type[RecipeStep]], ...] = (
    ("grey", Grey),
    ("colour", Colour),
    ("invert", Invert),
    ("light", Light),
    ("low-pass", LowPass),
    ("resize", Resize),
    ("centre-crop", CentreCrop),
    ("scale", Scale),
    ("standardise", Standardise),
    ("normalise", Normalise),
    ("spatial-order", SpatialOrder),
)


def to_document(steps: tuple[RecipeStep, ...], name: str) -> dict[str, Any]:
    """{"version": 1, "name": ..., "steps": [{"step": "grey", "weights": "julia"}, ...]}."""
    names = {kind: step_name for step_name, kind in _STEPS}
    return {"version": _VERSION, "name": name, "steps": [_step_document(names[type(s)], s) for s in steps]}


def _step_document(name: str, step: RecipeStep) -> dict[str, Any]:
    settings = {
        key: list(value) if isinstance(value, tuple) else value for key, value in asdict(step).items()
    }
    return {"step": name, **settings}


def from_document(document: Any) -> tuple[tuple[RecipeStep, ...], str]:
    """The steps and the name of a document. Missing settings take their defaults. Raises `ModelError`."""
    _check_keys(document, "a recipe", ("version", "name", "steps"), required=("version", "steps"))
    version, name, steps = document["version"], document.get("name", ""), document["steps"]
    if version != _VERSION or isinstance(version, bool):
        raise ModelError(
            f"the recipe has another version than {_VERSION}, which this Diptych reads; update Diptych"
        )
    if not isinstance(name, str):
        raise ModelError(f"a recipe's name must be a string, not {type(name).__name__}")
    if not isinstance(steps, list) or len(steps) > MAX_STEPS:
        size = f" of {len(steps)}" if isinstance(steps, list) else ""
        raise ModelError(
            f"a recipe's steps must be a list of at most {MAX_STEPS}, not {type(steps).__name__}{size}"
        )
    return tuple(_step(item, number) for number, item in enumerate(steps, 1)), name


def _step(item: Any, number: int) -> RecipeStep:
    known = dict(_STEPS)
    name = item.get("step") if isinstance(item, dict) else None
    if not isinstance(name, str) or name not in known:
        raise ModelError(f"step {number} of the recipe must be one of {', '.join(known)}")
    kind = known[name]
    allowed = tuple(f.name for f in fields(kind))
    required = {
        Resize: ("height", "width"),
        CentreCrop: ("height", "width"),
        LowPass: ("height", "width"),
        Normalise: ("mean", "std"),
    }.get(kind, ())
    _check_keys(item, f"step {number} of the recipe, {name},", ("step", *allowed), required)
    try:
        return kind(**{key: value for key, value in item.items() if key != "step"})
    except ModelError as error:
        raise ModelError(f"step {number} of the recipe: {error}") from error


def _check_keys(document: Any, what: str, allowed: tuple[str, ...], required: tuple[str, ...]) -> None:
    if not isinstance(document, dict):
        raise ModelError(f"{what} must be an object with {', '.join(allowed)}, not {type(document).__name__}")
    missing = [key for key in required if key not in document]
    if missing:
        raise ModelError(f"{what} lacks {', '.join(missing)}; take the document of another copy")
    unknown = [key for key in document if key not in allowed]
    if unknown:
        first = repr(unknown[0])[:40]
        raise ModelError(f"{what} has the unknown setting {first}; the settings are {', '.join(allowed)}")
