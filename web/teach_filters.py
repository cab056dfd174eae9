"""Teaches the filters of the site again: `python web/teach_filters.py` (about ten seconds)."""

from __future__ import annotations

from pathlib import Path

from diptych import filters

PLACE = Path(__file__).parents[1] / "src" / "diptych" / "site" / "filters"
NAMES = (
    "emboss",
    "gaussian:sigma=2",
    "gradient",
    "invert",
    "median",
    "motion",
    "posterise",
    "sepia",
    "sobel",
    "unsharp",
)


def main() -> None:
    """Learns and writes."""
    for name in NAMES:
        learned = filters.learn(name, budget=60, seed=0)
        learned.save(PLACE / f"{name.partition(':')[0]}.safetensors")
        print(
            f"{name}: {learned.report.method}, {learned.report.weights} weights, {learned.report.psnr:.1f} dB"
        )


if __name__ == "__main__":
    main()
