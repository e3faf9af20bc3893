"""Memories of each drive, made once and used for all its windows and rows: point cloud, adapter, remembered frames."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from come_nav.core.errors import DataError
from come_nav.core.files import atomic_path
from come_nav.core.geometry import se2
from come_nav.core.settings import to_mapping
from come_nav.evaluation.protocols.memory_windows import MemoryDrive
from come_nav.evaluation.protocols.protocol import extrinsics_over_footprint
from come_nav.evaluation.protocols.results import settings_hash
from come_nav.evaluation.suites.fingerprints import digest
from come_nav.evaluation.suites.memory.compositions import ComposedRow
from come_nav.evaluation.suites.memory.settings import MemorySettings
from come_nav.evaluation.suites.progress import Progress
from come_nav.experts.lora import LongTermExpert, adapted, adapter_metadata
from come_nav.memory.episodic.memory import EpisodicMemory
from come_nav.memory.spatial.building import remember
from come_nav.memory.spatial.cloud import SpatialMemory
from come_nav.memory.spatial.remembered_views import RememberedViews
from come_nav.world_model.episode_loss import EpisodeLoss
from come_nav.world_model.images import camera_of_frame
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.reprojection import RenderedView

YAW_M_PER_RAD = 0.5  # what a turn counts when the nearest remembered frame is looked for
ENCODE_FRAMES = 32


class Memories:
    """What one drive left behind; every part is made when it is first asked for."""

    def __init__(
        self,
        drive: MemoryDrive,
        model: DiffusionWorldModel,
        settings: MemorySettings,
        folder: Path,
        model_name: str,
        progress: Progress,
    ) -> None:
        self.drive, self.model, self.settings, self.folder = drive, model, settings, folder
        self._model_name, self._progress = model_name, progress
        self.poses_xyyaw = torch.from_numpy(np.asarray(drive.recording.poses_xyyaw, float)[_slice(drive.memory)])

    @cached_property
    def views(self) -> RememberedViews:
        """The point cloud of the memory phase, seen through the model's camera."""
        memory = SpatialMemory(self.settings.spatial)
        recording, frames = self.drive.recording, self.drive.memory
        remember(recording, [memory], frames.start, frames.stop)
        if not len(memory):
            raise DataError(f"{self.drive.name}: the spatial memory kept no point; why: {dict(memory.rejected)}")
        assert recording.intrinsics is not None and recording.T_base_camera is not None  # or no point were kept
        return RememberedViews(memory, recording.intrinsics, recording.T_base_camera, self.model.images.aspect)

    @cached_property
    def latents(self) -> torch.Tensor:
        """Latents (M, C, h, w) of the remembered frames."""
        return torch.cat([self.model.encode(images) for images in self._images()])

    @cached_property
    def long_term(self) -> LongTermExpert:
        """The expert with the adapter of this drive, trained or found in the folder."""
        expert = LongTermExpert(self.model.memory_base, self.settings.lora)
        expert.swap(self._adapter())
        return expert

    def composed(self, composed_row: ComposedRow) -> DiffusionWorldModel:
        """Return the model that composes the experts of ``composed_row``; only the memories that it needs are made."""
        weights = composed_row.counting
        remembering = self.model.with_memory(
            spatial=self.views if "spatial" in weights else None,
            long_term=self.long_term if "long_term" in weights else None,
        )
        return remembering.composed(weights, composed_row.mode)

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
        _, known, _ = self.views.views(poses_odom_xyyaw.float(), self.model.image_size, T_base_camera)
        return known.float().flatten(1).mean(dim=1)

    def _images(self) -> list[torch.Tensor]:
        frames, recording = self.drive.memory, self.drive.recording
        starts = range(frames.start, frames.stop, ENCODE_FRAMES)
        parts = [range(start, min(start + ENCODE_FRAMES, frames.stop)) for start in starts]
        return [self.model.images_from_rgb([recording.frame(index).rgb for index in part]) for part in parts]

    def _adapter(self) -> Mapping[str, torch.Tensor]:
        """Return the adapter's tensors: from the folder where it was trained before with these settings."""
        from safetensors import SafetensorError, safe_open
        from safetensors.torch import save_file

        key = settings_hash(
            {
                "model": self._model_name,
                "episodic": to_mapping(self.settings.episodic),
                "lora": to_mapping(self.settings.lora),
                "poses": digest(self.poses_xyyaw.numpy()),
                "drive": [self.drive.name, self.drive.memory.start, self.drive.memory.stop],
            }
        )
        path = self.folder / f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', self.drive.name)}.safetensors"
        if path.is_file():
            try:
                with safe_open(path, "pt") as file:
                    if (file.metadata() or {}).get("key") == key:
                        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
            except (SafetensorError, OSError):  # a damaged file is trained anew
                pass
        tensors = self._train()
        with atomic_path(path) as temporary:
            save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary, {"key": key})
        return tensors

    def _train(self) -> Mapping[str, torch.Tensor]:
        """Train the adapter on the memory phase: as many steps as its frames are worth."""
        model, recording = self.model, self.drive.recording
        settings = replace(self.settings.episodic, context_frames=model.context_frames)
        extrinsics = None if recording.T_base_camera is None else torch.as_tensor(recording.T_base_camera)[None]
        camera = camera_of_frame(recording.intrinsics, model.images.aspect)
        loss = EpisodeLoss(model, camera=camera, T_base_camera=extrinsics)
        network = adapted(model.memory_base, self.settings.lora, torch.Generator().manual_seed(settings.seed))
        metadata = adapter_metadata(model.memory_base, self.settings.lora)
        memory = EpisodicMemory(network, loss, settings, metadata=metadata)
        images = torch.cat(self._images())
        stamps_s = np.asarray(recording.stamps_s, float)[_slice(self.drive.memory)]
        remembered = self._remembered_on_the_way()
        own = extrinsics_over_footprint(recording, self.drive.memory)
        for number, (image, latents, pose) in enumerate(zip(images, self.latents, self.poses_xyyaw, strict=True)):
            kept = loss.frame(image, remembered[number] if remembered else None, None if own is None else own[number])
            memory.observe(latents, pose.float(), float(stamps_s[number]), kept)
        with self._progress(memory.steps_due, f"adapter of {self.drive.name}", "step") as bar:
            while memory.steps_due and (done := memory.train_steps(1, publish=False)):
                bar.add(f"loss {memory.last_loss:.3f}", done)
        memory.publish()
        if memory.newest is None:
            raise DataError(f"{self.drive.name}: no adapter could be trained on its memory phase: {memory.stopped}")
        return memory.newest.tensors

    def _remembered_on_the_way(self) -> list[RenderedView]:
        """Return what the spatial memory showed of every frame before it was added; nothing without depth."""
        recording, frames, model = self.drive.recording, self.drive.memory, self.model
        camera, extrinsics = recording.intrinsics, recording.T_base_camera
        extrinsics = extrinsics_over_footprint(recording, frames)
        if model.depth is None or camera is None or extrinsics is None or extrinsics is None:
            return []
        memory = SpatialMemory(self.settings.spatial)
        source = RememberedViews(memory, camera, extrinsics, model.images.aspect)
        layers = []
        for index, pose, own in zip(frames, self.poses_xyyaw, torch.from_numpy(extrinsics), strict=True):
            layers.append(RenderedView(*source.views(pose.float()[None], model.image_size, own[None])))
            memory.observe(recording.frame(index), recording.T_odom_base[index])
        return layers if len(memory) else []


class MemoryCache:
    """The memories of the drives that were asked for last: one where drives are evaluated one after another."""

    def __init__(self, make: Callable[[str], Memories], room: int = 1) -> None:
        self._make, self._room = make, room
        self._kept: dict[str, Memories] = {}

    def of(self, name: str) -> Memories:
        """Return the memories of drive ``name``."""
        if name not in self._kept:
            if len(self._kept) >= self._room:  # let go of the oldest first
                del self._kept[next(iter(self._kept))]
            self._kept[name] = self._make(name)
        return self._kept[name]


def _slice(frames: range) -> slice:
    return slice(frames.start, frames.stop)
