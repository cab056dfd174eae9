"""Pictures by any text-to-image model of the diffusers library, with one seed and one call for each picture."""

from __future__ import annotations

import importlib.metadata
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diptych.errors import GenerationError, UsageError, out_of_memory, reason
from diptych.images import pretrained
from diptych.images.picture import JSON, Picture, Record
from diptych.progress import Progress

__all__ = ["Diffusion", "Settings"]

_DEVICES = ("auto", "cuda", "mps", "cpu")


@dataclass(frozen=True)
class Settings:
    """The options of a diffusion model; None leaves the choice to the model.

    Attributes:
        steps: Denoising steps, 1 to 1000.
        guidance: How closely the prompt is followed, 0 to 100.
        negative_prompt: What not to show.
        device: auto, cuda, mps or cpu.
        revision: Of a model on the Hugging Face Hub.
        allow_pickle: Whether to read weights from pickle files, which can run code. A record cannot ask for
            it.
    """

    steps: int | None = None
    guidance: float | None = None
    negative_prompt: str | None = None
    device: str = "auto"
    revision: str | None = None
    allow_pickle: bool = False

    def __post_init__(self) -> None:
        whole = isinstance(self.steps, int) and not isinstance(self.steps, bool)
        if self.steps is not None and not (whole and 1 <= self.steps <= 1000):
            raise UsageError(f"steps must be a whole number from 1 to 1000, not {self.steps!r}")
        number = isinstance(self.guidance, int | float) and not isinstance(self.guidance, bool)
        if self.guidance is not None and not (number and 0 <= self.guidance <= 100):
            raise UsageError(f"guidance must be a number from 0 to 100, not {self.guidance!r}")
        if not isinstance(self.allow_pickle, bool):
            raise UsageError(f"allow_pickle must be True or False, not {self.allow_pickle!r}")
        for name in ("negative_prompt", "revision"):
            if not isinstance(getattr(self, name), str | None):
                raise UsageError(f"{name} must be text, not {getattr(self, name)!r}")
        if self.device not in _DEVICES:
            raise UsageError(f"there is no device {self.device!r}; choose one of {', '.join(_DEVICES)}")


class Diffusion:
    """The diffusers model `name`: an id such as runwayml/stable-diffusion-v1-5, or a folder."""

    options = tuple(field.name for field in fields(Settings))
    unsafe_options = ("allow_pickle",)

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def version(self) -> str:
        """The versions of the two libraries that decide what a picture looks like."""
        return ", ".join(
            f"{package} {importlib.metadata.version(package)}" for package in ("diffusers", "torch")
        )

    def generate(
        self,
        prompt: str,
        *,
        count: int,
        seed: int,
        width: int | None,
        height: int | None,
        start: int = 0,
        on_progress: Progress | None = None,
        **options: Any,
    ) -> Iterator[Picture]:
        """See `Generator.generate`; width and height are multiples of 8.

        Picture number i is denoised by itself from seed + i, so that neither the number of pictures nor
        their order changes it; random numbers are drawn on the CPU.
        """
        for option in options:
            if option not in self.options:
                raise UsageError(
                    f"{self.name} takes no option {option!r}; it takes {', '.join(self.options)}"
                )
        settings = Settings(**options)
        for side in (width, height):
            if side is not None and side % 8:
                raise UsageError(f"width and height must be multiples of 8 for a diffusion model, not {side}")
        pretrained.require()
        return self._generated(
            prompt, range(start, start + count), seed, (width, height), settings, on_progress
        )

    def _generated(
        self,
        prompt: str,
        indices: range,
        seed: int,
        size: tuple[int | None, int | None],
        settings: Settings,
        on_progress: Progress | None,
    ) -> Iterator[Picture]:
        device = _device(settings.device)
        with pretrained.quietly():
            pipeline, revision = self._pipeline(device, settings)
            arguments, used = _arguments(self.name, pipeline, prompt, size, settings)
        for done, index in enumerate(indices):
            name = f"generated_image_{index + 1}"
            counter = _Counter(name, done, len(indices), used["steps"], on_progress)
            output = _run(self.name, pipeline, {**arguments, **counter.argument(arguments)}, seed + index)
            counter.finish()
            pixels = np.asarray(output.images[0].convert("RGB"))
            record = Record(
                prompt,
                seed,
                index,
                self.name,
                self.version,
                width=pixels.shape[1],
                height=pixels.shape[0],
                settings={**used, **revision, "image_seed": seed + index, "device": device},
            )
            yield Picture(pixels, name, _remarks(output, pixels), record)

    def _pipeline(self, device: str, settings: Settings) -> tuple[Any, dict[str, JSON]]:
        def dtype_for(index: dict[str, Any]) -> object:
            import torch

            if device == "cpu":
                return torch.float32
            # The transformers of recent models were trained in bfloat16, and overflow in float16.
            return torch.bfloat16 if "transformer" in index else torch.float16

        pipeline, commit = pretrained.load(self.name, dtype_for, settings.revision, settings.allow_pickle)
        pipeline.set_progress_bar_config(disable=True)
        try:
            return pipeline.to(device), {} if commit is None else {"revision": commit}
        except Exception as error:
            raise _failed(self.name, error) from error


class _Counter:
    """Turns the pipeline's callback after each step into progress over all pictures."""

    def __init__(self, name: str, before: int, count: int, steps: JSON, on_progress: Progress | None) -> None:
        self.name, self.on_progress = name, on_progress
        self.steps = steps if isinstance(steps, int) else 1
        self.before, self.total, self.done = before * self.steps, count * self.steps, 0

    def argument(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return {"callback_on_step_end": self} if "callback_on_step_end" in arguments else {}

    def __call__(self, pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if self.done < self.steps:  # some schedulers take one step more than asked for
            self.done += 1
            self._tell()
        return tensors

    def finish(self) -> None:
        if self.done < self.steps:
            self.done = self.steps
            self._tell()

    def _tell(self) -> None:
        if self.on_progress is not None:
            self.on_progress(self.before + self.done, self.total, self.name)


def _device(asked: str) -> str:
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if asked == "auto":
        return next(device for device, found in there.items() if found)
    if not there[asked]:
        raise GenerationError(f"this machine has no {asked} device that torch can use; choose cpu or auto")
    return asked


def _arguments(
    name: str, pipeline: Any, prompt: str, size: tuple[int | None, int | None], settings: Settings
) -> tuple[dict[str, Any], dict[str, JSON]]:
    """The arguments of the pipeline's call, and the settings for the record."""
    known = inspect.signature(pipeline.__call__).parameters
    required = [key for key, value in known.items() if value.default is value.empty and value.kind < 2]
    if "prompt" not in known or set(required) - {"prompt"}:
        kind = type(pipeline).__name__
        raise GenerationError(
            f"{name} is a {kind}, which cannot make pictures from a prompt alone; name another model"
        )
    arguments: dict[str, Any] = {"prompt": prompt}
    used: dict[str, JSON] = {"sampler": type(getattr(pipeline, "scheduler", None)).__name__}
    used["dtype"] = str(pipeline.dtype).removeprefix("torch.")
    asked = {
        "steps": ("num_inference_steps", settings.steps),
        "guidance": ("guidance_scale", settings.guidance),
        "negative_prompt": ("negative_prompt", settings.negative_prompt),
        "width": ("width", size[0]),
        "height": ("height", size[1]),
    }
    for option, (key, value) in asked.items():
        if value is not None and key not in known:
            raise UsageError(f"the model {name} takes no {option.replace('_', ' ')}; leave it out")
        if value is not None:
            arguments[key] = value
        if option not in ("width", "height") and key in known:
            used[option] = known[key].default if value is None else value
    used = {key: value for key, value in used.items() if value is not None}
    if "callback_on_step_end" in known:
        arguments["callback_on_step_end"] = None
    if "num_images_per_prompt" in known:
        arguments["num_images_per_prompt"] = 1
    return arguments, {"steps": 1, **used}


def _run(name: str, pipeline: Any, arguments: dict[str, Any], seed: int) -> Any:
    import torch

    generator = torch.Generator("cpu").manual_seed(seed)
    try:
        with pretrained.quietly():
            return pipeline(**arguments, generator=generator)
    except Exception as error:  # the model's own code may raise anything
        raise _failed(name, error) from error


def _failed(name: str, error: Exception) -> GenerationError:
    if out_of_memory(error):
        return GenerationError(
            f"there is not enough memory to run {name}; ask for a smaller width and height, close other "
            "programs, or choose device cpu"
        )
    return GenerationError(f"{name} failed while making a picture ({reason(error)}); try other settings")


def _remarks(output: Any, pixels: NDArray[np.uint8]) -> tuple[str, ...]:
    blocked = getattr(output, "nsfw_content_detected", None)
    if blocked and blocked[0]:
        return ("the model's safety checker blacked it out; try another seed or prompt",)
    if not pixels.any():
        return ("it is black, probably because half precision overflowed; try device cpu",)
    return ()
