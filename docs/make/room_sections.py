"""Sections of memories of rooms side by side: clouds of colours and of latents, retrieved frames, states."""

from __future__ import annotations

from composition_tables import split_plans
from sections import Section
from small_sections import CHOSEN, QUICK, SETS, WORLDS, recall

SEQUENCES = "--sequence-model runs/rooms_ssm/sequence_ssm --sequence-model runs/rooms_full/sequence_full"
RECALL = f"come-nav evaluate --suite recall --model small --contrast on --windows 60 {WORLDS}"
PLANS = (
    f"come-nav evaluate --suite memory-planning --model small --contrast on --horizon 2 --windows 48 {WORLDS} "
    f"--ages 0.5-2,2-8,8-30,30- --test-frames 320 {QUICK}"
)
SAME = (
    "Test worlds, realistic sensors, a camera of 320 x 240 pixels, whose images correct the drift. What every memory "
    "has seen is the same: the memory phase at the poses that the robot has of it, and the newest frames. "
)
STATES = (
    "*state space* and *full attention* are networks of 0.5 M parameters that took in every frame "
    "(`config/train_sequence_rooms.yaml`: 4,000 and 6,000 steps, about eight minutes of a quiet core each, built-in "
    "training worlds, realistic sensors); they have no depth, and latents of 12x4x4 that keep less of an image than "
    "those of `small`. *retrieved context* and *STM, retrieved frames* are `small` with remembered frames in place of "
    "the newest. "
)
LATENTS = "The windows of the table before; all that looks at the spatial memory looks at one of latents. "
ROOMS = (
    Section(
        "rooms_recall_rgb.json",
        "Memories of rooms side by side: recall",
        SAME + STATES + CHOSEN + SETS,
        f"{RECALL} --rows geometry,base,stm,sltm,all,likelihood,retrieved,stm-retrieved {SEQUENCES}",
        recall,
    ),
    Section(
        "rooms_recall_latent.json",
        "Memories of rooms side by side: recall by a cloud of latents",
        LATENTS + "*geometry only* is the read-out decoded. ",
        f"{RECALL} --rows geometry,base,sltm,likelihood --set spatial.features=latent",
        recall,
    ),
    Section(
        "rooms_plans_rgb.json",
        "Memories of rooms side by side: plans of 2 s",
        SAME + "The robot's search looks at what each memory shows of the ends of candidates. ",
        f"{PLANS} --rows geometry,base,sltm,likelihood {SEQUENCES}",
        split_plans,
    ),
    Section(
        "rooms_plans_latent.json",
        "Memories of rooms side by side: plans by a cloud of latents",
        LATENTS,
        f"{PLANS} --rows geometry,base,sltm,likelihood --set spatial.features=latent",
        split_plans,
    ),
    Section(
        "rooms_plans_retrieved.json",
        "Memories of rooms side by side: plans by retrieved frames",
        "The windows of the tables before; the short-term expert looks at remembered frames that show what lies ahead, "
        "in place of those before the newest. ",
        f"{PLANS} --rows base,stm --set retrieval.use=true",
        split_plans,
    ),
)
