"""Attention with weights of its own."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod, sqrt

import numpy as np

from diptych.errors import ModelError, ShapeError
from diptych.model.layers.base import Array, Layer, Shape
from diptych.model.layers.checks import check_least, check_rank, check_shape
from diptych.model.layers.receptive import Field

__all__ = ["MultiHeadAttention"]


@dataclass(frozen=True, eq=False)
class MultiHeadAttention(Layer):
    """Self-attention (Vaswani et al., NeurIPS 2017): (N, T, features) -> (N, T, outputs).

    Queries, keys and values are split into heads; each head is softmax(q k^T / sqrt(size of its keys)) v. The heads are
    joined and multiplied by `out`.

    Attributes:
        query, key: (inner, features).
        value: (inner of the values, features).
        out: (outputs, inner of the values).
        query_bias, key_bias, value_bias, out_bias: One number for each row, or None.
        heads: It divides the rows of `query` and of `value`.
    """

    query: Array
    key: Array
    value: Array
    out: Array
    query_bias: Array | None = None
    key_bias: Array | None = None
    value_bias: Array | None = None
    out_bias: Array | None = None
    heads: int = 1

    def check(self) -> None:
        for name in ("query", "key", "value", "out"):
            check_rank(getattr(self, name), (2,), name)
        inner, features = self.query.shape
        check_shape(self.key, (inner, features), "key")
        check_shape(self.value, (self.value.shape[0], features), "value")
        check_shape(self.out, (self.out.shape[0], self.value.shape[0]), "out")
        for name in ("query", "key", "value", "out"):
            check_shape(getattr(self, f"{name}_bias"), getattr(self, name).shape[:1], f"{name}_bias")
        check_least(self.heads, 1, "heads")
        if inner % self.heads or self.value.shape[0] % self.heads:
            raise ModelError(f"{self.heads} heads do not divide {inner} and {self.value.shape[0]}")

    def describe(self) -> list[str]:
        sizes = f"{self.query.shape[1]} -> {self.out.shape[0]}"
        biases = (self.query_bias, self.key_bias, self.value_bias, self.out_bias)
        none = all(bias is None for bias in biases)
        return [f"MultiHeadAttention {sizes}", f"{self.heads} heads", "no bias" if none else ""]

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != 3 or shape[2] != self.query.shape[1]:
            raise ShapeError(f"takes (N, time, {self.query.shape[1]}), got {shape}")
        return (*shape[:2], int(self.out.shape[0]))

    def receptive_field(self, field: Field, entry: Shape | None, result: Shape | None) -> Field | None:
        return field.whole()

    def multiply_adds(self, entry: Shape, result: Shape) -> int:
        inner, values = self.query.shape[0], self.value.shape[0]
        weights = sum(prod(map(int, w.shape)) for w in (self.query, self.key, self.value, self.out))
        return entry[0] * entry[1] * (weights + entry[1] * int(inner + values))

    def compute(self, x: Array) -> Array:
        q, k, v = (
            self._heads(x, weight, bias)
            for weight, bias in (
                (self.query, self.query_bias),
                (self.key, self.key_bias),
                (self.value, self.value_bias),
            )
        )
        scores = q @ k.swapaxes(2, 3) / sqrt(q.shape[-1])
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = shares / shares.sum(axis=-1, keepdims=True) @ v
        joined = mixed.swapaxes(1, 2).reshape(*x.shape[:2], -1)
        result: Array = joined @ self.out.astype(np.float64).T
        return result if self.out_bias is None else result + self.out_bias

    def _heads(self, x: Array, weight: Array, bias: Array | None) -> Array:
        """(N, T, features) -> (N, heads, T, inner / heads)."""
        projected = x @ weight.astype(np.float64).T
        projected = projected if bias is None else projected + bias
        return projected.reshape(*x.shape[:2], self.heads, -1).swapaxes(1, 2)
