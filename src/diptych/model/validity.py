"""Whether a model contradicts itself: what no type can say, checked before anything is computed.

Readers of files call these on what they built, writers on what they are about to store: a damaged or hostile
file ends here, in a sentence with the layer's path.
"""

from __future__ import annotations

from diptych.errors import ModelError, ShapeError
from diptych.model.layers import (
    Activated,
    Activation,
    BatchNorm,
    Chain,
    Conv,
    Dense,
    Dropout,
    Layer,
    Softmax,
    walk,
)
from diptych.model.model import Model
from diptych.model.shapes import layer_shapes

__all__ = ["check_classes", "check_input_shape", "check_layers", "output_features"]


def check_layers(layers: Layer) -> None:
    """Raises `ModelError` naming the first layer whose fields contradict each other."""
    for path, layer in (("", layers), *walk(layers)):
        where = f"layer {path} ({type(layer).__name__})" if path else "the model"
        for array in layer.arrays.values():
            if array.dtype.kind != "f" or array.dtype.itemsize not in (2, 4, 8):
                raise ModelError(f"{where}: weights are float16, float32 or float64, got {array.dtype}")
        try:
            if isinstance(layer, Activated):
                layer.activation.check()
            layer.check()
        except ModelError as error:
            raise ModelError(f"{where}: {error}") from error


def check_input_shape(model: Model) -> None:
    """Raises `ModelError` where the model cannot take the input shape it records."""
    shape = model.input_shape
    if shape is None or None in shape:
        return
    try:
        layer_shapes(model, (1, *(n for n in shape if n is not None)))
    except ShapeError as error:
        raise ModelError(
            f"the model does not take the input shape {shape} that it records: {error}"
        ) from error


def check_classes(model: Model) -> None:
    """Raises `ModelError` where the number of classes is not the number of outputs, when that is known."""
    outputs = output_features(model)
    names: set[object] = set()
    for name in model.classes or ():
        if not isinstance(name, str) or name in names:
            raise ModelError(f"class names are texts, each once, but {name!r} is among those given")
        names.add(name)
    if model.classes is not None and outputs is not None and len(model.classes) != outputs:
        raise ModelError(
            f"{model.name or 'the model'} gives {outputs} outputs but the class list has "
            f"{len(model.classes)} names; give exactly {outputs}"
        )


def output_features(model: Model) -> int | None:
    """The length of the channel axis of the output; None where neither shapes nor the last layers tell it."""
    shape = model.input_shape
    if shape is not None and None not in shape:
        try:
            shapes = layer_shapes(model, (1, *(n for n in shape if n is not None)))
        except ShapeError:
            return None
        top = [result for path, result in shapes.items() if "." not in path]
        return top[-1][1] if top and len(top[-1]) > 1 else None
    return _last_features(model.layers)


def _last_features(layer: Layer) -> int | None:
    if isinstance(layer, Chain):
        for inner in reversed(layer.layers):
            if not isinstance(inner, Activation | Softmax | Dropout | BatchNorm):
                return _last_features(inner)
    if isinstance(layer, Dense | Conv):
        return int(layer.weight.shape[0])
    return None
