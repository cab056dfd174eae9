"""Reading BSON.jl files: every value as Julia printed it, every number type, and what a file cannot hold."""

from __future__ import annotations

import json
import math
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bson_structure import array_document, datatype, difference
from diptych.errors import FormatError
from diptych.formats import bson
from diptych.formats.bson.wire import parse, serialise
from diptych.formats.julia import (
    UNDEFINED,
    Char,
    Int128,
    JuliaDict,
    JuliaModule,
    JuliaStruct,
    JuliaType,
    NamedTuple,
    Symbol,
    Unreadable,
)
from diptych.formats.julia.arrays import as_array, parameters_in_order
from diptych.formats.julia.elements import element_type, marked
from flux_golden import BSON_FILES, GOLDEN, golden
from julia_values import found


def test_the_golden_files_are_here() -> None:
    assert len(BSON_FILES) > 40
    assert {path.parent.name for path in BSON_FILES} == {
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
    assert agrees(golden(f"flux-0.12.1/{case}")[key], EXPECTED[case]["values"][key])


def agrees(value: Any, record: dict[str, Any]) -> bool:
    """Whether a value is what Julia said of it; of structs that no number describes, their types."""
    kind = record["kind"]
    if "values_column_major" in record:  # an array or a range
        array = as_array(value)
        assert array is not None
        assert list(array.shape) == record["size"]
        wanted = [_number(item) for item in record["values_column_major"]]
        numbers = [_parts(item) for item in array.reshape(-1, order="F").tolist()]
        return np.array_equal(np.array(numbers), np.array(wanted), equal_nan=True)
    if "items_column_major" in record:
        pairs = zip(_items(value), record["items_column_major"], strict=True)
        return all(agrees(item, wanted) for item, wanted in pairs)
    if kind in ("tuple", "namedtuple", "pair"):
        items = value.fields if kind == "pair" else value
        assert kind != "namedtuple" or list(value.names) == record["names"]
        return all(agrees(item, wanted) for item, wanted in zip(items, record["items"], strict=True))
    if kind == "dict":
        symbols = isinstance(value, JuliaDict)  # the keys of a Dict{Symbol} are plain text for us
        keys = [_symbol(key) if symbols else key["value"] for key, _ in record["pairs"]]
        assert len(value) == len(keys)
        return all(agrees(value[key], wanted) for key, (_, wanted) in zip(keys, record["pairs"], strict=True))
    if kind == "scalar":
        return _is_scalar(_plain(value), record["value"])
    return _type_name(value) == _julia_name(record["repr"] if kind == "type" else record["julia_type"])


def _items(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    items: list[Any] = value.reshape(-1, order="F").tolist()
    return [NamedTuple(value.dtype.names, item) for item in items] if value.dtype.names else items


def _symbol(record: dict[str, Any]) -> Any:
    return Symbol(record["value"]) if record["julia_type"] == "Symbol" else record["value"]


def _is_scalar(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        wanted = complex(*wanted)
    elif not isinstance(value, str):
        wanted = _number(wanted)
    return bool(value == wanted or (value != value and wanted != wanted))


def _plain(value: Any) -> Any:
    """The text or the number that some types of Julia keep in fields or in their name."""
    if isinstance(value, Symbol):
        return value.name
    if not isinstance(value, JuliaStruct):
        return value
    if value.type.name == "Irrational":
        return {"π": math.pi}[value.type.parameters[0].name]
    if value.type.name == "SubString":
        text, offset, length = value.fields
        return text[offset : offset + length]
    assert value.type.name == "Rational"
    return tuple(value.fields)


def _type_name(value: Any) -> str:
    """`Base.RefValue{Core.Int64}` as "RefValue{Int64}"."""
    if isinstance(value, JuliaModule):
        return "Module"
    kind = value if isinstance(value, JuliaType) else value.type
    return re.sub(r"\w+\.", "", str(kind)).replace(" ", "")


def _julia_name(text: str) -> str:
    """The same of Julia's own text, where a function's type is `typeof(sin)` and not `#sin`."""
    if " where " in text:
        return "UnionAll"
    text = re.sub(r"typeof\((.+?)\)", r"#\1", re.sub(r'var"(.+?)"', r"\1", text))
    return re.sub(r"\w+\.", "", text).replace(" ", "")


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


@pytest.mark.parametrize(("copied", "kind"), [(0, "mmap"), (1 << 20, "bytes")])
def test_arrays_are_views_of_the_file_and_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copied: int, kind: str
) -> None:
    monkeypatch.setattr("diptych.files._COPIED", copied)
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
    assert type(base.obj).__name__ == kind


def test_a_small_file_may_be_shortened_while_its_arrays_are_in_use(tmp_path: Path) -> None:
    path = tmp_path / "weights.bson"
    bson.write({"w": np.arange(200_000, dtype=np.float32)}, path)
    array = bson.load(path)["w"]
    path.write_bytes(b"")
    assert array.sum(dtype=np.float64) == 199_999 * 100_000


# ---- Number types and colours, from documents made by hand -------------------------------------------------


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
