"""A unit as the tests of the gate know it: limits, and inputs with everything good."""

from tidegate.ext.safety.gate import Gate

LIMITS = {
    "charge_w_max": 30_000,
    "discharge_w_max": 30_000,
    "charge_ma_max": 100_000,
    "discharge_ma_max": 100_000,
    "soc_min_cpct": 1000,
    "soc_max_cpct": 9500,
    "soc_taper_cpct": 300,
    "temp_min_ddegc": 0,
    "temp_max_ddegc": 550,
    "temp_taper_ddegc": 50,
    "cell_mv_min": 2800,
    "cell_mv_max": 3600,
    "cell_taper_mv": 50,
    "ramp_go_w_per_s": 60_000,
    "ramp_stop_w_per_s": 1_500_000,
}

GOOD = {
    "request_w": 20_000,
    "soc_cpct": 5000,
    "pack_mv": 700_000,
    "charge_ma_max": 50_000,
    "discharge_ma_max": 40_000,
    "temp_max_ddegc": 250,
    "temp_min_ddegc": 200,
    "cell_mv_max": 3350,
    "cell_mv_min": 3300,
    "ess_w": 0,
}

REACTION = {
    name: number for number, name in enumerate(("none", "warn", "derate", "ramp_zero", "zero", "silent", "open"))
}


def without(*names: str) -> dict[str, int]:
    """GOOD without some readings."""
    return {key: value for key, value in GOOD.items() if key not in names}


def armed(limits: dict[str, int] | None = None, faults: dict[int, dict[str, int]] | None = None) -> Gate:
    """A gate that has been armed at request 0."""
    gate = Gate({**LIMITS, **(limits or {})}, faults)
    gate.step(**{**GOOD, "request_w": 0}, arm=1)
    gate.step(**{**GOOD, "request_w": 0})
    assert not gate.tripped
    return gate


def settled(gate: Gate, **given: int) -> dict[str, int]:
    """The verdict after the ramp has had 10 s in cycles of 100 ms."""
    for _ in range(100):
        verdict = gate.step(**{**GOOD, "dt_us": 100_000, **given})
    return verdict
