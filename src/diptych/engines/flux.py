"""The engine flux: writes the model as Julia code, and runs it with Flux in a Julia process.

Arrays are passed as .npy files in a temporary folder. See `julia_process` for how Julia is found. "auto" does not
choose this engine, because its first answer takes seconds.
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
_forgotten: list[str] = []  # models no longer in use; Julia drops them before its next request


def compile(model: Model, device: str = "auto") -> FluxModel:  # noqa: A001 - the engines' common verb
    """Loads a model in Julia.

    Args:
        model: The model.
        device: "cpu" or "auto".

    Raises:
        UsageError: Julia is not found.
        UnsupportedLayer: Flux cannot express a layer.
        ModelError: Julia fails; gives the reason.
    """
    return FluxModel(model)


def _limit() -> float:
    """The time limit of a request in seconds: DIPTYCH_JULIA_TIMEOUT, or 600, as the first request compiles."""
    given = os.environ.get("DIPTYCH_JULIA_TIMEOUT", "600")
    try:
        limit = float(given)
    except ValueError:
        limit = 0.0
    if not 0 < limit < float("inf"):
        raise UsageError(f"DIPTYCH_JULIA_TIMEOUT must be a number of seconds above 0, got {given[:40]!r}")
    return limit


class FluxModel:
    """A model that Flux runs."""

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
        """The version of Flux, such as "0.16.9"."""
        return self._ready().flux_version

    def __call__(self, batch: Any) -> Array:
        """See `engines.Compiled`. Raises also `ModelError`, with Julia's reason."""
        x = validate_batch(self._model, batch)
        with tempfile.TemporaryDirectory(dir=self._folder) as place:
            given, result = Path(place, "input.npy"), Path(place, "output.npy")
            np.save(given, x, allow_pickle=False)
            self._ready().ask("run", self._number, str(given), str(result), limit=_limit())
            y = _loaded(result)
        self._check_shapes(x, {"": y})
        return y

    def trace(self, batch: Any) -> Trace:
        """Runs the model, and returns the output of every layer. Raises the same errors as calling."""
        x = validate_batch(self._model, batch, traced=True)
        with tempfile.TemporaryDirectory(dir=self._folder) as place:
            given = Path(place, "input.npy")
            np.save(given, x, allow_pickle=False)
            self._ready().ask("trace", self._number, str(given), place, limit=_limit())
            paths = layer_shapes(self._model, x.shape)
            outputs = {path: _loaded(Path(place, f"{path}.npy")) for path in paths}
        self._check_shapes(x, outputs)
        return Trace(outputs, x)

    def _ready(self) -> JuliaProcess:
        """A Julia process that has loaded this model; a new one if the last has ended."""
        if self._process is None or not self._process.alive:
            self._process = process()
            self._process.ask("load", self._number, str(self._folder), limit=_limit())
        while _forgotten:
            self._process.ask("drop", _forgotten.pop(), limit=_limit())
        return self._process

    def _check_shapes(self, x: Array, outputs: dict[str, Array]) -> None:
        """Raises `ShapeError` if an output has another shape than the layer should give."""
        shapes = layer_shapes(self._model, x.shape)
        top = [path for path in shapes if "." not in path]
        shapes[""] = shapes[top[-1]] if top else x.shape
        for path, y in outputs.items():
            if y.shape != shapes[path]:
                raise ShapeError(
                    f"Flux gave an output of shape {y.shape} at {f'layer {path}' if path else 'the last layer'}, "
                    f"where {shapes[path]} was expected"
                )


def _forget(number: str, folder: Path) -> None:
    _forgotten.append(number)
    shutil.rmtree(folder, ignore_errors=True)


def _loaded(path: Path) -> Array:
    try:
        array: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"Julia did not write a readable output {path.name}: {error}") from error
    return np.ascontiguousarray(array, dtype=np.float32)
