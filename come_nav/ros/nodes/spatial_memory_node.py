"""Colour, depth and odometry into the spatial memory; the cloud and its obstacles out, for planner and RViz."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from nav_msgs.msg import Odometry as OdometryMessage
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import Trigger

from come_nav.core.errors import ComeNavError
from come_nav.core.geometry import se2
from come_nav.memory.short_term import Remembered
from come_nav.memory.spatial.cloud import InsertResult, SpatialMemory
from come_nav.memory.spatial.settings import RGB, SpatialSettings
from come_nav.navigation.loading import load_configured_model
from come_nav.navigation.localising.robot_localisation import RobotLocalisation
from come_nav.navigation.localising.settings import LocalisationSettings
from come_nav.navigation.memories.remembered_space import space_of
from come_nav.navigation.settings import NavigationSettings
from come_nav.ros import messages
from come_nav.ros.camera import CAMERA_PARAMETERS, MASK_PARAMETERS, CameraInput
from come_nav.ros.diagnostics import Latency, Level, Report
from come_nav.ros.inputs.odometry_reset import OdometryReset, motion_of_odom
from come_nav.ros.map_odom import FOLLOW_PARAMETERS, MapOdomFollower
from come_nav.ros.nodes.memory_node import MemoryNode, load_cloud, store_of
from come_nav.ros.parameters import Parameter, settings_from, settings_parameters
from come_nav.ros.qos import LATCHED, SENSOR
from come_nav.ros.streams import Matched


class SpatialMemoryNode(MemoryNode):
    """Remembers what was seen where, bounded; publishes it, saves it, and finds it again after a crash."""

    FORGOTTEN = "memory is forgotten"
    PARAMETERS = (
        *CAMERA_PARAMETERS,
        *MASK_PARAMETERS,
        *FOLLOW_PARAMETERS,
        Parameter("rate_hz", 4.0, "most frames remembered per second, Hz", 0.1, 60.0),
        Parameter("publish_period_s", 2.0, "publish the cloud this often, s", 0.1, 600.0),
        Parameter("obstacles_period_s", 0.5, "publish obstacles this often, s", 0.05, 600.0),
        Parameter("max_published_points", 50000, "the published cloud is thinned to this", 100, 10000000),
        Parameter("obstacle_range_m", 5.0, "obstacles within this distance are published, m", 0.5, 100.0),
        Parameter("obstacle_min_height_m", 0.1, "lowest obstacle, m above the odom plane", -10.0, 10.0),
        Parameter("obstacle_max_height_m", 1.2, "highest obstacle, m above the odom plane", -10.0, 10.0),
        Parameter("min_hits", 2.0, "a point counts as obstacle when it was seen this often", 0.0, 1000.0),
        Parameter("model", NavigationSettings.model, "whose latents are remembered, where it is latents", when="start"),
        Parameter("device", NavigationSettings.device, "where that model runs", when="start"),
        Parameter("memory_folder", "", "where the memory is saved and found again; empty = nowhere", when="start"),
        Parameter("save_period_s", 20.0, "save this often, s", 0.5, 3600.0),
        *settings_parameters(SpatialSettings(), "spatial."),
    )

    def __init__(self, **keywords: Any) -> None:
        super().__init__("spatial_memory", **keywords)

    def setup(self) -> None:
        """Load what was saved; subscribe."""
        settings = settings_from(SpatialSettings(), self.values, "spatial.")
        # Latents lie too far apart to tell what is in the way: colours are then remembered beside them, and not saved.
        self._surfaces = SpatialMemory(replace(settings, features=RGB))
        self._memory = self._surfaces if settings.features == RGB else self._of_latents(settings)
        self._clouds = dict.fromkeys((self._surfaces, self._memory))
        load_cloud(self, self._memory)
        self._camera = CameraInput(self, depth="required", masks=self.values["masks"])
        self._camera.on_reset = self._requests.append
        # Anchors alone, without features: what was seen at each moves as another localiser says.
        self._localisation = RobotLocalisation(LocalisationSettings(use=False))
        for cloud in self._clouds:
            self._localisation.on_correction.append(cloud.move)
        self._map_odom = MapOdomFollower(
            self, self._camera.transforms, self._localisation, resets=self._camera.map_resets
        )
        self._cloud = self.advertise(PointCloud2, "spatial_memory", LATCHED)
        self._obstacles = self.advertise(PointCloud2, "obstacles", LATCHED)
        self._latency = Latency()
        self._verdicts: dict[str, int] = {}
        self._last_stamp_s = float("-inf")
        self._pose_odom_xyyaw: NDArray[np.float64] | None = None
        self._looks = 0  # frames that were kept since the cloud was empty
        self._frames_saved = self._memory.frames
        self._due = dict.fromkeys(("cloud", "obstacles", "save"), time.monotonic())
        self._requests.clear()
        self._failure: tuple[float, str] | None = None
        self.subscribe(OdometryMessage, "odom", self._take_odometry, SENSOR)
        self.serve(Trigger, "~/reset", self._reset)
        self.serve(Trigger, "~/save", self._save_now)

    def start(self) -> None:
        """Begin to remember."""
        self._worker.start()

    def stop(self) -> None:
        """Stop and save."""
        if self._worker.stop():
            self._save()

    def reports(self) -> Sequence[Report]:
        """Return what is remembered and what was refused."""
        memory = self._memory
        values: dict[str, Any] = {"points": len(memory), "bytes": memory.nbytes, "frames": memory.frames}
        values |= {f"frames {verdict}": count for verdict, count in self._verdicts.items()}
        values |= {f"images dropped: {cause}": count for cause, count in self._camera.dropped.items()}
        values |= self._latency.values("image_to_memory")
        level, text = Level.OK, f"{len(memory)} points"
        if self._failure is not None and time.monotonic() - self._failure[0] < 5.0:
            level, text = Level.ERROR, self._failure[1]
        return [
            Report("memory", level, text, values),
            self._camera.extrinsics.report(),
            *self._map_odom.reports(),
        ]

    # -- callbacks -----------------------------------------------------------------------------------------------------

    def _take_odometry(self, message: OdometryMessage) -> None:
        if self._camera.take_odometry(message):
            self._last_stamp_s = float("-inf")
            self.log.warning("the clock of odometry jumped back; the memory stays, in its odom frame")
        if self._camera.due:  # each wake costs the executor a turn at the interpreter's lock
            self._worker.wake()

    # -- the worker's thread -------------------------------------------------------------------------------------------

    def _work(self) -> float:
        if self._map_odom.update():
            self._frames_saved = -1  # others who follow the store shall have it where it is now
        save = self._obey_all()
        self._remember()
        if save or self._time_for("save", self.values["save_period_s"]):
            self._save()
        if self._time_for("cloud", self.values["publish_period_s"]):
            self._publish_cloud()
        if self._time_for("obstacles", self.values["obstacles_period_s"]):
            self._publish_obstacles()
        return 0.05

    def _obey(self, request: str | OdometryReset) -> None:
        T_before_after = motion_of_odom(request)
        if isinstance(request, OdometryReset):
            self._pose_odom_xyyaw = None  # obstacles are published again with the next frame
            self._frames_saved = -1  # whoever follows the store needs it as it is now
        if T_before_after is None:
            self._pose_odom_xyyaw, self._looks = None, 0
        if T_before_after is None:
            self._localisation.reset()
        else:
            self._localisation.rebase(T_before_after)
        for cloud in self._clouds:
            if T_before_after is None:
                cloud.clear()
            else:
                cloud.map_frame.rebase(T_before_after)

    def _of_latents(self, settings: SpatialSettings) -> SpatialMemory:
        names = {"model": self.values["model"], "device": self.values["device"]}
        return space_of(load_configured_model(NavigationSettings(**names)), settings)

    def _remember(self) -> None:
        def due(matched: Matched) -> bool:
            return bool(matched.stamp_s - self._last_stamp_s >= 0.9 / self.values["rate_hz"])

        for frame, matched, received_s in self._camera.frames(due):
            if self._map_odom.on:
                pose = matched.odometry.pose_xyyaw
                self._localisation.observe(Remembered(matched.stamp_s, pose, frame, None))
            *_, verdict = [cloud.observe(frame, matched.odometry.T_odom_base) for cloud in self._clouds]
            self._verdicts[verdict.value] = self._verdicts.get(verdict.value, 0) + 1
            if verdict is not InsertResult.KEPT:
                self._failure = (time.monotonic(), f"the newest frame was not remembered: {verdict.value}")
                continue
            self._latency.add(time.monotonic() - received_s)
            self._last_stamp_s, self._looks = matched.stamp_s, self._looks + 1
            self._pose_odom_xyyaw = matched.odometry.pose_xyyaw

    def _publish_cloud(self) -> None:
        points, most = self._surfaces.points_xyz, int(self.values["max_published_points"])
        chosen = slice(None, None, max(1, -(-len(points) // most)))
        colours = np.clip((self._surfaces.point_features[chosen, :3] + 1.0) * 127.5, 0, 255).astype(np.uint8)
        frame_id = self.values["odom_frame"]
        self._cloud.publish(messages.cloud_message(points[chosen], colours, self.now_s(), frame_id))

    def _publish_obstacles(self) -> None:
        pose, stamp_s = self._pose_odom_xyyaw, self._last_stamp_s
        values = self.values
        if pose is None or not np.isfinite(stamp_s) or self._looks < math.ceil(values["min_hits"]):
            return  # an empty cloud would say that nothing is in the way: whoever plans stands until more was seen
        heights = (values["obstacle_min_height_m"], values["obstacle_max_height_m"])
        points = self._surfaces.points_near(pose, values["obstacle_range_m"], heights, values["min_hits"])
        planar = se2.transform_points(pose, points[:, :2].astype(np.float64))
        odom = np.column_stack([planar, points[:, 2]]).astype(np.float32)
        # Of the newest frame in it, not of now: whoever plans must see that it no longer grows.
        self._obstacles.publish(messages.cloud_message(odom, None, stamp_s, values["odom_frame"]))

    # -- disk ----------------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        store = store_of(self.values)
        if store is None or self._memory.frames == self._frames_saved:
            return
        try:
            store.save(cloud=self._memory.state(), about={"saved_by": self.get_name()})
            self._frames_saved = self._memory.frames
        except ComeNavError as error:
            self._failure = (time.monotonic(), str(error))
            self.diagnose(error, "memory")
