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
from come_nav.data.cameras.depth_alignment import register_depth
from come_nav.data.cameras.lens import Lens
from come_nav.ros.camera import DEPTH, DEPTH_INFO, CameraInput, depth_info_topic
from come_nav.ros.decoding import LiveCamera, LiveCameraSettings
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


def info(
    distortion: np.ndarray = D, P: np.ndarray = K, K: np.ndarray = K, frame_id: str = "", size: tuple = (64, 48)
) -> SimpleNamespace:
    roi = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0)
    P34 = np.concatenate([P, np.zeros((3, 1))], axis=1).reshape(-1)
    lens = {"distortion_model": "plumb_bob", "d": distortion, "k": K.reshape(-1), "p": P34}
    header = SimpleNamespace(frame_id=frame_id)
    return SimpleNamespace(header=header, width=size[0], height=size[1], roi=roi, **lens)


def matched(
    depth: SimpleNamespace | None = None,
    calibration: SimpleNamespace | None = None,
    depth_info: SimpleNamespace | None = None,
    rgb: np.ndarray = RGB,
) -> SimpleNamespace:
    facts = {"info": calibration or info(), "depth_info": depth_info, "odometry": None, "mask": None}
    return SimpleNamespace(stamp_s=1.0, image=image(rgb, "rgb8"), depth=depth, **facts)


def test_live_images_are_straightened_and_told_once():
    camera, notes = LiveCamera(), []
    for _ in range(2):
        frame = camera.decode(matched(), None, notes)
        assert np.abs(frame.rgb.astype(int) - cv2.undistort(RGB, K, D)).max() <= 1
    assert len(notes) == 1 and "plumb_bob) is corrected" in notes[0]
    plain = camera.decode(matched(calibration=info(np.zeros(5))), None, notes)  # another CameraInfo came
    np.testing.assert_array_equal(plain.rgb, RGB)


def test_rectified_topics_have_the_matrix_P():
    P = np.array([[40.0, 0, 31.5], [0, 40.0, 23.5], [0, 0, 1]])
    frame = LiveCamera(LiveCameraSettings(rectified=True)).decode(matched(calibration=info(P=P)), None, [])
    np.testing.assert_array_equal(frame.rgb, RGB)
    assert (frame.intrinsics.fx, frame.intrinsics.cx) == (40.0, 32.0)


def test_live_depth_of_another_frame_is_refused_without_its_calibration():
    depth = image(np.full((48, 64), 1500, np.uint16), "16UC1", "depth_cam")
    apart = se3.make_transform(np.eye(3), np.array([0.05, 0.0, 0.0]))
    for T_colour_depth in (apart, None):
        with pytest.raises(DataError, match=r"depth is in frame depth_cam, the image in cam; .*aligned to colour"):
            LiveCamera().decode(matched(depth), None, [], T_colour_depth)
    frame = LiveCamera().decode(matched(depth, info(np.zeros(5))), None, [], np.eye(4))
    np.testing.assert_allclose(frame.depth_m, 1.5)


# -- depth of another camera ---------------------------------------------------------------------------------------

K_DEPTH = np.array([[30.0, 0, 15.5], [0, 30.0, 11.5], [0, 0, 1]])
PINHOLE = np.zeros(5)


def depth_of(size: tuple[int, int], metres: float, frame_id: str = "depth_cam") -> SimpleNamespace:
    return image(np.full((size[1], size[0]), round(1000 * metres), np.uint16), "16UC1", frame_id)


def test_live_depth_of_another_camera_is_registered_to_colour():
    """A wall 2 m before the depth camera, which stands 10 cm before and 6 cm beside the colour camera."""
    T_colour_depth = se3.make_transform(np.eye(3), np.array([0.06, 0.0, 0.1]))
    own = info(PINHOLE, K=K_DEPTH, frame_id="depth_cam", size=(32, 24))
    camera, notes = LiveCamera(), []
    for _ in range(2):
        message = matched(depth_of((32, 24), 2.0), info(PINHOLE), own)
        frame = camera.decode(message, None, notes, T_colour_depth)
    assert notes == ["depth: depth is in depth_cam, images in cam; it is registered to colour"]
    known = np.isfinite(frame.depth_m)
    np.testing.assert_allclose(frame.depth_m[known], 2.1, atol=1e-6)
    # The leftmost ray of depth, x / z = -15.5 / 30, meets the colour image here; nothing lies farther left.
    left = 50.0 * (2.0 * -15.5 / 30.0 + 0.06) / 2.1 + 31.0
    assert np.flatnonzero(known.any(axis=0))[0] == pytest.approx(left, abs=1.0)
    offline = register_depth(
        np.full((24, 32), 2.0, np.float32),
        Lens(32, 24, K_DEPTH, PINHOLE[:0]),
        Lens(64, 48, K, PINHOLE[:0]),
        T_colour_depth,
    )
    np.testing.assert_array_equal(frame.depth_m, offline)


def test_depth_of_the_same_frame_with_other_optics_is_registered():
    depth = depth_of((32, 24), 2.0, "cam")
    own = info(PINHOLE, K=K_DEPTH, frame_id="cam", size=(32, 24))
    notes: list[str] = []
    frame = LiveCamera().decode(matched(depth, info(PINHOLE), own), None, notes)
    assert "has a CameraInfo of its own; it is registered" in notes[0]
    assert frame.depth_m.shape == (48, 64)
    with pytest.raises(
        DataError, match=r"depth is 32x24 but the image is 64x48; .*publish the depth camera's CameraInfo"
    ):
        LiveCamera().decode(matched(depth, info(PINHOLE)), None, [])


def test_the_info_of_raw_depth_beside_aligned_depth_is_not_used():
    aligned = depth_of((64, 48), 2.0, "cam")
    own = info(PINHOLE, K=K_DEPTH, frame_id="depth_cam")
    notes: list[str] = []
    frame = LiveCamera().decode(matched(aligned, info(PINHOLE), own), None, notes)
    np.testing.assert_allclose(frame.depth_m, 2.0)
    assert notes == ["depth's camera_info is of depth_cam, depth images of cam; it is not used"]


def test_parameters_name_frames_and_scale():
    settings = LiveCameraSettings("colour_optical", "depth_optical", 0.0001)
    camera = LiveCamera(settings)
    message = matched(depth_of((64, 48), 2.0, "wrong"), info(PINHOLE))
    assert camera.frames(message) == ("colour_optical", "depth_optical")
    frame = camera.decode(message, None, [], np.eye(4))
    np.testing.assert_allclose(frame.depth_m, 0.2)
    assert frame.frame_id == "colour_optical"


@pytest.mark.parametrize(
    ("remaps", "topic"),
    [
        ({}, "/robot/camera/depth/camera_info"),
        ({DEPTH: "/cam/aligned_depth_to_color/image_raw"}, "/cam/aligned_depth_to_color/camera_info"),
        ({DEPTH: "/cam/depth/image", DEPTH_INFO: "/cam/info"}, "camera/depth/camera_info"),
    ],
)
def test_the_calibration_of_depth_lies_beside_it(remaps, topic):
    def resolve(name: str, *, only_expand: bool = False) -> str:
        return f"/robot/{name}" if only_expand or name not in remaps else remaps[name]

    assert depth_info_topic(SimpleNamespace(resolve_topic_name=resolve)) == topic


def test_images_that_change_their_size_keep_a_fitting_calibration():
    camera, notes = LiveCamera(), []
    full = camera.decode(matched(calibration=info(PINHOLE)), None, notes)
    half = np.ascontiguousarray(RGB[::2, ::2])
    for _ in range(2):
        small = camera.decode(matched(calibration=info(PINHOLE), rgb=half), None, notes)
    assert notes == ["images change from 64x48 to 32x24 px"]
    assert (small.intrinsics.width, small.intrinsics.fx) == (32, full.intrinsics.fx / 2)
    cut = np.ascontiguousarray(RGB[:40])  # a shape that CameraInfo does not describe
    with pytest.raises(DataError, match="is for 64x48 images but the images have 64x40"):
        camera.decode(matched(calibration=info(PINHOLE), rgb=cut), None, notes)
    again = camera.decode(matched(calibration=info(PINHOLE, size=(64, 40)), rgb=cut), None, notes)
    assert again.intrinsics.height == 40


def odometry_of(child: str, T_odom_child: np.ndarray, transforms: TransformBuffer) -> Odometry:
    own = SimpleNamespace(_node=SimpleNamespace(values={"base_frame": "base_link"}), transforms=transforms)
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
