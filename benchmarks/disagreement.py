"""Does the disagreement of the experts tell how wrong an imagined view is, and better than the known share alone?

    python benchmarks/disagreement.py --out FILE
    python benchmarks/disagreement.py --drift 2 --out FILE
    python benchmarks/disagreement.py ../shared/data/bags/kitchen --out FILE --plot FILE.png

Targets are all views up to 4 s ahead in the test phases, remembered or not. Every expert predicts the clean latents of
each from noise, as a plan does (one step); the error is the mean square of the shipped composition's latents against
the truth's. What is known beforehand: the share of the view that the remembered cloud does not show, the spread of the
experts (variance of their predictions), the contrast between the spatial expert and the base, the spread of the
composition over ``--draws`` noises, and a line fitted from some of them (non-negative least squares, on the other half
of the drives, or of the windows where there is one drive). Rank correlation with the error (1 is best), AUSE (0 is
best), each minus that of the unknown share alone, paired, with intervals over drives (windows where there is one).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine_facts
from numpy.typing import NDArray
from scipy.optimize import nnls

from come_nav.cli.evaluate_flags import parse_worlds
from come_nav.cli.output import Steps
from come_nav.config import load_config
from come_nav.core.files import atomic_path, atomic_write_text
from come_nav.evaluation.metrics.statistics import Interval
from come_nav.evaluation.metrics.uncertainty import bootstrap_of, rank_correlation, sparsification_error
from come_nav.evaluation.protocols.memory_windows import RevisitLimits
from come_nav.evaluation.suites.inputs import SourceSettings
from come_nav.evaluation.suites.memory.calibration import composed, contrasts_of, halves
from come_nav.evaluation.suites.memory.compositions import find_weights
from come_nav.evaluation.suites.memory.settings import RECALL, MemorySuiteSettings
from come_nav.evaluation.suites.memory.setup import set_up
from come_nav.navigation.loading import load_configured_model
from come_nav.viz.canvas import add_legend, new_figure, png_bytes, style_axes
from come_nav.viz.palette import BLUE, GREY, ORANGE

EVERYTHING = RevisitLimits(max_context_share=2.0, min_memory_share=0.0, min_age_frames=0)
LONGEST_FRAMES = 16
UNKNOWN = "unknown share"
BINS = 6
Values = NDArray[np.float64]


def measured(args: argparse.Namespace, folder: Path) -> tuple[dict[str, Values], Values, list[str], str]:
    """Return what is known of each window beforehand, (W,) each, its error (W,) and drive, and a title."""
    config = load_config(None, {"model": args.model})
    source = SourceSettings(RECALL, tuple(args.bag), parse_worlds(args.worlds), args.windows)
    weights = find_weights(None, args.model)
    settings = MemorySuiteSettings(source, weights, drift_percent=args.drift)
    model, offsets = load_configured_model(config), range(1, LONGEST_FRAMES + 1)
    setup = set_up(settings, config, args.adapters or folder, Steps, model, offsets, (EVERYTHING,))
    found = contrasts_of(setup, [1.0], args.draws)
    names, fixed = found[0].names, weights.composed_row("all", True).weights
    product = np.array([fixed.get(name, 0.0) for name in names])
    said = found[0].with_memory.double()
    samples = np.stack([composed(own, product).double().cpu().numpy() for own in found])
    truth = found[0].clean.double().cpu().numpy()
    evidence = found[0].evidence
    assert evidence is not None
    known = evidence[:, -1].double().flatten(1).mean(1).cpu().numpy()
    spatial, base = said[names.index("spatial")], said[names.index("base")]
    told = {
        UNKNOWN: 1.0 - known,
        "spread of experts": said.var(0).flatten(1).mean(1).cpu().numpy(),
        "spatial against base": ((spatial - base) ** 2).flatten(1).mean(1).cpu().numpy(),
        "spread of noises": samples.var(0, ddof=1).reshape(len(truth), -1).mean(1),
    }
    if "long_term" in names:
        apart = (spatial - said[names.index("long_term")]) ** 2
        told["spatial against long-term"] = apart.flatten(1).mean(1).cpu().numpy()
    errors = ((samples[0] - truth) ** 2).reshape(len(truth), -1).mean(1)
    drives = [item.window.recording_id for item in setup.selection.windows]
    return told, errors, drives, setup.found.source.title


def fitted(columns: list[Values], errors: Values, drives: list[str]) -> Values:
    """Return the error (W,) that a line tells, fitted on the half of the windows that each is not in."""
    rows = np.column_stack([np.ones(len(errors)), *columns])
    first, told = halves(drives)[0], np.zeros(len(errors))
    for own in (first, ~first):
        weights, _ = nnls(rows[~own], errors[~own])
        told[own] = rows[own] @ weights
    return told


def rounded(value: Interval) -> dict[str, Any]:
    """Return an interval as the results page reads it."""
    return {"value": round(value.value, 4), "low": round(value.low, 4), "high": round(value.high, 4), "n": value.n}


def figures(told: dict[str, Values], errors: Values, drives: list[str], seed: int = 0) -> dict[str, Any]:
    """Return rank correlation and AUSE of each, and their differences to the unknown share."""
    clusters = drives if len(set(drives)) > 1 else None
    rows: dict[str, Any] = {}
    for name, values in told.items():
        rows[name] = {}
        for title, of in (("rank correlation", rank_correlation), ("AUSE", sparsification_error)):

            def own(chosen: NDArray[np.int64], of: Any = of, values: Values = values) -> float:
                return float(of(values[chosen], errors[chosen]))

            def gained(chosen: NDArray[np.int64], of: Any = of, values: Values = values) -> float:
                return float(of(values[chosen], errors[chosen]) - of(told[UNKNOWN][chosen], errors[chosen]))

            rows[name][title] = rounded(bootstrap_of(own, len(errors), seed, clusters))
            if name != UNKNOWN:
                rows[name][f"{title}, minus {UNKNOWN}"] = rounded(bootstrap_of(gained, len(errors), seed, clusters))
    return rows


def reliability(told: Values, errors: Values, drives: list[str], seed: int = 0) -> list[dict[str, Any]]:
    """Return the mean told error and the mean error, with its interval, in bins of as many windows."""
    order, found = np.argsort(told, kind="stable"), []
    for own in np.array_split(order, BINS):
        labels = [drives[number] for number in own]
        clusters = labels if len(set(labels)) > 1 else None

        def mean(chosen: NDArray[np.int64], own: NDArray[np.int64] = own) -> float:
            return float(errors[own[chosen]].mean())

        found.append(
            {"told": round(float(told[own].mean()), 4), "error": rounded(bootstrap_of(mean, len(own), seed, clusters))}
        )
    return found


def drawn(rows: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Write the reliability plot: told against measured, the diagonal is right."""
    figure = new_figure(5.0, 4.4)
    axes = figure.add_subplot(1, 1, 1)
    most = max(point["told"] for points in rows.values() for point in points)
    axes.plot([0, most], [0, most], color=GREY, label="as told")
    for (name, points), colour in zip(rows.items(), (BLUE, ORANGE), strict=False):
        middle = [point["error"]["value"] for point in points]
        around = [[abs(point["error"]["value"] - point["error"][end]) for point in points] for end in ("low", "high")]
        axes.errorbar([point["told"] for point in points], middle, around, color=colour, marker="o", label=name)
    style_axes(axes, "error that was told", "mean error of clean latents")
    add_legend(axes)
    with atomic_path(path) as temporary:
        temporary.write_bytes(png_bytes(figure))


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bag", nargs="*")
    parser.add_argument("--worlds", default="10000-10007")
    parser.add_argument("--windows", type=int, default=192)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--drift", type=float, default=0.0, help="percent")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--adapters", type=Path, help="folder that keeps the adapters of the drives for the next run")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        told, errors, drives, title = measured(args, Path(folder))
    noises = told["spread of noises"]
    lines = {
        f"line from {UNKNOWN}": fitted([told[UNKNOWN]], errors, drives),
        "line from spread of noises": fitted([noises], errors, drives),
        f"line from {UNKNOWN} and spread of noises": fitted([told[UNKNOWN], noises], errors, drives),
    }
    points = {name: reliability(values, errors, drives) for name, values in list(lines.items())[:2]}
    result = {
        "title": title,
        "windows": len(errors),
        "drives": len(set(drives)),
        "draws": args.draws,
        "mean error": round(float(errors.mean()), 4),
        "rows": figures({**told, **lines}, errors, drives),
        "reliability": points,
        "of each window": {
            name: [round(float(v), 5) for v in values] for name, values in {**told, "error": errors}.items()
        },
        "drive of each window": drives,
        "machine": machine_facts(),
    }
    print(json.dumps(result, indent=1))
    if args.plot is not None:
        drawn(points, args.plot)
    if args.out is not None:
        atomic_write_text(args.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
