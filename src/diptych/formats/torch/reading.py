"""Reads a graph of `torch.fx` into a `ValueGraph`: every node in turn becomes a constant or a value."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves, tree_map

from diptych.errors import DiptychError, ModelError
from diptych.formats.graph import BATCH, Operation, Shape, Value, ValueGraph, refusal, shown
from diptych.formats.nesting import nested_steps
from diptych.formats.patterns import as_chain
from diptych.formats.torch.assigning import assigned
from diptych.formats.torch.attention import ATTENTION, multi_head
from diptych.formats.torch.calls import CALLS, several
from diptych.formats.torch.choosing import CHOICES
from diptych.formats.torch.einsum import einsum
from diptych.formats.torch.layers import layers_of
from diptych.formats.torch.reading_recurrent import ATEN_RECURRENT, LastStates, of_module
from diptych.formats.torch.recurrent import Whole
from diptych.formats.torch.site import TorchSite, Weights
from diptych.formats.torch.tensor_calls import TENSOR_CALLS, VIEW_CALLS, TensorSite
from diptych.formats.views import Tensor, View
from diptych.model import layers as L

__all__ = ["Reader", "known_name"]


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


class Reader:
    """Reads one traced module.

    Args:
        traced: The graph, with the modules and weights that it names.
        shape: Of the input, with `BATCH` as the batch size; None if no example was given.
        merging: As for `ValueGraph`.
        batch: The batch size for which the graph was recorded, if it holds sizes as numbers.
        output: Which output to read, where there are several: a key or an index.
    """

    def __init__(
        self,
        traced: fx.GraphModule,
        shape: Shape | None,
        merging: bool,
        batch: int | None = None,
        output: str | int | None = None,
    ) -> None:
        self._traced, self._batch, self._chosen = traced, batch, output
        self._graph, self._weights = ValueGraph(shape, merging), Weights()
        self._values: dict[fx.Node, Any] = {}
        self._made: dict[tuple[int, Any], list[Operation]] = {}
        self._inputs = 0

    def chain(self) -> L.Chain:
        """The layers. Raises `UnsupportedLayer` for an operation that none can express."""
        for node in self._traced.graph.nodes:
            if node.op == "output":
                return as_chain(nested_steps(self._graph, self._output(node)))
            self._values[node] = self._read(node)
            self._follow_changes(node)
        raise ModelError("the module returns nothing")

    def _inside(self, graph: fx.GraphModule, given: list[Any]) -> Any:
        """What a graph inside another one gives, such as the part of a module that computes in full precision."""
        outer, self._traced = self._traced, graph
        arguments = iter(given)
        for node in graph.graph.nodes:
            if node.op == "output":
                self._traced = outer
                return fx.node.map_arg(node.args[0], lambda n: self._values[n])
            self._values[node] = next(arguments) if node.op == "placeholder" else self._read(node)
            self._follow_changes(node)
        raise ModelError("a part of the module returns nothing")

    def _follow_changes(self, node: fx.Node) -> None:
        """Gives later operations the new value of what the node overwrites, also where that is a part of another."""
        changed = self._changed_in_place(node)
        if changed is None:
            return
        self._values[changed] = self._values[node]
        while changed is not None:
            part = _part_of(changed)
            whole = changed.args[0] if part is not None else None
            if not isinstance(whole, fx.Node) or not isinstance(
                self._values[whole], Value | View | torch.Tensor
            ):
                return
            index = fx.node.map_arg(part, lambda n: self._values[n])
            site = TensorSite(self._graph, self._weights, f"{node.name} ({_name(node)})", self._batch)
            self._values[whole] = assigned(site, self._values[whole], index, self._values[changed])
            changed = whole

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
        result: Any = fx.node.map_arg(node.args[0], lambda n: self._values[n])
        result = chosen_output(result, self._chosen)
        if isinstance(result, LastStates):
            result = result.stacked(TensorSite(self._graph, self._weights, "the output"))
        if isinstance(result, View):
            raise refusal("", "its batch is not the first axis", what="the output")
        if not isinstance(result, Value):
            raise refusal("", "it does not depend on the input", what="the output")
        return result

    def _read(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return self._placeholder(node)
        if node.op == "get_attr":
            return operator.attrgetter(str(node.target))(self._traced)
        given: Any = fx.node.map_arg((node.args, node.kwargs), lambda n: self._values[n])
        args, kwargs = given
        if args and isinstance(args[0], LastStates):
            chosen = args[0].chosen(_name(node), list(args[1:]))
            if chosen is not None:
                return chosen
        if not (args and isinstance(args[0], tuple | list) and _name(node) == "getitem"):
            args, kwargs = tree_map(partial(self._whole, node), (args, kwargs))
        if node.op == "call_module":
            return self._module(node, args, kwargs)
        if not _holds_value((args, kwargs)):
            return _computed(node, args, kwargs)
        name = _name(node)
        if name.startswith("_assert"):  # what the code checks of its arguments
            return None
        if name in ("wrap_with_autocast", "wrap_with_set_grad_enabled"):
            place = next(i for i, arg in enumerate(args) if isinstance(arg, fx.GraphModule))
            return self._inside(args[place], list(args[place + 1 :]))
        if name in ("getattr", "size", "dim", "sym_size", "device", "dtype"):
            return self._fact(node, name, args)
        if name == "setitem":
            return assigned(
                TensorSite(self._graph, self._weights, f"{node.name} ({name})", self._batch), *args
            )
        if name in ("copy", "fill", "zero"):
            return self._refilled(node, *args)
        if name == "index_put" and len(args) == 3 and len(args[1]) == 1:
            site = TensorSite(self._graph, self._weights, f"{node.name} ({name})", self._batch)
            return assigned(site, args[0], args[1][0], args[2])
        if name == "getitem" and not isinstance(args[0], Value | View):
            return args[0][args[1]]
        return self._call(node, name, args, kwargs)

    def _whole(self, node: fx.Node, leaf: Any) -> Any:
        if not isinstance(leaf, LastStates):
            return leaf
        return leaf.stacked(TensorSite(self._graph, self._weights, node.name, self._batch))

    def _refilled(self, node: fx.Node, x: Any, value: Any = 0.0, non_blocking: bool = False) -> Any:
        """`x.copy_(value)`, `x.fill_(value)` or `x.zero_()`: all of x becomes the value."""
        site = TensorSite(self._graph, self._weights, f"{node.name} ({_name(node)})", self._batch)
        if isinstance(value, Value | View):
            return assigned(site, x, (Ellipsis,), value)
        return torch.as_tensor(value, dtype=torch.float32).expand(tuple(x.shape))

    def _placeholder(self, node: fx.Node) -> Any:
        self._inputs += 1
        if self._inputs == 1:
            return self._graph.input
        if node.args:
            return node.args[0]
        raise refusal(str(node.target), "a model takes one input", what="the input")

    def _module(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        module = self._traced.get_submodule(str(node.target))
        if str(node.target) == "_guards_fn" or not (args or kwargs):  # checks that torch.export adds
            return None
        name = f"{node.target} ({type(module).__name__})"
        if not _holds_value((args, kwargs)):
            return _computed(node, args, kwargs, module)
        if isinstance(module, nn.MultiheadAttention):
            return multi_head(TensorSite(self._graph, self._weights, name), module, *args, **kwargs)
        if isinstance(module, nn.RNNBase) and not isinstance(module, Whole):
            return of_module(TensorSite(self._graph, self._weights, name), module, *args, **kwargs)
        if len(args) != 1 or kwargs or not isinstance(args[0], Value | View):
            raise refusal(name, "a layer takes one value and no further arguments")
        (x,) = args
        value = x.value if isinstance(x, View) else x
        site = TorchSite(self._graph, self._weights, name, value)
        by_tensor = _TENSOR_MODULES.get(type(module))
        if by_tensor is not None:
            return by_tensor(TensorSite(self._graph, self._weights, name), x, module)
        key = (id(module), value.shape)
        if key not in self._made:
            self._made[key] = layers_of(site, module)
        return self._applied(name, x, self._made[key])

    def _applied(self, name: str, x: Tensor, layers: list[Operation]) -> Tensor:
        """Layers applied to a value, or to a view if they do not look at its batch axis."""
        views = TensorSite(self._graph, self._weights, name)
        for layer in layers:
            if isinstance(x, Value):
                x = self._graph.apply(layer, x, name)
            elif isinstance(layer, L.Activation | L.Dropout):
                x = views.apply(x, layer)
            elif isinstance(layer, L.Dense | L.Bilinear):
                x = views.last(x, 1, layer)
            elif isinstance(layer, L.LayerNorm | L.RMSNorm):
                x = views.last(x, len(layer.shape), layer)
            else:
                x = views.by_channel(x, layer)
        return x

    def _fact(self, node: fx.Node, name: str, args: Any) -> Any:
        value: Tensor = args[0]
        what = args[1] if len(args) > 1 else None
        if name == "getattr" and what == "T":
            return TENSOR_CALLS["t"](TensorSite(self._graph, self._weights, node.name), value)
        if name == "getattr" and what == "mT":
            return TENSOR_CALLS["transpose"](TensorSite(self._graph, self._weights, node.name), value, -2, -1)
        if name == "getattr" and what not in ("shape", "ndim"):
            return None  # such as a type or a device
        if name == "dim" or what == "ndim":
            return len(TensorSite(self._graph, self._weights, node.name).shape(value))
        sizes: Any = _UnknownSizes(node.name) if value.shape is None else value.shape
        return sizes if name == "getattr" or what is None else sizes[what]

    def _call(self, node: fx.Node, name: str, args: Any, kwargs: Any) -> Any:
        where = f"{node.name} ({name})"
        name = "im2col" if node.target is nn.functional.unfold else name
        try:
            if name == "einsum":
                return einsum(TensorSite(self._graph, self._weights, where, self._batch), *args)
            by_tensor = _BY_TENSOR.get(name) or (VIEW_CALLS.get(name) if isinstance(args[0], View) else None)
            if by_tensor is not None:
                site = TensorSite(self._graph, self._weights, where, self._batch)
                more = dict(kwargs)
                first = [more.pop(key) for key in ("input", "self", "tensors") if key in more]
                return by_tensor(site, *first, *args, **more)
            return self._layered(node, name, where, args, kwargs)
        except DiptychError:
            raise
        except (TypeError, LookupError, ValueError, ArithmeticError, StopIteration, AttributeError) as error:
            raise refusal(where, f"its arguments are not understood: {first_line(error)}") from error

    def _layered(self, node: fx.Node, name: str, where: str, args: Any, kwargs: Any) -> Any:
        rule = CALLS.get(f"aten.{name}" if _is_aten(node) else name) or CALLS.get(name)
        args, kwargs = list(args), dict(kwargs)
        x = args.pop(0) if args else kwargs.pop("input", kwargs.pop("self", None))
        if rule is None or not isinstance(x, Value | View) or _holds_value((args, kwargs)):
            raise refusal(where, "there is no layer for it")
        site = TorchSite(self._graph, self._weights, where, x.value if isinstance(x, View) else x)
        result = self._applied(where, x, rule(site, *args, **kwargs))
        return several(name, result)


_BY_TENSOR: dict[str, Callable[..., Any]] = {**TENSOR_CALLS, **ATTENTION, **CHOICES, **ATEN_RECURRENT}


def chosen_output(result: Any, key: str | int | None) -> Any:
    """One output of those that a module returns: the only one, or that of a key or an index."""
    if isinstance(result, dict):
        if key is None and len(result) == 1:
            (key,) = result
        if key not in result:
            raise refusal("", _choose(result), what="the output")
        return chosen_output(result[key], None)
    if isinstance(result, tuple | list):
        listed = range(len(result))
        if key is None and len(result) == 1:
            key = 0
        if not isinstance(key, int) or key not in listed:
            raise refusal("", _choose(listed), what="the output")
        return chosen_output(result[key], None)
    return result


def _choose(keys: Any) -> str:
    listed = ", ".join(repr(key) for key in list(keys)[:12])
    return f"the module returns {len(keys)} values, a model returns one array: choose one with output= of {listed}"


def known_name(operation: str) -> bool:
    """Whether an operation of ATen, such as "conv2d", is read."""
    name = operation if operation.startswith("_") else operation.rstrip("_")
    return name in _BY_TENSOR or name in CALLS or f"aten.{name}" in CALLS


def first_line(error: BaseException) -> str:
    """The first line of an error's text."""
    return str(error).strip().partition("\n")[0][:200]


def _soft(log: bool) -> Callable[..., Tensor]:
    return lambda s, x, m: TENSOR_CALLS["log_softmax" if log else "softmax"](s, x, m.dim)


_TENSOR_MODULES: dict[type[nn.Module], Callable[..., Any]] = {
    nn.Flatten: lambda s, x, m: TENSOR_CALLS["flatten"](s, x, m.start_dim, m.end_dim),
    nn.Unflatten: lambda s, x, m: TENSOR_CALLS["unflatten"](s, x, m.dim, m.unflattened_size),
    nn.Unfold: lambda s, x, m: TENSOR_CALLS["im2col"](s, x, m.kernel_size, m.dilation, m.padding, m.stride),
    nn.Softmax: _soft(log=False),
    nn.LogSoftmax: _soft(log=True),
}


def _is_aten(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload)


# Python's in-place operators, and functions whose last argument may be `inplace`.
_OVERWRITING = ("iadd", "isub", "imul", "itruediv", "setitem")
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


def _part_of(node: fx.Node) -> Any:
    """The index of the part that a node is of its first argument, None if it is no part."""
    name = _name(node) if node.op in ("call_function", "call_method") else ""
    if name == "getitem":
        return node.args[1]
    dim = node.args[1] if len(node.args) > 1 else 0
    if not isinstance(dim, int) or dim < 0:
        return None
    if name == "select":
        return (*(slice(None),) * dim, node.args[2])
    if name == "slice":
        return (*(slice(None),) * dim, slice(*node.args[2:5]))
    return None


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
    return isinstance(tree, Value | View)


_MOST = 2**27  # numbers in a constant that is computed


def _computed(node: fx.Node, args: Any, kwargs: Any, module: nn.Module | None = None) -> Any:
    """The result of an operation, or of a module, on shapes or weights."""
    function = module or partial(_called, node)
    try:
        leaves = tree_leaves((args, kwargs))
        if any(_by_batch(leaf) for leaf in leaves):
            return _for_one_sample(node, function, args, kwargs)
        return function(*args, **kwargs)
    except ModelError:
        raise
    except Exception as error:
        raise refusal(node.name, f"it cannot be computed: {first_line(error)}") from error


def _called(node: fx.Node, *args: Any, **kwargs: Any) -> Any:
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    function: Callable[..., Any] = node.target  # type: ignore[assignment]
    return function(*args, **kwargs)


def _by_batch(leaf: Any) -> bool:
    """Whether a constant is as long as the placeholder of the batch."""
    if isinstance(leaf, torch.Tensor):
        return leaf.ndim > 0 and leaf.shape[0] == BATCH
    return isinstance(leaf, int) and leaf == BATCH


def _for_one_sample(node: fx.Node, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """The result for a batch of the placeholder's size, computed for one sample where all are the same.

    The whole would take gigabytes: relative positions, repeated for every sample, for example.
    """
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:  # the weights of a module are real
        faked = partial(_faked, mode)
        given, named = tree_map(faked, (args, kwargs))
        fake = function(*given, **named)
    if not isinstance(fake, torch.Tensor):
        return function(*args, **kwargs)
    if fake.shape[:1] == (BATCH,):
        small_args, small_kwargs = tree_map(_one_sample, (args, kwargs))
        with suppress(Exception):  # then it does not treat samples alike
            one = function(*small_args, **small_kwargs)
            if tuple(one.shape) == (1, *fake.shape[1:]):
                return one.expand(BATCH, *one.shape[1:])
    if fake.numel() > _MOST:
        raise refusal(node.name, f"its constant would have the shape {shown(tuple(fake.shape))}")
    return function(*args, **kwargs)


def _faked(mode: FakeTensorMode, leaf: Any) -> Any:
    return mode.from_tensor(leaf) if isinstance(leaf, torch.Tensor) else leaf


def _one_sample(leaf: Any) -> Any:
    if isinstance(leaf, torch.Tensor):
        return leaf[:1] if _by_batch(leaf) and leaf.stride(0) == 0 else leaf
    return 1 if _by_batch(leaf) else leaf
