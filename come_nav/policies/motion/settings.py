"""Shape of a motion network and its units. A value out of range is refused by name."""

from __future__ import annotations

from dataclasses import dataclass

from come_nav.core.checks import check_range
from come_nav.core.errors import ConfigError


@dataclass(frozen=True)
class MotionSettings:
    """One motion network.

    Attributes:
        image_size: side of its square images, px; a multiple of 8.
        frames: newest ones that it is told the poses of, >= 2; it looks at the newest and at the oldest of them.
        rate_hz: frames per second.
        max_steps: largest time ahead that it was taught, in frames.
        width: channels of the images' encoder, a multiple of 16.
        hidden: width of the layers behind it.
        components: normal distributions that a pose is a mixture of.
    """

    image_size: int = 64
    frames: int = 4
    rate_hz: float = 4.0
    max_steps: int = 16
    width: int = 96
    hidden: int = 384
    components: int = 6

    def __post_init__(self) -> None:
        check_range("motion.frames", self.frames, 2, 64)
        check_range("motion.rate_hz", self.rate_hz, 0.0, 1000.0, open_low=True)
        for name in ("max_steps", "hidden", "components"):
            check_range(f"motion.{name}", getattr(self, name), 1, 10000)
        for name, step in (("image_size", 8), ("width", 16)):
            check_range(f"motion.{name}", getattr(self, name), step, 4096)
            if getattr(self, name) % step:
                raise ConfigError(f"motion.{name} must be a multiple of {step}, got {getattr(self, name)}")

    @property
    def facts(self) -> int:
        """Numbers that it is told beside images: twist, the poses of earlier frames, and the camera."""
        return 2 + 3 * (self.frames - 1) + 6
