"""Samples of a policy's training: context, goal, distance and waypoints, drawn as the authors' data set draws them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from come_nav.core.errors import DataError
from come_nav.core.geometry import se2
from come_nav.policies.settings import PolicySettings
from come_nav.training.data.sharding import shard
from come_nav.training.data.windows import step_generator
from come_nav.training.policies.frames import FrameBank
from come_nav.training.policies.settings import ACTION_DISTANCES

STREAM = 70


@dataclass
class PolicyBatch:
    """One batch.

    Attributes:
        images: (B, 3 * frames, H, W) uint8, oldest first.
        goals: (B * G, 3, H, W) uint8, G of each context in a row.
        waypoints: (B, T, 2 or 4) in spacings, in the base of the newest image; then cos and sin of the yaw.
        distance: (B * G,) of the goal, in frames.
        teaches: (B * G,) bool, whether the goal is at a distance that teaches actions.
        goal_poses: (B * G, 3) of the goals, x and y in spacings and yaw, in the base of the newest image; NaN of views
            from anywhere.
    """

    images: Tensor
    goals: Tensor
    waypoints: Tensor
    distance: Tensor
    teaches: Tensor
    goal_poses: Tensor

    def to(self, device: str | torch.device) -> PolicyBatch:
        """Return the batch on another device."""
        return PolicyBatch(**{name: value.to(device) for name, value in vars(self).items()})


class PolicySamples(torch.utils.data.IterableDataset[PolicyBatch]):
    """Batches of steps ``start`` to ``stop``; batch k depends only on (seed, k), and processes share it out.

    Args:
        banks: what is drawn from.
        weights: share of each.
        settings: of the policy.
        batch_size: over all processes.
        seed: of the run.
        steps: first and last step.
        negatives: whether distance 0 becomes a view from anywhere at the largest distance.
        share: rank of this process, and how many there are.
        goals: drawn for each context.

    Raises:
        DataError: a bank holds no stretch as long as a sample needs.
    """

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        banks: Sequence[FrameBank],
        weights: Sequence[float],
        settings: PolicySettings,
        batch_size: int,
        seed: int,
        steps: range,
        negatives: bool = True,
        share: tuple[int, int] = (0, 1),
        goals: int = 1,
    ) -> None:
        super().__init__()
        self.banks, self.weights, self.settings = banks, torch.tensor(weights, dtype=torch.float64), settings
        self.batch_size, self.seed, self.steps, self.negatives = batch_size, seed, steps, negatives
        self.goals = goals
        self.rows = shard(batch_size, *share)
        self.usable = [bank.usable(settings.context_size, settings.waypoints) for bank in banks]
        for bank, usable in zip(banks, self.usable, strict=True):
            if not len(usable):
                raise DataError(
                    f"{len(bank)} frames hold no stretch of {settings.frames + settings.waypoints} without a gap, "
                    "which a sample needs; record longer, or learn from a larger part"
                )

    def __iter__(self) -> Iterator[PolicyBatch]:
        for step in self.steps:
            yield self.batch(step)

    def batch(self, step: int) -> PolicyBatch:
        """Return this process's rows of one step's batch."""
        generator = step_generator(self.seed, STREAM, step)
        source = torch.multinomial(self.weights, self.batch_size, replacement=True, generator=generator)
        place, *drawn = torch.rand(1 + 2 * self.goals, self.batch_size, generator=generator, dtype=torch.float64)
        contexts, goals = [], []
        for row in range(self.batch_size)[self.rows]:
            bank, usable = self.banks[int(source[row])], self.usable[int(source[row])]
            now = int(usable[int(float(place[row]) * len(usable))])
            images = bank.images[now - self.settings.context_size : now + 1].flatten(0, 1)
            contexts.append((images, self._waypoints(bank, now)))
            for far, other in zip(drawn[::2], drawn[1::2], strict=True):
                goals.append(self._goal(bank, now, float(far[row]), float(other[row])))
        images, waypoints = (torch.stack(parts) for parts in zip(*contexts, strict=True))
        wanted, distance, teaches, poses = (torch.stack(parts) for parts in zip(*goals, strict=True))
        return PolicyBatch(images, wanted, waypoints, distance, teaches, poses)

    def _goal(self, bank: FrameBank, now: int, far: float, other: float) -> tuple[Tensor, ...]:
        """Return a goal's image, distance, whether it teaches actions, and pose, of two numbers in [0, 1)."""
        settings = self.settings
        reach = min(settings.max_distance, int(bank.last[now]) - now)
        lowest = 0 if self.negatives else 1
        distance = lowest + int(far * (reach + 1 - lowest))
        negative = distance == 0
        goal = int(other * len(bank)) if negative else now + distance
        distance = settings.max_distance if negative else distance
        low, high = ACTION_DISTANCES[settings.kind]
        pose = torch.full((3,), torch.nan)
        if not negative:
            pose = se2.relative(bank.poses_xyyaw[now], bank.poses_xyyaw[goal])
            pose[:2] /= bank.spacing_m[now]
        return (
            bank.images[goal],
            torch.tensor(float(distance)),
            torch.tensor(low < distance < high and not negative),
            pose,
        )

    def _waypoints(self, bank: FrameBank, now: int) -> Tensor:
        ahead = bank.poses_xyyaw[now + 1 : now + 1 + self.settings.waypoints]
        local = se2.relative(bank.poses_xyyaw[now][None], ahead)
        places = local[:, :2] / bank.spacing_m[now]
        if not self.settings.learn_angle:
            return places
        return torch.cat([places, torch.cos(local[:, 2:]), torch.sin(local[:, 2:])], dim=1)
