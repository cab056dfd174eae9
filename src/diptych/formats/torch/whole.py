"""Modules that no layers express, exported to an ONNX graph that ONNX Runtime runs as it is."""

from __future__ import annotations

import io
import logging
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from diptych.errors import DiptychError, ModelError, UnsupportedLayer
from diptych.formats.torch.reading import chosen_output, first_line
from diptych.formats.torch.tracing import evaluating
from diptych.model.model import Model, Source

__all__ = ["as_whole"]

_MOST_BYTES = 2**31 - 2**24  # of weights in one ONNX file


class _One(nn.Module):
    """A module of which one output is taken."""

    def __init__(self, module: nn.Module, output: str | int | None) -> None:
        super().__init__()
        self.module, self.output = module, output

    def forward(self, x: Tensor) -> Any:
        """The chosen output."""
        return chosen_output(self.module(x), self.output)


Batches: TypeAlias = list[Any]  # arrays


def as_whole(
    module: nn.Module, example: Any, output: str | int | None, obstacle: ModelError
) -> tuple[Model, Batches, Batches]:
    """The model of a module that is run as it is.

    Args:
        module: The module.
        example: A batch that it takes, (N, ...).
        output: Which of several outputs is taken.
        obstacle: Why there are no layers.

    Returns:
        The model, batches to check it with, and what the module gives for them.

    Raises:
        UnsupportedLayer: It cannot be run so either, with the obstacle and the reason.
    """
    from diptych.formats.onnx import parsed_whole

    if sum(p.numel() * p.element_size() for p in module.parameters()) > _MOST_BYTES:
        raise _refused(obstacle, "its weights take more than 2 GiB")
    with evaluating(module), torch.no_grad():
        one = _One(module, output)
        sample = torch.as_tensor(np.asarray(example))[:1].to(torch.float32)
        other = torch.randn(sample.shape, generator=torch.Generator().manual_seed(0))
        try:
            expected = [one(batch).float().numpy() for batch in (sample, other)]
        except Exception:  # whatever the module's code raises: it takes no such batch
            raise obstacle from None
        why = ""
        for free in (True, False):  # with a batch of any size, or of one
            try:
                model = parsed_whole(_exported(one, sample, free), str(obstacle))
            except DiptychError as error:
                why = why or str(error).rpartition("nor can it be run as a whole: ")[2]
                continue
            except Exception as error:  # whatever PyTorch's exporter raises
                why = why or f"PyTorch cannot export it to ONNX ({first_line(error)[:200]})"
                continue
            source = Source("PyTorch module", "torch", str(torch.__version__), model.source.warnings)
            made = replace(model, name=type(module).__name__, source=source)
            return made, [sample.numpy(), other.numpy()], expected
    raise _refused(obstacle, why) from obstacle


def _exported(module: nn.Module, sample: Tensor, free: bool) -> bytes:
    stream: Any = io.BytesIO()
    axes = {"input": {0: "N"}, "output": {0: "N"}} if free else None
    log = logging.getLogger("torch.onnx")
    disabled, log.disabled = log.disabled, True
    own: Any = torch._C  # it prints the whole graph before it raises an error
    native = own._jit_is_onnx_log_enabled()
    own._jit_set_onnx_log_enabled(False)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module, (sample,), stream, input_names=["input"], output_names=["output"], dynamic_axes=axes,
                opset_version=17, dynamo=False,
            )  # fmt: skip
    finally:
        log.disabled = disabled
        own._jit_set_onnx_log_enabled(native)
    content: bytes = stream.getvalue()
    return content


def _refused(obstacle: ModelError, why: str) -> UnsupportedLayer:
    return UnsupportedLayer(
        "", "Diptych", f"{obstacle}; nor can it be run as a whole: {why}", what="the module"
    )
