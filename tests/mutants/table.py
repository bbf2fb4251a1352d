"""Every number of config/faults.toml a little or much off, one at a time, and the tests of its row as judges."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from tests.ext.cycle import test_selftest
from tests.ext.safety import fault_rig, mode_rig, test_diagnosis, test_scenarios, test_witness
from tidegate.config import faults
from tidegate.config.faults import FaultRow

NUMBERS = ("threshold", "floor", "debounce_ms", "debounce_ms_max", "derate_permille", "clear_ms", "flap_max")
# A step for a number that is 0, or that counts things, by its unit.
STEP = {"K": 0.5, "V": 0.01, "frames": 1.0}


def _meter_phases() -> None:
    test_diagnosis.test_a_meter_that_lies_stops_a_unit_that_moves(5.0, "meter_phases", "run")


OWN: dict[str, Callable[..., None]] = {
    "soc_jump": test_diagnosis.test_a_jump_of_the_state_of_charge_derates_for_ten_seconds,
    "soc_drift": test_diagnosis.test_a_state_of_charge_that_parts_from_counted_energy_is_told,
    "loop_pause": test_diagnosis.test_a_pause_of_the_controller_sends_to_zero,
    "request_invalid": test_diagnosis.test_a_request_that_is_no_number_is_told,
    "memory_changed": test_selftest.test_a_row_of_the_self_tests_acts_at_once_and_is_over_in_its_time,
    "flow_broken": test_selftest.test_a_row_of_the_self_tests_acts_at_once_and_is_over_in_its_time,
    "clock_apart": test_selftest.test_clocks_are_apart_by_a_tenth_of_a_second_and_latch_at_the_third_time,
    "meter_phases": _meter_phases,
    "latches_lost": test_diagnosis.test_latches_that_nobody_can_read_hold_the_unit_until_acknowledged,
}
WITNESS: dict[str, tuple[Callable[..., None], ...]] = {
    "bms_stuck": (
        test_witness.test_readings_that_all_stand_while_the_power_moves_are_stuck_after_fifteen_seconds_if_they_come,
        test_witness.test_a_state_of_charge_that_stands_is_stuck_after_four_hundredths_of_the_energy,
        test_witness.test_readings_that_stand_for_the_third_time_stay_told_until_acknowledged,
    ),
    "pcs_power_apart": (
        test_witness.test_powers_that_differ_by_sign_or_size_are_apart,
        test_witness.test_a_small_converter_may_be_half_a_kilowatt_apart,
    ),
    "pcs_opposed": (
        test_witness.test_a_battery_that_moves_against_the_step_is_opposed_and_one_that_moves_with_it_or_not_at_all_is_not,
    ),
}
BY_CASE = (
    test_diagnosis.test_a_row_acts_in_its_time_with_its_reaction,
    test_diagnosis.test_a_row_stays_away_just_short_of_its_edge,
    test_diagnosis.test_a_row_clears_in_its_time,
    test_diagnosis.test_a_latched_row_trips_until_acknowledged_and_armed,
    test_diagnosis.test_a_flapping_row_latches_at_its_number,
)
LEVELS = test_diagnosis.test_a_level_is_over_only_beyond_its_hysteresis
IN_MODES = (
    test_scenarios.test_a_row_acts_and_clears_in_its_time_in_every_mode,
    test_scenarios.test_a_row_stays_away_just_short_of_its_edge_in_every_mode,
    test_scenarios.test_a_condition_one_cycle_short_of_its_time_does_nothing_in_every_mode,
)
MODE = "discharging"


@dataclass(frozen=True)
class TableMutant:
    row: str
    key: str
    was: float
    now: float

    def __str__(self) -> str:
        return f"{self.row}.{self.key}: {self.was:g} -> {self.now:g}"

    name = property(__str__)


def others(row: FaultRow, key: str, value: float) -> list[float]:
    """One step less and more, half and double; what a slip of the pen makes of a number."""
    if key in ("threshold", "floor"):
        unit = str(row.unit if key == "threshold" else row.floor_unit)
        step = STEP[unit] if value == 0 or unit == "frames" else 0.2 * abs(value)
        found = [value - step, value + step, value / 2, value * 2]
    else:
        found = [value - 1, value + 1, value // 2, value * 2]
    return [other for n, other in enumerate(found) if other != value and other not in found[:n]]


@cache
def mutants() -> list[TableMutant]:
    found = []
    for row, key in itertools.product(faults.default_table(), NUMBERS):
        value = getattr(row, key)
        if key in row.model_fields_set and value is not None:
            found += [TableMutant(row.id, key, value, other) for other in others(row, key, value)]
    return found


def arguments(test: Callable[..., None]) -> Iterator[dict[str, Any]]:
    """The arguments of each case of a parametrized test."""
    columns = []
    for mark in getattr(test, "pytestmark", []):
        if mark.name == "parametrize":
            names = [mark.args[0]] if isinstance(mark.args[0], str) else list(mark.args[0])
            rows = [row if len(names) > 1 else (row,) for row in mark.args[1]]
            columns.append([dict(zip(names, row, strict=True)) for row in rows])
    for chosen in itertools.product(*columns):
        yield {name: value for part in chosen for name, value in part.items()}


def judges(row: str) -> Iterator[tuple[Callable[..., None], dict[str, Any]]]:
    """The tests that are about a row, the quick ones first."""
    for test in (
        test_diagnosis.test_no_row_may_be_slower_than_its_hazard_allows,
        test_diagnosis.test_the_times_of_a_row_are_those_that_its_cases_expect,
    ):
        yield test, {"ident": row}
    for test in BY_CASE:
        yield from ((test, given) for given in arguments(test) if given["case"].id == row)
    yield from ((LEVELS, given) for given in arguments(LEVELS) if given["ident"] == row)
    for test in WITNESS.get(row, ()):
        yield from ((test, given) for given in arguments(test))
    if row in OWN:
        yield from ((OWN[row], given) for given in arguments(OWN[row]))
    for test in IN_MODES:
        yield from ((test, given) for given in arguments(test) if given["case"].id == row and given["mode"] == MODE)


def failing(row: str) -> str:
    """The first of the row's tests that fails with the table as it is now, "" if none does."""
    for test, given in judges(row):
        try:
            test(**given)
        except (AssertionError, ValueError, KeyError) as error:
            return f"{test.__name__}: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    return ""


def noticed(mutant: TableMutant) -> str:
    """What notices the mutant, "" if nothing does."""
    plain = faults.default_table
    rows, problems = [], []
    for row in plain():
        if row.id == mutant.row:
            whole = isinstance(getattr(row, mutant.key), int)
            changed = {**row.model_dump(exclude_unset=True), mutant.key: int(mutant.now) if whole else mutant.now}
            try:
                row = FaultRow(**changed)
            except ValueError as error:
                return f"refused by the loader: {str(error).splitlines()[0]}"
            problems = row.problems()
        rows.append(row)
    if problems:
        return f"refused by the loader: {problems[0]}"
    try:
        faults.default_table = lambda: tuple(rows)  # type: ignore[assignment]
        forget()
        return failing(mutant.row)
    finally:
        faults.default_table = plain
        forget()


def forget() -> None:
    """The rigs compile their site once; with another table, anew."""
    fault_rig.site.cache_clear()
    mode_rig.site.cache_clear()
