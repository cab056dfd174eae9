"""Attention of PyTorch as projections, products and a softmax, with masks that are added to the scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from diptych.formats.graph import Join, Value
from diptych.formats.torch.tensor_calls import Rule, TensorSite
from diptych.formats.views import FAR, Tensor, View
from diptych.model import layers as L
from diptych.model.layers import Activation, Dense

__all__ = ["ATTENTION", "multi_head"]


def multi_head(
    s: TensorSite,
    module: nn.MultiheadAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Any = None,
    need_weights: bool = True,
    attn_mask: torch.Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, None]:
    """The output of the module, and None in place of the weights of the attention.

    Raises:
        UnsupportedLayer: It adds keys and values of its own, or has a mask for each sample and head.
    """
    if module.bias_k is not None or module.add_zero_attn:
        s.refuse("no layer is an attention with further keys")
    given = [query, key, value]
    if not module.batch_first:
        given = [s.permute(x, (1, 0, 2)) for x in given]
    heads, width = module.num_heads, module.embed_dim
    biases: Any = [None] * 3 if module.in_proj_bias is None else module.in_proj_bias.chunk(3)
    if module._qkv_same_embed_dim:
        weights: Any = module.in_proj_weight.chunk(3)
    else:
        weights = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
    parts = []
    for x, weight, bias in zip(given, weights, biases, strict=True):
        dense = Dense(s.array(weight), None if bias is None else s.array(bias))
        projected = s.last(x, 1, dense)
        shape = s.shape(projected)
        split = s.reshape(projected, (*shape[:2], heads, width // heads))
        parts.append(s.permute(split, (0, 2, 1, 3)))
    q, k, v = parts
    mixed = _attend(s, q, k, v, _masks(s, attn_mask, key_padding_mask), 1 / math.sqrt(width // heads))
    joined = s.permute(mixed, (0, 2, 1, 3))
    flat = s.reshape(joined, (*s.shape(joined)[:2], width))
    out = module.out_proj
    result = s.last(flat, 1, Dense(s.array(out.weight), None if out.bias is None else s.array(out.bias)))
    return (result if module.batch_first else s.permute(result, (1, 0, 2))), None


def _masks(s: TensorSite, positions: Any, keys: Any) -> list[Any]:
    """What is added to the scores; in `nn.MultiheadAttention` a truth value leaves something out.

    Args:
        s: The place in the graph.
        positions: `attn_mask`, (queries, keys), or None.
        keys: `key_padding_mask`, (N, keys), or None.
    """
    masks = []
    if positions is not None:
        if len(positions.shape) == 3:
            s.refuse("no layer has a mask for each sample and head")
        masks.append(_left_out(positions))
    if isinstance(keys, torch.Tensor):
        same = bool((keys == keys[:1]).all())  # for every sample
        masks.append(_left_out((keys[:1] if same else keys).reshape(-1, 1, 1, keys.shape[1])))
    elif keys is not None:  # truth values that depend on the input, 0 and 1
        count, length = s.shape(keys)
        spread = s.reshape(keys, (count, 1, 1, length))
        masks.append(s.apply(spread, Activation("affine", (-FAR, 0.0))))
    return masks


def _left_out(mask: Any) -> Any:
    boolean = isinstance(mask, torch.Tensor) and mask.dtype == torch.bool
    return torch.where(mask, -FAR, 0.0) if boolean else mask


def _attention(
    s: TensorSite,
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(query keyᵀ scale + mask) value, over the last two axes."""
    if enable_gqa:
        s.refuse("no layer is an attention that groups its queries")
    masks = [] if attn_mask is None else [attn_mask]
    if is_causal:
        own = query.shape if isinstance(query, torch.Tensor) else s.shape(query)
        masks.append(torch.ones((own[-2], s.shape(key)[-2]), dtype=torch.bool).tril())
    return _attend(s, query, key, value, [_to_add(s, mask) for mask in masks], scale)


def _to_add(s: TensorSite, mask: Any) -> Any:
    """What is added to scores for a mask, which is true where something counts, if it is of truth values."""
    if isinstance(mask, torch.Tensor):
        return torch.where(mask, 0.0, -FAR) if mask.dtype == torch.bool else mask
    true = _is_true_or_false(mask.value if isinstance(mask, View) else mask)
    return s.apply(mask, Activation("affine", (FAR, -FAR))) if true else mask


def _is_true_or_false(value: Value) -> bool:
    """Whether a value was made by a comparison, and since then only negated, joined and rearranged."""
    made = value.made_by
    if isinstance(made, Activation):
        negated = made.name == "affine" and tuple(made.parameters) == (-1.0, 1.0)
        return made.name == "step" or (negated and _is_true_or_false(value.inputs[0]))
    kept = isinstance(made, L.Permute | L.Reshape | L.Slice | L.Expand | L.Flatten)
    joined = isinstance(made, Join) and made.operation in ("multiply", "maximum")
    return (kept or joined) and all(map(_is_true_or_false, value.inputs))


def _attend(
    s: TensorSite, query: Any, key: Any, value: Any, masks: Sequence[Any], scale: float | None = None
) -> Tensor:
    """softmax(query keyᵀ scale + masks) value, over the last two axes.

    Args:
        s: The place in the graph.
        query, key, value: (..., length, size).
        masks: Values or tensors, each added to the scores, (..., length of the queries, length of the keys).
        scale: 1 / sqrt(size) if None.
    """
    latent = isinstance(query, torch.Tensor)  # the same queries for every sample
    size = (query.shape if latent else s.shape(query))[-1]
    factor = 1 / math.sqrt(size) if scale is None else scale
    rank = s.rank(key)
    scaled = s.operand(query * factor) if latent else s.apply(query, Activation("affine", (factor, 0.0)))
    scores = s.matmul(scaled, s.permute(key, (*range(rank - 2), rank - 1, rank - 2)))
    for mask in masks:
        scores = s.combine("add", scores, s.operand(mask))
    return s.matmul(s.softmax(scores, -1, False), s.operand(value))


ATTENTION: dict[str, Rule] = {"scaled_dot_product_attention": _attention}
