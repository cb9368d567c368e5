"""What the two models take: pixels normalised as PP-OCR expects, and lines of text laid out as strips."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from tailorbird.domain.dtype import Array

STRIP_HEIGHT, STRIP_WIDTH = 48, 320
"""Pixels of the recogniser's input (PP-OCR: ``rec_image_shape``)."""

_SHORTEST = 0.4
"""A line is cut no earlier than after this part of a strip."""


def normalised(pixels: Array) -> Array:
    """An image as PP-OCR takes it.

    Args:
        pixels: uint8, height x width x RGB.

    Returns:
        float32, 1 x BGR x height x width, scaled to -1 to 1 (PaddleOCR: mean 0.5, std 0.5).
    """
    scaled = (pixels[:, :, ::-1].astype(np.float32) / 255 - 0.5) / 0.5
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))[None]


def strip(line: Array) -> Array:
    """A line of text, scaled to the strip's height, with zeros to the right where it is shorter.

    Args:
        line: uint8, height x width x RGB; squeezed if it is longer than a strip.

    Returns:
        float32, 1 x BGR x 48 x 320.
    """
    height, width = line.shape[:2]
    fitted = min(STRIP_WIDTH, math.ceil(STRIP_HEIGHT * width / height))
    resized = Image.fromarray(line).resize((fitted, STRIP_HEIGHT), Image.Resampling.BILINEAR)
    laid = np.zeros((1, 3, STRIP_HEIGHT, STRIP_WIDTH), np.float32)
    laid[..., :fitted] = normalised(np.asarray(resized))
    return laid


def cut(line: Array) -> list[Array]:
    """A line in pieces that fit a strip, cut between words; a word longer than a strip stays whole."""
    longest = int(line.shape[0] * STRIP_WIDTH / STRIP_HEIGHT)
    if line.shape[1] <= longest:
        return [line]
    at = _widest_gap(_blank(line), int(longest * _SHORTEST), longest)
    return [line[:, :at], *cut(line[:, at:])]


def _blank(line: Array) -> Array:
    """Which columns hold no ink: their brightness hardly changes from top to bottom."""
    change = line.mean(axis=2).std(axis=0)
    limit: Array = change < change.min() + 0.2 * (change.max() - change.min())
    return limit


def _widest_gap(blank: Array, first: int, last: int) -> int:
    """The middle of the widest run of blank columns within the bounds, or the last column if there is none."""
    best, at, length = 0, last, 0
    for column in range(first, min(last, len(blank))):
        length = length + 1 if blank[column] else 0
        if length > best:
            best, at = length, column - length // 2
    return at
