"""``come-nav evaluate --protocol nwm | nwm-time | nwm-rollout``: NWM's protocols on data sets in its layout."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from come_nav.core.checks import check_choice
from come_nav.core.errors import ConfigError

if TYPE_CHECKING:
    from come_nav.config import Config
    from come_nav.core.protocols import Objective
    from come_nav.data.nwm.dataset import DatasetFacts, NwmDataset
    from come_nav.evaluation.metrics.perceptual import Distance
    from come_nav.evaluation.protocols.nwm_protocol import NwmQuirks
    from come_nav.evaluation.protocols.protocol import Window
    from come_nav.evaluation.protocols.rows import Row
    from come_nav.planning.nwm_search import NwmSearchSettings
    from come_nav.world_model.model import DiffusionWorldModel
    from come_nav.world_model.nwm.rollout import NwmImaginer

PROTOCOLS = ("nwm", "nwm-time", "nwm-rollout")
COSTS = ("lpips", "dreamsim", "latent", "image")
STRIDES = (1, 2, 4, 8)  # they divide the 8 frames of a plan
PATHS = ("latents", "moments", "pixels")


def add_nwm_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of these protocols to ``come-nav evaluate``."""
    group = parser.add_argument_group("NWM's protocols (--protocol, on data sets in NWM's layout)")
    group.add_argument(
        "--protocol", choices=PROTOCOLS, help="planning, single jumps, or rollouts, as NWM evaluates them"
    )
    group.add_argument("--dataset", metavar="NAME", help="recon, scand, sacson (huron), tartan_drive or go_stanford")
    group.add_argument("--root", type=Path, metavar="DIR", help="holds <dataset>/ and data_splits/")
    group.add_argument("--splits", type=Path, metavar="DIR", help="data_splits elsewhere, e.g. in the official code")
    group.add_argument("--official-quirks", action="store_true", help="with the habits of the released code, see docs")
    group.add_argument("--cost", choices=COSTS, default="lpips", help="of imagined views (default lpips, as NWM)")
    group.add_argument("--rollout-path", choices=PATHS, default="latents", help="how rollouts go on (default latents)")
    line = "frames per rollout step of a plan, 8 is one jump to its end (default 1, as NWM)"
    group.add_argument("--rollout-stride", type=int, choices=STRIDES, default=1, help=line)
    group.add_argument("--samples", type=int, default=120, metavar="N", help="candidates (default 120)")
    group.add_argument("--top-k", type=int, default=5, metavar="N", help="elites (default 5)")
    group.add_argument("--iterations", type=int, default=1, metavar="N", help="of the search (default 1)")
    group.add_argument("--repeats", type=int, default=3, metavar="N", help="imaginations per candidate (default 3)")
    group.add_argument("--prior-mean", metavar="X,Y,TURN", help="of the first samples (default: the data set's)")
    group.add_argument("--prior-std", metavar="X,Y,TURN", help="of the first samples (default: the data set's)")
    group.add_argument("--seconds", default="1,2,4,8,16", metavar="A,B", help="of predictions (default 1,2,4,8,16)")
    group.add_argument("--fps", type=int, choices=(1, 2, 4), default=4, help="of rollouts (default 4)")
    group.add_argument("--metrics", metavar="A,B", help="of predictions: lpips, dreamsim, fid, psnr, ssim, latent")
    group.add_argument("--micro-batch", type=int, metavar="N", help="candidates at once (default: from free memory)")


def run(args: argparse.Namespace) -> int:
    """Run one of the protocols; return the exit status."""
    _check_stride(args)
    if args.protocol == "nwm":
        return _run_planning(args)
    from come_nav.evaluation.suites.nwm_prediction import run_prediction

    return run_prediction(args)


def open_dataset(args: argparse.Namespace) -> NwmDataset:
    """Return the data set that the flags name."""
    from come_nav.data.nwm.dataset import NwmDataset, dataset_facts

    if args.dataset is None or args.root is None:
        raise ConfigError(f"--protocol {args.protocol} needs --dataset NAME and --root DIR")
    return NwmDataset(args.root, dataset_facts(args.dataset), args.splits)


def open_model(args: argparse.Namespace, facts: DatasetFacts) -> tuple[DiffusionWorldModel, Config]:
    """Return the model, set to the spacing of the data set, and the configuration."""
    from come_nav.config import load_config
    from come_nav.core.resources import find_resource
    from come_nav.experts.normalizer import Normalizer
    from come_nav.navigation.loading import choose_device
    from come_nav.world_model.model import DiffusionWorldModel
    from come_nav.world_model.nwm.rollout import micro_batch_for

    flags = {"model": args.model, "seed": args.seed, "device": args.device}
    words = [*args.set, *(f"{key}={value}" for key, value in flags.items() if value is not None)]
    config = load_config(args.config, words)
    model = DiffusionWorldModel.load(find_resource("models", config.model), choose_device(config.device))
    model.sampler = config.sampler or model.sampler
    batch = args.micro_batch or micro_batch_for(model)
    model.inference = replace(config.inference, micro_batch=batch)
    if model.base.normalizer.kind == "range":
        model.base.normalizer = Normalizer.nwm(facts.spacing_m)
    return model, config


def quirks_of(args: argparse.Namespace) -> NwmQuirks:
    """Return the habits that are switched on."""
    from come_nav.evaluation.protocols.nwm_protocol import NwmQuirks

    return NwmQuirks.official() if args.official_quirks else NwmQuirks()


def model_settings(model: DiffusionWorldModel, config: Config, args: argparse.Namespace) -> dict[str, Any]:
    """Return all of a model that a figure depends on."""
    from come_nav.core.settings import to_mapping
    from come_nav.evaluation.suites.inputs import model_fingerprint

    return {
        **model_fingerprint(config.model),
        "sampler": to_mapping(model.sampler),
        "precision": model.inference.precision,
        "rollout_path": args.rollout_path,
        "rollout_stride": args.rollout_stride,
        "device": model.device.type,
    }


def imaginer_of(model: DiffusionWorldModel, window: Window, args: argparse.Namespace, decode: bool) -> NwmImaginer:
    """Return an imaginer over the context frames of ``window``; latents are sampled, as NWM does."""
    from come_nav.world_model.nwm.rollout import NwmImaginer

    images = model.images_from_rgb([frame.rgb for frame in window.context_frames()])
    return NwmImaginer(model, images, window.context_xyyaw, args.rollout_path, decode, stride=args.rollout_stride)


def _run_planning(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from come_nav.core.files import writable_folder
    from come_nav.evaluation.protocols.nwm_protocol import evaluate_planning, planning_windows, summarise
    from come_nav.evaluation.protocols.results import ResultStore
    from come_nav.evaluation.protocols.rows import trivial_rows
    from come_nav.evaluation.suites.nwm_report import planning_document, print_planning, write_planning

    dataset = open_dataset(args)
    quirks, search = quirks_of(args), search_config(args, dataset.facts)
    _distance(args.cost, "cpu")  # an absent library is told before anything is loaded
    model, config = open_model(args, dataset.facts)
    distance = _distance(args.cost, str(model.device))
    windows = planning_windows(dataset, config.seed, args.windows, model.context_frames)
    rows = [*trivial_rows(), _row(model, search, args, distance)]
    settings = {
        "protocol": "nwm",
        "dataset": dataset.facts.name,
        "quirks": asdict(quirks),
        "search": asdict(search),
        "cost": args.cost,
        "seed": config.seed,
        "model": model_settings(model, config, args),
    }
    folder = writable_folder(args.out or Path("runs/evaluate") / f"nwm_{dataset.facts.name}")
    with (
        ResultStore(folder / "results.jsonl", settings, args.fresh) as store,
        tqdm(total=len(windows) * len(rows), desc="plans", unit="plan", file=sys.stderr, disable=None) as bar,
    ):
        records = evaluate_planning(windows, rows, store, dataset.facts.spacing_m, quirks, lambda record: bar.update())
    document = planning_document(settings, dataset.facts, records, summarise(records, config.seed))
    document["settings"]["model"]["steps"] = model.sampler.steps
    page = write_planning(folder, document, windows, rows, records, report=not args.no_report)
    print_planning(document, folder, page, as_json=args.json)
    return 0


def _check_stride(args: argparse.Namespace) -> None:
    if args.rollout_stride == 1:
        return
    if args.protocol != "nwm":
        raise ConfigError(f"--rollout-stride is for plans, --protocol {args.protocol} takes --fps instead")
    if args.official_quirks:
        raise ConfigError(
            f"--rollout-stride must be 1 with --official-quirks, got {args.rollout_stride}: published tables have "
            "stride 1; leave one of the two out"
        )


def search_config(args: argparse.Namespace, facts: DatasetFacts) -> NwmSearchSettings:
    """Return the search that the flags ask for, with the data set's prior."""
    from come_nav.planning.nwm_search import NwmSearchSettings

    quirks = quirks_of(args)
    return NwmSearchSettings(
        prior_mean=_vector("--prior-mean", args.prior_mean, facts.prior_mean),
        prior_std=_vector("--prior-std", args.prior_std, facts.prior_std),
        spacing_m=facts.spacing_m,
        samples=args.samples,
        elites=args.top_k,
        iterations=args.iterations,
        repeats=args.repeats,
        repeat_steps=quirks.repeat_steps,
        turn_pi_twice=quirks.turn_pi_twice,
    )


def _row(
    model: DiffusionWorldModel, search: NwmSearchSettings, args: argparse.Namespace, distance: Distance | None
) -> Row:
    """Return the row of the world model under NWM's search."""
    import torch

    from come_nav.core.types import Frame, Plan
    from come_nav.evaluation.protocols.rows import WORLD_MODEL, Row
    from come_nav.planning.nwm_search import NwmPlanner

    planner = NwmPlanner(search)

    def plan(window: Window, generator: torch.Generator) -> Plan:
        goal = model.images_from_rgb([window.goal_frame().rgb])
        objective = _objective(args.cost, goal, model, distance, generator)
        return planner.plan(
            imaginer_of(model, window, args, decode=args.cost != "latent"),
            objective,
            generator,
            stamp_s=window.stamp_s,
            dt_s=window.dt_s,
            start_odom_xyyaw=window.start_odom_xyyaw,
        )

    def imagine(window: Window, paths: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return imaginer_of(model, window, args, decode=True).views(paths, generator)[:, 0].cpu()

    def image(frame: Frame) -> torch.Tensor:
        return model.images_from_rgb([frame.rgb])[0].cpu()

    return Row(WORLD_MODEL, plan, imagine, image)


def _objective(
    cost: str, goal: Any, model: DiffusionWorldModel, distance: Distance | None, generator: Any
) -> Objective:
    from come_nav.planning.objectives import ImageDistance, LatentDistance
    from come_nav.planning.view_distance import ViewDistance

    if cost == "latent":
        return LatentDistance(model.encode(goal))
    if cost == "image" or distance is None:
        return ImageDistance(goal[0])
    return ViewDistance(cost, goal[0], distance)


def _distance(cost: str, device: str) -> Distance | None:
    from come_nav.evaluation.metrics.perceptual import PAIR_DISTANCES, pair_distance

    return pair_distance(cost, device) if cost in PAIR_DISTANCES else None


def _vector(flag: str, text: str | None, default: tuple[float, float, float]) -> tuple[float, float, float]:
    if text is None:
        return default
    try:
        x, y, turn = (float(word) for word in text.split(","))
    except ValueError:
        raise ConfigError(f"{flag} must be three numbers such as -0.1,0,0, got '{text}'") from None
    return x, y, turn


def parse_names(flag: str, text: str, known: tuple[str, ...]) -> list[str]:
    """Return the words of a comma-separated list of ``known`` names."""
    return [check_choice(flag, word.strip(), known) for word in text.split(",")]
