"""Camera, depth, calibration and odometry of one robot, subscribed and joined: shared by all nodes that look."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo

from come_nav.core.errors import DataError
from come_nav.core.geometry import se3
from come_nav.core.types import Frame, Odometry
from come_nav.data.bags.calibration import is_rectified
from come_nav.data.bags.topics import says_registered
from come_nav.data.cameras.frames import is_optical
from come_nav.data.timing.odometry_track import OdometryTrack
from come_nav.ros import messages
from come_nav.ros.decoding import LiveCamera, LiveCameraSettings
from come_nav.ros.diagnostics import Stream
from come_nav.ros.inputs.extrinsics import Extrinsics
from come_nav.ros.inputs.image_bridge import converter
from come_nav.ros.inputs.odometry_frames import check_odometry_frame, is_base
from come_nav.ros.inputs.odometry_reset import OdometryReset, ResetAwareness, ResetDetector
from come_nav.ros.inputs.transport import AUTO, ImageTopic
from come_nav.ros.parameters import Parameter
from come_nav.ros.qos import SENSOR
from come_nav.ros.streams import Matched, Synchroniser
from come_nav.ros.transforms import at_or_newest, camera_pose, listen

CAMERA_PARAMETERS = (
    Parameter(
        "image_transport",
        AUTO,
        "which colour images are taken; auto: raw ones, or compressed ones where nobody publishes raw ones",
        choices=(AUTO, "raw", "compressed"),
        when="start",
    ),
    Parameter(
        "depth_transport",
        AUTO,
        "which depth images are taken; auto as with image_transport",
        choices=(AUTO, "raw", "compressedDepth"),
        when="start",
    ),
    Parameter("sync_slop_s", 0.05, "largest difference between colour and depth, s", 0.0, 1.0, when="start"),
    Parameter("max_input_age_s", 1.0, "report an input that is silent for longer, s", 0.05, 60.0, when="start"),
    Parameter("odom_frame", "odom", "frame of odometry", when="start"),
    Parameter("base_frame", "base_link", "frame of the robot", when="start"),
    Parameter("camera_frame", "camera_color_optical_frame", "optical frame of images that are published"),
    Parameter("image_frame", "", "optical frame of colour images; empty = their header's", when="start"),
    Parameter("depth_frame", "", "optical frame of depth images; empty = their header's", when="start"),
    Parameter("depth_scale_m", 0.001, "metres of one unit of 16UC1 depth", 1e-6, 1.0, when="start"),
    Parameter(
        "camera_xyz_rpy",
        [0.0, 0.0, 0.5, 0.0, 0.0, 0.0],
        "camera body in base_link where tf does not tell: x, y, z m, roll, pitch, yaw rad (pitch > 0 looks down)",
        when="start",
    ),
)

MASK_PARAMETERS = (
    Parameter(
        "masks",
        "none",
        "images beside the colour images (camera/color/mask, 8 bits), not 0 where something moves: that is seen and "
        "not remembered in the cloud; images whose mask does not come are dropped where required, taken where optional",
        choices=("none", "optional", "required"),
        when="start",
    ),
)

COLOUR, MASK = "camera/color/image_raw", "camera/color/mask"
DEPTH, DEPTH_INFO = "camera/depth/image_raw", "camera/depth/camera_info"


class CameraInput:
    """Subscriptions of one camera. Callbacks only keep messages; decoding happens in the worker's thread.

    Attributes:
        transforms: hear tf.
        map_resets: whether who tells where odom lies in the map knows of odometry that began anew.
    """

    def __init__(self, node: Any, depth: str = "none", masks: str = "none") -> None:
        """Subscribe; ``depth`` and ``masks`` of what moves are "none", "optional" or "required"."""
        self._node, self._lock = node, threading.Lock()
        values = node.values
        self._sync = Synchroniser(depth, values["sync_slop_s"], masks=masks)
        self._receipts: dict[float, float] = {}
        self.transforms = listen(node)
        if len(values["camera_xyz_rpy"]) != 6:
            raise DataError(f"camera_xyz_rpy must have 6 values, got {list(values['camera_xyz_rpy'])}")
        limit_s = values["max_input_age_s"]
        self._camera = LiveCamera(_camera_settings(node))
        self.image = node.watch("camera", COLOUR, limit_s)
        self.odometry = node.watch("odometry", "odom", limit_s)
        self.info = node.watch("calibration", "camera/color/camera_info", limit_s, required=depth != "none")
        ImageTopic(node, self.image, COLOUR, (values["image_transport"], "compressed"), self._take_image)
        node.subscribe(CameraInfo, "camera/color/camera_info", self._take_info, SENSOR)
        if depth != "none":
            self.depth = node.watch("depth", DEPTH, limit_s, required=depth == "required")
            transport = values["depth_transport"], "compressedDepth"
            ImageTopic(node, self.depth, DEPTH, transport, self._takes(self.depth, self._sync.add_depth))
            node.subscribe(CameraInfo, depth_info_topic(node), self._take_depth_info, SENSOR)
        if masks != "none":
            mask = node.watch("mask", MASK, limit_s, required=masks == "required")
            ImageTopic(node, mask, MASK, (AUTO, "compressed"), self._takes(mask, self._sync.add_mask))
        node.log.info(f"images are converted by {converter()}")
        self.warnings: list[str] = []
        self.extrinsics = Extrinsics(node, self.transforms, camera_pose(values["camera_xyz_rpy"]))
        self._resets = ResetDetector()
        self.map_resets = ResetAwareness()
        self._frames = {node.values.get("map_frame", ""): self.map_resets}  # of goals
        self.on_reset: Callable[[OdometryReset], object] = lambda reset: None
        self.due = False  # whether an image waited, when odometry last came, that could be taken now

    @property
    def track(self) -> OdometryTrack:
        """Odometry of the last seconds."""
        return self._sync.track

    @property
    def dropped(self) -> Counter[str]:
        """Reasons for which images were dropped, counted."""
        return self._sync.dropped

    def take_odometry(self, message: Any) -> bool:
        """Take odometry; return True when its clock jumped back."""
        steady_s = time.monotonic()
        try:
            check_odometry_frame(message, self._node.values["odom_frame"])
            odometry = self._of_base(message, messages.odometry_from_message(message))
        except DataError as error:
            self.odometry.failed(steady_s, str(error))
            return False
        self.odometry.received(steady_s, self._node.delay_s(message.header.stamp))
        reset = self._resets.update(odometry)
        with self._lock:
            if reset is not None:
                self._sync.clear()  # nothing is interpolated over the jump
                if reset.T_before_after_xyyaw is not None:
                    for told in tuple(self._frames.values()):
                        told.rebase(reset.T_before_after_xyyaw)
                self.on_reset(reset)
            jumped = self._sync.add_odometry(odometry)
            self.due = self._sync.due
        return jumped

    def take_ready(self) -> list[tuple[Matched, float]]:
        """Return what is complete, with the steady time when its image came."""
        with self._lock:
            ready = list(self._sync.ready())
            found = [(matched, self._receipts.pop(matched.stamp_s, time.monotonic())) for matched in ready]
            if len(self._receipts) > 200:
                self._receipts.clear()
        return found

    def decode(self, matched: Matched) -> Frame:
        """Return the frame; raise DataError naming what is wrong with the messages."""
        frame_id, depth_id = self._camera.frames(matched)
        T_base_camera = self.extrinsics.at(frame_id, matched.stamp_s, self.warnings)
        T_colour_depth = None
        if frame_id and depth_id:  # a camera may pan on the robot
            T_colour_depth = at_or_newest(self.transforms, frame_id, depth_id, matched.stamp_s)
        frame = self._camera.decode(matched, T_base_camera, self.warnings, T_colour_depth)
        for warning in self.warnings:
            self._node.log.warning(warning, throttle_duration_sec=60.0)
        self.warnings.clear()
        return frame

    def frames(self, wanted: Callable[[Matched], bool] = lambda _: True) -> Iterator[tuple[Frame, Matched, float]]:
        """Yield what is complete and ``wanted``, decoded, with the steady time when its image came.

        What cannot be decoded is told and left out.
        """
        for matched, received_s in self.take_ready():
            if not wanted(matched):
                continue
            try:
                frame = self.decode(matched)
            except DataError as error:
                self.image.failed(time.monotonic(), str(error))
                self._node.diagnose(error, "camera")
                continue
            yield frame, matched, received_s

    def _of_base(self, message: Any, odometry: Odometry) -> Odometry:
        """Return odometry of the base; that of another frame (a camera's, an IMU's) is carried over by tf.

        Raises:
            DataError: odometry of an optical frame that tf does not place on the robot.
        """
        base, child = self._node.values["base_frame"], str(message.child_frame_id).lstrip("/")
        if is_base(child, base):
            return odometry
        T_base_child = self.transforms.lookup(base, child)
        if T_base_child is not None:
            T_odom_base = odometry.T_odom_base @ se3.inverse(T_base_child)
            return replace(odometry, T_odom_base=T_odom_base, v_mps=None, w_radps=None, vy_mps=None)
        if is_optical(child):
            raise DataError(
                f"odometry is of the optical frame '{child}', and tf does not connect it to '{base}'; publish that "
                "transform, or odometry of the base"
            )
        return odometry

    def pose_now(self, message: Any) -> Callable[[], NDArray[np.float64] | None] | None:
        """Return what tells the pose (3,) in odom of a PoseStamped whenever asked, None while tf does not.

        None where odom is its frame, or the base, where it was told once and for all. After odometry began anew tf
        tells nothing before whoever publishes the transform has noticed.
        """
        frame, values = message.header.frame_id.lstrip("/"), self._node.values
        if frame in ("", values["odom_frame"], values["base_frame"]):
            return None

        def now() -> NDArray[np.float64] | None:
            T_odom_frame = self.transforms.lookup(values["odom_frame"], frame)
            if T_odom_frame is None or not self._is_of_present_odom(frame, T_odom_frame):
                return None
            return se3.xyyaw_from_transform(T_odom_frame @ messages.transform_from_pose(message.pose))

        return now

    def pose_in_odom(self, message: Any) -> NDArray[np.float64]:
        """Return the planar pose (3,) in odom of a PoseStamped; raise DataError where its frame is not known."""
        odom = self._node.values["odom_frame"]
        frame = message.header.frame_id.lstrip("/") or odom
        T_frame_pose = messages.transform_from_pose(message.pose)
        if frame == odom:
            return se3.xyyaw_from_transform(T_frame_pose)
        newest = self.track.newest
        if frame == self._node.values["base_frame"] and newest is not None:
            return se3.xyyaw_from_transform(newest.T_odom_base @ T_frame_pose)
        T_odom_frame = self.transforms.lookup(odom, frame)
        if T_odom_frame is None:
            raise DataError(f"goal is in frame '{frame}', and tf does not connect it to '{odom}'")
        if not self._is_of_present_odom(frame, T_odom_frame):
            raise DataError(
                f"goal is in frame '{frame}', whose transform to '{odom}' is of the odometry before it began anew; let "
                "the localiser find the robot first, or give the goal in odom"
            )
        return se3.xyyaw_from_transform(T_odom_frame @ T_frame_pose)

    def _is_of_present_odom(self, frame: str, T_odom_frame: NDArray[np.float64]) -> bool:
        """Whether a transform (4, 4) of another frame is about odometry as it is since it began anew last."""
        told = self._frames.setdefault(frame, ResetAwareness())
        return told.believes(np.array(se3.xyyaw_from_transform(se3.inverse(T_odom_frame))))

    def _take_image(self, message: Any) -> None:
        stamp_s, steady_s = messages.seconds_from_stamp(message.header.stamp), time.monotonic()
        self.image.received(steady_s, self._node.delay_s(message.header.stamp))
        with self._lock:
            self._receipts[stamp_s] = steady_s
            self._sync.add_image(stamp_s, message)

    def _takes(self, stream: Stream, add: Callable[[float, Any], None]) -> Callable[[Any], None]:
        """Return what takes messages of an input that comes beside colour images."""

        def take(message: Any) -> None:
            stream.received(time.monotonic(), self._node.delay_s(message.header.stamp))
            with self._lock:
                add(messages.seconds_from_stamp(message.header.stamp), message)

        return take

    def _take_depth_info(self, message: Any) -> None:
        with self._lock:
            self._sync.set_depth_info(message)

    def _take_info(self, message: Any) -> None:
        self.info.received(time.monotonic())
        with self._lock:
            self._sync.set_info(message)


def _camera_settings(node: Any) -> LiveCameraSettings:
    image, depth = node.resolve_topic_name(COLOUR), node.resolve_topic_name(DEPTH)
    values = node.values
    return LiveCameraSettings(
        image_frame=values["image_frame"].lstrip("/"),
        depth_frame=values["depth_frame"].lstrip("/"),
        depth_scale_m=values["depth_scale_m"],
        rectified=is_rectified(image),
        depth_rectified=is_rectified(depth),
        depth_registered=says_registered(depth),
    )


def depth_info_topic(node: Any) -> str:
    """Return the topic of the depth camera's CameraInfo: as remapped, else beside the depth images, if they were."""
    if node.resolve_topic_name(DEPTH_INFO) != node.resolve_topic_name(DEPTH_INFO, only_expand=True):
        return DEPTH_INFO
    return str(node.resolve_topic_name(DEPTH)).rsplit("/", 1)[0] + "/camera_info"
