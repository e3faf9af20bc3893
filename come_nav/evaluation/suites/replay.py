"""A recording as the robot's own stack sees it: frame by frame through ``NavStack.observe``, window by window."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from come_nav.core.errors import DataError
from come_nav.core.protocols import Imaginer, Recording
from come_nav.core.types import Context, Frame, Goal, Odometry, Plan
from come_nav.evaluation.protocols.protocol import Window
from come_nav.navigation.settings import ExpertsSettings, NavigationSettings
from come_nav.navigation.stack import NavStack
from come_nav.planning.settings import PlannerSettings

ANY_SPEED_MPS = 1000.0


def open_loop(navigation: NavigationSettings, use: Sequence[str] = ()) -> NavigationSettings:
    """Return the robot's settings for plans that are made once and never driven, with the memories of ``use``.

    No plan begins with the one before, which was for another window. The recording has the protocol's spacing already,
    so that every frame of it is due whatever its jitter, and is cut where its pose jumps, so that a fast vehicle is no
    jump. An adapter comes from the episode itself.
    """
    return replace(
        navigation,
        warm_start=False,
        show_imagined=False,
        memory=replace(navigation.memory, tolerance=0.5, max_speed_mps=ANY_SPEED_MPS),
        experts=replace(navigation.experts, use=tuple(use), adapter_store=""),
    )


def decodable(recording: Recording, frames: range) -> Iterator[tuple[int, Frame]]:
    """Yield the frames of a recording with their indices; a damaged image does not cost the others."""
    for index in frames:
        try:
            frame = recording.frame(index)
        except DataError:
            continue
        yield index, frame


def show(stack: NavStack, recording: Recording, frames: range) -> None:
    """Let ``stack`` observe some frames of a recording; a damaged image does not cost the others.

    Raises:
        DataError: when not one of them can be decoded.
    """
    decoded, diagnosis = 0, ""
    for index in frames:
        try:
            frame = recording.frame(index)
        except DataError as error:
            diagnosis = str(error)
            continue
        stack.observe(frame, odometry_at(recording, index))
        decoded += 1
    if not decoded:
        raise DataError(
            f"{recording.name}: no frame from {frames.start} to {frames.stop} can be decoded; the last says: "
            f"{diagnosis}"
        )


def odometry_at(recording: Recording, index: int) -> Odometry:
    """Return what odometry said at frame ``index``; no twist, which plans take from the last two poses then."""
    return Odometry(float(recording.stamps_s[index]), recording.T_odom_base[index])


class Replay:
    """Brings a stack to the starts of windows. What its memories of the episode hold stays as it is.

    Args:
        stack: of the robot; made for evaluation alone, see :func:`open_loop`.
        older_frames: before the context, that the stack observes as well.
    """

    def __init__(self, stack: NavStack, older_frames: int = 0) -> None:
        self.stack, self._older_frames = stack, older_frames
        self._newest: Window | None = None
        stack.episode.frozen = True

    def at(self, window: Window) -> NavStack:
        """Return the stack as it stands at the start of ``window``, whose context it has just observed.

        Raises:
            DataError: where the stack does not keep the start frame, so that a plan would begin elsewhere.
        """
        if self._newest is window:
            return self.stack
        self._newest = None
        self.stack.forget_recent()
        status = None
        for index in range(max(0, window.context[0] - self._older_frames), window.start + 1):
            frame = window.recording.frame(index)
            status = self.stack.observe(frame, odometry_at(window.recording, index))
        newest = self.stack.memory.newest
        if newest is None or newest.stamp_s != window.stamp_s:
            why = "not observed" if status is None else status.value
            raise DataError(
                f"{window.recording_id}: frame {window.start} at {window.stamp_s:.3f} s is no frame to start from "
                f"({why}); leave that part of the recording out with --part"
            )
        self._newest = window
        return self.stack

    def context(self, window: Window, experts: ExpertsSettings | None = None) -> Context:
        """Return what the experts look at from the start of ``window``.

        Raises:
            DataError: where the stack kept too few frames.
        """
        context = self.at(window).context(experts)
        if context is None:
            raise DataError(
                f"{window.recording_id}: before frame {window.start} the robot kept {len(self.stack.memory)} of "
                f"{self.stack.model.context_frames} context frames; raise memory.max_gap_s, or leave that part out"
            )
        return context

    def plan(
        self,
        window: Window,
        generator: torch.Generator,
        experts: ExpertsSettings | None = None,
        imaginer: Imaginer | None = None,
        registers: bool = False,
        planner: PlannerSettings | None = None,
    ) -> Plan:
        """Plan to the goal image of ``window`` with its own time between waypoints (see ``NavStack.plan``)."""
        goal = Goal(image_rgb=window.goal_frame().rgb)
        search = self.search_of(window, planner)
        return self.at(window).plan(
            goal, generator=generator, planner=search, experts=experts, imaginer=imaginer, registers=registers
        )

    def imaginer(self, window: Window, experts: ExpertsSettings | None = None, decode: bool = False) -> Imaginer:
        """Return what imagines from the start of ``window`` as far as its goal."""
        self.context(window, experts)
        imaginer = self.stack.imaginer(experts, decode, self.search_of(window))
        assert imaginer is not None  # there is a context
        return imaginer

    def search_of(self, window: Window, planner: PlannerSettings | None = None) -> PlannerSettings:
        """Return ``planner``, the configured search where None, with the waypoints of ``window``."""
        search = planner or self.stack.settings.planner
        return replace(search, horizon_steps=len(window.driven_xyyaw), dt_s=window.dt_s)
