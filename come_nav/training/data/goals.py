"""Which goals a context learns: a balanced mixture of kinds instead of offsets drawn uniformly.

Offsets drawn uniformly from [-64, 64] mostly give views of other places, seconds away and unpredictable, and hardly
ever a turn on the spot or a place seen before. So each goal first draws its kind:

- branch: where the driver did not go (rendered, built-in worlds only; part of them turns on the spot);
- near: a frame of the drive within ``near_frames``, the times that a plan looks at;
- turn: a frame of the drive from nearly the same place but another heading;
- revisit: a frame of the drive from nearly the same pose, far in time, with the place left in between; it may lie
  beyond ``max_offset_frames`` (drives seldom come back within seconds), its time then counts as that bound;
- far: a frame of the drive beyond ``near_frames``, up to ``max_offset_frames``.

Within a kind all candidates are equally likely. A kind without a candidate gives a near goal, which always exists.
The kinds of one context's goals are stratified: of 4 goals at shares of one half, exactly 2 are of that kind.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from come_nav.core.checks import check_range
from come_nav.core.errors import ConfigError
from come_nav.core.geometry import se2

DRAWS_PER_GOAL = 2  # the kind, and the candidate of that kind
BRANCH, NEAR, TURN, REVISIT, FAR = range(5)


@dataclass(frozen=True)
class GoalSettings:
    """How windows are drawn (see DataSettings for the meaning of the shares).

    Attributes:
        turn_radius_m, turn_yaw_rad: a turn goal stands closer than the one and is turned by more than the other.
        revisit_radius_m, revisit_yaw_rad: a revisit goal stands closer than these.
        revisit_frames: least and greatest number of frames between a place and its revisit.
        older_frames: frames before the context that windows hold as well.
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
    revisit_radius_m: float = 0.6
    revisit_yaw_rad: float = 0.5
    revisit_frames: tuple[int, int] = (16, 512)
    older_frames: int = 0

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

    def of_frames(self, frame_time: float) -> GoalSettings:
        """Return the same reaches in time, for frames that lie ``frame_time`` frames of the model's rate apart."""
        if frame_time == 1.0:
            return self

        def frames(count: int) -> int:
            return max(1, int(count / frame_time))

        least, greatest = self.revisit_frames
        return replace(
            self,
            max_offset_frames=frames(self.max_offset_frames),
            near_frames=frames(self.near_frames),
            revisit_frames=(frames(least), frames(greatest)),
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
        rel_frames: (B, G) its time after the newest context frame, within the protocol's bounds.
        branch: (B, G) index of a branch of the newest context frame.
        use_branch: (B, G) whether the branch is the goal.
        kind: (B, G) the kind that was found.
    """

    frame: torch.Tensor
    rel_frames: torch.Tensor
    branch: torch.Tensor
    use_branch: torch.Tensor
    kind: torch.Tensor


@dataclass(frozen=True)
class Drives:
    """Poses (F, 3) of frames, and the first and last frame (F,) of the stretch that each belongs to."""

    poses_xyyaw: torch.Tensor
    first: torch.Tensor
    last: torch.Tensor


def draw_uniforms(count: int, sampling: GoalSettings, generator: torch.Generator) -> torch.Tensor:
    """Return the numbers (B, G, 2) in [0, 1) that decide the goals of ``count`` contexts, whatever the data."""
    return torch.rand(count, sampling.goals_per_context, DRAWS_PER_GOAL, generator=generator)


def choose_goals(
    drives: Drives, newest: torch.Tensor, branches: int, sampling: GoalSettings, uniforms: torch.Tensor
) -> Goals:
    """Return goals for the contexts that end at frames ``newest`` (B,), decided by ``uniforms`` (B, G, 2)."""
    goals = sampling.goals_per_context
    strata = (torch.arange(goals) + uniforms[..., 0]) / goals
    edges = sampling.shares(branches > 0).cumsum(0)[:-1].contiguous()
    kind = torch.searchsorted(edges, strata.contiguous(), right=True)
    choice = uniforms[..., 1]
    reach = sampling.max_offset_frames
    offset, _ = _pick(_near(drives, newest, sampling), choice)
    for wanted, candidates in ((TURN, _turns), (REVISIT, _revisits), (FAR, _far)):
        rows = (kind == wanted).any(1).nonzero()[:, 0]
        if len(rows) == 0:
            continue
        other, found = _pick(candidates(drives, newest[rows], sampling), choice[rows])
        use = kind[rows] == wanted
        offset[rows] = torch.where(use & found, other, offset[rows])
        kind[rows] = torch.where(use & ~found, NEAR, kind[rows])
    return Goals(
        frame=newest[:, None] + offset,
        rel_frames=offset.clamp(-reach, reach),
        branch=(choice * branches).long(),
        use_branch=kind == BRANCH,
        kind=kind,
    )


def _pick(candidates: torch.Tensor, choice: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the offset (B, G) that ``choice`` in [0, 1) picks of bool (B, 2R + 1) for -R .. R, and if there is one."""
    running = candidates.long().cumsum(-1)
    count = running[:, -1:]
    number = (choice * count).long() + 1  # of the candidate: it is where the running count gets there
    position = torch.searchsorted(running, number).clamp_max(candidates.shape[1] - 1)
    return position - candidates.shape[1] // 2, (count > 0).expand_as(choice)


def _near(drives: Drives, newest: torch.Tensor, sampling: GoalSettings) -> torch.Tensor:
    return _inside(drives, newest, min(sampling.near_frames, sampling.max_offset_frames))[1]


def _far(drives: Drives, newest: torch.Tensor, sampling: GoalSettings) -> torch.Tensor:
    offsets, inside = _inside(drives, newest, sampling.max_offset_frames)
    return inside & (offsets.abs() > sampling.near_frames)


def _turns(drives: Drives, newest: torch.Tensor, sampling: GoalSettings) -> torch.Tensor:
    offsets, inside = _inside(drives, newest, sampling.max_offset_frames)
    distance, turned = _moved(drives, newest, offsets, inside)
    return inside & (distance < sampling.turn_radius_m) & (turned > sampling.turn_yaw_rad)


def _revisits(drives: Drives, newest: torch.Tensor, sampling: GoalSettings) -> torch.Tensor:
    shortest, longest = sampling.revisit_frames
    offsets, inside = _inside(drives, newest, longest)
    distance, turned = _moved(drives, newest, offsets, inside)
    close = (distance < sampling.revisit_radius_m) & (turned < sampling.revisit_yaw_rad)
    after = _left_before(~close[:, longest:])
    before = _left_before(~close[:, : longest + 1].flip(-1)).flip(-1)
    left = torch.cat([before, after[:, 1:]], dim=1)
    return inside & close & left & (offsets.abs() >= shortest)


def _inside(drives: Drives, newest: torch.Tensor, reach: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the offsets -reach .. reach, and which stay in the stretch, bool (B, 2 reach + 1)."""
    offsets = torch.arange(-reach, reach + 1)
    frame = newest[:, None] + offsets
    return offsets, (frame >= drives.first[newest][:, None]) & (frame <= drives.last[newest][:, None])


def _moved(
    drives: Drives, newest: torch.Tensor, offsets: torch.Tensor, inside: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return distance in m and absolute turn in rad (B, 2 reach + 1) from each newest frame to those at ``offsets``."""
    here = drives.poses_xyyaw[newest][:, None]
    pose = drives.poses_xyyaw[torch.where(inside, newest[:, None] + offsets, newest[:, None])]
    return (pose[..., :2] - here[..., :2]).norm(dim=-1), se2.wrap_angle(pose[..., 2] - here[..., 2]).abs()


def _left_before(away: torch.Tensor) -> torch.Tensor:
    """Return whether the place was left at some time up to each column; columns go away from the present."""
    return away.int().cummax(dim=-1).values.bool()
