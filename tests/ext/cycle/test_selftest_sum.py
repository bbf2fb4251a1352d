"""The sum by which the core tests its program and its code, eight bytes at once, is CRC-32 and no other."""

import random
import zlib

import pytest

from tidegate.ext.cycle.selftest import crc_of


@pytest.mark.parametrize("count", [*range(26), 63, 64, 65, 256])
def test_the_sum_is_that_of_zlib(count: int) -> None:
    data = random.Random(count).randbytes(count)
    assert crc_of(data) == zlib.crc32(data)
