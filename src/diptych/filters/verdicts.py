"""The verdict on a filter in one word, with the bounds that decide it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

__all__ = [
    "APPROXIMATE",
    "CLOSE",
    "EXACT",
    "MEANINGS",
    "NEAR",
    "NOT_LEARNED",
    "VERDICTS",
    "WORST_BELOW",
    "is_exact",
    "judged",
    "verdict",
]

EXACT, CLOSE, APPROXIMATE, NOT_LEARNED = VERDICTS = ("exact", "close", "approximate", "not learned")

MAX_ERROR, MIN_IDENTICAL = 1, 0.999  # levels of 255, and share of equal pixels, of what is exact
TIES_PSNR = (
    100.0  # dB before rounding; pixels then differ only where the filter's own value is between two levels
)
CLOSE_PSNR = 45.0  # dB, for the worst picture: an error of 1.4 levels in the root mean square
NEAR = 3  # levels, about one percent: steps that are not seen side by side
MIN_NEAR = 0.999  # share of pixels off by at most so many levels
LEAST_PSNR = 20.0  # dB; below it the error is more than a tenth of the range
MARGIN = 1.0  # dB over the best that needs no learning
WORST_BELOW = 3.0
"""dB by which the worst picture may be below a goal that all pictures together meet."""

MEANINGS: Mapping[str, str] = {
    EXACT: "no pixel off by more than a level of 255, and 99.9 % identical, or 100 dB before rounding",
    CLOSE: "no visible difference: every picture at 45 dB or more, and 99.9 % of the pixels within 3 levels",
    APPROXIMATE: "20 dB or more over all pictures, and at least 1 dB above the best linear kernel, the unchanged "
    "picture and a constant",
    NOT_LEARNED: "below 20 dB, or less than 1 dB above the best linear kernel, the unchanged picture or a constant",
}


class Figures(Protocol):
    """What of an evaluation decides: `diptych.filters.evaluating.Scores`."""

    @property
    def pooled_psnr(self) -> float: ...
    @property
    def worst_psnr(self) -> float: ...
    @property
    def largest(self) -> int: ...
    @property
    def identical(self) -> float: ...
    @property
    def near(self) -> float: ...


def judged(pooled: float, worst: float) -> float:
    """The figure in dB by which networks are chosen and goals are met.

    It is the PSNR of all pictures together, or that of the worst picture plus 3 dB where that is lower. A mean of
    PSNRs is not used: a picture that the filter leaves unchanged would count as 150 dB in it.

    Args:
        pooled: The PSNR in dB of the mean squared error over all pixels.
        worst: The smallest PSNR in dB of a picture.
    """
    return min(pooled, worst + WORST_BELOW)


def is_exact(largest: int, identical: float, worst: float) -> bool:
    """Whether a result is exact.

    Args:
        largest: The largest error in levels.
        identical: The share of identical pixels.
        worst: The PSNR in dB of the worst picture, before rounding.
    """
    return largest <= MAX_ERROR and (identical >= MIN_IDENTICAL or worst >= TIES_PSNR)


def verdict(whole: Figures, without: Mapping[str, float], *, exact: bool = True) -> str:
    """The verdict: one of `VERDICTS`, as `MEANINGS` defines them.

    Args:
        whole: The figures on whole pictures.
        without: The pooled PSNR in dB of what needs no learning, by name.
        exact: False where it is known from other pictures that the filter is not exact.
    """
    if exact and is_exact(whole.largest, whole.identical, whole.worst_psnr):
        return EXACT
    if whole.worst_psnr >= CLOSE_PSNR and whole.near >= MIN_NEAR:
        return CLOSE
    gained = whole.pooled_psnr - max(without.values(), default=0.0)
    return APPROXIMATE if gained >= MARGIN and whole.pooled_psnr >= LEAST_PSNR else NOT_LEARNED
