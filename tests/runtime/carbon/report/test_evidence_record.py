"""The same-period electricity evidence record: every field, what the ledger gives and what a person declares."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from tidegate.hal.description import described
from tidegate.runtime.carbon.engine.account import Accountant
from tidegate.runtime.carbon.engine.booking import BookedPeriod, FlowPeriod
from tidegate.runtime.carbon.engine.counter import Flow
from tidegate.runtime.carbon.engine.topology import Nodes, Storage, nodes_of
from tidegate.runtime.carbon.factors.instruments import Instrument
from tidegate.runtime.carbon.factors.series import Factors, Series, Step
from tidegate.runtime.carbon.ledger.ledger import Ledger
from tidegate.runtime.carbon.ledger.signing import sign
from tidegate.runtime.carbon.report.document import SCOPE, gather
from tidegate.runtime.carbon.report.evidence_record import check_installation, evidence_record
from tidegate.runtime.carbon.report.totals import add_up
from tidegate.runtime.cli.carbon_commands import carbon
from tidegate.runtime.state.device_key import DeviceKey

HOUR = 1_709_251_200  # 2024-03-01T00:00Z
KWH = 1_000_000
DESCRIBE = {
    "points": [{"name": n} for n in ("grid.import_wh", "grid.export_wh", "it.import_wh", "roof.import_wh",
                                     "site.ess_discharged_ws", "site.ess_charged_ws", "site.ess_covered_s")],
    "nodes": [{"role": "grid", "device": "grid", "positive_wh": "grid.import_wh", "negative_wh": "grid.export_wh"},
              {"role": "it", "device": "it", "positive_wh": "it.import_wh", "negative_wh": None},
              {"role": "pv", "device": "roof", "positive_wh": "roof.import_wh", "negative_wh": None},
              {"role": "ess", "device": "pcs1", "positive_wh": None, "negative_wh": None}],
    "units": [{"name": "cabinet", "energy_wh": 60_000.0}],
}  # fmt: skip
DECLARED = {
    "name": "hall 7", "operator": "Works Ltd", "registry_id": "R-1", "unlocode": "DEHAM", "lat": "53.550000",
    "lon": "9.990000", "country": "DE",
    "monitoring_plan": {"version": "3", "sha256": "ab" * 32},
    "single_line_diagram_sha256": "cd" * 32,
    "meters": [{"id": name, "serial": f"S-{name}", "class": "B", "mpe_pct": "1.0", "ct": "200/5", "vt": "1",
                "calibrated": "2024-01-10", "owner": "operator", "obis": "1-0:1.8.0"}
               for name in ("grid", "it", "roof", "cabinet")],
    "sources": [{"source": "grid", "supplier": "Utility", "ef_method": "default", "ef_doc_sha256": "ef" * 32,
                 "vintage": "2024", "contract_ref": "C-9"},
                {"source": "roof", "supplier": "own", "vintage": "2024", "contract_ref": "none", "ef_doc_sha256": "0"}],
    "ef_uncertainty_pct": "3",
    "verification": {"status": "in progress", "verifier": "V GmbH", "accreditation": "D-VS-1", "statement_sha256": "1"},
}  # fmt: skip
PARTS = {
    "": "installation period scope_statement monitoring_plan boundary meters sources storage electricity_consumed_mwh "
        "ef_article9_t_per_mwh indirect_t_co2e share_actual share_default balance gaps edits uncertainty "
        "materiality_reference_pct verification ledger software",
    "installation": "name operator registry_id unlocode lat lon country",
    "period": "start_utc end_utc calendar_year",
    "monitoring_plan": "version sha256 language",
    "boundary": "single_line_diagram_sha256 nodes",
    "meters": "id serial role obis class mpe_pct ct vt calibrated owner time_sync",
    "sources": "kind supplier country mwh ef_t_per_mwh ef_method ef_source ef_doc_sha256 vintage contract_ref "
               "same_period_mwh max_period_s",
    "storage": "charge_mwh discharge_mwh loss_mwh opening closing time_shifted_mwh time_shifted_t_co2e "
    "time_shifted_factor policy note",
    "electricity_consumed_mwh": "installation process",
    "balance": "import produced consumed exported residual",
    "gaps": "start end meter method kwh bias",
    "uncertainty": "energy_pct ef_pct combined_pct k",
    "verification": "status verifier accreditation statement_sha256",
    "ledger": "first_seq last_seq root signature",
    "software": "name version build",
}  # fmt: skip


@pytest.fixture
def ledger(tmp_path):
    """An hour: 6 kWh from the grid at 400 g, 2 from the roof, 7 to IT, 1 into the cabinet; one quarter is bridged."""
    made = Ledger(tmp_path / "l.db")
    made.begin("hall 7")
    nodes = nodes_of(described(DESCRIBE))
    flows = {flow.name: [flow.kind, flow.register, flow.integral] for flow in nodes.flows}
    storages = {s.node: [s.energy_milliwh, s.charge_ppm, s.discharge_ppm, s.standby_milliw] for s in nodes.storages}
    method = {"kinds": nodes.kinds, "flows": flows, "storages": storages, "software": "9.9", "build": "b" * 16,
              "grid_factor": {"source": "table", "sha256": "12" * 32}}  # fmt: skip
    made.append([("method", 0, method)])
    series = Series("DE", "average", "table", steps=[Step(HOUR, HOUR + 3600, 400 * KWH)]).finish()
    accountant = Accountant("hall 7", nodes, Factors(series, 1, "fallback"))
    for i in range(4):
        milliwh = {"grid.import": 6, "grid.export": 0, "it.load": 7, "roof.generation": 2, "cabinet.charge": 1,
               "cabinet.discharge": 0}  # fmt: skip
        found = {k: FlowPeriod(v * KWH // 4, "good", "register", [], 0, v, v, 900.0) for k, v in milliwh.items()}
        if i == 2:
            found["grid.import"].quality, found["grid.import"].method = "missing", "conservative bound, high"
            found["it.load"].quality, found["it.load"].method = "estimated", "register over flat shape"
        made.append([("period", HOUR + 900 * i,
                      accountant.book(BookedPeriod(HOUR + 900 * i, 900, found, [], 900, 0, None, "S")))])  # fmt: skip
    sign(made, DeviceKey.at(tmp_path / "k.pem"), "hall 7", least=1)
    return made


def record(ledger, given=None, **more):
    return gather(ledger, HOUR, HOUR + 3600, installation=given, **more)[0]["evidence"]


def test_every_field_is_there(ledger):
    found = record(ledger)
    for part, names in PARTS.items():
        rows = found[part] if part else found
        for row in rows if isinstance(rows, list) else [rows]:
            assert set(names.split()) <= set(row), part
    assert found["scope_statement"] == SCOPE
    assert found["monitoring_plan"]["language"] == "en"
    assert found["materiality_reference_pct"] == 5 and found["uncertainty"]["k"] == 2
    assert found["storage"]["note"] == "not claimed as same-period"


def test_the_fields_named_in_the_manual_are_those_of_the_record(ledger):
    page = Path("docs/carbon-reports.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- evidence fields -->\n(.*?)<!-- end -->", page, flags=re.S)
    assert block is not None
    named = {m.group(1): set(re.findall(r"`([a-z_0-9]+)`", m.group(2)))
             for m in re.finditer(r"^\| `([a-z_0-9]+)` \|(.*)$", block.group(1), flags=re.M)}  # fmt: skip
    assert {part: set(names.split()) for part, names in PARTS.items() if part} == {
        part: names for part, names in named.items() if part in PARTS
    }
    assert set(PARTS[""].split()) <= set(named)


def test_the_figures_worked_by_hand(ledger):
    found = record(ledger, DECLARED)
    grid, roof = found["sources"]
    assert (grid["kind"], grid["mwh"], grid["ef_t_per_mwh"], grid["t_co2e"]) == (
        "SOE03", "0.006000000", "0.40000", "0.002400000000"
    )  # fmt: skip
    # Seven of the eight kilowatt-hours of the pool went to IT in the same period: 7/8 of each source.
    assert (grid["same_period_mwh"], roof["same_period_mwh"]) == ("0.005250000", "0.001750000")
    assert (roof["kind"], roof["ef_method"], roof["ef_t_per_mwh"]) == ("SOE01", "actual", "0.00000")
    assert found["ef_article9_t_per_mwh"] == "0.30000"  # 2.4 kg over 8 kWh
    # The cabinet kept 0.97 of the kilowatt-hour it took: E = 6 + 2 - 0.97 = 7.03 kWh, times 0.3.
    assert found["electricity_consumed_mwh"]["installation"] == "0.007030000"
    assert found["indirect_t_co2e"] == "0.002109000000"
    assert (found["share_actual"], found["share_default"]) == ("0.250000", "0.750000")
    assert found["storage"]["charge_mwh"] == "0.001000000" and found["storage"]["loss_mwh"] == "0.000030000"
    assert found["balance"] == {"import": "0.006000000", "produced": "0.002000000", "consumed": "0.007000000",
                                "exported": "0.000000000", "residual": "0.000000000"}  # fmt: skip
    # Meters of 1 % at 6 and 2 kWh: the root of 36 + 4 over 8. Only the grid's energy carries carbon: the root of 1 + 9.
    assert found["uncertainty"] == {"energy_pct": "0.791", "ef_pct": "3.000", "combined_pct": "3.162", "k": 2}


def test_what_nobody_gave_is_none_and_listed(ledger):
    found = record(ledger)
    for path in ("installation.lat", "monitoring_plan.sha256", "boundary.single_line_diagram_sha256",
                 "meters[grid].serial", "sources[grid].contract_ref", "uncertainty.energy_pct",
                 "verification.verifier"):  # fmt: skip
        assert path in found["not_given"]
    assert found["verification"]["status"] == "unverified"
    assert found["share_default"] == "0.000000" and found["share_not_stated"] == "0.750000"
    full = record(ledger, DECLARED)
    assert full["not_given"] == []


def test_gaps_say_in_which_direction_they_err(ledger):
    rows = {row["meter"]: row for row in record(ledger)["gaps"]}
    assert rows["grid.import"]["bias"] == "high" and rows["grid.import"]["kwh"] == "1.500000"
    assert rows["it.load"]["bias"].startswith("none in sum")
    assert (rows["it.load"]["start"], rows["it.load"]["end"]) == ("2024-03-01T00:30Z", "2024-03-01T00:45Z")


def test_a_purchase_agreement_is_matched_in_its_hour_and_stays_a_part_of_the_grid(ledger):
    ppa = Instrument(HOUR, HOUR + 3600, 9 * KWH, 0, "wind farm", "ppa", True, "X-1")
    later = Instrument(HOUR + 1800, HOUR + 3600, KWH, 0, "wind farm", "ppa", True, "X-2")
    found = record(ledger, instruments=[ppa, later], residual_ug_per_kwh=1)
    row = next(row for row in found["sources"] if row["kind"] == "SOE02")
    assert (row["mwh"], row["same_period_mwh"], row["within"]) == ("0.010000000", "0.006000000", "grid")
    assert found["balance"]["import"] == "0.006000000" and found["ef_article9_t_per_mwh"] == "0.30000"


def test_the_signed_block_over_the_last_entry_is_named(ledger):
    found = record(ledger)["ledger"]
    block = next(iter(ledger.entries("block")))
    assert found["signature"] == {"block_seq": block.seq, "key": block.body["key"],
                                  "signature": block.body["signature"]}  # fmt: skip
    assert block.body["first"] <= found["last_seq"] <= block.body["last"]


def test_a_report_of_before_its_block_still_verifies_after_it(tmp_path, ledger):
    unsigned = Ledger(tmp_path / "u.db")
    for entry in ledger.entries():
        if entry.kind != "block":
            unsigned.append([(entry.kind, entry.start_utc_s, entry.body)])
    runner = CliRunner()
    words = ["report", str(tmp_path / "u.db"), "--span", "2024-03-01", "--out", str(tmp_path / "r"), "--no-pdf"]
    assert runner.invoke(carbon, words).exit_code == 0
    said = json.loads((tmp_path / "r" / "report.json").read_text())
    assert said["evidence"]["ledger"]["signature"] is None
    sign(unsigned, DeviceKey.at(tmp_path / "k.pem"), "hall 7", least=1)
    words = ["verify", str(tmp_path / "u.db"), "--report", str(tmp_path / "r" / "report.json")]
    shown = runner.invoke(carbon, words)
    assert shown.exit_code == 0, shown.output


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"nmae": "x"}, "unknown key 'nmae'; known: name, operator"),
        ({"meters": [{"id": "grid", "colour": "red"}]}, "meters: unknown key 'colour'"),
        ({"meters": ["grid"]}, "meters: expected an object"),
        ({"meters": [{"id": "grid", "mpe_pct": "much"}]}, "mpe_pct: 'much' is not a number"),
        ({"meters": [{"id": "grid", "mpe_pct": "-1"}]}, "'-1' is not a percentage"),
        ({"sources": [{"source": "grid", "ef_method": "guess"}]}, "ef_method 'guess', expected one of default"),
        ([], "expected an object"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused_by_key(given, words):
    with pytest.raises(ValueError, match=words):
        check_installation(given, "site.json")


def test_numbers_of_a_declaration_stay_as_they_were_written(tmp_path, ledger):
    (tmp_path / "site.json").write_text('{"name": "hall 7", "lat": 53.550000, "lon": 9.99}')
    ledger.close()
    words = ["report", str(tmp_path / "l.db"), "--span", "2024-03-01", "--out", str(tmp_path / "r"), "--no-pdf",
             "--installation", str(tmp_path / "site.json")]  # fmt: skip
    shown = CliRunner().invoke(carbon, words)
    assert shown.exit_code == 0, shown.output
    found = json.loads((tmp_path / "r" / "report.json").read_text())["evidence"]["installation"]
    assert (found["lat"], found["lon"]) == ("53.550000", "9.99")


def test_what_came_through_storage_is_priced_at_the_grid_where_it_was_used():
    """PV into the battery at noon, out of it in the evening: nothing of that is of the same period."""
    nodes = Nodes(
        (Flow("grid.import", "grid", "import", "g"), Flow("pv.generation", "pv", "generation", "p"),
         Flow("it.load", "it", "load", "i"), Flow("b.charge", "b", "charge", "c"),
         Flow("b.discharge", "b", "discharge", "d")),
        (Storage("b", 10**8, 1_000_000, 1_000_000),), None, {"grid": "grid", "pv": "pv", "it": "it", "b": "ess"},
    )  # fmt: skip
    steps = [Step(0, 900, 100_000_000), Step(900, 1800, 400_000_000)]
    account = Accountant("s", nodes, Factors(Series("X", "average", "t", steps=steps).finish(), 1, ""), true_up="never")
    kwh = 10**6
    noon = {"grid.import": 0, "pv.generation": 3 * kwh, "it.load": 0, "b.charge": 3 * kwh, "b.discharge": 0}
    evening = {"grid.import": 1 * kwh, "pv.generation": 0, "it.load": 4 * kwh, "b.charge": 0, "b.discharge": 3 * kwh}
    bodies = []
    for start, energies in ((0, noon), (900, evening)):
        flows = {name: FlowPeriod(e, "good", "register", [], 0, 0, None, 900.0) for name, e in energies.items()}
        bodies.append(account.book(BookedPeriod(start, 900, flows, [], 900, 0, None, "S")))
    sums = add_up(bodies)
    assert sums.shifted_milliwh == {"pv": 3 * kwh} and sums.shifted_ug == {"pv": 3 * kwh * 400}
    assert sums.same_period_milliwh["grid"] == kwh and sums.same_period_ug["grid"] == kwh * 400
    found = evidence_record(
        sums, {"kinds": nodes.kinds, "flows": {}}, {}, scope="", policy="average", longest_s=900, span=(0, 1800),
        sync={"S": 2}, gaps=[], edits=[], chain={}, instruments=(), imports=[(0, 900, 0), (900, 900, kwh)], grid={},
    )  # fmt: skip
    assert found["storage"]["time_shifted_mwh"] == {"pv": "0.003000000"}
    assert found["storage"]["time_shifted_t_co2e"] == {"pv": "0.001200000000"}
    assert found["indirect_t_co2e"] == "0.001600000000"  # 4 kWh at the evening's 400 g, and not 1 of them
    assert found["ef_article9_t_per_mwh"] == "0.40000"
    assert (found["share_actual"], found["share_time_shifted"]) == ("0.000000", "0.750000")
