"""Building the structs of one version of Flux from our layers, with the exact type parameters that BSON.jl needs.

`structs_of_layers` says what each layer becomes. A function that Flux has no name for is built from those that it
has if that gives the same numbers, and refused otherwise: an anonymous function is never written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from diptych.errors import UnsupportedLayer, UsageError
from diptych.formats.bson.documents import type_of
from diptych.formats.flux.functions import (
    ARRAYS,
    FIRST_VERSIONS,
    FUNCTION_FIELDS,
    default_path,
    function,
    same_parameters,
)
from diptych.formats.flux.layouts import LAYOUTS, PARAMETERS, Version, fields_written, parse_version
from diptych.formats.julia import JuliaStruct, JuliaType, NamedTuple, Symbol
from diptych.formats.julia.arrays import as_array
from diptych.model.layers import (
    ACTIVATIONS,
    Activation,
    Array,
    Chain,
    Connection,
    Constant,
    Conv,
    ConvTranspose,
    Dense,
    Embedding,
    Flatten,
    Layer,
    MaxPool,
    MeanPool,
    MultiHeadAttention,
    Normalise,
    Pad,
    Permute,
    Recurrent,
    Reduce,
    Reshape,
    Softmax,
    child_path,
    fold,
)
from diptych.model.model import Model

__all__ = ["NEWEST", "FluxSite", "StructBuilder", "hints_of", "ranks_of", "struct_of", "version_written"]

# The release that "0.14" stands for: the last of its line, except that 0.16.11, which changed LayerNorm, must be
# named in full.
NEWEST: dict[Version, Version] = {
    (0, 12): (0, 12, 10),
    (0, 13): (0, 13, 17),
    (0, 14): (0, 14, 25),
    (0, 15): (0, 15, 2),
    (0, 16): (0, 16, 10),
}
_MUTABLE = {"BatchNorm", "InstanceNorm", "GroupNorm", "Dropout", "AlphaDropout", "Recur"}
# The layers that are functions in Flux, of which a state holds what they captured.
_FUNCTIONS = Activation | Softmax | Reshape | Pad | Flatten | Normalise
_PARAMETRIC = {"leakyrelu", "trelu", "elu", "celu", "softshrink"}
_JOINED = " joined"
LayerRule = Callable[["FluxSite", Any], JuliaStruct]


def version_written(text: str | None) -> Version:
    """The version to write for, 0.16 by default. Raises `UsageError` unless it is one of 0.12 to 0.16."""
    version = (0, 16) if text is None else parse_version(text)
    if version is None or version[:2] not in NEWEST:
        raise UsageError(
            f"flux_version {text!r} cannot be written; give one of 0.12 to 0.16, such as 0.14.25"
        )
    return NEWEST[version] if len(version) == 2 else version


@dataclass
class StructBuilder:
    """Builds the structs of one model for one version of Flux.

    Args:
        rules: How the struct of each class of layer is built.
        version: The version of Flux.
        hints: What the reader recorded, by path of the layer.
        shapes: The shape that reaches each layer, by path, where it is known.
        ranks: The number of axes of that shape, by path, where it is known.
        state: Whether only arrays matter, as for `Flux.state`: functions are then left out.
    """

    rules: dict[type[Layer], LayerRule]
    version: Version
    hints: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    ranks: dict[str, int | None] = field(default_factory=dict)
    state: bool = False
    formulas: dict[str, list[str]] = field(default_factory=dict)  # a divisor that was replaced -> its layers
    notes: list[str] = field(default_factory=list)
    _arrays: dict[Any, tuple[Array, Array]] = field(default_factory=dict)
    _mutable: dict[int, tuple[Layer, JuliaStruct]] = field(default_factory=dict)

    def layer(self, layer: Layer, path: str) -> JuliaStruct:
        """The struct of a layer. Raises `UnsupportedLayer` if this version of Flux cannot express the layer."""
        known = self._mutable.get(id(layer))
        if known is not None:
            return known[1]
        if self.state:
            held = FluxSite(self, path, layer).held("")
            if held.names or isinstance(layer, _FUNCTIONS):
                return held
        rule = self.rules.get(type(layer))
        if rule is None:
            raise self.refuse(layer, path, "it does not have this layer")
        made = rule(FluxSite(self, path, layer), layer)
        dims = self.hints.get(path, {}).get("weight_norm")
        if isinstance(dims, int) and self.version >= (0, 16, 1) and "weight" in made.names:
            made = _with_weight_norm(made, dims, self.version)
        if made.type.name in _MUTABLE:
            self._mutable[id(layer)] = (layer, made)
        return made

    def refuse(self, layer: Layer, path: str, why: str) -> UnsupportedLayer:
        """The error for the layer at `path`."""
        name = ".".join(map(str, self.version))
        return UnsupportedLayer(f"{path} ({type(layer).__name__})", f"Flux {name}", why)

    def remarks(self) -> list[str]:
        """Sentences about what this version of Flux computes slightly differently, and what the user should know."""
        name = ".".join(map(str, self.version))
        return [
            f"{', '.join(layers)}: {formula} in Flux {name}; the divisors differ by at most eps, so the outputs for "
            "samples with a small deviation differ slightly; diptych compare shows by how much"
            for formula, layers in self.formulas.items()
        ] + self.notes

    def note(self, text: str) -> None:
        """Adds a remark unless it was added before."""
        if text not in self.notes:
            self.notes.append(text)

    def array(self, array: Array, change: str, convert: Callable[[Array], Array]) -> Array:
        """The converted array. Views of the same memory give the same object, so that tied weights stay tied."""
        place = array.__array_interface__
        key = (place["data"][0], place["strides"], array.shape, array.dtype.str, change)
        if key not in self._arrays:
            self._arrays[key] = (array, convert(array))
        return self._arrays[key][1]


@dataclass
class FluxSite:
    """The place where a layer is built: its path, and access to everything that is known about it."""

    builder: StructBuilder
    path: str
    layer: Layer

    @property
    def version(self) -> Version:
        """The version of Flux to build for."""
        return self.builder.version

    @property
    def hints(self) -> Mapping[str, Any]:
        """What the reader recorded about this layer; empty for a model that was not read from a Flux file."""
        return self.builder.hints.get(self.path, {})

    @property
    def rank(self) -> int | None:
        """The number of axes of the layer's input, with the batch, or None if it is not known."""
        return self.builder.ranks.get(self.path)

    @property
    def joined_rank(self) -> int | None:
        """The number of axes of the values that the layer joins, which its branches may have changed."""
        return self.builder.ranks.get(f"{self.path}{_JOINED}")

    def refuse(self, why: str) -> UnsupportedLayer:
        """The error for this layer."""
        return self.builder.refuse(self.layer, self.path, why)

    def child(self, index: int) -> str:
        """The path of the child at `index`."""
        return child_path(self.path, index)

    def array(self, array: Array, change: str, convert: Callable[[Array], Array]) -> Array:
        """The converted array, see `StructBuilder.array`."""
        return self.builder.array(array, change, convert)

    def bias(self, array: Array | None, convert: Callable[[Array], Array] | None = None) -> Any:
        """The bias, or what stands for a missing one: a struct `Zeros` up to 0.12, `false` since then."""
        if array is not None:
            return (
                self.array(array, "reversed", convert) if convert else self.array(array, "same", lambda a: a)
            )
        return JuliaStruct(JuliaType(("Flux", "Zeros"))) if self.version < (0, 13) else False

    def struct(self, name: str, **values: Any) -> JuliaStruct:
        """A struct with the fields that this version gives it; other entries of `values` are ignored."""
        if fields_written(name, self.version) is None:
            first = ".".join(map(str, LAYOUTS[name][-1][0]))
            raise self.refuse(f"{name} exists only since Flux {first}")
        return struct_of(name, self.version, values)

    def held(self, name: str) -> JuliaStruct:
        """A function of which a state holds what the one that was read had captured, in a field or as the layer."""
        noted = self.hints.get(f"{name} held".lstrip(), [])
        if self.version < (0, 14) or not noted:
            return function("Base", "identity")
        if noted == ARRAYS:
            self.builder.note(
                f"layer {self.path} was a function that captured arrays or layers: Flux.state holds these since Flux "
                "0.15, but this file does not, and loadmodel! refuses it for a model with that function"
            )
            return function("Base", "identity")
        return _holding(noted)  # type: ignore[no-any-return]

    def functions(self, activation: Activation, hint: str = "σ") -> list[JuliaStruct]:
        """Named functions that compute the activation when they are applied one after the other."""
        if self.builder.state:
            return [self.held(hint)]
        name, parameters = activation.name, activation.parameters
        default = same_parameters(parameters, ACTIVATIONS[name][1])
        if name in ("clamp", "hardtanh") and not (name == "hardtanh" and default):
            bounds = (("max", parameters[0], -np.inf), ("min", parameters[1], np.inf))
            return [_fixed(("Base", f), bound) for f, bound, none in bounds if bound != none]
        if name == "affine":
            steps = (("*", parameters[0], 1.0), ("+", parameters[1], 0.0))
            return [_fixed(("Base", f), number) for f, number, neutral in steps if number != neutral]
        if name == "power":
            return [_fixed(("Base", "^"), parameters[0])]
        if name == "hardsigmoid" and not default:
            four = (("*", parameters[0]), ("+", 0.5), ("max", 0.0), ("min", 1.0))
            return [_fixed(("Base", f), number) for f, number in four]
        noted = self.hints.get(hint)
        if noted and default and self.version >= max((0, 13), FIRST_VERSIONS.get(noted[-1], (0,))):
            return [function(*noted)]
        path = default_path(name, self.version)
        if path is None:
            raise self.refuse(f"its NNlib does not have {name}")
        if default:
            return [function(*path)]
        if name not in _PARAMETRIC:
            raise self.refuse(f"{name} takes no parameters there")
        return [_fixed(path, parameters[0])]

    def activated(self, activation: Activation, build: Callable[[JuliaStruct], JuliaStruct]) -> JuliaStruct:
        """The struct that `build` gives for the activation; a Chain if that takes more than one function."""
        if activation.name == "quickgelu" and not self.builder.state:
            return self.chain(build(function("Base", "identity")), self.gated_by_sigmoid(1.702))
        functions = self.functions(activation)
        if len(functions) == 1:
            return build(functions[0])
        return self.chain(build(function("Base", "identity")), *map(broadcast, functions))

    def gated_by_sigmoid(self, factor: float) -> JuliaStruct:
        """x times the sigmoid of a multiple of x, for whole arrays."""
        gate = self.chain(
            broadcast(_fixed(("Base", "*"), factor)),
            broadcast(function(*(default_path("sigmoid", self.version) or ()))),
        )
        return self.struct("SkipConnection", layers=gate, connection=self.dotted("*"))

    def dotted(self, name: str) -> JuliaStruct:
        """`Base.BroadcastFunction(name)`, which Julia has since 1.6."""
        if self.version < (0, 12, 4):
            raise self.refuse(f"its Julia may lack BroadcastFunction for {name}; write for 0.12.4")
        inner = function("Base", name)
        kind = JuliaType(("Base", "Broadcast", "BroadcastFunction"), (kind_of(inner),))
        return JuliaStruct(kind, [inner], FUNCTION_FIELDS["BroadcastFunction"])

    def chain(self, *parts: JuliaStruct) -> JuliaStruct:
        """A Chain of several structs; one struct alone is returned unchanged."""
        return parts[0] if len(parts) == 1 else self.struct("Chain", layers=tuple(parts))


def _holding(noted: Any) -> Any:
    """What a state holds of a function, as a struct with these fields."""
    if isinstance(noted, Mapping):
        return JuliaStruct(JuliaType(("Core", "Function")), list(map(_holding, noted.values())), tuple(noted))
    return tuple(map(_holding, noted)) if isinstance(noted, list) else noted


def _fixed(path: tuple[str, ...], number: float) -> JuliaStruct:
    """`Base.Fix2(f, number)`, which computes x -> f(x, number). A whole exponent stays one: (-8)^3, not (-8)^3.0."""
    whole = path[-1] == "^" and float(number).is_integer()
    return fix("Fix2", function(*path), int(number) if whole else np.float32(number))


def fix(name: str, first: Any, second: Any) -> JuliaStruct:
    """`Base.Fix1(f, x)` or `Base.Fix2(f, x)`, as `name` says."""
    kind = JuliaType(("Base", name), (kind_of(first), kind_of(second)))
    return JuliaStruct(kind, [first, second], FUNCTION_FIELDS[name])


def broadcast(value: JuliaStruct) -> JuliaStruct:
    """`Base.Fix1(broadcast, f)`, which applies a function of numbers to every element of an array."""
    return fix("Fix1", function("Base", "Broadcast", "broadcast"), value)


def _with_weight_norm(made: JuliaStruct, dims: int, version: Version) -> JuliaStruct:
    """The layer inside of `WeightNorm`, as it was read: with a length for which its direction is the weight itself.

    Args:
        made: The struct of the layer.
        dims: The axis of its weight, counted from 1, along which squares are summed; 0 for all axes.
        version: The version of Flux.
    """
    weight = as_array(made.fields[made.names.index("weight")])
    if weight is None or dims > weight.ndim:
        return made
    axes = tuple(range(weight.ndim)) if dims == 0 else (dims - 1,)
    squares = np.square(weight, dtype=np.float64).sum(axis=axes, keepdims=True)
    length = np.sqrt(squares + np.finfo(weight.dtype).eps).astype(weight.dtype)
    values = {
        "layer": made,
        "g": np.asfortranarray(length) if dims else length.reshape(())[()],
        "which": Symbol("weight"),
        "dims": dims or JuliaStruct(JuliaType(("Base", "Colon"))),
    }
    return struct_of("WeightNorm", version, values)


def struct_of(name: str, version: Version, values: Mapping[str, Any]) -> JuliaStruct:
    """A Flux struct with the fields and type parameters of `version`."""
    names = fields_written(name, version) or ()
    parameters = next((p for first, p in PARAMETERS.get(name, ()) if version >= first), ())
    given = tuple(_parameter(p, name, values) for p in parameters)
    return JuliaStruct(JuliaType(("Flux", name), given), [values[n] for n in names], names)


def _parameter(parameter: str, name: str, values: Mapping[str, Any]) -> Any:
    if parameter == "mode":
        return values["mode"]
    if parameter == "return_state":
        return False
    if parameter in ("N", "M", "S"):
        sizes = values["out" if name.startswith("Adaptive") else "size" if name == "LayerNorm" else "pad"]
        if parameter == "M":
            return len(sizes)
        if parameter == "S":
            return len(sizes) + 2
        return len(values.get("stride", sizes))
    return (
        values["layers type"]
        if parameter == "layers" and "layers type" in values
        else kind_of(values[parameter])
    )


def kind_of(value: Any) -> JuliaType:
    """The Julia type of a value. It is a new object each time, because BSON.jl stores a repeated one as a reference."""
    if isinstance(value, NamedTuple):
        names = tuple(Symbol(name) for name in value.names)
        return JuliaType(("Core", "NamedTuple"), (names, kind_of(tuple(value))))
    if isinstance(value, tuple):
        return JuliaType(("Core", "Tuple"), tuple(kind_of(item) for item in value))
    made: JuliaType = _copy(value.type if isinstance(value, JuliaStruct) else type_of(value))
    return made


def _copy(kind: Any) -> Any:
    if not isinstance(kind, JuliaType):
        return kind
    return JuliaType(kind.path, tuple(_copy(p) for p in kind.parameters), kind.definition)


def hints_of(model: Model, weight_norms: bool = False) -> dict[str, Mapping[str, Any]]:
    """What the reader recorded, by path of the layer; empty for a model that was not read from a Flux file.

    Args:
        model: The model.
        weight_norms: Whether it counts that a layer was inside of `WeightNorm`, for writing it so again.
    """
    found = model.source.extras.get("flux")
    noted = found.get("layers") if isinstance(found, Mapping) else None
    hints = {k: v for k, v in noted.items() if isinstance(v, Mapping)} if isinstance(noted, Mapping) else {}
    if weight_norms:
        return hints
    return {k: {n: each for n, each in v.items() if n != "weight_norm"} for k, v in hints.items()}


# ---- The number of axes ------------------------------------------------------------------------------


def ranks_of(model: Model) -> dict[str, int | None]:
    """The number of axes of each layer's input, with the batch, by path; None where it is not known.

    That of what a container joins stands under its path and `_JOINED`.
    """
    entry = _entry(model.layers) if model.input_shape is None else len(model.input_shape) + 1
    found: dict[str, int | None] = {"": entry}

    def leaf(layer: Layer, rank: int | None, path: str) -> int | None:
        return _rank_behind(layer, rank)

    def join(connection: Connection, ranks: Sequence[int | None], path: str) -> int | None:
        joined = next((rank for rank in ranks if rank is not None), None)
        found[f"{path}{_JOINED}"] = joined
        return joined

    def enter(path: str, layer: Layer, rank: int | None) -> None:
        found[path] = rank

    fold(model.layers, entry, leaf, join, enter=enter)
    return found


def _entry(layer: Layer) -> int | None:
    """The number of axes that the first layer with a fixed number of them requires."""
    for child in (layer, *layer.children) if not isinstance(layer, Chain) else layer.layers:
        if isinstance(child, Conv | ConvTranspose):
            return child.weight.ndim
        if isinstance(child, MaxPool | MeanPool):
            return len(child.kernel) + 2
        if isinstance(child, Dense):
            return 2  # (N, features), unless the model records another input shape
        if isinstance(child, Permute):
            return len(child.order)
        if isinstance(child, MultiHeadAttention):
            return 3
        if isinstance(child, Flatten | Reshape | Embedding | Reduce | Constant | Recurrent):
            return None
        inside = _entry(child) if child is not layer and child.children else None
        if inside is not None:
            return inside
    return None


def _rank_behind(layer: Layer, rank: int | None) -> int | None:
    if isinstance(layer, Conv | ConvTranspose):
        return layer.weight.ndim
    if isinstance(layer, Flatten):
        return 2
    if isinstance(layer, Reshape):
        return len(layer.shape) + 1
    if isinstance(layer, Embedding) and rank is not None:
        return rank + 1 if layer.reduction == "none" else rank
    if isinstance(layer, Permute):
        return len(layer.order)
    if isinstance(layer, Constant):
        return layer.value.ndim + 1
    if isinstance(layer, Reduce) and rank is not None and not layer.keep:
        return rank - len(layer.axes)
    return rank
