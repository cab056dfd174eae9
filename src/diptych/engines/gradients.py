"""Derivatives of a model's output, by PyTorch's automatic differentiation on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from diptych.errors import ModelError, UsageError, reason
from diptych.formats.torch.building import network
from diptych.model.layers import Array
from diptych.model.model import Model

__all__ = ["of_input", "of_layer"]


def of_layer(model: Model, item: Array, target: int, path: str) -> tuple[Array, Array]:
    """The output of a layer, and the derivative of one of the model's outputs by it.

    Args:
        model: The model.
        item: One input, float32 (C, H, W).
        target: Which value of the flattened output.
        path: The layer's path.

    Returns:
        Two float32 arrays of the shape of the layer's output for one sample.

    Raises:
        UsageError: The output does not depend on the layer.
        ModelError: PyTorch cannot compute the derivative.
    """
    module = network(model)
    held: list[Any] = []
    handle = dict(module.named_modules())[path].register_forward_hook(
        lambda _, inputs, output: held.append(output)
    )
    try:
        score = _scores(module, torch.tensor(item[np.newaxis], requires_grad=True))[0, target]
    finally:
        handle.remove()
    (gradient,) = _derivative(score, held[:1])
    if gradient is None:
        raise UsageError(f"the output does not depend on layer {path}; name another layer")
    return held[0].detach().numpy()[0], gradient.numpy()[0]


def of_input(model: Model, batch: Array, target: int) -> Array:
    """The derivative of one of the model's outputs by its input, for every sample of a batch.

    Args:
        model: The model.
        batch: float32 (N, C, H, W).
        target: Which value of the flattened output.

    Returns:
        A float32 array of the batch's shape.

    Raises:
        ModelError: PyTorch cannot compute the derivative.
    """
    module, results = network(model), []
    for sample in batch:  # one at a time: a batch of a large network would need its memory many times
        x = torch.tensor(sample[np.newaxis], requires_grad=True)
        (gradient,) = _derivative(_scores(module, x)[0, target], [x])
        results.append(np.zeros_like(sample) if gradient is None else gradient.numpy()[0])
    return np.stack(results)


def _scores(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    try:
        scores: torch.Tensor = module(x)
        return scores.flatten(1)
    except RuntimeError as error:
        raise ModelError(f"torch could not run the model: {reason(error)}; try --method occlusion") from error


def _derivative(score: torch.Tensor, by: Sequence[torch.Tensor]) -> tuple[torch.Tensor | None, ...]:
    try:
        return torch.autograd.grad(score, by, allow_unused=True)
    except RuntimeError as error:
        raise ModelError(
            f"torch could not derive the model: {reason(error)}; try --method occlusion"
        ) from error
