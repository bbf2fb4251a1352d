"""Simulated GPIO lines: what a schedule makes of them, through the process that reads real ones."""

import select
import tomllib
from pathlib import Path

import pytest

from tidegate.config.compile import compile_site
from tidegate.config.site import parse_site
from tidegate.ext.abi import program
from tidegate.hal import canbus
from tidegate.hal.can_frame import CLASSIC
from tidegate.hal.description import described
from tidegate.hal.gpio_frames import INPUT_ID, UNKNOWN, Line, Play, interface, lines, plays
from tidegate.hal.gpio_lines import Contact, Pulses
from tidegate.hal.gpio_simulated import SimulatedChip, levels
from tidegate.hal.sim.contacts import changes
from tidegate.hal.sim.virtual import VirtualPlant

SECOND_NS = 10**9
SITE = Path(__file__).parents[2] / "config" / "sites" / "simulated.toml"


def frames(line, *schedule, until_s, contact=None, step_us=1000):
    """(s, payload) of each change of what the line says, by a clock of our own."""
    clock = [0]
    chip = SimulatedChip([line], schedule, lambda: clock[0])
    state = contact or Contact(round(line.debounce_ms * 1e6), chip.is_active(line.offset))
    said = []
    try:
        for now_us in range(0, round(until_s * 1e6), step_us):
            clock[0] = now_us * 1000
            for edge in chip.edges():
                state.edge(edge)
            payload = state.payload(clock[0])[0]
            if not said or said[-1][1] != payload:
                said.append((now_us / 1e6, payload))
    finally:
        chip.close()
    return said, state


LINE = Line("in", 0, "sim", 17, debounce_ms=10.0)


def test_a_contact_closes_and_opens_once_whatever_it_bounces():
    said, _ = frames(LINE, Play(0, "active", 1.0, 2.0, bounce_ms=6.0), until_s=4.0)
    assert [state for _, state in said] == [0, 1, 0]
    assert said[1][0] == pytest.approx(1.0 + 0.006 + 0.010, abs=0.003) and said[2][0] > 3.0


def test_a_debounce_that_is_shorter_than_the_bounce_lets_it_through():
    quick = Line("in", 0, "sim", 17, debounce_ms=0.2)
    said, _ = frames(quick, Play(0, "active", 1.0, 2.0, bounce_ms=6.0), until_s=1.1, step_us=100)
    assert [state for _, state in said][-1] == 1 and len(said) > 2


def test_a_floating_wire_is_not_known_and_is_again_afterwards():
    said, _ = frames(LINE, Play(0, "floating", 1.0, 1.0), until_s=4.0)
    assert UNKNOWN in [state for _, state in said]
    first = next(t_s for t_s, state in said if state == UNKNOWN)
    assert 1.0 < first < 2.0 and said[-1][1] == 0


def test_a_stuck_line_shows_what_happened_only_at_its_end():
    stuck = Play(0, "stuck", 1.0, 5.0)
    said, _ = frames(LINE, stuck, Play(0, "active", 2.0, 1.0), until_s=8.0)
    assert [state for _, state in said] == [0], "closed and open again, and never seen"
    said, _ = frames(LINE, stuck, Play(0, "active", 2.0, 10.0), until_s=8.0)
    assert [state for _, state in said] == [0, 1] and said[1][0] >= 6.0
    said, _ = frames(LINE, stuck, Play(0, "active", 0.5, 2.0), until_s=8.0)
    assert [state for _, state in said] == [0, 1, 0] and said[2][0] >= 6.0


def test_pulses_are_counted_as_they_come():
    line = Line("in", 0, "sim", 24, pulse=True, wh_per_pulse=1.0)
    _, counter = frames(line, Play(0, "pulses", 1.0, 5.0, per_s=4.0), until_s=8.0, contact=Pulses(0, 1.0))
    assert counter.count == 20
    assert counter.apart_ns == SECOND_NS // 4


def test_an_input_that_nothing_is_said_of_is_still_and_lines_do_not_mix():
    assert list(levels([])) == []
    said, _ = frames(LINE, Play(1, "active", 0.5), until_s=2.0)
    assert [state for _, state in said] == [0]


def test_the_schedule_goes_through_the_name_of_the_bus():
    schedule = [Play(0, "active", 1.5, 2.0, 4.0), Play(1, "pulses", 0.0, per_s=2.5)]
    name = interface([LINE], schedule)
    assert plays(name) == schedule and lines(name) == [LINE]
    for bad in ("play 0 dances 1 2 0 0", "play 0 active 1"):
        with pytest.raises(ValueError, match="no schedule"):
            plays(f"gpio:{bad}")


def test_the_process_says_it_to_the_core_without_any_chip():
    end = canbus.open_bridge(interface([LINE], [Play(0, "active", 0.2)]))
    try:
        seen = []
        while not seen or seen[-1] != 1:
            assert select.select([end], [], [], 60.0)[0], f"silent after {seen}"
            can_id, _, data = CLASSIC.unpack(end.recv(CLASSIC.size))
            assert can_id == INPUT_ID
            seen.append(data[0])
        assert set(seen) <= {0, 1}
    finally:
        end.close()


def simulated(*contacts, chip="sim"):
    raw = tomllib.loads(SITE.read_text())
    raw["input"] = [{"name": "stop", "what": "operator-stop", "line": 17, "chip": chip}]
    raw["simulation"]["contact"] = [dict(one) for one in contacts]
    return raw


def test_a_site_file_says_what_its_simulated_contacts_do():
    site, problems = parse_site(simulated({"input": "stop", "at_s": 20.0, "for_s": 10.0, "bounce_ms": 4.0}))
    assert not problems, problems
    name = described(program.describe(compile_site(site))).can[-1].interface
    assert plays(name) == [Play(0, "active", 20.0, 10.0, 4.0)] and lines(name)[0].chip == "sim"


@pytest.mark.parametrize(
    ("contact", "said"),
    [
        ({"input": "stopp"}, "no input on a simulated chip; known: stop"),
        ({"input": "stop", "per_s": 1.0}, "per_s belongs to pulses"),
        ({"input": "stop", "does": "pulses"}, "per_s belongs to pulses"),
        ({"input": "stop", "does": "stuck", "bounce_ms": 1.0}, "bounce_ms belongs to"),
        ({"input": "stop", "for_s": 0.001, "bounce_ms": 5.0}, "not shorter than for_s"),
        ({"input": "stop", "does": "shut"}, "does"),
    ],
)
def test_a_contact_that_makes_no_sense_is_refused(contact, said):
    _, problems = parse_site(simulated(contact))
    assert any(said in one for one in problems), problems


def test_a_contact_of_a_real_chip_cannot_be_played_and_a_simulated_one_guards_no_real_bus():
    _, problems = parse_site(simulated({"input": "stop"}, chip="/dev/gpiochip0"))
    assert any("known: none" in one and 'chip = "sim"' in one for one in problems), problems
    real = tomllib.loads(SITE.with_name("one-cabinet.toml").read_text())
    real["input"] = [{"name": "stop", "what": "operator-stop", "line": 17, "chip": "sim"}]
    _, problems = parse_site(real)
    assert any("guards nothing on a site with real buses" in one for one in problems), problems


def test_the_example_of_the_page_is_a_schedule_of_a_site():
    page = (SITE.parents[2] / "docs" / "inputs.md").read_text(encoding="utf-8")
    example = tomllib.loads(page.partition("## Without a chip")[2].partition("```toml")[2].partition("```")[0])
    raw = tomllib.loads(SITE.read_text())
    raw["input"], raw["simulation"]["contact"] = example["input"], example["simulation"]["contact"]
    site, problems = parse_site(raw)
    assert not problems, problems
    said = plays(described(program.describe(compile_site(site))).can[-1].interface)
    assert [(one.does, one.at_s, one.for_s) for one in said] == [("active", 20.0, 10.0), ("floating", 60.0, 5.0)]


def said_in_virtual_time(line, *schedule, until_s):
    found = []
    for t_ns, _, payload in changes([line], schedule):
        if t_ns > until_s * SECOND_NS:
            break
        found.append((t_ns / SECOND_NS, payload[0]))
    return found


@pytest.mark.parametrize(
    "schedule",
    [
        [Play(0, "active", 1.0, 2.0, bounce_ms=6.0)],
        [Play(0, "stuck", 1.0, 5.0), Play(0, "active", 0.5, 2.0)],
        [Play(0, "stuck", 1.0, 5.0), Play(0, "active", 2.0, 10.0)],
    ],
)
def test_virtual_time_has_the_changes_that_the_process_has(schedule):
    process, _ = frames(LINE, *schedule, until_s=8.0)
    virtual = said_in_virtual_time(LINE, *schedule, until_s=8.0)
    assert [state for _, state in virtual] == [state for _, state in process]
    assert [t_s for t_s, _ in virtual] == pytest.approx([t_s for t_s, _ in process], abs=0.0021)


def test_virtual_time_knows_a_floating_line_as_little():
    process, _ = frames(LINE, Play(0, "floating", 1.0, 1.0), until_s=8.0)
    virtual = said_in_virtual_time(LINE, Play(0, "floating", 1.0, 1.0), until_s=8.0)
    lost = [next(t_s for t_s, state in said if state == UNKNOWN) for said in (process, virtual)]
    assert lost[1] == pytest.approx(lost[0], abs=0.011)
    assert virtual[-1][1] == process[-1][1] == 0
    assert virtual[-1][0] == pytest.approx(process[-1][0], abs=0.0021)


def test_the_power_of_pulses_sinks_when_they_stop():
    line = Line("in", 0, "sim", 24, pulse=True, wh_per_pulse=1.0)
    powers = [
        (t_ns, int.from_bytes(payload[5:], "little"))
        for t_ns, _, payload in changes([line], [Play(0, "pulses", 1.0, 10.0, per_s=2.0)])
    ]
    assert 7200 in [power for _, power in powers] and powers[-1][1] == 0
    falling = [power for t_ns, power in powers if t_ns > 12 * SECOND_NS]
    assert falling == sorted(falling, reverse=True)


def test_a_stop_of_the_grid_operator_in_virtual_time():
    raw = simulated({"input": "stop", "at_s": 40.0, "for_s": 20.0, "bounce_ms": 4.0})
    raw["control"]["peak_w_max"], raw["simulation"]["load_w"] = 20_000.0, 35_000.0
    site, problems = parse_site(raw)
    assert not problems, problems
    with VirtualPlant(compile_site(site), seed=1) as plant:
        powers = []
        for until_s in (39.0, 59.0, 90.0):
            plant.run(until_s - plant.world.t_s)
            powers.append(plant.world.converters()[0]["w"])
    assert powers[0] > 10_000.0 and abs(powers[1]) < 500.0 and powers[2] > 10_000.0, powers
