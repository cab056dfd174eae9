"""The autoencoder: 64 x 64 pixels to 16 x 16 latents of eight channels and back.

    python -m tiny_diffusion.autoencoder DATA OUT --steps 4000

An `AutoencoderTiny` (three levels, no normalisation layers), trained on the paintings with a loss that weighs
edges and small bright things, which a plain mean would blur away. Latents carry a little noise in training,
so that the decoder forgives the small errors of a denoiser.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny

from tiny_diffusion import training
from tiny_diffusion.paintings import Paintings

CHANNELS, LATENTS, SHRINK = 3, 8, 4
SETTINGS: dict[str, Any] = {
    "encoder_block_out_channels": (24, 24, 24),
    "num_encoder_blocks": (1, 1, 3),
    "decoder_block_out_channels": (32, 32, 32),
    "num_decoder_blocks": (4, 2, 1),
    "latent_channels": LATENTS,
}
NOISE = 0.1
HELD_OUT = 256  # the last paintings of the cache: never trained on


def build(settings: dict[str, Any]) -> AutoencoderTiny:
    """The network with random weights."""
    return AutoencoderTiny(**settings).to(memory_format=torch.channels_last)


def load(folder: Path) -> AutoencoderTiny:
    """The average weights of a training folder's checkpoint."""
    state = torch.load(folder / "checkpoint.pt", map_location="cpu", weights_only=True)
    network = build(state["settings"])
    network.load_state_dict(state["average"])
    return network.eval()


def pixels(pictures: np.ndarray, device: str = "cpu") -> torch.Tensor:
    """uint8 (N, H, W, 3) to float32 (N, 3, H, W) in -1..1, channels last in memory."""
    return torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def loss(decoded: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Absolute and squared error, weighed by local contrast, and the error of the slopes."""
    contrast = (wanted - F.avg_pool2d(wanted, 5, 1, 2, count_include_pad=False)).abs().amax(1, keepdim=True)
    weight = 1 + 4 * (contrast / 0.3).clamp(max=1)
    error = decoded - wanted
    slopes = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return (weight * (error.abs() + 2 * error.square())).mean() + slopes


@torch.no_grad()
def quality(network: torch.nn.Module, held_out: np.ndarray, device: str) -> float:
    """Peak signal-to-noise ratio in dB over held-out paintings, all pixels together."""
    error = 0.0
    for first in range(0, len(held_out), 64):
        x = pixels(held_out[first : first + 64], device)
        y = network.decode(network.encode(x).latents).sample.clamp(-1, 1)  # type: ignore[operator, union-attr]
        error += float(((y - x) / 2).square().sum())
    return float(-10 * np.log10(error / (held_out.size)))


def fit(plan: training.Plan, pictures: np.ndarray, settings: dict[str, Any], only_decoder: bool) -> None:
    """Train to the plan's last step."""
    torch.manual_seed(plan.seed)
    network = build(settings).to(plan.device)
    network.encoder.requires_grad_(not only_decoder)
    shown, held_out = pictures[:-HELD_OUT], np.array(pictures[-HELD_OUT:])

    def loss_of(step: int, dice: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        chosen = torch.randint(len(shown), (plan.batch,), generator=dice).numpy()
        x = pixels(shown[np.sort(chosen)], plan.device)
        if torch.rand((), generator=dice) < 0.5:
            x = x.flip(-1)
        latents = network.encode(x).latents
        noise = torch.randn(latents.shape, generator=dice).to(plan.device)
        decoded = network.decode(latents + NOISE * noise).sample
        # A light pull to the middle keeps the latents' spread near one.
        return loss(decoded, x) + 1e-3 * latents.square().mean(), {"spread": float(latents.detach().std())}

    def on_save(step: int, average: torch.nn.Module) -> dict[str, float]:
        return {"psnr": quality(average, held_out, plan.device)}

    training.train(plan, network, loss_of, settings, on_save)


def main() -> None:
    """Trains, or goes on training."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--paintings", type=int, help="how many of the cache to use (all)")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--only-decoder", action="store_true", help="leave the latents as they are")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    plan = training.Plan(
        options.out,
        options.steps,
        options.rate,
        options.batch,
        device=training.device_named(options.device),
        decay=0.0,
    )
    fit(
        plan, Paintings(options.data / "paintings.u8").read(options.paintings), SETTINGS, options.only_decoder
    )


if __name__ == "__main__":
    main()
