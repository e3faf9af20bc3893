"""One package for pip and for colcon: what is declared agrees, and what is built holds what it must."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from come_nav import __version__

ROOT = Path(__file__).resolve().parents[1]
ROSDEP_NAMES = {"opencv-python": "python3-opencv", "pillow": "python3-pil", "pyyaml": "python3-yaml"}
MODULE_NAMES = {
    "opencv-python": "cv2",
    "rerun-sdk": "rerun",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "backports-zstd": "backports",
}
BUNDLED = {"lightning_fabric"}  # a second package in the wheel of pytorch-lightning
OF_ROS = {"ament_index_python"}  # the package index of a ROS installation
WITH_TORCH = {"triton"}  # comes with torch for CUDA; where it is missing, tensors do its work
WITH_NUMBA = {"llvmlite"}  # its own compiler; only the process that makes machine code imports it


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def declared() -> dict:
    """What setup.py hands to setuptools."""
    program = (
        "import json, setuptools\n"
        "setuptools.setup = lambda **words: print(json.dumps(words))\n"
        "exec(compile(open('setup.py').read(), 'setup.py', 'exec'))\n"
    )
    import json

    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def manifest() -> ElementTree.Element:
    return ElementTree.parse(ROOT / "package.xml").getroot()


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.partition(";")[0].strip().split("==") for line in lines if line and not line.startswith("#"))


def test_one_version_and_one_name_everywhere(declared, manifest):
    assert declared["version"] == manifest.findtext("version") == __version__
    assert declared["name"] == manifest.findtext("name") == "come_nav"
    assert declared["license"] == manifest.findtext("license") == "Apache-2.0"
    assert f"[{__version__}]" in (changelog := (ROOT / "CHANGELOG.md").read_text()) or "[Unreleased]" in changelog


def test_manifest_is_an_ament_python_package(manifest):
    assert manifest.get("format") == "3"
    assert manifest.findtext("export/build_type") == "ament_python"
    keys = [element.text for element in manifest if element.tag.endswith("depend")]
    assert len(keys) == len(set(keys))


def test_every_library_of_the_base_install_has_its_rosdep_key(declared, manifest):
    keys = {element.text for element in manifest.iter("exec_depend")}
    for text in declared["install_requires"]:
        name = normalised(Requirement(text).name)
        key = ROSDEP_NAMES.get(name, f"python3-{name}")
        assert key in keys or f"{key}-pip" in keys, f"{name} is missing in package.xml"


def test_keys_that_rosdep_does_not_know_are_defined_here(manifest):
    import yaml

    own = yaml.safe_load((ROOT / "resource" / "rosdep.yaml").read_text())
    keys = {element.text for element in manifest if element.tag.endswith("depend")}
    assert set(own) <= keys, "resource/rosdep.yaml defines a key that nothing asks for"
    assert all(entry["*"]["pip"]["packages"] for entry in own.values())


def imported_libraries(*folders: Path) -> set[str]:
    """Return the top-level third-party modules that the sources import, wherever in the file."""
    names = set()
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - {"come_nav"}


def modules_of(requirements: list[str]) -> set[str]:
    names = [normalised(Requirement(text).name) for text in requirements]
    return {MODULE_NAMES.get(name, name.replace("-", "_")) for name in names}


def test_the_base_install_declares_what_is_imported_and_nothing_else(declared):
    rooms = [path for path in (ROOT / "come_nav").iterdir() if path.name not in ("ros", "training", "__pycache__")]
    base = modules_of(declared["install_requires"])
    assert imported_libraries(*rooms) - WITH_TORCH - WITH_NUMBA == base


def test_training_needs_its_extra_and_no_more(declared):
    base, train = modules_of(declared["install_requires"]), modules_of(declared["extras_require"]["train"])
    assert imported_libraries(ROOT / "come_nav" / "training") - base - BUNDLED == train


def libraries_imported_by_name(*folders: Path) -> set[str]:
    """Return the top-level third-party modules that the sources ask importlib for, by a literal name."""
    names = set()
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "importlib.import_module":
                literal = node.args[0].value if isinstance(node.args[0], ast.Constant) else ""
                names |= {str(literal).partition(".")[0]} - {""}
    return names - set(sys.stdlib_module_names) - {"come_nav"}


BY_HAND = {"memory_maze"}  # needs versions of MuJoCo that fit nothing else here; its error says which


def test_what_is_imported_only_where_it_is_installed_is_declared_by_an_extra(declared):
    rooms = [path for path in (ROOT / "come_nav").iterdir() if path.name not in ("ros", "__pycache__")]
    optional = libraries_imported_by_name(*rooms) - OF_ROS - BY_HAND
    assert {"kornia", "onnxruntime", "av", "rerun"} <= optional
    extras = {
        name: modules_of(texts) for name, texts in declared["extras_require"].items() if name not in ("test", "ros")
    }
    assert optional <= set.union(*extras.values())
    assert extras["learned"] == {"kornia", "onnxruntime"}


def test_learned_features_bring_no_torchvision(declared):
    """kornia is pure Python over torch; a torchvision of another torch would break other parts."""
    kornia = pytest.importorskip("kornia", reason="needs the extra [learned]")
    from importlib import metadata

    assert kornia.__version__ == metadata.version("kornia")
    needed = [Requirement(text) for text in metadata.requires("kornia") or []]
    always = {normalised(own.name) for own in needed if own.marker is None or own.marker.evaluate({"extra": ""})}
    assert always <= {"kornia-rs", "numpy", "packaging", "torch"}


def test_constraints_pin_every_direct_requirement_within_its_bound(declared, pins):
    extras = declared["extras_require"]
    wanted = declared["install_requires"] + extras["train"] + extras["test"] + extras["learned"]
    names = {normalised(name): version for name, version in pins.items()}
    for text in wanted:
        requirement = Requirement(text)
        assert normalised(requirement.name) in names, f"{requirement.name} has no pin: make constraints"
        assert requirement.specifier.contains(names[normalised(requirement.name)]), text


def test_constraints_hold_only_plain_pins(pins):
    text = (ROOT / "constraints.txt").read_text()
    assert "://" not in text
    assert "come-nav" not in {normalised(name) for name in pins}
    for version in pins.values():
        assert Version(version).local is None, "local builds such as +cpu exist only on some machines"


def test_extras_are_those_of_the_documentation(declared):
    assert set(declared["extras_require"]) == {
        "habitat",
        "learned",
        "perceptual",
        "rerun",
        "ros",
        "test",
        "train",
        "video",
    }


def test_markers_and_wrappers_exist():
    assert (ROOT / "resource" / "come_nav").is_file()
    wrappers = [path for path in (ROOT / "scripts").iterdir() if path.is_file() and not path.suffix]
    assert wrappers
    for wrapper in wrappers:
        assert os.access(wrapper, os.X_OK), f"{wrapper.name} must be executable"
        assert wrapper.read_text().startswith("#!/usr/bin/env python3\n")


def test_wrapper_runs_the_command_line():
    result = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "come-nav"), "--version"], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == f"come-nav {__version__}"


def test_pyproject_has_tool_sections_only():
    text = (ROOT / "pyproject.toml").read_text()
    assert not re.search(r"^\[project", text, flags=re.MULTILINE), "a [project] table would override setup.py"


def test_data_files_hold_every_tree(declared):
    targets = dict(declared["data_files"])
    assert targets["share/ament_index/resource_index/packages"] == ["resource/come_nav"]
    assert targets["share/come_nav"] == ["package.xml"]
    assert "scripts/come-nav" in targets["lib/come_nav"]
    for folder in ("config", "launch", "models"):
        for path in (ROOT / folder).rglob("*"):
            relative = path.relative_to(ROOT)
            if path.is_file() and not any(part.startswith((".", "__")) for part in relative.parts):
                assert relative.as_posix() in targets[f"share/come_nav/{relative.parent.as_posix()}"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """A wheel built in a copy, without the network."""
    pytest.importorskip("setuptools")
    source = tmp_path_factory.mktemp("source") / "come_nav"
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if names.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, names.stdout.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    out = source / "dist"
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(out), "."]
    result = subprocess.run(build, cwd=source, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def test_wheel_installs_like_an_ament_package(wheel):
    names = [name.partition(".data/data/")[2] or name for name in wheel.namelist()]
    assert "share/ament_index/resource_index/packages/come_nav" in names
    assert "share/come_nav/package.xml" in names
    assert "come_nav/core/types.py" in names
    assert "come_nav/py.typed" in names
    for folder in ("config", "models"):
        tracked = subprocess.run(["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True, check=True)
        for name in tracked.stdout.splitlines():
            assert f"share/come_nav/{name}" in names
    assert not [name for name in names if name.startswith(("test/", "benchmarks/"))]


def test_wheel_keeps_the_wrapper_executable(wheel):
    (entry,) = [info for info in wheel.infolist() if info.filename.endswith("lib/come_nav/come-nav")]
    assert (entry.external_attr >> 16) & 0o111


def test_wheel_declares_command_and_requirements(wheel):
    (metadata_name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    text = wheel.read(metadata_name).decode()
    assert re.search(r"^Requires-Dist: torch", text, flags=re.MULTILINE)
    (entry_points,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "come-nav = come_nav.cli.main:main" in wheel.read(entry_points).decode()


def test_makefile_knows_the_documented_targets():
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    listing = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("demo", "test", "lint", "bench", "clean", "install"):
        assert f"make {target}" in listing


@pytest.mark.parametrize("script", [".ci/run", ".ci/install"])
def test_shell_scripts_parse_and_are_executable(script):
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True)


def test_an_unsuitable_interpreter_is_refused_in_one_line():
    environment = {**os.environ, "PYTHON": "/no/such/python"}
    result = subprocess.run(
        [str(ROOT / ".ci" / "install")], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stderr.startswith("install: /no/such/python is not Python 3.10 to 3.13; ")
    assert len(result.stderr.splitlines()) == 1
