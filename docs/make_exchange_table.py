"""Writes the tables of docs/exchange.md from what the tests check: `python docs/make_exchange_table.py`.

A layer counts as read where a file that Flux wrote holds it and a test compares every number; as written
where a test writes it for that version. `tests/test_exchange_table.py` fails when the tables are out of date.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "exchange.md"
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
if __name__ == "__main__":
    sys.path.insert(0, str(PAGE.parents[1] / "tests"))

from diptych import formats  # noqa: E402
from diptych.formats import bson  # noqa: E402
from diptych.formats.flux.document import find_model  # noqa: E402
from diptych.formats.flux.document_writing import struct_for_state, struct_of_model  # noqa: E402
from diptych.formats.flux.functions import named_activation, path_of  # noqa: E402
from diptych.formats.flux.layouts import LAYOUTS  # noqa: E402
from diptych.formats.flux.reading import is_layer  # noqa: E402
from diptych.formats.julia import JuliaStruct  # noqa: E402
from diptych.formats.julia.arrays import as_array  # noqa: E402
from diptych.model.layers import GRU, Embedding, Layer, Recurrent, Scale  # noqa: E402
from diptych.model.model import Model  # noqa: E402
from flux_golden import GOLDEN, Case, cases  # noqa: E402
from flux_golden import VERSIONS as GOLDEN_VERSIONS  # noqa: E402
from layer_cases import TABLE, case  # noqa: E402
from test_exchange_table import ANEW, ANEW_NOT_IN, NEWER, STATE_NOT_IN  # noqa: E402
from test_write_flux_checkpoints import FOLDED, NOT_IN, OWN, STATES, VERSIONS  # noqa: E402

ACTIVATIONS, CLOSURES = "activation functions", "anonymous functions"
FIXED = "`Base.Fix1`, `Base.Fix2`"
FUNCTIONS = ("flatten", "softmax", "logsoftmax", "normalise")
ROWS = (*LAYOUTS, *FUNCTIONS, ACTIVATIONS, FIXED, CLOSURES)
# What a refused file is refused for, by the word that its error has.
CULPRITS = {
    "two inputs": "Bilinear",
    "several outputs": "PairwiseFusion",
    "permutedims": CLOSURES,
    "sum": CLOSURES,
}
# Our layers that are no struct of Flux: what they become there.
BECOME = {
    "Activation": ACTIVATIONS,
    "Softmax": "softmax",
    "Normalise": "normalise",
    "Pad": FIXED,
    "Reshape": FIXED,
    "Flatten": "flatten",
}
Marks = dict[str, set[str]]  # column -> rows


def rows_in(value: Any) -> Iterator[str]:
    """The rows that a model's value has something of."""
    if isinstance(value, (tuple, list)):
        for part in value:
            yield from rows_in(part)
    if not isinstance(value, JuliaStruct) or (not is_layer(value) and as_array(value) is not None):
        return
    if value.type.definition is not None:
        yield CLOSURES
        return
    path = path_of(value)
    if path is not None and path[-1] in FUNCTIONS:
        yield path[-1]
    found = named_activation(value, False)
    if found is not None and found.name != "identity":
        yield ACTIVATIONS
    if value.type.path in (("Base", "Fix1"), ("Base", "Fix2")):
        yield FIXED
    if is_layer(value):
        yield value.type.name
    for part in value.fields:
        yield from rows_in(part)


@cache
def rows_of(golden: Case) -> frozenset[str]:
    """The rows that a golden file has something of."""
    values = bson.load(golden.bson)
    key = find_model(values)
    return frozenset(rows_in(values[key])) if key is not None else frozenset()


def refused_files() -> list[Case]:
    """Also those with several inputs, which are no cases."""
    files = [Case(version, file.stem) for version in GOLDEN_VERSIONS for file in _files(version)]
    return [golden for golden in files if golden.refusal is not None]


def _files(version: str) -> list[Path]:
    return sorted((GOLDEN / f"flux-{version}").glob("*.bson"))


# ---- Reading ------------------------------------------------------------------------------------------


def reading() -> tuple[Marks, Marks]:
    """Column -> the rows that are read with Flux's own numbers, and those that are refused."""
    read: Marks = defaultdict(set)
    refused: Marks = defaultdict(set)
    for golden in refused_files():
        assert golden.refusal is not None
        refused[f".bson {golden.version}"].add(CULPRITS[golden.refusal])
        if golden.jld2.exists():
            refused[f".jld2 {golden.version}"].add(CULPRITS[golden.refusal])
    for golden in (golden for golden in cases() if golden.refusal is None):
        read[f".bson {golden.version}"] |= rows_of(golden)
        if golden.jld2.exists() and CLOSURES in rows_of(golden):  # JLD2 stores their names alone
            refused[f".jld2 {golden.version}"].add(CLOSURES)
        elif golden.jld2.exists():
            read[f".jld2 {golden.version}"] |= rows_of(golden)
        if golden.state.exists():
            read[f"state {golden.version}"] |= rows_of(golden) & set(LAYOUTS)
    return read, refused


# ---- Writing ------------------------------------------------------------------------------------------


def writing() -> tuple[Marks, Marks]:
    """Column -> the rows that are written, and those of which something cannot be expressed."""
    written: Marks = defaultdict(set)
    refused: Marks = defaultdict(set)
    for name in TABLE:
        for version in VERSIONS:
            _case(name, version, written, refused)
    for golden in OWN:
        if golden.name not in FOLDED:
            written[f".bson {_line(golden.version)}"] |= rows_of(golden) - {CLOSURES}
    for golden in ANEW:
        for version in NEWER:
            if version not in ANEW_NOT_IN.get(golden.name, ()):
                written[f".bson {version}"] |= _written(golden, version)
    for golden in STATES:
        if golden.name not in FOLDED:
            written[f".jld2 {_line(golden.version)}"] |= rows_of(golden) & set(LAYOUTS)
    return written, refused


def _case(name: str, version: str, written: Marks, refused: Marks) -> None:
    model, _ = case(name)
    row = _row((*model.layers.layers, model.layers)[0], version)
    if version in NOT_IN.get(name, ()):
        refused[f".bson {version}"].add(row)
    else:
        written[f".bson {version}"] |= _rows(model, version)
    if version in STATE_NOT_IN.get(name, ()):
        refused[f".jld2 {version}"].add(row)
    if version not in STATE_NOT_IN.get(name, ()):
        written[f".jld2 {version}"] |= _rows(model, version, state=True) & set(LAYOUTS)


def _rows(model: Model, version: str, state: bool = False) -> set[str]:
    made = struct_for_state(model, version, []) if state else struct_of_model(model, version)
    return set(rows_in(made))


@cache
def _written(golden: Case, version: str) -> set[str]:
    return _rows(formats.read(golden.bson), version)


def _row(layer: Layer, version: str) -> str:
    """What one of our layers becomes in a version of Flux."""
    if isinstance(layer, Scale) and version == "0.12":
        return "Diagonal"
    if isinstance(layer, Recurrent) and version < "0.15":
        return "Recur"
    if isinstance(layer, GRU) and layer.reset == "before":
        return "GRUv3"
    if isinstance(layer, Embedding) and layer.reduction != "none":
        return "EmbeddingBag"
    return BECOME.get(type(layer).__name__, type(layer).__name__)


def _line(version: str) -> str:
    return ".".join(version.split(".")[:2])


# ---- The page -----------------------------------------------------------------------------------------


def table(columns: Iterable[str], good: Marks, bad: Marks) -> list[str]:
    """The lines of one table in Markdown."""
    columns = list(columns)
    lines = [f"| | {' | '.join(columns)} |", f"|---|{':-:|' * len(columns)}"]
    for row in ROWS:
        name = row if " " in row or row.startswith("`") else f"`{row}`"
        marks = [_mark(row in good[column], row in bad[column]) for column in columns]
        lines.append(f"| {name} | {' | '.join(marks)} |")
    return lines


def _mark(good: bool, bad: bool) -> str:
    return {(True, False): "✓", (True, True): "(✓)", (False, True): "✗", (False, False): "·"}[good, bad]


def tables() -> str:
    """Both tables, and what each version cannot express."""
    read, write = reading(), writing()
    columns = [f"{kind} {version}" for kind in (".bson", ".jld2") for version in VERSIONS]
    found = sorted(read[0].keys() | read[1].keys())
    files = {*cases(), *refused_files()}
    return "\n".join(
        [
            "### Reading",
            "",
            f"From {len(files)} model files that real Flux wrote, by the version that wrote them.",
            "",
            *table(found, *read),
            "",
            "### Writing",
            "",
            *table(columns, *write),
            "",
            "What `(✓)` and `✗` stand for in `.bson`, by the name of the test's case:",
            "",
            *_refusals(),
        ]
    )


def _refusals() -> list[str]:
    grouped: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name, versions in NOT_IN.items():
        grouped[tuple(versions)].append(name)
    return [f"- not for {_span(versions)}: {', '.join(names)}" for versions, names in grouped.items()]


def _span(versions: tuple[str, ...]) -> str:
    if versions == VERSIONS:
        return "any version"
    return versions[0] if len(versions) == 1 else f"{versions[0]} to {versions[-1]}"


def page(text: str) -> str:
    """The page with its tables made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{tables()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
