"""Sections of real recordings: plans, recognition, drift, calibration."""

from __future__ import annotations

from localisation_tables import (
    ablations,
    calibrated_online,
    calibrated_plans,
    consistent,
    drift,
    fuzzed,
    localisation_cost,
    recognised,
)
from model_tables import planning
from sections import Section

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
