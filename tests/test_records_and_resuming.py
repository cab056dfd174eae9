"""The record in a folder, run.json: what continues from it, what it may hold, and what is deleted because of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import diptych
from diptych import journal
from diptych.errors import DiptychError, OutputError
from diptych.files import IN_USE, sha256
from diptych.images import files, generation, scenes
from diptych.options import GenerationOptions
from diptych.preparing import preprocess_files
from little_pictures import COLOUR

pytestmark = pytest.mark.usefixtures("small_figures")

PROMPT = "a red sun over the sea"
SMALL = GenerationOptions(count=3, width=32, height=32)


def stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != "run.json"}


def run(out: Path, **options: Any) -> Any:
    given = {"count": 1, "width": 32, "height": 32, "maps": "0", "engine": "numpy"} | options
    return diptych.run(PROMPT, out=out, **given)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in (1, 2, 3):
        files.write_png(folder / f"{number}.png", COLOUR[number:])
    return folder


# Continuing


def test_generate_continues_and_says_what_was_there(tmp_path, monkeypatch):
    out = tmp_path / "images"
    generation.generate_files(PROMPT, GenerationOptions(count=2, width=32, height=32), out=out)
    before = stamps(out)
    made = generation.generate_files(PROMPT, SMALL, out=out)
    assert "2 of 3 pictures were there already" in made.remarks
    assert [path.name for path in made.paths] == [f"generated_image_{i}.png" for i in (1, 2, 3)]
    assert {name: stamp for name, stamp in stamps(out).items() if name in before} == before
    monkeypatch.setattr(scenes, "paint", lambda *a, **k: pytest.fail("painted again"))
    assert "3 of 3 pictures were there already" in generation.generate_files(PROMPT, SMALL, out=out).remarks


def test_a_continued_series_is_the_same_as_one_made_at_once(tmp_path):
    generation.generate_files(PROMPT, SMALL, out=tmp_path / "once")
    for count in (1, 2, 3):
        pictures = diptych.generate(PROMPT, count, width=32, height=32, out=tmp_path / "parts")
    assert len(pictures) == 3
    for number in (1, 2, 3):
        name = f"generated_image_{number}.png"
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def test_generate_refuses_another_prompt_unless_told_to_overwrite(tmp_path, diptych_command):
    out = tmp_path / "images"
    generation.generate_files(PROMPT, SMALL, out=out)
    before = stamps(out)
    with pytest.raises(OutputError, match="--overwrite"):
        generation.generate_files("a forest", SMALL, out=out)
    with pytest.raises(OutputError, match="seed was 0 there and is 1 now"):
        diptych.generate(PROMPT, 3, 1, width=32, height=32, out=out)
    assert stamps(out) == before
    words = ("generate", "a forest", "-n", 1, "--width", 32, "--height", 32, "-o", out)
    assert diptych_command(*words).status == 1
    assert diptych_command(*words, "--overwrite").status == 0
    assert sorted(path.name for path in out.iterdir()) == ["generated_image_1.png", "run.json"]
    assert files.read(out / "generated_image_1.png").record.prompt == "a forest"


def test_preprocess_continues_and_several_calls_fill_a_folder(photos, tmp_path, monkeypatch):
    out = tmp_path / "inputs"
    preprocess_files([photos / "1.png", photos / "2.png"], "colour-32", out=out)
    before = stamps(out)
    done = preprocess_files([photos], "colour-32", out=out)
    assert done.remarks[0] == "2 of 3 pictures were there already"
    assert len(done.paths) == 7
    assert {name: stamp for name, stamp in stamps(out).items() if name in before} == before
    (out / "2.png").write_bytes(b"damaged")
    assert preprocess_files([photos], "colour-32", out=out).remarks[0] == "2 of 3 pictures were there already"
    assert (out / "2.png").read_bytes() != b"damaged"


def test_preprocess_refuses_another_recipe_and_another_picture(photos, tmp_path, diptych_command):
    out = tmp_path / "inputs"
    preprocess_files([photos], "colour-32", out=out)
    with pytest.raises(OutputError, match=r"recipe was .* there and is .* now.*--overwrite"):
        preprocess_files([photos], "grey-32", out=out)
    files.write_png(photos / "1.png", COLOUR[4:])
    before = stamps(out)
    with pytest.raises(OutputError, match=r"holds 1\.npy of another picture than .*1\.png is now"):
        preprocess_files([photos], "colour-32", out=out)
    assert stamps(out) == before
    told = diptych_command("preprocess", photos, "-o", out, "--overwrite")
    assert told.status == 0
    assert "2 of 3 pictures were there already" in told.err
    grey = ("preprocess", photos / "1.png", "--preprocessing", "grey-32")
    assert diptych_command(*grey, "-o", out, "--overwrite").status == 0
    assert sorted(path.name for path in out.iterdir()) == ["1.npy", "1.png", "recipe.json", "run.json"]


def test_a_file_of_the_user_is_not_replaced(photos, tmp_path):
    out = tmp_path / "inputs"
    out.mkdir()
    (out / "1.npy").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"holds 1\.npy, which no recorded run wrote"):
        preprocess_files([photos], "colour-32", out=out)
    assert (out / "1.npy").read_bytes() == b"mine"
    assert sorted(path.name for path in out.iterdir()) == ["1.npy"]


def test_verbs_do_not_share_a_folder(photos, tmp_path):
    run(tmp_path / "out")
    with pytest.raises(OutputError, match='it is of "run", and this is "preprocess"'):
        preprocess_files([photos], "colour-32", out=tmp_path / "out")


def test_a_run_says_what_was_there(tmp_path):
    assert not [one for one in run(tmp_path / "out").remarks if "already" in one]
    assert run(tmp_path / "out").remarks[0] == "1 of 1 picture was there already"


def test_lines_of_a_killed_run_count_and_torn_ones_do_not(tmp_path):
    out = tmp_path / "out"
    run(out)
    record = json.loads((out / "run.json").read_text())
    lines = [json.dumps([name, digest, ""]) for name, digest in record["files"].items()]
    record["files"], record["status"] = {}, "running"
    (out / "run.json").write_text(json.dumps(record))
    (out / IN_USE).write_text("\n".join([*lines[:-1], lines[-1][:20]]))
    before = stamps(out)
    last = next(iter(json.loads(lines[-1])))
    run(out)
    after = stamps(out)
    assert {name for name in after if after[name] != before[name]} == {last}
    assert IN_USE not in after


# What a record may hold


def planted(out: Path, record: object) -> None:
    out.mkdir(exist_ok=True)
    (out / "run.json").write_text(json.dumps(record), "utf-8")


def test_overwrite_deletes_only_what_a_run_makes(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("thesis.docx", "holiday.png", "input_heatmap.png", "output_9.npy"):
        (out / name).write_text(f"mine: {name}")
    listed = {name: sha256(out / name) for name in ("thesis.docx", "holiday.png", "input_heatmap.png")}
    planted(out, {"settings": {}, "files": {**listed, "output_9.npy": "0" * 64}, "timings": {}})
    run(out, overwrite=True, maps="1")
    assert (out / "thesis.docx").read_text() == "mine: thesis.docx"
    assert (out / "holiday.png").read_text() == "mine: holiday.png"
    assert (out / "output_9.npy").read_text() == "mine: output_9.npy"  # changed since it was recorded
    assert (out / "input_heatmap.png").read_bytes()[:4] == b"\x89PNG"
    assert "thesis.docx" not in json.loads((out / "run.json").read_text())["files"]


def test_overwrite_of_a_generated_folder_deletes_no_other_picture(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "holiday.png").write_text("mine")
    planted(out, {"settings": {}, "files": {"holiday.png": sha256(out / "holiday.png")}})
    generation.generate_files(PROMPT, SMALL, out=out, overwrite=True)
    assert (out / "holiday.png").read_text() == "mine"


@pytest.mark.parametrize(
    "wrong",
    [
        {"timings": [1, 2]},
        {"timings": {"images": "long"}},
        {"timings": {"images": float("nan")}},
        {"timings": {"\ud800": 1}},
        {"files": ["a"]},
        {"files": {"predictions.csv": 7}},
        {"files": {"../predictions.csv": "0" * 64}},
        {"files": {"\udcff.png": "0" * 64}},
        {"settings": []},
        {"versions": {"numpy": "\ud800"}},
        {"versions": 3},
        {"sources": {"a": None}},
    ],
)
def test_a_record_of_wrong_types_is_refused_with_a_sentence(wrong, tmp_path, diptych_command):
    out = tmp_path / "out"
    run(out)
    record = json.loads((out / "run.json").read_text())
    planted(out, record | wrong)
    words = (
        "run",
        PROMPT,
        "-n",
        1,
        "--width",
        32,
        "--height",
        32,
        "--maps",
        "0",
        "--engine",
        "numpy",
        "-o",
        out,
    )
    refused = diptych_command(*words)
    assert refused.status == 1
    assert "is not the record of a run; choose another --out, or pass --overwrite" in refused.err
    assert diptych_command(*words, "--overwrite").status == 0
    assert json.loads((out / "run.json").read_text())["status"] == "done"


@pytest.mark.parametrize(
    "extra", [{"command": "\ud800"}, {"status": ["x"]}, {"remarks": 3}, {"new": {"a": [1]}}]
)
def test_what_a_record_holds_besides_is_left_out(extra, tmp_path):
    out = tmp_path / "out"
    run(out)
    before = stamps(out)
    planted(out, json.loads((out / "run.json").read_text()) | extra)
    run(out)
    assert stamps(out) == before
    assert "new" not in json.loads((out / "run.json").read_text("utf-8"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_a_record_that_is_a_pipe_or_huge_is_refused_at_once(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    os.mkfifo(out / "run.json")
    with pytest.raises(OutputError, match="is not the record of a run"):
        run(out)
    (out / "run.json").unlink()
    with (out / "run.json").open("wb") as stream:
        stream.truncate(10**10)  # sparse
    with pytest.raises(OutputError, match="is not the record of a run"):
        run(out)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
NAMES = st.sampled_from(["generated_image_1.png", "thesis.docx", "../x", "", ".", "a\0b", "\ud800.png"])
DIGESTS = st.sampled_from(["0" * 64, "x", ""])
SETTINGS = {"prompt": PROMPT, "seed": 0}
RECORDS = ANY | st.fixed_dictionaries(
    {},
    optional={
        "settings": ANY
        | st.just(SETTINGS)
        | st.dictionaries(st.sampled_from(["verb", "prompt", "seed"]), ANY),
        "files": ANY | st.dictionaries(NAMES, DIGESTS | ANY, max_size=3),
        "sources": ANY | st.dictionaries(NAMES, DIGESTS | ANY, max_size=3),
        "timings": ANY | st.dictionaries(st.text(max_size=3), st.floats() | st.integers() | ANY, max_size=3),
        "versions": ANY | st.dictionaries(st.text(max_size=3), st.text(max_size=3) | ANY, max_size=3),
        "status": ANY,
        "command": ANY,
    },
)


@settings(max_examples=300)
@given(record=RECORDS, lines=st.binary(max_size=40) | RECORDS, overwrite=st.booleans())
def test_any_json_is_taken_or_refused_with_a_sentence(tmp_path_factory, record, lines, overwrite):
    out = tmp_path_factory.mktemp("any")
    (out / "mine.txt").write_text("mine")
    (out / "run.json").write_text(json.dumps(record), "utf-8")
    (out / IN_USE).write_bytes(lines if isinstance(lines, bytes) else json.dumps(lines).encode())
    try:
        with journal.keeping(out, SETTINGS, generation._NAMES, overwrite=overwrite) as kept:
            with kept.timed("images"):
                kept.make("generated_image_1.png", lambda path: path.write_bytes(b"made"))
            assert kept.files["generated_image_1.png"] == sha256(out / "generated_image_1.png")
    except DiptychError as error:
        assert not overwrite
        str(error).encode()
    else:
        written = json.loads((out / "run.json").read_text("utf-8"))
        assert written["settings"] == SETTINGS
        assert (out / "generated_image_1.png").read_bytes() == b"made"
    assert (out / "mine.txt").read_text() == "mine"


@settings(max_examples=100)
@given(data=st.binary(max_size=60))
def test_any_bytes_are_refused_with_a_sentence(tmp_path_factory, data):
    out = tmp_path_factory.mktemp("bytes")
    (out / "run.json").write_bytes(data)
    with (
        pytest.raises(OutputError, match="is not the record of a run"),
        journal.keeping(out, SETTINGS, generation._NAMES),
    ):
        pass


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"settings": {"prompt": ' + "[" * 900 + "]" * 900 + '}, "files": {}}', "9" * 9999],
)
def test_deep_and_long_json_is_a_sentence(text, tmp_path):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(OutputError), journal.keeping(tmp_path, SETTINGS, generation._NAMES):
        pass
