"""Compares every recipe of timm and torchvision with the transforms of these libraries, to the bit.

timm's 1,826 pretrained configurations and torchvision's weights for classification and segmentation are applied to
pictures of odd sizes, by the library and by Diptych. Equal configurations are computed once and counted each.

It needs timm, which needs torchvision. As the builds of torchvision bring a PyTorch of their own, give it an
environment of its own:

    python -m venv named && named/bin/pip install 'diptych[hub]'
    named/bin/python benchmarks/named_recipes.py
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import timm
import torchvision
from PIL import Image
from timm.data import create_transform, resolve_data_config

from diptych.errors import DiptychError
from diptych.hub import recipes

SIZES = [
    (1, 1), (3, 7), (17, 31), (31, 17), (64, 64), (97, 203), (223, 225), (224, 224), (225, 223), (233, 199),
    (255, 257), (256, 341), (301, 499), (333, 250), (375, 500), (427, 640), (479, 359), (513, 1027), (601, 149),
    (768, 1023),
]  # fmt: skip


def pictures() -> list[Image.Image]:
    """Twenty pictures of noise over slopes, so that every weight of a kernel matters."""
    made = []
    for number, (height, width) in enumerate(SIZES):
        rng = np.random.default_rng(number)
        slope = np.linspace(0, 160, width)[None, :, None] + np.linspace(0, 60, height)[:, None, None]
        noise = rng.integers(0, 256, (height, width, 3)) * 0.4
        made.append(Image.fromarray(np.clip(slope + noise, 0, 255).astype(np.uint8)))
    return made


def wrong(recipe: Any, transform: Any, shown: list[Image.Image]) -> str:
    """What differs first, or nothing."""
    for picture in shown:
        theirs = transform(picture).numpy()
        for ours in (recipe.apply(picture), recipe.apply(np.asarray(picture))):
            if ours.shape != theirs.shape:
                return f"{picture.size}: shapes {ours.shape} and {theirs.shape}"
            if ours.tobytes() != theirs.tobytes():
                return f"{picture.size}: {np.abs(ours - theirs).max():g} apart"
    return ""


def report(what: str, groups: dict[str, list[str]], makers: dict[str, Any], shown: list[Image.Image]) -> bool:
    counts: Counter[bool] = Counter()
    for key, names in groups.items():
        try:
            recipe, transform = makers[key]()
            problem = wrong(recipe, transform, shown)
        except DiptychError as error:
            problem = str(error)
        counts[not problem] += len(names)
        if problem:
            print(f"DIFFERS {names[0]} and {len(names) - 1} more: {problem}")
    print(
        f"{what}: {counts[True]} of {sum(counts.values())} equal to the bit on {len(shown)} pictures "
        f"({len(groups)} different ones)"
    )
    return not counts[False]


def main() -> int:
    shown = pictures()
    groups, makers = defaultdict[str, list[str]](list), dict[str, Any]()
    for name in timm.list_pretrained():
        config = timm.get_pretrained_cfg(name).to_dict()
        resolved = resolve_data_config(pretrained_cfg=config)
        key = json.dumps(resolved, sort_keys=True)
        groups[key].append(name)
        makers[key] = lambda config=config, resolved=resolved: (
            recipes.of_timm(config),
            create_transform(**resolved, is_training=False),
        )
    good = report(f"timm {timm.__version__}", groups, makers, shown)
    groups, makers = defaultdict(list), {}
    for name in torchvision.models.list_models():
        for weights in torchvision.models.get_model_weights(name):
            transforms = weights.transforms()
            if type(transforms).__name__ in ("ImageClassification", "SemanticSegmentation"):
                groups[repr(transforms)].append(f"{name}:{weights.name}")
                makers[repr(transforms)] = lambda transforms=transforms: (
                    recipes.of_torchvision(transforms),
                    transforms,
                )
    return 0 if report(f"torchvision {torchvision.__version__}", groups, makers, shown) and good else 1


if __name__ == "__main__":
    sys.exit(main())
