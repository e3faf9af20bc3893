"""Local features of images: points that are found again from elsewhere, and what they look like.

SIFT (Lowe 2004) with the Hellinger kernel (RootSIFT, Arandjelovic and Zisserman 2012) is the default; ORB (Rublee et
al. 2011) suits small machines; both come from OpenCV. Networks
find others (``learned/``), with weights in a file of the user's own. Descriptors are kept in bytes (RootSIFT
times 512, ORB's own bits), a quarter of what floats take; :meth:`Features.vectors` makes unit vectors of either, so
that everything after this file sees one kind: the dot product of two is their similarity.

Cost on one core at 320 x 240: SIFT 20 to 35 ms on a busy machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_choice, check_range, check_shape
from come_nav.core.errors import ConfigError, ShapeError
from come_nav.localisation.learned.features_file import (
    feature_network,
    found_by_network,
    takes_colour,
    unit_vectors,
)

ROOT_SIFT_SCALE = 512.0
PIXEL_CENTRE = 0.5  # OpenCV's keypoints count from the centre of the first pixel, CameraIntrinsics from its edge
LEARNED_SIZE_PX = 8.0  # of what a network describes: cells of SuperPoint and its like
OF_NETWORKS = ("learned", "disk", "aliked")
KINDS = ("sift", "orb", *OF_NETWORKS)
ORB_SCALE = 1.2  # from one level of its pyramid to the next


@dataclass(frozen=True)
class FeatureSettings:
    """Which features are found.

    Attributes:
        kind: "sift", "orb" for small machines, or what a network finds: "disk" or "aliked" of kornia (extra [learned])
            with the weights in ``file``, "learned" by any network in ``file``.
        file: of a network: TorchScript or ONNX for "learned", published weights for "disk" and "aliked".
        max_count: most features of an image, the strongest first, >= 8.
        contrast: SIFT's threshold; OpenCV's 0.04 suits large photographs, images of 320 x 240 need less, > 0.
        fast_threshold: ORB's, grey levels, >= 1.
        max_side_px: larger images are made smaller first (keypoints stay in pixels of the image given), >= 32.
    """

    kind: Literal["sift", "orb", "learned", "disk", "aliked"] = "sift"
    file: str = ""
    max_count: int = 600
    contrast: float = 0.004
    fast_threshold: int = 8
    max_side_px: int = 640

    def __post_init__(self) -> None:
        check_choice("features.kind", self.kind, KINDS)
        if self.of_network and not self.file:
            raise ConfigError(f"features.kind {self.kind} needs features.file, the file of its network")
        if self.file and not self.of_network:
            raise ConfigError(
                f"features.file is for features.kind {', '.join(OF_NETWORKS)}, no other kind has one; got {self.kind}"
            )
        check_range("features.max_count", self.max_count, 8)
        check_range("features.contrast", self.contrast, 0.0, 1.0, open_low=True)
        check_range("features.fast_threshold", self.fast_threshold, 1, 255)
        check_range("features.max_side_px", self.max_side_px, 32)

    @property
    def of_network(self) -> bool:
        """Whether a network finds the features."""
        return self.kind in OF_NETWORKS


@dataclass(frozen=True)
class Features:
    """Features of one image.

    Attributes:
        keypoints_px: (N, 2) float32, u and v as in ``CameraIntrinsics`` (pixel centres at one half).
        descriptors: (N, 128) uint8 of SIFT, (N, 32) uint8 of ORB, or (N, D) uint8 of a network.
        sizes_px: (N,) float32, diameter of what was described.
        width: of the image, pixels.
        height: of the image, pixels.
        kind: "sift", "orb", or kind and file of a network; only equal kinds can be matched.
    """

    keypoints_px: NDArray[np.float32]
    descriptors: NDArray[np.uint8]
    sizes_px: NDArray[np.float32]
    width: int
    height: int
    kind: str = "sift"

    def __post_init__(self) -> None:
        count = check_shape("Features.keypoints_px", self.keypoints_px, "N 2")["N"]
        check_shape("Features.descriptors", self.descriptors, f"{count} D")
        check_shape("Features.sizes_px", self.sizes_px, str(count))

    def __len__(self) -> int:
        return len(self.keypoints_px)

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        return self.keypoints_px.nbytes + self.descriptors.nbytes + self.sizes_px.nbytes

    def vectors(self) -> NDArray[np.float32]:
        """Return descriptors as unit vectors (N, D): RootSIFT (D = 128), or ORB's bits as -1 and 1 (D = 256)."""
        if self.kind == "orb":
            signs = np.unpackbits(self.descriptors, axis=1).astype(np.float32) * 2.0 - 1.0
            return np.asarray(signs / np.float32(np.sqrt(max(signs.shape[1], 1))), np.float32)
        if self.kind != "sift":
            return unit_vectors(self.descriptors)
        vectors = self.descriptors.astype(np.float32)
        lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))[:, None]
        return np.asarray(vectors / np.maximum(lengths, 1.0), np.float32)


def extract_features(rgb: NDArray[np.uint8], config: FeatureSettings | None = None) -> Features:
    """Return the features of an image.

    Args:
        rgb: (H, W, 3) or grey (H, W), uint8.
        config: which features.

    Raises:
        ShapeError: for another shape or dtype.
    """
    settings = config or FeatureSettings()
    if settings.of_network:
        return _of_network(rgb, settings)
    grey, scale = _searched(rgb, settings.max_side_px)
    keypoints, described = _detector(settings).detectAndCompute(grey, None)
    height, width = rgb.shape[:2]
    if described is None or not len(keypoints):
        depth = 32 if settings.kind == "orb" else 128
        empty = np.zeros((0, 2), np.float32)
        return Features(empty, np.zeros((0, depth), np.uint8), empty[:, 0], width, height, settings.kind)
    # the detector may return a few more than asked for (ties)
    strongest = np.argsort([-point.response for point in keypoints], kind="stable")[: settings.max_count]
    points = np.array([keypoints[index].pt for index in strongest], np.float32)
    sizes = np.array([keypoints[index].size for index in strongest], np.float32)
    if settings.kind == "orb":
        levels = np.array([keypoints[index].octave for index in strongest])
        points = _orb_points(points, levels, (grey.shape[1], grey.shape[0]))
    return Features(
        ((points + PIXEL_CENTRE) / scale).astype(np.float32),
        _compact(np.asarray(described)[strongest], settings.kind),
        (sizes / scale.mean()).astype(np.float32),
        width,
        height,
        settings.kind,
    )


def load_feature_network(settings: FeatureSettings) -> None:
    """Load the network that finds features, where one does, so that what is wrong with it is said now.

    Raises:
        CheckpointError: for a file that is missing or something else.
        MissingDependencyError: where a library is absent.
    """
    if settings.of_network:
        feature_network(settings.kind, settings.file, settings.max_count)


def _of_network(rgb: NDArray[np.uint8], settings: FeatureSettings) -> Features:
    """Return what a network finds in an image (H, W, 3) or (H, W)."""
    network = feature_network(settings.kind, settings.file, settings.max_count)
    image, scale = _searched(rgb, settings.max_side_px, colour=takes_colour(settings.kind))
    points, descriptors = found_by_network(network, image, settings.max_count, settings.file)
    sizes = np.full(len(points), LEARNED_SIZE_PX / scale.mean(), np.float32)
    pixels = ((points + PIXEL_CENTRE) / scale).astype(np.float32)
    return Features(pixels, descriptors, sizes, rgb.shape[1], rgb.shape[0], network.kind)


def _orb_points(points: NDArray[np.float32], levels: NDArray[np.int64], size: tuple[int, int]) -> NDArray[np.float32]:
    """Return where corners (N, 2) are: OpenCV multiplies a level's pixel numbers by the level's nominal scale.

    Its pixels have centres at one half as well, and the level is a whole number of them wide.
    """
    nominal = ORB_SCALE ** levels[:, None].astype(np.float64)
    actual = np.array(size) / np.round(np.array(size) / nominal)
    return np.asarray((points / nominal + PIXEL_CENTRE) * actual - PIXEL_CENTRE, np.float32)


def _searched(
    rgb: NDArray[np.uint8], max_side_px: int, *, colour: bool = False
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Return the image, grey or in colour, at the size that is searched, and its scale along u and v."""
    if rgb.dtype != np.uint8 or rgb.ndim not in {2, 3} or (rgb.ndim == 3 and rgb.shape[2] != 3) or not rgb.size:
        raise ShapeError(f"an image for features must be (H, W, 3) or (H, W) uint8, got {rgb.shape} {rgb.dtype}")
    image: Any = np.ascontiguousarray(rgb)
    if colour != (image.ndim == 3):
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB if colour else cv2.COLOR_RGB2GRAY)
    height, width = image.shape[:2]
    shrink = max_side_px / max(height, width)
    if shrink < 1.0:
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.asarray(image, np.uint8), np.array([image.shape[1] / width, image.shape[0] / height])


def _compact(described: NDArray[Any], kind: str) -> NDArray[np.uint8]:
    if kind == "orb":
        return described.astype(np.uint8)
    sums = np.maximum(described.sum(axis=1, keepdims=True), 1e-6)
    return np.asarray(np.clip(np.round(np.sqrt(described / sums) * ROOT_SIFT_SCALE), 0, 255), np.uint8)


@lru_cache(maxsize=4)
def _detector(settings: FeatureSettings) -> Any:
    if settings.kind == "orb":
        return cv2.ORB.create(
            nfeatures=settings.max_count, scaleFactor=ORB_SCALE, fastThreshold=settings.fast_threshold
        )
    return cv2.SIFT.create(
        nfeatures=settings.max_count, contrastThreshold=settings.contrast, enable_precise_upscale=True
    )
