"""From a file of Julia source to a model with initial weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from diptych.errors import FormatError, ModelError
from diptych.formats.flux.document import version_asked
from diptych.formats.flux.layouts import Version
from diptych.formats.flux.versions import Signs
from diptych.formats.julia_source.constructors import constructors_of
from diptych.formats.julia_source.models import Found, SourceFile, expanded, split_key
from diptych.formats.julia_source.reading import SourceReader
from diptych.formats.julia_source.text import source_of
from diptych.formats.julia_source.weights import draw
from diptych.model.layers import Chain, Layer
from diptych.model.model import Model, Source
from diptych.model.validity import check_layers

__all__ = ["read"]

_LUX = re.compile(r"^[ \t]*(using|import)\b.*\bLux\b", re.MULTILINE)
_FLUX = re.compile(r"^[ \t]*(using|import)\b.*\bFlux\b", re.MULTILINE)
_FORMULA_OF_LUX = (0, 16, 11)  # the Flux whose LayerNorm divides as that of Lux does, by sqrt(var + eps)
_MOST_PARTS = 200_000  # layers and their fields, a layer counted as often as it is used


def read(path: str | Path, flux_version: str | None = None, key: str | None = None) -> Model:
    """Builds the model that Julia source describes. Its weights are initial ones, drawn from a seed.

    Args:
        path: A script (.jl), a notebook with a Julia kernel (.ipynb), a Pluto notebook, or a Markdown file.
        flux_version: The version of Flux that it is for, such as "0.13.4", where versions compute differently.
        key: Which of several models: the name of a variable or function, a part such as "vae.encoder", or a call
            such as "build_model(64, 10)". Values that the file does not tell stand in front of it: "n = 4; model".

    Raises:
        FormatError: There is no model or no unique one, or it is not understood, with the line and its text.
        UsageError: `flux_version` is not a version of Flux.
    """
    path = Path(path)
    version = version_asked(flux_version)
    given, chosen = split_key(key)
    source = source_of(path)
    lux = _LUX.search(source.text) is not None and _FLUX.search(source.text) is None
    file = SourceFile(source, constructors_of(version, lux), given)
    found = file.chosen(chosen)
    if expanded(found.value) > _MOST_PARTS:
        raise FormatError(f"{path}: the model has more than {_MOST_PARTS} parts")
    draw(found.value, str(path))
    reader, layers = layers_of(found, file, _FORMULA_OF_LUX if lux else version)
    made = Model(layers, trained=False)
    extras: dict[str, Any] = {"flux": {"layers": reader.hints}} if reader.hints else {}
    warnings = (
        f"{found.key} was read from source: its weights are initial ones, drawn from a seed, and not trained",
        *reader.warnings,
    )
    text = ".".join(map(str, version)) if version and not lux else ""
    framework = "Lux" if lux else "Flux"
    return made.with_(source=Source("Julia source", framework, text, warnings, extras))


def layers_of(found: Found, file: SourceFile, version: Version | None) -> tuple[SourceReader, Chain]:
    """The layers of a value, with the reader that read them. Raises `FormatError`, with the line."""
    reader = SourceReader(file, Signs(low=(0, 15), exact=version))
    layer: Layer = reader.read(found.value)
    layers = layer if isinstance(layer, Chain) else Chain((layer,))
    try:
        check_layers(layers)
    except ModelError as error:
        raise FormatError(f"{file.source.name}: {error}") from error
    return reader, layers
