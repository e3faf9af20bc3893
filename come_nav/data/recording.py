"""A bag as a Recording: one pass collects stamps and poses, frames are decoded when asked for, memory stays bounded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError
from come_nav.core.files import printable
from come_nav.core.geometry import se3
from come_nav.core.types import CameraIntrinsics, Frame
from come_nav.data.bags.bag import Bag, BagMessage
from come_nav.data.bags.images import Depth, Rgb, decode_colour, decode_depth
from come_nav.data.decoded_frames import DecodedFrames
from come_nav.data.scan import BagScan
from come_nav.data.timing.matching import StampedTopic
from come_nav.data.timing.stamps import seconds_from_ns
from come_nav.data.video.stream import VideoStream


class BagRecording(DecodedFrames):
    """core.protocols.Recording over an open bag. Close it, or use it as a context manager."""

    def __init__(self, bag: Bag, scan: BagScan) -> None:
        super().__init__()
        self.bag, self._scan = bag, scan
        path = bag.path.parent if bag.path.name == "metadata.yaml" else bag.path
        self.name = printable(path.stem if path.is_file() else path.name)
        self.path: Path = bag.path
        self.report = scan.report
        self.rate_hz = scan.report.rate_hz
        self.stamps_s: NDArray[np.float64] = seconds_from_ns(scan.images.header_ns)
        self.T_odom_base = scan.T_odom_base
        self.poses_xyyaw = se3.xyyaw_from_transform(scan.T_odom_base)
        self.intrinsics: CameraIntrinsics | None = None if scan.lens is None else scan.lens.pinhole
        self.T_base_camera = _extrinsics_at(scan.T_base_camera, 0)
        self.gaps = scan.report.gaps
        self.metadata: dict[str, Any] = dict(bag.custom_data)
        self._video = None if scan.video is None else VideoStream(bag, scan.video)

    def close(self) -> None:
        """Close the bag's files; reading again reopens them."""
        self.bag.close()

    def _decode(self, index: int) -> Frame:
        rgb, header_id = self._colour(index)
        _check_size("image", rgb, self.intrinsics)
        depth = self._decode_depth(index, rgb)
        if self._scan.lens is not None:
            rgb = self._scan.lens.straighten(rgb)
        T_base_camera = _extrinsics_at(self._scan.T_base_camera, index)
        frame_id = self._scan.frame_id or header_id or "camera_color_optical_frame"
        return Frame(float(self.stamps_s[index]), rgb, depth, self.intrinsics, T_base_camera, frame_id)

    def _colour(self, index: int) -> tuple[Rgb, str]:
        """Return the image of a row as it was taken, and the frame that its message names."""
        images = self._scan.images
        if self._video is not None and self._scan.video is not None:
            rgb = self._video.image(int(images.header_ns[index]), int(images.log_ns[index]))
            return rgb, self._scan.video.frame_id
        message = self._read(images, index)
        decoded = message.decode()
        return decode_colour(decoded, message.type, self._scan.bits), str(decoded.header.frame_id).lstrip("/")

    def _decode_depth(self, index: int, rgb: Rgb) -> Depth | None:
        stream, alignment = self._scan.depth, self._scan.alignment
        if stream is None or alignment is None or stream.log_ns[index] < 0:
            return None
        message = self._read(stream, index)
        depth = decode_depth(message.decode(), message.type, self._scan.depth_scale_m)
        expected = rgb.shape[:2] if alignment.depth is None else (alignment.depth.height, alignment.depth.width)
        if depth.shape != expected:
            raise DataError(
                f"depth is {depth.shape[1]}x{depth.shape[0]} but the image is {rgb.shape[1]}x{rgb.shape[0]}; name the "
                "depth topic that is aligned to colour (--depth-topic), or 'none'"
            )
        return alignment(depth)

    def _read(self, stream: StampedTopic, index: int) -> BagMessage:
        """Return the message of row ``index``; several may have been logged at once, the header tells them apart."""
        log_ns, header_ns = int(stream.log_ns[index]), int(stream.header_ns[index])
        for message in self.bag.messages([stream.name], log_ns, log_ns + 1):
            if message.header_ns == header_ns:
                return message
        raise DataError(f"{stream.name} has no message there any more; the bag changed or is damaged")


def _extrinsics_at(T_base_camera: NDArray[np.float64] | None, index: int) -> NDArray[np.float64] | None:
    """Return T_base_camera (4, 4) of a frame, of a fixed camera or of one that moves (N, 4, 4)."""
    if T_base_camera is None or T_base_camera.ndim == 2:
        return T_base_camera
    moving: NDArray[np.float64] = T_base_camera[index]
    return moving


def _check_size(what: str, rgb: Rgb, intrinsics: CameraIntrinsics | None) -> None:
    height, width = rgb.shape[:2]
    if intrinsics is not None and (width, height) != (intrinsics.width, intrinsics.height):
        raise DataError(
            f"{what} is {width}x{height}, expected {intrinsics.width}x{intrinsics.height} as the first frame"
        )
