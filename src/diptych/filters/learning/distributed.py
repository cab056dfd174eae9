"""Training on several processes, as PyTorch's own launcher starts them: `torchrun --nproc-per-node 2 -m diptych ...`.

The first process does all that it does alone, and decides everything. The others only compute gradients: each gets a
share of every batch. A step then has the gradient of the whole batch, so the result is that of one process but for
rounding (`tests/test_learn_on_two_processes.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

__all__ = ["backward", "is_first", "processes", "summed", "workers_serving"]

Loss = Callable[[Tensor, Tensor], Tensor]


def processes() -> int:
    """How many processes train together; 1 without the launcher."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this process is the one that decides, by what the launcher has set."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def workers_serving() -> Iterator[None]:
    """Joins the processes that the launcher has started; those that are not the first serve until the block ends.

    Without the launcher, or with one process, nothing happens.

    Yields:
        In the first process; the others leave with `SystemExit` when it has ended the block.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or processes() > 1:
        yield
        return
    dist.init_process_group("gloo")
    try:
        if is_first():
            try:
                yield
            finally:
                dist.scatter_object_list([None], [None] * processes())
                dist.barrier()  # none may leave while another still sends
        else:
            _serve()
            dist.barrier()
            raise SystemExit(0)
    finally:
        dist.destroy_process_group()


def backward(module: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor) -> float:
    """The loss of a batch, whose gradients are added to those of the module's parameters.

    Args:
        module: The network.
        loss: From outputs and targets to a scalar that is a mean over samples. A function of a module, since it
            travels by its name.
        inputs: (N, ...). With several processes each computes for a part of it.
        targets: (N, ...).

    Returns:
        The loss.
    """
    count = min(processes(), len(inputs))
    if count < 2:
        error = loss(module(inputs), targets)
        error.backward()  # type: ignore[no-untyped-call]
        return float(error.detach())
    size, share = len(inputs), -(-len(inputs) // count)
    parts = list(zip(torch.split(inputs, share), torch.split(targets, share), strict=True))
    work: list[Any] = [(module, loss, *part, len(part[0]) / size) for part in parts]
    work += [(module, loss, inputs[:1], targets[:1], 0.0)] * (processes() - len(work))
    dist.scatter_object_list([None], work)
    return _computed(*work[0])


def _serve() -> None:
    """Computes gradients for the first process until it sends nothing more."""
    while True:
        work: list[Any] = [None]
        dist.scatter_object_list(work, None)
        if work[0] is None:
            return
        _computed(*work[0])


def _computed(module: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor, weight: float) -> float:
    """The loss of the whole batch; its gradients are added to the module's, from the part that is given."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    error = loss(module(inputs), targets)
    gradients = torch.autograd.grad(error, parameters)
    loss_of_all, sums = summed(error, gradients, weight)
    for parameter, total in zip(parameters, sums, strict=True):
        parameter.grad = total if parameter.grad is None else parameter.grad + total
    return loss_of_all


def summed(loss: Tensor, gradients: Sequence[Tensor], weight: float) -> tuple[float, list[Tensor]]:
    """Sums the loss and the gradients of all processes, in one message.

    Args:
        loss: Of this process's part of a batch, a scalar.
        gradients: Of any shapes, the same in each process.
        weight: The share of the batch that the part is.

    Returns:
        The loss of the batch, and its gradients in the shapes that were given.
    """
    flat = torch.cat([loss.detach().reshape(1), *(gradient.flatten() for gradient in gradients)]) * weight
    dist.all_reduce(flat)
    sums = torch.split(flat[1:], [gradient.numel() for gradient in gradients])
    return float(flat[0]), [
        total.view(gradient.shape) for total, gradient in zip(sums, gradients, strict=True)
    ]
