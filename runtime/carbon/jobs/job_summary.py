"""What a span's settlements add up to: carbon per unit of work, by owner, idle energy, coverage, SCI."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from tidegate.runtime.carbon.factors.series import iso
from tidegate.runtime.carbon.integers import exact_kwh
from tidegate.runtime.carbon.ledger.bodies import MethodBody, NoteBody, SettlementBody

TOP = 20
ASIDE = 50
HOUR_S = 3600

JOB_COLUMNS = ("day_utc_s", "job", "owner", "node", "start_utc_s", "end_utc_s", "energy_kwh", "carbon_ug",
               "software_kwh", "slot_s", "units_milli")  # fmt: skip
IDLE_COLUMNS = ("hour_utc_s", "node", "energy_kwh", "carbon_ug", "cost_u")


CsvRow = tuple[str | int | None, ...]


class Compute:
    """Takes settlements one by one; keeps sums, never the rows."""

    def __init__(self) -> None:
        self.days = 0
        self.last_seq = -1
        self._by_job: Counter[str] = Counter()
        self._job_milliwh: Counter[str] = Counter()
        self._owner_milliwh: Counter[str] = Counter()
        self._owner_ug: Counter[str] = Counter()
        self._units: dict[str, list[int]] = {}  # amount in thousandths, mWh, ug, slot seconds
        self._nodes: dict[str, Counter[str]] = {}
        self._idle_hours: dict[str, list[int]] = {}
        self._idle_cost_u = 0
        self._unplaced: dict[str, list[int]] = {}  # job -> mWh, ug
        self._metered_milliwh = 0
        self._basis: Counter[str] = Counter()
        self._sources: dict[str, str] = {}
        self._aside: dict[str, None] = {}
        self._aside_count = 0
        self._reconciled: dict[str, None] = {}
        self.aside_entries: set[int] = set()  # notes that hold what was set aside for many days at once

    def add(self, body: SettlementBody, seq: int) -> None:
        self.days += 1
        self.last_seq = max(self.last_seq, seq)
        for name, node in body["nodes"].items():
            row = self._nodes.setdefault(name, Counter())
            row["metered_milliwh"] += node["metered_milliwh"]
            row["unplaced_milliwh"] += node.get("unplaced_milliwh", 0)
            self._metered_milliwh += node["metered_milliwh"]
            row["idle_milliwh"] += node["idle_milliwh"]
            row["idle_ug"] += node["idle_ug"]
            if node["software_milliwh"] is not None:
                row["software_milliwh"] += node["software_milliwh"]
                row["covered_milliwh"] += node["metered_milliwh"] - node["idle_milliwh"]
            self._basis[node["basis"]] += 1
        for job, owner, _, _, _, milliwh, ug, _, slot_s, units in body["jobs"]:
            self._by_job[job] += ug
            self._job_milliwh[job] += milliwh
            self._owner_milliwh[owner] += milliwh
            self._owner_ug[owner] += ug
            for name, amount in units.items():
                row_ = self._units.setdefault(name, [0, 0, 0, 0])
                row_[0] += amount
                row_[1] += milliwh
                row_[2] += ug
                row_[3] += slot_s
        for job, _, _, _, _, milliwh, ug, _, _, _ in body.get("unplaced", ()):
            row_ = self._unplaced.setdefault(job, [0, 0])
            row_[0] += milliwh
            row_[1] += ug
        for hour, node_name, milliwh, _, cost in body["idle"]:
            self._idle_hours.setdefault(node_name, [0] * 24)[hour // HOUR_S % 24] += milliwh
            self._idle_cost_u += cost
        for source in body["sources"]:
            self._sources[source["name"]] = source["sha256"]
        for text in body["set_aside"]:
            self._aside[text] = None
        self._aside_count = max(self._aside_count, body["set_aside_count"], len(self._aside))
        self._reconciled |= dict.fromkeys(f"{iso(body['start_utc_s'])}: {text}" for text in body.get("reconciled", ()))
        if "aside_entry" in body:
            self.aside_entries.add(body["aside_entry"])

    def noted(self, body: NoteBody) -> None:
        """Take in a note of what was set aside."""
        for text in body["set_aside"]:
            self._aside[text] = None
        self._aside_count = max(self._aside_count, body["set_aside_count"], len(self._aside))

    def document(self, site_ug: int, it_ug: int, method: MethodBody) -> dict[str, Any]:
        """The report's part. site_ug over it_ug is how much carbon the room adds to that of its IT load."""
        over, under = (site_ug, it_ug) if it_ug else (1, 1)
        embodied = method.get("embodied")
        units = {}
        for name, (amount, milliwh, ug, slot_s) in sorted(self._units.items()):
            whole_ug = ug * over // under
            made_ug = None
            if embodied:
                made_ug = embodied["ug"] * slot_s // (embodied["life_s"] * embodied["slots"])
            units[name] = {
                "amount_milli": amount,
                "energy_milliwh": milliwh,
                "ug": ug,
                "ug_with_room": whole_ug,
                "embodied_ug": made_ug,
                "g_per_unit": _per(ug, amount),
                "g_per_unit_with_room": _per(whole_ug, amount),
                "sci_g_per_unit": None if made_ug is None else _per(whole_ug + made_ug, amount),
            }
        nodes = {}
        for name, row in sorted(self._nodes.items()):
            covered = row["covered_milliwh"]
            nodes[name] = {
                "metered_milliwh": row["metered_milliwh"],
                "idle_milliwh": row["idle_milliwh"],
                "idle_ug": row["idle_ug"],
                "unplaced_milliwh": row["unplaced_milliwh"],
                "software_milliwh": row["software_milliwh"] if covered else None,
                "coverage": f"{row['software_milliwh'] / covered:.4f}" if covered else None,
                "idle_by_hour_utc_milliwh": self._idle_hours.get(name, [0] * 24),
            }
        return {
            "days": self.days,
            "jobs": len(self._by_job),
            "jobs_milliwh": sum(self._job_milliwh.values()),
            "jobs_ug": sum(self._by_job.values()),
            "idle_milliwh": sum(row["idle_milliwh"] for row in self._nodes.values()),
            "idle_ug": sum(row["idle_ug"] for row in self._nodes.values()),
            "idle_cost_u": self._idle_cost_u,
            "metered_milliwh": self._metered_milliwh,
            "unplaced_milliwh": sum(row[0] for row in self._unplaced.values()),
            "unplaced_ug": sum(row[1] for row in self._unplaced.values()),
            "unplaced_jobs": len(self._unplaced),
            "unplaced": [
                [job, milliwh, ug]
                for job, (milliwh, ug) in sorted(self._unplaced.items(), key=lambda row: (-row[1][0], row[0]))[:TOP]
            ],
            "reconciled": list(self._reconciled)[:ASIDE],
            "reconciled_count": len(self._reconciled),
            "currency": method.get("currency", "EUR"),
            "basis": dict(sorted(self._basis.items())),
            "nodes": nodes,
            "units": units,
            "owners": {
                o: {"energy_milliwh": self._owner_milliwh[o], "ug": ug} for o, ug in sorted(self._owner_ug.items())
            },
            "top": [
                [job, self._job_milliwh[job], ug]
                for job, ug in sorted(self._by_job.items(), key=lambda row: (-row[1], row[0]))[:TOP]
            ],
            "sources": [{"name": name, "sha256": digest} for name, digest in sorted(self._sources.items())],
            "set_aside": list(self._aside)[:ASIDE],
            "set_aside_count": self._aside_count,
            "note": "Metered energy is the whole; software energy or reserved time gives the shares only. With room: "
            "times the carbon of the whole site over that of its IT load. SCI as ISO/IEC 21031 has it needs "
            "embodied_kg and slots in the site file.",
        }


def job_rows(body: SettlementBody) -> Iterator[CsvRow]:
    """CSV rows of a settlement's jobs."""
    day = body["start_utc_s"]
    rows = [*body["jobs"], *((*row[:2], f"unplaced: {row[2]}", *row[3:]) for row in body.get("unplaced", ()))]
    for job, owner, node, start, end, milliwh, ug, software, slot_s, units in rows:
        yield (day, job, owner, node, start, end, exact_kwh(milliwh), ug,
               None if software is None else exact_kwh(software), slot_s,
               " ".join(f"{name}={amount}" for name, amount in units.items()))  # fmt: skip


def idle_rows(body: SettlementBody) -> Iterator[CsvRow]:
    """CSV rows of a settlement's idle hours."""
    for hour, node, milliwh, ug, cost_u in body["idle"]:
        yield hour, node, exact_kwh(milliwh), ug, cost_u


def _per(ug: int, amount_milli: int) -> str | None:
    """Grams per unit."""
    return f"{ug / 1e3 / amount_milli:.6f}" if amount_milli else None
