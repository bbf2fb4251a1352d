"""Every shipped map gives a plan that the line can carry and in which no late reply passes for another."""

import pytest

from tidegate.config.poll_plan import device_blocks
from tidegate.config.site import Device, Serial
from tidegate.hal import maps

SERIAL_MAPS = [name for name in maps.map_names() if maps.shipped(name).bus == "serial"]


@pytest.mark.parametrize("name", SERIAL_MAPS)
def test_blocks_cover_every_point_and_differ_in_length(name):
    found = maps.shipped(name)
    device = Device(name="d", map=name, bus="b", role="pcs" if found.map.kind == "pcs" else "grid-meter", unit_id=1)
    serial = Serial(name="b", device="/dev/null", baud=found.modbus.baud, parity=found.modbus.parity)
    problems = []
    blocks = device_blocks(serial, device, found, problems)
    assert problems == []
    seen = [point.name for block in blocks for point in block.points]
    assert sorted(seen) == sorted(p.name for p in found.point)
    plain = [(b.function, b.count) for b in blocks if b.signature_word is None]
    assert len(plain) == len(set(plain))
    for block in blocks:
        assert block.count <= found.modbus.regs_max
        assert not found.modbus.regs_even or block.count % 2 == 0
        for point in block.points:
            assert block.address <= point.address and point.address + point.words <= block.address + block.count


@pytest.mark.parametrize("name", SERIAL_MAPS)
def test_the_fast_block_is_small(name):
    found = maps.shipped(name)
    device = Device(name="d", map=name, bus="b", role="pcs" if found.map.kind == "pcs" else "grid-meter", unit_id=1)
    serial = Serial(name="b", device="/dev/null", baud=115200)
    fast = [b for b in device_blocks(serial, device, found, []) if b.poll == "fast"]
    assert fast and sum(b.count for b in fast) <= 40
