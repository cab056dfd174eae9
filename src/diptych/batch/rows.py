"""The rows of a table's part, as a process computes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from diptych import engines
from diptych.batch.columns import Columns
from diptych.batch.inputs import Input
from diptych.batch.shards import Task
from diptych.engines import Compiled
from diptych.errors import ModelError
from diptych.files import as_text
from diptych.images import files
from diptych.model.layers import Array
from diptych.model.model import Model
from diptych.preprocessing import Preprocessing

__all__ = ["LAYER", "TableTask"]

LAYER = "layer "
"""What stands before a layer's path where columns are told where they come from."""


@dataclass(frozen=True, kw_only=True)
class TableTask(Task):
    """What a process needs to make parts of a table.

    Attributes:
        model: The model with its recipe.
        compiled: The model on the engine, where that can be sent to another process.
        engine: The engine, never "auto".
        device: The device.
        columns: The columns, in order.
        sources: What the arrays are: a column, and "input", "output" or "layer PATH".
        classes: The names of the classes; None for a model that is not a classifier.
        probable: Whether the outputs are probabilities.
        top: How many classes the column `top` has.
    """

    model: Model
    compiled: Compiled | None
    engine: str
    device: str
    columns: tuple[str, ...]
    sources: tuple[tuple[str, str], ...]
    classes: tuple[str, ...] | None
    probable: bool
    top: int

    def ready(self) -> Callable[[], _Rows]:
        """See `shards.Task`."""
        recipe = self.model.preprocessing
        if recipe is None:
            raise ModelError("the model of a job carries no recipe")
        compiled = self.compiled or engines.compile(self.model, self.engine, self.device)
        return partial(_Rows, self, recipe, compiled)


class _Rows:
    """The rows of a part; see `shards.Rows`."""

    def __init__(self, task: TableTask, recipe: Preprocessing, compiled: Compiled) -> None:
        self._task, self._recipe, self._compiled = task, recipe, compiled
        self._columns = Columns(task.columns, task.classes, probable=task.probable, top=task.top)
        self.failed, self.table = self._columns.failed, self._columns.table

    def add(self, one: Input) -> None:
        """See `shards.Rows`."""
        path, content = one.content(self._task.started_in)
        pixels, remarks = files.decode(path, content=content)
        arrays = self._arrays(self._recipe.apply(pixels))
        bad = next((name for name, value in arrays.items() if not np.isfinite(value).all()), None)
        if bad is not None:
            raise ModelError(f"the {bad} of {one.name} holds NaN or infinite values: a layer overflows")
        self._columns.add(as_text(one.name), arrays, remarks)

    def _arrays(self, item: Array) -> dict[str, Array]:
        sources = dict(self._task.sources)
        arrays = {name: item for name, source in sources.items() if source == "input"}
        if any(source.startswith(LAYER) for source in sources.values()):
            trace = self._compiled.trace(item[np.newaxis])
            arrays |= {
                name: trace[source.removeprefix(LAYER)][0]
                for name, source in sources.items()
                if source.startswith(LAYER)
            }
        if "output" in sources:
            arrays["output"] = self._compiled(item[np.newaxis])[0]
        return arrays
