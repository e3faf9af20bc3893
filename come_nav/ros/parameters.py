"""Parameters of nodes: each is declared with its meaning, unit and range, and a wrong value is refused with a reason.

The keys of :class:`come_nav.config.Config` become parameters of the same dotted names, so a node's YAML file and the
command line's configuration speak one language; their defaults are those of the model that the node is given. ROS has
no null: where a key may be null, 0 stands for it. An empty list has no type there: a list of one empty word stands for
it. Names of version 0.1 are taken for the present ones.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.parameter import Parameter as RosParameter

from come_nav.config import RENAMED, Config, load_config
from come_nav.core.errors import ComeNavError, ConfigError, suggest
from come_nav.core.settings import field_explanations, from_mapping

SettingsT = TypeVar("SettingsT")
RULE = re.compile(r"in [\[(][^\[\]()]*[\])]|(?:>=|<=|>|<) [\w.-]*\w")  # of a setting, in its explanation


@dataclass(frozen=True)
class Parameter:
    """One declared parameter.

    Attributes:
        name: dotted name.
        default: also fixes the type.
        description: meaning, unit and range for people.
        low, high: range of a number, both or none.
        choices: allowed words of a string; empty = any.
        when: "start" = read at configure, so it cannot change while the node is active; "any" = at any time.
    """

    name: str
    default: Any
    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    when: str = "any"

    def descriptor(self) -> ParameterDescriptor:
        """Return the ROS descriptor."""
        found = ParameterDescriptor(name=self.name, description=self.description)
        rule = RULE.search(self.description)
        if self.choices:
            found.additional_constraints = "one of " + ", ".join(self.choices)
        elif rule is not None and self.low is None:
            found.additional_constraints = f"must be {rule.group()}"
        if self.low is not None and self.high is not None:
            if isinstance(self.default, int):
                found.integer_range = [IntegerRange(from_value=int(self.low), to_value=int(self.high), step=0)]
            else:
                found.floating_point_range = [FloatingPointRange(from_value=self.low, to_value=self.high, step=0.0)]
        return found


def declare(node: Any, parameters: Sequence[Parameter]) -> None:
    """Declare all parameters; warn about names in the node's YAML that nobody declares.

    Raises:
        ConfigError: a given value is out of range or of another type.
    """
    given = {name: override.value for name, override in node._parameter_overrides.items()}
    for parameter in with_model_defaults(parameters, given.get("model")):
        if parameter.name in given:
            value = _as_float(parameter, given[parameter.name])
            node._parameter_overrides[parameter.name] = RosParameter(parameter.name, value=value)
        try:
            node.declare_parameter(parameter.name, parameter.default, parameter.descriptor())
        except (InvalidParameterValueException, InvalidParameterTypeException) as error:
            raise ConfigError(f"{node.get_name()}: {' '.join(str(error).split())}") from error
    known = {parameter.name for parameter in parameters} | {"use_sim_time", "start_type_description_service"}
    renamed = {old: new for old, new in RENAMED.items() if old in given and new in known}
    for old, new in renamed.items():
        _take_old_name(node, old, new, given)
    for name in sorted(set(given) - known - set(renamed)):
        if not name.startswith("qos_overrides."):
            node.get_logger().warning(f"parameter '{name}' is unknown and has no effect{suggest(name, known)}")


def _as_float(parameter: Parameter, value: Any) -> Any:
    """Return a value with whole numbers as floats where those are expected: YAML writes 1 for 1.0."""
    if isinstance(parameter.default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    floats = isinstance(parameter.default, list) and all(isinstance(item, float) for item in parameter.default)
    if floats and parameter.default and isinstance(value, Sequence) and not isinstance(value, str):
        return [float(item) if isinstance(item, int) else item for item in value]
    return value


def _take_old_name(node: Any, old: str, new: str, given: Mapping[str, Any]) -> None:
    """Give the parameter ``new`` the value that the node's YAML has under its name of version 0.1."""
    if new in given:
        node.get_logger().warning(f"parameter '{old}' is '{new}' now, which is given as well: '{old}' has no effect")
        return
    try:
        answer = node.set_parameters([RosParameter(new, value=given[old])])[0]
        refusal = "" if answer.successful else answer.reason
    except (InvalidParameterValueException, InvalidParameterTypeException) as error:
        refusal = str(error)
    if refusal:
        raise ConfigError(f"{node.get_name()}: parameter '{old}' ('{new}' now): {' '.join(refusal.split())}")
    node.get_logger().warning(f"parameter '{old}' is '{new}' now; its value {given[old]} is taken")


def with_model_defaults(parameters: Sequence[Parameter], model: Any) -> tuple[Parameter, ...]:
    """Return the parameters with what was tuned to ``model`` as defaults, where it is another than the default one."""
    if not isinstance(model, str) or model == Config.model:
        return tuple(parameters)
    tuned = {key: default for key, default, _, _ in _keys(load_config(None, {"model": model}), "") if key != "model"}
    return tuple(
        dataclasses.replace(parameter, default=tuned.get(parameter.name, parameter.default)) for parameter in parameters
    )


def values_of(node: Any, parameters: Sequence[Parameter]) -> dict[str, Any]:
    """Return name -> value; arrays become tuples."""
    values = {}
    for parameter in parameters:
        value = node.get_parameter(parameter.name).value
        values[parameter.name] = tuple(value) if hasattr(value, "__len__") and not isinstance(value, str) else value
    return values


def evaluate(
    parameters: Sequence[Parameter], changed: Sequence[RosParameter], present: Mapping[str, Any], running: bool
) -> SetParametersResult:
    """Accept or refuse changed values; the reason names the parameter and the rule."""
    known = {parameter.name: parameter for parameter in parameters}
    values = dict(present)
    for change in changed:
        parameter = known.get(change.name)
        if parameter is None:
            continue
        if running and parameter.when == "start":
            reason = f"{change.name} is read when the node is configured: deactivate and clean it up first"
            return SetParametersResult(successful=False, reason=reason)
        if parameter.choices and change.value not in parameter.choices:
            near = suggest(str(change.value), parameter.choices)
            return SetParametersResult(successful=False, reason=f"{change.name} is '{change.value}'{near}")
        values[change.name] = change.value
    try:
        config_from(values)
    except ComeNavError as error:
        return SetParametersResult(successful=False, reason=str(error))
    return SetParametersResult(successful=True)


# -- the keys of Config --------------------------------------------------------------------------------------------


def settings_parameters(settings: Any, prefix: str) -> tuple[Parameter, ...]:
    """Return parameters for the fields of a settings dataclass, read at configure."""
    return tuple(
        Parameter(key, default, explanation + ("; 0 = null" if optional else ""), when="start")
        for key, default, optional, explanation in _keys(settings, prefix)
    )


def settings_from(settings: SettingsT, values: Mapping[str, Any], prefix: str) -> SettingsT:
    """Return the settings with those ``values`` (dotted names); raise ConfigError naming the key and the rule."""
    found: dict[str, Any] = {}
    for key, _, optional, _ in _keys(settings, prefix):
        *parents, last = key.removeprefix(prefix).split(".")
        group = found
        for parent in parents:
            group = group.setdefault(parent, {})
        group[last] = None if optional and values[key] == 0 else values[key]
    return from_mapping(type(settings), found, prefix)


START_GROUPS = ("memory.", "inference.", "experts.", "spatial.", "retrieval.", "episodic.", "lora.")
START_KEYS = ("model", "device", "seed", *START_GROUPS)


def config_parameters(*sections: str) -> tuple[Parameter, ...]:
    """Return parameters for the keys of Config: all, or those of ``sections`` (e.g. "follower", "experts.budget")."""
    found = []
    for key, default, optional, explanation in _keys(load_config(), ""):
        if sections and not any(f"{key}.".startswith(f"{section}.") for section in sections):
            continue
        note = "; 0 = null" if optional else ""
        when = "start" if key.startswith(START_KEYS) else "any"
        found.append(Parameter(key, default, explanation + note, when=when))
    return tuple(found)


def config_from(values: Mapping[str, Any]) -> Config:
    """Return the Config of those ``values`` (dotted names) that are keys of it.

    Raises:
        ConfigError: naming the key and the rule.
    """
    overrides = {}
    for key, default, optional, _ in _keys(Config(), ""):
        if key in values:
            value = values[key]
            if isinstance(default, list):
                value = [item for item in value if item != ""]
            overrides[key] = None if optional and value == 0 else value
    return load_config(None, overrides)


def _keys(settings: Any, prefix: str) -> Iterator[tuple[str, Any, bool, str]]:
    """Yield (dotted key, default, whether null is allowed, explanation) of a settings dataclass, depth first."""
    hints = typing.get_type_hints(type(settings))
    explanations = field_explanations(type(settings))
    for field in dataclasses.fields(settings):
        value, kind = getattr(settings, field.name), hints[field.name]
        if dataclasses.is_dataclass(value):
            yield from _keys(value, f"{prefix}{field.name}.")
            continue
        options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
        plain = next(option for option in options if option is not type(None))
        if dataclasses.is_dataclass(plain):
            continue  # optional groups of settings, such as a sampler, belong to the model
        optional = type(None) in options
        default = plain(0) if value is None else value
        yield (
            f"{prefix}{field.name}",
            (list(default) or [""]) if isinstance(default, tuple) else default,
            optional,
            " ".join(explanations.get(field.name, [])),
        )
