"""When memory leads, and what to keep away from."""

from __future__ import annotations

from dataclasses import dataclass

from come_nav.core.checks import check_range


@dataclass(frozen=True)
class GuideSettings:
    """When memory leads.

    Attributes:
        direct_m: a goal nearer than this is approached directly, m.
        lookahead_m: how far away the next subgoal on the way lies, m.
        approach_by_view: where the goal's place is known, score imagined views as well on the last ``direct_m``.
        use_ways: follow remembered ways; without, head straight for the goal's place.
    """

    direct_m: float = 1.0
    lookahead_m: float = 1.0
    approach_by_view: bool = False
    use_ways: bool = True


@dataclass(frozen=True)
class ObstacleSettings:
    """What is an obstacle, and how far to keep away.

    Attributes:
        use: whether obstacles count at all.
        radius_m: paths nearer to an obstacle are rejected; the robot and some room, m, > 0.
        margin_m: paths within this further distance cost more, m, > 0.
        min_height_m: points lower than this are floor, m in odom.
        max_height_m: points higher than this are passed below, m in odom.
        range_m: points further away than this do not matter, m, > 0.
        cell_m: points are thinned to one per cell of this size, m, > 0.
        blocked_memory_s: keep away this long from where the robot was blocked, s, >= 0.
        max_age_s: no plan on a newest cloud older than this, or without any, s, > 0; None = whoever shows clouds
            sees to that.
    """

    use: bool = True
    radius_m: float = 0.25
    margin_m: float = 0.2
    min_height_m: float = 0.1
    max_height_m: float = 1.2
    range_m: float = 4.0
    cell_m: float = 0.05
    blocked_memory_s: float = 120.0
    max_age_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("radius_m", "margin_m", "range_m", "cell_m"):
            check_range(f"obstacles.{name}", getattr(self, name), 0.0, open_low=True)
        check_range("obstacles.blocked_memory_s", self.blocked_memory_s, 0.0)
        if self.max_age_s is not None:
            check_range("obstacles.max_age_s", self.max_age_s, 0.0, open_low=True)
