"""``come-nav trajectory``: ATE, RPE and drift of trajectories against a reference, with the conventions of evo."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from come_nav.cli.output import add_json_flag, format_table, print_json

if TYPE_CHECKING:
    from come_nav.evaluation.metrics.drift import Drift, DriftOfLength
    from come_nav.evaluation.metrics.trajectory_metrics import RpeSettings
    from come_nav.evaluation.protocols.trajectory_comparison import Comparison

EPILOG = """examples:
  come-nav trajectory ref.txt est.txt                              no alignment, RPE from pose to pose
  come-nav trajectory ref.txt est.txt --align se3                  rotate and shift the estimate onto the reference
  come-nav trajectory ref.txt mono.txt --align sim3                also scale it (monocular estimates)
  come-nav trajectory ref.txt est.txt --delta 1 --delta-unit m --all-pairs    drift per metre
  come-nav trajectory my_bag est.txt --ref-topic /ground_truth/odom --plot errors.png
  come-nav trajectory ref.txt a.txt b.txt my_bag                   one table for all
  come-nav trajectory KITTI_00_gt.txt KITTI_00_ORB.txt --drift     t_rel and r_rel as the KITTI benchmark has them

Formats, recognised by content: TUM (t x y z qx qy qz qw), KITTI (12 numbers), csv of EuRoC and VINS
(ns, x y z, qw qx qy qz, more), bags. Stamps may be s, ms, us or ns; what was assumed is noted.
Each pose of the shorter trajectory takes the nearest of the longer one in time.
ATE is what evo_ape reports, RPE what evo_rpe reports with the same alignment; an alignment that scales changes RPE too,
so RPE without alignment is then given as well.
"""
STATISTICS = ("rmse", "mean", "median", "std", "min", "max", "sse")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this verb."""
    parser.epilog = EPILOG
    parser.add_argument("reference", metavar="REF", help="reference trajectory: file or bag")
    parser.add_argument(
        "estimate", metavar="EST", nargs="+", help="estimated trajectories: files or bags; several make one table"
    )
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
    units = ("s", "ms", "us", "ns")
    parser.add_argument("--ref-unit", choices=units, help="of REF's stamps, instead of recognising it")
    parser.add_argument("--est-unit", choices=units, help="of EST's stamps, instead of recognising it")
    parser.add_argument("--ref-topic", help="pose topic when REF is a bag")
    parser.add_argument(
        "--est-topic", action="append", help="pose topic when EST is a bag; given again, one line for each topic"
    )
    parser.add_argument("--drift", action="store_true", help="KITTI's drift over 100 to 800 m (t_rel %%, r_rel deg/m)")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw both trajectories, aligned")
    add_json_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Read, match in time, compare each estimate, print."""
    from come_nav.core.checks import check_range
    from come_nav.data.trajectories import read_trajectory
    from come_nav.evaluation.metrics.trajectory_metrics import RpeSettings
    from come_nav.evaluation.protocols.trajectory_comparison import ComparisonSettings, compare

    check_range("--max-diff", args.max_diff, 0.0)
    pairs = RpeSettings(args.delta, args.delta_unit, args.all_pairs, args.pairs_from_reference, args.delta_tol)
    settings = ComparisonSettings(args.align, pairs, args.max_diff, args.offset, args.drift)
    words = ("--ref-format", "--ref-unit")
    reference = read_trajectory(
        args.reference, args.ref_format, unit=args.ref_unit, topic=args.ref_topic, settings=words
    )
    found: dict[str, Comparison] = {}
    for name, path, topic in _estimates(args):
        words = ("--est-format", "--est-unit")
        estimate = read_trajectory(path, args.est_format, unit=args.est_unit, topic=topic, settings=words)
        found[name] = compare(reference, estimate, settings, (args.reference, name))
    if args.plot is not None:
        _plot(args.plot, found)
    if args.json:
        documents = [_document(args, name, comparison) for name, comparison in found.items()]
        print_json(documents[0] if len(documents) == 1 else {"estimates": documents})
    elif len(found) == 1:
        _print(args, pairs, *found.values())
    else:
        _print_table(args, pairs, found)
    return 0


def _estimates(args: argparse.Namespace) -> list[tuple[str, str, str | None]]:
    """Return (unique name, path, topic) of every estimate: each file once, each bag once for every named topic."""
    from come_nav.core.errors import ConfigError
    from come_nav.data.bags.storage import is_bag

    found: list[tuple[str, str, str | None]] = []
    topics = args.est_topic or [None]
    for path in args.estimate:
        of_bag = topics if args.est_format == "bag" or is_bag(Path(path)) else [None]
        for topic in of_bag:
            found.append((path if len(of_bag) == 1 else f"{path} {topic}", path, topic))
    names = [name for name, _, _ in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"{twice}: is named twice; name each estimate once")
    return found


def _document(args: argparse.Namespace, name: str, comparison: Comparison) -> dict[str, Any]:
    return {
        "reference": args.reference,
        "estimate": name,
        "delta": args.delta,
        "delta_unit": args.delta_unit,
        "all_pairs": args.all_pairs,
        "pairs_from_reference": args.pairs_from_reference,
        **comparison.to_mapping(),
    }


def _print(args: argparse.Namespace, settings: RpeSettings, comparison: Comparison) -> None:
    print(f"association: {comparison.association}")
    alignment = comparison.errors["ate"].alignment
    scale = f", scale {alignment.scale:.6f}" if args.align in ("sim3", "scale_only") else ""
    length_m = comparison.reference.path_length_m
    print(f"alignment: {alignment.mode}{scale}; path of the matched reference {length_m:.3f} m")
    print(f"{_pairs(settings)}\n")
    titles = {"ate": "ATE", "rpe": "RPE", "rpe_unaligned": "RPE unaligned"}
    lines = []
    for name, result in comparison.errors.items():
        for unit, summary in (("m", result.translation_m), ("deg", result.rotation_deg)):
            figures = [f"{getattr(summary, statistic):.6f}" for statistic in STATISTICS]
            lines.append([f"{titles[name]} [{unit}]", *figures, str(summary.n)])
    print(format_table(["", *STATISTICS, "n"], lines))
    if comparison.drift is not None:
        drift = comparison.drift
        rows = [[f"{row.length_m:g} m", *_drift_cells(row), str(row.n)] for row in drift.lengths]
        header = ["drift over", "t_rel %", "r_rel deg/m", "n"]
        print("\n" + format_table(header, [*rows, ["all", *_drift_cells(drift), str(drift.n)]]))


def _print_table(args: argparse.Namespace, settings: RpeSettings, found: dict[str, Comparison]) -> None:
    """Print one line for each estimate, all against the same reference."""
    print(f"reference: {args.reference}; alignment: {args.align}; RMSE; {_pairs(settings)}\n")
    header = ["estimate", "ATE m", "ATE deg", "RPE m", "RPE deg"]
    header += ["t_rel %", "r_rel deg/m"] if args.drift else []
    header += ["scale"] if args.align in ("sim3", "scale_only") else []
    lines = []
    for name, comparison in found.items():
        line = [name]
        for error in (comparison.errors["ate"], comparison.errors["rpe"]):
            line += [f"{error.translation_m.rmse:.6f}", f"{error.rotation_deg.rmse:.6f}"]
        line += [] if comparison.drift is None else _drift_cells(comparison.drift)
        line += [f"{comparison.errors['ate'].alignment.scale:.6f}"] if "scale" in header else []
        report = comparison.association
        lines.append([*line, str(report.matched), f"{comparison.reference.path_length_m:.3f}"])
    print(format_table([*header, "matched", "path m"], lines))


def _pairs(settings: RpeSettings) -> str:
    kind = "all pairs" if settings.all_pairs else "consecutive pairs"
    along = " along the reference" if settings.pairs_from_reference and settings.unit == "m" else ""
    return f"RPE over {settings.delta:g} {'m' if settings.unit == 'm' else 'frames'}{along}, {kind}"


def _drift_cells(row: Drift | DriftOfLength) -> list[str]:
    return [f"{row.t_rel_percent:.4f}", f"{row.r_rel_deg_per_m:.6f}"]


def _plot(path: Path, found: dict[str, Comparison]) -> None:
    from come_nav.core.files import atomic_path
    from come_nav.viz.figures import plot_trajectories

    first = next(iter(found.values()))
    curves = {"truth": first.reference.positions_xyz[:, :2]}
    for name, comparison in found.items():
        aligned = comparison.errors["ate"].alignment.apply(comparison.estimate.T_world_body)
        curves["estimate" if len(found) == 1 else name] = aligned[:, :2, 3]
    result = first.errors["ate"]
    title = (
        f"ATE {result.translation_m.rmse:.4f} m (rmse, n = {result.translation_m.n}, alignment {result.alignment.mode})"
    )
    image = plot_trajectories(curves, title=title if len(found) == 1 else f"alignment {result.alignment.mode}")
    with atomic_path(path) as temporary:
        temporary.write_bytes(image)
