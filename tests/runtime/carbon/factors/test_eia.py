"""The EIA's own files: read hour by hour with its end as its name, and refused where two grids are mixed."""

import json
import random

import pytest

from tests.runtime.carbon.test_mutations import damaged
from tidegate.runtime.carbon.factors.files import read_document
from tidegate.runtime.carbon.factors.series import FactorError, parse_time

G = 1_000_000
HEAD = ("Balancing Authority,Data Date,Hour Number,Local Time at End of Hour,UTC Time at End of Hour,Demand (MW),"
        "Net Generation (MW),Net Generation (MW) from Coal,Net Generation (MW) from Natural Gas,"
        "Net Generation (MW) from Wind,Net Generation (MW) from Pumped Storage,"
        "Net Generation (MW) from Coal (Imputed)\n")  # fmt: skip
ROW = "CISO,01/01/2024,1,01/01/2024 1:00:00 AM,{at},900,1000,{coal},{gas},500,{pumped},\n"


def api(*rows, **more):
    data = [{"period": period, "respondent": zone, "fueltype": fuel, "value": value, "value-units": "megawatthours"}
            for period, zone, fuel, value in rows]  # fmt: skip
    return json.dumps({"response": {"total": str(len(rows)), "frequency": "hourly", "data": data, **more}})


def read(tmp_path, text):
    path = tmp_path / "eia.txt"
    path.write_text(text, encoding="utf-8")
    (series,) = read_document(path)
    return series


def at(text):
    return parse_time(text, "test")


def test_an_hour_of_the_api_is_named_by_its_end_and_weighted_by_fuel(tmp_path):
    """300 MW of coal at 820 and 100 of gas at 490 g/kWh, 100 of wind at 0: 590 g/kWh."""
    rows = [("2024-01-01T08", "CISO", "COL", "300"), ("2024-01-01T08", "CISO", "NG", 100), ("2024-01-01T08", "CISO",
            "WND", "100"), ("2024-01-01T09", "CISO", "COL", 0), ("2024-01-01T09", "CISO", "NG", 100),
            ("2024-01-01T09", "CISO", "WND", None)]  # fmt: skip
    series = read(tmp_path, api(*rows))
    (step,) = series.steps
    assert (step.start_utc_s, step.end_utc_s) == (at("2024-01-01T07:00Z"), at("2024-01-01T08:00Z"))
    assert step.ug_per_kwh == 590 * G and series.zone == "CISO"
    assert series.notes == ["2024-01-01T08:00Z: nothing of WND; held"]


def test_a_file_of_the_monitor_is_read_and_what_a_store_gives_back_counts_as_the_others(tmp_path):
    text = HEAD + ROW.format(at="01/01/2024 9:00:00 AM", coal='"1,250"', gas=250, pumped=-40)
    text += ROW.format(at="01/01/2024 12:00:00 PM", coal=0, gas=500, pumped=300)
    series = read(tmp_path, text)
    assert [step.start_utc_s for step in series.steps] == [at("2024-01-01T08:00Z"), at("2024-01-01T11:00Z")]
    assert series.steps[0].ug_per_kwh == (1250 * 820 + 250 * 490) * G // 2000
    assert series.steps[1].ug_per_kwh == 245 * G


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (api(("2024-01-01T08", "CISO", "COL", 1), ("2024-01-01T08", "ERCO", "COL", 1)), "2 balancing authorities"),
        (api(("2024-01-01T08", "CISO", "XXX", 1)), "no factor for fuel XXX"),
        (api(("2024-01-01", "CISO", "COL", 1)), "not an hour in UTC"),
        (api(("2024-01-01T08", "CISO", "COL", 1), ("2024-01-01T08", "CISO", "COL", 2)), "stands twice"),
        (api(), "no hour with generation"),
        ('{"response": {"data": [1]}}', "eia.txt"),
        ('{"response": {}}', "eia.txt"),
        (HEAD + ROW.format(at="01/01/2024 9:00:00 AM", coal=1, gas=1, pumped=0) * 2, "stands twice"),
        (HEAD + ROW.format(at="01/01/2024 9:30:00 AM", coal=1, gas=1, pumped=0), "not the end of an hour"),
        (HEAD + ROW.format(at="2024-01-01T09:00", coal=1, gas=1, pumped=0), "not an hour in UTC"),
        (HEAD.replace("from Wind", "from Tides") + ROW.format(at="01/01/2024 9:00:00 AM", coal=1, gas=1, pumped=0),
         "Tides' is no fuel that is known"),
        (HEAD + ROW.format(at="01/01/2024 9:00:00 AM", coal="x", gas=1, pumped=0), "line 2"),
    ],
)  # fmt: skip
def test_what_is_no_hour_of_one_grid_is_refused_by_name(tmp_path, text, words):
    with pytest.raises(FactorError, match=words):
        read(tmp_path, text)


def test_an_answer_that_was_cut_says_so(tmp_path):
    series = read(tmp_path, api(("2024-01-01T08", "CISO", "COL", 1), total="7000"))
    assert "1 of 7000 rows" in series.notes[0]


def test_damaged_files_of_the_eia_are_read_or_refused_by_name(tmp_path):
    good = [api(("2024-01-01T08", "CISO", "COL", "300"), ("2024-01-01T08", "CISO", "NG", 100)),
            HEAD + ROW.format(at="01/01/2024 9:00:00 AM", coal=1, gas=1, pumped=0)]  # fmt: skip
    rng = random.Random("eia")
    for number in range(300):
        path = tmp_path / "eia.txt"
        path.write_bytes(damaged(good[number % 2].encode(), rng))
        try:
            read_document(path)
        except FactorError as refusal:
            assert "eia" in str(refusal)
