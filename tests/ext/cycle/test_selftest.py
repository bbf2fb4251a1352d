"""What the core finds out about itself while it runs, each fault injected: bits, phases, clocks."""

import os
import threading
import time
from collections.abc import Iterator

import pytest

from tests.ext.safety.fault_rig import MS, OWN_TIMES_MS, SILENT, ZERO
from tests.ext.safety.mode_rig import SELFTEST, CoreRig, site
from tidegate.ext.abi import program
from tidegate.ext.abi.shared import EVENT_NAMES, Shared
from tidegate.ext.cycle.loop import Core
from tidegate.ext.safety.diagnosis import FAULT_IDS
from tidegate.ext.sim.disturb import GATE_BYTES, PHASES, clocks, cycle_of, flip_copy, flip_gate

ROWS_BYTES = 8  # of one row of a gate's memory: bucket, active, latched, flaps
LATCHED = 5  # its place in a row
SECOND = 1000 * MS
LOOK_BYTES = 64  # of the program, a cycle


@pytest.fixture
def rig() -> Iterator[CoreRig]:
    with CoreRig("discharging") as made:
        yield made


def found(rig: CoreRig) -> list[str]:
    return [one for one in rig.active() if one in ("memory_changed", "flow_broken", "clock_apart")]


class Lone:
    """A core whose program lies in memory that the test may write."""

    def __init__(self, blob: bytes) -> None:
        self.memory = bytearray(blob)
        self.shared, self.fd = Shared.memfd("selftest")
        self.core = Core(self.memory, self.shared)
        self.number = 0
        self.first = [row["name"] for row in program.rows(blob)["points"]].index("unit0.latch_bits_lo")

    def latched(self) -> list[str]:
        picture = self.shared.read_image()
        assert picture is not None
        words = [int(picture[self.first + i].value) for i in range(4)]
        bits = sum(word << 32 * place for place, word in enumerate(words))
        return [ident for i, ident in enumerate(FAULT_IDS) if bits >> i & 1]

    def cycles(self, count: int) -> None:
        for _ in range(count):
            self.core.cycle(SECOND + self.number * MS, MS, self.number)
            self.number += 1


# Places that no cycle reads: a flipped index could lead it out of bounds before it is found.
@pytest.mark.parametrize("place", [0, program.SIZE // 2, program.SIZE - 64, program.SIZE - 1])
@pytest.mark.parametrize("bit", [0, 7])
def test_a_bit_of_the_program_that_flips_is_found_within_one_look_at_all_of_it(place: int, bit: int) -> None:
    lone = Lone(site())
    try:
        whole = -(-program.SIZE // LOOK_BYTES)
        lone.cycles(whole + 2)
        assert "memory_changed" not in lone.latched()
        lone.memory[place] ^= 1 << bit
        lone.cycles(2 * whole)
        assert "memory_changed" in lone.latched()
    finally:
        os.close(lone.fd)


def test_a_program_of_the_same_bytes_is_never_called_changed() -> None:
    lone = Lone(site())
    try:
        lone.cycles(3 * -(-program.SIZE // LOOK_BYTES))
        assert lone.latched() == []
    finally:
        os.close(lone.fd)


@pytest.mark.parametrize("byte", [0, 4, LATCHED, 6, 7, ROWS_BYTES * 70 + LATCHED, GATE_BYTES - 20, GATE_BYTES - 1])
@pytest.mark.parametrize("flip", [flip_gate, flip_copy])
def test_a_bit_of_a_gates_memory_that_flips_is_found_in_the_next_cycle(rig: CoreRig, byte: int, flip: object) -> None:
    assert callable(flip)
    rig.cycle()
    assert found(rig) == [] and rig.setpoint_w != 0.0
    flip(rig.core, 0, byte, 3)
    rig.cycle()
    assert "memory_changed" in rig.latched() and rig.setpoint_w == 0.0 and rig.state == "tripped"
    assert rig.point("unit0.reaction") == SILENT and rig.point("unit0.heartbeat_ok") == 0.0


def test_a_latch_that_a_flipped_bit_takes_away_is_there_all_the_same(rig: CoreRig) -> None:
    rig.set({"alarm": 4.0})
    rig.cycle()
    rig.set({})
    rig.run(5000)
    row = FAULT_IDS.index("bms_alarm")
    assert rig.latched() == ["bms_alarm"] and rig.active() == []
    flip_gate(rig.core, 0, row * ROWS_BYTES + LATCHED, 0)
    rig.cycle()
    assert rig.latched() == ["bms_alarm", "memory_changed"]


def test_what_was_changed_once_can_be_acknowledged_and_armed_again(rig: CoreRig) -> None:
    flip_gate(rig.core, 0, 0, 0)
    rig.cycle()
    rig.run(2000)
    assert rig.active() == [] and rig.latched() == ["memory_changed"]
    rig.order("ack", 1.0, 1.0)
    rig.cycle()
    assert rig.latched() == []
    rig.order("arm", 1.0, 1.0)
    rig.run(200)
    assert rig.state != "tripped"


LEFT_OUT = [tuple(name for name in PHASES if name != out) for out in PHASES]
TWICE = [(*PHASES[:i], PHASES[i], *PHASES[i:]) for i in range(len(PHASES))]
TURNED = [(*PHASES[:i], PHASES[i + 1], PHASES[i], *PHASES[i + 2 :]) for i in range(len(PHASES) - 1)]


def jumped(rig: CoreRig, phases: tuple[str, ...]) -> None:
    rig.t_ns += MS
    rig._lay()
    cycle_of(rig.core, phases, rig.t_ns, MS, rig.number)
    rig.number += 1


@pytest.mark.parametrize("phases", [*LEFT_OUT, *TWICE, *TURNED], ids="-".join)
def test_a_phase_left_out_twice_or_out_of_its_place_is_found_in_the_next_cycle(
    rig: CoreRig, phases: tuple[str, ...]
) -> None:
    jumped(rig, phases)
    rig.cycle()
    assert "flow_broken" in rig.latched() and rig.setpoint_w == 0.0
    assert rig.point("unit0.reaction") == SILENT and rig.point("unit0.heartbeat_ok") == 0.0


@pytest.mark.parametrize("ident", ["memory_changed", "flow_broken", "clock_apart"])
def test_a_row_of_the_self_tests_acts_at_once_and_is_over_in_its_time(ident: str) -> None:
    with CoreRig("discharging") as rig:
        look(rig)
        if ident == "memory_changed":
            flip_gate(rig.core, 0, 0, 0)
        elif ident == "flow_broken":
            jumped(rig, LEFT_OUT[2])
        look(rig, 105 if ident == "clock_apart" else 0)
        assert found(rig) == [ident] and rig.setpoint_w == 0.0
        assert rig.point("unit0.reaction") == (ZERO if ident == "clock_apart" else SILENT)
        assert (ident in rig.latched()) == (ident != "clock_apart")
        rig.run(OWN_TIMES_MS[ident][1] - 1)
        assert found(rig) == [ident], "cleared too early"
        rig.run(1)
        assert found(rig) == [], "cleared late"


def test_clocks_are_apart_by_a_tenth_of_a_second_and_latch_at_the_third_time() -> None:
    test_a_row_of_the_self_tests_acts_at_once_and_is_over_in_its_time("clock_apart")
    with CoreRig("discharging") as rig:
        look(rig)
        look(rig, 95)
        assert found(rig) == []
        for count, clear_ms in enumerate((5000, 10_000, 20_000)):
            look(rig, 1000 * count)
            look(rig, 1000 * count + 105)
            assert found(rig) == ["clock_apart"] and ("clock_apart" in rig.latched()) == (count == 2)
            rig.run(clear_ms + 1000)


def look(rig: CoreRig, more_raw_ms: int = 0, more_boot_ms: int = 0) -> None:
    """A cycle before which the three clocks were read."""
    clocks(rig.core, rig.t_ns, rig.t_ns + more_raw_ms * MS, rig.t_ns + more_boot_ms * MS)
    rig.cycle()


def test_whole_cycles_are_never_called_broken(rig: CoreRig) -> None:
    for _ in range(20):
        jumped(rig, PHASES)
    rig.cycle()
    assert found(rig) == [] and rig.setpoint_w != 0.0


@pytest.mark.parametrize("ppm", [0, 500, -500, 83_333, -83_333])
def test_a_clock_that_is_disciplined_is_believed(rig: CoreRig, ppm: int) -> None:
    raw_ns = boot_ns = 7 * SECOND
    for _ in range(40):
        clocks(rig.core, rig.t_ns, raw_ns, boot_ns)
        rig.cycle(100)
        raw_ns += 100 * MS - 100 * ppm
        boot_ns += 100 * MS
    assert found(rig) == []


@pytest.mark.parametrize(("raw_ms", "boot_ms"), [(105, 0), (-105, 0), (0, 105), (0, 3_600_000), (0, -105)])
def test_clocks_that_part_send_to_zero_for_five_seconds(rig: CoreRig, raw_ms: int, boot_ms: int) -> None:
    look(rig)
    look(rig)
    assert found(rig) == []
    look(rig, raw_ms, boot_ms)
    assert found(rig) == ["clock_apart"] and rig.setpoint_w == 0.0 and rig.point("unit0.reaction") == ZERO
    look(rig, raw_ms, boot_ms)  # from here on both go together again
    for _ in range(6000):
        look(rig, raw_ms, boot_ms)
    assert found(rig) == [] and rig.latched() == []


def test_clocks_short_of_the_edge_are_believed(rig: CoreRig) -> None:
    clocks(rig.core, rig.t_ns, rig.t_ns, rig.t_ns)
    rig.cycle()
    clocks(rig.core, rig.t_ns, rig.t_ns + 95 * MS, rig.t_ns - 95 * MS)
    rig.cycle()
    assert found(rig) == []


def test_a_core_that_runs_on_the_wall_clock_finds_nothing_wrong_with_itself() -> None:
    """However late its cycles come: the clocks of this machine, whole cycles, several looks at the program."""
    shared, fd = Shared.memfd("selftest")
    core = Core(site(), shared)
    thread = threading.Thread(target=core.run)
    thread.start()
    try:
        until = time.monotonic() + 120.0
        while shared.cycle < 3 * program.SIZE // LOOK_BYTES and time.monotonic() < until:
            time.sleep(0.05)
        assert shared.cycle >= 3 * program.SIZE // LOOK_BYTES
    finally:
        core.stop()
        thread.join(60)
    events = (shared.next_event(number) for number in range(shared.event_head))
    codes = {FAULT_IDS[event.code] for event in events if event is not None and EVENT_NAMES[event.kind] == "fault_on"}
    assert not codes & SELFTEST
    os.close(fd)
