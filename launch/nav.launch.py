"""The navigation nodes of a robot: spatial memory, planner and controller, and if you like the episodic memory.

The spatial_memory node owns the cloud of points: it saves it into memory_folder, and the planner follows what is there.
Without memory_folder the folder is made anew and lasts as long as the launch.

ros2 launch come_nav nav.launch.py params_file:=my_robot.yaml
ros2 launch come_nav nav.launch.py params_file:=$(ros2 pkg prefix come_nav)/share/come_nav/config/ros_episodic.yaml \\
    episodic_memory:=true
ros2 launch come_nav nav.launch.py namespace:=robot1 image:=oakd/rgb/preview/image_raw odom:=odom
"""

import shutil
import tempfile
from pathlib import Path

import yaml
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, RegisterEventHandler
from launch.conditions import IfCondition
from launch.event_handlers import OnShutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from come_nav.ros import launching

NODES = ("spatial_memory", "planner", "controller", "episodic_memory")
WITH_MODEL = ("planner", "episodic_memory")
WITH_CAMERA = ("spatial_memory", "planner", "episodic_memory")
SAVE_PERIOD_S = 2.0  # the planner sees the cloud so late
TOPICS = {  # argument -> name that the nodes use, and what it is
    "image": ("camera/color/image_raw", "colour images; compressed ones are looked for below"),
    "camera_info": ("camera/color/camera_info", "calibration of the colour camera"),
    "depth": ("camera/depth/image_raw", "depth images; compressed ones are looked for below"),
    "depth_info": ("camera/depth/camera_info", "calibration of depth; as it is: beside the depth images"),
    "odom": ("odom", "odometry"),
    "cmd_vel": ("cmd_vel", "commands to the base"),
    "tf_topic": ("/tf", "transforms; /tf itself where robots share one tree of prefixed frames"),
    "tf_static_topic": ("/tf_static", "static transforms"),
}
OF_THE_FILE = {  # argument -> what it is; empty = as params_file says
    "image_transport": "auto, raw or compressed",
    "depth_transport": "auto, raw or compressedDepth",
    "cmd_vel_stamped": "true: TwistStamped, false: Twist",
}


def generate_launch_description() -> LaunchDescription:
    arguments = [
        *launching.common_arguments("ros_nav.yaml", use_sim_time="false"),
        DeclareLaunchArgument("autostart", default_value="true", description="configure and activate at start"),
        DeclareLaunchArgument("respawn", default_value="true", description="start a node that ended anew"),
        DeclareLaunchArgument(
            "spatial_memory", default_value="true", description="remember where things are; false without depth"
        ),
        DeclareLaunchArgument(
            "memory_folder", default_value="", description="where the cloud is kept; empty = anew for this launch"
        ),
    ]
    arguments += [
        # In a namespace tf is the robot's own, as with Nav2: /tf becomes tf.
        DeclareLaunchArgument(name, default_value=topic.lstrip("/"), description=f"topic: {text}")
        for name, (topic, text) in TOPICS.items()
    ]
    arguments += [
        DeclareLaunchArgument(name, default_value="", description=f"{text}; empty = as params_file says")
        for name, text in OF_THE_FILE.items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=nodes)])


def nodes(context):
    """Return the nodes, which share a folder; one that was made for this launch goes with it."""
    value = {
        name: LaunchConfiguration(name).perform(context)
        for name in ("memory_folder", "params_file", "respawn", "spatial_memory", *OF_THE_FILE)
    }
    if not Path(value["params_file"]).is_file():
        raise RuntimeError(f"params_file {value['params_file']} does not exist; the nodes would run on their defaults")
    kept = value["memory_folder"] or folder_in(value["params_file"])
    folder = str(Path(kept).expanduser()) if kept else tempfile.mkdtemp(prefix="come_nav_memory_")
    transports = {name: value[name] for name in ("image_transport", "depth_transport") if value[name]}
    own = {name: dict(transports) if name in WITH_CAMERA else {} for name in NODES}
    own["spatial_memory"] |= {"memory_folder": folder, "save_period_s": SAVE_PERIOD_S}
    if value["spatial_memory"].lower() == "true":
        own["planner"] |= {"experts.spatial_store": folder}
    if value["cmd_vel_stamped"]:
        own["controller"] |= {"cmd_vel_stamped": value["cmd_vel_stamped"].lower() == "true"}
    found = [
        Node(
            package="come_nav",
            executable=name,
            namespace=LaunchConfiguration("namespace"),
            output="screen",
            respawn=value["respawn"].lower() == "true",
            respawn_delay=2.0,
            remappings=[(topic, LaunchConfiguration(argument)) for argument, (topic, _) in TOPICS.items()],
            parameters=[
                LaunchConfiguration("params_file"),
                {"use_sim_time": LaunchConfiguration("use_sim_time"), "autostart": LaunchConfiguration("autostart")},
                *(
                    [{"model": LaunchConfiguration("model"), "device": LaunchConfiguration("device")}]
                    if name in WITH_MODEL
                    else []
                ),
                *([own[name]] if own[name] else []),
            ],
            arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
            condition=IfCondition(LaunchConfiguration(name)) if name.endswith("_memory") else None,
        )
        for name in NODES
    ]
    if kept:
        return found
    return [*found, RegisterEventHandler(OnShutdown(on_shutdown=lambda *_: shutil.rmtree(folder, ignore_errors=True)))]


def folder_in(params_file: str) -> str:
    """Return the memory_folder of the spatial_memory node in a file of parameters, or nothing."""
    path = Path(params_file)
    content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    for name, section in (content or {}).items():
        if name.strip("/").split("/")[-1] in ("spatial_memory", "**"):
            found = (section or {}).get("ros__parameters", {}).get("memory_folder", "")
            if found:
                return str(found)
    return ""
