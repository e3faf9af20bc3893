"""Which world seeds belong to training, validation and test. Test worlds are never trained or tuned on."""

from __future__ import annotations

from come_nav.core.errors import ConfigError

TRAIN_SEEDS = range(0, 10000)
VALIDATION_SEEDS = range(10000, 10100)
TEST_SEEDS = range(20000, 20100)


def split_of(seed: int) -> str:
    """Return "train", "validation" or "test"; raise ConfigError for a seed in none of them."""
    for name, seeds in (("train", TRAIN_SEEDS), ("validation", VALIDATION_SEEDS), ("test", TEST_SEEDS)):
        if seed in seeds:
            return name
    raise ConfigError(
        f"world seed {seed} belongs to no split; use 0-9999 (train), 10000-10099 (validation) or 20000-20099 (test)"
    )
