"""Recall of sequences: ages, the same frames for every context, rows without a model, and what is summed up."""

import math

import numpy as np
import pytest
import torch

from come_nav.core.errors import ConfigError, DataError
from come_nav.core.geometry import se2
from come_nav.evaluation.protocols.sequence_recall import (
    AGES,
    IN_CONTEXT,
    NEVER,
    SequenceRecallSettings,
    age_group,
    ages_by_pose,
    ages_of,
    copied,
    evaluate_answers,
    imagined,
    nearest_remembered,
    recall_walks,
    recorded_walks,
    retrieved,
    summarised,
    window_of,
)
from come_nav.sim.mazes.memory_maze import MemoryMazeWalk

SETTINGS = SequenceRecallSettings(worlds=(20000, 20001), contexts=(10, 90), asked=12)


@pytest.fixture(scope="module")
def walks():
    return recall_walks(SETTINGS)


def test_an_age_is_the_time_since_the_same_view():
    ages = ages_of(np.array([[3, 4, 3, 3, 5, 4], [1, 2, 1, 2, 1, 9]]))
    np.testing.assert_array_equal(ages, [[-1, -1, 2, 1, -1, 4], [-1, -1, 2, 2, 2, -1]])


def test_ages_of_poses_that_are_never_the_same_twice():
    there = np.column_stack([np.arange(6.0), np.zeros(6), np.zeros(6)])
    turned = there[::-1] + np.array([0.0, 0.0, math.pi])
    back = there + np.array([0.1, 0.1, 0.2])
    (ages,) = ages_by_pose(np.concatenate([there, turned, back])[None])
    np.testing.assert_array_equal(ages, [-1] * 12 + [12] * 6)
    np.testing.assert_array_equal(ages_by_pose(np.zeros((1, 4, 3))), [[-1] * 4])  # never elsewhere


def test_walks_that_were_recorded_elsewhere_are_asked_alike():
    images = np.arange(30, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    poses = np.column_stack([np.arange(30.0), np.zeros(30), np.zeros(30)])
    recording = MemoryMazeWalk(images, poses, np.zeros(30, np.int64), "9x9", 3)
    settings = SequenceRecallSettings(worlds=(3,), contexts=(6,), asked=4)
    walks = recorded_walks([recording], settings, 0.6)
    assert walks.images.shape == (10, 3, 8, 8)
    assert walks.images[0, 0, 0, 0] == pytest.approx(20 / 127.5 - 1.0)
    window = window_of(walks, walks.images, 6, 4)
    torch.testing.assert_close(window.poses_xyyaw[0, :, 0], 0.6 * torch.arange(10).double())
    with pytest.raises(DataError, match="has 30 frames, and 31"):
        recorded_walks([recording], SequenceRecallSettings(worlds=(3,), contexts=(6,), asked=25), 1.0)


def test_groups_of_ages_cover_all_of_them():
    assert [age_group(age) for age in (-1, 1, 10, 11, 400, 401)] == [
        NEVER,
        "1-10",
        "1-10",
        "11-50",
        "201-400",
        f"over {AGES[-1]}",
    ]


def test_every_context_asks_for_the_same_frames(walks):
    latents = torch.arange(len(walks.images)).float()[:, None, None, None]  # the number of the view
    windows = {context: window_of(walks, latents, context, 12) for context in (10, 90)}
    for context, window in windows.items():
        assert window.latents.shape[1] == context + 12
        torch.testing.assert_close(window.poses_xyyaw[:, 0], torch.zeros(2, 3).double())
        torch.testing.assert_close(window.actions_xyyaw[:, 0], torch.zeros(2, 3).double())
    ends = [window.latents[:, -22:] for window in windows.values()]
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=0)
    torch.testing.assert_close(ends[0][:, -12:].flatten(), walks.views[:, -12:].flatten().float(), rtol=0, atol=0)


def test_rows_without_a_model_copy_the_newest_frame_and_the_nearest_one(walks):
    latents = torch.arange(len(walks.images)).float()[:, None, None, None]
    window = window_of(walks, latents, 90, 12)
    torch.testing.assert_close(copied(window)[:, 0], window.latents[:, 89], rtol=0, atol=0)
    found, truth = nearest_remembered(window).flatten(1), window.latents[:, 90:].flatten(1)
    ages = torch.from_numpy(walks.ages[:, -12:])
    known = (ages > 0) & (ages <= 90)
    assert known.any()
    assert (found == truth)[known].all()  # a pose that was seen is its own nearest one
    assert (found != truth)[ages < 0].all()


class Answering:
    """A network that has seen what it is told, and a model that answers with the pose's number of frames seen."""

    def __init__(self):
        self.network, self.seen = self, 0

    def all_observed(self, state, latents, poses, actions):
        return (0 if state is None else state) + latents.shape[1]

    def imagine(self, state, poses, actions, generator, steps):
        return torch.full((len(poses), 1, 1, 1), float(state))


def test_each_frame_is_imagined_from_all_true_ones_before_it(walks):
    window = window_of(walks, torch.zeros(len(walks.images), 1, 1, 1), 90, 12)
    answers = imagined(Answering(), window, SETTINGS)
    assert answers[0].flatten().tolist() == [90.0 + index for index in range(12)]


class Listening(Answering):
    """Notes the frames that it is shown, and the motions to them that do not fit their poses."""

    def all_observed(self, state, latents, poses, actions):
        self.shown = latents.flatten(1)
        self.unfit = (actions[:, 1:] - se2.relative(poses[:, :-1], poses[:, 1:])).abs().max()
        return latents.shape[1]


def test_retrieval_shows_the_nearest_poses_once_and_the_newest_frames_in_their_order(walks):
    latents = torch.arange(len(walks.images)).float()[:, None, None, None]  # the number of the view
    window, model = window_of(walks, latents, 90, 12), Listening()
    answers = retrieved(model, window, SETTINGS, remembered=8, newest=5)
    assert answers.shape == (2, 12, 1, 1, 1) and (answers == 13).all()  # so many frames, whatever the context
    assert float(model.unfit) < 1e-6  # a frame moved here from the one shown before it
    numbers = window.latents.flatten(1)
    for row, shown in enumerate(model.shown):  # for the last frame
        assert shown[-5:].tolist() == numbers[row, -6:-1].tolist()
        older = numbers[row, :-6]
        assert len(set(shown[:8].tolist())) == 8 and set(shown[:8].tolist()) <= set(older.tolist())
        if numbers[row, -1] in older:
            assert numbers[row, -1] in shown[:8]


def test_records_and_their_summary(walks):
    number = torch.arange(len(walks.images))[:, None, None, None]
    window = window_of(walks, number.double(), 10, 12)
    truth = window.latents[:, 10:]

    def decode(latents):
        return walks.images[latents.flatten().long()]

    perfect = evaluate_answers(truth, decode, walks, SETTINGS.worlds)
    assert len(perfect) == 24 and all(record["psnr_db"] == float("inf") for record in perfect)
    assert all(record["ssim"] == pytest.approx(1.0) for record in perfect)
    last = evaluate_answers(copied(window), decode, walks, SETTINGS.worlds)
    moved = [record for record in last if record["psnr_db"] < 1e3]
    assert moved and {record["world"] for record in last} == {20000, 20001}
    halves = [{**record, "psnr_db": 20.0} for record in last]
    better = [{**record, "psnr_db": 23.0} for record in last]
    two = summarised(better, 0, halves, context=20)["all"]["gain_psnr_db"]
    assert two["clusters"] == 2 and two["low"] is None and two["high"] is None  # windows of one walk are much alike
    for records in (better, halves):
        for index, record in enumerate(records):
            record["world"] = 20000 + index % 6
    summary = summarised(better, 0, halves, context=20)
    within = sum(10 < record["age"] <= 20 for record in better)
    assert (summary[IN_CONTEXT]["psnr_db"]["n"] if within else 0) == within
    assert summary["all"]["psnr_db"]["value"] == 23.0 and summary["all"]["psnr_db"]["n"] == 24
    assert summary["all"]["gain_psnr_db"]["value"] == 3.0
    counted = sum(
        found["psnr_db"]["n"] for name, found in summary.items() if name not in ("all", "over 10, seen", IN_CONTEXT)
    )
    assert counted == 24


def test_settings_that_ask_nothing_are_refused():
    with pytest.raises(ConfigError, match="at least one world"):
        SequenceRecallSettings(worlds=())
    with pytest.raises(ConfigError, match="asked"):
        SequenceRecallSettings(worlds=(1,), asked=0)
