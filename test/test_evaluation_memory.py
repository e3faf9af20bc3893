"""What was seen before, by depth, and which windows only memory can answer; tables of recall."""

from __future__ import annotations

import numpy as np
import pytest

from come_nav.core.errors import ConfigError, DataError
from come_nav.core.geometry import se3
from come_nav.core.types import CameraIntrinsics, Frame
from come_nav.evaluation.protocols.memory_visibility import DepthViews, depth_views, longest_unseen, union_share
from come_nav.evaluation.protocols.memory_windows import (
    MemoryDrive,
    RevisitLimits,
    choose_limits,
    choose_memory_windows,
    choose_of_each,
    find_revisits,
)
from come_nav.evaluation.protocols.protocol import ProtocolSettings
from come_nav.evaluation.reports.memory_tables import FACTS, features_of, recall_table, set_distance

CAMERA = CameraIntrinsics.from_field_of_view(32, 32, np.pi / 2)
T_BASE_CAMERA = se3.make_transform(se3.R_BODY_OPTICAL, np.array([0.0, 0.0, 0.5]))
WALL_M = 2.0


def room_depth(yaw_rad: float, camera: CameraIntrinsics = CAMERA) -> np.ndarray:
    """Depth of a tall square room with walls ``WALL_M`` from its centre, seen from there: exact at pixel centres."""
    x = (np.arange(camera.width) + 0.5 - camera.cx) / camera.fx
    angle = yaw_rad - np.arctan(x)
    distance = WALL_M / np.maximum(np.abs(np.cos(angle)), np.abs(np.sin(angle)))  # along the floor
    return np.repeat((distance * np.cos(np.arctan(x)))[None], camera.height, axis=0).astype(np.float32)


class Spin:
    """A camera that turns on the spot in the middle of the room: N frames at given headings, with depth."""

    def __init__(self, yaws_rad: np.ndarray, depth: bool = True, stamps_s: np.ndarray | None = None) -> None:
        self.name, self.rate_hz, self.metadata = "spin", 4.0, {}
        self.stamps_s = np.arange(len(yaws_rad)) / 4.0 if stamps_s is None else stamps_s
        self.poses_xyyaw = np.stack([np.zeros_like(yaws_rad), np.zeros_like(yaws_rad), yaws_rad], axis=1)
        self.T_odom_base = se3.transform_from_xyyaw(self.poses_xyyaw)
        self.intrinsics, self.T_base_camera = CAMERA, T_BASE_CAMERA
        self._depth = depth

    def __len__(self) -> int:
        return len(self.stamps_s)

    def frame(self, index: int) -> Frame:
        depth = room_depth(self.poses_xyyaw[index, 2]) if self._depth else None
        rgb = np.full((32, 32, 3), index % 256, np.uint8)
        return Frame(float(self.stamps_s[index]), rgb, depth, CAMERA, T_BASE_CAMERA)


def spin_drive(yaws_deg: list[float], memory: int) -> MemoryDrive:
    recording = Spin(np.deg2rad(np.array(yaws_deg, float)))
    return MemoryDrive("spin", recording, recording, range(memory))


def seen_share(turn_deg: float) -> float:
    """Share of grid columns of a 90 degree view that a view turned by ``turn_deg`` shows as well."""
    x = (np.arange(16) + 0.5) * 2.0 / 16.0 - 1.0
    angle = np.degrees(np.arctan(x)) + turn_deg
    return float((np.abs(angle) < 45.0).mean())


@pytest.mark.parametrize("turn_deg", [0, 20, 45, 60, 89, 120])
def test_what_a_turned_camera_still_sees(turn_deg):
    spin = Spin(np.deg2rad([0.0, turn_deg]))
    views = depth_views(spin, spin.T_odom_base)
    seen = views.see(views.points(0), range(0, 2))
    assert seen[0].all()
    # Rows at the border of the turned view rise out of it, so that the share is that of the columns or a little less.
    assert seen[1].mean() <= seen_share(turn_deg) + 1e-9
    assert seen[1].mean() >= 0.6 * seen_share(turn_deg)


def test_what_stands_in_the_way_hides():
    near = np.full((32, 32), 1.0, np.float32)
    far = np.full((32, 32), 2.0, np.float32)
    half = np.where(np.arange(32)[None] < 16, near, far).astype(np.float32)
    T = np.broadcast_to(np.eye(4), (3, 4, 4))
    views = DepthViews(np.stack([far, half, np.full_like(far, np.nan)]), CAMERA, T)
    seen = views.see(views.points(0), range(0, 3))
    assert seen[0].mean() == 1.0
    assert seen[1].mean() == pytest.approx(0.5)
    assert seen[2].mean() == 0.0, "unknown depth has seen nothing"


def test_a_slanted_floor_is_recognised_from_farther_back():
    """Pixels of the floor span half a metre of depth; a nearest-pixel comparison alone would call many of them new."""
    rays = (np.arange(32) + 0.5 - CAMERA.cy) / CAMERA.fy

    def floor(height_m: float) -> np.ndarray:
        with np.errstate(divide="ignore"):
            depth = np.where(rays > 0.05, height_m / rays, np.nan)
        return np.repeat(depth[:, None], 32, axis=1).astype(np.float32)

    T = np.stack([np.eye(4), np.eye(4)])
    T[1, 2, 3] = -0.3  # the optical axis is z
    views = DepthViews(np.stack([floor(0.5)] * 2), CAMERA, T)
    inside = views.see(views.points(0), range(1, 2))[0]
    assert inside.mean() > 0.85


def test_ages_and_unions():
    seen = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], bool)
    assert longest_unseen(seen, 0.25).tolist() == [0, 1, 2, 3]
    assert longest_unseen(seen, 0.2).tolist() == [0, 1, 0, 0]
    assert longest_unseen(seen, 0.9).tolist() == [4, 4, 4, 4]
    assert union_share(seen, 2)[1:].tolist() == [0.5, 0.25, 0.5]
    assert np.isnan(union_share(seen, 2)[0])
    assert np.isnan(union_share(seen[:1], 2)).all()


def test_windows_of_a_scene_with_known_visibility():
    """Look once all around, then away for long, then back: only targets after the turn back are windows."""
    around = list(np.linspace(0.0, 360.0, 24, endpoint=False))
    away = [180.0] * 70
    back = [180.0, 180.0, 180.0, 0.0, 0.0, 0.0]
    drive = spin_drive([*around, *away, *back], memory=24)
    found = find_revisits(drive, range(1, 9))
    mask = found.qualifying(RevisitLimits())
    pairs = {
        (int(found.targets[row]), int(found.offsets[column])) for row, column in zip(*np.nonzero(mask), strict=True)
    }
    start_of_back = 24 + 70
    first = start_of_back + 3
    assert pairs == {(target, k) for target in range(first, first + 3) for k in range(target - first + 1, 9)}
    assert (found.share_remembered[found.targets >= first] == 1.0).all()
    looked_at = found.age_frames[found.targets == first][0]
    last_look = 20  # 300 degrees: of the view at 0 more than a quarter shows up to a turn of 60 degrees and beyond
    assert looked_at.max() <= first - last_look
    assert looked_at.max() >= RevisitLimits().min_age_frames


def test_windows_keep_to_the_test_phase_and_to_whole_stretches():
    yaws = [*np.linspace(0, 360, 24, endpoint=False), *[180.0] * 70, *[0.0] * 4]
    whole = find_revisits(spin_drive(yaws, 24), range(1, 3))
    assert whole.qualifying(RevisitLimits()).any()
    starts = whole.targets[:, None] - whole.offsets
    assert np.isnan(whole.share_visible[starts < 24 + 3]).all()
    stamps_s = np.arange(len(yaws)) / 4.0
    stamps_s[24 + 70 :] += 100.0  # the recording paused while the camera turned
    torn = Spin(np.deg2rad(np.array(yaws)), stamps_s=stamps_s)
    found = find_revisits(MemoryDrive("torn", torn, torn, range(24)), range(1, 3))
    assert not found.qualifying(RevisitLimits()).any()


def test_windows_are_spread_over_starts_and_offsets():
    yaws = [*np.linspace(0, 360, 24, endpoint=False), *[180.0] * 80, *[0.0] * 30]
    found = find_revisits(spin_drive(yaws, 24), range(1, 31))
    windows = choose_memory_windows([found], RevisitLimits(), ProtocolSettings(horizon_steps=30), 12)
    starts = [window.window.start for window in windows]
    assert len(windows) == 12
    assert starts == sorted(set(starts))
    offsets = np.array([window.offset_frames for window in windows])
    assert (offsets <= 8).sum() >= 2
    assert (offsets > 16).sum() >= 3
    for window in windows:
        assert window.targets == (window.window.start + window.offset_frames,)
        assert window.share_visible < 0.25
        assert window.poses_xyyaw[0] == pytest.approx([0.0, 0.0, np.pi], abs=1e-9)
    again = choose_memory_windows([found], RevisitLimits(), ProtocolSettings(horizon_steps=30), 12)
    assert [(window.window.start, window.targets) for window in again] == [(w.window.start, w.targets) for w in windows]


def test_drift_changes_what_is_believed_and_not_what_was_driven():
    yaws = np.deg2rad([*np.linspace(0, 360, 24, endpoint=False), *[180.0] * 70, *[0.0] * 4])
    truth, believed = Spin(yaws), Spin(yaws * 1.1)
    drive = MemoryDrive("drift", believed, truth, range(24))
    found = find_revisits(drive, range(1, 3))
    window = choose_memory_windows([found], RevisitLimits(), ProtocolSettings(horizon_steps=2), 1)[0]
    assert window.window.driven_xyyaw[-1, 2] == pytest.approx(np.pi, abs=1e-6)
    turned = -1.1 * np.pi
    assert window.poses_xyyaw[0, 2] == pytest.approx(np.arctan2(np.sin(turned), np.cos(turned)), abs=1e-6)


def test_short_recordings_relax_their_limits():
    short = find_revisits(
        spin_drive([*np.linspace(0, 360, 24, endpoint=False), *[180.0] * 12, 0.0, 0.0], 24), range(1, 5)
    )
    limits = choose_limits([short], 2)
    assert limits.min_age_frames < RevisitLimits().min_age_frames
    assert choose_memory_windows([short], limits, ProtocolSettings(), 2)
    with pytest.raises(DataError, match="no window fits"):
        choose_limits([find_revisits(spin_drive([0.0] * 26, 24), range(1, 3))], 1)


def test_recordings_without_depth_are_refused():
    blind = Spin(np.zeros(30), depth=False)
    with pytest.raises(DataError, match="--depth-topic"):
        find_revisits(MemoryDrive("blind", blind, blind, range(10)), [1])


def test_the_table_splits_and_pairs():
    yaws = [*np.linspace(0, 360, 24, endpoint=False), *[180.0] * 80, *[0.0] * 30]
    found = find_revisits(spin_drive(yaws, 24), range(1, 31))
    windows = choose_memory_windows([found], RevisitLimits(), ProtocolSettings(horizon_steps=30), 10)

    def records(row, values):
        return [
            {"recording": "spin", "start": w.window.start, "row": row, "psnr_db": [v], "ssim": [v / 50], "energy": [v],
             "truth_energy": [10.0], "seconds": 0.1}
            for w, v in zip(windows, values, strict=True)
        ]  # fmt: skip

    base = np.arange(10.0) + 10.0
    coverage = np.where(np.arange(10) < 4, 0.3, 0.9)
    facts = [{"row": FACTS, "coverage": float(share)} for share in coverage]
    rows = {"base": records("base", base), "all": records("all", base + np.where(coverage < 0.6, 1.0, 3.0))}
    table = recall_table(windows, rows, facts, {"all": ["base", "absent"]}, seed=0)
    assert list(table.gains) == [("all", "base")]
    gain = table.gains["all", "base"]["psnr_db"]
    assert gain["all"].value == pytest.approx(2.2)
    assert gain["cloud < 60%"].value == pytest.approx(1.0)
    assert gain["cloud >= 60%"].value == pytest.approx(3.0)
    assert gain["cloud < 60%"].n == table.counts["cloud < 60%"] == 4
    assert table.rows["base"]["sharpness"]["all"].value == pytest.approx(base.mean() / 10.0)
    short = sum(window.offset_frames <= 8 for window in windows)
    assert table.counts["<= 2 s"] == short
    assert table.counts["<= 2 s"] + table.counts["2-4 s"] + table.counts["> 4 s"] == 10
    since_s = np.array([window.age_frames for window in windows]) / 4.0
    middle = float(np.median(since_s))
    aged = recall_table(windows, rows, facts, {"all": ["base"]}, 0, ages_s=((1.0, middle), (middle, np.inf)))
    old = aged.gains["all", "base"]["psnr_db"][f"last seen > {middle:g} s ago"]
    assert old.n == (since_s >= middle).sum() > 0
    assert old.value == pytest.approx(np.where(coverage < 0.6, 1.0, 3.0)[since_s >= middle].mean())


def test_sets_of_images_are_compared_with_the_set_of_true_ones():
    rng = np.random.default_rng(0)
    true, alike, mean = rng.normal(size=(400, 6)), rng.normal(size=(400, 6)), np.zeros((400, 6))

    def distance(made, count=400):
        sets = ([{"features": [own.tolist()]} for own in images[:count]] for images in (made, true))
        return set_distance(*map(features_of, sets), seed=0)

    assert abs(distance(alike).value) < 0.1 < distance(mean).value  # alike as sets, whichever image stands where
    assert distance(alike).low < distance(alike).value < distance(alike).high
    few = distance(alike, count=19)
    assert np.isnan([few.value, few.low, few.high]).all() and few.n == 19, "of so few it would be noise"


def test_as_many_targets_of_each_age_and_no_start_twice():
    yaws = [*np.linspace(0, 360, 24, endpoint=False), *[180.0] * 80, *[0.0] * 12, *[180.0] * 6, *[0.0] * 12]
    found = find_revisits(spin_drive(yaws, 24), range(1, 17), most_visible=np.inf)
    ages = ((0.5, 2.0), (2.0, 8.0), (8.0, np.inf))
    kinds = tuple(RevisitLimits.of_age(*age, 4.0) for age in ages)
    assert [(own.min_age_frames, own.max_age_frames) for own in kinds] == [(2, 7), (8, 31), (32, None)]
    windows = choose_of_each([found], kinds, ProtocolSettings(horizon_steps=16), 15)
    since_s = np.array([window.age_frames for window in windows]) / 4.0
    assert [int(((since_s >= low) & (since_s < high)).sum()) for low, high in ages] == [5, 5, 5]
    starts = [window.window.start for window in windows]
    assert starts == sorted(set(starts))
    for window in windows:
        assert window.age_frames == found.age_frames[found.targets == window.targets[0]][0, window.offset_frames - 1]


def test_limits_say_how_old_targets_may_be():
    assert RevisitLimits.of_age(0.5, 2.0, 4.0).describe().endswith("last seen at least 2 frames ago and at most 7")
    assert RevisitLimits.of_age(30.0, np.inf, 4.0).describe().endswith("last seen at least 120 frames ago")
    with pytest.raises(ConfigError, match="age"):
        RevisitLimits.of_age(2.0, 2.0, 4.0)
    with pytest.raises(ConfigError, match="max_age_frames"):
        RevisitLimits(max_age_frames=10)
