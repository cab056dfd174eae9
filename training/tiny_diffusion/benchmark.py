"""How well a generator does what it is told: a thousand prompts of a closed vocabulary, in the manner of GenEval.

    python -m tiny_diffusion.benchmark GENERATOR [--data DATA] [--json OUT.json]

GENERATOR is `painter`, or a folder that holds a diffusers pipeline. A picture passes when the checkers see all
that its prompt asks for. Beside each score stands that of the same pictures under each other's prompts. With
the cache of training paintings, DATA, it also tells how varied the pictures are and whether they are copies.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from diptych.images import scenes
from diptych.images.scenes.rng import RandomStream
from tiny_diffusion import checkers, prompts, world

Pictures = npt.NDArray[np.uint8]
Generator = Callable[[Sequence[str], Sequence[int]], Pictures]
"""Prompts and seeds to uint8 pictures (N, 64, 64, 3)."""

_RESAMPLED = 2000  # for the confidence intervals
_REAL_SEEDS = 4_000_000_000  # paintings that no generator was trained on
_NEIGHBOURS = 5


def painter(texts: Sequence[str], seeds: Sequence[int]) -> Pictures:
    """The procedural painter, which understands every prompt: what a perfect generator would score."""
    side = world.SIZE
    return np.stack([scenes.paint(t, s, 0, side, side).pixels for t, s in zip(texts, seeds, strict=True)])


def pipeline(folder: Path, steps: int, guidance: float) -> Generator:
    """A diffusers pipeline from its folder."""
    import torch
    from diffusers import AutoPipelineForText2Image

    from tiny_diffusion import export

    made = AutoPipelineForText2Image.from_pretrained(folder, dtype=torch.float32)
    made.set_progress_bar_config(disable=True)
    return lambda texts, seeds: np.stack(export.pictures(made, texts, seeds, steps, guidance))


def scored(asked: Sequence[prompts.Prompt], answers: Sequence[dict[str, str]]) -> dict[str, Any]:
    """Scores with 95 % intervals by category, and their mean, for seen and for held-out combinations."""
    passed = np.array([_passes(p, a) for p, a in zip(asked, answers, strict=True)])
    shuffled = np.array([_passes(p, answers[i]) for p, i in zip(asked, _others(asked), strict=True)])
    table: dict[str, Any] = {}
    for name, held_out in (("seen", False), ("held out", True)):
        rows = {}
        for category in prompts.CATEGORIES:
            here = [i for i, p in enumerate(asked) if p.category == category and p.held_out == held_out]
            rows[category] = {
                "prompts": len(here),
                "score": float(passed[here].mean()),
                "interval": _interval([passed[here]]),
                "shuffled": float(shuffled[here].mean()),
                "rows": here,
            }
        parts = [passed[row.pop("rows")] for row in rows.values()]
        rows["mean"] = {
            "prompts": sum(len(part) for part in parts),
            "score": float(np.mean([part.mean() for part in parts])),
            "interval": _interval(parts),
            "shuffled": float(np.mean([row["shuffled"] for row in rows.values()])),
        }
        table[name] = rows
    return table


def _passes(prompt: prompts.Prompt, answer: dict[str, str]) -> bool:
    return all(answer[group] == wanted for group, wanted in prompt.asks)


def _others(asked: Sequence[prompts.Prompt]) -> npt.NDArray[np.int64]:
    """For each prompt another of its category: whose picture it is shown as a control."""
    order = np.arange(len(asked))
    for category in prompts.CATEGORIES:
        here = np.array([i for i, p in enumerate(asked) if p.category == category])
        mixed = np.random.default_rng(0).permutation(here)
        order[mixed] = np.roll(mixed, 1)
    return order


def _interval(parts: Sequence[npt.NDArray[np.bool_]]) -> tuple[float, float]:
    """Bootstrap over prompts: the 2.5 % and 97.5 % points of the mean of the parts' means."""
    chance = np.random.default_rng(0)
    means = np.mean(
        [part[chance.integers(0, len(part), (_RESAMPLED, len(part)))].mean(axis=1) for part in parts], axis=0
    )
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


# ---- variety and copies


def variety(generate: Generator, count: int) -> dict[str, float]:
    """Precision and recall (Kynkäänniemi et al. 2019) against as many paintings of the same captions, in the
    features of the classifier in the box.
    """
    drawn, real = _pairs(generate, count)
    a, b = _features(drawn), _features(real)
    return {"precision": _covered(b, a), "recall": _covered(a, b)}


def copies(generate: Generator, count: int, training: Pictures) -> dict[str, float]:
    """The share of pictures nearer to a training painting than all but one in a hundred fresh paintings are,
    and the fresh paintings' own share, which is that hundredth.
    """
    drawn, real = _pairs(generate, count)
    known = _small(training)
    own, made = _nearest(_small(real), known), _nearest(_small(drawn), known)
    limit = float(np.percentile(own, 1))
    return {
        "near copies": float((made < limit).mean()),
        "painter's own": float((own < limit).mean()),
        "nearest, median": float(np.median(made)),
        "painter's nearest, median": float(np.median(own)),
    }


def _pairs(generate: Generator, count: int) -> tuple[Pictures, Pictures]:
    seeds = range(_REAL_SEEDS, _REAL_SEEDS + count)
    known = [world.draw(seed) for seed in seeds]
    captions = [
        world.caption(scene, RandomStream("variety", seed), 1.0)
        for seed, scene in zip(seeds, known, strict=True)
    ]
    real = np.stack([world.paint(seed, scene) for seed, scene in zip(seeds, known, strict=True)])
    return generate(captions, [seed % 2**31 for seed in seeds]), real


def _features(pictures: Pictures) -> npt.NDArray[np.float32]:
    """What the classifier in the box makes of them just before its last dense layer: (N, features)."""
    import diptych
    from diptych.loading import TRAINED

    model = diptych.read(TRAINED["scenes"])
    layers = diptych.trace(model, model.preprocessing.apply_batch(list(pictures)))
    flat = [value for value in layers.values() if value.ndim == 2]
    return np.asarray(flat[-3] if len(flat) > 2 else flat[0], np.float32)


def _covered(by: npt.NDArray[np.float32], of: npt.NDArray[np.float32]) -> float:
    """The share of `of` that lies within the reach of some point of `by`: its k-th neighbour's distance."""
    reach = np.sort(_distances(by, by), axis=1)[:, _NEIGHBOURS]
    return float((_distances(of, by) <= reach).any(axis=1).mean())


def _small(pictures: Pictures) -> npt.NDArray[np.float32]:
    """16 x 16 means in 0..1, flat."""
    n, side = len(pictures), world.SIZE // 4
    parts = [
        np.array(pictures[i : i + 1000]).reshape(-1, side, 4, side, 4, 3).mean((2, 4), dtype=np.float32)
        for i in range(0, n, 1000)
    ]
    return np.concatenate(parts).reshape(n, -1) / np.float32(255)


def _nearest(points: npt.NDArray[np.float32], known: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.concatenate([_distances(points[i : i + 100], known).min(1) for i in range(0, len(points), 100)])


def _distances(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    squares = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * a @ b.T
    return np.sqrt(np.maximum(squares, 0))


# ---- the page


def shown(table: dict[str, Any]) -> str:
    """The scores as a table in Markdown."""
    lines = ["| category | seen | held out | shuffled |", "|---|---|---|---|"]
    for category in (*prompts.CATEGORIES, "mean"):
        cells = [_cell(table[part][category]) for part in ("seen", "held out")]
        lines.append(f"| {category} | {' | '.join(cells)} | {table['seen'][category]['shuffled']:.2f} |")
    return "\n".join(lines)


def _cell(row: dict[str, Any]) -> str:
    low, high = row["interval"]
    return f"{row['score']:.3f} ({low:.2f} to {high:.2f}; n = {row['prompts']})"


def main() -> None:
    """Draws, checks and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("generator", help="painter, or the folder of a pipeline")
    parser.add_argument("--prompts", type=int, default=prompts.COUNT)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--data", type=Path, help="the cache of training paintings")
    parser.add_argument("--varied", type=int, default=1000, help="pictures to judge variety by")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    generate = (
        painter
        if options.generator == "painter"
        else pipeline(Path(options.generator), options.steps, options.guidance)
    )
    asked = prompts.prompts(options.prompts)
    drawn = generate([prompt.text for prompt in asked], range(len(asked)))
    found: dict[str, Any] = {"scores": scored(asked, checkers.load().answers(drawn))}
    print(shown(found["scores"]))
    if options.data:
        from tiny_diffusion.paintings import Paintings

        found["variety"] = variety(generate, options.varied)
        found["copies"] = copies(generate, options.varied, Paintings(options.data / "paintings.u8").read())
        print(json.dumps({name: found[name] for name in ("variety", "copies")}, indent=2))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2), "utf-8")


if __name__ == "__main__":
    main()
