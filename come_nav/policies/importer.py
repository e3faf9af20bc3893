"""Official checkpoints of GNM, ViNT and NoMaD become model folders; nothing that they pickle is run."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from come_nav.core.errors import CheckpointError, ConfigError, StorageError, suggest
from come_nav.core.pickled_modules import load_state_dict
from come_nav.core.weights_file import CONFIG_NAME, file_sha256
from come_nav.policies.model import LearnedPolicy, make_network, parameter_count
from come_nav.policies.settings import PolicySettings, published

# a tensor that only networks of this kind have
MARKS = {
    "nomad": "vision_encoder.obs_encoder._conv_stem.weight",
    "vint": "decoder.positional_encoding.pos_enc",
    "gnm": "obs_mobilenet.0.0.weight",
}
WORDS = (b"obs_mobilenet", b"compress_goal_enc", b"noise_pred_net")  # in the pickles of all three
PAPERS = {
    "gnm": "GNM: A General Navigation Model to Drive Any Robot (Shah et al., ICRA 2023, arXiv 2210.03370)",
    "vint": "ViNT: A Foundation Model for Visual Navigation (Shah et al., CoRL 2023, arXiv 2306.14846)",
    "nomad": "NoMaD: Goal Masked Diffusion Policies (Sridhar et al., ICRA 2024, arXiv 2310.07896)",
}
SOURCE = "https://github.com/robodhruv/visualnav-transformer"
LICENCE = "MIT"
IGNORED = "num_batches_tracked"


def import_policy(
    path: Path, folder: Path, *, heads: int | None = None, spacing_m: float | None = None, overwrite: bool = False
) -> LearnedPolicy:
    """Write the model folder ``folder`` from an official checkpoint; return the policy.

    Args:
        path: gnm_large.pth, vint.pth, vint_late_fusion.pth, nomad.pth, or one that their training wrote.
        folder: made if need be.
        heads: of the attention, which no tensor tells; the published 4 where None.
        spacing_m: metres between waypoints of the robot that is to be driven; 0.25 where None.
        overwrite: replace a model that is there.

    Raises:
        CheckpointError: the file is not one of these, is broken, or wants code to be run; nothing is written.
        StorageError: ``folder`` holds a model already, or cannot be written.
    """
    if (folder / CONFIG_NAME).exists() and not overwrite:
        raise StorageError(f"{folder}: holds a model already; choose another name or replace it with --overwrite")
    tensors = load_state_dict(path)
    settings = settings_of(path, tensors, heads)
    if spacing_m is not None:
        settings = replace(settings, spacing_m=spacing_m)
    network = make_network(settings)
    expected = network.state_dict()
    _check(path, settings, expected, tensors)
    network.load_state_dict(tensors, strict=False)
    policy = LearnedPolicy(network, folder.name)
    policy.save(folder, _card(folder.name, path, policy, sorted(set(tensors) - set(expected))))
    return policy


def is_policy_checkpoint(path: Path) -> bool:
    """Whether a file of torch.save names what a policy alone holds; False for anything else, damaged files too."""
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            content = archive.read(name)
    except (OSError, zipfile.BadZipFile, StopIteration, KeyError, RuntimeError, zlib.error):
        return False
    return any(words in content for words in WORDS)


def settings_of(path: Path, tensors: dict[str, Tensor], heads: int | None = None) -> PolicySettings:
    """Return the shape of the network that tensors belong to, read from their names and shapes.

    Raises:
        CheckpointError: they belong to none of the three.
    """
    kind = next((kind for kind, mark in MARKS.items() if mark in tensors), None)
    if kind is None:
        first = ", ".join(list(tensors)[:3])
        raise CheckpointError(f"{path}: no checkpoint of gnm, vint or nomad; its tensors are {first}, ...")
    readers = {"gnm": _gnm, "vint": _vint, "nomad": _nomad}
    try:
        settings = readers[kind](tensors)
        return settings if heads is None else replace(settings, heads=heads)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(f"{path}: a {kind} whose tensors do not fit together ({error})") from error
    except ConfigError as error:
        raise CheckpointError(f"{path}: a {kind}, but {error}") from error


def _gnm(tensors: dict[str, Tensor]) -> PolicySettings:
    frames = tensors[MARKS["gnm"]].shape[1] // 3
    waypoints = tensors["action_predictor.0.weight"].shape[0] // 4
    width = tensors["compress_observation.0.weight"].shape[0]
    return published("gnm", context_size=frames - 1, waypoints=waypoints, encoding_size=width)


def _vint(tensors: dict[str, Tensor]) -> PolicySettings:
    _, tokens, width = tensors[MARKS["vint"]].shape
    return published(
        "vint",
        context_size=tokens - 2,
        encoding_size=width,
        waypoints=tensors["action_predictor.0.weight"].shape[0] // 4,
        layers=_count(tensors, "decoder.sa_decoder.layers."),
        ff_factor=tensors["decoder.sa_layer.linear1.weight"].shape[0] // width,
        late_fusion=tensors["goal_encoder._conv_stem.weight"].shape[1] == 3,
    )


def _nomad(tensors: dict[str, Tensor]) -> PolicySettings:
    _, tokens, width = tensors["vision_encoder.positional_encoding.pos_enc"].shape
    downs = _count(tensors, "noise_pred_net.down_modules.")
    unet = "noise_pred_net.down_modules"
    widths = tuple(tensors[f"{unet}.{index}.0.blocks.0.block.0.weight"].shape[0] for index in range(downs))
    return published(
        "nomad",
        context_size=tokens - 2,
        encoding_size=width,
        layers=_count(tensors, "vision_encoder.sa_encoder.layers."),
        ff_factor=tensors["vision_encoder.sa_layer.linear1.weight"].shape[0] // width,
        down_dims=widths,
        cond_predict_scale=tensors[f"{unet}.0.0.cond_encoder.1.weight"].shape[0] == 2 * widths[0],
    )


def _count(tensors: dict[str, Tensor], prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in tensors if name.startswith(prefix)})


def _check(path: Path, settings: PolicySettings, expected: dict[str, Tensor], tensors: dict[str, Tensor]) -> None:
    for name, tensor in expected.items():
        if name.endswith(IGNORED):
            continue
        if name not in tensors:
            raise CheckpointError(f"{path}: a {settings.kind} without tensor '{name}'{suggest(name, tensors)}")
        if tensors[name].shape != tensor.shape:
            raise CheckpointError(
                f"{path}: tensor '{name}' must have shape {tuple(tensor.shape)}, got {tuple(tensors[name].shape)}"
            )
        if not tensors[name].isfinite().all():
            raise CheckpointError(f"{path}: tensor '{name}' holds NaN or infinite values; download the file again")


def _card(name: str, path: Path, policy: LearnedPolicy, left_out: list[str]) -> str:
    settings = policy.settings
    unused = f"- Left out, as the official loader does: {', '.join(left_out)}\n" if left_out else ""
    return (
        f"# {name}\n\n"
        f"{settings.kind}, imported from {path.name} (sha256 {file_sha256(path)}).\n\n"
        f"- Paper: {PAPERS[settings.kind]}\n"
        f"- Source: {SOURCE}, licence {LICENCE}\n"
        f"- {parameter_count(policy.network):,} parameters, {settings.frames} images of "
        f"{settings.image_width}x{settings.image_height} px at {settings.rate_hz:g} Hz, "
        f"{settings.waypoints} waypoints\n"
        f"- One waypoint spacing counts {settings.spacing_m:g} m; set it to your robot's typical speed / "
        f"{settings.rate_hz:g} Hz\n{unused}"
    )
