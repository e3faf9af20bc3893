"""The house rules of docs/architecture.md, read from the source: who may import whom, how long, how documented."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "come_nav"

# room -> rooms and root modules that it may import; the table of docs/architecture.md
ALLOWED: dict[str, set[str]] = {
    "core": set(),
    "data": {"core"},
    "sim": {"core"},
    "localisation": {"core"},
    "memory": {"core", "localisation"},
    "experts": {"core"},
    "world_model": {"core", "experts"},
    "planning": {"core"},
    "policies": {"core", "experts"},
    "navigation": {"core", "localisation", "memory", "experts", "world_model", "planning", "policies"},
    "training": {"core", "data", "sim", "localisation", "memory", "experts", "world_model", "policies"},
    "viz": {"core"},
    "evaluation": {
        *("core", "data", "sim", "localisation", "memory", "experts", "world_model", "planning"),
        *("policies", "navigation", "viz"),
    },
    "config": {"core", "localisation", "memory", "experts", "world_model", "planning", "navigation"},
    "ros": {
        *("core", "data", "sim", "localisation", "memory", "planning", "navigation", "evaluation", "viz", "config"),
    },
}
ROOMS = [*ALLOWED, "cli"]
ALLOWED["cli"] = set(ROOMS) - {"ros"}
FREE = {"__init__", "__main__"}  # the package's own version, and the entry point

FILE_LINES_MEDIAN, FILE_LINES_P95, FILE_LINES_MAX = 150, 400, 400
FUNCTION_LINES_P95, FUNCTION_LINES_MAX = 50, 100


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(path: Path, module: ast.Module) -> list[tuple[int, str]]:
    """Return (line, absolute dotted name) of every import in the file: nested, relative and TYPE_CHECKING ones too."""
    package = [*path.relative_to(ROOT).parts[:-1]]
    found = []
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            found.append((node.lineno, prefix))
            found += [(node.lineno, f"{prefix}.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "__import__"):
            words = [word.value for word in node.args[:1] if isinstance(word, ast.Constant)]
            found += [(node.lineno, str(word)) for word in words]
    return found


def broken_imports(path: Path, module: ast.Module) -> list[str]:
    room = room_of(path)
    if room in FREE:
        return []
    broken = []
    for line, name in imported_modules(path, module):
        parts = name.split(".")
        if parts[0] != "come_nav" or len(parts) < 2:
            continue
        target = parts[1]
        if target in ROOMS and target != room and target not in ALLOWED[room]:
            broken.append(f"{name_of(path)}:{line}: {room} must not import {target}")
    return broken


def test_rooms_import_only_what_the_table_allows():
    broken = [line for path in sources() for line in broken_imports(path, tree(path))]
    assert not broken, "\n".join(sorted(set(broken)))


@pytest.mark.parametrize(
    ("path", "code", "allowed"),
    [
        ("come_nav/planning/x.py", "from come_nav.world_model import model", False),
        ("come_nav/planning/x.py", "import come_nav.experts.cdit as c", False),
        ("come_nav/planning/deep/x.py", "from ...world_model.model import Model", False),
        ("come_nav/memory/x.py", "from .. import experts", False),
        ("come_nav/memory/x.py", "def f():\n    from come_nav import experts", False),
        ("come_nav/core/x.py", "if TYPE_CHECKING:\n    from come_nav.data import bag", False),
        ("come_nav/sim/x.py", "import importlib\nimportlib.import_module('come_nav.data.bags.bag')", False),
        ("come_nav/cli/x.py", "from come_nav.ros import node", False),
        ("come_nav/world_model/x.py", "from come_nav.experts.cdit import CDiT\nfrom come_nav import __version__", True),
        ("come_nav/navigation/stack.py", "from come_nav.config import Config", False),
        ("come_nav/cli/x.py", "from come_nav.config import Config", True),
        ("come_nav/planning/deep/x.py", "from ..cem import CemPlanner\nfrom come_nav.core import types", True),
    ],
)
def test_the_import_check_itself_sees_every_spelling(path, code, allowed):
    assert (not broken_imports(ROOT / path, ast.parse(code))) is allowed


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the sets of modules that import each other, directly or over others (strongly connected components)."""

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [*graph[start]]
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                todo += graph[name]
        return seen

    far = {name: reachable(name) for name in graph}
    rings = {tuple(sorted({other for other in far[name] if name in far[other]})) for name in graph if name in far[name]}
    return [list(ring) for ring in sorted(rings)]


def import_graph() -> dict[str, set[str]]:
    """Return module -> modules of come_nav that it imports, in functions and under TYPE_CHECKING too."""
    names = {dotted(path) for path in sources()}
    graph: dict[str, set[str]] = {}
    for path in sources():
        own: set[str] = set()
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Import):
                own |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                deeper = {f"{node.module}.{alias.name}" for alias in node.names}
                own |= {name if name in names else node.module for name in deeper}
        graph[dotted(path)] = (own & names) - {dotted(path)}
    return graph


def test_no_file_imports_itself_over_others():
    found = circles(import_graph())
    assert not found, "\n".join(" <-> ".join(ring) for ring in found)


def test_the_circle_check_itself():
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


MODULES_AT_ONE_LEVEL = 16


def test_a_folder_holds_few_modules():
    counts: dict[str, int] = {}
    for path in sources():
        if path.stem != "__init__" and room_of(path) not in ("cli",):  # cli: one module a verb
            counts[name_of(path.parent)] = counts.get(name_of(path.parent), 0) + 1
    assert not {folder: count for folder, count in counts.items() if count > MODULES_AT_ONE_LEVEL}


METHODS_MAX = 15
MANY_METHODS = {  # class -> why it has more
    "come_nav/memory/spatial/voxels.py VoxelMap": "a container: seven of its methods are views of its columns",
}


def test_classes_do_one_job():
    large = {
        f"{name_of(path)} {node.name}": sum(isinstance(item, ast.FunctionDef) for item in node.body)
        for path in sources()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ClassDef)
    }
    assert {name for name, count in large.items() if count > METHODS_MAX} <= set(MANY_METHODS), large


def test_table_in_the_documentation_is_this_table():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.partition("## The rooms")[2].partition("### ")[0]
    rows = re.findall(r"^\| `(\w+)/?(?:\.py)?` \|[^|]*\|([^|]*)\|$", section, flags=re.MULTILINE)
    documented = {room: set(re.findall(r"\w+", allowed)) - {"nothing"} for room, allowed in rows}
    documented["cli"] = set(ROOMS) - {"ros"}  # written as "all but ros"
    assert documented == ALLOWED


def test_every_folder_is_a_room():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert folders <= set(ROOMS)
    modules = {path.stem for path in PACKAGE.glob("*.py")}
    assert modules <= set(ROOMS) | FREE
    drawers = [name_of(path) for path in PACKAGE.rglob("*") if path.stem in ("utils", "common", "helpers", "misc")]
    assert not drawers, "name the room by its reason, not 'utils': " + ", ".join(drawers)


def test_ros_is_imported_only_in_its_room():
    ros = re.compile(r"(rclpy|[a-z_]+_msgs|std_srvs|tf2_ros|cv_bridge|message_filters|launch_ros|rosbag2_py)(\.|$)")
    outside = [
        f"{name_of(path)}:{line}: {name}"
        for path in sources()
        if room_of(path) != "ros"
        for line, name in imported_modules(path, tree(path))
        if ros.match(name)
    ]
    assert not outside, "\n".join(outside)


def test_print_only_on_the_command_line():
    printing = [
        f"{name_of(path)}:{node.lineno}"
        for path in sources()
        if room_of(path) != "cli"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not printing, "use logging: " + ", ".join(printing)


def global_randomness(module: ast.Module) -> list[tuple[int, str]]:
    """Return calls that read or seed a generator that belongs to the whole process."""
    forbidden = re.compile(
        r"(torch\.(random\.)?(manual_seed|seed|set_rng_state|cuda\.manual_seed(_all)?)"
        r"|(np|numpy)\.random\.(?!default_rng|Generator|SeedSequence|PCG64|Philox)\w+"
        r"|random\.(?!Random)\w+|(L|pl|lightning|pytorch_lightning)\.seed_everything|seed_everything)$"
    )
    calls = [node for node in ast.walk(module) if isinstance(node, ast.Call)]
    found = [(call.lineno, ast.unparse(call.func)) for call in calls if forbidden.match(ast.unparse(call.func))]
    for call in calls:
        function = ast.unparse(call.func)
        keywords = {keyword.arg for keyword in call.keywords}
        if re.match(r"torch\.(randn|rand|randint|randperm|normal|bernoulli|multinomial)$", function):
            if "generator" not in keywords and None not in keywords:
                found.append((call.lineno, f"{function} without generator"))
        elif re.match(r"torch\.(randn_like|rand_like|randint_like)$", function) and "generator" not in keywords:
            found.append((call.lineno, f"{function} without generator"))
    return found


def test_randomness_comes_from_a_passed_generator():
    found = [f"{name_of(path)}:{line}: {call}" for path in sources() for line, call in global_randomness(tree(path))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("torch.manual_seed(0)", 1),
        ("np.random.rand(3)", 1),
        ("random.choice(xs)", 1),
        ("torch.randn(3)", 1),
        ("torch.randn_like(x)", 1),
        ("torch.randn(3, generator=g)", 0),
        ("np.random.default_rng(3).normal()", 0),
        ("torch.Generator().manual_seed(0)", 0),
        ("generator.manual_seed(1)", 0),
    ],
)
def test_the_randomness_check_itself(code, count):
    assert len(global_randomness(ast.parse(code))) == count


def test_wall_clock_is_only_for_durations():
    reading = [
        f"{name_of(path)}:{node.lineno}: {ast.unparse(node.func)}"
        for path in sources()
        if room_of(path) in ("core", "memory", "experts", "world_model", "planning", "navigation", "localisation")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("time.time", "datetime.now", "datetime.datetime.now")
    ]
    assert not reading, "time comes from message stamps: " + ", ".join(reading)


def percentile_95(values: list[int]) -> int:
    return sorted(values)[max(0, int(0.95 * len(values)) - 1)]


def test_files_stay_small():
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in sources()}
    too_long = {name: lines for name, lines in lengths.items() if lines > FILE_LINES_MAX}
    assert not too_long
    assert sorted(lengths.values())[len(lengths) // 2] <= FILE_LINES_MEDIAN
    assert percentile_95(list(lengths.values())) <= FILE_LINES_P95, sorted(lengths.items(), key=lambda item: -item[1])[
        :9
    ]


def functions() -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    return [
        (f"{name_of(path)}:{node.lineno} {node.name}", node)
        for path in sources()
        for node in ast.walk(tree(path))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]


def test_functions_stay_small():
    lengths = {name: (node.end_lineno or node.lineno) - node.lineno + 1 for name, node in functions()}
    too_long = {name: lines for name, lines in lengths.items() if lines > FUNCTION_LINES_MAX}
    assert not too_long
    assert percentile_95(list(lengths.values())) <= FUNCTION_LINES_P95


def public_without_docstring(module: ast.Module) -> list[tuple[int, str]]:
    missing = [] if ast.get_docstring(module) or not module.body else [(1, "module")]
    for node in module.body:
        public = isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_")
        if public and not ast.get_docstring(node):
            missing.append((node.lineno, node.name))
    return missing


def test_public_names_are_documented():
    missing = [
        f"{name_of(path)}:{line} {name}" for path in sources() for line, name in public_without_docstring(tree(path))
    ]
    assert not missing, "\n".join(missing)


def test_every_room_has_tests():
    names = [path.stem for path in (ROOT / "test").glob("test_*.py")]
    rooms = {room_of(path) for path in sources()} - FREE
    assert {room for room in rooms if not any(name.startswith(f"test_{room}") for name in names)} == set()


def test_help_loads_no_heavy_library():
    program = (
        "import sys\n"
        "from come_nav.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'scipy', 'cv2', 'open3d', 'matplotlib', 'diffusers', 'yaml', 'rosbags', 'peft'}\n"
        "print(sorted(heavy & set(sys.modules)), len(sys.modules), file=sys.stderr)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded, _, count = result.stderr.strip().rpartition(" ")
    assert loaded == "[]"
    assert int(count) < 300  # about 150 today; a budget of modules, because a time limit would depend on the machine


@pytest.mark.parametrize("module", ["config", "ros.nodes.controller_node"])
def test_what_needs_no_tensors_loads_no_torch(module):
    """Settings, and the controller that only reads them, save 270 MB and seconds of start."""
    if module.startswith("ros."):
        pytest.importorskip("rclpy")
    program = (
        f"import sys, come_nav.{module}\nprint(sorted({{'torch', 'diffusers', 'peft', 'numba'}} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_shipped_model_loads_no_diffusers():
    """Its import takes seconds; only autoencoders of that library need it."""
    program = (
        "import sys\n"
        "from come_nav.navigation.loading import load_stack\n"
        "from come_nav.navigation.settings import NavigationSettings\n"
        "load_stack(NavigationSettings(device='cpu')).close()\n"
        "print(sorted({'diffusers', 'transformers', 'open3d', 'matplotlib'} & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "ros"])
def test_each_room_imports_alone(room):
    """A room must not need another one to have been imported first."""
    result = subprocess.run(
        [sys.executable, "-c", f"import come_nav.{room}"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def tracked_files() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listing.stdout.split("\0") if name]


def test_no_path_or_package_index_of_one_machine_is_tracked():
    marks = ["work/", "root/", r"home/\w", "simple/"]  # without their leading slash, so as not to find this file itself
    forbidden = re.compile("|".join(["/" + mark for mark in marks] + [r"index-url\b(?!\\)"]))
    found = []
    for path in tracked_files():
        if path.suffix in (".png", ".safetensors", ".mp4", ".npz", ".db3", ".gif") or not path.is_file():
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if forbidden.search(line):
                found.append(f"{name_of(path)}:{number}: {line.strip()[:100]}")
    assert not found, "\n".join(found)


def test_nothing_large_is_tracked():
    large = {name_of(path): path.stat().st_size for path in tracked_files() if path.is_file()}
    assert not {name: size for name, size in large.items() if size > 24_000_000}
    assert sum(large.values()) < 63_000_000  # the whole tree travels to machines that take 64 MB
