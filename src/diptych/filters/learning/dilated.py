"""Networks that look far: a chain of 3 x 3 convolutions with growing gaps, added to the picture.

The shape is Chen, Xu and Koltun's (2017) for imitating heavy operators, made small and strictly local: no
statistics of the picture anywhere. On a CPU dense layers of 16 channels train fastest by far: 50 GFLOP/s a
thread where depthwise ones reach 10. Inner layers start near the identity, the last one at zero, so the
network starts as what it is added to.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.filters.learning import checkpoint
from diptych.filters.learning.loop import Ending, Trained, threads, train
from diptych.filters.learning.problem import Candidate, Pair, Problem, extended
from diptych.filters.learning.schedule import Cosine
from diptych.model.layers import Activation, Array, Chain, Conv, Layer, Pad, PadMode, SkipConnection

__all__ = ["DilatedNet", "fit"]

GAPS = (1, 2, 4, 8)
MOST = 10_000  # weights, where nothing else is asked for
SECONDS = 240.0  # of training, where no time is set
CEILING = 58.8  # dB: against whole levels no unrounded values can do better than 10 log10(12 * 255^2) = 58.92
_GAIN = 0.05  # dB for twice the work, below which more work is wasted
_SLOPE = 0.1
_CROPS, _SIDE = 2, 96
_JUDGED = 256  # side of the squares of held-out pictures that are judged while training
_TORCH_PAD = {"zero": "constant", "reflect": "reflect", "replicate": "replicate", "wrap": "circular"}


class DilatedNet(nn.Module):
    """(N, C, H, W) -> (N, C', H, W) where `edge` names what lies beyond the border; without it, `reach` less."""

    def __init__(self, channels: tuple[int, int], width: int, gaps: Sequence[int] = GAPS) -> None:
        super().__init__()
        inputs, outputs = channels
        self.gaps = (1, *gaps)
        self.reach = sum(self.gaps)
        self.added = inputs == outputs
        self.edge: PadMode | None = None
        sizes = (inputs, *[width] * len(self.gaps))
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, dilation=g) for a, b, g in zip(sizes, sizes[1:], self.gaps, strict=False)
        )
        self.last = nn.Conv2d(width, outputs, 1)

    def start(self, generator: torch.Generator, level: Tensor) -> None:
        """Fresh weights; `level` (C',) is the mean that the network starts from where it is not added."""
        with torch.no_grad():
            for index, conv in enumerate(self.convs):
                assert isinstance(conv, nn.Conv2d)
                assert conv.bias is not None
                deviation = math.sqrt(2 / (9 * conv.in_channels)) * (0.1 if index else 1.0)
                conv.weight.normal_(0, deviation, generator=generator)
                conv.bias.zero_()
                if index:
                    conv.weight[:, :, 1, 1] += torch.eye(conv.in_channels)
            assert self.last.bias is not None
            self.last.weight.zero_()
            self.last.bias.copy_(torch.zeros_like(level) if self.added else level)
            if not self.added:
                self.last.weight.normal_(0, 0.1, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """The picture, or the part of it that lies `reach` within."""
        value = x
        for conv, gap in zip(self.convs, self.gaps, strict=True):
            if self.edge is not None:
                value = F.pad(value, (gap,) * 4, mode=_TORCH_PAD[self.edge])
            value = F.leaky_relu(conv(value), _SLOPE)
        change: Tensor = self.last(value)
        if not self.added:
            return change
        reach = 0 if self.edge is not None else self.reach
        return change + x[..., reach : x.shape[2] - reach, reach : x.shape[3] - reach]

    def layers(self, edge: PadMode) -> Chain:
        """The same as layers, limited to 0..1."""
        inner: list[Layer] = []
        leaky = Activation("leakyrelu", (_SLOPE,))
        for conv, gap in zip(self.convs, self.gaps, strict=True):
            assert isinstance(conv, nn.Conv2d)
            pad = Pad(((gap, gap),) * 2, edge)
            inner += [pad, Conv(*_arrays(conv), dilation=(gap, gap), activation=leaky)]
        inner.append(Conv(*_arrays(self.last)))
        clamp = Activation("clamp")
        return Chain((SkipConnection(Chain(tuple(inner))), clamp) if self.added else (*inner, clamp))


def _arrays(conv: nn.Conv2d) -> tuple[Array, Array]:
    assert conv.bias is not None
    parts = (conv.weight, conv.bias)
    weight, bias = (np.ascontiguousarray(part.detach().numpy(), dtype=np.float32).copy() for part in parts)
    return weight, bias


def width_within(weights: int, channels: tuple[int, int]) -> int:
    """The widest network of at most so many weights, up to 64 channels; 0 where even two are too many."""
    inputs, outputs = channels

    def size(width: int) -> int:
        return (9 * inputs + 1) * width + len(GAPS) * (9 * width + 1) * width + (width + 1) * outputs

    return max((width for width in range(2, 65) if size(width) <= weights), default=0)


def fit(problem: Problem) -> Candidate | None:
    """A dilated network of at most `problem.weights` (10,000) weights, trained until the deadline.

    None where the budget of weights has no place for one. How many steps the time allows is measured once,
    at the start, and is kept in the checkpoint: from then on the training is the same bit for bit.
    """
    width = width_within(MOST if problem.weights is None else problem.weights, problem.channels)
    if not width:
        return None
    with threads():
        training = Training(problem)
        net = training.network(width)
        seconds = min(problem.time_left, SECONDS) if math.isinf(problem.time_left) else problem.time_left
        steps = training.steps_in(0.8 * seconds, width)
        goal = min(problem.goal, CEILING if problem.target.rounded else math.inf)
        ending = Ending(goal, gain=_GAIN, deadline=problem.deadline)
        trained = training.run(net, steps, problem.checkpoint, ending)
        remarks = [f"{trained.history[-1][0]} steps on {torch.get_num_threads()} threads"]
        if problem.weights is None:
            remarks += training.probed(width, steps // 16)
    curve = tuple((float(step), loss, score) for step, loss, score in trained.history)
    return Candidate(net.layers(problem.edge), "dilated", "; ".join(remarks), curve, trained.stopped)


@dataclass(frozen=True)
class _Crop:
    inputs: Tensor
    wanted: Tensor


class Training:
    """The pictures of a problem as tensors, and trainings on them."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.reach = sum((1, *GAPS))
        self.side = min(_SIDE, max(min(pair.size) for pair in problem.training))
        large = [pair for pair in problem.training if min(pair.size) >= self.side]
        self.pictures = [_with_halo(pair, self.side, self.reach, problem.edge) for pair in large]
        sizes = np.array([picture.wanted[0].numel() for picture in self.pictures], float)
        self.shares = sizes / sizes.sum()
        self.judged = [_middle(pair, self.reach, problem.edge) for pair in problem.held_out]

    def network(self, width: int) -> DilatedNet:
        """A fresh network, the same for the same seed and width."""
        net = DilatedNet(self.problem.channels, width)
        level = torch.stack([picture.wanted.mean((1, 2)) for picture in self.pictures]).mean(0)
        net.start(torch.Generator().manual_seed(self.problem.seed), level)
        return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Random squares, a function of the seed and the step alone."""
        random = np.random.default_rng([self.problem.seed, step])
        crops = [self._square(random) for _ in range(_CROPS)]
        inputs = torch.stack([crop.inputs for crop in crops])
        return inputs.contiguous(memory_format=torch.channels_last), torch.stack([c.wanted for c in crops])

    def _square(self, random: np.random.Generator) -> _Crop:
        picture = self.pictures[random.choice(len(self.pictures), p=self.shares)]
        side, reach = self.side, self.reach
        whole = side + 2 * reach
        top, left = (int(random.integers(0, size - whole + 1)) for size in picture.inputs.shape[1:])
        rows, columns = slice(top + reach, top + reach + side), slice(left + reach, left + reach + side)
        return _Crop(
            picture.inputs[:, top : top + whole, left : left + whole], picture.wanted[:, rows, columns]
        )

    def judge(self, net: nn.Module) -> float:
        """The mean PSNR over the middles of the held-out pictures."""
        scores = []
        for crop in self.judged:
            inputs = crop.inputs[None].contiguous(memory_format=torch.channels_last)
            with torch.no_grad():
                error = float((net(inputs)[0].clamp(0, 1) - crop.wanted).square().mean())
            scores.append(-10 * math.log10(max(error, 1e-20)))
        return sum(scores) / len(scores)

    def steps_in(self, seconds: float, width: int) -> int:
        """How many steps fit into the time, by the middle of a few."""
        net, times = self.network(width), []
        optimiser = torch.optim.Adam(net.parameters(), 0.0)
        for step in range(12):
            began = time.perf_counter()
            inputs, wanted = self.batch(step)
            optimiser.zero_grad()
            (net(inputs) - wanted).square().mean().backward()
            optimiser.step()
            times.append(time.perf_counter() - began)
        return max(20, int(seconds / float(np.median(times[2:]))))

    def run(self, net: DilatedNet, steps: int, state_file: Path | None, ending: Ending) -> Trained:
        """Trains for so many steps; those that a state file remembers take precedence."""
        return train(
            net,
            self.batch,
            self.judge,
            steps=steps,
            schedule=Cosine(5e-3, warm_up=200, last=0.01),
            judge_every=max(10, steps // 24),
            averaging=0.998,
            ending=ending,
            state_file=state_file,
            identity="" if state_file is None else self._identity(net),
            progress=self.problem.progress,
        )

    def _identity(self, net: DilatedNet) -> str:
        target = self.problem.target
        facts = [target.name, target.reference, self.problem.seed, self.side, _CROPS, net.gaps]
        shapes = [list(parameter.shape) for parameter in net.parameters()]
        pictures = (picture.wanted[:, ::5, ::5].contiguous().numpy() for picture in self.pictures)
        return checkpoint.fingerprint([*facts, shapes], *pictures)

    def probed(self, width: int, steps: int) -> list[str]:
        """What half as many channels again would gain, by two short trainings; nothing where time is short."""
        if steps < 100 or self.problem.time_left <= 0:
            return []
        wider = width + width // 2
        ending = Ending(deadline=self.problem.deadline)
        short, long = (self.run(self.network(size), steps, None, ending) for size in (width, wider))
        gain = long.best - short.best
        if gain < 0.1:
            return [
                f"more channels do not help: {wider} instead of {width} gain {gain:.2f} dB in {steps} steps"
            ]
        return [
            f"{wider} channels instead of {width} gain {gain:.2f} dB in a short training of {steps} steps"
        ]


def _with_halo(pair: Pair, side: int, reach: int, edge: PadMode) -> _Crop:
    """A picture from which squares of `side` can be cut with their halo: a small one gets it from its edges."""
    inputs, wanted = pair.inputs, pair.wanted
    if min(pair.size) < side + 2 * reach:
        inputs, wanted = (extended(planes, reach, edge) for planes in (inputs, wanted))
    return _Crop(torch.from_numpy(inputs), torch.from_numpy(wanted))


def _middle(pair: Pair, reach: int, edge: PadMode) -> _Crop:
    """At most `_JUDGED` pixels square from the middle of a picture, with the halo around the input."""
    tops = [max(0, (size - _JUDGED) // 2) for size in pair.size]
    inputs = extended(pair.inputs, reach, edge)
    around = tuple(slice(top, top + _JUDGED + 2 * reach) for top in tops)
    inner = tuple(slice(top, top + _JUDGED) for top in tops)
    cut = np.ascontiguousarray(inputs[:, *around]), np.ascontiguousarray(pair.wanted[:, *inner])
    return _Crop(*map(torch.from_numpy, cut))
