"""All that a memory suite evaluates, before the first image is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from come_nav.evaluation.protocols.protocol import ProtocolSettings
from come_nav.evaluation.suites.fingerprints import model_fingerprint
from come_nav.evaluation.suites.memory.cache import Memories, MemoryCache
from come_nav.evaluation.suites.memory.drives import MemoryInput, Selection, open_memory_input, select_windows
from come_nav.evaluation.suites.memory.settings import MemorySettings, MemorySuiteSettings
from come_nav.evaluation.suites.progress import Progress
from come_nav.navigation.settings import NavigationSettings
from come_nav.world_model.model import DiffusionWorldModel


@dataclass(frozen=True)
class MemorySetup:
    """A memory suite that is ready to begin.

    Attributes:
        settings: of the suite.
        navigation: of the robot.
        folder: of the results.
        model: whose experts are composed.
        protocol: what a window is.
        found: drives with their phases.
        selection: the windows.
        cache: the memories of the drives.
        progress: who is told.
    """

    settings: MemorySuiteSettings
    navigation: NavigationSettings
    folder: Path
    model: DiffusionWorldModel
    protocol: ProtocolSettings
    found: MemoryInput
    selection: Selection
    cache: MemoryCache
    progress: Progress


def set_up(
    settings: MemorySuiteSettings,
    navigation: NavigationSettings,
    folder: Path,
    progress: Progress,
    model: DiffusionWorldModel,
    offsets: Sequence[int],
    *,
    all_drives: bool = False,
) -> MemorySetup:
    """Drive the worlds or open the recordings, and choose windows with targets ``offsets`` frames after their starts.

    ``all_drives`` keeps the memories of all drives at hand, where all windows are imagined again and again.
    """
    protocol = ProtocolSettings(
        context_frames=model.context_frames, horizon_steps=offsets[-1], rate_hz=model.rate_hz, seed=navigation.seed
    )
    found = open_memory_input(settings, navigation, model.rate_hz, offsets[-1])
    count = found.source.default_windows if settings.source.windows is None else settings.source.windows
    with progress(len(found.drives), "looking for windows", "drive") as bar:
        selection = select_windows(found, protocol, range(offsets[0], offsets[-1] + 1), count, bar.add)
    name, made = model_fingerprint(navigation.model)["sha256"], MemorySettings.of(navigation)
    cache = MemoryCache(
        lambda drive: Memories(found.drives[drive], model, made, folder / "adapters", name, progress),
        len(found.drives) if all_drives else 1,
    )
    return MemorySetup(settings, navigation, folder, model, protocol, found, selection, cache, progress)
