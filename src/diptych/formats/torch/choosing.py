"""Comparisons, masks and constants of a value's shape: the table `CHOICES`, by PyTorch's names.

A truth value is a float of 0 or 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from diptych.formats.graph import BATCH, Value
from diptych.formats.torch.tensor_calls import Rule, TensorSite, binary, listed
from diptych.formats.views import FAR, Tensor, View
from diptych.model.layers import Activation

__all__ = ["CHOICES"]


def _compare(relation: str) -> Rule:
    return lambda s, a, b: s.compare(relation, s.operand(a), s.operand(b))


def _where(s: TensorSite, condition: Any, first: Any, second: Any) -> Tensor:
    return s.choose(s.operand(condition), s.operand(first), s.operand(second))


def _not(s: TensorSite, x: Tensor) -> Tensor:
    return s.apply(x, Activation("affine", (-1.0, 1.0)))


def _masked_fill(s: TensorSite, x: Any, mask: Any, value: Any) -> Tensor:
    """A number where a constant is true: the others times 1 plus 0."""
    if not isinstance(mask, torch.Tensor) or isinstance(x, torch.Tensor) or isinstance(value, Value | View):
        return s.choose(s.operand(mask), s.operand(value), s.operand(x))
    chosen = s.array(mask) != 0
    number = min(max(float(value), -FAR), FAR)
    kept = s.combine("multiply", x, (~chosen).astype(np.float32))
    return s.combine("add", kept, np.where(chosen, number, 0).astype(np.float32))


def _filled_like(number: float | None) -> Rule:
    """A constant of the shape of a value, or of that which is given."""

    def rule(s: TensorSite, x: Tensor, *given: Any, fill_value: Any = None, **others: Any) -> torch.Tensor:
        sizes = list(given)
        if number is None and fill_value is None:
            fill_value = sizes.pop()
        filled = torch.tensor(float(fill_value if number is None else number))
        named = others.get("size", sizes)
        shape = tuple(int(n) for n in (listed(named) if named else s.shape(x)))
        whole = filled.expand(shape)
        # Code may write into parts of it; one with a number for each sample stays as small as it is.
        return whole if any(n and n % BATCH == 0 for n in shape) else whole.clone()

    return rule


CHOICES: dict[str, Rule] = {
    "masked_fill": _masked_fill,
    "where": _where,
    **{name: _filled_like(0.0) for name in ("zeros_like", "empty_like", "new_zeros", "new_empty")},
    **{name: _filled_like(1.0) for name in ("ones_like", "new_ones")},
    **{name: _filled_like(None) for name in ("full_like", "new_full")},
    **{name: _compare("greater") for name in ("gt", "greater")},
    **{name: _compare("less") for name in ("lt", "less")},
    **{name: _compare("at least") for name in ("ge", "greater_equal")},
    **{name: _compare("at most") for name in ("le", "less_equal")},
    **{name: _compare("equal") for name in ("eq",)},
    **{name: _compare("different") for name in ("ne", "not_equal")},
    **{name: binary("multiply") for name in ("logical_and", "bitwise_and", "and_", "__and__")},
    **{name: binary("maximum") for name in ("logical_or", "bitwise_or", "or_", "__or__")},
    **dict.fromkeys(("logical_not", "bitwise_not", "invert", "__invert__"), _not),
}
