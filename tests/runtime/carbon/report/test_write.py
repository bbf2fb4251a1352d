"""Reports: the same numbers in every form, the same bytes every time, and every number the ledger's."""

import csv
import io
import json
import os
import random
from decimal import Decimal

import pytest
from click.testing import CliRunner

from tidegate.hal.description import described
from tidegate.runtime.carbon.engine.account import Accountant
from tidegate.runtime.carbon.engine.booking import BookedPeriod, FlowPeriod
from tidegate.runtime.carbon.engine.topology import nodes_of
from tidegate.runtime.carbon.factors.instruments import read_instruments
from tidegate.runtime.carbon.factors.series import FactorError, Factors, Series, Step
from tidegate.runtime.carbon.ledger.ledger import Ledger
from tidegate.runtime.carbon.report.document import gather
from tidegate.runtime.carbon.report.language import Language
from tidegate.runtime.carbon.report.write import (
    FLOW_COLUMNS,
    Bins,
    ReportError,
    flow_lines,
    pdf_font,
    span_of,
    write,
)
from tidegate.runtime.cli.carbon_commands import carbon

FLIPS = int(os.environ.get("CARBON_FLIPS", "150"))
DAY = 1_709_251_200  # 2024-03-01
G = 1_000_000
DESCRIBE = {
    "points": [{"name": n} for n in ("grid.import_wh", "grid.export_wh", "it.import_wh", "cool.import_wh",
                                     "roof.import_wh", "site.ess_discharged_ws", "site.ess_charged_ws",
                                     "site.ess_covered_s")],
    "nodes": [{"role": "grid", "device": "grid", "positive_wh": "grid.import_wh", "negative_wh": "grid.export_wh"},
              {"role": "it", "device": "it", "positive_wh": "it.import_wh", "negative_wh": None},
              {"role": "cooling", "device": "cool", "positive_wh": "cool.import_wh", "negative_wh": None},
              {"role": "pv", "device": "roof", "positive_wh": "roof.import_wh", "negative_wh": None},
              {"role": "ess", "device": "pcs1", "positive_wh": None, "negative_wh": None}],
    "units": [{"name": "cabinet", "energy_wh": 60_000.0}],
}  # fmt: skip


@pytest.fixture
def ledger(tmp_path):
    """A sunny day: PV charges the cabinet at noon, the cabinet feeds the room in the evening, one gap."""
    made = Ledger(tmp_path / "ledger.db")
    made.begin("hall <7>")
    nodes = nodes_of(described(DESCRIBE))
    method = {"kinds": nodes.kinds, "storages": {"cabinet": [60_000_000, 970_000, 970_000]}, "notes": ["a note"],
              "software": "test", "grid_factor": {"sha256": "", "source": "t"}}  # fmt: skip
    made.append([("method", 0, method)])
    half_hours = [(DAY + 1800 * i, (150 + i) * G, "actual" if i % 5 else "forecast") for i in range(46)]
    steps = [Step(start, start + 1800, value, status) for start, value, status in half_hours]
    marginal = [Step(DAY, DAY + 86_400, 400 * G)]
    factors = Factors(Series("GB", "average", "t", steps=steps).finish(), 500 * G, "fallback",
                      marginal=Series("GB", "marginal", "m", steps=marginal).finish())  # fmt: skip
    accountant = Accountant("hall <7>", nodes, factors)
    rng = random.Random(5)
    for i in range(96):
        sun = max(0, 9_000_000 - (i - 48) ** 2 * 10_000)
        charge, discharge = (3_000_000, 0) if 40 <= i < 56 else (0, 2_400_000 if 68 <= i < 84 else 0)
        it = 8_000_000 + rng.randrange(10**6)
        out = it + it // 12 + 30_000 + charge
        milliwh = {"grid.import": max(0, out - sun - discharge), "grid.export": max(0, sun + discharge - out),
               "it.load": it, "cool.load": it // 12, "roof.generation": sun, "cabinet.charge": charge,
               "cabinet.discharge": discharge}  # fmt: skip
        flows = {k: FlowPeriod(v, "good", "register", [], 0, v, None, 900.0) for k, v in milliwh.items()}
        if i in (20, 21):
            flows["it.load"].quality, flows["it.load"].flags = "estimated", ["GAP"]
        booked = BookedPeriod(DAY + 900 * i, 900, flows, [], 900, 0, None, "S")
        made.append([("period", booked.start_utc_s, accountant.book(booked))])
    return made


def test_every_form_holds_the_same_numbers(ledger, tmp_path):
    found = write(ledger, DAY, DAY + 86_400, tmp_path / "r", languages=("en", "zh"), pdf=False)
    document = json.loads(found["json"].read_text())
    rows = list(csv.DictReader(io.StringIO(found["csv"].read_text())))
    for name, kwh in document["energy_kwh"]["outflow"].items():
        mine = [row for row in rows if row["node"] == name and row["kind"].startswith("outflow")]
        assert sum(Decimal(row["energy_kwh"]) for row in mine) == Decimal(kwh)
        assert sum(int(row["carbon_ug"]) for row in mine) == document["carbon_ug"]["outflow"][name]
    shown = f"{float(document['energy_kwh']['inflow']['grid']):,.3f}"
    for language in ("en", "zh"):
        page = found[f"html {language}"].read_text()
        assert shown in page and document["sha256"] in page and "hall &lt;7&gt;" in page
        assert Language(language).text("Energy and carbon account") in page
    assert document["carbon_ug"]["balance_error"] == 0
    (gap,) = document["gaps"]
    assert (gap["flow"], gap["start_utc_s"], gap["end_utc_s"]) == ("it.load", DAY + 18_000, DAY + 19_800)
    assert (gap["quality"], gap["flags"]) == ("estimated", ["GAP"])


def test_the_same_ledger_gives_the_same_bytes(ledger, tmp_path):
    one, two = (write(ledger, DAY, DAY + 86_400, tmp_path / name) for name in ("1", "2"))
    for name in one:
        assert one[name].read_bytes() == two[name].read_bytes(), name
    assert one["pdf en"].read_bytes().startswith(b"%PDF")


def test_solar_energy_is_told_apart_direct_and_through_storage(ledger):
    document, _, ratios = gather(ledger, DAY, DAY + 86_400)
    assert document["evidence"]["storage"]["time_shifted_mwh"]["roof"] > "0.0"
    assert 0 < ratios.renewable_stored < ratios.renewable_direct < 1
    roof = next(row for row in document["evidence"]["sources"] if row["source"] == "roof")
    assert roof["kind"] == "SOE01" and float(roof["same_period_mwh"]) < float(roof["mwh"])
    own = document["eu_2024_1364"]["fields"]["E_RES_OS"]
    assert float(own["value"]) / 1000 > float(roof["same_period_mwh"]) and own["unit"] == "kWh"
    assert document["indicators"]["pue_kind"] == "interim"
    assert document["consequence_ug"]["caused_by_charging"] > document["consequence_ug"]["avoided_by_discharging"]


def test_matching_by_period_claims_less_than_netting(ledger, tmp_path):
    path = tmp_path / "i.csv"
    path.write_text("start_utc,end_utc,wh,g_per_kwh,source\n" + "".join(
        f"2024-03-01T{h:02d}:00Z,2024-03-01T{h + 1:02d}:00Z,60000,0,wind farm\n" for h in range(4)))  # fmt: skip
    document, *_ = gather(ledger, DAY, DAY + 86_400, instruments=read_instruments(path), residual_ug_per_kwh=300 * G)
    market = document["scope2"]["market_based"]
    assert market["matched_milliwh"] < market["instruments_milliwh"] == 240_000_000
    assert market["netted_ug"] < market["hourly_ug"]
    assert float(market["hourly_matched_share"]) < float(market["netted_share"])


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("2024-03-01T00:00Z,2024-03-01T02:00Z,1,0,x", "an interval of 7200 s"),
        ("2024-03-01T00:00Z,2024-03-01T01:00Z,-1,0,x", "is negative"),
        ("2024-03-01T00:00Z,2024-03-01T01:00Z,many,0,x", "is not a number"),
        ("2024-03-01T00:00,2024-03-01T01:00Z,1,0,x", "has no offset"),
    ],
)
def test_an_instrument_that_cannot_be_is_refused_by_line(tmp_path, row, words):
    (tmp_path / "i.csv").write_text(f"start_utc,end_utc,wh,g_per_kwh,source\n{row}\n")
    with pytest.raises(FactorError, match=f"line 2.*{words}"):
        read_instruments(tmp_path / "i.csv")


def test_words_that_promise_too_much_never_appear_and_the_scope_always_does(ledger, tmp_path):
    found = write(ledger, DAY, DAY + 86_400, tmp_path / "r", languages=("en", "zh"), pdf=False)
    for path in found.values():
        text = path.read_text().lower()
        for word in ("compliant", "certified", "zero carbon"):
            assert word not in text
    assert "not verified" in found["html en"].read_text() and "未经核验" in found["html zh"].read_text()


def test_a_report_changed_anywhere_is_found_and_located(ledger, tmp_path):
    found = write(ledger, DAY, DAY + 86_400, tmp_path / "r", pdf=False)
    path, runner = found["json"], CliRunner()
    words = ["verify", str(tmp_path / "ledger.db"), "--report", str(path)]
    assert runner.invoke(carbon, words).exit_code == 0
    raw = path.read_bytes()
    rng = random.Random(3)
    for trial in range(max(20, FLIPS // 5)):
        changed = bytearray(raw)
        at = rng.randrange(len(raw))
        changed[at] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        result = runner.invoke(carbon, words)
        assert result.exit_code == 1 and "report" in result.output, (trial, at)
    path.write_bytes(raw.replace(b'"lost":0', b'"lost":1'))
    assert "report.records.lost: says 1, the ledger says 0" in runner.invoke(carbon, words).output


def test_a_span_without_periods_is_refused(ledger, tmp_path):
    result = CliRunner().invoke(
        carbon, ["report", str(tmp_path / "ledger.db"), "--span", "2025", "--out", str(tmp_path)]
    )
    assert result.exit_code == 78 and "no period is booked" in result.output


@pytest.mark.parametrize(("text", "days"), [("2024-02-29", 1), ("2024-02", 29), ("2024-12", 31), ("2024", 366)])
def test_a_span_is_a_whole_day_month_or_year(text, days):
    start, end = span_of(text)
    assert end - start == days * 86_400


def test_a_span_of_another_form_is_refused():
    with pytest.raises(ValueError, match="expected a day, month or year"):
        span_of("last week")


def test_a_machine_without_chinese_letters_is_told_which_font(monkeypatch):
    from matplotlib import font_manager

    monkeypatch.setattr(font_manager.fontManager, "ttflist", [])
    monkeypatch.setattr(font_manager, "findSystemFonts", list)
    with pytest.raises(ReportError, match="no font with Chinese letters"):
        pdf_font("zh")


def test_bins_over_time_keep_the_energy(ledger):
    bodies = [entry.body for entry in ledger.entries("period")] * 11
    bins = Bins(len(bodies))
    for body in bodies:
        bins.add(body)
    series = bins.series()
    assert len(series["hours"]) <= 400
    whole = sum(o["energy_milliwh"] for body in bodies for o in body["outflows"] if o["name"] == "it")
    assert series["energy"]["it"].sum() == pytest.approx(whole / 1e6)


def test_lines_of_flows_are_what_a_writer_of_rows_would_write(ledger):
    """Names that a spreadsheet takes for formulas, commas and quotes included."""
    (entry, *_) = ledger.entries("period")
    body = json.loads(json.dumps(entry.body))
    body["flows"]['=cmd|"x",1.load'] = {**body["flows"]["it.load"], "method": "a, b"}
    body["outflows"].append({"name": "-rack, 7", "kind": "load", "energy_milliwh": 1, "ug": -5, "origins": {}})
    body["flags"] = ["GAP x", '"odd", flag']
    rows = list(csv.DictReader(io.StringIO(",".join(FLOW_COLUMNS) + "\n" + flow_lines(body))))
    assert len(rows) == len(body["flows"]) + len(body["outflows"]) and not any(None in row for row in rows)
    odd = next(row for row in rows if "cmd" in row["node"])
    assert (odd["node"], odd["kind"], odd["method"]) == ('\'=cmd|"x",1', "load", "a, b")
    assert odd["flags"] == 'GAP_x "odd",_flag' and odd["factor_status"] == ""
    assert rows[-1]["node"] == "'-rack, 7" and rows[-1]["carbon_ug"] == "-5" and rows[-1]["energy_kwh"] == "0.000001"
    grid = next(row for row in rows if (row["node"], row["kind"]) == ("grid", "import"))
    assert int(grid["factor_ug_per_kwh"]) == body["factors"]["grid"]["ug_per_kwh"] and grid["factor_status"]
