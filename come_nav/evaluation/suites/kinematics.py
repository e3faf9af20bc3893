"""How the robots of a planning table move: as they are told, or as their recordings tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from come_nav.core.settings import to_mapping
from come_nav.data.timing.sideways import SidewaysMotion, joined, sideways_motion
from come_nav.evaluation.protocols.protocol import segments_of_recording
from come_nav.evaluation.protocols.rows import STAND_STILL, Row
from come_nav.evaluation.suites.fingerprints import motion_prior_settings
from come_nav.evaluation.suites.inputs import Input
from come_nav.navigation.settings import NavigationSettings
from come_nav.planning.settings import KinematicsSettings

AUTO = "auto"
MARGIN = 0.05  # m/s or rad/s beyond a limit that count as within it
WORTH_TELLING = 0.05  # share of steps beyond the limits


def told_kinematics(navigation: NavigationSettings, source: Input, asked: str) -> tuple[NavigationSettings, Input]:
    """Return the robot's settings with the kinematics that were ``asked`` for, and the input with a fact about them.

    Args:
        navigation: of the robot.
        source: what is evaluated.
        asked: differential, holonomic, car, auto (what the recordings tell) or empty (as ``navigation`` says).
    """
    motion = joined(
        [
            sideways_motion(
                np.asarray(recording.stamps_s),
                np.asarray(recording.poses_xyyaw),
                np.flatnonzero(np.diff(segments_of_recording(recording))).tolist(),
            )
            for _, recording in source.recordings
        ]
    )
    told = str(motion)
    if asked == AUTO:
        asked, text = motion.kinematics, f"{told}, told by the recording"
    else:
        asked = asked or navigation.robot.kinematics
        text = f"{asked}, as set; the recording looks {told}"
    robot = KinematicsSettings(**{**to_mapping(navigation.robot), "kinematics": asked})
    navigation = replace(navigation, robot=robot)
    beyond = beyond_limits(motion, navigation)
    if beyond:
        text = f"{text}; {beyond}"
    return navigation, replace(source, facts={**source.facts, "kinematics": text})


def beyond_limits(motion: SidewaysMotion, navigation: NavigationSettings) -> str:
    """Return what a search within the robot's limits cannot follow of the recorded motion; empty where it is little."""
    limits, robot, twists = navigation.planner.limits, navigation.robot, motion.twists
    if len(twists) == 0:
        return ""
    vy = robot.vy_max_mps if robot.sideways else np.inf  # the share that is sideways is told anyway
    low = np.array([limits.v_min_mps, -vy, -limits.w_max_radps]) - MARGIN
    high = np.array([limits.v_max_mps, vy, limits.w_max_radps]) + MARGIN
    share = float(((twists < low) | (twists > high)).any(axis=1).mean())
    if share < WORTH_TELLING:
        return ""
    slow, fast = np.percentile(twists, [1, 99], axis=0)
    return (
        f"{100 * share:.0f} % of its steps are beyond planner.limits and robot.vy_max_mps (vx {slow[0]:.2f} to "
        f"{fast[0]:.2f}, vy {slow[1]:.2f} to {fast[1]:.2f} m/s, w {slow[2]:.2f} to {fast[2]:.2f} rad/s)"
    )


def with_kinematics(rows: Sequence[Row], robot: KinematicsSettings) -> list[Row]:
    """Return the rows, each saying that its paths are those of ``robot``; standing still has none."""
    return [row if row.name == STAND_STILL else replace(row, kinematics=robot.kinematics) for row in rows]


def kinematics_by_row(rows: Sequence[Row]) -> dict[str, str]:
    """Return row -> kinematics, hindsight rows included."""
    return {name: row.kinematics for row in rows for name in row.names}


def stored_motion(navigation: NavigationSettings) -> Mapping[str, Any]:
    """Return what records depend on beyond a differential drive: nothing for one, whose folders of 0.1 go on."""
    robot, prior = navigation.robot, navigation.motion_prior
    found = {} if robot == KinematicsSettings() else {"robot": to_mapping(robot)}
    counts = prior.weight_of(robot) > 0.0 or prior.looks(robot)
    return found | ({"motion_prior": motion_prior_settings(prior, robot)} if counts else {})
