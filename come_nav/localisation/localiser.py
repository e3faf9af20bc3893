"""Where the robot is in its own memory: key frames, registrations between them, a pose graph, and images found again.

Use: ``observe`` every frame with its odometry. A frame is kept where the robot has moved or turned enough; it is then
registered to the key frames before it (guided by odometry, so that repeating patterns do not mislead) and to places
seen earlier that look alike; the pose graph takes both. ``poses_map_xyyaw`` are the corrected key frames, and
``T_map_odom`` is what odometry has drifted by: compose it with odometry, and move whatever is anchored to a key frame
with that key frame's correction. ``relocalise`` finds where an image was taken.

Cost on one core of a busy machine at 320 x 240: about 150 ms a key frame, all registrations and the graph included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_range, check_shape
from come_nav.core.errors import DataError
from come_nav.core.geometry import se2, se3
from come_nav.core.types import CameraIntrinsics, Frame, footprint_extrinsics
from come_nav.localisation.features import FeatureSettings
from come_nav.localisation.matching import MatchingSettings
from come_nav.localisation.place_recognition import PlaceIndex, PlaceSettings
from come_nav.localisation.pose_graph import GraphSolution, PoseGraph, PoseGraphSettings
from come_nav.localisation.registration import PosePrior, Registration, RegistrationSettings, register
from come_nav.localisation.verification import Evidence, verify
from come_nav.localisation.view import View, make_view


@dataclass(frozen=True)
class LocaliserSettings:
    """What is kept, what it is registered to, and what is believed.

    Attributes:
        spacing_m: a key frame is kept after this distance, m, > 0.
        spacing_rad: or after this turn, rad, > 0.
        predecessors: key frames before it that each new one is registered to, >= 0.
        guide_px: how far from odometry's prediction matches with those are sought, for an image 320 wide, > 0.
        closures: places that look alike, tried for each new key frame, >= 0.
        closure_gap: key frames between the two ends of a closure at least, >= 1.
        candidates: key frames that an image is registered to, at most, >= 1.
        certain: confidence above which a registration is believed, in [0, 1].
        odometry_share: standard deviation of odometry over distance and over turn, > 0.
        odometry_floor_m: and for each step, m, > 0.
        odometry_floor_rad: the same for the heading, rad, > 0.
        heading_rad_per_m: drift of the heading with distance, > 0.
        registered_floor_m: what calibration leaves of a registration's error, m, > 0.
        registered_floor_rad: the same, rad, > 0.
        optimise_every: key frames between two solutions without a closure, >= 1.
    """

    features: FeatureSettings = field(default_factory=FeatureSettings)
    matching: MatchingSettings = field(default_factory=MatchingSettings)
    registration: RegistrationSettings = field(default_factory=RegistrationSettings)
    places: PlaceSettings = field(default_factory=PlaceSettings)
    graph: PoseGraphSettings = field(default_factory=PoseGraphSettings)
    spacing_m: float = 0.25
    spacing_rad: float = 0.2
    predecessors: int = 3
    guide_px: float = 30.0
    closures: int = 3
    closure_gap: int = 8
    candidates: int = 8
    certain: float = 0.9
    odometry_share: float = 0.05
    odometry_floor_m: float = 0.005
    odometry_floor_rad: float = 0.005
    heading_rad_per_m: float = 0.02
    registered_floor_m: float = 0.01
    registered_floor_rad: float = 0.005
    optimise_every: int = 20

    def __post_init__(self) -> None:
        for name in (
            "spacing_m",
            "spacing_rad",
            "guide_px",
            "odometry_share",
            "odometry_floor_m",
            "odometry_floor_rad",
            "heading_rad_per_m",
            "registered_floor_m",
            "registered_floor_rad",
        ):
            check_range(f"localiser.{name}", getattr(self, name), 0.0, open_low=True)
        for name in ("predecessors", "closures"):
            check_range(f"localiser.{name}", getattr(self, name), 0)
        for name in ("closure_gap", "candidates", "optimise_every"):
            check_range(f"localiser.{name}", getattr(self, name), 1)
        check_range("localiser.certain", self.certain, 0.0, 1.0)


@dataclass(frozen=True)
class VisualKeyframe:
    """A kept frame.

    Attributes:
        stamp_s: when it was taken.
        view: its features, camera and points.
        T_odom_base: (4, 4) as odometry said.
        T_base_camera: (4, 4) extrinsics in base_link.
    """

    stamp_s: float
    view: View
    T_odom_base: NDArray[np.float64]
    T_base_camera: NDArray[np.float64]

    @property
    def pose_odom_xyyaw(self) -> NDArray[np.float64]:
        """Planar pose (3,) as odometry said."""
        return se3.xyyaw_from_transform(self.T_odom_base)

    @property
    def T_footprint_camera(self) -> NDArray[np.float64]:
        """Extrinsics (4, 4) in base_footprint: level, whatever the attitude of base_link was."""
        return footprint_extrinsics(self.T_odom_base, self.T_base_camera)


@dataclass(frozen=True)
class VisualMatch:
    """Where an image was taken.

    Attributes:
        pose_map_xyyaw: (3,) of the robot's base; the best guess, whether certain or not; None without any.
        T_map_camera: (4, 4) of the image's camera; None without a guess.
        covariance: (3, 3) of the planar pose; infinite without a guess.
        confidence: probability that the pose is right, in [0, 1].
        certain: whether it is above the operating point.
        keyframe: index of the key frame that it was registered to; -1 without a guess.
        registration: to that key frame (a the key frame, b the image); None without candidates.
        evidence: for it; None without candidates.
    """

    pose_map_xyyaw: NDArray[np.float64] | None
    T_map_camera: NDArray[np.float64] | None
    covariance: NDArray[np.float64]
    confidence: float
    certain: bool
    keyframe: int
    registration: Registration | None
    evidence: Evidence | None


NOWHERE = VisualMatch(None, None, np.full((3, 3), np.inf), 0.0, False, -1, None, None)


class VisualLocaliser:
    """Key frames, their graph, and relocalisation among them."""

    def __init__(self, config: LocaliserSettings | None = None, seed: int = 0) -> None:
        self.config = config or LocaliserSettings()
        self.graph = PoseGraph(self.config.graph)
        self.places = PlaceIndex(self.config.places, seed)
        self.keyframes: list[VisualKeyframe] = []
        self.closures: list[tuple[int, int]] = []
        self.revision = 0
        self._since_solution = 0

    def __len__(self) -> int:
        return len(self.keyframes)

    @property
    def nbytes(self) -> int:
        """Memory of features, points and descriptors in bytes."""
        return self.places.nbytes + sum(keyframe.view.nbytes for keyframe in self.keyframes)

    @property
    def poses_map_xyyaw(self) -> NDArray[np.float64]:
        """Corrected poses (N, 3) of the key frames; the first one stays where odometry had it."""
        return self.graph.poses_xyyaw

    @property
    def T_map_odom(self) -> NDArray[np.float64]:
        """Pose (4, 4) of odom in map, planar, at the newest key frame; the identity without one."""
        return se3.transform_from_xyyaw(self.correction_xyyaw(len(self) - 1) if len(self) else np.zeros(3))

    def correction_xyyaw(self, index: int) -> NDArray[np.float64]:
        """Return the pose (3,) of odom in map as key frame ``index`` sees it: what is anchored to it moves by this."""
        odometry = self.keyframes[index].pose_odom_xyyaw
        return se2.compose(self.graph.poses_xyyaw[index], se2.inverse(odometry))

    def T_map_base(self, index: int) -> NDArray[np.float64]:
        """Return the corrected pose (4, 4) of a key frame's base, with odometry's height, roll and pitch."""
        correction = se3.transform_from_xyyaw(self.correction_xyyaw(index))
        return correction @ self.keyframes[index].T_odom_base

    def observe(self, frame: Frame, T_odom_base: NDArray[np.float64]) -> int | None:
        """Keep a frame if the robot has moved enough since the last one; return its index, or None if it was not.

        Raises:
            DataError: for a frame without intrinsics or extrinsics, or a pose that is not finite.
        """
        if self.keyframes:
            moved = se2.relative(self.keyframes[-1].pose_odom_xyyaw, se3.xyyaw_from_transform(T_odom_base))
            if np.hypot(*moved[:2]) < self.config.spacing_m and abs(moved[2]) < self.config.spacing_rad:
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
        index = self._add_node(keyframe)
        for earlier in range(max(0, index - self.config.predecessors), index):
            self._connect(earlier, index, self._guide(earlier, index))
        closed = self._close_loops(index)
        self.places.add(view.features)
        if self.places.due():
            self.places.train([kept.view.features for kept in self.keyframes])
        self._since_solution += 1
        if closed or self._since_solution >= self.config.optimise_every:
            self.optimise()
        elif index:
            self.graph.optimise(free=min(index, 10))
        return index

    def optimise(self) -> GraphSolution:
        """Solve the whole graph."""
        self._since_solution = 0
        self.revision += 1
        return self.graph.optimise()

    def relocalise(
        self,
        rgb: NDArray[np.uint8],
        intrinsics: CameraIntrinsics | None = None,
        depth_m: NDArray[np.float32] | None = None,
        T_base_camera: NDArray[np.float64] | None = None,
    ) -> VisualMatch:
        """Return where an image was taken, or the best guess with its confidence.

        Args:
            rgb: (H, W, 3) uint8, of any size.
            intrinsics: of it; the newest key frame's, scaled, when None.
            depth_m: (H, W), where it was measured; helps to tell right from wrong.
            T_base_camera: extrinsics (4, 4) of the image's camera; the newest key frame's footprint extrinsics when
                None, so that the pose is that of a robot whose camera sees the image.
        """
        if not self.keyframes:
            return NOWHERE
        newest = self.keyframes[-1]
        camera = intrinsics
        if camera is None and newest.view.intrinsics is not None:
            camera = newest.view.intrinsics.scaled(rgb.shape[1], rgb.shape[0])
        view = make_view(rgb, camera, depth_m, self.config.features)
        rows, _ = self.places.candidates(view.features, self.config.candidates)
        extrinsics = newest.T_footprint_camera if T_base_camera is None else T_base_camera
        return self._best(view, rows.tolist(), extrinsics)

    def _best(self, view: View, rows: Sequence[int], T_base_camera: NDArray[np.float64]) -> VisualMatch:
        best = NOWHERE
        for row in rows:
            found = self._register(row, view)
            if found is None:
                continue
            registration, evidence = found
            if evidence.confidence > best.confidence or best.registration is None:
                best = self._match(row, registration, evidence, T_base_camera)
            if best.confidence > 0.5 * (1.0 + self.config.certain):
                break
        return best

    def _match(
        self, row: int, registration: Registration, evidence: Evidence, T_base_camera: NDArray[np.float64]
    ) -> VisualMatch:
        keyframe, confidence = self.keyframes[row], evidence.confidence
        relative, covariance = registration.planar(keyframe.T_footprint_camera, T_base_camera)
        pose = se2.compose(self.graph.poses_xyyaw[row], relative)
        T_map_camera = self.T_map_base(row) @ keyframe.T_base_camera @ registration.T_a_b
        turned = _turn(self.graph.poses_xyyaw[row][2])
        spread = turned @ self._spread(covariance) @ turned.T
        certain = confidence >= self.config.certain
        return VisualMatch(pose, T_map_camera, spread, confidence, certain, row, registration, evidence)

    def _register(self, row: int, view: View, prior: PosePrior | None = None) -> tuple[Registration, Evidence] | None:
        known = self.keyframes[row].view
        if known.points_camera_m is None and view.points_camera_m is None:
            return None
        registration = register(known, view, self.config.registration, self.config.matching, prior)
        return (registration, verify(known, view, registration)) if registration.ok else None

    def _add_node(self, keyframe: VisualKeyframe) -> int:
        """Add the pose that odometry leads to from the last corrected one, and the edge between them."""
        pose = keyframe.pose_odom_xyyaw
        if not self.keyframes:
            self.keyframes.append(keyframe)
            return self.graph.add_node(pose)
        config, last = self.config, self.keyframes[-1].pose_odom_xyyaw
        moved = se2.relative(last, pose)
        index = self.graph.add_node(se2.compose(self.graph.poses_xyyaw[-1], moved))
        distance, turn = float(np.hypot(*moved[:2])), float(abs(moved[2]))
        sigma_m = config.odometry_floor_m + config.odometry_share * distance
        sigma_rad = config.odometry_floor_rad + config.odometry_share * turn + config.heading_rad_per_m * distance
        self.graph.add_edge(index - 1, index, moved, np.diag([sigma_m, sigma_m, sigma_rad]) ** 2, robust=False)
        self.keyframes.append(keyframe)
        return index

    def _guide(self, first: int, second: int) -> PosePrior:
        """Return what odometry says of the second camera in the first one's optical frame."""
        a, b = self.keyframes[first], self.keyframes[second]
        T_a_b = se3.relative(a.T_odom_base @ a.T_base_camera, b.T_odom_base @ b.T_base_camera)
        return PosePrior(T_a_b, self.config.guide_px * b.view.features.width / 320.0)

    def _connect(self, first: int, second: int, prior: PosePrior | None = None) -> bool:
        """Register two key frames and add the edge; return whether there is one."""
        b = self.keyframes[second]
        found = self._register(first, b.view, prior)
        if found is None:
            return False
        registration, evidence = found
        relative, covariance = registration.planar(self.keyframes[first].T_footprint_camera, b.T_footprint_camera)
        if prior is None and (
            evidence.confidence < self.config.certain or not self._upright(first, second, registration)
        ):
            return False
        self.graph.add_edge(first, second, relative, self._spread(covariance))
        return True

    def _upright(self, first: int, second: int, registration: Registration) -> bool:
        """Whether the second base stands as odometry says it does in height, roll and pitch."""
        a, b = self.keyframes[first], self.keyframes[second]
        found = a.T_odom_base @ a.T_base_camera @ registration.T_a_b @ se3.inverse(b.T_base_camera)
        tilt = float(found[:3, 2] @ b.T_odom_base[:3, 2])
        return bool(tilt > np.cos(0.15) and abs(found[2, 3] - b.T_odom_base[2, 3]) < 0.2)

    def _spread(self, covariance: NDArray[np.float64]) -> NDArray[np.float64]:
        floors = (self.config.registered_floor_m, self.config.registered_floor_m, self.config.registered_floor_rad)
        spread: NDArray[np.float64] = covariance + np.diag(floors) ** 2
        return spread

    def _close_loops(self, index: int) -> bool:
        """Register a new key frame to earlier places that look alike; return whether an edge came of it."""
        allowed = np.arange(len(self.places)) < index - self.config.closure_gap
        if not self.config.closures or not allowed.any():
            return False
        rows, _ = self.places.candidates(self.keyframes[index].view.features, self.config.closures, allowed)
        closed = [(int(row), index) for row in rows if self._connect(int(row), index)]
        self.closures += closed
        return bool(closed)


def _turn(yaw_rad: float) -> NDArray[np.float64]:
    cosine, sine = np.cos(yaw_rad), np.sin(yaw_rad)
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
