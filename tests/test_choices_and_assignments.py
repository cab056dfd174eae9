"""Comparisons, masks and assignments to a part of a tensor: what PyTorch code does to values by condition or place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import diptych
from diptych.errors import UnsupportedLayer

IMAGES = torch.tensor(np.random.default_rng(8).standard_normal((3, 4, 6, 8)), dtype=torch.float32)


class Code(nn.Module):
    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def channels(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, 1:3] = 0
    return x


def last_row(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, :, -1] = x[:, :, 0]
    return y


def into_zeros(x: Tensor) -> Tensor:
    y = torch.zeros(x.shape[0], 6, 6, 8)
    y[:, 1:5] = x
    return y


def like_the_input(x: Tensor) -> Tensor:
    y = x.new_zeros(x.shape[0], 4, 8, 8)
    y[:, :, 1:-1] = x
    return y


def added_in_place(x: Tensor) -> Tensor:
    y = x * 1
    y[:, 1:, 2:] += 1.5
    return y


def a_part_in_place(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, 0].mul_(2)
    return y


def rows_of_a_channel(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, 1, 2:4] = x[:, 0, :2]
    return y


def by_a_mask(x: Tensor) -> Tensor:
    y = x.clone()
    y[x < 0] = 7.0
    return y


def causal(x: Tensor) -> Tensor:
    mask = torch.tril(torch.ones(6, 8, dtype=torch.bool))
    return x.masked_fill(~mask, float("-inf")).softmax(-1)


CODE: dict[str, Callable[[Tensor], Any]] = {
    "where": lambda x: torch.where(x > 0.5, x, torch.zeros_like(x)),
    "where-of-branches": lambda x: torch.where((x > 0) & (x < 1), x.exp(), -x),
    "where-keeps-infinity-out": lambda x: torch.where(x > 3, x, (100 * x).exp()),
    "less": lambda x: x * (x.abs() < 1).float(),
    "at-least": lambda x: (x >= x.mean(1, keepdim=True)).float(),
    "at-most-a-number": lambda x: (x <= 0.25).to(x.dtype),
    "equal": lambda x: (x == x.amax(1, keepdim=True)).float(),
    "not": lambda x: (~(x > 0)).to(x.dtype) + ((x < -1) | (x != x.amin(2, keepdim=True))).float(),
    "masked-fill": lambda x: x.masked_fill(x < 0, -3.0),
    "masked-fill-by-a-constant": causal,
    "channels": channels,
    "last-row": last_row,
    "into-zeros": into_zeros,
    "like-the-input": like_the_input,
    "added-in-place": added_in_place,
    "a-part-in-place": a_part_in_place,
    "rows-of-a-channel": rows_of_a_channel,
    "by-a-mask": by_a_mask,
    "fold": lambda x: nn.functional.fold(x.flatten(2)[:, :, :48], (9, 17), (2, 2), dilation=1, stride=(1, 3)),
}


@pytest.mark.parametrize("name", CODE)
def test_code_is_read(name: str) -> None:
    module = Code(CODE[name]).eval()
    model = diptych.from_torch(module, example=IMAGES[:2])
    expected = module(IMAGES.clone()).float().numpy()
    for engine in ("numpy", "torch", "onnxruntime"):
        result = diptych.predict(model, IMAGES.numpy(), engine=engine)
        assert np.allclose(result, expected, rtol=1e-5, atol=1e-6), engine


def test_a_step_of_a_slice_is_refused_by_name() -> None:
    def every_other(x: Tensor) -> Tensor:
        y = x.clone()
        y[..., 1::2] = 0
        return y

    with pytest.raises(UnsupportedLayer, match=r"no layer changes the part slice\(1,"):
        diptych.from_torch(Code(every_other).eval(), example=IMAGES)


class MaskOfWindows(nn.Module):
    """As in Swin Transformers: a constant that is made part by part, by numbers that are not of the input."""

    def forward(self, x: Tensor) -> Tensor:
        mask = x.new_zeros((6, 8))
        count = 0
        for rows in (slice(0, -2), slice(-2, None)):
            for columns in (slice(0, -3), slice(-3, None)):
                mask[rows, columns] = count
                count += 1
        return x + mask.masked_fill(mask == 2, -torch.inf).clamp(min=-5)


def test_a_constant_that_is_made_part_by_part() -> None:
    module = MaskOfWindows().eval()
    result = diptych.predict(diptych.from_torch(module, example=IMAGES), IMAGES.numpy())
    np.testing.assert_allclose(result, module(IMAGES).numpy(), atol=1e-6)
