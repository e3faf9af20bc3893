"""Depth of camera frames: what the camera measured where it did, an estimate that agrees with it elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from come_nav.core.types import Frame
from come_nav.world_model.images import crop_window

RATIO_PIXELS = 32  # of measured depth that an estimate is scaled to, at least


def measured_depth(frames: Sequence[Frame], image_size: int, aspect: float) -> Tensor:
    """Return measured z-depth (T, S, S) in metres as the model sees its images, 0 = unknown.

    The nearest measured pixel to the centre of each of the model's pixels counts: a mean of two surfaces is none.
    Frames without depth are unknown as a whole.
    """
    return torch.from_numpy(np.stack([_resized(frame, image_size, aspect) for frame in frames]))


def completed_depth(measured_m: Tensor | None, estimated_m: Tensor, scale: float | None = None) -> Tensor:
    """Return depth (T, H, W): measured where it is above 0, estimated elsewhere, scaled to what was measured.

    Frames that measured too little themselves take the ``scale`` of others; 1 where not given.
    """
    own = scale_of(measured_m, estimated_m)
    factor = scale if own is None else own
    estimated_m = estimated_m if factor is None else estimated_m * factor
    return estimated_m if measured_m is None else torch.where(measured_m > 0.0, measured_m, estimated_m)


def scale_of(measured_m: Tensor | None, estimated_m: Tensor) -> float | None:
    """Return the median of measured over estimated depth over all frames; None with too few measured pixels."""
    if measured_m is None or int((known := measured_m > 0.0).sum()) < RATIO_PIXELS:
        return None
    return float((measured_m[known] / estimated_m[known]).median())


def focal_ratio(camera: Tensor, trained_with: Tensor) -> float:
    """Return how much farther things are than they seem to an estimator that was trained with another focal length.

    An object of a given size covers pixels in proportion to focal length over depth (Metric3D, Yin et al. 2023), so
    that depth scales with the focal length; horizontal ones (1, 4) as fractions, see core.geometry.point_rendering.
    """
    return float(camera[0, 0]) / float(trained_with[0, 0])


def _resized(frame: Frame, image_size: int, aspect: float) -> NDArray[np.float32]:
    depth_m = frame.depth_m
    if depth_m is None:
        return np.zeros((image_size, image_size), np.float32)
    top, left, rows, columns = crop_window(depth_m.shape[0], depth_m.shape[1], aspect)
    steps = (np.arange(image_size) + 0.5) / image_size
    chosen = depth_m[np.ix_(top + (steps * rows).astype(int), left + (steps * columns).astype(int))]
    known = np.isfinite(chosen) & (chosen > 0.0)
    return np.where(known, chosen, 0.0).astype(np.float32)
