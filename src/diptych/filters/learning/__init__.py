"""How a network learns a filter: a ladder of methods that stops at the first that meets the target."""

from diptych.filters.learning.methods import learn
from diptych.filters.learning.task import Candidate, Task

__all__ = ["Candidate", "Task", "learn"]
