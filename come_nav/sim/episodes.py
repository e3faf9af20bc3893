"""Simulated drives: a robot with a scripted driver in a world, and the drive as a Recording that renders on demand."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.checks import check_range
from come_nav.core.errors import ConfigError, DataError
from come_nav.core.geometry import se2, se3
from come_nav.core.types import CameraIntrinsics, Frame
from come_nav.sim.capturing import DriveCapture
from come_nav.sim.driving.drivers import make_driver
from come_nav.sim.driving.grid_planner import START_CLEARANCE_M, GridPlanner
from come_nav.sim.robot import Robot, RobotSettings
from come_nav.sim.sensors.chain import DELIVERY, generator_of
from come_nav.sim.sensors.mounting import camera_in_base
from come_nav.sim.sensors.odometry import OdometrySettings, WheelOdometry
from come_nav.sim.sensors.settings import SensorSettings, preset_name
from come_nav.sim.sensors.timing import TimingSettings, draw_delivery
from come_nav.sim.spaces import DriveSpace, EpisodeRenderer

READ_AHEAD_FRAMES = 32
READ_AHEAD_PIXELS = 2**18


@dataclass(frozen=True)
class Episode:
    """One drive.

    Attributes:
        stamps_s: (N,) from 0.
        poses_world_xyyaw: (N, 3) true poses of base_link.
        odometry_xyyaw: (N, 3) what wheel odometry believes, from (0, 0, 0).
        twists: (N, 2) true v m/s and w rad/s.
        world_seed: of the world.
        driver: name of the driver.
        collisions: internal steps in which the robot was stopped by an obstacle.
        seed: of the drive.
    """

    stamps_s: NDArray[np.float64]
    poses_world_xyyaw: NDArray[np.float64]
    odometry_xyyaw: NDArray[np.float64]
    twists: NDArray[np.float64]
    world_seed: int
    driver: str
    collisions: int
    seed: int

    @property
    def path_length_m(self) -> float:
        """Distance driven."""
        return float(np.hypot(*np.diff(self.poses_world_xyyaw[:, :2], axis=0).T).sum())


def simulate_episode(
    world: DriveSpace,
    driver: str = "wander",
    duration_s: float = 60.0,
    rate_hz: float = 4.0,
    seed: int = 0,
    odometry_noise: OdometrySettings | None = None,
    robot: RobotSettings | None = None,
) -> Episode:
    """Drive through ``world`` and return the poses at ``rate_hz``; the robot moves in finer steps inside.

    Args:
        world: from :func:`come_nav.sim.worlds.generate_world`, or a mesh.
        driver: "wander", "tour" or "point_to_point".
        duration_s: of the drive.
        rate_hz: of the output.
        seed: of start, driver and noise; the world has its own.
        odometry_noise: None gives perfect odometry.
        robot: limits; the default robot when None.

    Raises:
        ConfigError: for an unknown driver or impossible times.
    """
    check_range("rate_hz", rate_hz, 0.1, 100.0)
    check_range("duration_s", duration_s, 1.0 / rate_hz, 36000.0)
    config = robot or RobotSettings()
    config, per_frame = _fit_step(config, rate_hz)
    rng = np.random.default_rng([abs(world.seed), seed])
    planner = GridPlanner(world, config.radius_m)
    start = (*planner.random_point(rng, START_CLEARANCE_M), float(rng.uniform(-math.pi, math.pi)))
    body = Robot(world, config, start)
    pilot = make_driver(driver, world, planner, rng)
    frames = int(duration_s * rate_hz + 1e-9) + 1
    states = np.empty(((frames - 1) * per_frame + 1, 5))
    states[0] = (*start, 0.0, 0.0)
    for index in range(1, len(states)):
        body.step(*pilot.command(body))
        states[index] = (body.x, body.y, body.yaw, body.v_mps, body.w_radps)
    odometry = WheelOdometry(odometry_noise, torch.Generator().manual_seed(seed))
    believed = np.concatenate([np.zeros((1, 3)), odometry.advance(states[:, :3])])
    return Episode(
        stamps_s=np.arange(frames) / rate_hz,
        poses_world_xyyaw=states[::per_frame, :3].copy(),
        odometry_xyyaw=believed[::per_frame],
        twists=states[::per_frame, 3:].copy(),
        world_seed=world.seed,
        driver=driver,
        collisions=body.collisions,
        seed=seed,
    )


def _fit_step(config: RobotSettings, rate_hz: float) -> tuple[RobotSettings, int]:
    """Shorten the internal step so that a whole number of steps makes one output frame."""
    per_frame = max(1, math.ceil(1.0 / (rate_hz * config.step_s) - 1e-9))
    return replace(config, step_s=1.0 / (rate_hz * per_frame)), per_frame


def delivered(episode: Episode, timing: TimingSettings) -> Episode:
    """Return the drive without the frames that are lost on their way; the first always comes."""
    kept = [
        index == 0 or not draw_delivery(timing, generator_of(episode.seed, DELIVERY, index)).lost
        for index in range(len(episode.stamps_s))
    ]
    parts = ("stamps_s", "poses_world_xyyaw", "odometry_xyyaw", "twists")
    return replace(episode, **{name: getattr(episode, name)[kept] for name in parts})


class EpisodeRecording:
    """A simulated drive as a ``Recording``: poses in memory, frames rendered when asked for."""

    def __init__(
        self,
        episode: Episode,
        raycaster: EpisodeRenderer,
        use_truth: bool = False,
        world_index: int | None = None,
        sensors: SensorSettings | None = None,
    ) -> None:
        """Join a drive and a renderer.

        Args:
            episode: the drive.
            raycaster: must hold the episode's world.
            use_truth: take true motion instead of odometry; both start at (0, 0, 0).
            world_index: which of the raycaster's worlds; found by the seed when None.
            sensors: errors of colour, depth and stamps; those of odometry are in the episode. None = as rendered. Lost
                frames are not taken out here (:func:`delivered` does).

        Raises:
            ConfigError: if the raycaster does not hold the world.
        """
        seeds = [world.seed for world in raycaster.worlds]
        if world_index is None and episode.world_seed not in seeds:
            raise ConfigError(f"the ray-caster holds worlds {seeds}, not the episode's world {episode.world_seed}")
        self.episode = episode
        self.raycaster = raycaster
        self.sensors = sensors or SensorSettings()
        self._world_index = seeds.index(episode.world_seed) if world_index is None else world_index
        self._capture = DriveCapture(
            raycaster,
            self._world_index,
            episode.stamps_s,
            episode.poses_world_xyyaw,
            episode.twists[:, 1],
            self.sensors,
            episode.seed,
        )
        self._batch_start, self._batch = 0, list[Frame]()
        self._poses = episode.odometry_xyyaw
        if use_truth:
            self._poses = se2.relative(episode.poses_world_xyyaw[:1], episode.poses_world_xyyaw)

    @property
    def name(self) -> str:
        """World, driver and seed in one word."""
        place = f"world{self.episode.world_seed}" if self.episode.world_seed >= 0 else "mesh"
        return f"{place}-{self.episode.driver}-{self.episode.seed}"

    @property
    def world(self) -> DriveSpace:
        """The place of the drive."""
        return self.raycaster.worlds[self._world_index]

    @property
    def positions_xy(self) -> torch.Tensor:
        """True positions (N, 2) in the world."""
        return torch.from_numpy(self.episode.poses_world_xyyaw[:, :2].copy())

    @property
    def rate_hz(self) -> float:
        """Frames per second."""
        return float(1.0 / np.diff(self.episode.stamps_s).min())

    @property
    def stamps_s(self) -> NDArray[np.float64]:
        """Times (N,) from 0."""
        return self.episode.stamps_s

    @property
    def T_odom_base(self) -> NDArray[np.float64]:
        """Poses (N, 4, 4) in the odom frame."""
        return se3.transform_from_xyyaw(self._poses)

    @property
    def poses_xyyaw(self) -> NDArray[np.float64]:
        """Planar poses (N, 3) in the odom frame."""
        return self._poses

    @property
    def intrinsics(self) -> CameraIntrinsics:
        """Camera of the frames."""
        return self.raycaster.intrinsics

    @property
    def T_base_camera(self) -> NDArray[np.float64]:
        """Pose of the optical frame in base_link (4, 4)."""
        return camera_in_base(self.raycaster.camera_height_m, self.raycaster.pitch_rad)

    @property
    def metadata(self) -> dict[str, Any]:
        """World seed, driver, true start pose in the world, collisions, path length, and sensors that err."""
        return {
            **self.world.facts,
            "driver": self.episode.driver,
            "seed": self.episode.seed,
            "pose_world_start": [float(value) for value in self.episode.poses_world_xyyaw[0]],
            "collisions": self.episode.collisions,
            "path_length_m": self.episode.path_length_m,
            **({} if self.sensors == SensorSettings() else {"sensors": preset_name(self.sensors)}),
        }

    def __len__(self) -> int:
        return len(self.episode.stamps_s)

    def frame(self, index: int) -> Frame:
        """Return frame ``index``; reading one after another renders them in batches.

        Raises:
            DataError: for an index outside the drive.
        """
        if not 0 <= index < len(self):
            raise DataError(f"{self.name}: frame {index} must be in [0, {len(self) - 1}]")
        offset = index - self._batch_start
        if not 0 <= offset < len(self._batch):
            pixels = self.intrinsics.width * self.intrinsics.height
            follows = index == self._batch_start + len(self._batch)
            count = max(1, min(READ_AHEAD_FRAMES, READ_AHEAD_PIXELS // pixels)) if follows else 1
            self._batch_start, self._batch = index, self.frames(index, min(index + count, len(self)))
            offset = 0
        return self._batch[offset]

    def frames(self, start: int, stop: int) -> list[Frame]:
        """Render frames ``start`` to ``stop`` - 1 in one batch."""
        rgb_frames, depth_m = self._capture.frames(start, stop)
        stamps = self.episode.stamps_s[start:stop]
        T_base_camera = self.T_base_camera
        return [
            Frame(float(stamp), rgb, metres, self.intrinsics, T_base_camera)
            for stamp, rgb, metres in zip(stamps, rgb_frames, depth_m, strict=True)
        ]
