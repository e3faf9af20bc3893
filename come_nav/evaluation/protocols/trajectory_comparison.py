"""Two trajectories side by side: matched in time, then ATE, RPE and, where asked for, KITTI's drift."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from come_nav.core.types import Trajectory
from come_nav.data.timing.association import AssociationReport, associate_nearest
from come_nav.evaluation.metrics.drift import Drift, drift
from come_nav.evaluation.metrics.trajectory_metrics import ErrorReport, RpeSettings, ate, rpe


@dataclass(frozen=True)
class ComparisonSettings:
    """How two trajectories are compared.

    Attributes:
        align: of ATE and RPE, see :func:`come_nav.evaluation.metrics.alignment.align`.
        rpe: which pairs RPE compares.
        max_difference_s: poses further apart in time are not matched.
        offset_s: added to the estimate's stamps.
        with_drift: also KITTI's drift.
    """

    align: str = "none"
    rpe: RpeSettings = field(default_factory=RpeSettings)
    max_difference_s: float = 0.01
    offset_s: float = 0.0
    with_drift: bool = False


@dataclass(frozen=True)
class Comparison:
    """Matched trajectories and their errors; ``errors`` holds ate, rpe and, where alignment scales, rpe_unaligned."""

    reference: Trajectory
    estimate: Trajectory
    association: AssociationReport
    errors: dict[str, ErrorReport]
    drift: Drift | None

    def to_mapping(self) -> dict[str, Any]:
        """Return the figures as plain values."""
        alignment = self.errors["ate"].alignment
        document: dict[str, Any] = {
            "association": self.association.to_mapping(),
            "path_length_m": {"reference": self.reference.path_length_m, "estimate": self.estimate.path_length_m},
            "alignment": {
                "mode": alignment.mode,
                "rotation": alignment.rotation,
                "translation": alignment.translation,
                "scale": alignment.scale,
            },
        }
        for name, result in self.errors.items():
            document[name] = {
                "translation_m": asdict(result.translation_m),
                "rotation_deg": asdict(result.rotation_deg),
            }
        if self.drift is not None:
            document["drift"] = asdict(self.drift)
        return document


def compare(
    reference: Trajectory, estimate: Trajectory, settings: ComparisonSettings, names: tuple[str, str]
) -> Comparison:
    """Match and compare; ``names`` are how messages call the two.

    Raises:
        AssociationError: nothing matches in time. DataError: no alignment, no pair of poses, or no stretch for a drift.
    """
    reference, estimate, report = match(reference, estimate, settings.max_difference_s, settings.offset_s, names)
    errors = {
        "ate": ate(reference, estimate, settings.align),
        "rpe": rpe(reference, estimate, settings.rpe, settings.align),
    }
    if settings.align in ("sim3", "scale_only"):
        errors["rpe_unaligned"] = rpe(reference, estimate, settings.rpe)
    return Comparison(reference, estimate, report, errors, drift(reference, estimate) if settings.with_drift else None)


def match(
    reference: Trajectory, estimate: Trajectory, max_difference_s: float, offset_s: float, names: tuple[str, str]
) -> tuple[Trajectory, Trajectory, AssociationReport]:
    """Return the poses of both that belong together, with equal stamps, and the report of the association."""
    found = associate_nearest(
        reference.stamps_s, estimate.stamps_s, max_difference_s, offset_s, names=names, flag="--offset"
    )
    # A pose of the longer trajectory may serve twice; the stamps of the shorter one are unique.
    shorter_is_estimate = len(estimate) < len(reference)
    stamps_s = estimate.stamps_s[found.index_b] + offset_s if shorter_is_estimate else reference.stamps_s[found.index_a]
    return (
        Trajectory(stamps_s, reference.T_world_body[found.index_a], reference.frame_id),
        Trajectory(stamps_s, estimate.T_world_body[found.index_b], estimate.frame_id),
        found.report,
    )
