"""The architecture table: the layers of a model with their sizes, its recipe, classes and origin."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from diptych import display
from diptych.model.entry import assumed_shape
from diptych.model.layers import (
    Connection,
    Conv,
    ConvTranspose,
    Graph,
    Layer,
    MaxPool,
    MeanPool,
    Pad,
    Shape,
    child_path,
    fold,
)
from diptych.model.model import STATISTICS, Model
from diptych.model.receptive_field import ReceptiveField, receptive_fields
from diptych.model.shapes import layer_shapes

__all__ = ["Row", "Summary", "summarise"]

_NOT_KNOWN = "?"
_CLASSES_SHOWN = 20
_VALUE_SHOWN = 72  # characters shown of each value in `extras`
_INTERNAL = ("flux",)  # keys of `source.extras` that only the writer of the format uses


@dataclass(frozen=True)
class Row:
    """One layer of the table. Containers come before their children.

    Attributes:
        path: Of the layer, such as "3.1".
        layer: Its kind and settings.
        output_shape: With the batch axis; None if the input shape is unknown.
        parameters: The number of its weights, without those of its children and those counted in an earlier row, so
            that the column adds up to the total. Running statistics are not among them.
        statistics: The number of running means and variances, counted in the same way.
        multiply_adds: Multiplications with weights; 0 for layers that have none, None if the input shape is unknown.
        receptive_field: (height, width) in input pixels, "global", or None if unknown.
    """

    path: str
    layer: str
    output_shape: Shape | None
    parameters: int
    multiply_adds: int | None
    receptive_field: ReceptiveField
    statistics: int = 0


@dataclass(frozen=True)
class Summary:
    """The result of `summarise`.

    Attributes:
        name: Of the model; may be empty.
        input_shape: The shape with the batch axis that the table is for, or None.
        rows: One for each layer.
        recipe: The steps of the preprocessing, in words.
        classes: Class names, or None.
        trained: False for initial weights, None if not recorded.
        source: File format, framework and version, separated by spaces.
        warnings: What was uncertain in reading the model.
        notes: As in the model.
        extras: Other values in the file, such as the epoch or losses.
        assumed: Whether `input_shape` was neither recorded nor given, but derived from the layers.
        flux: The architecture as Flux prints it, for a model read from a Flux file; otherwise empty.
    """

    name: str
    input_shape: Shape | None
    rows: tuple[Row, ...]
    recipe: tuple[str, ...]
    classes: tuple[str, ...] | None
    trained: bool | None
    source: str
    warnings: tuple[str, ...]
    notes: Mapping[str, Any] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)
    assumed: bool = False
    flux: str = ""

    @property
    def parameters(self) -> int:
        """The number of weights, counting shared ones once."""
        return sum(row.parameters for row in self.rows)

    @property
    def statistics(self) -> int:
        """The number of running means and variances, counting shared ones once."""
        return sum(row.statistics for row in self.rows)

    @property
    def multiply_adds(self) -> int | None:
        """The multiply-adds of a forward pass over `input_shape`, or None if that is unknown."""
        if self.input_shape is None:
            return None
        return sum(row.multiply_adds or 0 for row in self.rows)

    def text(self) -> str:
        """The table with aligned columns, then the recipe, classes, origin, notes and warnings.

        It is ASCII if the names are, except for the lines that show the model as Flux does.
        """
        flux = ["", "In Flux:", *self.flux.splitlines()] if self.flux else []
        return "\n".join([*self._head(), "", *self._table(), *flux, "", *self._tail()]) + "\n"

    def _repr_html_(self) -> str:
        rows = [
            (
                row.path,
                row.layer,
                _in_words(row.output_shape),
                f"{row.parameters:,}",
                _in_words(row.receptive_field),
            )
            for row in self.rows
        ]
        head = ("path", "layer", "output", "parameters", "receptive field")
        lines = [f"{self.parameters:,} parameters", *self.recipe, *self.warnings]
        shown = display.heading(self.name or "a model") + display.table(head, rows, 400)
        return shown + "".join(map(display.paragraph, lines))

    def to_document(self) -> dict[str, Any]:
        """All attributes as values that JSON can hold."""
        return {
            "name": self.name,
            "input_shape": _listed(self.input_shape),
            "input_shape_assumed": self.assumed,
            "layers": [
                {
                    "path": row.path,
                    "layer": row.layer,
                    "output_shape": _listed(row.output_shape),
                    "parameters": row.parameters,
                    "statistics": row.statistics,
                    "multiply_adds": row.multiply_adds,
                    "receptive_field": _listed(row.receptive_field),
                }
                for row in self.rows
            ],
            "parameters": self.parameters,
            "statistics": self.statistics,
            "multiply_adds": self.multiply_adds,
            "preprocessing": list(self.recipe),
            "classes": None if self.classes is None else list(self.classes),
            "trained": self.trained,
            "source": self.source,
            "warnings": list(self.warnings),
            "notes": dict(self.notes),
            "extras": dict(self.extras),
            "flux": self.flux or None,
        }

    def _head(self) -> list[str]:
        trained = {
            True: "trained",
            False: "untrained: the weights are seeded initial values, so its predictions mean nothing",
            None: "not recorded whether it is trained",
        }
        return [f"Model: {self.name or 'unnamed'}", f"State: {trained[self.trained]}"]

    def _table(self) -> list[str]:
        heads = ("path", "layer", "output shape", "parameters", "multiply-adds", "receptive field")
        entry = _by(self.input_shape) + (" (assumed)" if self.assumed else "")
        lines: list[tuple[str, ...]] = [("", "input", entry, "", "", "")]
        lines += [_cells(row) for row in self.rows]
        lines.append(
            ("", "total", "", _weights(self.parameters, self.statistics), _counted(self.multiply_adds), "")
        )
        widths = [max(len(line[i]) for line in (heads, *lines)) for i in range(len(heads))]
        rule = "  ".join("-" * width for width in widths)
        table = [_aligned(line, widths) for line in (heads, *lines)]
        return [table[0], rule, *table[1:-1], rule, table[-1]]

    def _tail(self) -> list[str]:
        lines = ["Preprocessing:"]
        lines += [f"  {i}. {step}" for i, step in enumerate(self.recipe, start=1)] or ["  not recorded"]
        if self.classes is None and self.notes.get("output") == "features":
            lines.append("Classes: none, its output is features")
        elif self.classes is None:
            lines.append("Classes: not recorded")
        else:
            more = (
                f", and {len(self.classes) - _CLASSES_SHOWN} more"
                if len(self.classes) > _CLASSES_SHOWN
                else ""
            )
            lines.append(f"Classes ({len(self.classes)}): {', '.join(self.classes[:_CLASSES_SHOWN])}{more}")
        lines.append(f"Source: {self.source or 'not recorded'}")
        if self.extras:
            lines += ["Beside the model:", *(f"  {key}: {_brief(self.extras[key])}" for key in self.extras)]
        short = {key: value for key, value in self.notes.items() if isinstance(value, str | int | float)}
        certificate = self.notes.get("certificate")
        if isinstance(certificate, Mapping):
            short["certificate"] = (
                f"{len(certificate.get('layers', ()))} layers; diptych verify checks them again"
            )
        lines += ["Notes:", *(f"  {key}: {value}" for key, value in short.items())] if short else []
        return lines + [f"Warning: {warning}" for warning in self.warnings]


def summarise(model: Model, shape: Sequence[int] | None = None) -> Summary:
    """The architecture table of a model.

    Args:
        model: Any model.
        shape: The shape of a batch, such as (N, C, H, W). By default a batch of one with the input shape of the
            model. If that is not recorded or has free sizes, a shape is assumed: the size of the recipe, or the first
            usual size that the layers take. If they take any size, and give pictures of that size, shapes and
            multiply-adds remain unknown.

    Returns:
        The table.

    Raises:
        ShapeError: The model cannot take the shape.
    """
    own = tuple(shape) if shape is not None else _own_shape(model)
    assumed = None if own is not None else assumed_shape(model)
    entry = own if assumed is None else (1, *assumed)
    shapes = {} if entry is None else layer_shapes(model, entry)
    fields = receptive_fields(model.layers, _spatial_rank(model, entry), entry)
    wiring = _wiring(model)
    shown: dict[int, str] = {}  # id of a weight -> the path of the row that counted it
    products = {} if entry is None else _multiply_adds(model, entry)

    def row(path: str, layer: Layer) -> Row:
        label = _label(path, layer, shown) + wiring.get(path, "")
        parameters, statistics = _counts(path, layer, shown)
        added = None if entry is None else products.get(path, 0)
        return Row(path, label, shapes.get(path), parameters, added, fields.get(path), statistics)

    rows = tuple(row(path, layer) for path, layer in model.walk())
    recipe = () if model.preprocessing is None else tuple(model.preprocessing.describe())
    source = " ".join(filter(None, (model.source.format, model.source.framework, model.source.version)))
    return Summary(
        model.name,
        entry,
        rows,
        recipe,
        model.classes,
        model.trained,
        source,
        tuple(model.source.warnings),
        model.notes,
        {key: value for key, value in model.source.extras.items() if key not in _INTERNAL},
        assumed is not None,
    )


def _own_shape(model: Model) -> Shape | None:
    sizes = model.input_shape
    if sizes is None or None in sizes:
        return None
    return (1, *(size for size in sizes if size is not None))


def _spatial_rank(model: Model, entry: Shape | None) -> int | None:
    """The number of spatial axes, from the shape or else from the first layer that determines it."""
    if entry is not None:
        return len(entry) - 2
    if model.input_shape is not None:
        return len(model.input_shape) - 1
    for _, layer in model.walk():
        if isinstance(layer, Conv | ConvTranspose):
            return layer.weight.ndim - 2
        if isinstance(layer, MaxPool | MeanPool):
            return len(layer.kernel)
        if isinstance(layer, Pad):
            return len(layer.padding)
    return None


def _wiring(model: Model) -> dict[str, str]:
    """Path of a node of a graph -> its inputs in words, such as " of 3.0, 3.2" or " of input"."""
    found: dict[str, str] = {}
    for path, layer in model.walk():
        if isinstance(layer, Graph):
            places = {name: child_path(path, index) for index, name in enumerate(layer.names)}
            for name, inputs in zip(layer.names, layer.inputs, strict=True):
                found[places[name]] = f" of {', '.join(places.get(each, each) for each in inputs)}"
    return found


def _multiply_adds(model: Model, entry: Shape) -> dict[str, int]:
    """Layer path -> multiply-adds, for layers without children."""
    found: dict[str, int] = {}

    def leaf(layer: Layer, shape: Shape, path: str) -> Shape:
        result = layer.output_shape(shape)
        found[path] = layer.multiply_adds(shape, result)
        return result

    def join(connection: Connection, shapes: Sequence[Shape], path: str) -> Shape:
        behind = connection.joined_shape(shapes)
        if len(shapes) > 1 and connection.operation == "matmul":
            found[path] = connection.multiply_adds(shapes[0], behind)
        return behind

    fold(model.layers, entry, leaf, join)
    return found


# ---- The cells of a row -------------------------------------------------------------------------------


def _label(path: str, layer: Layer, shown: dict[int, str]) -> str:
    """To be called before `_counts` adds the weights of this row to `shown`."""
    shared = sorted({shown[id(array)] for array in layer.arrays.values() if id(array) in shown})
    text = layer.label
    return f"{text} (weights of {', '.join(shared)})" if shared else text


def _counts(path: str, layer: Layer, shown: dict[int, str]) -> tuple[int, int]:
    """The numbers of weights and of running statistics that no earlier row counted."""
    fresh = {id(a): (name, a.size) for name, a in layer.arrays.items() if id(a) not in shown}
    shown.update(dict.fromkeys(fresh, path))
    statistics = sum(size for name, size in fresh.values() if name in STATISTICS)
    return sum(size for _, size in fresh.values()) - statistics, statistics


def _cells(row: Row) -> tuple[str, ...]:
    indent = "  " * row.path.count(".")
    return (
        row.path,
        indent + row.layer,
        _by(row.output_shape),
        _weights(row.parameters, row.statistics),
        _counted(row.multiply_adds),
        row.receptive_field if isinstance(row.receptive_field, str) else _by(row.receptive_field),
    )


def _weights(parameters: int, statistics: int) -> str:
    """The numbers of parameters and running statistics: "32 + 32"."""
    return f"{parameters:,} + {statistics:,}" if statistics else f"{parameters:,}" if parameters else "-"


def _by(sizes: Sequence[int] | None) -> str:
    return _NOT_KNOWN if sizes is None else " x ".join(map(str, sizes)) or "-"


def _counted(number: int | None) -> str:
    if number is None:
        return _NOT_KNOWN
    return f"{number:,}" if number else "-"


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    """Names aligned to the left, numbers to the right."""
    cells = [
        text.rjust(width) if column in (3, 4) else text.ljust(width)
        for column, (text, width) in enumerate(zip(line, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def _brief(value: Any) -> str:
    """A value on one line; a long one is cut, and of a long list the length is added."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = " ".join(text.split())
    if len(text) <= _VALUE_SHOWN:
        return text
    count = f" ({len(value)} values)" if isinstance(value, list) else ""
    return f"{text[:_VALUE_SHOWN]} ...{count}"


def _listed(value: Shape | str | None) -> list[int] | str | None:
    return list(value) if isinstance(value, tuple) else value


def _in_words(sizes: Shape | str | None) -> str:
    return " × ".join(map(str, sizes)) if isinstance(sizes, tuple) else sizes or ""
