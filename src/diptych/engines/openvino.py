"""OpenVINO: the model as our own ONNX graph, compiled for each shape of input, which is where it is fast."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from diptych.engines.batches import Run, by_sample, processors, validate_batch
from diptych.errors import MissingExtra, ModelError, UnsupportedLayer, out_of_memory
from diptych.formats.onnx import to_onnx
from diptych.model.layers import RNN, Array
from diptych.model.model import Model
from diptych.model.shapes import layer_shapes, sizes
from diptych.model.trace import Trace

__all__ = ["DEVICES", "NAME", "Compiled", "compile"]

NAME = "openvino"
DEVICES = ("cpu",)

_MOST_SHAPES = 4
_OPTIONS = {"INFERENCE_PRECISION_HINT": "f32"}
_TELEMETRY = "openvino_telemetry"


def compile(model: Model, device: str = "auto") -> Compiled:  # noqa: A001 - the engines' common verb
    """Makes a model ready to run.

    Args:
        model: The model.
        device: "auto" or "cpu".

    Raises:
        MissingExtra: OpenVINO is not installed.
        UnsupportedLayer: ONNX or OpenVINO cannot express a layer.
    """
    _package()
    return Compiled(model)


@cache
def _package() -> Any:
    """The package, imported without the one that would keep an id in the home folder and report its use."""
    before = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # which the import system takes for "not installed"
    try:
        import openvino
    except ImportError as error:
        raise MissingExtra("openvino", "openvino", "the engine openvino") from error
    finally:
        del sys.modules[_TELEMETRY]
        if before is not None:
            sys.modules[_TELEMETRY] = before
    return openvino


class Compiled:
    """A model in OpenVINO, compiled once for each shape of input."""

    engine = NAME
    device = "cpu"

    def __init__(self, model: Model) -> None:
        self._model = model
        self._graphs: dict[tuple[bool, tuple[int, ...]], Any] = {}
        for path, layer in model.walk():  # which OpenVINO would read and then not run
            if isinstance(layer, RNN) and layer.function.name not in ("tanh", "relu", "sigmoid"):
                raise UnsupportedLayer(
                    f"{path} (RNN)", NAME, f"its RNN has no activation {layer.function.name}"
                )
        try:
            _read(to_onnx(model))
        except UnsupportedLayer:
            raise
        except ModelError:
            pass  # the input's shape is not recorded: the first batch will tell it

    def __call__(self, batch: Array) -> Array:
        """See `engines.Compiled`."""
        x = validate_batch(self._model, batch)
        result, *_ = self._run(x, every_layer=False)  # a graph may have further outputs
        return result

    def trace(self, batch: Array) -> Trace:
        """See `engines.Compiled`. Another graph is compiled for it, when it is first called."""
        x = validate_batch(self._model, batch, traced=True)
        if not self._model.layers.layers:
            return Trace({}, x)
        paths = layer_shapes(self._model, x.shape)
        return Trace(dict(zip(paths, self._run(x, every_layer=True), strict=True)), x)

    def _run(self, x: Array, every_layer: bool) -> list[Array]:
        samples = len(x) if sizes(self._model, x.shape).mixes_samples else 1
        key = every_layer, (samples, *x.shape[1:])
        if key not in self._graphs:
            kept = list(self._graphs.items())[-_MOST_SHAPES + 1 :]
            self._graphs = dict(kept) | {key: self._made(key[1], every_layer)}
        compiled = self._graphs[key]

        def prepare() -> Run:
            request = compiled.create_infer_request()  # one for each thread
            return lambda sample: [
                np.asarray(value, np.float32) for value in request.infer([sample]).values()
            ]

        try:
            return by_sample(self._model, x, prepare)
        except RuntimeError as error:
            raise _could_not_run(x.shape, error) from error

    def _made(self, shape: tuple[int, ...], every_layer: bool) -> Any:
        graph = _read(to_onnx(self._model.with_(input_shape=shape[1:]), every_layer))
        graph.reshape(list(shape))
        streams = processors()
        options = {**_OPTIONS, "NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": streams}  # one thread each
        try:
            return _package().Core().compile_model(graph, "CPU", options)
        except RuntimeError as error:
            raise _could_not_run(shape, error) from error


def _could_not_run(shape: Sequence[int], error: Exception) -> Exception:
    if out_of_memory(error):
        return MemoryError()
    last = str(error).strip().splitlines()[-1]
    return ModelError(
        f"openvino could not run the model on an input of shape {tuple(shape[1:])}: {last[:200]}; "
        "try a smaller input or another engine"
    )


def _read(proto: Any) -> Any:
    try:
        return _package().Core().read_model(proto.SerializeToString())
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1][:200]
        raise UnsupportedLayer("", "openvino", reason, what="this model") from error
