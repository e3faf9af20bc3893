"""What the planner considered, as RViz shows it: candidates coloured by cost, the chosen path, the goal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from geometry_msgs.msg import Point
from numpy.typing import NDArray
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from come_nav.core.geometry import se2
from come_nav.core.types import Goal, Plan, PlanStatus
from come_nav.ros import messages
from come_nav.viz.candidates import cost_colours, spread


def candidate_markers(
    plan: Plan, goal: Goal | None, frame_id: str, most: int = 100, height_m: float = 0.02
) -> MarkerArray:
    """Return markers of the last search: at most ``most`` candidates (the cheapest and some of the rest)."""
    found = MarkerArray(markers=[Marker(action=Marker.DELETEALL)])
    stamp_frame = (plan.stamp_s, frame_id)
    if plan.trace is not None and plan.trace.iterations:
        poses = np.concatenate([iteration.poses_xyyaw.cpu().numpy() for iteration in plan.trace.iterations])
        costs = np.concatenate([iteration.costs.cpu().numpy() for iteration in plan.trace.iterations])
        chosen = spread(costs, most)
        found.markers.append(_lines(poses[chosen], costs[chosen], plan, stamp_frame, height_m))
    if plan.status is PlanStatus.OK:
        found.markers.append(_chosen(plan, stamp_frame, height_m))
    if goal is not None and goal.pose_odom_xyyaw is not None:
        found.markers.append(_goal(goal.pose_odom_xyyaw, stamp_frame))
    return found


def _lines(
    poses_xyyaw: NDArray[np.float64], costs: NDArray[np.float64], plan: Plan, at: tuple[float, str], height_m: float
) -> Marker:
    """Return all candidates (S, T, 3) as one LINE_LIST: a marker each would be slow in RViz."""
    marker = _marker("candidates", Marker.LINE_LIST, at)
    marker.scale.x = 0.01
    count, steps = poses_xyyaw.shape[:2]
    odom = se2.compose(plan.start_odom_xyyaw[None, None], poses_xyyaw)
    path = np.concatenate([np.broadcast_to(plan.start_odom_xyyaw, (count, 1, 3)), odom], axis=1)
    ends: list[Point] = []
    colours: list[ColorRGBA] = []
    for poses, (r, g, b) in zip(path, cost_colours(costs), strict=True):
        ends += [end for pair in pairwise(_points(poses, height_m)) for end in pair]
        colours += [ColorRGBA(r=float(r), g=float(g), b=float(b), a=0.6)] * (2 * steps)
    marker.points, marker.colors = ends, colours
    return marker


def _chosen(plan: Plan, at: tuple[float, str], height_m: float) -> Marker:
    marker = _marker("chosen", Marker.LINE_STRIP, at)
    marker.scale.x = 0.04
    marker.color = ColorRGBA(r=0.1, g=0.9, b=0.2, a=1.0)
    marker.points = _points(np.vstack([plan.start_odom_xyyaw[None], plan.poses_odom_xyyaw()]), 2 * height_m)
    return marker


def _goal(pose_odom_xyyaw: NDArray[np.float64], at: tuple[float, str]) -> Marker:
    marker = _marker("goal", Marker.ARROW, at)
    marker.pose = messages.pose_list(pose_odom_xyyaw[None], [0.0], at[1])[0].pose
    marker.scale.x, marker.scale.y, marker.scale.z = 0.4, 0.08, 0.08
    marker.color = ColorRGBA(r=1.0, g=0.5, b=0.0, a=1.0)
    return marker


def _marker(namespace: str, kind: int, at: tuple[float, str]) -> Marker:
    marker = Marker(header=messages.header(*at), ns=namespace, id=0, type=kind, action=Marker.ADD)
    marker.pose.orientation.w = 1.0
    return marker


def _points(poses_xyyaw: NDArray[np.float64], height_m: float) -> Sequence[Point]:
    return [Point(x=float(x), y=float(y), z=height_m) for x, y, _ in poses_xyyaw]
