"""Key frames with features on disk: a planner that is killed recognises as before; bounded in memory and on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from drift_samples import DRIFT_RAD, believed, drive, stack_of, turned_robot

from come_nav.core.errors import MemoryStoreError, ShapeError
from come_nav.core.geometry import se2, se3
from come_nav.core.types import Frame, Odometry
from come_nav.localisation.features import Features
from come_nav.localisation.keyframe_map import LocaliserSettings, VisualKeyframe
from come_nav.localisation.saved.views import packed_views, unpacked_views
from come_nav.localisation.view import View
from come_nav.memory.keyframes import Keyframes, KeyframesSettings
from come_nav.memory.store.feature_files import STATE, FeatureFiles
from come_nav.memory.store.store import MemoryStore
from come_nav.navigation.goals.places import Places
from come_nav.navigation.localising.resuming import Resumption
from come_nav.navigation.localising.robot_localisation import RobotLocalisation
from come_nav.navigation.localising.settings import LocalisationSettings
from come_nav.navigation.navigator import GoalRequest, Navigator
from come_nav.ros.planner.place_store import PlaceStore

POSES, FRAMES = turned_robot()
ODOM = believed(POSES, DRIFT_RAD)
T_BEFORE_AFTER = np.array([0.7, -0.4, 2.5])


def robot_with(folder: Path, told: list[str] | None = None) -> tuple[Navigator, PlaceStore]:
    """Return a robot that remembers in a folder, as the planner node makes it."""
    navigator = Navigator(stack_of())

    def diagnose(error: Exception, _: str) -> None:
        if told is None:
            raise error
        told.append(str(error))

    store = PlaceStore(navigator.places, MemoryStore(folder), diagnose, navigator.stack.localisation)
    store.load()
    return navigator, store


def test_a_robot_that_was_killed_goes_on_as_one_that_was_not(tmp_path: Path) -> None:
    """Corrections, closures with what was seen before, and where an image is found: all to a millimetre or so."""
    steady = Navigator(stack_of())
    drive(steady, FRAMES, ODOM)
    killed, store = robot_with(tmp_path)
    drive(killed, FRAMES[:9], ODOM[:9])
    store.save()
    drive(killed, FRAMES[9:14], ODOM[9:14])
    store.save()
    assert len(list((tmp_path / "features").glob("views-*.npz"))) == 2
    again, _ = robot_with(tmp_path)
    ours, theirs = again.stack.localisation, steady.stack.localisation
    assert len(ours) == 14
    asked = FRAMES[2].rgb
    before, loaded = killed.stack.localisation.find(asked), ours.find(asked)
    assert loaded is not None and loaded.certain and loaded.keyframe == before.keyframe
    np.testing.assert_allclose(loaded.pose_odom_xyyaw, before.pose_odom_xyyaw, atol=1e-9)
    drive(again, FRAMES[14:], ODOM[14:])
    assert ours.localiser.closures == theirs.localiser.closures
    assert ours.drifts
    found, wanted = ours.find(asked), theirs.find(asked)
    assert np.abs(se2.relative(wanted.pose_odom_xyyaw, found.pose_odom_xyyaw)).max() < 0.01
    moved = se2.relative(killed.stack.localisation.T_map_odom_xyyaw, theirs.T_map_odom_xyyaw)
    assert abs(moved[2]) > 0.05, "odometry drifted on"
    off = se2.relative(theirs.T_map_odom_xyyaw, again.places.T_map_odom_xyyaw)
    assert np.hypot(*off[:2]) < 0.02 and abs(off[2]) < 0.02


@pytest.mark.parametrize("later_s", [3600.0, -2.0])
def test_a_robot_that_is_started_elsewhere_finds_itself_in_what_it_remembers(tmp_path: Path, later_s: float) -> None:
    """Odometry began anew: a day later, or in a simulator whose clock began anew as well."""
    first, store = robot_with(tmp_path)
    drive(first, FRAMES[:14], ODOM[:14])
    store.save()
    places = first.places.poses_xyyaw
    again, store = robot_with(tmp_path)
    localisation = again.stack.localisation
    again.begin(GoalRequest(pose_odom_xyyaw=np.array([1.0, 2.0, 0.5])))
    frames = [replace(frame, stamp_s=frame.stamp_s + later_s) for frame in FRAMES[5:26]]
    odom = se2.relative(T_BEFORE_AFTER[None], ODOM[5:26])
    blank = replace(frames[0], rgb=np.full_like(frames[0].rgb, 127), stamp_s=frames[0].stamp_s - 0.25)
    drive(again, [blank], odom[:1] + np.array([[0.0, 0.0, -0.3]]))  # nothing to be recognised by
    assert localisation.resumption is not None and not localisation.found_again
    drive(again, frames, odom)
    assert localisation.resumption is None and localisation.found_again and "began anew at" in localisation.resumed
    again.step(frames[-1].stamp_s + 99.0)
    np.testing.assert_array_equal(again.mission.goal.pose_odom_xyyaw, [1.0, 2.0, 0.5])  # it was told in this odom
    for image, row in ((FRAMES[2].rgb, 2), (FRAMES[20].rgb, 20)):
        found = localisation.find(image)
        off = se2.relative(se2.relative(T_BEFORE_AFTER, ODOM[row]), found.pose_odom_xyyaw)
        assert found.certain and np.hypot(*off[:2]) < 0.05 and abs(off[2]) < 0.1 + 26 * DRIFT_RAD
    corrected = se2.compose(again.places.T_map_odom_xyyaw, se2.relative(T_BEFORE_AFTER, ODOM[25]))
    wanted = se2.compose(first.places.T_map_odom_xyyaw, ODOM[13])
    assert np.hypot(*se2.relative(wanted, corrected)[:2]) < 0.05  # it turns on the spot
    kept = se2.relative(T_BEFORE_AFTER[None], places)[:, :2]
    assert np.abs(again.places.poses_xyyaw[: len(kept), :2] - kept).max() < 0.1
    assert np.ptp(again.places.poses_xyyaw[:, :2], axis=0).max() < 0.1, "what was seen before it was found moved too"
    store.save()
    third, _ = robot_with(tmp_path)
    assert len(third.stack.localisation) == len(localisation) > 14
    before, loaded = (each.stack.localisation.find(FRAMES[2].rgb) for each in (again, third))
    np.testing.assert_allclose(loaded.pose_odom_xyyaw, before.pose_odom_xyyaw, atol=1e-9)


def test_a_robot_that_was_carried_finds_itself(tmp_path: Path) -> None:
    """The clock of odometry jumped back, as a bag's that begins again: nobody knows where the robot is."""
    robot, store = robot_with(tmp_path)
    drive(robot, FRAMES[:14], ODOM[:14])
    store.save()
    places = len(robot.places)
    robot.forget()
    assert len(robot.stack.localisation) == 14 and len(robot.places) == places
    frames = [replace(frame, stamp_s=frame.stamp_s - 1.0) for frame in FRAMES[5:9]]
    drive(robot, frames, se2.relative(T_BEFORE_AFTER[None], ODOM[5:9]))
    assert robot.stack.localisation.found_again
    off = se2.relative(
        se2.relative(T_BEFORE_AFTER, ODOM[2]), robot.stack.localisation.find(FRAMES[2].rgb).pose_odom_xyyaw
    )
    assert np.hypot(*off[:2]) < 0.05 and abs(off[2]) < 0.1
    robot.forget(everything=True)
    assert len(robot.stack.localisation) == 0 and robot.stack.localisation.resumption is None


def test_places_are_saved_also_where_each_new_one_makes_room_for_it(tmp_path: Path) -> None:
    places = Places(Keyframes(KeyframesSettings(max_count=8)), lambda images: None)
    store = PlaceStore(places, MemoryStore(tmp_path), pytest.fail, RobotLocalisation(LocalisationSettings(use=False)))
    store.save()
    assert MemoryStore(tmp_path).newest() is None  # nothing to keep
    for step in range(40):
        pose = np.array([0.5 * step, 0.0, 0.0])
        places.observe(
            Frame(1.0 + step, np.zeros((24, 32, 3), np.uint8)), Odometry(1.0 + step, se3.transform_from_xyyaw(pose))
        )
        store.save()
    version = MemoryStore(tmp_path).newest()
    store.save()
    assert MemoryStore(tmp_path).newest() == version  # nothing new
    again = Places(Keyframes(KeyframesSettings(max_count=8)), lambda images: None)
    again.load(MemoryStore(tmp_path))
    np.testing.assert_allclose(again.poses_xyyaw, places.poses_xyyaw)
    assert again.poses_xyyaw[:, 0].max() == 0.5 * 39
    places.clear()
    store.forget()
    store.save()
    again.load(MemoryStore(tmp_path))
    assert len(again) == 0


class Looked:
    """A localiser whose key frame is at (0.4, 0) m, 2.83 rad, and which finds an image there, or nowhere."""

    def __init__(self, finds: bool) -> None:
        pose = np.array([0.4, 0.0, 2.83])
        self.keyframes = [SimpleNamespace(stamp_s=1000.0, pose_odom_xyyaw=pose)]
        self.map = SimpleNamespace(correction_xyyaw=lambda keyframe: np.zeros(3))
        self.match = SimpleNamespace(certain=finds, pose_map_xyyaw=pose if finds else None, keyframe=0)

    def relocalise(self, *image):
        return self.match


@pytest.mark.parametrize(
    ("finds", "carried", "gap_s", "pose", "wanted"),
    [
        (True, False, 1.0, (0.4, 0.0, 2.83), "found where odometry says"),
        (True, False, 1.0, (0.0, 0.0, 0.0), "odometry began anew at"),  # the driver of the base was started again too
        (True, True, 20.0, (0.4, 0.0, -0.5), "odometry began anew at"),  # lifted, turned and set down
        (False, False, 1.0, (0.4, 0.0, 2.5), "where odometry goes on"),
        (False, False, 1.0, (0.4, 0.0, 0.0), "looks for itself"),  # so fast it does not turn
        (False, False, 1.0, (9.0, 0.0, 2.83), "looks for itself"),
        (False, True, 1.0, (0.4, 0.0, 2.83), "looks for itself"),
        (False, False, 3600.0, (0.4, 0.0, 2.83), "looks for itself"),
    ],
)
def test_a_look_decides_before_odometry_does(finds, carried, gap_s, pose, wanted) -> None:
    resumption, frame = (
        Resumption(carried),
        SimpleNamespace(stamp_s=1000.0 + gap_s, rgb=None, intrinsics=None, depth_m=None, T_base_camera=None),
    )
    T = resumption.T_before_now_xyyaw(Looked(finds), frame, np.array(pose))
    assert wanted in resumption.text
    if "anew" in wanted:
        np.testing.assert_allclose(se2.compose(T, np.array(pose)), [0.4, 0.0, 2.83], atol=1e-9)
    else:
        assert T is None if "looks" in wanted else not T.any()


def test_a_robot_that_recognises_nothing_goes_on_where_odometry_says(tmp_path: Path) -> None:
    first, store = robot_with(tmp_path)
    drive(first, FRAMES[:4], ODOM[:4])
    store.save()
    again, _ = robot_with(tmp_path)
    blank = [replace(f, rgb=np.full_like(f.rgb, 127), stamp_s=f.stamp_s + 3600.0) for f in FRAMES[:14]]
    drive(again, blank[:11], ODOM[:11])
    assert len(again.stack.localisation) == 4
    drive(again, blank[11:], ODOM[11:14])
    assert len(again.stack.localisation) == 7 and "not found" in again.stack.localisation.resumed
    assert not again.places.T_map_odom_xyyaw.any() and not again.stack.localisation.found_again


def test_what_is_saved_is_in_the_odom_of_then(tmp_path: Path) -> None:
    killed, store = robot_with(tmp_path)
    drive(killed, FRAMES[:14], ODOM[:14])
    killed.forget(T_before_after_xyyaw=T_BEFORE_AFTER)
    drive(killed, FRAMES[14:18], se2.relative(T_BEFORE_AFTER[None], ODOM[14:18]))
    store.save()
    again, _ = robot_with(tmp_path)
    for image in (FRAMES[2].rgb, FRAMES[16].rgb):
        before, loaded = (each.stack.localisation.find(image) for each in (killed, again))
        assert before.certain and loaded.certain
        np.testing.assert_allclose(loaded.pose_odom_xyyaw, before.pose_odom_xyyaw, atol=1e-9)


def test_another_localisers_map_is_known_after_a_restart(tmp_path: Path) -> None:
    T_map_odom = np.array([5.0, 3.0, 1.0])
    killed, store = robot_with(tmp_path)
    killed.correct(T_map_odom)
    drive(killed, FRAMES[:8], ODOM[:8])
    store.save()
    again, _ = robot_with(tmp_path)
    T_odom_now = np.array([0.4, 0.0, -0.7])  # where the odom of the next start lies in the one before
    again.correct(se2.compose(T_map_odom, T_odom_now))
    before, loaded = (each.stack.localisation.find(FRAMES[2].rgb) for each in (killed, again))
    expected = se2.relative(T_odom_now, before.pose_odom_xyyaw)
    np.testing.assert_allclose(loaded.pose_odom_xyyaw, expected, atol=1e-9)


def test_forgetting_deletes_features_and_other_frames_replace_them(tmp_path: Path) -> None:
    navigator, store = robot_with(tmp_path)
    drive(navigator, FRAMES[:6], ODOM[:6])
    store.save()
    navigator.forget(everything=True)
    store.forget()
    store.save()
    assert not list((tmp_path / "features").glob("views-*.npz"))
    assert FeatureFiles(tmp_path).load() is None
    drive(navigator, FRAMES[8:20], ODOM[8:20])  # more than before: nothing of before may be left among them
    store.save()
    keyframes, _ = FeatureFiles(tmp_path).load()
    assert [keyframe.stamp_s for keyframe in keyframes] == [frame.stamp_s for frame in FRAMES[8:20]]


@pytest.mark.parametrize("harm", ["cut", "other bytes", "gone", "no archive", "other kind"])
def test_damaged_features_are_told_of_and_places_stay(tmp_path: Path, harm: str) -> None:
    navigator, store = robot_with(tmp_path)
    drive(navigator, FRAMES[:6], ODOM[:6])
    store.save()
    (views,) = (tmp_path / "features").glob("views-*.npz")
    content = views.read_bytes()
    if harm == "cut":
        views.write_bytes(content[:-100])
    elif harm == "other bytes":
        views.write_bytes(content[:2000] + bytes([content[2000] ^ 1]) + content[2001:])
    elif harm == "gone":
        views.unlink()
    elif harm == "no archive":
        (views.parent / "state.npz").write_bytes(b"x" * 100)
    told: list[str] = []
    if harm == "other kind":
        other = Navigator(stack_of(**{"localisation.visual.features.kind": "orb"}))
        again = PlaceStore(
            other.places, MemoryStore(tmp_path), lambda error, _: told.append(str(error)), other.stack.localisation
        )
        again.load()
    else:
        other, again = robot_with(tmp_path, told)
    assert len(told) == 1 and ("of kind 'sift'" in told[0] if harm == "other kind" else "delete" in told[0])
    assert len(other.stack.localisation) == 0
    assert len(other.places) == len(navigator.places) > 0
    drive(other, FRAMES[:6], ODOM[:6])
    again.save()
    assert len(FeatureFiles(tmp_path).load()[0]) == 6


def test_a_kill_between_the_files_leaves_the_state_from_before(tmp_path: Path, monkeypatch) -> None:
    navigator, store = robot_with(tmp_path)
    drive(navigator, FRAMES[:6], ODOM[:6])
    store.save()
    drive(navigator, FRAMES[6:9], ODOM[6:9])
    write = FeatureFiles._write

    def dies_at_the_state(files: FeatureFiles, name: str, content: bytes) -> None:
        if name == STATE:
            raise KeyboardInterrupt
        write(files, name, content)

    monkeypatch.setattr(FeatureFiles, "_write", dies_at_the_state)
    with pytest.raises(KeyboardInterrupt):
        store.save()
    assert len(list((tmp_path / "features").glob("views-*.npz"))) == 2
    keyframes, state = FeatureFiles(tmp_path).load()
    assert len(keyframes) == 6 == len(state["T_odom_base"])


def test_views_without_depth_or_camera_come_back_as_they_were() -> None:
    stack = stack_of()
    drive(stack, FRAMES[:4], ODOM[:4])
    kept = stack.localisation.localiser.keyframes
    stack.localisation.localiser.map.forget_view(1)
    back = unpacked_views(packed_views(kept), np.stack([keyframe.T_odom_base for keyframe in kept]))
    for ours, theirs in zip(back, kept, strict=True):
        assert (ours.stamp_s, ours.view.intrinsics) == (theirs.stamp_s, theirs.view.intrinsics)
        for name in ("points_camera_m", "surface_m", "sigmas_m", "thumbnail_rgb"):
            mine, other = getattr(ours.view, name), getattr(theirs.view, name)
            assert (mine is None) == (other is None), name
            if other is not None:
                np.testing.assert_array_equal(mine, other)
        np.testing.assert_array_equal(ours.view.features.descriptors, theirs.view.features.descriptors)
    assert packed_views([])["counts"].shape == (0,)
    with pytest.raises(ShapeError, match="kind"):
        unpacked_views({name: a for name, a in packed_views(kept).items() if name != "kind"}, np.zeros((4, 4, 4)))


def test_memory_is_bounded_and_the_whole_way_stays_known() -> None:
    """Features of frames whose neighbours are nearest go first; the graph and what is newest stay whole."""
    settings = LocaliserSettings(max_views=128)
    stack = stack_of(**{"localisation.visual.max_views": 128, "memory.max_speed_mps": 100.0})
    assert stack.localisation.settings.visual == settings
    spots = [np.array([0.3 * (number % 10), 0.0, 0.0]) for number in range(15)]  # ten places, five of them twice
    count, largest = 0, 0
    for spot in spots:
        for frame, pose in zip(FRAMES[:21], POSES[:21], strict=True):
            localiser = stack.localisation.localiser
            localiser.config = settings
            localiser.map.add(_keyframe(frame, spot + pose, 0.25 * count))
            localiser.map.index_newest()
            localiser.map.make_room()
            count += 1
            largest = max(largest, sum(len(own.view.features) > 0 for own in localiser.keyframes))
    held = np.array([len(own.view.features) > 0 for own in localiser.keyframes])
    assert largest == 128 and held[-64:].all() and len(localiser.map.graph) == count == 315
    poses = localiser.map.graph.poses_xyyaw
    nearest = np.hypot(*(poses[:, None, :2] - poses[None, held, :2]).transpose(2, 0, 1)).min(axis=1)
    assert nearest.max() < 0.7, "no place is forgotten as a whole"
    rows, _ = localiser.map.places.candidates(localiser.keyframes[-1].view.features, 315)
    assert set(rows) == set(np.flatnonzero(held))


def _keyframe(frame: Frame, pose_xyyaw: np.ndarray, stamp_s: float) -> VisualKeyframe:
    described = np.random.default_rng(int(4 * stamp_s)).integers(1, 90, (20, 128)).astype(np.uint8)
    features = Features(np.ones((20, 2), np.float32), described, np.ones(20, np.float32), 320, 240)
    view = View(features, frame.intrinsics, np.ones((20, 3), np.float32))
    return VisualKeyframe(stamp_s, view, se3.transform_from_xyyaw(pose_xyyaw), frame.T_base_camera)


def test_files_of_features_that_were_let_go_are_written_anew(tmp_path: Path) -> None:
    stack = stack_of()
    drive(stack, FRAMES, ODOM)
    localisation, files = stack.localisation, FeatureFiles(tmp_path)
    files.save(*localisation.state())
    size = sum(path.stat().st_size for path in files.folder.iterdir())
    for row in range(len(localisation) - 8):
        localisation.localiser.map.forget_view(row)
    files.save(*localisation.state())
    assert sum(path.stat().st_size for path in files.folder.iterdir()) < 0.5 * size
    again = RobotLocalisation(localisation.settings)
    again.reset(FeatureFiles(tmp_path).load())
    assert [len(own.view.features) for own in again.localiser.keyframes] == [
        len(own.view.features) for own in localisation.localiser.keyframes
    ]


def test_a_folder_that_cannot_be_written_is_told_of(tmp_path: Path) -> None:
    stack = stack_of()
    drive(stack, FRAMES[:3], ODOM[:3])
    (tmp_path / "features").write_text("in the way", encoding="utf-8")
    with pytest.raises(MemoryStoreError, match="features"):
        FeatureFiles(tmp_path).save(*stack.localisation.state())
