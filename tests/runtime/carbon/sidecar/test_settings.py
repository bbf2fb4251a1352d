"""What [carbon] says reaches the booked periods: flags, bounds, ranges, the residual mix."""

import pytest

from tests.runtime.carbon.factors.test_factors import row, table
from tests.runtime.carbon.sidecar.test_service import DESCRIBE, HOUR, Journal, journal
from tidegate.hal.description import described
from tidegate.runtime.carbon.engine.topology import nodes_of
from tidegate.runtime.carbon.factors.series import iso
from tidegate.runtime.carbon.ledger.ledger import Ledger
from tidegate.runtime.carbon.report.document import gather
from tidegate.runtime.carbon.sidecar.service import Sidecar, catch_up


def site(**carbon):
    return {**DESCRIBE, "carbon": carbon}


def booked(tmp_path, text, **carbon):
    (tmp_path / "f.csv").write_text(text)
    one = Sidecar(site(factors="f.csv", **carbon), Ledger(tmp_path / "l.db"), folder=tmp_path)
    catch_up(one, Journal(journal(3700, step_s=5)))
    one.commit()
    assert one.ledger.verify() == []
    return one


def steps(*grams, length=900, kind="average"):
    return [row(start_utc=iso(HOUR + i * length), end_utc=iso(HOUR + (i + 1) * length), value=g, kind=kind)
            for i, g in enumerate(grams)]  # fmt: skip


def test_a_period_is_booked_with_the_mean_of_the_steps_in_it(tmp_path):
    one = booked(tmp_path, table(*steps(100, 700, 700, *[300] * 9, length=300)))
    first, *others = [e.body for e in one.ledger.entries("period")]
    assert [body["factors"]["grid"]["ug_per_kwh"] // 10**6 for body in others] == [300, 300, 300]
    minutes = next(row["shape_milliwh"] for name, row in first["flows"].items() if name.endswith("import"))
    mean_g = sum(g * sum(minutes[5 * i : 5 * i + 5]) for i, g in enumerate((100, 700, 700))) / sum(minutes)
    assert abs(mean_g - 500) > 1  # the load is not even, and what was drawn is what counts
    assert first["factors"]["grid"]["ug_per_kwh"] / 1e6 == pytest.approx(mean_g, abs=0.01)


def test_an_implausible_factor_is_flagged_in_its_period_and_held_where_the_site_says_so(tmp_path):
    text = table(*steps(310, 45, 305, 300))
    one = booked(tmp_path, text)
    found = list(one.ledger.entries("period"))
    assert ["FACTOR_IMPLAUSIBLE" in e.body["flags"] for e in found] == [False, True, False, False]
    assert found[1].body["factors"]["grid"]["ug_per_kwh"] == 45_000_000
    assert gather(one.ledger, HOUR, HOUR + 3600)[0]["flags"]["FACTOR_IMPLAUSIBLE"] == 1
    (tmp_path / "held").mkdir()
    held = list(booked(tmp_path / "held", text, implausible_factors="hold").ledger.entries("period"))[1].body
    assert (held["factors"]["grid"]["ug_per_kwh"], held["factors"]["grid"]["status"]) == (310_000_000, "held")
    assert "FACTOR_IMPLAUSIBLE" in held["flags"]


def test_the_residual_mix_is_booked_with_each_period(tmp_path):
    one = booked(tmp_path, table(*steps(*[300] * 4), *steps(*[600] * 4, kind="residual")))
    assert [e.body["residual_ug_per_kwh"] for e in one.ledger.entries("period")] == [600_000_000] * 4


def test_bounds_and_ranges_of_the_site_reach_the_meters():
    limits = {"limits": {"connection_import_w_max": 100_000.0}}
    plain = nodes_of(described({**DESCRIBE, **limits}))
    (grid,) = (flow for flow in plain.flows if flow.name == "grid.import")
    assert (grid.w_max, grid.nameplate_w, grid.rollover_milliwh) == (300_000.0, 100_000.0, 0)
    said = {"meter_w_max": 5e6, "register_range_kwh": {"grid.import": 100_000, "moon.load": 5}}
    nodes = nodes_of(described({**DESCRIBE, **limits, "carbon": said}))
    (grid,) = (flow for flow in nodes.flows if flow.name == "grid.import")
    assert (grid.w_max, grid.rollover_milliwh) == (5e6, 100_000 * 10**6)
    assert any(
        "register_range_kwh: moon.load is no flow of this site; known: grid.import" in note for note in nodes.notes
    )


def test_another_zone_beside_the_one_in_force_is_refused_after_a_restart_too(tmp_path):
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "b.csv").write_text(table(*steps(*[300] * 4)))
    one = Sidecar(site(factors="f"), Ledger(tmp_path / "l.db"), folder=tmp_path)
    one.ledger.close()
    (tmp_path / "f" / "a.csv").write_text(table(row(zone="FR", value=50)))
    again = Sidecar(site(factors="f"), Ledger(tmp_path / "l.db"), folder=tmp_path)
    assert again.factors.grid is not None and again.factors.grid.zone == "DE"
    assert any("factors of several zones; DE is in force, FR is not used" in text for text in again.refresh())
