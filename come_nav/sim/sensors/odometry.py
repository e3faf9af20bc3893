"""Wheel odometry with the errors of real wheels.

Systematic errors are those of J. Borenstein and L. Feng, "Measurement and Correction of Systematic Odometry Errors in
Mobile Robots", IEEE Trans. Robotics and Automation 12(6), 1996: unequal wheel radii bend a straight way, a wrong
baseline scales every turn. Random ones grow with the root of the way, as in S. Thrun, W. Burgard and D. Fox,
"Probabilistic Robotics", 2005, section 5.4 (there as variances proportional to the motion).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.checks import check_range
from come_nav.core.geometry import se2


@dataclass(frozen=True)
class OdometrySettings:
    """Errors of wheel odometry, in percent; all zero is perfect odometry.

    Attributes:
        distance_percent: white noise: after 1 m the standard deviation is this percent of a metre; it grows with the
            square root of the distance, whatever the time step.
        rotation_percent: the same for turning: percent of a radian after 1 rad.
        scale_percent: systematic: for every drive one scale error of distances and one of rotations are drawn with
            this standard deviation.
        heading_percent: white noise of the heading while driving straight: percent of a radian after 1 m.
        wheel_radius_percent: systematic: for every drive each wheel's radius is wrong by this standard deviation; what
            both have in common scales distances, their difference bends straight ways.
        baseline_percent: systematic: for every drive the distance between the wheels is wrong by this standard
            deviation; turns are scaled by it.
        slip_percent: white noise of each wheel: after 1 m of its way the standard deviation is this percent of a metre.
        wheel_separation_m: distance between the wheels, m.
    """

    distance_percent: float = 0.0
    rotation_percent: float = 0.0
    scale_percent: float = 0.0
    heading_percent: float = 0.0
    wheel_radius_percent: float = 0.0
    baseline_percent: float = 0.0
    slip_percent: float = 0.0
    wheel_separation_m: float = 0.35

    def __post_init__(self) -> None:
        for item in fields(self):
            if item.name.endswith("_percent"):
                check_range(f"sensors.odometry.{item.name}", getattr(self, item.name), 0.0, 50.0)
        check_range("sensors.odometry.wheel_separation_m", self.wheel_separation_m, 0.05, 3.0)

    @classmethod
    def from_percent(cls, percent: float) -> OdometrySettings:
        """Return errors with every white and scale term at ``percent`` and the heading at half of it."""
        return cls(percent, percent, percent, 0.5 * percent)

    @property
    def perfect(self) -> bool:
        """Whether odometry is the truth."""
        return not any(getattr(self, item.name) for item in fields(self) if item.name.endswith("_percent"))

    @property
    def of_wheels(self) -> bool:
        """Whether single wheels have errors."""
        return bool(self.wheel_radius_percent or self.baseline_percent or self.slip_percent)


class WheelOdometry:
    """What wheel encoders believe: integrates the true motion with errors, from (0, 0, 0)."""

    def __init__(self, settings: OdometrySettings | None, generator: torch.Generator) -> None:
        """Draw the drive's systematic errors; None and all-zero ``settings`` give the truth."""
        self.settings = None if settings is None or settings.perfect else settings
        self.generator = generator
        self.pose_odom_xyyaw: NDArray[np.float64] = np.zeros(3)
        self._scale, self._radii, self._baseline = np.ones(2), np.ones(2), 1.0
        if self.settings is not None:
            self._scale += 0.01 * self.settings.scale_percent * self._draw(2)
            if self.settings.of_wheels:
                left, right, baseline = 0.01 * self._draw(3)
                self._radii += self.settings.wheel_radius_percent * np.array([left, right])
                self._baseline += self.settings.baseline_percent * float(baseline)

    def advance(self, poses_world_xyyaw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Follow true poses (M + 1, 3), the first being where the last call ended; return odometry poses (M, 3)."""
        steps = se2.relative(poses_world_xyyaw[:-1], poses_world_xyyaw[1:])
        if self.settings is not None:
            if self.settings.of_wheels:
                steps = self._roll(steps, self.settings)
            steps = self._disturb(steps, self.settings)
        poses = np.empty_like(steps)
        yaws = self.pose_odom_xyyaw[2] + np.concatenate([[0.0], np.cumsum(steps[:, 2])])
        cosine, sine = np.cos(yaws[:-1]), np.sin(yaws[:-1])
        poses[:, 0] = self.pose_odom_xyyaw[0] + np.cumsum(cosine * steps[:, 0] - sine * steps[:, 1])
        poses[:, 1] = self.pose_odom_xyyaw[1] + np.cumsum(sine * steps[:, 0] + cosine * steps[:, 1])
        poses[:, 2] = se2.wrap_angle(yaws[1:])
        if len(poses):
            self.pose_odom_xyyaw = poses[-1]
        return poses

    def _roll(self, steps: NDArray[np.float64], settings: OdometrySettings) -> NDArray[np.float64]:
        """Return the steps (M, 3) that two wheels of wrong radii, slipping, at a wrong distance, would tell of."""
        turn, half = steps[:, 2], 0.5 * settings.wheel_separation_m
        middle = np.stack([np.cos(0.5 * turn), np.sin(0.5 * turn)], axis=1)  # direction of the chord
        distance = (steps[:, :2] * middle).sum(axis=1)
        ways = np.stack([distance - half * turn, distance + half * turn])  # of the left and of the right wheel
        slip = 0.01 * settings.slip_percent * np.sqrt(np.abs(ways)) * self._draw(ways.size).reshape(ways.shape)
        told = ways * self._radii[:, None] + slip
        longer = 0.5 * (told[0] + told[1]) - distance
        turned = (told[1] - told[0]) / (2.0 * half * self._baseline)
        return np.concatenate([steps[:, :2] + longer[:, None] * middle, turned[:, None]], axis=1)

    def _disturb(self, steps: NDArray[np.float64], settings: OdometrySettings) -> NDArray[np.float64]:
        distance = np.hypot(steps[:, 0], steps[:, 1])
        turn = steps[:, 2]
        white = self._draw(3 * len(steps)).reshape(3, -1)
        with np.errstate(invalid="ignore", divide="ignore"):
            stretch = np.where(distance > 0, 0.01 * settings.distance_percent * white[0] / np.sqrt(distance), 0.0)
        turned = turn * self._scale[1]
        turned += 0.01 * settings.rotation_percent * np.sqrt(np.abs(turn)) * white[1]
        turned += 0.01 * settings.heading_percent * np.sqrt(distance) * white[2]
        return np.concatenate([steps[:, :2] * (self._scale[0] + stretch)[:, None], turned[:, None]], axis=1)

    def _draw(self, count: int) -> NDArray[np.float64]:
        values: NDArray[np.float64] = torch.randn(count, generator=self.generator, dtype=torch.float64).numpy()
        return values
