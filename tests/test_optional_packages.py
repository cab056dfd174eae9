"""What works without the optional packages, and what the others say."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import diptych
from diptych.errors import install_command
from diptych.images.files import write_png

MISSING = (
    "torch",
    "halide",
    "skimage",
    "scipy",
    "openvino",
    "diffusers",
    "pillow_heif",
    "juliapkg",
    "pyarrow",
    "pandas",
    "ray",
)

LEAN = f"""
import sys
for name in {MISSING!r}:
    sys.modules[name] = None
from diptych.__main__ import main
main(sys.argv[1:])
"""


@pytest.fixture
def lean(tmp_path):
    """Runs a command in a folder of its own, where no optional package can be imported."""

    def run(*arguments):
        return subprocess.run(
            [
                sys.executable,
                "-W",
                "error",
                "-W",
                "ignore::DeprecationWarning",
                "-c",
                LEAN,
                *map(str, arguments),
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    return run


def test_the_core_runs_predicts_converts_and_reports(lean, tmp_path):
    for arguments in (
        ["run", "a serene sunset over a futuristic city", "--out", "out"],
        ["generate", "a house", "--out", "images"],
        ["predict", "scenes", "images"],
        ["preprocess", "images", "--out", "arrays"],
        ["features", "scenes", "images/generated_image_1.png", "-o", "features"],
        ["convert", "scenes", "m.bson"],
        ["convert", "scenes", "m.onnx"],
        ["convert", "m.bson", "again.safetensors"],
        ["convert", "scenes", "m.jld2"],
        ["compare", "scenes", "m.onnx"],
        ["inspect", "m.jld2", "--architecture", "scenes"],
        ["convert", "scenes", "julia"],
    ):
        done = lean(*arguments)
        assert done.returncode == 0, (arguments, done.stderr)
    assert "painted scenes (the photographs need scikit-image)" in lean("compare", "scenes", "m.bson").stdout
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000


def test_a_filter_is_applied_without_the_extras(lean, tmp_path):
    path = tmp_path / "sobel.safetensors"
    learned = diptych.filters.learn(
        "invert", images=[np.arange(3 * 64 * 64, dtype=np.uint8).reshape(64, 64, 3)] * 2
    )
    diptych.write(learned.model, path)
    assert lean("generate", "a house", "--out", "images").returncode == 0
    done = lean("filter", "apply", path, "images/generated_image_1.png", "out.png")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["convert", "scenes", "m.pt"], "torch"),
        (["predict", "scenes", "picture.png", "--engine", "torch"], "torch"),
        (["predict", "scenes", "picture.png", "--device", "cuda"], "torch"),
        (["filter", "learn", "sobel", "-o", "x.safetensors"], "filters"),
        (["predict", "scenes", "picture.png", "--engine", "openvino"], "openvino"),
        (["predict", "scenes", "picture.png", "--out", "table"], "batch"),
        (["generate", "a house", "--generator", "owner/name"], "diffusion"),
    ],
)
def test_what_needs_an_extra_says_which(lean, tmp_path, arguments, extra):
    write_png(tmp_path / "picture.png", np.zeros((32, 32, 3), np.uint8))
    done = lean(*arguments)
    assert done.returncode == 2, done.stderr
    assert install_command(extra) in done.stderr
    assert done.stderr.count("\n") == 1


def _installed_from(monkeypatch, origin):
    class Known:
        def read_text(self, name):
            assert name == "direct_url.json"
            return origin

    monkeypatch.setattr("importlib.metadata.distribution", lambda name: Known())
    return install_command("hub")


def test_the_advice_fits_how_diptych_was_installed(monkeypatch, tmp_path):
    """From PyPI, from a clone that is edited or not, from a wheel, and from a repository."""
    clone = tmp_path / "my clone"
    clone.mkdir()
    (clone / "pyproject.toml").touch()
    here = json.dumps({"url": clone.as_uri(), "dir_info": {"editable": True}})
    assert _installed_from(monkeypatch, None) == "pip install 'diptych[hub]'"
    assert _installed_from(monkeypatch, here) == f"pip install -e '{clone}[hub]'"
    copied = json.dumps({"url": clone.as_uri(), "dir_info": {}})
    assert _installed_from(monkeypatch, copied) == f"pip install '{clone}[hub]'"
    gone = json.dumps({"url": (tmp_path / "gone").as_uri(), "dir_info": {"editable": True}})
    assert _installed_from(monkeypatch, gone) == "pip install 'diptych[hub]'"
    wheel = tmp_path / "diptych-1-py3-none-any.whl"
    wheel.touch()
    built = json.dumps({"url": wheel.as_uri(), "archive_info": {}})
    assert _installed_from(monkeypatch, built) == f"pip install 'diptych[hub] @ {wheel.as_uri()}'"
    cloned = json.dumps({"url": "https://host/diptych.git", "vcs_info": {"vcs": "git", "commit_id": "1"}})
    assert _installed_from(monkeypatch, cloned) == "pip install 'diptych[hub] @ git+https://host/diptych.git'"
    assert _installed_from(monkeypatch, "{damaged") == "pip install 'diptych[hub]'"
