"""Messages of one live camera to frames: straightened, depth registered to colour, as recorded ones are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError
from come_nav.core.types import Frame
from come_nav.data.bags.calibration import read_lens
from come_nav.data.bags.images import MILLIMETRE, Depth, png_values
from come_nav.data.cameras.depth_alignment import DepthView, align_depth
from come_nav.data.cameras.lens import Lens
from come_nav.ros.inputs.image_bridge import colour_of, depth_of
from come_nav.ros.streams import Matched

Size = tuple[int, int]


@dataclass(frozen=True)
class LiveCameraSettings:
    """What parameters and topics say about a camera.

    Attributes:
        image_frame, depth_frame: optical frames of both images where their headers are wrong; empty = the headers'.
        depth_scale_m: metres of one unit of integer depth images.
        rectified, depth_rectified: their topics say that images are rectified, see :func:`is_rectified`.
        depth_registered: the depth topic says that it lies in the pixels of the colour image.
    """

    image_frame: str = ""
    depth_frame: str = ""
    depth_scale_m: float = MILLIMETRE
    rectified: bool = False
    depth_rectified: bool = False
    depth_registered: bool = False


def frame_of(message: Any) -> str:
    """Return the frame in a message's header, without a leading slash."""
    return str(message.header.frame_id).lstrip("/")


def moving_of(message: Any, size: Size, lens: Lens | None) -> NDArray[np.bool_]:
    """Return where (H, W) a mask of the colour image is not 0; it may be smaller or larger than the image.

    Raises:
        DataError: for labels of more than eight bits, the small ones of which would be lost, or a mask of another
            part of the view than the image, which its shape tells.
    """
    encoding = str(getattr(message, "encoding", "")).lower()
    if not encoding and png_values(bytes(message.data)) is not None:
        encoding = "16-bit png"
    if "16" in encoding or "32" in encoding:
        raise DataError(f"a mask of what moves has encoding {encoding}; publish one of 8 bits (mono8), 0 where nothing")
    mask = (colour_of(message).max(axis=2) > 0).astype(np.uint8) * 255
    height, width = mask.shape
    if abs(width - size[0] * height / size[1]) > 1.0 and abs(height - size[1] * width / size[0]) > 1.0:
        raise DataError(
            f"a mask of what moves has {width} x {height} pixels, and its image {size[0]} x {size[1]}; publish it in "
            "the image's proportions, without the border or the cut that a network's input has"
        )
    mask = np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST), np.uint8)
    if lens is not None:
        mask = lens.straighten(mask)
    moving: NDArray[np.bool_] = mask > 0
    return moving


class LiveLens:
    """The lens of one camera, read anew only when CameraInfo changes: the maps that straighten images are costly."""

    def __init__(self, topic: str = "camera_info", rectified: bool = False) -> None:
        """Name the topic for messages; images that are ``rectified`` have the matrix P and no distortion."""
        self._topic, self._rectified = topic, rectified
        self._key: Any = None
        self._lens: Lens | None = None

    def of(self, info: Any | None, size: Size, warnings: list[str]) -> Lens | None:
        """Return the lens of images of ``size`` (width, height), None where they are not calibrated."""
        if info is None:
            return None
        numbers = tuple(np.asarray(values, float).tobytes() for values in (info.k, info.p, info.d))
        roi = (info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height)
        key = (size, info.width, info.height, info.distortion_model, roi, numbers)
        if key != self._key:
            self._lens = read_lens(info, size, self._topic, warnings, rectified=self._rectified)
            self._key = key
        return self._lens


class LiveCamera:
    """Turns messages of one camera into frames; keeps its lenses, and tells each note once."""

    def __init__(self, settings: LiveCameraSettings | None = None) -> None:
        self.settings = settings or LiveCameraSettings()
        self._colour = LiveLens("camera_info", self.settings.rectified)
        self._depth = LiveLens("depth's camera_info", self.settings.depth_rectified)
        self._size: Size | None = None
        self._told: set[str] = set()

    def frames(self, matched: Matched) -> tuple[str, str]:
        """Return the optical frames of colour and of depth; empty where they are not known."""
        depth = "" if matched.depth is None else self.settings.depth_frame or frame_of(matched.depth)
        return self.settings.image_frame or frame_of(matched.image), depth

    def decode(
        self,
        matched: Matched,
        T_base_camera: NDArray[np.float64] | None,
        warnings: list[str],
        T_colour_depth: NDArray[np.float64] | None = None,
    ) -> Frame:
        """Return the frame of matched messages, as a pinhole camera would have seen it.

        Args:
            matched: messages of one instant.
            T_base_camera: (4, 4) pose of the optical frame in base_link, None where unknown.
            warnings: notes are appended.
            T_colour_depth: (4, 4) of the transforms between the frames of both images, None where they are unknown.

        Raises:
            DataError: for an encoding that is not supported, masks of more than eight bits, sizes that do not agree,
                damaged bytes, or depth that cannot be brought into the colour image.
        """
        rgb = colour_of(matched.image)
        size = (rgb.shape[1], rgb.shape[0])
        notes = self._change_of_size(size)
        lens = self._colour.of(matched.info, size, notes)
        depth_m = None if matched.depth is None else self._depth_in_colour(matched, size, lens, T_colour_depth, notes)
        warnings += [note for note in notes if note not in self._told]
        self._told.update(notes)
        moving = None if matched.mask is None else moving_of(matched.mask, size, lens)
        if lens is not None:
            rgb = lens.straighten(rgb)
        frame_id = self.frames(matched)[0] or "camera_color_optical_frame"
        intrinsics = None if lens is None else lens.pinhole
        return Frame(matched.stamp_s, rgb, depth_m, intrinsics, T_base_camera, frame_id, moving)

    def _change_of_size(self, size: Size) -> list[str]:
        """Return a note where images have another size than the one before: its calibration is read anew."""
        before, self._size = self._size, size
        if before is None or before == size:
            return []
        return [f"images change from {before[0]}x{before[1]} to {size[0]}x{size[1]} px"]

    def _depth_in_colour(
        self, matched: Matched, size: Size, colour: Lens | None, T: NDArray[np.float64] | None, notes: list[str]
    ) -> Depth:
        depth_m = depth_of(matched.depth, self.settings.depth_scale_m)
        own_size = (depth_m.shape[1], depth_m.shape[0])
        colour_frame, depth_frame = self.frames(matched)
        lens = self._depth.of(self._info_of_depth(matched, depth_frame, notes), own_size, notes)
        view = DepthView("depth", depth_frame, lens, self.settings.depth_registered)
        told: list[str] = []
        alignment = align_depth(colour_frame, colour, view, T, told)
        if alignment is None:
            raise DataError(
                f"depth is in frame {depth_frame}, the image in {colour_frame}; subscribe to depth aligned to colour "
                "(align_depth of the driver, or depth_image_proc/register), or publish the depth camera's CameraInfo "
                "and a transform between both frames"
            )
        if alignment.depth is None and own_size != size:
            raise DataError(
                f"depth is {own_size[0]}x{own_size[1]} but the image is {size[0]}x{size[1]}; subscribe to depth that "
                "is aligned to colour, or publish the depth camera's CameraInfo"
            )
        notes += told
        return alignment(depth_m)

    def _info_of_depth(self, matched: Matched, depth_frame: str, notes: list[str]) -> Any | None:
        """Return depth's CameraInfo, unless it is of another frame: a driver's raw depth beside aligned depth."""
        info = matched.depth_info
        own = "" if info is None else frame_of(info)
        if own and depth_frame and own != depth_frame and not self.settings.depth_frame:
            notes.append(f"depth's camera_info is of {own}, depth images of {depth_frame}; it is not used")
            return None
        return info
