"""Camera and odometry into an adapter that learns the episode in the background, saved for whoever imagines with it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from diagnostic_msgs.msg import DiagnosticStatus
from nav_msgs.msg import Odometry as OdometryMessage
from std_srvs.srv import Trigger

from come_nav.config import Config
from come_nav.core.errors import ComeNavError, ConfigError, DataError, MemoryStoreError
from come_nav.memory.episodic.memory import Adapter, EpisodicMemory
from come_nav.memory.episodic.shared_adapter import forget_episode, load_episode, save_episode
from come_nav.memory.progress import TrainingProgress
from come_nav.memory.short_term import FrameStatus
from come_nav.memory.store.store import MemoryStore
from come_nav.navigation.loading import load_stack
from come_nav.navigation.stack import NavStack
from come_nav.ros.camera import CAMERA_PARAMETERS, CameraInput
from come_nav.ros.diagnostics import Latency, Level, Report
from come_nav.ros.inputs.odometry_reset import OdometryReset, forgets, motion_of_odom
from come_nav.ros.nodes.memory_node import MemoryNode, store_of
from come_nav.ros.parameters import Parameter, config_from, config_parameters
from come_nav.ros.planner.adapters import adapter_values, version_of
from come_nav.ros.qos import LATCHED, SENSOR


def learning_stack(config: Config, use_depth: bool) -> tuple[NavStack, EpisodicMemory]:
    """Return a stack that learns for others, not training yet; raise ConfigError where no adapter can be trained."""
    use = ("spatial", "long_term") if use_depth else ("long_term",)
    stack = load_stack(replace(config, experts=replace(config.experts, use=use)))
    stack.close()  # it learns when the node is active
    learning, memory = stack.episode.long_term, stack.episode.episodic
    if learning is None or memory is None:
        raise ConfigError(f"no adapter can be trained: {stack.episode.diagnostics.get('long_term', 'no expert')}")
    learning.imagines = False
    return stack, memory


class EpisodicMemoryNode(MemoryNode):
    """Trains an adapter on what the robot sees; publishes how far it is, saves it, and goes on after a crash."""

    FORGOTTEN = "the episode is forgotten"
    PARAMETERS = (
        *CAMERA_PARAMETERS,
        Parameter(
            "use_depth", True, "learn from what the spatial memory shows too, where there is depth", when="start"
        ),
        Parameter("memory_folder", "", "where the adapter is saved and found again; empty = nowhere", when="start"),
        Parameter("save_period_s", 5.0, "save a new adapter at most this often, s", 0.1, 3600.0),
        Parameter("state_period_s", 60.0, "save frames and optimiser as well this often, s", 0.5, 86400.0),
        Parameter("publish_period_s", 2.0, "publish progress this often, s", 0.1, 600.0),
        Parameter("torch_threads", 1, "processor threads of one operation; 0 = torch decides", 0, 256, when="start"),
        *config_parameters("model", "device", "seed", "memory", "inference", "spatial", "episodic", "lora"),
        *config_parameters("experts.budget", "experts.estimate_depth"),
    )

    def __init__(self, **keywords: Any) -> None:
        super().__init__("episodic_memory", **keywords)

    # -- lifecycle ---------------------------------------------------------------------------------------------------

    def setup(self) -> None:
        """Load the model and what was learnt before; subscribe."""
        if self.values["torch_threads"]:
            torch.set_num_threads(self.values["torch_threads"])
        self._stack, self._memory = learning_stack(config_from(self.values), self.values["use_depth"])
        self._progress, self._learnt, self._latency = TrainingProgress(), Latency(), Latency()
        self._counts: dict[str, int] = {}
        self._saved: Adapter | None = None
        self._told = -1
        self._failure: tuple[float, str] | None = None
        self._load()
        self._due = dict.fromkeys(("adapter", "state", "status"), time.monotonic())
        self._due["state"] += self.values["state_period_s"]
        self._requests.clear()
        self._camera = CameraInput(self, depth="optional" if self.values["use_depth"] else "none")
        self._camera.on_reset = self._requests.append
        self._status = self.advertise(DiagnosticStatus, "episodic_memory", LATCHED)
        self.subscribe(OdometryMessage, "odom", self._take_odometry, SENSOR)
        self.serve(Trigger, "~/reset", self._reset)
        self.serve(Trigger, "~/save", self._save_now)

    def start(self) -> None:
        """Begin to learn."""
        self._stack.start()
        self._worker.start()

    def stop(self) -> None:
        """Stop and save."""
        finished = self._worker.stop()
        self._stack.close()
        if finished:
            self._save(training=True)

    def teardown(self) -> None:
        """Release the model."""
        self._worker.stop()
        if hasattr(self, "_stack"):
            self._stack.close()
            del self._stack, self._memory

    def reports(self) -> Sequence[Report]:
        """Return what is learnt, how fast, and how long a frame waits to be part of it."""
        return [self._report(), self._camera.extrinsics.report()]

    # -- callbacks: short, they only keep what came --------------------------------------------------------------------

    def _take_odometry(self, message: OdometryMessage) -> None:
        if self._camera.take_odometry(message):
            self._requests.append("forget")
        if self._camera.due:  # each wake costs the executor a turn at the interpreter's lock
            self._worker.wake()

    # -- the worker's thread -------------------------------------------------------------------------------------------

    def _work(self) -> float:
        """Hand over the frames that came, save and tell what was learnt; the training has a thread of its own."""
        save = self._obey_all()
        self._remember()
        self._progress.trained(self._memory.steps, time.monotonic())
        if save or self._time_for("state", self.values["state_period_s"]):
            self._save(training=True)
        version = version_of(self._memory.newest)
        if version != version_of(self._saved) and self._time_for("adapter", self.values["save_period_s"]):
            self._save(training=False)
        if version != self._told or self._time_for("status", self.values["publish_period_s"]):
            self._told = version
            self._status.publish(self._report().to_message(self.get_name()))
        return 0.05

    def _obey(self, request: str | OdometryReset) -> None:
        T_before_after = motion_of_odom(request)
        if forgets(request):
            self._stack.reset()
            self._progress.clear()
            self._saved = None
            store = store_of(self.values)
            if store is not None:
                self._try(lambda: forget_episode(store))
            self.log.info("the episode is forgotten")
            return
        self._stack.memory.clear()
        if T_before_after is not None:
            self._stack.localisation.rebase(T_before_after)
            self._stack.episode.reset(T_before_after)
        else:
            self.log.warning("the clock of odometry jumped back; the adapter stays, in its odom frame")

    def _remember(self) -> None:
        for frame, matched, received_s in self._camera.frames():
            verdict = self._stack.observe(frame, matched.odometry)
            self._counts[verdict.value] = self._counts.get(verdict.value, 0) + 1
            if verdict is FrameStatus.KEPT:
                self._latency.add(time.monotonic() - received_s)
                self._progress.observed(self._memory.steps, self._memory.steps_due, received_s)

    def _report(self) -> Report:
        memory, camera = self._memory, self._camera
        values: dict[str, Any] = {**adapter_values(memory.newest), "steps": memory.steps, "steps_due": memory.steps_due}
        values |= {"steps_per_s": self._progress.steps_per_s(), "steps_rejected": memory.rejected}
        values |= {"frames_seen": memory.frames.seen, "saved_version": version_of(self._saved)}
        values |= self._learnt.values("frame_to_adapter") | self._latency.values("image_to_memory")
        values |= {f"frames {verdict}": count for verdict, count in self._counts.items()}
        values |= {f"images dropped: {cause}": count for cause, count in camera.dropped.items()}
        failed = self._stack.episode.training_diagnosis
        if self._failure is not None and time.monotonic() - self._failure[0] < self.values["save_period_s"] + 2.0:
            failed = self._failure[1]
        if failed is not None:
            return Report("training", Level.ERROR, failed, values)
        text = f"adapter {values['adapter_version']}" if memory.newest is not None else "no adapter yet"
        return Report("training", Level.OK, text, values)

    # -- disk ----------------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        store = store_of(self.values)
        try:
            if store is not None and load_episode(store, self._memory):
                self._saved = self._memory.newest
                count = self._memory.frames.seen
                self.log.info(f"adapter {version_of(self._saved)}, {count} frames remembered from {store.path}")
        except (MemoryStoreError, DataError) as error:
            self.diagnose(error, "memory")

    def _save(self, training: bool) -> None:
        """Save what is new; without a folder, an adapter is usable as soon as it is published."""
        store, adapter = store_of(self.values), self._memory.newest
        if store is not None and self._memory.frames.seen:
            if not self._try(lambda: self._write(store, training)):
                return
        else:
            self._saved = adapter
        delays_s = self._progress.usable(int(adapter_values(self._saved)["adapter_steps"]), time.monotonic())
        for delay_s in delays_s:
            self._learnt.add(delay_s)

    def _write(self, store: MemoryStore, training: bool) -> None:
        self._saved = save_episode(store, self._memory, training)

    def _try(self, action: Any) -> bool:
        try:
            action()
        except ComeNavError as error:
            self._failure = (time.monotonic(), str(error))
            self.diagnose(error, "memory")
            return False
        return True
