"""What real devices add to the simulated plain ones: averages, jitter, silence, lies; gain, derating; percents."""

import struct

import numpy as np
import pytest

from tidegate.ext.bus.rtu_view import crc
from tidegate.ext.sim.assembly import FAULT_BITS
from tidegate.ext.sim.world import World
from tidegate.hal.sim.build import OCV_SOC, OCV_V


def plant(load=((0.0, 20e3),), *, soc=0.6, interval_s=0.02, dead_s=0.0, pcs=None, meter=None, battery=None, faults=()):
    world = World(1)
    t_ns = np.array([round(t * 1e9) for t, _ in load], dtype=np.uint64)
    world.set_load(t_ns, np.array([w for _, w in load]))
    world.add_battery(
        cells=240.0, capacity_ah=78.0, r_ohm=0.15, ocv_soc=list(OCV_SOC), ocv_v=list(OCV_V), soc=soc,
        temp_c=25.0, heat_j_per_k=4e5, cooling_w_per_k=60.0, ambient_c=22.0, charge_a_max=60.0, discharge_a_max=60.0,
        taper=0.05, cell_v_max=3.65, cell_v_min=2.5, temp_c_max=55.0, temp_c_min=-5.0,
    )  # fmt: skip
    world.add_pcs(battery=0, charge_w_max=30e3, discharge_w_max=30e3, tau_s=0.01, dead_s=dead_s, ramp_w_per_s=1e9,
                  loss_w=150.0, loss_ratio=0.02, measure_s=0.01)  # fmt: skip
    world.add_meter("grid", interval_s=interval_s)
    if pcs is not None:
        world.pcs_habits(0, **pcs)
    if meter is not None:
        world.meter_habits(0, **meter)
    if battery is not None:
        world.battery_habits(0, **battery)
    for bit, on_s in faults:
        world.add_fault("meter", 0, float(FAULT_BITS["meter"][bit]), on_s, 1e6)
    world.add_slave(world.add_line(char_ns=86806), 1, pcs=0)
    world.add_range(0, 2, 0, 10)
    world.add_range(0, 2, 0, 10, writable=True)
    world.bind_write(0, 2, 0, type=3, flags=0, scale=1.0, variable="set_w")
    world.start()
    return world


def setpoint(world, power_w):
    body = struct.pack(">BBHHBi", 1, 16, 0, 2, 4, power_w)
    assert world.answer(0, body + struct.pack("<H", crc(body))) is not None


def shown_w(world):
    return world.meters()[0]["reported"]["w"]


def settled_w(world, power_w, seconds=0.5):
    setpoint(world, power_w)
    world.step_plant(round(seconds * 1e3))
    return world.now["ess_w"]


def test_a_moving_mean_shows_a_step_as_a_straight_rise():
    world = plant(((0.0, 20e3), (5.0, 30e3)), meter={"average_s": 2.0})
    world.step_plant(5000)
    assert shown_w(world) == pytest.approx(20e3, abs=10.0)
    for ms, share in ((500, 0.25), (500, 0.5), (1000, 1.0), (2000, 1.0)):
        world.step_plant(ms)
        assert shown_w(world) == pytest.approx(20e3 + 10e3 * share, abs=150.0)


def test_a_first_order_average_shows_a_step_by_its_time_constant():
    world = plant(((0.0, 20e3), (5.0, 30e3)), meter={"lag_s": 1.0})
    world.step_plant(6000)
    assert shown_w(world) == pytest.approx(20e3 + 10e3 * (1.0 - np.exp(-1.0)), abs=150.0)


def test_a_meter_with_jitter_is_late_but_keeps_its_pace():
    world = plant(interval_s=0.1, meter={"jitter": 0.5})
    counts = []
    for _ in range(100):
        world.step_plant(100)
        counts.append(world.meters()[0]["updates"])
    assert counts[-1] in (99, 100, 101) and len(set(np.diff(counts))) > 1


def test_a_meter_that_reports_changes_is_silent_about_small_ones_but_not_for_ever():
    rows = [(0.0, 20e3), *((1.0 + 0.5 * i, 20e3 + 40.0 * (i % 2)) for i in range(20)), (12.0, 21e3)]
    world = plant(rows, meter={"band_w": 100.0, "silent_s": 5.0})
    world.step_plant(4900)
    assert world.meters()[0]["updates"] == 1
    world.step_plant(200)
    assert world.meters()[0]["updates"] == 2
    world.step_plant(7000)
    assert shown_w(world) == 21e3


def test_a_meter_changes_its_interval_and_average_while_it_runs():
    world = plant(((0.0, 20e3), (12.0, 30e3)), interval_s=0.02,
                  meter={"then_at_s": 5.0, "then_interval_s": 1.0, "then_average_s": 4.0})  # fmt: skip
    world.step_plant(5000)
    before = world.meters()[0]["updates"]
    world.step_plant(5000)
    assert before >= 240 and world.meters()[0]["updates"] - before <= 6
    world.step_plant(4000)
    assert 22e3 < shown_w(world) < 28e3


@pytest.mark.parametrize(
    ("bit", "shown"), [("absolute", 5e3), ("reversed", 5e3), ("no_l3", -5e3 * 2 / 3), ("w_stuck", 20e3)]
)
def test_a_lying_meter_shows_an_export_wrongly(bit, shown):
    world = plant(((0.0, 20e3),), faults=[(bit, 1.0)])
    world.step_plant(1100)
    settled_w(world, 25_000)
    assert world.now["grid_w"] == pytest.approx(-5e3, abs=5.0)
    assert shown_w(world) == pytest.approx(shown, abs=5.0)


def test_powers_that_stand_still_leave_the_energies_counting():
    world = plant(faults=[("w_stuck", 1.0)])
    world.step_plant(1500)
    before = world.meters()[0]["reported"]["import_wh"]
    world.step_plant(3600)
    assert world.meters()[0]["reported"]["import_wh"] - before == pytest.approx(20.0, rel=0.02)


def test_a_converter_gives_gain_times_told_plus_offset_in_whole_steps():
    world = plant(pcs={"gain": 0.9, "offset_w": 50.0, "quantum_w": 100.0})
    assert settled_w(world, 1049) == pytest.approx(0.9 * 1000 + 50.0, abs=1.0)
    assert settled_w(world, -1051) == pytest.approx(-0.9 * 1100 + 50.0, abs=1.0)


def test_a_derated_converter_gives_a_share_and_at_most_its_cap_for_a_while():
    world = plant(pcs={"share": 0.5, "cap_w": 3e3, "from_s": 1.0, "until_s": 2.0})
    assert settled_w(world, 4000) == pytest.approx(4e3, abs=1.0)
    world.step_plant(600)
    assert world.now["ess_w"] == pytest.approx(2e3, abs=1.0)
    assert settled_w(world, -10_000) == pytest.approx(-3e3, abs=1.0)
    world.step_plant(1000)
    assert world.now["ess_w"] == pytest.approx(-10e3, abs=1.0)


def test_a_full_battery_takes_no_charge_but_gives():
    world = plant(soc=0.9, pcs={"full_soc": 0.9})
    assert settled_w(world, -5000) == 0.0
    assert settled_w(world, 5000) == pytest.approx(5e3, abs=1.0)


def test_a_bms_shows_whole_percents_and_jumps_its_limits_within_their_share():
    world = plant(soc=0.604, battery={"soc_step": 0.01, "jump_s": 2.0, "jump_lo": 0.4})
    limits = []
    for _ in range(40):
        world.step_plant(500)
        says = world.batteries()[0]["reported"]
        limits.append(says["discharge_a_max"])
        assert says["soc"] == pytest.approx(0.60)
    assert 0.4 * 60.0 <= min(limits) < max(limits) <= 60.0
    assert 3 <= len(set(limits)) <= 20


def test_a_setpoint_that_is_repeated_all_the_time_still_comes_into_force_when_due():
    once, often = plant(dead_s=0.5), plant(dead_s=0.5)
    setpoint(once, 10_000)
    for _ in range(2000):
        setpoint(often, 10_000)
    setpoint(often, 5_000)
    once.step_plant(600)
    often.step_plant(600)
    assert once.now["ess_w"] == pytest.approx(10e3, abs=1.0)
    assert often.now["ess_w"] == pytest.approx(5e3, abs=1.0)
