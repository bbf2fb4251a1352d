"""An outage planned before it comes: who is served, when the generator set runs, how long the battery carries it."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tidegate.runtime.cli.plan_commands import plan
from tidegate.runtime.planner.day_ahead import backup_reserve
from tidegate.runtime.planner.outage_plan import (
    Consumer,
    Genset,
    Island,
    black_start,
    carried_h,
    plan_outage,
    read_island,
)
from tidegate.runtime.planner.plan_inputs import Horizon, PlanError, Storage

ROOT = Path(__file__).parents[3]
SITE = str(ROOT / "config/sites/simulated.toml")
HOURS = str(ROOT / "tests/data/planner/de_lu_gpu_room_2025H1.csv")
STORAGE = Storage(60, 30, 30)
BOTH = (Consumer("racks", 0.6, 0.0), Consumer("rest", 0.4, 0.0))
GENSET = Genset(kw_max=40, kw_min=12, fuel_l_per_h=1.5)


def balance(made, load, pv):
    return made.genset_kw + made.battery_kw + pv - made.curtailed_kw + made.shed_kw.sum(axis=0) - load


def kept(made, load, pv, storage, stored, genset, step_h):
    """What no plan may break, whatever the seed; gives what is broken."""
    broken = []
    passed = np.diff(np.concatenate([[np.clip(stored, storage.least_kwh, storage.most_kwh)], made.stored_kwh]))
    gave = np.where(made.battery_kw > 0, -made.battery_kw / storage.discharge_efficiency,
                    -made.battery_kw * storage.charge_efficiency) * step_h  # fmt: skip
    if np.abs(passed - gave).max() > 1e-4:
        broken.append("losses")
    if np.abs(balance(made, load, pv)).max() > 1e-5:
        broken.append("balance")
    if made.stored_kwh.min() < storage.least_kwh - 1e-6 or made.stored_kwh.max() > storage.most_kwh + 1e-6:
        broken.append("store")
    runs = made.genset_kw > 1e-6
    if genset is not None and runs.any() and made.genset_kw[runs].min() < genset.kw_min - 1e-5:
        broken.append("least load")
    if genset is not None and genset.fuel_l is not None and made.fuel_l > genset.fuel_l + 1e-5:
        broken.append("fuel")
    if (made.shed_kw < -1e-9).any() or made.shed_kw.sum(axis=0).max() > load.max() + 1e-6:
        broken.append("shed")
    lengths = [len(part) for part in "".join("1" if one else "0" for one in runs[:-1]).split("0") if part]
    least = 0 if genset is None else genset.run_min / 60 / step_h
    if lengths and not runs[-1] and min(lengths) < least - 1e-9:
        broken.append("least run")
    return broken


def test_a_battery_that_lasts_needs_no_generator_set():
    made = plan_outage(Island(BOTH, GENSET), STORAGE, np.full(8, 20.0), np.zeros(8), 57.0, 0.25)
    assert made.starts == 0 and made.fuel_l == 0.0 and made.whole_steps == 8 and made.shed_kw.max() < 1e-6


def test_the_generator_set_runs_at_its_least_load_or_more_or_not_at_all():
    load = np.full(32, 5.0)
    made = plan_outage(Island(BOTH, GENSET), STORAGE, load, np.zeros(32), 8.0, 0.25)
    runs = made.genset_kw > 1e-6
    assert made.whole_steps == 32 and made.starts == 1
    assert made.genset_kw[runs].min() >= 12 - 1e-6 and (made.battery_kw[runs] < 0).all(), "it charges what is too much"
    assert kept(made, load, np.zeros(32), STORAGE, 8.0, GENSET, 0.25) == []


def test_without_a_generator_set_the_last_of_the_list_is_shed_first():
    made = plan_outage(Island(BOTH), STORAGE, np.full(16, 20.0), np.zeros(16), 57.0, 0.25)
    assert made.shed_kw[1].sum() > 1 and made.shed_kw[0].sum() < 1e-6
    assert made.whole_steps < 16 and made.shed_kw[1].max() <= 8.0 + 1e-9
    less = plan_outage(Island(BOTH), STORAGE, np.full(16, 20.0), np.zeros(16), 30.0, 0.25)
    dark = np.flatnonzero(less.shed_kw[0] > 1e-6)
    assert len(dark) and dark.min() + len(dark) == 16, "the first of the list as late as can be"


def test_a_tank_that_runs_out_ends_it():
    load = np.full(24, 30.0)
    full = plan_outage(Island(BOTH, GENSET), STORAGE, load, np.zeros(24), 30.0, 0.25)
    little = plan_outage(
        Island(BOTH, Genset(40, 12, fuel_l_per_h=1.5, fuel_l=15.0)), STORAGE, load, np.zeros(24), 30.0, 0.25
    )
    assert full.whole_steps == 24 and little.fuel_l == pytest.approx(15.0, abs=0.5) and little.shed_kw.sum() > 0


def test_a_generator_set_that_needs_time_to_start_is_not_there_at_once():
    slow = Genset(40, 12, start_min=30.0)
    made = plan_outage(Island(BOTH, slow), STORAGE, np.full(16, 20.0), np.zeros(16), 15.0, 0.25)
    assert made.genset_kw[:2].max() < 1e-6 and made.whole_steps == 16


def test_sun_that_nobody_takes_is_curtailed():
    pv = np.full(16, 50.0)
    made = plan_outage(Island(BOTH, GENSET), STORAGE, np.full(16, 5.0), pv, 57.0, 0.25)
    assert made.curtailed_kw.sum() == pytest.approx(16 * 45.0) and made.starts == 0


def test_seeded_outages_break_no_rule():
    broken = {}
    for seed in range(60):
        rng = np.random.default_rng(seed)
        n, step_h = int(rng.integers(4, 33)), 0.25
        storage = Storage(rng.uniform(10, 200), rng.uniform(5, 60), rng.uniform(5, 60))
        least = rng.uniform(2, 15)
        genset = None if seed % 4 == 0 else Genset(
            least + rng.uniform(0, 60), least, float(rng.choice([0.5, 20])), float(rng.choice([15, 60])),
            rng.uniform(0, 3), fuel_l=None if seed % 3 else float(rng.uniform(0, 100)))  # fmt: skip
        shares = rng.dirichlet(np.ones(int(rng.integers(1, 5))))
        island = Island(tuple(Consumer(f"c{i}", float(one), 0.0) for i, one in enumerate(shares)), genset)
        load, pv = rng.uniform(2, 60, n), np.maximum(0, rng.normal(5, 15, n))
        stored = float(rng.uniform(0, storage.energy_kwh))
        made = plan_outage(island, storage, load, pv, stored, step_h)
        if found := kept(made, load, pv, storage, stored, genset, step_h):
            broken[seed] = found
    assert not broken


def test_a_number_that_is_none_is_refused():
    with pytest.raises(PlanError, match="no number"):
        plan_outage(Island(BOTH), STORAGE, np.array([1.0, np.nan]), np.zeros(2), 30.0, 0.25)


# ---- how long the battery carries it ----


def test_hours_carried_are_those_of_the_energy_above_the_least():
    net = np.array([[10.0] * 24, [40.0] + [1.0] * 23, [-5.0] * 24])
    storage = Storage(60, 30, 30, 1.0, 1.0, 0.0, 1.0)
    hours = carried_h(storage, net, 25.0, 1.0)
    assert hours[0] == pytest.approx(2.5), "25 kWh at 10 kW"
    assert hours[1] == 0.0, "more than its power from the first on"
    assert hours[2] == 24.0


def test_the_reserve_by_a_share_of_past_errors_covers_that_share_of_their_paths():
    rng = np.random.default_rng(3)
    n = 48
    load, pv = np.full(n, 20.0), np.zeros(n)
    at = Horizon(0, 900, load, pv, np.full(n, 0.2), np.full(n, 0.1), np.ones(n, dtype=bool))
    storage = Storage(400, 100, 100, 1.0, 1.0, 0.0, 1.0)
    paths = np.repeat(rng.normal(0, 4, (300, 1)), n, axis=1)
    middle = backup_reserve(at, storage, 2.0, 1.0)
    sure = backup_reserve(at, storage, 2.0, 1.0, paths_kw=paths, covered=0.9)
    assert (sure > middle + 5).all()
    need = 2.0 * (20 + paths[:, 0])
    assert (need <= sure[0] + 1e-6).mean() == pytest.approx(0.9, abs=0.02)
    assert (backup_reserve(at, storage, 2.0, 1.0, paths_kw=np.zeros((0, n)), covered=0.9) == middle).all()


# ---- the black start ----


def test_the_order_of_the_black_start_names_who_cannot_start_on_the_battery_alone():
    island = Island((Consumer("racks", 0.5, 0.0), Consumer("chiller", 0.3, 25.0), Consumer("rest", 0.2, 0.0)))
    steps = black_start(island, STORAGE, 30.0)
    assert [(one.name, one.can) for one in steps] == [("racks", True), ("chiller", False), ("rest", True)]
    assert steps[1].needs_kw == 15 + 25 and steps[2].served_kw == pytest.approx(15 + 6)


# ---- the file and the command ----

ISLAND = """[genset]
kw_max = 40
kw_min = 12
fuel_l = 120
[[consumer]]
name = "racks"
share = 0.7
[[consumer]]
name = "chiller"
share = 0.3
start_kw = 28
"""


@pytest.mark.parametrize(("old", "new", "text"), [
    ("[genset]", "[gentoo]", "no table of an island"), ("kw_min = 12", "kw_min = 50", "want 0 < kw_min"),
    ("kw_max = 40\n", "", "kw_max = None"), ("share = 0.3", "share = 0.5", "add up to 1.2"),
    ("share = 0.7", "share = -1", "0 or more"), ("share = 0.7", "share = 0", "a share of the load"),
    ("start_kw = 28", "begin_kw = 28", "begin_kw is no key"), ("fuel_l = 120", 'fuel_l = "full"', "write a number"),
    (ISLAND, "", "the one that is served first"), ("[genset]", "[genset", "island.toml"),
])  # fmt: skip
def test_a_file_of_an_island_that_is_wrong_is_refused(tmp_path, old, new, text):
    path = tmp_path / "island.toml"
    path.write_text(ISLAND.replace(old, new, 1))
    with pytest.raises(PlanError, match=text):
        read_island(path)


def test_the_command_shows_the_outage_and_gives_it_as_data(tmp_path):
    path = tmp_path / "island.toml"
    path.write_text(ISLAND)
    words = ["outage", SITE, HOURS, "--island", str(path), "--now", "2025-03-10T14:00Z", "--at", "2025-03-10T17:00Z",
             "--hours", "6", "--soc", "0.8"]  # fmt: skip
    done = CliRunner().invoke(plan, words)
    assert done.exit_code == 0, done.output
    assert "the battery alone carries it for" in done.output and "in nine of ten" in done.output
    assert "black start: 1. racks" in done.output and "generator set" in done.output
    made = json.loads(CliRunner().invoke(plan, [*words, "--json"]).stdout)
    assert len(made["genset_kw"]) == 6 and [one["name"] for one in made["black_start"]] == ["racks", "chiller"]
    assert made["carried_h"]["in nine of ten"] <= made["carried_h"]["middle"]
    assert CliRunner().invoke(plan, [*words[:-2], "--at", "2025-03-20T17:00Z"]).exit_code != 0
