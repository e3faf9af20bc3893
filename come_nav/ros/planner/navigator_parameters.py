"""The parameters of a node that navigates, and the settings that they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from come_nav.memory.keyframes import KeyframesSettings
from come_nav.navigation.goals.guide import GuideSettings
from come_nav.navigation.goals.mission import ArrivalSettings
from come_nav.navigation.settings import NavigatorSettings, RecognitionSettings
from come_nav.ros.obstacles import OBSTACLE_PARAMETERS, obstacle_settings
from come_nav.ros.parameters import Parameter

NAVIGATOR_PARAMETERS = (
    *OBSTACLE_PARAMETERS,
    Parameter("goal_tolerance_m", 0.25, "a goal is reached within this distance, m", 0.01, 5.0),
    Parameter("goal_tolerance_rad", 0.35, "and within this turn, rad", 0.01, 3.15),
    Parameter("goal_difference", 0.6, "and the view must differ by less than this from a goal image", 0.0, 2.0),
    Parameter(
        "goal_fov_deg",
        0.0,
        "how wide the camera of goal images sees, degrees, where goal_camera_info does not tell; 0 = the robot's own "
        "where they have the shape of its images, else found out from the matches",
        0.0,
        179.0,
    ),
    Parameter("goal_confirmations", 2, "plans in a row that must agree that an image is reached", 1, 50),
    Parameter("max_failures", 20, "failed plans in a row that end a mission", 1, 10000),
    Parameter("time_limit_s", 120.0, "longest mission, s", 1.0, 86400.0),
    Parameter("use_places", True, "lead through remembered places to goals that are far away"),
    Parameter("use_recognition", True, "look for where a goal image was taken (with use_places)"),
    Parameter("use_route", True, "follow remembered ways, not the straight line (with use_places)"),
    Parameter("use_imagination", True, "score imagined views; without, only known poses are driven to"),
    Parameter("direct_m", 1.0, "approach goals nearer than this directly, m", 0.1, 50.0),
    Parameter("lookahead_m", 1.0, "distance of the next subgoal on a remembered way, m", 0.1, 10.0),
    Parameter("recognised", 0.4, "an image was taken where the remembered view differs by less", 0.0, 2.0),
    Parameter("approach_by_view", False, "score imagined views too on the last direct_m to a known place"),
    Parameter("trust", 0.7, "how much more similar than the view a remembered place must be, (0, 1]", 0.01, 1.0),
    Parameter(
        "unknown_image", "explore", "what to do with an image that is not recognised", choices=("explore", "refuse")
    ),
    Parameter("keyframes.spacing_m", 0.4, "remember a place after this distance, m", 0.05, 10.0, when="start"),
    Parameter("keyframes.spacing_rad", 0.5, "or after this turn, rad", 0.05, 3.15, when="start"),
    Parameter("keyframes.join_m", 0.6, "places this near are joined into one way, m", 0.0, 10.0, when="start"),
    Parameter("keyframes.max_count", 1000, "most remembered places", 4, 1000000, when="start"),
)


def navigator_settings(values: Mapping[str, Any]) -> NavigatorSettings:
    """Return what the parameters say of goals and ways."""
    keyframes = {name: values[f"keyframes.{name}"] for name in ("spacing_m", "spacing_rad", "join_m", "max_count")}
    return NavigatorSettings(
        **{name: values[name] for name in ("use_places", "use_recognition", "use_route", "use_imagination")},
        arrival=ArrivalSettings(
            values["goal_tolerance_m"],
            values["goal_tolerance_rad"],
            values["goal_difference"],
            values["goal_confirmations"],
            values["max_failures"],
            values["time_limit_s"],
        ),
        guide=GuideSettings(values["direct_m"], values["lookahead_m"], values["approach_by_view"]),
        recognition=RecognitionSettings(values["recognised"], values["trust"], values["unknown_image"]),
        keyframes=KeyframesSettings(**keyframes),
        obstacles=obstacle_settings(values),
    )
