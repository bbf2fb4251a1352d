"""Every row of the fault table in every mode of the cabinet, through the whole core: reaction, time, power, way back.

Rig, modes and expected numbers: mode_rig.py and fault_rig.py.
"""

import math

import pytest

from tests.ext.safety.fault_rig import DERATE, OPEN, RAMP_ZERO, SILENT, ZERO, Case
from tests.ext.safety.mode_rig import (
    DEBOUNCED,
    LEARNT,
    MODES,
    NEEDS_POWER,
    RAMP_STOP_W_PER_MS,
    REACTIONS,
    SCENARIO_CASES,
    SELFTEST,
    STANDING,
    WITNESS,
    WRONG_WAY,
    CoreRig,
    site,
)
from tidegate.ext.abi import program
from tidegate.ext.safety.diagnosis import FAULT_IDS
from tidegate.ext.safety.gate import Gate

GATE = Gate(program.rows(site())["units"][0]["gate"], {})


def named(case: Case) -> str:
    count = [other.id for other in SCENARIO_CASES].index(case.id)
    return f"{case.id}-{SCENARIO_CASES.index(case) - count}"


def test_there_are_eight_hundred_scenarios_and_no_row_is_left_out() -> None:
    elsewhere = {"soc_drift", "latches_lost"} | WITNESS | LEARNT | SELFTEST
    assert {case.id for case in SCENARIO_CASES} | elsewhere == set(FAULT_IDS)
    good = [case for case in SCENARIO_CASES if case.good]
    assert len(MODES) * (len(SCENARIO_CASES) + len(good) + len(DEBOUNCED)) >= 800


def expect_answer(rig: CoreRig, case: Case, before_w: float) -> None:
    """What the core must say in the cycle in which the row has become active."""
    active = rig.active()
    reaction = max(REACTIONS[ident] for ident in active)
    assert rig.point("unit0.reaction") == reaction, active
    assert (case.id in rig.latched()) == case.latched

    setpoint_w = rig.setpoint_w
    lo_w, hi_w, _ = GATE.envelope(**rig.inputs())
    share = 0.5 if any(REACTIONS[ident] == DERATE for ident in active) else 1.0
    assert rig.point("unit0.envelope_hi_w") == int(hi_w * share)
    assert rig.point("unit0.envelope_lo_w") == int(lo_w * share)
    assert int(lo_w * share) <= setpoint_w <= int(hi_w * share)
    if reaction >= ZERO:
        assert setpoint_w == 0.0
    elif reaction == RAMP_ZERO:
        assert abs(setpoint_w) <= max(abs(before_w) - RAMP_STOP_W_PER_MS, 0.0)

    if reaction >= SILENT:
        assert rig.point("unit0.heartbeat_ok") == 0.0
    elif not any(isinstance(value, str) for value in case.bad.values()):
        assert rig.point("unit0.heartbeat_ok") == 1.0, "the converter would fall back for a row that lets it live"

    tripped = any(REACTIONS[ident] > DERATE for ident in rig.latched())
    usual = MODES[rig.mode][3]
    if tripped:
        assert rig.state == "tripped"
    elif usual == "run":
        assert rig.state == ("derated" if reaction >= DERATE else "run")
    else:
        assert rig.state in ({"stopping", "off"} if usual == "stopping" else {usual})


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", SCENARIO_CASES, ids=named)
def test_a_row_acts_and_clears_in_its_time_in_every_mode(case: Case, mode: str) -> None:
    with CoreRig(mode) as rig:
        rig.set(case.bad)
        if case.act_ms > 1:
            rig.run(case.act_ms - 1)
            assert case.id not in rig.active(), "too early"
        if (
            case.id in WRONG_WAY and mode == "following"
        ):  # it answers the grid, so its own setpoints of late excuse some
            rig.run(2000)
            assert case.id in rig.active() and rig.setpoint_w == 0.0
            return
        if case.id in NEEDS_POWER and mode not in STANDING:
            rig.run(200)
            assert case.id not in rig.active()
            return
        before_w = rig.setpoint_w
        rig.cycle(251 if case.id == "loop_pause" else 1)
        assert case.id in rig.active(), "late"
        expect_answer(rig, case, before_w)

        if case.reaction == RAMP_ZERO:
            rig.run(math.ceil(abs(before_w) / RAMP_STOP_W_PER_MS))
            assert rig.setpoint_w == 0.0
        if case.reaction == OPEN:
            rig.run(1000)
            assert rig.point("unit0.contactor_open") == 1.0 and rig.setpoint_w == 0.0

        if case.id != "soc_jump":  # the way back would be a second jump
            rig.set({})
        rig.run(case.clear_ms - 1)
        assert case.id in rig.active(), "cleared too early"
        rig.run(1)
        assert case.id not in rig.active(), "cleared late"
        assert (case.id in rig.latched()) == case.latched
        assert (rig.state == "tripped") == any(REACTIONS[ident] > DERATE for ident in rig.latched())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", [case for case in SCENARIO_CASES if case.good], ids=named)
def test_a_row_stays_away_just_short_of_its_edge_in_every_mode(case: Case, mode: str) -> None:
    with CoreRig(mode) as rig:
        rig.set(case.good)
        rig.run(case.act_ms + 200)
        assert case.id not in rig.active()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", DEBOUNCED, ids=named)
def test_a_condition_one_cycle_short_of_its_time_does_nothing_in_every_mode(case: Case, mode: str) -> None:
    with CoreRig(mode) as rig:
        rig.set(case.bad)
        rig.run(case.act_ms - 1)
        rig.set({})
        rig.run(20)
        assert case.id not in rig.active()
        rig.run(2000)
        assert case.id not in rig.active() and case.id not in rig.latched()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("per_hour", "drifted"), [(0.098, False), (0.102, True)])
def test_charge_that_parts_from_counted_energy_is_told_after_the_hour_in_every_mode(
    per_hour: float, drifted: bool, mode: str
) -> None:
    with CoreRig(mode) as rig:
        begun_ns, whole_ns = rig.t_ns, 3601 * 10**9  # the rig's time begins at a second
        flowed_ws, seen_ns = 0.0, begun_ns

        def soc(rig: CoreRig) -> float:
            nonlocal flowed_ws, seen_ns
            flowed_ws += rig.setpoint_w * (rig.t_ns - seen_ns) * 1e-9
            seen_ns = rig.t_ns
            return 0.5 - flowed_ws / (3600.0 * 60_000.0) + per_hour * (rig.t_ns - begun_ns) / (whole_ns - begun_ns)

        rig.set({"soc": soc})
        rig.run((whole_ns - begun_ns) // 10**6 - 3)
        assert "soc_drift" not in rig.active()
        rig.run(6)
        assert rig.active() == (["soc_drift"] if drifted else []) and rig.point("unit0.reaction") == int(drifted)
        assert rig.state == ("off" if mode == "stopping" else MODES[mode][3])
