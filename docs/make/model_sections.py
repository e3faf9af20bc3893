"""Sections of world models as a whole, and of their training."""

from __future__ import annotations

from model_tables import (
    compared,
    compute,
    model_figures,
    motion_prior,
    quality,
    samplers,
    sizes,
    training_data,
    training_log,
    variants,
    view_errors,
)
from sections import EVALUATE, Section

MODELS = (
    Section(
        "quality_test_worlds.json",
        "Imagined views",
        "Built-in test worlds, `ideal-64`.",
        f"{EVALUATE} quality --worlds 20000-20019 --windows 500",
        quality,
    ),
    Section(
        "model_tiny.json",
        "All figures of `tiny`, realistic sensors",
        "Test worlds with the preset `realistic` (the seed draws a camera for each world), built-in and furnished; two "
        "real recordings, nothing of them trained on. Views that nothing tells follow a turn of 60 degrees or more; "
        "distances there are in units of the distance between two real views, in features of tiny's depth network.",
        "benchmarks/model_figures.py --model tiny --worlds 20000-20009 --plans 40 --windows 48 --views 64 --places 8 "
        "--recordings kitchen cabinet",
        model_figures,
    ),
    Section(
        "model_small.json",
        "All figures of `small`, realistic sensors",
        "The same windows, views, plans and recordings, of `small`.",
        "benchmarks/model_figures.py --model models/small --worlds 20000-20009 --plans 40 --windows 48 --views 64 "
        "--places 8 --recordings kitchen cabinet",
        model_figures,
    ),
    Section(
        "model_small_photographed.json",
        "Figures of `small` in photographed worlds",
        "The same in the built-in test worlds with photographed surfaces, of the half of the materials that training "
        "never sees.",
        "benchmarks/model_figures.py --model models/small --parts prediction,images,planning --sets photographed "
        "--worlds 20000-20009 --plans 40 --windows 48 --views 64 --places 8 "
        "--out benchmarks/results/model_small_photographed.json",
        model_figures,
    ),
    Section(
        "model_medium.json",
        "All figures of `medium`, realistic sensors",
        "The same windows, views, plans and recordings, of `medium`.",
        "benchmarks/model_figures.py --model models/medium --worlds 20000-20009 --plans 40 --windows 48 --views 64 "
        "--places 8 --recordings kitchen cabinet",
        model_figures,
    ),
    Section(
        "motion_prior.json",
        "Plans with a prior of motion that looks",
        "`medium` with its prior of a constant twist, and with the network `motion` instead, whose weight was chosen "
        "in validation worlds (below); test worlds with realistic sensors, without memory, and the last 40 % of "
        "two real recordings, planned as for a differential drive. A perfect model has the same prior. The drivers of "
        "test worlds are those that it learned from; people filmed the recordings.",
        "benchmarks/motion_prior.py --model medium --worlds 20000-20009 --weights 0.02 --plans 80 --recordings kitchen "
        "cabinet --set robot.kinematics=differential",
        motion_prior,
    ),
    Section(
        "motion_prior_more.json",
        "The same in more test worlds",
        "Built-in worlds, twice as many of them and twice as many plans.",
        "benchmarks/motion_prior.py --model medium --worlds 20000-20019 --sets built-in --weights 0.02 --plans 160 "
        "--out benchmarks/results/motion_prior_more.json",
        motion_prior,
    ),
    Section(
        "motion_prior_weights.json",
        "The weight of that prior, in validation worlds",
        "The same in built-in validation worlds.",
        "benchmarks/motion_prior.py --model medium --worlds 10020-10027 --sets built-in --weights 0.01 0.02 "
        "0.04 --out benchmarks/results/motion_prior_weights.json",
        motion_prior,
    ),
    Section(
        "images_medium.json",
        "Images of `medium` with a corrector",
        "One Langevin step at each visited noise level, scale 0.5 (`sampler.corrector`): the least of 0.3 to 0.6 "
        "whose sharpness in validation worlds of all three sets is half of the truth's to the lower end of its "
        "interval. 20 steps take 40 passes. Part of what it sharpens is grain ([image](evaluation.md)).",
        "benchmarks/model_figures.py --model models/medium --worlds 20000-20009 --views 64 --places 8 --parts images "
        "--steps 10 20 --sets built-in,furnished,photographed --set sampler.corrector.steps=1 "
        "--set sampler.corrector.scale=0.5 --out benchmarks/results/images_medium.json",
        model_figures,
    ),
    Section(
        "images_small.json",
        "Images of `small` with a corrector",
        "The same of `small`.",
        "benchmarks/model_figures.py --model models/small --worlds 20000-20009 --views 64 --places 8 --parts images "
        "--steps 10 20 --sets built-in,furnished,photographed --set sampler.corrector.steps=1 "
        "--set sampler.corrector.scale=0.5 --out benchmarks/results/images_small.json",
        model_figures,
    ),
    Section(
        "model_nwm_class.json",
        "All figures of the plain class of NWM, realistic sensors",
        "The same of a CDiT as NWM's: AutoencoderKL latents, noise prediction, four frames, no views, no camera, no "
        "depth; DDIM. Trained by `config/train_nwm_class.yaml` for a quarter of the processor time of `small`'s last "
        "stage.",
        "benchmarks/model_figures.py --model runs/nwm_class/nwm_class --parts prediction,planning,images "
        "--sets built-in --set sampler.steps=5 --worlds 20000-20009 --plans 40 --windows 48 --views 64 --places 8",
        model_figures,
    ),
    Section(
        "model_nwm_large.json",
        "All figures of the plain class of NWM at the size of `medium`, realistic sensors",
        "The same with 8.8 M parameters, in built-in, photographed and furnished worlds: a quarter of the operations "
        "of `medium`, somewhat more than `small` has with those of `tiny`, with whose weights it began (compute of "
        "all: below).",
        "benchmarks/model_figures.py --model runs/nwm_large/nwm_class --parts prediction,planning,images "
        "--sets built-in,furnished --set sampler.steps=5 --worlds 20000-20009 --plans 40 --windows 48 --views 64 "
        "--places 8 --out benchmarks/results/model_nwm_large.json",
        model_figures,
    ),
    Section(
        "training_small.json",
        "Training of `small`",
        "Losses on views of validation worlds. The denoiser's are those of the same held-out windows, levels and "
        "noise: `loss` with the base's inputs, `null_loss` without the past, `longer_loss` and `memory_loss` with "
        "further views. "
        "It begins with `tiny`'s weights. One core with AMX, bfloat16, other work beside it. The depth estimator that "
        "ships went on to 14,000 steps, which this log does not hold.",
        "benchmarks/training_log.py runs/small --out benchmarks/results/training_small.json",
        training_log,
    ),
    Section(
        "training_medium.json",
        "Training of `medium`",
        "As above, from random weights, with the depth estimator of `small`; furnished worlds are among those of "
        "validation, so that losses do not compare with those of `small`. Two cores with AVX-512 in bfloat16, other "
        "work beside it.",
        "benchmarks/training_log.py runs/medium --out benchmarks/results/training_medium.json",
        training_log,
    ),
    Section(
        "training_nwm_class.json",
        "Training of the plain class of NWM",
        "As above; losses are of other latents and of noise, and compare with nothing else here.",
        "benchmarks/training_log.py runs/nwm_class --out benchmarks/results/training_nwm_class.json",
        training_log,
    ),
    Section(
        "training_nwm_large.json",
        "Training of the plain class of NWM at the size of `medium`",
        "One core with AVX-512 in bfloat16, other work beside it.",
        "benchmarks/training_log.py runs/nwm_large --out benchmarks/results/training_nwm_large.json",
        training_log,
    ),
    Section(
        "scaling.json",
        "Sizes of `small` at equal compute",
        "Each size from random weights, with all inputs of `small` and its depth estimator, for the same processor "
        "time on one core (AVX-512 in bfloat16, beside another training). The rate is constant, so that a training "
        "shows the loss at every budget up to its own. Views of validation worlds 10020 to 10039 with ideal sensors.",
        "benchmarks/denoiser_variants.py --base train_small.yaml --variants benchmarks/scaling.yaml --seconds 900 "
        "--calibration 25 --validations 9 --set data.pool_drives=8 --set depth_from=models/small "
        '--only "3 M (128 x 6),9 M (192 x 8),15 M (256 x 8)" --out benchmarks/results/scaling.json',
        sizes,
    ),
    Section(
        "training_mixture.json",
        "Longer training of `small`, and worlds to learn from",
        "`small` trained on, in bfloat16 with averaged weights, each once: *longer* 4,500 steps in built-in and "
        "photographed worlds as before, at a constant rate of 4e-4; *furnished* 3,500 of them, then 1,500 with "
        "furnished worlds as well (`data.sets_of_worlds`; the models and materials of training); *decayed* the "
        "longer one and 1,500 further steps in its own worlds, the rate falling to zero. Views of two real "
        "recordings, which none saw, and of validation worlds. In built-in worlds all are ahead at 1 s. More steps "
        "at the constant rate gain next to nothing on real images; with furnished worlds both recordings gain, with "
        "a falling rate the cabinet alone. The furnished one is no better than the longer one in furnished worlds, "
        "so one training of each does not tell worlds from chance.",
        "benchmarks/compared_views.py models/small runs/longer/small runs/furnished/small runs/decayed/small "
        "--recordings kitchen cabinet --sets built-in furnished --out benchmarks/results/training_mixture.json",
        compared,
    ),
    Section(
        "real_views.json",
        "Views of real recordings with and without the camera's tilt",
        "Two rooms filmed by hand, none trained on. *Tilt told*: with the camera's height, pitch and roll at the "
        "target, above with those at the start. `tiny`, which knows ideal sensors, is ahead of both others around the "
        "cabinet from 2 s on: views of one step follow what is rendered, by measured depth.",
        "benchmarks/compared_views.py models/small models/tiny models/medium --recordings kitchen cabinet "
        "--windows 60 --rows jump tilted --out benchmarks/results/real_views.json",
        compared,
    ),
    Section(
        "world_views.json",
        "Views of `small` and `medium` in validation worlds",
        "Worlds that none learned from, realistic sensors. *falling* is `medium` as it was 1,000 steps before, trained "
        "on for 1,500 with a rate that falls to zero: it gains nothing at 1 and 2 s and loses at 4 and 8 s in "
        "furnished worlds (and on the two recordings), so that `medium` is of a constant rate.",
        "benchmarks/compared_views.py models/small models/medium runs/falling/small --sets built-in furnished "
        "--windows 60 --out benchmarks/results/world_views.json",
        compared,
    ),
    Section(
        "view_errors.json",
        "Where the errors of imagined views lie",
        "Real recordings, with the camera's tilt told. *Too bright*: mean of imagined less true over known pixels, as "
        "a share of the range, around the middle of the image and near its edge. `runs/colours` is `medium` trained "
        "on for 3,000 steps with colours and a lens of each drive's own (`data.colour_spread`; the first 1,145 of them "
        "with 0.8, and the preset's lens).",
        "benchmarks/view_errors.py models/small models/medium runs/colours --recordings kitchen cabinet",
        view_errors,
    ),
    Section(
        "training_compute.json",
        "Compute of `tiny` and `small`",
        "Every stage of training trained for some steps and for three times as many; what the longer takes more, for a "
        "step. Matrix products, convolutions and attention, forward and backward; making the data is not counted. "
        "`small` begins with the weights of `tiny: denoiser`, which are counted there.",
        "benchmarks/training_compute.py --out benchmarks/results/training_compute.json",
        compute,
    ),
    Section(
        "training_compute_medium.json",
        "Compute of `medium` and of the plain class of NWM",
        "The same of trainings by their folders, of `medium` when it had done 18,020 steps: its 19,000 are 2,086 "
        "TFLOP. Its depth estimator is `small`'s: 118 TFLOP, counted above.",
        "benchmarks/training_compute.py --runs runs/medium runs/nwm_large --steps 8 "
        "--out benchmarks/results/training_compute_medium.json",
        compute,
    ),
)
TRAINING = (
    Section(
        "denoiser_variants.json",
        "Variants of the denoiser in equal time",
        "One core, 60 training worlds; views of validation worlds 10020-10039, 200 windows. Losses compare only within "
        "one objective.",
        "benchmarks/denoiser_variants.py --seconds 180 540",
        variants,
    ),
    Section(
        "sampling_steps_many.json",
        "Sampling steps",
        "Validation worlds: 40 views 2 s ahead, and 24 plans of 40 candidates. With one step all samplers are equal.",
        "benchmarks/sampling_steps.py --steps 1,2,3,5,10,25,50",
        samplers,
    ),
    Section(
        "training_data.json",
        "Cost of training data",
        "One thread, the configuration of the tiny model: 32 contexts, 4 goals.",
        "benchmarks/training_data.py",
        training_data,
    ),
)
