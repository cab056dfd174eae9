"""Flux models in JLD2 files: `jldsave("model.jld2"; model)`, `Flux.state(model)`, and what Diptych writes."""

from __future__ import annotations

import re
from pathlib import Path

from diptych.formats import jld2
from diptych.formats.flux.document import model_of, version_asked
from diptych.formats.flux.layouts import Version, parse_version
from diptych.model.model import Model

__all__ = ["read"]


def read(path: str | Path, flux_version: str | None = None) -> Model:
    """The model in a .jld2 file of JLD2 0.4 to 0.6.

    `flux_version` decides where versions compute differently and the file does not tell. Raises
    `FormatError` where there is no model, or a layer that has no equal here, with its path.
    """
    values = jld2.load(path)
    julia = _julia(jld2.version(path).writer)
    return model_of(values, str(path), "JLD2", version_asked(flux_version), julia)


def _julia(writer: str) -> Version | None:
    found = re.search(r"Julia (\d+\.\d+\.\d+)", writer)
    return parse_version(found[1]) if found else None
