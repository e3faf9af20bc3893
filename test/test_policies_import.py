"""Official checkpoints of GNM, ViNT and NoMaD: files in their layout are read, and what would run code is refused."""

from __future__ import annotations

import copy
import os
import pickle
import sys
import types
import zipfile

import pytest
import torch
from policy_samples import fill, images
from torch import nn

from come_nav.cli.main import main
from come_nav.core.errors import CheckpointError, StorageError
from come_nav.core.pickled_modules import load_state_dict
from come_nav.policies.importer import import_policy, is_policy_checkpoint
from come_nav.policies.model import LearnedPolicy, make_network
from come_nav.policies.settings import published

SMALL = {
    "gnm": published("gnm", context_size=1, encoding_size=32, waypoints=3),
    "vint": published("vint", context_size=1, encoding_size=32, layers=1, ff_factor=2),
    "nomad": published("nomad", context_size=1, encoding_size=32, layers=1, ff_factor=2, down_dims=(8, 16)),
}


class Attack:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.fixture(scope="module")
def networks():
    return {kind: fill(make_network(settings)) for kind, settings in SMALL.items()}


@pytest.fixture
def official_class():
    """Return what makes an object of a class that only the official package has; the package goes away afterwards."""
    names = ["vint_train", "vint_train.models", "vint_train.models.vint", "vint_train.models.vint.vint"]
    modules = {name: types.ModuleType(name) for name in names}
    kind = type("ViNT", (nn.Module,), {"__module__": names[-1], "__qualname__": "ViNT"})
    modules[names[-1]].ViNT = kind
    sys.modules.update(modules)
    yield lambda network: _as_official(kind, network)
    for name in names:
        sys.modules.pop(name, None)


def _as_official(kind, network):
    """Return the same tree of tensors, with an official class in place of each of ours."""
    if not type(network).__module__.startswith("come_nav"):
        for name, child in network.named_children():
            network._modules[name] = _as_official(kind, child)
        return network
    made = kind()
    for group in ("_parameters", "_buffers"):
        getattr(made, group).update(getattr(network, group))
    for name, child in network.named_children():
        made.add_module(name, _as_official(kind, child))
    made.settings, made.activation = 7, torch.nn.functional.gelu
    return made


def forget_official():
    for name in [name for name in sys.modules if name.startswith("vint_train")]:
        del sys.modules[name]


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_state_dict_is_imported_and_answers_as_before(tmp_path, networks, kind, wrapped):
    state = networks[kind].state_dict()
    torch.save({f"module.{name}": t for name, t in state.items()} if wrapped else state, tmp_path / "file.pth")
    assert is_policy_checkpoint(tmp_path / "file.pth")
    import_policy(tmp_path / "file.pth", tmp_path / "out")
    policy = LearnedPolicy.load(tmp_path / "out")
    assert policy.settings == SMALL[kind]
    for name, tensor in policy.network.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert "arXiv 2" in (tmp_path / "out" / "card.md").read_text()


@pytest.mark.parametrize("parallel", [False, True])
def test_a_pickled_network_is_read_without_its_package(tmp_path, networks, official_class, parallel):
    network = networks["vint"]
    whole = official_class(copy.deepcopy(network))
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4)
    seen = images(1, 2, 64, 85, "seen"), images(1, 1, 64, 85, "goal")
    network(*seen)[0].sum().backward()
    optimiser.step()
    whole.load_state_dict(fill(network).state_dict())
    content = {"epoch": 3, "model": nn.DataParallel(whole) if parallel else whole, "optimizer": optimiser}
    torch.save(content | {"avg_total_test_loss": torch.ones(1).double().mean().numpy()[()]}, tmp_path / "vint.pth")
    forget_official()
    with pytest.raises(ModuleNotFoundError):
        torch.load(tmp_path / "vint.pth", weights_only=False)
    found = load_state_dict(tmp_path / "vint.pth")
    assert "vint_train" not in sys.modules
    wanted = network.state_dict()
    assert list(found) == list(wanted)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    policy = import_policy(tmp_path / "vint.pth", tmp_path / "out")
    with torch.no_grad():
        assert torch.equal(policy.network(*seen)[1], network(*seen)[1])


@pytest.mark.parametrize("where", ["beside", "state", "attribute"])
def test_a_pickle_that_calls_anything_is_refused_and_nothing_runs(tmp_path, monkeypatch, networks, where):
    monkeypatch.chdir(tmp_path)
    attack = Attack(os.system, "touch OWNED")
    state = networks["gnm"].state_dict()
    network = nn.Sequential(nn.Linear(2, 2))
    network.hook = attack
    content = {
        "beside": {"model": state, "optimizer": attack},
        "state": state | {"obs_mobilenet.evil": attack},
        "attribute": {"model": network},
    }[where]
    torch.save(content, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match=r"evil.pth: refused: its pickle names (posix|nt)\.system"):
        load_state_dict(tmp_path / "evil.pth")
    assert not (tmp_path / "OWNED").exists()


@pytest.mark.parametrize(
    "attack",
    [
        Attack(torch.load, "other.pth"),
        Attack(torch.nn.Linear, 2, 2),
        Attack(getattr, nn.Linear(2, 2), "weight"),
        Attack(eval, "1 + 1"),
    ],
)
def test_functions_of_known_packages_are_refused_too(tmp_path, attack):
    torch.save({"model": {"x": attack}}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="refused: its pickle"):
        load_state_dict(tmp_path / "evil.pth")


def rewritten(source, target, change):
    """Copy a file of torch.save with another pickle."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(old.read(name)) if name.endswith("data.pkl") else old.read(name))


def test_damaged_and_forged_files_are_one_line_each(tmp_path, networks):
    torch.save(networks["gnm"].state_dict(), tmp_path / "good.pth")
    data = (tmp_path / "good.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(data[: len(data) // 2])
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"model": 1}))
    rewritten(tmp_path / "good.pth", tmp_path / "half.pth", lambda content: content[: len(content) // 2])
    torch.save({"x": torch.zeros(4)}, tmp_path / "four.pth")
    # BININT1 4 is the storage's length, and the size and offset that follow are numbers of one byte as well
    rewritten(
        tmp_path / "four.pth", tmp_path / "beyond.pth", lambda content: content.replace(b"K\x04\x85", b"K\x09\x85")
    )
    torch.save({"epoch": 3, "lr": 0.1}, tmp_path / "none.pth")
    refusals = {
        "cut": "no whole zip file",
        "plain": "no whole zip file",
        "half": "cannot be read",
        "beyond": "reaches beyond its 4 numbers",
        "none": "holds no network; its keys are epoch, lr",
        "absent": "no such file",
    }
    for name, words in refusals.items():
        with pytest.raises(CheckpointError) as caught:
            load_state_dict(tmp_path / f"{name}.pth")
        assert words in str(caught.value), name
        assert "\n" not in str(caught.value)


def test_networks_that_do_not_fit_are_refused_by_the_tensor(tmp_path, networks):
    state = networks["nomad"].state_dict()
    name = "noise_pred_net.final_conv.1.weight"
    torch.save({key: tensor for key, tensor in state.items() if key != name}, tmp_path / "missing.pth")
    torch.save(state | {name: torch.full_like(state[name], torch.nan)}, tmp_path / "nan.pth")
    torch.save(state | {name: state[name][:1]}, tmp_path / "shape.pth")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    for file, words in {"missing": f"without tensor '{name}'", "nan": "NaN", "shape": "shape", "other": "none"}.items():
        with pytest.raises(CheckpointError) as caught:
            import_policy(tmp_path / f"{file}.pth", tmp_path / "out")
        assert words in str(caught.value) or file == "other"
        assert not (tmp_path / "out").exists()
    torch.save(state, tmp_path / "good.pth")
    import_policy(tmp_path / "good.pth", tmp_path / "out")
    with pytest.raises(StorageError, match="--overwrite"):
        import_policy(tmp_path / "good.pth", tmp_path / "out")


def test_the_command_line_imports_lists_and_verifies(tmp_path, monkeypatch, capsys, networks):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    torch.save(networks["nomad"].state_dict(), tmp_path / "nomad.pth")
    assert main(["models", "import", str(tmp_path / "nomad.pth"), "--spacing", "0.15"]) == 0
    assert "planner.proposals=nomad" in capsys.readouterr().out
    assert main(["models", "verify", "nomad"]) == 0
    assert main(["models", "info", "nomad", "--json"]) == 0
    assert '"spacing_m": 0.15' in capsys.readouterr().out
    assert main(["models", "list"]) == 0
    assert "nomad" in capsys.readouterr().out
    words = ["models", "import", str(tmp_path / "nomad.pth"), "--name", "scand"]
    assert main([*words, "--dataset", "scand"]) == 0
    assert "a spacing is 0.38 m" in capsys.readouterr().out
    assert main([*words, "--overwrite", "--storage", "float16", "--size", "XL"]) == 1
    assert "--size, --storage: for checkpoints of NWM" in capsys.readouterr().err
    assert main(["plan", "nowhere", "--at", "1", "--model", "nomad"]) == 1
