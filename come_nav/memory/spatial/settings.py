"""What is remembered in space."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from come_nav.core.checks import check_choice, check_range

RGB: Literal["rgb"] = "rgb"
LATENT: Literal["latent"] = "latent"
DepthToGrid = Literal["bilinear", "nearest", "median", "area"]
LiftAt = Literal["cells", "pixels"]
UNMERGED_M = 0.001  # points nearer than this are one even where nothing is to be merged


@dataclass(frozen=True)
class LatentSettings:
    """How latents are remembered in space, where it is latents (Mirage, latent spatial memory).

    Attributes:
        depth: how a latent cell reads its depth: bilinear and nearest at its centre, median and area of its pixels.
        merge: whether latents of one voxel become their mean; else each stays (as in Mirage), nothing is carved, and
            the budget alone bounds them.
        lift: cells makes one point of each latent cell (as in Mirage); pixels one of each pixel, with the latents of
            the cells around it, interpolated, and its own depth.
        readout: nearest takes the nearest point of each latent cell (as in Mirage); blend the mean of its surface, and
            closes gaps, as for colours.
    """

    depth: DepthToGrid = "bilinear"
    merge: bool = True
    lift: LiftAt = "cells"
    readout: Literal["nearest", "blend"] = "nearest"

    def __post_init__(self) -> None:
        check_choice("spatial.latent.depth", self.depth, get_args(DepthToGrid))
        check_choice("spatial.latent.lift", self.lift, get_args(LiftAt))
        check_choice("spatial.latent.readout", self.readout, ("nearest", "blend"))


@dataclass(frozen=True)
class SpatialSettings:
    """What is remembered in space.

    Attributes:
        features: rgb (colours, rendered and then encoded) or latent (the world model's latents, read out as they are).
        latent: how latents are remembered.
        voxel_m: edge of a voxel, m, > 0.
        max_voxels: budget; the least useful voxels make room (see ``forget_s``), >= 1.
        max_points_per_frame: a larger depth image is thinned to this by every n-th pixel and line in turn, >= 1.
        min_range_m: nearest depth that is believed, m, > 0.
        max_range_m: farthest depth that is remembered, m, > 0.
        edge_ratio: relative difference of inverse depth between neighbours that separates surfaces, in (0, 1].
        min_neighbours: of the 8 pixels around one, so many must lie on its surface, in [0, 8].
        max_weight: caps a voxel's weight, so that newer looks keep counting, > 0.
        max_hits: caps a voxel's count of looks, so that what vanished is unlearnt in bounded time, >= 1.
        carve_looks: looks that a voxel loses when a later frame sees through it; 0 turns carving off.
        earlier_looks: a point that one of so many frames before saw through is taken to be passing by, and left out; 0
            remembers what moves until carving takes it away.
        carve_margin_m: the surface behind must be farther by this, m, >= 0.
        carve_margin_ratio: and by this fraction of the depth, >= 0.
        forget_s: this age costs a voxel as much as half of its looks, s, > 0.
        forget_m: and so does this distance from the robot, m, > 0.
    """

    features: Literal["rgb", "latent"] = "rgb"
    latent: LatentSettings = field(default_factory=LatentSettings)
    voxel_m: float = 0.05
    max_voxels: int = 200_000
    max_points_per_frame: int = 20_000
    min_range_m: float = 0.1
    max_range_m: float = 10.0
    edge_ratio: float = 0.05
    min_neighbours: int = 2
    max_weight: float = 8.0
    max_hits: float = 10.0
    carve_looks: float = 1.5
    earlier_looks: int = 0
    carve_margin_m: float = 0.15
    carve_margin_ratio: float = 0.05
    forget_s: float = 600.0
    forget_m: float = 20.0

    def __post_init__(self) -> None:
        check_choice("spatial.features", self.features, (RGB, LATENT))
        for name in ("voxel_m", "min_range_m", "max_weight", "forget_s", "forget_m"):
            check_range(f"spatial.{name}", getattr(self, name), 0.0, open_low=True)
        for name in ("max_voxels", "max_points_per_frame", "max_hits"):
            check_range(f"spatial.{name}", getattr(self, name), 1)
        check_range("spatial.earlier_looks", self.earlier_looks, 0, 1000)
        for name in ("carve_looks", "carve_margin_m", "carve_margin_ratio"):
            check_range(f"spatial.{name}", getattr(self, name), 0.0)
        check_range("spatial.max_range_m", self.max_range_m, self.min_range_m, open_low=True)
        check_range("spatial.edge_ratio", self.edge_ratio, 0.0, 1.0, open_low=True)
        check_range("spatial.min_neighbours", self.min_neighbours, 0, 8)

    @property
    def resolved(self) -> SpatialSettings:
        """The settings as they work: where latents are not merged, voxels are tiny, and so never seen through."""
        if self.features == RGB or self.latent.merge:
            return self
        return replace(self, voxel_m=UNMERGED_M, carve_looks=0.0)
