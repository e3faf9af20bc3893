"""Folders whose names are not UTF-8 (unpacked from an old zip) serve every verb that opens a recording."""

from __future__ import annotations

import json
import os

import pytest
from data_samples import SampleRecording

from come_nav.cli.main import main
from come_nav.core.errors import StorageError
from come_nav.core.files import atomic_write_text, printable
from come_nav.data.bags.writer import write_bag
from come_nav.data.nwm.folder import write_nwm_folder


@pytest.fixture
def odd(tmp_path):
    """A bag in a folder of bytes that are no UTF-8, as a command line gives them to Python."""
    name = os.fsdecode(os.fsencode(tmp_path) + b"/B\xfcro")
    try:
        write_bag(tmp_path / "plain", SampleRecording(24))
        os.rename(tmp_path / "plain", name)
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    return name


def test_evaluate_bag_info_and_convert(odd, tmp_path, capsys):
    words = ["--rows", "trivial", "--windows", "2"]
    assert main(["evaluate", odd, *words, "--out", str(tmp_path / "report"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "B\\xfcro"
    assert "B\\xfcro" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert main(["bag", "info", odd]) == 0
    assert main(["convert", odd, odd + "_nwm", "--to", "nwm"]) == 0
    assert main(["evaluate", odd + "_nwm", *words, "--out", odd + "_report"]) == 0
    assert main(["convert", odd, odd + ".txt"]) == 0
    assert main(["trajectory", odd, odd + ".txt"]) == 0


def test_names_are_spelled_out(tmp_path):
    assert printable("B\udcfcro") == "B\\xfcro"
    assert printable("Büro \u2713") == "Büro \u2713"
    atomic_write_text(tmp_path / "page.html", "<p>B\udcfcro</p>")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == "<p>B\\xfcro</p>"


def test_an_nwm_folder_keeps_a_readable_name(odd):
    from come_nav.data import open_recording

    with open_recording(write_nwm_folder(odd + "_folder", SampleRecording(4))) as recording:
        assert recording.name == "B\\xfcro_folder"
        assert recording.frame(3).rgb.shape == (16, 24, 3)


def test_a_bag_cannot_be_written_under_such_a_name(odd, tmp_path, capsys, monkeypatch):
    """metadata.yaml names its files; one that is no UTF-8 could not be read again."""
    monkeypatch.setattr(SampleRecording, "frame", lambda self, index: pytest.fail("work was begun"))
    for words in (["convert", str(tmp_path), odd + "_new", "--to", "mcap"], None):
        if words is None:
            with pytest.raises(StorageError, match=r"B\\xfcro_new: the name of a bag must be UTF-8"):
                write_bag(odd + "_new", SampleRecording(4))
        else:
            words[1] = odd
            assert main(words) == 1
            error = capsys.readouterr().err
            assert (
                "B\\xfcro_new: the name of a bag must be UTF-8, as metadata.yaml names its files; choose another"
                in error
            )
    assert not os.path.exists(odd + "_new")
