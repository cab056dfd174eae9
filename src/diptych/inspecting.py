"""The verb `inspect`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from diptych.loading import ModelLike, load
from diptych.model.entry import asked_shape
from diptych.model.summary import Summary, summarise

__all__ = ["inspect"]


def inspect(model: ModelLike, shape: Sequence[int] | None = None) -> Summary:
    """Summarises the architecture of a model, layer by layer.

    Args:
        model: A model, its file or its name.
        shape: The input's shape, instead of the model's own: one sample's, (C, H, W), or with the batch
            axis first, (N, C, H, W).

    Returns:
        The summary; for a model from Flux, its `flux` is the architecture as Flux prints it.

    Raises:
        ShapeError: The model does not take an input of this shape.
        FormatError: The file cannot be read.
    """
    loaded = load(model)
    summary = summarise(loaded, asked_shape(loaded, shape) if shape is not None else None)
    if loaded.source.framework != "Flux":
        return summary
    from diptych.formats.flux.printing import as_flux

    return replace(summary, flux=as_flux(loaded))
