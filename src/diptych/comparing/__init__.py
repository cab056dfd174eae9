"""Two models side by side: where their layers part, and the likely cause, found by trying."""

from diptych.comparing.compare_models import compare
from diptych.comparing.comparison import Comparison, FoundCause, LayerPair

__all__ = ["Comparison", "FoundCause", "LayerPair", "compare"]
