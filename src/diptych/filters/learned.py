"""What learning gives: a model, and the report of how it was found and how good it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from diptych.model.model import Model
from diptych.preprocessing import Grey

__all__ = ["Attempt", "Learned", "LearningReport", "notes_of"]


@dataclass(frozen=True)
class Attempt:
    """One attempt on the way: which kind of network, with how many weights, how good, in what time."""

    name: str
    weights: int
    psnr: float
    seconds: float
    remark: str = ""


@dataclass(frozen=True)
class LearningReport:
    """How a filter was learned. PSNR in dB on whole held-out pictures, against the unrounded target.

    `scores` is `evaluating.Evaluation.to_document()`: PSNR pooled and per picture, SSIM, largest error in
    levels, share of identical pixels, and the constant, identity and best-linear baselines. `curve` holds
    (steps, loss, held-out PSNR) where something was trained. `stopped` says in words why it ended.
    """

    target: str
    reference: str
    method: str
    weights: int
    seconds: float
    psnr: float
    worst_psnr: float
    stopped: str
    methods: tuple[Attempt, ...] = ()
    scores: Mapping[str, Any] = field(default_factory=dict)
    curve: tuple[tuple[float, float, float], ...] = ()
    remarks: tuple[str, ...] = ()

    def to_document(self) -> dict[str, Any]:
        """Everything, JSON-able."""
        return asdict(self)

    def text(self) -> str:
        """A few lines for a terminal."""
        tried = ", ".join(f"{method.name} {method.psnr:.1f} dB" for method in self.methods)
        lines = [
            f"{self.target}: {self.method}, {self.weights} weights, {self.seconds:.2f} s",
            f"held-out PSNR {self.psnr:.2f} dB on average, {self.worst_psnr:.2f} dB at worst",
            f"stopped: {self.stopped}",
            *([f"tried: {tried}"] if len(self.methods) > 1 else []),
        ]
        return "\n".join([*lines, *self.remarks])


@dataclass(frozen=True, eq=False)
class Learned:
    """A learned filter: `.model` goes wherever a model goes, `.report` says how good it is."""

    model: Model
    report: LearningReport

    def save(self, path: str | Path) -> None:
        """Writes the model, in the format that the suffix names; the report travels in its notes.

        Raises what `diptych.write` raises.
        """
        from diptych import formats

        formats.write(self.model, path)


def grey_weights(model: Model) -> str:
    """How a filter of grey pictures has colour made grey: the weights of `preprocessing.Grey`."""
    steps = model.preprocessing.steps if model.preprocessing is not None else ()
    return next((step.weights for step in steps if isinstance(step, Grey)), "float")


def notes_of(model: Model) -> Mapping[str, Any]:
    """What a filter model says of itself: `LearningReport.to_document()`, "edge" and "per_channel".

    Nothing where it was not learned here; what somebody else wrote there may be of any kind.
    """
    notes = model.notes.get("filter")
    return notes if isinstance(notes, Mapping) else {}
