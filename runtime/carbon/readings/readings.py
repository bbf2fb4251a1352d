"""Register readings that come by file: water, reused heat, and energy of meters that are on no bus.

They go into the ledger as they were read, with their source; what they mean for a quarter hour is worked out when it
is asked for, by the same rules as for a meter on the bus (validation, estimation, editing).
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tidegate.runtime.carbon.factors.series import FactorError, iso, parse_time
from tidegate.runtime.carbon.integers import to_whole
from tidegate.runtime.carbon.ledger.bodies import ReadingBody, ReadingSource
from tidegate.runtime.carbon.ledger.ledger import Ledger
from tidegate.runtime.carbon.tables import bytes_of, number_of, refusing, table_of

ENERGY = {"Wh": 1000, "kWh": 1_000_000, "MWh": 1_000_000_000}  # mWh
VOLUME = {"L": 1000, "m3": 1_000_000}  # mL
# quantity -> scale of its units, name of the small unit
QUANTITIES: Mapping[str, tuple[Mapping[str, int], str]] = {
    "water": (VOLUME, "mL"),  # drawn in, all of it
    "water-potable": (VOLUME, "mL"),  # the part of it that is drinking water
    "heat-reused": (ENERGY, "mWh"),  # handed over at the boundary
    "energy-backup": (ENERGY, "mWh"),  # electricity of backup generators
    "energy-import": (ENERGY, "mWh"),  # a meter's own signed readings, beside those of the bus
    "energy-export": (ENERGY, "mWh"),
}
READING_MAX = 2**53  # of the small unit: 9 TWh
COLUMNS = ("time_utc", "meter", "quantity", "reading", "unit")


@dataclass(slots=True)
class Readings:
    """What one document says of one register. rows : (utc_s, reading, sync, state, the number as it was written)."""

    meter: str
    quantity: str
    rows: list[tuple[int, int, str, str, str]]
    source: ReadingSource

    def body(self) -> ReadingBody:
        """The body of the ledger entry."""
        return {
            "v": 1, "meter": self.meter, "quantity": self.quantity, "unit": QUANTITIES[self.quantity][1],
            "rows": list(self.rows), "source": self.source,
        }  # fmt: skip


def scaled(text: str, quantity: str, unit: str, where: str) -> int:
    """A reading in small units. Raises FactorError for a unit that the quantity does not have, text, a negative."""
    units = QUANTITIES[quantity][0]
    if unit not in units:
        raise FactorError(f"{where}: unit {unit!r} of {quantity}; use one of {', '.join(units)}")
    value = number_of(text, where, FactorError)
    if value < 0:
        raise FactorError(f"{where}: a register cannot read {text}")
    whole = to_whole(value, units[unit])
    if whole > READING_MAX:
        raise FactorError(f"{where}: {text[:40]} {unit} is more than a register counts; check the unit")
    return whole


def read_readings(path: Path, refused: list[str] | None = None) -> list[Readings]:
    """The readings of a CSV file, or of every CSV file of a folder. Raises FactorError by line.

    refused : takes the reason why a file of a folder cannot be used, and the others are read; None raises it.
    """
    if not path.is_dir():
        return _read_file(path)
    found: list[Readings] = []
    for file in sorted(path.glob("*.csv")):
        try:
            found += _read_file(file)
        except (FactorError, OSError) as error:
            if refused is None:
                raise
            refused.append(str(error))
    return found


@refusing(FactorError)
def _read_file(path: Path) -> list[Readings]:
    raw = bytes_of(path, FactorError)
    found: dict[tuple[str, str], Readings] = {}
    source: ReadingSource = {"kind": "csv", "name": path.name, "sha256": hashlib.sha256(raw).hexdigest()}
    for line, row in table_of(raw, path.name, FactorError, columns=COLUMNS)[1]:
        where = f"{path.name}, line {line}"
        meter, quantity = row["meter"].strip(), row["quantity"].strip()
        if quantity not in QUANTITIES:
            raise FactorError(f"{where}: quantity {quantity!r}, expected one of {', '.join(QUANTITIES)}")
        if not meter:
            raise FactorError(f"{where}: no meter is named")
        utc_s = parse_time(row["time_utc"], where)
        own = found.setdefault((meter, quantity), Readings(meter, quantity, [], source))
        if own.rows and utc_s <= own.rows[-1][0]:
            raise FactorError(f"{where}: {meter} was read at {iso(own.rows[-1][0])} before; times must rise")
        value = scaled(row["reading"], quantity, row["unit"].strip(), where)
        own.rows.append((utc_s, value, "I", "G", row["reading"].strip()))
    return list(found.values())


def take_in(ledger: Ledger, found: Iterable[Readings]) -> int:
    """Append what the ledger does not have yet; a reading that says something else for its time supersedes. -> rows."""
    known: dict[tuple[str, str], dict[int, tuple[int, str, str]]] = {}
    for entry in ledger.entries("reading"):
        own = known.setdefault((entry.body["meter"], entry.body["quantity"]), {})
        own.update({row[0]: (row[1], row[2], row[3]) for row in entry.body["rows"]})
    entries, count = [], 0
    for one in found:
        own = known.setdefault((one.meter, one.quantity), {})
        new = [row for row in one.rows if row[0] not in own or own[row[0]] != row[1:4]]
        if new:
            count += len(new)
            own.update({row[0]: (row[1], row[2], row[3]) for row in new})
            part = Readings(one.meter, one.quantity, new, one.source)
            entries.append(("reading", new[0][0], part.body()))
    if entries:
        ledger.append(entries)
    return count
