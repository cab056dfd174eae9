"""Bad input, one row a case: the status, one sentence on stderr, and nothing half-written."""

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import diptych
from diptych.errors import DiptychError, ModelError
from diptych.loading import TRAINED
from diptych.model.architectures import named
from diptych.model.layers import Chain

pytestmark = pytest.mark.usefixtures("small_figures")
SCENES = str(TRAINED["scenes"])


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 10)) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def all_bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs that must all be refused; models take a while to write, so they are written once."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "empty.png").touch()
    (folder / "text.jpg").write_text("this is a shopping list")
    (folder / "page.png").write_text("<!DOCTYPE html><html><body>404</body></html>")
    (folder / "huge.png").write_bytes(png_header(400_000, 250_000))
    Image.new("RGB", (64, 48), "red").save(folder / "good.png")
    whole = (folder / "good.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "folder").mkdir()
    (folder / "empty.safetensors").touch()
    (folder / "cut.safetensors").write_bytes(Path(SCENES).read_bytes()[:5000])
    (folder / "json.safetensors").write_text('{"a": 1}')
    (folder / "picture.onnx").write_bytes(whole)
    (folder / "text.json").write_text("a shopping list")
    (folder / "other.json").write_text('{"milk": 2}')
    (folder / "model.xyz").write_bytes(b"?")
    classifier = named("small-cnn-32")
    broken = classifier.layers.layers[0].weight.copy()
    broken[0, 0, 0, 0] = np.nan
    first = replace(classifier.layers.layers[0], weight=broken)
    diptych.write(
        classifier.with_(layers=Chain((first, *classifier.layers.layers[1:]))), folder / "nan.safetensors"
    )
    diptych.write(named("three-conv-224"), folder / "grey.safetensors")
    return folder


@pytest.fixture
def bad(all_bad: Path, tmp_path: Path) -> Path:
    """A folder of inputs that must all be refused."""
    shutil.copytree(all_bad, tmp_path, dirs_exist_ok=True)
    return tmp_path


# (arguments, exit status, words that the sentence holds)
REFUSED = [
    (["predict", SCENES, "{bad}/missing.png"], 1, "missing.png"),
    (["predict", SCENES, "{bad}/empty.png"], 1, "empty"),
    (["predict", SCENES, "{bad}/text.jpg"], 1, "not a picture"),
    (["predict", SCENES, "{bad}/page.png"], 1, "web page"),
    (["predict", SCENES, "{bad}/cut.png"], 1, "truncated"),
    (["predict", SCENES, "{bad}/huge.png"], 1, "400000 x 250000 pixels"),
    (["predict", SCENES, "{bad}/folder"], 1, "folder"),
    (["predict", "{bad}/missing.safetensors", "{bad}/good.png"], 1, "missing.safetensors"),
    (["predict", "no-such-model", "{bad}/good.png"], 2, "scenes"),
    (["predict", "{bad}/empty.safetensors", "{bad}/good.png"], 1, "empty"),
    (["predict", "{bad}/cut.safetensors", "{bad}/good.png"], 1, "cut.safetensors"),
    (["predict", "{bad}/json.safetensors", "{bad}/good.png"], 1, "json.safetensors"),
    (["predict", "{bad}/picture.onnx", "{bad}/good.png"], 1, "seems to be a picture"),
    (["predict", "{bad}/model.xyz", "{bad}/good.png"], 1, "model.xyz"),
    (["predict", "{bad}/folder", "{bad}/good.png"], 1, "folder"),
    (["predict", "{bad}/nan.safetensors", "{bad}/good.png"], 1, "NaN"),
    (["predict", SCENES, "{bad}/good.png", "--preprocessing", "grey-224"], 1, "channels"),
    (["predict", "{bad}/grey.safetensors", "{bad}/good.png", "--preprocessing", "colour-32"], 1, "channels"),
    (["predict", SCENES, "{bad}/good.png", "--preprocessing", "gery-225"], 2, "did you mean 'grey-224'"),
    (["predict", SCENES, "{bad}/good.png", "--preprocessing", "grey-0"], 2, "grey-0"),
    (["predict", SCENES, "{bad}/good.png", "--preprocessing", "grey-99999"], 2, "grey-99999"),
    (["predict", SCENES, "{bad}/good.png", "--preprocessing", "{bad}/none.json"], 1, "no recipe file"),
    (["predict", SCENES, "{bad}/good.png", "--preprocessing", "{bad}/text.json"], 1, "is not JSON"),
    (["predict", SCENES, "{bad}/good.png", "--preprocessing", "{bad}/other.json"], 1, "holds no recipe"),
    (["predict", SCENES, "{bad}/good.png", "--preprocessing", "{bad}/none.bson"], 1, "there is no file"),
    (["predict", SCENES, "{bad}/good.png", "--engine", "warp"], 2, "onnxruntime"),
    (["predict", SCENES, "{bad}/good.png", "--engine", "onnxruntime", "--device", "mps"], 2, "mps"),
    (["predict", SCENES], 2, "images"),
    (["predict", SCENES, "{bad}/good.png", "--top", "many"], 2, "--top"),
    (["features", SCENES, "{bad}/good.png", "--layers", "99", "-o", "{bad}/new"], 2, "99"),
    (["features", SCENES, "{bad}/cut.png", "-o", "{bad}/new"], 1, "truncated"),
    (["preprocess", "{bad}/folder", "-o", "{bad}/new"], 1, "folder"),
    (["preprocess", "{bad}/good.png", "-o", "{bad}/good.png/new"], 1, "cannot"),
    (["preprocess", "{bad}/good.png", "--preprocessing", "nothing", "-o", "{bad}/new"], 2, "nothing"),
    (["generate", "", "-o", "{bad}/new"], 2, "prompt"),
    (["generate", "-o", "{bad}/new"], 2, "prompt"),
    (["generate", "the sea", "--like", "{bad}/good.png", "-o", "{bad}/new"], 2, "either"),
    (["generate", "--like", "{bad}/good.png", "-o", "{bad}/new"], 1, "record"),
    (["generate", "the sea", "-n", "0", "-o", "{bad}/new"], 2, "count"),
    (["generate", "the sea", "--seed", "-3", "-o", "{bad}/new"], 2, "seed"),
    (["generate", "the sea", "--width", "9", "-o", "{bad}/new"], 2, "16"),
    (["generate", "the sea", "--steps", "9", "-o", "{bad}/new"], 2, "steps"),
    (["generate", "the sea", "--generator", "nothing", "-o", "{bad}/new"], 2, "nothing"),
    (["generate", "the sea", "-o", "{bad}/good.png"], 1, "good.png"),
    (["generate", "the sea", "-o", "/proc/new"], 1, "/proc/new"),
    (["inspect", "{bad}/cut.safetensors"], 1, "cut.safetensors"),
    (["inspect", SCENES, "--shape", "1,3,x"], 2, "--shape"),
    (["inspect", SCENES, "--shape", "1,1,32,32"], 1, "channels"),
    (["run", "the sea", "-o", "{bad}/good.png"], 1, "good.png"),
    (["run", "-o", "{bad}/new"], 2, "prompt"),
    (["run", "--images", "{bad}/folder", "-o", "{bad}/new"], 1, "folder"),
    (["run", "the sea", "--model", "{bad}/nan.safetensors", "-o", "{bad}/new"], 1, "NaN"),
    (["run", "the sea", "--model", "{bad}/cut.safetensors", "-o", "{bad}/new"], 1, "cut.safetensors"),
    (["fly"], 2, "fly"),
]


@pytest.mark.parametrize(
    ("arguments", "status", "words"), REFUSED, ids=lambda v: " ".join(v)[:60] if isinstance(v, list) else ""
)
def test_bad_input_is_refused_in_one_sentence(bad, diptych_command, arguments, status, words):
    before = {path: path.stat().st_mtime_ns for path in bad.rglob("*")}
    done = diptych_command(*[a.format(bad=bad) for a in arguments])
    assert done.status == status, done.err
    assert words in done.err
    assert done.out == ""
    lines = [line for line in done.err.splitlines() if line.startswith("diptych: ")]
    if status == 1:
        assert len(lines) == 1
        assert len(done.err.splitlines()) == 1
    assert {path: path.stat().st_mtime_ns for path in bad.rglob("*")} == before


@pytest.mark.parametrize("arguments", [["predict", SCENES, "nowhere.png"], ["inspect", "nowhere.onnx"]])
def test_under_json_a_failure_is_one_json_document(diptych_command, arguments):
    done = diptych_command(*arguments, "--json")
    assert done.status == 1
    assert "nowhere" in json.loads(done.out)["error"]


def test_a_class_list_of_the_wrong_length_is_refused(tmp_path):
    with pytest.raises(ModelError, match="class list has 2 names"):
        diptych.write(named("small-cnn-32").with_(classes=("a", "b")), tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_said_and_leaves_no_part(tmp_path, monkeypatch, diptych_command):
    real = Path.write_text

    def full(self, text, *rest, **more):
        if self.name.startswith(".writing"):
            with Path("/dev/full").open("w") as device:
                device.write(text)
        return real(self, text, *rest, **more)

    monkeypatch.setattr(Path, "write_text", full)
    done = diptych_command("run", "the sea", "-o", tmp_path / "out", "-n", 1, "--width", 64, "--height", 64)
    assert done.status == 1
    assert "No space left" in done.err
    assert not list((tmp_path / "out").iterdir())


def test_interruption_says_how_to_continue(tmp_path, monkeypatch, diptych_command):
    from diptych import pipeline

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "run", interrupted)
    done = diptych_command("run", "the sea", "-o", tmp_path / "out")
    assert done.status == 130
    assert "same command" in done.err


def test_a_process_told_to_end_leaves_no_half_written_file(tmp_path):
    code = (
        "import os, signal, sys\n"
        "from diptych import __main__, files\n"
        "def half(arguments):\n"
        "    with files.replacing('picture.tif') as path:\n"
        "        path.write_bytes(b'half')\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        signal.pause()\n"
        "__main__._exit_status = half\n"
        "__main__.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, timeout=60, check=False)
    assert done.returncode == 143
    assert not list(tmp_path.iterdir())


@given(
    content=st.binary(max_size=400),
    suffix=st.sampled_from([".png", ".jpg", ".safetensors", ".onnx", ".bson", ""]),
)
def test_any_bytes_are_a_picture_a_model_or_a_sentence(tmp_path_factory, content, suffix):
    path = tmp_path_factory.mktemp("bytes") / f"file{suffix}"
    path.write_bytes(content)
    for attempt in (lambda: diptych.read(path), lambda: diptych.preprocess(path, "colour-32")):
        with pytest.raises(DiptychError) as refusal:
            attempt()
        assert re.search(r"file", str(refusal.value))
        assert "\n" not in str(refusal.value)


MODEL = diptych.read(TRAINED["scenes"])


@given(
    values=st.one_of(
        st.tuples(st.just("shape"), st.lists(st.integers(0, 5), max_size=5)),
        st.tuples(st.just("dtype"), st.sampled_from(["int64", "bool", "complex64", "object", "U3"])),
        st.tuples(st.just("nan"), st.sampled_from([np.nan, np.inf, -np.inf])),
    )
)
def test_any_wrong_batch_is_refused_in_a_sentence(values):
    kind, value = values
    if kind == "shape":
        batch = np.zeros(value, np.float32)
    elif kind == "dtype":
        batch = np.zeros((1, 3, 32, 32), value)
    else:
        batch = np.full((1, 3, 32, 32), value, np.float32)
    with pytest.raises(DiptychError) as refusal:
        diptych.predict(MODEL, batch)
    assert "\n" not in str(refusal.value)


# ---- What is not ours is not touched ------------------------------------------------------------------


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    "arguments",
    [
        ["preprocess", "{own}", "-o", "{own}"],
        ["run", "--images", "{own}", "-o", "{own}"],
        ["run", "--images", "{own}", "-o", "{own}", "--overwrite"],
        ["run", "the sea", "-o", "{own}"],
        ["generate", "the sea", "-o", "{own}"],
        ["generate", "--like", "{own}/generated_image_1.png", "-o", "{own}"],
        ["features", SCENES, "{own}/conv_layer_1_feature_maps.png", "--layers", "0", "-o", "{own}"],
    ],
    ids=" ".join,
)
def test_files_that_no_run_wrote_are_never_replaced(tmp_path, diptych_command, arguments):
    diptych.generate("a forest at night", count=1, width=64, height=64, out=tmp_path)
    for name in ("preprocessed_image_1.png", "conv_layer_1_feature_maps.png"):
        Image.new("RGB", (40, 40), "red").save(tmp_path / name)
    (tmp_path / "report.html").write_text("my own page")
    before = snapshot(tmp_path)
    done = diptych_command(*[argument.format(own=tmp_path) for argument in arguments])
    assert done.status == 1
    assert "choose another" in done.err
    assert snapshot(tmp_path) == before


def test_the_same_prompt_may_write_its_pictures_again(tmp_path, diptych_command):
    size = ["--width", "64", "--height", "64", "-n", "2", "-o", tmp_path]
    assert diptych_command("generate", "the sea", *size).status == 0
    before = snapshot(tmp_path)
    assert diptych_command("generate", "the sea", *size).status == 0
    assert snapshot(tmp_path) == before
    assert diptych_command("generate", "the sea", "--seed", 1, *size).status == 1


def test_numbers_that_overflow_are_no_prediction(tmp_path, bad, diptych_command):
    classifier = named("small-cnn-32")
    first = classifier.layers.layers[0]
    loud = replace(first, weight=np.full_like(first.weight, 3e38))
    diptych.write(classifier.with_(layers=Chain((loud, *classifier.layers.layers[1:]))), tmp_path / "m.onnx")
    done = diptych_command("predict", tmp_path / "m.onnx", bad / "good.png")
    assert done.status == 1
    assert "NaN or infinite values for" in done.err


@pytest.mark.parametrize("classes", [("a",) * 10, tuple(range(10))])
def test_class_names_are_different_strings(tmp_path, classes):
    with pytest.raises(ModelError, match="must be different strings"):
        diptych.write(named("small-cnn-32").with_(classes=classes), tmp_path / "m.safetensors")


def test_what_reading_decided_is_said_by_every_verb(tmp_path, diptych_command):
    Image.new("RGBA", (40, 40), (255, 0, 0, 128)).save(tmp_path / "clear.png")
    for verb in (["predict", SCENES], ["preprocess"]):
        done = diptych_command(
            *verb, tmp_path / "clear.png", *(["-o", tmp_path / "in"] if len(verb) == 1 else [])
        )
        assert done.status == 0
        assert "transparency over white" in done.err


def test_options_that_would_do_nothing_are_refused(bad, diptych_command):
    done = diptych_command("run", "--images", bad / "good.png", "-n", 9, "-o", bad / "new")
    assert done.status == 2
    assert "count" in done.err
    assert not (bad / "new").exists()


def test_wrong_usage_under_json_is_a_document_too(diptych_command):
    done = diptych_command("predict", "--json")
    assert done.status == 2
    assert json.loads(done.out)["kind"] == "UsageError"


def test_a_message_is_one_line_of_bounded_length():
    assert (
        str(DiptychError("layer 1 (Flux.a\nb\r\n\u2028c) is not known"))
        == "layer 1 (Flux.a b c) is not known"
    )
    long = str(ModelError("begin " + "x" * 100_000 + "; do this"))
    assert len(long) < 2000
    assert long.startswith("begin x")
    assert long.endswith("x; do this")


def test_no_images_is_a_sentence():
    for empty in ([], (), np.zeros((0, 8, 8, 3), np.uint8)):
        with pytest.raises(DiptychError, match="no images"):
            diptych.predict("scenes", empty)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_standard_output_that_cannot_be_written_is_a_sentence():
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "diptych", "inspect", "scenes"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert "cannot write the result" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_engine_keeps_no_record_of_its_use(tmp_path):
    code = "import numpy, diptych; diptych.predict('scenes', numpy.zeros((1, 3, 32, 32), 'float32'))"
    environment = {**os.environ, "HOME": str(tmp_path)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert not [path for path in tmp_path.rglob("*") if "onnxruntime" in path.name]
