"""torch.einsum of two operands as a product of matrices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from diptych.formats.torch.tensor_calls import TensorSite
from diptych.formats.views import Tensor
from diptych.model.layers import Array

__all__ = ["einsum"]


def einsum(s: TensorSite, equation: str, *operands: Any) -> Tensor:
    """The sum over the letters that the result lacks.

    Letters of both operands and the result, and all but one of those of the first alone, are places of matrices.
    """
    given = operands[0] if len(operands) == 1 and isinstance(operands[0], tuple | list) else operands
    text = equation.replace(" ", "")
    sides, _, result = text.partition("->")
    names = sides.split(",")
    if (
        len(given) != 2
        or len(names) != 2
        or not result
        or any(len(set(n)) < len(n) for n in (*names, result))
    ):
        s.refuse(f"only an einsum of two operands, each letter once in each, is read, not {equation!r}")
    first, second = map(s.operand, given)
    if isinstance(first, np.ndarray):
        first, second, names = second, first, names[::-1]
    if isinstance(first, np.ndarray) or "." in text:
        s.refuse(f"the einsum {equation!r} is not one of two operands")
    a, b = names
    summed = [c for c in a if c in b and c not in result]
    alone = [c for c in a if c not in b]
    if set(alone) - set(result) or {c for c in b if c not in a} - set(result):
        s.refuse(f"the einsum {equation!r} sums over a letter of one operand")
    sizes = dict(zip(a, s.shape(first), strict=True)) | dict(zip(b, _shape(s, second), strict=True))
    row = alone[-1:] if len(alone) > 1 or not isinstance(second, np.ndarray) else []
    lead = [c for c in a if c not in summed and c not in row]
    new = [c for c in b if c not in a]
    left = _arranged(s, first, a, [*lead, *row, *summed])
    left = s.reshape(left, [*(sizes[c] for c in lead), _count(sizes, row), _count(sizes, summed)])
    shared = [c for c in lead if c in b]
    right = _arranged(s, second, b, [*shared, *summed, *new])
    places = [sizes[c] if c in shared else 1 for c in lead]
    right = _reshaped(s, right, [*places, _count(sizes, summed), _count(sizes, new)])
    product = s.matmul(left, right)
    order = [*lead, *row, *new]
    product = s.reshape(product, [sizes[c] for c in order])
    return s.permute(product, [order.index(c) for c in result])


def _count(sizes: dict[str, int], letters: list[str]) -> int:
    return math.prod(sizes[c] for c in letters)


def _shape(s: TensorSite, x: Tensor | Array) -> tuple[int, ...]:
    return x.shape if isinstance(x, np.ndarray) else s.shape(x)


def _arranged(s: TensorSite, x: Any, letters: str, order: list[str]) -> Any:
    places = [letters.index(c) for c in order]
    return x.transpose(places) if isinstance(x, np.ndarray) else s.permute(x, places)


def _reshaped(s: TensorSite, x: Any, sizes: list[int]) -> Any:
    return np.ascontiguousarray(x).reshape(sizes) if isinstance(x, np.ndarray) else s.reshape(x, sizes)
