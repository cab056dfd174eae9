"""What all networks share: pictures as they take them; steps, learning rate, average weights, checkpoints, a log.

Every random choice of a step is drawn from (seed, step) alone, so a run that is killed at any moment and
started again goes on exactly as if nothing had happened.

Under PyTorch's launcher (`torchrun`) each process computes the gradient of its share of every batch; the first one
keeps the state on disk. The result is that of one process but for rounding.
"""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import nn

from diptych.filters.learning.distributed import processes, summed

__all__ = [
    "Plan",
    "device_named",
    "generator_at",
    "is_first",
    "join",
    "pixels",
    "resume",
    "share",
    "train",
    "wait",
]


@dataclass(frozen=True)
class Plan:
    """How long and how fast to learn, and where to keep the state.

    The learning rate warms up over `warm_up` steps, stays, and falls to zero over the last `cooling` part of
    `steps`: a run can be prolonged by a larger `steps` as long as it has not begun to cool.
    """

    folder: Path
    steps: int
    rate: float
    batch: int = 32
    seed: int = 0
    warm_up: int = 200
    cooling: float = 0.2
    decay: float = 0.01
    average: float = 0.999
    save_every: int = 200
    device: str = "cpu"

    def rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        left = (self.steps - step) / max(1.0, self.cooling * self.steps)
        return self.rate * min(1.0, (step + 1) / self.warm_up, left)


def device_named(name: str) -> str:
    """`auto` is the fastest device there is."""
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def pixels(pictures: npt.NDArray[np.uint8], device: str = "cpu") -> torch.Tensor:
    """uint8 (N, H, W, 3) to float32 (N, 3, H, W) in -1..1."""
    given = torch.from_numpy(np.ascontiguousarray(pictures)).to(device)
    return given.permute(0, 3, 1, 2).contiguous().float().div(127.5).sub(1)


def generator_at(seed: int, step: int) -> torch.Generator:
    """The random numbers of one step, drawn on the CPU: the same on every device."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)


def join() -> None:
    """Joins the processes that the launcher has started, if it has."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def is_first() -> bool:
    """Whether this process keeps the state on disk."""
    return not dist.is_initialized() or dist.get_rank() == 0


def wait() -> None:
    """Waits until all processes are here."""
    if dist.is_initialized():
        dist.barrier()


def share(batch: torch.Tensor) -> torch.Tensor:
    """This process's part of what was drawn for a whole batch; its size is a multiple of the number of processes."""
    count = processes()
    if len(batch) % count:
        raise SystemExit(f"a batch of {len(batch)} cannot be shared by {count} processes; take a multiple")
    return batch if count == 1 else batch.chunk(count)[dist.get_rank()]


def _average(network: nn.Module, loss: torch.Tensor) -> float:
    """Gives all processes the mean of their gradients; returns the mean of their losses."""
    if processes() == 1:
        return float(loss.detach())
    parameters = [parameter for parameter in network.parameters() if parameter.grad is not None]
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    mean, gradients = summed(loss, gradients, 1 / processes())
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    return mean


def train(
    plan: Plan,
    network: nn.Module,
    loss_of: Callable[[int, torch.Generator], torch.Tensor],
    settings: dict[str, Any],
    on_save: Callable[[int, nn.Module], dict[str, float]] = lambda step, average: {},
    optimisers: Sequence[torch.optim.Optimizer] = (),
) -> nn.Module:
    """Train `network` in place from its latest checkpoint to the last step; returns the average weights.

    `loss_of(step, generator)` gives the loss of a batch, `on_save(step, average)` figures for the log each
    time a checkpoint is written. `settings` describe the network and are kept in the checkpoint. The optimiser
    is AdamW unless others are given. A loss is a mean over samples, and of the `share` of a batch. Writes
    `checkpoint.pt` and `log.jsonl` in the plan's folder.
    """
    plan.folder.mkdir(parents=True, exist_ok=True)
    average = _copy(network)
    optimisers = optimisers or [torch.optim.AdamW(network.parameters(), plan.rate, weight_decay=plan.decay)]
    first = resume(plan.folder, network, average, optimisers)
    wait()  # before the first process writes another checkpoint
    network.train()
    began, seen, total = time.perf_counter(), 0, 0.0
    for step in range(first, plan.steps):
        for group in (group for optimiser in optimisers for group in optimiser.param_groups):
            group["lr"] = plan.rate_at(step)
        with torch.autocast("cuda", torch.bfloat16, enabled=plan.device == "cuda"):
            loss = loss_of(step, generator_at(plan.seed, step))
        network.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        mean = _average(network, loss)
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
        _blend(average, network, min(plan.average, (step + 1) / (step + 10)))
        seen, total = seen + 1, total + mean
        if (step + 1) % plan.save_every == 0 or step + 1 == plan.steps:
            if not math.isfinite(total):
                raise SystemExit(f"the loss is not a number at step {step + 1}; lower the learning rate")
            seconds = time.perf_counter() - began
            line = {
                "step": step + 1,
                "loss": total / seen,
                "images/s": seen * plan.batch / seconds,
            }
            if is_first():
                line |= on_save(step + 1, average)
                _save(plan.folder, step + 1, network, average, optimisers, settings)
                _log(plan.folder / "log.jsonl", line)
            began, seen, total = time.perf_counter(), 0, 0.0
    wait()
    return average


def resume(
    folder: Path,
    network: nn.Module,
    average: nn.Module | None = None,
    optimisers: Sequence[torch.optim.Optimizer] = (),
) -> int:
    """Fill in what the folder's checkpoint holds, if there is one; returns the steps done."""
    path = folder / "checkpoint.pt"
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    network.load_state_dict(state["network"])
    if average is not None:
        average.load_state_dict(state["average"])
    for optimiser, kept in zip(optimisers, state["optimisers"], strict=False):
        optimiser.load_state_dict(kept)
    return int(state["step"])


def _save(
    folder: Path,
    step: int,
    network: nn.Module,
    average: nn.Module,
    optimisers: Sequence[torch.optim.Optimizer],
    settings: dict[str, Any],
) -> None:
    state = {
        "step": step,
        "network": network.state_dict(),
        "average": average.state_dict(),
        "optimisers": [optimiser.state_dict() for optimiser in optimisers],
        "settings": settings,
    }
    unfinished = folder / "checkpoint.pt.part"
    torch.save(state, unfinished)
    unfinished.replace(folder / "checkpoint.pt")


def _log(path: Path, line: dict[str, Any]) -> None:
    shown = {key: round(value, 5) if isinstance(value, float) else value for key, value in line.items()}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(shown) + "\n")


def _copy(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).requires_grad_(False).eval()


@torch.no_grad()
def _blend(average: nn.Module, network: nn.Module, keep: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - keep)
