"""From the values under the top keys of a file to a Model: which of them is the model, and what the others mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from diptych.errors import FormatError, ModelError, UnsupportedLayer, UsageError, WeightsAlone
from diptych.formats.flux.closures import unknown_closures, with_functions
from diptych.formats.flux.finding import Weights, find_weights, state_of
from diptych.formats.flux.keys import CLASSES, FLUX_VERSION, NOTES, PREPROCESSING
from diptych.formats.flux.layouts import Version, fields_of, parse_version
from diptych.formats.flux.reading import FluxReader, contents, is_layer, unwrapped
from diptych.formats.flux.reading_functions import function_layer
from diptych.formats.flux.reading_layers import RULES
from diptych.formats.flux.sizes import layers_of_sizes, shapes_of
from diptych.formats.flux.states import filled
from diptych.formats.flux.versions import Signs, formula_unsure, signs_of
from diptych.formats.julia import JuliaDict, JuliaStruct, NamedTuple, Symbol, Unreadable
from diptych.formats.julia.lowering.sizes import BATCH, Shape, fresh
from diptych.model.layers import Chain, Layer, LayerNorm, Normalise, child_path
from diptych.model.model import Model, Source
from diptych.model.validity import check_input_shape, check_layers, output_features
from diptych.preprocessing import Preprocessing

__all__ = ["find_model", "model_of", "version_asked"]

_OWN = (PREPROCESSING, NOTES, FLUX_VERSION)
_LISTED = 16  # arrays in a message
_MOST_TRIED = 12  # weights of one file that are tried
_DEEPEST = 4  # the most dictionaries around a model that are looked through


def version_asked(text: str | None) -> Version | None:
    """The version of Flux that a user named. Raises `UsageError` if it is not one."""
    if text is None:
        return None
    version = parse_version(text)
    if version is None or not (0, 7) <= version < (1,):
        raise UsageError(f"flux_version {text!r} is not a version of Flux; give one such as 0.14 or 0.16.9")
    return version


def find_model(values: Mapping[str, Any]) -> str | None:
    """The key under which the model lies: "model", or the only key with a Flux layer; None if neither exists."""
    if is_layer(values.get("model")):
        return "model"
    found = [key for key, value in values.items() if is_layer(value)]
    return found[0] if len(found) == 1 else None


def _unwrapped(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values with a dictionary that contains the model, if there is exactly one, replaced by its contents."""
    given = values
    for _ in range(_DEEPEST):
        if find_model(values) is not None:
            return values
        inner = [(key, _as_dict(value)) for key, value in values.items()]
        found = [(key, held) for key, held in inner if any(map(is_layer, held.values()))]
        deeper = found or [(key, held) for key, held in inner if held and len(values) == 1]
        if len(deeper) != 1:
            break
        key, held = deeper[0]
        values = {**{k: v for k, v in values.items() if k != key}, **held}
    return values if find_model(values) is not None else given


def _chosen(values: Mapping[str, Any], key: str, name: str) -> Mapping[str, Any]:
    """The values reduced to the model, or the weights, that lie at `key`. Raises `FormatError` for a wrong key."""
    value: Any = dict(values)
    parts = key.split(".")
    for number, part in enumerate(parts):
        inside = _parts(value)
        if part not in inside:
            where = ".".join(parts[:number]) or "it"
            known = ", ".join([*inside][:12]) or "nothing"
            raise FormatError(
                f"{name} does not have {key!r}: {where} holds {known}; choose one of these with --key"
            )
        value = inside[part]
    beside = {k: v for k, v in values.items() if k != parts[0] and not is_layer(v)}
    return {("model" if is_layer(value) else key): value, **(beside if is_layer(value) else {})}


def _parts(value: Any) -> dict[str, Any]:
    """The parts of a value, by name or by number from 1."""
    value = unwrapped(value)
    if isinstance(value, JuliaStruct):
        names = value.names or fields_of(value.type.name, len(value.fields))
        numbered = {str(i): item for i, item in enumerate(value.fields, 1)}
        return dict(zip(names, value.fields, strict=True)) if names else numbered
    if isinstance(value, NamedTuple):
        return value.as_dict()
    if isinstance(value, (dict, JuliaDict)):
        return {k.name if isinstance(k, Symbol) else str(k): value[k] for k in value}
    if isinstance(value, (tuple, list)):
        return {str(i): item for i, item in enumerate(value, 1)}
    return {}


def _layers_in(values: Mapping[str, Any]) -> list[str]:
    """The places of layers, in the form that `--key` takes: top keys, and parts of a container or struct there."""
    found = [key for key, value in values.items() if is_layer(value)]
    for key, value in values.items():
        if not is_layer(value):
            found += [f"{key}.{part}" for part, inner in _parts(value).items() if is_layer(inner)]
    return found


def _as_dict(value: Any) -> dict[str, Any]:
    if isinstance(value, NamedTuple):
        return value.as_dict()
    if isinstance(value, (dict, JuliaDict)):
        return {k.name if isinstance(k, Symbol) else str(k): value[k] for k in value}
    if isinstance(value, (tuple, list)) and any(map(is_layer, value)):
        return {str(i): item for i, item in enumerate(value, 1)}
    return {}


def model_of(
    values: Mapping[str, Any],
    name: str,
    format_name: str,
    version: Version | None = None,
    julia: Version | None = None,
    architecture: Model | None = None,
    chosen: str | None = None,
    functions: Mapping[str, str] | None = None,
) -> Model:
    """The model in a file.

    Args:
        values: The values under the file's top keys.
        name: The file, for messages.
        format_name: The format, which the model records as its source.
        version: The version of Flux that wrote the file, if the user named it. A file that Diptych wrote records it.
        julia: The version of Julia, if the container records it.
        architecture: The model to fill if the file holds weights alone.
        chosen: Which of several models to read: a key such as "generator", or a place inside one, such as
            "gan.generator" or, counted from 1, "model.2".
        functions: What closures without code compute, by their names: {"#30#31": "flatten"}.

    Raises:
        FormatError: If there is no model or no unique one, or a layer has no counterpart here; with its path.
    """
    named, version = version, version or _version_of(values, name)
    if functions:
        values = with_functions(values, functions, name)
    values = _unwrapped(values) if chosen is None else _chosen(values, chosen, name)
    key = find_model(values)
    if key is None:
        own = None if version is not None and named is None else julia  # Diptych's own file is of no Julia
        return _from_weights(
            values, name, format_name, architecture, Signs(exact=version, julia=own), named is not None
        )
    signs = signs_of(values[key], version, julia)
    reader = FluxReader(RULES, signs, function_layer, name)
    value = unwrapped(values[key])
    for kind in _spatial_ranks(value):
        reader.rank = reader.rank or kind
    bare = value.type.name != "Chain"
    reader.entry = _entry(values, name)
    reader.suppose(value)
    try:
        layer = reader.layer(value, "0" if bare else "")
    except FormatError as error:
        if architecture is not None:
            return _from_weights(values, name, format_name, architecture, signs, named is not None)
        lost = unknown_closures(value)
        text = f"{str(error).split('; use a named layer')[0]}; {lost}" if lost else str(error)
        raise FormatError(text if name in text else f"{name}: {text}") from error
    others = [k for k, v in values.items() if k != key and _has(v)]
    if others:
        reader.warn(f"the model was read from {key}; the file also holds {', '.join(others)}: --key chooses")
    if architecture is not None:
        reader.warn("the file holds a whole model, so the architecture that was given is not used")
    layers = layer if isinstance(layer, Chain) and not bare else Chain((layer,))
    try:
        check_layers(layers)
    except ModelError as error:
        raise FormatError(f"{name}: {error}") from error
    extras: dict[str, Any] = {k: summary(v) for k, v in values.items() if k != key and k not in _OWN}
    hints: dict[str, Any] = {"layers": reader.hints} if reader.hints else {}
    if bare:
        hints["bare"] = True
    if key != "model" and key.isidentifier():
        hints["key"] = key
    if hints:
        extras["flux"] = hints
    made = Model(layers, preprocessing=_preprocessing(values, name), **_notes(values, name))
    _check_shape(made, name)
    classes = _classes_of(made, values, extras, reader.warnings)
    source = Source(format_name, "Flux", signs.text, tuple(reader.warnings), extras)
    return made.with_(classes=classes, source=source)


def _from_weights(
    values: Mapping[str, Any],
    name: str,
    format_name: str,
    architecture: Model | None,
    signs: Signs,
    sure: bool = False,
) -> Model:
    whole = any(map(_has, values.values()))
    found = [] if whole else find_weights(values)
    if whole and architecture is not None:
        found = [
            Weights(k, f"a struct {v.type.name} under {k}", state_of(v)) for k, v in values.items() if _has(v)
        ]
    if not found or (architecture is None and not found[0].named):
        raise FormatError(_no_model(values, name))
    if architecture is None:
        raise weights_alone(found, name)
    layers, warnings = _filled_by_one(architecture, found, name)
    layers, known = _with_divisors(layers, architecture, signs, warnings, sure)
    try:
        check_layers(layers)
    except ModelError as error:
        raise FormatError(f"{name}: {error}") from error
    extras = {k: summary(v) for k, v in values.items() if k not in _OWN and not _is_weights(k, v)}
    if known is not None:
        extras["flux"] = known
    made = architecture.with_(
        layers=layers,
        preprocessing=_preprocessing(values, name) or architecture.preprocessing,
        **({"trained": None} | _notes(values, name)),
    )
    _check_shape(made, name)
    classes = _classes_of(made, values, extras, warnings) or architecture.classes
    return made.with_(
        classes=classes, source=Source(format_name, "Flux", signs.text, tuple(warnings), extras)
    )


def _with_divisors(
    layers: Chain, architecture: Model, signs: Signs, warnings: list[str], sure: bool
) -> tuple[Chain, Any]:
    """The layers with the divisors of the version that wrote the weights where the architecture's were guesses.

    That version is known if the user named it, `sure`; otherwise the version of Julia in the file hints at it.
    Also gives what is recorded about the layers of the architecture, and adds to `warnings` what remains a guess.
    """
    known: Any = architecture.source.extras.get("flux")
    noted = known.get("layers", {}) if isinstance(known, Mapping) else {}
    formula, _ = signs.formula()

    def turned(layer: Layer, path: str) -> Layer:
        if isinstance(layer, LayerNorm | Normalise) and noted.get(path, {}).get("formula") == "guessed":
            own = formula if sure or signs.julia is not None else layer.formula
            if not sure:
                warning = formula_unsure("LayerNorm" if isinstance(layer, LayerNorm) else "normalise", own)
                warnings.extend([warning] * (warning not in warnings))
            return replace(layer, formula=own)
        inside = [turned(child, child_path(path, i)) for i, child in enumerate(layer.children)]
        same = all(a is b for a, b in zip(inside, layer.children, strict=True))
        return layer if same else layer.with_children(inside)

    made = turned(layers, "")
    assert isinstance(made, Chain)
    if sure and noted:
        rest = {
            path: {k: v for k, v in hint.items() if k != "formula"} if isinstance(hint, Mapping) else hint
            for path, hint in noted.items()
        }
        known = dict(known) | {"layers": rest}
    return made, known


def _entry(values: Mapping[str, Any], name: str) -> Shape | None:
    """The shape of the input that Diptych recorded in the file."""
    shape = _notes(values, name).get("input_shape")
    return None if shape is None else (BATCH, *(fresh() if n is None else n for n in shape))


def _has(value: Any) -> bool:
    return isinstance(value, JuliaStruct) and (_holds_layer(value) or is_layer(value))


def weights_alone(found: list[Weights], name: str) -> WeightsAlone:
    """The error for a file without a model that holds weights: which, and their names and sizes."""
    named = [w for w in found if w.named] or found
    listed = " and ".join(w.text for w in named[:4]) + (
        f" and {len(named) - 4} more" if len(named) > 4 else ""
    )
    shapes = shapes_of(named[0])
    sizes = ", ".join(f"{place} {'×'.join(map(str, shape))}" for place, shape in shapes[:_LISTED])
    more = f" and {len(shapes) - _LISTED} more" if len(shapes) > _LISTED else ""
    which = f" and one of them with --key ({', '.join(w.key for w in named[:4])})" if len(named) > 1 else ""
    text = (
        f"{name} holds weights alone ({listed}), not a model: name the model they belong to with --architecture "
        f"(in Python architecture= of diptych.read){which}; sizes in Julia's order: {sizes}{more}"
    )
    arrays = [pair for w in named for pair in shapes_of(w)]
    return WeightsAlone(text, arrays, layers_of_sizes(shapes))


def _filled_by_one(architecture: Model, found: list[Weights], name: str) -> tuple[Chain, list[str]]:
    """The architecture filled with the only weights that fit it. Raises `FormatError` if none or several fit."""
    fitting: list[tuple[Weights, Chain, list[str]]] = []
    failures: list[FormatError | UnsupportedLayer] = []
    for weights in found[:_MOST_TRIED]:
        try:
            fitting.append((weights, *filled(architecture, weights, name)))
        except (FormatError, UnsupportedLayer) as error:
            failures.append(error)
    if not fitting:
        raise failures[0]
    if len(fitting) > 1:
        keys = ", ".join(weights.key for weights, _, _ in fitting)
        raise FormatError(
            f"{name} holds several weights that fit the architecture: {keys}; name the one to take with --key"
        )
    weights, layers, warnings = fitting[0]
    if len(found) > 1:
        others = ", ".join(w.key for w in found if w is not weights)
        warnings = [f"the weights are {weights.text}; the file also holds {others}: --key chooses", *warnings]
    return layers, warnings


def _check_shape(model: Model, name: str) -> None:
    try:
        check_input_shape(model)
    except ModelError as error:
        raise FormatError(f"{name}: {error}") from error


def _classes_of(
    model: Model, values: Mapping[str, Any], extras: dict[str, Any], warnings: list[str]
) -> tuple[str, ...] | None:
    """The class names, unless the model has another number of outputs; then they stay among the extras."""
    classes, outputs = _classes(values), output_features(model)
    if classes is None:
        return None
    if outputs is not None and outputs != len(classes):
        warnings.append(f"the file names {len(classes)} classes, but the model gives {outputs} outputs")
        return None
    extras.pop(CLASSES, None)
    return classes


def _is_weights(key: str, value: Any) -> bool:
    return bool(find_weights({key: value})) and not (isinstance(value, np.ndarray) and value.ndim < 2)


def _spatial_ranks(value: Any) -> list[int]:
    """The number of spatial axes of the first convolution or pool inside, from its type; empty if none tells it."""
    found: list[int] = []
    stack, steps = [value], 0
    while stack and steps < 10_000 and not found:
        item = stack.pop()
        steps += 1
        if isinstance(item, JuliaStruct):
            parameters = item.type.parameters
            if item.type.name in (
                "Conv",
                "MaxPool",
                "MeanPool",
                "ConvTranspose",
                "CrossCor",
                "DepthwiseConv",
            ):
                found += [int(n) for n in parameters[:1] if isinstance(n, int) and 1 <= n <= 3]
            stack.extend(reversed(item.fields if item.type.definition is None else ()))
        elif isinstance(item, (tuple, list)):
            stack.extend(reversed(item))
    return found


# ---- Beside the model -------- ------------------------------------------------------------------------


def _preprocessing(values: Mapping[str, Any], name: str) -> Preprocessing | None:
    document = _json(values, PREPROCESSING, name)
    if document is None:
        return None
    try:
        return Preprocessing.from_document(document)
    except ModelError as error:
        raise FormatError(f"{name}: {PREPROCESSING} is damaged or was edited: {error}") from error


def _json(values: Mapping[str, Any], key: str, name: str) -> Any:
    text = values.get(key)
    if text is None:
        return None
    try:
        return json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{name}: {key} is not JSON; it is damaged or was edited") from error


def _version_of(values: Mapping[str, Any], name: str) -> Version | None:
    """The version of Flux that a file of Diptych's own was written for."""
    text = values.get(FLUX_VERSION)
    if text is None:
        return None
    try:
        return version_asked(str(text)[:40])
    except UsageError as error:
        raise FormatError(f"{name}: {FLUX_VERSION} is damaged or was edited: {error}") from error


def _classes(values: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The names under "classes" or "labels", if they are a list of strings or symbols."""
    for key in (CLASSES, "labels"):
        value = values.get(key)
        if isinstance(value, (list, tuple, np.ndarray)) and 0 < len(value) <= 100_000:
            texts = [v.name if isinstance(v, Symbol) else v for v in value]
            if all(isinstance(text, str) for text in texts):
                return tuple(map(str, texts))
    return None


def _notes(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The fields of a Model that Diptych's own entry holds: name, input shape, trained, notes."""
    document = _json(values, NOTES, name)
    if not isinstance(document, dict):
        return {}
    shape, trained = document.get("input_shape"), document.get("trained")
    title, notes = document.get("name"), document.get("notes")
    found: dict[str, Any] = {}
    if isinstance(shape, list) and 1 <= len(shape) <= 8:
        if not all(n is None or (type(n) is int and 0 < n < 2**31) for n in shape):
            raise FormatError(
                f"{name}: {NOTES} holds {str(shape)[:40]}, which is not an input shape; it is damaged or was edited"
            )
        found["input_shape"] = tuple(shape)
    if isinstance(trained, bool):
        found["trained"] = trained
    if isinstance(title, str):
        found["name"] = title
    if isinstance(notes, dict):
        found["notes"] = notes
    return found


def summary(value: Any, depth: int = 0) -> Any:
    """A short form of a value, as JSON can hold it: numbers and strings unchanged, anything else described."""
    if value is None or isinstance(value, (bool, int, str)):
        return value if not isinstance(value, str) else value[:1000]
    if isinstance(value, (float, np.floating, np.integer)):
        number = float(value) if not isinstance(value, np.integer) else int(value)
        return number if np.isfinite(number) else str(number)
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind in "fiu" and value.size <= 1000:
        return [float(n) if np.isfinite(n) else str(n) for n in value]
    if isinstance(value, np.ndarray):
        return f"{'×'.join(map(str, value.shape))} array of {value.dtype}"
    if isinstance(value, Symbol):
        return value.name
    if isinstance(value, Unreadable):
        return f"unreadable: {value.reason}"
    if isinstance(value, JuliaStruct):
        return _struct(value, depth)
    if isinstance(value, NamedTuple):
        value = value.as_dict()
    if isinstance(value, dict) and depth < 2 and len(value) <= 20:
        return {str(k): summary(v, depth + 1) for k, v in value.items()}
    if isinstance(value, (list, tuple)) and depth < 2 and len(value) <= 20:
        return [summary(v, depth + 1) for v in value]
    size = f" of {len(value)}" if isinstance(value, (list, tuple, dict, JuliaDict)) else ""
    return f"{type(value).__name__}{size}"


def _struct(value: JuliaStruct, depth: int) -> Any:
    plain = [v for v in value.fields if isinstance(v, (int, float, str, np.number))]
    numbers = ", ".join(f"{v:g}" if not isinstance(v, (str, bool)) else str(v)[:40] for v in plain[:6])
    return f"{'.'.join(value.type.path)}({numbers})"


def _no_model(values: Mapping[str, Any], name: str) -> str:
    """Why no model was found, with what is there."""
    if not values:
        return f"{name} is empty: it holds no value; save the model with BSON.@save"
    customs = [(k, v) for k, v in values.items() if isinstance(v, JuliaStruct) and _holds_layer(v)]
    if customs:
        key, value = customs[0]
        return (
            f"{name}: {key} is a struct of its own, {value.type.name}, with no equal here; {contents(value)}: "
            f"{', '.join(_layers_in({key: value})[:8])}"
        )
    layers = _layers_in(values)
    if layers:
        return (
            f"{name} holds several models: {', '.join(layers[:8])}; name the one to read with --key (key=...)"
        )
    lost = [v.reason for v in values.values() if isinstance(v, Unreadable)]
    held = ", ".join(f"{key} ({_brief(value)})" for key, value in list(values.items())[:6])
    more = f" and {len(values) - 6} more" if len(values) > 6 else ""
    return f"{name} holds no Flux model, but {held}{more}{'; ' + lost[0] if lost else ''}"


def _holds_layer(value: JuliaStruct) -> bool:
    return any(is_layer(part) for part in value.fields)


def _brief(value: Any) -> str:
    if isinstance(value, JuliaStruct):
        return str(value.type)[:40]
    if isinstance(value, np.ndarray):
        return f"{'×'.join(map(str, value.shape)) or '0-d'} array"
    return type(value).__name__
