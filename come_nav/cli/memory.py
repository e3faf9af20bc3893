"""``come-nav memory``: build what a robot would remember of a recording; look into, export and verify a memory."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from come_nav.cli.output import add_json_flag, format_table, print_json
from come_nav.cli.recording_flags import add_recording_flags, open_from_flags
from come_nav.core.errors import ConfigError, MemoryStoreError, StorageError, suggest

if TYPE_CHECKING:
    from come_nav.memory.keyframes import Keyframes
    from come_nav.memory.spatial.cloud import SpatialMemory
    from come_nav.memory.store.store import StoredMemory, VersionReport

PNG_START = b"\x89PNG"
PARTS = ("cloud", "keyframes", "adapter")
EPILOG = """examples:
  come-nav memory build my_bag --out memory                      cloud and key frames of a recording
  come-nav memory info memory                                    what is in it, and from where
  come-nav memory export memory cloud.ply                        the cloud, for Open3D, CloudCompare or MeshLab
  come-nav memory export memory images --what keyframes        key frames as images, with a table of poses
  come-nav memory verify memory                                  read every byte of every version
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the four actions."""
    parser.epilog = EPILOG
    actions = parser.add_subparsers(title="actions", dest="action", metavar="build|info|export|verify", required=True)

    def action(name: str, line: str) -> argparse.ArgumentParser:
        return actions.add_parser(name, help=line, description=line)

    build = action("build", "remember a recording: a cloud of what was seen, and key frames")
    _add_build_flags(build)
    info = action("info", "versions, sizes, and what the newest version holds")
    export = action("export", "write the cloud as PLY, key frames as images, or an adapter as safetensors")
    verify = action("verify", "read every version completely and compare checksums")
    for sub in (info, export, verify):
        sub.add_argument("store", type=Path, metavar="STORE", help="folder of the memory")
    export.add_argument("output", type=Path, metavar="OUT", help="file (.ply, .safetensors) or folder (key frames)")
    export.add_argument("--what", choices=PARTS, help="default: by the ending of OUT")
    export.add_argument("--name", metavar="ADAPTER", help="which adapter, where there are several")
    export.add_argument("--min-hits", type=float, default=0.0, metavar="N", help="leave out points seen less often")
    export.add_argument("--overwrite", action="store_true", help="replace OUT")
    for sub in (info, export):
        sub.add_argument("--version", type=int, metavar="N", help="a version other than the newest valid one")
    for sub in (build, info, export, verify):
        add_json_flag(sub)


def _add_build_flags(build: argparse.ArgumentParser) -> None:
    build.add_argument("recording", type=Path, metavar="RECORDING", help="bag or folder (NWM, TUM RGB-D, KITTI, EuRoC)")
    build.add_argument("--out", type=Path, required=True, metavar="STORE", help="memory folder; a new version is added")
    build.add_argument("--first", type=float, default=100.0, metavar="PERCENT", help="remember only the first part")
    build.add_argument("--voxel", type=float, metavar="M", help="edge of a voxel (default 0.05)")
    build.add_argument(
        "--features", choices=("rgb", "latent"), default="rgb", help="what a point remembers (default rgb)"
    )
    build.add_argument("--model", default="tiny", metavar="MODEL", help="whose latents, with --features latent")
    build.add_argument("--max-voxels", type=int, metavar="N", help="budget of the cloud (default 200000)")
    build.add_argument("--max-range", type=float, metavar="M", help="farthest depth to remember (default 10)")
    build.add_argument("--spacing", type=float, metavar="M", help="distance between key frames (default 0.4)")
    build.add_argument("--max-keyframes", type=int, metavar="N", help="most key frames (default 1000)")
    build.add_argument("--depth-model", metavar="NAME", help="depth from images by a transformers model or folder")
    build.add_argument(
        "--depth-kind", choices=("disparity", "depth"), default="disparity", help="what that model predicts"
    )
    build.add_argument("--device", default="cpu", help="where models run (default cpu)")
    add_recording_flags(build)


def run(args: argparse.Namespace) -> int:
    """Run one action; return the exit status."""
    return {"build": _build, "info": _info, "export": _export, "verify": _verify}[args.action](args)


def _build(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from come_nav.core.checks import check_range
    from come_nav.memory.spatial.building import remember
    from come_nav.memory.store.store import MemoryStore

    check_range("--first", args.first, 0.0, 100.0, open_low=True)
    cloud, keyframes = _empty_memories(args)
    with open_from_flags(args.recording, args) as recording:
        stop = max(1, round(len(recording) * args.first / 100.0))
        with tqdm(total=stop, desc="remembering", unit="frame", disable=None) as bar:
            remember(recording, [cloud, keyframes], 0, stop, progress=bar.update)
        about = {
            "recording": recording.name,
            "frames": stop,
            "first_stamp_s": float(recording.stamps_s[0]),
            "last_stamp_s": float(recording.stamps_s[stop - 1]),
            "depth": "sensor" if args.depth_model is None else f"{args.depth_model}, scaled by odometry",
        }
    store = MemoryStore(args.out)
    version = store.save(cloud=cloud.state(), keyframes=keyframes.state(), about=about)
    facts = {**about, "store": str(args.out), "version": version, **_contents(cloud, keyframes)}
    facts["rejected"] = dict(cloud.rejected)
    if args.json:
        print_json(facts)
        return 0
    print(
        f"{args.out}: version {version}, {len(cloud)} points of {cloud.frames} frames and {len(keyframes)} key frames "
        f"of {recording.name}"
    )
    for reason, count in sorted(cloud.rejected.items()):
        print(f"note: {count} frames gave no points ({reason}){_advice(reason)}", file=sys.stderr)
    return 0


def _empty_memories(args: argparse.Namespace) -> tuple[SpatialMemory, Keyframes]:
    from come_nav.memory.keyframes import Keyframes, KeyframesSettings
    from come_nav.memory.spatial.cloud import SpatialMemory
    from come_nav.memory.spatial.depth import OdometryScaledDepth, TransformersDepth
    from come_nav.memory.spatial.settings import SpatialSettings

    def given(**flags: Any) -> dict[str, Any]:
        return {name: value for name, value in flags.items() if value is not None}

    config = SpatialSettings(
        args.features, **given(voxel_m=args.voxel, max_voxels=args.max_voxels, max_range_m=args.max_range)
    )
    frames = KeyframesSettings(**given(spacing_m=args.spacing, max_count=args.max_keyframes))
    source = None
    if args.depth_model is not None:
        source = OdometryScaledDepth(TransformersDepth(args.depth_model, args.depth_kind, args.device))
    if config.features == "rgb":
        return SpatialMemory(config, depth_source=source), Keyframes(frames)
    from come_nav.navigation.loading import load_configured_model
    from come_nav.navigation.memories.remembered_space import space_of
    from come_nav.navigation.settings import NavigationSettings

    model = load_configured_model(NavigationSettings(model=args.model, device=args.device))
    return space_of(model, config, depth_source=source), Keyframes(frames)


def _advice(reason: str) -> str:
    ways_out = {
        "no_depth": "; name the depth topic with --depth-topic, or estimate depth with --depth-model",
        "no_intrinsics": "; name the CameraInfo topic with --info-topic",
        "no_camera_extrinsics": "; record /tf_static from base_link to the camera's optical frame",
    }
    return ways_out.get(reason, "")


def _info(args: argparse.Namespace) -> int:
    from come_nav.memory.store.store import MemoryStore

    store = MemoryStore(args.store)
    stored = store.load(args.version)
    cloud, keyframes = _memories(stored)
    facts: dict[str, Any] = {
        "store": str(args.store),
        "version": stored.version,
        "about": stored.about,
        **_contents(cloud, keyframes),
        "adapters": {name: _weights(tensors) for name, tensors in stored.adapters.items()},
        "versions": [_row(report) for report in store.verify()],
    }
    if args.json:
        print_json(facts)
        return 0
    print(f"{args.store}: version {stored.version}")
    for name, value in stored.about.items():
        print(f"  {name}: {value}")
    for part in ("cloud", "keyframes"):
        if facts[part] is not None:
            print(f"{part}: " + ", ".join(f"{name} {_plain(value)}" for name, value in facts[part].items()))
    for name, weights in facts["adapters"].items():
        print(f"adapter {name}: {weights['tensors']} tensors, {weights['parameters']} parameters")
    print("\n" + _version_table(facts["versions"]))
    return 0


def _verify(args: argparse.Namespace) -> int:
    from come_nav.memory.store.store import MemoryStore

    store = MemoryStore(args.store)
    rows = [_row(report) for report in store.verify()]
    leftovers = [path.name for path in store.leftovers()]
    if not rows:
        raise MemoryStoreError(f"{args.store}: holds no memory; 'come-nav memory build' makes one from a recording")
    broken = [row for row in rows if row["diagnosis"] is not None]
    if args.json:
        print_json({"store": str(args.store), "ok": not broken, "versions": rows, "leftovers": leftovers})
    else:
        print(_version_table(rows))
        if leftovers:
            print(f"\nunfinished, of a writer that writes now or was ended: {', '.join(leftovers)}")
    if len(broken) == len(rows):
        raise MemoryStoreError(f"{args.store}: holds no valid version; build the memory anew")
    return 1 if broken else 0


def _export(args: argparse.Namespace) -> int:
    from come_nav.memory.store.store import MemoryStore

    what = args.what or {".ply": "cloud", ".safetensors": "adapter"}.get(args.output.suffix, "keyframes")
    if args.output.exists() and not args.overwrite:
        raise StorageError(f"{args.output}: exists already; choose another name or replace it with --overwrite")
    stored = MemoryStore(args.store).load(args.version, parts=(what,))
    count, unit = {"cloud": _export_cloud, "keyframes": _export_keyframes, "adapter": _export_adapter}[what](
        args, stored
    )
    facts = {"store": str(args.store), "version": stored.version, "output": str(args.output), "count": count}
    if args.json:
        print_json({**facts, "what": what})
    else:
        print(f"{args.output}: {count} {unit} of version {stored.version}")
    return 0


def _export_cloud(args: argparse.Namespace, stored: StoredMemory) -> tuple[int, str]:
    cloud, _ = _memories(stored)
    if cloud is None:
        raise _lacks(args, stored, "cloud")
    if args.output.suffix != ".ply":
        raise ConfigError(f"{args.output}: a cloud is written as .ply; give a name with that ending")
    from come_nav.memory.spatial.ply import export_ply

    return export_ply(cloud, args.output, args.min_hits), "points"


def _export_keyframes(args: argparse.Namespace, stored: StoredMemory) -> tuple[int, str]:
    from come_nav.core.files import atomic_write_text, writable_folder

    _, keyframes = _memories(stored)
    if keyframes is None:
        raise _lacks(args, stored, "key frames")
    before = _exported(args.output)  # an export from before makes room; anything else stays where it is
    folder = writable_folder(args.output)
    written = set()
    lines = ["file,stamp_s,x_m,y_m,yaw_rad"]
    for index, (stamp_s, pose) in enumerate(zip(keyframes.stamps_s, keyframes.poses_xyyaw, strict=True)):
        content = keyframes[index].compressed
        ending = "png" if content.startswith(PNG_START) else "jpg"
        name = f"{index:06d}.{ending}"
        (folder / name).write_bytes(content)
        written.add(name)
        lines.append(f"{name},{stamp_s:.6f},{pose[0]:.4f},{pose[1]:.4f},{pose[2]:.5f}")
    atomic_write_text(folder / "keyframes.csv", "\n".join(lines) + "\n")
    for name in before - written:
        (folder / name).unlink(missing_ok=True)
    return len(keyframes), "key frames"


def _exported(folder: Path) -> set[str]:
    """Return the images that an export in a folder names; empty where there is none."""
    table = folder / "keyframes.csv"
    rows = table.read_text(encoding="utf-8").splitlines()[1:] if table.is_file() else []
    names = {row.split(",")[0] for row in rows}
    return {name for name in names if name == Path(name).name}


def _export_adapter(args: argparse.Namespace, stored: StoredMemory) -> tuple[int, str]:
    from safetensors.torch import save

    from come_nav.core.files import atomic_path

    names = sorted(stored.adapters)
    if not names:
        raise _lacks(args, stored, "adapter")
    if args.name is None and len(names) > 1:
        raise ConfigError(f"{args.store}: holds the adapters {', '.join(names)}; choose one with --name")
    name = args.name or names[0]
    if name not in stored.adapters:
        raise ConfigError(f"{args.store}: holds no adapter '{name}'{suggest(name, names)}")
    with atomic_path(args.output) as temporary:
        temporary.write_bytes(save(stored.adapters[name]))
    return len(stored.adapters[name]), "tensors"


def _lacks(args: argparse.Namespace, stored: StoredMemory, what: str) -> MemoryStoreError:
    return MemoryStoreError(f"{args.store}: version {stored.version} holds no {what}")


def _memories(stored: StoredMemory) -> tuple[SpatialMemory | None, Keyframes | None]:
    from come_nav.memory.keyframes import Keyframes, KeyframesSettings
    from come_nav.memory.spatial.cloud import SpatialMemory

    cloud = None if stored.cloud is None else SpatialMemory.from_state(stored.cloud)
    keyframes = None
    if stored.keyframes is not None:
        count = len(stored.keyframes["stamps_s"])
        keyframes = Keyframes(KeyframesSettings(max_count=max(4, count)))  # all that is there
        keyframes.load_state(stored.keyframes)
    return cloud, keyframes


def _contents(cloud: SpatialMemory | None, keyframes: Keyframes | None) -> dict[str, Any]:
    facts: dict[str, Any] = {"cloud": None, "keyframes": None}
    if cloud is not None:
        facts["cloud"] = {"points": len(cloud), "voxel_m": cloud.config.voxel_m, "frames": cloud.frames}
        facts["cloud"] |= {"features": cloud.features.channels, "carved": cloud.carved}
        if len(cloud):
            size = cloud.points_xyz.max(axis=0) - cloud.points_xyz.min(axis=0)
            facts["cloud"]["size_m"] = [round(float(value), 2) for value in size]
    if keyframes is not None:
        facts["keyframes"] = {"count": len(keyframes), "bytes": keyframes.nbytes}
        if len(keyframes):
            facts["keyframes"] |= {"from_s": float(keyframes.stamps_s[0]), "to_s": float(keyframes.stamps_s[-1])}
    return facts


def _weights(tensors: dict[str, Any]) -> dict[str, int]:
    return {"tensors": len(tensors), "parameters": sum(int(tensor.numel()) for tensor in tensors.values())}


def _row(report: VersionReport) -> dict[str, Any]:
    return {
        "version": report.version,
        "counts": report.counts,
        "bytes": report.size_bytes,
        "files": list(report.files),
        "diagnosis": report.diagnosis,
    }


def _version_table(rows: list[dict[str, Any]]) -> str:
    def cells(row: dict[str, Any]) -> list[str]:
        state = row["diagnosis"] or ("sound" if row["counts"] else "sound, but its writer did not finish")
        return [str(row["version"]), f"{row['bytes'] / 1e6:.2f}", str(len(row["files"])), state]

    return format_table(("version", "MB", "files", "state"), [cells(row) for row in rows])


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return " x ".join(f"{item:g}" for item in value)
    return f"{value:.3f}" if isinstance(value, float) and value > 1000 else f"{value:g}"
