"""Packaging of come_nav for pip and for ROS 2's colcon (ament_python)."""

from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "come_nav"
HERE = Path(__file__).parent


def tree(folder: str) -> list[tuple[str, list[str]]]:
    """Return data_files entries that put every file below ``folder`` into share/come_nav."""
    files: dict[str, list[str]] = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            files.setdefault(f"share/{PACKAGE}/{path.parent.as_posix()}", []).append(path.as_posix())
    return list(files.items())


setup(
    name=PACKAGE,
    version="0.1.0",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    python_requires=">=3.10",
    install_requires=["torch", "numpy"],
    entry_points={"console_scripts": ["come-nav = come_nav.cli.main:main"]},
)
