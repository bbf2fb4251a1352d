"""A site that goes on without the grid: genset, PV, faults, the return. TIDEGATE_ISLAND_SEEDS=200 runs more seeds."""

import itertools
import os
import tomllib

import islands
import numpy as np
import pytest
import recorded

from tidegate.config.compile import compile_site
from tidegate.config.site import SiteError, load_site, parse_site
from tidegate.ext.abi.image import REASONS_BY_NUMBER, Quality
from tidegate.ext.abi.shared import ISLAND_NAMES, OrderKind
from tidegate.hal.sim.virtual import VirtualPlant

SEEDS = int(os.environ.get("TIDEGATE_ISLAND_SEEDS", "16"))
LOSS = {"kind": "island", "target": 0, "on_s": 90.0, "off_s": 200.0}
CONTACT = 'contact = [{ input = "transfer", does = "active", at_s = 90, for_s = 110 }]'


def plant(load_w, *, changes=(), pv=None, **overrides):
    head, _, _ = islands.SITE.read_text().partition("[simulation]")
    text = head + "[simulation]\n" + CONTACT + "\n"
    text = text.replace("reconnect_wait_s = 60", "reconnect_wait_s = 20").replace("_per_min = 10", "_per_min = 120")
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    site, problems = parse_site(tomllib.loads(text), text)
    assert site is not None and not problems, problems
    site._folder = load_site(str(islands.SITE)).folder
    load = load_w if isinstance(load_w, tuple) else (np.array([0.0]), np.array([load_w]))
    settings = {"trace_phase_s": 0.0, "soc_start": 0.5, "genset_start_s": 5.0, "faults": [LOSS], **overrides}
    return VirtualPlant(compile_site(site), load, pv=pv, seed=4, series_every=10, overrides=settings)


def told(world, kind="island"):
    names = ISLAND_NAMES if kind == "island" else ("let go", "asked for")
    return [(round(row["t_ns"] * 1e-9 - 1.0, 1), names[row["code"]]) for row in world.events if row["event"] == kind]


def point(world, name):
    """The value of a point of the site now; None where nothing is known."""
    picture = world.picture()
    at = [row[0] for row in world._points].index(name)
    return picture.values[at] if picture.qualities[at] == Quality.GOOD else None


def test_every_seeded_plant_keeps_its_genset_between_its_limits_and_comes_back_by_the_ramp():
    found = [islands.run(islands.case(seed)) for seed in range(1000, 1000 + SEEDS)]
    worst = max(found, key=lambda one: one.above_s + one.below_s)
    assert not [(one.seed, one.wrong) for one in found if one.wrong]
    assert sum(one.trips for one in found) == 0
    assert worst.above_s + worst.below_s <= 0.5, worst


@pytest.mark.parametrize("kind", islands.KINDS)
def test_each_fault_leaves_the_genset_whole_and_the_return_as_it_should_be(kind):
    one = islands.run(islands.case(77, kind))
    assert not one.wrong and one.trips == 0 and one.above_s + one.below_s <= 0.5, one


def test_without_a_battery_that_moves_the_same_genset_is_overloaded_and_trips():
    with plant((np.array([0.0, 120.0]), np.array([25e3, 52e3]))) as world:
        world.order(OrderKind.OPERATOR_STOP, 1.0, 300.0)
        world.run(150.0)
        assert world.world.genset["trips"] >= 1
        assert ("genset missing" in [name for _, name in told(world)]) or len(told(world)) > 3


def test_loss_genset_and_return_are_told_and_the_battery_waits_and_rises_with_the_grid():
    with plant(25e3) as world:
        world.run(89.0)
        assert point(world, "site.island") == 0 and point(world, "site.genset_wanted") == 0
        world.run(4.0)
        assert point(world, "site.island") == 1 and point(world, "site.genset_wanted") == 1
        assert point(world, "site.setpoint_w") == 0
        world.run(27.0)
        assert point(world, "site.island") == 2
        # It is charged so that the genset gives genset_charge_w.
        assert world.series()["ess_w"][-1] == pytest.approx(-9e3, abs=200.0)
        world.run(130.0)
        assert point(world, "site.island") == 0
        assert [name for _, name in told(world)] == ["dark", "genset", "dark", "grid"]
        assert told(world)[0][0] == pytest.approx(90.5, abs=0.5)
        series = world.series()
        waits = (series["t_s"] > 201.0) & (series["t_s"] < 219.5)
        assert np.abs(series["ess_w"][waits]).max() < 50.0
        # Asked for 600 s at least, whatever the grid does meanwhile.
        assert point(world, "site.genset_wanted") == 1 and told(world, "genset") == [(told(world)[0][0], "asked for")]


@pytest.mark.parametrize("forming", [False, True], ids=["genset", "forming"])
def test_a_recorded_island_is_decided_alike_to_the_byte_from_loss_to_return(forming):
    """Loss, genset or converters that carry, PV that is told its place, return, wait and ramp."""
    pv = (np.array([0.0, 110.0]), np.array([0.0, 20e3]))
    changes = [("[island]\n", "[island]\ngrid_forming = true\n"), ("start_soc = 0.3", "start_soc = 0.55")]
    with plant(20e3, pv=pv, soc_start=0.5, changes=changes[: 2 * forming]) as world:
        world.run(86.0)
        run = recorded.an_island(world, 235.0)
        names = [row[0] for row in world._points]
    again, place, seen, orders = recorded.Again(run.blob), 0, 0, []
    while place < len(run.records):
        place, cycles, differs, _, _ = again.replay.run(run.records, place, 1)
        assert differs is None, again.replay.what
        if cycles and again.memory.cycle in run.images:
            picture = again.memory.read_image()
            assert recorded.checksum(again.memory) == run.images[again.memory.cycle], again.memory.cycle
            shown = {}
            for name in ("site.island", "site.genset_wanted", "site.pv_limit_w", "site.setpoint_w", "site.reconnect_w"):
                at = names.index(name)
                shown[name] = picture.values[at] if picture.qualities[at] == Quality.GOOD else None
            orders.append(shown)
            seen += 1
    again.close()
    assert seen == len(run.images)
    states = [name for name, _ in itertools.groupby(one["site.island"] for one in orders)]
    assert states == ([0, 3, 1, 0] if forming else [0, 1, 2, 1, 0]), "else nothing of an island was replayed"
    assert [name for name, _ in itertools.groupby(one["site.genset_wanted"] for one in orders)] == [0, 1]
    assert any(one["site.pv_limit_w"] for one in orders) and any(one["site.reconnect_w"] for one in orders)
    assert forming or len({one["site.setpoint_w"] for one in orders}) > 5


def test_a_recorded_island_with_a_genset_of_another_size_is_decided_otherwise():
    """A replay that cannot differ would show nothing."""
    with plant(45e3) as world:
        world.run(86.0)
        run = recorded.an_island(world, 130.0, 5.0)
    with plant(45e3, changes=[("genset_w_max = 40000", "genset_w_max = 38000")]) as other:
        beside = recorded.Again(other._program)
    _, differs = beside.whole(run.records)
    assert differs is not None
    beside.close()


def test_a_full_battery_beside_pv_tells_how_much_pv_has_a_place():
    pv = (np.array([0.0, 110.0]), np.array([0.0, 20e3]))
    with plant(20e3, pv=pv, soc_start=0.96) as world:
        world.run(150.0)
        assert point(world, "site.island") == 2
        # 20 kW of load, 12 kW of them the genset's least: 8 kW are left for PV, and the battery takes nothing.
        assert point(world, "site.pv_limit_w") == pytest.approx(8e3, abs=300.0)
        missed = {REASONS_BY_NUMBER[row["code"]] for row in world.events if row["event"] == "unenforced"}
        assert "island" in missed, "nothing more can be done for the least load, and that is told"
        world.run(80.0)
        assert point(world, "site.pv_limit_w") is None


def test_converters_that_carry_the_site_are_asked_for_nothing_and_the_genset_by_the_state_of_charge():
    changes = [("[island]\n", "[island]\ngrid_forming = true\n"), ("start_soc = 0.3", "start_soc = 0.55")]
    with plant(25e3, changes=changes) as world:
        world.run(120.0)
        assert point(world, "site.island") == 3 and point(world, "site.genset_wanted") == 1
        series = world.series()
        assert np.abs(series["setpoint_w"][series["t_s"] > 91.0]).max() == 0.0
    with plant(25e3, changes=changes, soc_start=0.7) as world:
        world.run(120.0)
        assert point(world, "site.island") == 3 and point(world, "site.genset_wanted") == 0


def test_a_site_without_the_table_tells_nothing_of_islands():
    site = load_site(str(islands.SITE.parent / "simulated.toml"))
    with VirtualPlant(compile_site(site), seed=2, overrides={"faults": [LOSS]}) as world:
        world.run(100.0)
        assert point(world, "site.island") is None and not told(world) and point(world, "site.genset_wanted") is None


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("genset_w_max = 40000\n", "", "genset_w_max is missing"),
        ("genset_w_min = 12000", "genset_w_min = 40000", "is not below genset_w_max"),
        ("genset_charge_w = 34000", "genset_charge_w = 9000", "lies outside"),
        ("start_soc = 0.3", "start_soc = 0.8", "is not below stop_soc"),
        ("reconnect_wait_s = 60", "base_load_w = 0", "reconnect_wait_s is missing"),
    ],
)
def test_an_island_that_cannot_be_is_refused_with_what_to_do(old, new, says):
    text = islands.SITE.read_text()
    assert old in text
    text = text.replace(old, new)
    _, problems = parse_site(tomllib.loads(text), text)
    assert any(says in one for one in problems), problems


def test_a_genset_that_nothing_tells_from_the_grid_is_refused():
    text = islands.SITE.read_text().replace(islands.CONTACT, "").partition("[simulation]")[0] + "[simulation]\n"
    site, problems = parse_site(tomllib.loads(text), text)
    assert site is not None and not problems
    with pytest.raises(SiteError, match="nothing tells the two apart"):
        compile_site(site)
