"""The denoiser: a U-Net on latents and a text encoder, trained together by flow matching.

A picture at time t is (1 - t) latents + t noise, and the network learns noise - latents. Where the sun stands
should be open only in the noisiest tenth of the way: later the picture itself shows it. The usual spread of
times, logit-normal around one half, spends one step in forty there; ours leans towards noise and spends one in
six, so that "left" and "right" are worth learning. `SwapTest` tells whether they are learned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from diptych.images.scenes.rng import RandomStream
from tiny_diffusion import latents, muon, tokens, training, world

WIDTH = 128  # of the text encoder
HELD_OUT = 256  # the last lessons: never trained on
OBJECTS = 3.0  # how much more the loss counts where objects are: they are small, and prompts ask for them
UNSAID = 0.1  # how often the caption is left out
TIMES = (0.8, 1.2)  # mean and spread of logit(t)
_ATTENTION = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D")
SETTINGS: dict[str, Any] = {"channels": (64, 96, 80), "attention": (False, True, True)}


class Denoiser(nn.Module):
    """The text encoder and the U-Net."""

    def __init__(self, vocabulary: int, channels: tuple[int, ...], attention: tuple[bool, ...]) -> None:
        super().__init__()
        self.text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=vocabulary,
                hidden_size=WIDTH,
                intermediate_size=2 * WIDTH,
                num_attention_heads=4,
                num_hidden_layers=2,
                max_position_embeddings=tokens.LENGTH,
                bos_token_id=0,
                pad_token_id=1,
                eos_token_id=2,
            )
        )
        self.unet = UNet2DConditionModel(
            sample_size=latents.SHAPE[1],
            in_channels=latents.SHAPE[0],
            out_channels=latents.SHAPE[0],
            block_out_channels=channels,
            layers_per_block=1,
            down_block_types=[_ATTENTION[0] if here else "DownBlock2D" for here in attention],
            up_block_types=[_ATTENTION[1] if here else "UpBlock2D" for here in attention[::-1]],
            cross_attention_dim=WIDTH,
            attention_head_dim=4,  # the number of heads, whatever its name says
            norm_num_groups=16,
            use_linear_projection=True,
        )

    def forward(self, x: torch.Tensor, t: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """noise - latents, as predicted for noisy latents x (N, 8, 16, 16) at times t (N,) in 0..1."""
        said = self.text(ids).last_hidden_state
        predicted: torch.Tensor = self.unet(x, t * 1000, said).sample
        return predicted


def load(folder: Path) -> Denoiser:
    """The average weights of a training folder's checkpoint."""
    state = torch.load(folder / "checkpoint.pt", map_location="cpu", weights_only=True)
    network = Denoiser(**state["settings"])
    network.load_state_dict(state["average"])
    return network.eval()


def error(
    network: nn.Module, clean: torch.Tensor, ids: torch.Tensor, t: torch.Tensor, noise: torch.Tensor
) -> torch.Tensor:
    """The squared error of the prediction, the mean over channels: (N, 16, 16)."""
    at = t[:, None, None, None]
    predicted = network((1 - at) * clean + at * noise, t, ids)
    squares = (predicted.float() - (noise - clean)).square()
    return squares.mean(1)


class SwapTest:
    """Does the network hear "left" and "right"? The loss on held-out lessons, and how much it grows when the
    captions name the other side of the sun or the moon.
    """

    def __init__(self, held: npt.NDArray[np.float16], first: int, tokenizer: CLIPTokenizer) -> None:
        chosen, said, swapped = [], [], []
        other = {"left": "right", "right": "left"}
        for seed in range(first, first + len(held)):
            scene = world.draw(seed)
            if scene.luminary_side not in other:
                continue
            false = replace(scene, luminary_side=other[scene.luminary_side])
            texts = [world.caption(s, RandomStream("swap", seed)) for s in (scene, false)]
            if texts[0] != texts[1]:
                chosen.append(seed - first)
                said.append(texts[0])
                swapped.append(texts[1])
        self.clean = torch.from_numpy(np.array(held[chosen])).float()
        self.said = torch.from_numpy(latents.ids(tokenizer, said))
        self.swapped = torch.from_numpy(latents.ids(tokenizer, swapped))
        self.noise = torch.randn(self.clean.shape, generator=torch.Generator().manual_seed(0))

    @torch.no_grad()
    def __call__(self, network: nn.Module, device: str) -> dict[str, float]:
        """`loss at t`, and `swap at t`: the loss's relative growth, 0 for a network that does not listen."""
        figures = {}
        clean, noise = self.clean.to(device), self.noise.to(device)
        for time in (0.5, 0.9, 0.97):
            t = torch.full((len(clean),), time, device=device)
            said = float(error(network, clean, self.said.to(device), t, noise).mean())
            swapped = float(error(network, clean, self.swapped.to(device), t, noise).mean())
            figures |= {f"loss at {time}": said, f"swap at {time}": swapped / said - 1}
        return figures


def fit(
    plan: training.Plan,
    lessons: latents.Lessons,
    tokenizer: CLIPTokenizer,
    settings: dict[str, Any] = SETTINGS,
    show: Callable[[int, Denoiser], None] = lambda step, average: None,
) -> None:
    """Train to the plan's last step. `show(step, average)` is called with each checkpoint."""
    torch.manual_seed(plan.seed)
    settings = {"vocabulary": len(tokenizer), **settings}
    network = Denoiser(**settings).to(plan.device)
    count = len(lessons) - HELD_OUT
    test = SwapTest(lessons.latents[count:], count, tokenizer)
    silence = torch.from_numpy(latents.ids(tokenizer, [""]))

    def loss_of(step: int, rng: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(count, (plan.batch,), generator=rng).sort().values.numpy()
        which = torch.randint(latents.CAPTIONS, (plan.batch,), generator=rng).numpy()
        clean = torch.from_numpy(lessons.latents[chosen]).float()
        ids = torch.from_numpy(lessons.tokens[chosen, which].astype(np.int64))
        ids = torch.where(torch.rand(plan.batch, 1, generator=rng) < UNSAID, silence, ids)
        t = torch.sigmoid(TIMES[0] + TIMES[1] * torch.randn(plan.batch, generator=rng))
        noise = torch.randn(clean.shape, generator=rng)
        weights = 1 + OBJECTS * torch.from_numpy(lessons.objects[chosen]).float()
        drawn = (clean, ids, t, noise, weights)
        clean, ids, t, noise, weights = (training.share(part).to(plan.device) for part in drawn)
        return (weights * error(network, clean, ids, t, noise)).mean()

    def on_save(step: int, average: nn.Module) -> dict[str, float]:
        show(step, average)  # type: ignore[arg-type]
        return test(average, plan.device)

    # The first and the last convolution stay with AdamW, as Muon's authors advise.
    optimisers = muon.both(network, plan.rate, plan.decay, apart=("unet.conv_in", "unet.conv_out"))
    training.train(plan, network, loss_of, settings, on_save, optimisers)
