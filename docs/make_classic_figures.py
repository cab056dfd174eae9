"""Makes docs/images/classic-*.png: the classic training interface beside `filters.learn`, with its figures.

Run it in the repository: python docs/make_classic_figures.py. It prints the figures that filters.md quotes.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image

import diptych
from diptych.filters import learn
from diptych.filters.img2img import (
    compute_metrics,
    create_img2img_model,
    load_filtered_dataset,
    train_model,
)
from diptych.filters.metrics import to_levels
from diptych.report.curves import loss_figure, pictures_figure
from diptych.report.figure import save

IMAGES = Path(__file__).parent / "images"
SHOWN = (0, 12, 40)  # of the validation pictures, those with most to see first


def compare(name: str, stem: str) -> None:
    """Trains the classic way, learns our way with as many weights, and draws both."""
    torch.manual_seed(0)
    train, validation = load_filtered_dataset(name)
    model = create_img2img_model(3, 1)
    started = time.perf_counter()
    losses = train_model(model, train, validation)
    classic_seconds = time.perf_counter() - started
    learned = learn(name, weights=48)
    ours = diptych.to_torch(learned.model)
    figures = {"classic": compute_metrics(model, validation), "ours": compute_metrics(ours, validation)}
    expected = torch.stack([target for _, target in validation])
    with torch.no_grad():
        given = ours(torch.stack([picture for picture, _ in validation]))
    own_loss = float(torch.nn.functional.l1_loss(given, expected))
    flat = float(torch.nn.functional.l1_loss(expected.median().expand_as(expected), expected))
    print(f"{name}: classic {len(losses[0])} epochs, {classic_seconds:.0f} s, L1 {min(losses[1]):.3g}")
    print(
        f"{name}: ours {learned.report.method}, {learned.report.weights} weights, {learned.report.seconds:.1f} s"
    )
    print(f"{name}: L1 of ours {own_loss:.3g}, of the best constant {flat:.3g}")
    for way, found in figures.items():
        print(f"{name}: {way} PSNR {found.psnr:.2f} dB, SSIM {found.ssim:.4f}")
    beside = (f"filters.learn, {learned.report.weights} weights", own_loss)
    _save(loss_figure(*losses, f"{name}, the classic way", beside), f"{stem}-curve")
    rows, notes = [], []
    busiest = sorted(validation, key=lambda pair: -float(pair[1].std()))
    for rank in SHOWN:
        picture, target = busiest[rank]
        with torch.no_grad():
            both = [network(picture[None])[0, 0].clamp(0, 1).numpy() for network in (model.eval(), ours)]
        shown = [picture.numpy().transpose(1, 2, 0), target[0].numpy(), *both]
        rows.append([to_levels(values) for values in shown])
        notes.append("")
    _save(pictures_figure(rows, ("Input", name, "Classic", "filters.learn"), notes), f"{stem}-result")


def _save(figure: Figure, stem: str) -> None:
    """As few colours as a plot needs, so that the file is small."""
    path = IMAGES / f"{stem}.png"
    save(figure, path)
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(128, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


if __name__ == "__main__":
    compare("sobel", "classic-sobel")
    compare("random:seed=3", "classic-random")
