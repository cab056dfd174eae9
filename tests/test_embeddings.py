"""Modules that look up rows of an `nn.Embedding`, whose input is whole numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diptych
from diptych.errors import UnsupportedLayer

torch = pytest.importorskip("torch")
nn = torch.nn


class Tokens(nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rows = nn.Embedding(20, 8, **options)
        self.place = nn.Embedding(5, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Any) -> Any:
        return self.head((self.rows(x) + self.place(torch.arange(x.shape[1]))).mean(1))


def _words() -> Any:
    return torch.randint(0, 20, (4, 5), generator=torch.Generator().manual_seed(1))


def test_rows_are_looked_up_on_every_engine(tmp_path: Path) -> None:
    module, words = Tokens(padding_idx=0).eval(), _words()
    model = diptych.from_torch(module, example=words[:2])
    expected = module(words).detach().numpy()
    for engine in ("numpy", "torch", "onnxruntime"):
        np.testing.assert_allclose(diptych.predict(model, words.numpy(), engine=engine), expected, atol=1e-6)
    np.testing.assert_allclose(
        diptych.trace(model, words.numpy())[str(len(model.layers.layers) - 1)], expected, atol=1e-6
    )
    for name in ("m.onnx", "m.safetensors", "m.bson"):
        diptych.convert(model, tmp_path / name)
        again = diptych.predict(diptych.read(tmp_path / name), words.numpy().astype(np.float32))
        np.testing.assert_allclose(again, expected, atol=1e-6)


def test_without_an_example() -> None:
    module = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(12, 2)).eval()
    words = torch.tensor([[1, 6, 0]])
    result = diptych.predict(diptych.from_torch(module), words.numpy())
    np.testing.assert_allclose(result, module(words).detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("mode", ["mean", "sum", "max"])
def test_bags(mode: str) -> None:
    module = nn.Sequential(nn.EmbeddingBag(20, 4, mode=mode), nn.Linear(4, 2)).eval()
    result = diptych.predict(diptych.from_torch(module, example=_words()), _words().numpy())
    np.testing.assert_allclose(result, module(_words()).detach().numpy(), atol=1e-6)


class Converted(nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Embedding(9, 4)

    def forward(self, x: Any) -> Any:
        return self.rows(x.long()) + self.rows(x.to(torch.int64))


def test_numbers_are_cut_off_where_code_makes_whole_ones_of_them() -> None:
    module = Converted().eval()
    x = torch.tensor([[0.9, 3.2, 7.7]])
    model = diptych.from_torch(module, example=x)
    np.testing.assert_allclose(diptych.predict(model, x.numpy()), module(x).detach().numpy(), atol=1e-6)


def test_pixels_stay_pixels() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()).eval()
    pictures = torch.randint(0, 256, (2, 1, 5, 5), dtype=torch.uint8)
    model = diptych.from_torch(module, example=pictures)
    result = diptych.predict(model, pictures.numpy().astype(np.float32))
    np.testing.assert_allclose(result, module(pictures.float()).detach().numpy(), rtol=1e-5, atol=1e-4)


def test_what_changes_its_rows_is_refused() -> None:
    with pytest.raises(UnsupportedLayer, match="max_norm"):
        diptych.from_torch(Tokens(max_norm=1.0).eval(), example=_words())
