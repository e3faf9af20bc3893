"""Video in bags: H.264 and H.265 in three kinds of messages, read in any order; clips are encoded by PyAV itself."""

from __future__ import annotations

import pickle
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from data_samples import SECOND, START_NS, BagMaker

from come_nav.cli.main import main
from come_nav.core.errors import DataError, MissingDependencyError
from come_nav.data import open_recording
from come_nav.data.bags.ros_types import COMPRESSED_IMAGE, COMPRESSED_VIDEO, DEFINITIONS, FFMPEG_PACKET, typestore
from come_nav.data.video.packets import VideoPacket, begins_anew, packet_of, parameter_sets

W, H, COUNT, GROUP = 64, 48, 24, 8
SPS = b"\0\0\0\1\x67\x42\x00\x0a"
PPS = b"\0\0\1\x68\xce"


def test_units_tell_where_a_decoder_may_begin():
    def h264(*kinds: int) -> VideoPacket:
        return VideoPacket("h264", "", b"".join(b"\0\0\1" + bytes([0x60 | kind, 1, 2]) for kind in kinds))

    def h265(*kinds: int) -> VideoPacket:
        return VideoPacket("hevc", "", b"".join(b"\0\0\1" + bytes([kind << 1, 1, 2]) for kind in kinds))

    assert begins_anew(h264(7, 8, 6, 5)) and begins_anew(h264(5))
    assert not begins_anew(h264(1)) and not begins_anew(h264(7, 8, 1)) and not begins_anew(h264(7, 8))
    assert begins_anew(h265(32, 33, 34, 19)) and begins_anew(h265(21))
    assert not begins_anew(h265(1)) and not begins_anew(h265(35, 0))
    assert parameter_sets(h264(7, 8, 5)) == b"\0\0\0\1\x67\1\2\0\0\0\1\x68\1\2"
    assert parameter_sets(h264(1)) == b""


@pytest.mark.parametrize(
    ("words", "codec"),
    [
        ("h264", "h264"),
        ("libx264", "h264"),
        ("h264_nvenc", "h264"),
        ("hevc;yuv420p;bgr8;bgr8", "hevc"),
        ("libx265", "hevc"),
        ("hevc_vaapi", "hevc"),
        ("my_codec", "h264"),  # by its parameter sets
    ],
)
def test_the_codec_is_told_by_its_name_or_by_the_bytes(words, codec):
    data = np.frombuffer(SPS + PPS, np.uint8)
    message = SimpleNamespace(header=SimpleNamespace(frame_id="/cam"), encoding=words, data=data)
    packet = packet_of(message, FFMPEG_PACKET)
    assert packet is not None
    assert (packet.codec, packet.frame_id, packet.data) == (codec, "cam", SPS + PPS)


@pytest.mark.parametrize(
    ("words", "told"), [("av1", "AV1 video is not read"), ("vp9", "VP9 video"), ("odd", "odd video")]
)
def test_other_codecs_are_refused_with_the_way_out(words, told):
    message = SimpleNamespace(timestamp=None, frame_id="cam", format=words, data=np.ones(9, np.uint8))
    with pytest.raises(DataError, match=f"{told}.*H.264 and H.265 are; .*republish"):
        packet_of(message, COMPRESSED_VIDEO)
    message.data = np.zeros(0, np.uint8)
    with pytest.raises(DataError, match=r"is empty \(0 bytes\)"):
        packet_of(message, COMPRESSED_VIDEO)


def test_still_images_are_no_video():
    message = SimpleNamespace(header=None, format="jpeg", data=np.frombuffer(b"\xff\xd8\xff\xe0", np.uint8))
    assert packet_of(message, COMPRESSED_IMAGE) is None


# -- with PyAV -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def av():
    return pytest.importorskip("av", reason="PyAV is not installed: pip install 'come_nav[video]'")


def pictures() -> list[np.ndarray]:
    """A bright square that moves over a slope of grey: its place tells the picture's number."""
    found = []
    for number in range(COUNT):
        rgb = np.repeat(np.linspace(30, 120, W).astype(np.uint8)[None, :, None], H, 0).repeat(3, 2)
        rgb[16:32, 2 * number : 2 * number + 16] = (230, 60, 60)
        found.append(np.ascontiguousarray(rgb))
    return found


def number_of(rgb: np.ndarray) -> int:
    return round((float(np.flatnonzero(rgb[24, :, 0].astype(int) - rgb[24, :, 2] > 80)[0])) / 2)


def clip(av, encoder: str, backward: int = 0) -> list[bytes]:
    """Return the pieces in the order of decoding, which is that of recording; ``backward`` pictures look ahead."""
    codec = av.CodecContext.create(encoder, "w")
    codec.width, codec.height, codec.pix_fmt, codec.time_base = W, H, "yuv420p", Fraction(1, 8)
    codec.gop_size = GROUP
    own = {
        "libx264": f"keyint={GROUP}:bframes={backward}",
        "libx265": f"keyint={GROUP}:bframes={backward}:log-level=none",
    }
    codec.options = {"preset": "ultrafast", encoder[3:] + "-params": own[encoder] + ":scenecut=0:repeat-headers=1"}
    pieces = []
    for number, rgb in enumerate(pictures()):
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
        frame.pts = number
        pieces += [(packet.pts, bytes(packet)) for packet in codec.encode(frame)]
    pieces += [(packet.pts, bytes(packet)) for packet in codec.encode(None)]
    assert sorted(pts for pts, _ in pieces) == list(range(COUNT))
    return pieces


def bag_of(pieces, kind: str, words: str, storage: str = "mcap") -> BagMaker:
    """A drive with one piece of video at each stamp: its picture's, so that pieces out of order are told apart."""
    from rosbags.typesys import get_types_from_msg

    maker, store = BagMaker(), typestore(False)
    if kind in DEFINITIONS and kind not in store.fielddefs:
        from rosbags.typesys import Stores, get_typestore

        store = get_typestore(Stores.ROS2_JAZZY)
        store.register(get_types_from_msg(DEFINITIONS[kind], kind))
    make, header_of = store.types[kind], store.types["std_msgs/msg/Header"]
    time_of = store.types["builtin_interfaces/msg/Time"]
    for order, (pts, data) in enumerate(pieces):
        stamp_ns = START_NS + pts * SECOND // 8
        stamp, bytes_of = time_of(stamp_ns // SECOND, stamp_ns % SECOND), np.frombuffer(data, np.uint8)
        if kind == FFMPEG_PACKET:
            message = make(header_of(stamp, "cam"), W, H, words, pts, 0, False, bytes_of)
        elif kind == COMPRESSED_VIDEO:
            message = make(stamp, "cam", bytes_of, words)
        else:
            message = make(header_of(stamp, "cam"), words, bytes_of)
        maker.add(START_NS + order * SECOND // 8, "/camera/video", kind, bytes(store.serialize_cdr(message, kind)))
    for number in range(COUNT):
        maker.odometry(START_NS + number * SECOND // 8, 0.1 * number)
    maker.store = store
    return maker


def write(maker: BagMaker, folder, storage: str = "mcap"):
    from rosbags.rosbag2 import StoragePlugin, Writer

    links: dict[str, object] = {}
    with Writer(folder, version=9, storage_plugin=StoragePlugin[storage.upper()]) as writer:
        for log_ns, topic, kind, raw in sorted(maker.messages, key=lambda message: message[0]):
            if topic not in links:
                links[topic] = writer.add_connection(topic, kind, typestore=maker.store)
            writer.write(links[topic], log_ns, raw)
    return folder


KINDS = [
    (FFMPEG_PACKET, "libx264", "h264;yuv420p;bgr8;bgr8"),
    (FFMPEG_PACKET, "libx265", "libx265"),
    (COMPRESSED_VIDEO, "libx264", "h264"),
    (COMPRESSED_VIDEO, "libx265", "h265"),
    (COMPRESSED_IMAGE, "libx264", "h264"),
]


@pytest.mark.parametrize(("kind", "encoder", "words"), KINDS, ids=[f"{k[0].split('/')[-1]}-{k[1]}" for k in KINDS])
@pytest.mark.parametrize("backward", [0, 2])
def test_pictures_come_back_in_any_order(av, tmp_path, kind, encoder, words, backward):
    bag = write(bag_of(clip(av, encoder, backward), kind, words), tmp_path / "run")
    with open_recording(bag, None) as recording:
        assert len(recording) == COUNT
        assert backward or recording.report.warnings == ()
        for number in (0, 1, 2, 7, 8, 23, 22, 3, 16, 15, 0, 23):
            frame = recording.frame(number)
            assert (frame.rgb.shape, frame.frame_id) == ((H, W, 3), "cam")
            assert number_of(frame.rgb) == number
            assert np.abs(frame.rgb.astype(int) - pictures()[number]).mean() < 6.0


def test_pictures_at_a_lower_rate_and_in_other_processes(av, tmp_path):
    bag = write(bag_of(clip(av, "libx264"), FFMPEG_PACKET, "h264"), tmp_path / "run")
    with open_recording(bag, 4.0) as recording:
        assert [number_of(recording.frame(index).rgb) for index in range(COUNT // 2)] == list(range(0, COUNT, 2))
        copy = pickle.loads(pickle.dumps(recording))
        assert number_of(copy.frame(5).rgb) == 10
        copy.close()


def test_a_bag_without_definitions_is_read(av, tmp_path):
    maker = bag_of(clip(av, "libx264"), FFMPEG_PACKET, "h264")
    write(maker, tmp_path / "run", "sqlite3")
    import sqlite3

    with sqlite3.connect(next((tmp_path / "run").glob("*.db3"))) as base:
        base.execute("delete from message_definitions")
    with open_recording(tmp_path / "run", None) as recording:
        assert number_of(recording.frame(9).rgb) == 9


def test_pieces_before_the_first_start_are_left_out_with_a_note(av, tmp_path):
    pieces = clip(av, "libx264")[3:]
    with open_recording(write(bag_of(pieces, COMPRESSED_VIDEO, "h264"), tmp_path / "run"), None) as recording:
        assert len(recording) == COUNT - GROUP
        assert number_of(recording.frame(0).rgb) == GROUP
        assert any(
            "left out 5 of 21 images" in note and "first key picture" in note for note in recording.report.warnings
        )
    with pytest.raises(DataError, match=r"has no image that is whole: 2 of 2 .*first key picture"):
        open_recording(write(bag_of(pieces[:2], COMPRESSED_VIDEO, "h264"), tmp_path / "none"))


def test_damage_is_told_and_the_next_group_is_whole(av, tmp_path):
    pieces = clip(av, "libx264")
    pieces[10] = (pieces[10][0], pieces[10][1][:6] + bytes(40))
    with open_recording(write(bag_of(pieces, FFMPEG_PACKET, "h264"), tmp_path / "run"), None) as recording:
        with pytest.raises(DataError, match=r"frame 10 at .*: /camera/video: the video is damaged there"):
            recording.frame(10)
        assert number_of(recording.frame(GROUP * 2 + 1).rgb) == GROUP * 2 + 1
        assert number_of(recording.frame(9).rgb) == 9


def test_parameter_sets_sent_once_are_enough(av, tmp_path):
    pieces = clip(av, "libx264")
    bare = []
    for pts, data in pieces:
        packet = VideoPacket("h264", "", data)
        cut = b"".join(b"\0\0\0\1" + unit for unit in data.split(b"\0\0\1")[1:] if unit[0] & 31 not in (7, 8))
        bare.append((pts, cut.replace(b"\0\0\0\0\1", b"\0\0\0\1") if pts and parameter_sets(packet) else data))
    with open_recording(write(bag_of(bare, FFMPEG_PACKET, "h264"), tmp_path / "run"), None) as recording:
        assert number_of(recording.frame(GROUP + 2).rgb) == GROUP + 2  # the decoder begins in the midst


def test_without_pyav_one_line_names_the_extra(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("come_nav.data.video.stream.has_av", lambda: False)
    for kind in (FFMPEG_PACKET, COMPRESSED_VIDEO, COMPRESSED_IMAGE):
        bag = write(bag_of([(0, SPS), (1, SPS)], kind, "h264"), tmp_path / kind.rsplit("/", 1)[1])
        with pytest.raises(MissingDependencyError, match=r"pip install 'come_nav\[video\]', or record images:"):
            open_recording(bag)
        assert main(["bag", "info", str(bag)]) == 1
        assert "/camera/video is video" in capsys.readouterr().err
