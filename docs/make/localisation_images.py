"""Makes docs/images/registered_goal.png and corrected_cloud.png: one drive through a built-in test world, 320 x 240.

python docs/make/localisation_images.py

A robot whose wheel odometry drifts by 2 % of the way tours the world. The first image shows a photograph by another
camera beside the key frame that it is registered to, with the features that agree, and where it was taken; the second
the cloud as odometry has it, and as key frames correct it.
"""

from __future__ import annotations

import argparse
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from come_nav.core.files import atomic_path
from come_nav.core.geometry import se2, se3
from come_nav.core.types import CameraIntrinsics
from come_nav.localisation.features import extract_features
from come_nav.localisation.image_search import VisualMatch
from come_nav.memory.short_term import Remembered
from come_nav.memory.spatial.cloud import SpatialMemory
from come_nav.memory.spatial.settings import SpatialSettings
from come_nav.navigation.localising.robot_localisation import RobotLocalisation
from come_nav.navigation.localising.settings import LocalisationSettings
from come_nav.sim.episodes import EpisodeRecording, simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.sensors.chain import to_uint8
from come_nav.sim.sensors.odometry import OdometrySettings, WheelOdometry
from come_nav.sim.worlds import generate_world
from come_nav.viz.canvas import add_legend, new_figure, png_bytes, style_axes

ROOT = Path(__file__).resolve().parents[2]
WORLD, SEED, SECONDS, DRIFT_PERCENT = 20003, 1, 100.0, 2.0
ROBOT = CameraIntrinsics.from_field_of_view(320, 240, 0.5 * math.pi)
PHONE = CameraIntrinsics.from_field_of_view(480, 360, math.radians(66.0))
BESIDE = np.array([0.3, 0.15, 0.25])  # where the photograph is taken, from a pose of the tour
GAP_PX = 10
WALLS_M = (0.15, 1.6)  # heights of the points that are drawn
Pose = NDArray[np.float64]


@dataclass
class Driven:
    """A robot after its tour.

    Attributes:
        truth_xyyaw: (N, 3) in map.
        odom_xyyaw: (N, 3) as odometry has it, from the same start.
        localisation: its key frames.
        clouds: the cloud as odometry has it, and as key frames correct it.
        anchors: (N,) the newest anchor at each pose.
    """

    truth_xyyaw: Pose
    odom_xyyaw: Pose
    localisation: RobotLocalisation
    clouds: tuple[SpatialMemory, SpatialMemory]
    anchors: NDArray[np.int64]


def drive() -> tuple[Driven, EpisodeRecording]:
    """Tour the world with odometry that drifts."""
    world = generate_world(WORLD)
    recording = EpisodeRecording(
        simulate_episode(world, "tour", SECONDS, 4.0, SEED), Raycaster([world], ROBOT), use_truth=True
    )
    truth = np.asarray(recording.poses_xyyaw)
    noise = OdometrySettings(
        distance_percent=DRIFT_PERCENT, rotation_percent=DRIFT_PERCENT, heading_percent=DRIFT_PERCENT
    )
    moved = WheelOdometry(noise, torch.Generator().manual_seed(SEED)).advance(truth)
    odom = se2.compose(truth[:1], np.concatenate([np.zeros((1, 3)), moved]))
    localisation = RobotLocalisation(LocalisationSettings())
    clouds = SpatialMemory(SpatialSettings()), SpatialMemory(SpatialSettings())
    localisation.on_correction.append(clouds[1].move)
    anchors = []
    for index in range(len(recording)):
        frame = recording.frame(index)
        localisation.observe(Remembered(frame.stamp_s, odom[index], frame, None))
        anchors.append(len(localisation.corrections_xyyaw) - 1)
        for cloud in clouds:
            cloud.observe(frame, se3.transform_from_xyyaw(odom[index]))
    return Driven(truth, odom, localisation, clouds, np.array(anchors)), recording


def walls_map(
    cloud: SpatialMemory, heights_m: tuple[float, float] = WALLS_M
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return points (N, 2) of walls and things in map, their colours in [0, 1] and heights (N,) in m."""
    points = cloud.points_xyz.astype(np.float64)
    high = (points[:, 2] > heights_m[0]) & (points[:, 2] < heights_m[1])
    xy = se2.transform_points(cloud.map_frame.T_map_odom_xyyaw, points[high, :2])
    return xy, np.clip(0.5 + 0.5 * cloud.point_features[high, :3], 0.0, 1.0), points[high, 2]


def corrected_trajectory(driven: Driven) -> Pose:
    """Return the poses (N, 3) in map as the anchors' corrections have them."""
    return se2.compose(driven.localisation.corrections_xyyaw[driven.anchors], driven.odom_xyyaw)


def rms_m(poses: Pose, truth: Pose) -> float:
    """Return the root mean square of the position error."""
    return float(np.sqrt(((poses - truth)[:, :2] ** 2).sum(axis=1).mean()))


def corrected_cloud(driven: Driven) -> bytes:
    """Return the drawing of both clouds."""
    figure, axes = new_figure(9.0, 4.4), None
    ways = driven.odom_xyyaw, corrected_trajectory(driven)
    for panel, (cloud, way, name) in enumerate(zip(driven.clouds, ways, ("odometry alone", "corrected"), strict=True)):
        axes = figure.add_subplot(1, 2, panel + 1, sharex=axes, sharey=axes)
        xy, colours, _ = walls_map(cloud)
        axes.scatter(*xy.T, s=0.6, c=colours, linewidths=0, rasterized=True)
        axes.plot(*driven.truth_xyyaw[:, :2].T, color="black", linewidth=1.0, linestyle=":", label="driven")
        axes.plot(*way[:, :2].T, color="#d1495b", linewidth=1.2, label="believed")
        axes.set_aspect("equal")
        style_axes(axes, "x (m)", "y (m)", f"{name}: positions off by {rms_m(way, driven.truth_xyyaw):.2f} m (RMS)")
        add_legend(axes)
    return png_bytes(figure)


def photograph(driven: Driven, recording: EpisodeRecording) -> tuple[NDArray[np.uint8], Pose, VisualMatch]:
    """Return a photograph beside the tour, where it was taken in map, and what the key frames say."""
    raycaster, localiser = Raycaster([generate_world(WORLD)], PHONE), driven.localisation.localiser
    start = recording.episode.poses_world_xyyaw[0]
    found = []
    for index in range(20, len(driven.truth_xyyaw) - 10, 25):
        taken = se2.compose(driven.truth_xyyaw[index], BESIDE)
        world_pose = se2.compose(start, se2.relative(driven.truth_xyyaw[0], taken))
        image = to_uint8(raycaster.render(torch.from_numpy(world_pose[None]))[0])[0]
        match = localiser.relocalise(image, PHONE)
        if match.certain and match.registration is not None:
            found.append((len(match.registration.inliers), index, image, taken, match))
    if not found:
        raise SystemExit("no photograph of the tour is recognised")
    _, _, image, taken, match = sorted(found, key=lambda own: own[:2])[len(found) // 2]
    return image, taken, match


def matched(
    keyframe_rgb: NDArray[np.uint8],
    image: NDArray[np.uint8],
    match: VisualMatch,
    view: Any,
    there: NDArray[np.float32] | None = None,
) -> NDArray[Any]:
    """Return both images (H, W, 3) side by side with lines between the features that agree.

    ``there`` (N, 2) are the image's keypoints, where they are not to be found in ``image`` itself.
    """
    height = image.shape[0]
    scale = height / keyframe_rgb.shape[0]
    left = cv2.resize(keyframe_rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    left = np.concatenate([left, np.full((height, GAP_PX, 3), 255, np.uint8)], axis=1)
    canvas = np.concatenate([left, image], axis=1)
    there = extract_features(image).keypoints_px if there is None else there
    assert match.registration is not None
    for number, (row, other) in enumerate(match.registration.inliers[::2]):
        a = view.features.keypoints_px[row] * scale
        b = there[other] + [left.shape[1], 0]
        colour = tuple(int(c) for c in cv2.applyColorMap(np.uint8([[37 * number % 256]]), cv2.COLORMAP_HSV)[0, 0])
        cv2.line(canvas, tuple(map(int, a)), tuple(map(int, b)), colour, 1, cv2.LINE_AA)
        for point in (a, b):
            cv2.circle(canvas, tuple(map(int, point)), 3, colour, 1, cv2.LINE_AA)
    return canvas


def registered_goal(driven: Driven, recording: EpisodeRecording) -> bytes:
    """Return the drawing of a photograph, what it is registered to, and where it was taken."""
    image, taken, match = photograph(driven, recording)
    known = driven.localisation.localiser.map
    keyframe = known.keyframes[match.keyframe]
    rgb = recording.frame(int(np.argmin(np.abs(recording.stamps_s - keyframe.stamp_s)))).rgb
    figure = new_figure(10.0, 3.6)
    grid = figure.add_gridspec(1, 2, width_ratios=(1.9, 1.0))
    axes = figure.add_subplot(grid[0])
    axes.imshow(matched(rgb, image, match, keyframe.view))
    axes.set_axis_off()
    assert match.registration is not None
    words = f"{len(match.registration.inliers)} features agree, {min(match.confidence, 0.99):.0%} sure"
    axes.set_title(f"key frame {match.keyframe}, and a photograph by another camera: {words}", fontsize=9, loc="left")
    axes = figure.add_subplot(grid[1])
    xy, colours, _ = walls_map(driven.clouds[1])
    axes.scatter(*xy.T, s=0.5, c=colours, linewidths=0, rasterized=True)
    assert match.pose_map_xyyaw is not None
    arrows = {"key frame": (known.pose_map_xyyaw(match.keyframe), "#2e6fbb"), "true": (taken, "black")}
    for name, (pose, colour) in {**arrows, "registered": (match.pose_map_xyyaw, "#d1495b")}.items():
        ahead = 0.7 * np.array([np.cos(pose[2]), np.sin(pose[2])])
        width = 0.016 if name == "true" else 0.008
        axes.quiver(*pose[:2], *ahead, color=colour, angles="xy", scale_units="xy", scale=1, width=width, label=name)
    off_m = float(np.hypot(*(match.pose_map_xyyaw - taken)[:2]))
    axes.set_xlim(taken[0] - 3.5, taken[0] + 3.5)
    axes.set_ylim(taken[1] - 3.0, taken[1] + 3.0)
    axes.set_aspect("equal")
    style_axes(axes, "x (m)", "y (m)", f"off by {100 * off_m:.0f} cm")
    add_legend(axes)
    return png_bytes(figure)


def main() -> None:
    """Drive, and write both images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images", help="folder")
    args = parser.parse_args()
    driven, recording = drive()
    images = {
        "corrected_cloud.png": corrected_cloud(driven),
        "registered_goal.png": registered_goal(driven, recording),
    }
    for name, png in images.items():
        with atomic_path(args.out / name) as temporary:
            temporary.write_bytes(smaller(png))


def smaller(png: bytes) -> bytes:
    """Return the image with 255 colours, a third of the bytes."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(255).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
