"""Models to PyTorch and back: modules that train, modules that others wrote, and .pt files."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import diptych.engines.torch as engine
from diptych.formats.torch import from_torch, to_torch
from diptych.model.model import Model
from layer_cases import TABLE, case


def outputs(model: Model, batch: np.ndarray) -> np.ndarray:
    return engine.compile(model, "cpu")(batch)


def close(given: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    assert given.shape == expected.shape
    assert np.abs(given - expected).max(initial=0) <= tolerance * max(1.0, np.abs(expected).max(initial=0))


# ---- Model -> module ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLE)
def test_the_module_gives_what_the_engine_gives(name: str):
    model, batch = case(name)
    expected = outputs(model, batch)
    for known in (model, model.with_(input_shape=None)):
        module = to_torch(known)
        assert not module.training
        with torch.no_grad():
            close(module(torch.tensor(batch)).numpy(), expected, 1e-6)


def test_children_are_named_as_layers_are_in_a_trace():
    model, _ = case("nested")
    module = to_torch(model)
    names = {name.removesuffix(".weight") for name in module.state_dict() if name.endswith(".weight")}
    assert names == {"0.0.0"}
    assert [name for name, _ in to_torch(case("classifier")[0]).named_children()] == list("01234567")
    assert "kernel_size=(2, 3)" in repr(to_torch(case("classifier")[0]))
    assert set(to_torch(model).state_dict()) == set(module.state_dict())


def test_layers_that_pytorch_has_are_its_own():
    for name, kind in {
        "conv": torch.nn.Conv2d,
        "conv-relu": torch.nn.Conv2d,
        "dense": torch.nn.Linear,
        "batchnorm-3d": torch.nn.BatchNorm3d,
        "layernorm": torch.nn.LayerNorm,
        "transpose-output-padding": torch.nn.ConvTranspose2d,
        "activation-swish": torch.nn.SiLU,
        "adaptive-mean-pytorch": torch.nn.AdaptiveAvgPool2d,
        "pad-reflect": torch.nn.ReflectionPad2d,
    }.items():
        module = to_torch(case(name)[0])[0]
        assert isinstance(module, kind)
        assert type(module) is kind or name == "conv-relu"


def test_tied_weights_are_one_parameter():
    module = to_torch(case("tied")[0])
    assert module[0] is module[2]
    assert module[3].weight is module[0].weight
    assert len(list(module.parameters())) == 2


def test_the_module_trains_with_dropout_and_batch_statistics():
    model, batch = case("classifier")
    module = to_torch(model).train()
    mean, x = module[1].running_mean.clone(), torch.tensor(batch)
    assert not torch.equal(module(x), module(x))
    assert not torch.equal(module[1].running_mean, mean)
    before = model.layers.layers[0].weight.copy()
    optimiser = torch.optim.SGD(module.parameters(), lr=0.5)
    target = torch.tensor([0, 2])
    module.eval()
    losses = []
    for _ in range(20):
        loss = torch.nn.functional.nll_loss(torch.log(module(x)), target)
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < losses[0] / 2
    assert all(p.grad is not None for p in module.parameters())
    assert np.array_equal(model.layers.layers[0].weight, before)


# ---- Module -> model ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLE)
def test_what_was_made_a_module_is_read_back(name: str):
    model, batch = case(name)
    back = from_torch(to_torch(model), example=batch)
    close(outputs(back, batch), outputs(model, batch), 1e-6)
    assert back.name == model.name
