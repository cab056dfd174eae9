"""The engines, which run models. Each is a module with the same verb, `compile(model, device)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from diptych.engine_names import AUTOMATIC, ENGINES
from diptych.errors import MissingExtra, UnsupportedLayer, UsageError
from diptych.extras import imported
from diptych.model.layers import Array
from diptych.model.layers.whole import whole_graph
from diptych.model.model import Model
from diptych.model.trace import Trace

__all__ = ["ENGINES", "Compiled", "compile", "travelling"]

Result = TypeVar("Result")


class Compiled(Protocol):
    """A model made ready on one engine and device."""

    engine: str
    device: str

    def __call__(self, batch: Array) -> Array:
        """Runs the model.

        Args:
            batch: Real numbers, (N, C, H, W) or whatever shape the model takes.

        Returns:
            The output, float32 (N, ...). On the CPU a sample's output does not depend on the rest of the batch.

        Raises:
            ShapeError: The batch does not fit the model, or an output would be larger than the limit.
        """

    def trace(self, batch: Array) -> Trace:
        """Runs the model and returns the output of every layer. Raises the same errors as calling."""


def compile(  # noqa: A001 - the field's verb
    model: Model, engine: str = "auto", device: str = "auto", **options: Any
) -> Compiled:
    """Makes a model ready to run.

    Args:
        model: The model.
        engine: One of `ENGINES`, or "auto" for the first that is installed and can express every layer.
        device: "auto", "cpu", "cuda" or "mps". A GPU is used by the engine torch alone.
        **options: Further options of the engine that is named.

    Returns:
        The model, ready to be called.

    Raises:
        UsageError: There is no such engine or device.
        MissingExtra: The engine is not installed.
        UnsupportedLayer: The engine, or every engine with "auto", cannot express a layer.
    """
    if engine != "auto":
        if engine not in ENGINES:
            raise UsageError(f"no engine is called {engine!r}; the engines are auto, {', '.join(ENGINES)}")
        return _compile(model, engine, device, **options)
    if (
        whole_graph(model.layers) is not None
    ):  # no other engine runs it, and their reasons would hide the true one
        return _compile(model, "onnxruntime", device, **options)
    return _FirstAble(model, AUTOMATIC if device in ("auto", "cpu") else ("torch",), device)


def travelling(compiled: Compiled) -> Compiled | None:
    """The compiled model as it can be sent to another process, or None where that must compile the model itself."""
    inner = compiled.chosen if isinstance(compiled, _FirstAble) else compiled
    return inner if inner.engine == "onnxruntime" else None


class _FirstAble:
    """A model on the first engine that can express every layer.

    Where the model records no input shape, an engine may find out only with the first batch; then the next one
    takes over.
    """

    def __init__(self, model: Model, candidates: Sequence[str], device: str) -> None:
        self._model, self._candidates, self._device = model, list(candidates), device
        self._take_next()

    @property
    def chosen(self) -> Compiled:
        """The model on the engine that is in use."""
        return self._compiled

    def __call__(self, batch: Array) -> Array:
        """See `Compiled`."""
        return self._first(lambda compiled: compiled(batch))

    def trace(self, batch: Array) -> Trace:
        """See `Compiled`."""
        return self._first(lambda compiled: compiled.trace(batch))

    def _first(self, run: Callable[[Compiled], Result]) -> Result:
        while True:
            try:
                return run(self._compiled)
            except UnsupportedLayer:
                if not self._candidates:
                    raise
                self._take_next()

    def _take_next(self) -> None:
        while True:
            candidate = self._candidates.pop(0)
            try:
                self._compiled = _compile(self._model, candidate, self._device)
            except (MissingExtra, UnsupportedLayer):
                if not self._candidates:
                    raise
                continue
            self.engine, self.device = self._compiled.engine, self._compiled.device
            return


def _compile(model: Model, engine: str, device: str, **options: Any) -> Compiled:
    module = imported(f"diptych.engines.{engine}")
    if device not in ("auto", *module.DEVICES):
        raise UsageError(
            f"the engine {engine} does not run on {device!r}, only on {', '.join(module.DEVICES)}; "
            "use --engine torch for a GPU"
        )
    whole = whole_graph(model.layers)
    if whole is not None and engine != "onnxruntime":
        raise whole.refused(f"the engine {engine}")
    compiled: Compiled = module.compile(model, device, **options)
    return compiled
