"""JLD2 files: read as Julia wrote them, written as JLD2 writes them; damage ends in one sentence.

`golden/flux-*` was written by JLD2 0.4.3 (format 0.1.1) and 0.6.5 (0.2.0); `golden/hdf5` by h5py 3.16 with
HDF5 2.0, JLD2's 512 bytes put before, for the ways of storing an array that JLD2 reads but does not write.
"""

from __future__ import annotations

import json
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diptych.errors import DiptychError, FormatError, MissingExtra
from diptych.formats import hdf5, jld2
from diptych.formats.jld2.writing import serialise
from diptych.formats.julia import (
    UNDEFINED,
    Char,
    Int128,
    JuliaDict,
    JuliaModule,
    JuliaStruct,
    JuliaType,
    Symbol,
)
from diptych.formats.julia.elements import element_type
from flux_golden import file_name
from jld2_values import FLUX, MADE, NEW, OLD, arrays, measured, resealed
from julia_values import same


class Matching(int):
    """A checksum that fits every header."""

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = int.__hash__


# -- Reading what Julia wrote


@pytest.mark.parametrize("path", FLUX, ids=file_name)
def test_every_golden_file_is_read(path: Path) -> None:
    values = jld2.load(path)
    assert values
    assert "_types" not in values
    found = arrays(values)
    assert all(array.flags.f_contiguous for array in found.values())
    assert found or path.stem == "anon"


def test_header_tells_the_versions() -> None:
    assert jld2.version(NEW / "ckpt.jld2") == jld2.Version("0.2.0", "Julia 1.10.4")
    assert jld2.version(OLD / "small_bn.jld2") == jld2.Version("0.1.1", "Julia 1.5.3")


PAIRS = [path for path in FLUX if path.with_name(f"{path.stem}_state.jld2").exists()]


@pytest.mark.parametrize("path", PAIRS, ids=file_name)
def test_state_holds_the_arrays_of_its_model_under_the_same_paths(path: Path) -> None:
    (model,) = jld2.load(path).values()
    state = arrays(jld2.load(path.with_name(f"{path.stem}_state.jld2"))["model_state"])
    whole = arrays(model)
    assert state
    for name, array in state.items():
        assert np.array_equal(whole[name], array), name


def test_arrays_of_containers_have_their_values() -> None:
    values = jld2.load(NEW / "containers.jld2")
    expected = json.loads((NEW / "containers.json").read_text())["values"]
    checked = 0
    for name, about in expected.items():
        array = values.get(name)
        if isinstance(array, np.ndarray) and array.dtype.kind in "fiub" and "values" in about:
            numbers = [float({"true": "1", "false": "0"}.get(text, text)) for text in about["values"]]
            assert list(array.shape) == about["size"], name
            assert np.array_equal(array.reshape(-1, order="F"), np.array(numbers).astype(array.dtype)), name
            checked += 1
    assert checked == 9


RELU = ("NNlib", "#relu")
SINGLE: dict[str, Any] = {
    "bool": True,
    "char": Char("ß"),
    "complex": np.complex64(1 + 2j),
    "empty_str": "",
    "f16": np.float16(1.5),
    "f32": np.float32(1.25),
    "f64": 3.141592653589793,
    "i128": Int128(2**100),
    "i16": np.int16(-300),
    "i32": np.int32(-70000),
    "i64": 2**40,
    "i8": np.int8(-3),
    "inf": np.float32(np.inf),
    "module": JuliaModule(("Flux",)),
    "nan": float("nan"),
    "nothing": None,
    "str": "snö ☃",
    "symbol": Symbol("hello"),
    "u16": np.uint16(0x1234),
    "u32": np.uint32(0xDEADBEEF),
    "u64": np.uint64(0xFFFFFFFFFFFFFFFF),
    "u8": np.uint8(7),
    "vec_str": ["a", "bb", ""],
    "vec_sym": [Symbol("a"), Symbol("b")],
    "big": 2**80,
}


@pytest.mark.parametrize("name", sorted(SINGLE))
def test_single_values_of_containers(name: str) -> None:
    assert same(jld2.load(NEW / "containers.jld2")[name], SINGLE[name])


def test_structs_of_containers() -> None:
    v = jld2.load(NEW / "containers.jld2")
    assert v["fn"].type.path == RELU
    assert v["fn"].fields == []
    assert v["fn_base"].type.path == ("Base", "#sin")
    assert v["missing"].type.path == ("Base", "Missing")
    assert str(v["type_arr"]) == "Core.Array{Core.Float32, 4}"
    assert isinstance(v["type"], JuliaType)
    hyper = v["hyper"]
    assert (str(hyper.type), hyper.names) == ("Hyper", ("lr", "name", "tags", "undef_later"))
    assert hyper.fields == [0.1, "h", [Symbol("a")], UNDEFINED]
    assert v["range"].fields == [1, 5]
    assert v["rational"].fields == [3, 4]
    assert v["pair"].fields == [1, "one"]
    assert v["transpose"].fields[0].shape == (4, 3)
    assert v["enum"].fields == [b"\2\0\0\0"]
    assert v["unionall"].names == ("var", "body")
    assert v["reshaped"].names == ("parent", "dims", "mi")
    assert v["reshaped"].fields[1:] == [(2, 4), ()]


def test_collections_of_containers() -> None:
    v = jld2.load(NEW / "containers.jld2")
    w = v["mat"]
    assert v["nt"].names == ("a", "b", "c", "d")
    assert v["nt"][:3] == (1, np.float32(2.5), "text")
    assert np.array_equal(v["nt"][3][0], w)
    assert v["tuple"][:5] == (1, np.float32(2), "three", Symbol("four"), None)
    assert v["tuple"][5].type.path == ("Base", "Missing")
    assert v["dict_str"]["b"] == 2
    assert dict(v["dict_int"]) == {2: "y", 1: "x"}
    assert isinstance(v["dict_any"], JuliaDict)
    assert v["dict_any"][Symbol("s")] is None
    assert list(v["dict_sym"]) == ["w", "b"]
    assert list(v["set"].fields[0]) == [2, 1]
    assert v["union_nothing"] == [1, None]
    assert v["union_vec"][1].type.path == ("Base", "Missing")
    assert v["union_vec"][::2] == [np.float32(1), np.float32(3)]
    assert v["vec_any"][:3] == [1, "two", Symbol("three")]
    assert v["vec_any"][4] is None
    assert v["vec_tuple"].tolist() == [(1, 2.0), (3, 4.0)]
    assert v["vec_nt"].dtype.names == ("a", "b")
    assert [part.tolist() for part in v["vecvec"]] == [[1, 2], [3]]
    assert v["mat_str"].tolist() == [["a", "b"], ["c", "d"]]
    assert v["chars"].tolist() == ["a", "b"]
    assert v["arr0"].shape == ()
    assert v["empty2"].shape == (0, 3)
    assert np.array_equal(v["group"]["sub"]["x"], w)
    assert v["group"]["y"] == 1


def test_fields_without_bytes_are_restored_from_their_types() -> None:
    dense = jld2.load(NEW / "dense_only.jld2")["model"]
    assert dense.names == ("weight", "bias", "σ")
    assert dense.fields[2].type.path == RELU
    old = jld2.load(OLD / "small_bn.jld2")["model"]
    layers = old.fields[old.names.index("layers")]
    assert [layer.type.name for layer in layers] == ["Conv", "BatchNorm", "#flatten", "Dense", "#softmax"]
    # Format 0.1.1 does not name what takes no bytes: the activation is in the type only.
    assert layers[0].names == ("weight", "bias", "stride", "pad", "dilation")
    assert layers[0].type.parameters[2].path == RELU


def test_closures_are_names_and_captured_values() -> None:
    found = jld2.load(OLD / "anon.jld2")["f"]
    assert isinstance(found, JuliaStruct)
    assert found.type.path == ("#14#15",)
    chain = next(iter(jld2.load(NEW / "capture_closure.jld2").values()))
    captured = [layer for layer in chain.fields[0] if layer.type.name.startswith("#") and layer.fields]
    assert captured
    assert all(layer.type.path[-1].count("#") == 2 for layer in captured)


def test_shared_arrays_are_one_object() -> None:
    state = jld2.load(NEW / "tied_weights_state.jld2")["model_state"]
    found = list(arrays(state).values())
    assert len({id(array) for array in found}) < len(found)


def test_checkpoint_beside_its_model() -> None:
    values = jld2.load(NEW / "ckpt.jld2")
    assert list(values) == ["model_state", "opt_state", "epoch", "losses", "classes"]
    assert (values["epoch"], values["classes"]) == (3, ["a", "b"])
    rule = values["opt_state"].as_dict()["layers"][0].as_dict()["weight"]
    assert rule.type.path == ("Optimisers", "Leaf")
    assert rule.fields[0].fields == [0.003, (0.9, 0.999), 1e-08]


def test_bfloat16_is_widened_and_marked() -> None:
    state = jld2.load(NEW / "bf16_state.jld2")["model_state"]
    found = [array for array in arrays(state).values() if array.dtype.metadata]
    assert found
    assert {array.dtype for array in found} == {np.dtype("f4")}
    assert {str(element_type(array)) for array in found} == {"BFloat16s.BFloat16"}


def test_arrays_are_views_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diptych.files._COPIED", 0)
    path = tmp_path / "large.jld2"
    jld2.write(path, {"w": np.ones((1000, 1000), np.float32, order="F")})
    with measured() as memory:
        values = jld2.load(path)
    assert values["w"].sum() == 1_000_000
    assert not values["w"].flags.writeable
    assert memory.peak < 200_000


def test_a_small_file_may_be_shortened_while_its_arrays_are_in_use(tmp_path: Path) -> None:
    path = tmp_path / "small.jld2"
    jld2.write(path, {"w": np.ones((1000, 1000), np.float32, order="F")})
    values = jld2.load(path)
    path.write_bytes(b"")
    assert values["w"].sum() == 1_000_000


# -- Compressed and chunked arrays


def test_compressed_checkpoint_equals_the_plain_one() -> None:
    plain, packed = jld2.load(NEW / "ckpt.jld2"), jld2.load(NEW / "ckpt_compressed.jld2")
    assert same(plain["model_state"], packed["model_state"])
    assert same(plain["losses"], packed["losses"])
    assert np.array_equal(packed["big"], np.tile(np.arange(1, 65, dtype=np.float32), 64))


@pytest.mark.parametrize("name", ["chunks_v108", "chunks_v110"])
def test_chunks_in_every_index(name: str) -> None:
    values = jld2.load(MADE / f"{name}.jld2")
    expected = np.arange(35).reshape(7, 5).T
    assert np.array_equal(values["grid"], expected.astype("f4"))
    assert np.array_equal(values["packed"], expected.astype("i4"))  # shuffle, deflate, Fletcher32
    assert np.array_equal(values["whole"], np.arange(12.0).reshape(3, 4).T)
    assert np.array_equal(values["big"], np.arange(12).reshape(3, 4).T)
    if name == "chunks_v110":
        assert np.array_equal(values["implicit"], expected)
        assert np.array_equal(values["paged"], np.arange(1500).astype("u1"))


def test_zstandard_lz4_and_bzip2() -> None:
    pytest.importorskip("zstandard", reason="the extra jld2 is not installed")
    pytest.importorskip("lz4.block", reason="the extra jld2 is not installed")
    values = jld2.load(MADE / "codecs.jld2")
    expected = (np.arange(600) % 50).astype("f4").reshape(20, 30).T
    assert list(values) == ["zstd", "shuffled", "lz4", "frame", "bzip2"]
    for name, array in values.items():
        assert np.array_equal(array, expected), name


def test_missing_decompressor_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    with pytest.raises(MissingExtra, match=r"Zstandard.*pip install .*\[jld2\]'"):
        jld2.load(MADE / "codecs.jld2")


def test_unknown_filter_is_named() -> None:
    with pytest.raises(FormatError, match=r"filter 32001 .* byte \d+"):
        jld2.load(MADE / "blosc.jld2")


@pytest.mark.parametrize("length", [1 << 40, 1 << 24])
def test_declared_size_beyond_what_deflate_can_hold_is_refused(length: int, tmp_path: Path) -> None:
    data = bytearray((NEW / "ckpt_compressed.jld2").read_bytes())
    # The dataspace and the chunk of "big".
    for before in (struct.pack("<BBBB", 2, 1, 0, 1), struct.pack("<BBBBB", 4, 2, 2, 2, 8)):
        assert data.count(before + struct.pack("<Q", 64 * 64)) == 1
        data = data.replace(before + struct.pack("<Q", 64 * 64), before + struct.pack("<Q", length))
    path = tmp_path / "bomb.jld2"
    path.write_bytes(resealed(data))
    with measured() as memory, pytest.raises(FormatError, match=r"4 GB|cannot hold"):
        jld2.load(path)
    assert memory.peak < 2_000_000


# -- Files of another kind


def test_strangers_are_named(tmp_path: Path) -> None:
    plain = (MADE / "plain.h5").read_bytes()
    golden = (NEW / "dense_only.jld2").read_bytes()
    cases = {
        "plain HDF5": plain,
        "Keras": plain + b"keras_version",
        "JLD.jl": b"Julia data file (HDF5), version 0.1.3".ljust(512, b"\0") + golden[512:],
        "big-endian": golden.replace(b"64-bit LE", b"64-bit BE", 1),
        "format 1.0.0": golden.replace(b"version 0.2.0", b"version 1.0.0", 1),
        "empty": b"",
        "not an HDF5 file": b"\x89PNG" + bytes(3000),
    }
    for words, data in cases.items():
        path = tmp_path / "stranger.jld2"
        path.write_bytes(data)
        with pytest.raises(FormatError, match=words):
            jld2.load(path)
    for path in (tmp_path, tmp_path / "absent.jld2"):
        with pytest.raises(FormatError, match="cannot read"):
            jld2.load(path)


def test_groups_that_another_program_rewrote_are_refused() -> None:
    with pytest.raises(FormatError, match="fractal heap"):
        jld2.load(MADE / "dense.jld2")


# -- Damage


def test_flipped_bit_in_a_header_is_found_by_its_checksum(tmp_path: Path) -> None:
    data = bytearray((NEW / "dense_only.jld2").read_bytes())
    data[data.find(b"julia_type")] ^= 1
    path = tmp_path / "flipped.jld2"
    path.write_bytes(data)
    with pytest.raises(FormatError, match="checksum of an object header is wrong at byte"):
        jld2.load(path)


def test_truncation_at_any_byte_ends_in_a_sentence(tmp_path: Path) -> None:
    data = (OLD / "small_meta.jld2").read_bytes()
    path = tmp_path / "short.jld2"
    for length in range(0, len(data), 61):
        path.write_bytes(data[:length])
        with pytest.raises(FormatError):
            jld2.load(path)


def list_holding(tmp_path: Path, inner: Any) -> tuple[Path, hdf5.Hdf5File, int]:
    """A file whose "a" is a list of one reference; where its bytes are."""
    path = tmp_path / "cycle.jld2"
    jld2.write(path, {"a": [inner]}, "0.2.0")
    file = hdf5.Hdf5File(path)
    layout = file.object(file.object(file.root).links["a"]).layout
    assert layout is not None
    return path, file, layout.at


def test_list_that_contains_itself_is_read(tmp_path: Path) -> None:
    path, file, at = list_holding(tmp_path, 1)
    data = bytearray(path.read_bytes())
    data[at : at + 8] = struct.pack("<Q", file.object(file.root).links["a"])
    path.write_bytes(data)
    found = jld2.load(path)["a"]
    assert found[0] is found


def test_tuple_that_contains_itself_is_refused(tmp_path: Path) -> None:
    path, file, at = list_holding(tmp_path, (["y"],))
    tuple_at = file.uint(at, 8)
    layout = file.object(tuple_at).layout
    assert layout is not None
    data = bytearray(path.read_bytes())
    data[layout.at : layout.at + 8] = struct.pack("<Q", tuple_at)
    path.write_bytes(resealed(data))
    with pytest.raises(FormatError, match="contains itself"):
        jld2.load(path)


@pytest.mark.parametrize("length", [1 << 20, 1 << 62])
def test_small_file_cannot_make_more_values_than_it_has_bytes(length: int, tmp_path: Path) -> None:
    """A vector of `nothing` is its length only."""
    data = serialise({"a": (None,) * 12}, "0.2.0")
    path = tmp_path / "many.jld2"
    path.write_bytes(data)
    assert jld2.load(path) == {"a": (None,) * 12}
    at = data.index(b"dimensions\0") + 11 + 12 + 12
    assert data[at : at + 8] == struct.pack("<Q", 12)
    data[at : at + 8] = struct.pack("<Q", length)
    path.write_bytes(resealed(data))
    with measured() as memory, pytest.raises(FormatError, match="elements that take no bytes"):
        jld2.load(path)
    assert memory.peak < 1_000_000


def test_long_chain_of_references_is_no_recursion(tmp_path: Path) -> None:
    data = serialise({"a": [[] for _ in range(3000)]}, "0.2.0")
    path = tmp_path / "chain.jld2"
    path.write_bytes(data)
    file = hdf5.Hdf5File(path)
    outer = file.object(file.object(file.root).links["a"]).layout
    assert outer is not None
    inner = [int(n) for n in np.frombuffer(data, "<u8", 3000, outer.at)]
    for here, following in pairwise(inner):
        # An empty list becomes one that holds the next: of one element, kept inside the header.
        start = file.place(here)
        header = data[start : start + 200]
        shape = header.find(struct.pack("<BBBBQ", 2, 1, 0, 1, 0))
        data[start + shape + 4 : start + shape + 12] = struct.pack("<Q", 1)
        layout = header.find(struct.pack("<BHBBBH", 8, 4, 0, 4, 0, 0))
        # The message and the empty one after it (20 bytes) make room for the reference.
        body = struct.pack("<BHBBBHQ", 8, 12, 0, 4, 0, 8, following) + struct.pack("<BHB", 0, 8, 0) + bytes(8)
        data[start + layout : start + layout + 28] = body
    path.write_bytes(resealed(data))
    found = jld2.load(path)["a"]
    depth, at = 0, found[0]
    while at:
        depth, at = depth + 1, at[0]
    assert depth == 2999


SOURCES = [
    path.read_bytes()
    for path in (
        OLD / "small_meta.jld2",
        OLD / "small_bn.jld2",
        NEW / "dense_only.jld2",
        NEW / "ckpt_compressed.jld2",
        NEW / "containers.jld2",
        MADE / "chunks_v110.jld2",
    )
]


@pytest.mark.slow
@settings(max_examples=300)
@given(st.data())
def test_mutations_end_in_values_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    source = bytearray(data.draw(st.sampled_from(SOURCES)))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(512, len(source) - 9))
        patch = data.draw(
            st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from([b"\xff" * 8, bytes(8)]))
        )
        source[at : at + len(patch)] = patch
    path = tmp_path_factory.getbasetemp() / "mutated.jld2"
    path.write_bytes(source)
    sentence = ""
    with pytest.MonkeyPatch.context() as patch_checksums:
        if data.draw(st.booleans()):
            patch_checksums.setattr(hdf5, "lookup3", lambda raw: Matching(0))
        try:
            jld2.load(path)
        except DiptychError as error:
            sentence = str(error)
    assert "\n" not in sentence
    assert not sentence or str(path) in sentence
