"""Shape of a sequence denoiser, and what it remembers with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from come_nav.core.checks import check_choice, check_range
from come_nav.core.errors import ConfigError

MemoryKind = Literal["none", "window", "full", "ssm"]
MEMORY_KINDS: tuple[MemoryKind, ...] = get_args(MemoryKind)


@dataclass(frozen=True)
class SequenceSettings:
    """Shape of a sequence denoiser. Layers differ by ``memory`` alone, so that the kinds have about the same size.

    Attributes:
        memory: what each layer carries from frame to frame, beside the local attention after it: "ssm" a state-space
            scan, "window" attention to the newest ``window_frames``, "full" attention to all frames, "none" nothing.
        input_size: rows and columns of the latent grid.
        patch_size: rows and columns of one token's patch.
        in_channels: latent channels C.
        hidden_size: token width.
        depth: layers.
        num_heads: heads of attention and of the scan.
        mlp_ratio: MLP width over token width.
        window_frames: of "window": a frame attends to itself and to so many less one before it, in each layer.
        local_frames: frames k of the local attention, in chunks of k/2: a frame attends to its own chunk up to itself,
            and to the chunk before (LSSVWM, arXiv 2505.20171: 10). 0 = to itself alone. Even.
        block_sizes: of "ssm": rows and columns in tokens of the blocks that are scanned each by itself, for one layer
            after the other and then from the start again; 0 = the whole frame in one scan.
        state_size: of "ssm": numbers N that the state has for each channel.
        place_waves: of "ssm": what writes to the state and reads from it is told the pose by cosines and sines of so
            many waves through x, y and yaw together, drawn once: a linear read-out finds what was written at one pose
            only where poses that differ in any part have little in common (random Fourier features; Rahimi and Recht,
            2007). 0 = by the tokens alone, which know x, y and yaw side by side.
        place_length: distance, in units of the normaliser, at which waves have fallen to exp(-1/2) of their likeness.
        place_turns: standard deviation of the waves' whole numbers of turns in a turn of yaw.
        conv_width: of "ssm": tokens of the short causal convolution before the scan; 0 = none.
        scan_chunk: of "ssm": tokens that the parallel scan takes at once; changes the speed, not the result.
        slowest_decay, fastest_decay: of "ssm": first rates -A of the heads, geometrically spaced. Mamba-2 draws them
            from [1, 16], which forgets within tens of tokens; a video's frame alone has more.
        pose_octaves: poses are told as sinusoids of x and y of so many octaves, from ``pose_wave`` units on.
        pose_wave: longest wavelength, in units of the normaliser.
        yaw_harmonics: yaw is told as sinusoids of so many multiples of it.
    """

    memory: MemoryKind = "ssm"
    input_size: int = 4
    patch_size: int = 1
    in_channels: int = 24
    hidden_size: int = 96
    depth: int = 4
    num_heads: int = 4
    mlp_ratio: float = 2.0
    window_frames: int = 16
    local_frames: int = 10
    block_sizes: tuple[int, ...] = (2, 4, 2, 1)
    state_size: int = 64
    place_waves: int = 0
    place_length: float = 0.5
    place_turns: float = 2.0
    conv_width: int = 4
    scan_chunk: int = 64
    slowest_decay: float = 1e-3
    fastest_decay: float = 1.0
    pose_octaves: int = 6
    pose_wave: float = 32.0
    yaw_harmonics: int = 2

    def __post_init__(self) -> None:
        check_choice("sequence.memory", self.memory, MEMORY_KINDS)
        for field in ("input_size", "patch_size", "in_channels", "depth", "num_heads", "window_frames"):
            check_range(f"sequence.{field}", getattr(self, field), 1)
        for field in ("state_size", "scan_chunk", "pose_octaves", "yaw_harmonics"):
            check_range(f"sequence.{field}", getattr(self, field), 1)
        check_range("sequence.mlp_ratio", self.mlp_ratio, 0.0, open_low=True)
        check_range("sequence.local_frames", self.local_frames, 0)
        check_range("sequence.place_waves", self.place_waves, 0)
        check_range("sequence.place_length", self.place_length, 0.0, open_low=True)
        check_range("sequence.place_turns", self.place_turns, 0.0)
        check_range("sequence.conv_width", self.conv_width, 0)
        check_range("sequence.slowest_decay", self.slowest_decay, 0.0, open_low=True)
        check_range("sequence.fastest_decay", self.fastest_decay, self.slowest_decay)
        check_range("sequence.pose_wave", self.pose_wave, 0.0, open_low=True)
        if self.local_frames % 2:
            raise ConfigError(
                f"sequence.local_frames must be even, for two chunks of half as many, got {self.local_frames}"
            )
        if self.hidden_size < 1 or self.hidden_size % self.num_heads:
            raise ConfigError(
                f"sequence.hidden_size must be a multiple of num_heads {self.num_heads}, got {self.hidden_size}"
            )
        if self.input_size % self.patch_size:
            raise ConfigError(
                f"sequence.input_size must be a multiple of patch_size {self.patch_size}, got {self.input_size}"
            )
        for size in self.block_sizes:
            if size < 0 or (size and self.grid % size):
                raise ConfigError(f"sequence.block_sizes must divide the {self.grid} tokens of a side, got {size}")
        if not self.block_sizes:
            raise ConfigError("sequence.block_sizes names no size; [0] scans whole frames")

    @property
    def grid(self) -> int:
        """Rows and columns of tokens in a frame."""
        return self.input_size // self.patch_size

    @property
    def tokens(self) -> int:
        """Tokens in a frame."""
        return self.grid**2

    def block_size(self, layer: int) -> int:
        """Return the side of the blocks of a layer, tokens."""
        return self.block_sizes[layer % len(self.block_sizes)] or self.grid
