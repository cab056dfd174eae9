"""The outputs of a classifier with the names of its classes."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from diptych import display
from diptych.errors import ModelError
from diptych.extras import imported
from diptych.model.layers import Array
from diptych.model.model import Model

__all__ = ["Prediction", "Predictions", "cell", "classifies"]


def classifies(shape: Sequence[int], model: Model) -> bool:
    """Whether the model's output for one sample, such as (10,) or (10, 1, 1), has one value for each class."""
    values, classes = math.prod(shape), model.classes
    one_each = values == max(shape, default=0) and (classes is None or len(classes) == values)
    return one_each and not model.gives_features


@dataclass(frozen=True)
class Prediction:
    """The values of one picture, in the order of the classes."""

    image: str
    values: tuple[float, ...]

    @property
    def best(self) -> int:
        """The index of the largest value."""
        return int(np.argmax(self.values))


@dataclass(frozen=True)
class Predictions:
    """The outputs of a classifier for several pictures.

    Attributes:
        model: The name of the model.
        trained: Whether it is trained; False means that the values come from initial weights and say
            nothing about the picture; None means that it is unknown.
        classes: The names of the classes.
        kind: "probability" if every row is non-negative and sums to 1, else "score".
        rows: The values, picture by picture.
    """

    model: str
    trained: bool | None
    classes: tuple[str, ...]
    kind: Literal["probability", "score"]
    rows: tuple[Prediction, ...]

    @staticmethod
    def of(model: Model, outputs: Array, images: Sequence[str]) -> Predictions:
        """The predictions in a model's outputs.

        Args:
            model: The model; one without class names gets "class 0", "class 1", ...
            outputs: float32 (N, classes).
            images: The names of the pictures.

        Raises:
            ModelError: An output is NaN or infinite.
        """
        flat = outputs.reshape(len(outputs), -1)
        for image, row in zip(images, flat, strict=True):
            if not np.isfinite(row).all():
                raise ModelError(
                    f"{model.name or 'the model'} gives NaN or infinite values for {image}: a layer overflows; "
                    "find it with diptych features, or use another checkpoint"
                )
        classes = model.classes or tuple(f"class {i}" for i in range(flat.shape[1]))
        sums = flat.sum(axis=1, dtype=np.float64)
        probable = bool((flat >= 0).all() and np.allclose(sums, 1, atol=1e-3))
        rows = tuple(
            Prediction(image, tuple(map(float, row))) for image, row in zip(images, flat, strict=True)
        )
        return Predictions(model.name, model.trained, classes, "probability" if probable else "score", rows)

    @property
    def standing(self) -> str:
        """Whether the model is trained, in words: "trained", "untrained" or "training unknown"."""
        return {True: "trained", False: "untrained", None: "training unknown"}[self.trained]

    def label(self, row: Prediction) -> str:
        """The name of the class with the largest value."""
        return self.classes[row.best]

    def to_document(self) -> dict[str, Any]:
        """The predictions as a JSON object: the classes, and for every picture its label and values."""
        plural = {"probability": "probabilities", "score": "scores"}[self.kind]
        return {
            "model": self.model,
            "weights": self.standing,
            "kind": self.kind,
            "classes": list(self.classes),
            "predictions": [
                {
                    "image": row.image,
                    "label": self.label(row),
                    self.kind: row.values[row.best],
                    plural: dict(zip(self.classes, row.values, strict=True)),
                }
                for row in self.rows
            ],
        }

    def to_pandas(self) -> Any:
        """The predictions as a `pandas.DataFrame`: image, label, and a column for each class. Needs the extra batch."""
        frame = imported("pandas").DataFrame([row.values for row in self.rows], columns=list(self.classes))
        frame.insert(0, "label", [self.label(row) for row in self.rows])
        frame.insert(0, "image", [row.image for row in self.rows])
        return frame

    def _repr_html_(self) -> str:
        words = f"{self.model or 'a model'} ({self.standing}), {self.kind} of the best three"
        rows = []
        for row in self.rows:
            best = sorted(range(len(row.values)), key=lambda i: -row.values[i])[:3]
            rows.append((row.image, *(f"{self.classes[i]} {row.values[i]:.4g}" for i in best)))
        return display.paragraph(words) + display.table(("picture", "1.", "2.", "3."), rows)

    def to_csv(self) -> str:
        """The predictions as CSV with a header: image, label, weights (trained or not), one column for each class.

        A name that a spreadsheet would take for a formula, because it begins with =, +, - or @, has an apostrophe
        in front, as OWASP recommends against CSV injection; a line break in a name becomes a space.
        """
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["image", "label", "weights", *map(cell, self.classes)])
        for row in self.rows:
            names = [cell(row.image), cell(self.label(row)), self.standing]
            writer.writerow([*names, *(f"{value:.9g}" for value in row.values)])
        return stream.getvalue()


def cell(name: str) -> str:
    """A name as a cell of CSV; see `Predictions.to_csv`."""
    one_line = " ".join(name.splitlines())
    return f"'{one_line}" if one_line.lstrip().startswith(("=", "+", "-", "@")) else one_line
