"""PyTorch: conversion between models and `torch.nn.Module`s, and .pt files."""

from diptych.formats.torch.building import to_torch
from diptych.formats.torch.files import read, write
from diptych.formats.torch.tracing import from_torch
from diptych.formats.torch.whole import as_whole

__all__ = ["as_whole", "from_torch", "read", "to_torch", "write"]
