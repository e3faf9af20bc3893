"""``come-nav topomap``: folders of numbered images, as visualnav-transformer's create_topomap writes them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from come_nav.cli.output import Steps, add_json_flag, format_table, print_json
from come_nav.cli.recording_flags import add_recording_flags, open_from_flags

EPILOG = """examples:
  come-nav topomap create my_bag --out maps/office              an image each second: maps/office/0.png, 1.png, ...
  come-nav topomap info maps/office                             how many nodes, which size, whether poses are known
  come-nav topomap localise maps/office my_bag --policy nomad   nearest node at each second of another
                                                                drive, by predicted distance and by looks
  come-nav topomap keyframes maps/office --store my_memory      its nodes as key frames of a memory store
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions."""
    parser.epilog = EPILOG
    actions = parser.add_subparsers(
        title="actions", dest="action", metavar="create|info|localise|keyframes", required=True
    )
    create = actions.add_parser("create", help="write the map of a recorded drive", description="Write a map.")
    create.add_argument("recording", type=Path, help="bag or folder")
    create.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="of the map")
    create.add_argument("--every", type=float, default=1.0, metavar="S", help="seconds between nodes (default 1)")
    create.add_argument("--overwrite", action="store_true", help="replace a map that is there already")
    add_recording_flags(create)
    info = actions.add_parser("info", help="describe a map", description="Describe a map.")
    info.add_argument("map", type=Path, metavar="FOLDER")
    localise = actions.add_parser(
        "localise", help="find a drive's frames in a map", description="Find frames in a map."
    )
    localise.add_argument("map", type=Path, metavar="FOLDER")
    localise.add_argument("recording", type=Path, help="bag or folder of the drive")
    localise.add_argument(
        "--policy", required=True, metavar="NAME", help="model name or folder of a gnm, vint or nomad"
    )
    localise.add_argument(
        "--goal-node", type=int, default=-1, metavar="N", help="last node of the way (default: of all)"
    )
    localise.add_argument("--radius", type=int, default=4, metavar="N", help="nodes to either side (default 4)")
    localise.add_argument("--close", type=float, default=3.0, metavar="FRAMES", help="a node is passed (default 3)")
    localise.add_argument("--step", type=float, default=1.0, metavar="S", help="seconds between answers (default 1)")
    add_recording_flags(localise)
    keyframes = actions.add_parser("keyframes", help="nodes as key frames", description="Nodes as key frames.")
    keyframes.add_argument("map", type=Path, metavar="FOLDER")
    keyframes.add_argument("--store", type=Path, required=True, metavar="FOLDER", help="memory store to write into")
    for action in (create, info, localise, keyframes):
        add_json_flag(action)


def run(args: argparse.Namespace) -> int:
    """Run one action; return the exit status."""
    verbs = {"create": _create, "info": _info, "localise": _localise, "keyframes": _keyframes}
    return verbs[args.action](args)


def _create(args: argparse.Namespace) -> int:
    from come_nav.data.topological_map import write_topological_map

    recording = open_from_flags(args.recording, args)
    with Steps(len(recording), "writing", "image") as progress:
        made = write_topological_map(recording, args.out, args.every, args.overwrite, lambda count: progress.add())
    return _print(args, made)


def _info(args: argparse.Namespace) -> int:
    from come_nav.data.topological_map import read_topological_map

    return _print(args, read_topological_map(args.map))


def _print(args: argparse.Namespace, topological: Any) -> int:
    height, width = topological.image(0).shape[:2]
    known = topological.poses_xyyaw is not None
    facts = {"folder": str(topological.folder), "nodes": len(topological), "size_px": [width, height], "poses": known}
    if args.json:
        print_json(facts)
    else:
        poses = "with poses" if known else "without poses"
        print(f"{topological.folder}: {len(topological)} nodes of {width}x{height} px, {poses}")
    return 0


def _localise(args: argparse.Namespace) -> int:
    from come_nav.core.resources import find_resource
    from come_nav.data.topological_map import read_topological_map
    from come_nav.localisation.place_recognition import RecognisedImages
    from come_nav.policies.model import LearnedPolicy
    from come_nav.policies.topological import TopologicalLocaliser, TopologicalSettings

    policy = LearnedPolicy.load(find_resource("models", args.policy))
    images = read_topological_map(args.map).images()
    settings = TopologicalSettings(args.radius, args.close)
    localiser = TopologicalLocaliser(policy, images, args.goal_node, settings)
    recognised = RecognisedImages(images)
    recording = open_from_flags(args.recording, args)
    every = max(1, round(args.step * recording.rate_hz))
    rows = []
    for index in range(policy.frames - 1, len(recording), every):
        seen = [recording.frame(at).rgb for at in range(index - policy.frames + 1, index + 1)]
        found = localiser.update(seen)
        time_s = float(recording.stamps_s[index] - recording.stamps_s[0])
        distance = float(found.distances_frames[found.node - found.first])
        alike, similarity = recognised.most_similar(seen[-1])
        row: dict[str, Any] = {
            "time_s": round(time_s, 3),
            "node": found.node,
            "subgoal": found.subgoal,
            "frames": distance,
        }
        rows.append(row | {"looks_like": alike, "similarity": round(similarity, 3)})
    if args.json:
        print_json({"map": str(args.map), "policy": policy.name, "frames": rows})
        return 0
    print(
        format_table(
            ("time s", "node", "subgoal", "predicted frames to it", "looks like"), [_cells(row) for row in rows]
        )
    )
    return 0


def _cells(row: dict[str, Any]) -> list[str]:
    alike = "-" if row["looks_like"] is None else f"{row['looks_like']} ({row['similarity']:.2f})"
    return [f"{row['time_s']:.1f}", str(row["node"]), str(row["subgoal"]), f"{row['frames']:.1f}", alike]


def _keyframes(args: argparse.Namespace) -> int:
    from come_nav.core.errors import DataError
    from come_nav.core.types import Frame
    from come_nav.data.topological_map import poses_file, read_topological_map
    from come_nav.memory.keyframes import Keyframes, KeyframesSettings
    from come_nav.memory.store.store import MemoryStore

    topological = read_topological_map(args.map)
    if topological.poses_xyyaw is None or topological.stamps_s is None:
        raise DataError(
            f"{args.map}: key frames need poses, and {poses_file(args.map).name} is not beside it; write the map by "
            "'come-nav topomap create', or navigate in it by images with 'come-nav topomap localise'"
        )
    # nodes were chosen already: all that the robot moved between are kept
    every = KeyframesSettings(spacing_m=1e-6, spacing_rad=1e-6, max_count=max(4, len(topological)))
    keyframes = Keyframes(every)
    for node, (stamp_s, pose) in enumerate(zip(topological.stamps_s, topological.poses_xyyaw, strict=True)):
        keyframes.observe(Frame(float(stamp_s), topological.image(node)), pose)
    version = MemoryStore(args.store).save(keyframes=keyframes.state(), about={"topomap": str(args.map)})
    facts = {"store": str(args.store), "version": version, "keyframes": len(keyframes), "nodes": len(topological)}
    if args.json:
        print_json(facts)
    else:
        stood = len(topological) - len(keyframes)
        left = f"; {stood} nodes where the robot had not moved are left out" if stood else ""
        print(f"{args.store}: {len(keyframes)} key frames in version {version}{left}")
    return 0
