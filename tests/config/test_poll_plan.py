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
    factors = {p.name for p in found.point if p.type == "sunssf"}
    assert sorted(name for name in seen if name not in factors) == sorted(
        p.name for p in found.point if p.name not in factors
    )
    assert set(seen) >= factors
    for block in blocks:
        names = {point.name for point in block.points}
        assert all(point.sf in names for point in block.points if point.sf), "a value and its factor in one reading"
    plain = [(b.function, b.count) for b in blocks if b.signature_word is None]
    assert len(plain) == len(set(plain))
    for block in blocks:
        assert block.count <= found.modbus.regs_max
        assert not found.modbus.regs_even or block.count % 2 == 0
        for point in block.points:
            assert block.address <= point.address and point.address + point.words <= block.address + block.count


@pytest.mark.parametrize("name", [name for name in SERIAL_MAPS if maps.shipped(name).map.protocol == "sunspec"])
def test_no_setpoint_waits_for_a_read_across_a_whole_model(name):
    """Values and their factors at the other end of the model are two short reads, one right behind the other."""
    found = maps.shipped(name)
    device = Device(name="d", map=name, bus="b", role="pcs" if found.map.kind == "pcs" else "grid-meter", unit_id=1)
    serial = Serial(name="b", device="/dev/null", baud=19200)
    together = device_blocks(serial, device, found, [])
    split = device_blocks(serial, device, found, [], apart=True)
    assert {p.name for b in split for p in b.points} == {p.name for b in together for p in b.points}
    assert max(b.time_ns for b in split) <= max(b.time_ns for b in together)
    read_with = {p.name for b in split if b.factors for p in b.points}
    for block in split:
        assert not block.factors or block.poll == "fast"
        if block.waits:
            assert {p.sf for p in block.points if p.sf} <= read_with
        else:
            assert {p.sf for p in block.points if p.sf} <= {p.name for p in block.points}


def test_the_split_is_made_where_it_spares_the_line():
    found = maps.shipped("sunspec-701")
    device = Device(name="d", map="sunspec-701", bus="b", role="pcs", unit_id=1)
    serial = Serial(name="b", device="/dev/null", baud=115200)
    together = [b for b in device_blocks(serial, device, found, []) if b.poll == "fast"]
    split = [b for b in device_blocks(serial, device, found, [], apart=True) if b.poll == "fast"]
    assert len(together) == 1 and len(split) == 2
    assert max(b.time_ns for b in split) < 0.4 * together[0].time_ns


@pytest.mark.parametrize("name", SERIAL_MAPS)
def test_the_fast_block_is_small(name):
    found = maps.shipped(name)
    device = Device(name="d", map=name, bus="b", role="pcs" if found.map.kind == "pcs" else "grid-meter", unit_id=1)
    serial = Serial(name="b", device="/dev/null", baud=115200)
    fast = [b for b in device_blocks(serial, device, found, []) if b.poll == "fast"]
    # SunSpec keeps a model's factors behind its values, and a value is read with its factor.
    assert fast and sum(b.count for b in fast) <= (125 if found.map.protocol == "sunspec" else 40)
