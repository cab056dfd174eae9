"""A user has pictures painted from a caption, and made again from a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from diptych.errors import ImageError, UsageError
from diptych.images import files, generation, metadata, scenes
from diptych.images.picture import LARGEST_SEED, Picture, Record
from diptych.options import GenerationOptions

PROMPT = "a serene sunset over a futuristic city"
RECORD = Record(PROMPT, 3, 1, "scenes", "scenes 1", 64, 48, {"steps": 2}, ("futuristic",))
PIXELS = np.full((48, 64, 3), 200, np.uint8)


def begin(prompt: str = PROMPT, on_progress: Any = None, **options: Any) -> Iterator[Picture]:
    names = {"count", "seed", "generator", "width", "height"} & options.keys()
    settings = {name: value for name, value in options.items() if name not in names}
    asked = GenerationOptions(**{name: options[name] for name in names}, settings=settings)
    return generation.paint(prompt, asked, on_progress=on_progress)


def paint(**arguments: Any) -> list[Picture]:
    return list(begin(**{"width": 64, "height": 48, **arguments}))


def test_pictures_are_painted_offline_with_names_and_records() -> None:
    first, second = paint(count=2, seed=5)
    assert (first.name, second.name) == ("generated_image_1", "generated_image_2")
    assert first.pixels.shape == second.pixels.shape == (48, 64, 3)
    assert not np.array_equal(first.pixels, second.pixels)
    record = second.record
    assert record is not None
    assert (record.prompt, record.seed, record.index, record.generator) == (PROMPT, 5, 1, "scenes")
    assert (record.width, record.height, record.version) == (64, 48, str(scenes.VERSION))


def test_three_pictures_by_default() -> None:
    names = [picture.name for picture in begin(width=16, height=16)]
    assert names == ["generated_image_1", "generated_image_2", "generated_image_3"]


def test_a_picture_depends_on_its_number_and_not_on_how_many() -> None:
    assert np.array_equal(paint(count=3)[1].pixels, paint(count=2)[1].pixels)
    assert not np.array_equal(paint(count=1, seed=1)[0].pixels, paint(count=1, seed=2)[0].pixels)


def test_progress_is_told_picture_by_picture() -> None:
    told: list[tuple[int, int, str]] = []
    paint(count=2, on_progress=lambda *now: told.append(now))
    assert told == [(1, 2, "generated_image_1"), (2, 2, "generated_image_2")]


def test_a_picture_is_made_again_bit_for_bit_from_its_file(tmp_path: Path) -> None:
    original = paint(count=2, seed=LARGEST_SEED)[1]
    files.write_png(tmp_path / "a.png", original.pixels, original.record)
    again = generation.made_again(tmp_path / "a.png")
    assert np.array_equal(again.pixels, original.pixels)
    assert (again.record, again.name) == (original.record, "generated_image_2")
    assert files.read(tmp_path / "a.png").record == original.record


def test_another_version_of_the_painter_is_said(tmp_path: Path) -> None:
    files.write_png(tmp_path / "a.png", PIXELS, Record(PROMPT, 3, 1, "scenes", "0.0 of old", 64, 48))
    note = f"made by scenes (0.0 of old), now by ({scenes.VERSION}): it may differ"
    assert note in generation.made_again(tmp_path / "a.png").remarks


def test_a_picture_without_a_record_cannot_be_made_again(tmp_path: Path) -> None:
    files.write_png(tmp_path / "a.png", PIXELS)
    with pytest.raises(ImageError, match="cannot be made again: it holds no record"):
        generation.made_again(tmp_path / "a.png")
    with pytest.raises(ImageError, match="there is no picture"):
        generation.made_again(tmp_path / "gone.png")


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"prompt": "  "}, "the prompt is empty"),
    ({"prompt": "x" * 10_001}, "10,001 characters"),
    ({"prompt": "a \ud800 sun"}, "characters that are not text"),
    ({"prompt": "a \0 sun"}, "characters that are not text"),
    ({"count": 0}, "count must be a whole number from 1 to 1000, not 0"),
    ({"count": 1001}, "not 1001"),
    ({"count": True}, "not True"),
    ({"seed": -1}, "seed must be a whole number from 0 to 9223372036854775807, not -1"),
    ({"seed": 2**63}, "not 9223372036854775808"),
    ({"seed": 10**5000}, "not 'a far larger number'"),
    ({"seed": 1.5}, "not 1.5"),
    ({"width": 15}, "width must be a whole number from 16 to 8192, not 15"),
    ({"height": 8193}, "not 8193"),
    ({"generator": "scnes"}, "there is no generator 'scnes'; choose one of: scenes: landscapes painted"),
    ({"steps": 3}, "the generator 'scenes' takes no option 'steps'"),
]


@pytest.mark.parametrize(("arguments", "says"), WRONG, ids=[says[:30] for _, says in WRONG])
def test_arguments_that_cannot_be_are_refused_before_painting(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        begin(**arguments)  # not iterated: the answer comes at once
    assert says in str(caught.value)


def test_the_file_says_how_it_was_made_to_other_tools(tmp_path: Path) -> None:
    settings = {"steps": 20, "sampler": "DDIMScheduler", "guidance": 7.5, "negative_prompt": "fog"}
    record = Record(
        PROMPT, 3, 1, "owner/model", "diffusers 1, torch 2", 64, 48, {**settings, "image_seed": 4}
    )
    files.write_png(tmp_path / "a.png", PIXELS, record)
    with Image.open(tmp_path / "a.png") as image:
        entries = dict(image.text)
    assert entries["parameters"] == (
        f"{PROMPT}\nNegative prompt: fog\n"
        "Steps: 20, Sampler: DDIMScheduler, CFG scale: 7.5, Seed: 4, Size: 64x48, Model: owner/model, "
        'Version: "diptych diffusers 1, torch 2"'
    )
    assert Record.from_document(json.loads(entries["diptych"])) == record
    assert "digitalsourcetype/trainedAlgorithmicMedia" in entries["XML:com.adobe.xmp"]
    files.write_png(tmp_path / "b.png", PIXELS, RECORD)
    with Image.open(tmp_path / "b.png") as image:
        assert "digitalsourcetype/algorithmicMedia" in image.text["XML:com.adobe.xmp"]


@pytest.mark.parametrize("prompt", ["ein Baum über dem Fluß", "夕日 over the sea ☀", "two\nlines"])
def test_prompts_in_every_script_reach_other_tools(tmp_path: Path, prompt: str) -> None:
    files.write_png(tmp_path / "a.png", PIXELS, Record(prompt, 0, 0, "scenes", "1", 64, 48))
    with Image.open(tmp_path / "a.png") as image:
        assert image.text["parameters"].startswith(prompt + "\nSeed: 0, ")


def test_the_same_record_gives_the_same_bytes(tmp_path: Path) -> None:
    one, two = (
        Record(**{**vars(RECORD), "settings": {"a": 1, "b": 2}}),
        Record(**{**vars(RECORD), "settings": {"b": 2, "a": 1}}),
    )
    for name, record in (("a.png", one), ("b.png", two)):
        files.write_png(tmp_path / name, PIXELS, record)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


@given(TEXT, st.integers(0, LARGEST_SEED), TEXT, st.dictionaries(TEXT, VALUES, max_size=3), st.lists(TEXT))
@settings(max_examples=60, deadline=None)
def test_any_record_survives_the_file(
    tmp_path_factory: pytest.TempPathFactory,
    prompt: str,
    seed: int,
    generator: str,
    chosen: dict[str, Any],
    ignored: list[str],
) -> None:
    record = Record(prompt, seed, 0, generator, "1", 4, 3, chosen, tuple(ignored))
    path = tmp_path_factory.mktemp("record") / "a.png"
    files.write_png(path, PIXELS[:3, :4], record)
    read = files.read(path)
    assert read.record == record
    assert read.remarks == ()


def damaged(**changes: Any) -> str:
    return json.dumps({**RECORD.to_document(), **changes})


HOSTILE = {
    "no JSON": "{",
    "a list": "[]",
    "a number": "7",
    "nothing": "{}",
    "deep": "[" * 100_000 + "]" * 100_000,
    "deep settings": damaged(settings={"a": json.loads("[" * 60 + "]" * 60)}),
    "a huge seed": damaged(seed=10**400),
    "a seed beyond int()": '{"prompt": "a", "seed": ' + "9" * 10_000 + "}",
    "a negative seed": damaged(seed=-1),
    "a seed with a fraction": damaged(seed=1.5),
    "true for a seed": damaged(seed=True),
    "a prompt that is a list": damaged(prompt=["a"]),
    "half a letter": damaged(prompt="\ud800"),
    "half a letter in the settings": damaged(settings={"\udfff": 1}),
    "a wide picture": damaged(width=10**9),
    "no height": damaged(height=0),
    "NaN": damaged(settings={"a": float("nan")}),
    "infinity": damaged(settings={"a": float("inf")}),
    "settings that are a list": damaged(settings=[]),
    "ignored words that are numbers": damaged(ignored=[1]),
    "ignored words that are a word": damaged(ignored="word"),
    "too long": damaged(prompt="x" * 1_000_001),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_record_is_a_note_where_nobody_asked_and_an_error_where_somebody_did(
    tmp_path: Path, kind: str
) -> None:
    info = PngInfo()
    info.add_text(metadata.KEY, HOSTILE[kind])
    Image.fromarray(PIXELS).save(tmp_path / "a.png", pnginfo=info)
    picture = files.read(tmp_path / "a.png")
    assert picture.record is None
    (note,) = picture.remarks
    assert "record" in note
    assert len(note) < 300
    with pytest.raises(ImageError, match=r"cannot be made again: (a|the) picture's record"):
        generation.made_again(tmp_path / "a.png")


@pytest.mark.slow
@given(st.text(max_size=60) | VALUES.map(json.dumps))
@settings(max_examples=100, deadline=None)
def test_any_text_for_a_record(text: str) -> None:
    try:
        metadata.record_in({metadata.KEY: text})
    except ImageError as error:
        assert "record" in str(error)  # noqa: PT017
    else:
        pytest.fail("no text that short is a record")


def test_a_record_from_elsewhere_can_name_no_option_that_runs_code() -> None:
    maker = generation.generator_named("owner/name")
    assert "allow_pickle" in maker.unsafe_options
    assert set(maker.unsafe_options) <= set(maker.options)


def test_a_picture_of_the_wrong_kind_is_refused() -> None:
    for pixels in (np.zeros((2, 2), np.float32), np.zeros((2, 2, 4), np.uint8), np.zeros(3, np.uint8)):
        with pytest.raises(ImageError, match="must be uint8 of shape"):
            Picture(pixels, "a")


def test_a_prompt_that_is_not_understood_is_said_loudly(diptych_command, tmp_path):
    done = diptych_command("generate", "a dog riding a bicycle in Paris", "--out", tmp_path / "a")
    assert done.status == 0
    assert "NOTHING OF THE PROMPT WAS UNDERSTOOD" in done.err
    assert "does not know dog, riding, bicycle, paris" in done.err
    assert "it paints city, mountains, sea" in done.err


def test_the_nearest_word_is_named(diptych_command, tmp_path):
    done = diptych_command("generate", "a montain by a lighthose", "--out", tmp_path / "a")
    assert "it knows mountain for montain, lighthouse for lighthose" in done.err


def test_a_second_colour_of_one_thing_is_said(diptych_command, tmp_path):
    done = diptych_command("generate", "a red blue house by the sea", "--out", tmp_path / "a")
    assert "left out: blue" in done.err
    assert (
        "left out"
        not in diptych_command("generate", "a red house by the blue sea", "--out", tmp_path / "b").err
    )


@pytest.mark.parametrize("verb", ["generate", "run"])
def test_strict_paints_nothing_that_was_not_asked_for(diptych_command, tmp_path, verb):
    done = diptych_command(verb, "a dog by the sea", "--strict", "--out", tmp_path / "a")
    assert done.status == 1
    assert "left out: dog" in done.err
    assert "without --strict" in done.err
    assert not (tmp_path / "a").exists()
    assert diptych_command(verb, "a boat on the sea", "--strict", "--out", tmp_path / "b").status == 0


A1111 = """a lighthouse by the sea, (masterpiece:1.2)
Negative prompt: blurry, text
Steps: 20, Sampler: Euler a, CFG scale: 7.5, Seed: 1234, Size: 320x200, Model hash: 6ce0, Model: sd-v1-5, """
A1111 += 'Lora hashes: "a: 1, b: 2"\n'
COMFYUI = {
    "3": {"class_type": "KSampler", "inputs": {
        "seed": 77, "steps": 12, "cfg": 6.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
        "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]}},
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "dream.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 256, "height": 192, "batch_size": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "an island at dawn", "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "people", "clip": ["4", 1]}},
}  # fmt: skip


def told(path, key, text):
    info = PngInfo()
    info.add_itxt(key, text)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path, pnginfo=info)
    return path


def test_like_takes_what_other_programs_tell(diptych_command, tmp_path):
    first = told(tmp_path / "a.png", "parameters", A1111)
    done = diptych_command("generate", "--like", first, "--out", tmp_path / "a")
    assert done.status == 0, done.err
    assert "AUTOMATIC1111 made the picture with sd-v1-5" in done.err
    assert (
        "left out of what AUTOMATIC1111 tells: Sampler, Model hash, Lora hashes, steps, guidance" in done.err
    )
    (path,) = (tmp_path / "a").glob("*.png")
    record = files.read(path).record
    assert (record.prompt, record.seed) == ("a lighthouse by the sea, (masterpiece:1.2)", 1234)
    assert (record.width, record.height) == (320, 200)
    second = told(tmp_path / "b.png", "prompt", json.dumps(COMFYUI))
    done = diptych_command("generate", "--like", second, "--out", tmp_path / "b")
    assert "ComfyUI made the picture with dream.safetensors" in done.err
    (path,) = (tmp_path / "b").glob("*.png")
    record = files.read(path).record
    assert (record.prompt, record.seed, record.width, record.height) == ("an island at dawn", 77, 256, 192)


@pytest.mark.parametrize(
    ("key", "text"),
    [("parameters", ""), ("prompt", "{"), ("prompt", "[]"), ("prompt", '{"1": {"inputs": {"positive": ["1", 0]}}}'),
     ("prompt", json.dumps({**COMFYUI, "6": {"class_type": "x", "inputs": {"text": ["6", 0]}}})), ("parameters", "\n")],
)  # fmt: skip
def test_what_tells_nothing_is_refused(diptych_command, tmp_path, key, text):
    path = told(tmp_path / "a.png", key, text)
    done = diptych_command("generate", "--like", path, "--out", tmp_path / "a")
    assert done.status == 1
    assert "AUTOMATIC1111's web UI and ComfyUI" in done.err


def test_strict_is_kept_with_like(diptych_command, tmp_path):
    path = told(tmp_path / "a.png", "parameters", "a dragon by a castle\nSteps: 20, Seed: abc, Size: 64x64")
    done = diptych_command("generate", "--like", path, "--strict", "--out", tmp_path / "a")
    assert done.status == 1
    assert "left out: dragon" in done.err
    done = diptych_command("generate", "--like", path, "--out", tmp_path / "a")
    assert done.status == 0
    assert "no seed is told that can be used" in done.err
