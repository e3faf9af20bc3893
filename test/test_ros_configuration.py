"""Parameters, their YAML files, launch files and views: what a user edits fits what the nodes declare."""

from __future__ import annotations

import json
import os
import runpy
import sys
import types
from pathlib import Path
from typing import ClassVar
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'come_nav[ros]'")
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.parameter import Parameter as RosParameter
from ros_harness import private_environment
from ros_launch import Launch

from come_nav.config import load_config
from come_nav.core.errors import ConfigError
from come_nav.ros.node import ManagedNode
from come_nav.ros.parameters import (
    Parameter,
    config_from,
    config_parameters,
    declare,
    evaluate,
    settings_from,
    settings_parameters,
    values_of,
)
from come_nav.ros.run import NODES, node_class
from come_nav.ros.transforms import camera_pose, listen

ROOT = Path(__file__).resolve().parents[1]
PARAMETER_FILES = sorted((ROOT / "config").glob("ros_*.yaml"))
DECLARED = {name: {item.name: item for item in node_class(name).PARAMETERS} for name in NODES}


def flat(values: dict, prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


@pytest.mark.parametrize("name", NODES)
def test_every_parameter_is_described_and_its_default_is_in_range(name):
    for key, item in DECLARED[name].items():
        assert item.description, key
        if item.low is not None and item.high is not None and item.default == item.default:
            assert item.low <= item.default <= item.high, key
        if item.choices:
            assert item.default in item.choices, key
        assert isinstance(item.default, (bool, int, float, str, list)), key
        item.descriptor()


@pytest.mark.parametrize("file", PARAMETER_FILES, ids=lambda path: path.name)
def test_every_key_of_the_parameter_files_is_declared_and_accepted(file):
    common = {"autostart", "diagnostics_rate_hz", "use_sim_time"}
    sections = yaml.safe_load(file.read_text())
    assert sections
    for section, content in sections.items():
        node = section.rpartition("/")[2]
        values = flat(content["ros__parameters"])
        for key, value in values.items():
            owners = [DECLARED[node]] if node != "**" else [known for known in DECLARED.values() if key in known]
            assert key in common or (owners and all(key in known for known in owners)), f"{section}: {key}"
            for known in owners:
                if key in known:
                    assert type(value) is type(known[key].default), f"{key}: ROS parameters do not change type"
        if node in DECLARED:
            defaults = {key: item.default for key, item in DECLARED[node].items()}
            config_from({**defaults, **values})


def test_every_key_of_the_configuration_is_a_parameter():
    keys = {item.name for item in config_parameters()}
    assert {"model", "planner.samples", "planner.limits.v_max_mps", "memory.rate_hz", "follower.gain_x"} <= keys
    assert config_from({item.name: item.default for item in config_parameters()}) == load_config()


def test_zero_stands_for_null_and_values_reach_the_configuration():
    values = {item.name: item.default for item in config_parameters()}
    changed = config_from(
        {**values, "planner.initial_samples": 0, "planner.samples": 60, "objective.image_scales": [1]}
    )
    assert changed == load_config(
        None, ["planner.initial_samples=null", "planner.samples=60", "objective.image_scales=[1]"]
    )


@pytest.fixture
def declared(monkeypatch):
    """Return what declares all keys of the configuration in a node with given parameters, and reads them."""
    for key, value in private_environment().items():
        monkeypatch.setenv(key, value)
    context = rclpy.Context()
    rclpy.init(context=context)
    nodes, told = [], []

    def declare_in_a_node(**given: object):
        overrides = [RosParameter(name.replace("__", "."), value=value) for name, value in given.items()]
        node = rclpy.create_node(f"of_{len(nodes)}", context=context, parameter_overrides=overrides)
        nodes.append(node)
        monkeypatch.setattr(node, "get_logger", lambda: types.SimpleNamespace(warning=told.append))
        declare(node, config_parameters())
        return config_from(values_of(node, config_parameters())), told

    yield declare_in_a_node
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown(context=context)


def test_defaults_are_those_of_the_model_that_is_given(declared, tmp_path):
    (tmp_path / "config.yaml").write_text("navigation: {lora: {rank: 8}, experts: {use: [spatial]}}\n")
    config, told = declared(model=str(tmp_path), lora__alpha=5)
    assert config == load_config(None, {"model": str(tmp_path), "lora.alpha": 5})
    assert (config.lora.rank, config.lora.alpha, config.experts.use) == (8, 5, ("spatial",))
    assert declared()[0] == load_config()
    assert declared(experts__use=[""])[0].experts.use == ()
    assert told == []


def test_names_of_the_first_version_are_taken_for_the_present_ones(declared):
    config, told = declared(objective__haste=0.4)
    assert config.objective.path_cost_fraction == 0.4
    assert told == ["parameter 'objective.haste' is 'objective.path_cost_fraction' now; its value 0.4 is taken"]
    config, told = declared(objective__haste=0.4, objective__path_cost_fraction=0.3)
    assert config.objective.path_cost_fraction == 0.3
    assert "'objective.haste' has no effect" in told[-1]
    with pytest.raises(ConfigError, match=r"parameter 'objective\.haste' \('objective\.path_cost_fraction' now\): "):
        declared(objective__haste="much")


def test_settings_of_a_room_become_parameters_and_back():
    from come_nav.memory.spatial.settings import SpatialSettings

    parameters = settings_parameters(SpatialSettings(), "spatial.")
    values = {item.name: item.default for item in parameters}
    assert settings_from(SpatialSettings(), values, "spatial.") == SpatialSettings()
    assert settings_from(SpatialSettings(), {**values, "spatial.voxel_m": 0.1}, "spatial.").voxel_m == 0.1


@pytest.mark.parametrize(
    ("name", "value", "running", "reason"),
    [
        ("planner.samples", 0, False, "planner.samples must be >= 1, got 0"),
        ("planner.samples", 50, True, ""),
        ("model", "other", True, "model is read when the node is configured"),
        ("image_transport", "compresed", False, "image_transport is 'compresed'; did you mean 'compressed'?"),
    ],
)
def test_values_are_accepted_or_refused_with_a_reason(name, value, running, reason):
    parameters = list(DECLARED["planner"].values())
    present = {item.name: item.default for item in parameters}
    answer = evaluate(parameters, [RosParameter(name, value=value)], present, running)
    assert answer.successful is (reason == "")
    assert answer.reason.startswith(reason)


def test_whole_numbers_are_taken_for_floats(declared):
    config, told = declared(max_sensor_age_s=2, follower__gain_x=1)
    assert (config.max_sensor_age_s, config.follower.gain_x, told) == (2.0, 1.0, [])
    with pytest.raises(ConfigError, match="max_sensor_age_s"):
        declared(max_sensor_age_s="2")


def test_every_number_of_the_configuration_tells_its_rule():
    told = {item.name: item.descriptor().additional_constraints for item in config_parameters()}
    assert told["planner.samples"] == "must be >= 1"
    assert told["planner.std_floor"] == "must be in (0, 1]"
    assert told["planner.limits.v_max_mps"] == "must be > v_min_mps"
    numbers = [item for item in config_parameters() if type(item.default) in (int, float)]
    assert sum(not told[item.name] for item in numbers) < 0.15 * len(numbers)


class Listening(ManagedNode):
    """Listens to tf as every node with a camera does."""

    def setup(self) -> None:
        self.transforms = listen(self)


@pytest.mark.parametrize("with_tf2_ros", [True, False])
def test_no_subscription_outlives_a_clean_up(monkeypatch, with_tf2_ros):
    for key, value in private_environment().items():
        monkeypatch.setenv(key, value)
    closed = []
    listener = types.SimpleNamespace(unregister=lambda: closed.append(1))
    tf2_ros = types.SimpleNamespace(Buffer=lambda: None, TransformListener=lambda buffer, node: listener)
    modules = {
        "tf2_ros": tf2_ros if with_tf2_ros else None,
        "tf2_msgs.msg": types.SimpleNamespace(TFMessage=PoseStamped),
    }
    monkeypatch.setattr("come_nav.ros.transforms.optional_module", modules.get)
    context = rclpy.Context()
    rclpy.init(context=context)
    node = Listening("listening", context=context)
    try:
        before = len(list(node.subscriptions))
        for _ in range(3):
            node.on_configure(None)
            assert len(list(node.subscriptions)) - before == (0 if with_tf2_ros else 2)
            node.on_cleanup(None)
        assert (len(list(node.subscriptions)), len(closed)) == (before, 3 * with_tf2_ros)
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)


def test_descriptors_carry_ranges():
    found = Parameter("rate", 2.0, "how often, Hz", 0.5, 10.0).descriptor()
    assert (found.floating_point_range[0].from_value, found.floating_point_range[0].to_value) == (0.5, 10.0)
    assert Parameter("count", 2, "number", 1, 9).descriptor().integer_range[0].to_value == 9


# -- launch files, against stand-ins for launch and launch_ros, which exist on a robot only ------------------------


class Recorded:
    """Stands for any launch class and remembers how it was made."""

    made: ClassVar[list[Recorded]] = []

    def __init__(self, *args, **keywords):
        self.args, self.keywords = args, keywords
        Recorded.made.append(self)

    def perform(self, context: object) -> str:
        """Return the value of a launch configuration: the default that its argument declares, a path if it is one."""
        declared = [item for item in of_class("DeclareLaunchArgument") if item.args[0] == self.args[0]]
        return str(declared[-1].keywords.get("default_value", ""))


@pytest.fixture
def launch_modules(monkeypatch):
    def module(name: str, *names: str) -> types.ModuleType:
        made = types.ModuleType(name)
        for attribute in names:
            setattr(made, attribute, type(attribute, (Recorded,), {}))
        monkeypatch.setitem(sys.modules, name, made)
        return made

    Recorded.made = []
    module("launch", "LaunchDescription")
    actions = ("DeclareLaunchArgument", "IncludeLaunchDescription", "ExecuteProcess", "RegisterEventHandler")
    module("launch.actions", *actions, "OpaqueFunction", "AppendEnvironmentVariable")
    module("launch.event_handlers", "OnShutdown")
    module("launch.conditions", "IfCondition")
    module("launch.substitutions", "LaunchConfiguration", "PythonExpression")
    module("launch.launch_description_sources", "PythonLaunchDescriptionSource")
    module("launch_ros", "actions")
    module("launch_ros.actions", "Node")
    index = module("ament_index_python.packages")
    index.get_package_share_directory = lambda package: str(ROOT) if package == "come_nav" else f"/opt/{package}"
    return Recorded


def of_class(name: str) -> list[Recorded]:
    return [item for item in Recorded.made if type(item).__name__ == name]


@pytest.mark.parametrize("file", sorted((ROOT / "launch").glob("*.launch.py")), ids=lambda path: path.name)
def test_launch_files_name_what_exists(file, launch_modules):
    description = runpy.run_path(str(file))["generate_launch_description"]()
    assert type(description).__name__ == "LaunchDescription"
    for opaque in of_class("OpaqueFunction"):
        opaque.keywords["function"](None)
    arguments = {item.args[0]: item.keywords for item in of_class("DeclareLaunchArgument")}
    assert all(keywords.get("description") for keywords in arguments.values())
    for item in of_class("LaunchConfiguration"):
        assert item.args[0] in arguments, f"{item.args[0]} is used but not declared"
    for name, keywords in arguments.items():
        default = str(keywords.get("default_value", ""))
        if default.startswith("/") and not name.endswith("_topic"):
            assert Path(default).is_file(), default
    for node in of_class("Node"):
        if node.keywords["package"] != "come_nav":
            continue
        executable = node.keywords["executable"]
        assert os.access(ROOT / "scripts" / executable, os.X_OK), executable
        for values in node.keywords["parameters"]:
            if isinstance(values, dict):
                known = set(DECLARED[executable]) | {"use_sim_time", "autostart"}
                assert set(values) <= known, set(values) - known
    for source in of_class("PythonLaunchDescriptionSource"):
        path = Path(source.args[0])
        assert path.is_file() or path.is_relative_to("/opt"), path
    if file.name in ("turtlebot4.launch.py", "realsense.launch.py", "rgb_only.launch.py"):  # the rest: nav.launch.py's
        nav = runpy.run_path(str(ROOT / "launch" / "nav.launch.py"))["generate_launch_description"]()
        known = {item.args[0] for item in nav.args[0] if type(item).__name__ == "DeclareLaunchArgument"}
        assert set(arguments) <= known
    elif file.name != "record.launch.py":
        assert {"namespace", "params_file", "use_sim_time", "log_level", "model", "device"} <= set(arguments)


def test_the_planner_follows_the_cloud_of_the_spatial_memory(launch_modules, tmp_path):
    started = runpy.run_path(str(ROOT / "launch" / "nav.launch.py"))
    started["generate_launch_description"]()
    [opaque] = of_class("OpaqueFunction")
    opaque.keywords["function"](None)
    own = {node.keywords["executable"]: node.keywords["parameters"][-1] for node in of_class("Node")}
    folder = Path(own["spatial_memory"]["memory_folder"])
    assert own["planner"] == {"experts.spatial_store": str(folder)}  # model and device are those of params_file
    words = ("image_transport", "depth_transport", "cmd_vel_stamped", "frame_prefix", "device", "memory_folder")
    given = dict.fromkeys(words, "")
    asked = started["own_parameters"]({**given, "model": "small"}, ["planner", "controller"], folder)
    assert asked == {"planner": {"model": "small"}, "controller": {}}
    assert folder.parent.is_dir()
    [ending] = of_class("OnShutdown")
    ending.keywords["on_shutdown"](None, None)
    assert not folder.parent.exists()

    in_a_namespace = dict(of_class("Node")[0].keywords["remappings"])
    assert in_a_namespace["/tf"].args == ("tf_topic",)
    declared = {item.args[0]: item.keywords["default_value"] for item in of_class("DeclareLaunchArgument")}
    assert (declared["tf_topic"], declared["tf_static_topic"]) == ("tf", "tf_static")  # of the robot, as Nav2's
    subscribed = {"camera/color/image_raw", "camera/depth/image_raw", "odom", "cmd_vel", "/tf", "/tf_static"}
    assert subscribed <= set(in_a_namespace)
    assert all(node.keywords["respawn"] for node in of_class("Node"))

    params = tmp_path / "robot.yaml"
    params.write_text("/**/spatial_memory:\n  ros__parameters:\n    memory_folder: /mnt/map\n")
    assert started["folder_in"](str(params)) == "/mnt/map"
    params.write_text("robot1: {spatial_memory: {ros__parameters: {memory_folder: /m}}}")
    assert started["folder_in"](str(params)) == "/m"
    both = "/**: {ros__parameters: {memory_folder: /all}}\n/spatial_memory: {ros__parameters: {memory_folder: /own}}"
    params.write_text(both)
    assert started["folder_in"](str(params)) == "/own"
    params.write_text("/**:\n  ros__parameters:\n/**/planner: {ros__parameters: {memory_folder: /other}}")
    assert started["folder_in"](str(params)) == ""


def with_arguments(file: str, **arguments: str) -> dict[str, dict[str, object]]:
    """Return each node's own parameters when launch gets ``arguments``."""
    carried = Launch(file, **arguments)
    carried.close()
    return {own.executable: own.parameters for own in carried.started}


def test_the_folder_of_a_launch_is_that_of_all_nodes(tmp_path):
    """Key frames and adapters outlive a restart as the cloud does; a file of parameters keeps its own period."""
    folder = str(tmp_path / "store")
    own = with_arguments("nav", memory_folder=folder, episodic_memory="true")
    for name in ("spatial_memory", "planner", "episodic_memory"):
        assert own[name]["memory_folder"] == folder
    assert own["planner"]["experts.spatial_store"] == own["planner"]["experts.adapter_store"] == folder
    assert own["spatial_memory"]["save_period_s"] == 2.0
    file = tmp_path / "robot.yaml"
    file.write_text("/**/spatial_memory:\n  ros__parameters:\n    save_period_s: 30.0\n")
    slower = with_arguments("nav", memory_folder=folder, params_file=str(file))
    assert "save_period_s" not in slower["spatial_memory"]
    assert "memory_folder" not in with_arguments("nav")["planner"]


def test_another_controller_may_drive():
    assert "controller" not in with_arguments("nav", controller="false", cmd_vel_stamped="true")


def test_recording_follows_topics_and_namespace(launch_modules, monkeypatch):
    started = runpy.run_path(str(ROOT / "launch" / "record.launch.py"))
    started["generate_launch_description"]()
    defaults = Recorded.perform
    chosen = {"namespace": "robot1/", "image": "oakd/rgb/image_raw/compressed", "tf_topic": "tf"}
    monkeypatch.setattr(Recorded, "perform", lambda self, context: chosen.get(self.args[0]) or defaults(self, context))
    [process] = started["recorder"](None)
    words = process.keywords["cmd"]
    assert words[:3] == ["ros2", "bag", "record"]
    asked = ["/robot1/oakd/rgb/image_raw/compressed", "/robot1/camera/depth/image_raw", "/robot1/odom", "/robot1/tf"]
    assert set(asked) | {"/tf_static", "/diagnostics", "/robot1/plan"} <= set(words)
    chosen.clear()
    assert "/camera/color/image_raw" in started["recorder"](None)[0].keywords["cmd"]


def test_composed_nodes_get_the_parameters_that_they_get_apart(launch_modules, monkeypatch):
    started = runpy.run_path(str(ROOT / "launch" / "nav.launch.py"))
    started["generate_launch_description"]()
    defaults = Recorded.perform
    chosen = {"episodic_memory": "true", "image_transport": "raw"}
    monkeypatch.setattr(Recorded, "perform", lambda self, context: chosen.get(self.args[0]) or defaults(self, context))
    started["nodes"](None)
    apart = {node.keywords["executable"]: node.keywords["parameters"] for node in of_class("Node")}
    assert list(apart) == ["spatial_memory", "planner", "controller", "episodic_memory"]
    Recorded.made = [item for item in Recorded.made if type(item).__name__ != "Node"]
    chosen["composition"] = "true"
    started["nodes"](None)
    [process] = of_class("Node")
    assert process.keywords["executable"] == "come_nav_nodes"
    assert process.keywords["arguments"][:4] == list(apart)
    sections = yaml.safe_load(Path(process.keywords["parameters"][-1]).read_text())
    for name, parameters in apart.items():
        own = {} if parameters[-1] is parameters[1] else dict(parameters[-1])
        together = sections.get(f"/**/{name}", {}).get("ros__parameters", {})
        for values in (own, together):  # a folder of each launch's own
            for key in ("memory_folder", "experts.spatial_store"):
                values.pop(key, None)
        assert together == {key: value for key, value in own.items() if key not in ("use_sim_time", "autostart")}


def test_a_params_file_that_is_missing_is_said_so(launch_modules, monkeypatch):
    started = runpy.run_path(str(ROOT / "launch" / "nav.launch.py"))
    monkeypatch.setattr(Recorded, "perform", lambda self, context: "/no/such.yaml")
    with pytest.raises(RuntimeError, match=r"params_file /no/such\.yaml does not exist"):
        started["nodes"](None)


def test_commands_go_through_nav2s_parts_to_the_base_and_nowhere_else():
    launch = Launch("nav2_parts", base_cmd_vel="base/cmd_vel")
    launch.close()
    nodes = {process.executable: process for process in launch.started}
    assert list(nodes) == [
        *("spatial_memory", "planner", "controller", "velocity_smoother", "twist_mux", "collision_monitor"),
        "lifecycle_manager",
    ]
    values = yaml.safe_load((ROOT / "config" / "nav2_parts.yaml").read_text())
    own = {name.split("/")[-1]: section["ros__parameters"] for name, section in values.items()}
    mux, monitor = own["twist_mux"]["topics"], own["collision_monitor"]
    hops = [
        nodes["controller"].remaps["cmd_vel"],
        nodes["velocity_smoother"].remaps["cmd_vel"],
        nodes["velocity_smoother"].remaps["cmd_vel_smoothed"],
        mux["navigation"]["topic"],
        nodes["twist_mux"].remaps["cmd_vel_out"],
        monitor["cmd_vel_in_topic"],
    ]
    assert hops[0] == hops[1]
    assert hops[2] == hops[3]
    assert hops[4] == hops[5]
    assert nodes["collision_monitor"].remaps[monitor["cmd_vel_out_topic"]] == "base/cmd_vel"
    assert mux["teleop"]["priority"] > mux["navigation"]["priority"]
    assert set(nodes["lifecycle_manager"].parameters["node_names"]) == {"velocity_smoother", "collision_monitor"}
    limits = yaml.safe_load((ROOT / "config" / "ros_nav.yaml").read_text())["/**/controller"]["ros__parameters"]
    assert own["velocity_smoother"]["max_velocity"][0] == limits["follower"]["limits"]["v_max_mps"]
    tree = ElementTree.parse(ROOT / "config" / "nav2_navigate_to_image.xml").getroot()
    assert tree.find(".//NavigateToImage").get("server_name") == "navigate_to_image"


def test_robots_in_one_tree_have_frames_of_their_own():
    launch = Launch("nav", namespace="robot1", frame_prefix="robot1/", tf_topic="/tf")
    launch.close()
    for process in launch.started:
        assert process.parameters["odom_frame"] == "robot1/odom"
        assert process.parameters["base_frame"] == "robot1/base_link"
        assert set(process.parameters) - {"use_sim_time", "autostart"} <= set(DECLARED[process.executable])
        assert process.remaps["/tf"] == "/tf"
    assert launch.started[1].parameters["map_frame"] == "robot1/map"
    plain = Launch("nav")
    plain.close()
    assert all("odom_frame" not in process.parameters for process in plain.started)


def test_the_profile_of_fast_dds_holds_images():
    space = {"p": "http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles"}
    profiles = ElementTree.parse(ROOT / "config" / "fastdds.xml").getroot()
    kinds = {
        item.findtext("p:transport_id", namespaces=space): item
        for item in profiles.iterfind(".//p:transport_descriptor", space)
    }
    segment = int(kinds["shared_memory"].findtext("p:segment_size", namespaces=space))
    assert segment >= 10 * 640 * 480 * 3
    used = [item.text for item in profiles.iterfind(".//p:userTransports/p:transport_id", space)]
    assert set(used) == set(kinds)
    assert profiles.find("p:participant", space).get("is_default_profile") == "true"


def test_nodes_of_one_robot_agree_on_where_its_camera_sits():
    for file in PARAMETER_FILES:
        sections = yaml.safe_load(file.read_text())
        told = {
            name: sections[f"/**/{name}"]["ros__parameters"].get(
                "camera_xyz_rpy", DECLARED[name]["camera_xyz_rpy"].default
            )
            for name in ("spatial_memory", "planner", "episodic_memory")
            if f"/**/{name}" in sections
        }
        assert len({tuple(value) for value in told.values()}) == 1, (file.name, told)


def test_gazebo_finds_the_robot_in_whatever_folder_it_starts(launch_modules):
    runpy.run_path(str(ROOT / "launch" / "gazebo.launch.py"))["generate_launch_description"]()
    paths = {item.args[0]: item.args[1] for item in of_class("AppendEnvironmentVariable")}
    world = ElementTree.parse(ROOT / "config" / "gazebo" / "rooms.sdf").getroot()
    assert (Path(paths["GZ_SIM_RESOURCE_PATH"]) / str(world.findtext(".//include/uri"))).is_file()
    bridge = next(node for node in of_class("Node") if node.keywords["package"] == "ros_gz_bridge")
    assert bridge.keywords["namespace"].args == ("namespace",)
    topics = yaml.safe_load((ROOT / "config" / "gazebo" / "bridge.yaml").read_text())
    assert [entry["ros_topic_name"] for entry in topics if entry["ros_topic_name"].startswith("/")] == ["/clock"]
    assert {"headless", "robot_state_publisher"} <= {item.args[0] for item in of_class("DeclareLaunchArgument")}
    [arguments] = [
        item.keywords["launch_arguments"]
        for item in of_class("IncludeLaunchDescription")
        if "gz_args" in dict(item.keywords["launch_arguments"])
    ]
    assert "headless" in {
        part.args[0]
        for word in dict(arguments)["gz_args"]
        if isinstance(word, Recorded)
        for part in word.args[0]
        if isinstance(part, Recorded)
    }


@pytest.mark.parametrize("simulator", ["sim", "gazebo", "habitat"])
def test_simulators_tell_by_tf_where_their_camera_sits(simulator, launch_modules):
    runpy.run_path(str(ROOT / "launch" / f"{simulator}.launch.py"))["generate_launch_description"]()
    publisher = next(node for node in of_class("Node") if node.keywords["package"] == "robot_state_publisher")
    urdf = ElementTree.fromstring(publisher.keywords["parameters"][0]["robot_description"])
    T = np.eye(4)
    for joint in urdf.iter("joint"):  # a chain from base_link to the optical frame
        origin = joint.find("origin")
        xyz, rpy = (np.array(origin.get(key).split(), float) for key in ("xyz", "rpy"))
        T = T @ camera_pose((*xyz, *rpy)) @ np.linalg.inv(camera_pose((0.0,) * 6))
    np.testing.assert_allclose(T, camera_pose((0.0, 0.0, 0.5, 0.0, 0.0, 0.0)), atol=1e-9)
    robot = ElementTree.parse(ROOT / "config" / "gazebo" / "robot.sdf").getroot()
    assert robot.findtext(".//sensor[@type='rgbd_camera']/pose") == "0 0 0.5 0 0 0"


def test_launch_files_run_under_launch_ros():
    pytest.importorskip("launch_ros", reason="launch_ros is part of a ROS installation, not on PyPI")
    for file in (ROOT / "launch").glob("*.launch.py"):
        assert runpy.run_path(str(file))["generate_launch_description"]().entities


# -- views and the Gazebo world ------------------------------------------------------------------------------------

PUBLISHED = {"spatial_memory", "obstacles", "candidates", "plan", "route", "odom", "camera/color/image_raw"}
PUBLISHED |= {"imagined_image", "goal_pose", "goal_image", "camera/color/camera_info", "cmd_vel"}
PUBLISHED |= {"navigation_status", "diagnostics"}
DISPLAYS = {"Grid", "TF", "PointCloud2", "MarkerArray", "Path", "Odometry", "Image"}


def test_rviz_shows_topics_that_the_nodes_publish():
    view = yaml.safe_load((ROOT / "config" / "rviz" / "nav.rviz").read_text())["Visualization Manager"]
    kinds = {item["Class"].removeprefix("rviz_default_plugins/") for item in view["Displays"]}
    assert kinds == DISPLAYS
    topics = {item["Topic"]["Value"] for item in [*view["Displays"], *view["Tools"]] if "Topic" in item}
    assert topics <= PUBLISHED
    latched = {item["Topic"]["Value"] for item in view["Displays"] if "Transient" in str(item.get("Topic"))}
    assert latched == {"spatial_memory", "obstacles", "route"}
    assert view["Global Options"]["Fixed Frame"] == "odom"


def test_foxglove_layout_shows_topics_that_the_nodes_publish():
    text = (ROOT / "config" / "foxglove" / "nav.json").read_text()
    layout = json.loads(text)

    def leaves(part):
        return [part] if isinstance(part, str) else leaves(part["first"]) + leaves(part["second"])

    assert sorted(leaves(layout["layout"])) == sorted(layout["configById"])
    topics = {word.split(".")[0] for word in text.split('"') if word.startswith("/")}
    assert {topic.lstrip("/") for topic in topics} <= PUBLISHED


def test_gazebo_bridge_fits_the_robot_and_the_nodes():
    folder = ROOT / "config" / "gazebo"
    bridge = yaml.safe_load((folder / "bridge.yaml").read_text())
    keys = {"ros_topic_name", "gz_topic_name", "ros_type_name", "gz_type_name", "direction"}
    assert all(set(entry) == keys for entry in bridge)
    assert {entry["direction"] for entry in bridge} == {"GZ_TO_ROS", "ROS_TO_GZ"}
    robot = ElementTree.parse(folder / "robot.sdf").getroot()
    drive = next(item for item in robot.iter("plugin") if item.get("name") == "gz::sim::systems::DiffDrive")
    offered = {drive.findtext("topic"), drive.findtext("odom_topic"), drive.findtext("tf_topic"), "clock"}
    camera = robot.find(".//sensor[@type='rgbd_camera']")
    assert camera is not None
    offered |= {f"{camera.findtext('topic')}/{leaf}" for leaf in ("image", "depth_image", "camera_info")}
    assert {entry["gz_topic_name"].lstrip("/") for entry in bridge} == offered
    assert (drive.findtext("frame_id"), drive.findtext("child_frame_id")) == ("odom", "base_link")
    world = ElementTree.parse(folder / "rooms.sdf").getroot()
    plugins = {item.get("name", "").rpartition("::")[2] for item in world.iter("plugin")}
    assert plugins == {"Physics", "UserCommands", "SceneBroadcaster", "Sensors"}
    assert (folder / str(world.findtext(".//include/uri"))).is_file()


# -- documentation -------------------------------------------------------------------------------------------------


def run_as_program(name: str) -> types.SimpleNamespace:
    return types.SimpleNamespace(**runpy.run_path(str(ROOT / "docs" / "make" / f"{name}.py")))


def test_the_tables_of_parameters_are_what_the_nodes_declare():
    program = run_as_program("ros_parameters")
    assert program.page() == program.PAGE.read_text(), "run docs/make/ros_parameters.py"


def test_the_documentation_lists_every_parameter_with_its_default():
    text = (ROOT / "docs" / "ros_topics_and_parameters.md").read_text()
    configuration = {item.name for item in config_parameters()}
    shown = run_as_program("ros_parameters").shown
    for name in NODES:
        for item in node_class(name).PARAMETERS:
            if item.name not in configuration:
                rows = [
                    line
                    for line in text.splitlines()
                    if line.startswith(f"| `{item.name}` | `{shown(item.default)}` |")
                ]
                assert any(item.description in row for row in rows), f"{name}: {item.name}"
