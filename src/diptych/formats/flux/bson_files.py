"""Flux models in BSON.jl files: `BSON.@save "model.bson" model`, and what Diptych writes for it."""

from __future__ import annotations

from pathlib import Path

from diptych.formats import bson
from diptych.formats.flux.document import model_of, version_asked
from diptych.model.model import Model

__all__ = ["read"]


def read(path: str | Path, flux_version: str | None = None) -> Model:
    """The model in a .bson file that Flux 0.8 to 0.16 wrote.

    `flux_version` decides where versions compute differently and the file does not tell. Raises
    `FormatError` where there is no model, or a layer that has no equal here, with its path.
    """
    return model_of(bson.load(path), str(path), "BSON", version_asked(flux_version))
