"""Makes docs/images/recorded_goal.png and recorded_cloud.png from the recordings cabinet and kitchen.

python docs/make/recording_images.py --data ../shared/data

The first image shows a photograph of the cabinet, which the robot did not keep, beside the key frame that it is
registered to. Its images are TUM RGB-D fr3/cabinet (Sturm et al. 2012, CC BY 4.0). The second shows the cloud of the
kitchen with drift added to its odometry, as odometry has it and as key frames correct it, and the features that a
photograph shares with its key frame. Images of the kitchen (7-Scenes) may not be passed on: nothing of them is drawn.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from localisation_images import ROOT, Driven, Pose, corrected_trajectory, matched, rms_m, smaller, walls_map
from numpy.typing import NDArray

from come_nav.core.files import atomic_path
from come_nav.core.geometry import se2, se3
from come_nav.core.types import Frame
from come_nav.data.opening import open_recording
from come_nav.localisation.features import extract_features
from come_nav.localisation.image_search import VisualMatch
from come_nav.memory.short_term import Remembered
from come_nav.memory.spatial.cloud import SpatialMemory
from come_nav.memory.spatial.settings import SpatialSettings
from come_nav.navigation.localising.robot_localisation import RobotLocalisation
from come_nav.navigation.localising.settings import LocalisationSettings
from come_nav.sim.sensors.odometry import OdometrySettings, WheelOdometry
from come_nav.viz.canvas import add_legend, new_figure, png_bytes, style_axes

RATE_HZ, KEPT_EVERY, SEED = 4.0, 5, 1
CREDIT = "images: TUM RGB-D fr3/cabinet, Sturm et al. 2012, CC BY 4.0"
Shown = tuple[Frame, Pose, VisualMatch]


def drive(path: Path, percent: float) -> tuple[Driven, list[tuple[Frame, Pose]], dict[float, Frame]]:
    """Return a drive with drift added, its photographs (every fifth image), and all frames by stamp."""
    localisation = RobotLocalisation(LocalisationSettings(drift_misfit=0.0 if percent else 1e9))
    clouds = SpatialMemory(SpatialSettings()), SpatialMemory(SpatialSettings())
    localisation.on_correction.append(clouds[1].move)
    frames, photographs, anchors = dict[float, Frame](), list[tuple[Frame, Pose]](), list[int]()
    with open_recording(path, rate_hz=RATE_HZ) as recording:
        T_odom_base = np.asarray(recording.T_odom_base, np.float64)
        truth = se3.xyyaw_from_transform(T_odom_base)
        moved = WheelOdometry(OdometrySettings.from_percent(percent), torch.Generator().manual_seed(SEED)).advance(
            truth
        )
        odom = se2.compose(truth[:1], np.concatenate([np.zeros((1, 3)), moved])) if percent else truth
        for index in range(len(recording)):
            frame = recording.frame(index).over_footprint(T_odom_base[index])
            frames[frame.stamp_s] = frame
            if index % KEPT_EVERY == KEPT_EVERY // 2:
                photographs.append((frame, truth[index]))
            else:
                localisation.observe(Remembered(frame.stamp_s, odom[index], frame, None))
                for cloud in clouds:
                    cloud.observe(frame, se3.transform_from_xyyaw(odom[index]))
            anchors.append(len(localisation.corrections_xyyaw) - 1)
    return Driven(truth, odom, localisation, clouds, np.array(anchors)), photographs, frames


def registered(driven: Driven, photographs: list[tuple[Frame, Pose]]) -> Shown:
    """Return the photograph with the median number of agreeing features among those that are certain."""
    found = []
    for frame, pose in photographs:
        match = driven.localisation.localiser.relocalise(frame.rgb, frame.intrinsics, None, frame.T_base_camera)
        if match.certain and match.registration is not None:
            found.append((frame, pose, match))
    if not found:
        raise SystemExit("no photograph is recognised")
    found.sort(key=lambda own: len(own[2].registration.inliers))
    return found[len(found) // 2]


def goal_image(driven: Driven, shown: Shown, frames: dict[float, Frame]) -> bytes:
    """Return the drawing of a photograph, what it is registered to, and where it was taken."""
    frame, taken, match = shown
    known = driven.localisation.localiser.map
    keyframe = known.keyframes[match.keyframe]
    figure = new_figure(10.0, 3.4)
    grid = figure.add_gridspec(1, 2, width_ratios=(2.1, 1.0))
    axes = figure.add_subplot(grid[0])
    axes.imshow(matched(frames[keyframe.stamp_s].rgb, frame.rgb, match, keyframe.view))
    axes.set_axis_off()
    assert match.registration is not None
    assert match.pose_map_xyyaw is not None
    words = f"{len(match.registration.inliers)} features agree, {min(match.confidence, 0.99):.0%} sure"
    axes.set_title(f"key frame {match.keyframe}, and a photograph: {words}", fontsize=9, loc="left")
    axes.text(0.0, -0.04, CREDIT, transform=axes.transAxes, fontsize=7, va="top")
    axes = figure.add_subplot(grid[1])
    draw_cloud(axes, driven.clouds[1], by_height=False)
    poses = {"key frame": (known.pose_map_xyyaw(match.keyframe), "#2e6fbb"), "true": (taken, "black")}
    for name, (pose, colour) in {**poses, "registered": (match.pose_map_xyyaw, "#d1495b")}.items():
        ahead = 0.5 * np.array([np.cos(pose[2]), np.sin(pose[2])])
        width = 0.016 if name == "true" else 0.008
        axes.quiver(*pose[:2], *ahead, color=colour, angles="xy", scale_units="xy", scale=1, width=width, label=name)
    off_m = float(np.hypot(*(match.pose_map_xyyaw - taken)[:2]))
    style_axes(axes, "x (m)", "y (m)", f"off by {100 * off_m:.0f} cm")
    add_legend(axes)
    return png_bytes(figure)


def draw_cloud(axes: Any, cloud: SpatialMemory, by_height: bool) -> None:
    """Draw a cloud from above, in its own colours or by height."""
    xy, colours, heights_m = walls_map(cloud, (-2.0, 3.0))
    order = np.argsort(heights_m)
    axes.scatter(*xy[order].T, s=0.8, c=(heights_m if by_height else colours)[order], linewidths=0, rasterized=True)
    axes.set_aspect("equal")


def features_alone(shown: Shown, driven: Driven) -> NDArray[np.uint8]:
    """Return a key frame's and a photograph's features that agree, on two empty images."""
    frame, _, match = shown
    empty = np.full_like(frame.rgb, 235)
    there = extract_features(frame.rgb).keypoints_px
    view = driven.localisation.localiser.map.keyframes[match.keyframe].view
    return matched(empty, empty, match, view, there)


def cloud_image(driven: Driven, shown: Shown, percent: float) -> bytes:
    """Return the drawing of the drifting and the corrected cloud, and of features that agree."""
    figure, axes = new_figure(10.0, 6.6), None
    grid = figure.add_gridspec(2, 2, height_ratios=(1.0, 0.62))
    ways = driven.odom_xyyaw, corrected_trajectory(driven)
    names = f"odometry with {percent:g} % of drift", "corrected by key frames"
    for column, (cloud, way, name) in enumerate(zip(driven.clouds, ways, names, strict=True)):
        axes = figure.add_subplot(grid[0, column], sharex=axes, sharey=axes)
        draw_cloud(axes, cloud, by_height=True)
        axes.plot(*driven.truth_xyyaw[:, :2].T, color="black", linewidth=1.0, linestyle=":", label="moved")
        axes.plot(*way[:, :2].T, color="#d1495b", linewidth=1.2, label="believed")
        style_axes(axes, "x (m)", "y (m)", f"{name}: off by {100 * rms_m(way, driven.truth_xyyaw):.1f} cm (RMS)")
        add_legend(axes)
    axes = figure.add_subplot(grid[1, :])
    axes.imshow(features_alone(shown, driven))
    axes.set_axis_off()
    _, taken, match = shown
    assert match.registration is not None
    assert match.pose_map_xyyaw is not None
    off_m = float(np.hypot(*(match.pose_map_xyyaw - taken)[:2]))
    title = f"a key frame's features (left) and those of a photograph: {len(match.registration.inliers)} agree"
    axes.set_title(f"{title}, pose off by {100 * off_m:.0f} cm", fontsize=9, loc="left")
    return png_bytes(figure)


def main() -> None:
    """Drive through both recordings, and write both images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("COME_NAV_DATA", str(ROOT / "../shared/data"))
    parser.add_argument("--data", type=Path, default=Path(data), help="folder with bags/cabinet and bags/kitchen")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images", help="folder")
    parser.add_argument("--drift", type=float, default=5.0, help="percent of the way, of the kitchen's cloud")
    args = parser.parse_args()
    bags = {name: args.data / "bags" / name for name in ("cabinet", "kitchen")}
    absent = [str(path) for path in bags.values() if not path.is_dir()]
    if absent:
        sys.exit(f"{', '.join(absent)}: not here; name the folder that holds bags/ with --data")
    driven, photographs, frames = drive(bags["cabinet"], 0.0)
    images = {"recorded_goal.png": goal_image(driven, registered(driven, photographs), frames)}
    driven, photographs, _ = drive(bags["kitchen"], args.drift)
    images["recorded_cloud.png"] = cloud_image(driven, registered(driven, photographs), args.drift)
    for name, png in images.items():
        with atomic_path(args.out / name) as temporary:
            temporary.write_bytes(smaller(png))


if __name__ == "__main__":
    main()
