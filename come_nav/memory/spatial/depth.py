"""Depth for cameras without a depth sensor: an image gives its shape, odometry its scale.

A monocular network returns depth up to a factor, or inverse depth up to a factor and an offset. Points that are tracked
from one frame to the next are triangulated with the motion that odometry measured; they fix what the network left open.
Nothing here is used unless a depth source is handed to the spatial memory.
"""

from __future__ import annotations

import importlib
from collections import deque
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_choice, check_range
from come_nav.core.errors import ConfigError, MissingDependencyError, ShapeError
from come_nav.core.geometry import se3
from come_nav.core.types import CameraIntrinsics, Frame
from come_nav.memory.spatial.triangulation import Tracker

FloatArray = NDArray[np.float32]
FIT_ROUNDS = 10


class DepthSource(Protocol):
    """From one image to its shape.

    ``kind`` says what comes out: "depth" up to an unknown factor, or "disparity", inverse depth up to an unknown factor
    and offset.
    """

    @property
    def kind(self) -> str: ...  # noqa: D102
    def __call__(self, rgb: NDArray[np.uint8]) -> NDArray[Any]:
        """Return (H, W) for an image (H, W, 3)."""
        ...


class TransformersDepth:
    """A depth-estimation model of the transformers library, from a local folder or the hub."""

    def __init__(self, model: str, kind: Literal["depth", "disparity"] = "disparity", device: str = "cpu") -> None:
        """Load a model.

        Args:
            model: folder, or name on the hub, e.g. of a Depth Anything or DPT model.
            kind: what the model predicts; most relative models predict "disparity", metric ones "depth".
            device: where it runs.

        Raises:
            MissingDependencyError: the transformers library is not installed.
            ConfigError: no such model, or it cannot be loaded.
        """
        try:  # an optional library: not among the imports that an installation must satisfy
            pipeline = importlib.import_module("transformers").pipeline
        except ImportError as error:
            raise MissingDependencyError("transformers", "perceptual", "depth from images") from error
        self.kind = check_choice("kind", kind, ("depth", "disparity"))
        try:
            self._pipeline = pipeline("depth-estimation", model=model, device=device)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"depth model '{model}' cannot be loaded ({reason}); give a folder or a name") from error

    def __call__(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the prediction (H, W), resized to the image."""
        import cv2
        from PIL import Image

        predicted = np.asarray(self._pipeline(Image.fromarray(rgb))["predicted_depth"], np.float32).squeeze()
        return np.asarray(
            cv2.resize(predicted, (rgb.shape[1], rgb.shape[0]), interpolation=cv2.INTER_LINEAR), np.float32
        )


@dataclass(frozen=True)
class ScaleSettings:
    """How scale is found.

    Attributes:
        min_baseline_m: the camera must have moved this far between two frames, m, > 0.
        max_turn_rad: and turned no more than this, rad, > 0.
        min_sideways_m: motion across the ray to a point, below which it tells nothing of the depth, m, > 0.
        max_error_px: a point must be found again this near to its epipolar line, px, > 0.
        min_points: fewest points that fix a scale, >= 4.
        window: so many newest points are used, >= min_points.
        max_depth_m: larger depth is unknown, m, > 0.
    """

    min_baseline_m: float = 0.08
    max_turn_rad: float = 0.5
    min_sideways_m: float = 0.02
    max_error_px: float = 1.0
    min_points: int = 20
    window: int = 400
    max_depth_m: float = 15.0

    def __post_init__(self) -> None:
        for name in ("min_baseline_m", "max_turn_rad", "min_sideways_m", "max_error_px", "max_depth_m"):
            check_range(f"scale.{name}", getattr(self, name), 0.0, open_low=True)
        check_range("scale.min_points", self.min_points, 4)
        check_range("scale.window", self.window, self.min_points)


class OdometryScaledDepth:
    """Metric depth from a :class:`DepthSource` and odometry; a ``depth_source`` of :class:`SpatialMemory`."""

    def __init__(self, source: DepthSource, config: ScaleSettings | None = None) -> None:
        self.config = config or ScaleSettings()
        self._source = source
        check_choice("depth source kind", source.kind, ("depth", "disparity"))
        self.reset()

    def reset(self) -> None:
        """Forget the scale, e.g. for another camera."""
        self._tracker = Tracker(self.config.min_sideways_m, self.config.max_error_px)
        self._points: deque[tuple[float, float, float]] = deque(maxlen=self.config.window)
        self._T_odom_camera: NDArray[np.float64] | None = None
        self.scale: tuple[float, float] | None = None

    def __call__(self, frame: Frame, T_odom_base: NDArray[np.float64]) -> FloatArray | None:
        """Return depth (H, W) in metres, NaN where unknown; None until odometry has fixed the scale.

        Raises:
            ShapeError: the source returns another size than the image's.
        """
        if frame.intrinsics is None or frame.T_base_camera is None:
            return None
        shape = np.asarray(self._source(frame.rgb), np.float32)
        if shape.shape != frame.rgb.shape[:2]:
            raise ShapeError(f"the depth source must return {frame.rgb.shape[:2]}, it returned {shape.shape}")
        self._learn(frame.rgb, shape, frame.intrinsics, T_odom_base @ frame.T_base_camera)
        return self._apply(shape)

    def _learn(
        self, rgb: NDArray[np.uint8], shape: FloatArray, camera: CameraIntrinsics, T_odom_camera: NDArray[np.float64]
    ) -> None:
        """Triangulate against the last frame that lies far enough back, and fit the scale anew."""
        settings = self.config
        if self._T_odom_camera is not None:
            T_now_then = se3.relative(T_odom_camera, self._T_odom_camera)
            turn_rad = float(se3.rotation_angle(T_now_then[:3, :3]))
            if np.linalg.norm(T_now_then[:3, 3]) < settings.min_baseline_m and turn_rad <= settings.max_turn_rad:
                return
            if turn_rad <= settings.max_turn_rad:
                pixels_uv, inverse, sideways_m = self._tracker.triangulate(rgb, camera, T_now_then)
                columns, rows = pixels_uv.astype(int).T
                self._points.extend(
                    zip(shape[rows, columns].tolist(), inverse.tolist(), sideways_m.tolist(), strict=True)
                )
                self._fit()
        self._tracker.look(rgb)
        self._T_odom_camera = T_odom_camera

    def _fit(self) -> None:
        values, inverse, sideways_m = np.array(self._points).reshape(-1, 3).T
        known = np.isfinite(values) & ((values > 0.0) | (self._source.kind == "disparity"))
        values, inverse, sideways_m = values[known], inverse[known], sideways_m[known]
        if len(values) < self.config.min_points:
            return
        if self._source.kind == "depth":  # 1 / depth = k / value; the error of value / depth is value / sideways motion
            ratio = weighted_median(values * inverse, sideways_m / values)
            self.scale = (1.0 / ratio, 0.0) if ratio > 0.0 else self.scale
            return
        line = robust_line(values, inverse, sideways_m)
        if line is not None and line[0] > 0.0:
            self.scale = line

    def _apply(self, shape: FloatArray) -> FloatArray | None:
        if self.scale is None:
            return None
        factor, offset = self.scale
        if self._source.kind == "depth":
            depth = factor * shape
        else:
            with np.errstate(divide="ignore", invalid="ignore"):
                depth = 1.0 / (factor * shape + offset)
        with np.errstate(invalid="ignore"):
            known = (depth > 0.0) & (depth <= self.config.max_depth_m)
        metres: FloatArray = np.where(known, depth, np.nan).astype(np.float32)
        return metres


def weighted_median(values: NDArray[Any], weights: NDArray[Any]) -> float:
    """Return the value (N,) below which half of the weight (N,) lies."""
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, 0.5 * total[-1])])


def robust_line(x: NDArray[Any], y: NDArray[Any], certainty: NDArray[Any] | None = None) -> tuple[float, float] | None:
    """Return slope and offset of the line through most points (N,), None if all x are equal.

    Starts with the median slope of pairs half of the sorted range apart (Theil 1950, Sen 1968, wide pairs only), then
    refines it by least squares that weighs each point by its ``certainty`` (N,), the inverse of its standard error, and
    lets points far off the line go (Cauchy's weights). No random numbers.
    """
    order = np.argsort(x, kind="stable")
    x, y = np.asarray(x, float)[order], np.asarray(y, float)[order]
    certainty = np.ones(len(x)) if certainty is None else np.asarray(certainty, float)[order]
    half = len(x) // 2
    run, rise = x[half:] - x[: len(x) - half], y[half:] - y[: len(y) - half]
    usable = run > 1e-9 * max(1.0, float(np.abs(x).max(initial=0.0)))
    if not usable.any():
        return None
    slope = float(np.median(rise[usable] / run[usable]))
    offset = float(np.median(y - slope * x))
    for _ in range(FIT_ROUNDS):
        error = (y - slope * x - offset) * certainty
        spread = max(float(np.median(np.abs(error))), 1e-12)
        weight = certainty**2 / (1.0 + (error / (2.0 * spread)) ** 2)
        mean_x, mean_y = np.average(x, weights=weight), np.average(y, weights=weight)
        variance = float(np.average((x - mean_x) ** 2, weights=weight))
        if variance <= 0.0:
            return None
        slope = float(np.average((x - mean_x) * (y - mean_y), weights=weight)) / variance
        offset = float(mean_y - slope * mean_x)
    return slope, offset
