"""The robot's own stack on walks through mazes: rows are told the same past, and a place seen before is shown again."""

from dataclasses import replace

import pytest
import torch

from come_nav.config import load_config
from come_nav.core.errors import DataError
from come_nav.evaluation.metrics.image_metrics import psnr
from come_nav.evaluation.protocols.sequence_recall import SequenceRecallSettings, recall_walks
from come_nav.evaluation.suites.memory.compositions import find_weights
from come_nav.evaluation.suites.walk_memories import (
    CLOUD,
    COMPOSED,
    LATENTS,
    answered_views,
    composed_rows,
    maze_recordings,
    rows_of_walks,
)
from come_nav.memory.spatial.cloud import SpatialMemory
from come_nav.navigation.loading import load_configured_model

SETTINGS = SequenceRecallSettings(worlds=(20000,), contexts=(60,), asked=6)


@pytest.fixture(scope="module")
def robot():
    words = ("device=cpu", "episodic.steps_per_frame=0.05", "episodic.batch_size=2", "lora.rank=2")
    navigation = load_config(None, words)
    return load_configured_model(navigation), navigation, find_weights(None, "tiny")


def test_a_recording_of_a_walk_shows_the_frames_that_are_asked():
    (recording,), walks = maze_recordings(SETTINGS), recall_walks(SETTINGS)
    assert len(recording) == SETTINGS.frames
    for index in (0, 40, 65):
        rgb = torch.from_numpy(recording.frame(index).rgb).permute(2, 0, 1) / 127.5 - 1.0
        assert (rgb - walks.images[walks.views[0, index]]).abs().max() <= 1.01 / 127.5
    assert recording.frame(0).depth_m is not None


def test_what_was_seen_is_shown_again_and_the_network_alone_does_not_know_it(robot):
    rows, recordings = rows_of_walks(*robot, maze_recordings(SETTINGS), 60, SETTINGS), recall_walks(SETTINGS)
    assert len(rows) == len(COMPOSED) + 2
    truth = recordings.images[recordings.views[:, -6:]]
    seen = recordings.ages[0, -6:] > 0
    assert seen.any()
    found = {
        name: psnr(images[0], truth[0], (-1.0, 1.0))[torch.from_numpy(seen)].mean() for name, images in rows.items()
    }
    for name in ("base+SLTM", "all (CoME)", CLOUD):
        assert found[name] > found["base"] + 1.0
    assert all(images.shape == (1, 6, 3, 64, 64) and images.isfinite().all() for images in rows.values())
    assert found[LATENTS] != found["base"]


def test_the_answer_to_a_frame_does_not_depend_on_frames_after_it(robot):
    model, navigation, weights = robot
    rows = {name: row for name, row in composed_rows(model, navigation, weights).items() if name in ("base", CLOUD)}
    (recording,) = maze_recordings(SETTINGS)
    few, more = (
        answered_views(model, navigation, recording, range(6, 60), asked, rows, torch.Generator().manual_seed(0))
        for asked in (1, 2)
    )
    for name, images in few.items():
        torch.testing.assert_close(images[0], more[name][0], rtol=0, atol=0)


class Spoilt:
    """A recording of which some frames are other ones."""

    def __init__(self, recording, spoil):
        self._recording, self._spoil = recording, spoil

    def __getattr__(self, name):
        return getattr(self._recording, name)

    def frame(self, index):
        return self._spoil(index, self._recording.frame(index))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda _, frame: replace(frame, intrinsics=None),
            "row 'base . cloud of colours': the spatial expert cannot work",
        ),
        (lambda index, frame: replace(frame, stamp_s=frame.stamp_s - (index == 40) * 0.25), "frame 40 was not kept"),
    ],
)
def test_no_row_is_answered_without_its_experts_or_from_another_frame(robot, spoil, message):
    model, navigation, weights = robot
    rows = {CLOUD: composed_rows(model, navigation, weights)[CLOUD]}
    (recording,) = maze_recordings(SETTINGS)
    with pytest.raises(DataError, match=message.replace(".", "[+]")):
        answered_views(model, navigation, Spoilt(recording, spoil), range(20, 40), 2, rows, torch.Generator())


def test_clouds_of_all_rows_hold_all_frames_before_the_one_that_is_asked(robot, monkeypatch):
    model, navigation, weights = robot
    (recording,), held, observe = maze_recordings(SETTINGS), [], SpatialMemory.observe

    def counted(cloud, frame, pose):
        held.append(frame.stamp_s)
        return observe(cloud, frame, pose)

    monkeypatch.setattr(SpatialMemory, "observe", counted)
    composed, stamps = composed_rows(model, navigation, weights), recording.stamps_s[6:63].tolist()
    for name in (CLOUD, "base+LTM"):
        rows = {own: composed[own] for own in dict.fromkeys((name, CLOUD))}
        answered_views(model, navigation, recording, range(6, 60), 3, rows, torch.Generator().manual_seed(0))
        assert held == stamps
        held.clear()


def test_a_context_that_is_too_short_says_so(robot):
    model, navigation, weights = robot
    (recording,) = maze_recordings(SETTINGS)
    rows = {"base": replace(composed_rows(model, navigation, weights)["base"])}
    with pytest.raises(DataError, match="too few frames before frame 62"):
        answered_views(model, navigation, recording, range(60, 62), 1, rows, torch.Generator())
