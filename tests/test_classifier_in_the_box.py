"""The trained model that comes with the package: what it records, and that it is as good as it says."""

import numpy as np
import pytest

import diptych
from diptych.images import scenes
from diptych.loading import TRAINED
from diptych.preprocessing import named

FRESH_SEEDS = 7_000_000_000  # neither learnt from nor judged on by the training script


@pytest.fixture(scope="module")
def model():
    return diptych.read(TRAINED["scenes"])


def test_it_is_small_and_says_what_it_is(model):
    assert TRAINED["scenes"].stat().st_size <= 1_000_000
    assert model.trained is True
    assert model.classes == scenes.CLASSES
    assert model.preprocessing == named("colour-32")
    assert model.notes["painter"] == scenes.VERSION
    assert model.notes["accuracy"] >= 0.97
    assert "Notes:\n  task: which of ten subjects" in diptych.inspect(model).text()


def test_its_confusion_matrix_adds_up_to_its_accuracy(model):
    confusion = np.array(model.notes["confusion matrix (rows: truth)"])
    assert confusion.sum() == model.notes["held-out scenes"]
    assert np.trace(confusion) / confusion.sum() == pytest.approx(model.notes["accuracy"], abs=1e-4)


@pytest.mark.slow
def test_it_recognises_scenes_that_nobody_has_seen(model):
    samples = [scenes.sample(seed, 64) for seed in range(FRESH_SEEDS, FRESH_SEEDS + 300)]
    said = diptych.predict(model, [sample.image for sample in samples]).argmax(axis=1)
    assert (said == np.array([sample.label for sample in samples])).mean() >= 0.97


@pytest.mark.parametrize("subject", scenes.CLASSES)
def test_it_recognises_each_subject_painted_large(model, subject):
    pictures = diptych.generate(f"{subject} at noon", count=3, width=512, height=384)
    assert diptych.predict(model, pictures).argmax(axis=1).tolist() == [scenes.CLASSES.index(subject)] * 3
