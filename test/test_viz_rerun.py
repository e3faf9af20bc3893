"""What a navigator sees and considers reaches Rerun's entities, at the times that it is about.

rerun-sdk is optional and large: a stand-in has the part of its interface that is used. Where it is installed, a real
file is written and read.
"""

from __future__ import annotations

import subprocess
import sys
import types
from collections import defaultdict

import numpy as np
import pytest
import torch

from come_nav.core.errors import MissingDependencyError
from come_nav.core.types import Frame, Goal, IterationTrace, Plan, PlanStatus, PlanTrace
from come_nav.sim.builtin import BuiltInSimulator
from come_nav.sim.worlds import generate_world
from come_nav.viz.rerun_recording import RerunRecording

ARCHETYPES = (
    *("Transform3D", "LineStrips3D", "LineStrips2D", "Points3D", "Pinhole", "Image", "Scalars", "Arrows3D", "TextLog"),
)


class Archetype:
    """Stands for one, and keeps what it was made of."""

    def __init__(self, *args, **keywords):
        self.args, self.keywords = args, keywords

    def compress(self, jpeg_quality: int):
        return self


@pytest.fixture
def logged(monkeypatch) -> dict[str, list]:
    """Entity -> (time, archetype), as a stand-in for rerun gets them."""
    found: dict[str, list] = defaultdict(list)

    class Stream:
        def __init__(self, application):
            self.now = None

        def save(self, path):
            self.path = path

        def set_time(self, timeline, *, timestamp):
            self.now = timestamp

        def log(self, entity, what, static=False):
            found[entity].append((None if static else self.now, what))

        def flush(self):
            found["flushed"].append((self.now, None))

        disconnect = flush

    module = types.ModuleType("rerun")
    module.RecordingStream = Stream
    module.ViewCoordinates = types.SimpleNamespace(RIGHT_HAND_Z_UP="z up")
    for name in ARCHETYPES:
        setattr(module, name, type(name, (Archetype,), {}))
    monkeypatch.setitem(sys.modules, "rerun", module)
    return found


def a_plan(stamp_s: float, imagined: np.ndarray | None = None) -> Plan:
    poses = torch.zeros(3, 4, 3, dtype=torch.float64)
    poses[:, :, 0] = torch.arange(1, 5) * torch.tensor([[0.1], [0.2], [0.3]])
    costs = torch.tensor([3.0, 1.0, float("inf")], dtype=torch.float64)
    none = torch.zeros(0)
    trace = PlanTrace([IterationTrace(none, poses, costs, {"pose": costs}, none, none, none)])
    start = np.array([1.0, 2.0, np.pi / 2])
    return Plan(PlanStatus.OK, stamp_s, 0.25, poses[1].numpy(), start, 1.0, "", trace, imagined)


def frames() -> tuple[Frame, Frame]:
    simulator = BuiltInSimulator.in_world(generate_world(10000), seed=1)
    first = simulator.observe()[0]
    simulator.step(0.3, 0.0, 0.5)
    return first, simulator.observe()[0]


def write_everything(recording: RerunRecording) -> None:
    first, second = frames()
    recording.frame(first, np.eye(4))
    recording.cloud(5.0, np.zeros((2, 3)), np.full((2, 3), 9, np.uint8))
    recording.obstacles(5.0, np.array([[1.0, 2.0]]))
    recording.plan(a_plan(6.0), np.array([[0.0, 0.0], [1.0, 0.0]]), Goal(None, np.array([1.0, 1.0, np.pi / 2])))
    recording.exponents(6.0, {"base": 0.4, "spatial": 0.6})
    recording.imagined(7.0, first.rgb, second.rgb)
    recording.registered(7.0, (first.rgb, second.rgb), (np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]])))
    recording.close()


def test_every_entity_is_written_at_its_time(logged, tmp_path):
    write_everything(RerunRecording(tmp_path / "deep" / "drive.rrd"))
    assert (tmp_path / "deep").is_dir()
    times = {entity: entries[-1][0] for entity, entries in logged.items()}
    assert times["world"] is None
    assert times["world/memory"] == times["world/obstacles"] == 5.0
    assert times["world/candidates"] == times["world/plan"] == times["world/route"] == times["world/target"] == 6.0
    assert times["exponents/spatial"] == 6.0
    assert times["imagined/what_came"] == times["imagined/at_the_end_of_the_plan"] == 7.0
    assert len(logged["flushed"]) == 2
    assert logged["exponents/spatial"][0][1].args == (0.6,)

    strips = logged["world/candidates"][0][1]
    ends = [strip[-1] for strip in strips.args[0]]  # the dearest first; the start looks along y
    np.testing.assert_allclose(ends, [[1.0, 3.2, 0.02], [1.0, 2.4, 0.02], [1.0, 2.8, 0.02]], atol=1e-6)
    rejected, dear, cheap = strips.keywords["colors"]
    assert rejected[0] > 2 * max(rejected[1:])
    assert cheap[1] > dear[1]
    np.testing.assert_allclose(logged["world/plan"][0][1].args[0][0][[0, -1], :2], [[1.0, 2.0], [1.0, 2.8]])
    np.testing.assert_allclose(logged["world/target"][0][1].keywords["vectors"], [[0.0, 0.4, 0.0]], atol=1e-9)
    lines = logged["registered/features"][0][1].args[0]
    np.testing.assert_allclose(lines, [[[1.0, 2.0], [323.0, 4.0]]])  # the images are 320 wide


def test_without_rerun_one_line_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(MissingDependencyError, match=r"rerun-sdk.*pip install 'come_nav\[rerun\]'"):
        RerunRecording(tmp_path / "drive.rrd")


def test_a_real_file_holds_the_entities(tmp_path):
    pytest.importorskip("rerun", reason="rerun-sdk is not installed: pip install 'come_nav[rerun]'")
    file = tmp_path / "drive.rrd"
    write_everything(RerunRecording(file))
    show = [sys.executable, "-m", "rerun", "rrd", "print", str(file)]
    done = subprocess.run(show, capture_output=True, text=True, check=False)
    for entity in ("world/candidates", "imagined/what_came", "exponents/spatial", "registered/features"):
        assert entity in done.stdout, done.stdout[-2000:] + done.stderr[-500:]
