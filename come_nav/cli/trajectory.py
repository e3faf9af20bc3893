"""``come-nav trajectory``: ATE and RPE of two trajectories, with the conventions of evo."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from come_nav.cli.output import add_json_flag, format_table, print_json

if TYPE_CHECKING:
    from come_nav.core.types import Trajectory
    from come_nav.data.timing.association import AssociationReport
    from come_nav.evaluation.metrics.trajectory_metrics import ErrorReport, RpeSettings

EPILOG = """examples:
  come-nav trajectory ref.txt est.txt                              no alignment, RPE from pose to pose
  come-nav trajectory ref.txt est.txt --align se3                  rotate and shift the estimate onto the reference
  come-nav trajectory ref.txt mono.txt --align sim3                also scale it (monocular estimates)
  come-nav trajectory ref.txt est.txt --delta 1 --delta-unit m --all-pairs    drift per metre
  come-nav trajectory my_bag est.txt --ref-topic /ground_truth/odom --plot errors.png

Formats, recognised by content: TUM (t x y z qx qy qz qw), KITTI (12 numbers), EuRoC csv, bags.
Each pose of the shorter trajectory takes the nearest of the longer one in time.
ATE is what evo_ape reports, RPE what evo_rpe reports with the same alignment; an alignment that scales changes RPE too,
so RPE without alignment is then given as well.
"""
STATISTICS = ("rmse", "mean", "median", "std", "min", "max", "sse")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this verb."""
    parser.epilog = EPILOG
    parser.add_argument("reference", metavar="REF", help="reference trajectory: file or bag")
    parser.add_argument("estimate", metavar="EST", help="estimated trajectory: file or bag")
    modes = ("none", "se3", "sim3", "scale_only", "origin")
    parser.add_argument("--align", default="none", choices=modes, help="fit of EST onto REF (default none)")
    parser.add_argument(
        "--delta", type=float, default=1.0, help="distance between the poses of an RPE pair (default 1)"
    )
    parser.add_argument(
        "--delta-unit", default="f", choices=("f", "m"), help="of --delta: f poses, m metres (default f)"
    )
    parser.add_argument(
        "--delta-tol", type=float, default=0.1, help="with m and all pairs, as a fraction (default 0.1)"
    )
    parser.add_argument("--all-pairs", action="store_true", help="overlapping pairs from every pose")
    parser.add_argument("--pairs-from-reference", action="store_true", help="measure metres along REF, not along EST")
    parser.add_argument(
        "--max-diff", type=float, default=0.01, metavar="S", help="largest stamp difference (default 0.01 s)"
    )
    parser.add_argument("--offset", type=float, default=0.0, metavar="S", help="added to EST's stamps (default 0 s)")
    parser.add_argument("--ref-format", choices=("tum", "kitti", "euroc", "bag"), help="instead of recognising it")
    parser.add_argument("--est-format", choices=("tum", "kitti", "euroc", "bag"), help="instead of recognising it")
    parser.add_argument("--ref-topic", help="pose topic when REF is a bag")
    parser.add_argument("--est-topic", help="pose topic when EST is a bag")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw both trajectories, aligned")
    add_json_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Read, match in time, compare, print."""
    from come_nav.core.checks import check_range
    from come_nav.data.trajectories import read_trajectory
    from come_nav.evaluation.metrics.trajectory_metrics import RpeSettings, ate, rpe

    check_range("--max-diff", args.max_diff, 0.0)
    settings = RpeSettings(args.delta, args.delta_unit, args.all_pairs, args.pairs_from_reference, args.delta_tol)
    reference = read_trajectory(args.reference, args.ref_format, topic=args.ref_topic)
    estimate = read_trajectory(args.estimate, args.est_format, topic=args.est_topic)
    reference, estimate, report = match(
        reference, estimate, args.max_diff, args.offset, (args.reference, args.estimate)
    )
    results = {"ate": ate(reference, estimate, args.align), "rpe": rpe(reference, estimate, settings, args.align)}
    if args.align in ("sim3", "scale_only"):
        results["rpe_unaligned"] = rpe(reference, estimate, settings)
    if args.plot is not None:
        _plot(args.plot, reference, estimate, results["ate"])
    if args.json:
        print_json(_document(args, reference, estimate, report, results))
    else:
        _print(args, reference, report, settings, results)
    return 0


def match(
    reference: Trajectory, estimate: Trajectory, max_difference_s: float, offset_s: float, names: tuple[str, str]
) -> tuple[Trajectory, Trajectory, AssociationReport]:
    """Return the poses of both that belong together, with equal stamps, and the report of the association."""
    from come_nav.core.types import Trajectory
    from come_nav.data.timing.association import associate_nearest

    found = associate_nearest(
        reference.stamps_s, estimate.stamps_s, max_difference_s, offset_s, names=names, flag="--offset"
    )
    # A pose of the longer trajectory may serve twice; the stamps of the shorter one are unique.
    shorter_is_estimate = len(estimate) < len(reference)
    stamps_s = estimate.stamps_s[found.index_b] + offset_s if shorter_is_estimate else reference.stamps_s[found.index_a]
    return (
        Trajectory(stamps_s, reference.T_world_body[found.index_a], reference.frame_id),
        Trajectory(stamps_s, estimate.T_world_body[found.index_b], estimate.frame_id),
        found.report,
    )


def _document(
    args: argparse.Namespace,
    reference: Trajectory,
    estimate: Trajectory,
    report: AssociationReport,
    results: dict[str, ErrorReport],
) -> dict[str, Any]:
    from dataclasses import asdict

    alignment = results["ate"].alignment
    document: dict[str, Any] = {
        "reference": args.reference,
        "estimate": args.estimate,
        "association": report.to_mapping(),
        "path_length_m": {"reference": reference.path_length_m, "estimate": estimate.path_length_m},
        "alignment": {
            "mode": alignment.mode,
            "rotation": alignment.rotation,
            "translation": alignment.translation,
            "scale": alignment.scale,
        },
        "delta": args.delta,
        "delta_unit": args.delta_unit,
        "all_pairs": args.all_pairs,
        "pairs_from_reference": args.pairs_from_reference,
    }
    for name, result in results.items():
        document[name] = {"translation_m": asdict(result.translation_m), "rotation_deg": asdict(result.rotation_deg)}
    return document


def _print(
    args: argparse.Namespace,
    reference: Trajectory,
    report: AssociationReport,
    settings: RpeSettings,
    results: dict[str, ErrorReport],
) -> None:
    print(f"association: {report}")
    alignment = results["ate"].alignment
    scale = f", scale {alignment.scale:.6f}" if args.align in ("sim3", "scale_only") else ""
    print(f"alignment: {alignment.mode}{scale}; path of the matched reference {reference.path_length_m:.3f} m")
    kind = "all pairs" if settings.all_pairs else "consecutive pairs"
    along = " along the reference" if settings.pairs_from_reference and settings.unit == "m" else ""
    print(f"RPE over {settings.delta:g} {'m' if settings.unit == 'm' else 'frames'}{along}, {kind}\n")
    titles = {"ate": "ATE", "rpe": "RPE", "rpe_unaligned": "RPE unaligned"}
    lines = []
    for name, result in results.items():
        for unit, summary in (("m", result.translation_m), ("deg", result.rotation_deg)):
            figures = [f"{getattr(summary, statistic):.6f}" for statistic in STATISTICS]
            lines.append([f"{titles[name]} [{unit}]", *figures, str(summary.n)])
    print(format_table(["", *STATISTICS, "n"], lines))


def _plot(path: Path, reference: Trajectory, estimate: Trajectory, result: ErrorReport) -> None:
    from come_nav.core.files import atomic_path
    from come_nav.viz.figures import plot_trajectories

    aligned = result.alignment.apply(estimate.T_world_body)
    title = (
        f"ATE {result.translation_m.rmse:.4f} m (rmse, n = {result.translation_m.n}, alignment {result.alignment.mode})"
    )
    image = plot_trajectories({"truth": reference.positions_xyz[:, :2], "estimate": aligned[:, :2, 3]}, title=title)
    with atomic_path(path) as temporary:
        temporary.write_bytes(image)
