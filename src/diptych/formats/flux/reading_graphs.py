"""Reading back what `structs_of_graphs` and `structs_of_joins` make of graphs and of matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from diptych.errors import ModelError
from diptych.formats.flux.functions import function, path_of
from diptych.formats.flux.reading import Fields, FluxReader, unwrapped
from diptych.formats.flux.reading_functions import connection_of
from diptych.formats.graph import Value, ValueGraph
from diptych.formats.julia import JuliaStruct
from diptych.formats.nesting import nested_steps
from diptych.formats.patterns import as_chain
from diptych.model.layers import Connection, Layer, Parallel

__all__ = ["carried_graph", "merged_product", "permutation_of", "undoes"]

_Carried: TypeAlias = "Value | tuple[_Carried, _Carried]"


def carried_graph(r: FluxReader, f: Fields, values: Sequence[Any]) -> Layer | None:
    """The layers of a Chain that carries its values along as pairs, or None for any other Chain."""
    if not any(_is_pairing(value) for value in values):
        return None
    graph = _Carrying(r, f)
    carried: _Carried = graph.graph.input
    for number, value in enumerate(values):
        carried = graph.behind(value, carried, values[number + 1 :])
    if not isinstance(carried, Value):
        raise f.refuse("gives several values, where a model has one")
    try:
        made = as_chain(nested_steps(graph.graph, carried))
    except ModelError as error:
        raise f.refuse(f"carries values along in a way that is not read: {error}") from error
    r.forget_hints(f.path)
    r.entry = None
    return made.layers[0] if len(made.layers) == 1 else made


def merged_product(r: FluxReader, f: Fields, values: Sequence[Any]) -> Layer | None:
    """`Chain(Parallel(batched_mul, b, a), reshape)`, whose branches merge axes with the batch, as a matrix product."""
    if len(values) != 2 or not _is(values[0], "Parallel") or len(_sizes(values[1])) < 4:
        return None
    fields = r.fields(values[0], f.path)
    branches = fields.children("layers")[0]
    if not _is_product(fields.get("connection")) or len(branches) != 2:
        return None
    if not all(len(_sizes(_last(branch))) == 3 for branch in branches):
        return None
    second, first = r.branches([_without_last(branch) for branch in branches], f.path)
    r.forget_hints(f.path)
    return Parallel(Connection("matmul"), (first, second))


class _Carrying:
    def __init__(self, r: FluxReader, f: Fields) -> None:
        self.r, self.f = r, f
        self.graph = ValueGraph(None)
        self.count = 0

    def behind(self, value: Any, carried: _Carried, following: Sequence[Any] = ()) -> _Carried:
        """What a struct makes of the values that are carried."""
        value = unwrapped(value)
        if _is_pairing(value):
            return self.behind(self.r.fields(value, self.f.path).get("layers"), carried), carried
        if _is(value, "Fix2") and _name(value.fields[0]) == "getindex":
            if not isinstance(carried, tuple) or value.fields[1] not in (1, 2):
                raise self.f.refuse("takes a value that is not carried along")
            return carried[int(value.fields[1]) - 1]
        if _name(value) == "identity":
            return carried
        if _is(value, "Chain") and not (isinstance(carried, Value) and _plain(value)):
            return self.chain(self.r.fields(value, self.f.path).children("layers")[0], carried)
        if _is(value, "SkipConnection") and _is(self.r.fields(value, "").get("connection"), "Parallel"):
            fields = self.r.fields(value, self.f.path)
            joint = self.r.fields(fields.get("connection"), self.f.path)
            return self.joined(fields.get("layers"), joint, carried, False)
        if not isinstance(carried, Value):
            raise self.f.refuse(
                f"gives several values to a {getattr(value, 'type', type(value).__name__)!s:.60}"
            )
        self.count += 1
        self.r.entry = None
        layer = self.r.layer(value, f"{self.f.path}.{self.count}".lstrip("."))
        return self.graph.apply(layer, carried, f"value {self.count}")

    def chain(self, parts: Sequence[Any], carried: _Carried) -> _Carried:
        """What a Chain makes of them. What moves or merges axes around a join belongs to the join."""
        number = 0
        while number < len(parts):
            part, after = parts[number], parts[number + 1] if number + 1 < len(parts) else None
            if _is(part, "SkipConnection") and not _is_pairing(part):
                fields = self.r.fields(part, self.f.path)
                joint = fields.get("connection")
                if _is(joint, "Parallel") and self.belongs(self.r.fields(joint, ""), after):
                    carried = self.joined(
                        fields.get("layers"), self.r.fields(joint, self.f.path), carried, True
                    )
                    number += 2
                    continue
            carried = self.behind(part, carried)
            number += 1
        return carried

    def belongs(self, joint: Fields, after: Any) -> bool:
        """Whether the branches of a join end in the opposite of what follows it."""
        branches = joint.children("layers")[0]
        if len(branches) != 2:
            return False
        ends = [_last(branch) for branch in branches]
        if _is_product(joint.get("connection")):
            return len(_sizes(after)) > 3 and all(len(_sizes(end)) == 3 for end in ends)
        moves = [permutation_of(end) for end in ends]
        return moves[0] is not None and moves[0] == moves[1] and undoes(permutation_of(after), moves[0])

    def joined(self, first: Any, joint: Fields, carried: _Carried, stripped: bool) -> Value:
        """Two values joined by `SkipConnection(first, Parallel(operation, identity, second))`."""
        branches = joint.children("layers")[0]
        if len(branches) != 2:
            raise self.f.refuse("joins more than two values that are carried along")
        move = permutation_of(_last(branches[0])) if stripped else None
        a, b = (_without_last(branch) if stripped else branch for branch in branches)
        x = self.behind(a, self.behind(first, carried))
        y = self.behind(b, carried)
        if not isinstance(x, Value) or not isinstance(y, Value):
            raise self.f.refuse("joins several values at once")
        if _is_product(joint.get("connection")):
            return self.graph.join("matmul", [y, x], "product")
        connection = connection_of(self.r, joint, 2)
        axis = -move[0] if move is not None else connection.axis
        return self.graph.join(connection.operation, [x, y], connection.operation, axis)


def _plain(value: Any) -> bool:
    """Whether a Chain works on arrays alone: nothing in it joins a value with the pairs."""
    parts = value.fields[0] if isinstance(value.fields[0], tuple) else ()
    return not any(
        _is(p, "SkipConnection") and (_is_pairing(p) or _is(p.fields[-1], "Parallel")) for p in parts
    )


def _is_pairing(value: Any) -> bool:
    if not _is(value, "SkipConnection"):
        return False
    connection = value.fields[-1]
    return isinstance(connection, JuliaStruct) and connection.type.path == ("Core", "#tuple")


def _is(value: Any, name: str) -> bool:
    return (
        isinstance(value, JuliaStruct) and value.type.name == name and value.type.path[0] in ("Flux", "Base")
    )


def _name(value: Any) -> str:
    path = path_of(value)
    return path[-1] if path is not None else ""


def _is_product(value: Any) -> bool:
    return _name(value) == "batched_mul"


def _last(value: Any) -> Any:
    """The last part of a Chain, or the value itself."""
    if _is(value, "Chain") and isinstance(value.fields[0], tuple) and value.fields[0]:
        return value.fields[0][-1]
    return value


def _without_last(value: Any) -> JuliaStruct:
    if _is(value, "Chain") and isinstance(value.fields[0], tuple):
        return JuliaStruct(value.type, [value.fields[0][:-1]], value.names)
    return JuliaStruct(value.type, [()], value.names) if _is(value, "Chain") else function("Base", "identity")


def _sizes(value: Any) -> tuple[Any, ...]:
    """The sizes of a `Base.Fix2(reshape, sizes)`; () for any other value."""
    if not _is(value, "Fix2") or len(value.fields) != 2 or _name(value.fields[0]) != "reshape":
        return ()
    return value.fields[1] if isinstance(value.fields[1], tuple) else ()


def undoes(back: tuple[int, ...] | None, move: tuple[int, ...] | None) -> bool:
    """Whether one permutation takes back another."""
    if back is None or move is None or len(back) != len(move):
        return False
    return [move[n - 1] for n in back] == list(range(1, len(back) + 1))


def permutation_of(value: Any) -> tuple[int, ...] | None:
    """The order p of a `Base.Fix2(permutedims, p)`, or None for any other value."""
    if not _is(value, "Fix2") or len(value.fields) != 2 or _name(value.fields[0]) != "permutedims":
        return None
    p = value.fields[1]
    whole = isinstance(p, tuple) and all(isinstance(n, (int, np.integer)) for n in p)
    return p if whole and sorted(p) == list(range(1, len(p) + 1)) else None
