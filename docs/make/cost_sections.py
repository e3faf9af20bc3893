"""Sections of what things cost, and of robots over ROS 2."""

from __future__ import annotations

from cost_tables import composition_cost, growth, latency, plan_curve, plan_rates, process_memory
from ros_tables import fake_robots, kills, load, soak
from sections import Section

COSTS = (
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
)
ROBOTS = (
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
        "`config/fastdds.xml`, two cores of a loaded machine (load 10).",
        "benchmarks/ros_fake_robots.py --pace 0.3",
        fake_robots,
    ),
    Section(
        "ros_soak_faults.json",
        "Half an hour of goals over ROS 2 while sensors fail and nodes are killed",
        "Test world 20003, odometry that drifts 2 % of the way, a localiser that corrects map -> odom every 10 s; "
        "poses in map and images in turn; camera of 320x240 px, `config/fastdds.xml`, two cores of a loaded "
        "machine (load 8). Blind: driving on when the time is over within which the robot must stand. Features of key "
        "frames outlive odometry that begins anew and a planner that is killed; the planner grows by 150 kB for each, "
        "up to `localisation.visual.max_views` (1,500).",
        "benchmarks/ros_soak.py --minutes 30 --kills 20 --faults 40 --legs 2 --seed 3",
        soak,
    ),
    Section(
        "ros_kills.json",
        "A hundred kills over ROS 2",
        "The same robot without other faults; judged on loss and blind motion alone. Places are saved every 5 s. Two "
        "cores of a loaded machine (load 11): three goals ended because no obstacles came in time after a restart of "
        "spatial_memory. The collision steps are of one contact, while three controllers in a row were killed.",
        "benchmarks/ros_soak.py --minutes 26 --kills 100 --faults 0 --legs 1 --seed 2",
        kills,
    ),
    Section(
        "ros_load.json",
        "What the nodes take of the machine",
        "Camera of 640x480 px, colour and depth raw, a goal far ahead; with `config/fastdds.xml` (without it 9 of 10 "
        "images were lost: `ros_load_default_dds.json`). Two cores of a loaded machine (load 6).",
        "benchmarks/ros_load.py --seconds 25",
        load,
    ),
)
