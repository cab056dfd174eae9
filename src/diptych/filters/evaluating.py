"""How well a model imitates its filter, beside what can be had without learning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from diptych.engines.tiled import halo
from diptych.filters import metrics
from diptych.filters.baselines import baselines
from diptych.filters.learned import Learned
from diptych.filters.samples import Sample, answering, filter_of, gather, target_of
from diptych.model.layers import Array, PadMode
from diptych.model.model import Model

__all__ = [
    "HIGHEST_PSNR",
    "Compared",
    "FilterEvaluation",
    "PictureScore",
    "Scores",
    "decibels",
    "evaluate",
    "evaluate_samples",
    "percent",
]

HIGHEST_PSNR = 150.0
"""What float32 can tell apart: a picture without any error counts as so many dB, and means stay finite."""

_WINDOW = 11  # pixels: SSIM's; only where it fits into what a border leaves is it the same as in the whole
_Border: TypeAlias = tuple[int, int, int, int]
_NOTHING: _Border = (0, 0, 0, 0)


@dataclass(frozen=True)
class PictureScore:
    """One picture: PSNR in dB, SSIM, largest error in levels of 255, share of identical pixels."""

    name: str
    psnr: float
    ssim: float
    largest: int
    identical: float


@dataclass(frozen=True)
class Scores:
    """All pictures. `psnr` is the mean of the pictures' own in dB, `pooled_psnr` that of their joint error.

    `psnr`, `pooled_psnr` and `ssim` are of what the model computes, unrounded and clipped to 0..1, against
    what is wanted, unrounded; `largest` (levels of 255) and `identical` (share of pixels equal in every
    channel) of both as 8-bit pictures.
    """

    psnr: float
    pooled_psnr: float
    worst_psnr: float
    worst_picture: str
    ssim: float
    worst_ssim: float
    largest: int
    identical: float


@dataclass(frozen=True)
class BaselineScore:
    """What can be had without learning: mean, worst and pooled PSNR in dB over the same pictures."""

    psnr: float
    worst_psnr: float
    pooled_psnr: float


@dataclass(frozen=True)
class FilterEvaluation:
    """How well a model imitates `target`.

    `whole` is over whole pictures, `inner` without the `border` (top, left, bottom, right in pixels) where
    the model sees beyond the picture's edge; None where no picture is larger than that. `baselines`:
    "constant", "identity", "best linear".
    """

    model: str
    target: str
    reference: str
    weights: int
    whole: Scores
    inner: Scores | None
    border: tuple[int, int, int, int]
    baselines: Mapping[str, BaselineScore]
    pictures: tuple[PictureScore, ...]

    def to_document(self) -> dict[str, Any]:
        """Everything, JSON-able; no figure is infinite or NaN."""
        return asdict(self)

    def text(self) -> str:
        """A few lines for a terminal."""
        whole, lines = self.whole, [f"{self.model}, {self.weights} weights, against {self.target}"]
        lines += [_line("whole pictures", whole)]
        lines += [_line("without the border", self.inner)] if self.inner else []
        lines += [
            f"worst PSNR {decibels(whole.worst_psnr)} ({whole.worst_picture}), worst SSIM {whole.worst_ssim:.5f}"
        ]
        beside = ", ".join(f"{name} {decibels(score.psnr)}" for name, score in self.baselines.items())
        return "\n".join([*lines, f"without learning: {beside}"])


def _line(where: str, scores: Scores) -> str:
    return (
        f"{where}: PSNR {decibels(scores.psnr)} (pooled {decibels(scores.pooled_psnr)}), SSIM {scores.ssim:.5f}, "
        f"largest error {scores.largest} of 255, {percent(scores.identical)} of pixels identical"
    )


def decibels(value: float) -> str:
    """A PSNR in words."""
    return "exact" if value >= HIGHEST_PSNR else f"{value:.2f} dB"


def percent(share: float) -> str:
    """A share in words, and never a rounded 100 % that is not exact."""
    return "all" if share == 1 else f"{min(100 * share, 99.999):.3f} %"


def evaluate(
    model: Learned | Model | str | Path, target: Any = None, images: Any = None, *, engine: str = "auto"
) -> FilterEvaluation:
    """Judges a filter model by the filter itself.

    `target`: whatever `targets.resolve` takes; by default what the model says it was taught. `images`:
    files, folders, uint8 arrays or `Picture`s; by default the bundled photographs that learning holds out.
    Raises `ModelError` for a model that is not a filter, `UsageError` where there is nothing to judge by.
    """
    loaded = filter_of(model)
    resolved = target_of(loaded, target)
    samples = gather(loaded, resolved, images)
    return evaluate_samples(
        loaded,
        samples,
        target=resolved.name,
        reference=resolved.reference,
        padding_mode=resolved.edge,
        engine=engine,
    )


def evaluate_samples(
    model: Model,
    samples: Sequence[Sample],
    *,
    target: str = "",
    reference: str = "",
    padding_mode: PadMode = "replicate",
    engine: str = "auto",
    compared: Sequence[Compared] | None = None,
) -> FilterEvaluation:
    """Judges a model by pictures that are there already, each with what is wanted of it.

    `compared`: each beside what the model gives, where that is there already too.
    """
    if compared is None:
        answers = answering(model, engine)
        compared = [Compared(s.name, *answers(s.picture), s.target) for s in samples]
    border = astuple(halo(model))
    whole = [each.score() for each in compared]
    inner = [each.score(border) for each in compared if each.has_inner(border)]
    return FilterEvaluation(
        model=model.name or "the model",
        target=target,
        reference=reference,
        weights=model.parameters,
        whole=_scores(whole),
        inner=_scores(inner) if inner else None,
        border=border,
        baselines={name: _baseline(f, samples) for name, f in baselines(samples, padding_mode).items()},
        pictures=tuple(each.picture for each in whole),
    )


@dataclass(frozen=True)
class _Scored:
    """One picture's score, with what is needed to pool it."""

    picture: PictureScore
    error: float  # mean squared
    pixels: int


class Compared:
    """One picture beside what is wanted, pixel by pixel: of the whole, and of the whole without a border.

    `given` and `target` float32 in 0..1, `rounded` uint8, all of one shape.
    """

    def __init__(self, name: str, given: Array, rounded: Array, target: Array) -> None:
        self.name, self.given, self.rounded, self.target = name, given, rounded, target
        squares = np.square(given - target)
        self._squares = squares if squares.ndim == 2 else squares.mean(axis=2)
        self._apart = metrics.apart(rounded, target)

    @cached_property
    def _similarities(self) -> Array:
        return metrics.similarities(self.given, self.target)

    def error(self, border: _Border = _NOTHING) -> float:
        """The mean squared error within the border."""
        return float(np.mean(_cut(self._squares, border), dtype=np.float64))

    def levels(self, border: _Border = _NOTHING) -> metrics.Levels:
        """The largest difference in levels within the border, and the share of identical pixels."""
        return metrics.levels_of(_cut(self._apart, border))

    def has_inner(self, border: _Border) -> bool:
        """Whether anything is left without the border."""
        top, left, bottom, right = border
        height, width = self.target.shape[:2]
        return bool(height > top + bottom and width > left + right)

    def score(self, border: _Border = _NOTHING) -> _Scored:
        """The score of what lies within the border."""
        target, error, levels = _cut(self.target, border), self.error(border), self.levels(border)
        if min(target.shape[:2]) >= _WINDOW:
            ssim = float(np.mean(_cut(self._similarities, border)))
        else:
            ssim = metrics.ssim(_cut(self.given, border), target)
        score = PictureScore(self.name, _capped(error), ssim, levels.largest, levels.identical)
        return _Scored(score, error, target.shape[0] * target.shape[1])


def _cut(values: Array, border: _Border) -> Array:
    top, left, bottom, right = border
    return values[top : values.shape[0] - bottom, left : values.shape[1] - right]


def _capped(error: float) -> float:
    return min(metrics.psnr_of(error), HIGHEST_PSNR)


def _scores(scored: Sequence[_Scored]) -> Scores:
    pixels = [each.pixels for each in scored]
    pictures = [each.picture for each in scored]
    worst = min(pictures, key=lambda score: score.psnr)
    return Scores(
        psnr=float(np.mean([score.psnr for score in pictures])),
        pooled_psnr=_capped(float(np.average([each.error for each in scored], weights=pixels))),
        worst_psnr=worst.psnr,
        worst_picture=worst.name,
        ssim=float(np.mean([score.ssim for score in pictures])),
        worst_ssim=min(score.ssim for score in pictures),
        largest=max(score.largest for score in pictures),
        identical=float(np.average([score.identical for score in pictures], weights=pixels)),
    )


def _baseline(function: Callable[[Sample], Array], samples: Sequence[Sample]) -> BaselineScore:
    errors = [metrics.mean_squared_error(function(sample), sample.target) for sample in samples]
    psnrs = [_capped(error) for error in errors]
    pixels = [sample.target.shape[0] * sample.target.shape[1] for sample in samples]
    return BaselineScore(
        psnr=float(np.mean(psnrs)),
        worst_psnr=min(psnrs),
        pooled_psnr=_capped(float(np.average(errors, weights=pixels))),
    )
