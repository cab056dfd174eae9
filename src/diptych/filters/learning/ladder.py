"""`learn`: a ladder of methods, from closed forms to training, that stops at the first that does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from math import inf, isfinite
from pathlib import Path
from typing import Any

import numpy as np

from diptych.errors import UnsupportedLayer, UsageError
from diptych.filters import data as pictures
from diptych.filters import metrics
from diptych.filters.evaluating import HIGHEST_PSNR, Compared, judge
from diptych.filters.learned import Learned, LearningReport, Rung
from diptych.filters.learning import asking
from diptych.filters.learning.problem import Candidate, Pair, Problem
from diptych.filters.samples import Answers, Sample, answering
from diptych.filters.target import Target
from diptych.filters.targets import resolve
from diptych.filters.targets.pairs import Pairs
from diptych.filters.targets.probing import probe
from diptych.model.layers import Array, Chain, Conv
from diptych.model.model import Model
from diptych.preprocessing import Colour, Grey, Preprocessing, Scale
from diptych.progress import Progress, silent

__all__ = ["GOAL", "RUNGS", "learn"]

# A module of this package each, with `fit(problem) -> Candidate | None`; closed forms first.
CLOSED = ("linear", "curves", "ranks", "pieces")
TRAINED = ("relu", "dilated")
RUNGS = (*CLOSED, *TRAINED)

GOAL = 70.0  # dB: the error is then a quarter of what rounding to 8 bits makes
CEILING = 58.9  # dB: 10 log10(12 255^2), where a target in whole levels differs by its own rounding
IDENTICAL, LARGEST = 0.999, 1  # what counts as exact: share of equal pixels, largest error in levels
NUDGES = (1 / 4096, -1 / 4096)  # levels: decide ties, and change nothing else


def learn(
    target: Any,
    images: Any = None,
    weights: int | None = None,
    budget: float | None = None,
    seed: int = 0,
    *,
    goal: float | None = None,
    checkpoint: str | Path | None = None,
    progress: Progress = silent,
) -> Learned:
    """Finds a small network that does what `target` does.

    `target`: a name ("sobel", "gaussian:sigma=2"), "package.module:function", a function, or pictures
    (before, after); see `filters.resolve`. `images`: what to learn from, by default photographs that come
    with scikit-image, and made pictures; see `filters.data.gather`. `weights`: the most weights the network
    may have. `budget`: seconds after which the best found so far is kept. `goal`: the held-out PSNR in dB
    that is enough; by default 70, or as much as the weights allow. `checkpoint`: a file to which training
    writes its state, and from which it goes on.

    The same arguments give the same network. Raises `UsageError` for arguments out of range and for filters
    that no local network can do, and whatever reading the pictures raises.
    """
    started = time.monotonic()
    _check(weights, budget, goal, seed)
    found = probe(resolve(target), seed=seed)
    problem = Problem(
        target=found.target,
        data=_gathered(found.target, images, seed),
        weights=weights,
        goal=_goal(found.target, weights, goal),
        deadline=inf if budget is None else started + budget,
        seed=seed,
        progress=progress,
        checkpoint=None if checkpoint is None else Path(checkpoint),
    )
    climbed = _climb(problem, goal)
    best = climbed.best
    if best is None:
        raise UsageError(
            f"no network of at most {weights} weights was found for {problem.target.name}; allow more weights"
        )
    return _reported(problem, best, climbed, time.monotonic() - started, found.remarks)


def _check(weights: int | None, budget: float | None, goal: float | None, seed: int) -> None:
    if weights is not None and not (_is_whole(weights) and weights >= 1):
        raise UsageError(f"weights must be a whole number of at least 1, not {weights!r}")
    for name, value in (("budget", budget), ("goal", goal)):
        unit = {"budget": "seconds", "goal": "dB"}[name]
        if value is not None and not (_is_number(value) and isfinite(value) and value > 0):
            raise UsageError(f"{name} must be a number of {unit} above 0, not {value!r}")
    if not (_is_whole(seed) and seed >= 0):
        raise UsageError(f"seed must be a whole number of at least 0, not {seed!r}")


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, float | np.floating) or _is_whole(value)


def _goal(target: Target, weights: int | None, goal: float | None) -> float:
    if goal is not None:
        return float(goal)
    if weights is not None:
        return inf
    return CEILING if target.rounded else GOAL


def _gathered(target: Target, images: Any, seed: int) -> pictures.Data:
    if not isinstance(target, Pairs):
        return pictures.gather(images, channels=target.channels[0], seed=seed)
    if images is not None:
        raise UsageError("pairs bring their own pictures; leave images out, or learn from a function instead")
    return pictures.gather(list(target.before.values()), channels=target.channels[0], seed=seed)


# ---- Climbing -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Tried:
    """A candidate as a model, and how it does on whole held-out pictures."""

    candidate: Candidate
    model: Model
    compared: tuple[Compared, ...]  # what it gives for each, beside what is wanted
    psnr: float
    exact: bool


@dataclass
class _Climbed:
    """How far the ladder was climbed."""

    best: _Tried | None = None
    rungs: list[Rung] = field(default_factory=list)
    stopped: str = "every method was tried"


def _climb(problem: Problem, asked: float | None) -> _Climbed:
    climbed = _Climbed()
    for number, name in enumerate(RUNGS):
        if climbed.best is not None and problem.time_left <= 0:
            climbed.stopped = "the budget of time was spent"
            break
        enough = problem.goal if name in TRAINED or asked is not None else inf
        if climbed.best is not None and climbed.best.psnr >= enough:
            climbed.stopped = f"the goal of {enough:.1f} dB was met"
            break
        problem.progress(number, len(RUNGS), f"{name}, {_so_far(climbed.best)}")
        begun = time.monotonic()
        candidate = _fit(name)(problem)
        if candidate is None:
            continue
        tried = _try(problem, candidate)
        seconds = time.monotonic() - begun
        climbed.rungs.append(
            Rung(candidate.rung, tried.model.parameters, tried.psnr, seconds, candidate.remark)
        )
        if not problem.allows(tried.model.parameters):
            continue
        if climbed.best is None or (tried.exact, tried.psnr) > (climbed.best.exact, climbed.best.psnr):
            climbed.best = tried
        if tried.exact:
            climbed.stopped = "exact: within one level everywhere, and the same in 99.9 % of pixels or more"
            break
    problem.progress(len(RUNGS), len(RUNGS), _so_far(climbed.best))
    return climbed


def _fit(name: str) -> Callable[[Problem], Candidate | None]:
    fit: Callable[[Problem], Candidate | None] = import_module(f"diptych.filters.learning.{name}").fit
    return fit


def _so_far(best: _Tried | None) -> str:
    return "nothing so far" if best is None else f"best so far {best.psnr:.1f} dB"


def _try(problem: Problem, candidate: Candidate) -> _Tried:
    """The candidate on whole held-out pictures; a linear one also with its ties decided the other way."""
    tried = _judged(problem, candidate)
    if tried.exact or candidate.rung != "linear" or tried.psnr < CEILING:
        return tried
    for nudge in NUDGES:
        other = _judged(
            problem, Candidate(_nudged(candidate.layers, nudge), candidate.rung, candidate.remark)
        )
        if other.exact:
            return other
    return tried


def _nudged(layers: Chain, levels: float) -> Chain:
    """The last convolution's results a tiny bit higher."""
    changed = list(layers.layers)
    at = max(index for index, layer in enumerate(changed) if isinstance(layer, Conv))
    conv = changed[at]
    assert isinstance(conv, Conv)
    bias = np.zeros(len(conv.weight)) if conv.bias is None else conv.bias
    changed[at] = Conv(conv.weight, (bias + levels / 255).astype(np.float32), groups=conv.groups)
    return Chain(tuple(changed))


def _judged(problem: Problem, candidate: Candidate) -> _Tried:
    model = _model(problem.target, candidate)
    answers = _answers(model)
    compared = tuple(
        Compared(name, *answers(picture), _as_picture(pair.wanted))
        for (name, picture), pair in zip(problem.data.held_out.items(), problem.held_out, strict=True)
    )
    psnr = float(np.mean([min(metrics.psnr_of(each.error()), HIGHEST_PSNR) for each in compared]))
    exact = _is_exact((each.levels(), pair) for each, pair in zip(compared, problem.held_out, strict=True))
    if exact and problem.answers:
        hard = asking.extremes(problem.target, problem.seed)
        exact = _is_exact(
            (metrics.levels(answers(pair.picture)[1], _as_picture(pair.wanted)), pair) for pair in hard
        )
    return _Tried(candidate, model, compared, psnr, exact)


def _answers(model: Model) -> Answers:
    try:
        return answering(model, "onnxruntime")  # nothing is compiled first, as a fused loop would be
    except UnsupportedLayer:
        return answering(model, "numpy")


def _is_exact(found: Iterator[tuple[metrics.Levels, Pair]]) -> bool:
    """Whether all pictures together are the same within what counts as exact."""
    same = total = 0.0
    for levels, pair in found:
        if levels.largest > LARGEST:
            return False
        pixels = pair.wanted[0].size
        same, total = same + levels.identical * pixels, total + pixels
    return same >= IDENTICAL * total


def _as_picture(planes: Array) -> Array:
    return planes[0] if len(planes) == 1 else planes.transpose(1, 2, 0)


# ---- What is handed over ------------------------------------------------------------------------------


def _model(target: Target, candidate: Candidate) -> Model:
    inputs = target.channels[0]
    colour = Preprocessing((Colour(), Scale()), name="colour-any")
    grey = Preprocessing((Grey("float"), Scale()), name="grey-any")
    return Model(
        candidate.layers,
        preprocessing=colour if inputs == 3 else grey,
        input_shape=(inputs, None, None),
        trained=True,
        name=target.name,
    )


def _reported(
    problem: Problem, best: _Tried, climbed: _Climbed, seconds: float, remarks: Sequence[str]
) -> Learned:
    target, candidate = problem.target, best.candidate
    samples = [
        Sample(name, picture, _as_picture(pair.wanted))
        for (name, picture), pair in zip(problem.data.held_out.items(), problem.held_out, strict=True)
    ]
    scores = judge(
        best.model,
        samples,
        target=target.name,
        reference=target.reference,
        edge=target.edge,
        compared=best.compared,
    )
    report = LearningReport(
        target=target.name,
        reference=target.reference,
        rung=candidate.rung,
        weights=best.model.parameters,
        seconds=seconds,
        psnr=scores.whole.psnr,
        worst_psnr=scores.whole.worst_psnr,
        stopped=candidate.stopped or climbed.stopped,
        rungs=tuple(climbed.rungs),
        scores=scores.to_document(),
        curve=candidate.curve,
        remarks=tuple(remark for remark in (candidate.remark, *remarks) if remark),
    )
    described = {"edge": target.edge, "per_channel": target.per_channel, **report.to_document()}
    return Learned(best.model.with_(notes={"filter": described}), report)
