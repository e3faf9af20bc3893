"""The one configuration: the rooms' settings side by side, a YAML file over their defaults, single keys over both.

``Config()`` is complete; a file or ``--set planner.samples=60`` overrides single keys. ``describe`` prints every key
with its explanation, taken from the settings' docstrings, so that the two never differ.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from come_nav.core.checks import check_choice, check_range
from come_nav.core.errors import ConfigError, suggest
from come_nav.core.settings import from_mapping, read_yaml, to_mapping
from come_nav.experts.lora import LoraSettings
from come_nav.memory.episodic import EpisodicSettings
from come_nav.memory.episodic_thread import BudgetSettings
from come_nav.memory.relocalisation import RelocalisationSettings
from come_nav.memory.short_term import ShortTermSettings
from come_nav.memory.spatial import SpatialSettings
from come_nav.planning.follower import FollowerSettings
from come_nav.planning.settings import PlannerSettings, PoseSearch
from come_nav.world_model.composition import CompositionMode
from come_nav.world_model.model import InferenceSettings
from come_nav.world_model.sampler import SamplerSettings

KINDS = ("config", "models", "launch")
MEMORY_EXPERTS = ("short_term", "long_term", "spatial")
ViewDistanceName = Literal["latent", "latent_cosine", "image_l1", "image_l2"]


@dataclass(frozen=True)
class ObjectiveSettings:
    """What a good path is.

    Attributes:
        view_distance: between imagined view and goal image: latent, latent_cosine, image_l1 or image_l2 (the image
            distances decode every candidate and compare a pyramid of blurred copies).
        image_scales: block sizes of that pyramid, px, each >= 1.
        view_weight: weight of the view distance, >= 0.
        pose_weight: weight of the distance to a goal pose, per m^2, >= 0.
        yaw_weight: weight of the turn to a goal pose, per rad^2, >= 0.
        path_cost_fraction: share of the distance to a goal pose that is taken over the whole path, not at its end,
            in [0, 1].
        smoothness_weight: weight of changes of the twist, >= 0.
        clearance_weight: weight of coming near to obstacles, per metre of nearly touching them, >= 0; who touches one
            is rejected whatever the weight.
    """

    view_distance: ViewDistanceName = "latent_cosine"
    image_scales: tuple[int, ...] = (1, 2, 4, 8)
    view_weight: float = 1.0
    pose_weight: float = 1.0
    yaw_weight: float = 0.1
    path_cost_fraction: float = 0.2
    smoothness_weight: float = 0.0
    clearance_weight: float = 1.0

    def __post_init__(self) -> None:
        check_choice("objective.view_distance", self.view_distance, get_args(ViewDistanceName))
        for scale in self.image_scales:
            check_range("objective.image_scales", scale, 1)
        for name in ("view_weight", "pose_weight", "yaw_weight", "smoothness_weight", "clearance_weight"):
            check_range(f"objective.{name}", getattr(self, name), 0.0)
        check_range("objective.path_cost_fraction", self.path_cost_fraction, 0.0, 1.0)


@dataclass(frozen=True)
class ExpertsSettings:
    """Which memories the imagination looks at, beside the newest frames, and how much.

    Attributes:
        use: of short_term, long_term and spatial. One that cannot work (no depth, no adapter yet) is left out of the
            plan, with a warning in its message.
        mode: normalised (with contrast, exponents sum to 1), literal (CoME equation 4) or average (no contrast).
        base: weight of the base expert, >= 0.
        short_term: weight of the longer past, >= 0.
        long_term: weight of the episode's adapter, >= 0.
        spatial: weight of the spatial memory, >= 0.
        older_frames: frames before the context that the short-term expert sees, >= 1.
        estimate_depth: fill the spatial memory with the model's own estimate where a frame has no depth.
        budget: how much of the machine the training of adapters may take.
        adapter_store: folder of a memory store whose newest adapter the long-term expert uses, as another process
            trains it; empty = train one here.
    """

    use: tuple[str, ...] = ()
    mode: CompositionMode = "normalised"
    base: float = 1.0
    short_term: float = 0.0
    long_term: float = 1.0
    spatial: float = 1.0
    older_frames: int = 12
    estimate_depth: bool = False
    budget: BudgetSettings = field(default_factory=BudgetSettings)
    adapter_store: str = ""

    def __post_init__(self) -> None:
        for name in self.use:
            check_choice("experts.use", name, MEMORY_EXPERTS)
        check_choice("experts.mode", self.mode, get_args(CompositionMode))
        for name in ("base", *MEMORY_EXPERTS):
            check_range(f"experts.{name}", getattr(self, name), 0.0)
        check_range("experts.older_frames", self.older_frames, 1)

    def weights(self, names: Sequence[str]) -> dict[str, float]:
        """Return the weight of the base and of the memory experts ``names``."""
        return {name: float(getattr(self, name)) for name in ("base", *names)}


def small_model_training() -> EpisodicSettings:
    """Return how the adapter of the shipped model trains; CoME's own settings are the class's defaults."""
    return EpisodicSettings(reach=40, batch_size=8, learning_rate=1e-3, steps_per_frame=1.0)


@dataclass(frozen=True)
class Config:
    """Everything that a command or a node can be told.

    Attributes:
        model: name of a model in models/, or a path to a model folder.
        device: where the model runs: auto (CUDA where there is a GPU), cpu, cuda or cuda:N.
        seed: of every random number, >= 0.
        imagination: jump (the last view at once) or rollout (frame by frame).
        warm_start: begin each search with what is left of the plan before.
        show_imagined: decode the imagined view at the end of the chosen path into the plan.
        max_sensor_age_s: no plan on a newest frame older than this, s, > 0.
        planner: the search.
        pose_search: what the search does differently where the goal is a pose alone.
        objective: what a good path is.
        memory: the short-term memory.
        experts: the memories that the imagination looks at.
        spatial: the spatial memory.
        relocalisation: how hard to search the memory for where an image was taken.
        episodic: training of the long-term memory's adapter.
        lora: shape of that adapter.
        sampler: of the world model; null = as the model's own config.yaml says.
        inference: batch sizes and precision of the world model.
        follower: how a plan is driven.
    """

    model: str = "tiny"
    device: str = "auto"
    seed: int = 0
    imagination: Literal["jump", "rollout"] = "jump"
    warm_start: bool = True
    show_imagined: bool = False
    max_sensor_age_s: float = 1.0
    planner: PlannerSettings = field(default_factory=PlannerSettings)
    pose_search: PoseSearch = field(default_factory=PoseSearch)
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    memory: ShortTermSettings = field(default_factory=ShortTermSettings)
    experts: ExpertsSettings = field(default_factory=ExpertsSettings)
    spatial: SpatialSettings = field(default_factory=SpatialSettings)
    relocalisation: RelocalisationSettings = field(default_factory=RelocalisationSettings)
    episodic: EpisodicSettings = field(default_factory=small_model_training)
    lora: LoraSettings = field(default_factory=lambda: LoraSettings(rank=16, alpha=16))
    sampler: SamplerSettings | None = None
    inference: InferenceSettings = field(default_factory=InferenceSettings)
    follower: FollowerSettings = field(default_factory=FollowerSettings)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise ConfigError(f"device must be auto, cpu, cuda or cuda:N, got '{self.device}'")
        check_range("seed", self.seed, 0, 2**63 - 1)
        check_choice("imagination", self.imagination, ("jump", "rollout"))
        check_range("max_sensor_age_s", self.max_sensor_age_s, 0.0, open_low=True)


# keys of version 0.1, which still read
RENAMED = {"objective.haste": "objective.path_cost_fraction"}


def _rename(values: dict[str, Any]) -> None:
    """Give keys of version 0.1 their present names, in place."""
    for old, new in RENAMED.items():
        *sections, name = old.split(".")
        found: Any = values
        for section in sections:
            found = found.get(section) if isinstance(found, dict) else None
        if isinstance(found, dict) and name in found:
            _set(values, new, found.pop(name))


def load_config(path: Path | str | None = None, overrides: Sequence[str] | Mapping[str, Any] = ()) -> Config:
    """Return the defaults, overridden by the YAML file ``path``, overridden by ``overrides``.

    Args:
        path: a file, or the name of one in config/; None = defaults alone.
        overrides: ``key=value`` words with dotted keys, e.g. ``planner.samples=60``, or a mapping of dotted keys.

    Raises:
        ConfigError: in one line that names the file or key, the value and the rule.
    """
    values: dict[str, Any] = {}
    file = None
    if path is not None:
        file = find_resource("config", str(path))
        values = read_yaml(file)
        _rename(values)
    pairs = overrides.items() if isinstance(overrides, Mapping) else map(parse_override, overrides)
    for key, value in pairs:
        _set(values, RENAMED.get(key, key), value)
    try:
        return from_mapping(Config, values)
    except ConfigError as error:
        raise error if file is None else ConfigError(f"{file}: {error}") from error


def parse_override(word: str) -> tuple[str, Any]:
    """Split ``planner.samples=60`` into the dotted key and its value, which is read as YAML."""
    import yaml

    key, equals, text = word.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"an override must look like planner.samples=60, got '{word}'")
    try:
        return key.strip(), yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"value of override '{word}' is not valid YAML") from error


def find_resource(kind: str, name: str) -> Path:
    """Return the path of a resource that ships with come_nav, or of the user's own.

    Looks, in this order, at: ``name`` as a path; the ament share folder, where ROS is sourced; ``share/come_nav`` of
    this Python; the repository root; for models also the user's own folder.

    Args:
        kind: config, models or launch.
        name: a path, or the name of a file (without suffix, if you like) or folder of that kind.

    Raises:
        ConfigError: with the nearest known name.
    """
    check_choice("kind of resource", kind, KINDS)
    own = Path(name).expanduser()
    # A bare word means a shipped resource, unless a folder of that name here is a model itself.
    own_folder = kind == "models" and own.is_dir() and (own.name != name or (own / "config.yaml").is_file())
    if own.is_file() or own_folder:
        return own
    known: set[str] = set()
    for folder in _resource_folders(kind):
        for entry in (folder / name, folder / f"{name}.yaml", folder / f"{name}.launch.py"):
            if entry.exists() and name:
                return entry
        known.update(_names(folder))
    hint = suggest(name, known) or f"; this installation has no {kind}"
    raise ConfigError(f"'{name}' is neither a path nor one of the {kind} of come_nav{hint}")


def describe(config: Config) -> str:
    """Return the configuration as YAML in which every key carries its explanation as a comment."""
    return "\n".join(_described(config, indent=0)) + "\n"


def _set(values: dict[str, Any], dotted_key: str, value: Any) -> None:
    *parents, last = dotted_key.split(".")
    for depth, parent in enumerate(parents):
        if values.get(parent) is None:
            values[parent] = {}
        values = values[parent]
        if not isinstance(values, dict):
            raise ConfigError(f"cannot set '{dotted_key}': '{'.'.join(parents[: depth + 1])}' is a single value")
    values[last] = value


def _resource_folders(kind: str) -> Iterator[Path]:
    if os.environ.get("AMENT_PREFIX_PATH"):
        try:
            ament = importlib.import_module("ament_index_python.packages")
            yield Path(ament.get_package_share_directory("come_nav")) / kind
        except (ImportError, LookupError):  # no ROS in this Python, or come_nav is not in the sourced workspace
            pass
    yield Path(sys.prefix) / "share" / "come_nav" / kind
    yield Path(__file__).resolve().parents[1] / kind
    if kind == "models":
        yield user_models_folder()


def user_models_folder() -> Path:
    """Return where imported and downloaded models are kept: ``$XDG_DATA_HOME/come_nav/models``."""
    data_home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data_home) / "come_nav" / "models"


def _names(folder: Path) -> set[str]:
    if not folder.is_dir():
        return set()
    names = {path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "_"))}
    return (
        names
        | {path.name.split(".")[0] for path in folder.glob("*.yaml")}
        | {path.name.split(".")[0] for path in folder.glob("*.launch.py")}
    )


def _described(settings: Any, indent: int) -> Iterator[str]:
    explanations = field_explanations(type(settings))
    margin = "  " * indent
    for item in dataclasses.fields(settings):
        value = getattr(settings, item.name)
        for line in explanations.get(item.name, []):
            yield f"{margin}# {line}"
        if dataclasses.is_dataclass(value):
            yield f"{margin}{item.name}:"
            yield from _described(value, indent + 1)
        else:
            yield f"{margin}{item.name}: {_yaml_scalar(to_mapping(settings)[item.name])}"


def field_explanations(cls: type) -> dict[str, list[str]]:
    """Return field -> lines of its explanation, from the ``Attributes:`` part of the class's docstring."""
    explanations: dict[str, list[str]] = {}
    _, _, attributes = (cls.__doc__ or "").partition("Attributes:\n")
    names: list[str] = []
    for line in attributes.splitlines():
        start = re.match(r" {8}(\w[\w, ]*): (.+)", line)
        if start:
            names = [name.strip() for name in start.group(1).split(",")]
            for name in names:
                explanations[name] = [start.group(2).strip()]
        elif line.startswith(" " * 12) and names:
            for name in names:
                explanations[name].append(line.strip())
        elif line.strip():
            break
    return explanations


def _yaml_scalar(value: Any) -> str:
    import yaml

    text: str = yaml.safe_dump(value, default_flow_style=True, width=1000)
    return text.removesuffix("\n").removesuffix("\n...")
