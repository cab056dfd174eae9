"""The autoencoder: 64 x 64 pixels to 16 x 16 latents of eight channels, and back.

A stock `AutoencoderKL` of three levels. Its loss weighs edges and small bright things, which a plain mean
would blur away, and the colours of 4 x 4 blocks, which come late otherwise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import nn

from tiny_diffusion import training

LATENTS, SHRINK = 8, 4
SETTINGS: dict[str, Any] = {"channels": (16, 32, 64)}
HELD_OUT = 256  # the last paintings: never trained on
FINAL = "final"  # the folder, inside that of the training, where the finished network is
_PULL = 5e-4  # the weight of the pull towards a standard normal


def build(channels: tuple[int, ...]) -> AutoencoderKL:
    """The network with random weights."""
    return AutoencoderKL(
        block_out_channels=channels,
        down_block_types=["DownEncoderBlock2D"] * len(channels),
        up_block_types=["UpDecoderBlock2D"] * len(channels),
        layers_per_block=1,
        latent_channels=LATENTS,
        norm_num_groups=8,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=1.0,
        sample_size=64,
    )


def load(folder: Path) -> AutoencoderKL:
    """The finished network of a training folder."""
    network: AutoencoderKL = AutoencoderKL.from_pretrained(folder / FINAL)
    return network.eval()


def loss(decoded: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Absolute and squared error weighed by local contrast, the error of slopes, and that of block colours."""
    contrast = (wanted - F.avg_pool2d(wanted, 5, 1, 2, count_include_pad=False)).abs().amax(1, keepdim=True)
    weight = 1 + 4 * (contrast / 0.3).clamp(max=1)
    error = decoded - wanted
    slopes = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    colours = F.avg_pool2d(error, 4).abs().mean()
    return (weight * (error.abs() + 2 * error.square())).mean() + slopes + 4 * colours


@torch.no_grad()
def quality(network: nn.Module, pictures: npt.NDArray[np.uint8], device: str) -> float:
    """Peak signal-to-noise ratio in dB, over all pixels of all pictures together."""
    total = 0.0
    for first in range(0, len(pictures), 64):
        x = training.pixels(pictures[first : first + 64], device)
        y = network.decode(network.encode(x).latent_dist.mode()).sample.clamp(-1, 1)  # type: ignore[operator, union-attr]
        total += float(((y - x) / 2).square().sum())
    return float(-10 * np.log10(total / pictures.size))


def fit(plan: training.Plan, pictures: npt.NDArray[np.uint8], settings: dict[str, Any] = SETTINGS) -> None:
    """Train to the plan's last step and write the finished network."""
    torch.manual_seed(plan.seed)
    network = build(**settings).to(plan.device)
    count = len(pictures) - HELD_OUT
    held_out = np.array(pictures[count:])

    def loss_of(step: int, rng: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(count, (plan.batch,), generator=rng).sort().values.numpy()
        x = training.share(training.pixels(pictures[chosen], plan.device))
        if torch.rand((), generator=rng) < 0.5:
            x = x.flip(-1)
        seen = network.encode(x).latent_dist
        noise = torch.randn((plan.batch, *seen.mean.shape[1:]), generator=rng)
        noise = training.share(noise).to(plan.device)
        return (
            loss(network.decode(seen.mean + seen.std * noise).sample, x)
            + _PULL * seen.kl().mean() / noise[0].numel()
        )

    def on_save(step: int, average: nn.Module) -> dict[str, float]:
        return {"psnr": quality(average, held_out, plan.device)}

    average = training.train(plan, network, loss_of, settings, on_save)
    if not training.is_first():
        return
    with torch.no_grad():
        spread = average.encode(training.pixels(held_out, plan.device)).latent_dist.mode().std()  # type: ignore[operator, union-attr]
    average.register_to_config(scaling_factor=round(1 / float(spread), 4))  # type: ignore[operator]
    average.cpu().save_pretrained(plan.folder / FINAL)  # type: ignore[operator]
