"""The main job: a prompt or pictures in, a folder with everything out, resumable and never mixed."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import diptych
from diptych import journal
from diptych.errors import ImageError, ModelError, OutputError, UsageError
from diptych.files import sha256
from diptych.images import scenes
from diptych.loading import TRAINED

pytestmark = pytest.mark.usefixtures("small_figures")
SUNSET = "a serene sunset over a futuristic city"
TEMPLE = "An ancient temple on solid ground, surrounded by golden clouds and waterfalls"


def expected_files(originals: str, count: int, convolutions: int) -> set[str]:
    numbered = [f"{originals}_{i}.png" for i in range(1, count + 1)]
    inputs = [f"preprocessed_image_{i}.{s}" for i in range(1, count + 1) for s in ("png", "npy")]
    maps = [f"conv_layer_{i}_feature_maps.png" for i in range(1, convolutions + 1)]
    fixed = [
        "predictions.json",
        "predictions.csv",
        "loaded_image_verification.png",
        "input_heatmap.png",
        "input_contour.png",
        "input_surface.png",
        "input_image_visualizations.png",
        "model_architecture.txt",
        "run.json",
        "report.html",
    ]
    return {*numbered, *inputs, *maps, *fixed}


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    diptych.run(SUNSET, out=out, width=256, height=256)
    return out


def test_a_prompt_leaves_every_file(finished):
    assert names_in(finished) == expected_files("generated_image", 3, 3)


def test_the_inputs_are_the_recipe_applied_to_the_pictures(finished):
    model = diptych.read(TRAINED["scenes"])
    batch = diptych.preprocess([finished / f"generated_image_{i}.png" for i in (1, 2, 3)], model)
    stored = np.stack([np.load(finished / f"preprocessed_image_{i}.npy") for i in (1, 2, 3)])
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored, batch)
    predictions = json.loads((finished / "predictions.json").read_text())
    for row, output in zip(predictions["predictions"], diptych.predict(model, batch), strict=True):
        assert row["label"] == scenes.CLASSES[output.argmax()]
        np.testing.assert_allclose(list(row["probabilities"].values()), output, rtol=1e-6)


def test_the_classifier_in_the_box_sees_the_city_that_was_painted(finished):
    predictions = json.loads((finished / "predictions.json").read_text())
    assert predictions["weights"] == "trained"
    assert [row["label"] for row in predictions["predictions"]] == ["city"] * 3


def test_the_csv_says_the_same_as_the_json(finished):
    document = json.loads((finished / "predictions.json").read_text())
    rows = list(csv.DictReader((finished / "predictions.csv").read_text().splitlines()))
    assert [row["label"] for row in rows] == [row["label"] for row in document["predictions"]]
    assert float(rows[0]["city"]) == pytest.approx(
        document["predictions"][0]["probabilities"]["city"], rel=1e-6
    )


def test_the_record_has_what_is_needed_to_do_it_again(finished):
    record = json.loads((finished / "run.json").read_text())
    assert record["status"] == "done"
    assert record["settings"]["prompt"] == SUNSET
    assert record["settings"]["seed"] == 0
    assert record["versions"]["diptych"]
    assert record["settings"]["preprocessing"]["steps"]
    assert record["timings"].keys() >= {"images", "predict", "plots"}
    for name, digest in record["files"].items():
        assert sha256(finished / name) == digest
    assert record["files"].keys() == names_in(finished) - {"run.json"}


@pytest.mark.slow
def test_the_command_in_the_record_makes_the_same_files(finished, tmp_path, diptych_command):
    record = json.loads((finished / "run.json").read_text())
    import shlex

    arguments = shlex.split(record["command"])[1:]
    arguments[arguments.index("--out") + 1] = str(tmp_path / "again")
    assert diptych_command(*arguments).status == 0
    again = json.loads((tmp_path / "again" / "run.json").read_text())
    same = {name for name in record["files"] if name != "report.html"}
    assert {name: again["files"][name] for name in same} == {name: record["files"][name] for name in same}


@pytest.mark.slow
def test_the_command_in_the_record_says_how_the_model_file_is_read(photographs, tmp_path):
    diptych.convert("scenes", tmp_path / "gan.bson")
    how = {"written_by": "0.16", "key": "model"}
    diptych.run(images=photographs, model=tmp_path / "gan.bson", out=tmp_path / "out", **how)
    command = json.loads((tmp_path / "out" / "run.json").read_text())["command"]
    assert "--key model" in command
    assert "--written-by 0.16" in command


@pytest.mark.slow
def test_photographs_go_the_same_way(photographs, tmp_path):
    result = diptych.run(images=photographs, out=tmp_path / "out", model="three-conv-224")
    assert names_in(tmp_path / "out") == expected_files("loaded_image", 3, 3)
    assert result.ok
    assert result.predictions.standing == "untrained"
    assert np.load(tmp_path / "out" / "preprocessed_image_1.npy").shape == (1, 224, 224)
    assert "untrained" in (tmp_path / "out" / "report.html").read_text().lower()
    assert "UNTRAINED" in (tmp_path / "out" / "model_architecture.txt").read_text().upper()


def test_a_finished_run_is_not_done_again(finished, monkeypatch):
    before = {path.name: path.stat().st_mtime_ns for path in finished.iterdir() if path.name != "run.json"}
    monkeypatch.setattr(scenes, "paint", lambda *a, **k: pytest.fail("painted again"))
    diptych.run(SUNSET, out=finished, width=256, height=256)
    after = {path.name: path.stat().st_mtime_ns for path in finished.iterdir() if path.name != "run.json"}
    assert after == before


@pytest.mark.slow
@pytest.mark.parametrize("moment", [1, 3, 5, 9, 14])
def test_an_interrupted_run_continues_where_it_stopped(finished, tmp_path, monkeypatch, moment):
    out, calls = tmp_path / "out", []
    real = journal.Journal.make

    def interrupted(self, name, write):
        calls.append(name)
        if len(calls) == moment:
            raise KeyboardInterrupt
        return real(self, name, write)

    monkeypatch.setattr(journal.Journal, "make", interrupted)
    with pytest.raises(KeyboardInterrupt):
        diptych.run(SUNSET, out=out, width=256, height=256)
    monkeypatch.setattr(journal.Journal, "make", real)
    stopped = json.loads((out / "run.json").read_text())
    assert stopped["status"] == "running"
    assert not [name for name in names_in(out) if name.startswith(".writing")]
    times = {name: (out / name).stat().st_mtime_ns for name in stopped["files"]}
    diptych.run(SUNSET, out=out, width=256, height=256)
    assert {name: (out / name).stat().st_mtime_ns for name in times} == times
    reference = json.loads((finished / "run.json").read_text())["files"]
    files = json.loads((out / "run.json").read_text())["files"]
    assert {k: v for k, v in files.items() if k != "report.html"} == {
        k: v for k, v in reference.items() if k != "report.html"
    }


def test_a_damaged_file_is_made_again(tmp_path):
    out = tmp_path / "out"
    diptych.run(SUNSET, out=out, count=1, width=64, height=64)
    good = sha256(out / "generated_image_1.png")
    (out / "generated_image_1.png").write_bytes(b"half a file")
    diptych.run(SUNSET, out=out, count=1, width=64, height=64)
    assert sha256(out / "generated_image_1.png") == good


@pytest.mark.slow
def test_a_folder_of_other_settings_is_refused_with_the_way_out(tmp_path, diptych_command):
    out = tmp_path / "out"
    size = ("--width", 64, "--height", 64, "-n", 1)
    assert diptych_command("run", "a boat on the sea", "--out", out, *size).status == 0
    before = {path.name: sha256(path) for path in out.iterdir()}
    refused = diptych_command("run", "a red desert", "--out", out, *size)
    assert refused.status == 1
    assert "holds a run with other settings" in refused.err
    assert "--overwrite" in refused.err
    assert {path.name: sha256(path) for path in out.iterdir()} == before
    (out / "mine.txt").write_text("not of any run")
    assert diptych_command("run", "a red desert", "--out", out, *size, "--overwrite").status == 0
    assert json.loads((out / "run.json").read_text())["settings"]["prompt"] == "a red desert"
    assert (out / "mine.txt").read_text() == "not of any run"


@pytest.mark.slow
def test_a_record_that_names_files_elsewhere_deletes_nothing(tmp_path):
    victim = tmp_path / "victim.txt"
    victim.write_text("keep me")
    out = tmp_path / "out"
    out.mkdir()
    (out / "run.json").write_text(
        json.dumps({"settings": {}, "files": {"../victim.txt": "0"}, "timings": {}})
    )
    with pytest.raises(OutputError, match="not the record of a run"):
        diptych.run(SUNSET, out=out, count=1, width=64, height=64)
    diptych.run(SUNSET, out=out, count=1, width=64, height=64, overwrite=True)
    assert victim.read_text() == "keep me"


@pytest.mark.slow
def test_a_bad_picture_is_named_and_the_others_go_on(photographs, tmp_path, diptych_command):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    done = diptych_command(
        "run",
        "--images",
        photographs,
        "--images",
        tmp_path / "broken.png",
        "--out",
        tmp_path / "out",
        "--json",
    )
    assert done.status == 1
    assert "broken.png" in done.err
    document = json.loads(done.out)
    assert len(document["predictions"]) == 3
    assert any("broken.png" in failure for failure in document["failures"])
    assert "broken.png" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.slow
def test_a_test_pattern_can_stand_in_for_a_bad_picture(photographs, tmp_path, diptych_command):
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    done = diptych_command(
        "run", "--images", tmp_path / "broken.png", "--images", photographs, "--on-error", "test-pattern",
        "--out", tmp_path / "out", "--json",
    )  # fmt: skip
    assert done.status == 1
    document = json.loads(done.out)
    assert len(document["predictions"]) == 4
    assert any("test pattern" in remark for remark in document["remarks"])
    pattern = np.asarray(Image.open(tmp_path / "out" / "loaded_image_1.png"))
    assert pattern.ndim == 3
    assert len(np.unique(pattern.reshape(-1, 3), axis=0)) > 4


def test_nothing_readable_is_an_error_and_leaves_nothing(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"a\.png"):
        diptych.run(images=[tmp_path / "a.png"], out=tmp_path / "out")


@pytest.mark.slow
def test_ignored_words_are_named(tmp_path, diptych_command):
    done = diptych_command(
        "run", "a blorptastic sea", "--out", tmp_path / "out", "-n", 1, "--width", 64, "--height", 64
    )
    assert done.status == 0
    assert "blorptastic" in done.err
    assert "blorptastic" in (tmp_path / "out" / "report.html").read_text()


def test_wrong_calls_are_refused_before_anything_is_written(tmp_path):
    out = tmp_path / "out"
    calls = [
        ({}, UsageError, "prompt"),
        ({"prompt": SUNSET, "count": 0}, UsageError, "count"),
        ({"prompt": SUNSET, "seed": -1}, UsageError, "seed"),
        ({"prompt": SUNSET, "width": 3}, UsageError, "16"),
        ({"prompt": SUNSET, "maps": "9,x"}, UsageError, "layer"),
        ({"prompt": SUNSET, "scale": "loud"}, UsageError, "scale"),
        ({"prompt": SUNSET, "on_error": "cry"}, UsageError, "on_error"),
        ({"prompt": SUNSET, "model": "no-such-model"}, UsageError, "no-such-model"),
        ({"prompt": SUNSET, "preprocessing": "no-recipe"}, UsageError, "no-recipe"),
        ({"prompt": SUNSET, "preprocessing": "grey-224"}, ModelError, "channels"),
        ({"prompt": SUNSET, "engine": "warp"}, UsageError, "warp"),
    ]
    for arguments, kind, words in calls:
        with pytest.raises(kind, match=words):
            diptych.run(out=out, **arguments)
        assert not out.exists(), arguments


@pytest.mark.slow
def test_the_temple_prompt_makes_every_file_too(tmp_path):
    diptych.run(TEMPLE, out=tmp_path / "out", count=1, width=256, height=256)
    assert names_in(tmp_path / "out") == expected_files("generated_image", 1, 3)


def test_progress_is_told_in_whole_steps(tmp_path):
    said = []
    diptych.run(
        "the sea",
        out=tmp_path / "out",
        count=2,
        width=64,
        height=64,
        progress=lambda *step: said.append(step),
    )
    assert said
    for done, total, what in said:
        assert re.fullmatch(r"[a-z0-9_ ]+", what)
        assert 0 <= done <= total
