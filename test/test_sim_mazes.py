"""Mazes: all joined, of the promised size, the same for a seed, apart by split; walks stay in them and come back."""

from collections import deque
from dataclasses import replace

import numpy as np
import pytest
import torch

from come_nav.core.errors import ConfigError
from come_nav.core.geometry import se2
from come_nav.sim.builtin import ideal_camera
from come_nav.sim.episodes import EpisodeRecording
from come_nav.sim.mazes.grid import MAZE_CELLS, make_maze_grid
from come_nav.sim.mazes.maze_looks import BALL_COUNT, BALL_LAYERS, BALL_RADIUS_M, BALLS, CEILING_M, CELL_M
from come_nav.sim.mazes.walks import MOVES_PER_S, Move, WalkSettings, open_cells, walk, walked_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.robot import RobotSettings
from come_nav.sim.splits import TEST_SEEDS, TRAIN_SEEDS
from come_nav.sim.world_sets import MAZE, world_set
from come_nav.sim.worlds import WorldSettings, generate_world

SEEDS = (*range(12), *range(20000, 20004))


def maze(seed):
    return generate_world(seed, world_set(MAZE))


def reached(cells):
    """Return which open cells can be reached from the first of them."""
    start = tuple(np.argwhere(cells)[0])
    found, queue = {start}, deque([start])
    while queue:
        x, y = queue.popleft()
        for beside in ((x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)):
            inside = min(beside) >= 0 and max(beside) < MAZE_CELLS
            if inside and cells[beside] and beside not in found:
                found.add(beside)
                queue.append(beside)
    return found


@pytest.mark.parametrize("seed", range(40))
def test_every_open_cell_is_joined_and_in_one_region(seed):
    grid = make_maze_grid(np.random.default_rng(seed))
    assert grid.open.shape == (MAZE_CELLS, MAZE_CELLS)
    assert len(reached(grid.open)) == int(grid.open.sum())
    assert 1 <= len(grid.rooms) <= 5 and all(x1 - x0 == y1 - y0 == 3 for x0, y0, x1, y1 in grid.rooms)
    count = np.zeros((MAZE_CELLS, MAZE_CELLS), int)
    for x0, y0, x1, y1 in grid.regions:
        count[x0:x1, y0:y1] += 1
    np.testing.assert_array_equal(count, grid.open.astype(int))
    assert all(min(x1 - x0, y1 - y0) == 1 for x0, y0, x1, y1 in grid.corridors)
    assert 0.45 < grid.open.mean() < 0.9


def test_a_maze_is_nine_cells_in_a_ring_of_walls():
    world = maze(3)
    side = (MAZE_CELLS + 2) * CELL_M
    assert world.bounds == (0.0, 0.0, side, side) and world.ceiling_m == CEILING_M
    cells = open_cells(world)
    centres = (np.indices(cells.shape).reshape(2, -1).T + 1.5) * CELL_M
    free = world.free(torch.from_numpy(centres), 0.2).reshape(cells.shape).numpy()
    np.testing.assert_array_equal(free, cells)
    ring = torch.tensor([[0.5 * CELL_M, y] for y in np.arange(0.6, side, CELL_M)])
    beside = world.distance(ring + torch.tensor([CELL_M, 0.0]))
    open_beside = np.concatenate([[False], cells[0], [False]])
    assert (beside[open_beside] > 0).all()
    balls = world.boxes[world.boxes[:, 6] < 1.0]
    assert len(balls) == BALL_COUNT * len(BALL_LAYERS) * 2
    assert float(balls[:, 6].max() - balls[:, 5].min()) == pytest.approx(2 * BALL_RADIUS_M, abs=1e-5)


def test_three_balls_of_three_colours_hang_in_rooms():
    world = maze(5)
    small = world.boxes[:, 6] < 1.0
    colours = {tuple(round(float(value), 3) for value in row) for row in world.faces[small][:, 0, 6:9]}
    assert len(colours) == BALL_COUNT and colours <= {tuple(colour) for colour in BALLS}
    rooms = world.room_of(world.boxes[small][:, :2])
    assert all(world.room_kinds[int(room)] == "room" for room in rooms)


def test_a_seed_is_a_maze_and_other_seeds_are_others():
    first, again = maze(7), maze(7)
    torch.testing.assert_close(first.boxes, again.boxes, rtol=0, atol=0)
    torch.testing.assert_close(first.faces, again.faces, rtol=0, atol=0)
    plans = {open_cells(maze(seed)).tobytes() for seed in SEEDS}
    assert len(plans) == len(SEEDS)
    assert not set(TRAIN_SEEDS) & set(TEST_SEEDS)


def test_a_maze_shares_nothing_with_the_building_of_its_seed_which_stays_as_it_was():
    building = generate_world(7)
    assert building.settings.facts == {} and "kind" not in building.facts
    assert maze(7).facts == {"world": 7, "world_settings": {"kind": "maze"}}
    assert len(building.boxes) != len(maze(7).boxes)


def test_neighbouring_regions_can_be_told_apart():
    world = maze(2)
    colours = world.faces[world.boxes[:, 6] >= CEILING_M][:, :4, 6:9].flatten(0, 1)
    assert len(torch.unique((colours * 1000).round(), dim=0)) >= 6
    assert len(torch.unique((world.floors[:, 6:9] * 1000).round(), dim=0)) >= 6


@pytest.mark.parametrize("changes", [{"photographed": True}, {"furnished": True}, {"kind": "cave"}])
def test_what_a_maze_cannot_have_is_refused(changes):
    with pytest.raises(ConfigError, match=r"world\.kind"):
        WorldSettings(**{"kind": "maze", **changes})


def test_a_robot_and_its_drivers_can_be_there():
    from come_nav.sim.episodes import simulate_episode

    world = maze(4)
    episode = simulate_episode(world, "tour", 20.0, seed=1)
    assert world.free(torch.from_numpy(episode.poses_world_xyyaw[:, :2]), 0.19).all()
    assert episode.path_length_m > 2.0


@pytest.mark.parametrize("seed", [0, 11, 20001])
def test_a_walk_stays_free_of_walls_and_balls_and_moves_as_it_says(seed):
    world = maze(seed)
    poses, moves = walk(world, 300, 5)
    assert world.free(torch.from_numpy(poses[:, :2]), RobotSettings().radius_m).all()
    steps = se2.relative(poses[:-1], poses[1:])
    expected = {
        Move.STAY: (0.0, 0.0, 0.0),
        Move.AHEAD: (CELL_M / 2, 0.0, 0.0),
        Move.LEFT: (0.0, 0.0, np.pi / 4),
        Move.RIGHT: (0.0, 0.0, -np.pi / 4),
    }
    np.testing.assert_allclose(steps, [expected[Move(move)] for move in moves[1:]], atol=1e-9)
    assert moves[0] == Move.STAY and set(moves[1:].tolist()) >= {Move.AHEAD, Move.LEFT, Move.RIGHT}
    again, _ = walk(world, 300, 5)
    np.testing.assert_array_equal(again, poses)
    assert not np.array_equal(walk(world, 300, 6)[0], poses)


def test_a_walk_comes_back_to_the_very_same_poses():
    poses, _ = walk(maze(1), 400, 0)
    assert len(np.unique(poses.round(6), axis=0)) < 300
    still, _ = walk(maze(1), 50, 0, WalkSettings(revisit=1.0, look_around=0.0))
    assert len(np.unique(still, axis=0)) == 1  # it has been nowhere else


def test_a_walk_is_a_recording_and_a_building_cannot_be_walked():
    world = maze(6)
    episode = walked_episode(world, 9, 2)
    recording = EpisodeRecording(episode, Raycaster([world], ideal_camera(16)), use_truth=True)
    assert len(recording) == 9 and recording.rate_hz == MOVES_PER_S
    assert recording.frame(8).rgb.shape == (16, 16, 3) and recording.metadata["driver"] == "walk"
    np.testing.assert_allclose(recording.poses_xyyaw[0], 0.0, atol=1e-12)
    with pytest.raises(ConfigError, match="is a building, not a maze"):
        walk(replace(world, settings=WorldSettings()), 5, 0)


def test_views_from_inside_see_walls_within_the_maze():
    world = maze(9)
    poses, _ = walk(world, 20, 3)
    images, depth = Raycaster([world], ideal_camera(16)).render(torch.from_numpy(poses))
    assert torch.isfinite(images).all() and float(depth.min()) > 0.2
    assert float(depth.max()) < np.hypot(*world.bounds[2:])
