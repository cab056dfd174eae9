"""Networks with a large radius: dilated 3 x 3 convolutions, and fixed local histograms.

The trunk is that of Chen, Xu and Koltun, "Fast Image Processing with Fully-Convolutional Networks" (2017), made
small and strictly local: it uses no statistics of the whole picture. More distant pixels enter through
`local_histograms`, which are computed once for each picture, so crops need only a small halo. On a CPU dense
layers of 16 channels train fastest: 50 GFLOP/s a thread, against 10 for depthwise ones. The last layer, which
also multiplies, is initialised with the least squares solution for random features, and training only improves
on that.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.filters.learning import checkpoint, local_histograms
from diptych.filters.learning.loop import Ending, Trained, threads, train
from diptych.filters.learning.schedule import Cosine
from diptych.filters.learning.task import CEILING, Candidate, Pair, Task, extended
from diptych.filters.verdicts import judged
from diptych.model.layers import (
    Activation,
    Array,
    Chain,
    Connection,
    Conv,
    Layer,
    Pad,
    PadMode,
    Parallel,
    SkipConnection,
)

__all__ = ["DilatedNet", "fit"]

GAPS = (1, 2, 4)
MAX_WIDTH = 64
MAX_WEIGHTS = 10_000  # weights, without a limit
SECONDS = 240.0  # seconds of training, without a budget
_GAIN = 0.05  # dB; training ends where twice the steps would gain less
_SLOPE = 0.1
_CROPS, _SIDE = 2, 96
_EVALUATED_SIDE = 192  # pixels; the side of the middles of held-out pictures
_SOLVER_BATCHES = 40  # batches for the least squares solution
_SOLVER_STRIDE = 7  # every so many pixels of them are used; not a divisor of a crop's side
_RIDGE = 1e-5
_STATES = 3  # networks among which the best is chosen after training
_LAYERS_COST = 2.5  # the time of an evaluation as layers, with its figures, in times of one by PyTorch
_TIMING_SHARE = 0.1  # of the time, at most, for timing a step
RATE = 2e-3


class DilatedNet(nn.Module):
    """A trunk of dilated convolutions, and a last layer with a product.

    It maps (N, COUNT + C, H, W), a picture after its local histograms, to (N, C', H - 2 halo, W - 2 halo). The trunk
    gives `width` features; together with all inputs they are z. The result is change z + (gain z) (factor z), with
    1 x 1 convolutions. Initially factor z is the picture, or its luma where the numbers of channels differ, so the
    network learns what to add and what to multiply by.

    Args:
        channels: The numbers of input and output channels.
        width: The number of features.
        gaps: The dilations of all convolutions but the first, which has dilation 1.
    """

    def __init__(self, channels: tuple[int, int], width: int, gaps: Sequence[int] = GAPS) -> None:
        super().__init__()
        self.channels = inputs, outputs = channels
        self.gaps = (1, *gaps)
        self.halo = sum(self.gaps)
        sizes = (inputs, *[width] * len(self.gaps))
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, dilation=g) for a, b, g in zip(sizes, sizes[1:], self.gaps, strict=False)
        )
        self.around = nn.Conv2d(local_histograms.COUNT + inputs, width, 1, bias=False)
        size = width + inputs + local_histograms.COUNT
        self.change = nn.Conv2d(size, outputs, 1)
        self.gain = nn.Conv2d(size, outputs, 1, bias=False)
        self.factor = nn.Conv2d(size, outputs, 1, bias=False)

    def initialise(self, generator: torch.Generator) -> None:
        """Draws fresh weights: inner layers close to the identity, and a result of zero."""
        inputs, outputs = self.channels
        with torch.no_grad():
            for index, conv in enumerate(self.convs):
                assert isinstance(conv, nn.Conv2d)
                assert conv.bias is not None
                deviation = math.sqrt(2 / (9 * conv.in_channels)) * (0.1 if index else 1.0)
                conv.weight.normal_(0, deviation, generator=generator)
                conv.bias.zero_()
                if index:
                    conv.weight[:, :, 1, 1] += torch.eye(conv.in_channels)
            self.around.weight.normal_(0, math.sqrt(1 / local_histograms.COUNT), generator=generator)
            for parameter in (*self.change.parameters(), self.gain.weight, self.factor.weight):
                parameter.zero_()
            same = (
                torch.eye(inputs) if inputs == outputs else torch.from_numpy(local_histograms.light(inputs))
            )
            self.factor.weight[:, -inputs:, 0, 0] = same

    def features(self, x: Tensor) -> Tensor:
        """z, (N, width + COUNT + C, H - 2 halo, W - 2 halo)."""
        value = x[:, -self.channels[0] :]
        for index, (conv, gap) in enumerate(zip(self.convs, self.gaps, strict=True)):
            value = conv(value)
            if not index:
                value = value + self.around(_inner(x, gap))
            value = F.leaky_relu(value, _SLOPE)
        return torch.cat([value, _inner(x, self.halo)], 1)

    def forward(self, x: Tensor) -> Tensor:
        """The network's result, without the halo."""
        z = self.features(x)
        result: Tensor = self.change(z) + self.gain(z) * self.factor(z)
        return result

    def solve(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Sets `change` and `gain` to the least squares solution for the other weights as they are.

        With the factor fixed, the result is linear in both: the columns are z, 1 and z (factor z). Their normal
        equations are summed over the batches, with a small ridge.
        """
        outputs = self.channels[1]
        normal: list[Any] = [0.0] * outputs
        with torch.no_grad():
            for inputs, targets in batches:
                z = self.features(inputs)
                factor = self.factor(z)
                ones = torch.ones_like(z[:, :1])
                for o in range(outputs):
                    columns = torch.cat([z, ones, z * factor[:, o : o + 1], targets[:, o : o + 1]], 1)
                    rows = columns.permute(1, 0, 2, 3).flatten(1)[:, ::_SOLVER_STRIDE].double()
                    normal[o] = normal[o] + rows @ rows.T
            for o, squares in enumerate(normal):
                left, right = squares[:-1, :-1], squares[:-1, -1]
                ridge = _RIDGE * left.trace() / len(left) * torch.eye(len(left))
                solved = torch.linalg.solve(left + ridge, right).float()
                count = self.change.in_channels
                assert self.change.bias is not None
                self.change.weight[o, :, 0, 0] = solved[:count]
                self.change.bias[o] = solved[count]
                self.gain.weight[o, :, 0, 0] = solved[count + 1 :]

    def layers(self, padding_mode: PadMode) -> Chain:
        """The network as layers for whole pictures, limited to 0..1."""
        leaky = Activation("leakyrelu", (_SLOPE,))
        convs = [
            Chain((Pad(((gap, gap),) * 2, padding_mode), Conv(*_arrays(conv), dilation=(gap, gap))))
            for conv, gap in zip(self.convs, self.gaps, strict=True)
        ]
        inputs = self.channels[0]
        picture = np.eye(inputs, local_histograms.COUNT + inputs, local_histograms.COUNT, dtype=np.float32)
        seen = Chain((Conv(picture[..., None, None]), *convs[0].layers))
        trunk: list[Layer] = [Parallel(Connection("add"), (seen, Conv(*_arrays(self.around)))), leaky]
        for conv in convs[1:]:
            trunk += [*conv.layers, leaky]
        change, gain, factor = (Conv(*_arrays(conv)) for conv in (self.change, self.gain, self.factor))
        product = Parallel(Connection("multiply"), (gain, factor))
        return Chain(
            (
                local_histograms.layers(inputs, padding_mode),
                SkipConnection(Chain(tuple(trunk)), Connection("concatenate")),
                Parallel(Connection("add"), (change, product)),
                Activation("clamp"),
            )
        )


def _rate(step: int, steps: int) -> float:
    return Cosine(RATE, warm_up=min(200, steps // 10), last=0.01)(step, steps)


def _root(result: Tensor, targets: Tensor) -> Tensor:
    """The mean over squares of their root mean square error; dark and bright squares count alike, as in PSNR."""
    return (result - targets).square().mean((1, 2, 3)).add(1e-10).sqrt().mean()


def _inner(planes: Tensor, border: int) -> Tensor:
    return planes[..., border : planes.shape[-2] - border, border : planes.shape[-1] - border]


def _arrays(conv: nn.Module) -> tuple[Array, Array | None]:
    assert isinstance(conv, nn.Conv2d)
    return _array(conv.weight), None if conv.bias is None else _array(conv.bias)


def _array(values: Tensor) -> Array:
    return np.ascontiguousarray(values.detach().numpy(), dtype=np.float32).copy()


def width_within(weights: int, channels: tuple[int, int]) -> int:
    """The largest width for at most so many weights, up to `MAX_WIDTH`; 0 where a width of 2 is too much."""
    inputs, outputs = channels
    seen = local_histograms.COUNT + inputs
    fixed = local_histograms.weights(inputs) + inputs * seen

    def size(width: int) -> int:
        trunk = (9 * inputs + 1 + seen) * width + len(GAPS) * (9 * width + 1) * width
        return fixed + trunk + (3 * (width + seen) + 1) * outputs

    return max((width for width in range(2, MAX_WIDTH + 1) if size(width) <= weights), default=0)


def fit(task: Task) -> Candidate | None:
    """A dilated network of at most `task.weights` (10,000) weights, trained until the deadline.

    None where the limit on weights is too small. The number of steps that the time allows is measured once, at the
    start, and kept in the checkpoint; from then on the training is the same bit for bit.
    """
    width = width_within(MAX_WEIGHTS if task.weights is None else task.weights, task.channels)
    if not width:
        return None
    with threads():
        training = Training(task)
        began = time.monotonic()
        net = training.network(width)
        solved = time.monotonic() - began
        initial = copy.deepcopy(net.state_dict())
        task.keep_free(training.seconds_of_evaluation(net))
        seconds = SECONDS if math.isinf(task.time_left) else task.time_left
        steps = training.steps_in(0.8 * seconds, width)
        goal = min(task.goal, CEILING if task.target.rounded else math.inf)
        ending = Ending(goal, gain=_GAIN, deadline=task.deadline)
        trained = training.run(net, steps, task.checkpoint, ending)
        training.keep_best(net, initial, solved)
        remarks = [
            _plural(int(trained.history[-1][0]), "step") + " on " + _plural(torch.get_num_threads(), "thread")
        ]
        if task.weights is None:
            remarks += training.probed(width, steps // 16)
    curve = tuple((float(step), loss, score) for step, loss, score in trained.history)
    return Candidate(net.layers(task.padding_mode), "dilated", "; ".join(remarks), curve, trained.stopped)


def _plural(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


@dataclass(frozen=True)
class _Picture:
    """A picture with its local means, (2 LEVELS, H, W), and the filter's result for it."""

    inputs: Array
    means: Array  # float16, as they take most of the memory
    target: Array

    def within(self, top: int, left: int, side: int, halo: int) -> tuple[Array, Array]:
        """The network's input for a square with its halo, and the target of the square."""
        whole = slice(top, top + side + 2 * halo), slice(left, left + side + 2 * halo)
        inner = slice(top + halo, top + halo + side), slice(left + halo, left + halo + side)
        seen = local_histograms.completed(self.inputs[:, *whole], self.means[:, *whole])
        return seen, self.target[:, *inner]


class Training:
    """The pictures of a task as tensors, and training runs on them."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.halo = sum((1, *GAPS))
        self.side = min(_SIDE, max(min(pair.size) for pair in task.training))
        large = [pair for pair in task.training if min(pair.size) >= self.side]
        self.pictures = [_with_halo(pair, self.side, self.halo, task.padding_mode) for pair in large]
        # Large pictures show more, but of the same kind: pictures are drawn by their side, not their area.
        sizes = np.sqrt([picture.target[0].size for picture in self.pictures])
        self.shares = sizes / sizes.sum()
        self.held_out_squares = [_middle(pair, self.halo, task.padding_mode) for pair in task.held_out]

    def network(self, width: int) -> DilatedNet:
        """A fresh network with its last layer solved for; the same for the same seed and width."""
        net = self._unsolved(width)
        net.solve(self.batch(-1 - index) for index in range(_SOLVER_BATCHES))
        return net

    def _unsolved(self, width: int) -> DilatedNet:
        net = DilatedNet(self.task.channels, width)
        net.initialise(torch.Generator().manual_seed(self.task.seed))
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return net

    def seconds_of_evaluation(self, net: DilatedNet) -> float:
        """About how long it takes to choose the best network and to evaluate it as layers, at the present load."""
        began = time.monotonic()
        self.evaluate(net)
        seconds = time.monotonic() - began
        squares = sum(targets[0].numel() for _, targets in self.held_out_squares)
        whole = sum(pair.target[0].size for pair in self.task.held_out)
        return float(seconds * (_STATES + _LAYERS_COST * whole / squares))

    def keep_best(self, net: DilatedNet, initial: dict[str, Any], seconds: float = 0.0) -> None:
        """Leaves in `net` the best of: as trained, as initialised, and, if `seconds` are left, solved again."""
        trained = copy.deepcopy(net.state_dict())
        if self.task.time_left > seconds:
            net.solve(self.batch(-1 - index) for index in range(_SOLVER_BATCHES))

        def score(state: Mapping[str, Any]) -> float:
            net.load_state_dict(state)
            return self.evaluate(net)

        states = [initial, trained, copy.deepcopy(net.state_dict())]
        net.load_state_dict(max(states, key=score))

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Random squares and their targets; a function of the seed and the step alone."""
        random = np.random.default_rng([self.task.seed, abs(step), int(step < 0)])
        crops = [self._square(random) for _ in range(_CROPS)]
        inputs, targets = (torch.from_numpy(np.stack(parts)) for parts in zip(*crops, strict=True))
        return inputs.contiguous(memory_format=torch.channels_last), targets

    def _square(self, random: np.random.Generator) -> tuple[Array, Array]:
        picture = self.pictures[random.choice(len(self.pictures), p=self.shares)]
        whole = self.side + 2 * self.halo
        top, left = (int(random.integers(0, size - whole + 1)) for size in picture.inputs.shape[1:])
        return picture.within(top, left, self.side, self.halo)

    def evaluate(self, net: nn.Module) -> float:
        """The PSNR in dB over the middles of the held-out pictures, as `judged` gives it."""
        errors, sizes = [], []
        for inputs, targets in self.held_out_squares:
            with torch.no_grad():
                errors.append(float((net(inputs)[0].clamp(0, 1) - targets).square().mean()))
            sizes.append(targets[0].numel())
        return judged(
            *(
                -10 * math.log10(max(error, 1e-20))
                for error in (np.average(errors, weights=sizes), max(errors))
            )
        )

    def steps_in(self, seconds: float, width: int) -> int:
        """How many training steps fit into so many seconds, from the median of a few."""
        net, times = self._unsolved(width), []
        optimiser = torch.optim.Adam(net.parameters(), 0.0)
        for step in range(12):
            began = time.perf_counter()
            inputs, targets = self.batch(step)
            optimiser.zero_grad()
            (net(inputs) - targets).square().mean().backward()
            optimiser.step()
            times.append(time.perf_counter() - began)
            if step >= 2 and sum(times) > _TIMING_SHARE * seconds:
                break
        return max(20, int(seconds / float(np.median(times[2:]))))

    def run(self, net: DilatedNet, steps: int, state_file: Path | None, ending: Ending) -> Trained:
        """Trains for `steps` steps, or for the number in the state file."""
        return train(
            net,
            self.batch,
            self.evaluate,
            steps=steps,
            loss=_root,
            schedule=_rate,
            evaluate_every=max(10, steps // 24),
            averaging=0.998,
            ending=ending,
            state_file=state_file,
            identity="" if state_file is None else self._identity(net),
            progress=self.task.progress,
        )

    def _identity(self, net: DilatedNet) -> str:
        target = self.task.target
        facts = [target.name, target.reference, self.task.seed, self.side, _CROPS, net.gaps]
        shapes = [list(parameter.shape) for parameter in net.parameters()]
        pictures = (np.ascontiguousarray(picture.target[:, ::5, ::5]) for picture in self.pictures)
        return checkpoint.fingerprint([*facts, shapes], *pictures)

    def probed(self, width: int, steps: int) -> list[str]:
        """A remark on what half as many channels more would gain, by two short trainings; empty in a hurry."""
        if steps < 100 or self.task.time_left <= 0:
            return []
        wider = width + width // 2
        ending = Ending(deadline=self.task.deadline)
        short, long = (self.run(self.network(size), steps, None, ending) for size in (width, wider))
        gain = long.best - short.best
        if gain < 0.1:
            return [
                f"more channels do not help: {wider} instead of {width} gain {gain:.2f} dB in {steps} steps"
            ]
        return [
            f"{wider} channels instead of {width} gain {gain:.2f} dB in a short training of {steps} steps"
        ]


def _with_halo(pair: Pair, side: int, halo: int, padding_mode: PadMode) -> _Picture:
    """A picture from which squares of `side` pixels can be cut with their halo; small ones are extended."""
    planes = pair.inputs, local_histograms.means(pair.inputs, padding_mode), pair.target
    if min(pair.size) >= side + 2 * halo:
        return _Picture(*planes)
    return _Picture(*(extended(each, halo, padding_mode) for each in planes))


def _middle(pair: Pair, halo: int, padding_mode: PadMode) -> tuple[Tensor, Tensor]:
    """The middle of a picture, at most `_EVALUATED_SIDE` pixels a side, as input and target of a network."""
    planes = pair.inputs, local_histograms.means(pair.inputs, padding_mode)
    top, left = (max(0, (size - _EVALUATED_SIDE) // 2) for size in pair.size)
    whole = tuple(slice(first, first + _EVALUATED_SIDE + 2 * halo) for first in (top, left))
    inputs, means = (extended(each, halo, padding_mode)[:, *whole] for each in planes)
    seen = local_histograms.completed(inputs, means)
    targets = pair.target[:, top : top + _EVALUATED_SIDE, left : left + _EVALUATED_SIDE]
    batch = torch.from_numpy(seen[None]).contiguous(memory_format=torch.channels_last)
    return batch, torch.from_numpy(np.ascontiguousarray(targets))
