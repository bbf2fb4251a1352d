"""The safety gate's rules, one by one; tests/ext/safety/test_gate_properties.py has them for any input."""

import math

import pytest

from tests.ext.safety.gate_cases import GOOD, LIMITS, REACTION, armed, settled, without
from tidegate.ext.safety.gate import FAULT_ROWS, VALID, Gate, request
from tidegate.ext.safety.gate import LIMITS as LIMIT_NAMES


def names(bits: int) -> set[str]:
    return {name for number, name in enumerate(LIMIT_NAMES) if bits >> number & 1}


# ---------------------------------------------------------------- start and arming


def test_a_new_gate_is_tripped_and_lets_nothing_pass() -> None:
    gate = Gate(LIMITS)
    verdict = settled(gate)
    assert gate.tripped and verdict["setpoint_w"] == 0 and "tripped" in names(verdict["limit_bits"])


def test_an_arm_order_with_everything_good_ends_the_trip() -> None:
    gate = Gate(LIMITS)
    gate.step(**GOOD, arm=1)
    assert not gate.tripped and settled(gate)["setpoint_w"] == 20_000


def test_an_arm_order_that_never_falls_acts_once() -> None:
    gate = Gate(LIMITS, {0: {"reaction": REACTION["zero"], "latched": 1}})
    gate.step(**GOOD, arm=1, faults=1)
    gate.step(**GOOD, arm=1, ack=1)
    gate.step(**GOOD, arm=1)
    assert gate.tripped
    gate.step(**GOOD, arm=0)
    gate.step(**GOOD, arm=1)
    assert not gate.tripped


@pytest.mark.parametrize("name", [name for name in VALID if name != "request_w"])
def test_arming_needs_every_input_that_the_map_promises(name: str) -> None:
    gate = Gate(LIMITS)
    gate.step(**without(name), required=VALID[name], arm=1)
    assert gate.tripped


@pytest.mark.parametrize("reaction", ["ramp_zero", "zero", "silent", "open"])
def test_arming_waits_for_faults_above_derate(reaction: str) -> None:
    gate = Gate(LIMITS, {5: {"reaction": REACTION[reaction]}})
    gate.step(**GOOD, arm=1, faults=1 << 5)
    assert gate.tripped
    gate.step(**GOOD)
    gate.step(**GOOD, arm=1)
    assert not gate.tripped


def test_arming_is_possible_under_a_derating() -> None:
    gate = Gate(LIMITS, {5: {"reaction": REACTION["derate"], "derate_permille": 500}})
    gate.step(**GOOD, arm=1, faults=1 << 5)
    assert not gate.tripped


# ---------------------------------------------------------------- envelope


def test_the_envelope_is_the_least_of_all_limits() -> None:
    assert Gate(LIMITS).envelope(**GOOD)[:2] == (-30_000, 28_000)  # discharge: 40 A at 700 V
    assert Gate({**LIMITS, "discharge_ma_max": 30_000}).envelope(**GOOD)[1] == 21_000
    assert Gate(LIMITS).envelope(**GOOD, discharge_w_max=12_345)[1] == 12_345
    assert Gate(LIMITS).envelope(**GOOD, charge_w_max=1)[0] == -1


def test_power_from_current_is_rounded_towards_zero() -> None:
    assert Gate(LIMITS).envelope(**{**GOOD, "pack_mv": 699_999})[1] == 27_999


@pytest.mark.parametrize("name", ["charge_w_max", "charge_ma_max"])
def test_a_limit_left_out_of_the_site_lets_nothing_pass(name: str) -> None:
    assert Gate({**LIMITS, name: 0}).envelope(**GOOD)[0] == 0


@pytest.mark.parametrize(
    ("name", "sides"),
    [("soc_cpct", (0, 0)), ("pack_mv", (0, 0)), ("charge_ma_max", (0, 28_000)), ("discharge_ma_max", (-30_000, 0))],
)
def test_an_unknown_input_is_zero_for_its_direction(name: str, sides: tuple[int, int]) -> None:
    assert Gate(LIMITS).envelope(**without(name))[:2] == sides


@pytest.mark.parametrize(
    ("name", "sides"),
    [("temp_max_ddegc", (0, 0)), ("temp_min_ddegc", (0, 0)), ("ess_w", (0, 0)), ("cell_mv_max", (0, 28_000)),
     ("cell_mv_min", (-30_000, 0)), ("charge_w_max", (0, 28_000)), ("discharge_w_max", (-30_000, 0))],
)  # fmt: skip
def test_a_promised_input_that_is_missing_is_zero_for_its_direction(name: str, sides: tuple[int, int]) -> None:
    lo, hi, bits = Gate(LIMITS).envelope(**without(name), required=VALID[name])
    assert (lo, hi) == sides and "invalid" in names(bits)


def test_a_power_limit_stands_in_for_current_and_voltage() -> None:
    given = without("pack_mv", "charge_ma_max", "discharge_ma_max")
    assert Gate(LIMITS).envelope(**given, charge_w_max=9_000, discharge_w_max=8_000)[:2] == (-9_000, 8_000)


@pytest.mark.parametrize("soc", [-1, 10_001])
def test_a_state_of_charge_beyond_its_scale_is_not_believed(soc: int) -> None:
    wide = {**LIMITS, "soc_min_cpct": -5000, "soc_max_cpct": 20_000}
    assert Gate(wide).envelope(**{**GOOD, "soc_cpct": soc})[:2] == (0, 0)


@pytest.mark.parametrize(
    ("soc", "hi"), [(999, 0), (1000, 0), (1001, 100), (1150, 15_000), (1299, 28_000), (1300, 28_000), (9600, 28_000)]
)
def test_discharge_tapers_to_zero_at_soc_min(soc: int, hi: int) -> None:
    assert Gate(LIMITS).envelope(**{**GOOD, "soc_cpct": soc})[1] == hi


@pytest.mark.parametrize(
    ("soc", "lo"), [(9501, 0), (9500, 0), (9499, -100), (9350, -15_000), (9200, -30_000), (500, -30_000)]
)
def test_charge_tapers_to_zero_at_soc_max(soc: int, lo: int) -> None:
    assert Gate(LIMITS).envelope(**{**GOOD, "soc_cpct": soc})[0] == lo


@pytest.mark.parametrize(("temp", "lo"), [(551, 0), (550, 0), (549, -600), (525, -15_000), (500, -30_000)])
def test_power_tapers_to_zero_at_the_upper_temperature(temp: int, lo: int) -> None:
    assert Gate(LIMITS).envelope(**{**GOOD, "temp_max_ddegc": temp})[0] == lo


@pytest.mark.parametrize(("temp", "lo"), [(-1, 0), (0, 0), (1, -600), (25, -15_000), (50, -30_000)])
def test_power_tapers_to_zero_at_the_lower_temperature(temp: int, lo: int) -> None:
    assert Gate(LIMITS).envelope(**{**GOOD, "temp_min_ddegc": temp})[0] == lo


@pytest.mark.parametrize(("cell", "lo"), [(3601, 0), (3600, 0), (3599, -600), (3575, -15_000), (3550, -30_000)])
def test_charge_tapers_to_zero_at_the_highest_cell(cell: int, lo: int) -> None:
    lo_w, hi_w, _ = Gate(LIMITS).envelope(**{**GOOD, "cell_mv_max": cell})
    assert lo_w == lo and hi_w == 28_000


@pytest.mark.parametrize(("cell", "hi"), [(2799, 0), (2800, 0), (2801, 600), (2825, 15_000), (2850, 28_000)])
def test_discharge_tapers_to_zero_at_the_lowest_cell(cell: int, hi: int) -> None:
    lo_w, hi_w, _ = Gate(LIMITS).envelope(**{**GOOD, "cell_mv_min": cell})
    assert hi_w == hi and lo_w == -30_000


def test_a_cell_limit_of_zero_is_not_checked() -> None:
    loose = {**LIMITS, "cell_mv_min": 0, "cell_mv_max": 0}
    assert Gate(loose).envelope(**{**GOOD, "cell_mv_max": 9000, "cell_mv_min": 1})[:2] == (-30_000, 28_000)


def test_a_taper_of_zero_is_a_step() -> None:
    gate = Gate({**LIMITS, "soc_taper_cpct": 0})
    assert gate.envelope(**{**GOOD, "soc_cpct": 1001})[1] == 28_000
    assert gate.envelope(**{**GOOD, "soc_cpct": 1000})[1] == 0


def test_enable_bits_take_their_direction_away() -> None:
    assert Gate(LIMITS).envelope(**GOOD, charge_ok=0)[:2] == (0, 28_000)
    assert Gate(LIMITS).envelope(**GOOD, discharge_ok=0)[:2] == (-30_000, 0)


@pytest.mark.parametrize("name", ["charge_ma_max", "discharge_ma_max", "pack_mv"])
def test_a_negative_limit_is_zero(name: str) -> None:
    lo, hi, _ = Gate(LIMITS).envelope(**{**GOOD, name: -5000})
    assert (lo == 0 or name == "discharge_ma_max") and (hi == 0 or name == "charge_ma_max")


def test_limits_contradicting_each_other_leave_zero() -> None:
    upside_down = {**LIMITS, "soc_min_cpct": 6000, "soc_max_cpct": 4000}
    assert Gate(upside_down).envelope(**GOOD)[:2] == (0, 0)


def test_the_largest_numbers_do_not_overflow() -> None:
    most = 2**31 - 1
    wide = {key: most for key in LIMITS} | {"soc_min_cpct": -most - 1, "temp_min_ddegc": -most - 1, "cell_mv_min": 0}
    given = {key: most for key in GOOD} | {"soc_cpct": 10_000}
    lo, hi, _ = Gate(wide).envelope(**given)
    assert -most <= lo <= 0 <= hi <= most


# ---------------------------------------------------------------- setpoint


def test_a_request_that_is_not_valid_is_zero() -> None:
    gate = armed()
    settled(gate)
    assert gate.step(**without("request_w"))["setpoint_w"] == 0


def test_the_setpoint_is_the_request_inside_the_envelope() -> None:
    gate = armed()
    assert settled(gate, request_w=12_345)["setpoint_w"] == 12_345
    assert settled(gate, request_w=99_999)["setpoint_w"] == 28_000
    assert settled(gate, request_w=-99_999)["setpoint_w"] == -30_000


def test_away_from_zero_the_ramp_holds() -> None:
    gate = armed()
    assert [gate.step(**GOOD)["setpoint_w"] for _ in range(3)] == [60, 120, 180]


def test_a_slow_ramp_does_not_round_to_nothing() -> None:
    gate = armed({"ramp_go_w_per_s": 100})  # 0.1 W a cycle
    assert [gate.step(**GOOD)["setpoint_w"] for _ in range(20)][-1] == 2


def test_towards_zero_is_never_slowed() -> None:
    gate = armed()
    settled(gate)
    assert gate.step(**{**GOOD, "request_w": 1})["setpoint_w"] == 1


@pytest.mark.parametrize("side", [1, -1])
def test_a_change_of_side_starts_at_zero(side: int) -> None:
    gate = armed()
    settled(gate, request_w=20_000 * side)
    assert gate.step(**{**GOOD, "request_w": -20_000 * side})["setpoint_w"] == -60 * side


def test_the_ramp_is_clamped_by_the_envelope_after_it() -> None:
    gate = armed()
    settled(gate)
    assert gate.step(**{**GOOD, "discharge_ma_max": 1000})["setpoint_w"] == 700
    assert gate.step(**GOOD)["setpoint_w"] == 760  # and goes on from there


def test_a_ramp_of_zero_lets_nothing_rise() -> None:
    assert settled(armed({"ramp_go_w_per_s": 0}))["setpoint_w"] == 0


def test_a_long_pause_is_worth_no_more_than_100_ms_of_ramp() -> None:
    gate = armed()
    assert gate.step(**{**GOOD, "dt_us": 1_000_000})["setpoint_w"] == 6000


@pytest.mark.parametrize("dt_us", [0, -1, -(2**31)])
def test_time_that_does_not_run_lets_nothing_rise(dt_us: int) -> None:
    assert armed().step(**{**GOOD, "dt_us": dt_us})["setpoint_w"] == 0


# ---------------------------------------------------------------- the way in


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e308, 2.0e9 + 1, -2.0e9 - 1])
def test_a_request_that_is_no_power_is_not_valid(value: float) -> None:
    assert request(value) == (0, False)


@pytest.mark.parametrize(
    ("value", "watts"), [(-0.0, 0), (0.9, 0), (-0.9, 0), (1.0, 1), (-1.5, -1), (2e9, 2_000_000_000)]
)
def test_a_request_is_rounded_towards_zero(value: float, watts: int) -> None:
    assert request(value) == (watts, True)


def test_the_python_view_refuses_names_it_does_not_know() -> None:
    with pytest.raises(KeyError, match="charge_kw_max"):
        Gate({"charge_kw_max": 1})
    with pytest.raises(KeyError, match="soc_pct"):
        Gate(LIMITS).step(soc_pct=1)
    with pytest.raises(IndexError, match=str(FAULT_ROWS)):
        Gate(LIMITS, {FAULT_ROWS: {"reaction": 1}})
