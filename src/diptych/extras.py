"""Optional packages: what needs them, which extra installs them, and the error where one is missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from diptych.errors import MissingExtra

__all__ = ["EXTRAS", "imported"]

EXTRAS = {  # module: distribution, extra, what needs it
    "torch": ("torch", "torch", "what PyTorch reads, writes, runs or trains"),
    "halide": ("halide", "filters", "the engine halide"),
    "skimage": ("scikit-image", "filters", "a filter or photograph of scikit-image"),
    "pyarrow": ("pyarrow", "batch", "a table of many pictures"),
    "pandas": ("pandas", "batch", "to_pandas"),
    "openvino": ("openvino", "openvino", "the engine openvino"),
    "diffusers": ("diffusers", "diffusion", "a diffusers model"),
    "pillow_heif": ("pillow-heif", "heif", "a HEIC picture"),
    "zstandard": ("zstandard", "jld2", "a compressed .jld2 file"),
    "lz4": ("lz4", "jld2", "a compressed .jld2 file"),
    "ray": ("ray", "ray", "--on ray"),
    "timm": ("timm", "hub", "a network of timm"),
    "torchvision": ("torchvision", "hub", "a network of torchvision"),
    "huggingface_hub": ("huggingface-hub", "hub", "a model of the Hugging Face Hub"),
    "uvicorn": ("uvicorn", "web", "the server"),
    "httptools": ("httptools", "web", "the server"),
    "fastapi": ("fastapi", "web", "the server"),
    "starlette": ("starlette", "web", "the server"),
    "orjson": ("orjson", "web", "the server"),
    "scipy": ("scipy", "filters", "a filter of SciPy, or learning one from pairs,"),
}


def imported(name: str) -> Any:
    """Imports a module that is an optional package, or that imports one.

    Args:
        name: The full name, such as "diptych.engines.torch" or "scipy.ndimage".

    Raises:
        MissingExtra: The optional package is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in EXTRAS:
            raise
        raise MissingExtra(*EXTRAS[module]) from error
