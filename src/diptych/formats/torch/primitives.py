"""Modules for the layers that other frameworks write as indexing, views and reductions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.model.layers import Reduction

__all__ = [
    "Constant",
    "Embedding",
    "Expand",
    "Gather",
    "LocalResponseNorm",
    "PReLU",
    "Permute",
    "Reduce",
    "Slice",
]


class Permute(nn.Module):
    """Axis i of the output is axis `order[i]` of the input."""

    def __init__(self, order: tuple[int, ...]) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        """The same values with their axes reordered."""
        return x.permute(self.order)

    def extra_repr(self) -> str:
        """The order."""
        return f"{self.order}"


class Slice(nn.Module):
    """The values start, start + step, ... before `stop` along one axis."""

    def __init__(self, axis: int, start: int, stop: int, step: int) -> None:
        super().__init__()
        self.axis, self.start, self.stop, self.step = axis, start, stop, step

    def forward(self, x: Tensor) -> Tensor:
        """The chosen values."""
        return x[(slice(None),) * self.axis + (slice(self.start, self.stop, self.step),)]

    def extra_repr(self) -> str:
        """The arguments."""
        return f"axis={self.axis}, {self.start}:{self.stop}:{self.step}"


class Gather(nn.Module):
    """The values at `indices` along one axis."""

    indices: Tensor

    def __init__(self, indices: Tensor, axis: int) -> None:
        super().__init__()
        self.register_buffer("indices", indices)
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        """The chosen values."""
        return x.index_select(self.axis, self.indices.long())

    def extra_repr(self) -> str:
        """The axis and the number of indices."""
        return f"{len(self.indices)}, axis={self.axis}"


class Expand(nn.Module):
    """(N, C, 1, 1) -> (N, *shape); an entry of 1 leaves its axis as it is."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        """The repeated values."""
        return x.expand(len(x), *(max(n, m) for n, m in zip(x.shape[1:], self.shape, strict=True)))

    def extra_repr(self) -> str:
        """The shape."""
        return f"{self.shape}"


class Constant(nn.Module):
    """The same value for every sample."""

    def __init__(self, value: nn.Parameter) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        """(N, ...) -> (N, *value.shape)."""
        return self.value.expand(len(x), *self.value.shape)

    def extra_repr(self) -> str:
        """The shape."""
        return f"{tuple(self.value.shape)}"


_REDUCTIONS: dict[str, Callable[..., Tensor]] = {
    "mean": torch.mean,
    "sum": torch.sum,
    "max": torch.amax,
    "min": torch.amin,
    "logsumexp": torch.logsumexp,
}


class Reduce(nn.Module):
    """One number in place of all values along some axes, by a kind of `layers.Reduce`."""

    def __init__(self, kind: str, axes: tuple[int, ...], keep: bool) -> None:
        super().__init__()
        self.kind, self.axes, self.keep = kind, axes, keep

    def forward(self, x: Tensor) -> Tensor:
        """The reduced values."""
        if self.kind != "product":
            return _REDUCTIONS[self.kind](x, dim=self.axes, keepdim=self.keep)
        for axis in reversed(self.axes):  # torch.prod takes one axis at a time
            x = x.prod(dim=axis, keepdim=self.keep)
        return x

    def extra_repr(self) -> str:
        """The arguments."""
        return f"{self.kind}, {self.axes}, keep={self.keep}"


class PReLU(nn.Module):
    """x where it is positive, elsewhere slope * x; the slope meets the last axes of x."""

    def __init__(self, slope: nn.Parameter) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        """The function applied to every value."""
        return torch.where(x > 0, x, x * self.slope)

    def extra_repr(self) -> str:
        """The shape of the slopes."""
        return f"{tuple(self.slope.shape)}"


class LocalResponseNorm(nn.Module):
    """x / (bias + alpha * mean of x^2 over neighbouring channels)^beta, see `layers.LocalResponseNorm`."""

    def __init__(self, before: int, after: int, alpha: float, beta: float, bias: float) -> None:
        super().__init__()
        self.before, self.after, self.alpha, self.beta, self.bias = before, after, alpha, beta, bias

    def forward(self, x: Tensor) -> Tensor:
        """The normalised values."""
        flat: Any = x.reshape(len(x), 1, x.shape[1], -1)
        before, after = (min(side, x.shape[1] - 1) for side in (self.before, self.after))
        squares = F.pad(flat.square(), (0, 0, before, after))
        size = self.before + 1 + self.after
        mean = F.avg_pool2d(squares, (before + 1 + after, 1), stride=1, divisor_override=size).reshape(
            x.shape
        )
        return x / (self.bias + self.alpha * mean) ** self.beta

    def extra_repr(self) -> str:
        """The arguments."""
        return f"{self.before}+1+{self.after}, alpha={self.alpha}, beta={self.beta}, bias={self.bias}"


class Embedding(nn.Module):
    """The rows of `weight` whose indices, counted from `first`, are the input; reduced over the indices' last axis."""

    def __init__(self, weight: nn.Parameter, first: int, reduction: Reduction) -> None:
        super().__init__()
        self.weight, self.first = weight, first
        self.reduction: Reduction = reduction

    def forward(self, x: Tensor) -> Tensor:
        """(N, ...) -> (N, ..., features)."""
        rows = torch.clamp(torch.round(x) - self.first, 0, len(self.weight) - 1).long()
        found = self.weight[rows]
        if self.reduction == "none":
            return found
        operation: Any = {"mean": torch.mean, "sum": torch.sum, "max": torch.amax}[self.reduction]
        result: Tensor = operation(found, dim=-2)
        return result

    def extra_repr(self) -> str:
        """The arguments."""
        return f"{tuple(self.weight.shape)}, first={self.first}, reduction={self.reduction!r}"
