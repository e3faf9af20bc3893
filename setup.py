"""Packaging of come_nav for pip and for ROS 2's colcon (ament_python)."""

import re
from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "come_nav"
VERSION = re.search(r'__version__ = "([^"]+)"', Path(PACKAGE, "__init__.py").read_text(encoding="utf-8")).group(1)

REQUIRES = [
    'backports.zstd>=1.0; python_version < "3.14"',
    "diffusers>=0.31",
    "huggingface-hub>=0.25",
    "matplotlib>=3.8",
    "numba>=0.59",  # loops that render points; without it tensors do the same, more slowly
    "numpy>=1.26",
    "open3d>=0.18",
    "opencv-python>=4.8",
    "packaging>=23.0",
    "peft>=0.14",
    "pillow>=10.0",
    "pyyaml>=6.0",
    "rosbags>=0.11",
    "apsw>=3.45",  # SQLite, as rosbags uses it
    "safetensors>=0.4.3",
    "scipy>=1.11",
    "torch>=2.6",
    "torchmetrics>=1.4",
    "tqdm>=4.66",
]

EXTRAS = {
    "train": ["pytorch-lightning>=2.6", "tensorboard>=2.16"],
    "perceptual": [
        "dreamsim>=0.2",
        "lpips>=0.1.4",
        "torch-fidelity>=0.3",
        "torchmetrics>=1.4",
        "torchvision>=0.21",
        "transformers>=4.40",  # depth from images
    ],
    "learned": ["kornia>=0.8", "onnxruntime>=1.18"],  # features and matches by networks whose weights a user has
    "video": ["av>=14.0"],  # H.264 and H.265 in bags
    # The client libraries of ROS 2 Jazzy as wheels, for machines without a ROS installation; a robot has its own.
    "ros": [
        "ros-rclpy[fastrtps]==7.1.6",
        "ros-diagnostic-msgs==5.3.6",
        "ros-geometry-msgs==5.3.6",
        "ros-nav-msgs==5.3.6",
        "ros-sensor-msgs==5.3.6",
        "ros-std-msgs==5.3.6",
        "ros-std-srvs==5.3.6",
        "ros-trajectory-msgs==5.3.6",
        "ros-visualization-msgs==5.3.6",
    ],
    "rerun": ["rerun-sdk>=0.24"],  # recordings for the Rerun viewer
    # habitat-sim comes from conda, where pip finds it installed; there are no wheels of it.
    "habitat": ["habitat-sim>=0.3"],
    "test": [
        "hypothesis>=6.100",
        "mypy>=1.11",
        "pytest>=8,<9",  # pytest 9 fails together with launch_testing
        "pytest-xdist>=3.6",
        "ruff>=0.6",
        "scipy-stubs>=1.14",
        "setuptools>=70.1,<80",  # builds the wheel that the tests look into
        "types-PyYAML>=6.0",
    ],
}


def tree(folder: str) -> list[tuple[str, list[str]]]:
    """Return data_files entries that put every file below ``folder`` into share/come_nav."""
    files: dict[str, list[str]] = {}
    for path in sorted(Path(folder).rglob("*")):
        hidden = any(part.startswith((".", "__")) for part in path.parts)
        if path.is_file() and not hidden:
            files.setdefault(f"share/{PACKAGE}/{path.parent.as_posix()}", []).append(path.as_posix())
    return list(files.items())


setup(
    name=PACKAGE,
    version=VERSION,
    description="Navigation for robots that remember: plan by imagining with a diffusion world model",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    maintainer="come_nav maintainers",
    maintainer_email="come-nav@users.noreply.github.com",
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={PACKAGE: ["py.typed", "**/*.html", "**/*.html.j2", "**/*.css", "**/*.svg"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        # `ros2 run` looks below lib/<package>, where pip installs no console scripts
        (
            f"lib/{PACKAGE}",
            [path.as_posix() for path in sorted(Path("scripts").glob("*")) if path.is_file() and not path.suffix],
        ),
        *tree("config"),
        *tree("launch"),
        *tree("models"),
    ],
    python_requires=">=3.10",
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["come-nav = come_nav.cli.main:main"]},
    zip_safe=True,
)
