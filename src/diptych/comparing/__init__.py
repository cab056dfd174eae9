"""Comparing two models layer by layer: where they differ first, and the likely cause, found by trying."""

from diptych.comparing.compare_models import compare
from diptych.comparing.comparison import Comparison, FoundCause, LayerPair

__all__ = ["Comparison", "FoundCause", "LayerPair", "compare"]
