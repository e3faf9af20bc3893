"""Key frames with their graph and their index of places: where each one is, and how an image registers to one.

The graph moves key frames in the plane; height, roll and pitch stay odometry's.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_range
from come_nav.core.geometry import se2, se3
from come_nav.core.types import footprint_extrinsics
from come_nav.localisation.features import FeatureSettings, load_feature_network
from come_nav.localisation.learned.light_glue import light_glue
from come_nav.localisation.matching import MatchingSettings, check_matcher
from come_nav.localisation.place_recognition import PlaceIndex, PlaceSettings
from come_nav.localisation.pose_graph import PoseGraph, PoseGraphSettings
from come_nav.localisation.registration import PosePrior, Registration, RegistrationSettings, register
from come_nav.localisation.verification import Evidence, verify
from come_nav.localisation.view import View

NEWEST = 64  # key frames that keep their features in any case: registration and triangulation look at them
SPARE = 20  # one in so many goes at once
METRES_PER_RAD = 1.0  # what a turn counts where nearest neighbours are sought: a view is 1 to 2 rad wide


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
        candidates: key frames that an image is registered to, at most, >= 1; it ends with the first that is sure.
        certain: confidence above which a registration is believed, in [0, 1].
        image_certain: the same for an image whose colours agree with a key frame that has depth, in [0, 1].
        odometry_share: standard deviation of odometry over distance and over turn, > 0.
        odometry_floor_m: and for each step, m, > 0.
        odometry_floor_rad: the same for the heading, rad, > 0.
        heading_rad_per_m: drift of the heading with distance, > 0.
        registered_floor_m: what calibration leaves of a registration's error, m, > 0.
        registered_floor_rad: the same, rad, > 0.
        optimise_every: key frames between two solutions without a closure, >= 1.
        max_views: key frames whose features are kept, >= 128; 150 kB each at 320 x 240. Beyond that those go whose
            neighbours are nearest; where they were stays in the graph.
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
    candidates: int = 24
    certain: float = 0.9
    image_certain: float = 0.975
    odometry_share: float = 0.05
    odometry_floor_m: float = 0.005
    odometry_floor_rad: float = 0.005
    heading_rad_per_m: float = 0.02
    registered_floor_m: float = 0.01
    registered_floor_rad: float = 0.005
    optimise_every: int = 20
    max_views: int = 1500

    def __post_init__(self) -> None:
        check_matcher(self.matching, self.features.kind)
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
        check_range("localiser.max_views", self.max_views, 2 * NEWEST)
        for name in ("certain", "image_certain"):
            check_range(f"localiser.{name}", getattr(self, name), 0.0, 1.0)

    def load_networks(self) -> None:
        """Load the networks that find and match features, where some do, so that what is wrong is said at the start.

        Raises:
            CheckpointError: for a file that is missing or something else.
            MissingDependencyError: where a library is absent.
        """
        load_feature_network(self.features)
        if self.matching.matcher == "lightglue":
            light_glue(self.matching.file)


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


class KeyframeMap:
    """Key frames, the pose graph over them, and the index of places."""

    def __init__(self, config: LocaliserSettings | None = None, seed: int = 0) -> None:
        self.config = config or LocaliserSettings()
        self.graph = PoseGraph(self.config.graph)
        self.places = PlaceIndex(self.config.places, seed)
        self.keyframes: list[VisualKeyframe] = []

    def __len__(self) -> int:
        return len(self.keyframes)

    @property
    def nbytes(self) -> int:
        """Memory of features, points and descriptors in bytes."""
        return self.places.nbytes + sum(keyframe.view.nbytes for keyframe in self.keyframes)

    @property
    def T_map_odom(self) -> NDArray[np.float64]:
        """Pose (4, 4) of odom in map, planar, at the newest key frame; the identity without one."""
        return se3.transform_from_xyyaw(self.correction_xyyaw(len(self) - 1) if len(self) else np.zeros(3))

    def pose_map_xyyaw(self, index: int) -> NDArray[np.float64]:
        """Return the corrected planar pose (3,) of a key frame."""
        return self.graph.pose_xyyaw(index)

    def correction_xyyaw(self, index: int) -> NDArray[np.float64]:
        """Return the pose (3,) of odom in map as key frame ``index`` sees it: what is anchored to it moves by this."""
        odometry = self.keyframes[index].pose_odom_xyyaw
        return se2.compose(self.pose_map_xyyaw(index), se2.inverse(odometry))

    def T_map_base(self, index: int) -> NDArray[np.float64]:
        """Return the corrected pose (4, 4) of a key frame's base, with odometry's height, roll and pitch."""
        correction = se3.transform_from_xyyaw(self.correction_xyyaw(index))
        return correction @ self.keyframes[index].T_odom_base

    def add(self, keyframe: VisualKeyframe) -> int:
        """Add a key frame where odometry leads to from the last corrected one, and the edge between them."""
        pose = keyframe.pose_odom_xyyaw
        if not self.keyframes:
            self.keyframes.append(keyframe)
            return self.graph.add_node(pose)
        config, last = self.config, self.keyframes[-1].pose_odom_xyyaw
        moved = se2.relative(last, pose)
        index = self.graph.add_node(se2.compose(self.pose_map_xyyaw(len(self) - 1), moved))
        distance, turn = float(np.hypot(*moved[:2])), float(abs(moved[2]))
        sigma_m = config.odometry_floor_m + config.odometry_share * distance
        sigma_rad = config.odometry_floor_rad + config.odometry_share * turn + config.heading_rad_per_m * distance
        self.graph.add_edge(index - 1, index, moved, np.diag([sigma_m, sigma_m, sigma_rad]) ** 2, robust=False)
        self.keyframes.append(keyframe)
        return index

    def index_newest(self) -> None:
        """Enter the newest key frame into the index of places; train its vocabulary anew where that is due."""
        self.places.add(self.keyframes[-1].view.features)
        if self.places.due():
            self.places.train([kept.view.features for kept in self.keyframes])

    def make_room(self) -> None:
        """Let features go beyond ``max_views``: of each pair of nearest key frames the older one's."""
        held = np.flatnonzero([len(kept.view.features) > 0 for kept in self.keyframes])
        if len(held) <= self.config.max_views:
            return
        spare = held[:-NEWEST]
        apart = _apart(self.graph.poses_xyyaw[spare])
        for _ in range(len(held) - self.config.max_views + self.config.max_views // SPARE):
            first, second = np.unravel_index(int(np.argmin(apart)), apart.shape)
            oldest = min(first, second)
            apart[oldest], apart[:, oldest] = np.inf, np.inf
            self.forget_view(int(spare[oldest]))

    def forget_view(self, row: int) -> None:
        """Let the features of a key frame go; where it was stays in the graph."""
        kept = self.keyframes[row]
        own = kept.view.features
        none = replace(
            own, **{name: getattr(own, name)[:0].copy() for name in ("keypoints_px", "descriptors", "sizes_px")}
        )
        self.keyframes[row] = replace(kept, view=View(none, kept.view.intrinsics))
        self.places.forget(row)

    def guide(self, first: int, second: int) -> PosePrior:
        """Return what odometry says of the second camera in the first one's optical frame."""
        a, b = self.keyframes[first], self.keyframes[second]
        T_a_b = se3.relative(a.T_odom_base @ a.T_base_camera, b.T_odom_base @ b.T_base_camera)
        return PosePrior(T_a_b, self.config.guide_px * b.view.features.width / 320.0)

    def register(self, row: int, view: View, prior: PosePrior | None = None) -> tuple[Registration, Evidence] | None:
        """Return the registration of an image to a key frame and what speaks for it; None where there is none."""
        known = self.keyframes[row].view
        if known.points_camera_m is None and view.points_camera_m is None:
            return None
        registration = register(known, view, self.config.registration, self.config.matching, prior)
        return (registration, verify(known, view, registration)) if registration.ok else None

    def spread(self, covariance: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the covariance (3, 3) of a registered planar pose with what calibration leaves of its error."""
        floors = (self.config.registered_floor_m, self.config.registered_floor_m, self.config.registered_floor_rad)
        return np.asarray(covariance + np.diag(floors) ** 2)


def _apart(poses_xyyaw: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return how far poses (N, 3) are apart (N, N), a turn counted as a way; infinite from each to itself."""
    x, y, yaw = poses_xyyaw.astype(np.float32).T
    turns = np.abs(se2.wrap_angle(yaw[:, None] - yaw[None]))
    apart = np.hypot(x[:, None] - x[None], y[:, None] - y[None]) + METRES_PER_RAD * turns
    np.fill_diagonal(apart, np.inf)
    return np.asarray(apart, np.float32)
