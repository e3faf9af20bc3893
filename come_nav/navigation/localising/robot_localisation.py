"""Where a robot's images were taken, and what its odometry has drifted by: key frames with features and their graph.

Memory lives in the map frame, whose poses the pose graph corrects; plans and goals live in odom, which is smooth.
``T_map_odom`` leads from one to the other at the present moment (REP-105).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError
from come_nav.core.geometry import se2, se3
from come_nav.core.types import Frame, ImageCamera, camera_of_image
from come_nav.localisation.graph.drift_evidence import odometry_misfit
from come_nav.localisation.image_search import VisualMatch
from come_nav.localisation.keyframe_map import VisualKeyframe
from come_nav.localisation.localiser import VisualLocaliser
from come_nav.localisation.saved.localiser_state import array_of, localiser_state, restored_localiser
from come_nav.memory.short_term import Remembered
from come_nav.navigation.localising.anchors import Anchors, SettledKeyframes
from come_nav.navigation.localising.resuming import Resumption
from come_nav.navigation.localising.settings import LocalisationSettings
from come_nav.navigation.localising.worker import BoundedWorker

SavedKeyframes = tuple[list[VisualKeyframe], dict[str, NDArray[Any]]]
WAITING = 8  # key frames: 2 m of way or 1.6 rad of turn


@dataclass(frozen=True)
class Sighting:
    """Where an image was taken.

    Attributes:
        pose_odom_xyyaw: (3,) of a robot whose camera sees the image, in odom as it is now.
        covariance: (3, 3) of it, m^2 and rad^2, in odom's axes.
        confidence: probability that it is right, in [0, 1].
        certain: whether that is above the operating point.
        found_by: what the image was registered to.
        keyframe: index of that key frame; -1 for one of the newest frames.
    """

    pose_odom_xyyaw: NDArray[np.float64]
    covariance: NDArray[np.float64]
    confidence: float
    certain: bool
    found_by: Literal["key frame", "newest frames"]
    keyframe: int = -1


class RobotLocalisation:
    """Key frames with features of one robot. One thread may observe while another looks for images.

    Attributes:
        settings: what is kept and believed. Set anew, ``visual`` counts from the next reset on, all else at once.
        on_correction: each is told the corrections (A, 3) of all anchors whenever there is a new one or they change,
            by the thread that localises; and where another localiser says that odom lies (3,), None without one. Both
            are of the odom of the first key frame, which odometry that began anew is not (``rebase``).
        resumption: of a robot with key frames of before a restart, until it is known where it is among them; else None.
        resumed: what came of that.
        found_again: whether those were found to be of an odom before, so that odom lies elsewhere in map since.
        revision: grows with every key frame and whenever the present odom lies elsewhere than before.
        worker: what localises in the background; None where ``observe`` does.
        drifts: whether odometry is held to drift, which once found stays until the next reset.
        misfit: see ``LocalisationSettings.drift_misfit``; as it was when odometry was first held to drift.

    Raises:
        CheckpointError: for the file of a network that is missing or something else.
        MissingDependencyError: where the library of a network is absent.
    """

    def __init__(self, settings: LocalisationSettings, seed: int = 0, *, background: bool = False) -> None:
        if settings.use:
            settings.visual.load_networks()
        self.settings, self._seed = settings, seed
        self._queue = threading.Lock()  # whoever looks for an image is next, however many key frames are waiting
        self._lock = threading.RLock()  # key frames and their graph, for as long as a registration takes
        self._telling = threading.RLock()  # followers, for as long as they move what they hold
        self._anchors_lock = threading.RLock()  # anchors, for a moment; each is taken after those above it
        self.on_correction: list[Callable[[NDArray[np.float64], NDArray[np.float64] | None], object]] = []
        self.worker = BoundedWorker("localisation", WAITING) if background else None
        self.revision = 0
        self.reset()

    def __len__(self) -> int:
        return len(self.localiser)

    @property
    def T_map_odom_xyyaw(self) -> NDArray[np.float64]:
        """Planar pose (3,) of odom in map as the newest key frame has it; zero where drift is not corrected."""
        with self._anchors_lock:
            return self._anchors.T_map_odom_xyyaw

    @property
    def outside_xyyaw(self) -> NDArray[np.float64] | None:
        """Where odom lies in another localiser's map (3,) by what it told last; None since the last reset."""
        with self._anchors_lock:
            outside = self._outside_xyyaw
            return None if outside is None else self._anchors.of_odom(outside)

    @property
    def corrections_xyyaw(self) -> NDArray[np.float64]:
        """Where odom lies in map (A, 3) as each anchor has it; what was seen at an anchor moves by its change."""
        with self._anchors_lock:
            return self._anchors.corrections_xyyaw.copy()

    def reset(self, saved: SavedKeyframes | None = None, carried: bool = False) -> None:
        """Forget all key frames, or take those of :meth:`state` instead; map and odom are one again.

        Of a robot that may have been ``carried`` odometry says nothing of where it is among them.

        Raises:
            ShapeError: for arrays that do not agree, or features of another kind; what is known stays.
        """
        visual, anchors, drifts = self.settings.visual, Anchors(), False
        if saved is None:
            localiser = VisualLocaliser(visual, self._seed)
        else:
            keyframes, state = saved
            anchors, drifts = Anchors(SettledKeyframes.of_state(state)), bool(array_of(state, "drifts"))
            localiser = restored_localiser(state, keyframes, visual, self._seed)
        with self._lock, self._telling, self._anchors_lock:
            self.localiser, self._anchors, self.drifts = localiser, anchors, drifts
            self._outside_xyyaw: NDArray[np.float64] | None = None
            self.resumption = None if saved is None else Resumption(carried)
            self.resumed, self.found_again = "", False
            self.misfit, self.revision = 0.0, self.revision + 1

    def state(self) -> SavedKeyframes | None:
        """Return the key frames, and what else is known of them as plain arrays, for :meth:`reset`; None without any.

        Waits for a registration under way.
        """
        with self._lock, self._anchors_lock:
            if not len(self.localiser):
                return None
            anchors, keyframes = self._anchors, list(self.localiser.keyframes)
            T_map_odom, now = anchors.T_map_odom_xyyaw, anchors.before(anchors.T_first_odom_xyyaw)
            corrections = anchors.corrections_of_keyframes(len(keyframes))
            return keyframes, {
                **localiser_state(self.localiser, now),
                "corrections_xyyaw": se2.compose(se2.relative(T_map_odom[None], corrections), now[None]),
                "T_map_odom_xyyaw": T_map_odom,
                "drifts": np.array(self.drifts),
            }

    def rebase(self, T_before_after_xyyaw: NDArray[np.float64]) -> None:
        """Take it that odometry began anew: (3,) is where the new odom lies in the one before. Key frames stay."""
        with self._anchors_lock:
            self._anchors.T_first_odom_xyyaw = se2.compose(self._anchors.T_first_odom_xyyaw, T_before_after_xyyaw)
            self.revision += 1

    def observe(self, seen: Remembered) -> bool:
        """Keep a frame as a key frame if the robot has moved enough since the last; return whether it was kept.

        In the background it is localised later; what had to be refused because too much is waiting, never.
        """
        visual, frame = self.localiser.config, seen.frame
        with self._anchors_lock:
            pose = se2.compose_exactly(self._anchors.T_first_odom_xyyaw, seen.pose_odom_xyyaw)
            if not self._anchors.due(pose, visual.spacing_m, visual.spacing_rad):
                return False
            anchors, anchor = self._anchors, self._anchors.add(pose)
        if not self.settings.takes(frame.rgb) or frame.intrinsics is None or frame.T_base_camera is None:
            self.resumption = None  # with such images it never knows
            self._tell()
            return False
        if self.worker is None:
            self._localise(frame, pose, anchors, anchor)
            return True
        return self.worker.offer(lambda: self._localise(frame, pose, anchors, anchor))

    def correct(self, T_map_odom_xyyaw: NDArray[np.float64]) -> None:
        """Take where odom lies in map (3,) from another localiser; from now on it alone corrects what is remembered.

        Raises:
            DataError: for a pose that is not finite.
        """
        if not np.isfinite(T_map_odom_xyyaw).all():
            raise DataError(f"T_map_odom must be finite, got {T_map_odom_xyyaw}")
        with self._anchors_lock:
            told = np.array(T_map_odom_xyyaw, np.float64)
            self._outside_xyyaw = outside = se2.compose(told, se2.inverse(self._anchors.T_first_odom_xyyaw))
            self._anchors.jump(outside)
            self.revision += 1
        self._tell()

    def close(self) -> None:
        """Localise what is waiting, and end the background work; it begins anew with the next frame."""
        if self.worker is not None:
            self.worker.stop()

    def find(self, rgb: NDArray[np.uint8], camera: ImageCamera = None) -> Sighting | None:
        """Return where an image (H, W, 3) was taken among the key frames; None without any guess.

        ``camera`` is the image's; the focal length of an unknown one is solved from the matches.
        """
        if not self.settings.takes(rgb):
            return None
        with self._queue, self._lock:
            if not len(self.localiser):
                return None
            taken_by = camera_of_image(camera, self.localiser.keyframes[-1].view.intrinsics, rgb)
            match = self.localiser.relocalise(rgb, taken_by, unknown_camera=taken_by is None)
            with self._anchors_lock:
                return _sighting(match, self.localiser, self._anchors)

    def _localise(self, frame: Frame, pose_first_xyyaw: NDArray[np.float64], anchors: Anchors, anchor: int) -> None:
        """Register a key frame, and take over what the graph says."""
        with self._queue:  # a lock is not fair: this thread would take it again and again while others wait
            pass
        with self._lock:
            if anchors is not self._anchors:
                return  # of before a reset
            if not self._located(frame, pose_first_xyyaw, anchors):
                self._tell()
                return
            graph, pose = self.localiser.map.graph, anchors.before(pose_first_xyyaw)
            keyframe = self.localiser.add_keyframe(frame, se3.transform_from_xyyaw(pose))
            with self._anchors_lock:
                anchors.link(anchor, keyframe)
                self.revision += 1
                odom = anchors.keyframe_poses_odom_xyyaw
            poses, own = graph.poses_xyyaw, self.settings
            if not self.drifts:
                self.misfit = odometry_misfit(graph.edges, odom, poses, self.localiser.config.graph.inlier_distance)
                self.drifts = self.misfit > own.drift_misfit
            with self._anchors_lock:
                if self.drifts and own.correct_drift and self._outside_xyyaw is None:
                    anchors.follow(se2.compose(poses, se2.inverse(odom)), (own.move_m, own.move_rad))
        self._tell()

    def _located(self, frame: Frame, pose_first_xyyaw: NDArray[np.float64], anchors: Anchors) -> bool:
        """Whether it is known where the robot is among the key frames of before a restart, if there are any."""
        if self.resumption is None:
            return True
        T = self.resumption.T_before_now_xyyaw(self.localiser, frame, pose_first_xyyaw)
        if T is None and self._outside_xyyaw is None:
            return False
        self.resumed, self.resumption = self.resumption.text, None
        if T is not None and T.any() and self._outside_xyyaw is None:
            with self._anchors_lock:
                anchors.found_again(T)
                self.found_again, self.revision = True, self.revision + 1
        return True

    def _tell(self) -> None:
        with self._telling:
            with self._anchors_lock:
                corrections, outside = self._anchors.corrections_xyyaw.copy(), self._outside_xyyaw
            for follow in self.on_correction:
                follow(corrections, outside)


def _sighting(match: VisualMatch, localiser: VisualLocaliser, anchors: Anchors) -> Sighting | None:
    """Return where a match among key frames lies in odom as it is now; None without any guess."""
    if match.pose_map_xyyaw is None:
        return None
    # The map of the graph, moved with the key frame to the map that memory is in, and from there to odom as it is.
    correction = anchors.corrections_of_keyframes(len(localiser))[match.keyframe]
    T_memory_graph = se2.compose(correction, se2.inverse(localiser.map.correction_xyyaw(match.keyframe)))
    T_odom_map = se2.compose(se2.inverse(anchors.T_map_odom_xyyaw), T_memory_graph)
    return Sighting(
        se2.compose(T_odom_map, match.pose_map_xyyaw),
        se3.turned_covariance(match.covariance, T_odom_map),
        match.confidence,
        match.certain,
        "key frame",
        match.keyframe,
    )
