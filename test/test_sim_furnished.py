"""Furnished worlds: models stand where they should, as large as they should, look as boxes do, and stop robots."""

from __future__ import annotations

import itertools
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
from come_nav.sim.assets.pack import HELD_OUT, TRAIN, AssetPack, Model, half_of, read_pack
from come_nav.sim.assets.shelf import RULES, SMALL, shelf_of
from come_nav.sim.assets.sources import sources_in
from come_nav.sim.building.modelled import PlacedModel
from come_nav.sim.building.surfaces import Box, Lights, SurfaceBuilder, pattern
from come_nav.sim.episodes import EpisodeRecording, simulate_episode
from come_nav.sim.meshes.furniture_mesh import furniture_mesh
from come_nav.sim.meshes.furniture_view import FurnishedScenes
from come_nav.sim.meshes.texels import Texels
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.robot import Robot, RobotSettings
from come_nav.sim.sensors.mounting import MountedCamera
from come_nav.sim.world_sets import WORLD_SETS, world_set
from come_nav.sim.worlds import World, WorldSettings, generate_world
from come_nav.training.data.frames import STEPS_PER_WORLD, FrameStream, chosen_worlds
from come_nav.training.data.windows import step_generator

CAMERA = CameraIntrinsics.from_field_of_view(64, 48, math.pi / 2)
# one of each kind that rooms ask for: title, width, depth and height in cm
PIECES = {
    "Table": (140, 80, 75),
    "Coffee table": (90, 50, 45),
    "Chair": (45, 50, 90),
    "Stool": (40, 40, 50),
    "Bookcase": (100, 35, 180),
    "Wardrobe": (120, 60, 200),
    "Dresser": (100, 50, 80),
    "Sofa": (180, 80, 80),
    "Bed": (150, 205, 60),
    "Plant": (50, 50, 110),
    "Crate": (50, 50, 50),
    "Fridge": (60, 60, 170),
    "Lower cabinet": (80, 60, 88),
    "Vase": (20, 20, 30),
}
BOX = """mtllib box.mtl
v -1 0 -1
v 1 0 -1
v 1 0 1
v -1 0 1
v -1 2 -1
v 1 2 -1
v 1 2 1
v -1 2 1
vt 0 0
vt 1 0
vt 1 1
vt 0 1
usemtl front
f 4/1 3/2 7/3 8/4
usemtl plain
f 2/1 1/1 5/1 6/1
f 1/1 4/1 8/1 5/1
f 3/1 2/1 6/1 7/1
f 5/1 8/1 7/1 6/1
f 1/1 2/1 3/1 4/1
"""
# the quarters of the front: red, green / blue, white, as somebody before it sees them
QUARTERS = np.array([[[0, 0, 255], [0, 255, 0]], [[255, 0, 0], [255, 255, 255]]], np.uint8).repeat(8, 0).repeat(8, 1)
MATERIALS = "newmtl front\nKd 1 1 1\nmap_Kd front.png\nnewmtl plain\nKd 0.5 0.5 0.5\n"
L_SHAPE = """v 0 0 0
v 2 0 0
v 2 0 1
v 1 0 1
v 1 0 2
v 0 0 2
f 1 2 3 4
f 1 4 5 6
v 0 1 0
v 2 1 0
f 1 2 8 7
"""
LIGHTS = Lights(np.array([[2.0, 2.5, 2.45], [2.0, 2.5, 2.45]]), np.array([1.0, 0.0]), np.array([1.0, 0.9, 0.8]))


def catalogue() -> tuple[str, list[str]]:
    """A catalogue with three models of every title in each half, and their names."""
    lines, names, number = ["license=CC0"], [], 0
    for title, size in PIECES.items():
        found = {TRAIN: 0, HELD_OUT: 0}
        for index in itertools.count():
            name = f"Test#{title.replace(' ', '')}{index}"
            half = half_of(f"test/{name.replace('#', '/')}")
            if found[half] < 3:
                found[half] += 1
                number += 1
                values = {"id": name, "name": title, "model": f"/test/m{number}/box.obj", "category": "Living room"}
                values |= dict(zip(("width", "depth", "height"), map(str, size), strict=True)) | {"creator": "Somebody"}
                lines += [f"{key}#{number}={value}" for key, value in values.items()]
                names.append(f"m{number}")
            if min(found.values()) == 3:
                break
    return "\n".join(lines), names


@pytest.fixture(scope="module")
def pack(tmp_path_factory) -> AssetPack:
    folder = tmp_path_factory.mktemp("packages")
    text, names = catalogue()
    front = bytes(cv2.imencode(".png", QUARTERS)[1])
    with zipfile.ZipFile(folder / "test.sh3f", "w") as archive:
        archive.writestr("PluginFurnitureCatalog.properties", text)
        for name in names:
            archive.writestr(f"test/{name}/box.obj", BOX)
            archive.writestr(f"test/{name}/box.mtl", MATERIALS)
            archive.writestr(f"test/{name}/front.png", front)
    with zipfile.ZipFile(folder / "miniworld-9.9.0-py3-none-any.whl", "w") as wheel:
        for kind, number in itertools.product(("concrete", "wood", "ceiling_tiles"), range(6)):
            wheel.writestr(f"miniworld/textures/{kind}_{number}.png", front)
    return collect(sources_in(folder), tmp_path_factory.mktemp("pack"))


def settings_of(pack: AssetPack, name: str = "furnished") -> WorldSettings:
    return replace(WORLD_SETS[name], assets=str(pack.folder))


def placed(pack: AssetPack, title: str, **place: float) -> PlacedModel:
    model = next(model for model in pack.models if model.title == title)
    return PlacedModel(model, pack.folder, lights=LIGHTS, **place)


def empty_room(*models: PlacedModel, box: Box | None = None) -> World:
    """A room of 4 x 5 m with these models, or with a grey box."""
    world, builder = generate_world(7), SurfaceBuilder()
    builder.add_uniform(Box(30.0, 30.0, 0.1, 0.1, 0.0, 1.0), pattern("plain", (0.5, 0.5, 0.5)), LIGHTS)
    if box is not None:
        builder.add_uniform(box, pattern("plain", (0.5, 0.5, 0.5)), LIGHTS)
    return replace(
        world,
        bounds=(0.0, 0.0, 4.0, 5.0),
        ceiling_m=2.6,
        boxes=torch.tensor(builder.boxes),
        faces=torch.tensor(builder.rows).reshape(-1, 6, 15),
        rooms=torch.tensor([[0.0, 0.0, 4.0, 5.0]]),
        floors=world.floors[:1],
        ceilings=world.ceilings[:1],
        models=models,
    )


# -- models ----------------------------------------------------------------------------------------------------------


def test_models_have_their_catalogues_size_and_stand_on_the_floor(pack):
    mesh = placed(pack, "Sofa").mesh
    np.testing.assert_allclose(mesh.vertices.min(0), [-0.9, -0.4, 0.0], atol=1e-6)
    np.testing.assert_allclose(mesh.vertices.max(0), [0.9, 0.4, 0.8], atol=1e-6)
    assert mesh is placed(pack, "Sofa").mesh  # read once


def test_a_catalogues_rotation_turns_the_files_axes(tmp_path):
    """A model with z up: its catalogue turns it so that y is up."""
    path = tmp_path / "post.obj"
    path.write_text("v 0 0 0\nv 1 0 0\nv 0 0 4\nv 0 2 0\nf 1 2 3\nf 1 2 4\n")
    mesh = furniture_mesh(path, (1.0, 2.0, 4.0), (1, 0, 0, 0, 0, 1, 0, -1, 0))
    highest = mesh.vertices[mesh.vertices[:, 2].argmax()]
    assert highest[2] == pytest.approx(4.0)
    np.testing.assert_allclose(mesh.vertices.max(0) - mesh.vertices.min(0), [1.0, 2.0, 4.0], atol=1e-6)


def test_footprints_leave_out_what_a_corner_sofa_leaves_out(tmp_path):
    path = tmp_path / "corner.obj"
    path.write_text(L_SHAPE)
    mesh = furniture_mesh(path, (2.0, 2.0, 0.8))
    area = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in mesh.footprint)
    assert area == pytest.approx(3.0, rel=0.12)  # of 4, and what cells add at the edges

    def covered(x: float, y: float) -> bool:
        return any(x0 <= x <= x1 and y0 <= y <= y1 for x0, y0, x1, y1 in mesh.footprint)

    # the file's x runs to the right for who looks along +y; in the model's frame, whose front is +y, to the left
    assert covered(0.9, -0.9) and covered(0.9, 0.9) and covered(-0.9, -0.9) and not covered(-0.5, 0.5)


@pytest.mark.parametrize("seed", range(3))
def test_footprints_cover_triangles_and_little_else(tmp_path, seed):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0.0, 2.0, (4, 3, 2))
    lines = [f"v {x} {z} {y}" for triangle in corners for (x, y), z in zip(triangle, (0.0, 0.5, 0.2), strict=True)]
    path = tmp_path / f"any{seed}.obj"
    path.write_text("\n".join([*lines, *(f"f {3 * n + 1} {3 * n + 2} {3 * n + 3}" for n in range(4))]))
    mesh = furniture_mesh(path, (*np.ptp(corners.reshape(-1, 2), axis=0).tolist(), 0.5))
    shares = rng.dirichlet([1.0, 1.0, 1.0], (4, 1500))
    points = (shares @ mesh.vertices[mesh.triangles][..., :2]).reshape(-1, 2)
    low, high = mesh.footprint[:, None, :2], mesh.footprint[:, None, 2:]
    outside = np.maximum(np.maximum(low - points, points - high), 0.0)
    assert np.hypot(*outside.transpose(2, 0, 1)).min(0).max() < 0.03  # half a cell
    cells = np.concatenate([rng.uniform(one[0], two[0], (20, 2)) for one, two in zip(low, high, strict=True)])
    nearest = np.array([np.hypot(*(points - cell).T).min() for cell in cells])
    assert nearest.max() < 0.05 * math.sqrt(2.0) + 0.08  # a cell's diagonal, and how far apart the points may lie


def test_coarse_levels_of_texels_are_means():
    image = np.random.default_rng(0).random((16, 32, 3), dtype=np.float32)
    texels = Texels([image])
    place = np.array([[0.3, 0.7]], np.float32)
    mean = texels.sample(np.array([0]), place, np.array([9.0]))
    np.testing.assert_allclose(mean[0], image.mean((0, 1)), atol=0.01)
    fine = texels.sample(np.array([0, -1]), np.array([[2.5 / 32, 1 - 4.5 / 16]] * 2, np.float32), np.zeros(2))
    np.testing.assert_allclose(fine, [image[4, 2], np.ones(3)], atol=0.005)


# -- what cameras see ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pitch_deg", "roll_deg"), [(0.0, 0.0), (-15.0, 0.0), (8.0, 5.0)])
def test_a_model_of_a_box_looks_like_a_box(pack, pitch_deg, roll_deg):
    """Depth, colour and light of a plain box, from Open3D and from the ray-caster of boxes."""
    crate = placed(pack, "Wardrobe", x=2.0, y=2.4, yaw=0.3 + math.pi)  # its image looks away
    modelled = empty_room(crate)
    boxed = empty_room(box=Box(2.0, 2.4, 0.6, 0.3, 0.0, 2.0, 0.3))
    camera = MountedCamera(CAMERA, 0.8, math.radians(pitch_deg), math.radians(roll_deg))
    pose = torch.tensor([[0.6, 3.6, -0.6], [3.5, 4.2, -2.2]])
    images, depth = Raycaster.of_camera([modelled], camera).render(pose)
    expected, expected_depth = Raycaster.of_camera([boxed], camera).render(pose)
    differs = (depth - expected_depth).abs() > 0.02
    assert float(differs.float().mean()) < 0.03  # outlines alone
    empty_depth = Raycaster.of_camera([empty_room()], camera).render(pose)[1]
    on_box = ((expected_depth - empty_depth).abs() > 0.05) & ~differs
    assert float(on_box.float().mean()) > 0.05
    error = (images - expected).abs().amax(1)[on_box]
    assert float(error.median()) < 0.02 and float((error > 0.1).float().mean()) < 0.05


def test_the_front_shows_its_image_the_right_way_round(pack):
    """A robot before the front sees the image's left on its left."""
    sofa = placed(pack, "Fridge", x=2.0, y=2.0, yaw=math.pi / 2)  # the front looks to -x
    images, depth = Raycaster([empty_room(sofa)], CAMERA, 0.85).render(torch.tensor([[0.5, 2.0, 0.0]]))
    assert float(depth[0, 24, 32]) == pytest.approx(2.0 - 0.5 - 0.3, abs=1e-4)
    seen = (images[0] > -0.6).int()  # its light is behind it
    quarters = [seen[:, row, column].tolist() for row in (14, 34) for column in (26, 37)]
    assert quarters == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]


def test_what_stands_before_a_model_hides_it_and_the_floor_below_is_darker(pack):
    pose = torch.tensor([[0.5, 2.0, 0.0]])
    with_table, without = empty_room(placed(pack, "Table", x=2.0, y=2.0)), empty_room()
    shown, empty = (Raycaster([world], CAMERA, 1.5, pitch_rad=-0.3).render(pose) for world in (with_table, without))
    behind = (shown[1] - empty[1]).abs() < 1e-3
    assert bool((shown[0] <= empty[0] + 1e-4).permute(0, 2, 3, 1)[behind].all())
    darker = ((empty[0] - shown[0]).amax(1) > 0.05) & behind
    assert 0.0005 < float(darker.float().mean()) < 0.3
    wall = empty_room(box=Box(1.0, 2.0, 0.05, 1.9, 0.0, 2.6))
    hidden = replace(with_table, boxes=wall.boxes, faces=wall.faces)
    before = Raycaster([hidden], CAMERA, 1.0).render(pose)[1]
    assert float(before[0, 24, 32]) == pytest.approx(0.45, abs=1e-4)


def test_worlds_with_and_without_models_render_together(pack):
    furnished, plain = generate_world(5, settings_of(pack)), generate_world(6)
    poses = torch.tensor([[*(room_centre(world)), 0.3] for world in (furnished, plain, furnished)])
    together = Raycaster([furnished, plain], CAMERA).render(poses, torch.tensor([0, 1, 0]))
    for index, world in enumerate((furnished, plain, furnished)):
        alone = Raycaster([world], CAMERA).render(poses[index : index + 1])
        for one, two in zip(alone, together, strict=True):
            np.testing.assert_allclose(one[0].numpy(), two[index].numpy(), atol=5e-3)


def test_scenes_are_made_when_looked_at_and_the_oldest_goes(pack, monkeypatch):
    worlds = [generate_world(seed, settings_of(pack)) for seed in (5, 7, 11)]
    monkeypatch.setattr("come_nav.sim.meshes.furniture_view.KEPT_SCENES", 2)
    scenes = FurnishedScenes([*worlds, generate_world(6)])
    assert scenes and scenes.of(3) is None
    assert not FurnishedScenes([generate_world(6)])
    first, second = scenes.of(0), scenes.of(1)
    assert scenes.of(0) is first
    scenes.of(2)  # the second was looked at before the first
    assert scenes.of(0) is first
    assert scenes.of(1) is not second


def test_views_are_the_same_whatever_is_kept(pack, monkeypatch):
    worlds = [generate_world(seed, settings_of(pack)) for seed in (5, 7)]
    poses = torch.tensor([[*room_centre(world), 0.3] for world in worlds])
    kept = Raycaster(worlds, CAMERA)
    monkeypatch.setattr("come_nav.sim.meshes.furniture_view.KEPT_SCENES", 1)
    forgetful = Raycaster(worlds, CAMERA)
    for order in (torch.tensor([0, 1]), torch.tensor([1, 0]), torch.tensor([0, 1])):
        for one, two in zip(kept.render(poses[order], order), forgetful.render(poses[order], order), strict=True):
            assert torch.equal(one, two)
    assert [own._scenes._scene.cache_info().currsize for own in (kept, forgetful)] == [2, 1]


def test_streams_of_furnished_views_go_round_in_few_worlds(pack, monkeypatch):
    """Scenes take much memory: batches that follow each other look at the same worlds, and later ones at all."""
    worlds = [generate_world(n, *([settings_of(pack)] if n % 2 else [])) for n in range(10)]
    monkeypatch.setattr("come_nav.training.data.frames.WORLDS_AT_ONCE", 2)
    steps = range(40 * STEPS_PER_WORLD)
    modelled = [number for number, world in enumerate(worlds) if world.models]
    assert modelled == [1, 3, 5, 7, 9]
    chosen = [set(chosen_worlds(10, modelled, step, step_generator(0, 10, step)).tolist()) for step in steps]
    for step, worlds_of_batch in zip(steps, chosen, strict=True):
        first = step // STEPS_PER_WORLD
        assert worlds_of_batch & set(modelled) <= {modelled[first % 5], modelled[(first + 1) % 5]}
    assert set.union(*chosen) == set(range(10))
    counts = np.bincount([number for some in chosen for number in some], minlength=10)
    assert counts[1::2].sum() == pytest.approx(counts.sum() / 2, abs=40)  # every other view shows models, as before


def test_a_stream_goes_on_and_is_shared_as_a_whole_one(pack, monkeypatch):
    """Scenes that were forgotten are made again: batches depend on seed and step alone."""
    monkeypatch.setattr("come_nav.training.data.frames.world_set", lambda name: settings_of(pack, name))
    monkeypatch.setattr("come_nav.training.data.frames.WORLDS_AT_ONCE", 2)

    def batches(start: int, rank: int = 0, processes: int = 1) -> list[torch.Tensor]:
        stream = FrameStream(
            range(4), 16, 4, 7, range(start, 9), "cpu", rank, processes, progress=False, sets_of_worlds=("furnished",)
        )
        return list(stream)

    whole = batches(0)
    for later, own in zip(batches(6), whole[6:], strict=True):
        assert torch.equal(later, own)
    for first, second, own in zip(batches(0, 0, 2), batches(0, 1, 2), whole, strict=True):
        torch.testing.assert_close(torch.cat([first, second]), own)


def room_centre(world: World) -> tuple[float, float]:
    x0, y0, x1, y1 = world.rooms[0].tolist()
    return 0.5 * (x0 + x1), 0.5 * (y0 + y1)


# -- rooms -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [3, 20003])
def test_furniture_stands_in_the_rooms_and_not_in_other_furniture(pack, seed):
    world = generate_world(seed, settings_of(pack))
    standing = [model for model in world.models if model.z == 0.0]
    assert len(standing) > 8
    x0, y0, x1, y1 = world.bounds
    for index, model in enumerate(standing):
        inner = model.footprints * np.array([1.0, 1.0, 0.8, 0.8, 1.0])
        corners = np.concatenate([_inside(rectangle) for rectangle in inner])
        assert (corners > [x0, y0]).all() and (corners < [x1, y1]).all()
        for other in standing[:index]:
            assert not any(_holds(rectangle, corners).any() for rectangle in other.footprints)
        for wall in world.boxes[world.boxes[:, 6] >= world.ceiling_m - 1e-3].double().numpy():
            assert wall[5] > 1.0 or not _holds(wall[:5], corners).any()


def _inside(rectangle: np.ndarray) -> np.ndarray:
    x, y, half_x, half_y, yaw = rectangle
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 5) * half_x, np.linspace(-1, 1, 5) * half_y), -1).reshape(-1, 2)
    turn = np.array([[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]])
    return grid @ turn.T + [x, y]


def _holds(rectangle: np.ndarray, points: np.ndarray) -> np.ndarray:
    x, y, half_x, half_y, yaw = rectangle
    turn = np.array([[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]])
    local = (points - [x, y]) @ turn
    return (np.abs(local) < np.array([half_x, half_y]) - 1e-6).all(1)


def test_things_stand_on_tables(pack):
    worlds = [generate_world(seed, settings_of(pack)) for seed in range(8)]
    things = [model for world in worlds for model in world.models if model.z > 0.0]
    assert len(things) > 5
    heights = {round(thing.z, 3) for thing in things}
    assert heights <= {0.75, 0.45, 0.8, 0.88} and {thing.model.title for thing in things} == {"Vase"}


def test_test_worlds_show_held_out_models_alone(pack):
    for seed, half in ((3, TRAIN), (10003, HELD_OUT), (20003, HELD_OUT)):
        assert {model.model.half for model in generate_world(seed, settings_of(pack)).models} == {half}


def test_the_same_seed_furnishes_the_same_and_plain_worlds_stay_as_they_were(pack):
    one, two = (generate_world(12, settings_of(pack)) for _ in range(2))
    assert [(m.model, m.x, m.y, m.z, m.yaw) for m in one.models] == [
        (m.model, m.x, m.y, m.z, m.yaw) for m in two.models
    ]
    assert generate_world(12).models == () and one.facts["world_settings"]["furnished"]


def test_chairs_stand_elsewhere_at_another_visit(pack):
    settings = replace(settings_of(pack, "furnished-lively"), people=0)
    first, again = (generate_world(7, replace(settings, visit=visit)) for visit in (1, 2))
    assert len(first.models) == len(again.models)
    moved = [
        one.model.title for one, two in zip(first.models, again.models, strict=True) if (one.x, one.y) != (two.x, two.y)
    ]
    assert moved and set(moved) <= {"Chair", "Stool"}


def test_robots_stop_at_models_and_drive_around_them(pack):
    table = placed(pack, "Table", x=2.0, y=2.5)
    world = empty_room(table)
    robot = Robot(world, RobotSettings(), (0.6, 2.5, 0.0))
    for _ in range(200):
        robot.step(0.5, 0.0)
    assert robot.collisions > 0 and robot.x == pytest.approx(2.0 - 0.7 - 0.2, abs=0.12)
    furnished = generate_world(20004, settings_of(pack))
    episode = simulate_episode(furnished, "tour", 60.0, 4.0, 1)
    assert episode.collisions < 5 and episode.path_length_m > 8.0
    frames = EpisodeRecording(episode, Raycaster([furnished], CAMERA)).frames(0, len(episode.stamps_s))
    assert min(float(frame.depth_m.min()) for frame in frames) > 0.1  # never inside a model
    assert len(furnished.polygons()) >= len(furnished.models)


# -- packs -----------------------------------------------------------------------------------------------------------


def test_without_a_pack_one_line_tells_how_to_make_one(tmp_path, monkeypatch, capsys, pack):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert main(["simulate", "--set-of-worlds", "furnished", "--out", str(tmp_path / "x")]) == 1
    told = capsys.readouterr().err.strip()
    assert "come-nav assets collect" in told and len(told.splitlines()) == 1
    with pytest.raises(ConfigError, match="sweethome3d-furniture"):
        shelf_of(replace(pack, models=()), HELD_OUT)
    damaged = replace(placed(pack, "Table"), folder=tmp_path)
    with pytest.raises(DataError, match="no such file"):
        damaged.mesh  # noqa: B018


@pytest.mark.parametrize(
    ("title", "size_m", "kinds"),
    [
        ("Bed", (1.4, 2.0, 0.9), {"bed"}),
        ("Bedside table", (0.5, 0.4, 0.5), {"round table", "stool"}),
        ("Table tennis", (2.7, 1.7, 0.96), set()),
        ("Wheelchair", (0.64, 0.77, 0.91), set()),
        ("Drawers cabinet", (0.6, 0.6, 0.9), {"chest", "counter"}),
        ("Laptop", (0.34, 0.25, 0.27), {SMALL}),
        ("Barrel", (0.8, 0.8, 0.9), {"crates"}),
    ],
)
def test_models_are_known_by_title_and_size(title, size_m, kinds):
    model = Model("x", "x.obj", "Living room", size_m, "", "", "", TRAIN, title)
    assert {kind for kind, rule in RULES.items() if rule.takes(model)} == kinds


def test_the_collected_pack_of_this_machine_furnishes_test_worlds():
    try:
        shelf = shelf_of(read_pack(), HELD_OUT)
    except ConfigError as error:  # no pack here, or one without furniture: the line says which
        pytest.skip(str(error))
    assert sum(1 for models in shelf.values() if models) > 12
    world = generate_world(20003, world_set("furnished"))
    assert len(world.models) > 15
    poses = torch.tensor([[*room_centre(world), angle] for angle in np.linspace(0, 6, 8)])
    images, depth = Raycaster([world], CAMERA, 1.0).render(poses)
    bare_images, bare_depth = Raycaster([replace(world, models=())], CAMERA, 1.0).render(poses)
    assert bool((depth <= bare_depth + 1e-3).all()) and float((depth < bare_depth - 0.05).float().mean()) > 0.03
    assert float((images - bare_images).abs().mean()) > 0.01
