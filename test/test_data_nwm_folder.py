"""NWM trajectory folders, and the unpickler that refuses code."""

from __future__ import annotations

import os
import pickle
import resource

import cv2
import numpy as np
import pytest
from data_samples import SampleRecording

from come_nav.core.errors import DataError, StorageError
from come_nav.core.protocols import Recording
from come_nav.core.restricted_pickle import load_arrays
from come_nav.data import open_recording
from come_nav.data.nwm.folder import write_nwm_folder


def test_round_trip(tmp_path):
    sample = SampleRecording(6)
    folder = write_nwm_folder(tmp_path / "traj_0", sample)
    assert sorted(item.name for item in folder.iterdir()) == [*(f"{i}.jpg" for i in range(6)), "traj_data.pkl"]
    with open_recording(folder) as recording:
        assert isinstance(recording, Recording)
        assert (len(recording), recording.rate_hz, recording.name) == (6, 4.0, "traj_0")
        np.testing.assert_allclose(recording.poses_xyyaw, sample.poses_xyyaw, atol=1e-12)
        np.testing.assert_array_equal(recording.stamps_s, sample.stamps_s)
        assert np.abs(recording.frame(4).rgb.astype(int) - sample.frame(4).rgb).mean() < 4
        with pytest.raises(IndexError):
            recording.frame(6)
    content = pickle.loads((folder / "traj_data.pkl").read_bytes())
    assert content["position"].shape == (6, 2)
    assert content["yaw"].shape == (6,)
    with pytest.raises(StorageError, match="--overwrite"):
        write_nwm_folder(folder, sample)
    write_nwm_folder(folder, SampleRecording(3), overwrite=True)
    assert len(open_recording(folder)) == 3


def make_folder(path, content, images=3):
    path.mkdir()
    for index in range(images):
        cv2.imwrite(str(path / f"{index}.jpg"), np.full((8, 8, 3), 50, np.uint8))
    (path / "traj_data.pkl").write_bytes(pickle.dumps(content) if not isinstance(content, bytes) else content)
    return path


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("column", [False, True])
def test_every_pickle_protocol(tmp_path, protocol, column):
    yaw = np.array([0.0, 4.0, -0.1], np.float32)
    content = {"position": np.arange(6.0).reshape(3, 2), "yaw": yaw[:, None] if column else yaw, "note": "x"}
    folder = make_folder(tmp_path / "t", pickle.dumps(content, protocol=protocol))
    recording = open_recording(folder, rate_hz=2.0)
    np.testing.assert_allclose(recording.poses_xyyaw[:, 2], [0.0, 4.0 - 2 * np.pi, -0.1], atol=1e-6)
    np.testing.assert_allclose(recording.stamps_s, [0, 0.5, 1.0])


def test_numpy_scalars_and_lists_are_fine(tmp_path):
    content = {"position": [[0.0, np.float64(1.0)]] * 3, "yaw": [np.float32(0.5), 0, 0]}
    assert len(open_recording(make_folder(tmp_path / "t", content))) == 3


class Attack:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("attack", "named"),
    [
        (Attack(os.system, "touch OWNED"), "system"),
        (Attack(eval, "1+1"), "eval"),
        (Attack(open, "OWNED", "w"), "open"),
        (Attack(np.load, "x.npy"), "load"),
        (Attack(getattr, "text", "upper"), "getattr"),
        (Attack(__import__, "os"), "__import__"),
    ],
)
def test_code_is_refused_with_a_reason(tmp_path, monkeypatch, attack, named, protocol):
    monkeypatch.chdir(tmp_path)
    content = {"position": np.zeros((3, 2)), "yaw": np.zeros(3), "extra": attack}
    folder = make_folder(tmp_path / "t", pickle.dumps(content, protocol=protocol))
    with pytest.raises(DataError, match=f"refused: the pickle wants to call .*{named}") as caught:
        open_recording(folder)
    assert "traj_data.pkl" in str(caught.value)
    assert not (tmp_path / "OWNED").exists()


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_every_plain_type_are_read_back(tmp_path, protocol):
    content = {
        "f8": np.linspace(0, 1, 6).reshape(2, 3),
        "f4": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        "swapped": np.arange(4, dtype=">i2"),
        "bool": np.array([True, False]),
        "text": np.array(["a", "äb"]),
        "bytes": np.array([b"a", b"bc"]),
        "empty": np.zeros((0, 3)),
        "scalar": np.float64(2.5),
        "objects": np.array([[1, "b"], [None, 2.5]], object),
        "nested": [np.arange(3), (np.arange(2), {"k": np.ones(1)})],
    }
    content["shared"] = content["f8"]
    content["self"] = content["nested"]
    path = tmp_path / "t.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    found = load_arrays(path)
    for name in ("f8", "f4", "swapped", "bool", "text", "bytes", "empty", "objects"):
        assert type(found[name]) is np.ndarray
        assert found[name].dtype == content[name].dtype
        np.testing.assert_array_equal(found[name], content[name])
    assert found["scalar"] == 2.5
    assert found["shared"] is found["f8"]
    assert found["self"] is found["nested"]
    np.testing.assert_array_equal(found["nested"][1][1]["k"], [1.0])
    found["f8"][0, 0] = 7.0  # as any array


class Forged:
    """An array whose constructor or state is made up, as numpy itself would believe it."""

    def __init__(self, call, arguments, state=None) -> None:
        self.reduced = (call, arguments) if state is None else (call, arguments, state)

    def __reduce__(self):
        return self.reduced


FLAGS_OF_REFERENCES = (3, "<", None, None, None, -1, -1, 1)
REBUILD = np.zeros(1).__reduce__()[0]


@pytest.mark.parametrize(
    "forged",
    [
        Forged(np.ndarray, ((1,), "O", b"A" * 8)),  # objects at any address
        Forged(np.dtype, ("f8", False, True), FLAGS_OF_REFERENCES),
        Forged(np.dtype, ("f8", False, True), (3, "<", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)),
        Forged(REBUILD, (np.ndarray, (0,), b"b"), (1, (1,), np.dtype("O"), False, b"A" * 8)),
        Forged(REBUILD, (np.ndarray, (0,), b"b"), (1, (1 << 40,), np.dtype("f8"), False, b"A" * 8)),
        Forged(REBUILD, (np.ndarray, (0,), b"b"), (1, (-1,), np.dtype("f8"), False, b"A" * 8)),
        Forged(REBUILD, (np.ndarray, (1,), b"O")),
        np.zeros(2, [("a", "f8"), ("b", "O")]),
        np.array(["2026-01-01"], "M8[D]"),
        np.ndarray,
        np.dtype("f8"),
    ],
    ids=[f"forged {number}" for number in range(11)],
)
def test_forged_arrays_never_reach_numpy(tmp_path, forged):
    """A dtype with forged flags, or an array of objects over bytes, lets numpy follow addresses out of the file."""
    path = tmp_path / "t.pkl"
    path.write_bytes(pickle.dumps({"position": forged}))
    try:
        found = load_arrays(path)["position"]
    except DataError as error:
        assert "\n" not in str(error)
        return
    assert type(found) is np.ndarray and not found.dtype.hasobject and not found.size


def test_classes_cannot_be_changed_from_a_file(tmp_path):
    path = tmp_path / "t.pkl"  # GLOBAL numpy dtype, then BUILD with (None, {"__init__": 1})
    path.write_bytes(b"cnumpy\ndtype\n(N}S'__init__'\nI1\nstb.")
    with pytest.raises(DataError, match="wants to set what is no array"):
        load_arrays(path)
    path.write_bytes(pickle.dumps({"position": np.zeros(2)}))
    load_arrays(path)


def test_a_number_in_a_file_takes_no_memory(tmp_path):
    path = tmp_path / "t.pkl"
    path.write_bytes(b"\x80\x04]r\xff\xff\xff\x0f.")  # LONG_BINPUT: 4 GiB of memo for unpicklers written in C
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert load_arrays(path) == []
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 1 << 20


def test_codecs_are_refused(tmp_path):
    import codecs

    path = tmp_path / "t.pkl"
    path.write_bytes(pickle.dumps(Attack(codecs.encode, "x", "rot13")))
    with pytest.raises(DataError, match="codec 'rot13'"):
        load_arrays(path)


@pytest.mark.parametrize("length", [0, 1, 10, 60, 150])
def test_cut_off_pickles(tmp_path, length):
    whole = pickle.dumps({"position": np.zeros((3, 2)), "yaw": np.zeros(3)})
    folder = make_folder(tmp_path / "t", whole[:length])
    with pytest.raises(DataError, match="not a readable pickle") as caught:
        open_recording(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"position": np.zeros((3, 2))}, "needs the keys 'position' and 'yaw', holds position"),
        ([1, 2], "holds list"),
        ({"position": np.zeros((3, 4)), "yaw": np.zeros(3)}, r"position must be \(T, 2\), got \(3, 4\)"),
        ({"position": np.zeros((3, 2)), "yaw": np.zeros(4)}, r"yaw must be \(3,\)"),
        ({"position": np.full((3, 2), np.nan), "yaw": np.zeros(3)}, "pose 0 is NaN"),
        ({"position": [["a", "b"]], "yaw": [0]}, "must be arrays of numbers"),
        ({"position": np.zeros((5, 2)), "yaw": np.zeros(5)}, "5 poses but 3.jpg is missing"),
    ],
)
def test_wrong_contents(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        open_recording(make_folder(tmp_path / "t", content))


def test_extra_and_damaged_images(tmp_path):
    content = {"position": np.zeros((2, 2)), "yaw": np.zeros(2)}
    folder = make_folder(tmp_path / "t", content)
    recording = open_recording(folder)
    assert "1 images beyond" in recording.report.warnings[0]
    (folder / "1.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1\.jpg: the image is damaged"):
        recording.frame(1)
