"""How a network learns a filter: a ladder of methods that stops at the first that meets the target."""

from diptych.filters.learning.ladder import learn
from diptych.filters.learning.problem import Candidate, Problem

__all__ = ["Candidate", "Problem", "learn"]
