"""Learns and measures every named filter, and writes docs/filters-table.md.

`python docs/make_filter_table.py [NAME ...] [--again] [--budget SECONDS] [--models FOLDER] [--no-speed]`: the names
given, or all that have no figures yet, or with --again all; a NAME.safetensors in FOLDER is taken as it was learned,
with the report it carries. Figures are kept in docs/filters-table.json after each filter, so a run may be interrupted;
the page is written from them, and src/diptych/filters/targets/figures.json, which `diptych filter list` shows. Speeds
are medians of alternating runs on one picture of 12 megapixels, two threads.

All filters take about two hours: ten minutes each for those that are trained, and less than five for all others
together.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from diptych import formats
from diptych.datasets.photographs import photograph
from diptych.errors import DiptychError
from diptych.filters import apply, learn, targets
from diptych.filters.evaluating import HIGHEST_PSNR
from diptych.filters.held_out import HELD_OUT
from diptych.filters.targets import FILTERS
from diptych.filters.targets.figures import REFUSED
from diptych.filters.verdicts import MEANINGS

FIGURES = Path(__file__).parent / "filters-table.json"
PAGE = Path(__file__).parent / "filters-table.md"
SHOWN = Path(targets.__file__).parent / "figures.json"
HEIGHT, WIDTH, REPEATS = 3000, 4000, 3

Array = Any

# The same filter by OpenCV alone, 8 bits in and out, where it has one.
_ELEMENT = np.ones((3, 3), np.uint8)


def _sobel_cv(x: Array) -> Array:
    grey = cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)
    gx, gy = (cv2.Sobel(grey, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
    return cv2.convertScaleAbs(cv2.magnitude(gx, gy), alpha=0.1768)


def _table_cv(values: Array) -> Callable[[Array], Array]:
    table = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return lambda x: cv2.LUT(x, table)


_LEVELS = np.arange(256.0)
_OPENCV: dict[str, Callable[[Array], Array]] = {
    "identity": lambda x: x.copy(),
    "grey": lambda x: cv2.cvtColor(x, cv2.COLOR_RGB2GRAY),
    "sepia": lambda x: cv2.transform(x, np.full((3, 3), 1 / 3, np.float32)),
    "invert": cv2.bitwise_not,
    "brightness": _table_cv(_LEVELS + 51),
    "contrast": _table_cv(127.5 + 1.5 * (_LEVELS - 127.5)),
    "gamma": _table_cv(255 * (_LEVELS / 255) ** 0.5),
    "s_curve": _table_cv(255 / (1 + np.exp(8 * (0.5 - _LEVELS / 255)))),
    "threshold": lambda x: cv2.threshold(x, 127, 255, cv2.THRESH_BINARY)[1],
    "posterise": _table_cv(np.floor(_LEVELS * 4 / 256) * 85),
    "solarise": _table_cv(np.where(_LEVELS < 128, _LEVELS, 255 - _LEVELS)),
    "box": lambda x: cv2.blur(x, (3, 3)),
    "gaussian": lambda x: cv2.GaussianBlur(x, (7, 7), 1.0),
    "motion": lambda x: cv2.filter2D(x, -1, np.full((1, 9), 1 / 9)),
    "sharpen": lambda x: cv2.filter2D(x, -1, np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0.0]])),
    "unsharp": lambda x: cv2.addWeighted(x, 2, cv2.GaussianBlur(x, (7, 7), 1.0), -1, 0),
    "emboss": lambda x: cv2.filter2D(x, -1, np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2.0]])),
    "sobel": _sobel_cv,
    "erosion": lambda x: cv2.erode(x, _ELEMENT),
    "dilation": lambda x: cv2.dilate(x, _ELEMENT),
    "opening": lambda x: cv2.morphologyEx(x, cv2.MORPH_OPEN, _ELEMENT),
    "closing": lambda x: cv2.morphologyEx(x, cv2.MORPH_CLOSE, _ELEMENT),
    "gradient": lambda x: cv2.morphologyEx(x, cv2.MORPH_GRADIENT, _ELEMENT),
    "top_hat": lambda x: cv2.morphologyEx(x, cv2.MORPH_TOPHAT, _ELEMENT),
    "median": lambda x: cv2.medianBlur(x, 3),
    "bilateral": lambda x: cv2.bilateralFilter(x, 9, 30, 3),
    "nlm": lambda x: cv2.fastNlMeansDenoising(x, None, 10, 5, 15),
    "edge_preserving": lambda x: cv2.edgePreservingFilter(x, None, cv2.RECURS_FILTER, 20, 0.4),
    "detail_enhance": lambda x: cv2.detailEnhance(x, None, 10, 0.15),
    "stylise": lambda x: cv2.stylization(x, None, 20, 0.4),
    "pencil": lambda x: cv2.pencilSketch(x, None, None, 20, 0.1, 0.04)[0],
}
_SLOW = ("bilateral", "nlm", "edge_preserving", "detail_enhance", "stylise", "pencil")  # once is enough


def measure(name: str, budget: float | None, picture: Array | None, models: Path | None) -> dict[str, Any]:
    """The figures of a filter, or the reason why it cannot be learned."""
    kept = models / f"{name}.safetensors" if models else None
    try:
        model = formats.read(kept) if kept and kept.exists() else learn(name, budget=budget).model
    except DiptychError as error:
        return {"refused": str(error)}
    report = model.notes["filter"]
    whole, baselines = report["scores"]["whole"], report["scores"]["baselines"]
    return {
        "verdict": report["verdict"],
        "kind": report["method"],
        "weights": report["weights"],
        "psnr": whole["pooled_psnr"],
        "worst": whole["worst_psnr"],
        "ssim": whole["ssim"],
        "largest": whole["largest"],
        "identical": whole["identical"],
        "without": max(score["pooled_psnr"] for score in baselines.values()),
        "seconds": report["seconds"],
        **({} if picture is None else _speeds(name, lambda x: apply(model, x), picture)),
    }


def _speeds(name: str, ours: Callable[[Array], Any], picture: Array) -> dict[str, float]:
    """Megapixels a second of Diptych and OpenCV, measured by turns, without the time for compiling."""
    ways = {"speed": ours} | ({"opencv": _OPENCV[name]} if name in _OPENCV else {})
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for way, function in ways.items():
        if not (way == "opencv" and name in _SLOW):
            function(picture)
    for repeat in range(REPEATS):
        for way, function in ways.items():
            if repeat and way == "opencv" and name in _SLOW:
                continue
            started = time.perf_counter()
            function(picture)
            seconds[way].append(time.perf_counter() - started)
    megapixels = picture.shape[0] * picture.shape[1] / 1e6
    return {way: megapixels / statistics.median(times) for way, times in seconds.items()}


def page(figures: dict[str, dict[str, Any]]) -> str:
    """The page with these figures."""
    lines = [
        "# Every named filter",
        "",
        "Made by `docs/make_filter_table.py`. PSNR (of all pixels together, and of the worst picture), SSIM, largest "
        f"error (levels of 255) and identical pixels are over the {len(HELD_OUT)} held-out pictures; *without "
        "learning* is the best of the constant, the picture itself and "
        "the best linear 7 × 7 kernel, fitted to those very pictures. Speeds are megapixels a second on a "
        f"{HEIGHT} × {WIDTH} colour picture in memory, two threads, ours and OpenCV's by turns; OpenCV's where it has "
        "the filter, 8 bits in and out. Networks called *dilated* are trained; their figures are those reached in the "
        "seconds given, and not the best that is possible. The verdicts:",
        "",
        *(f"- **{word}**: {meaning}" for word, meaning in MEANINGS.items()),
        "",
        "| filter | verdict | network | weights | PSNR, dB | worst | without learning | SSIM | largest error "
        "| identical | seconds to learn | MP/s | OpenCV MP/s |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    learned = {name: found for name, found in figures.items() if "refused" not in found}
    lines += [_row(name, learned[name]) for name in FILTERS if name in learned]
    refused = [name for name in FILTERS if "refused" in figures.get(name, {})]
    if refused:
        lines += ["", "Refused before any time is spent:", ""]
        lines += [f"- `{name}`: {figures[name]['refused']}" for name in refused]
    lines += ["", "References:", ""]
    lines += [f"- `{name}`: {FILTERS[name].target(name, {}).reference}" for name in FILTERS]
    return "\n".join(lines) + "\n"


def _shown(figures: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What `diptych filter list` shows."""
    return {
        name: {"verdict": found.get("verdict", REFUSED), "seconds": found.get("seconds")}
        for name, found in figures.items()
        if name in FILTERS
    }


def _row(name: str, found: dict[str, Any]) -> str:
    cells = [
        f"`{name}`", found["verdict"], found["kind"], str(found["weights"]), _db(found["psnr"]), _db(found["worst"]),
        _db(found["without"]), f"{found['ssim']:.4f}", str(found["largest"]),
        "all" if found["identical"] == 1 else f"{min(100 * found['identical'], 99.99):.2f} %",
        f"{found['seconds']:.1f}", _rate(found.get("speed")), _rate(found.get("opencv")),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:.{0 if value >= 10 else 1}f}"


def _db(value: float) -> str:
    return "exact" if value >= HIGHEST_PSNR else f"{value:.1f}"


def main() -> None:
    """Measures the filters named on the command line, and writes the page after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--budget", type=float, default=600.0)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--no-speed", action="store_true")
    parser.add_argument("--again", action="store_true")
    given = parser.parse_args()
    cv2.setNumThreads(2)
    figures: dict[str, dict[str, Any]] = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    picture = cv2.resize(photograph("retina"), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    for name in given.names or [name for name in FILTERS if given.again or name not in figures]:
        figures[name] = measure(name, given.budget, None if given.no_speed else picture, given.models)
        print(name, figures[name], flush=True)
        FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
        PAGE.write_text(page(figures))
        SHOWN.write_text(json.dumps(_shown(figures), indent=1) + "\n")


if __name__ == "__main__":
    main()
