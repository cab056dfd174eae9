"""PyTorch: models as `torch.nn.Module`s and back."""

from diptych.formats.torch.building import to_torch

__all__ = ["to_torch"]
