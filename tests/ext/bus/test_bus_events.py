"""What the core says when a bus, a port or a device comes or goes: once for a change, never in a flood."""

import os
import socket
import time
import tty

import pytest

from tidegate.ext.abi import program as ext_program
from tidegate.ext.abi.shared import BUS_STATES, EVENT_NAMES, Shared
from tidegate.ext.bus.port import Port
from tidegate.ext.bus.rtu_view import crc
from tidegate.ext.cycle.loop import Core

MS = 1_000_000
BLOCK = {"function": 3, "address": 0, "count": 4, "fields": []}


class Bench:
    """A core with one CAN bus and one serial port, driven at made-up times."""

    def __init__(self):
        ports = [{"baud": 115200, "slaves": [{"unit_id": 1, "device": 2, "timeout_ns": 300 * MS, "blocks": [BLOCK]}]}]
        blob = ext_program.pack({"units": [{}], "period_ns": MS, "n_can_buses": 1, "ports": ports})
        self.shared, self.fd = Shared.memfd("events")
        self.core = Core(blob, self.shared)
        self.near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.near.setblocking(False)
        self.core.set_can_fd(0, self.near.fileno())
        self.number = 0

    def cycles(self, count):
        for _ in range(count):
            self.core.cycle(10**9 + self.number * MS, MS, self.number)
            self.number += 1

    def news(self):
        """(word, previous word, number, changes) of each bus event so far."""
        found = (self.shared.next_event(number) for number in range(self.shared.event_head))
        return [
            (BUS_STATES[event.code][0], BUS_STATES[event.previous][0], event.value, event.limit)
            for event in found
            if event is not None and EVENT_NAMES[event.kind] == "bus"
        ]


@pytest.fixture
def bench():
    made = Bench()
    yield made
    made.near.close()
    made.far.close()
    os.close(made.fd)


def error_frame(*, bus_off=False, restarted=False):
    number = 0x20000000 | (0x40 if bus_off else 0) | (0x100 if restarted else 0)
    return number.to_bytes(4, "little") + bytes([8, 0, 0, 0]) + bytes(8)


def test_a_bus_in_order_is_no_news(bench):
    bench.cycles(100)
    assert bench.news() == []


def test_a_bus_that_goes_down_is_told_once(bench):
    bench.cycles(20)
    bench.far.close()
    bench.cycles(3000)
    assert bench.news() == [("down", "active", 0.0, 1.0)]


def test_bus_off_and_its_end_are_told(bench):
    bench.far.send(error_frame(bus_off=True))
    bench.cycles(1500)
    bench.far.send(error_frame(restarted=True))
    bench.cycles(1500)
    assert [row[:2] for row in bench.news()] == [("bus-off", "active"), ("active", "bus-off")]


def test_a_bus_that_flaps_is_told_once_a_second_with_how_often_it_did(bench):
    for _ in range(50):
        bench.far.send(error_frame(bus_off=True))
        bench.cycles(50)
        bench.far.send(error_frame(restarted=True))
        bench.cycles(50)
    news = bench.news()
    assert 4 <= len(news) <= 6
    assert sum(row[3] for row in news) > 60


def test_a_slave_that_falls_silent_and_one_that_answers_again_are_told(bench):
    theirs, ours = os.openpty()
    tty.setraw(theirs)
    tty.setraw(ours)
    port = Port(bench.core.port_handle(0), 0, ours)
    port.start()
    try:
        until(bench, lambda: bench.news() == [("silent", "answers", 2.0, 1.0)])
        until(bench, lambda: answer(theirs) and bench.news()[1:] == [("answers", "silent", 2.0, 1.0)])
    finally:
        port.stop(0.0)
        os.close(theirs)
        os.close(ours)


def test_a_port_whose_other_end_is_gone_is_told(bench):
    theirs, ours = os.openpty()
    tty.setraw(ours)
    port = Port(bench.core.port_handle(0), 0, ours)
    port.start()
    try:
        os.close(theirs)
        until(bench, lambda: ("lost", "open", 0.0, 1.0) in bench.news())
        assert port.lost
    finally:
        port.stop(0.0)
        os.close(ours)


def test_a_lost_port_goes_on_with_the_descriptor_that_it_is_handed(bench):
    theirs, ours = os.openpty()
    tty.setraw(ours)
    port = Port(bench.core.port_handle(0), 0, ours)
    port.start()
    try:
        os.close(theirs)
        until(bench, lambda: port.lost)
        theirs, fresh = os.openpty()
        tty.setraw(theirs)
        tty.setraw(fresh)
        assert port.hand_over(fresh)
        until(bench, lambda: answer(theirs) and port.stats["ok"] > 0 and not port.lost)
        assert port.retired() == ours and not port.waiting
        until(bench, lambda: ("open", "lost") in [row[:2] for row in bench.news()])
    finally:
        port.stop(0.0)
        for fd in (theirs, ours, fresh):
            os.close(fd)


def until(bench, holds):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if holds():
            return
        bench.cycles(16)
        time.sleep(0.001)
    raise AssertionError(bench.news())


def answer(fd):
    """Answer what was asked; always true."""
    os.set_blocking(fd, False)
    try:
        asked = os.read(fd, 512)
    except BlockingIOError:
        return True
    if len(asked) >= 8:
        size = 2 * asked[-3]  # the count: after a time-out a short read of another length goes first
        body = asked[-8:-6] + bytes([size]) + bytes(size)
        os.write(fd, body + crc(body).to_bytes(2, "little"))
    return True
