"""A layer in one line."""

from diptych.model.layers import Layer


def label(layer: Layer) -> str:
    """The layer in one line: `Layer.label`."""
    return layer.label
