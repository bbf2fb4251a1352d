"""The report as it is handed over: the account's document with energy in kWh, as exact decimal text.

Inside, energy is whole milliwatt-hours (`energy_milliwh`) and rows are lists; in report.json it is `energy_kwh`, and
rows have names. Reports of version 2, where milliwatt-hours were called `mwh`, can still be made, to check one.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tidegate.runtime.carbon.factors.instruments import Instrument
from tidegate.runtime.carbon.integers import decimal, to_whole
from tidegate.runtime.carbon.ledger.ledger import canonical

REPORT_VERSION = 5
VERSIONS = (2, 3, 4, 5)  # that can be checked
# What a report says since version 4; one of before is made without it, to check it. * is any key or row.
BEFORE_4 = "before_4"  # what the evidence record said until then, beside the document
SINCE_4 = (
    "evidence.storage.time_shifted_t_co2e",
    "evidence.storage.time_shifted_factor",
    "evidence.share_time_shifted",
    "compute.metered_milliwh",
    "compute.unplaced_milliwh",
    "compute.unplaced_ug",
    "compute.unplaced_jobs",
    "compute.unplaced",
    "compute.nodes.*.unplaced_milliwh",
    "readings.*.why",
    "span.zone",
)
# What it says since version 5.
SINCE_5 = ("demand", "saved", "compared", "given.demand_charge", "compute.reconciled",
           "compute.reconciled_count")  # fmt: skip

# Where energy stands in the document, and its name of version 2 where that is not the plain one. * is any key or row.
ENERGY: tuple[tuple[str, str], ...] = (
    ("energy_milliwh", ""),
    ("origins_milliwh", ""),
    ("quality_milliwh", ""),
    ("scope2.import_milliwh", ""),
    ("scope2.market_based.load_milliwh", ""),
    ("scope2.market_based.matched_milliwh", ""),
    ("scope2.market_based.instruments_milliwh", ""),
    ("indicators.hourly_load_milliwh", ""),
    ("indicators.hourly_matched_milliwh", ""),
    ("factors.import_milliwh_by_status", ""),
    ("gaps.*.energy_milliwh", "mwh"),
    ("price.priced_milliwh", ""),
    ("saved.import_milliwh", ""),
    ("saved.without_storage_import_milliwh", ""),
    ("saved.priced_milliwh", ""),
    ("compared.before.used_milliwh", ""),
    ("compared.before.import_milliwh", ""),
    ("compared.year_before.used_milliwh", ""),
    ("compared.year_before.import_milliwh", ""),
    ("readings.*.booked_milliwh", ""),
    ("readings.*.difference_milliwh", ""),
    ("compute.jobs_milliwh", ""),
    ("compute.idle_milliwh", ""),
    ("compute.metered_milliwh", ""),
    ("compute.unplaced_milliwh", ""),
    ("compute.nodes.*.unplaced_milliwh", ""),
    ("compute.nodes.*.metered_milliwh", ""),
    ("compute.nodes.*.idle_milliwh", ""),
    ("compute.nodes.*.software_milliwh", ""),
    ("compute.nodes.*.idle_by_hour_utc_milliwh", ""),
    ("compute.units.*.energy_milliwh", "mwh"),
    ("compute.owners.*.energy_milliwh", "mwh"),
)
UNITS = {"mWh": "kWh", "mL": "L"}
DIGITS = {"mWh": 6, "mL": 3}
INSTRUMENT = ("start_utc_s", "end_utc_s", "energy_kwh", "ug_per_kwh", "source", "kind", "renewable", "cancelled")


def kwh_text(milliwh: int) -> str:
    """Kilowatt-hours, exact."""
    return decimal(milliwh, 6)


STORAGE: tuple[tuple[str, Callable[[int], Any]], ...] = (
    ("energy_kwh", kwh_text),
    ("charge_ppm", int),
    ("discharge_ppm", int),
    ("standby_w", lambda milliw: decimal(milliw, 3)),
)


def published(document: Mapping[str, Any], version: int = REPORT_VERSION) -> dict[str, Any]:
    """A report of `version` with its digest; the document stays as it is. Raises ValueError for another version."""
    if version not in VERSIONS:
        raise ValueError(f"a report of version {version}; this release knows {' and '.join(map(str, VERSIONS))}")
    found: dict[str, object] = _copied(
        {key: value for key, value in document.items() if key not in ("sha256", BEFORE_4)}
    )
    found["report_version"] = version
    if version < 5:
        for path in SINCE_5:
            *way, name = path.split(".")
            _drop(found, way, name)
    if version < 4:
        found["evidence"] = _copied({**document["evidence"], **document.get(BEFORE_4, {})})
        for path in SINCE_4:
            *way, name = path.split(".")
            _drop(found, way, name)
    for path, name_of_2 in ENERGY:
        *way, old = path.split(".")
        if version == 2:
            _replace(found, way, old, name_of_2 or old.replace("milliwh", "mwh"), lambda value: value)
        else:
            _replace(found, way, old, old.replace("milliwh", "kwh"), _kwh)
    if version > 2:
        _name_rows(found)
    found["sha256"] = digest(found)
    return found


def digest(report: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical text of a report without its own digest."""
    return hashlib.sha256(canonical({k: v for k, v in report.items() if k != "sha256"}).encode()).hexdigest()


def instruments_of(report: Mapping[str, Any]) -> list[Instrument] | None:
    """The instruments that a report of any version says it was made with."""
    rows = report["given"]["instruments"]
    if rows is None:
        return None
    if report["report_version"] == 2:
        return [Instrument(*row) for row in rows]
    return [
        Instrument(
            **{key: row[key] for key in INSTRUMENT if key != "energy_kwh"},
            energy_milliwh=to_whole(row["energy_kwh"], 1_000_000),
        )
        for row in rows
    ]


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, (list, tuple)) else value


def _kwh(value: Any) -> Any:
    """Every number of a value in kWh."""
    if isinstance(value, int):
        return kwh_text(value)
    if isinstance(value, dict):
        return {key: _kwh(item) for key, item in value.items()}
    return [_kwh(item) for item in value] if isinstance(value, list) else value


def _replace(at: Any, way: list[str], old: str, new: str, convert: Callable[[Any], Any]) -> None:
    """Give what stands under `old` at the end of the way its new name and value, wherever the way leads."""
    if not isinstance(at, (dict, list)):
        return
    if way:
        step, *rest = way
        for one in _every(at) if step == "*" else [at.get(step)] if isinstance(at, dict) else []:
            _replace(one, rest, old, new, convert)
    elif isinstance(at, dict) and old in at:
        at[new] = convert(at.pop(old))


def _drop(at: object, way: list[str], name: str) -> None:
    """Take `name` away at the end of the way, wherever the way leads."""
    if not isinstance(at, (dict, list)):
        return
    if way:
        step, *rest = way
        for one in _every(at) if step == "*" else [at.get(step)] if isinstance(at, dict) else []:
            _drop(one, rest, name)
    elif isinstance(at, dict):
        at.pop(name, None)


def _every(at: Any) -> Iterable[Any]:
    return list(at.values()) if isinstance(at, dict) else at


def _name_rows(report: dict[str, Any]) -> None:
    """Lists that hold an energy get names, so that its unit is said."""
    for edit in [*report["edits"], *report["evidence"]["edits"]]:
        edit["edits"] = [{"start_utc_s": start, "flow": flow, "energy_kwh": kwh_text(milliwh)}
                         for start, flow, milliwh in edit["edits"]]  # fmt: skip
    report["method"]["storages"] = {
        name: {key: convert(value) for (key, convert), value in zip(STORAGE, row, strict=False)}
        for name, row in report["method"]["storages"].items()
    }
    if "compute" in report:
        report["compute"]["top"] = [{"job": job, "energy_kwh": kwh_text(milliwh), "ug": ug}
                                    for job, milliwh, ug in report["compute"]["top"]]  # fmt: skip
        if "unplaced" in report["compute"]:
            report["compute"]["unplaced"] = [{"job": job, "energy_kwh": kwh_text(milliwh), "ug": ug}
                                             for job, milliwh, ug in report["compute"]["unplaced"]]  # fmt: skip
    if report["given"]["instruments"] is not None:
        report["given"]["instruments"] = [
            {**dict(zip(INSTRUMENT, row, strict=True)), "energy_kwh": kwh_text(row[2])}
            for row in report["given"]["instruments"]
        ]
    for row in [*report["readings"], *report["indicators"]["readings"].values()]:
        unit = row["unit"]
        if row["total"] is not None:
            row["total"] = decimal(row["total"], DIGITS[unit])
        if "quality" in row:
            row["quality"] = {name: decimal(part, DIGITS[unit]) for name, part in row["quality"].items()}
        row["unit"] = UNITS[unit]
