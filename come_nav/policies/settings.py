"""Shape of a policy and its units. A value out of range is refused by name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from come_nav.core.checks import check_choice, check_range
from come_nav.core.errors import ConfigError

PolicyKind = Literal["gnm", "vint", "nomad"]
KINDS = ("gnm", "vint", "nomad")
# NoMaD's steps between waypoints, in spacings, become [-1, 1] by these ends (data_config.yaml of its training)
STEP_LOW, STEP_HIGH = (-2.5, -4.0), (5.0, 4.0)


@dataclass(frozen=True)
class PolicySettings:
    """One policy: its network and what its numbers mean.

    Attributes:
        kind: gnm, vint or nomad.
        context_size: frames before the newest one that it looks at.
        waypoints: that it predicts, one for each protocol frame.
        learn_angle: whether waypoints carry a heading.
        image_width, image_height: of its images, px.
        encoding_size: width of a token, or of each encoder's output (gnm).
        encoder_width: channels of the image encoders as a share of the published ones (nomad).
        heads, layers, ff_factor: of the attention.
        late_fusion: the goal's image is encoded alone (vint).
        down_dims: widths of the U-Net (nomad).
        cond_predict_scale: the condition also scales (nomad).
        diffusion_steps: of the DDPM (nomad).
        rate_hz: frames and waypoints per second.
        spacing_m: metres between waypoints that count as 1: the robot's typical speed / ``rate_hz``.
        max_distance: largest distance that it was taught, in protocol frames.
    """

    kind: PolicyKind = "nomad"
    context_size: int = 3
    waypoints: int = 8
    learn_angle: bool = False
    image_width: int = 96
    image_height: int = 96
    encoding_size: int = 256
    encoder_width: float = 1.0
    heads: int = 4
    layers: int = 4
    ff_factor: int = 4
    late_fusion: bool = False
    down_dims: tuple[int, ...] = (64, 128, 256)
    cond_predict_scale: bool = False
    diffusion_steps: int = 10
    rate_hz: float = 4.0
    spacing_m: float = 0.25
    max_distance: int = 20

    def __post_init__(self) -> None:
        check_choice("policy.kind", self.kind, KINDS)
        check_range("policy.context_size", self.context_size, 0, 64)
        for name in ("waypoints", "encoding_size", "heads", "layers", "ff_factor", "diffusion_steps", "max_distance"):
            check_range(f"policy.{name}", getattr(self, name), 1, 10000)
        for name in ("image_width", "image_height"):
            check_range(f"policy.{name}", getattr(self, name), 32, 1024)
        check_range("policy.encoder_width", self.encoder_width, 0.0, 4.0, open_low=True)
        for name in ("rate_hz", "spacing_m"):
            check_range(f"policy.{name}", getattr(self, name), 0.0, 1000.0, open_low=True)
        if self.kind != "gnm" and self.encoding_size % self.heads:
            raise ConfigError(
                f"policy.encoding_size must be a multiple of policy.heads {self.heads}, got {self.encoding_size}"
            )
        if self.kind == "nomad":
            self._check_diffusion()

    def _check_diffusion(self) -> None:
        if self.learn_angle:
            raise ConfigError("policy.learn_angle must be false for nomad: its waypoints carry no heading")
        if not self.down_dims or any(width < 8 or width % 8 for width in self.down_dims):
            raise ConfigError(f"policy.down_dims must be multiples of 8, got {list(self.down_dims)}")
        share = 2 ** (len(self.down_dims) - 1)
        if self.waypoints % share:
            raise ConfigError(
                f"policy.waypoints must be a multiple of {share} for {len(self.down_dims)} policy.down_dims, "
                f"got {self.waypoints}"
            )

    @property
    def frames(self) -> int:
        """Images that it looks at, the newest one among them."""
        return self.context_size + 1

    @property
    def action_numbers(self) -> int:
        """Numbers of one waypoint."""
        return 4 if self.learn_angle else 2


PUBLISHED: dict[str, PolicySettings] = {
    "gnm": PolicySettings("gnm", 5, 5, True, 85, 64, encoding_size=1024),
    "vint": PolicySettings("vint", 5, 5, True, 85, 64, encoding_size=512),
    "nomad": PolicySettings(),
}


def published(kind: str, **changes: Any) -> PolicySettings:
    """Return the settings of the published network of that kind, with ``changes``."""
    check_choice("policy", kind, KINDS)
    return replace(PUBLISHED[kind], **changes)
