"""Written JLD2 files: the bytes that JLD2 itself writes for the same values, and nothing that cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diptych.errors import OutputError, UsageError
from diptych.formats import hdf5, jld2
from diptych.formats.jld2.writing import serialise
from diptych.formats.julia import (
    BFloat16,
    NamedTuple,
    Symbol,
)
from flux_golden import file_name
from jld2_values import NEW, OLD
from julia_values import same

# Everything in these was written by functions that `write` has too.
REWRITTEN = [*NEW.glob("*_state.jld2"), OLD / "small_meta.jld2", OLD / "img2img48_params.jld2"]


@pytest.mark.parametrize("path", REWRITTEN, ids=file_name)
def test_golden_file_written_again_is_the_same_bytes(path: Path) -> None:
    data = path.read_bytes()
    made_by = f"{jld2.version(path).writer} 64-bit LE"
    assert serialise(jld2.load(path), jld2.version(path).format, made_by) == data


@pytest.mark.parametrize("version", jld2.FORMATS)
@pytest.mark.parametrize("path", REWRITTEN, ids=file_name)
def test_states_survive_either_format(path: Path, version: str, tmp_path: Path) -> None:
    values = jld2.load(path)
    jld2.write(tmp_path / "again.jld2", values, version)
    assert same(jld2.load(tmp_path / "again.jld2"), values)
    assert jld2.version(tmp_path / "again.jld2") == jld2.Version(version, "Diptych")


def test_old_format_is_the_default_and_names_no_later_attribute(tmp_path: Path) -> None:
    path = tmp_path / "state.jld2"
    jld2.write(path, jld2.load(NEW / "conv_options_state.jld2"))
    data = path.read_bytes()
    assert data.startswith(b"HDF5-based Julia Data Format, version 0.1.1\0")
    assert b"field_datatypes" in data
    assert b"field_types" not in data
    assert b"field_names" not in data
    assert b"NTuple" not in data


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.floats(width=32).map(np.float32),
    st.floats(width=16).map(np.float16),
    st.integers(0, 255).map(np.uint8),
    st.text(st.characters(codec="utf-8"), max_size=6),
    st.text("abσβ", min_size=1, max_size=4).map(Symbol),
    st.integers(-100, 100).map(BFloat16),
)


@st.composite
def number_arrays(draw: st.DrawFn) -> Any:
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=4)))
    dtype = draw(st.sampled_from(["f2", "f4", "f8", "i8", "u1", "i4", "?"]))
    count = int(np.prod(shape))
    return np.arange(count).astype(dtype).reshape(shape, order="F")


def named(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.lists(st.text("abcλβ²", min_size=1, max_size=3), max_size=3, unique=True)
    return names.flatmap(lambda n: st.tuples(*[inner] * len(n)).map(lambda values: NamedTuple(n, values)))


VALUES = st.recursive(
    st.one_of(SCALARS, number_arrays(), st.lists(st.text(max_size=4), min_size=1, max_size=3)),
    lambda inner: st.one_of(
        named(inner),
        st.lists(inner, max_size=3).map(tuple),
        st.lists(inner, max_size=3),
        st.integers(11, 13).flatmap(lambda n: inner.map(lambda v: (v,) * n)),
    ),
    max_leaves=12,
)


@settings(max_examples=150)
@given(VALUES, st.sampled_from(jld2.FORMATS))
def test_whatever_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, value: Any, version: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "value.jld2"
    jld2.write(path, {"v": value, "again": value}, version)
    first = path.read_bytes()
    found = jld2.load(path)
    assert same(found["v"], value)
    assert same(found["again"], value)
    jld2.write(path, {"v": value, "again": value}, version)
    assert path.read_bytes() == first


def test_arrays_in_any_order_of_memory(tmp_path: Path) -> None:
    base = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    shared = base[:, ::2]
    jld2.write(tmp_path / "a.jld2", {"v": (base, base.T, shared, shared)})
    found = jld2.load(tmp_path / "a.jld2")["v"]
    for written, read in zip((base, base.T, shared, shared), found, strict=True):
        assert np.array_equal(written, read)
    assert found[2] is found[3]


@pytest.mark.slow
def test_state_of_many_layers_is_kept_apart(tmp_path: Path) -> None:
    """Julia keeps what is larger than 1024 bytes apart, and HDF5 allows 64 KB for a struct's description."""
    layer = NamedTuple(("weight", "bias", "σ"), (np.ones((2, 2), "f4"), False, ()))
    other = NamedTuple(("β", "stride"), (np.zeros(3, "f4"), (1, 1)))
    for version in jld2.FORMATS:
        for count, kept in ((20, "compound"), (1000, "reference")):
            state = NamedTuple(("layers",), ((layer, other) * count,))
            jld2.write(tmp_path / "deep.jld2", {"model_state": state}, version)
            assert same(jld2.load(tmp_path / "deep.jld2")["model_state"], state)
            file = hdf5.Hdf5File(tmp_path / "deep.jld2")
            whole = file.object(file.object(file.root).links["model_state"]).datatype
            assert whole is not None
            committed = file.object(whole.committed).datatype
            assert committed is not None
            assert [member.datatype.kind for member in committed.members] == [kept]


def test_what_has_no_place_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "refused.jld2"
    deep: Any = ()
    for _ in range(150):
        deep = (deep, 1)
    cases: list[tuple[Any, str]] = [
        (NamedTuple(("a",), ({1},)), r"cannot write v\.a: .* not set"),
        ((1, {"a": 1}), r"v\[1\]: .* not dict"),
        (2**63, "does not fit an Int64"),
        (np.array(["a"], object), "an array of object"),
        (np.array([1j]), "an array of complex128"),
        (deep, "nested more than 100"),
    ]
    for value, words in cases:
        with pytest.raises(OutputError, match=words):
            jld2.write(path, {"v": value})
    for name in ("", "a/b", "_types"):
        with pytest.raises(OutputError, match="cannot have a value named"):
            jld2.write(path, {name: 1})
    with pytest.raises(UsageError, match=r"0\.1\.1, 0\.2\.0"):
        jld2.write(path, {"v": 1}, "0.3.0")
    assert not path.exists()


def test_checksum_is_bob_jenkins() -> None:
    """The values that lookup3.c names in its own test driver."""
    assert hdf5.lookup3(b"") == 0xDEADBEEF
    assert hdf5.lookup3(b"Four score and seven years ago") == 0x17770551
