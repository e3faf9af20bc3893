"""The sequence denoiser as an expert: its memory is its state; without it, it knows the pose alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from come_nav.core.geometry import se2
from come_nav.core.protocols import SequenceSource
from come_nav.core.types import Context
from come_nav.experts.base import SignalSchedule
from come_nav.experts.normalizer import Normalizer
from come_nav.experts.passes import Condition, Pass, PassExpert, Query, schedule_digest
from come_nav.experts.sequence.network import CLEAN, SequenceDenoiser, SequenceState


class SequenceNetwork(nn.Module):
    """A sequence denoiser of velocity in metres and radians (a :class:`~come_nav.core.protocols.SequenceObserver`).

    Args:
        model: the denoiser.
        normalizer: of the poses and motions that it was trained on.
        schedule: the full noise schedule.
    """

    abar: Tensor

    def __init__(self, model: SequenceDenoiser, normalizer: Normalizer, schedule: SignalSchedule) -> None:
        super().__init__()
        self.model, self.normalizer = model, normalizer
        self.register_buffer("abar", torch.as_tensor(schedule.alphas_cumprod, dtype=torch.float64), persistent=False)

    def velocity(
        self, x: Tensor, t: Tensor, poses: Tensor, actions: Tensor, state: SequenceState | None = None
    ) -> tuple[Tensor, SequenceState]:
        """Return velocities (B, T, C, h, w) in float32 and the state; see :class:`.network.SequenceDenoiser`.

        ``poses`` and ``actions`` (B, T, 3) are in metres and radians. Frames enter times the share of signal in them,
        sqrt(abar): what is nearly all noise says nothing, and would only hide where it stands.
        """
        poses, actions = self.normalizer.action(poses), self.normalizer.action(actions)
        signal = torch.where(t == CLEAN, 1.0, self.abar[t.clamp(min=0)].sqrt()).to(x)
        output, after = self.model(x * signal[..., None, None, None], t, poses, actions, state)
        return output.float(), after

    def start(self) -> SequenceState:
        """Return the state of one sequence before its first frame."""
        return self.model.start(1)

    @torch.no_grad()
    def observed(
        self, state: SequenceState, latents: Tensor, pose_xyyaw: Tensor, action_xyyaw: Tensor
    ) -> SequenceState:
        """Return the state after one more frame (C, h, w); see :class:`~come_nav.core.protocols.SequenceObserver`."""
        return self.all_observed(state, latents[None, None], pose_xyyaw[None, None], action_xyyaw[None, None])

    @torch.no_grad()
    def all_observed(
        self, state: SequenceState | None, latents: Tensor, poses: Tensor, actions: Tensor
    ) -> SequenceState:
        """Return the state after frames (B, T, C, h, w) that were seen, in one parallel pass."""
        place = self.abar.device
        clean = torch.full(latents.shape[:2], CLEAN, device=place)
        return self.velocity(latents.to(place), clean, poses.to(place), actions.to(place), state)[1]

    def noise(self, x_t: Tensor, t: Tensor, pose: Tensor, action: Tensor, state: SequenceState | None) -> Tensor:
        """Return the noise (B, C, h, w) in x_t (B, C, h, w), frames that would follow those of ``state``."""
        velocity, _ = self.velocity(x_t[:, None], t[:, None], pose[:, None], action[:, None], state)
        abar = self.abar[t][:, None, None, None]
        return abar.sqrt().to(x_t) * velocity[:, 0] + (1.0 - abar).sqrt().to(x_t) * x_t


class SequenceExpert(PassExpert):
    """Contrast of what a sequence's state remembers against no memory at all (Expert protocol).

    A target is one frame that would follow the newest one; the state does not change. The time until then is not told:
    the network takes places to stay as they are. It learned of motions from one frame to the next, so that far targets
    rely on their pose.

    Args:
        network: shared with the memory.
        memory: holds the state of one sequence.
    """

    def __init__(self, network: SequenceNetwork, memory: SequenceSource[SequenceState]) -> None:
        self.network, self.memory = network, memory

    @property
    def schedule_digest(self) -> str | None:
        """Name of the noise schedule."""
        return schedule_digest(self.network.abar.cpu())

    def shared_passes(self) -> tuple[Pass, Pass]:
        """Return the passes with the state and without it."""
        return Pass(self, Condition()), Pass(self, Condition(context=False))

    def noises(self, conditions: Sequence[Condition], query: Query) -> Tensor:
        """Return the noise (P, B, C, h, w) with the state or without it."""
        return torch.stack([self._noise(query, condition.context) for condition in conditions])

    def eps(self, x_t: Tensor, t: Tensor, context: Context, action: Tensor, rel_time: Tensor) -> Tensor:
        """Return only the noise with the state (B, C, h, w)."""
        return self._noise(Query(x_t, t, context, action, rel_time), True)

    def _noise(self, query: Query, remembered: bool) -> Tensor:
        batch, action = len(query.x_t), query.action.double()
        newest = self.memory.newest_xyyaw.to(action)
        pose = se2.compose(newest.expand(batch, 3), action)
        state = self.memory.state.expanded(batch) if remembered else None
        return self.network.noise(query.x_t, query.t, pose, action, state)
