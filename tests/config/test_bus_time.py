"""Line times agree with the figures computed by hand for a legal line."""

import pytest

from tidegate.config.poll_plan import REQUEST_BYTES, char_ns, gap_ns, port_plan, transaction_ns
from tidegate.config.site import Device, Serial
from tidegate.hal import maps

METER = maps.shipped("eastron-sdm630")
DEVICE = Device(name="d", map=METER.name, bus="b", role="grid-meter", unit_id=1, latency_ms=0.0)

# wire + two silences, ms: registers -> baud -> time (10 bits a character, reply 5 + 2 N bytes)
TABLE = {
    2: {9600: 25.0, 19200: 12.5, 38400: 7.9, 115200: 5.0},
    28: {9600: 79.0, 19200: 40.0, 38400: 21.5, 115200: 9.5},
    72: {9600: 171.0, 19200: 85.0, 38400: 44.4, 115200: 17.1},
}


@pytest.mark.parametrize("count", TABLE)
@pytest.mark.parametrize("baud", [9600, 19200, 38400, 115200])
def test_transaction_time(count, baud):
    serial = Serial(name="b", device="/dev/null", baud=baud)
    time_ms = transaction_ns(serial, DEVICE, METER, REQUEST_BYTES, 5 + 2 * count) / 1e6
    assert time_ms == pytest.approx(TABLE[count][baud], rel=0.02)


def test_parity_and_second_stop_bit_make_a_character_longer():
    plain = char_ns(Serial(name="b", device="x", baud=9600))
    assert char_ns(Serial(name="b", device="x", baud=9600, parity="E")) == pytest.approx(1.1 * plain)
    assert char_ns(Serial(name="b", device="x", baud=9600, parity="E", stop_bits=2)) == pytest.approx(1.2 * plain)


def test_silence_is_fixed_above_19200_baud_unless_the_site_says_otherwise():
    assert gap_ns(Serial(name="b", device="x", baud=19200)) == pytest.approx(3.5 * 10 / 19200 * 1e9)
    assert gap_ns(Serial(name="b", device="x", baud=38400)) == 1_750_000
    assert gap_ns(Serial(name="b", device="x", baud=115200, gap="chars")) == pytest.approx(3.5 * 10 / 115200 * 1e9)
    assert gap_ns(Serial(name="b", device="x", baud=115200, gap=500)) == 500_000


def test_a_slow_device_costs_its_delay():
    serial = Serial(name="b", device="/dev/null", baud=115200)
    slow = DEVICE.model_copy(update={"latency_ms": 50.0})
    extra = transaction_ns(serial, slow, METER, 8, 9) - transaction_ns(serial, DEVICE, METER, 8, 9)
    assert extra == pytest.approx(50e6 - 1.75e6)


CONVERTER = maps.shipped("sunspec-701")


def bound_ms(unit_ids=(1,), baud=115200, period_ns=1_000_000, **changes):
    """(while devices answer, with a time-out) from a cause to setpoint 0 on the wire, converters on one port, ms."""
    serial = Serial(name="p", device="/dev/null", baud=baud)
    users = [
        (Device(name=f"d{n}", map=CONVERTER.name, bus="p", role="pcs", unit_id=n, latency_ms=1.0, **changes), CONVERTER)
        for n in unit_ids
    ]
    plan = port_plan(serial, users, [], period_ns)
    return plan.zero_ns / 1e6, plan.zero_timeout_ns / 1e6


def test_zero_is_on_the_wire_after_two_cycles_the_transaction_in_flight_and_its_own_frame():
    """By hand: the longest block has 11 registers, its factors are read apart (8 + 27 bytes, two silences of 1.75 ms);
    the write has 13 bytes."""
    char_ms = 10 / 115.2
    assert bound_ms()[0] == pytest.approx(2.0 + 35 * char_ms + 3.5 + 13 * char_ms, abs=1e-3)
    assert bound_ms(period_ns=500_000)[0] == pytest.approx(bound_ms()[0] - 1.0, abs=1e-3)


def test_a_missing_reply_costs_its_time_out_instead_of_the_silence_before_it():
    assert bound_ms(timeout_ms=100.0)[1] == pytest.approx(bound_ms()[0] - 1.75 + 100.0, abs=1e-3)
    assert bound_ms(timeout_ms=100.0)[0] == bound_ms()[0]


def test_a_second_converter_on_the_port_is_told_after_the_first():
    char_ms = 10 / 115.2
    assert bound_ms((1, 2))[0] == pytest.approx(bound_ms()[0] + 21 * char_ms + 3.5, abs=1e-3)


def test_a_port_without_a_converter_has_no_such_bound():
    plan = port_plan(Serial(name="b", device="/dev/null"), [(DEVICE, METER)], [])
    assert plan.zero_ns == plan.zero_timeout_ns == 0
