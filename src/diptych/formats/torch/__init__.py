"""PyTorch: conversion between models and `torch.nn.Module`s, and .pt files."""

from diptych.formats.torch.building import to_torch
from diptych.formats.torch.files import read, write
from diptych.formats.torch.tracing import from_torch

__all__ = ["from_torch", "read", "to_torch", "write"]
