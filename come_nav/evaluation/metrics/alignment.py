"""Alignment of an estimated trajectory to a reference: least squares (Umeyama 1991) or by the first pose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_choice, check_shape
from come_nav.core.errors import DataError
from come_nav.core.geometry import se3

ALIGNMENTS = ("none", "se3", "sim3", "scale_only", "origin")
_RANK_TOLERANCE = 1e-12  # of the covariance: a lateral spread below a millionth of the length counts as a line


@dataclass(frozen=True)
class Alignment:
    """Similarity that maps estimated positions onto the reference: ``p -> scale * rotation @ p + translation``.

    Attributes:
        mode: one of ALIGNMENTS.
        rotation: (3, 3).
        translation: (3,) metres.
        scale: factor on the estimate.
    """

    mode: str
    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]
    scale: float = 1.0

    def apply(self, T_world_body: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the aligned poses (N, 4, 4): positions by the similarity, orientations by the rotation alone."""
        aligned = np.array(T_world_body, dtype=np.float64)
        aligned[:, :3, :3] = self.rotation @ aligned[:, :3, :3]
        aligned[:, :3, 3] = self.scale * (aligned[:, :3, 3] @ self.rotation.T) + self.translation
        return aligned


def umeyama(
    reference_xyz: NDArray[np.float64], estimate_xyz: NDArray[np.float64], with_scale: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.float64], float, int]:
    """Least-squares similarity from ``estimate_xyz`` (N, 3) to ``reference_xyz`` (N, 3).

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991, eq. 38-42.

    Returns:
        rotation (3, 3), translation (3,), scale, and the rank of the covariance: below 2 the rotation is not unique.
    """
    sizes = check_shape("reference_xyz", reference_xyz, "N 3")
    check_shape("estimate_xyz", estimate_xyz, f"{sizes['N']} 3")
    mean_reference, mean_estimate = reference_xyz.mean(axis=0), estimate_xyz.mean(axis=0)
    from_reference, from_estimate = reference_xyz - mean_reference, estimate_xyz - mean_estimate
    covariance = from_reference.T @ from_estimate / sizes["N"]
    left, singular, right = np.linalg.svd(covariance)
    variance = float((from_estimate**2).sum() / sizes["N"])
    noise_floor = np.finfo(np.float64).eps * max(1.0, float(np.abs(estimate_xyz).max())) ** 2
    rank = int((singular > max(_RANK_TOLERANCE * singular[0], noise_floor)).sum())
    signs = np.ones(3)
    if np.linalg.det(left) * np.linalg.det(right) < 0:
        signs[2] = -1.0  # a reflection fits better, but only rotations are allowed
    rotation = (left * signs) @ right
    scale = float((singular * signs).sum() / variance) if with_scale and rank > 0 else 1.0
    return rotation, mean_reference - scale * rotation @ mean_estimate, scale, rank


def align(
    T_reference: NDArray[np.float64], T_estimate: NDArray[np.float64], mode: str, first_n: int | None = None
) -> Alignment:
    """Find the alignment of ``T_estimate`` (N, 4, 4) to ``T_reference`` (N, 4, 4).

    Args:
        T_reference: matched reference poses.
        T_estimate: matched estimated poses.
        mode: ``none``; ``se3`` rotation and translation; ``sim3`` also scale; ``scale_only`` the scale of ``sim3``
            alone; ``origin`` the rigid motion that makes the first poses coincide.
        first_n: fit to the first ``first_n`` matched poses only; None fits to all.

    Raises:
        DataError: when the positions do not determine the alignment (fewer than 3 poses, all in one point or line).
    """
    check_choice("alignment", mode, ALIGNMENTS)
    sizes = check_shape("T_reference", T_reference, "N 4 4")
    check_shape("T_estimate", T_estimate, f"{sizes['N']} 4 4")
    if mode == "none":
        return Alignment(mode, np.eye(3), np.zeros(3))
    if mode == "origin":
        motion = T_reference[0] @ se3.inverse(T_estimate[0])
        return Alignment(mode, motion[:3, :3], motion[:3, 3])
    reference_xyz, estimate_xyz = T_reference[:first_n, :3, 3], T_estimate[:first_n, :3, 3]
    rotation, translation, scale, rank = umeyama(reference_xyz, estimate_xyz, with_scale=mode != "se3")
    needed = 1 if mode == "scale_only" else 2
    if rank < needed:
        shape = "in one point" if rank == 0 else "on one line"
        raise DataError(
            f"alignment '{mode}' is not determined: the {len(reference_xyz)} matched positions lie {shape}; "
            "use alignment 'origin' or 'none'"
        )
    if mode == "scale_only":
        return Alignment(mode, np.eye(3), np.zeros(3), scale)
    return Alignment(mode, rotation, translation, scale)
