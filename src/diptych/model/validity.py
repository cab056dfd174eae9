"""Checks that a model does not contradict itself.

Readers check what they have read, and writers what they are about to write, so that a damaged or hostile file gives
an error that names the layer.
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
    """Checks the fields and weights of every layer.

    Raises:
        ModelError: Names the first layer whose fields contradict each other, or whose weights are not float16, float32
            or float64.
    """
    for path, layer in (("", layers), *walk(layers)):
        where = f"layer {path} ({type(layer).__name__})" if path else "the model"
        for array in layer.arrays.values():
            if array.dtype.kind != "f" or array.dtype.itemsize not in (2, 4, 8):
                raise ModelError(f"{where}: weights must be float16, float32 or float64, got {array.dtype}")
        try:
            if isinstance(layer, Activated):
                layer.activation.check()
            layer.check()
        except ModelError as error:
            raise ModelError(f"{where}: {error}") from error


def check_input_shape(model: Model) -> None:
    """Checks the recorded input shape, if all its sizes are known.

    Raises:
        ModelError: The layers cannot take it.
    """
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
    """Checks that class names are different strings, one for each output if their number is known.

    Raises:
        ModelError: They are not.
    """
    outputs = output_features(model)
    names: set[object] = set()
    for name in model.classes or ():
        if not isinstance(name, str) or name in names:
            raise ModelError(
                f"class names must be different strings, but {name!r} is not a string or occurs twice"
            )
        names.add(name)
    if model.classes is not None and outputs is not None and len(model.classes) != outputs:
        raise ModelError(
            f"{model.name or 'the model'} gives {outputs} outputs but the class list has "
            f"{len(model.classes)} names; give exactly {outputs}"
        )


def output_features(model: Model) -> int | None:
    """The length of axis 1 of the output, or None if neither the shapes nor the last layers determine it."""
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
