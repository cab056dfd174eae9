"""A model with some layers changed: what every try of a cause is made of. Models stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from diptych.model.layers import IDENTITY, Activated, Chain, Layer, child_path
from diptych.model.model import Model

__all__ = ["cut", "replaced", "with_activations_apart"]


def replaced(model: Model, changes: Mapping[str, Layer]) -> Model:
    """`model` with the layers at these paths exchanged. Every other path stays what it was."""
    tree = _replaced(model.layers, changes, "")
    return model.with_(layers=tree if isinstance(tree, Chain) else Chain((tree,)))


def _replaced(layer: Layer, changes: Mapping[str, Layer], path: str) -> Layer:
    if path in changes:
        return changes[path]
    children = tuple(
        _replaced(child, changes, child_path(path, index)) for index, child in enumerate(layer.children)
    )
    if all(new is old for new, old in zip(children, layer.children, strict=True)):
        return layer
    return layer.with_children(children)


def cut(model: Model, top: int) -> Model:
    """The model up to and with its top-level layer number `top`."""
    layers, names = model.layers.layers[: top + 1], model.layers.names[: top + 1]
    return model.with_(layers=Chain(layers, names))


def with_activations_apart(model: Model) -> tuple[Model, dict[str, str]]:
    """The model with every built-in activation as a layer of its own, and new path -> path in `model`.

    `Conv(relu)` at "0" becomes a Chain of the convolution, "0.0", and relu, "0.1".
    """
    changes: dict[str, Layer] = {}
    origin: dict[str, str] = {}
    for path, layer in model.walk():
        if isinstance(layer, Activated) and layer.activation:
            activation = layer.activation
            bare = replace(layer, activation=IDENTITY)  # type: ignore[call-arg]  # it has the field
            changes[path] = Chain((bare, activation))
            origin |= {f"{path}.0": path, f"{path}.1": path}
    return replaced(model, changes), origin
