"""The columns of a table of predictions, and the rows in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diptych.errors import UsageError
from diptych.extras import imported
from diptych.model.layers import Array

__all__ = ["OPTIONAL", "Columns", "chosen"]

_ALWAYS = ("file", "prediction", "probability", "error")

OPTIONAL = {
    "score": "the output's value for the prediction",
    "top": "the best classes with their values",
    "probabilities": "the value of every class, in the order of the model's classes",
    "output": "the output as it is, of a model that need not be a classifier",
    "embedding": "the output of the layer that --embedding names",
    "input": "what the recipe made of the picture",
    "remarks": "what had to be decided in reading the picture",
}
"""The columns that are asked for, and what they hold."""

_OF_CLASSES = ("prediction", "probability", "score", "top", "probabilities")


def chosen(
    asked: Sequence[str], *, classifier: bool, probable: bool, embedding: str | None
) -> tuple[str, ...]:
    """The columns of a table of predictions, in order.

    Args:
        asked: Names of `OPTIONAL`.
        classifier: Whether the model gives one value for each class.
        probable: Whether these are probabilities.
        embedding: The layer that is named, or None.

    Raises:
        UsageError: There is no such column, or the model or the other options do not allow it.
    """
    wanted = {*asked, *(["embedding"] if embedding is not None else [])}
    for name in asked:
        if name not in OPTIONAL and name not in _ALWAYS:
            raise UsageError(f"there is no column {name!r}; the columns are {', '.join(OPTIONAL)}")
        if name == "embedding" and embedding is None:
            raise UsageError("the column embedding is the output of a layer: name it with --embedding LAYER")
        if name in _OF_CLASSES and not classifier:
            raise UsageError(
                f"the column {name} is of a classifier, and this model gives no value for each class; ask for "
                "--columns output"
            )
    if not classifier and not wanted & {"output", "embedding", "input"}:
        raise UsageError(
            "the model is not a classifier, so there is nothing to call a prediction: ask for its output with "
            "--columns output, or for a layer's with --embedding LAYER"
        )
    if classifier and not probable:
        wanted.add("score")
    first = ("file", "prediction", "probability") if classifier else ("file",)
    return (*first, *(name for name in OPTIONAL if name in wanted), "error")


class Columns:
    """The rows of a part, by column.

    Args:
        names: The columns, in order; those that are neither of classes nor "file", "remarks" or "error" hold arrays,
            and each has one more column for their shapes.
        classes: The names of the classes; None for a model that is not a classifier.
        probable: Whether the outputs are probabilities.
        top: How many classes the column `top` has.
    """

    def __init__(
        self,
        names: Sequence[str],
        classes: Sequence[str] | None = None,
        *,
        probable: bool = False,
        top: int = 3,
    ) -> None:
        self._names, self._classes, self._probable, self._top = tuple(names), classes, probable, top
        self._rows: list[dict[str, Any]] = []

    def failed(self, file: str, error: str) -> None:
        """Adds the row of a picture that could not be used."""
        self._rows.append({"file": file, "error": error})

    def add(self, file: str, arrays: Mapping[str, Array], remarks: Sequence[str]) -> None:
        """Adds the row of a picture.

        Args:
            file: Its name.
            arrays: Of one sample, by column, and "output" where there are classes.
            remarks: Of reading it.
        """
        row: dict[str, Any] = {"file": file, "remarks": list(remarks)}
        for name, value in arrays.items():
            row[name], row[f"{name}_shape"] = np.ravel(value), list(value.shape)
        if self._classes is not None:
            values = np.ravel(arrays["output"])
            order = np.argsort(-values, kind="stable")[: self._top]
            row["prediction"] = self._classes[order[0]]
            row["probability"] = values[order[0]] if self._probable else None
            row["score"] = values[order[0]]
            row["probabilities"] = values
            row["top"] = [{"class": self._classes[i], "value": values[i]} for i in order]
        self._rows.append(row)

    def table(self) -> Any:
        """The rows as a `pyarrow.Table`, whose schema does not depend on them."""
        pa: Any = imported("pyarrow")
        schema = self._schema(pa)
        arrays = [pa.array([row.get(field.name) for row in self._rows], field.type) for field in schema]
        return pa.Table.from_arrays(arrays, schema=schema)

    def _schema(self, pa: Any) -> Any:
        values = pa.list_(pa.float32())
        types = {
            "file": pa.string(),
            "prediction": pa.string(),
            "probability": pa.float32(),
            "score": pa.float32(),
            "top": pa.list_(pa.struct([("class", pa.string()), ("value", pa.float32())])),
            "probabilities": values,
            "remarks": pa.list_(pa.string()),
            "error": pa.string(),
        }
        fields = []
        for name in self._names:
            if name in types:
                fields.append(pa.field(name, types[name]))
            else:
                fields += [pa.field(name, values), pa.field(f"{name}_shape", pa.list_(pa.int32()))]
        return pa.schema(fields)
