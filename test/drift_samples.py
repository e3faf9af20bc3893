"""A robot that turns on the spot more than once, with odometry that drifts."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from model_samples import EyesOnly

from come_nav.config import load_config
from come_nav.core.geometry import se2, se3
from come_nav.core.types import CameraIntrinsics, Frame, Odometry
from come_nav.navigation.stack import NavStack
from come_nav.sim.builtin import BuiltInSimulator
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.sensors.chain import to_uint8
from come_nav.sim.sensors.mounting import camera_in_base
from come_nav.sim.worlds import generate_world

CAMERA = CameraIntrinsics.from_field_of_view(320, 240, 0.5 * math.pi)
DRIFT_RAD = 0.012  # a key frame: 4 % of the turn


@lru_cache(maxsize=1)
def turned_robot() -> tuple[np.ndarray, list[Frame]]:
    """Return poses and frames of a robot that turns on the spot more than once."""
    raycaster = Raycaster([generate_world(10001)], CAMERA)
    start = BuiltInSimulator.in_world(raycaster.worlds[0], seed=3).pose_world_xyyaw
    poses = np.array([se2.compose(start, np.array([0.0, 0.0, 0.3 * step])) for step in range(26)])
    images, depth = raycaster.render(torch.from_numpy(poses))
    frames = [
        Frame(0.25 * step, image, depth[step].numpy(), CAMERA, camera_in_base(0.5))
        for step, image in enumerate(to_uint8(images))
    ]
    return se2.relative(poses[:1], poses), frames


def believed(poses: np.ndarray, drift_rad: float) -> np.ndarray:
    return np.array([se2.compose(pose, np.array([0.0, 0.0, drift_rad * step])) for step, pose in enumerate(poses)])


def stack_of(background: bool = False, **config) -> NavStack:
    settings = load_config(None, {"experts.use": [], **config})
    return NavStack(EyesOnly(), settings, background_training=False, background_localisation=background)


def drive(robot, frames: list[Frame], poses: np.ndarray) -> None:
    for frame, pose in zip(frames, poses, strict=True):
        robot.observe(frame, Odometry(frame.stamp_s, se3.transform_from_xyyaw(pose)))
