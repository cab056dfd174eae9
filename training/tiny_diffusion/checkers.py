"""What can be seen in a 64 x 64 picture: a small network with one answer per question, trained on paintings.
The questions are the groups of `GROUPS`. `sure` gives, for held-out paintings, how often each answer is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from diptych.images.scenes import CLASSES, Scene
from diptych.images.scenes.vocabulary import TIMES
from tiny_diffusion import muon, training, world
from tiny_diffusion.paintings import Paintings

JUDGED_SEEDS = 2_000_000_000  # far from those of training
WEIGHTS = Path(__file__).with_name("checkers.safetensors")
_THINGS = tuple(sorted({name for names in world.OBJECTS.values() for name in names}))
GROUPS: dict[str, tuple[str, ...]] = {
    "subject": CLASSES,
    "time": TIMES,
    "sun or moon": ("none", "sun", "moon", "crescent"),
    "sun or moon colour": ("white", "yellow", "orange", "red"),
    "sun or moon side": world.SIDES,
    **dict.fromkeys(("clouds", "stars", "birds", *_THINGS), ("no", "yes")),
    **{f"{name} side": ("left", "right") for name in _THINGS},
    **{f"{name} colour": colours for name, colours in world.COLOURS.items()},
}
_SIZES = [len(classes) for classes in GROUPS.values()]


def truth(scene: Scene) -> dict[str, str]:
    """What is true of a scene's painting, group by group; what it does not decide is left out."""
    known = {"subject": scene.subject, "sun or moon": scene.luminary or "none"}
    if scene.subject != "space":
        known["time"] = scene.time or ""
    if scene.luminary != "none":
        known["sun or moon colour"] = scene.luminary_colour or ""
        known["sun or moon side"] = scene.luminary_side or ""
    if scene.weather == "clear":
        known["clouds"] = "yes" if scene.clouds == "some" else "no"
    known["stars"] = "yes" if scene.stars else "no"
    known["birds"] = "yes" if scene.birds else "no"
    there = {thing.name: thing for thing in scene.objects or ()}
    for name in _THINGS:
        known[name] = "yes" if name in there else "no"
    for name, thing in there.items():
        if thing.side:
            known[f"{name} side"] = thing.side
        if thing.colour:
            known[f"{name} colour"] = thing.colour
    return known


def labels(scenes: Sequence[Scene]) -> npt.NDArray[np.int64]:
    """(N, groups) class numbers, -1 where there is nothing to tell."""
    rows = [truth(scene) for scene in scenes]
    return np.array(
        [
            [classes.index(row[group]) if group in row else -1 for group, classes in GROUPS.items()]
            for row in rows
        ]
    )


class Checkers(nn.Sequential):
    """uint8-scaled pictures (N, 3, 64, 64) in -1..1 to the logits of all groups, side by side."""

    def __init__(self) -> None:
        super().__init__(
            *_block(3, 24, 2), *_block(24, 48, 2), *_block(48, 96, 1), *_block(96, 96, 2),
            nn.Conv2d(96, 32, 1), nn.Flatten(), nn.Linear(32 * 8 * 8, 192), nn.ReLU(),
            nn.Linear(192, sum(_SIZES)),
        )  # fmt: skip

    def answers(self, pictures: npt.NDArray[np.uint8]) -> list[dict[str, str]]:
        """For uint8 pictures (N, 64, 64, 3): the likeliest class of each group."""
        self.eval()
        found: list[dict[str, str]] = []
        with torch.no_grad():
            for first in range(0, len(pictures), 256):
                x = training.pixels(pictures[first : first + 256])
                best = [part.argmax(1).tolist() for part in self(x).split(_SIZES, 1)]
                found += [
                    {group: GROUPS[group][k] for group, k in zip(GROUPS, row, strict=True)}
                    for row in zip(*best, strict=True)
                ]
        return found


def _block(inside: int, outside: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()]


def load(path: Path = WEIGHTS) -> Checkers:
    """The trained checkers."""
    network = Checkers()
    network.load_state_dict({name: value.float() for name, value in load_file(path).items()}, strict=False)
    return network.eval()


def save(network: nn.Module, path: Path) -> None:
    """Half precision, without the counters of batch normalisation."""
    state = {name: value.half() for name, value in network.state_dict().items() if value.is_floating_point()}
    save_file({name: value.contiguous() for name, value in state.items()}, path)


def sure(network: Checkers, first: int, count: int) -> dict[str, tuple[float, float]]:
    """The share of right answers for each group on freshly painted scenes: of all, and of the worst class."""
    scenes = [world.draw(seed, free=True) for seed in range(first, first + count)]
    pictures = np.stack([world.paint(first + i, scene) for i, scene in enumerate(scenes)])
    said = network.answers(pictures)
    right: dict[str, dict[str, list[bool]]] = {group: {} for group in GROUPS}
    for scene, answer in zip(scenes, said, strict=True):
        for group, value in truth(scene).items():
            right[group].setdefault(value, []).append(answer[group] == value)
    return {
        group: (
            float(np.mean(np.concatenate(list(of.values())))),
            min(float(np.mean(hits)) for hits in of.values()),
        )
        for group, of in right.items()
        if of
    }


def _smudged(x: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Half of the pictures a little blurred or grainy, as a generator's are."""
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    amount = torch.rand(len(x), 1, 1, 1, generator=rng).mul(2).sub(1).clamp(min=0)
    grain = 0.06 * torch.rand(len(x), 1, 1, 1, generator=rng).mul(2).sub(1).clamp(min=0)
    return x + amount * 0.7 * (blurred - x) + grain * torch.randn(x.shape, generator=rng)


def fit(plan: training.Plan, sources: Sequence[Paintings]) -> Checkers:
    """Train by turns on the sources of paintings: those that lack the held-out combinations, and free ones."""
    taught = [(source.read(), _labels(source)) for source in sources]
    torch.manual_seed(plan.seed)
    network = Checkers()

    def loss_of(step: int, rng: torch.Generator) -> torch.Tensor:
        pictures, wanted = taught[step % len(taught)]
        chosen = torch.randint(len(pictures), (plan.batch,), generator=rng).sort().values.numpy()
        logits = network(_smudged(training.pixels(pictures[chosen]), rng))
        losses = [
            F.cross_entropy(part, column, ignore_index=-1, reduction="sum")
            for part, column in zip(
                logits.split(_SIZES, 1), torch.from_numpy(wanted[chosen]).unbind(1), strict=True
            )
        ]
        return torch.stack(losses).sum() / plan.batch

    optimisers = muon.both(network, plan.rate, plan.decay, apart=("0.weight", "16.weight"))
    training.train(plan, network, loss_of, {}, optimisers=optimisers)
    return network


def _labels(paintings: Paintings) -> npt.NDArray[np.int64]:
    first = paintings.first
    return labels([world.draw(first + i, paintings.free) for i in range(len(paintings))])
