"""Where the robot is in its own memory: key frames, registrations between them, a pose graph, and images found again.

Use: ``observe`` every frame with its odometry. A frame is kept where the robot has moved or turned enough; it is then
registered to the key frames before it (guided by odometry, so that repeating patterns do not mislead) and to places
seen earlier that look alike; the pose graph takes both. ``poses_map_xyyaw`` are the corrected key frames, and
``T_map_odom`` is what odometry has drifted by: compose it with odometry, and move whatever is anchored to a key frame
with that key frame's correction. ``relocalise`` finds where an image was taken.

Cost on one core of a busy machine at 320 x 240: about 150 ms a key frame, all registrations and the graph included.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_shape
from come_nav.core.errors import DataError
from come_nav.core.geometry import se2, se3
from come_nav.core.types import CameraIntrinsics, Frame
from come_nav.localisation.image_search import NOWHERE, VisualMatch, find_image
from come_nav.localisation.keyframe_map import KeyframeMap, LocaliserSettings, VisualKeyframe
from come_nav.localisation.multi_view.triangulation import with_triangulated_points
from come_nav.localisation.pose_graph import GraphSolution
from come_nav.localisation.registration import PosePrior, Registration
from come_nav.localisation.view import make_view


class VisualLocaliser:
    """Key frames, their graph, and relocalisation among them."""

    def __init__(self, config: LocaliserSettings | None = None, seed: int = 0) -> None:
        self.config = config or LocaliserSettings()
        self.map = KeyframeMap(self.config, seed)
        self.closures: list[tuple[int, int]] = []
        self.revision = 0
        self._since_solution = 0

    def __len__(self) -> int:
        return len(self.map)

    @property
    def keyframes(self) -> list[VisualKeyframe]:
        """Kept frames, the oldest first."""
        return self.map.keyframes

    @property
    def poses_map_xyyaw(self) -> NDArray[np.float64]:
        """Corrected poses (N, 3) of the key frames; the first one stays where odometry had it."""
        return self.map.graph.poses_xyyaw

    @property
    def T_map_odom(self) -> NDArray[np.float64]:
        """Pose (4, 4) of odom in map, planar, at the newest key frame; the identity without one."""
        return self.map.T_map_odom

    def observe(self, frame: Frame, T_odom_base: NDArray[np.float64]) -> int | None:
        """Keep a frame if the robot has moved enough since the last one; return its index, or None if it was not.

        Raises:
            DataError: for a frame without intrinsics or extrinsics, or a pose that is not finite.
        """
        if self.keyframes:
            last, pose = self.keyframes[-1].pose_odom_xyyaw, se3.xyyaw_from_transform(T_odom_base)
            if not se2.is_apart(last, pose, self.config.spacing_m, self.config.spacing_rad):
                return None
        return self.add_keyframe(frame, T_odom_base)

    def add_keyframe(self, frame: Frame, T_odom_base: NDArray[np.float64]) -> int:
        """Keep a frame, register it, solve the graph where that changed something, and return its index.

        Raises:
            DataError: for a frame without intrinsics or extrinsics, or a pose that is not finite.
        """
        if frame.intrinsics is None or frame.T_base_camera is None:
            raise DataError("a key frame needs intrinsics and T_base_camera; the recording has none")
        check_shape("T_odom_base", T_odom_base, "4 4")
        view = make_view(frame.rgb, frame.intrinsics, frame.depth_m, self.config.features)
        keyframe = VisualKeyframe(frame.stamp_s, view, np.array(T_odom_base, np.float64), frame.T_base_camera)
        index = self.map.add(keyframe)
        if frame.depth_m is None:
            self._triangulate(index)
        for earlier in range(max(0, index - self.config.predecessors), index):
            self._connect(earlier, index, self.map.guide(earlier, index))
        closed = self._close_loops(index)
        self.map.index_newest()
        self.map.make_room()
        self._since_solution += 1
        if closed or self._since_solution >= self.config.optimise_every:
            self.optimise()
        elif index:
            self.map.graph.optimise(free=min(index, 10))
        return index

    def optimise(self) -> GraphSolution:
        """Solve the whole graph."""
        self._since_solution = 0
        self.revision += 1
        return self.map.graph.optimise()

    def relocalise(
        self,
        rgb: NDArray[np.uint8],
        intrinsics: CameraIntrinsics | None = None,
        depth_m: NDArray[np.float32] | None = None,
        T_base_camera: NDArray[np.float64] | None = None,
        unknown_camera: bool = False,
    ) -> VisualMatch:
        """Return where an image was taken, or the best guess with its confidence.

        Args:
            rgb: (H, W, 3) uint8, of any size.
            intrinsics: of it; the newest key frame's, scaled, when None.
            depth_m: (H, W), where it was measured; helps to tell right from wrong.
            T_base_camera: extrinsics (4, 4) of the image's camera; the newest key frame's footprint extrinsics when
                None, so that the pose is that of a robot whose camera sees the image.
            unknown_camera: solve the focal length from the matches; then ``intrinsics`` and ``depth_m`` must be None.

        Raises:
            DataError: for an unknown camera with intrinsics or depth.
        """
        if not self.keyframes:
            return NOWHERE
        newest = self.keyframes[-1]
        camera = intrinsics
        if unknown_camera:
            if intrinsics is not None or depth_m is not None:
                raise DataError("an image of an unknown camera has neither intrinsics nor depth; leave both out")
        elif camera is None and newest.view.intrinsics is not None:
            camera = newest.view.intrinsics.scaled(rgb.shape[1], rgb.shape[0])
        view = make_view(rgb, camera, depth_m, self.config.features)
        extrinsics = newest.T_footprint_camera if T_base_camera is None else T_base_camera
        return find_image(self.map, view, extrinsics)

    def _triangulate(self, index: int) -> None:
        """Give a new key frame without depth points, and the one before it better ones, from their neighbours."""
        for row in (index - 1, index):
            if row < 0 or self.keyframes[row].view.surface_m is not None:
                continue
            others = [other for other in range(max(0, row - self.config.predecessors), index + 1) if other != row]
            neighbours = [(self.keyframes[other].view, self.map.guide(row, other).T_a_b) for other in others]
            view = with_triangulated_points(self.keyframes[row].view, neighbours, matching=self.config.matching)
            self.keyframes[row] = replace(self.keyframes[row], view=view)

    def _connect(self, first: int, second: int, prior: PosePrior | None = None) -> bool:
        """Register two key frames and add the edge; return whether there is one."""
        b = self.keyframes[second]
        found = self.map.register(first, b.view, prior)
        if found is None:
            return False
        registration, evidence = found
        relative, covariance = registration.planar(self.keyframes[first].T_footprint_camera, b.T_footprint_camera)
        if prior is None and (
            evidence.confidence < self.config.certain or not self._upright(first, second, registration)
        ):
            return False
        self.map.graph.add_edge(first, second, relative, self.map.spread(covariance))
        return True

    def _upright(self, first: int, second: int, registration: Registration) -> bool:
        """Whether the second base stands as odometry says it does in height, roll and pitch."""
        a, b = self.keyframes[first], self.keyframes[second]
        found = a.T_odom_base @ a.T_base_camera @ registration.T_a_b @ se3.inverse(b.T_base_camera)
        tilt = float(found[:3, 2] @ b.T_odom_base[:3, 2])
        return bool(tilt > np.cos(0.15) and abs(found[2, 3] - b.T_odom_base[2, 3]) < 0.2)

    def _close_loops(self, index: int) -> bool:
        """Register a new key frame to earlier places that look alike; return whether an edge came of it."""
        allowed = np.arange(len(self.map.places)) < index - self.config.closure_gap
        if not self.config.closures or not allowed.any():
            return False
        rows, _ = self.map.places.candidates(self.keyframes[index].view.features, self.config.closures, allowed)
        closed = [(int(row), index) for row in rows if self._connect(int(row), index)]
        self.closures += closed
        return bool(closed)
