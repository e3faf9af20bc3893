"""The command line's frame (help, verbs, exit statuses) and the doctor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib import metadata

import pytest

from come_nav import __version__
from come_nav.cli import doctor, main, output
from come_nav.core.errors import DataError


def run_cli(*words: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "come_nav", *words], capture_output=True, text=True, check=False, **options
    )


@pytest.fixture
def verb(monkeypatch):
    """A verb 'probe' whose run is given by the test."""

    def install(run):
        module = type(sys)("come_nav.cli.probe")
        module.add_arguments = lambda parser: parser.add_argument("--json", action="store_true")
        module.run = run
        monkeypatch.setitem(sys.modules, "come_nav.cli.probe", module)
        monkeypatch.setitem(main.VERBS, "probe", ("probe", "for tests"))

    return install


def test_help_lists_every_verb():
    result = run_cli("--help")
    assert result.returncode == 0
    for name, (_, line) in main.VERBS.items():
        assert name in result.stdout
        assert line.split(";")[0][:30] in result.stdout


def test_version():
    assert run_cli("--version").stdout.strip() == f"come-nav {__version__}"


def test_no_verb_is_bad_usage():
    result = run_cli()
    assert result.returncode == 2
    assert "verb" in result.stderr


def test_unknown_verb_suggests_the_near_one():
    result = run_cli("evalute", "bag")
    assert result.returncode == 2
    assert "unknown verb 'evalute'; did you mean 'evaluate'?" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_users_mistake_is_one_line_and_status_1(verb, capsys):
    def run(_args):
        raise DataError("walk.bag: holds no images; record a camera topic")

    verb(run)
    assert main.main(["probe"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "come-nav: walk.bag: holds no images; record a camera topic\n"


def test_a_defect_keeps_its_traceback(verb):
    def run(_args):
        raise ZeroDivisionError("defect")

    verb(run)
    with pytest.raises(ZeroDivisionError):
        main.main(["probe"])


def test_interrupt_is_status_130(verb, capsys):
    def run(_args):
        raise KeyboardInterrupt

    verb(run)
    assert main.main(["probe"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_closed_pipe_is_no_traceback():
    program = "import sys; from come_nav.cli.main import main; sys.exit(main(['doctor', '--json']))"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    _, errors = process.communicate(timeout=120)
    assert b"Traceback" not in errors
    assert process.returncode in (0, -signal.SIGPIPE)


def test_json_is_strict(capsys):
    import numpy as np

    output.print_json({"nan": float("nan"), 1: np.float32(2.5), "array": np.array([1.0, np.inf]), "none": None})
    text = capsys.readouterr().out
    assert json.loads(text, parse_constant=pytest.fail) == {"nan": None, "1": 2.5, "array": [1.0, None], "none": None}


def test_table_is_aligned():
    lines = output.format_table(["planner", "ATE"], [["stand still", "0.9"], ["cem", "10.25"]]).splitlines()
    assert lines[0] == "planner        ATE"
    assert lines[2:] == ["stand still    0.9", "cem          10.25"]
    assert len({len(line) for line in lines}) == 1


# doctor ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checks(tmp_path_factory) -> list[doctor.Check]:
    return doctor.collect(tmp_path_factory.mktemp("out"))


def named(checks: list[doctor.Check], name: str) -> doctor.Check:
    (found,) = [check for check in checks if check.name == name]
    return found


def test_doctor_finds_every_library_it_runs_with(checks):
    libraries = {check.name: check for check in checks if check.group == "Libraries"}
    assert {"torch", "numpy", "scipy", "open3d", "rosbags", "system libraries"} <= set(libraries)
    assert libraries["torch"].detail == metadata.version("torch")
    assert all(check.status == "ok" for check in libraries.values())


def test_doctor_sees_devices_and_the_installed_extras(checks):
    assert "threads" in named(checks, "cpu").detail
    assert named(checks, "[test]").status == "ok"
    assert named(checks, "[train]").status == "ok"


def test_doctor_fails_on_a_missing_library_and_names_the_line(monkeypatch):
    monkeypatch.setattr(doctor, "requirements", lambda extra: [("no-such-library", ">=1"), ("numpy", ">=999")])
    missing, old = doctor.check_libraries()
    assert (missing.status, missing.detail) == ("fail", "missing")
    assert missing.remedy == "pip install 'no-such-library>=1'"
    assert old.status == "fail"
    assert "does not meet >=999" in old.detail


def test_doctor_accepts_a_module_that_apt_installed_without_metadata(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda name: None)
    check = doctor._library_check("Libraries", "opencv-python", ">=4.8", needed=True)
    assert check.status == "ok"


def test_doctor_only_warns_of_a_missing_extra(monkeypatch):
    monkeypatch.setattr(
        doctor, "requirements", lambda extra: [("no-such-library", ">=1")] if extra == "perceptual" else []
    )
    check = named(list(doctor.check_extras()), "[perceptual]")
    assert check.status == "warn"
    assert "[perceptual]'" in check.remedy
    assert "pip install" in check.remedy


def test_doctor_reports_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    check = named(list(doctor.check_storage(tmp_path / "file" / "out")), "output folder")
    assert check.status == "fail"
    assert "cannot be written" in check.detail


def test_doctor_warns_of_a_full_disk(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 10_000_000})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: usage)
    assert named(list(doctor.check_storage(tmp_path)), "output folder").status == "warn"


def test_doctor_survives_a_check_that_breaks(monkeypatch, tmp_path):
    def check_devices():
        raise RuntimeError("driver is too old\nmore words")
        yield

    monkeypatch.setattr(doctor, "check_devices", check_devices)
    broken = named(doctor.collect(tmp_path), "devices")
    assert (broken.status, broken.detail) == ("fail", "RuntimeError: driver is too old")


def test_doctor_names_the_missing_default_model(monkeypatch):
    from come_nav.core import resources
    from come_nav.core.errors import ConfigError

    def absent(kind, name):
        raise ConfigError(f"'{name}' is not here")

    monkeypatch.setattr(resources, "find_resource", absent)
    assert named(list(doctor.check_resources()), "default model").status == "fail"


@pytest.mark.parametrize(("statuses", "code"), [(["ok", "warn"], 0), (["ok", "fail"], 1)])
def test_doctor_status_follows_what_is_needed(monkeypatch, capsys, statuses, code):
    found = [doctor.Check("Group", f"thing {i}", status, "seen", "mend it") for i, status in enumerate(statuses)]
    monkeypatch.setattr(doctor, "collect", lambda out: found)
    assert main.main(["doctor", "--json"]) == code
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is (code == 0)
    assert [check["status"] for check in document["checks"]] == statuses
    assert main.main(["doctor"]) == code
    text = capsys.readouterr().out
    assert "-> mend it" in text
    assert ("ready to plan" in text) is (code == 0)


def test_doctor_knows_a_sourced_workspace(monkeypatch, tmp_path):
    share = tmp_path / "share" / "come_nav"
    share.mkdir(parents=True)
    (share / "package.xml").write_text("<package/>")
    monkeypatch.setenv("AMENT_PREFIX_PATH", os.pathsep.join([str(tmp_path), "/opt/ros/jazzy"]))
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    checks = list(doctor.check_ros())
    assert named(checks, "ROS_DISTRO").detail == "jazzy"
    assert named(checks, "AMENT_PREFIX_PATH").detail == f"2 prefixes; come_nav in {tmp_path}"
