"""The row that drives to where the goal's image registers, and where registration applies at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from come_nav.core.geometry import se2
from come_nav.core.settings import to_mapping
from come_nav.core.types import Plan, PlanStatus
from come_nav.evaluation.protocols.protocol import Window
from come_nav.evaluation.protocols.rows import REGISTRATION, Row, trivial_rows
from come_nav.evaluation.suites.camera_model import CameraModel
from come_nav.evaluation.suites.inputs import Input
from come_nav.evaluation.suites.planning_rows import ReplayOf
from come_nav.evaluation.suites.replay import Replay, open_loop
from come_nav.navigation.settings import NavigationSettings
from come_nav.navigation.stack import NavStack
from come_nav.planning.registered_path import path_to_pose


def registration_row(navigation: NavigationSettings, replay_of: ReplayOf | None = None) -> Row:
    """Return the row that registers the goal's image and drives smoothly there; constant velocity where it fails.

    Args:
        navigation: of the robot.
        replay_of: the stack of a window's drive, with its memory; without, an episode that just began.
    """
    if replay_of is None:
        replay = Replay(NavStack(CameraModel(navigation.memory.rate_hz), open_loop(navigation)))

        def replay_of(window: Window) -> Replay:
            return replay

    going_on = trivial_rows(navigation.robot)[-1].plan

    def plan(window: Window, generator: torch.Generator) -> Plan:
        sighting = replay_of(window).at(window).goals.sighting(window.goal_frame().rgb)
        if sighting is None or not sighting.certain:
            return replace(going_on(window, generator), registered_to="nothing")
        search = replay_of(window).search_of(window)
        goal = se2.relative(window.start_odom_xyyaw, sighting.pose_odom_xyyaw)
        path = path_to_pose(goal, np.asarray(window.initial_twist), search, navigation.robot)
        start = window.start_odom_xyyaw
        return Plan(PlanStatus.OK, window.stamp_s, window.dt_s, path, start, registered_to=sighting.found_by)

    return Row(REGISTRATION, plan)


def too_narrow(source: Input, navigation: NavigationSettings) -> str:
    """Return why no image of an input can register; empty where they can."""
    settings = navigation.localisation
    if not settings.use:
        return "localisation.use is off"
    widths = [recording.frame(0).rgb.shape[1] for _, recording in source.recordings]
    if max(widths) < settings.min_width_px:
        return f"images {max(widths)} px wide have too few features (localisation.min_width_px {settings.min_width_px})"
    return ""


def stored_registration(navigation: NavigationSettings, narrow: str) -> dict[str, Any]:
    """Return what records depend on where goals register: nothing where images are too ``narrow``."""
    return {} if narrow else {"localisation": to_mapping(navigation.localisation)}


def registration_facts(narrow: str) -> dict[str, str]:
    """Return what a reader must know where rows are left out."""
    return {"rows registration and hybrid": f"left out: {narrow}"} if narrow else {}
