"""Sections of world models as a whole, and of their training."""

from __future__ import annotations

from model_tables import (
    compared,
    compute,
    model_figures,
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
        "training_nwm_class.json",
        "Training of the plain class of NWM",
        "As above; losses are of other latents and of noise, and compare with nothing else here.",
        "benchmarks/training_log.py runs/nwm_class --out benchmarks/results/training_nwm_class.json",
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
        "target, above with those at the start. *wider* does not ship: 8.8 M parameters (192 wide, 8 deep), from "
        "random weights, 18,020 steps at a constant rate and 1,500 with one that falls to zero, in built-in, "
        "photographed and furnished worlds. Six times the steps of `small` in a wider network gain nothing here, "
        "and `tiny`, which knows ideal sensors, is ahead of both around the cabinet: views of one step follow "
        "what is rendered, by measured depth.",
        "benchmarks/compared_views.py models/small models/tiny runs/wider/small --recordings kitchen cabinet "
        "--windows 60 --rows jump tilted --out benchmarks/results/real_views.json",
        compared,
    ),
    Section(
        "view_errors.json",
        "Where the errors of imagined views lie",
        "VIEWERRORS",
        "benchmarks/view_errors.py MODELS --recordings kitchen cabinet",
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
