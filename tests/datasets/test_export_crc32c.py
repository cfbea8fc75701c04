"""CRC32C without a package: known answers, and agreement with a foreign implementation at every kind of length."""

from __future__ import annotations

import crc32c as foreign
import numpy as np
import pytest

from datasets.exports.crc32c import crc32c, masked_crc32c


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
    ],
)
def test_known_answers(data: bytes, expected: int) -> None:
    assert crc32c(data) == expected


@pytest.mark.parametrize("length", [1, 3, 8, 1023, 1024, 1025, 1031, 8192, 49_152, 65_537, 786_432, 786_503])
def test_agrees_with_a_foreign_implementation(length: int) -> None:
    data = np.random.default_rng(length).bytes(length)
    assert crc32c(data) == foreign.crc32c(data)
    assert crc32c(bytearray(data)) == foreign.crc32c(data)


@pytest.mark.parametrize("place", [0, 3, 4, 700, 4095])
def test_every_changed_bit_changes_it(place: int) -> None:
    data = bytearray(4096)
    before = crc32c(data)
    data[place] ^= 1
    assert crc32c(data) != before


def test_the_mask_of_records() -> None:
    crc = crc32c(b"foo")
    assert masked_crc32c(b"foo") == ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32
