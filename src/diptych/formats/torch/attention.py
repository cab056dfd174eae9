"""`nn.MultiheadAttention` as projections, products and a softmax."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from diptych.formats.torch.tensor_calls import TensorSite, attention
from diptych.formats.views import Tensor
from diptych.model.layers import Dense

__all__ = ["multi_head"]


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
        UnsupportedLayer: It adds keys and values of its own, or masks some of them.
    """
    if module.bias_k is not None or module.add_zero_attn or key_padding_mask is not None or is_causal:
        s.refuse("no layer is an attention with further keys, or with a mask of keys")
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
    if attn_mask is not None and attn_mask.ndim == 3:
        s.refuse("no layer has a mask for each sample")
    q, k, v = parts
    mixed = attention(s, q, k, v, attn_mask, scale=1 / math.sqrt(width // heads))
    joined = s.permute(mixed, (0, 2, 1, 3))
    flat = s.reshape(joined, (*s.shape(joined)[:2], width))
    out = module.out_proj
    result = s.last(flat, 1, Dense(s.array(out.weight), None if out.bias is None else s.array(out.bias)))
    return (result if module.batch_first else s.permute(result, (1, 0, 2))), None
