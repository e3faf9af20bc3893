"""Shape of the long-term expert's adapters."""

from __future__ import annotations

import re
from dataclasses import dataclass

from come_nav.core.checks import check_range
from come_nav.core.errors import ConfigError, suggest

LAYERS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "cttn.out_proj", "adaLN_modulation.1")


@dataclass(frozen=True)
class LoraSettings:
    """Shape of an adapter.

    Attributes:
        rank: of each low-rank update.
        alpha: its scale times the rank; the update is alpha / rank * B A.
        targets: layers of every block: attn.qkv, attn.proj, mlp.fc1, mlp.fc2, cttn.out_proj, adaLN_modulation.1.
        pose_key: tell the target's absolute pose to the adapted network through an embedding that belongs to the
            adapter; the base neither has nor sees it.
    """

    rank: int = 64
    alpha: int = 64
    targets: tuple[str, ...] = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    pose_key: bool = True

    def __post_init__(self) -> None:
        check_range("lora.rank", self.rank, 1)
        check_range("lora.alpha", self.alpha, 1)
        if not self.targets:
            raise ConfigError(f"lora.targets must name at least one of {', '.join(LAYERS)}, got none")
        for target in self.targets:
            if target not in LAYERS:
                raise ConfigError(f"lora.targets: no layer '{target}' in a block{suggest(target, LAYERS)}")

    @property
    def pattern(self) -> str:
        """Regular expression of the adapted modules' full names: a bare 'proj' would also match x_embedder.proj."""
        return rf"blocks\.\d+\.({'|'.join(re.escape(target) for target in self.targets)})"
