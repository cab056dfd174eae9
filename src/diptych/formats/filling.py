"""Filling an architecture with the arrays of another program: `conv1.weight`, `bn.running_mean`.

They are taken by their names where these are the architecture's own, else in the order of the file, if it has one. In
a file without an order, the arrays of one layer have the same name up to the last dot, and layers are taken in the
natural order of their names (2 before 10). If that does not fit, the order is that in which sizes fit, as long as only
one does, or those that do have names that differ in their numbers alone. Recurrent layers and attention, whose arrays
are several in PyTorch, are put together by `joining`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from diptych.errors import FormatError
from diptych.formats.joining import fits, in_order, joined, resets_elsewhere, with_arrays
from diptych.model.document import from_document, to_document
from diptych.model.layers import Array, Layer, MultiHeadAttention
from diptych.model.model import Model, Source

__all__ = ["filled", "listed", "plain_names"]

_LISTED = 16
# What wrappers put in front of every name, such as DataParallel and Lightning.
_PREFIXES = ("module.", "model.", "net.", "network.", "_orig_mod.", "ema_model.", "ema.")
# The fields of our layers under their names in PyTorch.
_NAMES = {
    "weight": ("weight", "scale"),
    "bias": ("bias", "shift"),
    "running_mean": ("mean",),
    "running_var": ("variance",),
}

Group = dict[str, Array]


def plain_names(names: Sequence[str]) -> list[str]:
    """The names without the prefixes that all of them have from a wrapper."""
    found = list(names)
    while True:
        prefix = next((p for p in _PREFIXES if found and all(name.startswith(p) for name in found)), None)
        if prefix is None:
            return found
        found = [name.removeprefix(prefix) for name in found]


def filled(
    architecture: Model, arrays: Mapping[str, Array], name: str, source: Source, *, ordered: bool = False
) -> Model:
    """The architecture with other weights.

    Args:
        architecture: The model whose arrays are replaced.
        arrays: By name; shared ones once.
        name: The file, for messages.
        source: Where the weights come from.
        ordered: Whether the arrays are in the order of the layers.

    Raises:
        FormatError: The arrays do not fit, with the sizes of both sides and the first that differs.
    """
    document, own = to_document(architecture)
    given = dict(zip(plain_names(list(arrays)), arrays.values(), strict=True))
    direct = given if given.keys() == own.keys() else dict(zip(own, given.values(), strict=False))
    if (
        (ordered or direct is given)
        and len(given) == len(own)
        and all(direct[place].shape == array.shape for place, array in own.items())
    ):
        return from_document(document, {place: direct[place] for place in own}).with_(
            source=source, trained=None
        )
    paths = dict(architecture.walk())
    ours = {place: _Place(paths[place], group) for place, group in _grouped(own).items()}
    theirs = joined(_grouped(given), any(isinstance(p.layer, MultiHeadAttention) for p in ours.values()))
    if ordered:
        theirs = in_order([place.layer for place in ours.values()], theirs)
    if any(resets_elsewhere(group, place.layer) for group in theirs.values() for place in ours.values()):
        raise FormatError(
            f"{name} holds a GRU of PyTorch, which resets its state behind the product, and the architecture one that "
            "does so in front of it: GRU of Flux is the former, GRUv3 the latter"
        )
    order = _order(ours, theirs, ordered)
    if order is None:  # Flux has choosing as a product with a matrix, which is no weight
        learned = {path: place for path, place in ours.items() if not _chooses(place.arrays)}
        order = _order(learned, theirs, ordered) if len(learned) < len(ours) else None
        ours = learned if order is not None else ours
    if order is None:
        raise FormatError(_misfit(name, ours, theirs, ordered))
    pairs = list(zip(ours.values(), (theirs[place] for place in order), strict=True))
    whole = {id(p.layer): with_arrays(g, p.layer) for p, g in pairs if fits(g, p.layer)}
    layers: Any = _with_layers(architecture.layers, whole)
    document, found = to_document(architecture.with_(layers=layers))
    for path, (place, group) in zip(ours, pairs, strict=True):
        if id(place.layer) not in whole:
            for field in place.arrays:
                array = _named(group, field)
                assert array is not None  # its size was compared
                found[f"{path}.{field}"] = array
    equal = len({str(_sizes(place.arrays, place.arrays)) for place in ours.values()}) < len(ours)
    warnings = (
        ("layers of equal sizes were filled in the order of their names",) if equal and not ordered else ()
    )
    return from_document(document, found).with_(source=replace(source, warnings=warnings), trained=None)


def listed(arrays: Mapping[str, Array]) -> str:
    """Names and sizes, the first of many: "conv.weight 4x1x3x3, conv.bias 4"."""
    names = sorted(arrays, key=_natural)
    shown = ", ".join(f"{name} {'×'.join(map(str, arrays[name].shape))}" for name in names[:_LISTED])
    return shown + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")


def _with_layers(layer: Layer, whole: Mapping[int, Mapping[str, Array | None]]) -> Layer:
    """A layer with the arrays that `whole` has for the recurrent layers and attentions in it, by their `id`."""
    if layer.children:
        return layer.with_children([_with_layers(child, whole) for child in layer.children])
    return replace(layer, **whole[id(layer)]) if id(layer) in whole else layer


@dataclass(frozen=True, eq=False)
class _Place:
    """A layer of the architecture with its arrays, shared ones at the first layer that has them."""

    layer: Layer
    arrays: Group

    def takes(self, group: Group) -> bool:
        """Whether the arrays of a group have the sizes of the layer's."""
        if fits(group, self.layer):
            return len(self.arrays) >= len(self.layer.arrays)
        return _sizes(group, self.arrays) == _sizes(self.arrays, self.arrays)


def _grouped(arrays: Mapping[str, Array]) -> dict[str, Group]:
    groups: dict[str, Group] = {}
    for name, array in arrays.items():
        place, _, field = name.rpartition(".")
        groups.setdefault(place, {})[field] = array
    return groups


def _named(group: Group, field: str) -> Array | None:
    """The array of a group for one of our fields."""
    for name, fields in _NAMES.items():
        if field in fields and name in group:
            return group[name]
    return group.get(field)


def _sizes(group: Group, layer: Group) -> list[tuple[int, ...] | None] | None:
    """The sizes of the arrays for the fields of a layer; None if the group has others besides."""
    found = [_named(group, field) for field in layer]
    if len([a for a in found if a is not None]) < len(group):
        return None
    return [None if array is None else array.shape for array in found]


def _order(ours: dict[str, _Place], theirs: dict[str, Group], ordered: bool) -> list[str] | None:
    """The names of the groups in the order of the layers; None if they do not fit."""
    return _by_names(ours, theirs, ordered) or (None if ordered else _by_sizes(ours, theirs))


def _chooses(group: Group) -> bool:
    """Whether a layer has one matrix, in which each row takes one value as it is, or the mean of some."""
    matrix = next(iter(group.values()))
    if len(group) != 1 or matrix.ndim != 2 or not matrix.size:
        return False
    return len(np.unique(matrix[matrix != 0])) == 1 and bool(np.allclose(matrix.sum(1), 1, atol=1e-5))


def _by_names(ours: dict[str, _Place], theirs: dict[str, Group], ordered: bool) -> list[str] | None:
    """The groups in the natural order of their names, or in their own, if they fit the layers one by one."""
    order = list(theirs) if ordered else sorted(theirs, key=_natural)
    pairs = zip(order, ours.values(), strict=False)
    fit = len(ours) == len(theirs) and all(place.takes(theirs[name]) for name, place in pairs)
    return order if fit else None


def _by_sizes(ours: dict[str, _Place], theirs: dict[str, Group]) -> list[str] | None:
    """The groups in the order of the layers, if each layer has one group of its sizes, or numbered ones."""
    order: list[str] = []
    for place in ours.values():
        fitting = [name for name, group in theirs.items() if place.takes(group)]
        if len({re.sub(r"\d+", "#", name) for name in fitting}) != 1:
            return None
        order += sorted(set(fitting) - set(order), key=_natural)[:1]
    return order if len(order) == len(theirs) == len(ours) else None


def _misfit(name: str, ours: dict[str, _Place], theirs: dict[str, Group], ordered: bool) -> str:
    left = [_row(theirs[place]) for place in (theirs if ordered else sorted(theirs, key=_natural))]
    right = [_row(place.arrays) for place in ours.values()]
    pairs = enumerate(zip(left, right, strict=False))
    parts = next((i for i, (a, b) in pairs if a != b), min(len(left), len(right)))
    order = "its order" if ordered else "the order of their names"
    return (
        f"{name} does not fit the architecture: give the one it was trained with; sizes in the file, in {order}: "
        f"{_marked(left, parts)}; in the architecture: {_marked(right, parts)}; between >> and << is the first that "
        "differs"
    )


def _row(group: Group) -> str:
    return " and ".join("×".join(map(str, array.shape)) for array in group.values())


def _marked(rows: list[str], number: int) -> str:
    first = max(0, number - 4)
    texts = [f">>{text}<<" if i == number else text for i, text in enumerate(rows)]
    shown = ", ".join(texts[first : first + 8]) or "none"
    return ("… " if first else "") + shown + (" …" if first + 8 < len(texts) else "")


def _natural(name: str) -> list[Any]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
