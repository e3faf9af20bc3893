"""When frames come: late, now and then not at all, with stamps that are a little off.

Delays have a fixed part and an exponential one, the usual model of queues and retransmissions (L. Kleinrock, "Queueing
Systems, Volume 1", 1975: the time in an M/M/1 queue is exponential); drops are independent of each other;
stamps err by a normal amount, as a driver's do that stamps on arrival with part of the delay taken off.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from come_nav.core.checks import check_range


@dataclass(frozen=True)
class TimingSettings:
    """When frames come; all zero is at once.

    Attributes:
        latency_s: least time from exposure to delivery, s.
        latency_spread_s: mean of the further, exponential delay, s.
        drop_share: share of frames that never come, 0 to 0.9.
        stamp_jitter_s: standard deviation of the stamp's error, s; errors beyond three of it do not occur.
    """

    latency_s: float = 0.0
    latency_spread_s: float = 0.0
    drop_share: float = 0.0
    stamp_jitter_s: float = 0.0

    def __post_init__(self) -> None:
        check_range("sensors.timing.latency_s", self.latency_s, 0.0, 5.0)
        check_range("sensors.timing.latency_spread_s", self.latency_spread_s, 0.0, 5.0)
        check_range("sensors.timing.drop_share", self.drop_share, 0.0, 0.9)
        check_range("sensors.timing.stamp_jitter_s", self.stamp_jitter_s, 0.0, 1.0)

    @property
    def perfect(self) -> bool:
        """Whether every frame comes at once with a true stamp."""
        return self == TimingSettings()


@dataclass(frozen=True)
class Delivery:
    """What happens to one frame: whether it is lost, its delay, s, and stamp minus time of exposure, s."""

    lost: bool = False
    latency_s: float = 0.0
    stamp_error_s: float = 0.0


def draw_delivery(settings: TimingSettings, generator: torch.Generator) -> Delivery:
    """Draw what happens to the next frame; three numbers are drawn, whatever is switched off."""
    if settings.perfect:
        return Delivery()
    chance, wait = torch.rand(2, generator=generator, dtype=torch.float64, device=generator.device).tolist()
    error = float(torch.randn(1, generator=generator, dtype=torch.float64, device=generator.device))
    delay = float(-torch.log1p(-torch.tensor(wait, dtype=torch.float64)))
    return Delivery(
        lost=chance < settings.drop_share,
        latency_s=settings.latency_s + settings.latency_spread_s * delay,
        stamp_error_s=settings.stamp_jitter_s * min(max(error, -3.0), 3.0),
    )
