"""A recording for the Rerun viewer: what a robot saw, remembered, considered and did, on one time line.

Rerun is optional: ``pip install 'come_nav[rerun]'``. ``rerun FILE.rrd`` opens what was written.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import MissingDependencyError
from come_nav.core.geometry import se2
from come_nav.core.types import Frame, Goal, Plan, PlanStatus
from come_nav.viz.candidates import cost_colours, spread

TIMELINE = "stamp"
BLUE, ORANGE, RED, GREY = (0, 114, 178), (230, 159, 0), (213, 94, 0), (138, 138, 138)
HEIGHT_M = 0.02  # of what is drawn on the floor
JPEG_QUALITY = 85


class RerunRecording:
    """Writes entities; every call names the time (s) that it is about. Any thread may call."""

    def __init__(self, path: Path, application: str = "come_nav") -> None:
        """Begin a file, an .rrd.

        Raises:
            MissingDependencyError: without rerun-sdk.
        """
        try:
            self._rr: Any = importlib.import_module("rerun")
        except ImportError as error:
            raise MissingDependencyError("rerun-sdk", "rerun", "a recording for Rerun") from error
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = self._rr.RecordingStream(application)
        self._stream.save(str(path))
        self._stream.log("world", self._rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
        self._way: list[NDArray[np.float64]] = []

    def close(self) -> None:
        """Write what is still on its way."""
        self._stream.flush()
        self._stream.disconnect()

    def frame(self, frame: Frame, T_odom_base: NDArray[np.float64]) -> None:
        """Show what the camera saw, where it was, and the way driven so far."""
        rr = self._rr
        self._at(frame.stamp_s)
        self._log("world/robot", rr.Transform3D(translation=T_odom_base[:3, 3], mat3x3=T_odom_base[:3, :3]))
        self._way.append(np.array([*T_odom_base[:2, 3], HEIGHT_M]))
        self._log("world/driven", rr.LineStrips3D([np.stack(self._way)], colors=[GREY], radii=0.01))
        if frame.intrinsics is not None and frame.T_base_camera is not None:
            camera, T = frame.intrinsics, frame.T_base_camera
            self._log("world/robot/camera", rr.Transform3D(translation=T[:3, 3], mat3x3=T[:3, :3]))
            size = {"width": camera.width, "height": camera.height}
            self._log("world/robot/camera/image", rr.Pinhole(image_from_camera=camera.matrix(), **size))
        self._image("world/robot/camera/image", frame.rgb)

    def cloud(self, stamp_s: float, points_odom_xyz: NDArray[np.floating], rgb: NDArray[np.uint8]) -> None:
        """Show what is remembered: points (N, 3) with their colours (N, 3)."""
        self._at(stamp_s)
        self._log("world/memory", self._rr.Points3D(points_odom_xyz, colors=rgb, radii=0.02))

    def obstacles(self, stamp_s: float, points_odom_xy: NDArray[np.floating]) -> None:
        """Show what paths keep away from (N, 2)."""
        self._at(stamp_s)
        points = np.column_stack([points_odom_xy, np.full(len(points_odom_xy), HEIGHT_M)])
        self._log("world/obstacles", self._rr.Points3D(points, colors=[RED], radii=0.015))

    def plan(self, plan: Plan, way_xy: NDArray[np.float64] | None, target: Goal | None, most: int = 100) -> None:
        """Show a plan: at most ``most`` candidates by cost, the choice, the route (N, 2) and what is headed for."""
        rr = self._rr
        self._at(plan.stamp_s)
        self._candidates(plan, most)
        if plan.status is PlanStatus.OK:
            chosen = np.vstack([plan.start_odom_xyyaw[None], plan.poses_odom_xyyaw()])
            self._log("world/plan", rr.LineStrips3D([_on_floor(chosen)], colors=[BLUE], radii=0.02))
            self._log("plan/cost", rr.Scalars(plan.cost))
            if plan.doubt is not None:
                self._log("plan/doubt", rr.Scalars(plan.doubt))
        if way_xy is not None and len(way_xy):
            self._log("world/route", rr.LineStrips3D([_on_floor(way_xy)], colors=[ORANGE], radii=0.015))
        if target is not None and target.pose_odom_xyyaw is not None:
            x, y, yaw = target.pose_odom_xyyaw
            arrow = rr.Arrows3D(
                origins=[[x, y, HEIGHT_M]], vectors=[[0.4 * np.cos(yaw), 0.4 * np.sin(yaw), 0.0]], colors=[RED]
            )
            self._log("world/target", arrow)
        self._log("plan/status", rr.TextLog(f"{plan.status.value} {plan.message}".strip()))
        self._log("plan/duration_s", rr.Scalars(plan.duration_s))

    def imagined(self, stamp_s: float, imagined_rgb: NDArray[np.uint8], came_rgb: NDArray[np.uint8]) -> None:
        """Show what was imagined for a time beside what was seen then, both uint8 RGB of any size."""
        self._at(stamp_s)
        self._image("imagined/at_the_end_of_the_plan", imagined_rgb)
        self._image("imagined/what_came", came_rgb)

    def exponents(self, stamp_s: float, exponents: Mapping[str, float]) -> None:
        """Show with what exponent each expert counts."""
        self._at(stamp_s)
        for name, value in exponents.items():
            self._log(f"exponents/{name}", self._rr.Scalars(value))

    def registered(
        self,
        stamp_s: float,
        images: tuple[NDArray[np.uint8], NDArray[np.uint8]],
        pixels: tuple[NDArray[np.floating], NDArray[np.floating]],
    ) -> None:
        """Show two images of one height side by side with their registered features (M, 2) each, joined by lines."""
        rr, (a, b) = self._rr, images
        self._at(stamp_s)
        height = min(a.shape[0], b.shape[0])
        shift = np.array([a.shape[1], 0.0])
        self._image("registered", np.concatenate([a[:height], b[:height]], axis=1))
        lines = np.stack([pixels[0], pixels[1] + shift], axis=1)
        self._log("registered/features", rr.LineStrips2D(lines, colors=[BLUE]))

    def _candidates(self, plan: Plan, most: int) -> None:
        if plan.trace is None or not plan.trace.iterations:
            return
        poses = np.concatenate([own.poses_xyyaw.cpu().numpy() for own in plan.trace.iterations])
        costs = np.concatenate([own.costs.cpu().numpy() for own in plan.trace.iterations])
        chosen = spread(costs, most)
        start = np.broadcast_to(plan.start_odom_xyyaw, (len(chosen), 1, 3))
        ways = np.concatenate([start, se2.compose(plan.start_odom_xyyaw[None, None], poses[chosen])], axis=1)
        colours = (255.0 * cost_colours(costs[chosen])).astype(np.uint8)
        strips = self._rr.LineStrips3D([_on_floor(way) for way in ways], colors=colours, radii=0.005)
        self._log("world/candidates", strips)
        for name, values in plan.trace.iterations[-1].costs_by_objective.items():
            self._log(f"costs/{name}", self._rr.Scalars(float(values.min())))

    def _image(self, entity: str, rgb: NDArray[np.uint8]) -> None:
        self._log(entity, self._rr.Image(rgb).compress(jpeg_quality=JPEG_QUALITY))

    def _at(self, stamp_s: float) -> None:
        self._stream.set_time(TIMELINE, timestamp=stamp_s)

    def _log(self, entity: str, what: Any) -> None:
        self._stream.log(entity, what)


def _on_floor(poses: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.column_stack([poses[:, :2], np.full(len(poses), HEIGHT_M)])
