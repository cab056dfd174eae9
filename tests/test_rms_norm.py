"""RMSNorm, as a module, as code, in ONNX, and as the group of operations that exporters make of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diptych
from diptych.model.layers import RMSNorm

torch = pytest.importorskip("torch")
nn = torch.nn


class ByHand(nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self, way: str) -> None:
        super().__init__()
        self.weight, self.way = nn.Parameter(torch.rand(6) + 0.5), way

    def forward(self, x: Any) -> Any:
        squares = x.pow(2).mean(-1, keepdim=True) + 1e-3
        if self.way == "divide":
            return x / torch.sqrt(squares) * self.weight
        if self.way == "function":
            return nn.functional.rms_norm(x, (6,), self.weight, 1e-3)
        return self.weight * (x * torch.rsqrt(squares))


class Exported(nn.Module):  # type: ignore[misc, name-defined]
    """Code that torch.fx cannot trace, so that the module is taken apart."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.RMSNorm((5, 6), eps=1e-3)

    def forward(self, x: Any) -> Any:
        return self.norm(x) if bool((torch.ones(1) > 0).all()) else x


MODULES = {
    "module": lambda: nn.RMSNorm(6, eps=1e-3),
    "without weights": lambda: nn.RMSNorm((5, 6), elementwise_affine=False),
    "divide": lambda: ByHand("divide"),
    "function": lambda: ByHand("function"),
    "rsqrt": lambda: ByHand("rsqrt"),
    "exported": Exported,
}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_becomes_the_layer(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    module = MODULES[name]().eval()
    x = torch.randn(3, 5, 6) * 0.05  # where epsilon counts
    model = diptych.from_torch(module, example=x)
    assert any(isinstance(layer, RMSNorm) for _, layer in model.walk())
    expected = module(x).detach().numpy()
    for engine in ("numpy", "torch", "onnxruntime"):
        np.testing.assert_allclose(diptych.predict(model, x.numpy(), engine=engine), expected, atol=1e-5)
    for suffix in ("onnx", "bson", "pt", "safetensors"):
        diptych.convert(model, tmp_path / f"m.{suffix}")
        again = diptych.predict(diptych.read(tmp_path / f"m.{suffix}"), x.numpy())
        np.testing.assert_allclose(again, expected, atol=1e-5)


def test_onnx_has_it_as_an_operator(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    scale = np.random.default_rng(0).random(6, np.float32)
    graph = helper.make_graph(
        [helper.make_node("RMSNormalization", ["x", "scale"], ["y"], axis=-1, epsilon=1e-3)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 5, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5, 6])],
        [numpy_helper.from_array(scale, "scale")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)]), tmp_path / "m.onnx")
    model = diptych.read(tmp_path / "m.onnx")
    assert [type(layer) for _, layer in model.walk()] == [RMSNorm]
    x = np.random.default_rng(1).standard_normal((2, 5, 6), np.float32)
    expected = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-3) * scale
    np.testing.assert_allclose(diptych.predict(model, x), expected, atol=1e-6)
