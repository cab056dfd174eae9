"""The names of the engines, apart from the engines themselves: help texts list them and load no NumPy for it."""

from __future__ import annotations

__all__ = ["AUTOMATIC", "ENGINES", "FILTERS_ONLY"]

AUTOMATIC = ("onnxruntime", "torch", "numpy")
"""In the order `auto` tries them on a CPU: the fastest first (benchmarks/forward_pass.py), the reference last."""

FILTERS_ONLY = ("halide",)
"""Engines that run nothing but filters."""

ENGINES = (*AUTOMATIC, "openvino", *FILTERS_ONLY, "flux")
"""Every engine. Those that `auto` does not try are an extra, for filters only, or a Julia process."""
