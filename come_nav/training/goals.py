"""Which goals a context learns: a balanced mixture of kinds instead of offsets drawn uniformly.

Offsets drawn uniformly from [-64, 64] mostly give views of other places, seconds away and unpredictable, and hardly
ever a turn on the spot or a place seen before. So each goal first draws its kind:

- branch: where the driver did not go (rendered, built-in worlds only; part of them turns on the spot);
- near: a frame of the drive within ``near_frames``, the times that a plan looks at;
- turn: a frame of the drive from nearly the same place but another heading;
- revisit: a frame of the drive from nearly the same pose, far in time, with the place left in between;
- far: a frame of the drive beyond ``near_frames``, up to ``max_offset_frames``.

Within a kind all candidates are equally likely. A kind without a candidate gives a near goal, which always exists.
The kinds of one context's goals are stratified: of 4 goals at shares of one half, exactly 2 are of that kind.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from come_nav.core.checks import check_range
from come_nav.core.errors import ConfigError
from come_nav.core.geometry import se2

DRAWS_PER_GOAL = 2  # the kind, and the candidate of that kind
BRANCH, NEAR, TURN, REVISIT, FAR = range(5)


@dataclass(frozen=True)
class Sampling:
    """How windows are drawn (see DataConfig for the meaning of the shares).

    Attributes:
        turn_radius_m, turn_yaw_rad: a turn goal stands closer than the one and is turned by more than the other.
        revisit_radius_m, revisit_yaw_rad, revisit_frames: a revisit goal stands closer than these and is at least so
            many frames away.
    """

    context_frames: int = 4
    goals_per_context: int = 4
    max_offset_frames: int = 64
    branch_fraction: float = 0.5
    near_frames: int = 8
    near_fraction: float = 0.4
    turn_fraction: float = 0.15
    revisit_fraction: float = 0.15
    turn_radius_m: float = 0.1
    turn_yaw_rad: float = 0.25
    revisit_radius_m: float = 0.4
    revisit_yaw_rad: float = 0.4
    revisit_frames: int = 16

    def __post_init__(self) -> None:
        for name in ("goals_per_context", "max_offset_frames", "near_frames"):
            check_range(f"data.{name}", getattr(self, name), 1)
        for name in ("branch_fraction", "near_fraction", "turn_fraction", "revisit_fraction"):
            check_range(f"data.{name}", getattr(self, name), 0.0, 1.0)
        if self.near_fraction + self.turn_fraction + self.revisit_fraction > 1.0 + 1e-9:
            raise ConfigError(
                f"data.near_fraction + turn_fraction + revisit_fraction must be at most 1 (the rest is far), got "
                f"{self.near_fraction} + {self.turn_fraction} + {self.revisit_fraction}"
            )

    def shares(self, with_branches: bool) -> torch.Tensor:
        """Return the shares (5,) of branch, near, turn, revisit and far goals; they sum to 1."""
        branch = self.branch_fraction if with_branches else 0.0
        far = max(0.0, 1.0 - self.near_fraction - self.turn_fraction - self.revisit_fraction)
        drive = torch.tensor([self.near_fraction, self.turn_fraction, self.revisit_fraction, far])
        return torch.cat([torch.tensor([branch]), (1.0 - branch) * drive])


@dataclass(frozen=True)
class Goals:
    """Goals of B contexts.

    Attributes:
        frame: (B, G) index of a frame of the drive; that of a near goal where ``use_branch``.
        branch: (B, G) index of a branch of the newest context frame.
        use_branch: (B, G) whether the branch is the goal.
        kind: (B, G) the kind that was found.
    """

    frame: torch.Tensor
    branch: torch.Tensor
    use_branch: torch.Tensor
    kind: torch.Tensor


@dataclass(frozen=True)
class Drives:
    """Poses (F, 3) of frames, and the first and last frame (F,) of the stretch that each belongs to."""

    poses_xyyaw: torch.Tensor
    first: torch.Tensor
    last: torch.Tensor


def draw_uniforms(count: int, sampling: Sampling, generator: torch.Generator) -> torch.Tensor:
    """Return the numbers (B, G, 2) in [0, 1) that decide the goals of ``count`` contexts, whatever the data."""
    return torch.rand(count, sampling.goals_per_context, DRAWS_PER_GOAL, generator=generator)


def choose_goals(
    drives: Drives, newest: torch.Tensor, branches: int, sampling: Sampling, uniforms: torch.Tensor
) -> Goals:
    """Return goals for the contexts that end at frames ``newest`` (B,), decided by ``uniforms`` (B, G, 2)."""
    goals = sampling.goals_per_context
    strata = (torch.arange(goals) + uniforms[..., 0]) / goals
    edges = sampling.shares(branches > 0).cumsum(0)[:-1].contiguous()
    kind = torch.searchsorted(edges, strata.contiguous(), right=True)
    choice = uniforms[..., 1]
    low, high = drives.first[newest] - newest, drives.last[newest] - newest
    candidates = _candidates(drives, newest, low, high, sampling)
    counts = candidates.sum(-1)  # (4, B) of near, turn, revisit, far
    wanted = (kind - NEAR).clamp_min(0)
    found = counts.T.gather(1, wanted) > 0
    kind = torch.where(found | (kind == BRANCH), kind, NEAR)
    wanted = torch.where(found, wanted, 0)
    number = (choice * counts.T.gather(1, wanted)).long()
    # the offset of candidate n is where the running count of candidates reaches n + 1
    running = candidates.long().cumsum(-1).transpose(0, 1)  # (B, 4, 2R + 1)
    row = torch.arange(len(newest))[:, None]
    position = torch.searchsorted(running[row, wanted].contiguous(), (number + 1)[..., None])[..., 0]
    return Goals(
        frame=newest[:, None] + position - sampling.max_offset_frames,
        branch=(choice * branches).long(),
        use_branch=kind == BRANCH,
        kind=kind,
    )


def _candidates(
    drives: Drives, newest: torch.Tensor, low: torch.Tensor, high: torch.Tensor, sampling: Sampling
) -> torch.Tensor:
    """Return which offsets -R .. R are near, turn, revisit and far goals, bool (4, B, 2R + 1)."""
    reach = sampling.max_offset_frames
    offsets = torch.arange(-reach, reach + 1)
    inside = (offsets >= low[:, None]) & (offsets <= high[:, None])
    frame = newest[:, None] + offsets.clamp(low[:, None], high[:, None])
    pose, here = drives.poses_xyyaw[frame], drives.poses_xyyaw[newest][:, None]
    distance = (pose[..., :2] - here[..., :2]).norm(dim=-1)
    turned = se2.wrap_angle(pose[..., 2] - here[..., 2]).abs()
    close = (distance < sampling.revisit_radius_m) & (turned < sampling.revisit_yaw_rad)
    after = _left_before(~close[:, reach:])
    before = _left_before(~close[:, : reach + 1].flip(-1)).flip(-1)
    left = torch.cat([before, after[:, 1:]], dim=1)
    near = offsets.abs() <= min(sampling.near_frames, reach)
    turn = (distance < sampling.turn_radius_m) & (turned > sampling.turn_yaw_rad)
    revisit = close & left & (offsets.abs() >= sampling.revisit_frames)
    return torch.stack([near.expand_as(inside), turn, revisit, (~near).expand_as(inside)]) & inside


def _left_before(away: torch.Tensor) -> torch.Tensor:
    """Return whether the place was left at some time up to each column; columns go away from the present."""
    return away.int().cummax(dim=-1).values.bool()
