"""Converts a model to a JSON-able document and its arrays, and back. Every file that Diptych writes holds both.

    {"version": 1, "name": "...", "layers": {"layer": "Chain", "layers": [...], "names": []},
     "classes": [...], "input_shape": [1, 224, 224], "trained": true, "preprocessing": {...}, "source": {...},
     "notes": {...}}

A layer is written as its class name and its fields. An array is written as {"array": "0.weight"}, the path and field
where it is first used. A layer used in several places is written once, and afterwards as {"same": "0.1"}. Both
directions work from the dataclass fields of the layers, so a new layer needs no change here. Reading is strict, since
a document may be untrusted: it creates only the classes in `LAYERS`.
"""

from __future__ import annotations

import json
import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

import numpy as np

from diptych.errors import ModelError
from diptych.model.layers import LAYERS, Activation, Array, Chain, Connection, Layer, child_path
from diptych.model.layers.whole import WholeGraph
from diptych.model.model import Model, Source
from diptych.model.validity import check_classes, check_input_shape, check_layers
from diptych.preprocessing import Preprocessing

__all__ = ["VERSION", "from_document", "to_document"]

VERSION = 1
_DEEPEST = 64
_MOST_LAYERS = 100_000
_MOST_NUMBERS = 64
_LARGEST = 2**31 - 1
_LAYER_TUPLE = tuple[Layer, ...]

Json: TypeAlias = Any
_KEYS = {f.name for f in fields(Model)} | {"version"}


# ---- Writing ------------------------------------------------------------------------------------------


def to_document(model: Model) -> tuple[dict[str, Json], dict[str, Array]]:
    """Converts a model to values that JSON can hold, and its arrays.

    Values of `source.extras` that JSON cannot hold are left out.

    Returns:
        The document, and the arrays by name. An array used several times occurs once.

    Raises:
        ModelError: The model contradicts itself, or its notes are not JSON.
    """
    check_layers(model.layers)
    check_classes(model)
    check_input_shape(model)
    writer = _Writer()
    document = {
        "version": VERSION,
        "name": model.name,
        "layers": writer.layer(model.layers, ""),
        "classes": None if model.classes is None else list(model.classes),
        "input_shape": None if model.input_shape is None else [_plain(n) for n in model.input_shape],
        "trained": model.trained,
        "preprocessing": None if model.preprocessing is None else model.preprocessing.to_document(),
        "source": _source_document(model.source),
        "notes": _json_copy(dict(model.notes), "the notes of the model"),
    }
    return document, writer.arrays


class _Writer:
    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}
        self._names: dict[int, str] = {}
        self._paths: dict[int, str] = {}

    def layer(self, layer: Layer, path: str) -> dict[str, Json]:
        if id(layer) in self._paths:
            return {"same": self._paths[id(layer)]}
        if type(layer) not in _HINTS:
            raise ModelError(f"layer {path} is a {type(layer).__name__}, which is not a layer of Diptych")
        if path.count(".") >= _DEEPEST:
            raise ModelError(f"layer {path} is nested deeper than {_DEEPEST} containers; flatten the model")
        record: dict[str, Json] = {"layer": type(layer).__name__}
        for field in fields(layer):
            value, hint = getattr(layer, field.name), _HINTS[type(layer)][field.name]
            if hint is Layer:
                record[field.name] = self.layer(value, child_path(path, 0))
            elif hint == _LAYER_TUPLE:
                record[field.name] = [self.layer(child, child_path(path, i)) for i, child in enumerate(value)]
            else:
                value = _as_floats(value, hint)
                record[field.name] = self._value(value, f"{path}.{field.name}")
        self._paths[id(layer)] = path
        return record

    def _value(self, value: Any, name: str) -> Json:
        if isinstance(value, np.ndarray):
            return {"array": self._array(value, name)}
        if isinstance(value, Activation | Connection):
            return {f.name: self._value(getattr(value, f.name), name) for f in fields(value)}
        if isinstance(value, tuple | list):
            return [self._value(item, name) for item in value]
        return _plain(value)

    def _array(self, value: Array, name: str) -> str:
        known = self._names.setdefault(id(value), name)
        self.arrays.setdefault(known, value)
        return known


def _as_floats(value: Any, hint: Any) -> Any:
    """Whole numbers in float fields become floats, so that they are read back as the same type."""
    if hint is float:
        return float(value)
    return tuple(float(v) for v in value) if hint == tuple[float, ...] else value


def _plain(value: Any) -> Json:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no infinity, but the bounds of a clamp may be infinite
    return value


def _source_document(source: Source) -> dict[str, Json]:
    extras = {key: value for key, value in source.extras.items() if _is_json(value)}
    return {
        "format": source.format,
        "framework": source.framework,
        "version": source.version,
        "warnings": list(source.warnings),
        "extras": _json_copy(extras, "the extras of the source"),
    }


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _json_copy(value: Any, what: str) -> Json:
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelError(f"{what} must be plain JSON values: {error}") from error


# ---- Reading ------------------------------------------------------------------------------------------


def from_document(document: Json, arrays: Mapping[str, Array]) -> Model:
    """Makes a model from a document.

    Args:
        document: As `to_document` gives it; may be untrusted.
        arrays: The arrays by name: float16, float32 or float64. They are not copied.

    Returns:
        The model.

    Raises:
        ModelError: The document is not valid; names the layer and the field.
    """
    record = _record(document, "the model document")
    version = record.get("version")
    if type(version) is not int or version < 1:
        raise ModelError(f"the model document must state its version, got {_short(version)}")
    if version > VERSION:
        raise ModelError(
            f"the model document has version {version}, this Diptych reads {VERSION}; update Diptych"
        )
    unknown = record.keys() - _KEYS
    if unknown or "layers" not in record:
        raise ModelError(f"the model document has {_unexpected(unknown, {'layers'} - record.keys())}")
    reader = _Reader(arrays)
    layers = reader.layer(record["layers"], "", 0)
    if not isinstance(layers, Chain):
        raise ModelError(f"the outermost layer must be a Chain, got {type(layers).__name__}")
    unused = arrays.keys() - reader.used
    if unused:
        raise ModelError(f"{len(unused)} arrays belong to no layer, such as {_short(min(unused))}")
    check_layers(layers)
    preprocessing = record.get("preprocessing")
    model = Model(
        layers=layers,
        preprocessing=None if preprocessing is None else Preprocessing.from_document(preprocessing),
        classes=_read(record.get("classes"), _CLASSES, "the field 'classes'"),
        input_shape=_read(record.get("input_shape"), _INPUT_SHAPE, "the field 'input_shape'"),
        trained=_read(record.get("trained"), _TRAINED, "the field 'trained'"),
        name=_read(record.get("name", ""), str, "the field 'name'"),
        source=_read_source(record.get("source", {})),
        notes=_json_copy(_record(record.get("notes", {}), "the field 'notes'"), "the field 'notes'"),
    )
    _check_shape(model.input_shape)
    check_classes(model)
    check_input_shape(model)
    return model


_CLASSES = tuple[str, ...] | None
_INPUT_SHAPE = tuple[int | None, ...] | None
_TRAINED = bool | None


def _check_shape(shape: tuple[int | None, ...] | None) -> None:
    if shape is not None and (not len(shape) <= 8 or any(n is not None and n < 1 for n in shape)):
        raise ModelError(f"the field 'input_shape' must be up to 8 sizes of 1 or more, got {_short(shape)}")


class _Reader:
    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self.used: set[str] = set()
        self._arrays = arrays
        self._finished: dict[str, tuple[Layer, int]] = {}
        self._count = 0

    def layer(self, value: Json, path: str, depth: int) -> Layer:
        where = f"layer {path}" if path else "the outermost layer"
        record = _record(value, where)
        if depth > _DEEPEST:
            raise ModelError(f"{where} is nested deeper than {_DEEPEST} containers")
        if "same" in record:
            return self._again(record, where)
        before = self._count
        self._grow(1)
        name = record.get("layer")
        kind = LAYERS.get(name) if isinstance(name, str) else None
        if kind is None:
            raise ModelError(f"{where} is of the kind {_short(name)}, which is not a layer of Diptych")
        where = f"{where} ({name})"
        given = {key: item for key, item in record.items() if key != "layer"}
        layer = self._build(kind, given, path, where, depth)
        assert isinstance(layer, Layer)
        self._finished[path] = (layer, self._count - before)
        return layer

    def _again(self, record: Mapping[str, Json], where: str) -> Layer:
        target = record["same"]
        if len(record) != 1 or not isinstance(target, str) or target not in self._finished:
            raise ModelError(
                f"{where} says it is the same as {_short(target)}, which is not an earlier layer"
            )
        layer, size = self._finished[target]
        self._grow(size)  # each use counts, or a small document could stand for 2^64 layers
        return layer

    def _grow(self, layers: int) -> None:
        self._count += layers
        if self._count > _MOST_LAYERS:
            raise ModelError(f"the model document holds more than {_MOST_LAYERS} layers")

    def _build(self, kind: type[Any], given: Mapping[str, Json], path: str, where: str, depth: int) -> Any:
        known = {f.name: f for f in fields(kind)}
        required = {f.name for f in known.values() if f.default is MISSING and f.default_factory is MISSING}
        unknown, missing = given.keys() - known.keys(), required - given.keys()
        if unknown or missing:
            raise ModelError(f"{where} has {_unexpected(unknown, missing)}")
        values: dict[str, Any] = {}
        for name in [n for n in known if n in given]:
            hint, item, field = _HINTS[kind][name], given[name], f"{where}: field {name!r}"
            if hint is Layer:
                values[name] = self.layer(item, child_path(path, 0), depth + 1)
            elif hint == _LAYER_TUPLE:
                items = _list(item, field, "layers", _MOST_LAYERS)
                values[name] = tuple(
                    self.layer(x, child_path(path, i), depth + 1) for i, x in enumerate(items)
                )
            elif hint in (Activation, Connection):
                values[name] = self._build(hint, _record(item, field), path, field, depth)
            else:
                values[name] = (
                    self._weight(item, field) if _holds_array(hint, item) else _read(item, hint, field)
                )
        try:
            return kind(**values)
        except (ValueError, TypeError) as error:
            raise ModelError(f"{where}: {error}") from error

    def _weight(self, value: Json, field: str) -> Array:
        record = _record(value, field)
        name = record.get("array")
        if len(record) != 1 or not isinstance(name, str):
            raise ModelError(f"{field} must name an array, got {_short(value)}")
        if name not in self._arrays:
            raise ModelError(f"{field} names the array {_short(name)}, which the file does not hold")
        self.used.add(name)
        return self._arrays[name]


# A `WholeGraph` is written only to tell models apart: no document with one is read.
_HINTS: dict[type[Any], dict[str, Any]] = {kind: get_type_hints(kind) for kind in LAYERS.values()}
_HINTS[WholeGraph] = get_type_hints(WholeGraph)


def _holds_array(hint: Any, value: Json) -> bool:
    options = get_args(hint) if get_origin(hint) is types.UnionType else (hint,)
    is_array = any(get_origin(option) is np.ndarray for option in options)
    return is_array and not (value is None and type(None) in options)


def _read(value: Json, hint: Any, field: str) -> Any:
    """Checks that `value` has the type `hint`; lists become tuples, and nothing else is converted."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (types.UnionType, Union):
        if value is None and type(None) in arguments:
            return None
        return _read(value, next(a for a in arguments if a is not type(None)), field)
    if origin is Literal:
        if not isinstance(value, str) or value not in arguments:
            raise ModelError(f"{field} must be one of {', '.join(map(repr, arguments))}, got {_short(value)}")
        return value
    if origin is tuple:
        return _read_tuple(value, arguments, field)
    if hint is float:
        return _read_float(value, field)
    if type(value) is not hint or (hint is int and abs(value) > _LARGEST):
        raise ModelError(f"{field} must be {_NOUNS[hint]}, got {_short(value)}")
    return value


def _read_tuple(value: Json, arguments: tuple[Any, ...], field: str) -> tuple[Any, ...]:
    item = arguments[0]
    noun = _PLURALS.get(item, "whole numbers")
    items = _list(value, field, noun, _MOST_LAYERS if item in (str, _TEXTS) else _MOST_NUMBERS)
    if arguments[-1] is not Ellipsis and len(items) != len(arguments):
        raise ModelError(f"{field} must hold {len(arguments)} {noun} at a time, got {_short(value)}")
    return tuple(_read(x, item, field) for x in items)


def _read_float(value: Json, field: str) -> float:
    if isinstance(value, str) and value in ("inf", "-inf"):
        return float(value)
    if type(value) not in (int, float) or not abs(value) < 1e300:
        raise ModelError(f"{field} must be a finite number, got {_short(value)}")
    return float(value)


_NOUNS = {str: "a string", bool: "true or false", int: f"a whole number up to {_LARGEST}"}
_TEXTS = tuple[str, ...]
_PLURALS: dict[Any, str] = {
    str: "strings",
    float: "numbers",
    int: "whole numbers",
    _TEXTS: "lists of strings",
    tuple[int, int]: "pairs of whole numbers",
}


def _read_source(value: Json) -> Source:
    record = _record(value, "the field 'source'")
    unknown = record.keys() - {f.name for f in fields(Source)}
    if unknown:
        raise ModelError(f"the field 'source' has {_unexpected(unknown, set())}")
    texts = {
        k: _read(record.get(k, ""), str, f"the field 'source.{k}'")
        for k in ("format", "framework", "version")
    }
    warnings = _read(record.get("warnings", []), tuple[str, ...], "the field 'source.warnings'")
    extras = _record(record.get("extras", {}), "the field 'source.extras'")
    return Source(**texts, warnings=warnings, extras=_json_copy(extras, "the field 'source.extras'"))


def _record(value: Json, where: str) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise ModelError(f"{where} must be an object of named fields, got {_short(value)}")
    return value


def _list(value: Json, field: str, noun: str, most: int) -> list[Json]:
    if not isinstance(value, list):
        raise ModelError(f"{field} must be a list of {noun}, got {_short(value)}")
    if len(value) > most:
        raise ModelError(f"{field} holds {len(value)} {noun}, more than the {most} allowed")
    return value


def _unexpected(unknown: set[str], missing: set[str]) -> str:
    parts = [f"the unknown field {_short(min(unknown))}"] if unknown else []
    parts += [f"no field {min(missing)!r}"] if missing else []
    return " and ".join(parts)


def _short(value: object) -> str:
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    text = repr(value) if not isinstance(value, str) else repr(value[:60])
    return text if len(text) <= 60 else f"{text[:57]}..."
