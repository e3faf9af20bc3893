"""Sections of plans without a memory, and of fine-tuning."""

from __future__ import annotations

from model_tables import beside_baselines, fine_tuning, planning
from sections import EVALUATE, Section

PLANS = (
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
)
