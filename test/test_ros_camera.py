"""Live images are straightened and checked like recorded ones, and odometry of other bodies is carried to the base."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'come_nav[ros]'")
from come_nav.core.errors import DataError
from come_nav.core.geometry import se3
from come_nav.core.types import Odometry
from come_nav.ros.camera import CameraInput
from come_nav.ros.streams import LiveLens, decode_frame
from come_nav.ros.transforms import TransformBuffer

K = np.array([[50.0, 0, 31.0], [0, 52.0, 24.0], [0, 0, 1]])
D = np.array([-0.3, 0.1, 0.001, -0.002, 0.0])
RGB = cv2.resize(np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8), (64, 48))


def image(pixels: np.ndarray, encoding: str, frame_id: str = "cam") -> SimpleNamespace:
    height, width = pixels.shape[:2]
    data = np.ascontiguousarray(pixels).view(np.uint8).reshape(-1)
    header = SimpleNamespace(frame_id=frame_id)
    facts = {"height": height, "width": width, "step": data.size // height, "is_bigendian": 0}
    return SimpleNamespace(header=header, encoding=encoding, data=data, **facts)


def info(distortion: np.ndarray = D, P: np.ndarray = K) -> SimpleNamespace:
    roi = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0)
    P34 = np.concatenate([P, np.zeros((3, 1))], axis=1).reshape(-1)
    lens = {"distortion_model": "plumb_bob", "d": distortion, "k": K.reshape(-1), "p": P34}
    return SimpleNamespace(width=64, height=48, roi=roi, **lens)


def matched(depth: SimpleNamespace | None = None, calibration: SimpleNamespace | None = None) -> SimpleNamespace:
    return SimpleNamespace(
        stamp_s=1.0, image=image(RGB, "rgb8"), depth=depth, info=calibration or info(), odometry=None
    )


def test_live_images_are_straightened_and_told_once():
    lens, notes = LiveLens(), []
    for _ in range(2):
        frame = decode_frame(matched(), None, notes, lens)
        assert np.abs(frame.rgb.astype(int) - cv2.undistort(RGB, K, D)).max() <= 1
    assert len(notes) == 1 and "plumb_bob) is corrected" in notes[0]
    plain = decode_frame(matched(calibration=info(np.zeros(5))), None, notes, lens)  # another CameraInfo came
    np.testing.assert_array_equal(plain.rgb, RGB)


def test_rectified_topics_have_the_matrix_P():
    P = np.array([[40.0, 0, 31.5], [0, 40.0, 23.5], [0, 0, 1]])
    frame = decode_frame(matched(calibration=info(P=P)), None, [], LiveLens(rectified=True))
    np.testing.assert_array_equal(frame.rgb, RGB)
    assert (frame.intrinsics.fx, frame.intrinsics.cx) == (40.0, 32.0)


def test_live_depth_of_another_frame_is_refused():
    depth = image(np.full((48, 64), 1500, np.uint16), "16UC1", "depth_cam")
    apart = se3.make_transform(np.eye(3), np.array([0.05, 0.0, 0.0]))
    for T_colour_depth in (apart, None):
        with pytest.raises(DataError, match=r"depth is in frame depth_cam, the image in cam; .*aligned to colour"):
            decode_frame(matched(depth), None, [], LiveLens(), T_colour_depth)
    frame = decode_frame(matched(depth, info(np.zeros(5))), None, [], LiveLens(), np.eye(4))
    np.testing.assert_allclose(frame.depth_m, 1.5)


def odometry_of(child: str, T_odom_child: np.ndarray, transforms: TransformBuffer) -> Odometry:
    own = SimpleNamespace(_node=SimpleNamespace(values={"base_frame": "base_link"}), _transforms=transforms)
    return CameraInput._of_base(own, SimpleNamespace(child_frame_id=child), Odometry(1.0, T_odom_child, 0.3, 0.1))


def test_live_odometry_of_a_camera_is_carried_to_the_base():
    T_odom_base = se3.transform_from_xyyaw(np.array([1.0, 2.0, 0.5]))
    T_base_camera = se3.make_transform(se3.R_BODY_OPTICAL, np.array([0.2, 0.0, 0.5]))
    buffer = TransformBuffer()
    with pytest.raises(DataError, match=r"optical frame 'camera_optical'.* does not connect it to 'base_link'"):
        odometry_of("camera_optical", T_odom_base @ T_base_camera, buffer)
    buffer.add("base_link", "camera_optical", 0.0, T_base_camera, static=True)
    found = odometry_of("camera_optical", T_odom_base @ T_base_camera, buffer)
    np.testing.assert_allclose(found.T_odom_base, T_odom_base, atol=1e-12)
    assert found.v_mps is None  # the twist was the camera's
    for child in ("base_link", "base_footprint", ""):
        assert odometry_of(child, T_odom_base, buffer).v_mps == 0.3
