"""The simulated plant: energy closes, converters lag and revert, meters show what was when it was, devices answer."""

import math
import struct

import numpy as np
import pytest

from tidegate.ext.abi.program import FIELD_FLAGS, FIELD_TYPES
from tidegate.ext.sim.assembly import FAULT_BITS
from tidegate.ext.sim.floor import floor_energy
from tidegate.ext.sim.world import World
from tidegate.hal.sim.build import OCV_SOC, OCV_V

CELLS, CAPACITY_AH = 240.0, 78.0
SET_W, SET_ENA, REVERT_S, REVERT_ENA = 0, 2, 3, 4  # holding registers of the converter below


def crc(frame: bytes) -> bytes:
    """CRC-16/MODBUS, bit by bit."""
    value = 0xFFFF
    for byte in frame:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ 0xA001 if value & 1 else value >> 1
    return struct.pack("<H", value)


def plant(
    load=((0.0, 20_000.0),),
    *,
    soc=0.6,
    tau_s=0.05,
    dead_s=0.0,
    delay_s=0.0,
    interval_s=0.02,
    cooling_share=0.0,
    pv=None,
    import_wh=0.0,
):
    world = World(1)
    t_ns = np.array([round(t * 1e9) for t, _ in load], dtype=np.uint64)
    world.set_load(t_ns, np.array([w for _, w in load]), cooling_share=cooling_share)
    if pv is not None:
        world.set_pv(np.zeros(1, dtype=np.uint64), np.array([pv]))
    world.add_battery(
        cells=CELLS, capacity_ah=CAPACITY_AH, r_ohm=0.15, ocv_soc=list(OCV_SOC), ocv_v=list(OCV_V), soc=soc,
        temp_c=25.0, heat_j_per_k=4e5, cooling_w_per_k=60.0, ambient_c=22.0, charge_a_max=60.0, discharge_a_max=60.0,
        taper=0.05, cell_v_max=3.65, cell_v_min=2.5, temp_c_max=55.0, temp_c_min=-5.0,
    )  # fmt: skip
    world.add_pcs(
        battery=0, charge_w_max=30e3, discharge_w_max=30e3, tau_s=tau_s, dead_s=dead_s, ramp_w_per_s=1e9, loss_w=150.0,
        loss_ratio=0.02, measure_s=0.01,
    )  # fmt: skip
    world.add_meter("grid", interval_s=interval_s, delay_s=delay_s, import_wh=import_wh)
    line = world.add_line(char_ns=86806)
    slave = world.add_slave(line, 1, pcs=0)
    world.add_range(slave, 2, 0, 10)
    world.add_range(slave, 2, 0, 10, writable=True)
    world.bind_write(slave, 2, SET_W, type=3, flags=0, scale=1.0, variable="set_w")
    world.bind_write(slave, 2, SET_ENA, type=0, flags=0, scale=1.0, variable="set_ena")
    world.bind_write(slave, 2, REVERT_S, type=0, flags=0, scale=1.0, variable="revert_s")
    world.bind_write(slave, 2, REVERT_ENA, type=0, flags=0, scale=1.0, variable="revert_ena")
    world.start()
    return world


def write(world, address, *words):
    body = struct.pack(">BBHHB", 1, 16, address, len(words), 2 * len(words)) + struct.pack(f">{len(words)}H", *words)
    answer = world.answer(0, body + crc(body))
    assert answer is not None and answer[1] == 16


def setpoint(world, power_w):
    raw = struct.pack(">i", power_w)
    write(world, SET_W, *struct.unpack(">HH", raw))


def stored_j(soc):
    """Energy between empty and soc: the open-circuit curve integrated by hand, in J."""
    total = 0.0
    for i in range(len(OCV_SOC) - 1):
        lo, hi = OCV_SOC[i], min(OCV_SOC[i + 1], soc)
        if hi <= lo:
            break
        v_hi = OCV_V[i] + (OCV_V[i + 1] - OCV_V[i]) * (hi - lo) / (OCV_SOC[i + 1] - lo)
        total += 0.5 * (OCV_V[i] + v_hi) * (hi - lo)
    return total * CELLS * CAPACITY_AH * 3600.0


def test_energy_of_cells_converter_and_grid_closes():
    world = plant(load=((0.0, 20e3), (200.0, 45e3)), cooling_share=0.08, pv=3000.0)
    soc_before = world.batteries()[0]["soc"]
    for power_w in (25_000, -20_000, 30_000, 0, 12_345):
        setpoint(world, power_w)
        world.step_plant(300_000)
    battery, pcs, totals = world.batteries()[0], world.converters()[0], world.totals
    # what the cells gave is what the curve says lies between the two states of charge
    assert battery["drawn_j"] == pytest.approx(stored_j(soc_before) - stored_j(battery["soc"]), rel=2e-4)
    # it went into heat in the pack, losses in the converter, and the AC side
    assert battery["drawn_j"] == pytest.approx(battery["heat_j"] + pcs["battery_j"], rel=1e-9)
    assert pcs["battery_j"] == pytest.approx(pcs["out_j"] - pcs["in_j"] + pcs["loss_j"], rel=1e-9)
    assert totals["ess_out_j"] == pytest.approx(pcs["out_j"], rel=1e-12)
    # and the site's balance holds
    grid_j = totals["grid_in_j"] - totals["grid_out_j"]
    load_j = totals["it_j"] + totals["cooling_j"]
    assert grid_j + totals["ess_out_j"] - totals["ess_in_j"] + totals["pv_j"] == pytest.approx(load_j, rel=1e-9)


def test_converter_closes_63_percent_of_a_step_in_one_time_constant():
    world = plant(tau_s=0.05)
    setpoint(world, 20_000)
    world.step_plant(50)
    assert world.now["ess_w"] == pytest.approx(20_000 * (1 - math.exp(-1)), rel=1e-6)
    world.step_plant(950)
    assert world.now["ess_w"] == pytest.approx(20_000, rel=1e-6)


def test_setpoint_has_no_effect_within_the_dead_time():
    world = plant(dead_s=0.01)
    setpoint(world, 20_000)
    world.step_plant(9)
    assert world.now["ess_w"] == 0.0
    world.step_plant(2)
    assert world.now["ess_w"] > 0.0


def test_setpoint_beyond_the_nameplate_is_cut_by_the_converter():
    world = plant()
    setpoint(world, 90_000)
    world.step_plant(2000)
    assert world.now["ess_w"] == pytest.approx(30_000, rel=1e-6)


def test_converter_falls_back_when_the_setpoint_is_not_repeated():
    world = plant()
    write(world, REVERT_S, 2, 1)
    setpoint(world, 20_000)
    for _ in range(3):  # repeated inside the time: stays
        world.step_plant(1500)
        setpoint(world, 20_000)
    assert world.now["ess_w"] == pytest.approx(20_000, rel=1e-3)
    world.step_plant(1900)
    assert world.now["ess_w"] == pytest.approx(20_000, rel=1e-3)
    world.step_plant(1000)
    assert abs(world.now["ess_w"]) < 1.0 and world.converters()[0]["reverts"] == 1
    setpoint(world, 5_000)
    world.step_plant(1000)
    assert world.now["ess_w"] == pytest.approx(5_000, rel=1e-3)


def test_meter_shows_a_step_only_after_its_interval_and_delay():
    world = plant(load=((0.0, 20e3), (1.0, 50e3)), interval_s=0.02, delay_s=0.2)
    world.step_plant(1199)
    assert world.meters()[0]["reported"]["w"] == 20e3
    world.step_plant(30)
    assert world.meters()[0]["reported"]["w"] == 50e3


def test_meter_registers_count_the_energy_that_flowed():
    world = plant(load=((0.0, 36e3),))
    world.step_plant(100_000)
    assert world.meters()[0]["reported"]["import_wh"] == pytest.approx(1000.0, rel=1e-3)
    assert world.meters()[0]["reported"]["export_wh"] == 0.0


def test_a_meter_counts_on_from_what_it_had_counted():
    world = plant(load=((0.0, 36e3),), import_wh=2500.0)
    world.step_plant(100_000)
    assert world.meters()[0]["reported"]["import_wh"] == pytest.approx(3500.0, rel=1e-3)
    for nonsense in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="a register from 0 Wh on"):
            plant(import_wh=nonsense)


def test_cooling_follows_the_ten_minute_mean():
    world = plant(load=((0.0, 20e3), (10.0, 50e3)), cooling_share=0.08)
    world.step_plant(310_000)
    assert world.now["cooling_w"] == pytest.approx(0.08 * (20e3 + 30e3 * 300 / 600), rel=1e-2)
    world.step_plant(400_000)
    assert world.now["cooling_w"] == pytest.approx(0.08 * 50e3, rel=1e-6)


def test_bms_opens_its_contactor_when_its_limits_are_broken_for_long():
    world = plant(soc=0.006)
    setpoint(world, 30_000)
    world.step_plant(20_000)
    battery = world.batteries()[0]
    assert not battery["contactor"] and battery["opened_under_load"] == 1 and battery["reported"]["alarm"] == 1.0
    assert world.now["ess_w"] == 0.0


def test_current_limits_taper_to_zero_at_full_and_empty():
    for soc, side in ((1.0, "charge_a_max"), (0.0, "discharge_a_max")):
        world = plant(soc=soc)
        world.step_plant(200)
        assert world.batteries()[0]["reported"][side] == pytest.approx(0.0, abs=0.2)


@pytest.mark.parametrize(
    ("bit", "truth"), [("reversed", -20e3), ("stuck", 20e3), ("nan", math.nan)], ids=["reversed", "stuck", "nan"]
)
def test_meter_fault_changes_what_is_shown_and_not_what_flows(bit, truth):
    world = plant(load=((0.0, 20e3), (1.0, 20e3 if bit != "stuck" else 50e3)))
    world.add_fault("meter", 0, FAULT_BITS["meter"][bit], 0.5, 10.0)
    world.step_plant(2000)
    assert world.meters()[0]["reported"]["w"] == pytest.approx(truth, nan_ok=True)
    assert world.now["grid_w"] in (20e3, 50e3)


# ---------------------------------------------------------------- the floor


def floor(**changes):
    t_ns = np.array([0, 2_000_000_000, 12_000_000_000], dtype=np.uint64)
    settings = {
        "limit_w": 48e3, "seconds": 20.0, "cooling_share": 0.0, "meter_interval_s": 0.02, "meter_phase_s": 0.013,
        "meter_delay_s": 0.0, "wire_s": 0.004, "dead_s": 0.002, "tau_s": 0.05, "ramp_w_per_s": 1e9,
        "discharge_w_max": 30e3,
    }  # fmt: skip
    return floor_energy(t_ns, np.array([20e3, 60e3, 20e3]), **{**settings, **changes})


def test_floor_of_one_step_is_what_the_arithmetic_gives():
    found = floor()
    assert found["energy_without_wh"] == pytest.approx(12e3 * 10 / 3600, rel=1e-3)
    # 2.000 s is met by the tick at 2.013 s; 6 ms later the converter moves, and a lag leaves step x tau
    assert found["energy_wh"] == pytest.approx(12e3 * (0.013 + 0.006 + 0.05) / 3600, rel=0.03)


def test_floor_never_falls_when_anything_gets_slower():
    least = floor()["energy_wh"]
    slower = (
        {"meter_delay_s": 0.2},
        {"wire_s": 0.02},
        {"tau_s": 0.1},
        {"meter_interval_s": 0.1, "meter_phase_s": 0.09},
    )
    for change in slower:
        assert floor(**change)["energy_wh"] > least


def test_floor_of_a_controller_that_charges_is_higher():
    assert floor(charge_w_max=20e3, recharge_w_max=46e3)["energy_wh"] > floor()["energy_wh"]


# ---------------------------------------------------------------- devices on the wire


def ask(world, *fields, body=None, line=0):
    frame = body if body is not None else struct.pack(">BBHH", *fields)
    return world.answer(line, frame + crc(frame))


def test_reply_carries_unit_function_count_and_a_good_crc():
    world = plant()
    answer = ask(world, 1, 3, 0, 2)
    assert answer[:3] == bytes([1, 3, 4]) and answer[-2:] == crc(answer[:-2])


@pytest.mark.parametrize(
    ("request_fields", "code"),
    [((1, 3, 9, 2), 2), ((1, 3, 500, 1), 2),
     ((1, 4, 0, 1), 2), ((1, 3, 0, 0), 3), ((1, 3, 0, 126), 3), ((1, 6, 500, 1), 2)],
)  # fmt: skip
def test_request_for_what_does_not_exist_gets_its_exception(request_fields, code):
    answer = ask(plant(), *request_fields)
    assert answer[1] == request_fields[1] | 0x80 and answer[2] == code and answer[-2:] == crc(answer[:-2])


def test_unknown_function_gets_exception_1():
    answer = ask(plant(), body=bytes([1, 0x41, 0, 0]))
    assert answer[1:3] == bytes([0xC1, 1])


def test_other_units_bad_checksums_and_broadcasts_get_silence():
    world = plant()
    assert ask(world, 2, 3, 0, 1) is None
    frame = struct.pack(">BBHH", 1, 3, 0, 1)
    assert world.answer(0, frame + b"\x00\x00") is None
    assert ask(world, 0, 6, 2, 1) is None
    assert ask(world, 1, 3, 2, 1)[3:5] == b"\x00\x01"  # the broadcast was obeyed all the same


def test_written_registers_read_back_as_written():
    world = plant()
    frame = struct.pack(">BBHHBHH", 1, 16, 5, 2, 4, 0x1234, 0xFFFE)
    assert ask(world, body=frame) is not None
    assert ask(world, 1, 3, 5, 2)[3:7] == bytes.fromhex("1234fffe")


@pytest.mark.parametrize(
    ("kind", "flags", "scale", "value", "words"),
    [
        ("f32", 0, 1.0, 230.2, "43663333"),
        ("f32", FIELD_FLAGS["low_word_first"], 1.0, 230.2, "33334366"),
        ("s32", 0, 0.01, -100.0, "ffffd8f0"),
        ("s32", FIELD_FLAGS["low_word_first"], 0.1, -0.1, "ffffffff"),
        ("s16", 0, 10.0, -30_000.0, "f448"),
        ("u16", FIELD_FLAGS["byte_swap"], 1.0, 258.0, "0201"),
        ("u64", 0, 10.0, 123_450.0, "0000000000003039"),
        ("s16", 0, 1.0, 99_999.0, "7fff"),
        ("u16", 0, 1.0, -5.0, "0000"),
    ],
)
def test_variable_stands_in_the_registers_as_the_manual_writes_it(kind, flags, scale, value, words):
    world = plant(load=((0.0, value if value > 0 else 0.0),), pv=None if value > 0 else -value)
    slave = world.add_slave(0, 7, meter=0)
    world.add_range(slave, 3, 100, 4)
    world.bind(slave, 3, 100, type=FIELD_TYPES[kind], flags=flags, scale=scale, offset=0.0, source=("meter", 0, "w"))
    world.start()
    assert ask(world, 7, 4, 100, len(words) // 4)[3:-2].hex() == words


def test_missing_reading_shows_the_sentinel():
    world = plant()
    slave = world.add_slave(0, 7, meter=0)
    world.add_range(slave, 3, 0, 1)
    world.bind(
        slave, 3, 0, type=FIELD_TYPES["s16"], flags=FIELD_FLAGS["sentinel"], scale=1.0, offset=0.0, sentinel=0x8000,
        source=("meter", 0, "w"),
    )  # fmt: skip
    world.add_fault("meter", 0, FAULT_BITS["meter"]["nan"], 0.0, 10.0)
    world.step_plant(100)
    assert ask(world, 7, 4, 0, 1)[3:5] == b"\x80\x00"
