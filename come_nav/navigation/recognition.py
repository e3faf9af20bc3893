"""Where memory says that a goal's image was taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.localisation.image_difference import latent_difference
from come_nav.localisation.relocalisation import poses_ahead
from come_nav.navigation.places import Places
from come_nav.navigation.settings import RecognitionSettings
from come_nav.navigation.stack import NavStack


@dataclass(frozen=True)
class Recognised:
    """Where an image was taken: ``pose_odom_xyyaw`` (3,), or a place ``rough_xyyaw`` (3,) from where to look for it."""

    pose_odom_xyyaw: NDArray[np.float64] | None = None
    rough_xyyaw: NDArray[np.float64] | None = None


class Recognition:
    """Compares an image with key frames and with what the spatial memory shows."""

    def __init__(
        self, stack: NavStack, places: Places, settings: RecognitionSettings, log: Callable[[str], object]
    ) -> None:
        """Take what remembers; ``log`` is told where each image was found."""
        self._stack, self._places, self.settings, self._log = stack, places, settings, log

    def latents(self, image_rgb: NDArray[np.uint8]) -> torch.Tensor:
        """Return the latents (C, h, w) of an image."""
        return encoded(self._stack, [image_rgb])[0].float()

    def difference(self, latents: torch.Tensor) -> float | None:
        """Return how the present view differs from an image's ``latents``: 1 - the cosine; None without a view."""
        newest = self._stack.memory.newest
        if newest is None or newest.features is None:
            return None
        return float(latent_difference(newest.features.float()[None], latents)[0])

    def find(self, image_rgb: NDArray[np.uint8], latents: torch.Tensor, overtaken: Callable[[], bool]) -> Recognised:
        """Return where an image was taken, as far as memory knows; a search that was ``overtaken`` ends early."""
        starts, differences = self._places.most_similar(latents, self._stack.settings.relocalisation.starts)
        if not len(starts):
            return Recognised()
        pose = self._sighted(image_rgb, starts, overtaken)
        if pose is not None:
            return Recognised(pose)
        present = self.difference(latents)
        similar = present is None or differences[0] < self.settings.trust * present
        return Recognised(rough_xyyaw=starts[0] if similar else None)

    def pose(
        self, image_rgb: NDArray[np.uint8], latents: torch.Tensor, overtaken: Callable[[], bool]
    ) -> NDArray[np.float64] | None:
        """Return the pose (3,) that an image was taken from, or None where it is not recognised."""
        starts, _ = self._places.most_similar(latents, self._stack.settings.relocalisation.starts)
        return self._sighted(image_rgb, starts, overtaken)

    def _sighted(
        self, image_rgb: NDArray[np.uint8], similar_odom_xyyaw: NDArray[np.float64], overtaken: Callable[[], bool]
    ) -> NDArray[np.float64] | None:
        """Look from the robot's own place and from similar ones (K, 3) on."""
        newest, starts = self._stack.memory.newest, similar_odom_xyyaw
        if newest is not None:
            starts = np.vstack([poses_ahead(newest.pose_odom_xyyaw), starts])
        sighting = self._stack.relocalise(image_rgb, starts, overtaken)
        if sighting is None:
            return None
        known, (x, y, yaw) = sighting.difference <= self.settings.recognised, sighting.pose_odom_xyyaw
        text = "the image was taken" if known else "the image is not known; most like it is the view"
        self._log(f"{text} at ({x:.2f}, {y:.2f}) m, {yaw:.2f} rad: difference {sighting.difference:.2f}")
        return sighting.pose_odom_xyyaw if known else None


def encoded(stack: NavStack, images: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
    """Return the latents (B, C, h, w) of camera images."""
    return stack.model.encode(stack.model.images_from_rgb(images))
