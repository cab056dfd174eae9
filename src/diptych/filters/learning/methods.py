"""`learn`: try the methods of this package in order, and keep the best network that they find.

Closed forms come before training. The search ends with the first network that is exact, when the goal is
met, or when the time is up.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
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
from diptych.filters.evaluating import HIGHEST_PSNR, Compared, FilterEvaluation, evaluate_samples
from diptych.filters.learned import Attempt, Learned, LearningReport
from diptych.filters.learning import borders, probing_queries
from diptych.filters.learning.task import CEILING, Candidate, Pair, Task
from diptych.filters.planes import picture_of
from diptych.filters.samples import Answers, FilterSample, answering, taught_from
from diptych.filters.target import Target
from diptych.filters.targets import resolve
from diptych.filters.targets.pairs import Pairs
from diptych.filters.targets.probing import PADDING_MODES, probe
from diptych.model.layers import Array, Chain, Conv, Pad, PadMode
from diptych.model.model import Model
from diptych.preprocessing import Colour, Grey, Preprocessing, Scale
from diptych.progress import Progress, silent

__all__ = ["GOAL", "METHODS", "learn"]

# Each names a module of this package with `fit(task) -> Candidate | None`. Closed forms come first.
CLOSED = ("linear", "curves", "ranks", "piecewise_linear")
TRAINED = ("relu", "dilated")
METHODS = (*CLOSED, *TRAINED)

_BASELINE_NAMES = {
    "constant": "mean grey or colour",
    "identity": "unchanged picture",
    "best linear": "best linear filter of 7 x 7 pixels",
}
GOAL = 70.0  # dB; the error is then a quarter of what rounding to 8 bits causes
SMALL = 3_000_000  # input values; so few are evaluated even when the time is up
TOO_SHORT = 2.0  # seconds; training is not begun with less time left
EVALUATION_SHARE = 0.15  # of the time budget, reserved for evaluating what was found
MIN_GAIN, MUCH_LARGER = 0.5, 4  # A network of MUCH_LARGER times the weights must gain so many dB.
BELOW_BASELINE = 0.5  # dB; a network that is further below a baseline gets a remark
MIN_IDENTICAL, MAX_ERROR = 0.999, 1  # share of equal pixels, and levels of 255
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
        goal: The PSNR in dB on held-out pictures at which the search ends. By default 70 dB, 58.8 dB for
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
    psnr: float
    exact: bool
    padding_mode: PadMode


@dataclass
class _Search:
    """The state of the search: the best candidate so far, and every attempt."""

    best: _Evaluated | None = None
    methods: list[Attempt] = field(default_factory=list)
    stopped: str = "every method was tried"


def _search(task: Task, goal: float | None) -> _Search:
    search = _Search()
    for number, name in enumerate(METHODS):
        if search.best is not None and task.time_left <= (TOO_SHORT if name in TRAINED else 0):
            search.stopped = "the time budget was spent"
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
        return answering(model, "onnxruntime")  # it needs no compiling, unlike Halide
    except UnsupportedLayer:
        return answering(model, "numpy")


def _is_exact(found: Iterator[tuple[metrics.Levels, Pair]]) -> bool:
    """Whether all pictures together meet the limits `MIN_IDENTICAL` and `MAX_ERROR`."""
    same = total = 0.0
    for levels, pair in found:
        if levels.largest > MAX_ERROR:
            return False
        pixels = pair.target[0].size
        same, total = same + levels.identical * pixels, total + pixels
    return same >= MIN_IDENTICAL * total


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
    task: Task, best: _Evaluated, search: _Search, seconds: float, remarks: Sequence[str]
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
