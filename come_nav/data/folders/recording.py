"""A folder of images and poses as a Recording: frames are decoded when asked for, memory stays bounded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError
from come_nav.core.files import printable
from come_nav.core.geometry import se3
from come_nav.core.types import CameraIntrinsics, Frame
from come_nav.data.bags.images import Depth
from come_nav.data.decoded_frames import DecodedFrames
from come_nav.data.folders.calibration import first_size
from come_nav.data.folders.drive import FolderDrive, ImageStream
from come_nav.data.image_files import file_contents, file_size_px, read_depth, read_rgb
from come_nav.data.scan_frames import Streams, choose_frames, depth_of_frames
from come_nav.data.scan_settings import ScanSettings
from come_nav.data.timing.stamps import seconds_from_ns

FRAME_ID = "camera_color_optical_frame"

Indices = NDArray[np.int64]


class FolderRecording(DecodedFrames):
    """core.protocols.Recording over a drive in a folder."""

    def __init__(self, drive: FolderDrive, settings: ScanSettings) -> None:
        """Match images, poses and depth, and choose the frames.

        Raises:
            DataError: no image is left that is whole and has a pose.
            AssociationError: images and poses do not overlap in time; tells the offset that would match.
        """
        super().__init__()
        self.drive, self.path, self.name = drive, drive.path, printable(drive.name)
        warnings = list(drive.notes)
        if settings.odom_frame is not None or settings.base_frame is not None:
            warnings.append(f"{self.name}: has no transforms, so --odom-frame and --base-frame change nothing")
        images = _part(drive.images, settings)
        self._size = first_size(images)
        chosen = choose_frames(_streams(drive, images), settings, warnings, self._whole(images, warnings))
        start_ns = int(images.stamps_ns[0])
        self._depth, depth_match = None, None
        if drive.depth is not None:
            self._depth, depth_match = depth_of_frames(drive.depth.topic, chosen, start_ns, settings, warnings)
        self._files = [images.files[index] for index in chosen.index]
        self._depth_files = self._whole_depth(warnings)
        self.stamps_s: NDArray[np.float64] = seconds_from_ns(images.stamps_ns[chosen.index])
        self.T_odom_base = chosen.T_odom_base
        self.poses_xyyaw = se3.xyyaw_from_transform(self.T_odom_base)
        self.intrinsics: CameraIntrinsics | None = None if drive.lens is None else drive.lens.pinhole
        self.T_base_camera: NDArray[np.float64] = drive.T_base_camera
        self.frame_id = settings.camera_frame or FRAME_ID
        self.report = chosen.report(drive.roles, depth_match, tuple(warnings))
        self.rate_hz, self.gaps = self.report.rate_hz, self.report.gaps
        self.metadata: dict[str, Any] = {}

    def close(self) -> None:
        """Do nothing: no file stays open between frames."""

    def _decode(self, index: int) -> Frame:
        rgb = read_rgb(self._files[index])
        if (rgb.shape[1], rgb.shape[0]) != self._size:
            width, height = self._size
            raise DataError(f"image is {rgb.shape[1]}x{rgb.shape[0]}, expected {width}x{height} as the first frame")
        depth, lens = self._decode_depth(index), self.drive.lens
        if lens is not None:
            rgb = lens.straighten(rgb)
        return Frame(float(self.stamps_s[index]), rgb, depth, self.intrinsics, self.T_base_camera, self.frame_id)

    def _decode_depth(self, index: int) -> Depth | None:
        file = self._depth_files[index]
        if file is None:
            return None
        depth_m = read_depth(file, self.drive.depth_unit_m)
        return depth_m if self.drive.lens is None else self.drive.lens.straighten_depth(depth_m)

    def _whole(self, images: ImageStream, warnings: list[str]) -> Any:
        """Return the check of the chosen images: they can be read, and have the size of the first."""

        def check(index: Indices) -> Indices:
            faults = [_fault(images.files[at], self._size) for at in index]
            _tell(images.name, "images", faults, warnings)
            return index[[fault is None for fault in faults]]

        return check

    def _whole_depth(self, warnings: list[str]) -> list[Path | None]:
        """Return the depth image of each frame, None where there is none that fits the colour image."""
        stream = self.drive.depth
        if self._depth is None or stream is None:
            return [None] * len(self._files)
        files = [None if at < 0 else stream.files[at] for at in self._depth.log_ns]
        faults = [None if file is None else _fault(file, self._size) for file in files]
        _tell(stream.name, "depth images", faults, warnings)
        return [file if fault is None else None for file, fault in zip(files, faults, strict=True)]


def open_folder_drive(drive: FolderDrive, settings: dict[str, Any]) -> FolderRecording:
    """Return the recording of a drive; ``settings`` are fields of ScanSettings, over the layout's tolerances."""
    from come_nav.core.settings import from_mapping

    return FolderRecording(drive, from_mapping(ScanSettings, {**drive.tolerances, **settings}))


def _streams(drive: FolderDrive, images: ImageStream) -> Streams:
    try:
        content = file_contents(images.files)
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error
    keys = zip(images.stamps_ns.tolist(), range(len(images.files)), strict=True)
    poses = drive.poses
    return Streams(images.topic, dict(zip(keys, content, strict=True)), poses.name, poses.stamps_ns, poses.T_odom_base)


def _part(images: ImageStream, settings: ScanSettings) -> ImageStream:
    """Return the images between start and stop, in seconds after the first one."""
    after_s = (images.stamps_ns - images.stamps_ns[0]) * 1e-9
    inside = (after_s >= (settings.start_s or 0.0)) & (after_s < (settings.stop_s or np.inf))
    if not inside.any():
        raise DataError(
            f"{images.name}: has no image in the chosen part; the last is {after_s[-1]:.2f} s after the first"
        )
    files = tuple(file for file, used in zip(images.files, inside, strict=True) if used)
    return replace(images, stamps_ns=images.stamps_ns[inside], files=files)


def _fault(file: Path, size: tuple[int, int]) -> str | None:
    """Return what is wrong with an image file, None where it is whole and of ``size``."""
    try:
        found = file_size_px(file)
    except DataError as error:
        return str(error)
    return None if found == size else f"{file.name} has {found[0]}x{found[1]} px, the first image {size[0]}x{size[1]}"


def _tell(name: str, what: str, faults: list[str | None], warnings: list[str]) -> None:
    told = [fault for fault in faults if fault is not None]
    if told:
        warnings.append(f"{name}: left out {len(told)} of {len(faults)} {what}; the first: {told[0]}")
