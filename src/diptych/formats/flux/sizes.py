"""The sizes of weights and of an architecture, side by side, for messages."""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.errors import UnsupportedLayer
from diptych.formats.flux.finding import DEEPEST, Weights, is_weight
from diptych.formats.flux.structs import NEWEST, StructBuilder, hints_of, ranks_of
from diptych.formats.flux.structs_of_layers import RULES as BUILDING
from diptych.formats.julia import JuliaStruct, NamedTuple
from diptych.formats.julia.arrays import as_array
from diptych.model.layers import Container
from diptych.model.model import Model

__all__ = ["compared", "layers_of_sizes", "shapes_of"]

_LISTED = 12
_FIELDS = ("weight", "scale", "β", "γ", "bias", "μ", "σ²", "Wi", "Wh", "b", "Wh_h̃", "state0")
_INSIDE = ("diag", "cell", "q_proj", "k_proj", "v_proj", "out_proj")


def shapes_of(weights: Weights) -> list[tuple[str, tuple[int, ...]]]:
    """The names and sizes, in Julia's order, of the arrays that were found."""
    if weights.tree is None:
        return [(str(number), array.shape) for number, array in enumerate(weights.arrays or [], 1)]
    found: list[tuple[str, tuple[int, ...]]] = []
    _list_arrays(weights.tree, weights.key, found, 0)
    return found


def _list_arrays(tree: Any, path: str, found: list[tuple[str, tuple[int, ...]]], depth: int) -> None:
    if is_weight(tree):
        array = as_array(tree)
        assert array is not None
        found.append((path, array.shape))
    elif isinstance(tree, NamedTuple) and depth < DEEPEST:
        for name, value in tree.as_dict().items():
            _list_arrays(value, f"{path}.{name}", found, depth + 1)
    elif isinstance(tree, (tuple, list)) and depth < DEEPEST:
        for number, value in enumerate(tree, 1):
            _list_arrays(value, f"{path}.{number}", found, depth + 1)


def compared(architecture: Model, weights: Weights) -> str:
    """The sizes of both sides as a clause, with the first that differs between arrows."""
    ours = _expected(architecture, statistics=weights.tree is not None)
    theirs = [shape for _, shape in shapes_of(weights)]
    if weights.tree is None and len(theirs) == 1 and len(ours) > 1:
        return f"the file has {theirs[0][0]} numbers, the architecture {sum(int(np.prod(s)) for s in ours)}"
    pairs = enumerate(zip(ours, theirs, strict=False))
    parts = next((i for i, (a, b) in pairs if _plain(a) != _plain(b)), min(len(ours), len(theirs)))
    return (
        f"sizes in the file: {_row(theirs, parts)}; in the architecture, in Julia's order: {_row(ours, parts)}; "
        "between >> and << is the first that differs"
    )


def _plain(shape: tuple[int, ...]) -> list[int]:
    return [n for n in shape if n > 1]


def _row(shapes: list[tuple[int, ...]], marked: int) -> str:
    first = max(0, marked - _LISTED // 2)
    texts = ["×".join(map(str, shape)) for shape in shapes]
    if marked < len(texts):
        texts[marked] = f">>{texts[marked]}<<"
    shown = texts[first : first + _LISTED] or ["none"]
    return ("… " if first else "") + ", ".join(shown) + (" …" if first + _LISTED < len(texts) else "")


def _expected(architecture: Model, statistics: bool) -> list[tuple[int, ...]]:
    """The sizes of the architecture's arrays as Flux has them."""
    version = NEWEST[next(reversed(NEWEST))]
    builder = StructBuilder(BUILDING, version, hints_of(architecture), {}, ranks_of(architecture), state=True)
    found: list[tuple[int, ...]] = []
    met: set[int] = set()
    for path, layer in architecture.walk():
        if not layer.arrays or isinstance(layer, Container) or id(layer) in met:
            continue
        met.add(id(layer))
        try:
            _sizes_of(builder.layer(layer, path), found, statistics)
        except UnsupportedLayer:
            found += [array.shape[::-1] for array in layer.arrays.values()]
    return found


def _sizes_of(struct: Any, found: list[tuple[int, ...]], statistics: bool) -> None:
    if not isinstance(struct, JuliaStruct):
        return
    if struct.type.name == "Chain":
        for part in struct.fields[0]:
            _sizes_of(part, found, statistics)
        return
    for name, value in zip(struct.names, struct.fields, strict=False):
        array = as_array(value) if isinstance(value, (np.ndarray, JuliaStruct)) else None
        if name in _INSIDE:
            _sizes_of(value, found, statistics)
        elif name in _FIELDS and array is not None and (statistics or name not in ("μ", "σ²")):
            found.append(array.shape)


def layers_of_sizes(shapes: list[tuple[str, tuple[int, ...]]]) -> str:
    """The layers with weights that sizes in Julia's order tell of, as Flux writes them; "" if they tell of none.

    Activations, pools, paddings and strides leave no trace in sizes.
    """
    layers: list[str] = []
    sizes = [tuple(n for n in shape) for _, shape in shapes]
    number = 0
    while number < len(sizes):
        shape = sizes[number]
        outputs = shape[-1] if len(shape) > 2 else shape[0] if shape else 0
        biased = sizes[number + 1 : number + 2] in ([(outputs,)], [(outputs, 1)])
        bias = "" if biased else "; bias = false"
        if 3 <= len(shape) <= 5:
            layers.append(f"Conv({shape[:-2]}, {shape[-2]} => {shape[-1]}{bias})")
        elif len(shape) == 2:
            layers.append(f"Dense({shape[1]} => {shape[0]}{bias})")
        elif len(shape) == 1 and biased:
            layers.append(f"BatchNorm({shape[0]})")
            statistics = sizes[number + 2 : number + 4] == [shape, shape]
            number += 2 if statistics else 0
        else:
            return ""
        number += 2 if biased else 1
    return f"Chain({', '.join(layers)})" if 0 < len(layers) <= 60 else ""
