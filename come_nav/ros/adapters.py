"""What nodes say about the adapter of the long-term memory that they train or use."""

from __future__ import annotations

from typing import Any

from come_nav.memory.episodic.memory import Adapter
from come_nav.navigation.stack import NavStack
from come_nav.ros.diagnostics import Level, Report


def adapter_values(adapter: Adapter | None) -> dict[str, Any]:
    """Return version, training steps, frames and loss of an adapter; version 0 stands for none."""
    facts = {} if adapter is None else adapter.metadata
    values = {f"adapter_{name}": facts.get(name, 0) for name in ("version", "steps", "frames")}
    return values | ({"adapter_loss": facts["loss"]} if facts.get("loss") is not None else {})


def version_of(adapter: Adapter | None) -> int:
    """Return the number of an adapter, 0 for none."""
    return 0 if adapter is None else int(adapter.metadata["version"])


def adapter_reports(stack: NavStack) -> list[Report]:
    """Return one report on the adapter in use, or none where the stack has no long-term expert."""
    experts, episode = stack.settings.experts, stack.episode
    chosen = episode.in_use()
    if "long_term" not in chosen.names and not (chosen.asked and "long_term" in chosen.left_out):
        return []
    values = {**adapter_values(episode.adapter), "adapter_from": experts.adapter_store or "trained here"}
    missing, later = episode.diagnostics.get("long_term"), episode.training_diagnosis
    if missing is not None:
        return [Report("long_term", Level.WARN, f"without the long_term expert: {missing}", values)]
    text = f"adapter {version_of(episode.adapter)}" + (f"; a newer one cannot be used: {later}" if later else "")
    return [Report("long_term", Level.WARN if later else Level.OK, text, values)]
