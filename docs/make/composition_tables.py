"""Tables of compositions: what each expert is worth, disagreement, ages, sampling steps, adapters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sections import Table, interval

IMAGE, PLAN = ("psnr_db", "ssim"), ("ate_m", "rpe_m")
EXPERTS = {"base": "base", "short_term": "STM", "long_term": "LTM", "spatial": "SLTM"}


def calibrated(result: dict[str, Any]) -> Sequence[Table]:
    """Return the weights of each noise level with what every expert is worth, and what calibration changes."""
    names = [name for name in EXPERTS if name in result["levels"][0]["weights"]]
    weights, errors, ratios = [], [], []
    for own in result["levels"]:
        level = f"{own['level']:g}"
        weights.append(
            [level]
            + [f"{own['weights'][name]:.2f}" for name in names]
            + [_listed(own["worth"][name], 1, 100.0) for name in names]
        )
        shown = [*names, "fixed", "calibrated", "calibrated + likelihood", "base + likelihood"]
        errors.append([level, *(f"{own['error'][name]:.3f}" for name in shown)])
        best = own["best single expert"]
        alone = next(key for key in own if key.startswith("calibrated over ") and key.endswith(", calibrated"))
        keys = ["calibrated over fixed", f"calibrated over {best}", alone]
        keys += [key for key in own if key.endswith("dropped over calibrated")]
        ratios.append(
            [
                level,
                *(_listed(own[key]) for key in keys[:1]),
                f"{EXPERTS[best]} {_listed(own[keys[1]])}",
                f"{EXPERTS[alone.removeprefix('calibrated over ').partition(',')[0]]} {_listed(own[alone])}",
                *(_left(own, key) for key in keys[3:]),
            ]
        )
    told = [EXPERTS[name] for name in names]
    dropped = [
        f"exponents {key.partition(', ')[2].partition(' dropped')[0]} left out: passes, error over all"
        for key in result["levels"][0]
        if key.endswith("dropped over calibrated")
    ]
    return [
        (["level", *(f"{name}, weight" for name in told), *(f"without {name}: error [%]" for name in told)], weights),
        (["level", *told, "fixed", "calibrated", "calibrated + likelihood", "base + likelihood"], errors),
        (["level", "calibrated over fixed", "over the best expert", "over the best, calibrated", *dropped], ratios),
    ]


def disagreement(result: dict[str, Any]) -> Sequence[Table]:
    """Return how well the error is told by each number, and whether what is told comes true."""
    less = "minus unknown share"
    rows = [
        [
            name,
            *(
                interval(own[key]) if key in own else ""
                for key in ("rank correlation", f"rank correlation, {less}", "AUSE", f"AUSE, {less}")
            ),
        ]
        for name, own in result["rows"].items()
    ]
    told = [
        [name, *(f"{point['told']:.2f}: {interval(point['error'], 2)}" for point in points)]
        for name, points in result["reliability"].items()
    ]
    bins = [f"bin {number}" for number in range(1, len(told[0]))]
    return [
        (["told by", "rank correlation", less, "AUSE", less], rows),
        (["told error: mean error", *bins], told),
    ]


def by_age(result: dict[str, Any]) -> Sequence[Table]:
    """Return PSNR and SSIM of every row by how long ago the target was seen, and the gains over the base."""
    table = result["table"]
    parts = [part for part in table["windows"] if part.startswith("last seen")]
    found = {(row["row"], row["part"]): row for row in table["rows"]}
    names = list(dict.fromkeys(row["row"] for row in table["rows"]))
    base = next(name for name in names if name.startswith("base"))
    gains = {(own["row"], own["part"]): own for own in table["gains"] if own["reference"] == base}
    header = [f"{part.removeprefix('last seen ')} (n = {table['windows'][part]})" for part in parts]
    shown = [
        [
            name,
            *(
                f"{found[name, part]['psnr_db']['value']:.1f} / {found[name, part]['ssim']['value']:.2f}"
                for part in parts
            ),
        ]
        for name in names
    ]
    compared = [
        [name, *(interval(gains[name, part]["psnr_db"], 1) for part in parts)]
        for name in names
        if (name, parts[0]) in gains
    ]
    return [(["PSNR [dB] / SSIM", *header], shown), ([f"PSNR over {base} [dB], paired", *header], compared)]


def sampled(result: dict[str, Any]) -> Sequence[Table]:
    """Return images of compositions by sampler and steps."""
    rows = [
        [
            own["name"],
            str(own["passes"]),
            interval(own["psnr_db"], 2),
            interval(own["psnr_db gained"], 2) if "psnr_db gained" in own else "",
            f"{own['ssim']['value']:.3f}",
            interval(own["sharpness"], 2),
            interval(own["kernel_distance"], 2),
            f"{own['cpu_ms']:.0f}",
        ]
        for own in result["rows"]
    ]
    real = ["true images against others", "", "", "", "", "", interval(result["true images against others"], 2), ""]
    header = ["composition: sampler, steps", "passes", "PSNR [dB]", "over the first, paired", "SSIM", "sharpness ratio"]
    return [([*header, "kernel distance, middle 95 % of subsets", "a view [CPU ms]"], [*rows, real])]


def adapters(result: dict[str, Any]) -> Sequence[Table]:
    """Return what adapters earn over unadapted weights, by rank and frames."""
    rows = [
        [
            str(own["frames"]),
            str(own["rank"]),
            f"{own['unadapted, 1']:.3f}",
            interval(own["ratio, 1"]),
            interval(own["ratio, 0.4"]),
            interval(own["psnr_db gained"], 2),
            f"{own['windows']} of {own['drives']}",
        ]
        for own in result["rows"]
    ]
    header = ["frames", "rank", "error, unadapted", "adapted over unadapted", "the same at level 0.4"]
    return [([*header, "PSNR gained [dB]", "windows of drives"], rows)]


def nwm_composition(result: dict[str, Any]) -> Sequence[Table]:
    """Return views and plans of the class of NWM with memories, each with its paired difference to the base."""
    views = result["recall"]
    gains = {own["row"]: own for own in views["gains"] if own["part"] == "all" and own["reference"] == "base"}
    shown = [
        [
            own["row"],
            interval(own["psnr_db"], 2),
            interval(own["ssim"]),
            interval(own["sharpness"], 2),
            *(interval(gains[own["row"]][key], 2 + (key == "ssim")) if own["row"] in gains else "" for key in IMAGE),
            str(own["psnr_db"]["n"]),
        ]
        for own in views["rows"]
        if own["part"] == "all"
    ]
    header = ["view", "PSNR [dB]", "SSIM", "sharpness ratio", "PSNR over base [dB], paired", "SSIM over base", "n"]
    chosen = [f"{result['chosen'][name]:g}" for name in ("long_term", "variance")]
    told = ["weight of the adapter", "variance of what the cloud shows", "chosen in validation worlds"]
    plans = [_plans(result["plans"], "base")] if "plans" in result else []
    return [(header, shown), *plans, (told, [[*chosen, result["choice"]]])]


def split_plans(result: dict[str, Any]) -> Sequence[Table]:
    """Return plans over all windows and where the goal registers to the context, to memory, or not at all."""
    table = result["table"]
    parts = table["by_registration"]
    references = [name for name in ("base", "geometry only") if any(own["row"] == name for own in table["rows"])]
    names = [f"{words} (n {part['windows']})" for words, part in parts.items()]
    errors = [
        [
            own["row"],
            interval(own["ate_m"]),
            *(interval(part["rows"][own["row"]]["ate_m"]) for part in parts.values()),
        ]
        for own in table["rows"]
    ]
    ratios = []
    for name, part in parts.items():
        for reference in references:
            found = [own for own in part["ratios"] if own["reference"] == reference and own["row"] not in references]
            ratios += [[name, own["row"], reference, *(interval(own[key]) for key in PLAN)] for own in found]
    return [
        _plans(table, *references),
        (["ATE [m] where the goal registers to", "all windows", *names], errors),
        (["where the goal registers to", "row", "over", "ATE ratio, paired", "RPE ratio"], ratios),
    ]


def doubted(result: dict[str, Any]) -> Sequence[Table]:
    """Return plans by the weight of the doubt."""
    others = ("weight 0", "two noises, weight 0")
    rows = [
        [
            own["row"],
            interval(own["ate_m"]),
            *(interval(own[f"ate_m minus {name}"], 4) if f"ate_m minus {name}" in own else "" for name in others),
            interval(own["rpe_m"]),
            str(own["ate_m"]["n"]),
        ]
        for own in result["rows"]
    ]
    header = ["row", "ATE [m]", *(f"minus {name}, paired" for name in others), "RPE [m]", "n"]
    return [(header, rows)]


def _plans(table: dict[str, Any], *references: str) -> Table:
    """Return ATE and RPE of every row with their paired ratios to some rows."""
    ratios = [{(own["row"], own["reference"]): own for own in table[name]} for name in ("ate_ratios", "rpe_ratios")]
    rows = []
    for own in table["rows"]:
        cells = [own["row"], interval(own["ate_m"]), interval(own["rpe_m"])]
        for reference in references:
            pair = own["row"], reference
            cells += [interval(found[pair]) if pair in found else "" for found in ratios]
        rows.append([*cells, str(own["n"])])
    compared = [f"{metric} over {name}, paired" for name in references for metric in ("ATE", "RPE")]
    return ["plan", "ATE [m]", "RPE [m]", *compared, "n"], rows


def _left(own: dict[str, Any], key: str) -> str:
    passes = own["passes"]
    return f"{passes[key.removesuffix(' over calibrated')]} of {passes['calibrated']}: {_listed(own[key], 4)}"


def _listed(value: list[float], digits: int = 3, scale: float = 1.0) -> str:
    middle, low, high = (scale * each for each in value)
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
