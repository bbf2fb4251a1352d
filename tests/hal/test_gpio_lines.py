"""GPIO lines: what contacts and pulses become, against lines of our own at the border of the kernel.

The test machine's kernel has no gpio-sim, so the chip is a fake: edges with time stamps behind a descriptor, as the
character device gives them.
"""

import os
import select
import socket
import types

import pytest

from tidegate.hal import gpio_lines as inputs
from tidegate.hal.can_frame import CLASSIC
from tidegate.hal.gpio_frames import INPUT_ID, OUTPUT_ID, UNKNOWN, Line, interface, lines

MS = 1_000_000
CHIP = "/dev/gpiochip0"


class FakeChip:
    """Lines whose edges the test makes."""

    def __init__(self):
        self.pipe = os.pipe2(os.O_NONBLOCK)
        self.waiting, self.levels, self.driven, self.numbers, self.closed = [], {}, [], {}, False

    def happen(self, offset, active, t_ns, lost=0):
        self.numbers[offset] = self.numbers.get(offset, 0) + 1 + lost
        self.levels[offset] = active
        self.waiting.append(inputs.Edge(offset, active, t_ns, self.numbers[offset]))
        os.write(self.pipe[1], b"!")

    def fileno(self):
        return self.pipe[0]

    def edges(self):
        os.read(self.pipe[0], 4096)
        found, self.waiting = self.waiting, []
        return found

    def is_active(self, offset):
        return self.levels.get(offset, False)

    def drive(self, offset, active):
        self.driven.append((offset, active))

    def close(self):
        self.closed = True
        for fd in self.pipe:
            os.close(fd)


class Rig:
    def __init__(self, *specs):
        self.core, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.core.setblocking(False)
        self.chip, self.t_ns = FakeChip(), 10**12
        self.server = inputs.Server(specs, far, lambda path, _: self.chip, lambda: self.t_ns)
        self.poller = select.poll()
        self.poller.register(far, select.POLLIN)
        self.poller.register(self.chip, select.POLLIN)
        self.far = far
        self.turn()

    def turn(self, after_ms=0):
        self.t_ns += after_ms * MS
        self.server.next_ns = min(self.server.next_ns, self.t_ns)  # the clock is ours, so nobody may wait by it
        return self.server.turn(self.poller)

    def heard(self):
        """(id, state, count, power) of each frame that waits."""
        found = []
        while True:
            try:
                can_id, _, data = CLASSIC.unpack(self.core.recv(64))
            except BlockingIOError:
                return found
            found.append((can_id, data[0], int.from_bytes(data[1:5], "little"), int.from_bytes(data[5:8], "little")))

    def last(self):
        return self.heard()[-1]


@pytest.fixture
def rig():
    made = []

    def make(*specs):
        made.append(Rig(*specs))
        return made[-1]

    yield make
    for one in made:
        one.server.close()
        one.core.close()
        one.far.close()


def contact(**row):
    return Line("in", 0, CHIP, 17, debounce_ms=10.0, **row)


def test_the_state_at_start_is_said_before_any_edge(rig):
    assert rig(contact()).heard() == [(INPUT_ID, 0, 0, 0)]


def test_a_contact_counts_once_it_stays(rig):
    made = rig(contact())
    made.heard()
    made.chip.happen(17, True, made.t_ns)
    made.turn(9)
    assert made.last()[1] == 0
    made.turn(2)
    assert made.last()[1] == 1


def test_a_bounce_shorter_than_the_debounce_time_is_none(rig):
    made = rig(contact())
    made.chip.happen(17, True, made.t_ns)
    made.chip.happen(17, False, made.t_ns + 8 * MS)
    made.turn(30)
    assert {state for _, state, _, _ in made.heard()} == {0}


def test_a_pulse_longer_than_the_debounce_time_is_seen_though_both_edges_came_at_once(rig):
    made = rig(contact())
    made.chip.happen(17, True, made.t_ns)
    made.chip.happen(17, False, made.t_ns + 20 * MS)
    made.turn(25)
    assert made.last()[1] == 1, "the release is not yet older than the debounce time"
    made.turn(10)
    assert made.last()[1] == 0


def test_a_line_that_chatters_is_not_known_until_it_is_quiet(rig):
    made = rig(contact())
    for i in range(60):  # an open wire that picks up 50 Hz
        made.chip.happen(17, i % 2 == 0, made.t_ns + i * 10 * MS)
    made.turn(600)
    assert made.last()[1] == UNKNOWN
    made.turn(1500)
    assert made.last()[1] == 0


def test_a_relay_that_is_worked_often_and_bounces_is_no_chatter(rig):
    made = rig(contact())
    for press in range(3):
        for i in range(9):
            made.chip.happen(17, i % 2 == 0, made.t_ns + press * 300 * MS + i * MS)
    made.turn(900)
    assert made.last()[1] == 1


def pulses(**row):
    return Line("in", 3, CHIP, 4, debounce_ms=10.0, pulse=True, wh_per_pulse=1.0, **row)


def test_pulses_are_counted_and_their_distance_is_a_power(rig):
    made = rig(pulses())
    assert made.last() == (INPUT_ID + 3, 0, 0, 0xFFFFFF), "no power before the second pulse"
    made.chip.happen(4, True, made.t_ns)
    made.chip.happen(4, True, made.t_ns + 360 * MS)
    made.turn(360)
    assert made.last() == (INPUT_ID + 3, 0, 2, 10_000)  # 1 Wh in 0.36 s
    made.turn(3600 - 360)
    assert made.last()[3] == pytest.approx(1111, abs=1), "it cannot be more than the wait for the next allows"
    made.turn(3_700_000)
    assert made.last()[3] == 0


def test_a_bounce_of_a_pulse_does_not_count_and_edges_that_the_kernel_dropped_do(rig):
    made = rig(pulses())
    made.chip.happen(4, True, made.t_ns)
    made.chip.happen(4, True, made.t_ns + 2 * MS)
    made.chip.happen(4, True, made.t_ns + 1000 * MS, lost=4)
    made.turn(1000)
    assert made.last()[2] == 6


def test_a_count_goes_out_at_once_and_not_with_the_next_period(rig):
    made = rig(pulses())
    made.heard()
    made.server.next_ns = made.t_ns + 10**9
    made.chip.happen(4, True, made.t_ns)
    made.t_ns += MS
    assert made.server.turn(made.poller)
    assert made.last()[2] == 1


def ask(made, byte):
    made.core.send(CLASSIC.pack(OUTPUT_ID, 1, bytes([byte])))
    made.turn()


def test_an_alarm_is_on_until_the_controller_denies_it_and_when_it_falls_silent(rig):
    made = rig(Line("out", 0, CHIP, 5, silent=True))
    assert made.chip.driven == [(5, True)]
    ask(made, 1)
    assert made.chip.driven[-1] == (5, False)
    made.turn(400)
    assert made.chip.driven[-1] == (5, False)
    made.turn(200)
    assert made.chip.driven[-1] == (5, True)


def test_a_breaker_is_asked_for_only_while_the_gate_does(rig):
    made = rig(Line("out", 0, CHIP, 5))
    ask(made, 0)
    ask(made, 2)
    ask(made, 0)
    made.turn(600)
    assert made.chip.driven == [(5, False), (5, True), (5, False)]


def test_it_ends_when_the_core_is_gone(rig):
    made = rig(contact())
    made.core.close()
    assert not made.turn(100)


def test_the_words_for_the_process_say_every_line_again():
    specs = [contact(active_low=True, bias="pull-up"), pulses(), Line("out", 1, "/dev/gpiochip1", 2, silent=True)]
    assert lines(interface(specs)) == specs
    with pytest.raises(ValueError, match="no GPIO line"):
        lines("gpio:sideways 1")


# ------------------------------------------------------------------------------------------------- lines named


class FakeInfo:
    def __init__(self, count, taken):
        self.count, self.taken = count, taken

    def get_line_info(self, offset):
        if offset >= self.count:
            raise ValueError("line offset out of range")
        used = offset in self.taken
        return types.SimpleNamespace(used=used, consumer=self.taken.get(offset, ""), name=f"GPIO{offset}")

    def close(self):
        pass


def test_a_line_that_is_taken_or_absent_is_named():
    def chip_of(path):
        return FakeInfo(28, {17: "spi0 CS1"})

    assert inputs.look(CHIP, [Line("in", 0, CHIP, 4)], chip_of) == ""
    assert "line 17 (GPIO17) is taken by spi0 CS1" in inputs.look(CHIP, [contact()], chip_of)
    assert "has no line 40" in inputs.look(CHIP, [Line("in", 0, CHIP, 40)], chip_of)


def test_a_chip_that_is_absent_or_none_is_named(tmp_path):
    pytest.importorskip("gpiod")
    assert "no such GPIO chip" in inputs.look(str(tmp_path / "gpiochip9"), [contact()])
    plain = tmp_path / "plain"
    plain.write_text("")
    assert "is no GPIO chip" in inputs.look(str(plain), [contact()])


def test_a_start_without_the_chip_ends_with_its_name():
    pytest.importorskip("gpiod")
    from tidegate.hal import canbus

    name = interface([Line("in", 0, "/dev/gpiochip77", 17)])
    with pytest.raises(OSError, match="no such GPIO chip") as caught:
        canbus.open_bus(name, [])
    assert "/dev/gpiochip77" in str(caught.value)
