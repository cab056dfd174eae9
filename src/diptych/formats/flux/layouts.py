"""The fields of Flux's structs, in order, for each version of Flux.

BSON.jl stores the values of a struct without their names, so the number of values decides which layout a file
has. The tables were taken from Flux's source code at every release from 0.8 to 0.16. A field has the name that
the newest version gives it: the W and b of a Dense layer (0.11 and before) are called `weight` and `bias` here.
"""

from __future__ import annotations

__all__ = ["LAYOUTS", "PARAMETERS", "fields_of", "fields_written", "parse_version"]

Version = tuple[int, ...]
Names = tuple[str, ...]

_CONV = ("σ", "weight", "bias", "stride", "pad", "dilation")
_GROUPED = (*_CONV, "groups")
_STATISTICS = ("λ", "β", "γ", "μ", "σ²", "ϵ", "momentum")
_TRACKED = (*_STATISTICS, "affine", "track_stats", "active", "chs")
_POOL = ("k", "pad", "stride")
_DENSE = ("weight", "bias", "σ")

# Each struct maps to its layouts, newest first: the first version that has the layout, and its fields. Where two
# layouts have the same length, a lookup by count finds the newer one, whose fields mean the same to Diptych.
LAYOUTS: dict[str, tuple[tuple[Version, Names], ...]] = {
    "Chain": (((0, 8), ("layers",)),),
    "Dense": (((0, 8), _DENSE),),
    "Conv": (((0, 12, 6), _GROUPED), ((0, 8), _CONV), ((0, 7), _CONV[:5])),
    "ConvTranspose": (
        ((0, 14, 17), (*_CONV[:5], "outpad", "dilation", "groups")),
        ((0, 12, 8), _GROUPED),
        ((0, 8), _CONV),
        ((0, 7), _CONV[:5]),
    ),
    "CrossCor": (((0, 9), _CONV),),
    "DepthwiseConv": (((0, 8, 3), _CONV), ((0, 8), _CONV[:5])),
    "BatchNorm": (((0, 12), _TRACKED), ((0, 10, 2), (*_STATISTICS, "active")), ((0, 10), _STATISTICS)),
    "InstanceNorm": (((0, 12), _TRACKED), ((0, 10, 2), (*_STATISTICS, "active")), ((0, 10), _STATISTICS)),
    "GroupNorm": (
        ((0, 12), ("G", *_TRACKED)),
        ((0, 10, 2), ("G", *_STATISTICS, "active")),
        ((0, 10), ("G", *_STATISTICS)),
    ),
    "LayerNorm": (((0, 12), ("λ", "diag", "ϵ", "size", "affine")), ((0, 8), ("diag",))),
    "Scale": (((0, 13), ("scale", "bias", "σ")),),
    "Diagonal": (((0, 8), ("scale", "bias")),),
    "Dropout": (
        ((0, 13), ("p", "dims", "active", "rng")),
        ((0, 9), ("p", "dims", "active")),
        ((0, 8), ("p", "active")),
    ),
    "AlphaDropout": (((0, 13), ("p", "active", "rng")), ((0, 8), ("p", "active")), ((0, 8), ("p",))),
    "MaxPool": (((0, 8), _POOL),),
    "MeanPool": (((0, 8), _POOL),),
    "AdaptiveMaxPool": (((0, 11), ("out",)),),
    "AdaptiveMeanPool": (((0, 11), ("out",)),),
    "GlobalMaxPool": (((0, 10, 4), ()),),
    "GlobalMeanPool": (((0, 10, 4), ()),),
    "SkipConnection": (((0, 9), ("layers", "connection")),),
    "Parallel": (((0, 12), ("connection", "layers")),),
    "PairwiseFusion": (((0, 13, 4), ("connection", "layers")),),
    "Maxout": (((0, 8), ("layers",)),),
    "Upsample": (((0, 12), ("scale", "size")),),
    "PixelShuffle": (((0, 12), ("r",)),),
    "Bilinear": (((0, 12), _DENSE),),
    "Embedding": (((0, 16, 11), ("weight", "padding_idx")), ((0, 12, 5), ("weight",))),
    "EmbeddingBag": (((0, 14), ("weight", "reduction")),),
    "WeightNorm": (((0, 16), ("layer", "g", "which", "dims")),),
    "Recur": (((0, 12), ("cell", "state")), ((0, 8), ("cell", "init", "state"))),
    "RNNCell": (
        ((0, 15), ("σ", "Wi", "Wh", "bias")),
        ((0, 12), ("σ", "Wi", "Wh", "b", "state0")),
        ((0, 8), ("σ", "Wi", "Wh", "b", "h")),
    ),
    "LSTMCell": (
        ((0, 15), ("Wi", "Wh", "bias")),
        ((0, 12), ("Wi", "Wh", "b", "state0")),
        ((0, 8), ("Wi", "Wh", "b", "h", "c")),
    ),
    "GRUCell": (
        ((0, 15), ("Wi", "Wh", "b")),
        ((0, 12), ("Wi", "Wh", "b", "state0")),
        ((0, 8), ("Wi", "Wh", "b", "h")),
    ),
    "GRUv3Cell": (
        ((0, 15), ("Wi", "Wh", "b", "Wh_h̃")),
        ((0, 12, 7), ("Wi", "Wh", "b", "Wh_h̃", "state0")),
    ),
    **dict.fromkeys(("RNN", "LSTM", "GRU", "GRUv3"), (((0, 15), ("cell",)),)),
    "Recurrence": (((0, 16), ("cell",)),),
    "MultiHeadAttention": (((0, 13, 15), ("nheads", "q_proj", "k_proj", "v_proj", "attn_drop", "out_proj")),),
}

# The type parameters of each struct, newest first: the field whose type a parameter is, except for "N", "M" and
# "S", which are numbers of axes, "mode", which is stored as a symbol, and "return_state", which is false.
PARAMETERS: dict[str, tuple[tuple[Version, Names], ...]] = {
    "Chain": (((0, 8), ("layers",)),),
    "Dense": (((0, 8), ("σ", "weight", "bias")),),
    "Conv": (((0, 8, 3), ("N", "M", "σ", "weight", "bias")),),
    "ConvTranspose": (((0, 8, 3), ("N", "M", "σ", "weight", "bias")),),
    "CrossCor": (((0, 9), ("N", "M", "σ", "weight", "bias")),),
    "DepthwiseConv": (((0, 8, 3), ("N", "M", "σ", "weight", "bias")),),
    "BatchNorm": (((0, 12), ("λ", "β", "ϵ", "μ")),),
    "InstanceNorm": (((0, 12), ("λ", "β", "ϵ", "μ")),),
    "GroupNorm": (((0, 14), ("λ", "β", "ϵ")), ((0, 12), ("λ", "β", "ϵ", "μ"))),
    "LayerNorm": (((0, 12), ("λ", "diag", "ϵ", "N")),),
    "Scale": (((0, 13), ("σ", "scale", "bias")),),
    "Diagonal": (((0, 8), ("scale",)),),
    "Dropout": (((0, 13), ("p", "dims", "rng")), ((0, 9), ("p", "dims"))),
    "AlphaDropout": (((0, 13), ("p", "rng")), ((0, 8), ("p",))),
    "MaxPool": (((0, 8, 3), ("N", "M")),),
    "MeanPool": (((0, 8, 3), ("N", "M")),),
    "AdaptiveMaxPool": (((0, 11), ("S", "N")),),
    "AdaptiveMeanPool": (((0, 11), ("S", "N")),),
    "SkipConnection": (((0, 12), ("layers", "connection")), ((0, 9), ())),
    "Parallel": (((0, 12), ("connection", "layers")),),
    "PairwiseFusion": (((0, 13, 4), ("connection", "layers")),),
    "Maxout": (((0, 8), ("layers",)),),
    "Upsample": (((0, 12), ("mode", "scale", "size")),),
    "Bilinear": (((0, 12), ("σ", "weight", "bias")),),
    "Embedding": (((0, 12, 5), ("weight",)),),
    "EmbeddingBag": (((0, 14), ("reduction", "weight")),),
    "WeightNorm": (((0, 16), ("layer", "g", "dims")),),
    "Recur": (((0, 12), ("cell", "state")), ((0, 8), ("cell",))),
    "RNNCell": (
        ((0, 15), ("σ", "Wi", "Wh", "bias")),
        ((0, 13, 7), ("σ", "Wi", "Wh", "b", "state0")),
        ((0, 12), ("σ", "Wi", "b", "state0")),
    ),
    "LSTMCell": (
        ((0, 15), ("Wi", "Wh", "bias")),
        ((0, 13, 7), ("Wi", "Wh", "b", "state0")),
        ((0, 12), ("Wi", "b", "state0")),
    ),
    "GRUCell": (
        ((0, 15), ("Wi", "Wh", "b")),
        ((0, 13, 7), ("Wi", "Wh", "b", "state0")),
        ((0, 12), ("Wi", "b", "state0")),
    ),
    "GRUv3Cell": (
        ((0, 15), ("Wi", "Wh", "b", "Wh_h̃")),
        ((0, 13, 7), ("Wi", "Wh", "b", "Wh_h̃", "state0")),
        ((0, 12), ("Wi", "b", "state0")),
    ),
    **dict.fromkeys(
        ("RNN", "LSTM", "GRU", "GRUv3"), (((0, 16, 1), ("return_state", "cell")), ((0, 15), ("cell",)))
    ),
    "Recurrence": (((0, 16, 1), ("return_state", "cell")), ((0, 16), ("cell",))),
    "MultiHeadAttention": (((0, 13, 15), ("q_proj", "attn_drop", "out_proj")),),
}


def fields_of(struct: str, count: int) -> Names | None:
    """The names of the fields of a struct that is stored with `count` values, or None if no version has that many."""
    return next((names for _, names in LAYOUTS.get(struct, ()) if len(names) == count), None)


def fields_written(struct: str, version: Version) -> Names | None:
    """The names of the fields that `version` of Flux gives a struct, or None if it does not have the struct."""
    return next((names for first, names in LAYOUTS.get(struct, ()) if version >= first), None)


def parse_version(text: str) -> Version | None:
    """The numbers in a version of two or three parts, or None: "0.12.1" gives (0, 12, 1), "0.16" gives (0, 16).

    (0, 16) is less than every (0, 16, n), so as a bound "0.16" means the first release of its line.
    """
    parts = text.split(".")
    if len(parts) not in (2, 3) or not all(part.isascii() and part.isdigit() for part in parts):
        return None
    return tuple(int(part[:6]) for part in parts)
