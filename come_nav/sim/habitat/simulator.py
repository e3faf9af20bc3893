"""Habitat (habitat-sim 0.3) behind the ``Simulator`` protocol: scanned buildings instead of the built-in worlds.

Habitat's axes are x right, y up, z backwards; REP-103's are x forward, y left, z up. So
``(x, y, z)_ros = (-z, -x, y)_habitat``, and a yaw about z is the same yaw about Habitat's y.
"""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.checks import check_range, check_shape
from come_nav.core.errors import ConfigError, DataError
from come_nav.core.geometry import se2, se3
from come_nav.core.types import CameraIntrinsics, Frame, Odometry
from come_nav.sim.robot import RobotSettings
from come_nav.sim.sensors.mounting import camera_in_base
from come_nav.sim.sensors.odometry import OdometrySettings, WheelOdometry

WORKER = Path(__file__).with_name("worker.py")
STOPPED_SHORT_M = 1e-3  # a step that ends this far from its target was stopped by something


def habitat_from_ros(xyz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return points (..., 3) in Habitat's axes of points in REP-103's."""
    return np.stack([-xyz[..., 1], xyz[..., 2], -xyz[..., 0]], axis=-1)


def ros_from_habitat(xyz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return points (..., 3) in REP-103's axes of points in Habitat's."""
    return np.stack([-xyz[..., 2], -xyz[..., 0], xyz[..., 1]], axis=-1)


class HabitatSimulator:
    """A robot in a Habitat scene (``Simulator`` protocol). Time passes only in :meth:`step`. Call :meth:`close`."""

    def __init__(
        self,
        scene: str,
        intrinsics: CameraIntrinsics,
        *,
        python: str = "python3",
        seed: int = 0,
        robot: RobotSettings | None = None,
        odometry_noise: OdometrySettings | None = None,
        camera_height_m: float = 0.5,
    ) -> None:
        """Start the process and load the scene.

        Args:
            scene: path of a .glb or .ply file.
            intrinsics: of the camera; pixels must be square and the principal point in the centre.
            python: the interpreter that has habitat-sim; it needs neither come_nav nor torch.
            seed: of random start points and of the noise.
            robot: limits; the default robot when None.
            odometry_noise: None gives perfect odometry.
            camera_height_m: above base_link.

        Raises:
            ConfigError: no such interpreter, habitat-sim is not in it, or it cannot load the scene.
        """
        if not scene:
            raise ConfigError("scene is empty: give the path of a scene file for Habitat")
        self.intrinsics, self.config = intrinsics, robot or RobotSettings()
        self.collisions = 0
        self._noise, self._camera_height_m = odometry_noise, camera_height_m
        self._generator = torch.Generator().manual_seed(seed)
        self._rng = np.random.default_rng(seed)
        self._xyz: NDArray[np.float64] = np.zeros(3)
        self._yaw = 0.0
        try:
            self._process = subprocess.Popen(
                [python, str(WORKER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for this process, which then ends it
            )
        except OSError as error:
            raise ConfigError(f"habitat_python '{python}' cannot be started ({error.strerror})") from error
        fov_rad = 2.0 * math.atan(0.5 * intrinsics.width / intrinsics.fx)
        self._ask(
            {
                "scene": scene,
                "seed": seed,
                "width": intrinsics.width,
                "height": intrinsics.height,
                "horizontal_fov_rad": fov_rad,
                "camera_height_m": camera_height_m,
            }
        )
        self.reset()

    @property
    def time_s(self) -> float:
        """Simulated time since the last reset."""
        return self._time_s

    @property
    def pose_world_xyyaw(self) -> NDArray[np.float64]:
        """True planar pose (3,)."""
        return np.array([*self._xyz[:2], self._yaw])

    def reset(self, pose_world_xyyaw: NDArray[np.float64] | None = None) -> None:
        """Start again at a pose, or at a random one that is free; odometry starts at zero.

        Raises:
            ConfigError: nobody can stand at the pose.
        """
        if pose_world_xyyaw is None:
            found, _ = self._ask({"do": "start"})
            self._yaw = float(self._rng.uniform(-math.pi, math.pi))
        else:
            check_shape("pose_world_xyyaw", pose_world_xyyaw, "3")
            wanted = np.array([pose_world_xyyaw[0], pose_world_xyyaw[1], self._xyz[2]])  # on the same floor
            found, _ = self._ask({"do": "snap", "position": habitat_from_ros(wanted).tolist()})
            self._yaw = float(pose_world_xyyaw[2])
        position = ros_from_habitat(np.array(found["position"], float))
        if not np.isfinite(position).all():
            raise ConfigError(f"nobody can stand at {pose_world_xyyaw}; omit it for a random free pose")
        self._xyz = position
        self._v_mps = self._w_radps = self._time_s = 0.0
        self._odometry = WheelOdometry(self._noise, self._generator)

    def step(self, v_mps: float, w_radps: float, duration_s: float) -> bool:
        """Drive a twist for ``duration_s`` within the robot's limits; return True if the robot hit something.

        Raises:
            ConfigError: for a duration below zero or a twist that is not finite.
        """
        check_range("duration_s", duration_s, 0.0)
        if not (math.isfinite(v_mps) and math.isfinite(w_radps)):
            raise ConfigError(f"twist must be finite, got ({v_mps}, {w_radps})")
        count = math.ceil(duration_s / self.config.step_s - 1e-9)
        poses, collided = [self.pose_world_xyyaw], False
        for _ in range(count):
            collided |= self._small_step(v_mps, w_radps, duration_s / count)
            poses.append(self.pose_world_xyyaw)
        self._odometry.advance(np.stack(poses))
        self._time_s += duration_s
        self.collisions += int(collided)
        return collided

    def observe(self) -> tuple[Frame, Odometry]:
        """Return what the camera sees now and what odometry believes."""
        position = habitat_from_ros(self._xyz).tolist()
        reply, blobs = self._ask({"do": "observe", "position": position, "yaw": self._yaw})
        shape = (int(reply["height"]), int(reply["width"]))
        rgb = np.frombuffer(blobs[0], np.uint8).reshape(*shape, 3)
        depth = np.frombuffer(blobs[1], "<f4").reshape(shape).astype(np.float32)
        depth[~(depth > 0)] = np.nan
        frame = Frame(self._time_s, rgb, depth, self.intrinsics, camera_in_base(self._camera_height_m))
        return frame, self.odometry()

    def odometry(self) -> Odometry:
        """Return what odometry believes, without rendering a view."""
        T_odom_base = se3.transform_from_xyyaw(self._odometry.pose_odom_xyyaw)
        return Odometry(self._time_s, T_odom_base, self._v_mps, self._w_radps)

    def close(self) -> None:
        """End the process."""
        if self._process.poll() is None and self._process.stdin is not None:
            self._process.stdin.close()
            try:
                self._process.wait(10.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _small_step(self, v_mps: float, w_radps: float, dt_s: float) -> bool:
        limits = self.config
        v = float(np.clip(v_mps, -limits.v_max_mps, limits.v_max_mps))
        w = float(np.clip(w_radps, -limits.w_max_radps, limits.w_max_radps))
        most_v, most_w = limits.v_acceleration * dt_s, limits.w_acceleration * dt_s
        self._v_mps += float(np.clip(v - self._v_mps, -most_v, most_v))
        self._w_radps += float(np.clip(w - self._w_radps, -most_w, most_w))
        moved = se2.integrate_twist(np.asarray(self._v_mps), np.asarray(self._w_radps), dt_s)
        target = se2.compose(self.pose_world_xyyaw, moved)
        request = {"do": "move", "position": habitat_from_ros(self._xyz).tolist()}
        request["target"] = habitat_from_ros(np.array([target[0], target[1], self._xyz[2]])).tolist()
        found, _ = self._ask(request)
        reached = ros_from_habitat(np.array(found["position"], float))
        if float(np.hypot(*(reached[:2] - target[:2]))) > STOPPED_SHORT_M:
            self._v_mps = self._w_radps = 0.0  # stands still where it was, as in the built-in simulator
            return True
        self._xyz, self._yaw = reached, float(target[2])
        return False

    def _ask(self, request: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
        """Send a request and return its reply with the bytes that follow it."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("the process was started with pipes")
        try:
            stdin.write(json.dumps(request).encode() + b"\n")
            stdin.flush()
            line = stdout.readline()
        except OSError:
            line = b""
        if not line:
            raise DataError(f"the Habitat process ended (status {self._process.poll()}); its last words are above")
        reply = json.loads(line)
        if "error" in reply:
            self.close()
            raise ConfigError(f"Habitat: {reply['error']}; habitat_python must name a Python with habitat-sim 0.3")
        return reply, [stdout.read(size) for size in reply["sizes"]]
