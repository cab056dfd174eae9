"""Weights without an architecture: PyTorch files from before 1.6, foreign safetensors, prefixes of wrappers."""

from __future__ import annotations

import gc
import pickle
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import diptych
from diptych import formats
from diptych.errors import FormatError, UsageError
from diptych.formats.torch import from_torch
from diptych.model.layers import Activation, Chain, Conv
from diptych.model.model import Model

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def module() -> nn.Module:
    torch.manual_seed(4)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 2)).eval()


@pytest.fixture
def frame() -> Model:
    torch.manual_seed(5)
    empty = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 2))
    return from_torch(empty.eval(), torch.randn(2, 3, 6, 6))


X = np.random.default_rng(0).standard_normal((2, 3, 6, 6)).astype(np.float32)


def check(model: Model, module: nn.Module) -> None:
    with torch.no_grad():
        expected = module(torch.tensor(X)).numpy()
    assert np.abs(diptych.predict(model, X) - expected).max() <= 1e-5


def old(value: object, path: Path) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=False)
    return path


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module.net."])
def test_weights_from_before_pytorch_1_6(
    prefix: str, module: nn.Module, frame: Model, tmp_path: Path
) -> None:
    state = {prefix + name: value for name, value in module.state_dict().items()}
    for value in (state, {"state_dict": state, "epoch": 3}):
        check(formats.read(old(value, tmp_path / "old.pth"), architecture=frame), module)


def test_an_old_file_that_runs_code_or_asks_for_memory_is_refused(module: nn.Module, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    path = old(module, tmp_path / "module.pth")
    with pytest.raises(FormatError, match=r"pickled Python objects .* never opened"):
        formats.read(path)
    content = old(module.state_dict(), tmp_path / "state.pth").read_bytes()
    head = content[: content.index(pickle.dumps(1001, 2)) + len(pickle.dumps(1001, 2))]
    path.write_bytes(head + pickle.dumps({"little_endian": True}, 2) + pickle.dumps(Evil(), 2))
    with pytest.raises(FormatError):
        formats.read(path)
    assert not (tmp_path / "ran").exists()
    larger = content.replace(b"K\x6c", b"J\xff\xff\xff\x7f", 1)  # 108 numbers of the first weight, in BININT1
    assert larger != content
    path.write_bytes(larger)
    with pytest.raises(FormatError, match="speaks of 2,147,483,"):
        formats.read(path)
    for cut in (20, 60, 400, len(content) - 40):
        path.write_bytes(content[:cut])
        with pytest.raises(FormatError, match="damaged or cut off"):
            formats.read(path)


def test_foreign_safetensors_fill_an_architecture(module: nn.Module, frame: Model, tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file(module.state_dict(), path)
    with pytest.raises(FormatError, match="name the model they belong to with --architecture"):
        formats.read(path)
    formats.write(frame, tmp_path / "frame.safetensors")
    model = formats.read(path, architecture=tmp_path / "frame.safetensors")
    assert model.source.format == "safetensors"
    with torch.no_grad():
        for tensor in module[1].state_dict().values():  # four weights of one shape
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(4) + 0.5)
    save_file(module.state_dict(), path)
    check(formats.read(path, architecture=frame), module)
    save_file({"a": torch.zeros(4, 3, 3, 3)}, path)
    with pytest.raises(
        FormatError, match=r"does not fit the architecture: .* >>4×3×3×3<<; in the architecture: >>"
    ):
        formats.read(path, architecture=frame)


def test_archives_are_named(module: nn.Module, tmp_path: Path) -> None:
    program = torch.export.export(module, (torch.tensor(X),))
    torch.export.save(program, tmp_path / "program.pt2")
    with pytest.raises(FormatError, match=r"a program of torch.export: give diptych.from_torch what"):
        formats.read(tmp_path / "program.pt2")


def test_a_version_that_is_a_kind_of_text_of_its_own(module: nn.Module) -> None:
    model = from_torch(module, torch.tensor(X))
    assert type(model.source.version) is str


@pytest.mark.parametrize("engine", ["numpy", "torch", "onnxruntime", "auto"])
def test_a_predicted_model_is_freed(engine: str) -> None:
    model = Model(Chain((Conv(np.ones((2, 3, 3, 3), np.float32)),)), input_shape=(3, 6, 6))
    diptych.predict(model, X, engine=engine)
    diptych.trace(model, X, engine=engine)
    kept = weakref.ref(model)
    del model
    gc.collect()
    assert kept() is None


def test_a_batch_of_single_numbers() -> None:
    model = Model(Chain((Activation("tanh"),)), input_shape=())
    x = np.linspace(-2, 2, 5, dtype=np.float32)
    for engine in ("numpy", "torch", "onnxruntime"):
        assert np.abs(diptych.predict(model, x, engine=engine) - np.tanh(x)).max() <= 1e-6
    with pytest.raises(UsageError, match="no engine"):
        diptych.predict(model, x, engine="none")
