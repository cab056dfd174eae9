"""How a network learns a filter: a ladder of methods that stops at the first rung meeting the target."""

from diptych.filters.learning.problem import Candidate, Pair, Problem

__all__ = ["Candidate", "Pair", "Problem"]
