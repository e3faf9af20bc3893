"""Small folders in the layouts of TUM RGB-D, KITTI odometry and EuRoC, written from one drive along an arc."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from come_nav.core.geometry import se3

COUNT, RATE_HZ = 24, 8.0
T_BODY_OPTICAL = se3.make_transform(se3.R_BODY_OPTICAL, np.zeros(3))
P2 = np.array([[60.0, 0, 30.5, 4.5], [0, 61.0, 22.5, 0.2], [0, 0, 1, 0.003]])
# cam0 of MH_01: the body's x axis points up, z ahead
T_BS = np.array(
    [
        [0.0148655429818, -0.999880929698, 0.00414029679422, -0.0216401454975],
        [0.999557249008, 0.0149672133247, 0.025715529948, -0.064676986768],
        [-0.0257744366974, 0.00375618835797, 0.999660727178, 0.00981073058949],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
RADTAN = (-0.28340811, 0.07395907, 0.00019359, 1.76187114e-05)


def drive(count: int = COUNT) -> np.ndarray:
    """Poses (N, 4, 4) of a body with x forward and z up that turns left."""
    steps = np.arange(count)
    return se3.transform_from_xyyaw(np.stack([0.1 * steps, 0.01 * steps**2, 0.05 * steps], axis=1))


def texture(index: int, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    """A grey image (H, W) with edges, of another brightness for each index."""
    width, height = size
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    return ((columns // 8 + rows // 8) % 2 * 120 + 4 * index).astype(np.uint8)


def write_tum(
    folder: Path,
    T_world_base: np.ndarray | None = None,
    *,
    stamps_s: np.ndarray | None = None,
    depth_after_s: float = 0.008,
    truth_hz: float | None = None,
    heading: str = "",
    size: tuple[int, int] = (64, 48),
) -> Path:
    """Write colour (PNG), depth (16 bit, 1.5 m and a hole) and ground truth of the optical frame."""
    T_world_base = drive() if T_world_base is None else T_world_base
    stamps_s = 1305031102.175304 + np.arange(len(T_world_base)) / RATE_HZ if stamps_s is None else stamps_s
    (folder / "rgb").mkdir(parents=True)
    (folder / "depth").mkdir()
    colour, depth = ["# color images", f"# file: '{heading}'", "# timestamp filename"], ["# depth maps"]
    values = np.full((size[1], size[0]), 7500, np.uint16)
    values[0, 0] = 0
    for index, stamp_s in enumerate(stamps_s):
        for lines, kind, at_s, pixels in (
            (colour, "rgb", stamp_s, np.repeat(texture(index, size)[..., None], 3, axis=2)),
            (depth, "depth", stamp_s + depth_after_s, values),
        ):
            lines.append(f"{at_s:.6f} {kind}/{at_s:.6f}.png")
            cv2.imwrite(str(folder / kind / f"{at_s:.6f}.png"), pixels)
    (folder / "rgb.txt").write_text("\n".join(colour) + "\n")
    (folder / "depth.txt").write_text("\n".join(depth) + "\n")
    rows = ["# ground truth trajectory", "# timestamp tx ty tz qx qy qz qw"]
    for stamp_s, T in zip(stamps_s, T_world_base @ T_BODY_OPTICAL, strict=True):
        quat = se3.quaternion_from_matrix(T[:3, :3])
        rows.append(f"{stamp_s + 0.003:.4f} " + " ".join(f"{value:.9f}" for value in (*T[:3, 3], *quat)))
    (folder / "groundtruth.txt").write_text("\n".join(rows) + "\n")
    return folder


def write_kitti(root: Path, T_odom_base: np.ndarray | None = None, number: str = "03", camera: str = "image_2") -> Path:
    """Write grey images, times, P0 and P2, and the poses of camera 0 in its first frame."""
    T_odom_base = drive() if T_odom_base is None else T_odom_base
    sequence = root / "sequences" / number
    (sequence / camera).mkdir(parents=True)
    (root / "poses").mkdir(exist_ok=True)
    for index in range(len(T_odom_base)):
        cv2.imwrite(str(sequence / camera / f"{index:06d}.png"), texture(index))
    times = "".join(f"{index / RATE_HZ:e}\n" for index in range(len(T_odom_base)))
    (sequence / "times.txt").write_text(times)
    lines = [
        f"P{key}: " + " ".join(f"{value:.12e}" for value in P.ravel()) for key, P in ((0, P2 * [1, 1, 1, 0]), (2, P2))
    ]
    (sequence / "calib.txt").write_text("\n".join(lines) + "\n")
    T_camera0 = se3.inverse(T_BODY_OPTICAL) @ T_odom_base @ T_BODY_OPTICAL
    rows = [" ".join(f"{value:.9e}" for value in T[:3].ravel()) for T in T_camera0]
    (root / "poses" / f"{number}.txt").write_text("\n".join(rows) + "\n")
    return root


def write_euroc(folder: Path, T_world_body: np.ndarray, T_body_camera: np.ndarray = T_BS) -> Path:
    """Write grey images and the state estimate of the body, with velocities and biases as published."""
    start_ns = 1403636579763555584
    camera, truth = folder / "mav0" / "cam0", folder / "mav0" / "state_groundtruth_estimate0"
    (camera / "data").mkdir(parents=True)
    truth.mkdir()
    images = ["#timestamp [ns],filename"]
    rows = ["#timestamp, p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m], q_RS_w [], q_RS_x [], q_RS_y [], q_RS_z [], v..."]
    for index, T in enumerate(T_world_body):
        stamp_ns = start_ns + index * round(1e9 / RATE_HZ)
        images.append(f"{stamp_ns},{stamp_ns}.png")
        cv2.imwrite(str(camera / "data" / f"{stamp_ns}.png"), texture(index))
        quat = se3.quaternion_from_matrix(T[:3, :3])[[3, 0, 1, 2]]
        rows.append(f"{stamp_ns}," + ",".join(f"{value:.9f}" for value in (*T[:3, 3], *quat, *np.zeros(9))))
    (camera / "data.csv").write_text("\r\n".join(images) + "\r\n")
    (truth / "data.csv").write_text("\n".join(rows) + "\n")
    numbers = ", ".join(f"{value:.14g}" for value in T_body_camera.ravel())
    (camera / "sensor.yaml").write_text(
        f"#Default camera\nsensor_type: camera\nT_BS:\n  cols: 4\n  rows: 4\n  data: [{numbers}]\n"
        "rate_hz: 20\nresolution: [64, 48]\ncamera_model: pinhole\nintrinsics: [60.0, 61.0, 30.5, 22.5]\n"
        f"distortion_model: radial-tangential\ndistortion_coefficients: {list(RADTAN)}\n"
    )
    return folder
