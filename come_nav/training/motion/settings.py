"""Settings of a motion network's training run; YAML only overrides."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from come_nav.core.checks import check_range
from come_nav.core.errors import ConfigError
from come_nav.policies.motion.settings import MotionSettings
from come_nav.training.config import DataSettings, OptimiserSettings


def motion_data(**changes: Any) -> DataSettings:
    """Return drives whose every frame is followed as far as plans look, with ``changes``."""
    values: dict[str, Any] = {
        "worlds": 9900,
        "validation_worlds": 24,
        "episode_s": 25.0,
        "branches": 0,
        "endless": True,
        "pool_drives": 64,
        "passes": 4,
        "max_offset_frames": 16,
        "near_frames": 16,
        "near_fraction": 1.0,
        "turn_fraction": 0.0,
        "revisit_fraction": 0.0,
        "goals_per_context": 12,
        "keep_images": True,
        "keep_depth": True,
    }
    return DataSettings(**(values | changes))


@dataclass(frozen=True)
class MotionTrainSettings:
    """One run of a motion network.

    Attributes:
        name: of the exported model folder.
        seed: of everything random in the run.
        mirrored_share: share of windows that are seen, and driven, the other way round.
        precision: Lightning's; "auto" is bf16-mixed on CUDA and on CPUs that multiply it (AMX, AVX512-BF16), else
            32-true.
        data: built-in worlds; goals that lie before the newest frame teach nothing.
        network: its shape.
        optimiser: of the one stage.
    """

    name: str = "motion"
    seed: int = 0
    mirrored_share: float = 0.5
    precision: str = "auto"
    data: DataSettings = field(default_factory=motion_data)
    network: MotionSettings = field(default_factory=MotionSettings)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)

    def __post_init__(self) -> None:
        check_range("mirrored_share", self.mirrored_share, 0.0, 1.0)
        data, network = self.data, self.network
        if not data.worlds or data.recordings:
            raise ConfigError("a motion network learns in built-in worlds: data.worlds > 0, no data.recordings")
        if not data.endless or data.branches or not (data.keep_images and data.keep_depth):
            raise ConfigError(
                "a motion network learns from drives as they are: data.endless, data.keep_images and data.keep_depth "
                "must be true, data.branches 0"
            )
        if data.memory_s or data.turn_fraction or data.revisit_fraction:
            raise ConfigError(
                "a motion network learns how drives go on: data.memory_s, data.turn_fraction and data.revisit_fraction "
                "must be 0"
            )
        if not data.near_frames == data.max_offset_frames == network.max_steps:
            raise ConfigError(
                "data.near_frames, data.max_offset_frames and network.max_steps must be the same number of frames, got "
                f"{data.near_frames}, {data.max_offset_frames} and {network.max_steps}"
            )
        if data.camera_px != network.image_size:
            raise ConfigError(f"data.camera_px {data.camera_px} must be network.image_size {network.image_size}")
