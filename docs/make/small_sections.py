"""Sections of the model `small`: compositions on recordings and in worlds, and policies beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from composition_tables import calibrated, split_plans
from sections import Section, Table, interval

METRICS = {
    "psnr_db": ("PSNR [dB]", 2),
    "ssim": ("SSIM", 3),
    "sharpness": ("sharpness ratio", 2),
    "kernel_distance": ("kernel distance", 2),
}
MAIN = "all (CoME)"


def recall(result: dict[str, Any]) -> Sequence[Table]:
    """Return the table of remembered views, with what was measured of them, and the gains over the base."""
    table = result["table"]
    shown = [row for row in table["rows"] if row["part"] == "all"]
    metrics = {key: own for key, own in METRICS.items() if key in shown[0]}
    rows = [
        [row["row"], *(_cell(row[key], digits) for key, (_, digits) in metrics.items()), str(row["psnr_db"]["n"])]
        for row in shown
    ]
    base = next(row["row"] for row in shown if row["row"].startswith("base"))
    gains = [_gain(own, "row") for own in table["gains"] if own["part"] == "all" and own["reference"] == base]
    return [
        (["row", *(name for name, _ in metrics.values()), "n"], rows),
        (["row", f"PSNR over {base} [dB], paired", "SSIM"], gains),
    ]


def recalled(result: dict[str, Any]) -> Sequence[Table]:
    """Return the same, and the gains of the composition over every other row."""
    gains = [own for own in result["table"]["gains"] if own["part"] == "all" and own["row"] == MAIN]
    of_main = [_gain(own, "reference") for own in gains if own["reference"] != "base"]
    return [*recall(result), ([f"{MAIN} over", "PSNR [dB], paired", "SSIM"], of_main)]


def policies(result: dict[str, Any]) -> Sequence[Table]:
    """Return plans with the time of one, and paired ratios over constant velocity."""
    table, timing = result["table"], result["timing"]
    rows = [
        [
            row["row"],
            interval(row["ate_m"]),
            interval(row["rpe_m"]),
            interval(row["success"], 2),
            f"{1e3 * timing[row['row']]['median_s']:.0f}",
            str(row["n"]),
        ]
        for row in table["rows"]
    ]
    rpe = {(own["row"], own["reference"]): own for own in table["rpe_ratios"]}
    ratios = [
        [own["row"], own["reference"], interval(own), interval(rpe[own["row"], own["reference"]])]
        for own in table["ate_ratios"]
        if own["reference"] in ("constant velocity", "base") and own["value"] is not None
    ]
    return [
        (["row", "ATE [m]", "RPE [m]", "success (0.25 m, 15 deg)", "a plan [ms]", "n"], rows),
        (["row", "over", "ATE ratio, paired", "RPE ratio"], ratios),
    ]


def _cell(own: dict[str, Any], digits: int) -> str:
    """Return a figure; nothing where there are too few images for it."""
    return "" if own["value"] is None else interval(own, digits)


def _gain(own: dict[str, Any], name: str) -> list[str]:
    return [own[name], interval(own["psnr_db"], 2), interval(own["ssim"])]


QUICK = "--set inference.precision=bfloat16 --set planner.imagined_share=0.25"
HANDS = "--kinematics holonomic --set planner.limits.v_min_mps=-0.6"
WORLDS = "--sensors realistic --worlds 20000-20004 --camera 320x240"
RECALL = (
    "come-nav evaluate --suite recall --model small --contrast on --windows 60 --rows nearest,geometry,base,stm,ltm,"
    "sltm,base+stm,base+ltm,base+sltm,stm+ltm,all,likelihood"
)
PLANS = (
    "come-nav evaluate --suite memory-planning --model small --contrast on --rows geometry,hybrid,base,sltm,all "
    f"{QUICK}"
)
SETS = (
    "Kernel distances are of features of the depth network of `tiny`: a mean of many guesses is far from real images, "
    "whatever its PSNR. "
)
CHOSEN = (
    "Weights of the experts as shipped: base 0.75, LTM 0.5, SLTM 1.25, chosen in validation worlds with realistic "
    "sensors and a camera of 320 x 240 pixels, whose images correct the drift. "
)
TOLD = CHOSEN + SETS
UNCORRECTED = (
    "Realistic sensors and a camera of 64 pixels, which corrects nothing; the weights were chosen in validation worlds "
    "with the same camera: base 0.5, STM 0.5, LTM 0.25, SLTM 0.5. "
)
EQUAL = (
    "Where nothing registers for certain, *registration* goes on with constant velocity, and the hybrid is the "
    "composition by another name. "
)
CORRECTED = "A camera of 320 x 240 pixels, whose images correct the drift of realistic odometry. "
REAL = "Memory and adapter of the first 60 %, measured depth; nothing of it was trained on. "
LEANS = (
    "The camera is held in a hand: within 1, 2, 4 and 8 s its pitch changes by 4, 6, 8 and 8 degrees in the "
    "kitchen and by 2, 4, 5 and 7 around the cabinet (standard deviations), its roll by as much, which no planar "
    "pose tells. Here every row imagines with the height, pitch and roll at the target, above with those at the "
    "start. "
)
POLICIES = (
    "Goals seen before, plans of 2 s on the same windows: a small NoMaD (config/train_nomad.yaml, 3,000 steps), its "
    "paths ranked by the composition and in its search, the base and the composition of `small`. Goals lie farther "
    "from what the robot sees than those of the tables without memory. "
)
NWM = "The plain class of NWM on the windows of the table before: rows without a model have the same figures."
BESIDE = (
    "come-nav evaluate --suite memory-planning --model small --contrast on --rows geometry,base,all --policy "
    f"runs/nomad/nomad {QUICK}"
)
NWM_BESIDE = (
    "come-nav evaluate --suite memory-planning --model runs/nwm_class/nwm_class --set sampler.steps=5 --contrast on "
    f"--rows base,likelihood {QUICK}"
)
PLACES = (
    ("kitchen", "a real kitchen", f"kitchen --windows 40 {HANDS}"),
    ("cabinet", "round a real cabinet", f"cabinet --windows 40 {HANDS}"),
    ("worlds", "test worlds", "--worlds 20000-20007 --windows 40 --test-frames 400"),
    ("furnished", "furnished worlds", "--set-of-worlds furnished --worlds 20000-20007 --windows 40 --test-frames 400"),
)

RECALLED = tuple(
    Section(f"recall_small_{name}.json", f"Remembered views by `small`, {words}", told, f"{RECALL} {flags}", recalled)
    for name, words, told, flags in (
        ("kitchen", "a real kitchen", TOLD + REAL, "kitchen"),
        ("cabinet", "round a real cabinet", TOLD + REAL, "cabinet"),
        ("kitchen_tilt", "a real kitchen, its camera's tilt told", TOLD + REAL + LEANS, "kitchen --tilt-told"),
        ("cabinet_tilt", "round a real cabinet, its camera's tilt told", TOLD + REAL + LEANS, "cabinet --tilt-told"),
        ("worlds_320", "test worlds", TOLD + CORRECTED, WORLDS),
        ("furnished_320", "furnished worlds", TOLD + CORRECTED, f"{WORLDS} --set-of-worlds furnished"),
        (
            "worlds",
            "test worlds, drift uncorrected",
            UNCORRECTED + SETS,
            "--sensors realistic --worlds 20000-20004 --weights weights.yaml",
        ),
    )
)
AGES = "--ages 0.5-2,2-8,8-30,30- --test-frames 320 --windows 48"
SPLIT = tuple(
    Section(
        f"plans_small_{name}_{horizon}s.json",
        f"Plans of {horizon} s by `small`, {words}",
        CHOSEN + told + EQUAL,
        f"{PLANS} {flags} --horizon {horizon}",
        split_plans,
    )
    for name, words, told, flags in (
        ("kitchen", "a real kitchen", REAL, f"kitchen --windows 60 {HANDS}"),
        ("cabinet", "round a real cabinet", f"{REAL}Images at 1.5 Hz. ", f"cabinet --windows 60 {HANDS}"),
        ("worlds_320", "test worlds", CORRECTED, f"{WORLDS} {AGES}"),
        ("furnished_320", "furnished worlds", CORRECTED, f"{WORLDS} --set-of-worlds furnished {AGES}"),
    )
    for horizon in (2, 4)
)
BESIDE_POLICIES = tuple(
    section
    for name, words, flags in PLACES
    for section in (
        Section(f"policies_{name}.json", f"NoMaD beside CoME, {words}", POLICIES, f"{BESIDE} {flags}", policies),
        Section(
            f"policies_nwm_{name}.json",
            f"The plain class of NWM on those windows, {words}",
            NWM,
            f"{NWM_BESIDE} {flags}",
            policies,
        ),
    )
)
WORTH = Section(
    "composition_calibration_small_kitchen.json",
    "What each expert of `small` is worth, a real kitchen",
    "One network for base, short-term and spatial expert, the adapter of the recording's first 60 %; weights fitted on "
    "half of 22 windows and measured on the other half, intervals over windows. *fixed* are the weights as shipped. "
    "Without an expert the weights are fitted anew: it counts where the interval lies above 0. An expert alone is base "
    "and its own contrast, weight 1, or *calibrated* with a fitted one.",
    "benchmarks/composition_calibration.py kitchen --windows 40 --model small",
    calibrated,
)
SMALL = (WORTH, *RECALLED, *SPLIT, *BESIDE_POLICIES)
