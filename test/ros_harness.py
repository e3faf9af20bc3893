"""Live nodes for tests: separate processes over DDS on this machine only, in a domain of this test process's own."""

from __future__ import annotations

import fcntl
import functools
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
WORLD = 10000  # a validation world
SMALL_SEARCH = {
    "device": "cpu",
    "planner": {"initial_samples": 60, "samples": 20, "iterations": 3, "elites": 6},
}
LEAST_SEARCH = {"initial_samples": 20, "samples": 10, "iterations": 1, "elites": 4}
NEVER_ARRIVES = {  # a planner that goes on planning, whatever it sees
    "planner": LEAST_SEARCH,
    "max_sensor_age_s": 30.0,
    "use_obstacles": False,
    "goal_difference": 1e-6,
    "goal_tolerance_m": 0.01,
    "max_failures": 10000,
}
IDEAL_64 = {
    "image_width": 64,
    "image_height": 64,
    "horizontal_fov_deg": 90.0,
}  # fast to render, to send and to search in
PATIENCE_S = float(os.environ.get("COME_NAV_TEST_PATIENCE_S", "240"))  # for loaded machines


# domains are the machine's, whatever folder for temporary files a process has
LOCKS = Path("/tmp") if os.access("/tmp", os.W_OK) else Path(tempfile.gettempdir())
DOMAINS = range(1, 102)  # the ports of higher ones are also handed out as ephemeral ports
STOP_S = 60.0  # a node that is told to end may be in the middle of a search, on a machine that is busy elsewhere


class Received(list[Any]):
    """Messages of a topic, the newest last; empty until the first comes."""

    def newest(self, test: Callable[[Any], Any]) -> bool:
        """Whether a message has come and the newest passes ``test``."""
        return bool(self) and bool(test(self[-1]))


@functools.cache
def own_domain() -> int:
    """Return a domain that no other process on this machine uses for tests; it is this process's until it ends."""
    for domain in DOMAINS:
        path = LOCKS / f"come_nav_test_domain_{domain}.{os.getuid()}.lock"
        lock = path.open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        _locks.append(lock)
        return domain
    raise RuntimeError(f"all ROS domains from {DOMAINS[0]} to {DOMAINS[-1]} are used by other tests on this machine")


_locks: list[Any] = []  # open as long as the process lives


def private_environment() -> dict[str, str]:
    """Keep discovery on this machine and apart from other test processes."""
    domain = str(own_domain())
    return {
        **os.environ,
        "ROS_DOMAIN_ID": domain,
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "RCUTILS_LOGGING_USE_STDOUT": "0",
        "PYTHONUNBUFFERED": "1",
    }


def resident_mb(pid: int) -> float:
    """Return the memory of a process, MB (Linux)."""
    text = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("VmRSS:"))


def setting(device: str = "cpu") -> dict[str, Any]:
    """Return what a measurement over DDS depends on."""
    import platform

    import rclpy

    version = metadata.version("ros-rclpy") if _has("ros-rclpy") else "unknown"
    by_version = {"3": "humble", "7": "jazzy", "9": "kilted"}
    return {
        "distro": os.environ.get("ROS_DISTRO") or by_version.get(version.split(".")[0], "unknown"),
        "rclpy": version,
        "rmw": rclpy.get_rmw_implementation_identifier(),
        "profiles": Path(os.environ.get("FASTRTPS_DEFAULT_PROFILES_FILE", "")).name,
        "device": device,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load": [round(value, 2) for value in os.getloadavg()],
    }


def _has(distribution: str) -> bool:
    return any(True for _ in metadata.distributions(name=distribution))


class Process:
    """One node process, started with the command line that ros2 launch makes."""

    def __init__(
        self,
        executable: str,
        folder: Path,
        parameters: dict[str, Any],
        remap: dict[str, str],
        words: Sequence[str] = (),
        largest_file_kb: int = 0,
    ) -> None:
        self.name, self.ended = executable, False
        file = folder / f"{executable}.{time.monotonic_ns()}.yaml"
        by_node = any(key.startswith("/") for key in parameters)  # else for whatever nodes the process holds
        sections = parameters if by_node else {"/**": parameters}
        file.write_text(yaml.safe_dump({key: {"ros__parameters": values} for key, values in sections.items()}))
        rules = [f"{old}:={new}" for old, new in remap.items()]
        arguments = ["--ros-args", "--params-file", str(file), *(item for rule in rules for item in ("-r", rule))]
        self.log_path = folder / f"{executable}.{time.monotonic_ns()}.log"
        shell = f'ulimit -f {2 * largest_file_kb} && exec "$@"'  # counted in blocks of 512 bytes
        limit = ["sh", "-c", shell, "sh"] if largest_file_kb else []
        with self.log_path.open("wb") as log:
            self.popen = subprocess.Popen(
                [*limit, sys.executable, str(ROOT / "scripts" / executable), *words, *arguments],
                env=private_environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def alive(self) -> bool:
        return self.popen.poll() is None

    def stop(self, number: int = signal.SIGINT, timeout_s: float = STOP_S) -> int:
        self.ended = True
        if self.alive():
            self.popen.send_signal(number)
            try:
                self.popen.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
        return int(self.popen.returncode)


class Bench:
    """A client node in this process, and the node processes that it started."""

    def __init__(self, folder: Path) -> None:
        os.environ.update({key: value for key, value in private_environment().items() if key.startswith("ROS_")})
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        self.folder = folder
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("bench", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.received: dict[str, Received] = {}
        self.diagnostics: dict[str, Any] = {}
        self.processes: list[Process] = []
        self._running = True
        self._listen_to_diagnostics()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def start(
        self,
        executable: str,
        parameters: dict[str, Any] | None = None,
        words: Sequence[str] = (),
        largest_file_kb: int = 0,
        **remap: str,
    ) -> Process:
        process = Process(executable, self.folder, parameters or {}, remap, words, largest_file_kb)
        self.processes.append(process)
        return process

    def listen(self, kind: Any, topic: str, qos: Any = 10, keep: int = 2000) -> Received:
        found = self.received.setdefault(topic, Received())

        def take(message: Any) -> None:
            found.append(message)
            del found[:-keep]

        self.node.create_subscription(kind, topic, take, qos)
        return found

    def publisher(self, kind: Any, topic: str, qos: Any = 10) -> Any:
        return self.node.create_publisher(kind, topic, qos)

    def wait(self, what: str, condition: Callable[[], Any], timeout_s: float = PATIENCE_S) -> Any:
        """Return the first true value of ``condition``; fail with what the nodes said otherwise.

        However slow the machine: the condition has the whole time, and is asked once more at its end.
        """
        begun_s = time.monotonic()
        while True:
            late = time.monotonic() - begun_s >= timeout_s
            value = condition()
            if value:
                return value
            dead = [p.name for p in self.processes if not p.alive() and not p.ended]
            if late or dead:  # a node that died will do nothing any more
                break
            time.sleep(0.02)
        reason = f"{', '.join(dead)} died" if dead else f"within {timeout_s:.0f} s"
        logs = "\n".join(f"--- {process.name}\n{process.log()[-1500:]}" for process in self.processes)
        told = "\n".join(f"{name}: {status.message}" for name, status in self.diagnostics.items())
        raise AssertionError(f"{what} did not happen: {reason}\n{told}\n{logs}")

    def wait_for_context(self) -> None:
        """Wait until the planner has seen enough to imagine from."""
        self.wait("context", lambda: int(self.told("planner", "memory").get("frames kept", 0)) >= 4)

    def connected(self, publisher: Any) -> Any:
        """Return ``publisher`` once somebody listens: what is sent before is lost."""
        self.wait(f"a listener to {publisher.topic_name}", lambda: publisher.get_subscription_count() > 0)
        return publisher

    def said(self, node: str, entry: str) -> str:
        """Return the newest message of one diagnostic, empty before the first."""
        status = self.diagnostics.get(f"{node}: {entry}")
        return status.message if status is not None else ""

    def told(self, node: str, entry: str) -> dict[str, str]:
        """Return the newest values of one diagnostic."""
        status = self.diagnostics.get(f"{node}: {entry}")
        return {item.key: item.value for item in status.values} if status is not None else {}

    def call(self, kind: Any, name: str, request: Any = None, timeout_s: float = PATIENCE_S) -> Any:
        client = self.node.create_client(kind, name)
        self.wait(f"service {name}", client.service_is_ready, timeout_s)
        future = client.call_async(request or kind.Request())
        self.wait(f"answer of {name}", future.done, timeout_s)
        return future.result()

    def between_callbacks(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what ``function`` returns in the executor's thread.

        rclpy's action client notes a request after it has sent it, without a lock: where another thread spins, an
        answer that comes at once is taken for unexpected and dropped, and its future is never done.
        """
        task = self.executor.create_task(function, *arguments)
        self.wait(f"a turn of the executor for {function.__name__}", task.done)
        return task.result()

    def close(self) -> None:
        for process in self.processes:
            if process.alive():
                process.popen.send_signal(signal.SIGINT)
        for process in self.processes:
            process.stop()
        self._running = False
        self._thread.join(5.0)
        self.executor.remove_node(self.node)
        self.node.destroy_node()
        self.context.try_shutdown()

    def _listen_to_diagnostics(self) -> None:
        from diagnostic_msgs.msg import DiagnosticArray

        def take(message: Any) -> None:
            for status in message.status:
                self.diagnostics[status.name] = status

        self.node.create_subscription(DiagnosticArray, "/diagnostics", take, 50)

    def _spin(self) -> None:
        while self._running:
            self.executor.spin_once(timeout_sec=0.1)
