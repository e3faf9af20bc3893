"""``come-nav models``: list, describe, verify, import and download world models."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from come_nav.cli.output import add_json_flag, format_table, print_json

EPILOG = """examples:
  come-nav models list                 shipped models and those that can be downloaded
  come-nav models info tiny            parts, settings and model card
  come-nav models verify my_run/tiny   checksum, all tensors, one prediction
  come-nav models import cdit_xl_100000.pth.tar --name nwm-xl    official NWM weights
  come-nav models import nomad.pth     official weights of GNM, ViNT or NoMaD
  come-nav models pull nwm-xl          the same, downloaded first (access must be asked for)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions."""
    from come_nav.cli.models_import import add_import_actions

    parser.epilog = EPILOG
    actions = parser.add_subparsers(
        title="actions", dest="action", metavar="list|info|verify|import|pull", required=True
    )
    lines = {
        "list": "known models: which are here, sizes, licences",
        "info": "parts, settings and card of one model",
        "verify": "check a model folder: checksum, every tensor, one prediction",
    }
    for action, line in lines.items():
        sub = actions.add_parser(action, help=line, description=line)
        if action != "list":
            sub.add_argument("name", metavar="NAME", help="a model's name, or the path of its folder")
        add_json_flag(sub)
    add_import_actions(actions)


def run(args: argparse.Namespace) -> int:
    """Run one action; return the exit status."""
    from come_nav.cli.models_import import run_import, run_pull

    verbs = {"list": _list, "info": _info, "verify": _verify, "import": run_import, "pull": run_pull}
    return verbs[args.action](args)


def _list(args: argparse.Namespace) -> int:
    rows = _all_models()
    if args.json:
        print_json({"models": rows})
        return 0
    header = ("model", "here", "image px", "parameters", "size MB", "licence", "description")
    print(format_table(header, [_cells(row) for row in rows]))
    missing = sum(not row["here"] for row in rows)
    if missing:
        print(f"\n{missing} not here: 'come-nav models info NAME' tells how to get one")
    return 0


def _info(args: argparse.Namespace) -> int:
    from come_nav.core.settings import to_mapping
    from come_nav.core.weights_file import CARD_NAME
    from come_nav.policies.model import is_policy_folder, read_policy_file
    from come_nav.policies.motion.model import is_motion_folder, read_motion_file
    from come_nav.world_model.files.checkpoint import read_config
    from come_nav.world_model.sequence.model import is_sequence_folder, read_sequence_settings

    known = {row["name"]: row for row in _all_models()}
    row = known.get(args.name)
    if row is not None and not row["here"] and not Path(args.name).exists():
        if args.json:
            print_json(row)
        else:
            print("\n".join(f"{key}: {value}" for key, value in row.items() if value is not None))
        return 0
    folder = _folder(args.name)
    if is_sequence_folder(folder):
        config = to_mapping(read_sequence_settings(folder))
    elif is_motion_folder(folder):
        config = to_mapping(read_motion_file(folder))
    else:
        config = to_mapping(read_policy_file(folder) if is_policy_folder(folder) else read_config(folder))
    details = {**_facts(folder), "config": config}
    if row is not None:
        details["licence"] = row["licence"]
    if args.json:
        print_json(details)
        return 0
    import yaml

    print("\n".join(f"{key}: {value}" for key, value in details.items() if key != "config"))
    print("\n" + yaml.safe_dump(config, sort_keys=False).rstrip())
    card = folder / CARD_NAME
    if card.is_file():
        print("\n" + card.read_text(encoding="utf-8").rstrip())
    return 0


def _verify(args: argparse.Namespace) -> int:
    """Every failure raises CheckpointError, which the command line prints with exit status 1."""
    from come_nav.core.weights_file import WEIGHTS_NAME, check_sha256
    from come_nav.policies.model import is_policy_folder
    from come_nav.policies.motion.model import is_motion_folder
    from come_nav.world_model.files.checkpoint import read_config
    from come_nav.world_model.model import DiffusionWorldModel
    from come_nav.world_model.probe import probe
    from come_nav.world_model.sequence.model import is_sequence_folder

    folder = _folder(args.name)
    if is_policy_folder(folder):
        return _verify_policy(args, folder)
    if is_motion_folder(folder):
        return _verify_motion(args, folder)
    if is_sequence_folder(folder):
        return _verify_sequence(args, folder)
    config = read_config(folder)
    model = DiffusionWorldModel.load(folder)
    if config.weights_sha256 is not None:  # load skips the checksum of large files
        check_sha256(folder / WEIGHTS_NAME, config.weights_sha256)
    probe(model)
    facts = _facts(folder)
    if args.json:
        print_json({**facts, "ok": True, "sha256_checked": config.weights_sha256 is not None})
        return 0
    checksum = "checksum agrees" if config.weights_sha256 is not None else "no checksum to compare with"
    print(
        f"{folder}: sound. {checksum}, {facts['parameters']:,} parameters fit and are finite, one prediction is finite"
    )
    return 0


def _all_models() -> list[dict[str, Any]]:
    """Return one row for each known model: those of the zoo, then other folders beside it."""
    from come_nav.core.resources import find_resource, user_models_folder
    from come_nav.world_model.files.zoo import ZOO_NAME, installed_models, read_zoo

    zoo_path = find_resource("models", ZOO_NAME)
    zoo = read_zoo(zoo_path)
    installed = installed_models([zoo_path.parent, user_models_folder()])
    rows = []
    for entry in zoo.models:
        row = {"name": entry.name, "here": entry.name in installed, "image_size": entry.image_size}
        row |= {"parameters": entry.parameters, "size_bytes": None, "licence": entry.licence, "folder": None}
        row |= {"description": entry.description, "source": entry.source}
        row |= _facts(installed[entry.name]) if row["here"] else {"how_to_get": entry.how_to_get}
        rows.append(row)
    for name in sorted(set(installed) - {entry.name for entry in zoo.models}):
        facts = _facts_or_why(installed[name])
        rows.append({"licence": "unknown", "description": "", "here": True, **facts, "name": name})
    return rows


def _facts_or_why(folder: Path) -> dict[str, Any]:
    """Return what a folder beside the zoo's tells; one that cannot be read is told of and hides no other."""
    from come_nav.core.errors import ComeNavError

    try:
        return _facts(folder)
    except ComeNavError as error:
        nothing = {"image_size": "-", "parameters": None, "size_bytes": None}
        return {"folder": str(folder), **nothing, "description": str(error)}


def _facts(folder: Path) -> dict[str, Any]:
    """Return what a model folder's files tell without loading the weights."""
    from come_nav.policies.model import is_policy_folder
    from come_nav.policies.motion.model import is_motion_folder
    from come_nav.world_model.files.checkpoint import read_config
    from come_nav.world_model.sequence.model import is_sequence_folder

    if is_policy_folder(folder):
        return _policy_facts(folder)
    if is_motion_folder(folder):
        return _motion_facts(folder)
    if is_sequence_folder(folder):
        return _sequence_facts(folder)
    config = read_config(folder)
    return {
        "name": folder.resolve().name,
        "folder": str(folder),
        "image_size": config.autoencoder.image_size,
        "context_frames": config.expert.network.context_size,
        "rate_hz": config.rate_hz,
        "sampler": f"{config.sampler.name}, {config.sampler.steps} steps",
        **_sizes(folder),
    }


def _sizes(folder: Path) -> dict[str, int]:
    from come_nav.core.weights_file import WEIGHTS_NAME, count_parameters

    return {
        "parameters": count_parameters(folder / WEIGHTS_NAME),
        "size_bytes": sum(path.stat().st_size for path in folder.iterdir() if path.is_file()),
    }


def _sequence_facts(folder: Path) -> dict[str, Any]:
    """Return what a sequence model's files tell without loading the weights."""
    from come_nav.world_model.sequence.model import read_sequence_settings

    settings = read_sequence_settings(folder)
    return {
        "name": folder.resolve().name,
        "folder": str(folder),
        "sequence": settings.network.memory,
        "image_size": settings.autoencoder.image_size,
        "context_frames": settings.frames,
        "rate_hz": settings.rate_hz,
        **_sizes(folder),
    }


def _policy_facts(folder: Path) -> dict[str, Any]:
    """Return what a policy's files tell without loading the weights."""
    from come_nav.policies.model import read_policy_file

    settings = read_policy_file(folder).policy
    return {
        "name": folder.resolve().name,
        "folder": str(folder),
        "policy": settings.kind,
        "image_size": f"{settings.image_width}x{settings.image_height}",
        "context_frames": settings.frames,
        "rate_hz": settings.rate_hz,
        "spacing_m": settings.spacing_m,
        **_sizes(folder),
    }


def _motion_facts(folder: Path) -> dict[str, Any]:
    """Return what a prior of motion's files tell without loading the weights."""
    from come_nav.policies.motion.model import read_motion_file

    settings = read_motion_file(folder).motion
    return {
        "name": folder.resolve().name,
        "folder": str(folder),
        "motion": f"up to {settings.max_steps / settings.rate_hz:g} s ahead",
        "image_size": settings.image_size,
        "context_frames": settings.frames,
        "rate_hz": settings.rate_hz,
        **_sizes(folder),
    }


def _verify_policy(args: argparse.Namespace, folder: Path) -> int:
    import numpy as np
    import torch

    from come_nav.policies.model import LearnedPolicy

    policy = LearnedPolicy.load(folder)
    grey = np.full((policy.settings.image_height, policy.settings.image_width, 3), 128, np.uint8)
    policy.propose([grey], grey, 1, torch.Generator().manual_seed(0))
    return _say_sound(args, _policy_facts(folder), "its proposals are finite")


def _verify_motion(args: argparse.Namespace, folder: Path) -> int:
    import torch

    from come_nav.core.geometry.point_rendering import level_camera
    from come_nav.policies.motion.model import LearnedMotion, Seen

    motion = LearnedMotion.load(folder)
    settings = motion.settings
    size, level = settings.image_size, level_camera(0.5)[0]
    grey, nowhere = torch.zeros(2, 3, size, size), torch.zeros(2, size, size)
    seen = Seen(grey, nowhere, torch.zeros(settings.frames, 3), torch.tensor([0.5, 0.5, 0.5, 0.5]), level)
    motion.poses(seen, [settings.max_steps / settings.rate_hz])
    return _say_sound(args, _motion_facts(folder), "where it sees a robot is finite")


def _verify_sequence(args: argparse.Namespace, folder: Path) -> int:
    import torch

    from come_nav.core.errors import CheckpointError
    from come_nav.memory.recurrent import RecurrentMemory
    from come_nav.world_model.sequence.model import SequenceModel

    model = SequenceModel.load(folder)
    size = model.settings.autoencoder.image_size
    memory, place = RecurrentMemory(model.network), torch.zeros(1, 3)
    memory.observe(model.encode(torch.zeros(1, 3, size, size))[0], place[0].double())
    view = model.imagine(memory.state, place, place, torch.Generator().manual_seed(0))
    if not bool(torch.isfinite(view).all()):
        raise CheckpointError(f"{folder}: what it imagines is not finite; its weights are damaged")
    return _say_sound(args, _sequence_facts(folder), "what it imagines is finite")


def _say_sound(args: argparse.Namespace, facts: dict[str, Any], finite: str) -> int:
    """Say that a model whose loading checks its checksum is whole."""
    if args.json:
        print_json({**facts, "ok": True, "sha256_checked": True})
        return 0
    print(f"{facts['folder']}: sound. checksum agrees, {facts['parameters']:,} parameters fit, {finite}")
    return 0


def _cells(row: dict[str, Any]) -> list[str]:
    size = f"{row['size_bytes'] / 1e6:.1f}" if row.get("size_bytes") else "-"
    parameters = f"{row['parameters'] / 1e6:.1f} M" if row["parameters"] else "-"
    image = str(row["image_size"])
    return [row["name"], "yes" if row["here"] else "no", image, parameters, size, row["licence"], row["description"]]


def _folder(name: str) -> Path:
    """Resolve a model's name or path; a zoo model that is not here, or no model at all, is a CheckpointError."""
    from come_nav.core.errors import CheckpointError, suggest
    from come_nav.core.resources import find_resource, user_models_folder
    from come_nav.world_model.files.zoo import ZOO_NAME, installed_models, read_zoo

    if Path(name).exists():
        return Path(name)
    zoo_path = find_resource("models", ZOO_NAME)
    zoo, installed = read_zoo(zoo_path), installed_models([zoo_path.parent, user_models_folder()])
    if name in installed:
        return installed[name]
    entry = zoo.find(name)
    if entry is not None:
        raise CheckpointError(f"model '{name}' is not here: {entry.how_to_get}")
    known = {*installed, *(model.name for model in zoo.models)}
    raise CheckpointError(f"'{name}' is neither a model folder nor a known model{suggest(name, known)}")
