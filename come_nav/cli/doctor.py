"""``come-nav doctor``: what this machine has, what it lacks, and the line that mends it."""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from come_nav import __version__
from come_nav.cli.output import add_json_flag, print_json
from come_nav.core.errors import ComeNavError

DISTRIBUTION = "come_nav"
# Distributions whose module has another name; apt installs the module without the distribution's metadata.
MODULES = {"opencv-python": "cv2", "pillow": "PIL", "pytest-xdist": "xdist", "pyyaml": "yaml"}
# Shared libraries that the wheels of OpenCV and Open3D load, with their Debian packages.
SHARED_LIBRARIES = {
    "libGL.so.1": "libgl1",
    "libEGL.so.1": "libegl1",
    "libX11.so.6": "libx11-6",
    "libgomp.so.1": "libgomp1",
    "libusb-1.0.so.0": "libusb-1.0-0",
    "libgthread-2.0.so.0": "libglib2.0-0",
}
FREE_DISK_GB = 2.0
Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        group: heading in the table.
        name: what was looked at.
        status: ``fail`` only where something that planning and evaluation need is broken.
        detail: what was found.
        remedy: the line that mends it, empty when nothing is to be done.
    """

    group: str
    name: str
    status: Status
    detail: str
    remedy: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``come-nav doctor``."""
    add_json_flag(parser)
    parser.add_argument(
        "--out", type=Path, default=Path("."), help="folder whose space and rights to check (default: .)"
    )


def run(args: argparse.Namespace) -> int:
    """Print all checks; return 1 if one of them failed."""
    checks = collect(args.out)
    healthy = not any(check.status == "fail" for check in checks)
    if args.json:
        print_json({"come_nav": __version__, "ok": healthy, "checks": [asdict(check) for check in checks]})
    else:
        print(format_report(checks))
    return 0 if healthy else 1


def collect(out: Path) -> list[Check]:
    """Run every check; one that raises is itself reported as failed."""
    sections: list[Callable[[], Iterator[Check]]] = [
        check_python,
        check_libraries,
        check_shared_libraries,
        check_devices,
        check_extras,
        check_ros,
        check_resources,
        lambda: check_storage(out),
    ]
    checks: list[Check] = []
    for section in sections:
        try:
            checks.extend(section())
        except Exception as error:  # a broken library may raise anything; the doctor must still finish its round
            name = getattr(section, "__name__", "check").removeprefix("check_")
            checks.append(Check("Doctor", name, "fail", f"{type(error).__name__}: {error}".splitlines()[0]))
    return checks


def format_report(checks: list[Check]) -> str:
    """Return the checks as aligned text under their groups, remedies below the lines they mend."""
    width = max(len(check.name) for check in checks)
    lines: list[str] = []
    group = ""
    for check in checks:
        if check.group != group:
            group = check.group
            lines.append(f"{group}")
        lines.append(f"  {check.status:<4}  {check.name:<{width}}  {check.detail}".rstrip())
        if check.remedy:
            lines.append(f"        {'':<{width}}  -> {check.remedy}")
    counts = {status: sum(check.status == status for check in checks) for status in ("ok", "warn", "fail")}
    verdict = "ready to plan and evaluate" if not counts["fail"] else "not ready: mend what failed"
    lines.append(f"{verdict} ({counts['ok']} ok, {counts['warn']} optional or worth a look, {counts['fail']} failed)")
    return "\n".join(lines)


def check_python() -> Iterator[Check]:
    """Interpreter and where come_nav runs from."""
    version = platform.python_version()
    supported = sys.version_info >= (3, 10)
    remedy = "" if supported else "use Python 3.10 or newer"
    yield Check("Python", "python", "ok" if supported else "fail", f"{version} ({sys.executable})", remedy)
    yield Check("Python", "come_nav", "ok", f"{__version__} ({Path(__file__).resolve().parents[1]})")


def check_libraries() -> Iterator[Check]:
    """Every library that the base install declares."""
    for name, bound in requirements(extra=None):
        yield _library_check("Libraries", name, bound, needed=True)


def check_shared_libraries() -> Iterator[Check]:
    """System libraries without which OpenCV and Open3D do not load."""
    import ctypes

    missing = []
    for library in SHARED_LIBRARIES:
        try:
            ctypes.CDLL(library)
        except OSError:
            missing.append(library)
    if not missing:
        yield Check("Libraries", "system libraries", "ok", f"{len(SHARED_LIBRARIES)} found")
        return
    packages = " ".join(SHARED_LIBRARIES[library] for library in missing)
    remedy = f"sudo apt-get install {packages}"
    yield Check("Libraries", "system libraries", "fail", f"missing {', '.join(missing)}", remedy)


def check_devices() -> Iterator[Check]:
    """Processor and graphics devices as torch sees them, and whether bfloat16 is fast there."""
    import torch

    flags = _cpu_flags()
    fast = [name for name in ("amx_bf16", "avx512_bf16") if name in flags]
    capability = torch.backends.cpu.get_cpu_capability()
    bf16 = f"bf16 by {', '.join(fast)}" if fast else "no bf16 units"
    yield Check(
        "Devices", "cpu", "ok", f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {capability}, {bf16}"
    )
    if not torch.cuda.is_available():
        yield Check("Devices", "cuda", "ok", "none; everything runs on the CPU")
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        detail = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, {bf16}"
        yield Check("Devices", f"cuda:{index}", "ok", detail)


def check_extras() -> Iterator[Check]:
    """Optional parts: complete, or the line that installs them."""
    try:
        extras = metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return
    for extra in sorted(extras):
        findings = [_library_check("Extras", name, bound, needed=False) for name, bound in requirements(extra)]
        missing = [finding.name for finding in findings if finding.status != "ok"]
        if missing:
            remedy = "comes from conda: see docs/simulator.md" if extra == "habitat" else _extra_remedy(extra)
            yield Check("Extras", f"[{extra}]", "warn", f"missing {', '.join(missing)}", remedy)
        else:
            versions = ", ".join(f"{finding.name} {finding.detail}" for finding in findings)
            yield Check("Extras", f"[{extra}]", "ok", versions)


def check_ros() -> Iterator[Check]:
    """ROS 2: the client library and the environment of a sourced workspace."""
    if not _importable("rclpy"):
        yield Check("ROS", "rclpy", "warn", "not importable", "source /opt/ros/<distro>/setup.bash, or the [ros] extra")
    else:
        yield Check("ROS", "rclpy", "ok", _version("ros-rclpy") or _version("rclpy") or "importable")
    distro = os.environ.get("ROS_DISTRO", "")
    yield Check("ROS", "ROS_DISTRO", "ok", distro or "not set")
    prefixes = [path for path in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if path]
    installed = [path for path in prefixes if Path(path, "share", DISTRIBUTION, "package.xml").is_file()]
    detail = f"{len(prefixes)} prefixes; come_nav in {installed[0] if installed else 'none of them'}"
    yield Check("ROS", "AMENT_PREFIX_PATH", "ok", detail if prefixes else "not set")


def check_resources() -> Iterator[Check]:
    """The default model, what lies beside it, and the catalogue of models to download."""
    from come_nav.config import Config
    from come_nav.core.resources import find_resource

    name = Config().model
    try:
        default = find_resource("models", name)
    except ComeNavError as error:
        yield Check("Resources", "default model", "fail", str(error), "train one: come-nav train --help")
    else:
        yield Check("Resources", "default model", "ok", f"{name} ({default})")
        shipped = sorted(path.parent.name for path in default.parent.glob("*/model.safetensors"))
        yield Check("Resources", "models found", "ok" if shipped else "warn", ", ".join(shipped) or "none is complete")
    for kind, resource in (("models", "zoo"), ("config", "come_nav")):
        try:
            detail = str(find_resource(kind, resource))
        except ComeNavError:
            detail = "none; the built-in defaults hold" if kind == "config" else "no catalogue of models to download"
        yield Check("Resources", f"{kind}/{resource}.yaml", "ok", detail)


def check_storage(out: Path) -> Iterator[Check]:
    """Room and rights where results go and where downloaded models are kept."""
    from come_nav.core.files import writable_folder

    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    places: list[tuple[str, Path, Status]] = [("output folder", out, "fail"), ("cache folder", cache, "warn")]
    for name, folder, status in places:
        try:
            writable_folder(folder)
        except ComeNavError as error:
            yield Check("Storage", name, status, str(error))
        else:
            free_gb = shutil.disk_usage(folder).free / 1e9
            enough = free_gb >= FREE_DISK_GB
            detail = f"{folder.resolve()}: writable, {free_gb:.1f} GB free"
            yield Check("Storage", name, "ok" if enough else "warn", detail, "" if enough else "free some disk space")


def requirements(extra: str | None) -> list[tuple[str, str]]:
    """Return (distribution, version bound) pairs that the base install (None) or an extra declares."""
    from packaging.requirements import Requirement

    try:
        declared = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []
    found = []
    for text in declared:
        requirement = Requirement(text)
        marker = requirement.marker
        in_base = marker is None or marker.evaluate({"extra": ""})
        if in_base if extra is None else not in_base and marker is not None and marker.evaluate({"extra": extra}):
            found.append((requirement.name, str(requirement.specifier)))
    return found


def _library_check(group: str, name: str, bound: str, *, needed: bool) -> Check:
    """Compare what is installed with the declared bound, without importing it."""
    from packaging.specifiers import SpecifierSet

    broken: Status = "fail" if needed else "warn"
    remedy = f"pip install '{name}{bound}'"
    version = _version(name)
    if version is None:
        module = MODULES.get(name.lower(), name.removeprefix("ros-").replace("-", "_"))
        if not _importable(module):
            return Check(group, name, broken, "missing", remedy)
        return Check(group, name, "ok", "importable, version unknown")
    if not SpecifierSet(bound).contains(version, prereleases=True):
        return Check(group, name, broken, f"{version} does not meet {bound}", remedy)
    return Check(group, name, "ok", version)


def _extra_remedy(extra: str) -> str:
    """Return the line that installs an extra, from the checkout where come_nav runs from one."""
    root = Path(__file__).resolve().parents[2]
    target = f"-e '{root}[{extra}]'" if (root / "setup.py").is_file() else f"'{DISTRIBUTION}[{extra}]'"
    return f"{sys.executable} -m pip install {target}"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that holds it
        return False


def _cpu_flags() -> set[str]:
    """Return the processor's feature flags on Linux, an empty set elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return set()
    line = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return set(line.partition(":")[2].split())
