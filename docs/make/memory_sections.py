"""Sections of memories: colours, latents, rooms, sequences."""

from __future__ import annotations

from memory_tables import latent_ablations, latent_memory, memory_costs, retrieval, sequence_costs, sequence_memories
from room_sections import ROOMS
from sections import EVALUATE, Section
from small_sections import recall

MEMORIES = (
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
)
