"""Files that real Flux could not load or run, or computed differently, when they were tried there."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diptych
from diptych import formats
from diptych.engines import numpy as reference
from diptych.errors import UnsupportedLayer
from diptych.formats import bson, jld2
from diptych.formats.flux.functions import FUNCTION_FIELDS
from diptych.formats.flux.layouts import fields_of
from diptych.formats.julia import JuliaStruct, NamedTuple
from diptych.model.layers import (
    Activation,
    Bilinear,
    Chain,
    Connection,
    Constant,
    Conv,
    ConvTranspose,
    Dense,
    Expand,
    Graph,
    GroupNorm,
    Layer,
    Parallel,
    Permute,
    Reduce,
    Reshape,
    SkipConnection,
    Softmax,
    Upsample,
)
from diptych.model.model import Model
from flux_golden import GOLDEN, batch
from flux_structs import call
from layer_cases import TABLE, case
from real_julia import command, needs_bson

HABITS = GOLDEN / "habits"
VERSIONS = ("0.12", "0.13", "0.14", "0.15", "0.16")


def weights(*shape: int) -> Any:
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


def structs_in(value: Any) -> list[JuliaStruct]:
    inside = (
        value.fields
        if isinstance(value, JuliaStruct)
        else list(value)
        if isinstance(value, (tuple, list))
        else []
    )
    own = [value] if isinstance(value, JuliaStruct) else []
    return own + [found for part in inside for found in structs_in(part)]


# ---- Chains of nothing --------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_a_branch_that_does_nothing_is_the_identity(version: str, tmp_path: Path) -> None:
    """Flux 0.13 to 0.16 evaluate `Chain()` to nothing."""
    join = Parallel(Connection("concatenate", -1), (Chain(), Chain((Chain(), Activation("relu")))))
    for model in (Model(Chain((Dense(weights(3, 4)), join))), Model(Chain())):
        formats.write(model, tmp_path / "m.bson", flux_version=version)
        written = structs_in(bson.load(tmp_path / "m.bson")["model"])
        assert not any(s.type.name == "Chain" and not s.fields[0] for s in written)
        x = weights(2, 4)
        again = formats.read(tmp_path / "m.bson")
        assert np.allclose(reference.compile(again)(x), reference.compile(model)(x), atol=1e-6)


@pytest.mark.parametrize("flux", ["f01210", "f0134", "f0169"])
def test_an_input_that_is_joined_with_itself(flux: str, tmp_path: Path) -> None:
    diptych.convert(HABITS / f"{flux}_cat_self.bson", tmp_path / "m.bson")
    written = structs_in(bson.load(tmp_path / "m.bson")["model"])
    assert all(s.fields[0] for s in written if s.type.name == "Chain")


# ---- States -------------------------------------------------------------------------------------------


def state(path: Path) -> Any:
    return jld2.load(path)["model_state"]


def test_a_state_holds_the_fields_of_functions(tmp_path: Path) -> None:
    """As `Flux.state` of 0.16.9 does of `Base.Fix1(broadcast, Base.Fix2(leakyrelu, 0.1f0))`."""
    model = formats.read(Path(__file__).parent / "data" / "flux" / "fix.bson")
    formats.write(model, tmp_path / "m.jld2", flux_version="0.16.9")
    _, second, third = state(tmp_path / "m.jld2").as_dict()["layers"]
    assert second.names == ("f", "x")
    assert second[0] == ()
    assert second[1].names == ("f", "x")
    assert second[1].as_dict() == {"f": (), "x": np.float32(0.1)}
    assert third.as_dict()["σ"].as_dict() == {"f": (), "x": np.float32(0.2)}
    formats.write(model, tmp_path / "m.jld2", flux_version="0.13")
    assert state(tmp_path / "m.jld2").as_dict()["layers"][1] == ()


def test_a_state_fits_the_model_that_is_written_beside_it(tmp_path: Path) -> None:
    """Of a model that is not from Flux: a concatenation of channels is four structs there."""
    skip = SkipConnection(Conv(weights(2, 3, 1, 1)), Connection("concatenate", 1))
    model = Model(Chain((skip, Activation("clamp", (-1.0, 1.0)))), input_shape=(3, 4, 4))
    for suffix in ("bson", "jld2"):
        formats.write(model, tmp_path / f"m.{suffix}")
    (struct,) = [bson.load(tmp_path / "m.bson")["model"]]
    assert fits(struct, state(tmp_path / "m.jld2")) == ""


def fits(struct: Any, held: Any, place: str = "model") -> str:
    """What `Flux.loadmodel!` with Functors 0.5 would refuse: other keys below a struct that has fields."""
    names = struct.names if isinstance(struct, JuliaStruct) else ()
    if isinstance(struct, JuliaStruct) and names and struct.type.name != "Upsample":
        if not isinstance(held, NamedTuple) or held.names != names:
            return f"{place}: {getattr(held, 'names', held)} for {names}"
        return "".join(fits(a, b, f"{place}.{n}") for a, b, n in zip(struct.fields, held, names, strict=True))
    if isinstance(struct, tuple):
        if not isinstance(held, tuple) or len(held) != len(struct):
            return f"{place}: {held!r:.40} for {len(struct)} parts"
        return "".join(fits(a, b, f"{place}[{i}]") for i, (a, b) in enumerate(zip(struct, held, strict=True)))
    return ""


def test_a_function_that_captured_a_layer_is_remarked(tmp_path: Path) -> None:
    model = formats.read(HABITS / "f0169_composed.bson")
    remarks = formats.write(model, tmp_path / "m.jld2", flux_version="0.16.9")
    assert any("captured arrays or layers" in remark for remark in remarks)
    assert not any("captured" in r for r in formats.write(model, tmp_path / "m.jld2", flux_version="0.13"))


# ---- Versions -----------------------------------------------------------------------------------------


def off(model: Model, name: str) -> float:
    given, wanted = (batch(np.load(HABITS / f"{name}_{part}.npy")) for part in ("input", "output"))
    return float(np.abs(reference.compile(model)(given) - wanted).max())


def test_the_version_that_is_named_holds_for_the_architecture_too() -> None:
    name = "f0169_named_layers_state"
    weights_, architecture = HABITS / f"{name}.jld2", HABITS / f"{name}_arch.bson"
    for given in (architecture, diptych.load_model(architecture)):
        model = diptych.load_model(weights_, architecture=given, written_by="0.16.9")
        assert off(model, name) < 1e-6
        assert model.source.warnings == ()
    older = diptych.load_model(weights_, architecture=architecture, written_by="0.13.4")
    assert off(older, name) > 1e-5


def test_a_weights_file_hints_at_the_version_by_its_julia() -> None:
    """JLD2 files name the version of Julia: 1.10 in this one."""
    name = "f0169_named_layers_state"
    model = diptych.load_model(HABITS / f"{name}.jld2", architecture=HABITS / f"{name}_arch.bson")
    assert off(model, name) < 1e-6
    assert any("--written-by" in warning for warning in model.source.warnings)


def test_the_version_of_an_architecture_for_weights_of_another_format(tmp_path: Path) -> None:
    architecture = HABITS / "f0169_named_layers_state_arch.bson"
    formats.write(formats.read(architecture), tmp_path / "w.safetensors")
    with pytest.raises(diptych.errors.UsageError):
        diptych.load_model(tmp_path / "w.safetensors", written_by="0.16.9")


def test_functions_that_a_version_has(tmp_path: Path) -> None:
    """NNlib has gelu_erf since 0.9.28, which Flux 0.14 takes; hardswish since 0.8, which Flux 0.12.9 requires."""
    for name, first, last_without in (("gelu_erf", "0.14", "0.13"), ("hardswish", "0.12.9", "0.12.8")):
        model = Model(Chain((Activation(name),)))
        formats.write(model, tmp_path / "m.bson", flux_version=first)
        with pytest.raises(UnsupportedLayer, match=f"does not have {name}"):
            formats.write(model, tmp_path / "m.bson", flux_version=last_without)


# ---- What Flux cannot run -----------------------------------------------------------------------------


def test_layers_that_flux_cannot_run_are_refused(tmp_path: Path) -> None:
    cases: list[tuple[Any, tuple[int, ...], str, str]] = [
        (Bilinear(weights(3, 4, 4)), (5, 4), "0.16", "takes features alone"),
        (SkipConnection(Activation("tanh"), Connection("multiply")), (4,), "0.12.3", "BroadcastFunction"),
    ]
    for layer, shape, version, words in cases:
        with pytest.raises(UnsupportedLayer, match=words):
            formats.write(
                Model(Chain((layer,)), input_shape=shape), tmp_path / "m.bson", flux_version=version
            )


def test_interpolating_to_a_size_of_1_does_not_use_its_upsample(tmp_path: Path) -> None:
    """Which divides by 0 there."""
    for layer in (
        Upsample(size=(1, 6), mode="linear", align_corners=True),
        Upsample((0.5, 2.0), mode="linear", align_corners=True),
    ):
        model = Model(Chain((layer,)), input_shape=(2, 3, 3))
        formats.write(model, tmp_path / "m.bson")
        assert b"Upsample" not in (tmp_path / "m.bson").read_bytes()
        x = weights(2, 2, 3, 3)
        again = formats.read(tmp_path / "m.bson")
        assert np.allclose(reference.compile(again)(x), reference.compile(model)(x), atol=1e-6)
        with pytest.raises(UnsupportedLayer, match=r"interpolate to a size of 1.*--shape"):
            formats.write(
                Model(Chain((Upsample(size=(1, 6), mode="linear", align_corners=True),))), tmp_path / "n.bson"
            )


def test_group_norm_of_features_gets_a_spatial_axis(tmp_path: Path) -> None:
    model = Model(Chain((GroupNorm(2, weights(6), weights(6)),)), input_shape=(6,))
    x = weights(3, 6)
    for version in VERSIONS:
        formats.write(model, tmp_path / "m.bson", flux_version=version)
        written = bson.load(tmp_path / "m.bson")["model"]
        reshapes = [s for s in structs_in(written) if s.type.name == "Fix2"]
        assert [s.fields[1][:-1] for s in reshapes] == ([(1, 6), (6,)] if version < "0.14" else [])
        again = formats.read(tmp_path / "m.bson")
        assert np.allclose(reference.compile(again)(x), reference.compile(model)(x), atol=1e-5)


def test_paddings_of_transposed_convolutions_in_projects(tmp_path: Path) -> None:
    """Flux 0.12 to 0.14.16 misread one number for each axis."""
    layer = ConvTranspose(weights(2, 3, 3, 3), padding=((1, 1), (0, 0)))
    formats.write(Model(Chain((layer,)), input_shape=(2, 5, 5)), tmp_path / "m.safetensors")
    diptych.convert(tmp_path / "m.safetensors", tmp_path / "project/")
    assert "pad = (0, 0, 1, 1)" in (tmp_path / "project" / "model.jl").read_text()


def test_a_parallel_of_one_branch_in_projects(tmp_path: Path) -> None:
    """Flux 0.12 takes a single argument for the tuple of branches."""
    model = Model(Chain((Parallel(Connection("add"), (Dense(weights(3, 4)),)),)), input_shape=(4,))
    formats.write(model, tmp_path / "m.safetensors")
    diptych.convert(tmp_path / "m.safetensors", tmp_path / "project/")
    assert "Parallel(add, (Dense(" in (tmp_path / "project" / "model.jl").read_text()


def test_bfloat16_is_remarked(tmp_path: Path) -> None:
    model = formats.read(GOLDEN / "flux-0.16.9" / "bf16.bson")
    for suffix in ("bson", "jld2"):
        assert any("using BFloat16s" in remark for remark in formats.write(model, tmp_path / f"m.{suffix}"))


# ---- Graphs -------------------------------------------------------------------------------------------


def attention() -> Graph:
    """One head of 4 features for 5 places, whose queries, keys and values are dense layers."""
    nodes: list[tuple[Layer, str, tuple[str, ...]]] = [
        (Dense(weights(4, 4), weights(4)), "q", ("input",)),
        (Chain((Dense(weights(4, 4) + 1), Permute((0, 2, 1)))), "k", ("input",)),
        (Dense(weights(4, 4) - 1), "v", ("input",)),
        (Connection("matmul"), "scores", ("q", "k")),
        (Softmax(-1), "shares", ("scores",)),
        (Connection("matmul"), "mixed", ("shares", "v")),
        (Connection("add"), "sum", ("mixed", "input")),
        (Connection("concatenate", 1), "all", ("sum", "q", "v")),
    ]
    layers, names, inputs = zip(*nodes, strict=True)
    return Graph(layers, names, inputs, ("all",))


def heads() -> Graph:
    """Matrix products of four axes, whose heads Flux merges with the batch, and broadcasts."""
    split: Layer = Chain((Reshape((5, 2, 3)), Permute((0, 2, 1, 3))))
    nodes: list[tuple[Layer, str, tuple[str, ...]]] = [
        (Chain((Dense(weights(6, 6)), split)), "q", ("input",)),
        (Chain((Dense(weights(6, 6) + 1), split, Permute((0, 1, 3, 2)))), "k", ("input",)),
        (Connection("matmul"), "scores", ("q", "k")),
        (Reduce("max", (3,)), "top", ("scores",)),
        (Connection("subtract"), "rest", ("scores", "top")),
        (Constant(weights(2, 5, 5)), "bias", ("input",)),
        (Connection("add"), "sum", ("rest", "bias")),
        (Expand((2, 5, 5)), "tops", ("top",)),
        (Connection("maximum"), "last", ("sum", "tops")),
    ]
    layers, names, inputs = zip(*nodes, strict=True)
    return Graph(layers, names, inputs, ("last",))


def trees() -> Chain:
    """The same operations outside of a graph, and an output that is not the last node."""
    product = Parallel(Connection("matmul"), (Dense(weights(4, 4)), Chain((Permute((0, 2, 1)),))))
    inner = Graph(
        (Activation("tanh"), Activation("relu"), Connection("multiply")),
        ("a", "b", "c"),
        (("input",), ("a",), ("a", "b")),
        ("b", "c"),
    )
    square = SkipConnection(Chain((Reduce("min", (2,)), Activation("quickgelu"))), Connection("add"))
    return Chain((product, inner, square, Activation("power", (3.0,))))


GRAPHS: dict[str, tuple[Layer, tuple[int, ...]]] = {
    "attention": (attention(), (5, 4)),
    "heads": (heads(), (5, 6)),
    "trees": (trees(), (5, 4)),
}


@pytest.mark.parametrize("version", VERSIONS[1:])
@pytest.mark.parametrize("name", GRAPHS)
def test_containers_of_flux_compute_graphs(name: str, version: str, tmp_path: Path) -> None:
    layer, shape = GRAPHS[name]
    model = Model(Chain((layer,)), input_shape=shape)
    x = weights(3, *shape)
    wanted = reference.compile(model)(x)
    formats.write(model, tmp_path / "m.bson", flux_version=version)
    assert b"jl_anonymous" not in (tmp_path / "m.bson").read_bytes()
    struct = bson.load(tmp_path / "m.bson")["model"]
    ours = call(struct, x.astype(np.float64).transpose()).transpose()
    assert np.allclose(ours, wanted, rtol=1e-4, atol=1e-4)
    again = formats.read(tmp_path / "m.bson")
    assert np.allclose(reference.compile(again)(x), wanted, rtol=1e-5, atol=1e-5)
    formats.write(model, tmp_path / "m.jld2", flux_version=version)
    if version >= "0.14":
        assert fits(struct_with_names(struct), state(tmp_path / "m.jld2")) == ""


def struct_with_names(value: Any) -> Any:
    """A struct that was read, with the names of its fields, which BSON does not store."""
    if isinstance(value, (tuple, list)) and not isinstance(value, NamedTuple):
        return tuple(map(struct_with_names, value))
    if not isinstance(value, JuliaStruct):
        return value
    fields = list(map(struct_with_names, value.fields))
    own = FUNCTION_FIELDS.get(value.type.name) or fields_of(value.type.name, len(fields)) or ()
    return JuliaStruct(value.type, fields, own)


def test_arrays_of_different_sizes_are_added_with_a_dot(tmp_path: Path) -> None:
    """Julia's own + takes arrays of equal sizes only."""
    model = Model(Chain((SkipConnection(Reduce("mean", (1,)), Connection("add")),)), input_shape=(3, 4))
    formats.write(model, tmp_path / "m.bson")
    joins = [
        s for s in structs_in(bson.load(tmp_path / "m.bson")["model"]) if s.type.name == "SkipConnection"
    ]
    assert [s.fields[1].type.name for s in joins] == ["BroadcastFunction"]


_VERSION = 'import Flux, Pkg; print(Pkg.TOML.parsefile(joinpath(pkgdir(Flux), "Project.toml"))["version"])'
_LOAD = """
using Flux, NNlib, BSON
for file in ARGS
    model = BSON.load(file)[:model]
    sizes = parse.(Int, split(read(file * ".size", String)))
    x = Array(reshape(reinterpret(Float32, read(file * ".in")), sizes...))
    write(file * ".out", Array{Float32}(model(x)))
end
"""


@needs_bson
def test_real_flux_opens_and_runs_what_is_written(tmp_path: Path) -> None:
    asked = subprocess.run([*command(), "-e", _VERSION], capture_output=True, text=True, check=True)
    version = asked.stdout.strip()
    written: dict[Path, Any] = {}
    for name in TABLE:
        model, x = case(name)
        path = tmp_path / f"{name}.bson"
        with suppress(UnsupportedLayer):
            formats.write(model, path, flux_version=version)
            if "embedding" not in name:
                written[path] = reference.compile(model)(x)
                x.astype(np.float32).tofile(f"{path}.in")
                Path(f"{path}.size").write_text(" ".join(map(str, x.shape[::-1])))
    subprocess.run([*command(), "-e", _LOAD, *map(str, written)], check=True, capture_output=True)
    for path, wanted in written.items():
        ours = np.fromfile(f"{path}.out", np.float32).reshape(wanted.shape)
        assert np.abs(ours - wanted).max() <= 1e-5 * max(np.abs(wanted).max(), 1e-30), path.stem
