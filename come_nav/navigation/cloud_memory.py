"""The spatial memory of an episode: a cloud of points, and what it shows to the robot's camera."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from come_nav.core.types import Frame
from come_nav.localisation.image_difference import ImageDifference
from come_nav.localisation.relocalisation import RelocalisationSettings
from come_nav.memory.short_term import Remembered
from come_nav.memory.spatial.cloud import InsertResult, SpatialMemory, SpatialSettings
from come_nav.memory.spatial.lifting import model_camera
from come_nav.memory.spatial.remembered_views import RememberedViews
from come_nav.world_model.images import rgb_from_images
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.reprojection import RenderedView


class CloudMemory:
    """A cloud that takes the frames of an episode.

    Attributes:
        points: the cloud.
        views: what shows it to the robot's camera; None before it has taken a frame.
    """

    def __init__(self, model: DiffusionWorldModel, settings: SpatialSettings) -> None:
        """Take the model that looks at the views."""
        self._model = model
        self.points = SpatialMemory(settings)
        self.views: RememberedViews | None = None

    @property
    def diagnosis(self) -> str | None:
        """Why nothing can be shown now, or None."""
        if not len(self.points):
            reasons = ", ".join(f"{name} {count}" for name, count in self.points.rejected.most_common(2))
            return f"nothing is remembered yet{f' (frames refused: {reasons})' if reasons else ''}"
        return "no frame with a calibration has come yet" if self.views is None else None

    def observe(self, seen: Remembered, estimate_depth: bool) -> None:
        """Take a frame; with the model's own depth where it has none and ``estimate_depth``."""
        views = self._views_through(seen.frame)
        frame = self._with_depth(seen.frame) if estimate_depth else seen.frame
        noted = self.points.observe(frame, seen.pose_odom_xyyaw)
        if noted is InsertResult.KEPT and self.views is None:
            self.views = views

    def shown(self, seen: Remembered) -> RenderedView:
        """Return what the cloud shows of the view of a frame; an empty layer where its camera is not known."""
        views = self._views_through(seen.frame)
        if views is None:
            blank = torch.zeros(1, self._model.image_size, self._model.image_size)
            return RenderedView(blank.expand(3, -1, -1)[None], blank.bool(), blank)
        poses = torch.from_numpy(seen.pose_odom_xyyaw).float()[None]
        return RenderedView(*views.views(poses, self._model.image_size))

    def difference_to(self, image: Tensor, search: RelocalisationSettings, rough: bool) -> ImageDifference | None:
        """Return what compares remembered views with an image (3, S, S); None where there is nothing to show."""
        if self.views is None or not len(self.points):
            return None
        how = (math.gcd(search.rough_px, self._model.image_size), search.rough_m) if rough else (0, 0.0)
        return ImageDifference(self.views, self._model.encode, image, search.unknown_weight, *how)

    def _views_through(self, frame: Frame) -> RememberedViews | None:
        """Return what shows the cloud to the camera of ``frame``; None without a calibration."""
        camera, extrinsics = frame.intrinsics, frame.T_base_camera
        if camera is None or extrinsics is None:
            return None
        return RememberedViews(self.points, camera, extrinsics, self._model.images.aspect)

    def _with_depth(self, frame: Frame) -> Frame:
        """Return the frame; as the model sees it, with its own estimate, where there is no depth."""
        model = self._model
        if frame.depth_m is not None or model.depth is None or frame.intrinsics is None:
            return frame
        image = model.images_from_rgb([frame.rgb])
        camera = model_camera(frame.intrinsics, model.image_size, model.images.aspect)
        depth_m = model.estimate_depth_m(image)[0].float().cpu().numpy()
        return Frame(frame.stamp_s, rgb_from_images(image)[0], depth_m, camera, frame.T_base_camera)
