"""Rows of learned planners in planning tables: alone, ranked by a row that searches, and mixed into its search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.errors import ConfigError
from come_nav.core.protocols import Policy
from come_nav.core.types import Plan, PlanStatus
from come_nav.evaluation.protocols.protocol import Window, segments_of_recording
from come_nav.evaluation.protocols.rows import WORLD_MODEL, Row
from come_nav.evaluation.suites.fingerprints import model_fingerprint
from come_nav.evaluation.suites.planning_rows import ReplayOf, searching_row
from come_nav.evaluation.suites.replay import Replay, open_loop
from come_nav.navigation.navigation_model import NavigationModel
from come_nav.navigation.planning.proposing import Proposer
from come_nav.navigation.settings import ExpertsSettings, NavigationSettings
from come_nav.navigation.stack import NavStack
from come_nav.planning.proposals import drivable_paths
from come_nav.planning.settings import PlannerSettings
from come_nav.policies.model import LearnedPolicy
from come_nav.world_model.model import DiffusionWorldModel

RANKED = (16, 32)  # proposals that NWM's paper ranks
Policies = list[tuple[LearnedPolicy, PlannerSettings]]


@dataclass(frozen=True)
class Searcher:
    """A row that searches, and may rank what a policy proposes.

    Attributes:
        name: of the row.
        replay_of: the stack of a window's drive.
        model: its model.
        experts: what its imagination looks at; as the stack's settings say where None.
    """

    name: str
    replay_of: ReplayOf
    model: NavigationModel
    experts: ExpertsSettings | None = None


def load_policies(names: Sequence[str], navigation: NavigationSettings) -> Policies:
    """Return each policy and the search that takes its paths.

    Raises:
        ConfigError, CheckpointError: a policy is not there, or two have one name.
    """
    found: Policies = []
    for name in names:
        search = replace(navigation.planner, proposals=name, proposals_alone=False)
        policy = Proposer(navigation.device).policy(search)
        assert policy is not None
        if policy.name in (other.name for other, _ in found):  # records are kept by the names of rows
            raise ConfigError(f"--policy {name}: another policy is named '{policy.name}' too; rename a folder")
        found.append((policy, search))
    return found


def policy_rows(policies: Policies, navigation: NavigationSettings, searcher: Searcher | None) -> list[Row]:
    """Return the rows of each policy: the path that it proposes first and what ``searcher`` makes of its paths."""
    rows: list[Row] = []
    for policy, search in policies:
        rows.append(proposing_row(policy, navigation))
        if searcher is not None:
            rows += _searching_rows(policy, search, searcher)
    return rows


def world_model_searcher(
    policies: Policies, navigation: NavigationSettings, model: DiffusionWorldModel | None
) -> Searcher | None:
    """Return the world model alone, whose stack keeps as many frames as each policy looks at; None without one."""
    if model is None or not policies:
        return None
    frames = max(policy.frames for policy, _ in policies)
    replay = Replay(NavStack(model, open_loop(navigation)), max(0, frames - model.context_frames))
    return Searcher(WORLD_MODEL, lambda window: replay, model)


def proposing_row(policy: Policy, navigation: NavigationSettings) -> Row:
    """Return the row of a policy's first path, cut to what the robot can drive."""

    def plan(window: Window, generator: torch.Generator) -> Plan:
        found = policy.propose(context_images(window, policy.frames), window.goal_frame().rgb, 1, generator)
        steps = replace(navigation.planner, horizon_steps=len(window.driven_xyyaw), dt_s=window.dt_s)
        path = drivable_paths(found, steps, navigation.robot, window.initial_twist)[0]
        return Plan(PlanStatus.OK, window.stamp_s, window.dt_s, path, window.start_odom_xyyaw)

    return Row(policy.name, plan)


def context_images(window: Window, count: int) -> list[NDArray[np.uint8]]:
    """Return the newest images at the start of a window, oldest first: up to ``count``, none from before a gap."""
    segment = segments_of_recording(window.recording)
    first = window.start
    while first > 0 and window.start - first < count - 1 and segment[first - 1] == segment[window.start]:
        first -= 1
    return [window.recording.frame(index).rgb for index in range(first, window.start + 1)]


def stored_policies(names: Sequence[str]) -> dict[str, Any]:
    """Return what records of policies depend on; nothing without one."""
    return {"policies": [model_fingerprint(name) for name in names]} if names else {}


def _searching_rows(policy: LearnedPolicy, search: PlannerSettings, searcher: Searcher) -> list[Row]:
    """Return the rows in which ``searcher`` ranks the policy's paths, and in which it searches beside them."""
    searches = {f"{searcher.name} + {policy.name}": search}
    if policy.settings.kind == "nomad":  # the others have one path, and nothing to rank
        by = "" if searcher.name == WORLD_MODEL else f" by {searcher.name}"
        for count in RANKED:
            # All are imagined: the ranking is that of the row, not of what chooses candidates for a search.
            alone = replace(search, proposals_alone=True, proposed_paths=count, result="best", imagined_share=1.0)
            searches[f"{policy.name} x{count}, ranked{by}"] = alone
    return [
        replace(
            searching_row(name, searcher.replay_of, searcher.model, searcher.experts, planner=planner), imagine=None
        )
        for name, planner in searches.items()
    ]
