"""Demand, what the battery changed, and what a span is compared with: by hand, and from the ledger."""

import json

import pytest
from click.testing import CliRunner

from tests.runtime.carbon.report.test_write import DAY, ledger  # noqa: F401  (a fixture)
from tidegate.runtime.carbon.report.compared import compared, spans_before
from tidegate.runtime.carbon.report.demand_windows import Demand, check_charge, import_of, read_charge
from tidegate.runtime.carbon.report.document import gather
from tidegate.runtime.carbon.report.local_time import span_of, zone_of
from tidegate.runtime.carbon.report.periods import Rows
from tidegate.runtime.carbon.report.story import story
from tidegate.runtime.carbon.report.view import Report
from tidegate.runtime.cli.carbon_commands import carbon

KWH = 1_000_000
G = 1_000_000


def body(start, grid=0, export=0, charge=0, discharge=0, price=None, w_max=None, stock=True):
    energies = {"grid.import": grid, "grid.export": export, "cabinet.charge": charge, "cabinet.discharge": discharge}
    flows = {name: {"energy_milliwh": milliwh} for name, milliwh in energies.items()}
    if w_max is not None:
        flows["grid.import"]["w_max"] = w_max
    found = {"start_utc_s": start, "length_s": 900, "flows": flows, "stock": {"cabinet": {}} if stock else {},
             "factors": {"grid": {"ug_per_kwh": 400 * G}}}  # fmt: skip
    return found if price is None else {**found, "price_u_per_kwh": price}


def taken(bodies, window_s=900, zone="UTC"):
    demand = Demand(window_s, zone_of(zone))
    for one in bodies:
        demand.add(one)
    demand.close()
    return demand


def test_what_the_battery_changed_by_hand():
    """A night at 0.10, 2 kWh charged; an evening at 0.40, 1.8 kWh of them back: 10 and 12 kWh in a quarter hour."""
    night = body(DAY, grid=10 * KWH, charge=2 * KWH, price=100_000)
    evening = body(DAY + 900, grid=12 * KWH, discharge=1_800_000, price=400_000, w_max=61_234)
    demand = taken([night, evening])
    saved = demand.saved({"u_per_kw": 10_000_000, "window_s": 900}, "EUR")
    assert (saved["import_milliwh"], saved["without_storage_import_milliwh"]) == (22 * KWH, 8 * KWH + 13_800_000)
    assert saved["demand_change_w"] == 48_000 - 55_200  # 12 kWh in a quarter are 48 kW; 13.8 are 55.2
    assert saved["demand_change_u"] == -72_000_000  # 7.2 kW less at 10 a kW
    assert saved["energy_change_u"] == 200_000 - 720_000  # 0.20 paid more, 0.72 less
    assert saved["carbon_change_ug"] == 200_000 * 400
    assert demand.document()["second_w"] == 61_234 and demand.document()["second_utc_s"] == DAY + 900


def test_without_the_battery_what_was_stored_of_the_sun_is_exported():
    assert import_of(body(DAY, grid=0, export=KWH, charge=5 * KWH))[:2] == (0, 0)
    assert import_of(body(DAY, grid=3 * KWH, export=KWH, charge=KWH))[:2] == (3 * KWH, KWH)
    assert import_of(body(DAY, grid=3 * KWH, export=KWH))[:2] == (3 * KWH, 3 * KWH), "nothing moved, nothing differs"


def test_a_window_of_half_an_hour_takes_the_mean_of_both_quarters():
    demand = taken([body(DAY + 900 * i, grid=kwh * KWH) for i, kwh in enumerate((4, 8, 10, 0))], 1800)
    assert [(row["utc_s"], row["w"]) for row in demand.document()["peaks"]] == [(DAY, 24_000), (DAY + 1800, 20_000)]


def test_each_local_month_has_its_own_peak():
    """23:30 UTC of the last of February is March in Berlin."""
    late = DAY - 1800
    bodies = [body(late - 3600, grid=9 * KWH), body(late, grid=7 * KWH), body(DAY, grid=5 * KWH)]
    assert [row["w"] for row in taken(bodies).document()["months"]] == [36_000, 20_000]
    assert [row["w"] for row in taken(bodies, zone="Europe/Berlin").document()["months"]] == [36_000, 28_000]


def test_without_storage_nothing_is_claimed_and_without_a_price_no_money():
    assert taken([body(DAY, grid=KWH, stock=False)]).saved(None, "EUR") is None
    found = taken([body(DAY, grid=KWH, discharge=KWH)]).saved(None, "EUR")
    assert (found["demand_change_u"], found["energy_change_u"], found["demand_change_w"]) == (None, None, -4000)


@pytest.mark.parametrize(
    ("text", "zone", "kind", "before", "year"),
    [
        ("2024-03", "UTC", "month", "2024-02", "2023-03"),
        ("2024-03", "Europe/Berlin", "month", "2024-02", "2023-03"),
        ("2024-01", "Asia/Shanghai", "month", "2023-12", "2023-01"),
        ("2024", "UTC", "year", "2023", "2023"),
    ],
)
def test_months_and_years_are_compared_by_the_calendar_of_the_place(text, zone, kind, before, year):
    assert spans_before(*span_of(text, zone), zone) == (kind, span_of(before, zone), span_of(year, zone))


def test_days_and_other_spans_are_compared_with_as_much_time_before():
    start, end = span_of("2024-02-29")
    assert spans_before(start, end, "UTC") == ("day", (start - 86_400, start), span_of("2023-03-01"))
    kind, before, _ = spans_before(start, start + 7200, "UTC")
    assert (kind, before) == ("span", (start - 7200, start))


def test_what_is_hardly_booked_is_not_compared(ledger):  # noqa: F811
    found = compared(ledger, DAY + 86_400, DAY + 2 * 86_400, "UTC", 900, None)
    assert found["year_before"] is None and found["booked_s"] == {"before": 86_400, "year_before": 0}
    before = found["before"]
    document, *_ = gather(ledger, DAY, DAY + 86_400)
    assert before["location_based_ug"] == document["scope2"]["location_based_ug"]
    assert before["peak_w"] == document["demand"]["months"][0]["w"]
    half = compared(ledger, DAY + 43_200, DAY + 43_200 + 86_400, "UTC", 900, None)
    assert half["before"] is None and half["booked_s"]["before"] == 43_200


def test_the_story_is_five_sentences_in_each_language(ledger):  # noqa: F811
    rows = Rows(96, 86_400)
    charge = {"u_per_kw": 12_500_000, "window_s": 900}
    document, *_ = gather(ledger, DAY, DAY + 86_400, each=rows.add, demand_charge=charge)
    said = {code: story(Report(document, rows, code)) for code in ("en", "zh", "de")}
    assert all(len(sentences) == 5 for sentences in said.values())
    assert "too little of the time before is booked to compare" in said["en"][0]
    assert "EUR of demand charge" in said["en"][4] and "Leistungspreis" in said["de"][4] and "需量电费" in said["zh"][4]
    kwh = sum(milliwh for name, milliwh in document["energy_milliwh"]["outflow"].items() if name != "export") / 1e6
    assert f"{kwh:,.0f} kWh" in said["en"][0] and f"{kwh:,.0f}".replace(",", ".") in said["de"][0]
    document["compared"]["before"] = {"used_milliwh": 2 * round(kwh * 1e6), "booked_s": 86_400, "location_based_ug": 0,
                                      "peak_w": document["demand"]["months"][0]["w"]}  # fmt: skip
    more = story(Report(document, rows, "en"))
    assert "50.0 % less on the day before" in more[0] or "50.0 % less than on the day before" in more[0]
    assert "on the day before it was 0" in more[1] and "as much as on the day before" in more[2]


@pytest.mark.parametrize(
    "charge",
    [
        {},
        {"u_per_kw": -1, "window_s": 900},
        {"u_per_kw": 1, "window_s": 7},
        {"u_per_kw": 1.5, "window_s": 900},
        {"u_per_kw": True, "window_s": 900},
    ],
)
def test_a_demand_charge_that_cannot_be_is_refused(charge):
    with pytest.raises(ValueError, match="demand charge"):
        check_charge(charge)


def test_the_command_takes_a_demand_charge_and_verify_finds_it_again(ledger, tmp_path):  # noqa: F811
    assert read_charge(None, 900) is None and read_charge(None, 1800) == {"u_per_kw": None, "window_s": 1800}
    path = str(tmp_path / "ledger.db")
    out = tmp_path / "r"
    options = ["report", path, "--span", "2024-03-01", "--no-pdf", "--out", str(out), "--demand-price", "12.50"]
    found = CliRunner().invoke(carbon, [*options, "--demand-window", "1800"])
    assert found.exit_code == 0, found.output
    report = json.loads((out / "report.json").read_text())
    assert report["given"]["demand_charge"] == {"u_per_kw": 12_500_000, "window_s": 1800}
    assert report["saved"]["demand_change_u"] == report["saved"]["demand_change_w"] * 12_500
    assert CliRunner().invoke(carbon, ["verify", path, "--report", str(out / "report.json")]).exit_code == 0
    refused = CliRunner().invoke(carbon, [*options[:-1], "1,50"])
    assert refused.exit_code != 0 and "--demand-price" in refused.output
