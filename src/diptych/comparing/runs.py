"""One side of a comparison: a model, the engine it runs on, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from diptych.comparing.editing import cut
from diptych.model.layers import Array, Chain, Flatten, Layer
from diptych.model.model import Model
from diptych.predicting import compiled_for
from diptych.preprocessing import Preprocessing

__all__ = ["Change", "Side", "Step"]

Change: TypeAlias = Callable[[Array], Array]


@dataclass(frozen=True, eq=False)
class Step:
    """One layer's output: its path in the model that ran, its path in the user's model, and the value."""

    path: str
    shown: str
    layer: Layer | None
    value: Array
    note: str = ""

    @property
    def top(self) -> int:
        """The number of the top-level layer that it belongs to; -1 for the input."""
        return -1 if self.layer is None else int(self.path.partition(".")[0])


@dataclass(frozen=True, eq=False)
class Side:
    """A model and its input, either pictures with a recipe or a batch as given.

    `adjustments` change the batch before the model sees it. `view` turns an activation (N, C, H, W) back
    before it is compared, where a try runs the model on turned pictures. `origin` maps paths to those of
    the model as the user knows it, where activations were set apart.
    """

    name: str
    model: Model
    engine: str
    given: Array | None = None
    pictures: tuple[Array, ...] = ()
    recipe: Preprocessing | None = None
    adjustments: tuple[Change, ...] = ()
    view: tuple[Change, ...] = ()
    origin: Mapping[str, str] = field(default_factory=dict)
    before: Side | None = None

    def with_(self, **changes: Any) -> Side:
        """A copy with some fields replaced; what was computed is computed anew.

        Where the model alone is another, layers in front that stayed the same are not run again.
        """
        before = self if changes.keys() == {"model"} and not self.view else None
        return replace(self, **{"before": before, **changes})

    @cached_property
    def batch(self) -> Array:
        """What the model is given, float32 (N, C, H, W)."""
        if self.given is not None:
            batch = self.given
        else:
            assert self.recipe is not None
            batch = self.recipe.apply_batch(self.pictures)
        for adjust in self.adjustments:
            batch = adjust(batch)
        return np.ascontiguousarray(batch, dtype=np.float32)

    @cached_property
    def layers(self) -> dict[str, Layer]:
        """Every layer by its path."""
        return dict(self.model.walk())

    @cached_property
    def _whole(self) -> list[Step]:
        return self._run(self.model)

    def steps(self, top: int | None = None) -> list[Step]:
        """Every output in the order of computation, Chains left out; up to top-level layer `top`."""
        if top is None or "_whole" in self.__dict__:
            return [step for step in self._whole if top is None or step.top <= top]
        return self._run(cut(self.model, top))

    def _run(self, model: Model) -> list[Step]:
        steps = self._known(model)
        first = steps[-1].top + 1 if steps else 0
        before = steps[-1].value if steps else self.batch
        if first == len(model.layers.layers):
            return steps
        if first:
            rest = Chain(model.layers.layers[first:], model.layers.names[first:])
            model = model.with_(layers=rest, input_shape=before.shape[1:], classes=None, preprocessing=None)
        for inner, raw in compiled_for(model, self.engine).trace(before).items():
            top, _, below = inner.partition(".")
            path = f"{int(top) + first}.{below}" if below else str(int(top) + first)
            layer = self.layers[path]
            if isinstance(layer, Chain):
                continue
            value = self.viewed(raw)
            if self.view and isinstance(layer, Flatten):  # the turned picture, flattened
                value = np.ascontiguousarray(self.viewed(before)).reshape(raw.shape)
            before = raw
            shown = self.origin.get(path, path)
            note = "before its activation" if path in self.origin and path.endswith(".0") else ""
            steps.append(Step(path, shown, layer, value, note))
        return steps

    def _known(self, model: Model) -> list[Step]:
        """The steps of the layers in front that are those of `before`, where it has been run."""
        if self.before is None:
            return []
        known = self.before.__dict__.get("_whole") or self.before._known(model)
        pairs = zip(model.layers.layers, self.before.model.layers.layers, strict=False)
        same = next((i for i, (a, b) in enumerate(pairs) if a is not b), len(model.layers.layers))
        steps = [step for step in known if step.top < same]
        # An empty Chain leaves no step: what comes after it is computed with the rest.
        whole = {step.top for step in steps}
        end = next((i for i in range(same) if i not in whole), same)
        return [step for step in steps if step.top < end]

    def viewed(self, value: Array) -> Array:
        """An activation turned back, where this side runs on turned pictures."""
        if value.ndim == 4:
            for change in reversed(self.view):
                value = change(value)
        return value
