"""Asset packs, photographed materials, visits that differ, people: all off by default, and bit-equal when off."""

from __future__ import annotations

import itertools
import json
import math
import zipfile
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from come_nav.cli.main import main
from come_nav.core.errors import ConfigError, DataError
from come_nav.core.types import CameraIntrinsics
from come_nav.sim.assets.collect import collect
from come_nav.sim.assets.pack import HELD_OUT, TRAIN, AssetPack, half_of, read_pack
from come_nav.sim.assets.sources import sources_in, surface_of
from come_nav.sim.builtin import BuiltInSimulator
from come_nav.sim.driving.grid_planner import GridPlanner
from come_nav.sim.episodes import EpisodeRecording, simulate_episode
from come_nav.sim.people import Crowd, Walker, walkers_of
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.world_sets import WORLD_SETS, world_set
from come_nav.sim.worlds import World, WorldSettings, generate_world

CAMERA = CameraIntrinsics.from_field_of_view(64, 48, math.pi / 2)
KINDS = {"concrete": 8, "wood": 6, "ceiling_tiles": 6}
TEXTURES = [f"{kind}_{number}" for kind, count in KINDS.items() for number in range(count)]
CATALOGUE = """license=CC0
id#1=Test#stool
model#1=/test/stool/stool.obj
category#1=Living room
width#1=40
depth#1=30
height#1=45.5
creator#1=Somebody
id#2=Test#lamp
model#2=/test/lamp/lamp.dae
width#2=20
depth#2=20
height#2=50
"""


def png(colour: tuple[int, int, int]) -> bytes:
    image = np.full((32, 32, 3), colour[::-1], np.uint8)
    return bytes(cv2.imencode(".png", image)[1])


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A folder with a wheel like miniworld's and a furniture catalogue."""
    folder = tmp_path_factory.mktemp("packages")
    with zipfile.ZipFile(folder / "miniworld-9.9.0-py3-none-any.whl", "w") as wheel:
        for number, name in enumerate(TEXTURES):
            wheel.writestr(f"miniworld/textures/{name}.png", png((255, 10 * number, 0)))
        for number in range(12):
            wheel.writestr(f"miniworld/textures/portraits/p{number}.png", png((0, 0, 255)))
        wheel.writestr("miniworld/textures/lava_1.png", png((255, 0, 0)))
        wheel.writestr("miniworld/textures/chars/ch_1.png", png((0, 0, 0)))
        wheel.writestr("miniworld-9.9.0.dist-info/METADATA", "Name: miniworld\nLicense: Apache\n")
    with zipfile.ZipFile(folder / "test.sh3f", "w") as archive:
        archive.writestr("PluginFurnitureCatalog.properties", CATALOGUE)
        archive.writestr("test/stool/stool.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
        archive.writestr("test/stool/stool.mtl", "newmtl a\n")
        archive.writestr("test/stool/../../escape.obj", "v 0 0 0\n")
    return folder


@pytest.fixture(scope="module")
def pack(packages, tmp_path_factory) -> AssetPack:
    return collect(sources_in(packages), tmp_path_factory.mktemp("pack"))


def same(one: World, two: World) -> bool:
    names = ("boxes", "faces", "floors", "ceilings", "images", "doors", "rooms")
    return all(torch.equal(getattr(one, name), getattr(two, name)) for name in names)


# -- packs -----------------------------------------------------------------------------------------------------------


def test_a_pack_lists_what_it_holds_with_licences(pack, packages):
    assert {material.name for material in pack.materials} >= {"miniworld/concrete_0", "miniworld/portraits/p3"}
    assert not any("lava" in material.name or "chars" in material.name for material in pack.materials)
    assert {(material.source, material.licence) for material in pack.materials} == {("miniworld-9.9.0", "Apache")}
    (stool,) = pack.models
    assert (stool.licence, stool.author, stool.category) == ("CC0", "Somebody", "Living room")
    assert stool.size_m == pytest.approx((0.4, 0.3, 0.455))
    model = pack.folder / stool.file
    assert model.read_text().startswith("v 0 0 0") and model.with_suffix(".mtl").is_file()
    assert not list(pack.folder.parent.rglob("escape.obj"))
    assert read_pack(pack.folder) == pack


def test_halves_follow_from_names_alone(pack):
    assert half_of("miniworld/concrete_0") == half_of("miniworld/concrete_0")
    halves = [half_of(f"name {number}") for number in range(400)]
    assert halves.count(TRAIN) == pytest.approx(200, abs=50)
    for kind in ("floor", "wood", "painting"):
        both = [{material.name for material in pack.of_kind(kind, half)} for half in (TRAIN, HELD_OUT)]
        assert both[0] and both[1] and not both[0] & both[1]
    # a hash that ever changes would let held-out materials into training
    assert [half_of(f"miniworld/brick_wall_{n}") for n in (1, 2, 3, 4)] == [TRAIN, HELD_OUT, TRAIN, TRAIN]


@pytest.mark.parametrize(
    ("file", "kinds"),
    [
        ("brick_wall_1.png", ("wall",)),
        ("concrete_tiles_1.png", ("floor",)),
        ("concrete_4.png", ("floor", "wall")),
        ("floor_tiles_bw_1.png", ("floor",)),
        ("ceiling_tiles_1.png", ("ceiling",)),
        ("ceiling_tile_noborder_1.png", ("ceiling",)),
        ("door_steel_red.png", ("front",)),
        ("wood_planks_1.png", ("floor", "wood")),
        ("lava_1.png", None),
        ("water_2.png", None),
    ],
)
def test_surfaces_are_known_by_name(file, kinds):
    found = surface_of(file)
    assert (None if found is None else found[0]) == kinds


def test_packs_that_are_missing_or_damaged_are_told(tmp_path, pack):
    with pytest.raises(ConfigError, match="come-nav assets collect"):
        read_pack(tmp_path)
    for text in ("{", '{"version": 1}', '{"version": 1, "materials": [{"name": "x"}], "models": []}', "[]"):
        (tmp_path / "index.json").write_text(text)
        with pytest.raises(DataError, match=r"index\.json"):
            read_pack(tmp_path)
    with pytest.raises(ConfigError, match="--from"):
        sources_in(tmp_path / "nothing")
    (tmp_path / "index.json").write_text((pack.folder / "index.json").read_text())
    with pytest.raises(DataError, match="cannot be read as an image"):
        generate_world(3, WorldSettings(photographed=True, assets=str(tmp_path)))


def test_the_verb_collects_and_lists(packages, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert main(["assets", "collect", "--from", str(packages), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["folder"] == str(tmp_path / "come_nav" / "assets") and len(document["models"]) == 1
    assert any("no OBJ" in line for line in document["left_out"])
    assert main(["assets", "list"]) == 0
    assert "CC0" in capsys.readouterr().out
    assert main(["assets", "collect", "--pip", "no_such_package_at_all"]) == 1
    assert "pip install" in capsys.readouterr().err


# -- photographed worlds ---------------------------------------------------------------------------------------------


def test_worlds_without_a_pack_are_as_ever(pack):
    plain = generate_world(5)
    assert same(plain, generate_world(5, WorldSettings(assets=str(pack.folder))))
    assert same(plain, generate_world(5, replace(WORLD_SETS["lively"], visit=0, door_leaves=False)))
    assert plain.facts == {"world": 5}


def test_photographs_cover_floors_walls_and_wood(pack):
    settings = WorldSettings(photographed=True, assets=str(pack.folder))
    world, plain = generate_world(5, settings), generate_world(5)
    assert torch.equal(world.boxes, plain.boxes) and len(world.images) > len(plain.images)
    assert bool((world.floors[:, 0] < -10).all()) and bool((world.ceilings[:, 0] < -10).all())
    highest = -1 - int(min(world.floors[:, 0].min(), world.faces[..., 0].min()))
    assert highest < len(world.images)
    used = world.images[10:].numpy()
    names = {material.name for material in pack.materials if material.half == TRAIN}
    greens = {round(float(image[1, 0, 0]) * 255 / 10) for image in used}  # as the images were coloured
    assert {TEXTURES[number] for number in greens} <= {name.partition("/")[2] for name in names}


def test_test_worlds_show_held_out_materials_alone(pack):
    settings = WorldSettings(photographed=True, assets=str(pack.folder))
    shown = {
        seed: {round(float(image[1, 0, 0]) * 255 / 10) for image in generate_world(seed, settings).images[10:]}
        for seed in (3, 20003, 10003)
    }
    assert not shown[3] & shown[20003] and not shown[3] & shown[10003]
    assert all(half_of(f"miniworld/{TEXTURES[number]}") == HELD_OUT for number in shown[20003])


def test_a_photograph_has_its_own_size(pack):
    world = generate_world(5, WorldSettings(photographed=True, assets=str(pack.folder)))
    per_metre = torch.hypot(world.floors[:, 1], world.floors[:, 2])
    repeats = {round(1.0 / float(value), 3) for value in per_metre}
    assert repeats <= {1.5, 0.9}  # concrete and wood


def test_worlds_with_different_numbers_of_images_render_together(pack):
    photographed = generate_world(5, WorldSettings(photographed=True, assets=str(pack.folder)))
    plain = generate_world(6)
    poses = torch.tensor([[*room_centre(photographed), 0.3], [*room_centre(plain), 0.3]])
    together = Raycaster([photographed, plain], CAMERA).render(poses, torch.tensor([0, 1]))[0]
    alone = [Raycaster([world], CAMERA).render(poses[i : i + 1])[0] for i, world in enumerate((photographed, plain))]
    np.testing.assert_allclose(together.numpy(), torch.cat(alone).numpy(), atol=5e-4)  # float32 rows


def room_centre(world: World) -> tuple[float, float]:
    x0, y0, x1, y1 = world.rooms[0].tolist()
    return 0.5 * (x0 + x1), 0.5 * (y0 + y1)


# -- visits ----------------------------------------------------------------------------------------------------------


def test_chairs_move_between_visits_and_nothing_else(pack):
    first = generate_world(7)
    again = generate_world(7, WorldSettings(visit=1, moved=1.0))
    third = generate_world(7, WorldSettings(visit=2, moved=1.0))
    assert len(again.boxes) == len(first.boxes) == len(third.boxes)
    differs = (again.boxes != first.boxes).any(1)
    assert 0 < int(differs.sum()) < 0.5 * len(differs)
    shift = (again.boxes - first.boxes)[differs][:, :2].norm(dim=1)
    assert float(shift.max()) < 2.5 and not torch.equal(again.boxes, third.boxes)
    assert torch.equal(again.boxes, generate_world(7, WorldSettings(visit=1, moved=1.0)).boxes)
    assert torch.equal(again.images, first.images) and torch.equal(again.floors, first.floors)


@pytest.mark.parametrize("seed", [7, 12, 20003])
def test_doors_have_leaves_that_stand_at_other_angles_and_leave_the_way_free(seed):
    first = generate_world(seed, WorldSettings(door_leaves=True))
    again = generate_world(seed, WorldSettings(door_leaves=True, visit=1))
    plain = generate_world(seed)
    leaves = len(first.boxes) - len(plain.boxes)
    assert 0 < leaves <= len(plain.doors)
    angles = [_leaves(world)[:, 4] for world in (first, again)]
    assert len(angles[0]) == leaves and not torch.equal(angles[0][: len(angles[1])], angles[1])
    centres = [room_centre_of(room) for room in plain.rooms]
    before, after = GridPlanner(plain, 0.2), GridPlanner(first, 0.2)
    for start, stop in itertools.pairwise(centres):
        if before.plan(start, stop) is not None:
            assert after.plan(start, stop) is not None


def _leaves(world: World) -> torch.Tensor:
    """Boxes (N, 7) as thin and high as a door's leaf."""
    return world.boxes[((world.boxes[:, 3] - 0.02).abs() < 1e-5) & (world.boxes[:, 6] == 2.0)]


def room_centre_of(room: torch.Tensor) -> tuple[float, float]:
    x0, y0, x1, y1 = room.tolist()
    return 0.5 * (x0 + x1), 0.5 * (y0 + y1)


def test_light_changes_by_its_spread_and_geometry_does_not():
    ratios = []
    for visit in range(1, 40):
        plain, other = generate_world(9), generate_world(9, WorldSettings(visit=visit, light_change=0.3))
        assert torch.equal(plain.boxes, other.boxes)
        lit = plain.floors[:, 11] > 0
        ratios.append((other.floors[:, 11] / plain.floors[:, 11])[lit])
    logs = torch.cat(ratios).log()
    assert float(logs.std()) == pytest.approx(0.3, rel=0.15) and abs(float(logs.mean())) < 0.08


def test_a_place_keeps_its_materials_from_visit_to_visit(pack):
    settings = replace(WORLD_SETS["photographed-lively"], assets=str(pack.folder))
    one, two = (generate_world(7, replace(settings, visit=visit)) for visit in (1, 2))

    def floors(world: World) -> list[float]:
        return [float(world.images[-1 - int(row[0])].sum()) for row in world.floors]

    assert floors(one) == floors(two)


# -- people ----------------------------------------------------------------------------------------------------------


def test_people_walk_at_their_speed_on_free_floor():
    world = generate_world(7, WorldSettings(people=4))
    times = np.linspace(0.0, 60.0, 601)
    for walker in walkers_of(world):
        places = walker.at(times)
        assert bool(world.free(torch.from_numpy(places), 0.1).all())
        steps = np.hypot(*np.diff(places, axis=0).T)
        assert np.median(steps) == pytest.approx(0.1 * walker.speed_mps, rel=0.05)
    again = walkers_of(generate_world(7, WorldSettings(people=4)))
    np.testing.assert_array_equal(again[2].way_xy, walkers_of(world)[2].way_xy)


@pytest.mark.parametrize("pitch_rad", [0.0, -0.3, 0.2])
def test_a_person_is_as_high_and_as_far_as_it_stands(pitch_rad):
    """A person 3 m ahead, over a floor: depth along the axis, and the rows of head and feet."""
    camera = CameraIntrinsics.from_field_of_view(200, 200, math.radians(100.0))
    walker = Walker(np.array([[3.0, 0.0], [3.0, 1e-6]]), 1.0, 1.0, np.full((3, 3), 0.5))
    crowd = Crowd([walker], camera, 1.0, pitch_rad)
    images, depth = torch.full((1, 3, 200, 200), -1.0), torch.full((1, 200, 200), 50.0)
    crowd.paint(images, depth, np.zeros((1, 3)), np.zeros(1))
    rows, columns = np.nonzero(depth[0].numpy() < 50.0)

    def row_of(height_m: float) -> float:
        up, ahead = height_m - 1.0, 3.0
        forward = ahead * math.cos(pitch_rad) + up * math.sin(pitch_rad)
        rise = up * math.cos(pitch_rad) - ahead * math.sin(pitch_rad)
        return camera.cy - camera.fy * rise / forward

    assert rows.min() == pytest.approx(row_of(1.72), abs=1.5) and rows.max() == pytest.approx(row_of(0.0), abs=1.5)
    assert columns.mean() == pytest.approx(99.5, abs=0.6)
    middle = depth[0, int(row_of(1.1)), 100]
    assert float(middle) == pytest.approx(3.0 * math.cos(pitch_rad) + 0.1 * math.sin(pitch_rad), abs=0.02)


def test_what_stands_before_a_person_hides_it():
    crowd = Crowd([Walker(np.array([[3.0, 0.0], [3.0, 1e-6]]), 1.0, 1.0, np.full((3, 3), 0.5))], CAMERA, 1.0, 0.0)
    images, depth = torch.full((1, 3, 48, 64), -1.0), torch.full((1, 48, 64), 2.0)
    crowd.paint(images, depth, np.zeros((1, 3)), np.zeros(1))
    assert bool((images == -1.0).all()) and bool((depth == 2.0).all())


def test_recordings_and_the_simulator_show_people():
    settings = WorldSettings(people=12)
    world, plain = generate_world(7, settings), generate_world(7)
    episode = simulate_episode(plain, "tour", 20.0, 4.0, 1)
    with_people = EpisodeRecording(episode, Raycaster([world], CAMERA)).frames(0, 80)
    without = EpisodeRecording(episode, Raycaster([plain], CAMERA)).frames(0, 80)
    changed = [not np.array_equal(one.rgb, two.rgb) for one, two in zip(with_people, without, strict=True)]
    assert 5 < sum(changed) < 80
    nearer = [(one.depth_m <= two.depth_m).all() for one, two in zip(with_people, without, strict=True)]
    assert all(nearer)
    simulator = BuiltInSimulator.in_world(world, seed=2)
    first = simulator.observe()[0]
    simulator.step(0.0, 0.0, 5.0)
    assert simulator.pose_world_xyyaw is not None and first.stamp_s < simulator.observe()[0].stamp_s


def test_sets_of_worlds_are_named():
    assert world_set(None) == world_set("built-in") == WorldSettings()
    with pytest.raises(ConfigError, match="photographed"):
        world_set("fotographed")
    assert generate_world(4, WORLD_SETS["lively"]).facts["world_settings"]["people"] == 3
