"""Julia source as the architecture: what is read, what is refused with its line, and weights that fill it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diptych
from diptych.__main__ import main
from diptych.errors import FormatError, UsageError
from diptych.formats import bson
from flux_golden import GOLDEN, batch

SOURCES: dict[str, str] = json.loads((GOLDEN / "sources.json").read_text())


def written(folder: Path, text: str, name: str = "model.jl") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def labels(model: diptych.Model) -> list[str]:
    return [layer.label for _, layer in model.walk()]


def source(folder: Path, text: str, key: str | None = None) -> list[str]:
    return labels(diptych.load_model(written(folder, text), key=key))


# ---- The idioms -----------------------------------------------------------------------------------------

IDIOMS = {
    "a function with defaults": (
        "function LeNet(; imgsize = (28, 28, 1), nclasses = 10)\n"
        "    out = (imgsize[1] ÷ 4 - 3, imgsize[2] ÷ 4 - 3, 16)\n"
        "    return Chain(Conv((5, 5), imgsize[end] => 6, relu), MaxPool((2, 2)), Conv((5, 5), 6 => 16, relu),\n"
        "                 MaxPool((2, 2)), Flux.flatten, Dense(prod(out) => nclasses))\nend\n",
        ["Conv 5x5, 1 -> 6, relu", "MaxPool 2x2", "Conv 5x5, 6 -> 16, relu", "MaxPool 2x2", "Flatten",
         "Dense 256 -> 10"],
    ),
    "splats and comprehensions": (
        "n = 2\nmodel = Chain([Dense(i => i + 1, tanh) for i in 1:n]..., (Dense(3, 3) for _ in 1:2)...)\n",
        ["Dense 1 -> 2, tanh", "Dense 2 -> 3, tanh", "Dense 3 -> 3", "Dense 3 -> 3"],
    ),
    "a vector that grows": (
        "layers = []\nsizes = [4, 8, 2]\nfor i in 1:length(sizes)-1\n"
        "    push!(layers, Dense(sizes[i], sizes[i+1], relu))\nend\nmodel = Chain(layers...) |> gpu\n",
        ["Dense 4 -> 8, relu", "Dense 8 -> 2, relu"],
    ),
    "closures": (
        "m = Chain(x -> reshape(x, :, size(x, 4)), x -> relu.(x), Dense(4, 2), x -> x ./ 2f0, softmax)\n",
        ["Flatten", "relu", "Dense 4 -> 2", "affine(0.5, 0)", "softmax, axis -1"],
    ),
    "SamePad, strides and groups": (
        "m = Chain(Conv((3, 3), 2 => 4, relu; pad = SamePad()), Conv((2, 4), 4 => 4; pad = SamePad(), groups = 2),\n"
        "          DepthwiseConv((3, 3), 4 => 8, stride = 2), ConvTranspose((2, 2), 8 => 3, stride = 2))\n",
        [
            "Conv 3x3, 2 -> 4, padding 1, relu",
            "Conv 4x2, 4 -> 4, padding 2+1 x 1+0, groups 2",
            "Conv 3x3, 4 -> 8, stride 2, groups 4",
            "ConvTranspose 2x2, 8 -> 3, stride 2",
        ],
    ),
    "skip connections": (
        "block(c) = SkipConnection(Chain(Conv((3, 3), c => c, pad = 1), BatchNorm(c, relu)), +)\n"
        "model = Chain(block(2), block(2))\n",
        ["SkipConnection add", "Chain of 2", "Conv 3x3, 2 -> 2, padding 1", "BatchNorm 2, relu"] * 2,
    ),
    "a struct of its own": (
        "struct VAE{T}\n    encoder::T\n    decoder\nend\nFlux.@functor VAE\n"
        "(m::VAE)(x) = m.decoder(m.encoder(x))\n"
        "vae = VAE(Dense(4 => 2, tanh), Chain(Dense(2 => 4, σ)))\n",
        ["Dense 4 -> 2, tanh", "Dense 2 -> 4, sigmoid"],
    ),
    "a U-Net": (
        "struct UNet; down; deep; up; last; end\n"
        "UNet(c::Int = 1) = UNet(Conv((3, 3), c => 4, pad = 1),\n"
        "                        Chain(MaxPool((2, 2)), Conv((3, 3), 4 => 8, pad = 1)),\n"
        "                        ConvTranspose((2, 2), 8 => 4, stride = 2), Conv((1, 1), 8 => 1))\n"
        "function (u::UNet)(x)\n    a = u.down(x)\n    b = u.up(u.deep(a))\n    σ.(u.last(cat(b, a, dims = 3)))\nend\n",
        [
            "Conv 3x3, 1 -> 4, padding 1",
            "SkipConnection concatenate along axis -3",
            "Chain of 3",
            "MaxPool 2x2",
            "Conv 3x3, 4 -> 8, padding 1",
            "ConvTranspose 2x2, 8 -> 4, stride 2",
            "Conv 1x1, 8 -> 1",
            "sigmoid",
        ],
    ),
    "a struct with defaults": (
        "Base.@kwdef struct Args\n    hidden::Int = 3\n    act = tanh\nend\n"
        "build_model(args::Args) = Chain(Dense(2, args.hidden, args.act), Dense(args.hidden, 1))\n"
        "function train(; kws...)\n    args = Args(; kws...)\n    model = build_model(args)\n"
        "    for epoch in 1:10^9\n        Flux.train!(loss, params(model), data, ADAM(1e-3))\n    end\nend\n",
        ["Dense 2 -> 3, tanh", "Dense 3 -> 1"],
    ),
    "sizes that are followed": (
        "m = Flux.@autosize (28, 28, 1, 1) Chain(Conv((5, 5), 1 => 6, relu), MaxPool((2, 2)), Flux.flatten,\n"
        "    Dense(_ => 10))\n",
        ["Conv 5x5, 1 -> 6, relu", "MaxPool 2x2", "Flatten", "Dense 864 -> 10"],
    ),
    "outputsize": (
        "front = Chain(Conv((3, 3), 3 => 8), MaxPool((2, 2)))\n"
        "s = Flux.outputsize(front, (32, 32, 3, 1))\nmodel = Chain(front..., Flux.flatten, Dense(prod(s[1:3]), 10))\n",
        ["Conv 3x3, 3 -> 8", "MaxPool 2x2", "Flatten", "Dense 1800 -> 10"],
    ),
    "a condition that is not known": (
        'use_cuda = CUDA.functional()\nif use_cuda\n    device = gpu\nelse\n    device = cpu\nend\n'
        "m = Chain(Dense(2 => 1)) |> device\n",
        ["Dense 2 -> 1"],
    ),
    "names": (
        "m = Chain(first = Dense(2 => 3), rest = Chain(; a = Dense(3 => 1)))\n",
        ["Dense 2 -> 3", "Chain of 1", "Dense 3 -> 1"],
    ),
    "a concatenation of the input first": (
        "m = SkipConnection(Conv((3, 3), 1 => 2, pad = 1), (mx, x) -> cat(x, mx, dims = 3))\n",
        ["Parallel of 2 concatenate along axis -3", "identity", "Conv 3x3, 1 -> 2, padding 1"],
    ),
    "a vector that is filled": (
        "struct Net; parts; end\n"
        "function (n::Net)(x)\n    out = Vector(undef, 2)\n    out[1] = n.parts[1](x)\n    for i in 2:2\n"
        "        out[i] = n.parts[i](out[i-1])\n    end\n    softmax(out[end])\nend\n"
        "net = Net([Dense(2 => 3), Dense(3 => 2)])\n",
        ["Dense 2 -> 3", "Dense 3 -> 2", "softmax, axis -1"],
    ),
    "a residual network in one function": (
        "struct R; parts; end\nfunction (r::R)(x)\n    for p in r.parts\n        x = x .+ p(x)\n    end\n    x\nend\n"
        "r = R([Dense(3 => 3) for _ in 1:18])\n",
        ["SkipConnection add", "Dense 3 -> 3"] * 18,
    ),
    "parallel branches": (
        "m = Parallel(vcat, Dense(2 => 3), Dense(2 => 1, relu))\n",
        ["Parallel of 2 concatenate along axis -1", "Dense 2 -> 3", "Dense 2 -> 1, relu"],
    ),
    "recurrent layers and attention": (
        "m = Chain(RNN(3 => 4, relu), LSTM(4 => 5), GRU(5, 3; bias = false), GRUv3(3 => 8),\n"
        "          MultiHeadAttention(8 => (6, 4) => 8; nheads = 2, bias = true), first, Dense(8 => 2))\n",
        ["RNN 3 -> 4, relu", "LSTM 4 -> 5", "GRU 5 -> 3, no bias", "GRU 3 -> 8, reset before the product",
         "MultiHeadAttention 8 -> 8, 2 heads", "identity", "Dense 8 -> 2"],
    ),
    "Lux": (
        "using Lux\nmodel = Chain(Conv((3, 3), 1 => 4, relu), FlattenLayer(), Dense(4 => 2; use_bias = false),\n"
        "              WrappedFunction(softmax))\n",
        ["Conv 3x3, 1 -> 4, relu", "Flatten", "Dense 4 -> 2, no bias", "softmax, axis -1"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("idiom", IDIOMS)
def test_an_idiom_is_read(idiom: str, tmp_path: Path) -> None:
    text, expected = IDIOMS[idiom]
    assert source(tmp_path, text) == expected


@pytest.mark.parametrize("name", SOURCES)
def test_source_gives_the_layers_of_the_file_that_flux_made_of_it(name: str, tmp_path: Path) -> None:
    """For each golden file: the expression that built it in Julia, or the same refusal."""
    version = name.split("/")[0].removeprefix("flux-")
    path = written(tmp_path, f"model = {SOURCES[name]}\n")
    try:
        file = diptych.load_model(GOLDEN / f"{name}.bson", written_by=version)
    except FormatError:
        with pytest.raises(FormatError, match=r"model\.jl"):
            diptych.load_model(path, written_by=version)
        return
    read = diptych.load_model(path, written_by=version)
    # The initial states of the recurrent golden files were set by hand.
    assert labels(read) == [label.replace(", initial state", "") for label in labels(file)]
    sizes = {k: v.shape for k, v in file.weights().items() if ".initial" not in k}
    assert {k: v.shape for k, v in read.weights().items()} == sizes


NUMBERS = {
    "2^(n - 1)": 4, "64 * 2^(n-1)": 256, "2n^2": 18, "2^3^2": 512, "2^2n": 64, "10-(n)": 7, "4*(n)": 12, "28^2": 784,
    "12 ÷ n * 2": 8, "-(-n)": 3, "7 % 4": 3, "cld(7, 2)": 4, "fld(7, 2)": 3, "div(-7, 2) + 9": 6, "Int(12 / 4)": 3,
    "floor(Int, 7.9)": 7, "ceil(Int, 7.1)": 8, "round(Int, 6.4)": 6, "prod((2, n, 4)[1:2])": 6, "length(1:2:9)": 5,
    "(1 < n < 4) ? 5 : 6": 5, "(4 < n < 9) ? 5 : 6": 6, "n == 3 && true ? 1 : 2": 1, "sum([1, 2, n])": 6,
    "maximum([4, n])": 4, "last(3:-1:2)": 2, "[5; n; 7][end-1]": 3, "(a = 2, b = 9).b": 9, "(2 => 8)[2]": 8,
    "reduce(*, (2, n))": 6, "foldl(+, [1, 2]; init = n)": 6, "map(x -> 2x, [n])[1]": 6, "0x1f": 31, "1_000": 1000,
    "ntuple(i -> i + n, 2)[2]": 5, "sum(i^2 for i in 1:n)": 14, "first(filter_or(n))": 5, "size(zeros(4, n), 2)": 3,
}  # fmt: skip


@pytest.mark.parametrize("text", NUMBERS)
def test_arithmetic_is_julias(text: str, tmp_path: Path) -> None:
    lines = f"n = 3\nfilter_or(n) = n > 5 ? [1] : [5]\nm = Dense({text} => 1)\n"
    assert source(tmp_path, lines) == [f"Dense {NUMBERS[text]} -> 1"]


# ---- What is refused, and where -------------------------------------------------------------------------

REFUSALS = {
    "data": ("x = load_data()\nn = size(x, 1)\nmodel = Chain(Dense(n, 3))\n", r"model\.jl:3: Dense\(n, 3\).*load_data"),
    "a closure": ("model = Chain(x -> fft(x), Dense(2, 3))\n", r"model\.jl:1: .*fft"),
    "an unknown function": ("model = Chain(Dense(1, 2), g)\n", r"model\.jl:1: .*g is not defined"),
    "an unknown layer": ("model = Chain(Dense(2, 3), MyLayer(3))\n", r"model\.jl:1: .*MyLayer is not defined"),
    "a keyword": ("model = Dense(2 => 3; spectral = true)\n", r"model\.jl:1: .*keyword spectral"),
    "arguments": ("build(n) = Chain(Dense(n, 1))\n", r"model\.jl:1: .*needs arguments.*--key 'build\(…\)'"),
    "several": ("a = Chain(Dense(1, 2))\nb = Chain(Dense(2, 1))\n", r"several models: a \(line 1\), b \(line 2\)"),
    "defined twice": ("m = Chain(Dense(1, 2))\nm = Chain(Dense(2, 1))\n", r"m \(line 2\), m:1 \(line 1\)"),
    "one that is not understood": ("a = Chain(Dense(1, 2))\nb = Chain(Dense(q, 1))\n", r"a \(line 1\).*model\.jl:2"),
    "several outputs": (
        "struct E; m; s; end\n(e::E)(x) = (e.m(x), e.s(x))\ne = E(Dense(1, 2), Dense(1, 2))\n", "several outputs",
    ),
    "nothing": ("x = 1 + 1\n", "holds no model"),
    "weights without end": ("m = Chain((Dense(10^4, 10^4) for i in 1:9)...)\n", "weights, more than"),
    "a huge layer": ("m = Dense(10^12, 10^12)\n", r"model\.jl:1"),
    "an unknown layer that is added": (
        "l = Any[Dense(1, 2)]\npush!(l, mystery(2))\nm = Chain(l...)\n", r"model\.jl:3: .*mystery is not defined",
    ),
    "a vector that is changed": (
        "l = Any[Dense(1, 2), Dense(2, 2)]\nshuffle!(l)\nm = Chain(l...)\n", r"model\.jl:3: .*shuffle! is not defined",
    ),
    "a vector that a function changes": (
        "add(v) = begin\npush!(v, mystery(2))\nnothing\nend\nl = Any[Dense(1, 2)]\nadd(l)\nm = Chain(l...)\n",
        r"model\.jl:7: .*mystery is not defined",
    ),
    "the length of a long text": (
        's = "ab"\n' + "s = s * s\n" * 12 + "m = Dense(length(s), 2)\n", r"a text of more than 4096 characters",
    ),
    "a changed layer": ("m = Chain(Dense(1, 2), Dense(2, 3))\nm.layers[2].weight = w\n", r"model\.jl|no model"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_not_understood_is_named_with_its_line(case: str, tmp_path: Path) -> None:
    text, message = REFUSALS[case]
    with pytest.raises(FormatError, match=message) as refusal:
        source(tmp_path, text)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 1000


def test_comments_that_do_not_end_take_little_time(tmp_path: Path) -> None:
    began = time.perf_counter()
    with pytest.raises(FormatError, match=r"comments .* that do not end"):
        source(tmp_path, "#= " * 500_000)
    assert time.perf_counter() - began < 5


HOSTILE = {
    "a loop": "for i in 1:10^18\n x = i\nend\nm = Dense(1, 2)\n",
    "a comprehension": "x = [i for i in 1:10^9]\nm = Dense(1, 2)\n",
    "nested loops": "for a in 1:200, b in 1:200, c in 1:200\n x = a * b * c\nend\nm = Dense(1, 2)\n",
    "recursion": "f(n) = f(n + 1)\ng() = f(1)\nm = Dense(1, 2)\n",
    "doubling": "x = [1, 2]\n" + "x = vcat(x, x)\n" * 60 + "m = Dense(1, 2)\n",
    "a doubling closure": "f(x) = begin\n" + "x = x + x\n" * 60 + "x\nend\nm = Chain(f, Dense(1, 2))\n",
    "a large power": "x = 10 ^ 10 ^ 10\nm = Dense(1, 2)\n",
    "deep brackets": "x = " + "(" * 5000 + "1" + ")" * 5000 + "\nm = Dense(1, 2)\n",
    "many bytes": "# " + "x" * 10_000 + "\n" + "[" * 3000 + "\nm = Dense(1, 2)\n",
    "a long text": 'x = repeat("a", 10^12)\ny = "a" ^ 10^12\nm = Dense(1, 2)\n',
    "tuples of tuples": "t = (1, 2)\n"
    + "t = (t, t, t, t)\n" * 40
    + "m = Chain(x -> reshape(x, t...), Dense(1, 2))\n",
    "zips of zips": "b = 1:999\n" + "b = collect(zip(b, b, b))\n" * 30 + "m = Dense(1, 2)\n",
    "layers used again and again": "l = Dense(2, 2)\n"
    + "l = SkipConnection(Chain(l, l), +)\n" * 30
    + "m = l\n",
    "many models": "for i in 1:250\n for j in 1:250\n  m = Dense(i, j)\n end\nend\n",
    "many failures": "for i in 1:250\n for j in 1:250\n  m = Chain(Dense(q, j), Dense(q, i))\n end\nend\n",
    "calls of calls": "f(n) = n == 0 ? 1 : f(n - 1) + f(n - 1)\nx = f(30)\nm = Dense(1, 2)\n",
    "deep chains": "m = " + "Chain(" * 3000 + "Dense(1, 2)" + ")" * 3000 + "\n",
    "while": "while true\n x = 1\nend\nm = Dense(1, 2)\n",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_source_takes_little_time(case: str, tmp_path: Path) -> None:
    before = time.perf_counter()
    try:
        assert "Dense 1 -> 2" in source(tmp_path, HOSTILE[case])
    except FormatError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either a model or a refusal in one sentence
    assert time.perf_counter() - before < 20


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("using Metalhead\nm = ResNet(18)\n", 11_689_512),
        ("using Metalhead\nm = ResNet(50; nclasses = 10)\n", 23_528_522),
        ("using Metalhead\nm = Metalhead.VGG(11; batchnorm = true, nclasses = 2)\n", 128_777_282),
        ("using Metalhead\nr = ResNet(34)\nm = Chain(r.layers[1], GlobalMeanPool(), Flux.flatten, Dense(512 => 3))\n",
         21_286_211),
    ],
)  # fmt: skip
def test_the_networks_of_metalhead_have_as_many_weights_as_there(
    text: str, parameters: int, tmp_path: Path
) -> None:
    assert diptych.load_model(written(tmp_path, text), key="m").parameters == parameters


def test_metalhead_has_no_other_depths(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"model\.jl:2: .*Metalhead has no ResNet with these arguments"):
        source(tmp_path, "using Metalhead\nm = Chain(ResNet(19), Dense(2, 1))\n")


def test_lux_computes_some_layers_in_its_own_way(tmp_path: Path) -> None:
    model = diptych.read(written(tmp_path, "using Lux, Random\nm = Chain(Dense(2 => 3), LayerNorm((3,)))\n"))
    assert labels(model)[1] == "LayerNorm 3"
    assert model.source.framework == "Lux"
    assert len(model.source.warnings) == 1  # its weights are initial ones
    lines = "import Lux: Chain, Upsample\nm = Chain(Upsample(:bilinear; scale = 2))\n"
    with pytest.raises(FormatError, match=r"model\.jl:2: .*align_corners"):
        source(tmp_path, lines)
    assert source(tmp_path, lines.replace("= 2", "= 2, align_corners = true")) == source(
        tmp_path, "using Flux\nm = Chain(Upsample(:bilinear; scale = 2))\n"
    )


# ---- Files ----------------------------------------------------------------------------------------------

SEVERAL = (
    "generator = Chain(Dense(2, 3))\ndiscriminator = Chain(Dense(3, 1, σ))\nbuild(n) = Chain(Dense(n, 1))\n"
)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("generator", ["Dense 2 -> 3"]),
        ("discriminator", ["Dense 3 -> 1, sigmoid"]),
        ("build(7)", ["Dense 7 -> 1"]),
        (
            "Chain(generator, discriminator)",
            ["Chain of 1", "Dense 2 -> 3", "Chain of 1", "Dense 3 -> 1, sigmoid"],
        ),
    ],
)
def test_a_key_chooses(key: str, expected: list[str], tmp_path: Path) -> None:
    assert source(tmp_path, SEVERAL, key=key) == expected


def test_a_key_says_what_the_file_does_not(tmp_path: Path) -> None:
    text = "n = length(state(env))\nactions = 1:3\nm = Chain(Dense(n => 8), Dense(8 => length(actions)))\n"
    with pytest.raises(FormatError, match=r"model\.jl:3: Dense\(n => 8\).*state is not defined"):
        source(tmp_path, text)
    assert source(tmp_path, text, key="n = 4; m") == ["Dense 4 -> 8", "Dense 8 -> 3"]
    assert source(tmp_path, text, key="n = 4;") == ["Dense 4 -> 8", "Dense 8 -> 3"]


def test_of_several_models_the_one_that_the_weights_fit_is_taken(tmp_path: Path) -> None:
    path = written(tmp_path, SEVERAL + "m = Chain(Dense(5, 2))\n")
    arrays = [np.zeros((3, 2), np.float32), np.ones(3, np.float32)]
    bson.write({"weights": arrays}, tmp_path / "w.bson")
    model = diptych.load_model(tmp_path / "w.bson", architecture=path)
    assert labels(model) == ["Dense 2 -> 3"]
    assert "the architecture is generator of" in model.source.warnings[0]
    twice = written(tmp_path, "a = Chain(Dense(2, 3))\nb = Chain(Dense(2, 3, relu))\n", "twice.jl")
    with pytest.raises(FormatError, match=r"a, b fit the weights in .*--architecture '.*twice\.jl::a'"):
        diptych.load_model(tmp_path / "w.bson", architecture=twice)
    chosen = diptych.load_model(tmp_path / "w.bson", architecture=f"{twice}::b")
    assert labels(chosen) == ["Dense 2 -> 3, relu"]
    bson.write({"weights": arrays[::-1]}, tmp_path / "w.bson")
    with pytest.raises(FormatError, match="none of them fits"):
        diptych.load_model(tmp_path / "w.bson", architecture=path)


def test_a_key_that_is_printed_works_as_printed(tmp_path: Path) -> None:
    text = "m = Chain(Dense(1, 2))\nm = Chain(Dense(2, 1))\n"
    assert source(tmp_path, text, key="m:1") == ["Dense 1 -> 2"]
    assert source(tmp_path, text, key="m") == ["Dense 2 -> 1"]
    with pytest.raises(FormatError, match="it holds m, m:1"):
        source(tmp_path, text, key="other")


def _notebook(language: str = "julia") -> str:
    cells: list[dict[str, Any]] = [
        {"cell_type": "markdown", "source": ["# Dense(9, 9)"]},
        {"cell_type": "code", "source": ["n = 3\n", "m = Chain(Dense(n, 2))"], "outputs": [], "metadata": {}},
    ]
    return json.dumps({"cells": cells, "metadata": {"kernelspec": {"language": language, "name": language}}})


PLUTO = (
    "### A Pluto.jl notebook ###\n# v0.19.0\n\n"
    "# ╔═╡ 755b8685-0711-48a2-a3eb-f80af39f10e1\nbegin\n    using Flux\nend\n\n"
    '# ╔═╡ 5a94a1c6-c9eb-48a3-a13f-2a0222a3f5f8\nmd"A model, Dense(9, 9)"\n\n'
    "# ╔═╡ be60ff23\nm = Chain(Dense(3, 2))\n\n"
    '# ╔═╡ 00000000-0000-0000-0000-000000000001\nPLUTO_PROJECT_TOML_CONTENTS = """\n[deps]\n"""\n\n'
    "# ╔═╡ Cell order:\n# ╠═be60ff23\n"
)  # fmt: skip
FILES = {
    "notebook.ipynb": _notebook(),
    "README.md": "# A model\n\n```python\nDense(9, 9)\n```\n\n```julia\njulia> m = Chain(Dense(3, 2))\n```\n",
    "pluto.jl": PLUTO,
}


@pytest.mark.parametrize("name", FILES)
def test_notebooks_and_markdown(name: str, tmp_path: Path) -> None:
    model = diptych.read(written(tmp_path, FILES[name], name))
    assert labels(model) == ["Dense 3 -> 2"]
    assert model.trained is False
    assert "not trained" in model.source.warnings[0]


def test_a_line_of_a_notebook(tmp_path: Path) -> None:
    text = _notebook().replace("Dense(n", "Dense(q")
    with pytest.raises(FormatError, match=r"n\.ipynb, cell 2, line 2: Dense\(q, 2\)"):
        diptych.read(written(tmp_path, text, "n.ipynb"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("python.ipynb", _notebook("python"), "of another language"),
        ("broken.ipynb", "{", "not JSON"),
        ("list.ipynb", "[]", "no cells"),
        ("plain.md", "# nothing\n", "no block of Julia"),
        ("binary.jl", "\0\1\2", "does not hold Julia source"),
        ("pointer.jl", "version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    ],
)
def test_files_that_hold_no_source(name: str, text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=message):
        diptych.read(written(tmp_path, text, name))


def test_source_cannot_be_written(tmp_path: Path) -> None:
    model = diptych.read(written(tmp_path, "m = Dense(1, 2)\n"))
    with pytest.raises(UsageError, match=r"out\.jl has the suffix"):
        diptych.write(model, tmp_path / "out.jl")


def test_initial_weights_are_the_same_each_time(tmp_path: Path) -> None:
    path = written(tmp_path, "m = Chain(Conv((3, 3), 1 => 4), BatchNorm(4), Dense(4, 2))\n")
    one, two = diptych.read(path).weights(), diptych.read(path).weights()
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert np.ptp(one["0.weight"]) > 0.1
    assert not one["0.bias"].any()
    assert (one["1.scale"] == 1).all()


# ---- Weights that fill it -------------------------------------------------------------------------------


def _close(model: diptych.Model, name: str) -> None:
    given = batch(np.load(GOLDEN / f"{name}_input.npy"))
    expected = batch(np.load(GOLDEN / f"{name}_output.npy"))
    np.testing.assert_allclose(diptych.predict(model, given, engine="numpy"), expected, rtol=1e-4, atol=2e-6)


SMALL = "flux-0.16.9/closure_small"


@pytest.mark.parametrize(
    "name", ["closure_small", "conv_options", "norms", "shared_bson", "tied_weights", "activations"]
)
def test_a_state_fills_source(name: str, tmp_path: Path) -> None:
    path = written(tmp_path, f"model = {SOURCES[f'flux-0.16.9/{name}']}\n")
    state = GOLDEN / "flux-0.16.9" / f"{name}_state.jld2"
    model = diptych.load_model(state, architecture=path, written_by="0.16.9")
    assert model.trained is None
    _close(model, f"flux-0.16.9/{name}")


def test_a_state_fills_a_module_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn
    layers = (
        nn.Conv2d(1, 2, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(18, 5),
        nn.LeakyReLU(0.2),
    )
    state = GOLDEN / f"{SMALL}_state.jld2"
    architecture = diptych.from_torch(nn.Sequential(*layers, nn.Softmax(1)).eval())
    _close(diptych.load_model(state, architecture=architecture), SMALL)
    other = diptych.from_torch(nn.Sequential(*layers[:4], nn.Linear(18, 7)).eval())
    with pytest.raises(FormatError, match=r"3×3×1×2, 2, >>5×18<<, 5;.*3×3×1×2, 2, >>7×18<<, 7"):
        diptych.load_model(state, architecture=other)


def test_a_file_whose_closures_have_no_code_is_filled_by_its_source(tmp_path: Path) -> None:
    """JLD2 stores the name of a closure alone; the source tells what it computes."""
    whole = GOLDEN / f"{SMALL}.jld2"
    with pytest.raises(FormatError, match="has no code in the file"):
        diptych.read(whole)
    path = written(tmp_path, f"model = {SOURCES[SMALL]}\n")
    _close(diptych.load_model(whole, architecture=path), SMALL)


def test_the_version_decides_for_source_too(tmp_path: Path) -> None:
    path = written(tmp_path, "m = Chain(Dense(2, 2), LayerNorm(2))\n")
    assert (
        labels(diptych.load_model(path, written_by="0.14"))[1]
        != labels(diptych.load_model(path, written_by="0.16.11"))[1]
    )
    guessed = diptych.load_model(path)
    assert any("--written-by" in text for text in guessed.source.warnings)
    assert not any(
        "--written-by" in text for text in diptych.load_model(path, written_by="0.16.9").source.warnings
    )


def test_a_pytorch_state_dict_fills_source(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
    torch.save(module.state_dict(), tmp_path / "w.pt")
    path = written(tmp_path, "m = Chain(Conv((3, 3), 1 => 4, relu), Flux.flatten, Dense(144 => 3))\n")
    model = diptych.load_model(tmp_path / "w.pt", architecture=path)
    x = np.random.default_rng(0).standard_normal((2, 1, 8, 8), np.float32)
    np.testing.assert_allclose(diptych.predict(model, x), module(torch.tensor(x)).detach().numpy(), atol=1e-5)


# ---- Closures without code ------------------------------------------------------------------------------

FUNCTIONS = {"#28#30": "flatten", "#29#31": "x -> leakyrelu(x, 0.2f0)"}


def test_what_a_closure_computes_can_be_said() -> None:
    whole = GOLDEN / f"{SMALL}.jld2"
    _close(diptych.load_model(whole, functions=FUNCTIONS), SMALL)
    _close(diptych.read(whole, functions={**FUNCTIONS, "#28#30": "x -> reshape(x, :, size(x, 4))"}), SMALL)


def test_closures_without_code_are_listed_with_what_they_may_be(tmp_path: Path) -> None:
    whole = GOLDEN / f"{SMALL}.jld2"
    with pytest.raises(FormatError) as refusal:
        diptych.read(whole)
    text = str(refusal.value)
    assert "#28#30 between MaxPool and Dense 5×18, perhaps flatten" in text
    assert "#29#31 that is the activation of Dense 5×18" in text
    assert "--function '#28#30=flatten'" in text
    command = ["convert", str(whole), str(tmp_path / "m.safetensors")]
    options = [part for name, meaning in FUNCTIONS.items() for part in ("--function", f"{name}={meaning}")]
    with pytest.raises(SystemExit) as done:
        main([*command, *options])
    assert done.value.code == 0
    _close(diptych.read(tmp_path / "m.safetensors"), SMALL)


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        ({"#1#2": "flatten"}, "those it has: #28#30, #29#31"),
        ({"#28#30": "fft"}, "'fft' is not understood"),
        ({"#28#30": "f(x"}, "is not understood"),
        ({"#28#30": "3"}, "is not understood"),
    ],
)
def test_what_is_said_wrongly_is_refused(functions: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        diptych.load_model(GOLDEN / f"{SMALL}.jld2", functions=functions)
