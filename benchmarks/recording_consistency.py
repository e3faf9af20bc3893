"""How well a recording's poses, images and depth agree: what any correction of drift can reach on it.

    python benchmarks/recording_consistency.py --bag ../shared/data/bags/kitchen --out FILE
    python benchmarks/recording_consistency.py --bag ../shared/data/bags/kitchen --colour-focal 262.5 --colour-x 0.025

Three frames are registered to each other in pairs, as the robot does it. "loop" is what is left of going round all
three, which no pose of the recording takes part in; "registration - poses" how far a pair is from what the recording
says of it; "depth - poses" the same for ICP on depth alone (Open3D, point to plane), "depth - registration" how far
the two are apart. Where loops close, registrations are sharp, and what they differ by from the poses is the poses' or
the camera's calibration. ``--colour-focal`` and ``--colour-x`` take the colour camera for another one than the depth
camera, beside it; ``--lag`` takes images as so much later than their stamps.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine_facts
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

from come_nav.core.files import atomic_write_text
from come_nav.core.geometry import se3
from come_nav.core.types import CameraIntrinsics, Frame
from come_nav.data.opening import open_recording
from come_nav.localisation.registration import register
from come_nav.localisation.view import View, make_view

Pose = NDArray[np.float64]
ICP_M = (0.08, 0.03)  # farthest correspondences, coarse to fine
FAR_M = 3.5


class Recorded:
    """Frames of a recording with the colour camera beside the depth camera, and the clouds of their depth."""

    def __init__(self, path: Path, focal_px: float | None, colour_x_m: float, lag_s: float) -> None:
        with open_recording(path, rate_hz=None) as recording:
            self.frames = [recording.frame(index) for index in range(len(recording))]
            bases = np.asarray(recording.T_odom_base, np.float64)
        cameras = np.stack([base @ frame.T_base_camera for base, frame in zip(bases, self.frames, strict=True)])
        stamps_s = np.array([frame.stamp_s for frame in self.frames])
        late_s = np.clip(stamps_s + lag_s, stamps_s[0], stamps_s[-1])
        self.T_odom_depth = np.tile(np.eye(4), (len(cameras), 1, 1))
        self.T_odom_depth[:, :3, :3] = Slerp(stamps_s, Rotation.from_matrix(cameras[:, :3, :3]))(late_s).as_matrix()
        for axis in range(3):
            self.T_odom_depth[:, axis, 3] = np.interp(late_s, stamps_s, cameras[:, axis, 3])
        self.T_depth_colour = np.eye(4)
        self.T_depth_colour[0, 3] = colour_x_m
        self._focal_px = focal_px
        self._views: dict[int, View] = {}
        self._clouds: dict[int, Any] = {}

    def view(self, index: int) -> View:
        """Return the features of a frame with the depth that the colour camera sees."""
        if index not in self._views:
            frame = self.frames[index]
            depth = frame.intrinsics
            colour = depth if self._focal_px is None else replace(depth, fx=self._focal_px, fy=self._focal_px)
            seen = as_colour_sees(frame, depth, colour, self.T_depth_colour[:3, 3])
            self._views[index] = make_view(frame.rgb, colour, seen)
        return self._views[index]

    def cloud(self, index: int) -> Any:
        """Return every second pixel's point with its normal (Open3D)."""
        import open3d as o3d

        if index not in self._clouds:
            frame = self.frames[index]
            points = lifted(frame.depth_m, frame.intrinsics)[::2, ::2].reshape(-1, 3)
            near = (points[:, 2] > 0.3) & (points[:, 2] < FAR_M)
            cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points[near]))
            cloud.estimate_normals(o3d.geometry.KDTreeSearchParamHybrid(0.08, 20))
            self._clouds[index] = cloud
        return self._clouds[index]

    def by_depth(self, a: int, b: int, start: Pose) -> Pose:
        """Return T of depth camera b in a by ICP from ``start``."""
        import open3d as o3d

        method = o3d.pipelines.registration
        for farthest_m in ICP_M:
            found = method.registration_icp(
                self.cloud(b), self.cloud(a), farthest_m, start, method.TransformationEstimationPointToPlane()
            )
            start = found.transformation
        return np.asarray(start, np.float64)


def lifted(depth_m: NDArray[np.float32], camera: CameraIntrinsics) -> NDArray[np.float64]:
    """Return points (H, W, 3) in the optical frame; 0 where depth is unknown."""
    v, u = np.mgrid[: depth_m.shape[0], : depth_m.shape[1]].astype(np.float64)
    rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones_like(u)], axis=-1)
    return np.asarray(rays * np.nan_to_num(depth_m.astype(np.float64))[..., None])


def as_colour_sees(
    frame: Frame, depth: CameraIntrinsics, colour: CameraIntrinsics, origin_m: Pose
) -> NDArray[np.float32]:
    """Return depth (H, W) at the pixels of a colour camera at ``origin_m`` in the depth camera's optical frame."""
    points = lifted(frame.depth_m, depth) - origin_m
    known = points[..., 2] + origin_m[2] > 0
    z = np.where(known, points[..., 2], 1.0)
    u = np.round(points[..., 0] / z * colour.fx + colour.cx).astype(int)
    v = np.round(points[..., 1] / z * colour.fy + colour.cy).astype(int)
    inside = known & (u >= 0) & (v >= 0) & (u < colour.width) & (v < colour.height)
    seen = np.full((colour.height, colour.width), np.inf)
    np.minimum.at(seen, (v[inside], u[inside]), z[inside])
    return np.where(np.isfinite(seen), seen, 0.0).astype(np.float32)


def size(T: Pose) -> tuple[float, float]:
    """Return how far a pose is from the identity, m and rad."""
    return float(np.linalg.norm(T[:3, 3])), float(np.linalg.norm(Rotation.from_matrix(T[:3, :3]).as_rotvec()))


def measured(recorded: Recorded, every: int, gaps: tuple[int, int]) -> dict[str, list[tuple[float, float]]]:
    """Return the differences (m, rad) of each kind."""
    found: dict[str, list[tuple[float, float]]] = {}
    T_colour_depth = se3.inverse(recorded.T_depth_colour)
    for a in range(0, len(recorded.frames) - gaps[1], every):
        pairs = (a, a + gaps[0]), (a + gaps[0], a + gaps[1]), (a, a + gaps[1])
        registrations = [register(recorded.view(first), recorded.view(second)) for first, second in pairs]
        if not all(own.ok for own in registrations):
            continue
        first, second, both = (own.T_a_b for own in registrations)
        found.setdefault("loop", []).append(size(first @ second @ se3.inverse(both)))
        for (one, other), own in zip(pairs, registrations, strict=True):
            said = se3.inverse(recorded.T_odom_depth[one]) @ recorded.T_odom_depth[other]
            seen = recorded.T_depth_colour @ own.T_a_b @ T_colour_depth
            depth = recorded.by_depth(one, other, said)
            for name, T, reference in (
                ("registration - poses", seen, said),
                ("depth - poses", depth, said),
                ("depth - registration", depth, seen),
            ):
                found.setdefault(name, []).append(size(se3.inverse(reference) @ T))
    return found


def main() -> None:
    """Measure one recording."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bag", type=Path, required=True)
    parser.add_argument("--colour-focal", type=float, help="px; default: as the recording says")
    parser.add_argument("--colour-x", type=float, default=0.0, help="m to the right of the depth camera")
    parser.add_argument("--lag", type=float, default=0.0, help="s")
    parser.add_argument("--every", type=int, default=6, help="frames between triples")
    parser.add_argument("--gaps", type=int, nargs=2, default=(7, 15), help="frames from the first to the other two")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    recorded = Recorded(args.bag, args.colour_focal, args.colour_x, args.lag)
    row: dict[str, Any] = {
        "recording": args.bag.name,
        "colour focal px": args.colour_focal or recorded.frames[0].intrinsics.fx,
        "colour x m": args.colour_x,
        "lag s": args.lag,
    }
    for name, values in measured(recorded, args.every, tuple(args.gaps)).items():
        low, middle, high = np.quantile(np.array(values), (0.25, 0.5, 0.75), axis=0)
        row[name] = {"n": len(values), "median m": middle[0], "quartiles m": [low[0], high[0]], "median rad": middle[1]}
    print(json.dumps(row), flush=True)
    if args.out is not None:
        rows = json.loads(args.out.read_text())["rows"] if args.out.exists() else []
        atomic_write_text(args.out, json.dumps({"machine": machine_facts(), "rows": [*rows, row]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
