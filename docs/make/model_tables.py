"""Tables of world models: plans, views, training and what it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from localisation_tables import _closed
from sections import Table, interval


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


def view_errors(result: dict[str, Any]) -> Sequence[Table]:
    """Return PSNR of known and other pixels by model, and the mean error of known ones by their place."""
    names: dict[tuple[str, ...], str] = {}  # by their cells: models with one depth estimator fill the same holes
    for recording, models in result["recordings"].items():
        for model, own in models.items():
            for row, suffix in (("filled", ", holes filled smoothly"), ("imagined", "")):
                names.setdefault((recording, *error_cells(own[row], own["windows"])), f"{recording}, `{model}`{suffix}")
    rows = [[name, *cells] for (_, *cells), name in names.items()]
    header = ["recording, model", "known at 1 / 2 / 4 / 8 s [%]", "PSNR, known [dB]", "elsewhere [dB]"]
    return [([*header, "too bright at 1 s, middle", "edge", "n"], rows)]


def error_cells(horizons: Sequence[Mapping[str, Any]], windows: int) -> tuple[str, ...]:
    """Return the cells of one row of :func:`view_errors`."""
    shares = " / ".join(f"{100 * own['known_share']:.0f}" for own in horizons)
    psnr = [" / ".join(f"{own[key]['value']:.1f}" for own in horizons) for key in ("known_psnr_db", "other_psnr_db")]
    brightness = [interval(horizons[0][f"brightness_{place}"]) for place in ("middle", "edge")]
    return shares, *psnr, *brightness, str(windows)


def motion_prior(result: dict[str, Any]) -> Sequence[Table]:
    """Return plans with a prior of a constant twist and with a learned one, by input and horizon."""
    rows = []
    for own in result["inputs"]:
        for figures in own["rows"]:
            weight = "constant twist" if not figures["weight"] else f"learned, weight {figures['weight']:g}"
            perfect = interval(figures["perfect model"]) if "perfect model" in figures else ""
            closed = interval(figures["gap closure"], 2) if "gap closure" in figures else ""
            changed = interval(figures["difference from constant twist"]) if figures["weight"] else ""
            means = [interval(figures[row]) for row in ("constant velocity", "world model")]
            name = f"{own['input']}, {own['horizon_s']:g} s, {weight}"
            rows.append([name, *means, changed, perfect, closed, str(own["plans"])])
    header = ["input", "constant velocity ATE [m]", "world model ATE [m]", "difference from constant twist [m]"]
    return [([*header, "perfect model ATE [m]", "gap closure", "n"], rows)]


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
