"""Reading Flux structs as layers: the walk over a model, and typed access to the fields of one struct.

`reading_layers` says what each struct means. A struct that is not understood is refused with its name and path.
Details that our layers do not keep, but that writing the same file again needs (a layer was a `CrossCor`, its
padding was stored in short form), are recorded in `hints` under the path of the layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from diptych.errors import FormatError
from diptych.formats.flux.functions import (
    default_path,
    held_by,
    named_activation,
    path_of,
    same_parameters,
)
from diptych.formats.flux.layouts import PARAMETERS, fields_of
from diptych.formats.flux.versions import Signs, formula_unsure
from diptych.formats.julia import JuliaStruct, JuliaType, NamedTuple, Unreadable
from diptych.formats.julia.arrays import as_array
from diptych.formats.julia.lowered import interpret, is_function
from diptych.formats.julia.lowered_layers import as_layers
from diptych.formats.julia.lowering.sizes import BATCH, Shape, behind, unknown
from diptych.model.layers import (
    ACTIVATIONS,
    Activation,
    Array,
    BatchNorm,
    Chain,
    Dropout,
    Flatten,
    Layer,
    NormFormula,
    Permute,
    Reshape,
    Softmax,
    child_path,
)

__all__ = ["Fields", "FluxReader", "contents", "is_layer", "unwrapped"]

_DEEPEST = 60
_MOST_LAYERS = 100_000
_REFUSED = {
    **dict.fromkeys(
        ("RNNCell", "LSTMCell", "GRUCell", "GRUv3Cell"), "a recurrent cell outside of a recurrent layer"
    ),
    "PairwiseFusion": "a layer that gives several outputs",
}
LayerRule = Callable[["FluxReader", "Fields"], Layer]


def is_layer(value: Any) -> bool:
    """Whether a value is a layer: a struct of the module Flux itself, or a Metalhead model, which wraps one.

    Optimisers do not count: their module is `Flux.Optimise`.
    """
    value = unwrapped(value)
    if not isinstance(value, JuliaStruct) or len(value.type.path) != 2:
        return False
    module, name = value.type.path
    return module == "Flux" and name[:1] != "#" and name != "Zeros"


def unwrapped(value: Any) -> Any:
    """The Chain inside a Metalhead model such as `ResNet`, whose only field it is; any other value unchanged."""
    wraps = isinstance(value, JuliaStruct) and value.type.path[0] == "Metalhead" and len(value.fields) == 1
    return value.fields[0] if wraps else value


@dataclass
class FluxReader:
    """Reads the structs of one file as layers, and collects `warnings` and `hints` on the way.

    Args:
        rules: How each struct is read, by its name.
        signs: What is known about the version of Flux.
        function_rule: How a function in the place of a layer is read.
        name: The file, for messages.
    """

    rules: dict[str, LayerRule]
    signs: Signs
    function_rule: Callable[[FluxReader, JuliaStruct, str], Layer]
    name: str = "the file"
    warnings: list[str] = field(default_factory=list)
    hints: dict[str, dict[str, Any]] = field(default_factory=dict)
    rank: int | None = None  # the number of spatial axes, once a convolution or pool has told it
    entry: Shape | None = None  # of what reaches the next layer, as far as it is known
    supposed: bool = False  # whether its number of axes is only supposed, by the layers that follow
    _converted: dict[tuple[int, str], tuple[Any, Array]] = field(default_factory=dict)
    _layers: dict[int, tuple[Any, Layer, str]] = field(default_factory=dict)
    _open: list[int] = field(default_factory=list)
    _count: int = 0

    def refuse(self, path: str, struct: str, why: str) -> FormatError:
        """The error for a layer, with the file, the path and the struct."""
        where = f"layer {path} ({struct})" if path else f"the model ({struct})"
        return FormatError(f"{self.name}: {where} {why}")

    def warn(self, text: str) -> None:
        """Adds a warning unless it was given before."""
        if text not in self.warnings:
            self.warnings.append(text)

    def hint(self, path: str, **values: Any) -> None:
        """Records details of the layer at `path` that our layers do not keep."""
        self.hints.setdefault(path, {}).update(values)

    def formula(self, name: str, path: str) -> NormFormula:
        """The divisor of LayerNorm or normalise. If it is a guess, that is said, and recorded for `states`."""
        formula, sure = self.signs.formula()
        if not sure:
            self.warn(formula_unsure(name, formula))
            self.hint(path, formula="guessed")
        return formula

    def layer(self, value: Any, path: str) -> Layer:
        """Reads a value as a layer. Raises `FormatError`, with the path, if no layer of ours computes the same."""
        value = unwrapped(value)
        self._count += 1
        if self._count > _MOST_LAYERS:
            raise self.refuse(
                path, "...", f"comes after {_MOST_LAYERS} others, the most layers that are read"
            )
        if isinstance(value, Unreadable):
            raise self.refuse(path, "unreadable", f"cannot be read: {value.reason}")
        if not isinstance(value, JuliaStruct):
            raise self.refuse(path, type(value).__name__, "is not a layer; save a Flux model")
        if id(value) in self._open or len(self._open) > _DEEPEST:
            raise self.refuse(
                path, value.type.name, f"contains itself, or lies deeper than {_DEEPEST} layers"
            )
        known = self._layers.get(id(value))
        if known is not None:
            self.copy_hints(known[2], path)
            self.entry = behind(known[1], self.entry)
            return known[1]
        self._open.append(id(value))
        entry = self.entry
        made = self._layer(value, path)
        self.entry = entry if self.entry is not None or not self.supposed else None
        self.passed(made, is_function(value))
        self._open.pop()
        self._layers[id(value)] = (value, made, path)
        return made

    def _layer(self, value: JuliaStruct, path: str) -> Layer:
        struct = value.type.name
        if is_function(value):
            return self.function_rule(self, value, path)
        if is_layer(value) and struct in self.rules:
            return self.rules[struct](self, self.fields(value, path))
        if is_layer(value) and struct in _REFUSED:
            raise self.refuse(path, struct, f"is {_REFUSED[struct]}, which Diptych does not support")
        raise self.refuse(path, str(value.type)[:80], f"is not known; {contents(value)}")

    def passed(self, made: Layer, function: bool = False) -> Layer:
        """Follows the shape through a layer that was read."""
        self.entry = behind(made, self.entry)
        self.supposed &= isinstance(made, Activation | BatchNorm | Dropout) or function
        return made

    def suppose(self, value: Any) -> None:
        """Sets the number of axes of the input to what the first layer with a fixed number of them takes."""
        rank = _rank_of_input(value)
        if self.entry is None and rank is not None:
            self.entry, self.supposed = (BATCH, *unknown(rank - 1)), True

    def branches(self, values: Sequence[Any], path: str, first: int = 0) -> tuple[Layer, ...]:
        """Reads values as layers that all have the same input."""
        entry, made = self.entry, []
        for index, value in enumerate(values, first):
            self.entry = entry
            made.append(self.layer(value, child_path(path, index)))
        self.entry = entry
        return tuple(made)

    def forget_hints(self, path: str) -> None:
        """Drops the hints of layers inside the one at `path`, which have other paths now."""
        for known in [each for each in self.hints if each.startswith(f"{path}." if path else "")]:
            del self.hints[known]

    def copy_hints(self, origin: str, path: str) -> None:
        """Copies the hints of a layer, and of those inside it, to a second place where the same object stands."""
        for known, values in list(self.hints.items()):
            if known == origin or known.startswith(f"{origin}."):
                self.hints[path + known[len(origin) :]] = dict(values)

    def fields(self, value: JuliaStruct, path: str) -> Fields:
        """The fields of a struct by name. Raises `FormatError` if no version has that number of fields."""
        struct = value.type.name
        if value.names:
            values = dict(zip(value.names, value.fields, strict=False))
        else:
            names = fields_of(struct, len(value.fields))
            if names is None:
                raise self.refuse(
                    path, struct, f"has {len(value.fields)} fields, which no known Flux version gives it"
                )
            values = dict(zip(names, value.fields, strict=True))
        if struct in ("Dense", "Diagonal", "Scale", "LayerNorm", "Maxout"):
            values = {_RENAMED.get(struct, {}).get(name, name): item for name, item in values.items()}
        return Fields(self, value.type, path, values)

    # ---- Arrays ----

    def array(self, value: Any, change: str, convert: Callable[[Array], Array]) -> Array | None:
        """The converted array of a value, or None if it is not an array. Tied values give the same object."""
        known = self._converted.get((id(value), change))
        if known is not None:
            return known[1]
        raw = as_array(value)
        if raw is None:
            return None
        raw = raw if raw.dtype.kind == "f" else raw.astype(np.float32) if raw.dtype.kind in "iub" else raw
        made = convert(raw)
        self._converted[id(value), change] = (value, made)
        return made

    # ---- Functions ----

    def activation(self, value: Any, path: str, struct: str) -> tuple[Activation, tuple[Layer, ...]]:
        """Reads an elementwise function as an activation and the layers that must follow it, usually none."""
        found = named_activation(value, self.signs.old_nnlib)
        if found is not None:
            if found.name == "hardsigmoid" and self.signs.nnlib_unsure:
                self.warn(
                    "hardσ was another function (0.2 x + 0.5) before NNlib 0.7.10; the file does not record "
                    "which one it means, and the newer one is assumed"
                )
            return found, ()
        if not isinstance(value, JuliaStruct) or not is_function(value):
            raise self.refuse(path, struct, f"has a {_kind(value)} where its activation is expected")
        try:
            layers = as_layers(interpret(value), elementwise=True)
        except FormatError as error:
            raise self.refuse(path, struct, f"has an activation that cannot be read: {error}") from error
        if any(isinstance(layer, Softmax | Flatten | Reshape | Permute) for layer in layers):
            raise self.refuse(path, struct, f"has the activation {value.type.name}, which is not elementwise")
        if not layers or not isinstance(layers[0], Activation):
            return Activation(), layers
        return layers[0], layers[1:]

    def note_function(self, value: Any, activation: Activation, path: str, name: str = "σ") -> None:
        """Records the name of a function if writing would choose another one."""
        found = path_of(value)
        usual = default_path(activation.name, (99,)), default_path(activation.name, (0, 8))
        default = same_parameters(activation.parameters, ACTIVATIONS[activation.name][1])
        if found is not None and default and found not in usual:
            self.hint(path, **{name: list(found)})
        self.note_held(value, path, name)

    def note_held(self, value: Any, path: str, name: str = "") -> None:
        """Records what a function in a field, or in the place of the layer, captured: `Flux.state` holds it."""
        held = held_by(value) if isinstance(value, JuliaStruct) else []
        if held not in ([], {}):
            self.hint(path, **{f"{name} held".lstrip(): held})


_RENAMED: dict[str, dict[str, str]] = {
    "Dense": {"W": "weight", "b": "bias"},
    "Diagonal": {"α": "scale", "β": "bias"},
    "Maxout": {"over": "layers"},
}


@dataclass
class Fields:
    """The fields of one struct, read as the types that they must have.

    Every method raises `FormatError`, with the file, the path and the struct, for a value of another type.
    """

    reader: FluxReader
    type: JuliaType
    path: str
    values: dict[str, Any]

    @property
    def struct(self) -> str:
        """The name of the struct in Flux."""
        return self.type.name

    def refuse(self, why: str) -> FormatError:
        """The error for this layer."""
        return self.reader.refuse(self.path, self.struct, why)

    def has(self, name: str) -> bool:
        """Whether the version that wrote the struct has the field."""
        return name in self.values

    def get(self, name: str) -> Any:
        """A field as it was stored, or None.

        JLD2 0.4 does not store a field that takes no bytes, such as a function; the type parameter tells its value.
        """
        if name in self.values:
            return self.values[name]
        for _, names in PARAMETERS.get(self.struct, ()):
            if name in names and len(names) == len(self.type.parameters):
                kind = self.type.parameters[names.index(name)]
                if isinstance(kind, JuliaType) and kind.path != ("Core", "Nothing"):
                    return () if kind.path == ("Core", "Tuple") else JuliaStruct(kind)
        return None

    def array(self, name: str, change: str, convert: Callable[[Array], Array], rank: int | None) -> Array:
        """A floating-point array of `rank` axes (any number if None), converted."""
        value = self.get(name)
        try:
            made = self.reader.array(value, change, convert)
        except FormatError as error:  # GPU arrays, damaged wrappers
            raise self.refuse(f"has no {name} that can be read: {error}") from error
        if made is None:
            reason = f": {value.reason}" if isinstance(value, Unreadable) else ""
            raise self.refuse(f"has a {_kind(value)} where the array {name} is expected{reason}")
        if made.dtype.kind != "f" or made.dtype.itemsize not in (2, 4, 8):
            raise self.refuse(f"has numbers of type {made.dtype} in {name}; real floating point is expected")
        if rank is not None and made.ndim != rank:
            raise self.refuse(f"has an array of {made.ndim} axes in {name} where {rank} are expected")
        return made

    def maybe(
        self, name: str, change: str, convert: Callable[[Array], Array], rank: int | None
    ) -> Array | None:
        """An array, or None where Flux stores `nothing`, `false` or `Zeros()` instead."""
        value = self.get(name)
        if value is None or value is False or (isinstance(value, np.bool_) and not value):
            return None
        if isinstance(value, JuliaStruct) and value.type.name == "Zeros" and value.type.path[0] == "Flux":
            return None
        return self.array(name, change, convert, rank)

    def whole(self, name: str) -> int:
        """A whole number."""
        value = self.get(name)
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
            raise self.refuse(f"has a {_kind(value)} where the whole number {name} is expected")
        if abs(int(value)) > 2**31:
            raise self.refuse(f"has {int(value)} for {name}, which is out of range")
        return int(value)

    def wholes(self, name: str, counts: tuple[int, ...]) -> tuple[int, ...]:
        """A tuple of whole numbers whose length is one of `counts`."""
        value = self.get(name)
        numbers = value if isinstance(value, tuple) else (value,)
        good = all(isinstance(n, (int, np.integer)) and not isinstance(n, (bool, np.bool_)) for n in numbers)
        if not good or len(numbers) not in counts or any(abs(int(n)) > 2**31 for n in numbers):
            expected = " or ".join(map(str, counts))
            raise self.refuse(
                f"has {str(value)[:40]} for {name}, where {expected} whole numbers are expected"
            )
        return tuple(int(n) for n in numbers)

    def number(self, name: str) -> float:
        """A real number."""
        value = self.get(name)
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.number)):
            raise self.refuse(f"has a {_kind(value)} where the number {name} is expected")
        return float(value)

    def children(self, name: str) -> tuple[tuple[Any, ...], tuple[str, ...], str]:
        """The layers inside, their names, and the kind of container: "tuple", "named" or "vector"."""
        value = self.get(name)
        if isinstance(value, NamedTuple):
            return tuple(value), value.names, "named"
        if isinstance(value, tuple):
            return value, (), "tuple"
        if isinstance(value, list) or (isinstance(value, np.ndarray) and value.ndim == 1):
            return tuple(value), (), "vector"
        raise self.refuse(f"has a {_kind(value)} where its layers are expected")

    def activated(self, name: str, build: Callable[[Activation], Layer]) -> Layer:
        """The layer with its activation; a Chain if the function takes more than one of our activations."""
        value = self.get(name)
        activation, rest = self.reader.activation(value, self.path, self.struct)
        self.reader.note_function(value, activation, self.path)
        made = build(activation)
        return made if not rest else Chain((made, *rest))


_WINDOWED = ("Conv", "ConvTranspose", "CrossCor", "DepthwiseConv", "MaxPool", "MeanPool")


def _rank_of_input(value: Any, depth: int = 0) -> int | None:
    """The number of axes that the first layer of a chain with a fixed number of them takes, behind functions alone."""
    value = unwrapped(value)
    if not isinstance(value, JuliaStruct) or depth > _DEEPEST:
        return None
    name, parameters = value.type.name, value.type.parameters
    if name in _WINDOWED and value.type.path[0] == "Flux":
        count = parameters[0] if parameters and isinstance(parameters[0], int) else None
        arrays = [
            array.ndim for field in value.fields if (array := _array(field)) is not None and array.ndim > 2
        ]
        return count + 2 if count in (1, 2, 3) else arrays[0] if arrays else None
    if name == "Dense":
        return 2
    if name in ("RNN", "LSTM", "GRU", "GRUv3", "Recurrence", "MultiHeadAttention"):  # of whole sequences
        return 3
    inside = value.fields[0] if name in ("Chain", "SkipConnection") and value.fields else ()
    for part in (
        (inside,) if isinstance(inside, JuliaStruct) else inside if isinstance(inside, (tuple, list)) else ()
    ):
        found = _rank_of_input(part, depth + 1)
        if found is not None or not (is_function(part) or _keeps_shape(part)):
            return found
    return None


def _keeps_shape(value: Any) -> bool:
    return isinstance(value, JuliaStruct) and value.type.name in (
        "BatchNorm",
        "Dropout",
        "AlphaDropout",
        "InstanceNorm",
    )


def _array(value: Any) -> Any:
    try:
        return as_array(value) if isinstance(value, (np.ndarray, JuliaStruct)) else None
    except FormatError:
        return None


def contents(value: JuliaStruct) -> str:
    """A sentence about the fields of an unknown struct, so that the user can read or save one of them alone."""
    if not value.fields:
        return "it has no fields"
    names = value.names or tuple(f"field {i}" for i in range(1, len(value.fields) + 1))
    parts = [f"{n} {_kind(v)}" for n, v in zip(names, value.fields, strict=False)][:12]
    more = f" and {len(value.fields) - 12} more" if len(value.fields) > 12 else ""
    return f"it holds {', '.join(parts)}{more}; a field that is a Flux layer can be read alone with --key (key=...)"


def _kind(value: Any) -> str:
    if isinstance(value, JuliaStruct):
        return value.type.name[:60]
    if isinstance(value, np.ndarray):
        return f"{'×'.join(map(str, value.shape)) or '0-d'} array of {value.dtype}"
    return "nothing" if value is None else type(value).__name__
