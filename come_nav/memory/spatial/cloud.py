"""The spatial memory: a bounded cloud of voxels with colours or latents, and how it looks from elsewhere.

Each frame with depth is lifted into points, which merge into the voxels of the map frame. The memory renders what it
knows of any view, tells what is near the robot, and is bounded: in memory by its budget of voxels, in time per frame by
the points that it takes of a frame. Poses come and go in odom; points are anchored to key frames, and move with them
(:meth:`SpatialMemory.move`). Where nobody corrects key frames, map and odom are one.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.checks import check_shape
from come_nav.core.device.transfer import to_device
from come_nav.core.errors import ShapeError
from come_nav.core.geometry import se2, se3
from come_nav.core.geometry.point_rendering import camera_fractions
from come_nav.core.types import CameraIntrinsics, Frame
from come_nav.memory.map_frame import MapFrame
from come_nav.memory.poses import as_transform
from come_nav.memory.spatial.carving import EarlierLooks, seen_through
from come_nav.memory.spatial.latent.readout import nearest_points
from come_nav.memory.spatial.lifting import ColourFeatures, FeatureGrid, FeatureSource, UnknownFeatures, fits, lift
from come_nav.memory.spatial.moving import move_voxels
from come_nav.memory.spatial.settings import LATENT, RGB, SpatialSettings
from come_nav.memory.spatial.splat_cache import EXTRA, SplatCache
from come_nav.memory.spatial.splatting import SpatialView, Viewpoint, render_splats, thinned
from come_nav.memory.spatial.voxels import VoxelMap, cell_keys, reach_of

Array = NDArray[Any]
FAR_M = 1000.0  # poses beyond this (UTM) get a cloud around a place of its own: float32 counts half metres there
MetricDepth = Callable[[Frame, NDArray[np.float64]], "NDArray[np.float32] | None"]


class InsertResult(str, Enum):
    """What the memory did with a frame. Everything but KEPT is counted in :attr:`SpatialMemory.rejected`."""

    KEPT = "kept"
    NO_DEPTH = "no_depth"
    NO_INTRINSICS = "no_intrinsics"
    NO_CAMERA_EXTRINSICS = "no_camera_extrinsics"  # no T_base_camera
    WRONG_SIZE = "wrong_size"  # the intrinsics are of another image size, or impossible
    BAD_POSE = "bad_pose"  # NaN, or no rigid transform
    BAD_STAMP = "bad_stamp"
    NO_POINTS = "no_points"  # no depth in range that can be trusted
    TOO_FAR = "too_far"  # farther from where the memory began than its cells reach


class SpatialMemory:
    """A bounded cloud of voxels in the map frame. A frame that cannot be used is counted, never an exception.

    One thread may observe while another renders: an image shows the cloud as it was when its rendering began.
    """

    def __init__(
        self,
        config: SpatialSettings | None = None,
        features: FeatureSource | None = None,
        depth_source: MetricDepth | None = None,
    ) -> None:
        """Start empty.

        Args:
            config: settings.
            features: what a point remembers; its colour when None.
            depth_source: called as ``depth_source(frame, T_odom_base)`` for frames without depth; see
                :class:`come_nav.memory.spatial.depth.OdometryScaledDepth`.
        """
        self.config = (config or SpatialSettings()).resolved
        self.features = features or ColourFeatures()
        self._depth_source = depth_source
        self._lock = threading.RLock()
        settings = self.config
        self.voxels = VoxelMap(
            settings.voxel_m,
            settings.max_voxels,
            self.features.channels + EXTRA,
            max_weight=settings.max_weight,
            max_hits=settings.max_hits,
            forget_s=settings.forget_s,
            forget_m=settings.forget_m,
        )
        self.clear()

    def clear(self) -> None:
        """Forget everything, counters included."""
        with self._lock:
            self.voxels.clear()
            self.map_frame = MapFrame()
            self.origin_odom_xyz: NDArray[np.float64] = np.zeros(3)  # where the voxels count from, in map
            self.rejected: Counter[str] = Counter()
            self.frames = 0
            self.carved = 0
            self.untrusted = 0
            self.passing = 0  # points that were left out because they moved
            self._earlier = EarlierLooks(self.config.earlier_looks)
            self._splats = SplatCache()

    def __len__(self) -> int:
        return len(self.voxels)

    @property
    def points_xyz(self) -> NDArray[Any]:
        """Points (N, 3) in the odom frame, m; float32, or float64 far from its origin; valid until the next change."""
        with self._lock:
            xyz = self.voxels.xyz + self.origin_odom_xyz if self.origin_odom_xyz.any() else self.voxels.xyz
            if self.map_frame.is_odom:
                return xyz
            points = xyz.astype(np.float64)
            points[:, :2] = se2.transform_points(se2.inverse(self.map_frame.T_map_odom_xyyaw), points[:, :2])
            return points.astype(xyz.dtype)

    @property
    def point_features(self) -> NDArray[np.float32]:
        """Features (N, C) of the points: colours in [-1, 1], or latents."""
        return self.voxels.features[:, :-EXTRA]

    @property
    def nbytes(self) -> int:
        """Memory of the cloud in bytes."""
        return self.voxels.nbytes

    def observe(self, frame: Frame, T_odom_base: Array) -> InsertResult:
        """Take a frame and the pose of base_link, (4, 4) or planar (3,); return what became of it."""
        pose = as_transform(T_odom_base)
        verdict, grid = self._grid(frame, pose)
        if grid is not None and pose is not None and frame.T_base_camera is not None:
            with self._lock:
                verdict = self._take(frame.stamp_s, grid, self.map_frame.transform_to_map(pose) @ frame.T_base_camera)
        if verdict is not InsertResult.KEPT:
            self.rejected[verdict.value] += 1
        return verdict

    def move(self, corrections_xyyaw: Array, outside_xyyaw: Array | None = None) -> int:
        """Take where odom lies in map as each key frame has it (K, 3), and move their points; return how many moved.

        The last one is where odom lies at present; what is seen from now on is anchored to that key frame.
        ``outside_xyyaw`` (3,) is where another localiser says that odom lies in its map, if one does.

        Raises:
            DataError: for corrections that are not finite.
        """
        with self._lock:
            motions = self.map_frame.update(corrections_xyyaw, outside_xyyaw)
            if motions is None:
                return 0
            self._earlier.clear()
            moved = move_voxels(self.voxels, motions, self.origin_odom_xyz[:2], slice(-EXTRA, -1))
            if moved:
                self._splats.changed()
            return moved

    def render(
        self,
        poses: torch.Tensor | Array,
        camera: CameraIntrinsics,
        T_base_camera: torch.Tensor | Array,
        *,
        gaps: bool = True,
        blend: bool = True,
        thin: bool = False,
        cell_m: float = 0.0,
        device: str | torch.device = "cpu",
    ) -> SpatialView:
        """Render what is remembered of B views.

        Args:
            poses: (B, 3) planar or (B, 4, 4) poses of base_link in the odom frame.
            camera: of the image to render; see :func:`come_nav.memory.spatial.lifting.model_camera`.
            T_base_camera: (4, 4), or (B or 1, 4, 4).
            gaps: close single unseen pixels among seen ones.
            blend: show the mean of what lies on the surface of a pixel, with no gaps in near surfaces; else the nearest
                point of each pixel alone, whichever side it is seen from.
            thin: merge far points that no pixel could tell apart first, which pays for many views from one place.
            cell_m: merge points in cells of this edge first, for small images; 0 = do not.
            device: where to render and where the result lies.
        """
        poses = torch.as_tensor(poses)
        check_shape("poses", poses, "B 4 4" if poses.ndim == 3 else "B 3")
        extrinsics = torch.as_tensor(T_base_camera, dtype=torch.float64)
        extrinsics = extrinsics[None] if extrinsics.ndim == 2 else extrinsics
        with self._lock:  # points and where odom lies among them belong together
            poses = _in_map(poses, self.map_frame)
            splats = self._splats.of(self.voxels, self.config.voxel_m, torch.device(device))
        if poses.ndim == 3:  # a free pose: the whole of it goes into the camera's extrinsics
            moved = poses.to(extrinsics) @ extrinsics
            moved[:, :3, 3] -= torch.as_tensor(self.origin_odom_xyz).to(moved)
            extrinsics, poses = moved, poses.new_zeros(len(poses), 3)
        elif self.origin_odom_xyz.any():
            origin = torch.tensor([*self.origin_odom_xyz[:2], 0.0], dtype=torch.float64)
            poses = poses.double() - to_device(origin, poses.device)
        splats = self._splats.coarse(splats, cell_m)
        place, dtype = splats.points_xyz.device, splats.points_xyz.dtype
        view = Viewpoint(*(to_device(own, place, dtype) for own in (poses, camera_fractions(camera), extrinsics)))
        if thin and len(poses) and len(splats.points_xyz):
            positions = view.positions
            centre = positions.mean(dim=0)
            reach_m = float((positions - centre).norm(dim=1).max())
            splats = thinned(splats, centre, reach_m, 1.0 / camera.fx, self.config.voxel_m)
        if not blend:
            return nearest_points(splats, view, (camera.height, camera.width))
        return render_splats(splats, view, (camera.height, camera.width), gaps)

    def points_near(
        self,
        pose_odom_xyyaw: Array,
        radius_m: float,
        heights_m: tuple[float, float] = (0.1, 1.0),
        min_hits: float = 2.0,
    ) -> NDArray[np.float32]:
        """Return obstacles (M, 3) around a pose, in that pose's base frame: one point for each occupied cell of a map.

        Args:
            pose_odom_xyyaw: (3,) of base_link.
            radius_m: only points this near.
            heights_m: lowest and highest that the robot could touch, above the odom plane.
            min_hits: points seen less often than this are not yet believed.
        """
        with self._lock:
            pose = np.array(self.map_frame.to_map(pose_odom_xyyaw), np.float64)
            pose[:2] -= self.origin_odom_xyz[:2]
            xyz = self.voxels.xyz
            near = np.hypot(xyz[:, 0] - pose[0], xyz[:, 1] - pose[1]) <= radius_m
            near &= (xyz[:, 2] >= heights_m[0]) & (xyz[:, 2] <= heights_m[1]) & (self.voxels.hits >= min_hits)
            points = xyz[near].astype(np.float64)
        cells = np.floor(points[:, :2] / self.config.voxel_m).astype(np.int64)
        _, first = np.unique(cells, axis=0, return_index=True)
        points = points[first]
        points[:, :2] = se2.transform_points(se2.inverse(pose), points[:, :2])
        obstacles: NDArray[np.float32] = points.astype(np.float32)
        return obstacles

    def state(self) -> dict[str, Array]:
        """Return everything that :meth:`load_state` needs as plain arrays, e.g. for an npz file."""
        with self._lock:
            counts = {"frames": self.frames, "carved": self.carved, "untrusted": self.untrusted}
            origin = {"origin_odom_xyz": self.origin_odom_xyz.copy()} if self.origin_odom_xyz.any() else {}
            numbers = {name: np.asarray(value) for name, value in counts.items()}
            frame = {"T_map_odom_xyyaw": self.map_frame.T_map_odom_xyyaw.copy()}
            kind = {"latent": np.asarray(True)} if self.config.features == LATENT else {}
            voxel = {"voxel_m": np.asarray(self.config.voxel_m)}
            return {**self.voxels.state(), **voxel, **numbers, **origin, **frame, **kind}

    def load_state(self, state: dict[str, Array]) -> None:
        """Replace the memory by a saved one; what exceeds the budget makes room as always.

        Its key frames are those of who saved it: corrections that come later move only what is seen from now on.

        Raises:
            ShapeError: for arrays that do not agree, or a cloud of another voxel size or other features.
        """
        _check_kind(state, self.config.features, self.features.channels)
        voxel_m = float(state.get("voxel_m", np.nan))
        if voxel_m != self.config.voxel_m:
            raise ShapeError(
                f"the saved cloud has voxels of {voxel_m:g} m, this memory of {self.config.voxel_m:g} m; set "
                "spatial.voxel_m to the former"
            )
        with self._lock:
            self.voxels.load_state(state)
            self.origin_odom_xyz = np.array(state.get("origin_odom_xyz", np.zeros(3)), np.float64)
            anchors = int(self.voxels.anchor.max(initial=-1)) + 1
            self.map_frame.settle(anchors, np.asarray(state.get("T_map_odom_xyyaw", np.zeros(3)), np.float64))
            self.rejected.clear()
            self.frames, self.carved, self.untrusted = (int(state[name]) for name in ("frames", "carved", "untrusted"))
            self._earlier.clear()
            self._splats.changed()

    @classmethod
    def from_state(cls, state: dict[str, Array], features: FeatureSource | None = None) -> SpatialMemory:
        """Return a memory with a saved cloud and otherwise default settings, with room for at least this cloud."""
        count = check_shape("features", state["features"], "N C")
        room = max(SpatialSettings.max_voxels, count["N"])
        source = features or UnknownFeatures(count["C"] - EXTRA)
        memory = cls(SpatialSettings(_kind_of(state), voxel_m=float(state["voxel_m"]), max_voxels=room), source)
        memory.load_state(state)
        return memory

    def _grid(self, frame: Frame, pose: Array | None) -> tuple[InsertResult, FeatureGrid | None]:
        """Check a frame; return its features and depth, or why it cannot be used."""
        camera = frame.intrinsics
        if pose is None:
            return InsertResult.BAD_POSE, None
        if not np.isfinite(frame.stamp_s):
            return InsertResult.BAD_STAMP, None
        if camera is None:
            return InsertResult.NO_INTRINSICS, None
        if frame.T_base_camera is None or as_transform(frame.T_base_camera) is None:
            return InsertResult.NO_CAMERA_EXTRINSICS, None
        if not fits(camera, frame.rgb.shape):
            return InsertResult.WRONG_SIZE, None
        depth = frame.depth_m
        if depth is None and self._depth_source is not None:
            depth = self._depth_source(frame, pose)
        if depth is None:
            return InsertResult.NO_DEPTH, None
        if frame.moving is None:
            return InsertResult.KEPT, self.features(frame, depth, camera)
        # What passes by is nowhere to be found again, and hides what is behind it: that is not seen through.
        grid = self.features(frame, np.where(frame.moving, np.float32(np.nan), depth), camera)
        return InsertResult.KEPT, replace(grid, surface=(depth, camera))

    def _take(self, stamp_s: float, grid: FeatureGrid, T_map_camera: Array) -> InsertResult:
        settings = self.config
        if not self.frames and np.abs(T_map_camera[:2, 3]).max() > FAR_M:
            self.origin_odom_xyz[:2] = np.round(T_map_camera[:2, 3])
        T_map_camera = T_map_camera.copy()
        T_map_camera[:3, 3] -= self.origin_odom_xyz
        if np.abs(T_map_camera[:3, 3]).max() + settings.max_range_m > reach_of(settings.voxel_m):
            return InsertResult.TOO_FAR
        pixels = grid.depth_m.size
        stride = max(1, int(np.ceil(np.sqrt(pixels / settings.max_points_per_frame))))
        seen = lift(
            grid,
            stride,
            self.frames,
            (settings.min_range_m, settings.max_range_m),
            settings.edge_ratio,
            settings.min_neighbours,
        )
        self.untrusted += seen.untrusted
        if not len(seen.points_xyz):
            return InsertResult.NO_POINTS
        self.carved += _carve(self.voxels, settings, grid, T_map_camera)
        points = se3.transform_points(T_map_camera, seen.points_xyz.astype(np.float64))
        stays = self._earlier.stays(settings, grid, T_map_camera, points)
        self.passing += int((~stays).sum())
        # A pixel that shows more than a voxel blurs it: the nearer look counts more, by the areas.
        weights = np.minimum(1.0, (settings.voxel_m / seen.patch_m) ** 2)
        normals = seen.normals @ T_map_camera[:3, :3].T.astype(np.float32)
        values = np.concatenate([seen.features, normals, seen.pixel_m[:, None] * stride], axis=1)
        place = T_map_camera[:3, 3]
        self.voxels.add(points[stays], values[stays], weights[stays], stamp_s, place, self.map_frame.anchor)
        self.frames += 1
        self._splats.changed()
        return InsertResult.KEPT


def _kind_of(state: dict[str, Array]) -> Literal["rgb", "latent"]:
    return LATENT if state.get("latent") else RGB


def _check_kind(state: dict[str, Array], wanted: str, channels: int) -> None:
    """Raise ShapeError where a saved cloud remembers something else than this memory."""
    kind, features = _kind_of(state), state.get("features")
    saved = channels if features is None or features.ndim != 2 else features.shape[-1] - EXTRA
    if kind != wanted or saved != channels:
        raise ShapeError(
            f"the saved cloud remembers {kind} ({saved} features for each point), this memory {wanted} ({channels}); "
            f"set spatial.features to {kind} and take the model that it was made with, or fill another store"
        )


def snapshot_of(memory: SpatialMemory) -> SpatialMemory:
    """Return a memory that shows what ``memory`` shows now, and changes no more with it."""
    kept = SpatialMemory(memory.config, memory.features)
    kept.load_state(memory.state())
    return kept


def _carve(voxels: VoxelMap, settings: SpatialSettings, grid: FeatureGrid, T_map_camera: Array) -> int:
    """Take looks from the cells that a frame sees through; return how many were forgotten."""
    if settings.carve_looks == 0.0 or not len(voxels):
        return 0
    margin = (settings.carve_margin_m, settings.carve_margin_ratio)
    T_camera_map = se3.inverse(T_map_camera)
    depth_m, camera = grid.surface or (grid.depth_m, grid.camera)
    rows, filled = seen_through(voxels.xyz, T_camera_map, depth_m, camera, settings.voxel_m, margin)
    return voxels.weaken(rows, settings.carve_looks * filled)


def looked_at_s(memory: SpatialMemory, points_odom_xyz: Array) -> NDArray[np.float64]:
    """Return stamps (N,) in s of the last look at the voxels at points (N, 3) of odom, NaN where no voxel is."""
    with memory._lock:
        voxels, frame, points = memory.voxels, memory.map_frame, np.asarray(points_odom_xyz, np.float64)
        if not frame.is_odom:
            T_map_odom = se3.transform_from_xyyaw(frame.T_map_odom_xyyaw)
            points = points @ T_map_odom[:3, :3].T + T_map_odom[:3, 3]
        return voxels.stamps_at(cell_keys(points - memory.origin_odom_xyz, voxels.voxel_m))


def _in_map(poses: torch.Tensor, frame: MapFrame) -> torch.Tensor:
    """Return poses (B, 3) or (B, 4, 4) of odom in map; the very same tensor where the two are one."""
    if frame.is_odom:
        return poses
    T_map_odom = to_device(torch.from_numpy(frame.T_map_odom_xyyaw), poses.device)
    if poses.ndim == 2:
        return se2.compose(T_map_odom, poses.double())
    return torch.from_numpy(se3.transform_from_xyyaw(frame.T_map_odom_xyyaw)).to(poses.device) @ poses.double()
