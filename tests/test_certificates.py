"""A converted file says how far it is from its source, and `verify` checks that again and says what was edited."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import diptych
from diptych import formats
from diptych.certifying import FILE, KEY, certificates
from diptych.errors import FormatError, UsageError
from diptych.loading import TRAINED
from diptych.model.layers import Conv
from diptych.model.model import Model

SUFFIXES = ("safetensors", "pt", "onnx", "bson", "jld2")


def converted(folder: Path, suffix: str, **options: Any) -> Path:
    done = diptych.convert("scenes", folder / f"a.{suffix}", **options)
    assert done.document["certificate"]["largest_difference"] <= 1e-5
    return done.paths[0]


def check(path: Path) -> diptych.Verification:
    return diptych.verify(path, architecture="scenes" if path.suffix == ".jld2" else None)


def read(path: Path) -> Model:
    return diptych.read(path, **({"architecture": TRAINED["scenes"]} if path.suffix == ".jld2" else {}))


# ---- What is certified -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_carries_a_certificate_that_passes(suffix: str, tmp_path: Path) -> None:
    path = converted(tmp_path, suffix)
    found = check(path)
    assert found.passed, found.problems
    assert found.largest is not None
    assert found.largest <= 1e-6
    certificate = read(path).notes[KEY]
    assert certificate["input"]["shape"] == [1, 3, 32, 32]
    assert certificate["reference"]["engine"] == "numpy"
    assert certificate["format"] == formats.written_as(path).name
    assert len(found.layers) == len(list(diptych.read(TRAINED["scenes"]).walk()))
    assert all(layer.written is not None and layer.written <= 1e-5 for layer in found.layers)
    assert (certificate["graph"] is not None) == (suffix == "onnx")


def test_the_figures_are_those_of_the_reference_engine(tmp_path: Path) -> None:
    path = converted(tmp_path, "safetensors")
    certificate = diptych.read(path).notes[KEY]
    given = np.random.Generator(np.random.PCG64(0)).random((1, 3, 32, 32), np.float32)
    reference = diptych.trace("scenes", given, engine="numpy")
    written = diptych.trace(path, given)
    for entry in certificate["layers"]:
        gap = np.abs(reference[entry["path"]] - written[entry["path"]]).max()
        assert entry["difference"] == pytest.approx(gap, rel=0.01)
        assert entry["largest"] == pytest.approx(np.abs(reference[entry["path"]]).max(), rel=0.01)
        flat = written[entry["path"]].reshape(-1)
        assert set(np.float32(entry["sample"])) <= {*flat, np.float32(flat.mean(dtype=np.float64))}


def test_the_same_conversion_gives_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    first, again = converted(tmp_path, "safetensors"), converted(tmp_path / "b", "safetensors")
    assert first.read_bytes() == again.read_bytes()


def test_a_certificate_can_be_left_out_and_is_not_inherited(tmp_path: Path) -> None:
    diptych.convert("scenes", tmp_path / "plain.onnx", certificate=False)
    with pytest.raises(FormatError, match=r"carries no certificate: diptych convert .* writes one"):
        diptych.verify(tmp_path / "plain.onnx")
    path = converted(tmp_path, "pt")
    diptych.convert(path, tmp_path / "again.pt", certificate=False)
    assert KEY not in diptych.read(tmp_path / "again.pt").notes


def test_a_large_network_is_certified_by_its_weights_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "_MOST_WORK", 10)
    done = diptych.convert("scenes", tmp_path / "a.bson")
    assert any("the certificate has no layers, because one input takes" in remark for remark in done.remarks)
    found = diptych.verify(tmp_path / "a.bson")
    assert found.passed
    assert "only the weights and the recipe" in found.remarks[0]
    edited(tmp_path / "a.bson")
    assert not diptych.verify(tmp_path / "a.bson").passed


def test_weights_too_large_to_be_read_again_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diptych import converting

    monkeypatch.setattr(converting, "MOST_MEMORY", 10)
    done = diptych.convert("scenes", tmp_path / "a.bson")
    assert any(
        "no certificate was stored, because reading 0.0 GiB of weights again" in r for r in done.remarks
    )
    assert done.document["certificate"] is None
    assert KEY not in diptych.read(tmp_path / "a.bson").notes


def test_no_room_for_the_copy_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    from diptych.errors import OutputError

    (tmp_path / "small").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "small"))
    own = formats.write

    def full(model: Model, path: Any, **options: Any) -> tuple[str, ...]:
        if "trial" in str(path):
            raise OutputError(f"cannot write {path}: No space left on device")
        return own(model, path, **options)

    monkeypatch.setattr(formats, "write", full)
    with pytest.raises(
        OutputError, match=r"the copy for the certificate cannot be written .*TMPDIR.*--no-certificate"
    ):
        diptych.convert("scenes", tmp_path / "a.bson")
    assert not (tmp_path / "a.bson").exists()
    assert not list((tmp_path / "small").iterdir())
    diptych.convert("scenes", tmp_path / "a.bson", certificate=False)


def test_inspect_says_that_there_is_one(tmp_path: Path) -> None:
    assert "certificate: 10 layers; diptych verify" in diptych.inspect(converted(tmp_path, "onnx")).text()


def test_what_the_file_cannot_hold_is_said_when_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that loses something: here the bias of the first layer."""
    own = formats.write

    def lossy(model: Model, path: Any, **options: Any) -> tuple[str, ...]:
        first, *rest = model.layers.layers
        assert isinstance(first, Conv)
        broken = replace(first, bias=None)
        return own(
            model.with_(layers=type(model.layers)((broken, *rest), model.layers.names)), path, **options
        )

    monkeypatch.setattr(formats, "write", lossy)
    done = diptych.convert("scenes", tmp_path / "a.safetensors")
    assert any("gives other numbers than the source: the largest difference is" in r for r in done.remarks)
    found = diptych.verify(tmp_path / "a.safetensors")
    assert not found.passed
    assert "what was written differed from the source" in found.problems[0]


# ---- What was edited ---------------------------------------------------------------------------------------


def edited(path: Path, **changes: Any) -> None:
    """Writes the file again with the certificate that it has, and something else changed: one weight by default."""
    model = read(path)
    if not changes:
        first, *rest = model.layers.layers
        assert isinstance(first, Conv)
        weight = first.weight.copy()
        weight.reshape(-1)[3] += 0.5
        layers = (replace(first, weight=weight), *rest)
        changes = {"layers": type(model.layers)(layers, model.layers.names)}
    formats.write(model.with_(**changes), path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_edited_weight_is_said_with_the_layer(suffix: str, tmp_path: Path) -> None:
    path = converted(tmp_path, suffix)
    edited(path)
    found = check(path)
    assert not found.passed
    assert "the layers or weights are not those that were certified" in found.problems[0]
    assert "the first is layer 0" in found.problems[1]
    assert found.largest is not None
    assert found.largest > 1e-3


@pytest.mark.parametrize("change", ["preprocessing", "classes", "input_shape"])
def test_an_edited_recipe_or_class_is_said(change: str, tmp_path: Path) -> None:
    path = converted(tmp_path, "bson")
    values = {
        "preprocessing": diptych.preprocessing.named("julia-colour-32"),
        "classes": tuple("abcdefghij"),
        "input_shape": None,
    }
    edited(path, **{change: values[change]})
    found = diptych.verify(path)
    assert found.problems == ("the recipe, class names or input shape are not those that were certified",)


def test_an_edited_certificate_is_said(tmp_path: Path) -> None:
    path = converted(tmp_path, "safetensors")
    certificate = dict(diptych.read(path).notes[KEY])
    edited(path, notes={KEY: certificate | {"largest_difference": 0.0}})
    assert diptych.verify(path).problems == ("the certificate was edited: its seal is of another text",)
    layers = [dict(entry) for entry in certificate["layers"]]
    layers[4]["sample"][0] += 0.1
    edited(path, notes={KEY: certificates.sealed({**certificate, "layers": layers})})
    assert "1 of 10 layers give other numbers, the first is layer 4" in diptych.verify(path).problems[0]


def test_an_edited_graph_of_an_onnx_file_is_said(tmp_path: Path) -> None:
    """The model that Diptych reads is whole; what other programs run is not."""
    path = converted(tmp_path, "onnx")
    graph = onnx.load(path)
    relu = next(node for node in graph.graph.node if node.op_type == "Relu")
    relu.op_type = "Sigmoid"
    onnx.save(graph, path)
    problems = diptych.verify(path).problems
    assert len(problems) == 1
    assert "the graph of the file gives other numbers" in problems[0]
    initialiser = next(t for t in graph.graph.initializer if t.name == "0.bias")
    initialiser.CopyFrom(numpy_helper.from_array(np.zeros(16, np.float32), "0.bias"))
    onnx.save(graph, path)
    assert len(diptych.verify(path).problems) == 3


BROKEN: tuple[Any, ...] = (
    None,
    [],
    {},
    "text",
    {"version": 2.5},
    {"layers": 3},
    {"layers": [3]},
    {"layers": [{"path": "0"}]},
    {"input": None},
    {"input": {"shape": [10**9, 10**9], "seed": 0, "sha256": "0" * 64}},
    {"input": {"shape": [1, 3, 32, 32], "seed": -1, "sha256": "0" * 64}},
    {"input": {"shape": [], "seed": 0, "sha256": "0" * 64}},
    {"written": {"engine": 3, "version": ""}},
    {"reference": None},
    {"largest_difference": "small"},
    {"left_out": None},
    {"seal": 4},
    {"graph": [1]},
)


@pytest.mark.parametrize("broken", BROKEN, ids=map(str, range(len(BROKEN))))
def test_a_broken_certificate_is_said(broken: Any, tmp_path: Path) -> None:
    path = converted(tmp_path, "safetensors")
    certificate = dict(diptych.read(path).notes[KEY])
    edited(path, notes={KEY: certificate | broken if isinstance(broken, dict) and broken else broken})
    with pytest.raises(
        FormatError, match=r"certificate in .* is damaged or was edited: convert the source again"
    ):
        diptych.verify(path)


def test_a_certificate_of_a_later_version_is_said(tmp_path: Path) -> None:
    path = converted(tmp_path, "safetensors")
    edited(path, notes={KEY: {"version": 2}})
    with pytest.raises(FormatError, match="has version 2, this Diptych reads 1; update Diptych"):
        diptych.verify(path)


def test_an_input_shape_that_the_model_does_not_take_is_said(tmp_path: Path) -> None:
    path = converted(tmp_path, "safetensors")
    certificate = dict(diptych.read(path).notes[KEY])
    given = certificates.input_of((1, 3, 8, 8), 0)
    import hashlib

    own = {"shape": [1, 3, 8, 8], "seed": 0, "sha256": hashlib.sha256(given.tobytes()).hexdigest()}
    edited(path, notes={KEY: certificates.sealed({**certificate, "input": own})})
    assert "the model does not take the certified input" in diptych.verify(path).problems[0]
    edited(path, notes={KEY: certificates.sealed({**certificate, "input": {**own, "sha256": "0" * 64}})})
    assert "made from the seed is not the one" in diptych.verify(path).problems[0]


# ---- Julia projects ----------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("DIPTYCH_JULIA", raising=False)
    monkeypatch.setenv("PATH", "")
    diptych.convert("scenes", f"{tmp_path}/project/")
    return tmp_path / "project"


def test_a_julia_project_is_certified_with_its_files(project: Path) -> None:
    found = diptych.verify(project)
    assert found.passed
    assert found.ran == ""
    assert "Flux was not run: --run (run=True) runs the project's own code" in found.remarks[0]
    with pytest.raises(UsageError, match=r"the engine flux needs Julia|DIPTYCH_JULIA"):
        diptych.verify(project, run=True)
    (project / "Manifest.toml").write_text("# made by Julia\n")
    assert diptych.verify(project).passed
    weight = project / "weights" / "0.weight.npy"
    weight.write_bytes(weight.read_bytes()[:-4] + b"\0\0\0\0")
    (project / "model.jl").unlink()
    assert diptych.verify(project).problems == (
        "model.jl and 1 more changed or went missing since the project was certified",
    )


def test_what_is_added_to_a_julia_project_counts_where_julia_takes_it(project: Path) -> None:
    (project / "mine.jl").write_text("println(1)\n")
    (project / "notes.txt").write_text("mine\n")
    found = diptych.verify(project)
    assert found.passed
    assert "that no code of the project includes: mine.jl, notes.txt" in found.remarks[0]
    (project / "JuliaProject.toml").write_text("[deps]\n")
    found = diptych.verify(project, run=True)
    assert found.problems[0].startswith("JuliaProject.toml was added since the project was certified")
    assert found.ran == ""
    (project / "JuliaProject.toml").unlink()
    with (project / "model.jl").open("a") as stream:
        stream.write('include(joinpath(@__DIR__, "mine.jl"))\n')
    problems = diptych.verify(project).problems
    assert problems[0].startswith("model.jl changed")
    assert problems[1].startswith("mine.jl was added")


@pytest.mark.slow
def test_a_julia_project_is_run_where_there_is_a_julia(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interpreter of these tests runs the project's own code."""
    script = Path(__file__).with_name("interpreted_julia.py")
    monkeypatch.setenv("DIPTYCH_JULIA", shlex.join([sys.executable, str(script)]))
    assert diptych.verify(project).ran == ""  # code is run only where that is asked for
    found = diptych.verify(project, run=True)
    assert found.passed, found.problems
    assert found.ran == "Flux in Julia"
    assert {layer.path for layer in found.layers if layer.now is not None} == {str(i) for i in range(10)}
    spoil(project, "weights/2.weight.npy")
    found = diptych.verify(project, run=True)
    assert (
        "7 of 10" in found.problems[0]
        or "layers give other numbers, the first is layer 2" in found.problems[0]
    )
    monkeypatch.setenv(
        "DIPTYCH_JULIA", shlex.join([sys.executable, "-c", "raise SystemExit('no Flux here')"])
    )
    assert "does not run in Julia, which says: no Flux here" in diptych.verify(project, run=True).problems[0]


def spoil(project: Path, name: str) -> None:
    """Changes weights, and the certificate so that it names them as they are now."""
    from diptych.files import sha256

    weight = np.load(project / name)
    np.save(project / name, weight + 0.1)
    certificate = json.loads((project / FILE).read_text())
    certificate["files"][name] = sha256(project / name)
    (project / FILE).write_text(json.dumps(certificates.sealed(certificate)))


def test_a_broken_certificate_of_a_project_is_said(project: Path, tmp_path: Path) -> None:
    own = json.loads((project / FILE).read_text())
    for content, said in (
        ("{", "is not JSON"),
        (
            json.dumps({**own, "files": {"../../etc/passwd": "0" * 64}}),
            "does not name the files of the project",
        ),
        (json.dumps({**own, "files": []}), "does not name the files of the project"),
        (json.dumps({**own, "layers": None}), "is damaged or was edited"),
    ):
        (project / FILE).write_text(content)
        with pytest.raises(FormatError, match=said):
            diptych.verify(project)
    with pytest.raises(FormatError, match=r"has no certificate\.json"):
        diptych.verify(tmp_path)


# ---- The command -------------------------------------------------------------------------------------------


def test_the_command(tmp_path: Path, diptych_command: Any) -> None:
    command = diptych_command
    path = converted(tmp_path, "bson")
    shown = command("verify", path)
    assert shown.status == 0
    assert f"{path}: pass" in shown.out
    assert "10 layers, input 1 x 3 x 32 x 32, numpy" in shown.out
    edited(path)
    shown = command("verify", path, "--json")
    assert shown.status == 1
    document = json.loads(shown.out)
    assert document["passed"] is False
    assert document["largest_difference"]["now"] > 1e-3
    assert len(document["layers"]) == 10
    assert command("verify", tmp_path / "none.bson").status == 1
    assert command("convert", "scenes", tmp_path / "b.bson", "--no-certificate").status == 0
    assert "carries no certificate" in command("verify", tmp_path / "b.bson").err
    with pytest.raises(UsageError, match="run is for Julia projects"):
        diptych.verify(path, run=True)
    with pytest.raises(UsageError, match="no engine is called 'x'"):
        diptych.verify(path, "x")
