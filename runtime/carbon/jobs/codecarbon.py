"""Runs that CodeCarbon measured: its emissions.csv, one line a run, energy in kWh, the time of its end.

Its carbon is not taken over: it is the software's energy, which only says how the metered energy is shared.
"""

from collections.abc import Mapping
from datetime import datetime

from tidegate.runtime.carbon.factors.series import FactorError, parse_time
from tidegate.runtime.carbon.integers import to_whole
from tidegate.runtime.carbon.jobs.work import JobError, Work
from tidegate.runtime.carbon.tables import number_of, table_of

NEEDED = ("timestamp", "project_name", "run_id", "duration", "energy_consumed")
KWH_MAX = 10**9


def read_codecarbon(raw: bytes, name: str, nodes: Mapping[str, str] | None = None) -> tuple[list[Work], list[str]]:
    """(works, runs set aside). nodes : host -> load; the column `host` is read where somebody added one.

    CodeCarbon writes local times without an offset, which could mean several moments; such a run is refused with the
    remedy. Raises JobError by line.
    """
    works: list[Work] = []
    for line, row in table_of(raw, name, JobError, columns=NEEDED)[1]:
        where = f"{name}, line {line}"
        written = row["timestamp"].strip()
        try:
            end = parse_time(written, where)
        except FactorError as error:
            local = _is_time(written)
            remedy = "; CodeCarbon writes local time: append the offset, like +01:00, to the column timestamp"
            raise JobError(f"{error}{remedy if local else ''}") from None
        seconds = to_whole(number_of(row["duration"], f"{where}, duration", JobError), 1)
        energy = number_of(row["energy_consumed"], f"{where}, energy_consumed", JobError)
        if not 0 <= energy <= KWH_MAX:
            raise JobError(f"{where}: energy_consumed of {row['energy_consumed'][:30]} kWh cannot be")
        load = (nodes or {}).get(row.get("host", "").strip(), "")
        run = f"{row['project_name'].strip()}/{row['run_id'].strip()}"
        milliwh = to_whole(energy, 1_000_000)
        works.append(Work(run, end - seconds, end, row["project_name"].strip(), load, 1, milliwh, None, {"job": 1000},
                          where))  # fmt: skip
    return works, []


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
