"""What a run is asked to do: checked before anything is written, and comparable with another run."""

from __future__ import annotations

import hashlib
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import diptych
from diptych.errors import UsageError
from diptych.files import as_text, keep, sha256
from diptych.formats import safetensors
from diptych.images import generation
from diptych.images.arguments import Images, each_image
from diptych.images.picture import Picture
from diptych.loading import load, recipe_of
from diptych.model.model import Model
from diptych.model.shapes import layer_shapes
from diptych.options import ExplainMethod, GenerationOptions, OnError, RunOptions, ScaleRule
from diptych.predicting import compiled_for
from diptych.preprocessing import Preprocessing
from diptych.report.features import chosen_layers

__all__ = ["NAMES", "Request", "command_line", "keep_originals", "request_of"]

NAMES = re.compile(
    r"(generated|loaded|preprocessed)_image_\d+\.(png|npy)|explanation_\d+\.png|predictions\.(json|csv)|output_\d+\.npy|report\.html"
    r"|input_(heatmap|contour|surface|image_visualizations)\.png|loaded_image_verification\.png"
    r"|model_architecture\.txt|(conv_layer_\d+|layer_[\d-]+)_feature_maps\.png"
)
"""Every file name that a run may write."""


@dataclass(frozen=True)
class Request:
    """Everything that decides the results of a run, checked before anything is written.

    Attributes:
        prompt: What the pictures show, or None.
        images: Existing pictures, or None where they are made from the prompt.
        model: The model, loaded.
        recipe: The recipe in use.
        layers: The paths of the layers to draw.
        options: What the user chose.
    """

    prompt: str | None
    images: tuple[Path | Picture, ...] | None
    model: Model
    recipe: Preprocessing
    layers: tuple[str, ...]
    options: RunOptions

    def settings(self) -> dict[str, Any]:
        """The request as a JSON object: two runs with equal settings give equal files."""
        if self.images is not None:
            pictures: dict[str, Any] = {"images": [_identity(image) for image in self.images]}
        else:
            pictures = self.options.generation.to_document()
        return {
            "diptych": diptych.__version__,
            "prompt": self.prompt,
            **pictures,
            "model": {"name": self.model.name, "sha256": safetensors.digest(self.model)},
            "preprocessing": self.recipe.to_document(),
            "maps": list(self.layers),
            "scale": self.options.scale,
            "on_error": self.options.on_error,
            **({} if self.options.explain is None else {"explain": self.options.explain}),
            "static": self.options.static,
            "engine": self.options.engine,
            "device": self.options.device,
        }


def request_of(prompt: str | None, images: Images | None, options: RunOptions) -> Request:
    """Checks the arguments of `run` before anything is written.

    Args:
        prompt: What the pictures show, or None.
        images: Existing pictures, or None to make them from the prompt.
        options: What the user chose.

    Raises:
        UsageError: There is nothing to run, or an option does not exist or does not apply.
        DiptychError: Whatever loading the model, the recipe and the generator raise.
    """
    model = load(options.model, options.reading)
    if prompt is None and images is None:
        raise UsageError("there is nothing to run: give a prompt, or pictures with --images")
    _one_of("scale", options.scale, get_args(ScaleRule))
    _one_of("on_error", options.on_error, get_args(OnError))
    if options.explain is not None:
        _one_of("explain", options.explain, get_args(ExplainMethod))
    recipe = recipe_of(options.preprocessing if options.preprocessing is not None else model)
    if recipe.size is not None and recipe.channels is not None:
        layer_shapes(model, (1, recipe.channels, *recipe.size))
    compiled_for(model, options.engine, options.device)
    if images is not None:
        _check_unused(options.generation)
    else:  # checks its arguments at once, and paints nothing yet
        generation.paint(prompt or "", options.generation)
    pictures = None if images is None else tuple(each_image(images))
    return Request(prompt, pictures, model, recipe, chosen_layers(model, options.maps), options)


def keep_originals(request: Request, out: Path) -> None:
    """Raises `OutputError` if a picture to read is in `out`, under a name that the run would write."""
    originals = [image for image in request.images or () if isinstance(image, Path)]
    keep(originals, [out / image.name for image in originals if NAMES.fullmatch(image.name)])


def _check_unused(options: GenerationOptions) -> None:
    """Raises `UsageError` for options that only matter for making pictures: existing ones are given."""
    defaults = GenerationOptions().to_document()
    for name, value in options.to_document().items():
        if value is not None and value != defaults.get(name):
            raise UsageError(
                f"{name} is for making pictures, but existing ones are given; leave out one or the other"
            )


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(f"{name} is {' or '.join(known)}, not {value!r}")


def _identity(image: Path | Picture) -> dict[str, str]:
    """A picture by its name and content, wherever the file is."""
    if isinstance(image, Picture):
        return {"name": as_text(image.name), "sha256": hashlib.sha256(image.pixels.tobytes()).hexdigest()}
    try:
        if not image.is_file():  # a pipe would wait for ever
            return {"name": as_text(image.name), "sha256": ""}
        return {"name": as_text(image.name), "sha256": sha256(image)}
    except OSError:
        return {"name": as_text(image.name), "sha256": ""}  # reading it will raise the reason


def command_line(
    prompt: str | None, images: Images | None, out: str | Path, options: RunOptions
) -> str | None:
    """The command line that does the same; None for objects that a shell cannot name, and names that are not UTF-8."""
    paths = [images] if isinstance(images, str | Path) else images if isinstance(images, list | tuple) else []
    objects = (options.model, options.reading.architecture, options.preprocessing)
    nameable = not any(isinstance(given, Preprocessing | Model) for given in objects)
    if not nameable or (images is not None and not (paths and all(isinstance(p, str | Path) for p in paths))):
        return None
    words = ["diptych", "run", "--out", str(out)]
    for path in paths:
        words += ["--images", str(path)]
    choices = {
        "model": options.model,
        "preprocessing": options.preprocessing,
        **({} if images is not None else options.generation.to_document()),
        **options.reading.given(),
        "maps": options.maps,
        "scale": options.scale,
        "on_error": options.on_error,
        "explain": options.explain,
        "engine": options.engine,
        "device": options.device,
    }
    if options.static:
        words.append("--static")
    for name, value in choices.items():
        if value is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    # The prompt comes last, after "--": it may begin like an option.
    line = shlex.join([*words, "--", prompt] if prompt is not None else words)
    return line if line == as_text(line) else None
