"""What ``come-nav plan`` shows the stack before it plans: the whole recording only where a memory makes use of it."""

from __future__ import annotations

import json
import types
from dataclasses import replace

import numpy as np
import pytest
from data_samples import SampleRecording

from come_nav.cli.main import main
from come_nav.cli.plan import _goal, first_shown, frame_index, remember
from come_nav.core.errors import DataError
from come_nav.core.types import Frame
from come_nav.data import open_recording
from come_nav.navigation.memories.experts_in_use import experts_in_use
from come_nav.navigation.settings import ExpertsSettings, NavigationSettings


def recording(has_depth, rate_hz=4.0):
    depth_m = np.ones((8, 8), np.float32) if has_depth else None
    frames = [Frame(index / rate_hz, np.zeros((8, 8, 3), np.uint8), depth_m) for index in range(30)]
    stamps_s = np.array([frame.stamp_s for frame in frames])
    return types.SimpleNamespace(
        frame=frames.__getitem__, T_odom_base=np.tile(np.eye(4), (30, 1, 1)), stamps_s=stamps_s
    )


@pytest.mark.parametrize(("rate_hz", "first"), [(4.0, 17), (8.0, 9), (30.0, 0), (2.0, 21)])
def test_what_can_be_context_is_shown_at_any_rate_of_the_recording(rate_hz, first):
    """Two seconds of it for four frames at 4 Hz."""
    model = types.SimpleNamespace(context_frames=4, rate_hz=4.0)
    assert first_shown(recording(True, rate_hz), 25, model) == first


@pytest.mark.parametrize(
    ("experts", "has_depth", "first"),
    [
        (ExpertsSettings(), True, 0),
        (ExpertsSettings(), False, 12),
        (ExpertsSettings(estimate_depth=True), False, 0),
        (ExpertsSettings(long_term=1.0), False, 0),
        (ExpertsSettings(use=()), True, 12),
        (ExpertsSettings(use=("spatial",)), False, 0),
    ],
)
def test_frames_before_the_context_are_shown_where_a_memory_uses_them(experts, has_depth, first, capsys):
    seen = []
    stack = types.SimpleNamespace(
        settings=replace(NavigationSettings(), experts=experts),
        model=types.SimpleNamespace(context_frames=4, rate_hz=4.0),
        episode=types.SimpleNamespace(in_use=lambda: experts_in_use(experts, {})),
    )
    navigator = types.SimpleNamespace(stack=stack, observe=lambda frame, odometry: seen.append(frame.stamp_s * 4))
    remember(navigator, recording(has_depth), 20)
    assert seen == list(range(first, 21))
    assert capsys.readouterr().err == "", "no bar where stderr is no terminal"


def test_a_goal_image_is_looked_for_in_memory_as_on_the_robot(tmp_path, capsys):
    """The verb finds where an earlier image was taken, and leads there over key frames; --direct does not look."""
    bag = tmp_path / "tour"
    assert (
        main(
            [
                "simulate",
                "--world",
                "10000",
                "--driver",
                "tour",
                "--duration",
                "20",
                "--camera",
                "64",
                "--out",
                str(bag),
            ]
        )
        == 0
    )
    capsys.readouterr()
    words = ["plan", str(bag), "--at", "70", "--goal-index", "12", "--json", "--set", "planner.initial_samples=24"]
    words += ["--set", "planner.samples=8", "--set", "planner.iterations=2", "--set", "planner.elites=4"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    truth = open_recording(bag).poses_xyyaw[12]
    assert found["recognised"]
    assert np.hypot(*(np.array(found["goal_odom_xyyaw"])[:2] - truth[:2])) < 0.5
    assert main([*words, "--direct"]) == 0
    direct = json.loads(capsys.readouterr().out)
    assert (direct["recognised"], direct["goal_odom_xyyaw"], direct["way_odom_xy"]) == (False, None, None)


@pytest.mark.parametrize(
    ("fov", "camera"), [("60", 30.0 / np.tan(np.radians(30.0))), ("unknown", "unknown"), (None, None)]
)
def test_a_goal_image_has_the_camera_that_the_flag_or_its_file_tells(tmp_path, fov, camera):
    """A file without EXIF tells nothing; one with it tells the focal length."""
    from PIL import Image

    image, exif = Image.new("RGB", (60, 80)), Image.Exif()
    image.save(tmp_path / "plain.png")
    goal = _goal(arguments(goal_image=tmp_path / "plain.png", goal_fov=fov), None)
    assert (goal.camera if camera in (None, "unknown") else goal.camera.fx) == pytest.approx(camera)
    exif.get_ifd(0x8769)[0xA405] = 43
    image.save(tmp_path / "phone.jpg", exif=exif)
    told = _goal(arguments(goal_image=tmp_path / "phone.jpg", goal_fov=None), None).camera
    assert told.fx == pytest.approx(43.0 / np.hypot(36.0, 24.0) * 100.0)


@pytest.mark.parametrize("fov", ["0", "180", "wide", "nan"])
def test_a_field_of_view_that_is_none_is_refused(tmp_path, fov):
    from PIL import Image

    Image.new("RGB", (60, 80)).save(tmp_path / "plain.png")
    with pytest.raises(DataError, match=rf"--goal-fov must be in \[1, 179\) degrees, or unknown, got '{fov}'"):
        _goal(arguments(goal_image=tmp_path / "plain.png", goal_fov=fov), None)
    with pytest.raises(DataError, match="give --goal-image as well"):
        _goal(arguments(goal_pose="1,2,0", goal_fov="60"), None)


def arguments(**given):
    nothing = {"goal_image": None, "goal_index": None, "goal_pose": None, "goal_fov": None}
    return types.SimpleNamespace(**{**nothing, **given})


@pytest.mark.parametrize(("text", "index"), [("0s", 0), ("1.0", 4), ("1.1s", 4), ("2.75s", 11), ("7", 7)])
def test_a_moment_is_an_index_or_seconds(text, index):
    assert frame_index(SampleRecording(12), text) == index


@pytest.mark.parametrize("text", ["9999s", "-7s", "nans", "3.0s", "12", "-1", "noon"])
def test_a_moment_outside_of_the_recording_is_refused(text):
    with pytest.raises(DataError, match="--at must be"):
        frame_index(SampleRecording(12), text)
