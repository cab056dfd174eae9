"""The tokenizer: one token a word for the words of the captions, single letters for all others.

A stock `CLIPTokenizer`: a vocabulary, and merges that build each known word from its letters. Word
vocabularies like this one never split a known word, so a prompt's words outside it are easy to name.
"""

from __future__ import annotations

import json
import string
import tempfile
from itertools import pairwise
from pathlib import Path

from transformers import CLIPTokenizer

from diptych.images.scenes.rng import RandomStream
from tiny_diffusion import world

LENGTH = 40  # tokens a prompt, with start and end
START, PAD, END = "<|startoftext|>", "<|pad|>", "<|endoftext|>"
SURVEYED = 2000  # scenes whose captions are read for words


def words() -> list[str]:
    """Every word that captions are made of, sorted."""
    found: set[str] = set()
    for seed in range(SURVEYED):
        scene = world.draw(seed)
        for number in range(4):
            found |= set(world.caption(scene, RandomStream("words", seed, number)).replace(",", " ").split())
    return sorted(found)


def build(known: list[str]) -> CLIPTokenizer:
    """The tokenizer for these words: each becomes one token."""
    signs = [sign for sign in string.printable if not sign.isspace()]
    tokens = dict.fromkeys([START, PAD, END, *signs, *(sign + "</w>" for sign in signs)])
    merges: dict[tuple[str, str], int] = {}
    for word in known:
        # What earlier merges leave of the word is joined by later ones, which can undo nothing before them.
        parts = _merged([*word[:-1], word[-1] + "</w>"], merges)
        while len(parts) > 1:
            merges[(parts[0], parts[1])] = len(merges)
            tokens[parts[0] + parts[1]] = None
            parts = _merged(parts, merges)
    with tempfile.TemporaryDirectory() as folder:
        vocabulary, merged = Path(folder, "vocab.json"), Path(folder, "merges.txt")
        vocabulary.write_text(json.dumps({token: i for i, token in enumerate(tokens)}), "utf-8")
        merged.write_text("\n".join(["#version: 0.2", *map(" ".join, merges)]), "utf-8")
        return CLIPTokenizer(
            str(vocabulary),
            str(merged),
            model_max_length=LENGTH,
            bos_token=START,
            eos_token=END,
            pad_token=PAD,
            unk_token=END,
        )


def _merged(parts: list[str], merges: dict[tuple[str, str], int]) -> list[str]:
    """The parts joined as byte-pair encoding does: the earliest merge first, as long as one applies."""
    while pairs := [pair for pair in pairwise(parts) if pair in merges]:
        first = min(pairs, key=merges.__getitem__)
        joined: list[str] = []
        for part in parts:
            if joined and (joined[-1], part) == first:
                joined[-1] += part
            else:
                joined.append(part)
        parts = joined
    return parts
