"""ONNX Runtime: the model as our own ONNX graph, run by its compiled kernels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

# Before the runtime is loaded: it would keep a device id in the home folder and report use to its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as _errors

from diptych.engines.batches import by_sample, validate_batch
from diptych.errors import FormatError, ModelError, UnsupportedLayer, out_of_memory
from diptych.model.layers import Array, Chain
from diptych.model.layers.whole import WholeGraph, whole_graph
from diptych.model.model import Model
from diptych.model.trace import Trace

__all__ = ["DEVICES", "NAME", "Compiled", "compile", "run_file"]

NAME = "onnxruntime"
DEVICES = ("cpu",)

_FATAL_ONLY = 4
# The runtime cuts the work of an operation into so many parts, which decides in which order numbers are added up. It is
# the same for every batch and on every machine, so bytes do not depend on them; a processor takes several parts where
# there are not as many.
_PARTS = 2
_MOST_SESSIONS = 4
_FAILURES = tuple(
    value for value in vars(_errors).values() if isinstance(value, type) and issubclass(value, Exception)
)


def compile(  # noqa: A001 - the engines' common verb
    model: Model, device: str = "auto", parts: int = _PARTS
) -> Compiled | _CompiledWhole:
    """Makes a model ready to run.

    Args:
        model: The model.
        device: "auto" or "cpu".
        parts: Into how many parts the work of an operation is cut; as many processors may take them.

    Raises:
        UnsupportedLayer: ONNX or the runtime cannot express a layer.
    """
    whole = whole_graph(model.layers)
    return Compiled(model, parts) if whole is None else _CompiledWhole(model, whole)


class Compiled:
    """A model in ONNX Runtime, one session for each input size that its graph does not leave free.

    A call uses up to `parts` processors for each sample, and calls may run side by side.
    """

    engine = NAME
    device = "cpu"

    def __init__(self, model: Model, parts: int = _PARTS) -> None:
        self._model, self._parts = model, parts
        self._sessions: list[_Session] = []
        try:
            self._add(model, every_layer=False)
        except UnsupportedLayer:
            raise
        except ModelError:
            pass  # the input's shape is not recorded: the first batch will tell it

    def __call__(self, batch: Array) -> Array:
        """See `engines.Compiled`."""
        x = validate_batch(self._model, batch)
        (result,) = self._run(x, every_layer=False)
        return result

    def trace(self, batch: Array) -> Trace:
        """See `engines.Compiled`. Another graph is made for it, when it is first called."""
        x = validate_batch(self._model, batch, traced=True)
        if not self._model.layers.layers:
            return Trace({}, x)
        names = [output.name for output in self._session(x.shape, every_layer=True).get_outputs()]
        return Trace(dict(zip(names, self._run(x, every_layer=True), strict=True)), x)

    def _run(self, x: Array, every_layer: bool) -> list[Array]:
        session = self._session(x.shape, every_layer)
        return _outputs(self._model, x, session, "input", "try a smaller input or --engine torch")

    def _session(self, shape: Sequence[int], every_layer: bool) -> Any:
        for known in self._sessions:
            if known.every_layer == every_layer and _takes(known.session, shape):
                return known.session
        return self._add(self._model.with_(input_shape=tuple(shape[1:])), every_layer)

    def _add(self, model: Model, every_layer: bool) -> Any:
        from diptych.formats.onnx import (
            to_skeleton,  # a process that is sent a compiled model does not need it
        )

        made = _Session.of(self._parts, every_layer, *to_skeleton(model, every_layer))
        self._sessions = [*self._sessions[-_MOST_SESSIONS + 1 :], made]
        return made.session

    def __reduce__(self) -> tuple[Any, ...]:
        """The graphs travel, so that another process need not make them again."""
        return _restored, (
            self._model,
            self._parts,
            [(s.every_layer, s.graph, s.weights) for s in self._sessions],
        )


def _restored(model: Model, parts: int, graphs: list[tuple[bool, bytes, dict[str, Array]]]) -> Compiled:
    compiled = Compiled.__new__(Compiled)
    compiled._model, compiled._parts = model, parts
    compiled._sessions = [_Session.of(parts, *graph) for graph in graphs]
    return compiled


@dataclass(frozen=True)
class _Session:
    """A graph that is ready to run, with its weights, which must stay alive as long as it does."""

    every_layer: bool
    graph: bytes
    weights: dict[str, Array]
    held: dict[str, Any]
    session: Any

    @staticmethod
    def of(parts: int, every_layer: bool, graph: bytes, weights: dict[str, Array]) -> _Session:
        held = {name: ort.OrtValue.ortvalue_from_numpy(_plain(array)) for name, array in weights.items()}
        return _Session(every_layer, graph, weights, held, _open(graph, held, parts))


def run_file(path: str | Path, batch: Array) -> Array:
    """The first output of an .onnx file's own graph, as ONNX Runtime gives it to any program.

    Args:
        path: A file that Diptych wrote, without the recipe inside.
        batch: What the graph takes, float32.

    Raises:
        FormatError: ONNX Runtime cannot run the graph.
    """
    try:
        session = _open(Path(path).read_bytes(), {})
        (output, *_) = session.run(None, {session.get_inputs()[0].name: batch})
    except MemoryError:
        raise
    except Exception as error:  # the runtime raises errors of its own
        raise FormatError(f"ONNX Runtime cannot run the graph of {path}: {_first_line(error)}") from error
    result: Array = output
    return result


class _CompiledWhole:
    """A graph that is run as it is, and the layers after it."""

    engine = NAME
    device = "cpu"

    def __init__(self, model: Model, whole: WholeGraph) -> None:
        self._model, self._whole = model, whole
        self._graph = model.with_(layers=Chain((whole,)))
        self._session = _open(whole.content.tobytes(), {})
        self._check_samples()
        self._tracing: Any = None
        rest = model.layers.layers[1:]
        self._rest = (
            Compiled(model.with_(layers=Chain(rest), input_shape=whole.result_shape)) if rest else None
        )

    def _check_samples(self) -> None:
        """Refuses a graph whose answer for a sample is not its own: one by one they would get other numbers."""
        whole = self._whole
        pair = np.random.default_rng(0).random((2, *whole.entry_shape), dtype=np.float32)
        try:
            alone, again = (self._session.run([whole.result], {whole.entry: pair[:1]})[0] for _ in range(2))
            free = isinstance(self._session.get_inputs()[0].shape[0], str | None)
            together = self._session.run([whole.result], {whole.entry: pair})[0][:1] if free else alone
        except _FAILURES:
            return  # running it will tell why
        if not np.array_equal(alone, again, equal_nan=True):
            raise whole.refused("the engine onnxruntime, because it gives another answer each time and so")
        if together.shape != alone.shape or not np.allclose(
            together, alone, rtol=1e-3, atol=1e-5, equal_nan=True
        ):
            raise whole.refused("the engine onnxruntime, because it mixes the samples of a batch and so")

    def __call__(self, batch: Array) -> Array:
        """See `engines.Compiled`."""
        x = validate_batch(self._model, batch)
        (result,) = self._run(self._session, x, [self._whole.result])
        return result if self._rest is None else self._rest(result)

    def trace(self, batch: Array) -> Trace:
        """See `engines.Compiled`; the values inside the graph come first, as "0/NAME"."""
        x = validate_batch(self._model, batch, traced=True)
        if self._tracing is None:
            from diptych.formats.onnx.whole import traced

            self._tracing = _open(traced(self._whole), {})
        names = [*(name for name, _ in self._whole.values), self._whole.result]
        *inner, result = self._run(self._tracing, x, names)
        outputs = {**{f"0/{name}": value for name, value in zip(names, inner, strict=False)}, "0": result}
        if self._rest is not None:
            for path, value in self._rest.trace(result).items():
                top, _, inside = path.partition(".")
                outputs[f"{int(top) + 1}{'.' if inside else ''}{inside}"] = value
        return Trace(outputs, x)

    def _run(self, session: Any, x: Array, names: list[str]) -> list[Array]:
        return _outputs(
            self._graph, x, session, self._whole.entry, "its weights or operations do not fit it", names
        )


def _outputs(
    model: Model, x: Array, session: Any, entry: str, advice: str, names: Sequence[str] | None = None
) -> list[Array]:
    try:
        return by_sample(model, x, lambda: lambda sample: session.run(names, {entry: sample}))
    except _FAILURES as error:
        if out_of_memory(error):
            raise MemoryError from error
        raise ModelError(
            f"onnxruntime could not run the model on an input of shape {x.shape[1:]}: {_first_line(error)}; {advice}"
        ) from error


def _plain(array: Array) -> Array:
    return np.require(array, array.dtype.newbyteorder("="), ["C", "A"])


def _open(graph: bytes, weights: dict[str, Any], parts: int = _PARTS) -> Any:
    """A session that reads the weights where they lie: they must stay alive as long as it does."""
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.intra_op_num_threads = parts
    # Threads that wait without sleeping take the processors from samples that run side by side.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    _share_memory()
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.enable_mem_pattern = False  # it would keep memory for every size of input
    # Repacked weights are a second copy and a slower start, and were not faster (benchmarks/forward_pass.py).
    options.add_session_config_entry("session.disable_prepacking", "1")
    try:
        if weights:
            options.add_external_initializers(list(weights), list(weights.values()))
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except _FAILURES as error:
        if out_of_memory(error):
            raise MemoryError from error
        raise UnsupportedLayer("", "onnxruntime", _first_line(error), what="this model") from error


@cache
def _share_memory() -> None:
    """One pool of memory for many sessions: each would keep what it once needed."""
    cpu = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(cpu, None)


def _takes(session: Any, shape: Sequence[int]) -> bool:
    expected = session.get_inputs()[0].shape
    return len(expected) == len(shape) and all(
        isinstance(n, str) or n == m for n, m in zip(expected, shape, strict=True)
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:200]
