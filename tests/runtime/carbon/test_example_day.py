"""The demo's day: measured power, PV and factors through the sidecar's own booking."""

import json
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner

from tidegate.runtime.carbon.example_day import DAY_UTC_S, day_name
from tidegate.runtime.carbon.ledger.ledger import Ledger
from tidegate.runtime.carbon.report.totals import add_up
from tidegate.runtime.cli.carbon_commands import carbon

PAGE = Path("docs/carbon.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def day(tmp_path_factory):
    out = tmp_path_factory.mktemp("day")
    done = CliRunner().invoke(carbon, ["day", "--out", str(out)])
    assert done.exit_code == 0, done.output
    return out


def test_the_day_is_booked_whole_and_every_register_explains_its_energy(day):
    bodies = [entry.body for entry in Ledger(day / "ledger.db", read_only=True).entries("period")]
    assert len(bodies) == 96 and add_up(bodies).worst_error_ug == 0
    for name in bodies[0]["flows"]:
        first, last = bodies[0]["flows"][name], bodies[-1]["flows"][name]
        assert (
            sum(body["flows"][name]["energy_milliwh"] for body in bodies)
            == last["close_milliwh"] - first["open_milliwh"]
        ), name
        assert {body["flows"][name]["quality"] for body in bodies} == {"good"}, name


def test_its_jobs_are_settled_and_its_report_verifies(day, tmp_path):
    ledger = str(day / "ledger.db")
    run = CliRunner().invoke
    done = run(carbon, ["settle", ledger, "--jobs", str(day / "jobs.jsonl"), "--span", day_name()])
    assert done.exit_code == 0 and " 0 set aside, 1 days settled" in done.output, done.output
    done = run(carbon, ["report", ledger, "--span", day_name(), "--out", str(tmp_path), "--no-pdf"])
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "report.json").read_text())
    compute = report["compute"]
    energy = report["energy_kwh"]
    assert Decimal(compute["jobs_kwh"]) + Decimal(compute["idle_kwh"]) == Decimal(energy["outflow"]["it"])
    assert report["price"]["import_cost_u"] == int(Decimal(energy["inflow"]["grid"]) * 250_000)  # 0.25 a kilowatt-hour
    assert report["indicators"]["pue_category"] == "as metered"
    done = run(carbon, ["verify", ledger, "--report", str(tmp_path / "report.json")])
    assert done.exit_code == 0 and "0 differences" in done.output


def test_the_page_s_quarter_hour_at_17_00_is_what_the_ledger_holds(day):
    """docs/carbon.md works it out by hand."""
    entries = Ledger(day / "ledger.db", read_only=True).entries(
        "period", DAY_UTC_S + 17 * 3600, DAY_UTC_S + 17 * 3600 + 1
    )
    (body,) = [entry.body for entry in entries]
    flows, stock = body["flows"], body["stock"]["cabinet"]
    outflows = {out["name"]: out for out in body["outflows"]}
    for value, scale, text in (
        (flows["grid.import"]["energy_milliwh"], 1e6, "3.480 kWh"),
        (flows["roof.generation"]["energy_milliwh"], 1e6, "5.744 kWh"),
        (flows["cabinet.discharge"]["energy_milliwh"], 1e6, "2.250 kWh"),
        (flows["it.load"]["energy_milliwh"], 1e6, "9.501 kWh"),
        (flows["cooling.load"]["energy_milliwh"], 1e6, "0.760 kWh"),
        (flows["grid.export"]["energy_milliwh"], 1e6, "1.213 kWh"),
        (stock["opening_milliwh"], 1e6, "56.990740 kWh"),
        (stock["opening_ug"], 1e9, "8.400046836 kg"),
        (stock["opening_ug"] - stock["ug"], 1e9, "0.341891469 kg"),
        (stock["energy_milliwh"], 1e6, "54.661152 kWh"),
        (body["inflow_ug"]["grid"], 1e9, "0.713400 kg"),
        (outflows["it"]["ug"], 1e9, "0.873829898 kg"),
        (outflows["cooling"]["ug"], 1e9, "0.069899034 kg"),
        (outflows["export"]["ug"], 1e9, "0.111562537 kg"),
    ):
        digits = len(text.split()[0].partition(".")[2])
        assert f"{value / scale:.{digits}f}" == text.split()[0] and text in PAGE, text
    assert body["factors"]["grid"]["ug_per_kwh"] == 205_000_000 and body["residual_milliwh"] == 0
