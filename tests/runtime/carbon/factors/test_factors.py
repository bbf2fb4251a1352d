"""Factors: held and never interpolated, marked for what they are, and refused by line when they cannot be right."""

import time

import pytest

from tidegate.runtime.carbon.factors.files import COLUMNS, factors_of, read, read_csv
from tidegate.runtime.carbon.factors.series import FactorError, Factors, iso, parse_factor, parse_time

G = 1_000_000
GB = """time_utc,forecast_g_per_kwh,actual_g_per_kwh
2023-03-14T21:30Z,216,207.0
2023-03-14T22:00Z,206,
2023-03-14T23:00Z,207,190.0
"""


def at(text):
    return parse_time(text, "test")


def put(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_gb_half_hours_are_held_and_marked(tmp_path):
    series = read(put(tmp_path / "gb.csv", GB))
    factors = Factors(series, 500 * G, "fallback")
    shown = [
        (found.ug_per_kwh // G, found.status)
        for found in (
            factors.grid_at(at(t))
            for t in (
                "2023-03-14T21:30Z", "2023-03-14T21:45Z", "2023-03-14T22:15Z", "2023-03-14T22:45Z", "2023-03-14T23:00Z",
                "2023-03-15T01:15Z", "2023-03-15T06:00Z", "2023-03-14T21:00Z",
            )
        )
    ]  # fmt: skip
    assert shown == [
        (207, "actual"), (207, "actual"), (206, "forecast"), (206, "held"), (190, "actual"),
        (190, "held"), (500, "fallback"), (500, "fallback"),
    ]  # fmt: skip
    assert [note.split(":")[-1].strip() for note in series.notes] == ["no actual yet, forecast used", "held"]


def row(**changes):
    base = dict(zip(COLUMNS, ("2026-01-01T00:00Z", "2026-01-01T01:00Z", "DE", "300", "g/kWh", "average", "direct",
                              "actual", "a source", "1"), strict=True))  # fmt: skip
    base.update(changes)
    return ",".join(str(value) for value in base.values())


def table(*rows, issued=False):
    return "\n".join([",".join((*COLUMNS, "issued_at") if issued else COLUMNS), *rows]) + "\n"


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [("300", "g/kWh", 300 * G), ("0.3", "kg/kWh", 300 * G), ("0.3", "t/MWh", 300 * G), ("300", "kg/MWh", 300 * G),
     ("1000", "lb/MWh", 453_592_370)],
)  # fmt: skip
def test_units_are_turned_into_micrograms_exactly(value, unit, expected):
    assert parse_factor(value, unit, "x") == expected


def test_a_restatement_is_a_new_version_and_the_old_one_is_still_found(tmp_path):
    text = table(
        row() + ",2026-01-01T02:00Z", row(value=280, status="actual", version=2) + ",2026-01-05T00:00Z", issued=True
    )
    (series,) = read_csv(put(tmp_path / "f.csv", text))
    factors = Factors(series, 1, "")
    moment = at("2026-01-01T00:30Z")
    assert factors.grid_at(moment).ug_per_kwh == 280 * G
    assert factors.grid_at(moment, known_utc_s=at("2026-01-02T00:00Z")).ug_per_kwh == 300 * G
    assert factors.grid_at(moment, known_utc_s=at("2026-01-01T01:00Z")).status == "fallback"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (table(row(unit="g/MJ")), "line 2: unit 'g/MJ' is not known"),
        (table(row(value="300000")), "line 2: factor 300000 g/kWh is above 3 kg/kWh"),
        (table(row(value="-3")), "line 2: factor -3 g/kWh is negative"),
        (table(row(value="many")), "line 2: 'many' is not a number"),
        (table(row(value="nan")), "line 2: 'nan' is not a finite number"),
        (table(row(start_utc="2026-01-01T00:00")), "line 2: the time '2026-01-01T00:00' has no offset"),
        (table(row(start_utc="yesterday")), "line 2: 'yesterday' is not a time"),
        (table(row(end_utc="2026-01-01T00:00Z")), "line 2: the step ends at"),
        (table(row(kind="typical")), "line 2: kind 'typical'"),
        (table(row(status="sure")), "line 2: status 'sure'"),
        (table(row(), row()), "stands twice with the same issue time"),
        (table(row(), row(start_utc="2026-01-01T00:30Z", end_utc="2026-01-01T01:30Z")), "overlap"),
        (table("2026-01-01T00:00Z,x"), "line 2: fewer fields"),
        ("start_utc,value\n", "column end_utc, zone"),
        ("a,b\n1,2\n", "neither a factor file nor an answer"),
        (GB.replace("206,", ","), "line 3: neither an actual nor a forecast"),
        (table(row(kind="marginal")), "no factors of kind average"),
    ],
)
def test_a_bad_factor_file_is_refused_by_line(tmp_path, text, words):
    with pytest.raises(FactorError, match=words):
        read(put(tmp_path / "f.csv", text))


def test_a_file_of_a_later_format_is_refused_by_name(tmp_path):
    assert read(put(tmp_path / "f.csv", "# tidegate factors 1\n" + table(row()))).steps
    with pytest.raises(FactorError, match=r"f.csv: factor file of format 2, this version knows 1; update tidegate"):
        read(put(tmp_path / "f.csv", "# tidegate factors 2\n" + table(row())))
    with pytest.raises(FactorError, match=r"f.csv, line 1: '# my notes' is neither"):
        read(put(tmp_path / "f.csv", "# my notes\n" + table(row())))
    with pytest.raises(FactorError, match=r"f.csv, line 3: unit 'g/MJ'"):
        read(put(tmp_path / "f.csv", "# tidegate factors 1\n" + table(row(unit="g/MJ"))))


def test_a_version_issued_in_the_future_is_refused_by_name(tmp_path, monkeypatch):
    put(tmp_path / "f.csv", table(row() + ",2026-01-01T02:00Z", row(version=2) + ",2036-01-05T00:00Z", issued=True))
    monkeypatch.setattr(time, "time", lambda: at("2026-01-06T00:00Z"))
    with pytest.raises(FactorError, match="a source: the version of 2026-01-01T00:00Z was issued 2036-01-05T00:00Z"):
        factors_of({"factors": "f.csv"}, tmp_path)
    monkeypatch.setattr(time, "time", lambda: 1000.0)  # a clock that is not set knows no future
    assert factors_of({"factors": "f.csv"}, tmp_path).grid_at(at("2026-01-01T00:30Z")).version == "2"


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "f.csv"
    path.write_bytes(table(row()).encode() + b"\xff\n")
    with pytest.raises(FactorError, match="is not UTF-8"):
        read_csv(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FactorError, match="No such file"):
        read(tmp_path / "none.csv")


def test_a_source_that_burns_nothing_says_so():
    assert Factors(None, 1, "").source_at("pv").record()["source"].startswith("no fuel")
    assert iso(0) == "1970-01-01T00:00Z"
