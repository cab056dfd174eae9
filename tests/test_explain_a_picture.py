"""A user asks which parts of a picture a classifier's answer stands on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import diptych
from diptych.errors import ShapeError, UsageError
from diptych.explaining import METHODS, checking
from diptych.model.layers import Activation, Chain, Conv, Dense, Flatten, GlobalMeanPool, Softmax
from diptych.model.model import Model
from diptych.preprocessing import named
from diptych.report.explanation import heat_picture, overlay_picture

SIZE = 24
BRIGHT = np.s_[2:8, 12:22]  # rows, columns


def picture() -> np.ndarray:
    pixels = np.full((SIZE, SIZE), 40, np.uint8)
    pixels[BRIGHT] = 230
    return pixels


def looks_at_bright(recipe: str = "grey-24", **changes: Any) -> Model:
    """Two classes: "bright" sums what is above a half, "dark" is constant."""
    conv = Conv(
        np.full((1, 1, 1, 1), 2, np.float32), np.full(1, -1, np.float32), activation=Activation("relu")
    )
    dense = Dense(np.array([[30.0], [0.0]], np.float32), np.array([-1.5, 0.0], np.float32))
    layers = Chain((conv, GlobalMeanPool(), Flatten(), dense, Softmax()))
    return Model(layers, named(recipe), ("bright", "dark"), name="looks", trained=True).with_(**changes)


@pytest.mark.parametrize("recipe", ["grey-24", "julia-grey-24-wh"])
@pytest.mark.parametrize("method", METHODS)
def test_the_map_is_where_the_answer_comes_from(method: Any, recipe: str) -> None:
    found = diptych.explain(
        looks_at_bright(recipe), picture(), method=method, target="bright", preprocessing=recipe
    )
    inside = np.zeros((SIZE, SIZE), bool)
    inside[BRIGHT] = True
    assert found.heat.shape == (SIZE, SIZE)
    assert found.heat[inside].mean() > 4 * np.abs(found.heat[~inside]).mean()
    assert (found.label, found.predicted, found.kind) == ("bright", "bright", "probability")
    assert np.array_equal(found.seen, picture())


def test_grad_cam_is_its_formula() -> None:
    model = looks_at_bright()
    found = diptych.explain(model, picture(), method="grad-cam")
    maps = diptych.trace(model, model.preprocessing.apply(picture())[np.newaxis])["0"][0, 0]
    # One map, whose mean is multiplied by 30: its weight is 30 / (H W), and the largest value becomes 1.
    assert found.layer == "0"
    assert np.allclose(found.heat, maps / maps.max(), atol=1e-6)


def test_occlusion_is_the_mean_fall_of_the_squares_that_cover_a_pixel() -> None:
    model, side = looks_at_bright(), 6
    found = diptych.explain(model, picture(), method="occlusion", patch=side)
    item = model.preprocessing.apply(picture())
    whole = diptych.predict(model, item[np.newaxis])[0, 0]
    falls = []
    for y in range(0, SIZE - side + 1, 3):
        for x in range(0, SIZE - side + 1, 3):
            if y <= 4 < y + side and x <= 13 < x + side:
                covered = item.copy()
                covered[:, y : y + side, x : x + side] = item.mean()
                falls.append(whole - diptych.predict(model, covered[np.newaxis])[0, 0])
    assert found.heat[4, 13] == pytest.approx(np.mean(falls), rel=1e-4)


def test_a_map_that_does_not_depend_on_the_weights_is_said() -> None:
    weight = np.zeros((2, SIZE * SIZE), np.float32)
    weight[0] = 1.0  # randomised with a deviation of 0.5 around 0.5: most of what it shows is the picture
    model = Model(Chain((Flatten(), Dense(weight))), named("grey-24"), ("a", "b"))
    found = diptych.explain(
        model, np.tile(np.arange(SIZE, dtype=np.uint8) * 10, (SIZE, 1)), method="occlusion", patch=12
    )
    assert found.randomised > 0.5
    flat = diptych.explain(model, np.full((SIZE, SIZE), 9, np.uint8), method="occlusion")
    assert not flat.says_something
    assert "the same everywhere" in flat.remarks[0]


def test_ranks_share_ties() -> None:
    assert checking.correlation(np.array([[1.0, 2, 2, 3]]), np.array([[1.0, 5, 5, 9]])) == pytest.approx(1)
    assert checking.correlation(np.array([1.0, 2, 3]), np.array([3.0, 2, 1])) == pytest.approx(-1)
    assert checking.correlation(np.zeros(3), np.arange(3.0)) == 0


def test_the_same_call_gives_the_same_map() -> None:
    first, second = (diptych.explain("scenes", scene(), method="smooth-gradients") for _ in range(2))
    assert np.array_equal(first.heat, second.heat)
    assert first.to_document() == second.to_document()


def scene() -> np.ndarray:
    pixels: np.ndarray = diptych.generate("a lighthouse by the sea", count=1)[0]
    return pixels


@pytest.mark.parametrize("method", METHODS)
def test_a_trained_model_passes_the_check(method: Any) -> None:
    found = diptych.explain("scenes", scene(), method=method)
    assert found.says_something
    assert found.remarks == ()
    assert overlay_picture(found).shape == heat_picture(found).shape == (448, 448, 3)


def test_untrained_weights_are_said() -> None:
    found = diptych.explain(looks_at_bright(trained=False), picture())
    assert any("UNTRAINED" in remark for remark in found.remarks)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        (
            {"method": "magic"},
            UsageError,
            "method is one of grad-cam, occlusion, smooth-gradients, not 'magic'",
        ),
        (
            {"target": "cat"},
            UsageError,
            "there is no class 'cat'; name one of bright, dark, or its number, 0 to 1",
        ),
        ({"target": 2}, UsageError, "there is no class '2'"),
        ({"layer": "9"}, UsageError, "layer 9 does not exist; layers with maps are 0"),
        ({"layer": "3"}, UsageError, "layer 3 gives \\(2,\\), which are no maps"),
        ({"method": "occlusion", "layer": "0"}, UsageError, "a layer is for grad-cam"),
        ({"patch": 4}, UsageError, "a patch is for occlusion"),
        ({"method": "occlusion", "patch": 24}, UsageError, "has 1 to 23 pixels a side, not 24"),
    ],
    ids=str,
)
def test_what_cannot_be_explained(changes: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        diptych.explain(looks_at_bright(), picture(), **changes)


def test_a_model_that_is_no_classifier_or_has_no_maps() -> None:
    filtering = Model(Chain((Conv(np.ones((1, 1, 3, 3), np.float32)),)), named("grey-24"))
    with pytest.raises(UsageError, match="only a classifier can be explained"):
        diptych.explain(filtering, picture())
    dense = Model(Chain((Flatten(), Dense(np.ones((2, SIZE * SIZE), np.float32)))), named("grey-24"))
    with pytest.raises(ShapeError, match="use the method occlusion"):
        diptych.explain(dense, picture())


def test_the_command(diptych_command: Any, tmp_path: Path) -> None:
    Image.fromarray(scene()).save(tmp_path / "a.png")
    done = diptych_command("explain", "scenes", tmp_path / "a.png", "--out", tmp_path / "e", "--json",
                           "--method", "occlusion", "--class", "sea")  # fmt: skip
    assert done.status == 0, done.err
    document = json.loads(done.out)
    assert document["class"] == "sea"
    assert {Path(name).name for name in document["files"]} == {
        "explanation.png", "overlay.png", "heat_map.png", "heat_map.npy", "explanation.json",
    }  # fmt: skip
    assert np.load(tmp_path / "e" / "heat_map.npy").shape == (32, 32)
    assert json.loads((tmp_path / "e" / "explanation.json").read_text())["method"] == "occlusion"
    done = diptych_command("explain", "scenes", tmp_path / "a.png", "--class", "cat", "--out", tmp_path / "f")
    assert done.status == 2
    assert "there is no class 'cat'" in done.err
    assert not (tmp_path / "f").exists()


def test_the_report_of_a_run_shows_it_for_every_picture(tmp_path: Path) -> None:
    result = diptych.run(
        "a lighthouse by the sea", count=2, out=tmp_path / "out", explain="occlusion", maps="0"
    )
    assert {"explanation_1.png", "explanation_2.png"} <= set(result.files)
    page = result.report.read_text()
    assert page.count("Three panels: what the model saw") == 2
    again = diptych.run(
        "a lighthouse by the sea", count=2, out=tmp_path / "out", explain="occlusion", maps="0"
    )
    assert again.files == result.files
