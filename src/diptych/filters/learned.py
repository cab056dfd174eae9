"""The results of learning: a model, and the report of how it was found and how good it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from diptych import display
from diptych.model.model import Model
from diptych.preprocessing import Grey

__all__ = ["Attempt", "Learned", "LearningReport", "notes_of"]


@dataclass(frozen=True)
class Attempt:
    """One attempt of the search.

    Attributes:
        name: The method.
        weights: The number of weights of its network.
        psnr: The PSNR in dB of all held-out pictures together.
        seconds: The time it took.
        remark: A sentence about the network.
        worst_psnr: The smallest PSNR in dB of a held-out picture.
    """

    name: str
    weights: int
    psnr: float
    seconds: float
    remark: str = ""
    worst_psnr: float = 0.0


@dataclass(frozen=True)
class LearningReport:
    """How a filter was learned, and how good the result is on whole held-out pictures.

    Attributes:
        target: The filter's name.
        reference: The same filter in a public library.
        method: The method that found the network.
        weights: The number of weights.
        seconds: The time that learning took.
        psnr: The PSNR in dB of all pictures together against the unrounded target.
        worst_psnr: The smallest PSNR in dB of a picture.
        stopped: Why the search ended, in words.
        verdict: One of `verdicts.VERDICTS`.
        methods: All attempts, in order.
        scores: `FilterEvaluation.to_document()`: PSNR pooled and for each picture, SSIM, largest error in levels,
            share of identical pixels, and the baselines.
        curve: (steps, loss, held-out PSNR) over the training; empty without training.
        remarks: Sentences for the user.
    """

    target: str
    reference: str
    method: str
    weights: int
    seconds: float
    psnr: float
    worst_psnr: float
    stopped: str
    verdict: str = ""
    methods: tuple[Attempt, ...] = ()
    scores: Mapping[str, Any] = field(default_factory=dict)
    curve: tuple[tuple[float, float, float], ...] = ()
    remarks: tuple[str, ...] = ()

    def to_document(self) -> dict[str, Any]:
        """All fields, as values that JSON can hold."""
        return asdict(self)

    def text(self) -> str:
        """A few lines for a terminal."""
        tried = ", ".join(f"{method.name} {method.psnr:.1f} dB" for method in self.methods)
        lines = [
            f"{self.target}: {self.verdict}, by {self.weights} weights ({self.method}), in {self.seconds:.2f} s",
            f"held-out PSNR {self.psnr:.2f} dB over all pictures, {self.worst_psnr:.2f} dB for the worst",
            f"stopped: {self.stopped}",
            *([f"tried: {tried}"] if len(self.methods) > 1 else []),
        ]
        return "\n".join([*lines, *self.remarks])


@dataclass(frozen=True, eq=False)
class Learned:
    """A learned filter.

    Attributes:
        model: The network, which can be used wherever a model can.
        report: How it was learned, and how good it is.
    """

    model: Model
    report: LearningReport

    def _repr_html_(self) -> str:
        return "".join(map(display.paragraph, self.report.text().splitlines()))

    def save(self, path: str | Path) -> None:
        """Writes the model to a file; the report is kept in its notes.

        Args:
            path: The file; its suffix is the format.

        Raises:
            OutputError: The file cannot be written.
            UsageError: The suffix is not that of a format.
            UnsupportedLayer: The format cannot express the model.
        """
        from diptych import formats

        formats.write(self.model, path)


def grey_weights(model: Model) -> str:
    """How a filter of grey pictures makes colour grey: the weights of `preprocessing.Grey`."""
    steps = model.preprocessing.steps if model.preprocessing is not None else ()
    return next((step.weights for step in steps if isinstance(step, Grey)), "float")


def notes_of(model: Model) -> Mapping[str, Any]:
    """The notes that learning left in a model; empty for other models.

    They are `LearningReport.to_document()` with "edge" and "per_channel". Notes that others wrote may hold anything.
    """
    notes = model.notes.get("filter")
    return notes if isinstance(notes, Mapping) else {}
