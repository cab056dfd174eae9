"""One run of a comparison: a model, the engine it runs on, and what it is given."""

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

__all__ = ["Change", "LayerOutput", "Run"]

Change: TypeAlias = Callable[[Array], Array]
"""A change of a batch or of an activation, such as mirroring it."""


@dataclass(frozen=True, eq=False)
class LayerOutput:
    """One layer's output.

    Attributes:
        path: The layer's path in the model that ran, or "input".
        shown: Its path in the user's model.
        layer: None for the input.
        value: float32 (N, ...).
        detail: Where in the user's layer the output is taken, such as "before its activation".
    """

    path: str
    shown: str
    layer: Layer | None
    value: Array
    detail: str = ""

    @property
    def top(self) -> int:
        """The number of the top-level layer that contains it; -1 for the input."""
        return -1 if self.layer is None else int(self.path.partition(".")[0])


@dataclass(frozen=True, eq=False)
class Run:
    """A model with its input: either a batch, or pictures with a recipe.

    Attributes:
        name: What the user calls the model.
        model: The model that runs.
        engine: The engine it runs on.
        given_batch: The batch, float32 (N, C, H, W), or None where pictures are given.
        images: uint8 (H, W, 3) or (H, W) each.
        recipe: What turns the pictures into a batch.
        adjustments: Changes of the batch, applied in order before the model sees it.
        view: Changes applied in reverse order to an activation (N, C, H, W) before it is compared, where a
            trial runs the model on turned pictures.
        origin: Path in `model` -> path in the user's model, where activations became layers of their own.
        before: An earlier run of a model whose first layers are the same, from which outputs are taken.
    """

    name: str
    model: Model
    engine: str
    given_batch: Array | None = None
    images: tuple[Array, ...] = ()
    recipe: Preprocessing | None = None
    adjustments: tuple[Change, ...] = ()
    view: tuple[Change, ...] = ()
    origin: Mapping[str, str] = field(default_factory=dict)
    before: Run | None = None

    def with_(self, **changes: Any) -> Run:
        """A copy with some fields replaced, which computes its outputs anew.

        If only the model is replaced, its first layers that are unchanged are not run again.
        """
        before = self if changes.keys() == {"model"} and not self.view else None
        return replace(self, **{"before": before, **changes})

    @cached_property
    def batch(self) -> Array:
        """What the model is given, float32 (N, C, H, W)."""
        if self.given_batch is not None:
            batch = self.given_batch
        else:
            assert self.recipe is not None
            batch = self.recipe.apply_batch(self.images)
        for adjust in self.adjustments:
            batch = adjust(batch)
        return np.ascontiguousarray(batch, dtype=np.float32)

    @cached_property
    def layers(self) -> dict[str, Layer]:
        """Every layer by its path."""
        return dict(self.model.walk())

    @cached_property
    def _whole(self) -> list[LayerOutput]:
        return self._outputs_of(self.model)

    def outputs(self, top: int | None = None) -> list[LayerOutput]:
        """The output of every layer but Chains, in the order of computation, up to top-level layer `top`."""
        if top is None or "_whole" in self.__dict__:
            return [output for output in self._whole if top is None or output.top <= top]
        return self._outputs_of(cut(self.model, top))

    def _outputs_of(self, model: Model) -> list[LayerOutput]:
        outputs = self._known(model)
        first = outputs[-1].top + 1 if outputs else 0
        before = outputs[-1].value if outputs else self.batch
        if first == len(model.layers.layers):
            return outputs
        if first:
            rest = Chain(model.layers.layers[first:], model.layers.names[first:])
            model = model.with_(layers=rest, input_shape=before.shape[1:], classes=None, preprocessing=None)
        for inner, raw in compiled_for(model, self.engine).trace(before).items():
            if "/" in inner:  # inside a graph that is run as a whole, where no layer corresponds
                continue
            top, _, below = inner.partition(".")
            path = f"{int(top) + first}.{below}" if below else str(int(top) + first)
            layer = self.layers[path]
            if isinstance(layer, Chain):
                continue
            value = self.viewed(raw)
            if self.view and isinstance(layer, Flatten):  # flattened from the picture turned back
                value = np.ascontiguousarray(self.viewed(before)).reshape(raw.shape)
            before = raw
            shown = self.origin.get(path, path)
            detail = "before its activation" if path in self.origin and path.endswith(".0") else ""
            outputs.append(LayerOutput(path, shown, layer, value, detail))
        return outputs

    def _known(self, model: Model) -> list[LayerOutput]:
        """The outputs of the first layers that are the same as in `before`, where that has been run."""
        if self.before is None:
            return []
        known = self.before.__dict__.get("_whole") or self.before._known(model)
        pairs = zip(model.layers.layers, self.before.model.layers.layers, strict=False)
        same = next((i for i, (a, b) in enumerate(pairs) if a is not b), len(model.layers.layers))
        outputs = [output for output in known if output.top < same]
        # An empty Chain has no output: what comes after it is computed with the rest.
        whole = {output.top for output in outputs}
        end = next((i for i in range(same) if i not in whole), same)
        return [output for output in outputs if output.top < end]

    def viewed(self, value: Array) -> Array:
        """The activation turned back, where this run has turned pictures."""
        if value.ndim == 4:
            for change in reversed(self.view):
                value = change(value)
        return value
