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
from diptych.filters.evaluating import HIGHEST_PSNR, Compared, FilterEvaluation, evaluate_samples
from diptych.filters.learned import Attempt, Learned, LearningReport
from diptych.filters.learning import borders, probing_queries
from diptych.filters.learning.task import CEILING, Candidate, Pair, Task
from diptych.filters.planes import picture_of
from diptych.filters.samples import Answers, Sample, answering, taught_from
from diptych.filters.target import Target
from diptych.filters.targets import resolve
from diptych.filters.targets.pairs import Pairs
from diptych.filters.targets.probing import PADDING_MODES, probe
from diptych.model.layers import Array, Chain, Conv, Pad, PadMode
from diptych.model.model import Model
from diptych.preprocessing import Colour, Grey, Preprocessing, Scale
from diptych.progress import Progress, silent

__all__ = ["GOAL", "METHODS", "learn"]

# A module of this package each, with `fit(task) -> Candidate | None`; closed forms first.
CLOSED = ("linear", "curves", "ranks", "piecewise_linear")
TRAINED = ("relu", "dilated")
METHODS = (*CLOSED, *TRAINED)

_WITHOUT = {  # learning
    "constant": "mean grey or colour",
    "identity": "picture as it is",
    "best linear": "linear filter of 7 x 7 pixels that was fitted to them",
}
GOAL = 70.0  # dB: the error is then a quarter of what rounding to 8 bits makes
SMALL = 3_000_000  # values, of pictures that are judged in a moment
TOO_SHORT = 2.0  # seconds, in which no training is worth its beginning
EVALUATION_SHARE = 0.15  # of the budget of time, kept for judging what was found
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
    task = Task(
        target=found.target,
        data=taught_from(found.target, images, seed, progress),
        weights=weights,
        goal=_goal(found.target, weights, goal),
        deadline=inf if budget is None else started + (1 - EVALUATION_SHARE) * budget,
        seed=seed,
        progress=progress,
        checkpoint=None if checkpoint is None else Path(checkpoint),
    )
    if images is not None:
        _check_detail(task.data.train)
    search = _search(task, goal)
    best = search.best
    if best is None:
        raise UsageError(
            f"no network of at most {weights} weights was found for {task.target.name}; allow more weights"
        )
    return _learned_filter(task, best, search, time.monotonic() - started, found.remarks)


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
class _Evaluated:
    """A candidate as a model, and how it does on whole held-out pictures."""

    candidate: Candidate
    model: Model
    compared: tuple[Compared, ...]  # what it gives for each, beside what is wanted
    psnr: float
    exact: bool
    padding_mode: PadMode


@dataclass
class _Search:
    """How far the ladder was climbed."""

    best: _Evaluated | None = None
    methods: list[Attempt] = field(default_factory=list)
    stopped: str = "every method was tried"


def _search(task: Task, goal: float | None) -> _Search:
    search = _Search()
    for number, name in enumerate(METHODS):
        if search.best is not None and task.time_left <= (TOO_SHORT if name in TRAINED else 0):
            search.stopped = "the budget of time was spent"
            break
        enough = task.goal if name in TRAINED or goal is not None else inf
        if search.best is not None and search.best.psnr >= enough:
            search.stopped = f"the goal of {enough:.1f} dB was met"
            break
        task.progress(number, len(METHODS), f"{name}, {_so_far(search.best)}")
        begun = time.monotonic()
        candidate = _fit(name)(task)
        if candidate is None:
            continue
        evaluated = _evaluate_candidate(task, candidate)
        seconds = time.monotonic() - begun
        search.methods.append(
            Attempt(candidate.method, evaluated.model.parameters, evaluated.psnr, seconds, candidate.remark)
        )
        if not task.allows(evaluated.model.parameters):
            continue
        if search.best is None or _better(evaluated, search.best, task):
            search.best = evaluated
        if evaluated.exact:
            search.stopped = "exact: within one level everywhere, and the same in 99.9 % of pixels or more"
            break
    task.progress(len(METHODS), len(METHODS), _so_far(search.best))
    return search


def _better(evaluated: _Evaluated, best: _Evaluated, task: Task) -> bool:
    """Whether a candidate is to take the place of the best so far.

    Without a budget of weights, a network of four times the weights or more must gain 0.5 dB, or meet the
    goal, or be exact where the smaller one is not.
    """
    larger = evaluated.model.parameters >= MUCH_LARGER * best.model.parameters
    meets = evaluated.psnr >= task.goal > best.psnr
    must_earn = task.weights is None and larger and not meets
    earned = evaluated.psnr > best.psnr + (EARNED if must_earn else 0.0)
    return evaluated.exact if evaluated.exact != best.exact else earned


def _fit(name: str) -> Callable[[Task], Candidate | None]:
    fit: Callable[[Task], Candidate | None] = import_module(f"diptych.filters.learning.{name}").fit
    return fit


def _so_far(best: _Evaluated | None) -> str:
    return "nothing so far" if best is None else f"best so far {best.psnr:.1f} dB"


def _evaluate_candidate(task: Task, candidate: Candidate) -> _Evaluated:
    """The candidate on whole held-out pictures; one that errs at ties only also with these decided otherwise."""
    evaluated = _evaluated(task, candidate)
    if isinstance(task.target, Pairs):
        evaluated = _best_padding_mode(task, evaluated)
    candidate = evaluated.candidate
    added_up = any(isinstance(layer, Conv) for layer in candidate.layers.layers)
    if evaluated.exact or not added_up or any(each.levels().largest > LARGEST for each in evaluated.compared):
        return evaluated
    for nudge in NUDGES:
        other = _evaluated(
            task, Candidate(_nudged(candidate.layers, nudge), candidate.method, candidate.remark)
        )
        if other.exact:
            return other
    return evaluated


def _best_padding_mode(task: Task, evaluated: _Evaluated) -> _Evaluated:
    """The candidate with whichever edge suits best: pairs cannot be asked what lies beyond their border."""
    layers = evaluated.candidate.layers.layers
    if not any(isinstance(layer, Pad) for layer in layers):
        return evaluated
    small = sum(pair.inputs.size for pair in task.held_out) < SMALL
    for padding_mode in PADDING_MODES:
        if padding_mode != task.padding_mode and not evaluated.exact and (small or task.time_left > 0):
            changed = Chain(
                tuple(replace(one, mode=padding_mode) if isinstance(one, Pad) else one for one in layers)
            )
            other = _evaluated(task, replace(evaluated.candidate, layers=changed))
            if (other.exact, other.psnr) > (evaluated.exact, evaluated.psnr):
                evaluated = replace(other, padding_mode=padding_mode)
    return evaluated


def _nudged(layers: Chain, levels: float) -> Chain:
    """The last convolution's results a tiny bit higher."""
    changed = list(layers.layers)
    at = max(index for index, layer in enumerate(changed) if isinstance(layer, Conv))
    conv = changed[at]
    assert isinstance(conv, Conv)
    bias = np.zeros(len(conv.weight)) if conv.bias is None else conv.bias
    changed[at] = replace(conv, bias=(bias + levels / 255).astype(np.float32))
    return Chain(tuple(changed))


def _evaluated(task: Task, candidate: Candidate) -> _Evaluated:
    model = _model(task.target, candidate)
    answers = _answers(model)
    compared = tuple(
        Compared(name, *answers(picture), picture_of(pair.target))
        for (name, picture), pair in zip(task.data.held_out.items(), task.held_out, strict=True)
    )
    psnr = float(np.mean([min(metrics.psnr_of(each.error()), HIGHEST_PSNR) for each in compared]))
    exact = _is_exact((each.levels(), pair) for each, pair in zip(compared, task.held_out, strict=True))
    if exact and task.answers:
        hard = probing_queries.extremes(task.target, task.seed)
        exact = _is_exact(
            (metrics.levels(answers(pair.picture)[1], picture_of(pair.target)), pair) for pair in hard
        )
    return _Evaluated(candidate, model, compared, psnr, exact, task.padding_mode)


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
        pixels = pair.target[0].size
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


def _baseline_remarks(scores: FilterEvaluation) -> list[str]:
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


def _learned_filter(
    task: Task, best: _Evaluated, search: _Search, seconds: float, remarks: Sequence[str]
) -> Learned:
    target, candidate = task.target, best.candidate
    samples = [
        Sample(name, picture, picture_of(pair.target))
        for (name, picture), pair in zip(task.data.held_out.items(), task.held_out, strict=True)
    ]
    scores = evaluate_samples(
        best.model,
        samples,
        target=target.name,
        reference=target.reference,
        padding_mode=best.padding_mode,
        compared=best.compared,
    )
    baseline_remarks = [] if best.exact else _baseline_remarks(scores)
    report = LearningReport(
        target=target.name,
        reference=target.reference,
        method=candidate.method,
        weights=best.model.parameters,
        seconds=seconds,
        psnr=scores.whole.psnr,
        worst_psnr=scores.whole.worst_psnr,
        stopped=candidate.stopped or search.stopped,
        methods=tuple(search.methods),
        scores=scores.to_document(),
        curve=candidate.curve,
        remarks=tuple(remark for remark in (candidate.remark, *baseline_remarks, *remarks) if remark),
    )
    described = {"edge": best.padding_mode, "per_channel": target.per_channel, **report.to_document()}
    return Learned(best.model.with_(notes={"filter": described}), report)
