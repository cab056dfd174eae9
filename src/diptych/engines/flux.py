"""Flux itself: the model as Julia code, run by a Julia process beside ours.

Arrays travel as .npy files in a temporary folder. Julia is found as `julia_process` says; `auto` never
chooses this engine, since its first answer takes seconds.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from diptych.engines.batches import validate_batch
from diptych.engines.julia_process import JuliaProcess, process
from diptych.errors import ModelError, ShapeError, UsageError
from diptych.formats.julia_project import write_model
from diptych.model.layers import Array
from diptych.model.model import Model
from diptych.model.shapes import layer_shapes
from diptych.model.trace import Trace

__all__ = ["DEVICES", "NAME", "FluxModel", "compile"]

NAME = "flux"
DEVICES = ("cpu",)

_numbers = itertools.count(1)
_forgotten: list[str] = []  # models that nobody holds any longer: Julia is told before its next request


def compile(model: Model, device: str = "auto") -> FluxModel:  # noqa: A001 - the engines' common verb
    """Makes `model` ready in Julia.

    Raises `UsageError` where no Julia is found, `UnsupportedLayer` where Flux cannot express a layer, and
    `ModelError` where Julia fails, with its reason.
    """
    return FluxModel(model)


def _limit() -> float:
    """Seconds that one request may take: DIPTYCH_JULIA_TIMEOUT, else 600 (the first one compiles)."""
    given = os.environ.get("DIPTYCH_JULIA_TIMEOUT", "600")
    try:
        limit = float(given)
    except ValueError:
        limit = 0.0
    if not 0 < limit < float("inf"):
        raise UsageError(f"DIPTYCH_JULIA_TIMEOUT is a number of seconds above 0, got {given[:40]!r}")
    return limit


class FluxModel:
    """A model in Julia's Flux."""

    engine = NAME
    device = "cpu"

    def __init__(self, model: Model) -> None:
        self._model = model
        self._folder = Path(tempfile.mkdtemp(prefix="diptych-flux-"))
        self._number = str(next(_numbers))
        self._process: JuliaProcess | None = None
        self._end = weakref.finalize(self, _forget, self._number, self._folder)
        try:
            write_model(model, self._folder)
            self._ready()
        except BaseException:
            self._end()
            raise

    @property
    def flux_version(self) -> str:
        """Flux's version, such as "0.16.9"."""
        return self._ready().flux_version

    def __call__(self, batch: Any) -> Array:
        """Float32 batch -> a new float32 array. Raises `ShapeError` where the batch does not fit."""
        x = validate_batch(self._model, batch)
        with tempfile.TemporaryDirectory(dir=self._folder) as place:
            given, result = Path(place, "input.npy"), Path(place, "output.npy")
            np.save(given, x, allow_pickle=False)
            self._ready().ask("run", self._number, str(given), str(result), limit=_limit())
            y = _loaded(result)
        self._check_shapes(x, {"": y})
        return y

    def trace(self, batch: Any) -> Trace:
        """The output of every layer."""
        x = validate_batch(self._model, batch)
        with tempfile.TemporaryDirectory(dir=self._folder) as place:
            given = Path(place, "input.npy")
            np.save(given, x, allow_pickle=False)
            self._ready().ask("trace", self._number, str(given), place, limit=_limit())
            paths = layer_shapes(self._model, x.shape)
            outputs = {path: _loaded(Path(place, f"{path}.npy")) for path in paths}
        self._check_shapes(x, outputs)
        return Trace(outputs, x)

    def _ready(self) -> JuliaProcess:
        """The process with this model in it: a new one where the last has ended."""
        if self._process is None or not self._process.alive:
            self._process = process()
            self._process.ask("load", self._number, str(self._folder), limit=_limit())
        while _forgotten:
            self._process.ask("drop", _forgotten.pop(), limit=_limit())
        return self._process

    def _check_shapes(self, x: Array, outputs: dict[str, Array]) -> None:
        """Raises `ShapeError` where a shape is another than the layer's rule says."""
        shapes = layer_shapes(self._model, x.shape)
        top = [path for path in shapes if "." not in path]
        shapes[""] = shapes[top[-1]] if top else x.shape
        for path, y in outputs.items():
            if y.shape != shapes[path]:
                raise ShapeError(
                    f"Flux gave an output of shape {y.shape} at layer {path or 'the last'}, "
                    f"where {shapes[path]} was expected"
                )


def _forget(number: str, folder: Path) -> None:
    _forgotten.append(number)
    shutil.rmtree(folder, ignore_errors=True)


def _loaded(path: Path) -> Array:
    try:
        array: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"Julia left no readable output {path.name}: {error}") from error
    return np.ascontiguousarray(array, dtype=np.float32)
