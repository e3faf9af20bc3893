"""The learned prior of motion, where one is set: it looks at the newest frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.errors import ConfigError
from come_nav.core.geometry import se2
from come_nav.core.geometry.point_rendering import level_camera
from come_nav.core.resources import find_resource
from come_nav.memory.short_term import Remembered
from come_nav.navigation.device import choose_device
from come_nav.navigation.settings import NavigationSettings
from come_nav.planning.objectives import LearnedMotionPrior
from come_nav.planning.settings import PlannerSettings
from come_nav.policies.motion.model import LearnedMotion, Seen
from come_nav.policies.motion.settings import MotionSettings
from come_nav.world_model.depth_of_frames import measured_depth
from come_nav.world_model.images import ImageSettings, camera_of_frame, extrinsics_of, images_from_rgb

EVERY_S = 1.0  # a path is looked at, and at its end
RATE_TOLERANCE_HZ = 1e-6
AHEAD_RAD = 0.3  # cameras that it was taught look ahead, and lean less to the side


class MotionForesight:
    """Loads the network that the settings name, once, and asks it.

    Args:
        device: where it runs: auto, cpu, cuda or cuda:N.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._loaded: tuple[str, LearnedMotion] | None = None

    def model(self, settings: NavigationSettings) -> LearnedMotion | None:
        """Return the network that ``motion_prior.network`` names, None where it does not count.

        Raises:
            ConfigError, CheckpointError: it is not there, holds no motion network, or one of another rate or of more
                frames than are remembered.
        """
        prior, memory = settings.motion_prior, settings.memory
        if not prior.looks(settings.robot):
            return None
        loaded = self._loaded
        if loaded is None or loaded[0] != prior.network:
            folder, device = find_resource("models", prior.network), choose_device(self._device)
            self._loaded = loaded = prior.network, LearnedMotion.load(folder, device)
        wanted = loaded[1].settings
        if abs(wanted.rate_hz - memory.rate_hz) > RATE_TOLERANCE_HZ or wanted.frames > memory.capacity:
            raise ConfigError(
                f"motion_prior.network {prior.network} looks at {wanted.frames} frames at {wanted.rate_hz:g} Hz, the "
                f"robot remembers {memory.capacity} at {memory.rate_hz:g} Hz; name another, or leave it empty"
            )
        return loaded[1]

    def term(
        self, settings: NavigationSettings, frames: Sequence[Remembered], search: PlannerSettings
    ) -> LearnedMotionPrior | None:
        """Return how unlikely paths are after these newest frames, oldest first.

        None without a network, with too few frames, or for a camera unlike those that it was taught.
        """
        model = self.model(settings)
        seen = None if model is None else seen_by(frames, model.settings)
        if model is None or seen is None:
            return None
        longest = int(model.settings.max_steps / model.settings.rate_hz / search.dt_s + 1e-6)
        last = min(search.horizon_steps, longest)
        if last < 1:
            return None
        every = max(1, round(EVERY_S / search.dt_s))
        steps = sorted({*range(every, last, every), last})
        return LearnedMotionPrior(model.poses(seen, [step * search.dt_s for step in steps]), steps)


def seen_by(remembered: Sequence[Remembered], settings: MotionSettings) -> Seen | None:
    """Return remembered frames, oldest first, as a motion network takes them; None where it cannot look through them.

    Poses are those of the network's times, between the remembered ones; a camera that nobody tells of is the built-in
    one.
    """
    poses = poses_on_grid(remembered, settings)
    if poses is None:
        return None
    newest, since_s = remembered[-1], (settings.frames - 1) / settings.rate_hz
    oldest = min(remembered, key=lambda own: abs(newest.stamp_s - since_s - own.stamp_s))
    frames, built_in = [oldest.frame, newest.frame], ImageSettings()
    camera, extrinsics = camera_of_frame(newest.frame.intrinsics, built_in.aspect), extrinsics_of([newest.frame])
    camera = built_in.camera() if camera is None else camera
    extrinsics = level_camera(built_in.camera_height_m) if extrinsics is None else extrinsics
    if not (bool(torch.isfinite(camera).all()) and bool((camera[:, :2] > 0.0).all()) and looks_ahead(extrinsics[0])):
        return None
    return Seen(
        images_from_rgb([frame.rgb for frame in frames], settings.image_size, built_in.aspect),
        measured_depth(frames, settings.image_size, built_in.aspect),
        torch.from_numpy(poses),
        camera[0],
        extrinsics[0],
    )


def poses_on_grid(remembered: Sequence[Remembered], settings: MotionSettings) -> NDArray[np.float64] | None:
    """Return the poses (T, 3) at the network's times up to the newest frame; None where memory is too short."""
    if len(remembered) < 2:
        return None
    stamps_s = np.array([own.stamp_s for own in remembered])
    poses = np.stack([own.pose_odom_xyyaw for own in remembered])
    times_s = stamps_s[-1] - np.arange(settings.frames - 1, -1, -1) / settings.rate_hz
    if times_s[0] < stamps_s[0] - 0.5 / settings.rate_hz:
        return None
    after = np.searchsorted(stamps_s, times_s).clip(1, len(stamps_s) - 1)
    share = (times_s - stamps_s[after - 1]) / (stamps_s[after] - stamps_s[after - 1])
    return np.asarray(se2.interpolate(poses[after - 1], poses[after], share))


def looks_ahead(T_base_camera: torch.Tensor) -> bool:
    """Whether a camera (4, 4) looks along x of the base and does not lean to the side, up to ``AHEAD_RAD``."""
    T = T_base_camera.double().numpy()
    yaw_rad, roll_rad = np.arctan2(T[1, 2], T[0, 2]), np.arctan2(-T[2, 0], np.hypot(T[0, 0], T[1, 0]))
    return bool(np.isfinite(T).all() and abs(yaw_rad) <= AHEAD_RAD and abs(roll_rad) <= AHEAD_RAD)
