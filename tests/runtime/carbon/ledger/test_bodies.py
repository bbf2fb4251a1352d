"""A ledger that the release before the names changed made: read, verified, reported and gone on with."""

import json
import shutil
from pathlib import Path

import pytest

from tidegate.config.compile import compile_site
from tidegate.config.site import load_site
from tidegate.ext.abi import program
from tidegate.runtime.carbon.engine.corrections import Edit, correct
from tidegate.runtime.carbon.example_day import DAY_S, DAY_UTC_S, records
from tidegate.runtime.carbon.ledger.bodies import BODY_VERSION, current
from tidegate.runtime.carbon.ledger.ledger import Ledger, LedgerError
from tidegate.runtime.carbon.ledger.signing import read_anchors, verify
from tidegate.runtime.carbon.report.document import compare, gather
from tidegate.runtime.carbon.report.published import REPORT_VERSION, instruments_of, published
from tidegate.runtime.carbon.sidecar.service import Sidecar
from tidegate.runtime.cli.carbon_commands import check_report

ROOT = Path(__file__).parents[4]
OLD = ROOT / "tests" / "data" / "carbon"
DEMO = ROOT / "config" / "demo"


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "ledger.db"
    shutil.copy(OLD / "ledger-v1.db", path)
    return path


def key():
    return (OLD / "ledger-v1.key").read_text().strip()


def old_report():
    return json.loads((OLD / "ledger-v1-report.json").read_text())


def test_chain_blocks_and_anchor_of_an_old_ledger_hold_over_the_old_bytes(old):
    ledger = Ledger(old, read_only=True)
    anchors = read_anchors((OLD / "ledger-v1-anchor.json").read_text().splitlines(), "anchor")
    assert verify(ledger, key=key(), anchors=anchors) == []
    assert sum(1 for _ in ledger.entries("block")) == 2


def test_a_changed_number_of_an_old_ledger_is_still_found(old):
    import sqlite3

    with sqlite3.connect(old) as raw:
        seq, body = raw.execute("SELECT seq, body FROM entries WHERE kind = 'period' LIMIT 1").fetchone()
        assert '"mwh":' in body and "milliwh" not in body  # the bytes are those of the old release
        changed = body.replace('"mwh":2', '"mwh":3', 1)
        assert changed != body
        raw.execute("UPDATE entries SET body = ? WHERE seq = ?", (changed, seq))
    assert seq in {damage.seq for damage in verify(Ledger(old, read_only=True), key=key())}


def test_entries_of_an_old_ledger_have_the_names_of_today(old):
    ledger = Ledger(old, read_only=True)
    for kind in ("period", "job"):
        for entry in ledger.entries(kind):
            assert entry.body["v"] == BODY_VERSION
            assert "mwh" not in json.dumps(entry.body)
    period = next(iter(ledger.entries("period"))).body
    assert period["flows"]["grid.import"]["energy_milliwh"] > 0
    assert {"opening_milliwh", "energy_milliwh"} <= set(period["stock"]["cabinet"])


def test_the_report_of_an_old_ledger_is_made_again_to_the_byte_and_in_the_version_of_today_with_the_same_energy(old):
    said = old_report()
    assert said["report_version"] == 2
    assert check_report(Ledger(old, read_only=True), OLD / "ledger-v1-report.json") == []
    document, _, _ = gather(
        Ledger(old, read_only=True), DAY_UTC_S, DAY_UTC_S + DAY_S, instruments=instruments_of(said),
        residual_ug_per_kwh=said["given"]["residual_ug_per_kwh"], installation=said["given"]["installation"],
        until_seq=said["ledger"]["last_seq"],
    )  # fmt: skip
    assert compare(said, published(document, 2)) == []
    new = published(document)
    assert new["report_version"] == REPORT_VERSION
    for name, milliwh in said["energy_mwh"]["inflow"].items():
        assert new["energy_kwh"]["inflow"][name] == f"{milliwh // 10**6}.{milliwh % 10**6:06d}"
    outside = json.dumps({name: part for name, part in new.items() if name != "evidence"})
    assert "mwh" not in outside and "milliwh" not in outside and "mWh" not in outside
    assert new["given"]["instruments"][0]["energy_kwh"] == "2.000000"
    assert instruments_of(new) == instruments_of(said)


def test_a_report_with_one_digit_changed_is_named_in_both_versions(old, tmp_path):
    ledger = Ledger(old, read_only=True)
    said = old_report()
    said["energy_mwh"]["inflow"]["grid"] += 1
    path = tmp_path / "report.json"
    path.write_text(json.dumps(said))
    assert any("energy_mwh.inflow.grid" in row for row in check_report(ledger, path))
    document, _, _ = gather(ledger, DAY_UTC_S, DAY_UTC_S + DAY_S)
    new = published(document)
    new["energy_kwh"]["inflow"]["grid"] = "1.000000"
    path.write_text(json.dumps(new))
    assert any("energy_kwh.inflow.grid" in row for row in check_report(ledger, path))


def test_a_report_of_a_later_version_is_refused_with_the_remedy(old, tmp_path):
    said = old_report()
    said["report_version"] = REPORT_VERSION + 1
    path = tmp_path / "report.json"
    path.write_text(json.dumps(said))
    (row,) = check_report(Ledger(old, read_only=True), path)
    assert f"version {REPORT_VERSION + 1}" in row and "use the one that made it" in row


def test_the_booking_goes_on_where_an_old_ledger_stands(old):
    """A second day, booked into the old ledger by this release."""
    describe = program.describe(compile_site(load_site(DEMO / "day.toml")))
    describe["carbon"]["interval_s"] = 3600
    rows = list(records(describe, DEMO)[0])
    later = []
    for row in rows[1 : 1 + 4 * 3600 // 2]:
        row = json.loads(json.dumps(row))
        for name, value in row["points"].items():
            if not name.endswith(".soc"):
                value[0] += rows[-1]["points"][name][0]
                if name.endswith("_wh"):
                    value[0] -= 1000.0
        later.append({**row, "seq": row["seq"] + rows[-1]["seq"], "t_ns": row["t_ns"] + DAY_S * 10**9,
                      "utc_ns": row["utc_ns"] + DAY_S * 10**9})  # fmt: skip
    ledger = Ledger(old)
    before = ledger.head[0]
    one = Sidecar(describe, ledger, folder=DEMO)
    assert one.take(later) == 4
    one.commit()
    bodies = [entry.body for entry in ledger.entries("period") if entry.seq > before]
    assert [body["start_utc_s"] for body in bodies] == [DAY_UTC_S + DAY_S + 3600 * hour for hour in range(4)]
    assert all("PARTIAL" not in body["flags"] and body["lost"] == 0 for body in bodies)
    assert bodies[0]["flows"]["grid.import"]["open_milliwh"] is not None
    assert verify(ledger, key=key()) == []


def test_a_correction_of_an_old_ledger_books_anew_only_what_changes(old):
    ledger = Ledger(old)
    last = DAY_UTC_S + 23 * 3600
    done = correct(ledger, author="a", reason="r", edits=[Edit(last, "grid.import", 30_000_000)])
    assert (done.periods, done.first_utc_s) == (1, last)
    assert verify(ledger, key=key()) == []


def test_a_body_that_no_release_wrote_is_refused_as_damaged_and_not_taken_for_an_old_one(old):
    import sqlite3

    with sqlite3.connect(old) as raw:
        raw.execute("UPDATE entries SET body = ? WHERE kind = 'period'", ('{"v":1,"flows":[]}',))
    with pytest.raises(LedgerError, match="damaged"):
        list(Ledger(old, read_only=True).entries("period"))
    assert len(verify(Ledger(old, read_only=True), key=key())) >= 24


def test_a_node_that_is_called_like_an_old_name_keeps_its_name():
    body = {"v": 1, "flows": {}, "outflows": [], "stock": {"mwh": {"mwh": 1, "opening_mwh": 2}}, "method": {},
            "loss_mwh": {"pack_mwh": 3}, "residual_mwh": 0}  # fmt: skip
    assert current("period", body)["stock"] == {"mwh": {"energy_milliwh": 1, "opening_milliwh": 2}}
    assert body["loss_milliwh"] == {"pack_mwh": 3}
