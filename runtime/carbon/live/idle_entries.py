"""What rested, day by day into the ledger, so that a report has it: an hour after a UTC day is over, once."""

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from tidegate.runtime.carbon.jobs.settle import DAY_S
from tidegate.runtime.carbon.ledger.ledger import Ledger
from tidegate.runtime.carbon.live.idle_energy import Assumptions, HourlyFactors, IdleRow, find_idle
from tidegate.runtime.telemetry.energy_store import opened

LATE_S = 3600
ROWS_MAX = 100
NAMED_MAX = 50


class IdleEntries:
    """Writes the days that are due. folder : of telemetry's store; loads : IT loads of the account."""

    def __init__(self, ledger: Ledger, folder: Path, loads: Sequence[str]) -> None:
        self._ledger, self._folder, self._loads = ledger, folder, sorted(loads)
        stored = ledger.state("idle")
        self._next_day: int | None = json.loads(stored)["next_day"] if stored is not None else None
        self._looked_until = 0
        self.trouble = ""

    def step(self, closed_until_utc_s: int) -> int:
        """Write what is due. closed_until_utc_s : every period before it is in the ledger. -> days. Raises LedgerError.

        A store that cannot be read is `trouble`, and its day is tried again.
        """
        until = (closed_until_utc_s - LATE_S) // DAY_S * DAY_S
        if until <= self._looked_until or (self._next_day is not None and self._next_day >= until):
            return 0
        done = 0
        try:
            store = opened(self._folder)
            if store is None:
                self._looked_until = until
                return 0
            try:
                first = store.first_bucket()
                if first is None:
                    return 0
                begin = max(self._next_day or 0, first // DAY_S * DAY_S)
                for day in range(begin, until, DAY_S):
                    bodies = [entry.body for entry in self._ledger.in_force("period", day, day + DAY_S)]
                    assumed = Assumptions()
                    found = find_idle(store, HourlyFactors(bodies, self._loads), day, day + DAY_S, assumed)
                    body: dict[str, object] = {
                        "v": 1, "start_utc_s": day, "rows": [_record(row) for row in found.rows[:ROWS_MAX]],
                        "row_count": len(found.rows), "not_judged": found.not_judged[:NAMED_MAX],
                        "not_judged_count": len(found.not_judged), "problems": found.problems,
                        "assumptions": assumed.texts(),
                    }  # fmt: skip
                    self._next_day = day + DAY_S
                    self._ledger.append([("idle", day, body)], {"idle": json.dumps({"next_day": self._next_day})})
                    done += 1
            finally:
                store.close()
            self._looked_until, self.trouble = until, ""
        except sqlite3.Error as why:
            self.trouble = f"telemetry cannot be read: {why}"
        return done


def _record(row: IdleRow) -> dict[str, object]:
    return {
        "level": row.level, "name": row.name, "node": row.node, "rack": row.rack, "energy_milliwh": row.milliwh,
        "unused_milliwh": row.unused_milliwh, "ug": row.ug, "cost_u": row.cost_u, "without_ug_milliwh":
        row.unknown_milliwh, "saving_milliwh": row.saving_milliwh, "saving_ug": row.saving_ug,
        "saving_cost_u": row.saving_cost_u,
        "hours": [[hour, milliwh] for hour, milliwh in sorted(row.by_hour.items())],
    }  # fmt: skip
