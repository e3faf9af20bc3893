"""Poses as callers give them: rigid transforms or planar poses, checked before anything is remembered at them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.geometry import se3


def as_transform(pose: NDArray[Any]) -> NDArray[np.float64] | None:
    """Return a pose (4, 4) or planar (3,) as a rigid transform (4, 4), or None if it is none."""
    transform = np.asarray(pose, np.float64)
    if transform.shape == (3,):
        transform = se3.transform_from_xyyaw(transform)
    if transform.shape != (4, 4) or not np.isfinite(transform).all():
        return None
    rotation = transform[:3, :3]
    rigid = np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) and np.linalg.det(rotation) > 0
    return transform if rigid else None
