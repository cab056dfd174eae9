"""A version of a model that is ready: what it takes and gives, as the Open Inference Protocol describes it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from diptych.engines import Compiled
from diptych.errors import ShapeError
from diptych.model.entry import likely_input, sample_shape
from diptych.model.layers import Array
from diptych.model.layers.whole import whole_graph
from diptych.model.model import Model
from diptych.model.shapes import sizes
from diptych.options import ServeOptions
from diptych.predicting import compiled_for
from diptych.serving.answers import Refusal, retry_after
from diptych.serving.batching import Batcher
from diptych.serving.statistics import Statistics

__all__ = ["IMAGE", "INPUT", "OUTPUT", "Served"]

INPUT, IMAGE, OUTPUT = "input", "image", "output"

_BY_SAMPLE = ("onnxruntime", "openvino", "torch")  # engines that compute each sample alone
_MOST_ANSWER = 2**28  # bytes of the outputs of one request


class Served:
    """A version of a model, compiled, with the queue of its requests and what is counted of them.

    Args:
        name: The model's name in addresses.
        version: Its version, such as "1".
        model: The model.
        options: The engine, and how requests are joined.
        executor: Its threads compute.

    Raises:
        DiptychError: The model cannot be run here.
    """

    def __init__(
        self, name: str, version: str, model: Model, options: ServeOptions, executor: Executor
    ) -> None:
        self.name, self.version, self.model = name, version, model
        self.statistics = Statistics()
        self._most_waiting = options.max_queue
        self.compiled: Compiled = compiled_for(model, options.engine, options.device)
        self.may_join = lru_cache(64)(self._may_join)
        self.batch = Batcher(
            self.compiled, self.may_join, options.max_batch, options.max_delay / 1000, executor, self._counted
        )
        self.input_shape, self.output_shape = self._shapes()

    def _shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shapes of a sample's input and output, -1 for a size that is free.

        The model is run once, so that one that cannot be run is found now, and the first request does not wait.
        """
        likely = likely_input(self.model)
        if likely is None:
            return (-1,), (-1,)  # the first request tells
        entry = tuple(-1 if n is None else n for n in likely)
        result = self.compiled(np.zeros((1, *sample_shape(self.model)), np.float32)).shape[1:]
        free = -1 in entry and len(result) > 1
        return entry, (result[0], *(-1,) * (len(result) - 1)) if free else result

    @property
    def takes(self) -> str:
        """The input's shape in words, such as "[N, 3, 32, 32]"."""
        return f"[{', '.join('N' if n < 0 else str(n) for n in (-1, *self.input_shape))}]"

    def _may_join(self, shape: tuple[int, ...]) -> bool:
        """Whether samples of several requests give the bytes that each gives alone."""
        if self.compiled.engine not in _BY_SAMPLE or self.compiled.device != "cpu":
            return False
        try:
            return not sizes(self.model, (2, *shape)).mixes_samples
        except ShapeError:
            return False

    def _counted(self, samples: int) -> None:
        self.statistics.inferences += samples
        self.statistics.executions += 1

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Counts a request as long as the block lasts. Raises `Refusal` where too many wait already."""
        if self.statistics.pending >= self._most_waiting:
            raise Refusal(
                503,
                f"{self.statistics.pending} requests wait for {self.name} already, as many as this server lets wait; "
                "try again",
                retry_after(1),
                "REJECTED",
            )
        self.statistics.pending += 1
        try:
            yield
        finally:
            self.statistics.pending -= 1

    def check(self, x: Array) -> int:
        """Checks what a request gives to the model, before it waits.

        Returns:
            How many bytes the answer will have.

        Raises:
            Refusal: The model does not take such a shape, a value is not finite, or the answer would be too large.
        """
        if x.ndim < 1 or x.size == 0:
            raise Refusal(
                400, f"the input has the shape {list(x.shape)}: send one sample or more, the batch axis first"
            )
        if not np.isfinite(x).all():
            bad = int(np.count_nonzero(~np.isfinite(x)))
            raise Refusal(400, f"the input holds {bad} NaN or infinite values of {x.size}; clean it first")
        each = x.shape[1:]
        try:
            of_one = self._of_one(each) if self.may_join(each) else _result(self.model, x.shape)[1:]
        except ShapeError as error:
            raise Refusal(400, f"{self.name} takes {self.takes}, not {list(x.shape)}: {error}") from error
        size = 4 * len(x) * math.prod(of_one)
        if size > _MOST_ANSWER:
            raise Refusal(
                413,
                f"the answer would have {size:,} bytes, and this server sends at most {_MOST_ANSWER:,}; send less",
            )
        return size

    @cached_property
    def _of_one(self) -> Any:
        return lru_cache(64)(lambda shape: _result(self.model, (1, *shape))[1:])

    # ---- What the protocol says of it ---------------------------------------------------------------------

    @property
    def takes_pictures(self) -> bool:
        """Whether it has a recipe, and so takes encoded pictures too."""
        return self.model.preprocessing is not None

    def metadata(self, versions: list[str]) -> dict[str, Any]:
        """As /v2/models/NAME answers it.

        Args:
            versions: All versions that are ready.
        """
        inputs = [{"name": INPUT, "datatype": "FP32", "shape": [-1, *self.input_shape]}]
        if self.takes_pictures:
            inputs.append({"name": IMAGE, "datatype": "BYTES", "shape": [-1]})
        return {
            "name": self.name,
            "versions": versions,
            "platform": f"diptych_{self.compiled.engine}",
            "inputs": inputs,
            "outputs": [{"name": OUTPUT, "datatype": "FP32", "shape": [-1, *self.output_shape]}],
        }

    def configuration(self, most: int) -> dict[str, Any]:
        """As Triton's model configuration extension answers it.

        Args:
            most: The most samples that are joined.
        """
        inputs = [
            {
                "name": INPUT,
                "data_type": "TYPE_FP32",
                "dims": list(self.input_shape),
                "optional": self.takes_pictures,
            }
        ]
        if self.takes_pictures:
            inputs.append({"name": IMAGE, "data_type": "TYPE_STRING", "dims": [], "optional": True})
        return {
            "name": self.name,
            "platform": "",
            "backend": f"diptych_{self.compiled.engine}",
            "max_batch_size": most,
            "input": inputs,
            "output": [{"name": OUTPUT, "data_type": "TYPE_FP32", "dims": list(self.output_shape)}],
        }

    def facts(self) -> dict[str, Any]:
        """What a person wants to know of it: classes, recipe, and whether it is trained."""
        model = self.model
        return {
            "name": self.name,
            "version": self.version,
            "classes": None if model.classes is None else list(model.classes),
            "trained": model.trained,
            "takes_pictures": self.takes_pictures,
            "input_shape": [None if n < 0 else n for n in self.input_shape],
            "engine": self.compiled.engine,
            "whole_graph": whole_graph(model.layers) is not None,
        }


def _result(model: Model, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the output for a batch."""
    shapes = [each for path, each in sizes(model, shape).shapes.items() if "." not in path]
    return tuple(shapes[-1]) if shapes else shape
