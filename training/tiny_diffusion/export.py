"""The trained parts as a stock Stable Diffusion pipeline, half precision on disk.

`AutoPipelineForText2Image.from_pretrained(FOLDER)` loads it without a line of this project's code.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline
from transformers import CLIPTokenizer

from diptych.images import scenes
from diptych.images.files import write_png
from tiny_diffusion import denoiser, world

STEPS, GUIDANCE, SHIFT = 8, 3.0, 2.0
SHOWN = (
    "a serene sunset over a futuristic city",
    "a red sun on the right over the sea at sunset with a white boat on the right",
    "mountains at night with a yellow moon on the left and stars",
    "a temple at noon with clouds",
    "a white sun on the left over a forest in the morning",
    "a desert at noon, a yellow sun on the right and a cactus on the left",
    "an island at dusk with a red sun on the left and birds",
    "a village at dawn with a red balloon on the right",
    "a field at noon with a red house on the left and clouds",
    "outer space with a rocket on the left",
    "a city at night in the rain",
    "the sea at dawn with a yellow sun in the centre and a red lighthouse on the left",
)


def pipeline(
    vae: AutoencoderKL, network: denoiser.Denoiser, tokenizer: CLIPTokenizer
) -> StableDiffusionPipeline:
    """The parts in one pipeline. DPM-Solver++ with flow matching's noise levels, more of them near noise."""
    made = StableDiffusionPipeline(
        vae=vae,
        text_encoder=network.text,
        tokenizer=tokenizer,
        unet=network.unet,
        scheduler=DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=SHIFT, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made


def pictures(
    made: StableDiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    steps: int = STEPS,
    guidance: float = GUIDANCE,
) -> list[np.ndarray]:
    """One picture, uint8 (64, 64, 3), for each prompt and seed, many at a time."""
    drawn: list[np.ndarray] = []
    for first in range(0, len(prompts), 32):
        part = slice(first, first + 32)
        output = made(
            list(prompts[part]),
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds[part]],
            output_type="np",
        ).images
        drawn.extend(np.round(np.clip(output, 0, 1) * 255).astype(np.uint8))
    return drawn


def write_grid(path: Path, made: StableDiffusionPipeline, rows: int = 3) -> None:
    """A sheet of `SHOWN`, a prompt a column, at twice the size: the painter's picture above, the pipeline's below,
    a seed a row.
    """
    side = world.SIZE
    painted = [scenes.paint(prompt, 0, 0, side, side).pixels for prompt in SHOWN]
    prompts = list(SHOWN) * rows
    drawn = pictures(made, prompts, [i // len(SHOWN) for i in range(len(prompts))])
    sheet = np.stack([*painted, *drawn]).reshape(rows + 1, len(SHOWN), side, side, 3).transpose(0, 2, 1, 3, 4)
    sheet = sheet.reshape((rows + 1) * side, len(SHOWN) * side, 3)
    write_png(path, sheet.repeat(2, 0).repeat(2, 1))


def save(made: StableDiffusionPipeline, folder: Path) -> None:
    """Write the pipeline's folder in half precision, to be read in single precision unless told otherwise."""
    made.to(dtype=torch.float16).save_pretrained(folder)
    # transformers reads weights as precise as they were written, diffusers in single precision: the two must
    # agree for a caller who names no dtype.
    config = folder / "text_encoder" / "config.json"
    config.write_text(
        json.dumps({**json.loads(config.read_text("utf-8")), "dtype": "float32"}, indent=2), "utf-8"
    )
    # transformers before 5 reads these two instead of tokenizer.json.
    model = json.loads((folder / "tokenizer" / "tokenizer.json").read_text("utf-8"))["model"]
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(model["vocab"]), "utf-8")
    merges = "".join(f"{' '.join(pair)}\n" for pair in model["merges"])
    (folder / "tokenizer" / "merges.txt").write_text(f"#version: 0.2\n{merges}", "utf-8")
