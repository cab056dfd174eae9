"""Filling an architecture with weights from a file that holds weights alone.

Such files hold one of three things: `Flux.state(model)`, a tree of named tuples with the fields of every struct;
`Flux.params(model)`, a list of arrays in the order of the layers, each weight before its bias and the shift (β) of
a BatchNorm before its scale (γ); or `Flux.destructure(model)`, the same numbers in one long vector.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from diptych.errors import FormatError, UnsupportedLayer
from diptych.formats.flux.layouts import LAYOUTS, Version
from diptych.formats.flux.reading import FluxReader
from diptych.formats.flux.reading_functions import function_layer
from diptych.formats.flux.reading_layers import RULES as READING
from diptych.formats.flux.reading_layers import weight_of_norm
from diptych.formats.flux.structs import NEWEST, StructBuilder, hints_of, ranks_of
from diptych.formats.flux.structs_of_layers import RULES as BUILDING
from diptych.formats.flux.versions import Signs
from diptych.formats.julia import JuliaDict, JuliaStruct, NamedTuple, Symbol
from diptych.formats.julia.arrays import as_array, parameters_in_order
from diptych.model.layers import (
    Array,
    BatchNorm,
    Chain,
    Container,
    GroupNorm,
    Layer,
    Parallel,
    SkipConnection,
    child_path,
    walk,
)
from diptych.model.model import Model

__all__ = ["Weights", "filled", "find_weights"]

_DEEPEST = 100  # a file that is loaded and saved again in a loop gains one dictionary each time
# The trainable fields, in the order of `Flux.params`, which leaves out statistics.
_TRAINABLE = ("weight", "scale", "β", "γ", "bias", "diag")
# The field names by which a state is recognised even if it holds no array, as that of a Chain of pools.
_STATES = {names for layouts in LAYOUTS.values() for _, names in layouts if names}
_KEYS = ("model_state", "state", "weights", "params", "parameters", "ps", "p")


class Weights:
    """Weights found in a file: the `tree` of a `Flux.state`, or `arrays` in order. `text` describes them."""

    def __init__(self, text: str, tree: Any = None, arrays: list[Array] | None = None) -> None:
        self.text, self.tree, self.arrays = text, tree, arrays


def find_weights(values: Mapping[str, Any]) -> Weights | None:
    """Looks for weights under the top keys of a file that does not hold a model; None if there are none."""
    keys = [key for key in _KEYS if key in values] + [key for key in values if key not in _KEYS]
    for key in keys:
        found = _weights(values[key], key)
        if found is not None:
            return found
    return _named_arrays(values, "the file")


def _weights(value: Any, key: str) -> Weights | None:
    for _ in range(_DEEPEST):
        if isinstance(value, (dict, JuliaDict)) and len(value) == 1:
            key = str(next(iter(value)))
            value = value[next(iter(value))]
    state = isinstance(value, NamedTuple) and (key == "model_state" or tuple(value.names) in _STATES)
    if (
        key == "model_state" and isinstance(value, tuple) and not value
    ):  # that of an Upsample alone, for example
        return Weights(f"an empty state under {key}", tree=value)
    if state or (isinstance(value, NamedTuple) and _holds_array(value)):
        return Weights(f"a state under {key}", tree=value)
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind == "f" and key in _KEYS:
        return Weights(f"a vector of {value.size} numbers under {key}", arrays=[value])
    ordered = parameters_in_order(value)
    listed = ordered if ordered is not None else value if isinstance(value, (list, tuple)) else None
    if listed:
        arrays = [as_array(item) for item in listed]
        good = [a for a in arrays if a is not None and a.dtype.kind == "f"]
        if len(good) == len(arrays):
            return Weights(f"a list of {len(good)} arrays under {key}", arrays=good)
    if isinstance(value, (dict, JuliaDict)):
        return _named_arrays({_text(k): value[k] for k in value}, key)
    return None


def _text(key: Any) -> str:
    return key.name if isinstance(key, Symbol) else str(key)


def _holds_array(value: Any, depth: int = 0) -> bool:
    if isinstance(value, np.ndarray):
        return bool(value.dtype.kind == "f")
    inside = value if isinstance(value, (tuple, list)) else ()
    return depth < 20 and any(_holds_array(item, depth + 1) for item in inside)


def _named_arrays(values: Mapping[str, Any], key: str) -> Weights | None:
    """Arrays named like "layer1_weight" or "layers/1/weight", in natural order, each weight before its bias."""
    arrays = {k: v for k, v in values.items() if isinstance(v, np.ndarray) and v.dtype.kind == "f"}
    if not arrays or len(arrays) < len(values):
        return None
    ordered = [arrays[k] for k in sorted(arrays, key=_natural)]
    return Weights(f"{len(ordered)} arrays by name in {key}", arrays=ordered)


_ORDER = (("weight", 0), ("kernel", 0), ("W", 0), ("β", 0), ("γ", 1), ("bias", 1), ("b", 1))


def _natural(key: str) -> tuple[Any, ...]:
    parts = tuple(int(p) if p.isdigit() else -1 for p in re.split(r"(\d+)", key) if p.isdigit())
    rank = next((order for name, order in _ORDER if key.endswith(name)), 2)
    return parts[:20], rank, key


# ---- Filling ------------------------------------------------------------------------------------------


def filled(architecture: Model, weights: Weights, name: str) -> tuple[Chain, list[str]]:
    """Fills an architecture with weights.

    Which structs a layer of ours becomes depends on the version of Flux: the newest version that fits is taken.

    Args:
        architecture: The model whose arrays are replaced.
        weights: The arrays, from `find_weights`.
        name: The file, for messages.

    Returns:
        The layers with the new arrays, and warnings for the user.

    Raises:
        FormatError: If the weights do not fit, with the path of the first layer that differs.
    """
    refusals: list[FormatError | UnsupportedLayer] = []
    for version in reversed(NEWEST):
        try:
            return _filled(architecture, weights, name, version)
        except (FormatError, UnsupportedLayer) as error:
            refusals.append(error)
    raise next((error for error in refusals if isinstance(error, FormatError)), refusals[0])


def _filled(architecture: Model, weights: Weights, name: str, version: Version) -> tuple[Chain, list[str]]:
    filling = _Filling(architecture, weights, name, NEWEST[version])
    layers, tree = architecture.layers, weights.tree
    bare = isinstance(tree, tuple) and len(layers.layers) == 1 and not _is_of_chain(tree, layers.layers[0])
    made = (
        replace(layers, layers=(filling.layer(layers.layers[0], tree, "0"),))
        if bare
        else filling.chain(layers, tree)
    )
    filling.finish()
    return made, filling.warnings


def _is_of_chain(tree: tuple[Any, ...], only: Layer) -> bool:
    """Whether a state is that of a Chain of one layer, rather than of the layer alone."""
    if not isinstance(tree, NamedTuple) or tree.names != ("layers",):
        return False
    inside = tree[0]
    branches = isinstance(only, Parallel) and isinstance(inside, tuple) and len(inside) == len(only.branches)
    return not branches or len(inside) == 1


class _Filling:
    def __init__(self, architecture: Model, weights: Weights, name: str, version: Version) -> None:
        self.name, self.weights, self.architecture = name, weights, architecture
        self.builder = StructBuilder(
            BUILDING, version, hints_of(architecture), {}, ranks_of(architecture), state=True
        )
        self.warnings: list[str] = []
        self.done: dict[int, tuple[Layer, Layer]] = {}
        self.given: dict[int, tuple[Array, Array]] = {}  # an array of the architecture -> the file's
        arrays = weights.arrays or []
        self.queue: Iterator[Array] = iter(arrays)
        flat = len(arrays) == 1 and arrays[0].ndim == 1 and len(architecture.weights()) > 1
        self.flat: Array | None = arrays[0] if flat else None

    def refuse(self, where: str, why: str) -> FormatError:
        return FormatError(
            f"{self.name} does not fit the architecture at {where}: {why}; give the architecture it was trained with"
        )

    def next_array(self, own: Array) -> Array | None:
        """The next array of the list, or the next stretch of the one long vector of `destructure`."""
        if self.flat is None:
            return next(self.queue, None)
        if self.flat.size < own.size:
            return None
        found, self.flat = self.flat[: own.size], self.flat[own.size :]
        return found.reshape(own.shape, order="F")

    def chain(self, layer: Chain, state: Any, path: str = "") -> Chain:
        inner = self.part(state, "layers", path) if state is not None else None
        children = self.several(layer.layers, inner, path)
        return replace(layer, layers=children)

    def several(self, layers: tuple[Layer, ...], states: Any, path: str) -> tuple[Layer, ...]:
        if states is None:
            return tuple(self.layer(child, None, child_path(path, i)) for i, child in enumerate(layers))
        if not isinstance(states, (tuple, list)) or len(states) != len(layers):
            size = len(states) if isinstance(states, (tuple, list)) else 0
            raise self.refuse(
                path or "the model", f"the file has {size} layers there, the architecture {len(layers)}"
            )
        pairs = zip(layers, states, strict=True)
        return tuple(self.layer(child, state, child_path(path, i)) for i, (child, state) in enumerate(pairs))

    def part(self, state: Any, name: str, path: str) -> Any:
        if isinstance(state, NamedTuple) and name in state.names:
            return state.as_dict()[name]
        raise self.refuse(path or "the model", f"the file does not have {name} there")

    def layer(self, layer: Layer, state: Any, path: str) -> Layer:
        known = self.done.get(id(layer))
        if known is not None:
            return known[1]
        made: Layer
        if isinstance(layer, SkipConnection):
            inner = self.part(state, "layers", path) if state is not None else None
            made = replace(layer, inner=self.layer(layer.inner, inner, child_path(path, 0)))
        elif isinstance(layer, Container):
            inner = self.part(state, "layers", path) if state is not None else None
            made = layer.with_children(self.several(layer.children, inner, path))
        else:
            made = self.leaf(layer, state, path) if layer.arrays else layer
        self.done[id(layer)] = (layer, made)
        return made

    def leaf(self, layer: Layer, state: Any, path: str) -> Layer:
        struct, where = self.builder.layer(layer, path), f"layer {path} ({type(layer).__name__})"
        self.fill(struct, self.plain(state, where), where)
        reader = FluxReader(READING, Signs(), function_layer, self.name)
        arrays = _arrays_for(layer, reader.layer(struct, path))
        if arrays is None:
            raise self.refuse(where, "Flux does not have this layer")
        return replace(layer, **arrays)

    def plain(self, state: Any, where: str) -> Any:
        """The state of a layer. If a WeightNorm is around it, its weight is computed first."""
        if not isinstance(state, NamedTuple) or tuple(state.names) != LAYOUTS["WeightNorm"][0][1]:
            return state
        parts = state.as_dict()
        v, g = as_array(self.part(parts["layer"], "weight", where)), parts["g"]
        weight = weight_of_norm(
            v, np.asarray(g) if isinstance(g, np.floating) else as_array(g), parts["dims"]
        )
        if weight is None:
            raise self.refuse(
                where, "its WeightNorm does not normalise a weight along one axis or all of them"
            )
        self.warn("WeightNorm was computed once: the model holds the resulting weights instead of g and v")
        inner = parts["layer"]
        pairs = zip(inner.names, inner, strict=True)
        return NamedTuple(inner.names, [weight if name == "weight" else value for name, value in pairs])

    def fill(self, struct: JuliaStruct, state: Any, where: str) -> None:
        """Replaces the arrays of a struct of the architecture with those of the file."""
        if struct.type.name == "Chain":  # one layer of ours is several in Flux
            parts = struct.fields[0]
            states = self.part(state, "layers", where) if state is not None else (None,) * len(parts)
            if not isinstance(states, (tuple, list)) or len(states) != len(parts):
                raise self.refuse(where, f"in Flux it is {len(parts)} layers, which the file does not have")
            for part, inner in zip(parts, states, strict=True):
                self.fill(part, inner, where)
            return
        for name in (n for n in (*_TRAINABLE, "μ", "σ²") if n in struct.names):
            index = struct.names.index(name)
            own = struct.fields[index]
            if isinstance(own, JuliaStruct) and own.type.name in ("Transpose", "Adjoint"):
                own = own.fields[0].T
            if isinstance(own, JuliaStruct) and name == "diag":
                inner = self.part(state, name, where) if state is not None else None
                self.fill(own, inner, where)
            elif isinstance(own, np.ndarray):
                struct.fields[index] = self.array(own, name, state, where)
        if state is None and _tracks(struct):
            self.warn(
                "the file lists parameters without running statistics: BatchNorm keeps those of the architecture"
            )

    def array(self, own: Array, name: str, state: Any, where: str) -> Array:
        if id(own) in self.given:
            return self.given[id(own)][1]
        if state is None and name in ("μ", "σ²"):
            return own
        if state is not None:
            value = self.part(state, name, where)
            found = np.zeros_like(own) if value is False and name == "bias" else as_array(value)
            while found is None and isinstance(value, tuple) and len(value) == 1:  # the parent of a Transpose
                value = value[0]
                found = as_array(value)
                found = None if found is None else found.T
        else:
            found = self.next_array(own)
        if found is None:
            raise self.refuse(where, f"the file does not have an array for its {name}")
        if (
            found.shape != own.shape
            and found.size == own.size
            and found.ndim == own.ndim
            and own.shape[2:3] == (1,)
        ):
            found = found.reshape(own.shape, order="F")  # DepthwiseConv of 0.12 and before
        if found.shape != own.shape:
            raise self.refuse(
                where, f"its {name} has the shape {_sizes(own)}, the array in the file {_sizes(found)}"
            )
        self.given[id(own)] = (own, found)
        return found

    def warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)

    def finish(self) -> None:
        left = sum(1 for _ in self.queue) if self.flat is None else self.flat.size
        if left:
            kind = "arrays" if self.flat is None else "numbers"
            raise self.refuse("its end", f"the file has {left} {kind} more than the architecture")


def _arrays_for(layer: Layer, read: Layer) -> dict[str, Array] | None:
    """The arrays for `layer` from the layer that its struct was read as, or None if the two do not correspond."""
    same = next((found for _, found in (("", read), *walk(read)) if type(found) is type(layer)), None)
    if same is not None:
        return {name: getattr(same, name) for name in layer.arrays}
    # In Flux, a GroupNorm with statistics becomes a BatchNorm with the statistics of each channel's group.
    if isinstance(layer, GroupNorm) and isinstance(read, BatchNorm) and read.mean is not None:
        each = len(read.mean) // layer.groups
        return {
            name: getattr(read, name)[::each] if name in ("mean", "variance") else getattr(read, name)
            for name in layer.arrays
        }
    return None


def _tracks(struct: JuliaStruct) -> bool:
    return "σ²" in struct.names and isinstance(struct.fields[struct.names.index("σ²")], np.ndarray)


def _sizes(array: Array) -> str:
    return "×".join(map(str, array.shape))
