"""Reading and writing BSON.jl files: what Julia wrote, what a damaged file does, what goes back."""

from __future__ import annotations

import json
import random
import struct
from contextlib import suppress
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
from diptych.formats.bson.wire import parse, serialise
from diptych.formats.julia import (
    UNDEFINED,
    BFloat16,
    Char,
    Int128,
    JuliaDict,
    JuliaModule,
    JuliaStruct,
    JuliaType,
    NamedTuple,
    Symbol,
    UInt128,
    Unreadable,
)
from diptych.formats.julia.arrays import as_array, parameters_in_order
from diptych.formats.julia.elements import element_type, marked

GOLDEN = Path(__file__).parent / "golden"
FILES = sorted(GOLDEN.glob("flux-*/*.bson"))
FLOAT32 = JuliaType(("Core", "Float32"))


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def golden(name: str) -> dict[str, Any]:
    return bson.load(GOLDEN / f"{name}.bson")


# ---- Reading what Julia wrote -------------------------------------------------------------------------


def test_the_golden_files_are_here() -> None:
    assert len(FILES) > 40
    assert {path.parent.name for path in FILES} == {
        "flux-0.11.6",
        "flux-0.12.1",
        "flux-0.13.4",
        "flux-0.16.9",
    }


EXPECTED = json.loads((GOLDEN / "flux-0.12.1/containers_expected.json").read_text("utf-8"))
ZOO = [
    (case, key) for case, record in EXPECTED.items() if case.startswith("zoo_") for key in record["values"]
]


@pytest.mark.parametrize(("case", "key"), ZOO, ids=[f"{case}-{key}" for case, key in ZOO])
def test_every_value_is_what_julia_printed(case: str, key: str) -> None:
    agrees(golden(f"flux-0.12.1/{case}")[key], EXPECTED[case]["values"][key])


def agrees(value: Any, record: dict[str, Any]) -> None:
    kind = record.get("kind")
    if kind == "array" and "values_column_major" in record:
        array = as_array(value)
        assert array is not None
        assert list(array.shape) == record["size"]
        wanted = [_number(item) for item in record["values_column_major"]]
        found = [_parts(item) for item in array.reshape(-1, order="F").tolist()]
        np.testing.assert_array_equal(np.array(found), np.array(wanted))
    elif kind == "array" and "items_column_major" in record:
        items = value if isinstance(value, list) else value.reshape(-1, order="F").tolist()
        assert len(items) == len(record["items_column_major"])
        for item, wanted in zip(items, record["items_column_major"], strict=True):
            agrees(item, wanted)
    elif kind in ("tuple", "namedtuple"):
        for item, wanted in zip(value, record["items"], strict=True):
            agrees(item, wanted)
        assert kind == "tuple" or not isinstance(value, NamedTuple) or list(value.names) == record["names"]
    elif kind == "dict" and isinstance(value, JuliaDict):
        assert len(value) == len(record["pairs"])
        for key, wanted in record["pairs"]:
            symbol = key["julia_type"] == "Symbol"
            agrees(value[Symbol(key["value"]) if symbol else key["value"]], wanted)
    elif kind == "scalar" and isinstance(value, (bool, int, float, complex, str, np.generic)):
        wanted = record["value"]
        wanted = complex(*wanted) if isinstance(wanted, list) else wanted
        wanted = wanted if isinstance(value, str) else _number(wanted)
        assert value == wanted or (value != value and wanted != wanted)


def _number(item: Any) -> Any:
    if isinstance(item, list):
        return tuple(_number(part) for part in item)
    if isinstance(item, str) and "//" in item:
        return tuple(int(part) for part in item.split("//"))
    if isinstance(item, str):
        try:
            return int(item)
        except ValueError:
            try:
                return float(item)
            except ValueError:
                return item
    return item


def _parts(item: Any) -> Any:
    return (item.real, item.imag) if isinstance(item, complex) else item


WRAPPED = json.loads((GOLDEN / "flux-0.16.9/containers.json").read_text("utf-8"))["values"]


@pytest.mark.parametrize("key", [key for key, record in WRAPPED.items() if "values" in record])
def test_array_wrappers_and_ranges_have_julias_numbers(key: str) -> None:
    array = as_array(golden("flux-0.16.9/containers")[key])
    record = WRAPPED[key]
    assert array is not None
    assert list(array.shape) == record["size"]
    wanted = [float({"true": 1, "false": 0}.get(item, item)) for item in record["values"]]
    np.testing.assert_allclose(array.reshape(-1, order="F").astype(float), wanted, rtol=1e-7)


def test_scalars_keep_their_julia_types() -> None:
    scalars = golden("flux-0.12.1/zoo_scalars")
    assert {key: type(scalars[key]) for key in ("i8", "i16", "i32", "u8", "u64", "f16", "f32", "c32")} == {
        "i8": np.int8, "i16": np.int16, "i32": np.int32, "u8": np.uint8, "u64": np.uint64,
        "f16": np.float16, "f32": np.float32, "c32": np.complex64,
    }  # fmt: skip
    assert type(scalars["i64"]) is int
    assert type(scalars["f64"]) is float
    assert scalars["t"] is True
    assert isinstance(scalars["chr"], Char)
    assert scalars["chr"] == "é"
    assert isinstance(scalars["i128"], Int128)
    assert scalars["i128"] == 2**100
    assert scalars["sym"] == Symbol("hello")
    assert str(scalars["typ2"]) == "Core.Array{Core.Float32, 2}"
    assert scalars["str"] == "naïve 日本\n"


def test_a_shared_array_is_one_array_and_an_equal_one_is_not() -> None:
    shared = golden("flux-0.12.1/zoo_shared")
    assert shared["a"] is shared["b"]
    assert all(item is shared["a"] for item in shared["list"][:2])
    assert shared["list"][2] is not shared["a"]
    np.testing.assert_array_equal(shared["list"][2], shared["a"])
    assert shared["tup"][0] is shared["tup"][1]


def test_tied_weights_stay_tied() -> None:
    model = golden("flux-0.12.1/shared_layer")["model"]
    layers = model.fields[0]
    weights = [layer.fields[0] for layer in layers if layer.type.name == "Dense"]
    assert len(weights) > len({id(weight) for weight in weights})


def test_a_cycle_is_read_and_written() -> None:
    cycle = golden("flux-0.12.1/zoo_cycle")["cyc"]
    assert any(item is cycle for item in cycle)
    again = bson.load(bson.dump({"cyc": cycle}))["cyc"]
    assert any(item is again for item in again)


def test_optimiser_state_is_found_by_the_models_own_arrays() -> None:
    values = golden("flux-0.12.1/cont_opt")
    states = [value for value in found(values, JuliaDict) if len(value) == 4]
    assert len(states) == 1
    arrays = {id(array) for array in found(values, np.ndarray)}
    for key, state in states[0].items():
        assert id(key) in arrays
        assert states[0][key] is state


def found(value: Any, kind: type) -> list[Any]:
    """Every object of a kind inside a value, once."""
    stack, seen, hits = [value], set(), []
    while stack:
        item = stack.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, kind):
            hits.append(item)
        if isinstance(item, JuliaStruct):
            stack += item.fields
        elif isinstance(item, JuliaDict):
            stack += [item.stored_keys, item.stored_values]
        elif isinstance(item, dict):
            stack += item.values()
        elif isinstance(item, (list, tuple)):
            stack += item
    return hits


def test_params_come_in_their_order() -> None:
    params = parameters_in_order(golden("flux-0.12.1/weights_only")["weights"])
    assert params is not None
    for index, array in enumerate(params, 1):
        wanted = np.load(GOLDEN / f"flux-0.12.1/weights_only_p{index}.npy")
        np.testing.assert_array_equal(array, wanted)


def test_bfloat16_is_widened_and_goes_back_as_bfloat16() -> None:
    model = golden("flux-0.16.9/bf16")
    arrays = [array for array in found(model, np.ndarray) if array.dtype == np.float32]
    assert arrays
    kinds = [element_type(array) for array in arrays]
    assert {kind.name for kind in kinds if kind} == {"BFloat16"}
    assert all((array.view(np.uint32) & 0xFFFF == 0).all() for array in arrays)


def test_numbers_are_rounded_to_the_nearest_bfloat16() -> None:
    kind = JuliaType(("BFloat16s", "BFloat16"))
    exact = np.array([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -np.inf, np.nan], np.float32)
    rounded = bson.load(bson.dump({"x": exact.astype(marked(np.float32, kind))}))["x"]
    np.testing.assert_array_equal(rounded, [1, 1 + 2**-6, 1 + 2**-7, -np.inf, np.nan])


def test_dictionary_with_string_keys_at_the_top() -> None:
    values = golden("flux-0.12.1/zoo_stringkeys")
    assert values["epoch"] == 2
    np.testing.assert_array_equal(values["model"], [1.0])


def test_undefined_fields_are_marked() -> None:
    hyper = golden("flux-0.16.9/containers")["hyper"]
    assert hyper.fields[:2] == [0.1, "h"]
    assert hyper.fields[3] is UNDEFINED or len(hyper.fields) == 3


def test_main_is_stripped_from_paths() -> None:
    model = next(iter(golden("flux-0.12.1/custom_model").values()))
    assert model.type.path == ("MyNet",)
    functions = [item.type.path for item in found(model, JuliaStruct) if item.type.name.startswith("#")]
    assert ("Base", "#identity") in functions


def test_arrays_are_views_of_the_file_and_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "weights.bson"
    bson.write({"w": np.arange(12, dtype=np.float32).reshape(3, 4, order="F")}, path)
    array = bson.load(path)["w"]
    assert not array.flags.writeable
    assert not array.flags.owndata
    assert array.flags.f_contiguous
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    assert isinstance(base, memoryview)
    assert type(base.obj).__name__ == "mmap"


# ---- Writing ------------------------------------------------------------------------------------------

UNWRITABLE = {"flux-0.16.9/containers", "flux-0.12.1/zoo_stringkeys"}


@pytest.mark.parametrize("path", [p for p in FILES if name_of(p) not in UNWRITABLE], ids=name_of)
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


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return (
            isinstance(b, np.ndarray)
            and a.dtype == b.dtype
            and a.shape == b.shape
            and a.tobytes() == b.tobytes()
        )
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b)) and getattr(a, "names", 0) == getattr(b, "names", 0)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, JuliaStruct):
        return str(a.type) == str(b.type) and same(a.fields, b.fields)
    if isinstance(a, JuliaType):
        return str(a) == str(b)
    return bool(a == b) or a != a


@settings(max_examples=150)
@given(st.dictionaries(keys, values, max_size=4))
def test_whatever_is_written_is_read_back_the_same(content: dict[str, Any]) -> None:
    written = bson.dump(content)
    assert same(bson.load(written), content)
    assert bson.dump(bson.load(written)) == written


@pytest.mark.parametrize(
    ("kind", "raw", "wanted"),
    [
        (("FixedPointNumbers", "Normed", "UInt8", 8), bytes([0, 51, 255]), [0, 0.2, 1]),
        (("FixedPointNumbers", "Fixed", "Int8", 7), bytes([0, 64, 0x80]), [0, 0.5, -1]),
        (("BFloat16s", "BFloat16"), struct.pack("<3H", 0x3F80, 0xC000, 0x7F80), [1, -2, np.inf]),
        (("Core", "UInt128"), (5).to_bytes(16, "little") + (2**100).to_bytes(16, "little"), [5, 2**100]),
    ],
)
def test_number_types_that_numpy_has_not(kind: tuple[Any, ...], raw: bytes, wanted: list[Any]) -> None:
    parameters = [datatype("Core", kind[2]), kind[3]] if len(kind) == 4 else []
    stored = {**datatype(*kind[:2]), "params": parameters}
    file = serialise({"x": array_document(stored, [len(wanted)], raw)})
    array = bson.load(file)["x"]
    np.testing.assert_allclose(array.astype(float), np.array(wanted, float), rtol=1e-6)
    assert difference(parse(file), parse(bson.dump(bson.load(file)))) == ""


def test_colours_are_structs_of_their_channels() -> None:
    n0f8 = {**datatype("FixedPointNumbers", "Normed"), "params": [datatype("Core", "UInt8"), 8]}
    rgb = {**datatype("ColorTypes", "RGB"), "params": [n0f8]}
    image = bson.load(serialise({"x": array_document(rgb, [2, 1], bytes([1, 2, 3, 4, 5, 6]))}))["x"]
    assert image.shape == (2, 1)
    assert image["g"].ravel().tolist() == [2, 5]


def test_a_struct_of_unknown_fields_stays_raw_bytes() -> None:
    stored = datatype("Main", "Pixel")
    file = serialise({"x": array_document(stored, [2], b"abcdef")})
    array = bson.load(file)["x"]
    assert [bytes(item) for item in array] == [b"abc", b"def"]
    assert difference(parse(file), parse(bson.dump(bson.load(file)))) == ""


def test_an_object_array_marked_with_a_wide_integer_type() -> None:
    kind = JuliaType(("Core", "Int128"))
    array = np.array([1, -(2**100)], dtype=marked(object, kind))
    assert bson.load(bson.dump({"x": array}))["x"].tolist() == [1, -(2**100)]


# ---- What the file does not hold ----------------------------------------------------------------------


def datatype(*path: str) -> dict[str, Any]:
    return {"tag": "datatype", "name": list(path), "params": []}


def array_document(kind: dict[str, Any], size: list[int], data: Any) -> dict[str, Any]:
    return {"tag": "array", "type": kind, "size": size, "data": data}


@pytest.mark.parametrize("path", [("CuArrays", "CuArray"), ("CUDA", "CuArray"), ("Main", "CUDA", "CuArray")])
def test_gpu_arrays_are_named_and_the_rest_is_read(path: tuple[str, ...]) -> None:
    lost = {"tag": "struct", "type": datatype(*path), "data": [b"\0" * 8, {"tag": "tuple", "data": [3]}]}
    values = bson.load(serialise({"weight": lost, "epoch": 7}))
    assert values["epoch"] == 7
    assert isinstance(values["weight"], Unreadable)
    assert "cpu(model)" in values["weight"].reason
    with pytest.raises(FormatError, match="cpu"):
        as_array(values["weight"])


def test_a_bit_vector_is_read_by_its_length_because_julia_never_sets_its_size() -> None:
    bits = golden("flux-0.16.9/containers")["bits"]
    assert bits.fields[2] != (3,)
    array = as_array(bits)
    assert array is not None
    assert array.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (("LinearAlgebra", "Transpose"), []),
        (("LinearAlgebra", "Transpose"), [3]),
        (("Base", "ReshapedArray"), [np.zeros(4), (3, 3), ()]),
        (("Base", "SubArray"), [np.zeros(4), (9,), 0, 0]),
        (("Base", "SubArray"), [np.zeros(4), (np.array([0]),), 0, 0]),
        (("Base", "BitArray"), [np.zeros(1, np.uint64), 65, (65,)]),
        (("Base", "UnitRange"), [1, 10**15]),
        (("LinearAlgebra", "Diagonal"), [np.zeros(10**6)]),
        (("SparseArrays", "SparseMatrixCSC"), [2, 2, np.array([1, 1, 9]), np.array([7]), np.array([1.0])]),
        (("Flux", "Zeros"), []),
    ],
)
def test_array_wrappers_that_contradict_themselves(path: tuple[str, ...], fields: list[Any]) -> None:
    value = JuliaStruct(JuliaType(path), fields)
    if path == ("Flux", "Zeros"):
        assert as_array(value) is None
        return
    with pytest.raises(FormatError, match=path[-1]):
        as_array(value)


def test_wrappers_inside_themselves_end() -> None:
    loop = JuliaStruct(JuliaType(("LinearAlgebra", "Transpose")))
    loop.fields.append(loop)
    with pytest.raises(FormatError, match="wraps more than"):
        as_array(loop)


# ---- Files that are damaged, or of another kind ---------------------------------------------------------

ROOT = serialise({"a": 1})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "0 bytes"),
        (b"PK\x03\x04" + b"\0" * 60, "zip archive"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 60, "HDF5"),
        (b"HDF5-based Julia Data Format, version 0.2.0" + b"\0" * 600, "JLD2"),
        (b'{"class_name": "Sequential"}', "JSON"),
        (b"\xef\xbb\xbf [1, 2, 3, 4]", "JSON"),
        (b"\x80\x04\x95" + b"\0" * 40, "pickle"),
        (b"\x93NUMPY" + b"\0" * 40, "NumPy"),
        (b"\x1f\x8b\x08" + b"\0" * 40, "gzip"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (struct.pack("<Q", 20) + b'{"a":1}' + b" " * 40, "safetensors"),
        (b"\xff" * 40, "not a BSON file"),
        (ROOT[:-3], "cut short"),
        (ROOT + ROOT, "MongoDB"),
        (ROOT + b"\xff" * 9, "too many"),
        (b"\x16\0\0\0\x07_id\0" + b"\1" * 12 + b"\0", "ObjectId"),
        (b"\x0a\0\0\0\x63a\0\0\0\0", "element type 0x63"),
        (struct.pack("<i", 10) + b"\x02a\0\xff\xff", "cut short"),
        (struct.pack("<i", 16) + b"\x02a\0" + struct.pack("<i", 999) + b"abcd\0", "999 bytes"),
        (struct.pack("<i", 15) + b"\x02a\0" + struct.pack("<i", 3) + b"abc\0", "string does not end"),
        (struct.pack("<i", 11) + b"\x01aaaaa\0", "key has no end|cut off"),
    ],
)
def test_a_file_of_another_kind_is_said_to_be_one(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "model.bson"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=words) as error:
        bson.load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="No such file"):
        bson.load(tmp_path / "missing.bson")


TUPLE_IN_ITSELF = {
    "a": {"tag": "backref", "ref": 1},
    "_backrefs": [{"tag": "tuple", "data": [{"tag": "backref", "ref": 1}]}],
}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"a": array_document(datatype("Core", "Float32"), [4], b"\0" * 12)}, "need 16 bytes, not 12"),
        ({"a": array_document(datatype("Core", "Float32"), [2**40, 2**40], b"")}, "not 0"),
        ({"a": array_document(datatype("Core", "Float32"), [-1], b"")}, "size"),
        ({"a": array_document(datatype("Core", "Float32"), [1] * 33, b"\0" * 4)}, "32 numbers"),
        ({"a": array_document(datatype("Core", "Float32"), [1], ["x"])}, "stored as bytes"),
        ({"a": array_document(datatype("Core", "Nothing"), [10**12], b"")}, "no byte is there"),
        ({"a": array_document(datatype("Core", "String"), [3], ["x"])}, "do not fill 3"),
        ({"a": {"tag": "array"}}, "data|size"),
        ({"a": {"tag": "struct", "type": 3, "data": []}}, "no type"),
        ({"a": {"tag": "datatype", "name": [], "params": []}}, "no name"),
        ({"a": {"tag": "backref", "ref": 0}}, "points to object 0 of 0"),
        ({"a": {"tag": "backref", "ref": 2}, "_backrefs": [1]}, "points to object 2 of 1"),
        ({"a": 1, "_backrefs": 5}, "_backrefs must be an array"),
        (TUPLE_IN_ITSELF, "contains itself"),
        (
            {"a": {"tag": "struct", "type": datatype("Core", "Float32"), "data": b"\0"}},
            "needs 4 bytes, not 1",
        ),
        ({"a": {"tag": "struct", "type": datatype("Core", "NamedTuple"), "data": []}}, "no names"),
        (
            {"a": {"tag": "struct", "type": datatype("Base", "Dict"), "data": [[1], []]}},
            "1 keys and 0 values",
        ),
        ({"a": {"tag": "jl_anonymous", "typename": {}, "params": []}}, "no name"),
        ({"tag": "tuple", "data": []}, "without a name"),
    ],
)
def test_a_document_that_lies_is_refused_with_its_place(document: dict[str, Any], words: str) -> None:
    with pytest.raises(FormatError, match=words):
        bson.load(serialise(document))


def test_the_place_of_the_damage_is_named() -> None:
    bad = array_document(datatype("Core", "Float32"), [4], b"")
    layers = {
        "tag": "tuple",
        "data": [None, {"tag": "struct", "type": datatype("Flux", "Dense"), "data": [bad]}],
    }
    with pytest.raises(FormatError, match=r"at model\.layers\[1\]\.fields\[0\]"):
        bson.load(serialise({"model": {"layers": layers}}))


def nested(levels: int, tag: str) -> bytes:
    value: Any = {"weights": np.float64(1).item()}
    for _ in range(levels):
        value = {"tag": "tuple", "data": [value]} if tag == "tuple" else {"weights": value}
    return serialise({"a": value})


@pytest.mark.parametrize("tag", ["tuple", "plain"])
def test_deep_nesting_that_people_made_is_read_and_absurd_nesting_refused(tag: str) -> None:
    bson.dump(bson.load(nested(47, tag)))
    bson.load(nested(150, tag))
    with pytest.raises(FormatError, match="nested more than 200 deep"):
        bson.load(nested(230, tag))
    deep = struct.pack("<i", 5) + b"\0"
    for _ in range(5_000):
        deep = struct.pack("<i", len(deep) + 8) + b"\x03a\0" + deep + b"\0"
    with pytest.raises(FormatError, match="documents are nested more than 1000 deep"):
        bson.load(deep)


def test_a_long_chain_of_references_does_not_recurse() -> None:
    links = [{"tag": "svec", "data": [{"tag": "backref", "ref": i + 2}]} for i in range(3000)]
    file = serialise({"a": {"tag": "backref", "ref": 1}, "_backrefs": [*links, None]})
    with pytest.raises(FormatError, match="nested more than 200 deep"):
        bson.load(file)


def test_references_that_would_expand_without_end_stay_small() -> None:
    links = [{"tag": "tuple", "data": [{"tag": "backref", "ref": i + 2}] * 2} for i in range(60)]
    value = bson.load(serialise({"a": {"tag": "backref", "ref": 1}, "_backrefs": [*links, [1]]}))["a"]
    for _ in range(60):
        assert value[0] is value[1]
        value = value[0]
    assert value == [1]


def test_types_that_would_expand_without_end_have_a_short_text() -> None:
    links = [{**datatype("A", "B"), "params": [{"tag": "backref", "ref": i + 2}] * 2} for i in range(60)]
    bad = {"tag": "array", "type": {"tag": "backref", "ref": 1}, "size": [3], "data": b"\0"}
    with pytest.raises(FormatError) as error:
        bson.load(serialise({"a": bad, "_backrefs": [*links, datatype("Core", "Float32")]}))
    assert len(str(error.value)) < 1000


def mutated(content: bytes, random_: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random_.choice((1, 1, 2, 8))):
        place = random_.randrange(len(changed))
        if random_.random() < 0.5:
            changed[place] ^= 1 << random_.randrange(8)
        elif random_.random() < 0.5:
            changed[place] = random_.choice((0, 1, 2, 3, 4, 5, 8, 10, 16, 18, 127, 128, 255))
        else:
            number = random_.choice((0, 1, -1, 2**31 - 1, -(2**31), 7, 1000)).to_bytes(
                4, "little", signed=True
            )
            changed[place : place + 4] = number[: len(changed) - place]
    return bytes(changed)


@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_file_is_read_or_refused_and_nothing_else(seed: int) -> None:
    random_ = random.Random(seed)
    contents = [path.read_bytes() for path in FILES if path.stat().st_size < 30_000]
    for _ in range(250):
        content = mutated(random_.choice(contents), random_)
        try:
            values = bson.load(content)
        except FormatError as error:
            assert len(str(error)) < 1000  # noqa: PT017
            continue
        for item in found(values, JuliaStruct):
            with suppress(FormatError):
                as_array(item)
        with suppress(FormatError):
            bson.load(bson.dump(values))


def parts(document: Any) -> list[tuple[Any, Any]]:
    places: list[tuple[Any, Any]] = []
    stack = [document]
    while stack:
        holder = stack.pop()
        if isinstance(holder, (dict, list)):
            for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
                places.append((holder, key))
                stack.append(holder[key])
    return places


@pytest.mark.parametrize("seed", range(4))
def test_a_document_with_parts_exchanged_is_read_or_refused(seed: int) -> None:
    random_ = random.Random(seed)
    contents = [path.read_bytes() for path in FILES if 200 < path.stat().st_size < 15_000]
    odd = [None, True, 0, -1, 2**62, 10**12, float("nan"), "x", [], {}, b"", {"tag": "backref", "ref": 1}]
    for _ in range(100):
        document = parse(random_.choice(contents))
        places = parts(document)
        for holder, key in random_.sample(places, 3):
            holder[key] = random_.choice([random_.choice(odd), *(h[k] for h, k in random_.sample(places, 2))])
        try:
            content = serialise(document)
        except RecursionError:  # the exchange put a part inside itself: that is no file
            continue
        with suppress(FormatError):
            bson.dump(bson.load(content))
