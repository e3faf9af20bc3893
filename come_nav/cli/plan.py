"""``come-nav plan``: plan once from a moment of a recording and draw what was considered."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from come_nav.cli.config import add_config_flags
from come_nav.cli.output import Steps, add_json_flag, format_table, print_json
from come_nav.cli.recording_flags import add_recording_flags, open_from_flags
from come_nav.core.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from come_nav.core.protocols import Recording
    from come_nav.core.types import Goal, ImageCamera, Plan
    from come_nav.navigation.navigation_model import NavigationModel
    from come_nav.navigation.navigator import Navigator
    from come_nav.navigation.planned_once import PlannedOnce
    from come_nav.navigation.stack import NavStack

EPILOG = """examples:
  come-nav plan my_bag --at 40 --goal-index 48 --out plan.png    to what the robot saw two seconds later
  come-nav plan my_bag --at 12.5s --goal-image kitchen_door.jpg  12.5 s after the start, to a photograph
  come-nav plan my_bag --at 12.5s --goal-image phone.jpg --goal-fov 66   to one of another camera, 66 degrees wide
  come-nav plan my_bag --at 40 --goal-pose 2.0,0.5,1.57          to a pose in the odom frame (m, m, rad)

Where a memory is in use (experts.use; by default where the recording has depth), the frames before --at are remembered,
the goal image is looked for in them, and a goal that is far away is led to over remembered key frames, as on the robot.
--direct plans to the goal as it is given.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this verb."""
    parser.epilog = EPILOG
    parser.add_argument("recording", type=Path, help="bag or folder (NWM, TUM RGB-D, KITTI, EuRoC)")
    parser.add_argument(
        "--at",
        required=True,
        metavar="INDEX|SECONDS",
        help="where to plan: frame index (40) or time from start (12.5s)",
    )
    image = parser.add_mutually_exclusive_group()
    image.add_argument("--goal-image", type=Path, metavar="FILE", help="image of the goal")
    parser.add_argument(
        "--goal-fov",
        metavar="DEG",
        help="how wide the goal image's camera sees (default: its EXIF focal length, else the robot's camera where the "
        "image has its shape); unknown = find it out from the matches",
    )
    image.add_argument("--goal-index", type=int, metavar="I", help="frame of the recording that shows the goal")
    parser.add_argument("--goal-pose", metavar="X,Y,YAW", help="goal in the odom frame, metres and radians")
    parser.add_argument(
        "--direct", action="store_true", help="plan to the goal as it is given: no place recognition, no remembered way"
    )
    parser.add_argument("--model", metavar="NAME", help="model name or folder (default: the configuration's)")
    parser.add_argument("--seed", type=int, help="of the search (default: the configuration's)")
    parser.add_argument("--out", type=Path, metavar="PNG", help="draw the candidates, coloured by cost")
    add_recording_flags(parser)
    add_config_flags(parser)
    add_json_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Plan once; print status, path, cost and time."""
    from come_nav.config import load_config, override_words
    from come_nav.navigation.loading import load_stack
    from come_nav.navigation.navigator import GoalRequest, Navigator
    from come_nav.navigation.planned_once import plan_once
    from come_nav.navigation.settings import NavigatorSettings

    flags = {"seed": args.seed, "model": args.model, "show_imagined": True if args.out else None}
    config = load_config(args.config, [*args.set, *override_words(flags)])
    recording = open_from_flags(args.recording, args)
    at = frame_index(recording, args.at)
    goal = _goal(args, recording)
    stack = load_stack(config)
    navigator = Navigator(stack, NavigatorSettings(use_places=not args.direct and remembers(stack, recording, at)))
    remember(navigator, recording, at)
    found = plan_once(navigator, GoalRequest(goal.image_rgb, goal.pose_odom_xyyaw, camera=goal.camera))
    stack.close()
    plan = found.plan
    if args.json:
        print_json(_document(plan, recording, at) | _place(found) | {"experts": _experts(stack)})
    else:
        _print(plan, found)
    if args.out is not None:
        _draw(args.out, stack, plan, found.target, recording, at)
    return 0 if plan.status == "OK" else 1


def frame_index(recording: Recording, text: str) -> int:
    """Return the frame that ``--at`` names: an index, or seconds from the start (with a point or an s)."""
    try:
        index = int(text) if text.lstrip("-").isdigit() else _index_at(recording, float(text.removesuffix("s")))
    except ValueError as error:
        raise DataError(f"--at must be a frame index (40) or seconds (12.5s), got '{text}'") from error
    return _checked_index(recording, index, "--at")


def remember(navigator: Navigator, recording: Recording, at: int) -> None:
    """Show the frames up to and including ``at``: all where memories are in use, else what can be context.

    Where stderr is a terminal, a bar shows how far it is.
    """
    from come_nav.core.types import Odometry

    stack = navigator.stack
    first = 0 if remembers(stack, recording, at) else first_shown(recording, at, stack.model)
    with Steps(at + 1 - first, "remembering", "frame") as progress:
        for index in range(first, at + 1):
            frame = recording.frame(index)
            navigator.observe(frame, Odometry(frame.stamp_s, recording.T_odom_base[index]))
            progress.add()


def first_shown(recording: Recording, at: int, model: NavigationModel) -> int:
    """Return the first frame that can be context at frame ``at``: twice the time that a context takes, at any rate."""
    begin_s = recording.stamps_s[at] - 2 * model.context_frames / model.rate_hz
    return int((recording.stamps_s < begin_s - 1e-3).sum())


def remembers(stack: NavStack, recording: Recording, at: int) -> bool:
    """Return whether a memory is in use that frames before the context feed: ``auto`` needs depth for one in space."""
    from come_nav.navigation.memories.experts_in_use import experts_in_use

    has_depth = recording.frame(at).depth_m is not None
    return bool(experts_in_use(stack.settings.experts, stack.episode.in_use().left_out, has_depth).names)


def _index_at(recording: Recording, seconds: float) -> int:
    """Return the frame nearest to a time after the first; raise DataError for one before or after the recording."""
    past_s = recording.stamps_s - recording.stamps_s[0]
    end_s, half_s = float(past_s[-1]), 0.5 / recording.rate_hz
    if not -half_s <= seconds <= end_s + half_s:
        raise DataError(f"--at must be in [0, {end_s:.2f}] s for {recording.name}, got {seconds:g} s")
    return int(abs(past_s - seconds).argmin())


def _checked_index(recording: Recording, index: int, flag: str) -> int:
    if not 0 <= index < len(recording):
        raise DataError(f"{flag} must be in [0, {len(recording) - 1}] for {recording.name}, got {index}")
    return index


def _goal(args: argparse.Namespace, recording: Recording) -> Goal:
    import numpy as np

    from come_nav.core.types import Goal

    image, pose, camera = None, None, None
    if args.goal_fov is not None and args.goal_image is None:
        raise DataError("--goal-fov is of a goal image's camera: give --goal-image as well, or leave it out")
    if args.goal_index is not None:
        image = recording.frame(_checked_index(recording, args.goal_index, "--goal-index")).rgb
    elif args.goal_image is not None:
        image = _read_rgb(args.goal_image)
        camera = _goal_camera(args, image)
    if args.goal_pose is not None:
        try:
            pose = np.array([float(word) for word in args.goal_pose.split(",")])
        except ValueError:
            pose = np.zeros(0)
        if pose.shape != (3,) or not np.isfinite(pose).all():
            raise DataError(f"--goal-pose must be three numbers x,y,yaw, got '{args.goal_pose}'")
    if image is None and pose is None:
        raise DataError("a goal is missing: give --goal-image, --goal-index or --goal-pose")
    return Goal(image, pose, camera)


def _goal_camera(args: argparse.Namespace, image: NDArray[np.uint8]) -> ImageCamera:
    from come_nav.core.types import CameraIntrinsics
    from come_nav.localisation.unknown_camera import photograph_intrinsics

    text = args.goal_fov
    if text is None:
        return photograph_intrinsics(args.goal_image, image)
    if text == "unknown":
        return "unknown"
    try:
        fov_deg = float(text)
    except ValueError:
        fov_deg = math.nan
    if not 1.0 <= fov_deg < 179.0:
        raise DataError(f"--goal-fov must be in [1, 179) degrees, or unknown, got '{text}'")
    return CameraIntrinsics.from_field_of_view(image.shape[1], image.shape[0], math.radians(fov_deg))


def _read_rgb(path: Path) -> NDArray[np.uint8]:
    import cv2
    import numpy as np

    if not path.is_file():
        raise DataError(f"{path}: no such goal image")
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR) if path.stat().st_size else None
    if image is None:
        raise DataError(f"{path}: not an image that can be read; use PNG or JPEG")
    return np.ascontiguousarray(image[..., ::-1]).astype(np.uint8)


def _document(plan: Plan, recording: Recording, at: int) -> dict[str, Any]:
    return {
        "recording": recording.name,
        "frame": at,
        "stamp_s": plan.stamp_s,
        "status": plan.status.value,
        "message": plan.message,
        "cost": plan.cost,
        "doubt": plan.doubt,
        "dt_s": plan.dt_s,
        "poses_xyyaw": plan.poses_xyyaw,
        "poses_odom_xyyaw": plan.poses_odom_xyyaw() if len(plan.poses_xyyaw) else [],
        "candidates": sum(len(iteration.costs) for iteration in plan.trace.iterations) if plan.trace else 0,
        "duration_s": plan.duration_s,
    }


def _experts(stack: NavStack) -> dict[str, Any]:
    """Return which memory experts were in use, and why others were not."""
    left_out = stack.episode.diagnostics
    return {"in_use": [name for name in stack.episode.in_use().names if name not in left_out], "left_out": left_out}


def _place(found: PlannedOnce) -> dict[str, Any]:
    """Return where memory knows the goal to be, and what the plan leads to."""
    goal, target = found.goal, found.target
    return {
        "goal_odom_xyyaw": goal.pose_odom_xyyaw,
        "recognised": found.recognised,
        "target_odom_xyyaw": target.pose_odom_xyyaw,
        "way_odom_xy": found.way_xy,
    }


def _print(plan: Plan, found: PlannedOnce) -> None:
    from come_nav.core.types import CameraIntrinsics

    pose = found.goal.pose_odom_xyyaw
    if found.recognised and pose is not None:
        print(f"goal      recognised at ({pose[0]:.2f}, {pose[1]:.2f}) m, {pose[2]:.2f} rad in odom")
    if isinstance(found.goal.camera, CameraIntrinsics):
        print(
            f"camera    that took the goal image sees {math.degrees(found.goal.camera.horizontal_fov_rad):.0f} degrees"
        )
    if found.way_xy is not None:
        print(f"route     {len(found.way_xy)} points of a remembered way; the plan leads to the first ahead")
    note = f" ({plan.message})" if plan.message else ""
    print(f"status    {plan.status.value}{note}")
    print(f"cost      {plan.cost:.5g}")
    if plan.doubt is not None:
        print(f"doubt     {plan.doubt:.3g} (variance of the view imagined at the end, from noise to noise)")
    print(f"duration  {plan.duration_s:.2f} s")
    if len(plan.poses_xyyaw) > 0:
        rows = [
            [f"{(step + 1) * plan.dt_s:.2f}", f"{x:.3f}", f"{y:.3f}", f"{yaw:.3f}"]
            for step, (x, y, yaw) in enumerate(plan.poses_xyyaw)
        ]
        print(format_table(["time s", "x m", "y m", "yaw rad"], rows))


def _draw(path: Path, stack: NavStack, plan: Plan, goal: Goal, recording: Recording, at: int) -> None:
    """Draw the candidates of all iterations, with the start, the imagined and the goal image beside them."""
    import numpy as np
    import torch

    from come_nav.core.files import atomic_path
    from come_nav.core.geometry import se2
    from come_nav.viz.figures import plot_candidates

    if plan.trace is None or not plan.trace.iterations:
        raise DataError(f"there is nothing to draw: {plan.status.value}, {plan.message}")
    poses = torch.cat([iteration.poses_xyyaw for iteration in plan.trace.iterations]).numpy()
    costs = torch.cat([iteration.costs for iteration in plan.trace.iterations]).numpy()
    images = {"start": recording.frame(at).rgb}
    if plan.imagined_rgb is not None:
        images["imagined"] = plan.imagined_rgb
    if goal.image_rgb is not None:
        images["goal"] = goal.image_rgb
    past_s = recording.stamps_s - recording.stamps_s[at]
    times_s = plan.dt_s * np.arange(1, stack.settings.planner.horizon_steps + 1)
    steps = [int(np.abs(past_s - own).argmin()) for own in times_s if own <= past_s[-1] + 0.5 * plan.dt_s]
    driven = se2.relative(plan.start_odom_xyyaw[None], np.asarray(recording.poses_xyyaw)[steps])
    target = None if goal.pose_odom_xyyaw is None else se2.relative(plan.start_odom_xyyaw, goal.pose_odom_xyyaw)
    title = f"{recording.name}, frame {at}: {plan.status.value}"
    png = plot_candidates(
        poses, costs, plan.poses_xyyaw, driven if len(driven) else None, images, title=title, goal=target
    )
    with atomic_path(path) as temporary:
        temporary.write_bytes(png)
