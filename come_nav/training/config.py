"""Settings of a training run. Defaults make the shipped tiny model; YAML only overrides."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from come_nav.core.checks import check_choice, check_range
from come_nav.core.errors import ConfigError
from come_nav.experts.cdit import CDiTSettings
from come_nav.sim.sensors.mounting import CameraRanges
from come_nav.sim.world_sets import BUILT_IN, world_set
from come_nav.training.data.goals import GoalSettings
from come_nav.training.input_dropout import InputDropout
from come_nav.world_model.autoencoders.autoencoder import AutoencoderSettings
from come_nav.world_model.depth import DepthSettings
from come_nav.world_model.reprojection import FACTS_APART, VIEW_FACTS, ReprojectionSettings
from come_nav.world_model.sampling.settings import SamplerSettings

SOURCES = 3  # of views: the context, a longer past, the memory
FRAME_NAMES = ("odom_frame", "base_frame", "camera_frame")


@dataclass(frozen=True)
class RecordingFlags:
    """How recordings to learn from are opened.

    Attributes:
        image_topic, depth_topic, info_topic, pose_topic: of the recordings; empty = found by type and name.
        time_offset_s: added to the stamps of the recordings' poses.
        odom_frame, base_frame, camera_frame: of the recordings; empty = as their messages and /tf say.
        depth_scale_m: metres of one unit of their integer depth images.
    """

    image_topic: str = ""
    depth_topic: str = ""
    info_topic: str = ""
    pose_topic: str = ""
    time_offset_s: float = 0.0
    odom_frame: str = ""
    base_frame: str = ""
    camera_frame: str = ""
    depth_scale_m: float = 0.001

    def __post_init__(self) -> None:
        check_range("data.time_offset_s", self.time_offset_s, -1e10, 1e10)
        check_range("data.depth_scale_m", self.depth_scale_m, 0.0, 1.0, open_low=True)

    @property
    def recording_flags(self) -> dict[str, Any]:
        """How recordings are opened, where it is not by default: keyword arguments of ``open_recording``."""
        names = ("image_topic", "depth_topic", "info_topic", "pose_topic", "time_offset_s", *FRAME_NAMES)
        flags = {name: getattr(self, name) for name in names if getattr(self, name)}
        return flags if self.depth_scale_m == 0.001 else flags | {"depth_scale_m": self.depth_scale_m}


@dataclass(frozen=True)
class DataSettings(RecordingFlags):
    """What is learned from: built-in worlds, and recordings of one's own where named.

    Attributes:
        first_world, worlds: seeds [first_world, first_world + worlds) of built-in worlds; must be training seeds.
        validation_worlds: number of worlds from seed 10000 on that measure the validation loss.
        sets_of_worlds: how they are drawn (come_nav/sim/world_sets.py), taken in turn; photographed ones need the pack
            of ``come-nav assets collect``.
        episode_s: length of each scripted drive in seconds.
        drivers: scripted drivers, taken in turn.
        branches: views rendered per frame at poses where the driver did not go (random arcs from that frame), so that
            the model learns what other actions would have shown. Only in built-in worlds.
        turn_branches: share of the branches that turn on the spot.
        memory_s: length of an earlier part of each episode, s, that a spatial memory keeps (a random 30 to 100 % of
            it), so that the denoiser learns to look at what the memory shows; 0 = no memory. Only in built-in worlds.
        memory_fraction: share of goals that are learned with the memory's view in place of the context's alone.
        memory_features: what that memory keeps: rgb (rendered views; workers make them), or latent (read out into the
            channels that ``denoiser_model.latent_memory_channels`` are for; made where latents are).
        memory_drift_percent: odometry of a drive drifts by a random share of this many percent (OdometrySettings).
        endless: render new drives as windows are consumed instead of drawing from a bank made once; no window comes
            twice. When every world has been driven through, the next drives through them are new ones.
        pool_drives: drives that an endless stream mixes at a time, at most; one or more windows of each per batch.
        passes: how often an endless stream uses a window's context (with new goals) before its drive leaves.
        workers: processes that make worlds and drives for an endless stream; 0 = none but the training process.
        max_offset_frames: goals of the drive lie at most so many frames before or after the newest context frame.
        goals_per_context: goals drawn for each context (NWM: 4).
        branch_fraction: share of goals taken from branches rather than from the drive itself.
        near_frames: goals of the drive within so many frames are near, those beyond it far.
        near_fraction, turn_fraction, revisit_fraction: shares of the drive's goals that are near, from the same place
            with another heading, and from a place seen before; the rest is far (see come_nav/training/data/goals.py).
        recordings: bags or NWM folders to learn from as well.
        recording_fraction: share of contexts drawn from recordings, when there are any.
        recording_weights: relative weight of each recording; empty = by their numbers of windows.
        recording_use: part of each recording that is learned from, as fractions of its frames.
        keep_images: batches carry the images of context and goals as well (uint8; 12 kB per frame at 64 px).
        keep_depth: batches carry the depth of the context frames as well.
        cameras: what the cameras of drives in built-in worlds are drawn from, one for each drive; None = the built-in
            camera (90 degrees, level, 0.5 m high).
        camera_px: side of their square images; must be image_size.
        measured_fraction: share of drives with a depth camera; the others estimate depth. Counts where the network has
            ``view_groups``.
        view_worlds: autoencoder and depth estimator see single views of so many of the worlds; 0 = of all.
        sensors: preset of colour and depth (see come_nav/sim/sensors). Counts likewise.
        colour_spread: how far the colours of each drive, and of what was remembered before it, may be from those of its
            world, and how much of the preset's vignetting its lens may lack, 0 to 1; validation shows them as they are.
            Needs ``cameras`` or ``view_groups``; for the denoiser alone, whose depth is estimated from what is shown.
        cache_folder: where latents are kept; empty = ``banks`` in the run folder. Runs that name the same folder share
            them, as long as autoencoder, rate, size and recording are the same.
        cache_limit_gb: caches used longest ago are removed when the folder grows beyond it.
    """

    first_world: int = 0
    worlds: int = 120
    validation_worlds: int = 6
    sets_of_worlds: tuple[str, ...] = (BUILT_IN,)
    episode_s: float = 90.0
    drivers: tuple[str, ...] = ("wander", "tour")
    branches: int = 2
    turn_branches: float = 0.25
    memory_s: float = 0.0
    memory_fraction: float = 0.5
    memory_features: Literal["rgb", "latent"] = "rgb"
    memory_drift_percent: float = 1.0
    endless: bool = False
    pool_drives: int = 32
    passes: int = 1
    workers: int = 1
    max_offset_frames: int = 64
    goals_per_context: int = 4
    branch_fraction: float = 0.5
    near_frames: int = 8
    near_fraction: float = 0.4
    turn_fraction: float = 0.15
    revisit_fraction: float = 0.15
    recordings: tuple[str, ...] = ()
    recording_fraction: float = 0.5
    recording_weights: tuple[float, ...] = ()
    recording_use: tuple[float, float] = (0.0, 1.0)
    keep_images: bool = False
    keep_depth: bool = False
    cameras: CameraRanges | None = None
    camera_px: int = 64
    measured_fraction: float = 0.5
    view_worlds: int = 0
    sensors: str = "ideal"
    colour_spread: float = 0.0
    cache_folder: str = ""
    cache_limit_gb: float = 50.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.sets_of_worlds:
            world_set(name)
        if not self.sets_of_worlds:
            raise ConfigError("data.sets_of_worlds names no set of worlds; e.g. [built-in]")
        check_range("data.worlds", self.worlds, 0, 10000)
        check_range("data.episode_s", self.episode_s, 5.0, 3600.0)
        check_range("data.branches", self.branches, 0, 16)
        check_range("data.branch_fraction", self.branch_fraction, 0.0, 1.0)
        check_range("data.max_offset_frames", self.max_offset_frames, 1, 64)
        check_range("data.goals_per_context", self.goals_per_context, 1, 64)
        check_range("data.recording_fraction", self.recording_fraction, 0.0, 1.0)
        check_range("data.turn_branches", self.turn_branches, 0.0, 1.0)
        check_range("data.pool_drives", self.pool_drives, 1, 4096)
        check_range("data.passes", self.passes, 1, 1000)
        check_range("data.workers", self.workers, 0, 256)
        check_range("data.memory_s", self.memory_s, 0.0, 3600.0)
        check_range("data.memory_fraction", self.memory_fraction, 0.0, 1.0)
        check_choice("data.memory_features", self.memory_features, ("rgb", "latent"))
        check_range("data.memory_drift_percent", self.memory_drift_percent, 0.0, 50.0)
        check_range("data.cache_limit_gb", self.cache_limit_gb, 0.0, open_low=True)
        check_range("data.measured_fraction", self.measured_fraction, 0.0, 1.0)
        check_range("data.colour_spread", self.colour_spread, 0.0, 1.0)
        check_range("data.view_worlds", self.view_worlds, 0, 10000)
        check_range("data.camera_px", self.camera_px, 8, 4096)
        self.sampling(1)
        if self.recording_weights and len(self.recording_weights) != len(self.recordings):
            raise ConfigError(
                f"data.recording_weights must name one weight for each of the {len(self.recordings)} recordings, got "
                f"{len(self.recording_weights)}"
            )
        for weight in self.recording_weights:
            check_range("data.recording_weights", weight, 0.0, open_low=True)
        if self.first_world < 0 or self.first_world + self.worlds > 10000:
            raise ConfigError(
                f"data.first_world + data.worlds must stay within the training seeds 0-9999, got "
                f"{self.first_world} + {self.worlds}: validation and test worlds are never trained on"
            )
        if self.worlds == 0 and not self.recordings:
            raise ConfigError("data.worlds is 0 and data.recordings is empty: there is nothing to learn from")
        low, high = self.recording_use
        if not 0.0 <= low < high <= 1.0:
            raise ConfigError(f"data.recording_use must be 0 <= start < end <= 1, got {self.recording_use}")

    def sampling(self, context_frames: int, older_frames: int = 0) -> GoalSettings:
        """Return how windows are drawn; raises ConfigError for shares that do not fit together."""
        return GoalSettings(
            context_frames,
            self.goals_per_context,
            self.max_offset_frames,
            self.branch_fraction,
            self.near_frames,
            self.near_fraction,
            self.turn_fraction,
            self.revisit_fraction,
            older_frames=older_frames,
        )


@dataclass(frozen=True)
class OptimiserSettings:
    """AdamW with warm-up, then cosine decay to zero or a constant rate.

    Attributes:
        steps: optimiser steps of this stage.
        batch_size: images (autoencoder) or contexts (denoiser) per step, over all processes together.
        learning_rate: peak rate.
        warmup_steps: linear rise from zero.
        decay: of the rate after that: "cosine" to zero at the last step, or "constant" (NWM).
        beta2: AdamW's decay of squared gradients (NWM: 0.999).
        weight_decay: AdamW's decoupled decay.
        clip_norm: largest gradient norm.
        ema_decay: decay of the averaged weights that are validated and exported.
        log_every, validate_every, save_every: intervals in steps.
        keep_checkpoints: of the numbered checkpoints, the newest so many stay, beside the best and the last one.
    """

    steps: int = 3000
    batch_size: int = 32
    learning_rate: float = 4e-4
    warmup_steps: int = 200
    decay: Literal["cosine", "constant"] = "cosine"
    beta2: float = 0.99
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    log_every: int = 20
    validate_every: int = 500
    save_every: int = 250
    keep_checkpoints: int = 2

    def __post_init__(self) -> None:
        check_range("steps", self.steps, 1)
        check_range("batch_size", self.batch_size, 1)
        check_range("learning_rate", self.learning_rate, 0.0, 1.0, open_low=True)
        check_range("warmup_steps", self.warmup_steps, 0)
        check_range("beta2", self.beta2, 0.0, 0.99999)
        check_range("keep_checkpoints", self.keep_checkpoints, 1, 1000)
        check_range("clip_norm", self.clip_norm, 0.0, open_low=True)
        check_range("ema_decay", self.ema_decay, 0.0, 0.99999)
        for name in ("log_every", "validate_every", "save_every"):
            check_range(name, getattr(self, name), 1)


def tiny_denoiser() -> CDiTSettings:
    """Return the shape of the shipped model: 3 M parameters on 4x8x8 latents."""
    return CDiTSettings(
        input_size=8,
        hidden_size=128,
        depth=6,
        num_heads=4,
        learn_sigma=False,
        action_scale=30.0,
        context_pose=True,
        context_dropout=True,
    )


@dataclass(frozen=True)
class TrainSettings:
    """One run: the data, the two networks and how each is optimised.

    Attributes:
        name: name of the exported model folder.
        seed: of everything random in the run.
        context_frames: frames that the denoiser looks back on.
        rate_hz: protocol rate.
        image_size: side of the square images.
        scale_m: metres that count as 1 in normalised actions (0 stands still).
        waypoint_spacing_m: normalise actions as NWM does instead, in waypoints of this spacing; None = by ``scale_m``.
        context_dropout: share of samples that learn without context (the unconditional branch).
        input_dropout: shares that learn without the other optional inputs, for networks with ``view_groups``.
        prediction: what the network outputs: "eps" as NWM, or "v", which is better conditioned at few
            steps; experts answer noise either way.
        weighting: of the squared error over noise levels: "uniform" as NWM, or "min_snr" (arXiv 2303.09556).
        noise_shift: 1 draws noise levels evenly, as NWM; more draws noisier ones more often, which is where a sampler
            of few steps works (timestep shift of arXiv 2403.03206, equation 23).
        kl_weight: weight of the autoencoder's KL term.
        precision: Lightning's precision; "auto" is bf16-mixed on CUDA and on CPUs that multiply it (AMX, AVX512-BF16),
            else 32-true.
        autoencoder_from: take over a finished autoencoder instead of training one: a model folder of come_nav, or a
            diffusers AutoencoderKL as a folder or by its name on the Hugging Face hub.
        denoiser_from: a model folder of come_nav whose denoiser this one extends: it begins with that one's weights,
            what it has more of (inputs, sources of views, blocks) at zero; None = untrained.
        depth_from: take over the depth estimator of this model folder of come_nav instead of training one.
        autoencoder_model, denoiser_model: shapes of the networks.
        depth_model: shape of the depth estimator, for a denoiser that sees its context frames reprojected to the
            target; None leaves it out (then denoiser_model.extra_channels is 0).
        reprojection: how context frames become points.
        trained: weights of the denoiser that are trained, by how their names begin; the others stay as they are. Empty
            = all.
        sampler: what the exported model samples with until told otherwise.
        autoencoder, depth, denoiser: optimisation of the stages.
    """

    name: str = "tiny"
    seed: int = 0
    context_frames: int = 4
    rate_hz: float = 4.0
    image_size: int = 64
    scale_m: float = 1.0
    waypoint_spacing_m: float | None = None
    context_dropout: float = 0.1
    input_dropout: InputDropout = field(default_factory=InputDropout)
    prediction: Literal["eps", "v"] = "v"
    weighting: Literal["uniform", "min_snr"] = "uniform"
    noise_shift: float = 1.0
    kl_weight: float = 1e-6
    precision: str = "auto"
    autoencoder_from: str | None = None
    denoiser_from: str | None = None
    depth_from: str | None = None
    trained: tuple[str, ...] = ()
    data: DataSettings = field(default_factory=DataSettings)
    autoencoder_model: AutoencoderSettings = field(default_factory=AutoencoderSettings)
    denoiser_model: CDiTSettings = field(default_factory=tiny_denoiser)
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    depth_model: DepthSettings | None = None
    reprojection: ReprojectionSettings = field(default_factory=ReprojectionSettings)
    autoencoder: OptimiserSettings = field(default_factory=OptimiserSettings)
    depth: OptimiserSettings = field(default_factory=OptimiserSettings)
    denoiser: OptimiserSettings = field(default_factory=OptimiserSettings)

    def __post_init__(self) -> None:
        check_range("context_frames", self.context_frames, 1, 64)
        check_range("context_dropout", self.context_dropout, 0.0, 0.9)
        check_range("scale_m", self.scale_m, 0.0, open_low=True)
        check_range("noise_shift", self.noise_shift, 0.01, 100.0)
        if self.waypoint_spacing_m is not None:
            check_range("waypoint_spacing_m", self.waypoint_spacing_m, 0.0, open_low=True)
        if self.denoiser_model.learn_sigma:
            raise ConfigError("denoiser_model.learn_sigma must be false: training learns the mean only")
        if self.denoiser_model.context_size != self.context_frames:
            raise ConfigError(
                f"denoiser_model.context_size {self.denoiser_model.context_size} must equal context_frames "
                f"{self.context_frames}"
            )
        facts = FACTS_APART if self.denoiser_model.view_groups else VIEW_FACTS
        wanted = 0 if self.depth_model is None else self.autoencoder_model.latent_channels + facts
        if self.denoiser_model.extra_channels != wanted:
            raise ConfigError(
                f"denoiser_model.extra_channels must be {wanted} (latent channels + {facts} with a depth_model, "
                f"0 without), got {self.denoiser_model.extra_channels}"
            )
        self._check_inputs()
        if self.denoiser_model.in_channels != self.autoencoder_model.latent_channels:
            raise ConfigError(
                f"denoiser_model.in_channels {self.denoiser_model.in_channels} must equal the autoencoder's "
                f"latent_channels {self.autoencoder_model.latent_channels}"
            )
        if self.denoiser_model.input_size != self.autoencoder_model.latent_size:
            raise ConfigError(
                f"denoiser_model.input_size {self.denoiser_model.input_size} must equal the autoencoder's latent size "
                f"{self.autoencoder_model.latent_size}"
            )

    def _check_inputs(self) -> None:
        """Raise ConfigError where data and network do not go together."""
        network = self.denoiser_model
        if self.data.colour_spread and self.data.cameras is None and not network.view_groups:
            raise ConfigError(
                "data.colour_spread needs data.cameras, or a network with view_groups; nothing else has colours"
            )
        if network.view_groups not in (0, SOURCES):
            raise ConfigError(f"denoiser_model.view_groups must be 0 or {SOURCES}, got {network.view_groups}")
        channels = self.autoencoder_model.latent_channels + FACTS_APART
        latent = self.data.memory_s and self.data.memory_features == "latent"
        if latent and (not network.view_groups or network.latent_memory_channels != channels):
            raise ConfigError(
                f"data.memory_features latent needs denoiser_model.view_groups {SOURCES} and latent_memory_channels "
                f"{channels} (latents + {FACTS_APART}), got {network.view_groups} and {network.latent_memory_channels}"
            )
        if self.data.cameras is not None and self.data.camera_px != self.image_size:
            raise ConfigError(
                f"data.camera_px must be image_size {self.image_size}, got {self.data.camera_px}: cameras are drawn "
                "for the model's image"
            )
        if self.data.cameras is not None and self.depth_model is not None and not network.view_groups:
            raise ConfigError(
                "data.cameras needs denoiser_model.view_groups 3: a network with one view knows one camera"
            )
