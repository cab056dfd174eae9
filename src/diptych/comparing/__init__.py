"""Two models side by side: where their layers part, and the likely cause, found by trying."""

from diptych.comparing.comparison import Comparison, FoundCause, LayerPair
from diptych.comparing.verb import compare

__all__ = ["Comparison", "FoundCause", "LayerPair", "compare"]
