"""Where the camera sits: what is logged when tf begins to tell it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'come_nav[ros]'")
from rclpy.logging import get_logger

from come_nav.ros.inputs import extrinsics as module
from come_nav.ros.inputs.extrinsics import Extrinsics


def test_a_source_that_changes_is_logged_by_rclpy_each_time(monkeypatch, capfd):
    """rclpy refuses a call that logs with another severity than at the same line before."""
    heard: list[np.ndarray | None] = [None]
    monkeypatch.setattr(module, "at_or_newest", lambda *words: heard[0])
    node = SimpleNamespace(
        values={"base_frame": "base_link"},
        log=get_logger("extrinsics_test"),
        resolve_topic_name=lambda name: name,
        get_topic_names_and_types=lambda: [],
    )
    parameter, tf = np.eye(4), np.eye(4)
    parameter[2, 3], tf[2, 3] = 0.5, 0.244
    extrinsics, warnings = Extrinsics(node, None, parameter), []
    heights = []
    for found in (None, tf, tf, None):
        heard[0] = found
        heights.append(extrinsics.at("camera_color_optical_frame", 1.0, warnings)[2, 3])
    np.testing.assert_allclose(heights, [0.5, 0.244, 0.244, 0.5])
    told = [line for stream in capfd.readouterr() for line in stream.splitlines() if "extrinsics_test" in line]
    assert [("WARN" in line, "INFO" in line) for line in told] == [(True, False), (False, True), (True, False)]
