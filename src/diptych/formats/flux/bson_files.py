"""Flux models in BSON.jl files, as `BSON.@save "model.bson" model` writes them."""

from __future__ import annotations

from collections.abc import Mapping
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
    functions: Mapping[str, str] | None = None,
) -> Model:
    """Reads a .bson file of Flux 0.8 to 0.16.

    Args:
        path: The file.
        flux_version: The version of Flux that wrote it, such as "0.13.4", which decides where versions compute
            differently and the file does not record its own.
        architecture: The model to fill if the file holds weights alone.
        key: Which of several models to read, such as "generator", "gan.generator" or "model.2".
        functions: What closures compute whose code is not in the file, by name: {"#30#31": "flatten"}.

    Raises:
        FormatError: If the file is damaged, holds no model, or has a layer with no counterpart here; with its path.
        UsageError: If `flux_version` is not a version of Flux.
    """
    version = version_asked(flux_version)
    return model_of(
        bson.load(path),
        str(path),
        "BSON",
        version,
        architecture=architecture,
        chosen=key,
        functions=functions,
    )


def write(model: Model, path: str | Path, flux_version: str | None = None) -> list[str]:
    """Writes a .bson file that `BSON.@load` turns into a live Flux model.

    Recipe, classes and notes lie under keys of their own. The same model always gives the same bytes.

    Args:
        model: The model.
        path: The file.
        flux_version: The version of Flux to write for, 0.12 to 0.16, such as "0.14" or "0.14.25"; 0.16 if None.

    Returns:
        Remarks about what that version computes slightly differently.

    Raises:
        UnsupportedLayer: If that version cannot express a layer, with its path and the reason.
        UsageError: If the version cannot be written.
        OutputError: If the file cannot be written.
    """
    remarks: list[str] = []
    bson.write(values_of(model, flux_version, remarks), path)
    return remarks
