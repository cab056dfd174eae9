"""From a picture to a model's input: an ordered, immutable recipe, the same bytes on every platform."""

from diptych.preprocessing.levels import Invert, Light, LowPass, Standardise
from diptych.preprocessing.named import NAMES, named
from diptych.preprocessing.recipe import Preprocessing
from diptych.preprocessing.resize import KERNELS
from diptych.preprocessing.steps import (
    CentreCrop,
    Colour,
    Grey,
    Normalise,
    RecipeStep,
    Resize,
    Scale,
    SpatialOrder,
)

__all__ = [
    "KERNELS",
    "NAMES",
    "CentreCrop",
    "Colour",
    "Grey",
    "Invert",
    "Light",
    "LowPass",
    "Normalise",
    "Preprocessing",
    "RecipeStep",
    "Resize",
    "Scale",
    "SpatialOrder",
    "Standardise",
    "named",
]
