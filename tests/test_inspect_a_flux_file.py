"""`diptych inspect` of models that came from Flux: as Flux shows them, and with what lies beside them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import diptych
from diptych import formats
from diptych.formats.flux.printing import as_flux
from diptych.model.layers import Chain, Connection, Dense, LayerNorm, MeanPool, Parallel
from diptych.model.model import Model, Source
from diptych.model.summary import summarise
from flux_golden import GOLDEN

# What Flux 0.16.9 showed for the models that it saved.
SHOWN = {
    "conv_options": (
        "Chain(Conv((3, 3), 2 => 4, relu, pad=1, stride=2), Conv((3, 5), 4 => 4, tanh, pad=(1, 0, 2, 3)), "
        "Conv((3, 3), 4 => 6, pad=2, dilation=2, bias=false), Conv((2, 4), 6 => 4, leakyrelu, pad=(1, 0, "
        "2, 1)), Conv((3, 3), 4 => 8, elu, pad=1, groups=2), Conv((3, 3), 8 => 16, relu, pad=1, "
        "groups=8), CrossCor((3, 3), 16 => 4, swish, pad=1, stride=(1, 2)), Conv((1, 1), 4 => 3, σ), "
        "Conv((3, 2), 3 => 2, pad=(2, 1), stride=(2, 1), dilation=(1, 2)))"
    ),
    "conv_1d": (
        "Chain(Conv((5,), 3 => 4, relu, pad=2), MaxPool((2,)), Conv((3,), 4 => 6, pad=(1, 2), stride=2, "
        "dilation=2), ConvTranspose((3,), 6 => 2, stride=2), CrossCor((3,), 2 => 2), GlobalMeanPool(), "
        "flatten)"
    ),
    "conv_3d": (
        "Chain(Conv((3, 3, 2), 1 => 3, relu, pad=(1, 1, 0)), MaxPool((2, 2, 1)), Conv((2, 2, 2), 3 => 2), "
        "MeanPool((2, 2, 2)), flatten)"
    ),
    "norms": (
        "Chain(Conv((3, 3), 2 => 4, pad=1), BatchNorm(4, relu), Conv((3, 3), 4 => 4, pad=1, bias=false), "
        "BatchNorm(4, affine=false), GroupNorm(4, 2, swish), InstanceNorm(4, tanh), InstanceNorm(4, "
        "affine=false), Dropout(0.5), BatchNorm(4, leakyrelu), AlphaDropout(0.1), GroupNorm(4, 4, "
        "affine=false), LayerNorm(6, 5), LayerNorm(6, tanh), LayerNorm(6, affine=false), InstanceNorm(4), "
        "BatchNorm(4), flatten, Dense(120 => 6), BatchNorm(6, σ), LayerNorm(6), Dropout(0.3, dims=1), "
        "normalise)"
    ),
    "norms_testmode": (
        "Chain(Dense(5 => 6), BatchNorm(6, relu, active=false), Dropout(0.4, active=false), LayerNorm(6), "
        "Dense(6 => 3), BatchNorm(3, affine=false, active=false), softmax)"
    ),
    "pools": (
        "Chain(MaxPool((3, 3), pad=1, stride=2), MeanPool((2, 3), pad=1, stride=(1, 2)), MaxPool((2, 2), "
        "pad=(0, 1, 1, 0), stride=1), MeanPool((3, 3), pad=1, stride=1), MaxPool((2, 2), pad=(1, 0, 1, "
        "0)), AdaptiveMaxPool((4, 3)), AdaptiveMeanPool((2, 2)))"
    ),
    "upsample": (
        "Chain(Upsample(:nearest, scale = 2), Upsample(:bilinear, scale = 2), Upsample(:nearest, scale = "
        "2), Conv((3, 3), 2 => 4, stride=2), PixelShuffle(2), Upsample(:bilinear, size = (20, 15)), "
        "Upsample(:nearest, size = (40, 30)), Upsample(:bilinear, scale = (0.5, 1)))"
    ),
    "scale": ("Chain(Scale(3, 4, relu; bias=false), Scale(3), Dense(3 => 3; bias=false), Scale(3, 1, tanh))"),
    "tied_weights": ("Chain(Dense(6 => 3, relu), Dense(3 => 6, tanh), Dense(6 => 3; bias=false))"),
    "embeddingbag": ("Chain(EmbeddingBag(11 => 5), Dense(5 => 4, tanh))"),
    "vector_chain": ("Chain([Dense(3 => 4, relu), Dense(4 => 4, tanh), Dense(4 => 2)])"),
    "dense_only": ("Dense(5 => 3, relu)"),
    "pool_globalmax": ("Chain(Conv((3, 3), 2 => 4), GlobalMaxPool(), flatten, Dense(4 => 2))"),
    "shared_bson": (
        "Chain(Dense(4 => 4, tanh), Dense(4 => 4, relu), Dense(4 => 4, tanh), Chain(Dense(4 => 4, tanh), "
        "SkipConnection(Dense(4 => 4, tanh), +)))"
    ),
    "bf16": (
        "Chain(Conv((3, 3), 1 => 3, relu, pad=1), MaxPool((2, 2)), flatten, Dense(27 => 4, tanh), Dense(4 "
        "=> 3))"
    ),
    "activations": (
        "Parallel(vcat, identity_ = Dense(6 => 4), relu_ = Dense(6 => 4, relu), relu6_ = Dense(6 => 4, "
        "relu6), leakyrelu_ = Dense(6 => 4, leakyrelu), elu_ = Dense(6 => 4, elu), selu_ = Dense(6 => 4, "
        "selu), celu_ = Dense(6 => 4, celu), gelu_ = Dense(6 => 4, gelu_tanh), gelu_tanh_ = Dense(6 => 4, "
        "gelu_tanh), gelu_sigmoid_ = Dense(6 => 4, gelu_sigmoid), gelu_erf_ = Dense(6 => 4, gelu_erf), "
        "swish_ = Dense(6 => 4, swish), hardswish_ = Dense(6 => 4, hardswish), lisht_ = Dense(6 => 4, "
        "lisht), mish_ = Dense(6 => 4, mish), softplus_ = Dense(6 => 4, softplus), softsign_ = Dense(6 => "
        "4, softsign), logsigmoid_ = Dense(6 => 4, logσ), logcosh_ = Dense(6 => 4, logcosh), tanhshrink_ "
        "= Dense(6 => 4, tanhshrink), softshrink_ = Dense(6 => 4, softshrink), trelu_ = Dense(6 => 4, "
        "trelu), sigmoid_ = Dense(6 => 4, σ), sigmoid_fast_ = Dense(6 => 4, sigmoid_fast), hardsigmoid_ = "
        "Dense(6 => 4, hardσ), hardtanh_ = Dense(6 => 4, hardtanh), tanh_ = Dense(6 => 4, tanh), "
        "tanh_fast_ = Dense(6 => 4, tanh_fast), σ_ = Dense(6 => 4, σ), hardσ_ = Dense(6 => 4, hardσ))"
    ),
}


@pytest.mark.parametrize("name", SHOWN)
def test_a_model_is_shown_as_flux_shows_it(name: str) -> None:
    model = formats.read(GOLDEN / "flux-0.16.9" / f"{name}.bson", flux_version="0.16.9")
    lines = [line.split("#")[0].strip() for line in as_flux(model).splitlines()]
    short = " ".join(lines).replace("( ", "(").replace("([ ", "([").replace(", )", ")").replace(", ])", "])")
    assert re.sub(r"\b(Flux|NNlib)\.", "", short) == SHOWN[name]


def test_parameters_stand_behind_the_layers() -> None:
    assert diptych.inspect(GOLDEN / "flux-0.16.9" / "ckpt.bson").flux == (
        "Chain(\n"
        "  Conv((3, 3), 1 => 2, relu, pad=1),    # 20 parameters\n"
        "  BatchNorm(2),                         # 4 parameters, plus 4\n"
        "  Flux.flatten,\n"
        "  Dense(18 => 3),                       # 57 parameters\n"
        "  NNlib.softmax,\n"
        ")                   # Total: 6 arrays, 81 parameters, plus 4"
    )


def test_what_only_an_older_flux_computes_is_shown_too() -> None:
    norm = LayerNorm((4,), np.ones(4, np.float32), np.ones(4, np.float32), 0.1, "std + eps")
    assert "LayerNorm(4)" in as_flux(Model(Chain((norm,))))


def test_what_no_flux_has_is_not_shown() -> None:
    pool = MeanPool((3, 3), (2, 2), ((1, 1), (1, 1)), count_padding=False)
    assert as_flux(Model(Chain((pool,)))) == ""


def test_functions_and_branches() -> None:
    dense = Dense(np.ones((3, 2), np.float32), activation=diptych.model.layers.Activation("elu", (0.5,)))
    text = as_flux(Model(Chain((Parallel(Connection("add"), (dense, Chain(()))),))))
    assert "Parallel(\n    +,\n    Dense(2 => 3, Base.Fix2(elu, 0.5f0); bias=false),  # 6 parameters" in text


def test_what_lies_beside_the_model_is_shown(diptych_command) -> None:
    file = GOLDEN / "flux-0.12.1" / "cont_dict.bson"
    text = diptych_command("inspect", file).out
    assert "\n\nIn Flux:\nChain(\n  Conv((3, 3), 1 => 4, relu),           # 40 parameters\n" in text
    assert "Source: BSON Flux 0.8 or later, before 0.12.6\n" in text
    assert "Beside the model:\n  losses: [0.5, 0.25, 0.125]\n  epoch: 3\n" in text
    document = json.loads(diptych_command("inspect", file, "--json").out)
    assert document["extras"] == {"losses": [0.5, 0.25, 0.125], "epoch": 3}
    assert document["flux"].startswith("Chain(\n")
    warned = diptych_command("inspect", GOLDEN / "flux-0.16.9" / "ckpt.bson").out
    assert "Warning: the file names 2 classes" in warned


def test_hints_for_our_own_writer_are_not_shown() -> None:
    model = formats.read(GOLDEN / "flux-0.12.1" / "cont_save_named.bson")
    assert "flux" in model.source.extras
    assert "flux" not in summarise(model).extras
    assert "Beside the model" not in summarise(model).text()


def test_long_values_are_cut_and_counted() -> None:
    extras = {"losses": [0.125] * 400, "text": "a\nb " * 100}
    lines = summarise(Model(Chain(()), source=Source(extras=extras))).text().splitlines()
    losses, text = (next(line for line in lines if line.startswith(f"  {key}:")) for key in extras)
    assert losses.endswith("... (400 values)")
    assert text.startswith("  text: a b a b")
    assert max(len(losses), len(text)) < 120


def test_a_model_from_elsewhere_has_no_flux_lines(tmp_path: Path) -> None:
    found = diptych.inspect("small-cnn-32")
    assert found.flux == ""
    assert found.to_document()["flux"] is None
    assert "In Flux" not in found.text()


def test_the_version_that_wrote_a_file_can_be_named(tmp_path: Path, diptych_command) -> None:
    source = GOLDEN / "flux-0.13.4" / "ln.bson"
    unsure = " ".join(diptych_command("inspect", source).out.split())
    assert "off by 1e-5 to 3e-5 of the largest value, and by 3e-3 or more where deviations are tiny" in unsure
    assert "--written-by" in unsure
    for version, formula in (
        ("0.14.2", "std + eps"),
        ("0.16.9", "sqrt(var + eps^2)"),
        ("0.16.11", "sqrt(var + eps)"),
    ):
        told = diptych_command("inspect", source, "--written-by", version)
        assert told.status == 0
        assert "--written-by" not in told.out
        target = tmp_path / "m.safetensors"
        assert diptych_command("convert", source, target, "--written-by", version).status == 0
        norms = [layer for _, layer in diptych.read(target).walk() if isinstance(layer, LayerNorm)]
        assert [norm.formula for norm in norms] == [formula]
    assert diptych_command("inspect", source, "--written-by", "new").status == 2
    refused = diptych_command("inspect", tmp_path / "m.safetensors", "--written-by", "0.14")
    assert (refused.status, "takes no option" in refused.err) == (2, True)
