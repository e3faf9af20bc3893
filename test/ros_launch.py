"""What a launch file would start, found without launch: its actions are carried out by stand-ins.

Only what the project's files use is there. Substitutions are looked up when they are needed, as launch does.
"""

from __future__ import annotations

import runpy
import sys
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Started:
    """A process that launch would start.

    Attributes:
        package, executable, namespace: as they are.
        files: files of parameters, in order; dictionaries lie in ``parameters``, which come after them.
        parameters: dictionaries, joined.
        remaps: from, to.
        words: what comes before ``--ros-args``.
        options: other keywords of the action.
    """

    package: str
    executable: str
    namespace: str
    files: list[str]
    parameters: dict[str, Any]
    remaps: dict[str, str]
    words: list[str]
    options: dict[str, Any] = field(default_factory=dict)


class Action:
    """Stands for an action; remembers how it was made."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        self.args, self.keywords = args, keywords


class Launch:
    """Carries out a launch file.

    Attributes:
        configurations: name -> value.
        started: processes, in order.
        endings: what is called when launch ends.
    """

    def __init__(self, file: str, **arguments: str) -> None:
        self.configurations: dict[str, str] = dict(arguments)
        self.started: list[Started] = []
        self.endings: list[Callable[..., object]] = []
        with mock.patch.dict(sys.modules, self._modules()):
            self._file(ROOT / "launch" / f"{file}.launch.py")

    def close(self) -> None:
        """End, as launch does."""
        for ending in self.endings:
            ending(None, None)

    def value(self, substitution: Any) -> str:
        """Return a substitution's text."""
        if isinstance(substitution, (list, tuple)):
            return "".join(self.value(part) for part in substitution)
        return str(substitution.perform(None)) if hasattr(substitution, "perform") else str(substitution)

    def _file(self, path: Path) -> None:
        self._all(runpy.run_path(str(path))["generate_launch_description"]().args[0])

    def _all(self, actions: Iterable[Action]) -> None:
        for action in actions:
            condition = action.keywords.get("condition")
            if condition is None or self.value(condition.args[0]).lower() == "true":
                getattr(self, f"_{type(action).__name__}", lambda action: None)(action)

    def _DeclareLaunchArgument(self, action: Action) -> None:
        if "default_value" in action.keywords:
            self.configurations.setdefault(action.args[0], self.value(action.keywords["default_value"]))

    def _IncludeLaunchDescription(self, action: Action) -> None:
        for name, value in dict(action.keywords.get("launch_arguments", {})).items():
            self.configurations[name] = self.value(value)
        path = Path(self.value(action.args[0].args[0]))
        if path.is_relative_to(ROOT):
            self._file(path)

    def _OpaqueFunction(self, action: Action) -> None:
        self._all(action.keywords["function"](None))

    def _RegisterEventHandler(self, action: Action) -> None:
        self.endings.append(action.args[0].keywords["on_shutdown"])

    def _Node(self, action: Action) -> None:
        own = action.keywords
        files = [self.value(item) for item in own["parameters"] if not isinstance(item, dict)]
        joined: dict[str, Any] = {}
        for item in own["parameters"]:
            if isinstance(item, dict):
                joined |= {key: self._typed(value) for key, value in item.items()}
        words = [self.value(word) for word in own.get("arguments", ())]
        words = words[: words.index("--ros-args")] if "--ros-args" in words else words
        remaps = {source: self.value(target) for source, target in own.get("remappings", ())}
        known = ("package", "executable", "namespace", "parameters", "remappings", "arguments", "condition")
        rest = {key: value for key, value in own.items() if key not in known}
        space = self.value(own.get("namespace", ""))
        self.started.append(Started(own["package"], own["executable"], space, files, joined, remaps, words, rest))

    def _typed(self, value: Any) -> Any:
        """Return a parameter as launch_ros does: the text of a substitution is read as YAML."""
        import yaml

        return yaml.safe_load(self.value(value)) if hasattr(value, "perform") else value

    def _modules(self) -> dict[str, types.ModuleType]:
        def module(name: str, **attributes: Any) -> types.ModuleType:
            made = types.ModuleType(name)
            made.__dict__.update(attributes)
            return made

        def actions(*names: str) -> dict[str, type]:
            return {name: type(name, (Action,), {}) for name in names}

        configurations = self.configurations
        configuration = type(
            "LaunchConfiguration", (Action,), {"perform": lambda self, context: configurations[self.args[0]]}
        )
        expression = type("PythonExpression", (Action,), {"perform": lambda self, context: ""})
        share = {"get_package_share_directory": lambda name: str(ROOT) if name == "come_nav" else f"/opt/{name}"}
        return {
            "launch": module("launch", **actions("LaunchDescription")),
            "launch.actions": module(
                "launch.actions",
                **actions("DeclareLaunchArgument", "IncludeLaunchDescription", "ExecuteProcess", "OpaqueFunction"),
                **actions("AppendEnvironmentVariable", "RegisterEventHandler", "GroupAction"),
            ),
            "launch.conditions": module("launch.conditions", **actions("IfCondition")),
            "launch.event_handlers": module("launch.event_handlers", **actions("OnShutdown")),
            "launch.substitutions": module(
                "launch.substitutions", LaunchConfiguration=configuration, PythonExpression=expression
            ),
            "launch.launch_description_sources": module(
                "launch.launch_description_sources", **actions("PythonLaunchDescriptionSource")
            ),
            "launch_ros": module("launch_ros"),
            "launch_ros.actions": module("launch_ros.actions", **actions("Node")),
            "ament_index_python.packages": module("ament_index_python.packages", **share),
        }
