"""Success of open-loop plans: the share whose end is near the goal pose, with Wilson's interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from come_nav.core.checks import check_range
from come_nav.core.types import PlanStatus
from come_nav.evaluation.metrics.statistics import Interval, wilson_interval


@dataclass(frozen=True)
class SuccessSettings:
    """When a plan counts as a success: its last pose is this near to the goal pose.

    Attributes:
        within_m: distance of the last position, > 0.
        within_deg: turn of the last heading, > 0; 180 asks for no heading.
    """

    within_m: float = 0.25
    within_deg: float = 15.0

    def __post_init__(self) -> None:
        check_range("success_m", self.within_m, 0.0, open_low=True)
        check_range("success_deg", self.within_deg, 0.0, 180.0, open_low=True)

    def __str__(self) -> str:
        return f"{self.within_m:g} m, {self.within_deg:g} deg"

    def met_by(self, record: Mapping[str, Any]) -> bool:
        """Return whether the plan of a record succeeded; one that is not OK is not driven, so it never does."""
        near = record["final_m"] <= self.within_m and math.degrees(record["final_yaw_rad"]) <= self.within_deg
        return bool(near and record["status"] == PlanStatus.OK.value)


def success_rate(records: Sequence[Mapping[str, Any]], settings: SuccessSettings) -> Interval:
    """Return the share of plans that succeeded with Wilson's 95 % interval, which takes windows as independent.

    Args:
        records: of one row, with ``final_m``, ``final_yaw_rad`` and ``status``.
        settings: when a plan succeeds.
    """
    count = len(records)
    successes = sum(settings.met_by(record) for record in records)
    return Interval(successes / count if count else math.nan, *wilson_interval(successes, count), count, count)
