"""Sections of compositions: what experts are worth, recall by age, doubt, plans by what the goal registers to."""

from __future__ import annotations

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
from sections import Section
from small_sections import SMALL, recall

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
