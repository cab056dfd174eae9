"""Writing BSON.jl files: the structure that Julia gave them, and whatever a file can hold comes back the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bson_structure import difference
from diptych.errors import FormatError, OutputError
from diptych.formats import bson
from diptych.formats.bson.wire import parse
from diptych.formats.julia import (
    UNDEFINED,
    BFloat16,
    Char,
    Int128,
    JuliaModule,
    JuliaStruct,
    JuliaType,
    NamedTuple,
    Symbol,
    UInt128,
    Unreadable,
)
from flux_golden import BSON_FILES, GOLDEN, file_name, golden
from julia_values import same

FLOAT32 = JuliaType(("Core", "Float32"))
UNWRITABLE = {"flux-0.16.9/containers", "flux-0.12.1/zoo_stringkeys"}


@pytest.mark.parametrize("path", [p for p in BSON_FILES if file_name(p) not in UNWRITABLE], ids=file_name)
def test_a_golden_file_read_and_written_again_has_the_same_structure(path: Path) -> None:
    written = bson.dump(bson.load(path))
    assert difference(parse(path.read_bytes()), parse(written)) == ""
    assert bson.dump(bson.load(written)) == written, "the second writing differs from the first"


def test_the_container_zoo_goes_back_without_the_number_that_was_never_saved() -> None:
    original = parse((GOLDEN / "flux-0.16.9/containers.bson").read_bytes())
    values = golden("flux-0.16.9/containers")
    assert isinstance(values.pop("big"), Unreadable)
    del original["big"]
    assert difference(original, parse(bson.dump(values))) == ""


def test_the_comparison_of_structures_sees_a_difference() -> None:
    path = GOLDEN / "flux-0.12.1/shared_weight.bson"
    original, changed = parse(path.read_bytes()), parse(path.read_bytes())
    assert difference(original, changed) == ""
    changed["model"]["type"]["name"][1] = "Dense2"
    assert "Dense2" in difference(original, changed)


def test_an_object_met_twice_is_stored_once() -> None:
    weight = np.ones((100, 10), np.float32)
    kind = JuliaType(("Flux", "Dense"))
    tied = {"model": (JuliaStruct(kind, [weight, None]), JuliaStruct(kind, [weight, None]))}
    content = bson.dump(tied)
    assert len(content) < 2 * weight.nbytes
    assert content == bson.dump(tied)
    first, second = bson.load(content)["model"]
    assert first.fields[0] is second.fields[0]


def test_functions_are_never_stored_by_reference() -> None:
    relu = JuliaStruct(JuliaType(("NNlib", "#relu")))
    document = parse(bson.dump({"a": relu, "b": [relu, relu]}))
    assert "_backrefs" not in document
    assert document["a"]["type"]["name"] == ["NNlib", "#relu"]


def test_base_is_spelled_from_main_as_julia_does() -> None:
    document = parse(bson.dump({"f": JuliaStruct(JuliaType(("Base", "#tanh"))), "m": JuliaModule(("Base",))}))
    assert document["f"]["type"]["name"] == ["Main", "Base", "#tanh"]
    assert document["m"]["path"] == ["Main", "Base"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"x": Unreadable("only an address was saved")}, "only an address"),
        ({"x": 2**63}, "Int64"),
        ({"x": {"tag": "array"}}, "keys"),
        ({"x": {1: 2}}, "keys"),
        ({"_backrefs": 1}, "_backrefs"),
        ({"x": object()}, "no form for object"),
        ({"x": np.zeros(2, "U3")}, "no element type"),
    ],
)
def test_what_a_file_cannot_hold_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(FormatError, match=words):
        bson.dump(values)


def test_values_nested_too_deeply_are_refused_on_the_way_out() -> None:
    value: list[Any] = []
    for _ in range(5000):
        value = [value]
    with pytest.raises(FormatError, match="nested"):
        bson.dump({"x": value})


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("x")
    with pytest.raises(OutputError):
        bson.write({"a": 1}, blocked / "model.bson")
    assert list(tmp_path.iterdir()) == [blocked]


DTYPES = ["?", "<i1", "<i2", "<i4", "<i8", "<u1", "<u2", "<u4", "<u8", "<f2", "<f4", "<f8", "<c8", "<c16"]
numbers = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(),
    st.builds(Char, st.characters(codec="utf-8")),
    st.builds(Int128, st.integers(-(2**127), 2**127 - 1)),
    st.builds(UInt128, st.integers(0, 2**128 - 1)),
    st.builds(Symbol, st.text(min_size=1)),
    st.sampled_from(
        [np.int8(-3), np.uint16(7), np.int32(-9), np.float16(0.5), np.float32(0.1), np.complex64(1j)]
    ),
    st.sampled_from([BFloat16(1.5), 2j, UNDEFINED, JuliaModule(("Flux",)), FLOAT32]),
)
arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)
keys = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8).filter(
    lambda key: key not in ("tag", "_backrefs")
)
values = st.recursive(
    numbers | arrays,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(keys, inner, max_size=4),
        st.dictionaries(st.sampled_from("abcd"), inner, max_size=3).map(
            lambda named: NamedTuple(list(named), list(named.values()))
        ),
        st.lists(inner, max_size=3).map(lambda items: JuliaStruct(JuliaType(("A", "B"), (2,)), items)),
    ),
    max_leaves=12,
)


@settings(max_examples=150)
@given(st.dictionaries(keys, values, max_size=4))
def test_whatever_is_written_is_read_back_the_same(content: dict[str, Any]) -> None:
    written = bson.dump(content)
    assert same(bson.load(written), content)
    assert bson.dump(bson.load(written)) == written
