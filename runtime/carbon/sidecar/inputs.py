"""Files that the sidecar books with and that may change while it runs: factor tables and register readings."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tidegate.runtime.carbon.factors.files import factors_of
from tidegate.runtime.carbon.factors.series import FactorError, Factors
from tidegate.runtime.carbon.ledger.bodies import GridRow
from tidegate.runtime.carbon.ledger.ledger import Ledger
from tidegate.runtime.carbon.readings.readings import read_readings, take_in

KEYS = ("factors", "prices", "readings")

Stamp = tuple[tuple[str, int, int], ...]


def stamp_of(paths: Sequence[Path]) -> Stamp:
    """Name, size and time of every file; differs when one is added, changed or gone."""
    found = []
    for path in paths:
        try:
            files = sorted(path.iterdir()) if path.is_dir() else [path]
        except OSError:
            files = [path]
        for file in files:
            try:
                stat = file.stat()
            except OSError:
                continue
            found.append((str(file), stat.st_size, stat.st_mtime_ns))
    return tuple(found)


def grid_record(factors: Factors) -> GridRow:
    """Where the grid's factors come from, for the ledger."""
    grid = factors.grid
    return {
        "source": grid.source if grid else factors.fallback_source,
        "sha256": grid.sha256 if grid else "",
        "zone": grid.zone if grid else "",
        "notes": list(grid.notes) if grid else [],
    }


def zone_in_force(ledger: Ledger) -> str | None:
    """The zone of the grid's factors that the ledger was kept with last; None if there was none."""
    rows = [(entry.seq, entry.body.get("grid_factor")) for entry in ledger.entries("method")]
    rows += [(entry.seq, entry.body["grid"]) for entry in ledger.entries("factor")]
    known = [(seq, row["zone"]) for seq, row in rows if row is not None and row["sha256"]]
    return max(known)[1] if known else None


def usable_factors(
    settings: Mapping[str, Any], folder: Path, zone: str | None = None
) -> tuple[Factors | None, list[str]]:
    """(the factors that a site's files give, None if they give none; what cannot be used, and why)."""
    refused: list[str] = []
    try:
        return factors_of(settings, folder, refused, zone), refused
    except (FactorError, OSError) as error:
        return None, [*refused, str(error)]


class Inputs:
    """Looks at the files of a site's [carbon] and takes in what changed.

    A file that cannot be used changes nothing: what was in force stays, and `trouble` says why until it is mended.
    """

    def __init__(self, settings: Mapping[str, Any], folder: Path) -> None:
        self._settings = dict(settings)
        self._folder = folder
        self._paths = [folder / str(settings[key]) for key in KEYS if settings.get(key)]
        self._stamp: Stamp | None = None
        self.trouble: list[str] = []

    def look(self, ledger: Ledger, factors: Factors) -> Factors:
        """The factors that hold now. Appends readings that are new, and an entry where factors changed or failed."""
        stamp = stamp_of(self._paths)
        if stamp == self._stamp:
            return factors
        self._stamp = stamp
        before, self.trouble = self.trouble, []
        entries: list[tuple[str, int, Mapping[str, object]]] = []
        if self._settings.get("factors") or self._settings.get("prices"):
            found, why = usable_factors(self._settings, self._folder, factors.grid.zone if factors.grid else None)
            if found is not None and why and found.prices is None:
                found.prices = factors.prices
            self.trouble += [f"factors refused, those of before stay in force: {text}" for text in why]
            if found is not None and found != factors:
                entries.append(("factor", 0, {"v": 1, "grid": grid_record(found)}))
                factors = found
        if self._settings.get("readings"):
            refused: list[str] = []
            try:
                take_in(ledger, read_readings(self._folder / str(self._settings["readings"]), refused))
            except (FactorError, OSError) as error:
                refused.append(str(error))
            self.trouble += [f"readings refused: {text}" for text in refused]
        entries += [("note", 0, {"v": 1, "what": text}) for text in self.trouble if text not in before]
        if entries:
            ledger.append(entries)
        return factors
