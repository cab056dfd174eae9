"""The PyTorch engine: eager modules on the CPU, an NVIDIA GPU (cuda) or an Apple one (mps).

The module is the one that `formats.torch` builds; a trace is read by hooks on its children. Operations are
float32 throughout, without TensorFloat-32, and deterministic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diptych.engines.batches import Run, by_sample, validate_batch
from diptych.errors import ModelError, UsageError, out_of_memory, reason
from diptych.formats.torch.building import network
from diptych.model.layers import Array
from diptych.model.model import Model
from diptych.model.shapes import layer_shapes
from diptych.model.trace import Trace

__all__ = ["DEVICES", "NAME", "TorchModel", "available_devices", "compile"]

NAME = "torch"
DEVICES = ("cpu", "cuda", "mps")


def available_devices() -> tuple[str, ...]:
    """The devices of `DEVICES` that this machine has, fastest first."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return tuple(name for name, there in present.items() if there)


def compile(model: Model, device: str = "auto") -> TorchModel:  # noqa: A001 - the field's verb
    """Makes a model ready to run.

    Args:
        model: The model.
        device: "cpu", "cuda" or "mps"; "auto" takes a GPU if there is one.

    Raises:
        UsageError: The machine has no such device.
        UnsupportedLayer: PyTorch cannot express a layer.
    """
    there = available_devices()
    chosen = there[0] if device == "auto" else device
    if chosen not in there:
        found = ", ".join(there)
        raise UsageError(f"PyTorch finds no {device!r} on this machine, only {found}; use one of these")
    return TorchModel(model, chosen)


class TorchModel:
    """A model on PyTorch."""

    engine = NAME

    def __init__(self, model: Model, device: str) -> None:
        self.device = device
        self._model = model
        self._module = network(model).to(device)
        self._lock = Lock()

    def __call__(self, batch: Any) -> Array:
        """See `engines.Compiled`."""
        (result,) = self._run(validate_batch(self._model, batch), self._output)
        return result

    def trace(self, batch: Any) -> Trace:
        """See `engines.Compiled`."""
        x = validate_batch(self._model, batch, traced=True)
        paths = layer_shapes(self._model, x.shape)  # in order of computation
        return Trace(dict(zip(paths, self._run(x, partial(self._outputs, paths)), strict=True)), x)

    def _run(self, x: Array, run: Run) -> list[Array]:
        if self.device != "cpu":  # a GPU needs whole batches to be fast
            return list(run(x))
        with _one_thread():
            return by_sample(self._model, x, partial(_on_one_thread, run))

    def _output(self, x: Array) -> list[Array]:
        with torch.inference_mode(), _full_precision(self.device):
            # `torch.tensor` copies: PyTorch warns about sharing read-only memory, such as a mapped file's.
            try:
                return [_to_numpy(self._module(torch.tensor(x, device=self.device)))]
            except RuntimeError as error:
                if out_of_memory(error):
                    raise MemoryError from error
                raise ModelError(
                    f"torch could not run the model on an input of shape {x.shape[1:]}: {reason(error)}; try a smaller "
                    "input or --engine numpy"
                ) from error

    def _outputs(self, paths: Iterable[str], x: Array) -> list[Array]:
        outputs: dict[str, Array] = {}

        def recorder(path: str) -> Callable[[Any, Any, Tensor], None]:
            def record(module: Any, inputs: Any, output: Tensor) -> None:
                outputs[path] = _to_numpy(output)

            return record

        with self._lock, ExitStack() as hooks:  # hooks are seen by every thread that runs the module
            modules = dict(self._module.named_modules())
            for path in paths:
                hooks.enter_context(modules[path].register_forward_hook(recorder(path)))
            self._output(x)
        return [outputs[path] for path in paths]


def _to_numpy(value: Tensor) -> Array:
    """A copy, so that no two entries of a trace share memory with each other or with the input."""
    result: Array = np.array(value.cpu().numpy(), dtype=np.float32, order="C")
    return result


def _on_one_thread(run: Run) -> Run:
    torch.set_num_threads(1)  # a new thread begins with OpenMP's own number
    return run


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for each operation of PyTorch while the block runs; the setting belongs to the whole process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _full_precision(device: str) -> Iterator[None]:
    """Turns TensorFloat-32 off on CUDA, whose 10 bits of mantissa cost a relative 1e-3, and restores it afterwards."""
    if device != "cuda":
        yield
        return
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    settings: list[tuple[Any, str, Any]] = [(cudnn, "deterministic", True), (cudnn, "benchmark", False)]
    if hasattr(cudnn, "conv"):  # since 2.9; mixing it with the older names is an error there
        settings += [(matmul, "fp32_precision", "ieee"), (cudnn.conv, "fp32_precision", "ieee")]
    else:
        settings += [(matmul, "allow_tf32", False), (cudnn, "allow_tf32", False)]
    before = [getattr(owner, name) for owner, name, _ in settings]
    try:
        for owner, name, value in settings:
            setattr(owner, name, value)
        yield
    finally:
        for (owner, name, _), value in zip(settings, before, strict=True):
            setattr(owner, name, value)
