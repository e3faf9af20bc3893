"""All sensors of a robot as one group of settings, and the presets by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from come_nav.core.checks import check_choice
from come_nav.core.settings import from_mapping, merged, to_mapping
from come_nav.sim.sensors.colour import ColourSettings
from come_nav.sim.sensors.depth import DepthSettings
from come_nav.sim.sensors.mounting import CameraSettings
from come_nav.sim.sensors.odometry import OdometrySettings
from come_nav.sim.sensors.timing import TimingSettings

DEFAULT_SENSORS = "ideal"  # what simulate, navigate, evaluate and the ROS node use where no preset is named


@dataclass(frozen=True)
class SensorSettings:
    """Errors of a robot's sensors; the defaults have none.

    Attributes:
        depth: of the depth camera.
        colour: of the colour camera.
        timing: when frames come.
        odometry: of the wheels.
        camera: which cameras are drawn, and where they are mounted.
    """

    depth: DepthSettings = field(default_factory=DepthSettings)
    colour: ColourSettings = field(default_factory=ColourSettings)
    timing: TimingSettings = field(default_factory=TimingSettings)
    odometry: OdometrySettings = field(default_factory=OdometrySettings)
    camera: CameraSettings = field(default_factory=CameraSettings)

    @property
    def perfect_images(self) -> bool:
        """Whether frames are as they are rendered."""
        return self.depth.perfect and self.colour.perfect


REALISTIC = SensorSettings(
    depth=DepthSettings(
        noise_floor_m=0.0012,
        noise_per_m=0.0019,
        noise_of_angle=0.0001,
        disparity_step_px=0.125,
        baseline_m=0.075,
        lateral_mrad=1.4,  # Nguyen's 0.8 px at 580 px of focal length
        near_m=0.3,
        far_m=6.0,
        grazing_deg=80.0,
        least_signal=0.002,
        signal_spread=0.5,
        speckle_mrad=14.0,
        shiny_from=0.97,
    ),
    colour=ColourSettings(
        exposure_target=0.25,
        exposure_lag_s=0.4,
        exposure_s=0.012,
        white_balance=0.6,
        white_balance_lag_s=1.0,
        full_well_e=8000.0,
        read_noise_e=12.0,
        vignetting=0.4,
        jpeg_quality=85,
    ),
    timing=TimingSettings(latency_s=0.03, latency_spread_s=0.015, drop_share=0.02, stamp_jitter_s=0.003),
    odometry=OdometrySettings(wheel_radius_percent=0.1, baseline_percent=1.0, slip_percent=0.35, heading_percent=0.65),
    camera=CameraSettings(
        hfov_deg=(50.0, 110.0), height_m=(0.15, 1.5), pitch_deg=(-20.0, 15.0), aspect=(1.0, 16.0 / 9.0)
    ),
)
PRESETS: Mapping[str, SensorSettings] = {"ideal": SensorSettings(), "realistic": REALISTIC}


def preset_name(settings: SensorSettings) -> str:
    """Return the name of the preset that ``settings`` are, or "changed"."""
    return next((name for name, preset in PRESETS.items() if preset == settings), "changed")


def sensor_settings(preset: str | None = None, overrides: Mapping[str, Any] | None = None) -> SensorSettings:
    """Return a preset (the default one where None) with single settings changed.

    Args:
        preset: a name in :data:`PRESETS`.
        overrides: nested mapping, e.g. ``{"depth": {"far_m": 4.0}}``.

    Raises:
        ConfigError: for an unknown preset or key, or a value out of its range.
    """
    name = check_choice("sensors", DEFAULT_SENSORS if preset is None else preset, tuple(PRESETS))
    if not overrides:
        return PRESETS[name]
    return from_mapping(SensorSettings, merged(to_mapping(PRESETS[name]), overrides), "sensors.")
