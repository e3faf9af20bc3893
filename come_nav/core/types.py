"""The nouns of come_nav: what a sensor saw, where the robot was, what it should reach and what it will do."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_shape
from come_nav.core.context import Context, ContextViews, OlderFrames, PointSet, ViewSource
from come_nav.core.errors import DataError, ShapeError
from come_nav.core.geometry import se2, se3

if TYPE_CHECKING:
    import torch

# how a robot can move: forward and turning; sideways too; forward along curves that are not too tight
Kinematics = Literal["differential", "holonomic", "car"]

__all__ = [
    "CameraIntrinsics",
    "Context",
    "ContextViews",
    "Frame",
    "Goal",
    "ImageCamera",
    "Imagination",
    "IterationTrace",
    "Kinematics",
    "Odometry",
    "OlderFrames",
    "Plan",
    "PlanStatus",
    "PlanTrace",
    "PointSet",
    "Proposals",
    "Trajectory",
    "ViewSource",
    "camera_of_image",
    "footprint_extrinsics",
]


SAME_SHAPE = 0.02  # ratio of sides by which images of one view may differ, since pixels are whole


@dataclass(frozen=True)
class CameraIntrinsics:
    """Pinhole camera without distortion. ``u = fx x/z + cx``, ``v = fy y/z + cy`` in the optical frame.

    Pixel centres lie at integer coordinates plus one half: the leftmost edge of the image is u = 0.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

    @classmethod
    def from_field_of_view(cls, width: int, height: int, horizontal_fov_rad: float) -> CameraIntrinsics:
        """Return a camera with square pixels and the principal point in the centre."""
        focal = 0.5 * width / float(np.tan(0.5 * horizontal_fov_rad))
        return cls(width, height, focal, focal, 0.5 * width, 0.5 * height)

    @property
    def horizontal_fov_rad(self) -> float:
        """Width of view, rad, of a camera whose principal point is in the centre."""
        return 2.0 * float(np.arctan(0.5 * self.width / self.fx))

    def scaled(self, width: int, height: int) -> CameraIntrinsics:
        """Return the intrinsics of the same view resized to ``width`` x ``height``."""
        sx, sy = width / self.width, height / self.height
        return CameraIntrinsics(width, height, self.fx * sx, self.fy * sy, self.cx * sx, self.cy * sy)

    def resized_to(self, image: NDArray[Any]) -> CameraIntrinsics | None:
        """Return the intrinsics for an image (H, W, ...) of the same view; None where it has another shape."""
        height, width = image.shape[:2]
        same = abs(self.width * height / (self.height * width) - 1.0) <= SAME_SHAPE
        return self.scaled(width, height) if same else None

    def cropped(self, left: int, top: int, width: int, height: int) -> CameraIntrinsics:
        """Return the intrinsics of the window that starts at pixel (left, top)."""
        return CameraIntrinsics(width, height, self.fx, self.fy, self.cx - left, self.cy - top)

    def matrix(self) -> NDArray[np.float64]:
        """Return K (3, 3)."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])


# Who took an image: a known camera; one that is "unknown", whose focal length is solved from matches; None = the
# robot's own where the image has its shape, else unknown.
ImageCamera: TypeAlias = CameraIntrinsics | Literal["unknown"] | None


def camera_of_image(
    camera: ImageCamera, own: CameraIntrinsics | None, image: NDArray[np.uint8]
) -> CameraIntrinsics | None:
    """Return the camera of an image (H, W, 3), where ``own`` is the robot's; None = unknown."""
    if camera is None:
        return None if own is None else own.resized_to(image)
    return camera if isinstance(camera, CameraIntrinsics) else None


def footprint_extrinsics(T_odom_base: NDArray[np.float64], T_base_camera: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the camera's pose (..., 4, 4) in base_footprint, the planar pose (x, y, yaw at height 0) under base_link.

    ``T_odom_base`` (..., 4, 4) may be many poses; ``T_base_camera`` is (4, 4).
    """
    T_odom_footprint = se3.transform_from_xyyaw(se3.xyyaw_from_transform(T_odom_base))
    return se3.relative(T_odom_footprint, T_odom_base @ T_base_camera)


@dataclass(frozen=True)
class Frame:
    """One camera reading.

    Attributes:
        stamp_s: acquisition time, seconds, from the message header.
        rgb: (H, W, 3) uint8.
        depth_m: (H, W) float32 metres along the optical z axis; NaN or 0 = unknown; None without a depth sensor.
        intrinsics: of ``rgb`` (and of ``depth_m``, which is registered to it); None when unknown.
        T_base_camera: (4, 4) pose of the optical frame in base_link; None when unknown.
        frame_id: name of the optical frame.
        moving: (H, W) pixels of what moves (people, vehicles), which is seen and not remembered in clouds; None where
            nobody tells.
    """

    stamp_s: float
    rgb: NDArray[np.uint8]
    depth_m: NDArray[np.float32] | None = None
    intrinsics: CameraIntrinsics | None = None
    T_base_camera: NDArray[np.float64] | None = None
    frame_id: str = "camera_color_optical_frame"
    moving: NDArray[np.bool_] | None = None

    def over_footprint(self, T_odom_base: NDArray[np.float64]) -> Frame:
        """Return the frame with its camera mounted on base_footprint, the planar pose under base_link (REP-120).

        Where a robot pitches, rolls or is held in a hand, planar poses and fixed extrinsics put its camera wrong.
        """
        if self.T_base_camera is None:
            return self
        return replace(self, T_base_camera=footprint_extrinsics(T_odom_base, self.T_base_camera))

    def __post_init__(self) -> None:
        check_shape("Frame.rgb", self.rgb, "H W 3")
        if self.rgb.dtype != np.uint8:
            raise ShapeError(f"Frame.rgb must be uint8, got {self.rgb.dtype}")
        if self.depth_m is not None and self.depth_m.shape != self.rgb.shape[:2]:
            raise ShapeError(f"Frame.depth_m must be registered to rgb {self.rgb.shape[:2]}, got {self.depth_m.shape}")
        if self.moving is not None and self.moving.shape != self.rgb.shape[:2]:
            raise ShapeError(f"Frame.moving must be of rgb's size {self.rgb.shape[:2]}, got {self.moving.shape}")


@dataclass(frozen=True)
class Odometry:
    """Pose of base_link in the odom frame at ``stamp_s``, and its planar twist in base_link if it was measured.

    Attributes:
        stamp_s: time.
        T_odom_base: (4, 4).
        v_mps: forward speed.
        w_radps: yaw rate.
        vy_mps: speed to the left.
    """

    stamp_s: float
    T_odom_base: NDArray[np.float64]
    v_mps: float | None = None
    w_radps: float | None = None
    vy_mps: float | None = None

    @property
    def pose_xyyaw(self) -> NDArray[np.float64]:
        """Planar pose (3,) in the odom frame."""
        return se3.xyyaw_from_transform(self.T_odom_base)


@dataclass(frozen=True)
class Trajectory:
    """Timed poses of one body.

    Attributes:
        stamps_s: (N,) float64, strictly increasing.
        T_world_body: (N, 4, 4) float64 rigid transforms.
        frame_id: name of the world frame.
    """

    stamps_s: NDArray[np.float64]
    T_world_body: NDArray[np.float64]
    frame_id: str = "odom"

    def __post_init__(self) -> None:
        check_shape("Trajectory.T_world_body", self.T_world_body, "N 4 4")
        check_shape("Trajectory.stamps_s", self.stamps_s, "N")
        if len(self.stamps_s) != len(self.T_world_body):
            raise ShapeError(f"Trajectory has {len(self.stamps_s)} stamps but {len(self.T_world_body)} poses")
        if not (np.isfinite(self.stamps_s).all() and np.isfinite(self.T_world_body).all()):
            raise DataError("Trajectory holds NaN or infinite values; remove those poses first")
        steps = np.diff(self.stamps_s)
        if (steps <= 0).any():
            first = int(np.argmax(steps <= 0))
            raise DataError(
                f"Trajectory stamps must increase strictly; pose {first + 1} has {self.stamps_s[first + 1]:.6f} s "
                f"after {self.stamps_s[first]:.6f} s"
            )

    @classmethod
    def from_xyyaw(cls, stamps_s: NDArray[Any], poses_xyyaw: NDArray[Any], frame_id: str = "odom") -> Trajectory:
        """Build from planar poses (N, 3)."""
        return cls(np.asarray(stamps_s, float), se3.transform_from_xyyaw(np.asarray(poses_xyyaw, float)), frame_id)

    def __len__(self) -> int:
        return len(self.stamps_s)

    @property
    def positions_xyz(self) -> NDArray[np.float64]:
        """Positions (N, 3) in metres."""
        return self.T_world_body[:, :3, 3]

    @property
    def poses_xyyaw(self) -> NDArray[np.float64]:
        """Planar poses (N, 3)."""
        return se3.xyyaw_from_transform(self.T_world_body)

    @property
    def path_length_m(self) -> float:
        """Sum of the distances between consecutive positions."""
        return float(np.linalg.norm(np.diff(self.positions_xyz, axis=0), axis=1).sum())


@dataclass(frozen=True)
class Goal:
    """What to reach: an image, a planar pose in the odom frame, or both.

    Attributes:
        image_rgb: (H, W, 3) uint8.
        pose_odom_xyyaw: (3,).
        camera: that took the image, see :data:`ImageCamera`; a known one is for the image's size.
    """

    image_rgb: NDArray[np.uint8] | None = None
    pose_odom_xyyaw: NDArray[np.float64] | None = None
    camera: ImageCamera = None

    def __post_init__(self) -> None:
        if self.image_rgb is None and self.pose_odom_xyyaw is None:
            raise DataError("a Goal needs an image or a pose")
        if self.image_rgb is not None:
            height, width = (check_shape("Goal.image_rgb", self.image_rgb, "H W 3")[side] for side in "HW")
            if isinstance(self.camera, CameraIntrinsics) and (self.camera.width, self.camera.height) != (width, height):
                raise DataError(
                    f"Goal.camera is of images of {self.camera.width}x{self.camera.height}, the goal's image has "
                    f"{width}x{height}; scale the camera to it"
                )
        if self.pose_odom_xyyaw is not None:
            check_shape("Goal.pose_odom_xyyaw", self.pose_odom_xyyaw, "3")
            if not np.isfinite(self.pose_odom_xyyaw).all():
                raise DataError("Goal.pose_odom_xyyaw must be finite")


class PlanStatus(str, Enum):
    """Why a plan may or may not be driven. A robot never moves on a plan that is not OK."""

    OK = "OK"
    NO_CONTEXT = "NO_CONTEXT"
    STALE_SENSOR = "STALE_SENSOR"
    GOAL_MISSING = "GOAL_MISSING"
    NON_FINITE_COST = "NON_FINITE_COST"
    ALL_IN_COLLISION = "ALL_IN_COLLISION"
    TIMED_OUT = "TIMED_OUT"


@dataclass(frozen=True)
class Imagination:
    """What a set of S candidates would lead to, imagined at their last pose.

    Attributes:
        poses_xyyaw: (S, T, 3) candidate poses in the start frame, at the end of each step.
        latents: (S, C, h, w) imagined latents at the last pose, or None.
        images: (S, 3, H, W) imagined images in [-1, 1] at the last pose, or None.
        spread: (S,) variance of the latents over several noises, their mean; None where drawn once.
    """

    poses_xyyaw: torch.Tensor
    latents: torch.Tensor | None = None
    images: torch.Tensor | None = None
    spread: torch.Tensor | None = None


@dataclass(frozen=True)
class Proposals:
    """Paths that a learned planner proposes.

    Attributes:
        poses_xyyaw: (S, T, 3) at the end of each step, in the base of the newest image.
        dt_s: time of a step.
        distance_frames: how far it takes the goal to be, in protocol frames; None without a goal.
    """

    poses_xyyaw: NDArray[np.float64]
    dt_s: float
    distance_frames: float | None = None


@dataclass(frozen=True)
class IterationTrace:
    """One CEM iteration: what was tried and what it cost.

    Attributes:
        parameters: (S, P) samples of the parameterisation.
        poses_xyyaw: (S, T, 3) candidate poses in the start frame.
        costs: (S,) total costs.
        costs_by_objective: objective name -> (S,) weighted costs.
        mean, std: (P,) of the distribution that was sampled.
        elite: (E,) indices of the elites.
    """

    parameters: torch.Tensor
    poses_xyyaw: torch.Tensor
    costs: torch.Tensor
    costs_by_objective: dict[str, torch.Tensor]
    mean: torch.Tensor
    std: torch.Tensor
    elite: torch.Tensor


@dataclass
class PlanTrace:
    """Everything that one plan considered, for RViz, plots and tests."""

    iterations: list[IterationTrace] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """A path to drive, or the reason why there is none.

    Attributes:
        status: only OK may be driven.
        stamp_s: time of the observation that the plan starts from.
        dt_s: time between poses.
        poses_xyyaw: (T, 3) poses in the start frame (base_link at ``stamp_s``); empty (0, 3) when not OK.
        start_odom_xyyaw: (3,) pose of the start frame in odom.
        cost: total cost of the chosen path; NaN when not OK.
        message: one line for people; warnings such as a missing expert are appended here.
        trace: what was considered, when asked for.
        imagined_rgb: (H, W, 3) uint8 imagined view at the end of the path, when decoded.
        duration_s: time spent planning, for reports only.
        registered_to: what the goal's image was registered to: "newest frames", "key frame" or "nothing"; None where
            that was not tried.
        doubt: how much the imagined view at the end of the path varies from noise to noise (variance of its latents),
            which tells how wrong it is; None where it was not imagined.
    """

    status: PlanStatus
    stamp_s: float
    dt_s: float
    poses_xyyaw: NDArray[np.float64]
    start_odom_xyyaw: NDArray[np.float64]
    cost: float = float("nan")
    message: str = ""
    trace: PlanTrace | None = None
    imagined_rgb: NDArray[np.uint8] | None = None
    duration_s: float = 0.0
    registered_to: str | None = None
    doubt: float | None = None

    def poses_odom_xyyaw(self) -> NDArray[np.float64]:
        """Return the path (T, 3) in the odom frame."""
        return se2.compose(self.start_odom_xyyaw[None], self.poses_xyyaw)
