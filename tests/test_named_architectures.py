"""Networks by name: the three of the known projects, untrained, the same weights for a seed everywhere."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from diptych import engines
from diptych.errors import UsageError
from diptych.model import architectures
from diptych.model.layers import Conv, Dense

LAYERS = {
    "small-cnn-32": [
        "Conv 3x3, 3 -> 16, padding 1, relu",
        "MaxPool 2x2",
        "Conv 3x3, 16 -> 32, padding 1, relu",
        "MaxPool 2x2",
        "Conv 3x3, 32 -> 64, padding 1, relu",
        "MaxPool 2x2",
        "Flatten",
        "Dense 1024 -> 128, relu",
        "Dense 128 -> 10",
        "softmax",
    ],
    "two-conv-224": [
        "Conv 3x3, 1 -> 16, padding 1",
        "relu",
        "MaxPool 2x2",
        "Conv 3x3, 16 -> 32, padding 1",
        "relu",
        "MaxPool 2x2",
        "Flatten",
        "Dense 100352 -> 10",
        "softmax",
    ],
    "three-conv-224": [
        "Conv 3x3, 1 -> 16, relu",
        "MaxPool 2x2",
        "Conv 3x3, 16 -> 32, relu",
        "MaxPool 2x2",
        "Conv 3x3, 32 -> 64, relu",
        "MaxPool 2x2",
        "Flatten",
        "Dense 43264 -> 128, relu",
        "Dense 128 -> 10",
        "softmax",
    ],
}


def test_every_name_is_described_and_covered_here() -> None:
    assert list(architectures.NAMES) == list(LAYERS)
    assert all(architectures.NAMES.values())


@pytest.mark.parametrize("name", LAYERS)
class TestArchitecture:
    def test_has_these_layers(self, name: str) -> None:
        model = architectures.named(name)
        assert [layer.label for layer in model.layers.layers] == LAYERS[name]
        assert (model.name, model.trained, model.classes) == (name, False, None)
        model.check()

    def test_a_picture_goes_in_by_its_recipe_and_probabilities_come_out(self, name: str) -> None:
        model = architectures.named(name, seed=3)
        assert model.preprocessing is not None
        picture = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
        batch = model.preprocessing.apply(picture)[None]
        assert batch.shape[1:] == model.input_shape
        output = engines.compile(model, "torch", "cpu")(batch)
        assert output.shape == (1, 10)
        assert output.sum() == pytest.approx(1, abs=1e-5)
        assert output.min() > 0
        assert model.gives_probabilities

    def test_a_seed_means_the_same_weights_and_another_seed_others(self, name: str) -> None:
        first, again, other = (architectures.named(name, seed).weights() for seed in (5, 5, 6))
        assert all(np.array_equal(first[where], again[where]) for where in first)
        assert not any(np.array_equal(first[w], other[w]) for w in first if w.endswith("weight"))

    def test_weights_are_glorot_uniform_and_biases_zero(self, name: str) -> None:
        for _, layer in architectures.named(name).walk():
            if isinstance(layer, Conv | Dense):
                weight, bias = layer.weight, layer.bias
                assert weight.dtype == np.float32
                outputs, inputs, *kernel = weight.shape
                limit = np.sqrt(6 / ((inputs + outputs) * np.prod(kernel)))
                # 144 draws, the fewest here, leave the outer tenth empty on both sides once in 10^6.
                assert 0.9 * limit < np.abs(weight).max() <= limit * (1 + 1e-6)
                assert abs(weight.mean()) < 5 * limit / np.sqrt(3 * weight.size)
                assert bias is not None
                assert not bias.any()

    def test_there_are_as_many_outputs_as_classes(self, name: str) -> None:
        model = architectures.named(name, classes=["cat", "dog", "owl"])
        assert model.classes == ("cat", "dog", "owl")
        dense = model.layers.layers[-2]
        assert isinstance(dense, Dense)
        assert len(dense.weight) == 3


def test_seed_0_is_the_same_on_every_platform() -> None:
    """The digest is of little-endian bytes; it may change only together with the version of Diptych."""
    weights = architectures.named("small-cnn-32").weights()
    digest = hashlib.sha256(b"".join(weights[w].astype("<f4").tobytes() for w in weights)).hexdigest()
    assert digest.startswith("20e67602ebedae91")


def test_the_small_network_is_small_enough_to_ship() -> None:
    assert architectures.named("small-cnn-32").parameters * 4 <= 1_000_000


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        UsageError, match="no architecture is called 'three-conv'; did you mean 'three-conv-224'"
    ):
        architectures.named("three-conv")
    with pytest.raises(
        UsageError, match=r"called 'alexnet' \(known: small-cnn-32, two-conv-224, three-conv-224"
    ):
        architectures.named("alexnet")


def test_a_seed_or_class_list_that_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="0 or more, got -1"):
        architectures.named("small-cnn-32", seed=-1)
    with pytest.raises(UsageError, match="at least two classes, got 1"):
        architectures.named("small-cnn-32", classes=["only"])
