"""Folders of EuRoC MAV in the ASL layout: mav0/cam0/{data.csv, data, sensor.yaml}, state_groundtruth_estimate0.

Poses are those of the body (the IMU), whose x axis need not point ahead: of EuRoC's drones it points up. base_link is
the body with its axes renamed, so that z points up and x along the camera's view.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError, suggest
from come_nav.core.geometry import se3
from come_nav.data.cameras.frames import UPRIGHT, level_world
from come_nav.data.folders.calibration import Calibration, lens_of, numbers, rigid, yaml_of
from come_nav.data.folders.drive import FolderChoice, FolderDrive, ImageStream, PoseFile, image_stream
from come_nav.data.folders.tables import read_file_list, read_track

LAYOUT = "EuRoC (ASL) folder"
ROOT = "mav0"
TRUTHS = ("state_groundtruth_estimate0", "vicon0", "mocap0")
LIST, SENSOR = "data.csv", "sensor.yaml"

Array = NDArray[np.float64]


def is_euroc(folder: Path) -> bool:
    """Tell whether a folder is ``mav0`` or holds it."""
    return bool(_cameras(_inside(folder)))


def read_euroc(folder: Path, choice: FolderChoice) -> FolderDrive:
    """Read images, poses and calibration; raise DataError naming the file and line or field that is wrong."""
    inside = _inside(folder)
    notes: list[str] = []
    camera = _camera_of(inside, choice.image)
    images = _images(inside / camera, notes)
    sensor = inside / camera / SENSOR
    T_body_camera, found = _sensor(sensor, notes)
    poses, T_world_body, stamps_ns = _poses(inside, choice.pose, notes)
    R_body_base = base_axes(T_world_body[:, :3, :3], T_body_camera[:3, :3])
    T_body_base = se3.make_transform(R_body_base, np.zeros(3))
    if not np.allclose(R_body_base, np.eye(3)):
        named = ", ".join(f"{axis} is the body's {_axis(R_body_base[:, at])}" for at, axis in enumerate("xyz"))
        notes.append(f"{poses.name}: poses are of the body; base_link has its place, and renamed axes: {named}")
    T_odom_base = level_world(T_world_body @ T_body_base, poses.parent.name, notes)
    lens, calibration = lens_of(found, f"{camera}/{SENSOR}", images, inside, choice, notes)
    return FolderDrive(
        LAYOUT,
        folder,
        folder.parent.name if folder.name == ROOT else folder.name,
        images,
        PoseFile(f"{poses.parent.name}/{poses.name}", stamps_ns, T_odom_base),
        se3.inverse(T_body_base) @ T_body_camera,
        lens,
        calibration,
        notes=tuple(notes),
    )


def base_axes(R_world_body: Array, R_body_camera: Array) -> Array:
    """Return R_body_base (3, 3), which renames the body's axes: z nearest to up, x nearest to the camera's view.

    Where the body is not upright on average, z is the camera's up. A camera that looks down or up looks ahead with the
    upper edge of its image.

    Args:
        R_world_body: (N, 3, 3), of a world with z up.
        R_body_camera: (3, 3) of the optical frame.
    """
    up = R_world_body[:, 2, :].mean(axis=0)  # the world's z axis in the body
    if np.linalg.norm(up) < UPRIGHT:
        up = -R_body_camera[:, 1]
    z = _nearest_axis(up, np.ones(3, bool))
    rest = z == 0
    view = R_body_camera[:, 2] * rest
    ahead = view if np.linalg.norm(view) > 0.5 else -R_body_camera[:, 1] * rest
    x = _nearest_axis(ahead, rest)
    return np.column_stack([x, np.cross(z, x), z])


def _nearest_axis(direction: Array, allowed: NDArray[np.bool_]) -> Array:
    """Return the signed unit axis (3,) nearest to a direction, of those that are allowed."""
    at = int(np.argmax(np.where(allowed, np.abs(direction), -1.0)))
    axis = np.zeros(3)
    axis[at] = 1.0 if direction[at] >= 0 else -1.0
    return axis


def _axis(direction: Array) -> str:
    at = int(np.argmax(np.abs(direction)))
    return f"{'-' if direction[at] < 0 else ''}{'xyz'[at]}"


def _inside(folder: Path) -> Path:
    return folder / ROOT if (folder / ROOT).is_dir() else folder


def _cameras(inside: Path) -> list[str]:
    return sorted(item.parent.name for item in inside.glob(f"cam[0-9]*/{LIST}"))


def _camera_of(inside: Path, named: str | None) -> str:
    there = _cameras(inside)
    if named is not None and named not in there:
        raise DataError(f"{inside}: has no camera '{named}' (--image-topic){suggest(named, there)}")
    return named or there[0]


def _images(camera: Path, notes: list[str]) -> ImageStream:
    listed = read_file_list(camera / LIST, ",", 0)
    return image_stream(camera.name, ((stamp_ns, camera / "data" / name) for stamp_ns, name in listed), notes)


def _sensor(path: Path, notes: list[str]) -> tuple[Array, Calibration | None]:
    """Return T_body_camera (4, 4) and the calibration of sensor.yaml."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; it tells where the camera sits on the body (T_BS)")
    content = yaml_of(path)
    T_body_camera = rigid(path, content, "T_BS")
    if content.get("camera_model", "pinhole") != "pinhole" or "intrinsics" not in content:
        notes.append(f"{path.parent.name}/{path.name}: camera model '{content.get('camera_model')}' is not read")
        return T_body_camera, None
    width, height = (0, 0)
    if "resolution" in content:
        width, height = (int(value) for value in np.clip(numbers(path, content, "resolution", (2,)), 0, 1 << 16))
    return T_body_camera, Calibration.of_pinhole(
        numbers(path, content, "intrinsics", (4,)).tolist(),
        numbers(path, content, "distortion_coefficients", range(15)).tolist(),
        distortion_model=str(content.get("distortion_model", "")),
        width=width,
        height=height,
    )


def _poses(inside: Path, named: str | None, notes: list[str]) -> tuple[Path, Array, NDArray[np.int64]]:
    """Return the file of poses, T_world_body (P, 4, 4) and stamps (P,)."""
    places = [inside / name / LIST for name in TRUTHS]
    path = Path(named) if named is not None else next((place for place in places if place.is_file()), places[0])
    stamps_ns, track = read_track(path)
    sensor = path.parent / SENSOR
    if named is not None or not sensor.is_file() or "T_BS" not in yaml_of(sensor):
        return path, track.T_world_body, stamps_ns
    T_body_sensor = rigid(sensor, yaml_of(sensor), "T_BS")
    if not np.allclose(T_body_sensor, np.eye(4)):
        notes.append(f"{path.parent.name}: poses are of a sensor; its T_BS carries them to the body")
    return path, track.T_world_body @ se3.inverse(T_body_sensor), stamps_ns
