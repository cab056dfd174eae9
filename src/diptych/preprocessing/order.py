"""Which orders of steps make sense. A recipe is checked when it is made, so that it cannot fail half-way later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diptych.errors import ModelError
from diptych.preprocessing.levels import Invert, Light, LowPass, Standardise
from diptych.preprocessing.steps import CentreCrop, Colour, Grey, Normalise, Resize, Scale, SpatialOrder

__all__ = ["check_order"]

_STEPS = (
    Grey,
    Colour,
    Invert,
    Light,
    LowPass,
    Resize,
    CentreCrop,
    Scale,
    Standardise,
    Normalise,
    SpatialOrder,
)


_LAST = (Normalise, Standardise, SpatialOrder)


def check_order(steps: Sequence[Any]) -> None:
    """Raises `ModelError` for a step that cannot follow the steps before it.

    The check follows through the recipe whether the pixels are still 8-bit, whether they are scaled to 0-1, and the
    number of channels if it is known.
    """
    eight_bit, scaled, finished, channels = True, False, "", 0
    for step in steps:
        if not isinstance(step, _STEPS):
            raise ModelError(
                f"a recipe is made of the steps {', '.join(s.__name__ for s in _STEPS)}, "
                f"but one of these is a {type(step).__name__}; make it of those"
            )
        _check_finished(step, finished)
        if isinstance(step, Grey | Resize):
            _check_rounding(step, eight_bit)
            eight_bit = eight_bit and (step.round if isinstance(step, Resize) else step.weights != "float")
        elif isinstance(step, Light | LowPass):
            eight_bit = False
        elif isinstance(step, Scale):
            if scaled:
                raise ModelError("a recipe with two Scale steps divides by 255 twice; leave one of them out")
            eight_bit, scaled = False, True
        elif isinstance(step, Normalise):
            _check_normalise(step, scaled, channels)
        elif isinstance(step, CentreCrop) and channels == 1 and len(step.fill) == 3:
            raise ModelError(
                "CentreCrop fills with three levels, but the recipe is grey at that point; give one level"
            )
        channels = {Grey: 1, Colour: 3}.get(type(step), channels)
        finished = type(step).__name__ if isinstance(step, _LAST) else finished


def _check_finished(step: Any, finished: str) -> None:
    """After Normalise or Standardise only SpatialOrder may come, and after SpatialOrder nothing."""
    if finished == "SpatialOrder":
        raise ModelError(
            f"SpatialOrder must be the last step, but {type(step).__name__} follows it; move it to the end"
        )
    if finished and not isinstance(step, SpatialOrder):
        raise ModelError(
            f"only SpatialOrder may follow {finished}, but {type(step).__name__} does; move it before {finished}"
        )


def _check_rounding(step: Grey | Resize, eight_bit: bool) -> None:
    if eight_bit:
        return
    if isinstance(step, Resize) and step.round:
        raise ModelError(
            "Resize with round=True expects 8-bit pixels, but a step before it has made them float32; "
            "write round=False, or move it before that step"
        )
    if isinstance(step, Grey) and step.weights != "float":
        raise ModelError(
            f"Grey({step.weights!r}) rounds 8-bit pixels, but a step before it has made them float32; "
            "write Grey('float'), or move it before that step"
        )


def _check_normalise(step: Normalise, scaled: bool, channels: int) -> None:
    if not scaled:
        raise ModelError(
            "Normalise expects pixels in 0-1, but no Scale comes before it; put Scale() before Normalise"
        )
    if channels == 1 and len(step.mean) == 3:
        raise ModelError(
            "Normalise has three means, but the recipe is grey at that point; give one mean and one std"
        )
