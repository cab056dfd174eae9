"""Modules of PyTorch as models: layer by layer, or else as they are."""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych import engines
from diptych.errors import ModelError, ShapeError
from diptych.extras import imported
from diptych.model.model import Model

__all__ = ["from_torch"]

_TOLERANCE = 1e-4  # of the largest output


def from_torch(
    module: Any, example: Any = None, output: str | int | None = None, *, whole: bool = False
) -> Model:
    """The model that computes what a PyTorch module computes in evaluation mode.

    Args:
        module: Any `torch.nn.Module` with one input, or a `torch.export.ExportedProgram`. It is not changed.
        example: A batch that the module takes, float (N, C, H, W) or another shape, or whole numbers where it looks up
            rows of an `nn.Embedding`; an array or a tensor. It is needed for code that depends on sizes. With it, the
            outputs of the module and the model are compared.
        output: Which of several outputs the model gives: a key of the dictionary or an index of the tuple.
        whole: Whether a module that no layers express becomes a model all the same, which ONNX Runtime runs as it is:
            it predicts, is traced and compared; what needs layers is refused with every obstacle. Needs an example.

    Returns:
        The model. Weights are copied; shared ones remain shared.

    Raises:
        UnsupportedLayer: Names an operation that no layer can express.
        ModelError: The module cannot be traced, or the outputs of module and model differ.
        ShapeError: The example is not a batch of real numbers.
        UsageError: `module` is not a `torch.nn.Module`.
    """
    own = imported("diptych.formats.torch")
    try:
        model: Model = own.from_torch(module, example, output)
        return model
    except ModelError as error:  # no layers, or no way to trace it
        if not whole or example is None or isinstance(error, ShapeError):
            raise
        refused = error
    made, given, expected = own.as_whole(module, example, output, refused)
    compiled = engines.compile(made, "onnxruntime")
    for batch, wanted in zip(given, expected, strict=True):
        gap = np.abs(compiled(batch) - wanted).max() / max(1.0, float(np.abs(wanted).max()))
        if not gap <= _TOLERANCE:
            raise ModelError(
                f"{refused}; nor can it be run as a whole: its graph gives other numbers than the module, {gap:.2g} of "
                "the largest apart, as where its code decides by what it is given"
            )
    return made  # type: ignore[no-any-return]
