"""The gate's memory: debounce, clear time, reactions, latches, first-out cause, heartbeat, contactor request."""

import pytest

from tests.ext.safety.gate_cases import GOOD, LIMITS, REACTION, armed, settled
from tidegate.ext.safety.gate import FAULT_ROWS, VALID, Gate


def row(reaction: str, **columns: int) -> dict[str, int]:
    return {"reaction": REACTION[reaction], **columns}


def cycles_until_active(gate: Gate, number: int, limit: int = 10_000) -> int:
    for cycle in range(1, limit):
        if gate.step(**GOOD, faults=1 << number)["active"] >> number & 1:
            return cycle
    return limit


def cycles_until_clear(gate: Gate, number: int, limit: int = 200_000) -> int:
    for cycle in range(1, limit):
        if not gate.step(**GOOD)["active"] >> number & 1:
            return cycle
    return limit


@pytest.mark.parametrize(("debounce_ms", "cycles"), [(0, 1), (1, 1), (2, 2), (100, 100)])
def test_a_fault_acts_after_its_debounce(debounce_ms: int, cycles: int) -> None:
    assert cycles_until_active(armed(faults={3: row("zero", debounce_ms=debounce_ms)}), 3) == cycles


def test_debounce_counts_time_and_not_cycles() -> None:
    gate = armed(faults={3: row("zero", debounce_ms=100)})
    for _ in range(9):
        assert not gate.step(**{**GOOD, "dt_us": 10_000}, faults=8)["active"]
    assert gate.step(**{**GOOD, "dt_us": 10_000}, faults=8)["active"] == 8


def test_the_bucket_leaks_at_half_speed() -> None:
    gate = armed(faults={0: row("zero", debounce_ms=10)})
    for _ in range(8):
        gate.step(**GOOD, faults=1)
    for _ in range(4):
        gate.step(**GOOD)
    assert gate.row(0)["bucket_us"] == 6000
    for _ in range(20):
        gate.step(**GOOD)
    assert gate.row(0)["bucket_us"] == 0


def test_a_fault_that_is_there_half_of_the_time_still_acts() -> None:
    gate = armed(faults={0: row("zero", debounce_ms=10)})
    assert any(gate.step(**GOOD, faults=cycle & 1)["active"] for cycle in range(60))


def test_a_fault_clears_after_its_whole_clear_time() -> None:
    gate = armed(faults={0: row("zero", clear_ms=50)})
    gate.step(**GOOD, faults=1)
    assert cycles_until_clear(gate, 0) == 50


def test_a_relapse_starts_the_clear_time_anew() -> None:
    gate = armed(faults={0: row("zero", clear_ms=50)})
    gate.step(**GOOD, faults=1)
    for _ in range(49):
        gate.step(**GOOD)
    gate.step(**GOOD, faults=1)
    assert cycles_until_clear(gate, 0) == 50


def test_power_comes_back_by_the_ramp_after_a_fault_cleared() -> None:
    gate = armed(faults={0: row("zero")})
    settled(gate)
    assert gate.step(**GOOD, faults=1)["setpoint_w"] == 0
    assert [gate.step(**GOOD)["setpoint_w"] for _ in range(2)] == [60, 120]


# ---------------------------------------------------------------- the lattice


@pytest.mark.parametrize(
    ("reaction", "setpoint", "heartbeat"),
    [("warn", 20_000, 1), ("derate", 14_000, 1), ("ramp_zero", 18_500, 1), ("zero", 0, 1), ("silent", 0, 0),
     ("open", 0, 0)],
)  # fmt: skip
def test_each_reaction_does_what_it_says(reaction: str, setpoint: int, heartbeat: int) -> None:
    gate = armed(faults={7: row(reaction, derate_permille=500)})
    settled(gate)
    verdict = gate.step(**GOOD, faults=1 << 7)
    assert (verdict["setpoint_w"], verdict["heartbeat_ok"]) == (setpoint, heartbeat)
    assert verdict["reaction"] == REACTION[reaction] and verdict["active"] == 1 << 7


@pytest.mark.parametrize("low", range(7))
@pytest.mark.parametrize("high", range(7))
def test_the_highest_reaction_wins(low: int, high: int) -> None:
    gate = armed(faults={0: {"reaction": low, "derate_permille": 500}, 63: {"reaction": high, "derate_permille": 500}})
    assert gate.step(**GOOD, faults=1 | 1 << 63)["reaction"] == max(low, high)


def test_the_smallest_derating_wins() -> None:
    gate = armed(faults={0: row("derate", derate_permille=700), 1: row("derate", derate_permille=300)})
    assert settled(gate, faults=3)["setpoint_w"] == 8400
    assert settled(gate, faults=1)["setpoint_w"] == 19_600


@pytest.mark.parametrize("permille", [-1, 1001])
def test_a_derating_that_is_no_share_leaves_nothing(permille: int) -> None:
    assert settled(armed(faults={0: row("derate", derate_permille=permille)}), faults=1)["setpoint_w"] == 0


@pytest.mark.parametrize("reaction", [-1, 7, 2**31 - 1])
def test_a_reaction_that_does_not_exist_is_the_highest(reaction: int) -> None:
    assert armed(faults={0: {"reaction": reaction}}).step(**GOOD, faults=1)["reaction"] == REACTION["open"]


def test_a_row_that_is_not_used_does_nothing() -> None:
    verdict = armed().step(**GOOD, faults=2**FAULT_ROWS - 1)
    assert verdict["active"] == 0 and verdict["reaction"] == 0


def test_ramp_to_zero_ends_at_zero_and_does_not_turn() -> None:
    gate = armed(faults={0: row("ramp_zero")})
    settled(gate)
    assert [gate.step(**GOOD, faults=1)["setpoint_w"] for _ in range(15)][-3:] == [500, 0, 0]


def test_ramp_to_zero_takes_a_request_nearer_to_zero_at_once() -> None:
    gate = armed(faults={0: row("ramp_zero")})
    settled(gate)
    assert gate.step(**{**GOOD, "request_w": 100}, faults=1)["setpoint_w"] == 100
    assert gate.step(**{**GOOD, "request_w": -100}, faults=1)["setpoint_w"] == 0


def test_ramp_to_zero_without_a_stop_rate_is_at_once() -> None:
    gate = armed({"ramp_stop_w_per_s": 0}, {0: row("ramp_zero")})
    settled(gate)
    assert gate.step(**GOOD, faults=1)["setpoint_w"] == 0


def test_ramp_to_zero_works_for_charging_too() -> None:
    gate = armed(faults={0: row("ramp_zero")})
    settled(gate, request_w=-20_000)
    assert gate.step(**{**GOOD, "request_w": -20_000}, faults=1)["setpoint_w"] == -18_500


# ---------------------------------------------------------------- latches


def test_a_latch_stays_until_acknowledged_with_the_cause_gone() -> None:
    gate = armed(faults={9: row("zero", latched=1)})
    gate.step(**GOOD, faults=1 << 9)
    assert gate.step(**GOOD)["latched"] == 1 << 9
    assert gate.step(**GOOD, faults=1 << 9, ack=1)["latched"] == 1 << 9, "acknowledged too early"
    assert gate.step(**GOOD)["latched"] == 1 << 9, "an early acknowledge must not be remembered"
    verdict = gate.step(**GOOD, ack=1)
    assert verdict["latched"] == 0 and verdict["reaction"] == 0


def test_a_latch_above_derate_trips_and_needs_arming() -> None:
    gate = armed(faults={9: row("ramp_zero", latched=1)})
    gate.step(**GOOD, faults=1 << 9)
    gate.step(**GOOD, arm=1)
    assert gate.tripped, "armed with a latch"
    gate.step(**GOOD, ack=1)
    assert gate.tripped
    gate.step(**GOOD, arm=1)
    assert not gate.tripped


def test_acknowledge_and_arm_may_come_in_one_cycle() -> None:
    gate = armed(faults={9: row("zero", latched=1)})
    gate.step(**GOOD, faults=1 << 9)
    gate.step(**GOOD)
    gate.step(**GOOD, ack=1, arm=1)
    assert not gate.tripped


@pytest.mark.parametrize("reaction", ["warn", "derate"])
def test_a_latched_warning_blocks_arming_and_does_not_trip(reaction: str) -> None:
    faults = {2: row(reaction, latched=1, derate_permille=900)}
    gate = armed(faults=faults)
    gate.step(**GOOD, faults=4)
    gate.step(**GOOD)
    assert not gate.tripped
    fresh = Gate(LIMITS, faults)
    fresh.step(**GOOD, faults=4)
    fresh.step(**GOOD, arm=1)
    assert fresh.tripped


def test_an_acknowledge_that_never_falls_acts_once() -> None:
    gate = armed(faults={9: row("zero", latched=1)})
    gate.step(**GOOD, faults=1 << 9, ack=1)
    for _ in range(5):
        gate.step(**GOOD, ack=1)
    assert gate.step(**GOOD, ack=1)["latched"] == 1 << 9


def test_latches_come_back_after_a_restart() -> None:
    faults = {9: row("open", latched=1), 63: row("zero", latched=1)}
    gate = Gate(LIMITS, faults)
    gate.restore(1 << 9 | 1 << 63)
    verdict = gate.step(**GOOD, arm=1)
    assert verdict["latched"] == 1 << 9 | 1 << 63 and gate.tripped and verdict["reaction"] == REACTION["open"]
    gate.step(**GOOD, ack=1)
    gate.step(**GOOD, arm=1)
    assert not gate.tripped


# ---------------------------------------------------------------- flapping


def test_each_activation_doubles_the_clear_time_until_one_latches() -> None:
    gate = armed(faults={1: row("zero", clear_ms=10, flap_max=6)})
    times = []
    for _ in range(5):
        gate.step(**GOOD, faults=2)
        times.append(cycles_until_clear(gate, 1))
    assert times == [10, 20, 40, 80, 160]
    assert not gate.step(**GOOD)["latched"]
    assert gate.step(**GOOD, faults=2)["latched"] == 2 and gate.tripped


def test_one_activation_is_forgotten_every_ten_minutes() -> None:
    gate = armed(faults={1: row("zero", clear_ms=10, flap_max=6)})
    for _ in range(3):
        gate.step(**GOOD, faults=2)
        cycles_until_clear(gate, 1)
    assert gate.row(1)["flaps"] == 3
    for _ in range(600):
        gate.step(**{**GOOD, "dt_us": 1_000_000})
    assert gate.row(1)["flaps"] == 2
    for _ in range(1200):
        gate.step(**{**GOOD, "dt_us": 1_000_000})
    assert gate.row(1)["flaps"] == 0


def test_without_flap_max_the_clear_time_stays() -> None:
    gate = armed(faults={1: row("zero", clear_ms=10)})
    for _ in range(10):
        gate.step(**GOOD, faults=2)
        assert cycles_until_clear(gate, 1) == 10


# ---------------------------------------------------------------- what is told


def test_the_first_cause_is_kept_while_others_follow() -> None:
    gate = armed(faults={4: row("zero", clear_ms=10), 2: row("open", clear_ms=10), 0: row("warn")})
    assert gate.step(**GOOD, faults=1)["first_fault"] == -1, "a warning is no cause"
    assert gate.step(**GOOD, faults=1 << 4 | 1)["first_fault"] == 4
    assert gate.step(**GOOD, faults=1 << 4 | 1 << 2)["first_fault"] == 4
    for _ in range(10):
        verdict = gate.step(**GOOD)
    assert verdict["first_fault"] == -1


def test_the_first_cause_of_a_trip_is_kept_until_armed() -> None:
    gate = armed(faults={4: row("zero", latched=1)})
    gate.step(**GOOD, faults=1 << 4)
    assert gate.step(**GOOD, ack=1)["first_fault"] == 4
    assert gate.step(**GOOD, arm=1)["first_fault"] == -1


def test_of_two_causes_in_one_cycle_the_graver_is_first() -> None:
    gate = armed(faults={4: row("zero"), 8: row("silent")})
    assert gate.step(**GOOD, faults=1 << 4 | 1 << 8)["first_fault"] == 8


def test_the_proof_counts_completed_cycles() -> None:
    gate = Gate(LIMITS)
    assert [gate.step(**GOOD)["proof"] for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize("name", [name for name in VALID if name != "request_w"])
def test_the_heartbeat_needs_every_input_that_the_map_promises(name: str) -> None:
    gate = armed()
    given = {key: value for key, value in GOOD.items() if key != name}
    assert not gate.step(**given, required=VALID[name])["heartbeat_ok"]
    assert gate.step(**GOOD, required=0)["heartbeat_ok"]


# ---------------------------------------------------------------- contactors


def test_contactors_wait_for_small_current_or_a_second() -> None:
    gate = armed(faults={0: row("open")})
    assert not gate.step(**{**GOOD, "ess_w": 20_000}, faults=1)["contactor_open"]
    assert not gate.step(**{**GOOD, "ess_w": 3501}, faults=1)["contactor_open"]
    assert gate.step(**{**GOOD, "ess_w": 3500}, faults=1)["contactor_open"], "5 A at 700 V"
    assert gate.step(**{**GOOD, "ess_w": -3500}, faults=1)["contactor_open"]
    assert not gate.step(**{**GOOD, "ess_w": -3501}, faults=1)["contactor_open"]
    for _ in range(994):
        assert not gate.step(**{**GOOD, "ess_w": 20_000}, faults=1)["contactor_open"]
    assert gate.step(**{**GOOD, "ess_w": 20_000}, faults=1)["contactor_open"]


@pytest.mark.parametrize("missing", ["ess_w", "pack_mv"])
def test_without_a_current_contactors_wait_the_second(missing: str) -> None:
    gate = armed(faults={0: row("open")})
    given = {key: value for key, value in GOOD.items() if key != missing}
    assert [gate.step(**given, faults=1)["contactor_open"] for _ in range(1000)] == [0] * 999 + [1]


def test_the_contactor_request_ends_with_its_fault() -> None:
    gate = armed(faults={0: row("open")})
    gate.step(**GOOD, faults=1)
    assert not gate.step(**GOOD)["contactor_open"]
