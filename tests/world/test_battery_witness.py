"""The battery as the converter's witness: a sign wrong everywhere, readings that are repeated, honest plants."""

from dataclasses import replace

import liars
import numpy as np
import pytest
import zoo_plants as plants
from test_cabinet_run import modes, plant, program

from tidegate.ext.abi.shared import EVENT_NAMES
from tidegate.ext.safety.diagnosis import FAULT_IDS
from tidegate.hal.sim.virtual import VirtualPlant

FAULT_ON = EVENT_NAMES[4]
WITNESS = ("bms_stuck", "pcs_power_apart", "pcs_opposed")
APART_S = 15.0  # of a power beyond a twentieth of the nameplate
STILL_S = 17.0  # after the power moved by a tenth of the nameplate: 15 s, the debounce, the BMS's own second
FLOWED = 0.045  # of the battery, one way, where the power does not move: 0.03 and the losses that are allowed
ENERGY_WH = 60e3


def fault(kind, on_s, off_s=1e4):
    return {"kind": kind, "target": 0, "value": 0.0, "on_s": on_s, "off_s": off_s}


def told(site, rows=WITNESS):
    """(row, seconds since the start) of each row that came on."""
    return [
        (FAULT_IDS[event["code"]], event["t_ns"] * 1e-9 - 1.0)
        for event in site.events
        if event["event"] == FAULT_ON and FAULT_IDS[event["code"]] in rows
    ]


@pytest.mark.parametrize("load_w", [5e3, 25e3, 60e3])
@pytest.mark.parametrize("soc", [0.3, 0.8])
def test_a_converter_turned_in_setpoint_and_reading_is_not_armed(load_w, soc):
    with plant(load_w=load_w, soc_start=soc, faults=[fault("pcs.turned", 0.0)]) as site:
        found = site.run(60.0)
        assert "run" not in modes(found), modes(found)
        assert [row for row, _ in told(site)][:1] == ["pcs_opposed"], told(site)


def test_a_converter_that_turns_while_it_runs_is_stopped_in_its_time():
    with plant(load_w=60e3, faults=[fault("pcs.turned", 20.0)]) as site:
        found = site.run(20.0 + APART_S + 3.0)
        (row, at_s), *_ = told(site)
        assert row == "pcs_power_apart" and at_s < 20.0 + APART_S, told(site)
        assert np.abs(found.series()["setpoint_w"][-500:]).max() == 0.0


@pytest.mark.parametrize("step", [0.0, 0.01])
def test_a_battery_whose_readings_are_repeated_is_stopped_after_a_twentieth_at_steady_power(step):
    with plant(load_w=60e3, bms_soc_step=step, faults=[fault("battery.frozen", 30.0)]) as site:
        site.run(30.0 + FLOWED * ENERGY_WH * 3600.0 / 16e3)
        rows, series = told(site), site.series()
        assert [row for row, _ in rows][:1] == ["bms_stuck"], rows
        unseen = (series["t_s"] > 30.0) & (series["t_s"] < rows[0][1])
        flowed_wh = series["ess_w"][unseen].sum() * float(np.diff(series["t_s"][:2])[0]) / 3600.0
        assert flowed_wh < FLOWED * ENERGY_WH
        assert abs(series["ess_w"][-1]) < 100.0


@pytest.mark.parametrize("step", [0.0, 0.01])
def test_a_battery_whose_readings_are_repeated_is_stopped_soon_once_the_power_moves(step):
    load = np.array([0.0, 40.0]), np.array([50e3, 56e3])
    given = {"soc_start": 0.8, "bms_soc_step": step, "faults": [fault("battery.frozen", 30.0)]}
    with VirtualPlant(program(), load, seed=3, series_every=1, overrides=given) as site:
        site.run(40.0 + STILL_S + 3.0)
        rows = told(site)
        assert [row for row, _ in rows][:1] == ["bms_stuck"] and 40.0 < rows[0][1] < 40.0 + STILL_S, rows


# One of each stratum of the zoo, batteries with whole-percent SoC and with limits that jump more often.
HONEST = [seed for seed in range(70_000, 70_016) if plants.stratum_of(seed) != "liar"]
HONEST += [seed for seed in range(70_016, 70_100) if plants.stratum_of(seed) in ("battery", "derate", "late")][:12]


@pytest.mark.parametrize("seed", HONEST)
def test_no_honest_plant_of_the_zoo_is_called_stuck_or_turned(seed):
    made = replace(liars.honest(seed), seconds=60.0)
    with liars.plant_of(made) as site:
        site.run(75.0)
        assert told(site) == [], (plants.stratum_of(seed), told(site))
