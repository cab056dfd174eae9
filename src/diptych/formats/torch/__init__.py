"""PyTorch: models as `torch.nn.Module`s and back."""

from diptych.formats.torch.building import to_torch
from diptych.formats.torch.tracing import from_torch

__all__ = ["from_torch", "to_torch"]
