"""What image headers claim is held against the bytes that are there, before they are decoded."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest

from come_nav.core.image_headers import plausible_size


@pytest.mark.parametrize("ending", [".jpg", ".png"])
@pytest.mark.parametrize("value", [0, 255])
def test_the_evenest_large_images_are_plausible(ending, value):
    """Nothing is smaller for its size than an image of one colour."""
    _, data = cv2.imencode(ending, np.full((3000, 4000, 3), value, np.uint8))
    assert plausible_size(data.tobytes())


@pytest.mark.parametrize("ending", [".jpg", ".png"])
def test_a_small_file_that_claims_gigabytes_is_not(ending):
    _, encoded = cv2.imencode(ending, np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    data = bytearray(encoded.tobytes())
    if ending == ".png":
        struct.pack_into(">II", data, 16, 60000, 60000)
    else:
        at = next(at for at in range(2, len(data)) if data[at] == 0xFF and data[at + 1] == 0xC0)
        struct.pack_into(">HH", data, at + 5, 60000, 60000)
    assert plausible_size(encoded.tobytes())
    assert not plausible_size(bytes(data))


def test_what_is_no_image_is_left_to_the_decoder():
    assert plausible_size(b"")
    assert plausible_size(b"\xff\xd8\xff")
    assert plausible_size(b"neither")
