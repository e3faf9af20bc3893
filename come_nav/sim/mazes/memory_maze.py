"""Episodes of the Memory Maze package (arXiv 2210.13383) as recordings: images and global poses, no depth.

The package is not part of come_nav. It draws with MuJoCo, some ten frames a second without a GPU: record a few dozen
episodes once, and keep them (:func:`save_walk`) outside of the source tree.
"""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_range
from come_nav.core.errors import ConfigError, DataError
from come_nav.core.files import atomic_path
from come_nav.core.geometry import se2, se3
from come_nav.core.types import CameraIntrinsics, Frame

INSTALL = "pip install memory-maze gym 'dm-control==1.0.31' 'mujoco==3.3.3'  (and set MUJOCO_GL=osmesa without a GPU)"
SIZES = ("9x9", "11x11", "13x13", "15x15")
CELL_M = 2.0  # xy_scale of the package
RATE_HZ = 4.0  # its control rate
STAY, AHEAD, LEFT, RIGHT = 0, 1, 2, 3  # the first of its six actions; the other two go ahead and turn at once
STUCK_M = 0.05
TURNS = (2, 7)  # steps of a turn
TURN_SHARE = 0.08  # of steps that begin a turn for no reason


@dataclass(frozen=True)
class MemoryMazeWalk:
    """One episode (``Recording`` protocol); its camera is not known, and it measures no depth.

    Attributes:
        images: (N, H, W, 3) uint8.
        poses_maze_xyyaw: (N, 3) m and rad, from the maze's corner.
        moves: (N,) the actions that led to the frames, the first of which is 0.
        size: of the maze, e.g. "9x9".
        seed: of maze and walk.
    """

    images: NDArray[np.uint8]
    poses_maze_xyyaw: NDArray[np.float64]
    moves: NDArray[np.int64]
    size: str
    seed: int

    @property
    def name(self) -> str:
        """Maze and seed in one word."""
        return f"memory-maze-{self.size}-{self.seed}"

    @property
    def rate_hz(self) -> float:
        """Frames per second."""
        return RATE_HZ

    @property
    def stamps_s(self) -> NDArray[np.float64]:
        """Times (N,) from 0."""
        return np.arange(len(self)) / RATE_HZ

    @property
    def poses_xyyaw(self) -> NDArray[np.float64]:
        """Planar poses (N, 3) in the frame of the first one."""
        return se2.relative(self.poses_maze_xyyaw[:1], self.poses_maze_xyyaw)

    @property
    def T_odom_base(self) -> NDArray[np.float64]:
        """Poses (N, 4, 4) in the frame of the first one."""
        return se3.transform_from_xyyaw(self.poses_xyyaw)

    @property
    def intrinsics(self) -> CameraIntrinsics | None:
        """Not known."""
        return None

    @property
    def T_base_camera(self) -> NDArray[np.float64] | None:
        """Not known."""
        return None

    @property
    def metadata(self) -> dict[str, Any]:
        """Where it comes from."""
        return {"memory_maze": self.size, "seed": self.seed}

    def __len__(self) -> int:
        return len(self.images)

    def frame(self, index: int) -> Frame:
        """Return frame ``index``; raise DataError outside the episode."""
        if not 0 <= index < len(self):
            raise DataError(f"{self.name}: frame {index} must be in [0, {len(self) - 1}]")
        return Frame(float(self.stamps_s[index]), self.images[index])


def record_memory_maze(frames: int, seed: int, size: str = "9x9", image_px: int = 64) -> MemoryMazeWalk:
    """Walk through a maze of the package: ahead, and another way where that ends.

    Args:
        frames: of the walk, N.
        seed: of maze and walk.
        size: one of SIZES.
        image_px: side of the square images.

    Raises:
        ConfigError: the package is not installed or cannot draw here, or there is no maze of that size.
    """
    check_range("frames", frames, 1)
    environment = _environment(size, seed, image_px)
    rng = np.random.default_rng(seed)
    observation = environment.reset().observation
    images, poses, moves = [_image(observation)], [_pose(observation)], [STAY]
    turn, left = LEFT, 0
    while len(images) < frames:
        stuck = len(poses) > 1 and moves[-1] == AHEAD and math.dist(poses[-1][:2], poses[-2][:2]) < STUCK_M
        if left == 0 and (stuck or rng.random() < TURN_SHARE):
            turn, left = int(rng.choice([LEFT, RIGHT])), int(rng.integers(*TURNS))
        move, left = (turn, left - 1) if left else (AHEAD, 0)
        step = environment.step(move)
        if step.last():
            raise DataError(f"memory maze {size}: the episode ended after {len(images)} frames, asked for {frames}")
        images.append(_image(step.observation))
        poses.append(_pose(step.observation))
        moves.append(move)
    return MemoryMazeWalk(np.stack(images), np.array(poses), np.array(moves, np.int64), size, seed)


def save_walk(path: Path, walk: MemoryMazeWalk) -> None:
    """Write an episode as .npz, atomically."""
    parts: dict[str, Any] = {"images": walk.images, "poses_maze_xyyaw": walk.poses_maze_xyyaw, "moves": walk.moves}
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        np.savez_compressed(handle, size=np.array(walk.size), seed=np.array(walk.seed), **parts)


def load_walk(path: Path) -> MemoryMazeWalk:
    """Read an episode; raise DataError in one line where the file is none."""
    try:
        with np.load(path, allow_pickle=False) as parts:
            arrays = parts["images"], parts["poses_maze_xyyaw"], parts["moves"]
            return MemoryMazeWalk(*arrays, str(parts["size"]), int(parts["seed"]))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: holds no episode of Memory Maze ({error})") from error


def _environment(size: str, seed: int, image_px: int) -> Any:
    if size not in SIZES:
        raise ConfigError(f"size of a memory maze must be one of {', '.join(SIZES)}, got '{size}'")
    os.environ.setdefault("MUJOCO_GL", "osmesa")  # the package itself would take EGL, which needs a GPU
    try:
        tasks = importlib.import_module("memory_maze.tasks")
    except ImportError as error:
        raise ConfigError(f"Memory Maze needs its package ({error}): {INSTALL}") from error
    make: Callable[..., Any] = getattr(tasks, f"memory_maze_{size}")
    try:
        return make(global_observables=True, target_color_in_image=False, camera_resolution=image_px, seed=seed)
    except Exception as error:  # MuJoCo and dm-control of versions that do not fit raise errors of many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"Memory Maze cannot start ({reason}): {INSTALL}") from error


def _image(observation: dict[str, Any]) -> NDArray[np.uint8]:
    return np.array(observation["image"], dtype=np.uint8)


def _pose(observation: dict[str, Any]) -> list[float]:
    """Return x, y and yaw of what the package calls agent_pos, in cells, and agent_dir, along which it goes ahead."""
    x, y = (CELL_M * float(value) for value in observation["agent_pos"])
    across, up = (float(value) for value in observation["agent_dir"])
    return [x, y, math.atan2(up, across)]
