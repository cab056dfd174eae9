"""Trains the tiny generator, stage by stage; each goes on where it was killed, and skips what is done.

cd training && python -m tiny_diffusion FOLDER                    # all stages: three to four hours on two cores
python -m tiny_diffusion FOLDER --stages denoiser export --denoiser-steps 60000
torchrun --nproc-per-node 2 -m tiny_diffusion FOLDER              # the networks by two processes, with the same result
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

from tiny_diffusion import autoencoder, checkers, denoiser, export, latents, tokens, training
from tiny_diffusion.paintings import Paintings

STAGES = ("paint", "autoencoder", "latents", "denoiser", "export")


def paint(options: argparse.Namespace) -> None:
    """The training pictures."""
    _paintings(options).grow(options.paintings, options.workers)


def train_autoencoder(options: argparse.Namespace) -> None:
    """Pixels to latents and back."""
    plan = _plan(
        options, "autoencoder", options.autoencoder_steps, 2e-3, options.autoencoder_batch, decay=0.0
    )
    if not (plan.folder / autoencoder.FINAL).exists():
        autoencoder.fit(plan, _paintings(options).read(options.paintings))


def prepare(options: argparse.Namespace) -> None:
    """Latents and captions for the denoiser."""
    tokenizer, count = tokens.build(tokens.words()), options.paintings
    latents.tokenise(tokenizer, options.folder / "tokens.u16", count, options.workers)
    latents.find_objects(_paintings(options), options.folder / "objects.u8", count, options.workers)
    network = autoencoder.load(options.folder / "autoencoder").to(options.device)
    latents.encode(network, _paintings(options), options.folder / "latents.f16", count, options.device)


def train_denoiser(options: argparse.Namespace) -> None:
    """Noise to latents, as told; a sheet of pictures now and then."""
    tokenizer = tokens.build(tokens.words())
    vae = autoencoder.load(options.folder / "autoencoder")
    plan = _plan(options, "denoiser", options.denoiser_steps, 7e-4, options.denoiser_batch, cooling=0.4)

    def show(step: int, average: denoiser.Denoiser) -> None:
        if step % options.show_every == 0:
            made = export.pipeline(vae, average, tokenizer).to(plan.device)
            export.write_grid(plan.folder / f"pictures-{step:06d}.png", made)

    denoiser.fit(plan, latents.read(options.folder, options.paintings), tokenizer, show=show)


def write(options: argparse.Namespace) -> None:
    """The pipeline's folder and a last sheet of pictures."""
    made = export.pipeline(
        autoencoder.load(options.folder / "autoencoder"),
        denoiser.load(options.folder / "denoiser"),
        tokens.build(tokens.words()),
    )
    export.write_grid(options.folder / "pictures.png", made)
    export.save(made, options.folder / "pipeline")


def train_checkers(options: argparse.Namespace) -> None:
    """The benchmark's judges, to be copied beside `checkers.py`; prints how sure they are of new paintings."""
    free = Paintings(options.folder / "free.u8", free=True)
    free.grow(options.free, options.workers)
    plan = _plan(options, "checkers", options.checkers_steps, 2e-3, 64, device="cpu", average=0.995)
    network = checkers.fit(plan, [_paintings(options), free])
    checkers.save(network, options.folder / checkers.WEIGHTS.name)
    found = checkers.sure(network, checkers.JUDGED_SEEDS, options.judged)
    for group, (share, worst) in sorted(found.items(), key=lambda item: item[1]):
        print(f"{group:24s} {share:.4f}, worst class {worst:.4f}")


_DO = dict(zip(STAGES, (paint, train_autoencoder, prepare, train_denoiser, write), strict=True))
_DO["checkers"] = train_checkers
_SHARED = ("autoencoder", "denoiser")
"""The stages whose work all processes of PyTorch's launcher share; the others are the first one's."""


def _paintings(options: argparse.Namespace) -> Paintings:
    return Paintings(options.folder / "paintings.u8")


def _plan(
    options: argparse.Namespace, name: str, steps: int, rate: float, batch: int, **more: object
) -> training.Plan:
    settings: dict[str, object] = {"device": options.device, "save_every": options.save_every, **more}
    return training.Plan(options.folder / name, steps, rate, batch, **settings)  # type: ignore[arg-type]


def main() -> None:
    """Reads the options and goes through the stages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where everything is kept; outside the repository")
    parser.add_argument("--stages", nargs="+", choices=tuple(_DO), default=STAGES)
    parser.add_argument("--paintings", type=int, default=60_000)
    parser.add_argument("--autoencoder-steps", type=int, default=6_000)
    parser.add_argument("--autoencoder-batch", type=int, default=8)
    parser.add_argument("--denoiser-steps", type=int, default=12_000)
    parser.add_argument("--denoiser-batch", type=int, default=32)
    parser.add_argument("--checkers-steps", type=int, default=12_000)
    parser.add_argument("--free", type=int, default=16_000, help="paintings for the checkers alone")
    parser.add_argument("--judged", type=int, default=5_000, help="paintings to judge the checkers by")
    parser.add_argument("--save-every", type=int, default=200)
    parser.add_argument("--show-every", type=int, default=2_000)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0 leaves the choice to it")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that paint")
    options = parser.parse_args()
    options.device = training.device_named(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    training.join()
    for stage in options.stages:
        if training.is_first() or stage in _SHARED:
            _DO[stage](options)
        training.wait()


if __name__ == "__main__":
    main()
