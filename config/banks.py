"""Several batteries side by side behind one converter: which signals they share, and where the core finds them.

What they are together is worked out in the core: for the gate in safety/gate_bank.h, for all else in estimate/bank.pyx.
"""

from collections.abc import Mapping

from tidegate.config.program_rows import Row
from tidegate.config.site import Site, Storage
from tidegate.hal.map_schema import DeviceMap
from tidegate.hal.vocabulary import signals, unit_of

LIMITS = ("charge_a_max", "discharge_a_max", "charge_w_max", "discharge_w_max")


def batteries_of(storage: Storage) -> tuple[str, ...]:
    """The BMSs of a unit, mostly one."""
    return (storage.bms, *storage.parallel)


def _members(storage: Storage, maps: Mapping[str, DeviceMap], signal: str) -> list[str]:
    return [bms for bms in batteries_of(storage) if bms in maps and signal in maps[bms].signal_names()]


def bank_signals(
    storage: Storage, maps: Mapping[str, DeviceMap], problems: list[str]
) -> list[tuple[str, str, str, list[str]]]:
    """(field of the unit's row, signal, its unit, batteries that give it) of what several batteries are as one.

    A limit that only some of them give is a problem: so many times the weakest needs it of each.
    """
    found = []
    for name, signal in signals().items():
        members = _members(storage, maps, name)
        if signal.kind != "bms" or not signal.row or not members:
            continue
        if name in LIMITS and len(members) < 1 + len(storage.parallel):
            others = ", ".join(bms for bms in batteries_of(storage) if bms not in members)
            problems.append(
                f"storage[{storage.name}].parallel: {', '.join(members)} give {name} and {others} not: so many times "
                f"the weakest needs it of each; choose maps that say the same of all"
            )
        found.append((signal.row, name, unit_of(name) or "", members))
    return [*found, ("connected", "connected_count", "count", list(batteries_of(storage)))]


def bank_rows(site: Site, maps: Mapping[str, DeviceMap]) -> list[Row]:
    """Where the core finds the signals of each of several batteries."""
    rows: list[Row] = []
    for number, storage in enumerate(site.storage):
        for bms in batteries_of(storage) if storage.parallel else ():
            row: Row = {"unit": number}
            if bms in _members(storage, maps, "contactor_ok"):
                row["connected"] = f"{bms}.contactor_ok"
            for name, signal in signals().items():
                if signal.kind == "bms" and signal.row and bms in _members(storage, maps, name):
                    row[signal.row] = f"{bms}.{name}"
            rows.append(row)
    return rows
