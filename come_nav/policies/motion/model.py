"""A motion network with its units and its model folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from come_nav.core.errors import CheckpointError, ConfigError, DataError
from come_nav.core.geometry.pose_mixture import PoseMixture
from come_nav.core.weights_file import (
    WEIGHTS_NAME,
    check_format,
    checked_weights,
    has_format,
    load_tensors,
    read_folder_config,
    stored_tensors,
    write_model_folder,
)
from come_nav.policies.motion.network import MotionNetwork, motion_facts, motion_views
from come_nav.policies.motion.settings import MotionSettings

FORMAT = "come_nav motion 1"


@dataclass(frozen=True)
class MotionFile:
    """Content of a motion network's ``config.yaml``."""

    format: str = FORMAT
    weights_sha256: str | None = None
    motion: MotionSettings = field(default_factory=MotionSettings)

    def __post_init__(self) -> None:
        check_format(self.format, FORMAT)


@dataclass(frozen=True)
class Seen:
    """What a motion network is shown, oldest first.

    Attributes:
        images: (N, 3, S, S) in [-1, 1]; it looks at the first and at the last.
        depth_m: (N, S, S) measured z-depth, 0 or NaN = unknown.
        poses_xyyaw: (T, 3) in one frame, at the network's rate, the last where the newest image was taken.
        camera: (4,) fx, fy, cx, cy as fractions of the image's size.
        T_base_camera: (4, 4) of the optical frame.
    """

    images: Tensor
    depth_m: Tensor
    poses_xyyaw: Tensor
    camera: Tensor
    T_base_camera: Tensor


class LearnedMotion:
    """Where a robot that sees this, and moves so, will be.

    Attributes:
        settings: shape and units.
        network: in evaluation mode.
    """

    def __init__(self, network: MotionNetwork, device: str = "cpu") -> None:
        self.network, self.settings = network.eval().to(device), network.settings
        self._device = torch.device(device)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> LearnedMotion:
        """Load a model folder.

        Raises:
            CheckpointError: in one line, for a folder, file or tensor that is missing or broken.
            ConfigError: for a value in ``config.yaml`` that breaks a rule.
        """
        content = read_motion_file(folder)
        tensors = checked_weights(folder, content.weights_sha256)
        network = MotionNetwork(content.motion)
        load_tensors(network, tensors, folder / WEIGHTS_NAME)
        return cls(network, device)

    @torch.no_grad()
    def poses(self, seen: Seen, times_s: Sequence[float]) -> PoseMixture:
        """Return mixtures (1, T) of the pose in the newest base at each time ahead, on the CPU.

        Raises:
            ConfigError: a time that it was not taught.
            DataError: poses or a camera that are not finite.
            CheckpointError: it answers with numbers that are not finite.
        """
        longest_s = self.settings.max_steps / self.settings.rate_hz
        if not all(0.0 < time_s <= longest_s + 1e-6 for time_s in times_s):
            raise ConfigError(f"the motion network was taught times up to {longest_s:g} s, got {max(times_s):g} s")
        if not all(bool(torch.isfinite(own).all()) for own in (seen.poses_xyyaw, seen.camera, seen.T_base_camera)):
            raise DataError("a motion network is told poses or a camera that hold NaN or infinity")
        poses, camera, T_base_camera = seen.poses_xyyaw.double()[None], seen.camera[None], seen.T_base_camera[None]
        facts, twist = motion_facts(poses, camera, T_base_camera, self.settings.rate_hz)
        views = motion_views(seen.images[None], seen.depth_m[None])
        times = torch.tensor([list(times_s)], dtype=torch.float32)
        found = self.network(*(part.to(self._device) for part in (views, facts, twist, times)))
        tensors = {name: tensor.cpu() for name, tensor in vars(found).items()}
        if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
            raise CheckpointError("the motion network answers with NaN or infinite poses; train or fetch it again")
        return PoseMixture(**tensors)

    def save(self, folder: Path, card: str, storage: torch.dtype = torch.float16) -> None:
        """Write weights, then the config that holds their checksum, then the card; each file atomically.

        Raises:
            StorageError: when the folder cannot be written.
        """
        tensors = stored_tensors(self.network, storage)
        write_model_folder(folder, tensors, FORMAT, lambda digest: MotionFile(FORMAT, digest, self.settings), card)


def is_motion_folder(folder: Path) -> bool:
    """Whether a model folder's config says that it holds a motion network; False where there is no readable one."""
    return has_format(folder, FORMAT)


def read_motion_file(folder: Path) -> MotionFile:
    """Return a motion network's config.

    Raises:
        CheckpointError: where ``folder`` is none, naming what it is.
        ConfigError: for a value that breaks a rule.
    """
    hint = "train one by 'come-nav train --motion'"
    return read_folder_config(folder, MotionFile, FORMAT, "prior of motion", hint)
