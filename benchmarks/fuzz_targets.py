"""Kinds of files that come_nav reads, for fuzz_readers.py: how a valid one is made, how it is read, and attacks.

An attack is a pickle that would write a file if it were loaded without restriction, or whose arrays would let numpy
follow addresses that the file names; it stands in every place where a pickle may stand.
"""

from __future__ import annotations

import io
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from come_nav.core.errors import ComeNavError
from come_nav.data.video.stream import has_av

Rng = np.random.Generator


@dataclass
class Target:
    """One kind of file.

    Attributes:
        make: writes valid files into a folder; returns those that are mutated.
        read: reads that folder.
        attack: (mark, generator) -> bytes of a file that would make ``mark`` if its code ran; None where no pickle is.
        attacked: the name of the file that the attack takes the place of.
        share: of all mutations.
    """

    make: Callable[[Path], list[Path]]
    read: Callable[[Path], object]
    attack: Callable[[Path, Rng], bytes] | None = None
    attacked: str = ""
    share: float = 0.1


class Arc:
    """A few small frames along an arc, as a Recording."""

    name, rate_hz, metadata = "arc", 4.0, {"note": "fuzz"}

    def __init__(self) -> None:
        from come_nav.core.geometry import se3
        from come_nav.core.types import CameraIntrinsics

        steps = np.arange(6)
        self.stamps_s = 1.7e9 + 0.25 * steps
        self.poses_xyyaw = np.stack([0.1 * steps, 0.01 * steps**2, 0.05 * steps], axis=1)
        self.T_odom_base = se3.transform_from_xyyaw(self.poses_xyyaw)
        self.intrinsics = CameraIntrinsics(16, 12, 10.0, 10.0, 8.0, 6.0)
        self.T_base_camera = se3.make_transform(se3.R_BODY_OPTICAL, np.zeros(3))

    def __len__(self) -> int:
        return len(self.stamps_s)

    def frame(self, index: int) -> Any:
        """Return frame ``index``."""
        from come_nav.core.types import Frame

        rgb = np.full((12, 16, 3), 20 * index, np.uint8)
        rgb[:, ::2] //= 2
        depth = np.full((12, 16), 2.0, np.float32)
        return Frame(float(self.stamps_s[index]), rgb, depth, self.intrinsics, self.T_base_camera)


# -- bags ----------------------------------------------------------------------------------------------------------


def _make_bag(storage: str) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        from come_nav.data.bags.writer import write_bag

        write_bag(folder / "bag", Arc(), storage)
        return [path for path in (folder / "bag").iterdir() if path.is_file()]

    return make


def _make_ros1(folder: Path) -> list[Path]:
    """The same drive as a ROS 1 bag, its images as JPEG."""
    from rosbags.rosbag1 import Writer

    from come_nav.data.bags.ros_messages import MessageWriter
    from come_nav.data.bags.ros_types import COMPRESSED_IMAGE, ODOMETRY, typestore

    arc, make = Arc(), MessageWriter()
    with Writer(folder / "run.bag") as writer:
        links = {
            kind: writer.add_connection(name, kind, typestore=typestore(True))
            for name, kind in (("/camera/image_raw/compressed", COMPRESSED_IMAGE), ("/odom", ODOMETRY))
        }
        for index in range(len(arc)):
            ns = round(arc.stamps_s[index] * 1e9)
            jpeg = make.jpeg(ns, "camera", arc.frame(index).rgb)
            pose = make.odometry(ns, ("odom", "base_link"), arc.T_odom_base[index], (0.0, 0.0))
            for kind, raw in ((COMPRESSED_IMAGE, jpeg), (ODOMETRY, pose)):
                writer.write(links[kind], ns, typestore(False).cdr_to_ros1(raw, kind))
    return [folder / "run.bag"]


def _make_video(folder: Path) -> list[Path]:
    """The same drive with its images as H.264, a key picture every third."""
    import av
    from rosbags.rosbag2 import StoragePlugin, Writer

    from come_nav.data.bags.ros_messages import MessageWriter
    from come_nav.data.bags.ros_types import COMPRESSED_IMAGE, ODOMETRY, typestore

    arc, make, store = Arc(), MessageWriter(), typestore(False)
    codec = av.CodecContext.create("libx264", "w")
    codec.width, codec.height, codec.pix_fmt, codec.time_base = 16, 12, "yuv420p", Fraction(1, 4)
    codec.options = {"x264-params": "keyint=3:bframes=0:repeat-headers=1", "tune": "zerolatency"}
    with Writer(folder / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        links = {
            kind: writer.add_connection(name, kind, typestore=store)
            for name, kind in (("/camera/image_raw/compressed", COMPRESSED_IMAGE), ("/odom", ODOMETRY))
        }
        for index in range(len(arc)):
            ns, rgb = round(arc.stamps_s[index] * 1e9), arc.frame(index).rgb
            message = store.deserialize_cdr(make.jpeg(ns, "camera", rgb), COMPRESSED_IMAGE)
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts = index
            message.format = "h264"
            message.data = np.frombuffer(b"".join(bytes(packet) for packet in codec.encode(frame)), np.uint8)
            pose = make.odometry(ns, ("odom", "base_link"), arc.T_odom_base[index], (0.0, 0.0))
            writer.write(links[COMPRESSED_IMAGE], ns, store.serialize_cdr(message, COMPRESSED_IMAGE))
            writer.write(links[ODOMETRY], ns, pose)
    return [path for path in (folder / "bag").iterdir() if path.suffix == ".mcap"]


def _read_recording(folder: Path) -> None:
    from come_nav.data import open_recording

    with open_recording(next(path for path in sorted(folder.iterdir())), quiet=True) as recording:
        for index in range(len(recording)):
            recording.frame(index)


def _make_info(folder: Path) -> list[Path]:
    from come_nav.data.bags.ros_messages import MessageWriter

    (folder / "info.cdr").write_bytes(MessageWriter().camera_info(1, "camera", Arc().intrinsics))
    return [folder / "info.cdr"]


def _read_info(folder: Path) -> None:
    from come_nav.data.bags.calibration import camera_intrinsics
    from come_nav.data.bags.ros_types import CAMERA_INFO, MessageDecoder

    message = MessageDecoder(False).decode((folder / "info.cdr").read_bytes(), CAMERA_INFO)
    camera_intrinsics(message, (16, 12), "/camera_info", [])


# -- trajectories --------------------------------------------------------------------------------------------------


def _make_trajectories(folder: Path) -> list[Path]:
    rows = [(1.7e9 + 0.1 * i, 0.1 * i, 0.0, 0.0, 0.0, 0.0, np.sin(i / 20), np.cos(i / 20)) for i in range(12)]
    texts = {
        "tum.txt": "".join(" ".join(f"{value:.9f}" for value in row) + "\n" for row in rows),
        "euroc.csv": "#timestamp [ns],x,y,z,qw,qx,qy,qz\n"
        + "".join(f"{round(row[0] * 1e9)},{row[1]},0,0,{row[7]},0,0,{row[6]}\n" for row in rows),
        "kitti.txt": "".join(f"1 0 0 {row[1]} 0 1 0 0 0 0 1 0\n" for row in rows),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    return [folder / name for name in texts]


def _read_trajectories(folder: Path) -> None:
    from come_nav.data.trajectories import read_trajectory

    refused = None
    for path in sorted(folder.iterdir()):
        try:
            read_trajectory(path)
        except ComeNavError as error:
            refused = error
    if refused is not None:
        raise refused


# -- NWM -----------------------------------------------------------------------------------------------------------


def _make_nwm(folder: Path) -> list[Path]:
    from come_nav.data.nwm.folder import write_nwm_folder

    written = write_nwm_folder(folder / "nwm", Arc())
    return [written / "traj_data.pkl", written / "3.jpg"]


def _make_index(folder: Path) -> list[Path]:
    """A list of windows as NWM pickles it, with the folder of its one trajectory."""
    from come_nav.data.nwm.folder import write_nwm_folder

    write_nwm_folder(folder / "recon" / "arc", Arc())
    splits = folder / "splits"
    splits.mkdir()
    (splits / "traj_names.txt").write_text("arc\n")
    windows = [("arc", index, 1, 2) for index in range(4)]
    (splits / "navigation_eval.pkl").write_bytes(pickle.dumps(windows))
    return [splits / "traj_names.txt", splits / "navigation_eval.pkl"]


def _read_index(folder: Path) -> None:
    from come_nav.data.nwm.dataset import NwmDataset, dataset_facts

    dataset = NwmDataset(folder, dataset_facts("recon"), folder / "splits")
    for name in dataset.names():
        dataset.trajectory(name)
    for entry in dataset.index("navigation"):
        dataset.window(entry, entry.min_frames, "navigation", 1)


# -- checkpoints and memories --------------------------------------------------------------------------------------


def _make_checkpoint(folder: Path) -> list[Path]:
    """The smallest model with every part, so that a mutation meets headers and settings rather than weights."""
    from come_nav.core.resources import find_resource

    shipped = find_resource("models", "tiny")
    (folder / "model").mkdir()
    shutil.copy(shipped / "config.yaml", folder / "model" / "config.yaml")
    data = (shipped / "model.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    (folder / "model" / "model.safetensors").write_bytes(data[: 8 + size + 4096])
    return [folder / "model" / "config.yaml", folder / "model" / "model.safetensors"]


def _read_checkpoint(folder: Path) -> None:
    from come_nav.world_model.model import DiffusionWorldModel

    DiffusionWorldModel.load(folder / "model")


def _make_official(folder: Path) -> list[Path]:
    """The layout of NWM's training with a network of a few numbers."""
    import argparse

    import torch

    from come_nav.experts.cdit import CDiT, CDiTSettings

    network = CDiT.from_settings(CDiTSettings(input_size=4, context_size=1, hidden_size=6, depth=1, num_heads=1))
    state = {name: tensor.half() for name, tensor in network.state_dict().items()}
    content = {"ema": state, "args": argparse.Namespace(lr=1e-4), "epoch": 3, "train_steps": np.int64(7)}
    torch.save(content, folder / "cdit.pth.tar")
    return [folder / "cdit.pth.tar"]


def _read_official(folder: Path) -> None:
    from come_nav.world_model.nwm.official_checkpoint import network_settings, open_checkpoint

    network_settings(open_checkpoint(folder / "cdit.pth.tar"), heads=1)


def _make_training(folder: Path) -> list[Path]:
    import torch

    content = {"global_step": 5, "state_dict": {"weight": torch.zeros(3)}, "loops": {"fit": {"epoch": 1}}}
    torch.save(content, folder / "last.ckpt")
    return [folder / "last.ckpt"]


def _read_training(folder: Path) -> None:
    from come_nav.training.checkpoints import read_checkpoint

    read_checkpoint(folder / "last.ckpt")


# -- attacks -------------------------------------------------------------------------------------------------------


class _Call:
    """Pickles as a call, with a state that its result is given."""

    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def attacks(mark: Path) -> list[Any]:
    """Return objects whose pickles run code or forge arrays."""
    double = _Call(np.dtype, ("f8", False, True), (3, "<", None, None, None, -1, -1, 1))
    rebuild, scalar = np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0]
    return [
        _Call(Path.touch, (mark,)),
        _Call(os.system, (f"touch '{mark}'",)),
        _Call(eval, (f"open({str(mark)!r}, 'w')",)),
        _Call(open, (str(mark), "w")),
        _Call(os.mkdir, (str(mark),)),
        _Call(np.ndarray, ((1,), "O", b"A" * 8)),
        _Call(rebuild, (np.ndarray, (0,), b"b"), (1, (1,), np.dtype("O"), False, b"A" * 8)),
        _Call(rebuild, (np.ndarray, (0,), b"b"), (1, (1,), double, False, b"A" * 8)),
        _Call(scalar, (double, b"A" * 8)),
        _Call(np.load, (str(mark),)),
    ]


def pickle_attack(mark: Path, rng: Rng) -> bytes:
    """Return a pickle with an attack inside a trajectory or beside a window, in any protocol."""
    found = attacks(mark)
    evil = found[int(rng.integers(len(found)))]
    contents = [{"position": evil, "yaw": np.zeros(3)}, [("arc", 0, 1, evil)], evil, {evil: 1}]
    return pickle.dumps(contents[int(rng.integers(len(contents)))], protocol=int(rng.integers(6)))


def checkpoint_attack(mark: Path, rng: Rng) -> bytes:
    """Return a file of torch.save with an attack in one of its places, or a bare pickle under its name."""
    import torch

    found = attacks(mark)
    evil = found[int(rng.integers(len(found)))]
    place = ("ema", "args", "train_steps", "global_step", "state_dict", "loops")[int(rng.integers(6))]
    content = {"global_step": 5, "ema": {"pos_embed": torch.zeros(1)}, "state_dict": {}, place: evil}
    if rng.integers(4) == 0:
        return pickle.dumps(content, protocol=int(rng.integers(6)))
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=bool(rng.integers(4)))
    return buffer.getvalue()


TARGETS = {
    "mcap": Target(_make_bag("mcap"), _read_recording, share=0.1),
    "sqlite3": Target(_make_bag("sqlite3"), _read_recording, share=0.1),
    "rosbag1": Target(_make_ros1, _read_recording, share=0.1),
    **({"video": Target(_make_video, _read_recording, share=0.1)} if has_av() else {}),
    "camera_info": Target(_make_info, _read_info, share=0.15),
    "trajectory": Target(_make_trajectories, _read_trajectories, share=0.15),
    "nwm": Target(_make_nwm, _read_recording, pickle_attack, "traj_data.pkl", 0.15),
    "nwm_index": Target(_make_index, _read_index, pickle_attack, "navigation_eval.pkl", 0.1),
    "checkpoint": Target(_make_checkpoint, _read_checkpoint, checkpoint_attack, "model.safetensors", 0.05),
    "official": Target(_make_official, _read_official, checkpoint_attack, "cdit.pth.tar", 0.05),
    "training": Target(_make_training, _read_training, checkpoint_attack, "last.ckpt", 0.05),
}
