"""Sizes that may not be known yet: an array's shape where a file tells its weights but not the size of its input.

A size is a whole number or a `Dim`, a product of unknown sizes. Shapes are in our order, (N, C, H, W).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TypeAlias

from diptych.errors import ModelError
from diptych.model.layers import (
    Connection,
    Conv,
    ConvTranspose,
    Dense,
    Flatten,
    Layer,
    MaxPool,
    MeanPool,
    MultiHeadAttention,
    Permute,
    Recurrent,
    Reshape,
    fold,
)

__all__ = [
    "BATCH",
    "Dim",
    "Shape",
    "Size",
    "behind",
    "divided",
    "followed",
    "fresh",
    "known",
    "plus",
    "product",
    "unknown",
]

_NUMBERS = count()
_PRIMES = ((11, 13, 17, 19, 23, 29, 31, 37), (41, 43, 47, 53, 59, 61, 67, 71))
_ROUND = 2**6 * 9 * 5 * 7  # what unknown sizes are taken to be divisible by while shapes are followed


@dataclass(frozen=True)
class Dim:
    """`factor` times the product of the unknown sizes of these names."""

    factor: int
    names: tuple[str, ...]


Size: TypeAlias = int | Dim
Shape: TypeAlias = tuple[Size, ...]

BATCH = Dim(1, ("N",))


def fresh() -> Dim:
    """A size of which nothing is known."""
    return Dim(1, (f"size {next(_NUMBERS)}",))


def product(sizes: Sequence[Size]) -> Size:
    """The product of sizes."""
    factor = 1
    names: list[str] = []
    for size in sizes:
        factor *= size if isinstance(size, int) else size.factor
        names += [] if isinstance(size, int) else size.names
    return Dim(factor, tuple(sorted(names))) if names and factor else factor


def divided(a: Size, b: Size) -> Size | None:
    """a / b where that is certainly whole, or else None."""
    names = list(a.names) if isinstance(a, Dim) else []
    for name in b.names if isinstance(b, Dim) else ():
        if name not in names:
            return None
        names.remove(name)
    top, below = (size if isinstance(size, int) else size.factor for size in (a, b))
    if below == 0 or top % below:
        return None
    return Dim(top // below, tuple(names)) if names else top // below


def plus(a: Size, b: Size) -> Size | None:
    """a + b, or None where it cannot be told as a product."""
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    if isinstance(a, Dim) and isinstance(b, Dim) and a.names == b.names:
        return Dim(a.factor + b.factor, a.names) if a.factor + b.factor else 0
    return a if b == 0 else b if a == 0 else None


def known(shape: Shape | None) -> tuple[int, ...] | None:
    """The sizes behind the batch axis if all of them are numbers, or else None."""
    if shape is None:
        return None
    sizes = [size for size in shape[1:] if isinstance(size, int)]
    return tuple(sizes) if len(sizes) == len(shape) - 1 else None


def followed(
    rule: Callable[[list[tuple[int, ...]]], tuple[int, ...]], shapes: Sequence[Shape]
) -> Shape | None:
    """What a rule for shapes of numbers gives for shapes with unknown sizes, or None if it refuses them.

    The rule is tried with two sets of large numbers for the unknown sizes: what stays the same is known.
    """
    unknown = list(dict.fromkeys(n for shape in shapes for d in shape if isinstance(d, Dim) for n in d.names))
    if len(unknown) > len(_PRIMES[0]):
        return None
    results: list[tuple[int, ...]] = []
    tables = [{n: _ROUND * p for n, p in zip(unknown, primes, strict=False)} for primes in _PRIMES]
    for table in tables:
        table["N"] = 1
        try:
            results.append(rule([tuple(_value(size, table) for size in shape) for shape in shapes]))
        except ModelError:
            return None
    if len(results[0]) != len(results[1]):
        return None
    candidates = [size for shape in shapes for size in shape[1:] if isinstance(size, Dim)]
    candidates += [whole for shape in shapes if isinstance(whole := product(shape[1:]), Dim)]
    pairs = list(zip(*results, strict=True))
    return (BATCH, *(_named(pair, candidates, tables) for pair in pairs[1:]))


def _value(size: Size, table: dict[str, int]) -> int:
    if isinstance(size, int):
        return size
    value = size.factor
    for name in size.names:
        value *= table[name]
    return value


def _named(pair: tuple[int, ...], candidates: Sequence[Dim], tables: Sequence[dict[str, int]]) -> Size:
    if pair[0] == pair[1]:
        return pair[0]
    for size in candidates:
        values = [_value(size, table) for table in tables]
        if pair[0] * values[1] != pair[1] * values[0]:
            continue
        if pair[0] % values[0] == 0:
            return Dim(size.factor * (pair[0] // values[0]), size.names)
        if values[0] % pair[0] == 0 and size.factor % (values[0] // pair[0]) == 0:
            return Dim(size.factor // (values[0] // pair[0]), size.names)
    return fresh()


def _by_its_weights(layer: Layer, shape: Shape | None) -> Shape | None:
    """The shape behind a layer that takes a certain number of axes, or sizes that are not known in front of it."""
    if isinstance(layer, MultiHeadAttention):
        return (BATCH, shape[1] if shape is not None and len(shape) == 3 else fresh(), len(layer.out))
    if isinstance(layer, Recurrent | Dense):  # of features whose number was not known
        outputs = layer.hidden if isinstance(layer, Recurrent) else len(layer.weight)
        return None if shape is None or isinstance(shape[-1], int) else (*shape[:-1], outputs)
    if isinstance(layer, Conv | ConvTranspose):
        return (
            BATCH,
            len(layer.bias) if layer.bias is not None else fresh(),
            *unknown(layer.weight.ndim - 2),
        )
    if isinstance(layer, MaxPool | MeanPool):
        return (BATCH, *unknown(len(layer.kernel) + 1))
    if isinstance(layer, Flatten):
        return (BATCH, fresh())
    if isinstance(layer, Reshape):
        return (BATCH, *(fresh() if size == -1 else size for size in layer.shape))
    return (BATCH, *unknown(len(layer.order) - 1)) if isinstance(layer, Permute) else None


def unknown(count: int) -> Shape:
    """So many sizes of which nothing is known."""
    return tuple(fresh() for _ in range(count))


def behind(layer: Layer, shape: Shape | None) -> Shape | None:
    """The shape behind a layer, or None where it is not known."""

    def leaf(layer: Layer, shape: Shape | None, path: str) -> Shape | None:
        result = None if shape is None else followed(lambda shapes: layer.output_shape(shapes[0]), [shape])
        return result or _by_its_weights(layer, shape)

    def join(connection: Connection, shapes: Sequence[Shape | None], path: str) -> Shape | None:
        all_known = [shape for shape in shapes if shape is not None]
        return followed(connection.joined_shape, all_known) if len(all_known) == len(shapes) else None

    return fold(layer, shape, leaf, join)
