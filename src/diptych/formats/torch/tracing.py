"""Makes a model from a `torch.nn.Module`, by way of the graph that `torch.fx` or `torch.export` traces.

`torch.fx` comes first, because it keeps the names of modules. What it cannot trace, or what is then not read, is given
to `torch.export`; operations of its graph that are not read are taken apart into those of core ATen. Reading only
follows shapes. Then the example is run through the module and the model, whose outputs must agree.
"""

from __future__ import annotations

import copy
import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from diptych.errors import DiptychError, ModelError, ShapeError, UnsupportedLayer, UsageError
from diptych.formats.attention import with_attention
from diptych.formats.graph import BATCH, first_or_merged, refusal
from diptych.formats.torch import modules as M
from diptych.formats.torch import primitives as P
from diptych.formats.torch import recurrent as R
from diptych.formats.torch.building import to_torch
from diptych.formats.torch.reading import Reader, chosen_output, first_line, known_name
from diptych.model import layers as L
from diptych.model.model import Model, Source
from diptych.model.validity import check_layers

__all__ = ["evaluating", "from_torch"]


def from_torch(module: Any, example: Any = None, output: str | int | None = None) -> Model:
    """The model that computes what a PyTorch module computes in evaluation mode.

    Args:
        module: Any `torch.nn.Module` with one input, or a `torch.export.ExportedProgram`. It is not changed.
        example: A batch that the module takes, float (N, C, H, W) or another shape, or whole numbers where it looks up
            rows of an `nn.Embedding`; an array or a tensor. It is needed
            for code that depends on sizes. With it, the outputs of the module and the model are compared.
        output: Which of several outputs the model gives: a key of the dictionary or an index of the tuple.

    Returns:
        The model. Weights are copied; shared ones remain shared.

    Raises:
        UnsupportedLayer: Names an operation that no layer can express.
        ModelError: The module cannot be traced, or the outputs differ by more than 1e-5 relative to the largest.
        ShapeError: The example is not a batch of real numbers.
        UsageError: `module` is not a `torch.nn.Module`.
    """
    if isinstance(module, torch.export.ExportedProgram):
        module = module.module()
    if isinstance(module, torch.jit.ScriptModule):
        raise UsageError(
            "from_torch takes the module that was scripted, not TorchScript: build it in Python and load the "
            "state_dict() of the script into it"
        )
    if isinstance(module, nn.DataParallel):
        module = module.module
    if not isinstance(module, nn.Module):
        raise UsageError(f"from_torch takes a torch.nn.Module, got {type(module).__name__}")
    batch = _example(module, example)
    with evaluating(module), torch.no_grad():
        checked = _in_full_precision(module)
        expected = None if batch is None else _run(checked, batch, output)
        chain = _chain(module, batch, output)
        model = _model(module, chain, batch)
        if batch is not None and expected is not None:
            _check(checked, model, batch, expected, output)
    return model


def _chain(module: nn.Module, batch: Tensor | None, output: str | int | None) -> L.Chain:
    """The layers, by the first way of tracing whose graph can be read; otherwise the error of the first that traces."""
    refused: ModelError | None = None
    for trace in (_traced, _exported, _taken_apart):
        if trace is not _traced and (batch is None or _is_exported(module)):
            break
        try:
            traced, own = trace(module, batch)
        except ModelError as error:
            refused = refused if isinstance(refused, UnsupportedLayer) else error
            continue
        read = partial(_read, traced, own, batch, output)
        try:
            chain = first_or_merged(read)
            check_layers(chain)
        except (UnsupportedLayer, ModelError) as error:
            if refused is None or not isinstance(refused, UnsupportedLayer):
                refused = error
            continue
        return with_attention(chain, None if batch is None else (BATCH, *batch.shape[1:]))
    assert refused is not None
    raise refused


def _read(
    traced: fx.GraphModule, own: int | None, batch: Tensor | None, output: str | int | None, merging: bool
) -> L.Chain:
    shape = None if batch is None else (BATCH, *batch.shape[1:])
    return Reader(traced, shape, merging, own, output).chain()


def _is_exported(module: nn.Module) -> bool:
    """Whether the module is that of a program of torch.export."""
    return isinstance(module, fx.GraphModule) and any(
        isinstance(node.target, torch._ops.OpOverload) for node in module.graph.nodes
    )


def _example(module: nn.Module, example: Any) -> Tensor | None:
    if example is None:
        return None
    given = example if isinstance(example, Tensor) else torch.tensor(np.asarray(example))
    if given.ndim < 2 or given.numel() == 0 or given.is_complex():
        raise ShapeError(f"the example must be a batch (N, C, ...) of real numbers, got {tuple(given.shape)}")
    own = next((p for p in module.parameters() if p.is_floating_point()), None)
    if _takes_numbers(module, given):
        return given if own is None else given.to(own.device)
    if own is None:
        return given.to(torch.float32)
    return given.to(own.device, torch.float64 if own.dtype == torch.float64 else torch.float32)


def _takes_numbers(module: nn.Module, given: Tensor) -> bool:
    """Whether a batch of whole numbers is one of indices, as embeddings take, and not of pixels."""
    if given.is_floating_point() or given.dtype == torch.bool:
        return False
    embeds = any(isinstance(m, nn.Embedding | nn.EmbeddingBag) for m in module.modules())
    if not embeds:
        return False
    with evaluating(module), torch.no_grad(), suppress(Exception):  # whatever the module's code raises
        module(given.float())
        return False
    return True


def _in_full_precision(module: nn.Module) -> nn.Module:
    """The module, or a float32 copy of a 16-bit one, since models compute in float32."""
    short = any(p.dtype in (torch.float16, torch.bfloat16) for p in module.parameters())
    return copy.deepcopy(module).float() if short else module


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Sets evaluation mode, and restores the mode of each submodule on exit."""
    modes = [(m, m.training) for m in module.modules()]
    with suppress(NotImplementedError):  # a program of torch.export has one mode
        module.eval()
    try:
        yield
    finally:
        for m, mode in modes:
            m.training = mode


def _model(module: nn.Module, chain: L.Chain, batch: Tensor | None) -> Model:
    source = Source("PyTorch module", "torch", str(torch.__version__))
    shape = None if batch is None else tuple(batch.shape[1:])
    record = getattr(module, "record", None)
    if isinstance(module, M.Network) and isinstance(record, Model):
        return record.with_(layers=chain, source=source, input_shape=record.input_shape or shape)
    return Model(chain, input_shape=shape, name=type(module).__name__, source=source)


def _run(module: nn.Module, batch: Tensor, output: str | int | None) -> Tensor:
    try:
        result = module(batch)
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        raise ModelError(f"the module does not take the example: {first_line(error)}") from error
    result = chosen_output(result, output)
    if not isinstance(result, Tensor):
        raise refusal("", "the module returns no tensor, a model returns one array", what="the output")
    return result.float().cpu()


def _check(
    module: nn.Module, model: Model, batch: Tensor, expected: Tensor, output: str | int | None
) -> None:
    """Compares module and model on the example; a batch of one also on two samples, to find mixing of samples."""
    again = to_torch(model)
    gap = _gap(again(batch.float().cpu()), expected)
    if len(batch) == 1:
        two = torch.cat([batch, batch.flip(-1)])
        with suppress(ModelError):  # the module may take only one sample
            gap = max(gap, _gap(again(two.float().cpu()), _run(module, two, output)))
    if not gap <= 1e-5:
        raise ModelError(
            f"the model read from {type(module).__name__} gives other numbers than the module: the largest "
            f"relative difference on the example is {gap:.2g}; the module does something that its graph does not "
            "show, such as a hook or an in-place operation"
        )


def _gap(result: Tensor, expected: Tensor) -> float:
    if result.shape != expected.shape:
        return float("inf")
    if torch.equal(result, expected):
        return 0.0
    return float((result - expected).abs().max() / max(1.0, float(expected.abs().max())))


# ---- Tracing ------------------------------------------------------------------------------------------


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if type(m).__module__ == M.__name__:
            return not isinstance(m, M.Network | M.SkipConnection | M.Parallel | M.Graph | M.Join)
        if type(m).__module__ in (P.__name__, R.__name__):
            return True
        return super().is_leaf_module(m, module_qualified_name)


Traced = tuple[fx.GraphModule, int | None]  # the graph, and the batch size that occurs in it as a number


def _traced(module: nn.Module, batch: Tensor | None) -> Traced:
    if _is_exported(module):
        assert isinstance(module, fx.GraphModule)
        return module, _recorded_batch(module)
    if type(module).__module__.startswith("torch.nn") and not isinstance(module, nn.Sequential):
        module = nn.Sequential(module)  # a single layer
    try:
        return fx.GraphModule(module, _Tracer().trace(module)), None
    except DiptychError:
        raise
    except Exception as error:  # the code of a module may raise anything when it is given symbols
        advice = "" if batch is not None else " without an example, give from_torch an example=batch"
        raise ModelError(
            f"{type(module).__name__} cannot be traced{advice}: torch.fx says {first_line(error)!r}"
        ) from error


def _recorded_batch(module: fx.GraphModule) -> int | None:
    first = next(node for node in module.graph.nodes if node.op == "placeholder")
    shape = getattr(first.meta.get("val"), "shape", (None,))
    return shape[0] if isinstance(shape[0], int) else None


@contextmanager
def _silent() -> Iterator[None]:
    """Keeps torch.export from printing the whole graph before it raises an error."""
    log = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    disabled, log.disabled = log.disabled, True
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        log.disabled = disabled


def _program(module: nn.Module, batch: Tensor | None) -> torch.export.ExportedProgram:
    """The program of torch.export, for a batch of `BATCH` samples, of which no memory is taken."""
    assert batch is not None
    own = next((p for p in module.parameters() if p.is_floating_point()), None)
    with FakeTensorMode(allow_non_fake_inputs=True):
        given = torch.empty(
            (BATCH, *batch.shape[1:]),
            dtype=own.dtype if own is not None and batch.is_floating_point() else batch.dtype,
            device=batch.device,
        )
    try:
        with _silent():
            return torch.export.export(module, (given,))
    except Exception as error:
        raise ModelError(
            f"neither torch.fx nor torch.export can trace {type(module).__name__}: {first_line(error)}"
        ) from error


def _exported(module: nn.Module, batch: Tensor | None) -> Traced:
    graph = _program(module, batch).module()
    assert isinstance(graph, fx.GraphModule)
    return graph, None


def _taken_apart(module: nn.Module, batch: Tensor | None) -> Traced:
    """The graph in which what is not read is taken apart into operations of core ATen."""
    table: Any = torch.export.default_decompositions()
    unread = {
        operation: rule
        for operation, rule in table.items()
        if not known_name(operation.name().partition("::")[2].partition(".")[0])
    }
    try:
        with _silent():
            graph = _program(module, batch).run_decompositions(unread).module()
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"torch.export cannot take {type(module).__name__} apart: {first_line(error)}"
        ) from error
    assert isinstance(graph, fx.GraphModule)
    return graph, None
