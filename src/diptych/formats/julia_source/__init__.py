"""Julia source as the architecture of a model: scripts, notebooks of Jupyter and Pluto, Markdown with Julia blocks.

The source is parsed and never executed: `evaluator.py` evaluates the part of Julia that architectures are written in.
The layers are the structs that a Flux file would hold, and `formats.flux` reads them.
"""

from diptych.formats.julia_source.files import read

__all__ = ["read"]
