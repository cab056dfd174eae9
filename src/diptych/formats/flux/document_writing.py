"""From a Model to the values under the top keys of a file: the struct of the model, and what travels with it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from diptych.errors import ShapeError, UnsupportedLayer
from diptych.formats.flux.keys import CLASSES, FLUX_VERSION, NOTES, PREPROCESSING
from diptych.formats.flux.structs import StructBuilder, hints_of, kind_of, ranks_of, version_written
from diptych.formats.flux.structs_of_layers import RULES
from diptych.formats.julia import JuliaStruct, NamedTuple
from diptych.model.layers import Connection, Gather, Layer, PReLU, Shape, fold
from diptych.model.model import Model
from diptych.model.validity import check_classes, check_input_shape, check_layers

__all__ = [
    "beside_the_model",
    "state_of",
    "state_values_of",
    "struct_for_state",
    "struct_of_model",
    "values_of",
]


def values_of(model: Model, flux_version: str | None, remarks: list[str]) -> dict[str, Any]:
    """The values of a file that holds a whole model: {"model": the struct, "classes": ..., ...}.

    Args:
        model: The model.
        flux_version: The version of Flux to write for, such as "0.14" or "0.14.25"; 0.16 if None.
        remarks: A list that receives a sentence for each thing that this version computes slightly differently.

    Raises:
        UnsupportedLayer: If that version cannot express a layer.
        UsageError: If the version cannot be written.
    """
    hints = _hints(model)
    key = hints.get("key")
    made = struct_of_model(model, flux_version, remarks=remarks)
    return {key if isinstance(key, str) and key else "model": made, **beside_the_model(model, flux_version)}


def state_values_of(model: Model, flux_version: str | None, remarks: list[str]) -> dict[str, Any]:
    """The values of a file that holds weights alone: {"model_state": `Flux.state(model)`, "classes": ..., ...}.

    Fields have the names and the order of the version. Arguments and errors are those of `values_of`.
    """
    made = struct_for_state(model, flux_version, remarks)
    state = state_of(made, version_written(flux_version) >= (0, 14))
    return {"model_state": state, **beside_the_model(model, flux_version)}


def struct_for_state(model: Model, flux_version: str | None, remarks: list[str]) -> JuliaStruct:
    """The struct whose state is written: of a model from Flux that which was read, of others that of the .bson file."""
    kept = not any(isinstance(layer, Gather | PReLU) for _, layer in model.walk())  # others take their places
    if model.source.framework != "Flux" and kept:
        try:
            return struct_of_model(model, flux_version, remarks=remarks)
        except UnsupportedLayer:
            remarks.clear()  # its weights alone can still be written
    return struct_of_model(model, flux_version, state=True, remarks=remarks)


_BFLOAT16 = (
    "the weights are bfloat16, which Julia knows as BFloat16s.BFloat16: load that package (using BFloat16s) before the "
    "file"
)


def state_of(value: Any, functions: bool = True) -> Any:
    """`Flux.state` of a struct: named tuples of all fields, with () for whatever holds no numbers.

    `functions` says whether the fields of functions such as `Base.Fix2` are there, as since Flux 0.14.
    """
    if isinstance(value, NamedTuple):
        return NamedTuple(value.names, [state_of(item, functions) for item in value])
    if isinstance(value, tuple):
        return tuple(state_of(item, functions) for item in value)
    if isinstance(value, list):
        return [state_of(item, functions) for item in value]
    if isinstance(value, JuliaStruct):
        left_out = value.type.name == "Upsample" or (value.type.path[0] == "Base" and not functions)
        if value.names and not left_out:
            return NamedTuple(value.names, [state_of(item, functions) for item in value.fields])
        wrapper = value.type.name in ("Transpose", "Adjoint")
        return NamedTuple(("parent",), [value.fields[0]]) if wrapper else ()
    return value


def struct_of_model(
    model: Model, flux_version: str | None, state: bool = False, remarks: list[str] | None = None
) -> JuliaStruct:
    """The model as a struct of Flux: a Chain, or a single layer if the file it came from held a single layer.

    Arguments and errors are those of `values_of`. With `state`, functions are left out, as `Flux.state` does.
    """
    check_layers(model.layers)
    check_classes(model)
    check_input_shape(model)
    builder = StructBuilder(
        RULES, version_written(flux_version), hints_of(model, True), _entries(model), ranks_of(model), state
    )
    bare = _hints(model).get("bare") is True and len(model.layers.layers) == 1
    made = builder.layer(model.layers.layers[0], "0") if bare else builder.layer(model.layers, "")
    if remarks is not None:
        remarks += builder.remarks()
        kinds = {str(kind_of(array).parameters[0]) for array in model.weights().values()}
        remarks += [_BFLOAT16] if any(kind.endswith("BFloat16") for kind in kinds) else []
    return made


def beside_the_model(model: Model, flux_version: str | None) -> dict[str, Any]:
    """What a file holds beside the model: the version of Flux and, if the model has them, classes, recipe and notes."""
    values: dict[str, Any] = {FLUX_VERSION: ".".join(map(str, version_written(flux_version)))}
    if model.classes is not None:
        values[CLASSES] = list(model.classes)
    if model.preprocessing is not None:
        values[PREPROCESSING] = _text(model.preprocessing.to_document())
    notes = {
        "name": model.name,
        "input_shape": None if model.input_shape is None else list(model.input_shape),
        "trained": model.trained,
        "notes": dict(model.notes),
    }
    if any(value not in (None, "", {}) for value in notes.values()):
        values[NOTES] = _text(notes)
    return values


def _text(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _hints(model: Model) -> Mapping[str, Any]:
    found = model.source.extras.get("flux")
    return found if isinstance(found, Mapping) else {}


def _entries(model: Model) -> dict[str, tuple[int, ...]]:
    """The shape that reaches each layer, by path; empty if the model does not record the shape of its input."""
    shape = model.input_shape
    if shape is None or None in shape:
        return {}
    entry = (1, *(n for n in shape if n is not None))
    found: dict[str, tuple[int, ...]] = {"": entry}

    def leaf(layer: Layer, shape: Shape, path: str) -> Shape:
        return layer.output_shape(shape)

    def join(connection: Connection, shapes: Sequence[Shape], path: str) -> Shape:
        return connection.joined_shape(shapes)

    def enter(path: str, layer: Layer, shape: Shape) -> None:
        found[path] = shape

    try:
        fold(model.layers, entry, leaf, join, enter=enter)
    except ShapeError:
        return {}
    return found
