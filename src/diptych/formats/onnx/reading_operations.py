"""The ONNX operations (https://onnx.ai/onnx/operators/) that are read as layers, a function for each, by family."""

from __future__ import annotations

from diptych.formats.onnx.reading_arithmetic import ARITHMETIC
from diptych.formats.onnx.reading_node import Rule
from diptych.formats.onnx.reading_norms import NORMS
from diptych.formats.onnx.reading_quantised import QUANTISED
from diptych.formats.onnx.reading_recurrent import RECURRENT
from diptych.formats.onnx.reading_resize import RESIZES
from diptych.formats.onnx.reading_shapes import SHAPES
from diptych.formats.onnx.reading_windows import WINDOWS

__all__ = ["OPERATIONS"]

OPERATIONS: dict[str, Rule] = {
    **WINDOWS,
    **ARITHMETIC,
    **NORMS,
    **SHAPES,
    **RESIZES,
    **QUANTISED,
    **RECURRENT,
}
