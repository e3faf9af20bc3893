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
from come_nav.sim.capturing import poses_at
from come_nav.sim.driving.grid_planner import START_CLEARANCE_M, GridPlanner
from come_nav.sim.people import crowd_of
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.robot import Robot, RobotSettings
from come_nav.sim.sensors.chain import CAMERA, FRAME, SensorChain, generator_of, mean_colour, to_uint8
from come_nav.sim.sensors.colour import ExposureControl
from come_nav.sim.sensors.mounting import camera_in_base, default_fov_rad, draw_camera
from come_nav.sim.sensors.odometry import OdometrySettings, WheelOdometry
from come_nav.sim.sensors.settings import SensorSettings
from come_nav.sim.sensors.timing import draw_delivery
from come_nav.sim.spaces import EpisodeRenderer
from come_nav.sim.worlds import World

REMEMBERED_STEPS = 400  # of the way, for frames that come late: 20 s


def default_camera(width: int = 320, height: int = 240) -> CameraIntrinsics:
    """Return the camera of a built-in robot.

    Its central square, which is what models take of it, is 90 degrees wide: what the shipped model learned with.
    """
    return CameraIntrinsics.from_field_of_view(width, height, default_fov_rad(width, height))


def ideal_camera(size: int = 64) -> CameraIntrinsics:
    """Return the camera that models learn with and suites measure with: square, 90 degrees wide, as small as theirs."""
    return default_camera(size, size)


def raycaster_with_camera(
    world: World,
    sensors: SensorSettings,
    seed: int,
    device: str = "cpu",
    size_px: tuple[int, int] | None = None,
) -> Raycaster:
    """Return a renderer of one world with the camera that ``sensors`` draw for it, of ``size_px`` where given."""
    drawn = draw_camera(sensors.camera, generator_of(seed, CAMERA, world.seed), size_px=size_px)
    return Raycaster([world], drawn.intrinsics, drawn.height_m, device, drawn.pitch_rad)


class BuiltInSimulator:
    """A robot in a built-in world (``Simulator`` protocol). Time passes only in :meth:`step`."""

    def __init__(
        self,
        renderer: EpisodeRenderer,
        robot: RobotSettings | None = None,
        odometry_noise: OdometrySettings | None = None,
        seed: int = 0,
        sensors: SensorSettings | None = None,
    ) -> None:
        """Put a robot into the renderer's first world.

        Args:
            renderer: a :class:`Raycaster` or :class:`MeshRaycaster`; its camera is the robot's.
            robot: limits; the default robot when None.
            odometry_noise: in the place of that of ``sensors``.
            seed: of random start poses and of the noise.
            sensors: errors of all sensors; None = perfect ones. The camera is the renderer's, whatever their ranges.
        """
        self.renderer = renderer
        self.world = renderer.worlds[0]
        self.config = robot or RobotSettings()
        self.sensors = sensors or SensorSettings()
        self.noise = odometry_noise or self.sensors.odometry
        self._seed = seed
        self._chain = SensorChain(self.sensors, renderer.intrinsics)
        self._rng = np.random.default_rng([abs(self.world.seed), seed])
        self._generator = torch.Generator().manual_seed(seed)
        self._T_base_camera = camera_in_base(renderer.camera_height_m, renderer.pitch_rad)
        self._crowd = crowd_of(renderer, self.world)
        self._planner: GridPlanner | None = None
        self.reset()

    @classmethod
    def in_world(
        cls,
        world: World,
        intrinsics: CameraIntrinsics | None = None,
        robot: RobotSettings | None = None,
        odometry_noise: OdometrySettings | None = None,
        seed: int = 0,
        sensors: SensorSettings | None = None,
        size_px: tuple[int, int] = (320, 240),
    ) -> BuiltInSimulator:
        """Return a simulator of ``world`` with its own camera.

        ``sensors`` draw the camera, of width and height ``size_px``, and where it is mounted; perfect ones give
        :func:`default_camera`. ``intrinsics`` stay as they are where they are given.
        """
        settings = sensors or SensorSettings()
        drawn = draw_camera(settings.camera, generator_of(seed, CAMERA, world.seed), size_px=size_px)
        renderer = Raycaster([world], intrinsics or drawn.intrinsics, drawn.height_m, pitch_rad=drawn.pitch_rad)
        return cls(renderer, robot, odometry_noise, seed, sensors)

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
        self._way = [(0.0, *pose, 0.0, 0.0, 0.0, 0.0)]  # time, true pose, odometry's pose, yaw rate
        self._control = ExposureControl(self.sensors.colour)
        self._frames, self._taken_s = 0, 0.0
        self._newest: tuple[Frame, Odometry] | None = None

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
        believed = self._odometry.advance(np.stack(poses))
        for number, (pose, told) in enumerate(zip(poses[1:], believed, strict=True), 1):
            stamp_s = self._time_s + duration_s * number / count
            self._way.append((stamp_s, *pose.tolist(), *told.tolist(), self._robot.w_radps))
        del self._way[: max(0, len(self._way) - REMEMBERED_STEPS)]
        self._time_s += duration_s
        return collided

    def observe(self) -> tuple[Frame, Odometry]:
        """Return the newest frame that has come, and what odometry believed at its stamp.

        With perfect sensors that is what the camera sees now; otherwise it was taken a little earlier, and is the one
        before where the next is lost.
        """
        if self.sensors.timing.perfect and self.sensors.perfect_images:
            return self._rendered(self.pose_world_xyyaw), self.odometry()
        index, self._frames = self._frames, self._frames + 1
        generator = generator_of(self._seed, FRAME, index)
        delivery = draw_delivery(self.sensors.timing, generator)
        if delivery.lost and self._newest is not None:
            return self._newest
        taken_s = max(self._time_s - delivery.latency_s, self._taken_s)
        after_s = 0.0 if self._newest is None else self._newest[0].stamp_s + 1e-3
        stamp_s = max(min(taken_s + delivery.stamp_error_s, self._time_s), after_s, 0.0)
        frame = self._captured(taken_s, stamp_s, generator)
        self._taken_s, self._newest = taken_s, (frame, self._odometry_at(stamp_s))
        return self._newest

    def _rendered(self, pose_world_xyyaw: NDArray[np.float64]) -> Frame:
        images, depth = self._seen(pose_world_xyyaw, self._time_s)
        return Frame(
            self._time_s, to_uint8(images)[0], depth[0].cpu().numpy(), self.renderer.intrinsics, self._T_base_camera
        )

    def _seen(self, pose_world_xyyaw: NDArray[np.float64], time_s: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the ideal image (1, 3, H, W) and depth (1, H, W) from a pose at a time."""
        images, depth = self.renderer.render(torch.from_numpy(pose_world_xyyaw[None]))
        if self._crowd is not None:
            self._crowd.paint(images, depth, pose_world_xyyaw[None], np.array([time_s]))
        return images, depth

    def _captured(self, taken_s: float, stamp_s: float, generator: torch.Generator) -> Frame:
        """Return the frame that was exposed at ``taken_s`` and is stamped ``stamp_s``."""
        way = np.array(self._way)
        images, depth = self._seen(poses_at(way[:, 0], way[:, 1:4], np.array([taken_s]))[0], taken_s)
        exposure = self._control.next(taken_s, mean_colour(images[0]))
        yaw_rate = float(np.interp(taken_s, way[:, 0], way[:, 7]))
        rgb, depth_m = self._chain.capture(images, depth, [exposure], [yaw_rate], [generator])
        return Frame(stamp_s, rgb[0], depth_m[0], self.renderer.intrinsics, self._T_base_camera)

    def _odometry_at(self, stamp_s: float) -> Odometry:
        way = np.array(self._way)
        pose = poses_at(way[:, 0], way[:, 4:7], np.array([stamp_s]))[0]
        return Odometry(stamp_s, se3.transform_from_xyyaw(pose), self._robot.v_mps, self._robot.w_radps)

    def odometry(self) -> Odometry:
        """Return what odometry believes, without rendering a view."""
        T_odom_base = se3.transform_from_xyyaw(self._odometry.pose_odom_xyyaw)
        return Odometry(self._time_s, T_odom_base, self._robot.v_mps, self._robot.w_radps)
