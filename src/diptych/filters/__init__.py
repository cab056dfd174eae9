"""Filters: learn any image filter as a tiny network, evaluate it, and apply it to pictures of any size."""

from __future__ import annotations

from typing import Any

from diptych.extras import imported

_HOMES = {
    "Learned": "diptych.filters.learned",
    "LearningReport": "diptych.filters.learned",
    "NAMES": "diptych.filters.targets",
    "Target": "diptych.filters.target",
    "Applied": "diptych.filters.applying",
    "FolderResult": "diptych.filters.applying",
    "apply": "diptych.filters.applying",
    "apply_file": "diptych.filters.applying",
    "apply_folder": "diptych.filters.applying",
    "apply_many": "diptych.filters.applying",
    "evaluate": "diptych.filters.evaluating",
    "learn": "diptych.filters.learning",
    "preview": "diptych.filters.previewing",
    "resolve": "diptych.filters.targets",
    # The training interface of the Img2Img project.
    "apply_filter": "diptych.filters.img2img",
    "compute_metrics": "diptych.filters.img2img",
    "create_img2img_model": "diptych.filters.img2img",
    "load_filtered_dataset": "diptych.filters.img2img",
    "plot_losses": "diptych.filters.img2img",
    "preview_predictions": "diptych.filters.img2img",
    "train_model": "diptych.filters.img2img",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'diptych.filters' has no attribute {name!r}")
    return getattr(imported(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
