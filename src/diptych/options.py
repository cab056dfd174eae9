"""What a user may choose, as frozen values that the verbs hand on; every default stands here, once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from diptych.model.model import Model

__all__ = ["ReadOptions"]


@dataclass(frozen=True)
class ReadOptions:
    """What reading a model file needs to be told because the file itself does not say it.

    Attributes:
        architecture: what to fill where the file holds weights alone: a model, a file or a name.
        written_by: the version of Flux that wrote the file, such as "0.13.4", where versions compute
            differently and the file does not record its own.
        key: which of several models in a Flux file, such as "generator".
    """

    architecture: Model | str | Path | None = None
    written_by: str | None = None
    key: str | None = None

    def given(self) -> dict[str, Any]:
        """The options that are not None, by name."""
        options = {"architecture": self.architecture, "written_by": self.written_by, "key": self.key}
        return {name: value for name, value in options.items() if value is not None}
