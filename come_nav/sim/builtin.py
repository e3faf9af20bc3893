"""The built-in simulator behind the ``Simulator`` protocol: one robot, one place, driven by twists."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.checks import check_range, check_shape
from come_nav.core.errors import ConfigError
from come_nav.core.geometry import se3
from come_nav.core.types import CameraIntrinsics, Frame, Odometry
from come_nav.sim.driving.grid_planner import START_CLEARANCE_M, GridPlanner
from come_nav.sim.episodes import camera_in_base, to_uint8
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.robot import OdometryNoise, Robot, RobotSettings, WheelOdometry
from come_nav.sim.spaces import EpisodeRenderer
from come_nav.sim.worlds import World


def default_camera(width: int = 320, height: int = 240) -> CameraIntrinsics:
    """Return the camera of a built-in robot.

    Its central square, which is what models take of it, is 90 degrees wide: what the shipped model learned with.
    """
    return CameraIntrinsics.from_field_of_view(width, height, default_fov_rad(width, height))


def default_fov_rad(width: int, height: int) -> float:
    """Return how wide the robot's camera of that many pixels sees: 90 degrees of a square one, 106 of 320x240."""
    return 2.0 * math.atan(width / min(width, height))


def ideal_camera(size: int = 64) -> CameraIntrinsics:
    """Return the camera that models learn with and suites measure with: square, 90 degrees wide, as small as theirs."""
    return default_camera(size, size)


class BuiltInSimulator:
    """A robot in a built-in world (``Simulator`` protocol). Time passes only in :meth:`step`."""

    def __init__(
        self,
        renderer: EpisodeRenderer,
        robot: RobotSettings | None = None,
        odometry_noise: OdometryNoise | None = None,
        seed: int = 0,
    ) -> None:
        """Put a robot into the renderer's first world.

        Args:
            renderer: a :class:`Raycaster` or :class:`MeshRaycaster`; its camera is the robot's.
            robot: limits; the default robot when None.
            odometry_noise: None gives perfect odometry.
            seed: of random start poses and of the noise.
        """
        self.renderer = renderer
        self.world = renderer.worlds[0]
        self.config = robot or RobotSettings()
        self.noise = odometry_noise
        self._rng = np.random.default_rng([abs(self.world.seed), seed])
        self._generator = torch.Generator().manual_seed(seed)
        self._T_base_camera = camera_in_base(renderer.camera_height_m)
        self._planner: GridPlanner | None = None
        self.reset()

    @classmethod
    def in_world(
        cls,
        world: World,
        intrinsics: CameraIntrinsics | None = None,
        robot: RobotSettings | None = None,
        odometry_noise: OdometryNoise | None = None,
        seed: int = 0,
    ) -> BuiltInSimulator:
        """Return a simulator of ``world`` with its own camera (:func:`default_camera` when ``intrinsics`` is None)."""
        return cls(Raycaster([world], intrinsics or default_camera()), robot, odometry_noise, seed)

    @property
    def time_s(self) -> float:
        """Simulated time since the last reset."""
        return self._time_s

    @property
    def pose_world_xyyaw(self) -> NDArray[np.float64]:
        """True planar pose (3,)."""
        return np.array([self._robot.x, self._robot.y, self._robot.yaw])

    @property
    def collisions(self) -> int:
        """How many internal steps since the last reset ended at an obstacle."""
        return self._robot.collisions

    def reset(self, pose_world_xyyaw: NDArray[np.float64] | None = None) -> None:
        """Start again at a pose, or at a random one with 0.4 m of clearance; odometry starts at zero.

        Raises:
            ConfigError: when the robot does not fit at the pose.
        """
        if pose_world_xyyaw is None:
            if self._planner is None:
                self._planner = GridPlanner(self.world, self.config.radius_m)
            place = self._planner.random_point(self._rng, START_CLEARANCE_M)
            pose = (*place, float(self._rng.uniform(-math.pi, math.pi)))
        else:
            check_shape("pose_world_xyyaw", pose_world_xyyaw, "3")
            pose = (float(pose_world_xyyaw[0]), float(pose_world_xyyaw[1]), float(pose_world_xyyaw[2]))
        robot = Robot(self.world, self.config, pose)
        if robot.map.touches(pose[0], pose[1], self.config.radius_m):
            raise ConfigError(
                f"pose_world_xyyaw ({pose[0]:.2f}, {pose[1]:.2f}) must be free for a robot of radius "
                f"{self.config.radius_m} m, but something stands there; omit it for a random free pose"
            )
        self._robot = robot
        self._odometry = WheelOdometry(self.noise, self._generator)
        self._time_s = 0.0

    def step(self, v_mps: float, w_radps: float, duration_s: float) -> bool:
        """Drive a twist for ``duration_s`` within the robot's limits; return True if the robot hit something.

        Raises:
            ConfigError: for a duration below zero or a twist that is not finite.
        """
        check_range("duration_s", duration_s, 0.0)
        if not (math.isfinite(v_mps) and math.isfinite(w_radps)):
            raise ConfigError(f"twist must be finite, got ({v_mps}, {w_radps})")
        count = math.ceil(duration_s / self.config.step_s - 1e-9)
        poses = [self.pose_world_xyyaw]
        collided = False
        for _ in range(count):
            collided |= self._robot.step(v_mps, w_radps, duration_s / count)
            poses.append(self.pose_world_xyyaw)
        self._odometry.advance(np.stack(poses))
        self._time_s += duration_s
        return collided

    def observe(self) -> tuple[Frame, Odometry]:
        """Return what the camera sees now and what odometry believes."""
        images, depth = self.renderer.render(torch.from_numpy(self.pose_world_xyyaw[None]))
        frame = Frame(
            self._time_s, to_uint8(images)[0], depth[0].cpu().numpy(), self.renderer.intrinsics, self._T_base_camera
        )
        return frame, self.odometry()

    def odometry(self) -> Odometry:
        """Return what odometry believes, without rendering a view."""
        T_odom_base = se3.transform_from_xyyaw(self._odometry.pose_odom_xyyaw)
        return Odometry(self._time_s, T_odom_base, self._robot.v_mps, self._robot.w_radps)
