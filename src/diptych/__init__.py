"""Diptych: small vision models that give the same answer in PyTorch and in Julia's Flux.

Every public name is imported when it is first used, so that `import diptych` is fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diptych.extras import imported

__version__ = "0.2.0"

if TYPE_CHECKING:
    from diptych.certifying import Verification, verify
    from diptych.comparing import Comparison, compare
    from diptych.converting import convert
    from diptych.errors import DiptychError
    from diptych.explaining import Explanation, explain
    from diptych.formats import write
    from diptych.formats.torch import to_torch
    from diptych.images.generation import generate
    from diptych.images.opening import pixel_limit
    from diptych.inspecting import inspect
    from diptych.listing import list_models
    from diptych.loading import load_model, read
    from diptych.model.model import Model
    from diptych.model.trace import Trace
    from diptych.modules import from_torch
    from diptych.pipeline import run
    from diptych.predicting import predict, trace
    from diptych.preparing import preprocess
    from diptych.preprocessing import Preprocessing
    from diptych.report.features import features
    from diptych.training import Taught, train

__all__ = [
    "Comparison",
    "DiptychError",
    "Explanation",
    "Model",
    "Preprocessing",
    "Taught",
    "Trace",
    "Verification",
    "compare",
    "convert",
    "explain",
    "features",
    "from_torch",
    "generate",
    "inspect",
    "list_models",
    "load_model",
    "pixel_limit",
    "predict",
    "preprocess",
    "read",
    "run",
    "to_torch",
    "trace",
    "train",
    "verify",
    "write",
]

_DEFINED_IN = {
    "Comparison": "diptych.comparing",
    "DiptychError": "diptych.errors",
    "Explanation": "diptych.explaining",
    "Model": "diptych.model.model",
    "Preprocessing": "diptych.preprocessing",
    "Taught": "diptych.training",
    "Trace": "diptych.model.trace",
    "compare": "diptych.comparing",
    "Verification": "diptych.certifying",
    "convert": "diptych.converting",
    "explain": "diptych.explaining",
    "features": "diptych.report.features",
    "from_torch": "diptych.modules",
    "generate": "diptych.images.generation",
    "inspect": "diptych.inspecting",
    "list_models": "diptych.listing",
    "load_model": "diptych.loading",
    "pixel_limit": "diptych.images.opening",
    "predict": "diptych.predicting",
    "preprocess": "diptych.preparing",
    "read": "diptych.loading",
    "run": "diptych.pipeline",
    "to_torch": "diptych.formats.torch",
    "trace": "diptych.predicting",
    "train": "diptych.training",
    "verify": "diptych.certifying",
    "write": "diptych.formats",
}


# Submodules that the documentation uses by name: `diptych.preprocessing.named(...)`.
_SUBMODULES = (
    "datasets",
    "engines",
    "errors",
    "filters",
    "formats",
    "images",
    "loading",
    "model",
    "preprocessing",
)


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return imported(f"diptych.{name}")
    if name not in _DEFINED_IN:
        raise AttributeError(f"module 'diptych' has no attribute {name!r}")
    value = getattr(imported(_DEFINED_IN[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
