"""The navigation nodes of a robot: spatial memory, planner and controller, and if you like the episodic memory.

The spatial_memory node owns the cloud of points: it saves it into memory_folder, and the planner follows what is there.
Without memory_folder the folder is made anew and lasts as long as the launch.

ros2 launch come_nav nav.launch.py params_file:=my_robot.yaml
ros2 launch come_nav nav.launch.py params_file:=$(ros2 pkg prefix come_nav)/share/come_nav/config/ros_episodic.yaml \\
    episodic_memory:=true
ros2 launch come_nav nav.launch.py composition:=true          (one process: less memory, one interpreter lock)
ros2 launch come_nav nav.launch.py namespace:=robot1 image:=oakd/rgb/preview/image_raw odom:=odom
"""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnShutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from come_nav.ros import launching

ASKED = ("memory_folder", "params_file", "respawn", "composition", "frame_prefix")
CHOSEN = ("spatial_memory", "controller", "episodic_memory")  # arguments that say whether a node runs
OF_THE_MODEL = ("model", "device")
END_S = "20"  # a node that is told to end may be in the middle of a search, and saves its memory
NODES = ("spatial_memory", "planner", "controller", "episodic_memory")
WITH_MODEL = ("planner", "episodic_memory")
WITH_CAMERA = ("spatial_memory", "planner", "episodic_memory")
WITH_MAP = ("spatial_memory", "planner")
WITH_STORE = WITH_CAMERA
FRAMES = {"odom_frame": "odom", "base_frame": "base_link", "map_frame": "map"}
SAVE_PERIOD_S = 2.0  # the planner sees the cloud so late
OF_THE_FILE = {  # argument -> what it is; empty = as params_file says
    "image_transport": "auto, raw or compressed, which lies below the topic of images",
    "depth_transport": "auto, raw or compressedDepth, which lies below the topic of depth",
    "cmd_vel_stamped": "true: TwistStamped, false: Twist",
}


def generate_launch_description() -> LaunchDescription:
    arguments = [
        *launching.common_arguments("ros_nav.yaml", use_sim_time="false"),
        DeclareLaunchArgument("autostart", default_value="true", description="configure and activate at start"),
        DeclareLaunchArgument("respawn", default_value="true", description="start a node that ended anew"),
        DeclareLaunchArgument(
            "composition", default_value="false", description="true: all nodes in one process, which shares torch"
        ),
        DeclareLaunchArgument(
            "spatial_memory", default_value="true", description="remember where things are; false without depth"
        ),
        DeclareLaunchArgument(
            "controller", default_value="true", description="follow plans; false where another one does, as Nav2's"
        ),
        DeclareLaunchArgument(
            "frame_prefix",
            default_value="",
            description="before odom, base_link and map, as robot1/; empty = as params_file says",
        ),
        DeclareLaunchArgument(
            "memory_folder",
            default_value="",
            description="where cloud, places and adapters are kept; empty = as params_file says, the cloud at least "
            "for this launch",
        ),
    ]
    arguments += [
        # In a namespace tf is the robot's own, as with Nav2: /tf becomes tf.
        DeclareLaunchArgument(name, default_value=topic.lstrip("/"), description=f"topic: {text}")
        for name, (topic, text) in launching.TOPICS.items()
    ]
    arguments += [
        DeclareLaunchArgument(name, default_value="", description=f"{text}; empty = as params_file says")
        for name, text in OF_THE_FILE.items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=nodes)])


def nodes(context):
    """Return the nodes, which share a folder; one that was made for this launch goes with it."""
    value = {
        name: LaunchConfiguration(name).perform(context) for name in (*ASKED, *CHOSEN, *OF_THE_MODEL, *OF_THE_FILE)
    }
    if not Path(value["params_file"]).is_file():
        raise RuntimeError(f"params_file {value['params_file']} does not exist; the nodes would run on their defaults")
    made = Path(tempfile.mkdtemp(prefix="come_nav_"))
    kept = value["memory_folder"] or folder_in(value["params_file"])
    names = [name for name in NODES if value.get(name, "true").lower() == "true"]
    own = own_parameters(value, names, Path(kept).expanduser() if kept else made / "memory")
    if "spatial_memory" in names and told(value["params_file"], "spatial_memory", "save_period_s") is None:
        own["spatial_memory"] |= {"save_period_s": SAVE_PERIOD_S}
    if value["composition"].lower() == "true":
        file = made / "own.yaml"  # a dictionary would be for all nodes of the process
        sections = {f"/**/{name}": {"ros__parameters": own[name]} for name in names if own[name]}
        file.write_text(yaml.safe_dump(sections), encoding="utf-8")
        found = [node("come_nav_nodes", value, [str(file)], names)]
    else:
        found = [node(name, value, [own[name]] if own[name] else []) for name in names]
    ending = OnShutdown(on_shutdown=lambda *_: shutil.rmtree(made, ignore_errors=True))
    return [*found, RegisterEventHandler(ending)]


def node(executable: str, value: dict, own: list, words: Sequence[str] = ()) -> Node:
    """Return one process; ``own`` parameters come after those of params_file, ``words`` before ROS's arguments."""
    return Node(
        package="come_nav",
        executable=executable,
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        respawn=value["respawn"].lower() == "true",
        respawn_delay=2.0,
        sigterm_timeout=END_S,
        remappings=[(topic, LaunchConfiguration(argument)) for argument, (topic, _) in launching.TOPICS.items()],
        parameters=[
            LaunchConfiguration("params_file"),
            {"use_sim_time": LaunchConfiguration("use_sim_time"), "autostart": LaunchConfiguration("autostart")},
            *own,
        ],
        arguments=[*words, "--ros-args", "--log-level", LaunchConfiguration("log_level")],
    )


def own_parameters(value: dict, names: Sequence[str], folder: Path) -> dict[str, dict]:
    """Return what each node gets beside params_file, from the launch's arguments."""
    transports = {name: value[name] for name in ("image_transport", "depth_transport") if value[name]}
    own = {name: dict(transports) if name in WITH_CAMERA else {} for name in names}
    for name, parameter in ((name, parameter) for name in names for parameter in FRAMES if value["frame_prefix"]):
        if parameter != "map_frame" or name in WITH_MAP:
            own[name] |= {parameter: value["frame_prefix"] + FRAMES[parameter]}
    for name in set(WITH_MODEL) & set(names):
        own[name] |= {argument: value[argument] for argument in OF_THE_MODEL if value[argument]}
    if "spatial_memory" in names:
        own["planner"] |= {"experts.spatial_store": str(folder)}
    for name in set(WITH_STORE) & set(names):
        if name == "spatial_memory" or value["memory_folder"]:
            own[name] |= {"memory_folder": str(folder)}
    if value["memory_folder"] and "episodic_memory" in names:
        own["planner"] |= {"experts.adapter_store": str(folder)}
    if value["cmd_vel_stamped"] and "controller" in names:
        own["controller"] |= {"cmd_vel_stamped": value["cmd_vel_stamped"].lower() == "true"}
    return own


def folder_in(params_file: str) -> str:
    """Return the memory_folder of the spatial_memory node in a file of parameters, or nothing."""
    return str(told(params_file, "spatial_memory", "memory_folder") or "")


def told(params_file: str, node_name: str, parameter: str) -> object:
    """Return a parameter that a file gives a node, or None where it says nothing, or nothing but an empty text.

    As ROS reads it: names may lie in one another, a later section stands over an earlier one.
    """
    path = Path(params_file)
    content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    found = None
    for section in sections_of(content, node_name):
        value = section.get(parameter, "")
        found = found if value == "" else value
    return found


def sections_of(content: object, node_name: str, name: str = "") -> Iterator[dict]:
    """Yield the parameters of all sections of a file that are a node's, in order."""
    for key, below in content.items() if isinstance(content, dict) else ():
        if key == "ros__parameters":
            if name in (node_name, "**") and isinstance(below, dict):
                yield below
        else:
            yield from sections_of(below, node_name, str(key).strip("/").split("/")[-1])
