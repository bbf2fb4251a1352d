"""The account of all sites over a span: from PostgreSQL, as JSON, CSV and a page, and as Parquet for other engines.

Whole numbers throughout; a number here is the sum of the same number in the sites' own reports. What is not in it is
named in it: sites without a period, with time that is not booked, or with something that was not taken.
"""

import csv
import hashlib
import heapq
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from tidegate.runtime.carbon.factors.series import iso
from tidegate.runtime.carbon.integers import decimal
from tidegate.runtime.carbon.ledger.ledger import canonical
from tidegate.runtime.fleet.hub.fleet_queries import TABLE_NAMES, Account, Group, Run, account, tenants
from tidegate.runtime.fleet.hub.fleet_rollup import JOB_COLUMNS_FLAT, SUMS, Rollup
from tidegate.runtime.state.csv_cells import cells

if TYPE_CHECKING:
    from tidegate.runtime.fleet.hub.hub_store import HubStore

VERSION = 1
TOP_JOBS = 100
SCOPE = (
    "The sum of the sites' own accounts: metered electricity inside each site's boundary and the emissions of its "
    "generation. It is not verified and makes no claim about goods. Energy that one site gave to the grid while "
    "another drew from it is energy in the same period, and no proof of supply: that needs an instrument."
)
COLUMNS: Mapping[str, Sequence[tuple[str, str]]] = {
    "fleet_periods": [("site", "VARCHAR"), *((name, "BIGINT") for name in ("start_utc_s", "seq", *SUMS))],
    "fleet_jobs": [(name, "VARCHAR" if name in ("site", "job", "tenant", "node") else "BIGINT")
                   for name in JOB_COLUMNS_FLAT],
    "fleet_places": [("site", "VARCHAR"), ("owner", "VARCHAR"), ("region", "VARCHAR"), ("latitude_udeg", "BIGINT"),
                     ("longitude_udeg", "BIGINT")],
}  # fmt: skip


class ReportProblem(RuntimeError):
    """Why there is no report, with what to do."""


def figures(group: Group) -> dict[str, int]:
    """A group's sums by name."""
    return dict(zip(SUMS, group.sums, strict=True))


def gather_fleet(store: "HubStore", start_utc_s: int, end_utc_s: int) -> dict[str, object]:
    """The document of a span. Brings the flat rows up first. Raises ReportProblem, psycopg.Error."""
    with store.another() as connection:
        Rollup(connection).bring_up()
        with connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")  # every number of one moment
            found = account(connection.execute, start_utc_s, end_utc_s)
            known = connection.execute(
                "SELECT s.site, s.key, s.seq, s.hash, s.said, coalesce(r.left_out, 0) FROM fleet_sites s "
                "LEFT JOIN fleet_rolled r ON r.site = s.site ORDER BY s.site"
            ).fetchall()
    if found.whole is None:
        raise ReportProblem(
            f"no site has a period from {iso(start_utc_s)} to {iso(end_utc_s)}; what is here: tidegate hub sites"
        )
    return _document(found, known, start_utc_s, end_utc_s)


def _document(found: Account, known: Iterable[Sequence[object]], start_utc_s: int, end_utc_s: int) -> dict[str, object]:
    assert found.whole is not None
    by_site = {group.name: group for group in found.sites}
    length_s = end_utc_s - start_utc_s
    sites, absent, not_whole = [], [], []
    for name, key, seq, digest, said, left_out in known:
        group = by_site.get(str(name))
        if group is None:
            absent.append({"site": str(name), "why": str(said) or "no period in the span has come"})
            continue
        not_booked_s = length_s - group.of("length_s")
        row: dict[str, object] = {
            "site": str(name), "signed_by": str(key), "last_seq": int(str(seq)), "root": str(digest),
            "periods": group.periods, "not_booked_s": not_booked_s, **figures(group),
        }  # fmt: skip
        sites.append(row)
        why = [f"{not_booked_s} s of the span are not booked"] if not_booked_s else []
        why += [str(said)] if said else []
        why += [f"{left_out} signed entries could not be read"] if left_out else []
        if why:
            not_whole.append({"site": str(name), "why": "; ".join(why)})
    top = heapq.nlargest(TOP_JOBS, found.jobs, key=lambda one: (one.ug, one.energy_milliwh, one.tenant, one.job))
    made: dict[str, object] = {
        "fleet_report_version": VERSION,
        "scope": SCOPE,
        "from_utc_s": start_utc_s,
        "to_utc_s": end_utc_s,
        "sites_enrolled": len(sites) + len(absent),
        "sites_in_it": len(sites),
        "absent": absent,
        "not_whole": not_whole,
        "whole": {**figures(found.whole), "balance_error_ug": balance_error_ug(found.whole)},
        "regions": [{"region": group.name, "sites": group.sites, **figures(group)} for group in found.regions],
        "owners": [{"owner": group.name, "sites": group.sites, **figures(group)} for group in found.owners],
        "tenants": [{"tenant": name, "jobs": count, "energy_milliwh": milliwh, "ug": ug}
                    for name, count, milliwh, ug in tenants(found.jobs)],
        "jobs_count": len(found.jobs),
        "jobs_top": [one._asdict() for one in top],
        "same_period": [one._asdict() for one in found.same_period],
        "sites": sites,
    }  # fmt: skip
    made["sha256"] = hashlib.sha256(canonical(made).encode()).hexdigest()
    return made


def balance_error_ug(group: Group) -> int:
    """Carbon that came, less what went, was lost and was stored: 0 unless a number was changed."""
    came = group.of("inflow_ug") + group.of("created_ug") - group.of("stock_change_ug")
    return came - sum(group.of(name) for name in ("export_ug", "load_ug", "other_ug", "loss_ug"))


def write_fleet(document: Mapping[str, object], out: Path) -> list[Path]:
    """fleet-report.json, .csv (a row a site) and .html. Raises OSError."""
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"fleet-report.{kind}" for kind in ("json", "csv", "html")]
    paths[0].write_text(canonical(document) + "\n", encoding="utf-8")
    rows = document["sites"]
    assert isinstance(rows, list)
    with paths[1].open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        head = list(rows[0])
        writer.writerow(head)
        writer.writerows(cells([row[name] for name in head]) for row in rows)
    paths[2].write_text(page(document), encoding="utf-8")
    return paths


def make_report(
    store: "HubStore", start_utc_s: int, end_utc_s: int, out: Path, parquet: Path | None, check: bool
) -> tuple[dict[str, object], list[Path]]:
    """(document, what was written). parquet : also the rows, there. check : DuckDB must give the same from them.

    Raises ReportProblem, OSError.
    """
    try:
        document = gather_fleet(store, start_utc_s, end_utc_s)
        paths = write_fleet(document, out)
        if parquet is not None:
            with store.another() as connection, connection.transaction():
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                paths += export_parquet(connection, parquet, start_utc_s, end_utc_s)
                ours = account(connection.execute, start_utc_s, end_utc_s) if check else None
            if check and ours != account(duckdb_run(parquet), start_utc_s, end_utc_s):
                raise ReportProblem("DuckDB gives other numbers than PostgreSQL; keep both, and report it")
    except psycopg.Error as why:
        raise ReportProblem(f"PostgreSQL: {why}") from None
    return document, paths


# ---- the page ----

SHOWN = (
    ("import_milliwh", "import, kWh"), ("import_ug", "its carbon, kg"), ("generation_milliwh", "own, kWh"),
    ("load_milliwh", "loads, kWh"), ("load_ug", "their carbon, kg"), ("same_period_milliwh", "same period, kWh"),
    ("shifted_milliwh", "through storage, kWh"), ("not_good_milliwh", "not plainly measured, kWh"),
)  # fmt: skip
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:1rem auto;padding:0 1rem;color:#1a1f24}"
    "table{border-collapse:collapse}td,th{padding:.3rem .6rem;border-bottom:1px solid #c8ced4;text-align:left}"
    "td.n{text-align:right;font-variant-numeric:tabular-nums}.t{overflow-x:auto}"
)


def shown(name: str, value: int) -> str:
    """Kilowatt-hours or kilograms of a sum."""
    return decimal(value // 1000, 3) if name.endswith("_milliwh") else decimal(value // 1_000_000, 3)


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]], label: str) -> str:
    head = "".join(f'<th scope="col">{escape(one)}</th>' for one in heads)
    body = "".join(
        f"<tr>{''.join(f'<td{_side(i)}>{escape(str(cell))}</td>' for i, cell in enumerate(row))}</tr>" for row in rows
    )
    return (f'<div class="t" tabindex="0" role="region" aria-label="{escape(label)}"><table><thead><tr>{head}</tr>'
            f"</thead><tbody>{body}</tbody></table></div>")  # fmt: skip


def _side(column: int) -> str:
    return " class=n" if column else ""


def page(document: Mapping[str, object]) -> str:
    """The report as one page for people; every number of it stands in the JSON."""

    def rows_of(key: str) -> list[dict[str, object]]:
        held = document[key]
        assert isinstance(held, list)
        return held

    def groups(key: str, first: str) -> str:
        heads = [first, *(head for _, head in SHOWN)]
        rows = ([row[first] or "(not given)", *(shown(name, int(str(row[name]))) for name, _ in SHOWN)]
                for row in rows_of(key))  # fmt: skip
        return _table(heads, rows, f"by {first}")

    start, end = iso(int(str(document["from_utc_s"]))), iso(int(str(document["to_utc_s"])))
    whole = document["whole"]
    assert isinstance(whole, dict)
    named = [*rows_of("absent"), *rows_of("not_whole")]
    parts = [
        f"<h1>Account of {document['sites_in_it']} of {document['sites_enrolled']} sites</h1>",
        f"<p>{start} to {end}</p><p>{escape(str(document['scope']))}</p>",
        "<h2>What is not whole</h2>",
        _table(["site", "why"], ([row["site"], row["why"]] for row in named), "what is not whole")
        if named
        else "<p>Nothing: every enrolled site is booked over the whole span.</p>",
        "<h2>The whole</h2>",
        _table(["", "sum"], ([head, shown(name, whole[name])] for name, head in SHOWN), "the whole"),
        f"<p>Carbon that came less what went, was lost and was stored: {whole['balance_error_ug']} ug.</p>",
        "<h2>By region</h2>",
        groups("regions", "region"),
        "<h2>By owner</h2>",
        groups("owners", "owner"),
        "<h2>By tenant</h2>",
        _table(["tenant", "jobs", "kWh", "kg"], ([row["tenant"] or "(not given)", row["jobs"],
               shown("x_milliwh", int(str(row["energy_milliwh"]))), shown("ug", int(str(row["ug"])))]
               for row in rows_of("tenants")), "by tenant"),
        f"<h2>Jobs: the {len(rows_of('jobs_top'))} largest of {document['jobs_count']}</h2>",
        _table(["job", "tenant", "sites", "kWh", "kg"], ([row["job"], row["tenant"], row["sites"],
               shown("x_milliwh", int(str(row["energy_milliwh"]))), shown("ug", int(str(row["ug"])))]
               for row in rows_of("jobs_top")), "jobs"),
        "<h2>In the same period, across sites</h2>",
        _table(["region", "exported from own sources, kWh", "drawn, kWh", "in the same period at most, kWh"],
               ([row["name"] or "(not given)", *(shown(name, int(str(row[name]))) for name in
                ("own_export_milliwh", "import_milliwh", "same_period_milliwh"))] for row in rows_of("same_period")),
               "in the same period"),
        "<h2>To check it</h2><p>Each site's row in fleet-report.csv names the last entry, its hash and the key that "
        "signed it; <code>tidegate carbon report</code> makes the site's own report. SHA-256 of this report's JSON "
        f"without its digest: <code>{document['sha256']}</code></p>",
    ]  # fmt: skip
    return ('<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
            f"<title>Account of a fleet, {start} to {end}</title><style>{STYLE}</style>"
            f"<main>{''.join(parts)}</main></html>\n")  # fmt: skip


# ---- other engines ----


def export_parquet(
    connection: psycopg.Connection[tuple[object, ...]], out: Path, start_utc_s: int, end_utc_s: int
) -> list[Path]:
    """The flat rows of a span as Parquet, one file a table. Raises OSError, psycopg.Error, ReportProblem."""
    import duckdb

    out.mkdir(parents=True, exist_ok=True)
    written = []
    with tempfile.TemporaryDirectory(dir=out, prefix=".export-") as folder, duckdb.connect() as engine:
        for table in TABLE_NAMES:
            names = [name for name, _ in COLUMNS[table]]
            where = (
                "" if table == "fleet_places" else f" WHERE start_utc_s >= {start_utc_s} AND start_utc_s < {end_utc_s}"
            )
            held = Path(folder) / f"{table}.csv"
            with held.open("wb") as file, connection.cursor() as cursor:
                query = f"COPY (SELECT {', '.join(names)} FROM {table}{where}) TO STDOUT (FORMAT csv, FORCE_QUOTE *)"
                with cursor.copy(query) as copy:
                    for block in copy:
                        file.write(block)
            path = out / f"{table}.parquet"
            columns = ", ".join(f"'{name}': '{kind}'" for name, kind in COLUMNS[table])
            engine.execute(
                f"COPY (SELECT * FROM read_csv({_quoted(held)}, columns = {{{columns}}}, header = false, "
                f"auto_detect = false, delim = ',', quote = '\"', "
                f"escape = '\"', nullstr = '', allow_quoted_nulls = false, parallel = false)) TO {_quoted(path)} "
                "(FORMAT parquet, COMPRESSION zstd)"
            )
            held.unlink()
            written.append(path)
    return written


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def duckdb_run(folder: Path) -> Run:
    """Runs the report's SQL on exported files. Raises ReportProblem where they are not there."""
    import duckdb

    engine = duckdb.connect()
    for table in TABLE_NAMES:
        path = folder / f"{table}.parquet"
        if not path.exists():
            raise ReportProblem(f"{path}: not there; made by: tidegate hub report --parquet FOLDER")
        engine.execute(f"CREATE VIEW {table} AS SELECT * FROM read_parquet({_quoted(path)})")
    return lambda text: engine.execute(text).fetchall()
