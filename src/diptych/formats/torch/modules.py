"""Modules for layers that `torch.nn` lacks, and modules of `torch.nn` with an activation or uneven padding.

The latter are subclasses of the classes in `torch.nn`, and have the same parameters with the same names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.model import layers
from diptych.model.layers import (
    Connection,
    NormFormula,
    WindowRule,
    pool_windows,
    sample_positions,
)

__all__ = [
    "ELEMENTWISE",
    "AdaptivePool",
    "AnyBatchNorm",
    "AnyInstanceNorm",
    "Bilinear",
    "Elementwise",
    "Extended",
    "Graph",
    "Join",
    "LayerNormStd",
    "Network",
    "Normalise",
    "Parallel",
    "PixelShuffle",
    "Reshape",
    "Scale",
    "SkipConnection",
    "SymmetricPad",
    "TrackedGroupNorm",
    "Upsample",
    "WidePool",
]


class Network(nn.Sequential):
    """A whole model. Its layers are the children "0", "1" ...

    Attributes:
        record: The model without its layers.
    """

    record: Any = None


# ---- Extensions of modules of torch.nn ----------------------------------------------------------------


class Extended(nn.Module):
    """Mixin that pads the input of another module with zeros and applies an activation to its output.

    The activation is the child "activation", if there is one.

    Attributes:
        edges: Zeros around the input, or around the output of a transposed convolution, where negative numbers crop;
            in the order of `F.pad`.
    """

    edges: Sequence[int] = ()

    def forward(self, x: Tensor) -> Tensor:
        """The layer, then its activation."""
        if any(self.edges):
            x = F.pad(x, list(self.edges))
        return self._activated(super().forward(x))

    def _activated(self, x: Tensor) -> Tensor:
        activation = self._modules.get("activation")
        return x if activation is None else activation(x)

    def extra_repr(self) -> str:
        """The arguments and the edges."""
        edges = f", edges={tuple(self.edges)}" if any(self.edges) else ""
        return super().extra_repr() + edges


class Conv1d(Extended, nn.Conv1d):
    """`nn.Conv1d` with uneven padding or an activation."""


class Conv2d(Extended, nn.Conv2d):
    """`nn.Conv2d` with uneven padding or an activation."""


class Conv3d(Extended, nn.Conv3d):
    """`nn.Conv3d` with uneven padding or an activation."""


class _Transposed(Extended):
    """Computes the whole output, crops it or extends it with zeros by `edges`, then adds the bias."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """The layer, then its activation."""
        own: Any = self
        rank = len(own.kernel_size)
        function: Any = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
        full = function(x, own.weight, None, own.stride, 0, 0, own.groups, own.dilation)
        cut = F.pad(full, list(self.edges)) if any(self.edges) else full
        return self._activated(cut if own.bias is None else cut + own.bias.reshape(-1, *[1] * rank))


class ConvTranspose1d(_Transposed, nn.ConvTranspose1d):
    """`nn.ConvTranspose1d` with uneven padding or an activation."""


class ConvTranspose2d(_Transposed, nn.ConvTranspose2d):
    """`nn.ConvTranspose2d` with uneven padding or an activation."""


class ConvTranspose3d(_Transposed, nn.ConvTranspose3d):
    """`nn.ConvTranspose3d` with uneven padding or an activation."""


class Linear(Extended, nn.Linear):
    """`nn.Linear` with an activation."""


class BatchNorm1d(Extended, nn.BatchNorm1d):
    """`nn.BatchNorm1d` with an activation."""


class BatchNorm2d(Extended, nn.BatchNorm2d):
    """`nn.BatchNorm2d` with an activation."""


class BatchNorm3d(Extended, nn.BatchNorm3d):
    """`nn.BatchNorm3d` with an activation."""


class AnyBatchNorm(Extended, nn.modules.batchnorm._BatchNorm):
    """`nn.BatchNorm1d`, `2d` or `3d`, whichever fits the input.

    In evaluation mode without stored statistics it also takes a single value per channel, unlike PyTorch.
    """

    def forward(self, x: Tensor) -> Tensor:
        """The layer, then its activation."""
        if self.training or self.running_mean is not None:
            return super().forward(x)
        variance, mean = torch.var_mean(x, (0, *range(2, x.ndim)), correction=0)
        return self._activated(F.batch_norm(x, mean, variance, self.weight, self.bias, eps=self.eps))

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - PyTorch's name
        if input.ndim < 2:
            raise ValueError(f"expected (N, C, ...), got {input.ndim} axes")


class AnyInstanceNorm(Extended, nn.modules.instancenorm._InstanceNorm):
    """`nn.InstanceNorm1d`, `2d` or `3d`, whichever fits. Without weights it takes any number of channels."""

    def forward(self, x: Tensor) -> Tensor:
        """The layer, then its activation."""
        if self.track_running_stats:
            stored = (self.running_mean, self.running_var, self.weight, self.bias, self.training)
            return self._activated(F.instance_norm(x, *stored, self.momentum or 0.0, self.eps))
        return self._activated(torch.group_norm(x, x.shape[1], self.weight, self.bias, self.eps))

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - PyTorch's name
        if input.ndim < 3:
            raise ValueError(f"expected (N, C, *spatial), got {input.ndim} axes")


class LayerNorm(Extended, nn.LayerNorm):
    """`nn.LayerNorm` with an activation."""


class LayerNormStd(LayerNorm):
    """The formula of Flux up to 0.14: (x - mean) / (standard deviation + eps)."""

    def forward(self, x: Tensor) -> Tensor:
        """The layer, then its activation."""
        last = tuple(range(-len(self.normalized_shape), 0))
        deviation, mean = torch.std_mean(x, last, correction=0, keepdim=True)
        result = (x - mean) / (deviation + self.eps)
        result = result if self.weight is None else result * self.weight
        return self._activated(result if self.bias is None else result + self.bias)


class GroupNorm(Extended, nn.GroupNorm):
    """`nn.GroupNorm` with an activation, which also takes groups of a single value."""

    def forward(self, x: Tensor) -> Tensor:
        """The layer, then its activation."""
        return self._activated(torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps))


class TrackedGroupNorm(GroupNorm):
    """GroupNorm with stored statistics, (groups,), as in Flux up to 0.12. Training does not change them."""

    running_mean: Tensor
    running_var: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """The layer, then its activation."""
        each = x.shape[1] // self.num_groups
        spread = (self.running_mean.repeat_interleave(each), self.running_var.repeat_interleave(each))
        return self._activated(F.batch_norm(x, *spread, self.weight, self.bias, eps=self.eps))


class Scale(Extended):
    """x * scale + bias, both broadcast against the last axes."""

    def __init__(self, scale: nn.Parameter, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.scale = scale
        self.bias: nn.Parameter | None
        self.register_parameter("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """The layer, then its activation."""
        product = x * self.scale
        return self._activated(product if self.bias is None else product + self.bias)

    def extra_repr(self) -> str:
        """The shape of the weights."""
        return f"{tuple(self.scale.shape)}"


class Bilinear(Extended):
    """Output k is the sum over i and j of weight[k, i, j] x[i] x[j], along the last axis, plus bias[k]."""

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.weight = weight
        self.bias: nn.Parameter | None
        self.register_parameter("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """The layer, then its activation."""
        result = torch.einsum("...i,kij,...j->...k", x, self.weight, x)
        return self._activated(result if self.bias is None else result + self.bias)

    def extra_repr(self) -> str:
        """The numbers of features."""
        return f"in_features={self.weight.shape[1]}, out_features={self.weight.shape[0]}"


class Normalise(nn.Module):
    """Normalises to mean 0 and standard deviation 1 along one axis, by a formula of `layers.NormFormula`."""

    def __init__(self, axis: int, epsilon: float, formula: NormFormula) -> None:
        super().__init__()
        self.axis, self.epsilon = axis, epsilon
        self.formula: NormFormula = formula

    def forward(self, x: Tensor) -> Tensor:
        """The normalised values."""
        variance, mean = torch.var_mean(x, self.axis, correction=0, keepdim=True)
        if self.formula == "std + eps":
            return (x - mean) / (variance.sqrt() + self.epsilon)
        epsilon = self.epsilon ** (2 if self.formula == "sqrt(var + eps^2)" else 1)
        return (x - mean) / (variance + epsilon).sqrt()

    def extra_repr(self) -> str:
        """The arguments."""
        return f"axis={self.axis}, epsilon={self.epsilon}, formula={self.formula!r}"


# ---- Functions ----------------------------------------------------------------------------------------


def _logcosh(x: Tensor) -> Tensor:
    size = x.abs()
    return size + torch.log1p(torch.exp(-2 * size)) - float(np.log(2))


ELEMENTWISE: dict[str, Callable[..., Tensor]] = {
    "hardtanh": torch.clamp,
    "hardsigmoid": lambda x, slope: torch.clamp(slope * x + 0.5, 0, 1),
    "quickgelu": lambda x: x * torch.sigmoid(1.702 * x),
    "hardswish": lambda x: x * F.hardsigmoid(x),
    "lisht": lambda x: x * torch.tanh(x),
    "logcosh": _logcosh,
    "abs": torch.abs,
    "abs2": torch.square,
    "exp": torch.exp,
    "sqrt": torch.sqrt,
    "sin": torch.sin,
    "cos": torch.cos,
    "tan": torch.tan,
    "asin": torch.asin,
    "acos": torch.acos,
    "atan": torch.atan,
    "sinh": torch.sinh,
    "cosh": torch.cosh,
    "asinh": torch.asinh,
    "acosh": torch.acosh,
    "atanh": torch.atanh,
    "log": torch.log,
    "erf": torch.erf,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "round": torch.round,
    "trunc": torch.trunc,
    "sign": torch.sign,
    "step": lambda x, theta: (x > theta).to(x.dtype),
    "power": torch.pow,
    "clamp": torch.clamp,
    "affine": lambda x, scale, shift: scale * x + shift,
}


class Elementwise(nn.Module):
    """An elementwise function by its name in `layers.ACTIVATIONS`."""

    def __init__(self, name: str, parameters: tuple[float, ...]) -> None:
        super().__init__()
        self.name, self.arguments = name, parameters

    def forward(self, x: Tensor) -> Tensor:
        """The function applied to every value."""
        return ELEMENTWISE[self.name](x, *self.arguments)

    def extra_repr(self) -> str:
        """The name and the parameters."""
        return ", ".join(map(str, (self.name, *self.arguments)))


# ---- Pools and shape ----------------------------------------------------------------------------------

_POOLS: dict[str, tuple[Callable[..., Tensor], ...]] = {
    "max": (F.max_pool1d, F.max_pool2d, F.max_pool3d),
    "mean": (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d),
}


class WidePool(nn.Module):
    """A pool with uneven padding, or padding of more than half a window.

    Args:
        kind: "max" or "mean".
        kernel, stride: One number for each spatial axis.
        pads: (low, high) for each spatial axis.
        count: Whether the mean counts the padding.
        dilation: Of a max pool; () for 1.
    """

    def __init__(
        self,
        kind: str,
        kernel: Sequence[int],
        stride: Sequence[int],
        pads: Any,
        count: bool,
        dilation: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.kind, self.kernel, self.stride = kind, tuple(kernel), tuple(stride)
        self.dilation = tuple(dilation) or (1,) * len(self.kernel)
        self.padding, self.count_padding = tuple(tuple(pair) for pair in pads), count
        self._edges = [edge for pair in reversed(self.padding) for edge in pair]

    def forward(self, x: Tensor) -> Tensor:
        """The maximum or mean of every window."""
        fill = -torch.inf if self.kind == "max" else 0.0
        pooled = self._pool(F.pad(x, self._edges, value=fill))
        if self.kind == "max" or self.count_padding:
            return pooled
        inside = self._pool(F.pad(torch.ones_like(x[:1, :1]), self._edges))
        return torch.where(inside > 0, pooled / inside, 0.0)

    def _pool(self, x: Tensor) -> Tensor:
        more = {"dilation": self.dilation} if self.kind == "max" else {}
        return _POOLS[self.kind][len(self.kernel) - 1](x, self.kernel, self.stride, **more)

    def extra_repr(self) -> str:
        """The arguments."""
        counted = "" if self.count_padding else ", count_padding=False"
        dilated = f", dilation={self.dilation}" if set(self.dilation) != {1} else ""
        return f"{self.kind}, {self.kernel}, stride={self.stride}, padding={self.padding}{counted}{dilated}"


class AdaptivePool(nn.Module):
    """Adaptive pooling.

    Args:
        kind: "max" or "mean".
        output: The number of windows along each spatial axis; None for one window over any number of axes.
        rule: How windows are placed, see `layers.pool_windows`.
    """

    def __init__(self, kind: str, output: tuple[int, ...] | None, rule: WindowRule = "pytorch") -> None:
        super().__init__()
        self.kind, self.output, self.rule = kind, output, rule

    def forward(self, x: Tensor) -> Tensor:
        """The maximum or mean of every window."""
        pool: Any = torch.amax if self.kind == "max" else torch.mean
        if self.output is None:
            result: Tensor = pool(x, dim=tuple(range(2, x.ndim)), keepdim=True)
            return result
        for axis, count in enumerate(self.output, start=2):
            windows = pool_windows(x.shape[axis], count, self.rule)
            x = torch.stack([pool(x.narrow(axis, a, b - a), dim=axis) for a, b in windows], axis)
        return x

    def extra_repr(self) -> str:
        """The arguments."""
        return self.kind if self.output is None else f"{self.kind}, {self.output}, rule={self.rule!r}"


class Reshape(nn.Module):
    """(N, ...) -> (N, *shape)."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        """The same values in another shape."""
        return x.reshape(len(x), *self.shape)

    def extra_repr(self) -> str:
        """The shape."""
        return f"{self.shape}"


class Upsample(nn.Module):
    """Nearest upsampling with index floor(i n / m), or linear upsampling with exact coordinates.

    The float32 coordinates of `nn.Upsample` are off by more than 1e-5 from 200 pixels on.
    """

    def __init__(self, scale: tuple[float, ...], size: tuple[int, ...], mode: str, corners: bool) -> None:
        super().__init__()
        self.scale, self.size, self.mode, self.align_corners = scale, size, mode, corners

    def forward(self, x: Tensor) -> Tensor:
        """The enlarged pictures."""
        sizes = self.size or tuple(int(n * f) for n, f in zip(x.shape[2:], self.scale, strict=True))
        for axis, size in enumerate(sizes, start=2):
            x = self._nearest(x, axis, size) if self.mode == "nearest" else self._linear(x, axis, size)
        return x

    def _nearest(self, x: Tensor, axis: int, size: int) -> Tensor:
        return x.index_select(axis, torch.arange(size, device=x.device) * x.shape[axis] // size)

    def _linear(self, x: Tensor, axis: int, size: int) -> Tensor:
        n = x.shape[axis]
        positions = np.array(sample_positions(n, size, self.align_corners))
        low = positions.astype(np.int64)
        share = torch.tensor(np.float32(positions - low), device=x.device)
        first = x.index_select(axis, torch.tensor(low, device=x.device))
        second = x.index_select(axis, torch.tensor(np.minimum(low + 1, n - 1), device=x.device))
        return torch.lerp(first, second, share.reshape(-1, *[1] * (x.ndim - axis - 1)))

    def extra_repr(self) -> str:
        """The arguments."""
        where = f"size={self.size}" if self.size else f"scale={self.scale}"
        corners = ", align_corners=True" if self.align_corners else ""
        return f"{where}, mode={self.mode!r}{corners}"


class SymmetricPad(nn.Module):
    """Extends the spatial axes by their mirror images, which repeat the edge value."""

    def __init__(self, padding: layers.Pads) -> None:
        super().__init__()
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *spatial), larger by `padding`, a pair (low, high) for each spatial axis."""
        for axis, (low, high) in enumerate(self.padding, start=2):
            before = x.narrow(axis, 0, low).flip(axis)
            after = x.narrow(axis, x.shape[axis] - high, high).flip(axis)
            x = torch.cat([before, x, after], axis)
        return x

    def extra_repr(self) -> str:
        """The padding."""
        return str(self.padding)


class PixelShuffle(nn.Module):
    """`nn.PixelShuffle` over any number of spatial axes."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """(N, C r^k, *spatial) -> (N, C, *spatial r)."""
        rank = x.ndim - 2
        split = x.reshape(len(x), -1, *[self.factor] * rank, *x.shape[2:])
        pairs = [
            axis for i in range(rank) for axis in (2 + rank + i, 2 + i)
        ]  # each spatial axis, then its factor
        return split.permute(0, 1, *pairs).reshape(
            len(x), split.shape[1], *(n * self.factor for n in x.shape[2:])
        )

    def extra_repr(self) -> str:
        """The factor."""
        return f"{self.factor}"


# ---- Containers ---------------------------------------------------------------------------------------


_OPERATORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "multiply": torch.mul,
    "subtract": torch.sub,
    "divide": torch.div,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "matmul": torch.matmul,
}


def _join(connection: Connection, values: Sequence[Tensor]) -> Tensor:
    if connection.operation == "concatenate":
        return torch.cat(tuple(values), connection.axis)
    if connection.operation == "where":
        return torch.where(values[0] != 0, values[1], values[2])
    return reduce(_OPERATORS[connection.operation], values)


class _Joining(nn.Sequential):
    def __init__(self, connection: Connection, branches: Sequence[nn.Module]) -> None:
        super().__init__(*branches)
        self.connection = connection

    def extra_repr(self) -> str:
        """How the branches are joined."""
        return self.connection.label


class SkipConnection(_Joining):
    """connection(inner(x), x)."""

    def forward(self, x: Tensor) -> Tensor:
        """The output of the inner layer joined with the input."""
        return _join(self.connection, [self[0](x), x])


class Parallel(_Joining):
    """connection(branch(x) for every branch)."""

    def forward(self, x: Tensor) -> Tensor:
        """The outputs of all branches joined."""
        return _join(self.connection, [branch(x) for branch in self])


class Join(nn.Module):
    """A node of a `Graph` that joins several values."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.connection = connection

    def forward(self, *values: Tensor) -> Tensor:
        """The joined value."""
        return _join(self.connection, values)

    def extra_repr(self) -> str:
        """How the values are joined."""
        return self.connection.label


class Graph(nn.Sequential):
    """The module of a `diptych.model.layers.Graph`. It gives the first of the outputs."""

    def __init__(self, graph: layers.Graph, nodes: Sequence[nn.Module]) -> None:
        super().__init__(*nodes)
        self.structure = graph.with_children([layers.IDENTITY] * len(nodes))

    def forward(self, x: Tensor) -> Tensor:
        """The value of the first output."""

        def child(index: int, *values: Tensor) -> Tensor:
            result: Tensor = self[index](*values)
            return result

        return self.structure.through(x, child, _join)

    def extra_repr(self) -> str:
        """The inputs of each node, and the outputs."""
        pairs = zip(self.structure.names, self.structure.inputs, strict=True)
        nodes = [f"{name}({', '.join(inputs)})" for name, inputs in pairs]
        return ", ".join([*nodes, f"outputs={self.structure.outputs}"])
