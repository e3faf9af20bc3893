"""Runs habitat-sim for :mod:`come_nav.sim.habitat.simulator` in a process and, if need be, another Python environment.

habitat-sim pins old versions of numpy, so this file uses numpy and habitat-sim alone and is started by its path. It
reads one JSON object per line and answers with one JSON object per line, followed by the bytes that it announces.
Positions are Habitat's: metres, y up; ``yaw`` is about y, and at yaw 0 the camera looks along -z.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
from typing import Any, BinaryIO

import numpy as np


class World:
    """One scene with one agent that carries a colour and a depth camera."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.habitat = importlib.import_module("habitat_sim")
        self.sim = self.habitat.Simulator(self._configuration(request))
        self.sim.seed(int(request["seed"]))

    def _configuration(self, request: dict[str, Any]) -> Any:
        habitat = self.habitat
        scene = habitat.SimulatorConfiguration()
        scene.scene_id = request["scene"]
        scene.enable_physics = False
        sensors = []
        for name, kind in (("color", habitat.SensorType.COLOR), ("depth", habitat.SensorType.DEPTH)):
            sensor = habitat.CameraSensorSpec()
            sensor.uuid, sensor.sensor_type = name, kind
            sensor.resolution = [int(request["height"]), int(request["width"])]
            sensor.hfov = math.degrees(float(request["horizontal_fov_rad"]))
            sensor.position = [0.0, float(request["camera_height_m"]), 0.0]
            sensors.append(sensor)
        agent = habitat.agent.AgentConfiguration()
        agent.sensor_specifications = sensors
        return habitat.Configuration(scene, [agent])

    def start(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return a random point that one can stand on."""
        finder = self.sim.pathfinder
        point = finder.get_random_navigable_point() if finder.is_loaded else np.zeros(3)
        return {"position": [float(value) for value in point]}

    def snap(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the nearest point to ``position`` that one can stand on; NaN where there is none."""
        finder, wanted = self.sim.pathfinder, np.array(request["position"], np.float32)
        point = finder.snap_point(wanted) if finder.is_loaded else wanted
        return {"position": [float(value) for value in point]}

    def move(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return where a step from ``position`` to ``target`` ends: walls stop it."""
        finder = self.sim.pathfinder
        start, target = np.array(request["position"], np.float32), np.array(request["target"], np.float32)
        end = finder.try_step_no_sliding(start, target) if finder.is_loaded else target
        return {"position": [float(value) for value in end]}

    def observe(self, request: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
        """Return colour (H, W, 3) uint8 and depth (H, W) float32 metres at a position and yaw."""
        state = self.habitat.AgentState()
        half = 0.5 * float(request["yaw"])
        state.position = np.array(request["position"], np.float32)
        state.rotation = [0.0, math.sin(half), 0.0, math.cos(half)]  # x, y, z, w
        self.sim.get_agent(0).set_state(state)
        seen = self.sim.get_sensor_observations()
        colour = np.ascontiguousarray(np.asarray(seen["color"])[..., :3], np.uint8)
        depth = np.ascontiguousarray(np.asarray(seen["depth"]), "<f4")
        return {"height": colour.shape[0], "width": colour.shape[1]}, [colour.tobytes(), depth.tobytes()]


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer requests until their stream ends."""
    world: World | None = None
    for line in requests:
        request = json.loads(line)
        blobs: list[bytes] = []
        try:
            if world is None:
                world, reply = World(request), {}
            else:
                answer = getattr(world, request["do"])(request)
                reply, blobs = answer if isinstance(answer, tuple) else (answer, [])
        except Exception as error:  # whatever habitat-sim raises, its caller needs one line
            reply, blobs = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}, []
        reply["sizes"] = [len(blob) for blob in blobs]
        replies.write(json.dumps(reply).encode() + b"\n" + b"".join(blobs))
        replies.flush()


if __name__ == "__main__":
    # habitat-sim logs to standard output, which must carry replies alone: keep it, and send the rest to standard error
    kept = os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(kept, "wb") as private:
        serve(sys.stdin.buffer, private)
