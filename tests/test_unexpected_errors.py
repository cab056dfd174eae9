"""What the command line makes of errors that nobody foresaw, and of text that comes from strangers."""

import csv
import io
import json
import os
import subprocess
import sys

import pytest

import diptych
import diptych.images.files
from diptych.cli.terminal import json_text
from diptych.files import escaped
from diptych.predictions import Prediction, Predictions

ESCAPES = "\x1b]0;title\x07\x9b31m\u202e\x00\udcff"


def command(*arguments, code=None, **variables):
    start = [sys.executable, "-c", code] if code else [sys.executable, "-m", "diptych"]
    return subprocess.run(
        [*start, *map(str, arguments)],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables},
    )


FAILING = """
import sys
from diptych import __main__, inspecting
def fail(*arguments, **options):
    {statement}
inspecting.inspect = __import__("diptych").inspect = fail
__main__.main()
"""


@pytest.mark.parametrize(
    "statement",
    [
        "raise TypeError('unsupported operand')",
        "raise EOFError('cut off')",
        "raise UnicodeDecodeError('utf-8', b'x', 0, 1, 'bad')",
        "fail()",
        "raise AssertionError",
        "raise MemoryError",
        "open('/nowhere/at/all')",
    ],
)
def test_any_exception_is_a_sentence_and_a_document(statement):
    code = FAILING.format(statement=statement)
    done = command("inspect", "scenes", "--json", code=code)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert done.stderr.decode().strip().count("\n") == 0
    document = json.loads(done.stdout)
    assert done.stderr.decode().strip() == f"diptych: {document['error']}"
    if "MemoryError" not in statement and "open" not in statement:
        assert "github.com/diptych/diptych/issues" in document["error"]
        assert "DIPTYCH_DEBUG=1" in document["error"]


def test_the_traceback_is_shown_when_asked_for():
    done = command("inspect", "scenes", code=FAILING.format(statement="1 / 0"), DIPTYCH_DEBUG="1")
    assert done.returncode == 1
    assert b"Traceback" in done.stderr
    assert b"ZeroDivisionError" in done.stderr


def test_native_libraries_do_not_print():
    code = FAILING.format(statement="import os; os.write(2, b'libtiff: noise'); 1 / 0")
    assert b"noise" not in command("inspect", "scenes", code=code).stderr
    assert b"noise" in command("inspect", "scenes", code=code, DIPTYCH_DEBUG="1").stderr


def test_wrong_usage_gives_its_reason_in_the_document_too():
    done = command("inspect", "--no-such-option", "--json")
    assert done.returncode == 2
    assert "--no-such-option" in json.loads(done.stdout)["error"]
    assert b"--no-such-option" in done.stderr


@pytest.fixture
def hostile(tmp_path):
    model = diptych.load_model("scenes")
    classes = tuple(f"{name}{ESCAPES[:-1]}" for name in model.classes)
    path = tmp_path / "hostile.safetensors"
    diptych.write(model.with_(name=ESCAPES[:-1], classes=classes), path)
    return path


def steering(output):
    return [c for c in output.decode("utf-8", "surrogateescape") if c != "\n" and not c.isprintable()]


@pytest.mark.parametrize("json_too", [[], ["--json"]])
def test_names_in_a_model_cannot_steer_the_terminal(hostile, tmp_path, json_too):
    diptych.generate("a house", out=tmp_path)
    picture = next(tmp_path.glob("*.png"))
    for arguments in (
        ["inspect", hostile],
        ["predict", hostile, picture],
        ["run", "--images", picture, "--model", hostile, "-o", tmp_path / "out"],
        ["compare", hostile, "scenes"],
    ):
        done = command(*arguments, *json_too)
        assert not steering(done.stdout + done.stderr), arguments
        if json_too:
            json.loads(done.stdout)


def test_names_of_files_and_options_cannot_steer_the_terminal():
    for arguments in (["inspect", ESCAPES[:-2]], ["predict", "scenes", ESCAPES[:-2]], [f"--{ESCAPES[:-2]}"]):
        done = command(*arguments)
        assert done.returncode
        assert not steering(done.stdout + done.stderr), arguments


def test_text_is_kept_but_for_what_steers():
    assert escaped("σ über 図\nline") == "σ über 図\nline"
    assert escaped(ESCAPES) == r"\x1b]0;title\x07\x9b31m\u202e\x00\xff"


def test_json_keeps_its_meaning():
    document = {"name": ESCAPES, "σ": [1, '\n\t"\\']}
    assert json.loads(json_text(document)) == document
    assert json_text({"σ": 1}) == '{"σ": 1}'


def test_a_narrow_encoding_of_the_output_is_no_error(tmp_path):
    diptych.generate("a house", out=tmp_path)
    picture = next(tmp_path.glob("*.png")).rename(tmp_path / "σ.png")
    for arguments in (["predict", "scenes", picture], ["predict", "scenes", picture, "--json"]):
        done = command(*arguments, PYTHONIOENCODING="ascii:strict", PYTHONUTF8="0", LC_ALL="C")
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["predictions"]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", " =", "\r=", "\n="])
def test_a_cell_of_the_table_is_never_a_formula(start):
    name = f"{start}HYPERLINK(1)"
    table = Predictions("m", True, (name, "b"), "score", (Prediction(name, (-0.5, 0.25)),))
    head, row = csv.reader(io.StringIO(table.to_csv(), newline=""))
    assert head[:3] == ["image", "label", "weights"]
    assert row[1:] == ["b", "trained", "-0.5", "0.25"]
    for cell in (head[3], row[0]):
        assert cell.startswith("'")
        assert cell.endswith("HYPERLINK(1)")


@pytest.mark.parametrize(
    "arguments", ["inspect scenes", "inspect scenes --json", "--help", "--version", "nosuch"]
)
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", ">/dev/full", "2>/dev/full"])
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
def test_streams_that_are_closed_or_full_are_no_surprise(arguments, closed):
    done = subprocess.run(
        f"'{sys.executable}' -m diptych {arguments} {closed}",
        shell=True,
        capture_output=True,
        check=False,
        text=True,
    )
    wrong = arguments == "nosuch"
    full = closed == ">/dev/full" and not wrong
    assert done.returncode == (2 if wrong else int(full))
    said = done.stdout + done.stderr
    assert "unexpected error" not in said
    assert "Traceback" not in said
    if full:
        assert "cannot write the result to standard output" in done.stderr


def test_names_in_a_model_cannot_steer_a_terminal_from_the_files_of_a_run(hostile, tmp_path):
    diptych.generate("a house", out=tmp_path)
    diptych.run(images=[next(tmp_path.glob("*.png"))], model=hostile, out=tmp_path / "out")
    for name in ("model_architecture.txt", "run.json", "predictions.json"):
        assert not steering((tmp_path / "out" / name).read_bytes()), name


def test_a_preview_of_a_picture_whose_name_is_not_utf8(tmp_path):
    diptych.generate("a house", out=tmp_path)
    name = os.fsencode(tmp_path) + b"/x\xff.png"
    os.rename(next(tmp_path.glob("*.png")), name)  # noqa: PTH104
    picture = diptych.images.files.read(os.fsdecode(name)).pixels[:64, :64]
    diptych.write(
        diptych.filters.learn("invert", images=[picture] * 2).model, tmp_path / "invert.safetensors"
    )
    done = command(
        "filter",
        "preview",
        tmp_path / "invert.safetensors",
        "--images",
        os.fsdecode(name),
        "-o",
        tmp_path / "out",
    )
    assert done.returncode == 0, done.stderr
