"""The result of a comparison in sentences."""

from __future__ import annotations

import difflib

import numpy as np

from diptych.comparing.alignment import Alignment, Row, measure, same_kinds
from diptych.comparing.comparison import FoundCause, short
from diptych.comparing.diagnosis import TIME_LIMIT, Search
from diptych.comparing.runs import Run

__all__ = ["agreement", "diagnosis"]


def agreement(alignment: Alignment, tolerance: float) -> str:
    """The sentence for two models that agree."""
    row = max(alignment.rows, key=lambda r: 0.0 if r.lone else r.difference.relative)
    if row.difference.relative == 0:
        return "A and B agree: every layer gives the same values."
    where = "in the input" if row.a.layer is None and row.b.layer is None else f"at layer {row.a.shown}"
    return (
        f"A and B agree within {tolerance:g}: the largest difference, relative to the layer's largest value, "
        f"is {short(row.difference.relative)}, {where}."
    )


def diagnosis(a: Run, b: Run, alignment: Alignment, search: Search) -> str:
    """Where the models differ first, the causes that were found, and what they leave unexplained."""
    row = alignment.first_row
    assert row is not None
    parts = [_where(row)]
    last = alignment.rows[-1]
    if last.agrees:
        parts.append("The results agree nevertheless.")
    if not search.found:
        parts.append(f"No known cause explains it; {search.trials} changes were tried{_until(search)}.")
        parts.append(_unexplained(a, b, row))
        return " ".join(parts)
    parts.append(_causes(search.found))
    if search.alignment.agrees:
        parts.append("Then every layer agrees.")
    else:
        left = search.alignment.first_row
        assert left is not None
        parts.append(f"That is not all: {_where(left, 'then differ')}")
        if search.cut_short:
            parts.append(f"{search.trials} changes were tried{_until(search)}.")
    return " ".join(parts)


def _until(search: Search) -> str:
    return f", but not all pairs of them within {TIME_LIMIT:g} s" if search.cut_short else ""


def _causes(found: list[FoundCause]) -> str:
    names = " and ".join(dict.fromkeys(cause.name for cause in found))
    sentences = [f"Likely cause{'s' if len(found) > 1 else ''}: {names}."]
    sentences += [f"{cause.reason[0].upper()}{cause.reason[1:]}." for cause in dict.fromkeys(found)]
    places: dict[tuple[str, float, float], list[str]] = {}
    for cause in found:
        places.setdefault((cause.where, cause.before, cause.after), []).append(cause.tried)
    for (where, before, after), tried in places.items():
        fall = f"from {short(before)} to {short(after)}" if np.isfinite(before) else f"to {short(after)}"
        sentences.append(f"With {', and '.join(tried)}, the relative difference at {where} falls {fall}.")
    return " ".join(sentences)


def _where(row: Row, differ: str = "differ first") -> str:
    if row.a.layer is None and row.b.layer is None:
        place = "in their input, before the first layer"
    else:
        layer = row.a.layer if row.lone != "b" else row.b.layer
        name = f"{row.a.shown}" if row.lone != "b" else f"{row.b.shown} of B"
        place = f"at layer {name} ({layer.label})" if layer is not None else f"at layer {name}"
        if row.lone:
            place += f", which only {row.lone.upper()} has"
    difference = row.difference
    if not np.isfinite(difference.relative):
        shapes = _by(row.a.value.shape), _by(row.b.value.shape)
        if shapes[0] != shapes[1]:
            return f"A and B {differ} {place}: the shapes are {shapes[0]} and {shapes[1]}."
        return f"A and B {differ} {place}: only one of them has NaN or infinite values there."
    return (
        f"A and B {differ} {place}: the largest difference is {short(difference.absolute)}, "
        f"{short(difference.relative)} of the layer's largest value, cosine {difference.cosine:.4f}."
    )


def _unexplained(a: Run, b: Run, row: Row) -> str:
    """What is known about the row where the models differ first, where no cause was found."""
    if row.a.layer is None and row.b.layer is None:
        return _recipes(a, b)
    if not same_kinds(a, b):
        return "The models have different layers: see the table."
    layers = row.a.layer, row.b.layer
    if row.lone or layers[0] is None or layers[1] is None:
        return "Only one of them has this layer."
    weights = _weights(a, b, row)
    if weights:
        return weights
    if layers[0].label != layers[1].label:
        return f"The layers are {layers[0].label} in A and {layers[1].label} in B."
    return f"The layers have the same weights and settings: the engines {a.engine} and {b.engine} differ."


def _weights(a: Run, b: Run, row: Row) -> str:
    for path in [row.a.path, *(p for p in a.layers if p.startswith(f"{row.a.path}."))]:
        if path not in b.layers:
            continue
        others = b.layers[path].arrays
        for name, value in a.layers[path].arrays.items():
            if name not in others or others[name].shape != value.shape:
                return f"The weights {path}.{name} have different shapes."
            difference = measure(value[np.newaxis], others[name][np.newaxis])
            if difference.absolute > 0:
                return (
                    f"The weights themselves differ, first {path}.{name}: by {short(difference.absolute)} at "
                    f"most, {short(difference.relative)} of the largest, cosine {difference.cosine:.4f}; "
                    "they probably come from another training, or another file."
                )
    return ""


def _recipes(a: Run, b: Run) -> str:
    if a.recipe is None or b.recipe is None:
        return "The inputs were prepared in different ways."
    if a.recipe == b.recipe:
        return "Both have the same recipe, so their pictures differ."
    lines = difflib.ndiff(a.recipe.describe(), b.recipe.describe())
    marks = {"- ": "A: ", "+ ": "B: "}
    told = [marks[line[:2]] + line[2:] for line in lines if line[:2] in marks]
    return "The recipes differ in: " + "; ".join(told) + "."


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
