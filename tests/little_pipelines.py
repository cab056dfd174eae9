"""A Stable Diffusion pipeline with random weights, small enough to build in a second, with no download."""

from __future__ import annotations

import json
import string
from pathlib import Path

WORDS = ("a", "red", "sun", "over", "the", "sea", "serene", "sunset", "city")


def write_tokenizer(folder: Path) -> None:
    """A vocabulary of printable ASCII, each also as a word's end, and merges for a few words."""
    signs = [sign for sign in string.printable if not sign.isspace()]
    vocabulary = ["<|startoftext|>", "<|pad|>", "<|endoftext|>", *signs, *(sign + "</w>" for sign in signs)]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            pair = (parts[0], parts[1])
            if pair not in merges:
                merges.append(pair)
            parts = [parts[0] + parts[1], *parts[2:]]
    for left, right in merges:
        if left + right not in vocabulary:
            vocabulary.append(left + right)
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocabulary)}), "utf-8")
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (folder / "merges.txt").write_text("\n".join(lines), "utf-8")


def save_pipeline(folder: Path, scratch: Path) -> None:
    """Build the pipeline that diffusers' own tests use, with our tokenizer, and save it in `folder`."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    write_tokenizer(scratch / "tokenizer")
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(4, 8),
        layers_per_block=1,
        sample_size=32,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=8,
        norm_num_groups=2,
    )
    vae = AutoencoderKL(
        block_out_channels=[4, 8],
        in_channels=3,
        out_channels=3,
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=4,
        norm_num_groups=2,
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            bos_token_id=0,
            eos_token_id=2,
            pad_token_id=1,
            hidden_size=8,
            intermediate_size=16,
            num_attention_heads=2,
            num_hidden_layers=2,
            vocab_size=1000,
        )
    )
    tokenizer = CLIPTokenizer(
        str(scratch / "tokenizer" / "vocab.json"),
        str(scratch / "tokenizer" / "merges.txt"),
        model_max_length=32,
        pad_token="<|pad|>",
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
