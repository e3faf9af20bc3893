"""The spatial memory of one robot: filled here, or by another process whose store is followed."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from come_nav.core.types import CameraIntrinsics, Frame
from come_nav.localisation.image_difference import ImageDifference
from come_nav.localisation.relocalisation_settings import RelocalisationSettings
from come_nav.memory.short_term import Remembered
from come_nav.memory.spatial.cloud import MetricDepth, SpatialMemory
from come_nav.memory.spatial.latent.features import LatentFeatures
from come_nav.memory.spatial.latent.views import RememberedLatents
from come_nav.memory.spatial.lifting import model_camera
from come_nav.memory.spatial.remembered_views import RememberedViews
from come_nav.memory.spatial.settings import LATENT, SpatialSettings
from come_nav.memory.spatial.shared_cloud import SharedCloud
from come_nav.memory.store.store import MemoryStore
from come_nav.world_model.images import camera_of_frame, cells_touched, rgb_from_images
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.reprojection import RenderedView

SpaceViews = RememberedViews | RememberedLatents


class RememberedSpace:
    """A cloud of points, and what it shows to the robot's camera.

    Attributes:
        cloud: the points.
        views: what shows them to the robot's camera; None before a frame with a calibration has come.
        shared: where the cloud comes from, None where it is filled here.
    """

    def __init__(self, model: DiffusionWorldModel, settings: SpatialSettings, estimate_depth: bool, store: str) -> None:
        """Begin with nothing, or with what ``store`` (a folder; empty = fill the cloud here) holds."""
        self._model, self._estimate_depth = model, estimate_depth
        self._taken: Remembered | None = None  # its latents are known already
        self.cloud = space_of(model, settings, self._latents_of)
        self.views: SpaceViews | None = None
        self.shared = SharedCloud(MemoryStore(Path(store).expanduser()), self.cloud) if store else None
        if self.shared is not None:
            self.shared.poll()

    @property
    def diagnosis(self) -> str | None:
        """Why nothing can be looked at now, or None."""
        if self.shared is not None and self.shared.diagnosis is not None:
            return self.shared.diagnosis
        if len(self.cloud):
            return None if self.views is not None else "no frame with a calibration has come yet"
        if self.shared is not None:
            return f"no cloud is in {self.shared.store.path} yet"
        reasons = ", ".join(f"{name} {count}" for name, count in self.cloud.rejected.most_common(2))
        return f"nothing is remembered yet{f' (frames refused: {reasons})' if reasons else ''}"

    @property
    def is_dense(self) -> bool:
        """Whether its points cover surfaces, so that they tell what is in the way: latents lie a cell apart."""
        return self.cloud.config.features != LATENT

    def observe(self, seen: Remembered) -> None:
        """Take a frame into the cloud, or look whether another process has a newer cloud."""
        views = self._views_through(seen.frame)
        if self.shared is not None:
            self.shared.poll()
            self.views = self.views or views
            return
        self._taken = seen
        self.cloud.observe(self._with_depth(seen.frame), seen.pose_odom_xyyaw)
        if len(self.cloud):
            self.views = self.views or views

    def move(self, corrections_xyyaw: NDArray[np.float64], outside_xyyaw: NDArray[np.float64] | None = None) -> None:
        """Follow the corrections (A, 3) of the robot's anchors; a cloud of another process follows that process's.

        Both processes know where another localiser says that odom lies in its map (3,), so that cloud is in it.
        """
        if self.shared is None:
            self.cloud.move(corrections_xyyaw, outside_xyyaw)
        elif outside_xyyaw is not None:
            self.shared.locate(outside_xyyaw)

    def shown(self, seen: Remembered) -> RenderedView:
        """Return what the cloud shows of a frame that it does not hold yet: nothing where the camera is not known."""
        views = self._views_through(seen.frame)
        if views is None:
            blank = torch.zeros(1, self._model.image_size, self._model.image_size)
            return RenderedView(blank.expand(3, -1, -1)[None], blank.bool(), blank)
        poses = torch.from_numpy(seen.pose_odom_xyyaw)[None]
        return RenderedView(*views.views(poses, self._model.image_size))

    def difference_to(self, image: Tensor, search: RelocalisationSettings, rough: bool) -> ImageDifference | None:
        """Return what compares remembered views with an image (3, S, S); None where nothing is remembered."""
        if self.views is None or not len(self.cloud):
            return None
        how = (math.gcd(search.rough_px, self._model.image_size), search.rough_m) if rough else (0, 0.0)
        return ImageDifference(self.views, self._model.encode, image, search.unknown_weight, *how)

    def reset(self) -> None:
        """Forget a cloud that is filled here; one of another process is that process's to forget."""
        if self.shared is None:
            self.cloud.clear()

    def _views_through(self, frame: Frame) -> SpaceViews | None:
        """Return what shows the cloud to the camera of ``frame``; None without a calibration."""
        camera, extrinsics = frame.intrinsics, frame.T_base_camera
        if camera is None or extrinsics is None:
            return None
        return views_of(self._model, self.cloud, camera, extrinsics)

    def _latents_of(self, frame: Frame) -> Tensor:
        """Return the latents (C, h, w) of a frame: those that the short-term memory made where it did."""
        taken = self._taken
        if taken is not None and taken.features is not None and taken.stamp_s == frame.stamp_s:
            return taken.features.float().cpu()
        return latents_of(self._model, frame)

    def _with_depth(self, frame: Frame) -> Frame:
        """Return the frame; as the model sees it with its own estimate where there is no depth and that is wanted."""
        model, wanted = self._model, frame.depth_m is None and self._estimate_depth
        if not wanted or model.depth is None or frame.intrinsics is None:
            return frame
        image = model.images_from_rgb([frame.rgb])
        camera = model_camera(frame.intrinsics, model.image_size, model.images.aspect)
        seen_by = camera_of_frame(frame.intrinsics, model.images.aspect)
        depth_m = model.estimate_depth_m(image, seen_by)[0].float().cpu().numpy()
        moving = None if frame.moving is None else cells_touched(frame.moving, model.image_size, model.images.aspect)
        return Frame(frame.stamp_s, rgb_from_images(image)[0], depth_m, camera, frame.T_base_camera, moving=moving)


def space_of(
    model: DiffusionWorldModel,
    settings: SpatialSettings,
    encode: Callable[[Frame], Tensor] | None = None,
    depth_source: MetricDepth | None = None,
) -> SpatialMemory:
    """Return an empty spatial memory of colours, or of the model's latents, as ``settings`` want it.

    ``encode`` tells the latents (C, h, w) of a frame; the model does by default. ``depth_source`` is that of
    :class:`SpatialMemory`.
    """
    if settings.features != LATENT:
        return SpatialMemory(settings, depth_source=depth_source)
    channels, aspect = model.autoencoder.settings.latent_channels, model.images.aspect
    told = encode or (lambda frame: latents_of(model, frame))
    latent = settings.latent
    return SpatialMemory(settings, LatentFeatures(told, channels, aspect, latent.depth, latent.lift), depth_source)


def latents_of(model: DiffusionWorldModel, frame: Frame) -> Tensor:
    """Return the scaled latents (C, h, w) of what the model sees of a frame."""
    return model.encode(model.images_from_rgb([frame.rgb]))[0].float().cpu()


def views_of(
    model: DiffusionWorldModel, cloud: SpatialMemory, camera: CameraIntrinsics, T_base_camera: NDArray[np.float64]
) -> SpaceViews:
    """Return what shows a spatial memory to the model's camera on the robot."""
    aspect = model.images.aspect
    if cloud.config.features != LATENT:
        return RememberedViews(cloud, camera, T_base_camera, aspect)
    latent_size = model.autoencoder.settings.latent_size
    return RememberedLatents(cloud, camera, T_base_camera, model.decode, latent_size, aspect)
