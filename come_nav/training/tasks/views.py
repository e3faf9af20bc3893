"""Reprojected views for training batches: the same code that a plan runs, over a batch of windows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from tqdm import tqdm

from come_nav.core.errors import DataError
from come_nav.core.geometry.point_rendering import level_camera
from come_nav.training.data.bank import Encode, LatentBank, WindowBatch, step_generator
from come_nav.world_model.depth import DepthEstimator
from come_nav.world_model.images import ImageSettings, images_from_bytes
from come_nav.world_model.reprojection import RenderedView, ReprojectionSettings, context_points, points_view

FRAMES_PER_CALL = 128


@dataclass(frozen=True)
class ViewMaker:
    """Makes what the context frames of a batch show from each goal.

    Attributes:
        encode: images (B, 3, S, S) in [-1, 1] to latents.
        reprojection: how context frames become points.
        images: the camera that stands in where a recording does not tell its own.
    """

    encode: Encode
    reprojection: ReprojectionSettings
    images: ImageSettings

    @torch.no_grad()
    def __call__(self, batch: WindowBatch, with_memory: torch.Tensor | None = None) -> torch.Tensor:
        """Return views (B * G, C + 2, h, w), goals of one context in a row.

        Where ``with_memory`` (B * G,) bool is set, the memory fills in what the context does not show.
        """
        if batch.context_images is None or batch.context_depth_m is None:
            raise DataError("reprojected views need a bank with images and depth; delete the run's banks and run again")
        context_images = images_from_bytes(batch.context_images)
        contexts, goals = batch.actions_xyyaw.shape[:2]
        camera = self.images.camera().to(context_images).expand(contexts, -1)
        if batch.camera is not None:
            camera = torch.where(torch.isfinite(batch.camera), batch.camera.to(context_images), camera)
        extrinsics = level_camera(self.images.camera_height_m).to(context_images)
        points = context_points(
            context_images,
            batch.context_depth_m.float(),
            batch.context_poses_xyyaw,
            camera,
            extrinsics,
            self.reprojection,
        )
        actions, size = batch.actions_xyyaw.flatten(0, 1), context_images.shape[-1]
        cameras = camera.repeat_interleave(goals, 0)
        layer = points_view(points.repeated(goals), cameras, extrinsics, actions, size, self.reprojection)
        if with_memory is not None and batch.goal_memory is not None:
            memory = RenderedView.unpacked(batch.goal_memory.flatten(0, 1).to(context_images.device))
            layer = layer.over(memory.only(with_memory.to(context_images.device)[:, None, None]))
        return layer.encoded(self.encode)


@torch.no_grad()
def with_estimated_depth(
    bank: LatentBank, estimator: DepthEstimator, device: str, progress: bool = True, images: ImageSettings | None = None
) -> LatentBank:
    """Return the bank with the estimator's depth in place of measured depth: what a camera without depth has.

    ``images`` tells the camera that the estimator learned with, the built-in one by default.
    """
    images = images or ImageSettings()
    if bank.images is None:
        raise DataError("the bank keeps no images to estimate depth from")
    estimator = estimator.eval().to(device)
    parts = []
    # no bar for one drive of many: their maker shows the progress
    quiet = not progress or len(bank.images) <= 8 * FRAMES_PER_CALL
    for chunk in tqdm(bank.images.split(FRAMES_PER_CALL), desc="estimate depth", unit="batch", disable=quiet):
        parts.append(estimator.depth_m(images_from_bytes(chunk.to(device))).cpu())
    depth_m = torch.cat(parts) * focal_ratios(bank, images)[:, None, None]
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
    for plans multiply what it says by the ratio of theirs.
    """

    def __init__(
        self, bank: LatentBank, batch_size: int, seed: int, steps: range, ratios: torch.Tensor | None = None
    ) -> None:
        super().__init__()
        self._ratios = torch.ones(len(bank)) if ratios is None else ratios
        self.bank, self.batch_size, self.seed, self.steps = bank, batch_size, seed, steps

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        if self.bank.images is None or self.bank.depth_m is None:
            raise DataError("the recordings hold no measured depth")
        for step in self.steps:
            rows = torch.randint(len(self.bank), (self.batch_size,), generator=step_generator(self.seed, 20, step))
            depth_m = torch.nan_to_num(self.bank.depth_m[rows].float()) / self._ratios[rows, None, None]
            yield images_from_bytes(self.bank.images[rows]), depth_m
