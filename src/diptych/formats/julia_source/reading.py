"""Reading the layers that source makes: `formats.flux` reads the structs, and closures become layers or graphs."""

from __future__ import annotations

from typing import Any

from diptych.errors import FormatError
from diptych.formats.flux.reading import FluxReader
from diptych.formats.flux.reading_functions import computed, function_layer
from diptych.formats.flux.reading_layers import RULES
from diptych.formats.flux.versions import Signs
from diptych.formats.julia import JuliaStruct
from diptych.formats.julia.expressions import Argument, Function, Written
from diptych.formats.julia.expressions import Tuple as TupleExpression
from diptych.formats.julia_source.models import SourceFile
from diptych.formats.julia_source.syntax import short
from diptych.model.layers import Layer

__all__ = ["SourceReader"]

_ADVICE = ("; in Julia use named layers", "; use named layers", "; use a named layer", "; save a Flux model")


class SourceReader(FluxReader):
    """Reads values of Julia source as layers. Errors name the line.

    Args:
        file: The file that the values come from.
        signs: The version of Flux.
    """

    def __init__(self, file: SourceFile, signs: Signs) -> None:
        super().__init__(RULES, signs, _function, file.source.name)
        self.file = file
        self._placed = False

    def read(self, value: Any) -> Layer:
        """The layer for the model itself."""
        bare = not isinstance(value, JuliaStruct) or value.type.name != "Chain"
        self.suppose(value)
        return self.layer(value, "0" if bare else "")

    def _layer(self, value: JuliaStruct, path: str) -> Layer:
        try:
            return super()._layer(value, path)
        except FormatError as error:
            node = getattr(value, "node", None)
            if self._placed or node is None:
                raise
            self._placed = True
            text = str(error)
            for advice in _ADVICE:
                text = text.split(advice)[0]
            text = text.removeprefix(f"{self.name}: ")
            place = self.file.e.where(node)
            if place in text:
                raise FormatError(text) from error
            raise FormatError(f"{place}: {short(node)}: {text}") from error


def _function(r: FluxReader, value: JuliaStruct, path: str) -> Layer:
    """The layer that computes a function of the source; for any other function the one for files."""
    if not isinstance(value, Written):
        return function_layer(r, value, path)
    expression = value.apply([Argument(1, "x")])
    if isinstance(expression, TupleExpression):
        raise FormatError(f"{value.where} gives several outputs, where a model has one")
    return computed(r, Function(expression, value.where), path)
