"""The account of a fleet: the sum of the sites' own reports to the microgram, from three engines."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.runtime.carbon.ledger.conftest import new_database
from tests.runtime.fleet.conftest import Unit, server  # noqa: F401
from tests.runtime.fleet.many_sites import DAY_S, METHOD, MONTH_UTC_S, Site
from tidegate.runtime.carbon.ledger.signing import sign
from tidegate.runtime.carbon.report.document import gather
from tidegate.runtime.cli.fleet_commands import hub
from tidegate.runtime.fleet.hub import fleet_queries, fleet_report
from tidegate.runtime.fleet.hub.fleet_rollup import Rollup
from tidegate.runtime.fleet.hub.hub_store import HubStore
from tidegate.runtime.fleet.invitation import HubError
from tidegate.runtime.fleet.ledger_batch import Row

DAYS = 2
END_UTC_S = MONTH_UTC_S + DAYS * DAY_S
PLACES = {"hall": ("north ltd", "SE3"), "yard": ("north ltd", "SE4"), "pier": ('o\'hara, "south"', "SE4")}


def send(store, unit):
    """A unit's entries that are not here yet, as the ingest takes them."""
    mark, finding = store.take(unit.site, [Row(*row) for row in unit.rows(store.mark(unit.site).seq + 1)], b"")
    assert finding is None and mark is not None, finding


@pytest.fixture(scope="module")
def fleet(server, tmp_path_factory):  # noqa: F811
    """(store, units) of three sites with two days; one of them corrected a quarter hour and settled a day again."""
    store, units = HubStore(new_database(server)), []
    folder = tmp_path_factory.mktemp("units")
    for seed, (name, (owner, region)) in enumerate(PLACES.items()):
        one = Unit(folder, name)
        one.ledger.append([("method", MONTH_UTC_S, METHOD)])
        made = Site(name, seed)
        made.write(one.ledger, DAYS)
        sign(one.ledger, one.key, name, least=1)
        store.enrol(name, one.key.public)
        at = (None, None) if name == "pier" else (59_000_000 + seed, 18_000_000)
        store.place(name, owner, region, *at)
        send(store, one)
        if name == "yard":
            with store.another() as connection:
                Rollup(connection).bring_up()  # what is corrected was rolled up already
            correction = Site(name, 99)
            rows = correction.day(MONTH_UTC_S)
            one.ledger.append([rows[7], rows[-1]])
            sign(one.ledger, one.key, name, least=1)
            send(store, one)
        units.append(one)
    yield store, units
    store.close()


def own_report(unit):
    return gather(unit.ledger, MONTH_UTC_S, END_UTC_S)[:2]


def as_in_the_fleet(report, sums):
    """A site's own report in the names of the fleet's."""
    energy, carbon = report["energy_milliwh"], report["carbon_ug"]
    return {
        "same_period_milliwh": sum(sums.same_period_milliwh.values()),
        "same_period_ug": sum(sums.same_period_ug.values()),
        "shifted_milliwh": sum(sums.shifted_milliwh.values()),
        "shifted_ug": sum(sums.shifted_ug.values()),
        "import_milliwh": report["scope2"]["import_milliwh"],
        "import_ug": report["scope2"]["location_based_ug"],
        "generation_milliwh": energy["inflow"]["roof"],
        "charge_milliwh": sum(energy["charge"].values()),
        "discharge_milliwh": sum(energy["discharge"].values()),
        "export_milliwh": energy["outflow"]["export"],
        "export_ug": carbon["outflow"]["export"],
        "load_milliwh": energy["outflow"]["it"] + energy["outflow"]["cooling"],
        "load_ug": carbon["outflow"]["it"] + carbon["outflow"]["cooling"],
        "inflow_ug": sum(carbon["inflow"].values()),
        "loss_ug": sum(carbon["storage_loss"].values()),
        "stock_change_ug": carbon["closing"] - carbon["opening"],
        "priced_milliwh": report["price"]["priced_milliwh"],
        "cost_u": report["price"]["import_cost_u"],
        "not_good_milliwh": sum(row["energy_milliwh"] for row in report["gaps"]),
    }


def test_the_fleet_is_the_sum_of_the_sites_own_reports_to_the_microgram(fleet):
    store, units = fleet
    document = fleet_report.gather_fleet(store, MONTH_UTC_S, END_UTC_S)
    reports = {one.site: own_report(one) for one in units}
    expected = {name: as_in_the_fleet(*report) for name, report in reports.items()}
    for row in document["sites"]:
        own = expected[row["site"]]
        if row["site"] == "yard":  # its corrected quarter hour opens on another stock than the one before it closed on
            own.pop("stock_change_ug")
        assert {name: row[name] for name in own} == own, row["site"]
        ledger = next(one.ledger for one in units if one.site == row["site"])
        assert (row["last_seq"], row["root"]) == ledger.head and row["not_booked_s"] == 0
    for name in as_in_the_fleet(*reports["hall"]):
        if name != "stock_change_ug":
            total = sum(own[name] for own in expected.values())
            assert document["whole"][name] == total == sum(row[name] for row in document["regions"])
            assert total == sum(row[name] for row in document["owners"])
    assert document["whole"]["balance_error_ug"] == 0
    assert [(row["owner"], row["sites"]) for row in document["owners"]] == [("north ltd", 2), ('o\'hara, "south"', 1)]
    assert document["absent"] == document["not_whole"] == []
    owners: dict[str, int] = {}
    for report, _ in reports.values():
        for name, row in report["compute"]["owners"].items():
            owners[name] = owners.get(name, 0) + row["ug"]
    assert {row["tenant"]: row["ug"] for row in document["tenants"]} == owners
    assert sum(row["ug"] for row in document["jobs_top"]) == sum(owners.values()) > 0
    assert document["jobs_count"] == len(document["jobs_top"])


def test_same_period_energy_is_what_both_sides_had_in_one_quarter_hour(fleet):
    store, units = fleet
    document = fleet_report.gather_fleet(store, MONTH_UTC_S, END_UTC_S)
    expected = {}
    for region in ("SE3", "SE4"):
        by_start: dict[int, list[int]] = {}
        for one in units:
            if PLACES[one.site][1] != region:
                continue
            for entry in one.ledger.in_force("period", MONTH_UTC_S, END_UTC_S):
                row = by_start.setdefault(entry.start_utc_s, [0, 0])
                row[1] += entry.body["flows"]["grid.import"]["energy_milliwh"]
                row[0] += sum(
                    out["origins"].get("roof", 0) for out in entry.body["outflows"] if out["kind"] == "export"
                )
        expected[region] = (sum(row[0] for row in by_start.values()), sum(min(row) for row in by_start.values()))
    found = {row["name"]: (row["own_export_milliwh"], row["same_period_milliwh"]) for row in document["same_period"]}
    assert found == expected
    assert 0 < found["SE4"][1] < found["SE4"][0]


def test_duckdb_gives_the_same_whole_numbers(fleet, tmp_path):
    store, _ = fleet
    pytest.importorskip("duckdb")
    with store.another() as connection:
        Rollup(connection).bring_up()
        fleet_report.export_parquet(connection, tmp_path, MONTH_UTC_S, END_UTC_S)
        ours = fleet_queries.account(connection.execute, MONTH_UTC_S, END_UTC_S)
    assert ours.whole is not None and len(ours.sites) == 3
    assert fleet_queries.account(fleet_report.duckdb_run(tmp_path), MONTH_UTC_S, END_UTC_S) == ours


def test_a_span_without_a_job_or_a_period_is_exported_too(fleet, tmp_path):
    store, _ = fleet
    pytest.importorskip("duckdb")
    with store.another() as connection:
        fleet_report.export_parquet(connection, tmp_path, END_UTC_S, END_UTC_S + DAY_S)
    found = fleet_queries.account(fleet_report.duckdb_run(tmp_path), END_UTC_S, END_UTC_S + DAY_S)
    assert found == fleet_queries.Account(None, [], [], [], [], [])


@pytest.mark.skipif(not os.environ.get("FLEET_SPARK"), reason="FLEET_SPARK=1 runs it; it needs pyspark and Java")
def test_spark_gives_the_same_whole_numbers(fleet, tmp_path):
    store, _ = fleet
    with store.another() as connection:
        Rollup(connection).bring_up()
        fleet_report.export_parquet(connection, tmp_path, MONTH_UTC_S, END_UTC_S)
        ours = fleet_queries.account(connection.execute, MONTH_UTC_S, END_UTC_S)
    with Spark(tmp_path) as run:
        assert fleet_queries.account(run, MONTH_UTC_S, END_UTC_S) == ours


class Spark:
    """Runs SQL on the exported files with Spark."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __enter__(self):
        from pyspark.sql import SparkSession

        self.session = (
            SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
            .config("spark.driver.bindAddress", "127.0.0.1").config("spark.driver.host", "127.0.0.1")
            .config("spark.sql.shuffle.partitions", "8").config("spark.driver.memory", "2g").getOrCreate()
        )  # fmt: skip
        for name in fleet_queries.TABLE_NAMES:
            self.session.read.parquet(str(self.folder / f"{name}.parquet")).createOrReplaceTempView(name)
        return lambda text: [tuple(row) for row in self.session.sql(text).collect()]

    def __exit__(self, *_):
        self.session.stop()


def test_the_command_writes_it_and_compares_with_duckdb(fleet, tmp_path):
    store, _ = fleet
    folder = tmp_path / "hub"
    folder.mkdir()
    url = store._address.replace("postgresql://", "postgresql+psycopg://")
    (folder / "hub.json").write_text(json.dumps({"database": url}))
    run = CliRunner()
    at = ["--folder", str(folder)]
    found = run.invoke(hub, ["place", "pier", *at, "--at", "59.33,18.07"])
    assert found.exit_code == 0, found.output
    for words, said in ((["--at", "north"], "expected LAT,LON"), (["--at", "99,1"], "latitude -90 to 90")):
        assert said in run.invoke(hub, ["place", "pier", *at, *words]).output
    with pytest.raises(HubError, match="not enrolled here"):
        store.place("nowhere", "x", None, None, None)
    out = tmp_path / "out"
    found = run.invoke(
        hub, ["report", *at, "--span", "2026-10", "--out", str(out), "--parquet", str(tmp_path / "p"), "--check"]
    )
    assert found.exit_code == 0, found.output
    assert "3 of 3 sites; 3 are not whole, and named in it, DuckDB agrees" in found.output
    document = json.loads((out / "fleet-report.json").read_text())
    digest = document.pop("sha256")
    from hashlib import sha256

    from tidegate.runtime.carbon.ledger.ledger import canonical

    assert sha256(canonical(document).encode()).hexdigest() == digest
    assert len((out / "fleet-report.csv").read_text().splitlines()) == 4


# ---- these change what is there ----


def test_what_is_not_in_the_report_is_named_in_it(fleet, unit):
    store, _ = fleet
    late, empty = unit("late"), unit("empty")
    late.ledger.append([("method", MONTH_UTC_S, METHOD)])
    Site("late", 5).write(late.ledger, 1)
    sign(late.ledger, late.key, "late", least=1)
    for one in (late, empty):
        store.enrol(one.site, one.key.public)
    send(store, late)
    document = fleet_report.gather_fleet(store, MONTH_UTC_S, END_UTC_S)
    assert document["absent"] == [{"site": "empty", "why": "no period in the span has come"}]
    assert document["not_whole"] == [{"site": "late", "why": f"{DAY_S} s of the span are not booked"}]
    text = fleet_report.page(document)
    assert "no period in the span has come" in text and "o&#x27;hara" in text and "(not given)" in text
    with pytest.raises(fleet_report.ReportProblem, match="no site has a period from 2026-09-01"):
        fleet_report.gather_fleet(store, MONTH_UTC_S - 30 * DAY_S, MONTH_UTC_S)


def test_a_site_that_goes_on_from_a_backup_is_rolled_up_anew(fleet):
    store, _ = fleet
    with store.another() as connection:
        Rollup(connection).bring_up()
        connection.execute("UPDATE fleet_sites SET seq = 50 WHERE site = 'hall'")
        connection.execute("DELETE FROM entries WHERE site = 'hall' AND seq > 50")
        from tidegate.runtime.fleet.hub.fleet_rollup import forget_rows

        with connection.transaction(), connection.cursor() as cursor:
            forget_rows(cursor, "hall")
        Rollup(connection).bring_up()
        assert connection.execute("SELECT max(seq) FROM fleet_periods WHERE site = 'hall'").fetchone() == (50,)
        assert connection.execute("SELECT count(*) FROM fleet_jobs WHERE site = 'hall'").fetchone() == (0,)


def test_a_signed_entry_that_is_none_of_ours_is_counted_and_named_and_stops_nothing(fleet, unit):
    store, _ = fleet
    odd = unit("odd")
    made = Site("odd", 3)
    whole = made.period(MONTH_UTC_S)
    far = made.period(MONTH_UTC_S + 900)
    job = {"v": 2, "start_utc_s": 0, "nodes": {}, "jobs": [["a\0b", "t", "it", 0, 1, 1, 1, None, 0, {}]]}
    odd.ledger.append([("period", MONTH_UTC_S, whole), ("period", 10**11, far), ("job", MONTH_UTC_S, job)])
    sign(odd.ledger, odd.key, "odd", least=1)
    store.enrol("odd", odd.key.public)
    send(store, odd)
    document = fleet_report.gather_fleet(store, MONTH_UTC_S, END_UTC_S)
    assert "2 signed entries could not be read" in next(
        row["why"] for row in document["not_whole"] if row["site"] == "odd"
    )
