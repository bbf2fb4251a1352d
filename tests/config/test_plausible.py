"""Powers that no converter and no connection can have: both sides of the bound, and what is left alone."""

import pytest

from tests.config.test_compile import compiled, demo_raw
from tidegate.config.plausible import is_power
from tidegate.config.summary import summary
from tidegate.ext.abi import program


def ranges(raw):
    """Point -> (min, max) of the decoded powers."""
    rows = program.rows(compiled(raw))
    return {
        rows["points"][field["point"]]["name"]: (field["min"], field["max"])
        for field in rows["fields"]
        if is_power(rows["points"][field["point"]]["name"].partition(".")[2], rows["points"][field["point"]]["unit"])
    }


def devices(raw, role):
    return [one["name"] for one in raw["device"] if one["role"] == role]


def test_a_converters_power_is_believed_up_to_twice_its_plate():
    raw = demo_raw()
    (unit, *_), (pcs, *_) = raw["storage"], devices(raw, "pcs")
    widest = max(unit["charge_w_max"], unit["discharge_w_max"])
    assert ranges(raw)[f"{pcs}.power_w"] == (-2 * widest, 2 * widest)
    next(one for one in raw["device"] if one["name"] == pcs)["nameplate_w_max"] = widest * 3
    assert ranges(raw)[f"{pcs}.power_w"] == (-6 * widest, 6 * widest)


def test_the_wrapped_word_of_a_small_converter_is_beyond_it_and_its_overload_is_not():
    raw = demo_raw()
    pcs = devices(raw, "pcs")[0]
    low, high = ranges(raw)[f"{pcs}.power_w"]
    assert high < 65_536 - 2_000 or raw["storage"][0]["discharge_w_max"] > 31_768
    assert low < -1.5 * raw["storage"][0]["charge_w_max"]


def test_the_grid_meter_is_bounded_by_its_connection_and_other_meters_are_not():
    raw = demo_raw()
    grid = devices(raw, "grid-meter")[0]
    through = raw["limits"]["connection_import_w_max"] + sum(
        max(one["charge_w_max"], one["discharge_w_max"]) for one in raw["storage"]
    )
    assert ranges(raw)[f"{grid}.power_w"][1] == pytest.approx(2 * through)
    for name in devices(raw, "it-meter"):
        assert ranges(raw)[f"{name}.power_w"][1] > 1e6
    del raw["limits"]["connection_import_w_max"]
    raw["limits"].pop("connection_export_w_max", None)
    assert ranges(raw)[f"{grid}.power_w"][1] > 1e6


def test_limits_are_no_powers():
    assert is_power("power_w", "W") and is_power("power_l1_w", "W")
    assert not is_power("charge_w_max", "W") and not is_power("power_w_max", "W") and not is_power("energy_wh", "Wh")


def test_check_says_beyond_which_power_a_reading_is_not_believed():
    raw = demo_raw()
    pcs = devices(raw, "pcs")[0]
    assert any(
        line.startswith(f"{pcs}: a power beyond") and "nameplate_w_max" in line for line in summary(compiled(raw))
    )
