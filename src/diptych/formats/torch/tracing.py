"""Makes a model from a `torch.nn.Module`, by way of the graph that `torch.fx` or `torch.export` traces.

Reading the graph only follows shapes. Then the example is run through the module and the model, whose outputs must
agree.
"""

from __future__ import annotations

import copy
import io
import logging
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from diptych.errors import DiptychError, ModelError, ShapeError, UsageError
from diptych.formats.graph import (
    BATCH,
    Operation,
    Shape,
    Transpose,
    Value,
    ValueGraph,
    first_or_merged,
    refusal,
    with_constant,
)
from diptych.formats.nesting import nested_steps
from diptych.formats.patterns import as_chain
from diptych.formats.torch import modules as M
from diptych.formats.torch.building import to_torch
from diptych.formats.torch.calls import CALLS
from diptych.formats.torch.layers import layers_of
from diptych.formats.torch.site import TorchSite, Weights
from diptych.model import layers as L
from diptych.model.layers import Activation
from diptych.model.model import Model, Source
from diptych.model.validity import check_layers

__all__ = ["from_torch"]


def from_torch(module: nn.Module, example: Any = None) -> Model:
    """The model that computes what a PyTorch module computes in evaluation mode.

    Args:
        module: Any module with one input and one output. It is not changed.
        example: A batch that the module takes, float (N, C, H, W) or another shape; an array or a tensor. It is needed
            for code that depends on sizes. With it, the outputs of the module and the model are compared.

    Returns:
        The model. Weights are copied; shared ones remain shared.

    Raises:
        UnsupportedLayer: Names an operation that no layer can express.
        ModelError: The module cannot be traced, or the outputs differ by more than 1e-5 relative to the largest.
        ShapeError: The example is not a batch of real numbers.
        UsageError: `module` is not a `torch.nn.Module`.
    """
    if not isinstance(module, nn.Module):
        raise UsageError(f"from_torch takes a torch.nn.Module, got {type(module).__name__}")
    batch = _example(module, example)
    with _evaluating(module), torch.no_grad():
        checked = _in_full_precision(module)
        expected = None if batch is None else _run(checked, batch)
        traced = _traced(module, batch)
        shape = None if batch is None else (BATCH, *batch.shape[1:])
        chain = first_or_merged(lambda merging: _Reader(traced, shape, merging).chain())
        check_layers(chain)
        model = _model(module, chain, batch)
        if batch is not None and expected is not None:
            _check(checked, model, batch, expected)
    return model


def _example(module: nn.Module, example: Any) -> Tensor | None:
    if example is None:
        return None
    given = example if isinstance(example, Tensor) else torch.tensor(np.asarray(example))
    if given.ndim < 2 or given.numel() == 0 or given.is_complex():
        raise ShapeError(f"the example must be a batch (N, C, ...) of real numbers, got {tuple(given.shape)}")
    own = next((p for p in module.parameters() if p.is_floating_point()), None)
    if own is None:
        return given.to(torch.float32)
    return given.to(own.device, torch.float64 if own.dtype == torch.float64 else torch.float32)


def _in_full_precision(module: nn.Module) -> nn.Module:
    """The module, or a float32 copy of a 16-bit one, since models compute in float32."""
    short = any(p.dtype in (torch.float16, torch.bfloat16) for p in module.parameters())
    return copy.deepcopy(module).float() if short else module


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Sets evaluation mode, and restores the mode of each submodule on exit."""
    modes = [(m, m.training) for m in module.modules()]
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


def _run(module: nn.Module, batch: Tensor) -> Tensor:
    try:
        result = module(batch)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ModelError(f"the module does not take the example: {_line(error)}") from error
    if not isinstance(result, Tensor):
        kind = f"{len(result)} values" if isinstance(result, tuple | list | dict) else "no tensor"
        raise refusal("", f"the module returns {kind}, a model returns one array", what="the output")
    return result.float().cpu()


def _check(module: nn.Module, model: Model, batch: Tensor, expected: Tensor) -> None:
    """Compares module and model on the example; a batch of one also on two samples, to find mixing of samples."""
    again = to_torch(model)
    gap = _gap(again(batch.float().cpu()), expected)
    if len(batch) == 1:
        two = torch.cat([batch, batch.flip(-1)])
        with suppress(ModelError):  # the module may take only one sample
            gap = max(gap, _gap(again(two.float().cpu()), _run(module, two)))
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


def _line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:200]


# ---- Tracing ------------------------------------------------------------------------------------------


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if type(m).__module__ == M.__name__:
            return not isinstance(m, M.Network | M.SkipConnection | M.Parallel | M.Graph | M.Join)
        return super().is_leaf_module(m, module_qualified_name)


def _traced(module: nn.Module, batch: Tensor | None) -> fx.GraphModule:
    if type(module).__module__.startswith("torch.nn") and not isinstance(module, nn.Sequential):
        module = nn.Sequential(module)  # a single layer
    try:
        return fx.GraphModule(module, _Tracer().trace(module))
    except DiptychError:
        raise
    except Exception as error:  # the code of a module may raise anything when it is given symbols
        if batch is None:
            raise ModelError(
                f"{type(module).__name__} cannot be traced without an example, give from_torch an "
                f"example=batch: torch.fx says {_line(error)!r}"
            ) from error
        return _exported(module, batch)


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


def _exported(module: nn.Module, batch: Tensor) -> fx.GraphModule:
    """The graph of torch.export, with the branches of the code that the example takes."""
    given = (
        torch.cat([batch, batch]) if len(batch) == 1 else batch
    )  # torch.export treats a size of 1 as fixed
    own = next((p for p in module.parameters() if p.is_floating_point()), None)
    given = given if own is None else given.to(own.dtype)
    try:
        with _silent():
            program = torch.export.export(module, (given,))
        graph = program.module()
    except Exception as error:
        raise ModelError(
            f"neither torch.fx nor torch.export can trace {type(module).__name__}: {_line(error)}"
        ) from error
    graph.meta["batch"] = len(given)
    assert isinstance(graph, fx.GraphModule)
    return graph


# ---- Reading ------------------------------------------------------------------------------------------

_JOINS = {
    **dict.fromkeys(("add", "iadd"), "add"),
    **dict.fromkeys(("sub", "isub", "subtract"), "subtract"),
    **dict.fromkeys(("mul", "imul", "multiply"), "multiply"),
    **dict.fromkeys(("truediv", "div", "divide", "itruediv"), "divide"),
    "maximum": "maximum",
}
_CONCATENATIONS = ("cat", "concat", "concatenate")


class _UnknownSizes:
    """The shape of a value of which only the batch axis is known."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getitem__(self, index: Any) -> int:
        if index == 0:
            return BATCH
        raise ModelError(
            f"{self._name} depends on the size of its input, which is not known: give from_torch an example=batch"
        )

    def __iter__(self) -> Iterator[int]:
        yield self[None]


class _Reader:
    def __init__(self, traced: fx.GraphModule, shape: Shape | None, merging: bool) -> None:
        self._traced = traced
        self._batch = traced.meta.get("batch")  # of the example, if the graph holds sizes as numbers
        self._graph, self._weights = ValueGraph(shape, merging), Weights()
        self._values: dict[fx.Node, Any] = {}
        self._made: dict[tuple[int, Any], list[Operation]] = {}
        self._inputs = 0

    def chain(self) -> L.Chain:
        for node in self._traced.graph.nodes:
            if node.op == "output":
                return as_chain(nested_steps(self._graph, self._output(node)))
            self._values[node] = self._read(node)
            changed = self._changed_in_place(node)
            if changed is not None:  # later operations use the new value
                self._values[changed] = self._values[node]
        raise ModelError("the module returns nothing")

    def _changed_in_place(self, node: fx.Node) -> fx.Node | None:
        """The node whose tensor an operation overwrites, such as `relu_(x)` or `nn.ReLU(inplace=True)`."""
        first = node.args[0] if node.args else None
        if not isinstance(first, fx.Node) or node.op not in ("call_module", "call_function", "call_method"):
            return None
        if node.op == "call_module":
            module = self._traced.get_submodule(str(node.target))
            return first if getattr(module, "inplace", False) is True else None
        name = _written_name(node)
        overwrites = name in _OVERWRITING or (name.endswith("_") and not name.endswith("__"))
        positional = node.op == "call_function" and _name(node) in _INPLACE_LAST and node.args[-1] is True
        return first if overwrites or positional or node.kwargs.get("inplace") is True else None

    def _output(self, node: fx.Node) -> Value:
        result = fx.node.map_arg(node.args[0], lambda n: self._values[n])
        if isinstance(result, tuple | list) and len(result) == 1:
            result = result[0]
        if not isinstance(result, Value):
            kind = f"{len(result)} values" if isinstance(result, tuple | list | dict) else "no tensor"
            raise refusal("", f"the module returns {kind}, a model returns one array", what="the output")
        return result

    def _read(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return self._placeholder(node)
        if node.op == "get_attr":
            return operator.attrgetter(str(node.target))(self._traced)
        given: Any = fx.node.map_arg((node.args, node.kwargs), lambda n: self._values[n])
        args, kwargs = given
        if node.op == "call_module":
            return self._module(node, args)
        if not _holds_value((args, kwargs)):
            return _computed(node, args, kwargs)
        name = _name(node)
        if name in ("getattr", "size", "dim", "sym_size", "device", "dtype"):
            return self._fact(node, name, args)
        if name == "getitem" and not isinstance(args[0], Value):
            return args[0][args[1]]
        return self._call(node, name, args, kwargs)

    def _placeholder(self, node: fx.Node) -> Any:
        self._inputs += 1
        if self._inputs == 1:
            return self._graph.input
        if node.args:
            return node.args[0]
        raise refusal(str(node.target), "a model takes one input", what="the input")

    def _module(self, node: fx.Node, args: Any) -> Any:
        module = self._traced.get_submodule(str(node.target))
        if not args:  # a check of its assumptions that torch.export adds
            return None
        name = f"{node.target} ({type(module).__name__})"
        if str(node.target) == "_guards_fn":
            return None
        if len(args) != 1 or node.kwargs or not isinstance(args[0], Value):
            raise refusal(name, "a layer takes one value and no further arguments")
        site = TorchSite(self._graph, self._weights, name, args[0])
        key = (id(module), args[0].shape)
        if key not in self._made:
            self._made[key] = layers_of(site, module)
        return self._applied(site, self._made[key])

    def _applied(self, site: TorchSite, layers: list[Operation]) -> Value:
        value = site.value
        for layer in layers:
            value = self._graph.apply(layer, value, site.name, _piece_shape(layer, value.shape))
        return value

    def _fact(self, node: fx.Node, name: str, args: Any) -> Any:
        value: Value = args[0]
        what = args[1] if len(args) > 1 else None
        if name == "getattr" and what not in ("shape", "ndim"):
            return None  # such as a type or a device
        if name == "dim" or what == "ndim":
            return len(TorchSite(self._graph, self._weights, node.name, value).known_shape())
        sizes: Any = _UnknownSizes(node.name) if value.shape is None else value.shape
        return sizes if name == "getattr" or what is None else sizes[what]

    def _call(self, node: fx.Node, name: str, args: Any, kwargs: Any) -> Value:
        if name in _CONCATENATIONS:
            return self._concatenation(node, args, kwargs)
        if name in ("pow", "float_power"):
            return self._power(node, *args)
        if name in _JOINS or name in ("rsub", "matmul", "mm"):
            return self._binary(node, name, args, kwargs)
        rule = CALLS.get(f"aten.{name}" if _is_aten(node) else name) or CALLS.get(name)
        args, kwargs = list(args), dict(kwargs)
        value = args.pop(0) if args else kwargs.pop("input", kwargs.pop("self", None))
        if rule is None or not isinstance(value, Value) or _holds_value((args, kwargs)):
            raise refusal(f"{node.name} ({name})", "there is no layer for it")
        site = TorchSite(self._graph, self._weights, f"{node.name} ({name})", value)
        if self._batch is not None and name in ("view", "reshape"):
            args[0] = [BATCH if i == 0 and n == self._batch else n for i, n in enumerate(args[0])]
        try:
            return self._applied(site, rule(site, *args, **kwargs))
        except (TypeError, LookupError, ValueError, ArithmeticError) as error:
            raise refusal(site.name, f"its arguments are not understood: {_line(error)}") from error

    def _concatenation(self, node: fx.Node, args: Any, kwargs: Any) -> Value:
        values = kwargs.get("tensors", args[0] if args else ())
        axis = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else 0))
        if not all(isinstance(v, Value) for v in values):
            raise refusal(f"{node.name} (cat)", "no layer joins a constant")
        rank = None if values[0].shape is None else len(values[0].shape)
        axis = axis % rank if rank else axis
        if axis == 0:
            raise refusal(f"{node.name} (cat)", "no layer joins along the batch axis")
        return self._graph.join("concatenate", list(values), f"{node.name} (cat)", axis)

    def _power(self, node: fx.Node, base: Any, exponent: Any) -> Value:
        name = f"{node.name} (pow)"
        if isinstance(base, Value) and exponent in (2, 3, 4):
            return self._graph.join("multiply", [base] * int(exponent), name)
        if isinstance(base, Value) and exponent == 0.5:
            return self._graph.apply(Activation("sqrt"), base, name)
        raise refusal(name, f"no layer raises to the power {exponent}")

    def _binary(self, node: fx.Node, name: str, args: Any, kwargs: Any) -> Value:
        where = f"{node.name} ({name})"
        if len(args) != 2 or kwargs.get("alpha", 1) != 1 or kwargs.get("rounding_mode"):
            raise refusal(where, "it must have two operands and no further arguments")
        a, b = args
        if name in ("matmul", "mm"):
            return self._product(where, a, b)
        if name == "rsub":
            a, b, name = b, a, "sub"
        operation = _JOINS[name]
        if isinstance(a, Value) and isinstance(b, Value):
            return self._graph.join(operation, [a, b], where)
        value, constant, flipped = (a, b, False) if isinstance(a, Value) else (b, a, True)
        site = TorchSite(self._graph, self._weights, where, value)
        array = site.weight(constant) if isinstance(constant, Tensor) else np.asarray(float(constant))
        layers = with_constant(operation, array, flipped)
        if layers is None:
            site.refuse("no layer does this with a constant")
        return self._applied(site, layers)

    def _product(self, where: str, a: Any, b: Any) -> Value:
        if not isinstance(a, Value) or not isinstance(b, Tensor) or b.ndim != 2:
            raise refusal(where, "only a product with a matrix of weights has a layer")
        weight = np.ascontiguousarray(self._weights.array(b, where).T)
        return self._graph.apply(L.Dense(weight), a, where)


def _piece_shape(layer: Operation, shape: Any) -> Any:
    if shape is None:
        return None
    if isinstance(layer, Transpose):
        return tuple(shape[axis] for axis in layer.order)
    axes = getattr(layer, "axes", None)
    if axes is None:
        return None
    keep = getattr(layer, "keep", True)
    return tuple(1 if i in axes else n for i, n in enumerate(shape) if keep or i not in axes)


def _is_aten(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload)


# Python's in-place operators, and functions whose last argument may be `inplace`.
_OVERWRITING = ("iadd", "isub", "imul", "itruediv")
_INPLACE_LAST = (
    "relu",
    "relu6",
    "silu",
    "mish",
    "hardswish",
    "hardsigmoid",
    "elu",
    "celu",
    "selu",
    "leaky_relu",
)


def _name(node: fx.Node) -> str:
    """The plain name of an operation: "relu" for F.relu, torch.relu_, x.relu() and aten.relu.default."""
    name = _written_name(node)
    return name if name.startswith("_") else name.rstrip("_")


def _written_name(node: fx.Node) -> str:
    """The name of an operation, with the final underscore of in-place operations."""
    target: Any = node.target
    if isinstance(target, str):
        name = target
    elif _is_aten(node):
        name = target.name().partition("::")[2].partition(".")[0]
    else:
        name = getattr(target, "__name__", str(target))
    return str(name)


def _holds_value(tree: Any) -> bool:
    if isinstance(tree, tuple | list):
        return any(map(_holds_value, tree))
    if isinstance(tree, dict):
        return any(map(_holds_value, tree.values()))
    return isinstance(tree, Value)


def _computed(node: fx.Node, args: Any, kwargs: Any) -> Any:
    """The result of an operation on shapes or weights."""
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    function: Callable[..., Any] = node.target  # type: ignore[assignment]
    try:
        return function(*args, **kwargs)
    except ModelError:
        raise
    except Exception as error:
        raise refusal(node.name, f"it cannot be computed: {_line(error)}") from error
