"""Line times agree with the figures computed by hand for a legal line."""

import pytest

from tidegate.config.plan import REQUEST_BYTES, char_ns, gap_ns, transaction_ns
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
