"""Factor tables as people have them: finer than the period, of other columns, in other CSV, from a feed that broke."""

import json

import pytest

from tests.runtime.carbon.factors.test_factors import G, at, put, row, table
from tests.runtime.carbon.factors.test_services import a75, em, wt
from tidegate.runtime.carbon.factors.files import factors_of, read, read_document, read_prices
from tidegate.runtime.carbon.factors.instruments import Instrument, market_based, read_instruments
from tidegate.runtime.carbon.factors.series import FactorError, Factors, Series, Step, parse_factor, unit_of
from tidegate.runtime.carbon.factors.services import entsoe, mix_csv

HOUR = 1_717_200_000


def steps(*grams, length=300, status="actual"):
    return [Step(HOUR + i * length, HOUR + (i + 1) * length, g * G, status) for i, g in enumerate(grams)]


def of(found):
    return Factors(Series("X", "average", "table", steps=found).finish(), 900 * G, "upper bound")


def test_factors_finer_than_the_period_are_weighted_by_their_time():
    found = of(steps(100, 700, 700)).grid_at(HOUR, None, 900)
    assert (found.ug_per_kwh, found.status, found.version) == (500 * G, "actual", "3 steps, weighted by time")
    assert of(steps(100, 700, 700)).grid_at(HOUR, None, 300).ug_per_kwh == 100 * G
    assert of(steps(100)).grid_at(HOUR + 60, None, 200).version == ""  # one step, as it is


def test_the_worst_part_names_the_status_and_a_part_that_nobody_knows_counts_as_the_fallback():
    found = of([*steps(100, 100), *steps(0, 0, 130, status="forecast")[2:]])
    assert found.grid_at(HOUR, None, 900).status == "forecast"
    late = of(steps(100)).grid_at(HOUR - 600, None, 900)  # 600 s before the first step
    assert (late.ug_per_kwh, late.status) == (round((600 * 900 + 300 * 100) * G / 900), "fallback")
    held = of(steps(100)).grid_at(HOUR, None, 900)
    assert (held.ug_per_kwh, held.status) == (100 * G, "held")


def test_prices_and_carbon_free_shares_are_weighted_too():
    series = Series(
        "EUR", "price", "p", steps=[Step(HOUR, HOUR + 900, 100), Step(HOUR + 900, HOUR + 1800, 300)]
    ).finish()
    factors = Factors(None, 1, "", prices=series, cfe=series)
    assert factors.price_at(HOUR, 1800) == factors.cfe_ppm_at(HOUR, 1800) == 200
    assert factors.price_at(HOUR, 900) == 100 and factors.price_at(HOUR - 900, 1800) is None


MIX = "time_utc,gas_mw,{}\n2025-01-01T00:00Z,100,900\n2025-01-01T01:00Z,100,900\n"


@pytest.mark.parametrize("column", ["coal_mw", "peat", "geothermal_mw"])
def test_a_column_of_a_mix_that_nobody_knows_is_refused_until_it_is_mapped(column, tmp_path):
    with pytest.raises(FactorError, match=f"line 1: no factor for column '{column}'; give {column} = G_PER_KWH under"):
        mix_csv(MIX.format(column).encode(), "mix.csv")
    put(tmp_path / "mix.csv", MIX.format(column))
    factors = factors_of({"factors": "mix.csv", "source_g_per_kwh": {column: 820.0}}, tmp_path)
    assert factors.grid.steps[0].ug_per_kwh == 787 * G  # 490 if it were dropped
    factors = factors_of({"factors": "mix.csv", "not_generation": (column,)}, tmp_path)
    assert factors.grid.steps[0].ug_per_kwh == 490 * G


def test_nuclear_is_a_source_and_load_is_none():
    assert mix_csv(MIX.format("nuclear_mw").encode(), "m").steps[0].ug_per_kwh == 49 * G
    assert mix_csv(MIX.format("load_mw").encode(), "m").steps[0].ug_per_kwh == 490 * G


def test_what_a_store_gives_back_counts_as_the_others_do_unless_the_site_says_otherwise():
    assert entsoe(a75(source="B25"), "e.xml").steps[0].ug_per_kwh == 0  # beside sun alone
    assert mix_csv(MIX.format("pumped_hydro_mw").encode(), "m").steps[0].ug_per_kwh == 490 * G
    given = entsoe(a75(source="B25"), "e.xml", {"B16": 0, "B25": 300})
    assert given.steps[0].ug_per_kwh == 150 * G
    with pytest.raises(FactorError, match=r"no factor for source B99; give B99 = G_PER_KWH under \[carbon"):
        entsoe(a75(source="B99"), "e.xml")
    assert entsoe(a75(source="B99"), "e.xml", {"B16": 0}, ("B99",)).steps[0].ug_per_kwh == 0


@pytest.mark.parametrize(
    ("written", "unit"),
    [("tCO2eq/MWh", "t/MWh"), ("gCO₂eq/kWh", "g/kWh"), ("kg CO2e/MWh", "kg/MWh"), ("lbs/MWh", "lb/MWh"),
     ("g CO2 per kWh", "g/kWh"), ("kgCO2/kWh", "kg/kWh")],
)  # fmt: skip
def test_a_unit_is_read_as_people_write_it(written, unit):
    assert unit_of(written, "x") == unit
    assert parse_factor("0.3", "tCO2eq/MWh", "x") == 300 * G
    for other in ("Mg/kWh", "tons/MWh", "g/MJ", "", "kWh"):
        with pytest.raises(FactorError, match="is not known; use one of"):
            unit_of(other, "x")


def test_european_csv_reads_as_the_american_one_and_a_thousand_is_never_guessed(tmp_path):
    american = table(row(value="300.5"))
    european = "\ufeff" + american.replace(",", ";").replace("300.5", "300,5").replace("\n", "\r\n")
    assert read(put(tmp_path / "a.csv", american)).steps == read(put(tmp_path / "e.csv", european)).steps
    with pytest.raises(FactorError, match=r"a decimal comma \(line 2\) and a point \(line 3\); use one"):
        both = row(value="1.234", start_utc="2026-01-01T01:00Z", end_utc="2026-01-01T02:00Z").replace(",", ";")
        read(put(tmp_path / "b.csv", european + both))
    with pytest.raises(FactorError, match="'1,234' is not a number"):
        read(put(tmp_path / "c.csv", table(row(value='"1,234"'))))
    with pytest.raises(FactorError, match="line 2: 11 fields for 10 columns; quote what holds a separator"):
        read(put(tmp_path / "d.csv", table(row(value="300,5"))))
    with pytest.raises(FactorError, match="column 'value' stands twice"):
        read(put(tmp_path / "f.csv", table(row()).replace("unit", "value", 1)))


def test_prices_per_megawatt_hour_are_read(tmp_path):
    text = "time_utc,price_eur_per_mwh\n2025-01-01T00:00Z,250.00\n2025-01-01T01:00Z,-50.5\n"
    assert [s.ug_per_kwh for s in read_prices(put(tmp_path / "p.csv", text), "EUR").steps] == [250_000, -50_500]
    with pytest.raises(FactorError, match=r"p.csv, line 2, price_eur_per_mwh: '1e999999' is not|too large to be meant"):
        read_prices(put(tmp_path / "p.csv", text.replace("250.00", "1e999999")), "EUR")


def test_a_feed_that_lost_its_coal_is_flagged_and_held_where_the_site_says_so(tmp_path):
    broken = of(steps(310, 300, 45, 43, 47, 305, length=3600))
    assert [broken.grid_at(HOUR + 3600 * i).odd for i in range(6)] == [False, False, True, True, True, False]
    assert broken.grid_at(HOUR + 7200).ug_per_kwh == 45 * G  # used, and flagged
    broken.hold_odd = True
    held = broken.grid_at(HOUR + 4 * 3600)
    assert (held.ug_per_kwh, held.status, held.odd) == (300 * G, "held", True)
    windy = of(steps(310, 200, 120, 80, 60, 45, 60, 130, 300, length=3600))
    assert not any(windy.grid_at(HOUR + 3600 * i).odd for i in range(9))
    down = of(steps(*[300] * 3, *[45] * 40, length=3600))  # a level that holds is the new one after a day
    assert down.grid_at(HOUR + 3600 * 5).odd and not down.grid_at(HOUR + 3600 * 40).odd


def test_direct_and_lifecycle_factors_are_never_mixed(tmp_path):
    (tmp_path / "f").mkdir()
    put(tmp_path / "f" / "a.csv", table(row(), row(lifecycle="lifecycle", value=350)))
    with pytest.raises(FactorError, match=r"average factors counted in several ways \(direct, lifecycle\); choose"):
        factors_of({"factors": "f"}, tmp_path)
    for scope, grams in (("direct", 300), ("lifecycle", 350)):
        found = factors_of({"factors": "f", "factor_scope": scope}, tmp_path)
        assert found.grid_at(at("2026-01-01T00:10Z")).ug_per_kwh == grams * G and found.grid.lifecycle == scope
    both = json.loads(em())
    both["history"].append({**both["history"][0], "emissionFactorType": "lifecycle"})
    (tmp_path / "em.json").write_text(json.dumps(both))
    with pytest.raises(FactorError, match="row 1: emissionFactorType 'lifecycle' beside 'direct'"):
        read_document(tmp_path / "em.json")


def test_two_marginal_zones_are_refused(tmp_path):
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "a.csv").write_text(table(row()))
    (tmp_path / "f" / "b.json").write_bytes(wt())
    assert factors_of({"factors": "f"}, tmp_path).marginal.zone == "CAISO_NORTH"
    (tmp_path / "f" / "c.json").write_bytes(wt().replace(b"CAISO_NORTH", b"PJM"))
    with pytest.raises(FactorError, match=r"marginal factors of several zones \(CAISO_NORTH, PJM\)"):
        factors_of({"factors": "f"}, tmp_path)


def test_the_same_certificate_counts_once(tmp_path):
    line = "2026-01-01T00:00Z,2026-01-01T01:00Z,5000,0,wind,goo,yes,{}\n"
    head = "start_utc,end_utc,wh,g_per_kwh,source,kind,renewable,cancelled\n"
    with pytest.raises(FactorError, match="line 3: wind from 2026-01-01T00:00Z stands in line 2 too; a certificate"):
        read_instruments(put(tmp_path / "i.csv", head + line.format("GO-1") * 2))
    assert len(read_instruments(put(tmp_path / "i.csv", head + line.format("GO-1") + line.format("GO-2")))) == 2


def test_the_residual_mix_that_was_booked_prices_what_no_certificate_covers(tmp_path):
    (tmp_path / "f").mkdir()
    put(tmp_path / "f" / "a.csv", table(row(), row(kind="residual", value=600)))
    factors = factors_of({"factors": "f"}, tmp_path)
    assert factors.residual_at(at("2026-01-01T00:10Z"), 900) == 600 * G
    imports = [(HOUR, 900, 10 * G), (HOUR + 900, 900, 10 * G)]
    one = Instrument(HOUR, HOUR + 900, 4 * G, 0, "wind")
    found = market_based(imports, [one], 500 * G, {HOUR: 600 * G})
    assert found["hourly_ug"] == (6 * 600 + 10 * 500) * G
    with pytest.raises(ValueError, match="no residual mix is known for"):
        market_based(imports, [one], None, {HOUR: 600 * G})


PORTAL = """Datetime (UTC),Country,Zone name,Zone id,Carbon intensity gCO₂eq/kWh (direct),{},Data source,Data estimated
2026-01-01 00:00:00,Germany,Germany,DE,281.5,330.1,entsoe.eu,false
2026-01-01 01:00:00,Germany,Germany,DE,280,331,entsoe.eu,true
"""


def test_an_export_of_a_portal_is_read_with_both_ways_of_counting(tmp_path):
    text = PORTAL.format("Carbon intensity gCO₂eq/kWh (Life cycle)")
    direct, whole = read_document(put(tmp_path / "p.csv", text))
    assert (direct.lifecycle, whole.lifecycle, direct.zone) == ("direct", "lifecycle", "DE")
    assert [(s.ug_per_kwh, s.status) for s in direct.steps] == [(281_500_000, "actual"), (280 * G, "estimated")]
    found = factors_of({"factors": "p.csv", "factor_scope": "lifecycle"}, tmp_path)
    assert found.grid_at(at("2026-01-01T01:30Z")).ug_per_kwh == 331 * G


def test_the_hourly_monitor_of_the_eia_is_a_mix(tmp_path):
    text = "time_utc,WND,SUN,WAT,OIL,NG,COL,NUC,OTH\n2022-01-01T00:00Z,100,0,0,0,100,0,200,0\n"
    assert read(put(tmp_path / "e.csv", text)).steps[0].ug_per_kwh == 122_500_000
