"""All that a memory suite evaluates, before the first image is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from come_nav.evaluation.protocols.memory_windows import RevisitLimits
from come_nav.evaluation.protocols.protocol import ProtocolSettings
from come_nav.evaluation.suites.fingerprints import model_fingerprint
from come_nav.evaluation.suites.kinematics import told_kinematics
from come_nav.evaluation.suites.memory.compositions import ComposedRow
from come_nav.evaluation.suites.memory.drive_memories import DriveMemories, MemoryCache
from come_nav.evaluation.suites.memory.drives import MemoryInput, Selection, open_memory_input, select_windows
from come_nav.evaluation.suites.memory.rgb_only import without_depth
from come_nav.evaluation.suites.memory.settings import MemorySuiteSettings
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
        progress: who is told.
    """

    settings: MemorySuiteSettings
    navigation: NavigationSettings
    folder: Path
    model: DiffusionWorldModel
    protocol: ProtocolSettings
    found: MemoryInput
    selection: Selection
    progress: Progress

    def cache(self, compositions: Sequence[ComposedRow], room: int = 1) -> MemoryCache:
        """Return where the memories that ``compositions`` look at are made and kept, of ``room`` drives at a time."""
        name = model_fingerprint(self.navigation.model)["sha256"]
        wanted = any("long_term" in row.counting for row in compositions)

        def make(drive: str) -> DriveMemories:
            return DriveMemories(
                self.found.drives[drive],
                self.model,
                self.navigation,
                self.folder / "adapters",
                name,
                long_term=wanted,
                progress=self.progress,
            )

        return MemoryCache(make, room, self.settings.tilt_told)


def set_up(
    settings: MemorySuiteSettings,
    navigation: NavigationSettings,
    folder: Path,
    progress: Progress,
    model: DiffusionWorldModel,
    offsets: Sequence[int],
    kinds: tuple[RevisitLimits, ...] = (),
) -> MemorySetup:
    """Drive the worlds or open the recordings, and choose windows whose targets lie ``offsets`` frames ahead.

    As many of each of ``kinds`` are chosen; where there are none, as the settings say.
    """
    kinds = kinds or tuple(RevisitLimits.of_age(*bin_s, model.rate_hz) for bin_s in settings.ages_s)
    protocol = ProtocolSettings(
        context_frames=model.context_frames, horizon_steps=offsets[-1], rate_hz=model.rate_hz, seed=navigation.seed
    )
    found = open_memory_input(settings, navigation, model.rate_hz, offsets[-1])
    if settings.rgb_only:
        found, navigation = without_depth(found, navigation)
    navigation, source = told_kinematics(navigation, found.source, settings.source.kinematics)
    found = replace(found, source=source)
    count = found.source.default_windows if settings.source.windows is None else settings.source.windows
    with progress(len(found.drives), "looking for windows", "drive") as bar:
        selection = select_windows(found, protocol, range(offsets[0], offsets[-1] + 1), count, bar.add, kinds)
    return MemorySetup(settings, navigation, folder, model, protocol, found, selection, progress)
