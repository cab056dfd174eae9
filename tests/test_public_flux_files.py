"""What files in public repositories had that golden files have not: each kind with its right value."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

import diptych
from diptych.errors import FormatError
from diptych.formats.jld2.structs import _fill
from diptych.formats.julia import JuliaDict, JuliaStruct, JuliaType

DATA = Path(__file__).parent / "data" / "flux"


def test_a_closure_of_julia_1_1() -> None:
    """Its names are in the `CodeInfo`, and where later Julia has a string is an empty vector."""
    model = diptych.read(DATA / "closure_julia_1_1.bson")
    assert [layer.label for _, layer in model.walk()] == ["Dense 4 -> 3, relu", "softmax, axis -1"]
    y = diptych.predict(model, np.ones((1, 4), np.float32), engine="numpy")
    np.testing.assert_allclose(y, [[0.11887385, 0.76225233, 0.11887385]], rtol=1e-6)


def test_jld2_before_0_4() -> None:
    torch = pytest.importorskip("torch")
    architecture = diptych.from_torch(torch.nn.Sequential(torch.nn.Linear(3, 2)).eval())
    model = diptych.load_model(DATA / "old_header.jld2", architecture=architecture)
    assert model.layers.layers[0].arrays["weight"].shape == (2, 3)


def _pair(second: JuliaType, *fields: object, names: tuple[str, ...] = ()) -> JuliaStruct:
    return JuliaStruct(JuliaType(("Core", "Pair"), (JuliaType(("Core", "Any")), second)), list(fields), names)


def test_pairs_whose_second_value_takes_no_bytes() -> None:
    """The `IdSet` of `Flux.params` is a dictionary of `Pair{Any, Nothing}`, of which JLD2 stores the first value."""
    key, box = np.ones(2), JuliaDict(JuliaType(("Base", "IdDict")))
    nothing, flatten = JuliaType(("Core", "Nothing")), JuliaType(("Flux", "#flatten"))

    def fail(reason: str) -> None:
        raise AssertionError(reason)

    made = _fill(box, [_pair(nothing, key, names=("first",)), _pair(flatten, "f", names=("first",))], fail)  # type: ignore[arg-type]
    assert made.stored_keys[0] is key
    assert made.stored_values[0] is None
    assert made.stored_values[1].type is flatten


STRANGERS = {
    "old.jld": (b"Julia data file (HDF5), version 0.1.3\0 (Julia 1.0.3 64-bit LE)\0\0", "JLD.jl: load it in Julia"),
    "pointer.bson": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS pointer"),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_strangers_have_their_right_name(name: str, tmp_path: Path) -> None:
    head, message = STRANGERS[name]
    (tmp_path / name).write_bytes(head + b"\0" * 600 if name.endswith("jld") else head)
    with pytest.raises(FormatError, match=message):
        diptych.read(tmp_path / name)


def test_torchscript_is_named_wherever_its_parts_are(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        for name, size in (("data/0", 10_000), ("data.pkl", 10), ("code/__torch__.py", 10), ("constants.pkl", 10)):
            archive.writestr(f"script/{name}", b"x" * size)
    with pytest.raises(FormatError, match="is a TorchScript archive: load it with torch.jit.load"):
        diptych.read(tmp_path / "script.pt")
