"""Answers of public services become factors, or are refused by row; restatements keep both versions."""

import json
import os

import pytest

from tidegate.runtime.carbon.factors.files import factors_of, read_document, read_folder
from tidegate.runtime.carbon.factors.series import FactorError, Factors, parse_time
from tidegate.runtime.carbon.factors.services import electricity_maps, entsoe, gb_api, mix_csv, watttime

G = 1_000_000


def at(text):
    return parse_time(text, "test")


def em(value=281, updated="2026-01-02T03:00:00.000Z", **more):
    row = {"zone": "DE", "carbonIntensity": value, "datetime": "2026-01-01T00:00:00.000Z", "updatedAt": updated,
           "emissionFactorType": "direct", "isEstimated": False, "estimationMethod": None,
           "temporalGranularity": "hourly"} | more  # fmt: skip
    return json.dumps({"zone": "DE", "history": [row]}).encode()


def test_electricity_maps_history_is_read_with_its_marks():
    series = electricity_maps(em(isEstimated=True, estimationMethod="TIME_SLICER_AVERAGE"), "em.json")
    (step,) = series.steps
    assert (series.zone, series.lifecycle, step.ug_per_kwh) == ("DE", "direct", 281 * G)
    assert (step.status, step.mark, step.end_utc_s - step.start_utc_s) == ("estimated", "TIME_SLICER_AVERAGE", 3600)


def test_a_later_answer_restates_and_the_earlier_one_is_still_found(tmp_path):
    (tmp_path / "1.json").write_bytes(em())
    (tmp_path / "2.json").write_bytes(em(290, "2026-02-01T00:00:00.000Z"))
    (tmp_path / "3.json").write_bytes(em())
    (series,) = read_folder(tmp_path)
    factors = Factors(series, 1, "")
    moment = at("2026-01-01T00:10Z")
    assert factors.grid_at(moment).ug_per_kwh == 290 * G
    assert factors.grid_at(moment, at("2026-01-15T00:00Z")).ug_per_kwh == 281 * G


def test_an_answer_changed_by_hand_is_refused(tmp_path):
    (tmp_path / "1.json").write_bytes(em())
    (tmp_path / "2.json").write_bytes(em(5))
    with pytest.raises(FactorError, match="differs from an earlier document of the same issue"):
        read_folder(tmp_path)


def wt(signal="co2_moer", units="lbs_co2_per_mwh", value=1000.0):
    meta = {"region": "CAISO_NORTH", "signal_type": signal, "units": units, "data_point_period_seconds": 300,
            "generated_at": "2026-01-01T00:10:00+00:00", "warnings": []}  # fmt: skip
    data = [{"point_time": "2026-01-01T00:00:00+00:00", "value": value, "version": "2024-10-01"},
            {"point_time": "2026-01-01T00:15:00+00:00", "value": value, "version": "2024-10-01"}]  # fmt: skip
    return json.dumps({"meta": meta, "data": data}).encode()


def test_watttime_marginal_factors_never_enter_the_inventory(tmp_path):
    series = watttime(wt(), "wt.json")
    assert series.kind == "marginal"
    assert [(s.ug_per_kwh, s.status) for s in series.steps] == [(453_592_370, "actual"), (453_592_370, "forecast")]
    (tmp_path / "wt.json").write_bytes(wt())
    with pytest.raises(FactorError, match="no factors of kind average"):
        factors_of({"factors": "wt.json"}, tmp_path)


def test_average_and_marginal_factors_of_one_folder_stay_apart(tmp_path):
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "wt.json").write_bytes(wt())
    (tmp_path / "f" / "em.json").write_bytes(em())
    factors = factors_of({"factors": "f"}, tmp_path)
    moment = at("2026-01-01T00:01Z")
    assert factors.grid_at(moment).ug_per_kwh == 281 * G
    assert factors.marginal_at(moment).ug_per_kwh == 453_592_370


def test_the_gb_api_takes_the_actual_before_the_forecast():
    rows = [
        {"from": f"2026-01-01T0{i}:00Z", "to": f"2026-01-01T0{i}:30Z", "intensity": {"forecast": 200, "actual": actual}}
        for i, actual in enumerate((190, None))
    ]
    series = gb_api(json.dumps({"data": rows}).encode(), "gb.json")
    assert [(s.ug_per_kwh // G, s.status) for s in series.steps] == [(190, "actual"), (200, "forecast")]


def a75(curve="A03", points=((1, 100), (4, 300)), resolution="PT15M", source="B04"):
    rows = "".join(f"<Point><position>{p}</position><quantity>{q}</quantity></Point>" for p, q in points)
    return f"""<?xml version="1.0"?>
    <GL_MarketDocument xmlns="urn:iec62325.351:tc57wg16:451-6:generationloaddocument:3:0">
    <TimeSeries><inBiddingZone_Domain.mRID>10Y1001A1001A82H</inBiddingZone_Domain.mRID><curveType>{curve}</curveType>
    <MktPSRType><psrType>{source}</psrType></MktPSRType><Period><timeInterval><start>2026-01-01T00:00Z</start>
    <end>2026-01-01T01:00Z</end></timeInterval><resolution>{resolution}</resolution>{rows}</Period></TimeSeries>
    <TimeSeries><inBiddingZone_Domain.mRID>10Y1001A1001A82H</inBiddingZone_Domain.mRID><curveType>A03</curveType>
    <MktPSRType><psrType>B16</psrType></MktPSRType><Period><timeInterval><start>2026-01-01T00:00Z</start>
    <end>2026-01-01T01:00Z</end></timeInterval><resolution>PT15M</resolution><Point><position>1</position>
    <quantity>100</quantity></Point></Period></TimeSeries></GL_MarketDocument>""".encode()


def test_entsoe_repeats_a_point_that_curve_a03_leaves_out():
    series = entsoe(a75(), "e.xml")
    # gas 100, 100, 100, 300 MW beside 100 MW of sun: half, half, half, three quarters of 490 g.
    assert [s.ug_per_kwh for s in series.steps] == [245 * G, 245 * G, 245 * G, 367_500_000]


def test_entsoe_holds_where_a_source_says_nothing_instead_of_mixing_the_rest():
    series = entsoe(a75("A01"), "e.xml")
    assert [s.ug_per_kwh // G for s in series.steps] == [245, 367]
    assert series.notes == ["2026-01-01T00:15Z: nothing of B04; held", "2026-01-01T00:30Z: nothing of B04; held"]


def test_entsoe_spreads_a_source_in_whole_hours_over_the_quarters_of_the_others():
    series = entsoe(a75(points=((1, 100),), resolution="PT60M"), "e.xml")
    assert [(s.ug_per_kwh // G, s.end_utc_s - s.start_utc_s) for s in series.steps] == [(245, 900)] * 4


def test_entsoe_that_has_nothing_says_why():
    raw = b"""<Acknowledgement_MarketDocument xmlns="urn:x"><Reason><code>999</code><text>No matching data found</text>
    </Reason></Acknowledgement_MarketDocument>"""
    with pytest.raises(FactorError, match=r"e.xml: the service has no data: No matching data found"):
        entsoe(raw, "e.xml")


MIX = """time_utc,gas_mw,wind_onshore_mw,load_mw
2025-01-01T00:00Z,100,300,500
2025-01-01T01:00Z,100,,500
2025-01-01T02:00Z,0,300,500
"""


def test_a_mix_with_a_blank_is_held_and_said_so():
    series = mix_csv(MIX.encode(), "mix.csv")
    assert [s.ug_per_kwh for s in series.steps] == [122_500_000, 0]
    assert series.notes == ["2025-01-01T01:00Z: a source is blank; held"]


@pytest.mark.parametrize(
    ("name", "raw", "words"),
    [
        ("a.json", b"{", "not JSON"),
        ("a.json", json.dumps({"data": []}).encode(), "holds no data"),
        ("a.json", json.dumps({}).encode(), "no rows under history"),
        ("a.json", em(datetime="2026-01-01T00:00:00"), "has no offset"),
        ("a.json", em(carbonIntensity=281_000), "above 3 kg/kWh"),
        ("a.json", em(temporalGranularity="monthly"), "temporalGranularity 'monthly'"),
        ("a.json", wt(units="g_per_kwh"), "units 'g_per_kwh'"),
        ("a.json", wt(signal="health_damage"), "signal_type 'health_damage'"),
        ("a.json", wt(value=-1.0), "is negative"),
        ("a.xml", b"<a>", "not XML"),
        ("a.xml", a75(resolution="PT5M"), "resolution PT5M"),
        ("a.xml", a75(source="B99"), "no factor for source B99"),
        ("a.txt", b"hello", "neither a factor file nor an answer"),
    ],
)
def test_a_bad_answer_is_refused_by_name(tmp_path, name, raw, words):
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(FactorError, match=words):
        read_document(tmp_path / name)


def test_a_factor_of_the_future_is_not_used_before_it_was_known(tmp_path):
    (tmp_path / "1.json").write_bytes(em(updated="2030-01-01T00:00:00Z"))
    (series,) = read_folder(tmp_path)
    assert Factors(series, 7, "").grid_at(at("2026-01-01T00:10Z"), at("2026-06-01T00:00Z")).status == "fallback"
    os.utime(tmp_path / "1.json")
