"""Official checkpoints become model folders; every way in which a file can be wrong is one line."""

from __future__ import annotations

import argparse
import hashlib
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_experts_cdit import randomised
from torch import Tensor

from come_nav.cli.main import main
from come_nav.core.errors import CheckpointError, StorageError
from come_nav.experts.cdit import CDIT_SIZES, CDiT
from come_nav.experts.normalizer import Normalizer
from come_nav.world_model.files import hub
from come_nav.world_model.files.zoo import ZooEntry
from come_nav.world_model.inference_settings import InferenceSettings
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.nwm.importer import ImportSettings, import_checkpoint
from come_nav.world_model.nwm.official_checkpoint import OfficialCheckpoint, network_settings, open_checkpoint
from come_nav.world_model.nwm.weights_stream import write_weights
from come_nav.world_model.sampling.settings import SamplerSettings

NETWORK = {"input_size": 4, "context_size": 4, "hidden_size": 24, "depth": 2, "num_heads": 3}


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small AutoencoderKL of the class that NWM uses, in diffusers' own layout."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    folder = tmp_path_factory.mktemp("vae") / "small"
    levels = 4
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoencoderKL(
            block_out_channels=(8,) * levels,
            norm_num_groups=4,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            latent_channels=4,
            layers_per_block=1,
        ).save_pretrained(folder)
    return folder


def official(seed: int = 0, **content: object) -> dict[str, object]:
    """What NWM's training writes, with weights of a small network."""
    ema = dict(randomised(seed, **NETWORK).state_dict())
    model = {f"_orig_mod.{name}": tensor + 1.0 for name, tensor in ema.items()}
    args = argparse.Namespace(config="config/nwm_cdit_s.yaml", epochs=300, bfloat16=1, out=Path("logs"))
    opt = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 8e-5}]}
    whole = {"model": model, "ema": ema, "opt": opt, "args": args, "epoch": 7, "train_steps": np.int64(100_000)}
    return {**whole, **content}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "cdit_tiny.pth.tar"
    torch.save(official(), path)
    return path


def options(vae: Path, **words: object) -> ImportSettings:
    return ImportSettings(heads=3, autoencoder=str(vae), **words)  # type: ignore[arg-type]


def refusal(path: Path, vae: Path, **words: object) -> str:
    with pytest.raises(CheckpointError) as caught:
        import_checkpoint(path, path.parent / "out", options(vae, **words))
    assert not (path.parent / "out" / "config.yaml").exists()
    message = str(caught.value)
    assert "\n" not in message
    return message


# -- what comes out ----------------------------------------------------------------------------------------------------


def test_the_folder_loads_with_the_official_weights_and_settings(checkpoint: Path, vae: Path, tmp_path: Path) -> None:
    folder = tmp_path / "nwm"
    config = import_checkpoint(checkpoint, folder, options(vae, spacing_m=0.38))
    model = DiffusionWorldModel.load(folder)
    expected = official()["ema"]
    assert isinstance(expected, dict)
    for name, tensor in model.base.model.state_dict().items():
        assert torch.equal(tensor, expected[name])
    assert (model.image_size, model.context_frames, model.rate_hz) == (32, 4, 4.0)
    assert model.sampler == SamplerSettings("ddpm", 250, spacing="even")
    assert model.base.normalizer == Normalizer.nwm(0.38)
    assert model.base.prediction == "eps"
    assert model.autoencoder.scaling_factor == 0.18215
    assert (model.images.crop, model.images.aspect) == ("nwm", 4 / 3)
    assert config.weights_sha256 == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    card = (folder / "card.md").read_text()
    assert "CC BY-NC 4.0" in card
    assert "https://huggingface.co/facebook/nwm, file cdit_tiny.pth.tar, weights 'ema'" in card


def test_latents_and_images_are_those_of_diffusers(checkpoint: Path, vae: Path, tmp_path: Path) -> None:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    import_checkpoint(checkpoint, tmp_path / "nwm", options(vae))
    model = DiffusionWorldModel.load(tmp_path / "nwm")
    model.inference = InferenceSettings(precision="float32")
    theirs = AutoencoderKL.from_pretrained(vae).eval()
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        sampled = theirs.encode(images).latent_dist.sample(torch.Generator().manual_seed(5)) * 0.18215
        decoded = theirs.decode(sampled / 0.18215).sample.clamp(-1, 1)
    found = model.encode(images, torch.Generator().manual_seed(5))
    torch.testing.assert_close(found, sampled, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model.decode(found), decoded, rtol=1e-4, atol=1e-5)


def test_a_prediction_uses_the_learned_variance(checkpoint: Path, vae: Path, tmp_path: Path) -> None:
    import_checkpoint(checkpoint, tmp_path / "nwm", options(vae))
    model = DiffusionWorldModel.load(tmp_path / "nwm")
    assert model.base.model.settings.learn_sigma
    model.inference = InferenceSettings(precision="float32")
    model.sampler = SamplerSettings("ddpm", 3, spacing="even")
    context = model.context_from_images(torch.zeros(4, 3, 32, 32), torch.zeros(4, 3))

    def draw() -> Tensor:
        return model.predict(context, torch.zeros(1, 3), torch.ones(1), torch.Generator().manual_seed(0))

    before = draw()
    model.base.model.final_layer.linear.bias.data.view(2, 2, 8)[..., 4:] += 5.0  # the variance values alone
    assert not torch.allclose(before, draw())


def test_model_weights_lose_their_compile_prefix(checkpoint: Path, vae: Path, tmp_path: Path) -> None:
    found = open_checkpoint(checkpoint, "model").tensors
    assert set(found) == set(open_checkpoint(checkpoint).tensors)
    torch.testing.assert_close(found["pos_embed"], open_checkpoint(checkpoint).tensors["pos_embed"] + 1.0)
    import_checkpoint(checkpoint, tmp_path / "m", options(vae, weights="model"))
    assert "weights 'model'" in (tmp_path / "m" / "card.md").read_text()


def test_bare_state_dicts_and_files_without_ema_are_read(tmp_path: Path) -> None:
    state = official()["ema"]
    torch.save(state, tmp_path / "bare.pth")
    torch.save({"model": state}, tmp_path / "model.pth")
    assert open_checkpoint(tmp_path / "bare.pth").weights == "bare"
    assert open_checkpoint(tmp_path / "model.pth").weights == "model"
    with pytest.raises(CheckpointError, match="has no 'ema' weights; it holds model"):
        open_checkpoint(tmp_path / "model.pth", "ema")


@pytest.mark.parametrize("storage", ["float32", "float16", "bfloat16"])
def test_storage_types(checkpoint: Path, vae: Path, tmp_path: Path, storage: str) -> None:
    import_checkpoint(checkpoint, tmp_path / "nwm", options(vae, storage=storage))
    tensors = load_file(tmp_path / "nwm" / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {getattr(torch, storage)}
    DiffusionWorldModel.load(tmp_path / "nwm")


def test_the_published_sizes_tell_their_heads() -> None:
    for size, shape in CDIT_SIZES.items():
        with torch.device("meta"):
            tensors = dict(CDiT(**shape).state_dict())
        settings = network_settings(OfficialCheckpoint(Path("x"), "ema", tensors, {}))
        assert settings.num_heads == shape["num_heads"], size
        assert (settings.input_size, settings.context_size, settings.mlp_ratio) == (28, 4, 4.0)


@given(
    heads=st.integers(1, 4),
    head_width=st.integers(3, 11),
    inner=st.integers(1, 200),
    patch=st.integers(1, 3),
    grid=st.integers(1, 4),
    frames=st.integers(1, 6),
    channels=st.integers(1, 6),
    learn_sigma=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_the_shape_of_any_network_is_told_from_its_tensors(
    heads: int, head_width: int, inner: int, patch: int, grid: int, frames: int, channels: int, learn_sigma: bool
) -> None:
    width = heads * head_width
    with torch.device("meta"):
        network = CDiT(grid * patch, frames, patch, channels, width, 2, heads, (inner + 0.5) / width, learn_sigma)
    found = network_settings(OfficialCheckpoint(Path("x"), "ema", dict(network.state_dict()), {}), heads=heads)
    assert replace(found, mlp_ratio=1.0) == replace(network.settings, mlp_ratio=1.0)
    assert int(width * found.mlp_ratio) == inner


def test_an_inner_width_that_rounding_would_miss_is_kept() -> None:
    with torch.device("meta"):
        tensors = dict(CDiT(4, hidden_size=25, depth=1, num_heads=5, mlp_ratio=116.5 / 25).state_dict())
    assert int(25 * (116 / 25)) == 115  # what the plain ratio would give
    network_settings(OfficialCheckpoint(Path("x"), "ema", tensors, {}), heads=5)
    with pytest.raises(CheckpointError, match=r"but cdit\.hidden_size must be a multiple of num_heads 7, got 25"):
        network_settings(OfficialCheckpoint(Path("x"), "ema", tensors, {}), heads=7)


def anonymous_bytes() -> int:
    """Memory of this process that no file backs: mapped checkpoints do not count."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory of the process from /proc")
def test_memory_is_bounded_by_the_largest_tensor_not_by_the_file(tmp_path: Path) -> None:
    pieces, piece_bytes = 40, 4 * 2**20
    torch.save({"ema": {f"t{i}": torch.ones(piece_bytes // 4) for i in range(pieces)}}, tmp_path / "big.pth")
    tensors = open_checkpoint(tmp_path / "big.pth").tensors
    before, peak = anonymous_bytes(), 0

    def watch(_: int) -> None:
        nonlocal peak
        peak = max(peak, anonymous_bytes())

    write_weights(tmp_path / "big.safetensors", tensors, torch.float16, {}, watch)
    assert (tmp_path / "big.safetensors").stat().st_size > pieces * piece_bytes / 2
    assert peak - before < 6 * piece_bytes


def test_the_stream_writes_what_safetensors_reads(tmp_path: Path) -> None:
    tensors = {
        "half": torch.arange(6.0).reshape(2, 3),
        "whole": torch.tensor([[1], [2]]),
        "turned": torch.arange(6.0).reshape(2, 3).T,
        "scalar": torch.tensor(2.5, dtype=torch.float64),
    }
    digest = write_weights(tmp_path / "w.safetensors", tensors, torch.float32, {"format": "x"})
    assert digest == hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest()
    found = load_file(tmp_path / "w.safetensors")
    for name, tensor in tensors.items():
        expected = tensor.float() if tensor.is_floating_point() else tensor
        assert found[name].dtype == expected.dtype
        assert torch.equal(found[name], expected)


# -- what is refused ---------------------------------------------------------------------------------------------------


class Attack:
    def __init__(self, function, *arguments) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("place", ["args", "ema"])
def test_a_pickle_that_carries_code_is_refused_unread(tmp_path: Path, vae: Path, monkeypatch, place: str) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(official(**{place: Attack(os.system, "touch OWNED")}), tmp_path / "evil.pth.tar")
    assert "refused, its pickle wants to call posix.system" in refusal(tmp_path / "evil.pth.tar", vae)
    (tmp_path / "plain.pth.tar").write_bytes(pickle.dumps(Attack(os.system, "touch OWNED")))
    assert "refused, it is a pickle or an old format" in refusal(tmp_path / "plain.pth.tar", vae)
    assert not (tmp_path / "OWNED").exists()


class Forged:
    def __init__(self, *reduced: object) -> None:
        self.reduced = reduced

    def __reduce__(self) -> tuple[object, ...]:
        return self.reduced


def test_a_forged_element_type_is_not_believed(tmp_path: Path) -> None:
    """numpy's own dtype takes its flags from the file: with that of references, numbers become addresses."""
    double = Forged(np.dtype, ("f8", False, True), (3, "<", None, None, None, -1, -1, 1))
    scalar = np.float64(0).__reduce__()[0]
    torch.save(official(train_steps=Forged(scalar, (double, b"A" * 8))), tmp_path / "flags.pth.tar")
    assert set(open_checkpoint(tmp_path / "flags.pth.tar").tensors) == set(official()["ema"])  # type: ignore[call-overload]
    record = Forged(np.dtype, ("V8", False, True), (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 27))
    for kind in (record, np.dtype("O")):
        torch.save(official(train_steps=Forged(scalar, (kind, b"A" * 8))), tmp_path / "objects.pth.tar")
        with pytest.raises(CheckpointError, match=r"cannot be read as a checkpoint \(refused: "):
            open_checkpoint(tmp_path / "objects.pth.tar")


@pytest.mark.parametrize("kept", [0.999, 0.5, 0.01])
def test_a_truncated_file_is_told(checkpoint: Path, vae: Path, kept: float) -> None:
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: int(len(whole) * kept)])
    assert f"cut short after {int(len(whole) * kept)} bytes" in refusal(checkpoint, vae)


def test_files_that_are_no_checkpoint_are_told(tmp_path: Path, vae: Path) -> None:
    assert "no such file; give the downloaded checkpoint" in refusal(tmp_path / "absent.pth.tar", vae)
    (tmp_path / "text.pth.tar").write_text("<html>sign in</html>")
    assert "refused, it is no torch checkpoint" in refusal(tmp_path / "text.pth.tar", vae)
    torch.save([1, 2], tmp_path / "list.pth.tar")
    assert "holds a list, not the dict" in refusal(tmp_path / "list.pth.tar", vae)
    torch.save({"state": 1}, tmp_path / "other.pth.tar")
    assert "holds no weights under 'ema' or 'model'; its keys are state" in refusal(tmp_path / "other.pth.tar", vae)


def test_another_size_than_asked_for_is_told(checkpoint: Path, vae: Path) -> None:
    message = refusal(checkpoint, vae, size="XL")
    assert "is a CDiT with depth 2 and width 24, not the CDiT-XL that was asked for" in message
    with pytest.raises(CheckpointError, match="none of the published S, B, L, XL; tell its heads with --heads"):
        network_settings(open_checkpoint(checkpoint))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("blocks.1.cttn.bias_k"), "tensor 'blocks.1.cttn.bias_k' is missing"),
        (lambda state: state.update(extra=torch.zeros(1)), "tensor 'extra' is not part of a CDiT"),
        (
            lambda state: state.update({"blocks.0.attn.proj.bias": torch.zeros(5)}),
            r"must have shape \(24,\), got \(5,\)",
        ),
        (lambda state: state.pop("pos_embed"), "not a CDiT, tensor 'pos_embed' is missing"),
        (
            lambda state: state.update(pos_embed=torch.zeros(5, 24)),
            r"'pos_embed' must have 3 axes, its shape is \(5, 24\)",
        ),
        (
            lambda state: state.update(pos_embed=torch.zeros(5, 3, 24)),
            r"must have shape \(5, 4, 24\), got \(5, 3, 24\)",
        ),
        (lambda state: state.update(pos_embed=torch.zeros(1, 4, 24)), "but cdit.context_size must be"),
        (lambda state: state.update({"blocks.x": torch.zeros(1)}), "tensor 'blocks.2.attn.qkv.weight' is missing"),
        (lambda state: state["pos_embed"].fill_(torch.nan), "'base.pos_embed' holds NaN or infinite values"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path: Path, vae: Path, change, words: str) -> None:
    content = official()
    change(content["ema"])
    torch.save(content, tmp_path / "bad.pth.tar")
    with pytest.raises(CheckpointError, match=words):
        import_checkpoint(tmp_path / "bad.pth.tar", tmp_path / "out", options(vae))
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_a_missing_or_strange_autoencoder_is_told(checkpoint: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    assert "config.json is missing); download stabilityai/sd-vae-ft-ema" in refusal(checkpoint, tmp_path / "empty")
    (tmp_path / "empty" / "config.json").write_text("{}")
    assert "the autoencoder cannot be loaded" in refusal(checkpoint, tmp_path / "empty")


def test_no_network_for_the_autoencoder_is_told(checkpoint: Path, monkeypatch) -> None:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    def offline(*words: object, **named: object) -> None:
        raise OSError("We couldn't connect to 'https://huggingface.co'\nto load this file")

    monkeypatch.setattr(AutoencoderKL, "from_pretrained", offline)
    message = refusal(checkpoint, Path("stabilityai/sd-vae-ft-ema"))
    assert "couldn't connect" in message
    assert "without network, download it elsewhere and name its folder instead" in message


def test_a_model_that_is_there_is_not_replaced(checkpoint: Path, vae: Path, tmp_path: Path) -> None:
    import_checkpoint(checkpoint, tmp_path / "nwm", options(vae))
    with pytest.raises(StorageError, match="holds a model already"):
        import_checkpoint(checkpoint, tmp_path / "nwm", options(vae))
    import_checkpoint(checkpoint, tmp_path / "nwm", options(vae), overwrite=True)


# -- the command line --------------------------------------------------------------------------------------------------


def test_import_puts_a_model_among_the_users_own(
    checkpoint: Path, vae: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    words = ["models", "import", str(checkpoint), "--name", "mine", "--vae", str(vae), "--heads", "3"]
    assert main(words) == 0
    assert (tmp_path / "home" / "come_nav" / "models" / "mine" / "config.yaml").is_file()
    assert main(["models", "list"]) == 0
    assert "mine" in capsys.readouterr().out
    assert main(words) == 1
    assert "holds a model already" in capsys.readouterr().err
    assert main([*words[:3], "--name", "../up", *words[5:]]) == 1
    assert "--name must be a plain word" in capsys.readouterr().err
    assert main([*words, "--dataset", "reckon", "--overwrite"]) == 1
    assert "did you mean 'recon'?" in capsys.readouterr().err


ENTRY = ZooEntry("nwm-x", source="https://huggingface.co/facebook/nwm", file="cdit_x.pth.tar", size="S", gated=True)


def failing(error: Exception):
    def call(*words: object, **named: object) -> str:
        raise error

    return call


def raised(kind: type[Exception], text: str) -> Exception:
    """An error of the hub's library without the answer of a server, which its constructor wants."""
    error = kind.__new__(kind)
    error.args = (text,)
    return error


def hub_errors() -> list[tuple[Exception, str]]:
    from huggingface_hub import errors

    return [
        (raised(errors.GatedRepoError, "restricted"), "access is gated and was refused; ask for it"),
        (raised(errors.RepositoryNotFoundError, "401"), "log in with 'hf auth login'"),
        (raised(errors.LocalEntryNotFoundError, "offline"), "no network, or the hub does not answer"),
        (raised(errors.HfHubHTTPError, "500 server\nerror"), "the hub refused the download"),
        (raised(errors.EntryNotFoundError, "404"), "holds no cdit_x.pth.tar any more"),
        (ConnectionError("name resolution"), "cannot be downloaded (name resolution); check the network"),
    ]


@pytest.mark.parametrize("case", range(6))
def test_pull_tells_why_a_file_cannot_be_had(monkeypatch, case: int) -> None:
    error, words = hub_errors()[case]
    monkeypatch.setattr("huggingface_hub.hf_hub_download", failing(error))
    with pytest.raises(CheckpointError) as caught:
        hub.download(ENTRY)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pull_checks_the_sha256(checkpoint: Path, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *words, **named: str(checkpoint))
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    known = {**ENTRY.__dict__, "sha256": digest}
    assert hub.download(ZooEntry(**known)) == checkpoint
    with pytest.raises(CheckpointError, match=r"cdit_x.pth.tar must have 000000000000\.\.\.; delete it"):
        hub.download(ZooEntry(**{**known, "sha256": "0" * 64}))


def test_pull_imports_what_it_downloaded(checkpoint: Path, vae: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    asked = []

    def give(repository: str, file: str, **named: object) -> str:
        asked.append((repository, file))
        return str(checkpoint)

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.hf_hub_download", give)
    assert main(["models", "pull", "nwm-s", "--vae", str(vae)]) == 1  # the stand-in is no CDiT-S
    assert "not the CDiT-S that was asked for" in capsys.readouterr().err
    assert asked == [("facebook/nwm", "cdit_s_100000.pth.tar")]
    assert main(["models", "pull", "tiny"]) == 1
    assert "ships with come_nav, there is nothing to download" in capsys.readouterr().err
    assert main(["models", "pull", "nwm-xxl"]) == 1
    assert "did you mean 'nwm-xl'?" in capsys.readouterr().err


def test_a_file_that_the_zoo_knows_by_name_must_be_that_file(checkpoint: Path, vae: Path, capsys) -> None:
    known = checkpoint.rename(checkpoint.parent / "cdit_b_100000.pth.tar")
    words = ["models", "import", str(known), "--name", "b", "--vae", str(vae), "--heads", "3", "--out"]
    assert main([*words, str(checkpoint.parent / "out")]) == 1
    message = capsys.readouterr().err
    assert "cdit_b_100000.pth.tar must have 2a41c71eabd2...; delete it" in message
    assert "or rename it if it is another checkpoint" in message
    assert not (checkpoint.parent / "out").exists()
    words[2] = str(known.rename(checkpoint.parent / "cdit_own.pth.tar"))
    assert main([*words, str(checkpoint.parent / "out")]) == 0
