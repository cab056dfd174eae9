"""Pictures in, numbers out: the verbs that need nothing but a model, pictures and an engine."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from diptych import engines, preprocessing
from diptych.engines import Compiled
from diptych.errors import FormatError, ImageError, ModelError, ShapeError, UsageError
from diptych.images import files
from diptych.images.picture import Picture
from diptych.model.entry import asked_shape, likely_input
from diptych.model.layers import Array
from diptych.model.model import Model
from diptych.model.summary import Summary, summarise
from diptych.model.trace import Trace
from diptych.preprocessing import Preprocessing

__all__ = [
    "TRAINED",
    "Images",
    "Recipe",
    "inspect",
    "load_model",
    "picture",
    "predict",
    "preprocess",
    "recipe_of",
    "trace",
]

T = TypeVar("T")
R = TypeVar("R")
ImageLike: TypeAlias = "str | Path | Picture | Array"
Images: TypeAlias = "ImageLike | Iterable[ImageLike]"
Recipe: TypeAlias = "Preprocessing | Model | str | Path"

# The models that come with the package, by name.
TRAINED = {"scenes": Path(__file__).parent / "trained" / "scenes.safetensors"}
_LARGEST_RECIPE = 2**20  # bytes
CHUNK = 32  # pictures a forward pass: enough to keep two cores busy, little enough for any memory


def load_model(
    model: Model | str | Path,
    architecture: Model | str | Path | None = None,
    written_by: str | None = None,
    key: str | None = None,
) -> Model:
    """A model from a file, or by name: one that comes trained (`TRAINED`) or an architecture.

    Architectures by name have seeded initial weights and say that they are not trained. Raises `FormatError`
    for a file that cannot be read, `UsageError` for a name that is neither.

    A file that holds weights alone is filled into `architecture`: a model, a file, or a name. `written_by`:
    the Flux that wrote the file, such as "0.13.4", where versions compute differently and it does not tell. `key`:
    which of several models in such a file, such as "generator".
    """
    from diptych import formats
    from diptych.model import architectures

    frame = None if architecture is None else load_model(architecture)
    asked: dict[str, Any] = {"architecture": frame, "flux_version": written_by, "key": key}
    options = {name: value for name, value in asked.items() if value is not None}
    if isinstance(model, Model):
        if options:
            name = "written_by" if "flux_version" in options else next(iter(options))
            raise UsageError(f"{name} is for a file, but the source is a model already")
        return model
    if options:
        return formats.read(model, **options)
    if not isinstance(model, str | Path):
        raise UsageError(f"a model is a file, a name or a diptych.Model, not {type(model).__name__}")
    name = str(model)
    if name in TRAINED:
        return formats.read(TRAINED[name])
    if name in architectures.NAMES:
        return architectures.named(name)
    path = Path(model)
    if not path.exists() and not path.suffix and len(path.parts) == 1:
        known = ", ".join([*TRAINED, *architectures.NAMES])
        raise UsageError(f"there is no file and no model called {name!r}; give a file or one of: {known}")
    return formats.read(path)


def recipe_of(source: Recipe) -> Preprocessing:
    """A recipe from itself, its name, a recipe file, or the model or model file that it travels with.

    A name is one of `preprocessing.NAMES`, or one of these with another size, such as "grey-64". A recipe
    file is JSON, as `diptych preprocess` writes recipe.json. Raises `UsageError` where there is no such
    recipe, `FormatError` for a file that holds none.
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
        if path.suffix or path.is_file() or str(source) in TRAINED:
            return recipe_of(load_model(source))
        return preprocessing.named(str(source))
    raise UsageError(f"preprocessing is a recipe, its name, its file or a model, not {type(source).__name__}")


def _from_json(path: Path) -> Preprocessing:
    try:
        with path.open("rb") as stream:
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
    """What to say where pictures are given, naming what the layers take as far as they tell it."""
    who, shape = model.name or "the model", likely_input(model)
    advice = "name one with --preprocessing (preprocessing=...)"
    if shape is None or len(shape) != 3 or shape[0] not in (1, 3):
        takes = "" if shape is None else f"; as far as its layers tell, it takes {_by(shape)}"
        return (
            f"{who} carries no preprocessing recipe{takes}: {advice}, one of {', '.join(preprocessing.NAMES)}"
        )
    colour = "grey" if shape[0] == 1 else "colour"
    height, width = shape[1:]
    size = "N" if None in shape else f"{height}" if height == width else f"{height}x{width}"
    return (
        f"{who} carries no preprocessing recipe; as far as its layers tell, it takes {_by(shape)}: "
        f"{advice}, such as {colour}-{size}, or julia-{colour}-{size} for pictures that Julia's imresize prepared"
    )


def _by(shape: Sequence[int | None]) -> str:
    return " x ".join("N" if size is None else str(size) for size in shape)


def picture(image: ImageLike, name: str = "image") -> Picture:
    """One picture from a path or an array (uint8, (H, W, 3) or (H, W)); a `Picture` is given back."""
    if isinstance(image, Picture):
        return image
    if isinstance(image, str | Path):
        return files.read(image)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8:
            raise ImageError(
                f"a picture in memory is uint8, got {image.dtype}; a float batch that is already preprocessed "
                "goes to predict or trace as (N, C, H, W)"
            )
        return Picture(image, name)
    raise UsageError(f"an image is a path, an array or a Picture, not {type(image).__name__}")


def preprocess(images: Images, preprocessing: Recipe, *, workers: int | None = None) -> Array:
    """Pictures -> float32 (N, C, H, W), by one recipe.

    `images`: a path, a folder, a uint8 array (H, W, 3) or (H, W), a `Picture`, or a list of these.
    `preprocessing`: a recipe, as `recipe_of` takes it. Files are decoded by `workers` threads, by default one
    a core; the result does not depend on them. Raises `ImageError` for a picture that cannot be read,
    `ShapeError` where the recipe gives pictures of different sizes.
    """
    recipe = recipe_of(preprocessing)
    return _stack(list(_prepared(_each(images), recipe, workers)))


def predict(
    model: Model | str | Path,
    x: Images,
    *,
    preprocessing: Recipe | None = None,
    engine: str = "auto",
    device: str = "auto",
) -> Array:
    """The model's output as float32, (N, classes) for a classifier.

    A float array is a batch (N, C, H, W) and is used as it is. Anything else is pictures, as `preprocess`
    takes them, and a recipe is applied first: the model's own, unless `preprocessing` names another.
    Raises `ShapeError` where the input does not fit, `ModelError` where a weight is not finite.
    """
    loaded = load_model(model)
    compiled = compiled_for(loaded, engine, device)
    if _is_batch(x):
        return compiled(_checked(x))
    recipe = recipe_of(preprocessing if preprocessing is not None else loaded)
    items = _prepared(_each(x), recipe, None)
    outputs = [compiled(_stack(chunk)) for chunk in iter(lambda: list(islice(items, CHUNK)), [])]
    if not outputs:
        raise UsageError("there are no images")
    return np.concatenate(outputs)


def trace(
    model: Model | str | Path,
    x: Images,
    *,
    preprocessing: Recipe | None = None,
    engine: str = "auto",
    device: str = "auto",
) -> Trace:
    """Every layer's output for a batch or for pictures, which are taken as `predict` takes them.

    Raises what `predict` raises.
    """
    loaded = load_model(model)
    recipe = preprocessing if preprocessing is not None else loaded
    batch = _checked(x) if _is_batch(x) else preprocess(x, recipe)
    return compiled_for(loaded, engine, device).trace(batch)


def inspect(model: Model | str | Path, shape: Sequence[int] | None = None) -> Summary:
    """The architecture of a model or a model file, layer by layer.

    `shape` replaces its own input's: one sample's, (C, H, W), or with the batch axis first, (N, C, H, W).
    For a model from Flux, `.flux` is the architecture as Flux prints it. Raises `ShapeError` where the model
    takes neither shape.
    """
    loaded = load_model(model)
    summary = summarise(loaded, asked_shape(loaded, shape) if shape is not None else None)
    if loaded.source.framework != "Flux":
        return summary
    from diptych.formats.flux.printing import as_flux

    return replace(summary, flux=as_flux(loaded))


# A model is immutable, so what an engine made of it can be kept for as long as the model lives.
_compiled: WeakKeyDictionary[Model, dict[tuple[str, str], Compiled]] = WeakKeyDictionary()


def compiled_for(model: Model, engine: str = "auto", device: str = "auto") -> Compiled:
    """The model on an engine, compiled at most once; its weights are checked first."""
    ready = _compiled.setdefault(model, {})
    if (engine, device) not in ready:
        model.check()
        ready[engine, device] = engines.compile(model, engine, device)
    return ready[engine, device]


def _is_batch(x: object) -> bool:
    return isinstance(x, np.ndarray) and x.dtype.kind == "f"


def _checked(batch: object) -> Array:
    values = np.ascontiguousarray(batch, dtype=np.float32)
    if values.ndim < 2 or 0 in values.shape:
        raise ShapeError(f"a batch is (N, C, H, W) or (N, features) and not empty, got shape {values.shape}")
    if not np.isfinite(values).all():
        bad = int(np.count_nonzero(~np.isfinite(values)))
        raise ModelError(f"the batch holds {bad} NaN or infinite values of {values.size}; clean it first")
    return values


def _each(images: Images) -> Iterator[ImageLike]:
    if isinstance(images, str | Path):
        yield from files.find([images])
    elif isinstance(images, Picture) or (isinstance(images, np.ndarray) and images.ndim in (2, 3)):
        yield images
    elif isinstance(images, Iterable):
        for image in images:
            yield from files.find([image]) if isinstance(image, str | Path) else [image]
    else:
        raise UsageError(f"images are paths, arrays or Pictures, not {type(images).__name__}")


def _prepared(images: Iterator[ImageLike], recipe: Preprocessing, workers: int | None) -> Iterator[Array]:
    def prepare(image: ImageLike) -> Array:
        return recipe.apply(
            files.decode(image)[0] if isinstance(image, str | Path) else picture(image).pixels
        )

    return in_order(prepare, images, workers)


def in_order(work: Callable[[T], R], items: Iterator[T], workers: int | None = None) -> Iterator[R]:
    """`map` by threads, in order, with only a few items in flight, so that a folder never fills the memory."""
    count = workers or os.cpu_count() or 1
    with ThreadPoolExecutor(count) as pool:
        waiting = [pool.submit(work, item) for item in islice(items, 2 * count)]
        while waiting:
            done = waiting.pop(0)
            waiting += [pool.submit(work, item) for item in islice(items, 1)]
            yield done.result()


def _stack(items: list[Array]) -> Array:
    if not items:
        raise UsageError("there are no images")
    shapes = {item.shape for item in items}
    if len(shapes) > 1:
        raise ShapeError(
            f"the recipe gives {len(shapes)} different shapes, {', '.join(map(str, sorted(shapes)[:3]))}, which "
            "cannot be one batch; add a Resize step, or bring all pictures to colour or to grey"
        )
    return np.stack(items)
