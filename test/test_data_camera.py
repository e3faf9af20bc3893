"""CameraInfo and transforms are checked, and images come out as those of a pinhole (closed forms, OpenCV)."""

from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest
from data_samples import HEIGHT, SECOND, START_NS, WIDTH, BagMaker
from hypothesis import given, settings
from hypothesis import strategies as st

from come_nav.core.errors import DataError
from come_nav.core.geometry import se3
from come_nav.data import open_recording
from come_nav.data.bags.bag import open_bag
from come_nav.data.bags.calibration import is_rectified, read_lens
from come_nav.data.bags.ros_types import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE, typestore
from come_nav.data.bags.writer import write_bag
from come_nav.data.cameras.depth_alignment import register_depth
from come_nav.data.cameras.lens import Lens

STORE = typestore(False)
PLUMB_BOB = (-0.3, 0.1, 0.001, -0.002, 0.0)
RATIONAL = (0.4, -0.2, 0.001, 0.0, 0.02, 0.7, -0.1, 0.01)
EQUIDISTANT = (0.02, -0.01, 0.003, 0.0)
OPTICAL = se3.make_transform(se3.R_BODY_OPTICAL, np.array([0.1, 0.0, 0.5]))
NO_ROI = (0, 0, 0, 0)


def info(
    size=(64, 48), K=(50.0, 52.0, 31.0, 24.0), P=None, D=(), model="plumb_bob", roi=NO_ROI, binning=0, frame="camera"
):
    """Build CameraInfo; K and P are (fx, fy, cx, cy) as ROS counts pixels."""
    fx, fy, cx, cy = K
    px, py, pcx, pcy = P or K
    time = STORE.types["builtin_interfaces/msg/Time"](sec=START_NS // SECOND, nanosec=0)
    x, y, width, height = roi
    return STORE.types[CAMERA_INFO](
        header=STORE.types["std_msgs/msg/Header"](stamp=time, frame_id=frame),
        height=size[1],
        width=size[0],
        distortion_model=model,
        d=np.array(D, float),
        k=np.array([fx, 0, cx, 0, fy, cy, 0, 0, 1.0]),
        r=np.eye(3).reshape(-1),
        p=np.array([px, 0, pcx, 0, 0, py, pcy, 0, 0, 0, 1.0, 0]),
        binning_x=binning,
        binning_y=binning,
        roi=STORE.types["sensor_msgs/msg/RegionOfInterest"](
            x_offset=x, y_offset=y, height=height, width=width, do_rectify=False
        ),
    )


def textured(width=64, height=48, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 255, (height // 4, width // 4, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def bag_of(rgb, camera_info, count=4, image_topic="/camera/color/image_raw", info_topic="/camera/color/camera_info"):
    maker = BagMaker()
    for index in range(count):
        stamp_ns = START_NS + index * SECOND // 4
        maker.add(stamp_ns, image_topic, IMAGE, maker.make.image(stamp_ns, "camera", rgb))
        maker.odometry(stamp_ns, 0.1 * index)
    add_info(maker, camera_info, info_topic)
    maker.transform(START_NS - 1, ("base_link", "camera"), OPTICAL, topic="/tf_static")
    return maker


def add_info(maker, camera_info, topic, stamp_ns=START_NS):
    maker.add(stamp_ns, topic, CAMERA_INFO, bytes(STORE.serialize_cdr(camera_info, CAMERA_INFO)))


# -- lenses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "D"), [("plumb_bob", PLUMB_BOB), ("rational_polynomial", RATIONAL), ("equidistant", EQUIDISTANT)]
)
def test_a_distorted_image_is_straightened_as_opencv_does_it(tmp_path, model, D):
    rgb, K = textured(), np.array([[50.0, 0, 31.0], [0, 52.0, 24.0], [0, 0, 1]])
    if model == "equidistant":
        expected = cv2.fisheye.undistortImage(rgb, K, np.array(D), None, K)
    else:
        expected = cv2.undistort(rgb, K, np.array(D))
    with open_recording(bag_of(rgb, info(D=D, model=model)).write(tmp_path / "run")) as recording:
        frame = recording.frame(2)
        assert np.abs(frame.rgb.astype(int) - expected).max() <= 1
        assert np.abs(frame.rgb.astype(int) - rgb).max() > 50
        camera = recording.intrinsics
        assert (camera.fx, camera.fy, camera.cx, camera.cy) == (50.0, 52.0, 31.5, 24.5)
        assert any(f"({model}) is corrected" in warning for warning in recording.report.warnings)
        again = pickle.loads(pickle.dumps(recording))
        np.testing.assert_array_equal(again.frame(2).rgb, frame.rgb)
        again.close()


def test_a_straight_edge_is_straight_again():
    """A plane x = const drawn through the lens comes back as a column."""
    lens = Lens(160, 120, np.array([[100.0, 0, 80.0], [0, 100.0, 60.0], [0, 0, 1]]), np.array(PLUMB_BOB), "plumb_bob")
    bent = np.where(lens.rays[..., :1] > 0.5, 255, 0).astype(np.uint8).repeat(3, axis=2)
    edge = np.argmax(lens.straighten(bent)[4:-4, :, 0] > 127, axis=1)
    assert np.abs(edge - (0.5 * 100.0 + 80.0)).max() <= 1.5
    assert np.ptp(np.argmax(bent[4:-4, :, 0] > 127, axis=1)) >= 2  # it was not straight before


def test_equidistant_lenses_bend_light_without_coefficients():
    warnings: list[str] = []
    lens = read_lens(info(model="equidistant"), (64, 48), "info", warnings)
    assert lens.model == "equidistant"
    assert "is corrected" in warnings[0]
    columns, _ = lens.source()
    away = np.arctan((60 - 31.0) / 50.0) * 50.0 + 31.0  # r = f theta
    assert columns[24, 60] == pytest.approx(away, abs=1e-3)


@pytest.mark.parametrize(("model", "D"), [("plumb_bob", ()), ("plumb_bob", (1e-5, 0, 0, 0, 0)), ("", (0, 0, 0, 0))])
def test_lenses_that_move_no_pixel_are_pinholes(model, D):
    warnings: list[str] = []
    assert read_lens(info(D=D, model=model), (64, 48), "info", warnings).is_pinhole
    assert warnings == []


def test_lenses_that_are_not_known_are_told():
    for model, D in (("omnidirectional", (0.1,) * 5), ("plumb_bob", (0.1,) * 15), ("plumb_bob", (np.nan,) * 5)):
        warnings: list[str] = []
        assert read_lens(info(D=D, model=model), (64, 48), "info", warnings).is_pinhole
        assert "not corrected" in warnings[0]


def test_a_converted_bag_is_a_pinhole(tmp_path):
    """Straightened images go with CameraInfo without distortion."""
    source = bag_of(textured(), info(D=PLUMB_BOB)).write(tmp_path / "run")
    with open_recording(source) as recording:
        write_bag(tmp_path / "out", recording)
        frame = recording.frame(1)
    with open_bag(tmp_path / "out") as bag:
        written = next(iter(bag.messages(["/camera/color/camera_info"]))).decode()
        assert not np.any(written.d)
        np.testing.assert_allclose(written.k, [50.0, 0, 31.0, 0, 52.0, 24.0, 0, 0, 1])
    with open_recording(tmp_path / "out") as recording:
        np.testing.assert_array_equal(recording.frame(1).rgb, frame.rgb)
        assert not any("distortion" in warning for warning in recording.report.warnings)


# -- which matrix ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("topic", "rectified"),
    [
        ("/camera/color/image_rect/compressed", True),
        ("/camera/image_rect_color", True),
        ("/zed/left/image_rect_color", True),
        ("/camera/rgb/rectified", True),
        ("/camera/color/image_raw", False),
        ("/direct/image_raw", False),
        ("/rectangle/image", False),
    ],
)
def test_rectified_images_have_the_matrix_P(tmp_path, topic, rectified):
    assert is_rectified(topic) == rectified
    if "compressed" in topic:
        return
    namespace = topic.rsplit("/", 1)[0]
    calibration = info(K=(60.0, 60.0, 31.5, 23.5), P=(50.0, 50.0, 31.5, 23.5), D=PLUMB_BOB)
    maker = bag_of(textured(), calibration, image_topic=topic, info_topic=f"{namespace}/camera_info")
    with open_recording(maker.write(tmp_path / "run")) as recording:
        assert recording.intrinsics.fx == (50.0 if rectified else 60.0)
        told = any("distortion" in warning for warning in recording.report.warnings)
        assert told != rectified
        same = np.array_equal(recording.frame(0).rgb, textured())
        assert same == rectified


def test_region_of_interest_and_binning():
    """REP 104: K is of the full sensor; the driver cut a window and then took every second pixel."""
    cut = info(size=(640, 480), K=(500.0, 500.0, 319.5, 239.5), roi=(100, 40, 320, 240), binning=2)
    camera = read_lens(cut, (160, 120), "info", []).pinhole
    assert (camera.fx, camera.fy) == (250.0, 250.0)
    assert (camera.cx, camera.cy) == ((320.0 - 100) / 2, (240.0 - 40) / 2)
    whole = read_lens(info(size=(640, 480), K=(500.0, 500.0, 319.5, 239.5), binning=2), (320, 240), "info", []).pinhole
    assert (whole.fx, whole.cx, whole.cy) == (250.0, 160.0, 120.0)
    with pytest.raises(DataError, match="is for 320x240 images but the images have 100x100"):
        read_lens(cut, (100, 100), "info", [])


@pytest.mark.parametrize(
    ("K", "note"),
    [((0, 0, 0, 0), None), ((1, 1, 0, 0), "identity"), ((3, 3, 31, 24), "cannot be"), ((np.nan,) * 4, None)],
)
def test_placeholders_are_no_calibration(K, note):
    warnings: list[str] = []
    assert read_lens(info(K=K), (64, 48), "info", warnings) is None
    assert [note in warning for warning in warnings] == ([True] if note else [])


def test_K_may_be_empty_where_P_is_not():
    warnings: list[str] = []
    assert read_lens(info(K=(0, 0, 0, 0), P=(50, 50, 31, 24)), (64, 48), "info", warnings).pinhole.fx == 50.0
    assert "K is empty" in warnings[0]


def test_camera_info_of_another_shape_can_be_left_out(tmp_path):
    folder = bag_of(textured(), info(size=(128, 48))).write(tmp_path / "run")
    with pytest.raises(DataError, match=r"is for 128x48 images but the images have 64x48; .*--info-topic, or 'none'"):
        open_recording(folder)
    with open_recording(folder, info_topic="none") as recording:
        assert recording.intrinsics is None
        assert recording.frame(0).rgb.shape == (48, 64, 3)


# -- extrinsics ------------------------------------------------------------------------------------------------------


def test_a_body_frame_does_not_look_at_the_ceiling(tmp_path):
    """Gazebo stamps images with the camera's link: x forward, z up."""
    T_base_link = se3.make_transform(np.eye(3), np.array([0.2, 0.0, 0.4]))
    maker = BagMaker().drive(4)
    maker.transform(START_NS, ("base_link", "camera"), T_base_link, topic="/tf_static")
    folder = maker.write(tmp_path / "run")
    with open_recording(folder) as recording:
        np.testing.assert_allclose(recording.T_base_camera[:3, :3], se3.R_BODY_OPTICAL)
        np.testing.assert_allclose(recording.T_base_camera[:3, 3], [0.2, 0.0, 0.4])
        assert any("would look up" in warning for warning in recording.report.warnings)
    with open_recording(folder, camera_frame="camera") as recording:  # the user knows better
        np.testing.assert_array_equal(recording.T_base_camera, T_base_link)


def test_the_newest_static_transform_counts(tmp_path):
    maker = BagMaker().drive(4)
    for index, height in enumerate((0.5, 0.9)):
        T = se3.make_transform(se3.R_BODY_OPTICAL, np.array([0.2, 0.0, height]))
        maker.transform(START_NS - 10 + index, ("base_link", "camera"), T, topic="/tf_static")
    with open_recording(maker.write(tmp_path / "run")) as recording:
        assert recording.T_base_camera[2, 3] == 0.9
        assert any("the newest counts" in warning for warning in recording.report.warnings)


def test_what_is_latched_counts_after_the_start_as_well(tmp_path):
    maker = bag_of(textured(), info(), count=20)
    T = se3.make_transform(se3.R_BODY_OPTICAL, np.array([0.2, 0.0, 0.7]))
    maker.transform(START_NS + 4 * SECOND, ("base_link", "camera"), T, topic="/tf_static")  # after the stop
    with open_recording(maker.write(tmp_path / "run"), start_s=1.0, stop_s=3.0) as recording:
        assert len(recording) == 8
        assert recording.intrinsics.fx == 50.0
        np.testing.assert_allclose(recording.T_base_camera, OPTICAL, atol=1e-12)


def test_a_camera_that_pans_has_a_pose_for_each_frame(tmp_path):
    maker = BagMaker().drive(8)
    pans = 0.2 * np.arange(-1, 9)
    for index, pan in enumerate(pans):
        T = se3.transform_from_xyyaw(np.array([0.1, 0.0, pan]))
        maker.transform(START_NS + (index - 1) * SECOND // 4, ("base_link", "pan"), T)
    tilted = se3.make_transform(se3.R_BODY_OPTICAL, np.zeros(3))
    maker.transform(START_NS - 1, ("pan", "camera"), tilted, topic="/tf_static")
    with open_recording(maker.write(tmp_path / "run")) as recording:
        for index in (0, 3, 7):
            expected = se3.transform_from_xyyaw(np.array([0.1, 0.0, 0.2 * index])) @ tilted
            np.testing.assert_allclose(recording.frame(index).T_base_camera, expected, atol=1e-9)
        assert any("camera moves on the robot (pan)" in warning for warning in recording.report.warnings)


def test_a_fixed_camera_on_tf_stays_one(tmp_path):
    maker = BagMaker().drive(8)
    for index in range(8):
        maker.transform(START_NS + index * SECOND // 4, ("base_link", "camera"), OPTICAL)
    with open_recording(maker.write(tmp_path / "run")) as recording:
        np.testing.assert_allclose(recording.T_base_camera, OPTICAL, atol=1e-12)
        assert not any("moves" in warning for warning in recording.report.warnings)


# -- depth -----------------------------------------------------------------------------------------------------------


def wall_bag(frame, depth_info, depth_m=2.0, size=(64, 48), T=None, topic="/camera/depth/image_rect_raw"):
    """Build a drive that sees a wall, with depth in ``frame``; ``T`` is the depth camera in the colour camera."""
    maker = bag_of(textured(), info(K=(50.0, 50.0, 31.5, 23.5)))
    depth = np.full((size[1], size[0]), depth_m, np.float32)
    depth[:, size[0] // 2 :] = 2 * depth_m  # a step in the middle
    for index in range(4):
        stamp_ns = START_NS + index * SECOND // 4
        maker.add(stamp_ns, topic, IMAGE, maker.make.depth(stamp_ns, frame, depth, "16UC1"))
    if depth_info is not None:
        add_info(maker, depth_info, "/camera/depth/camera_info")
    if T is not None:
        maker.transform(START_NS - 1, ("camera", frame), T, topic="/tf_static")
    return maker


def test_depth_of_another_camera_is_registered(tmp_path):
    T = se3.make_transform(np.eye(3), np.array([-0.08, 0.0, 0.1]))
    depth_info = info(K=(40.0, 40.0, 31.5, 23.5), frame="depth")
    with open_recording(wall_bag("depth", depth_info, T=T).write(tmp_path / "run")) as recording:
        depth = recording.frame(1).depth_m
        assert any("it is registered to colour" in warning for warning in recording.report.warnings)
    # the near half ends at x = 0 of the depth camera: at -0.08 m in front of colour, 2.1 m away
    edge = 50.0 * -0.08 / 2.1 + 31.5
    row = depth[24]
    near, far = np.nanmin(row), np.nanmax(row)
    assert (near, far) == (pytest.approx(2.1, abs=1e-3), pytest.approx(4.1, abs=1e-3))
    assert abs(int(np.flatnonzero(row == near).max()) - edge) <= 1.0
    inner = depth[4:-4, 6:-6]
    assert np.isnan(inner).mean() < 0.06  # the strip that only colour sees


def test_a_finer_colour_image_gets_no_holes():
    depth_lens = Lens(32, 24, np.array([[25.0, 0, 15.5], [0, 25.0, 11.5], [0, 0, 1]]), np.zeros(0))
    colour_lens = Lens(96, 72, np.array([[75.0, 0, 47.5], [0, 75.0, 35.5], [0, 0, 1]]), np.zeros(0))
    depth = np.full((24, 32), 1.5, np.float32)
    registered = register_depth(depth, depth_lens, colour_lens, np.eye(4))
    np.testing.assert_allclose(registered[2:-2, 2:-2], 1.5)


def test_the_nearest_point_wins():
    lens = Lens(32, 24, np.array([[25.0, 0, 15.5], [0, 25.0, 11.5], [0, 0, 1]]), np.zeros(0))
    depth = np.full((24, 32), 4.0, np.float32)
    depth[:, :16] = 1.0
    moved = register_depth(depth, lens, lens, se3.make_transform(np.eye(3), np.array([0.2, 0.0, 0.0])))
    row = moved[12]
    assert row[18] == 1.0  # the near half moved by 5 px over the far one, which moved by 1.25 px
    assert row[24] == 4.0


def test_depth_of_the_same_view_at_another_size_is_registered(tmp_path):
    depth_info = info(size=(32, 24), K=(25.0, 25.0, 15.5, 11.5))
    with open_recording(wall_bag("camera", depth_info, size=(32, 24)).write(tmp_path / "run")) as recording:
        depth = recording.frame(0).depth_m
        assert depth.shape == (48, 64)
        np.testing.assert_allclose(depth[2:-2, 2:30], 2.0)
        np.testing.assert_allclose(depth[2:-2, 34:-2], 4.0)


def test_depth_that_cannot_be_placed_is_left_out_unless_named(tmp_path):
    folder = wall_bag("depth", None).write(tmp_path / "run")
    with open_recording(folder) as recording:
        assert recording.frame(0).depth_m is None
        assert any("it is left out (--depth-topic" in warning for warning in recording.report.warnings)
    with open_recording(folder, depth_topic="/camera/depth/image_rect_raw") as recording:
        np.testing.assert_allclose(recording.frame(0).depth_m[:, :32], 2.0)
        assert any("used as if it were registered" in warning for warning in recording.report.warnings)


def test_depth_that_says_it_is_aligned_is_believed(tmp_path):
    maker = wall_bag("depth", None, topic="/camera/aligned_depth_to_color/image_raw")
    with open_recording(maker.write(tmp_path / "run")) as recording:
        np.testing.assert_allclose(recording.frame(0).depth_m[:, :32], 2.0)


def test_depth_goes_through_the_lens_of_its_image(tmp_path):
    maker = bag_of(textured(), info(D=PLUMB_BOB))
    lens = read_lens(info(D=PLUMB_BOB), (64, 48), "info", [])
    depth = np.where(lens.rays[..., 0] > 0.3, 3.0, 1.0).astype(np.float32)
    for index in range(4):
        stamp_ns = START_NS + index * SECOND // 4
        maker.add(stamp_ns, "/camera/depth/image_raw", IMAGE, maker.make.depth(stamp_ns, "camera", depth, "32FC1"))
    with open_recording(maker.write(tmp_path / "run")) as recording:
        found = recording.frame(0).depth_m
    edge = np.argmax(found[8:-8] == 3.0, axis=1)
    assert np.ptp(edge) <= 1
    assert abs(edge.mean() - (0.3 * 50.0 + 31.0)) <= 1.0


def test_the_unit_of_depth_can_be_told(tmp_path):
    maker = wall_bag("camera", None)
    with open_recording(maker.write(tmp_path / "run"), depth_scale_m=0.0002) as recording:
        np.testing.assert_allclose(recording.frame(0).depth_m[:, :32], 0.4, rtol=1e-6)


# -- damaged images --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["jpeg", "png", "raw"])
@pytest.mark.parametrize("bad", [0, 5])
def test_one_damaged_image_is_left_out_with_a_note(tmp_path, kind, bad):
    maker = BagMaker()
    rng = np.random.default_rng(0)
    for index in range(12):
        stamp_ns = START_NS + index * SECOND // 4
        rgb = rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        if kind == "raw":
            raw = bytearray(maker.make.image(stamp_ns, "camera", rgb))
            message = STORE.deserialize_cdr(bytes(raw), IMAGE)
            message.data = message.data[: len(message.data) // 2] if index == bad else message.data
            maker.add(stamp_ns, "/image", IMAGE, bytes(STORE.serialize_cdr(message, IMAGE)))
        else:
            message = STORE.deserialize_cdr(maker.make.jpeg(stamp_ns, "camera", rgb), COMPRESSED_IMAGE)
            if kind == "png":
                message.data = cv2.imencode(".png", rgb)[1].reshape(-1)
            if index == bad:
                message.data = message.data[: len(message.data) // 2]
            maker.add(
                stamp_ns, "/image/compressed", COMPRESSED_IMAGE, bytes(STORE.serialize_cdr(message, COMPRESSED_IMAGE))
            )
        maker.odometry(stamp_ns, 0.1 * index)
    with open_recording(maker.write(tmp_path / "run")) as recording:
        assert len(recording) == 11
        for index in range(11):
            assert recording.frame(index).rgb.shape == (HEIGHT, WIDTH, 3)
        assert any("left out 1 of 12 images" in warning for warning in recording.report.warnings)
        expected = [0.1 * index for index in range(12) if index != bad]
        np.testing.assert_allclose(recording.poses_xyyaw[:, 0], expected, atol=1e-9)


def test_a_bag_of_damaged_images_names_itself(tmp_path):
    maker = BagMaker()
    for index in range(3):
        message = STORE.deserialize_cdr(maker.make.jpeg(START_NS + index, "camera", textured()), COMPRESSED_IMAGE)
        message.data = message.data[:0]
        maker.add(START_NS + index, "/image", COMPRESSED_IMAGE, bytes(STORE.serialize_cdr(message, COMPRESSED_IMAGE)))
        maker.odometry(START_NS + index, 0.0)
    with pytest.raises(DataError, match=r"run: /image has no image that is whole: 3 of 3 .*damaged"):
        open_recording(maker.write(tmp_path / "run"))


# -- anything in CameraInfo ------------------------------------------------------------------------------------------

NUMBERS = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, 1e-12, 1e12, 1e300, np.nan, np.inf, -np.inf]), st.floats(-200, 200), st.floats()
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(NUMBERS, min_size=9, max_size=9),
    st.lists(NUMBERS, min_size=12, max_size=12),
    st.lists(NUMBERS, max_size=16),
    st.sampled_from(["plumb_bob", "rational_polynomial", "equidistant", "", "x", "fisheye"]),
    st.tuples(*[st.sampled_from([0, 1, 5, 64, 2**32 - 1])] * 4),
    st.sampled_from([(0, 0), (64, 48), (128, 96), (1, 1), (2**32 - 1, 2**32 - 1)]),
    st.booleans(),
)
def test_any_camera_info_gives_a_camera_a_note_or_one_line(K, P, D, model, roi, size, rectified):
    given_info = info(size=size, D=D, model=model, roi=roi)
    given_info.k, given_info.p = np.array(K), np.array(P)
    try:
        lens = read_lens(given_info, (64, 48), "info", [], rectified=rectified)
    except DataError as error:
        assert "\n" not in str(error)
        return
    if lens is None:
        return
    camera = lens.pinhole
    assert np.isfinite([camera.fx, camera.fy, camera.cx, camera.cy]).all() and camera.fx > 0 and camera.fy > 0
    assert lens.straighten(textured()).shape == (48, 64, 3)
    assert lens.straighten_depth(np.ones((48, 64), np.float32)).shape == (48, 64)
    assert register_depth(np.ones((48, 64), np.float32), lens, lens, np.eye(4)).shape == (48, 64)
