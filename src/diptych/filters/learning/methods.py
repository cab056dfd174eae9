"""`learn`: try the methods of this package in order, and keep the best network that they find.

Closed forms come before training. The search ends with the first network that is exact, when the goal is
met, or when the time is up.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from math import inf, isfinite
from pathlib import Path
from typing import Any

import numpy as np

from diptych.errors import UnsupportedLayer, UsageError
from diptych.extras import imported
from diptych.files import check_writable
from diptych.filters import metrics
from diptych.filters.data import Data
from diptych.filters.evaluating import HIGHEST_PSNR, Compared, FilterEvaluation, evaluate_samples
from diptych.filters.learned import Attempt, Learned, LearningReport
from diptych.filters.learning import borders, probing_queries
from diptych.filters.learning.task import CEILING, Candidate, Task
from diptych.filters.planes import picture_of
from diptych.filters.samples import Answers, FilterSample, answering, taught_from
from diptych.filters.target import Target
from diptych.filters.targets import resolve
from diptych.filters.targets.pairs import Pairs
from diptych.filters.targets.probing import PADDING_MODES, Findings, probe
from diptych.filters.verdicts import MAX_ERROR, is_exact, judged
from diptych.model.layers import Array, Chain, Conv, Pad, PadMode
from diptych.model.model import Model
from diptych.preprocessing import Colour, Grey, Preprocessing, Scale
from diptych.progress import Progress, silent

__all__ = ["GOAL", "METHODS", "learn"]

# Each names a module of this package with `fit(task) -> Candidate | None`. Closed forms come first.
CLOSED = ("linear", "staged", "curves", "ranks", "piecewise_linear", "linear_light", "kernel_curves")
TRAINED = ("relu", "dilated")
METHODS = (*CLOSED, *TRAINED)

_BASELINE_NAMES = {
    "constant": "mean grey or colour",
    "identity": "unchanged picture",
    "best linear": "best linear filter of 7 x 7 pixels",
}
GOAL = 70.0  # dB; the error is then a quarter of what rounding to 8 bits causes
SMALL = 3_000_000  # input values; so few are evaluated even when the time is up
RESERVED = 4.0  # times an evaluation, for one more and for the figures of the report
TOO_SHORT = {"relu": 2.0, "dilated": 6.0}  # seconds; a training is not begun with less time left
HELD_OUT_SHARE = 0.15  # of the time budget, at most, for applying a slow filter to the held-out pictures
TRIED, LEAST_SIDE = 64, 48  # pixels; sides of a trial picture, and of the smallest held-out pictures
PROBED_PIXELS, PROBED_SHARE = 1.1e6, 0.5  # that probing needs at most, and the share of the budget for them
EVALUATION_SHARE = 0.15  # of the time budget, reserved for evaluating what was found
MIN_GAIN, MUCH_LARGER = 0.5, 4  # A network of MUCH_LARGER times the weights must gain so many dB.
BELOW_BASELINE = 0.5  # dB; a network that is further below a baseline gets a remark
NUDGES = (1 / 4096, -1 / 4096)  # levels; they decide ties in rounding and change nothing else


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
    """Finds a small network that computes what a filter computes.

    The same arguments give the same network, as long as no `budget` of time is set. Under PyTorch's launcher
    (`torchrun`) the processes share the gradients of what is trained; the first alone returns, and the others end.

    Args:
        target: The filter, as `filters.resolve` takes it: a name such as "sobel" or "gaussian:sigma=2", the
            text "package.module:function", a function, or pictures (before, after).
        images: The pictures to learn from, as `filters.data.gather` takes them. By default the photographs
            that come with scikit-image, and synthetic pictures.
        weights: The largest number of weights that the network may have; None for no limit.
        budget: The time in seconds after which the best network so far is returned; None for no limit.
        seed: A whole number of at least 0 from which all random choices are drawn.
        goal: The PSNR in dB over all held-out pictures together at which the search ends, where no picture is more
            than 3 dB below it. By default 70 dB, 58.8 dB for
            filters that round to whole levels, and no goal where `weights` is given.
        checkpoint: A file to which training saves its state, and from which it resumes.
        progress: Called with the methods done, all methods, and a line of text.

    Returns:
        The model, and the report of how it was found and how good it is.

    Raises:
        UsageError: An argument is out of range, the pictures have no detail, no network of at most `weights`
            weights was found, or the filter needs more than a neighbourhood of each pixel.
        FormatError: `checkpoint` is not a checkpoint.
        ImageError: A picture cannot be read.
        OutputError: `checkpoint` cannot be written.
    """
    with together():
        return _learn(target, images, weights, budget, seed, goal, checkpoint, progress)


def together() -> AbstractContextManager[None]:
    """Joins the processes of PyTorch's launcher; see `distributed.workers_serving`. Nothing happens without it."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return nullcontext()
    serving: AbstractContextManager[None] = imported("diptych.filters.learning.distributed").workers_serving()
    return serving


def _learn(
    target: Any,
    images: Any,
    weights: int | None,
    budget: float | None,
    seed: int,
    goal: float | None,
    checkpoint: str | Path | None,
    progress: Progress,
) -> Learned:
    started = time.monotonic()
    _check(weights, budget, goal, seed)
    _check_checkpoint(checkpoint)
    resolved = resolve(target)
    per_pixel = 0.0 if budget is None else _seconds_per_pixel(resolved, budget)
    found = probe(resolved, seed=seed)
    gathered = taught_from(found.target, images, seed, progress)
    gathered, remarks = (
        (gathered, found.remarks) if budget is None else _affordable(found, gathered, budget, per_pixel)
    )
    task = Task(
        target=found.target,
        data=gathered,
        weights=weights,
        goal=_goal(found.target, weights, goal),
        deadline=inf if budget is None else started + (1 - EVALUATION_SHARE) * budget,
        end=inf if budget is None else started + budget,
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
    return _learned_filter(task, best, search, started, remarks)


def _seconds_per_pixel(target: Target, budget: float) -> float:
    """The time that a filter takes; refuses a budget that is too short for finding out what the filter does."""
    if isinstance(target, Pairs):
        return 0.0
    shape = (TRIED, TRIED, 3)[: 3 if target.channels[0] == 3 else 2]
    picture = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    target(picture)  # which may import what it needs
    began = time.monotonic()
    target(picture)
    seconds = (time.monotonic() - began) / TRIED**2
    if target.radius is None and PROBED_PIXELS * seconds > PROBED_SHARE * (budget + 1):
        raise UsageError(
            f"{target.name} takes {1e6 * seconds:.1f} s for a megapixel, so finding out what it does takes longer than "
            f"{budget:g} s allow; allow at least {np.ceil(PROBED_PIXELS * seconds / PROBED_SHARE):.0f} s"
        )
    return seconds


def _affordable(found: Findings, data: Data, budget: float, per_pixel: float) -> tuple[Data, tuple[str, ...]]:
    """The pictures, cut to their middles where a slow filter would spend too much of the budget on them."""
    target = found.target
    pixels = HELD_OUT_SHARE * budget / len(data.held_out) / max(per_pixel, 1e-12)
    if sum(np.prod(picture.shape[:2]) for picture in data.held_out.values()) <= pixels * len(data.held_out):
        return data, found.remarks
    side = max(LEAST_SIDE, int(pixels**0.5))
    held_out = {name: _middle(picture, side) for name, picture in data.held_out.items()}
    remark = (
        f"{target.name} is slow: within {budget:g} s it is judged on the middle {side} x {side} pixels of the held-out "
        "pictures; allow more time"
    )
    return Data(lambda: tuple(_middle(p, side) for p in data.train), held_out), (*found.remarks, remark)


def _middle(picture: Array, side: int) -> Array:
    top, left = (max(0, (size - side) // 2) for size in picture.shape[:2])
    return np.ascontiguousarray(picture[top : top + side, left : left + side])


def _check(weights: int | None, budget: float | None, goal: float | None, seed: int) -> None:
    if weights is not None and not (_is_whole(weights) and weights >= 1):
        raise UsageError(f"weights must be a whole number of at least 1, not {weights!r}")
    for name, value in (("budget", budget), ("goal", goal)):
        unit = {"budget": "seconds", "goal": "dB"}[name]
        is_number = isinstance(value, float | np.floating) or _is_whole(value)
        if value is not None and not (is_number and isfinite(value) and value > 0):
            raise UsageError(f"{name} must be a number of {unit} above 0, not {value!r}")
    if not (_is_whole(seed) and seed >= 0):
        raise UsageError(f"seed must be a whole number of at least 0, not {seed!r}")


def _check_detail(pictures: Sequence[Array]) -> None:
    if all((picture == picture[0, 0]).all() for picture in pictures):
        raise UsageError(
            "each picture to learn from is of a single colour, from which nothing can be learned; name pictures "
            "with detail"
        )


def _check_checkpoint(path: str | Path | None) -> None:
    """Refuses an unusable checkpoint at once, not only when training begins."""
    if path is None:
        return
    if Path(path).is_dir():
        raise UsageError(f"the checkpoint {path} is a folder; name a file in it")
    check_writable(path)
    if Path(path).exists():
        from diptych.filters.learning import checkpoint

        checkpoint.look(Path(path))


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _goal(target: Target, weights: int | None, goal: float | None) -> float:
    if goal is not None:
        return float(goal)
    if weights is not None:
        return inf
    return CEILING if target.rounded else GOAL


# ---- Searching ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Evaluated:
    """A candidate as a model, with its results on the held-out pictures."""

    candidate: Candidate
    model: Model
    compared: tuple[Compared, ...]  # one for each held-out picture
    pooled: float  # PSNR in dB over all pictures
    worst: float  # PSNR in dB of the worst picture
    exact: bool
    padding_mode: PadMode

    @property
    def psnr(self) -> float:
        """What decides; see `judged`."""
        return judged(self.pooled, self.worst)


@dataclass
class _Search:
    """The state of the search: the best candidate so far, and every attempt."""

    best: _Evaluated | None = None
    methods: list[Attempt] = field(default_factory=list)
    stopped: str = "every method was tried"


def _search(task: Task, goal: float | None) -> _Search:
    search = _Search()
    for number, name in enumerate(METHODS):
        if search.best is not None and task.time_left <= TOO_SHORT.get(name, 0.0):
            left = task.time_left
            spent, short = "the time budget was spent", f"the {left:.0f} s left are too short for training"
            search.stopped = spent if left < 1 else f"{short} ({name})"
            break
        enough = task.goal if name in TRAINED or goal is not None else inf
        if search.best is not None and search.best.psnr >= enough:
            search.stopped = f"the goal of {enough:.1f} dB was met"
            break
        task.progress(number, len(METHODS), f"{name}, {_progress_text(search.best)}")
        begun = time.monotonic()
        candidate = _fit(name)(task)
        if candidate is None:
            continue
        fitted = time.monotonic()
        evaluated = _evaluate_candidate(task, candidate)
        seconds = time.monotonic() - begun
        task.keep_free(RESERVED * (time.monotonic() - fitted))
        search.methods.append(
            Attempt(
                candidate.method,
                evaluated.model.parameters,
                evaluated.pooled,
                seconds,
                candidate.remark,
                evaluated.worst,
            )
        )
        if not task.allows(evaluated.model.parameters):
            continue
        if search.best is None or _better(evaluated, search.best, task):
            search.best = evaluated
        if evaluated.exact:
            search.stopped = "exact: no error above one level, and at least 99.9 % of pixels identical"
            break
    task.progress(len(METHODS), len(METHODS), _progress_text(search.best))
    return search


def _better(evaluated: _Evaluated, best: _Evaluated, task: Task) -> bool:
    """Whether a candidate replaces the best so far.

    Exact beats inexact; otherwise the higher PSNR wins. Without a limit on weights, a network of `MUCH_LARGER`
    times the weights must gain `MIN_GAIN` dB or be the first to meet the goal.
    """
    larger = evaluated.model.parameters >= MUCH_LARGER * best.model.parameters
    meets = evaluated.psnr >= task.goal > best.psnr
    must_earn = task.weights is None and larger and not meets
    earned = evaluated.psnr > best.psnr + (MIN_GAIN if must_earn else 0.0)
    return evaluated.exact if evaluated.exact != best.exact else earned


def _fit(name: str) -> Callable[[Task], Candidate | None]:
    fit: Callable[[Task], Candidate | None] = imported(f"diptych.filters.learning.{name}").fit
    return fit


def _progress_text(best: _Evaluated | None) -> str:
    return "nothing so far" if best is None else f"best so far {best.psnr:.1f} dB"


def _evaluate_candidate(task: Task, candidate: Candidate) -> _Evaluated:
    """The candidate on the held-out pictures, with ties in rounding decided the best way.

    Where every error is a single level, the network may round halves the other way than the filter does. The
    last bias is then moved by a tiny amount, up and down, and kept where that makes the network exact.
    """
    evaluated = _evaluated(task, candidate)
    if isinstance(task.target, Pairs):
        evaluated = _best_padding_mode(task, evaluated)
    candidate = evaluated.candidate
    added_up = any(isinstance(layer, Conv) for layer in candidate.layers.layers)
    if (
        evaluated.exact
        or not added_up
        or any(each.levels().largest > MAX_ERROR for each in evaluated.compared)
    ):
        return evaluated
    for nudge in NUDGES:
        other = _evaluated(
            task, Candidate(_nudged(candidate.layers, nudge), candidate.method, candidate.remark)
        )
        if other.exact:
            return other
    return evaluated


def _best_padding_mode(task: Task, evaluated: _Evaluated) -> _Evaluated:
    """The candidate with the padding mode that suits pairs best: they do not tell their border."""
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
    """The layers with the last convolution's bias raised by a fraction of a level."""
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
    errors, sizes = [each.error() for each in compared], [pair.target[0].size for pair in task.held_out]
    pooled, worst = (
        min(metrics.psnr_of(float(error)), HIGHEST_PSNR)
        for error in (np.average(errors, weights=sizes), max(errors))
    )
    exact = _is_exact(compared)
    if exact and task.answers:
        hard = probing_queries.extremes(task.target, task.seed)
        exact = _is_exact([Compared("", *answers(pair.picture), picture_of(pair.target)) for pair in hard])
    return _Evaluated(candidate, model, compared, pooled, worst, exact, task.padding_mode)


def _answers(model: Model) -> Answers:
    try:
        return answering(model, "onnxruntime")  # it needs no compiling, unlike Halide
    except UnsupportedLayer:
        return answering(model, "numpy")


def _is_exact(compared: Sequence[Compared]) -> bool:
    """Whether all pictures together meet the limits of what is exact; see `verdicts`."""
    levels, sizes = (
        [each.levels() for each in compared],
        [np.prod(each.target.shape[:2]) for each in compared],
    )
    worst = metrics.psnr_of(max(each.error() for each in compared))
    identical = float(np.average([each.identical for each in levels], weights=sizes))
    return is_exact(max(each.largest for each in levels), identical, worst)


# ---- The result ---------------------------------------------------------------------------------------


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
    """A remark where a baseline beats the network visibly over all pictures together.

    The pooled PSNR is compared, because a picture that the filter leaves unchanged counts as 150 dB for the
    identity and would dominate a mean.
    """
    name, best = max(scores.baselines.items(), key=lambda item: item[1].pooled_psnr)
    if scores.whole.pooled_psnr >= min(best.pooled_psnr - BELOW_BASELINE, GOAL):
        return []
    return [
        f"on the held-out pictures the {_BASELINE_NAMES[name]} reaches {best.pooled_psnr:.1f} dB and this network "
        f"only {scores.whole.pooled_psnr:.1f} dB; allow more time or weights, or learn from more pictures"
    ]


def _learned_filter(
    task: Task, best: _Evaluated, search: _Search, started: float, remarks: Sequence[str]
) -> Learned:
    target, candidate = task.target, best.candidate
    samples = [
        FilterSample(name, picture, picture_of(pair.target))
        for (name, picture), pair in zip(task.data.held_out.items(), task.held_out, strict=True)
    ]
    scores = evaluate_samples(
        best.model,
        samples,
        target=target.name,
        reference=target.reference,
        padding_mode=best.padding_mode,
        compared=best.compared,
        exact=best.exact,
        noisy=isinstance(target, Pairs),
    )
    baseline_remarks = [] if best.exact else _baseline_remarks(scores)
    report = LearningReport(
        target=target.name,
        reference=target.reference,
        method=candidate.method,
        weights=best.model.parameters,
        seconds=time.monotonic() - started,
        psnr=scores.whole.pooled_psnr,
        worst_psnr=scores.whole.worst_psnr,
        stopped=candidate.stopped or search.stopped,
        verdict=scores.verdict,
        methods=tuple(search.methods),
        scores=scores.to_document(),
        curve=candidate.curve,
        remarks=tuple(remark for remark in (candidate.remark, *baseline_remarks, *remarks) if remark),
    )
    described = {"edge": best.padding_mode, "per_channel": target.per_channel, **report.to_document()}
    return Learned(best.model.with_(notes={"filter": described}), report)
