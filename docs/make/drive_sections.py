"""Sections of remembered views and of driving to images."""

from __future__ import annotations

from localisation_tables import ablations, closed_loop, relocalised
from model_tables import planning
from sections import EVALUATE, Section
from small_sections import recall

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
DRIVES = (
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
        "`ideal-64`. Compositions with the spatial expert paste up to 85 % of the rendered cloud into "
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
)
