"""The gate's rules for any input, with shrinking; gate_volume.c has them in volume."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ext.safety.gate_cases import GOOD, LIMITS, armed
from tidegate.ext.safety.gate import FAULT_ROWS, VALID, Gate

INT32 = st.integers(-(2**31), 2**31 - 1)
LIMIT_SETS = st.fixed_dictionaries({name: INT32 | st.just(value) for name, value in LIMITS.items()})
INPUTS = st.fixed_dictionaries({name: INT32 | st.just(value) for name, value in GOOD.items()})


@given(LIMIT_SETS, INPUTS, st.integers(0, 0xFFF), st.integers(0, 0xFFF))
def test_zero_is_in_the_envelope_whatever_comes(
    limits: dict[str, int], inputs: dict[str, int], valid: int, required: int
) -> None:
    lo, hi, _ = Gate(limits).envelope(**inputs, valid=valid, required=required)
    assert -max(limits["charge_w_max"], 0) <= lo <= 0 <= hi <= max(limits["discharge_w_max"], 0)


@given(INPUTS, st.sampled_from(sorted(VALID)), st.integers(0, 0xFFF))
def test_an_input_that_becomes_unknown_never_gives_power(inputs: dict[str, int], name: str, required: int) -> None:
    required |= VALID[name]
    lo, hi, _ = Gate(LIMITS).envelope(**inputs, valid=0xFFF, required=required)
    lost_lo, lost_hi, _ = Gate(LIMITS).envelope(**inputs, valid=0xFFF & ~VALID[name], required=required)
    assert lo <= lost_lo and lost_hi <= hi


@given(
    INPUTS,
    st.sampled_from(
        ["charge_w_max", "discharge_w_max", "charge_ma_max", "discharge_ma_max", "soc_max_cpct", "temp_max_ddegc"]
    ),
    st.integers(0, 2**31 - 1),
)
def test_a_tighter_limit_never_gives_power(inputs: dict[str, int], name: str, less: int) -> None:
    lo, hi, _ = Gate(LIMITS).envelope(**inputs)
    tight_lo, tight_hi, _ = Gate({**LIMITS, name: LIMITS[name] - less}).envelope(**inputs)
    assert lo <= tight_lo and tight_hi <= hi


@given(st.lists(st.tuples(INT32, st.integers(1, 1_000_000)), min_size=1, max_size=30))
def test_power_grows_by_the_ramp_and_falls_at_once(steps: list[tuple[int, int]]) -> None:
    gate, last = armed(), 0
    for request_w, dt_us in steps:
        gate.step(**{**GOOD, "request_w": request_w, "dt_us": dt_us})
        now, most = gate.setpoint_mw, LIMITS["ramp_go_w_per_s"] * min(dt_us, 100_000) // 1000
        assert min(last, 0) - most <= now <= max(last, 0) + most
        if abs(request_w * 1000) <= abs(last) and request_w * last >= 0:
            assert now == request_w * 1000
        last = now


@given(st.lists(st.integers(0, 2**FAULT_ROWS - 1), min_size=1, max_size=20))
def test_the_same_inputs_give_the_same_bytes(faults: list[int]) -> None:
    rows = {
        number: {"reaction": number % 7, "latched": number % 3 == 0, "clear_ms": number} for number in range(FAULT_ROWS)
    }
    one, two = Gate(LIMITS, rows), Gate(LIMITS, rows)
    for mask in faults:
        assert one.step(**GOOD, faults=mask) == two.step(**GOOD, faults=mask)
    assert one.state_bytes == two.state_bytes


@settings(max_examples=50)
@given(st.permutations(range(FAULT_ROWS)), st.integers(0, 2**FAULT_ROWS - 1))
def test_the_reaction_does_not_depend_on_the_order_of_rows(order: list[int], mask: int) -> None:
    plain = Gate(LIMITS, {number: {"reaction": number % 7, "derate_permille": 500} for number in range(FAULT_ROWS)})
    mixed = Gate(
        LIMITS, {order[number]: {"reaction": number % 7, "derate_permille": 500} for number in range(FAULT_ROWS)}
    )
    moved = sum(1 << order[number] for number in range(FAULT_ROWS) if mask >> number & 1)
    one, two = plain.step(**GOOD, faults=mask), mixed.step(**GOOD, faults=moved)
    told = ("setpoint_w", "envelope_lo_w", "envelope_hi_w", "reaction", "heartbeat_ok", "tripped")
    assert [one[name] for name in told] == [two[name] for name in told]


@given(INPUTS)
def test_the_two_directions_mirror_each_other(inputs: dict[str, int]) -> None:
    """Currents, powers and the window swapped about its middle: the envelope swaps its ends."""
    limits = {**LIMITS, "cell_mv_min": 0, "cell_mv_max": 0, "soc_min_cpct": 1000, "soc_max_cpct": 9000}
    swapped = {**inputs, "charge_ma_max": inputs["discharge_ma_max"], "discharge_ma_max": inputs["charge_ma_max"]}
    swapped["soc_cpct"] = 10_000 - inputs["soc_cpct"] if -(2**30) < inputs["soc_cpct"] < 2**30 else inputs["soc_cpct"]
    lo, hi, _ = Gate(limits).envelope(**inputs)
    other_lo, other_hi, _ = Gate(limits).envelope(**swapped)
    assert (lo, hi) == (-other_hi, -other_lo)
