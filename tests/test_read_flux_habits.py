"""Models in the habits of people, written by real Flux 0.12.10, 0.13.4 and 0.16.9 with the outputs that it computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diptych
from diptych.engines import numpy as reference
from diptych.errors import FormatError
from flux_golden import GOLDEN, batch, close

HABITS = GOLDEN / "habits"
CASES = {
    case["name"]: case
    for case in json.loads((HABITS / "index.json").read_text())["cases"]
    if (HABITS / case["files"][0]).exists()
}
# What is not read, and by which words; each for every version.
REFUSED = {
    "custom_resblock": "ResBlock",  # a struct of the author's: the file holds no code for it
    "layer_macro_struct": "MyNet",
    "pad_closure": "pads the channels or the batch",
}


def read(name: str) -> Any:
    case = CASES[name]
    file = next(f for f in case["files"] if f.endswith((".bson", ".jld2")) and not f.endswith("_arch.bson"))
    architecture = HABITS / f"{name}_arch.bson"
    return diptych.load_model(
        HABITS / file, architecture=architecture if architecture.exists() else None, key=case.get("key")
    )


@pytest.mark.parametrize("name", CASES)
def test_it_gives_fluxs_numbers_or_is_refused(name: str) -> None:
    words = REFUSED.get(name.split("_", 1)[1])
    if words is not None:
        with pytest.raises(FormatError, match=words):
            read(name)
        return
    given, wanted = (batch(np.load(HABITS / f"{name}_{part}.npy")) for part in ("input", "output"))
    assert close(reference.compile(read(name))(given), wanted, 1e-5)


CLOSURES = (
    "skip_named_cat", "captured_vector_scale", "slice_channels", "slice_rows", "cat_self", "mean_then_size",
    "squeeze_dropdims", "clamp_closure", "glu", "se_block",
)  # fmt: skip


@pytest.mark.parametrize("name", [name for name in CASES if name.split("_", 1)[1] in CLOSURES])
@pytest.mark.parametrize("target", ["m.bson", "m.safetensors", "m.onnx"])
def test_it_is_written_again(name: str, target: str, tmp_path: Path) -> None:
    model = read(name)
    given = batch(np.load(HABITS / f"{name}_input.npy"))
    wanted = reference.compile(model)(given)
    diptych.convert(model.with_(input_shape=given.shape[1:]), tmp_path / target)
    assert close(reference.compile(diptych.load_model(tmp_path / target))(given), wanted, 1e-5)
