"""`learn`: a ladder of methods, from closed forms to training, that stops at the first that does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from math import inf, isfinite
from pathlib import Path
from typing import Any

import numpy as np

from diptych.errors import UnsupportedLayer, UsageError
from diptych.filters import metrics
from diptych.filters.evaluating import HIGHEST_PSNR, Compared, Evaluation, judge
from diptych.filters.learned import Learned, LearningReport, Rung
from diptych.filters.learning import borders, probing_queries
from diptych.filters.learning.task import CEILING, Candidate, Pair, Problem
from diptych.filters.planes import picture_of
from diptych.filters.samples import Answers, Sample, answering, taught_from
from diptych.filters.target import Target
from diptych.filters.targets import resolve
from diptych.filters.targets.pairs import Pairs
from diptych.filters.targets.probing import EDGES, probe
from diptych.model.layers import Array, Chain, Conv, Pad, PadMode
from diptych.model.model import Model
from diptych.preprocessing import Colour, Grey, Preprocessing, Scale
from diptych.progress import Progress, silent

__all__ = ["GOAL", "RUNGS", "learn"]

# A module of this package each, with `fit(problem) -> Candidate | None`; closed forms first.
CLOSED = ("linear", "curves", "ranks", "piecewise_linear")
TRAINED = ("relu", "dilated")
RUNGS = (*CLOSED, *TRAINED)

_WITHOUT = {  # learning
    "constant": "mean grey or colour",
    "identity": "picture as it is",
    "best linear": "linear filter of 7 x 7 pixels that was fitted to them",
}
GOAL = 70.0  # dB: the error is then a quarter of what rounding to 8 bits makes
SMALL = 3_000_000  # values, of pictures that are judged in a moment
TOO_SHORT = 2.0  # seconds, in which no training is worth its beginning
JUDGING = 0.15  # of the budget of time, kept for judging what was found
EARNED, MUCH_LARGER = 0.5, 4  # dB that a network of so many times the weights must gain
WORSE = 0.5  # dB below what needs no learning, from which on a remark says so
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

    The same arguments give the same network. Raises `UsageError` for arguments out of range, for pictures
    without any detail, and for filters that no local network can do, and whatever reading the pictures raises.
    """
    started = time.monotonic()
    _check(weights, budget, goal, seed)
    _check_checkpoint(checkpoint)
    found = probe(resolve(target), seed=seed)
    problem = Problem(
        target=found.target,
        data=taught_from(found.target, images, seed, progress),
        weights=weights,
        goal=_goal(found.target, weights, goal),
        deadline=inf if budget is None else started + (1 - JUDGING) * budget,
        seed=seed,
        progress=progress,
        checkpoint=None if checkpoint is None else Path(checkpoint),
    )
    if images is not None:
        _check_detail(problem.data.train)
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


def _check_detail(pictures: Sequence[Array]) -> None:
    if all((picture == picture[0, 0]).all() for picture in pictures):
        raise UsageError(
            "the pictures to learn from are of one colour each, and teach nothing; name others with more detail"
        )


def _check_checkpoint(path: str | Path | None) -> None:
    """Before time is spent: training comes last, and would only then find that it cannot go on."""
    if path is None:
        return
    if Path(path).is_dir():
        raise UsageError(f"the checkpoint {path} is a folder; name a file in it")
    if Path(path).exists():
        from diptych.filters.learning import checkpoint

        checkpoint.look(Path(path))


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


# ---- Climbing -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Tried:
    """A candidate as a model, and how it does on whole held-out pictures."""

    candidate: Candidate
    model: Model
    compared: tuple[Compared, ...]  # what it gives for each, beside what is wanted
    psnr: float
    exact: bool
    edge: PadMode


@dataclass
class _Climbed:
    """How far the ladder was climbed."""

    best: _Tried | None = None
    rungs: list[Rung] = field(default_factory=list)
    stopped: str = "every method was tried"


def _climb(problem: Problem, asked: float | None) -> _Climbed:
    climbed = _Climbed()
    for number, name in enumerate(RUNGS):
        if climbed.best is not None and problem.time_left <= (TOO_SHORT if name in TRAINED else 0):
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
        if climbed.best is None or _better(tried, climbed.best, problem):
            climbed.best = tried
        if tried.exact:
            climbed.stopped = "exact: within one level everywhere, and the same in 99.9 % of pixels or more"
            break
    problem.progress(len(RUNGS), len(RUNGS), _so_far(climbed.best))
    return climbed


def _better(tried: _Tried, best: _Tried, problem: Problem) -> bool:
    """Whether a candidate is to take the place of the best so far.

    Without a budget of weights, a network of four times the weights or more must gain 0.5 dB, or meet the
    goal, or be exact where the smaller one is not.
    """
    larger = tried.model.parameters >= MUCH_LARGER * best.model.parameters
    meets = tried.psnr >= problem.goal > best.psnr
    must_earn = problem.weights is None and larger and not meets
    earned = tried.psnr > best.psnr + (EARNED if must_earn else 0.0)
    return tried.exact if tried.exact != best.exact else earned


def _fit(name: str) -> Callable[[Problem], Candidate | None]:
    fit: Callable[[Problem], Candidate | None] = import_module(f"diptych.filters.learning.{name}").fit
    return fit


def _so_far(best: _Tried | None) -> str:
    return "nothing so far" if best is None else f"best so far {best.psnr:.1f} dB"


def _try(problem: Problem, candidate: Candidate) -> _Tried:
    """The candidate on whole held-out pictures; one that errs at ties only also with these decided otherwise."""
    tried = _judged(problem, candidate)
    if isinstance(problem.target, Pairs):
        tried = _at_the_border(problem, tried)
    candidate = tried.candidate
    added_up = any(isinstance(layer, Conv) for layer in candidate.layers.layers)
    if tried.exact or not added_up or any(each.levels().largest > LARGEST for each in tried.compared):
        return tried
    for nudge in NUDGES:
        other = _judged(
            problem, Candidate(_nudged(candidate.layers, nudge), candidate.rung, candidate.remark)
        )
        if other.exact:
            return other
    return tried


def _at_the_border(problem: Problem, tried: _Tried) -> _Tried:
    """The candidate with whichever edge suits best: pairs cannot be asked what lies beyond their border."""
    layers = tried.candidate.layers.layers
    if not any(isinstance(layer, Pad) for layer in layers):
        return tried
    small = sum(pair.inputs.size for pair in problem.held_out) < SMALL
    for edge in EDGES:
        if edge != problem.edge and not tried.exact and (small or problem.time_left > 0):
            changed = Chain(tuple(replace(one, mode=edge) if isinstance(one, Pad) else one for one in layers))
            other = _judged(problem, replace(tried.candidate, layers=changed))
            if (other.exact, other.psnr) > (tried.exact, tried.psnr):
                tried = replace(other, edge=edge)
    return tried


def _nudged(layers: Chain, levels: float) -> Chain:
    """The last convolution's results a tiny bit higher."""
    changed = list(layers.layers)
    at = max(index for index, layer in enumerate(changed) if isinstance(layer, Conv))
    conv = changed[at]
    assert isinstance(conv, Conv)
    bias = np.zeros(len(conv.weight)) if conv.bias is None else conv.bias
    changed[at] = replace(conv, bias=(bias + levels / 255).astype(np.float32))
    return Chain(tuple(changed))


def _judged(problem: Problem, candidate: Candidate) -> _Tried:
    model = _model(problem.target, candidate)
    answers = _answers(model)
    compared = tuple(
        Compared(name, *answers(picture), picture_of(pair.wanted))
        for (name, picture), pair in zip(problem.data.held_out.items(), problem.held_out, strict=True)
    )
    psnr = float(np.mean([min(metrics.psnr_of(each.error()), HIGHEST_PSNR) for each in compared]))
    exact = _is_exact((each.levels(), pair) for each, pair in zip(compared, problem.held_out, strict=True))
    if exact and problem.answers:
        hard = probing_queries.extremes(problem.target, problem.seed)
        exact = _is_exact(
            (metrics.levels(answers(pair.picture)[1], picture_of(pair.wanted)), pair) for pair in hard
        )
    return _Tried(candidate, model, compared, psnr, exact, problem.edge)


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


# ---- What is handed over ------------------------------------------------------------------------------


def _model(target: Target, candidate: Candidate) -> Model:
    inputs = target.channels[0]
    colour = Preprocessing((Colour(), Scale()), name="colour-any")
    grey = Preprocessing((Grey(target.grey or "float"), Scale()), name="grey-any")
    layers = candidate.layers
    if target.left_alone:
        layers = borders.left_alone(layers, target.left_alone, inputs)
    return Model(
        layers,
        preprocessing=colour if inputs == 3 else grey,
        input_shape=(inputs, None, None),
        trained=True,
        name=target.name,
    )


def _beside(scores: Evaluation) -> list[str]:
    """A remark where what needs no learning does better over all pictures together, and that can be seen.

    Pooled: a picture that the filter leaves as it is would be worth any number of dB in a mean.
    """
    name, best = max(scores.baselines.items(), key=lambda item: item[1].pooled_psnr)
    if scores.whole.pooled_psnr >= min(best.pooled_psnr - WORSE, GOAL):
        return []
    return [
        f"the {_WITHOUT[name]} does better on the held-out pictures, {best.pooled_psnr:.1f} dB over all of "
        f"them together, than this network, {scores.whole.pooled_psnr:.1f} dB: "
        "allow more time or weights, or learn from more pictures"
    ]


def _reported(
    problem: Problem, best: _Tried, climbed: _Climbed, seconds: float, remarks: Sequence[str]
) -> Learned:
    target, candidate = problem.target, best.candidate
    samples = [
        Sample(name, picture, picture_of(pair.wanted))
        for (name, picture), pair in zip(problem.data.held_out.items(), problem.held_out, strict=True)
    ]
    scores = judge(
        best.model,
        samples,
        target=target.name,
        reference=target.reference,
        edge=best.edge,
        compared=best.compared,
    )
    beside = [] if best.exact else _beside(scores)
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
        remarks=tuple(remark for remark in (candidate.remark, *beside, *remarks) if remark),
    )
    described = {"edge": best.edge, "per_channel": target.per_channel, **report.to_document()}
    return Learned(best.model.with_(notes={"filter": described}), report)
