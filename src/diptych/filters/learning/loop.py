"""The training loop for all networks that are trained by gradients.

A step depends only on its number and the state: step n uses the batch `batches(n)` and the learning rate
`schedule(n, steps)`. So a training that was killed resumes bit for bit.
"""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from diptych.filters.learning import checkpoint, distributed
from diptych.filters.learning.schedule import gain_per_doubling
from diptych.progress import Progress, silent

__all__ = ["Ending", "Trained", "charbonnier", "threads", "train"]

State: TypeAlias = dict[str, Tensor]


@dataclass(frozen=True)
class Ending:
    """When a training ends before its last step.

    Attributes:
        goal: The score that is enough.
        patience: Evaluations in a row without a better score after which to stop; None for no limit.
        gain: The smallest gain for a doubling of the steps (`gain_per_doubling`); checked from two thirds of
            all steps on.
        deadline: A `time.monotonic()`.
    """

    goal: float = math.inf
    patience: int | None = None
    gain: float = 0.0
    deadline: float = math.inf


@dataclass
class Trained:
    """The course of a training.

    Attributes:
        history: (step, mean loss since the last evaluation, score), one for each evaluation.
        best: The best score.
        best_step: The step of the best score.
        stopped: Why the training ended, in words.
    """

    history: list[tuple[float, float, float]] = field(default_factory=list)
    best: float = -math.inf
    best_step: int = 0
    stopped: str = ""


def charbonnier(result: Tensor, targets: Tensor) -> Tensor:
    """The Charbonnier loss, mean(sqrt(difference^2 + 1e-6)): an L1 loss that is smooth near 0.

    Source: Charbonnier, Blanc-Feraud, Aubert and Barlaud (1994).
    """
    return (result - targets).square().add(1e-6).sqrt().mean()


@contextmanager
def threads(count: int | None = None) -> Iterator[None]:
    """Sets the number of PyTorch's threads for a block of code; None leaves it. It is restored afterwards."""
    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)


def train(
    module: nn.Module,
    batches: Callable[[int], tuple[Tensor, Tensor]],
    evaluate: Callable[[nn.Module], float],
    *,
    steps: int,
    schedule: Callable[[int, int], float],
    loss: Callable[[Tensor, Tensor], Tensor] = charbonnier,
    evaluate_every: int = 100,
    averaging: float = 0.0,
    ending: Ending | None = None,
    state_file: Path | None = None,
    identity: str = "",
    progress: Progress = silent,
    told: Callable[[float], str] = "{:.2f} dB".format,
) -> Trained:
    """Trains `module` in place with Adam, and leaves the weights with the best score in it.

    Args:
        module: The network.
        batches: From a step to its inputs and targets.
        evaluate: From the module to a score; higher is better. It is called every `evaluate_every` steps and
            at the end, with averaged weights.
        steps: The number of steps.
        schedule: From a step and the number of steps to the learning rate.
        loss: From outputs and targets to a scalar.
        evaluate_every: Steps between evaluations.
        averaging: The decay of the exponential average of the weights; 0 evaluates the current weights.
        ending: When to end early.
        state_file: A file to which the state is saved after each evaluation, and from which it resumes. The
            number of steps in it takes precedence over `steps`.
        identity: Tells trainings apart in state files.
        progress: Called with steps done, all steps, and a line of text.
        told: The best score in words.

    Returns:
        The course of the training.

    Raises:
        FormatError: The state file belongs to another training.
        OutputError: The state file cannot be written.
    """
    run = _Run(module, schedule, steps, averaging)
    if state_file is not None:
        state = checkpoint.load(state_file, identity)
        if state is not None:
            run.resume(state, state_file)
    ending = ending or Ending()
    run.trained.stopped = _why(run, ending) if run.done else ""
    while not run.trained.stopped:
        run.step(*batches(run.done), loss)
        if run.done % evaluate_every and run.done < run.steps and time.monotonic() < ending.deadline:
            continue
        run.evaluate(evaluate)
        run.trained.stopped = _why(run, ending)
        progress(run.done, run.steps, told(run.trained.best))
        if state_file is not None:
            checkpoint.save(state_file, run.state(), identity)
    module.load_state_dict(run.kept)
    return run.trained


class _Run:
    """The state of a training, advanced step by step."""

    def __init__(
        self,
        module: nn.Module,
        schedule: Callable[[int, int], float],
        steps: int,
        averaging: float,
    ) -> None:
        self.module, self.schedule, self.steps, self.averaging = module, schedule, steps, averaging
        self.optimiser = torch.optim.Adam(module.parameters(), schedule(0, steps), betas=(0.9, 0.99))
        self.done, self.losses = 0, 0.0
        self.trained = Trained()
        self.average = _copied(module.state_dict())
        self.kept = _copied(module.state_dict())

    def step(self, inputs: Tensor, targets: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = self.schedule(self.done, self.steps)
        self.optimiser.zero_grad()
        error = distributed.backward(self.module, loss, inputs, targets)
        self.optimiser.step()
        self.done += 1
        self.losses += error
        # The average starts with a short memory, so that the initial weights do not linger in it.
        decay = min(self.averaging, self.done / (self.done + 10))
        for name, value in self.module.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    def evaluate(self, evaluate: Callable[[nn.Module], float]) -> None:
        current = _copied(self.module.state_dict())
        self.module.load_state_dict(self.average)
        self.module.eval()
        with torch.no_grad():
            score = evaluate(self.module)
        self.module.train()
        self.module.load_state_dict(current)
        trained = self.trained
        since = self.done - (trained.history[-1][0] if trained.history else 0)
        trained.history.append((self.done, self.losses / since, score))
        self.losses = 0.0
        if score > trained.best:
            trained.best, trained.best_step = score, self.done
            self.kept = _copied(self.average)

    def state(self) -> dict[str, Any]:
        return {
            "module": self.module.state_dict(),
            "average": self.average,
            "kept": self.kept,
            "optimiser": self.optimiser.state_dict(),
            "random": torch.get_rng_state(),
            "done": self.done,
            "steps": self.steps,
            "trained": vars(self.trained),
        }

    def resume(self, state: dict[str, Any], path: Path) -> None:
        try:
            own = self.module.state_dict()
            self.module.load_state_dict(_fitting(state["module"], own))
            self.average, self.kept = _fitting(state["average"], own), _fitting(state["kept"], own)
            self.optimiser.load_state_dict(self._optimiser_state(state["optimiser"]["state"]))
            self.done, self.steps = int(state["done"]), int(state["steps"])
            trained = state["trained"]
            history = [(float(step), float(loss), float(score)) for step, loss, score in trained["history"]]
            evaluated = [0.0, *(step for step, _, _ in history), self.done + 1]
            if not all(map(operator.lt, evaluated, evaluated[1:])):
                raise ValueError("evaluations that are not in order, or of steps that were not done")
            self.trained = Trained(history, best=float(trained["best"]), best_step=int(trained["best_step"]))
            torch.set_rng_state(state["random"])
        except Exception as error:  # PyTorch raises anything for contents that do not fit
            raise checkpoint.damaged(path) from error

    def _optimiser_state(self, moments: dict[int, State]) -> dict[str, Any]:
        """The optimiser's own settings with the moments of a file, whose shapes are those of the parameters."""
        parameters = dict(enumerate(self.module.parameters()))
        fitting = {
            index: _fitting(
                state,
                {"step": torch.tensor(0.0), "exp_avg": parameters[index], "exp_avg_sq": parameters[index]},
            )
            for index, state in moments.items()
        }
        return {"state": fitting, "param_groups": self.optimiser.state_dict()["param_groups"]}


def _fitting(state: State, own: State) -> State:
    """A copy of the state; raises `ValueError` where it does not have the tensors that `own` has."""
    kinds = [
        {name: (value.shape, value.dtype, value.layout) for name, value in each.items()}
        for each in (state, own)
    ]
    if kinds[0] != kinds[1]:
        raise ValueError("weights of another network")
    return _copied(state)


def _copied(state: dict[str, Any]) -> State:
    return {name: value.detach().clone() for name, value in state.items()}


def _why(run: _Run, ending: Ending) -> str:
    """Why to stop now; empty to go on."""
    trained = run.trained
    if trained.best >= ending.goal:
        return f"the goal of {ending.goal:.1f} dB was met after {run.done} steps"
    since_best = sum(step > trained.best_step for step, _, _ in trained.history)
    if ending.patience is not None and since_best >= ending.patience:
        return f"{since_best} evaluations without improvement, after {run.done} steps"
    gain = gain_per_doubling([(step, score) for step, _, score in trained.history])
    if run.done >= 2 * run.steps / 3 and gain < ending.gain:
        return f"twice the steps would gain {max(gain, 0):.2f} dB, after {run.done} steps"
    if run.done >= run.steps:
        return f"all {run.steps} steps were taken"
    if time.monotonic() >= ending.deadline:
        return f"the time was up after {run.done} of {run.steps} steps"
    return ""
