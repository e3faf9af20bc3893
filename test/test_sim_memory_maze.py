"""The adapter to Memory Maze, with a stand-in for the package: frames, poses, the way around walls, one clear error."""

import sys
import types

import numpy as np
import pytest

from come_nav.core.errors import ConfigError, DataError
from come_nav.sim.mazes import memory_maze
from come_nav.sim.mazes.memory_maze import CELL_M, load_walk, record_memory_maze, save_walk

TURN_RAD, STEP_CELLS, WALL = 0.35, 0.2, 4.0


class Step:
    def __init__(self, observation, last):
        self.observation, self._last = observation, last

    def last(self):
        return self._last


class Maze:
    """An empty square of four cells: whoever runs into its wall stays where they are."""

    def __init__(self, **asked):
        self.asked, self.position, self.yaw, self.steps = asked, np.array([2.0, 2.0]), 0.0, 0

    def reset(self):
        return self._step()

    def step(self, action):
        if action == memory_maze.AHEAD:
            there = self.position + STEP_CELLS * np.array([np.cos(self.yaw), np.sin(self.yaw)])
            if (there > 0).all() and (there < WALL).all():
                self.position = there
        else:
            self.yaw += TURN_RAD if action == memory_maze.LEFT else -TURN_RAD
        self.steps += 1
        return self._step()

    def _step(self):
        size = self.asked["camera_resolution"]
        image = np.full((size, size, 3), self.steps % 256, np.uint8)
        facing = np.array([np.cos(self.yaw), np.sin(self.yaw)])
        return Step({"image": image, "agent_pos": self.position, "agent_dir": facing}, self.steps >= 500)


@pytest.fixture
def package(monkeypatch):
    made = []

    def make(**asked):
        made.append(Maze(**asked))
        return made[-1]

    tasks = types.ModuleType("memory_maze.tasks")
    tasks.memory_maze_9x9 = make
    parent = types.ModuleType("memory_maze")
    parent.tasks = tasks
    monkeypatch.setitem(sys.modules, "memory_maze", parent)
    monkeypatch.setitem(sys.modules, "memory_maze.tasks", tasks)
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    return made


def test_an_episode_is_a_recording_in_metres(package):
    walk = record_memory_maze(300, seed=4, image_px=16)
    assert package[0].asked == {
        "global_observables": True,
        "target_color_in_image": False,
        "camera_resolution": 16,
        "seed": 4,
    }
    assert walk.images.shape == (300, 16, 16, 3) and walk.images[7, 0, 0, 0] == 7
    np.testing.assert_allclose(walk.poses_maze_xyyaw[0], [2 * CELL_M, 2 * CELL_M, 0.0])
    np.testing.assert_allclose(walk.poses_xyyaw[0], 0.0, atol=1e-12)
    moved = np.hypot(*np.diff(walk.poses_maze_xyyaw[:, :2], axis=0).T)
    ahead = walk.moves[1:] == memory_maze.AHEAD
    assert np.isclose(moved[ahead], STEP_CELLS * CELL_M).mean() > 0.6 and np.allclose(moved[~ahead], 0.0)
    longest = max(len(run) for run in "".join("s" if still else "m" for still in (moved < 0.01) & ahead).split("m"))
    assert longest <= 1  # what runs into a wall turns away
    frame = walk.frame(3)
    assert frame.stamp_s == 0.75 and frame.depth_m is None and walk.T_odom_base.shape == (300, 4, 4)
    with pytest.raises(DataError, match="frame 300 must be in"):
        walk.frame(300)


def test_the_same_seed_is_the_same_walk(package):
    first, again, other = (record_memory_maze(60, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.moves, again.moves)
    assert not np.array_equal(first.moves, other.moves)


def test_an_episode_is_kept_and_read_back(package, tmp_path):
    walk = record_memory_maze(10, 3)
    save_walk(tmp_path / "walk.npz", walk)
    again = load_walk(tmp_path / "walk.npz")
    assert again.name == walk.name == "memory-maze-9x9-3"
    for name in ("images", "poses_maze_xyyaw", "moves"):
        np.testing.assert_array_equal(getattr(again, name), getattr(walk, name))
    (tmp_path / "other.npz").write_bytes(b"no")
    with pytest.raises(DataError, match="holds no episode"):
        load_walk(tmp_path / "other.npz")


def test_an_episode_that_ends_is_told(package):
    with pytest.raises(DataError, match="ended after 500 frames, asked for 600"):
        record_memory_maze(600, 0)


def test_without_the_package_one_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "memory_maze", None)
    monkeypatch.setitem(sys.modules, "memory_maze.tasks", None)
    with pytest.raises(
        ConfigError, match=r"pip install memory-maze gym 'dm-control==1\.0\.31' 'mujoco==3\.3\.3'"
    ) as caught:
        record_memory_maze(5, 0)
    assert "\n" not in str(caught.value)


def test_a_package_that_cannot_draw_is_told_in_one_line(package, monkeypatch):
    def broken(**asked):
        raise AttributeError("no attribute 'flex_elem'\nand much more")

    monkeypatch.setattr(sys.modules["memory_maze.tasks"], "memory_maze_9x9", broken)
    with pytest.raises(ConfigError, match=r"cannot start .no attribute 'flex_elem'.: pip install"):
        record_memory_maze(5, 0)


def test_an_unknown_size_is_refused():
    with pytest.raises(ConfigError, match="must be one of"):
        record_memory_maze(5, 0, "8x8")
