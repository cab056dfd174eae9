"""LayerNorm of PyTorch, which divides by sqrt(var + eps), for Flux up to 0.14, whose own divides by std + eps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diptych
from diptych.errors import UnsupportedLayer
from diptych.formats import bson

torch = pytest.importorskip("torch")
nn = torch.nn

SHAPES = [
    ((4,), (4,)),
    ((5, 4), (4,)),
    ((5, 4), (5, 4)),
    ((3, 5, 4), (4,)),
    ((3, 5, 4), (5, 4)),
    ((3, 5, 4),) * 2,
]


def _module(shape: tuple[int, ...], affine: bool = True) -> Any:
    norm = nn.LayerNorm(shape, eps=1e-3, elementwise_affine=affine)
    if affine:
        torch.manual_seed(0)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return nn.Sequential(norm, nn.ReLU()).eval()


@pytest.mark.parametrize("version", ["0.12", "0.13", "0.14"])
@pytest.mark.parametrize(("shape", "normalised"), SHAPES)
def test_the_numbers_are_exact(
    tmp_path: Path, shape: tuple[int, ...], normalised: tuple[int, ...], version: str
) -> None:
    for affine in (True, False):
        module = _module(normalised, affine)
        x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1)) * 0.05  # where epsilon counts
        model = diptych.from_torch(module, example=x)
        diptych.convert(model, tmp_path / "m.bson", flux_version=version)
        result = diptych.predict(diptych.read(tmp_path / "m.bson"), x.numpy())
        np.testing.assert_allclose(result, module(x).detach().numpy(), atol=1e-6)
        assert b"InstanceNorm" in (tmp_path / "m.bson").read_bytes()


def test_what_flux_has_itself_is_written_as_it_is(tmp_path: Path) -> None:
    model = diptych.from_torch(_module((4,)), example=torch.zeros(2, 4))
    diptych.convert(model, tmp_path / "m.bson", flux_version="0.16")
    assert "LayerNorm" in str(bson.load(tmp_path / "m.bson"))


def test_without_a_shape_the_advice_works(tmp_path: Path) -> None:
    model = diptych.from_torch(_module((4,)))
    with pytest.raises(UnsupportedLayer, match=r"give --shape \(model\.input_shape\)"):
        diptych.convert(model, tmp_path / "m.bson", flux_version="0.14")
    diptych.convert(model.with_(input_shape=(4,)), tmp_path / "m.bson", flux_version="0.14")
