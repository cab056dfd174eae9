"""A network of every kind that `learn` gives computes the same after it was written and read, in every format."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import diptych
from diptych import engines
from diptych.filters.learning import borders, curves, dilated, linear, piecewise_linear, ranks
from diptych.filters.learning.folding import Folded
from diptych.filters.learning.shallow import Shallow
from diptych.formats import julia_project
from diptych.model.document import from_document, to_document
from diptych.model.layers import Array, Chain
from diptych.model.model import Model
from test_learn_exact_filters import task_of, truncated, weighted

RANDOM = np.random.default_rng(5)
MIX = np.array([0.3, 0.6, 0.1])


def found(method: Any, target: Any) -> tuple[Chain, int]:
    """What a closed form gives, and how many channels it takes."""
    task = task_of(target)
    candidate = method.fit(task)
    assert candidate is not None
    return candidate.layers, task.channels[0]


def left_alone() -> tuple[Chain, int]:
    layers, channels = found(linear, "sharpen")
    return borders.left_alone(layers, 2, channels), channels


def shallow(**options: Any) -> tuple[Chain, int]:
    network = Shallow(RANDOM.normal(size=(6, 9)), RANDOM.normal(size=(1, 6)) / 6, **options)
    return network.layers(1, "reflect"), 3


def trained_wide() -> tuple[Chain, int]:
    network = dilated.DilatedNet((3, 3), 6)
    network.initialise(torch.Generator().manual_seed(3))
    torch.nn.init.normal_(network.change.weight, 0, 0.1)
    return network.layers("replicate"), 3


NETWORKS: dict[str, Callable[[], tuple[Chain, int]]] = {
    "linear, channels apart": lambda: found(linear, "gaussian"),
    "linear, of a luma": lambda: found(linear, "laplacian"),
    "curve": lambda: found(curves, "threshold"),
    "rank, of boxes": lambda: found(ranks, "closing:shape=cross"),
    "rank, median": lambda: found(ranks, "median"),
    "sum of absolute values": lambda: found(piecewise_linear, truncated),
    "sum of absolute values along few directions": lambda: found(piecewise_linear, weighted),
    "maximum of linear pieces": lambda: found(piecewise_linear, lambda image: image.max(axis=2)),
    "border left alone": left_alone,
    "relu": lambda: shallow(mix=MIX, offset=RANDOM.normal(size=6), constant=np.array([0.2]), clamped=True),
    "relu, folded": lambda: (
        Folded(MIX, RANDOM.normal(size=(2, 9)), 2, np.array([[1, 0.3]])).layers(1, "replicate"),
        3,
    ),
    "dilated": trained_wide,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_written_and_read_it_computes_the_same(name: str, tmp_path: Path) -> None:
    layers, channels = NETWORKS[name]()
    model = Model(layers, input_shape=(channels, None, None), trained=True, name="filter")
    batch = RANDOM.random((1, channels, 25, 33), np.float32)
    expected = diptych.predict(model, batch, engine="numpy")
    for suffix in (".safetensors", ".onnx", ".bson", ".pt"):
        path = tmp_path / f"model{suffix}"
        diptych.write(model, path)
        assert_same(diptych.predict(diptych.read(path), batch, engine="numpy"), expected)
    diptych.write(model, tmp_path / "model.jld2")
    filled = diptych.read(tmp_path / "model.jld2", architecture=blank(model))
    assert_same(diptych.predict(filled, batch, engine="numpy"), expected)
    assert_same(in_julia(model, tmp_path / "project", batch), expected)


def assert_same(given: Array, expected: Array) -> None:
    np.testing.assert_allclose(given, expected, atol=1e-5)


def blank(model: Model) -> Model:
    """The same layers with other weights."""
    document, arrays = to_document(model)
    return from_document(document, {name: value + 1 for name, value in arrays.items()})


def in_julia(model: Model, folder: Path, batch: Array) -> Array:
    """What the Julia project of the model computes."""
    pytest.importorskip("tree_sitter_julia", reason="the Julia grammar is not installed")
    from julia_builtins import program

    julia_project.write(model, folder, engines.compile(model, "numpy").trace(batch))
    julia = program(folder / "arrays.jl", folder / "layers.jl", folder / "model.jl")
    seen: dict[str, Any] = {}
    julia.get("walk")(seen.__setitem__, julia.get("build_model")(), batch.T)
    result: Array = [*seen.values()][-1].T
    return result
