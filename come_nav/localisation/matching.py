"""Which features of two images are the same point: nearest descriptors, clearly nearer than the next, both ways.

Ratio test: Lowe 2004. All pairs are compared in one matrix product; 600 against 600 SIFT features take about 4 ms. For
features of a network LightGlue can tell it instead (``learned/light_glue.py``), more slowly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_choice, check_range
from come_nav.core.errors import ConfigError, ShapeError
from come_nav.localisation.features import OF_NETWORKS, Features
from come_nav.localisation.learned.light_glue import light_glue_matches

FORBIDDEN = 8.0  # squared distance of unit vectors is at most 4
UNRELATED = 1.0  # and that of descriptors with nothing in common; a lone candidate must be nearer than that
TIED = 1e-5  # squared distance within which two vectors are one: rounding must not choose between them


@dataclass(frozen=True)
class MatchingSettings:
    """What counts as a match.

    Attributes:
        ratio: the nearest descriptor's distance over the second nearest's is at most this, in (0, 1].
        mutual: each must be the other's nearest.
        matcher: "nearest" descriptors, or "lightglue" (kornia, extra [learned]) for features of a network, which has
            neither ratio nor mutual.
        file: LightGlue's weights for these features, e.g. disk_lightglue.pth.
    """

    ratio: float = 0.85
    mutual: bool = True
    matcher: Literal["nearest", "lightglue"] = "nearest"
    file: str = ""

    def __post_init__(self) -> None:
        check_choice("matching.matcher", self.matcher, ("nearest", "lightglue"))
        if (self.matcher == "lightglue") != bool(self.file):
            raise ConfigError("matching.matcher lightglue needs matching.file, its weights, and no other has one")
        check_range("matching.ratio", self.ratio, 0.0, 1.0, open_low=True)


def match_features(
    a: Features,
    b: Features,
    config: MatchingSettings | None = None,
    allowed: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Return matches (M, 2): row of ``a`` and row of ``b``, the most distinct first.

    Args:
        a: N features.
        b: L features.
        config: what counts as a match.
        allowed: (N, L) pairs that can be at all; the others do not compete either, so that a pattern that repeats is
            distinct again where a pose is roughly known. LightGlue's matches are only sifted by it.

    Raises:
        ShapeError: for features of different kinds.
        ConfigError: for LightGlue and features that no network finds.
        CheckpointError: for weights of LightGlue that belong to other features.
    """
    if config is not None:
        check_matcher(config, a.kind)
    if a.kind != b.kind:
        raise ShapeError(f"features of kind '{a.kind}' cannot be matched with '{b.kind}'; extract both alike")
    if not len(a) or not len(b):
        return np.zeros((0, 2), np.int64)
    if config is not None and config.matcher == "lightglue":
        return _by_light_glue(a, b, config.file, allowed)
    return match_vectors(a.vectors(), b.vectors(), config, allowed)


def check_matcher(config: MatchingSettings, kind: str) -> None:
    """Raise ConfigError where LightGlue is to match features of a kind that no network finds."""
    if config.matcher == "lightglue" and kind.partition(" ")[0] not in OF_NETWORKS:
        raise ConfigError(
            f"matching.matcher lightglue needs features.kind {', '.join(OF_NETWORKS)}, got {kind}; "
            "set matching.matcher nearest for others"
        )


def _by_light_glue(a: Features, b: Features, file: str, allowed: NDArray[np.bool_] | None) -> NDArray[np.int64]:
    sizes = (a.width, a.height), (b.width, b.height)
    pairs = light_glue_matches(file, (a.keypoints_px, b.keypoints_px), (a.vectors(), b.vectors()), sizes)
    return pairs if allowed is None else pairs[allowed[pairs[:, 0], pairs[:, 1]]]


def match_vectors(
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    config: MatchingSettings | None = None,
    allowed: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Return matches (M, 2) of unit vectors (N, D) and (L, D), N and L >= 1, the most distinct first."""
    settings = config or MatchingSettings()
    # squared distances; of unit vectors
    distances = np.maximum(2.0 - 2.0 * (a @ b.T), 0.0)
    if allowed is not None:
        distances = np.where(allowed, distances, FORBIDDEN)
    rows = np.arange(len(a))
    nearest = distances.argmin(axis=1)
    first = distances[rows, nearest]
    if len(b) > 1:
        second = np.partition(distances, 1, axis=1)[:, 1]
        ratios = (first + TIED) / (np.minimum(second, UNRELATED) + TIED)
    else:
        ratios = np.zeros(len(a), np.float32)
    good = (ratios <= settings.ratio**2) & (first < FORBIDDEN)
    if settings.mutual:
        good &= distances.argmin(axis=0)[nearest] == rows
    order = np.flatnonzero(good)
    order = order[np.argsort(ratios[order], kind="stable")]
    return np.stack([order, nearest[order]], axis=1).astype(np.int64)
