"""Starts nodes: one per process, or several in one; ends them cleanly on SIGINT and SIGTERM.

Nodes that share a process have a thread each for their callbacks, so that none waits for another's; within a node
callbacks never overlap. They share Python's interpreter lock all the same.
"""

from __future__ import annotations

import importlib
import signal
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from come_nav.core.errors import ComeNavError, MissingDependencyError, suggest

NODES = {
    "simulator": "simulator_node:SimulatorNode",
    "planner": "planner_node:PlannerNode",
    "controller": "controller_node:ControllerNode",
    "spatial_memory": "spatial_memory_node:SpatialMemoryNode",
    "episodic_memory": "episodic_memory_node:EpisodicMemoryNode",
    "bag_player": "bag_player_node:BagPlayerNode",
}


def main(names: Sequence[str], args: Sequence[str] | None = None) -> int:
    """Run the named nodes in this process until a signal comes; return the exit status. Without rclpy, say so."""
    try:
        import rclpy
        from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor, SingleThreadedExecutor
        from rclpy.signals import SignalHandlerOptions
        from rclpy.utilities import ok, try_shutdown
    except ImportError as error:
        raise SystemExit(str(MissingDependencyError("rclpy", "ros", "a ROS 2 node"))) from error
    # rclpy's own handlers would shut the context down at once, before a controller could say "stand still"
    rclpy.init(args=None if args is None else list(args), signal_handler_options=SignalHandlerOptions.NO)
    executor = SingleThreadedExecutor() if len(names) == 1 else MultiThreadedExecutor(len(names))
    stop = _stop_on_signals()
    nodes: list[Any] = []
    try:
        nodes += [node_class(name)() for name in names]
        for node in nodes:
            executor.add_node(node)
        for node in nodes:
            if node.values["autostart"]:
                node.trigger_configure()
                if node.configured:
                    node.trigger_activate()
        while ok() and not stop():
            executor.spin_once(timeout_sec=0.2)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except ComeNavError as error:
        raise SystemExit(str(error)) from error
    finally:
        for node in nodes:
            node.close()
            executor.remove_node(node)
            node.destroy_node()
        try_shutdown()
    return 0


def node_class(name: str) -> Any:
    """Return the class of a node; raise ValueError for an unknown name."""
    if name not in NODES:
        raise ValueError(f"unknown node '{name}'{suggest(name, NODES)}")
    module, _, attribute = NODES[name].partition(":")
    return getattr(importlib.import_module(f"come_nav.ros.nodes.{module}"), attribute)


def _stop_on_signals() -> Callable[[], bool]:
    seen: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        seen.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, remember)
    return lambda: bool(seen)
