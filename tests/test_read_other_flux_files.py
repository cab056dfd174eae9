"""Flux files that no golden one covers: several models, somebody's own structs and functions, other arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diptych
from diptych import formats
from diptych.engines import numpy as reference
from diptych.errors import FormatError, UsageError
from diptych.formats import bson
from diptych.formats.flux.functions import function
from diptych.formats.julia import JuliaStruct, JuliaType, NamedTuple
from little_models import numbers

RELU, IDENTITY = function("NNlib", "relu"), function("Base", "identity")
FLOAT = JuliaType(("Core", "Float32"))
MATRIX = JuliaType(("Core", "Array"), (FLOAT, 2))
X = numbers(2, 3, 6, 6, seed=1)


def struct(*path: str, fields: tuple[Any, ...] = (), parameters: tuple[Any, ...] = ()) -> JuliaStruct:
    return JuliaStruct(JuliaType(path, parameters), list(fields))


def flux(name: str, *fields: Any) -> JuliaStruct:
    return struct("Flux", name, fields=fields)


def conv(outputs: int = 4, inputs: int = 3, activation: Any = RELU, seed: int = 0) -> JuliaStruct:
    weight = np.asfortranarray(numbers(3, 3, inputs, outputs, seed=seed))
    return flux("Conv", activation, weight, numbers(outputs), (1, 1), (1, 1, 1, 1), (1, 1))


def dense(weight: Any, outputs: int) -> JuliaStruct:
    return flux("Dense", weight, numbers(outputs), IDENTITY)


def chain(*layers: Any) -> JuliaStruct:
    return flux("Chain", layers)


def read(folder: Path, values: dict[str, Any], **options: Any) -> Any:
    bson.write(values, folder / "m.bson")
    return formats.read(folder / "m.bson", **options)


def output(folder: Path, model: Any, batch: Any = X) -> Any:
    return reference.compile(read(folder, {"model": model}))(batch)


# ---- Which model is meant -----------------------------------------------------------------------------


def test_one_of_several_models_is_chosen(tmp_path: Path, diptych_command) -> None:
    values = {"gen": chain(conv(2)), "dis": chain(conv(5)), "epoch": 3}
    with pytest.raises(FormatError, match=r"several models: gen, dis; name the one to read with --key"):
        read(tmp_path, values)
    for key, outputs in (("gen", 2), ("dis", 5)):
        model = read(tmp_path, values, key=key)
        assert model.layers.layers[0].weight.shape[0] == outputs
        assert model.source.extras["epoch"] == 3
        target = tmp_path / f"{key}.bson"
        assert diptych_command("convert", tmp_path / "m.bson", target, "--key", key).status == 0
        assert diptych.read(target).layers.layers[0].weight.shape[0] == outputs
    with pytest.raises(FormatError, match=r"does not have 'opt': it holds gen, dis, epoch; choose one"):
        read(tmp_path, values, key="opt")
    assert diptych_command("inspect", tmp_path / "m.bson", "--key", "epoch").status == 1
    diptych.write(model, tmp_path / "m.safetensors")
    with pytest.raises(UsageError, match="takes no option 'key'"):
        formats.read(tmp_path / "m.safetensors", key="gen")


@pytest.mark.parametrize(
    ("value", "keys"),
    [
        (
            NamedTuple(("encoder", "decoder"), [chain(conv(2)), chain(conv(5))]),
            ("model.encoder", "model.decoder"),
        ),
        ((conv(2), conv(5)), ("model.1", "model.2")),
        ([conv(2), conv(5)], ("model.1", "model.2")),
        (struct("Main", "Net", fields=(conv(2), conv(5))), ("model.1", "model.2")),
    ],
    ids=["named tuple", "tuple", "vector", "own struct"],
)
def test_a_model_inside_something_else_is_chosen_by_its_place(value: Any, keys: Any, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=f"--key.*{keys[1]}|{keys[1]}.*--key"):
        read(tmp_path, {"model": value})
    for key, outputs in zip(keys, (2, 5), strict=True):
        found = [layer for _, layer in read(tmp_path, {"model": value}, key=key).walk() if layer.arrays]
        assert [layer.weight.shape[0] for layer in found] == [outputs]


def test_weights_are_chosen_too(tmp_path: Path) -> None:
    arrays = [np.asfortranarray(numbers(5, 4)), numbers(5)]
    whole = read(tmp_path, {"model": chain(dense(np.zeros((5, 4), np.float32), 5))})
    values = {"old": [a * 2 for a in arrays], "best": arrays}
    filled = read(tmp_path, values, key="best", architecture=whole)
    np.testing.assert_array_equal(filled.weights()["0.weight"], arrays[0])


# ---- Structs and functions of others ------------------------------------------------------------------


def test_a_model_of_metalhead_is_the_chain_inside(tmp_path: Path) -> None:
    joined = flux("Parallel", function("Metalhead", "cat_channels"), (conv(4), conv(4)))
    inner = chain(
        function("Flux", "gpu"), joined, flux("AdaptiveMeanPool", (1, 1)), function("MLUtils", "flatten")
    )
    model = read(tmp_path, {"backbone": struct("Metalhead", "ResNet", fields=(inner,)), "epoch": 2})
    assert reference.compile(model)(X).shape == (2, 8)
    assert model.source.extras["epoch"] == 2


@pytest.mark.parametrize(
    "model",
    [
        chain(conv(activation=function("Main", "relu"))),
        chain(conv(activation=function("MyLayers", "σ"))),
        chain(conv(), function("Main", "softmax")),
        flux("Parallel", function("Main", "vcat"), (conv(), conv())),
    ],
    ids=["activation", "of a package", "layer", "connection"],
)
def test_a_function_of_ones_own_is_not_taken_for_its_namesake(model: JuliaStruct, tmp_path: Path) -> None:
    with pytest.raises(
        FormatError, match=r"was defined by the model's author, and its code is not in the file"
    ):
        read(tmp_path, {"model": model})


def test_activations_of_the_gpu_are_those_of_the_cpu(tmp_path: Path) -> None:
    wanted = output(tmp_path, chain(conv(activation=function("Base", "tanh"))))
    for module in ("CUDA", "CuArrays"):
        ours = output(tmp_path, chain(conv(activation=function(module, "tanh"))))
        np.testing.assert_array_equal(ours, wanted)


@pytest.mark.parametrize(("operation", "name"), [(np.add, "+"), (np.multiply, "*"), (np.maximum, "max")])
def test_dotted_operators_join_branches(operation: Any, name: str, tmp_path: Path) -> None:
    inner = function("Base", name)
    dotted = struct("Base", "Broadcast", "BroadcastFunction", fields=(inner,), parameters=(inner.type,))
    ours = output(tmp_path, flux("Parallel", dotted, (conv(seed=1), conv(seed=2))))
    first, second = (output(tmp_path, chain(conv(seed=seed))) for seed in (1, 2))
    np.testing.assert_allclose(ours, operation(first, second), rtol=1e-6)


# ---- Arrays of other kinds ----------------------------------------------------------------------------

W = np.asfortranarray(numbers(5, 4))


@pytest.mark.parametrize(
    "wrapped",
    [
        struct("LinearAlgebra", "Adjoint", fields=(np.asfortranarray(W.T),), parameters=(FLOAT, MATRIX)),
        struct("LinearAlgebra", "Transpose", fields=(np.asfortranarray(W.T),), parameters=(FLOAT, MATRIX)),
        struct(
            "Base", "PermutedDimsArray",
            fields=(np.asfortranarray(W.T),), parameters=(FLOAT, 2, (2, 1), (2, 1), MATRIX),
        ),
        struct("Base", "ReshapedArray", fields=(W.reshape(-1, order="F"), (5, 4), ()), parameters=(FLOAT, 2)),
        struct(
            "Base", "SubArray",
            fields=(
                np.asfortranarray(np.vstack([W, W])),
                (
                    struct("Base", "UnitRange", fields=(1, 5)),
                    struct("Base", "Slice", fields=(struct("Base", "OneTo", fields=(4,)),)),
                ),
                0, 1,
            ),
            parameters=(FLOAT, 2),
        ),
        struct("Tracker", "TrackedArray", fields=(None, W, W * 0)),
        W.astype(np.float64),
    ],
    ids=["adjoint", "transpose", "permuted", "reshaped", "view", "tracked", "float64"],
)  # fmt: skip
def test_weights_in_a_wrapper_are_those_inside(wrapped: Any, tmp_path: Path) -> None:
    batch = numbers(3, 4, seed=3)
    wanted = output(tmp_path, chain(dense(W, 5)), batch)
    np.testing.assert_allclose(output(tmp_path, chain(dense(wrapped, 5)), batch), wanted, rtol=1e-6)
