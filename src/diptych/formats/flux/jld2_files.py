"""Flux models in JLD2 files: `jldsave("model.jld2"; model)`, `Flux.state(model)`, and what Diptych writes."""

from __future__ import annotations

import re
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
) -> Model:
    """The model in a .jld2 file of JLD2 0.4 to 0.6.

    `flux_version` decides where versions compute differently and the file does not tell. Weights alone
    are filled into the model `architecture`. `key` chooses one of several models, as
    in `document.model_of`. Raises `FormatError` where there is no model, or a layer that has no equal here,
    with its path.
    """
    values = jld2.load(path)
    julia = _julia(jld2.version(path).writer)
    version = version_asked(flux_version)
    return model_of(values, str(path), "JLD2", version, julia, architecture, key)


_WEIGHTS_ALONE = (
    "a .jld2 file takes weights alone: to read it here the model is needed beside it (--architecture, or "
    "architecture= of diptych.read); .bson and .safetensors hold both"
)


def write(model: Model, path: str | Path, flux_version: str | None = None) -> list[str]:
    """A .jld2 file with `model_state`, which `Flux.loadmodel!(model, JLD2.load(path, "model_state"))` takes.

    Fields and their order are those of the version, 0.16 unless told otherwise; functions are (), as in
    `Flux.state`. The same model gives the same bytes. Raises `UnsupportedLayer` for what it has no struct for.
    """
    remarks: list[str] = []
    jld2.write(path, state_values_of(model, flux_version, remarks))
    return [*remarks, _WEIGHTS_ALONE]


def _julia(writer: str) -> Version | None:
    found = re.search(r"Julia (\d+\.\d+\.\d+)", writer)
    return parse_version(found[1]) if found else None
