"""Which parts of a picture a classifier's answer stands on: the verb `explain`.

Three methods, which answer slightly different questions:

- Grad-CAM (Selvaraju et al., ICCV 2017, https://arxiv.org/abs/1610.02391): the maps of the last convolution, weighted
  by how much each raises the score; coarse, and it needs PyTorch.
- Occlusion (Zeiler and Fergus, ECCV 2014, https://arxiv.org/abs/1311.2901): how much the answer falls where a patch
  is covered; on any engine, slower.
- Smooth gradients (Smilkov et al., 2017, https://arxiv.org/abs/1706.03825): how much the score changes with each pixel,
  averaged over noisy copies; fine-grained, and it needs PyTorch.

A map that looks convincing may still show the picture and not the model. So every map is made again with randomised
weights (Adebayo et al., NeurIPS 2018, https://arxiv.org/abs/1810.03292): if it stays alike, it says nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from diptych import display
from diptych.errors import ShapeError, UsageError
from diptych.explaining import occluding
from diptych.explaining.checking import correlation, randomised
from diptych.extras import imported
from diptych.images.arguments import ImageLike, as_picture
from diptych.loading import ModelLike, Recipe, load, recipe_of
from diptych.model.layers import Array, Chain, Softmax
from diptych.model.layers.whole import whole_graph
from diptych.model.model import Model
from diptych.model.shapes import layer_shapes
from diptych.options import ExplainMethod
from diptych.predicting import compiled_for
from diptych.predictions import Predictions, classifies
from diptych.preprocessing import Preprocessing
from diptych.preprocessing.resize import imresize
from diptych.progress import Progress, silent

__all__ = ["METHODS", "Explanation", "explain", "explain_item"]

METHODS: tuple[str, ...] = get_args(ExplainMethod)

ALIKE = 0.7
"""The rank correlation with the map of randomised weights from which on a map says nothing about the model."""

_SEEDS = (0, 1, 2)
_SAMPLES = 32  # noisy copies for smooth gradients
_NOISE = 0.15  # standard deviation of their noise, of the input's range


@dataclass(frozen=True)
class Explanation:
    """A map of what a classifier's answer stands on.

    Attributes:
        model: The model's name.
        image: The picture's name.
        method: One of `METHODS`.
        layer: The layer whose maps Grad-CAM has weighted; None for the other methods.
        label: The class that is explained.
        value: The model's output for it: a probability or a score.
        kind: "probability" or "score".
        predicted: The class with the largest output.
        seen: The picture as the model saw it, uint8 (H, W) or (H, W, 3).
        heat: float32 (H, W), upright like `seen`. Occlusion: how much the value falls when a pixel is covered, averaged
            over the patches that cover it, so a negative number means that the value rises. Grad-CAM and smooth
            gradients: at least 0, and the largest is 1 unless all are 0.
        randomised: The mean absolute rank correlation of `heat` with the maps of three models with randomised weights;
            None where a graph is run as a whole, whose weights cannot be randomised.
        trained: Whether the model is trained.
    """

    model: str
    image: str
    method: str
    layer: str | None
    label: str
    value: float
    kind: str
    predicted: str
    seen: NDArray[np.uint8]
    heat: NDArray[np.float32]
    randomised: float | None
    trained: bool | None

    def _repr_html_(self) -> str:
        seen = display.picture(self.seen, f"{self.image} as the model saw it")
        heat = display.strip(self.heat[None, None], f"what {self.label} stands on, by {self.method}")
        words = f"{self.image}: {self.label}, {self.kind} {self.value:.4g}, explained by {self.method}"
        return display.paragraph(words) + seen + heat + "".join(map(display.paragraph, self.remarks))

    @property
    def says_something(self) -> bool:
        """Whether the map depends on the weights: it is not flat, and differs from those of randomised weights."""
        return bool(self.heat.max() > self.heat.min()) and (self.randomised or 0) < ALIKE

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences on how far the map can be believed."""
        said = []
        if self.trained is False:
            said.append("UNTRAINED weights: the map says nothing about the picture")
        if self.heat.max() == self.heat.min():
            said.append(
                f"the map is the same everywhere: by {self.method}, no part of the picture counts for {self.label}"
            )
        elif self.randomised is None:
            said.append(
                "the map was not checked against randomised weights: those of a graph that is run as a whole stay"
            )
        elif not self.says_something:
            said.append(
                f"the map hardly depends on the weights (rank correlation {self.randomised:.2f} with those of "
                "randomised weights): it shows the picture more than the model"
            )
        return tuple(said)

    def to_document(self) -> dict[str, Any]:
        """All but the pictures, as a JSON object."""
        return {
            "model": self.model,
            "image": self.image,
            "method": self.method,
            "layer": self.layer,
            "class": self.label,
            self.kind: self.value,
            "predicted": self.predicted,
            "size": list(self.heat.shape),
            "randomised_weights_correlation": None if self.randomised is None else round(self.randomised, 4),
            "says_something": self.says_something,
        }


def explain(
    model: ModelLike,
    image: ImageLike,
    *,
    method: ExplainMethod = "grad-cam",
    target: str | int | None = None,
    layer: str | None = None,
    patch: int | None = None,
    preprocessing: Recipe | None = None,
    engine: str = "auto",
    device: str = "auto",
    progress: Progress = silent,
) -> Explanation:
    """Finds which parts of a picture a classifier's answer stands on.

    Args:
        model: A classifier, its file or its name.
        image: A path, a uint8 array (H, W, 3) or (H, W), or a `Picture`.
        method: "grad-cam", "occlusion" or "smooth-gradients"; see `diptych.explaining`.
        target: The class to explain, its name or its number from 0; by default the one that the model predicts.
        layer: For Grad-CAM, the path of a layer with maps; by default the last one.
        patch: For occlusion, the side of the covered square in pixels of the input; by default an eighth of its
            shorter side.
        preprocessing: The recipe; the model's own by default.
        engine: The engine for predictions and occlusion. Derivatives are PyTorch's.
        device: As for `predict`.
        progress: Told as the map is made.

    Returns:
        The map, with what is needed to judge it.

    Raises:
        UsageError: There is no such method, class or layer, or the model is not a classifier.
        ShapeError: The model takes no pictures.
        MissingExtra: The method needs PyTorch, which is not installed.
        ImageError: The image cannot be read.
    """
    if method not in METHODS:
        raise UsageError(f"method is one of {', '.join(METHODS)}, not {method!r}")
    if layer is not None and method != "grad-cam":
        raise UsageError(f"a layer is for grad-cam; {method} takes the whole model")
    if patch is not None and method != "occlusion":
        raise UsageError(f"a patch is for occlusion; {method} covers nothing")
    loaded = load(model)
    recipe = recipe_of(preprocessing if preprocessing is not None else loaded)
    picture = as_picture(image)
    return explain_item(
        loaded, recipe.apply(picture.pixels), recipe, picture.name,
        method=method, target=target, layer=layer, patch=patch, engine=engine, device=device, progress=progress,
    )  # fmt: skip


def explain_item(
    loaded: Model,
    item: Array,
    recipe: Preprocessing,
    name: str,
    *,
    method: ExplainMethod,
    target: str | int | None = None,
    layer: str | None = None,
    patch: int | None = None,
    engine: str = "auto",
    device: str = "auto",
    progress: Progress = silent,
) -> Explanation:
    """Explains a picture that is prepared already; see `explain`.

    Args:
        loaded: The model.
        item: Its input, float32 (C, H, W).
        recipe: What made the input.
        name: The picture's name.
        method, target, layer, patch, engine, device, progress: As for `explain`.
    """
    compiled = compiled_for(loaded, engine, device)
    output = compiled(item[np.newaxis])
    predictions = Predictions.of(loaded, _classes(output, loaded), [name])
    index = _target(target, predictions)
    where = _last_maps(loaded, item, layer) if method == "grad-cam" else None
    make = _maker(method, item, index, where, patch, engine, device)
    total = 1 + len(_SEEDS)
    progress(0, total, "explaining")
    heat = make(loaded)
    correlations = []
    for done, seed in enumerate(_SEEDS if whole_graph(loaded.layers) is None else (), 1):
        progress(done, total, "explaining")
        correlations.append(abs(correlation(heat, make(randomised(loaded, seed)))))
    progress(total, total, "explaining")
    row = predictions.rows[0]
    return Explanation(
        model=loaded.name,
        image=name,
        method=method,
        layer=where,
        label=predictions.classes[index],
        value=row.values[index],
        kind=predictions.kind,
        predicted=predictions.label(row),
        seen=recipe.display(item),
        heat=np.ascontiguousarray(recipe.upright(heat[np.newaxis])[0], dtype=np.float32),
        randomised=float(np.mean(correlations)) if correlations else None,
        trained=loaded.trained,
    )


def _classes(output: Array, model: Model) -> Array:
    """The output as (1, classes)."""
    if not classifies(output.shape[1:], model):
        raise UsageError(
            f"{model.name or 'the model'} gives {output.shape[1:]} for a picture, which is not one value for each "
            "class: only a classifier can be explained; diptych features shows what the layers of another model give"
        )
    return output.reshape(1, -1)


def _target(target: str | int | None, predictions: Predictions) -> int:
    classes = predictions.classes
    if target is None:
        return predictions.rows[0].best
    if isinstance(target, str) and target in classes:
        return classes.index(target)
    if str(target).isdecimal() and int(target) < len(classes):
        return int(target)
    shown = ", ".join(classes[:12]) + (", ..." if len(classes) > 12 else "")
    raise UsageError(
        f"there is no class {str(target)!r}; name one of {shown}, or its number, 0 to {len(classes) - 1}"
    )


def _last_maps(model: Model, item: Array, asked: str | None) -> str:
    """The path of the layer whose maps Grad-CAM weights: the last one with more than one place."""
    shapes = layer_shapes(model, (1, *item.shape))
    with_maps = [path for path, shape in shapes.items() if len(shape) == 4 and shape[2] * shape[3] > 1]
    if asked is None:
        if not with_maps:
            raise ShapeError(
                "no layer of the model has maps with more than one place; use the method occlusion"
            )
        return with_maps[-1]
    if asked in with_maps:
        return asked
    has = f"gives {shapes[asked][1:]}, which are no maps" if asked in shapes else "does not exist"
    raise UsageError(
        f"layer {asked} {has}; layers with maps are {', '.join(with_maps[-12:]) or 'missing here'}"
    )


def _maker(
    method: str, item: Array, target: int, layer: str | None, patch: int | None, engine: str, device: str
) -> Callable[[Model], Array]:
    """What makes the map of a model, (H, W) in the orientation of the input."""
    if method == "occlusion":
        return lambda model: occluding.fall(compiled_for(model, engine, device), item, target, patch)
    gradients = imported("diptych.engines.gradients")
    if method == "grad-cam":
        assert layer is not None
        return partial(_grad_cam, gradients, item, target, layer)
    return partial(_smooth, gradients, item, target)


def _grad_cam(gradients: Any, item: Array, target: int, layer: str, model: Model) -> Array:
    maps, slopes = gradients.of_layer(_scoring(model), item, target, layer)
    weights = slopes.mean(axis=(1, 2), dtype=np.float64)
    heat = np.maximum(np.tensordot(weights, maps.astype(np.float64), 1), 0)
    return _of_one(imresize(heat, *item.shape[1:]))


def _smooth(gradients: Any, item: Array, target: int, model: Model) -> Array:
    noise = np.random.default_rng(0).normal(0, _NOISE * float(np.ptp(item)), (_SAMPLES, *item.shape))
    slopes = gradients.of_input(_scoring(model), (item + noise).astype(np.float32), target)
    return _of_one(np.abs(slopes.astype(np.float64)).mean(axis=0).max(axis=0))


def _scoring(model: Model) -> Model:
    """The model without a softmax at its end: a score can rise where a probability is close to 1 already."""
    return model.with_(layers=_without_softmax(model.layers)) if model.gives_probabilities else model


def _without_softmax(chain: Chain) -> Chain:
    *kept, last = chain.layers
    if isinstance(last, Chain):
        kept.append(_without_softmax(last))
    elif not isinstance(last, Softmax):
        kept.append(last)
    return Chain(tuple(kept), chain.names[: len(kept)])


def _of_one(heat: Array) -> Array:
    largest = heat.max()
    return heat / largest if largest > 0 else heat
