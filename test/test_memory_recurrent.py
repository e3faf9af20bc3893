"""The recurrent memory holds a network's state and tells it poses from the first frame on."""

from dataclasses import dataclass

import pytest
import torch

from come_nav.core.errors import DataError, ShapeError
from come_nav.memory.recurrent import RecurrentMemory


@dataclass(frozen=True)
class Told:
    """A state that is all that was told."""

    entries: tuple = ()

    @property
    def frames(self) -> int:
        return len(self.entries)

    @property
    def size_bytes(self) -> int:
        return 8 * len(self.entries)


class Recorder:
    def start(self) -> Told:
        return Told()

    def observed(self, state, latents, pose_xyyaw, action_xyyaw) -> Told:
        return Told((*state.entries, (latents, pose_xyyaw.tolist(), action_xyyaw.tolist())))


def test_poses_count_from_the_first_frame_and_actions_from_the_one_before():
    memory = RecurrentMemory(Recorder())
    assert memory.frames == 0 and memory.newest_xyyaw.tolist() == [0.0, 0.0, 0.0]
    quarter = torch.pi / 2
    for pose in ([5.0, 1.0, quarter], [5.0, 3.0, quarter], [4.0, 3.0, -quarter]):
        memory.observe(torch.zeros(2, 4, 4), torch.tensor(pose, dtype=torch.float64))
    poses = torch.tensor([entry[1] for entry in memory.state.entries])
    actions = torch.tensor([entry[2] for entry in memory.state.entries])
    torch.testing.assert_close(poses, torch.tensor([[0, 0, 0], [2.0, 0, 0], [2.0, 1.0, torch.pi]]).to(poses))
    torch.testing.assert_close(actions, torch.tensor([[0, 0, 0], [2.0, 0, 0], [0.0, 1.0, torch.pi]]).to(actions))
    torch.testing.assert_close(memory.newest_xyyaw.to(poses), poses[-1])
    assert memory.size_bytes == 24
    memory.reset()
    assert memory.frames == 0
    memory.observe(torch.zeros(2, 4, 4), torch.tensor([9.0, 9.0, 0.0]))
    assert memory.state.entries[0][1] == [0.0, 0.0, 0.0]


def test_a_frame_that_is_not_finite_is_refused_and_changes_nothing():
    memory = RecurrentMemory(Recorder())
    memory.observe(torch.zeros(2, 4, 4), torch.zeros(3))
    for latents, pose in (
        (torch.full((2, 4, 4), torch.nan), torch.zeros(3)),
        (torch.zeros(2, 4, 4), torch.tensor([0.0, torch.inf, 0.0])),
    ):
        with pytest.raises(DataError, match="frame 1 of a recurrent memory must have finite"):
            memory.observe(latents, pose)
    with pytest.raises(ShapeError, match="pose_odom_xyyaw"):
        memory.observe(torch.zeros(2, 4, 4), torch.zeros(4))
    assert memory.frames == 1
