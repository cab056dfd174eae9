"""Which versions of Flux can have written a file.

A file does not record the version, but its structs give bounds: a `Conv` with groups comes from 0.12.6 or later,
`Flux.Zeros` from 0.12 or before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from diptych.formats.flux.layouts import LAYOUTS, Version, parse_version
from diptych.formats.julia import JuliaDict, JuliaStruct
from diptych.model.layers import NormFormula

__all__ = ["Signs", "formula_unsure", "signs_of"]

_MOST = 200_000
# For each struct: the first version that has it, and the first one after that which does not.
_LIVES: dict[str, tuple[Version, Version]] = {
    "Diagonal": ((0, 8), (0, 13)),
    "Zeros": ((0, 11), (0, 13)),
    "DepthwiseConv": ((0, 8), (0, 13)),
    "Scale": ((0, 13), (1,)),
    "PairwiseFusion": ((0, 13, 4), (1,)),
    "Parallel": ((0, 12), (1,)),
    "Upsample": ((0, 12), (1,)),
    "PixelShuffle": ((0, 12), (1,)),
    "Bilinear": ((0, 12), (1,)),
    "EmbeddingBag": ((0, 14), (1,)),
    "WeightNorm": ((0, 16), (1,)),
    "MultiHeadAttention": ((0, 13, 15), (1,)),
    "Recur": ((0, 7), (0, 15)),
    **dict.fromkeys(("RNN", "LSTM", "GRU", "GRUv3"), ((0, 15), (1,))),
    "Recurrence": ((0, 16), (1,)),
    "GRUv3Cell": ((0, 12, 7), (1,)),
    "TrackedArray": ((0, 7), (0, 10)),
    "_GLOBAL_RNG": ((0, 12), (0, 14)),  # Julia 1.6 and before; Flux 0.14 needs 1.9
}
# The same for each struct with a given number of fields.
_COUNTS: dict[tuple[str, int], tuple[Version, Version]] = {
    ("Conv", 6): ((0, 8), (0, 12, 6)),
    ("Conv", 7): ((0, 12, 6), (1,)),
    ("ConvTranspose", 6): ((0, 8), (0, 12, 8)),
    ("ConvTranspose", 7): ((0, 12, 8), (0, 14, 17)),
    ("ConvTranspose", 8): ((0, 14, 17), (1,)),
    ("BatchNorm", 8): ((0, 8), (0, 12)),
    ("BatchNorm", 11): ((0, 12), (1,)),
    ("InstanceNorm", 8): ((0, 8), (0, 12)),
    ("GroupNorm", 9): ((0, 8), (0, 12)),
    ("LayerNorm", 1): ((0, 8), (0, 12)),
    ("LayerNorm", 5): ((0, 12), (1,)),
    ("Dropout", 3): ((0, 9), (0, 13)),
    ("Dropout", 4): ((0, 13), (1,)),
    ("AlphaDropout", 3): ((0, 13), (1,)),
    ("Embedding", 2): ((0, 16, 11), (1,)),
    ("Recur", 2): ((0, 12), (0, 15)),
    ("Recur", 3): ((0, 7), (0, 12)),
    ("Zeros", 0): ((0, 12), (0, 13)),
    ("Zeros", 1): ((0, 11), (0, 12)),
}


@dataclass(frozen=True)
class Signs:
    """What is known about the version of Flux that wrote a file: `low` <= version < `high`.

    `exact` is the version that the user named, `julia` the version of Julia where the file tells it.
    """

    low: Version = (0, 7)
    high: Version = (1,)
    exact: Version | None = None
    julia: Version | None = None

    @property
    def text(self) -> str:
        """The version as people read it: "0.16.9", "0.12 or later, before 0.13", "0.14.17 or later"."""
        if self.exact is not None:
            return ".".join(map(str, self.exact))
        low = ".".join(map(str, self.low)) if self.low > (0, 7) else ""
        if self.high >= (1,):
            return f"{low} or later" if low else ""
        return f"{low} or later, before {_dotted(self.high)}" if low else f"before {_dotted(self.high)}"

    @property
    def old_nnlib(self) -> bool:
        """Whether the file certainly belongs to NNlib 0.7.8 or before, which Flux 0.10 and before used."""
        return (self.exact or self.high) < (0, 11) if self.exact else self.high <= (0, 11)

    @property
    def nnlib_unsure(self) -> bool:
        """Whether the file may belong to either side of that change, as files of Flux 0.11 or before do."""
        return self.exact is None and not self.old_nnlib and self.low < (0, 11) and self.high <= (0, 12)

    def formula(self) -> tuple[NormFormula, bool]:
        """The divisor of LayerNorm and normalise, and whether it is certain.

        If the structs leave it open, a file from Julia 1.7 or later is taken to be from Flux 0.15 to 0.16.10.
        """
        if self.exact is not None:
            if self.exact < (0, 15):
                return "std + eps", True
            return ("sqrt(var + eps)" if self.exact >= (0, 16, 11) else "sqrt(var + eps^2)"), True
        if self.high <= (0, 15):
            return "std + eps", True
        if self.low >= (0, 16, 11):
            return "sqrt(var + eps)", True
        recent = self.low >= (0, 15) or (self.julia or (0,)) >= (1, 7)
        return ("sqrt(var + eps^2)" if recent else "std + eps"), False


def formula_unsure(name: str, formula: NormFormula) -> str:
    """The warning for a divisor that had to be guessed. The errors it states were measured on files of real Flux."""
    return (
        f"{name} is assumed to divide by {formula}: the file does not record its version of Flux, and other versions "
        "divide differently; if the guess is wrong, outputs of typical data are off by 1e-5 to 3e-5 of the largest "
        "value, and by 3e-3 or more where deviations are tiny; name the version that wrote the file with "
        "--written-by (flux_version=...)"
    )


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))


def signs_of(value: Any, exact: Version | None = None, julia: Version | None = None) -> Signs:
    """The bounds that all structs inside a value give together.

    `julia` is the version of Julia if the container records it; otherwise a closure may tell it. The walk visits
    each object once and stops after 200 000, so cycles and huge trees end.
    """
    low: Version = (0, 7)
    high: Version = (1,)
    stack, met = [value], {id(value)}
    while stack and len(met) < _MOST:
        item = stack.pop()
        if isinstance(item, JuliaStruct):
            for first, last in _bounds(item):
                low, high = max(low, first), min(high, last)
            julia = julia or _julia(item)
            inside: Any = item.fields if item.type.definition is None else ()
        elif isinstance(item, (list, tuple)):
            inside = item
        elif isinstance(item, dict):
            inside = item.values()
        elif isinstance(item, np.ndarray) and item.dtype == object:
            inside = item.ravel().tolist()
        else:
            inside = item.stored_values if isinstance(item, JuliaDict) else ()
        for part in inside:
            if id(part) not in met and isinstance(part, (JuliaStruct, list, tuple, dict, np.ndarray)):
                met.add(id(part))
                stack.append(part)
    if julia is not None and julia < (1, 10):
        high = min(high, (0, 15) if julia >= (1, 9) else (0, 14))  # 0.14 needs Julia 1.9, 0.15 needs 1.10
    return Signs(low, high, exact, julia) if low < high else Signs(exact=exact, julia=julia)


def _julia(item: JuliaStruct) -> Version | None:
    """The version of Julia that a closure's definition begins with, or that a random number generator implies."""
    definition = item.type.definition
    if isinstance(definition, JuliaStruct) and definition.fields and isinstance(definition.fields[0], str):
        return parse_version(definition.fields[0])
    return (1, 99) if item.type.name == "TaskLocalRNG" else None  # 1.7 or later


def _bounds(item: JuliaStruct) -> list[tuple[Version, Version]]:
    name, count = item.type.name, len(item.fields)
    found = [bounds for bounds in (_LIVES.get(name), _COUNTS.get((name, count))) if bounds is not None]
    if item.type.path[0] not in ("Flux", "Tracker", "Random"):
        return [((0, 16), (1,))] if name == "#gelu_tanh" else []
    if name == "GroupNorm" and count == 12:
        found.append(((0, 14), (1,)) if len(item.type.parameters) == 3 else ((0, 12), (0, 14)))
    if name == "LayerNorm" and count == 5:
        found.append(((0, 12), (0, 13)) if item.fields[1] is None else ((0, 12), (1,)))
    if name in ("Dense", "Conv") and count in (3, 6, 7):
        bias = item.fields[1 if name == "Dense" else 2]
        if bias is False:
            found.append(((0, 13), (1,)))
    if name in LAYOUTS and name == "SkipConnection" and not item.type.parameters:
        found.append(((0, 9), (0, 12)))
    return found
