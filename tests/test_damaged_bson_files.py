"""BSON files that are damaged, hostile or of another kind: read, or refused in one sentence with its place."""

from __future__ import annotations

import random
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bson_structure import array_document, datatype
from diptych.errors import FormatError
from diptych.formats import bson
from diptych.formats.bson.wire import parse, serialise
from diptych.formats.julia import JuliaStruct
from diptych.formats.julia.arrays import as_array
from flux_golden import BSON_FILES
from julia_values import found
from refusals import value_or_refusal

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
        ({"a": array_document(datatype("Core", "Nothing"), [10**12], b"")}, "it has no bytes"),
        ({"a": array_document(datatype("Core", "String"), [3], ["x"])}, "do not fill 3"),
        ({"a": {"tag": "array"}}, "data|size"),
        ({"a": {"tag": "struct", "type": 3, "data": []}}, "is not a type"),
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
    contents = [path.read_bytes() for path in BSON_FILES if path.stat().st_size < 30_000]
    for _ in range(250):
        content = mutated(random_.choice(contents), random_)
        values = value_or_refusal(bson.load, content)
        if isinstance(values, FormatError):
            continue
        assert isinstance(values, dict)
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


def written_again(content: bytes) -> dict[str, Any]:
    values = bson.load(content)
    bson.dump(values)
    return values


@pytest.mark.parametrize("seed", range(4))
def test_a_document_with_parts_exchanged_is_read_or_refused(seed: int) -> None:
    random_ = random.Random(seed)
    contents = [path.read_bytes() for path in BSON_FILES if 200 < path.stat().st_size < 15_000]
    ends: set[str] = set()
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
        values = value_or_refusal(written_again, content)
        ends.add("refused" if isinstance(values, FormatError) else "read")
        assert isinstance(values, FormatError | dict)
    assert ends == {"read", "refused"}
