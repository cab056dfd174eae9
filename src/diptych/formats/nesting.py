"""Turns a graph of values into a sequence of steps, in which joins hold their branches.

The nesting follows from dominators (Cooper, Harvey and Kennedy, "A Simple, Fast Dominance Algorithm", 2001): the
branches of a join begin at its dominator, the nearest value that every path to the join passes. Where branches share
a value after the dominator, they cannot be nested, and the whole part becomes one `Tangle` with named values.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from diptych.formats.graph import Join, Step, Tangle, Value, ValueGraph, refusal

__all__ = ["nested_steps"]

_DEEPEST = 28  # nested joins; each is two containers, and a model document holds 64 levels of them
_MOST_PLACES = 2_000_000  # values inside joins, counted once for every join around them


@dataclass(eq=False)
class _Part:
    """A join and the values between its dominator and itself.

    Attributes:
        branches: For each branch its values in order of computation, without those inside inner joins; empty if
            `tangled`.
        inside: The ids of all values between the dominator and the join, both excluded.
        height: The number of joins nested in each other, this one included.
        tangled: Whether the branches cannot be nested.
    """

    branches: list[list[Value]]
    inside: set[int]
    height: int = 1
    tangled: bool = False


def nested_steps(graph: ValueGraph, output: Value) -> list[Step]:
    """The steps that lead from the input of `graph` to `output`.

    Raises:
        UnsupportedLayer: A value does not depend on the input, or the graph is too entangled.
    """
    nesting = _Nesting(graph.input, output)
    return nesting.steps(nesting.region(graph.input, output)[0])


class _Nesting:
    def __init__(self, source: Value, output: Value) -> None:
        self._parts: dict[int, _Part] = {}
        self._places = 0
        for value in _ancestors(output):
            if value is not source and (value.made_by is None or value.dominator is None):
                raise refusal(value.name, "it does not depend only on the model's input")
            if isinstance(value.made_by, Join):
                self._parts[id(value)] = self._part(value)

    def region(self, source: Value, sink: Value) -> tuple[list[Value], set[int], int]:
        """The values from `source`, which dominates `sink`, up to `sink`.

        Returns:
            The values in sequence, the ids of these and of all values inside joins, and the height of the joins.
        """
        row: list[Value] = []
        inside: set[int] = set()
        height, value = 0, sink
        while value is not source:
            row.append(value)
            inside.add(id(value))
            if isinstance(value.made_by, Join):
                part = self._parts[id(value)]
                inside |= part.inside
                height = max(height, part.height)
            assert value.dominator is not None
            value = value.dominator
        return row[::-1], inside, height

    def steps(self, row: list[Value]) -> list[Step]:
        """The steps for a sequence of values; joins hold their branches."""
        return [self._joined(value) if isinstance(value.made_by, Join) else _step(value) for value in row]

    def _part(self, value: Value) -> _Part:
        above = value.dominator
        assert above is not None
        branches = [self.region(above, branch) for branch in value.inputs]
        inside = set().union(*(found for _, found, _ in branches))
        height = 1 + max((height for _, _, height in branches), default=0)
        self._places += len(inside)
        if self._places > _MOST_PLACES:
            raise refusal(value.name, "its branches share values with too many others")
        if sum(len(found) for _, found, _ in branches) > len(inside) or height > _DEEPEST:
            return _Part([], inside, tangled=True)
        return _Part([row for row, _, _ in branches], inside, height)

    def _joined(self, value: Value) -> Step:
        part = self._parts[id(value)]
        if part.tangled:
            assert value.dominator is not None
            return self._tangle(value.dominator, value)
        step = _step(value)
        step.branches = [self.steps(row) for row in part.branches]
        return step

    def _tangle(self, source: Value, sink: Value) -> Step:
        """The part from `source` to `sink` as a tangle.

        Each node holds as many steps as possible: all of which only the last is used by other nodes.
        """
        consumers: dict[int, set[int]] = defaultdict(set)
        for value in _ancestors(sink, source):
            for each in value.inputs if value is not source else ():
                consumers[id(each)].add(id(value))
        nodes: list[tuple[Value, tuple[Value, ...], Join | None, list[Step]]] = []
        needed, known = [sink], {id(source)}
        while needed:
            value = needed.pop()
            if id(value) in known:
                continue
            known.add(id(value))
            node = self._node(value, source, consumers)
            nodes.append((value, *node))
            needed += node[0]
        nodes.sort(key=lambda node: node[0].index)
        names = _unique([node[0].name for node in nodes])
        called = {id(source): "input"} | {id(node[0]): name for node, name in zip(nodes, names, strict=True)}
        tangle = Tangle(
            tuple(names),
            tuple(tuple(called[id(each)] for each in inputs) for _, inputs, _, _ in nodes),
            tuple(join for _, _, join, _ in nodes),
        )
        return Step(tangle, sink.name, source.shape, sink.shape, [steps for _, _, _, steps in nodes])

    def _node(
        self, value: Value, source: Value, consumers: dict[int, set[int]]
    ) -> tuple[tuple[Value, ...], Join | None, list[Step]]:
        """The inputs of the node that ends at `value`, how it joins them, and the steps that follow the join."""
        steps: list[Step] = []
        absorbed: set[int] = set()
        at = value
        while at is not source and (at is value or consumers[id(at)] <= absorbed):
            if not isinstance(at.made_by, Join):
                steps.append(_step(at))
                absorbed.add(id(at))
                (at,) = at.inputs
                continue
            part = self._parts[id(at)]
            if part.tangled or not _alone(part, at, consumers):
                return at.inputs, at.made_by, steps[::-1]
            steps.append(self._joined(at))
            absorbed |= part.inside | {id(at)}
            assert at.dominator is not None
            at = at.dominator
        return (at,), None, steps[::-1]


def _alone(part: _Part, join: Value, consumers: dict[int, set[int]]) -> bool:
    """Whether no value outside the part uses one inside it."""
    within = part.inside | {id(join)}
    return all(consumers[each] <= within for each in part.inside)


def _step(value: Value) -> Step:
    assert value.made_by is not None
    assert value.dominator is not None
    return Step(value.made_by, value.name, value.dominator.shape, value.shape)


def _ancestors(sink: Value, source: Value | None = None) -> list[Value]:
    """The values that `sink` depends on, and `sink`, in order of computation; those before `source` left out."""
    found: dict[int, Value] = {}
    waiting = [sink]
    while waiting:
        value = waiting.pop()
        if id(value) not in found:
            found[id(value)] = value
            waiting += value.inputs if value is not source else ()
    return sorted(found.values(), key=lambda value: value.index)


def _unique(names: list[str]) -> list[str]:
    """The names, with a number added to those that are "input" or occur before."""
    taken = {"input"}
    result = []
    for name in names:
        candidate, count = name, 1
        while candidate in taken:
            count += 1
            candidate = f"{name} #{count}"
        taken.add(candidate)
        result.append(candidate)
    return result
