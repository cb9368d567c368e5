"""Kernels of our own for NVIDIA GPUs: operators that fuse, what they compute, and how each is run fastest."""

from tailorbird.backends.inductor.kernels.engine import build
from tailorbird.backends.inductor.kernels.engine import open_engine as open  # noqa: A004

__all__ = ["build", "open"]
