"""What a figure depends on, in few JSON values: inputs, models, machines."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav import __version__
from come_nav.core.resources import find_resource
from come_nav.core.settings import to_mapping
from come_nav.planning.settings import KinematicsSettings, MotionPriorSettings, PlannerSettings
from come_nav.policies.motion.model import read_motion_file
from come_nav.world_model.model import DiffusionWorldModel


def digest(poses: NDArray[np.float64]) -> str:
    """Return a short name of poses, to the tenth of a millimetre, so that platforms agree."""
    return hashlib.sha256(np.round(poses, 4).astype("<f8").tobytes()).hexdigest()[:16]


def model_fingerprint(name: str) -> dict[str, str]:
    """Return name and sha256 of a model's weights (of all weight files, in the order of their names)."""
    path = find_resource("models", name)
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    found = hashlib.sha256()
    for file in files:
        with file.open("rb") as handle:
            while block := handle.read(1 << 22):
                found.update(block)
    return {"name": Path(name).name, "sha256": found.hexdigest()}


def model_settings(name: str, model: DiffusionWorldModel) -> dict[str, Any]:
    """Return what identifies the model ``name``, how it is sampled and, where it looks at views, from which depth."""
    found = {
        **model_fingerprint(name),
        "sampler": to_mapping(model.sampler),
        "precision": model.inference.precision,
    }
    if model.depth is not None:
        found["context_depth"] = "measured" if model.inference.measured_depth else "estimated"
    return found


OF_PROPOSALS = ("proposals", "proposed_paths", "proposal_spacing_m", "proposals_alone")  # fields of PlannerSettings


def planner_settings(planner: PlannerSettings) -> dict[str, Any]:
    """Return the search's settings; what is not used is left out, so that folders of version 0.1 go on."""
    found: dict[str, Any] = to_mapping(planner)
    if planner.imagined_share == 1.0:
        del found["imagined_share"]
    if planner.proposals:
        return found | {"proposals": model_fingerprint(planner.proposals)}
    return {name: value for name, value in found.items() if name not in OF_PROPOSALS}


OF_NETWORK = ("network", "network_weight")  # fields of MotionPriorSettings


def motion_prior_settings(prior: MotionPriorSettings, robot: KinematicsSettings) -> dict[str, Any]:
    """Return the prior's settings; a network that is not asked is left out, so that folders from before it go on."""
    found: dict[str, Any] = to_mapping(prior)
    if not prior.looks(robot):
        return {name: value for name, value in found.items() if name not in OF_NETWORK}
    shape = to_mapping(read_motion_file(find_resource("models", prior.network)).motion)
    return found | {"network": {**model_fingerprint(prior.network), "shape": shape}}


def machine_facts() -> dict[str, Any]:
    """Return versions and device: worth knowing, but not part of what makes two evaluations the same."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    versions = {"come_nav": __version__, "torch": torch.__version__, "numpy": np.__version__}
    return {"versions": {**versions, "python": platform.python_version()}, "device_name": device}
