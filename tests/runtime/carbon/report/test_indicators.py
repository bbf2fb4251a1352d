"""Indicators against figures worked by hand, and what is not measured is said so and never 0."""

import json
import random
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from tidegate.hal.description import described
from tidegate.runtime.carbon.engine.account import Accountant
from tidegate.runtime.carbon.engine.booking import BookedPeriod, FlowPeriod
from tidegate.runtime.carbon.engine.topology import nodes_of
from tidegate.runtime.carbon.factors.instruments import carbon_free_by_hour, read_instruments
from tidegate.runtime.carbon.factors.series import FactorError, Factors, Series, Step
from tidegate.runtime.carbon.ledger.ledger import Ledger
from tidegate.runtime.carbon.readings.file_registers import Registers
from tidegate.runtime.carbon.readings.readings import read_readings, take_in
from tidegate.runtime.carbon.report.document import gather
from tidegate.runtime.carbon.report.indicators import DECLARED, DEFINITIONS
from tidegate.runtime.carbon.report.write import write
from tidegate.runtime.cli.carbon_commands import carbon

DAY = 1_709_251_200  # 2024-03-01T00:00Z
KWH = 1_000_000
QUARTERS = 8

# Two hours. First: 10 kWh from the grid, 5 from the source of our own, 1 exported, 12 to IT, 2 to cooling.
# Second: 20 from the grid, 16 to IT, 4 to cooling.
FIRST = {"grid.import": 10, "grid.export": 1, "own.generation": 5, "it.load": 12, "cool.load": 2}
SECOND = {"grid.import": 20, "grid.export": 0, "own.generation": 0, "it.load": 16, "cool.load": 4}


def site(role="pv"):
    nodes = [{"role": "grid", "device": "grid", "positive_wh": "grid.import_wh", "negative_wh": "grid.export_wh"},
             {"role": "it", "device": "it", "positive_wh": "it.import_wh", "negative_wh": None},
             {"role": "cooling", "device": "cool", "positive_wh": "cool.import_wh", "negative_wh": None},
             {"role": role, "device": "own", "positive_wh": "own.import_wh", "negative_wh": None}]  # fmt: skip
    points = [name for node in nodes for name in (node["positive_wh"], node["negative_wh"]) if name]
    return {"points": [{"name": name} for name in points], "nodes": nodes, "units": []}


def booked(path, role="pv", cfe=(400_000, 250_000)):
    """A ledger of the two hours; cfe : carbon-free share of the grid in each, ppm."""
    ledger = Ledger(path)
    ledger.begin("hand")
    nodes = nodes_of(described(site(role)))
    ledger.append([("method", 0, {"kinds": nodes.kinds, "storages": {}, "flows": {}})])
    shares = [Step(DAY + 3600 * i, DAY + 3600 * i + 3600, ppm) for i, ppm in enumerate(cfe)]
    clean = Series("X", "cfe", "c", steps=shares).finish() if cfe else None
    accountant = Accountant("hand", nodes, Factors(None, 300 * KWH, "test", cfe=clean))
    for i in range(QUARTERS):
        milliwh = {name: kwh * KWH // 4 for name, kwh in (FIRST if i < 4 else SECOND).items()}
        flows = {name: FlowPeriod(one, "good", "register", [], 0, one, None, 900.0) for name, one in milliwh.items()}
        body = accountant.book(BookedPeriod(DAY + 900 * i, 900, flows, [], 900, 0, None, "S"))
        ledger.append([("period", DAY + 900 * i, body)])
    return ledger


def stamp(seconds):
    return datetime.fromtimestamp(DAY + seconds, UTC).strftime("%Y-%m-%dT%H:%MZ")


def table(path, *rows):
    path.write_text("time_utc,meter,quantity,reading,unit\n" + "".join(
        f"{stamp(at)},{meter},{quantity},{value},{unit}\n" for at, meter, quantity, value, unit in rows))  # fmt: skip
    return path


@pytest.fixture
def instruments(tmp_path):
    path = tmp_path / "i.csv"
    path.write_text(
        "start_utc,end_utc,wh,g_per_kwh,source,kind,renewable,cancelled\n"
        f"{stamp(3600)},{stamp(7200)},8000,0,wind farm,goo,yes,X-1\n"
    )
    return read_instruments(path)


def test_the_figures_worked_by_hand(tmp_path, instruments):
    ledger = booked(tmp_path / "l.db")
    meters = table(tmp_path / "r.csv", (0, "w1", "water", "100.000", "m3"), (3600, "w1", "water", "100.020", "m3"),
                   (7200, "w1", "water", "100.056", "m3"), (0, "h1", "heat-reused", "0.5", "MWh"),
                   (7200, "h1", "heat-reused", "0.5068", "MWh"))  # fmt: skip
    assert take_in(ledger, read_readings(meters)) == 5
    document, *_ = gather(ledger, DAY, DAY + 7200, instruments=instruments, residual_ug_per_kwh=300 * KWH)
    found = document["indicators"]
    # E_DC = 10 + 5 - 1 + 20 = 34 kWh, E_IT = 28 kWh.
    assert found["pue"] == "1.2143"
    assert found["wue_l_per_kwh"] == "2.000000"  # 56 L over 28 kWh
    assert found["erf"] == "0.200000"  # 6.8 kWh of 34
    # Own: a third of the first hour's pool, so 14/3 of its 14 kWh of loads; with 8 kWh of certificates 12.667 of 34.
    assert found["ref"] == "0.372549"
    assert found["ref_basis"] == ["own generation", "guarantees of origin", "power purchase agreements"]
    assert found["renewable_share_direct"] == "0.137255"  # 4.667 of 34
    assert found["renewable_share_through_storage"] == "0.000000"
    # Own used here: 5 - 1 = 4. L = 14 and 20, c = 4 and 8: 12 of 34.
    assert found["hourly_matched_share"] == "0.352941"
    # 4 + 10 x 0.40 + 8 + 12 x 0.25 = 19 of 34.
    assert found["cfe_score"] == "0.558824"
    assert found["cfe_grid_known_share"] == "1.000000"
    # Carbon: 30 kWh x 300 g = 9 kg; of the first hour's 3 kg a fifteenth left with the exported kWh: 8.8 kg over 28.
    assert found["cue_kg_per_kwh"] == "0.314286"
    assert document["eu_2024_1364"]["fields"]["W_IN"] == {
        "value": "0.056000", "unit": "m3", "basis": "readings of w1"
    }  # fmt: skip


def test_what_nobody_measured_is_named_and_is_not_zero(tmp_path):
    ledger = booked(tmp_path / "l.db", role="generator", cfe=())
    document, *_ = gather(ledger, DAY, DAY + 7200)
    found = document["indicators"]
    for key in ("ref", "erf", "wue_l_per_kwh", "cfe_score"):
        assert found[key] is None
    named = " ".join(found["not_measured"])
    for name in ("REF: no renewable", "ERF: no readings", "WUE: no readings", "24/7 CFE score: no carbon-free share"):
        assert name in named
    eu = document["eu_2024_1364"]
    assert {"W_IN", "E_REUSE", "E_RES_TOT", "E_RES_OS", "T_IN", "S_DC"} <= set(eu["not_measured"])
    assert all((eu["fields"][name]["value"] is None) == (name in eu["not_measured"]) for name in eu["fields"])
    assert all(eu["fields"][name]["basis"].startswith("not measured: ") for name in eu["not_measured"])
    # A generator is a source of the site's own, and burns something.
    assert found["renewable_share_direct"] == "0.000000"
    assert eu["fields"]["E_DC_BG"] == {
        "value": "5.000000", "unit": "kWh", "basis": "metered: generators of the site"
    }  # fmt: skip


def test_readings_that_do_not_span_the_report_give_no_figure(tmp_path):
    ledger = booked(tmp_path / "l.db")
    take_in(ledger, read_readings(table(tmp_path / "r.csv", (0, "w1", "water", 100, "m3"),
                                        (3600, "w1", "water", "100.02", "m3"))))  # fmt: skip
    found = gather(ledger, DAY, DAY + 7200)[0]["indicators"]
    assert found["wue_l_per_kwh"] is None
    assert any("w1: read from 2024-03-01T00:00Z to 2024-03-01T01:00Z, not over the whole span" in row
               for row in found["not_measured"])  # fmt: skip
    assert gather(ledger, DAY, DAY + 3600)[0]["indicators"]["wue_l_per_kwh"] == f"{20 / 12:.6f}"


def test_a_reading_that_is_restated_supersedes_and_an_equal_one_is_no_new_entry(tmp_path):
    ledger = booked(tmp_path / "l.db")
    rows = [(0, "w1", "water", 100, "m3"), (7200, "w1", "water", 101, "m3")]
    assert take_in(ledger, read_readings(table(tmp_path / "r.csv", *rows))) == 2
    assert take_in(ledger, read_readings(tmp_path / "r.csv")) == 0
    rows[1] = (7200, "w1", "water", 102, "m3")
    assert take_in(ledger, read_readings(table(tmp_path / "r.csv", *rows))) == 1
    registers = Registers()
    for entry in ledger.entries("reading"):
        registers.add(entry.body)
    assert registers.amount("water", DAY, DAY + 7200).total == 2_000_000  # mL
    assert ledger.verify() == []


def test_a_register_that_goes_back_or_jumps_is_a_named_gap_and_never_a_figure(tmp_path):
    ledger = booked(tmp_path / "l.db")
    values = ["100", "100.01", "100.02", "1000100.03", "100.04", "3", "3.01", "3.02", "3.03"]
    rows = [(900 * i, "w1", "water", value, "m3") for i, value in enumerate(values)]
    take_in(ledger, read_readings(table(tmp_path / "r.csv", *rows)))
    water = gather(ledger, DAY, DAY + 7200)[0]["indicators"]["readings"]["water"]
    # What passed is not known, and nobody guesses it: the place and the remedy are named.
    assert water["total"] is None and water["why"].startswith(
        "w1 from 2024-03-01T00:30Z to 2024-03-01T00:45Z: a mean of"
    )
    rows = [row for row in rows if row[3] != "1000100.03"]
    ledger = booked(tmp_path / "fell.db")
    take_in(ledger, read_readings(table(tmp_path / "r.csv", *rows)))
    water = gather(ledger, DAY, DAY + 7200)[0]["indicators"]["readings"]["water"]
    assert (
        water["total"] is None and "the register fell from 100040000 to 3000000 mL; say what happened" in water["why"]
    )
    assert gather(ledger, DAY, DAY + 3600)[0]["indicators"]["readings"]["water"]["total"] == 40_000  # before it


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("2024-03-01T00:00Z,w,steam,1,kg", "quantity 'steam', expected one of water"),
        ("2024-03-01T00:00Z,w,water,1,kWh", "unit 'kWh' of water; use one of L, m3"),
        ("2024-03-01T00:00Z,w,water,-1,L", "a register cannot read -1"),
        ("2024-03-01T00:00Z,w,water,nan,L", "'nan' is not a finite number"),
        ("2024-03-01T00:00Z,w,water,much,L", "'much' is not a number"),
        ("2024-03-01T00:00,w,water,1,L", "has no offset"),
        ("2024-03-01T00:00Z,,water,1,L", "no meter is named"),
        ("2024-03-01T00:00Z,w", "fewer fields"),
        ("2024-03-01T00:00Z,w,water,1,L\n2024-03-01T00:00Z,w,water,2,L", "times must rise"),
    ],
)
def test_a_reading_that_cannot_be_is_refused_by_line(tmp_path, row, words):
    (tmp_path / "r.csv").write_text(f"time_utc,meter,quantity,reading,unit\n{row}\n")
    with pytest.raises(FactorError, match=f"r.csv, line [23].*{words}"):
        read_readings(tmp_path / "r.csv")


def test_an_instrument_over_two_hours_counts_in_both_by_its_time(tmp_path):
    path = tmp_path / "i.csv"
    path.write_text(
        f"start_utc,end_utc,wh,g_per_kwh,source\n{stamp(2700)},{stamp(6300)},1000,0,wind\n"
        f"{stamp(0)},{stamp(3600)},1000,5,gas\n"
    )
    assert carbon_free_by_hour(read_instruments(path)) == {DAY: 250_000, DAY + 3600: 750_000}


@pytest.mark.parametrize(
    ("tail", "words"), [("green,yes,X", "kind 'green'"), ("goo,maybe,X", "renewable 'maybe', expected yes or no")]
)
def test_an_instrument_of_an_unknown_kind_is_refused_by_line(tmp_path, tail, words):
    head = "start_utc,end_utc,wh,g_per_kwh,source,kind,renewable,cancelled"
    (tmp_path / "i.csv").write_text(f"{head}\n{stamp(0)},{stamp(3600)},1,0,x,{tail}\n")
    with pytest.raises(FactorError, match=f"line 2: {words}"):
        read_instruments(tmp_path / "i.csv")


def test_a_certificate_that_is_not_cancelled_or_not_renewable_is_not_in_ref(tmp_path):
    ledger = booked(tmp_path / "l.db")
    path = tmp_path / "i.csv"
    path.write_text(
        "start_utc,end_utc,wh,g_per_kwh,source,kind,renewable,cancelled\n"
        f"{stamp(0)},{stamp(3600)},4000,0,a,goo,yes,\n{stamp(0)},{stamp(3600)},4000,0,b,goo,no,X-2\n"
        f"{stamp(3600)},{stamp(7200)},500,0,c,ppa,yes,X-3\n"
    )
    fields = gather(ledger, DAY, DAY + 7200, instruments=read_instruments(path), residual_ug_per_kwh=1)[0][
        "eu_2024_1364"]["fields"]  # fmt: skip
    assert fields["E_RES_GOO"]["value"] == "0.000000" and fields["E_RES_PPA"]["value"] == "0.500000"
    own = float(fields["E_RES_OS"]["value"])
    assert float(fields["E_RES_TOT"]["value"]) == pytest.approx(own + 0.5) and own == pytest.approx(14 / 3, abs=1e-5)


def test_the_fields_of_the_act_are_these(tmp_path):
    """Those that the fact sheet and the page docs/carbon-reports.md list, measured or named."""
    fields = gather(booked(tmp_path / "l.db"), DAY, DAY + 7200)[0]["eu_2024_1364"]["fields"]
    measured = "E_DC E_IT E_DC_BG E_REUSE W_IN W_IN_POT E_RES_TOT E_RES_GOO E_RES_PPA E_RES_OS C_BTG PUE WUE ERF REF"
    assert set(fields) == {*measured.split(), *DECLARED}
    page = Path("docs/carbon-reports.md").read_text(encoding="utf-8")
    assert [name for name in fields if name not in page] == []
    assert all(row["value"] is None or isinstance(row["value"], str) for row in fields.values())


def test_every_declared_field_can_be_declared_and_no_other(tmp_path):
    ledger = booked(tmp_path / "l.db")
    said = {name: f"{number}" for number, name in enumerate(DECLARED)}
    fields = gather(ledger, DAY, DAY + 7200, installation={"eu_2024_1364": said})[0]["eu_2024_1364"]["fields"]
    for name, value in said.items():
        assert (fields[name]["value"], fields[name]["basis"]) == (value, "declared by the operator")
    with pytest.raises(ValueError, match="'E_IT' is not declared by hand"):
        gather(ledger, DAY, DAY + 7200, installation={"eu_2024_1364": {"E_IT": "1"}})


def test_the_page_and_the_table_show_every_indicator_with_its_definition(tmp_path, instruments):
    ledger = booked(tmp_path / "l.db")
    found = write(ledger, DAY, DAY + 7200, tmp_path / "r", pdf=False, languages=("en", "zh"),
                  instruments=instruments, residual_ug_per_kwh=300 * KWH)  # fmt: skip
    document = json.loads(found["json"].read_text())
    assert set(DEFINITIONS) <= set(document["indicators"])
    page = found["html en"].read_text()
    rows = found["indicators csv"].read_text()
    for key in ("ref", "hourly_matched_share", "cfe_score"):
        assert document["indicators"][key] in page and document["indicators"][key] in rows
    assert "not measured" in page and "未测量" in found["html zh"].read_text()
    for name, row in document["eu_2024_1364"]["fields"].items():
        assert f"eu_2024_1364,{name},{row['value'] or 'not measured'}," in rows


def test_a_report_with_certificates_and_declarations_verifies_and_a_changed_one_does_not(tmp_path, instruments):
    ledger = booked(tmp_path / "l.db")
    found = write(ledger, DAY, DAY + 7200, tmp_path / "r", pdf=False, instruments=instruments,
                  residual_ug_per_kwh=300 * KWH, installation={"name": "hall"})  # fmt: skip
    words = ["verify", str(tmp_path / "l.db"), "--report", str(found["json"])]
    assert CliRunner().invoke(carbon, words).exit_code == 0
    raw = found["json"].read_bytes()
    rng = random.Random(6)
    places = [raw.index(part) + rng.randrange(600) for part in (b'"evidence"', b'"given"', b'"indicators"')
              for _ in range(10)]  # fmt: skip
    for at in places:
        changed = bytearray(raw)
        changed[at] ^= 1 << rng.randrange(8)
        found["json"].write_bytes(changed)
        result = CliRunner().invoke(carbon, words)
        assert result.exit_code == 1 and "report" in result.output, at
    found["json"].write_bytes(raw)
    text = found["json"].read_text().replace('"cfe_score":"0.558824"', '"cfe_score":"0.958824"')
    found["json"].write_text(text)
    result = CliRunner().invoke(carbon, words)
    assert result.exit_code == 1 and "report.indicators.cfe_score: says '0.958824'" in result.output
