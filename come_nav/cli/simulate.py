"""``come-nav simulate``: a scripted robot drives through a built-in world or a mesh; the drive becomes a bag."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from come_nav.cli.output import add_json_flag, print_json
from come_nav.cli.sensor_flags import PREFIX, add_sensor_flag, add_world_flag, sensors_of
from come_nav.core.checks import check_range
from come_nav.core.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from come_nav.sim.episodes import EpisodeRecording
    from come_nav.sim.sensors.mounting import MountedCamera
    from come_nav.sim.sensors.settings import SensorSettings
    from come_nav.sim.spaces import EpisodeRenderer

EPILOG = """examples:
  come-nav simulate --world 20003 --driver tour --out episode          two minutes through a test world
  come-nav simulate --world 7 --noise 2 --camera 64 --out drive         with 2 % odometry noise, small images
  come-nav simulate --sensors realistic --out hard                     sensors that err; --seed draws the camera
  come-nav simulate --sensors realistic --set sensors.colour.jpeg_quality=30 --out worse
  come-nav simulate --set-of-worlds furnished --world 20003 --out home  modelled furniture (come-nav assets collect)
  come-nav simulate --mesh flat.glb --out scan                         in a scanned or modelled place
  come-nav simulate --nwm-dataset recon --worlds 20000-20003 --duration 30 --out nwm_data     in NWM's layout
"""
IMAGES = 8
RATE_HZ = 8.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this verb."""
    parser.epilog = EPILOG
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--world", type=int, default=0, metavar="SEED", help="seed of the built-in world (default 0)")
    place.add_argument("--mesh", type=Path, metavar="FILE", help="drive in a mesh (.ply, .obj, .glb) instead")
    parser.add_argument("--up-axis", choices=("z", "y"), help="of the mesh (default: y for glTF, else z)")
    parser.add_argument("--floor-height", type=float, metavar="M", help="of the mesh; its lowest vertex by default")
    parser.add_argument("--driver", default="tour", help="wander, tour or point_to_point (default tour)")
    parser.add_argument("--duration", type=float, default=120.0, metavar="S", help="seconds to drive (default 120)")
    parser.add_argument("--rate", type=float, metavar="HZ", help="frames per second of a bag (default 8)")
    parser.add_argument(
        "--camera",
        "--size",
        dest="size",
        default="320x240",
        metavar="N|WxH",
        help="pixels; its central square is 90 deg wide (default 320x240; 64 is faster)",
    )
    parser.add_argument("--noise", type=float, metavar="PERCENT", help="odometry noise (default: the sensors')")
    add_world_flag(parser)
    add_sensor_flag(parser)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting of the sensors")
    parser.add_argument("--seed", type=int, default=0, help="of start, driver and noise (default 0)")
    parser.add_argument("--storage", choices=("mcap", "sqlite3"), default="mcap", help="of the bag (default mcap)")
    parser.add_argument("--compression", default="none", help="none, chunk (mcap), file or message (zstd)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda, for rendering a built-in world")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="bag to write; an image goes beside it"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a bag that is there already")
    parser.add_argument(
        "--nwm-dataset",
        metavar="NAME",
        help="write trajectories in NWM's layout instead, as recon etc.: 4 Hz, where no frame is late or lost",
    )
    parser.add_argument("--worlds", metavar="A-B", help="with --nwm-dataset: one trajectory in each (default --world)")
    add_json_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Drive, write the bag and its image, and say what was written and what to do with it."""
    from tqdm import tqdm

    from come_nav.core.types import Trajectory
    from come_nav.data.bags.writer import write_bag
    from come_nav.sim.episodes import EpisodeRecording, delivered, simulate_episode

    if args.seed < 0:
        raise ConfigError(f"--seed must be >= 0, got {args.seed}")
    if args.nwm_dataset is not None:
        if args.rate is not None:
            raise ConfigError("--rate is of bags: NWM's data sets have 4 frames per second; leave it out")
        return _simulate_dataset(args)
    args.rate = RATE_HZ if args.rate is None else args.rate
    if args.worlds is not None:
        raise ConfigError("--worlds is for --nwm-dataset; one bag is one drive: use --world")
    image = args.out.with_name(f"{args.out.name}.png")
    for path in (args.out, image):
        if path.exists() and not args.overwrite:
            raise StorageError(f"{path}: exists already; choose another name or replace it with --overwrite")
    sensors = _sensors(args)
    renderer = _renderer(args, _camera(args, sensors))
    world = renderer.worlds[0]
    episode = simulate_episode(world, args.driver, args.duration, args.rate, args.seed, sensors.odometry)
    episode = delivered(episode, sensors.timing)
    recording = EpisodeRecording(episode, renderer, sensors=sensors)
    truth = Trajectory.from_xyyaw(episode.stamps_s, episode.poses_world_xyyaw, frame_id="map")
    with tqdm(total=len(recording), desc="render and write", unit="frame", disable=None) as bar:
        write_bag(
            args.out,
            recording,
            args.storage,
            args.compression,
            ground_truth=truth,
            overwrite=args.overwrite,
            progress=bar.update,
        )
    _draw(image, recording)
    facts = _facts(args, recording, image)
    if args.json:
        print_json(facts)
    else:
        _print(facts)
    return 0


def _simulate_dataset(args: argparse.Namespace) -> int:
    from come_nav.cli.nwm_writer import print_dataset, simulate_dataset

    sensors = _sensors(args)
    if args.mesh is not None:
        raise ConfigError("--nwm-dataset drives in built-in worlds; record a mesh as a bag and convert it")
    document = simulate_dataset(args, _camera(args, sensors), sensors)
    if args.json:
        print_json(document)
    else:
        print_dataset(document)
    return 0


def _sensors(args: argparse.Namespace) -> SensorSettings:
    """Return what the flags ask of the sensors."""
    for word in args.set:
        if not word.strip().startswith(PREFIX):
            raise ConfigError(f"--set of simulate takes keys of the sensors, e.g. {PREFIX}depth.far_m=4, got '{word}'")
    if args.noise is not None:
        check_range("--noise", args.noise, 0.0, 50.0)
    return sensors_of(args, args.noise)


def _camera(args: argparse.Namespace, sensors: SensorSettings) -> MountedCamera:
    """Return the camera that ``--seed`` draws, of as many pixels as ``--size`` says."""
    from come_nav.sim.sensors.chain import CAMERA, generator_of
    from come_nav.sim.sensors.mounting import draw_camera

    return draw_camera(sensors.camera, generator_of(args.seed, CAMERA, args.world), size_px=_size(args.size))


def _size(size: str) -> tuple[int, int]:
    """Return width and height of ``N`` or ``WxH``."""
    words = size.lower().split("x")
    if len(words) > 2 or not all(word.isdigit() and 8 <= int(word) <= 4096 for word in words):
        raise ConfigError(f"--camera must be N or WxH with 8 to 4096 pixels, e.g. 64 or 320x240, got '{size}'")
    return int(words[0]), int(words[-1])


def _renderer(args: argparse.Namespace, camera: MountedCamera) -> EpisodeRenderer:
    if args.mesh is not None:
        if args.set_of_worlds is not None:
            raise ConfigError("--set-of-worlds is of built-in worlds; leave it out with --mesh")
        from come_nav.sim.meshes.mesh_world import MeshRaycaster, load_mesh_world

        return MeshRaycaster(
            load_mesh_world(args.mesh, args.up_axis, args.floor_height),
            camera.intrinsics,
            camera.height_m,
            camera.pitch_rad,
        )
    from come_nav.sim.raycaster import Raycaster
    from come_nav.sim.world_sets import world_set
    from come_nav.sim.worlds import generate_world

    if args.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise ConfigError("--device cuda: this machine has no usable CUDA device; use --device cpu")
    elif args.device != "cpu":
        raise ConfigError(f"--device must be one of cpu, cuda, got '{args.device}'")
    return Raycaster(
        [generate_world(args.world, world_set(args.set_of_worlds))],
        camera.intrinsics,
        camera.height_m,
        args.device,
        camera.pitch_rad,
    )


def _draw(path: Path, recording: EpisodeRecording) -> None:
    """Write an overview: frames spread over the drive, and the map with the driven path."""
    import cv2
    import numpy as np

    from come_nav.core.files import atomic_path
    from come_nav.core.geometry import se2
    from come_nav.viz.frames import compose_panels
    from come_nav.viz.images import png_from_rgb
    from come_nav.viz.maps import MapDrawing, plot_trajectories

    chosen = np.unique(np.linspace(0, len(recording) - 1, IMAGES).astype(int))
    panels = {f"{recording.stamps_s[index]:.1f} s": recording.frame(int(index)).rgb for index in chosen}
    episode = recording.episode
    start = episode.poses_world_xyyaw[:1]
    paths = {"driven": episode.poses_world_xyyaw, "odometry": se2.compose(start, episode.odometry_xyyaw)}
    shapes = recording.world.polygons()
    drawing = MapDrawing([corners for corners, _ in shapes], [colour for _, colour in shapes])
    png = plot_trajectories(paths, drawing, recording.name)
    world_map = np.asarray(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR), np.uint8)[..., ::-1]
    sheet = compose_panels(panels, ("from above", np.ascontiguousarray(world_map)), cell_px=160, columns=2)
    with atomic_path(path) as temporary:
        temporary.write_bytes(png_from_rgb(sheet))


def _facts(args: argparse.Namespace, recording: EpisodeRecording, image: Path) -> dict[str, Any]:
    from come_nav.sim.sensors.settings import DEFAULT_SENSORS
    from come_nav.sim.splits import TEST_SEEDS, TRAIN_SEEDS, VALIDATION_SEEDS, split_of

    episode = recording.episode
    split = None
    if any(episode.world_seed in seeds for seeds in (TRAIN_SEEDS, VALIDATION_SEEDS, TEST_SEEDS)):
        split = split_of(episode.world_seed)
    rooms = set(recording.world.room_of(recording.positions_xy).tolist())
    return {
        "output": str(args.out),
        "image": str(image),
        "storage": args.storage,
        "split": split,
        **recording.metadata,
        "frames": len(recording),
        "rate_hz": recording.rate_hz,
        "duration_s": float(episode.stamps_s[-1]),
        "image_size": [recording.intrinsics.width, recording.intrinsics.height],
        "rooms_visited": len(rooms - {-1}),
        "rooms": len(recording.world.rooms),
        "odometry_noise_percent": args.noise or 0.0,
        "sensors": args.sensors or DEFAULT_SENSORS,
        "camera": {
            "hfov_deg": round(math.degrees(recording.intrinsics.horizontal_fov_rad), 2),
            "height_m": round(recording.raycaster.camera_height_m, 3),
            "pitch_deg": round(math.degrees(recording.raycaster.pitch_rad), 2),
        },
    }


def _print(facts: dict[str, Any]) -> None:
    place = f"world {facts['world']} ({facts['split'] or 'in no split'})" if "world" in facts else facts["mesh"]
    width, height = facts["image_size"]
    print(
        f"{facts['output']}: {facts['frames']} frames of {width}x{height} at {facts['rate_hz']:g} Hz, "
        f"{facts['duration_s']:g} s of {facts['driver']} through {place}"
    )
    print(
        f"  path     {facts['path_length_m']:.1f} m, {facts['rooms_visited']} of {facts['rooms']} rooms, "
        f"{facts['collisions']} collisions, odometry noise {facts['odometry_noise_percent']:g} %"
    )
    if facts["sensors"] != "ideal":
        wide, high, pitch = facts["camera"].values()
        print(f"  sensors  {facts['sensors']}; camera {wide:g} deg wide, {high:g} m high, pitch {pitch:+g} deg")
    print(f"  image  {facts['image']}")
    print(f"look at it:  come-nav bag info {facts['output']}")
    print(f"evaluate plans: come-nav evaluate {facts['output']} --out {facts['output']}_report")
