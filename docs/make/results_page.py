"""Writes docs/results.md from benchmarks/results: every figure of the documentation comes from a file of a run.

python docs/make/results_page.py          write docs/results.md
python docs/make/results_page.py --check  exit status 1 where the page is not what the files say
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from composition_tables import (
    adapters,
    by_age,
    calibrated,
    disagreement,
    doubted,
    nwm_composition,
    sampled,
    split_plans,
)
from memory_tables import latent_ablations, latent_memory, memory_costs, retrieval, sequence_costs, sequence_memories
from room_sections import ROOMS
from ros_tables import fake_robots, kills, load, soak
from sections import Section, Table, interval
from small_sections import SMALL, recall

ROOT = Path(__file__).resolve().parents[2]
MEMORY = ("rss_mb", "private_dirty_mb")
RESULTS, PAGE = ROOT / "benchmarks" / "results", ROOT / "docs" / "results.md"
HEAD = """# Results

<!-- written by docs/make/results_page.py from benchmarks/results; do not edit -->

Every table is made from a file in `benchmarks/results/`, which also holds the settings, the windows and the machine.
Means carry a 95 % bootstrap interval over worlds or recordings. All of it ran on two CPU cores; nothing ran on CUDA, on
a real robot, with official Navigation World Models weights, in Habitat or in Gazebo.

On recordings, ages of what a spatial memory shows were told as zero until lately (stamps in float32). Tables of
`small` in the kitchen and around the cabinet are remade since: recall changed by at most 0.005 dB, plans of 2 s of the
composition by -0.002 m in the kitchen and +0.016 m around the cabinet (12 windows). Other rows with a spatial expert
on recordings, of `tiny` and beside policies, are of before.

The preset `ideal-64` is a camera of 64 x 64 pixels and 90 degrees, 0.5 m high and level, true depth and odometry
without noise, unless a row says how it drifts; contexts look at estimated depth (`--depth estimated`). "base" is this
project's small network, which sees rendered views of its context; it is not the class of Navigation World Models. CoME
is the composition of all experts."""


def planning(result: dict[str, Any]) -> Sequence[Table]:
    """Return the table of plans, the gap closure and the ratios over the base or constant velocity."""
    table = result["table"]
    rows = [[row["row"], interval(row["ate_m"]), interval(row["rpe_m"]), str(row["n"])] for row in table["rows"]]
    tables: list[Table] = [(["row", "ATE [m]", "RPE [m]", "n"], rows)]
    closure = [[row, interval(value, 2)] for row, value in table.get("gap_closure", {}).items()]
    if closure:
        tables.append((["row", "gap closed between constant velocity (0) and perfect model (1)"], closure))
    names = [row["row"] for row in table["rows"]]
    reference = next((name for name in names if name.startswith("base")), "constant velocity")
    ratios = [[own["row"], interval(own)] for own in table["ate_ratios"] if own["reference"] == reference]
    return [*tables, (["row", f"ATE over that of {reference}, paired"], ratios)]


def beside_baselines(result: dict[str, Any]) -> Sequence[Table]:
    """Return ATE and RPE of a policy beside constant velocity and the mean path, and the paired differences."""
    rows = [[name, interval(row["ate_m"]), interval(row["rpe_m"])] for name, row in result["rows"].items()]
    header = ["row", "ATE [m]", "RPE [m]"]
    apart = [f"minus {name}" for name in ("constant velocity", "mean path")]
    differences = [
        [name, *(interval(row[other]) if other in row else "" for other in apart)]
        for name, row in result["rows"].items()
        if any(other in row for other in apart)
    ]
    return [(header, rows), (["ATE [m], paired", *apart], differences)]


def quality(result: dict[str, Any]) -> Sequence[Table]:
    """Return the table of imagined views by horizon."""
    table = result["table"]
    horizons = table["horizons_s"]
    found = {(row["row"], row["horizon_s"]): row for row in table["rows"]}
    names = list(dict.fromkeys(row["row"] for row in table["rows"]))
    rows = [
        [
            name,
            *(f"{found[name, h]['psnr_db']['value']:.1f} / {found[name, h]['ssim']['value']:.2f}" for h in horizons),
            " / ".join(f"{found[name, h]['sharpness']['value']:.2f}" for h in horizons),
        ]
        for name in names
    ]
    header = ["row", *(f"{h:g} s: PSNR [dB] / SSIM" for h in horizons), "sharpness ratio"]
    return [(header, rows)]


def model_figures(result: dict[str, Any]) -> Sequence[Table]:
    """Return all figures of one model: views, sets of views, plans and depth."""
    parts: dict[str, Any] = result["parts"]
    views, sets, plans, depth = [], [], [], []
    for name, found in parts.get("prediction", {}).items():
        for at in found["horizons"]:
            own = at["rows"]["world model, jump"]
            cells = [interval(own["psnr_db"], 1), interval(own["ssim"], 2), interval(own["sharpness"], 2)]
            gains = [interval(at[gain]["psnr_db"], 1) for gain in ("gain_over_copy", "gain_over_best_blur")]
            views.append([f"{name}, {at['horizon_s']:g} s", *cells, *gains, str(found["windows"])])
    for name, found in parts.get("images", {}).items():
        for row, figures in found["rows"].items():
            cells = [interval(figures["kernel_distance"], 2)]
            cells += [interval(figures["sharpness"], 2) if "sharpness" in figures else "-"]
            shown = [figures.get("coverage", {}).get(key) for key in ("nearest", "mean", "spread")]
            sets.append([f"{name}, {row}", *cells, *("-" if value is None else interval(value, 2) for value in shown)])
    for name, found in parts.get("planning", {}).items():
        tables = {name: found["table"], **{f"{name}, {own}": table for own, table in found.get("by_sight", {}).items()}}
        for title, table in tables.items():
            closure = table.get("gap_closure", {})
            plans += [
                [f"{title}, {row['row']}", interval(row["ate_m"]), _closed(closure, row["row"]), str(row["n"])]
                for row in table["rows"]
            ]
    for name, found in parts.get("depth", {}).items():
        columns = ("abs_rel", "abs_rel with the best scale", "abs_rel without the camera")
        ratio = found["median of estimated over measured"]
        depth.append([name, *(interval(found[key], 2) for key in columns), interval(ratio, 2), str(found["frames"])])
    over = ["PSNR over the copy [dB]", "over the best blurred copy"]
    kernel = ["kernel distance, middle 95 % of subsets", "sharpness ratio"]
    errors = ["AbsRel", "with each frame's best scale", "without the camera", "median of estimate over measured"]
    return [
        (["view", "PSNR [dB]", "SSIM", "sharpness ratio", *over, "n"], views),
        (["views that nothing tells", *kernel, "nearest of 16", "mean of 16", "spread of 16"], sets),
        (["plan", "ATE [m]", "gap closed", "n"], plans),
        (["depth of", *errors, "frames"], depth),
    ]


def training_log(result: dict[str, Any]) -> Sequence[Table]:
    """Return validation losses of a run against its steps."""
    tables = []
    for stage, own in result["stages"].items():
        checks: dict[str, Any] = own["validation"]
        steps = sorted({step for found in checks.values() for step in found["step"]})
        if not steps:
            continue
        by_step = {name: dict(zip(found["step"], found["value"], strict=True)) for name, found in checks.items()}
        rows = [[f"{step:,}", *(f"{found.get(step, math.nan):.4f}" for found in by_step.values())] for step in steps]
        tables.append(([f"{stage}: step ({own['hours']} h on the clock)", *checks], rows))
    return tables


def _closed(closure: dict[str, Any], row: str) -> str:
    return interval(closure[row], 2) if row in closure else "-"


def closed_loop(result: dict[str, Any]) -> Sequence[Table]:
    """Return successes of drives to images."""
    rows = []
    for kind in ("in view", "out of view"):
        own = result["summary"][kind]
        low, high = own["interval"]
        reached = round(own["n"] * own["success"])
        left_m = own["median left_m where reached"]
        left = "" if left_m is None else f"{left_m:.2f}"
        rows.append([kind, f"{reached} of {own['n']} [{low:.2f}, {high:.2f}]", left])
    rows.append(["collision steps", str(result["summary"]["collisions"]), ""])
    goals = [goal for world in result["worlds"] for goal in world["goals"]]
    waits_s = sorted(goal["goal_to_motion_s"] for goal in goals if goal.get("goal_to_motion_s") is not None)
    if waits_s:
        told = f"{waits_s[len(waits_s) // 2]:.2f} ({waits_s[0]:.2f} to {waits_s[-1]:.2f})"
        rows.append(["goal to first motion, median (range) [s]", told, ""])
    return [(["goals", "reached (Wilson 95 %)", "median left [m]"], rows)]


def ablations(result: dict[str, Any]) -> Sequence[Table]:
    """Return successes of the closed loop with its parts switched off one by one."""
    rows = [
        [
            own["row"],
            *(f"{own[kind]['reached']} of {own[kind]['n']}" for kind in ("in view", "out of view")),
            f"{own['collision_steps']}",
            f"{own['wrong_arrivals']}",
        ]
        for own in result["rows"]
    ]
    return [(["what is on", "in view", "out of view", "collision steps", "said reached, but was not"], rows)]


def drift(result: dict[str, Any]) -> Sequence[Table]:
    """Return what drift correction leaves of odometry's error."""
    header = ["drive", "drift [%]", "odometry [m]", "corrected, at once [m]", "corrected, afterwards [m]", "closures"]
    keys = ("odometry m", "corrected at once m", "corrected afterwards m")
    rows = [
        [str(row.get("recording", f"world {row.get('world')}")), f"{row['drift %']:g}"]
        + [f"{row[key]:.3f}" for key in keys]
        + [str(row["closures"])]
        for row in result["rows"]
    ]
    return [(header, rows)]


def recognised(result: dict[str, Any]) -> Sequence[Table]:
    """Return how many images are found and recognised, for each memory and kind of search."""
    header = ["memory, search", "right", "recall, recognised", "precision", "never seen, recognised", "CPU [ms]"]
    rows = [
        [
            name,
            f"{own['right']} of {own['n']}",
            f"{own['recall']:.2f} [{own['recall, 95 %'][0]:.2f}, {own['recall, 95 %'][1]:.2f}]",
            "-" if own["precision"] is None else f"{own['precision']:.2f}",
            f"{own['never seen, recognised']} of {own['never seen']}",
            f"{own['median cpu_ms']:.0f}",
        ]
        for name, own in result.items()
    ]
    return [(header, rows)]


def consistent(result: dict[str, Any]) -> Sequence[Table]:
    """Return how far a recording's poses, images and depth are apart."""
    kinds = ("loop", "registration - poses", "depth - poses", "depth - registration")
    header = ["recording", "colour camera", "images later by [s]", *(f"{kind} [cm, rad]" for kind in kinds)]
    rows = [
        [
            row["recording"],
            f"{row['colour focal px']:.1f} px, {100 * row['colour x m']:.1f} cm to the right",
            f"{row['lag s']:g}",
            *(f"{100 * row[kind]['median m']:.1f}, {row[kind]['median rad']:.3f}" for kind in kinds),
        ]
        for row in result["rows"]
    ]
    return [(header, rows)]


def calibrated_online(result: dict[str, Any]) -> Sequence[Table]:
    """Return errors with weights as set and with those that follow."""
    header = ["drives", "tests", "as set", "calibrated", "ratio", "experts alone", "CPU of a frame [ms]"]
    rows = [
        [
            name,
            str(own["tests"]),
            f"{own['prior']:.3f}",
            f"{own['calibrated']:.3f}",
            f"{own['ratio']:.3f} [{own['ratio, 95 %'][0]:.3f}, {own['ratio, 95 %'][1]:.3f}]",
            ", ".join(f"{expert} {error:.3f}" for expert, error in own["alone"].items()),
            f"{own['CPU ms a frame']:.0f}",
        ]
        for name, own in result["rows"].items()
    ]
    return [(header, rows)]


def calibrated_plans(result: dict[str, Any]) -> Sequence[Table]:
    """Return ATE of plans with weights as set and with those that follow."""
    header = ["drives", "plans", "ATE as set [m]", "ATE calibrated [m]", "calibrated - as set [m]"]
    cells = ("ATE of plans, prior [m]", "ATE of plans, calibrated [m]", "calibrated - prior [m]")
    rows = []
    for name, own in result["rows"].items():
        told = (own[cell] for cell in cells)
        rows.append([name, str(own["plans"]), *(f"{value:.4f} [{low:.4f}, {high:.4f}]" for value, low, high in told)])
    return [(header, rows)]


def localisation_cost(result: dict[str, Any]) -> Sequence[Table]:
    """Return what one more key frame costs after so many."""
    header = ["key frames before", "CPU of one more, median [ms]", "most [ms]", "MB"]
    rows = [
        [str(row["key frames"]), f"{row['CPU ms']:.0f}", f"{row['most ms']:.0f}", f"{row['MB']:.0f}"]
        for row in result["rows"]
    ]
    return [(header, rows)]


def fuzzed(result: dict[str, Any]) -> Sequence[Table]:
    """Return what readers made of mutated files."""
    header = ["files", "mutations", "read", "refused in one line", "tracebacks", "hangs", "died", "attacks", "code run"]
    rows = [
        [kind]
        + [
            str(own[key] if isinstance(own[key], int) else len(own[key]))
            for key in ("mutations", "read", "refused", "tracebacks", "hangs", "died", "attacks", "code_run")
        ]
        for kind, own in result["kinds"].items()
    ]
    return [(header, rows)]


def relocalised(result: dict[str, Any]) -> Sequence[Table]:
    """Return how often the place of an image was found."""
    rows = []
    for kind, own in result["summary"].items():
        value, low, high = own["found right"]
        known = own["recognised"]
        cpu_s = own["median cpu_s"]
        rows.append([kind, f"{value:.2f} [{low:.2f}, {high:.2f}]", f"{known['right']} of {known['n']}", f"{cpu_s:.1f}"])
    return [(["images", "found within 0.5 m and 0.6 rad", "recognised rightly", "median CPU [s]"], rows)]


def composition_cost(result: dict[str, Any]) -> Sequence[Table]:
    """Return what a sampling step costs."""
    rows = [
        [own["name"], str(own["passes"]), f"{own['over_base']:.2f}", f"{own['over_base'] / own['passes']:.2f}"]
        for own in result["rows"]
    ]
    return [(["experts", "passes", "time over the base's", "over that of as many passes"], rows)]


def plan_curve(result: dict[str, Any]) -> Sequence[Table]:
    """Return what fewer candidates, or fewer that are imagined, cost and save."""
    rows = []
    for own in result["rows"]:
        ate, worse = own["ate_m_interval"], own["worse_m_interval"]
        rows.append(
            [
                own["setting"],
                f"{own['ate_m']:.3f} [{ate[0]:.3f}, {ate[1]:.3f}]",
                f"{own['worse_m']:+.4f} [{worse[0]:+.4f}, {worse[1]:+.4f}]",
                f"{own['time_ratio']:.2f}",
                str(own["windows"]),
            ]
        )
    headings = ["first, next, iterations, share imagined, precision", "ATE (m)", "worse by (m)", "time", "windows"]
    return [(headings, rows)]


RATES = ("hz", "p50_s", "p99_s")


def plan_rates(result: dict[str, Any]) -> Sequence[Table]:
    """Return plans a second, and what an adapter that trains beside costs them."""
    rows = [
        [
            own["name"],
            f"{own['imagined_share']:g}",
            *(f"{own[key]:.2f}" for key in ("hz", "p50_s", "p99_s")),
            f"{own['n']}",
        ]
        for own in result["rows"]
    ]
    beside = result["training"]
    training = [
        [name, *(f"{beside[key][value]:.2f}" for value in RATES), f"{beside[key]['n']}"]
        for name, key in (("alone", "alone"), (f"{beside['training_steps_per_s']:.1f} steps a second", "beside"))
    ]
    times = ["plans a second (median)", "median [s]", "slowest of a hundred [s]", "n"]
    return [(["plan", "share imagined", *times], rows), (["beside an adapter's training", *times], training)]


def process_memory(result: dict[str, Any]) -> Sequence[Table]:
    """Return what a planner's process is made of, step by step."""
    trees = result["trees"]
    steps = list(trees["after"]["steps"])
    rows = [[step, *(f"{own['steps'][step][kind]:.0f}" for own in trees.values() for kind in MEMORY)] for step in steps]
    rows.append(["most at any time", *(text for own in trees.values() for text in (f"{own['peak_mb']:.0f}", ""))])
    headings = [f"{name}: {what} (MB)" for name in trees for what in ("resident", "its own")]
    return [(["after", *headings], rows)]


def growth(result: dict[str, Any]) -> Sequence[Table]:
    """Return what memory costs as it grows."""
    rows = [
        [
            str(own["frames"]),
            f"{own['cloud_mb']:.1f}",
            f"{own['observe_ms_median']:.1f}",
            f"{own['render_ms_median']:.1f}",
        ]
        for own in result["rows"]
    ]
    return [(["frames", "cloud [MB]", "a frame [ms]", "a view [ms]"], rows)]


def variants(result: dict[str, Any]) -> Sequence[Table]:
    """Return what each variant of the denoiser comes to in equal time, by views 2 s ahead."""
    rows = []
    for own in result["trainings"]:
        gain = (own.get("images") or own["pictures"])["gain_psnr_db"][1]
        size, loss = f"{own['parameters'] / 1e6:.1f} M", own["validation_loss"]["loss"][-1]
        rows.append(
            [own["variant"], size, f"{own['budget_s']:.0f}", str(own["steps"]), f"{loss:.3f}", interval(gain, 2)]
        )
    header = ["variant", "parameters", "trained [s]", "steps", "validation loss", "PSNR over copying at 2 s [dB]"]
    return [(header, rows)]


def sizes(result: dict[str, Any]) -> Sequence[Table]:
    """Return ``variants``, and each one's validation loss after a third, two thirds and all of the longest training."""
    longest_s = max(own["budget_s"] for own in result["trainings"])
    shown_s = [longest_s * share / 3 for share in (1, 2, 3)]
    rows = []
    for own in result["trainings"]:
        curve = own["validation_loss"]
        if own["budget_s"] == longest_s:
            at = [min(range(len(curve["loss"])), key=lambda i, s=s: abs(curve["seconds"][i] - s)) for s in shown_s]
            rows.append([own["variant"], *(f"{curve['loss'][i]:.4f} ({curve['steps'][i]:,.0f} steps)" for i in at)])
    return [*variants(result), (["loss after", *(f"{s:.0f} s" for s in shown_s)], rows)]


def compared(result: dict[str, Any]) -> Sequence[Table]:
    """Return views over copying of each model on the same windows, and the paired differences to the first."""
    rows = []
    for name, models in result["inputs"].items():
        for model, own in models.items():
            gains = [f"{gain['value']:.2f}" for gain in own["gains"]["psnr_db"]]
            first = model == next(iter(models))
            less = ["-"] * len(gains) if first else [interval(value, 2) for value in own["over_first"]["psnr_db"]]
            rows.append([f"{name}, `{model}`", " / ".join(gains), *less, str(own["windows"])])
    header = ["input, model", "over copying at 1 / 2 / 4 / 8 s [dB]"]
    return [([*header, *(f"over the first, {horizon} s" for horizon in (1, 2, 4, 8)), "n"], rows)]


def compute(result: dict[str, Any]) -> Sequence[Table]:
    """Return the work of each stage of training and, by model, of all of them."""
    parts, auto = result["parts"], result["machine"]["auto"]
    rows = [
        [
            own["part"],
            f"{own['steps']:,}",
            f"{own['flop_per_step'] / 1e9:.1f}",
            f"{own['flop'] / 1e12:.0f}",
            f"{own['seconds_per_step']:.3f} / {own['seconds_per_step_auto']:.3f}",
            f"{own['steps'] * own['seconds_per_step'] / 3600:.2f}",
        ]
        for own in parts
    ]
    models = list(dict.fromkeys(own["part"].partition(":")[0] for own in parts))
    for model in models:
        of = [own for own in parts if own["part"].startswith(f"{model}:")]
        hours = sum(own["steps"] * own["seconds_per_step"] for own in of) / 3600
        rows.append([f"{model}, all", "", "", f"{sum(own['flop'] for own in of) / 1e12:.0f}", "", f"{hours:.2f}"])
    header = ["stage", "steps", "GFLOP a step", "TFLOP", f"s a step, float32 / {auto}", "core-hours in float32"]
    return [(header, rows)]


def fine_tuning(result: dict[str, Any]) -> Sequence[Table]:
    """Return depth, views and plans on the rest of each recording, before and after learning from its first part."""
    rows = []
    for name, own in result["recordings"].items():
        for which in ("before", "after"):
            found = own[which]
            gains = [interval(gain["psnr_db"], 2) for gain in found["quality"]["gains_over_copy"]]
            plans = {row["row"]: row["ate_m"] for row in found["planning"]["rows"]}
            ratio = next(
                r
                for r in found["planning"]["ate_ratios"]
                if (r["row"], r["reference"]) == ("world model", "constant velocity")
            )
            depth = "-" if found["depth"] is None else interval(found["depth"]["abs_rel"], 2)
            n = f"{found['quality']['gains_over_copy'][0]['psnr_db']['n']}, {ratio['n']}"
            rows.append([f"{name}, {which}", depth, *gains, interval(plans["world model"]), interval(ratio, 2), n])
    views = [f"views over copying at {horizon} s [dB]" for horizon in (1, 2, 4, 8)]
    return [(["recording", "AbsRel", *views, "plans, ATE [m]", "over constant velocity", "n of views, plans"], rows)]


def samplers(result: dict[str, Any]) -> Sequence[Table]:
    """Return what each sampler costs and is worth, as views 2 s ahead and as plans."""
    rows = []
    for own in result["configurations"]:
        views, plans = own.get("images", own.get("pictures")), own["planning"]
        images = ["", ""]
        if views is not None:
            images = [interval(views["gain_psnr_db"], 2), f"{views['sharpness']['value']:.2f}"]
        less = plans.get("ate_m_minus_best")
        name = f"{own['sampler']} {own['steps']}" + (", rollout" if own["imagination"] == "rollout" else "")
        ate = interval(plans["ate_m"])
        rows.append([name, *images, ate, "" if less is None else interval(less), f"{plans['plan_s_median']:.2f}"])
    header = [
        "sampler, steps",
        "PSNR over copying [dB]",
        "sharpness ratio",
        "ATE [m]",
        "less the best, paired",
        "plan [s]",
    ]
    return [(header, rows)]


def training_data(result: dict[str, Any]) -> Sequence[Table]:
    """Return what making training windows costs."""
    rows = [
        [own["source"], f"{100 * own['share_waited']:.1f} %", f"{100 * own['share_of_processor']:.1f} %"]
        for own in result["sources"]
    ]
    return [(["source", "the step waits", "data's share of processor time"], rows)]


def latency(result: dict[str, Any]) -> Sequence[Table]:
    """Return how long odometry waits for its callback."""
    rows = []
    for number, run in enumerate(result["runs"], 1):
        for node, own in run["nodes"].items():
            cells = [f"{own[name]:.1f}" for name in ("p50_ms", "p95_ms", "p99_ms")]
            plan = f"{own['plan_p50_s']:.1f}" if "plan_p50_s" in own else ""
            rows.append([str(number), node, *cells, plan])
    return [(["run", "node", "p50 [ms]", "p95 [ms]", "p99 [ms]", "plan, p50 [s]"], rows)]


EVALUATE = "come-nav evaluate --depth estimated --suite"
DRIFTING = tuple(
    Section(
        f"recall_drift_{percent}_percent.json",
        f"Remembered views, odometry that drifts {percent} %",
        f"Test worlds, `ideal-64` but for the odometry, whose noise and scale errors are {percent} % of the way. SLTM "
        "is a render blend. Nothing takes the drift out.",
        f"{EVALUATE} recall --worlds 20000-20019 --windows 100 --drift {percent} --rows nearest,geometry,base,sltm",
        recall,
        blended=True,
    )
    for percent in (1, 2, 5)
)
HANDS = "come-nav evaluate {} --kinematics holonomic --set planner.limits.v_min_mps=-0.6 --rows trivial,model,hybrid"
REAL_ROOMS = (
    Section(
        "planning_kitchen.json",
        "Plans of 2 s, a real kitchen",
        "A hand-held RGB-D camera of 320 x 240 pixels; nothing of it was trained on. How registered goals "
        "are driven to "
        "was chosen on these windows. Measured depth; every row moves sideways too.",
        f"{HANDS.format('kitchen')} --windows 40",
        planning,
    ),
    Section(
        "planning_cabinet.json",
        "Plans of 2 s, around a real cabinet",
        "Key frames of a hand-held RGB-D camera, with motion-capture poses; few goals register to the four "
        "frames seen.",
        f"{HANDS.format('cabinet')} --windows 50",
        planning,
    ),
    Section(
        "planning_kitti00.json",
        "Plans of 2 s, a car on a road",
        "The second half of 600 frames of KITTI 00 at 8 m/s, without measured depth; the model knows rooms "
        "alone. Whether "
        "a car has a prior of motion was decided on the first half.",
        "come-nav evaluate kitti00 --part 0.5-1.0 --windows 30 --kinematics car --set planner.limits.v_max_mps=12 "
        "--rows trivial,model,hybrid",
        planning,
    ),
    Section(
        "planning_worlds_320.json",
        "Plans of 2 s, goals registered",
        "Built-in test worlds, a camera of 320 x 240 pixels.",
        "come-nav evaluate --suite planning --worlds 20000-20009 --windows 60 --camera 320x240 --rows "
        "trivial,model,hybrid",
        planning,
    ),
    Section(
        "planning_worlds_320_4s.json",
        "Plans of 4 s, goals registered",
        "The same.",
        "come-nav evaluate --suite planning --worlds 20000-20009 --windows 60 --camera 320x240 --rows "
        "trivial,model,hybrid"
        " --horizon 4",
        planning,
    ),
    Section(
        "goal_recognition.json",
        "Where was this image taken? Real recordings",
        "The first 60 % of a recording are remembered, images of the rest looked for; right within 0.25 m and 0.2 rad. "
        "Images of the other recording were never seen. The cabinet is gone around once: little is seen twice. `both` "
        "is what the robot does: features first, rendered views where there are too few.",
        'benchmarks/goal_recognition.py --kinds both "RGB-only, both"',
        recognised,
    ),
    Section(
        "goal_recognition_views.json",
        "The same by rendering and comparing alone",
        "Every third image, as it takes seconds.",
        "benchmarks/goal_recognition.py --kinds views --every 3",
        recognised,
    ),
    Section(
        "goal_recognition_networks.json",
        "The same by features of networks",
        "The kitchen, where SIFT finds 54 of 54. ALIKED-n16 with its published weights, images of 320 x 240 pixels; "
        "with the default ratio of 0.85 every image, else every third. What counts as recognised was measured with "
        "SIFT. Where no images of another recording were looked for, none could be taken for seen.",
        "benchmarks/goal_recognition.py --recordings kitchen --every 3 --kinds both --set "
        "localisation.visual.features.kind=aliked localisation.visual.features.file=aliked-n16.pth "
        "localisation.visual.matching.ratio=0.95",
        recognised,
    ),
    Section(
        "goal_recognition_worlds.json",
        "Where was this image taken? Worlds, and odometry that drifts",
        "Tours of 60 s through test worlds 20000 and 20003; images within 0.3 m and 0.4 rad of the way. Poses count in "
        "map.",
        "benchmarks/goal_recognition.py --worlds 20000 20003 --drift 0 2 --images 20",
        recognised,
    ),
    Section(
        "drift_worlds.json",
        "Drift of odometry, taken out",
        "Tours of 50 m through test worlds, 320 x 240 pixels at 4 Hz; key frames against the truth, "
        "unaligned, the first "
        "pose fixed. `afterwards` is what the whole graph says at the end, `at once` what the robot knew "
        "there and then.",
        "benchmarks/drift_correction.py --part trajectory --worlds 20000 20003",
        drift,
    ),
    Section(
        "drift_kitchen.json",
        "Drift added to a real recording",
        "The kitchen, 6 m of way. Its registrations differ from its poses by 3.8 cm (median of frames 1 to 2 s apart), "
        "more than 2 % of drift; smaller drift cannot be told from them and is left alone.",
        "benchmarks/drift_correction.py --part bag --bag kitchen",
        drift,
    ),
    Section(
        "drift_cabinet.json",
        "Drift added to a recording that sees nothing twice",
        "The cabinet, 8 m of way at 1.5 images a second: neighbours register seldom, and nothing closes a loop. What "
        "they say is taken for drift where odometry has none, and makes it worse by 3 cm.",
        "benchmarks/drift_correction.py --part bag --bag cabinet --percents 0 2 5 10",
        drift,
    ),
    Section(
        "recording_consistency.json",
        "What a recording's poses, images and depth say of each other",
        "Triples of frames within 2 s, medians. `loop` is what is left of three registrations round a triangle, which "
        "no pose takes part in: on the kitchen registrations are sharp to a centimetre. They differ by 3 cm from its "
        "poses, and so does ICP on its depth, whatever the colour camera is taken for: no correction comes nearer to "
        "these poses than that.",
        "benchmarks/recording_consistency.py --bag ../shared/data/bags/kitchen",
        consistent,
    ),
    Section(
        "online_calibration.json",
        "Weights of experts that follow what came true",
        "Each second at most a test of what the experts said 1 to 4 s before a frame came; mean squared errors of its "
        "clean latents, with the weights before it. The shipped model is `tiny`, set to base 1, spatial 1, no adapter; "
        "four test worlds of 90 s, two recordings. Ratios are paired, intervals over drives, or over tests of a "
        "recording.",
        "benchmarks/online_calibration.py --worlds 20000 20001 20002 20003 --drift 0 2 --seconds 90 --bag kitchen "
        "cabinet",
        calibrated_online,
    ),
    Section(
        "online_calibration_plans.json",
        "Plans with weights that follow what came true",
        "Plans of 2 s to images by imagination alone (nothing is registered), from what the robot has seen so far, the "
        "same chance with both weights. In worlds plans become worse, on recordings nothing is certain: weights stay "
        "as they are set unless `experts.calibration.use` says otherwise.",
        "benchmarks/online_calibration.py --worlds 20000 20001 20002 20003 --drift 0 --plans 4` and `--bag kitchen "
        "cabinet --plans 1 --keys robot.kinematics=holonomic",
        calibrated_plans,
    ),
    Section(
        "closed_loop_drift.json",
        "Driving to images while odometry drifts",
        "Test worlds 20003 and 20007, 320 x 240 pixels, odometry that drifts 2 % of the way, ten goals each.",
        "come-nav navigate --worlds 20003,20007 --goals 10 --drift 2 --rows all,no-correction",
        ablations,
    ),
    Section(
        "localisation_cost.json",
        "Cost of one more key frame",
        "Features, registration to its neighbours, loop closures and the graph; most is when the whole graph "
        "is solved.",
        "benchmarks/drift_correction.py --part cost --counts 100 1000 10000",
        localisation_cost,
    ),
    Section(
        "fuzz_readers.json",
        "Mutated files",
        "Seeds 1 to 9; attacks are pickles and archives that would run code or write elsewhere.",
        "benchmarks/fuzz_readers.py --mutations 12500 --seed 1",
        fuzzed,
    ),
)
CALIBRATION = (
    "Weights are fitted at each noise level (1 = pure noise, the one step of a plan) on one half of the windows and "
    "measured on the other; errors are mean squares of clean latents. The second part of the first table is by what "
    "share the error rises when the weights are fitted anew without an expert: it counts where the interval lies above "
    "0. An expert alone is base and its own contrast, weight 1. "
)
TOLD = (
    "Views up to 4 s ahead in the test phases, remembered or not, as the shipped composition predicts them in one "
    "step; the error is the mean square of their clean latents. Lines are fitted on the other half of the windows. "
    "Rank correlation: 1 is best; AUSE: 0 is best; differences are paired. "
    "The spread of noises is what plans tell as `doubt`. "
)
AGES = (
    "As many targets of each age, at least half of each seen in the memory phase. The weights of `all (CoME)` are "
    "those that calibration found: base 1, LTM 0.37, SLTM 1.05; as shipped it is SLTM. "
)
AGED = "come-nav evaluate --suite recall --worlds 10000-10004 --windows 60 --ages 0.5-2,2-8,8-30,30- --contrast on"
NWM_TOLD = (
    "Context frames alone, noise prediction, latents of an AutoencoderKL, many steps: the code path of the official "
    "weights, which are not here, in a network of the size of `tiny` that was trained for less than an hour, so that "
    "no row is good. The last row is all of CoME that such a model can have. "
)
NWM_BENCHMARK = (
    "benchmarks/nwm_composition.py {} --model runs/nwm_class/nwm_class --chosen 0.75 0.3 --keys "
    "inference.precision=bfloat16"
)
NWM_CLASS = (
    Section(
        "nwm_composition_worlds.json",
        "CoME on the class of NWM, reduced: test worlds",
        NWM_TOLD + "Realistic sensors.",
        NWM_BENCHMARK.format("--worlds 20000-20001 --windows 40"),
        nwm_composition,
    ),
    Section(
        "nwm_composition_kitchen.json",
        "CoME on the class of NWM, reduced: a real kitchen",
        NWM_TOLD,
        NWM_BENCHMARK.format("kitchen --windows 60"),
        nwm_composition,
    ),
)
SPLITTING = "come-nav evaluate --suite memory-planning --rows geometry,hybrid,base,all --contrast on {}"
SPLIT_TOLD = (
    "Goals seen half a second to minutes before, plans as robots make them (bfloat16, a quarter of the candidates "
    "imagined), realistic sensors with a camera of 320 x 240 pixels; drift is corrected. *Registration* goes on with "
    "constant velocity where it is not certain. "
)
SPLIT_REAL = "Memory of the first 60 %, measured depth, plans as robots make them."
HANDS_FLAGS = "{} --windows 60 --kinematics holonomic --set planner.limits.v_min_mps=-0.6"
QUICK = "--set inference.precision=bfloat16 --set planner.imagined_share=0.25"
SPLIT = tuple(
    Section(
        f"registered_plans_{name}_{horizon}s.json",
        f"Plans of {horizon} s by what the goal registers to, {words}",
        told,
        SPLITTING.format(f"{flags} --horizon {horizon} {QUICK}"),
        split_plans,
    )
    for name, words, told, flags in (
        (
            "worlds",
            "test worlds",
            SPLIT_TOLD,
            "--worlds 20000-20004 --camera 320x240 --sensors realistic --ages 0.5-2,2-8,8-30,30- --test-frames 480 "
            "--windows 60",
        ),
        ("kitchen", "a real kitchen", SPLIT_REAL, HANDS_FLAGS.format("kitchen")),
        ("cabinet", "around a real cabinet", f"{SPLIT_REAL} Images at 1.5 Hz.", HANDS_FLAGS.format("cabinet")),
    )
    for horizon in (2, 4)
)
DOUBT = (
    "Goals seen half a second to minutes before, realistic sensors at 64 pixels, the shipped composition. A doubted "
    "candidate is imagined twice, and its cost rises with the variance of the two; *two noises* takes the mean of two "
    "without doubting. "
)
DOUBTING = f"benchmarks/doubt_planning.py --keys {QUICK.replace('--set ', '')}"
COMPOSITIONS = (
    Section(
        "composition_calibration_worlds.json",
        "What each expert is worth, worlds",
        CALIBRATION + "Validation worlds, true odometry, targets seen long before; 64 windows of eight worlds.",
        "benchmarks/composition_calibration.py --worlds 10000-10007 --windows 64",
        calibrated,
    ),
    Section(
        "composition_calibration_drift.json",
        "What each expert is worth, odometry that drifts 2 %",
        CALIBRATION + "Nothing corrects the drift: the camera is 64 pixels wide.",
        "benchmarks/composition_calibration.py --worlds 10000-10004 --windows 60 --drift 2",
        calibrated,
    ),
    Section(
        "composition_calibration_kitchen.json",
        "What each expert is worth, a real kitchen",
        CALIBRATION + "Memories and adapter of its first 60 %; 22 windows of one drive, each half fitted on and the "
        "other measured, so that intervals are over windows. Base, LTM and SLTM all count.",
        "benchmarks/composition_calibration.py kitchen --windows 40",
        calibrated,
    ),
    Section(
        "disagreement_worlds.json",
        "Does disagreement tell the error? Worlds",
        TOLD,
        "benchmarks/disagreement.py --worlds 10000-10007 --windows 160",
        disagreement,
    ),
    Section(
        "disagreement_drift.json",
        "Does disagreement tell the error? Odometry that drifts 2 %",
        TOLD,
        "benchmarks/disagreement.py --worlds 10000-10004 --windows 100 --drift 2",
        disagreement,
    ),
    Section(
        "disagreement_kitchen.json",
        "Does disagreement tell the error? A real kitchen",
        TOLD + "One drive: intervals are over windows.",
        "benchmarks/disagreement.py kitchen --windows 48",
        disagreement,
    ),
    Section(
        "recall_ages_ideal.json",
        "Recall by age, ideal sensors",
        AGES,
        f"{AGED} --rows nearest,geometry,base,stm,ltm,sltm,stm+ltm,all,likelihood --weights FILE",
        by_age,
    ),
    Section(
        "recall_ages_realistic.json",
        "Recall by age, realistic RGB-D",
        "The preset `realistic`, its drifting odometry included, which nothing corrects at 64 pixels; no adapters. "
        "True images have the camera's errors too.",
        f"{AGED} --sensors realistic --rows nearest,geometry,base,stm,sltm,likelihood",
        by_age,
    ),
    Section(
        "recall_ages_rgb_only.json",
        "Recall by age, RGB only",
        "The ideal camera without depth: memories look at what the model estimates; no adapters.",
        f"{AGED} --rgb-only --rows nearest,geometry,base,stm,sltm,likelihood",
        by_age,
    ),
    Section(
        "composition_sampling.json",
        "Compositions in many steps",
        "Validation worlds, places seen long before, the same noise. One step averages what could be there; sharpness "
        "and the distance between sets of images tell whether images are like real ones.",
        "benchmarks/composition_sampling.py --worlds 10000-10004 --windows 60",
        sampled,
    ),
    Section(
        "episodic_table_kitchen.json",
        "Adapters by rank and frames, a real kitchen",
        "The last so many frames before 60 % of the recording are learned; views of places seen in them, one step from "
        "pure noise, no cloud. At rank 128 an adapter can change the network's matrices in any way.",
        "benchmarks/episodic_table.py kitchen --frames 25 50 80 --windows 24",
        adapters,
    ),
    Section(
        "episodic_table_furnished.json",
        "Adapters by rank and frames, furnished worlds",
        "Two furnished validation worlds, which nothing was trained on.",
        "benchmarks/episodic_table.py --set-of-worlds furnished --worlds 10000-10001 --frames 50 150 --windows 24 "
        "--ranks 8 128",
        adapters,
    ),
    Section(
        "recall_test_worlds_realistic.json",
        "Remembered views, test worlds, realistic sensors",
        "The preset `realistic` at 64 pixels, its drifting odometry included, which nothing corrects. The published "
        "effect over the base is +3.9 dB and +0.12 SSIM.",
        "come-nav evaluate --suite recall --sensors realistic --worlds 20000-20004 --windows 60 --contrast on --rows "
        "nearest,geometry,base,all,likelihood",
        recall,
    ),
    *NWM_CLASS,
    *SPLIT,
    *SMALL,
    Section(
        "doubt_planning_validation.json",
        "Plans that doubt, validation worlds",
        DOUBT + "No weight is better for certain, and each costs a second look at every candidate: it stays 0.",
        f"{DOUBTING} --worlds 10000-10003 --windows 24 --test-frames 240 --weights 30 100 300",
        doubted,
    ),
    Section(
        "doubt_planning_test.json",
        "Plans that doubt, test worlds",
        "The weight that was best in validation worlds, measured once.",
        f"{DOUBTING} --worlds 20000-20007 --weights W",
        doubted,
    ),
)
SECTIONS = (
    Section(
        "planning_test_worlds.json",
        "Plans of 2 s",
        "Built-in test worlds, `ideal-64`, no memory.",
        f"{EVALUATE} planning --worlds 20000-20019 --windows 200",
        planning,
    ),
    Section(
        "planning_test_worlds_4s.json",
        "Plans of 4 s",
        "Built-in test worlds, `ideal-64`, no memory.",
        f"{EVALUATE} planning --horizon 4 --worlds 20000-20019 --windows 100",
        planning,
    ),
    Section(
        "policy_test_worlds.json",
        "A small NoMaD beside what needs no learning",
        "Built-in test worlds, `ideal-64`, plans of 2 s. A NoMaD with encoders of half the width, trained from nothing "
        "for 7,000 steps, two hours of a core, with heads of regression in training. It is better than the mean path, "
        "and worse than constant velocity, so that it does not ship.",
        "benchmarks/policy_planning.py --policy runs/nomad/nomad --frames runs/nomad/frames/worlds.safetensors "
        "--worlds 20000-20019 --windows 60",
        beside_baselines,
    ),
    Section(
        "planning_small_test_worlds.json",
        "`small` on the windows of that NoMaD",
        "Built-in test worlds, `ideal-64`, the same windows: standing still and constant velocity have the same "
        "figures.",
        "come-nav evaluate --suite planning --worlds 20000-20019 --windows 60 --rows trivial,model --model small",
        planning,
    ),
    Section(
        "planning_nwm_class_test_worlds.json",
        "The plain class of NWM on the windows of that NoMaD",
        "The same; DDIM of 5 steps.",
        "come-nav evaluate --suite planning --worlds 20000-20019 --windows 60 --rows trivial,model "
        "--model runs/nwm_class/nwm_class --set sampler.steps=5",
        planning,
    ),
    Section(
        "policy_furnished.json",
        "The same NoMaD in furnished worlds",
        "The same seeds with modelled furniture that it never saw (`come-nav assets collect`).",
        "benchmarks/policy_planning.py --policy runs/nomad/nomad --frames runs/nomad/frames/worlds.safetensors "
        "--worlds 20000-20019 --set-of-worlds furnished --windows 60",
        beside_baselines,
    ),
    Section(
        "policy_kitchen.json",
        "The same NoMaD on a real kitchen",
        "The last 40 %; its waypoints are those of worlds, 5 cm apart. It is worse than standing still.",
        "benchmarks/policy_planning.py kitchen --part 0.6 1.0 --policy runs/nomad/nomad --frames "
        "runs/nomad/frames/worlds.safetensors --windows 40",
        beside_baselines,
    ),
    Section(
        "policy_cabinet.json",
        "The same NoMaD round a real cabinet",
        "Images at 1.5 Hz. It is worse than standing still, as on the kitchen.",
        "benchmarks/policy_planning.py cabinet --policy runs/nomad/nomad --frames "
        "runs/nomad/frames/worlds.safetensors --windows 50",
        beside_baselines,
    ),
    Section(
        "planning_nomad.json",
        "The same NoMaD's paths, ranked and in the search",
        "Test worlds, `ideal-64`, plans of 2 s, the NoMaD of the tables above. The best of 32 of its paths, ranked by "
        "the world model, equals constant velocity; in the search they change nothing for certain.",
        "come-nav evaluate --suite planning --worlds 20000-20019 --windows 40 --rows trivial,model --policy "
        "runs/nomad/nomad",
        planning,
    ),
    Section(
        "kitchen_before.json",
        "Plans of 2 s on a real recording",
        "The last 40 % of a hand-held recording of a kitchen; nothing of it was trained on. The paths are those of a "
        "differential drive; a hand moves sideways too.",
        "come-nav evaluate kitchen --part 0.6-1.0 --windows 43",
        planning,
    ),
    Section(
        "kitchen_after.json",
        "The same after fine-tuning",
        "150 steps on the first 60 % of the recording.",
        "come-nav train --init models/tiny --data kitchen --out tuned",
        planning,
    ),
    Section(
        "fine_tuning.json",
        "Fine-tuning `small` on the first 60 % of a recording",
        "Measured on the rest; depth, where it was measured, is tuned too. The cabinet's first part is too short to "
        "validate on, so four built-in worlds are learned from beside it.",
        "benchmarks/fine_tuning.py RECORDING --set denoiser.steps=200 --set denoiser.batch_size=16 "
        "--set denoiser.learning_rate=5e-5 --set depth.steps=200 --set depth.learning_rate=5e-5; cabinet also "
        "--set data.worlds=4, kitti00 --car",
        fine_tuning,
    ),
    *REAL_ROOMS,
    Section(
        "quality_test_worlds.json",
        "Imagined views",
        "Built-in test worlds, `ideal-64`.",
        f"{EVALUATE} quality --worlds 20000-20019 --windows 500",
        quality,
    ),
    Section(
        "model_tiny.json",
        "All figures of `tiny`, realistic sensors",
        "Test worlds with the preset `realistic` (the seed draws a camera for each world), built-in and furnished; two "
        "real recordings, nothing of them trained on. Views that nothing tells follow a turn of 60 degrees or more; "
        "distances there are in units of the distance between two real views, in features of tiny's depth network.",
        "benchmarks/model_figures.py --model tiny --worlds 20000-20009 --plans 40 --windows 48 --views 64 --places 8 "
        "--recordings kitchen cabinet",
        model_figures,
    ),
    Section(
        "model_small.json",
        "All figures of `small`, realistic sensors",
        "The same windows, views, plans and recordings, of `small`.",
        "benchmarks/model_figures.py --model models/small --worlds 20000-20009 --plans 40 --windows 48 --views 64 "
        "--places 8 --recordings kitchen cabinet",
        model_figures,
    ),
    Section(
        "model_small_photographed.json",
        "Figures of `small` in photographed worlds",
        "The same in the built-in test worlds with photographed surfaces, of the half of the materials that training "
        "never sees.",
        "benchmarks/model_figures.py --model models/small --parts prediction,images,planning --sets photographed "
        "--worlds 20000-20009 --plans 40 --windows 48 --views 64 --places 8 "
        "--out benchmarks/results/model_small_photographed.json",
        model_figures,
    ),
    Section(
        "model_nwm_class.json",
        "All figures of the plain class of NWM, realistic sensors",
        "The same of a CDiT as NWM's: AutoencoderKL latents, noise prediction, four frames, no views, no camera, no "
        "depth; DDIM. Trained by `config/train_nwm_class.yaml` for a quarter of the processor time of `small`'s last "
        "stage.",
        "benchmarks/model_figures.py --model runs/nwm_class/nwm_class --parts prediction,planning,images "
        "--sets built-in --set sampler.steps=5 --worlds 20000-20009 --plans 40 --windows 48 --views 64 --places 8",
        model_figures,
    ),
    Section(
        "training_small.json",
        "Training of `small`",
        "Losses on views of validation worlds. The denoiser's are those of the same held-out windows, levels and "
        "noise: `loss` with the base's inputs, `null_loss` without the past, `longer_loss` and `memory_loss` with "
        "further views. "
        "It begins with `tiny`'s weights. One core with AMX, bfloat16, other work beside it. The depth estimator that "
        "ships went on to 14,000 steps, which this log does not hold.",
        "benchmarks/training_log.py runs/small --out benchmarks/results/training_small.json",
        training_log,
    ),
    Section(
        "training_nwm_class.json",
        "Training of the plain class of NWM",
        "As above; losses are of other latents and of noise, and compare with nothing else here.",
        "benchmarks/training_log.py runs/nwm_class --out benchmarks/results/training_nwm_class.json",
        training_log,
    ),
    Section(
        "scaling.json",
        "Sizes of `small` at equal compute",
        "Each size from random weights, with all inputs of `small` and its depth estimator, for the same processor "
        "time on one core (AVX-512 in bfloat16, beside another training). The rate is constant, so that a training "
        "shows the loss at every budget up to its own. Views of validation worlds 10020 to 10039 with ideal sensors.",
        "benchmarks/denoiser_variants.py --base train_small.yaml --variants benchmarks/scaling.yaml --seconds 900 "
        "--calibration 25 --validations 9 --set data.pool_drives=8 --depth-from models/small "
        '--only "3 M (128 x 6),9 M (192 x 8),15 M (256 x 8)" --out benchmarks/results/scaling.json',
        sizes,
    ),
    Section(
        "training_mixture.json",
        "Longer training of `small`, and worlds to learn from",
        "`small` trained on, in bfloat16 with averaged weights, each once: *longer* 4,500 steps in built-in and "
        "photographed worlds as before, at a constant rate of 4e-4; *furnished* 3,500 of them, then 1,500 with "
        "furnished worlds as well (`data.sets_of_worlds`; the models and materials of training); *decayed* the "
        "longer one and 1,500 further steps in its own worlds, the rate falling to zero. Views of two real "
        "recordings, which none saw, and of validation worlds. In built-in worlds all are ahead at 1 s. More steps "
        "at the constant rate gain next to nothing on real images; with furnished worlds both recordings gain, with "
        "a falling rate the cabinet alone. The furnished one is no better than the longer one in furnished worlds, "
        "so one training of each does not tell worlds from chance.",
        "benchmarks/compared_views.py models/small runs/longer/small runs/furnished/small runs/decayed/small "
        "--recordings kitchen cabinet --sets built-in furnished --out benchmarks/results/training_mixture.json",
        compared,
    ),
    Section(
        "training_compute.json",
        "Compute of `tiny` and `small`",
        "Every stage of training trained for some steps and for three times as many; what the longer takes more, for a "
        "step. Matrix products, convolutions and attention, forward and backward; making the data is not counted. "
        "`small` begins with the weights of `tiny: denoiser`, which are counted there.",
        "benchmarks/training_compute.py --out benchmarks/results/training_compute.json",
        compute,
    ),
    Section(
        "recall_validation_worlds.json",
        "Remembered views, with and without the render blend",
        "Validation worlds, `ideal-64`. A composition's row is what the sampler produced and the autoencoder decoded; "
        "the rows named `render blend` paste the rendered cloud over it.",
        f"{EVALUATE} recall --worlds 10000-10009 --windows 40",
        recall,
    ),
    Section(
        "recall_test_worlds.json",
        "Remembered views, test worlds",
        "`ideal-64`. Recorded while compositions with the spatial expert pasted up to 85 % of the rendered cloud into "
        "their image: these rows are render blends.",
        f"{EVALUATE} recall --worlds 20000-20019 --windows 400",
        recall,
        blended=True,
    ),
    *DRIFTING,
    Section(
        "memory_planning_test_worlds_2s.json",
        "Plans of 2 s to places seen long before",
        "Built-in test worlds, `ideal-64`. SLTM, base+SLTM and all (CoME) are one and the same pass of one network.",
        f"{EVALUATE} memory-planning --horizon 2 --windows 60 --contrast both",
        planning,
    ),
    Section(
        "memory_planning_test_worlds_4s.json",
        "Plans of 4 s to places seen long before",
        "Built-in test worlds, `ideal-64`. SLTM, base+SLTM and all (CoME) are one and the same pass of one network.",
        f"{EVALUATE} memory-planning --horizon 4 --windows 100 --contrast both",
        planning,
    ),
    Section(
        "closed_loop_ablations.json",
        "Driving to images without ROS, part by part",
        "Test worlds 20003 and 20007, `ideal-64`, ten goals each; the robot explores first, then drives to images. A "
        "recognised image is driven to as a pose, so that imagination has nothing to add.",
        "come-nav navigate --worlds 20003,20007 --camera 64x64 --rows all,no-route,no-imagination,no-recognition",
        ablations,
    ),
    Section(
        "closed_loop_topological.json",
        "Driving along a topological map: a policy, the search, and with memory",
        "Test worlds 20003 and 20007, `ideal-64`, five goals each, the same for all rows. For the two with a map the "
        "robot is led along the way once, an image each second; nodes are chosen by the distance that the small NoMaD "
        "of the tables above predicts, which mostly takes another node for the goal. The search drives to the chosen "
        "node by the world model.",
        "come-nav navigate --worlds 20003,20007 --goals 5 --camera 64x64 --rows all,topological,topological-search "
        "--policy runs/nomad/nomad",
        ablations,
    ),
    Section(
        "ros_closed_loop_320.json",
        "Driving to images over ROS 2 with the camera that ships",
        "Test world 20003, 320x240 px, `config/fastdds.xml`, two cores beside other work: images are recognised by "
        "their features. The goal that failed is one whose image is not recognised; it also took the longest to move.",
        "benchmarks/ros_closed_loop.py --worlds 20003 --goals 6",
        closed_loop,
    ),
    Section(
        "ros_closed_loop_come.json",
        "Driving to images over ROS 2",
        "Test worlds 20003 and 20007 with memory, `ideal-64`; a recognised image is driven to as a pose.",
        "benchmarks/ros_closed_loop.py --worlds 20003,20007 --goals 10 --camera 64x64 --memory come",
        closed_loop,
    ),
    Section(
        "ros_closed_loop_nwm.json",
        "Driving to images over ROS 2, the base alone",
        "The same goals without memory, `ideal-64`.",
        "benchmarks/ros_closed_loop.py --worlds 20003,20007 --goals 10 --camera 64x64 --memory nwm",
        closed_loop,
    ),
    Section(
        "relocalisation.json",
        "Where was this image taken?",
        "Test worlds, `ideal-64`, search by rendering and comparing.",
        "benchmarks/relocalisation.py --worlds 20000-20005 --images 15",
        relocalised,
    ),
    *COMPOSITIONS,
    Section(
        "composition_cost.json",
        "Cost of a composition",
        "One sampling step of 64 candidates. Equal passes are computed once and those whose exponents cancel never. "
        "The goal is at most 1.1 times the passes that are left, and at most 3.5 times the base on a CPU. Running the "
        "passes of one network apart costs the same: 0.92 of the base each, in one batch 0.93.",
        "benchmarks/composition_cost.py --candidates 64 --repeats 3",
        composition_cost,
    ),
    Section(
        "plan_curve.json",
        "What a better plan costs",
        "Validation worlds, context frames alone; the same windows and numbers drawn, so that differences from the "
        "first line are paired. Processor's time of a plan over that of the first. Robots over ROS 2 imagine a quarter "
        "(`planner.imagined_share` in `config/ros_*.yaml`); tables of plans on this page imagine all. With 100 windows "
        "of ten of these worlds, half as many candidates were worse by 0.011 [-0.001, 0.025] m, and 120, 20 in 3 "
        "iterations by 0.018 [0.005, 0.031].",
        "benchmarks/plan_curve.py --windows 300 --worlds 60 --settings 240,40,5,1,float32 240,40,5,1,bfloat16 "
        "240,40,5,0.25,bfloat16 240,40,5,0.5,bfloat16",
        plan_curve,
    ),
    Section(
        "plan_rates.json",
        "Plans a second on two cores",
        "`tiny` on two cores with AMX that do nothing else, with the planner's defaults (401 candidates, all "
        "imagined). The adapter trains as fast as it can, at the plan's own priority; a robot's steps back, and takes "
        "ten steps a second at most.",
        "benchmarks/plan_rates.py --plans 30",
        plan_rates,
    ),
    Section(
        "process_memory.json",
        "Memory of a planner's process",
        "`tiny` on a CPU with the cloud, without ROS and without training; medians of three processes of each tree, in "
        "turns, which plan the same paths. Before: numba in the process, SciPy loaded at the start, freed memory kept.",
        "benchmarks/process_memory.py --before ../before --rounds 3 --plans 3",
        process_memory,
    ),
    Section(
        "memory_growth.json",
        "Cost of the spatial memory",
        "Cloud with its budget of 200,000 points.",
        "benchmarks/memory_growth.py --frames 1000",
        growth,
    ),
    Section(
        "recall_memories_rgb.json",
        "Remembered views: a spatial memory of colours",
        "Validation worlds 10000 to 10005, true odometry. The base with the likelihood of a spatial memory, and with "
        "retrieved frames as its context, beside the spatial expert.",
        f"{EVALUATE} recall --worlds 10000-10005 --windows 60 --rows base,sltm,likelihood,retrieved,geometry "
        "--contrast on --set spatial.features=rgb",
        recall,
    ),
    Section(
        "recall_memories_latent.json",
        "Remembered views: a spatial memory of latents",
        "The same windows; all that looks at the spatial memory looks at latents, and `geometry only` is the read-out "
        "decoded. Their retrieved context is the same as above.",
        f"{EVALUATE} recall --worlds 10000-10005 --windows 60 --rows base,sltm,likelihood,retrieved,geometry "
        "--contrast on --set spatial.features=latent",
        recall,
    ),
    *ROOMS,
    Section(
        "latent_memory.json",
        "Latents in space against colours that are rendered and encoded",
        "Every second frame of drives through validation worlds; bytes are points x (3 coordinates of 4 bytes + C "
        "features of 2 bytes) for both, voxels and all. Processor time of one thread; `rgb` renders at the model's "
        "pixels and encodes, `latent` reads out. The autoencoders of Stable Diffusion's shape have random weights: "
        "only sizes and times are those of trained ones. Of the latents of views that were seen, and of those between, "
        "the share of variance that is missed in known cells; PSNR where the autoencoder is trained. Intervals are "
        "over worlds for `tiny` and over views of one world for the others.",
        "benchmarks/latent_memory.py --frames 12 --worlds 4",
        latent_memory,
    ),
    Section(
        "latent_ablations.json",
        "Choices of a spatial memory of latents",
        "Four validation worlds from 10000 on, realistic sensors, odometry that drifts included; `tiny`. Views that "
        "were seen, read out and decoded, against what the same camera saw there, without the people where there are "
        "some. Each row changes one choice of the first of its table; differences are paired by view. Processor time "
        "of one thread, medians. The mean of all points of a cell is nearest to the truth: with latents of a block "
        "transform it averages many looks, and what shines through costs less than that gains.",
        "benchmarks/latent_ablations.py --worlds 4 --seconds 6 --every 3",
        latent_ablations,
    ),
    Section(
        "sequence_memories_long.json",
        "Memories of sequences on mazes, fifteen minutes of a core each",
        "Denoisers of sequences (`--sequence` of `come-nav train`), each trained on the same walks of 960 mazes "
        "for the same processor time: steps for 900 seconds of one core at the speed measured before (the last "
        "table has what they took beside other work). 20 test mazes, the last 24 frames of each walk, the same "
        "ones whatever the context, all frames before them true; one sampling step. Sequences of 100 frames are "
        "trained on: longer contexts are longer than anything seen in training. First and second table: views "
        "that were last seen more than ten frames ago and within the context; differences are paired by view, "
        "intervals are resampled by maze. *no memory* still has the local attention of the others, which reaches "
        "back 10 to 14 frames. Recall is what a row has on views in the context less what it has on views never "
        "seen (third table), beyond the same of *no memory*: at 800 frames 0.4 dB for full attention and for "
        "retrieval, 0.6 for the state space without local attention, which it loses again on what local attention "
        "knows, nothing for the state space with it and for the window. *nearest remembered frame* knows every "
        "pose exactly; *the autoencoder* is what any row could reach. Rows of `small` are the robot's own stack, "
        "which measures depth and has learned nothing of mazes (adapters of a step for ten frames; its "
        "autoencoder keeps 6 dB more, so that its rows are to be read against that one): the composition is 0.8 "
        "dB above full attention at 100 frames and 0.4 at 800. Its weights were chosen in rooms with noisy "
        "sensors: on mazes, where depth and odometry are perfect, its long-term expert costs more than it gives, "
        "and base+SLTM is ahead of the composition. Kernel distances are of features of the depth network of "
        "`tiny`; 0 is best, a mean of many guesses is far away, a copy of a wrong frame near.",
        "benchmarks/sequence_memories.py --seconds 900 --set data.worlds=960 --robot small",
        sequence_memories,
    ),
    Section(
        "sequence_options.json",
        "A loss and a curriculum that the paper of state-space memories does not have",
        "The state space of the table before, trained for the same time: frames that can be remembered from afar "
        "count five times (`recall_weight`), sequences grow from 20 frames to 100 in half of the steps "
        "(`curriculum_frames`). Neither gains. With the loss the network recalls (what it has in the context less "
        "what was never seen, beyond that of *no memory*: 0.7 dB at 100 frames, 0.1 without it), at the price of "
        "what was never seen; contexts longer than those of training cost it 0.5 dB, and 1.8 on views never seen. "
        "The curriculum's shorter sequences give 1.1 times as many steps, and less.",
        "benchmarks/sequence_memories.py --rows benchmarks/sequence_options.yaml --seconds 900 --set data.worlds=960",
        sequence_memories,
    ),
    Section(
        "sequence_memories_long_real.json",
        "The same memories in mazes of another simulator, fifteen minutes of a core each",
        "The networks of the table above, shown 13 episodes of Memory Maze 9x9 (424 frames each, drawn by "
        "MuJoCo): other textures, another camera, poses between the cells, two metres a cell (counted as 1.2). "
        "Nothing was learned of them. *In the context*: where the walker was within 0.3 m and 20 degrees more "
        "than ten frames ago and within the context, and elsewhere since. Rows that need depth or a calibrated "
        "camera are not there: these episodes have none.",
        "benchmarks/sequence_memories.py --recorded runs/memory_maze --contexts 100 200 400 --seconds 900 "
        "--set data.worlds=960",
        sequence_memories,
    ),
    Section(
        "sequence_memories.json",
        "Memories of sequences on mazes, after 80 seconds, and what they are made of",
        "Denoisers of sequences (`--sequence` of `come-nav train`), each trained on the same walks of 160 mazes for "
        "the same processor time on one core: steps for 80 seconds at the speed measured before (the last table has "
        "what they took on a busy machine), which is far from convergence. 20 test mazes, the last 24 frames of each "
        "walk, the same ones whatever the context, all frames before them true; one sampling step. Sequences of 100 "
        "frames are trained on: longer contexts are longer than anything seen in training. First and second table: "
        "views that were last seen more than ten frames ago and within the context; differences are paired by view, "
        "intervals are resampled by maze. *no memory* still has the local attention of the others, which reaches back "
        "10 to 14 frames. *sliding window* reaches back at most 48 and gains about as much on what was never seen: it "
        "uses views nearby, and only what full attention and retrieval gain beyond it is recall. The state "
        "space recalls nothing after so short a training: its rows lie below *no memory*, whose steps take 0.6 of the "
        "time, so that it gets 1.7 times as many: its ablations compare what is learned first. Kernel "
        "distances are of features of the depth network of `tiny`; 0 "
        "is best, a mean of many guesses is far away, a copy of a wrong frame near. *nearest remembered frame* knows "
        "every pose exactly; *the autoencoder* is what any row could reach. Rows of `tiny` and `small` are the robot's "
        "own stack, which measures depth and has learned nothing of mazes (adapters of a step for ten frames; its "
        "autoencoder keeps more, so that its rows are to be read against that one). The weights of `small` were chosen "
        "in rooms with noisy sensors: on mazes, where depth and odometry are perfect, its long-term expert costs more "
        "than it gives, and base+SLTM is ahead of the composition.",
        "benchmarks/sequence_memories.py --seconds 80 --robot small, and --robot tiny with 100 frames",
        sequence_memories,
    ),
    Section(
        "sequence_memories_real.json",
        "The same memories in mazes of another simulator",
        "The rows of the table above as they were trained, shown 10 episodes of Memory Maze 9x9 (424 frames each, "
        "drawn by MuJoCo): other textures, another camera, poses between the cells, two metres a cell (counted as "
        "1.2). Nothing was learned of them. *In the context*: where the walker was within 0.3 m and 20 degrees more "
        "than ten frames ago and within the context, and elsewhere since. Rows that need depth or a calibrated "
        "camera are not there: these episodes have none.",
        "benchmarks/sequence_memories.py --recorded runs/memory_maze --contexts 100 200 400 --seconds 80 "
        "--work runs/mazes",
        sequence_memories,
    ),
    Section(
        "sequence_costs.json",
        "What memories of sequences cost",
        "The networks of `config/train_sequence.yaml`, untrained, their states filled with random numbers; one frame "
        "at a time, processor time of one thread on a busy machine. A read-out is one sampling step. A state of more "
        "than 2 GB is extrapolated.",
        "benchmarks/sequence_costs.py",
        sequence_costs,
    ),
    Section(
        "memory_costs.json",
        "What memories of rooms cost by the length of a drive",
        "Clouds of 10,000 points, 300 frames of retrieval, 33 of the short-term memory; synthetic frames along ever "
        "longer drives. Processor time, medians of 40, on a busy machine: what the short-term memory takes a frame, "
        "the same at any length, says how far times can be trusted.",
        "benchmarks/memory_costs.py",
        memory_costs,
    ),
    Section(
        "retrieval.json",
        "Finding remembered frames that show a view",
        "Four frames of ever more, all in one hall of 20 x 20 m: the worst case. Processor time of one thread, 100 "
        "queries.",
        "benchmarks/retrieval.py",
        retrieval,
    ),
    Section(
        "ros_latency.json",
        "How long odometry waits for its callback",
        "A process for each node; the planner searches, episodic_memory trains, two cores, the last 1,000 messages at "
        "20 Hz.",
        "benchmarks/ros_latency.py",
        latency,
    ),
    Section(
        "ros_fake_robots.json",
        "Ready launch files with fake robots",
        "A built-in test world behind the topics of each robot; a pose ahead and an image of where it began. With "
        "`config/fastdds.xml`, two cores with a load of 10 by other work.",
        "benchmarks/ros_fake_robots.py --pace 0.3",
        fake_robots,
    ),
    Section(
        "ros_soak_faults.json",
        "Half an hour of goals over ROS 2 while sensors fail and nodes are killed",
        "Test world 20003, odometry that drifts 2 % of the way, a localiser that corrects map -> odom every 10 s; "
        "poses in map and images in turn; camera of 320x240 px, `config/fastdds.xml`, two cores with a load of 8 by "
        "other work. Blind: driving on when the time is over within which the robot must stand. Features of key "
        "frames outlive odometry that begins anew and a planner that is killed; the planner grows by 150 kB for each, "
        "up to `localisation.visual.max_views` (1,500).",
        "benchmarks/ros_soak.py --minutes 30 --kills 20 --faults 40 --legs 2 --seed 3",
        soak,
    ),
    Section(
        "ros_kills.json",
        "A hundred kills over ROS 2",
        "The same robot without other faults; judged on loss and blind motion alone. Places are saved every 5 s. Two "
        "cores with a load of 11 by other work: three goals ended because no obstacles came in time after a restart of "
        "spatial_memory. The collision steps are of one contact, while three controllers in a row were killed.",
        "benchmarks/ros_soak.py --minutes 26 --kills 100 --faults 0 --legs 1 --seed 2",
        kills,
    ),
    Section(
        "ros_load.json",
        "What the nodes take of the machine",
        "Camera of 640x480 px, colour and depth raw, a goal far ahead; with `config/fastdds.xml` (without it 9 of 10 "
        "images were lost: `ros_load_default_dds.json`). Two cores with a load of 6 by other work.",
        "benchmarks/ros_load.py --seconds 25",
        load,
    ),
    Section(
        "denoiser_variants.json",
        "Variants of the denoiser in equal time",
        "One core, 60 training worlds; views of validation worlds 10020-10039, 200 windows. Losses compare only within "
        "one objective.",
        "benchmarks/denoiser_variants.py --seconds 180 540",
        variants,
    ),
    Section(
        "sampling_steps_many.json",
        "Sampling steps",
        "Validation worlds: 40 views 2 s ahead, and 24 plans of 40 candidates. With one step all samplers are equal.",
        "benchmarks/sampling_steps.py --steps 1,2,3,5,10,25,50",
        samplers,
    ),
    Section(
        "training_data.json",
        "Cost of training data",
        "One thread, the configuration of the tiny model: 32 contexts, 4 goals.",
        "benchmarks/training_data.py",
        training_data,
    ),
)


def table_lines(table: Table) -> list[str]:
    """Return a Markdown table."""
    header, rows = table
    cells = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(line) + " |" for line in cells]


def renamed(section: Section, table: Table) -> Table:
    """Return a table with present names in its header and its first column."""
    header, rows = table
    return [section.named(cell) for cell in header], [[section.named(row[0]), *row[1:]] for row in rows]


def earlier_weights(result: dict[str, Any]) -> str:
    """Say that a result is of other weights than those that ship under the model's name now; empty where it is not."""
    settings = result.get("settings")
    model = settings.get("model") if isinstance(settings, dict) else None
    if not isinstance(model, dict) or not isinstance(model.get("sha256"), str):
        return ""
    folder = ROOT / "models" / Path(str(model.get("name", ""))).name
    if not (folder / "config.yaml").is_file():
        return ""
    shipped = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["weights_sha256"]
    if model["sha256"] == shipped:
        return ""
    return f". By earlier weights of `{folder.name}`, {model['sha256'][:8]}."


def section_lines(section: Section, result: dict[str, Any]) -> list[str]:
    """Return the lines of one section."""
    command = f"`{section.command}` (`{section.file}`){earlier_weights(result)}"
    lines = ["", f"## {section.heading}", "", section.text, "", command]
    for table in section.tables(result):
        if table[1]:
            lines += ["", *table_lines(renamed(section, table))]
    return lines


def page() -> str:
    """Return the whole page; sections whose file is absent are left out."""
    lines = [HEAD.rstrip()]
    for section in SECTIONS:
        path = RESULTS / section.file
        if path.is_file():
            lines += section_lines(section, json.loads(path.read_text(encoding="utf-8")))
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only compare")
    args = parser.parse_args(arguments)
    text = page()
    if args.check:
        same = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text
        print(
            "docs/results.md is what the files say"
            if same
            else "docs/results.md is stale: run docs/make/results_page.py"
        )
        return 0 if same else 1
    PAGE.write_text(text, encoding="utf-8")
    print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
