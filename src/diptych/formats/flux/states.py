"""Filling an architecture with weights from a file that holds weights alone.

`finding.py` says what such files hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from diptych.errors import FormatError, UnsupportedLayer
from diptych.formats.flux.document_writing import struct_of_model
from diptych.formats.flux.finding import Weights, parts_of
from diptych.formats.flux.layouts import LAYOUTS, Version
from diptych.formats.flux.reading import FluxReader
from diptych.formats.flux.reading_functions import function_layer
from diptych.formats.flux.reading_layers import RULES as READING
from diptych.formats.flux.reading_layers import weight_of_norm
from diptych.formats.flux.sizes import compared
from diptych.formats.flux.structs import NEWEST, StructBuilder, hints_of, ranks_of
from diptych.formats.flux.structs_of_layers import RULES as BUILDING
from diptych.formats.flux.versions import Signs
from diptych.formats.joining import Joined, cell_of, fits, with_arrays
from diptych.formats.julia import JuliaStruct, NamedTuple
from diptych.formats.julia.arrays import as_array
from diptych.model.layers import (
    Array,
    BatchNorm,
    Chain,
    Container,
    GroupNorm,
    Layer,
    Parallel,
    Recurrent,
    SkipConnection,
    child_path,
    walk,
)
from diptych.model.model import Model

__all__ = ["filled"]

# The trainable fields, in the order of `Flux.params`, which leaves out statistics.
_CELLS = ("Wi", "Wh", "bias", "b", "Wh_h̃", "h", "c", "state0")
_TRAINABLE = ("weight", "scale", "β", "γ", *_CELLS)
# Lux has the scale of a norm before its shift.
_TRAINABLE_IN_LUX = ("weight", "γ", "β", "bias", "scale")
# Structs inside a layer that hold weights of it.
_INSIDE = ("diag", "cell", "q_proj", "k_proj", "v_proj", "out_proj")
_WITHOUT_STATISTICS = (
    "the file lists parameters without running statistics: BatchNorm keeps those of the architecture"
)


# ---- Filling ------------------------------------------------------------------------------------------


def filled(architecture: Model, weights: Weights, name: str) -> tuple[Chain, list[str]]:
    """Fills an architecture with weights.

    A state is matched layer by layer at first. If its nesting differs, as between a Chain of Flux and a module of
    PyTorch, where activations are layers of their own, its layers are taken in order. Which structs a layer of ours
    becomes depends on the version of Flux: the newest version that fits is taken.

    Args:
        architecture: The model whose arrays are replaced.
        weights: The arrays, from `find_weights`.
        name: The file, for messages.

    Returns:
        The layers with the new arrays, and warnings for the user.

    Raises:
        FormatError: If the weights do not fit, with the shapes on both sides and the first that differs.
    """
    refusals: list[FormatError | UnsupportedLayer] = []
    for in_order in (False, True) if weights.tree is not None else (False,):
        refusals = []
        for version in reversed(NEWEST):
            try:
                return _filled(architecture, weights, name, version, in_order)
            except (FormatError, UnsupportedLayer) as error:
                refusals.append(error)
    if isinstance(weights.tree, tuple):
        for version in reversed(NEWEST):
            with suppress(FormatError, UnsupportedLayer):
                return _as_written(architecture, weights.tree, name, version), []
    first = next((error for error in refusals if isinstance(error, FormatError)), refusals[0])
    raise FormatError(f"{first}; {compared(architecture, weights)}") from first


def _as_written(architecture: Model, tree: Any, name: str, version: Version) -> Chain:
    """The architecture as Diptych writes it for Flux, filled and read again: graphs, which have other structs there."""
    struct = struct_of_model(architecture, ".".join(map(str, NEWEST[version])))
    before = _arrays_of(struct, version, name)
    _pour(struct, tree, name)
    after = _arrays_of(struct, version, name)
    own = iter(architecture.weights().items())
    key, array = next(own, ("", None))
    given: dict[str, Array] = {}
    for written, found in zip(before, after, strict=True):
        if array is not None and np.array_equal(written, array):
            given[key] = found
            key, array = next(own, ("", None))
        elif not np.array_equal(written, found):  # a matrix that stands for indices
            raise FormatError(f"{name} does not fit the architecture")
    if array is not None:
        raise FormatError(f"{name} does not fit the architecture at {key}")
    return _with_arrays(architecture.layers, "", given)  # type: ignore[return-value]


def _arrays_of(struct: JuliaStruct, version: Version, name: str) -> list[Array]:
    layer = FluxReader(READING, Signs(exact=NEWEST[version]), function_layer, name).layer(struct, "")
    return list(Model(layer if isinstance(layer, Chain) else Chain((layer,))).weights().values())


def _with_arrays(layer: Layer, path: str, given: dict[str, Array]) -> Layer:
    """A layer with the arrays that `given` holds under the paths of its own."""
    arrays = {name: given[f"{path}.{name}"] for name in layer.arrays}
    inside = [_with_arrays(child, child_path(path, i), given) for i, child in enumerate(layer.children)]
    made = layer.with_children(inside) if inside else layer
    return replace(made, **arrays) if arrays else made


def _pour(value: Any, state: Any, name: str) -> None:
    """Puts the arrays of a state into a struct of the same fields."""
    if isinstance(value, JuliaStruct) and value.names and value.type.path[0] == "Flux":
        if value.type.name == "Upsample":
            return
        if not isinstance(state, NamedTuple) or state.names != value.names:
            raise FormatError(f"{name} has other fields than a {value.type.name} of the architecture")
        for index, (own, found) in enumerate(zip(value.fields, state, strict=True)):
            if not isinstance(own, np.ndarray):
                _pour(own, found, name)
                continue
            array = as_array(found)
            if array is None or array.shape != own.shape:
                raise FormatError(f"{name} has an array of another size for a {value.type.name}")
            value.fields[index] = array
    elif isinstance(value, tuple):
        if not isinstance(state, tuple) or len(state) != len(value):
            raise FormatError(f"{name} has another number of layers than the architecture")
        for own, found in zip(value, state, strict=True):
            _pour(own, found, name)


def _filled(
    architecture: Model, weights: Weights, name: str, version: Version, in_order: bool
) -> tuple[Chain, list[str]]:
    filling = _Filling(architecture, weights, name, NEWEST[version])
    layers, tree = architecture.layers, weights.tree
    if in_order:
        filling.parts = iter(parts_of(tree))
        tree = None
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
        self.parts: Iterator[NamedTuple] | None = None  # the layers of a state, taken in order
        self.trainable = _TRAINABLE_IN_LUX if weights.lux else _TRAINABLE
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
        if not any(inside.arrays for _, inside in (("", layer), *walk(layer))):
            made = layer
        elif isinstance(layer, SkipConnection):
            inner = self.part(state, "layers", path) if state is not None else None
            made = replace(layer, inner=self.layer(layer.inner, inner, child_path(path, 0)))
        elif isinstance(layer, Container):
            inner = self.part(state, "layers", path) if state is not None else None
            made = layer.with_children(self.several(layer.children, inner, path))
        else:
            made = self.leaf(layer, state, path)
        self.done[id(layer)] = (layer, made)
        return made

    def leaf(self, layer: Layer, state: Any, path: str) -> Layer:
        where = f"layer {path} ({type(layer).__name__})"
        taken = self.parts is not None and isinstance(layer, Recurrent)
        if taken:
            state = self.next_part(where)
        cell = _of_lux(state) if isinstance(layer, Recurrent) else None
        if cell is not None:
            if not fits(cell, layer):
                raise self.refuse(where, f"the file has the weights of another {cell.kind} of Lux")
            return replace(layer, **with_arrays(cell, layer))
        struct = self.builder.layer(layer, path)
        if self.parts is not None and not taken and struct.type.name != "Chain":
            state = self.next_part(where)
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

    def next_part(self, where: str) -> NamedTuple:
        """The next layer with weights in the state."""
        found = next(self.parts, None) if self.parts is not None else None
        if found is None:
            raise self.refuse(where, "the file has no more layers with weights")
        return found

    def fill(self, struct: JuliaStruct, state: Any, where: str) -> None:
        """Replaces the arrays of a struct of the architecture with those of the file."""
        if struct.type.name == "Chain":  # one layer of ours is several in Flux
            parts = struct.fields[0]
            if self.parts is not None:
                for part in parts:
                    if isinstance(part, JuliaStruct) and _has_arrays(part):
                        self.fill(part, self.plain(self.next_part(where), where), where)
                return
            states = self.part(state, "layers", where) if state is not None else (None,) * len(parts)
            if not isinstance(states, (tuple, list)) or len(states) != len(parts):
                raise self.refuse(where, f"in Flux it is {len(parts)} layers, which the file does not have")
            for part, inner in zip(parts, states, strict=True):
                self.fill(part, inner, where)
            return
        state = _with_names_of(struct, state)
        for name in (n for n in (*self.trainable, *_INSIDE, "μ", "σ²") if n in struct.names):
            index = struct.names.index(name)
            own = struct.fields[index]
            if isinstance(own, JuliaStruct) and own.type.name in ("Transpose", "Adjoint"):
                own = own.fields[0].T
            if isinstance(own, JuliaStruct) and name in _INSIDE:
                inner = self.part(state, name, where) if state is not None else None
                self.fill(own, inner, where)
            elif isinstance(own, tuple) and name == "state0":
                inner = self.part(state, name, where) if state is not None else None
                pair = (
                    NamedTuple(("1", "2"), inner) if isinstance(inner, tuple) and len(inner) == 2 else inner
                )
                struct.fields[index] = tuple(
                    self.array(each, str(i), pair, where) for i, each in enumerate(own, 1)
                )
            elif isinstance(own, np.ndarray):
                struct.fields[index] = self.array(own, name, state, where)
        if state is None and _tracks(struct):
            self.warn(_WITHOUT_STATISTICS)

    def array(self, own: Array, name: str, state: Any, where: str) -> Array:
        if id(own) in self.given:
            return self.given[id(own)][1]
        if name in ("μ", "σ²") and (state is None or name not in getattr(state, "names", (name,))):
            self.warn(_WITHOUT_STATISTICS)
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
        if found.ndim != own.ndim and [n for n in found.shape if n > 1] == [n for n in own.shape if n > 1]:
            found = found.reshape(own.shape, order="F")  # Lux has biases of n x 1, and scales of n x 1
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
        if self.parts is not None and next(self.parts, None) is not None:
            raise self.refuse("its end", "the file has more layers with weights than the architecture")
        left = sum(1 for _ in self.queue) if self.flat is None else self.flat.size
        if left:
            kind = "arrays" if self.flat is None else "numbers"
            raise self.refuse("its end", f"the file has {left} {kind} more than the architecture")


_CELLS_OF_LUX = {"weight_i": "weight_ih", "weight_h": "weight_hh", "bias": "bias_ih", "bias_h": "bias_hh"}


def _of_lux(state: Any) -> Joined | None:
    """The weights of a recurrent cell of Lux, with the names of today or those before 1.0; None for anything else."""
    if not isinstance(state, NamedTuple):
        return None
    arrays = {n: a for n, v in zip(state.names, state, strict=True) if (a := as_array(v)) is not None}
    arrays = {name: a.reshape(-1) if name.startswith("bias") else a for name, a in arrays.items()}
    named = {_CELLS_OF_LUX.get(name, name): array for name, array in arrays.items()}
    if "bias_i" in named and "bias_hh" in named:  # of the new gate alone
        hidden = len(named["bias_i"])
        named["bias_ih"] = np.concatenate([np.zeros(2 * hidden, np.float32), named.pop("bias_i")])
    known = {"weight_ih", "weight_hh", "bias_ih", "bias_hh"}
    return cell_of(named) if {"weight_ih", "weight_hh"} <= named.keys() <= known else None


def _arrays_for(layer: Layer, read: Layer) -> dict[str, Array] | None:
    """The arrays for `layer` from the layer that its struct was read as, or None if the two do not correspond."""
    same = next((found for _, found in (("", read), *walk(read)) if type(found) is type(layer)), None)
    if same is not None:
        states = ("initial", "initial_cell") if isinstance(layer, Recurrent) else ()
        return {name: getattr(same, name) for name in (*layer.arrays, *states) if hasattr(same, name)}
    # In Flux, a GroupNorm with statistics becomes a BatchNorm with the statistics of each channel's group.
    if isinstance(layer, GroupNorm) and isinstance(read, BatchNorm) and read.mean is not None:
        each = len(read.mean) // layer.groups
        return {
            name: getattr(read, name)[::each] if name in ("mean", "variance") else getattr(read, name)
            for name in layer.arrays
        }
    return None


def _has_arrays(struct: JuliaStruct) -> bool:
    own = any(isinstance(value, np.ndarray) for value in struct.fields)
    inside = [value for name, value in zip(struct.names, struct.fields, strict=False) if name in _INSIDE]
    return own or any(isinstance(value, JuliaStruct) and _has_arrays(value) for value in inside)


# Other names of the fields of a layer: those of Lux for norms, and those of Flux 0.11 and before.
_NAMES_OF_NORMS = {"scale": "γ", "bias": "β", "running_mean": "μ", "running_var": "σ²"}
_OLD_NAMES = {"W": "weight", "b": "bias", "α": "scale"}


def _with_names_of(struct: JuliaStruct, state: Any) -> Any:
    """The state of a layer under the names of the struct's fields."""
    if not isinstance(state, NamedTuple) or not state.names:
        return state
    if "diag" in struct.names and "diag" not in state.names and "scale" in state.names:
        return NamedTuple(("diag",), [state])
    renamed = _NAMES_OF_NORMS if "γ" in struct.names else _OLD_NAMES if "weight" in struct.names else {}
    if not renamed.keys() & set(state.names) or ("γ" in struct.names and "γ" in state.names):
        return state
    return NamedTuple(tuple(renamed.get(name, name) for name in state.names), list(state))


def _tracks(struct: JuliaStruct) -> bool:
    return "σ²" in struct.names and isinstance(struct.fields[struct.names.index("σ²")], np.ndarray)


def _sizes(array: Array) -> str:
    return "×".join(map(str, array.shape))
