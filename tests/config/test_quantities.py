"""Times, powers, ranges and assignments as people write them."""

import pytest

from tidegate.config.quantities import QuantityError, assignment, seconds, unit_ids, watts


@pytest.mark.parametrize(
    ("text", "value_s"),
    [("30s", 30.0), ("500ms", 0.5), ("5m", 300.0), ("5min", 300.0), ("2H", 7200.0), ("7", 7.0), ("1.5 h", 5400.0)],
)
def test_a_time_is_read_in_its_unit(text, value_s):
    assert seconds(text) == pytest.approx(value_s)


@pytest.mark.parametrize("text", ["", "s", "5 days", "0s", "-1s", "25h", "nan", "inf", "1e400", "5s5"])
def test_what_is_no_time_is_refused_with_its_text(text):
    with pytest.raises(QuantityError, match="time"):
        seconds(text)


@pytest.mark.parametrize(
    ("text", "value_w"),
    [("5kW", 5e3), ("-2.5kW", -2.5e3), ("5000W", 5e3), ("1.2 MW", 1.2e6), ("5000", 5e3), ("5k", 5e3), ("-0W", 0.0)],
)
def test_a_power_is_read_in_its_unit(text, value_w):
    assert watts(text) == value_w


@pytest.mark.parametrize("text", ["", "kW", "nan kW", "inf", "1e10", "5 kVA", "five"])
def test_what_is_no_power_is_refused(text):
    with pytest.raises(QuantityError):
        watts(text)


def test_where_the_unit_is_needed_a_bare_number_is_refused():
    with pytest.raises(QuantityError, match="5kW"):
        watts("5", unit_needed=True)
    assert watts("5W", unit_needed=True) == 5.0


def test_unit_ids_are_read_as_numbers_and_ranges():
    assert unit_ids("1-3,30") == [1, 2, 3, 30]


@pytest.mark.parametrize("text", ["", "0", "248", "3-1", "-1", "a", "1,,2"])
def test_what_are_no_unit_ids_is_refused(text):
    with pytest.raises(QuantityError, match=r"expected|unit ids"):
        unit_ids(text)


def test_an_assignment_is_divided_at_its_last_equals_sign():
    assert assignment("/dev/by=id:1=grid-meter") == ("/dev/by=id:1", "grid-meter")
    for text in ("a", "=b", "a="):
        with pytest.raises(QuantityError, match="KEY=VALUE"):
            assignment(text)


def test_unit_ids_over_tcp_reach_from_0_to_255():
    assert unit_ids("0,255", 0, 255) == [0, 255]
    with pytest.raises(QuantityError, match="0 to 255"):
        unit_ids("256", 0, 255)
