"""Values that only exist while Julia source is evaluated; all others are those of `formats.julia`.

Layers are the same structs that a Flux file holds, so that `formats.flux` reads both alike. Their weights are
arrays without memory of their own (`np.broadcast_to`) until one model is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tree_sitter import Node

from diptych.errors import FormatError
from diptych.formats.julia import JuliaStruct
from diptych.formats.julia.expressions import Expression, Written

if TYPE_CHECKING:
    from diptych.formats.julia_source.evaluator import Evaluator

__all__ = [
    "COLON",
    "DRAWN",
    "Built",
    "Constructor",
    "Event",
    "Method",
    "Module",
    "NotUnderstood",
    "Own",
    "OwnType",
    "Pair",
    "Scope",
    "Unknown",
    "WrittenFunction",
]


# Keywords of layers that only draw the initial weights, or that change nothing but training.
DRAWN = frozenset(
    ("init", "initW", "initb", "initβ", "initγ", "init_weight", "init_bias", "init_scale", "init_state", "rng",
     "active", "name", "init_recurrent_weight")
)  # fmt: skip


class NotUnderstood(Exception):
    """A piece of source that cannot be evaluated.

    Args:
        why: A clause such as "n is not defined".
        node: The piece, whose line the message names; None where the caller adds it.
        hides_model: Whether the piece makes something of a model, which may be the model that is meant.
    """

    def __init__(self, why: str, node: Node | None = None, hides_model: bool = False) -> None:
        super().__init__(why)
        self.why, self.node, self.hides_model = why, node, hides_model


@dataclass(frozen=True, eq=False)
class Unknown:
    """The value of a name whose definition was not understood, such as data that is loaded."""

    why: str
    node: Node | None = None


@dataclass(frozen=True)
class Pair:
    """The pair `first => second`."""

    first: Any
    second: Any


@dataclass(frozen=True)
class Module:
    """A module such as `Flux` or `Flux.NNlib`."""

    name: str


@dataclass(frozen=True, eq=False)
class Constructor:
    """A type or function of Flux, Lux or Base that is computed here: (arguments, keywords) -> value."""

    name: str
    build: Callable[[list[Any], dict[str, Any]], Any]


COLON = Constructor(":", lambda arguments, keywords: None)


class Scope:
    """Names and their values, and the scope around."""

    def __init__(self, parent: Scope | None = None, label: str = "") -> None:
        self.names: dict[str, Any] = {}
        self.parent, self.label = parent, label

    def owner(self, name: str) -> Scope | None:
        """The innermost scope that has the name."""
        scope: Scope | None = self
        while scope is not None and name not in scope.names:
            scope = scope.parent
        return scope

    def assign(self, name: str, value: Any) -> None:
        """Sets a name where it is known below the global scope; otherwise here."""
        owner = self.owner(name)
        (owner if owner is not None and owner.parent is not None else self).names[name] = value


@dataclass(eq=False)
class Method:
    """One method of a function: its parameters and body as source.

    Attributes:
        parameters: (name, type or None, default or None, splatted) for each positional parameter.
        keywords: (name, default or None, splatted) for each keyword.
        body: The statements.
        node: The whole definition.
        owner: For `(m::VAE)(x) = ...`, the name of the value that is called.
        package: The package that it belongs to, if it is not the file's own.
    """

    name: str
    parameters: list[tuple[str, Node | None, Node | None, bool]]
    keywords: list[tuple[str, Node | None, bool]]
    body: list[Node]
    node: Node
    scope: Scope
    owner: str = ""
    package: str = ""

    @property
    def required(self) -> int:
        """The number of arguments that must be given."""
        return sum(1 for _, _, default, splat in self.parameters if default is None and not splat)


@dataclass(eq=False, repr=False)
class Built(JuliaStruct):
    """A layer, with the piece of source that makes it."""

    node: Node | None = None


@dataclass(eq=False, repr=False)
class _Followed(Written):
    """What is defined in the source and can be called. `bind` gives it the evaluator that follows it."""

    node: Node | None = None
    where: str = ""
    evaluator: Evaluator | None = None

    def bind(self, evaluator: Evaluator, where: str) -> None:
        """Sets what calls it, and where it is defined."""
        self.evaluator, self.where = evaluator, where

    def apply(self, arguments: Sequence[Expression]) -> Expression:
        """The expression that a call gives. Raises `FormatError` with the line that is not understood."""
        from diptych.formats.julia_source.operations import expression, plain

        assert self.evaluator is not None
        try:
            made = self.evaluator.call(self, [plain(a) for a in arguments], {}, self.node)
            if isinstance(made, Unknown):
                raise NotUnderstood(f"its result is not known{self.evaluator.because(made)}", self.node)
            return expression(made)
        except NotUnderstood as error:
            raise FormatError(self.evaluator.sentence(error)) from error


@dataclass(eq=False, repr=False)
class WrittenFunction(_Followed):
    """A function or closure defined in the source."""

    methods: list[Method] = field(default_factory=list)
    name: str = ""


@dataclass(eq=False, repr=False)
class OwnType:
    """A struct that the source defines.

    Attributes:
        fields: The name, type and default of each field.
        inner: The constructors inside the struct.
        calls: The methods `(m::VAE)(x) = ...`.
        keywords: Whether it is `@kwdef`.
    """

    name: str
    fields: list[tuple[str, Node | None, Node | None]]
    node: Node
    scope: Scope
    keywords: bool = False
    supertype: str = ""
    inner: list[Method] = field(default_factory=list)
    outer: list[Method] = field(default_factory=list)
    calls: list[Method] = field(default_factory=list)


@dataclass(eq=False, repr=False)
class Own(_Followed):
    """An instance of a struct that the source defines."""

    kind: OwnType | None = None

    def named(self) -> Mapping[str, Any]:
        """The fields by name."""
        return dict(zip(self.names, self.fields, strict=True))


@dataclass(frozen=True, eq=False)
class Event:
    """A layer that was assigned to a name: a model that the file may mean."""

    key: str
    value: Any
    node: Node
    calls: frozenset[str]
