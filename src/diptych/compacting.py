"""Smaller models: weights in half precision, and 8-bit integers by ONNX Runtime's quantiser.

What it costs is measured: the size, the time for one picture, how often the predicted class stays, and how far the
outputs move.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from diptych import engines
from diptych.errors import ModelError, UsageError, reason
from diptych.formats.onnx import read_quantised, to_onnx
from diptych.images import files
from diptych.loading import recipe_of
from diptych.model.layers import Array, Layer
from diptych.model.layers.whole import whole_graph
from diptych.model.model import Model
from diptych.predictions import classifies
from diptych.preparing import preprocess

__all__ = ["KEY", "Measured", "halved", "measured", "prepared", "quantised", "split"]

KEY = "compact"
"""The note of a model that says how it was made smaller, and what that costs."""

_MOST_PICTURES = 500
_ENOUGH = 16  # pictures to calibrate with one half and measure with the other
_SECONDS = 0.5  # of timing, for each of the two models
_HALF_MAX = float(np.finfo(np.float16).max)
_MASKED = np.float32(1e30)  # what readers make of infinity in masks


@dataclass(frozen=True)
class Measured:
    """What a smaller model costs and gains.

    Attributes:
        kind: "half" or "int8".
        pictures: How many were measured on; 0 where none were given, and made-up inputs were.
        same_class: The share of these whose predicted class stays, 0 to 1; None without pictures or classes.
        largest_difference: Of the outputs.
        largest_output: The largest absolute output of the model as it was.
        speed: The time for one input as it was, divided by the new one; above 1 is faster.
    """

    kind: str
    pictures: int
    same_class: float | None
    largest_difference: float
    largest_output: float
    speed: float

    def to_document(self) -> dict[str, Any]:
        """The figures as a JSON object."""
        return {
            "kind": self.kind,
            "pictures": self.pictures,
            "same_class": self.same_class,
            "largest_difference": self.largest_difference,
            "largest_output": self.largest_output,
            "speed": round(self.speed, 3),
        }

    def text(self) -> str:
        """The figures in one sentence."""
        on = f"{self.pictures} pictures" if self.pictures else "made-up inputs (name pictures with --images)"
        agreement = (
            "" if self.same_class is None else f"the predicted class stays for {self.same_class:.1%}, "
        )
        return (
            f"{self.kind}, measured on {on}: {agreement}outputs move by at most {self.largest_difference:.2g} (the "
            f"largest is {self.largest_output:.2g}), and one input takes {1 / self.speed:.2f} of the time"
        )


def prepared(model: Model, images: str | Path | Iterable[str | Path] | None) -> Array | None:
    """The model's inputs for pictures, at most 500 of them; None where none are named.

    Raises:
        ImageError: A picture cannot be read.
        UsageError: The model carries no recipe.
    """
    if images is None:
        return None
    recipe = recipe_of(model)
    found = files.search([images] if isinstance(images, str | Path) else images).paths
    if len(found) > _MOST_PICTURES:
        step = len(found) / _MOST_PICTURES
        found = tuple(found[int(index * step)] for index in range(_MOST_PICTURES))
    return preprocess(list(found), recipe)


def halved(model: Model) -> Model:
    """The model with its weights rounded to float16. It still computes in float32.

    Raises:
        ModelError: A weight is too large for float16.
    """
    done: dict[int, Array] = {}

    def short(value: Array, where: str) -> Array:
        if value.dtype.kind != "f" or value.dtype == np.float16:
            return value
        value = np.where(
            np.abs(value) == _MASKED, np.copysign(_HALF_MAX, value), value
        )  # still far for a softmax
        if value.size and np.abs(value).max() > _HALF_MAX:
            raise ModelError(
                f"the weight {where} reaches {np.abs(value).max():.3g}, and float16 ends at {_HALF_MAX:.0f}; leave out "
                "--half"
            )
        return done.setdefault(id(value), value.astype(np.float16))

    def changed(layer: Layer, path: str) -> Layer:
        arrays = {name: short(value, f"{path}.{name}") for name, value in layer.arrays.items()}
        new: Layer = replace(layer, **arrays) if arrays else layer
        children = [changed(child, f"{path}.{index}".strip(".")) for index, child in enumerate(new.children)]
        return new.with_children(children) if children else new

    return model.with_(layers=changed(model.layers, ""))


def quantised(model: Model, inputs: Array) -> Model:
    """The model with 8-bit weights and activations, run by ONNX Runtime as a whole.

    Weights have 7 bits for each output channel and activations 8 for each value, so that no sum overflows on
    processors without VNNI. Ranges are the smallest and largest values that the inputs give.

    Args:
        model: The model.
        inputs: Inputs to calibrate with, float32 (N, C, H, W).

    Raises:
        UnsupportedLayer: ONNX cannot express a layer.
        ModelError: The quantiser cannot take the model.
    """
    from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc] # the library has no types
        def __init__(self) -> None:
            self._left = iter(inputs)

        def get_next(self) -> dict[str, Array] | None:
            item = next(self._left, None)
            return None if item is None else {"input": item[np.newaxis]}

    with TemporaryDirectory(prefix="diptych-") as folder, _quiet():
        exact, simpler, small = (Path(folder, name) for name in ("exact.onnx", "simpler.onnx", "small.onnx"))
        exact.write_bytes(to_onnx(model).SerializeToString())
        try:
            options = SessionOptions()
            options.graph_optimization_level = (
                GraphOptimizationLevel.ORT_ENABLE_BASIC
            )  # norms into convolutions
            options.optimized_model_filepath = str(simpler)
            options.log_severity_level = 4
            InferenceSession(str(exact), options, providers=["CPUExecutionProvider"])
            quantize_static(
                simpler, small, Reader(), quant_format=QuantFormat.QDQ, per_channel=True, reduce_range=True,
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, nodes_to_exclude=_softmaxes(simpler),
            )  # fmt: skip
        except Exception as error:  # the library raises whatever its parts raise
            raise ModelError(f"ONNX Runtime's quantiser cannot take the model: {reason(error)}") from error
        found = read_quantised(small, inputs.shape[1:])
    return found.with_(
        name=model.name, classes=model.classes, preprocessing=model.preprocessing, trained=model.trained
    )


def _softmaxes(path: Path) -> list[str]:
    """The nodes that make probabilities, which 8 bits would round until they no longer sum to 1."""
    import onnx

    return [node.name for node in onnx.load(path).graph.node if node.op_type == "Softmax"]


def measured(model: Model, small: Model, kind: str, inputs: Array | None) -> Measured:
    """Compares a smaller model with what it was made from.

    Args:
        model: The model as it was.
        small: The smaller one.
        kind: "half" or "int8".
        inputs: Inputs of pictures, or None to take made-up ones.
    """
    shape = tuple(n if n is not None else 64 for n in model.input_shape or ())
    if inputs is None and not shape:
        raise UsageError(
            "the model records no input shape, so it is not known what to measure on: give --shape or --images"
        )
    batch = np.random.default_rng(0).random((8, *shape), dtype=np.float32) if inputs is None else inputs
    engine = "auto" if whole_graph(small.layers) is None else "onnxruntime"
    before, after = engines.compile(model, engine), engines.compile(small, engine)
    a, b = before(batch), after(batch)
    same = None
    if inputs is not None and a[0].size > 1 and classifies(a.shape[1:], model):
        same = float((a.reshape(len(a), -1).argmax(1) == b.reshape(len(b), -1).argmax(1)).mean())
    return Measured(
        kind,
        0 if inputs is None else len(inputs),
        same,
        float(np.abs(a.astype(np.float64) - b).max()),
        float(np.abs(a).max()),
        _speed(before, after, batch[:1]),
    )


def split(inputs: Array) -> tuple[Array, Array]:
    """Inputs to calibrate with and others to measure with; all of them for both where there are few."""
    return (inputs[::2], inputs[1::2]) if len(inputs) >= _ENOUGH else (inputs, inputs)


def _speed(before: Any, after: Any, one: Array) -> float:
    times: dict[int, list[float]] = {0: [], 1: []}
    end = time.perf_counter() + 2 * _SECONDS
    while time.perf_counter() < end or len(times[1]) < 3:
        for which, run in enumerate((before, after)):
            begun = time.perf_counter()
            run(one)
            times[which].append(time.perf_counter() - begun)
    return median(times[0]) / median(times[1])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the quantiser's advice, which it logs to the root."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)
