"""What a user may choose, as frozen values that the verbs hand on; every default stands here, once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:  # the command line shows these defaults, and must not load NumPy for that
    from pathlib import Path

    from diptych.model.model import Model
    from diptych.preprocessing import Preprocessing

__all__ = [
    "ExplainMethod",
    "GenerationOptions",
    "OnError",
    "ReadOptions",
    "RunOptions",
    "ScaleRule",
    "ServeOptions",
]

ScaleRule: TypeAlias = Literal["per-map", "shared"]
"""The colours of feature maps: one scale for each map, or one for all maps of a layer."""
OnError: TypeAlias = Literal["report", "test-pattern"]
"""An unreadable picture: report it and go on, or put a marked test pattern in its place as well."""
ExplainMethod: TypeAlias = Literal["grad-cam", "occlusion", "smooth-gradients"]
"""How it is found which parts of a picture an answer stands on; see `diptych.explaining`."""


@dataclass(frozen=True)
class ReadOptions:
    """What reading a model file needs to be told because the file itself does not say it.

    Attributes:
        architecture: The architecture to fill if the file holds weights alone: a model, a file or a name.
        written_by: The version of Flux that wrote the file, such as "0.13.4", where versions compute
            differently and the file does not record its own.
        key: Which of several models in a Flux file or in Julia source, such as "generator".
        functions: What closures compute whose code is not in the file, by name: {"#30#31": "flatten"}.
        output: Which of several outputs of an ONNX graph, by its name.
    """

    architecture: Model | str | Path | None = None
    written_by: str | None = None
    key: str | None = None
    functions: Mapping[str, str] | None = None
    output: str | None = None

    def given(self) -> dict[str, Any]:
        """The options that are not None, by name."""
        options = {
            "architecture": self.architecture,
            "written_by": self.written_by,
            "key": self.key,
            "functions": self.functions or None,
            "output": self.output,
        }
        return {name: value for name, value in options.items() if value is not None}


@dataclass(frozen=True)
class GenerationOptions:
    """What decides the pictures of a prompt: with equal options, a prompt gives equal pictures.

    Attributes:
        count: How many pictures, 1 to 1000.
        seed: 0 to 2**63 - 1.
        generator: "scenes", "tiny", or a diffusers model by id or folder.
        width: Pixels, 16 to 8192; None for what suits the generator.
        height: As `width`.
        settings: The generator's own options, such as steps, guidance, negative_prompt and device.
    """

    count: int = 3
    seed: int = 0
    generator: str = "scenes"
    width: int | None = None
    height: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def to_document(self) -> dict[str, Any]:
        """As a JSON object, the generator's own options beside the others."""
        return {
            "count": self.count,
            "seed": self.seed,
            "generator": self.generator,
            "width": self.width,
            "height": self.height,
            **self.settings,
        }


@dataclass(frozen=True)
class RunOptions:
    """How `run` goes from pictures to its page.

    Attributes:
        generation: How pictures are made where none are given.
        model: A model, its file or its name.
        reading: How to read the model's file.
        preprocessing: A recipe, its name, its file, or a model that carries one; None for the model's own.
        maps: The layers to draw: "conv", "all", or paths such as "0,3.1".
        scale: The colours of feature maps.
        on_error: What becomes of a picture that cannot be read.
        explain: How to find which parts of each picture the answer stands on; None to leave that out.
        static: Whether the page is to run nothing; otherwise the model runs in it.
        engine: One of `engines.ENGINES`, or "auto".
        device: "auto", "cpu", "cuda" or "mps".
    """

    generation: GenerationOptions = GenerationOptions()
    model: Model | str | Path = "scenes"
    reading: ReadOptions = ReadOptions()
    preprocessing: Preprocessing | Model | str | Path | None = None
    maps: str = "conv"
    scale: ScaleRule = "per-map"
    on_error: OnError = "report"
    explain: ExplainMethod | None = None
    static: bool = False
    engine: str = "auto"
    device: str = "auto"


@dataclass(frozen=True)
class ServeOptions:
    """How the server works.

    Attributes:
        host: The address it listens on.
        port: The port; 0 for a free one.
        token: The bearer token that requests must have; None for no token, on loopback alone.
        allow_origins: Origins of pages elsewhere that may ask, such as "https://example.org".
        allow_hosts: Further names by which the server may be called, as behind a proxy.
        allow_uploads: Whether visitors may send model files.
        max_batch: The most samples that are computed together.
        max_delay: Milliseconds that a batch waits to be filled.
        max_queue: The most requests that wait for a model.
        max_bytes: The most bytes of a request's body.
        max_pixels: The most pixels of a picture.
        timeout: Seconds that a request may take.
        engine: One of `engines.ENGINES`, or "auto".
        device: "auto", "cpu", "cuda" or "mps".
        reading: How to read the file of a model that is named.
        preprocessing: The recipe of a model that is named, instead of its own.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    allow_origins: tuple[str, ...] = ()
    allow_hosts: tuple[str, ...] = ()
    allow_uploads: bool = False
    max_batch: int = 32
    max_delay: float = 0.0
    max_queue: int = 256
    max_bytes: int = 32 * 2**20
    max_pixels: int = 25_000_000
    timeout: float = 60.0
    engine: str = "auto"
    device: str = "auto"
    reading: ReadOptions = ReadOptions()
    preprocessing: Preprocessing | Model | str | Path | None = None
