"""The package's front door: its names, what loading it costs, and which rooms may import what."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import diptych
from diptych import errors

FRAMEWORKS = {
    "torch",
    "onnx",
    "onnxruntime",
    "diffusers",
    "transformers",
    "ray",
    "matplotlib",
    "cv2",
    "PIL",
    "numpy",
}
SOURCES = Path(diptych.__file__).parent


def loaded_by(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after running `code`."""
    tail = "import sys, json; print(json.dumps(sorted({m.partition('.')[0] for m in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{tail}"], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_every_public_name_exists_where_the_table_says():
    assert set(diptych.__all__) == set(diptych._DEFINED_IN)
    for name, home in diptych._DEFINED_IN.items():
        assert getattr(diptych, name) is getattr(import_module(home), name)
    assert set(diptych.__all__) <= set(dir(diptych))


def test_the_contract_of_the_design_is_kept():
    for name in (
        "read",
        "write",
        "load_model",
        "predict",
        "trace",
        "generate",
        "preprocess",
        "run",
        "Model",
        "Preprocessing",
    ):
        assert name in diptych.__all__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'predikt'"):
        diptych.predikt  # noqa: B018


def test_importing_diptych_loads_no_framework():
    assert not loaded_by("import diptych") & FRAMEWORKS


def test_help_loads_no_framework():
    code = (
        "import diptych.__main__ as m\n"
        "try: m.main(['run', '--help'])\n"
        "except SystemExit as end: assert end.code == 0"
    )
    assert not loaded_by(code) & FRAMEWORKS


def test_prediction_on_the_default_engine_needs_no_torch():
    code = "import numpy, diptych\ndiptych.predict('scenes', numpy.zeros((1, 3, 32, 32), 'float32'))"
    modules = loaded_by(code)
    assert "onnxruntime" in modules
    assert not modules & {"torch", "matplotlib", "diffusers"}


def test_every_exception_is_in_the_tree_drawn_in_the_docstring():
    classes = {k for k, v in vars(errors).items() if isinstance(v, type) and issubclass(v, Exception)}
    for name in classes:
        assert name in (errors.__doc__ or "")
        assert issubclass(getattr(errors, name), errors.DiptychError)


def test_files_can_be_read_in_one_sitting():
    long = {
        str(p.relative_to(SOURCES)): n
        for p in SOURCES.rglob("*.py")
        if (n := len(p.read_text().splitlines())) > 600
    }
    assert not long


def test_there_is_no_room_for_odds_and_ends():
    names = {p.stem for p in SOURCES.rglob("*.py")} | {p.name for p in SOURCES.rglob("*") if p.is_dir()}
    assert not names & {"utils", "util", "helpers", "common", "misc"}
