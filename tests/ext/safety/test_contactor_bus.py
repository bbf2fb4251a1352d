"""The contactor request on the wire: frames of a CAN bus, from the whole core in made-up time."""

import socket
import struct
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from tests.ext.safety import mode_rig
from tests.ext.safety.fault_rig import MS
from tidegate.ext.abi import program
from tidegate.ext.cycle.loop import Core

EVERY_MS, WAIT_MS = 100, 1000
CLOSED, OPEN = b"\1" + bytes(7), bytes(8)


@cache
def site() -> bytes:
    """mode_rig's site with one bus, on which a cyclic frame asks the BMS for its contactors."""
    frame = {"id": 0x210, "len": 8, "data": CLOSED, "has_open": 1, "open_data": OPEN, "period_ns": EVERY_MS * MS}
    return program.pack({**mode_rig.site_rows(), "n_can_buses": 1, "can_tx": [{**frame, "unit": 0}]})


class Wire:
    """The BMS's end of the bus, and a rig whose core writes to the other one."""

    def __init__(self, rig: mode_rig.CoreRig, end: socket.socket) -> None:
        self.rig, self.end = rig, end

    def cycle(self) -> list[bytes]:
        """One cycle; the data of the frames that it sent."""
        self.rig.cycle()
        got = []
        while True:
            try:
                can_id, _, data = struct.unpack("=IB3x8s", self.end.recv(16))
            except BlockingIOError:
                return got
            assert can_id == 0x210
            got.append(data)


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)

    def core(blob: bytes, shared: Any) -> Core:
        made = Core(blob, shared)
        made.set_can_fd(0, ours.fileno())
        return made

    monkeypatch.setattr(mode_rig, "site", site)
    monkeypatch.setattr(mode_rig, "Core", core)
    with ours, theirs, mode_rig.CoreRig("discharging") as rig:
        one = Wire(rig, theirs)
        assert rig.setpoint_w == 20_000.0
        for _ in range(20):
            assert set(one.cycle()) <= {CLOSED}
        yield one


def test_the_bms_is_asked_to_open_only_after_the_power_is_zero(wire: Wire) -> None:
    wire.rig.set({"temp_max_c": 80.0})
    seen = []
    for _ in range(3 * EVERY_MS + WAIT_MS):
        for data in wire.cycle():
            seen.append(data)
            if data == OPEN:
                assert wire.rig.setpoint_w == 0.0 and abs(float(wire.rig.values["x.pcs_w"])) <= 3500.0
    assert OPEN in seen and seen[0] == CLOSED
    assert CLOSED not in seen[seen.index(OPEN) :], "asked once, it goes on asking"


def test_power_that_does_not_stop_holds_the_request_back_for_a_second(wire: Wire) -> None:
    wire.rig.set({"temp_max_c": 80.0, "pcs_w": 20_000.0})  # the converter goes on, whatever it is told
    zero_at = acted_at = asked_at = None
    for at in range(5 * WAIT_MS):
        frames = wire.cycle()
        if zero_at is None and wire.rig.setpoint_w == 0.0:
            zero_at = at  # the envelope's doing, before the row's debounce is over
        if acted_at is None and "temp_high_trip" in wire.rig.active():
            acted_at = at
        if OPEN in frames:
            asked_at = at
            break
    assert zero_at is not None and acted_at is not None and asked_at is not None and zero_at <= acted_at
    assert WAIT_MS - 1 <= asked_at - acted_at <= WAIT_MS + EVERY_MS


def test_a_fault_that_only_stops_asks_for_no_contactor(wire: Wire) -> None:
    wire.rig.set({"alarm": 1.0})
    sent = [data for _ in range(2 * WAIT_MS) for data in wire.cycle()]
    assert wire.rig.setpoint_w == 0.0 and "bms_alarm" in wire.rig.latched()
    assert len(sent) >= 15 and set(sent) == {CLOSED}


RUNAWAY_MS = 5000  # debounce of `pcs_runaway`


@pytest.mark.parametrize("cause", [{"alarm": 1.0}, {"soc": "stale"}, {"pcs_fault": 16.0}])
def test_a_converter_that_is_deaf_while_it_should_rest_is_parted_from_the_battery(
    wire: Wire, cause: dict[str, Any]
) -> None:
    wire.rig.set({**cause, "pcs_w": 20_000.0})
    zero_at = asked_at = None
    for at in range(RUNAWAY_MS + 4 * WAIT_MS):
        frames = wire.cycle()
        if zero_at is None and wire.rig.setpoint_w == 0.0:
            zero_at = at
        if OPEN in frames:
            asked_at = at
            break
    assert zero_at is not None and asked_at is not None, "the last means was not used"
    assert asked_at - zero_at <= RUNAWAY_MS + 2 * WAIT_MS


def test_a_converter_that_takes_two_seconds_to_rest_keeps_its_contactors(wire: Wire) -> None:
    began = wire.rig.t_ns
    wire.rig.set({"alarm": 1.0, "pcs_w": lambda rig: max(0.0, 20_000.0 * (1.0 - (rig.t_ns - began) / (2000 * MS)))})
    sent = [data for _ in range(RUNAWAY_MS + 2 * WAIT_MS) for data in wire.cycle()]
    assert set(sent) == {CLOSED} and "pcs_runaway" not in wire.rig.latched()
