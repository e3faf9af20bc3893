"""Model folders: round trip, and one clear line for each way in which a folder can be broken."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from test_world_model_model import a_context, actions, seeded, small_model

from come_nav.core.errors import CheckpointError, ConfigError, StorageError
from come_nav.core.weights_file import count_parameters
from come_nav.experts.base import BaseExpert
from come_nav.experts.cdit import CDiT, CDiTSettings
from come_nav.experts.normalizer import Normalizer
from come_nav.world_model.autoencoders.autoencoder import AutoencoderSettings, ImageAutoencoder
from come_nav.world_model.composition import CompositionSettings, LevelWeights
from come_nav.world_model.depth import DepthEstimator, DepthSettings
from come_nav.world_model.files.checkpoint import (
    ExpertSettings,
    WorldModelSettings,
    read_config,
    save_model,
)
from come_nav.world_model.images import ImageSettings
from come_nav.world_model.inference_settings import InferenceSettings
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.reprojection import ReprojectionSettings
from come_nav.world_model.sampling.schedule import NoiseSchedule, ScheduleSettings
from come_nav.world_model.sampling.settings import CorrectorSettings, ResamplingSettings, SamplerSettings


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo") / "small"
    small_model().save(folder, card="# small\n")
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "small"))


def edit_weights(folder: Path, change) -> None:
    """Rewrite the weights as a user's own tool would, and let the config forget their checksum."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    edit_config(folder, lambda config: config.update(weights_sha256=None))


def edit_config(folder: Path, change) -> None:
    config = yaml.safe_load((folder / "config.yaml").read_text())
    change(config)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def predict(model: DiffusionWorldModel) -> torch.Tensor:
    model.inference = InferenceSettings(precision="float32")
    return model.predict(a_context(model), actions(2), torch.ones(2), seeded())


def test_what_was_tuned_to_a_model_is_kept_when_it_is_saved(folder: Path, tmp_path: Path) -> None:
    tuned = {"navigation": {"lora": {"rank": 8}}, "composition_weights": {"contrast": {"all": {"spatial": 0.5}}}}
    edit_config(folder, lambda config: config.update(tuned))
    DiffusionWorldModel.load(folder).save(tmp_path / "again")
    config = read_config(tmp_path / "again")
    assert {"navigation": config.navigation, "composition_weights": config.composition_weights} == tuned
    edit_config(folder, lambda config: config.update(navigation=[1]))
    with pytest.raises(ConfigError, match=r"config\.yaml: navigation must be a mapping of keys, got \[1\]"):
        read_config(folder)


# -- round trips -------------------------------------------------------------------------------------------------------


def test_full_precision_round_trip_is_exact(tmp_path: Path) -> None:
    model = small_model(
        sampler=SamplerSettings("dpm++", 6, clip_x0=4.0),
        composition=CompositionSettings("literal", (1.5,)),
        rate_hz=5.0,
        images=ImageSettings(aspect=4 / 3, horizontal_fov_deg=60.0),
    )
    model.autoencoder.set_scaling_factor(0.7)
    save_model(model, tmp_path / "m", storage="float32")
    again = DiffusionWorldModel.load(tmp_path / "m")
    for name in ("sampler", "composition", "rate_hz", "images"):
        assert getattr(again, name) == getattr(model, name)
    assert again.schedule.settings == model.schedule.settings
    assert again.base.normalizer == model.base.normalizer
    assert again.autoencoder.settings == model.autoencoder.settings
    for name, tensor in model.base.model.state_dict().items():
        assert torch.equal(again.base.model.state_dict()[name], tensor)
    torch.testing.assert_close(predict(again), predict(model), rtol=1e-4, atol=1e-4)


NETWORK = CDiTSettings(
    8,
    2,
    1,
    6,
    24,
    1,
    2,
    2.0,
    False,
    30.0,
    True,
    True,
    extra_channels=8,
    pose_embedding=True,
    extra_skip=True,
    view_groups=2,
    latent_memory_channels=3,
    older_frames=5,
    older_patch_size=2,
    pose_octaves=4,
    camera_embedding=True,
    ray_embedding=True,
    older_attention=True,
)
EVERY_FIELD = WorldModelSettings(
    rate_hz=5.0,
    storage="float32",
    weights_sha256="of the file",
    autoencoder=AutoencoderSettings(32, 6, (16, 16), 2, 8, False, 0.7, "lapped", 4),
    expert=ExpertSettings(NETWORK, Normalizer("range", 0.5, 0.38, (-1.0, -2.0), (3.0, 2.0)), "v"),
    memory_expert=ExpertSettings(NETWORK, Normalizer("range", 0.6, 0.3, (-1.0, -2.0), (3.0, 2.0)), "v"),
    schedule=ScheduleSettings(100, 1e-3, 0.05),
    sampler=SamplerSettings("ddpm", 6, 0.5, "even", 4.0, CorrectorSettings(1, 1.5), ResamplingSettings(2, 0.4, 9.0)),
    composition=CompositionSettings(
        "literal", (1.5,), (0.1, 0.8), levels=(LevelWeights(0.5, (0.25,)),), least_exponent=0.05
    ),
    images=ImageSettings(4 / 3, 60.0, 0.3, "nwm"),
    depth=DepthSettings((8, 16), 1, 0.6),
    reprojection=ReprojectionSettings(100, 1, 200, 0.5),
    navigation={"lora": {"rank": 4}},
    composition_weights={"contrast": {"all": {"spatial": 1.25}}},
)
FIXED = {"format"}  # fields with one allowed value


def leaves(settings: Any, name: str = "") -> dict[str, Any]:
    """All values of nested settings by their dotted names."""
    if not is_dataclass(settings):
        return {name: settings}
    return {
        path: value
        for own in fields(settings)
        for path, value in leaves(getattr(settings, own.name), f"{name}.{own.name}".strip(".")).items()
    }


def test_every_field_of_a_config_survives_saving_and_loading(tmp_path: Path) -> None:
    given = WorldModelSettings(
        autoencoder=AutoencoderSettings.stable_diffusion(), memory_expert=ExpertSettings(), depth=DepthSettings()
    )
    defaults = leaves(given) | leaves(AutoencoderSettings(), "autoencoder")
    wanted = leaves(EVERY_FIELD)
    unset = {name for name, value in defaults.items() if value == wanted[name]} - FIXED
    assert not unset, "give these another value than their default here"
    schedule = NoiseSchedule.linear(EVERY_FIELD.schedule)

    def expert(settings: ExpertSettings) -> BaseExpert:
        return BaseExpert(CDiT.from_settings(settings.network), settings.normalizer, schedule, settings.prediction)

    assert EVERY_FIELD.memory_expert is not None
    model = DiffusionWorldModel(
        ImageAutoencoder(EVERY_FIELD.autoencoder),
        {"base": expert(EVERY_FIELD.expert)},
        schedule,
        EVERY_FIELD.sampler,
        composition=EVERY_FIELD.composition,
        rate_hz=EVERY_FIELD.rate_hz,
        images=EVERY_FIELD.images,
        memory_expert=expert(EVERY_FIELD.memory_expert),
        depth=DepthEstimator(EVERY_FIELD.depth),
        reprojection=EVERY_FIELD.reprojection,
    )
    model.tuned = {"navigation": EVERY_FIELD.navigation, "composition_weights": EVERY_FIELD.composition_weights}
    for folder, own in (("first", model), ("second", None)):
        saved = DiffusionWorldModel.load(tmp_path / "first") if own is None else own
        save_model(saved, tmp_path / folder, storage="float32")
        found = leaves(read_config(tmp_path / folder))
        assert {name: value for name, value in wanted.items() if found[name] != value}.keys() == {"weights_sha256"}


def test_half_precision_round_trip_is_close_and_stable(saved: Path, tmp_path: Path) -> None:
    model = DiffusionWorldModel.load(saved)
    torch.testing.assert_close(predict(model), predict(small_model()), rtol=0.05, atol=0.05)
    assert {parameter.dtype for parameter in model.base.parameters()} == {torch.float32}
    assert all(parameter.requires_grad for parameter in model.base.parameters())  # ready for fine-tuning
    assert not model.base.training
    assert not model.autoencoder.training
    model.save(tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (saved / "model.safetensors").read_bytes()


def test_saving_over_a_model_keeps_its_card(folder: Path) -> None:
    small_model(seed=1).save(folder)
    assert (folder / "card.md").read_text() == "# small\n"
    torch.testing.assert_close(predict(DiffusionWorldModel.load(folder)), predict(small_model(1)), rtol=0.1, atol=0.1)
    assert sorted(path.name for path in folder.iterdir()) == ["card.md", "config.yaml", "model.safetensors"]


def test_a_save_cut_off_between_its_files_is_noticed(saved: Path, folder: Path) -> None:
    small_model(seed=1).save(folder)
    shutil.copy(saved / "config.yaml", folder / "config.yaml")
    with pytest.raises(CheckpointError, match="the two files are not of one save"):
        DiffusionWorldModel.load(folder)


def test_parameters_are_counted_from_the_header(saved: Path) -> None:
    model = small_model()
    parts = (model.base.model, model.autoencoder)
    assert count_parameters(saved / "model.safetensors") == sum(p.numel() for part in parts for p in part.parameters())


def test_unwritable_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        small_model().save(tmp_path / "file" / "model")


# -- broken folders ----------------------------------------------------------------------------------------------------


def failure(path: Path) -> str:
    with pytest.raises((CheckpointError, ConfigError)) as caught:
        DiffusionWorldModel.load(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_missing_folder_suggests_its_neighbour(folder: Path) -> None:
    assert failure(folder.parent / "smal").endswith("no such model folder; did you mean 'small'?")
    assert failure(folder.parent / "x" / "y").endswith("'come-nav models list' shows the known ones")


def test_folder_without_a_model_or_files_in_one(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "not a model folder, it has no config.yaml" in failure(tmp_path / "empty")
    assert "give the model's folder" in failure(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    assert failure(folder).endswith("model.safetensors: file is missing; copy the model again")


@pytest.mark.parametrize("keep", [0, 5, 100, 0.5, -1])
def test_truncated_weights(folder: Path, keep: float) -> None:
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    size = int(keep * len(content)) if isinstance(keep, float) else keep if keep >= 0 else len(content) - 1
    weights.write_bytes(content[:size])
    message = failure(folder)
    assert "cut short" in message
    assert str(size) in message


def test_changed_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-100] ^= 1
    weights.write_bytes(content)
    assert "sha256" in failure(folder)


def test_tensors_that_do_not_fit_are_named(folder: Path) -> None:
    name = "base.blocks.1.mlp.fc1.weight"
    edit_weights(folder, lambda tensors: tensors.update({name: tensors[name][:-1].contiguous()}))
    assert f"tensor '{name}' must have shape (96, 24) for small/config.yaml, got (95, 24)" in failure(folder)
    edit_weights(folder, lambda tensors: tensors.pop(name))
    assert f"tensor '{name}' is missing" in failure(folder)


def test_surplus_and_broken_tensors_are_named(folder: Path) -> None:
    edit_weights(folder, lambda tensors: tensors.update(stray=torch.zeros(1)))
    assert "tensor 'stray' is not part of the model" in failure(folder)
    edit_weights(folder, lambda tensors: (tensors.pop("stray"), tensors["base.pos_embed"].fill_(float("nan"))))
    assert "tensor 'base.pos_embed' holds NaN" in failure(folder)


def test_config_of_another_shape(folder: Path) -> None:
    edit_config(folder, lambda config: config["expert"]["network"].update(depth=3))
    assert "tensor 'base.blocks.2" in failure(folder)
    edit_config(folder, lambda config: config["expert"]["network"].update(input_size=8))
    assert "config.yaml: expert.network must take the autoencoder's 4 channels of 4x4 latents" in failure(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda config: config.update(formt="x"), "unknown key 'formt'; did you mean 'format'?"),
        (lambda config: config.update(format="come_nav world model 9"), "format must be 'come_nav world model 1'"),
        (lambda config: config["sampler"].update(steps=0), "sampler.steps must be >= 1, got 0"),
        (lambda config: config["sampler"].update(name="euler"), "sampler.name must be one of ddpm, ddim, dpm++"),
        (lambda config: config["expert"].update(normalizer=3), "expert.normalizer must be a mapping"),
    ],
)
def test_mistakes_in_the_config_name_file_and_key(folder: Path, change, words: str) -> None:
    edit_config(folder, change)
    message = failure(folder)
    assert message.startswith(f"{folder / 'config.yaml'}: ")
    assert words in message


class _Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_pickles_are_refused_without_running_their_code(folder: Path, tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    content = pickle.dumps({"ema": _Trap(trap)})
    for name in ("model.pt", "cdit_b_100000.pth.tar", "last.ckpt"):
        (tmp_path / name).write_bytes(content)
        assert "pickle files may run code" in failure(tmp_path / name)
    (folder / "model.safetensors").write_bytes(content)  # and one that hides under the other name
    assert "not a safetensors file" in failure(folder)
    assert not trap.exists()
    pickle.loads(content)
    assert trap.exists()  # the trap works


def test_config_alone_can_be_read(saved: Path) -> None:
    config = read_config(saved)
    assert isinstance(config, WorldModelSettings)
    assert config.expert.network.context_size == 3
    assert config.expert.prediction == "v"
