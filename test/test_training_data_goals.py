"""Which goals are drawn: the shares of kinds, what each kind means, and that turns and revisits are learned."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from come_nav.core.errors import ConfigError
from come_nav.core.geometry import se2
from come_nav.sim.worlds import generate_world
from come_nav.training.config import DataSettings
from come_nav.training.data.goals import (
    BRANCH,
    FAR,
    NEAR,
    REVISIT,
    TURN,
    Drives,
    GoalSettings,
    choose_goals,
    draw_uniforms,
)
from come_nav.training.data.sim_bank import draw_branches, make_drive

CONTEXTS = 4000


def there_and_back() -> Drives:
    """300 frames: 20 ahead at 0.1 m, half a turn on the spot in 10, back the same way, another half turn, and so on."""
    poses = [torch.zeros(3)]
    while len(poses) < 300:
        for v, w, count in ((0.1, 0.0, 20), (0.0, torch.pi / 10, 10)):
            for _ in range(count):
                step = se2.integrate_twist(torch.tensor(v), torch.tensor(w), 1.0)
                poses.append(se2.compose(poses[-1], step))
    poses = poses[:300]
    return Drives(torch.stack(poses), torch.zeros(300, dtype=torch.int64), torch.full((300,), 299))


def drawn(drives: Drives, sampling: GoalSettings, branches: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Kinds and offsets (B, G), and poses (B, G, 3) of goals from the newest frame."""
    generator = torch.Generator().manual_seed(0)
    newest = torch.randint(3, len(drives.first) - 1, (CONTEXTS,), generator=generator)
    goals = choose_goals(drives, newest, branches, sampling, draw_uniforms(CONTEXTS, sampling, generator))
    actions = se2.relative(drives.poses_xyyaw[newest][:, None], drives.poses_xyyaw[goals.frame])
    return goals.kind, goals.frame - newest[:, None], actions


def share(kind: torch.Tensor, which: int) -> float:
    return float((kind == which).double().mean())


def test_kinds_come_in_the_shares_asked_for() -> None:
    """Branch and far goals always exist (up to the ends); turns and revisits exist on this drive almost everywhere."""
    sampling = GoalSettings(branch_fraction=0.4, near_fraction=0.5, turn_fraction=0.2, revisit_fraction=0.0)
    kind, _, _ = drawn(there_and_back(), sampling, branches=2)
    assert share(kind, BRANCH) == pytest.approx(0.4, abs=0.02)
    assert share(kind, FAR) == pytest.approx(0.6 * 0.3, abs=0.02)
    assert 0.6 * 0.5 - 0.02 < share(kind, NEAR) < 0.6 * 0.7
    assert share(kind, BRANCH) + share(kind, NEAR) + share(kind, TURN) + share(kind, FAR) == pytest.approx(1.0)


def test_goals_of_one_context_are_stratified() -> None:
    sampling = GoalSettings(
        goals_per_context=4, branch_fraction=0.5, near_fraction=0.5, turn_fraction=0.0, revisit_fraction=0
    )
    kind, _, _ = drawn(there_and_back(), sampling, branches=1)
    assert torch.equal((kind == BRANCH).sum(1), torch.full((CONTEXTS,), 2))


def test_near_and_far_goals_are_uniform_over_their_ranges() -> None:
    sampling = GoalSettings(max_offset_frames=64, near_fraction=0.5, turn_fraction=0.0, revisit_fraction=0.0)
    drives = there_and_back()
    middle = torch.full((CONTEXTS,), 150)
    goals = choose_goals(
        drives, middle, 0, sampling, draw_uniforms(CONTEXTS, sampling, torch.Generator().manual_seed(1))
    )
    offsets = goals.frame - 150
    near = torch.bincount(offsets[goals.kind == NEAR] + 8, minlength=17)
    assert len(near) == 17
    torch.testing.assert_close(near / near.sum(), torch.full((17,), 1 / 17), atol=0.012, rtol=0)
    far = offsets[goals.kind == FAR]
    assert int(far.abs().min()) == 9
    assert int(far.abs().max()) == 64
    assert len(far.unique()) == 2 * 56
    assert float((far > 0).double().mean()) == pytest.approx(0.5, abs=0.02)


def test_turns_are_on_the_spot_and_revisits_left_the_place_between() -> None:
    drives = there_and_back()
    sampling = GoalSettings(near_fraction=0.0, turn_fraction=0.5, revisit_fraction=0.5)
    kind, offset, action = drawn(drives, sampling)
    distance, yaw = action[..., :2].norm(dim=-1), action[..., 2].abs()
    turn, revisit = kind == TURN, kind == REVISIT
    assert turn.any()
    assert revisit.any()
    assert float(distance[turn].max()) < sampling.turn_radius_m
    assert float(yaw[turn].min()) > sampling.turn_yaw_rad
    assert float(distance[revisit].max()) < sampling.revisit_radius_m + 1e-5
    assert float(yaw[revisit].max()) < sampling.revisit_yaw_rad
    assert int(offset[revisit].abs().min()) >= sampling.revisit_frames[0]
    fallback = ~(turn | revisit)
    assert float(revisit.double().mean()) > 0.25
    assert torch.equal(kind[fallback], torch.full((int(fallback.sum()),), NEAR)), "what has no candidate becomes near"


def test_standing_still_is_no_revisit() -> None:
    drives = Drives(torch.zeros(200, 3), torch.zeros(200, dtype=torch.int64), torch.full((200,), 199))
    kind, _, _ = drawn(drives, GoalSettings(near_fraction=0.0, turn_fraction=0.0, revisit_fraction=1.0))
    assert share(kind, REVISIT) == 0.0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 39), st.integers(1, 64), st.integers(1, 70), st.integers(0, 2**31))
def test_goals_never_leave_their_stretch(newest: int, reach: int, near: int, seed: int) -> None:
    first = torch.where(torch.arange(40) < 25, 0, 25)
    last = torch.where(torch.arange(40) < 25, 24, 39)
    poses = torch.randn(40, 3, generator=torch.Generator().manual_seed(seed))
    sampling = GoalSettings(max_offset_frames=reach, near_frames=near)
    here = torch.full((16,), newest)
    generator = torch.Generator().manual_seed(seed)
    goals = choose_goals(Drives(poses, first, last), here, 0, sampling, draw_uniforms(16, sampling, generator))
    assert (goals.frame >= first[newest]).all()
    assert (goals.frame <= last[newest]).all()
    assert (goals.rel_frames.abs() <= reach).all()
    assert ((goals.frame - newest).abs() <= reach)[goals.kind != REVISIT].all()


def test_balance_in_built_in_worlds() -> None:
    """Against uniform offsets: more goals that a plan asks for, more turning on the spot, fewer unrelated far views."""
    drive = make_drive(4, 1, DataSettings(episode_s=90.0, drivers=("wander", "tour"), branches=0), 4.0)
    count = len(drive.poses_world_xyyaw)
    drives = Drives(drive.poses_world_xyyaw, torch.zeros(count, dtype=torch.int64), torch.full((count,), count - 1))
    balanced = drawn(drives, GoalSettings())
    uniform = drawn(drives, GoalSettings(near_fraction=0.0, turn_fraction=0.0, revisit_fraction=0.0, near_frames=1))

    def unrelated(action: torch.Tensor) -> float:
        return float((action[..., :2].norm(dim=-1) > 2.0).double().mean())

    def turning(action: torch.Tensor) -> float:
        return float(((action[..., :2].norm(dim=-1) < 0.1) & (action[..., 2].abs() > 0.25)).double().mean())

    assert turning(balanced[2]) > 1.5 * turning(uniform[2])
    assert unrelated(balanced[2]) < 0.7 * unrelated(uniform[2])
    assert int(balanced[1][balanced[0] == FAR].abs().max()) == 64, "long jumps stay part of the protocol"


def test_branches_turn_on_the_spot_as_often_as_asked() -> None:
    world = generate_world(2)
    poses = make_drive(2, 0, DataSettings(episode_s=60.0, branches=0), 4.0).poses_world_xyyaw
    ends, _ = draw_branches(world, poses, 4, 4.0, torch.Generator().manual_seed(0), turn_share=0.5)
    moved = (ends[..., :2] - poses[:, None, :2]).norm(dim=-1) > 1e-4
    assert 0.35 < float(moved.double().mean()) < 0.55


@pytest.mark.parametrize(
    "values",
    [
        {"near_fraction": 0.7, "turn_fraction": 0.2, "revisit_fraction": 0.2},
        {"turn_fraction": -0.1},
        {"near_frames": 0},
        {"recordings": ("a", "b"), "recording_weights": (1.0,)},
        {"recordings": ("a",), "recording_weights": (0.0,)},
        {"passes": 0},
    ],
)
def test_shares_that_do_not_fit_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"data\."):
        DataSettings(**values)  # type: ignore[arg-type]


def test_drives_take_their_sets_of_worlds_in_turn():
    data = DataSettings(episode_s=8.0, drivers=("wander", "tour"), branches=0, sets_of_worlds=("built-in", "lively"))
    visits = [make_drive(4, number, data, 4.0).world.settings.visit for number in range(6)]
    assert visits == [0, 0, 1, 1, 0, 0]
    with pytest.raises(ConfigError, match="set of worlds"):
        DataSettings(sets_of_worlds=("nowhere",))
    with pytest.raises(ConfigError, match="names no set of worlds"):
        DataSettings(sets_of_worlds=())
