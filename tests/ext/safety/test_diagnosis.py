"""Every row of the fault table: when it acts, what it does, when it is over. Cases and numbers: fault_rig.py."""

import math

import pytest

from tests.ext.safety.fault_rig import (
    AT_MOST_MS,
    BMS_WATCHED,
    CASES,
    OWN_TIMES_MS,
    PCS_WATCHED,
    POINT,
    QUALITIES,
    Case,
    Rig,
    running,
)
from tests.ext.safety.gate_cases import LIMITS
from tidegate.config import faults
from tidegate.config.faults import load_faults
from tidegate.ext.abi import program
from tidegate.ext.abi.image import MODES_BY_NUMBER
from tidegate.ext.safety.diagnosis import FAULT_IDS, Diagnosis
from tidegate.ext.safety.gate import REACTIONS, VALID

OWN_TESTS = set(OWN_TIMES_MS)  # below, not by case


def test_every_row_of_the_table_has_a_case_or_a_test_of_its_own() -> None:
    assert {case.id for case in CASES} | OWN_TESTS == set(FAULT_IDS)


@pytest.mark.parametrize("ident", FAULT_IDS)
def test_no_row_may_be_slower_than_its_hazard_allows(ident: str) -> None:
    row = faults.default_table()[FAULT_IDS.index(ident)]
    allowed = [ms for ms, idents in AT_MOST_MS.items() if ident in idents.split()]
    assert [row.debounce_ms_max] == allowed and row.debounce_ms <= row.debounce_ms_max


@pytest.mark.parametrize("ident", FAULT_IDS)
def test_the_times_of_a_row_are_those_that_its_cases_expect(ident: str) -> None:
    row = faults.default_table()[FAULT_IDS.index(ident)]
    expected = {(case.act_ms, case.clear_ms) for case in CASES if case.id == ident} or {OWN_TIMES_MS[ident]}
    assert expected == {(row.debounce_ms, row.clear_ms)}


def bring(case: Case) -> Rig:
    """A rig in which the case's row has just become active, after exactly its time."""
    rig = running(case.request_w, case.nameplate_w)
    rig.set(**case.bad)
    if case.act_ms > 1:
        rig.run(case.act_ms - 1)
        assert not rig.is_active(case.id), "too early"
    rig.cycle()
    assert rig.is_active(case.id), f"late; present {rig.present}"
    return rig


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_row_acts_in_its_time_with_its_reaction(case: Case) -> None:
    rig = bring(case)
    own = 1 << FAULT_IDS.index(case.id)
    reactions = [case.reaction] + [other.reaction for other in CASES if other.id in rig.active()]
    reactions += [2] if rig.is_active("soc_jump") else []
    assert rig.verdict["reaction"] == max(reactions)
    assert bool(rig.verdict["latched"] & own) == case.latched
    if max(reactions) > 2:
        limit = 0 if max(reactions) > 3 else abs(case.request_w)
        assert abs(rig.verdict["setpoint_w"]) <= limit
    if rig.active() == [case.id]:
        assert rig.verdict["reaction"] == case.reaction, REACTIONS[case.reaction]
        lo, hi, _ = rig.gate.envelope(**rig.inputs)
        assert rig.verdict["envelope_hi_w"] == int(hi * case.share)
        assert rig.verdict["envelope_lo_w"] == int(lo * case.share)


@pytest.mark.parametrize("case", [case for case in CASES if case.good], ids=str)
def test_a_row_stays_away_just_short_of_its_edge(case: Case) -> None:
    rig = running(case.request_w, case.nameplate_w)
    rig.set(**case.good)
    rig.run(case.act_ms + 200)
    assert case.id not in rig.present and not rig.is_active(case.id)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_row_clears_in_its_time(case: Case) -> None:
    rig = bring(case)
    rig.request_w = 0.0  # so that the converter is where it should be as soon as it is let go
    rig.clear()
    rig.run(1, 1)
    while case.id in rig.present:  # a band that fades, or a reading that waits for its next comparison
        rig.cycle()
    rig.run(case.clear_ms - 2)
    assert rig.is_active(case.id), "too early"
    rig.run(2, 1)
    assert not rig.is_active(case.id), "late"
    assert rig.is_latched(case.id) == case.latched


@pytest.mark.parametrize("case", [case for case in CASES if case.latched], ids=str)
def test_a_latched_row_trips_until_acknowledged_and_armed(case: Case) -> None:
    rig = bring(case)
    assert rig.gate.tripped
    rig.cycle(ack=1)
    assert rig.is_latched(case.id), "acknowledged with the cause present"
    rig.clear()
    rig.request_w = 0.0
    rig.run(30_000)
    rig.cycle(arm=1)
    assert rig.is_latched(case.id) and rig.gate.tripped
    rig.cycle(ack=1)
    assert not rig.is_latched(case.id) and rig.gate.tripped
    rig.cycle(arm=1)
    assert not rig.gate.tripped


@pytest.mark.parametrize("case", [case for case in CASES if case.flaps], ids=str)
def test_a_flapping_row_latches_at_its_number(case: Case) -> None:
    rig = running(case.request_w, case.nameplate_w)
    for activation in range(1, case.flaps + 1):
        rig.set(**case.bad)
        for _ in range(0, case.act_ms + 2000, 50):
            rig.cycle(50)
            if rig.is_active(case.id):
                break
        assert rig.is_active(case.id) and rig.is_latched(case.id) == (activation == case.flaps), activation
        rig.clear()
        request_w, rig.request_w = rig.request_w, 0.0
        for _ in range(10_000):
            rig.cycle(50)
            if not rig.is_active(case.id):
                break
        rig.request_w = request_w
        rig.run(15_000)
    assert rig.gate.tripped


@pytest.mark.parametrize("case", [case for case in CASES if not case.latched], ids=str)
def test_after_a_row_that_does_not_latch_power_comes_back_by_itself(case: Case) -> None:
    rig = bring(case)
    rig.clear()
    rig.run(case.act_ms + case.clear_ms + 20_000)
    if any(rig.is_latched(ident) for ident in FAULT_IDS):
        assert any(other.latched for other in CASES if rig.is_latched(other.id)), "nothing else may have latched"
    else:
        assert rig.active() == [] and rig.verdict["setpoint_w"] == case.request_w


@pytest.mark.parametrize(
    ("ident", "bad", "held", "over"),
    [
        ("temp_high_warn", {"temp_max_c": 50.1}, {"temp_max_c": 49.1}, {"temp_max_c": 48.9}),
        ("temp_high_stop", {"temp_max_c": 55.1}, {"temp_max_c": 52.1}, {"temp_max_c": 51.9}),
        ("temp_high_trip", {"temp_max_c": 60.1}, {"temp_max_c": 57.1}, {"temp_max_c": 56.9}),
        ("temp_low_warn", {"temp_min_c": 2.9}, {"temp_min_c": 3.9}, {"temp_min_c": 4.1}),
        ("temp_low_stop", {"temp_min_c": -0.1}, {"temp_min_c": 2.9}, {"temp_min_c": 3.1}),
        ("temp_low_trip", {"temp_min_c": -10.1}, {"temp_min_c": -7.1}, {"temp_min_c": -6.9}),
        ("cell_high_warn", {"cell_v_max": 3.581}, {"cell_v_max": 3.5755}, {"cell_v_max": 3.5745}),
        ("cell_high_stop", {"cell_v_max": 3.601}, {"cell_v_max": 3.5805}, {"cell_v_max": 3.5795}),
        ("cell_high_trip", {"cell_v_max": 3.651}, {"cell_v_max": 3.6305}, {"cell_v_max": 3.6295}),
        ("cell_low_warn", {"cell_v_min": 2.849}, {"cell_v_min": 2.8595}, {"cell_v_min": 2.8605}),
        ("cell_low_stop", {"cell_v_min": 2.799}, {"cell_v_min": 2.8195}, {"cell_v_min": 2.8205}),
        ("cell_low_trip", {"cell_v_min": 2.599}, {"cell_v_min": 2.6195}, {"cell_v_min": 2.6205}),
    ],
)
def test_a_level_is_over_only_beyond_its_hysteresis(
    ident: str, bad: dict[str, float], held: dict[str, float], over: dict[str, float]
) -> None:
    rig = running()
    for readings, present in ((held, False), (bad, True), (held, True), (over, False)):
        rig.set(**readings)
        rig.cycle()
        assert (ident in rig.present) == present, readings


# ---------------------------------------------------------------- rows with a memory of their own


@pytest.mark.parametrize(("soc", "jumped"), [(0.5195, False), (0.5205, True), (0.4805, False), (0.4795, True)])
def test_a_jump_of_the_state_of_charge_derates_for_ten_seconds(soc: float, jumped: bool) -> None:
    rig = running()
    rig.set(soc=soc)
    rig.cycle()
    assert rig.is_active("soc_jump") == jumped
    if jumped:
        assert rig.verdict["setpoint_w"] == 14_000
        rig.run(9_998)
        rig.cycle()
        assert rig.is_active("soc_jump")
        rig.cycle()
        assert not rig.is_active("soc_jump")


def test_a_state_of_charge_that_was_lost_and_found_is_no_jump() -> None:
    rig = running()
    rig.set(soc="stale")
    rig.cycle()
    rig.set(soc=0.6)
    rig.cycle()
    assert "soc_jump" not in rig.present


@pytest.mark.parametrize(("per_hour", "drifted"), [(0.09, False), (0.11, True), (-0.09, False), (-0.11, True)])
def test_a_state_of_charge_that_parts_from_counted_energy_is_told(per_hour: float, drifted: bool) -> None:
    rig = running(0.0)
    for step in range(18_001):
        rig.set(soc=0.5 + per_hour * step / 18_000)
        rig.cycle(200)
        if step == 17_000:
            assert not rig.is_active("soc_drift")
    assert rig.is_active("soc_drift") == drifted


def test_energy_that_flows_moves_the_state_of_charge_rightly() -> None:
    rig = running(0.0)
    for step in range(18_100):  # 12 kWh of 60 in an hour
        rig.set(soc=0.5 - 0.2 * step / 18_000, pack_a=12_000.0 / 700.0, dc_a=12_000.0 / 700.0)
        rig.cycle(200)
    assert not rig.is_active("soc_drift")


@pytest.mark.parametrize("mode", ["arming", "run", "derated"])
@pytest.mark.parametrize(
    ("verdict", "row"),
    [(2.0, "grid_unmoved"), (3.0, "grid_unmoved"), (4.0, "grid_unmoved"), (5.0, "meter_phases")],
)
def test_a_meter_that_lies_stops_a_unit_that_moves(verdict: float, row: str, mode: str) -> None:
    rig = running()
    rig.put("unit0.state", float(MODES_BY_NUMBER.index(mode)))
    rig.cycle()
    assert not rig.is_active(row)
    rig.set(**{"site.meter_verdict": verdict})
    rig.cycle()
    others = {"grid_unmoved", "meter_phases"} - {row}
    assert rig.is_active(row) and not any(map(rig.is_active, others))
    assert rig.verdict["setpoint_w"] == 0 and rig.verdict["tripped"]
    # The verdict stands for people to see, and not in the way of the acknowledgement that leads to a new arming.
    rig.put("unit0.state", float(MODES_BY_NUMBER.index("tripped")))
    rig.run(499)
    assert rig.is_active(row)
    rig.cycle(2)
    assert not rig.is_active(row) and rig.verdict["tripped"]


@pytest.mark.parametrize(("dt_ms", "paused"), [(250, False), (251, True)])
def test_a_pause_of_the_controller_sends_to_zero(dt_ms: int, paused: bool) -> None:
    rig = running()
    rig.cycle(dt_ms)
    assert rig.is_active("loop_pause") == paused
    assert rig.verdict["setpoint_w"] == (0 if paused else 20_000)
    if paused:
        rig.run(499, 100)
        assert rig.is_active("loop_pause")
        rig.cycle()
        assert not rig.is_active("loop_pause") and rig.verdict["reaction"] == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_request_that_is_no_number_is_told(value: float) -> None:
    rig = running()
    rig.put("unit0.request_w", value)
    rig.cycle()
    assert rig.is_active("request_invalid") and rig.verdict["reaction"] == 1
    rig.run(999)
    assert rig.is_active("request_invalid")
    rig.cycle()
    assert not rig.is_active("request_invalid")


# ---------------------------------------------------------------- groups


@pytest.mark.parametrize("name", BMS_WATCHED)
@pytest.mark.parametrize(
    ("quality", "ident"), [("never", "bms_never"), ("stale", "bms_stale"), ("invalid", "bms_invalid")]
)
def test_every_signal_of_the_bms_is_watched(name: str, quality: str, ident: str) -> None:
    rig = running()
    rig.set(**{name: quality})
    rig.cycle()
    assert ident in rig.present


@pytest.mark.parametrize("name", PCS_WATCHED)
@pytest.mark.parametrize(
    ("quality", "ident"), [("never", "pcs_never"), ("stale", "pcs_stale"), ("invalid", "pcs_invalid")]
)
def test_every_signal_of_the_pcs_is_watched(name: str, quality: str, ident: str) -> None:
    rig = running()
    rig.set(**{name: quality})
    rig.cycle()
    assert ident in rig.present


def test_nothing_is_wrong_with_a_unit_whose_map_has_little() -> None:
    readings = {"soc": 0.5, "pack_v": 700.0, "charge_a_max": 50.0, "discharge_a_max": 50.0}
    unit = {**{name: name for name in readings}, "gate": LIMITS, "revert_measured_s": 2.0}
    blob = program.pack(
        {"points": [{"name": name} for name in readings], "units": [unit], "faults": load_faults({}, [])[0]}
    )
    names = [row["name"] for row in program.rows(blob)["points"]]
    image = bytearray(POINT.size * len(names))
    for name, value in readings.items():
        POINT.pack_into(image, names.index(name) * POINT.size, value, 10**9, QUALITIES["good"], 0)
    assert Diagnosis(blob).step(bytes(image), 10**9) == []


@pytest.mark.parametrize(("measured_s", "rows"), [(0.0, ["pcs_watchdog"]), (2.0, []), (61.0, ["pcs_watchdog"])])
def test_a_map_that_cannot_read_the_watchdog_needs_its_time_measured(measured_s: float, rows: list[str]) -> None:
    unit = {"pcs_w": "pcs_w", "gate": LIMITS, "revert_measured_s": measured_s}
    blob = program.pack({"points": [{"name": "pcs_w"}], "units": [unit], "faults": load_faults({}, [])[0]})
    names = [row["name"] for row in program.rows(blob)["points"]]
    image = bytearray(POINT.size * len(names))
    POINT.pack_into(image, names.index("pcs_w") * POINT.size, 0.0, 10**9, QUALITIES["good"], 0)
    assert Diagnosis(blob).step(bytes(image), 10**9) == rows


def test_a_pcs_that_lags_is_not_accused() -> None:
    """A first-order lag of 0.3 s and a reading 0.2 s old, under steps between both ends."""
    rig = running()
    power, late = 20_000.0, [20_000.0] * 20
    for step in range(3000):
        rig.request_w = 25_000.0 if step // 150 % 2 else -25_000.0
        power += (rig.verdict["setpoint_w"] - power) * 0.01 / 0.3
        late.append(power)
        rig.set(pcs_w=late[-20])
        rig.cycle(10)
        assert rig.active() == []


def test_what_the_pcs_did_before_the_start_is_not_held_against_it() -> None:
    rig = Rig()
    for step in range(300):
        rig.set(pcs_w=20_000.0 * 0.97**step)
        rig.cycle(10)
        assert not {"pcs_not_following", "pcs_outside"} & set(rig.active())


def test_readings_of_different_moments_are_not_compared() -> None:
    rig = running()
    rig.set(dc_v=600.0)
    rig.stamps["x.dc_v"] = 61
    rig.run(2000)
    assert "dc_v_mismatch" not in rig.present
    rig.stamps["x.dc_v"] = 60
    rig.cycle()
    assert "dc_v_mismatch" in rig.present
    rig.stamps["x.dc_v"] = 61
    rig.set(dc_v=700.0)
    rig.cycle()
    assert "dc_v_mismatch" in rig.present, "the last judgement stands until the next comparison"


def test_several_faults_at_once_take_the_highest_reaction() -> None:
    rig = running()
    rig.set(warning=1.0, pcs_fault=1.0, temp_max_c=61.0)
    rig.run(200)
    assert rig.verdict["reaction"] == 6 and rig.verdict["setpoint_w"] == 0 and not rig.verdict["heartbeat_ok"]


def test_latches_that_nobody_can_read_hold_the_unit_until_acknowledged() -> None:
    rig = running()
    rig.gate.restore(1 << FAULT_IDS.index("latches_lost"))
    rig.request_w = 20_000.0
    rig.cycle()
    assert rig.gate.tripped and rig.verdict["setpoint_w"] == 0 and rig.is_latched("latches_lost")
    assert rig.verdict["reaction"] == REACTIONS.index("zero")
    rig.cycle(arm=1)
    assert rig.gate.tripped
    rig.cycle(ack=1)
    assert not rig.is_latched("latches_lost") and rig.gate.tripped
    rig.cycle(arm=1)
    assert not rig.gate.tripped


@pytest.mark.parametrize(("soc", "charges", "discharges"), [(1.004, 0, 1), (1.05, 0, 1), (-0.004, 1, 0)])
def test_a_state_of_charge_slightly_beyond_its_ends_is_full_or_empty(soc: float, charges: int, discharges: int) -> None:
    rig = running(0.0, 30_000)
    rig.set(soc=soc)
    rig.run(300)
    lo, hi, _ = rig.gate.envelope(**rig.inputs)
    assert ((lo < 0), (hi > 0)) == (charges, discharges)
    assert rig.inputs["valid"] & VALID["soc_cpct"]


@pytest.mark.parametrize("soc", [1.06, -0.06])
def test_a_state_of_charge_far_beyond_its_ends_is_not_believed(soc: float) -> None:
    rig = running(0.0, 30_000)
    rig.set(soc=soc)
    rig.cycle()
    assert rig.gate.envelope(**rig.inputs)[:2] == (0, 0)
