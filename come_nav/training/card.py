"""The model card that training writes beside the weights."""

from __future__ import annotations

import platform

import torch

from come_nav.sim.sensors.mounting import CameraRanges
from come_nav.training.config import DataSettings, TrainSettings
from come_nav.world_model.model import DiffusionWorldModel

TEXT = """# {name}

A world model of come_nav: from {frames} camera frames at {rate:g} Hz and a pose, it imagines the view from that pose.

{table}

Trained with `come-nav train`; `config.yaml` in the run folder repeats it. Validation worlds are 10000-10099 and test
worlds 20000-20099: neither was trained on. It knows the built-in worlds only (and the recordings named above): on real
images expect less until it is fine-tuned.
"""


def model_card(config: TrainSettings, model: DiffusionWorldModel, device: str, fine_tuned: bool) -> str:
    """Return Markdown that says what the model is, what it learned from and on which machine."""
    data, network, stage = config.data, config.denoiser_model, config.denoiser
    size, grid = config.image_size, network.input_size
    hardware = torch.cuda.get_device_name() if device == "cuda" else f"CPU ({platform.machine()})"
    worlds = f"seeds {data.first_world}-{data.first_world + data.worlds - 1}, {data.episode_s:g} s each"
    goals = stage.steps * stage.batch_size * data.goals_per_context
    images = f"{config.autoencoder.steps * config.autoencoder.batch_size:,} images seen"
    if fine_tuned or config.autoencoder_from is not None:
        images = f"from {config.autoencoder_from or 'the initial model'}"
    kind = "lapped transform" if model.autoencoder.settings.kind == "lapped" else "AutoencoderKL"
    rows = {
        "images": f"{size}x{size} RGB, latents {network.in_channels}x{grid}x{grid}",
        "autoencoder": f"{kind}, {_millions(model.autoencoder)} parameters, {images}",
        "depth": _depth(config, model, fine_tuned),
        "denoiser": f"CDiT, hidden {network.hidden_size}, depth {network.depth}, {_millions(model.base)} parameters",
        "prediction": f"{config.prediction}, {config.weighting} weights, NWM's linear schedule of 1000 steps",
        "training": f"{stage.steps:,} steps, {goals:,} goals, AdamW {stage.learning_rate:g}, EMA {stage.ema_decay:g}",
        "context dropout": f"{config.context_dropout:g}",
        "built-in worlds": worlds if data.worlds else "none",
        "drives": f"{', '.join(data.drivers)}; {data.branches} further views per frame",
        "memory": _memory(data),
        "cameras": "the built-in one" if data.cameras is None else _cameras(data.cameras),
        "sensors": f"{data.sensors}; depth measured in {100 * data.measured_fraction:g} % of the drives",
        "recordings": ", ".join(data.recordings) or "none",
        "started from": "another model (fine-tuned)" if fine_tuned else config.denoiser_from or "nothing",
        "device": f"{hardware}, torch {torch.__version__}",
        "seed": str(config.seed),
    }
    table = "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])
    return TEXT.format(name=config.name, frames=config.context_frames, rate=config.rate_hz, table=table)


def _depth(config: TrainSettings, model: DiffusionWorldModel, fine_tuned: bool) -> str:
    """Say what moves the context's pixels to a target, if anything does."""
    if model.depth is None:
        return "none: no reprojected views"
    seen = f"{config.depth.steps * config.depth.batch_size:,} images with true depth"
    if config.depth_from is not None:
        seen = f"from {config.depth_from}"
    tuned = ", tuned on recordings that measure depth" if config.data.recordings else ""
    learned = f"from the initial model{tuned}" if fine_tuned else seen
    return f"estimated for reprojected views, U-Net, {_millions(model.depth)} parameters, {learned}"


def _cameras(drawn: CameraRanges) -> str:
    """Say what cameras the drives had."""
    views, heights, pitches = drawn.horizontal_fov_deg, drawn.height_m, drawn.pitch_deg
    return (
        f"{views[0]:g} to {views[1]:g} degrees wide, {heights[0]:g} to {heights[1]:g} m high, "
        f"pitched {pitches[0]:g} to {pitches[1]:g} degrees"
    )


def _memory(data: DataSettings) -> str:
    """Say what a memory of earlier drives showed, if there was one."""
    if not data.memory_s:
        return "none"
    return (
        f"of up to {data.memory_s:g} s before each drive, at {100 * data.memory_fraction:g} % of the goals, "
        f"odometry drifts by up to {data.memory_drift_percent:g} %"
    )


def _millions(module: torch.nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in module.parameters()) / 1e6:.2f} M"
