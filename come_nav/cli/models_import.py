"""``come-nav models import`` and ``pull``: official checkpoints of NWM and of policies become model folders."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from come_nav.cli.output import add_json_flag, print_json
from come_nav.core.errors import CheckpointError, ConfigError, StorageError, suggest

if TYPE_CHECKING:
    from come_nav.world_model.nwm.importer import ImportSettings

SIZES = ("S", "B", "L", "XL")
STORAGES = ("float32", "float16", "bfloat16")


def add_import_actions(actions: Any) -> None:
    """Add the two actions to the sub-parsers of ``come-nav models``."""
    line = "turn an official checkpoint of NWM (.pth.tar) or of GNM, ViNT or NoMaD (.pth) into a model folder"
    parser = actions.add_parser("import", help=line, description=line)
    parser.add_argument("file", type=Path, metavar="FILE", help="e.g. cdit_xl_100000.pth.tar or nomad.pth")
    parser.add_argument("--name", help="of the new model, e.g. nwm-xl (default for policies: the file's)")
    parser.add_argument("--spacing", type=float, metavar="M", help="metres between a policy's waypoints (default 0.25)")
    parser.add_argument("--size", choices=SIZES, help="the size that it must be (default: what the file is)")
    parser.add_argument("--heads", type=int, metavar="N", help="attention heads, for shapes other than the published")
    _add_common(parser)
    line = "download a known model from the Hugging Face hub and import it"
    parser = actions.add_parser("pull", help=line, description=line)
    parser.add_argument("name", metavar="NAME", help="of the zoo: see come-nav models list")
    _add_common(parser)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", choices=("ema", "model"), help="which weights (default ema, as the paper)")
    parser.add_argument("--vae", metavar="FOLDER|REPO", help="AutoencoderKL (default stabilityai/sd-vae-ft-ema)")
    parser.add_argument("--dataset", help="whose waypoint spacing actions get (default recon; a policy's: 0.25 m)")
    parser.add_argument("--storage", choices=STORAGES, default="float32", help="numbers in the file (default float32)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="model folder (default: among the user's models)")
    parser.add_argument("--overwrite", action="store_true", help="replace a model that is there already")
    add_json_flag(parser)


def run_import(args: argparse.Namespace) -> int:
    """Import a file that is here; one of a name that the zoo knows must be that very file."""
    from come_nav.core.resources import find_resource
    from come_nav.policies.importer import is_policy_checkpoint
    from come_nav.world_model.files.hub import check_download
    from come_nav.world_model.files.zoo import ZOO_NAME, read_zoo

    if is_policy_checkpoint(args.file):
        return _import_policy(args)
    if args.spacing is not None:
        raise ConfigError("--spacing is for policies; a checkpoint of NWM has that of its --dataset")
    if args.name is None:
        raise ConfigError("--name must say what the new model is called, e.g. nwm-xl")
    for entry in read_zoo(find_resource("models", ZOO_NAME)).models:
        if entry.file == args.file.name and args.file.is_file():
            check_download(entry, args.file)
    return _import(args, args.file, _options(args, args.size, args.heads))


def _import_policy(args: argparse.Namespace) -> int:
    from come_nav.core.settings import to_mapping
    from come_nav.policies.importer import LICENCE, import_policy
    from come_nav.policies.model import parameter_count

    args.name = args.name or args.file.stem
    folder, spacing_m = _folder(args), _policy_spacing_m(args)
    policy = import_policy(args.file, folder, heads=args.heads, spacing_m=spacing_m, overwrite=args.overwrite)
    settings, count = policy.settings, parameter_count(policy.network)
    if args.json:
        print_json({"name": args.name, "folder": str(folder), "parameters": count, "policy": to_mapping(settings)})
        return 0
    spacing = f"a spacing is {settings.spacing_m:g} m"
    print(f"{folder}: {settings.kind} of {count:,} parameters, licence {LICENCE}; {spacing}")
    shown = args.name if args.out is None else folder
    print(f"use it:  come-nav evaluate --suite planning --policy {shown}    or --set planner.proposals={shown}")
    return 0


def _policy_spacing_m(args: argparse.Namespace) -> float | None:
    """Return the spacing that the flags ask for; refuse those that a policy has no use for."""
    from come_nav.data.nwm.dataset import dataset_facts

    storage = None if args.storage == STORAGES[0] else args.storage
    flags = {"--size": args.size, "--weights": args.weights, "--vae": args.vae, "--storage": storage}
    if given := [flag for flag, value in flags.items() if value is not None]:
        raise ConfigError(f"{', '.join(given)}: for checkpoints of NWM, and {args.file} is a policy; leave it out")
    if args.dataset is None or args.spacing is not None:
        return float(args.spacing) if args.spacing is not None else None
    return dataset_facts(args.dataset).spacing_m


def run_pull(args: argparse.Namespace) -> int:
    """Download, then import."""
    from come_nav.core.resources import find_resource
    from come_nav.world_model.files.hub import download
    from come_nav.world_model.files.zoo import ZOO_NAME, read_zoo

    zoo = read_zoo(find_resource("models", ZOO_NAME))
    entry = zoo.find(args.name)
    if entry is None:
        known = [model.name for model in zoo.models]
        raise CheckpointError(f"'{args.name}' is no model of the zoo{suggest(args.name, known)}")
    options = replace(_options(args, entry.size, None), source=entry.source)
    _refuse_present(_folder(args), args.overwrite)  # before gigabytes are downloaded
    return _import(args, download(entry), options)


def _options(args: argparse.Namespace, size: str | None, heads: int | None) -> ImportSettings:
    from come_nav.data.nwm.dataset import dataset_facts
    from come_nav.world_model.nwm.importer import ImportSettings

    options = ImportSettings(size, heads, args.weights, spacing_m=dataset_facts(args.dataset or "recon").spacing_m)
    return replace(options, storage=args.storage, autoencoder=args.vae or options.autoencoder)


def _import(args: argparse.Namespace, file: Path, options: ImportSettings) -> int:
    from tqdm import tqdm

    from come_nav.core.settings import to_mapping
    from come_nav.world_model.nwm.importer import import_checkpoint

    folder = _folder(args)
    with tqdm(desc="write", unit="B", unit_scale=True, file=sys.stderr, disable=None) as bar:
        config = import_checkpoint(file, folder, options, overwrite=args.overwrite, progress=bar.update)
    facts = {"name": args.name, "folder": str(folder), "sha256": config.weights_sha256, "config": to_mapping(config)}
    if args.json:
        print_json(facts)
        return 0
    network = config.expert.network
    print(f"{folder}: CDiT of depth {network.depth} and width {network.hidden_size}, licence CC BY-NC 4.0")
    print(f"check it:  come-nav models verify {args.name if args.out is None else folder}")
    return 0


def _folder(args: argparse.Namespace) -> Path:
    from come_nav.core.resources import user_models_folder

    if args.out is not None:
        return Path(args.out)
    if not args.name or Path(args.name).name != args.name or args.name.startswith("."):
        raise ConfigError(f"--name must be a plain word such as nwm-xl, got '{args.name}'; choose a folder with --out")
    return user_models_folder() / str(args.name)


def _refuse_present(folder: Path, overwrite: bool) -> None:
    if (folder / "config.yaml").exists() and not overwrite:
        raise StorageError(f"{folder}: holds a model already; choose another folder or replace it with --overwrite")
