"""Evaluates how well a model imitates its filter, next to baselines that need no learning."""

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
from diptych.filters.learned import Learned, notes_of
from diptych.filters.samples import FilterSample, answering, filter_of, gather, target_of
from diptych.filters.targets.pairs import Pairs
from diptych.filters.verdicts import EXACT, NEAR, verdict
from diptych.model.layers import Activation, Array, Chain, Conv, Pad, PadMode, walk
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
"""dB; the limit of float32. Pictures without any error count as this, so that means stay finite."""

# Pixels; the side of SSIM's window. Where it fits into the inner part, its similarities are those of the whole.
_WINDOW = 11
_Border: TypeAlias = tuple[int, int, int, int]
_NOTHING: _Border = (0, 0, 0, 0)


@dataclass(frozen=True)
class PictureScore:
    """The scores of one picture.

    Attributes:
        name: The picture's name.
        psnr: PSNR in dB.
        ssim: Structural similarity.
        largest: The largest error in levels of 255.
        identical: The share of identical pixels.
    """

    name: str
    psnr: float
    ssim: float
    largest: int
    identical: float


@dataclass(frozen=True)
class Scores:
    """The scores of all pictures together.

    PSNR and SSIM compare what the model computes, unrounded and clipped to 0..1, with the unrounded target. The
    largest error and the share of identical pixels compare both as 8-bit pictures.

    Attributes:
        psnr: The mean of the pictures' PSNR, in dB.
        pooled_psnr: The PSNR of the mean squared error over all pixels, in dB.
        worst_psnr: The smallest PSNR of a picture, in dB.
        worst_picture: The name of that picture.
        ssim: The mean of the pictures' SSIM.
        worst_ssim: The smallest SSIM of a picture.
        largest: The largest error in levels of 255.
        identical: The share of pixels that are equal in every channel.
        near: The share of pixels that are off by at most `verdicts.NEAR` levels in every channel.
    """

    psnr: float
    pooled_psnr: float
    worst_psnr: float
    worst_picture: str
    ssim: float
    worst_ssim: float
    largest: int
    identical: float
    near: float


@dataclass(frozen=True)
class BaselineScore:
    """The score of a baseline on the same pictures.

    Attributes:
        psnr: The mean PSNR in dB.
        worst_psnr: The smallest PSNR of a picture, in dB.
        pooled_psnr: The PSNR of the mean squared error over all pixels, in dB.
    """

    psnr: float
    worst_psnr: float
    pooled_psnr: float


@dataclass(frozen=True)
class FilterEvaluation:
    """How well a model imitates a filter.

    Attributes:
        verdict: One of `verdicts.VERDICTS`.
        model: The model's name.
        target: The filter's name.
        reference: The same filter in a public library.
        weights: The number of the model's weights.
        whole: The scores on whole pictures.
        inner: The scores without the border; None where no picture is larger than the border.
        border: (top, left, bottom, right) in pixels, where the model sees beyond the picture.
        baselines: The scores of "constant", "identity" and "best linear".
        pictures: The scores of each picture.
    """

    verdict: str
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
        """All fields, as values that JSON can hold; no number is infinite or NaN."""
        return asdict(self)

    def text(self) -> str:
        """A few lines for a terminal."""
        whole, lines = (
            self.whole,
            [f"{self.model}, {self.weights} weights, against {self.target}: {self.verdict}"],
        )
        lines += [_line("whole pictures", whole)]
        lines += [_line("without the border", self.inner)] if self.inner else []
        lines += [
            f"worst PSNR {decibels(whole.worst_psnr)} ({whole.worst_picture}), worst SSIM {whole.worst_ssim:.5f}"
        ]
        beside = ", ".join(f"{name} {decibels(score.pooled_psnr)}" for name, score in self.baselines.items())
        return "\n".join([*lines, f"without learning: {beside}"])


def _line(where: str, scores: Scores) -> str:
    return (
        f"{where}: PSNR {decibels(scores.pooled_psnr)} (mean {decibels(scores.psnr)}), SSIM {scores.ssim:.5f}, "
        f"largest error {scores.largest} of 255, {percent(scores.identical)} of pixels identical"
    )


def decibels(value: float) -> str:
    """A PSNR as text."""
    return "exact" if value >= HIGHEST_PSNR else f"{value:.2f} dB"


def percent(share: float) -> str:
    """A share as text; "all" only where it is exactly 1."""
    return "all" if share == 1 else f"{min(100 * share, 99.999):.3f} %"


def evaluate(
    model: Learned | Model | str | Path, target: Any = None, images: Any = None, *, engine: str = "auto"
) -> FilterEvaluation:
    """Evaluates a filter model against the filter itself.

    Args:
        model: What `learn` returns, a model, or the path of a model file.
        target: The filter, as `targets.resolve` takes it; by default the one that the model was taught.
        images: Files, folders, uint8 arrays or `Picture`s; by default the photographs that learning holds out.
        engine: The engine that runs the model; "auto" chooses one.

    Returns:
        Scores for whole pictures and without their border, for each picture, and for the baselines.

    Raises:
        ModelError: The model is not a filter.
        UsageError: There is no filter to compare with, it has other channels, or there are no pictures.
        ImageError: A picture cannot be read.
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
        exact=_may_be_exact(loaded, resolved.name),
        noisy=isinstance(resolved, Pairs),
    )


def _may_be_exact(model: Model, target: str) -> bool:
    """False where learning found otherwise on its artificial pictures, which are harder than photographs."""
    notes = notes_of(model)
    return notes.get("target") != target or notes.get("verdict", EXACT) == EXACT


def evaluate_samples(
    model: Model,
    samples: Sequence[FilterSample],
    *,
    target: str = "",
    reference: str = "",
    padding_mode: PadMode = "replicate",
    engine: str = "auto",
    compared: Sequence[Compared] | None = None,
    exact: bool = True,
    noisy: bool = False,
) -> FilterEvaluation:
    """Evaluates a model on samples.

    Args:
        model: The model.
        samples: Pictures with the filter's results.
        target: The filter's name.
        reference: The same filter in a public library.
        padding_mode: How baselines extend the pictures.
        engine: The engine that runs the model.
        compared: The model's results, where they are known already.
        exact: False where it is known from other pictures that the model is not exact.
        noisy: The samples are files, whose noise no model predicts. A linear model, which then cannot be better than
            the best linear kernel, is compared with the constant and the unchanged picture only.
    """
    if compared is None:
        answers = answering(model, engine)
        compared = [Compared(s.name, *answers(s.picture), s.target) for s in samples]
    border = astuple(halo(model))
    whole = [each.score() for each in compared]
    inner = [each.score(border) for each in compared if each.has_inner(border)]
    scores = _scores(whole)
    without = {name: _baseline(f, samples) for name, f in baselines(samples, padding_mode).items()}
    beaten = {
        name: score.pooled_psnr
        for name, score in without.items()
        if not (noisy and name == "best linear" and _is_linear(model))
    }
    return FilterEvaluation(
        verdict=verdict(scores, beaten, exact=exact),
        model=model.name or "the model",
        target=target,
        reference=reference,
        weights=model.parameters,
        whole=scores,
        inner=_scores(inner) if inner else None,
        border=border,
        baselines=without,
        pictures=tuple(each.picture for each in whole),
    )


def _is_linear(model: Model) -> bool:
    return all(
        isinstance(layer, Chain | Pad)
        or (isinstance(layer, Conv) and not layer.activation)
        or (isinstance(layer, Activation) and layer.name in ("affine", "clamp", "identity"))
        for _, layer in walk(model.layers)
    )


@dataclass(frozen=True)
class _Scored:
    """The scores of a picture, with what is needed to pool them."""

    picture: PictureScore
    error: float  # mean squared error
    pixels: int
    near: float


class Compared:
    """A model's result next to the target, pixel by pixel.

    All arrays have the same shape, (H, W) or (H, W, C).

    Args:
        name: The picture's name.
        given: The model's result, float32 in 0..1.
        rounded: The same as uint8.
        target: The filter's result, float32 in 0..1.
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
        """The mean squared error without the border."""
        return float(np.mean(_cut(self._squares, border), dtype=np.float64))

    def levels(self, border: _Border = _NOTHING) -> metrics.Levels:
        """The largest difference in levels, and the share of identical pixels, without the border."""
        return metrics.levels_of(_cut(self._apart, border))

    def has_inner(self, border: _Border) -> bool:
        """Whether any pixel is left without the border."""
        top, left, bottom, right = border
        height, width = self.target.shape[:2]
        return bool(height > top + bottom and width > left + right)

    def score(self, border: _Border = _NOTHING) -> _Scored:
        """The scores without the border."""
        target, error, levels = _cut(self.target, border), self.error(border), self.levels(border)
        if min(target.shape[:2]) >= _WINDOW:
            ssim = float(np.mean(_cut(self._similarities, border)))
        else:
            ssim = metrics.ssim(_cut(self.given, border), target)
        score = PictureScore(self.name, _capped(error), ssim, levels.largest, levels.identical)
        near = float(np.mean(_cut(self._apart, border) <= NEAR))
        return _Scored(score, error, target.shape[0] * target.shape[1], near)


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
        near=float(np.average([each.near for each in scored], weights=pixels)),
    )


def _baseline(function: Callable[[FilterSample], Array], samples: Sequence[FilterSample]) -> BaselineScore:
    errors = [metrics.mean_squared_error(function(sample), sample.target) for sample in samples]
    psnrs = [_capped(error) for error in errors]
    pixels = [sample.target.shape[0] * sample.target.shape[1] for sample in samples]
    return BaselineScore(
        psnr=float(np.mean(psnrs)),
        worst_psnr=min(psnrs),
        pooled_psnr=_capped(float(np.average(errors, weights=pixels))),
    )
