"""What a run is asked to do: checked as a whole before anything is written, and comparable with another."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

import diptych
from diptych.errors import UsageError
from diptych.files import sha256
from diptych.images import files, generation
from diptych.images.picture import Picture
from diptych.inference import Images, compiled_for, picture, recipe_of
from diptych.model.document import to_document
from diptych.model.model import Model
from diptych.model.shapes import layer_shapes
from diptych.preprocessing import Preprocessing
from diptych.report.features import chosen_layers

__all__ = ["OnError", "Request", "command_line", "request_of"]

OnError = Literal["report", "test-pattern"]


@dataclass(frozen=True)
class Request:
    """Everything that decides the results of a run, checked before anything is written."""

    prompt: str | None
    images: tuple[Path | Picture, ...] | None
    model: Model
    recipe: Preprocessing
    generation: Mapping[str, Any]  # count, seed, generator, width, height and the generator's own options
    maps: tuple[str, ...]
    scale: Literal["shared", "per-map"]
    on_error: OnError
    engine: str
    device: str

    def settings(self) -> dict[str, Any]:
        """As JSON: two runs with equal settings give equal files."""
        asked = {"images": [_identity(image) for image in self.images]} if self.images is not None else {}
        return {
            "diptych": diptych.__version__,
            "prompt": self.prompt,
            **asked,
            **(self.generation if self.images is None else {}),
            "model": {"name": self.model.name, "sha256": _fingerprint(self.model)},
            "preprocessing": self.recipe.to_document(),
            "maps": list(self.maps),
            "scale": self.scale,
            "on_error": self.on_error,
            "engine": self.engine,
            "device": self.device,
        }


def request_of(
    prompt: str | None,
    images: Images | None,
    model: Model,
    preprocessing: Preprocessing | str | None,
    making: Mapping[str, Any],
    maps: str,
    scale: str,
    on_error: str,
    engine: str,
    device: str,
) -> Request:
    """The request of these arguments, which are those of `run`; raises whatever is wrong with them."""
    if prompt is None and images is None:
        raise UsageError("there is nothing to run: give a prompt, or pictures with --images")
    _one_of("scale", scale, ("shared", "per-map"))
    _one_of("on_error", on_error, ("report", "test-pattern"))
    recipe = recipe_of(preprocessing if preprocessing is not None else model)
    if recipe.size is not None and recipe.channels is not None:
        layer_shapes(model, (1, recipe.channels, *recipe.size))
    compiled_for(model, engine, device)
    if images is None:
        generation.paint(prompt or "", **making)  # checks its arguments at once; nothing is painted yet
    return Request(
        prompt,
        None if images is None else _found(images),
        model,
        recipe,
        making,
        chosen_layers(model, maps),
        scale,  # type: ignore[arg-type] # checked above
        on_error,  # type: ignore[arg-type]
        engine,
        device,
    )


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(f"{name} is {' or '.join(known)}, not {value!r}")


def _found(images: Images) -> tuple[Path | Picture, ...]:
    if isinstance(images, str | Path):
        return tuple(files.find([images]))
    if isinstance(images, Picture | np.ndarray):
        return (picture(images),)
    named: list[Path | Picture] = []
    for index, image in enumerate(images, 1):
        named += files.find([image]) if isinstance(image, str | Path) else [picture(image, f"image_{index}")]
    if not named:
        raise UsageError("there are no pictures; name files or folders")
    return tuple(named)


def _identity(image: Path | Picture) -> dict[str, str]:
    """A picture by name and content: the same picture at another place is the same picture."""
    if isinstance(image, Picture):
        return {"name": image.name, "sha256": hashlib.sha256(image.pixels.tobytes()).hexdigest()}
    try:
        return {"name": image.name, "sha256": sha256(image)}
    except OSError:
        return {"name": image.name, "sha256": ""}  # reading it will say why


def _fingerprint(model: Model) -> str:
    """The SHA-256 of a model's layers, weights, recipe and classes, whatever file it came from."""
    document, arrays = to_document(model)
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode())
    for name, array in arrays.items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def command_line(
    prompt: str | None,
    images: Images | None,
    out: str | Path,
    model: Model | str | Path,
    preprocessing: Preprocessing | str | None,
    making: Mapping[str, Any],
    how: Mapping[str, Any],
) -> str | None:
    """The command line that does the same; None where objects were given that a shell cannot name."""
    paths = [images] if isinstance(images, str | Path) else images if isinstance(images, list | tuple) else []
    nameable = isinstance(model, str | Path) and not isinstance(preprocessing, Preprocessing)
    if not nameable or (images is not None and not (paths and all(isinstance(p, str | Path) for p in paths))):
        return None
    words = ["diptych", "run", "--out", str(out)]
    for path in paths:
        words += ["--images", str(path)]
    choices = {
        "model": model,
        "preprocessing": preprocessing,
        **({} if images is not None else making),
        **how,
    }
    for name, value in choices.items():
        if value is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    # Last, behind "--": a prompt may begin like an option.
    return shlex.join([*words, "--", prompt] if prompt is not None else words)
