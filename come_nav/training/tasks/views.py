"""Reprojected views for training batches: the same code that a plan runs, over a batch of windows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from tqdm import tqdm

from come_nav.core.errors import DataError
from come_nav.core.geometry.point_rendering import level_camera
from come_nav.core.types import ContextViews, PointSet
from come_nav.experts.optional_inputs import camera_values
from come_nav.training.data.bank import Encode, LatentBank, WindowBatch, step_generator
from come_nav.training.data.windows import PAST_STRIDE, PastFrames
from come_nav.world_model.depth import DepthEstimator
from come_nav.world_model.depth_of_frames import completed_depth
from come_nav.world_model.images import ImageSettings, images_from_bytes
from come_nav.world_model.reprojection import (
    PixelFacts,
    RenderedView,
    ReprojectionSettings,
    context_points,
    points_before,
    points_view,
)

FRAMES_PER_CALL, FRAMES_OF_CONTEXT = 128, 4  # an estimate is scaled to what was measured in so many


@dataclass(frozen=True)
class ViewMaker:
    """Makes what the context frames of a batch show from each goal.

    Attributes:
        encode: images (B, 3, S, S) in [-1, 1] to latents.
        reprojection: how context frames become points.
        images: the camera that stands in where a recording does not tell its own.
        rate_hz: frames per second, for ages.
    """

    encode: Encode
    reprojection: ReprojectionSettings
    images: ImageSettings
    rate_hz: float = 4.0

    @torch.no_grad()
    def __call__(self, batch: WindowBatch, with_memory: torch.Tensor | None = None) -> torch.Tensor:
        """Return views (B * G, C + 2, h, w), goals of one context in a row.

        Where ``with_memory`` (B * G,) bool is set, the memory fills in what the context does not show.
        """
        with _full_precision(batch):
            scene = self._scene(batch, told=False)
            layer = self._layer(scene, _context_points(batch, scene, self.reprojection, self.rate_hz))
            if with_memory is not None and batch.goal_memory is not None:
                memory = RenderedView.unpacked(batch.goal_memory.flatten(0, 1).to(scene.images.device))
                layer = layer.over(memory.only(with_memory.to(scene.images.device)[:, None, None]))
            return layer.encoded(self.encode)

    @torch.no_grad()
    def apart(self, batch: WindowBatch, shown: torch.Tensor, camera: torch.Tensor) -> ContextViews:
        """Return what each source shows by itself, in the rows (B * G, 3) bool of ``shown``, and the cameras.

        Rows that do not look at a longer past are not rendered for it. ``camera`` (B,) bool says whose goals are told
        the camera.
        """
        with _full_precision(batch):
            scene, goals = self._scene(batch, told=True), batch.actions_xyyaw.shape[1]
            view = self._layer(scene, _context_points(batch, scene, self.reprojection, self.rate_hz))
            own = view.encoded_apart(self.encode)
            longer = self._longer(batch, scene, shown[:, 1], own)
            memory = None
            if batch.goal_memory is not None:
                bytes_of = batch.goal_memory.flatten(0, 1).to(scene.images.device)
                memory = RenderedView.unpacked(bytes_of).encoded_apart(self.encode)
            values = camera_values(scene.camera, scene.extrinsics[:, -1])
            values = torch.where(camera[:, None].to(values.device), values, torch.nan).repeat_interleave(goals, 0)
            return ContextViews(own, longer, memory, shown, camera=values)

    def _longer(
        self, batch: WindowBatch, scene: _Scene, wanted: torch.Tensor, like: torch.Tensor
    ) -> torch.Tensor | None:
        """Return the view of the frames before the context in the rows ``wanted`` (B * G,), zero in the others."""
        past, goals = batch.older, batch.actions_xyyaw.shape[1]
        if past is None or past.images is None or past.depth_m is None:
            return None
        rows = wanted.unflatten(0, (-1, goals)).any(1).nonzero()[:, 0]
        views = torch.zeros_like(like)
        if len(rows) == 0:
            return views
        past = past.mapped(lambda own: own[rows.to(own.device)])
        part = _Scene(scene.images[rows], scene.camera[rows], scene.extrinsics[rows], scene.actions[rows], True)
        layer = self._layer(part, _past_points(past, part, self.reprojection, self.rate_hz))
        index = (rows[:, None] * goals + torch.arange(goals, device=rows.device)).flatten()
        views[index] = layer.encoded_apart(self.encode)
        return views

    def _scene(self, batch: WindowBatch, told: bool) -> _Scene:
        if batch.context_images is None or batch.context_depth_m is None:
            raise DataError("reprojected views need a bank with images and depth; delete the run's banks and run again")
        images = images_from_bytes(batch.context_images)
        contexts, frames = images.shape[:2]
        camera = self.images.camera().to(images).expand(contexts, -1)
        if batch.camera is not None:
            camera = torch.where(torch.isfinite(batch.camera), batch.camera.to(images), camera)
        extrinsics = level_camera(self.images.camera_height_m).to(images)[:, None].expand(-1, frames, -1, -1)
        if told:
            extrinsics = extrinsics.expand(contexts, -1, -1, -1)
        if batch.T_base_camera is not None:
            extrinsics = torch.where(torch.isfinite(batch.T_base_camera), batch.T_base_camera.to(images), extrinsics)
        return _Scene(images, camera, extrinsics, batch.actions_xyyaw, told)

    def _layer(self, scene: _Scene, points: PointSet) -> RenderedView:
        """Return what ``points`` show from the goals of each context."""
        goals, size = scene.actions.shape[1], scene.images.shape[-1]
        cameras = scene.camera.repeat_interleave(goals, 0)
        extrinsics = scene.extrinsics[:, -1]  # one row where all are mounted alike
        extrinsics = extrinsics if len(extrinsics) == 1 else extrinsics.repeat_interleave(goals, 0)
        actions = scene.actions.flatten(0, 1)
        return points_view(points.repeated(goals), cameras, extrinsics, actions, size, self.reprojection)


@dataclass(frozen=True)
class _Scene:
    """Context images (B, T, 3, S, S), cameras (B, 4), extrinsics (B or 1, T, 4, 4), goals (B, G, 3); facts or none."""

    images: torch.Tensor
    camera: torch.Tensor
    extrinsics: torch.Tensor
    actions: torch.Tensor
    told: bool


def _context_points(batch: WindowBatch, scene: _Scene, settings: ReprojectionSettings, rate_hz: float) -> PointSet:
    """Return the points of the context frames of a batch."""
    facts = None
    if scene.told:
        facts = PixelFacts(-batch.frame_offsets / rate_hz, batch.context_measured)
    if batch.context_depth_m is None:
        raise DataError("reprojected views need a bank with depth; delete the run's banks and run again")
    depth_m, poses = batch.context_depth_m.float(), batch.context_poses_xyyaw
    return context_points(scene.images, depth_m, poses, scene.camera, scene.extrinsics, settings, facts)


def _past_points(past: PastFrames, scene: _Scene, settings: ReprojectionSettings, rate_hz: float) -> PointSet:
    """Return the points of the frames before the context."""
    if past.images is None or past.depth_m is None:
        raise DataError("views of a longer past need a bank with images and depth")
    images, depth_m = images_from_bytes(past.images), past.depth_m.float()
    depth_m = torch.where(past.known[..., None, None], depth_m, torch.nan)
    extrinsics, newest = scene.extrinsics[:, -1:].expand(-1, images.shape[1], -1, -1), scene.extrinsics[:, -1]
    if past.T_base_camera is not None:
        extrinsics = torch.where(torch.isfinite(past.T_base_camera), past.T_base_camera.to(extrinsics), extrinsics)
    # the pixels that are taken lie half a pixel up and left of the middles of those that a camera of half the size has
    shift = 0.5 * (PAST_STRIDE - 1) / scene.images.shape[-1]
    camera = scene.camera + scene.camera.new_tensor([0.0, 0.0, shift, shift])
    facts = PixelFacts(-past.frame_offsets / rate_hz, past.measured)
    return points_before(images, depth_m, past.poses_xyyaw, camera, newest, extrinsics, settings, facts)


def _full_precision(batch: WindowBatch) -> AbstractContextManager[Any]:
    """Return a context without autocast: bfloat16 has steps of 3 cm at 4 to 8 m."""
    return torch.autocast(batch.actions_xyyaw.device.type, enabled=False)


@torch.no_grad()
def with_estimated_depth(
    bank: LatentBank, estimator: DepthEstimator, device: str, progress: bool = True, images: ImageSettings | None = None
) -> LatentBank:
    """Return the bank with the estimator's depth in place of measured depth: what a camera without depth has.

    A bank that tells where depth was ``measured`` keeps it there; the rest is the estimate, scaled to what was measured
    in every four frames, as contexts are when plans are made. ``images`` tells the camera that the estimator learned
    with, the built-in one by default.
    """
    images = images or ImageSettings()
    if bank.images is None:
        raise DataError("the bank keeps no images to estimate depth from")
    estimator = estimator.eval().to(device)
    parts: list[torch.Tensor] = []
    # no bar for one drive of many: their maker shows the progress
    quiet = not progress or len(bank.images) <= 8 * FRAMES_PER_CALL
    for chunk in tqdm(bank.images.split(FRAMES_PER_CALL), desc="estimate depth", unit="batch", disable=quiet):
        rows = slice(sum(map(len, parts)), sum(map(len, parts)) + len(chunk))
        camera = None
        if bank.cameras is not None and bank.camera_index is not None:
            camera = bank.cameras[bank.camera_index[rows]].to(device)
        parts.append(estimator.depth_m(images_from_bytes(chunk.to(device)), camera).cpu())
    depth_m = torch.cat(parts) * focal_ratios(bank, images)[:, None, None]
    if bank.measured is not None and bank.depth_m is not None:
        reading = torch.where(bank.measured > 0, bank.depth_m.float(), 0.0).split(FRAMES_OF_CONTEXT)
        pairs = zip(reading, depth_m.split(FRAMES_OF_CONTEXT), strict=True)
        depth_m = torch.cat([completed_depth(*pair) for pair in pairs])
    return replace(bank, depth_m=depth_m.half(), branch_images=None)


def focal_ratios(bank: LatentBank, images: ImageSettings) -> torch.Tensor:
    """Return the focal length of each frame's camera over that of ``images`` (F,), as plans scale estimated depth.

    1 where a camera is not known, or the estimator learned with various ones.
    """
    if bank.cameras is None or bank.camera_index is None or not images.horizontal_fov_deg:
        return torch.ones(len(bank))
    ratios = bank.cameras[:, 0] / images.camera()[0, 0]
    return torch.nan_to_num(ratios, nan=1.0)[bank.camera_index]


class DepthStream(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
    """Batches of images (B, 3, S, S) and measured z-depth (B, S, S) of a bank's frames; the same for equal seeds.

    Depth is divided by ``ratios`` (F,), see :func:`focal_ratios`: the estimator goes on to see as its own camera does,
    for plans multiply what it says by the ratio of theirs. ``with_cameras`` adds cameras (B, 4), where they are known.
    """

    def __init__(
        self,
        bank: LatentBank,
        batch_size: int,
        seed: int,
        steps: range,
        ratios: torch.Tensor | None = None,
        with_cameras: bool = False,
    ) -> None:
        super().__init__()
        self.with_cameras = with_cameras
        self._ratios = torch.ones(len(bank)) if ratios is None else ratios
        self.bank, self.batch_size, self.seed, self.steps = bank, batch_size, seed, steps

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        if self.bank.images is None or self.bank.depth_m is None:
            raise DataError("the recordings hold no measured depth")
        for step in self.steps:
            rows = torch.randint(len(self.bank), (self.batch_size,), generator=step_generator(self.seed, 20, step))
            depth_m = torch.nan_to_num(self.bank.depth_m[rows].float()) / self._ratios[rows, None, None]
            seen = images_from_bytes(self.bank.images[rows]), depth_m
            cameras, which = self.bank.cameras, self.bank.camera_index
            if self.with_cameras and cameras is not None and which is not None:
                yield (*seen, cameras[which[rows]])
            else:
                yield seen
