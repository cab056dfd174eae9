"""Which recipe a model was trained with, judged by a few pictures whose classes are known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diptych.errors import DiptychError, ModelError, UsageError
from diptych.images import files
from diptych.loading import ModelLike, load
from diptych.model.entry import likely_input
from diptych.model.layers import Array
from diptych.model.model import Model
from diptych.predicting import compiled_for
from diptych.preprocessing import NAMES, Invert, Preprocessing, Scale, named

__all__ = ["TriedRecipe", "try_recipes"]

_MOST = 64  # pictures


@dataclass(frozen=True)
class TriedRecipe:
    """One recipe and how well the model did with it.

    Attributes:
        name: Of the recipe; "julia-grey-28-wh, inverted" has an `Invert` before its scale.
        recipe: The recipe.
        right: How many pictures got their class.
        total: How many pictures there were.
        likelihood: The geometric mean of the probabilities of the right classes, 0 to 1.
    """

    name: str
    recipe: Preprocessing
    right: int
    total: int
    likelihood: float


def try_recipes(
    model: ModelLike, folder: str | Path, *, engine: str = "auto", device: str = "auto"
) -> list[TriedRecipe]:
    """Tries every named recipe that fits a classifier, as it is and with light and dark exchanged.

    Args:
        model: A model, its file or its name.
        folder: A folder with a folder of pictures for each class, called by the name of the class or its number from
            0; of very many pictures 64 are taken.
        engine: As for `predict`.
        device: As for `predict`.

    Returns:
        The recipes, the best first: by right answers, then by likelihood.

    Raises:
        UsageError: The folders are not those of classes, or no recipe fits.
        ImageError: A picture cannot be read.
    """
    loaded = load(model)
    pictures = _labelled(loaded, Path(folder))
    compiled = compiled_for(loaded, engine, device)
    tried = []
    for name, recipe in _candidates(loaded):
        try:
            outputs = np.concatenate([compiled(recipe.apply(pixels)[None]) for pixels, _ in pictures])
        except DiptychError:
            continue
        labels = np.array([label for _, label in pictures])
        if outputs.ndim != 2 or labels.max() >= outputs.shape[1]:
            raise UsageError("--try-recipes is for classifiers, with a folder for each of their classes")
        logs = _logarithms(outputs, loaded)[np.arange(len(labels)), labels]
        right = int((outputs.argmax(axis=1) == labels).sum())
        tried.append(TriedRecipe(name, recipe, right, len(labels), float(np.exp(logs.mean()))))
    if not tried:
        raise UsageError("no named recipe fits the model: it takes neither grey nor colour pictures")
    return sorted(tried, key=lambda each: (-each.right, -each.likelihood))


def _labelled(model: Model, folder: Path) -> list[tuple[Array, int]]:
    """Pixels and classes."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; give one with a folder of pictures for each class")
    found: list[tuple[Path, int]] = []
    names = {name: number for number, name in enumerate(model.classes or ())}
    for inside in sorted(path for path in folder.iterdir() if path.is_dir()):
        label = names.get(inside.name, int(inside.name) if inside.name.isdecimal() else None)
        if label is None:
            known = f"one of {', '.join(list(names)[:12])}" if names else "a number from 0"
            raise UsageError(f"the folder {inside} is called by no class of the model: name it {known}")
        found += [(path, label) for path in files.find([inside])]
    if not found:
        raise UsageError(f"{folder} holds no folders of pictures, one for each class")
    step = -(-len(found) // _MOST)
    return [(files.read(path).pixels, label) for path, label in found[::step]]


def _candidates(model: Model) -> list[tuple[str, Preprocessing]]:
    shape = likely_input(model)
    sizes = shape[1:] if shape is not None and len(shape) == 3 else (None, None)
    own = [("the model's own", model.preprocessing)] if model.preprocessing is not None else []
    found: list[tuple[str, Preprocessing]] = list(own)
    for name in NAMES:
        usual = name.rsplit("-wh", 1)[0].removesuffix("-normalised").rsplit("-", 1)[-1]
        size = usual if None in sizes else "x".join(map(str, dict.fromkeys(sizes)))
        recipe = named(name.replace(f"-{usual}", f"-{size}"))
        if shape is not None and recipe.channels not in (None, shape[0]):
            continue
        place = next(i for i, step in enumerate(recipe.steps) if isinstance(step, Scale))
        try:
            inverted = Preprocessing((*recipe.steps[:place], Invert(), *recipe.steps[place:]), recipe.name)
        except ModelError:
            inverted = None
        found.append((recipe.name, recipe))
        found += [(f"{recipe.name}, inverted", inverted)] if inverted is not None else []
    return found


def _logarithms(outputs: Array, model: Model) -> Array:
    """The logarithms of probabilities; of scores those that a softmax gives."""
    values = outputs.astype(np.float64)
    if model.gives_probabilities:
        return np.log(np.maximum(values, 1e-12))
    shifted = values - values.max(axis=1, keepdims=True)
    logs: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logs
