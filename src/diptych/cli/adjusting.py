"""The options `--resize`, `--crop`, `--mean` and `--std`, which every command with `--preprocessing` has."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from diptych.options import ReadOptions

if TYPE_CHECKING:
    from diptych.preprocessing import Preprocessing

__all__ = ["adjustable"]

_OPTIONS = {
    "resize": "Resize to this: one number for the shorter side, or HEIGHTxWIDTH.",
    "crop": "Keep the centre, after the resize: one number, or HEIGHTxWIDTH.",
    "mean": "Subtract this, one number or three, of values in 0-1: 0.485,0.456,0.406.",
    "std": "Divide by this, likewise.",
}


def adjustable(command: Callable[..., None]) -> Callable[..., None]:
    """The command with these options, which change the recipe of `--preprocessing`, or the model's own."""

    @wraps(command)
    def run(**given: Any) -> None:
        texts = {name: given.pop(name) for name in _OPTIONS}
        if any(text is not None for text in texts.values()):
            given["preprocessing"] = _adjusted(given, texts)
        command(**given)

    signature, parameters = inspect.signature(command), []
    hints = get_type_hints(command, include_extras=True)
    for parameter in signature.parameters.values():
        parameters.append(parameter)
        if parameter.name == "preprocessing":
            parameters += [inspect.Parameter(name, parameter.kind, default=None) for name in _OPTIONS]
    kinds = {
        name: Annotated[str | None, typer.Option(f"--{name}", help=text, show_default=False)]
        for name, text in _OPTIONS.items()
    }
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[p.replace(annotation=(hints | kinds)[p.name]) for p in parameters]
    )
    run.__annotations__ = hints | kinds
    return run


def _adjusted(given: dict[str, Any], texts: dict[str, str | None]) -> Preprocessing:
    from diptych.loading import load, recipe_of
    from diptych.model.entry import likely_input
    from diptych.preprocessing.adjusting import adjusted
    from diptych.serving.naming import name_and_model

    resize, crop = (_sizes(name, texts[name]) for name in ("resize", "crop"))
    mean, std = (_numbers(name, texts[name]) for name in ("mean", "std"))
    recipe, channels = None, 3
    model = next((given[name] for name in ("model", "source") if name in given), None)
    if len(given.get("models") or ()) == 1:
        model = name_and_model(given["models"][0])[1]
    if given["preprocessing"] is not None:
        recipe = recipe_of(given["preprocessing"])
    elif model is not None:
        names = ("architecture", "written_by", "key", "output")
        loaded = load(model, ReadOptions(**{name: given[name] for name in names if given.get(name)}))
        recipe, shape = loaded.preprocessing, likely_input(loaded)
        channels = 1 if shape is not None and len(shape) == 3 and shape[0] == 1 else 3
    return adjusted(recipe, resize=resize, crop=crop, mean=mean, std=std, channels=channels)


def _sizes(name: str, text: str | None) -> tuple[int, ...]:
    from diptych.errors import UsageError

    parts = [] if text is None else text.lower().split("x")
    if len(parts) > 2 or not all(part.strip().isascii() and part.strip().isdigit() for part in parts):
        raise UsageError(f"--{name} is one number, such as 256, or HEIGHTxWIDTH, such as 48x64, not {text!r}")
    return tuple(int(part[:9]) for part in parts)


def _numbers(name: str, text: str | None) -> tuple[float, ...]:
    from diptych.errors import UsageError

    try:
        return tuple(float(part) for part in (text or "").split(",") if text is not None)
    except ValueError as error:
        raise UsageError(
            f"--{name} is one number or three, such as 0.485,0.456,0.406, not {text!r}"
        ) from error
