"""Files that real Flux wrote, copied from its golden set, with the inputs and outputs it had."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diptych.formats import bson

GOLDEN = Path(__file__).parent / "golden"
BSON_FILES = sorted(GOLDEN.glob("flux-*/*.bson"))
VERSIONS = ("0.11.6", "0.12.1", "0.13.4", "0.16.9")

# What is refused, and by which words: several inputs or outputs, code that has no layer.
REFUSED = {
    "bilinear-0.16.9": "two inputs",
    "pairwise": "several outputs",
    "fn_misc": "permutedims",
    "fold_reshape": "permutedims",
    "embedding": "sum",
}
# Of these the input has several parts, which the file does not tell.
SEVERAL_INPUTS = {"parallel_multi"}


def file_name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def golden(name: str) -> dict[str, Any]:
    """The values of a BSON file, as in "flux-0.16.9/containers"."""
    return bson.load(GOLDEN / f"{name}.bson")


@dataclass(frozen=True)
class Case:
    version: str
    name: str

    @property
    def bson(self) -> Path:
        return GOLDEN / f"flux-{self.version}" / f"{self.name}.bson"

    @property
    def jld2(self) -> Path:
        return self.bson.with_suffix(".jld2")

    @property
    def state(self) -> Path:
        return self.bson.with_name(f"{self.name}_state.jld2")

    @property
    def refusal(self) -> str | None:
        return REFUSED.get(f"{self.name}-{self.version}", REFUSED.get(self.name))

    @property
    def input(self) -> Any:
        """Our order: (N, ...), a single vector as a batch of one."""
        return batch(np.load(self.bson.with_name(f"{self.name}_input.npy")))

    @property
    def output(self) -> Any:
        return batch(np.load(self.bson.with_name(f"{self.name}_output.npy")))

    @property
    def layers(self) -> dict[str, Any]:
        """The outputs of the layers of a Chain by our path: Flux counts from 1."""
        found = {}
        for file in sorted(self.bson.parent.glob(f"{self.name}_layer*.npy")):
            number = re.fullmatch(rf"{self.name}_layer(\d+)", file.stem)
            if number is not None:
                found[str(int(number[1]) - 1)] = batch(np.load(file))
        return found

    @property
    def tolerance(self) -> float:
        """1e-5 of the largest value, for 16-bit numbers what their rounding between layers takes."""
        return {"f16": 2e-3, "f16_dense": 1e-3, "f16_conv": 1e-3, "bf16": 2e-2}.get(self.name, 1e-5)

    def __str__(self) -> str:
        return f"{self.version}-{self.name}"


def batch(array: Any) -> Any:
    turned = np.ascontiguousarray(array.transpose())
    return turned[np.newaxis] if turned.ndim == 1 else turned


def cases() -> list[Case]:
    """Every case with an input of one part and an output."""
    found = []
    for version in VERSIONS:
        for file in sorted((GOLDEN / f"flux-{version}").glob("*.bson")):
            case = Case(version, file.stem)
            parts = (file.with_name(f"{file.stem}_{part}.npy").exists() for part in ("input", "output"))
            if all(parts):
                found.append(case)
    return found


def close(ours: Any, theirs: Any, tolerance: float) -> bool:
    if ours.shape != theirs.shape:
        return False
    wanted = theirs.astype(np.float64)
    return bool(np.abs(ours - wanted).max() <= tolerance * np.abs(wanted).max())
