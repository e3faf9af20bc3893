"""How the closed loop is run, and which parts of the robot each row switches off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from come_nav.core.checks import check_range
from come_nav.core.errors import ConfigError, suggest
from come_nav.navigation.settings import NavigationSettings, NavigatorSettings
from come_nav.sim.sensors.settings import SensorSettings
from come_nav.sim.world_sets import BUILT_IN

KINDS = ("in view", "out of view")


@dataclass(frozen=True)
class ClosedLoopSettings:
    """What the robot is asked, and how its surroundings behave.

    Attributes:
        worlds: seeds of built-in worlds.
        goals: images to drive to in each world; in view and out of view take turns.
        time_limit_s: a goal is missed after this, simulated s, > 0.
        plan_period_s: a new plan this often, simulated s, > 0.
        latency_s: from the frame that a plan starts from to the first command that follows it, simulated s, >= 0.
        camera_rate_hz: frames per simulated second, > 0.
        image_width: of the camera, px.
        image_height: of the camera, px.
        horizontal_fov_deg: of the camera, degrees, where ``sensors`` draw no width of view.
        drift_percent: of wheel odometry, >= 0; above 0 it takes the place of the odometry of ``sensors``.
        sensors: errors of all sensors.
        world_set: name of the set of worlds.
        reached_m: a robot that says so has reached an image within this distance, m, > 0.
        reached_rad: and within this turn, rad, > 0.
        seed: of odometry's noise.
    """

    worlds: tuple[int, ...] = (20003,)
    goals: int = 4
    time_limit_s: float = 40.0
    plan_period_s: float = 0.5
    latency_s: float = 0.25
    camera_rate_hz: float = 4.0
    image_width: int = 320
    image_height: int = 240
    horizontal_fov_deg: float = 106.26
    drift_percent: float = 0.0
    sensors: SensorSettings = field(default_factory=SensorSettings)
    world_set: str = BUILT_IN
    reached_m: float = 0.5
    reached_rad: float = 0.6
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.worlds:
            raise ConfigError("worlds must name at least one built-in world, e.g. 20003")
        check_range("goals", self.goals, 1)
        for name in ("time_limit_s", "plan_period_s", "camera_rate_hz", "reached_m", "reached_rad"):
            check_range(name, getattr(self, name), 0.0, open_low=True)
        check_range("latency_s", self.latency_s, 0.0, 10.0)
        check_range("drift_percent", self.drift_percent, 0.0, 50.0)
        for name in ("image_width", "image_height"):
            check_range(name, getattr(self, name), 16, 4096)
        check_range("horizontal_fov_deg", self.horizontal_fov_deg, 10.0, 170.0)


@dataclass(frozen=True)
class LoopRow:
    """One row of the table: what is on.

    Attributes:
        key: as flags take it.
        name: in the table.
        places: place recognition and ways over key frames together; off = the goal is approached as it was given.
        recognition: look for where a goal image was taken.
        route: follow remembered ways.
        imagination: score goal images by what the world model imagines.
        memory: let the memory experts take part in what is imagined.
        correction: take drift out of what is remembered; images must be wide enough for it.
        follows: what drives along a topological map of the way, which the robot is shown before each goal, in place of
            the navigator: "policy" alone, or the "search" towards the policy's subgoals. None = the navigator drives.
    """

    key: str
    name: str
    places: bool = True
    recognition: bool = True
    route: bool = True
    imagination: bool = True
    memory: bool = True
    correction: bool = True
    follows: Literal["policy", "search"] | None = None

    def navigator(self, settings: NavigatorSettings) -> NavigatorSettings:
        """Return the navigator's settings with this row's switches."""
        return replace(
            settings,
            use_places=settings.use_places and self.places,
            use_recognition=settings.use_recognition and self.recognition,
            use_route=settings.use_route and self.route,
            use_imagination=settings.use_imagination and self.imagination,
        )

    def stack(self, settings: NavigationSettings) -> NavigationSettings:
        """Return the stack's settings with this row's switches."""
        if not self.memory:
            settings = replace(settings, experts=replace(settings.experts, use=()))
        if not self.correction:
            settings = replace(settings, localisation=replace(settings.localisation, correct_drift=False))
        return settings


ROWS: Mapping[str, LoopRow] = {
    row.key: row
    for row in (
        LoopRow("all", "everything on"),
        LoopRow("no-recognition", "no place recognition", recognition=False),
        LoopRow("no-route", "no route over key frames", route=False),
        LoopRow("no-imagination", "no imagination: poses alone", imagination=False),
        LoopRow("no-correction", "drift is not corrected", correction=False),
        LoopRow("imagination", "imagination with memory alone", places=False),
        LoopRow("base", "the base's imagination alone, no memory", places=False, memory=False),
        LoopRow("topological", "a policy along a map of the way", memory=False, follows="policy"),
        LoopRow("topological-search", "search along a map of the way", memory=False, follows="search"),
    )
}


def chosen_rows(keys: tuple[str, ...]) -> list[LoopRow]:
    """Return the rows of these keys; raise ConfigError for an unknown one."""
    for key in keys:
        if key not in ROWS:
            raise ConfigError(f"unknown row '{key}', must be one of {', '.join(ROWS)}{suggest(key, ROWS)}")
    return [ROWS[key] for key in keys]


def sim_robot() -> NavigatorSettings:
    """Return what the navigator of the simulated robot is told: its defaults are that robot's."""
    return NavigatorSettings()


@dataclass(frozen=True)
class ClosedLoop:
    """Everything that a closed loop depends on.

    Attributes:
        loop: what is asked.
        stack: the robot's memory, imagination and search.
        navigator: from goals to plans.
        rows: which parts are switched off, row by row.
    """

    loop: ClosedLoopSettings = field(default_factory=ClosedLoopSettings)
    stack: NavigationSettings = field(default_factory=NavigationSettings)
    navigator: NavigatorSettings = field(default_factory=sim_robot)
    rows: tuple[str, ...] = ("all",)
