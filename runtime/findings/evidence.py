"""Facts about alarms: which faults hold, which wait, their rows of the table; and what a finding is."""

from collections.abc import Iterable
from dataclasses import dataclass

from tidegate.hal.description import Fault
from tidegate.runtime.findings.site_state import Plant

METER_ROWS = ("meter_never", "meter_stale", "meter_invalid", "meter_stuck", "pv_lost")
PCS_ROWS = ("pcs_never", "pcs_stale", "pcs_lost", "pcs_invalid")
BMS_ROWS = ("bms_never", "bms_stale", "bms_silent", "bms_invalid")


@dataclass(frozen=True)
class Finding:
    """One cause. weight: the larger, the sooner to look at. faults: rows of the fault table that it explains."""

    weight: int
    title: str
    because: str
    remedy: str
    faults: frozenset[str] = frozenset()


def active_faults(plant: Plant) -> list[tuple[str, str]]:
    """(unit, fault id) of what is present now."""
    return _split(plant.now.why.faults)


def latched_faults(plant: Plant) -> list[tuple[str, str]]:
    """(unit, fault id) of what waits for an acknowledgement."""
    return _split(plant.now.why.latches)


def _split(rows: Iterable[str]) -> list[tuple[str, str]]:
    return [(unit, fault) for unit, _, fault in (row.partition(" ") for row in rows)]


def fault_row(plant: Plant, fault: str) -> Fault | None:
    """The row of the fault table, None when it is not known."""
    return next((row for row in plant.description.faults if row.id == fault), None)


def present(plant: Plant, *faults: str) -> frozenset[str]:
    """Those of the faults that hold or are latched."""
    seen = {fault for _, fault in (*active_faults(plant), *latched_faults(plant))}
    return frozenset(seen & set(faults))
