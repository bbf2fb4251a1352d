"""A slice of the fault campaign; `make world` runs the long one. A failure prints the line that repeats it."""

import campaign
import pytest

from tidegate.hal.sim.virtual import VirtualPlant

SLICE = range(1, 215)  # 10 million cycles
ALONE = (
    [(kind, "grid", span[1]) for kind, span in campaign.SERIAL.items()]
    + [(kind, "pcs1", span[1]) for kind, span in campaign.SERIAL.items()]
    + [(kind, line, span[1]) for kind, span in campaign.LINE.items() for line in (0, 1)]
    + [(kind, 0, span[1]) for kind, span in campaign.BUS.items()]
    + [(kind, frame, span[1]) for kind, span in campaign.FRAME.items() for frame in range(6)]
    + [(kind, 0, 0.0) for kind in campaign.DEVICE]
    + [("island", 0, 0.0)]
)


def test_seeded_faults_break_no_rule_and_the_site_comes_back():
    bad = [found for seed in SLICE if (found := campaign.run(seed))["failed"]]
    for found in bad:
        campaign.show(found)
    assert not bad, "again: " + "; ".join(campaign.repeat_line(found["seed"]) for found in bad)


@pytest.mark.parametrize(("kind", "target", "value"), ALONE, ids=[f"{k}-{t}" for k, t, _ in ALONE])
def test_each_fault_alone_breaks_no_rule_and_the_site_comes_back(kind, target, value):
    fault = {"kind": kind, "target": target, "value": round(value), "on_s": 6.0, "off_s": 9.0}
    assert campaign.run(1, [fault])["failed"] == []


def test_same_seed_gives_the_same_bytes_and_another_seed_others():
    first, again, other = campaign.run(7), campaign.run(7), campaign.run(8)
    assert first["sha256"] == again["sha256"] != other["sha256"]
    assert first["events"] == again["events"]


def test_campaign_can_fail_and_shrinks_to_the_fault_that_did_it(monkeypatch, capsys):
    """With a bound that no site can keep the checks must bite, and the shrinker must leave the silent BMS alone."""
    seed = 3
    silent = {"kind": "can_silent", "target": 0, "value": 0.0, "on_s": 6.0, "off_s": 9.0}
    noise = {"kind": "noise", "target": 0, "value": 0.1, "on_s": 6.0, "off_s": 9.0}
    late = {"kind": "late", "target": "cooling", "value": 5.0, "on_s": 6.0, "off_s": 9.0}
    _, load, overrides = campaign.scenario(seed)
    load = (load[0][:1], load[1][:1] * 0 + 60e3)
    monkeypatch.setattr(campaign, "scenario", lambda _: ([noise, silent, late], load, {**overrides, "soc_start": 0.6}))
    monkeypatch.setitem(campaign.BOUNDS, "bms_s", 0.12)
    found = campaign.run(seed)
    assert any("blind_bms" in line for line in found["failed"])
    assert campaign.shrink(seed) == [silent]
    campaign.show(found)
    assert campaign.repeat_line(seed) in capsys.readouterr().out


def alarm_times(seed, alarms=25):
    """(count, worst ns, plan) of alarms raised at random moments while the cabinet discharges at the peak limit."""
    import random

    import numpy as np

    chance = random.Random(seed)
    faults = []
    for i in range(alarms):
        on_s = 5.0 + 12.0 * i + chance.uniform(0.0, 4.0)
        faults.append({"kind": "battery.alarm", "target": 0, "on_s": on_s, "off_s": on_s + 0.5})
    load = (np.array([0.0]), np.array([62e3]))
    overrides = {"soc_start": 0.9, "faults": faults}
    with VirtualPlant(campaign.program(), load, seed=seed, overrides=overrides) as plant:
        plant.run(5.0 + 12.0 * alarms)
        return plant.checks["alarms"], plant.checks["alarm_wire_ns_max"], plant.built


def alarm_bound_ns(built):
    """Two cycles, the longest transaction that may be in flight on the converter's line, and the write's own bytes."""
    port = next(i for i, row in enumerate(built.rows["ports"]) if row["name"] == "pcs")
    row = built.rows["ports"][port]
    char_ns = 1e9 * (1 + row["data_bits"] + row["stop_bits"]) / row["baud"]
    gap_ns = max(3.5 * char_ns, 1.75e6)
    turnaround_ns = (built.settings["turnaround_ms"] + built.settings["turnaround_jitter_ms"]) * 1e6
    longest_ns = 0.0
    for slave in built.rows["slaves"]:
        if slave["port"] == port:
            for block in built.rows["blocks"][slave["block_first"] : slave["block_first"] + slave["block_count"]]:
                longest_ns = max(longest_ns, (8 + 5 + 2 * block["count"]) * char_ns + turnaround_ns)
    return 2 * built.rows["period_ns"] + longest_ns + gap_ns + 13 * char_ns


def test_alarm_bit_brings_setpoint_zero_onto_the_wire_within_its_bound():
    for seed in (1, 2, 3, 4):
        count, worst_ns, built = alarm_times(seed)
        assert count == 25
        assert worst_ns <= alarm_bound_ns(built), f"{worst_ns / 1e6:.2f} ms with seed {seed}"
