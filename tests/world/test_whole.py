"""Whole sites in virtual time: the limit is held, silence leads to zero, energy closes, several units share."""

from functools import cache
from importlib.resources import files

import numpy as np
import pytest

from tidegate.config.compile import compile_site
from tidegate.config.site import load_site
from tidegate.hal.sim.trace import read_trace
from tidegate.hal.sim.virtual import VirtualPlant

CONFIG = files("tidegate.config")
TRACE = CONFIG.joinpath("demo/smc_h100_9node_unet3d_20240509_2s.csv")


@cache
def program(name="demo/site.toml"):
    return compile_site(load_site(str(CONFIG.joinpath(name))))


def steps(*rows):
    return np.array([t for t, _ in rows], dtype=float), np.array([w for _, w in rows], dtype=float)


def faults(**row):
    return {"faults": [{"value": 0.0, **row}]}


@pytest.fixture(scope="module")
def ten_minutes():
    load = read_trace(str(TRACE), "power_w_filled", start_s=900.0, length_s=600.0)
    with VirtualPlant(program(), load, seed=5) as plant:
        yield plant.run(600.0)


def test_grid_limit_is_held_on_a_gpu_cluster_outside_reaction_times(ten_minutes):
    found = ten_minutes.verdict()
    above = found["energy_above_limit_wh"]
    assert above["without"] > 500.0 and found["steps"] > 5
    assert above["with"] <= 0.005 * above["without"]
    assert above["with_outside_reaction"] <= 0.004 * above["without"]


def test_load_step_is_answered_on_the_wire_within_a_poll_round(ten_minutes):
    answers = sorted(ten_minutes.step_to_wire_ms)
    assert len(answers) >= 3
    assert answers[len(answers) // 2] <= 25.0


def test_no_rule_is_broken_without_faults(ten_minutes):
    checks = ten_minutes.checks
    assert checks["cycles"] == 600_000
    assert [name for name in ("outside_envelope", "outside_nameplate", "setpoint_to_tripped") if checks[name]] == []


def test_meter_records_are_contiguous_and_carry_the_energy_that_flowed(ten_minutes):
    records = list(ten_minutes.meter_records())
    assert [record["seq"] for record in records] == list(range(len(records))) and len(records) >= 599
    first, last = (record["points"]["grid.import_wh"][0] for record in (records[10], records[-1]))
    seconds = (records[-1]["t_ns"] - records[10]["t_ns"]) * 1e-9
    mean_w = (last - first) * 3600.0 / seconds
    assert mean_w == pytest.approx(ten_minutes.totals()["grid_in_wh"] * 6.0, rel=0.05)


def test_core_integrals_agree_with_the_plant(ten_minutes):
    points = list(ten_minutes.meter_records())[-1]["points"]
    seconds = points["site.grid_covered_s"][0]
    assert seconds > 595.0
    truth_wh = ten_minutes.totals()["grid_in_wh"]
    assert points["site.grid_in_ws"][0] / 3600.0 == pytest.approx(truth_wh, rel=0.01)


def test_stale_bms_takes_the_setpoint_to_zero_and_the_power_with_it():
    with VirtualPlant(
        program(), steps((0, 62e3)), arm=True, overrides=faults(kind="can_silent", target=0, on_s=8.0)
    ) as v:
        v.run(7.9)
        assert v.world.converters()[0]["wire_set_w"] > 10e3
        v.run(1.0)
        assert v.world.converters()[0]["wire_set_w"] == 0.0
        assert abs(v.world.now["ess_w"]) < 50.0


def test_dead_meter_takes_the_setpoint_to_zero():
    with VirtualPlant(program(), steps((0, 62e3)), overrides=faults(kind="dead", target="grid", on_s=8.0)) as v:
        v.run(7.9)
        assert v.world.converters()[0]["wire_set_w"] > 10e3
        v.run(1.0)
        assert v.world.converters()[0]["wire_set_w"] == 0.0


def test_converter_that_hears_nothing_falls_back_by_its_own_watchdog():
    with VirtualPlant(program(), steps((0, 62e3)), overrides=faults(kind="dead", target="pcs1", on_s=8.0)) as v:
        v.run(7.9)
        assert v.world.now["ess_w"] > 10e3
        v.run(3.5)
        assert abs(v.world.now["ess_w"]) < 50.0 and v.world.converters()[0]["reverts"] == 1


def test_core_that_stands_still_leads_to_zero_power():
    """Heartbeats and repeats come from the loop: with the loop gone the converter must fall back."""
    with VirtualPlant(program(), steps((0, 62e3))) as v:
        v.run(8.0)
        assert v.world.now["ess_w"] > 10e3
        v.world.step_plant(3000)
        assert abs(v.world.now["ess_w"]) < 50.0


def test_chunks_do_not_change_the_bytes():
    def sha(*chunks):
        with VirtualPlant(program(), steps((0, 30e3), (6, 60e3)), seed=9) as v:
            for seconds in chunks:
                v.run(seconds)
            return v.sha256, v.world.cycle

    assert sha(12.0)[1] == sha(5.0, 7.0)[1]
    assert sha(10.0, 2.0) == sha(10.0, 2.0)


def test_energy_of_the_whole_site_closes():
    with VirtualPlant(program(), steps((0, 30e3), (6, 60e3), (60, 20e3))) as v:
        v.run(120.0)
        t = v.totals()
        served = t["grid_in_wh"] - t["grid_out_wh"] + t["ess_out_wh"] - t["ess_in_wh"] + t["pv_wh"]
        assert served == pytest.approx(t["it_wh"] + t["cooling_wh"], rel=1e-9)


def test_two_cabinets_with_pv_share_the_request():
    load = steps((0, 60e3), (20, 100e3))
    with VirtualPlant(program("sites/two-cabinets-pv.toml"), load, pv=steps((0, 5e3))) as v:
        v.run(40.0)
        powers = [row["w"] for row in v.world.converters()]
        assert len(powers) == 2 and all(abs(w) > 500.0 for w in powers)
        assert v.world.now["pv_w"] == 5e3
        assert v.world.now["grid_w"] <= v.limit_w * 1.01


@pytest.mark.parametrize("load", [([0.0, 1.0], [1.0, float("nan")]), ([0.0, 0.0], [1.0, 2.0]), ([], [])])
def test_bad_load_is_refused(load):
    with pytest.raises(ValueError, match="load trace"):
        VirtualPlant(program(), load)


def test_damaged_program_is_refused():
    with pytest.raises(ValueError):
        VirtualPlant(program()[:-10])
