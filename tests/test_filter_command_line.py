"""`diptych filter ...`: learn, apply, evaluate, preview, list, and the sentences of wrong usage."""

import json
import math
import re
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diptych import formats
from diptych.datasets.photographs import photograph
from diptych.errors import ImageError, ModelError, UsageError
from diptych.filters import apply, metrics
from diptych.filters.evaluating import HIGHEST_PSNR, evaluate, evaluate_samples
from diptych.filters.previewing import preview
from diptych.filters.samples import FilterSample
from diptych.images import files
from diptych.model.layers import Chain, Conv, Dense, Flatten, Pad
from diptych.model.model import Model

DOCUMENTATION = Path(__file__).parent.parent / "docs" / "filters.md"
VERBS = ("learn", "apply", "evaluate", "preview", "list")


def box(shift=0.0, notes=None, mode="replicate"):
    """The mean of 3 x 3 as a model; `shift` is what it adds, in levels."""
    weight, bias = np.full((3, 1, 3, 3), 1 / 9, np.float32), np.full(3, shift / 255, np.float32)
    layers = Chain((Pad(((1, 1), (1, 1)), mode), Conv(weight, bias, groups=3)))
    return Model(layers, input_shape=(3, None, None), name="box", trained=True, notes=notes or {})


CURVE = [[step, 0.1 / (1 + step), 20 + step / 100] for step in range(0, 1000, 50)]
METHOD = {"name": "linear", "weights": 30, "psnr": 88.25, "seconds": 0.125, "remark": "by least squares"}
TAUGHT = {
    "filter": {
        "target": "box",
        "curve": CURVE,
        "methods": [METHOD],
        "seconds": 0.5,
        "stopped": "it was exact",
    }
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    files.write_png(folder / "cat.png", photograph("chelsea")[100:160, 100:190])
    files.write_png(folder / "cup.png", photograph("coffee")[100:170, 200:260])
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "box.safetensors"
    formats.write(box(notes=TAUGHT), path)
    return path


# ---- Judging ------------------------------------------------------------------------------------------


def test_a_known_error_gives_the_figures_that_it_must(pictures):
    found = evaluate(box(shift=3), "box", pictures, engine="onnxruntime")
    error = -20 * math.log10(3 / 255)
    assert found.whole.psnr == pytest.approx(error, abs=0.1)  # clipped where the picture is white
    assert found.inner is not None
    assert (found.whole.largest, found.whole.identical) == (3, 0.0)
    assert found.border == (1, 1, 1, 1)
    assert found.weights == 30
    assert [picture.name for picture in found.pictures] == ["cat", "cup"]
    json.dumps(found.to_document(), allow_nan=False)


def test_only_the_border_is_wrong_where_the_edges_differ(pictures):
    found = evaluate(box(mode="zero"), "box", pictures, engine="onnxruntime")
    assert found.whole.psnr < 40
    assert found.whole.largest > 20
    assert found.inner is not None
    assert found.inner.psnr > 120
    assert (found.inner.largest, found.inner.identical) == (0, 1.0)


def test_pooled_and_mean_differ_as_they_should():
    samples = [
        FilterSample(name, *_constant(level, size)) for name, level, size in [("a", 10, 8), ("b", 40, 24)]
    ]
    identity = Model(Chain((Conv(np.ones((1, 1, 1, 1), np.float32)),)), input_shape=(1, None, None))
    found = evaluate_samples(identity, samples, engine="onnxruntime")
    errors = [(10 / 255) ** 2, (40 / 255) ** 2]
    assert found.whole.psnr == pytest.approx(np.mean([metrics.psnr_of(error) for error in errors]))
    assert found.whole.pooled_psnr == pytest.approx(metrics.psnr_of(np.average(errors, weights=[64, 576])))
    assert (found.whole.worst_picture, found.whole.largest) == ("b", 40)


def _constant(level, size):
    """A grey picture and one that is `level` levels darker."""
    picture = np.full((size, size), 200, np.uint8)
    return picture, np.full((size, size), (200 - level) / 255, np.float32)


@pytest.mark.slow
def test_the_baselines_are_the_best_of_their_kind(pictures):
    def baseline(name, model, target):
        return evaluate(model, target, pictures, engine="onnxruntime").baselines[name]

    assert baseline("identity", box(), "identity").psnr == HIGHEST_PSNR
    assert baseline("best linear", box(), "gaussian:sigma=0.8").psnr > 100
    expected = np.concatenate([_sobel(path).ravel() for path in sorted(pictures.iterdir())])
    constant = baseline("constant", _grey_box(), "sobel").pooled_psnr
    assert constant == pytest.approx(metrics.psnr_of(float(np.var(expected))), abs=0.01)


def _grey_box():
    weight = np.full((1, 3, 3, 3), 1 / 27, np.float32)
    return Model(Chain((Pad(((1, 1), (1, 1)), "replicate"), Conv(weight))), input_shape=(3, None, None))


def _sobel(path):
    from diptych.filters import targets

    return targets.resolve("sobel")(files.read(path).pixels)


@pytest.mark.slow
def test_a_picture_smaller_than_the_border_counts_as_a_whole():
    tiny = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    found = evaluate(box(), "box", [tiny], engine="onnxruntime")
    assert found.inner is None
    assert found.whole.identical == 1


def test_what_is_not_a_filter_is_refused():
    classifier = Model(
        Chain((Flatten(), Dense(np.ones((2, 27), np.float32)))), input_shape=(3, 3, 3), name="it"
    )
    with pytest.raises(ModelError, match="it is not a filter"):
        evaluate(classifier, "box")
    five = Model(Chain((Conv(np.ones((5, 3, 1, 1), np.float32)),)), input_shape=(3, None, None), name="it")
    with pytest.raises(ModelError, match="it gives 5 channels"):
        evaluate(five, "box")
    with pytest.raises(UsageError, match="gives 3 channels and sobel 1"):
        evaluate(box(), "sobel")


def test_a_model_file_does_not_choose_what_is_imported(pictures):
    named = box(notes={"filter": {"target": "os:getcwd"}})
    with pytest.raises(UsageError, match=r"was taught the function os:getcwd, .*: --target os:getcwd"):
        evaluate(named, None, pictures)


# ---- The commands -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_learn_then_apply_then_evaluate(tmp_path, pictures, diptych_command):
    learned = tmp_path / "brighter.safetensors"
    done = diptych_command(
        "filter",
        "learn",
        "brightness",
        "--images",
        pictures,
        "-o",
        learned,
        "--report",
        tmp_path / "page.html",
        "--json",
    )
    assert done.status == 0, done.err
    document = json.loads(done.out)
    assert document["target"] == "brightness"
    assert document["scores"]["whole"]["largest"] <= 1
    assert "brightness" in (tmp_path / "page.html").read_text()
    applied = diptych_command(
        "filter", "apply", learned, pictures / "cat.png", tmp_path / "cat.png", "--engine", "onnxruntime"
    )
    assert applied.status == 0, applied.err
    given = np.asarray(Image.open(tmp_path / "cat.png")).astype(int)
    expected = np.clip(np.rint(np.asarray(Image.open(pictures / "cat.png")) + 0.2 * 255), 0, 255)
    assert np.abs(given - expected).max() <= 1
    shown = diptych_command("filter", "evaluate", learned, "--images", pictures)
    assert shown.status == 0
    assert "without learning: constant" in shown.out


@pytest.mark.slow
def test_pairs_are_learned_and_evaluated(tmp_path, diptych_command):
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    after.mkdir()
    for name in ("chelsea", "coffee"):
        picture = photograph(name)[:200, :300]
        files.write_png(before / f"{name}.png", picture)
        files.write_png(after / f"{name}.png", 255 - picture)
    learned = tmp_path / "negative.safetensors"
    done = diptych_command(
        "filter", "learn", "--pairs", before, after, "-o", learned, "--report", tmp_path / "r.html"
    )
    assert done.status == 0, done.err
    assert "<h3>chelsea</h3>" in (tmp_path / "r.html").read_text("utf-8")
    found = diptych_command("filter", "evaluate", learned, "--pairs", before, after, "--json")
    assert json.loads(found.out)["whole"]["largest"] <= 1
    unnamed = diptych_command("filter", "evaluate", learned)
    assert unnamed.status == 2
    assert "--target NAME or --pairs BEFORE AFTER" in unnamed.err


def test_apply_prints_width_by_height(model, tmp_path, diptych_command):
    Image.new("RGB", (31, 17)).save(tmp_path / "a.png")
    done = diptych_command("filter", "apply", model, tmp_path / "a.png", tmp_path / "b.png")
    assert "b.png: 31 x 17, " in done.out


def test_evaluate_prints_one_document(model, pictures, diptych_command):
    found = diptych_command("filter", "evaluate", model, "--images", pictures, "--json")
    document = json.loads(found.out)
    assert (document["target"], document["whole"]["identical"]) == ("box", 1.0)
    assert set(document["baselines"]) == {"constant", "identity", "best linear"}


def test_preview_draws_every_picture_and_a_page(model, pictures, tmp_path, diptych_command):
    made = diptych_command("filter", "preview", model, "-o", tmp_path, "--images", pictures, "--json")
    assert made.status == 0, made.err
    document = json.loads(made.out)
    kinds = ("input", "target", "output", "error")
    names = {f"{picture}-{kind}.png" for picture in ("cat", "cup") for kind in kinds}
    assert {path.name for path in tmp_path.iterdir()} == names | {"learning_curve.png", "report.html"}
    assert {Path(path).name for path in document["files"]} == names | {"learning_curve.png"}
    given, expected = (np.asarray(Image.open(tmp_path / f"cat-{kind}.png")) for kind in ("output", "target"))
    np.testing.assert_array_equal(given, expected)
    page = (tmp_path / "report.html").read_text()
    for shown in ("88.25 dB", "by least squares", "Learning stopped: it was exact", "× 256"):
        assert shown in page


def test_the_error_is_amplified_as_the_page_says(pictures, tmp_path):
    made = preview(box(shift=3), pictures, "box", tmp_path, engine="onnxruntime")
    assert set(made.factors.values()) == {64}  # 3 of 255 levels: 64 times that is still below white
    pixels = np.asarray(Image.open(tmp_path / "cat-error.png")).reshape(-1, 3)
    from diptych.report.grid import colours

    assert (pixels == colours("magma")[192]).all(axis=1).mean() > 0.95
    assert "errors shown: cat × 64, cup × 64" in made.text()


class _Outside(HTMLParser):
    """Whatever a page asks others for."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def handle_starttag(self, tag, attributes):
        self.asked += [
            v for k, v in attributes if k in ("src", "srcset") and not (v or "").startswith("data:")
        ]
        self.asked += [tag] if tag in ("iframe", "object") else []


def test_the_methods_in_notes_of_earlier_versions_are_shown(pictures, tmp_path):
    notes = {"filter": {"target": "box", "rungs": [METHOD]}}
    preview(box(notes=notes), pictures, "box", tmp_path, engine="onnxruntime")
    assert "88.25 dB" in (tmp_path / "report.html").read_text()


def test_one_point_is_no_learning_curve(pictures, tmp_path):
    notes = {"filter": {"target": "box", "curve": CURVE[:1]}}
    preview(box(notes=notes), pictures, "box", tmp_path, engine="onnxruntime")
    assert not (tmp_path / "learning_curve.png").exists()
    assert "Learning curve" not in (tmp_path / "report.html").read_text()


def test_the_page_is_complete_and_escapes_what_others_wrote(pictures, tmp_path):
    evil = "<script>alert(1)</script>"
    notes = {
        "filter": {"curve": "none", "methods": [{"name": evil}, METHOD | {"name": evil}], "stopped": evil}
    }
    preview(box(notes=notes).with_(name=evil), pictures, "box", tmp_path, engine="onnxruntime")
    page = (tmp_path / "report.html").read_text()
    parser = _Outside()
    parser.feed(page)
    assert parser.asked == []
    assert page.count("&lt;script&gt;") >= 3
    assert len(page) < 8_000_000


def test_pictures_of_one_name_have_files_of_their_own(tmp_path):
    from diptych.images.picture import Picture

    same = [Picture(photograph("coffee")[:20, :30], "a/b"), Picture(photograph("chelsea")[:20, :30], "a/b")]
    preview(box(), same, "box", tmp_path, engine="onnxruntime")
    assert {"a_b-input.png", "a_b_2-input.png"} <= {path.name for path in tmp_path.iterdir()}


def test_list_names_every_filter_with_its_reference(diptych_command):
    from diptych.filters import NAMES

    shown = diptych_command("filter", "list")
    document = json.loads(diptych_command("filter", "list", "--json").out)
    assert [each["name"] for each in document["filters"]] == list(NAMES)
    assert len(NAMES) >= 30
    assert all(each["reference"] and "{" not in each["reference"] for each in document["filters"])
    assert all(f"{name}: " in shown.out for name in NAMES)
    assert "seed=0 (0 to 2147483647)" in shown.out


def test_list_says_what_lies_beyond_the_border(diptych_command):
    document = json.loads(diptych_command("filter", "list", "--json").out)
    edges = {each["name"]: each["edge"] for each in document["filters"]}
    assert (edges["sobel"], edges["invert"]) == ("replicate", None)
    entries = re.split(r"\n(?=\w)", diptych_command("filter", "list").out)
    shown = {entry.partition(":")[0] for entry in entries if "\n    edge=" in entry}
    assert shown == {name for name, edge in edges.items() if edge}


def test_a_damaged_picture_of_a_folder_does_not_stop_the_others(model, pictures, tmp_path, diptych_command):
    for name in ("a.png", "c.png"):
        (tmp_path / name).write_bytes((pictures / "cat.png").read_bytes())
    (tmp_path / "b.png").write_bytes((pictures / "cat.png").read_bytes()[:900])
    done = diptych_command("filter", "apply", str(model), str(tmp_path), str(tmp_path / "out"), "--json")
    assert done.status == 1
    assert done.err.count("\n") == 1
    assert "b.png begins as a PNG picture but is truncated" in done.err
    document = json.loads(done.out)
    assert [Path(each["path"]).name for each in document["files"]] == ["a.png", "c.png"]
    assert len(document["failures"]) == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "c.png"]
    with pytest.raises(ImageError, match=r"b\.png begins as"):
        apply(model, tmp_path, tmp_path / "again")
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == ["a.png", "c.png"]


def test_remarks_on_the_pictures_of_a_folder_name_them(model, tmp_path, diptych_command):
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        Image.new("L", (20, 20)).save(tmp_path / "in" / f"{name}.png")
    done = diptych_command("filter", "apply", model, tmp_path / "in", tmp_path / "out")
    assert "a.png: grey taken as three equal channels" in done.err
    assert "b.png: grey taken as three equal channels" in done.err


def test_weights_alone_are_filled_into_an_architecture(model, pictures, tmp_path, diptych_command):
    weights, plain = tmp_path / "box.jld2", tmp_path / "plain.safetensors"
    formats.write(box(), plain)
    formats.write(formats.read(model), weights)
    source, given = str(pictures / "cat.png"), ("--architecture", str(plain))
    assert diptych_command("filter", "apply", str(weights), source, str(tmp_path / "a.png")).status == 1
    assert (
        diptych_command("filter", "apply", str(weights), source, str(tmp_path / "a.png"), *given).status == 0
    )
    np.testing.assert_array_equal(
        files.read(tmp_path / "a.png").pixels, apply(model, files.read(source).pixels)
    )
    evaluated = diptych_command(
        "filter", "evaluate", str(weights), "--target", "box", "--images", source, *given
    )
    assert evaluated.status == 0


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["learn", "-o", "x.onnx"], 2, "name one filter"),
        (["learn", "sobel", "--pairs", "a", "b", "-o", "x.onnx"], 2, "name one filter"),
        (["learn", "sobel", "-o", "x.txt"], 2, "the suffix '.txt'"),
        (["learn", "sobel", "-o", "."], 2, "diptych: . has no suffix"),
        (["learn", "sobbel", "-o", "x.onnx"], 2, "sobel"),
        (["apply", "sobel:ksize=5", "in.png", "out.png"], 2, "diptych filter learn sobel:ksize=5 -o sobel.safetensors"),
        (["evaluate", "scenes"], 1, "scenes is not a filter"),
        (["evaluate", "nowhere.onnx"], 1, "nowhere.onnx"),
        (["preview", "scenes", "-o", "in.png"], 2, "in.png is the name of a file; name a folder"),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_sentence(arguments, status, said, tmp_path, monkeypatch, diptych_command):
    monkeypatch.chdir(tmp_path)
    done = diptych_command("filter", *arguments)
    assert done.status == status
    assert said in done.err
    assert done.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", VERBS)
def test_help_names_every_option_in_the_documentation(verb, diptych_command):
    shown = diptych_command("filter", verb, "--help")
    assert shown.status == 0
    section = DOCUMENTATION.read_text().split(f"\n### diptych filter {verb}\n")[1].split("\n##")[0]
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", shown.out)) - {"--help"}
    assert {option for option in options if option not in section} == set()


def test_help_loads_no_framework():
    code = (
        "import json, sys, diptych.__main__ as m\n"
        "ends = {}\n"
        f"for verb in {VERBS!r}:\n"
        "    try: m.main(['filter', verb, '--help'])\n"
        "    except SystemExit as end: ends[verb] = end.code\n"
        "print(json.dumps([ends, sorted({m.partition('.')[0] for m in sys.modules})]), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    ends, loaded = json.loads(done.stderr)
    assert ends == dict.fromkeys(VERBS, 0)
    assert set(loaded) & {"torch", "numpy", "matplotlib", "scipy", "cv2"} == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "kept", "told"),
    [
        ([], False, "with --checkpoint FILE the same command continues"),
        (["--checkpoint", "kept"], False, "nothing was kept, because"),
        (["--checkpoint=kept"], True, "continues where this one stopped"),
    ],
)
def test_ctrl_c_is_one_line(asked, kept, told, tmp_path):
    slow = tmp_path / "slow.py"
    writing = "open('kept', 'w')" if kept else "0"  # in place of a training's first evaluation
    slow.write_text(
        f"import time\ndef slow(image):\n    {writing}\n    print('begun', flush=True)\n    time.sleep(60)\n"
    )
    arguments = ["filter", "learn", "slow:slow", "-o", "x.onnx", *asked]
    process = subprocess.Popen(
        [sys.executable, "-m", "diptych", *arguments], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stderr is not None
        assert process.stderr.readline() == "begun\n"  # what a filter prints goes to standard error
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 130
    assert said.count("\n") == 1
    assert told in said
    assert not (tmp_path / "x.onnx").exists()
