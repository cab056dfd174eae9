"""What the verbs that write files return."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diptych.files import as_text

__all__ = ["Outcome"]


@dataclass(frozen=True)
class Outcome:
    """What a verb wrote or found, and what the user should know about it.

    Attributes:
        document: The verb's own facts, JSON-able.
        paths: The files it wrote, in order.
        failures: One sentence for each picture that could not be read.
        remarks: Sentences to show beside the result.
    """

    document: dict[str, Any] = field(default_factory=dict)
    paths: tuple[Path, ...] = ()
    failures: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def to_document(self) -> dict[str, Any]:
        """The outcome as a JSON object."""
        written = {"files": [as_text(path) for path in self.paths]} if self.paths else {}
        return {**self.document, **written, "failures": list(self.failures), "remarks": list(self.remarks)}
