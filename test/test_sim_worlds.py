"""Procedural worlds: the same everywhere, connected, and honest about what is free."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from scipy import ndimage

from come_nav.core.errors import ConfigError
from come_nav.sim.building.floor_plan import make_floor_plan
from come_nav.sim.building.surfaces import ROW_SIZE
from come_nav.sim.spaces import GRID_M
from come_nav.sim.splits import TEST_SEEDS, TRAIN_SEEDS, VALIDATION_SEEDS, split_of
from come_nav.sim.worlds import World, WorldSettings, generate_world

SEEDS = [0, 1, 2, 3, 10001, 20003]
# sha256 of the boxes rounded to a millimetre: trained models and published figures rest on these worlds
DIGESTS = {0: "117445870f5aa6d2", 20003: "5bfa03cf7b1c0481"}


@pytest.fixture(scope="module")
def worlds() -> dict[int, World]:
    return {seed: generate_world(seed) for seed in SEEDS}


def digest(world: World) -> str:
    rounded = np.round(world.boxes.double().numpy(), 3) + 0.0  # + 0.0: no negative zeros
    return hashlib.sha256(rounded.astype("<f8").tobytes()).hexdigest()[:16]


@pytest.mark.parametrize("seed", [0, 20003])
def test_same_seed_same_world(worlds, seed):
    again = generate_world(seed)
    for name in ("boxes", "faces", "floors", "ceilings", "rooms", "doors", "images"):
        assert torch.equal(getattr(worlds[seed], name), getattr(again, name)), name


@pytest.mark.parametrize("seed", list(DIGESTS))
def test_worlds_stay_what_models_were_trained_on(worlds, seed):
    assert digest(worlds[seed]) == DIGESTS[seed]


def test_seeds_give_different_worlds(worlds):
    assert len({digest(world) for world in worlds.values()}) == len(worlds)


def test_size_and_rooms(worlds):
    for world in worlds.values():
        assert 4 <= len(world.rooms) <= 9 and len(world.room_kinds) == len(world.rooms)
        width, height = world.bounds[2], world.bounds[3]
        assert 10.0 < width < 13.0 and 10.0 < height < 13.0
        areas = (world.rooms[:, 2:] - world.rooms[:, :2]).prod(1)
        assert float(areas.sum()) == pytest.approx(width * height, rel=1e-5)  # rooms tile the building
        assert world.faces.shape == (len(world.boxes), 6, ROW_SIZE)
        assert torch.isfinite(world.faces).all() and (world.boxes[:, 2:4] > 0).all()
        assert (world.boxes[:, 6] > world.boxes[:, 5]).all() and (world.boxes[:, 6] <= world.ceiling_m + 1e-5).all()


@pytest.mark.parametrize("furniture", [1.0, 3.0])
def test_a_robot_reaches_every_room_through_the_doors(furniture):
    for seed in SEEDS:
        world = generate_world(seed, WorldSettings(furniture=furniture))
        labels, count = ndimage.label(world.distance_grid > 0.25)
        main = 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
        assert count >= 1
        x = (np.arange(labels.shape[0]) + 0.5) * GRID_M
        y = (np.arange(labels.shape[1]) + 0.5) * GRID_M
        for x0, y0, x1, y1 in world.rooms.tolist():
            inside = (x[:, None] > x0) & (x[:, None] < x1) & (y > y0) & (y < y1)
            assert ((labels == main) & inside).sum() > 100, f"seed {seed}"
        for door_x, door_y, width in world.doors.tolist():
            assert labels[int(door_x / GRID_M), int(door_y / GRID_M)] == main and width >= 0.9


def test_distance_against_corner_sampling(worlds):
    """The distance to a rotated rectangle equals the distance to the nearest of many points on its outline."""
    world = worlds[3]
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(60, 2, generator=generator, dtype=torch.float64) * torch.tensor(world.bounds[2:]).double()
    outline = []
    steps = np.linspace(-1, 1, 161)
    for x, y, half_x, half_y, yaw in world.solid:
        edge = np.concatenate(
            [np.stack([steps * half_x, np.full(161, sign * half_y)], 1) for sign in (-1, 1)]
            + [np.stack([np.full(161, sign * half_x), steps * half_y], 1) for sign in (-1, 1)]
        )
        rotation = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
        outline.append(edge @ rotation.T + [x, y])
    outline = np.concatenate(outline)
    brute = np.linalg.norm(points.numpy()[:, None] - outline, axis=-1).min(1)
    edge_distance = torch.minimum(points, torch.tensor(world.bounds[2:]) - points).amin(1).numpy()
    brute = np.minimum(brute, edge_distance)
    distance = world.distance(points).numpy()
    outside = distance > 0
    assert outside.sum() > 20
    np.testing.assert_allclose(distance[outside], brute[outside], atol=0.02)
    assert (world.free(points, 0.2).numpy() == (distance > 0.2)).all()


def test_grids_agree_with_exact_distances(worlds):
    world = worlds[1]
    grid = world.distance_grid
    x = (torch.arange(grid.shape[0], dtype=torch.float64) + 0.5) * GRID_M
    y = (torch.arange(grid.shape[1], dtype=torch.float64) + 0.5) * GRID_M
    exact = world.distance(torch.stack(torch.meshgrid(x[::7], y[::5], indexing="ij"), -1)).numpy()
    np.testing.assert_allclose(grid[::7, ::5], exact, atol=1e-5)
    occupied = world.occupancy(0.1)
    assert occupied.dtype == bool and 0.05 < occupied.mean() < 0.5


def test_lookalike_rooms_repeat_looks():
    config = WorldSettings(lookalike=1.0)
    world = generate_world(1, config)  # no corridor in this one
    assert "corridor" not in world.room_kinds
    assert len({tuple(row) for row in world.floors[:, [0, 6, 7, 8]].tolist()}) == 1
    different = generate_world(1, WorldSettings(lookalike=0.0))
    assert len({tuple(row) for row in different.floors[:, [0, 6, 7, 8]].tolist()}) == len(different.rooms)


def test_room_of_and_polygons(worlds):
    world = worlds[2]
    centres = 0.5 * (world.rooms[:, :2] + world.rooms[:, 2:])
    assert world.room_of(centres).tolist() == list(range(len(world.rooms)))
    assert world.room_of(torch.tensor([[-1.0, 0.0]])).tolist() == [-1]
    shapes = world.polygons()
    assert len(shapes) == len(world.solid)
    assert all(corners.shape == (4, 2) and 0 <= min(colour) <= max(colour) <= 1 for corners, colour in shapes)


def test_every_kind_of_layout_has_doors_between_all_rooms():
    for seed in range(60):
        plan = make_floor_plan(np.random.default_rng(seed), 11.5, 4, 9)
        reached, frontier = {0}, [0]
        while frontier:
            room = frontier.pop()
            for door in plan.doors:
                pair = {door.room_negative, door.room_positive}
                if room in pair:
                    new = pair - reached
                    reached |= new
                    frontier += list(new)
        assert reached == set(range(len(plan.rooms)))


def test_splits_do_not_overlap():
    assert [split_of(seed) for seed in (0, 9999, 10000, 10099, 20000, 20099)] == (
        ["train"] * 2 + ["validation"] * 2 + ["test"] * 2
    )
    assert not set(TRAIN_SEEDS) & set(VALIDATION_SEEDS) and not set(VALIDATION_SEEDS) & set(TEST_SEEDS)
    with pytest.raises(ConfigError, match="15000"):
        split_of(15000)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size_m": 2.0}, "world.size_m"),
        ({"furniture": float("nan")}, "world.furniture"),
        ({"lookalike": 1.5}, "world.lookalike"),
        ({"rooms_min": 6, "rooms_max": 5}, "world.rooms_max"),
    ],
)
def test_bad_configurations(arguments, message):
    with pytest.raises(ConfigError, match=message):
        WorldSettings(**arguments)


def test_negative_seed():
    with pytest.raises(ConfigError, match="-1"):
        generate_world(-1)
