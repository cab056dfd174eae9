"""The same picture gives the same bytes: in every batch, in every verb, on any number of processors."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import diptych
from diptych import engines
from diptych.errors import MissingExtra, UnsupportedLayer
from diptych.model.layers import (
    Activation,
    AdaptiveMeanPool,
    Chain,
    Conv,
    Dense,
    Flatten,
    GlobalMeanPool,
    MaxPool,
)
from diptych.model.model import Model
from diptych.model.shapes import sizes
from layer_cases import cases

CPU_ENGINES = [name for name in engines.ENGINES if name in {"numpy", "torch", "onnxruntime", "openvino"}]
CASES = {
    name: (model, batch) for name, model, batch in cases() if not sizes(model, batch.shape).mixes_samples
}


def test_only_statistics_of_the_batch_mix_samples():
    mixing = {name for name, model, batch in cases() if sizes(model, batch.shape).mixes_samples}
    assert mixing == {"batchnorm-of-the-batch", "batchnorm-of-the-batch-features", "normalise"}


@pytest.mark.parametrize("engine", CPU_ENGINES)
@pytest.mark.parametrize("name", CASES)
def test_a_sample_has_the_same_output_in_every_batch(name, engine):
    model, batch = CASES[name]
    try:
        compiled = engines.compile(model, engine, "cpu" if engine == "torch" else "auto")
    except (MissingExtra, UnsupportedLayer):
        pytest.skip("the engine has no such layer")
    many = np.concatenate([batch, batch[::-1], batch])
    together = compiled(many)
    for index in range(len(many)):
        assert np.array_equal(compiled(many[index : index + 1])[0], together[index], equal_nan=True)
    for path, value in compiled.trace(many).items():
        assert np.array_equal(value[: len(batch)], value[-len(batch) :], equal_nan=True), path


def large() -> tuple[Model, np.ndarray]:
    """A network whose operations are large enough to be computed in parts, and six pictures."""
    rng = np.random.default_rng(0)

    def weight(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    layers = (
        Conv(weight(48, 3, 7, 7), stride=(2, 2), activation=Activation("relu")),
        Conv(weight(48, 48, 3, 3), activation=Activation("swish")),
        Conv(weight(48, 1, 5, 5), groups=48),
        Conv(weight(150, 48, 1, 1), activation=Activation("relu")),
        MaxPool((3, 3)),
        Flatten(),
        Dense(weight(700, 150 * 12 * 11)),
        Dense(weight(33, 700)),
    )
    return Model(Chain(layers), input_shape=(3, 90, 83)), rng.random((6, 3, 90, 83), np.float32)


def test_calls_side_by_side_give_the_same_bytes():
    model, batch = large()
    compiled = engines.compile(model, "onnxruntime")
    alone = np.concatenate([compiled(batch[index : index + 1]) for index in range(len(batch))])
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda _: compiled(batch), range(8)))
    assert all(np.array_equal(each, alone) for each in together)


OUTPUTS = """
import sys, numpy as np
sys.path.insert(0, {tests!r})
from layer_cases import cases
from test_same_bytes import large
from diptych import engines
from diptych.errors import MissingExtra, UnsupportedLayer
outputs = {{}}
for name, model, batch in cases():
    for engine in {engines!r}:
        try:
            outputs[f"{{name}} {{engine}}"] = engines.compile(model, engine)(batch)
        except (MissingExtra, UnsupportedLayer):
            pass
model, batch = large()
outputs["large"] = engines.compile(model, "onnxruntime")(batch)
np.savez({out!r}, **outputs)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="the processors of a process cannot be limited"
)
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two processors")
def test_the_number_of_processors_does_not_change_a_bit(tmp_path):
    outputs = []
    for count in (1, 2):
        out = tmp_path / f"{count}.npz"
        code = OUTPUTS.format(tests=os.path.dirname(__file__), engines=CPU_ENGINES[1:], out=str(out))  # noqa: PTH120
        limited = f"import os; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:{count}])\n{code}"
        environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)
        subprocess.run([sys.executable, "-c", limited], check=True, env=environment)
        outputs.append(dict(np.load(out)))
    one, two = outputs
    assert one.keys() == two.keys()
    assert len(one) > 300
    assert [name for name in one if not np.array_equal(one[name], two[name], equal_nan=True)] == []


@pytest.mark.parametrize("engine", ["onnxruntime", "torch"])
def test_predict_and_run_write_the_same_values(tmp_path, photographs, diptych_command, engine):
    pictures = sorted(photographs.iterdir()) * 3
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, picture in enumerate(pictures):
        (folder / f"{index}{picture.suffix}").write_bytes(picture.read_bytes())
    done = diptych_command("predict", "scenes", folder, "--engine", engine, "--json")
    assert done.status == 0
    predicted = json.loads(done.out)["predictions"]
    diptych.run(images=[folder], out=tmp_path / "out", engine=engine)
    ran = json.loads((tmp_path / "out" / "predictions.json").read_text())["predictions"]
    assert len(ran) == len(pictures)
    assert [row["probabilities"] for row in predicted] == [row["probabilities"] for row in ran]


@pytest.mark.parametrize("engine", CPU_ENGINES)
@pytest.mark.parametrize("size", [32, 112, 512, 1024])
@pytest.mark.parametrize(
    "layer", [GlobalMeanPool(), AdaptiveMeanPool((1, 1)), AdaptiveMeanPool((2, 2))], ids=str
)
def test_the_mean_of_a_large_picture_is_exact(engine, size, layer):
    model = Model(Chain((layer,)), input_shape=(1, size, size))
    batch = np.full((1, 1, size, size), 0.7, np.float32)
    batch[..., : size // 2, :] = 0.1
    expected = layer(batch)
    # OpenVINO merges the means over one axis each into one, and PyTorch adds up its adaptive windows one by one.
    inexact = engine == "openvino" or (engine == "torch" and isinstance(layer, AdaptiveMeanPool))
    tolerance = 3e-3 if inexact else 1e-5
    assert np.allclose(engines.compile(model, engine)(batch), expected, rtol=tolerance, atol=0)
