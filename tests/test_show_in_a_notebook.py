"""What a notebook shows: tables and pictures, in which everything from outside is escaped."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

import diptych
from diptych import filters
from diptych.datasets.photographs import photograph
from diptych.inspecting import inspect
from diptych.predictions import Predictions
from little_models import classifier, compare

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def trace() -> Any:
    return diptych.trace("scenes", [photograph("coffee")])


def test_an_activation_is_an_array_that_can_be_drawn(trace: Any) -> None:
    values = trace["3"]
    assert isinstance(values, np.ndarray)
    assert (values + 1).shape == values.shape
    shown = values._repr_html_()
    assert "1 × 32 × 8 × 8, float32" in shown
    assert shown.count("data:image/png;base64,") == 1
    assert len(values.plot().axes) == 16
    assert "1 × 10" in trace["9"]._repr_html_()
    assert len(trace["9"].plot().axes) == 1
    assert "trace" not in trace._repr_html_()
    assert "<td>3</td><td>1 × 32 × 8 × 8</td>" in trace._repr_html_()


def test_every_result_shows_itself_and_escapes(trace: Any, tmp_path: Any) -> None:
    model = classifier().with_(name=HOSTILE)
    predictions = Predictions.of(model, np.eye(10, dtype=np.float32)[:2], [HOSTILE, "b"])
    results = [
        model, inspect(model), predictions, compare(model, model), filters.learn("invert", budget=5),
        diptych.load_model("scenes").preprocessing,
        diptych.run("an island", count=1, out=tmp_path / "out", static=True),
    ]  # fmt: skip
    for each in results:
        shown = each._repr_html_()
        assert shown.startswith("<")
        assert "<script" not in shown
        assert len(shown) > 80
    assert "&lt;script&gt;" in predictions._repr_html_()


def test_an_explanation_shows_the_picture_and_the_map(tmp_path: Any) -> None:
    path = tmp_path / "coffee.png"
    Image.fromarray(photograph("coffee")).save(path)
    shown = diptych.explain("scenes", path, method="occlusion")._repr_html_()
    assert shown.count("data:image/png;base64,") == 2
    assert "explained by occlusion" in shown


def test_predictions_become_a_data_frame() -> None:
    model = diptych.load_model("scenes")
    predictions = Predictions.of(model, diptych.predict(model, [photograph("coffee")]), ["coffee"])
    frame = predictions.to_pandas()
    assert list(frame.columns) == ["image", "label", *model.classes]
    assert frame.label[0] == predictions.label(predictions.rows[0])
    assert abs(frame[list(model.classes)].sum(axis=1)[0] - 1) < 1e-5
