"""What a robot remembers of each drive: its own stack, shown the memory phase frame by frame.

Made once and used for all windows and rows of the drive.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import torch

from come_nav.core.errors import DataError
from come_nav.core.experts import LONG_TERM, MEMORY_EXPERTS, SPATIAL
from come_nav.core.files import atomic_path
from come_nav.core.geometry import se2
from come_nav.core.settings import to_mapping
from come_nav.core.types import Context
from come_nav.evaluation.protocols.memory_windows import MemoryDrive
from come_nav.evaluation.protocols.protocol import Window
from come_nav.evaluation.protocols.results import settings_hash
from come_nav.evaluation.suites.fingerprints import digest
from come_nav.evaluation.suites.memory.compositions import ComposedRow
from come_nav.evaluation.suites.progress import Progress, silent
from come_nav.evaluation.suites.replay import Replay, decodable, open_loop, show
from come_nav.memory.frame_memory import FrameMemory
from come_nav.memory.retrieval import FrameRetrieval
from come_nav.memory.short_term import Remembered
from come_nav.navigation.memories.remembered_space import SpaceViews
from come_nav.navigation.planning.imagining import context_of
from come_nav.navigation.settings import ExpertsSettings, NavigationSettings
from come_nav.navigation.stack import NavStack
from come_nav.world_model.model import DiffusionWorldModel

YAW_M_PER_RAD = 0.5  # what a turn counts when the nearest remembered frame is looked for
ENCODE_FRAMES = 32


class DriveMemories:
    """What one drive left behind; every part is made when it is first asked for.

    Args:
        drive: with its memory phase.
        model: of the robot.
        navigation: settings of the robot.
        folder: where adapters are kept.
        model_name: what tells the model's weights from others, e.g. their sha256.
        long_term: whether rows look at an adapter, so that one must be trained.
        progress: is told of the training.
    """

    def __init__(
        self,
        drive: MemoryDrive,
        model: DiffusionWorldModel,
        navigation: NavigationSettings,
        folder: Path,
        model_name: str,
        *,
        long_term: bool = True,
        progress: Progress = silent,
    ) -> None:
        self.drive, self.model = drive, model
        use = [name for name in (*supported(model), SPATIAL) if long_term or name != LONG_TERM]
        self.settings = _keeping_a_cloud(open_loop(navigation, tuple(dict.fromkeys(use))), model)
        self._folder, self._model_name, self._progress = folder, model_name, progress
        believed = np.asarray(drive.recording.poses_xyyaw, float)[_slice(drive.memory)]
        corrected = drive.remembered_xyyaw
        self.poses_xyyaw = torch.from_numpy(believed if corrected is None else corrected)

    @cached_property
    def replay(self) -> Replay:
        """The robot's stack after the memory phase, which goes from window to window and learns nothing more.

        Raises:
            DataError: for a phase of which no frame can be decoded, or no adapter be trained.
        """
        stack = NavStack(self.model, self.settings, background_training=False)
        show(stack, self.drive.recording, self.drive.memory)
        if LONG_TERM in self.settings.experts.use:
            self._bring_adapter(stack)
        return Replay(stack, self.settings.experts.older_frames)

    @cached_property
    def views(self) -> SpaceViews:
        """The point cloud of the memory phase, seen through the model's camera."""
        views, memory = self.replay.stack.episode.views, self.replay.stack.episode.spatial
        if views is None or memory is None or not len(memory):
            why = {} if memory is None else dict(memory.rejected)
            raise DataError(f"{self.drive.name}: the spatial memory kept no point; why: {why}")
        return views

    @cached_property
    def latents(self) -> torch.Tensor:
        """Latents (M, C, h, w) of the remembered frames."""
        frames, recording = self.drive.memory, self.drive.recording
        parts = [frames[start : start + ENCODE_FRAMES] for start in range(0, len(frames), ENCODE_FRAMES)]
        images = (self.model.images_from_rgb([recording.frame(index).rgb for index in part]) for part in parts)
        return torch.cat([self.model.encode(part) for part in images])

    @cached_property
    def retrieval(self) -> tuple[FrameRetrieval, list[int]]:
        """What finds remembered frames by what they show, and which of the memory phase each of its frames is."""
        found, kept, recording = FrameRetrieval(), list[int](), self.drive.recording
        for index, frame in decodable(recording, self.drive.memory):
            number = index - self.drive.memory.start
            found.add(frame.over_footprint(recording.T_odom_base[index]), self.poses_xyyaw[number].numpy())
            kept.append(number)
        return found, kept

    @cached_property
    def frames(self) -> FrameMemory:
        """The frames of the memory phase that show something again, as the robot's settings keep them."""
        kept = self.replay.stack.episode.frames
        if kept is not None:
            return kept
        recording = self.drive.recording
        frames = FrameMemory(self.settings.retrieval, self.model.image_size, self.model.images.aspect)
        for index, frame in decodable(recording, self.drive.memory):
            pose = np.asarray(self.poses_xyyaw[index - self.drive.memory.start], np.float64)
            above = frame.over_footprint(recording.T_odom_base[index])
            frames.observe(Remembered(frame.stamp_s, pose, above, None))
        return frames

    def retrieved_past(self, window: Window, experts: ExpertsSettings) -> Context:
        """Return the context at the start of ``window`` whose frames before it are remembered ones that show more."""
        stack = self.replay.at(window)
        context = context_of(self.model, stack.memory, experts.use, experts.older_frames, self.frames)
        if context is None:
            raise DataError(f"{window.recording_id}: before frame {window.start} the robot kept too few frames")
        return context

    def composed(self, experts: ExpertsSettings) -> DiffusionWorldModel:
        """Return the robot's model that looks at ``experts``; raise DataError where one of them cannot work."""
        return composed_model(self.replay.stack, experts, self.drive.name)

    def nearest(self, poses_odom_xyyaw: torch.Tensor) -> torch.Tensor:
        """Return which remembered frames (S,) lie nearest to poses (S, 3): metres plus half a metre per radian."""
        away = se2.relative(poses_odom_xyyaw.double().cpu()[:, None], self.poses_xyyaw[None])
        distance: torch.Tensor = away[..., :2].norm(dim=-1) + YAW_M_PER_RAD * away[..., 2].abs()
        return distance.argmin(dim=1)

    def images(self, index: torch.Tensor) -> torch.Tensor:
        """Return remembered frames (S,) as the model sees them, (S, 3, H, W) in [-1, 1]."""
        first, recording = self.drive.memory.start, self.drive.recording
        chosen, back = torch.unique(index, return_inverse=True)
        frames = [recording.frame(first + int(each)).rgb for each in chosen]
        return self.model.images_from_rgb(frames)[back.to(self.model.device)]

    def coverage(self, poses_odom_xyyaw: torch.Tensor, T_base_camera: torch.Tensor | None = None) -> torch.Tensor:
        """Return which share (S,) of views from poses (S, 3), extrinsics (S or 1, 4, 4), the point cloud knows."""
        _, known, _ = self.views.views(poses_odom_xyyaw, self.model.image_size, T_base_camera)
        return known.float().flatten(1).mean(dim=1)

    def _bring_adapter(self, stack: NavStack) -> None:
        """Put the adapter of the drive in use: from the folder where it was trained before with these settings."""
        from safetensors.torch import save_file

        name, episode, key = self.drive.name, stack.episode, self._adapter_key()
        path = self._folder / f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', name)}.safetensors"
        kept = _read_adapter(path, key)
        if kept is not None:
            episode.use_adapter(kept)
            return
        if episode.episodic is None:
            raise DataError(f"{name}: {episode.diagnostics.get('long_term', 'no adapter can be trained')}")
        with self._progress(episode.episodic.steps_due, f"adapter of {name}", "step") as bar:
            episode.train(bar.add)
        if episode.adapter is None:
            raise DataError(f"{name}: no adapter could be trained on its memory phase: too few frames in a row")
        with atomic_path(path) as temporary:
            tensors = {part: tensor.cpu().contiguous() for part, tensor in episode.adapter.tensors.items()}
            save_file(tensors, temporary, {"key": key})

    def _adapter_key(self) -> str:
        """Return what names the adapter: all that its training depends on."""
        model = self.model
        return settings_hash(
            {
                "model": self._model_name,
                "levels": [int(step) for step in model.sampler.visited(model.schedule).timestep_map],
                "depth": [model.inference.measured_depth, self.settings.experts.estimate_depth],
                "frame": self._first_frame(),
                "seed": self.settings.seed,
                "episodic": to_mapping(self.settings.episodic),
                "lora": to_mapping(self.settings.lora),
                "spatial": to_mapping(self.settings.spatial),
                "poses": digest(self.poses_xyyaw.numpy()),
                "drive": [self.drive.name, self.drive.memory.start, self.drive.memory.stop],
            }
        )

    def _first_frame(self) -> list[str | None]:
        """Return what names colour and depth of the first remembered frame: what a camera and its sensors deliver."""
        for _, frame in decodable(self.drive.recording, self.drive.memory):
            parts = (frame.rgb, frame.depth_m)
            return [None if part is None else hashlib.sha256(part.tobytes()).hexdigest() for part in parts]
        return []


class MemoryCache:
    """The memories of the drives that were asked for last: one where drives are evaluated one after another.

    Attributes:
        tilt_told: whether their views are those of the camera as it truly leaned at each target.
    """

    def __init__(self, make: Callable[[str], DriveMemories], room: int = 1, tilt_told: bool = False) -> None:
        self._make, self._room, self.tilt_told = make, room, tilt_told
        self._kept: dict[str, DriveMemories] = {}

    def of(self, name: str) -> DriveMemories:
        """Return the memories of drive ``name``."""
        if name not in self._kept:
            if len(self._kept) >= self._room:  # let go of the oldest first
                del self._kept[next(iter(self._kept))]
            self._kept[name] = self._make(name)
        return self._kept[name]


def composed_model(stack: NavStack, experts: ExpertsSettings, name: str) -> DiffusionWorldModel:
    """Return the model of a stack that looks at ``experts``; raise DataError of ``name`` where one cannot work."""
    unfit = {own: why for own, why in stack.episode.diagnostics.items() if own in experts.use}
    if unfit:
        reasons = "; ".join(f"the {own} expert cannot work: {why}" for own, why in unfit.items())
        raise DataError(f"{name}: {reasons}")
    found, warnings = stack.episode.model(experts)
    model = cast(DiffusionWorldModel, found)
    likelihood = {SPATIAL} if experts.likelihood.use else set()  # which is no expert
    if any(own not in model.experts for own in {*experts.use} - likelihood):
        raise DataError(f"{name}: {'; '.join(warnings)}")
    return model


def supported(model: DiffusionWorldModel) -> list[str]:
    """Return the memory experts that a model can have."""
    return [name for name in MEMORY_EXPERTS if name in model.supported_experts]


def experts_of(row: ComposedRow, model: DiffusionWorldModel, older_frames: int) -> ExpertsSettings:
    """Return what ``row`` looks at: its experts, at its weights.

    Every row is told the same past, ``older_frames`` before the context included (where the model looks at views the
    short-term expert is there with weight 0), so that rows differ by their experts alone.
    """
    weights, told = row.counting, supported(model)
    return ExpertsSettings(
        use=tuple(name for name in MEMORY_EXPERTS if name in weights or (name == "short_term" and name in told)),
        mode=row.mode,
        base=weights.get("base", 0.0),
        short_term=weights.get("short_term", 0.0),
        long_term=weights.get("long_term", 0.0),
        spatial=weights.get("spatial", 0.0),
        older_frames=older_frames,
    )


def _keeping_a_cloud(settings: NavigationSettings, model: DiffusionWorldModel) -> NavigationSettings:
    """Return settings of a robot that keeps a cloud, which is a reference of every table, whatever its model looks at.

    Where no network looks at it, it can enter as a likelihood alone.
    """
    return settings if SPATIAL in supported(model) else with_likelihood(settings)


def with_likelihood(settings: NavigationSettings) -> NavigationSettings:
    """Return settings of a robot whose cloud may correct what its experts say."""
    experts = settings.experts
    return replace(settings, experts=replace(experts, likelihood=replace(experts.likelihood, use=True)))


def _read_adapter(path: Path, key: str) -> dict[str, torch.Tensor] | None:
    """Return the tensors of an adapter with this key; None where there is none, or a damaged file."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("key") != key:
                return None
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
    except (SafetensorError, OSError):
        return None


def _slice(frames: range) -> slice:
    return slice(frames.start, frames.stop)
