"""Causes for a limit that nobody holds which need a site or a fault of their own: no reading, overruled, exceeded."""

import tomllib
from importlib.resources import files

import numpy as np
import pytest

from tidegate.config.compile import compile_site
from tidegate.config.site import load_site, parse_site
from tidegate.ext import shared
from tidegate.ext.image import REASONS_BY_NUMBER
from tidegate.hal.sim.virtual import VirtualPlant

SITE = files("tidegate.config").joinpath("demo/site.toml")
SDM630 = files("tidegate.hal").joinpath("devices/eastron-sdm630.toml")


def play(text, load_w, seconds, folder=None, **overrides):
    """(limit, cause, s since the first cycle) of every event, over a run of the site."""
    site, problems = parse_site(tomllib.loads(text), text)
    assert site is not None and not problems, problems
    site._folder = folder or load_site(str(SITE)).folder
    load = load_w if isinstance(load_w, tuple) else (np.array([0.0]), np.array([load_w]))
    orders = overrides.pop("orders", [])
    with VirtualPlant(
        compile_site(site), load, seed=5, overrides={"cooling_share": 0.0, "trace_phase_s": 0.0, **overrides}
    ) as world:
        world.run(5.0)
        for order in orders:
            world.order(*order)
        world.run(seconds - 5.0)
        return [(REASONS_BY_NUMBER[one["code"]], shared.UNENFORCED_NAMES[one["previous"]], one["t_ns"] * 1e-9 - 1.0)
                for one in world.events if one["event"] == "unenforced"]  # fmt: skip


def after(told, limit, at_s):
    return [(cause, t_s) for name, cause, t_s in told if name == limit and t_s > at_s]


def test_a_circuit_whose_own_meter_is_silent_is_told_as_no_reading_and_so_is_its_return():
    text = SITE.read_text().replace(
        'role = "cooling-meter"', 'role = "circuit-meter"\ncircuit_w_max = 20000\ncircuit_storage = ["cabinet"]'
    )
    faults = [{"kind": "dead", "target": "cooling", "value": 0.0, "on_s": 8.0, "off_s": 14.0}]
    found = after(play(text, 30e3, 25.0, faults=faults), "circuit limit", 7.9)
    # Asking whether it is back takes the line for as long as its time-out, so the grid meter is stale for a moment.
    assert [cause for cause, _ in found if cause != "no unit"][-2:] == ["no reading", "enforced"], found
    assert found[-1][1] < 14.0 + 4.0, "a line that is asked without a pause still leaves another meter its silence"


@pytest.mark.parametrize(("phases", "causes"), [(3, []), (2, []), (0, ["no reading"])])
def test_a_phase_limit_rests_on_the_phases_that_the_meter_has(tmp_path, phases, causes):
    rows = SDM630.read_text().split("[[")
    kept = [row for row in rows if not any(f'"power_l{n}_w"' in row for n in range(phases + 1, 4))]
    assert len(kept) <= len(rows) - 3 + phases
    (tmp_path / "meter.toml").write_text("[[".join(kept))
    text = SITE.read_text().replace('map = "eastron-sdm630"', 'map = "meter.toml"', 1)
    text = text.replace("[limits]\n", "[limits]\nphase_import_w_max = 18000\n")
    (tmp_path / "site.toml").write_text(text)
    found = play(text, 30e3, 10.0, folder=load_site(str(tmp_path / "site.toml")).folder)
    last = {name: cause for name, cause, _ in found}
    assert last.get("peak limit", "enforced") == "enforced"
    assert [cause for cause in [last.get("phase limit", "enforced")] if cause != "enforced"] == causes, found


def test_a_peak_that_the_reserve_forbids_to_shave_is_told_as_overruled():
    text = SITE.read_text().replace("[control]\n", "[control]\nreserve_soc = 0.5\n")
    found = after(play(text, 52e3, 10.0, soc_start=0.4), "peak limit", 2.0)
    assert found and found[-1][0] == "overruled", found


def test_a_person_who_charges_above_the_peak_overrules_it_and_the_event_says_so():
    manual = shared.ORDER_NAMES.index("manual_w")
    found = after(play(SITE.read_text(), 45e3, 15.0, orders=[(manual, -8e3, 5.0)]), "peak limit", 4.9)
    # It ends by itself; the grid is above the peak for as long as the converter takes to come back.
    assert [cause for cause, _ in found if cause != "exceeded"] == ["overruled", "enforced"], found
    assert found[0][1] < 6.0 and 10.0 < found[-1][1] < 12.5, found


def test_a_converter_that_does_not_answer_leaves_the_limit_exceeded():
    faults = [{"kind": "pcs.deaf", "target": "pcs1", "value": 0.0, "on_s": 6.0, "off_s": 9.0}]
    load = (np.array([0.0, 7.0]), np.array([40e3, 52e3]))
    found = after(play(SITE.read_text(), load, 20.0, faults=faults), "peak limit", 6.9)
    assert found and found[0][0] == "exceeded" and found[0][1] < 8.0, found
    assert found[-1][0] == "enforced", found
