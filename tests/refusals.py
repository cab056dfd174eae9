"""What comes of damaged input: a value, or a refusal in one sentence, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diptych.errors import FormatError, UnsupportedLayer

Refusal = FormatError | UnsupportedLayer  # a name changed by a byte may be an operation that is not known


def value_or_refusal(work: Callable[..., Any], *arguments: Any) -> Any:
    """What the work gives, or its refusal, of one short line; any other error fails the test."""
    try:
        return work(*arguments)
    except (FormatError, UnsupportedLayer) as error:
        refusal = error
    assert "\n" not in str(refusal)
    assert len(str(refusal)) < 1000
    return refusal
