"""Schedules the functions of a filter: strips in parallel, in each a sliding window of rows, and vectors along x.

A value that others read around a pixel is stored for the rows that are still needed. A value that is read only at the
same pixel is computed in the same vector loop, in registers. Every loop runs over whole vectors, on arrays that are
larger than needed. So there is no other code for the ends of rows, and the value of a pixel does not depend on its
position.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import halide as hl

from diptych.engines.halide.lowering import BLOCK
from diptych.engines.halide.values import C, LayerValue, X, Y

__all__ = ["NARROWEST", "Plan", "schedule", "schedule_simply"]

LANES = 16  # floats in a step of a loop
NARROWEST = 32  # pixels of the picture copied at a time, and so the smallest width of an output
_CACHE = 384 * 1024  # bytes of rows that a thread should store at a time

_INWARDS = hl.TailStrategy.ShiftInwards


def values_before(last: LayerValue) -> list[LayerValue]:
    """`last` and all values that it depends on, each after its sources."""
    ordered: list[LayerValue] = []

    def visit(value: LayerValue) -> None:
        value = getattr(value, "of", None) or value
        if value not in ordered:
            for source, _ in value.sources:
                visit(source)
            ordered.append(value)

    visit(last)
    return ordered


@dataclass(frozen=True)
class Plan:
    """The sizes of the parts in which an output is computed.

    Attributes:
        rows, columns: The parameters of the program for the rows of a strip and the columns of a tile.
        column_bytes: The bytes that are stored for a column of the picture.
    """

    rows: Any
    columns: Any
    column_bytes: int

    def tile(self, height: int, width: int, halo_size: tuple[int, int], threads: int) -> tuple[int, int]:
        """Values of `rows` and `columns` for an output of height x width."""
        rows = max(-(-height // (8 * threads)), 32, 4 * halo_size[0])
        rows = min(rows, -(-height // threads))
        widest = max(_CACHE // max(self.column_bytes, 1), 128, 2 * halo_size[1])
        parts = -(-width // widest)
        columns = max(-(-width // (parts * LANES)) * LANES, NARROWEST)
        return rows, min(columns, width)


def schedule(output: Any, channels: int, last: LayerValue) -> Plan:
    """Schedules the function `output`, (c, x, y), and all values that `last` depends on."""
    rows, columns = hl.Param(hl.Int(32), "rows", 32), hl.Param(hl.Int(32), "columns", LANES)
    strips, row, tiles, inner, steps, lanes = (
        hl.Var(n) for n in ("strips", "row", "tiles", "inner", "steps", "lanes")
    )
    output.bound(C, 0, channels)
    output.split(Y, strips, row, rows, hl.TailStrategy.GuardWithIf)
    output.split(X, tiles, inner, columns, _INWARDS)
    output.split(inner, steps, lanes, LANES, _INWARDS)
    output.reorder(lanes, C, steps, row, tiles, strips).vectorize(lanes).unroll(C).parallel(strips)
    output.never_partition_all()
    values = values_before(last)
    groups = _groups(values, last)
    for value in reversed(values):
        loop = groups[value]
        if loop is None:
            value.func.store_at(output, tiles).compute_at(output, row)
        elif loop is last:
            value.func.compute_at(output, steps)
        else:
            value.func.compute_at(loop.func, _STEPS)
        _inside(value)
    kept = [value for value in values if groups[value] is None]
    return Plan(rows, columns, sum(4 * value.channels * (value.rows + 1) for value in kept))


def schedule_simply(values: list[LayerValue]) -> None:
    """Schedules the values to be computed whole, one after the other."""
    for value in values:
        value.func.compute_root()
        _inside(value)


_STEPS, _LANES = hl.Var("steps"), hl.Var("lanes")
_BLOCKS, _CHANNEL = hl.Var("blocks"), hl.Var("channel")


def _groups(values: list[LayerValue], last: LayerValue) -> dict[LayerValue, LayerValue | None]:
    """Maps each value to the stored value in whose loop it is computed, or to None if it is stored itself.

    `last` stands for the loop of the output.
    """
    groups: dict[LayerValue, LayerValue | None] = {}
    readers: dict[LayerValue, list[tuple[LayerValue, bool]]] = {value: [] for value in values}
    for value in values:
        for source, same_pixel in value.sources:
            readers[getattr(source, "of", None) or source].append((value, same_pixel))
    for value in reversed(values):
        loops = {reader if groups[reader] is None else groups[reader] for reader, _ in readers[value]}
        if value is last:
            groups[value] = None if value.copies else last
        elif len(loops) == 1 and not value.copies and all(same for _, same in readers[value]):
            groups[value] = next(iter(loops))
        else:
            groups[value] = None
    return groups


def _inside(value: LayerValue) -> None:
    """Schedules the loops over the pixels of a value."""
    func = value.func
    if value.copies:
        if not value.tuple:
            func.reorder_storage(X, C, Y).reorder(C, X, Y)
            func.bound(C, 0, value.channels)
            if value.channels <= 4:
                func.unroll(C)
        func.partition(Y, hl.Partition.Never)
        func.vectorize(X, NARROWEST if value.tuple is False and not value.sources else LANES, _INWARDS)
        return
    func.split(X, _STEPS, _LANES, LANES, _INWARDS).vectorize(_LANES)
    func.never_partition_all()
    if value.tuple:
        return
    func.reorder_storage(X, C, Y)
    if value.sums is None:
        func.reorder(_LANES, C, _STEPS, Y)
        return
    sums, taps = value.sums
    func.split(C, _BLOCKS, _CHANNEL, BLOCK, hl.TailStrategy.RoundUp).unroll(_CHANNEL)
    func.reorder(_LANES, _CHANNEL, _BLOCKS, _STEPS, Y)
    sums.compute_at(func, _BLOCKS).never_partition_all()
    whole = hl.TailStrategy.RoundUp  # the surrounding loop has the same steps
    sums.vectorize(X, LANES, whole).unroll(C)
    update = sums.update()
    update.reorder(X, C, taps.x, taps.y, taps.z).vectorize(X, LANES, whole).unroll(C)
    update.never_partition_all()
