"""Masks of attention: infinite constants, truth values, causal ones; read, run on every engine, written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diptych
from diptych.errors import DiptychError

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional

FAR = torch.triu(torch.full((5, 5), -torch.inf), 1)
LAST = torch.tensor([[False, False, False, False, True]])


def scores(x: Any) -> Any:
    return x @ x.transpose(1, 2)


WAYS: dict[str, Any] = {
    "infinite": lambda att, x: att(x, x, x, attn_mask=FAR)[0],
    "true where left out": lambda att, x: att(x, x, x, attn_mask=FAR < 0, need_weights=False)[0],
    "a hint that it is causal": lambda att, x: att(
        x, x, x, attn_mask=FAR, is_causal=True, need_weights=False
    )[0],
    "keys": lambda att, x: att(x, x, x, key_padding_mask=LAST.expand(x.shape[0], 5))[0],
    "keys that depend on the input": lambda att, x: att(x, x, x, key_padding_mask=x[:, :, 0] > 1)[0],
    "both": lambda att, x: att(x, x, x, attn_mask=FAR < 0, key_padding_mask=x[:, :, 0] > 1)[0],
    "function, causal": lambda att, x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
    "function, infinite": lambda att, x: F.scaled_dot_product_attention(x, x, x, attn_mask=FAR),
    "function, true where kept": lambda att, x: F.scaled_dot_product_attention(x, x, x, attn_mask=FAR == 0),
    "function, from the input": lambda att, x: F.scaled_dot_product_attention(
        x, x, x, attn_mask=(x[:, :, :1] > -1).transpose(1, 2)
    ),
    "added by hand": lambda att, x: (scores(x) + FAR).softmax(-1) @ x,
    "chosen by hand": lambda att, x: (
        torch.where(FAR < 0, torch.tensor(-torch.inf), scores(x)).softmax(-1) @ x
    ),
}


class Masked(nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self, way: str) -> None:
        super().__init__()
        self.att, self.way = nn.MultiheadAttention(8, 2, batch_first=True), way

    def forward(self, x: Any) -> Any:
        return WAYS[self.way](self.att, x)


def _sequences() -> Any:
    return torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("way", WAYS)
def test_every_engine_gives_pytorchs_numbers(tmp_path: Path, way: str) -> None:
    torch.manual_seed(0)
    module, x = Masked(way).eval(), _sequences()
    expected = module(x).detach().numpy()
    model = diptych.from_torch(module, example=x[:2])
    for engine in ("numpy", "torch", "onnxruntime"):
        np.testing.assert_allclose(diptych.predict(model, x.numpy(), engine=engine), expected, atol=1e-6)
    for name in ("m.onnx", "m.safetensors", "m.pt"):
        diptych.convert(model, tmp_path / name)
        again = diptych.predict(diptych.read(tmp_path / name), x.numpy())
        np.testing.assert_allclose(again, expected, atol=1e-6)


def test_masks_stay_far_in_half_precision(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, x = Masked("infinite").eval(), _sequences()
    model = diptych.from_torch(module, example=x)
    diptych.convert(model, tmp_path / "m.safetensors", half=True)
    halved = diptych.predict(diptych.read(tmp_path / "m.safetensors"), x.numpy())
    np.testing.assert_allclose(halved, module(x).detach().numpy(), atol=2e-3)


def test_an_onnx_graph_with_an_infinite_mask(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    mask = FAR[:4, :4].numpy()
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "mask"], ["s"]), helper.make_node("Softmax", ["s"], ["y"], axis=-1)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, 4])],
        [numpy_helper.from_array(mask, "mask")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "m.onnx")
    x = np.random.default_rng(0).standard_normal((2, 4, 4), np.float32)
    expected = torch.softmax(torch.tensor(x + mask), -1).numpy()
    for engine in ("numpy", "torch", "onnxruntime"):
        result = diptych.predict(diptych.read(tmp_path / "m.onnx"), x, engine=engine)
        np.testing.assert_allclose(result, expected, atol=1e-6)


class Broken(nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor([0.0, torch.inf]))

    def forward(self, x: Any) -> Any:
        return x + self.shift


def test_a_weight_that_is_infinite_is_still_refused() -> None:
    with pytest.raises(DiptychError, match="infinite; take an earlier checkpoint"):
        diptych.from_torch(Broken(), example=torch.zeros(1, 2))
