"""Flux models in JLD2 files, as `jldsave("model.jld2"; model)` and `jldsave(...; model_state)` write them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from diptych.formats import jld2
from diptych.formats.flux.document import model_of, version_asked
from diptych.formats.flux.document_writing import state_values_of
from diptych.formats.flux.layouts import Version, parse_version
from diptych.model.model import Model

__all__ = ["read", "write"]


def read(
    path: str | Path,
    flux_version: str | None = None,
    architecture: Model | None = None,
    key: str | None = None,
    functions: Mapping[str, str] | None = None,
) -> Model:
    """Reads a .jld2 file of JLD2 0.1 to 0.6.

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
    values = jld2.load(path)
    julia = _julia(jld2.version(path).writer)
    version = version_asked(flux_version)
    return model_of(values, str(path), "JLD2", version, julia, architecture, key, functions)


_WEIGHTS_ALONE = (
    "a .jld2 file holds weights alone: reading it here needs the model as well (--architecture, or architecture= of "
    "diptych.read); .bson and .safetensors hold both"
)


def write(model: Model, path: str | Path, flux_version: str | None = None) -> list[str]:
    """Writes a .jld2 file with `model_state`, for `Flux.loadmodel!(model, JLD2.load(path, "model_state"))`.

    The fields and their order are those of the version; functions are (), as in `Flux.state`. The same model always
    gives the same bytes.

    Args:
        model: The model.
        path: The file.
        flux_version: The version of Flux to write for, 0.12 to 0.16, such as "0.14" or "0.14.25"; 0.16 if None.

    Returns:
        Remarks: what that version computes slightly differently, and that the file holds weights alone.

    Raises:
        UnsupportedLayer: If that version has no struct for a layer.
        UsageError: If the version cannot be written.
        OutputError: If the file cannot be written.
    """
    remarks: list[str] = []
    jld2.write(path, state_values_of(model, flux_version, remarks))
    return [*remarks, _WEIGHTS_ALONE]


def _julia(writer: str) -> Version | None:
    found = re.search(r"Julia (\d+\.\d+\.\d+)", writer)
    return parse_version(found[1]) if found else None
