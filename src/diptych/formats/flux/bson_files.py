"""Flux models in BSON.jl files: `BSON.@save "model.bson" model`, and what Diptych writes for it."""

from __future__ import annotations

from pathlib import Path

from diptych.formats import bson
from diptych.formats.flux.document import model_of, version_asked
from diptych.formats.flux.document_writing import values_of
from diptych.model.model import Model

__all__ = ["read", "write"]


def read(
    path: str | Path,
    flux_version: str | None = None,
    architecture: Model | None = None,
    key: str | None = None,
) -> Model:
    """The model in a .bson file that Flux 0.8 to 0.16 wrote.

    `flux_version` decides where versions compute differently and the file does not tell. Weights alone
    are filled into the model `architecture`. `key` chooses one of several models, as
    in `document.model_of`. Raises `FormatError` where there is no model, or a layer that has no equal here,
    with its path.
    """
    version = version_asked(flux_version)
    return model_of(bson.load(path), str(path), "BSON", version, architecture=architecture, chosen=key)


def write(model: Model, path: str | Path, flux_version: str | None = None) -> list[str]:
    """A .bson file that `BSON.@load` turns into a live model of Flux 0.12 to 0.16, 0.16 unless told otherwise.

    Preprocessing, classes and what else the model records lie under keys of their own. The same model gives
    the same bytes. Raises `UnsupportedLayer` with path and reason for what that version cannot express.
    """
    remarks: list[str] = []
    bson.write(values_of(model, flux_version, remarks), path)
    return remarks
