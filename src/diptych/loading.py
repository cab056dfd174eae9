"""Loading models and recipes, from the object itself, a file or a name."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from diptych import formats, hub, preprocessing
from diptych.errors import FormatError, ModelError, UnsupportedLayer, UsageError, WeightsAlone
from diptych.files import is_file, opened
from diptych.guesses import tell
from diptych.model import architectures
from diptych.model.entry import likely_input
from diptych.model.model import Model
from diptych.model.validity import output_features
from diptych.options import ReadOptions
from diptych.preprocessing import Preprocessing

__all__ = ["TRAINED", "ModelLike", "Recipe", "load", "load_model", "read", "recipe_of", "takes"]

ModelLike: TypeAlias = "Model | str | Path"
"""A model, the path of a model file, or a model's name."""
Recipe: TypeAlias = "Preprocessing | Model | str | Path"
"""A recipe, its name, a recipe file, or a model or model file that carries one."""

TRAINED = {"scenes": Path(__file__).parent / "trained" / "scenes.safetensors"}
"""The trained models that come with the package, by name."""

_IMAGENET = 1000  # classes
_LARGEST_RECIPE = 2**20  # bytes


_WEIGHTS_OF_TORCH = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")

# What `formats.read` calls the options: to it, `flux_version` is the version that wrote the file.
_FORMAT_OPTIONS = {
    "architecture": "architecture",
    "written_by": "flux_version",
    "key": "key",
    "functions": "functions",
    "output": "output",
}


def load_model(
    model: ModelLike,
    architecture: ModelLike | None = None,
    written_by: str | None = None,
    key: str | None = None,
    functions: Mapping[str, str] | None = None,
    output: str | None = None,
) -> Model:
    """Loads a model from a file or by name.

    Args:
        model: The path of a model file; the name of a trained model (`loading.TRAINED`) or of an
            architecture (`model.architectures.NAMES`), which gets seeded initial weights and says that it
            is not trained; a name of `diptych.hub`, such as "timm/resnet18.a1_in1k"; or a `Model`, which is
            returned unchanged.
        architecture: The architecture to fill if the file holds weights alone: a model, a file or a name.
        written_by: The version of Flux that wrote the file, such as "0.13.4", where versions compute
            differently and the file does not record its own.
        key: Which of several models in a Flux file or in Julia source, such as "generator".
        functions: What closures compute whose code is not in the file, by name: {"#30#31": "flatten"}.
        output: Which of several outputs of an ONNX graph, by its name.

    Raises:
        FormatError: The file cannot be read.
        UsageError: There is no file or model of this name, or an option does not apply to it.
    """
    return load(model, ReadOptions(architecture, written_by, key, functions, output))


def read(path: str | Path, **options: Any) -> Model:
    """Reads the model in a file, or one by a name of `diptych.hub`.

    Args:
        path: A file of one of `formats.FORMATS`; or timm/NAME, torchvision/NAME[:WEIGHTS],
            hf-hub:OWNER/NAME[@REVISION], local-dir:FOLDER or such a folder, or an address with #sha256=.
        **options: As for `formats.read`; `architecture` may be such a name, too.

    Returns:
        The model.

    Raises:
        DiptychError: As `formats.read` and `hub.read` do.
    """
    architecture = options.get("architecture")
    if isinstance(architecture, str | Path) and hub.is_name(architecture):
        names = {name: option for option, name in _FORMAT_OPTIONS.items()}
        unknown = next((name for name in options if name not in names), None)
        if unknown is not None:
            raise UsageError(f"reading a model takes no option {unknown!r}; it takes {', '.join(names)}")
        return load(path, ReadOptions(**{names[name]: value for name, value in options.items()}))
    return hub.read(path, options) if hub.is_name(path) else formats.read(path, **options)


def takes(model: ModelLike, option: str) -> bool:
    """Whether `model` is the path of a file whose format takes this field of `ReadOptions`."""
    suffix = "" if isinstance(model, Model) else Path(model).suffix.lower()
    return any(suffix in f.suffixes and _FORMAT_OPTIONS[option] in f.reading for f in formats.FORMATS)


def load(model: ModelLike, options: ReadOptions | None = None) -> Model:
    """The model, as `load_model` loads it, with the options for reading as one value."""
    given = options.given() if options is not None else {}
    architecture = given.get("architecture")
    if architecture is not None and not isinstance(architecture, Model | str | Path):
        raise UsageError(
            f"an architecture is a diptych.Model, a file or a name, not {type(architecture).__name__}; "
            "diptych.from_torch(module, example=batch) makes a model of a module of PyTorch"
        )
    if architecture is not None and (isinstance(architecture, Model) or not formats.is_source(architecture)):
        # Julia source is read for the version that wrote the weights, below.
        if not isinstance(architecture, Model) and hub.is_name(architecture):
            if hub.is_network(architecture) and Path(str(model)).suffix.lower() in _WEIGHTS_OF_TORCH:
                return _filled(str(model), architecture, options)
            given["architecture"] = hub.read(architecture, weights=False)
        else:
            version = given.get("written_by") if takes(architecture, "written_by") else None
            given["architecture"] = load(architecture, ReadOptions(written_by=version))
            if version is not None and not takes(model, "written_by"):
                del given["written_by"]
    if isinstance(model, Model):
        if given:
            raise UsageError(f"{next(iter(given))} is for reading a file, but a model was given")
        return model
    if not isinstance(model, str | Path):
        raise UsageError(f"a model is a file, a name or a diptych.Model, not {type(model).__name__}")
    given = {_FORMAT_OPTIONS[name]: value for name, value in given.items()}
    if hub.is_name(model):
        named = hub.read(model, given)
        tell(named.source.warnings)
        return named
    if given:
        return _told(model, _read(model, given))
    name = str(model)
    if name in TRAINED:
        return formats.read(TRAINED[name])
    if name in architectures.NAMES:
        return architectures.named(name)
    path = Path(model)
    if not os.path.lexists(path) and not path.suffix and len(path.parts) == 1:
        known = ", ".join([*TRAINED, *architectures.NAMES])
        raise UsageError(
            f"there is no file and no model called {name!r}; give a file or one of: {known}; networks of others are "
            "named timm/NAME, torchvision/NAME or hf-hub:OWNER/NAME"
        )
    return _told(path, _read(path, {}))


def _read(path: str | Path, given: dict[str, Any]) -> Model:
    """The model in a file; one that no layers express is run as a whole, if an engine can."""
    try:
        return formats.read(path, **given)
    except UnsupportedLayer as obstacle:
        model = formats.read_whole(path, given.get("output"), obstacle)
        tell(model.source.warnings)
        return model


def _filled(file: str | Path, network: str | Path, options: ReadOptions | None) -> Model:
    """The network of a name with the weights of a file, which have the names that its module gives them."""
    try:
        return formats.read(file)
    except WeightsAlone:
        output = options.output if options is not None else None
        return hub.read(network, {} if output is None else {"output": output}, weights=Path(file))


def _told(file: str | Path, model: Model) -> Model:
    """The model that was read from a file of Flux; what was uncertain in reading it is told."""
    if takes(file, "written_by"):
        tell(model.source.warnings)
    return model


def recipe_of(source: Recipe) -> Preprocessing:
    """Loads a recipe.

    Args:
        source: A recipe, which is returned unchanged; its name, one of `preprocessing.NAMES` or one of
            these with another size, such as "grey-64"; a recipe file, the JSON that `diptych preprocess`
            writes as recipe.json; or a model or model file that carries a recipe.

    Raises:
        UsageError: There is no such recipe, or the model carries none.
        FormatError: The file holds no recipe.
    """
    if isinstance(source, Preprocessing):
        return source
    if isinstance(source, Model):
        if source.preprocessing is None:
            raise UsageError(_without_recipe(source))
        return source.preprocessing
    if isinstance(source, str | Path):
        path = Path(source)
        if path.suffix.lower() == ".json":
            return _from_json(path)
        if path.suffix or is_file(path) or str(source) in TRAINED or hub.is_name(source):
            return recipe_of(load(source))
        return preprocessing.named(str(source))
    raise UsageError(f"preprocessing is a recipe, its name, its file or a model, not {type(source).__name__}")


def _from_json(path: Path) -> Preprocessing:
    try:
        with opened(path) as stream:
            text = stream.read(_LARGEST_RECIPE)
        return Preprocessing.from_document(json.loads(text))
    except FileNotFoundError as error:
        raise FormatError(f"there is no recipe file {path}; check the path") from error
    except OSError as error:
        raise FormatError(f"cannot read the recipe file {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not JSON; a recipe file is what diptych preprocess writes") from error
    except ModelError as error:
        raise FormatError(f"{path} holds no recipe: {error}") from error


def _without_recipe(model: Model) -> str:
    """The message where a model without a recipe is given pictures, with the input that its layers take."""
    who, shape = model.name or "the model", likely_input(model)
    advice = "name one with --preprocessing (preprocessing=...)"
    if shape is None or len(shape) != 3 or shape[0] not in (1, 3):
        takes = "" if shape is None else f"; judging by its layers, it takes {_by(shape)}"
        return (
            f"{who} carries no preprocessing recipe{takes}: {advice}, one of {', '.join(preprocessing.NAMES)}"
        )
    colour = "grey" if shape[0] == 1 else "colour"
    height, width = shape[1:]
    size = "N" if None in shape else f"{height}" if height == width else f"{height}x{width}"
    if colour == "colour" and output_features(model) == _IMAGENET:
        likely = "imagenet-224" if None in shape else f"imagenet-{size}"
        return (
            f"{who} carries no preprocessing recipe; judging by its layers, it takes {_by(shape)} and has {_IMAGENET} "
            f"classes, as networks trained on ImageNet: {advice}, such as {likely}, or another mean, std, resize and "
            "crop with --mean, --std, --resize and --crop"
        )
    return (
        f"{who} carries no preprocessing recipe; judging by its layers, it takes {_by(shape)}: "
        f"{advice}, such as {colour}-{size}; for a model trained in Julia julia-{colour}-{size}-wh, if its pictures "
        f"were loaded with Images.jl and not permuted, and julia-{colour}-{size}, if they were permuted or came from "
        "MLDatasets"
    )


def _by(shape: Sequence[int | None]) -> str:
    return " x ".join("N" if size is None else str(size) for size in shape)
