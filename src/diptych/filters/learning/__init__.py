"""Learn a filter: methods are tried in order until one reproduces it exactly or meets the goal."""

from diptych.filters.learning.methods import learn, together
from diptych.filters.learning.task import Candidate, Task

__all__ = ["Candidate", "Task", "learn", "together"]
