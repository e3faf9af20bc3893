"""What one pass over a bag collects while messages stream by: stamps, calibration, transforms and poses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np

from come_nav.core.errors import DataError
from come_nav.data.bags.bag import Bag, BagMessage
from come_nav.data.bags.calibration import is_rectified, read_lens
from come_nav.data.bags.images import decode_colour, decode_depth, used_bits
from come_nav.data.bags.poses import PoseCollector
from come_nav.data.bags.ros_types import IMAGE, TF_TYPES
from come_nav.data.bags.topics import TopicChoice, says_registered
from come_nav.data.bags.transforms import TransformTree, is_static_topic, without_stamps
from come_nav.data.cameras.depth_alignment import DepthAlignment, DepthView, align_depth
from come_nav.data.cameras.lens import Lens
from come_nav.data.cameras.wholeness import look_at
from come_nav.data.scan_settings import ScanSettings
from come_nav.data.timing.matching import StampedTopic
from come_nav.data.video.packets import packet_of
from come_nav.data.video.stream import VideoIndex, VideoStream, require_av

BEFORE_START = "the video begins in the midst, and is read from its first key picture on"
HEADER_BYTES = 12  # of a message until behind its stamp, in CDR and in ROS 1
TF_MESSAGES_FOR_EXTRINSICS = 500  # enough for every publisher to have spoken once; decoding all of /tf is slow


@dataclass(frozen=True)
class CameraView:
    """Frame and lens of the colour images, ``lens`` None where they are not calibrated; bits that their values use."""

    frame: str
    lens: Lens | None
    bits: int = 16


class ScanPass:
    """Collects what the recording is made of.

    Attributes:
        topics: that are read.
        stamps: image topic -> (header, log) stamps of messages that are whole.
        checksums: (header, log) stamps of an image -> of its bytes.
        tree: first transforms of each frame, newest of static ones.
        video: pieces of video that images are made of, None where they are still images.
        collector: of poses, None where they come from transforms.
    """

    def __init__(self, bag: Bag, topics: TopicChoice) -> None:
        self.topics, self._path = topics, bag.path
        self.stamps: dict[str, list[tuple[int, int]]] = {topics.image: []}
        if topics.depth is not None:
            self.stamps[topics.depth] = []
        self.checksums: dict[tuple[int, int], int] = {}
        self.video: VideoIndex | None = None
        self._pose_clock_ns: list[int] = []  # header minus log time
        self.tree = TransformTree()
        self._first: dict[str, BagMessage] = {}
        self._infos: dict[str, Any] = {name: None for name in (topics.info, topics.depth_info) if name is not None}
        self._faults: dict[str, list[tuple[int, str]]] = {name: [] for name in self.stamps}
        self._sizes: dict[str, tuple[int, int]] = {}
        self._without_stamp = dict.fromkeys(self.stamps, 0)
        self._tf_left = dict.fromkeys(topics.tf, TF_MESSAGES_FOR_EXTRINSICS)
        pose_type = bag.topic(topics.pose).type
        self.collector = None if pose_type in TF_TYPES else PoseCollector(topics.pose, pose_type)

    def run(self, bag: Bag, settings: ScanSettings, warnings: list[str]) -> None:
        """Stream the chosen part of the bag, and what was published once before it."""
        start_ns = None if settings.start_s is None else bag.start_ns + round(settings.start_s * 1e9)
        stop_ns = None if settings.stop_s is None else bag.start_ns + round(settings.stop_s * 1e9)
        wanted = {*self.stamps, *self._tf_left, *self._infos}
        if self.collector is not None:
            wanted.add(self.topics.pose)
        if start_ns is not None:
            self._before(bag, start_ns)
        for message in bag.messages(wanted, start_ns, stop_ns):
            self._take(message)
        self._tell_faults(bag, warnings)

    def images(self, warnings: list[str]) -> StampedTopic:
        """Return where the images are, in the order of their stamps."""
        for name, count in self._without_stamp.items():
            if count > 1:  # a first one alone is that of simulated time before its clock, and dropped
                warnings.append(without_stamps(name, count, len(self.stamps[name])))
        return StampedTopic.cleaned(self.topics.image, self.stamps[self.topics.image], warnings)

    def camera_view(self, bag: Bag, settings: ScanSettings, warnings: list[str]) -> CameraView:
        """Return frame and lens of the colour images."""
        message = self._first[self.topics.image]
        decoded = message.decode()
        named = decoded.header.frame_id if self.video is None else self.video.frame_id
        frame = settings.camera_frame or str(named).lstrip("/")
        bits = used_bits(decoded, message.type)
        if bits < 16:
            warnings.append(f"{self.topics.image}: 16-bit images use {bits} bits and are brightened accordingly")
        info = self._infos.get(self.topics.info or "")
        if info is None or self.topics.info is None:
            return CameraView(frame, None, bits)
        if self.video is None:
            height, width = decode_colour(decoded, message.type).shape[:2]
        else:
            height, width = VideoStream(bag, self.video).image(*self.video.stamps[0]).shape[:2]
        rectified = is_rectified(self.topics.image)
        lens = read_lens(info, (width, height), self.topics.info, warnings, rectified=rectified)
        return CameraView(frame, lens, bits)

    def depth_alignment(self, view: CameraView, warnings: list[str]) -> DepthAlignment | None:
        """Return how depth gets into the colour image, None where that cannot be told."""
        name = self.topics.depth
        if name is None or name not in self._first:
            return None
        decoded = self._first[name].decode()
        frame = str(decoded.header.frame_id).lstrip("/")
        lens, topic = None, self.topics.depth_info
        info = self._infos.get(topic or "")
        if info is not None and topic is not None and topic != self.topics.info:
            height, width = decode_depth(decoded, self._first[name].type).shape
            lens = read_lens(info, (width, height), topic, warnings, rectified=is_rectified(name))
        of_depth = DepthView(name, frame, lens, says_registered(name))
        T_colour_depth = self.tree.lookup(view.frame, frame) if frame else None
        named = "depth" in self.topics.named
        return align_depth(view.frame, view.lens, of_depth, T_colour_depth, warnings, believed=named)

    def _before(self, bag: Bag, start_ns: int) -> None:
        """Take what a late listener would still get: static transforms, and the last CameraInfo."""
        latched = [name for name in self._tf_left if is_static_topic(name)]
        for message in bag.messages([*latched, *self._infos], None, start_ns):
            if message.topic in self._infos:
                self._infos[message.topic] = message
            else:
                self._take(message)
        self._infos = {name: None if found is None else found.decode() for name, found in self._infos.items()}

    def _take(self, message: BagMessage) -> None:
        name = message.topic
        if name in self.stamps:
            fault, size = look_at(message, name == self.topics.depth)
            if fault is None and size is not None:
                first = self._sizes.setdefault(name, size)
                if size != first:
                    fault = f"it has {size[0]}x{size[1]} px, and the first ones {first[0]}x{first[1]}"
            if fault is not None:
                self._faults[name].append((message.header_ns, fault))
                return
            if name == self.topics.image and not self._take_video(message):
                return
            self.stamps[name].append((message.header_ns, message.log_ns))
            self._without_stamp[name] += not message.has_stamp
            self._first.setdefault(name, message)
            if name == self.topics.image:
                self.checksums[message.header_ns, message.log_ns] = crc32(memoryview(message.raw)[HEADER_BYTES:])
        elif name in self._infos:
            if self._infos[name] is None:
                self._infos[name] = message.decode()
        elif name in self._tf_left:
            if is_static_topic(name) or self._tf_left[name] > 0:
                self._tf_left[name] -= 1
                self.tree.add(message.decode(), is_static_topic(name), keep_all=False)
        elif self.collector is not None:
            self._pose_clock_ns.append(message.header_ns - message.log_ns)
            self.collector.add(message.header_ns, message.decode(), message.log_ns)

    def _take_video(self, message: BagMessage) -> bool:
        """Note a piece of video; return False where no picture can be made of it. Still images are left as they are."""
        if message.type == IMAGE:
            return True
        packet = packet_of(message.decode(), message.type)
        if packet is None:
            return True
        if self.video is None:
            require_av(f"{self._path}: {message.topic} is video, and reading it")
            self.video = VideoIndex(message.topic)
        if self.video.add(message, packet):
            return True
        self._faults[message.topic].append((message.header_ns, BEFORE_START))
        return False

    def offset_of_clocks_s(self, images: StampedTopic) -> float | None:
        """Return what must be added to the poses' stamps so that both topics' agree with the recorder's clock."""
        if not self._pose_clock_ns:
            return None
        return float((np.median(images.header_ns - images.log_ns) - np.median(self._pose_clock_ns)) * 1e-9)

    def _tell_faults(self, bag: Bag, warnings: list[str]) -> None:
        image = self.topics.image
        for name, faults in self._faults.items():
            if not faults:
                continue
            count = len(faults) + len(self.stamps[name])
            told = f"{len(faults)} of {count} images; the first, at {faults[0][0] * 1e-9:.3f} s: {faults[0][1]}"
            if name == image and not self.stamps[name]:
                raise DataError(f"{bag.path}: {name} has no image that is whole: {told}")
            warnings.append(f"{name}: left out {told}")
        if not self.stamps[image]:
            raise DataError(f"{bag.path}: {image} has no message in the chosen part of the bag")
