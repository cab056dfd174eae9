"""ONNX Runtime: the model as our own ONNX graph, run by its compiled kernels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

# Before the runtime is loaded: it would keep a device id in the home folder and report use to its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as _errors

from diptych.engines.batches import validate_batch
from diptych.errors import ModelError, UnsupportedLayer
from diptych.formats.onnx import to_skeleton
from diptych.model.layers import Array
from diptych.model.model import Model
from diptych.model.trace import Trace

__all__ = ["DEVICES", "NAME", "Compiled", "compile"]

NAME = "onnxruntime"
DEVICES = ("cpu",)

_FATAL_ONLY = 4
_MOST_SESSIONS = 4
_FAILURES = tuple(
    value for value in vars(_errors).values() if isinstance(value, type) and issubclass(value, Exception)
)


def compile(  # noqa: A001 - the engines' common verb
    model: Model, device: str = "auto", *, threads: int | None = None
) -> Compiled:
    """Makes `model` ready.

    `threads`: how many one call takes, None for as many as there are processors. With 1, calls may run side
    by side, and the memory they work in is shared by all models made so. Raises `UnsupportedLayer` where
    ONNX or the runtime cannot express a layer.
    """
    return Compiled(model, threads)


class Compiled:
    """A model in ONNX Runtime, one session for each input size that its graph does not leave free."""

    engine = NAME
    device = "cpu"

    def __init__(self, model: Model, threads: int | None = None) -> None:
        self._model = model
        self._threads = _threads() if threads is None else threads
        self._sessions: list[tuple[bool, Any, dict[str, Any]]] = []  # kind, session, its weights
        try:
            self._add(model, every_layer=False)
        except UnsupportedLayer:
            raise
        except ModelError:
            pass  # the input's shape is not recorded: the first batch will tell it

    def __call__(self, batch: Array) -> Array:
        """Float32 batch -> float32 output. Raises `ShapeError` where the batch does not fit."""
        x = validate_batch(self._model, batch)
        (result,) = self._run(x, every_layer=False)
        return np.ascontiguousarray(result)

    def trace(self, batch: Array) -> Trace:
        """Every layer's output, from a second graph that is made when first asked for."""
        x = validate_batch(self._model, batch)
        if not self._model.layers.layers:
            return Trace({}, x)
        names = [output.name for output in self._session(x.shape, every_layer=True).get_outputs()]
        results = self._run(x, every_layer=True)
        return Trace({n: np.ascontiguousarray(r) for n, r in zip(names, results, strict=True)}, x)

    def _run(self, x: Array, every_layer: bool) -> list[Array]:
        session = self._session(x.shape, every_layer)
        try:
            results: list[Array] = session.run(None, {"input": x})
        except _FAILURES as error:
            raise ModelError(
                f"onnxruntime could not run the model on a batch of shape {x.shape}: {_first_line(error)}; "
                "try a smaller batch or --engine torch"
            ) from error
        return results

    def _session(self, shape: Sequence[int], every_layer: bool) -> Any:
        for kind, session, _ in self._sessions:
            if kind == every_layer and _takes(session, shape):
                return session
        return self._add(self._model.with_(input_shape=tuple(shape[1:])), every_layer)

    def _add(self, model: Model, every_layer: bool) -> Any:
        graph, weights = to_skeleton(model, every_layer)
        held = {name: ort.OrtValue.ortvalue_from_numpy(_plain(array)) for name, array in weights.items()}
        session = _open(graph, held, self._threads)
        self._sessions = [*self._sessions[-_MOST_SESSIONS + 1 :], (every_layer, session, held)]
        return session


def _plain(array: Array) -> Array:
    return np.require(array, array.dtype.newbyteorder("="), ["C", "A"])


def _open(graph: bytes, weights: dict[str, Any], threads: int) -> Any:
    """A session that reads the weights where they lie: they must stay alive as long as it does."""
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.intra_op_num_threads = threads
    if threads == 1:
        _share_memory()
        options.add_session_config_entry("session.use_env_allocators", "1")
        options.enable_mem_pattern = False  # it would keep memory for every size of input
    # Repacked weights are a second copy and a slower start, and were not faster (benchmarks/forward_pass.py).
    options.add_session_config_entry("session.disable_prepacking", "1")
    try:
        options.add_external_initializers(list(weights), list(weights.values()))
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except _FAILURES as error:
        raise UnsupportedLayer("in this model", "onnxruntime", _first_line(error)) from error


@cache
def _share_memory() -> None:
    """One pool of memory for many sessions: each would keep what it once needed."""
    cpu = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(cpu, None)


def _threads() -> int:
    """As many as there are processors for this process; from 5 on, the runtime's own choice (0)."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return count if count <= 4 else 0


def _takes(session: Any, shape: Sequence[int]) -> bool:
    expected = session.get_inputs()[0].shape
    return len(expected) == len(shape) and all(
        isinstance(n, str) or n == m for n, m in zip(expected, shape, strict=True)
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:200]
