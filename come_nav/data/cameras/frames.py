"""Which axes a frame has: optical frames look along z, bodies along x with z up (REP 103), and names do not tell."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from come_nav.core.geometry import se3

Transforms = NDArray[np.float64]

UPRIGHT = 0.7  # cosine of the angle to the vertical up to which an axis counts as vertical
SURE = 0.9


def frame_matches(frame: str, known: str) -> bool:
    """Tell whether ``frame`` is ``known``, alone or behind a robot's prefix: robot1/odom, robot1_odom."""
    return re.search(rf"(^|[/_]){re.escape(known)}$", frame) is not None


def frame_prefix(frame: str) -> str:
    """Return the robot's prefix in a frame's name: 'robot1' of robot1/odom, '' without."""
    return frame.rpartition("/")[0]


def is_optical(frame: str) -> bool:
    """Tell whether a frame calls itself optical."""
    return "optical" in frame.lower()


def optical_extrinsics(T_base_camera: Transforms, frame: str, warnings: list[str]) -> Transforms:
    """Return T_base_camera (..., 4, 4) of an optical frame (z forward, y down).

    A frame whose z axis points up like the robot's own has a body's axes (x forward): Gazebo and others stamp images
    with the camera's link. As an optical frame it would look at the ceiling.
    """
    first = T_base_camera.reshape(-1, 4, 4)[0]
    if first[2, 2] < UPRIGHT:
        return T_base_camera
    warnings.append(
        f"/tf gives {frame} a z axis that points up, so the camera would look up; it is taken for a body's frame "
        "(x forward). Publish the optical frame, or name it with --camera-frame"
    )
    turned: Transforms = T_base_camera @ se3.make_transform(se3.R_BODY_OPTICAL, np.zeros(3))
    return turned


def level_world(T_world_base: Transforms, world_frame: str, warnings: list[str]) -> Transforms:
    """Return poses (N, 4, 4) in a world with z up; one with y down (an optical world of visual odometry) is turned."""
    up = T_world_base[:, :3, 2].mean(axis=0)
    if -up[1] > SURE:
        warnings.append(f"{world_frame}: the world is optical (y down); poses are turned to z up")
        turned: Transforms = se3.make_transform(se3.R_BODY_OPTICAL, np.zeros(3)) @ T_world_base
        return turned
    if up[2] < UPRIGHT:
        warnings.append(
            f"{world_frame}: the robot's z axis does not point up on average ({np.round(up, 2).tolist()}); planar "
            "poses need x forward and z up: name the topic or frame of base_link (--pose-topic, --base-frame)"
        )
    return T_world_base
