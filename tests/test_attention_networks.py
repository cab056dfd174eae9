"""Attention written in many ways becomes one layer, and only where it is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import diptych
from diptych.formats import bson
from diptych.model.layers import MultiHeadAttention
from distances import apart
from flux_golden import Case

SEQUENCES = torch.tensor(np.random.default_rng(4).standard_normal((3, 6, 8)), dtype=torch.float32)


class OfTorch(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(8, 2, batch_first=True, **options)

    def forward(self, x: Tensor) -> Any:
        return self.inner(x, x, x)[0]


class Packed(nn.Module):
    """timm's: one product for all three."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Any:
        q, k, v = self.qkv(x).reshape(len(x), 6, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(len(x), 6, 8))


class Apart(nn.Module):
    """Three products, the scale behind that of queries and keys, and smaller values."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k = nn.Linear(8, 12), nn.Linear(8, 12, bias=False)
        self.v, self.out = nn.Linear(8, 6), nn.Linear(6, 5)

    def heads(self, x: Tensor) -> Tensor:
        return x.view(len(x), 6, 3, -1).transpose(1, 2)

    def forward(self, x: Tensor) -> Any:
        q, k, v = self.heads(self.q(x)), self.heads(self.k(x)), self.heads(self.v(x))
        shares = (q @ k.transpose(-1, -2) / 2.0).softmax(-1)
        return self.out((shares @ v).permute(0, 2, 1, 3).flatten(2))


class Interleaved(Apart):
    """Neighbouring rows belong to different heads, and the scale is none that sizes give."""

    def heads(self, x: Tensor) -> Tensor:
        return x.view(len(x), 6, -1, 3).permute(0, 3, 1, 2)

    def forward(self, x: Tensor) -> Any:
        q, k, v = self.heads(self.q(x)), self.heads(self.k(x)), self.heads(self.v(x))
        shares = (0.3 * q @ k.transpose(-1, -2)).softmax(-1)
        return self.out((shares @ v).permute(0, 2, 3, 1).flatten(2))


class MixedSteps(Packed):
    """Each query is made of several steps, which is no attention over steps."""

    def forward(self, x: Tensor) -> Any:
        q, k, v = self.qkv(x).reshape(len(x), 3, 6, 2, 4).permute(1, 0, 3, 2, 4).unbind(0)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(len(x), 6, 8))


class HeadsNotTurnedBack(Packed):
    """The heads stay in front of the steps when they are joined."""

    def forward(self, x: Tensor) -> Any:
        q, k, v = self.qkv(x).reshape(len(x), 6, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        return self.out(F.scaled_dot_product_attention(q, k, v).reshape(len(x), 6, 8))


class Biased(Packed):
    """Something is added to the scores."""

    def forward(self, x: Tensor) -> Any:
        q, k, v = self.qkv(x).reshape(len(x), 6, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        mask = torch.arange(36.0).reshape(6, 6) / 10
        return self.out(F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).reshape(len(x), 6, 8))


WAYS: dict[str, Any] = {
    "nn.MultiheadAttention": OfTorch,
    "nn.MultiheadAttention without biases": lambda: OfTorch(bias=False),
    "packed": Packed,
    "three products": Apart,
    "interleaved heads": Interleaved,
    "an encoder": lambda: nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True), 2, enable_nested_tensor=False
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_attention_becomes_one_layer(way: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = WAYS[way]().eval()
    with torch.no_grad():
        expected = module(SEQUENCES).numpy()
    model = diptych.from_torch(module, example=SEQUENCES[:1])
    names = [type(layer).__name__ for _, layer in model.walk()]
    assert names.count("MultiHeadAttention") == (2 if way == "an encoder" else 1)
    assert not {"Parallel", "Softmax", "Permute"} & set(names)
    assert apart(diptych.predict(model, SEQUENCES.numpy()), expected) < 1e-5
    for suffix in (".onnx", ".bson"):
        diptych.write(model, tmp_path / f"m{suffix}")
        again = diptych.read(tmp_path / f"m{suffix}")
        assert any(isinstance(layer, MultiHeadAttention) for _, layer in again.walk()), suffix
        assert apart(diptych.predict(again, SEQUENCES.numpy()), expected) < 1e-5, suffix


@pytest.mark.parametrize("kind", [MixedSteps, HeadsNotTurnedBack, Biased])
def test_what_is_nearly_attention_stays_what_it_is(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    module = kind().eval()
    model = diptych.from_torch(module, example=SEQUENCES[:1])
    assert not any(isinstance(layer, MultiHeadAttention) for _, layer in model.walk())
    with torch.no_grad():
        assert apart(diptych.predict(model, SEQUENCES.numpy()), module(SEQUENCES).numpy()) < 1e-5


def test_a_block_used_twice_keeps_one_set_of_weights() -> None:
    block = Apart()
    block.out = nn.Linear(6, 8)
    model = diptych.from_torch(nn.Sequential(block, nn.ReLU(), block).eval(), example=SEQUENCES[:1])
    first, _, second = model.layers.layers
    assert isinstance(first, MultiHeadAttention)
    assert isinstance(second, MultiHeadAttention)
    assert first.query is second.query


# ---- Flux ---------------------------------------------------------------------------------------------

MHA = Case("0.16.9", "mha")


def test_what_follows_an_attention_of_flux_must_be_first(tmp_path: Path) -> None:
    values = bson.load(MHA.bson)
    attention, _, norm = values["model"].fields[0]
    values["model"].fields[0] = (attention, norm)
    bson.write(values, tmp_path / "pair.bson")
    with pytest.raises(diptych.DiptychError, match=r"layer 0 \(MultiHeadAttention\) gives a pair.*first"):
        diptych.read(tmp_path / "pair.bson")
    values["model"].fields[0] = (attention,)
    bson.write(values, tmp_path / "last.bson")
    model = diptych.read(tmp_path / "last.bson")
    assert any("gives a pair" in warning for warning in model.source.warnings)
    wanted = diptych.trace(diptych.read(MHA.bson), MHA.input, engine="numpy")["0"]
    assert apart(diptych.predict(model, MHA.input), wanted) < 1e-6
