"""What pages with scripts carry: data as text, and the scripts with their content security policy."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

__all__ = ["Packed", "Scripts", "as_json", "pack", "runtime"]

_PLACE = Path(__file__).parent / "live"
# 91 printable characters that mean nothing in HTML: two of them hold 13 bits. live/common.js reads them.
_ALPHABET = "".join(chr(code) for code in range(33, 127) if chr(code) not in "<&'")


@dataclass(frozen=True)
class Packed:
    """Compressed bytes as text: two characters of 91 for 13 bits, the lowest first (6.5 bits a byte; base64 has 6).

    Attributes:
        text: The text, which means nothing in HTML.
        size: How many compressed bytes it stands for.
    """

    text: str
    size: int


@dataclass(frozen=True)
class Scripts:
    """The scripts of a page by their file names in report/live, in the order in which they run."""

    names: tuple[str, ...]

    @property
    def texts(self) -> tuple[Markup, ...]:
        """The scripts."""
        return tuple(Markup(_text(name)) for name in self.names)

    @property
    def policy(self) -> str:
        """Their hashes, for the page's content security policy."""
        digests = (hashlib.sha256(f"\n{script}\n".encode()).digest() for script in self.texts)
        return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)


def pack(content: bytes) -> Packed:
    """Compresses `content` for a page."""
    return _as_text(gzip.compress(content, 9, mtime=0))


@cache
def runtime() -> Packed:
    """ONNX Runtime's WebAssembly."""
    return _as_text((_PLACE / "onnxruntime.wasm.gz").read_bytes())


def as_json(facts: dict[str, Any]) -> str:
    """JSON that can stand in a script element."""
    return json.dumps(facts, ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c")


@cache
def _text(name: str) -> str:
    return (_PLACE / name).read_text("utf-8").strip()


def _as_text(content: bytes) -> Packed:
    bits = np.unpackbits(np.frombuffer(content, np.uint8), bitorder="little")
    groups = np.pad(bits, (0, -len(bits) % 13)).reshape(-1, 13)
    numbers = groups.astype(np.int32) @ (1 << np.arange(13, dtype=np.int32))
    alphabet: Any = np.frombuffer(_ALPHABET.encode(), np.uint8)
    pairs = np.stack([alphabet[numbers % 91], alphabet[numbers // 91]], axis=1)
    return Packed(pairs.tobytes().decode("ascii"), len(content))
