"""An optimiser that gets more out of every step than AdamW: Muon for the matrices, AdamW for all else.

K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024); the scale that lets both parts
share one learning rate is that of J. Liu et al., "Muon is scalable for LLM training" (2025). PyTorch's own Muon
takes no convolutions, and its bfloat16 is slow on most CPUs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

MOMENTUM = 0.95
_QUINTIC = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Parameters move by their orthogonalised momentum. Convolutions count as matrices (out, in x height x width)."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(list(parameters), {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step; those of one shape together, which is faster."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    alike[matrix.flatten(1).shape].append(matrix)
            for shape, some in alike.items():
                found = orthogonal(torch.stack([self._momentum(matrix).flatten(1) for matrix in some]))
                for matrix, direction in zip(some, found, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.add_(direction.view_as(matrix), alpha=-group["lr"] * 0.2 * max(shape) ** 0.5)

    def _momentum(self, matrix: nn.Parameter) -> torch.Tensor:
        """Nesterov's."""
        gradient = matrix.grad
        assert gradient is not None
        state = self.state[matrix]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(gradient)
        state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        return gradient.lerp(state["momentum"], MOMENTUM)


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """The nearest matrices whose singular values all lie near one, by five steps of Newton and Schulz:
    (N, rows, columns).
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    # Every step is a polynomial of x x', so all but the last product is of small squares.
    square, whole = x @ x.mT, None
    a, b, c = _QUINTIC
    for _ in range(5):
        step = torch.baddbmm(square, square, square, beta=b, alpha=c)
        step.diagonal(dim1=1, dim2=2).add_(a)
        whole = step if whole is None else step @ whole
        square = step @ square @ step
    assert whole is not None
    x = whole @ x
    return x.mT if tall else x


def both(
    network: nn.Module, lr: float, weight_decay: float, apart: Iterable[str] = ()
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of a network and AdamW for all else: biases, scales, embeddings, and what lies under
    a name in `apart`.
    """
    plain = {id(p) for part in network.modules() if isinstance(part, nn.Embedding) for p in part.parameters()}
    matrices, others = [], []
    for name, parameter in network.named_parameters():
        other = parameter.ndim < 2 or id(parameter) in plain or name.startswith(tuple(apart))
        (others if other else matrices).append(parameter)
    return [Muon(matrices, lr, weight_decay), torch.optim.AdamW(others, lr, weight_decay=weight_decay)]
