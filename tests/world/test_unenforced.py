"""Causes for a limit that nobody holds which need a site or a fault of their own: no reading, overruled, exceeded."""

import tomllib
from importlib.resources import files

import numpy as np
import pytest

from tidegate.config.compile import compile_site
from tidegate.config.site import SiteError, load_site, parse_site
from tidegate.ext.abi import shared
from tidegate.ext.abi.image import REASONS_BY_NUMBER
from tidegate.ext.safety.diagnosis import FAULT_IDS
from tidegate.hal.sim.virtual import VirtualPlant

SITE = files("tidegate.config").joinpath("demo/site.toml")
SDM630 = files("tidegate.hal").joinpath("devices/eastron-sdm630.toml")


CIRCUIT = SITE.read_text().replace(
    'role = "cooling-meter"', 'role = "circuit-meter"\ncircuit_w_max = 12000\ncircuit_storage = ["cabinet"]'
)


def plant(text, load_w, folder=None, **overrides):
    """The site over a load that begins with the first cycle, to the millisecond."""
    site, problems = parse_site(tomllib.loads(text), text)
    assert site is not None and not problems, problems
    site._folder = folder or load_site(str(SITE)).folder
    load = load_w if isinstance(load_w, tuple) else (np.array([0.0]), np.array([load_w]))
    return VirtualPlant(compile_site(site), load, seed=5, series_every=20,
                        overrides={"cooling_share": 0.0, "trace_phase_s": 0.0, **overrides})  # fmt: skip


def play(text, load_w, seconds, folder=None, orders=(), **overrides):
    """(limit, cause, s since the first cycle) of every event, over a run of the site; the orders are given at 5 s."""
    with plant(text, load_w, folder, **overrides) as world:
        world.run(5.0)
        for order in orders:
            world.order(*order)
        world.run(seconds - 5.0)
        return [(REASONS_BY_NUMBER[one["code"]], shared.UNENFORCED_NAMES[one["previous"]], one["t_ns"] * 1e-9 - 1.0)
                for one in world.events if one["event"] == "unenforced"]  # fmt: skip


def deaf(on_s, off_s):
    """The converter acknowledges setpoints and does not take them."""
    return [{"kind": "pcs.deaf", "target": "pcs1", "value": 0.0, "on_s": on_s, "off_s": off_s}]


def after(told, limit, at_s):
    return [(cause, t_s) for name, cause, t_s in told if name == limit and t_s > at_s]


def test_a_circuit_is_held_by_the_storage_behind_it():
    """Half of the load is behind the sub-meter, and so is the cabinet."""
    with plant(CIRCUIT, 32e3, soc_start=0.9) as world:
        world.run(15.0)
        late = world.series()["t_s"] > 8.0
        assert REASONS_BY_NUMBER[int(world.series()["reason"][-1])] == "circuit limit"
        assert np.median(world.series()["ess_w"][late]) == pytest.approx(4e3, abs=400.0)
        assert np.ptp(world.series()["request_w"][late]) < 500.0


def test_a_circuit_whose_own_meter_is_silent_is_told_as_no_reading_and_so_is_its_return():
    faults = [{"kind": "dead", "target": "cooling", "value": 0.0, "on_s": 8.0, "off_s": 14.0}]
    found = after(play(CIRCUIT, 30e3, 25.0, faults=faults), "circuit limit", 7.9)
    # Asking whether it is back takes the line for as long as its time-out, so the grid meter is stale for a moment.
    assert [cause for cause, _ in found if cause != "no unit"][-2:] == ["no reading", "enforced"], found
    # Stale after three readings 200 ms apart that did not come; told within a second of that.
    assert found[0][1] < 8.0 + 0.8 + 1.0, found
    assert found[-1][1] < 14.0 + 4.0, "a line that is asked without a pause still leaves another meter its silence"


def with_phases(tmp_path, phases, control=""):
    """(site text, its folder): the demo with a limit of 18 kW a phase, on a grid meter that has so many phases."""
    rows = SDM630.read_text().split("[[")
    kept = [row for row in rows if not any(f'"power_l{n}_w"' in row for n in range(phases + 1, 4))]
    assert len(kept) <= len(rows) - 3 + phases
    (tmp_path / "meter.toml").write_text("[[".join(kept))
    text = SITE.read_text().replace('map = "eastron-sdm630"', 'map = "meter.toml"', 1)
    text = text.replace("[limits]\n", "[limits]\nphase_import_w_max = 18000\n")
    text = text.replace("[control]\n", f"[control]\n{control}\n")
    (tmp_path / "site.toml").write_text(text)
    return text, load_site(str(tmp_path / "site.toml")).folder


@pytest.mark.parametrize("phases", [1, 2, 3])
def test_a_phase_limit_is_held_on_the_phases_that_the_meter_has_without_a_chase(tmp_path, phases):
    """A load step of 10 kW; the battery's power falls on one, two or three phases alike."""
    text, folder = with_phases(tmp_path, phases)
    text = text.replace("peak_w_max = 48000", "peak_w_max = 65000").replace("max = 55000", "max = 65000")
    share = tuple(1.0 / phases if n < phases else 0.0 for n in range(3))
    load = np.array([0.0, 6.0]), np.array([18e3 * phases - 2e3, 18e3 * phases + 8e3])
    with plant(text, load, folder, phase_share=share, soc_start=0.9) as world:
        world.run(14.0)
        series = world.series()
        late = (series["t_s"] > 6.5) & (
            series["t_s"] < 11.0
        )  # later on the meter, whose value stands, is asked by a step
        assert REASONS_BY_NUMBER[int(series["reason"][-1])] == "phase limit"
        assert np.median(series["grid_w"][late]) == pytest.approx(18e3 * phases, abs=150.0 * phases + 200.0)
        assert np.ptp(series["request_w"][late]) <= 300.0 and np.ptp(series["ess_w"][late]) <= 300.0
        causes = [one["previous"] for one in world.events if one["event"] == "unenforced" and one["t_ns"] > 7.5e9]
        assert causes == []


def test_a_meter_without_phases_is_refused_for_a_limit_of_a_phase_and_so_is_a_share_on_a_phase_it_lacks(tmp_path):
    text, folder = with_phases(tmp_path, 0)
    with pytest.raises(SiteError, match=r"limits.phase_import_w_max: .*'grid', meter.toml.*choose another map"):
        plant(text, 30e3, folder)
    text, folder = with_phases(tmp_path, 2, "phase_share = [0.4, 0.4, 0.2]")
    with pytest.raises(SiteError, match=r"control.phase_share: 0.2 of the battery is on L3.*set it to 0"):
        plant(text, 30e3, folder)


def test_a_phase_that_the_battery_is_not_on_is_told_when_it_is_above_its_limit(tmp_path):
    text, folder = with_phases(tmp_path, 3, "phase_share = [0.5, 0.5, 0.0]")
    load = (np.array([0.0, 6.0, 12.0]), np.array([45e3, 60e3, 40e3]))
    found = after(play(text, load, 20.0, folder=folder, phase_share=(0.3, 0.3, 0.4), soc_start=0.9), "phase limit", 5.9)
    # The peak limit leaves 48 kW of 60 on the grid, two fifths of them on L3: 19.2 kW, and nobody to shave them.
    assert [cause for cause, _ in found] == ["exceeded", "enforced"], found
    assert found[0][1] < 6.0 + 1.0 and 12.0 < found[1][1] < 14.0, found


def test_a_circuit_whose_converter_does_not_answer_is_told_as_exceeded():
    load = (np.array([0.0, 7.0]), np.array([20e3, 32e3]))
    found = after(play(CIRCUIT, load, 20.0, soc_start=0.9, faults=deaf(6.0, 9.0)), "circuit limit", 6.9)
    assert found and found[0][0] == "exceeded" and found[0][1] < 7.0 + 1.1, found
    assert found[-1][0] == "enforced", found


def test_a_peak_that_the_reserve_forbids_to_shave_is_told_as_overruled():
    text = SITE.read_text().replace("[control]\n", "[control]\nreserve_soc = 0.5\n")
    found = after(play(text, 52e3, 10.0, soc_start=0.4), "peak limit", 2.0)
    assert found and found[-1][0] == "overruled", found


def test_a_person_who_charges_above_the_peak_overrules_it_and_the_event_says_so():
    manual = shared.ORDER_NAMES.index("manual_w")
    found = after(play(SITE.read_text(), 45e3, 15.0, orders=[(manual, -8e3, 5.0)]), "peak limit", 4.9)
    # It ends by itself; the grid is above the peak for as long as the converter takes to come back.
    assert [cause for cause, _ in found if cause != "exceeded"] == ["overruled", "enforced"], found
    assert found[0][1] < 6.0 and 10.0 < found[-1][1] < 12.5, found


def test_a_converter_that_does_not_answer_leaves_the_limit_exceeded():
    load = (np.array([0.0, 7.0]), np.array([40e3, 52e3]))
    found = after(play(SITE.read_text(), load, 20.0, faults=deaf(6.0, 9.0)), "peak limit", 6.9)
    assert found and found[0][0] == "exceeded" and found[0][1] < 8.0, found
    assert found[-1][0] == "enforced", found


def test_a_window_that_has_used_up_what_it_may_have_is_told_until_the_next_begins():
    """50 kW for 200 s of a window of 300 s that may have 20 kW; no rest of it brings the mean down again."""
    text = SITE.read_text().replace("[control]\n", "[control]\ndemand_w_max = 20000\ndemand_window_s = 300\n")
    text = text.replace("peak_w_max = 48000", "peak_w_max = 90000").replace("max = 55000", "max = 90000")
    load = (np.array([0.0, 200.0]), np.array([80e3, 10e3]))
    told = play(text, load, 310.0, soc_start=0.9)
    assert ("demand window", "short") in [one[:2] for one in told if one[2] < 6.0]
    found = after(told, "demand window", 6.0)
    # At first the export limit, which the battery has to meet after such a fall, may stand against it.
    found = [one for one in found if one[0] != "overruled"]
    assert [cause for cause, _ in found] == ["exceeded", "enforced"], found
    assert 200.0 < found[0][1] < 201.0 and 299.0 <= found[1][1] < 302.0, found


@pytest.mark.parametrize(("late_ms", "told"), [(0.0, 0), (1500.0, 1)])
def test_a_meter_that_is_older_than_its_site_file_says_is_told(late_ms, told):
    text = SITE.read_text().replace("[control]\n", "[control]\nmeter_latency_ms_max = 100\n")
    with plant(text, 40e3, soc_start=0.6, meter_delay_ms=late_ms) as world:
        world.run(40.0)
        on = [e for e in world.events if e["event"] == "fault_on" and e["code"] == FAULT_IDS.index("meter_older")]
        assert len(on) == told


@pytest.mark.parametrize("told", [False, True])
def test_a_smooth_swing_is_followed_though_nobody_told_the_meters_age(told):
    """Nothing in a slow sine about the limit tells the age; the pulses before the start have told it."""
    t = np.arange(0.0, 62.0, 0.02)
    text = SITE.read_text().replace("recharge_rate_w = 2500", "recharge_rate_w = 0")
    text = text.replace("[control]\n", "[control]\nmeter_latency_ms_max = 100\n" if told else "[control]\n")
    with plant(text, (t, 48e3 - 8e3 * np.cos(2.0 * np.pi * 0.05 * t)), soc_start=0.8) as world:
        world.run(60.0)
        series = world.series()
        over_w = np.where(series["t_s"] > 15.0, series["grid_w"] - 48e3, 0.0)
    assert np.max(over_w) < 500.0
