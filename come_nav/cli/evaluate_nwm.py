"""``come-nav evaluate --protocol nwm | nwm-time | nwm-rollout``: NWM's protocols on data sets in its layout."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from come_nav.cli.evaluate_flags import configuration
from come_nav.cli.output import Steps, format_table, print_files, print_json
from come_nav.core.checks import check_choice
from come_nav.core.errors import ConfigError

if TYPE_CHECKING:
    from come_nav.evaluation.suites.nwm.planning import NwmPlanningOutcome
    from come_nav.evaluation.suites.nwm.prediction import NwmPredictionOutcome
    from come_nav.evaluation.suites.nwm.settings import NwmSuiteSettings

PLANS = "nwm"
PROTOCOLS = (PLANS, "nwm-time", "nwm-rollout")
COSTS = ("lpips", "dreamsim", "latent", "image")
STRIDES = (1, 2, 4, 8)
PATHS = ("latents", "moments", "pixels")


def add_arguments(parser: argparse.ArgumentParser) -> None:
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
    """Run one of the protocols; print the table, or everything as JSON."""
    from come_nav.data.nwm.dataset import dataset_facts
    from come_nav.evaluation.suites.nwm.planning import run_nwm_planning
    from come_nav.evaluation.suites.nwm.prediction import run_nwm_prediction

    settings, config = nwm_settings(args), configuration(args)
    folder = args.out or Path("runs/evaluate") / f"{args.protocol}_{dataset_facts(settings.dataset).name}"
    if args.protocol == PLANS:
        plans = run_nwm_planning(settings, config, folder, Steps)
        page = None if plans.page is None else str(plans.page)
        if args.json:
            print_json({**plans.document, "out": str(plans.folder), "report": page})
        else:
            _print_plans(plans)
    else:
        views = run_nwm_prediction(settings, config, folder, Steps)
        if args.json:
            print_json(views.document)
        else:
            _print_views(views, settings)
    return 0


def nwm_settings(args: argparse.Namespace) -> NwmSuiteSettings:
    """Return what the flags ask of a protocol."""
    from come_nav.evaluation.suites.nwm.settings import METRICS, NwmSuiteSettings

    if args.dataset is None or args.root is None:
        raise ConfigError(f"--protocol {args.protocol} needs --dataset NAME and --root DIR")
    metrics = None if args.metrics is None else [word.strip() for word in args.metrics.split(",")]
    return NwmSuiteSettings(
        protocol=args.protocol,
        dataset=args.dataset,
        root=args.root,
        splits=args.splits,
        official_quirks=args.official_quirks,
        cost=args.cost,
        rollout_path=args.rollout_path,
        rollout_stride=args.rollout_stride,
        samples=args.samples,
        top_k=args.top_k,
        iterations=args.iterations,
        repeats=args.repeats,
        prior_mean=_vector("--prior-mean", args.prior_mean),
        prior_std=_vector("--prior-std", args.prior_std),
        seconds=_seconds(args.seconds),
        fps=args.fps,
        metrics=METRICS if metrics is None else tuple(check_choice("--metrics", word, METRICS) for word in metrics),
        micro_batch=args.micro_batch,
        windows=args.windows,
        fresh=args.fresh,
        report=not args.no_report,
    )


def _print_plans(outcome: NwmPlanningOutcome) -> None:
    from come_nav.evaluation.suites.nwm.report import headline, table_lines

    document = outcome.document
    print(f"{document['title']}: {document['windows']} windows, one spacing is {document['spacing_m']:g} m")
    print(f"{headline(document)}\n")
    print(format_table(*table_lines(document)))
    print_files(outcome.folder, outcome.page)


def _print_views(outcome: NwmPredictionOutcome, settings: NwmSuiteSettings) -> None:
    from come_nav.evaluation.suites.nwm.prediction import score_lines

    document, sampler = outcome.document, outcome.sampler
    quirks = "on" if settings.official_quirks else "off"
    print(
        f"{document['title']}: {document['windows']} windows, {sampler.name} {sampler.steps} steps, quirks {quirks}\n"
    )
    print(format_table(*score_lines(outcome.scores, settings.metrics)))
    print(f"\nresults: {outcome.folder / 'results.json'}, images in {document['images']}")


def _vector(flag: str, text: str | None) -> tuple[float, float, float] | None:
    if text is None:
        return None
    try:
        x, y, turn = (float(word) for word in text.split(","))
    except ValueError:
        raise ConfigError(f"{flag} must be three numbers such as -0.1,0,0, got '{text}'") from None
    return x, y, turn


def _seconds(text: str) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdigit() and int(word) >= 1 for word in words):
        raise ConfigError(f"--seconds must be whole seconds such as 1,2,4, got '{text}'")
    return tuple(sorted({int(word) for word in words}))
