"""A learned planner with its units: images in, paths in metres out; and its model folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from come_nav.core.errors import CheckpointError, ConfigError, DataError
from come_nav.core.types import Proposals
from come_nav.core.weights_file import (
    WEIGHTS_NAME,
    check_format,
    checked_weights,
    has_format,
    load_tensors,
    read_folder_config,
    stored_tensors,
    write_model_folder,
)
from come_nav.policies.images import normalised, padded_context, pixels, stacked
from come_nav.policies.networks.gnm import GNM
from come_nav.policies.networks.nomad import NoMaD
from come_nav.policies.networks.vint import ViNT
from come_nav.policies.paths import poses_of_waypoints
from come_nav.policies.sampling import sample_steps, steps_to_waypoints
from come_nav.policies.settings import PolicySettings

FORMAT = "come_nav policy 1"
GOALS_AT_ONCE = 16


@dataclass(frozen=True)
class PolicyFile:
    """Content of a policy's ``config.yaml``."""

    format: str = FORMAT
    weights_sha256: str | None = None
    policy: PolicySettings = field(default_factory=PolicySettings)

    def __post_init__(self) -> None:
        check_format(self.format, FORMAT)


def make_network(settings: PolicySettings) -> GNM | ViNT | NoMaD:
    """Return the untrained network that ``settings`` describe."""
    if settings.kind == "nomad":
        return NoMaD(settings)
    return GNM(settings) if settings.kind == "gnm" else ViNT(settings)


class LearnedPolicy:
    """GNM, ViNT or NoMaD as a :class:`~come_nav.core.protocols.Policy`.

    Attributes:
        name: for tables.
        settings: shape and units.
        network: in evaluation mode.
    """

    def __init__(
        self, network: GNM | ViNT | NoMaD, name: str | None = None, device: str = "cpu", spacing_m: float | None = None
    ) -> None:
        """Take a network; ``spacing_m`` is the robot's metres between waypoints, the network's own where None."""
        self.network = network.eval().to(device)
        self.settings = network.settings if spacing_m is None else replace(network.settings, spacing_m=spacing_m)
        self.name = name or self.settings.kind
        self._device = torch.device(device)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu", spacing_m: float | None = None) -> LearnedPolicy:
        """Load a policy's model folder.

        Raises:
            CheckpointError: in one line, for a folder, file or tensor that is missing or broken.
            ConfigError: for a value in ``config.yaml`` that breaks a rule.
        """
        content = read_policy_file(folder)
        tensors = checked_weights(folder, content.weights_sha256)
        network = make_network(content.policy)
        load_tensors(network, tensors, folder / WEIGHTS_NAME)
        return cls(network, folder.resolve().name, device, spacing_m)

    @property
    def frames(self) -> int:
        """Images that it looks at."""
        return self.settings.frames

    @torch.no_grad()
    def propose(
        self,
        context: Sequence[NDArray[np.uint8]],
        goal: NDArray[np.uint8] | None,
        count: int,
        generator: torch.Generator,
    ) -> Proposals:
        """Return ``count`` drawn paths of NoMaD, the one path of GNM or ViNT (see ``core.protocols.Policy``)."""
        settings, images = self.settings, self._context(context)
        network, distance = self.network, None
        if isinstance(network, NoMaD):
            wanted = torch.zeros_like(images[:, :3]) if goal is None else stacked([goal], settings).to(self._device)
            masked = torch.tensor([goal is None], device=self._device)
            condition = network.vision_encoder(images, wanted, masked)
            distance = None if goal is None else float(network.dist_pred_net(condition)[0, 0])
            waypoints = steps_to_waypoints(sample_steps(network, condition.expand(count, -1), generator))
        elif goal is None:
            raise ConfigError(f"policy '{self.name}' is a {settings.kind}, which needs a goal; nomad explores without")
        else:
            found, waypoints = network(images, stacked([goal], settings).to(self._device))
            distance = float(found[0, 0])
        numbers = waypoints.double().cpu().numpy()
        if not np.isfinite(numbers).all():
            raise CheckpointError(f"policy '{self.name}' answers with NaN or infinite waypoints; import it again")
        return Proposals(poses_of_waypoints(numbers, settings.spacing_m), 1.0 / settings.rate_hz, distance)

    @torch.no_grad()
    def distances_frames(
        self, context: Sequence[NDArray[np.uint8]], goals: Sequence[NDArray[np.uint8]]
    ) -> NDArray[np.float64]:
        """Return how far each goal's image is taken to be, in protocol frames (G,)."""
        images = self._context(context)
        found = [np.zeros(0)]
        for first in range(0, len(goals), GOALS_AT_ONCE):
            wanted = normalised(pixels(goals[first : first + GOALS_AT_ONCE], self.settings)).to(self._device)
            found.append(self._distances(images, wanted).double().cpu().numpy())
        return np.concatenate(found)

    def save(self, folder: Path, card: str | None = None, storage: torch.dtype = torch.float32) -> None:
        """Write weights, then the config that holds their checksum, then the card; each file atomically.

        ``storage`` is how floating-point weights are written; they are read into float32 whatever it is.

        Raises:
            StorageError: when the folder cannot be written.
        """
        tensors = stored_tensors(self.network, storage)
        default = f"# {folder.name}\n\nA {self.settings.kind} policy of come_nav.\n"
        write_model_folder(
            folder, tensors, FORMAT, lambda digest: PolicyFile(FORMAT, digest, self.settings), card or default
        )

    def _context(self, context: Sequence[NDArray[np.uint8]]) -> Tensor:
        if not context:
            raise DataError(f"policy '{self.name}' needs an image to propose paths from")
        return stacked(padded_context(context, self.settings), self.settings).to(self._device)

    def _distances(self, images: Tensor, goals: Tensor) -> Tensor:
        network = self.network
        if isinstance(network, NoMaD):
            shown = torch.zeros(len(goals), dtype=torch.bool, device=goals.device)
            distances: Tensor = network.dist_pred_net(network.vision_encoder(images, goals, shown))
        else:
            distances, _ = network(images.expand(len(goals), -1, -1, -1), goals)
        return distances[:, 0]


def is_policy_folder(folder: Path) -> bool:
    """Whether a model folder's config says that it holds a policy; False where there is no readable one."""
    return has_format(folder, FORMAT)


def read_policy_file(folder: Path) -> PolicyFile:
    """Return a policy folder's config.

    Raises:
        CheckpointError: where ``folder`` is none, naming what it is.
        ConfigError: for a value that breaks a rule.
    """
    return read_folder_config(
        folder, PolicyFile, FORMAT, "policy (gnm, vint, nomad)", "import one by 'come-nav models'"
    )


def parameter_count(network: nn.Module) -> int:
    """Return the number of trained numbers."""
    return sum(parameter.numel() for parameter in network.parameters())
