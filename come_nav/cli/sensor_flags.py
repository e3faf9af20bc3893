"""``--sensors``, the ``--set sensors.*`` words and ``--set-of-worlds`` of every verb that runs the simulator."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from come_nav.sim.sensors.settings import SensorSettings

PREFIX = "sensors."


def add_sensor_flag(parser: argparse._ActionsContainer) -> None:
    """Add ``--sensors``."""
    parser.add_argument(
        "--sensors",
        metavar="PRESET",
        help="ideal, or realistic: noise, lag, holes, drift, a drawn camera (default ideal); --set sensors.KEY=VALUE",
    )


def add_world_flag(parser: argparse._ActionsContainer) -> None:
    """Add ``--set-of-worlds``."""
    parser.add_argument(
        "--set-of-worlds",
        metavar="NAME",
        help="built-in (default), photographed or furnished (come-nav assets), lively (people, things moved), "
        "photographed-lively, furnished-lively, or maze",
    )


def sensors_of(args: argparse.Namespace, percent: float | None = None) -> SensorSettings:
    """Return the preset of ``--sensors`` with what ``--set sensors.*`` changes.

    Args:
        args: parsed flags.
        percent: of odometry errors, in the place of the preset's odometry, where it is asked for.
    """
    from come_nav.core.checks import check_range
    from come_nav.sim.sensors.odometry import OdometrySettings
    from come_nav.sim.sensors.settings import sensor_settings

    settings = sensor_settings(args.sensors, sensor_overrides(args.set))
    if percent is None:
        return settings
    check_range("percent of odometry errors", percent, 0.0, 50.0)
    return replace(settings, odometry=OdometrySettings.from_percent(percent))


def sensor_overrides(words: Sequence[str]) -> dict[str, Any]:
    """Return the nested mapping of the words ``sensors.depth.far_m=4`` among ``words``."""
    from come_nav.config import parse_override
    from come_nav.core.settings import set_key

    found: dict[str, Any] = {}
    for word in words:
        if word.strip().startswith(PREFIX):
            key, value = parse_override(word)
            set_key(found, key.removeprefix(PREFIX), value)
    return found


def other_words(words: Sequence[str]) -> list[str]:
    """Return the words that are of the configuration, not of the sensors."""
    return [word for word in words if not word.strip().startswith(PREFIX)]
