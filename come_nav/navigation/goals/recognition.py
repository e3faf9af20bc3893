"""Where memory says that a goal's image was taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.types import ImageCamera
from come_nav.localisation.image_difference import latent_difference
from come_nav.localisation.relocalisation import poses_ahead
from come_nav.navigation.goals.places import Places
from come_nav.navigation.settings import RecognitionSettings
from come_nav.navigation.stack import NavStack

FoundBy = Literal["features", "remembered views", "nothing"]


@dataclass(frozen=True)
class Recognised:
    """Where an image was taken.

    Attributes:
        pose_odom_xyyaw: (3,); None where the image is not recognised.
        rough_xyyaw: (3,) place from where to look for it; None where there is none.
        guess_odom_xyyaw: (3,) the best guess, recognised or not; None without any.
        found_by: what told it.
        score: of the guess: by features the probability that it is right, by remembered views its difference (0 is
            equal); NaN without a guess.
    """

    pose_odom_xyyaw: NDArray[np.float64] | None = None
    rough_xyyaw: NDArray[np.float64] | None = None
    guess_odom_xyyaw: NDArray[np.float64] | None = None
    found_by: FoundBy = "nothing"
    score: float = float("nan")

    @property
    def message(self) -> str:
        """Return it in one line."""
        if self.guess_odom_xyyaw is None:
            return "the image is not recognised; nothing that is remembered resembles it"
        known = "the image was taken" if self.pose_odom_xyyaw is not None else "the image is not recognised; best guess"
        (x, y, yaw), by_features = self.guess_odom_xyyaw, self.found_by == "features"
        score = f"{self.score:.0%} sure" if by_features else f"difference {self.score:.2f}"
        return f"{known} at ({x:.2f}, {y:.2f}) m, {yaw:.2f} rad: {score}, by {self.found_by}"


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

    def difference(self, latents: torch.Tensor | None) -> float | None:
        """Return how the present view differs from an image's ``latents``: 1 - the cosine; None without either."""
        newest = self._stack.memory.newest
        if newest is None or newest.features is None or latents is None:
            return None
        return float(latent_difference(newest.features.float()[None], latents)[0])

    def find(
        self,
        image_rgb: NDArray[np.uint8],
        latents: torch.Tensor,
        overtaken: Callable[[], bool],
        camera: ImageCamera = None,
    ) -> Recognised:
        """Return where an image was taken, as far as memory knows; a search that was ``overtaken`` ends early.

        Its features tell where it has enough of them and something was seen; else remembered views are compared, as if
        the robot's own camera had taken it. ``camera`` is the image's, as in a goal.
        """
        starts, differences = self._similar(latents)
        by_features = self._stack.goals.has_features(image_rgb)
        if not len(starts) and not by_features:
            return Recognised()
        found = self._by_features(image_rgb, camera) if by_features else self._by_views(image_rgb, starts, overtaken)
        if found.pose_odom_xyyaw is not None or not len(starts):
            return found
        present = self.difference(latents)
        similar = present is None or differences[0] < self.settings.trust * present
        return replace(found, rough_xyyaw=starts[0] if similar else None)

    def again(
        self,
        image_rgb: NDArray[np.uint8],
        latents: torch.Tensor,
        overtaken: Callable[[], bool],
        camera: ImageCamera = None,
    ) -> Recognised:
        """Return where an image was taken once the robot has seen more; no rough place is told."""
        if self._stack.goals.has_features(image_rgb):
            return self._by_features(image_rgb, camera)
        return self._by_views(image_rgb, self._similar(latents)[0], overtaken)

    def _similar(self, latents: torch.Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return poses (K, 3) whose views are most like an image's ``latents``, and how they differ (K,)."""
        return self._places.most_similar(latents, self._stack.settings.relocalisation.starts)

    def _by_features(self, image_rgb: NDArray[np.uint8], camera: ImageCamera) -> Recognised:
        sighting = self._stack.goals.sighting(image_rgb, camera)
        if sighting is None:
            return self._told(Recognised(found_by="features"))
        guess = sighting.pose_odom_xyyaw
        pose = guess if sighting.certain else None
        return self._told(Recognised(pose, None, guess, "features", sighting.confidence))

    def _by_views(
        self, image_rgb: NDArray[np.uint8], similar_odom_xyyaw: NDArray[np.float64], overtaken: Callable[[], bool]
    ) -> Recognised:
        """Look from the robot's own place and from similar ones (K, 3) on."""
        newest, starts = self._stack.memory.newest, similar_odom_xyyaw
        if newest is not None:
            starts = np.vstack([poses_ahead(newest.pose_odom_xyyaw), starts])
        sighting = self._stack.relocalise(image_rgb, starts, overtaken)
        if sighting is None:
            return Recognised()
        guess = sighting.pose_odom_xyyaw
        pose = guess if sighting.difference <= self.settings.recognised else None
        return self._told(Recognised(pose, None, guess, "remembered views", sighting.difference))

    def _told(self, found: Recognised) -> Recognised:
        self._log(found.message)
        return found


def encoded(stack: NavStack, images: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
    """Return the latents (B, C, h, w) of camera images."""
    return stack.model.encode(stack.model.images_from_rgb(images))
